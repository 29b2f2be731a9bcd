"""Markdown tables of figures, and sentences that hold them against what is wanted."""

from collections.abc import Sequence
from typing import Any

__all__ = ["hold", "markdown", "number", "sentence"]


def number(value: float | None, form: str = ",.1f") -> str:
    """Format a figure; nothing where there is none."""
    return "" if value is None else f"{value:{form}}"


def markdown(rows: Sequence[Sequence[str]], texts: int = 1) -> str:
    """Lay out rows, the first being the heads; all but `texts` columns are numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rules = [
        "-" * w if i < texts else "-" * (w - 1) + ":" for i, w in enumerate(widths)
    ]
    lines = []
    for row in (rows[0], rules, *rows[1:]):
        cells = [
            text.ljust(width) if i < texts else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def hold(
    what: str,
    measured: float,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> dict[str, Any]:
    """Compare a figure with what is wanted; never more than information."""
    holds = None
    if at_least is not None:
        holds = measured >= at_least
    elif at_most is not None:
        holds = measured <= at_most
    return {
        "what": what,
        "measured": measured,
        "at_least": at_least,
        "at_most": at_most,
        "holds": holds,
    }


def sentence(figure: dict[str, Any]) -> str:
    """Say what a figure should be, and whether it is."""
    said = f"- {figure['what']}: {figure['measured']:.2f}"
    for limit in ("at_least", "at_most"):
        if figure[limit] is not None:
            said += f", wanted {limit.replace('_', ' ')} {figure[limit]:g}"
    return said + {True: ": holds", False: ": does not hold", None: ""}[figure["holds"]]
