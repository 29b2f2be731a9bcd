"""Some users' events made into rows: targets, histories, negatives, splits.

Letters: N events of some users, sorted by user, then time; E of them behaviors, R
targets; K negatives of each positive.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from din_infer.jobs.history.catalog import GROUP_ROWS, Catalog, column, numbers
from din_infer.jobs.history.sampling import NONE, keys_of
from din_infer.jobs.history.segments import (
    Ints,
    Times,
    before,
    count_before,
    of_other_sessions,
)

__all__ = ["parts", "tables", "times_of_targets"]

GROUP_ELEMENTS = 1 << 22  # of one column of lists in a table


@dataclass
class _Targets:
    """Rows to be: R events, what each gets, and which split it belongs to."""

    event: Ints  # [R]
    label: Any  # bool [R]
    begins: Ints  # [R], of its history: among the behaviors, or in `positions`
    lengths: Ints  # [R]
    positions: Ints | None  # of behaviors, where those are not in a row
    negatives: Ints  # [R, K]
    split: Ints  # [R]


class _Part:
    """The events of some users, and the targets among them: their times, or all."""

    def __init__(
        self, catalog: Catalog, first: int, last: int, *, only_times: bool = False
    ) -> None:
        self._catalog = catalog
        self._options = catalog.options
        places = ["i", "t", "b", "p", "m", "s"]
        places += [] if only_times else [*catalog.places, *catalog.kept]
        order = ", ".join(["u", "t", *(name for name in places if name != "t")])
        inside = f"u BETWEEN {first} AND {last}"
        self._table = catalog.fetch(
            f"SELECT u, {', '.join(places)} FROM events WHERE {inside} ORDER BY {order}"
        )
        self._users = column(
            catalog.fetch(f"SELECT user FROM users WHERE {inside} ORDER BY u")["user"]
        )
        self._user = numbers(self._table["u"])  # of all
        self._local = self._user - first
        self._item, self._time = (numbers(self._table[name]) for name in "it")
        self._is_behavior, self._is_positive, is_shown = (
            numbers(self._table[name]) for name in "bpm"
        )
        coded = column(self._table["s"]).dictionary_encode().indices
        self._session = numbers(coded.fill_null(-1)).astype(np.int64)
        self._behavior = np.flatnonzero(self._is_behavior)
        label, is_target = self._is_positive.copy(), self._is_positive | is_shown
        if catalog.matches:
            clicked, is_own = self._match(is_shown)
            label[clicked] = True
            is_target &= ~is_own
        self.targets = self._make(np.flatnonzero(is_target), label)

    def _column(self, place: str) -> pa.Array:
        return column(self._table[place])

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
        keys = [self._user[found], self._item[found]]
        if self._catalog.columns.session:
            keys.append(self._session[found])
        time, is_click = self._time[found], self._is_positive[found]
        order = np.lexsort((is_click, time, *reversed(keys)))
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
            has &= time[order][np.maximum(shown, 0)] >= before(time[order], within)
        is_matched = np.zeros(len(self._time), bool)
        is_matched[found[order[has]]] = True
        return found[order[shown[has]]], is_matched

    def _make(self, event: Ints, label: Any) -> _Targets:  # noqa: ANN401
        options = self._options
        time, local = self._time[event], self._local[event]
        of_user = np.searchsorted(
            self._local[self._behavior], np.arange(len(self._users) + 1)
        )
        start, stop = of_user[local], of_user[local + 1]
        times = self._time[self._behavior]
        stop = count_before(times, start, stop, before(time, options.gap))
        if options.window is not None:
            start = count_before(times, start, stop, before(time, options.window))
        positions = None
        if self._catalog.columns.session:
            sessions = self._session[self._behavior], self._session[event]
            positions, lengths = of_other_sessions(
                start, stop, *sessions, options.max_len
            )
            begins = np.cumsum(lengths) - lengths
        else:
            lengths = np.clip(stop - start, 0, options.max_len)
            begins = stop - lengths
        split = self._split(event, label[event])
        is_long = lengths >= options.min_history
        self._num_short = int((~is_long).sum())
        if self._num_short:
            event, split = event[is_long], split[is_long]
            begins, lengths = begins[is_long], lengths[is_long]
        negatives = np.full((len(event), options.negatives), NONE)
        return _Targets(
            event, label[event], begins, lengths, positions, negatives, split
        )

    @property
    def times(self) -> Times:
        """Of the targets."""
        times: Times = self._time[self.targets.event]
        return times

    def draw(self) -> None:
        """Draw the negatives, and count what was made."""
        counts, targets = self._catalog.counts, self.targets
        if self._options.negatives:
            self._sample(targets)
        positives = int(targets.label.sum())
        counts.positives += positives
        counts.impressions += len(targets.event) - positives
        counts.users += len(np.unique(self._local[targets.event]))
        counts.too_short += self._num_short

    def _sample(self, targets: _Targets) -> None:
        counts, num_items = self._catalog.counts, len(self._catalog.items)
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
        found = self._catalog.sample(keys, time, items, start, stop)
        targets.negatives[chosen] = found
        counts.sampled += int((found != NONE).sum())
        counts.missing += int((found == NONE).sum())

    def _split(self, event: Ints, label: Any) -> Ints:  # noqa: ANN401
        """Say which of the splits each target belongs to."""
        time, boundaries = self._time[event], self._catalog.boundaries
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
        catalog, targets = self._catalog, self.targets
        event = targets.event[chosen]
        codes = np.column_stack([self._item[event], targets.negatives[chosen]])
        is_row = codes != NONE
        of_row = np.repeat(np.arange(len(chosen)), is_row.sum(axis=1))
        is_own = np.zeros(codes.shape, bool)
        is_own[:, 0] = True
        is_own, code = is_own[is_row], codes[is_row]
        label = np.where(is_own, targets.label[chosen][of_row], False)
        lengths = targets.lengths[chosen][of_row]
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        inside = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        place = np.repeat(targets.begins[chosen][of_row], lengths) + inside
        if targets.positions is not None:
            place = targets.positions[place]
        behavior = self._behavior[place]
        offsets = pa.array(offsets, pa.int32())
        rows = event[of_row]
        arrays = [
            self._users.take(pa.array(self._local[rows])),
            self._catalog.form.column(pa.array(self._time[rows])),
            catalog.items.take(pa.array(code)),
            *self._values(rows, code, is_own),
            _lists(offsets, catalog.items, self._item[behavior]),
            *(_lists(offsets, self._column(p), behavior) for p in catalog.listed),
            pa.array(label.astype(np.int8)),
            *(self._column(p).take(pa.array(rows)) for p in catalog.kept),
        ]
        return pa.Table.from_arrays(arrays, schema=catalog.schema), lengths

    def _values(self, rows: Ints, code: Ints, is_own: Any) -> Iterator[pa.Array]:  # noqa: ANN401
        """Yield the item columns: of targets as logged, of negatives as known then."""
        catalog = self._catalog
        if is_own.all() or not catalog.places:
            for place in catalog.places:
                yield self._column(place).take(pa.array(rows))
            return
        own, drawn = np.flatnonzero(is_own), np.flatnonzero(~is_own)
        versions = catalog.version(code[drawn], self._time[rows[drawn]])
        order = np.empty(len(rows), np.int64)
        order[own], order[drawn] = np.arange(len(own)), len(own) + np.arange(len(drawn))
        for place in catalog.places:
            mine = self._column(place).take(pa.array(rows[own]))
            others = column(catalog.versions[place]).take(pa.array(versions))
            yield pa.concat_arrays([mine, others]).take(pa.array(order))


def tables(
    catalog: Catalog, first: int, last: int
) -> Iterator[tuple[str, pa.Table, Ints]]:
    """Make the rows of the users ``first .. last``, and count them in `catalog`.

    Yields
    ------
    split : str
    table : pyarrow.Table
        In order of user and time; a positive's negatives follow it.
    lengths : int64
        Of the rows' histories.
    """
    part = _Part(catalog, first, last)
    part.draw()
    for k, split in enumerate(catalog.options.splits):
        chosen = np.flatnonzero(part.targets.split == k)
        for some in part.pieces(chosen):
            yield split, *part.table(some)


def times_of_targets(catalog: Catalog, first: int, last: int) -> Times:
    """Return when the targets of the users ``first .. last`` are that make rows."""
    return _Part(catalog, first, last, only_times=True).times


def _lists(offsets: pa.Array, values: pa.Array, positions: Ints) -> pa.Array:
    return pa.ListArray.from_arrays(offsets, values.take(pa.array(positions)))


def parts(sizes: Sequence[int] | Ints, most: int) -> Iterator[tuple[int, int]]:
    """Cut users into runs of at most `most` events, or of one user."""
    ends = np.cumsum(np.asarray(sizes, np.int64))
    first = 0
    while first < len(ends):
        done = ends[first - 1] if first else 0
        last = max(int(np.searchsorted(ends, done + most, side="right")) - 1, first)
        yield first, last
        first = last + 1
