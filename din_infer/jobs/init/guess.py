"""What each column of a log is for: label, user, time, candidate, history, number.

Each guess carries its reason, which is printed and written beside it.
Above 400 lines: a guess for each role, in the order in which they take columns.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from din_infer.errors import InputError
from din_infer.jobs.init.columns import PAIRED_SHARE, Column, share_in
from din_infer.jobs.init.roles import Guess, Role, new_name
from din_infer.jobs.init.sequences import find_sequences, growth
from din_infer.jobs.role_names import NAMES, is_named, plain_name

__all__ = ["guess"]

ID_NAME = re.compile(r"(^|_)(id|ids|code|type|kind|class|cate|category|brand|shop)$")
# Whole numbers of so few values are kinds of something, not amounts.
FEW = 20
# Of the rows, from which on distinct values are numbers of rows and not of things.
ROW_NUMBER = 0.95
# Of the users (items) with several rows, how many have one value in all of them.
CONSTANT = 0.95
# Of pairs of rows with one user, a history and then a longer one: so many, and of them
# those where the longer begins (or ends) with the shorter.
TOLD_PAIRS, GROWN = 20, 0.9
# Of the rows, how many may have the first time: behind the others, a tenth validates.
FIRST_TIMES = 0.85
LEAST_WEIGHT, LARGEST_WEIGHT = float(np.finfo(np.float32).tiny), 1e9  # of din-train
LARGEST = 1e150  # of a dense value: the squares of larger ones are no floats


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
            why = _said(f"{share:.0%} of its values are {other.name}'s", column)
            roles[column.name] = Role(column, "behavior", why, "user", other.name)
        elif column.is_list:
            roles[column.name] = _list_role(column, pairs, by_name, group, item)
        else:
            is_pair = column.name in paired
            roles[column.name] = _value_role(column, is_pair, group, item)
    made = Guess([roles[c.name] for c in columns])
    for role in ("field", "behavior", "multi_hot", "dense"):
        for found in made.named(role):
            name = found.column.name
            made.names[name] = new_name(name, made.names.values())
    time = next((r.column for r in roles.values() if r.role == "time"), None)
    names = made.names.values()
    made.sequences = find_sequences(made.named("behavior"), group, time, names)
    return made


# ---------------------------------------------------------------- label, user, time


def _by_name(columns: Sequence[Column], role: str) -> list[Column]:
    """List columns of a role's common names, those of the commonest first."""
    order = NAMES[role].split()
    found = [c for c in columns if is_named(c.name, role)]
    return sorted(found, key=lambda c: order.index(plain_name(c.name)))


def _is_binary(column: Column) -> bool:
    if column.is_list or not (column.is_number or column.says == "bool"):
        return False
    return bool(np.isin(column.numbers(), (0, 1)).all())


def _complete(column: Column) -> Column:
    """Return a column of labels; InputError if rows lack one."""
    missing = column.rows - len(column.numbers())
    if missing:
        got = f"{missing:,} rows without one"
        raise InputError("a label 0 or 1", got, column.name, "Leave these rows out.")
    return column


def _label(
    columns: Sequence[Column], given: Mapping[str, str], _: Mapping[str, Role]
) -> Role:
    if "label" in given:
        column = next(c for c in columns if c.name == given["label"])
        if not _is_binary(column):
            got = f"{column.type} of {len(column.distinct)} values"
            raise InputError("a column of 0 and 1", got, column.name)
        return Role(_complete(column), "label", "as given")
    binary = [c for c in columns if _is_binary(c)]
    named = _by_name(binary, "label")
    if named:
        why = f"its name, and {_clicks(named[0])}"
        return Role(_complete(named[0]), "label", why)
    if len(binary) == 1:
        why = f"the only column of 0 and 1: {_clicks(binary[0])}"
        return Role(_complete(binary[0]), "label", why)
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
    numbers = column.numbers()
    return f"{numbers.mean() if len(numbers) else 0:.1%} are 1"


