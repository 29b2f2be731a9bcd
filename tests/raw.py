"""Graphs of raw values for tests, and Arrow's buffers as their inputs."""

from functools import cache
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
from numpy.typing import NDArray
from onnx import TensorProto, helper

from din_converter.raw import RawForm, raw_columns, raw_graph
from din_infer.model_format import IR_VERSION, OPSET
from din_infer.spec import FeatureSpec

Arrays = dict[str, NDArray[Any]]
KINDS = {"int64": TensorProto.INT64, "float32": TensorProto.FLOAT}


def filled(proto: onnx.ModelProto, weights: Arrays) -> bytes:
    """A model with the data of its initializers inside."""
    for tensor in proto.graph.initializer:
        tensor.raw_data = weights[tensor.name].tobytes()
    return bytes(proto.SerializeToString())


def encode_graph(spec: FeatureSpec, text: str = "arrow") -> bytes:
    """The operator Encode alone: raw columns in, ids out."""
    inputs = [
        helper.make_tensor_value_info(i.name, KINDS[i.dtype], i.shape)
        for i in spec.inputs
    ]
    proto = helper.make_model(
        helper.make_graph([], "encode", inputs, []),
        opset_imports=[
            helper.make_opsetid("", OPSET),
            helper.make_opsetid("din_infer", 1),
        ],
        ir_version=IR_VERSION,
    )
    made, data = raw_graph(proto, spec, RawForm(text, ids=True))
    del made.graph.value_info[:]  # the outputs have the same
    return filled(made, data)


def _bits(array: pa.Array) -> NDArray[np.uint8]:
    """The validity of an array from its first element on; empty: no nulls."""
    if array.null_count == 0:
        return np.zeros(0, np.uint8)
    return np.packbits(
        array.is_valid().to_numpy(zero_copy_only=False), bitorder="little"
    )


def _ends(array: Any, dtype: type) -> NDArray[Any]:  # noqa: ANN401
    """The offsets of a text or list array, as they lie in memory."""
    large = pa.types.is_large_string(array.type) or pa.types.is_large_list(array.type)
    kind = np.int64 if large else np.int32
    _, offsets, *_ = array.buffers()
    if offsets is None:
        return np.zeros(1, dtype)
    view = np.frombuffer(offsets, kind)[array.offset : array.offset + len(array) + 1]
    return view.astype(dtype, copy=False)


def feeds(
    spec: FeatureSpec,
    users: pa.Table,
    items: pa.Table | None = None,
    owners: NDArray[np.int64] | None = None,
    text: str = "arrow",
) -> Arrays:
    """The inputs of a raw graph; of a table, where there are no `items`.

    Null lists become empty ones; so do lists of `dim` values that are null as a whole,
    nulls of theirs.
    """
    items = users if items is None else items
    made: Arrays = {"request_of_candidate": np.arange(len(items))}
    if owners is not None:
        made["request_of_candidate"] = owners
    dtype = np.int32 if text == "arrow" else np.int64
    for c in raw_columns(spec):
        table = users if c.side == "user" else items
        if c.name not in table.column_names:
            assert c.optional
            continue
        array: Any = table[c.name].combine_chunks()
        if isinstance(array, pa.ChunkedArray):
            array = array.chunk(0) if array.num_chunks else pa.array([], array.type)
        if c.is_list:
            if array.null_count:
                array = pa.array([v or [] for v in array.to_pylist()], array.type)
            made[f"{c.label}.row_offsets"] = _ends(array, dtype)
            array = array.values
        elif c.size > 1:
            rows = [v or [None] * c.size for v in array.to_pylist()]
            array = pa.array([x for row in rows for x in row], pa.float64())
        if c.is_text:
            array = array.cast(pa.large_string() if text == "large" else pa.string())
        if not c.is_length:
            made[f"{c.label}.validity"] = _bits(array)
        if c.is_text and text == "strings":
            values = ["" if v is None else v for v in array.to_pylist()]
            made[f"{c.label}.values"] = np.array(values, object)
        elif c.is_text:
            data = array.buffers()[2]
            made[f"{c.label}.bytes"] = (
                np.zeros(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)
            )
            made[f"{c.label}.offsets"] = _ends(array, dtype)
        else:
            kind = pa.int64() if c.dtype == "int64" else pa.float64()
            numbers = array.cast(kind).fill_null(0).to_numpy(zero_copy_only=False)
            made[f"{c.label}.values"] = (
                numbers.reshape(-1, c.size) if c.size > 1 else numbers
            )
    return made


