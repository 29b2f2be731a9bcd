# ruff: noqa: ANN401 - rows hold anything
"""Malformed Arrow structures, built by hand: each is refused, none crashes.

Above 400 lines: whatever is malformed is built from the same few structures.
"""

import ctypes
import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from din_infer import FeatureSpec, _kernels
from din_infer.columns import open_batch
from din_infer.errors import InputError
from tests.encoding import encode_lists


class Schema(ctypes.Structure):
    pass


class Array(ctypes.Structure):
    pass


Release = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
Schema._fields_ = [
    ("format", ctypes.c_char_p),
    ("name", ctypes.c_char_p),
    ("metadata", ctypes.c_char_p),
    ("flags", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("children", ctypes.POINTER(ctypes.POINTER(Schema))),
    ("dictionary", ctypes.POINTER(Schema)),
    ("release", ctypes.c_void_p),
    ("private_data", ctypes.c_void_p),
]
Array._fields_ = [
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(Array))),
    ("dictionary", ctypes.POINTER(Array)),
    ("release", ctypes.c_void_p),
    ("private_data", ctypes.c_void_p),
]

capsule_of = ctypes.pythonapi.PyCapsule_New
capsule_of.restype = ctypes.py_object
capsule_of.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]

released: list[int] = []  # of each array, which one it is


@Release
def release_array(address: int) -> None:
    array = Array.from_address(address)
    released.append(array.private_data)
    array.release = None


class Handmade:
    """An Arrow array, whose members a test then spoils."""

    def __init__(self, text: str, length: int, *buffers: Any) -> None:
        self.kept = [
            np.ascontiguousarray(b) if b is not None else None for b in buffers
        ]
        pointers = [None if b is None else b.ctypes.data for b in self.kept]
        self.schema = Schema(format=text.encode(), name=b"x")
        self.schema.release = ctypes.cast(release_array, ctypes.c_void_p)
        self.array = Array(length=length, n_buffers=len(buffers))
        # more pointers than are claimed, for tests that claim more
        self.array.buffers = (ctypes.c_void_p * (len(buffers) + 8))(*pointers)
        self.array.release = ctypes.cast(release_array, ctypes.c_void_p)
        self.array.private_data = id(self)

    def child(self, other: "Handmade") -> "Handmade":
        self.other = other
        self.schema.n_children = self.array.n_children = 1
        self.schema.children = (ctypes.POINTER(Schema) * 1)(
            ctypes.pointer(other.schema)
        )
        self.array.children = (ctypes.POINTER(Array) * 1)(ctypes.pointer(other.array))
        return self

    def coded(self, other: "Handmade") -> "Handmade":
        self.dictionary = other
        self.schema.dictionary = ctypes.pointer(other.schema)
        self.array.dictionary = ctypes.pointer(other.array)
        return self

    def set(self, **members: Any) -> "Handmade":
        for name, value in members.items():
            setattr(self.array, name, value)
        return self

    def __arrow_c_array__(self, requested_schema: Any = None) -> tuple[Any, Any]:
        schema = capsule_of(ctypes.addressof(self.schema), b"arrow_schema", None)
        array = capsule_of(ctypes.addressof(self.array), b"arrow_array", None)
        return schema, array


def i32(*values: int) -> Any:
    return np.array(values, dtype=np.int32)


def i64(*values: int) -> Any:
    return np.array(values, dtype=np.int64)


def numbers(n: int = 3) -> Handmade:
    return Handmade("l", n, None, np.arange(max(n, 1)))


def strings(n: int = 2) -> Handmade:
    return Handmade(
        "u", n, None, i32(*range(n + 1)), np.frombuffer(b"abcdef", np.uint8)
    )


def lists(*ends: int) -> Handmade:
    return Handmade("+l", len(ends) - 1, None, i32(*ends)).child(strings())


def coded_lists(*indices: int) -> Handmade:
    return Handmade("i", len(indices), None, i32(*indices)).coded(lists(0, 1, 2))


def without_dictionary(array: Handmade) -> Handmade:
    array.array.dictionary = None
    return array


def view(size: int, buffer: int = 0, offset: int = 0) -> Handmade:
    views = i32(size, 0, buffer, offset)
    return Handmade("vu", 1, None, views, np.zeros(20, np.uint8), i64(20))


def views(*sizes: int, bits: int | None = None) -> Handmade:
    """Views into the head of one buffer; null where a bit is 0."""
    words = [word for size in sizes for word in (size, 0, 0, 0)]
    valid = None if bits is None else np.array([bits], dtype=np.uint8)
    data = np.frombuffer(b"abcdefghijklmnopqrst", np.uint8)
    array = Handmade("vu", len(sizes), valid, i32(*words), data, i64(20))
    return array.set(null_count=0 if bits is None else -1)


LISTS = "expected list offsets that rise inside their values, got others - at `x`, row "
INSIDE = "expected values inside their buffers, got others - at `x`, element "
INDICES = "expected indices inside their dictionary, got others - at `x`, element "
CODED_ROW = "expected indices inside their dictionary, got others - at `x`, row "


