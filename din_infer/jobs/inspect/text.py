"""An inspection as tables, for a terminal."""

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from din_infer.formatting import aligned, count, percent, shorten, size
from din_infer.jobs.inspect.facts import (
    Collisions,
    DenseReport,
    FieldCounts,
    Findings,
    Overlap,
    SequenceReport,
    TableReport,
    share,
)
from din_infer.jobs.inspect.verdict import verdict, warnings

__all__ = ["tables"]

WIDTH = 88
NAME = 22  # columns of a name

Cell = str | int | float | None
"""Text as it is; a count; a share, which None is too."""


def tables(found: Findings) -> str:
    """Write all of it, for a terminal."""
    lines = [*_about(found)]
    head = "sequence|min|1%|5%|25%|50%|75%|95%|99%|max|mean|empty|single"
    lines += _table("History lengths", head, map(_lengths, found.sequences))
    head = "sequence|max_len|rows cut|behaviors lost|keeps 95%|keeps 99%|padding"
    lines += _table("Truncation and padding", head, map(_truncation, found.sequences))
    lines += _table(
        "Repeats (behaviors whose value an earlier one of the history has)",
        "field|repeat",
        (repeat for s in found.sequences for repeat in s.repeats.items()),
    )
    for o in (o for s in found.sequences for o in s.overlaps):
        candidate, behavior = (shorten(n, NAME) for n in (o.candidate, o.behavior))
        lines += _table(
            f"The candidate's {candidate} in its {behavior}",
            "|rows with a history|anywhere|newest|2nd newest|all behaviors",
            _matches(o),
        )
    lines += _table(
        "Fields (nulls and unseen: of the values; truncated and empty: of the rows)",
        "field|values|nulls|unseen|truncated|empty",
        (_counts(name, c, found.rows) for name, c in found.fields.items()),
    )
    lines += _table(
        "Embedding tables (once: keys that occur once; top: share of the commonest)",
        "table|encoder|rows|size|unused|keys|once|top 1%|top 10%",
        map(_use, found.tables),
    )
    lines += _table(
        "Hash collisions (keys that share their row with another)",
        "table|buckets|by chance|measured|of values|buckets for 1%|measured there",
        (_collisions(t, t.collisions) for t in found.tables if t.collisions),
    )
    lines += _table(
        "Values without an id of their own",
        "table|encoder|unseen|of values|unseen keys|largest value",
        (_unseen(t) for t in found.tables if t.encoder in ("vocab", "identity")),
    )
    lines += _table(
        "Dense values (zeros: of those that are there; missing: null, NaN, infinite)",
        "field|min|1%|50%|99%|max|mean|std|zeros|missing|scale",
        map(_dense, found.dense),
    )
    headline, *reasons = verdict(found)
    lines += _bullets("Warnings", [*warnings(found)])
    lines += _bullets(f"Does a DIN fit? {headline}", reasons)
    return "\n".join(lines)


def _table(title: str, head: str, rows: Iterable[Sequence[Cell]]) -> Iterator[str]:
    """Align: the first column to the left, the others to the right; a blank line first.

    Nothing without rows. `head` has the columns' names, split at "|".
    """
    shown = [head.split("|")]
    for name, *cells in rows:
        shown.append([shorten(str(name), NAME), *map(_cell, cells)])
    if len(shown) > 1:
        yield from ("", title)
        yield from aligned(shown, range(1, len(shown[0])), indent=2)


def _cell(value: Cell) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return value if isinstance(value, str) else percent(value)


