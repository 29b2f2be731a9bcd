"""Histories as positions: which of a user's behaviors stand before a target.

Letters: E behaviors of some users, sorted by user, then time; R targets. A segment
``[start, stop)`` of the E behaviors is what one user has.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["Ints", "Times", "before", "count_before", "of_other_sessions"]

Ints = NDArray[np.int64]
Times = NDArray[np.int64] | NDArray[np.float64]


def count_before(values: Times, start: Ints, stop: Ints, bounds: Times) -> Ints:
    """Find, in sorted segments, the end of the values that are below a bound.

    Parameters
    ----------
    values : int64 or float64 [E]
        Rising inside each segment.
    start, stop : int64 [R]
        A segment of `values` for each bound.
    bounds : int64 or float64 [R]

    Returns
    -------
    int64 [R]
        The first position of the segment whose value is at least the bound; or `stop`.
    """
    low, high = start.copy(), stop.copy()
    open_ = np.flatnonzero(low < high)
    while len(open_):
        middle = (low[open_] + high[open_]) // 2
        is_below = values[middle] < bounds[open_]
        low[open_[is_below]] = middle[is_below] + 1
        high[open_[~is_below]] = middle[~is_below]
        open_ = open_[low[open_] < high[open_]]
    return low


def before(times: Times, ticks: float) -> Times:
    """Subtract ticks from times; int64 stops at its least value."""
    if times.dtype == np.float64:
        return times.astype(np.float64) - ticks
    step = int(ticks)
    least = int(np.iinfo(np.int64).min)
    if step > np.iinfo(np.int64).max:
        return np.full(len(times), least)
    moved: Ints = times.astype(np.int64) - step  # wraps where it is not taken
    return np.where(times < least + step, least, moved)


def of_other_sessions(
    start: Ints, stop: Ints, session: Ints, own: Ints, max_len: int
) -> tuple[Ints, Ints]:
    """Take the newest behaviors of segments that are not of the target's own session.

    Parameters
    ----------
    start, stop : int64 [R]
        The behaviors that a target may have.
    session : int64 [E]
        Of the behaviors.
    own : int64 [R]
        The targets'; -1 is none, which leaves nothing out.
    max_len : int
        How many a target gets at most.

    Returns
    -------
    positions : int64
        Of the behaviors, oldest first, one target's after the other's.
    lengths : int64 [R]
    """
    # the position before each run of one session
    is_first = np.append(True, session[1:] != session[:-1])[: len(session)]
    run = np.maximum.accumulate(np.where(is_first, np.arange(len(session)), 0)) - 1
    at, lengths = stop - 1, np.zeros(len(stop), np.int64)
    found: list[tuple[Ints, Ints, Ints]] = []  # target, place from its end, position
    open_ = np.flatnonzero(at >= start)
    while len(open_):
        here = at[open_]
        is_own = (session[here] == own[open_]) & (own[open_] >= 0)
        taken = open_[~is_own]
        found.append((taken, lengths[taken], here[~is_own]))
        lengths[taken] += 1
        at[open_] = np.where(is_own, run[here], here - 1)
        open_ = open_[(at[open_] >= start[open_]) & (lengths[open_] < max_len)]
    ends = np.cumsum(lengths)
    positions = np.empty(int(ends[-1]) if len(ends) else 0, np.int64)
    for target, place, position in found:
        positions[ends[target] - 1 - place] = position
    return positions, lengths
