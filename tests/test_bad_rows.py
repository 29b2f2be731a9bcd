# ruff: noqa: ANN401 - rows hold anything
"""Every bad row of a batch is found in one pass, as each of them alone is refused."""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from din_infer import _kernels
from din_infer.columns import require_dtype, to_column
from din_infer.errors import InputError
from tests.test_arrow_types import INDICES, LEAVES, NESTINGS, Layout, pick, seeds

Errors = list[InputError]
Rng = np.random.Generator
# What is done with a batch, or a slice of it; errors are collected in the list.
Encode = Callable[[Any, Errors | None], NDArray[Any]]
TAILS = ["whole", "trim", "drop", "take"]


@dataclass(frozen=True)
class Kind:
    """A type of elements: values that its encoder knows, and such that it refuses."""

    leaf: str
    dtype: str
    fine: list[Any]
    bad: list[Any]

    def encoder(self) -> _kernels.Encoder:
        if self.dtype == "string":
            known = _kernels.Vocabulary(["a", "käse", "p"], "string")
            return _kernels.Encoder("vocab", "string", rows=5, vocabulary=known)
        return _kernels.Encoder("identity", "int64", rows=9)


KINDS = {
    "string": Kind(
        "string", "string", ["a", "käse", "p", None], ["", "- at `x`, row 0"]
    ),
    "string_view": Kind("string_view", "string", ["a", "p", None], ["long" * 9, "b"]),
    "float64": Kind(
        "whole float64",
        "int64",
        [0.0, 8.0, None, float("nan")],
        [0.5, float("inf"), 2.0**53, 9.0, -1.0],
    ),
    "uint64": Kind("uint64", "int64", [0, 8, None], [9, 2**63, 2**64 - 1]),
    "int64": Kind("int64", "int64", [0, 7, 8, None], [9, -1, -(2**63), 2**63 - 1]),
    "int8": Kind("int8", "int64", [0, 8], [9, -128]),
}
KINDS = {name: kind for name, kind in KINDS.items() if kind.leaf in LEAVES}


def values_of(rng: Rng, kind: Kind, count: int, share: float) -> list[Any]:
    """Values of which about `share` have no id."""
    is_bad = rng.random(count) < share
    return [pick(rng, kind.bad if bad else kind.fine, 1)[0] for bad in is_bad]


def lists_of(rng: Rng, kind: Kind, count: int, share: float, size: int | None) -> Any:
    """Lists of which about `share` hold a value without an id; some repeat the last."""
    rows: list[Any] = []
    for _ in range(count):
        if rows and rng.random() < 0.2:
            rows.append(rows[-1])
            continue
        usual = int(rng.integers(6)) if rng.random() < 0.97 else 300
        row = pick(rng, kind.fine, usual if size is None else size)
        if row and rng.random() < share:
            row[rng.integers(len(row))] = pick(rng, kind.bad, 1)[0]
        rows.append(None if rng.random() < 0.05 else row)
    return rows


def layout_of(data: st.DataObject, rng: Rng, kind: Kind, nesting: str) -> Layout:
    index = data.draw(st.none() | st.sampled_from(INDICES[2:]))
    list_index = data.draw(st.none() | st.sampled_from(INDICES[2:]))
    if nesting == "scalar":
        list_index = None
    return Layout(LEAVES[kind.leaf], nesting, index, list_index, 3, rng)


def run(encoding: _kernels.Encoding, rng: Rng) -> NDArray[np.int64]:
    """Encode at once, or in parts that threads share."""
    n = encoding.num_rows
    if n < 9 or rng.random() < 0.5:
        encoding.run(0, n)
        return encoding.finish()[0]
    cuts = [0, *np.sort(rng.integers(0, n + 1, 7)).tolist(), n]
    with ThreadPoolExecutor(3) as pool:
        parts = rng.permutation(list(itertools.pairwise(cuts))).tolist()
        for done in [pool.submit(encoding.run, a, b) for a, b in parts]:
            done.result()
    return encoding.finish()[0]


