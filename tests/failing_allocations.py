"""Run with tests/host/failing.c preloaded: every allocation of a call fails once.

`python -m tests.failing_allocations LIBRARY CASE` prints a JSON object: how many
allocations a call makes, what was raised where one of them failed, and what then was
wrong: results of the next call, blocks and Arrow buffers that nothing frees.
"""

import ctypes
import gc
import json
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from din_infer import DinError, FeatureSpec, _kernels, hash_buckets, pad
from tests import c_abi, ops
from tests.models import SPECS, random_rows
from tests.raw import HARD, encode_graph, feeds, hard_table

MOST = 5000  # allocations of a call


class Shim:
    """The preloaded library."""

    def __init__(self, path: str) -> None:
        self.lib = ctypes.CDLL(path)
        self.lib.din_watch.argtypes = [ctypes.c_void_p]
        self.lib.din_fail_at.argtypes = [ctypes.c_long]
        self.lib.din_asked.restype = self.lib.din_live.restype = ctypes.c_long

    def watch(self, library: str, symbol: str) -> None:
        found = ctypes.CDLL(library)[symbol]
        self.lib.din_watch(ctypes.cast(found, ctypes.c_void_p))

    def failures(
        self,
        call: Callable[[], Any],
        expected: Callable[[BaseException], bool],
    ) -> dict[str, Any]:
        """Let the first allocation of `call` fail, then the second, to the last."""
        wanted = call()
        call()
        gc.collect()
        live = self.lib.din_live() + pa.total_allocated_bytes()
        raised: dict[str, int] = {}
        wrong = []
        for n in range(1, MOST):
            self.lib.din_fail_at(n)
            error = None
            got = None
            try:
                got = call()
            except BaseException as found:  # what it may be is asked below
                error = found
            reached = self.lib.din_asked() >= n
            self.lib.din_fail_at(-1)
            if error is None:
                if not same_arrays(got, wanted):
                    wrong.append(f"{n}: another result")
            else:
                name = type(error).__name__
                raised[name] = raised.get(name, 0) + 1
                if not expected(error):
                    wrong.append(f"{n}: {name}: {error}")
            del error, got
            if not same_arrays(call(), wanted):
                wrong.append(f"{n}: another result afterwards")
            if not reached:
                break
        gc.collect()
        left = self.lib.din_live() + pa.total_allocated_bytes() - live
        return {"allocations": n - 1, "raised": raised, "wrong": wrong, "left": left}


def same_arrays(a: Any, b: Any) -> bool:  # noqa: ANN401
    if hasattr(a, "keys"):
        return a.keys() == b.keys() and all(same_arrays(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same_arrays, a, b))
    return np.array_equal(a, b)


def small_table() -> tuple[FeatureSpec, list[dict[str, Any]]]:
    spec = FeatureSpec.from_dict(SPECS["paper"])
    rows = random_rows(spec, 7)
    for row in rows:
        del row["extra"]
    return spec, rows


def encode(shim: Shim) -> dict[str, Any]:
    """The extension: lists, arrays and Arrow's columns, bad rows, large results."""
    spec, rows = small_table()
    bad = [dict(row) for row in rows]
    bad[3]["cate_id"] = "not a number"
    many = np.arange(1 << 17)  # whose ids are 1 MiB

    def refused() -> str:
        try:
            spec.encode(bad)
        except DinError as error:
            return str(error)
        return "nothing"

    calls: list[Callable[[], Any]] = [
        lambda: spec.encode(rows),
        lambda: spec.encode(pa.Table.from_pylist(rows)),  # that nothing else keeps
        refused,
        lambda: hash_buckets(many, 99),
        lambda: hash_buckets([str(i) for i in range(99)], 99),
        lambda: hash_buckets(np.array(["a", "é"]), 99),
        lambda: pad(np.arange(4), [0, 1, 4], 2),
    ]
    for call in calls:
        call()
    shim.watch(_kernels.__file__, "PyInit__kernels")
    shim.lib.din_watch_python()
    return merged(
        [shim.failures(call, lambda e: isinstance(e, MemoryError)) for call in calls]
    )


def operators(shim: Shim) -> dict[str, Any]:
    """A session of each operator made, run and closed."""
    attention = ops.attention_graph(dims=(4, 3), hidden=[5, 3], explain=False)
    masked = ops.with_mask(attention)
    fed = ops.attention_feeds(attention, 40, 5, 30)
    mask = np.zeros((5, 30), np.float32)
    mask[:, ::2] = 1
    of_mask = {k: v for k, v in fed.items() if k != "lengths"} | {"mask": mask}
    bag, guard, tower = ops.bag_graph(), ops.guard_graph(), ops.tower_graph((5, 3))
    ids = {"ids": np.ones((3, 4), np.int64), "lengths": np.arange(3)}
    owners = ops.guard_feeds(guard, 9, 4)
    blocks = ops.tower_feeds((5, 3), 99)
    spec = FeatureSpec.from_dict(next(iter(HARD.values())))
    models = [
        (attention.model(fed), fed),
        (masked.model(of_mask), of_mask),
        (bag.model(ids), ids),
        (guard.model(owners), owners),
        (tower.model(blocks), blocks),
        (encode_graph(spec), feeds(spec, hard_table(9))),
    ]
    ops.session(*models[0][:1])
    shim.watch(str(ops.library()), "RegisterCustomOps")
    found = [
        shim.failures(
            lambda model=model, given=given: ops.session(model).run(None, given),
            lambda e: "expected" in str(e) and "memory" in str(e),
        )
        for model, given in models
    ]
    return merged(found)


def merged(found: list[Any]) -> dict[str, Any]:
    """Join the results of several calls."""
    raised: Counter[str] = Counter()
    for one in found:
        raised.update(one["raised"])
    return {
        "allocations": sum(one["allocations"] for one in found),
        "raised": dict(raised),
        "wrong": [text for one in found for text in one["wrong"]],
        "left": sum(one["left"] for one in found),
    }


def c_interface(shim: Shim) -> dict[str, Any]:
    """A spec opened, a table encoded and both closed, without Python."""
    spec, rows = small_table()
    table = pa.Table.from_pylist(rows)

    def call() -> Any:  # noqa: ANN401
        with c_abi.Spec(spec.to_json()) as opened:
            return opened.encode(table)

    call()
    shim.watch(str(ops.library()), "din_encode_open")
    return shim.failures(
        call, lambda e: isinstance(e, c_abi.Refused) and "memory" in str(e)
    )


CASES = {"encode": encode, "operators": operators, "c_interface": c_interface}

if __name__ == "__main__":
    json.dump(CASES[sys.argv[2]](Shim(sys.argv[1])), sys.stdout)
