"""Time the whole DIN: ids in, scores [N] out.

user_id (100,000 rows), goods_id (1,000,000), cate_id (1,000), a history of goods and
categories, 32 wide each; attention 80-40 and tower 200-80 with Dice on running
statistics; ids are Zipf. Ours is what `convert` writes and proves. Every contestant is
first compared with torch in float64; one of ours that is off by more than 1e-6, or a
rival by more than 1e-4, ends the run with status 1. Then all take turns.

contestants:
  ours            native ops through Predictor.score_encoded, which checks every id;
                  -session: the bare session; -functions: it, without native ops;
                  -module: what convert makes of the textbook module below
  plain           torch.onnx.export of a textbook module, in ONNX Runtime
  eager, compile  the textbook module in torch, and compiled for each shape
  openvino        the plain export in OpenVINO; -static: compiled for each shape;
                  -bf16: with that precision as a hint

allocation: glibc is told to keep freed memory, which spares torch page faults.

columns: `times ours` compares medians per call, so whoever skips padding has the
credit; `per computed pair` takes it away; `error` is ‖output - exact‖ / ‖exact‖.

example:
  python -m benchmarks.model --scenario uniform single --only ours,plain --json out.json
"""

import sys
from collections.abc import Sequence
from functools import partial

from benchmarks import ours
from benchmarks.command import Entries, run
from benchmarks.graphs import Scenario, exact_score
from benchmarks.report import Wanted
from benchmarks.rivals import MODEL_INPUTS, Rivals, textbook_din
from benchmarks.subject import Subject, model_benchmark
from benchmarks.timing import keep_freed_memory

__all__ = ["main"]

WANTED = (
    Wanted("uniform", "plain", "ours", 14),
    Wanted("uniform", "eager", "ours", 16),
    Wanted("uniform", "compile", "ours", 10),
)


def scenarios(n: int, t: int) -> tuple[Scenario, ...]:
    """Make the shapes of input from N and T."""
    one = min(500, n)
    return (
        Scenario("uniform", f"N={n}, T={t}, lengths in 1..{t}", n, n, t, "uniform"),
        Scenario("one-user", f"one request, {one} candidates, T={t}", one, 1, t, t),
        Scenario("single", f"one request, one candidate, T={t}: latency", 1, 1, t, t),
    )


def entries(
    subject: Subject,
    scenario: Scenario,  # noqa: ARG001
) -> Entries:
    """List who takes part, ours first."""
    session = partial(
        ours.session,
        path=subject.path,
        names=(*MODEL_INPUTS, "request_of_candidate"),
        output="score",
        threads=subject.threads,
    )
    rivals = Rivals(
        textbook_din(subject.model),
        MODEL_INPUTS,
        subject.path.with_name("plain.onnx"),
        subject.threads,
    )
    return {
        "ours": partial(ours.predictor, "native", subject.path, subject.threads),
        "ours-session": partial(session, "native, bare session"),
        "ours-functions": partial(session, "function bodies", fused=False),
        "ours-module": partial(
            ours.module,
            "textbook module, fused",
            rivals.module,
            rivals.example,
            rivals.arrays,
            subject.path.with_name("module.onnx"),
            subject.threads,
        ),
        **rivals.entries(),
    }


BENCHMARK = model_benchmark(
    name="model",
    about=__doc__,
    scenarios=scenarios,
    entries=entries,
    exact=exact_score,
    wanted=WANTED,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    return run(BENCHMARK, argv)


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
