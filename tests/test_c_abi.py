"""Encoding in C, without Python: equal to `FeatureSpec.encode` bit for bit, or an error
that names the column.
"""

import ctypes
import itertools
import json
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from din_infer import FeatureSpec, InputError, ModelError
from din_infer.c_api import header_path, library_path
from tests import hostile
from tests.c_abi import Refused, Spec, exported, load, one_batch
from tests.models import SPECS, random_rows
from tests.ops import library
from tests.raw import HARD, hard_table

ROOT = Path(__file__).resolve().parents[1]
Made = dict[str, NDArray[Any]]


def check_equal(got: Made, wanted: Made) -> None:
    assert list(got) == list(wanted)
    for name, array in wanted.items():
        assert got[name].dtype == array.dtype, name
        np.testing.assert_array_equal(got[name], array, err_msg=name, strict=True)


def rows_of(spec: FeatureSpec, count: int, seed: int = 0) -> pa.Table:
    rows = random_rows(spec, count, seed)
    for row in rows:
        del row["extra"]
    return pa.Table.from_pylist(rows)


# --------------------------------------------------------------------------- equal ids


@pytest.mark.parametrize("name", SPECS)
def test_ids_of_every_spec_equal_those_of_python(name: str) -> None:
    spec = FeatureSpec.from_dict(SPECS[name])
    table = rows_of(spec, 200)
    with Spec(spec.to_json()) as opened:
        assert opened.inputs == [i.name for i in spec.inputs]
        check_equal(opened.encode(table), spec.encode(table))


@pytest.mark.parametrize("name", HARD)
def test_ids_of_hard_values_equal_those_of_python(name: str) -> None:
    spec, table = FeatureSpec.from_dict(HARD[name]), hard_table(20_000)
    wanted = spec.encode(table)
    spread = [len(np.unique(array)) for array in wanted.values()]
    assert min(spread) >= (1 if name == "numbers" else 3)  # one has no vocabulary
    with Spec(spec.to_json()) as opened:
        check_equal(opened.encode(table), wanted)
        check_equal(opened.encode(table[:0]), spec.encode(table[:0]))


@pytest.mark.parametrize("how", [{"separator": ";"}, {"format": "json"}])
def test_dense_values_in_text_equal_those_of_python(how: dict[str, str]) -> None:
    scale = {"type": "standard", "mean": [1, 2], "std": [3, 4]}
    place = {"name": "place", "side": "candidate", "dim": 2, "missing": 0.5}
    goods = {"name": "goods", "dim": 2, "encoder": {"type": "hash", "buckets": 9}}
    raw = {
        "format": 1,
        "candidate": [goods],
        "dense": [{**place, "scale": scale, **how}],
    }
    texts = ["1.5;-2", ";1e300", " 3 ;4.0"]
    if "format" in how:
        texts = ["[1.5, -2]", "[null, 1e300]", "[3, 4.0]"]
    table, spec = (
        pa.table({"goods": ["a"] * 3, "place": texts}),
        FeatureSpec.from_dict(raw),
    )
    with Spec(spec.to_json()) as opened:
        check_equal(opened.encode(table), spec.encode(table))


def test_lengths_that_a_batch_lacks_are_told_by_the_pad_value() -> None:
    spec = FeatureSpec.from_dict(HARD["lists"])
    table = hard_table(300).drop_columns("length")
    with Spec(spec.to_json()) as opened:
        assert ("length", 0, 1) in opened.columns
        check_equal(opened.encode(table), spec.encode(table))


def test_requests_and_their_candidates_equal_those_of_python() -> None:
    spec = FeatureSpec.from_dict(SPECS["three sequences"])
    users, items = one_batch(rows_of(spec, 7)), one_batch(rows_of(spec, 40, seed=1))
    owners = np.random.default_rng(0).integers(0, 7, 40)
    with Spec(spec.to_json()) as opened:
        made = opened.encode_requests(users, items, owners)
        check_equal(made, spec.encoder.encode_requests(users, items, owners).inputs)
        single = users.slice(3, 1)
        made = opened.encode_requests(single, items, None)
        check_equal(made, spec.encoder.encode_requests(single, items).inputs)
        with pytest.raises(Refused, match="which of 7 requests each candidate"):
            opened.encode_requests(users, items, None)
        owners[11] = -1
        rule = r"a request in \[0, 7\), got -1 - at `request_of_candidate`, row 11$"
        with pytest.raises(Refused, match=rule):
            opened.encode_requests(users, items, owners)


