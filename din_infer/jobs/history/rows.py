"""Some users' events made into rows: targets, histories, negatives, splits.

Letters: N events of some users, sorted by user, then time; E of them behaviors, R
targets; K negatives of each positive.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from din_infer.errors import InputError
from din_infer.jobs.history.events import Events
from din_infer.jobs.history.roles import Columns
from din_infer.jobs.history.sampling import (
    NONE,
    keys_of,
    sample_popular,
    sample_uniform,
)
from din_infer.jobs.history.segments import (
    Ints,
    Times,
    before,
    count_before,
    histories,
)

__all__ = ["GROUP_ROWS", "SPLITS", "Counts", "Options", "RowMaker", "parts"]

SPLITS = ("train", "valid", "test")
GROUP_ROWS = 1 << 17  # of a table that is made at once
GROUP_ELEMENTS = 1 << 22  # of one column of lists in it
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
        if self.split == "time" and not self.test_fraction:
            return SPLITS[:2]
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


@dataclass
class _Targets:
    """Rows to be: R events, what each gets, and which split it belongs to."""

    event: Ints  # [R]
    label: Any  # bool [R]
    positions: Ints  # of behaviors, one target's after the other's
    lengths: Ints  # [R]
    negatives: Ints  # [R, K]
    split: Ints  # [R]


class RowMaker:
    """Makes the rows of some users after the others'.

    Parameters
    ----------
    database : connection
        With the tables of `make_events`.
    columns : Columns
    events : Events
    options : Options

    Attributes
    ----------
    counts : Counts
    schema : pyarrow.Schema
        Of the rows.

    Raises
    ------
    InputError
        If a split by time has nothing to train on.
    """

    def __init__(
        self,
        database: duckdb.DuckDBPyConnection,
        columns: Columns,
        events: Events,
        options: Options,
    ) -> None:
        self._database, self._columns, self._options = database, columns, options
        self._form = events.time
        self._matches = bool(events.actions and events.actions.impressions)
        self._places = [f"c{k}" for k in range(len(columns.item_columns))]
        self._kept = [f"k{k}" for k in range(len(columns.keep))]
        self._listed = {
            place: name
            for place, name in zip(self._places, columns.item_columns, strict=True)
            if name not in events.lists
        }
        self.counts = Counts()
        items = self._fetch("SELECT item, t FROM items ORDER BY i")
        self._items, self._first = _one(items["item"]), _numbers(items["t"])
        self._load_versions()
        self._load_popular()
        self._boundaries = self._find_boundaries()
        self.schema = self._find_schema()

    def _fetch(self, query: str) -> pa.Table:
        return self._database.sql(query).to_arrow_table().combine_chunks()

    def _one(self, query: str) -> tuple[Any, ...]:
        return tuple(self._database.execute(query).fetchall()[0])

    def _load_versions(self) -> None:
        """Read the item columns of each item, at each time from which they hold."""
        if not (self._places and self._options.negatives):
            return
        values = ", ".join(self._places)
        packed = "row(" + values + ", 0)"
        found = self._fetch(
            f"SELECT i, t, {values} FROM (SELECT i, t, {values}, {packed} IS DISTINCT"
            f" FROM lag({packed}) OVER item AS is_new, row_number() OVER item AS n"
            f" FROM events WINDOW item AS (PARTITION BY i ORDER BY t, {values}))"
            f" WHERE is_new OR n = 1 ORDER BY i, t, {values}"
        )
        self._versions = found
        self._since = _numbers(found["t"])
        number = _numbers(found["i"])
        every = np.arange(len(self._items) + 1)
        self._of_item = np.searchsorted(number, every)

    def _load_popular(self) -> None:
        """Read which items had positives, in order of time; of very many, a share."""
        if self._options.negatives_by != "popularity" or not self._options.negatives:
            return
        count = self._one("SELECT count(*) FROM events WHERE p")[0]
        step = -(-count // MOST_POPULAR)
        query = "SELECT i, t FROM events WHERE p ORDER BY t, i"
        if step > 1:
            numbered = "SELECT i, t, row_number() OVER (ORDER BY t, i) AS n FROM events"
            query = f"SELECT i, t FROM ({numbered} WHERE p) WHERE n % {step} = 0"
            query += " ORDER BY t, i"
        found = self._fetch(query)
        self._popular, self._popular_t = _numbers(found["i"]), _numbers(found["t"])

    def _find_boundaries(self) -> list[Any]:
        """Find the times at which validation and test begin."""
        options = self._options
        if options.split != "time":
            return []
        query = "SELECT count(*), min(t) FROM events WHERE p OR m"
        num, least = self._one(query)
        found = []
        for held in (
            options.valid_fraction + options.test_fraction,
            options.test_fraction,
        ):
            if not num or not held:
                continue
            place = min(int(num * (1 - held)), num - 1)
            query = f"SELECT t FROM events WHERE p OR m ORDER BY t OFFSET {place}"
            found.append(self._one(f"{query} LIMIT 1")[0])
        if found and least >= found[0]:
            rule = "times before the newest ones, to train on"
            raise InputError(rule, "all targets at one time", self._columns.time)
        return found

    def _find_schema(self) -> pa.Schema:
        columns = self._columns
        kept = ", ".join(["t", *self._places, *self._kept])
        types = self._fetch(f"SELECT {kept} FROM events LIMIT 0").schema
        user = self._fetch("SELECT user FROM users LIMIT 0").schema.field(0).type
        listed = [(columns.item, self._items.type)]
        listed += [(name, types.field(c).type) for c, name in self._listed.items()]
        values = list(zip(columns.item_columns, self._places, strict=True))
        more = list(zip(columns.keep, self._kept, strict=True))
        return pa.schema(
            [
                (columns.user, user),
                (columns.time, self._form.arrow_type),
                (columns.item, self._items.type),
                *((name, types.field(place).type) for name, place in values),
                *((f"hist_{name}", pa.list_(kind)) for name, kind in listed),
                ("label", pa.int8()),
                *((name, types.field(place).type) for name, place in more),
            ]
        )

    @property
    def splits(self) -> tuple[str, ...]:
        """The tables that are made."""
        return self._options.splits

    def sizes(self) -> Ints:
        """Return how many events each user has: int64 [users]."""
        return _numbers(self._fetch("SELECT n FROM users ORDER BY u")["n"])

    def tables(self, first: int, last: int) -> Iterator[tuple[str, pa.Table, Ints]]:
        """Make the rows of the users ``first .. last``.

        Yields
        ------
        split : str
        table : pyarrow.Table
            At most 131,072 rows, in order of user and time; a positive's negatives
            follow it.
        lengths : int64
            Of the rows' histories.
        """
        part = _Part(self, first, last)
        for k, split in enumerate(self._options.splits):
            chosen = np.flatnonzero(part.targets.split == k)
            for some in part.pieces(chosen):
                yield split, *part.table(some)

    # ------------------------------------------------- what `_Part` asks of the whole

    def sample(
        self,
        keys: Any,
        time: Times,
        owned: Ints,
        start: Ints,
        stop: Ints,  # noqa: ANN401
    ) -> Ints:
        """Draw negatives of positives at these times."""
        options = self._options
        if options.negatives_by == "popularity":
            pool = np.searchsorted(self._popular_t, time)
            popular = self._popular
            return sample_popular(
                keys, popular, pool, owned, start, stop, options.negatives
            )
        pool = np.full(len(keys), len(self._items))
        if options.negatives_by == "seen":
            pool = np.searchsorted(self._first, time)
        return sample_uniform(keys, pool, owned, start, stop, options.negatives)

    def version(self, item: Ints, time: Times) -> Ints:
        """Find an item's values before a time; its first ones, where none are."""
        start, stop = self._of_item[item], self._of_item[item + 1]
        found = count_before(self._since, start, stop, time) - 1
        return np.maximum(found, start)


