"""Explanations as text: values, numbers, and the table that a terminal shows."""

import math
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from din_infer.explain import ExplainedRow, ExplainedSequence, Explanation

__all__ = ["facts", "label", "largest", "number", "shorten", "summary", "table", "text"]

SHOWN_REQUESTS = 10
SHOWN_CANDIDATES = 40
SHOWN_BEHAVIORS = 20
BAR = 20  # columns of a terminal
EIGHTHS = " ▏▎▍▌▋▊▉█"
HEIGHTS = "▁▂▃▄▅▆▇█"


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


def number(value: float, largest: float) -> str:
    """Show a weight with the decimals that three digits of the largest need."""
    digits = 2 - math.floor(math.log10(largest)) if largest > 0 else 2
    return f"{value:.{min(max(digits, 0), 9)}f}"


def largest(weights: NDArray[np.float32], count: int) -> list[int]:
    """Find the positions of the `count` largest weights, either sign, in time order."""
    order = np.argsort(-np.abs(weights), kind="stable")[:count]
    return sorted(order.tolist())


def size(*weights: NDArray[np.float32]) -> float:
    """Return the largest absolute weight of all; 0 of none."""
    return max((float(np.abs(w).max(initial=0)) for w in weights), default=0.0)


def summary(sequence: "ExplainedSequence") -> str:
    """Say how many behaviors there are, and how many were given."""
    count = len(sequence)
    if not count:
        return "no behaviors"
    given = "" if count == sequence.num_given else f" of {sequence.num_given} given"
    return f"{count} behavior{'s'[: count > 1]}{given}"


def facts(values: dict[str, object]) -> list[tuple[str, str]]:
    """List (column, value) as text."""
    return [(text(name), text(value)) for name, value in values.items()]


def table(explanation: "Explanation") -> str:
    """Lay an explanation out for a terminal: bars, or a line per candidate."""
    requests = explanation.by_request()
    if not requests:
        return "no rows"
    parts = []
    for rows in requests[:SHOWN_REQUESTS]:
        head = ", ".join(f"{k} {shorten(v, 40)}" for k, v in facts(rows[0].user))
        lines = _bars(rows[0]) if len(rows) == 1 else _lines(rows)
        parts.append("\n".join([head, *lines] if head else lines))
    if len(requests) > SHOWN_REQUESTS:
        parts.append(f"… and {len(requests) - SHOWN_REQUESTS} more requests")
    return "\n\n".join(parts)


def _bars(row: "ExplainedRow") -> list[str]:
    """Show one row: a line per behavior, its values, its weight and a bar."""
    named = ", ".join(f"{k} {shorten(v, 40)}" for k, v in facts(row.candidate))
    lines = [f"row {row.number}  score {row.score:.4g}  {named}"]
    for sequence in row.sequences:
        shown = largest(sequence.weights, SHOWN_BEHAVIORS)
        values = list(sequence.columns.values())
        found = [
            [str(sequence.indices[t]), *(shorten(text(v[t]), 32) for v in values)]
            for t in shown
        ]
        weights = sequence.weights[shown].tolist()
        if len(sequence.padding):
            what = f"padding, each of {len(sequence.padding)}"
            found.append(["", what, *([""] * (len(values) - 1))])
            weights.append(float(sequence.padding[0]))
        order = ", oldest first" if shown else ""
        if len(shown) < len(sequence):
            order = f", the {len(shown)} largest weights, oldest first"
        lines.append(f"  {text(sequence.name)}: {summary(sequence)}{order}")
        if found:
            biggest = size(sequence.weights, sequence.padding)
            signed = min(weights) < 0
            cells = [["#", *map(text, sequence.columns), "weight", ""]]
            for cell, w in zip(found, weights, strict=True):
                cells.append([*cell, number(w, biggest), _bar(w, biggest, signed)])
            lines += _aligned(cells, right=(0, len(cells[0]) - 2))
    return lines


def _aligned(cells: list[list[str]], right: Sequence[int]) -> list[str]:
    widths = [max(map(width, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        padded = []
        for i, cell in enumerate(row):
            blank = " " * (widths[i] - width(cell))
            padded.append(blank + cell if i in right else cell + blank)
        lines.append(("    " + "  ".join(padded)).rstrip())
    return lines


def _bar(weight: float, biggest: float, signed: bool) -> str:
    share = abs(weight) / biggest if biggest else 0.0
    if not signed:
        return _rightward(share, BAR)
    half = BAR // 2
    if weight < 0:
        cells = round(share * half * 2)
        left = "▐" * (cells % 2) + "█" * (cells // 2)
        return left.rjust(half) + "│"
    return " " * half + "│" + _rightward(share, half)


def _rightward(share: float, cells: int) -> str:
    eighths = round(share * cells * 8)
    return "█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()


def _lines(rows: list["ExplainedRow"]) -> list[str]:
    """Show many candidates of one request: a line each, its weights as a profile."""
    shown = rows[:SHOWN_CANDIDATES]
    kept = f", the best {len(shown)}" if len(shown) < len(rows) else ""
    lines = [f"{len(rows)} candidates{kept}"]
    for k, first in enumerate(shown[0].sequences):
        mine = [row.sequences[k] for row in shown]
        low = min(0.0, *(float(s.weights.min(initial=0)) for s in mine))
        high = max(0.0, *(float(s.weights.max(initial=0)) for s in mine))
        scale = size(*(s.weights for s in mine))
        ends = f"{HEIGHTS[0]} {number(low, scale)}, {HEIGHTS[-1]} {number(high, scale)}"
        order = f", oldest first; {ends}" if first else ""
        lines.append(f"  {text(first.name)}: {summary(first)}{order}")
        cells = [["row", "score", "candidate", ""]]
        for row, sequence in zip(shown, mine, strict=True):
            profile = "".join(
                HEIGHTS[round(7 * (float(w) - low) / (high - low or 1.0))]
                for w in sequence.weights
            )
            named = shorten(row.name, 32)
            cells.append([str(row.number), f"{row.score:.4g}", named, profile])
        lines += _aligned(cells, right=(0, 1))
    return lines