def _types() -> dict[str, pa.Table]:
    """The columns `text`, `whole`, `number`, `texts` in many of Arrow's types."""
    text = ["a", "", None, "é", "a", "x" * 40] * 5
    whole = [0, 5, None, 127, -3, 1] * 5
    number = [0.5, -2.0, None, 3.0, 4.0, 8.0] * 5
    lists = [["a", None], [], None, ["é", "b", "a" * 50], ["c"], ["a"]] * 5
    plain = {
        "text": pa.array(text),
        "whole": pa.array(whole),
        "number": pa.array(number),
    }
    plain["texts"] = pa.array(lists, pa.list_(pa.string()))

    def changed(**columns: pa.Array) -> pa.Table:
        return pa.table({**plain, **columns})

    dictionary = pa.DictionaryArray.from_arrays(
        pa.array([0, 1, None, 2, 0, 1] * 5, pa.int8()), pa.array(["a", None, "zz"])
    )
    long = pa.array(lists, pa.list_(pa.string()))
    of_dictionary = pa.ListArray.from_arrays(
        long.offsets, long.values.dictionary_encode(), mask=long.is_null()
    )
    cases = {
        "plain": pa.table(plain),
        "large": changed(
            text=pa.array(text, pa.large_string()),
            texts=pa.array(lists, pa.large_list(pa.large_string())),
        ),
        "binary": changed(text=pa.array(text, pa.string()).cast(pa.binary())),
        "views": changed(
            text=pa.array(text, pa.string_view()),
            texts=pa.array(lists, pa.list_view(pa.string_view())),
        ),
        "fixed lists": changed(
            texts=pa.array(
                [["a", "b"], None, ["c", None]] * 10, pa.list_(pa.string(), 2)
            )
        ),
        "dictionaries": changed(text=dictionary, texts=of_dictionary),
        "lists in a dictionary": changed(
            texts=pa.DictionaryArray.from_arrays(
                pa.array([0, 1, None] * 10), pa.array([["a"], ["b", "c"]])
            )
        ),
        "nothing": changed(text=pa.nulls(30), texts=pa.nulls(30), whole=pa.nulls(30)),
        "empty lists": changed(texts=pa.array([[], [None], None] * 10)),
        "decimals": changed(
            whole=pa.array([Decimal(v or 0) for v in whole], pa.decimal128(20, 0)),
            number=pa.array([Decimal(v or 0) for v in number], pa.decimal256(40, 3)),
        ),
        "bools": changed(whole=pa.array([True, None, False] * 10)),
    }
    for kind in ("int8", "int16", "int32", "float16", "float32", "float64"):
        array = np.array([v or 0 for v in whole]).astype(kind)
        cases[kind] = changed(whole=pa.array(array), number=pa.array(array))
    for kind in ("uint8", "uint16", "uint32", "uint64"):
        array = np.array([abs(v or 0) for v in whole]).astype(kind)
        cases[kind] = changed(whole=pa.array(array), number=pa.array(array))
    return cases


TYPED = {
    "format": 1,
    "candidate": [
        {"name": "text", "dim": 1, "encoder": {"type": "hash", "buckets": 90}},
        {"name": "word", "dim": 1, "column": "text",
         "encoder": {"type": "vocab", "values": ["a", "zz"]}},
        {"name": "whole", "dim": 1, "dtype": "int64",
         "encoder": {"type": "hash", "buckets": 90}},
    ],
    "behavior": [{"name": "history", "max_len": 3, "fields": {"texts": "text"}}],
    "dense": [{"name": "number", "side": "user", "missing": -1}],
}  # fmt: skip


@pytest.mark.parametrize("name", _types())
def test_columns_of_arrows_types_equal_those_of_python(name: str) -> None:
    spec, table = FeatureSpec.from_dict(TYPED), _types()[name]
    with Spec(spec.to_json()) as opened:
        check_equal(opened.encode(table), spec.encode(table))
        part = one_batch(table).slice(5, 11)  # offsets, and bitmaps within a byte
        check_equal(opened.encode(part), spec.encode(part))


