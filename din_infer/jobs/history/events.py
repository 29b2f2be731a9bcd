"""The table `log` made into `events`: users and items as numbers, times as ticks.

Users are numbered in order of their values, items in order of their first event. So all
that follows is the same whatever the order of files, rows and threads.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb

from din_infer.errors import InputError
from din_infer.jobs.history.reading import (
    INTEGERS,
    NUMBERS,
    Log,
    asking,
    literal,
    quoted,
)
from din_infer.jobs.history.roles import Actions, Columns, find_actions
from din_infer.jobs.history.times import TimeForm, unit_of

__all__ = ["Events", "make_events"]

WHOLE = "(0|-?[1-9][0-9]{0,18})"  # an integer that is written as it would be again
NUMBER = r"-?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?"
DAY = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
CLOCK = r"[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]+)?)?"
ZONE = "( ?Z|[-+][0-9]{2}(:?[0-9]{2})?)"
# What text of a time looks like, in words, and as which type DuckDB reads it.
FORMS = {
    "integer": (WHOLE, "whole numbers"),
    "number": (NUMBER, "numbers"),
    "date": (DAY, "dates"),
    "timestamp": (DAY + CLOCK, "timestamps without a zone"),
    "zoned": (DAY + CLOCK + ZONE, "timestamps with a zone"),
}
NESTED = re.compile(r".*\]|STRUCT.*|MAP.*|UNION.*|VARIANT")


@dataclass
class Events:
    """What is known of the table `events`.

    Attributes
    ----------
    time : TimeForm
    largest_time : float
        In ticks.
    num_events, num_left_out : int
        Those in the table; those that lack a user, an item or a time.
    num_users, num_items : int
    lists : set of str
        Item columns whose values are lists.
    actions : Actions or None
        None where a label, or nothing, says which events are positives.
    """

    time: TimeForm
    largest_time: float = 0.0
    num_events: int = 0
    num_left_out: int = 0
    num_users: int = 0
    num_items: int = 0
    lists: set[str] = field(default_factory=set)
    actions: Actions | None = None


def make_events(
    database: duckdb.DuckDBPyConnection,
    log: Log,
    columns: Columns,
    actions: Mapping[str, Sequence[str] | None],
    *,
    time_unit: str | None,
    skip_nulls: bool,
    on_note: Callable[[str], object],
) -> Events:
    """Make the tables `users`, `items` and `events` of `log`, which is dropped.

    `events` has the columns u, i: int64, numbers of user and item; t: int64 or double;
    b, p, m: whether it is a behavior, a positive, an impression; s: the session; then
    `c0`, .. of `columns.item_columns` and `k0`, .. of `columns.keep`. Rows are in the
    order of users. `users` has u, user and n, how many events; `items` has i, item and
    t, the time of its first event.

    Raises
    ------
    InputError
        If a value cannot be read, is null, or times are written in several ways; it
        names the column.
    """
    maker = _Maker(database, log)
    time, form = maker.time(columns.time, time_unit)
    user = maker.id(columns.user)
    item = maker.id(columns.item)
    found = Events(form)
    names = [*columns.item_columns, *columns.keep]
    values = [maker.copied(name) for name in names]
    found.lists = {n for n in columns.item_columns if NESTED.fullmatch(log.types[n])}
    found.actions, flags = maker.flags(columns, actions, on_note)
    session = f"CAST({quoted(columns.session)} AS VARCHAR)" if columns.session else "0"
    places = [f"c{k}" for k in range(len(columns.item_columns))]
    places += [f"k{k}" for k in range(len(columns.keep))]
    more = "".join(f", {v} AS {p}" for v, p in zip(values, places, strict=True))
    with asking("events that can be read", columns.user):
        database.execute(
            f"CREATE TABLE plain AS SELECT {user} AS usr, {item} AS itm, {time} AS t,"
            f" {flags}, {session} AS s{more} FROM log"
        )
    database.execute("DROP TABLE log")
    found.num_left_out = maker.leave_out(columns, skip_nulls)
    with asking("events that can be numbered", columns.user):
        database.execute(
            "CREATE TABLE users AS SELECT row_number() OVER (ORDER BY usr) - 1 AS u,"
            " usr AS user, count(*) AS n FROM plain GROUP BY usr"
        )
        database.execute(
            "CREATE TABLE items AS SELECT row_number() OVER (ORDER BY t, itm) - 1 AS i,"
            " itm AS item, t FROM (SELECT itm, min(t) AS t FROM plain GROUP BY itm)"
        )
        rest = ", ".join(["t", "b", "p", "m", "s", *places])
        rest = ", ".join(f"plain.{name.strip()}" for name in rest.split(","))
        database.execute(
            f"CREATE TABLE events AS SELECT users.u, items.i, {rest} FROM plain"
            " JOIN users ON plain.usr = users.user JOIN items ON plain.itm = items.item"
            " ORDER BY users.u"
        )
    database.execute("DROP TABLE plain")
    row = maker.one(
        "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM users),"
        " (SELECT count(*) FROM items), (SELECT max(t) FROM events)"
    )
    found.num_events, found.num_users, found.num_items = row[:3]
    found.largest_time = float(row[3] or 0)
    return found


class _Maker:
    """Writes the expressions of SQL that turn columns of `log` into those of events."""

    def __init__(self, database: duckdb.DuckDBPyConnection, log: Log) -> None:
        self._database, self._types, self._is_text = database, log.types, log.is_text

    def one(self, query: str) -> tuple[Any, ...]:
        """Return the one row that a query has."""
        return tuple(self._database.execute(query).fetchall()[0])

    def _count(self, condition: str) -> int:
        return int(self.one(f"SELECT count(*) FROM log WHERE {condition}")[0])

    def _example(self, name: str, condition: str) -> str:
        query = f"SELECT min(CAST({quoted(name)} AS VARCHAR)) FROM log WHERE"
        return repr(self.one(f"{query} {condition}")[0])

    def id(self, name: str) -> str:
        """Write a user or an item: an int64 or text."""
        kind, column = self._types[name], quoted(name)
        if kind == "VARCHAR" and self._is_text:
            return self.value(name)
        if kind in ("VARCHAR", "UUID") or kind.startswith("ENUM"):
            return f"CAST({column} AS VARCHAR)"
        if INTEGERS.fullmatch(kind) or NUMBERS.fullmatch(kind):
            whole = f"TRY_CAST({column} AS BIGINT)"
            wrong = f"{self._is_number(name)} AND coalesce({whole} <> {column}, true)"
            self._refuse(name, wrong, "whole numbers of 64 bits, or text")
            return whole if INTEGERS.fullmatch(kind) else self._if_number(name, whole)
        raise InputError("text or integers", kind.lower(), name)

    def copied(self, name: str) -> str:
        """Write a column that is copied, with one zero and one NaN.

        Those that sort alike would otherwise stand in the order of the files.
        """
        value = self.value(name)
        query = f"SELECT {value} FROM log LIMIT 0"
        kind = str(self._database.execute(query).description[0][1])
        return _of_one_zero(value, kind)

    def value(self, name: str) -> str:
        """Write a column's values; of CSV, numbers are told by all of them."""
        kind, column = self._types[name], quoted(name)
        if kind.startswith("ENUM") or kind in ("UUID", "JSON"):
            return f"CAST({column} AS VARCHAR)"
        if kind in ("HUGEINT", "UHUGEINT"):  # of JSON: Arrow has no such integers
            whole = f"TRY_CAST({column} AS BIGINT)"
            is_larger = self._count(f"{column} IS NOT NULL AND {whole} IS NULL")
            return f"CAST({column} AS {'DOUBLE' if is_larger else 'BIGINT'})"
        if kind != "VARCHAR" or not self._is_text:
            return column
        whole, number = self.one(
            f"SELECT bool_and(regexp_full_match({column}, '{WHOLE}')"
            f" AND TRY_CAST({column} AS BIGINT) IS NOT NULL),"
            f" bool_and(regexp_full_match({column}, '{NUMBER}')"
            f" AND NOT regexp_matches({column}, '^-?0[0-9]')) FROM log"
        )
        cast = "BIGINT" if whole else "DOUBLE" if number else ""
        return f"CAST({column} AS {cast})" if cast else column

    def _is_number(self, name: str) -> str:
        column = quoted(name)
        if self._types[name] in ("FLOAT", "DOUBLE"):
            return f"({column} IS NOT NULL AND isfinite({column}))"
        return f"{column} IS NOT NULL"

    def _if_number(self, name: str, value: str) -> str:
        return f"CASE WHEN {self._is_number(name)} THEN {value} END"

    def _refuse(self, name: str, wrong: str, rule: str) -> None:
        count = self._count(wrong)
        if count:
            got = f"{self._example(name, wrong)} in {count:,} events"
            raise InputError(rule, got, name)

    def time(self, name: str, unit: str | None) -> tuple[str, TimeForm]:
        """Write the time as ticks, and say what they are."""
        kind, column = self._types[name], quoted(name)
        if kind == "VARCHAR":
            form = self._text_form(name)
            as_type = {
                "integer": "BIGINT",
                "number": "DOUBLE",
                "date": "DATE",
                "timestamp": "TIMESTAMP",
                "zoned": "TIMESTAMP WITH TIME ZONE",
            }[form]
            if form in ("timestamp", "zoned"):
                column = _as_duckdb_reads_it(column)
            column = f"TRY_CAST({column} AS {as_type})"
            self._refuse(
                name,
                f"{quoted(name)} IS NOT NULL AND {column} IS NULL",
                f"times that can be read as {FORMS[form][1]}",
            )
            kind = as_type
        elif INTEGERS.fullmatch(kind):
            whole = f"TRY_CAST({column} AS BIGINT)"
            wrong = f"{column} IS NOT NULL AND {whole} IS NULL"
            self._refuse(name, wrong, "times of 64 bits")
            column, kind = whole, "BIGINT"
        if kind == "BIGINT":
            return column, self._numbers("integer", column, unit)
        if NUMBERS.fullmatch(kind):
            column = f"CAST({column} AS DOUBLE)"
            is_finite = f"({column} IS NOT NULL AND isfinite({column}))"
            wrong = f"{is_finite} AND ({column} <> round({column}) OR"
            if self._count(f"{wrong} abs({column}) >= 9007199254740992)"):
                value = f"CASE WHEN {is_finite} THEN {column} + 0.0 END"
                return value, self._numbers("number", value, unit)
            value = f"CASE WHEN {is_finite} THEN CAST({column} AS BIGINT) END"
            return value, self._numbers("integer", value, unit)
        if kind == "DATE" or kind.startswith("TIMESTAMP"):
            if unit is not None:
                rule = "--time-unit for times that are numbers"
                raise InputError(rule, f"{kind.lower()} in `{name}`", "--time-unit")
            ticks = "ns" if kind == "TIMESTAMP_NS" else "us"
            forms = {"DATE": "date", "TIMESTAMP WITH TIME ZONE": "zoned"}
            if kind.startswith("TIMESTAMP_"):
                column = column if ticks == "ns" else f"CAST({column} AS TIMESTAMP)"
            if kind == "DATE":
                column = f"CAST({column} AS TIMESTAMP)"
            value = f"CASE WHEN isfinite({column}) THEN epoch_{ticks}({column}) END"
            return value, TimeForm(forms.get(kind, "timestamp"), ticks)
        rule = "times as integers, dates, timestamps or ISO 8601 text"
        raise InputError(rule, kind.lower(), name)

    def _numbers(self, kind: str, value: str, unit: str | None) -> TimeForm:
        """Say what the unit of numbers is, as given, or by their size."""
        largest = self.one(f"SELECT max({value}) FROM log")[0]
        return TimeForm(kind, unit or unit_of(largest or 0))

    def _text_form(self, name: str) -> str:
        """Tell how times are written as text; refuse several ways in one log."""
        column = quoted(name)
        cases = " ".join(
            f"WHEN regexp_full_match({column}, {literal(pattern)}) THEN '{form}'"
            for form, (pattern, _) in FORMS.items()
        )
        rows = self._database.execute(
            f"SELECT CASE {cases} ELSE 'other' END AS form, count(*), min({column})"
            f" FROM log WHERE {column} IS NOT NULL GROUP BY form ORDER BY form"
        ).fetchall()
        forms = [str(row[0]) for row in rows]
        if not forms:
            return "integer"
        if forms == ["integer", "number"]:
            return "number"
        if forms == ["other"] or len(forms) > 1:
            got = " and ".join(
                f"{FORMS.get(form, ('', 'others'))[1]} such as {example!r}"
                f" in {count:,} events"
                for form, count, example in rows
            )
            rule = "times of one form: numbers, or ISO 8601 such as 2024-05-31T10:15:00"
            raise InputError(rule, got, name)
        return forms[0]

    def flags(
        self,
        columns: Columns,
        given: Mapping[str, Sequence[str] | None],
        on_note: Callable[[str], object],
    ) -> tuple[Actions | None, str]:
        """Write b, p and m: what each event is."""
        used = [option for option, actions in given.items() if actions is not None]
        if columns.action is None and used:
            rule = "an action column for this option"
            fix = "Give --action COLUMN."
            raise InputError(rule, "none", f"--{used[0]}", fix)
        actions = None
        behaviors = positives = impressions = ""
        if columns.action is not None:
            name = f"CAST({quoted(columns.action)} AS VARCHAR)"
            rows = self._database.execute(
                f"SELECT {name} AS a, count(*) FROM log WHERE a IS NOT NULL"
                " GROUP BY a ORDER BY count(*) DESC, a LIMIT 1000"
            ).fetchall()
            if columns.label is None or used:
                counts = {str(row[0]): int(row[1]) for row in rows}
                actions = find_actions(counts, columns.action, given, on_note)
                behaviors = _is_one(name, actions.behaviors)
                positives = _is_one(name, actions.positives)
                impressions = _is_one(name, actions.impressions)
        if columns.label is None:
            if actions is None or actions.positives is None:
                return None, "true AS b, true AS p, false AS m"
            flags = f"{behaviors} AS b, {positives} AS p, {impressions} AS m"
            return actions, flags
        if given.get("positives") is not None or given.get("impressions") is not None:
            rule = "a label, or actions, that say which events are positives"
            fix = "Give --label none, or leave out --positives and --impressions."
            raise InputError(rule, "both", "--label", fix)
        label = self._label(columns.label)
        return None, f"{behaviors or label} AS b, {label} AS p, NOT {label} AS m"

    def _label(self, name: str) -> str:
        text = f"lower(CAST({quoted(name)} AS VARCHAR))"
        wrong = f"coalesce({text} NOT IN ('1', '1.0', 'true', '0', '0.0', 'false'),"
        count = self._count(f"{wrong} true)")
        if count:
            example = self._example(name, f"{wrong} true)")
            got = f"{example} in {count:,} events".replace("None", "null")
            raise InputError("a label 0 or 1", got, name)
        return f"({text} IN ('1', '1.0', 'true'))"

    def leave_out(self, columns: Columns, skip: bool) -> int:
        """Delete events without a user, an item or a time, where that is allowed."""
        of = {columns.user: "usr", columns.item: "itm", columns.time: "t"}
        conditions = ", ".join(f"count(*) FILTER ({v} IS NULL)" for v in of.values())
        nulls = self.one(f"SELECT {conditions} FROM plain")
        if not any(nulls):
            return 0
        if not skip:
            name, count = next((n, c) for n, c in zip(of, nulls, strict=True) if c)
            fix = "Give --on-error skip to leave such events out."
            rule = "a value in every event"
            raise InputError(rule, f"null in {count:,} events", name, fix)
        wrong = "usr IS NULL OR itm IS NULL OR t IS NULL"
        count = int(self.one(f"SELECT count(*) FROM plain WHERE {wrong}")[0])
        self._database.execute(f"DELETE FROM plain WHERE {wrong}")
        return count


