"""Explanations as pictures."""

from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from din_infer.errors import InputError
from din_infer.explain.facts import (
    ExplainedRow,
    ExplainedSequence,
    Scale,
    largest,
    summary,
)
from din_infer.formatting import number
from din_infer.picture import (
    GRID,
    INK,
    SOFT,
    Axes,
    Colormap,
    Figure,
    Letters,
    LinearSegmentedColormap,
    Normalize,
    say_nothing,
)

__all__ = ["draw"]

SHOWN_REQUESTS = 6
SHOWN_CANDIDATES = 40  # of one request
SHOWN_BEHAVIORS = 400
LETTER = 0.16  # inches that a line of upright text takes

RISING = LinearSegmentedColormap.from_list("rising", ["#dfe8fb", "#1d4ed8"])
SIGNED = LinearSegmentedColormap.from_list("signed", ["#c2410c", "#f1f2f4", "#1d4ed8"])
EMPTY = "The model saw an empty history."
PADDING = "#c3c8d1"


def draw(
    requests: list[list[ExplainedRow]], ax: Axes | Sequence[Axes] | None
) -> Figure:
    """Draw requests; see `Explanation.plot`."""
    if not requests:
        raise InputError("at least one row to draw", "none", "plot")
    shown, letters = requests, Letters()
    if ax is None:
        shown = requests[:SHOWN_REQUESTS]
        axes = _new_axes(shown)
    else:
        axes = [*ax] if isinstance(ax, Iterable) else [ax]
    count = sum(len(rows[0].sequences) for rows in shown)
    if len(axes) != count:
        rule = f"{count} axes, one per sequence of what is drawn"
        raise InputError(rule, len(axes), "ax")
    places = iter(axes)
    for rows in shown:
        _request(rows, list(islice(places, len(rows[0].sequences))), letters)
    figure: Figure = axes[0].figure.figure
    if len(shown) < len(requests):
        said = f"the first {len(shown)} of {len(requests)} requests"
        figure.supxlabel(said, **letters.soft)
    return figure


def _new_axes(requests: list[list[ExplainedRow]]) -> list[Axes]:
    """Lay a figure out by how much there is to see."""
    sizes = [_size(rows) for rows in requests]
    heights = [height for _, height in sizes]
    figure = Figure((max(w for w, _ in sizes), sum(heights)), layout="constrained")
    parts = figure.subfigures(len(requests), squeeze=False, height_ratios=heights)
    for part, rows in zip(parts[:, 0], requests, strict=True):
        count = len(rows[0].sequences)
        if len(rows) == 1:
            part.subplots(count, 1, height_ratios=_heights(rows[0]))
        else:
            widths = [max(len(s), 6) for s in rows[0].sequences]
            part.subplots(1, count, width_ratios=widths)
    return figure.axes


def _size(rows: Sequence[ExplainedRow]) -> tuple[float, float]:
    """Choose inches, as many as are needed."""
    counts = [len(s) + bool(len(s.padding)) for s in rows[0].sequences]
    if len(rows) == 1:
        return min(max(6.0, 0.3 * max(counts) + 1.5), 13.0), sum(_heights(rows[0]))
    width = 2.6 + sum(min(max(1.5, 0.24 * n), 9.0) + 0.8 for n in counts)
    return min(max(width, 6.0), 16.0), 1.9 + 0.24 * min(len(rows), SHOWN_CANDIDATES)


def _heights(row: ExplainedRow) -> list[float]:
    return [3.2 if s or len(s.padding) else 1.0 for s in row.sequences]


def _request(
    rows: Sequence[ExplainedRow], axes: Sequence[Axes], letters: Letters
) -> None:
    if len(rows) == 1:
        title = f"{rows[0].name}   score {rows[0].score:.4g}"
        for ax, sequence in zip(axes, rows[0].sequences, strict=True):
            _bars(ax, sequence, letters)
    else:
        best = rows[:SHOWN_CANDIDATES]
        kept = f"the best {len(best)}" if len(best) < len(rows) else "best first"
        title = f"{len(rows)} candidates of one request, {kept}"
        for k, ax in enumerate(axes):
            _map(ax, best, k, letters)
    axes[0].set_title(
        letters(title),
        loc="left",
        color=INK,
        fontsize=11,
        weight="bold",
        **letters.style,
    )


def _colors(scale: Scale) -> tuple[Colormap, Normalize]:
    biggest = scale.peak or 1.0
    if scale.low < 0:
        return SIGNED, Normalize(-biggest, biggest)
    return RISING, Normalize(0.0, biggest)


