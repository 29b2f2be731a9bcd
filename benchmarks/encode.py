"""Time encoding: lists of raw behaviors in, padded bucket ids int64 [B, T] out.

Keys are drawn Zipf from --vocab different ones, lists are 1 to T long, and no batch is
in the caches when its turn comes. Everything that follows a specification is compared
with a loop in Python first, key by key; a private hash must give equal keys equal ids,
and different keys as many different ones as chance allows. Whoever fails ends the run
with status 1. Then all take turns.

contestants:
  ours            FeatureSpec.encode; -xxh64, -xxh3_64: 1 + h % (n - 1);
                  -murmur3_32: abs, as scikit-learn has it; -farmhash64: h % n, as
                  TensorFlow has it; -vocab: looked up; with --threads of 2 or more,
                  -xxh64-1 (-vocab-1): on one thread
  polars          Series.hash, modulo; -enum: hash of the categories, then gather;
                  for a vocabulary: cast to an Enum, -join: left join
  pandas          util.hash_array; -plain: with categorize=False, without its dictionary
                  of the batch; for a vocabulary: Index.get_indexer
  duckdb          SQL: hash, modulo
  python-xxhash, mmh3, farmhash
                  a loop over bytes in Python (of the entries of a dictionary), modulo
                  in NumPy; xxh64, murmur3_32 and farmhash64, so that ids are ours
  feature-hasher  scikit-learn's FeatureHasher: a sparse matrix of counts; pads nothing
  tensorflow, keras
                  to_hash_bucket_fast to a RaggedTensor; layers.Hashing, where installed
  pyarrow, python-dict
                  for a vocabulary: compute.index_in; a loop over strings in Python
  copy            the ceiling: the buffers the keys lie in, copied by NumPy

padding: rivals that have none scatter their ids by one boolean mask in NumPy.

not timed: making each rival's own form of the keys (Series, objects, bytes in Python);
ours reads Arrow. A request is a dict in Python for everybody.

threads: ours, polars, duckdb and TensorFlow get --threads; the others have one.

allocation: glibc is told to keep freed memory, which spares NumPy page faults.

columns: `times ours` compares medians with the first of ours; `% of copy` is the
fraction of the ceiling's rate. A key is one that is kept; padding is not counted.

example:
  python -m benchmarks.encode --scenario string13 int64 --json out.json
  python -m benchmarks.encode --threads 2 --rows 200000 --only ours,polars,copy
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

from benchmarks.command import Benchmark, Setting, run
from benchmarks.encoders import entries
from benchmarks.keys import Batch, Scenario, Source
from benchmarks.report import Wanted
from benchmarks.timing import keep_freed_memory

__all__ = ["main"]

PACKAGES = (
    "pyarrow",
    "polars",
    "pandas",
    "duckdb",
    "xxhash",
    "mmh3",
    "pyfarmhash",
    "scikit-learn",
    "tensorflow",
    "tensorflow-cpu",
    "keras",
)
OPTIONS = (
    ("--rows", 20_000, "rows of a batch"),
    ("--t", 50, "longest list; the length of a request's lists"),
    ("--vocab", 1_000_000, "different keys; of `vocab` the known ones"),
)
OURS = "ours-xxh64"
WANTED = (
    Wanted("string13", "polars", OURS, 3, at_most=4.5),
    Wanted("string13", "mmh3", OURS, 20),
    Wanted("int64", "copy", OURS, 0.28),
    Wanted("dictionary", None, OURS, None, at_most=1.5),
    Wanted("request", None, OURS, None, at_most=40),
)
WANTED_OF_THREADS = (Wanted("string13", f"{OURS}-1", OURS, 1.7),)
SCENARIOS = (
    Scenario("string13", "strings of 13 bytes, such as goods_1234567"),
    Scenario("mixed", "strings of 1 to 24 bytes, digits or letters", kind="mixed"),
    Scenario("long", "strings of 40 to 100 bytes, URLs", kind="long"),
    Scenario("int64", "int64 over the whole range", kind="int64"),
    Scenario("dictionary", "strings in a dictionary of 1,000, int32 codes"),
    Scenario("vocab", "strings of 13 bytes looked up, 1 in 10 unknown"),
    Scenario("exploded", "string13, each list repeated in 20 rows, as explode does"),
    Scenario(
        "request",
        "one row as a dict: 3 lists of T strings, 3 candidate fields, a user",
        unit="request",
        time_unit="us",
    ),
)


@contextmanager
def open_setting(args: argparse.Namespace) -> Iterator[Setting]:
    """Make batches and contestants from the arguments."""
    os.environ["POLARS_MAX_THREADS"] = str(args.threads)  # read once, at import

    @cache
    def source(scenario: Scenario) -> Source:
        return Source(scenario, args.rows, args.t, args.vocab, args.seed)

    def pool(scenario: Scenario, size: int) -> Sequence[Batch]:
        return source(scenario).draw(size)

    yield Setting(
        entries=lambda scenario: entries(source(scenario), args.threads),
        pool=pool,
        exact=lambda batch: batch,
        count=len,
        wanted=WANTED if args.threads == 1 else WANTED_OF_THREADS,
    )


BENCHMARK = Benchmark(
    name="encode",
    about=__doc__,
    packages=PACKAGES,
    options=OPTIONS,
    scenarios=lambda _: SCENARIOS,
    open=open_setting,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    return run(BENCHMARK, argv)


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