def _as_duckdb_reads_it(column: str) -> str:
    """Write a timestamp of ISO 8601 with seconds, a point, and a colon in its zone."""
    whole = f"regexp_replace({column}, '^({DAY}[T ][0-9]{{2}}:[0-9]{{2}})($|[^:0-9])',"
    whole = f"replace({whole} '\\1:00\\2'), ',', '.')"
    return f"regexp_replace({whole}, '(:.*[-+][0-9]{{2}})([0-9]{{2}})$', '\\1:\\2')"


def _of_one_zero(value: str, kind: str) -> str:
    """Write floats, also in lists, whose zeros and NaNs are one each."""
    if kind in ("FLOAT", "DOUBLE"):
        return f"CASE WHEN isnan({value}) THEN 'nan' ELSE {value} + 0 END::{kind}"
    if not re.fullmatch(r"(FLOAT|DOUBLE)(\[[0-9]*\])+", kind):
        return value
    inside = f"x{kind.count('[')}"
    one = _of_one_zero(inside, kind[: kind.rindex("[")])
    return f"CAST([{one} FOR {inside} IN {value}] AS {kind})"


def _is_one(name: str, actions: Sequence[str] | None) -> str:
    if actions is None:
        return "true"
    if not actions:
        return "false"
    return f"coalesce({name} IN ({', '.join(map(literal, actions))}), false)"
