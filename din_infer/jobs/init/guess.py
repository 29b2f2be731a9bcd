"""What each column of a log is for: label, user, time, candidate, history, number.

Each guess carries its reason, which is printed and written beside it.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from din_infer.errors import InputError
from din_infer.jobs.init.columns import PAIRED_SHARE, Column, share_in

__all__ = ["Guess", "Role", "BehaviorSequence", "guess"]

LABELS = "label click clicked is_click is_clicked clk y target converted conversion"
GROUPS = "user_id userid user uid reviewerid customer_id visitor_id visitorid member_id"
GROUPS += " device_id cookie_id account_id"
TIMES = "time timestamp ts event_time datetime date unixreviewtime unix_time created_at"
WEIGHTS = "weight sample_weight row_weight importance"
NAMES = {
    "label": LABELS.split(),
    "group": GROUPS.split(),
    "time": TIMES.split(),
    "weight": WEIGHTS.split(),
}
ID_NAME = re.compile(r"(^|_)(id|ids|code|type|kind|class|cate|category|brand|shop)$")
# Whole numbers of so few values are kinds of something, not amounts.
FEW = 20
# Of the rows, from which on distinct values are numbers of rows and not of things.
ROW_NUMBER = 0.95
# Of the users (items) with several rows, how many have one value in all of them.
CONSTANT = 0.95
# Rows of one user that tell the order of histories.
TOLD_ROWS = 5_000


@dataclass(frozen=True)
class Role:
    """What a column is for, and why.

    `role` is "label", "group", "time", "weight", "field", "behavior", "multi_hot",
    "dense" or "none" (the spec does not read it). `pairs` is the candidate field of a
    behavior, None where it has none.
    """

    column: Column
    role: str
    why: str
    side: str = "candidate"
    pairs: str | None = None


@dataclass(frozen=True)
class BehaviorSequence:
    """Behavior columns whose lists have the same lengths on every row."""

    name: str
    roles: tuple[Role, ...]
    max_len: int
    order: str
    why: str
    pad_value: str | int | None = None


@dataclass
class Guess:
    """All roles, in the order of the columns, and the behavior sequences."""

    roles: list[Role] = field(default_factory=list)
    sequences: list[BehaviorSequence] = field(default_factory=list)

    def named(self, role: str) -> list[Role]:
        """List the columns of a role."""
        return [r for r in self.roles if r.role == role]


def guess(columns: Sequence[Column], given: Mapping[str, str]) -> Guess:
    """Guess what the columns of a log are for.

    Parameters
    ----------
    columns : sequence of Column
    given : mapping
        Columns that the caller names: of "label", "group", "time" and "weight".

    Raises
    ------
    InputError
        If there is no label, more than one, or no list of what was done before.
    """
    by_name = {c.name: c for c in columns}
    for role, name in given.items():
        if name not in by_name:
            raise InputError("a column of the data", repr(name), f"--{role}")
    roles: dict[str, Role] = {}
    for find in (_label, _group, _time, _weight):
        found = find(columns, given, roles)
        if found is not None:
            roles[found.column.name] = found
    rest = [c for c in columns if c.name not in roles]
    scalars = [c for c in rest if not c.is_list and _can_be_id(c)]
    pairs = _pair(rest, scalars)
    if not pairs:
        raise _no_history(rest)
    group = next((r.column for r in roles.values() if r.role == "group"), None)
    item = max((p for p in pairs.values()), key=lambda c: len(c.distinct))
    paired = {c.name for c in pairs.values()}
    for column in rest:
        if column.name in pairs:
            other = pairs[column.name]
            share = share_in(column.distinct, other.keys())
            why = f"{share:.0%} of its values are {other.name}'s"
            roles[column.name] = Role(column, "behavior", why, "user", other.name)
        elif column.is_list:
            roles[column.name] = _list_role(column, pairs, by_name, group, item)
        else:
            is_pair = column.name in paired
            roles[column.name] = _value_role(column, is_pair, group, item)
    made = Guess([roles[c.name] for c in columns])
    time = next((r.column for r in roles.values() if r.role == "time"), None)
    made.sequences = _sequences(made.named("behavior"), group, time)
    return made


# ---------------------------------------------------------------- label, user, time


def _by_name(columns: Sequence[Column], role: str) -> list[Column]:
    names = NAMES[role]
    found = [c for c in columns if c.name.lower() in names]
    return sorted(found, key=lambda c: names.index(c.name.lower()))


def _is_binary(column: Column) -> bool:
    if column.is_list or column.kind not in ("whole", "number", "bool"):
        return False
    if column.kind == "bool":
        return True
    values = set(column.distinct.to_pylist()[:3])
    return values <= {0, 1} and len(column.distinct) <= 2


def _label(
    columns: Sequence[Column], given: Mapping[str, str], _: Mapping[str, Role]
) -> Role:
    if "label" in given:
        column = next(c for c in columns if c.name == given["label"])
        if not _is_binary(column):
            got = f"{column.type} of {len(column.distinct)} values"
            raise InputError("a column of 0 and 1", got, column.name)
        return Role(column, "label", "as given")
    binary = [c for c in columns if _is_binary(c)]
    named = _by_name(binary, "label")
    if named:
        why = f"its name, and {_clicks(named[0])}"
        return Role(named[0], "label", why)
    if len(binary) == 1:
        why = f"the only column of 0 and 1: {_clicks(binary[0])}"
        return Role(binary[0], "label", why)
    rule = "one column of labels, 0 or 1"
    if binary:
        got = "several of 0 and 1: " + ", ".join(c.name for c in binary)
        raise InputError(rule, got, "the log", "Name it: --label COLUMN.")
    got = "none among " + ", ".join(c.name for c in columns)
    fix = (
        "Of raw events (user, item, time), din-history makes labeled rows. Of ratings,"
    )
    fix += " make a column of 0 and 1 first."
    raise InputError(rule, got, "the log", fix)


def _clicks(column: Column) -> str:
    values = pc.cast(pc.drop_null(column.values), pa.float64())
    return f"{pc.mean(values).as_py() or 0:.1%} are 1"


def _group(
    columns: Sequence[Column], given: Mapping[str, str], taken: Mapping[str, Role]
) -> Role | None:
    if "group" in given:
        return Role(_named(columns, given["group"]), "group", "as given")
    able = [c for c in columns if c.name not in taken and _can_be_id(c)]
    for column in _by_name([c for c in able if not c.is_list], "group"):
        users = len(column.distinct)
        return Role(column, "group", f"its name; {users:,} users", "user")
    return None


def _time(
    columns: Sequence[Column], given: Mapping[str, str], taken: Mapping[str, Role]
) -> Role | None:
    if "time" in given:
        return Role(_named(columns, given["time"]), "time", "as given")
    able = [c for c in columns if not c.is_list and c.name not in taken]
    named = _by_name([c for c in able if c.is_number or c.kind == "time"], "time")
    times = [c for c in able if c.kind == "time"]
    if named:
        return Role(named[0], "time", "its name; the newest rows validate")
    if len(times) == 1:
        return Role(times[0], "time", "the only column of times")
    return None


def _weight(
    columns: Sequence[Column], given: Mapping[str, str], taken: Mapping[str, Role]
) -> Role | None:
    if "weight" in given:
        return Role(_named(columns, given["weight"]), "weight", "as given")
    able = [c for c in columns if not c.is_list and c.name not in taken]
    for column in _by_name([c for c in able if c.is_number], "weight"):
        if len(column.numbers()) and column.numbers().min() >= 0:
            return Role(column, "weight", "its name, and nothing is negative")
    return None


def _named(columns: Sequence[Column], name: str) -> Column:
    return next(c for c in columns if c.name == name)


# ---------------------------------------------------------------- lists and pairs


def _can_be_id(column: Column) -> bool:
    if column.kind not in ("text", "whole", "bool"):
        return False
    return len(column.distinct) > 0


def _pair(rest: Sequence[Column], scalars: Sequence[Column]) -> dict[str, Column]:
    """Find the scalar column whose values each list holds, by its distinct elements."""
    found = {}
    for column in rest:
        if not column.is_list or not _can_be_id(column):
            continue
        shares = {}
        for other in scalars:
            if (other.kind == "text") != (column.kind == "text"):
                continue
            share = share_in(column.distinct, other.keys())
            back = share_in(other.distinct, column.keys())
            if share >= PAIRED_SHARE or (share >= 0.05 and _alike(column, other)):
                # small whole numbers are in every column of whole numbers
                shares[other.name] = share + back + 0.5 * _alike(column, other)
        if shares:
            best = max(shares, key=lambda name: shares[name])
            if (
                column.kind == "text"
                or _alike(column, _named(scalars, best))
                or (shares[best] >= 1.5)
            ):
                found[column.name] = _named(scalars, best)
    return found


def _alike(column: Column, other: Column) -> bool:
    """Whether one name is a part of the other: hist_goods_id, goods_id."""
    mine, theirs = _stem(column.name), _stem(other.name)
    return bool(theirs) and (theirs in mine or mine in theirs)


def _stem(name: str) -> str:
    words = re.split(r"[^a-z0-9]+", name.lower())
    left_out = {"id", "ids", "hist", "history", "seq", "list", "past", "behavior", ""}
    words = [w for w in words if w not in left_out]
    return "_".join(w.removesuffix("s") for w in words)


def _no_history(rest: Sequence[Column]) -> InputError:
    lists = [c.name for c in rest if c.is_list]
    rule = (
        "a column of lists that hold values of another column: what the user did before"
    )
    got = "none among the lists " + ", ".join(lists) if lists else "no lists"
    fix = "din-history makes histories of raw events. Lists in text need one separator"
    fix += " in all rows: | ; , tab or space."
    return InputError(rule, got, "the log", fix)


def _list_role(
    column: Column,
    pairs: Mapping[str, Column],
    by_name: Mapping[str, Column],
    group: Column | None,
    item: Column,
) -> Role:
    for name in pairs:
        same = by_name[name].lengths
        if same is not None and np.array_equal(same, column.lengths):
            why = f"as long as {name} on every row; pairs with nothing"
            return Role(column, "behavior", why, "user")
    if column.kind == "number":
        sizes = np.unique(column.lengths if column.lengths is not None else [])
        if len(sizes) == 1 and sizes[0] > 0:
            side = _side(column, group, item)
            return Role(column, "dense", f"{sizes[0]} numbers on every row", side)
        return Role(column, "none", "lists of numbers that are as long as no history")
    if not _can_be_id(column):
        return Role(column, "none", f"{column.type} has no use in a spec")
    side = _side(column, group, item)
    many = len(column.distinct)
    return Role(column, "multi_hot", f"lists of {many:,} values", side)


# ---------------------------------------------------------------- values


def _value_role(
    column: Column, is_pair: bool, group: Column | None, item: Column
) -> Role:
    many = len(column.distinct)
    if many == 0:
        return Role(column, "none", "all null")
    if is_pair:
        return Role(column, "field", f"{many:,} values, which histories hold")
    if many == 1:
        return Role(column, "none", "one value in all rows")
    if column.kind == "other":
        return Role(column, "none", f"{column.type} has no use in a spec")
    if column.kind == "time":
        return Role(column, "none", "a time; ages can be fields of a history")
    numbers = len(pc.drop_null(column.values))
    is_id = column.kind in ("text", "bool") or bool(ID_NAME.search(column.name.lower()))
    if column.kind in ("text", "whole") and many >= ROW_NUMBER * numbers > FEW:
        if is_id or _rises(column):
            return Role(
                column, "none", "another value on each row: a number of the row"
            )
    if column.kind == "text" and _says_same(column, item):
        return Role(column, "none", f"another name of {item.name}")
    side = _side(column, group, item)
    whose = "one per user" if side == "user" else "of the candidate, or of the moment"
    if is_id or (column.kind == "whole" and many <= FEW):
        return Role(column, "field", f"{many:,} values; {whose}", side)
    return Role(column, "dense", f"numbers; {whose}", side)


def _rises(column: Column) -> bool:
    """Whether values are row numbers, one more each."""
    if column.kind != "whole":
        return False
    values = column.numbers()
    return len(values) > 1 and bool((np.diff(np.sort(values)) == 1).all())


def _side(column: Column, group: Column | None, item: Column) -> str:
    """Tell whose values they are: the user's where they are constant for a user."""
    codes = _row_codes(column)
    if group is None or not _is_constant(codes, group.codes()):
        return "candidate"
    return "candidate" if _is_constant(codes, item.codes()) else "user"