def malformed(rule: str) -> str:
    return f"expected {rule}, got a malformed Arrow array - at `x`"


MALFORMED: list[tuple[Callable[[], Handmade], str]] = [
    (lambda: Handmade("+l", 2, None, i32(0, 2, 4)).child(numbers()), LISTS + "1"),
    (lambda: Handmade("+l", 2, None, i32(0, 3, 2)).child(numbers()), LISTS + "1"),
    (lambda: Handmade("+l", 1, None, i32(-1, 2)).child(numbers()), LISTS + "0"),
    (lambda: Handmade("+L", 1, None, i64(0, 2**62)).child(numbers()), LISTS + "0"),
    (lambda: Handmade("+vl", 1, None, i32(2), i32(2)).child(numbers()), LISTS + "0"),
    (lambda: Handmade("+vl", 1, None, i32(0), i32(-1)).child(numbers()), LISTS + "0"),
    (
        lambda: Handmade("+vL", 1, None, i64(2**62), i64(2**62)).child(numbers()),
        LISTS + "0",
    ),
    (lambda: Handmade("+w:2", 2, None).child(numbers()), LISTS + "1"),
    (lambda: Handmade("+w:2000000000", 2**40, None).child(numbers()), LISTS + "0"),
    (lambda: Handmade("+l", 1, None, i32(0, 1)), malformed("one child of a list")),
    (lambda: Handmade("+l", 1, None).child(numbers()), malformed("2 buffers")),
    (
        lambda: Handmade("+l", 1, None, None).child(numbers()),
        malformed("an offsets buffer"),
    ),
    (
        lambda: Handmade("+vl", 1, None, i32(0), None).child(numbers()),
        malformed("a sizes buffer"),
    ),
    (lambda: numbers().set(length=-1), malformed("a length and an offset that fit")),
    (lambda: numbers().set(offset=-1), malformed("a length and an offset that fit")),
    (lambda: numbers().set(offset=2**62), malformed("a length and an offset that fit")),
    (lambda: numbers().set(n_buffers=1), malformed("2 buffers")),
    (lambda: Handmade("l", 3, None, None), malformed("a data buffer")),
    (
        lambda: numbers().set(null_count=1),
        malformed("a validity buffer beside nulls"),
    ),
    (lambda: Handmade("u", 2, None, i32(0, 2, 1), np.zeros(2, np.uint8)), INSIDE + "1"),
    (lambda: Handmade("u", 1, None, i32(-1, 1), np.zeros(2, np.uint8)), INSIDE + "0"),
    (lambda: Handmade("u", 2, None, i32(0, 0, 5), None), INSIDE + "1"),
    (lambda: Handmade("U", 1, None, i64(3, 2), np.zeros(9, np.uint8)), INSIDE + "0"),
    (lambda: view(-1), INSIDE + "0"),
    (lambda: view(13, buffer=1), INSIDE + "0"),
    (lambda: view(13, buffer=-1), INSIDE + "0"),
    (lambda: view(13, offset=8), INSIDE + "0"),
    (lambda: view(13, offset=-1), INSIDE + "0"),
    (lambda: view(21), INSIDE + "0"),
    (lambda: view(13).set(n_buffers=3), INSIDE + "0"),
    (
        lambda: Handmade("vu", 1, None, i32(13, 0, 0, 0), np.zeros(20, np.uint8), None),
        malformed("the sizes of the view's buffers"),
    ),
    (lambda: Handmade("i", 2, None, i32(0, 2)).coded(strings()), INDICES + "1"),
    (lambda: Handmade("i", 2, None, i32(-1, 0)).coded(strings()), INDICES + "0"),
    (lambda: Handmade("L", 1, None, i64(-1)).coded(strings()), INDICES + "0"),
    (
        lambda: Handmade("i", 1, None, i32(0)).coded(
            Handmade("u", 2, None, i32(5, 1, 9), np.zeros(9, np.uint8))
        ),
        INDICES + "0",
    ),
    (
        lambda: Handmade("g", 1, None, i64(0)).coded(strings()),
        malformed("integer dictionary indices"),
    ),
    (
        lambda: Handmade("+l", 1, None, i32(0, 2)).child(
            Handmade("i", 2, None, i32(0, 7)).coded(strings())
        ),
        INDICES + "1",
    ),
    (lambda: view(-(2**31)), INSIDE + "0"),
    (lambda: view(2**31 - 1), INSIDE + "0"),
    (lambda: view(13, buffer=2**31 - 1), INSIDE + "0"),
    (lambda: view(13, buffer=-(2**31)), INSIDE + "0"),
    (lambda: view(13, offset=-(2**31)), INSIDE + "0"),
    (lambda: view(13, offset=2**31 - 1), INSIDE + "0"),
    (
        lambda: Handmade("vu", 1, None, i32(13, 0, 0, 0), None, i64(20)),
        INSIDE + "0",
    ),
    (lambda: views(3, 20, 21), INSIDE + "2"),
    (lambda: views(3, -5, 21, bits=0b101), INSIDE + "2"),
    (lambda: views(3, -5, 21, bits=0b011), INSIDE + "1"),
    (lambda: views(3, 4, -1).set(offset=1, length=2), INSIDE + "1"),
    (
        lambda: Handmade("+l", 1, None, i32(0, 2)).child(views(12, -1)),
        INSIDE + "1",
    ),
    (
        lambda: Handmade("c", 2, None, np.zeros(2, np.int8)).coded(views(-1)),
        INDICES + "0",
    ),
    (
        lambda: Handmade("c", 1, None, np.array([1], np.int8)).coded(views(3, -1, 3)),
        INDICES + "0",
    ),
    (lambda: coded_lists(0, 1, 2), CODED_ROW + "2"),
    (lambda: coded_lists(1, -1, 7), CODED_ROW + "1"),
    (lambda: coded_lists(-(2**31)), CODED_ROW + "0"),
    (
        lambda: Handmade("L", 2, None, i64(0, -1)).coded(lists(0, 1, 2)),
        CODED_ROW + "1",
    ),
    (
        lambda: Handmade("C", 2, None, np.array([0, 255], np.uint8)).coded(lists(0, 1)),
        CODED_ROW + "1",
    ),
    (lambda: Handmade("i", 1, None, i32(0)).coded(lists(0)), CODED_ROW + "0"),
    (lambda: without_dictionary(coded_lists(0, 1)), malformed("a dictionary")),
    (
        lambda: Handmade("i", 1, None, i32(0)).coded(lists(0, 1).set(n_children=0)),
        malformed("one child of a list"),
    ),
    (
        lambda: Handmade("i", 1, None, i32(0)).coded(
            lists(0, 1).set(children=ctypes.POINTER(ctypes.POINTER(Array))())
        ),
        malformed("one child of a list"),
    ),
    (
        lambda: Handmade("i", 1, None, i32(0)).coded(
            Handmade("+l", 1, None, i32(0, 1))
        ),
        malformed("one child of a list"),
    ),
    (
        lambda: Handmade("i", 1, None, i32(0)).coded(lists(0, 1).set(length=-1)),
        malformed("a length and an offset that fit"),
    ),
    (
        lambda: Handmade("i", 1, None, i32(0)).coded(lists(0, 1).set(length=2**62)),
        malformed("a length and an offset that fit"),
    ),
    (
        lambda: Handmade("i", 1, None, i32(0)).coded(lists(0, 1).set(offset=-1)),
        malformed("a length and an offset that fit"),
    ),
    (
        lambda: Handmade("i", 1, None, i32(0)).coded(lists(0, 1).set(n_buffers=1)),
        malformed("2 buffers"),
    ),
    (
        lambda: Handmade("i", 1, None, i32(0)).coded(lists(0, 1).set(null_count=1)),
        malformed("a validity buffer beside nulls"),
    ),
    (
        lambda: coded_lists(0, 1).set(null_count=1),
        malformed("a validity buffer beside nulls"),
    ),
    (
        lambda: Handmade("i", 1, None, None).coded(lists(0, 1)),
        malformed("a data buffer"),
    ),
    (lambda: coded_lists(0).set(n_buffers=1), malformed("2 buffers")),
    (
        lambda: Handmade("g", 1, None, i64(0)).coded(lists(0, 1)),
        malformed("integer dictionary indices"),
    ),
    (lambda: Handmade("i", 1, None, i32(0)).coded(lists(0, 2, 1)), LISTS + "1"),
    (lambda: Handmade("i", 1, None, i32(0)).coded(lists(0, 3)), LISTS + "0"),
    (
        lambda: Handmade("i", 1, None, i32(0)).coded(
            Handmade("+l", 1, None, i32(0, 2)).child(views(3, 21))
        ),
        INSIDE + "1",
    ),
    (
        lambda: Handmade("i", 1, None, i32(0)).coded(
            Handmade("+l", 1, None, i32(0, 2)).child(
                Handmade("i", 2, None, i32(0, 2)).coded(strings())
            )
        ),
        INDICES + "1",
    ),
    (
        lambda: Handmade("i", 1, None, i32(0)).coded(
            Handmade("+l", 1, None, i32(0, 2)).child(
                without_dictionary(Handmade("i", 2, None, i32(0, 1)).coded(strings()))
            )
        ),
        malformed("a dictionary"),
    ),
]


