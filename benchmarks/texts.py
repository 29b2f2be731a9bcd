"""Keys as text: StringArrays [n], all different but for chance."""

import math

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.draw import scattered

__all__ = ["ids", "random_texts", "uuids"]

LARGEST_ID = 9_999_999
DASHES = (8, 13, 18, 23)


def ids(n: int) -> pa.Array:
    """Make "goods_" and a number of 1 to 7 digits.

    The key that `draw.zipf` draws the r-th most often has the number r ** e, where e
    makes 9,999,999 of r = n: so the logarithm of a number that is drawn is uniform, and
    each count of digits as likely as the next.
    """
    rank = np.arange(1, n + 1)
    exponent = max(1.0, math.log(LARGEST_ID) / math.log(max(n, 2)))
    numbers = np.empty(n, np.int64)
    numbers[scattered(rank, n)] = rank**exponent
    return pa.array([f"goods_{i}" for i in numbers.tolist()])


def uuids(rng: np.random.Generator, n: int) -> pa.Array:
    """Make UUIDs of version 4 in their canonical form, 36 bytes."""
    raw = rng.integers(0, 256, (n, 16), np.uint8)
    raw[:, 6] = raw[:, 6] & 0x0F | 0x40
    raw[:, 8] = raw[:, 8] & 0x3F | 0x80
    digits = np.frombuffer(raw.tobytes().hex().encode(), np.uint8).reshape(n, 32)
    text = np.full((n, 36), ord("-"), np.uint8)
    text[:, np.delete(np.arange(36), DASHES)] = digits
    return _texts(np.full(n, 36), text.ravel())


def random_texts(
    rng: np.random.Generator, lengths: NDArray[np.int64], prefix: bytes = b""
) -> pa.Array:
    """Make ASCII of those lengths: half of them digits, half letters."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    total = int(offsets[-1])
    digits = rng.integers(ord("0"), ord("9") + 1, total, np.uint8)
    letters = rng.integers(ord("a"), ord("z") + 1, total, np.uint8)
    is_number = np.repeat(rng.random(len(lengths)) < 0.5, lengths)
    text = np.where(is_number, digits, letters)
    for i, byte in enumerate(prefix):
        text[offsets[:-1] + i] = byte
    return _texts(lengths, text)


def _texts(lengths: NDArray[np.int64], text: NDArray[np.uint8]) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    starts = pa.py_buffer(offsets)
    return pa.StringArray.from_buffers(len(lengths), starts, pa.py_buffer(text))
