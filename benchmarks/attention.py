"""Time local activation alone: ids in, interest [N, D] out.

D = 64 as two fields of 32 (goods, category), hidden layers of 80 and 40 with Dice on
running statistics, no softmax; ids are Zipf. Every contestant is first compared with
torch in float64; one of ours that is off by more than 1e-6 (bf16: 5e-3), or a rival by
more than 1e-4, ends the run with status 1. Then all take turns.

contestants:
  ours            native ops; -avx2 and -baseline: forced to that instruction set;
                  -bf16: where the CPU has AMX; -functions: without native ops
  plain           torch.onnx.export of a textbook module, in ONNX Runtime
  eager, compile  the textbook module in torch, and compiled for each shape
  openvino        the plain export in OpenVINO; -static: compiled for each shape;
                  -bf16: with that precision as a hint
  fuxictr, deepctr, rechub
                  the attention those libraries ship, where installed:
                  -plain: its export in ONNX Runtime; -eager: in torch
  ceiling         computed: the valid pairs' FLOPs at the rate of a large matmul, one
                  thread, best of 20; its `times ours` is the fraction we reach

allocation: glibc is told to keep freed memory, which spares torch page faults.

columns: `times ours` compares medians per call, so whoever skips padding has the
credit; `per computed pair` takes it away; `error` is ‖output - exact‖ / ‖exact‖.

example:
  python -m benchmarks.attention --scenario uniform --only ours,plain --json out.json
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial

from benchmarks import ours
from benchmarks.command import Entries, run
from benchmarks.graphs import Scenario, cut_attention, exact_interest
from benchmarks.libraries import library_entries
from benchmarks.report import Wanted
from benchmarks.rivals import ATTENTION_INPUTS, Rivals, textbook_attention
from benchmarks.subject import Subject, model_benchmark
from benchmarks.timing import Contestant, UnavailableError, keep_freed_memory
from din_infer.session import available_cpus

__all__ = ["main"]

WANTED = (
    Wanted("uniform", "plain", "ours", 16),
    Wanted("uniform", "plain", "ours-avx2", 6),
    Wanted("uniform", "openvino", "ours", 10),
    Wanted("uniform", "ceiling", "ours", 0.6),
    Wanted("uniform", "ours", "ours-bf16", 2),
    Wanted("full", "plain", "ours", 8),
    Wanted("short", "plain", "ours", 100),
    Wanted("one-user", "plain", "ours", 6),
    Wanted("threads", "ours-1-thread", "ours-2-threads", 1.7),
)


def scenarios(n: int, t: int) -> tuple[Scenario, ...]:
    """Make the shapes of input from N and T."""
    few, one = min(5, t), min(500, n)
    return (
        Scenario("uniform", f"N={n}, T={t}, lengths in 1..{t}", n, n, t, "uniform"),
        Scenario("full", f"N={n}, all histories of T={t}", n, n, t, t),
        Scenario("short", f"N={n}, histories of {few} in T={2 * t}", n, n, 2 * t, few),
        Scenario("one-user", f"one request, {one} candidates, T={t}", one, 1, t, t),
        Scenario("threads", "as uniform, ours alone on 1 and 2", n, n, t, "uniform"),
    )


def entries(subject: Subject, scenario: Scenario) -> Entries:
    """List who takes part, ours first."""
    interest, path = cut_attention(subject.path)
    names = (*ATTENTION_INPUTS, "request_of_candidate")
    session = partial(ours.session, path=path, names=names, output=interest)
    if scenario.name == "threads":
        return {
            "ours-1-thread": partial(session, "native, 1 thread", threads=1),
            "ours-2-threads": partial(_two_threads, session),
        }
    own = partial(session, threads=subject.threads)
    rivals = Rivals(
        textbook_attention(subject.model),
        ATTENTION_INPUTS,
        subject.path.with_name("plain.onnx"),
        subject.threads,
    )
    return {
        "ours": partial(own, "native"),
        "ours-avx2": partial(own, "native, AVX2", isa="avx2"),
        "ours-baseline": partial(own, "native, baseline", isa="baseline"),
        "ours-bf16": partial(own, "native, bf16", precision="bf16"),
        "ours-functions": partial(own, "function bodies", fused=False),
        **rivals.entries(),
        **library_entries(subject.model, subject.path.parent, subject.threads),
    }


def _two_threads(session: Callable[..., Contestant]) -> Contestant:
    if available_cpus() < 2:
        message = "this process may use one CPU"
        raise UnavailableError(message)
    return session("native, 2 threads", threads=2)


BENCHMARK = model_benchmark(
    name="attention",
    about=__doc__,
    scenarios=scenarios,
    entries=entries,
    exact=exact_interest,
    wanted=WANTED,
    has_ceiling=True,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    return run(BENCHMARK, argv)


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
