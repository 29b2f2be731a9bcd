"""An encoder written from docs/without-python.md alone: slow, obvious, nothing of ours.

It reads `inputs.json` and the raw rows of `vectors.jsonl` as a client in any language
would. Hashes that have a published library are taken from it.
"""

import json
import math
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

Row = dict[str, Any]
M64, M32 = 2**64 - 1, 2**32 - 1


# ------------------------------------------------------------------------------ hashes


def hash_of(name: str, key: bytes, seed: list[int]) -> int:
    if name in ("xxh64", "xxh3_64"):
        import xxhash

        make = xxhash.xxh64 if name == "xxh64" else xxhash.xxh3_64
        return int(make(key, seed[0]).intdigest())
    if name == "murmur3_32":
        return murmur3(key, seed[0])
    if name == "farmhash64":
        import farmhash

        return int(farmhash.fingerprint64(key))
    if name == "siphash24":
        return siphash24(key, *seed)
    if name == "murmur3_32_spark":
        return spark(key, seed[0])
    if name == "murmur3_32_vw":
        key = key.strip(bytes(range(33)))
        if all(48 <= byte <= 57 for byte in key):
            return (int(key or b"0") + seed[0]) & M64
        return murmur3(key, seed[0])
    raise NotImplementedError(name)


def murmur3(key: bytes, seed: int) -> int:
    import mmh3

    return int(mmh3.hash(key, seed, signed=False))


def rotl(x: int, r: int, bits: int) -> int:
    return (x << r | x >> (bits - r)) & ((1 << bits) - 1)


def spark(key: bytes, seed: int) -> int:
    h, whole = seed, len(key) // 4 * 4
    words = [int.from_bytes(key[i : i + 4], "little") for i in range(0, whole, 4)]
    words += [b if b < 128 else b - 256 for b in key[whole:]]
    for w in words:
        w = rotl(w * 0xCC9E2D51 & M32, 15, 32) * 0x1B873593 & M32
        h = (rotl(h ^ w, 13, 32) * 5 + 0xE6546B64) & M32
    h ^= len(key)
    h = (h ^ h >> 16) * 0x85EBCA6B & M32
    h = (h ^ h >> 13) * 0xC2B2AE35 & M32
    return h ^ h >> 16


