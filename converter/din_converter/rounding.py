"""Tables in fp16: the model with rounded tables, and the error of rounding."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from din_converter.model import ClickModel
from din_converter.precision import Table, computing_in
from din_converter.verify import random_inputs, torch_logits
from din_infer.errors import InputError
from din_infer.metrics import auc
from din_infer.spec import FeatureSpec

if TYPE_CHECKING:
    import pyarrow as pa

    from din_converter.rows import Batch

__all__ = ["Rounding", "measure_rounding", "round_tables"]

GENERATED, VALID = "generated rows", "validation rows"
WEIGHTED = f"weighted {VALID}"
GENERATED_ROWS = 4096
BATCH_ROWS = 256


@dataclass(frozen=True)
class Rounding:
    """The effect of storing tables in a smaller dtype, torch compared with torch.

    `source` is "validation rows", "weighted validation rows" where the spec names a
    weight, by which the AUCs then go, or "generated rows": random ids, whose labels are
    drawn with the unrounded scores as probabilities. `logit_change` is the largest.
    AUCs are None where all labels are the same.
    """

    dtype: str
    source: str
    rows: int
    clicks: int
    logit_change: float
    auc_unrounded: float | None
    auc_rounded: float | None

    @property
    def auc_change(self) -> float | None:
        """AUC of the rounded model less that of the unrounded one."""
        if self.auc_unrounded is None or self.auc_rounded is None:
            return None
        return self.auc_rounded - self.auc_unrounded

    def to_dict(self) -> dict[str, Any]:
        """Return the measurement for JSON."""
        return {**asdict(self), "auc_change": self.auc_change}

    def __str__(self) -> str:
        drawn = ", labels drawn from unrounded scores"
        rows = f"{self.rows:,} {self.source}{drawn if self.source == GENERATED else ''}"
        cost = f"no AUC, since all labels are {int(self.clicks > 0)}"
        if self.auc_change is not None:
            kind = "weighted AUC" if self.source == WEIGHTED else "AUC"
            cost = f"{kind} {self.auc_unrounded:.6f}, rounded {self.auc_rounded:.6f}"
            cost += f" ({self.auc_change:+.1e})"
        return (
            f"{self.dtype}, measured on {rows}\n"
            f"rounding moves logits by up to {self.logit_change:.1e}; {cost}"
        )


class _RoundedTable(Table):
    """A table whose rows are rounded to fp16 when they are read."""

    def forward(self, ids: Tensor) -> Tensor:
        """Read rows: int64 of any shape to floats with one axis more."""
        return _round(super().forward(ids))


class _RoundedLookup(nn.Module):
    """A derived field: pooled from unrounded rows, and rounded once."""

    def __init__(self, lookup: nn.Module) -> None:
        super().__init__()
        self.lookup = lookup

    def forward(self, source_ids: Tensor, table: Table) -> Tensor:
        """Look up int64 [rows]; returns float [rows, dim]."""
        return _round(self.lookup(source_ids, Table(table.weight, table.dtype)))


def round_tables(model: ClickModel) -> ClickModel:
    """Copy a model to float64, with tables that are rounded to fp16 as they are read.

    Derived fields are pooled from unrounded tables and rounded once, as in the graph.
    """
    rounded = computing_in(torch.float64, model)
    for key, lookup in rounded.lookups.items():
        rounded.lookups[key] = _RoundedLookup(lookup)
    for key, table in rounded.tables.items():
        rounded.tables[key] = _RoundedTable(table.weight, table.dtype)  # type: ignore[arg-type]
    return rounded


def _round(rows: Tensor) -> Tensor:
    # NumPy rounds float64 to fp16 once; torch does it by way of float32. A table that
    # no part of the graph reads may overflow.
    with np.errstate(over="ignore"):
        half = rows.detach().numpy().astype(np.float16)
    return torch.from_numpy(half).to(rows.dtype)


def measure_rounding(
    model: ClickModel,
    rounded: ClickModel,
    valid: "pa.Table | str | os.PathLike[str] | None" = None,
) -> Rounding:
    """Compare a float64 model with its rounded self, batch by batch.

    Parameters
    ----------
    model, rounded : DIN or BaseModel
        In float64 and evaluation mode; `rounded` as `round_tables` made it.
    valid : pyarrow.Table or path of a Parquet file, optional
        Rows with the spec's columns and label. Without it, a few thousand rows of
        random ids are taken, and their labels drawn from the scores of `model`.

    Raises
    ------
    InputError
        If `valid` cannot be read or has no rows, or holds a row that does not fit the
        spec, or a label that is not 0 or 1.
    ModelError
        If there is `valid` and the spec names no label.
    """
    spec = model.spec
    batches: Iterator[tuple[Mapping[str, NDArray[Any]], Batch | None]]
    batches = ((inputs, None) for inputs in _generated(spec))
    if valid is not None:
        from din_converter.rows import Rows  # pyarrow, which only `valid` asks for

        rows = (
            Rows.open([Path(valid)], spec)
            if isinstance(valid, str | os.PathLike)
            else Rows.of_table(valid, spec, "the validation rows")
        )
        if rows.num_rows == 0:
            raise InputError("at least one validation row", 0, "valid")
        rows.check()
        batches = ((b.inputs, b) for b in rows.batches(BATCH_ROWS))
    found = [(torch_logits(model, x), torch_logits(rounded, x), b) for x, b in batches]
    before = np.concatenate([z for z, _, _ in found])
    after = np.concatenate([z for _, z, _ in found])
    scale, offset = spec.calibration.scale, spec.calibration.offset
    weights = None
    if valid is not None:
        kept = [b for _, _, b in found if b is not None]
        labels: NDArray[Any] = np.concatenate([b.labels for b in kept])
        if spec.weight is not None:
            weights = np.concatenate([b.weights for b in kept if b.weights is not None])
    else:  # a logistic variable is below z with probability sigmoid(z)
        draw = np.random.default_rng(1).logistic(size=len(before))
        labels = draw < scale * before + offset
    aucs = [auc(labels, scale * z + offset, weights=weights) for z in (before, after)]
    known = not np.isnan(aucs[0])
    return Rounding(
        dtype="fp16",
        source=GENERATED if valid is None else VALID if weights is None else WEIGHTED,
        rows=len(before),
        clicks=int(labels.sum()),
        logit_change=float(np.abs(after - before).max()),
        auc_unrounded=aucs[0] if known else None,
        auc_rounded=aucs[1] if known else None,
    )


def _generated(spec: FeatureSpec) -> Iterator[dict[str, NDArray[Any]]]:
    rng = np.random.default_rng(0)
    for _ in range(0, GENERATED_ROWS, BATCH_ROWS):
        yield random_inputs(spec, rng, BATCH_ROWS, BATCH_ROWS, "mixed")
