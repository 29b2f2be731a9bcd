"""The command that each benchmark is: arguments, scenarios, output."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_cpu, describe_run
from benchmarks.report import (
    Wanted,
    head,
    overview,
    section,
    summarize,
)
from benchmarks.timing import (
    Contestant,
    Race,
    Scenario,
    WrongOutputError,
    build,
    is_named,
    race,
)
from din_infer.whole_file import write_whole

__all__ = ["Benchmark", "Entries", "Setting", "run"]

POOL_CACHES = 2
Entries = Mapping[str, Callable[[], Contestant]]


@dataclass(frozen=True)
class Setting:
    """What a benchmark makes once its arguments are known.

    `entries` lists who takes part in a scenario, ours first. `pool` draws as many
    batches of it as fill a number of bytes; `exact` makes the reference of a batch,
    `count` counts its units. `ceiling` makes the row that is computed, if any.
    """

    entries: Callable[[Any], Entries]
    pool: Callable[[Any, int], Sequence[Any]]
    exact: Callable[[Any], Any]
    count: Callable[[Any], int]
    wanted: Sequence[Wanted]
    ceiling: Callable[[Race], Mapping[str, Any] | None] = lambda _: None


@dataclass(frozen=True)
class Benchmark:
    """What sets one benchmark apart from the others.

    `packages` are those whose version matters, `isa` tells which instruction set ours
    uses where all of ours use one. `options` are its own: flag, default and
    what it counts. `scenarios` and `open` make of the arguments what is run.
    """

    name: str
    about: str
    packages: Sequence[str]
    options: Sequence[tuple[str, int, str]]
    scenarios: Callable[[argparse.Namespace], Sequence[Scenario]]
    open: Callable[[argparse.Namespace], AbstractContextManager[Setting]]
    isa: Callable[[], str | None] = lambda: None


def parse(benchmark: Benchmark, argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    options = (("--threads", 1, "threads of every contestant"), *benchmark.options)
    defaults = {flag[2:].replace("-", "_"): default for flag, default, _ in options}
    scenarios = benchmark.scenarios(argparse.Namespace(**defaults))
    width = 1 + max(len(s.name) for s in scenarios)
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{benchmark.name}",
        description=benchmark.about,
        epilog="\n".join(
            ["scenarios:", *(f"  {s.name:{width}} {s.about}" for s in scenarios)]
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
    for flag, default, text in options:
        about = f"{text} (default: {default:,})"
        add(flag, type=_positive, default=default, metavar="COUNT", help=about)
    add("--seed", type=int, default=0, help="of all that is random (default: 0)")
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
        The exit status: 1 when a contestant computes something else than the reference;
        then its scenario is not timed, and no JSON is written.
    """
    args = parse(benchmark, argv)
    options = {k: v for k, v in vars(args).items() if k != "json"}
    document = {
        "benchmark": benchmark.name,
        **describe_run(benchmark.packages),
        "isa": benchmark.isa(),
        **options,
    }
    print(head(document), flush=True)
    try:
        summaries = list(_race_all(benchmark, args))
    except WrongOutputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for text in overview(summaries):
        print(text, flush=True)
    if args.json:
        document["scenarios"] = {s["name"]: s for s in summaries}
        write_whole(args.json, json.dumps(document, indent=1) + "\n")
    return 0


def _choose(
    all_of: Sequence[tuple[Scenario, Entries]], only: Sequence[str]
) -> list[tuple[Scenario, Entries]]:
    """Choose who takes part in what; a scenario with nobody in it is left out."""
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
    pool_bytes = POOL_CACHES * describe_cpu().cache_bytes
    named = set(args.scenario)
    scenarios = [s for s in benchmark.scenarios(args) if {s.name, "all"} & named]
    with benchmark.open(args) as setting:
        all_of = [(s, setting.entries(s)) for s in scenarios]
        for s, entries in _choose(all_of, args.only):
            result = race(
                s,
                build(entries),
                setting.pool(s, pool_bytes),
                setting.exact,
                setting.count,
                args.seconds,
            )
            summary = summarize(result, setting.wanted, setting.ceiling(result))
            print(section(summary), flush=True)
            yield summary
