"""Rows that repeat the row before, as in exploded tables, and rows that nearly do.

Ids, lengths and counts are those of the reference, whether or not a repetition is seen.
"""

from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from din_infer import encode
from din_infer.encode import FeatureEncoder
from din_infer.errors import InputError
from din_infer.spec import FeatureSpec
from tests.test_arrow_types import (
    INDICES,
    LEAVES,
    Layout,
    Leaf,
    Lists,
    Values,
    check,
    draw_pool,
    encoders,
    pick,
    seeds,
    spec_of,
    windows,
)

# ------------------------------------------------------------------------ exploded rows


def with_values(lists: pa.Array, values: pa.Array) -> pa.Array:
    """Replace the values of lists."""
    kind = lists.type
    if pa.types.is_fixed_size_list(kind):
        kind, count = pa.list_(values.type, kind.list_size), 1
    elif pa.types.is_list_view(kind):
        kind, count = pa.list_view(values.type), 3
    elif pa.types.is_large_list(kind):
        kind, count = pa.large_list(values.type), 2
    else:
        kind, count = pa.list_(values.type), 2
    buffers = lists.buffers()[:count]
    return pa.Array.from_buffers(
        kind, len(lists), buffers, offset=lists.offset, children=[values]
    )


def copied(lists: pa.Array, rows: list[int]) -> pa.Array:
    """Copy the elements of every row, what lies under nulls too."""
    values = lists.values
    is_coded = pa.types.is_dictionary(values.type)
    # pyarrow joins not every dictionary
    lists = with_values(lists, values.indices) if is_coded else lists
    lists = pa.concat_arrays([lists[row : row + 1] for row in rows])
    if not is_coded:
        return lists
    dictionary = values.dictionary
    coded = pa.DictionaryArray.from_arrays(lists.values, dictionary, safe=False)
    return with_values(lists, coded)


def viewed(lists: pa.Array, rows: list[int]) -> pa.Array:
    """Make views of lists that lie there once."""
    whole = np.frombuffer(lists.buffers()[1], dtype=np.int32)[lists.offset :]
    valid = [lists[row].is_valid for row in rows]
    buffers = [
        pa.py_buffer(np.packbits(valid, bitorder="little")),
        pa.py_buffer(whole[rows]),
        pa.py_buffer(np.diff(whole)[rows]),
    ]
    kind = pa.list_view(lists.type.value_type)
    return pa.Array.from_buffers(kind, len(rows), buffers, children=[lists.values])


def coded(lists: pa.Array, rows: list[int]) -> pa.Array:
    indices = pa.array(rows, INDICES[len(rows) % 8])
    return pa.DictionaryArray.from_arrays(indices, lists)


# How rows repeat, and how the rows that they repeat lie.
FORMS: dict[str, tuple[Callable[[pa.Array, list[int]], pa.Array], str]] = {
    "copied lists": (copied, "list"),
    "copied large lists": (copied, "large_list"),
    "copied lists of one size": (copied, "fixed_size_list"),
    "views": (viewed, "list"),
    "copied views": (copied, "list_view"),
    "a dictionary of lists": (coded, "list"),
    "a dictionary of large views": (coded, "large_list_view"),
    "a dictionary of lists of one size": (coded, "fixed_size_list"),
}


def draw_base(data: st.DataObject, pool: Values, size: int | None) -> Lists:
    """Rows before they are exploded: most short, some longer than a block."""
    if data.draw(st.sampled_from([True, True, False])):
        low, high = (0, 5) if size is None else (size, size)
        row = st.lists(st.sampled_from(pool), min_size=low, max_size=high)
        return data.draw(st.lists(st.none() | row, min_size=1, max_size=5))
    rng = np.random.default_rng(data.draw(seeds))
    sizes = rng.choice([0, 1, 60, 128, 255, 256, 257, 300], 4).tolist()
    return [pick(rng, pool, n if size is None else size) for n in sizes]


def explode(data: st.DataObject, count: int) -> list[int]:
    times = data.draw(st.lists(st.integers(1, 5), min_size=count, max_size=count))
    return [row for row, n in enumerate(times) for _ in range(n)]


def layout_of(data: st.DataObject, leaf: Leaf, nesting: str, size: int) -> Layout:
    rng = np.random.default_rng(data.draw(seeds))
    index = data.draw(st.none() | st.sampled_from(INDICES))
    return Layout(leaf, nesting, index, None, size, rng)


