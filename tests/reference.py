# ruff: noqa: ANN401 - rows hold anything
"""Slow and obvious twins of the encoders: what the fast code must equal.

Everything here is pure Python on lists; a batch is a list of dicts, None is null.
"""

import itertools
import json
import math
from decimal import Decimal, localcontext
from functools import lru_cache
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from din_infer.spec import Behavior, Encoder, FeatureSpec, MultiHot, Scale
from din_infer.spec_parts import OwnColumns
from tests.reference_hash import (
    BITS,
    HASHES,
    MASK,
    OTHERS,
    float_as_bytes,
    int_as_bytes,
    int_as_text,
    reduce,
    signed,
)


@lru_cache(maxsize=10_000)
def hash_of(name: str, key: bytes, seed: Any) -> int:
    """Hash, and remember: columns repeat their values."""
    return (HASHES | OTHERS)[name](key, seed)


def as_bytes(value: Any, int_as: str) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, float):
        return float_as_bytes(value, 4 if int_as == "bytes4" else 8)
    if int_as == "bytes4":
        return int(value).to_bytes(4, "little", signed=True)
    if int_as == "bytes" and value >= 2**63:
        return int(value).to_bytes(8, "little")
    return int_as_text(value) if int_as == "text" else int_as_bytes(value)


def as_string(value: Any, uuid_as: str | None) -> Any:
    """Return what stands for a UUID, given as such or as 16 bytes of a fixed size.

    A batch with the key holds no other bytes.
    """
    if isinstance(value, UUID):
        return value.bytes if uuid_as == "bytes" else str(value)
    if isinstance(value, bytes) and uuid_as == "text":
        return str(UUID(bytes=value))
    return value


def clean(value: Any, dtype: str) -> Any:
    """Return the value as its dtype has it, None for missing."""
    if value is None or (isinstance(value, float | Decimal) and value != value):
        return None
    if dtype == "int64":
        return int(value)
    return float(value) if isinstance(value, Decimal) else value


def is_equal(value: Any, known: str | int) -> bool:
    """Compare a value of a column with one of the spec, text by its bytes."""
    if isinstance(value, bytes) and isinstance(known, str):
        return value == known.encode()
    return bool(value == known)


def bucket_of(h: int, encoder: Encoder) -> int:
    bits = BITS[encoder.hash]
    if not encoder.alternate_sign:
        return reduce(h, encoder.rows, encoder.reduce, bits)
    half = encoder.rows // 2
    negative = signed(h % 2**32, 32) < 0
    return reduce(h, half, encoder.reduce, bits) + (half if negative else 0)


def encode_together(values: list[Any], encoder: Encoder) -> tuple[int, bool, bool]:
    """Hash the columns' values one after the other, each seeded by those before."""
    h: Any = encoder.seed
    for value, (dtype, own) in zip(values, encoder.columns, strict=True):
        value = None if value is None else as_string(value, own.uuid_as)
        if value is not None and dtype == "float":
            h = hash_of(own.hash, as_bytes(float(value), own.int_as), h)
        elif value is not None:
            h = hash_of(own.hash, as_bytes(value, own.int_as), h)
    is_null = all(value is None for value in values)
    return bucket_of(h & MASK, encoder), is_null, False


def encode_row(values: list[Any], f: OwnColumns) -> tuple[int, bool, bool]:
    """Encode the values of a field's columns."""
    if f.encoder.columns:
        return encode_together(values, f.encoder)
    return encode_value(values[0], f.dtype, f.encoder)