def test_a_struct_may_have_an_offset_of_its_own() -> None:
    spec, table = FeatureSpec.from_dict(TYPED), _types()["plain"]
    rows = one_batch(table).to_struct_array().slice(7, 9)
    assert rows.offset == 7
    wanted = spec.encode(table.slice(7, 9))
    with Spec(spec.to_json()) as opened:
        check_equal(opened.encode(pa.RecordBatch.from_struct_array(rows)), wanted)


def test_uuids_are_read_as_the_encoder_says() -> None:
    raw = {
        "format": 1,
        "candidate": [
            {"name": "u", "dim": 1,
             "encoder": {"type": "hash", "buckets": 90, "uuid_as": "text"}}
        ],
    }  # fmt: skip
    spec, key = FeatureSpec.from_dict(raw), bytes(range(16))
    tables = [
        pa.table({"u": pa.array([key, None, key[::-1]], pa.binary(16))}),
        pa.table({"u": ["00010203-0405-0607-0809-0a0b0c0d0e0f", "plain"]}),
    ]
    with Spec(spec.to_json()) as opened:
        for table in tables:
            check_equal(opened.encode(table), spec.encode(table))
        with pytest.raises(Refused, match="expected UUIDs in lower case, got '0001"):
            opened.encode(pa.table({"u": ["00010203-0405-0607-0809-0A0B0C0D0E0F"]}))


def test_threads_share_a_spec() -> None:
    spec, table = FeatureSpec.from_dict(HARD["lists"]), hard_table(500)
    wanted = spec.encode(table)
    with Spec(spec.to_json()) as opened, ThreadPoolExecutor(4) as pool:
        for made in pool.map(lambda _: opened.encode(table), range(24)):
            check_equal(made, wanted)


# ------------------------------------------------------------------------------ errors

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unseen id": ({"id": [3, 9]}, "expected an id in [0, 9), got 9 - at `id`, row 1"),
    "negative id": (
        {"id": [-1, 2]}, "expected an id in [0, 9), got -1 - at `id`, row 0",
    ),
    "fraction": (
        {"id": [1.0, 2.5]}, "expected a whole number, got 2.5 - at `id`, row 1",
    ),
    "text": (
        {"id": ["1", "2"]}, "expected a column of integers, got string - at `id`",
    ),
    "lists": (
        {"id": [[1], []]},
        "expected a column of integers, got lists of int64 - at `id`",
    ),
    "unknown word": (
        {"word": ["a", "b'c"]},
        "expected a value of the vocabulary, got 'b'c' - at `word`, row 1",
    ),
    "no number": (
        {"price": [1.0, None]},
        "expected a finite number, got null - at `price`, row 1",
    ),
    "NaN": (
        {"price": [float("nan"), 1.0]},
        "expected a finite number, got NaN - at `price`, row 0",
    ),
    "values": (
        {"pair": [[1.0, 2.0], [3.0]]}, "expected 2 values, got 1 - at `pair`, row 1",
    ),
    "parallel lists": (
        {"b": [[1, 2], []]}, "expected 1 elements, as `a` has, got 0 - at `b`, row 1",
    ),
    "length": (
        {"length": [3, 0]},
        "expected a length in [0, 2], the length of `a`, got 3 - at `length`, row 0",
    ),
    "no length": (
        {"length": [None, 0]},
        "expected a length in [0, 2], the length of `a`, got null - at `length`, row 0",
    ),
    "element": (
        {"b": [[1, 50], [3]]}, "expected an id in [0, 9), got 50 - at `b`, row 0",
    ),
    "date": (
        {"id": pa.array([1, 2], pa.date32())},
        "expected a column of integers, got Arrow format 'tdD' - at `id`",
    ),
    "listed text": (
        {"listed": ["[1", "[]"]},
        "expected a list of integers as JSON, got '[1' - at `listed`, row 0",
    ),
    "separated text": (
        {"joined": ["1,x", ""]},
        "expected a list of integers with ',' between them, got '1,x' - at `joined`,"
        " row 0",
    ),
}  # fmt: skip

