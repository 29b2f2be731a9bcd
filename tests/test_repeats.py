# ruff: noqa: ANN401 - rows hold anything
"""Rows that repeat the row before, as in exploded tables, and rows that nearly do.

Ids, lengths and counts are those of the reference, whether or not a repetition is seen,
and whether or not rows that repeat become one request. Above 400 lines: the second is
held to all that the first is.
"""

from collections.abc import Callable
from typing import Any
from unittest import mock

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from din_infer import _kernels, encode
from din_infer.encode import Encoded, FeatureEncoder
from din_infer.errors import InputError
from din_infer.spec import FeatureSpec
from tests import reference, test_arrow_types, test_encode
from tests.containers import (
    CONTAINERS,
    as_arrow,
    as_chunked_arrow,
    as_dict,
    as_dict_of_arrow,
    as_duckdb,
)
from tests.test_arrow_types import (
    INDICES,
    LEAVES,
    Layout,
    Leaf,
    Lists,
    Rows,
    Values,
    draw_pool,
    encoders,
    pick,
    seeds,
    spec_of,
    windows,
)

pytestmark = pytest.mark.slow

# ---------------------------------------------------------------------- merged requests


def merge(spec: FeatureSpec, batch: Any, threads: int = 1) -> Encoded:
    """Encode with one request per run, however short runs and tables are."""
    small = {"PART": 16, "ROWS_TO_MARK": 3, "FEWEST_ROWS_TO_MERGE": 0}
    with mock.patch.multiple(encode, **small, FEWEST_ROWS_PER_RUN=1):
        return FeatureEncoder(spec.reads).encode(batch, threads, merge_repeats=True)


def refusal(encode_it: Callable[[], Any]) -> str:
    try:
        encode_it()
    except InputError as error:
        return str(error)
    return ""


def user_columns(spec: FeatureSpec) -> list[str]:
    encoder = FeatureEncoder(spec.reads)
    return [*encoder.user_columns, *encoder.optional_user_columns]


def check_merged(spec: FeatureSpec, batch: Any, rows: Rows, threads: int = 1) -> int:
    """Hold merged inputs to the reference, or the error to what it is unmerged.

    Returns how many requests there are.
    """
    message = refusal(lambda: FeatureEncoder(spec.reads).encode(batch))
    if message:
        assert refusal(lambda: merge(spec, batch, threads)) == message
        return 0
    encoded = merge(spec, batch, threads)
    got = encoded.inputs
    expected, counts = reference.encode(spec, rows)
    assert list(got) == [i.name for i in spec.inputs]
    for name, array in reference.spread(spec, got).items():
        np.testing.assert_array_equal(array, expected[name], strict=True, err_msg=name)
        assert got[name].flags.c_contiguous
        assert got[name].flags.owndata
    assert encoded.stats.to_dict() == counts
    owners = got["request_of_candidate"]
    return int(owners[-1]) + 1 if len(owners) else 0


def check(spec: FeatureSpec, batch: Any, rows: Rows, threads: int = 1) -> None:
    test_arrow_types.check(spec, batch, rows, threads)
    num_runs = len(reference.first_rows(rows, user_columns(spec)))
    assert check_merged(spec, batch, rows, threads) in (0, *range(num_runs, 9999))


@pytest.mark.parametrize("container", CONTAINERS, ids=lambda c: c.__name__)
@settings(max_examples=25)
@given(base=test_encode.tables(), data=st.data(), threads=st.sampled_from([1, 3]))
def test_every_container_gives_one_request_per_run(
    container: Callable[..., Any], base: Rows, data: st.DataObject, threads: int
) -> None:
    spec = FeatureSpec.from_dict(test_encode.SPEC)
    columns = user_columns(spec)
    rows = []
    for row in base:
        if container.__name__ == "as_ragged":
            lists = {n: row[n] or [] for n, k in test_encode.KINDS.items() if "[" in k}
            row |= lists | {"vector": row["vector"] or [None, None]}
        for _ in range(data.draw(st.integers(1, 4))):
            candidate = data.draw(st.sampled_from(base))
            rows.append(candidate | {name: row[name] for name in columns})
    num_requests = check_merged(spec, container(rows, test_encode.KINDS), rows, threads)
    starts = set(reference.first_rows(rows, columns))
    if container is as_chunked_arrow:  # in chunks of two rows
        starts |= set(range(0, len(rows), 2))
    # in two chunks, cut elsewhere in each column; DuckDB 1.1: seen twice, not explained
    is_split = container is as_dict_of_arrow or (
        container is as_duckdb and duckdb.__version__.startswith("1.1.")
    )
    if is_split:
        assert num_requests >= len(starts)
    else:
        assert num_requests == len(starts)