def siphash24(key: bytes, k0: int, k1: int) -> int:
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D]
    v += [k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def rounds(count: int) -> None:
        for _ in range(count):
            v[0] = (v[0] + v[1]) & M64
            v[2] = (v[2] + v[3]) & M64
            v[1], v[3] = rotl(v[1], 13, 64) ^ v[0], rotl(v[3], 16, 64) ^ v[2]
            v[0] = rotl(v[0], 32, 64)
            v[2] = (v[2] + v[1]) & M64
            v[0] = (v[0] + v[3]) & M64
            v[1], v[3] = rotl(v[1], 17, 64) ^ v[2], rotl(v[3], 21, 64) ^ v[0]
            v[2] = rotl(v[2], 32, 64)

    tail = len(key) % 8
    padded = key + bytes(7 - tail) + bytes([len(key) & 255])
    for i in range(0, len(padded), 8):
        word = int.from_bytes(padded[i : i + 8], "little")
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 255
    rounds(4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def signed(x: int, bits: int) -> int:
    return x - (1 << bits) if x >> (bits - 1) & 1 else x


def reduced(h: int, e: Row) -> int:
    n = e["buckets"]
    if e["reduce"] == "offset":
        return 1 + h % (n - 1)
    if e["reduce"] == "mod":
        return int(h % n)
    if e["reduce"] == "pmod":
        bits = 32 if e["hash"] in ("murmur3_32", "murmur3_32_spark") else 64
        return int(signed(h, bits) % n)
    low = signed(h & M32, 32)
    return int(abs(low) % n + (n if e["alternate_sign"] and low < 0 else 0))


# --------------------------------------------------------------------------------- ids


def key_of(value: Any, c: Row) -> bytes:  # noqa: ANN401
    if c["dtype"] == "string":
        if isinstance(value, str):
            return value.encode()
        if "hex" in value:
            return bytes.fromhex(value["hex"])
        text = value["uuid"]
        return (
            bytes.fromhex(text.replace("-", ""))
            if c["uuid_as"] == "bytes"
            else (text.encode())
        )
    size = {"bytes": 8, "bytes4": 4}.get(c["hashed_as"])
    if c["dtype"] == "int64":
        if size is None:
            return str(value).encode()
        return (int(value) & ((1 << 8 * size) - 1)).to_bytes(size, "little")
    x = float(value)
    if math.isnan(x):
        return bytes.fromhex("7ff8000000000000" if size == 8 else "7fc00000")[::-1]
    narrow = x if size == 8 else float(to_float32(x))
    return struct.pack("<d" if size == 8 else "<f", narrow if narrow != 0 else 0.0)


def to_float32(x: float) -> np.float32:
    with np.errstate(over="ignore"):
        return np.float32(x)


def id_of(values: list[Any], columns: list[Row], e: Row) -> int:
    seed = [int(s) for s in e.get("seed", ())]
    if e.get("together"):
        h = seed[0]
        for value, c in zip(values, columns, strict=True):
            if value is not None:
                own = e["hash"]
                # Spark's differs from MurmurHash3 for keys of 4 or 8 bytes in nothing
                h = hash_of(own, key_of(value, c), [h])
        return reduced(h, e)
    (value,), (c,) = values, columns
    is_nan = c["dtype"] != "string" and value is not None and value == "NaN"
    if value is None or (is_nan and e["type"] != "hash"):
        return 0
    if e["type"] == "hash":
        if e["mask_value"] is not None and value == e["mask_value"]:
            return 0
        return reduced(
            hash_of(e["hash"], e["prefix"].encode() + key_of(value, c), seed), e
        )
    if e["type"] == "bucketize":
        return 1 + sum(b <= float(value) for b in e["boundaries"])
    if e["type"] == "identity":
        found = int(value) if 0 <= int(value) < e["rows"] else None
    else:
        keys = [key_of(v, c) if c["dtype"] == "string" else v for v in e["values"]]
        key = key_of(value, c) if c["dtype"] == "string" else value
        found = 1 + keys.index(key) if key in keys else None
    if found is None:
        if e["unseen"] is None:
            raise ValueError(f"no id: {value}")
        return int(e["unseen"])
    return found


# ------------------------------------------------------------------------------- lists


def split(value: Any, c: Row) -> list[Any]:  # noqa: ANN401
    if value is None or value == "":
        return []
    if not isinstance(value, str):
        return list(value)
    if "format" in c["text"]:
        found = json.loads(value, parse_float=str, parse_int=str) or []
        is_whole = c["dtype"] == "int64"
        return [number(v) if is_whole and v is not None else v for v in found]
    parts = value.split(c["text"]["separator"])
    if c["dtype"] == "string":
        return parts
    if c["dtype"] == "float":
        return [part or None for part in parts]
    return [number(part) if part else None for part in parts]


def words(value: str) -> str:
    """Write the words that stand for numbers as those."""
    return {"true": "1", "false": "0"}.get(value.strip().lower(), value)


def number(text: str) -> str:
    text = text.strip()
    if set(text) <= set("+-0123456789"):
        return str(int(text))
    return text if "." not in text and "e" not in text else str(int(float(text)))


def is_pad(value: Any, pad: Any, c: Row) -> bool:  # noqa: ANN401
    if value is None:
        return False
    if c["dtype"] == "string":
        return key_of(value, c) == pad.encode()
    return bool(value == pad)


def chosen(row: Row, one: Row) -> list[int]:
    """Say which elements of the parallel lists are behaviors, oldest first."""
    part = one["list"]
    c = part["first_column"]
    first = split(row[c["name"]], c)
    n = range(len(first))
    kept = list(n)
    if part["length_column"] is not None and part["length_column"] in row:
        kept = list(range(int(row[part["length_column"]])))
    elif part["pad_value"] is not None:
        kept = [i for i in n if not is_pad(first[i], part["pad_value"], c)]
        if kept and part["pad_inside"] == "kept":
            kept = list(range(kept[0], kept[-1] + 1))
    return newest(kept, part)


def newest(kept: list[int], part: Row) -> list[int]:
    if part["order"] == "newest_first":
        return kept[: part["max_len"]][::-1]
    return kept[max(0, len(kept) - part["max_len"]) :]


def padded(lists: list[list[int]], part: Row) -> NDArray[np.int64]:
    width = max(map(len, lists), default=0)
    if part["padding"] == "attended":
        width = part["max_len"]
    out = np.zeros((len(lists), width), np.int64)
    for row, ids in enumerate(lists):
        out[row, : len(ids)] = ids
    return out


# ------------------------------------------------------------------------------- dense


def log1p(x: float) -> float:
    """fdlibm's, of |x|, with the sign of x."""
    a = abs(x)
    if a < 2.0**-53:
        return x
    f, k, c = a, 0, 0.0
    if a >= float.fromhex("0x1.a827999fcef32p-2"):
        u = 1.0 + a
        if a < 2.0**54:
            c = (a - (u - 1.0) if a < 1.0 else 1.0 - (u - a)) / u
        m, k = math.frexp(u)
        m, k = 2 * m, k - 1
        if m >= float.fromhex("0x1.6a09e667f3bcdp0"):
            m, k = m / 2, k + 1
        f = m - 1.0
    half, s = 0.5 * f * f, f / (2.0 + f)
    z = s * s
    w = z * z
    even = w * (
        3.999999999940941908e-01
        + w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01)
    )
    odd = z * (
        6.666666666666735130e-01
        + w
        * (
            2.857142874366239149e-01
            + w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01)
        )
    )
    low, high = 1.90821492927058770002e-10, 6.93147180369123816490e-01
    y = s * (half + odd + even) + (k * low + c) - half + f + k * high
    return -y if x < 0 else y


