"""The fast hashes and reductions, on every instruction set of this machine.

Long because four hashes have paths of their own for many lengths, and each is held to
its library in every shape of column.
"""

import ctypes
import functools
import itertools
import mmap
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import farmhash
import mmh3
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.feature_extraction import FeatureHasher
from sklearn.utils import murmurhash3_32

from din_infer import _kernels
from din_infer.columns import to_column
from din_infer.encode import hash_buckets
from din_infer.errors import DeviceError, InputError
from tests import hostile
from tests.encoding import encode_lists
from tests.reference_hash import (
    BITS,
    HASHES,
    INTEGERS,
    KEYS,
    MASK,
    MASK32,
    MX2,
    NUM_SEEDS,
    P1,
    P2,
    P3,
    P4,
    P5,
    PUBLISHED,
    SECRET,
    SEEDS,
    SPARK,
    golden,
    int_as_bytes,
    int_as_text,
    libraries,
    reduce,
    rotate,
    signed,
    spark_key,
    word,
)

Keys = Sequence[bytes | None]
Ints = Sequence[int | None]

ISAS = _kernels.isas()
LIBRARIES = libraries()
AS = {"bytes": int_as_bytes, "text": int_as_text}
HOWS = ["offset", "mod", "pmod", "abs"]

each_hash = pytest.mark.parametrize("name", HASHES)
each_isa = pytest.mark.parametrize("isa", ISAS)
each_form = pytest.mark.parametrize("int_as", AS)

ints64 = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-1000, 1000),
    st.sampled_from(INTEGERS),
)
sizes = st.one_of(
    st.integers(1, 2**63 - 1),
    st.integers(1, 300),
    st.integers(2**31 - 300, 2**31 + 300),
    st.integers(2**32 - 300, 2**32 + 300),
)

# Beside the 1, 4 and 8 keys of a vector and the hundreds of a block.
COUNTS = [*range(1, 10), 15, 16, 17, 63, 64, 65, 255, 256, 257, 511, 512, 513]
# Beside every length at which one of the hashes takes another path.
TURNS = sorted(
    {*range(35), 47, 48, 49, 63, 64, 65, 66, 95, 96, 97, 127, 128, 129, 130, 160, 191}
    | {192, 193, 239, 240, 241, 242, 255, 256, 257, 319, 320, 321, 511, 512, 513, 576}
    | {1023, 1024, 1025, 1026, 1087, 1088, 1089, 2047, 2048, 2049, 2112, 2113, 4160}
)


def encode(
    column: _kernels.Column, name: str, dtype: str, **options: int | str | None
) -> list[int]:
    options = {"rows": 2, "reduce": "raw", **options}
    encoder = _kernels.Encoder("hash", dtype, hash=name, **options)
    ids, _, unseen = _kernels.encode_scalars(column, encoder)
    assert ids.dtype == np.int64
    assert unseen == 0
    return ids.tolist()


def raw(name: str, keys: Iterable[bytes | None], seed: int = 0) -> list[int]:
    """Return what the library says, in the form of reduce="raw"; 0 for null."""
    of = LIBRARIES[name]
    bits = BITS[name]
    return [0 if k is None else reduce(of(k, seed), 2, "raw", bits) for k in keys]


def check(
    keys: Keys,
    name: str,
    isa: str | None,
    seed: int = 0,
    column: object = None,
    expected: list[int] | None = None,
) -> None:
    """Hold strings to the library; shows the rows and lengths that differ."""
    column = to_column(list(keys) if column is None else column, "keys")
    got = encode(column, name, "string", isa=isa, seed=seed)
    expected = raw(name, keys, seed) if expected is None else expected
    if got != expected:
        rows = zip(keys, got, expected, strict=True)
        wrong = [(i, k and len(k)) for i, (k, g, e) in enumerate(rows) if g != e]
        pytest.fail(f"{len(wrong)} of {len(keys)} rows (row, length): {wrong[:20]}")


def check_ints(
    values: Ints,
    name: str,
    isa: str | None,
    int_as: str,
    seed: int = 0,
    column: object = None,
) -> None:
    column = to_column(list(values) if column is None else column, "keys")
    got = encode(column, name, "int64", isa=isa, seed=seed, int_as=int_as)
    keys = [None if v is None else AS[int_as](v) for v in values]
    assert got == raw(name, keys, seed)


@functools.cache
def keys_of(num_bytes: int, count: int = 513) -> list[bytes]:
    data = np.random.default_rng([num_bytes, count]).bytes(num_bytes * count)
    return [data[i * num_bytes : (i + 1) * num_bytes] for i in range(count)]


@functools.cache
def raw_of(name: str, num_bytes: int, seed: int) -> list[int]:
    return raw(name, keys_of(num_bytes), seed)