@pytest.mark.parametrize("leaf_name", LEAVES)
@given(data=st.data())
def test_scalars_of_users_are_one_per_run(leaf_name: str, data: st.DataObject) -> None:
    leaf = LEAVES[leaf_name]
    pool = draw_pool(data, leaf.legal)
    base = data.draw(st.lists(st.sampled_from([*pool, None]), min_size=1, max_size=6))
    rows = explode(data, len(base))
    values = [base[row] for row in rows]
    layout = layout_of(data, leaf, "scalar", 0)
    column = layout.column(values, data.draw(st.integers(0, 3)))
    encoder = data.draw(encoders(leaf, leaf.dtype, pool))
    plain = {"name": "c", "dim": 1, "encoder": {"type": "hash", "buckets": 9}}
    field = {"name": "x", "dtype": leaf.field_dtype, "dim": 1, "encoder": encoder}
    spec = FeatureSpec.from_dict({"format": 1, "candidate": [plain], "user": [field]})
    batch = {"c": ["a"] * len(rows), "x": column}
    expected = [{"c": "a", "x": value} for value in values]
    num_requests = check_merged(
        spec, batch, expected, data.draw(st.sampled_from([1, 3]))
    )
    if num_requests and not isinstance(column, pa.ChunkedArray) and not layout.index:
        assert num_requests == len(reference.first_rows(expected, ["x"]))


def exploded(num_users: int, rows_per_user: int) -> dict[str, Any]:
    users = np.repeat(np.arange(num_users), rows_per_user)
    histories = [[f"g{user}", f"g{user + 1}"] for user in range(num_users)]
    return {
        "c": ["a"] * len(users),
        "x": [histories[user] for user in users],
        "n": [1] * len(users),
    }


def history_spec(**keys: Any) -> FeatureSpec:
    return spec_of("string", {"type": "hash", "buckets": LONG}, {"max_len": 9, **keys})


@pytest.mark.parametrize(
    ("num_users", "rows_per_user", "num_requests"),
    [
        (1, 1024, 1),
        (1, 1023, 1023),  # a small table gains nothing
        (400, 3, 400),
        (600, 2, 1200),  # nor does one of short runs
        (2000, 1, 2000),
        (2, 9000, 2),
        (1, 0, 0),
    ],
)
@pytest.mark.parametrize("threads", [1, 3])
def test_rows_are_merged_where_it_pays(
    num_users: int, rows_per_user: int, num_requests: int, threads: int
) -> None:
    spec = history_spec(length_column="n")
    batch = exploded(num_users, rows_per_user)
    got = spec.encoder.encode(batch, threads, merge_repeats=True)
    assert len(got.inputs["x"]) == num_requests
    plain = spec.encoder.encode(batch, threads)
    assert len(plain.inputs["x"]) == num_users * rows_per_user
    for name, array in reference.spread(spec, got.inputs).items():
        np.testing.assert_array_equal(array, plain.inputs[name], strict=True)
    assert got.stats == plain.stats


def test_a_part_without_repeats_is_left_as_it_is() -> None:
    spec = history_spec()
    one, other = exploded(1, 30_000), exploded(8192, 1)
    batch = {name: one[name] + other[name] for name in one}
    got = spec.encoder.encode(batch, merge_repeats=True).inputs
    assert len(got["x"]) == 1 + 38_192 // 4  # the last of four parts
    for name, array in reference.spread(spec, got).items():
        np.testing.assert_array_equal(array, spec.encode(batch)[name], strict=True)


def test_without_a_side_of_the_user_there_is_nothing_to_merge() -> None:
    field = {"name": "c", "dim": 1, "encoder": {"type": "hash", "buckets": 9}}
    spec = FeatureSpec.from_dict({"format": 1, "candidate": [field]})
    assert merge(spec, {"c": ["a"] * 4}).inputs["request_of_candidate"].tolist() == [
        0,
        1,
        2,
        3,
    ]


def test_a_column_used_on_both_sides_is_whole_for_candidates() -> None:
    field = {"dim": 1, "encoder": {"type": "hash", "buckets": 99}}
    spec = FeatureSpec.from_dict(
        {
            "format": 1,
            "candidate": [{"name": "c", "column": "x", **field}],
            "user": [{"name": "u", "column": "x", **field}],
        }
    )
    got = merge(spec, {"x": ["a", "a", "b", "b", "b"]}).inputs
    assert got["u"].tolist() == got["c"][[0, 2]].tolist()
    assert got["request_of_candidate"].tolist() == [0, 0, 1, 1, 1]


def test_a_column_that_changes_alone_begins_a_request() -> None:
    spec = history_spec(length_column="n")
    batch = exploded(1, 6) | {"n": [0, 1, 1, 2, 2, 0]}
    rows = [{"c": "a", "x": batch["x"][0], "n": n} for n in batch["n"]]
    assert check_merged(spec, batch, rows) == 4
    without = history_spec(length_column="n", pad_value="g0")
    rows = [{"c": "a", "x": batch["x"][0]}] * 6
    assert (
        check_merged(without, as_dict(rows, {"c": "string", "x": "string[]"}), rows)
        == 1
    )


