# ruff: noqa: ANN401 - rows hold anything
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from din_infer import _kernels, columns
from din_infer.encode import hash_buckets
from din_infer.errors import InputError
from tests import hostile
from tests.encoding import encode_lists
from tests.reference_hash import int_as_bytes, signed

INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]


def ids_of(column: Any) -> list[int]:
    encoder = _kernels.Encoder("hash", "int64", rows=2, reduce="raw")
    found = columns.require_dtype(
        columns.to_column(column, "x"), "int64", is_list=False
    )
    return _kernels.encode_scalars(found, encoder)[0].tolist()


def raw(value: int) -> int:
    return signed(xxhash.xxh64_intdigest(int_as_bytes(value)), 64)


@pytest.mark.parametrize(
    "dtype", [*INTEGERS, "float16", "float32", "float64", ">i4", ">f8"]
)
def test_every_number_type_gives_the_ids_of_int64(dtype: str) -> None:
    values = [0, 1, 5, 100, 127] * 20
    array = np.array(values, dtype=dtype)
    expected = [raw(v) for v in values]
    assert ids_of(array) == expected
    array.flags.writeable = False
    assert ids_of(array) == expected
    assert ids_of(np.repeat(array, 2)[::2]) == expected
    if dtype[0] != ">":
        assert ids_of(pa.array(array)) == expected
        assert ids_of(pa.array(array)[3:]) == expected[3:]


@pytest.mark.parametrize("kind", ["int64", "uint64"])
def test_extremes_of_int64_have_ids(kind: str) -> None:
    extremes = [0, 2**63 - 1] if kind == "uint64" else [-(2**63), -1, 2**63 - 1]
    for column in (extremes, np.array(extremes, dtype=kind), pa.array(extremes, kind)):
        assert ids_of(column) == [raw(v) for v in extremes]


def test_booleans_are_0_and_1() -> None:
    expected = [raw(1), raw(0), raw(1)]
    assert ids_of([True, False, True]) == expected
    assert ids_of(np.array([True, False, True])) == expected
    assert ids_of(pa.array([False, True, False, True])[1:]) == expected


@given(st.lists(st.floats(width=16), min_size=1))
def test_half_floats_are_read_as_their_value(values: list[float]) -> None:
    halves = pa.array(np.array(values, dtype=np.float16))
    got = columns.floats({"x": halves}, "x")
    np.testing.assert_array_equal(got, np.array(values, dtype=np.float64))


@pytest.mark.parametrize(
    ("dtype", "exact"), [("float16", 2048), ("float32", 2**24), ("float64", 2**53)]
)
def test_floats_are_whole_numbers_up_to_where_they_are_exact(
    dtype: str, exact: int
) -> None:
    last = exact - 1
    assert ids_of(np.array([last, -last], dtype=dtype)) == [raw(last), raw(-last)]
    with pytest.raises(InputError, match=f"that {dtype} holds exactly"):
        ids_of(np.array([exact], dtype=dtype))


@pytest.mark.parametrize(
    "column",
    [
        ["a", None, "käse", "", "日本🙂"],
        np.array(["a", None, "käse", "", "日本🙂"], dtype=object),
        np.array(
            ["a", None, "käse", "", "日本🙂"],
            dtype=np.dtypes.StringDType(na_object=None),
        ),
        [b"a", None, "käse", bytearray(b""), np.str_("日本🙂")],
        ["a", math.nan, "käse", "", "日本🙂"],
        ["a", pd.NA, "käse", "", "日本🙂"],
        pa.array(
            [b"a", None, "käse".encode(), b"", "日本🙂".encode()], pa.binary_view()
        ),
        pl.Series(["a", None, "käse", "", "日本🙂"]),
        pl.Series(["a", None, "käse", "", "日本🙂"], dtype=pl.Categorical),
        pd.Series(["a", None, "käse", "", "日本🙂"]),
        pd.Series(["a", None, "käse", "", "日本🙂"], dtype="category"),
        np.ma.array(["a", "?", "käse", "", "日本🙂"], mask=[0, 1, 0, 0, 0]),
    ],
    ids=lambda c: type(c).__name__,
)
def test_every_kind_of_text_gives_the_same_buckets(column: Any) -> None:
    expected = [
        0 if k is None else 1 + xxhash.xxh64_intdigest(k.encode()) % 999
        for k in ("a", None, "käse", "", "日本🙂")
    ]
    assert hash_buckets(column, 1000).tolist() == expected


