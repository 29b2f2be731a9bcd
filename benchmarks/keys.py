"""Raw behaviors to encode.

Letters: B rows, T positions, V keys that are kept.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks import texts, timing
from benchmarks.draw import pool_size, zipf
from benchmarks.timing import WrongOutputError

__all__ = [
    "BUCKETS",
    "HASHES",
    "TWO_FIELDS",
    "Batch",
    "Fields",
    "Hash",
    "Lists",
    "Padded",
    "Request",
    "Scenario",
    "Source",
    "flatten",
    "to_bytes",
]

BUCKETS = 1_000_000
CATEGORIES = 1_000
ROWS_OF_USER = 20
SEEN = 0.9
HISTORY = ("hist_goods_id", "hist_cate_id", "hist_shop_id")
CANDIDATE = ("goods_id", "cate_id", "shop_id")
USER = "user_id"
TWO_FIELDS = "two-fields"
URL = b"https://shop.example/"

Padded = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Ids [B, T] and lengths [B]."""


class Hash(NamedTuple):
    """A hash with a name and a specification, by a library that is not ours.

    `reduce` is the spec's, as its users have it: `mod` in TensorFlow, `abs` in
    scikit-learn.
    """

    name: str
    module: str
    function: str
    reduce: Literal["offset", "mod", "abs"]

    def load(self) -> Callable[[bytes], int]:
        """Import the function; it takes a key.

        Raises
        ------
        ImportError
            If the library is not installed.
        """
        function: Callable[[bytes], int]
        function = getattr(import_module(self.module), self.function)
        return function

    def to_bucket(self, h: Any) -> Any:  # noqa: ANN401
        """Reduce a hash, or an array of them."""
        if self.reduce == "offset":
            return 1 + h % (BUCKETS - 1)
        return (abs(h) if self.reduce == "abs" else h) % BUCKETS


HASHES = {
    h.name: h
    for h in (
        Hash("xxh64", "xxhash", "xxh64_intdigest", "offset"),
        Hash("xxh3_64", "xxhash", "xxh3_64_intdigest", "offset"),
        Hash("murmur3_32", "mmh3", "hash", "abs"),
        Hash("farmhash64", "farmhash", "fingerprint64", "mod"),
    )
}


@dataclass(frozen=True)
class Scenario(timing.Scenario):
    """One kind of keys; in `exploded`, rows of a user follow each other."""

    kind: Literal["goods", "ids", "mixed", "uuids", "long", "int64"] = "goods"
    unit: str = "key"


class Lists:
    """A column of lists, [B]: of strings, of int64 or of int32 in a dictionary."""

    def __init__(self, column: pa.Array) -> None:
        self.column = column
        self.values: pa.Array = column.values
        self.offsets: NDArray[np.int32] = column.offsets.to_numpy()

    def __len__(self) -> int:
        return len(self.values)

    @property
    def nbytes(self) -> int:
        """The size of the keys."""
        return sum(b.nbytes for b in self.buffers)

    @property
    def buffers(self) -> list[NDArray[np.uint8]]:
        """What all keys lie in."""
        found = self.values.buffers()
        return [np.frombuffer(b, np.uint8) for b in found if b is not None]

    @property
    def codes(self) -> NDArray[np.int32]:
        """A number for each key, [V]: equal where the keys are."""
        codes: NDArray[np.int32] = self.values.dictionary_encode().indices.to_numpy()
        return codes

    def take(self, places: NDArray[np.int64]) -> list[bytes]:
        """Return some keys as what is hashed."""
        return to_bytes(self.values.take(pa.array(places)).to_pylist())

    def unpad(self, output: Padded) -> NDArray[np.int64]:
        """Take the V ids out of padded ones.

        Raises
        ------
        WrongOutputError
            If shape, lengths or padding are not those of the lists.
        """
        ids, lengths = output
        wanted = np.diff(self.offsets)
        shape = len(wanted), int(wanted.max())
        if ids.dtype != np.int64 or ids.shape != shape:
            message = f"expected int64 {shape}, got {ids.dtype} {ids.shape}"
            raise WrongOutputError(message)
        if not np.array_equal(lengths, wanted):
            message = "expected the lists' lengths, got others"
            raise WrongOutputError(message)
        inside = np.arange(shape[1]) < wanted[:, None]
        if ids[~inside].any():
            message = f"expected 0 as padding, got {np.abs(ids[~inside]).max()}"
            raise WrongOutputError(message)
        return ids[inside]


class Fields:
    """The fields of one behavior sequence: columns of lists, of equal lengths."""

    def __init__(self, lists: Sequence[Lists]) -> None:
        self.lists = lists

    def __len__(self) -> int:
        return sum(map(len, self.lists))

    @property
    def nbytes(self) -> int:
        """The size of the keys."""
        return sum(each.nbytes for each in self.lists)

    @property
    def buffers(self) -> list[NDArray[np.uint8]]:
        """What all keys lie in."""
        return [b for each in self.lists for b in each.buffers]


