"""What a benchmark prints and writes: a table per scenario, and JSON."""

import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.timing import Outcome, Race, Scenario

__all__ = ["Cpu", "Wanted", "describe_cpu", "describe_run", "show", "summarize"]

FLAGS = (
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512bw",
    "avx512_bf16",
    "amx_bf16",
    "asimd",
    "sve",
    "bf16",
)
SOME_CACHE_BYTES = 32 << 20
MS = {"ns": 1e6, "us": 1e3}
COPY = "copy"
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
class Cpu:
    """What decides the speed: model, instruction sets, cores, last-level cache."""

    model: str
    flags: tuple[str, ...]
    count: int
    cache_bytes: int


@dataclass(frozen=True)
class Wanted:
    """A figure to hold the measured one against; never more than information.

    In `scenario`, `slow` is wanted to take at least `at_least` times as long as `fast`;
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

    def judge(self, present: Mapping[str, Any], per: str) -> dict[str, Any]:
        """Compare with the rows of who took part; `per` names the time of a unit.

        `measured` is the ratio, `measured_time` the time of a unit, and so on; `holds`
        is None where what was measured does not tell.
        """
        fast, slow = present.get(self.fast), present.get(self.slow or "")
        ratio = slow["p50_ms"] / fast["p50_ms"] if fast and slow else None
        time = fast[per] if fast else None
        more = 1e3 * (fast["p50_ms"] - slow["p50_ms"]) if fast and slow else None
        tail = fast["p99_ms"] / fast["p50_ms"] if fast else None
        found = []
        if self.at_least is not None:
            found.append(None if ratio is None else ratio >= self.at_least)
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
            "holds": holds,
        }


def describe_cpu() -> Cpu:
    """Describe this machine's CPU, as far as it tells."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.exists() else []
    first: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        first.setdefault(key.strip(), value.strip())
    present = (first.get("flags") or first.get("Features") or "").split()
    caches = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    sizes = [int(c.read_text().strip().removesuffix("K")) << 10 for c in caches]
    return Cpu(
        first.get("model name") or platform.processor() or platform.machine(),
        tuple(flag for flag in FLAGS if flag in present),
        os.cpu_count() or 1,
        max(sizes, default=SOME_CACHE_BYTES),
    )


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
    per = _per(scenario).replace(" ", "_")
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


def show(race: Race, summary: Mapping[str, Any]) -> None:
    """Print one scenario as a table, which Markdown shows too, and what is wanted."""
    contestants, scenario = summary["contestants"], race.scenario
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
    padded = "" if scenario.padded is None else f" of {scenario.padded:,} with padding"
    plural = "" if race.units == 1 else "s"
    lines = [
        f"\n## {scenario.name}: {scenario.about}\n",
        f"{race.units:,.0f} {scenario.unit}{plural}{padded} a batch,"
        f" {race.pool_size} batches in rotation\n",
        _table(rows),
        *([""] if summary["wanted"] else []),
        *(_sentence(w, _per(scenario)) for w in summary["wanted"]),
    ]
    print("\n".join(lines), flush=True)


def _per(scenario: Scenario) -> str:
    """Name the time of a unit, such as "ns per key"."""
    return f"{scenario.time_unit} per {scenario.unit}"


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
        if figure[limit] is not None:
            value = figure[measured]
            got = "not measured" if value is None else f"{value:.2f}"
            clauses.append(f"{what}: {got}, wanted {rule} {figure[limit]:g}")
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


def describe_run(packages: Iterable[str]) -> dict[str, Any]:
    """Tell what a figure must travel with: commit, date, machine, versions."""
    versions = {"python": platform.python_version()}
    for name in ("din-infer", "numpy", *packages):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "commit": _commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": asdict(describe_cpu()),
        "versions": versions,
    }


def _commit() -> str:
    """Name the commit, with "-dirty" when files differ from it."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        found = subprocess.run(
            [*git, "--abbrev=40", "--exclude=*"],
            capture_output=True,
            check=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()
