"""Run with tests/host/failing.c preloaded: every allocation of a call fails once.

`python -m tests.failing_allocations LIBRARY CASE` prints a JSON object: how many
allocations a call makes, what was raised where one of them failed, and what then was
wrong: results of the next call, blocks that nothing frees.
"""

import ctypes
import gc
import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

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
        same: Callable[[Any, Any], bool],
    ) -> dict[str, Any]:
        """Let the first allocation of `call` fail, then the second, to the last."""
        wanted = call()
        call()
        gc.collect()
        live = self.lib.din_live()
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
                if not same(got, wanted):
                    wrong.append(f"{n}: another result")
            else:
                name = type(error).__name__
                raised[name] = raised.get(name, 0) + 1
                if not expected(error):
                    wrong.append(f"{n}: {name}: {error}")
            del error, got
            if not same(call(), wanted):
                wrong.append(f"{n}: another result afterwards")
            if not reached:
                break
        gc.collect()
        left = self.lib.din_live() - live
        return {"allocations": n - 1, "raised": raised, "wrong": wrong, "left": left}


def same_arrays(a: Any, b: Any) -> bool:  # noqa: ANN401
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_arrays(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same_arrays, a, b))
    return np.array_equal(a, b)


def encode(shim: Shim) -> dict[str, Any]:
    """The extension: a table of every kind of column, and one whose rows are bad."""
    from din_infer import DinError, FeatureSpec, _kernels
    from tests.models import SPECS, random_rows

    spec = FeatureSpec.from_dict(SPECS["paper"])
    rows = random_rows(spec, 7)
    for row in rows:
        del row["extra"]
    bad = [dict(row) for row in rows]
    bad[3]["cate_id"] = "not a number"
    numbers = {"price": np.arange(700.0)}

    def call() -> Any:  # noqa: ANN401
        made = dict(spec.encode(rows))
        try:
            spec.encode(bad)
        except DinError as error:
            made["sentence"] = np.array(str(error))
        made["buckets"] = _kernels.from_numpy(numbers["price"], "price").num_rows
        return made

    call()
    shim.watch(_kernels.__file__, "PyInit__kernels")
    shim.lib.din_watch_python()
    return shim.failures(
        call, lambda e: isinstance(e, (MemoryError, DinError)), same_arrays
    )


def operators(shim: Shim) -> dict[str, Any]:
    """Sessions of each operator made, run and closed."""
    from din_infer import FeatureSpec
    from tests import ops
    from tests.models import SPECS
    from tests.raw import encode_graph, feeds, hard_table, HARD

    attention = ops.attention_graph(dims=(4, 3), hidden=[5, 3], explain=False)
    masked = ops.with_mask(attention)
    fed = ops.attention_feeds(attention, 40, 5, 30)
    mask = np.zeros((5, 30), np.float32)
    mask[:, ::2] = 1
    of_mask = {k: v for k, v in fed.items() if k != "lengths"} | {"mask": mask}
    bag = ops.bag_graph()
    guard = ops.guard_graph()
    tower = ops.tower_graph((5, 3))
    name = next(iter(HARD))
    spec = FeatureSpec.from_dict(HARD[name])
    table = feeds(spec, hard_table(9))
    models = [
        (attention.model(fed), fed),
        (masked.model(of_mask), of_mask),
        (bag.model(ids := {"ids": np.ones((3, 4), np.int64), "lengths": np.arange(3)}), ids),
        (guard.model(owners := ops.guard_feeds(guard, 9, 4)), owners),
        (tower.model(x := ops.tower_feeds((5, 3), 99)), x),
        (encode_graph(spec), table),
    ]

    def call() -> Any:  # noqa: ANN401
        return [ops.session(model).run(None, given) for model, given in models]

    call()
    shim.watch(str(ops.library()), "RegisterCustomOps")
    return shim.failures(call, lambda e: "expected" in str(e) and "memory" in str(e), same_arrays)


def c_interface(shim: Shim) -> dict[str, Any]:
    """A spec opened, a table encoded and both closed, without Python."""
    from din_infer import FeatureSpec
    from tests import c_abi, ops
    from tests.models import SPECS, random_rows
    import pyarrow as pa

    spec = FeatureSpec.from_dict(SPECS["paper"])
    rows = random_rows(spec, 7)
    for row in rows:
        del row["extra"]
    table = pa.Table.from_pylist(rows)

    def call() -> Any:  # noqa: ANN401
        with c_abi.Spec(spec.to_json()) as opened:
            return opened.encode(table)

    call()
    shim.watch(str(ops.library()), "din_encode_open")
    return shim.failures(
        call,
        lambda e: isinstance(e, c_abi.Refused) and "memory" in str(e),
        same_arrays,
    )


CASES = {"encode": encode, "operators": operators, "c_interface": c_interface}

if __name__ == "__main__":
    print(json.dumps(CASES[sys.argv[2]](Shim(sys.argv[1]))))