FAULTY = {
    "format": 1,
    "user": [
        {"name": "word", "dim": 1,
         "encoder": {"type": "vocab", "values": ["a"], "unseen": "error"}},
    ],
    "candidate": [
        {"name": "id", "dim": 1, "encoder": {"type": "identity", "buckets": 9}}
    ],
    "behavior": [
        {"name": "h", "max_len": 9, "length_column": "length",
         "fields": {"a": {"shares": "word"}, "b": {"shares": "id"}}}
    ],
    "multi_hot": [
        {"name": "listed", "side": "user", "pooling": "sum", "max_len": 3, "dim": 1,
         "format": "json", "encoder": {"type": "identity", "buckets": 9}},
        {"name": "joined", "side": "user", "pooling": "sum", "max_len": 3, "dim": 1,
         "separator": ",", "encoder": {"type": "identity", "buckets": 9}},
    ],
    "dense": [
        {"name": "price", "side": "user"}, {"name": "pair", "side": "user", "dim": 2},
    ],
}  # fmt: skip
FINE: dict[str, Any] = {
    "word": ["a", "a"], "id": [1, 2], "a": [["a", "a"], ["a"]], "b": [[1, 2], [3]],
    "length": [2, 0], "price": [1.0, 2.0], "pair": [[1.0, 2.0], [3.0, 4.0]],
    "listed": ["[1]", "[]"], "joined": ["1", ""],
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_an_error_names_column_row_and_value(name: str) -> None:
    spec = FeatureSpec.from_dict(FAULTY)
    columns, message = WRONG[name]
    table = pa.table({**FINE, **columns})
    with Spec(spec.to_json()) as opened:
        check_equal(opened.encode(pa.table(FINE)), spec.encode(pa.table(FINE)))
        with pytest.raises(Refused, match=f"^{re.escape(message)}$"):
            opened.encode(table)
    with pytest.raises(InputError) as error:  # Python refuses the same value
        spec.encode(table)
    assert f"- at `{error.value.column}`" in message
    assert error.value.row is None or message.endswith(f", row {error.value.row}")


# By the fault: an encoder of `c`, a column in which row 1 has it, and what C says.
FAULTS: dict[str, tuple[dict[str, Any], pa.Array, str]] = {
    "beyond int64": (
        {"type": "identity", "buckets": 9},
        pa.array([1, 2**64 - 1], pa.uint64()),
        "an id in [0, 9), got 18446744073709551615",
    ),
    "a decimal beyond 64 bits": (
        {"type": "hash", "buckets": 9},
        pa.array([Decimal(2**64 - 1), Decimal(2**64)]),
        "an integer in [-2**63, 2**64), got a decimal",
    ),
    "a decimal beyond int64": (
        {"type": "bucketize", "boundaries": [0]},
        pa.array([Decimal(2**63 - 1), Decimal(2**63)]),
        "a 64-bit signed integer, got a decimal",
    ),
    "beyond int32": (
        {"type": "hash", "buckets": 9, "int_as": "bytes4"},
        pa.array([-(2**31), -(2**31) - 1]),
        "an integer in [-2**31, 2**31), got -2147483649",
    ),
    "not exact": (
        {"type": "hash", "buckets": 9},
        pa.array([2.0**53 - 1, 2.0**53]),
        "a whole number that float64 holds exactly, got 9007199254740992.0",
    ),
    "not exact in float32": (
        {"type": "hash", "buckets": 9},
        pa.array([2.0**24 - 1, 2.0**24], pa.float32()),
        "a whole number that float32 holds exactly, got 16777216.0",
    ),
    "infinite": (
        {"type": "hash", "buckets": 9},
        pa.array([1.0, float("-inf")]),
        "a whole number, got -inf",
    ),
    "too long": (
        {"type": "hash", "buckets": 9, "prefix": "p="},
        pa.array(["x" * 16382, "x" * 16383]),
        "a key of at most 16384 bytes with its prefix, got a longer one",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_first_value_beyond_a_limit_is_named(name: str) -> None:
    encoder, column, said = FAULTS[name]
    dtype = "string" if pa.types.is_string(column.type) else "int64"
    field = {"name": "c", "dim": 1, "dtype": dtype, "encoder": encoder}
    spec = FeatureSpec.from_dict({"format": 1, "candidate": [field]})
    table = pa.table({"c": column})
    with Spec(spec.to_json()) as opened:
        check_equal(opened.encode(table[:1]), spec.encode(table[:1]))
        with pytest.raises(Refused) as refused:
            opened.encode(table)
    assert str(refused.value) == f"expected {said} - at `c`, row 1"
    with pytest.raises(InputError) as error:
        spec.encode(table)
    assert error.value.row == 1
    assert said.startswith(f"{error.value.rule}, got ")


def test_a_history_of_length_0_holds_pad_values_alone() -> None:
    encoder = {"type": "identity", "buckets": 9}
    spec = FeatureSpec.from_dict(
        {
            "format": 1,
            "candidate": [{"name": "id", "dim": 1, "encoder": encoder}],
            "behavior": [
                {
                    "name": "h",
                    "max_len": 3,
                    "pad_value": 0,
                    "length_column": "n",
                    "attention": {"softmax": True},
                    "empty_softmax": "padding_row",
                    "fields": {"a": "id"},
                }
            ],
        }
    )
    table = pa.table({"id": [1, 2], "a": [[3, 4], [0, 0]], "n": [2, 0]})
    wrong = table.set_column(1, "a", pa.array([[3, 4], [0, 5]]))
    said = "expected only 0 in a history of length 0, got another element"
    with Spec(spec.to_json()) as opened:
        check_equal(opened.encode(table), spec.encode(table))
        with pytest.raises(Refused, match=f"^{said} - at `a`, row 1$"):
            opened.encode(wrong)
    with pytest.raises(InputError, match=f"^{said} - at `a`, row 1"):
        spec.encode(wrong)


def test_a_long_text_is_cut_in_an_error() -> None:
    for size, shown in ((60, "x" * 60), (61, "x" * 60 + "...")):
        table = pa.table({**FINE, "word": ["x" * size, "a"]})
        said = f"expected a value of the vocabulary, got '{shown}' - at `word`, row 0"
        with Spec(json.dumps(FAULTY)) as opened, pytest.raises(Refused) as error:
            opened.encode(table)
        assert str(error.value) == said


@pytest.mark.parametrize("kind", [pa.string(), pa.binary(4)])
def test_lists_of_nulls_are_of_any_type(kind: pa.DataType) -> None:
    """And of no other with a single value."""
    encoder = {"type": "hash", "buckets": 99}
    field = {"name": "c", "dim": 1, "dtype": "int64", "encoder": encoder}
    history = {"name": "h", "max_len": 3, "fields": {"b": "c"}}
    spec = FeatureSpec.from_dict(
        {"format": 1, "candidate": [field], "behavior": [history]}
    )
    nulls = pa.array([[None, None], [None]], pa.list_(kind))
    value = "a" if kind == pa.string() else b"four"
    table = pa.table({"c": [1, 2], "b": nulls})
    with Spec(spec.to_json()) as opened:
        check_equal(opened.encode(table), spec.encode(table))
        for row in ([None, value], [value, value]):
            wrong = table.set_column(1, "b", pa.array([row, [None]], nulls.type))
            with pytest.raises(
                Refused, match=r"^expected a column of lists of integers"
            ):
                opened.encode(wrong)
            with pytest.raises(InputError, match=r"^expected"):
                spec.encode(wrong)


def test_json_may_escape_every_character() -> None:
    """In a spec, and in lists that are written as JSON."""
    words = [
        "\N{SLIGHTLY SMILING FACE}",
        "\N{CJK UNIFIED IDEOGRAPH-65E5}",
        "é",
        '"\\/\n',
    ]
    words += ["\U0010ffff", "\U00010000", "\ud7ff", "\ue000", "\t\b\f\r"]
    field = {
        "name": "w", "side": "user", "pooling": "sum", "max_len": 9, "dim": 1,
        "format": "json", "encoder": {"type": "vocab", "values": words},
    }  # fmt: skip
    least = {"name": "c", "dim": 1, "encoder": {"type": "identity", "buckets": 9}}
    whole = {"format": 1, "multi_hot": [field], "candidate": [least]}
    texts = [json.dumps(words), json.dumps(words, ensure_ascii=False)]
    table = pa.table({"w": [t.replace("/", "\\/") for t in texts], "c": [1, 2]})
    wanted = np.tile(np.arange(1, 10), (2, 1))
    for text in (json.dumps(whole), json.dumps(whole, ensure_ascii=False)):
        with Spec(text) as opened:
            np.testing.assert_array_equal(opened.encode(table)["w"], wanted)
        made = FeatureSpec.from_json(text).encode(table)
        np.testing.assert_array_equal(made["w"], wanted)


def test_null_rows_of_the_struct_are_refused() -> None:
    encoder = {"type": "hash", "buckets": 9}
    raw = {"format": 1, "candidate": [{"name": "x", "dim": 1, "encoder": encoder}]}
    mask = pa.array([False, True, False])
    struct = pa.StructArray.from_arrays([pa.array(["a"] * 3)], names=["x"], mask=mask)
    with Spec(FeatureSpec.from_dict(raw).to_json()) as opened:
        rule = "a table without null rows, got a null - at `batch`, row 1$"
        with exported(struct) as table, pytest.raises(Refused, match=rule):
            opened._call(opened.lib.din_encode_table, *table)
        with exported(struct.slice(2, 1)) as table:
            made = opened._call(opened.lib.din_encode_table, *table)
        assert made["x"].shape == (1,)


@pytest.mark.parametrize(("kind", "entries"), [(pa.int8(), 200), (pa.int16(), 40_000)])
def test_negative_indices_are_no_high_ones_of_a_long_dictionary(
    kind: pa.DataType, entries: int
) -> None:
    indices = pa.array([0] * (entries - 1) + [-1], kind)
    words = pa.array([f"w{i}" for i in range(entries)])
    coded = pa.DictionaryArray.from_arrays(indices, words, safe=False)
    encoder = {"type": "hash", "buckets": 9}
    raw = {"format": 1, "candidate": [{"name": "x", "dim": 1, "encoder": encoder}]}
    with Spec(FeatureSpec.from_dict(raw).to_json()) as opened:
        rule = "expected indices inside their dictionary, got others - at `x`"
        with pytest.raises(Refused, match=rule):
            opened.encode(pa.record_batch({"x": coded}))


def test_a_wrong_number_of_dense_values_shows_no_value() -> None:
    """The index behind the list is far outside the dictionary."""
    far = pa.array([0, 0, 0, 2**30], pa.int32())
    coded = pa.DictionaryArray.from_arrays(far, pa.array([0.5]), safe=False)
    lists = pa.ListArray.from_arrays(pa.array([0, 3], pa.int32()), coded.slice(0, 3))
    raw = {
        "format": 1,
        "candidate": [
            {"name": "y", "dim": 1, "encoder": {"type": "hash", "buckets": 9}}
        ],
        "dense": [{"name": "x", "side": "candidate", "dim": 2}],
    }
    batch = pa.record_batch({"x": lists, "y": ["a"]})
    text = FeatureSpec.from_dict(raw).to_json()
    with Spec(text) as opened, pytest.raises(Refused) as caught:
        opened.encode(batch)
    assert str(caught.value) == "expected 2 values, got 3 - at `x`, row 0"


def test_columns_that_are_missing_or_there_twice_are_named() -> None:
    with Spec(json.dumps(FAULTY)) as opened:
        table = pa.table({k: v for k, v in FINE.items() if k != "price"})
        with pytest.raises(Refused, match="a column `price`, got none of that name"):
            opened.encode(table)
        twice = pa.Table.from_arrays(
            [*(pa.array(v) for v in FINE.values()), pa.array([1, 2])], [*FINE, "id"]
        )
        with pytest.raises(
            Refused, match="expected each column once, got two - at `id`"
        ):
            opened.encode(twice)


@pytest.mark.parametrize("value", hostile.VALUES)
def test_values_that_look_like_an_error_stay_values(value: str) -> None:
    with Spec(json.dumps(FAULTY)) as opened, pytest.raises(Refused) as error:
        opened.encode(pa.table({**FINE, "word": ["a", value]}))
    assert str(error.value).endswith("- at `word`, row 1")


SPECS_REFUSED = {
    "no JSON": ("{", "expected JSON with a key at byte 1, got something else"),
    "no table": ("[]", "expected a table, got a list - at `spec`"),
    "a newer format": (
        '{"format": 2}', "expected format 1, got 2 - at `format`",
    ),
    "a newer key": (
        json.dumps({**FAULTY, "sort": 1}),
        "expected a key that this version knows, got something else - at `sort`",
    ),
    "a newer key of an encoder": (
        '{"format": 1, "user": [{"name": "u", "encoder": {"type": "hash",'
        ' "buckets": 9, "salt": 1}}]}',
        "expected a key that this version knows, got something else - at"
        " `user[0].encoder.salt`",
    ),
    "an unknown hash": (
        '{"format": 1, "user": [{"name": "u", "encoder": {"type": "hash",'
        ' "buckets": 9, "hash": "md5"}}]}',
        "expected one of xxh64, xxh3_64, murmur3_32, farmhash64, siphash24,"
        " murmur3_32_spark, murmur3_32_vw, got 'md5' - at `user[0].encoder.hash`",
    ),
    "not fitted": (
        '{"format": 1, "dense": [{"name": "d", "side": "user", "scale":'
        ' {"type": "log1p"}}]}',
        "expected fitted numbers, as din-train writes them into a model, got something"
        " else - at `dense[0].scale.mean`",
    ),
    "keys twice": (
        '{"format": 1, "user": [{"name": "u", "encoder": {"type": "vocab",'
        ' "values": ["a", "a"]}}]}',
        "expected each value once, got something else - at `user[0].encoder.values`",
    ),
    "half a character": ('{"format": "\\ud800"}', None),
    "deep": ('{"a":' * 100, None),
    "a key without a field": (
        '{"format": 1, "user": [{"name": "u", "shares": "w"}]}',
        "expected an earlier field with a table, got 'w' - at `user[0].shares`",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SPECS_REFUSED)
def test_what_is_no_spec_is_refused(name: str) -> None:
    text, message = SPECS_REFUSED[name]
    with pytest.raises(Refused) as error:
        Spec(text)
    assert message is None or str(error.value) == message
    assert str(error.value).startswith("expected ")


@pytest.mark.parametrize(
    "wrong",
    [
        *(b"a\xe9", b"\x80", b"\xc0\xaf", b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xff"),
        *(b"\xed\xa0\x80", b"\xf0\x8f\xbf\xbf", b"\xf4\x90\x80\x80", b"\xe6\x97"),
        b"\xf5\x80\x80\x80",
    ],
)
def test_a_spec_that_is_no_utf_8_is_refused(wrong: bytes) -> None:
    start = b'{"format": 1, "user": [{"name": "u", "encoder": {"values": ["'
    at = len(start) + wrong.startswith(b"a")
    with pytest.raises(Refused) as error:
        Spec(start + wrong + b'"]}}]}')
    assert str(error.value) == (
        f"expected JSON with a character of UTF-8 at byte {at}, got something else"
    )
    with pytest.raises(Refused, match="a character of UTF-8"):
        Spec(start + wrong)


def test_a_key_with_more_behind_a_zero_is_another() -> None:
    spec = json.loads(json.dumps(FAULTY))
    spec["candidate"][0]["encoder"]["unseen\0"] = "missing"
    with pytest.raises(Refused, match="expected a key that this version knows"):
        Spec(json.dumps(spec))
    with pytest.raises(ModelError):
        FeatureSpec.from_dict(spec)
    scaled = {"name": "d", "side": "user", "scale": "none\0"}
    with pytest.raises(Refused, match="expected a table, got 'none' - at `dense"):
        Spec(json.dumps({**FAULTY, "dense": [scaled]}))


def test_handles_of_null_are_errors() -> None:
    lib, error = load(), ctypes.create_string_buffer(200)
    assert lib.din_encode_open(None, 0, error, 200) is None
    assert error.value == b"expected JSON, got none"
    lib.din_encode_close(None)
    lib.din_encode_release(None)
    assert lib.din_encode_num_columns(None) == lib.din_encode_num_inputs(None) == 0
    assert lib.din_encode_input_name(None, 0) is None
    assert lib.din_encode_input_name(None, -1) is None
    assert lib.din_encode_get_column(None, 0).name is None
    assert lib.din_encode_input(None, 0).data is None
    table = one_batch(pa.table(FINE))
    with exported(table) as (schema, array), Spec(json.dumps(FAULTY)) as opened:
        sides = schema, array, schema, array
        for call in (
            lambda spec, *end: lib.din_encode_table(spec, schema, array, *end),
            lambda spec, *end: lib.din_encode_requests(spec, *sides, None, *end),
        ):
            assert call(None, error, 200) is None
            assert error.value == b"expected an opened spec, got NULL"
            assert call(None, None, 0) is None
        for given in itertools.product((schema, None), (array, None)):
            if None in given:
                made = lib.din_encode_table(opened.handle, *given, error, 200)
                assert made is None
                assert error.value.startswith(b"expected a struct of columns")
        for wrong in range(4):
            given = tuple(None if i == wrong else side for i, side in enumerate(sides))
            made = lib.din_encode_requests(opened.handle, *given, None, error, 200)
            assert made is None
            assert error.value.startswith(b"expected a struct of columns")


def test_no_text_however_wrong_ends_the_process() -> None:
    lib, error = load(), ctypes.create_string_buffer(50)
    rng = np.random.default_rng(0)
    whole = json.dumps({**HARD["lists"], "dense": HARD["numbers"]["dense"]}).encode()
    for stop in range(0, len(whole), 7):
        assert not lib.din_encode_open(whole[:stop], stop, error, 50)
    opened = 0
    for _ in range(2000):
        text = bytearray(whole)
        for place in rng.integers(0, len(text), rng.integers(1, 4)):
            text[place] = rng.integers(32, 127)
        spec = lib.din_encode_open(bytes(text), len(text), error, 50)
        opened += spec is not None
        lib.din_encode_close(spec)
    assert 20 < opened < 1900


# -------------------------------------------------------------------- header, examples


def functions() -> list[str]:
    return re.findall(r"(din_encode_\w+)\(", _code(header_path().read_text()))


def _code(text: str) -> str:
    return re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)


def test_the_library_has_what_the_header_declares_and_nothing_more() -> None:
    lib = load()
    version = re.search(r"define DIN_ENCODE_VERSION (\d+)", header_path().read_text())
    assert version is not None
    assert lib.din_encode_version() == int(version[1]) == 1
    assert len(functions()) == 11
    for name in functions():
        assert hasattr(lib, name)
    if shutil.which("nm"):
        command = ["nm", "-D", "--defined-only", str(library())]
        listing = subprocess.check_output(command, text=True)
        found = {line.split()[-1].partition("@")[0] for line in listing.splitlines()}
        assert found - {"_init", "_fini"} == {"RegisterCustomOps", *functions()}


def test_a_command_names_header_and_library() -> None:
    command = [sys.executable, "-m", "din_infer.c_api"]
    said = subprocess.check_output(command, text=True).splitlines()
    assert said == [str(header_path()), str(library_path())]


EXAMPLE = {
    "format": 1,
    "user": [
        {"name": "user_id", "dim": 1, "encoder": {"type": "hash", "buckets": 1000}}
    ],
    "candidate": [
        {"name": "goods_id", "dim": 1, "encoder": {"type": "hash", "buckets": 1000}}
    ],
    "behavior": [
        {"name": "history", "max_len": 50, "fields": {"hist_goods_id": "goods_id"}}
    ],
    "dense": [{"name": "price", "side": "candidate"}],
}
COMPILERS = {"encode.c": ("gcc", "-std=c11"), "encode.cpp": ("g++", "-std=c++17")}


def printed(made: Made) -> str:
    lines = []
    for name, array in made.items():
        form = "{:d}" if array.dtype == np.int64 else "{:.9g}"
        values = (form.format(value) for value in array.ravel().tolist())
        lines.append(" ".join([name, *values]))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", COMPILERS)
def test_an_example_prints_the_ids_of_python(name: str, tmp_path: Path) -> None:
    compiler, standard = COMPILERS[name]
    found = shutil.which(compiler)
    assert found is not None, compiler
    program, lib = tmp_path / "encode", library()
    subprocess.run(
        [
            *(found, standard, "-O1", "-Wall", "-Wextra", "-Wpedantic", "-Werror"),
            *("-Wno-missing-field-initializers", f"-I{header_path().parent}"),
            *("-o", str(program), str(ROOT / "examples" / "c" / name), str(lib)),
            f"-Wl,-rpath,{lib.parent}",
        ],
        check=True,
    )
    spec = FeatureSpec.from_dict(EXAMPLE)
    (tmp_path / "spec.json").write_text(spec.to_json(), encoding="utf-8")
    command = [str(program), str(tmp_path / "spec.json")]
    said = subprocess.check_output(command, text=True)
    if name == "encode.c":
        table = {
            "user_id": ["ann", None, "eve"],
            "goods_id": ["a", "b", "c"],
            "hist_goods_id": [["a", "b", "xy"], [], ["z"]],
            "price": [0.5, 10.0, 2.25],
        }
        wanted = spec.encode(table)
    else:
        user = [{"user_id": "ann", "hist_goods_id": ["a", "b", "xy"]}]
        items = {"goods_id": ["a", "b", "é"], "price": [0.5, 10.0, 2.25]}
        wanted = spec.encoder.encode_requests(user, items).inputs
    assert said == printed(wanted)
    bad = subprocess.run([program, "/dev/null"], capture_output=True, text=True)
    assert bad.returncode == 1
    assert bad.stderr.startswith("expected JSON with a value at byte 0")
