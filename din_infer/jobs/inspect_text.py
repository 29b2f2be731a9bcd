"""An inspection as tables, for a terminal."""

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from din_infer.explain_text import shorten, width

if TYPE_CHECKING:
    from din_infer.jobs.inspect_result import (
        Inspection,
        Overlap,
        SequenceReport,
        TableReport,
    )

__all__ = ["count", "percent", "size", "tables"]

WIDTH = 88
LONGEST_NAME = 22


def percent(share: float | None) -> str:
    """Write a share as percent; "-" where there is none.

    >>> percent(0.1234), percent(0.0001), percent(0), percent(None)
    ('12.3%', '0.01%', '0%', '-')
    """
    if share is None:
        return "-"
    if share in (0, 1):
        return f"{share:.0%}"
    if 0 < share < 0.001:
        return f"{share:.2%}" if share >= 0.00005 else "<0.01%"
    return f"{share:.1%}" if share < 0.9995 else ">99.9%"


def count(number: int, error: float) -> str:
    """Write a count, and how far it may be off where it is an estimate.

    >>> count(1200, 0.0), count(1200, 0.015)
    ('1,200', '1,200 (estimate, +-1.5%)')
    """
    return f"{number:,}" + (f" (estimate, +-{percent(error)})" if error else "")


def size(values: int) -> str:
    """Write the bytes of so many float32.

    >>> size(16), size(10**6), size(10**12)
    ('0.1 KiB', '3.8 MiB', '3.6 TiB')
    """
    shown, unit = values * 4 / 2**10, "KiB"
    for larger in ("MiB", "GiB", "TiB"):
        if shown >= 1024:
            shown, unit = shown / 1024, larger
    return f"{shown:,.1f} {unit}"


def _short(name: str) -> str:
    return shorten(name, LONGEST_NAME)


