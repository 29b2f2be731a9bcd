"""Memory and open files over many calls of `score` and many Predictors.

`python -m tests.leaks CALLS PREDICTORS`, or `make leaks`, prints what grew, and exits
with 1 where it is more than noise. After a warm-up the resident memory of the process,
its open files and Python's blocks are read ten times each; what counts is how much the
last readings are above the first ones.
"""

import gc
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from din_converter import convert
from din_infer import DinError, Predictor
from tests.models import SPECS, random_model, random_rows

READINGS = 10
PAGE = os.sysconf("SC_PAGESIZE")


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def growth(call: Callable[[int], None], count: int, warm: int) -> dict[str, int]:
    """Call so often, and tell what grew from the first readings to the last ones."""
    for i in range(warm):
        call(i)
    memory, files, blocks = [], [], []
    for part in range(READINGS):
        for i in range(count // READINGS):
            call(part + i)
        gc.collect()
        memory.append(resident())
        files.append(open_files())
        blocks.append(sys.getallocatedblocks())
    half = READINGS // 2
    return {
        "calls": count // READINGS * READINGS,
        "first_bytes": memory[0],
        "bytes": min(memory[half:]) - min(memory[:half]),
        "files": max(files) - files[0],
        "blocks": min(blocks[half:]) - min(blocks[:half]),
    }


def measure(num_calls: int, num_predictors: int) -> dict[str, Any]:
    """Score batches of several sizes, a bad row now and then; make Predictors."""
    rows = [
        {k: v for k, v in row.items() if k != "extra"}
        for row in random_rows(random_model(SPECS["paper"]).spec, 8)
    ]
    bad = [{**rows[0], "cate_id": "not a number"}]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        convert(random_model(SPECS["paper"]), path)
        predictor = Predictor(path, device="cpu", threads=1)

        def score(i: int) -> None:
            predictor.score(rows[: 1 + i % 4])
            if i % 50 == 0:
                try:
                    predictor.score(bad)
                except DinError:
                    return
                raise AssertionError

        def make(_: int) -> None:
            Predictor(path, device="cpu", threads=1).score(rows[:1])

        return {
            "score": growth(score, num_calls, warm=2000),
            "Predictor": growth(make, num_predictors, warm=20),
        }


# A leak of 8 bytes a call is 8 MB in a million of them; allocators keep some.
NOISE_BYTES = 4 << 20


def main() -> int:
    """Return the exit status: 1 where something grows."""
    warnings.simplefilter("ignore")
    found = measure(int(sys.argv[1]), int(sys.argv[2]))
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return int(
        any(
            one["bytes"] > NOISE_BYTES or one["files"] > 0 or one["blocks"] > 200
            for one in found.values()
        )
    )


if __name__ == "__main__":
    sys.exit(main())
