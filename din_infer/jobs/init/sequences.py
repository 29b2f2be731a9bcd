"""Behavior sequences: lists of the same lengths, their order, what fills them up."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from itertools import pairwise, takewhile
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from din_infer.jobs.init.columns import Column
from din_infer.jobs.init.roles import BehaviorSequence, Role, new_name

__all__ = ["find_sequences", "growth"]

# Rows of one user that tell the order of histories.
TOLD_ROWS = 5_000


def find_sequences(
    behaviors: Sequence[Role],
    group: Column | None,
    time: Column | None,
    names: Collection[str] = (),
) -> list[BehaviorSequence]:
    """Put behavior columns together whose lists have the same lengths on every row.

    The `names` are those that fields have.
    """
    by_lengths: dict[bytes, list[Role]] = defaultdict(list)
    for role in behaviors:
        if role.column.lengths is not None:
            by_lengths[role.column.lengths.tobytes()].append(role)
    made: list[BehaviorSequence] = []
    taken = set(names)
    for roles in by_lengths.values():
        name = _name_of(roles, taken)
        taken.add(name)
        lead = roles[0].column
        padding = _padding(lead)
        lengths = lead.lengths if padding is None else _unpadded(lead, padding)
        most = _max_len(np.empty(0, np.int64) if lengths is None else lengths)
        order, why = _order(lead, group, time)
        if padding is not None and lead.dtype == "string":
            padding = str(padding)
        made.append(BehaviorSequence(name, tuple(roles), most, order, why, padding))
    return made


def _name_of(roles: Sequence[Role], taken: Collection[str]) -> str:
    names = [r.column.name for r in roles]
    same = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    start = "".join(letters[0] for letters in same) if len(names) > 1 else ""
    start = start.strip("_-. ")
    name = {"hist": "history", "": "history"}.get(start, start)
    while name in taken:
        name += "_list"
    return new_name(name, taken)


def _max_len(lengths: NDArray[np.int64]) -> int:
    """Round up what 99 % of the histories fit in; padding costs no time."""
    wanted = int(np.quantile(lengths, 0.99)) if len(lengths) else 1
    for size in (50, 100, 200, 500):
        if wanted <= size:
            return size
    return 1000


def _padding(column: Column) -> str | int | None:
    """Find the value that fills lists up to one length: 0, "0", "" or -1."""
    lengths = column.lengths
    if lengths is None or len(lengths) < 2 or lengths.min() != lengths.max():
        return None
    size = int(lengths[0])
    if size < 2:
        return None
    codes = np.asarray(
        pc.dictionary_encode(column.values, null_encoding="encode").indices
    ).reshape(-1, size)
    fills = [0, -1] if column.kind == "whole" else ["0", "", "PAD", "<pad>", "pad"]
    dictionary = pc.dictionary_encode(column.values, null_encoding="encode").dictionary
    known = {v: i for i, v in enumerate(dictionary.to_pylist())}
    for fill in fills:
        if fill not in known:
            continue
        ends = (codes[:, 0] == known[fill]) | (codes[:, -1] == known[fill])
        if ends.mean() > 0.2:
            return fill
    return None


def _unpadded(column: Column, fill: str | int) -> NDArray[np.int64]:
    size = int(column.lengths[0]) if column.lengths is not None else 0
    filled = pc.fill_null(pc.equal(column.values, pa.scalar(fill)), False)
    padded: NDArray[np.int64] = np.asarray(filled).reshape(-1, size).sum(1)
    return size - padded


def _order(
    column: Column, group: Column | None, time: Column | None
) -> tuple[str, str]:
    """Tell where new behaviors are added, by rows of one user in time order."""
    if group is None or column.lengths is None:
        return "oldest_first", "not seen in the data: oldest first is assumed"
    (at_end, at_start), _ = growth(column, group, time)
    if at_end > at_start:
        return "oldest_first", f"{at_end:,} histories grew at their end"
    if at_start > at_end:
        return "newest_first", f"{at_start:,} histories grew at their start"
    return "oldest_first", "not seen in the data: oldest first is assumed"


def growth(
    column: Column, group: Column, time: Column | None
) -> tuple[tuple[int, int], int]:
    """Count pairs of a user's rows, the second history longer than the first.

    Returns
    -------
    ((at the end, at the start), neither) : where the second goes on.
    """
    users = group.codes()
    keys: list[NDArray[Any]] = [np.arange(len(users)), users]
    if time is not None and time.kind == "time":
        keys.insert(1, np.asarray(pc.rank(time.values), dtype=np.int64))
    elif time is not None:
        keys.insert(1, _numbers(time))
    order = np.lexsort(tuple(keys))[:TOLD_ROWS]
    codes = np.asarray(
        pc.dictionary_encode(column.values, null_encoding="encode").indices
    )
    lengths = np.asarray(column.lengths)
    ends = np.cumsum(lengths)
    lists = {int(i): codes[ends[i] - lengths[i] : ends[i]].tolist() for i in order}
    at_end = at_start = neither = 0
    for a, b in pairwise(order.tolist()):
        before, after = lists[a], lists[b]
        if users[a] != users[b] or not 0 < len(before) < len(after):
            continue
        begins = after[: len(before)] == before
        stops = after[-len(before) :] == before
        at_end += begins and not stops
        at_start += stops and not begins
        neither += not begins and not stops
    return (at_end, at_start), neither


def _numbers(column: Column) -> NDArray[np.float64]:
    values = pc.fill_null(pc.cast(column.values, pa.float64(), safe=False), 0.0)
    return np.asarray(values, dtype=np.float64)
