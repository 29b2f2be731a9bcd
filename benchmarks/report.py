"""What a benchmark prints and writes: a table per scenario, and JSON.

All that is printed follows from the JSON; this makes it again of a stored one.

example:
  python -m benchmarks.report benchmarks/results/encode-avx2.json
"""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.timing import Outcome, Race, is_named

__all__ = [
    "COPY",
    "Wanted",
    "head",
    "main",
    "overview",
    "render",
    "section",
    "summarize",
]

MS = {"ns": 1e6, "us": 1e3}
COPY = "copy"
OVERVIEW = "overview"
COLUMNS = {
    "p50_ms": ("median ms", ".3f"),
    "p99_ms": ("p99 ms", ".3f"),
    "p999_ms": ("p99.9 ms", ".3f"),
    "calls_per_s": ("calls/s", ",.0f"),
    "times_ours": ("times ours", ".2f"),
    "times_ours_per_computed_pair": ("per computed pair", ".2f"),
    "ns_per_valid_pair": ("ns per valid pair", ".1f"),
    "ns_per_key": ("ns per key", ".2f"),
    "us_per_request": ("us per request", ".2f"),
    "percent_of_copy": ("% of copy", ".1f"),
    "error": ("error", ".1e"),
}


@dataclass(frozen=True)
class Wanted:
    """A figure to hold the measured one against; never more than information.

    In `scenario`, `slow` is wanted to take at least `at_least` times as long as `fast`,
    or as many times as the first of `as_much_as` takes as long as the second;
    or `fast` to take at most `at_most` per unit, at most `us_more` microseconds more
    than `slow`, or at its p99 at most `tail` times as long as at its median. Where
    several are given, one is enough.
    """

    scenario: str
    slow: str | None
    fast: str
    at_least: float | None = None
    at_most: float | None = None
    us_more: float | None = None
    tail: float | None = None
    as_much_as: tuple[str, str] | None = None

    def judge(self, present: Mapping[str, Any], per: str) -> dict[str, Any]:
        """Compare with the rows of who took part; `per` names the time of a unit.

        `measured` is the ratio, `measured_time` the time of a unit, and so on; `holds`
        is None where what was measured does not tell.
        """
        fast, slow = present.get(self.fast), present.get(self.slow or "")
        ratio = _ratio(slow, fast)
        time = fast[per] if fast else None
        more = 1e3 * (fast["p50_ms"] - slow["p50_ms"]) if fast and slow else None
        tail = fast["p99_ms"] / fast["p50_ms"] if fast else None
        found = []
        if self.at_least is not None:
            found.append(None if ratio is None else ratio >= self.at_least)
        other = None
        if self.as_much_as is not None:
            other = _ratio(*map(present.get, self.as_much_as))
            found.append(None if ratio is None or other is None else ratio >= other)
        for measured, limit in (
            (time, self.at_most),
            (more, self.us_more),
            (tail, self.tail),
        ):
            if limit is not None:
                found.append(None if measured is None else measured <= limit)
        holds = True if True in found else None if None in found else False
        return {
            **asdict(self),
            "measured": ratio,
            "measured_time": time,
            "measured_more": more,
            "measured_tail": tail,
            "measured_other": other,
            "holds": holds,
        }


def _ratio(
    slow: Mapping[str, Any] | None, fast: Mapping[str, Any] | None
) -> float | None:
    return slow["p50_ms"] / fast["p50_ms"] if fast and slow else None


