"""The numbers of dense fields: their distribution, and whether they need a scale."""

import math

import pyarrow as pa

from din_infer import _kernels, columns
from din_infer.distribution import Distribution
from din_infer.jobs.inspect.facts import DenseReport
from din_infer.list_texts import split_columns, texts_of
from din_infer.spec import Dense

__all__ = ["DenseCounts"]

PERCENTILES = (0, 1, 5, 25, 50, 75, 95, 99, 100)


class DenseCounts:
    """Counts of one dense field, of all its K values together."""

    def __init__(self, dense: Dense) -> None:
        self._spec = dense
        self._found = Distribution()

    def add(self, batch: pa.RecordBatch) -> None:
        """Count a batch."""
        opened = columns.open_batch(batch, [self._spec.column])
        split_columns(opened, texts_of(self._spec.reads))
        column = opened.columns[self._spec.column]
        is_list = self._spec.dim > 1 or column.is_list
        numbers = columns.require_dtype(column, "float", is_list=is_list)
        values = _kernels.read_raw_dense(numbers, self._spec.dim)
        self._found.add(values.ravel())

    def report(self) -> DenseReport:
        """Sum up."""
        found, spec = self._found.finish(), self._spec
        hundredths = found.quantiles(100)
        wanted = None
        if spec.scale is None and found.is_far:
            wanted = "log1p" if found.has_heavy_tail else "standard"
        moments = (found.mean, found.std) if found.count else (math.nan, math.nan)
        mean, std = (x if math.isfinite(x) else None for x in moments)
        return DenseReport(
            name=spec.name,
            values=found.count,
            missing=found.missing,
            zeros=found.zeros,
            mean=mean,
            std=std,
            percentiles={str(p): hundredths[p] for p in PERCENTILES if hundredths},
            scale=spec.scale.type if spec.scale else None,
            wanted=wanted,
        )
