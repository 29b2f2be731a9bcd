"""Explanations as HTML: no scripts, nothing fetched, every text escaped."""

from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

from din_infer.explain.facts import (
    ExplainedRow,
    ExplainedSequence,
    Scale,
    largest,
    summary,
)
from din_infer.formatting import number, shorten, text

__all__ = ["fragment", "page"]

SHOWN_REQUESTS = 10
SHOWN_CANDIDATES = 50  # of one request
FOLDED = 20  # behaviors; of a longer history the largest are listed before the rest
SHOWN_BEHAVIORS = 12
SHOWN_COLUMNS = 60  # of a map
LONGEST = 400  # behaviors of any list or strip
LONGEST_TEXT = 200

STYLE = """
.din-x { --ink: #1b2330; --soft: #667085; --line: #e3e7ee; --card: #fff;
  --page: #f5f6f9; --pos: 37 99 235; --neg: 217 85 20;
  color: var(--ink); background: var(--page); padding: 1.5rem 1rem;
  font: 14px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
  color-scheme: light dark; text-align: left }
@media (prefers-color-scheme: dark) { .din-x { --ink: #e6e9ef; --soft: #98a2b3;
  --line: #2c3340; --card: #171b23; --page: #0e1116; --pos: 96 156 255;
  --neg: 255 138 76 } }
.din-x > * { max-width: 68rem; margin: 0 auto 1rem }
.din-x h1 { font-size: 1.25rem; font-weight: 650; margin-bottom: .15rem }
.din-x .lead, .din-x .note { color: var(--soft) }
.din-x .lead { max-width: 68rem; margin-top: 0 }
.din-x .card { background: var(--card); border: 1px solid var(--line);
  border-radius: 12px; padding: 1.1rem 1.3rem }
.din-x .head { display: flex; gap: 1rem; align-items: baseline;
  justify-content: space-between; flex-wrap: wrap }
.din-x h2 { font-size: 1.05rem; font-weight: 650; margin: 0; overflow-wrap: anywhere }
.din-x h3 { font-size: .9rem; font-weight: 600; margin: 1.2rem 0 .4rem }
.din-x h3 span, .din-x h2 span { font-weight: 400; color: var(--soft) }
.din-x .score { font-size: 1.5rem; font-weight: 650 }
.din-x .score span { font-size: .8rem; font-weight: 400; color: var(--soft) }
.din-x dl { display: flex; flex-wrap: wrap; gap: .35rem .5rem; margin: .5rem 0 0 }
.din-x dl div { border: 1px solid var(--line); border-radius: 6px; padding: 0 .5rem;
  overflow-wrap: anywhere }
.din-x dt, .din-x dd { display: inline; margin: 0 }
.din-x dt { color: var(--soft); margin-right: .35rem; font-weight: 400 }
.din-x .strip { display: block; width: 100%; height: 84px }
.din-x .ends { display: flex; justify-content: space-between; color: var(--soft);
  font-size: .75rem; margin: .1rem 0 .6rem }
.din-x .scroll { overflow-x: auto }
.din-x table { border-collapse: collapse; margin: 0; border: 0; font-size: .85rem;
  color: inherit; background: none; table-layout: auto }
.din-x table.list { width: 100% }
.din-x tr { background: none !important }
.din-x th, .din-x td { text-align: left; padding: .22rem .8rem .22rem 0; border: 0;
  max-width: 20rem; overflow-wrap: anywhere; vertical-align: middle }
.din-x table.list tbody tr { border-top: 1px solid var(--line) }
.din-x thead th { color: var(--soft); font-weight: 500; font-size: .75rem }
.din-x .num { text-align: right; font-variant-numeric: tabular-nums;
  white-space: nowrap }
.din-x table.list .num:first-child { width: 2.5rem }
.din-x .bar { width: 45%; min-width: 9rem; padding-right: 0 }
.din-x .track { position: relative; height: 12px }
.din-x .track b { position: absolute; top: -6px; bottom: -6px; width: 1px;
  background: var(--line) }
.din-x .track i { position: absolute; top: 0; bottom: 0; border-radius: 2px }
.din-x .null { color: var(--soft); font-style: italic }
.din-x details { margin-top: .6rem }
.din-x summary { color: var(--soft); cursor: pointer; font-size: .85rem }
.din-x table.map td.cell { width: 22px; min-width: 16px; height: 24px; padding: 0;
  border: 1px solid var(--card) }
.din-x table.map thead th { vertical-align: bottom; font-size: .72rem;
  white-space: nowrap }
.din-x table.map thead th.up { padding: 0 0 .4rem; text-align: left }
.din-x table.map th.up span { writing-mode: vertical-rl; transform: rotate(180deg) }
.din-x table.map tbody th { font-weight: 500; white-space: nowrap; position: sticky;
  left: 0; background: var(--card) }
.din-x .legend { display: flex; align-items: center; gap: .5rem; margin-top: .7rem;
  color: var(--soft); font-size: .75rem }
.din-x .legend i { width: 9rem; height: 10px; border-radius: 3px }
.din-x .hidden { position: absolute; width: 1px; height: 1px; overflow: hidden;
  clip-path: inset(50%); white-space: nowrap }
"""


