"""Graphs of one operator each through ONNX Runtime, on every instruction set.

Three in four are as they should be, of random modes, widths, shapes and ids, and must
equal the slow twins of tests/reference_ops.py; the others are changed as mutants.py
does, and must be refused, or run. They run in child processes: what ends one is a
finding. Takes libFuzzer's options -runs, -seed and -max_total_time.
"""

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "converter"), str(ROOT / "fuzz")]

import mutants  # noqa: E402
import numpy as np  # noqa: E402
import onnx  # noqa: E402

from tests import ops, reference_ops  # noqa: E402

LONGEST = 60  # seconds of one case
CHILD_CASES = 2_000  # then a new child: sessions leave memory behind
TOLERANCE = 2e-5
ISAS = ops.machine_isas()
Arrays = dict[str, Any]
Case = tuple[ops.Graph, Arrays, list[Any]]


def widths(rng: mutants.Rng, most: int) -> tuple[int, ...]:
    """Draw up to so many widths."""
    return tuple(int(rng.integers(1, 12)) for _ in range(rng.integers(1, most + 1)))


def spoil(rng: mutants.Rng, feeds: Arrays) -> bool:
    """Now and then put an id, a length or a request out of its range."""
    names = [k for k, v in feeds.items() if v.dtype == np.int64 and v.size]
    if rng.integers(8) or not names:
        return False
    name = mutants.pick(rng, names)
    feeds[name] = feeds[name].copy()
    feeds[name].flat[rng.integers(feeds[name].size)] = mutants.pick(
        rng, [-1, 10**6, 2**63 - 1, -(2**63)]
    )
    return True


def attention(rng: mutants.Rng) -> Case:
    """Draw a LocalActivation, its inputs and its outputs."""
    dims = widths(rng, 3)
    behavior: dict[str, Any] = {"padding": mutants.pick(rng, ["masked", "attended"])}
    modes: dict[str, Any] = {
        "hidden": list(widths(rng, 3)) if rng.integers(4) else [],
        "activation": mutants.pick(rng, ops.ACTIVATIONS),
        "output_activation": mutants.pick(rng, ["none", "relu", "sigmoid", "silu"]),
        "softmax": bool(rng.integers(2)),
        "scale": float(mutants.pick(rng, [1.0, 0.3, -2.0])),
        "interactions": mutants.pick(
            rng, [[], ["product"], ["outer"], ["difference", "product", "outer"]]
        ),
    }
    graph = ops.attention_graph(
        dims=dims,
        paired=tuple(bool(rng.integers(4)) for _ in dims),
        half=tuple(bool(rng.integers(2)) for _ in dims),
        explain=bool(rng.integers(2)),
        behavior=behavior,
        seed=int(rng.integers(2**31)),
        **modes,
    )
    n, b = int(mutants.pick(rng, [0, 1, 3, 70])), int(mutants.pick(rng, [1, 2, 9]))
    t = int(mutants.pick(rng, [0, 1, 5, 64, 300])) if n < 9 else 3
    feeds = ops.attention_feeds(graph, n, b, t, seed=int(rng.integers(2**31)))
    if behavior["padding"] == "masked" and not rng.integers(3):
        graph = ops.with_mask(ops.attention_graph(dims=dims, explain=False, **modes))
        feeds = ops.attention_feeds(graph, n, b, t, seed=int(rng.integers(2**31)))
        feeds.pop("lengths")
        feeds["mask"] = rng.integers(0, 2, (b, t)).astype(np.float32)
    wanted = reference_ops.local_activation(
        graph.attributes, {**graph.constants, **feeds}
    )
    return graph, feeds, list(wanted[: len(graph.outputs)])


def bag(rng: mutants.Rng) -> Case:
    """Draw an EmbeddingBag."""
    graph = ops.bag_graph(
        mutants.pick(rng, ["sum", "mean", "max"]),
        mutants.pick(rng, ["masked", "attended"]),
        float(mutants.pick(rng, [0.0, -1.5])),
        dim=int(rng.integers(1, 40)),
        half=bool(rng.integers(2)),
    )
    count, t = int(mutants.pick(rng, [0, 1, 7, 600])), int(rng.integers(0, 6))
    feeds = {
        "ids": rng.integers(0, 30, (count, t)),
        "lengths": rng.integers(0, t + 1, count),
    }
    table = graph.constants["table"]
    wanted = reference_ops.embedding_bag(
        graph.attributes, feeds["ids"], feeds["lengths"], table
    )
    return graph, feeds, [wanted]


