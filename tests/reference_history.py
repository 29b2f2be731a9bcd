"""The slow twin of din_infer.jobs.history: one event at a time, in pure Python."""

import struct
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from din_infer.jobs.history.catalog import Options

WORD = 2**64 - 1
ATTEMPTS = 128


@dataclass
class Event:
    """An event: who, what, when; and what it is."""

    user: Any
    item: Any
    time: float
    behavior: bool = True
    positive: bool = True
    shown: bool = False
    session: str | None = None
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        return None not in (self.user, self.item, self.time)


def mixed(word: int) -> int:
    word = (word + 0x9E3779B97F4A7C15) & WORD
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & WORD
    return word ^ (word >> 31)


def key_of(seed: int, user: int, item: int, time: float, copy: int) -> int:
    bits = struct.unpack("<Q", struct.pack("<d" if type(time) is float else "<q", time))
    key = mixed(seed)
    for part in (user, item, bits[0], copy):
        key = mixed(key ^ part)
    return key


def draw(key: int, number: int, below: int) -> int:
    return mixed(key ^ number) % below


def order_of(value: object) -> tuple[bool, Any]:
    return value is None, value  # null last


def reference_rows(
    events: Sequence[Event],
    options: Options,
    *,
    columns: Sequence[str] = (),
    session: bool = False,
    impressions: bool = False,
) -> dict[str, list[dict[str, Any]]]:
    """Make the rows of each split, whose columns are user, time, item and so on."""
    events = [e for e in events if e.is_whole]
    users = sorted({e.user for e in events})
    first = {
        i: min(e.time for e in events if e.item == i) for i in {e.item for e in events}
    }
    items = sorted(first, key=lambda i: (first[i], i))

    def order(e: Event) -> tuple[Any, ...]:
        flags = (e.behavior, e.positive, e.shown)
        values = [order_of(e.values[c]) for c in columns]
        return (e.time, items.index(e.item), *flags, order_of(e.session), *values)

    events = sorted(events, key=order)
    by_user = {u: [e for e in events if e.user == u] for u in users}
    timeline = sorted((e.time, items.index(e.item)) for e in events if e.positive)
    result: dict[str, list[dict[str, Any]]] = {name: [] for name in options.splits}
    targets_of = {
        user: find_targets(mine, options, session=session, matched=impressions)
        for user, mine in by_user.items()
    }
    bounds = boundaries(
        [
            target.time
            for user, targets in targets_of.items()
            for target, _ in targets
            if len(history(by_user[user], target, options, session=session))
            >= options.min_history
        ],
        options,
    )
    for number, user in enumerate(users):
        mine, targets = by_user[user], targets_of[user]
        moments = sorted({e.time for e, label in targets if label})
        copies: dict[tuple[Any, float], int] = defaultdict(int)
        owned = {items.index(e.item) for e in mine}
        for target, label in targets:
            past = history(mine, target, options, session=session)
            split = split_of(target.time, moments, bounds, options)
            if len(past) < options.min_history:
                continue
            drawn: list[int] = []
            if label:
                copy = copies[target.item, target.time]
                copies[target.item, target.time] += 1
                code = items.index(target.item)
                key = key_of(options.seed, number, code, target.time, copy)
                seen = sum(first[i] < target.time for i in items)
                before = [i for t, i in timeline if t < target.time]
                if options.negatives_by == "popularity":
                    drawn = popular(key, before, owned, options.negatives)
                else:
                    pool = seen if options.negatives_by == "seen" else len(items)
                    drawn = uniform(key, pool, owned, options.negatives)
            lists = {"hist_item": [e.item for e in past]}
            lists |= {f"hist_{c}": [e.values[c] for e in past] for c in columns}
            who = {"user": user, "time": target.time}
            own = {"item": target.item, **{c: target.values[c] for c in columns}}
            result[split].append({**who, **own, **lists, "label": int(label)})
            for code in drawn:
                item = items[code]
                of_item = [e for e in events if e.item == item]
                known = [e for e in of_item if e.time < target.time]
                # the last before the row; else the first that there is
                values = ordered(known or of_item, columns)[-1 if known else 0].values
                row = {"item": item, **{c: values[c] for c in columns}}
                result[split].append({**who, **row, **lists, "label": 0})
    return result


def ordered(events: Sequence[Event], columns: Sequence[str]) -> list[Event]:
    def order(e: Event) -> tuple[Any, ...]:
        return (e.time, *(order_of(e.values[c]) for c in columns))

    return sorted(events, key=order)


def boundaries(times: Sequence[float], options: Options) -> list[float]:
    times = sorted(times)
    shares = {"valid": options.valid_fraction + options.test_fraction}
    shares["test"] = options.test_fraction
    return [
        times[min(int(len(times) * (1 - shares[name])), len(times) - 1)]
        for name in options.splits[1:]
        if options.split == "time" and times
    ]


def find_targets(
    events: Sequence[Event], options: Options, *, session: bool, matched: bool
) -> list[tuple[Event, bool]]:
    labels = {id(e): e.positive for e in events if e.positive or e.shown}
    for click in (e for e in events if e.positive and matched):
        # the last impression of the item at or before it
        shown = [
            e
            for e in events
            if e.shown and e.item == click.item and e.time <= click.time
        ]
        if session:
            shown = [e for e in shown if e.session == click.session]
        if not shown:
            continue
        within = options.click_within
        if within is not None and click.time - shown[-1].time > within:
            continue
        labels[id(shown[-1])] = True
        del labels[id(click)]
    return [(e, labels[id(e)]) for e in events if id(e) in labels]


def history(
    events: Sequence[Event], target: Event, options: Options, *, session: bool
) -> list[Event]:
    found = []
    for e in events:
        if not e.behavior or not e.time < target.time - options.gap:
            continue
        if options.window is not None and e.time < target.time - options.window:
            continue
        if session and e.session is not None and e.session == target.session:
            continue
        found.append(e)
    return found[-options.max_len :]


def split_of(
    time: float,
    moments: Sequence[float],
    bounds: Sequence[float],
    options: Options,
) -> str:
    if options.split is None:
        return "train"
    if options.split == "time":
        return options.splits[sum(time >= b for b in bounds)]
    if moments and time >= moments[-1]:
        return "test"
    if len(moments) > 1 and time >= moments[-2]:
        return "valid"
    return "train"


def uniform(key: int, pool: int, owned: set[int], num: int) -> list[int]:
    others = [i for i in range(pool) if i not in owned]
    wanted = min(num, len(others))
    ranks: list[int] = []
    for j in range(wanted):
        top = len(others) - wanted + j
        rank = draw(key, j, top + 1)
        ranks.append(top if rank in ranks else rank)
    return [others[rank] for rank in ranks]


def popular(key: int, before: Sequence[int], owned: set[int], num: int) -> list[int]:
    found: list[int] = []
    for j in range(num if before else 0):
        for attempt in range(ATTEMPTS):
            item = before[draw(key, j * ATTEMPTS + attempt, len(before))]
            if item not in owned and item not in found:
                found.append(item)
                break
    return found
