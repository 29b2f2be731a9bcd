"""How the numbers of a column are distributed, in bounded memory, batch by batch.

Nothing depends on how the values are cut into batches.
"""

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["LIMIT", "Distribution"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LIMIT = 1 << 22  # values whose quantiles are exact: 64 MiB
BLOCK = 1 << 16  # values whose mean is taken together
# Training takes values as they are where they lie about this range. Learning rates and
# the tables' initial weights are made for inputs of unit size.
FAR, TINY = 3.0, 0.1
# A heavy tail: the largest value lies so many times as far from the median as the 99 %
# quantile does, or that is so many times the median of values that are positive.
TAIL = 10.0


class Distribution:
    """Moments, extremes and quantiles of float64 values; add all, then `finish`.

    Mean and deviation are exact but for float64 rounding: two passes over each block of
    65,536 values, whose moments are then joined (Chan, Golub and LeVeque, 1979).
    Quantiles are exact up to `limit` values. Beyond, they are those of an even sample
    of half of `limit` or more: the values at places whose hash begins with `halvings`
    zeros. The share of values below such a quantile is off by less than 2 / sqrt(limit)
    with a probability of 99 %. A `limit` of 0 keeps none, for no quantiles.

    Attributes
    ----------
    count, missing, zeros : int
        Values that are finite; others; zeros among the finite ones.
    low, high, mean : float
        Of the finite ones; 0.0 where there are none.
    halvings : int
        One value in 2^halvings is in the sample.

    Examples
    --------
    >>> d = Distribution()
    >>> d.add(np.array([1.0, np.nan, 3.0]))
    >>> d = d.finish()
    >>> d.mean, d.std, d.missing, d.quantiles(2)
    (2.0, 1.0, 1, [1.0, 1.0, 3.0])
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.count = self.missing = self.zeros = self.halvings = 0
        self.low = self.high = self.mean = 0.0
        self._squares = 0.0  # of the distances from the mean
        self._num_joined = 0
        self._limit = limit
        self._waiting: list[Floats] = []
        self._num_waiting = 0
        self._sample: list[tuple[Floats, Ints]] = []  # values, and their places
        self._num_sampled = 0
        self._sorted: Floats = np.empty(0)

    def add(self, values: Floats) -> None:
        """Add float64 [n]; what is not finite is missing."""
        places = np.arange(len(values)) + (self.count + self.missing)
        is_finite = np.isfinite(values)
        values, places = values[is_finite], places[is_finite]  # copies
        self.missing += len(is_finite) - len(values)
        if not len(values):
            return
        low, high = float(values.min()), float(values.max())
        self.low = min(self.low, low) if self.count else low
        self.high = max(self.high, high) if self.count else high
        self.count += len(values)
        self.zeros += int(np.count_nonzero(values == 0))
        self._add_to_sample(values, places)
        self._waiting.append(values)
        self._num_waiting += len(values)
        if self._num_waiting >= BLOCK:
            joined = np.concatenate(self._waiting)
            whole = len(joined) - len(joined) % BLOCK
            for start in range(0, whole, BLOCK):
                self._add_block(joined[start : start + BLOCK])
            self._waiting = [joined[whole:].copy()]
            self._num_waiting = len(joined) - whole

    def finish(self) -> "Distribution":
        """Count all that waits; call it before reading."""
        if self._num_waiting:
            self._add_block(np.concatenate(self._waiting))
            self._waiting, self._num_waiting = [], 0
        if self.is_constant:  # rounding may have moved it
            self.mean = self.low
        self._sorted = np.sort(self._joined_sample()[0])
        return self

    @property
    def is_constant(self) -> bool:
        """Whether no two values differ."""
        return self.low == self.high

    @property
    def std(self) -> float:
        """The standard deviation, of all values rather than of a sample of more."""
        if self.is_constant:
            return 0.0
        return math.sqrt(self._squares / self.count)

    def quantiles(self, number: int) -> list[float]:
        """Return `number` + 1 values, from the smallest to the largest.

        Entry i is the smallest value such that i / number of all are not above it; none
        where there are no values.
        """
        if not self.count:
            return []
        values = self._sorted
        ranks = [-(-i * len(values) // number) - 1 for i in range(1, number)]
        inner = values[np.maximum(ranks, 0)].tolist() if ranks else []
        return [self.low, *inner, self.high]

    @property
    def is_far(self) -> bool:
        """Whether training needs a scale: far from unit range, or hardly off zero."""
        largest = max(abs(self.low), abs(self.high))
        is_tiny = largest < TINY and not self.is_constant
        return abs(self.mean) > FAR or self.std > FAR or is_tiny

    @property
    def has_heavy_tail(self) -> bool:
        """Whether few values are far larger than nearly all others."""
        if not self.count:
            return False
        all_of = self.quantiles(100)
        first, median, last = all_of[1], all_of[50], all_of[99]
        for edge, end in ((last, self.high), (first, self.low)):
            if abs(end - median) > max(TAIL * abs(edge - median), FAR):
                return True
        return self.low >= 0 and 0 < TAIL * median < last and last > FAR

    def _add_block(self, block: Floats) -> None:
        """Join the moments of a block with those of all before it."""
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float(block.mean())
            squares = float(np.square(block - mean).sum())
            before, added = self._num_joined, len(block)
            share = added / (before + added)
            distance = mean - self.mean
            self.mean += distance * share
            self._squares += squares + distance * distance * (before * share)
        self._num_joined = before + added

    def _add_to_sample(self, values: Floats, places: Ints) -> None:
        if not self._limit:
            return
        if self.halvings:
            chosen = self._is_sampled(places)
            values, places = values[chosen], places[chosen]
        self._sample.append((values, places))
        self._num_sampled += len(values)
        while self._num_sampled > self._limit:
            self.halvings += 1
            values, places = self._joined_sample()
            chosen = self._is_sampled(places)
            self._sample = [(values[chosen], places[chosen])]
            self._num_sampled = int(np.count_nonzero(chosen))

    def _joined_sample(self) -> tuple[Floats, Ints]:
        if not self._sample:
            return np.empty(0), np.empty(0, np.int64)
        values, places = zip(*self._sample, strict=True)
        return np.concatenate(values), np.concatenate(places)

    def _is_sampled(self, places: Ints) -> NDArray[np.bool_]:
        """Tell by splitmix64's hash of a place."""
        h = places.view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        h ^= h >> np.uint64(31)
        found: NDArray[np.bool_] = h >> np.uint64(64 - self.halvings) == 0
        return found
