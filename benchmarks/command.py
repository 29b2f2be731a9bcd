"""The command that each benchmark is: arguments, model, scenarios, output."""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.graphs import (
    Inputs,
    Scenario,
    Sizes,
    exact_model,
    make_model,
    make_pool,
)
from benchmarks.report import Wanted, describe_cpu, describe_run, show, summarize
from benchmarks.timing import (
    Absent,
    Contestant,
    WrongOutputError,
    build,
    is_named,
    matmul_rate,
    race,
)
from din_converter import DIN, convert

__all__ = ["Benchmark", "Entries", "Subject", "run"]

CANDIDATES, POSITIONS = 1024, 50
POOL_CACHES = 2
Entries = Mapping[str, Callable[[], Contestant]]


@dataclass(frozen=True)
class Subject:
    """What contestants are made from: one model, in torch and as ``model.onnx``."""

    model: DIN
    path: Path
    threads: int


@dataclass(frozen=True)
class Benchmark:
    """What sets one benchmark apart from the other.

    `scenarios` makes them from N and T. `entries` lists who takes part in one, ours
    first. `exact` is what all of them compute. With `has_ceiling`, the valid pairs'
    FLOPs at the rate of a large matrix product are a row.
    """

    name: str
    about: str
    scenarios: Callable[[int, int], Sequence[Scenario]]
    entries: Callable[[Subject, Scenario], Entries]
    exact: Callable[[DIN, Inputs], NDArray[np.float64]]
    wanted: Sequence[Wanted]
    has_ceiling: bool = False


def parse(benchmark: Benchmark, argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    sizes = Sizes()
    scenarios = benchmark.scenarios(CANDIDATES, POSITIONS)
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{benchmark.name}",
        description=benchmark.about,
        epilog="\n".join(
            ["scenarios:", *(f"  {s.name:9} {s.about}" for s in scenarios)]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--scenario",
        nargs="+",
        choices=[*(s.name for s in scenarios), "all"],
        default=["all"],
        metavar="NAME",
        help="shapes of input, listed below (default: all)",
    )
    add(
        "--only",
        type=lambda text: text.split(","),
        default=[],
        metavar="KEY,..",
        help="contestants by key, or by its part before a '-' (default: everyone)",
    )
    add(
        "--seconds",
        type=float,
        default=3.0,
        help="measuring time of a contestant in a scenario (default: %(default)s)",
    )
    for flag, default, text in (
        ("--threads", 1, "threads of every contestant"),
        ("--n", CANDIDATES, "candidates of a batch"),
        ("--t", POSITIONS, "positions of a history"),
        ("--rows", sizes.goods, "rows of the goods table"),
        ("--cate-rows", sizes.cates, "rows of the category table"),
        ("--user-rows", sizes.users, "rows of the user table"),
        ("--dim", sizes.dim, "width of an embedding; D is twice that"),
        ("--matmul", 2048, "edge of the square matrices behind the row `ceiling`"),
    ):
        if flag != "--matmul" or benchmark.has_ceiling:
            about = f"{text} (default: {default:,})"
            add(flag, type=_positive, default=default, metavar="COUNT", help=about)
    add("--seed", type=int, default=0, help="of weights and ids (default: 0)")
    add("--json", type=Path, metavar="FILE", help="write all results there as JSON")
    return parser.parse_args(argv)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        message = f"expected at least 1, got {value}"
        raise argparse.ArgumentTypeError(message)
    return value


def run(benchmark: Benchmark, argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns
    -------
    int
        The exit status: 1 when a contestant computes something else than float64 torch;
        then its scenario is not timed, and no JSON is written.
    """
    args = parse(benchmark, argv)
    torch.set_num_threads(args.threads)
    about = describe_run()
    machine = about["cpu"]
    print(
        f"# benchmarks.{benchmark.name}\n\n{about['date']}, commit {about['commit']}\n"
        f"{machine['model']}, {' '.join(machine['flags'])}, threads: {args.threads}\n"
        + ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    )
    try:
        summaries = list(_race_all(benchmark, args))
    except WrongOutputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if args.json:
        options = {k: v for k, v in vars(args).items() if k != "json"}
        document = {
            "benchmark": benchmark.name,
            **about,
            **options,
            "scenarios": {s["name"]: s for s in summaries},
        }
        args.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


def _entries(
    benchmark: Benchmark, subject: Subject, scenarios: list[Scenario], only: list[str]
) -> list[tuple[Scenario, Entries]]:
    """List who takes part in what; a scenario with nobody in it is left out."""
    all_of = [(s, benchmark.entries(subject, s)) for s in scenarios]
    keys = dict.fromkeys(key for _, entries in all_of for key in entries)
    for name in only:
        if not any(is_named(key, name) for key in keys):
            rule = f"expected some of {', '.join(keys)}"
            sys.exit(f"{rule}, got {name!r} - at `--only`")
    out: list[tuple[Scenario, Entries]] = []
    for s, entries in all_of:
        some = {
            key: make
            for key, make in entries.items()
            if not only or any(is_named(key, name) for name in only)
        }
        if some:
            out.append((s, some))
    return out


def _race_all(
    benchmark: Benchmark, args: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Run, print and yield one scenario after the other."""
    sizes = Sizes(args.user_rows, args.rows, args.cate_rows, args.dim)
    scenarios = benchmark.scenarios(args.n, args.t)
    positions = max(s.positions for s in scenarios)
    model = make_model(sizes, positions, args.seed)
    exact = exact_model(model)
    rate = matmul_rate(args.matmul) if benchmark.has_ceiling else 0.0
    pool_bytes = POOL_CACHES * describe_cpu().cache_bytes
    with tempfile.TemporaryDirectory(prefix="din-benchmark-") as folder:
        subject = Subject(model, Path(folder) / "model.onnx", args.threads)
        convert(model, subject.path)
        built: dict[str, Contestant | Absent] = {}
        chosen = [s for s in scenarios if {s.name, "all"} & set(args.scenario)]
        for s, entries in _entries(benchmark, subject, chosen, args.only):
            built |= build({key: entries[key] for key in entries if key not in built})
            result = race(
                s,
                {key: built[key] for key in entries},
                make_pool(model.spec, s, pool_bytes, args.seed),
                partial(benchmark.exact, exact),
                args.seconds,
            )
            ceiling = None
            if benchmark.has_ceiling:
                seconds = result.valid_pairs * sizes.flops_per_pair / rate
                ceiling = {
                    "what": f"valid pairs at {rate / 1e9:.1f} GFLOP/s, one thread",
                    "p50_ms": 1e3 * seconds,
                }
            summary = summarize(result, benchmark.wanted, ceiling)
            show(summary)
            yield summary
