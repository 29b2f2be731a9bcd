"""Rows may be encoded in any parts, in any order and by any thread: nothing changes.

Above 400 lines: one run, parts, threads and their errors are held to each other.
"""

import itertools
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from din_infer import _kernels, encode
from din_infer.columns import require_dtype, to_column
from din_infer.encode import FeatureEncoder
from din_infer.errors import InputError
from din_infer.spec import FeatureSpec
from tests import reference
from tests.containers import as_chunked_arrow, as_dictionary_arrow, as_view_arrow
from tests.test_arrow_types import (
    INDICES,
    LEAVES,
    NESTINGS,
    Layout,
    Lists,
    Values,
    draw_lists,
    draw_pool,
    draw_values,
    encoders,
    pick,
    seeds,
    spec_of,
    windows,
)
from tests.test_encode import KINDS, SPEC, Rows, tables

Outcome = tuple[Any, ...]
Prepare = Callable[[], _kernels.Encoding]


def outcome(encoding: _kernels.Encoding) -> Outcome:
    """What `finish` gives: ids and counts, or the whole error."""
    try:
        ids, nulls, unseen = encoding.finish()
    except InputError as error:
        return (str(error),)
    return ids.shape, ids.tobytes(), nulls, unseen


def in_one_run(prepare: Prepare) -> Outcome:
    encoding = prepare()
    encoding.run(0, encoding.num_rows)
    return outcome(encoding)


def parts_of(num_rows: int, count: int, rng: np.random.Generator) -> list[list[int]]:
    """Cut the rows anywhere, into parts in random order; some are empty."""
    cuts = sorted(rng.integers(0, num_rows + 1, count - 1).tolist())
    parts = [[a, b] for a, b in itertools.pairwise([0, *cuts, num_rows])]
    return [parts[i] for i in rng.permutation(len(parts))]


def in_parts(prepare: Prepare, parts: list[list[int]], threads: int) -> Outcome:
    encoding = prepare()
    if threads == 1:
        for first, stop in parts:
            encoding.run(first, stop)
    else:
        with ThreadPoolExecutor(threads) as pool:
            for done in [pool.submit(encoding.run, a, b) for a, b in parts]:
                assert done.result() is None
    return outcome(encoding)


def prepare_of(column: object, lengths: object, spec: FeatureSpec) -> Prepare:
    """Do what encoding a batch does up to the runs."""
    field = spec.behavior[0].fields[0] if spec.behavior else spec.candidate[1]
    encoder = encode._compile(field.encoder, field.dtype)
    found = require_dtype(
        to_column(column, "x"),
        field.dtype,
        is_list=bool(spec.behavior),
        uuid_as=encoder.uuid_as,
    )
    if not spec.behavior:
        return lambda: _kernels.prepare_scalars(found, encoder)
    sequence = spec.behavior[0]
    window = _kernels.Window(found)
    if sequence.length_column is not None:
        window.take(to_column(lengths, "n"))
    elif sequence.pad_value is not None and sequence.pad_inside == "dropped":
        window.drop(sequence.pad_value)
    elif sequence.pad_value is not None:
        window.trim(sequence.pad_value)
    is_fixed = sequence.padding == "attended"
    width = window.finish(sequence.max_len, is_fixed)[1]
    newest_first = sequence.order == "newest_first"
    return lambda: _kernels.prepare_lists(found, encoder, window, width, newest_first)


@pytest.mark.parametrize("is_long", [False, True], ids=["short", "long"])
@pytest.mark.parametrize("nesting", ["scalar", *NESTINGS])
@given(data=st.data())
def test_any_parts_give_what_one_run_gives(
    nesting: str, is_long: bool, data: st.DataObject
) -> None:
    leaf = LEAVES[data.draw(st.sampled_from(list(LEAVES)))]
    pool = draw_pool(data, leaf.legal)
    keys = data.draw(windows(leaf.dtype, pool)) if nesting != "scalar" else None
    spec = spec_of(leaf.dtype, data.draw(encoders(leaf, leaf.dtype, pool)), keys)
    if data.draw(st.booleans()):  # some have no id
        pool += leaf.strays
    size = 3 if nesting == "fixed_size_list" else None
    lists: Lists = (
        draw_values(data, pool, is_long)
        if keys is None
        else draw_lists(data, pool, is_long, size)
    )
    index = data.draw(st.none() | st.sampled_from(INDICES))
    list_index = data.draw(st.none() | st.sampled_from(INDICES[2:])) if keys else None
    rng = np.random.default_rng(data.draw(seeds))
    layout = Layout(leaf, nesting, index, list_index, size or 0, rng)
    column = layout.column(lists, data.draw(st.integers(0, 4)))
    lengths = [int(rng.integers(len(v or []) + 1)) if keys else 0 for v in lists]
    prepare = prepare_of(column, lengths, spec)
    expected = in_one_run(prepare)
    for threads in (1, 1, 3):
        count = data.draw(st.sampled_from([1, 2, 5, 40]))
        assert in_parts(prepare, parts_of(len(lists), count, rng), threads) == expected


