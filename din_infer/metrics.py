"""How well scores order and predict clicks: AUC, its per-user form GAUC, and log loss.

Letters: N rows, G groups, K ties (runs of equal scores, within one group).
"""

import math
from collections import defaultdict
from itertools import count

import numpy as np
from numpy.typing import ArrayLike, NDArray

from din_infer.errors import InputError, explain

__all__ = ["auc", "gauc", "log_loss"]


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the probability that a click is scored above a non-click.

    Parameters
    ----------
    labels : bool, int or float [N]
        1 for a click, 0 for none.
    scores : float [N]
        Scores or logits: only their order counts. Infinities are allowed.

    Returns
    -------
    float
        In [0, 1]; NaN when the labels are all 0, all 1, or there are none.

    Raises
    ------
    InputError
        If the lengths differ, an array is not one-dimensional and numeric, a label is
        neither 0 nor 1, or a score is NaN.

    Notes
    -----
    The Mann-Whitney rank statistic, exact: pairs are counted in integers, a pair of
    equal scores as half. O(N log N).

    Examples
    --------
    >>> auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    >>> auc([0, 1], [0.5, 0.5])  # a tie counts half
    0.5
    >>> auc([1, 1], [0.2, 0.9])  # nothing to compare with
    nan
    """
    clicks, values = _check(labels, scores)
    if not len(values):
        return math.nan
    one_group = np.zeros(len(values), np.int64)
    return float(_auc_per_group(clicks, values, one_group)[0][0])


def gauc(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike) -> float:
    """Return the AUC within each group, averaged by impressions.

    Groups are users as a rule: what counts is the order of the candidates shown to one
    user, not that some users click more than others.

    Parameters
    ----------
    labels : bool, int or float [N]
        1 for a click, 0 for none.
    scores : float [N]
        Scores or logits: only their order counts.
    groups : int or string [N]
        The group of each row, in any order; an array or a list.

    Returns
    -------
    float
        In [0, 1]; NaN when no group has both a click and a non-click.

    Raises
    ------
    InputError
        As `auc` does, or if a group is neither an integer nor a string.

    Notes
    -----
    ``sum(impressions_g * AUC_g) / sum(impressions_g)``, the metric of the DIN paper
    (Zhou et al., KDD 2018, section 6, "Metrics"). The impressions of a group are its
    rows; a group of clicks only, or of none, has no AUC and is left out of both sums.
    One sort for all groups, O(N log N).

    Examples
    --------
    >>> gauc([1, 0, 1, 0, 0], [0.9, 0.1, 0.2, 0.3, 0.1], ["a", "a", "b", "b", "b"])
    0.7
    >>> gauc([1, 0], [0.9, 0.1], ["a", "b"])  # no group has both
    nan
    """
    clicks, values = _check(labels, scores)
    codes = _group_codes(groups, len(values))
    if not len(values):
        return math.nan
    aucs, impressions = _auc_per_group(clicks, values, codes)
    has_both = ~np.isnan(aucs)
    if not has_both.any():
        return math.nan
    weights = impressions[has_both]
    return float((aucs[has_both] * weights).sum() / weights.sum())


def log_loss(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the mean negative log-likelihood of the labels, in nats.

    Parameters
    ----------
    labels : bool, int or float [N]
        1 for a click, 0 for none.
    scores : float [N]
        Probabilities of a click, in [0, 1]: not logits.

    Returns
    -------
    float
        At least 0; NaN when there are no rows.

    Raises
    ------
    InputError
        As `auc` does, or if a score lies outside [0, 1].

    Notes
    -----
    ``-mean(y * ln(p) + (1 - y) * ln(1 - p))`` (equation 1 of the DIN paper), with p
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
    clicks, values = _check(labels, scores)
    outside = (values < 0) | (values > 1)
    if outside.any():
        row = int(outside.argmax())
        rule = "a probability in [0, 1]"
        fix = "Pass scores, not logits."
        raise InputError(explain(rule, float(values[row]), f"scores[{row}]", fix))
    if not len(values):
        return math.nan
    eps = float(np.finfo(np.float64).eps)
    p = np.clip(values, eps, 1 - eps)
    return float(-np.log(np.where(clicks, p, 1 - p)).mean())


def _check(
    labels: ArrayLike, scores: ArrayLike
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return labels and scores as bool [N] and float64 [N]."""
    marks = _as_numbers(labels, "labels")
    values = _as_numbers(scores, "scores")
    if len(marks) != len(values):
        rule = f"as many scores as labels ({len(marks)})"
        raise InputError(explain(rule, len(values), "scores"))
    wrong = (marks != 0) & (marks != 1)
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(explain("0 or 1", f"{marks[row]:g}", f"labels[{row}]"))
    missing = np.isnan(values)
    if missing.any():
        row = int(missing.argmax())
        raise InputError(explain("a number", "nan", f"scores[{row}]"))
    return marks == 1, values