@pytest.mark.parametrize("form", FORMS)
@given(data=st.data())
def test_exploded_rows_give_the_inputs_of_the_reference(
    form: str, data: st.DataObject
) -> None:
    leaf = LEAVES[data.draw(st.sampled_from(list(LEAVES)))]
    spread, nesting = FORMS[form]
    size = data.draw(st.sampled_from([0, 1, 3, 300]))
    pool = draw_pool(data, leaf.legal)
    base = draw_base(data, pool, size if nesting == "fixed_size_list" else None)
    rows = explode(data, len(base))
    lists = [base[row] for row in rows]
    column = spread(layout_of(data, leaf, nesting, size).column(base, 0), rows)
    assert repr(column.to_pylist()) == repr(lists)

    keys = data.draw(windows(leaf.dtype, pool))
    spec = spec_of(leaf.dtype, data.draw(encoders(leaf.dtype, pool)), keys)
    rng = np.random.default_rng(data.draw(seeds))
    of_base = [int(rng.integers(len(row or []) + 1)) for row in base]
    lengths = [of_base[row] for row in rows]
    if data.draw(st.booleans()):  # the same lists, but not the same behaviors
        lengths = [int(rng.integers(len(row or []) + 1)) for row in lists]
    batch = {"c": ["a"] * len(rows), "x": column, "n": lengths}
    expected = [
        {"c": "a", "x": row, "n": n} for row, n in zip(lists, lengths, strict=True)
    ]
    check(spec, batch, expected, data.draw(st.sampled_from([1, 3])))


@given(data=st.data())
def test_fields_of_one_sequence_repeat_apart(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(list(LEAVES)), min_size=2, max_size=3))
    fields = {}
    columns: dict[str, Any] = {}
    lists: dict[str, Lists] = {}
    rng = np.random.default_rng(data.draw(seeds))
    sizes = data.draw(st.lists(st.sampled_from([0, 1, 2, 5, 90, 260]), min_size=1))
    rows = explode(data, len(sizes))
    for i, name in enumerate(names):
        leaf = LEAVES[name]
        pool = draw_pool(data, leaf.legal)
        repeats = data.draw(st.booleans())
        order = list(range(len(sizes))) if repeats else rows
        base: Lists = [pick(rng, pool, sizes[row]) for row in order]
        column = layout_of(data, leaf, "list", 0).column(base, 0)
        if repeats:
            spread = data.draw(st.sampled_from([copied, viewed, coded]))
            column = spread(column, rows)
            base = [base[row] for row in rows]
        encoder = data.draw(encoders(leaf.dtype, pool))
        fields[f"x{i}"] = {"dtype": leaf.dtype, "dim": 1, "encoder": encoder}
        columns[f"x{i}"] = column
        lists[f"x{i}"] = base
    spec = FeatureSpec.from_dict(
        {
            "format": 1,
            "candidate": [
                {"name": "c", "dim": 1, "encoder": {"type": "hash", "buckets": 9}}
            ],
            "behavior": [
                {
                    "name": "h",
                    "fields": fields,
                    "max_len": data.draw(st.sampled_from([1, 3, 100, 300])),
                    "order": data.draw(
                        st.sampled_from(["oldest_first", "newest_first"])
                    ),
                }
            ],
        }
    )
    batch = {"c": ["a"] * len(rows)} | columns
    expected = [
        {"c": "a"} | {name: values[i] for name, values in lists.items()}
        for i in range(len(rows))
    ]
    check(spec, batch, expected, data.draw(st.sampled_from([1, 3])))


# ------------------------------------------------------------------------- near repeats