def _table(title: str, head: str, rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Align: the first column to the left, the others to the right; a blank line first.

    Nothing without rows. `head` has the columns' names, split at "|".
    """
    shown = [[*map(str.strip, head.split("|"))], *rows]
    if len(shown) == 1:
        return
    widths = [max(map(width, column)) for column in zip(*shown, strict=True)]
    yield ""
    yield title
    for row in shown:
        spaces = [" " * (w - width(c)) for c, w in zip(row, widths, strict=True)]
        cells = [row[0] + spaces[0]]
        cells += [s + c for s, c in zip(spaces[1:], row[1:], strict=True)]
        yield "  " + "  ".join(cells).rstrip()


def tables(found: "Inspection") -> str:
    """Write all of it, for a terminal."""
    lines = [*_about(found)]
    lines += _table(
        "History lengths",
        "sequence|min|1%|5%|25%|50%|75%|95%|99%|max|mean|empty|single",
        map(_lengths, found.sequences),
    )
    lines += _table(
        "Truncation and padding",
        "sequence|max_len|rows cut|behaviors lost|keeps 95%|keeps 99%|padding",
        map(_truncation, found.sequences),
    )
    repeats = [r for s in found.sequences for r in s.repeats.items()]
    lines += _table(
        "Repeats (behaviors whose value an earlier one of the history has)",
        "field|repeat",
        ((_short(name), percent(share)) for name, share in repeats),
    )
    for s in found.sequences:
        for o in s.overlaps:
            lines += _table(
                f"The candidate's {_short(o.candidate)} in its {_short(o.behavior)}",
                "|rows with a history|anywhere|newest|2nd newest|all behaviors",
                _matches(o),
            )
    lines += _table(
        "Fields (nulls and unseen: of the values; truncated and empty: of the rows)",
        "field|values|nulls|unseen|truncated|empty",
        (
            (
                _short(name),
                f"{c.values:,}",
                percent(c.nulls / c.values if c.values else None),
                percent(c.unseen / c.values if c.values else None),
                percent(c.truncated / found.rows if found.rows else None),
                percent(c.empty / found.rows if found.rows else None),
            )
            for name, c in found.fields.items()
        ),
    )
    lines += _table(
        "Embedding tables (once: keys that occur once; top: share of the commonest)",
        "table|encoder|rows|size|unused|keys|once|top 1%|top 10%",
        map(_use, found.tables),
    )
    lines += _table(
        "Hash collisions (keys that share their row with another)",
        "table|buckets|by chance|measured|of values|buckets for 1%|measured there",
        (_collisions(t) for t in found.tables if t.collisions),
    )
    lines += _table(
        "Values without an id of their own",
        "table|encoder|unseen|of values|unseen keys|largest value",
        (_unseen(t) for t in found.tables if t.encoder in ("vocab", "identity")),
    )
    headline, *reasons = found.verdict
    lines += _bullets("Warnings", found.warnings)
    lines += _bullets(f"Does a DIN fit? {headline}", reasons)
    return "\n".join(lines)


def _about(found: "Inspection") -> Iterator[str]:
    files = f"{len(found.files)} file{'s' * (len(found.files) != 1)}"
    first = "the first " if found.rows < found.rows_of_files else ""
    of = f" of {found.rows_of_files:,}" if first else ""
    yield f"{first}{found.rows:,}{of} rows, {files}"
    if found.labels:
        rate = percent(found.labels.click_rate)
        other = f", {found.labels.other:,} unlabeled" if found.labels.other else ""
        yield f"{found.labels.clicks:,} clicks ({rate}){other}"
    if found.users:
        u = found.users
        mean = "-" if u.rows_mean is None else f"{u.rows_mean:.1f}"
        most = "" if u.rows_most is None else f", at most {u.rows_most:,}"
        middle = "" if u.rows_median is None else f", median {u.rows_median:,}"
        yield f"{count(u.distinct, u.error)} users, {mean} rows each{middle}{most}"
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


def _lengths(s: "SequenceReport") -> list[str]:
    return [
        _short(s.name),
        *(f"{length:,}" for length in s.percentiles.values()),
        *["-"] * (9 - len(s.percentiles)),
        "-" if s.mean is None else f"{s.mean:.1f}",
        percent(s.empty / s.rows if s.rows else None),
        percent(s.single / s.rows if s.rows else None),
    ]


def _truncation(s: "SequenceReport") -> list[str]:
    return [
        _short(s.name),
        f"{s.max_len:,}",
        percent(s.truncated / s.rows if s.rows else None),
        percent(s.lost / s.behaviors if s.behaviors else None),
        *(f"{s.max_len_keeping[p]:,}" if s.behaviors else "-" for p in ("95", "99")),
        percent(s.padding),
    ]


def _matches(overlap: "Overlap") -> Iterator[list[str]]:
    shares = []
    for name, m in overlap.matches.items():
        shares.append((m.share, m.at(0), m.at(1), m.density))
        yield [name.replace("_", "-"), f"{m.rows:,}", *map(percent, shares[-1])]
    if len(shares) == 2:
        pairs = zip(*shares, strict=True)
        yield ["ratio", "", *(f"{a / b:.1f}" if a and b else "-" for a, b in pairs)]


def _use(t: "TableReport") -> list[str]:
    return [
        _short(t.name),
        t.encoder,
        f"{t.rows:,}",
        size(t.rows * t.dim),
        percent(t.never / t.rows),
        count(t.distinct, t.error),
        percent(t.once),
        percent(t.top["1"]),
        percent(t.top["10"]),
    ]


def _collisions(t: "TableReport") -> list[str]:
    c = t.collisions
    if c is None:
        return []
    wanted = "-" if c.wanted_buckets is None else f"{c.wanted_buckets:,}"
    shares = (percent(s) for s in (c.expected, c.measured, c.occurrences))
    rows = f"{t.rows:,}"
    return [_short(t.name), rows, *shares, wanted, percent(c.wanted_measured)]


def _unseen(t: "TableReport") -> list[str]:
    return [
        _short(t.name),
        t.encoder,
        f"{t.unseen:,}",
        percent(t.unseen / t.occurrences if t.occurrences else None),
        f"{t.unseen_keys:,}",
        "" if t.largest is None else f"{t.largest:,}",
    ]


def _bullets(title: str, texts: Sequence[str]) -> Iterator[str]:
    if texts or title.endswith("."):
        yield ""
        yield from textwrap.wrap(title, WIDTH)
    for text in texts:
        yield textwrap.fill(
            text, WIDTH, initial_indent="  - ", subsequent_indent="    ",
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