def random_ints(count: int, seed: int = 0) -> list[int]:
    """Integers of every number of digits, of both signs."""
    rng = np.random.default_rng([count, seed])
    digits = rng.integers(1, 20, count)
    signs = rng.choice([-1, 1], count)
    values = [int(rng.integers(0, min(10**d, 2**63 - 1))) for d in digits.tolist()]
    return [v * int(s) for v, s in zip(values, signs, strict=True)]


# ------------------------------------------------------------------- what never changes


@each_isa
@pytest.mark.parametrize(("name", "key", "seed", "expected"), PUBLISHED)
def test_published_hashes_never_change(
    name: str, key: bytes, seed: int, expected: int, isa: str
) -> None:
    column = to_column([key], "keys")
    got = encode(column, name, "string", isa=isa, seed=seed)
    assert got == [reduce(expected, 2, "raw", BITS[name])]


@each_isa
def test_golden_hashes_never_change(isa: str) -> None:
    for name, seed, of, hashes in golden():
        expected = [reduce(h, 2, "raw", BITS[name]) for h in hashes]
        check(KEYS[of], name, isa, seed, expected=expected)
        if of.startswith("integers_as_"):
            column = to_column(list(INTEGERS), "keys")
            form = {"int_as": of.removeprefix("integers_as_"), "isa": isa}
            assert encode(column, name, "int64", seed=seed, **form) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("xxh64", [102, 577, 0, 598]),
        ("xxh3_64", [461, 882, 0, 236]),
        ("murmur3_32", [945, 339, 0, 1]),
        ("farmhash64", [958, 938, 0, 339]),
    ],
)
def test_buckets_never_change(name: str, expected: list[int]) -> None:
    assert hash_buckets(["a", "b", None, ""], 1_000, hash=name).tolist() == expected


def test_this_machine_runs_the_baseline() -> None:
    assert "baseline" in ISAS
    assert set(ISAS) <= {"baseline", "avx2", "avx512"}
    assert len(set(ISAS)) == len(ISAS)


# ------------------------------------- lengths; all in one batch: test_hash_lengths.py


@each_isa
@each_hash
def test_columns_of_one_length_equal_the_library(name: str, isa: str) -> None:
    for num_bytes in TURNS:
        keys = keys_of(num_bytes)
        column = pa.array(keys, pa.binary())
        for count in COUNTS:
            seed = SEEDS[name][count % len(SEEDS[name])]
            expected = raw_of(name, num_bytes, seed)[:count]
            check(keys[:count], name, isa, seed, column[:count], expected)


@each_isa
@each_hash
def test_a_few_keys_of_any_one_length_equal_the_library(name: str, isa: str) -> None:
    for num_bytes in range(601):
        check(keys_of(num_bytes, 19), name, isa, SEEDS[name][num_bytes % 2 - 1])


@each_isa
@each_hash
@pytest.mark.parametrize(
    ("a", "b"),
    [
        (0, 1),
        (0, 64),
        (3, 4),
        (7, 8),
        (8, 9),
        (12, 13),
        (16, 17),
        (31, 32),
        (5, 33),
        (8, 4160),
        (64, 65),
        (128, 129),
        (240, 241),
        (1024, 1025),
    ],
)
def test_two_lengths_in_turns_equal_the_library(
    name: str, isa: str, a: int, b: int
) -> None:
    seed = SEEDS[name][-1]
    for count in COUNTS:
        keys = [keys_of(b if i % 2 else a)[i] for i in range(count)]
        hashes = [raw_of(name, b if i % 2 else a, seed)[i] for i in range(count)]
        check(keys, name, isa, seed, expected=hashes)


@each_isa
@each_hash
@pytest.mark.parametrize("count", [1, 7, 8, 9, 15, 16, 17])
def test_so_many_keys_of_each_length_equal_the_library(
    name: str, isa: str, count: int
) -> None:
    rng = np.random.default_rng(count)
    for longest in (4, 16, 33, 70):
        lengths = np.repeat(np.arange(longest + 1), count)
        for _ in range(2):
            check([rng.bytes(int(n)) for n in lengths], name, isa)
            rng.shuffle(lengths)


@each_isa
@each_hash
@pytest.mark.parametrize("count", [*COUNTS, 5000])
def test_random_lengths_with_nulls_equal_the_library(
    name: str, isa: str, count: int
) -> None:
    rng = np.random.default_rng(count)
    lengths = rng.choice([*range(41), 64, 129, 241], count)
    keys = [None if rng.random() < 0.2 else rng.bytes(int(n)) for n in lengths]
    check(keys, name, isa, SEEDS[name][-1])