def test_columns_of_nothing_are_merged_too() -> None:
    spec = FeatureSpec.from_dict(test_encode.SPEC)
    kinds = test_encode.KINDS
    row = {"goods_id": "a", "cate_id": 1, "number": 2, "price": 0.5}
    rows = [{name: row.get(name) for name in kinds} for _ in range(5)]
    assert check_merged(spec, as_dict(rows, kinds), rows) == 1
    assert check_merged(spec, as_arrow(rows, kinds), rows) == 1
    dense = spec.to_dict() | {"dense": []}
    untyped = {name: pa.array([None] * 5) for name in kinds}
    untyped |= {"goods_id": pa.array(["a"] * 5), "hist_goods": pa.array([[None]] * 5)}
    untyped["hist_cate"] = pa.array([["x"]] * 5).cast(pa.list_(pa.binary()))
    got = merge(
        FeatureSpec.from_dict(dense), untyped | {"hist_cate": [[None]] * 5}
    ).inputs
    assert got["hist_goods"].tolist() == [[0]]


@given(st.data())
def test_dense_values_of_users_are_one_row_per_run(data: st.DataObject) -> None:
    numbers = st.sampled_from([None, float("nan"), 0.5, -1.0])
    users = data.draw(st.lists(st.tuples(numbers, numbers, numbers), min_size=1))
    rows = explode(data, len(users))
    spec = FeatureSpec.from_dict(
        {
            "format": 1,
            "candidate": [
                {"name": "c", "dim": 1, "encoder": {"type": "hash", "buckets": 9}}
            ],
            "dense": [
                {"name": "age", "side": "user", "missing": 2.0},
                {"name": "place", "side": "user", "dim": 2, "missing": 3.0},
            ],
        }
    )
    expected = [
        {"c": "a", "age": users[row][0], "place": list(users[row][1:])} for row in rows
    ]
    kinds = {"c": "string", "age": "float", "place": "float[]"}
    container = data.draw(st.sampled_from([as_dict, as_arrow, as_chunked_arrow]))
    check_merged(spec, container(expected, kinds), expected)


def test_null_rows_and_empty_rows_are_told_apart() -> None:
    spec = FeatureSpec.from_dict(test_encode.SPEC)
    kinds = test_encode.KINDS
    rows = [dict.fromkeys(kinds) | {"vector": None} for _ in range(4)]
    rows[2] |= {"vector": []}
    with pytest.raises(InputError) as caught:
        merge(spec, as_dict(rows, kinds))
    assert str(caught.value) == "expected 2 values, got 0 - at `vector`, row 2"


def test_the_first_bad_row_is_named_after_runs() -> None:
    spec = spec_of("int64", {"type": "identity", "buckets": 9}, {"max_len": 9})
    batch = {"c": ["a"] * 6, "x": [[1]] * 3 + [[2, 10]] * 3}
    with pytest.raises(InputError) as caught:
        merge(spec, batch)
    assert str(caught.value) == "expected an id in [0, 9), got 10 - at `x`, row 3"
    with pytest.raises(InputError) as caught:
        merge(spec, batch | {"x": pa.array([1] * 6, pa.timestamp("s"))})
    rule = "expected a column of lists of integers, got timestamp - at `x`"
    assert str(caught.value) == rule
    for threads in (0, 1.5, "2"):
        with pytest.raises(InputError) as caught:
            merge(spec, batch, threads=threads)  # type: ignore[arg-type]
        assert str(caught.value) == (
            f"expected a whole number of at least 1, got {threads!r} - at `threads`"
        )


def test_marks_stay_inside_the_rows_that_are_asked_for() -> None:
    column = _kernels.from_list(["a"] * 6, "x")
    same = np.ones(6, np.uint8)
    same[2] = 0
    assert _kernels.mark_repeats(column, same, 1, 4) == 2
    assert same.tolist() == [1, 1, 0, 1, 1, 1]
    assert _kernels.mark_repeats(column, same, 0, 6) == 4
    assert same.tolist() == [0, 1, 0, 1, 1, 1]
    assert _kernels.mark_repeats(column, same, 3, 3) == 0


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
    spec = spec_of(leaf.dtype, data.draw(encoders(leaf, leaf.dtype, pool)), keys)
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
        encoder = data.draw(encoders(leaf, leaf.dtype, pool))
        fields[f"x{i}"] = {"dtype": leaf.field_dtype, "dim": 1, "encoder": encoder}
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


@pytest.mark.slow
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


def test_equal_views_lie_anywhere_and_those_of_nulls_point_nowhere() -> None:
    text = b"goods_0123456789"
    views = np.array(
        [
            [len(text), int.from_bytes(text[:4], "little"), 0, 0],
            [2**31 - 1, 1, 10**6, 5],
            [len(text), int.from_bytes(text[:4], "little"), 0, len(text)],
            [2**31 - 1, 2, 10**9, 7],
        ],
        dtype=np.int32,
    )
    buffers = [
        pa.py_buffer(np.array([0b0101], dtype=np.uint8)),
        pa.py_buffer(views),
        pa.py_buffer(2 * text),
    ]
    child = pa.Array.from_buffers(pa.string_view(), 4, buffers)
    column = pa.ListArray.from_arrays(pa.array([0, 2, 4], pa.int32()), child)
    rows = [{"c": "a", "x": [text.decode(), None]}] * 2
    batch = {"c": ["a"] * 2, "x": column}
    assert check_merged(near_spec(["a"], 9), batch, rows) == 1


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
            FeatureEncoder(spec.reads).encode(batch, threads=threads)
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
