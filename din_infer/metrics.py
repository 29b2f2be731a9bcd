"""How well scores order and predict clicks: AUC, GAUC, log loss and calibration.

Letters: N rows, G groups, K ties (runs of equal scores, within one group), W bins.
A metric that the data leaves without an answer is NaN. Over 400 lines, but 300 of code:
each metric is defined once, for whole arrays and for the batches of `ClickMetrics`.
"""

import math
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from din_infer.errors import InputError, check_count, check_kind, reads_arguments

__all__ = [
    "CalibrationBin",
    "CalibrationReport",
    "ClickMetrics",
    "ClickReport",
    "GaucReport",
    "auc",
    "calibration_error",
    "calibration_report",
    "gauc",
    "gauc_report",
    "log_loss",
    "rela_impr",
]


@reads_arguments(InputError)
def auc(
    labels: ArrayLike, scores: ArrayLike, *, weights: ArrayLike | None = None
) -> float:
    """Return the probability that a click is scored above a non-click.

    Parameters
    ----------
    labels : bool, int or float [N]
        1 for a click, 0 for none.
    scores : float [N]
        Scores or logits: only their order counts. Infinities are allowed.
    weights : float [N], optional
        How often each row counts: finite, at least 0.

    Returns
    -------
    float
        In [0, 1]; NaN when the labels (of weight above 0) are all 0, all 1, or there
        are none.

    Raises
    ------
    InputError
        If the lengths differ, an array is not one-dimensional and numeric, a label is
        neither 0 nor 1, a score is NaN, or a weight is negative or not finite.

    Notes
    -----
    The Mann-Whitney rank statistic, exact: pairs are counted in integers, a pair of
    equal scores as half; with weights, in float64. O(N log N).

    Examples
    --------
    >>> auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    >>> auc([0, 1], [0.5, 0.5])  # a tie counts half
    0.5
    >>> auc([0, 0, 1], [0.1, 0.9, 0.5], weights=[3, 1, 1])
    0.75
    >>> auc([1, 1], [0.2, 0.9])  # nothing to compare with
    nan
    """
    clicks, values = _check(labels, scores)
    mass = _check_weights(weights, len(values))
    if not len(values):
        return math.nan
    if mass is not None:
        one_group = np.zeros(len(values), np.int64)
        return float(_auc_per_group(clicks, values, one_group, mass)[0][0])
    # Without weights and groups values alone need sorting, twice as fast as rows.
    up, down = np.sort(values[clicks]), np.sort(values[~clicks])
    pairs = len(up) * len(down)
    # Once with the ties, once without: twice the pairs that are ordered rightly.
    right_twice = np.searchsorted(down, up, "left").sum()
    right_twice += np.searchsorted(down, up, "right").sum()
    return int(right_twice) / (2 * pairs) if pairs else math.nan


@reads_arguments(InputError)
def gauc(
    labels: ArrayLike,
    scores: ArrayLike,
    groups: ArrayLike,
    *,
    weights: ArrayLike | None = None,
) -> float:
    """Return the AUC within each group, averaged by impressions.

    Groups are users as a rule: what counts is the order of the candidates shown to one
    user, not that some users click more than others.

    Parameters
    ----------
    labels, scores
        As for `auc`.
    groups : int or string [N]
        The group of each row, in any order; an array or a list.
    weights : float [N], optional
        As for `auc`.

    Returns
    -------
    float
        In [0, 1]; NaN when no group has both a click and a non-click (of weight
        above 0).

    Raises
    ------
    InputError
        As `auc` does, or if a group is neither an integer nor a string.

    Notes
    -----
    ``sum(impressions_g * AUC_g) / sum(impressions_g)``, the metric of the DIN paper
    (Zhou et al., KDD 2018, equation 10). The impressions of a group are its
    rows, or the sum of their weights; a group of clicks only, or of none, has no AUC
    and is left out of both sums. One sort for all groups, O(N log N).

    Examples
    --------
    >>> gauc([1, 0, 1, 0, 0], [0.9, 0.1, 0.2, 0.3, 0.1], ["a", "a", "b", "b", "b"])
    0.7
    >>> gauc([1, 0], [0.9, 0.1], ["a", "b"])  # no group has both
    nan
    >>> gauc([1, 0, 1, 0], [9, 1, 1, 9], ["a", "a", "b", "b"], weights=[3, 3, 1, 1])
    0.75
    """
    return gauc_report(labels, scores, groups, weights=weights).gauc


