"""Train a DIN: log-loss, validation per epoch, early stopping, resumption.

Rows are encoded batch by batch by the same kernels that serve, so there is no second
definition of a feature. A thread makes batches while steps are computed.
"""

import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch.nn import functional

from din_converter.epochs import Epoch, Trained, better
from din_converter.evaluate import (
    EVALUATION_ROWS,
    evaluate,
    measure,
    read_table,
    score,
    tensors,
)
from din_converter.fitting import adopt_constants, fit_spec
from din_converter.model import ClickModel, build_model, key_of
from din_converter.optimizers import find_device, make_optimizers
from din_converter.quiet import first_line
from din_converter.regularizer import MiniBatchAwareRegularizer, count_samples
from din_converter.remarks import about_result, about_rows, about_spec
from din_converter.rows import Batch, Rows, split_by_time
from din_converter.run import ANEW, RunFolder
from din_converter.settings import CHOICES, Settings
from din_converter.survey import Survey, check_rows
from din_converter.warm_start import copy_weights
from din_infer.errors import InputError, ModelError
from din_infer.jobs.data_files import ignore
from din_infer.jobs.pipeline import ahead
from din_infer.jobs.progress import show_progress
from din_infer.spec import FeatureSpec

__all__ = ["Epoch", "Settings", "Trained", "evaluate", "read_table", "train"]

LOGS_PER_EPOCH = 50
COUNTERS = ("step", "loss", "seconds", "waited")
# What a state of another model, or of another hand, raises in torch and here.
WRONG_STATE = (
    *(ArithmeticError, AttributeError, LookupError),
    *(RuntimeError, TypeError, ValueError),
)
DIVERGED = "Training diverged: lower the learning rate."


def train(
    spec: FeatureSpec,
    data: pa.Table | Rows,
    valid: pa.Table | Rows | None = None,
    settings: Settings | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    *,
    run: RunFolder | None = None,
    resume: bool = False,
    overwrite: bool = False,
    start: ClickModel | None = None,
    on_note: Callable[[str], None] = ignore,
) -> Trained:
    """Fit a model to the log-loss; keep the epoch that validates best.

    Parameters
    ----------
    spec : FeatureSpec
        Must name a `label`; `weight`, `group` and `time` are used where named.
    data, valid : pyarrow.Table or Rows
        Without `valid`, the last `settings.valid_fraction` of the rows by `spec.time`
        are held out; a fraction of 0 trains without validation. Rows of `valid` are
        judged as they are served, with the spec's calibration; held-out rows without.
    settings : Settings, optional
    on_epoch : callable, optional
        Called with each `Epoch` as it ends.
    run : RunFolder, optional
        The folder for logs, and for the checkpoint that `resume` continues from.
    resume, overwrite : bool
        Go on from the checkpoint in `run`, if there is one; or start again over it.
    start : DIN or BaseModel, optional
        A model to start from instead of random weights, of a spec that `copy_weights`
        takes.
    on_note : callable, optional
        Called with a sentence about each scale and each encoder's boundaries that were
        fitted to the training rows, by `fit_spec`. They are in the model's spec.

    Raises
    ------
    InputError
        If a label is not 0 or 1, or all are one of them, a weight is negative or
        missing, the data does not fit the spec, there is no way to split it, or the
        loss is no longer finite.
    ModelError
        If the spec names no label, the model's output is not a probability, or `start`
        is a model of another spec.
    DeviceError
        If the device is not there.

    Notes
    -----
    On the CPU, the same seed, data and number of threads give the same model, whether
    or not the run was interrupted and resumed. Tables have sparse gradients: with the
    optimizers `adam` (torch's SparseAdam), `adagrad` and `sgd`, a step costs by the
    rows that its batch reads, not by the length of the tables.
    """
    settings = settings or Settings()
    _check_settings(settings)
    if spec.label is None:
        raise ModelError("a `label` column", "none", "spec.label")
    if spec.model.link != "sigmoid":
        rule = "'sigmoid', since training minimizes the log-loss"
        raise ModelError(rule, repr(spec.model.link), "model.link")
    if settings.select == "gauc" and spec.group is None:
        raise ModelError("a `group` column, to select by GAUC", "none", "spec.group")
    device = find_device(settings.device)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    rows = _as_rows(data, spec, "the training rows")
    settings = settings.for_rows(max(1, rows.num_rows))
    if valid is not None:
        held_out: Rows | None = _as_rows(valid, spec, "the validation rows")
    elif settings.valid_fraction > 0:
        rows, held_out = split_by_time(rows, settings.valid_fraction)
    else:
        held_out = None
    for part, name in ((rows, "training"), (held_out, "validation")):
        if part is not None and part.num_rows == 0:
            rule = f"at least one {name} row"
            raise InputError(rule, 0, "train" if part is rows else "valid")
    kept = run.fitted_spec() if run is not None and resume else None
    if kept is not None:
        spec = kept
    elif start is not None:
        spec = adopt_constants(spec, start.spec)
    else:
        spec, notes = fit_spec(spec, rows, add_scales=settings.add_scales)
        for note in notes:
            on_note(note)
    rows = rows.encoded_by(spec)
    held_out = held_out.encoded_by(spec) if held_out is not None else None
    torch.manual_seed(settings.seed)
    model = build_model(spec)
    model.initialize_tables(settings.embedding_std)
    if start is not None:
        copy_weights(start, model)
    survey = Survey(spec, held_out.num_rows if held_out is not None else 0)
    counts = count_samples(model, []) if settings.mba else None
    check_rows(rows, None if valid is None else held_out, model, counts, survey)
    survey.check_labels(held_out is not None)
    training = _Training(
        model.to(device),
        settings,
        counts,
        rows,
        held_out,
        run,
        survey,
        # Held-out rows were thinned as the training rows were; rows of their own were
        # not, so that they are judged as they are served.
        calibrated=valid is not None,
    )
    try:
        if run is not None:
            content = run.begin(resume=resume, overwrite=overwrite)
            if content is not None:
                training.restore(content)
                for epoch in training.epochs:
                    if on_epoch:
                        on_epoch(epoch)
            else:
                run.save_spec(spec)
        # Stated, though it is the default, since torch warns where it is not.
        with torch.sparse.check_sparse_tensor_invariants(enable=False):  # type: ignore[no-untyped-call]
            return training.finish(on_epoch)
    finally:
        if run is not None:
            run.close()