def refusals(batch: Any, encode: Encode) -> dict[int, str]:
    """Encode each row alone: the errors of those that are refused."""
    found = {}
    for row in range(len(next(iter(batch.values())))):
        one = {name: column[row : row + 1] for name, column in batch.items()}
        try:
            encode(one, None)
        except InputError as error:
            found[row + (error.row or 0)] = str(error.at(row=row))
    return found


def first_of_each_row(errors: Errors) -> dict[int, str]:
    found: dict[int, str] = {}
    for error in errors:
        assert error.row is not None
        found.setdefault(error.row, str(error))
    return found


def check(batch: Any, encode: Encode, good_rows: Callable[[list[int]], Any]) -> None:
    """Hold errors to those of each row alone, ids to those without the bad rows."""
    errors: Errors = []
    got = encode(batch, errors)
    expected = refusals(batch, encode)
    found = first_of_each_row(errors)
    assert found == expected
    if expected:
        with pytest.raises(InputError) as caught:
            encode(batch, None)
        assert str(caught.value) in found.values()
    good = [row for row in range(len(got)) if row not in expected]
    np.testing.assert_array_equal(got[good], encode(good_rows(good), None), strict=True)
    assert not got[list(expected)].any()


SHARES = st.sampled_from([0, 0.01, 0.5, 1])
COUNTS = st.sampled_from([0, 1, 9, 60, 400])


@pytest.mark.parametrize("name", KINDS)
@given(data=st.data())
def test_every_bad_scalar_is_found(name: str, data: st.DataObject) -> None:
    kind = KINDS[name]
    rng = np.random.default_rng(data.draw(seeds))
    values = values_of(rng, kind, data.draw(COUNTS), data.draw(SHARES))
    layout = layout_of(data, rng, kind, "scalar")
    num_chunks = data.draw(st.integers(0, 4))
    encoder = kind.encoder()

    def encode(batch: Any, errors: Errors | None) -> NDArray[Any]:
        column = require_dtype(to_column(batch["x"], "x"), kind.dtype, is_list=False)
        ids = run(_kernels.prepare_scalars(column, encoder, errors), rng)
        if errors is not None:  # none twice, and in order
            rows = [error.row or 0 for error in errors]
            assert rows == sorted(set(rows))
        return ids

    def columns(rows: list[int]) -> Any:
        return {"x": layout.column([values[row] for row in rows], num_chunks)}

    check(columns(list(range(len(values)))), encode, columns)


def narrow(
    window: _kernels.Window, how: str, batch: Any, errors: Errors | None
) -> None:
    if how == "take":
        lengths = require_dtype(to_column(batch["n"], "n"), "int64", is_list=False)
        window.take(lengths, errors)
    elif how != "whole":
        is_text = window.column.kind == "string"
        getattr(window, how)("p" if is_text else 8)


def lengths_of(rng: Rng, lists: Any, share: float) -> list[float | None]:
    """Lengths of which about `share` are none that the list can have."""
    lengths: list[float | None] = []
    for row in lists:
        size = len(row or [])
        wrong = [None, -1.0, 0.5, size + 1.0, 2.0**53, float("inf"), float("nan")]
        fine = [float(rng.integers(size + 1))]
        lengths += pick(rng, wrong if rng.random() < share else fine, 1)
    return lengths