@dataclass(frozen=True)
class GaucReport:
    """GAUC, and how many groups and rows it rests on.

    ``groups = groups_scored + only_clicks + no_clicks``; `rows_scored` are the rows of
    the groups scored. Rows of weight 0 are not counted.
    """

    gauc: float
    groups: int
    groups_scored: int
    only_clicks: int
    no_clicks: int
    rows: int
    rows_scored: int

    def __str__(self) -> str:
        return (
            f"GAUC {self.gauc:.5f} of {self.groups_scored} of {self.groups} groups "
            f"({self.only_clicks} only clicks, {self.no_clicks} no clicks), "
            f"{self.rows_scored} of {self.rows} rows"
        )


@reads_arguments(InputError)
def gauc_report(
    labels: ArrayLike,
    scores: ArrayLike,
    groups: ArrayLike,
    *,
    weights: ArrayLike | None = None,
) -> GaucReport:
    """Return GAUC with what it leaves out; parameters and errors are those of `gauc`.

    Examples
    --------
    >>> print(gauc_report([1, 0, 1, 0], [0.9, 0.1, 0.2, 0.3], ["a", "a", "b", "c"]))
    GAUC 1.00000 of 1 of 3 groups (1 only clicks, 1 no clicks), 2 of 4 rows
    """
    marks, values = _check(labels, scores)
    keys = _group_keys(groups, len(values))
    mass = _check_weights(weights, len(values))
    # Integers need no numbering; uint64 wraps, one to one.
    codes = _codes(keys, _CodeOf()) if isinstance(keys, list) else keys.astype("i8")
    if mass is not None:
        kept = mass > 0
        marks, values, codes, mass = marks[kept], values[kept], codes[kept], mass[kept]
    if not len(values):
        return GaucReport(math.nan, 0, 0, 0, 0, 0, 0)
    aucs, rows, clicks, masses = _auc_per_group(marks, values, codes, mass)
    scored = ~np.isnan(aucs)
    # Rounded once, so that the order of the groups, by name or by code, does not count.
    total = math.fsum(aucs[scored] * masses[scored])
    whole = math.fsum(masses[scored])
    return GaucReport(
        gauc=min(total / whole, 1.0) if whole else math.nan,
        groups=len(aucs),
        groups_scored=int(scored.sum()),
        only_clicks=int((clicks == rows).sum()),
        no_clicks=int((clicks == 0).sum()),
        rows=len(values),
        rows_scored=int(rows[scored].sum()),
    )


@reads_arguments(InputError)
def rela_impr(auc: float, base_auc: float) -> float:
    """Return by how many percent a model's lead over chance exceeds a base model's.

    Parameters
    ----------
    auc, base_auc : float
        AUC or GAUC of the model and of the base model.

    Returns
    -------
    float
        ``((auc - 0.5) / (base_auc - 0.5) - 1) * 100``, RelaImpr of the DIN paper
        (Zhou et al., KDD 2018, equation 11, after Yan et al., ICML 2014); NaN when
        one of the two is NaN.

    Raises
    ------
    InputError
        If one is outside [0, 1], or the base is at or below 0.5: without a lead over
        chance there is nothing to be relative to, and below it a better model would
        get a lower number.

    Examples
    --------
    >>> round(rela_impr(0.75, 0.7), 6)
    25.0
    """
    for place, value in (("auc", auc), ("base_auc", base_auc)):
        if np.ndim(value) != 0:
            raise InputError("one number", type(value).__name__, place)
        if value < 0 or value > 1:
            raise InputError("an AUC in [0, 1]", value, place)
    if base_auc <= 0.5:
        raise InputError("an AUC above 0.5", base_auc, "base_auc")
    return float(((auc - 0.5) / (base_auc - 0.5) - 1) * 100)


