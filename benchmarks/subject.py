"""What the benchmarks of the model have in common: a DIN, its file, batches of ids."""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.command import Benchmark, Entries, Setting
from benchmarks.graphs import (
    Inputs,
    Scenario,
    Sizes,
    count_valid_pairs,
    exact_model,
    make_model,
    make_pool,
)
from benchmarks.report import Wanted
from benchmarks.timing import Contestant, Race
from din_converter import DIN, convert

__all__ = ["Subject", "model_benchmark"]

PACKAGES = ("torch", "onnx", "onnxruntime", "openvino")
SIZES = Sizes()
OPTIONS = (
    ("--n", 1024, "candidates of a batch"),
    ("--t", 50, "positions of a history"),
    ("--rows", SIZES.goods, "rows of the goods table"),
    ("--cate-rows", SIZES.cates, "rows of the category table"),
    ("--user-rows", SIZES.users, "rows of the user table"),
    ("--dim", SIZES.dim, "width of an embedding; D is twice that"),
)
MATMUL = ("--matmul", 2048, "edge of the square matrices behind the row `ceiling`")


@dataclass(frozen=True)
class Subject:
    """What contestants are made from: one model, in torch and as ``model.onnx``."""

    model: DIN
    path: Path
    threads: int


def model_benchmark(
    name: str,
    about: str,
    scenarios: Callable[[int, int], Sequence[Scenario]],
    entries: Callable[[Subject, Scenario], Entries],
    exact: Callable[[DIN, Inputs], NDArray[np.float64]],
    wanted: Sequence[Wanted],
    *,
    has_ceiling: bool = False,
) -> Benchmark:
    """Make a benchmark of one DIN.

    `scenarios` makes them from N and T. `entries` lists who takes part in one, ours
    first. `exact` is what all of them compute. With `has_ceiling`, the valid pairs'
    FLOPs at the rate of a large matrix product are a row.
    """

    @contextmanager
    def open_setting(args: argparse.Namespace) -> Iterator[Setting]:
        torch.set_num_threads(args.threads)
        sizes = Sizes(args.user_rows, args.rows, args.cate_rows, args.dim)
        positions = max(s.positions for s in scenarios(args.n, args.t))
        model = make_model(sizes, positions, args.seed)
        rate = matmul_rate(args.matmul) if has_ceiling else 0.0
        made: dict[str, Callable[[], Contestant]] = {}

        def ceiling(race: Race) -> Mapping[str, Any] | None:
            seconds = race.units * sizes.flops_per_pair / rate
            what = f"valid pairs at {rate / 1e9:.1f} GFLOP/s, one thread"
            return {"what": what, "p50_ms": 1e3 * seconds}

        with tempfile.TemporaryDirectory(prefix="din-benchmark-") as folder:
            subject = Subject(model, Path(folder) / "model.onnx", args.threads)
            convert(model, subject.path)

            def make_once(scenario: Scenario) -> Entries:
                some = entries(subject, scenario)
                return {k: made.setdefault(k, cache(make)) for k, make in some.items()}

            def pool(scenario: Scenario, size: int) -> list[Inputs]:
                return make_pool(model.spec, scenario, size, args.seed)

            yield Setting(
                entries=make_once,
                pool=pool,
                exact=partial(exact, exact_model(model)),
                count=count_valid_pairs,
                wanted=wanted,
                ceiling=ceiling if has_ceiling else lambda _: None,
            )

    return Benchmark(
        name=name,
        about=about,
        packages=PACKAGES,
        options=(*OPTIONS, MATMUL) if has_ceiling else OPTIONS,
        scenarios=lambda args: scenarios(args.n, args.t),
        open=open_setting,
    )


def matmul_rate(size: int) -> float:
    """Multiply square float32 matrices on one thread: FLOP/s of the best of 20 runs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    a, b, out = (torch.rand(size, size) for _ in range(3))
    best = float("inf")
    for _ in range(20):
        before = time.perf_counter()
        torch.mm(a, b, out=out)
        best = min(best, time.perf_counter() - before)
    torch.set_num_threads(threads)
    return float(2 * size**3 / best)
