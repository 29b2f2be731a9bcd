"""What an inspection found; plain numbers, as JSON has them.

Shares are in [0, 1]; None where there is nothing to divide by, or nothing was counted.
"""

import math
from dataclasses import dataclass

__all__ = [
    "Collisions",
    "DenseReport",
    "FieldCounts",
    "Findings",
    "Labels",
    "Match",
    "Overlap",
    "SequenceReport",
    "TableReport",
    "Users",
    "expected_collisions",
    "share",
]


def share(part: float, whole: float) -> float | None:
    """Divide; None where there is no whole.

    >>> share(1, 4), share(0, 0)
    (0.25, None)
    """
    return float(part / whole) if whole else None


def expected_collisions(num_keys: int, num_buckets: int) -> float:
    """Return the expected share of keys that share their bucket with another.

    Notes
    -----
    Of n keys thrown into m buckets, each is alone with the probability
    (1 - 1/m)^(n - 1).

    >>> expected_collisions(1, 10), expected_collisions(2, 10)
    (0.0, 0.1)
    """
    if num_keys < 2:
        return 0.0
    if num_buckets == 1:
        return 1.0
    return -math.expm1((num_keys - 1) * math.log1p(-1 / num_buckets))


@dataclass(frozen=True)
class Labels:
    """Rows by label; `other` are neither 0 nor 1."""

    clicks: int
    non_clicks: int
    other: int

    @property
    def click_rate(self) -> float | None:
        """Clicks among the rows labeled 0 or 1."""
        return share(self.clicks, self.clicks + self.non_clicks)


@dataclass(frozen=True)
class Users:
    """Distinct values of the group column, and their rows; null is no user.

    `error` is half the 95 % interval of `distinct`, relative; 0.0: it is exact.
    """

    distinct: int
    error: float
    rows_mean: float | None
    rows_median: int | None
    rows_most: int | None


@dataclass(frozen=True)
class FieldCounts:
    """Counts of one field, of what is kept: `values` are rows, or behaviors kept.

    `refused` values stop din-train and din-score: unseen ones where the spec says
    ``unseen = "error"``, missing ones of a dense field without ``missing``.
    """

    values: int
    nulls: int
    unseen: int
    truncated: int
    empty: int
    refused: int


@dataclass(frozen=True)
class Match:
    """Where the candidate's value is in the history, for one class of rows.

    Attributes
    ----------
    rows : int
        With a history that is not empty.
    anywhere : int
        Of them, those with the candidate's value in the history that is kept.
    by_age : tuple of int
        Rows whose newest behavior (entry 0), second newest, .. has it.
    reach : tuple of int
        Rows that have such a behavior at all; as long as the longest kept history.
    """

    rows: int
    anywhere: int
    by_age: tuple[int, ...]
    reach: tuple[int, ...]

    def at(self, age: int) -> float | None:
        """Return the share of rows that match there; 0 is the newest behavior."""
        return share(self.by_age[age], self.reach[age]) if self.by_age[age:] else None

    @property
    def share(self) -> float | None:
        """Rows that match anywhere, among all of them."""
        return share(self.anywhere, self.rows)

    @property
    def density(self) -> float | None:
        """Behaviors that match, among all of them: free of how long histories are."""
        return share(sum(self.by_age), sum(self.reach))


@dataclass(frozen=True)
class Overlap:
    """A candidate field and the behavior field it pairs with.

    `matches` holds "clicks" and "non_clicks", or without labels "rows".
    """

    candidate: str
    behavior: str
    matches: dict[str, Match]


