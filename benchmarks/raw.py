"""Time what din-convert --raw puts into the graph: raw strings in, ids or scores out.

A table: R rows with two lists of 1 to T strings in Arrow, to padded ids. A request: one
user with two lists of T strings, and N candidates, to scores; its model is that of
benchmarks.model, hashed by XXH64 into tables of 100,000, 1,000,000 and 1,000 rows. All
strings have 13 bytes and are drawn Zipf; batches rotate through a pool that outgrows
the last-level cache. Ids are first compared with those that python-xxhash makes, scores
with torch in float64 on these ids; an id that differs, or a score that is off by more
than 1e-5, ends the run with status 1. Then all take turns.

contestants of a table:
  ours          the operator Encode alone, in the bare session
  ours-spec     FeatureSpec.encode of the same Arrow buffers

contestants of a request:
  ours          the bare session on raw columns, nothing kept between calls
  ours-strings  the same with string tensors, which the session copies
  ours-ids      the bare session on ids that are ready

not timed: the buffers of the raw columns, which are Arrow's own; the ids of `ours-ids`.

allocation: glibc is told to keep freed memory, which spares NumPy page faults.

columns: `times ours` compares medians with `ours`.

example:
  python -m benchmarks.raw --scenario 100-t50 --json out.json
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import torch
import xxhash
from numpy.typing import NDArray
from onnx import TensorProto, helper

from benchmarks import timing
from benchmarks.command import Benchmark, Entries, Setting, run
from benchmarks.draw import pool_size, zipf
from benchmarks.graphs import Inputs, Sizes, exact_model, exact_score, make_model
from benchmarks.report import Wanted
from benchmarks.timing import (
    Contestant,
    UnavailableError,
    WrongOutputError,
    keep_freed_memory,
    within,
)
from din_converter import DIN, convert
from din_converter.raw import RawForm, raw_graph
from din_infer.model_format import IR_VERSION, OPSET
from din_infer.session import ops_library
from din_infer.spec import FeatureSpec

__all__ = ["main"]

PACKAGES = ("pyarrow", "torch", "onnx", "onnxruntime", "xxhash")
SIZES = Sizes()
OPTIONS = (
    ("--rows", SIZES.goods, "rows of the goods table, and different goods"),
    ("--cate-rows", SIZES.cates, "rows of the category table"),
    ("--user-rows", SIZES.users, "rows of the user table"),
)
POSITIONS = 50
BYTES_PER_KEY = 17  # 13 of text, 4 of an offset
CHECK = within(1e-5)
WANTED = (
    Wanted("table", "ours-spec", "ours", at_least=1 / 1.3),
    Wanted("100-t50", "ours-ids", "ours", us_more=40),
)
LISTS = ("hist_goods_id", "hist_cate_id")


@dataclass(frozen=True)
class Scenario(timing.Scenario):
    """So many rows of lists; or, of a request, N candidates."""

    rows: int
    candidates: int
    unit: str = field(default="key", kw_only=True)


SCENARIOS = (
    Scenario("table", f"10,000 rows of two lists, T in 1..{POSITIONS}", 10_000, 0),
    Scenario("rows", f"100 rows of two lists, T in 1..{POSITIONS}", 100, 0),
    *(
        Scenario(f"{n}-t50", f"{n} candidates, T=50", 1, n, time_unit="us")
        for n in (10, 100, 500)
    ),
)


@dataclass(frozen=True)
class Keys:
    """One column: its keys as numbers, and as text of 13 bytes in Arrow."""

    codes: NDArray[np.int64]
    texts: pa.StringArray
    rows: int  # of the table

    @classmethod
    def draw(
        cls, rng: np.random.Generator, prefix: str, rows: int, count: int
    ) -> "Keys":
        codes = zipf(rng, rows, (count,))
        texts = pa.array([f"{prefix}_{k:07d}" for k in codes.tolist()])
        return cls(codes, texts, rows)

    def ids(self) -> NDArray[np.int64]:
        """Hash by python-xxhash, each different key once: 1 + h % (rows - 1)."""
        _, first, place = np.unique(self.codes, return_index=True, return_inverse=True)
        keys = self.texts.take(pa.array(first)).to_pylist()
        digest = xxhash.xxh64_intdigest
        hashes = np.array([digest(k.encode()) for k in keys], dtype=np.uint64)
        ids = 1 + hashes % np.uint64(self.rows - 1)
        return ids.astype(np.int64)[place]

    def feeds(self, name: str) -> Inputs:
        """View the buffers as the inputs of a raw graph."""
        _, offsets, data = self.texts.buffers()
        return {
            f"{name}.bytes": np.frombuffer(data, np.uint8),
            f"{name}.offsets": np.frombuffer(offsets, np.int32)[: len(self.texts) + 1],
        }


@dataclass(frozen=True)
class Batch:
    """Columns by name; `ends` are the row offsets of the lists."""

    columns: dict[str, Keys]
    ends: NDArray[np.int32]

    @property
    def num_candidates(self) -> int:
        return len(self.columns["goods_id"].codes)

    def ids(self) -> Inputs:
        """Make the inputs of a graph of ids, slowly."""
        lengths = np.diff(self.ends).astype(np.int64)
        inside = np.arange(lengths.max()) < lengths[:, None]
        made: Inputs = {}
        for name, keys in self.columns.items():
            made[name] = keys.ids()
            if name in LISTS:
                padded = np.zeros(inside.shape, np.int64)
                padded[inside] = made[name]
                made[name] = padded
        made["history.lengths"] = lengths
        if "goods_id" in made:
            made["request_of_candidate"] = np.zeros(self.num_candidates, np.int64)
        return made

    def feeds(self) -> Inputs:
        """Make the inputs of a raw graph, of Arrow's own buffers."""
        made: Inputs = {}
        for name, keys in self.columns.items():
            made |= keys.feeds(name)
            if name in LISTS:
                made[f"{name}.row_offsets"] = self.ends
        count = self.num_candidates if "goods_id" in self.columns else 1
        made["request_of_candidate"] = np.zeros(count, np.int64)
        return made

    def strings(self) -> Inputs:
        """Make the inputs of a raw graph of string tensors."""
        made: Inputs = {}
        for name, keys in self.columns.items():
            made[f"{name}.values"] = np.array(keys.texts.to_pylist(), object)
            if name in LISTS:
                made[f"{name}.row_offsets"] = self.ends.astype(np.int64)
        made["request_of_candidate"] = np.zeros(self.num_candidates, np.int64)
        return made

    def table(self) -> pa.Table:
        """Make a table of the lists."""
        ends = pa.array(self.ends)
        lists = {
            name: pa.ListArray.from_arrays(ends, self.columns[name].texts)
            for name in LISTS
        }
        return pa.table(lists)