def scaled(x: float, k: int, scale: Row | None) -> float:
    if scale is None:
        return x
    if scale["type"] == "quantile":
        b = scale["boundaries"][k]
        if len(b) == 1 or x < b[0]:
            return 0.0
        if x >= b[-1]:
            return 1.0
        i = sum(edge <= x for edge in b) - 1
        return float((i + (x - b[i]) / (b[i + 1] - b[i])) / (len(b) - 1))
    shift, divisor = scale["shift"][k], scale["divisor"][k]
    if divisor == 0:
        return 0.0
    if scale["type"] == "log1p":
        x = log1p(x)
    with np.errstate(over="ignore"):
        y = float(np.float64(x - shift) / np.float64(divisor))
    return min(max(y, 0.0), 1.0) if scale["type"] == "minmax" else y


def dense_of(value: Any, one: Row) -> list[np.float32]:  # noqa: ANN401
    if isinstance(value, str) and "text" in one["columns"][0]:
        found = split(value, one["columns"][0])
        value = [words(v) if isinstance(v, str) else v for v in found]
    values = value if isinstance(value, list) else [value] * one["dim"]
    out = []
    for k, v in enumerate(values):
        x = math.nan if v is None else float(v)
        y = to_float32(scaled(x, k, one["scale"]) if math.isfinite(x) else math.nan)
        if not math.isfinite(y):
            y = to_float32(scaled(one["missing"], k, one["scale"]))
        out.append(y)
    return out


# ---------------------------------------------------------------------------- a batch


def encode(about: Row, vector: Row) -> dict[str, NDArray[Any]]:
    """Make the graph's inputs of one line of vectors.jsonl."""
    out: dict[str, NDArray[Any]] = {}
    for one in about["inputs"]:
        if one["kind"] == "requests":
            out[one["name"]] = np.array(vector["request_of_candidate"], np.int64)
            continue
        rows = vector["requests" if one["side"] == "user" else "candidates"]
        if one["kind"] == "dense":
            made = [dense_of(row[one["columns"][0]["name"]], one) for row in rows]
            out[one["name"]] = np.array(made, np.float32).reshape(len(rows), one["dim"])
        elif "list" in one:
            places = [chosen(row, one) for row in rows]
            if one["kind"] == "lengths":
                out[one["name"]] = np.array([len(p) for p in places], np.int64)
                continue
            made = []
            for row, kept in zip(rows, places, strict=True):
                lists = [split(row[c["name"]], c) for c in one["columns"]]
                made.append(
                    [
                        id_of(
                            [values[t] for values in lists],
                            one["columns"],
                            one["encoder"],
                        )
                        for t in kept
                    ]
                )
            out[one["name"]] = padded(made, one["list"])
        else:
            out[one["name"]] = np.array(
                [
                    id_of(
                        [row[c["name"]] for c in one["columns"]],
                        one["columns"],
                        one["encoder"],
                    )
                    for row in rows
                ],
                np.int64,
            )
    return out


def score(logits: NDArray[np.float32], about: Row) -> NDArray[np.float32]:
    z = about["scale"] * logits.astype(np.float64) + about["offset"]
    if about["link"] == "identity":
        return z.astype(np.float32)
    with np.errstate(over="ignore"):
        return (1.0 / (1.0 + np.exp(-z))).astype(np.float32)