def test_a_row_at_a_time_gives_what_one_run_gives() -> None:
    rng = np.random.default_rng(2)
    lists = [rng.integers(0, 40, n).tolist() for n in (3, 300, 0, 256, 1, 1, 700)] * 3
    column = pa.chunked_array(
        [lists[:4], lists[4:4], lists[4:15], lists[15:]], pa.list_(pa.int16())
    )
    keys = {"max_len": 280, "order": "newest_first"}
    vocab = {"type": "vocab", "values": list(range(30)), "unseen": "missing"}
    prepare = prepare_of(column, None, spec_of("int64", vocab, keys))
    expected = in_one_run(prepare)
    assert expected[3] > 100
    rows = [[i, i + 1] for i in range(len(lists))]
    for parts in (rows, rows[::-1]):
        assert in_parts(prepare, parts, 1) == expected
        assert in_parts(prepare, parts, 8) == expected


def test_rows_that_are_not_there_are_refused() -> None:
    encoder = _kernels.Encoder("hash", "string", rows=9)
    column = _kernels.from_list(["a", "b", "c"], "x")
    for first, stop in ((-1, 2), (2, 1), (1, 4), (4, 4)):
        encoding = _kernels.prepare_scalars(column, encoder)
        with pytest.raises(InputError) as caught:
            encoding.run(first, stop)
        assert str(caught.value) == (
            f"expected rows in [0, 3], got [{first}, {stop}) - at `x`"
        )


# ------------------------------------------------------------------------------- errors


Number = float | int | None


def first_fault(values: list[Number]) -> tuple[int, str] | None:
    """Find the first value that identity with 9 buckets refuses, and why."""
    for i, value in enumerate(values):
        if value is None or math.isnan(value):
            continue
        got = repr(value)
        if math.isinf(value) or value != math.floor(value):
            return i, f"expected a whole number, got {got}"
        if isinstance(value, float) and abs(value) >= 2**53:
            return i, f"expected a whole number that float64 holds exactly, got {got}"
        if not 0 <= value < 9:
            return i, f"expected an id in [0, 9), got {got}"
    return None


# Numbers that have an id, and such that have none.
NUMBERS: dict[str, tuple[pa.DataType, list[Number], list[Number]]] = {
    "float64": (
        pa.float64(),
        [0.0, 8.0, None, math.nan],
        [0.5, math.inf, -math.inf, 2.0**53, 9.0, -1.0],
    ),
    "uint64": (pa.uint64(), [0, 8, None], [9, 2**63 - 1, 2**63, 2**64 - 1]),
    "int8": (pa.int8(), [0, 8, None], [9, -1, -128]),
}


def draw_faulty(data: st.DataObject, fine: list[Number], bad: list[Number]) -> Values:
    """Numbers of which few have no id."""
    count = data.draw(st.sampled_from([1, 7, 200, 255, 256, 257, 600]))
    rng = np.random.default_rng(data.draw(seeds))
    values = pick(rng, fine, count)
    for value in data.draw(st.lists(st.sampled_from(bad), max_size=4)):
        values[rng.integers(count)] = value
    return values


def large_coded(array: pa.Array) -> pa.Array:
    """In a dictionary longer than the column, the rest of which has no id."""
    dictionary = pa.concat_arrays([array, pa.array([9] * 9, array.type)])
    return pa.DictionaryArray.from_arrays(pa.array(range(len(array))), dictionary)