@given(st.lists(hostile.texts(exclude="\0")))
def test_fixed_width_text_is_utf8_without_zeros(words: list[str]) -> None:
    expected = [1 + xxhash.xxh64_intdigest(w.encode()) % 999 for w in words]
    assert hash_buckets(np.array(words, dtype="U"), 1000).tolist() == expected
    assert hash_buckets(np.array(words, dtype=">U90"), 1000).tolist() == [
        1 + xxhash.xxh64_intdigest(w[:90].encode()) % 999 for w in words
    ]
    raw_words = np.array([w.encode() for w in words], dtype="S")
    assert hash_buckets(raw_words, 1000).tolist() == expected


def test_offsets_that_change_while_they_are_used_do_no_harm() -> None:
    """Another column's `__array__` rewrites offsets that were already checked."""
    code = """
import numpy as np
from din_infer import FeatureSpec, InputError
spec = FeatureSpec.from_dict({
    "format": 1,
    "candidate": [{"name": "g", "dim": 1, "encoder": {"type": "hash", "buckets": 9}}],
    "behavior": [{"name": "h", "max_len": 9, "fields": {
        "hg": "g",
        "hu": {"dim": 1, "encoder": {"type": "identity", "buckets": 9}},
    }}],
})
offsets = np.array([0, 1, 2], np.int64)
class Evil:
    def __array__(self, dtype=None, copy=None):
        offsets[:] = [0, 2**40, 2**40 + 1]
        return np.array([[1], [2]])
batch = {"g": ["a", "b"], "hg": (["x", "y"], offsets), "hu": Evil()}
print(spec.encode(batch)["hu"].tolist(), offsets[1] == 2**40)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "[[1], [2]] True\n"), done.stderr


def test_fixed_size_binary_is_no_key_by_itself() -> None:
    with pytest.raises(InputError) as caught:
        hash_buckets(pa.array([b"ab"], pa.binary(2)), 1000)
    assert str(caught.value) == (
        "expected a column of strings, got fixed_size_binary[2] - at `keys`."
        ' Say what the encoder reads them as: uuid_as = "bytes".'
    )


def test_objects_of_polars_are_read_as_themselves() -> None:
    """As Arrow they are pointers, in fixed-size binary."""
    objects = pl.Series("x", ["a", None], dtype=pl.Object)
    expected = hash_buckets(["a", None], 1000).tolist()
    assert hash_buckets(objects, 1000).tolist() == expected
    frame = pl.DataFrame([objects, pl.Series("y", [1, 2])])
    opened = columns.open_batch(frame, ["x"], optional=["y"])
    assert opened.columns["x"].kind == "string"
    assert opened.columns["y"].kind == "int"
    assert columns.open_batch(frame, ["y"]).num_rows == 2
    assert columns.open_batch(frame, ()).num_rows == 2
    opened = columns.open_batch(frame, (), optional=["x", "z"])
    assert opened.columns["x"].kind == "string"
    assert opened.num_rows == 2
    with pytest.raises(InputError, match="expected a column `z`, got columns x, y"):
        columns.open_batch(frame, ["z"])


def test_objects_of_polars_inside_lists_are_refused() -> None:
    """Asked for such a frame as Arrow, polars 1.35 ends the process."""
    objects = pl.Series("x", ["a", "b"], dtype=pl.Object).reshape((1, 2))
    frame = pl.DataFrame([objects, pl.Series("k", [1])])
    for batch in (frame, {"x": objects}):
        with pytest.raises(InputError) as caught:
            columns.open_batch(batch, ["x"])
        assert str(caught.value) == (
            "expected a type that Arrow has, got Array(Object, shape=(2,)) - at `x`."
            " Cast its objects to strings or numbers."
        )
    assert columns.open_batch(frame, ["k"]).num_rows == 1
    assert columns.open_batch(frame, ()).num_rows == 1


@pytest.mark.parametrize(
    "lists",
    [
        [[1, 2], [3, 4]],
        [(1, 2), (3, 4)],
        [np.array([1, 2]), np.array([3, 4])],
        [np.array([1, 2], dtype=np.int8), [3.0, 4]],
        np.array([[1, 2], [3, 4]]),
        np.array([[1, 3], [2, 4]]).T,
        np.array([[1, 2], [3, 4]], dtype=object),
        ([1, 2, 3, 4], [0, 2, 4]),
        (np.array([1, 2, 3, 4], dtype=np.uint8), np.array([0, 2, 4], dtype=np.uint32)),
        (pa.chunked_array([[1], [2, 3, 4]]), np.array([0, 2, 4])),
        (pl.Series([1, 2, 3, 4]), pl.Series([0, 2, 4])),
        pa.array([[1, 2], [3, 4]], pa.list_(pa.int16(), 2)),
        pa.array([[9, 9], [1, 2], [3, 4]], pa.list_(pa.int64(), 2))[1:],
        pl.Series([[1, 2], [3, 4]], dtype=pl.Array(pl.Int32, 2)),
        pl.Series([[1, 2], [3, 4]]),
        pd.Series([[1, 2], [3, 4]]),
    ],
)
def test_every_kind_of_list_gives_the_same_ids(lists: Any) -> None:
    column = columns.require_dtype(columns.to_column(lists, "x"), "int64", is_list=True)
    encoder = _kernels.Encoder("identity", "int64", rows=9)
    window = _kernels.Window(column)
    ids, nulls, unseen = encode_lists(column, encoder, window, 2, False)
    assert (ids.tolist(), nulls, unseen) == ([[1, 2], [3, 4]], 0, 0)


MASKED = np.ma.array([1, 5], mask=[False, True])
CELLS = {
    "dict": lambda cells: {"x": cells},
    "rows": lambda cells: [{"x": cell} for cell in cells],
    "objects": lambda cells: {"x": pd.Series(cells, dtype=object).to_numpy()},
    "series": lambda cells: {"x": pd.Series(cells, dtype=object)},
    "frame": lambda cells: pd.DataFrame({"x": pd.Series(cells, dtype=object)}),
}


def lists_of(batch: Any) -> list[list[int]]:
    """Ids of a column of lists of small integers, null as 0."""
    found = columns.open_batch(batch, ["x"]).columns["x"]
    column = columns.require_dtype(found, "int64", is_list=True)
    encoder = _kernels.Encoder("identity", "int64", rows=9)
    return encode_lists(column, encoder, _kernels.Window(column), 2, False)[0].tolist()


@pytest.mark.parametrize("form", CELLS)
@pytest.mark.parametrize(
    "cells",
    [[MASKED] * 2, [MASKED, [1, None]], [None, MASKED], [[1, np.ma.masked], MASKED]],
    ids=["arrays", "beside a list", "behind null", "single values"],
)
def test_masks_of_cells_are_null(form: str, cells: list[Any]) -> None:
    """As DuckDB's df() has lists with NULL; Arrow reads them without their masks."""
    expected = [[0, 0] if cell is None else [1, 0] for cell in cells]
    assert lists_of(CELLS[form](cells)) == expected