class _Training:
    """A run under way: everything that a checkpoint keeps."""

    def __init__(
        self,
        model: ClickModel,
        settings: Settings,
        counts: dict[str, NDArray[np.int64]] | None,
        rows: Rows,
        valid: Rows | None,
        run: RunFolder | None,
        survey: Survey,
        calibrated: bool,
    ) -> None:
        self.model, self.settings = model, settings
        self.rows, self.valid, self.run = rows, valid, run
        self.steps_per_epoch = -(-rows.num_rows // settings.batch_size)
        self.optimizers = make_optimizers(model, settings)
        self.regularizer = None
        if counts is not None:
            names = list(counts)
            tables: list[Any] = [model.tables[key_of(n)] for n in names]
            self.regularizer = MiniBatchAwareRegularizer(
                tables, [counts[n] for n in names], settings.mba
            )
        self.step = 0  # of the whole run
        self.loss = 0.0  # summed over the epoch's rows so far
        self.seconds = self.waited = 0.0  # of the epoch so far
        self.epochs: list[Epoch] = []
        self.best: Epoch | None = None
        self.best_state: dict[str, Any] = {}
        self.saved_at = time.monotonic()
        self.survey = survey
        self.calibrated = calibrated

    @property
    def device(self) -> torch.device:
        return self.model.tower.output.weight.device

    def finish(self, on_epoch: Callable[[Epoch], None] | None) -> Trained:
        """Train the remaining epochs; return the best model, on the CPU."""
        settings = self.settings
        while len(self.epochs) < settings.epochs and not self._stops_early():
            self._train_epoch()
            epoch = self._end_epoch()
            if on_epoch:
                on_epoch(epoch)
        if self.best_state:
            self.model.load_state_dict(self.best_state)
        for embedding in self.model.tables.values():
            embedding.sparse = False  # type: ignore[assignment]
            embedding.weight.grad = None
        self.model.cpu().eval()
        survey = self.survey
        baselines = survey.baselines()
        remarks = [*about_spec(survey.spec), *about_rows(survey)]
        remarks += about_result(
            self.epochs, self.best, settings.select, survey, baselines
        )
        return Trained(self.model, self.best, self.epochs, baselines, tuple(remarks))

    def _stops_early(self) -> bool:
        if self.valid is None or self.best is None:
            return False
        return len(self.epochs) - self.best.number >= self.settings.patience

    def _train_epoch(self) -> None:
        settings, number = self.settings, len(self.epochs) + 1
        done = self.step - (number - 1) * self.steps_per_epoch
        batches = ahead(
            self.rows.batches(
                settings.batch_size,
                window=settings.shuffle_rows,
                rng=np.random.default_rng([settings.seed, number]),
                skip=done,
            )
        )
        self.model.train()
        bar = show_progress(
            self.rows.num_rows,
            f"epoch {number}",
            settings.progress,
            initial=done * settings.batch_size,
            leave=False,
        )
        every = max(1, self.steps_per_epoch // LOGS_PER_EPOCH)
        with bar, closing(batches):  # type: ignore[type-var]
            started = time.perf_counter()
            for batch in batches:
                self.waited += time.perf_counter() - started
                loss = self._take_step(batch)
                if not math.isfinite(loss):
                    place = f"epoch {number}"
                    raise InputError("a finite loss", loss, place, DIVERGED)
                self.loss += loss * len(batch.labels)
                if batch.weights is not None:  # the weighted mean, as in validation
                    mass = float(batch.weights.mean(dtype=np.float64))
                    loss = loss / mass if mass else 0.0
                now = time.perf_counter()
                self.seconds += now - started
                started = now
                bar.update(len(batch.labels))
                bar.set_postfix(log_loss=f"{loss:.4f}", refresh=False)
                if self.run is not None:
                    if self.step % every == 0:
                        rate = self.learning_rate()
                        self.run.log("step", self.step, log_loss=loss, lr=rate)
                    minutes = (time.monotonic() - self.saved_at) / 60
                    if minutes >= settings.checkpoint_minutes:
                        self.save()

    def _take_step(self, batch: Batch) -> float:
        rate = self.learning_rate()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
        inputs = tensors(batch.inputs, self.device)
        labels = torch.from_numpy(batch.labels).to(self.device)
        weights = None
        if batch.weights is not None:
            weights = torch.from_numpy(batch.weights).to(self.device)
        loss = functional.binary_cross_entropy_with_logits(
            self.model(inputs), labels, weights
        )
        loss.backward()  # type: ignore[no-untyped-call]
        if self.regularizer is not None:
            self.regularizer.add_gradients()
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        return float(loss.detach())

    def learning_rate(self) -> float:
        """Return the rate of the next step, by the schedule."""
        return self.settings.rate(self.step, self.step / self.steps_per_epoch)

    def _end_epoch(self) -> Epoch:
        self._check_scores()
        rows = self.rows.num_rows
        epoch = Epoch(
            number=len(self.epochs) + 1,
            train_log_loss=self.loss / float(self.survey.mass.sum()),
            learning_rate=self.learning_rate(),
            seconds=self.seconds,
            rows_per_second=rows / self.seconds if self.seconds else 0.0,
            waited=self.waited / self.seconds if self.seconds else 0.0,
            **measure(self.model, self.valid, calibrated=self.calibrated),
        )
        self.epochs.append(epoch)
        self.loss = self.seconds = self.waited = 0.0
        best = self.valid is None or self.best is None
        if best or better(epoch, self.best, self.settings.select):  # type: ignore[arg-type]
            self.best = epoch
            state = self.model.state_dict()
            self.best_state = {k: v.cpu().clone() for k, v in state.items()}
        if self.run is not None:
            values = {
                k: v if v is None or math.isfinite(v) else None
                for k, v in asdict(epoch).items()
            }
            self.run.log("epoch", self.step, best=self.best is epoch, **values)
            self.save()
        return epoch

    def _check_scores(self) -> None:
        """Check the model after the last steps, whose effect no loss has shown yet."""
        with closing(self.rows.batches(EVALUATION_ROWS)) as batches:  # type: ignore[type-var]
            inputs = tensors(next(batches).inputs, self.device)
            scores = score(self.model, inputs, calibrated=False)
        if not np.isfinite(scores).all():
            place = f"the end of epoch {len(self.epochs) + 1}"
            raise InputError("finite scores", "others", place, DIVERGED)

    def save(self) -> None:
        """Write the checkpoint."""
        if self.run is None:
            return
        self.run.save(
            {
                "model": self.model.state_dict(),
                "optimizers": [o.state_dict() for o in self.optimizers],
                "random": torch.get_rng_state(),
                **{name: getattr(self, name) for name in COUNTERS},
                "epochs": [asdict(e) for e in self.epochs],
                "best": self.best.number if self.best else 0,
                "best_state": self.best_state,
            }
        )
        self.saved_at = time.monotonic()

    def restore(self, content: dict[str, Any]) -> None:
        """Restore the state that `save` wrote; InputError where it is another one."""
        try:
            self._restore(content)
        except WRONG_STATE as error:
            reason = first_line(error)
        else:
            return
        rule = "a checkpoint that din-train wrote"
        place = str(self.run.path) if self.run is not None else "run"
        raise InputError(rule, f"another state ({reason[:200]})", place, ANEW)

    def _restore(self, content: dict[str, Any]) -> None:
        best = content["best_state"]
        if best:  # which the run ends with
            self.model.load_state_dict(best)
        self.model.load_state_dict(content["model"])
        for optimizer, state in zip(
            self.optimizers, content["optimizers"], strict=True
        ):
            optimizer.load_state_dict(state)
        torch.set_rng_state(content["random"])
        for name in COUNTERS:
            value = content[name]
            if not isinstance(value, type(getattr(self, name))) or value < 0:
                raise ValueError(f"{name} {value!r}")
            setattr(self, name, value)
        self.epochs = [Epoch(**e) for e in content["epochs"]]
        if not all(_is_measured(e) for e in self.epochs):
            raise ValueError("epochs without numbers")
        if content["best"]:
            self.best = self.epochs[content["best"] - 1]
        self.best_state = best


def _is_measured(epoch: Epoch) -> bool:
    return all(type(v) in (int, float, type(None)) for v in vars(epoch).values())


def _check_settings(settings: Settings) -> None:
    for name, choices in CHOICES.items():
        value = getattr(settings, name)
        if value not in choices:
            raise InputError("one of " + ", ".join(choices), repr(value), name)


def _as_rows(data: pa.Table | Rows, spec: FeatureSpec, name: str) -> Rows:
    return data if isinstance(data, Rows) else Rows.of_table(data, spec, name)
