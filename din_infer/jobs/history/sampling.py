"""Negatives drawn by a hash of the row, so that no order of work changes them.

Letters: R positives, K negatives of each. Items are numbered in order of their first
event, so that those seen before a time are ``0 .. n - 1``.
"""

import numpy as np
from numpy.typing import NDArray

from din_infer.jobs.history.segments import Ints, Times, count_before

__all__ = ["NONE", "draws", "keys_of", "sample_popular", "sample_uniform"]

NONE = -1  # no item is left
ATTEMPTS = 128  # by popularity, for one negative
Words = NDArray[np.uint64]


def _mixed(words: Words) -> Words:
    """Mix the bits of words: the finalizer of SplitMix64 (Steele et al., 2014)."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def keys_of(seed: int, user: Ints, item: Ints, time: Times, copy: Ints) -> Words:
    """Hash what a positive is: user, item, time, and which of its equals.

    Returns
    -------
    uint64 [R]
    """
    key = _mixed(np.full(len(user), seed & (2**64 - 1), np.uint64))
    for part in (user, item, time, copy):
        key = _mixed(key ^ np.ascontiguousarray(part).view(np.uint64))
    return key


def draws(keys: Words, number: int, below: Ints) -> Ints:
    """Draw one of ``0 .. below - 1`` for each key: its draw of this number.

    The remainder of 64 bits: no value is likelier than another by over below / 2**64.
    """
    words = _mixed(keys ^ np.uint64(number))
    return (words % np.maximum(below, 1).astype(np.uint64)).astype(np.int64)


def sample_uniform(
    keys: Words, pool: Ints, owned: Ints, start: Ints, stop: Ints, num: int
) -> Ints:
    """Draw different items that the user does not have, all equally likely.

    Parameters
    ----------
    keys : uint64 [R]
    pool : int64 [R]
        Items ``0 .. pool - 1`` are drawn from.
    owned : int64
        Items of users, rising and different inside each user's segment.
    start, stop : int64 [R]
        The user's segment of `owned`.
    num : int
        K.

    Returns
    -------
    int64 [R, K]
        `NONE` where the user has all others.

    Notes
    -----
    A subset of ranks by Floyd's method (Bentley and Floyd, CACM 1987): rank j below
    ``M - K + j + 1``, or that bound itself where the rank is taken. If the user's items
    are s[0] < s[1] < .., s[j] - j others lie below s[j]; so the r-th other item is r
    plus the number of j with s[j] - j <= r.
    """
    others = pool - (count_before(owned, start, stop, pool) - start)
    wanted = np.minimum(others, num)
    below = owned - (np.arange(len(owned)) - _starts(owned, start, stop))
    ranks = np.full((len(keys), num), NONE, np.int64)
    for j in range(num):
        is_there = j < wanted
        top = others - wanted + j
        rank = draws(keys, j, top + 1)
        is_taken = (ranks[:, :j] == rank[:, None]).any(axis=1)
        ranks[:, j] = np.where(is_there, np.where(is_taken, top, rank), NONE)
    items = ranks.copy()
    for j in range(num):
        rank = ranks[:, j]
        skipped = count_before(below, start, stop, rank + 1) - start
        items[:, j] = np.where(rank == NONE, NONE, rank + skipped)
    return items


def _starts(owned: Ints, start: Ints, stop: Ints) -> Ints:
    """Return, for each of the owned items, where its user's segment starts."""
    first = np.zeros(len(owned), np.int64)
    is_some = start < stop
    first[start[is_some]] = start[is_some]
    return np.maximum.accumulate(first)


def sample_popular(
    keys: Words,
    events: Ints,
    pool: Ints,
    owned: Ints,
    start: Ints,
    stop: Ints,
    num: int,
) -> Ints:
    """Draw different items that the user does not have, by how many events they have.

    Parameters
    ----------
    keys : uint64 [R]
    events : int64
        The item of each event, in order of time.
    pool : int64 [R]
        The first so many events are drawn from.
    owned, start, stop, num
        As of `sample_uniform`.

    Returns
    -------
    int64 [R, K]
        `NONE` where 128 events in turn were of items that the user has, or that were
        drawn before.
    """
    items = np.full((len(keys), num), NONE, np.int64)
    for j in range(num):
        open_ = np.flatnonzero(pool > 0)
        for attempt in range(ATTEMPTS):
            if not len(open_):
                break
            place = draws(keys[open_], j * ATTEMPTS + attempt, pool[open_])
            item = events[place]
            at = count_before(owned, start[open_], stop[open_], item)
            is_inside = at < stop[open_]
            is_wrong = is_inside & (owned[np.where(is_inside, at, 0)] == item)
            is_wrong |= (items[open_, :j] == item[:, None]).any(axis=1)
            items[open_[~is_wrong], j] = item[~is_wrong]
            open_ = open_[is_wrong]
    return items