def _group(
    columns: Sequence[Column], given: Mapping[str, str], taken: Mapping[str, Role]
) -> Role | None:
    if "group" in given:
        column = _named(columns, given["group"])
        if column.is_list or not _can_be_id(column):
            raise InputError("strings or integers", column.type, column.name)
        return Role(column, "group", "as given")
    able = [c for c in columns if c.name not in taken and _can_be_id(c)]
    for column in _by_name([c for c in able if not c.is_list], "user"):
        users = len(column.distinct)
        return Role(column, "group", f"its name; {users:,} users", "user")
    lists = [c for c in columns if c.is_list and _can_be_id(c)]
    # most values first: where rows are in order of users, they grow in others, too
    for column in sorted(able, key=lambda c: -len(c.distinct)):
        if not column.is_list and any(_grows(c, column) for c in lists):
            users = len(column.distinct)
            why = f"histories grow within each of its {users:,} values"
            return Role(column, "group", why, "user")
    return None


def _grows(lists: Column, column: Column) -> bool:
    """Whether rows of one value of a column, in order, have lists that grow."""
    if not 1 < len(column.distinct) < column.rows / 2:
        return False
    grown, others = growth(lists, column, None)
    return max(grown) >= TOLD_PAIRS and max(grown) >= GROWN * (sum(grown) + others)


def _time(
    columns: Sequence[Column], given: Mapping[str, str], taken: Mapping[str, Role]
) -> Role | None:
    if "time" in given:
        column = _named(columns, given["time"])
        if column.is_list or not (column.is_number or column.kind == "time"):
            raise InputError("numbers, dates or timestamps", column.type, column.name)
        return Role(column, "time", "as given")
    able = [c for c in columns if not c.is_list and c.name not in taken]
    named = _by_name([c for c in able if c.is_number or c.kind == "time"], "time")
    times = [c for c in able if c.kind == "time"]
    if not named and len(times) != 1:
        return None
    found, why = times[0] if not named else named[0], "the only column of times"
    if named:
        why = "its name; the newest rows validate"
    unfit = _unfit(found)
    return Role(found, "none", unfit) if unfit else Role(found, "time", why)


def _unfit(column: Column) -> str:
    """Say why rows cannot be held out by a column of times, if so."""
    values = column.values
    given = pc.drop_null(values)
    if pa.types.is_string(given.type):
        given = given.filter(pc.not_equal(given, ""))
    if column.is_number and len(column.numbers()) < len(values):
        given = pa.array(column.numbers())
    if len(given) < len(values):
        missing = len(values) - len(given)
        return f"a time that {missing:,} rows lack: rows cannot be held out by it"
    if pc.equal(given, pc.min(given)).true_count > FIRST_TIMES * len(values):
        return "a time, nearly always the first: rows cannot be held out by it"
    return ""