@pytest.mark.parametrize(("build", "message"), MALFORMED)
def test_malformed_arrays_are_refused_and_released(
    build: Callable[[], Handmade], message: str
) -> None:
    handmade = build()
    released.clear()
    with pytest.raises(InputError) as caught:
        _kernels.import_arrow(handmade, "x")
    assert str(caught.value) == message
    del caught
    assert len(released) == 1


def test_a_well_formed_array_is_read_and_released_once() -> None:
    handmade = Handmade("+l", 2, None, i32(0, 1, 2)).child(strings())
    released.clear()
    column = _kernels.import_arrow(handmade, "x")[1]["x"]
    encoder = _kernels.Encoder(
        "vocab", "string", rows=4, vocabulary=_kernels.Vocabulary(["b", "a"], "string")
    )
    ids = encode_lists(column, encoder, _kernels.Window(column), 1, False)[0]
    assert ids.tolist() == [[2], [1]]
    assert released == []
    del column
    assert len(released) == 1


def test_null_list_views_and_null_indices_may_say_anything() -> None:
    bits = np.array([0b10], dtype=np.uint8)
    lists = Handmade("+vl", 2, bits, i32(99, 0), i32(99, 1)).child(numbers())
    column = _kernels.import_arrow(lists.set(null_count=1), "x")[1]["x"]
    assert _kernels.Window(column).finish(9, False)[0].tolist() == [0, 1]
    coded = Handmade("i", 2, bits, i32(99, 1)).coded(strings()).set(null_count=-1)
    column = _kernels.import_arrow(coded, "x")[1]["x"]
    encoder = _kernels.Encoder(
        "vocab", "string", rows=4, vocabulary=_kernels.Vocabulary(["b", "a"], "string")
    )
    assert _kernels.encode_scalars(column, encoder)[0].tolist() == [0, 1]