def hash_field(name: str, **encoder: object) -> dict[str, Any]:
    """A candidate field by a hash."""
    of = {"type": "hash", "buckets": 1000, **encoder}
    dtype = str(of.pop("dtype", "string"))
    return {"name": name, "dim": 1, "dtype": dtype, "encoder": of}


def _hashes() -> dict[str, Any]:
    """Every hash, reduction and form of a key, over three columns."""
    seeds: dict[str, Any] = {
        "xxh64": 2**64 - 1, "xxh3_64": 7, "murmur3_32": 2**32 - 1, "farmhash64": 0,
        "siphash24": [1, 2**63], "murmur3_32_spark": 42, "murmur3_32_vw": 3,
    }  # fmt: skip
    fields = []
    for name, seed in seeds.items():
        for k, reduce in enumerate(("offset", "mod", "pmod", "abs")):
            made = hash_field(f"{name}_{k}", hash=name, seed=seed, reduce=reduce)
            fields.append({**made, "column": "text"})
        form = ("text", "text", "bytes4", "bytes", "bytes", "bytes", "text")
        made = hash_field(
            f"{name}_int", hash=name, seed=seed, dtype="int64",
            int_as=form[list(seeds).index(name)],
        )  # fmt: skip
        fields.append({**made, "column": "small" if "bytes4" in form else "whole"})
    fields += [
        {**hash_field("float8", dtype="float"), "column": "number"},
        {**hash_field("float4", dtype="float", float_as="bytes4"), "column": "number"},
        {**hash_field("masked", mask_value="", prefix="p="), "column": "text"},
        {**hash_field("masked_int", mask_value=-1, dtype="int64"), "column": "whole"},
        {**hash_field("signed", reduce="abs", alternate_sign=True), "column": "text"},
        {
            **hash_field("crossed", hash="murmur3_32", reduce="pmod"),
            "columns": ["text", {"column": "whole", "dtype": "int64"}, "other"],
        },
        {
            "name": "crossed_too",
            "shares": "crossed",
            "columns": ["other", "whole", "text"],
        },
    ]
    return {"format": 1, "candidate": fields}


def _numbers() -> dict[str, Any]:
    """Vocabularies, ids, ranges and scaled values."""
    words = ["", "é", "x" * 300, *(f"w{i}" for i in range(700))]
    scales = {
        "standard": {"mean": 3.5, "std": 2.0},
        "log1p": {"mean": [0.1, -2], "std": [1.5, 0]},
        "minmax": {"min": -2.5, "max": 1e3},
        "quantile": {"boundaries": [[-1, 0.5, 2], [7.25]]},
    }
    dense = [
        {
            "name": f"scaled_{kind}",
            "column": "pair" if kind in ("log1p", "quantile") else "number",
            "dim": 2 if kind in ("log1p", "quantile") else 1,
            "side": "user",
            "missing": 0.5,
            "scale": {"type": kind, **constants},
        }
        for kind, constants in scales.items()
    ]
    vocab = {"type": "vocab", "values": [5, -3, 2**63 - 1, -(2**63), 0]}
    return {
        "format": 1,
        "user": [
            {"name": "word", "dim": 1, "column": "text",
             "encoder": {"type": "vocab", "values": words}},
            {"name": "known", "dim": 1, "column": "text",
             "encoder": {"type": "vocab", "values": words, "unseen": "missing"}},
            {"name": "number_word", "dim": 1, "dtype": "int64", "column": "whole",
             "encoder": vocab},
            {"name": "nothing", "dim": 1, "column": "text",
             "encoder": {"type": "vocab", "values": []}},
            {"name": "range", "dim": 1, "column": "number",
             "encoder": {"type": "bucketize", "boundaries": [-1e300, -0.5, 0, 7]}},
            {"name": "int_range", "dim": 1, "dtype": "int64", "column": "whole",
             "encoder": {"type": "bucketize", "boundaries": [-5, 2**53]}},
        ],
        "candidate": [
            {"name": "id", "dim": 1, "column": "whole",
             "encoder": {"type": "identity", "buckets": 9, "unseen": "missing"}},
        ],
        "dense": dense,
    }  # fmt: skip