HOLDERS: dict[str, Callable[[pa.Array], Any]] = {
    "array": lambda array: array,
    "list": lambda array: array.to_pylist(),
    "dictionary": lambda array: array.dictionary_encode(),
    "large dictionary": large_coded,
    "chunks": lambda array: pa.chunked_array([array[:3], array[3:]]),
}


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("name", NUMBERS)
@given(data=st.data())
def test_the_first_of_all_faults_is_named(
    name: str, holder: str, data: st.DataObject
) -> None:
    kind, fine, bad = NUMBERS[name]
    if holder == "list":  # whose integers are of 64 bits, signed
        bad = [v for v in bad if isinstance(v, float) or (v or 0) < 2**63]
    values = draw_faulty(data, fine, bad)
    column = HOLDERS[holder](pa.array(values, kind))
    spec = spec_of("int64", {"type": "identity", "buckets": 9}, None)
    prepare = prepare_of(column, None, spec)
    fault = first_fault(values)
    rng = np.random.default_rng(data.draw(seeds))
    found = in_one_run(prepare)
    if fault is None:
        assert found[:1] == ((len(values),),)
    else:
        assert found == (f"{fault[1]} - at `x`, row {fault[0]}",)
    for threads in (1, 3):
        assert in_parts(prepare, parts_of(len(values), 9, rng), threads) == found


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("holder", ["array", "dictionary", "large dictionary"])
@pytest.mark.parametrize("name", NUMBERS)
@given(data=st.data())
def test_the_first_of_all_faults_of_lists_is_named(
    name: str, holder: str, newest_first: bool, data: st.DataObject
) -> None:
    kind, fine, bad = NUMBERS[name]
    values = draw_faulty(data, fine, bad)
    rng = np.random.default_rng(data.draw(seeds))
    cuts = np.sort(rng.integers(0, len(values) + 1, 20))
    ends = np.array([0, *cuts, len(values)], dtype=np.int32)
    elements = HOLDERS[holder](pa.array(values, kind))
    column = pa.ListArray.from_arrays(pa.array(ends), elements)
    order = "newest_first" if newest_first else "oldest_first"
    keys = {"max_len": 1000, "order": order}
    spec = spec_of("int64", {"type": "identity", "buckets": 9}, keys)
    prepare = prepare_of(column, None, spec)
    fault = first_fault(values)
    found = in_one_run(prepare)
    if fault is None:
        assert found[:1] == ((21, int(np.diff(ends).max())),)
    else:
        row = int(np.searchsorted(ends, fault[0], side="right")) - 1
        assert found == (f"{fault[1]} - at `x`, row {row}",)
    for threads in (1, 3):
        assert in_parts(prepare, parts_of(len(column), 9, rng), threads) == found


# ------------------------------------------------------------------------------ threads


@pytest.fixture(params=[1, 7, 64])
def part(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Elements that one thread encodes at a time: few."""
    size: int = request.param
    monkeypatch.setattr(encode, "PART", size)
    return size


def many(rows: Rows) -> Rows:
    """Rows enough for many parts; equal ones beside each other and apart."""
    return [row for row in rows for _ in range(3)] * 7


@pytest.mark.usefixtures("part")
@pytest.mark.parametrize(
    "container", [as_chunked_arrow, as_dictionary_arrow, as_view_arrow]
)
@pytest.mark.parametrize("seed", range(6))
def test_threads_do_not_change_a_batch(
    container: Callable[..., Any], seed: int
) -> None:
    rows = many(rows_of(seed))
    spec = FeatureSpec.from_dict(SPEC)
    batch = container(rows, KINDS)
    expected, counts = reference.encode(spec, rows)
    for threads in (1, 2, 3, 8):
        encoded = FeatureEncoder(spec.reads).encode(batch, threads=threads)
        got = encoded.inputs
        for name, array in expected.items():
            np.testing.assert_array_equal(got[name], array, strict=True, err_msg=name)
        assert encoded.stats.to_dict() == counts
        again = spec.encode(batch, threads=threads)
        assert {n: a.tobytes() for n, a in again.items()} == {
            n: a.tobytes() for n, a in got.items()
        }


def rows_of(seed: int) -> Rows:
    """Rows with everything that `tables` draws, and histories of up to 40."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(int(rng.integers(1, 7))):
        n = int(rng.integers(0, 40))
        row: dict[str, Any] = {
            "user_id": f"u{rng.integers(9)}",
            "age": float(rng.integers(90)) if rng.random() < 0.8 else None,
            "goods_id": f"goods_{rng.integers(50)}" if rng.random() < 0.8 else None,
            "cate_id": int(rng.integers(-3, 110)),
            "number": int(rng.integers(-(2**52), 2**52)),
            "hist_goods": [f"goods_{i}" for i in rng.integers(0, 50, n)],
            "hist_cate": rng.integers(-3, 110, n).tolist(),
            "click_number": None if n % 3 else rng.integers(0, 9, n).tolist(),
            "tags": ["new", "sale", "old"][: n % 4],
            "price": float(rng.random()),
            "vector": None if n % 2 else [1.0, None],
        }
        rows.append(row)
    return rows


@pytest.mark.parametrize("threads", [2, 3, 8])
@settings(max_examples=20)
@given(rows=tables())
def test_threads_do_not_change_small_tables(threads: int, rows: Rows) -> None:
    rows = many(rows)
    spec = FeatureSpec.from_dict(SPEC)
    batch = as_chunked_arrow(rows, KINDS)
    expected = spec.encode(batch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode, "PART", 5)
        got = spec.encode(batch, threads=threads)
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array, strict=True, err_msg=name)


