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

from benchmarks.timing import Outcome, Race

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
PACKAGES = ("din-infer", "numpy", "torch", "onnx", "onnxruntime", "openvino")
SOME_CACHE_BYTES = 32 << 20
COLUMNS = {
    "p50_ms": ("median ms", ".3f"),
    "p99_ms": ("p99 ms", ".3f"),
    "times_ours": ("times ours", ".2f"),
    "times_ours_per_computed_pair": ("per computed pair", ".2f"),
    "ns_per_valid_pair": ("ns per valid pair", ".1f"),
    "error": ("error", ".1e"),
}
HEADS = ("contestant", "what", *(head for head, _ in COLUMNS.values()))


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

    In `scenario`, `slow` is wanted to take at least `at_least` times as long as `fast`.
    """

    scenario: str
    slow: str
    fast: str
    at_least: float


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
    `times_ours_per_computed_pair` takes that credit away. `ceiling` is a row that is
    computed, not run.
    """
    ours = race.ours()
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
            "error": outcome.error,
            "computed_pairs": race.computed_pairs(key),
        }
    if ceiling is not None:
        contestants["ceiling"] = {**ceiling, "computed_pairs": race.valid_pairs}
    present = {k: c for k, c in contestants.items() if "p50_ms" in c}
    for c in present.values():
        c["ns_per_valid_pair"] = 1e6 * c["p50_ms"] / race.valid_pairs
        if ours is not None:
            own = contestants[ours]
            c["times_ours"] = times = c["p50_ms"] / own["p50_ms"]
            pairs = own["computed_pairs"] / c["computed_pairs"]
            c["times_ours_per_computed_pair"] = times * pairs
    figures = []
    for w in wanted:
        if w.scenario == race.scenario.name:
            both = w.slow in present and w.fast in present
            measured = (
                present[w.slow]["p50_ms"] / present[w.fast]["p50_ms"] if both else None
            )
            figures.append({**asdict(w), "measured": measured})
    return {
        **asdict(race.scenario),
        "padded_pairs": race.scenario.padded_pairs,
        "valid_pairs": race.valid_pairs,
        "batches": race.pool_size,
        "compared_with": ours,
        "contestants": contestants,
        "wanted": figures,
    }


def show(summary: Mapping[str, Any]) -> None:
    """Print one scenario as a table, which Markdown shows too, and what is wanted."""
    rows = [HEADS]
    for key, c in summary["contestants"].items():
        if "absent" in c:
            rows.append((key, c["absent"], *[""] * len(COLUMNS)))
            continue
        cells = (f"{c[n]:{f}}" if n in c else "" for n, (_, f) in COLUMNS.items())
        rows.append((key, c["what"], *cells))
    lines = [
        f"\n## {summary['name']}: {summary['about']}\n",
        f"{summary['valid_pairs']:,.0f} valid of {summary['padded_pairs']:,} padded"
        f" pairs a batch, {summary['batches']} batches in rotation\n",
        _table(rows),
        *([""] if summary["wanted"] else []),
    ]
    for w in summary["wanted"]:
        measured = w["measured"]
        got = "not measured" if measured is None else f"{measured:.2f}"
        ratio = f"{w['slow']} / {w['fast']}"
        lines.append(f"- {ratio}: {got}, wanted at least {w['at_least']:g}")
    print("\n".join(lines), flush=True)


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


def describe_run() -> dict[str, Any]:
    """Tell what a figure must travel with: commit, date, machine, versions."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
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