def draw(sizes: Sizes, scenario: Scenario, count: int, seed: int) -> list[Batch]:
    """Draw batches."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        lengths = np.full(scenario.rows, POSITIONS)
        if not scenario.candidates:
            lengths = rng.integers(1, POSITIONS + 1, scenario.rows)
        ends = np.cumsum([0, *lengths], dtype=np.int32)
        columns = {
            "hist_goods_id": Keys.draw(rng, "goods", sizes.goods, ends[-1]),
            "hist_cate_id": Keys.draw(rng, "categ", sizes.cates, ends[-1]),
        }
        if n := scenario.candidates:
            columns["user_id"] = Keys.draw(rng, "users", sizes.users, 1)
            columns["goods_id"] = Keys.draw(rng, "goods", sizes.goods, n)
            columns["cate_id"] = Keys.draw(rng, "categ", sizes.cates, n)
        made.append(Batch(columns, ends))
    return made


def _lists_spec(sizes: Sizes) -> FeatureSpec:
    """Make a spec of the lists alone; its candidate field is of the same column."""

    def of(rows: int) -> dict[str, Any]:
        return {"dim": 1, "encoder": {"type": "hash", "buckets": rows}}

    raw: dict[str, Any] = {
        "format": 1,
        "candidate": [
            {"name": "none", "dim": 1, "encoder": {"type": "identity", "buckets": 1}}
        ],
        "behavior": [
            {
                "name": "history",
                "max_len": POSITIONS,
                "fields": {LISTS[0]: of(sizes.goods), LISTS[1]: of(sizes.cates)},
            }
        ],
    }
    return FeatureSpec.from_dict(raw)


def _session(model: str | bytes, threads: int) -> onnxruntime.InferenceSession:
    library = ops_library()
    if library is None:
        message = "this build has no native ops"
        raise UnavailableError(message)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.register_custom_ops_library(str(library))
    return onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])


def _encode_graph(spec: FeatureSpec) -> bytes:
    """Make a graph of the operator alone, whose outputs are the ids."""
    kinds = {"int64": TensorProto.INT64, "float32": TensorProto.FLOAT}
    inputs = [
        helper.make_tensor_value_info(i.name, kinds[i.dtype], i.shape)
        for i in spec.inputs
    ]
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("din_infer", 1)]
    proto = helper.make_model(
        helper.make_graph([], "encode", inputs, []),
        opset_imports=opsets,
        ir_version=IR_VERSION,
    )
    made, data = raw_graph(proto, spec, RawForm(ids=True))
    for tensor in made.graph.initializer:
        tensor.raw_data = data[tensor.name].tobytes()
    del made.graph.value_info[:]
    return bytes(made.SerializeToString())


def _check_ids(got: dict[str, NDArray[Any]], wanted: Inputs) -> None:
    for name in (*LISTS, "history.lengths"):
        if not np.array_equal(got[name], wanted[name]):
            message = f"expected the ids of python-xxhash, got others - at `{name}`"
            raise WrongOutputError(message)


def _of_table(spec: FeatureSpec, threads: int) -> Entries:
    """List who encodes lists."""
    names = (*LISTS, "history.lengths")

    def in_graph() -> Contestant:
        session = _session(_encode_graph(spec), threads)

        def prepare(batch: Batch) -> Inputs:
            zeros = np.zeros(len(batch.ends) - 1, np.int64)
            return batch.feeds() | {
                "none.values": zeros,
                "request_of_candidate": zeros,
            }

        def call(feeds: Inputs) -> dict[str, NDArray[Any]]:
            return dict(zip(names, session.run(names, feeds), strict=True))

        return Contestant("Encode, in the graph", prepare, call, _check_ids, ours=True)

    def by_spec() -> Contestant:
        def prepare(batch: Batch) -> pa.Table:
            zeros = pa.array(np.zeros(len(batch.ends) - 1, np.int64))
            return batch.table().append_column("none", zeros)

        call = partial(spec.encode, threads=threads)
        return Contestant("FeatureSpec.encode", prepare, call, _check_ids, ours=True)

    return {"ours": in_graph, "ours-spec": by_spec}


def _of_request(paths: dict[str, Path], threads: int) -> Entries:
    """List who scores requests."""

    def scorer(key: str, label: str, prepare: Callable[[Batch], Inputs]) -> Contestant:
        session = _session(str(paths[key]), threads)
        call = lambda feeds: session.run(["score"], feeds)[0]  # noqa: E731
        return Contestant(label, prepare, call, CHECK, ours=True)

    return {
        "ours": partial(scorer, "arrow", "raw columns, bare session", Batch.feeds),
        "ours-strings": partial(scorer, "strings", "string tensors", Batch.strings),
        "ours-ids": partial(scorer, "ids", "ids, bare session", Batch.ids),
    }


def _exact(model: DIN, batch: Batch) -> Any:  # noqa: ANN401
    ids = batch.ids()
    return exact_score(model, ids) if "goods_id" in batch.columns else ids


@contextmanager
def open_setting(args: argparse.Namespace) -> Iterator[Setting]:
    """Make the model, its files and contestants from the arguments."""
    sizes = Sizes(args.user_rows, args.rows, args.cate_rows)
    torch.set_num_threads(args.threads)
    model = make_model(sizes, POSITIONS, args.seed, "hash")
    with tempfile.TemporaryDirectory(prefix="din-benchmark-") as folder:
        paths = {
            key: Path(folder) / f"{key}.onnx" for key in ("ids", "arrow", "strings")
        }
        if not {"table", "rows"} >= set(args.scenario):
            convert(model, paths["ids"])
            for text in ("arrow", "strings"):
                convert(model, paths[text], raw=True, raw_text=text)
        of_table = {
            k: cache(m) for k, m in _of_table(_lists_spec(sizes), args.threads).items()
        }
        of_request = {k: cache(m) for k, m in _of_request(paths, args.threads).items()}

        def pool(scenario: Scenario, size: int) -> Sequence[Batch]:
            keys = scenario.rows * POSITIONS + 2 * scenario.candidates
            count = pool_size(size, BYTES_PER_KEY * keys)
            return draw(sizes, scenario, min(count, 512), args.seed)

        yield Setting(
            entries=lambda s: of_request if s.candidates else of_table,
            pool=pool,
            exact=partial(_exact, exact_model(model)),
            count=lambda b: sum(len(c.codes) for c in b.columns.values()),
            wanted=WANTED if args.threads == 1 else (),
        )


BENCHMARK = Benchmark(
    name="raw",
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