LONG = 2**31 - 1
# Two values of each type; of text of one size, one byte apart or after equal heads.
PAIRS: dict[str, tuple[pa.DataType, Any, Any]] = {
    "string": (pa.string(), "ab", "ac"),
    "large_string": (pa.large_string(), "ab", "ac"),
    "string_view": (pa.string_view(), "abcdefghijk", "abcdefghijl"),
    "long string_view": (pa.string_view(), "a" * 30, "a" * 29 + "b"),
    "int8": (pa.int8(), 1, -1),
    "uint16": (pa.uint16(), 1, 257),
    "int32": (pa.int32(), 1, 2**24 + 1),
    "int64": (pa.int64(), 1, 2**56 + 1),
    "bool": (pa.bool_(), True, False),
    "float16": (pa.float16(), 1.0, 2.0),
    "float32": (pa.float32(), 1.0, 2.0),
    "float64": (pa.float64(), 1.0, 2.0),
    "coded string": (pa.dictionary(pa.int8(), pa.string()), "ab", "ac"),
    "coded int64": (pa.dictionary(pa.int64(), pa.int64()), 1, 2),
}
NESTED: dict[str, Callable[[pa.DataType, int], pa.DataType]] = {
    "list": lambda kind, _: pa.list_(kind),
    "large_list": lambda kind, _: pa.large_list(kind),
    "list_view": lambda kind, _: pa.list_view(kind),
    "fixed_size_list": pa.list_,
}


def near_spec(values: Values, max_len: int, order: str = "oldest_first") -> FeatureSpec:
    dtype = "string" if isinstance(values[0], str | bytes) else "int64"
    keys = {"max_len": max_len, "order": order}
    return spec_of(dtype, {"type": "hash", "buckets": LONG}, keys)


def array_of(rows: Lists, kind: pa.DataType, nesting: str) -> pa.Array:
    if not pa.types.is_dictionary(kind):
        return pa.array(rows, NESTED[nesting](kind, len(rows[0] or [])))
    flat = pa.array([v for row in rows for v in row or []], kind.value_type)
    entries = flat.dictionary_encode()
    child = pa.DictionaryArray.from_arrays(
        entries.indices.cast(kind.index_type), entries.dictionary
    )
    ends = np.cumsum([0] + [len(row or []) for row in rows])
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), child)


@pytest.mark.parametrize("n", [1, 2, 7, 256, 300])
@pytest.mark.parametrize("nesting", NESTED)
@pytest.mark.parametrize("name", PAIRS)
def test_rows_one_element_or_one_null_apart_are_told_apart(
    name: str, nesting: str, n: int
) -> None:
    kind, value, other = PAIRS[name]
    for place in sorted({0, n // 2, n - 1}):
        for changed in (other, None):
            row = [value] * n
            near = [*row[:place], changed, *row[place + 1 :]]
            rows: Lists = [row, near, near, row, row, near]
            for order in ("oldest_first", "newest_first"):
                spec = near_spec([value], 300, order)
                column = array_of(rows, kind, nesting)
                batch = {"c": ["a"] * 6, "x": column}
                check(spec, batch, [{"c": "a", "x": r, "n": 0} for r in rows])
                ids = spec.encode(batch)["x"]
                at = place if order == "oldest_first" else n - 1 - place
                assert (ids[0] != ids[1]).nonzero()[0].tolist() == [at]
                for a, b in ((1, 2), (0, 3), (0, 4), (1, 5)):
                    assert ids[a].tolist() == ids[b].tolist()


CUTS: list[tuple[Values, Values]] = [
    (["ab", "c"], ["a", "bc"]),
    (["", "a"], ["a", ""]),
    (["ab", "", "c"], ["a", "b", "c"]),
    (["ab"], ["a", "b"]),
    (["a", "b"], ["ab", ""]),
    ([None, "a"], ["", "a"]),
    ([None, "a"], ["a", None]),
    ([None, None], ["", ""]),
    (["\0"], ["\0\0"]),
    (["\0", ""], ["", "\0"]),
    (["x" * 300, "y"], ["x" * 299, "xy"]),
    (["x"] * 300, ["xx", "", *["x"] * 298]),
]


@pytest.mark.parametrize(("one", "other"), CUTS)
@pytest.mark.parametrize("nesting", ["list", "large_list", "list_view"])
@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.binary(), pa.string_view()], ids=str
)
def test_the_same_bytes_cut_differently_are_told_apart(
    kind: pa.DataType, nesting: str, one: Values, other: Values
) -> None:
    rows: Lists = [one, other, other, one, one, other]
    spec = near_spec(["a"], 300)
    batch = {"c": ["a"] * 6, "x": array_of(rows, kind, nesting)}
    check(spec, batch, [{"c": "a", "x": r, "n": 0} for r in rows])
    ids = spec.encode(batch)["x"].tolist()
    assert ids[0] != ids[1]