def encode_value(value: Any, dtype: str, encoder: Encoder) -> tuple[int, bool, bool]:
    """Return (id, is null, is unseen)."""
    if encoder.type != "hash" or dtype != "float":
        value = clean(value, dtype)
    if value is None:
        return 0, True, False
    if dtype == "string":
        value = as_string(value, encoder.uuid_as)
    if encoder.type == "hash":
        if encoder.mask_value is not None and is_equal(value, encoder.mask_value):
            return 0, True, False
        if dtype == "float":
            value = float(value)
        key = encoder.prefix.encode() + as_bytes(value, encoder.int_as)
        return (
            bucket_of(hash_of(encoder.hash, key, encoder.seed), encoder),
            False,
            False,
        )
    if encoder.type == "bucketize":
        return 1 + sum(b <= value for b in encoder.boundaries), False, False
    if encoder.type == "identity":
        if 0 <= value < encoder.rows:
            return value, False, False
    else:
        for i, known in enumerate(encoder.values):
            if is_equal(value, known):
                return 1 + i, False, False
    return (encoder.rows - 1 if encoder.unseen == "row" else 0), False, True


def keep(part: Behavior | MultiHot, lists: list[list[Any]], length: int | None) -> Any:
    """Return the parallel lists after padding and truncation, oldest first."""
    n = len(lists[0])
    if length is not None:
        chosen = list(range(length))
    elif part.pad_value is not None:
        is_pad = [v is not None and is_equal(v, part.pad_value) for v in lists[0]]
        behaviors = [i for i in range(n) if not is_pad[i]]
        inside = part.pad_inside == "dropped"
        if inside or not behaviors:
            chosen = behaviors
        else:
            chosen = list(range(behaviors[0], behaviors[-1] + 1))
    else:
        chosen = list(range(n))
    is_truncated = len(chosen) > part.max_len
    if getattr(part, "order", "oldest_first") == "newest_first":
        chosen = chosen[: part.max_len][::-1]
    else:
        chosen = chosen[max(0, len(chosen) - part.max_len) :]
    return [[values[i] for i in chosen] for values in lists], is_truncated


def length_of(part: Behavior | MultiHot, row: dict[str, Any]) -> int | None:
    """Return what the length column says; None where `pad_value` does instead."""
    if part.length_column is None:
        return None
    if part.pad_value is not None and part.length_column not in row:
        return None
    length: int = row[part.length_column]
    return length


def list_of(text: str | None, separator: str | None, dtype: str) -> list[Any]:
    """Split a text as a spec says; without a separator, it is JSON."""
    if not text:
        return []
    if separator is None:
        return [
            v if v is None or dtype == "string" else int(v) for v in json.loads(text)
        ]
    parts: list[Any] = text.split(separator)
    if dtype == "string":
        return parts
    return [int(float(part)) if part else None for part in parts]


def right_pad(rows: list[list[int]], width: int) -> NDArray[np.int64]:
    out = np.zeros((len(rows), width), dtype=np.int64)
    for b, row in enumerate(rows):
        out[b, : len(row)] = row
    return out