@pytest.mark.usefixtures("part")
@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_threads_do_not_change_requests(threads: int) -> None:
    spec = FeatureSpec.from_dict(SPEC)
    rows = rows_of(3) * 5
    owners = np.repeat(np.arange(len(rows)), 2)
    items = [row for row in rows for _ in range(2)]
    expected = spec.encode(items)
    got = spec.encoder.encode_requests(rows, items, owners, threads=threads).inputs
    for entry in spec.inputs[:-1]:
        array = got[entry.name]
        if entry.shape[0] == "B":
            array = array[owners]
        np.testing.assert_array_equal(array, expected[entry.name], strict=True)


@pytest.mark.usefixtures("part")
@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"a": (70, -1)}, "expected an id in [0, 9), got -1 - at `a`, row 70"),
        (
            {"a": (70, -1), "b": (3, 99)},
            "expected an id in [0, 9), got -1 - at `a`, row 70",
        ),
        ({"b": (3, 99)}, "expected an id in [0, 9), got 99 - at `b`, row 3"),
        ({"x": (99, [4, 9])}, "expected an id in [0, 9), got 9 - at `x`, row 99"),
        (
            {"b": (99, 9), "x": (0, [9])},
            "expected an id in [0, 9), got 9 - at `x`, row 0",
        ),
    ],
)
def test_threads_do_not_change_the_error(
    threads: int, bad: dict[str, tuple[int, Any]], message: str
) -> None:
    encoder = {"type": "identity", "buckets": 9}
    field = {"dtype": "int64", "dim": 1, "encoder": encoder}
    spec = FeatureSpec.from_dict(
        {
            "format": 1,
            "user": [{"name": "a", **field}],
            "candidate": [{"name": "b", **field}],
            "behavior": [{"name": "h", "max_len": 9, "fields": {"x": field}}],
        }
    )
    columns: dict[str, list[Any]] = {
        "a": [1, 2] * 50,
        "b": [3] * 100,
        "x": [[1, 2, 3], [4]] * 50,
    }
    for name, (row, value) in bad.items():
        columns[name][row] = value
        columns[name][-1] = value
    with pytest.raises(InputError) as caught:
        spec.encode(columns, threads=threads)
    assert str(caught.value) == message


@pytest.mark.parametrize("threads", [0, -1, 1.5, None, "2", True])
def test_threads_are_a_whole_number_of_at_least_1(threads: object) -> None:
    field = {"name": "g", "dim": 2, "encoder": {"type": "hash", "buckets": 9}}
    spec = FeatureSpec.from_dict({"format": 1, "candidate": [field]})
    with pytest.raises(InputError) as caught:
        spec.encode({"g": ["a"]}, threads=threads)  # type: ignore[arg-type]
    assert str(caught.value) == (
        f"expected a whole number of at least 1, got {threads!r} - at `threads`"
    )


def test_an_encoding_made_by_hand_is_empty() -> None:
    encoding = _kernels.Encoding()
    encoding.run(0, 0)
    assert encoding.finish() == (None, 0, 0)
    with pytest.raises(InputError) as caught:
        encoding.run(0, 1)
    assert str(caught.value) == ("expected rows in [0, 0], got [0, 1) - at `Encoding`")