@pytest.mark.parametrize("wide", [False, True])
def test_bytes_under_a_null_neither_make_nor_hide_a_repeat(wide: bool) -> None:
    # null over "ab" | "c", then null over "a" | "bc", then "ab" | "c" without null
    width = np.int64 if wide else np.int32
    buffers = [
        pa.py_buffer(np.array([0b111010], dtype=np.uint8)),
        pa.py_buffer(np.array([0, 2, 3, 4, 6, 8, 9], dtype=width)),
        pa.py_buffer(b"abcabcabc"),
    ]
    kind = pa.large_string() if wide else pa.string()
    child = pa.Array.from_buffers(kind, 6, buffers)
    column = pa.ListArray.from_arrays(pa.array([0, 2, 4, 6], pa.int32()), child)
    rows = [[None, "c"], [None, "bc"], ["ab", "c"]]
    assert column.to_pylist() == rows
    spec = near_spec(["a"], 300)
    check(spec, {"c": ["a"] * 3, "x": column}, [{"c": "a", "x": r} for r in rows])


@given(
    st.lists(st.lists(st.integers(0, 2), max_size=4), max_size=8),
    st.integers(1, 3),
    st.sampled_from(["oldest_first", "newest_first"]),
)
def test_rows_that_differ_only_where_they_are_cut_off(
    lists: Lists, max_len: int, order: str
) -> None:
    spec = near_spec([0], max_len, order)
    column = pa.array(lists, pa.list_(pa.int16()))
    batch = {"c": ["a"] * len(lists), "x": column}
    check(spec, batch, [{"c": "a", "x": r, "n": 0} for r in lists])


# ------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("form", [f for f in FORMS if "one size" not in f])
@pytest.mark.parametrize("threads", [1, 3])
def test_the_first_bad_row_is_named_among_repeats(form: str, threads: int) -> None:
    spread, nesting = FORMS[form]
    spec = spec_of("int64", {"type": "identity", "buckets": 9}, {"max_len": 300})
    base: Lists = [[1] * 200, [2, 3], [4, 9], [5] * 270, [6, 7, -1]]
    rows = [0, 0, 1, 1, 1, 2, 2, 2, 3, 4, 4]
    layout = Layout(LEAVES["int64"], nesting, None, None, 0, np.random.default_rng(1))
    for first, value in ((5, 9), (9, -1)):
        if first == 9:
            base[2] = [4, 8]
        batch = {"c": ["a"] * len(rows), "x": spread(layout.column(base, 0), rows)}
        with (
            mock.patch.object(encode, "PART", 16),
            pytest.raises(InputError) as caught,
        ):
            FeatureEncoder(spec).encode(batch, threads=threads)
        assert str(caught.value) == (
            f"expected an id in [0, 9), got {value} - at `x`, row {first}"
        )


@pytest.mark.parametrize("spread", [copied, viewed, coded])
def test_a_bad_row_before_repeats_is_named_first(
    spread: Callable[[pa.Array, list[int]], pa.Array],
) -> None:
    spec = spec_of("int64", {"type": "identity", "buckets": 9}, {"max_len": 300})
    lists = pa.array([[1], [10], [11, 11]], pa.list_(pa.int64()))
    batch = {"c": ["a"] * 5, "x": spread(lists, [0, 1, 2, 2, 2])}
    with pytest.raises(InputError) as caught:
        spec.encode(batch)
    assert str(caught.value) == "expected an id in [0, 9), got 10 - at `x`, row 1"


@settings(max_examples=20)
@given(st.integers(1, 600), st.integers(1, 5), st.sampled_from([1, 255, 256, 300]))
def test_one_row_may_repeat_for_ever(count: int, size: int, max_len: int) -> None:
    row = [3, None, 5, 4, 90][:size] * 60
    spec = spec_of(
        "int64",
        {"type": "vocab", "values": [3, 4], "unseen": "row"},
        {"max_len": max_len},
    )
    lists = pa.array([row], pa.list_(pa.int64()))
    column = pa.DictionaryArray.from_arrays(pa.array([0] * count), lists)
    one = spec.encode({"c": ["a"], "x": lists})["x"]
    got = spec.encode({"c": ["a"] * count, "x": column})["x"]
    np.testing.assert_array_equal(got, np.repeat(one, count, axis=0), strict=True)