@pytest.mark.slow
@pytest.mark.parametrize("how", TAILS)
@pytest.mark.parametrize("nesting", NESTINGS)
@given(data=st.data())
def test_every_bad_list_is_found(nesting: str, how: str, data: st.DataObject) -> None:
    """Beside another column of the same lists, of which some have other lengths."""
    kind = KINDS[data.draw(st.sampled_from(list(KINDS)))]
    other = KINDS[data.draw(st.sampled_from(list(KINDS)))]
    rng = np.random.default_rng(data.draw(seeds))
    share = data.draw(SHARES)
    size = 3 if nesting == "fixed_size_list" else None
    lists = lists_of(rng, kind, data.draw(COUNTS), share, size)
    lengths = lengths_of(rng, lists, data.draw(SHARES))
    parallel: list[Any] = []
    share_of_lengths = data.draw(SHARES)
    for row in lists:
        n = len(row or [])
        if size is None and rng.random() < share_of_lengths:
            n = int(rng.integers(2 * n + 1))
        parallel.append(values_of(rng, other, n, share / 4) if row or n else row)
    layout = layout_of(data, rng, kind, nesting)
    beside = layout_of(data, rng, other, nesting)
    num_chunks = data.draw(st.integers(0, 4))
    max_len = data.draw(st.sampled_from([1, 3, 256, 400]))
    newest_first = data.draw(st.booleans())
    encoders = kind.encoder(), other.encoder()

    def encode(batch: Any, errors: Errors | None) -> NDArray[Any]:
        columns = [
            require_dtype(to_column(batch[name], name), dtype, is_list=True)
            for name, dtype in (("x", kind.dtype), ("y", other.dtype))
        ]
        window = _kernels.Window(columns[0])
        narrow(window, how, batch, errors)
        width = window.finish(max_len, True)[1]
        prepared = []
        for column, encoder in zip(columns, encoders, strict=True):
            encoding = _kernels.prepare_lists(
                column, encoder, window, width, newest_first, errors
            )
            prepared.append(encoding)
        ids = np.stack([run(encoding, rng) for encoding in prepared], 1)
        if errors is not None:  # a column may be fine where the other is not
            ids[[error.row for error in errors]] = 0
        return ids

    def columns(rows: list[int]) -> Any:
        return {
            "x": layout.column([lists[row] for row in rows], num_chunks),
            "y": beside.column([parallel[row] for row in rows], num_chunks),
            "n": pa.array([lengths[row] for row in rows], pa.float64()),
        }

    check(columns(list(range(len(lists)))), encode, columns)


@pytest.mark.parametrize("missing", [None, -1.0])
@pytest.mark.parametrize("nesting", ["scalar", *NESTINGS])
@given(data=st.data())
def test_every_bad_dense_row_is_found(
    nesting: str, missing: float | None, data: st.DataObject
) -> None:
    kind = Kind("float64", "float", [0.5, -2.0], [None, float("nan"), float("inf")])
    rng = np.random.default_rng(data.draw(seeds))
    count, share = data.draw(COUNTS), data.draw(SHARES)
    rows = values_of(rng, kind, count, share)
    width = 1 if nesting == "scalar" else 3
    if nesting != "scalar":
        sizes = [3 if rng.random() >= share else int(rng.integers(6)) for _ in rows]
        if nesting == "fixed_size_list":
            sizes = [3] * count
        rows = [values_of(rng, kind, size, share / 3) for size in sizes]
        rows = [None if rng.random() < share / 4 else row for row in rows]
    layout = layout_of(data, rng, kind, nesting)
    num_chunks = data.draw(st.integers(0, 4))

    def encode(batch: Any, errors: Errors | None) -> NDArray[Any]:
        column = require_dtype(
            to_column(batch["x"], "x"), "float", is_list=nesting != "scalar"
        )
        return _kernels.read_dense(column, width, missing, errors)[0]

    def columns(chosen: list[int]) -> Any:
        return {"x": layout.column([rows[row] for row in chosen], num_chunks)}

    check(columns(list(range(count))), encode, columns)


@pytest.mark.parametrize("name", ["float64", "uint64", "int8"])
@given(data=st.data())
def test_every_number_that_is_not_whole_is_found(
    name: str, data: st.DataObject
) -> None:
    kind = KINDS[name]
    rng = np.random.default_rng(data.draw(seeds))
    values = values_of(rng, kind, data.draw(COUNTS), data.draw(SHARES))
    layout = layout_of(data, rng, kind, "scalar")
    num_chunks = data.draw(st.integers(0, 4))

    def encode(batch: Any, errors: Errors | None) -> NDArray[Any]:
        column = require_dtype(to_column(batch["x"], "x"), "int64", is_list=False)
        numbers, valid = _kernels.read_int64(column, errors)
        for error in errors or []:
            assert valid[error.row] == 1
        return numbers

    def columns(rows: list[int]) -> Any:
        return {"x": layout.column([values[row] for row in rows], num_chunks)}

    check(columns(list(range(len(values)))), encode, columns)