def summarize(
    race: Race, wanted: Iterable[Wanted], ceiling: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Make the JSON of one scenario: what was run, and what each contestant did.

    `times_ours` is the ratio of medians per call, which credits whoever skips padding;
    `times_ours_per_computed_pair` takes that credit away. `percent_of_copy` is the rate
    of the contestant "copy" that is reached. `ceiling` is a row that is computed, not
    run.
    """
    ours, scenario, padded = race.ours(), race.scenario, race.scenario.padded
    units = f"{scenario.unit}s".replace(" ", "_")
    per = _per(asdict(scenario)).replace(" ", "_")
    contestants: dict[str, dict[str, Any]] = {}
    for key, outcome in race.outcomes.items():
        if not isinstance(outcome, Outcome):
            contestants[key] = {"absent": outcome.reason}
            continue
        contestants[key] = {
            "what": outcome.contestant.label,
            "p50_ms": outcome.ms(50),
            "p99_ms": outcome.ms(99),
            "min_ms": outcome.ms(0),
            "runs": len(outcome.seconds),
        }
        if scenario.tail:
            contestants[key]["p999_ms"] = outcome.ms(99.9)
        if scenario.callers > 1:
            rate = len(outcome.seconds) / sum(outcome.turns)
            contestants[key]["calls_per_s"] = rate
        if outcome.error is not None:
            contestants[key]["error"] = outcome.error
        if padded is not None:
            contestants[key]["computed_pairs"] = race.computed(key)
    if ceiling is not None:
        contestants["ceiling"] = {**ceiling, "computed_pairs": race.units}
    present = {k: c for k, c in contestants.items() if "p50_ms" in c}
    for c in present.values():
        c[per] = MS[scenario.time_unit] * c["p50_ms"] / race.units
        if COPY in present:
            c["percent_of_copy"] = 100 * present[COPY]["p50_ms"] / c["p50_ms"]
        if ours is not None:
            own = contestants[ours]
            c["times_ours"] = times = c["p50_ms"] / own["p50_ms"]
            if padded is not None:
                pairs = own["computed_pairs"] / c["computed_pairs"]
                c["times_ours_per_computed_pair"] = times * pairs
    return {
        **asdict(scenario),
        **({} if padded is None else {f"padded_{units}": padded}),
        units: race.units,
        "batches": race.pool_size,
        "compared_with": ours,
        "contestants": contestants,
        "wanted": [
            w.judge(present, per) for w in wanted if w.scenario == scenario.name
        ],
    }


def render(document: Mapping[str, Any]) -> str:
    """Make of a run's JSON what the run printed."""
    summaries = list(document["scenarios"].values())
    parts = [head(document), *map(section, summaries), *overview(summaries)]
    return "\n".join(parts) + "\n"


def head(document: Mapping[str, Any]) -> str:
    """Say what was run, when, where, and with which versions."""
    cpu, isa = document["cpu"], document.get("isa")
    versions = (f"{name} {version}" for name, version in document["versions"].items())
    ours = f", ours in {isa}" if isa else ""
    return (
        f"# benchmarks.{document['benchmark']}\n\n"
        f"{document['date']}, commit {document['commit']}\n"
        f"{cpu['model']}, {' '.join(cpu['flags'])}, "
        f"threads: {document['threads']}{ours}\n" + ", ".join(versions)
    )


def section(summary: Mapping[str, Any]) -> str:
    """Lay one scenario out as a table, which Markdown shows too, and what is wanted."""
    contestants = summary["contestants"]
    plural = f"{summary['unit']}s".replace(" ", "_")
    units, padding = summary[plural], summary.get(f"padded_{plural}")
    columns = {
        name: column
        for name, column in COLUMNS.items()
        if any(name in c for c in contestants.values())
    }
    rows = [("contestant", "what", *(head for head, _ in columns.values()))]
    for key, c in contestants.items():
        if "absent" in c:
            rows.append((key, c["absent"], *[""] * len(columns)))
            continue
        cells = (f"{c[n]:{f}}" if n in c else "" for n, (_, f) in columns.items())
        rows.append((key, c["what"], *cells))
    padded = "" if padding is None else f" of {padding:,} with padding"
    lines = [
        f"\n## {summary['name']}: {summary['about']}\n",
        f"{units:,.0f} {summary['unit']}{'' if units == 1 else 's'}{padded} a batch,"
        f" {summary['batches']} batches in rotation\n",
        _table(rows),
        *([""] if summary["wanted"] else []),
        *(_sentence(w, _per(summary)) for w in summary["wanted"]),
    ]
    return "\n".join(lines)


def overview(summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lay several scenarios out as one table: ours, the fastest rival, the ceiling.

    Nothing, for a single scenario.
    """
    if len(summaries) < 2:
        return []
    everyone = dict.fromkeys(key for s in summaries for key in _times(s))
    ours = [key for key in everyone if key.startswith("ours")]
    copies = [key for key in everyone if is_named(key, COPY)]
    rows = [
        ("scenario", "median", *ours, "fastest rival", "of it", "its / ours", *copies)
    ]
    slower: list[str] = []
    for s in summaries:
        times = _times(s)
        own = times.get(s["compared_with"])
        rivals = [key for key in times if key not in {*ours, *copies, "ceiling"}]
        best = min(rivals, key=lambda key: times[key], default=None)
        cells = [f"{times[key]:.2f}" if key in times else "" for key in ours]
        cells += ["", "", ""] if best is None else [best, f"{times[best]:.2f}", ""]
        if own is not None and best is not None:
            cells[-1] = f"{times[best] / own:.2f}"
            if times[best] < own:
                pair = f"{best} / {s['compared_with']}"
                slower.append(f"{s['name']} ({pair}: {cells[-1]})")
        cells += [f"{times[key]:.2f}" if key in times else "" for key in copies]
        rows.append((s["name"], _per(s), *cells))
    lines = [f"\n## {OVERVIEW}: all scenarios in short\n", _table(rows)]
    if slower:
        lines.append(f"\n- a rival is faster in: {', '.join(slower)}")
    return ["\n".join(lines)]


def _times(summary: Mapping[str, Any]) -> dict[str, float]:
    """Return the time of a unit of all who took part."""
    per = _per(summary).replace(" ", "_")
    return {k: c[per] for k, c in summary["contestants"].items() if per in c}


def _per(summary: Mapping[str, Any]) -> str:
    """Name the time of a unit, such as "ns per key"."""
    return f"{summary['time_unit']} per {summary['unit']}"


def _sentence(figure: Mapping[str, Any], per: str) -> str:
    """Say what one figure should be, and whether it is."""
    clauses = []
    slow, fast = figure["slow"], figure["fast"]
    for what, measured, limit, rule in (
        (f"{slow} / {fast}", "measured", "at_least", "at least"),
        (f"{per} of {fast}", "measured_time", "at_most", "at most"),
        (f"us of {fast} above {slow}", "measured_more", "us_more", "at most"),
        (f"p99 / median of {fast}", "measured_tail", "tail", "at most"),
    ):
        if figure.get(limit) is not None:
            value = figure[measured]
            got = "not measured" if value is None else f"{value:.2f}"
            clauses.append(f"{what}: {got}, wanted {rule} {figure[limit]:g}")
    if figure.get("as_much_as") is not None:
        value, other = figure["measured"], figure["measured_other"]
        got, as_much = (
            "not measured" if x is None else f"{x:.2f}" for x in (value, other)
        )
        like = " / ".join(figure["as_much_as"])
        clauses.append(f"{slow} / {fast}: {got}, wanted as much as {like}: {as_much}")
    verdict = {True: ": holds", False: ": does not hold", None: ""}[figure["holds"]]
    return f"- {', or '.join(clauses)}{verdict}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Lay out rows, the first being the heads; all but two columns are numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rules = ["-" * w if i < 2 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    lines = []
    for row in (rows[0], rules, *rows[1:]):
        cells = [
            text.ljust(width) if i < 2 else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("json", type=Path, metavar="FILE", help="what --json wrote")
    text = parser.parse_args(argv).json.read_text(encoding="utf-8")
    print(render(json.loads(text)), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