def tower(rng: mutants.Rng) -> Case:
    """Draw a Tower."""
    blocks = widths(rng, 3)
    graph = ops.tower_graph(
        blocks,
        seed=int(rng.integers(2**31)),
        hidden=list(widths(rng, 3)) if rng.integers(4) else [],
        activation=mutants.pick(rng, ops.ACTIVATIONS),
    )
    rows = int(mutants.pick(rng, [0, 1, 63, 65]))
    feeds = ops.tower_feeds(blocks, rows, seed=int(rng.integers(2**31)))
    wanted = reference_ops.tower(graph.attributes, {**graph.constants, **feeds})
    return graph, feeds, [wanted]


def guard(rng: mutants.Rng) -> Case:
    """Draw a Guard."""
    users = tuple(int(rng.integers(1, 9)) for _ in range(rng.integers(3)))
    items = tuple(int(rng.integers(1, 9)) for _ in range(rng.integers(3)))
    graph = ops.guard_graph(users, items)
    n = int(mutants.pick(rng, [1, 4, 90]))
    feeds = ops.guard_feeds(
        graph, n, int(rng.integers(1, n + 1)), int(rng.integers(99))
    )
    return graph, feeds, [np.zeros(n)]


MAKERS = [attention, attention, bag, tower, guard]


def run_case(seed: int, number: int) -> str:
    """Say what became of one graph; raises AssertionError at a wrong result."""
    rng = np.random.default_rng((seed, number))
    graph, feeds, wanted = mutants.pick(rng, MAKERS)(rng)
    os.environ["DIN_INFER_ISA"] = ISAS[number % len(ISAS)]
    model = graph.model(feeds)
    if rng.integers(4):
        is_bad = spoil(rng, feeds)
        try:
            made = ops.session(model).run(None, feeds)
        except Exception as error:
            sentence = str(error)
            if is_bad and "expected" in sentence and " - at `" in sentence:
                return "refused"
            raise AssertionError(f"{graph.name}: {sentence}") from None
        if is_bad:  # of a request without candidates, or behind a length
            return "not read"
        for got, exact in zip(made, wanted, strict=True):
            bound = TOLERANCE * max(1.0, float(np.abs(exact).max(initial=0.0)))
            apart = float(np.abs(got - exact).max(initial=0.0))
            if got.shape != exact.shape or not apart <= bound:
                raise AssertionError(f"{graph.name}: {apart} from its twin")
        return "equal"
    changes = mutants.ATTRIBUTES * 3 + mutants.STRUCTURE
    mutant = mutants.mutate(rng, onnx.load_from_string(model), changes)
    try:
        ops.session(bytes(mutant.SerializeToString())).run(None, feeds)
    except UnicodeDecodeError:  # of the runtime's own sentences about names
        return "changed, refused"
    except Exception:
        return "changed, refused"
    return "changed, run"


def work(seed: int, first: int, stop: int, out: int) -> None:
    """Run cases in a child process, and say what each became."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    for number in range(first, stop):
        os.write(out, f"{number} ".encode())
        signal.alarm(LONGEST)
        try:
            said = run_case(seed, number)
        except AssertionError as error:
            said = f"wrong: {error}"
        except BaseException as error:
            said = f"wrong: {type(error).__name__}: {error}"
        os.write(out, (" ".join(said.split()) + "\n").encode())
    os._exit(0)


def run_child(seed: int, first: int, stop: int) -> tuple[list[str], str]:
    """Return the lines of a child, and what ended it early."""
    source, out = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(source)
        with contextlib.suppress(BaseException):
            work(seed, first, stop, out)
        os._exit(1)
    os.close(out)
    with os.fdopen(source, "rb") as pipe:
        lines = pipe.read().decode(errors="replace").split("\n")
    _, status = os.waitpid(child, 0)
    last = lines.pop()
    died = f"{last}: status {status}" if status or last else ""
    return lines, died


def main() -> int:
    """Return the exit status: 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, default in {"runs": -1, "seed": 0, "max_total_time": 0}.items():
        parser.add_argument(f"-{name}", type=int, default=default)
    args, _ = parser.parse_known_args()
    seed = args.seed or int(time.time())
    began, number, tally = time.monotonic(), 0, Counter[str]()
    findings: list[str] = []
    while (args.runs < 0 or number < args.runs) and (
        not args.max_total_time or time.monotonic() - began < args.max_total_time
    ):
        stop = number + (200 if args.max_total_time else CHILD_CASES)
        if args.runs >= 0:
            stop = min(stop, args.runs)
        lines, died = run_child(seed, number, stop)
        for line in lines:
            what = line.partition(" ")[2]
            tally[what.partition(":")[0]] += 1
            findings += [f"seed {seed} case {line}"] if what.startswith("wrong") else []
        number += len(lines)
        if died:
            findings.append(f"seed {seed} case {died}")
            number += 1
    print(json.dumps(tally, indent=1))
    for finding in findings:
        print(f"finding: {finding}")
    print(f"stat::number_of_executed_units: {number}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