@pytest.mark.parametrize("nesting", ["scalar", "list"])
@pytest.mark.parametrize("share", [0, 0.1, 1])
def test_bad_runs_are_numbered_as_runs(share: float, nesting: str) -> None:
    rng = np.random.default_rng(5)
    kind = KINDS["int8"]
    firsts: list[Any] = values_of(rng, kind, 400, share)
    if nesting == "list":
        firsts = lists_of(rng, kind, 400, share, None)
    sizes = rng.integers(1, 4, len(firsts))
    rows = [row for row, n in zip(firsts, sizes, strict=True) for _ in range(n)]
    starts = np.cumsum([0, *sizes[:-1]])

    def outcome(column: _kernels.Column) -> Any:
        errors: Errors = []
        encoder = kind.encoder()
        if nesting == "scalar":
            encoding = _kernels.prepare_scalars(column, encoder, errors)
        else:
            window = _kernels.Window(column)
            window.drop(8)
            width = window.finish(400, False)[1]
            encoding = _kernels.prepare_lists(
                column, encoder, window, width, False, errors
            )
        ids = run(encoding, rng)
        return [str(error) for error in errors], ids.tolist()

    arrays = [pa.array(rows[:301]), pa.array(rows[301:])]
    whole = to_column(pa.chunked_array(arrays), "x")
    expected = outcome(to_column(pa.array(firsts), "x"))
    assert outcome(_kernels.take_runs(whole, starts)) == expected
    assert bool(expected[0]) == bool(share)


def test_finish_reports_bad_rows_once() -> None:
    errors: Errors = []
    column = _kernels.from_list([1, 10, 2, 11], "x")
    encoding = _kernels.prepare_scalars(column, KINDS["int64"].encoder(), errors)
    encoding.run(2, 4)
    with pytest.raises(InputError, match="expected 4 rows, all of them run, got 2"):
        encoding.finish()
    encoding.run(0, 2)
    for _ in range(2):
        assert encoding.finish()[0].tolist() == [1, 0, 2, 0]
        assert [str(error) for error in errors] == [
            "expected an id in [0, 9), got 10 - at `x`, row 1",
            "expected an id in [0, 9), got 11 - at `x`, row 3",
        ]


def test_errors_of_whole_columns_are_raised() -> None:
    errors: Errors = []
    lists = _kernels.from_list([[1], [2, 3]], "x")
    window = _kernels.Window(lists)
    encoder = KINDS["int64"].encoder()
    calls: list[Callable[[], object]] = [
        lambda: _kernels.prepare_scalars(lists, encoder, errors),
        lambda: _kernels.read_int64(lists, errors),
        lambda: _kernels.read_dense(_kernels.from_list(["a"], "s"), 1, None, errors),
        lambda: window.take(_kernels.from_list([1], "n"), errors),
        lambda: _kernels.prepare_lists(
            _kernels.from_list([[1]], "y"), encoder, window, 2, False, errors
        ),
    ]
    for call in calls:
        with pytest.raises(InputError):
            call()
    assert errors == []


@pytest.mark.parametrize("is_collected", [False, True])
def test_a_value_mended_before_finish_is_still_refused(is_collected: bool) -> None:
    """The column is a view of the array, which another thread may change."""
    errors: Errors | None = [] if is_collected else None
    array = np.array([1, 10, 2])
    column = _kernels.from_numpy(array, "x")
    encoding = _kernels.prepare_scalars(column, KINDS["int64"].encoder(), errors)
    encoding.run(0, 3)
    array[1] = 5
    message = "expected an id in [0, 9), got None - at `x`, row 1"
    if errors is None:
        with pytest.raises(InputError) as caught:
            encoding.finish()
        assert str(caught.value) == message
    else:
        assert encoding.finish()[0].tolist() == [1, 0, 2]
        assert [str(error) for error in errors] == [message]
