"""An inspection as a picture of six panels, by matplotlib; pyplot is left alone."""

from typing import TYPE_CHECKING, Any

import numpy as np

from din_infer.explain_plot import INK, SOFT, _Letters
from din_infer.jobs.inspect_text import percent
from din_infer.jobs.inspect_verdict import FEWEST_ROWS, is_leak

# after explain_plot, which says what to install where there is no matplotlib
from matplotlib.figure import Figure  # isort: skip
from matplotlib.layout_engine import ConstrainedLayoutEngine  # isort: skip
from matplotlib.ticker import MaxNLocator  # isort: skip

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from din_infer.jobs.inspect_result import (
        Inspection,
        Overlap,
        SequenceReport,
        TableReport,
    )

__all__ = ["draw"]

COLORS = ("#1d4ed8", "#c2410c", "#0f766e", "#7c3aed", "#a16207", "#475569")
OF_CLASS = {"clicks": "#1d4ed8", "non_clicks": "#9aa3b2", "rows": "#1d4ed8"}
GRID = "#e3e7ee"
SHOWN = 6  # sequences, pairs, tables
SHOWN_AGES = 30
BINS = 60
LONG = 200  # behaviors: lengths on a logarithmic axis


def draw(found: "Inspection") -> Figure:
    """Draw it on a new figure."""
    letters = _Letters()
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    figure = Figure((13.5, 7.6), layout=layout)
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
    title = f"{found.rows:,} rows. {found.verdict[0]}"
    figure.suptitle(letters(title, 110), fontsize=12, color=INK, **letters.style)
    return figure


def _name(ax: "Axes", title: str, x: str, y: str) -> None:
    ax.set_title(title, fontsize=10, color=INK, loc="left")
    ax.set_xlabel(x, fontsize=8.5, color=SOFT)
    ax.set_ylabel(y, fontsize=8.5, color=SOFT)


def _nothing(ax: "Axes", said: str) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    ax.text(0.5, 0.5, said, transform=ax.transAxes, ha="center", color=SOFT)


def _legend(ax: "Axes", letters: _Letters, *, above: bool = False) -> None:
    """Explain the colors inside the axes, or above: bars leave no room."""
    place: dict[str, Any] = {"loc": "best"}
    if above:
        place = {"loc": "lower right", "bbox_to_anchor": (1.03, 0.985), "ncols": 2}
    shown = ax.legend(
        frameon=False,
        fontsize=8,
        labelcolor=INK,
        columnspacing=1,
        handlelength=1.6,
        **place,
    )
    for written in shown.get_texts():
        written.set(**letters.style)


def _percents(axis: Any) -> None:  # noqa: ANN401
    axis.set_major_formatter(lambda share, _: f"{100 * share:.3g}%")


def _lengths(
    ax: "Axes", sequences: "tuple[SequenceReport, ...]", letters: _Letters
) -> None:
    _name(ax, "How long histories are", "behaviors", "share of rows")
    shown = [s for s in sequences if s.rows]
    if not shown:
        _nothing(ax, "no behavior sequence" if not sequences else "no rows")
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
            shares, edges, fill=len(shown) == 1, color=color, alpha=0.85,
            linewidth=1.4, label=letters(s.name, 24),
        )  # fmt: skip
        ax.axvline(s.max_len + 0.5, color=color, linestyle="--", linewidth=1)
        ax.annotate(
            f"max_len {s.max_len:,}", (s.max_len + 0.5, 0.98), rotation=90, va="top",
            xycoords=("data", "axes fraction"), fontsize=8, color=color,
            ha="right" if s.max_len > longest / 2 else "left",
        )  # fmt: skip
    _percents(ax.yaxis)
    ax.yaxis.grid(visible=True, color=GRID, linewidth=0.6)
    if len(shown) > 1:
        _legend(ax, letters)


def _kept(
    ax: "Axes", sequences: "tuple[SequenceReport, ...]", letters: _Letters
) -> None:
    _name(ax, "What a max_len keeps", "max_len", "share of behaviors kept")
    shown = [s for s in sequences if s.behaviors]
    if not shown:
        _nothing(ax, "no behaviors")
        return
    for s, color in zip(shown, COLORS, strict=False):
        lengths, rows = np.array(s.histogram).T
        longest = max(s.max_len, int(lengths[-1]))
        limits = np.unique(np.geomspace(1, longest, 400).round().astype(int))
        kept = [int((np.minimum(lengths, limit) * rows).sum()) for limit in limits]
        ax.plot(
            limits, np.array(kept) / s.behaviors, color=color, linewidth=1.6,
            label=letters(s.name, 24),
        )  # fmt: skip
        ax.plot(
            [s.max_len], [1 - s.lost / s.behaviors], "o", color=color, markersize=6,
            clip_on=False,
        )  # fmt: skip
        for p, needed in s.max_len_keeping.items() if len(shown) == 1 else ():
            ax.vlines(needed, 0, int(p) / 100, color=color, linestyle=":", linewidth=1)
            ax.annotate(
                f"{p}%: {needed:,}", (needed, 0.02), xytext=(-1, 0), rotation=90,
                textcoords="offset points", ha="right", fontsize=8, color=color,
            )  # fmt: skip
    if any(s.histogram[-1][0] > LONG for s in shown):
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(lambda length, _: f"{length:,.0f}")
    ax.set_ylim(0, 1.02)
    _percents(ax.yaxis)
    ax.grid(visible=True, color=GRID, linewidth=0.6)
    if len(shown) > 1:
        _legend(ax, letters)