class Request:
    """One row in Python: T behaviors of three fields, a candidate and a user."""

    def __init__(self, keys: Sequence[str]) -> None:
        names = (*CANDIDATE, USER)
        t = (len(keys) - len(names)) // len(HISTORY)
        history = (list(keys[t * i : t * (i + 1)]) for i in range(len(HISTORY)))
        self.row: dict[str, Any] = {
            **dict(zip(HISTORY, history, strict=True)),
            **dict(zip(names, keys[-len(names) :], strict=True)),
        }

    def __len__(self) -> int:
        return 1

    @property
    def nbytes(self) -> int:
        """The size of the keys, as ASCII."""
        return sum(map(len, self.keys))

    @property
    def keys(self) -> list[str]:
        """All keys of the row, V = 3 T + 4."""
        return flatten(self.row)

    @property
    def codes(self) -> NDArray[np.int64]:
        """A number for each key, [V]: equal where the keys are."""
        return np.unique(self.keys, return_inverse=True)[1]

    def take(self, places: NDArray[np.int64]) -> list[bytes]:
        """Return some keys as what is hashed."""
        keys = self.keys
        return to_bytes([keys[i] for i in places])

    def unpad(self, output: dict[str, NDArray[Any]]) -> NDArray[np.int64]:
        """Concatenate the ids of all fields.

        Raises
        ------
        WrongOutputError
            If a shape is not that of one row.
        """
        t = len(self.row[HISTORY[0]])
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(HISTORY, (1, t))
        shapes |= dict.fromkeys((*CANDIDATE, USER), (1,))
        for name, shape in shapes.items():
            if output[name].shape != shape:
                message = f"expected {shape} of {name}, got {output[name].shape}"
                raise WrongOutputError(message)
        return np.concatenate([output[name].ravel() for name in shapes])


Batch = Lists | Fields | Request


def flatten(row: dict[str, Any]) -> list[str]:
    """List the keys of a request."""
    out: list[str] = []
    for name in HISTORY:
        out += row[name]
    return out + [row[name] for name in (*CANDIDATE, USER)]


def to_bytes(keys: Iterable[str] | Iterable[int]) -> list[bytes]:
    """Make what is hashed: UTF-8, or 8 little-endian bytes."""
    return [
        key.encode() if isinstance(key, str) else key.to_bytes(8, "little", signed=True)
        for key in keys
    ]


@dataclass(frozen=True)
class Source:
    """The keys behind a scenario, and batches of them.

    `distinct` keys, drawn Zipf; in `vocab` that many are known and as many are not.
    """

    scenario: Scenario
    rows: int
    t: int
    distinct: int
    seed: int

    @cached_property
    def keys(self) -> pa.Array:
        """All keys there are."""
        rng = np.random.default_rng(self.seed)
        n = self.distinct
        name, kind = self.scenario.name, self.scenario.kind
        if name == "dictionary":
            n = min(n, CATEGORIES)
        if kind == "int64":
            ends = np.iinfo(np.int64)
            whole = rng.integers(ends.min, ends.max, n, np.int64, endpoint=True)
            return pa.array(whole)
        if kind == "ids":
            return texts.ids(n)
        if kind == "uuids":
            return texts.uuids(rng, n)
        if kind == "mixed":
            return texts.random_texts(rng, rng.integers(1, 25, n))
        if kind == "long":
            return texts.random_texts(rng, rng.integers(40, 101, n), URL)
        last = 2 * n if name == "vocab" else n
        return pa.array([f"goods_{1_000_000 + i}" for i in range(last)])

    @cached_property
    def categories(self) -> pa.Array:
        """The category of each key, "cate_" and a number of 1 to 3 digits."""
        names = pa.array([f"cate_{i}" for i in range(CATEGORIES)])
        return names.take(pa.array(np.arange(len(self.keys)) % CATEGORIES))

    @cached_property
    def vocabulary(self) -> list[str]:
        """The keys that `vocab` knows."""
        known: list[str] = self.keys[: self.distinct].to_pylist()
        return known

    @cached_property
    def places(self) -> dict[bytes, int]:
        """The id of each key that `vocab` knows."""
        return {key.encode(): 1 + i for i, key in enumerate(self.vocabulary)}

    def draw(self, size: int) -> Sequence[Batch]:
        """Draw as many batches as fill `size` bytes."""
        rng = np.random.default_rng(self.seed + 1)
        draw: Callable[[np.random.Generator], Batch] = self._draw_lists
        if self.scenario.name == "request":
            draw = self._draw_request
        first = draw(rng)
        return [first, *(draw(rng) for _ in range(1, pool_size(size, first.nbytes)))]

    def _draw_places(self, rng: np.random.Generator, n: int) -> NDArray[np.int64]:
        if self.scenario.name != "vocab":
            return zipf(rng, len(self.keys), (n,))
        places = zipf(rng, self.distinct, (n,))
        return places + self.distinct * (rng.random(n) >= SEEN)

    def _draw_request(self, rng: np.random.Generator) -> Request:
        n = len(HISTORY) * self.t + len(CANDIDATE) + 1
        return Request(self.keys.take(pa.array(self._draw_places(rng, n))).to_pylist())

    def _draw_lists(self, rng: np.random.Generator) -> Lists | Fields:
        repeat = ROWS_OF_USER if self.scenario.name == "exploded" else 1
        lengths = rng.integers(1, self.t + 1, -(-self.rows // repeat))
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        places = self._draw_places(rng, int(offsets[-1]))
        if self.scenario.name == "dictionary":
            codes = pa.array(places.astype(np.int32))
            values = pa.DictionaryArray.from_arrays(codes, self.keys)
        else:
            values = self.keys.take(pa.array(places))
        column = pa.ListArray.from_arrays(pa.array(offsets), values)
        if repeat > 1:
            column = column.take(pa.array(np.arange(self.rows) // repeat))
        if self.scenario.name == TWO_FIELDS:
            values = self.categories.take(pa.array(places))
            beside = pa.ListArray.from_arrays(pa.array(offsets), values)
            return Fields([Lists(column), Lists(beside)])
        return Lists(column)
