"""Score a table that is in memory already: the rate that a job on files is held to.

``python -m benchmarks.in_memory model.onnx events.parquet ..`` prints JSON: how long
the model took to load and each pass to score, and the memory after either.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.launch import memory_mb
from din_infer import Predictor

__all__ = ["SLICE_ROWS", "main"]

SLICE_ROWS = 8192
WARM_UP_SLICES = 4


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("model", type=Path)
    add("events", type=Path)
    add("--threads", type=int, default=1)
    add("--warm", action="store_true", help="score some slices first, untimed")
    add(
        "--passes",
        nargs="+",
        choices=["whole", "slices"],
        default=["whole"],
        help=f"score the table in one call, or in slices of {SLICE_ROWS}",
    )
    add("--out", type=Path, help="write the scores there, one .npy row per pass")
    args = parser.parse_args(argv)
    pa.set_cpu_count(args.threads)
    before = time.perf_counter()
    predictor = Predictor(args.model, device="cpu", threads=args.threads)
    load_s = time.perf_counter() - before
    loaded = memory_mb()
    table = pq.read_table(args.events)
    slices = table.to_batches(max_chunksize=SLICE_ROWS)
    read = memory_mb()
    if args.warm:
        for part in slices[:WARM_UP_SLICES]:
            predictor.score(part)
    passes, scores = [], []
    for name in args.passes:
        batches = [table] if name == "whole" else slices
        faults = resource.getrusage(resource.RUSAGE_SELF)
        before = time.perf_counter()
        parts = [predictor.score(batch) for batch in batches]
        seconds = time.perf_counter() - before
        now = resource.getrusage(resource.RUSAGE_SELF)
        passes.append(
            {
                "pass": name,
                "seconds": seconds,
                "minor_faults": now.ru_minflt - faults.ru_minflt,
                "major_faults": now.ru_majflt - faults.ru_majflt,
            }
        )
        scores.append(_join(parts))
    found: dict[str, Any] = {
        "rows": len(table),
        "load_s": load_s,
        "passes": passes,
        "loaded": loaded,
        "read": read,
        "scored": memory_mb(),
    }
    if args.out:
        np.save(args.out, np.stack(scores))
    print(json.dumps(found))
    return 0


def _join(parts: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


if __name__ == "__main__":
    sys.exit(main())
