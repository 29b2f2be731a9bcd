"""Time encoding: lists of raw behaviors in, padded bucket ids int64 [B, T] out.

Keys are drawn Zipf from --vocab different ones, lists are 1 to T long, and no batch is
in the caches when its turn comes; `ids` is the headline. Everything that follows a
specification is compared with a loop in Python first, key by key; a private hash must
give equal keys equal ids, and different keys as many different ones as chance allows.
Whoever fails ends the run with status 1. Then all take turns.

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
  copy            the ceiling: the buffers the keys lie in, copied by NumPy; with
                  --threads of 2 or more, every thread copies a part; -1: one thread

fields: for several, rivals encode and pad one after the other.

padding: rivals that have none scatter their ids by one boolean mask in NumPy.

not timed: making each rival's own form of the keys (Series, objects, bytes in Python);
ours reads Arrow. A request is a dict in Python for everybody.

threads: ours, polars, duckdb, TensorFlow and the copy get --threads; the others have
one.

instruction set: ours takes the best of the machine, or the one that DIN_INFER_ISA
names; the head of the output tells which, and `isa` in the JSON.

allocation: glibc is told to keep freed memory, which spares NumPy page faults.

columns: `times ours` compares medians with the first of ours; `% of copy` is the
fraction of the ceiling's rate. A key is one that is kept; padding is not counted.

example:
  python -m benchmarks.encode --scenario ids int64 --json out.json
  DIN_INFER_ISA=avx2 python -m benchmarks.encode --only ours,polars,copy
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
from benchmarks.keys import TWO_FIELDS, Batch, Scenario, Source
from benchmarks.report import COPY, Wanted
from benchmarks.timing import keep_freed_memory
from din_infer._kernels import isas

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
WANTED = (  # of one core with AVX-512; of Zen 4 where a time is wanted
    Wanted("ids", None, OURS, at_most=4.3),
    Wanted("ids", "polars", OURS, 1.8),
    # what it took when keys of one length had a path of their own
    Wanted("string13", "polars", OURS, 1.99, at_most=3.67),
    Wanted("string13", "mmh3", OURS, 20),
    Wanted("string13", None, "ours-murmur3_32", at_most=5),
    Wanted("mixed", None, OURS, at_most=5),
    Wanted("long", "polars", OURS, 1.1),
    Wanted("long", "polars", "ours-xxh3_64", 1.4),
    Wanted("int64", "copy", OURS, 0.25, at_most=1.6),
    Wanted("dictionary", None, OURS, at_most=1.5),
    Wanted("vocab", None, "ours-vocab", at_most=22),
    Wanted("request", None, OURS, at_most=40),
)
GAIN_OF_COPY = (f"{COPY}-1", COPY)
WANTED_OF_THREADS = tuple(
    Wanted(name, f"{OURS}-1", OURS, as_much_as=GAIN_OF_COPY)
    for name in ("ids", "string13", "int64")
)
SCENARIOS = (
    Scenario("ids", "strings of 7 to 13 bytes, goods_ and 1 to 7 digits", kind="ids"),
    Scenario("string13", "strings of 13 bytes, such as goods_1234567"),
    Scenario("mixed", "strings of 1 to 24 bytes, digits or letters", kind="mixed"),
    Scenario("uuids", "UUIDs, strings of 36 bytes", kind="uuids"),
    Scenario("long", "strings of 40 to 100 bytes, URLs", kind="long"),
    Scenario("int64", "int64 over the whole range", kind="int64"),
    Scenario("dictionary", "strings in a dictionary of 1,000, int32 codes"),
    Scenario(
        TWO_FIELDS,
        "two fields of one sequence: ids, and for each one of 1,000 categories",
        kind="ids",
    ),
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
    isa=lambda: os.environ.get("DIN_INFER_ISA") or isas()[0],
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    return run(BENCHMARK, argv)


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
