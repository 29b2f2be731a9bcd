"""Columns that say something of the item, or of the user, told by the data."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import duckdb

from din_infer.jobs.history.reading import quoted
from din_infer.jobs.history.roles import Columns

__all__ = ["take_attributes"]

# Of so many items (users) with two events or more: fewer may agree by chance.
FEWEST = 20


def take_attributes(
    database: duckdb.DuckDBPyConnection,
    columns: Columns,
    left: Sequence[str],
    on_note: Callable[[str], object],
) -> Columns:
    """Take the columns that have one value per item, and those with one per user.

    Parameters
    ----------
    database : duckdb.DuckDBPyConnection
        With the table `log`.
    columns : Columns
    left : sequence of str
        Columns of the log that have no role yet.
    on_note : callable
        Called with a sentence about what was taken, and what was not.

    Notes
    -----
    Only items (users) with two events or more count. A column that is constant for both
    says nothing, and is left. What is null is not compared.
    """
    of_item = _constant(database, columns.item, left)
    of_user = _constant(database, columns.user, left)
    names = [name for name in left if name in of_item and name not in of_user]
    kept = [name for name in left if name in of_user and name not in of_item]
    if names:
        on_note(f"one value per item: --item-columns {','.join(names)}")
    if kept:
        on_note(f"one value per user: --keep {','.join(kept)}")
    rest = [name for name in left if name not in {*names, *kept}]
    if rest:
        on_note(f"not used: {', '.join(rest)} (--item-columns and --keep take them)")
    return replace(
        columns,
        item_columns=(*columns.item_columns, *names),
        keep=(*columns.keep, *kept),
    )


def _constant(
    database: duckdb.DuckDBPyConnection, key: str, names: Sequence[str]
) -> set[str]:
    """Find the columns that have one value for each value of the key."""
    if not names:
        return set()
    same = ", ".join(
        f"min({quoted(n)}) IS NOT DISTINCT FROM max({quoted(n)}) AS s{i}"
        for i, n in enumerate(names)
    )
    every = ", ".join(f"bool_and(s{i})" for i in range(len(names)))
    name = quoted(key)
    query = f"SELECT count(*), {every} FROM (SELECT {same} FROM log"
    query += f" WHERE {name} IS NOT NULL GROUP BY {name} HAVING count(*) > 1)"
    found = database.execute(query).fetchone()
    if found is None or found[0] < FEWEST:
        return set()
    return {n for n, constant in zip(names, found[1:], strict=True) if constant}