def test_null_indices_of_lists_may_say_anything() -> None:
    bits = np.array([0b0110], dtype=np.uint8)
    coded = Handmade("i", 4, bits, i32(-1, 1, 0, 2**31 - 1)).coded(lists(0, 2, 2))
    column = _kernels.import_arrow(coded.set(null_count=2), "x")[1]["x"]
    assert column.is_list
    assert _kernels.Window(column).finish(9, False)[0].tolist() == [0, 0, 2, 0]
    none = Handmade("i", 2, np.array([0], np.uint8), i32(5, 5)).coded(lists(0))
    column = _kernels.import_arrow(none.set(null_count=2), "x")[1]["x"]
    assert _kernels.Window(column).finish(9, False)[0].tolist() == [0, 0]


def test_null_lists_of_a_dictionary_are_empty() -> None:
    entries = Handmade("+l", 2, np.array([0b10], np.uint8), i32(0, 1, 2))
    entries = entries.child(strings()).set(null_count=1)
    coded = Handmade("i", 3, None, i32(0, 1, 0)).coded(entries)
    column = _kernels.import_arrow(coded, "x")[1]["x"]
    assert _kernels.Window(column).finish(9, False)[0].tolist() == [0, 1, 0]


def test_null_views_may_say_anything() -> None:
    handmade = views(-5, 3, 2**31 - 1, 13, bits=0b1010)
    column = _kernels.import_arrow(handmade, "x")[1]["x"]
    vocabulary = _kernels.Vocabulary(["\0\0\0", "abcdefghijklm"], "string")
    encoder = _kernels.Encoder("vocab", "string", rows=4, vocabulary=vocabulary)
    ids, nulls, unseen = _kernels.encode_scalars(column, encoder)
    assert (ids.tolist(), nulls, unseen) == ([0, 1, 0, 2], 2, 0)


def test_a_dictionary_of_coded_lists_is_no_column() -> None:
    twice = Handmade("i", 1, None, i32(0)).coded(coded_lists(0, 1))
    column = _kernels.import_arrow(twice, "x")[1]["x"]
    assert (column.kind, column.type_name) == ("other", "dictionary of dictionary")


# -------------------------------------------------------------------- borders of blocks

BORDERS = [0, 1, 254, 255, 256, 257, 511, 512, 598]


def falling(place: int, dtype: Any) -> NDArray[Any]:
    """Offsets of 600 elements, which fall at one."""
    offsets = np.arange(10, 611, dtype=dtype)
    offsets[place + 1] = offsets[place] - 1
    return offsets


@pytest.mark.parametrize("place", BORDERS)
def test_offsets_that_fall_at_the_border_of_a_block_are_refused(place: int) -> None:
    data = np.zeros(700, np.uint8)
    for form, dtype in (("u", np.int32), ("Z", np.int64)):
        array = Handmade(form, 600, None, falling(place, dtype), data)
        with pytest.raises(InputError) as caught:
            _kernels.import_arrow(array, "x")
        assert str(caught.value) == INSIDE + str(place)
        child = Handmade(form, 600, None, falling(place, dtype), data)
        with pytest.raises(InputError) as caught:
            _kernels.import_arrow(
                Handmade("+l", 2, None, i32(0, 300, 600)).child(child), "x"
            )
        assert str(caught.value) == INSIDE + str(place)
    for form, dtype in (("+l", np.int32), ("+L", np.int64)):
        array = Handmade(form, 600, None, falling(place, dtype)).child(numbers(700))
        with pytest.raises(InputError) as caught:
            _kernels.import_arrow(array, "x")
        assert str(caught.value) == LISTS + str(place)


@pytest.mark.parametrize("place", BORDERS)
def test_offsets_that_fall_outside_a_slice_are_not_looked_at(place: int) -> None:
    data = np.zeros(700, np.uint8)
    array = Handmade("u", 600, None, falling(place, np.int32), data)
    array.set(offset=place + 1, length=599 - place)
    assert _kernels.import_arrow(array, "x")[2] == 599 - place
    array = Handmade("u", 600, None, falling(place, np.int32), data)
    assert _kernels.import_arrow(array.set(length=place), "x")[2] == place