def _as_numbers(data: ArrayLike, place: str) -> NDArray[np.float64]:
    try:
        array = np.asarray(data)
    except ValueError:
        raise InputError(explain("one number per row", "ragged lists", place)) from None
    if array.ndim != 1:
        raise InputError(explain("one dimension", array.ndim, place))
    if array.dtype.kind not in "biuf" and (array.dtype != object or not len(array)):
        raise InputError(explain("numbers", f"dtype {array.dtype}", place))
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError):
        raise InputError(explain("numbers", "dtype object", place)) from None


def _group_codes(groups: ArrayLike, num_rows: int) -> NDArray[np.int64]:
    """Return one integer per row, equal where the groups are equal."""
    # A list is kept as it is: NumPy would turn [1, "1"] into one group.
    array = np.asarray(groups, object if isinstance(groups, list | tuple) else None)
    if array.ndim != 1 or len(array) != num_rows:
        rule = f"as many groups as labels ({num_rows})"
        got = len(array) if array.ndim == 1 else f"shape {array.shape}"
        raise InputError(explain(rule, got, "groups"))
    if array.dtype.kind in "biu":
        return array.astype(np.int64)  # uint64 wraps, one to one
    if array.dtype.kind not in "USTO":
        rule = "integers or strings"
        raise InputError(explain(rule, f"dtype {array.dtype}", "groups"))
    # A dict numbers strings several times faster than sorting them would.
    keys: list[object] = array.tolist()
    for kind in set(map(type, keys)):
        if not issubclass(kind, int | np.integer | str | bytes):
            row = next(i for i, key in enumerate(keys) if type(key) is kind)
            rule = "an integer or a string"
            raise InputError(explain(rule, repr(keys[row]), f"groups[{row}]"))
    code_of: defaultdict[object, int] = defaultdict(count().__next__)
    return np.fromiter(map(code_of.__getitem__, keys), np.int64, num_rows)


def _auc_per_group(
    clicks: NDArray[np.bool_], values: NDArray[np.float64], codes: NDArray[np.generic]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return AUC [G], NaN where a class is missing, and rows [G]; N is at least 1."""
    order = np.lexsort((values, codes))
    clicks, values, codes = clicks[order], values[order], codes[order]
    starts_group = np.concatenate(([True], codes[1:] != codes[:-1]))
    starts_tie = np.concatenate(([True], values[1:] != values[:-1])) | starts_group
    ties = np.flatnonzero(starts_tie)
    rows = np.diff(ties, append=len(values))
    positives = np.add.reduceat(clicks, ties, dtype=np.int64)
    negatives = rows - positives
    groups = np.flatnonzero(starts_group[ties])  # the first tie of each group
    all_below = np.cumsum(negatives) - negatives
    ties_of_group = np.diff(groups, append=len(ties))
    below = all_below - np.repeat(all_below[groups], ties_of_group)
    # Twice the pairs that are ordered rightly, a tie counting half: integers are exact.
    right_twice = np.add.reduceat(positives * (2 * below + negatives), groups)
    pairs = np.add.reduceat(positives, groups) * np.add.reduceat(negatives, groups)
    aucs = np.full(len(groups), math.nan)
    np.divide(right_twice, 2 * pairs, out=aucs, where=pairs > 0)
    return aucs, np.add.reduceat(rows, groups)