@dataclass(frozen=True)
class SequenceReport:
    """One behavior sequence.

    Attributes
    ----------
    name : str
    fields : tuple of str
    max_len : int
    order : str
    rows, empty, single, truncated : int
        All rows; those without behaviors, with one, with more than `max_len`.
    behaviors, lost : int
        All behaviors; those that truncation takes off.
    mean : float or None
    percentiles : dict of int
        "0" (the shortest history) to "100" (the longest): of that many percent of the
        rows the history is as long or shorter.
    max_len_keeping : dict of int
        The smallest `max_len` that keeps "95" and "99" percent of the behaviors.
    padding : float or None
        Of the rows padded to `max_len`, the share of positions that are padding.
    repeats : dict of float
        Per field, the share of kept behaviors whose value an earlier one in the same
        history has. Ranges (bucketize) are left out.
    overlaps : tuple of Overlap
    histogram : tuple of (length, rows)
    """

    name: str
    fields: tuple[str, ...]
    max_len: int
    order: str
    rows: int
    empty: int
    single: int
    truncated: int
    behaviors: int
    lost: int
    mean: float | None
    percentiles: dict[str, int]
    max_len_keeping: dict[str, int]
    padding: float | None
    repeats: dict[str, float | None]
    overlaps: tuple[Overlap, ...]
    histogram: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Collisions:
    """Keys of a hashed table that share their row with another key.

    Attributes
    ----------
    buckets : int
        Rows that keys can have.
    expected : float
        The share of keys by chance, `expected_collisions`.
    measured, occurrences : float or None
        The share of keys that do, and of their occurrences; None where the keys are a
        sample.
    wanted_buckets : int or None
        What the spec's `buckets` must be for a share of at most one percent, expected
        and, where the keys are no sample, measured; None where that is more than a
        table may have.
    wanted_measured : float or None
        The share measured with so many, by XXH64.
    """

    buckets: int
    expected: float
    measured: float | None
    occurrences: float | None
    wanted_buckets: int | None
    wanted_measured: float | None


@dataclass(frozen=True)
class TableReport:
    """One embedding table, over all fields that share it.

    Attributes
    ----------
    name, encoder, padding_row : str
    fields : tuple of str
    rows, dim : int
    occurrences : int
        Values that are not null.
    distinct : int
        Distinct ones; for bucketize, distinct ranges. Of an identity table 0, which is
        padding, and what is below are not among them.
    error : float
        Half the 95 % interval of `distinct`, relative; 0.0: it is exact.
    once : float or None
        The share of keys that occur once.
    top : dict of float or None
        The share of occurrences that the "0.1", "1", "10", "50" percent most frequent
        keys have.
    never : int
        Rows that no value has; row 0 and a vocabulary's row for the unseen not counted.
    unseen, unseen_keys : int
        Occurrences without an id of their own, and distinct keys among them (of a
        vocabulary or identity table).
    zeros : int
        Of an identity table, the values 0, which stand for missing.
    largest : int or None
        Of an identity table, the largest value.
    collisions : Collisions or None
        Of a hashed table.
    """

    name: str
    encoder: str
    padding_row: str
    fields: tuple[str, ...]
    rows: int
    dim: int
    occurrences: int
    distinct: int
    error: float
    once: float | None
    top: dict[str, float | None]
    never: int
    unseen: int
    unseen_keys: int
    zeros: int
    largest: int | None
    collisions: Collisions | None


@dataclass(frozen=True)
class DenseReport:
    """The numbers of one dense field, of all its K values together.

    Attributes
    ----------
    name : str
    values, missing, zeros : int
        Finite values; null, NaN and infinite ones; zeros among the finite ones.
    mean, std : float or None
        None where float64 does not hold them.
    percentiles : dict of float
        "0" (the smallest value) to "100" (the largest): of that many percent of the
        values this is the largest; of a sample where there are more than 4,194,304.
        Empty where there are no values.
    scale : str or None
        The type of the spec's `scale`; None: it says none.
    wanted : str or None
        The scale that training needs where the spec says none: "standard" far from unit
        range, "log1p" where few values are far larger than nearly all others.
    """

    name: str
    values: int
    missing: int
    zeros: int
    mean: float | None
    std: float | None
    percentiles: dict[str, float]
    scale: str | None
    wanted: str | None


@dataclass(frozen=True)
class Findings:
    """All that was counted.

    Attributes
    ----------
    files : tuple of str
    rows : int
        Rows inspected.
    rows_of_files : int or None
        Rows that the files have; None where text was not read to its end.
    absent : dict of str
        Of label, group and time, those that the spec names and the data lacks.
    labels : Labels or None
    users : Users or None
    time : tuple of str, or None
        The first and the last.
    sequences : tuple of SequenceReport
    fields : dict of FieldCounts
    tables : tuple of TableReport
    dense : tuple of DenseReport
    """

    files: tuple[str, ...]
    rows: int
    rows_of_files: int | None
    absent: dict[str, str]
    labels: Labels | None
    users: Users | None
    time: tuple[str, str] | None
    sequences: tuple[SequenceReport, ...]
    fields: dict[str, FieldCounts]
    tables: tuple[TableReport, ...]
    dense: tuple[DenseReport, ...]