def _says_same(column: Column, other: Column) -> bool:
    """Whether there is one value for each of another column, and the reverse."""
    mine, theirs = column.codes(), other.codes()
    pairs = len(np.unique(np.stack([mine, theirs]), axis=1).T)
    return pairs == len(np.unique(mine)) == len(np.unique(theirs))


def _row_codes(column: Column) -> NDArray[np.int64]:
    if column.lengths is None:
        return column.codes()
    codes = np.asarray(
        pc.dictionary_encode(column.values, null_encoding="encode").indices,
        dtype=np.int64,
    )
    ends = np.cumsum(column.lengths)
    starts = ends - column.lengths
    seen: dict[bytes, int] = {}
    rows = [codes[a:b].tobytes() for a, b in zip(starts, ends, strict=True)]
    return np.array([seen.setdefault(row, len(seen)) for row in rows], dtype=np.int64)


def _is_constant(codes: NDArray[np.int64], of: NDArray[np.int64]) -> bool:
    """Whether those with several rows have one value in nearly all cases."""
    order = np.lexsort((codes, of))
    of, codes = of[order], codes[order]
    first = np.r_[True, of[1:] != of[:-1]]
    group = np.cumsum(first) - 1
    rows = np.bincount(group)
    changes = np.r_[False, (codes[1:] != codes[:-1]) & ~first[1:]]
    kinds = 1 + np.bincount(group[changes], minlength=len(rows))
    several = rows > 1
    if not several.any():
        return False
    return bool((kinds[several] == 1).mean() >= CONSTANT)