def page(requests: list[list[ExplainedRow]], model_id: str) -> str:
    """Return a whole page."""
    body = fragment(requests, model_id, tag="main")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy"'
        " content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        "<title>Activation weights</title>\n"
        "<style>html, body { margin: 0 } body { background: #f5f6f9 }\n"
        "@media (prefers-color-scheme: dark) { body { background: #0e1116 } }</style>\n"
        f"</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def fragment(
    requests: list[list[ExplainedRow]], model_id: str, tag: str = "div"
) -> str:
    """Return what a notebook shows: one element with its style."""
    said = f" Model {escape(model_id[:12])}." if model_id else ""
    parts = [
        f'<{tag} class="din-x">',
        f"<style>{STYLE}</style>",
        "<header><h1>Activation weights</h1>"
        '<p class="lead">The interest in a candidate is the sum of the behaviors,'
        f" each times its activation weight.{said}</p></header>",
    ]
    shown = requests[:SHOWN_REQUESTS]
    parts += (_one(r[0]) if len(r) == 1 else _map_card(r) for r in shown)
    hidden = len(requests) - SHOWN_REQUESTS
    if hidden > 0:
        parts.append(f'<p class="note">{hidden} more requests are not shown.</p>')
    if not requests:
        parts.append('<p class="note">No rows.</p>')
    return "\n".join([*parts, f"</{tag}>"])


def _facts(values: dict[str, object]) -> str:
    if not values:
        return ""
    pairs = (
        f"<div><dt>{escape(text(name))}</dt><dd>{_short(text(value))}</dd></div>"
        for name, value in values.items()
    )
    return f"<dl>{''.join(pairs)}</dl>"


def _value(value: object) -> str:
    return '<span class="null">null</span>' if value is None else _short(text(value))


def _short(shown: str) -> str:
    return escape(shorten(shown, LONGEST_TEXT))


def _fill(weight: float, scale: Scale) -> str:
    """Return the color of a weight: its sign's, the stronger the larger."""
    name = "--neg" if weight < 0 else "--pos"
    return f"rgb(var({name}) / {0.08 + 0.92 * scale.share(weight):.3f})"


# ------------------------------------------------------------------------ one candidate


def _one(row: ExplainedRow) -> str:
    parts = [
        '<section class="card">',
        f'<div class="head"><h2>{_short(row.name)} <span>row {row.number}</span></h2>',
        f'<div class="score"><span>score</span> {row.score:.4g}</div></div>',
        _facts({**row.user, **row.candidate}),
    ]
    for sequence in row.sequences:
        parts += _sequence(sequence)
    return "\n".join([*parts, "</section>"])


def _sequence(sequence: ExplainedSequence) -> Iterable[str]:
    count, said = len(sequence), summary(sequence)
    shown = largest(sequence.weights, SHOWN_BEHAVIORS if count > FOLDED else FOLDED)
    if len(shown) < count:
        said += f", the {len(shown)} largest weights listed"
    yield f"<h3>{escape(sequence.name)} <span>{said}</span></h3>"
    if len(shown) < count:
        yield _strip(sequence)
        yield _list(sequence, shown, f"The {len(shown)} largest, oldest first")
        every = largest(sequence.weights, LONGEST)
        is_all = len(every) == count
        said = f"All {count} behaviors" if is_all else f"The {len(every)} largest"
        yield f"<details><summary>{said}</summary>"
        yield _list(sequence, every, f"{said}, oldest first")
        yield "</details>"
    elif count or len(sequence.padding):
        yield _list(sequence, shown, "Oldest first")
    else:
        yield '<p class="note">The model saw an empty history.</p>'


def _strip(sequence: ExplainedSequence) -> str:
    """Draw all weights along time, as bars up and down from zero."""
    weights, labels = sequence.weights.tolist(), sequence.labels
    scale = Scale(sequence.weights)
    bars = []
    for t in largest(sequence.weights, LONGEST):
        weight = weights[t]
        height = max(abs(weight) / scale.span * 100, 0.8)
        y = (scale.high - max(weight, 0.0)) / scale.span * 100
        bars.append(
            f'<rect x="{t + 0.1:.1f}" y="{y:.2f}" width="0.8" height="{height:.2f}"'
            f' style="fill: {_fill(weight, scale)}"><title>'
            f"{_short(labels[t])}: {scale.number(weight)}</title></rect>"
        )
    count, (best,) = len(weights), largest(sequence.weights, 1)
    strongest = f"{scale.number(weights[best])} for {labels[best]}"
    said = f"{count} weights along time, the strongest {strongest}"
    axis = scale.high / scale.span * 100
    return (
        f'<svg class="strip" viewBox="0 0 {count} 100" preserveAspectRatio="none"'
        f' role="img" aria-label="{_short(said)}">{"".join(bars)}'
        f'<path d="M0 {axis:.2f}H{count}" style="stroke: var(--soft)"'
        ' vector-effect="non-scaling-stroke" fill="none"/></svg>'
        '<div class="ends"><span>oldest</span><span>newest</span></div>'
    )