@pytest.mark.parametrize("place", BORDERS)
@pytest.mark.parametrize("word", ["size", "buffer", "offset"])
def test_views_beside_the_border_of_a_block_are_checked(place: int, word: str) -> None:
    at = {"size": 0, "buffer": 2, "offset": 3}[word]
    words = np.zeros((600, 4), dtype=np.int32)
    words[:, 0] = 13
    words[place, at] = -1
    data = np.zeros(13, np.uint8)
    with pytest.raises(InputError) as caught:
        _kernels.import_arrow(Handmade("vu", 600, None, words, data, i64(13)), "x")
    assert str(caught.value) == INSIDE + str(place)
    valid = np.full(75, 255, dtype=np.uint8)
    valid[place // 8] ^= 1 << place % 8
    array = Handmade("vu", 600, valid, words, data, i64(13)).set(null_count=1)
    column = _kernels.import_arrow(array, "x")[1]["x"]
    ids = _kernels.encode_scalars(column, _kernels.Encoder("hash", "string", rows=9))[0]
    assert (ids == 0).nonzero()[0].tolist() == [place]


@pytest.mark.parametrize("place", BORDERS)
@pytest.mark.parametrize("index", [2, -1, 2**31 - 1])
def test_indices_beside_the_border_of_a_block_are_checked(
    place: int, index: int
) -> None:
    indices = np.tile(np.arange(2, dtype=np.int32), 300)
    indices[place] = index
    with pytest.raises(InputError) as caught:
        _kernels.import_arrow(Handmade("i", 600, None, indices).coded(strings()), "x")
    assert str(caught.value) == INDICES + str(place)
    with pytest.raises(InputError) as caught:
        _kernels.import_arrow(
            Handmade("i", 600, None, indices).coded(lists(0, 1, 2)), "x"
        )
    assert str(caught.value) == CODED_ROW + str(place)


@pytest.mark.parametrize(
    ("form", "dtype", "entries"),
    [("c", np.int8, 200), ("c", np.int8, 256), ("s", np.int16, 40_000)],
)
def test_negative_indices_are_no_high_ones_of_a_long_dictionary(
    form: str, dtype: Any, entries: int
) -> None:
    """Read as unsigned they would lie inside it, where it is longer than they reach."""
    lowest = np.iinfo(dtype).min
    for index in (-1, lowest, entries - np.iinfo(dtype).max * 2 - 3):
        indices = np.zeros(entries, dtype)
        indices[entries // 2] = index
        coded = Handmade(form, entries, None, indices).coded(strings_of(entries))
        with pytest.raises(InputError) as caught:
            _kernels.import_arrow(coded, "x")
        assert str(caught.value) == INDICES + str(entries // 2)
        # what is null may be anything, still
        valid = np.full(entries // 8 + 1, 255, np.uint8)
        valid[entries // 16] &= ~np.uint8(1 << entries // 2 % 8)
        coded = Handmade(form, entries, valid, indices).coded(strings_of(entries))
        column = _kernels.import_arrow(coded.set(null_count=-1), "x")[1]["x"]
        encoder = _kernels.Encoder("hash", "string", rows=9)
        ids, nulls, _ = _kernels.encode_scalars(column, encoder)
        assert (nulls, (ids == 0).nonzero()[0].tolist()) == (1, [entries // 2])


def strings_of(entries: int) -> Handmade:
    ends = np.arange(entries + 1, dtype=np.int32)
    return Handmade("u", entries, None, ends, np.zeros(entries, np.uint8))


def test_a_wrong_number_of_dense_values_shows_no_value() -> None:
    """The third index lies behind the list, and would be far outside the dictionary."""
    far = i32(0, 0, 0, 2**30, 2**30)
    values = Handmade("i", 3, None, far).coded(Handmade("g", 1, None, np.zeros(1)))
    column = _kernels.import_arrow(
        Handmade("+l", 1, None, i32(0, 3)).child(values), "x"
    )[1]["x"]
    for read in (_kernels.read_raw_dense, lambda c, n: _kernels.read_dense(c, n, None)):
        with pytest.raises(InputError) as caught:
            read(column, 2)
        assert str(caught.value) == "expected 2 values, got 3 - at `x`, row 0"


# ----------------------------------------------------------------- one thing is spoiled

# Every buffer holds so many entries, and text so many bytes, whatever is claimed.
ROOM = 1024
TEXT_ROOM = 1 << 15
INTEGERS = {
    "c": np.int8, "C": np.uint8, "s": np.int16, "S": np.uint16,
    "i": np.int32, "I": np.uint32, "l": np.int64, "L": np.uint64,
}  # fmt: skip
FLOATS = {"e": np.float16, "f": np.float32, "g": np.float64}
TEXTS = {"u": np.int32, "U": np.int64, "z": np.int32, "Z": np.int64}
WIDTHS = {  # bytes of an element
    "d:9,0,32": 4, "d:18,0,64": 8, "d:38,0": 16, "d:30,-2,128": 16, "d:76,0,256": 32,
    "w:16": 16, "w:3": 3,
}  # fmt: skip
ENDS = {"+l": np.int32, "+L": np.int64}
VIEWS = {"+vl": np.int32, "+vL": np.int64}

extremes = st.sampled_from(
    [-1, 0, 1, 2, 5, 100, 2**31 - 1, -(2**31), 2**62, -(2**63), 2**63 - 1]
)


def roomy(values: Any, dtype: Any, filler: int = 0) -> NDArray[Any]:
    out = np.full(ROOM, filler, dtype=dtype)
    out[: len(values)] = values
    return out


class Drawn:
    """A well-formed column and all arrays that it is made of."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
        self.arrays: list[Handmade] = []
        is_list = data.draw(st.booleans())
        count = data.draw(st.sampled_from([0, 1, 3, 9, 255, 256, 300]))
        build = self.lists if is_list else self.elements
        if data.draw(st.booleans()):
            entries = data.draw(st.sampled_from([1, 4, 300]))
            self.root = self.indices(count, entries).coded(build(entries))
        else:
            self.root = build(count)

    def validity(self) -> NDArray[Any] | None:
        if self.data.draw(st.booleans()):
            return None
        return self.rng.integers(0, 256, ROOM).astype(np.uint8)

    def made(self, form: str, count: int, *buffers: Any) -> Handmade:
        array = Handmade(form, count, *buffers)
        if buffers and buffers[0] is not None:
            array.set(null_count=-1)
        self.arrays.append(array)
        return array

    def indices(self, count: int, entries: int) -> Handmade:
        forms = list(INTEGERS) if entries < 100 else list("sSiIlL")
        form = self.data.draw(st.sampled_from(forms))
        values = roomy(self.rng.integers(0, entries, count), INTEGERS[form])
        return self.made(form, count, self.validity(), values)

    def elements(self, count: int) -> Handmade:
        forms = [*INTEGERS, *FLOATS, *TEXTS, *WIDTHS, "vu", "vz", "b", "n"]
        form = self.data.draw(st.sampled_from(forms))
        if form == "n":
            return self.made(form, count)
        valid = self.validity()
        if form in TEXTS:
            ends = self.rng.integers(0, 20, count + 1).cumsum()
            text = self.rng.integers(0, 256, TEXT_ROOM).astype(np.uint8)
            return self.made(
                form, count, valid, roomy(ends, TEXTS[form], ends[-1]), text
            )
        if form in ("vu", "vz"):
            words = np.zeros((ROOM, 4), dtype=np.int32)
            sizes = self.rng.choice([0, 5, 12, 13, 40], count)
            words[:count, 0] = sizes
            words[:count, 2] = self.rng.integers(0, 2, count) * (sizes > 12)
            words[:count, 3] = self.rng.integers(0, 60, count) * (sizes > 12)
            text = self.rng.integers(0, 256, (2, 100)).astype(np.uint8)
            return self.made(form, count, valid, words, *text, i64(100, 100))
        if form in WIDTHS:
            numbers = roomy(self.rng.integers(0, 99, count), np.int64)
            raw = np.zeros((ROOM, WIDTHS[form]), dtype=np.uint8)
            raw[:, 0] = numbers
            return self.made(form, count, valid, raw)
        dtype = (INTEGERS | FLOATS | {"b": np.uint8})[form]
        return self.made(
            form, count, valid, roomy(self.rng.integers(0, 99, count), dtype)
        )

    def lists(self, count: int) -> Handmade:
        form = self.data.draw(st.sampled_from([*ENDS, *VIEWS, "+w:0", "+w:1", "+w:3"]))
        if form in ENDS:
            ends = self.rng.integers(0, 3, count + 1).cumsum()
            buffers = [roomy(ends, ENDS[form], ends[-1])]
            size = int(ends[-1])
        elif form in VIEWS:
            size = int(self.rng.integers(5, 300))
            starts = self.rng.integers(0, size - 4, count)
            buffers = [roomy(starts, VIEWS[form])]
            buffers.append(roomy(self.rng.integers(0, 5, count), VIEWS[form]))
        else:
            buffers = []
            size = int(form[3:]) * count
        array = self.made(form, count, self.validity(), *buffers)
        if self.data.draw(st.booleans()):
            entries = self.data.draw(st.sampled_from([1, 4, 300]))
            return array.child(
                self.indices(size, entries).coded(self.elements(entries))
            )
        return array.child(self.elements(size))

    def spoil(self) -> None:
        """Change one member, pointer or entry of one array."""
        draw = self.data.draw
        array = draw(st.sampled_from(self.arrays))
        form = array.schema.format.decode()
        ways = ["length", "offset", "null_count", "n_buffers", "buffer"]
        ways += ["entry"] * 4
        ways += ["n_children", "children", "child"] if form[0] == "+" else []
        ways += ["list_size"] if form.startswith("+w") else []
        ways += ["dictionary"] if array.array.dictionary else []
        way = draw(st.sampled_from(ways))
        count = array.array.length
        if way == "length":
            near = [count - 1, count + 1, count + 2, 200]
            far = [-1, -(2**63), 2**58, 2**62, 2**63 - 1]
            array.set(length=draw(st.sampled_from(near + far)))
        elif way == "offset":
            array.set(offset=draw(st.sampled_from([1, 2, 100, -1, -(2**63), 2**62])))
        elif way == "null_count":
            array.set(null_count=draw(extremes))
        elif way == "n_buffers":
            array.set(n_buffers=draw(st.integers(-1, 8)))
        elif way == "buffer":
            array.array.buffers[draw(st.integers(0, len(array.kept)))] = None
        elif way == "n_children":
            structs = [array.schema, array.array]
            draw(st.sampled_from(structs)).n_children = draw(
                st.sampled_from([-1, 0, 2])
            )
        elif way == "children":
            array.set(children=ctypes.POINTER(ctypes.POINTER(Array))())
        elif way == "child":
            array.array.children[0] = ctypes.POINTER(Array)()
        elif way == "list_size":
            size = draw(st.sampled_from(["0", "2", "2147483647", "-1", "x"]))
            array.schema.format = b"+w:" + size.encode()
        elif way == "dictionary":
            structs = [array.schema, array.array]
            draw(st.sampled_from(structs)).dictionary = None
        else:
            self.spoil_entry(array, form)

    def spoil_entry(self, array: Handmade, form: str) -> None:
        buffers = [i for i, kept in enumerate(array.kept) if kept is not None]
        if not buffers:
            return
        i = self.data.draw(st.sampled_from(buffers))
        kept: NDArray[Any] = array.kept[i].reshape(-1)  # type: ignore[union-attr]
        per_row = 4 if form[0] == "v" and i == 1 else 1
        last = min(per_row * (array.array.length + 1), len(kept) - 1)
        place = self.data.draw(st.integers(0, last))
        value = self.data.draw(extremes)
        if form in TEXTS and i == 1:  # Arrow does not say how long the text is
            value = min(max(value, -5), TEXT_ROOM)
        with np.errstate(over="ignore"):
            kept[place] = np.array(value).astype(kept.dtype)


def encode_all(column: _kernels.Column, data: st.DataObject) -> None:
    """Encode the column in every way that fits; all must have the right shape."""
    encoders = {
        "hash": {"rows": 1000},
        "identity": {"rows": 50, "unseen": "missing"},
        "bucketize": {"rows": 4, "boundaries": [1.0, 9.0]},
    }
    if column.kind == "fixed":
        as_text = column.width == 16 and data.draw(st.booleans())
        column = column.as_strings(as_text)
        column.find_uuid(as_text, as_text)
    text = column.kind == "string"
    kind = "hash" if text else data.draw(st.sampled_from(list(encoders)))
    dtype = "string" if text else "float" if kind == "bucketize" else "int64"
    encoder = _kernels.Encoder(kind, dtype, **encoders[kind])  # type: ignore[arg-type]
    if not column.is_list:
        ids, nulls, _ = _kernels.encode_scalars(column, encoder)
        assert ids.shape == (column.num_rows,)
        assert 0 <= nulls <= column.num_rows
        return
    window = _kernels.Window(column)
    narrowed = data.draw(st.sampled_from(["no", "trim", "drop"]))
    if narrowed != "no" and dtype != "float":
        getattr(window, narrowed)("" if text else 0)
    max_len = data.draw(st.sampled_from([1, 3, 300]))
    lengths, width, truncated, empty = window.finish(max_len, False)
    newest_first = data.draw(st.booleans())
    ids, nulls, _ = encode_lists(column, encoder, window, width, newest_first)
    assert lengths.shape == (column.num_rows,)
    assert ids.shape == (column.num_rows, width)
    assert 0 <= nulls <= lengths.sum()
    assert 0 <= truncated + empty <= column.num_rows


def try_all(drawn: Drawn) -> bool:
    """Tell whether the column was refused; either way it is released once."""
    released.clear()
    message = ""
    try:
        encode_all(_kernels.import_arrow(drawn.root, "x")[1]["x"], drawn.data)
    except InputError as error:
        message = str(error)
    # columns of earlier examples may be released late, with the errors that hold them
    assert released.count(id(drawn.root)) == 1
    assert message == "" or message.startswith("expected ")
    return message != ""


@given(st.data())
def test_drawn_columns_are_well_formed(data: st.DataObject) -> None:
    assert not try_all(Drawn(data))


@settings(max_examples=settings().max_examples * 10)
@given(st.data())
def test_columns_spoiled_in_one_place_are_refused_or_read(data: st.DataObject) -> None:
    drawn = Drawn(data)
    drawn.spoil()
    try_all(drawn)


def test_an_error_of_a_row_keeps_no_array() -> None:
    """Without the garbage collector: where the error is gone, so is the array."""
    raw = {
        "format": 1,
        "candidate": [
            {"name": "y", "dim": 1, "encoder": {"type": "hash", "buckets": 9}}
        ],
        "dense": [{"name": "x", "side": "candidate", "dim": 2, "format": "json"}],
    }
    spec = FeatureSpec.from_dict(raw)
    column = strings(2)
    message = ""
    released.clear()
    gc.disable()
    try:
        spec.encode({"y": ["a", "b"], "x": column})
    except InputError as error:
        message = str(error)
    finally:
        gc.enable()
    assert "a list of numbers as JSON" in message
    assert released.count(id(column)) == 1


def test_released_structures_are_refused() -> None:
    handmade = numbers().set(release=None)
    with pytest.raises(InputError, match="not released"):
        _kernels.import_arrow(handmade, "x")


DIGITS = "9" * 5000  # more than int() takes


@pytest.mark.parametrize("form", ["w:" + DIGITS, "w:\u0661", "w:0x1", "w:"])
def test_a_width_that_is_no_number_is_no_column(form: str) -> None:
    column = _kernels.import_arrow(Handmade(form, 0, None, None), "x")[1]["x"]
    assert (column.kind, column.type_name) == ("other", "fixed_size_binary")


@pytest.mark.parametrize("size", [DIGITS, "\u0662", "-1", "2147483648", ""])
def test_a_list_size_that_is_no_number_is_refused(size: str) -> None:
    with pytest.raises(InputError) as caught:
        _kernels.import_arrow(Handmade("+w:" + size, 0, None).child(numbers()), "x")
    assert str(caught.value) == malformed("a list size")


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ((1, 2), "expected a capsule of kind arrow_schema, got int - at `x`"),
        ((1, 2, 3), "expected a pair of capsules, got tuple - at `x`"),
        (None, "expected a pair of capsules, got NoneType - at `x`"),
    ],
)
def test_what_is_no_capsule_is_refused(pair: Any, message: str) -> None:
    class Given:
        def __arrow_c_array__(self, requested_schema: Any = None) -> Any:
            return pair

    class Streamed:
        def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
            return pair

    class Typed:
        def __arrow_c_schema__(self) -> Any:
            return pair

    with pytest.raises(InputError) as caught:
        _kernels.import_arrow(Given(), "x")
    assert str(caught.value) == message
    with pytest.raises(InputError, match="a capsule of kind arrow_array_stream, got"):
        _kernels.import_arrow(Streamed(), "x")
    with pytest.raises(InputError, match="a capsule of kind arrow_schema, got"):
        _kernels.describe_arrow(Typed(), "x")


def test_an_array_is_not_taken_for_a_schema_nor_a_schema_for_an_array() -> None:
    class Swapped:
        def __arrow_c_array__(self, requested_schema: Any = None) -> Any:
            return numbers().__arrow_c_array__()[::-1]

    with pytest.raises(InputError, match="a capsule of kind arrow_schema, got"):
        _kernels.import_arrow(Swapped(), "x")


@pytest.mark.parametrize("length", [-1, 2**58, 2**63 - 1, 4])
def test_null_rows_are_looked_for_in_rows_that_are_there(length: int) -> None:
    """Of the table's own bitmap no more is read than its columns have rows."""
    bits = np.array([0b111], np.uint8)
    table = Handmade("+s", length, bits).child(numbers(3)).set(null_count=-1)
    with pytest.raises(InputError, match="got a malformed Arrow array"):
        _kernels.import_arrow(table, "batch", {"x"})


def test_a_table_with_null_rows_is_refused() -> None:
    class Struct:
        def __arrow_c_array__(self, requested_schema: Any = None) -> Any:
            struct = pa.StructArray.from_arrays(
                [pa.array([1, 2])], names=["a"], mask=pa.array([False, True])
            )
            return struct.__arrow_c_array__(requested_schema)

    with pytest.raises(InputError) as caught:
        open_batch(Struct(), ["a"])
    assert str(caught.value) == (
        "expected a table without null rows, got a null - at `batch`, row 1"
    )


def test_a_stream_that_fails_says_why() -> None:
    def batches() -> Any:
        yield pa.record_batch({"a": [1]})
        message = "disk on fire"
        raise OSError(message)

    reader = pa.RecordBatchReader.from_batches(pa.schema({"a": pa.int64()}), batches())
    with pytest.raises(InputError, match="disk on fire"):
        open_batch(reader, ["a"])


def test_kernels_refuse_columns_they_would_misread() -> None:
    encoder = _kernels.Encoder("hash", "string", rows=9)
    for values in ([1, 2], [["a"]], [["a"], [None]], [[None], [None]]):
        with pytest.raises(InputError):
            _kernels.encode_scalars(_kernels.from_list(values, "x"), encoder)
    one = _kernels.from_list([["a"]], "x")
    two = _kernels.from_list([["a"], ["a"]], "y")
    with pytest.raises(InputError):
        encode_lists(two, encoder, _kernels.Window(one), 3, False)
    window = _kernels.Window(one)
    window.trim("a")
    with pytest.raises(InputError):
        window.drop("a")