@each_isa
@each_hash
def test_columns_of_no_keys_give_zeros(name: str, isa: str) -> None:
    check([], name, isa, column=pa.array([], pa.binary()))
    for count in (1, 8, 256, 257):
        column = pa.array([None] * count, pa.binary())
        check([None] * count, name, isa, column=column)
        check([b""] * count, name, isa)
        check_ints([None] * count, name, isa, "bytes", column=column.cast(pa.int64()))


@each_isa
@each_hash
@given(st.lists(st.none() | st.binary(max_size=300), max_size=40), st.data())
def test_random_keys_and_seeds_equal_the_library(
    name: str, isa: str, keys: list[bytes | None], data: st.DataObject
) -> None:
    seed = data.draw(st.integers(0, NUM_SEEDS[name] - 1))
    check(keys, name, isa, seed, column=pa.array(keys, pa.binary()))


@each_hash
def test_the_default_instruction_set_equals_the_library(name: str) -> None:
    keys = [key for n in TURNS for key in keys_of(n)[:9]]
    check(keys, name, None)
    check_ints(random_ints(300), name, None, "bytes")


@each_isa
@each_hash
def test_threads_may_share_an_encoder(name: str, isa: str) -> None:
    encoder = _kernels.Encoder(
        "hash", "string", rows=2, hash=name, reduce="raw", isa=isa
    )
    columns = [[keys_of(n)[i] for n in TURNS] * 20 for i in range(8)]

    def ids(keys: list[bytes]) -> list[int]:
        column = _kernels.from_list(list(keys), "keys")
        return _kernels.encode_scalars(column, encoder)[0].tolist()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ids, columns)) == [raw(name, keys) for keys in columns]


# ------------------------------------------------------------------------------ layouts


def arrow_bytes(keys: Keys, shift: int) -> pa.Array:
    """Keys back to back from `shift` bytes after an aligned address."""
    offsets = np.cumsum([shift] + [len(k or b"") for k in keys]).astype(np.int32)
    data = pa.py_buffer(b"#" * shift + b"".join(k or b"" for k in keys))
    valid = np.packbits([k is not None for k in keys], bitorder="little")
    buffers = [pa.py_buffer(valid), pa.py_buffer(offsets), data]
    return pa.BinaryArray.from_buffers(pa.binary(), len(keys), buffers)


@each_isa
@each_hash
@pytest.mark.parametrize("shift", range(9))
def test_unaligned_keys_equal_the_library(name: str, isa: str, shift: int) -> None:
    keys: list[bytes | None] = [k for n in TURNS for k in keys_of(n)[:9]]
    check(keys, name, isa, column=arrow_bytes(keys, shift))
    keys[5::7] = [None] * len(keys[5::7])
    check(keys[3:-2], name, isa, column=arrow_bytes(keys, shift)[3:-2])


def sliced(keys: Keys, kind: pa.DataType) -> pa.Array:
    return pa.array([b"#", b"##########", *keys, b"#"], kind)[2:-1]


def dictionary(keys: Keys) -> pa.Array:
    return pa.array(keys, pa.binary()).dictionary_encode()


LAYOUTS: dict[str, Callable[[Keys], Any]] = {
    "binary": lambda keys: sliced(keys, pa.binary()),
    "large_binary": lambda keys: sliced(keys, pa.large_binary()),
    "binary_view": lambda keys: sliced(keys, pa.binary_view()),
    "dictionary": lambda keys: dictionary([*keys, *keys])[: len(keys)],
    "large dictionary": lambda keys: dictionary([*keys_of(9), *keys])[513:],
    "chunks": lambda keys: pa.chunked_array(
        [pa.array(keys[i : i + 37], pa.binary()) for i in range(0, len(keys), 37)]
    ),
    "list": list,
    "numpy objects": lambda keys: np.array(keys, dtype=object),
}


@each_isa
@each_hash
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_equals_the_library(name: str, isa: str, layout: str) -> None:
    rng = np.random.default_rng(3)
    lengths = rng.permutation(np.repeat(TURNS[:60], 9))
    keys: list[bytes | None] = [rng.bytes(int(n)) for n in lengths]
    check(keys, name, isa, column=LAYOUTS[layout](keys))
    keys[::5] = [None] * len(keys[::5])
    check(keys, name, isa, column=LAYOUTS[layout](keys))


