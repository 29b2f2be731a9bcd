# ruff: noqa: ANN401 - rows hold anything
"""Slow and obvious twins of the encoders: what the fast code must equal.

Everything here is pure Python on lists; a batch is a list of dicts, None is null.
"""

import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from din_infer.spec import Behavior, Encoder, FeatureSpec, MultiHot

MASK = 2**64 - 1
P1 = 0x9E3779B185EBCA87
P2 = 0xC2B2AE3D27D4EB4F
P3 = 0x165667B19E3779F9
P4 = 0x85EBCA77C2B2AE63
P5 = 0x27D4EB2F165667C5


def rotate(x: int, bits: int) -> int:
    return ((x << bits) | (x >> (64 - bits))) & MASK


def xxh64_round(acc: int, lane: int) -> int:
    return rotate((acc + lane * P2) & MASK, 31) * P1 & MASK


def xxh64(key: bytes, seed: int = 0) -> int:
    """Hash as the seven steps of doc/xxhash_spec.md say."""
    n = len(key)
    at = 0
    if n < 32:
        acc = (seed + P5) & MASK
    else:
        start = (seed + P1 + P2, seed + P2, seed, seed - P1)
        accs = [a & MASK for a in start]
        while n - at >= 32:
            for i in range(4):
                lane = int.from_bytes(key[at : at + 8], "little")
                accs[i] = xxh64_round(accs[i], lane)
                at += 8
        turned = [rotate(a, r) for a, r in zip(accs, (1, 7, 12, 18), strict=True)]
        acc = sum(turned) & MASK
        for a in accs:
            acc = ((acc ^ xxh64_round(0, a)) * P1 + P4) & MASK
    acc = (acc + n) & MASK
    while n - at >= 8:
        acc ^= xxh64_round(0, int.from_bytes(key[at : at + 8], "little"))
        acc = (rotate(acc, 27) * P1 + P4) & MASK
        at += 8
    if n - at >= 4:
        acc ^= int.from_bytes(key[at : at + 4], "little") * P1 & MASK
        acc = (rotate(acc, 23) * P2 + P3) & MASK
        at += 4
    while at < n:
        acc ^= key[at] * P5 & MASK
        acc = rotate(acc, 11) * P1 & MASK
        at += 1
    acc = (acc ^ (acc >> 33)) * P2 & MASK
    acc = (acc ^ (acc >> 29)) * P3 & MASK
    return acc ^ (acc >> 32)


def signed(x: int, bits: int) -> int:
    return x - 2**bits if x >= 2 ** (bits - 1) else x


def reduce(h: int, n: int, how: str) -> int:
    if how == "offset":
        return 1 + h % (n - 1)
    if how == "mod":
        return h % n
    if how == "pmod":
        return signed(h, 64) % n
    if how == "abs":
        return abs(signed(h & (2**32 - 1), 32)) % n
    return signed(h, 64)


def as_bytes(value: Any, int_as: str) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    if int_as == "text":
        return str(value).encode()
    return int(value).to_bytes(8, "little", signed=True)


def clean(value: Any, dtype: str) -> Any:
    """Return the value as its dtype has it, None for missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return int(value) if dtype == "int64" else value


def encode_value(value: Any, dtype: str, encoder: Encoder) -> tuple[int, bool, bool]:
    """Return (id, is null, is unseen)."""
    value = clean(value, dtype)
    if value is None:
        return 0, True, False
    if encoder.type == "hash":
        h = xxh64(as_bytes(value, encoder.int_as), encoder.seed)
        return reduce(h, encoder.rows, encoder.reduce), False, False
    if encoder.type == "bucketize":
        return 1 + sum(b <= value for b in encoder.boundaries), False, False
    if encoder.type == "identity":
        if 0 <= value < encoder.rows:
            return value, False, False
    else:
        value = value.decode() if isinstance(value, bytes) else value
        if value in encoder.values:
            return 1 + list(encoder.values).index(value), False, False
    return (encoder.rows - 1 if encoder.unseen == "row" else 0), False, True


def keep(part: Behavior | MultiHot, lists: list[list[Any]], length: int | None) -> Any:
    """Return the parallel lists after padding and truncation, oldest first."""
    n = len(lists[0])
    if length is not None:
        chosen = list(range(length))
    elif part.pad_value is not None:
        is_pad = [v is not None and v == part.pad_value for v in lists[0]]
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
        found = [encode_value(row[f.column], f.dtype, f.encoder) for row in rows]
        out[f.name] = np.array([i for i, _, _ in found], dtype=np.int64)
        count(f.name, found)
    for part in (*spec.behavior, *spec.multi_hot):
        fields = [part] if isinstance(part, MultiHot) else list(part.fields)
        fields = [f for f in fields if getattr(f, "source", None) is None]
        kept = []
        truncated = 0
        for row in rows:
            lists = [row[f.column] for f in fields]
            lists = [[] if values is None else values for values in lists]
            length = row[part.length_column] if part.length_column else None
            chosen, is_truncated = keep(part, lists, length)
            kept.append(chosen)
            truncated += is_truncated
        lengths = [len(chosen[0]) for chosen in kept]
        width = max(lengths, default=0)
        if part.padding == "attended":
            width = part.max_len
        for i, f in enumerate(fields):
            coded = [
                [encode_value(v, f.dtype, f.encoder) for v in chosen[i]]
                for chosen in kept
            ]
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
                table[b] = d.missing
                continue
            for k, x in enumerate(values if isinstance(values, list) else [values]):
                is_missing = x is None or not math.isfinite(x)
                nulls += is_missing
                table[b, k] = d.missing if is_missing else x
        out[d.name] = table
        counts[d.name] = {
            "rows": n, "nulls": nulls, "unseen": 0, "truncated": 0, "empty": 0
        }  # fmt: skip
    out["request_of_candidate"] = np.arange(n, dtype=np.int64)
    return out, counts