@reads_arguments(InputError)
def log_loss(
    labels: ArrayLike, scores: ArrayLike, *, weights: ArrayLike | None = None
) -> float:
    """Return the mean negative log-likelihood of the labels, in nats.

    Parameters
    ----------
    labels, weights
        As for `auc`.
    scores : float [N]
        Probabilities of a click, in [0, 1]: not logits.

    Returns
    -------
    float
        At least 0; NaN when there are no rows, or none of weight above 0.

    Raises
    ------
    InputError
        As `auc` does, or if a score lies outside [0, 1].

    Notes
    -----
    ``-mean(y * ln(p) + (1 - y) * ln(1 - p))`` (equation 2 of the DIN paper), with p
    clipped to [eps, 1 - eps], eps that of float64, so that one score of exactly 0 or 1
    costs at most 36 and not infinity.

    Examples
    --------
    >>> round(log_loss([1, 0], [0.5, 0.5]), 6)
    0.693147
    >>> round(log_loss([1], [0.0]), 2)  # sure and wrong
    36.04
    >>> log_loss([], [])
    nan
    """
    clicks, values = _check(labels, scores, probabilities=True)
    mass = _check_weights(weights, len(values))
    if not len(values) or (mass is not None and not mass.any()):
        return math.nan
    eps = float(np.finfo(np.float64).eps)
    p = np.clip(values, eps, 1 - eps)
    losses = -np.log(np.where(clicks, p, 1 - p))
    return float(np.average(losses, weights=mass))


@dataclass(frozen=True)
class CalibrationBin:
    """Rows of neighboring scores; both means are weighted where there are weights."""

    rows: int
    mean_score: float
    click_rate: float


@dataclass(frozen=True)
class CalibrationReport:
    """Mean and largest gap between mean score and click rate, over the bins.

    `ratio` is ``sum(scores) / sum(clicks)``: above 1 where scores are too high. `bins`
    are in the order of their scores and have rows; a row of weight 0 is in none.
    """

    error: float
    max_error: float
    ratio: float
    bins: tuple[CalibrationBin, ...]

    def __str__(self) -> str:
        text = "      rows  mean score  click rate\n"
        for b in self.bins:
            text += f"{b.rows:10d}  {b.mean_score:10.5f}  {b.click_rate:10.5f}\n"
        text += f"error {self.error:.5f}, max error {self.max_error:.5f}"
        return f"{text}, ratio {self.ratio:.5f}"


@reads_arguments(InputError)
def calibration_error(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    num_bins: int = 10,
    strategy: str = "quantile",
    weights: ArrayLike | None = None,
) -> float:
    """Return the expected calibration error: `calibration_report`'s `error`.

    Examples
    --------
    >>> calibration_error([0, 1, 0, 1], [0.5, 0.5, 0.25, 0.25], num_bins=2)
    0.125
    """
    return calibration_report(
        labels, scores, num_bins=num_bins, strategy=strategy, weights=weights
    ).error


@reads_arguments(InputError)
def calibration_report(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    num_bins: int = 10,
    strategy: str = "quantile",
    weights: ArrayLike | None = None,
) -> CalibrationReport:
    """Compare mean score and click rate, in bins of neighboring scores.

    Parameters
    ----------
    labels, scores, weights
        As for `log_loss`.
    num_bins : int
        W, at least 1.
    strategy : str
        "quantile": as many rows in each bin, except that equal scores share one;
        "uniform": bins of width 1/W.

    Returns
    -------
    CalibrationReport
        NaN and no bins when there are no rows (of weight above 0); without clicks,
        `ratio` is NaN.

    Raises
    ------
    InputError
        As `log_loss` does, or if `num_bins` or `strategy` is none of the above.

    Notes
    -----
    ``error = sum over bins of rows_b / N * |mean_score_b - click_rate_b|``: ECE, and
    `max_error` MCE, of Naeini et al., AAAI 2015 (sorted scores, cut into bins), and of
    Guo et al., ICML 2017, equation 3 (bins of equal width). A score on an edge is in
    the bin below. Weights count in all sums, but bins of equal count are so in rows.

    Examples
    --------
    >>> print(calibration_report([0, 1, 0, 1], [0.5, 0.5, 0.25, 0.25], num_bins=2))
          rows  mean score  click rate
             2     0.25000     0.50000
             2     0.50000     0.50000
    error 0.12500, max error 0.25000, ratio 0.75000
    """
    check_count(num_bins, "num_bins")
    if strategy not in ("quantile", "uniform"):
        raise InputError("'quantile' or 'uniform'", repr(strategy), "strategy")
    clicks, values = _check(labels, scores, probabilities=True)
    mass = _check_weights(weights, len(values))
    if mass is None:
        mass = np.ones(len(values))
    else:
        kept = mass > 0
        clicks, values, mass = clicks[kept], values[kept], mass[kept]
    if not len(mass):
        return CalibrationReport(math.nan, math.nan, math.nan, ())
    edges = np.linspace(0, 1, num_bins + 1)
    if strategy == "quantile":
        edges = np.percentile(values, edges * 100)
    bins = np.searchsorted(edges[1:-1], values)
    total = np.bincount(bins, mass)
    used = total > 0
    rows = np.bincount(bins)[used]
    mean_scores = np.bincount(bins, values * mass)[used] / total[used]
    click_rates = np.bincount(bins, clicks * mass)[used] / total[used]
    gaps = np.abs(mean_scores - click_rates)
    clicked = float((clicks * mass).sum())
    table = map(CalibrationBin, *(c.tolist() for c in (rows, mean_scores, click_rates)))
    return CalibrationReport(
        error=float(np.average(gaps, weights=total[used])),
        max_error=float(gaps.max()),
        ratio=float((values * mass).sum()) / clicked if clicked else math.nan,
        bins=tuple(table),
    )