# ---------------------------------------------------------------- sequences


def _sequences(
    behaviors: Sequence[Role], group: Column | None, time: Column | None
) -> list[BehaviorSequence]:
    by_lengths: dict[bytes, list[Role]] = defaultdict(list)
    for role in behaviors:
        if role.column.lengths is not None:
            by_lengths[role.column.lengths.tobytes()].append(role)
    made: list[BehaviorSequence] = []
    taken: set[str] = {role.column.name for role in behaviors}
    for roles in by_lengths.values():
        name = _name_of(roles, taken)
        taken.add(name)
        lead = roles[0].column
        padding = _padding(lead)
        lengths = lead.lengths if padding is None else _unpadded(lead, padding)
        most = _max_len(np.empty(0, np.int64) if lengths is None else lengths)
        order, why = _order(lead, group, time)
        made.append(BehaviorSequence(name, tuple(roles), most, order, why, padding))
    return made


def _name_of(roles: Sequence[Role], taken: Collection[str]) -> str:
    names = [r.column.name for r in roles]
    start = names[0]
    for a, b in combinations(names, 2):
        same = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), len(a))
        start = start[: min(same, len(start))]
    start = start.strip("_-. ") if len(names) > 1 else ""
    name = {"hist": "history", "": "history"}.get(start, start)
    while name in taken:
        name += "_list"
    return name