class _Part:
    """The events of some users, and the targets among them."""

    def __init__(self, maker: RowMaker, first: int, last: int) -> None:
        self._maker = maker
        self._options = maker._options
        places = ["i", "t", "b", "p", "m", "s", *maker._places, *maker._kept]
        order = ", ".join(["u", "t", *(name for name in places if name != "t")])
        inside = f"u BETWEEN {first} AND {last}"
        self._table = maker._fetch(
            f"SELECT u, {', '.join(places)} FROM events WHERE {inside} ORDER BY {order}"
        )
        self._users = _one(
            maker._fetch(f"SELECT user FROM users WHERE {inside} ORDER BY u")["user"]
        )
        self._user = _numbers(self._table["u"])  # of all
        self._local = self._user - first
        self._item, self._time = (_numbers(self._table[name]) for name in "it")
        self._is_behavior, self._is_positive, is_shown = (
            _numbers(self._table[name]) for name in "bpm"
        )
        coded = _one(self._table["s"]).dictionary_encode().indices
        self._session = _numbers(coded.fill_null(-1)).astype(np.int64)
        self._behavior = np.flatnonzero(self._is_behavior)
        label, is_target = self._is_positive.copy(), self._is_positive | is_shown
        if maker._matches:
            clicked, is_own = self._match(is_shown)
            label[clicked] = True
            is_target &= ~is_own
        self.targets = self._make(np.flatnonzero(is_target), label)

    def _match(self, is_shown: Any) -> tuple[Ints, Any]:  # noqa: ANN401
        """Give each positive to the last impression of its item before it.

        Returns
        -------
        clicked : int64
            Events: impressions that have a positive.
        is_matched : bool [N]
            Positives that belong to an impression: they are no targets of their own.
        """
        found = np.flatnonzero(self._is_positive | is_shown)
        keys = (self._user[found], self._item[found])
        if self._maker._columns.session:
            keys = (*keys, self._session[found])
        time, is_click = self._time[found], self._is_positive[found]
        order = np.lexsort((is_click, time, *keys[::-1]))
        is_new = np.zeros(len(order), bool)
        is_new[:1] = True
        for key in keys:
            is_new[1:] |= key[order][1:] != key[order][:-1]
        place = np.arange(len(order))
        group = np.maximum.accumulate(np.where(is_new, place, 0))
        shown = np.maximum.accumulate(np.where(is_click[order], -1, place))
        has = is_click[order] & (shown >= group)
        within = self._options.click_within
        if within is not None:
            age = time[order] - time[order][np.maximum(shown, 0)]
            has &= age <= within
        is_matched = np.zeros(len(self._time), bool)
        is_matched[found[order[has]]] = True
        return found[order[shown[has]]], is_matched

    def _make(self, event: Ints, label: Any) -> _Targets:  # noqa: ANN401
        options, counts = self._options, self._maker.counts
        time, local = self._time[event], self._local[event]
        of_user = np.searchsorted(
            self._local[self._behavior], np.arange(len(self._users) + 1)
        )
        start, stop = of_user[local], of_user[local + 1]
        times = self._time[self._behavior]
        stop = count_before(times, start, stop, before(time, options.gap))
        if options.window is not None:
            start = count_before(times, start, stop, before(time, options.window))
        sessions: tuple[Ints, ...] = ()
        if self._maker._columns.session:
            sessions = (self._session[self._behavior], self._session[event])
        positions, lengths = histories(start, stop, options.max_len, *sessions)
        split = self._split(event, label[event])
        is_long = lengths >= options.min_history
        if not is_long.all():
            counts.too_short += int((~is_long).sum())
            positions = positions[np.repeat(is_long, lengths)]
            event, lengths, split = event[is_long], lengths[is_long], split[is_long]
        targets = _Targets(
            event,
            label[event],
            positions,
            lengths,
            np.full((len(event), options.negatives), NONE),
            split,
        )
        if options.negatives:
            self._sample(targets)
        positives = int(targets.label.sum())
        counts.positives += positives
        counts.impressions += len(event) - positives
        counts.users += len(np.unique(self._local[event]))
        return targets

    def _sample(self, targets: _Targets) -> None:
        counts, num_items = self._maker.counts, len(self._maker._items)
        owned = np.unique(self._local * num_items + self._item)
        owner, items = np.divmod(owned, num_items)
        of_user = np.searchsorted(owner, np.arange(len(self._users) + 1))
        chosen = np.flatnonzero(targets.label)
        event = targets.event[chosen]
        user, item, time = self._local[event], self._item[event], self._time[event]
        same = (user[1:] == user[:-1]) & (item[1:] == item[:-1])
        same &= time[1:] == time[:-1]
        place = np.arange(len(event))
        is_new = np.append(True, ~same)[: len(event)]
        copy = place - np.maximum.accumulate(np.where(is_new, place, 0))
        keys = keys_of(self._options.seed, self._user[event], item, time, copy)
        start, stop = of_user[user], of_user[user + 1]
        found = self._maker.sample(keys, time, items, start, stop)
        targets.negatives[chosen] = found
        counts.sampled += int((found != NONE).sum())
        counts.missing += int((found == NONE).sum())

    def _split(self, event: Ints, label: Any) -> Ints:  # noqa: ANN401
        """Say which of the splits each target belongs to."""
        time, boundaries = self._time[event], self._maker._boundaries
        split = np.zeros(len(event), np.int64)
        if self._options.split == "time":
            for boundary in boundaries:
                split += time >= boundary
        elif self._options.split:
            # of a user's moments with positives, the last and the one before
            positive = np.flatnonzero(label)
            user, at = self._local[event[positive]], time[positive]
            is_last = np.append((user[1:] != user[:-1]) | (at[1:] != at[:-1]), True)
            is_last = is_last[: len(user)]
            user, at = user[is_last], at[is_last]
            ends = np.searchsorted(user, np.arange(len(self._users) + 1))
            for back in (1, 2):
                place = ends[1:] - back
                has = place >= ends[:-1]
                of_target = self._local[event]
                moments = at[np.maximum(place, 0)] if len(at) else at
                chosen = np.flatnonzero(has[of_target])
                is_late = time[chosen] >= moments[of_target[chosen]]
                split[chosen[is_late]] += 1
            # 2: at or after the last; 1: at or after the one before; of a user with
            # one moment, its rows are 1 so far, and of the test
            lone = (ends[1:] - ends[:-1]) == 1
            split[lone[self._local[event]] & (split == 1)] = 2
        return split

    def pieces(self, chosen: Ints) -> Iterator[Ints]:
        """Cut targets into pieces of bounded rows and elements."""
        targets = self.targets
        rows = 1 + (targets.negatives[chosen] != NONE).sum(axis=1)
        sizes = np.maximum(
            rows * (GROUP_ELEMENTS // GROUP_ROWS), rows * targets.lengths[chosen]
        )
        piece = (np.cumsum(sizes) - 1) // GROUP_ELEMENTS
        for part in np.split(chosen, np.flatnonzero(np.diff(piece)) + 1):
            if len(part):
                yield part

    def table(self, chosen: Ints) -> tuple[pa.Table, Ints]:
        """Build the rows of some targets, and the lengths of their histories."""
        maker, targets = self._maker, self.targets
        event = targets.event[chosen]
        codes = np.column_stack([self._item[event], targets.negatives[chosen]])
        is_row = codes != NONE
        of_row = np.repeat(np.arange(len(chosen)), is_row.sum(axis=1))
        is_own = np.zeros(codes.shape, bool)
        is_own[:, 0] = True
        is_own, code = is_own[is_row], codes[is_row]
        label = np.where(is_own, targets.label[chosen][of_row], False)
        lengths = targets.lengths[chosen][of_row]
        ends = np.cumsum(targets.lengths)
        begins = (ends - targets.lengths)[chosen][of_row]
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        inside = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        behavior = self._behavior[
            targets.positions[np.repeat(begins, lengths) + inside]
        ]
        offsets = pa.array(offsets, pa.int32())
        rows = event[of_row]
        arrays = [
            self._users.take(pa.array(self._local[rows])),
            self._maker._form.column(pa.array(self._time[rows])),
            maker._items.take(pa.array(code)),
            *self._values(rows, code, is_own),
            _lists(offsets, maker._items, self._item[behavior]),
        ]
        for place in maker._listed:
            arrays.append(_lists(offsets, _one(self._table[place]), behavior))
        arrays.append(pa.array(label.astype(np.int8)))
        for place in maker._kept:
            arrays.append(_one(self._table[place]).take(pa.array(rows)))
        return pa.Table.from_arrays(arrays, schema=maker.schema), lengths

    def _values(self, rows: Ints, code: Ints, is_own: Any) -> Iterator[pa.Array]:  # noqa: ANN401
        """Yield the item columns: of targets as logged, of negatives as known then."""
        maker = self._maker
        if is_own.all():
            for place in maker._places:
                yield _one(self._table[place]).take(pa.array(rows))
            return
        own, drawn = np.flatnonzero(is_own), np.flatnonzero(~is_own)
        versions = maker.version(code[drawn], self._time[rows[drawn]])
        order = np.empty(len(rows), np.int64)
        order[own], order[drawn] = np.arange(len(own)), len(own) + np.arange(len(drawn))
        for place in maker._places:
            mine = _one(self._table[place]).take(pa.array(rows[own]))
            others = _one(maker._versions[place]).take(pa.array(versions))
            yield pa.concat_arrays([mine, others]).take(pa.array(order))


def _lists(offsets: pa.Array, values: pa.Array, positions: Ints) -> pa.Array:
    return pa.ListArray.from_arrays(offsets, values.take(pa.array(positions)))


def _one(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Return a column in one piece."""
    if isinstance(column, pa.Array):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    return column.combine_chunks() if column.num_chunks else pa.array([], column.type)


def _numbers(column: pa.ChunkedArray | pa.Array) -> Any:  # noqa: ANN401
    return _one(column).to_numpy(zero_copy_only=False)


def parts(sizes: Sequence[int] | Ints, most: int) -> Iterator[tuple[int, int]]:
    """Cut users into runs of at most `most` events, or of one user."""
    ends = np.cumsum(np.asarray(sizes, np.int64))
    first = 0
    while first < len(ends):
        done = ends[first - 1] if first else 0
        last = max(int(np.searchsorted(ends, done + most, side="right")) - 1, first)
        yield first, last
        first = last + 1