@dataclass(frozen=True)
class ClickReport:
    """What `ClickMetrics` measured; `gauc` is None where no groups were given.

    `rows` and `clicks` are counts of rows; the others are weighted where weights were
    given.
    """

    rows: int
    clicks: int
    auc: float
    gauc: float | None
    log_loss: float
    calibration: float
    calibration_error: float


# Clicks, scores, groups, weights.
_Batch = tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None, NDArray[Any] | None]


class ClickMetrics:
    """The metrics of rows that arrive in batches.

    Equal to `auc`, `gauc`, `log_loss` and `calibration_report` (ratio and error) of all
    rows at once, however they are cut. For that every row is kept, in 9 bytes, 5 with
    float32 scores; groups take 8 more (and each distinct group once), weights 8, or 4
    in float32; and each batch some hundred bytes, until `result` joins them. Can be
    pickled, to be merged in another process.

    Examples
    --------
    >>> metrics = ClickMetrics()
    >>> metrics.update([0, 0], [0.1, 0.4])
    >>> metrics.update([1, 1], [0.35, 0.8])
    >>> metrics.result().auc
    0.75
    """

    def __init__(self) -> None:
        self._batches: list[_Batch] = []
        self._code_of = _CodeOf()

    @reads_arguments(InputError)
    def update(
        self,
        labels: ArrayLike,
        scores: ArrayLike,
        groups: ArrayLike | None = None,
        weights: ArrayLike | None = None,
    ) -> None:
        """Add rows; all is copied.

        Parameters
        ----------
        labels, scores, weights
            As for `log_loss`. With weights every metric is weighted.
        groups : int or string [N], optional
            As for `gauc`; equal groups of different batches are one.

        Raises
        ------
        InputError
            As `log_loss` and `gauc` do, or if groups or weights are given in some
            batches and not in others. Nothing is added.
        """
        clicks, values = _check(labels, scores, probabilities=True)
        _check_weights(weights, len(values))
        keys = None if groups is None else _group_keys(groups, len(values))
        self._check_columns(groups, weights)
        codes = None if keys is None else _codes(keys, self._code_of)
        mass = None if weights is None else np.array(weights, _width(weights))
        self._batches.append((clicks, values.astype(_width(scores)), codes, mass))

    def merge(self, other: "ClickMetrics") -> None:
        """Add the rows of another, which stays as it is; raises as `update` does."""
        check_kind(other, ClickMetrics, "other")
        for batch in other._batches[:1]:
            self._check_columns(*batch[2:])
        codes = _codes(list(other._code_of), self._code_of)
        self._batches += [
            (clicks, scores, None if groups is None else codes[groups], weights)
            for clicks, scores, groups, weights in other._batches
        ]

    def result(self) -> ClickReport:
        """Measure the rows so far; more may follow. O(N log N)."""
        if len(self._batches) > 1:
            columns = zip(*self._batches, strict=True)
            joined = [None if c[0] is None else np.concatenate(c) for c in columns]
            self._batches = [cast("_Batch", tuple(joined))]
        none: _Batch = (np.zeros(0, bool), np.zeros(0), None, None)
        clicks, scores, groups, weights = self._batches[0] if self._batches else none
        calibration = calibration_report(clicks, scores, weights=weights)
        return ClickReport(
            rows=len(clicks),
            clicks=int(clicks.sum()),
            auc=auc(clicks, scores, weights=weights),
            gauc=None
            if groups is None
            else gauc(clicks, scores, groups, weights=weights),
            log_loss=log_loss(clicks, scores, weights=weights),
            calibration=calibration.ratio,
            calibration_error=calibration.error,
        )

    def _check_columns(self, groups: object, weights: object) -> None:
        """Refuse a batch with other columns than the first."""
        for batch in self._batches[:1]:
            pairs = (("groups", batch[2], groups), ("weights", batch[3], weights))
            for name, before, now in pairs:
                if (before is None) != (now is None):
                    got = "a batch without" if now is None else "a batch with"
                    raise InputError(f"{name} in every batch or in none", got, name)