def _list(sequence: ExplainedSequence, shown: Iterable[int], caption: str) -> str:
    scale = Scale(sequence.weights, sequence.padding[:1])
    named = []  # cells of what has a weight, and the weight
    for t in shown:
        values = "".join(f"<td>{_value(v[t])}</td>" for v in sequence.columns.values())
        cells = f'<td class="num">{sequence.indices[t]}</td>{values}'
        named.append((cells, float(sequence.weights[t])))
    for weight in sequence.padding[:1].tolist():
        what = f"padding, each of {len(sequence.padding)}"
        cells = f'<td class="null" colspan="{len(sequence.columns)}">{what}</td>'
        named.append((f"<td></td>{cells}", weight))
    rows = "".join(
        f'<tr>{cells}<td class="num">{scale.number(weight)}</td>'
        f'<td class="bar">{_track(weight, scale)}</td></tr>'
        for cells, weight in named
    )
    names = (escape(text(name)) for name in sequence.columns)
    columns = "".join(f'<th scope="col">{name}</th>' for name in names)
    return (
        f'<div class="scroll"><table class="list"><caption class="hidden">'
        f'{escape(caption)}</caption><thead><tr><th scope="col" class="num">#</th>'
        f'{columns}<th scope="col" class="num">weight</th><th class="bar"></th></tr>'
        f"</thead><tbody>{rows}</tbody></table></div>"
    )


def _track(weight: float, scale: Scale) -> str:
    left = (min(weight, 0.0) - scale.low) / scale.span * 100
    zero = -scale.low / scale.span * 100
    line = f'<b style="left: {zero:.2f}%"></b>' if zero > 0 else ""
    return (
        f'<div class="track">{line}<i style="left: {left:.2f}%; width:'
        f" {abs(weight) / scale.span * 100:.2f}%; background: {_fill(weight, scale)}"
        '"></i></div>'
    )


# ------------------------------------------------------------------- many candidates


def _map_card(rows: Sequence[ExplainedRow]) -> str:
    shown = rows[:SHOWN_CANDIDATES]
    kept = f"the best {len(shown)} of them" if len(shown) < len(rows) else "best first"
    parts = [
        '<section class="card">',
        f"<h2>{len(rows)} candidates of one request <span>{kept}</span></h2>",
        _facts(dict(rows[0].user)),
    ]
    for k in range(len(rows[0].sequences)):
        parts += _map(shown, k)
    return "\n".join([*parts, "</section>"])


def _map(rows: Sequence[ExplainedRow], k: int) -> Iterable[str]:
    mine = [row.sequences[k] for row in rows]
    peaks = np.max([np.abs(s.weights) for s in mine], axis=0)
    columns = largest(peaks, SHOWN_COLUMNS)
    order = ", oldest first" if columns else ""
    if len(columns) < len(peaks):
        order = f", the {len(columns)} of the largest weights, oldest first"
    said = summary(mine[0]) + order
    yield f"<h3>{escape(mine[0].name)} <span>{said}</span></h3>"
    labels = mine[0].labels
    names = "".join(
        f'<th scope="col" class="up"><span title="{_short(labels[t])}">'
        f"{escape(shorten(labels[t], 26))}</span></th>"
        for t in columns
    )
    scale, best = Scale(*(s.weights for s in mine)), max(abs(r.score) for r in rows)
    lines = []
    for row, sequence in zip(rows, mine, strict=True):
        cells = ""
        for t in columns:
            weight = float(sequence.weights[t])
            shown = scale.number(weight)
            pair = _short(f"{row.name}, {labels[t]}")
            cells += (
                f'<td class="cell" style="background: {_fill(weight, scale)}"'
                f' title="{pair}: {shown}"><span class="hidden">{shown}</span></td>'
            )
        lines.append(
            f'<tr><th scope="row" title="row {row.number}">'
            f"{escape(shorten(row.name, 40))}</th>"
            f'<td class="num">{number(row.score, best)}</td>{cells}</tr>'
        )
    yield (
        '<div class="scroll"><table class="map"><caption class="hidden">Activation'
        " weights of candidates (rows) for behaviors (columns)</caption><thead><tr>"
        '<th scope="col">candidate</th><th scope="col" class="num">score</th>'
        f"{names}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )
    if columns:
        ends = (-scale.peak, 0.0, scale.peak) if scale.low < 0 else (0.0, scale.peak)
        steps = ", ".join(_fill(weight, scale) for weight in ends)
        yield (
            f'<div class="legend" aria-hidden="true">{scale.number(ends[0])}'
            f'<i style="background: linear-gradient(90deg, {steps})"></i>'
            f"{scale.number(scale.peak)}</div>"
        )