def test_masked_values_are_null() -> None:
    values = np.ma.array([3, 4, 5], mask=[False, True, False])
    for column in (values, list(values), [3, np.ma.array(4, mask=True), 5]):
        assert ids_of(column) == [raw(3), 0, raw(5)]
    inside = [np.ma.array((1, 2), dtype="i4,i4")]
    with pytest.raises(InputError, match="expected a single value, got a list"):
        ids_of(inside)


@pytest.mark.parametrize("form", CELLS)
@pytest.mark.parametrize("dtype", ["M8[ns]", "m8[ns]", "M8[us]", "m8[ps]"])
def test_times_in_cells_are_no_integers(form: str, dtype: str) -> None:
    cells = [np.array([1, 2], dtype)] * 2
    with pytest.raises(InputError) as caught:
        lists_of(CELLS[form](cells))
    assert caught.value.column == "x"
    assert caught.value.fix == "Cast it to int64 or to text, as it was in training."
    with pytest.raises(InputError, match="expected a column of integers, got"):
        ids_of(np.ma.array(cells[0], mask=[0, 1]))


@pytest.mark.parametrize("form", CELLS)
@pytest.mark.parametrize("cells", [[{1, 2}] * 2, [None, {1, 2}], [[1], {2}]])
def test_sets_have_no_order(form: str, cells: list[Any]) -> None:
    """Arrow would take them in the order of this process."""
    with pytest.raises(InputError, match=r"got set \{"):
        lists_of(CELLS[form](cells))


