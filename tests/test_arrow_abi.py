# ruff: noqa: ANN401 - rows hold anything
"""Malformed Arrow structures, built by hand: each is refused, none crashes."""

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from din_infer import _kernels
from din_infer.columns import open_batch
from din_infer.errors import InputError


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

released: list[int] = []


@Release
def release_array(address: int) -> None:
    released.append(address)
    Array.from_address(address).release = None


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
        self.array.buffers = (ctypes.c_void_p * max(1, len(buffers)))(*pointers)
        self.array.release = ctypes.cast(release_array, ctypes.c_void_p)

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


def view(size: int, buffer: int = 0, offset: int = 0) -> Handmade:
    views = i32(size, 0, buffer, offset)
    return Handmade("vu", 1, None, views, np.zeros(20, np.uint8), i64(20))


LISTS = "expected list offsets that rise inside their values, got others - at `x`, row "
INSIDE = "expected values inside their buffers, got others - at `x`, element "
INDICES = "expected indices inside their dictionary, got others - at `x`, element "


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
    encoder = _kernels.Encoder("vocab", "string", rows=4, values=["b", "a"])
    ids = _kernels.encode_lists(column, encoder, _kernels.Window(column), 1, False)[0]
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
    encoder = _kernels.Encoder("vocab", "string", rows=4, values=["b", "a"])
    assert _kernels.encode_scalars(column, encoder)[0].tolist() == [0, 1]


def test_released_structures_are_refused() -> None:
    handmade = numbers().set(release=None)
    with pytest.raises(InputError, match="not released"):
        _kernels.import_arrow(handmade, "x")


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
        _kernels.encode_lists(two, encoder, _kernels.Window(one), 3, False)
    window = _kernels.Window(one)
    window.trim("a")
    with pytest.raises(InputError):
        window.drop("a")