def _anywhere(ax: "Axes", overlaps: "list[Overlap]", letters: _Letters) -> None:
    _name(ax, "Candidates in their history", "share of rows", "")
    if not overlaps:
        _nothing(ax, "no pairs to compare")
        return
    high = 0.8 / max(len(o.matches) for o in overlaps)
    for i, o in enumerate(overlaps):
        for k, (name, m) in enumerate(o.matches.items()):
            y = i - 0.4 + high * (k + 0.5)
            label = name.replace("_", "-") if i == 0 else None
            ax.barh(y, m.share or 0.0, high * 0.92, color=OF_CLASS[name], label=label)
            ax.annotate(
                percent(m.share), (m.share or 0.0, y), xytext=(3, 0), va="center",
                textcoords="offset points", fontsize=8, color=INK,
            )  # fmt: skip
    ax.set_yticks(range(len(overlaps)), [letters(o.candidate, 18) for o in overlaps])
    for written in ax.get_yticklabels():
        written.set(color=INK, **letters.style)
    ax.set_ylim(len(overlaps) - 0.5, -0.5)
    ax.margins(x=0.15)
    _percents(ax.xaxis)
    ax.xaxis.grid(visible=True, color=GRID, linewidth=0.6)
    if len(overlaps[0].matches) > 1:
        _legend(ax, letters, above=True)


def _by_age(ax: "Axes", overlaps: "list[Overlap]", letters: _Letters) -> None:
    leak = any(map(is_leak, overlaps))
    title = "Which behavior is it?" + " A leak at the newest?" * leak
    _name(
        ax, title, "1: the newest behavior, 2: the second newest, ..", "share of rows"
    )
    drawn = 0
    for o, color in zip(overlaps, COLORS, strict=False):
        for name, m in o.matches.items():
            shares = [
                hits / rows
                for hits, rows in zip(m.by_age, m.reach, strict=True)
                if rows >= FEWEST_ROWS
            ][:SHOWN_AGES]
            of_class = "" if name == "rows" else f", {name.replace('_', '-')}"
            said = letters(o.candidate, 18) + of_class
            ax.plot(
                range(1, len(shares) + 1), shares, color=color, label=said, marker=".",
                linestyle=":" if name == "non_clicks" else "-", linewidth=1.4,
                markersize=4,
            )  # fmt: skip
            drawn += len(shares)
    if not drawn:
        _nothing(ax, "too few rows")
        return
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    _percents(ax.yaxis)
    ax.yaxis.grid(visible=True, color=GRID, linewidth=0.6)
    _legend(ax, letters)


def _top(ax: "Axes", tables: "tuple[TableReport, ...]", letters: _Letters) -> None:
    _name(ax, "Few keys, most values", "most frequent keys", "share of all values")
    shown = [t for t in tables if t.distinct]
    if not shown:
        _nothing(ax, "no keys")
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
    ax.grid(visible=True, color=GRID, linewidth=0.6)
    _legend(ax, letters)


def _collisions(
    ax: "Axes", tables: "tuple[TableReport, ...]", letters: _Letters
) -> None:
    _name(ax, "Keys that share a row", "share of keys", "")
    shown = [(t, t.collisions) for t in tables if t.collisions is not None][:SHOWN]
    if not shown:
        _nothing(ax, "no hashed table")
        return
    for i, (_, c) in enumerate(shown):
        bars = (
            ("by chance", c.expected, "#9aa3b2"),
            ("measured", c.measured, COLORS[0]),
        )
        for k, (name, share, color) in enumerate(bars):
            y = i + 0.4 * k - 0.2
            ax.barh(y, share or 0.0, 0.37, color=color, label=name if i == 0 else None)
            ax.annotate(
                percent(share), (share or 0.0, y), xytext=(3, 0), va="center",
                textcoords="offset points", fontsize=8, color=INK,
            )  # fmt: skip
    ax.axvline(0.01, color=COLORS[1], linestyle="--", linewidth=1)
    names = [f"{letters(t.name, 18)}\n{t.rows:,} rows" for t, _ in shown]
    ax.set_yticks(range(len(shown)), names)
    for written in ax.get_yticklabels():
        written.set(color=INK, **letters.style)
    ax.set_ylim(len(shown) - 0.5, -0.5)
    ax.margins(x=0.15)
    _percents(ax.xaxis)
    ax.xaxis.grid(visible=True, color=GRID, linewidth=0.6)
    _legend(ax, letters, above=True)
