"""Measure how many keys share their bucket with another, for a number of buckets.

Hashes n different string keys, goods-0 to goods-<n-1>, into m buckets by
din_infer.hash_buckets, counts the keys that are not alone in theirs, and compares with
what chance leaves: bucket 0 is kept for missing, so that a key meets one of the n - 1
others with the probability 1 - (1 - 1/(m - 1))^(n - 1). The keys are fixed, so that the
same table is printed everywhere. A share further from chance than --limit standard
errors ends the run with status 1: the hash, or its reduction, does not spread keys.

columns: `chance` is the formula, for the largest n; then what xxh64 did, per n; `off`
is the largest distance from chance, in standard errors, of all four hashes and all n.
By default 84 distances are looked at: by chance alone the largest is 2 to 3.5.

example:
  python -m benchmarks.collisions --keys 1000000 --times 10 100
"""

import argparse
import math
import sys
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from din_infer import hash_buckets

__all__ = ["chance", "main", "make_keys", "measure", "standard_error"]

HASHES = ("xxh64", "xxh3_64", "murmur3_32", "farmhash64")
KEYS = (10_000, 100_000, 1_000_000)
TIMES = (1, 2, 5, 10, 20, 50, 100)
FEWEST_KEYS = 1000
LIMIT = 5.0


def make_keys(num_keys: int) -> pa.Array:
    """Make different keys, as catalogs number their goods."""
    return pa.array([f"goods-{i}" for i in range(num_keys)])


def chance(num_keys: int, num_buckets: int) -> float:
    """Return the expected share of keys that are not alone in their bucket."""
    return -math.expm1((num_keys - 1) * math.log1p(-1 / (num_buckets - 1)))


def standard_error(num_keys: int, num_buckets: int) -> float:
    """Return the standard deviation of that share, over all ways to throw the keys.

    Notes
    -----
    Of n keys in M buckets, one is alone with the probability q = (1 - 1/M)^(n-1), and
    two are with r = (1 - 1/M) (1 - 2/M)^(n-2); so the number alone has the variance
    n q (1 - q) + n (n - 1) (r - q^2), of which r - q^2 is taken as q^2 (r / q^2 - 1),
    since the two are almost equal.
    """
    n, m = num_keys, num_buckets - 1
    q = math.exp((n - 1) * math.log1p(-1 / m))
    ratio = math.log1p(-1 / m) * (1 - 2 * (n - 1)) + math.log1p(-2 / m) * (n - 2)
    variance = n * q * (1 - q) + n * (n - 1) * q * q * math.expm1(ratio)
    return math.sqrt(variance) / n


def measure(keys: pa.Array, num_buckets: int, hash_name: str) -> float:
    """Return the share of keys that are not alone in their bucket."""
    ids = np.sort(hash_buckets(keys, num_buckets, hash=hash_name))
    is_same = np.concatenate([[False], ids[1:] == ids[:-1], [False]])
    return float((is_same[1:] | is_same[:-1]).mean())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--keys",
        type=int,
        nargs="+",
        default=KEYS,
        metavar="N",
        help=f"numbers of keys, each {FEWEST_KEYS} or more "
        f"(default: {' '.join(map(str, KEYS))})",
    )
    parser.add_argument(
        "--times",
        type=int,
        nargs="+",
        default=TIMES,
        metavar="K",
        help=f"buckets per key (default: {' '.join(map(str, TIMES))})",
    )
    parser.add_argument(
        "--limit",
        type=float,
        default=LIMIT,
        help=f"standard errors that are too many (default: {LIMIT:g})",
    )
    args = parser.parse_args(argv)
    # With fewer, a share has too few values for its distance to mean anything.
    for name, values, least in (
        ("keys", args.keys, FEWEST_KEYS),
        ("times", args.times, 1),
    ):
        if min(values) < least:
            parser.error(f"expected {least} or more, got {min(values)} - at `--{name}`")
    all_keys = make_keys(max(args.keys))
    heads = ["buckets", "chance", *(f"n = {n:,}" for n in args.keys), "off"]
    print("| " + " | ".join(heads) + " |")
    print("|---" + "|--:" * (len(heads) - 1) + "|")
    faults = []
    for times in args.times:
        shown, largest = [], 0.0
        for n in args.keys:
            m = times * n
            expected, error = chance(n, m), standard_error(n, m)
            for name in HASHES:
                share = measure(all_keys[:n], m, name)
                distance = abs(share - expected) / error
                largest = max(largest, distance)
                if name == HASHES[0]:
                    shown.append(f"{share:.2%}")
                if not distance <= args.limit:
                    faults.append(
                        f"expected {expected:.4%} of {n:,} keys to share one of {m:,} "
                        f"buckets, got {share:.4%}, {distance:.1f} standard errors "
                        f"off - at `{name}`"
                    )
        most = chance(max(args.keys), times * max(args.keys))
        head = "n" if times == 1 else f"{times} n"
        print("| " + " | ".join([head, f"{most:.2%}", *shown, f"{largest:.1f}"]) + " |")
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