def _plain_axes(ax: Axes, sequence: ExplainedSequence, letters: Letters) -> None:
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0, labelsize=8, colors=SOFT)
    order = ", oldest to newest" if sequence else ""
    said = letters(f"{sequence.name}: {summary(sequence)}{order}")
    ax.set_xlabel(said, **letters.soft)


def _bars(ax: Axes, sequence: ExplainedSequence, letters: Letters) -> None:
    """Draw one sequence of one row: a bar per behavior, its height and color."""
    _plain_axes(ax, sequence, letters)
    padding = sequence.padding[:1]
    if not len(sequence) and not len(padding):
        say_nothing(ax, EMPTY, va="center", **letters.style)
        return
    weights, scale = sequence.weights, Scale(sequence.weights, padding)
    colors, norm = _colors(scale)
    shown = largest(weights, SHOWN_BEHAVIORS)
    heights = weights[shown]
    ax.bar(
        shown,
        heights,
        width=0.82,
        color=colors(norm(heights)),
        edgecolor=SOFT,
        linewidth=0.4 if len(sequence) <= 60 else 0.0,
    )
    count, behind = len(sequence), []
    if len(padding):
        ax.bar([count], padding, width=0.82, color=PADDING, hatch="///", edgecolor="w")
        behind = [f"padding, each of {len(sequence.padding)}"]
        count += 1
    ax.axhline(0.0, color=SOFT, linewidth=0.8)
    ax.set_xlim(-0.6, max(count, 8) - 0.4)
    ax.margins(y=0.12)
    ax.yaxis.grid(visible=True, color=GRID, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.set_ylabel("activation weight", **letters.soft)
    _name_behaviors(ax, sequence, np.abs(weights), max(count, 8), letters, behind)
    if count <= 16:
        for t, weight in enumerate([*weights.tolist(), *padding.tolist()]):
            ax.annotate(
                scale.number(weight),
                (t, weight),
                ha="center",
                fontsize=7,
                xytext=(0, 2 if weight >= 0 else -2),
                textcoords="offset points",
                va="bottom" if weight >= 0 else "top",
                color=INK,
                **letters.style,
            )


def _map(ax: Axes, rows: Sequence[ExplainedRow], k: int, letters: Letters) -> None:
    """Draw one sequence of many rows: a line per candidate, a column per behavior."""
    mine = [row.sequences[k] for row in rows]
    _plain_axes(ax, mine[0], letters)
    best = max(abs(row.score) for row in rows)
    names = [f"{letters(r.name, 24)}   {number(r.score, best)}" for r in rows]
    if not len(mine[0]):
        say_nothing(ax, EMPTY, va="center", **letters.style)
        ax.set_ylim(len(rows) - 0.5, -0.5)
    else:
        weights = np.stack([s.weights for s in mine])
        colors, norm = _colors(Scale(weights))
        image = ax.imshow(weights, colors, norm, aspect="auto", interpolation="nearest")
        count = len(mine[0])
        _name_behaviors(ax, mine[0], np.abs(weights).max(axis=0), count, letters)
        if count <= 60:
            ax.set_xticks(np.arange(count + 1) - 0.5, minor=True)
            ax.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
            ax.grid(which="minor", color="white", linewidth=1.0)
            ax.tick_params(which="minor", length=0)
        bar = ax.figure.colorbar(image, ax=ax, pad=0.01, fraction=0.05, aspect=30)
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=0, labelsize=8, colors=SOFT)
        bar.set_label("activation weight", **letters.soft)
    ax.set_yticks(range(len(rows)), names if k == 0 else [""] * len(rows))
    letters.apply(ax.get_yticklabels())


def _name_behaviors(
    ax: Axes,
    sequence: ExplainedSequence,
    sizes: NDArray[np.float32],
    count: int,
    letters: Letters,
    behind: Sequence[str] = (),
) -> None:
    """Name the largest behaviors, none too near another, and what is behind them."""
    # before axes are laid out, their inches are about these
    inches = float(ax.figure.figure.get_size_inches()[0]) * 0.8 / count
    gap = max(1, int(np.ceil(LETTER / inches)))
    places: list[int] = []
    for t in np.argsort(-sizes, kind="stable").tolist():
        if all(abs(t - other) >= gap for other in places):
            places.append(t)
    places.sort()
    names = sequence.labels
    labels = [*(letters(names[t], 22) for t in places), *map(letters, behind)]
    places += range(len(names), len(names) + len(behind))
    ax.set_xticks(places, labels, rotation=60, ha="right", rotation_mode="anchor")
    letters.apply(ax.get_xticklabels())
