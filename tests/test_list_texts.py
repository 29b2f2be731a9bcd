"""Lists that are text: the same ids as of lists, in every container and command."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import given
from hypothesis import strategies as st

from din_converter import convert
from din_infer import InputError, ModelError, Predictor
from din_infer.describe import describe
from din_infer.jobs.explain import explain_file, find_rows
from din_infer.jobs.files import score_files
from din_infer.list_texts import read_list
from din_infer.spec import FeatureSpec, ListText
from tests.c_abi import Refused, Spec
from tests.jobs import scores_of, write_as
from tests.models import random_model
from tests.reference import list_of

HASH = {"type": "hash", "buckets": 50}
RAW: dict[str, Any] = {
    "format": 1,
    "candidate": [
        {"name": "goods", "dim": 4, "encoder": HASH},
        {"name": "cate", "dim": 4, "encoder": {"type": "identity", "buckets": 90}},
    ],
    "behavior": [
        {
            "name": "history",
            "max_len": 5,
            "separator": "|",
            "fields": {
                "hist_goods": "goods",
                "hist_cate": {"pairs": "cate", "separator": ", "},
            },
        }
    ],
    "multi_hot": [
        {
            "name": "tags",
            "side": "candidate",
            "pooling": "sum",
            "max_len": 3,
            "format": "json",
            "dim": 4,
            "encoder": HASH,
        }
    ],
}
SPEC = FeatureSpec.from_dict(RAW)
TEXTS: dict[str, list[Any]] = {
    "goods": ["a", "b", "c", "d"],
    "cate": [1, 2, 3, 4],
    "hist_goods": ["x|y||", "", None, "é"],
    "hist_cate": ["1, 2, +3.0, ", "", None, " 7"],
    "tags": ['["a", "b\\u00e9", null]', "[]", "", None],
}
LISTS: dict[str, list[Any]] = TEXTS | {
    "hist_goods": [["x", "y", "", ""], [], None, ["é"]],
    "hist_cate": [[1, 2, 3, None], [], None, [7]],
    "tags": [["a", "bé", None], [], [], None],
}
CONTAINERS: dict[str, Callable[[], object]] = {
    "dict": lambda: TEXTS,
    "arrays": lambda: {k: np.array(v, object) for k, v in TEXTS.items()},
    "rows": lambda: [
        dict(zip(TEXTS, row, strict=True)) for row in zip(*TEXTS.values(), strict=True)
    ],
    "arrow": lambda: pa.table(TEXTS),
    "chunks": lambda: pa.concat_tables([pa.table(TEXTS)[:1], pa.table(TEXTS)[1:]]),
    "categories": lambda: pa.table(
        {k: pa.array(v).dictionary_encode() for k, v in TEXTS.items() if k != "cate"}
        | {"cate": TEXTS["cate"]}
    ),
    "views": lambda: pa.table(
        {k: pa.array(v, pa.string_view()) for k, v in TEXTS.items() if k != "cate"}
        | {"cate": TEXTS["cate"]}
    ),
    "pandas": lambda: pd.DataFrame(TEXTS),
    "pandas categories": lambda: pd.DataFrame(TEXTS).astype({"hist_goods": "category"}),
    "polars": lambda: pl.DataFrame(TEXTS),
    "polars categories": lambda: pl.DataFrame(TEXTS).with_columns(
        pl.col("hist_goods").cast(pl.Categorical)
    ),
    "lists": lambda: LISTS,
    "lists of arrow": lambda: pa.table(LISTS),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_text_is_split_and_lists_are_taken_as_they_are(name: str) -> None:
    plain = FeatureSpec.from_dict(
        {
            **RAW,
            "behavior": [
                {
                    "name": "history",
                    "max_len": 5,
                    "fields": {"hist_goods": "goods", "hist_cate": "cate"},
                }
            ],
            "multi_hot": [
                {k: v for k, v in RAW["multi_hot"][0].items() if k != "format"}
            ],
        }
    )
    wanted = plain.encode(LISTS)
    found = SPEC.encode(CONTAINERS[name]())
    assert found.keys() == wanted.keys()
    for key, ids in wanted.items():
        assert np.array_equal(found[key], ids), key
    assert plain.encoder.encode(LISTS).stats == SPEC.encoder.encode(TEXTS).stats


def test_values_of_a_dense_field_may_be_text() -> None:
    dense = {"name": "place", "side": "candidate", "dim": 2, "missing": 0.5}
    raw = {**RAW, "behavior": [], "multi_hot": []}
    lists = [[1.5, -2.0], [None, 1e300], [3.0, 4.0]]
    wanted = FeatureSpec.from_dict({**raw, "dense": [dense]}).encode(
        {"goods": ["a"] * 3, "cate": [1] * 3, "place": lists}
    )["place"]
    for key, texts in (
        ({"separator": ";"}, ["1.5;-2", ";1e300", " 3 ;4.0"]),
        ({"format": "json"}, ["[1.5, -2]", "[null, 1e300]", "[3, 4.0]"]),
    ):
        spec = FeatureSpec.from_dict({**raw, "dense": [{**dense, **key}]})
        given = {"goods": ["a"] * 3, "cate": [1] * 3, "place": texts}
        assert spec.encode(given)["place"].tobytes() == wanted.tobytes()
        assert spec.encode({**given, "place": lists})["place"].tobytes() == (
            wanted.tobytes()
        )
        assert FeatureSpec.from_json(spec.to_json()) == spec
    with pytest.raises(InputError) as caught:
        spec.encode({**given, "place": ["[1]", "[1, 2]", "[1, 2]"]})
    assert str(caught.value) == "expected 2 values, got 1 - at `place`, row 0"
    plain = FeatureSpec.from_dict({**raw, "dense": [dense]})
    with pytest.raises(InputError) as caught:
        plain.encode({**given, "place": ["1,2", "", "3,4"]})
    assert str(caught.value) == (
        "expected a column of lists of numbers, got string - at `place`. Say in the"
        ' spec how its text is split: separator = "," in [[dense]] place.'
    )
    with pytest.raises(ModelError) as refused:
        FeatureSpec.from_dict({**raw, "dense": [{**dense, "dim": 1, "separator": ","}]})
    assert str(refused.value) == (
        "expected `separator` and `format` where a row has several values, got dim = 1"
        " - at `dense[0]`"
    )


def test_the_keys_stay_in_the_spec() -> None:
    again = FeatureSpec.from_json(SPEC.to_json())
    assert again == SPEC
    texts = {c.name: c.text for c in again.reads}
    assert texts == {
        "goods": None,
        "cate": None,
        "hist_goods": ListText("|"),
        "hist_cate": ListText(", "),
        "tags": ListText(None),
    }


@given(
    st.lists(
        st.one_of(
            st.none(),
            st.lists(
                st.sampled_from(["", "a", "bé", "-", "12", "\x00", "|a"]), max_size=9
            ).map("::".join),
        ),
        max_size=9,
    ),
    st.sampled_from(["::", ":", "é", "a", "|"]),
)
def test_strings_are_split_as_the_slow_twin_splits(
    texts: list[str | None], separator: str
) -> None:
    raw = {**RAW, "behavior": [], "multi_hot": []}
    lists = {"name": "m", "side": "candidate", "pooling": "sum", "max_len": 99}
    raw["multi_hot"] = [
        {**lists, "dim": 2, "encoder": HASH, "separator": separator},
    ]
    rest = {"goods": ["a"] * len(texts), "cate": [1] * len(texts)}
    split = [None if t is None else list_of(t, separator, "string") for t in texts]
    spec = FeatureSpec.from_dict(raw)
    for column in (
        texts,
        pa.array(texts, pa.string()),
        pa.array(texts).cast("large_string"),
    ):
        found = spec.encode({**rest, "m": column})
        wanted = spec.encode({**rest, "m": split})
        assert all(np.array_equal(found[k], wanted[k]) for k in wanted)
    shown = [read_list(t, ListText(separator), "string") for t in texts]
    assert shown == split


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("-7", -7),
        ("+7", 7),
        ("007", 7),
        (" 7\t", 7),
        ("7.0", 7),
        ("7e1", 70),
        ("true", 1),
        ("", None),
        (" ", None),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
        ("9223372036854775808", "error"),
        ("7.5", "error"),
        ("0x7", "error"),
        ("7_0", "error"),
        ("x", "error"),
        ("nan", "error"),
    ],
)
def test_numbers_in_text_are_read_as_csv_reads_them(text: str, value: object) -> None:
    raw = {**RAW, "multi_hot": []}
    encoder = {"type": "hash", "buckets": 10**6, "int_as": "text"}
    raw["candidate"] = [
        {"name": "cate", "dtype": "int64", "dim": 4, "encoder": encoder}
    ]
    raw["behavior"] = [
        {"name": "h", "max_len": 3, "separator": "|", "fields": {"hist": "cate"}}
    ]
    spec = FeatureSpec.from_dict(raw)
    batch = {"cate": [1, 1], "hist": ["1", f"2|{text}|3"]}
    if value == "error":
        with pytest.raises(InputError) as caught:
            spec.encode(batch)
        assert str(caught.value) == (
            "expected a list of integers with '|' between them,"
            f" got {batch['hist'][1]!r} - at `hist`, row 1"
        )
    else:
        wanted = spec.encode({"cate": [1, 1], "hist": [[1], [2, value, 3]]})
        assert np.array_equal(spec.encode(batch)["hist"], wanted["hist"])


# what each dtype reads a text as; "error" is a refusal
SAME: dict[str, tuple[object, object]] = {
    "7": (7, 7.0),
    "\u00a07": ("error", "error"),
    "\ufeff7": ("error", "error"),
    "\u0667": ("error", "error"),
    "\x1c7\v": (7, 7.0),
    ".0": (0, 0.0),
    "-0.0": (0, -0.0),
    "7." + "0" * 300: (7, 7.0),
    "7." + "0" * 5000: (7, "error"),
    "7." + "0" * 5000 + "1": ("error", "error"),
    "9" * 398: ("error", math.inf),
    "0." + "0" * 5000 + "1": ("error", "error"),
    "1" * 5000: ("error", "error"),
    "1e400": ("error", math.inf),
    "0e400": ("error", 0.0),
    "0e99999999999999999999": ("error", 0.0),
    "1e-99999999999999999999": ("error", 0.0),
    "-1e99999999999999999999": ("error", -math.inf),
    "1230e-1": (123, 123.0),
    "12345678901234567890e-1": (1234567890123456789, 1234567890123456789.0),
    "1_0": ("error", "error"),
    "inf": ("error", math.inf),
    "-Infinity": ("error", -math.inf),
}
SAME_JSON: dict[str, tuple[object, object]] = {
    "[NaN]": (None, None),
    "[Infinity]": ("error", math.inf),
    "[-Infinity]": ("error", -math.inf),
    "[Inf]": ("error", "error"),
    "\ufeff[1]": ("error", "error"),
    "[7.0]": (7, 7.0),
    f"[7.{'0' * 5000}]": (7, "error"),
    f"[{'9' * 398}]": ("error", math.inf),
    f"[{'9' * 5000}]": ("error", "error"),
    "[1e99999999999999999999]": ("error", math.inf),
    "[-1e-99999999999999999999]": ("error", -0.0),
    "[true]": (1, 1.0),
}


@pytest.mark.parametrize("form", ["separator", "format"])
@pytest.mark.parametrize("dtype", ["int64", "float"])
def test_numbers_in_text_are_the_same_in_python_and_in_c(form: str, dtype: str) -> None:
    encoder = {"type": "hash", "buckets": 10**6}
    field = {"name": "x", "side": "candidate", "dtype": dtype, "dim": 1}
    field |= {"pooling": "sum", "max_len": 3, "encoder": encoder}
    raw = {"format": 1, "candidate": RAW["candidate"][:1], "multi_hot": [field]}
    plain = FeatureSpec.from_dict(raw)
    how = {"separator": ";"} if form == "separator" else {"format": "json"}
    spec = FeatureSpec.from_dict(raw | {"multi_hot": [field | how]})
    kind = pa.int64() if dtype == "int64" else pa.float64()
    with Spec(spec.to_json()) as library:
        for text, values in (SAME if form == "separator" else SAME_JSON).items():
            table = pa.table({"goods": ["a"], "x": [text]})
            value = values[dtype == "float"]
            if value == "error":
                with pytest.raises(InputError, match="expected a list of"):
                    spec.encode(table)
                with pytest.raises(Refused, match="expected a list of"):
                    library.encode(table)
                continue
            lists = pa.array([[value]], pa.list_(kind))
            wanted = plain.encode(pa.table({"goods": ["a"], "x": lists}))["x"]
            assert np.array_equal(spec.encode(table)["x"], wanted), text
            assert np.array_equal(library.encode(table)["x"], wanted), text


@pytest.mark.parametrize("text", ["5", "{}", "[1", "x", "[[]]", "[true]", "[5]"])
def test_json_that_is_no_list_of_strings_is_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        SPEC.encode({**TEXTS, "tags": ["", text, "", ""]})
    assert str(caught.value) == (
        f"expected a list of strings as JSON, got {text!r} - at `tags`, row 1"
    )


def test_every_bad_row_is_named_where_errors_are_collected() -> None:
    errors: list[InputError] = []
    hist = ["1", "x, 1", "", "2, y"]
    SPEC.encoder.encode({**TEXTS, "hist_goods": hist, "hist_cate": hist}, errors=errors)
    assert sorted({e.row for e in errors if "between" in e.rule}) == [1, 3]


@pytest.mark.parametrize(
    ("texts", "key"),
    [
        (["", "a|b"], 'separator = "|"'),
        (["a,b", None], 'separator = ","'),
        (["a b", ""], 'separator = " "'),
        (["a", "b"], 'separator = "|"'),
        (['["a"]', ""], 'format = "json"'),
    ],
)
def test_text_where_lists_are_due_names_the_key_to_add(
    texts: list[str | None], key: str
) -> None:
    raw = {**RAW, "multi_hot": []}
    raw["behavior"] = [{"name": "h", "max_len": 5, "fields": {"hist": "goods"}}]
    with pytest.raises(InputError) as caught:
        FeatureSpec.from_dict(raw).encode(
            {"goods": ["a", "b"], "cate": [1, 2], "hist": texts}
        )
    assert str(caught.value) == (
        "expected a column of lists of strings, got string - at `hist`. Say in the spec"
        f" how its text is split: {key} in [[behavior]] h."
    )


def test_keys_of_another_dtype_name_the_mend() -> None:
    raw = {**RAW, "behavior": [], "multi_hot": []}
    spec = FeatureSpec.from_dict(raw)
    with pytest.raises(InputError) as caught:
        spec.encode({"goods": [1], "cate": [1]})
    assert str(caught.value) == (
        'expected a column of strings, got int64 - at `goods`. Say dtype = "int64" in'
        " the spec, or cast the column to strings: the ids differ."
    )
    with pytest.raises(InputError) as caught:
        spec.encode({"goods": ["a"], "cate": ["1"]})
    assert str(caught.value) == (
        "expected a column of integers, got string - at `cate`. Cast the column to"
        ' integers, or say dtype = "string" in the spec, with a hash or a vocabulary:'
        " the ids differ."
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"separator": ""},
            "expected a string, got '' - at `behavior[0].separator`",
        ),
        (
            {"format": "csv"},
            "expected one of json, got 'csv' - at `behavior[0].format`",
        ),
        (
            {"format": "json"},
            "expected either `separator` or `format`, got both - at `behavior[0]`",
        ),
    ],
)
def test_wrong_keys_are_refused(change: dict[str, Any], message: str) -> None:
    raw = {**RAW, "behavior": [{**RAW["behavior"][0], **change}]}
    with pytest.raises(ModelError) as caught:
        FeatureSpec.from_dict(raw)
    assert str(caught.value) == message


def test_a_column_is_split_in_one_way() -> None:
    other = {**RAW["multi_hot"][0], "name": "others", "column": "tags"}
    raw = {**RAW, "multi_hot": [*RAW["multi_hot"], other]}
    FeatureSpec.from_dict(raw)
    del other["format"]
    with pytest.raises(ModelError) as caught:
        FeatureSpec.from_dict({**raw, "multi_hot": [*RAW["multi_hot"], other]})
    assert str(caught.value) == (
        "expected one `separator`, `format` and `dtype` for `tags`, got others than in"
        " `tags` - at `others`"
    )


def test_a_text_that_is_far_longer_than_others_is_cut_like_a_list() -> None:
    raw = {**RAW, "multi_hot": []}
    raw["behavior"] = [
        {"name": "h", "max_len": 10**6, "separator": "|", "fields": {"hist": "goods"}}
    ]
    spec = FeatureSpec.from_dict(raw)
    lists = [["a"]] * 60 + [["b"] * 200_000] + [["c"]] * 60
    batch = {"goods": ["a"] * 121, "cate": [1] * 121, "hist": lists}
    texts = batch | {"hist": ["|".join(each) for each in lists]}
    assert spec.encoder.cut(texts) == spec.encoder.cut(batch) != [(0, 121)]


def test_the_description_says_how_lists_may_be_written() -> None:
    described = describe(SPEC)
    assert "list of string, or text by '|'" in described
    assert "list of string, or JSON" in described


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    path = tmp_path_factory.mktemp("texts") / "model.onnx"
    convert(random_model(SPEC), path, explain=True)
    return Predictor(path, device="cpu")


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "arrows", "csv", "jsonl"])
def test_files_of_text_and_of_lists_have_the_same_scores(
    suffix: str, predictor: Predictor, tmp_path: Path
) -> None:
    wanted = predictor.score(LISTS).tolist()
    assert predictor.score(TEXTS).tolist() == wanted
    kinds = {n: pa.int64() if n == "cate" else pa.string() for n in TEXTS}
    columns = {n: pa.array(v, kinds[n]) for n, v in TEXTS.items()}
    path = tmp_path / f"texts.{suffix}"
    if suffix == "csv":  # with quotes
        pa.csv.write_csv(pa.table(columns), path)
    else:
        write_as(pa.table(columns), path)
    score_files(predictor, path, tmp_path / "out", progress=False)
    [found] = (tmp_path / "out").glob("*.parquet")
    assert scores_of(found).tolist() == wanted
    assert find_rows(path, [("goods", "c"), ("cate", "3")], 9, SPEC) == [2]
    explained = explain_file(predictor, path, range(4))
    lists = predictor.explain(LISTS)
    for row, other in zip(explained, lists, strict=True):
        assert row.score == other.score
        assert row.sequences[0].columns == other.sequences[0].columns
    if suffix == "jsonl":
        rows = pa.Table.from_pylist(pa.table(LISTS).to_pylist())
        path = write_as(rows, tmp_path / "lists.jsonl")
        score_files(predictor, path, tmp_path / "lists", progress=False)
        [found] = (tmp_path / "lists").glob("*.parquet")
        assert scores_of(found).tolist() == wanted


def test_requests_may_have_texts_on_both_sides(
    predictor: Predictor, tmp_path: Path
) -> None:
    user = {n: [TEXTS[n][0]] for n in ("hist_goods", "hist_cate")}
    items = {n: TEXTS[n] for n in ("goods", "cate", "tags")}
    lists = {n: [LISTS[n][0]] for n in user}
    others = {n: LISTS[n] for n in items}
    wanted = predictor.score_requests(lists, others).tolist()
    assert predictor.score_requests(user, items).tolist() == wanted
    kinds = {"goods": pa.string(), "cate": pa.int64(), "tags": pa.string()}
    table = pa.table(
        {**user, **{n: pa.array([v], pa.list_(kinds[n])) for n, v in items.items()}}
    )
    for suffix in ("parquet", "jsonl"):
        path = write_as(table, tmp_path / f"requests.{suffix}")
        out = tmp_path / suffix
        score_files(predictor, path, out, progress=False)
        [found] = out.glob("*.parquet")
        assert scores_of(found)[0].tolist() == wanted
