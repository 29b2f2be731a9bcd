"""Train a DIN from Parquet: log-loss, validation per epoch, early stopping.

Rows are encoded batch by batch by the same kernels that serve, so there is no second
definition of a feature.
"""

import copy
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch.nn import functional
from tqdm import tqdm

from din_converter.model import ClickModel, build_model
from din_infer import columns, metrics
from din_infer.errors import InputError, ModelError, explain
from din_infer.jobs.files import name_row, open_parquet
from din_infer.spec import Calibration, FeatureSpec

__all__ = ["Epoch", "Settings", "Trained", "evaluate", "read_table", "train"]

CHECKED_ROWS = 1 << 16


@dataclass(frozen=True)
class Settings:
    """How to train; the defaults are din-train's."""

    epochs: int = 10
    batch_size: int = 1024
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    patience: int = 2
    valid_fraction: float = 0.1
    seed: int = 0
    threads: int | None = None
    progress: bool = True


@dataclass(frozen=True)
class Epoch:
    """What one epoch measured; GAUC is None without a `group` column."""

    number: int
    train_log_loss: float
    log_loss: float
    auc: float
    gauc: float | None


@dataclass
class Trained:
    """The best model, and every epoch on the way to it."""

    model: ClickModel
    best: Epoch | None
    epochs: list[Epoch] = field(default_factory=list)


def read_table(path: str | Path, spec: FeatureSpec) -> pa.Table:
    """Read the columns that training needs from a Parquet file.

    Raises
    ------
    InputError
        If the file is not Parquet, or lacks a column.
    """
    roles = (spec.label, spec.group, spec.time, spec.weight)
    wanted = list(dict.fromkeys([*spec.columns, *(r for r in roles if r)]))
    with open_parquet(path, wanted) as file:
        return file.read(columns=wanted).combine_chunks()


