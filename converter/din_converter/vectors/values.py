"""Raw values on both sides of each rule by which an encoder makes ids of them."""

import math
from itertools import pairwise
from typing import Any

from din_infer.spec import Dense, Encoder, ReadColumn, Scale

__all__ = ["values_of"]

# Lengths at which one of the hashes takes another way.
KEY_LENGTHS = (3, 4, 7, 8, 9, 16, 17, 31, 32, 33, 64, 65, 128, 129, 240, 241, 300, 1025)
TEXTS: tuple[str | bytes, ...] = (
    *(
        "",
        "a",
        "user-1",
        "0",
        "007",
        "12345678901234567890",
        "-1",
        " 42 ",
        "1.0",
        "None",
        "\u00e9",
        "e\u0301",
    ),
    *(
        "\u65e5\u672c\u8a9e",
        "\U0001f600",
        "\U0001f468\u200d\U0001f469",
        "a\0b",
        "\ufeffx",
    ),
    b"\xff\xfe\x00",
)
INTEGERS = (
    *(0, 1, -1, 7, 255, 256, 65536, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**32),
    *(2**53 - 1, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63), 2**63, 2**64 - 1),
)
FLOATS = (
    *(0.0, -0.0, 1.0, -1.0, 0.5, 0.1, 1 / 3, 5e-324, 1e-45, 1e38, 1e39, -1e300),
    *(16777217.0, 9007199254740993.0, math.inf, -math.inf, math.nan),
)
NUMBERS = (0.0, -0.0, 1.0, -1.0, 0.1, 1 / 3, -2.25, 1e-45, 12345.678)


def values_of(column: ReadColumn) -> list[Any]:
    """List raw values for one reader of a column; it may refuse some of them."""
    if isinstance(column.part, Dense):
        return [*NUMBERS, *_numbers_of(column.part.scale), *_missing]
    encoder = column.encoder
    if encoder is None:
        return [0, 1]
    found = _own_values(encoder, column.dtype)
    if column.dtype == "string":
        keys = [_key(n) for n in KEY_LENGTHS]
        keys = keys if encoder.type == "hash" else keys[:2]
        # beside UUIDs, other bytes may be taken for one
        texts = [t for t in TEXTS if isinstance(t, str) or not encoder.uuid_as]
        return [*found, *texts, *keys]
    if column.dtype == "int64":
        return [*found, *INTEGERS]
    return [*found, *FLOATS]


_missing = (math.nan, math.inf, -math.inf, 1e39, -1e300)


def _key(length: int) -> str:
    return "".join(chr(33 + (7 * i + length) % 90) for i in range(length))


def _own_values(encoder: Encoder, dtype: str) -> list[Any]:
    """List the values that an encoder names, and those beside them."""
    if encoder.type == "hash":
        mask = encoder.mask_value
        if mask is None:
            return []
        return [mask, mask + 1 if isinstance(mask, int) else f"{mask} "]
    if encoder.type == "vocab":
        values = encoder.values
        chosen = (
            [values[i * (len(values) - 1) // 7] for i in range(8)] if values else []
        )
        if dtype == "string":
            return [*chosen, *(f"{v} " for v in chosen[:2])]
        return [*chosen, *(int(v) + 1 for v in chosen)]
    if encoder.type == "identity":
        last = encoder.rows - 1
        return [0, min(1, last), last // 2, last, last + 1, -1]
    count = len(encoder.boundaries)
    bounds = (
        [encoder.boundaries[i * (count - 1) // 7] for i in range(8)] if count else []
    )
    if dtype == "int64":
        sides = [math.floor(b) + d for b in bounds for d in (-1, 0, 1)]
        return [b for b in sides if abs(b) < 2**63]
    ends = (-math.inf, math.inf)
    return [x for b in bounds for x in (b, *(math.nextafter(b, end) for end in ends))]


def _numbers_of(scale: Scale | None) -> list[float]:
    """List numbers at and beside what a scale has as constants."""
    if scale is None or scale.type == "none":
        return []
    if scale.type == "quantile":
        found = []
        for b in scale.boundaries:
            found += [b[0] - 1.0, b[0], b[len(b) // 2], b[-1], b[-1] + 1.0]
            found += [(x + y) / 2 for x, y in pairwise(b[:4])]
        return [*found, 1e300, -1e300]
    pairs = list(zip(scale.low, scale.spread, strict=True))
    if scale.type == "log1p":
        # both sides of where the logarithm takes another way
        return [
            2.0**-53,
            2.0**-54,
            0.41421356,
            0.41421357,
            -0.5,
            9.0,
            -1e6,
            1e15,
            1e300,
        ]
    found = [
        low + d * spread for low, spread in pairs for d in (-1.5, 0.0, 0.3, 1.0, 1.7)
    ]
    return [*found, 1e300, -1e300] if scale.type == "minmax" else found