@each_isa
@each_hash
@pytest.mark.parametrize("width", [1, 3, 8, 11, 16, 33, 70])
def test_numpy_text_equals_the_library(name: str, isa: str, width: int) -> None:
    rng = np.random.default_rng(width)
    keys = [rng.bytes(int(n)) + b"." for n in rng.integers(0, width, 300)]
    check(keys, name, isa, column=np.array(keys, dtype=f"S{width}"))
    texts = ["é" * (len(key) // 2) + "." for key in keys]
    column = np.array(texts, dtype=f"U{width}")
    check([text.encode() for text in texts], name, isa, column=column)


PAGE = mmap.PAGESIZE


def between_walls(content: bytes, *, at_end: bool) -> pa.Buffer:
    """Copy to memory where the byte before or after the content may not be read."""
    num_pages = max(1, -(-len(content) // PAGE))
    memory = mmap.mmap(-1, (num_pages + 2) * PAGE)
    start = PAGE * (num_pages + 1) - len(content) if at_end else PAGE
    memory[start : start + len(content)] = content
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    for wall in (address, address + PAGE * (num_pages + 1)):
        assert protect(ctypes.c_void_p(wall), ctypes.c_size_t(PAGE), 0) == 0
    return pa.foreign_buffer(address + start, len(content), memory)


def int32(*values: int) -> bytes:
    return b"".join(v.to_bytes(4, "little") for v in values)


def walled(keys: list[bytes], kind: pa.DataType, *, at_end: bool) -> pa.Array:
    """Make an array without a byte to spare in its buffers, and walls beside them."""
    if kind == pa.binary():
        ends = itertools.accumulate(map(len, keys), initial=0)
        contents = [int32(*ends), b"".join(keys)]
    else:
        views = []
        data = b""
        for k in keys:
            is_long = len(k) > 12
            rest = k[:4] + int32(0, len(data)) if is_long else k.ljust(12, b"\0")
            views.append(int32(len(k)) + rest)
            data += k if is_long else b""
        contents = [b"".join(views), data]
    buffers = [between_walls(c, at_end=at_end) for c in contents]
    array = pa.Array.from_buffers(kind, len(keys), [None, *buffers])
    array.validate(full=True)
    return array


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="mprotect as in Linux")


@on_linux
@each_isa
@each_hash
@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("kind", [pa.binary(), pa.binary_view()], ids=str)
def test_no_byte_beside_the_keys_is_read(
    name: str, isa: str, at_end: bool, kind: pa.DataType
) -> None:
    for num_bytes in TURNS:
        for count in (1, 2, 8, 9, 20):
            keys = keys_of(num_bytes)[:count]
            column = walled(keys, kind, at_end=at_end)
            expected = raw_of(name, num_bytes, 0)[:count]
            check(keys, name, isa, column=column, expected=expected)


@on_linux
@each_isa
@each_hash
@each_form
def test_no_byte_beside_integers_is_read(name: str, isa: str, int_as: str) -> None:
    for count in (1, 2, 7, 8, 9, 17, 257):
        values = random_ints(count)
        content = b"".join(int_as_bytes(v) for v in values)
        for at_end in (False, True):
            buffers = [None, between_walls(content, at_end=at_end)]
            column = pa.Array.from_buffers(pa.int64(), count, buffers)
            check_ints(values, name, isa, int_as, column=column)


@each_isa
@each_hash
@pytest.mark.parametrize("newest_first", [False, True])
def test_lists_equal_the_library(name: str, isa: str, newest_first: bool) -> None:
    rng = np.random.default_rng(5)
    rows: list[list[bytes | None]] = []
    for length in rng.integers(0, 40, 60).tolist():
        sizes = rng.choice([*range(20), 33, 250], length)
        rows.append([None if n == 7 else rng.bytes(int(n)) for n in sizes])
    column = _kernels.from_list([[b"first"], *rows], "keys")
    window = _kernels.Window(column)
    lengths, width, _, _ = window.finish(25, False)
    encoder = _kernels.Encoder(
        "hash", "string", rows=2, hash=name, reduce="raw", isa=isa
    )
    ids, _, _ = encode_lists(column, encoder, window, width, newest_first)
    for row, got, length in zip([[b"first"], *rows], ids, lengths, strict=True):
        kept = row[:25][::-1] if newest_first else row[-25:]
        assert got.tolist() == raw(name, kept) + [0] * (width - len(kept))
        assert length == len(kept)


# ----------------------------------------------------------------------------- integers


@each_isa
@each_hash
@each_form
@pytest.mark.parametrize("count", [*COUNTS, 5000])
def test_integers_are_hashed_as_8_little_endian_bytes_or_text(
    name: str, isa: str, int_as: str, count: int
) -> None:
    values: list[int | None] = [*random_ints(count)]
    for seed in SEEDS[name]:
        check_ints(values, name, isa, int_as, seed)
    values[::3] = [None] * len(values[::3])
    check_ints(values, name, isa, int_as, column=pa.array(values, pa.int64()))


@each_isa
@each_hash
@each_form
def test_integer_extremes_are_hashed_exactly(name: str, isa: str, int_as: str) -> None:
    powers = [10**d + e for d in range(19) for e in (-1, 0, 1)]
    powers += [2**b + e for b in range(63) for e in (-1, 0, 1)]
    values = [*INTEGERS, *powers, *(-v for v in powers), -(2**63) + 1]
    check_ints(values, name, isa, int_as, SEEDS[name][-1])
    for value in INTEGERS:
        for count in range(1, 10):
            check_ints([value] * count, name, isa, int_as)


@each_isa
@each_hash
@pytest.mark.parametrize(
    "dtype", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
)
def test_integers_of_every_type_hash_alike(name: str, isa: str, dtype: str) -> None:
    info = np.iinfo(dtype)
    low, high = int(info.min), min(int(info.max), 2**63 - 1)
    rng = np.random.default_rng(7)
    values = [low, high, *rng.integers(low, high, 300, dtype="int64").tolist()]
    array: NDArray[Any] = np.array(values, dtype=dtype)
    for form in AS:
        check_ints(values, name, isa, form, column=array)
        check_ints(values, name, isa, form, column=np.repeat(array, 3)[1::3])
        check_ints(values[1:], name, isa, form, column=pa.array(array)[1:])


@each_isa
@each_hash
@each_form
@given(st.lists(ints64, max_size=60), st.data())
def test_random_integers_equal_the_library(
    name: str, isa: str, int_as: str, values: list[int], data: st.DataObject
) -> None:
    seed = data.draw(st.integers(0, NUM_SEEDS[name] - 1))
    column = pa.array(values, pa.int64())
    check_ints(values, name, isa, int_as, seed, column=column)


# --------------------------------------------------------------------------- reductions

SIZES = [1, 2, 3, 7, 2**16, 2**30 - 1, 2**30, 2**30 + 1, 2**31 - 1, 2**31, 2**32 - 1]
SIZES += [2**32, 2**32 + 1, 2**62 + 3, 2**63 - 25, 2**63 - 1]


def legal(how: str) -> list[int]:
    return SIZES[1:] if how == "offset" else SIZES


def inverse(factor: int, bits: int = 64) -> int:
    return pow(factor, -1, 2**bits)


def undo_xor_shift(x: int, shift: int, bits: int = 64) -> int:
    out = x
    for _ in range(bits // shift):
        out = x ^ (out >> shift)
    return out


def key_of_xxh64(h: int) -> bytes:
    """Return the 8 bytes whose hash is `h`."""
    x = undo_xor_shift(h, 32) * inverse(P3) & MASK
    x = undo_xor_shift(x, 29) * inverse(P2) & MASK
    x = (undo_xor_shift(x, 33) - P4) * inverse(P1) & MASK
    x = (rotate(x, 64 - 27) ^ (P5 + 8)) * inverse(P1) & MASK
    return (rotate(x, 64 - 31) * inverse(P2) & MASK).to_bytes(8, "little")


def key_of_xxh3_64(h: int) -> bytes:
    """Return the 8 bytes whose hash is `h`."""
    x = undo_xor_shift(h, 28) * inverse(MX2) & MASK
    x = (x ^ ((x >> 35) + 8)) * inverse(MX2) & MASK
    # 64 times x ^ rotate(x, 49) ^ rotate(x, 24) is x again
    for _ in range(63):
        x ^= rotate(x, 49) ^ rotate(x, 24)
    x ^= word(SECRET, 8) ^ word(SECRET, 16)
    return rotate(x, 32).to_bytes(8, "little")


def key_of_murmur3_32(h: int) -> bytes:
    """Return 8 bytes whose hash is `h`."""
    start = rotate(0, 13, 32) * 5 + 0xE6546B64
    x = undo_xor_shift(h, 16, 32) * inverse(0xC2B2AE35, 32) & MASK32
    x = undo_xor_shift(x, 13, 32) * inverse(0x85EBCA6B, 32) & MASK32
    x = undo_xor_shift(x, 16, 32) ^ 8
    x = (x - 0xE6546B64) * inverse(5, 32) & MASK32
    x = (rotate(x, 32 - 13, 32) ^ start) * inverse(0x1B873593, 32) & MASK32
    x = rotate(x, 32 - 15, 32) * inverse(0xCC9E2D51, 32) & MASK32
    return bytes(4) + x.to_bytes(4, "little")


KEY_OF = {
    "xxh64": key_of_xxh64,
    "xxh3_64": key_of_xxh3_64,
    "murmur3_32": key_of_murmur3_32,
}


def edge_hashes(num_buckets: int, bits: int) -> list[int]:
    """Hashes beside the multiples of the divisor and the turns of the signs."""
    top = 2**bits
    edges = {x + e for x in (0, 2**31, 2**32, top // 2) for e in (-2, -1, 0, 1, 2)}
    for divisor in {num_buckets, max(1, num_buckets - 1)}:
        for limit in (3 * divisor, 2**31, 2**32, top // 2, top):
            last = limit // divisor * divisor
            edges |= {last + d * divisor + e for d in (-2, -1, 0) for e in (-1, 0, 1)}
    return sorted({h % top for h in edges} | {-h % top for h in edges})


@each_isa
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("name", KEY_OF)
def test_modulo_is_exact_beside_every_multiple(name: str, how: str, isa: str) -> None:
    for num_buckets in legal(how):
        hashes = edge_hashes(num_buckets, BITS[name])
        keys = [KEY_OF[name](h) for h in hashes]
        assert [LIBRARIES[name](k, 0) for k in keys] == hashes
        expected = [reduce(h, num_buckets, how, BITS[name]) for h in hashes]
        ints = to_column([signed(word(k, 0), 64) for k in keys], "keys")
        options = {"rows": num_buckets, "reduce": how, "isa": isa}
        assert encode(ints, name, "int64", **options) == expected, num_buckets
        strings = to_column(list(keys), "keys")
        assert encode(strings, name, "string", **options) == expected, num_buckets


@each_isa
@each_hash
@pytest.mark.parametrize("how", HOWS)
def test_every_reduction_equals_integer_arithmetic(
    name: str, how: str, isa: str
) -> None:
    values = list(range(-500, 500))
    hashes = [LIBRARIES[name](int_as_bytes(v), 0) for v in values]
    column = to_column(values, "keys")
    for num_buckets in legal(how):
        expected = [reduce(h, num_buckets, how, BITS[name]) for h in hashes]
        got = encode(column, name, "int64", rows=num_buckets, reduce=how, isa=isa)
        assert got == expected, num_buckets


@each_isa
@each_hash
@given(
    st.lists(ints64, min_size=1, max_size=40),
    sizes,
    st.sampled_from(HOWS),
    st.sampled_from(list(AS)),
)
def test_random_sizes_equal_integer_arithmetic(
    name: str, isa: str, values: list[int], num_buckets: int, how: str, int_as: str
) -> None:
    num_buckets = max(num_buckets, 2 if how == "offset" else 1)
    keys = [AS[int_as](v) for v in values]
    expected = [reduce(HASHES[name](k, 0), num_buckets, how, BITS[name]) for k in keys]
    options = {"rows": num_buckets, "reduce": how, "isa": isa}
    ints = to_column(list(values), "keys")
    assert encode(ints, name, "int64", int_as=int_as, **options) == expected
    assert encode(to_column(keys, "keys"), name, "string", **options) == expected


@each_isa
@each_hash
@pytest.mark.parametrize("how", [*HOWS, "raw"])
def test_null_is_0_under_every_reduction(name: str, how: str, isa: str) -> None:
    keys = [None if i % 3 else key for i, key in enumerate(keys_of(9))]
    options = {"rows": 1000, "reduce": how, "isa": isa}
    expected = [
        0 if k is None else reduce(LIBRARIES[name](k, 0), 1000, how, BITS[name])
        for k in keys
    ]
    assert encode(to_column(keys, "keys"), name, "string", **options) == expected


# ---------------------------------------------------------------------------- the peers


@each_isa
@given(st.lists(hostile.texts(), max_size=20), st.integers(0, 2**32 - 1))
def test_murmur3_32_equals_mmh3(isa: str, texts: list[str], seed: int) -> None:
    column = to_column(pa.array(texts, pa.string()), "keys")
    got = encode(column, "murmur3_32", "string", isa=isa, seed=seed)
    assert got == [mmh3.hash(text, seed, signed=False) for text in texts]


@each_isa
@given(st.lists(hostile.texts(), max_size=20))
def test_farmhash64_equals_pyfarmhash(isa: str, texts: list[str]) -> None:
    column = to_column(pa.array(texts, pa.string()), "keys")
    got = encode(column, "farmhash64", "string", isa=isa)
    assert [h & MASK for h in got] == [farmhash.fingerprint64(t) for t in texts]


@each_isa
@pytest.mark.parametrize("num_buckets", [1, 2, 3, 1000, 2**20, 2**30 + 1, 2**31 - 1])
def test_murmur3_32_abs_equals_the_columns_of_feature_hasher(
    isa: str, num_buckets: int
) -> None:
    # the token of hash -2**31, whose absolute value has no 32-bit form, is one of them
    tokens = [key_of_murmur3_32(2**31), b"", *(b"goods=%d" % i for i in range(600))]
    hasher = FeatureHasher(num_buckets, input_type="string", alternate_sign=False)
    expected = hasher.transform([[token] for token in tokens]).indices.tolist()
    options = {"rows": num_buckets, "reduce": "abs", "isa": isa}
    column = to_column(list(tokens), "keys")
    assert encode(column, "murmur3_32", "string", **options) == expected


@each_isa
def test_farmhash64_mod_equals_the_pages_of_tensorflow(isa: str) -> None:
    # tf.strings.to_hash_bucket_fast(["Hello", "TensorFlow", "2.x"], 3)
    column = to_column(["Hello", "TensorFlow", "2.x"], "keys")
    options = {"rows": 3, "reduce": "mod", "isa": isa}
    assert encode(column, "farmhash64", "string", **options) == [0, 2, 2]


# (system, what a spec says, keys, their buckets) from the pages of Keras' Hashing
KERAS = [
    ({"reduce": "mod"}, ["A", "B", "C", "D", "E"], [1, 0, 1, 1, 2]),
    # with mask_value="", which is null here
    ({"reduce": "offset"}, ["A", "B", None, "C", "D"], [1, 1, 0, 2, 2]),
]


@each_isa
@pytest.mark.parametrize(("options", "keys", "buckets"), KERAS)
def test_farmhash64_equals_the_pages_of_keras(
    options: dict[str, Any], keys: list[str | None], buckets: list[int], isa: str
) -> None:
    column = to_column(keys, "keys")
    got = encode(column, "farmhash64", "string", rows=3, isa=isa, **options)
    assert got == buckets


@given(st.lists(hostile.texts(), max_size=20), st.integers(0, 2**32 - 1))
def test_murmur3_32_equals_scikit_learn(texts: list[str], seed: int) -> None:
    got = encode(to_column(texts, "keys"), "murmur3_32", "string", seed=seed)
    assert got == [murmurhash3_32(text, seed, positive=True) for text in texts]


@each_isa
@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1), st.data())
def test_murmur3_32_of_4_bytes_equals_scikit_learn(
    isa: str, values: list[int], data: st.DataObject
) -> None:
    seed = data.draw(st.integers(0, 2**32 - 1))
    column = to_column(values, "keys")
    options = {"isa": isa, "seed": seed, "int_as": "bytes4"}
    expected = murmurhash3_32(np.array(values, np.int32), seed, positive=True)
    assert encode(column, "murmur3_32", "int64", **options) == expected.tolist()


SPARK_TYPES = {  # those of which docs/spec.md says what equals them
    "STRING": {"dtype": "string"},
    "BINARY": {"dtype": "string"},
    "BIGINT": {"dtype": "int64"},
    "TIMESTAMP": {"dtype": "int64"},
    "TIMESTAMP_NTZ": {"dtype": "int64"},
    "DECIMAL(4,2)": {"dtype": "int64"},
    "DECIMAL(18,0)": {"dtype": "int64"},
    "INT": {"dtype": "int64", "int_as": "bytes4"},
    "SMALLINT": {"dtype": "int64", "int_as": "bytes4"},
    "TINYINT": {"dtype": "int64", "int_as": "bytes4"},
    "BOOLEAN": {"dtype": "int64", "int_as": "bytes4"},
    "DATE": {"dtype": "int64", "int_as": "bytes4"},
    "FLOAT": {"dtype": "float", "int_as": "bytes4"},
    "DOUBLE": {"dtype": "float"},
}


@each_isa
@pytest.mark.parametrize(("kind", "value", "xxhash64", "murmur"), SPARK)
def test_what_equals_spark_and_what_does_not(
    kind: str,
    value: str | bytes | int | float | None,
    xxhash64: int,
    murmur: int,
    isa: str,
) -> None:
    column = to_column(pa.array([value]), "keys")
    options = {"dtype": "int64", **SPARK_TYPES.get(kind, {})}

    def found(name: str, **more: int | str) -> int:
        return encode(column, name, isa=isa, seed=42, **options, **more)[0]

    if value is None:  # 42 of Spark, 0 here
        assert (xxhash64, murmur) == (42, 42)
        assert (found("xxh64"), found("murmur3_32")) == (0, 0)
        return
    assert (found("xxh64") == xxhash64) == (kind in SPARK_TYPES)
    for n in (1000, 2**31 - 1):
        is_equal = found("xxh64", rows=n, reduce="pmod") == xxhash64 % n
        assert is_equal == (kind in SPARK_TYPES)
    # the tail of a string is one block to MurmurHash3, and one per byte to Spark
    is_equal = kind in SPARK_TYPES and len(spark_key(kind, value)) % 4 == 0
    n = 2**31 - 1
    assert (found("murmur3_32") == murmur % 2**32) == is_equal
    assert (found("murmur3_32", rows=n, reduce="pmod") == murmur % n) == is_equal
    is_equal = found("murmur3_32_spark", rows=n, reduce="pmod") == murmur % n
    assert is_equal == (kind in SPARK_TYPES)


@each_isa
@each_hash
@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=600))
def test_integers_may_be_hashed_as_4_bytes(
    name: str, isa: str, values: list[int]
) -> None:
    column = to_column(values, "keys")
    got = encode(column, name, "int64", isa=isa, int_as="bytes4")
    keys = [value.to_bytes(4, "little", signed=True) for value in values]
    assert got == raw(name, keys)


@each_isa
@pytest.mark.parametrize("place", [0, 1, 255, 256, 300])
@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 2**63 - 1, 2**64 - 1])
def test_integers_beyond_4_bytes_are_refused(isa: str, place: int, value: int) -> None:
    encoder = _kernels.Encoder("hash", "int64", rows=9, int_as="bytes4", isa=isa)
    values: list[int | None] = [*range(place), value, None, 5]
    columns = [to_column(values, "keys")]
    if value > 0:
        columns.append(to_column(pa.array(values, pa.uint64()), "keys"))
    for column in columns:
        with pytest.raises(InputError) as caught:
            _kernels.encode_scalars(column, encoder)
        assert str(caught.value) == (
            f"expected an integer in [-2**31, 2**31), got {value}"
            f" - at `keys`, row {place}"
        )


# ------------------------------------------------------------------------- hash_buckets


@each_hash
@given(st.lists(hostile.texts(), min_size=1), st.integers(2, 2**63 - 1), st.data())
def test_hash_buckets_of_strings_equals_the_twin(
    name: str, texts: list[str], num_buckets: int, data: st.DataObject
) -> None:
    seed = data.draw(st.integers(0, NUM_SEEDS[name] - 1))
    got = hash_buckets(texts, num_buckets, hash=name, seed=seed)
    hashes = [HASHES[name](text.encode(), seed) for text in texts]
    expected = [reduce(h, num_buckets, "offset", BITS[name]) for h in hashes]
    assert got.tolist() == expected


@each_hash
@given(st.lists(ints64, min_size=1), st.integers(2, 2**63 - 1), st.data())
def test_hash_buckets_of_integers_equals_the_twin(
    name: str, values: list[int], num_buckets: int, data: st.DataObject
) -> None:
    seed = data.draw(st.integers(0, NUM_SEEDS[name] - 1))
    got = hash_buckets(values, num_buckets, hash=name, seed=seed)
    hashes = [HASHES[name](int_as_bytes(v), seed) for v in values]
    expected = [reduce(h, num_buckets, "offset", BITS[name]) for h in hashes]
    assert got.tolist() == expected


@each_hash
def test_offset_leaves_bucket_0_and_fills_all_others(name: str) -> None:
    ids = hash_buckets(np.arange(10_000), 17, hash=name)
    assert set(ids.tolist()) == set(range(1, 17))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (
            {"num_buckets": 1},
            "expected 2 to 2**63 - 1 buckets, got 1 - at `num_buckets`",
        ),
        (
            {"num_buckets": 2**63},
            "expected 2 to 2**63 - 1 buckets, got 9223372036854775808"
            " - at `num_buckets`",
        ),
        (
            {"seed": -1},
            "expected a seed in [0, 2**64), got -1 - at `seed`",
        ),
        (
            {"hash": "xxh3_64", "seed": 2**64},
            "expected a seed in [0, 2**64), got 18446744073709551616 - at `seed`",
        ),
        (
            {"hash": "murmur3_32", "seed": 2**32},
            "expected a seed in [0, 2**32), got 4294967296 - at `seed`",
        ),
        (
            {"hash": "murmur3_32", "seed": -1},
            "expected a seed in [0, 2**32), got -1 - at `seed`",
        ),
        (
            {"hash": "farmhash64", "seed": 1},
            "expected seed 0, since farmhash64 takes none, got 1 - at `seed`",
        ),
        (
            {"hash": "md5"},
            "expected one of xxh64, xxh3_64, murmur3_32, farmhash64, siphash24,"
            " murmur3_32_spark, murmur3_32_vw, got 'md5' - at `hash`",
        ),
    ],
)
def test_hash_buckets_refuses_wrong_arguments(
    kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        hash_buckets(["a"], **{"num_buckets": 9, **kwargs})
    assert str(caught.value) == message


@each_isa
def test_the_environment_chooses_the_instruction_set(
    isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"rows": 9}
    monkeypatch.setenv("DIN_INFER_ISA", isa)
    assert _kernels.Encoder("hash", "string", **options).isa == isa
    other = ISAS[ISAS.index(isa) - 1]
    assert _kernels.Encoder("hash", "string", isa=other, **options).isa == other
    monkeypatch.setenv("DIN_INFER_ISA", "")
    assert _kernels.Encoder("hash", "string", **options).isa == ISAS[0]


@pytest.mark.parametrize("name", ["sse9", "AVX2", "avx512,avx2"])
def test_an_unknown_instruction_set_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIN_INFER_ISA", name)
    with pytest.raises(DeviceError) as caught:
        hash_buckets(["a"], 9)
    known = ", ".join(reversed(ISAS))
    assert str(caught.value) == (
        f"expected an instruction set of this machine ({known}), got {name}"
        " - at `DIN_INFER_ISA`"
    )