def _mean(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _about(found: Findings) -> Iterator[str]:
    files = f"{len(found.files)} file{'s' * (len(found.files) != 1)}"
    rows = found.rows_of_files
    first = "the first " if rows is None or found.rows < rows else ""
    of = f" of {rows:,}" if first and rows is not None else ""
    yield f"{first}{found.rows:,}{of} rows, {files}"
    if found.labels:
        rate = percent(found.labels.click_rate)
        other = f", {found.labels.other:,} unlabeled" if found.labels.other else ""
        yield f"{found.labels.clicks:,} clicks ({rate}){other}"
    if found.users:
        u = found.users
        most = "" if u.rows_most is None else f", at most {u.rows_most:,}"
        middle = "" if u.rows_median is None else f", median {u.rows_median:,}"
        each = f"{_mean(u.rows_mean)} rows each{middle}{most}"
        yield f"{count(u.distinct, u.error)} users, {each}"
    if found.time:
        first, last = found.time
        yield f"time from {first} to {last}{_dates(first, last)}"
    for role, name in found.absent.items():
        yield f"no column {name}: the spec's {role} is left out"


def _dates(first: str, last: str) -> str:
    """Say the dates of what are most likely Unix times, of this century."""
    for unit, factor in (("seconds", 1), ("milliseconds", 1000)):
        seconds = [int(t) / factor for t in (first, last) if t.isdecimal()]
        if len(seconds) == 2 and all(946_684_800 <= s < 4_102_444_800 for s in seconds):
            days = [f"{datetime.fromtimestamp(s, UTC):%Y-%m-%d}" for s in seconds]
            return f" ({days[0]} to {days[1]}, if these are Unix {unit})"
    return ""


def _lengths(s: SequenceReport) -> list[Cell]:
    of_percent: list[Cell] = [*s.percentiles.values()]
    of_percent += ["-"] * (9 - len(of_percent))
    few = (share(s.empty, s.rows), share(s.single, s.rows))
    return [s.name, *of_percent, _mean(s.mean), *few]


def _truncation(s: SequenceReport) -> list[Cell]:
    lost = (share(s.truncated, s.rows), share(s.lost, s.behaviors))
    keeping = (s.max_len_keeping.get(p) for p in ("95", "99"))
    return [s.name, s.max_len, *lost, *keeping, s.padding]


def _matches(overlap: Overlap) -> Iterator[list[Cell]]:
    shares = []
    for name, m in overlap.matches.items():
        shares.append((m.share, m.at(0), m.at(1), m.density))
        yield [name.replace("_", "-"), m.rows, *shares[-1]]
    if len(shares) == 2:
        pairs = zip(*shares, strict=True)
        yield ["ratio", "", *(f"{a / b:.1f}" if a and b else "-" for a, b in pairs)]


def _counts(name: str, c: FieldCounts, rows: int) -> list[Cell]:
    of_values = (share(c.nulls, c.values), share(c.unseen, c.values))
    return [name, c.values, *of_values, share(c.truncated, rows), share(c.empty, rows)]


def _use(t: TableReport) -> list[Cell]:
    keys = count(t.distinct, t.error)
    used = (t.rows, size(t.rows * t.dim), share(t.never, t.rows), keys, t.once)
    return [t.name, t.encoder, *used, t.top["1"], t.top["10"]]


def _collisions(t: TableReport, c: Collisions) -> list[Cell]:
    shares = (c.expected, c.measured, c.occurrences)
    return [t.name, t.rows, *shares, c.wanted_buckets, c.wanted_measured]


def _unseen(t: TableReport) -> list[Cell]:
    unseen = (t.unseen, share(t.unseen, t.occurrences), t.unseen_keys)
    return [t.name, t.encoder, *unseen, "" if t.largest is None else t.largest]


def _dense(d: DenseReport) -> list[Cell]:
    shown = [d.percentiles.get(p) for p in ("0", "1", "50", "99", "100")]
    shown += [d.mean, d.std]
    numbers: list[Cell] = ["-" if x is None else f"{x:.4g}" for x in shown]
    shares = (share(d.zeros, d.values), share(d.missing, d.values + d.missing))
    return [d.name, *numbers, *shares, d.scale or "none"]


def _bullets(title: str, texts: Sequence[str]) -> Iterator[str]:
    if texts or title.endswith("."):
        yield ""
        yield from textwrap.wrap(title, WIDTH)
    for text in texts:
        yield textwrap.fill(
            text,
            WIDTH,
            initial_indent="  - ",
            subsequent_indent="    ",
            break_long_words=False,
            break_on_hyphens=False,
        )