def train(
    spec: FeatureSpec,
    table: pa.Table,
    valid: pa.Table | None = None,
    settings: Settings | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Trained:
    """Fit a new model by Adam on the log-loss; keep the epoch of the best valid AUC.

    Parameters
    ----------
    spec : FeatureSpec
        Must name a `label`; `weight`, `group` and `time` are used where named.
    table, valid : pyarrow.Table
        Without `valid`, the last `settings.valid_fraction` of the rows by `spec.time`
        are held out; a fraction of 0 trains without validation.
    settings : Settings, optional
    on_epoch : callable, optional
        Called with each `Epoch` as it ends.

    Raises
    ------
    InputError
        If a label is not 0 or 1, a weight is negative or missing, the data does not fit
        the spec, or there is no way to split it.
    ModelError
        If the spec names no label, or the model's output is not a probability.
    """
    settings = settings or Settings()
    if spec.label is None:
        raise ModelError(explain("a `label` column", "none", "spec.label"))
    if spec.model.link != "sigmoid":
        rule = "'sigmoid', since training minimizes the log-loss"
        raise ModelError(explain(rule, repr(spec.model.link), "model.link"))
    if settings.threads:
        torch.set_num_threads(settings.threads)
    if valid is None and settings.valid_fraction > 0:
        table, valid = split_by_time(table, spec, settings.valid_fraction)
    if table.num_rows == 0:
        raise InputError(explain("at least one training row", 0, "train"))
    _check_rows(table, spec, "the training rows")
    labels = read_labels(table, spec)
    weights = _read_weights(table, spec)
    if valid is not None:
        if valid.num_rows == 0:
            raise InputError(explain("at least one validation row", 0, "valid"))
        _check_rows(valid, spec, "the validation rows")
        read_labels(valid, spec)
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    model = build_model(spec)
    optimizers = _optimizers(model, settings)
    trained = Trained(model, None)
    best_state: dict[str, Any] = {}
    waited = 0
    for number in range(1, settings.epochs + 1):
        loss = _train_epoch(
            model, optimizers, table, labels, weights, rng, settings, number
        )
        if valid is None:
            epoch = Epoch(number, loss, float("nan"), float("nan"), None)
        else:
            epoch = _validate(model, valid, number, loss, settings.batch_size)
        trained.epochs.append(epoch)
        if on_epoch:
            on_epoch(epoch)
        if valid is None or trained.best is None or _better(epoch, trained.best):
            trained.best, waited = epoch, 0
            best_state = copy.deepcopy(model.state_dict())
        else:
            waited += 1
            if waited >= settings.patience:
                break
    if best_state:
        model.load_state_dict(best_state)
    for embedding in model.tables.values():
        embedding.sparse = False  # type: ignore[assignment]
    model.eval()
    return trained


def _optimizers(
    model: ClickModel, settings: Settings
) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """Adam for the layers; for the tables one that touches a batch's rows alone.

    A step then costs by the batch, not by the size of the tables.
    """
    for embedding in model.tables.values():
        embedding.sparse = True  # type: ignore[assignment]
    tables = list(model.tables.parameters())
    inside = {id(p) for p in tables}
    layers = [p for p in model.parameters() if id(p) not in inside]
    return (
        torch.optim.Adam(
            layers, lr=settings.learning_rate, weight_decay=settings.weight_decay
        ),
        torch.optim.SparseAdam(tables, lr=settings.learning_rate),
    )


def _check_rows(table: pa.Table, spec: FeatureSpec, what: str) -> None:
    """Encode every row once, in order, so that an error names the row it is in."""
    for _ in encoded_batches(table, spec, CHECKED_ROWS, what):
        pass


def _better(epoch: Epoch, best: Epoch) -> bool:
    """By AUC; by log-loss where a single class leaves no AUC."""
    if np.isnan(epoch.auc) or np.isnan(best.auc):
        return epoch.log_loss < best.log_loss
    return epoch.auc > best.auc


def _times(table: pa.Table, name: str) -> NDArray[np.float64]:
    """Read a time column as numbers: numeric, or a date or timestamp in its units."""
    if name not in table.column_names:
        return columns.floats(table, name)
    column = table[name]
    if pa.types.is_date32(column.type) or pa.types.is_time32(column.type):
        column = column.cast(pa.int32())
    elif pa.types.is_temporal(column.type):
        column = column.cast(pa.int64())
    return columns.floats(pa.table({name: column}), name)


def split_by_time(
    table: pa.Table, spec: FeatureSpec, fraction: float
) -> tuple[pa.Table, pa.Table]:
    """Hold out the newest rows; rows of the boundary's time all go to validation."""
    if spec.time is None:
        rule = "a validation file, or a `time` column in the spec to split by"
        fix = "Give --valid FILE, or --valid-fraction 0 to train without validation."
        raise InputError(explain(rule, "neither", "valid", fix))
    time = _times(table, spec.time)
    if np.isnan(time).any():
        row = int(np.argmax(np.isnan(time)))
        raise InputError(explain("a time", "null", f"{spec.time}, row {row}"))
    if len(time) == 0:
        return table, table
    boundary = np.sort(time)[min(int(len(time) * (1 - fraction)), len(time) - 1)]
    newest = time >= boundary
    if newest.all():
        rule = "times before the newest ones, to train on"
        raise InputError(explain(rule, f"all at {boundary:g} or later", spec.time))
    return table.filter(pa.array(~newest)), table.filter(pa.array(newest))


def read_labels(table: pa.Table, spec: FeatureSpec) -> NDArray[np.float32]:
    """Read the label column as float32 of 0 and 1; anything else is an InputError."""
    name = spec.label or ""
    labels = columns.floats(table, name)
    wrong = (labels != 0) & (labels != 1)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(explain("a label 0 or 1", labels[row], f"{name}, row {row}"))
    return labels.astype(np.float32)


def _read_weights(table: pa.Table, spec: FeatureSpec) -> NDArray[np.float32] | None:
    if spec.weight is None:
        return None
    weights = columns.floats(table, spec.weight)
    wrong = ~((weights >= 0) & np.isfinite(weights))
    if wrong.any():
        row = int(np.argmax(wrong))
        place = f"{spec.weight}, row {row}"
        raise InputError(explain("a finite weight of at least 0", weights[row], place))
    return weights.astype(np.float32)


def _train_epoch(
    model: ClickModel,
    optimizers: Sequence[torch.optim.Optimizer],
    table: pa.Table,
    labels: NDArray[np.float32],
    weights: NDArray[np.float32] | None,
    rng: np.random.Generator,
    settings: Settings,
    number: int,
) -> float:
    model.train()
    order = rng.permutation(table.num_rows)
    total = 0.0
    bar = tqdm(
        total=len(order),
        desc=f"epoch {number}",
        unit=" rows",
        unit_scale=True,
        leave=False,
        file=sys.stderr,
        disable=None if settings.progress else True,
    )
    with bar:
        for start in range(0, len(order), settings.batch_size):
            rows = order[start : start + settings.batch_size]
            inputs = encode_batch(model.spec, table.take(pa.array(rows)))
            wanted = torch.from_numpy(labels[rows])
            weight = torch.from_numpy(weights[rows]) if weights is not None else None
            loss = functional.binary_cross_entropy_with_logits(
                model(inputs), wanted, weight
            )
            for optimizer in optimizers:
                optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            for optimizer in optimizers:
                optimizer.step()
            if not torch.isfinite(loss):
                rule = "a finite loss"
                fix = "Training diverged: lower the learning rate."
                raise InputError(explain(rule, loss.item(), f"epoch {number}", fix))
            total += loss.item() * len(rows)
            bar.update(len(rows))
            bar.set_postfix(log_loss=f"{loss.item():.4f}", refresh=False)
    return total / max(len(order), 1)


def encoded_batches(
    table: pa.Table, spec: FeatureSpec, batch_size: int, what: str
) -> Iterator[dict[str, NDArray[np.int64] | NDArray[np.float32]]]:
    """Encode a table in order; an InputError names the row of `what` it is in."""
    for start in range(0, table.num_rows, batch_size):
        try:
            yield spec.encode(table.slice(start, batch_size))
        except InputError as error:
            raise InputError(name_row(str(error), start, what)) from None


def encode_batch(spec: FeatureSpec, batch: pa.Table) -> dict[str, torch.Tensor]:
    """Encode rows of a table into the tensors that a model's forward takes."""
    return {k: torch.from_numpy(v) for k, v in spec.encode(batch).items()}


def evaluate(
    model: ClickModel,
    table: pa.Table,
    batch_size: int = 4096,
    *,
    calibrated: bool = True,
) -> NDArray[np.float64]:
    """Score every row of a table with torch in evaluation mode, float64 [rows].

    Calibration is applied, as `Predictor.score` applies it, unless `calibrated` is
    False: training neither sees nor judges by it.
    """
    model.eval()
    calibration = model.spec.calibration if calibrated else Calibration()
    out = np.empty(table.num_rows)
    with torch.inference_mode():
        for start in range(0, table.num_rows, batch_size):
            inputs = encode_batch(model.spec, table.slice(start, batch_size))
            z = model(inputs).double() * calibration.scale + calibration.offset
            score = torch.sigmoid(z) if model.spec.model.link == "sigmoid" else z
            out[start : start + batch_size] = score.numpy()
    return out


def _validate(
    model: ClickModel, valid: pa.Table, number: int, loss: float, batch_size: int
) -> Epoch:
    spec = model.spec
    labels = read_labels(valid, spec)
    scores = evaluate(model, valid, batch_size, calibrated=False)
    gauc = None
    if spec.group is not None:
        gauc = metrics.gauc(labels, scores, columns.keys64(valid, spec.group))
    return Epoch(
        number,
        train_log_loss=loss,
        log_loss=metrics.log_loss(labels, scores),
        auc=metrics.auc(labels, scores),
        gauc=gauc,
    )


def epoch_header() -> str:
    """Return the head of the table that `epoch_line` fills."""
    return "epoch  train log-loss  valid log-loss  valid AUC  valid GAUC"


def epoch_line(epoch: Epoch) -> str:
    """Return one epoch as a line of the table."""

    def show(value: float | None, width: int) -> str:
        missing = value is None or np.isnan(value)
        return ("-" if missing else f"{value:.5f}").rjust(width)

    return (
        f"{epoch.number:5d}  {show(epoch.train_log_loss, 14)}"
        f"  {show(epoch.log_loss, 14)}  {show(epoch.auc, 9)}  {show(epoch.gauc, 10)}"
    )
