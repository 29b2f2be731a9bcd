"""Keys of every length, 0 to 4160, mixed in one batch, equal the library.

Whoever hashes several keys side by side may take the bytes, the length or the state of
one for another's. So here keys of all lengths share their batches, in many orders, at
every alignment, and beside pages that may not be read; on every instruction set of this
machine, and blocks on AVX-512 in plain C too.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from din_infer import _kernels
from din_infer.columns import to_column
from tests.reference_hash import BITS, HASHES, SEEDS, libraries, reduce
from tests.test_block import NAMES, Isa, library
from tests.test_hash import PAGE, between_walls, on_linux

ISAS = _kernels.isas()
LONGEST = 4160
LENGTHS = np.arange(LONGEST + 1)
SHORT = 40
LIBRARIES = libraries()

Array = NDArray[np.int64]


def raw(name: str, keys: Iterable[bytes], seed: int) -> Array:
    """Hash by the library, in the form of reduce="raw"."""
    hash_of, bits = LIBRARIES[name], BITS[name]
    return np.array([reduce(hash_of(k, seed), 2, "raw", bits) for k in keys], np.int64)


def hold(got: Array, wanted: Array, sizes: Array, who: object) -> None:
    """Fail with the rows that differ, and the lengths of their keys."""
    rows = np.flatnonzero(got != wanted)
    found = list(zip(rows[:20].tolist(), sizes[rows[:20]].tolist(), strict=True))
    assert not found, f"{who}: {len(rows)} of {len(got)} rows (row, length): {found}"


# ------------------------------------------------------------------------------ columns

# One key of each length, and ten of each short one.
SIZES = np.concatenate([LENGTHS, np.repeat(np.arange(SHORT + 1), 9)])


@functools.cache
def keys() -> list[bytes]:
    rng = np.random.default_rng(1)
    return [rng.bytes(int(n)) for n in SIZES]


@functools.cache
def hashes(name: str, seed: int) -> Array:
    return raw(name, keys(), seed)


def orders() -> dict[str, Array]:
    """Name the keys of a column, in their order."""
    rng = np.random.default_rng(2)
    short, long = np.flatnonzero(SIZES <= SHORT), np.flatnonzero(SIZES > SHORT)

    def among(rare: Array, often: Array, count: int) -> Array:
        """Put each rare key somewhere among `count` - 1 of the others."""
        groups = np.resize(rng.permutation(often), (len(rare), count))
        groups[np.arange(len(rare)), rng.integers(0, count, len(rare))] = rare
        return groups.ravel()

    return {
        "rising": LENGTHS,
        "falling": LENGTHS[::-1],
        "shuffled": rng.permutation(len(SIZES)),
        "short and long in turns": np.stack([LENGTHS, LENGTHS[::-1]], 1).ravel(),
        "runs of one length": np.repeat(rng.permutation(LENGTHS), 1 + LENGTHS % 3),
        "one long among 16": among(long, short, 16),
        "one long among 256": among(rng.choice(long, 50), short, 256),
        "one short among 16": among(rng.choice(short, 200), long, 16),
        "one short among 256": among(rng.choice(short, 16), long, 256),
    }


ORDERS = orders()


def text(kind: pa.DataType, dtype: type) -> Callable[[list[bytes]], pa.Array]:
    """Make the array from its buffers: the keys are any bytes, not UTF-8."""

    def make(some: list[bytes]) -> pa.Array:
        ends = np.cumsum([0, *map(len, some)]).astype(dtype)
        buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(some))]
        return pa.Array.from_buffers(kind, len(some), buffers)

    return make


STRINGS = text(pa.string(), np.int32)
FORMS: dict[str, Callable[[list[bytes]], Any]] = {
    "string": STRINGS,
    "large_string": text(pa.large_string(), np.int64),
    "string_view": lambda some: STRINGS(some).cast(pa.string_view()),
    "list": list,
}


@functools.cache
def encoder(name: str, isa: str, seed: int) -> _kernels.Encoder:
    how = {"rows": 2, "reduce": "raw", "hash": name}
    return _kernels.Encoder("hash", "string", isa=isa, seed=seed, **how)


def hash_column(column: _kernels.Column, name: str, isa: str, seed: int) -> Array:
    ids, _, _ = _kernels.encode_scalars(column, encoder(name, isa, seed))
    return ids


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("order", ORDERS)
def test_all_lengths_in_one_column_equal_the_library(order: str, form: str) -> None:
    places = ORDERS[order]
    column = to_column(FORMS[form]([keys()[i] for i in places]), "keys")
    for name, isa in itertools.product(HASHES, ISAS):
        # each seed with several orders and forms
        seed = SEEDS[name][(len(order) + len(form)) % len(SEEDS[name])]
        got = hash_column(column, name, isa, seed)
        hold(got, hashes(name, seed)[places], SIZES[places], (name, isa, seed))


def test_fixed_size_binary_of_every_width_equals_the_library() -> None:
    content = np.random.default_rng(3).bytes(4 * LONGEST)
    buffer = pa.py_buffer(content)
    rows = []  # width, column, its keys
    for width in range(1, LONGEST + 1):
        # as many as fill registers, where they are short; at an address of any kind
        start, count = width * 29 % 64, 19 if width < 300 else 3
        some = [content[start + width * i :][:width] for i in range(count)]
        array = pa.Array.from_buffers(
            pa.binary(width), count, [None, buffer.slice(start)]
        )
        rows.append((width, to_column(array, "keys").as_strings(False), some))
    for name in HASHES:
        wanted = [raw(name, some, 0) for _, _, some in rows]
        for isa in ISAS:
            for (width, column, _), expected in zip(rows, wanted, strict=True):
                got = hash_column(column, name, isa, 0)
                assert np.array_equal(got, expected), (name, isa, width)


# ------------------------------------------------------------------------------- blocks


@pytest.fixture(params=[*ISAS, "avx512 emulated"])
def isa(request: pytest.FixtureRequest) -> Isa:
    name = request.param.replace("avx512 emulated", "emulated")
    return Isa.in_dll(library(), f"din_block_{name}")


def blocks(count: int) -> Iterator[tuple[int, int]]:
    """Cut keys into blocks of up to 256, of any number beside full vectors."""
    sizes = itertools.cycle([256, 255, 17, 16, 15, 9, 8, 7, 4, 3, 2, 1, 256, 100])
    start = 0
    while start < count:
        end = min(count, start + next(sizes))
        yield start, end
        start = end


def hold_keys(
    isa: Isa, name: str, seed: int, pointers: Array, sizes: Array, wanted: Array
) -> None:
    """Hash keys that lie anywhere, block by block: in one piece, or who knows where."""
    for limit in (None, int((pointers + sizes).max())):
        hold_keys_up_to(limit, isa, name, seed, pointers, sizes, wanted)


def hold_keys_up_to(
    limit: int | None,
    isa: Isa,
    name: str,
    seed: int,
    pointers: Array,
    sizes: Array,
    wanted: Array,
) -> None:
    pointers, sizes = np.ascontiguousarray(pointers), np.ascontiguousarray(sizes)
    out = np.zeros(len(sizes) + 1, np.int64)
    for start, end in blocks(len(sizes)):
        before = out[end]
        arrays = [x.ctypes.data + 8 * start for x in (pointers, sizes, out)]
        hash_all = isa.hash_keys[NAMES.index(name)]
        hash_all(*arrays[:2], end - start, limit, seed, arrays[2])
        assert out[end] == before  # none written behind the last
    hold(out[:-1], wanted, sizes, (name, isa.name, seed))


@functools.cache
def area() -> tuple[bytes, pa.Buffer]:
    """Random pages between two that may not be read; the first is aligned."""
    content = np.random.default_rng(4).bytes(-(-(LONGEST + 64) // PAGE) * PAGE)
    return content, between_walls(content, at_end=False)


@functools.cache
def at_offsets(name: str, seed: int) -> tuple[Array, Array, Array]:
    """Keys of short lengths at each of 64 offsets, of all lengths at 4: with hashes."""
    content, _ = area()
    grids = [np.mgrid[0:321, 0:64].reshape(2, -1)]
    grids += [np.stack([LENGTHS, (LENGTHS * 29 + 16 * i) % 64]) for i in range(4)]
    sizes, offsets = np.concatenate(grids, axis=1)
    order = np.random.default_rng(5).permutation(len(sizes))
    sizes, offsets = sizes[order], offsets[order]
    pairs = zip(offsets.tolist(), sizes.tolist(), strict=True)
    return offsets, sizes, raw(name, (content[o : o + n] for o, n in pairs), seed)


@on_linux
@pytest.mark.parametrize("name", HASHES)
def test_unaligned_keys_equal_the_library(isa: Isa, name: str) -> None:
    seed = SEEDS[name][-1]
    offsets, sizes, wanted = at_offsets(name, seed)
    hold_keys(isa, name, seed, area()[1].address + offsets, sizes, wanted)


@functools.cache
def at_walls(name: str, seed: int) -> tuple[Array, Array]:
    """Hash what begins behind the first wall and what ends at the last, by length."""
    content, _ = area()
    front = raw(name, (content[:n] for n in LENGTHS), seed)
    return front, raw(name, (content[len(content) - n :] for n in LENGTHS), seed)


@on_linux
@pytest.mark.parametrize("name", HASHES)
def test_no_byte_beside_any_key_is_read(isa: Isa, name: str) -> None:
    seed = SEEDS[name][-1]
    front, back = at_walls(name, seed)
    content, buffer = area()
    first = np.full(len(LENGTHS), buffer.address)
    last = buffer.address + len(content) - LENGTHS
    rng = np.random.default_rng(6)
    for order in (LENGTHS, LENGTHS[::-1], rng.permutation(LENGTHS)):
        # those at one wall in this order, in turns with those at the other, reversed
        sizes = np.stack([order, order[::-1]], 1).ravel()
        pointers = np.stack([first[order], last[order[::-1]]], 1).ravel()
        wanted = np.stack([front[order], back[order[::-1]]], 1).ravel()
        hold_keys(isa, name, seed, pointers, sizes, wanted)
        hold_keys(isa, name, seed, last[order], order, back[order])


FEW = list(range(1, 16))  # lengths that fill a vector of 16 beside one key of any


def rows_at_walls() -> Iterator[tuple[bool, list[int]]]:
    """Lengths of keys that lie back to back, from the first wall or to the last."""
    for n in (*range(300), *range(300, LONGEST + 1, 37), LONGEST):
        yield True, [*FEW, LONGEST - n, n]
        yield False, [n, LONGEST - n, *FEW]
    for n, at_end in itertools.product(range(1, 300), (True, False)):
        yield at_end, [n] * 17


@functools.cache
def hashes_at_walls(name: str, seed: int) -> Sequence[Array]:
    content, _ = area()
    out = []
    for at_end, sizes in rows_at_walls():
        start = len(content) - sum(sizes) if at_end else 0
        ends = itertools.accumulate(sizes, initial=start)
        cut = itertools.pairwise(ends)
        out.append(raw(name, (content[i:j] for i, j in cut), seed))
    return out


@on_linux
@pytest.mark.parametrize("name", HASHES)
def test_no_byte_beside_strings_is_read(isa: Isa, name: str) -> None:
    seed = SEEDS[name][-1]
    content, buffer = area()
    rows = zip(rows_at_walls(), hashes_at_walls(name, seed), strict=True)
    for (at_end, sizes), wanted in rows:
        data = buffer.address + (len(content) - sum(sizes) if at_end else 0)
        ends = data + np.cumsum([0, *sizes])
        hold_keys(isa, name, seed, ends[:-1], np.array(sizes), wanted)
