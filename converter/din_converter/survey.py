"""What the one pass before training counts: for its errors, and to judge the result.

Letters: N rows of a batch, R rows of a table, K values of a dense field.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from din_converter.evaluate import tensors
from din_converter.model import ClickModel
from din_converter.regularizer import count_samples
from din_converter.rows import Batch, Rows
from din_infer import metrics
from din_infer.errors import InputError
from din_infer.jobs.inspect.facts import share
from din_infer.jobs.inspect.sequences import find_pairs
from din_infer.jobs.inspect.verdict import MANY_ZEROS
from din_infer.spec import Behavior, FeatureSpec

__all__ = ["Baseline", "Survey", "check_rows"]

# Validation rows that baselines are judged by; of more, every second, third, ..
JUDGED_ROWS = 1 << 21
PRIOR_ROWS = 10.0  # of the average click rate, added to those of each id
FEWEST_ROWS = 50  # of either class, before a column is said to tell them apart
WRONG_LABELS = "Check how the label is made, and which rows are held out."


@dataclass(frozen=True)
class Baseline:
    """The validation AUC of a rule without a model."""

    name: str
    auc: float


class Survey:
    """Counts of the rows that are trained on, and of those that judge.

    Parameters
    ----------
    spec : FeatureSpec
        Names the label, and the weight if there is one.
    valid_rows : int
        How many validation rows there are.

    Notes
    -----
    Memory: per id of a candidate field 16 bytes, and per judged validation row 4 bytes
    a candidate field, 4 a rule and 5 more; at most `JUDGED_ROWS` are judged.
    """

    def __init__(self, spec: FeatureSpec, valid_rows: int = 0) -> None:
        self.spec = spec
        self.every = max(1, -(-valid_rows // JUDGED_ROWS))
        self.mass = np.zeros(2)  # weights of non-clicks and clicks that are trained on
        self.valid_mass = np.zeros(2)
        self.valid_clicks = np.zeros(2, np.int64)  # rows of weight above 0
        self._clicks_of = {
            f.name: np.zeros((2, f.encoder.rows)) for f in spec.candidate
        }
        self._pairs = [(s, c, b) for s in spec.behavior for c, b in _pairs_of(spec, s)]
        self._judged: list[tuple[NDArray[np.float32], ...]] = []
        self._judged_ids: list[tuple[NDArray[np.int32], ...]] = []
        self._zeros: dict[str, list[int]] = {}  # per table: zeros, and all values
        self._identity = {
            c.inputs[0].name: c.table
            for c in spec.reads
            if c.table is not None
            and c.encoder is not None
            and c.encoder.type == "identity"
            and spec.tables[c.table].padding_row == "zero"
        }
        self._ends: dict[str, NDArray[np.float64]] = {}
        self._rows_of_class = np.zeros(2, np.int64)

    def add_training(self, batch: Batch) -> None:
        """Count rows that are trained on."""
        clicks = batch.labels == 1
        mass = _mass_of(batch)
        self.mass += [mass[~clicks].sum(), mass[clicks].sum()]
        self._rows_of_class += np.bincount(clicks, minlength=2)
        for name, sums in self._clicks_of.items():
            ids, place = np.unique(batch.inputs[name], return_inverse=True)
            sums[0, ids] += np.bincount(place, mass)
            sums[1, ids] += np.bincount(place, mass * clicks)
        for dense in self.spec.dense:
            values = batch.inputs[dense.name].astype(np.float64)
            ends = self._ends.setdefault(dense.name, _no_ends(dense.dim))
            for k, of_class in enumerate((~clicks, clicks)):
                if of_class.any():
                    mine = values[of_class]
                    ends[k, 0] = np.fmin(ends[k, 0], mine.min(axis=0))
                    ends[k, 1] = np.fmax(ends[k, 1], mine.max(axis=0))

    def add_validation(self, batch: Batch) -> None:
        """Take rows that judge."""
        clicks = batch.labels == 1
        mass = _mass_of(batch)
        self.valid_mass += [mass[~clicks].sum(), mass[clicks].sum()]
        self.valid_clicks += np.bincount(clicks[mass > 0], minlength=2)
        step = slice(None, None, self.every)
        ids = (batch.inputs[name][step] for name in self._clicks_of)
        self._judged_ids.append(tuple(i.astype(np.int32) for i in ids))
        rules = (self._share(batch, *pair)[step] for pair in self._pairs)
        self._judged.append((batch.labels[step], mass[step].astype("f4"), *rules))

    def add_zeros(self, batch: Batch) -> None:
        """Count the values 0 of identity columns, which stand for missing."""
        lengths = {i.name: i.lengths for i in self.spec.inputs}
        for name, table in self._identity.items():
            ids, told = batch.inputs[name], lengths[name]
            values = ids.size if told is None else int(batch.inputs[told].sum())
            zeros = ids.size - int(np.count_nonzero(ids)) - (ids.size - values)
            zeros -= sum(c[2] + c[3] for c in batch.counts if c[0] == name)
            found = self._zeros.setdefault(table, [0, 0])
            found[0] += zeros
            found[1] += values

    def check_labels(self, has_validation: bool) -> None:
        """Refuse labels of one class, which no training can learn from.

        Raises
        ------
        InputError
            If no training row of weight above 0 is a click, or all are; or no
            validation row has a weight above 0.
        """
        if not self.mass.all():
            rule = "clicks and non-clicks among the training rows"
            got = "labels that are all " + ("1" if self.mass[1] else "0")
            if not self.mass.any():
                rule = "training rows of weight above 0"
                raise InputError(rule, "none", self.spec.weight or "")
            if self._rows_of_class.all():
                got += " where the weight is above 0"
            raise InputError(rule, got, self.spec.label or "", WRONG_LABELS)
        if has_validation and not self.valid_mass.any():
            rule = "validation rows of weight above 0"
            raise InputError(rule, "none", self.spec.weight or "")

    def baselines(self) -> tuple[Baseline, ...]:
        """Judge chance, popularity, and each rule of one column, on validation rows.

        Returns
        -------
        tuple of Baseline
            Chance first; of click rates and click counts of the candidate's fields the
            best; of the shares of histories that equal the candidate the best. None
            where the validation rows are of one class.
        """
        if not self.valid_mass.all():
            return ()
        labels, mass, *shares = map(np.concatenate, zip(*self._judged, strict=True))
        weights = mass if self.spec.weight else None

        def best(names: Sequence[str], values: Sequence[NDArray[np.float64]]) -> None:
            aucs = [metrics.auc(labels, v, weights=weights) for v in values]
            ranked = [(a, n) for a, n in zip(aucs, names, strict=True) if a == a]
            if ranked:
                auc, name = max(ranked, key=lambda r: r[0])
                found.append(Baseline(name, auc))

        found = [Baseline("chance", 0.5)]
        names, popular = [], []
        rate = self.mass[1] / self.mass.sum()
        columns = map(np.concatenate, zip(*self._judged_ids, strict=True))
        for (name, (seen, clicked)), ids in zip(
            self._clicks_of.items(), columns, strict=True
        ):
            names += [f"click rate of the {name}", f"clicks of the {name}"]
            smoothed = (clicked + PRIOR_ROWS * rate) / (seen + PRIOR_ROWS)
            popular += [smoothed[ids], clicked[ids]]
        best([f"popularity: {n} in the training rows" for n in names], popular)
        best([f"share of {b} that equals {c}" for _, c, b in self._pairs], shares)
        return tuple(found)

    def separating(self) -> list[str]:
        """Name the dense fields that tell clicks from non-clicks in every row."""
        found = []
        for name, ends in self._ends.items():
            (low, high), (clicked_low, clicked_high) = ends
            apart = (high < clicked_low) | (clicked_high < low)
            if apart.any() and self._rows_of_class.min() >= FEWEST_ROWS:
                found.append(name)
        return found

    def zeros(self) -> list[tuple[list[str], float]]:
        """Return the fields of identity tables with many zeros, and their share."""
        found = []
        for table, (zeros, values) in self._zeros.items():
            part = share(zeros, values)
            if part and part >= MANY_ZEROS:
                fields = [name for name, t in self._identity.items() if t == table]
                found.append((fields, part))
        return found

    def _share(
        self, batch: Batch, sequence: Behavior, candidate: str, behavior: str
    ) -> NDArray[np.float32]:
        """Return the share of each row's behaviors that are the candidate's value."""
        wanted, history = batch.inputs[candidate], batch.inputs[behavior]
        is_value = wanted != 0
        field = next(f for f in self.spec.candidate if f.name == candidate)
        if field.encoder.type == "vocab" and field.encoder.unseen == "row":
            is_value &= wanted != field.encoder.rows - 1  # all that is unseen
        same = ((history == wanted[:, None]) & is_value[:, None]).sum(axis=1)
        lengths = np.maximum(batch.inputs[sequence.lengths], 1)
        shares: NDArray[np.float32] = (same / lengths).astype(np.float32)
        return shares


def check_rows(
    rows: Rows,
    valid: Rows | None,
    model: ClickModel,
    counts: dict[str, NDArray[np.int64]] | None,
    survey: Survey,
) -> None:
    """Check every row, once; what a split leaves of `rows` is for validation.

    With `counts`, count in how many samples each row of each table occurs.
    """

    def add(batch: Batch, inside: NDArray[np.bool_]) -> None:
        survey.add_zeros(batch)
        mine = batch.select(inside)
        if not inside.all():
            survey.add_validation(batch.select(~inside))
        survey.add_training(mine)
        if counts is not None:
            for name, more in count_samples(model, [tensors(mine.inputs)]).items():
                counts[name] += more

    rows.check(add)
    if valid is not None:
        valid.check(lambda batch, inside: survey.add_validation(batch.select(inside)))


def _pairs_of(spec: FeatureSpec, sequence: Behavior) -> list[tuple[str, str]]:
    """List the pairs whose ids are equal where the values are."""
    encoders = {f.name: f.encoder for f in (*spec.candidate, *sequence.own_fields)}
    pairs = find_pairs(spec, sequence)
    return [(c, b) for c, b in pairs if encoders[c] == encoders[b]]


def _mass_of(batch: Batch) -> NDArray[np.float64]:
    if batch.weights is None:
        return np.ones(len(batch.labels))
    return batch.weights.astype(np.float64)


def _no_ends(size: int) -> NDArray[np.float64]:
    """Return the lowest and highest value of no rows, per class: [2, 2, K]."""
    ends = np.full((2, 2, size), math.inf)
    ends[:, 1] = -math.inf
    return ends
