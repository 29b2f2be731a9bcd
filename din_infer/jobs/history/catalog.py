"""What rows need of the whole log: items, their values over time, where splits begin.

It grows with the items and the changes of their values, not with the events; of very
many events, popularity is drawn from every so-manieth.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from din_infer.errors import InputError
from din_infer.jobs.history.events import Events
from din_infer.jobs.history.roles import Columns
from din_infer.jobs.history.sampling import sample_popular, sample_uniform
from din_infer.jobs.history.segments import Ints, Times, count_before

__all__ = ["GROUP_ROWS", "SPLITS", "Catalog", "Counts", "Options", "column", "numbers"]

SPLITS = ("train", "valid", "test")
GROUP_ROWS = 1 << 17  # of a table that is made at once
MOST_POPULAR = 1 << 24  # events that popularity is drawn from


@dataclass(frozen=True)
class Options:
    """How rows are made; times in ticks. `din_infer.jobs.history.build` says more."""

    max_len: int = 50
    min_history: int = 0
    gap: float = 0
    window: float | None = None
    click_within: float | None = None
    negatives: int = 1
    negatives_by: str = "uniform"
    seed: int = 0
    split: str | None = None
    valid_fraction: float = 0.1
    test_fraction: float = 0.0

    @property
    def splits(self) -> tuple[str, ...]:
        """The tables that are written."""
        if self.split == "time":
            shares = (1.0, self.valid_fraction, self.test_fraction)
            return tuple(n for n, share in zip(SPLITS, shares, strict=True) if share)
        return SPLITS if self.split else SPLITS[:1]


@dataclass
class Counts:
    """What was made of the targets."""

    positives: int = 0
    impressions: int = 0
    sampled: int = 0
    missing: int = 0
    users: int = 0
    too_short: int = 0


class Catalog:
    """The tables of a log, and what all rows need of them.

    Parameters
    ----------
    database : connection
        With the tables of `make_events`.
    columns : Columns
    events : Events
    options : Options

    Attributes
    ----------
    columns, options
        As given.
    form : TimeForm
    matches : bool
        Whether positives belong to impressions.
    places, kept : list of str
        Names of the item columns, and of `columns.keep`, in the table `events`.
    listed : dict
        From those of `places` that histories have to their names in the log.
    items : pyarrow.Array
        By number.
    versions : pyarrow.Table
        The item columns of each item at each time from which they hold.
    boundaries : list
        Times at which the later tables of a split by time begin; `find_boundaries`
        finds them.
    counts : Counts
    schema : pyarrow.Schema
        Of the rows.
    """

    def __init__(
        self,
        database: duckdb.DuckDBPyConnection,
        columns: Columns,
        events: Events,
        options: Options,
    ) -> None:
        self._database, self.columns, self.options = database, columns, options
        self.form = events.time
        self.matches = bool(events.actions and events.actions.impressions)
        self.places = [f"c{k}" for k in range(len(columns.item_columns))]
        self.kept = [f"k{k}" for k in range(len(columns.keep))]
        self.listed = {
            place: name
            for place, name in zip(self.places, columns.item_columns, strict=True)
            if name not in events.lists
        }
        self.counts = Counts()
        items = self.fetch("SELECT item, t FROM items ORDER BY i")
        self.items, self._first = column(items["item"]), numbers(items["t"])
        self._load_versions()
        self._load_popular()
        self.boundaries: list[Any] = []
        self.schema = self._find_schema()

    def fetch(self, query: str) -> pa.Table:
        """Return what a query has, each column in one piece."""
        return self._database.sql(query).to_arrow_table().combine_chunks()

    def _one(self, query: str) -> tuple[Any, ...]:
        return tuple(self._database.execute(query).fetchall()[0])

    def _load_versions(self) -> None:
        """Read the item columns of each item, at each time from which they hold."""
        if not (self.places and self.options.negatives):
            return
        values = ", ".join(self.places)
        packed = "row(" + values + ", 0)"
        found = self.fetch(
            f"SELECT i, t, {values} FROM (SELECT i, t, {values}, {packed} IS DISTINCT"
            f" FROM lag({packed}) OVER item AS is_new, row_number() OVER item AS n"
            f" FROM events WINDOW item AS (PARTITION BY i ORDER BY t, {values}))"
            f" WHERE is_new OR n = 1 ORDER BY i, t, {values}"
        )
        self.versions = found
        self._since = numbers(found["t"])
        number = numbers(found["i"])
        every = np.arange(len(self.items) + 1)
        self._of_item = np.searchsorted(number, every)

    def _load_popular(self) -> None:
        """Read which items had positives, in order of time; of very many, a share."""
        if self.options.negatives_by != "popularity" or not self.options.negatives:
            return
        count = self._one("SELECT count(*) FROM events WHERE p")[0]
        step = -(-count // MOST_POPULAR)
        query = "SELECT i, t FROM events WHERE p ORDER BY t, i"
        if step > 1:
            numbered = "SELECT i, t, row_number() OVER (ORDER BY t, i) AS n FROM events"
            query = f"SELECT i, t FROM ({numbered} WHERE p) WHERE n % {step} = 0"
            query += " ORDER BY t, i"
        found = self.fetch(query)
        self._popular, self._popular_t = numbers(found["i"]), numbers(found["t"])

    def find_boundaries(self, times: Iterable[Times] | None) -> None:
        """Find the times at which the later tables of a split by time begin.

        Parameters
        ----------
        times : iterable of int64 or float64 [R], optional
            Of the targets that make rows; without them, of all targets.

        Raises
        ------
        InputError
            If a table would have no rows.
        """
        options, names = self.options, self.options.splits
        source = "SELECT t FROM events WHERE p OR m"
        if times is not None:
            self._database.execute(
                "CREATE TABLE targets AS SELECT t FROM events LIMIT 0"
            )
            for some in times:
                self._database.register("din_times", pa.table({"t": some}))
                self._database.execute("INSERT INTO targets SELECT t FROM din_times")
                self._database.unregister("din_times")
            source = "SELECT t FROM targets"
        num, least = self._one(f"SELECT count(*), min(t) FROM ({source})")
        found = [least]
        held = options.valid_fraction + options.test_fraction
        for before, name in pairwise(names if num else ()):
            held = options.test_fraction if name == "test" else held
            place = min(int(num * (1 - held)), num - 1)
            start = self._one(f"{source} ORDER BY t LIMIT 1 OFFSET {place}")[0]
            if start <= found[-1]:
                rule = f"targets of several times, to part {before} from {name}"
                fix = "Where there are others, give other shares by --valid-fraction"
                fix += " and --test-fraction."
                raise InputError(rule, "one time for both", self.columns.time, fix)
            found.append(start)
        self.boundaries = found[1:]

    def _find_schema(self) -> pa.Schema:
        columns = self.columns
        kept = ", ".join(["t", *self.places, *self.kept])
        types = self.fetch(f"SELECT {kept} FROM events LIMIT 0").schema
        user = self.fetch("SELECT user FROM users LIMIT 0").schema.field(0).type
        listed = [(columns.item, self.items.type)]
        listed += [(name, types.field(c).type) for c, name in self.listed.items()]
        values = list(zip(columns.item_columns, self.places, strict=True))
        more = list(zip(columns.keep, self.kept, strict=True))
        return pa.schema(
            [
                (columns.user, user),
                (columns.time, self.form.arrow_type),
                (columns.item, self.items.type),
                *((name, types.field(place).type) for name, place in values),
                *((f"hist_{name}", pa.list_(kind)) for name, kind in listed),
                ("label", pa.int8()),
                *((name, types.field(place).type) for name, place in more),
            ]
        )

    def sizes(self) -> Ints:
        """Return how many events each user has: int64 [users]."""
        return numbers(self.fetch("SELECT n FROM users ORDER BY u")["n"])

    def sample(
        self,
        keys: NDArray[np.uint64],
        time: Times,
        owned: Ints,
        start: Ints,
        stop: Ints,
    ) -> Ints:
        """Draw negatives of positives at these times."""
        options = self.options
        if options.negatives_by == "popularity":
            pool = np.searchsorted(self._popular_t, time)
            popular = self._popular
            return sample_popular(
                keys, popular, pool, owned, start, stop, options.negatives
            )
        pool = np.full(len(keys), len(self.items))
        if options.negatives_by == "seen":
            pool = np.searchsorted(self._first, time)
        return sample_uniform(keys, pool, owned, start, stop, options.negatives)

    def version(self, item: Ints, time: Times) -> Ints:
        """Find an item's values before a time; its first ones, where none are."""
        start, stop = self._of_item[item], self._of_item[item + 1]
        found = count_before(self._since, start, stop, time) - 1
        return np.maximum(found, start)


def column(found: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Return a column in one piece."""
    if isinstance(found, pa.Array):
        return found
    if found.num_chunks == 1:
        return found.chunk(0)
    return found.combine_chunks() if found.num_chunks else pa.array([], found.type)


def numbers(found: pa.ChunkedArray | pa.Array) -> NDArray[Any]:
    """Return a column of numbers as NumPy has it."""
    values: NDArray[Any] = column(found).to_numpy(zero_copy_only=False)
    return values
