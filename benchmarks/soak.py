"""Call one Predictor from many threads, and watch its memory.

The requests are those of benchmarks.online, T=50. Each caller scores them in turns from
raw strings and for users that were encoded before. A tenth of the calls comes first, so
that what is made once is made. The exit status is 1 if memory grew by more than
--most-mib while the others ran, or a score was not what one thread alone had computed.

example:
  python -m benchmarks.soak --calls 100000 --callers 8
"""

import argparse
import gc
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.graphs import Sizes
from benchmarks.machine import describe_run
from benchmarks.online import draw, open_subject
from din_infer import Predictor

__all__ = ["main", "resident_bytes"]

REQUESTS = 64
POSITIONS = 50
TENTHS = 10
MIB = 1 << 20


def resident_bytes() -> int:
    """Read how much memory of this process is resident; Linux alone tells."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for flag, default, text in (
        ("--calls", 100_000, "calls that are watched, of all callers together"),
        ("--callers", 8, "threads that share the Predictor"),
        ("--n", 10, "candidates of a request"),
        ("--rows", 100_000, "rows of the goods table"),
        ("--most-mib", 16, "growth that is allowed, in MiB"),
    ):
        about = f"{text} (default: {default:,})"
        parser.add_argument(flag, type=int, default=default, metavar="N", help=about)
    parser.add_argument("--seed", type=int, default=0, help="of all that is random")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    args = parse(argv)
    sizes = Sizes(goods=args.rows)
    about = describe_run(["onnxruntime"])
    print(f"# benchmarks.soak\n\n{about['date']}, commit {about['commit']}")
    with open_subject(sizes, 1, args.seed) as subject:
        p = Predictor(subject.path, device="cpu", threads=1)
        p.warmup([args.n])
        requests = draw(sizes, args.n, POSITIONS, REQUESTS, args.seed)
        users = [[r.user] for r in requests]
        encoded = [p.encode_request(user) for user in users]
        wanted = [
            p.score_requests(user, r.items)
            for user, r in zip(users, requests, strict=True)
        ]

        def call(caller: int, calls: int) -> int:
            wrong = 0
            for i in range(calls):
                at = (caller + i) % REQUESTS
                user = encoded[at] if i % 2 else users[at]
                got = p.score_requests(user, requests[at].items)
                wrong += not np.array_equal(got, wanted[at])
            return wrong

        each = max(1, args.calls // (TENTHS * args.callers))
        sizes_seen, wrong = [], 0
        gc.collect()
        gc.freeze()  # what torch keeps is not walked again after each tenth
        before = time.perf_counter()
        for _ in tqdm(range(TENTHS + 1), desc="tenths", disable=None):
            with ThreadPoolExecutor(args.callers) as pool:
                callers = range(args.callers)
                wrong += sum(pool.map(call, callers, [each] * args.callers))
            gc.collect()
            sizes_seen.append(resident_bytes())
        seconds = time.perf_counter() - before
        gc.unfreeze()
    grown = sizes_seen[-1] - sizes_seen[0]
    done = each * args.callers * TENTHS
    rate = done * (TENTHS + 1) / TENTHS / seconds
    print(
        f"{done:,} calls of {args.callers} callers, {rate:,.0f} a second\n"
        f"resident, MiB: {', '.join(f'{s / MIB:.1f}' for s in sizes_seen)}\n"
        f"grown by {grown / MIB:.2f} MiB, wrong scores: {wrong}"
    )
    return int(wrong > 0 or grown > args.most_mib * MIB)


if __name__ == "__main__":
    sys.exit(main())