def _lists() -> dict[str, Any]:
    """Padding of every kind, orders, texts that hold lists, columns of both sides."""
    hashed = {"dim": 1, "encoder": {"type": "hash", "buckets": 99}}
    whole = {"dim": 1, "dtype": "int64", "encoder": {"type": "hash", "buckets": 50}}
    crossed = {
        "dim": 1, "columns": ["texts", {"column": "wholes", "dtype": "int64"}],
        "encoder": {"type": "hash", "buckets": 77, "seed": 2**64 - 1},
    }  # fmt: skip
    return {
        "format": 1,
        "user": [{"name": "both_user", "column": "text", **hashed}],
        "candidate": [{"name": "both_item", "column": "text", **hashed}],
        "behavior": [
            {"name": "newest", "max_len": 3, "order": "newest_first",
             "fields": {"a": {**hashed, "column": "texts"},
                        "b": {**whole, "column": "wholes"}, "ab": crossed}},
            {"name": "trimmed", "max_len": 4, "pad_value": "",
             "fields": {"c": {**hashed, "column": "texts"}}},
            {"name": "dropped", "max_len": 4, "pad_value": 0, "pad_inside": "dropped",
             "fields": {"d": {**whole, "column": "wholes"}}},
            {"name": "told", "max_len": 5, "length_column": "length",
             "pad_value": 0, "fields": {"e": {**whole, "column": "wholes"}}},
            {"name": "fixed", "max_len": 6, "padding": "attended", "separator": "||",
             "fields": {"f": {**hashed, "column": "joined"}}},
        ],
        "multi_hot": [
            {"name": "json", "side": "candidate", "pooling": "sum", "max_len": 9,
             "format": "json", **whole, "column": "listed"},
            {"name": "spaced", "side": "user", "pooling": "sum", "max_len": 9,
             "separator": " ", "dim": 1, "dtype": "float", "column": "decimals",
             "encoder": {"type": "bucketize", "boundaries": [0.5, 2]}},
        ],
    }  # fmt: skip


HARD = {"hashes": _hashes(), "numbers": _numbers(), "lists": _lists()}
TEXTS = [
    "",
    "a",
    "é",
    "日本語" * 9,
    "x" * 300,
    "w5",
    "w699",
    "\x00",
    " 12 ",
    "-7",
    "🐍🐍",
    None,
]
WHOLE = [0, 1, -1, 5, -3, 8, 9, 2**63 - 1, -(2**63), 2**31, -(2**31), 2**53 + 1, None]
NUMBERS = [0.0, -0.0, 0.5, 1e300, -1e300, 3.25, -0.5, float("inf"), float("nan"), None]


@cache
def hard_table(count: int, seed: int = 0) -> pa.Table:
    """Rows of hard values, for the specs `HARD`."""
    rng = np.random.default_rng(seed)

    def some(values: list[Any], size: int = count) -> list[Any]:
        return [values[i] for i in rng.integers(0, len(values), size)]

    lengths = rng.integers(0, 9, count)
    empty = rng.random(count) < 0.05
    texts = [None if e else some(TEXTS, n) for n, e in zip(lengths, empty, strict=True)]
    wholes = [None if t is None else some(WHOLE, len(t)) for t in texts]
    small = [v for v in WHOLE if v is None or abs(v) < 2**31 or v == -(2**31)]
    pairs = [None if rng.random() < 0.1 else some(NUMBERS, 2) for _ in range(count)]
    columns: dict[str, pa.Array] = {
        "text": pa.array(some(TEXTS), pa.string()),
        "other": pa.array(some(TEXTS), pa.string()),
        "whole": pa.array(some(WHOLE), pa.int64()),
        "small": pa.array(some(small), pa.int64()),
        "number": pa.array(some(NUMBERS), pa.float64()),
        "pair": pa.array(pairs, pa.list_(pa.float64())),
        "texts": pa.array(texts, pa.list_(pa.string())),
        "wholes": pa.array(wholes, pa.list_(pa.int64())),
        "length": pa.array([int(rng.integers(0, len(t or []) + 1)) for t in texts]),
        "joined": pa.array(some(["", "a", "a||b", "||", "a|||b||", "é||x", None])),
        "listed": pa.array(some(["[]", "[1, 2]", "", "null", "[null, -3, 4.0]", None])),
        "decimals": pa.array(some(["", "1", "0.5 2", " ", "1e3 -7", "x" * 0, None])),
    }
    return pa.table(columns)
