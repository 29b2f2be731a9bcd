"""An inspection as a picture of six panels."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from din_infer.formatting import percent
from din_infer.jobs.inspect.facts import Findings, Overlap, SequenceReport, TableReport
from din_infer.jobs.inspect.verdict import FEWEST_ROWS, is_leak, verdict
from din_infer.picture import (
    GRID,
    INK,
    SOFT,
    Axes,
    ConstrainedLayoutEngine,
    Figure,
    Letters,
    MaxNLocator,
    say_nothing,
)

__all__ = ["draw"]

COLORS = ("#1d4ed8", "#c2410c", "#0f766e", "#7c3aed", "#a16207", "#475569")
PALE = "#9aa3b2"
OF_CLASS = {"clicks": COLORS[0], "non_clicks": PALE, "rows": COLORS[0]}
SHOWN = 6  # sequences, pairs, tables
SHOWN_AGES = 30
BINS = 60
LONG = 200  # behaviors: lengths on a logarithmic axis


def draw(found: Findings) -> Figure:
    """Draw it on a new figure."""
    letters = Letters()
    figure = Figure((13.5, 7.6), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
    axes = figure.subplots(2, 3).ravel().tolist()
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color(SOFT)
        ax.tick_params(length=3, labelsize=8, colors=SOFT)
        ax.set_axisbelow(True)
    overlaps = [o for s in found.sequences for o in s.overlaps][:SHOWN]
    _lengths(axes[0], found.sequences[:SHOWN], letters)
    _kept(axes[1], found.sequences[:SHOWN], letters)
    _anywhere(axes[2], overlaps, letters)
    _by_age(axes[3], overlaps, letters)
    _top(axes[4], found.tables[:SHOWN], letters)
    _collisions(axes[5], found.tables, letters)
    title = f"{found.rows:,} rows. {next(verdict(found))}"
    figure.suptitle(letters(title, 110), fontsize=12, color=INK, **letters.style)
    return figure


def _panel(
    ax: Axes, title: str, x: str, y: str, shown: Sequence[object], otherwise: str
) -> bool:
    """Name what axes show, and tell whether there is any; say so where there is not."""
    ax.set_title(title, fontsize=10, color=INK, loc="left")
    ax.set_xlabel(x, fontsize=8.5, color=SOFT)
    ax.set_ylabel(y, fontsize=8.5, color=SOFT)
    if not shown:
        say_nothing(ax, otherwise)
    return bool(shown)


def _legend(ax: Axes, letters: Letters, *, above: bool = False) -> None:
    """Explain the colors inside the axes, or above: bars leave no space."""
    place: dict[str, Any] = {"loc": "best"}
    if above:
        place = {"loc": "lower right", "bbox_to_anchor": (1.03, 0.985), "ncols": 2}
    place |= {"frameon": False, "fontsize": 8, "columnspacing": 1, "handlelength": 1.6}
    letters.apply(ax.legend(**place).get_texts())


def _percents(axis: Any) -> None:  # noqa: ANN401
    axis.set_major_formatter(lambda share, _: f"{100 * share:.3g}%")
    axis.grid(visible=True, color=GRID, linewidth=0.6)


def _lengths(ax: Axes, sequences: Sequence[SequenceReport], letters: Letters) -> None:
    shown = [s for s in sequences if s.rows]
    otherwise = "no rows" if sequences else "no behavior sequence"
    title = "How long histories are"
    if not _panel(ax, title, "behaviors", "share of rows", shown, otherwise):
        return
    longest = max(max(s.percentiles["99"], s.max_len) for s in shown) + 1
    width = max(1, -(-longest // BINS))
    edges = np.arange(0, longest + width + 1, width) - 0.5
    if any(s.histogram[-1][0] > edges[-1] for s in shown):
        ax.set_xlabel(f"behaviors (last bar: {edges[-2] + 0.5:,.0f} or more)")
    for s, color in zip(shown, COLORS, strict=False):
        lengths, rows = np.array(s.histogram).T
        last = np.minimum(lengths, edges[-1] - 1)
        shares = np.histogram(last, edges, weights=rows)[0] / s.rows
        ax.stairs(
            shares,
            edges,
            fill=len(shown) == 1,
            color=color,
            alpha=0.85,
            linewidth=1.4,
            label=letters(s.name, 24),
        )
        ax.axvline(s.max_len + 0.5, color=color, linestyle="--", linewidth=1)
        ax.annotate(
            f"max_len {s.max_len:,}",
            (s.max_len + 0.5, 0.98),
            rotation=90,
            va="top",
            xycoords=("data", "axes fraction"),
            fontsize=8,
            color=color,
            ha="right" if s.max_len > longest / 2 else "left",
        )
    _percents(ax.yaxis)
    if len(shown) > 1:
        _legend(ax, letters)


def _kept(ax: Axes, sequences: Sequence[SequenceReport], letters: Letters) -> None:
    shown = [s for s in sequences if s.behaviors]
    title, y = "What a max_len keeps", "share of behaviors kept"
    if not _panel(ax, title, "max_len", y, shown, "no behaviors"):
        return
    for s, color in zip(shown, COLORS, strict=False):
        lengths, rows = np.array(s.histogram).T
        longest = max(s.max_len, int(lengths[-1]))
        limits = np.unique(np.geomspace(1, longest, 400).round().astype(int))
        kept = [int((np.minimum(lengths, limit) * rows).sum()) for limit in limits]
        ax.plot(
            limits,
            np.array(kept) / s.behaviors,
            color=color,
            linewidth=1.6,
            label=letters(s.name, 24),
        )
        ax.plot(
            [s.max_len],
            [1 - s.lost / s.behaviors],
            "o",
            color=color,
            markersize=6,
            clip_on=False,
        )
        for p, needed in s.max_len_keeping.items() if len(shown) == 1 else ():
            ax.vlines(needed, 0, int(p) / 100, color=color, linestyle=":", linewidth=1)
            ax.annotate(
                f"{p}%: {needed:,}",
                (needed, 0.02),
                xytext=(-1, 0),
                rotation=90,
                textcoords="offset points",
                ha="right",
                fontsize=8,
                color=color,
            )
    if any(s.histogram[-1][0] > LONG for s in shown):
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(lambda length, _: f"{length:,.0f}")
    ax.set_ylim(0, 1.02)
    _percents(ax.yaxis)
    ax.xaxis.grid(visible=True, color=GRID, linewidth=0.6)
    if len(shown) > 1:
        _legend(ax, letters)


def _anywhere(ax: Axes, overlaps: Sequence[Overlap], letters: Letters) -> None:
    title, otherwise = "Candidates in their history", "no pairs to compare"
    if _panel(ax, title, "share of rows", "", overlaps, otherwise):
        bars = [
            [(n.replace("_", "-"), m.share, OF_CLASS[n]) for n, m in o.matches.items()]
            for o in overlaps
        ]
        _bars(ax, [letters(o.candidate, 18) for o in overlaps], bars, letters)


def _by_age(ax: Axes, overlaps: Sequence[Overlap], letters: Letters) -> None:
    lines = []
    for o, color in zip(overlaps, COLORS, strict=False):
        for name, m in o.matches.items():
            of_age = zip(m.by_age, m.reach, strict=True)
            shares = [hits / rows for hits, rows in of_age if rows >= FEWEST_ROWS]
            lines.append((o, name, shares[:SHOWN_AGES], color))
    leak = any(map(is_leak, overlaps))
    title = "Which behavior is it?" + " A leak at the newest?" * leak
    x = "1: the newest behavior, 2: the second newest, .."
    drawn = [line for line in lines if line[2]]
    if not _panel(ax, title, x, "share of rows", drawn, "too few rows"):
        return
    for o, name, shares, color in lines:
        of_class = "" if name == "rows" else f", {name.replace('_', '-')}"
        ax.plot(
            range(1, len(shares) + 1),
            shares,
            color=color,
            marker=".",
            label=letters(o.candidate, 18) + of_class,
            linewidth=1.4,
            markersize=4,
            linestyle=":" if name == "non_clicks" else "-",
        )
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    _percents(ax.yaxis)
    _legend(ax, letters)


def _top(ax: Axes, tables: Sequence[TableReport], letters: Letters) -> None:
    shown = [t for t in tables if t.distinct]
    title, y = "Few keys, most values", "share of all values"
    if not _panel(ax, title, "most frequent keys", y, shown, "no keys"):
        return
    for t, color in zip(shown, COLORS, strict=False):
        shares = [(float(p) / 100, y) for p, y in t.top.items()]
        points = [(x, y) for x, y in shares if x * t.distinct >= 1]
        xs, ys = zip(*points, (1.0, 1.0), strict=True)
        label = f"{letters(t.name, 18)}, {t.distinct:,} keys"
        ax.plot(xs, ys, color=color, marker=".", linewidth=1.4, label=label)
    ax.set_xscale("log")
    ax.set_ylim(0, 1.02)
    _percents(ax.xaxis)
    _percents(ax.yaxis)
    _legend(ax, letters)


def _collisions(ax: Axes, tables: Sequence[TableReport], letters: Letters) -> None:
    shown = [(t, t.collisions) for t in tables if t.collisions is not None][:SHOWN]
    title = "Keys that share a row"
    if _panel(ax, title, "share of keys", "", shown, "no hashed table"):
        ax.axvline(0.01, color=COLORS[1], linestyle="--", linewidth=1)
        names = [f"{letters(t.name, 18)}\n{t.rows:,} rows" for t, _ in shown]
        bars = [
            [("by chance", c.expected, PALE), ("measured", c.measured, COLORS[0])]
            for _, c in shown
        ]
        _bars(ax, names, bars, letters)


def _bars(
    ax: Axes,
    names: Sequence[str],
    bars: Sequence[Sequence[tuple[str, float | None, str]]],
    letters: Letters,
) -> None:
    """Draw the shares of each name as bars side by side: (label, share, color)."""
    high = 0.8 / max(map(len, bars))
    for i, of_name in enumerate(bars):
        for k, (label, share, color) in enumerate(of_name):
            y, x = i - 0.4 + high * (k + 0.5), share or 0.0
            ax.barh(y, x, high * 0.92, color=color, label=label if i == 0 else None)
            ax.annotate(
                percent(share),
                (x, y),
                xytext=(3, 0),
                va="center",
                textcoords="offset points",
                fontsize=8,
                color=INK,
            )
    ax.set_yticks(range(len(names)), names)
    letters.apply(ax.get_yticklabels())
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.margins(x=0.15)
    _percents(ax.xaxis)
    if len(bars[0]) > 1:
        _legend(ax, letters, above=True)
