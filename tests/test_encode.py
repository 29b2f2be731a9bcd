# ruff: noqa: ANN401 - rows hold anything
"""Every container against the slow twin, and a table of every refusal, case by case."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from din_infer.encode import FeatureEncoder, hash_buckets, pad
from din_infer.errors import InputError
from din_infer.spec import FeatureSpec
from tests import reference
from tests.containers import CONTAINERS, as_chunked_arrow, as_dict

Rows = list[dict[str, Any]]

WORDS = [
    "",
    "a",
    "new",
    "sale",
    "vip",
    "goods_0123456789",
    "käse",
    "日本",
    "🙂" * 9,
    "x" * 40,
]

SPEC: dict[str, Any] = {
    "format": 1,
    "user": [
        {
            "name": "user_id",
            "dim": 2,
            "encoder": {"type": "hash", "buckets": 1000, "seed": 42},
        },
        {
            "name": "age",
            "dim": 2,
            "encoder": {"type": "bucketize", "boundaries": [18.0, 30.5, 60.0]},
        },
    ],
    "candidate": [
        {"name": "goods_id", "dim": 2, "encoder": {"type": "hash", "buckets": 5000}},
        {
            "name": "cate_id",
            "dtype": "int64",
            "dim": 2,
            "encoder": {"type": "identity", "buckets": 100, "unseen": "missing"},
        },
        {
            "name": "shop",
            "column": "goods_id",
            "dim": 2,
            "encoder": {"type": "vocab", "values": ["a", "new", "日本", ""]},
        },
        {
            "name": "number",
            "dtype": "int64",
            "dim": 2,
            "encoder": {
                "type": "hash",
                "buckets": 77,
                "reduce": "pmod",
                "int_as": "text",
            },
        },
    ],
    "behavior": [
        {
            "name": "history",
            "max_len": 3,
            "fields": {"hist_goods": "goods_id", "hist_cate": "cate_id"},
        },
        {
            "name": "clicks",
            "max_len": 4,
            "order": "newest_first",
            "padding": "attended",
            "fields": {"click_number": "number"},
        },
    ],
    "multi_hot": [
        {
            "name": "tags",
            "side": "user",
            "dim": 2,
            "pooling": "mean",
            "max_len": 2,
            "encoder": {
                "type": "vocab",
                "values": ["new", "sale"],
                "unseen": "missing",
            },
        }
    ],
    "dense": [
        {"name": "price", "side": "candidate", "missing": 0.5},
        {"name": "vector", "side": "user", "dim": 2, "missing": -1.0},
    ],
}

KINDS = {
    "user_id": "string",
    "age": "float",
    "goods_id": "string",
    "cate_id": "int64",
    "number": "int64",
    "hist_goods": "string[]",
    "hist_cate": "int64[]",
    "click_number": "int64[]",
    "tags": "string[]",
    "price": "float",
    "vector": "float[]",
}

words = st.one_of(st.none(), st.sampled_from(WORDS))
small = st.one_of(st.none(), st.integers(-3, 110))
big = st.one_of(st.none(), st.sampled_from([0, -1, 7, 2**53 - 1, 1 - 2**53]))
numbers = st.one_of(st.none(), st.sampled_from([0.0, 18.0, 30.5, 1e9, -2.25, 17.999]))


@st.composite
def tables(draw: st.DrawFn) -> Rows:
    rows = []
    for _ in range(draw(st.integers(0, 6))):
        n = draw(st.integers(0, 6))
        history = draw(st.booleans()) or n > 0
        rows.append(
            {
                "user_id": draw(words),
                "age": draw(numbers),
                "goods_id": draw(words),
                "cate_id": draw(small),
                "number": draw(big),
                "hist_goods": [draw(words) for _ in range(n)] if history else None,
                "hist_cate": [draw(small) for _ in range(n)] if history else None,
                "click_number": draw(st.one_of(st.none(), st.lists(big, max_size=6))),
                "tags": draw(st.one_of(st.none(), st.lists(words, max_size=4))),
                "price": draw(numbers),
                "vector": draw(
                    st.one_of(st.none(), st.tuples(numbers, numbers).map(list))
                ),
            }
        )
    return rows


def spec_of(**changes: Any) -> FeatureSpec:
    base = {
        "format": 1,
        "candidate": [
            {"name": "goods_id", "dim": 2, "encoder": {"type": "hash", "buckets": 9}}
        ],
    }
    return FeatureSpec.from_dict(base | changes)


def check(spec: FeatureSpec, batch: Any, rows: Rows) -> None:
    encoded = FeatureEncoder(spec.reads).encode(batch)
    got = encoded.inputs
    expected, counts = reference.encode(spec, rows)
    assert list(got) == [i.name for i in spec.inputs]
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array, strict=True, err_msg=name)
        assert got[name].flags.c_contiguous
        assert got[name].flags.owndata
    assert encoded.stats.to_dict() == counts


@pytest.mark.parametrize("container", CONTAINERS, ids=lambda c: c.__name__)
@settings(max_examples=25)
@given(rows=tables())
def test_every_container_gives_the_inputs_of_the_reference(
    container: Callable[..., Any], rows: Rows
) -> None:
    if container.__name__ == "as_ragged":
        for row in rows:
            row["vector"] = row["vector"] or [None, None]
    check(FeatureSpec.from_dict(SPEC), container(rows, KINDS), rows)


def test_rows_of_the_reference_are_spread_out() -> None:
    rows = [
        {name: None for name in KINDS}
        | {"goods_id": w, "hist_goods": WORDS, "hist_cate": [1] * 10}
        for w in WORDS
    ]
    out, _ = reference.encode(FeatureSpec.from_dict(SPEC), rows)
    assert len(set(out["goods_id"].tolist())) == len(WORDS)
    assert out["hist_goods"].shape == (len(WORDS), 3)


def ragged(values: list[Any], **keys: Any) -> FeatureSpec:
    dtype = "string" if isinstance(values[0], str) else "int64"
    field = {"pairs": "c", "shares": "c"} if False else "c"
    return FeatureSpec.from_dict(
        {
            "format": 1,
            "candidate": [
                {
                    "name": "c",
                    "dtype": dtype,
                    "dim": 2,
                    "encoder": {"type": "vocab", "values": values},
                }
            ],
            "behavior": [{"name": "h", "fields": {"x": field, "y": field}, **keys}],
        }
    )


@pytest.mark.parametrize("inside", ["kept", "dropped"])
@pytest.mark.parametrize("order", ["oldest_first", "newest_first"])
@given(
    lists=st.lists(
        st.lists(
            st.tuples(st.sampled_from(["p", "a", "b", None]), st.sampled_from("ab"))
        ),
        max_size=4,
    ),
    max_len=st.integers(1, 5),
)
def test_pad_values_are_not_behaviors(
    lists: list[list[tuple[Any, Any]]], max_len: int, inside: str, order: str
) -> None:
    spec = ragged(
        ["a", "b", "p"], max_len=max_len, pad_value="p", pad_inside=inside, order=order
    )
    rows = [{"c": "a", "x": [v[0] for v in l], "y": [v[1] for v in l]} for l in lists]  # noqa: E741
    kinds = {"c": "string", "x": "string[]", "y": "string[]"}
    check(spec, as_dict(rows, kinds), rows)
    check(spec, as_chunked_arrow(rows, kinds), rows)


@given(
    st.lists(st.lists(st.integers(0, 3), max_size=6), min_size=1, max_size=4),
    st.data(),
    st.integers(1, 4),
)
def test_padded_matrices_of_integers(
    lists: list[list[int]], data: st.DataObject, max_len: int
) -> None:
    width = max(len(v) for v in lists)
    left = data.draw(st.booleans())
    padded = [
        [0] * (width - len(v)) + v if left else v + [0] * (width - len(v))
        for v in lists
    ]
    matrix = np.array(padded, dtype=data.draw(st.sampled_from([np.int32, np.float32])))
    rows = [{"c": 1, "x": v, "y": v} for v in padded]
    spec = ragged([1, 2, 3], max_len=max_len, pad_value=0)
    matrix = np.asfortranarray(matrix)
    check(spec, {"c": [1] * len(rows), "x": matrix, "y": matrix}, rows)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.integers(1, 4))
def test_length_column_says_how_many_are_behaviors(n: list[int], max_len: int) -> None:
    spec = ragged([1, 2, 3, 4, 5], max_len=max_len, length_column="n")
    rows = [{"c": 1, "x": [1, 2, 3, 4, 5], "y": [5, 4, 3, 2, 1], "n": k} for k in n]
    kinds = {"c": "int64", "x": "int64[]", "y": "int64[]", "n": "int64"}
    check(spec, as_dict(rows, kinds), rows)
    check(spec, as_chunked_arrow(rows, kinds), rows)


@pytest.mark.parametrize("container", CONTAINERS, ids=lambda c: c.__name__)
@settings(max_examples=20)
@given(
    n=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    has_lengths=st.booleans(),
    left=st.booleans(),
    max_len=st.integers(1, 5),
)
def test_without_the_length_column_pad_values_rule(
    container: Callable[..., Any],
    n: list[int],
    has_lengths: bool,
    left: bool,
    max_len: int,
) -> None:
    spec = ragged([1, 2, 3], max_len=max_len, length_column="n", pad_value=0)
    assert spec.columns == ("c", "x", "y")
    assert spec.optional_columns == ("n",)
    kinds = {"c": "int64", "x": "int64[]", "y": "int64[]"}
    rows = []
    for k in n:
        ids = [1, 0, 3][:k] + [2] * (k - 3)
        ids = [0] * (5 - k) + ids if left else ids + [0] * (5 - k)
        rows.append({"c": 1, "x": ids, "y": ids, **({"n": k} if has_lengths else {})})
    check(spec, container(rows, kinds | ({"n": "int64"} if has_lengths else {})), rows)


def test_a_length_column_that_some_rows_lack_is_missing() -> None:
    spec = ragged([1, 2], max_len=2, length_column="n", pad_value=0)
    rows = [{"c": 1, "x": [1, 0], "y": [1, 0], "n": 2}, {"c": 1, "x": [], "y": []}]
    with pytest.raises(InputError) as caught:
        spec.encode(rows)
    expected = "expected a column `n`, got columns c, x, y - at `batch[1]`"
    assert str(caught.value) == expected
    rows[1] = {"c": 1, "x": [1], "y": [1], "n": None}
    with pytest.raises(InputError) as caught:
        spec.encode(rows)
    expected = (
        "expected a length in [0, 1], the length of `x`, got null - at `n`, row 1"
    )
    assert str(caught.value) == expected


def test_a_length_column_is_required_where_one_list_has_no_pad_value() -> None:
    raw = ragged([1, 2], max_len=2, length_column="n", pad_value=0).to_dict()
    tags = {"name": "t", "side": "user", "shares": "c", "pooling": "sum", "max_len": 2}
    spec = FeatureSpec.from_dict(raw | {"multi_hot": [tags | {"length_column": "n"}]})
    assert spec.columns == ("c", "x", "y", "t", "n")
    assert spec.optional_columns == ()
    with pytest.raises(InputError) as caught:
        spec.encode({"c": [1], "x": [[1]], "y": [[1]], "t": [[1]]})
    expected = "expected a column `n`, got columns c, x, y, t - at `batch`"
    assert str(caught.value) == expected
    as_field = {"name": "n", "dim": 1, "encoder": {"type": "identity", "buckets": 9}}
    spec = FeatureSpec.from_dict(raw | {"user": [as_field]})
    assert (spec.columns, spec.optional_columns) == (("n", "c", "x", "y"), ())


@pytest.mark.parametrize("has_lengths", [True, False])
def test_each_side_of_requests_may_lack_its_lengths(has_lengths: bool) -> None:
    raw = ragged([1, 2], max_len=3, length_column="n", pad_value=0).to_dict()
    tags = {"name": "t", "side": "candidate", "shares": "c", "pooling": "sum"}
    tags |= {"max_len": 3, "length_column": "m", "pad_value": 0}
    spec = FeatureSpec.from_dict(raw | {"multi_hot": [tags]})
    assert spec.encoder.user_columns == ("x", "y")
    assert spec.encoder.candidate_columns == ("c", "t")
    users: dict[str, Any] = {"x": [[1, 0, 0]], "y": [[2, 0, 0]]}
    items: dict[str, Any] = {"c": [1, 2], "t": [[1, 2, 0], [0, 0, 0]]}
    if has_lengths:
        users["n"], items["m"] = [2], [3, 1]
    got = spec.encoder.encode_requests(users, items).inputs
    assert got["h.lengths"].tolist() == ([2] if has_lengths else [1])
    assert got["t.lengths"].tolist() == ([3, 1] if has_lengths else [2, 0])


def test_requests_and_candidates_equal_the_rows_they_stand_for() -> None:
    spec = FeatureSpec.from_dict(SPEC)
    users = [
        {
            "user_id": u,
            "age": 20.0,
            "hist_goods": ["a", u],
            "hist_cate": [1, 2],
            "click_number": [5],
            "tags": ["new"],
            "vector": [1.0, 2.0],
        }
        for u in ("u1", "u2")
    ]
    items = [
        {"goods_id": g, "cate_id": 4, "number": 8, "price": 2.0}
        for g in ("a", "b", "c")
    ]
    got = spec.encoder.encode_requests(users, items, [1, 0, 1]).inputs
    rows = [users[r] | item for r, item in zip([1, 0, 1], items, strict=True)]
    expected, _ = reference.encode(spec, rows)
    assert got["request_of_candidate"].tolist() == [1, 0, 1]
    for entry in spec.inputs[:-1]:
        array = got[entry.name]
        if entry.shape[0] == "B":
            array = array[[1, 0, 1]]
        np.testing.assert_array_equal(array, expected[entry.name], strict=True)
    one = spec.encoder.encode_requests(users[:1], items).inputs
    assert one["request_of_candidate"].tolist() == [0, 0, 0]
    none = spec.encoder.encode_requests(users, [], []).inputs
    assert none["goods_id"].shape == (0,)
    assert none["user_id"].shape == (2,)


def test_a_model_without_a_user_side_needs_no_columns_of_requests() -> None:
    got = spec_of().encoder.encode_requests({}, {"goods_id": ["a", "b"]}).inputs
    assert got["request_of_candidate"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("owners", "message"),
    [
        (
            None,
            "expected which of 2 requests each candidate belongs to, got None"
            " - at `request_of_candidate`",
        ),
        (
            [0],
            "expected 2 entries, one per candidate, got 1 - at `request_of_candidate`",
        ),
        (
            [0, 2],
            "expected a request in [0, 2), got 2 - at `request_of_candidate`, row 1",
        ),
        (
            [-1, 0],
            "expected a request in [0, 2), got -1 - at `request_of_candidate`, row 0",
        ),
        (
            [0, None],
            "expected a request in [0, 2), got null - at `request_of_candidate`, row 1",
        ),
        (
            ["0", "1"],
            "expected a column of integers, got string - at `request_of_candidate`",
        ),
    ],
)
def test_owners_must_be_requests(owners: Any, message: str) -> None:
    user = {"name": "u", "dim": 2, "encoder": {"type": "hash", "buckets": 9}}
    spec = spec_of(user=[user])
    with pytest.raises(InputError) as caught:
        spec.encoder.encode_requests(
            {"u": ["1", "2"]}, {"goods_id": ["a", "b"]}, owners
        )
    assert str(caught.value) == message


def test_no_rows_give_empty_inputs() -> None:
    spec = FeatureSpec.from_dict(SPEC)
    got = spec.encode({name: [] for name in spec.columns})
    assert got["goods_id"].shape == (0,)
    assert got["hist_goods"].shape == (0, 0)
    assert got["click_number"].shape == (0, 4)
    assert got["vector"].shape == (0, 2)
    assert got["request_of_candidate"].shape == (0,)


def test_columns_of_nothing_serve_any_dtype() -> None:
    spec = FeatureSpec.from_dict(SPEC)
    nothing: Any
    for nothing in (
        [None, None],
        np.array([math.nan, math.nan]),
        pa.nulls(2),
        pa.array([None, None], pa.list_(pa.timestamp("s")))[:0].cast(
            pa.list_(pa.int8())
        ),
        pa.array([None, None], pa.list_(pa.float32())),
    ):
        if len(nothing) == 2:
            got = spec.encode(dict.fromkeys(spec.columns, nothing))
            assert got["goods_id"].tolist() == [0, 0]
            assert got["history.lengths"].tolist() == [0, 0]
            assert got["price"].tolist() == [[0.5], [0.5]]
    history = {
        "hist_goods": pa.array([[], []], pa.list_(pa.int8())),
        "hist_cate": [[], []],
    }
    got = spec.encode({n: [None, None] for n in spec.columns} | history)
    assert got["hist_goods"].shape == (2, 0)


def test_null_elements_keep_their_position() -> None:
    spec = ragged(["a"], max_len=5)
    nulls = {"x": [[None, "a", None]], "y": [[None, None, None]]}
    got = spec.encode({"c": ["a"]} | nulls)
    assert got["x"].tolist() == [[0, 1, 0]]
    assert got["h.lengths"].tolist() == [3]
    floats = pa.array([[None, math.nan, None]], pa.list_(pa.float64()))
    assert spec.encode({"c": ["a"]} | nulls | {"y": floats})["y"].tolist() == [
        [0, 0, 0]
    ]


def test_unused_dictionary_entries_neither_raise_nor_count() -> None:
    field = {
        "name": "v",
        "dim": 2,
        "encoder": {"type": "vocab", "values": ["a"], "unseen": "error"},
    }
    spec = spec_of(user=[field])
    coded = pa.DictionaryArray.from_arrays(pa.array([1, None, 1, 1]), ["zzz", "a"])
    goods = ["g"] * 4
    encoded = spec.encoder.encode({"v": coded, "goods_id": goods})
    assert encoded.inputs["v"].tolist() == [1, 0, 1, 1]
    assert encoded.stats.to_dict()["v"]["unseen"] == 0
    coded = pa.DictionaryArray.from_arrays(pa.array([1, 1, 0, 1]), ["zzz", "a"])
    with pytest.raises(InputError) as caught:
        spec.encode({"v": coded, "goods_id": goods})
    assert str(caught.value) == (
        "expected a value of the vocabulary, got 'zzz' - at `v`, row 2"
    )


IDENTITY = {
    "name": "cate_id",
    "dim": 2,
    "encoder": {"type": "identity", "buckets": 1000},
}
HISTORY = {"name": "h", "max_len": 2, "fields": {"x": "goods_id", "y": "goods_id"}}
DENSE = {"name": "price", "side": "candidate"}

ERRORS: list[tuple[dict[str, Any], Any, str]] = [
    (
        {},
        {"other": ["a"]},
        "expected a column `goods_id`, got columns other - at `batch`",
    ),
    ({}, {}, "expected a column `goods_id`, got no columns - at `batch`"),
    (
        {},
        [{"goods_id": "a"}, {"b": 1}],
        "expected a column `goods_id`, got columns b - at `batch[1]`",
    ),
    ({}, [5], "expected a dict of one row, got int - at `batch`, row 0"),
    (
        {},
        7,
        "expected a dict of columns, a list of dicts or an Arrow frame, got int"
        " - at `batch`",
    ),
    (
        {},
        {"goods_id": np.arange(2)},
        "expected a column of strings, got int64 - at `goods_id`."
        ' Say dtype = "int64" in the spec, or cast the column to strings: the ids'
        " differ.",
    ),
    (
        {},
        {"goods_id": np.array([True])},
        "expected a column of strings, got bool - at `goods_id`."
        ' Say dtype = "int64" in the spec, or cast the column to strings: the ids'
        " differ.",
    ),
    (
        {},
        {"goods_id": np.array(["2020-01-01"], dtype="M8[D]")},
        "expected a column of strings, got datetime64[D] - at `goods_id`."
        " Cast it to int64 or to text, as it was in training.",
    ),
    (
        {},
        {"goods_id": pa.array([1], pa.timestamp("s"))},
        "expected a column of strings, got timestamp - at `goods_id`."
        " Cast it to int64 or to text, as it was in training.",
    ),
    (
        {},
        {"goods_id": [["a", "b"]]},
        "expected a column of strings, got lists of string - at `goods_id`."
        " Use score_requests for lists of candidates.",
    ),
    (
        {},
        {"goods_id": ["a", 5]},
        "expected a column of one type, got int64 after string - at `goods_id`, row 1",
    ),
    (
        {},
        {"goods_id": ["a", ["b"]]},
        "expected a single value, got a list - at `goods_id`, row 1",
    ),
    (
        {},
        {"goods_id": ["a", object]},
        "expected a string or a number, got type <class 'object'>"
        " - at `goods_id`, row 1",
    ),
    (
        {},
        {"goods_id": ["\ud800"]},
        "expected text that has a UTF-8 form, got '\\ud800' - at `goods_id`, row 0",
    ),
    (
        {},
        {"goods_id": "abc"},
        "expected a list, a NumPy array, (values, offsets) or Arrow data, got str"
        " - at `goods_id`. One row is a list of one dict.",
    ),
    (
        {"candidate": [IDENTITY]},
        {"cate_id": [5] * 17 + [1000]},
        "expected an id in [0, 1000), got 1000 - at `cate_id`, row 17",
    ),
    (
        {"candidate": [IDENTITY]},
        {"cate_id": [-1]},
        "expected an id in [0, 1000), got -1 - at `cate_id`, row 0",
    ),
    (
        {"candidate": [IDENTITY]},
        {"cate_id": [1.0, 1.5]},
        "expected a whole number, got 1.5 - at `cate_id`, row 1",
    ),
    (
        {"candidate": [IDENTITY]},
        {"cate_id": [1.0, math.inf]},
        "expected a whole number, got inf - at `cate_id`, row 1",
    ),
    (
        {"candidate": [IDENTITY]},
        {"cate_id": [1.0, 2.0**54]},
        "expected a whole number that float64 holds exactly, got 1.8014398509481984e+16"
        " - at `cate_id`, row 1",
    ),
    (
        {"candidate": [IDENTITY]},
        {"cate_id": [1, 2**63]},
        "expected an id in [0, 1000), got 9223372036854775808 - at `cate_id`, row 1",
    ),
    (
        {"candidate": [IDENTITY]},
        {"cate_id": np.array([1, 2**63], dtype=np.uint64)},
        "expected an id in [0, 1000), got 9223372036854775808 - at `cate_id`, row 1",
    ),
    (
        {"candidate": [IDENTITY]},
        {"cate_id": ["1"]},
        "expected a column of integers, got string - at `cate_id`."
        ' Cast the column to integers, or say dtype = "string" in the spec, with a hash'
        " or a vocabulary: the ids differ.",
    ),
    (
        {"behavior": [HISTORY]},
        {"goods_id": ["a", "a"], "x": [["a"], ["b", "c"]], "y": [["a"], ["b"]]},
        "expected 2 elements, as `x` has, got 1 - at `y`, row 1",
    ),
    (
        {"behavior": [HISTORY]},
        {"goods_id": ["a"], "x": ["a"], "y": [["a"]]},
        "expected a column of lists of strings, got string - at `x`."
        ' Say in the spec how its text is split: separator = "|" in [[behavior]] h.',
    ),
    (
        {"behavior": [HISTORY]},
        {"goods_id": ["a"], "x": [[1]], "y": [["a"]]},
        "expected a column of lists of strings, got lists of int64 - at `x`."
        ' Say dtype = "int64" in the spec, or cast the column to strings: the ids'
        " differ.",
    ),
    (
        {"behavior": [HISTORY]},
        {"goods_id": ["a", "b"], "x": [["a"], "b"], "y": [["a"]]},
        "expected a list, got str 'b' - at `x`, row 1",
    ),
    (
        {"behavior": [HISTORY]},
        {"goods_id": ["a", "b"], "x": [["a"]], "y": [["a"]]},
        "expected 2 rows, as `goods_id` has, got 1 - at `x`",
    ),
    (
        {"behavior": [HISTORY | {"length_column": "n"}]},
        {"goods_id": ["a"], "x": [["a"]], "y": [["a"]], "n": [2]},
        "expected a length in [0, 1], the length of `x`, got 2 - at `n`, row 0",
    ),
    (
        {"behavior": [HISTORY | {"length_column": "n"}]},
        {"goods_id": ["a", "b"], "x": [["a"], []], "y": [["a"], []], "n": [1, None]},
        "expected a length in [0, 0], the length of `x`, got null - at `n`, row 1",
    ),
    (
        {"dense": [DENSE]},
        {"goods_id": ["a", "b"], "price": [1.0, None]},
        "expected a finite number, got null - at `price`, row 1. Say in the spec what"
        " it stands for: missing = ..",
    ),
    (
        {"dense": [DENSE]},
        {"goods_id": ["a", "b"], "price": np.array([1.0, math.nan])},
        "expected a finite number, got NaN - at `price`, row 1. Say in the spec what"
        " it stands for: missing = ..",
    ),
    (
        {"dense": [DENSE]},
        {"goods_id": ["a", "b"], "price": [1.0, 1e300]},
        "expected a finite number, got 1e+300 - at `price`, row 1",
    ),
    (
        {"dense": [DENSE | {"dim": 2}]},
        {"goods_id": ["a", "b"], "price": [[1.0, 2.0], [1.0]]},
        "expected 2 values, got 1 - at `price`, row 1",
    ),
    (
        {"dense": [DENSE | {"dim": 2}]},
        {"goods_id": ["a"], "price": [1.0]},
        "expected a column of lists of numbers, got float64 - at `price`",
    ),
    (
        {"dense": [DENSE]},
        {"goods_id": ["a"], "price": ["1"]},
        "expected a column of numbers, got string - at `price`",
    ),
    (
        {"behavior": [HISTORY]},
        {"goods_id": ["a"], "x": (["a"], [0, 2]), "y": [["a"]]},
        "expected a last offset of 1, the number of values, got 2 - at `x`, offset 1",
    ),
    (
        {"behavior": [HISTORY]},
        {"goods_id": ["a"], "x": (["a", "b"], [0, 2, 1, 2]), "y": [["a"]]},
        "expected an offset of at least 2, got 1 - at `x`, offset 2",
    ),
    (
        {"behavior": [HISTORY]},
        {"goods_id": ["a"], "x": (["a"], [1, 1]), "y": [["a"]]},
        "expected a first offset of 0, got 1 - at `x`, offset 0",
    ),
    (
        {"behavior": [HISTORY]},
        {"goods_id": ["a"], "x": (["a"], []), "y": [["a"]]},
        "expected at least one offset, got none - at `x`",
    ),
    (
        {"behavior": [HISTORY]},
        {"goods_id": ["a"], "x": (["a"],), "y": [["a"]]},
        "expected a tuple (values, offsets), got a tuple of 1 - at `x`",
    ),
]


@pytest.mark.parametrize(("changes", "batch", "message"), ERRORS)
def test_errors_name_column_row_and_values(
    changes: dict[str, Any], batch: Any, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        spec_of(**changes).encode(batch)
    assert str(caught.value) == message


def test_stats_are_added_only_when_nothing_raised_and_merge() -> None:
    spec = spec_of(
        candidate=[
            IDENTITY
            | {"encoder": {"type": "identity", "buckets": 9, "unseen": "missing"}}
        ]
    )
    a = spec.encoder.encode({"cate_id": [1, None, 20]}).stats
    b = spec.encoder.encode({"cate_id": [30]}).stats
    with pytest.raises(InputError):
        spec.encoder.encode({"cate_id": [30, 0.5]})
    expected = {"rows": 4, "nulls": 1, "unseen": 2, "truncated": 0, "empty": 0}
    assert (a + b).to_dict() == {"cate_id": expected}
    a.merge(b)
    assert a.to_dict() == {"cate_id": expected}
    assert all(type(v) is int for v in a.to_dict()["cate_id"].values())


def test_threads_share_an_encoder() -> None:
    spec = FeatureSpec.from_dict(SPEC)
    rows = [
        {n: None for n in KINDS}
        | {"goods_id": w, "hist_goods": WORDS, "hist_cate": [1] * 10}
        for w in WORDS * 20
    ]
    expected = spec.encode(rows)
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(spec.encode, [rows] * 16):
            for name, array in expected.items():
                np.testing.assert_array_equal(got[name], array)


@given(
    st.lists(st.lists(st.integers(-9, 9), max_size=6), max_size=5), st.integers(0, 8)
)
def test_pad_equals_the_reference(lists: list[list[int]], max_len: int) -> None:
    values = np.array([i for row in lists for i in row], dtype=np.int64)
    offsets = np.cumsum([0] + [len(row) for row in lists], dtype=np.int64)
    values.flags.writeable = False
    offsets.flags.writeable = False
    got = pad(values, offsets, max_len)
    expected = reference.pad(values.tolist(), offsets.tolist(), max_len)
    np.testing.assert_array_equal(got[0], expected[0], strict=True)
    np.testing.assert_array_equal(got[1], expected[1], strict=True)


@pytest.mark.parametrize(
    ("values", "offsets", "max_len", "message"),
    [
        ([1], [0, 2], 3, "expected a last offset of 1, the number of values, got 2"
         " - at `offsets`, offset 1"),
        ([1], [0, 1], -1, "expected at least 0, got -1 - at `max_len`"),
        ([1.5], [0, 1], 3, "expected ids as a 1-D array of integers, got 1 axes of"
         " float64 - at `values`"),
        ([1], [0.0, 1.0], 3, "expected offsets as a 1-D array of integers, got 1 axes"
         " of float64 - at `offsets`"),
    ],
)  # fmt: skip
def test_pad_refuses_what_offsets_do_not_describe(
    values: list[Any], offsets: list[Any], max_len: int, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        pad(values, offsets, max_len)
    assert str(caught.value) == message


def test_hash_buckets_agrees_with_encode() -> None:
    keys = ["a", "b", None, ""]
    assert (
        hash_buckets(keys, 9).tolist()
        == spec_of().encode({"goods_id": keys})["goods_id"].tolist()
    )