def test_tensors_that_numpy_cannot_read_name_their_column() -> None:
    ones = torch.ones(2)
    for tensor in (ones.bfloat16(), ones.to_sparse(), ones.clone().requires_grad_()):
        with pytest.raises(InputError, match="expected data that NumPy can read") as e:
            columns.floats({"x": tensor}, "x")
        assert e.value.column == "x"
    assert columns.floats({"x": ones}, "x").tolist() == [1.0, 1.0]


def test_extra_columns_are_not_looked_at() -> None:
    class Untouchable:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(name)

    dates = pd.date_range("2020-01-01", periods=2)
    mixed = pd.DataFrame({"a": [1, 2], "b": [object(), "x"], "c": dates})
    assert columns.floats(mixed, "a").tolist() == [1.0, 2.0]
    assert columns.floats({"a": [1, 2], "b": Untouchable()}, "a").tolist() == [1.0, 2.0]
    frame = pl.DataFrame({"a": [1, 2], "b": pl.Series([{}, object()], dtype=pl.Object)})
    assert columns.floats(frame, "a").tolist() == [1.0, 2.0]


def test_floats_and_keys_read_numbers_and_text() -> None:
    batch = {"x": [1, None, 2.5], "k": ["a", None, "b"], "n": [7, None, 8]}
    np.testing.assert_array_equal(columns.floats(batch, "x"), [1.0, math.nan, 2.5])
    digests = [signed(xxhash.xxh64_intdigest(k.encode()), 64) for k in "ab"]
    assert columns.hash_keys(batch, "k").tolist() == [digests[0], 0, digests[1]]
    assert columns.hash_keys(batch, "n").tolist() == [raw(7), 0, raw(8)]
    with pytest.raises(InputError) as caught:
        columns.floats(batch, "k")
    assert str(caught.value) == "expected a column of numbers, got string - at `k`"


@pytest.mark.parametrize(
    "batch",
    [
        {"a": [1, 2, 3]},
        [{"a": 1}, {"a": 2}, {"a": 3}],
        pa.table({"a": [1, 2, 3]}),
        pa.record_batch({"a": [1, 2, 3]}),
        pl.DataFrame({"a": [1, 2, 3]}),
        pd.DataFrame({"a": [1, 2, 3]}),
    ],
    ids=lambda b: type(b).__name__,
)
def test_rows_are_counted(batch: Any) -> None:
    assert columns.num_rows(batch) == 3
    assert columns.open_batch(batch, ()).num_rows == 3
    assert columns.open_batch(batch, ("a", "a")).num_rows == 3


def test_pandas_needs_no_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame({"a": [1, 2], "s": ["x", None], "l": [[1], [2, 3]]})
    expected = columns.hash_keys(frame, "s").tolist()

    def refuse(*_: Any, **__: Any) -> Any:
        message = "pyarrow is not installed"
        raise ImportError(message)

    monkeypatch.setattr(pd.DataFrame, "__arrow_c_stream__", refuse)
    # pandas has none before 3.0
    monkeypatch.setattr(pd.Series, "__arrow_c_stream__", refuse, raising=False)
    assert columns.hash_keys(frame, "s").tolist() == expected
    assert columns.floats(frame, "a").tolist() == [1.0, 2.0]
    assert columns.floats({"a": frame["a"]}, "a").tolist() == [1.0, 2.0]
    assert columns.open_batch(frame, ("l",)).columns["l"].is_list


def test_two_columns_of_one_name_are_refused() -> None:
    frame = pd.DataFrame([[1, 2]], columns=["a", "a"])
    table = pa.table([[1], [2]], names=["a", "a"])
    for batch in (frame, table):
        with pytest.raises(InputError) as caught:
            columns.floats(batch, "a")
        assert str(caught.value) == "expected each column once, got two - at `a`"


def test_inputs_are_neither_changed_nor_kept() -> None:
    array = np.arange(5)
    before = sys.getrefcount(array)
    columns.hash_keys({"a": array}, "a")
    assert sys.getrefcount(array) == before
    assert array.tolist() == [0, 1, 2, 3, 4]