def _max_len(lengths: NDArray[np.int64]) -> int:
    """Round up what 99 % of the histories fit in."""
    wanted = int(np.quantile(lengths, 0.99)) if len(lengths) else 1
    for size in (5, 10, 20, 50, 100, 200, 500):
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
    return size - np.asarray(filled).reshape(-1, size).sum(1)


def _order(
    column: Column, group: Column | None, time: Column | None
) -> tuple[str, str]:
    """Tell where new behaviors are added, by rows of one user in time order."""
    unknown = "oldest_first", "not seen in the data: oldest first is assumed"
    if group is None or column.lengths is None:
        return unknown
    users = group.codes()
    keys = [np.arange(len(users)), users]
    if time is not None:
        keys.insert(1, time.codes() if time.kind == "time" else _numbers(time))
        if time.kind == "time":
            keys[1] = np.asarray(pc.rank(time.values), dtype=np.int64)
    order = np.lexsort(tuple(keys))[:TOLD_ROWS]
    codes = np.asarray(
        pc.dictionary_encode(column.values, null_encoding="encode").indices
    )
    ends = np.cumsum(column.lengths)
    lists = {
        int(i): codes[ends[i] - column.lengths[i] : ends[i]].tolist() for i in order
    }
    at_end = at_start = 0
    for a, b in zip(order[:-1].tolist(), order[1:].tolist(), strict=True):
        before, after = lists[a], lists[b]
        if users[a] != users[b] or not 0 < len(before) < len(after):
            continue
        is_start, is_end = (
            after[: len(before)] == before,
            after[-len(before) :] == before,
        )
        at_end += is_start and not is_end
        at_start += is_end and not is_start
    if at_end == at_start:
        return unknown
    if at_end > at_start:
        return "oldest_first", f"{at_end:,} histories grew at their end"
    return "newest_first", f"{at_start:,} histories grew at their start"


def _numbers(column: Column) -> NDArray[np.float64]:
    values = pc.fill_null(pc.cast(column.values, pa.float64(), safe=False), 0.0)
    return np.asarray(values, dtype=np.float64)