def _width(data: ArrayLike) -> type[np.float32 | np.float64]:
    """Return the narrower of float32 and float64 that keeps the values."""
    return np.float32 if getattr(data, "dtype", None) == np.float32 else np.float64


def _check(
    labels: ArrayLike, scores: ArrayLike, *, probabilities: bool = False
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return labels and scores as bool [N] and float64 [N]."""
    marks = _as_numbers(labels, "labels")
    values = _as_numbers(scores, "scores")
    if len(marks) != len(values):
        rule = f"as many scores as labels ({len(marks)})"
        raise InputError(rule, len(values), "scores")
    _refuse((marks != 0) & (marks != 1), "0 or 1", marks, "labels")
    _refuse(np.isnan(values), "a number", values, "scores")
    outside = (values < 0) | (values > 1)
    if probabilities and outside.any():
        row = int(outside.argmax())
        rule, fix = "a probability in [0, 1]", "Pass scores, not logits."
        raise InputError(rule, float(values[row]), f"scores[{row}]", fix)
    return marks == 1, values


def _refuse(
    wrong: NDArray[np.bool_], rule: str, values: NDArray[np.float64], name: str
) -> None:
    """Raise InputError at the first value that is wrong."""
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(rule, f"{values[row]:g}", f"{name}[{row}]")


def _check_weights(
    weights: ArrayLike | None, num_rows: int
) -> NDArray[np.float64] | None:
    """Return weights as float64 [N], scaled by a power of two to be below 2."""
    if weights is None:
        return None
    mass = _as_numbers(weights, "weights")
    if len(mass) != num_rows:
        rule = f"as many weights as labels ({num_rows})"
        raise InputError(rule, len(mass), "weights")
    wrong = ~(np.isfinite(mass) & (mass >= 0))
    _refuse(wrong, "a finite weight of at least 0", mass, "weights")
    # Only ratios count, and so no sum overflows.
    exponent = np.frexp(mass.max(initial=0))[1] - 1
    scaled: NDArray[np.float64] = np.ldexp(mass, -exponent)
    return scaled


def _check_unmasked(data: ArrayLike, place: str) -> None:
    if np.ma.is_masked(data):
        raise InputError("values without a mask", "a masked array", place)


def _as_numbers(data: ArrayLike, place: str) -> NDArray[np.float64]:
    _check_unmasked(data, place)
    try:
        array = np.asarray(data)
    except ValueError:
        raise InputError("one number per row", "ragged lists", place) from None
    if array.ndim != 1:
        raise InputError("one dimension", array.ndim, place)
    if array.dtype.kind not in "biuf" and (array.dtype != object or not len(array)):
        raise InputError("numbers", f"dtype {array.dtype}", place)
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError):
        raise InputError("numbers", "dtype object", place) from None


def _group_keys(
    groups: ArrayLike, num_rows: int
) -> NDArray[np.integer | np.bool_] | list[object]:
    """Return checked groups: an array of integers, or a list to look up in a dict."""
    _check_unmasked(groups, "groups")
    # A list is kept as it is: NumPy would turn [1, "1"] into one group.
    array = np.asarray(groups, object if isinstance(groups, list | tuple) else None)
    if array.ndim != 1 or len(array) != num_rows:
        got = len(array) if array.ndim == 1 else f"shape {array.shape}"
        raise InputError(f"as many groups as labels ({num_rows})", got, "groups")
    if array.dtype.kind in "biu":
        return array
    if array.dtype.kind not in "USTO":
        raise InputError("integers or strings", f"dtype {array.dtype}", "groups")
    keys: list[object] = array.tolist()
    for kind in set(map(type, keys)):
        if not issubclass(kind, int | np.integer | str | bytes):
            row = next(i for i, key in enumerate(keys) if type(key) is kind)
            got, place = repr(keys[row]), f"groups[{row}]"
            raise InputError("an integer or a string", got, place)
    return keys


class _CodeOf(dict[object, int]):
    """Numbers keys in the order in which they are first looked up."""

    def __missing__(self, key: object) -> int:
        code = self[key] = len(self)
        return code


def _codes(
    keys: NDArray[np.integer | np.bool_] | list[object], code_of: _CodeOf
) -> NDArray[np.int64]:
    """Return one integer per group, equal where they are; `code_of` learns new ones."""
    if not isinstance(keys, list):
        distinct, place = np.unique(keys, return_inverse=True)
        return _codes(distinct.tolist(), code_of)[place]
    # A dict numbers strings several times faster than sorting them would.
    return np.fromiter(map(code_of.__getitem__, keys), np.int64, len(keys))


def _order(codes: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the rows by code, then by value; np.lexsort takes three times as long."""
    order = np.argsort(values)
    codes = codes[order]
    lowest, num_rows = codes.min(), len(codes)
    if int(codes.max()) - int(lowest) < 2**63 // num_rows:
        # Distinct keys need no stable sort, which takes four times as long.
        keys = (codes - lowest) * num_rows + np.arange(num_rows)
        return order[np.argsort(keys)]
    return order[np.argsort(codes, kind="stable")]


def _auc_per_group(
    clicks: NDArray[np.bool_],
    values: NDArray[np.float64],
    codes: NDArray[np.int64],
    mass: NDArray[np.float64] | None = None,
) -> tuple[
    NDArray[np.float64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]
]:
    """Return AUC (NaN where a class is missing), rows, clicks and mass, each [G].

    N > 0. None depends on the order of the groups, not by one bit.
    """
    order = _order(codes, values)
    clicks, values, codes = clicks[order], values[order], codes[order]
    starts_group = np.concatenate(([True], codes[1:] != codes[:-1]))
    starts_tie = np.concatenate(([True], values[1:] != values[:-1])) | starts_group
    ties = np.flatnonzero(starts_tie)
    firsts = np.flatnonzero(starts_group)
    groups = np.flatnonzero(starts_group[ties])  # the first tie of each group
    rows = np.diff(firsts, append=len(values))
    masses = rows.astype(np.float64)
    if mass is None:  # in integers: exact
        ups: NDArray[Any] = clicks.astype(np.int64)
        downs: NDArray[Any] = (~clicks).astype(np.int64)
    else:
        mass = mass[order]
        masses = np.add.reduceat(mass, firsts)
        # Of either class only ratios count, so no product of two sums underflows.
        ups, downs = (
            _evened(np.where(of_class, mass, 0.0), firsts, rows)
            for of_class in (clicks, ~clicks)
        )
    positives = np.add.reduceat(ups, ties)
    negatives = np.add.reduceat(downs, ties)
    ties_of_group = np.diff(groups, append=len(ties))
    if mass is None or len(groups) == 1:
        all_below = np.cumsum(negatives) - negatives
        below = all_below - np.repeat(all_below[groups], ties_of_group)
    else:  # a difference of sums over all groups would depend on those before
        below = _sums_within(negatives, groups, ties_of_group) - negatives
    # Twice the pairs that are ordered rightly, a tie counting half.
    right_twice = np.add.reduceat(positives * (2 * below + negatives), groups)
    pairs = np.add.reduceat(positives, groups) * np.add.reduceat(negatives, groups)
    aucs = np.full(len(groups), math.nan)
    np.divide(right_twice, 2 * pairs, out=aucs, where=pairs > 0)
    aucs = np.minimum(aucs, 1)  # which sums of weights may miss by a rounding
    return aucs, rows, np.add.reduceat(clicks, firsts, dtype=np.int64), masses


def _evened(
    mass: NDArray[np.float64], firsts: NDArray[np.int64], rows: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Scale the weights of each group by a power of two, the largest to [1, 2)."""
    exponents = np.frexp(np.maximum.reduceat(mass, firsts))[1] - 1
    scaled: NDArray[np.float64] = np.ldexp(mass, -np.repeat(exponents, rows))
    return scaled


def _sums_within(
    values: NDArray[np.float64], firsts: NDArray[np.int64], rows: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return running sums that begin anew with each group; O(N log of the longest)."""
    place = np.arange(len(values)) - np.repeat(firsts, rows)
    sums, longest, shift = values.copy(), int(rows.max()), 1
    while shift < longest:
        behind = np.flatnonzero(place >= shift)
        sums[behind] += sums[behind - shift]
        shift *= 2
    return sums
