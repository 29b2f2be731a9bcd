"""Behavior sequences: lengths, repeats, and where histories hold their candidate.

Letters: B rows, T positions, K classes of rows (clicks and non-clicks, or all).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from din_infer import _kernels
from din_infer.columns import open_batch, require_dtype
from din_infer.encode import choose_elements
from din_infer.jobs.inspect.facts import Match, Overlap, SequenceReport, share
from din_infer.list_texts import split_columns, texts_of
from din_infer.spec import Behavior, Encoder, FeatureSpec

__all__ = ["SequenceCounts", "find_pairs", "key_encoder", "lengths_of"]

Ints = NDArray[np.int64]

PERCENTILES = (0, 1, 5, 25, 50, 75, 95, 99, 100)
KEEPING = (95, 99)
_HASHED = Encoder("hash", rows=2, reduce="raw")
_AS_IS = Encoder("identity", rows=2**63 - 1, unseen="missing")


def key_encoder(encoder: Encoder) -> Encoder:
    """Return the encoder of what stands for a value: equal where values are equal.

    Its XXH64, or the value itself for an identity, 0 if it is below 0. Ranges stay
    what they are.
    """
    if encoder.type == "bucketize":
        return encoder
    if encoder.type == "identity":
        return _AS_IS
    return replace(
        _HASHED,
        int_as="bytes4" if encoder.int_as == "bytes4" else "bytes",
        uuid_as=encoder.uuid_as,
        mask_value=encoder.mask_value,
        is_seeded=encoder.is_seeded,
        columns=tuple((dtype, key_encoder(e)) for dtype, e in encoder.columns),
    )


def lengths_of(spec: Behavior, batch: pa.RecordBatch) -> Ints:
    """Count the behaviors of each row, int64 [B], before truncation.

    Raises
    ------
    InputError
        As encoding the batch does.
    """
    name, dtype, encoder = spec.own_fields[0].encoded[0]
    lengths = [spec.length_column] if spec.length_column else []
    opened = open_batch(batch, [name], optional=lengths)
    split_columns(opened, texts_of(spec.reads))
    column = require_dtype(
        opened.columns[name], dtype, is_list=True, uuid_as=encoder.uuid_as
    )
    window = _kernels.Window(column)
    choose_elements(spec, opened, window)
    return window.finish(2**62, False)[0]


def find_pairs(spec: FeatureSpec, sequence: Behavior) -> list[tuple[str, str]]:
    """List (candidate field, behavior field) whose values can be compared."""
    candidates = {f.name: f for f in spec.candidate}
    query = [candidates[name] for name, _ in sequence.query if name in candidates]
    pairs = []
    for f in sequence.own_fields:
        shared = (c.name for c in query if c.table == f.table)
        c = candidates.get(f.pairs or next(shared, ""))
        if c is None or c.dtype != f.dtype:
            continue
        if key_encoder(c.encoder) == key_encoder(f.encoder):
            pairs.append((c.name, f.name))
    return pairs


def _sum(total: Ints, more: Ints) -> Ints:
    """Add two histograms, the shorter one as if it ended in zeros."""
    if len(total) < len(more):
        total, more = more, total
    total[: len(more)] += more
    return total


class SequenceCounts:
    """Counts of one behavior sequence, in histograms that are as long as histories."""

    def __init__(
        self, spec: FeatureSpec, sequence: Behavior, classes: Sequence[str]
    ) -> None:
        self.spec, self.classes = sequence, tuple(classes)
        own = sequence.own_fields
        self.fields = tuple(f.name for f in own)
        self._rows_of_length = np.zeros(0, np.int64)
        self._kept = [np.zeros(0, np.int64) for _ in classes]
        self._repeats = {f.name: 0 for f in own if f.encoder.type != "bucketize"}
        pairs = find_pairs(spec, sequence)
        self._counts = {pair: [_MatchCounts() for _ in classes] for pair in pairs}

    def add(
        self, batch: pa.RecordBatch, kept: Ints, keys: Mapping[str, Any], classes: Ints
    ) -> None:
        """Count a batch.

        Parameters
        ----------
        batch : RecordBatch of B rows
        kept : int64 [B]
            Behaviors of each row after truncation.
        keys : dict of int64 [B] and [B, T]
            Per candidate field and behavior field what stands for its values, by
            `key_encoder`; 0 for null and padding.
        classes : int64 [B]
            The class of each row, in [0, K); another: of none.
        """
        lengths = np.bincount(lengths_of(self.spec, batch))
        self._rows_of_length = _sum(self._rows_of_length, lengths)
        for k, before in enumerate(self._kept):
            self._kept[k] = _sum(before, np.bincount(kept[classes == k]))
        for field in self._repeats:
            ordered = np.sort(keys[field], axis=1)
            again = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != 0)
            self._repeats[field] += int(np.count_nonzero(again))
        for (candidate, field), counts in self._counts.items():
            wanted = keys[candidate][:, np.newaxis]
            row, position = np.nonzero((keys[field] == wanted) & (wanted != 0))
            age = kept[row] - 1 - position
            for k, of_class in enumerate(counts):
                mine = classes[row] == k
                of_class.add(row[mine], age[mine])

    def report(self) -> SequenceReport:
        """Sum up."""
        histogram, max_len = self._rows_of_length, self.spec.max_len
        lengths = np.arange(len(histogram))
        rows, behaviors = int(histogram.sum()), int((histogram * lengths).sum())
        kept = int((histogram * np.minimum(lengths, max_len)).sum())
        up_to = np.cumsum(histogram)  # rows that are as long or shorter
        reach = np.cumsum(histogram[::-1])[::-1]  # as long or longer
        kept_at = np.cumsum(reach[1:])  # behaviors that max_len 1, 2, .. keeps
        ranks = {str(p): max(1, -(-p * rows // 100)) for p in PERCENTILES if rows}
        needs = {str(p): -(-p * behaviors // 100) for p in KEEPING if behaviors}
        occurring = np.flatnonzero(histogram)
        return SequenceReport(
            name=self.spec.name,
            fields=self.fields,
            max_len=max_len,
            order=self.spec.order,
            rows=rows,
            empty=int(histogram[:1].sum()),
            single=int(histogram[1:2].sum()),
            truncated=int(histogram[max_len + 1 :].sum()),
            behaviors=behaviors,
            lost=behaviors - kept,
            mean=share(behaviors, rows),
            percentiles={p: int(np.searchsorted(up_to, n)) for p, n in ranks.items()},
            max_len_keeping={
                p: 1 + int(np.searchsorted(kept_at, n)) for p, n in needs.items()
            },
            padding=None if not rows else 1 - kept / (rows * max_len),
            repeats={name: share(n, kept) for name, n in self._repeats.items()},
            overlaps=tuple(self._overlaps()),
            histogram=tuple((int(n), int(histogram[n])) for n in occurring),
        )

    def _overlaps(self) -> list[Overlap]:
        reach = [np.cumsum(kept[::-1])[::-1][1:] for kept in self._kept]
        overlaps = []
        for pair, counts in self._counts.items():
            matches = map(_MatchCounts.report, counts, reach)
            by_class = dict(zip(self.classes, matches, strict=True))
            overlaps.append(Overlap(*pair, by_class))
        return overlaps


class _MatchCounts:
    """Rows of one class that have their candidate's value in their history."""

    def __init__(self) -> None:
        self.anywhere = 0
        self.by_age = np.zeros(0, np.int64)  # entry 0: the newest behavior

    def add(self, row: Ints, age: Ints) -> None:
        """Count matches, int64 [matches]; rows rise."""
        self.anywhere += int(np.count_nonzero(np.diff(row, prepend=-1)))
        self.by_age = _sum(self.by_age, np.bincount(age))

    def report(self, reach: Ints) -> Match:
        by_age = _sum(np.zeros(len(reach), np.int64), self.by_age)
        rows, ages = int(reach[:1].sum()), tuple(by_age.tolist())
        return Match(rows, self.anywhere, ages, tuple(reach.tolist()))
