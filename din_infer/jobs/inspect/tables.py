"""Keys of embedding tables: how many, how often, and which share a row."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from din_infer.jobs.inspect.facts import (
    Collisions,
    FieldCounts,
    TableReport,
    expected_collisions,
    share,
)
from din_infer.jobs.inspect.sequences import key_encoder
from din_infer.spec import Encoder, Table

__all__ = ["DistinctKeys", "TableCounts", "buckets_for"]

Ints = NDArray[np.int64]
Keys = NDArray[np.uint64]

LIMIT = 1 << 24  # keys counted exactly, 256 MiB
WAITING = 1 << 20  # keys sorted into the others at a time, at least
SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: multiples lie apart

TOPS = (0.1, 1, 10, 50)  # percent of the keys
WANTED = 0.01
MOST_ROWS = 2**31 - 1


class DistinctKeys:
    """Distinct 64-bit keys, and how often each occurs.

    Exact up to `limit` keys, at 16 bytes each. Beyond, an even sample of them is kept:
    those whose spread-out bits begin with `halvings` zeros, a half of `limit` or
    more. A key is in it or not wherever it occurs, so its count stays exact.

    Attributes
    ----------
    keys : uint64 [kept], rising
    counts : int64 [kept]
    occurrences : int
        Of all keys, sampled or not.
    halvings : int
        One key in 2^halvings is kept.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.keys: Keys = np.empty(0, np.uint64)
        self.counts: Ints = np.empty(0, np.int64)
        self.occurrences = 0
        self.halvings = 0
        self._limit = LIMIT if limit is None else limit
        self._waiting: list[tuple[Keys, Ints]] = []
        self._num_waiting = 0

    @property
    def num_keys(self) -> int:
        """Distinct keys: exact, or estimated from the sample."""
        return len(self.keys) << self.halvings

    @property
    def error(self) -> float:
        """Half the 95 % interval of `num_keys`, relative; 0.0 when it is exact."""
        if self.halvings == 0:
            return 0.0
        return 1.96 * math.sqrt((1 - 0.5**self.halvings) / max(1, len(self.keys)))

    def add(self, keys: Keys) -> None:
        """Count keys, uint64 [any]."""
        self.occurrences += len(keys)
        if self.halvings:
            keys = keys[self._is_sampled(keys)]
        if not len(keys):
            return
        distinct, counts = np.unique(keys, return_counts=True)
        self._waiting.append((distinct, counts))
        self._num_waiting += len(distinct)
        if self._num_waiting >= max(WAITING, len(self.keys) // 8):
            self.finish()

    def finish(self) -> "DistinctKeys":
        """Count all that waits; call it before reading."""
        if not self._waiting:
            return self
        keys = np.concatenate([k for k, _ in self._waiting])
        counts = np.concatenate([c for _, c in self._waiting])
        self._waiting.clear()
        self._num_waiting = 0
        order = np.argsort(keys)
        keys, counts = keys[order], counts[order]
        starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
        keys, counts = keys[starts], np.add.reduceat(counts, starts)
        at = np.searchsorted(self.keys, keys)
        is_known = np.zeros(len(keys), np.bool_)
        inside = at < len(self.keys)
        is_known[inside] = self.keys[at[inside]] == keys[inside]
        self.counts[at[is_known]] += counts[is_known]
        new = ~is_known
        self.counts = np.insert(self.counts, at[new], counts[new])
        self.keys = np.insert(self.keys, at[new], keys[new])
        while len(self.keys) > self._limit:
            self.halvings += 1
            kept = self._is_sampled(self.keys)
            self.keys, self.counts = self.keys[kept], self.counts[kept]
        return self

    def _is_sampled(self, keys: Keys) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = (keys * SPREAD) >> np.uint64(64 - self.halvings) == 0
        return found

    def share_of_top(self, percent: float) -> float | None:
        """Return the share of all occurrences that the most frequent keys have.

        Parameters
        ----------
        percent : float
            Of the keys; at least one key.

        Notes
        -----
        Of a sample the others are counted and taken from the whole: few keys may have
        most occurrences, and whether those few were sampled is chance.
        """
        if not len(self.keys):
            return None
        top = math.ceil(percent * len(self.keys) / 100 - 1e-9)  # 0.1 is above a tenth
        others = len(self.keys) - max(1, top)
        if not others:
            return 1.0
        tail = int(np.partition(self.counts, others - 1)[:others].sum())
        return max(0.0, 1 - (tail << self.halvings) / self.occurrences)


def buckets_for(num_keys: int, limit: float = WANTED) -> int:
    """Return the fewest buckets for which `expected_collisions` is within the limit.

    >>> buckets_for(1), buckets_for(2), buckets_for(1000)
    (1, 100, 99401)
    """
    if num_keys < 2:
        return 1
    found = round(-1 / math.expm1(math.log1p(-limit) / (num_keys - 1)))
    while expected_collisions(num_keys, found) > limit:
        found += 1
    while found > 1 and expected_collisions(num_keys, found - 1) <= limit:
        found -= 1
    return found


class TableCounts:
    """Counts of one embedding table, over all fields that share it: one or more.

    A key is kept as the row it has and, in the bits left, the low ones of its XXH64 (of
    an identity table: the value); so keys of one row lie side by side. Two keys are
    taken for one when they share the row and those bits, 33 or more. Where the row is
    that XXH64 modulo the buckets, as by default, a key is kept as all of it: then
    collisions can be measured exactly for any number of buckets.
    """

    def __init__(self, table: Table, fields: tuple[str, ...], encoder: Encoder) -> None:
        self.table, self.fields, self.encoder = table, fields, encoder
        self.distinct = DistinctKeys()
        self._largest = 0
        self._ids = self._zeros = 0  # all ids, and those that are 0; padding is, too
        self._seen = np.zeros(table.rows, np.bool_)
        self._bits = np.uint64(64 - max(1, (table.rows - 1).bit_length()))
        self._mask = (np.uint64(1) << self._bits) - np.uint64(1)
        raw = replace(encoder, rows=2, reduce="raw")
        self._is_whole = (
            encoder.type == "hash"
            and encoder.reduce in ("offset", "mod")
            and raw == key_encoder(encoder)
        )

    def add(self, ids: dict[str, Ints], keys: dict[str, Ints]) -> None:
        """Count a batch: per field, ids and what stands for the values (0: none)."""
        parts = []
        for field in self.fields:
            self._ids += ids[field].size
            self._zeros += ids[field].size - int(np.count_nonzero(ids[field]))
            is_value = keys[field] != 0
            rows, key = ids[field][is_value], keys[field][is_value].view(np.uint64)
            self._seen[rows] = True
            self._largest = max(self._largest, int(key.max(initial=0)))
            if not self._is_whole:
                key = (rows.view(np.uint64) << self._bits) | (key & self._mask)
            parts.append(key)
        self.distinct.add(np.concatenate(parts))

    def report(self, counts: Mapping[str, FieldCounts]) -> TableReport:
        """Sum up, beside the counts of every field."""
        encoder, distinct, rows = self.encoder, self.distinct.finish(), self.table.rows
        row_of_key = distinct.keys >> self._bits
        unseen_keys = 0
        if encoder.type in ("vocab", "identity"):
            is_unseen = row_of_key == 0
            if encoder.type == "vocab":
                is_unseen |= row_of_key == rows - 1
            unseen_keys = int(np.count_nonzero(is_unseen)) << distinct.halvings
        first = 0 if encoder.type == "hash" and encoder.reduce != "offset" else 1
        stop = rows - 1 if encoder.type == "vocab" else rows
        mine = [counts[f] for f in self.fields]
        values = sum(c.values for c in mine)
        zeros = self._zeros - (self._ids - values)
        zeros -= sum(c.nulls + c.unseen for c in mine)
        return TableReport(
            name=self.table.name,
            encoder=encoder.type,
            fields=self.fields,
            rows=rows,
            dim=self.table.dim,
            padding_row=self.table.padding_row,
            occurrences=values - sum(c.nulls for c in mine),
            distinct=distinct.num_keys,
            error=distinct.error,
            once=share(int((distinct.counts == 1).sum()), len(distinct.keys)),
            top={f"{p:g}": distinct.share_of_top(p) for p in TOPS},
            never=int(np.count_nonzero(~self._seen[first:stop])),
            unseen=sum(c.unseen for c in mine),
            unseen_keys=unseen_keys,
            zeros=zeros if encoder.type == "identity" else 0,
            largest=self._largest if encoder.type == "identity" else None,
            collisions=self._collisions() if encoder.type == "hash" else None,
        )

    def _collisions(self) -> Collisions:
        distinct, num_keys = self.distinct, self.distinct.num_keys
        is_offset = self.encoder.reduce == "offset"
        buckets = self.table.rows - is_offset
        wanted = buckets_for(num_keys)
        measured = occurrences = wanted_measured = None
        if not distinct.halvings:
            is_shared = self._shared(buckets)
            measured = share(int(is_shared.sum()), num_keys)
            of_shared = int(distinct.counts[is_shared].sum())
            occurrences = share(of_shared, distinct.occurrences)
            wanted_measured = share(int(self._shared_by_xxh64(wanted).sum()), num_keys)
            while (wanted_measured or 0.0) > WANTED and wanted <= MOST_ROWS:
                wanted += -(-wanted // 50)
                is_shared = self._shared_by_xxh64(wanted)
                wanted_measured = share(int(is_shared.sum()), num_keys)
        rows = wanted + is_offset
        return Collisions(
            buckets=buckets,
            expected=expected_collisions(num_keys, buckets),
            measured=measured,
            occurrences=occurrences,
            wanted_buckets=rows if rows <= MOST_ROWS else None,
            wanted_measured=wanted_measured if rows <= MOST_ROWS else None,
        )

    def _shared(self, buckets: int) -> NDArray[np.bool_]:
        """Tell which keys share their row with another, as the table is."""
        if self._is_whole:
            return self._shared_by_xxh64(buckets)
        return _has_twin(self.distinct.keys >> self._bits)

    def _shared_by_xxh64(self, buckets: int) -> NDArray[np.bool_]:
        """Tell which keys XXH64 gives one of so many buckets with another."""
        keys = self.distinct.keys if self._is_whole else self.distinct.keys & self._mask
        places = keys % np.uint64(buckets)
        order = np.argsort(places)
        found = np.empty(len(places), np.bool_)
        found[order] = _has_twin(places[order])
        return found


def _has_twin(ordered: Keys) -> NDArray[np.bool_]:
    """Tell which entries of a sorted array have an equal one."""
    found = np.zeros(len(ordered), np.bool_)
    is_same = ordered[1:] == ordered[:-1]
    found[1:] |= is_same
    found[:-1] |= is_same
    return found