def pad(
    values: list[int], offsets: list[int], max_len: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    rows = [values[a:b] for a, b in itertools.pairwise(offsets)]
    rows = [row[max(0, len(row) - max_len) :] for row in rows]
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    return right_pad(rows, max(lengths, default=0)), lengths


def signed_log1p(x: float) -> float:
    """Round the exact logarithm, of 60 digits, to the nearest double."""
    if abs(x) < 2.0**-53:
        return x
    with localcontext(prec=60):
        return math.copysign(float((1 + Decimal(abs(x))).ln()), x)


def scaled(scale: Scale | None, k: int, x: float) -> float:
    """Scale one raw number, value k of its row, as docs/spec.md says."""
    if scale is None or scale.type == "none":
        return x
    if scale.type == "quantile":
        b = scale.boundaries[k]
        if len(b) == 1 or x < b[0]:
            return 0.0
        if x >= b[-1]:
            return 1.0
        i = max(i for i in range(len(b)) if b[i] <= x)
        return (i + (x - b[i]) / (b[i + 1] - b[i])) / (len(b) - 1)
    low, spread = scale.low[k], scale.spread[k]
    if spread == 0:
        return 0.0
    if scale.type == "log1p":
        x = signed_log1p(x)
    with np.errstate(over="ignore"):
        y = float(np.float64(x - low) / np.float64(spread))
    return min(max(y, 0.0), 1.0) if scale.type == "minmax" else y


def encode(
    spec: FeatureSpec, rows: list[dict[str, Any]]
) -> tuple[dict[str, NDArray[Any]], dict[str, dict[str, int]]]:
    """Encode a legal table of rows: (inputs, counts per field)."""
    out: dict[str, NDArray[Any]] = {}
    counts: dict[str, dict[str, int]] = {}
    n = len(rows)

    def count(name: str, found: list[tuple[int, bool, bool]], **more: int) -> None:
        counts[name] = {"rows": n, "truncated": 0, "empty": 0}
        counts[name]["nulls"] = sum(null for _, null, _ in found)
        counts[name]["unseen"] = sum(unseen for _, _, unseen in found)
        counts[name].update(more)

    for f in (*spec.user, *spec.candidate):
        found = [encode_row([row[c] for c in f.columns], f) for row in rows]
        out[f.name] = np.array([i for i, _, _ in found], dtype=np.int64)
        count(f.name, found)
    for part in (*spec.behavior, *spec.multi_hot):
        fields = [part] if isinstance(part, MultiHot) else list(part.fields)
        fields = [f for f in fields if getattr(f, "source", None) is None]
        kept = []
        truncated = 0
        for row in rows:
            encoded = [column for f in fields for column in f.encoded]
            lists = [row[name] for name, _, _ in encoded]
            lists = [[] if values is None else values for values in lists]
            lists = [
                [v if v is None else as_string(v, e.uuid_as) for v in values]
                for (_, _, e), values in zip(encoded, lists, strict=True)
            ]
            length = length_of(part, row)
            chosen, is_truncated = keep(part, lists, length)
            kept.append(chosen)
            truncated += is_truncated
        lengths = [len(chosen[0]) for chosen in kept]
        width = max(lengths, default=0)
        if part.padding == "attended":
            width = part.max_len
        first = 0
        for f in fields:
            stop = first + len(f.columns)
            coded = [
                [encode_row(list(v), f) for v in zip(*chosen[first:stop], strict=True)]
                for chosen in kept
            ]
            first = stop
            out[f.name] = right_pad([[x[0] for x in r] for r in coded], width)
            flat = [x for r in coded for x in r]
            count(f.name, flat, truncated=truncated, empty=lengths.count(0))
        out[f"{part.name}.lengths"] = np.array(lengths, dtype=np.int64)
    for d in spec.dense:
        table = np.zeros((n, d.dim), dtype=np.float32)
        nulls = 0
        for b, row in enumerate(rows):
            values = row[d.column]
            if values is None and d.dim > 1:
                nulls += 1
                table[b] = [scaled(d.scale, k, d.missing) for k in range(d.dim)]
                continue
            for k, x in enumerate(values if isinstance(values, list) else [values]):
                y = None
                if x is not None and math.isfinite(x):
                    y = scaled(d.scale, k, float(x))
                    with np.errstate(over="ignore"):
                        y = y if np.isfinite(np.float32(y)) else None
                nulls += y is None
                table[b, k] = scaled(d.scale, k, d.missing) if y is None else y
        out[d.name] = table
        counts[d.name] = {
            "rows": n, "nulls": nulls, "unseen": 0, "truncated": 0, "empty": 0
        }  # fmt: skip
    out["request_of_candidate"] = np.arange(n, dtype=np.int64)
    return out, counts


def first_rows(rows: list[dict[str, Any]], columns: list[str]) -> list[int]:
    """Find the rows that differ from the row before, in the user's columns."""
    sides = [repr([row.get(column) for column in columns]) for row in rows]
    return [i for i in range(len(rows)) if i == 0 or sides[i] != sides[i - 1]]


def spread(
    spec: FeatureSpec, inputs: dict[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Give every candidate a request of its own."""
    owners = inputs["request_of_candidate"]
    per_request = {i.name for i in spec.inputs if i.shape[0] == "B"}
    out = {name: a[owners] if name in per_request else a for name, a in inputs.items()}
    out["request_of_candidate"] = np.arange(len(owners))
    return out
