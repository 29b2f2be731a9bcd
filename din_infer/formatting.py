"""Values, numbers and tables as text, for explanations and inspections."""

import math
import unicodedata
from collections.abc import Container, Iterable, Sequence

__all__ = [
    "aligned",
    "count",
    "label",
    "number",
    "one_line",
    "percent",
    "shorten",
    "size",
    "text",
    "width",
]


def text(value: object) -> str:
    """Show one raw value on one line; what would move a cursor is replaced.

    >>> [text(v) for v in ("g1", "", None, 3.0, 1.25, b"raw", ["a", 7], [], chr(10))]
    ['g1', '""', 'null', '3', '1.25', 'raw', 'a, 7', 'none', '�']
    """
    if value is None:
        return "null"
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, float):
        is_whole = value.is_integer() and abs(value) < 1e15
        return str(int(value)) if is_whole else f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(map(text, value)) or "none"
    shown = "".join(c if c.isprintable() else "\ufffd" for c in str(value))
    return shown or '""'


def one_line(shown: str) -> str:
    r"""Write what would end a line, or move a terminal's cursor, as Python does.

    >>> print(one_line("expected a file, got " + chr(10) + chr(27) + "[2Jmore"))
    expected a file, got \n\x1b[2Jmore
    """
    if shown.isprintable():
        return shown
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown
    )


def label(values: Iterable[object]) -> str:
    """Show the values of one behavior or candidate on one line."""
    return " · ".join(map(text, values))


def width(shown: str) -> int:
    """Count the columns that text takes in a terminal."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in shown)
    return len(shown) + wide - sum(map(bool, map(unicodedata.combining, shown)))


def shorten(shown: str, longest: int) -> str:
    """Cut text to so many columns, the last one then an ellipsis.

    >>> shorten("goods_0123456789", 8), shorten("goods", 8)
    ('goods_0…', 'goods')
    """
    if width(shown) <= longest:
        return shown
    cut = shown[:longest]
    while width(cut) > longest - 1:
        cut = cut[:-1]
    return cut + "…"


def aligned(
    rows: Sequence[Sequence[str]], right: Container[int], indent: int
) -> list[str]:
    """Lay out rows of cells as lines; the columns in `right` end at the right."""
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = []
        for i, cell in enumerate(row):
            blank = " " * (widths[i] - width(cell))
            cells.append(blank + cell if i in right else cell + blank)
        lines.append((" " * indent + "  ".join(cells)).rstrip())
    return lines


def number(value: float, largest: float) -> str:
    """Show a weight with the decimals that three digits of the largest need."""
    digits = 2 - math.floor(math.log10(largest)) if largest > 0 else 2
    return f"{value:.{min(max(digits, 0), 9)}f}"


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