def _weight(
    columns: Sequence[Column], given: Mapping[str, str], taken: Mapping[str, Role]
) -> Role | None:
    if "weight" in given:
        column = _named(columns, given["weight"])
        if column.is_list or not column.is_number:
            raise InputError("a column of numbers", column.type, column.name)
        return Role(column, "weight", "as given")
    able = [c for c in columns if not c.is_list and c.name not in taken]
    for column in _by_name([c for c in able if c.is_number], "weight"):
        numbers = column.numbers()
        is_fit = (numbers == 0) | (numbers >= LEAST_WEIGHT)
        is_fit &= numbers <= LARGEST_WEIGHT
        if len(numbers) == column.rows and is_fit.all():
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
    """Find the scalar column whose values each list holds, by its distinct elements.

    Both are then read as one dtype, which all lists of the scalar column share.
    """
    found = {}
    for column in rest:
        if not column.is_list or not _can_be_id(column):
            continue
        shares = {}
        for other in scalars:
            if not set(other.dtypes) & set(column.dtypes):
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
                other = found[column.name] = _named(scalars, best)
                both = [d for d in other.dtypes if d in column.dtypes]
                other.dtypes = tuple(both)
    for column in rest:
        if column.name in found:
            column.dtypes = found[column.name].dtypes
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
    unread = "; ".join(f"{c.name}, {c.unread}" for c in rest if "lists" in c.unread)
    rule = (
        "a column of lists that hold values of another column: what the user did before"
    )
    got = "none among the lists " + ", ".join(lists) if lists else "no lists"
    got += f" but {unread}" if unread else ""
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
    if column.unread:
        return Role(column, "none", column.unread)
    if column.kind == "time":
        why = "lists of times; ages in numbers can be fields of a history"
        return Role(column, "none", why)
    if column.says == "number" and column.kind == "text":
        return Role(column, "none", "lists of text that says numbers: cast it to these")
    for name in pairs if len(column.distinct) else ():
        same = by_name[name].lengths
        own = column.lengths
        if same is not None and own is not None and np.array_equal(same, own):
            why = f"as long as {name} on every row; pairs with nothing"
            return Role(column, "behavior", _said(why, column), "user")
    if column.kind == "number":
        sizes = np.unique(column.lengths if column.lengths is not None else [])
        if len(sizes) == 1 and sizes[0] > (1 if _is_in_text(column) else 0):
            side = _side(column, group, item)
            return _dense(column, f"{sizes[0]} numbers on every row", side)
        return Role(column, "none", "lists of numbers that are as long as no history")
    if not _can_be_id(column):
        return Role(column, "none", "lists without any value")
    side = _side(column, group, item)
    many = len(column.distinct)
    return Role(column, "multi_hot", _said(f"lists of {many:,} values", column), side)


def _said(why: str, column: Column) -> str:
    return f"{why}; {column.remark}" if column.remark else why


def _is_in_text(column: Column) -> bool:
    """Whether lists are written in text."""
    return bool(column.form) or not column.type.endswith(">")


def _dense(column: Column, why: str, side: str) -> Role:
    numbers = column.numbers()
    if len(numbers) and np.abs(numbers).max() > LARGEST:
        why = f"numbers up to {np.abs(numbers).max():g}, beyond what can be scaled"
        return Role(column, "none", why)
    return Role(column, "dense", why, side)


# ---------------------------------------------------------------- values


def _value_role(
    column: Column, is_pair: bool, group: Column | None, item: Column
) -> Role:
    many = len(column.distinct)
    if column.unread:
        return Role(column, "none", column.unread)
    if many == 0:
        return Role(column, "none", "all null")
    if is_pair:
        return Role(column, "field", f"{many:,} values, which histories hold")
    if many == 1:
        return Role(column, "none", "one value in all rows")
    if column.kind == "time":
        return Role(column, "none", "a time; ages can be fields of a history")
    numbers = len(pc.drop_null(column.values))
    has_id_name = bool(ID_NAME.search(column.name.lower()))
    is_id = column.kind in ("text", "bool") or (column.kind == "whole" and has_id_name)
    is_amount = column.kind == "text" and column.is_number and many > FEW
    is_amount &= not has_id_name
    if is_amount and column.says == "number":
        why = "text that says numbers: cast it to these, for [[dense]]"
        return Role(column, "none", why)
    if (
        column.kind in ("text", "whole")
        and many >= ROW_NUMBER * numbers > FEW
        and (is_id or _rises(column))
    ):
        why = "another value on each row: a number of the row"
        return Role(column, "none", why)
    if column.kind == "text" and _says_same(column, item):
        return Role(column, "none", f"another name of {item.name}")
    side = _side(column, group, item)
    whose = "one per user" if side == "user" else "of the candidate, or of the moment"
    if is_amount:
        whose += "; whole numbers in text, cast them for [[dense]]"
    if is_id or (column.kind == "whole" and many <= FEW):
        return Role(column, "field", f"{many:,} values; {whose}", side)
    return _dense(column, f"numbers; {whose}", side)


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
