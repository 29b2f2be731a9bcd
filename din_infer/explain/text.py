"""Explanations as text: the table that a terminal shows."""

from din_infer.explain.facts import ExplainedRow, Scale, largest, summary
from din_infer.formatting import aligned, shorten, text

__all__ = ["table"]

SHOWN_REQUESTS = 10
SHOWN_CANDIDATES = 40
SHOWN_BEHAVIORS = 20
BAR = 20  # columns of a terminal
EIGHTHS = " ▏▎▍▌▋▊▉█"
HEIGHTS = "▁▂▃▄▅▆▇█"


def table(requests: list[list[ExplainedRow]]) -> str:
    """Lay requests out for a terminal: bars, or a line per candidate."""
    if not requests:
        return "no rows"
    parts = []
    for rows in requests[:SHOWN_REQUESTS]:
        head = _named(rows[0].user)
        lines = _bars(rows[0]) if len(rows) == 1 else _lines(rows)
        parts.append("\n".join([head, *lines] if head else lines))
    if len(requests) > SHOWN_REQUESTS:
        parts.append(f"… and {len(requests) - SHOWN_REQUESTS} more requests")
    return "\n\n".join(parts)


def _named(values: dict[str, object]) -> str:
    return ", ".join(f"{text(k)} {shorten(text(v), 40)}" for k, v in values.items())


def _bars(row: ExplainedRow) -> list[str]:
    """Show one row: a line per behavior, its values, its weight and a bar."""
    lines = [f"row {row.number}  score {row.score:.4g}  {_named(row.candidate)}"]
    for sequence in row.sequences:
        shown = largest(sequence.weights, SHOWN_BEHAVIORS)
        values = list(sequence.columns.values())
        found = []
        for t in shown:
            named = (shorten(text(v[t]), 32) for v in values)
            found.append([str(sequence.indices[t]), *named])
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
            scale = Scale(sequence.weights, sequence.padding)
            signed = min(weights) < 0
            cells = [["#", *map(text, sequence.columns), "weight", ""]]
            for cell, w in zip(found, weights, strict=True):
                bar = _bar(w, scale.share(w), signed)
                cells.append([*cell, scale.number(w), bar])
            lines += aligned(cells, (0, len(cells[0]) - 2), indent=4)
    return lines


def _bar(weight: float, share: float, signed: bool) -> str:
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


def _lines(rows: list[ExplainedRow]) -> list[str]:
    """Show many candidates of one request: a line each, its weights as a profile."""
    shown = rows[:SHOWN_CANDIDATES]
    kept = f", the best {len(shown)}" if len(shown) < len(rows) else ""
    lines = [f"{len(rows)} candidates{kept}"]
    for k, first in enumerate(shown[0].sequences):
        mine = [row.sequences[k] for row in shown]
        scale = Scale(*(s.weights for s in mine))
        low, high = scale.number(scale.low), scale.number(scale.high)
        ends = f"{HEIGHTS[0]} {low}, {HEIGHTS[-1]} {high}"
        order = f", oldest first; {ends}" if first else ""
        lines.append(f"  {text(first.name)}: {summary(first)}{order}")
        cells = [["row", "score", "candidate", ""]]
        for row, sequence in zip(shown, mine, strict=True):
            profile = "".join(
                HEIGHTS[round(7 * (w - scale.low) / scale.span)]
                for w in sequence.weights.tolist()
            )
            named = shorten(row.name, 32)
            cells.append([str(row.number), f"{row.score:.4g}", named, profile])
        lines += aligned(cells, (0, 1), indent=4)
    return lines
