"""Text as its writers write it: `din-score` equals `Predictor.score`, or refuses."""

import bz2
import csv
import gzip
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from din_converter import convert
from din_infer import InputError, Predictor
from din_infer.cli import main
from din_infer.jobs import reader_text, text_records
from din_infer.jobs.files import score_files
from din_infer.jobs.text_records import RecordCutter
from tests.models import random_model

SPEC: dict[str, Any] = {
    "format": 1,
    "user": [
        {"name": "age", "dim": 3, "encoder": {"type": "bucketize", "boundaries": [9.0]}}
    ],
    "candidate": [
        {"name": "goods_id", "dim": 4, "encoder": {"type": "hash", "buckets": 4096}},
        {
            "name": "shop",
            "dtype": "int64",
            "dim": 3,
            "encoder": {"type": "hash", "buckets": 4096},
        },
    ],
    "behavior": [
        {"name": "history", "max_len": 9, "fields": {"hist_goods_id": "goods_id"}}
    ],
    "multi_hot": [
        {
            "name": "nums",
            "side": "user",
            "dtype": "int64",
            "dim": 4,
            "pooling": "sum",
            "max_len": 9,
            "encoder": {"type": "hash", "buckets": 4096},
        },
    ],
    "dense": [
        {"name": "price", "side": "candidate", "dim": 1, "missing": 0.0},
        {"name": "profile", "side": "user", "dim": 2, "missing": 0.0},
    ],
    "model": {"attention": {"hidden": [4]}, "tower": {"hidden": [5]}},
}
KINDS = {
    "goods_id": pa.string(),
    "shop": pa.int64(),
    "age": pa.float64(),
    "hist_goods_id": pa.list_(pa.string()),
    "nums": pa.list_(pa.int64()),
    "price": pa.float64(),
    "profile": pa.list_(pa.float64()),
}
SMALL = {
    "format": 1,
    "candidate": SPEC["candidate"][:1],
    "behavior": SPEC["behavior"],
    "model": SPEC["model"],
}


def load(spec: dict[str, Any], folder: Path) -> Predictor:
    convert(random_model(spec), folder / "model.onnx")
    return Predictor(folder / "model.onnx", device="cpu", threads=1)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """A model of numbers, text and lists of each."""
    return load(SPEC, tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """A model of string goods and histories."""
    return load(SMALL, tmp_path_factory.mktemp("small"))


class Scorer:
    """Scores text with one model, each in a folder of its own."""

    def __init__(self, predictor: Predictor, folder: Path) -> None:
        self.predictor, self.folder, self.count = predictor, folder, 0

    def __call__(
        self,
        text: str | bytes,
        suffix: str = "csv",
        **options: Any,  # noqa: ANN401
    ) -> pa.Table:
        self.count += 1
        folder = self.folder / str(self.count)
        folder.mkdir()
        self.path = folder / f"t.{suffix}"
        self.path.write_bytes(text.encode() if isinstance(text, str) else text)
        made = score_files(self.predictor, self.path, folder / "out", **options)
        return pq.read_table(made.files[0])

    def wanted(self, goods: Sequence[Any], hists: Sequence[Any]) -> list[float]:
        rows = [
            {"goods_id": g, "hist_goods_id": h}
            for g, h in zip(goods, hists, strict=True)
        ]
        found: list[float] = self.predictor.score(rows).tolist()
        return found

    def refusal(
        self,
        text: str | bytes,
        suffix: str = "csv",
        **options: Any,  # noqa: ANN401
    ) -> str:
        with pytest.raises(InputError) as caught:
            self(text, suffix, **options)
        return (
            str(caught.value)
            .replace(f" of {self.path}", "")
            .replace(str(self.path), "FILE")
        )


@pytest.fixture
def score(small: Predictor, tmp_path: Path) -> Scorer:
    return Scorer(small, tmp_path)


# ------------------------------------------------------------------------------ lists

HISTORIES = [["g2", "g3"], [], ["g'4", 'g"5', "g,6"], ["a b"], ["[x]", ""]]
BRACKETS_FIX = "Write the lists as JSON, or join their elements without brackets."
FORMS = {
    "json": [json.dumps(h) for h in HISTORIES],
    "json ascii": [json.dumps([*h, "ü☃"]) for h in HISTORIES],
    "python": [repr(h) for h in HISTORIES],
    "numpy": [str(np.array(h, object)) for h in HISTORIES],
    "numpy scalars": [repr([np.str_(x) for x in h]) for h in HISTORIES],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("separator", [None, "|", ";"])
def test_lists_in_brackets_and_quotes_are_lists(
    form: str, separator: str | None, score: Scorer
) -> None:
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(["goods_id", "hist_goods_id"])
    writer.writerows(["g1", text] for text in FORMS[form])
    hists = [[*h, "ü☃"] if "ascii" in form else h for h in HISTORIES]
    got = score(file.getvalue(), separator=separator)
    assert got["score"].to_pylist() == score.wanted(["g1"] * 5, hists)


@pytest.mark.slow
@pytest.mark.parametrize(
    "history",
    [
        "g2,g3", "g2;g3", "g2^g3", "g2 g3", "g2\tg3", "g2\x01g3", "g2\x02g3", "g2:g3",
        "g2, g3", "[g2, g3]", "[g2]", "{g2,g3}", "(g2)", "'g2'", '"g2"', "['g2' g3]",
        "['g2' ... 'g9']", "[1, 2]", "['g2'", "g2#g3", "g2&g3", "g2~g3", "<g2>",
        "['g2', ['g3']]", '{"a": 1}', "g2\ng3", "g2、g3", "['g2', 'g3' 'g4']",
        "array(['g2'])", "[true]", r"['\d']", "[None]", "('g2', 'g3')", " [g2, g3] ",
        "g2/g3", "g2+g3", "g2@g3", "g2$g3", "g2*g3", "g2!g3", "g2?g3", "g2%g3", "g2=g3",
        "g2\\g3", "g2`g3", "g2\xa0g3", "g2\u3000g3", "g2\u2003g3", "g2\u2028g3",
        "g2\u200bg3", "g2\ufeffg3", "g2\x85g3", "g2·g3", "g2•g3", "g2§g3", "g2¬g3",
        "g2¦g3", "g2‖g3", "g2→g3", "((g2), g3)", "('g)', 'h')", "(2) Days (2009)",
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", [0, 39, 40])
def test_what_may_be_another_form_of_lists_is_refused(
    history: str, place: int, score: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_text, "HEAD_RECORDS", 20)
    rows = [["g1", "g2"], ["g1", ""]] * 20
    rows.insert(place, ["g1", history])
    file = io.StringIO()
    csv.writer(file).writerows([["goods_id", "hist_goods_id"], *rows])
    is_list = re.fullmatch(r" ?[\[({].*[\])}] ?", history) is not None
    is_list = is_list and "Days" not in history
    form = (
        "that JSON, Python or NumPy writes in brackets"
        if is_list
        else "with '|' between them"
    )
    said = score.refusal(file.getvalue())
    assert said == (
        f"expected a list of strings {form}, got {history!r} - at `hist_goods_id`,"
        f" row {place}. "
    ) + (BRACKETS_FIX if is_list else "Give --list-separator, which is then exact.")
    if is_list:  # a separator says nothing of brackets
        assert score.refusal(file.getvalue(), separator="|") == said
        assert score.refusal(file.getvalue(), separator=", ") == said
        return
    # what is given is exact
    got = score(file.getvalue(), separator="|", on_error="fail")
    wanted = score.wanted(["g1", "g1", "g1"], [["g2"], [], [history]])
    assert got["score"][place].as_py() == wanted[2]
    skipped = score(file.getvalue(), on_error="skip", batch_size=7)
    assert skipped["score"].to_pylist() == wanted[:2] * 20


def test_lists_of_the_first_lines_tell_the_separator(score: Scorer) -> None:
    text = "goods_id,hist_goods_id\n" + 'g1,"a, b|c/"\n' * 3 + "g1,d e\n"
    got = score(text)["score"].to_pylist()
    assert got == score.wanted(["g1"] * 4, [["a, b", "c/"]] * 3 + [["d e"]])
    # another separator between them, blanks beside it, quotes around an element
    for odd in (
        "a|b,c|d",
        "a;b",
        "a,|b",
        "a|b^c",
        "a\t|b",
        "a | b",
        "a| b",
        "'a'|b",
        '"a"|"b"',
    ):
        file = io.StringIO()
        csv.writer(file).writerow(["g1", odd])
        assert score.refusal(text + file.getvalue()) == (
            f"expected a list of strings with '|' between them, got {odd!r} - at"
            " `hist_goods_id`, row 4. Give --list-separator, which is then exact."
        )
        got = score(text + file.getvalue(), separator="|")["score"].to_pylist()
        assert got[4:] == score.wanted(["g1"], [odd.split("|")])
    # where most have another one, a few do not
    text = "goods_id,hist_goods_id\n" + "g1,a^b\n" * 5 + "g1,a|b^c\n"
    assert "got 'a^b' - at `hist_goods_id`, row 0." in score.refusal(text)
    got = score(text, separator="^")["score"].to_pylist()
    assert got == score.wanted(["g1"] * 6, [["a", "b"]] * 5 + [["a|b", "c"]])


@pytest.mark.parametrize("separator", [",", "||", "\x01", " ", "\t", "->", "aé"])
def test_any_separator_may_be_given(separator: str, score: Scorer) -> None:
    file = io.StringIO()
    rows = [["g1", separator.join(["x", "y|z", "w"])], ["g2", "v"], ["g3", ""]]
    csv.writer(file).writerows([["goods_id", "hist_goods_id"], *rows])
    got = score(file.getvalue(), separator=separator)["score"].to_pylist()
    hists = [["x", "y|z", "w"], ["v"], []]
    assert got == score.wanted(["g1", "g2", "g3"], hists)


def test_numbers_of_lists_have_the_same_forms(full: Predictor, tmp_path: Path) -> None:
    score = Scorer(full, tmp_path)
    texts = ["1|22|-3", "1||3", "", "[1, 22, -3]", "[1 22 -3]", "[1.0, null, 3]"]
    texts += ["[1, None]", "[nan, 2.0]", "[np.int64(7)]", "[]", '""', "1.0|2e1", "\\N"]
    wanted = [[1, 22, -3], [1, None, 3], None, [1, 22, -3], [1, 22, -3], [1, None, 3]]
    wanted += [[1, None], [None, 2], [7], [], [], [1, 20], None]
    pairs = ["0.5|2", "[0.5, 2e0]", "[null, 1]", "[nan, 1.5]", '""', "", "|3"]
    pairs += [""] * 6
    profiles: list[Any] = [[0.5, 2.0]] * 2 + [[None, 1.0], [None, 1.5], None, None]
    profiles += [[None, 3.0]] + [None] * 6
    names = "goods_id,shop,age,hist_goods_id,nums,price,profile\n"
    lines = []
    rows: list[dict[str, Any]] = []
    for text, nums, pair, profile in zip(texts, wanted, pairs, profiles, strict=True):
        cells = [t if t == '""' else f'"{t}"' * (t != "") for t in (text, pair)]
        cells = ["\\N" if text == "\\N" else cells[0], cells[1]]
        lines.append(f"g1,3,,g2,{cells[0]},1.5,{cells[1]}\n")
        row = {"goods_id": "g1", "shop": 3, "age": None, "hist_goods_id": ["g2"]}
        rows.append(row | {"nums": nums, "price": 1.5, "profile": profile})
    columns = {n: pa.array([r[n] for r in rows], k) for n, k in KINDS.items()}
    got = score(names + "".join(lines))["score"].to_pylist()
    assert got == full.score(columns).tolist()
    for text in ("1,2", "1 2", "[1.5]", "['1']", "[1. 2.]", "x", "[1, 2", "1|3.5"):
        said = score.refusal(names + f'g1,3,,g2,"{text}",1.5,\n')
        form, fix = (
            "with '|' between them",
            "Give --list-separator, which is then exact.",
        )
        if text[-1] == "]":
            form, fix = "that JSON, Python or NumPy writes in brackets", BRACKETS_FIX
        assert said == (
            f"expected a list of integers {form}, got {text!r} - at `nums`,"
            f" row 0. {fix}"
        )
    said = score.refusal(names + "g1,3,,g2,,1.5,[0.12345679 1.5]\n")
    assert "got '[0.12345679 1.5]' - at `profile`, row 0" in said  # NumPy rounds


def test_nothing_in_quotes_is_an_empty_list(full: Predictor, tmp_path: Path) -> None:
    score = Scorer(full, tmp_path)
    text = 'goods_id,shop,age,hist_goods_id,nums,price,profile\ng1,1,2,"","",3,\n'
    row = {"goods_id": ["g1"], "shop": [1], "age": [2.0], "price": [3.0]}
    row |= {"nums": [[]], "profile": pa.array([None], KINDS["profile"])}
    row["hist_goods_id"] = [[]]
    assert score(text)["score"].to_pylist() == full.score(row).tolist()
    row["hist_goods_id"] = [[""]]
    got = score(text, quoted_empty="element")["score"].to_pylist()
    assert got == full.score(row).tolist()


def test_text_for_lists_is_refused_in_other_containers(
    score: Scorer, tmp_path: Path
) -> None:
    said = score.refusal('{"goods_id":"g1","hist_goods_id":"g1|g2"}\n', "jsonl")
    assert said == (
        "expected a list of strings, got '\"g1|g2\"' - at `hist_goods_id`, row 0."
        " Write it as a JSON array of its elements, or say in the spec how it is split:"
        " separator = .."
    )
    table = pa.table({"goods_id": ["g1"], "hist_goods_id": ["g1|g2"]})
    pq.write_table(table, tmp_path / "t.parquet")
    wanted = (
        "expected a column of lists of strings, got string - at `hist_goods_id`{}."
        ' Say in the spec how its text is split: separator = "|" in [[behavior]]'
        " history."
    )
    with pytest.raises(InputError) as caught:
        score_files(score.predictor, tmp_path / "t.parquet", tmp_path / "out")
    assert str(caught.value) == wanted.format(f" of {tmp_path / 't.parquet'}")
    with pytest.raises(InputError) as caught:
        score.predictor.score(table)
    assert str(caught.value) == wanted.format("")


# ------------------------------------------------------------------------------- kept

IDS = [
    "007",
    "12345678901234567890",
    "1e5",
    " x ",
    "2020-01-01",
    "0x1F",
    'a,b\n"c"',
    "",
]


def test_kept_text_of_csv_is_not_parsed(score: Scorer) -> None:
    file = io.StringIO()
    rows = [[text, "g1", "g2"] for text in IDS]
    names = ["event:id", "goods_id", "hist_goods_id"]
    csv.writer(file).writerows([names, *rows, ["\\N", "g1", "g2"]])
    got = score(file.getvalue(), keep=["event:id", "goods_id", "hist_goods_id"])
    assert got["event:id"].to_pylist() == [*IDS[:-1], None, None]
    assert got["hist_goods_id"].to_pylist() == ["g2"] * 9


def test_kept_columns_of_the_model_are_text_in_csv(
    full: Predictor, tmp_path: Path
) -> None:
    score = Scorer(full, tmp_path)
    names = "goods_id,shop,age,hist_goods_id,nums,price,profile\n"
    text = names + '007,007,+1.50,007|"8,"[1, 2]",1e1,\n'.replace('|"8', "|8")
    keep = ["shop", "goods_id", "nums", "price", "age:float64"]
    got = score(text, keep=keep).drop(["score"]).to_pylist()
    assert got == [
        {"shop": "007", "goods_id": "007", "nums": "[1, 2]", "price": "1e1", "age": 1.5}
    ]
    got = score(text, keep=["shop:int64"])
    assert got["shop"].to_pylist() == [7]
    # a value that cannot be read is kept all the same
    bad = text + "a,x,1,,,,\n" + "a,1,1,,,,\n"
    got = score(bad, keep=["shop"], on_error="null")
    assert got["shop"].to_pylist() == ["007", "x", "1"]
    assert [s is None for s in got["score"].to_pylist()] == [False, True, False]
    assert score.refusal(bad) == (
        "expected an integer, got 'x' - at `shop`, row 1. Ids that are text need"
        ' dtype = "string" in the spec.'
    )


JSON_VALUES = ['"007"', "7", "12345678901234567890", "1e5", "1.10", "true", "null"]
JSON_VALUES += ['"2020-01-01T00:00:00Z"', '{"a": [1,  2.50]}', '"a\\"\\u00fc"', "[ ]"]


def test_kept_values_of_json_are_their_text(score: Scorer) -> None:
    lines = [
        f'{{"event_id": {v}, "goods_id": "g1", "hist_goods_id": ["g2"]}}\n'
        for v in JSON_VALUES
    ]
    wanted = [None if v == "null" else v for v in JSON_VALUES]
    wanted[0], wanted[7], wanted[9] = "007", "2020-01-01T00:00:00Z", 'a"ü'
    for order in (lines, lines[::-1], lines[:1] * 1500 + lines):
        got = score("".join(order), "jsonl", keep=["event_id", "hist_goods_id"])
        assert got["hist_goods_id"].to_pylist() == [["g2"]] * len(order)
        place = {line: value for line, value in zip(lines, wanted, strict=True)}
        assert got["event_id"].to_pylist() == [place[line] for line in order]


def test_kept_columns_may_be_asked_for_as_a_type(
    score: Scorer, small: Predictor, tmp_path: Path
) -> None:
    names = "n,x,b,d,t,a:int64,goods_id,hist_goods_id\n"
    good = "007,1e5,true,2020-02-03,2020-02-03 04:05:06,u,g1,g2\n"
    keep = ["n:int64", "x:float64", "b:bool", "d:date", "t:timestamp", "a:int64"]
    got = score(names + good, keep=keep)
    kinds = [pa.int64(), pa.float64(), pa.bool_(), pa.date32(), pa.timestamp("us")]
    assert got.schema.types == [*kinds, pa.string(), pa.float32()]
    assert got.column_names[:6] == ["n", "x", "b", "d", "t", "a:int64"]
    assert got["n"].to_pylist() == [7]
    bad = names + good + good.replace("007", "y")
    said = score.refusal(bad, keep=keep)
    assert said == "expected a value of type int64, got 'y' - at `n`, row 1"
    got = score(bad, keep=keep, on_error="null")
    assert got["n"].to_pylist() == [7, None]
    assert got["x"].to_pylist() == [1e5, 1e5]
    assert got["score"][1].as_py() is None
    assert score(bad, keep=keep, on_error="skip").num_rows == 1
    # files that have types are cast too
    table = pa.table(
        {"n": [1, 2**60], "goods_id": ["1", "2"], "hist_goods_id": [["3"], []]}
    )
    pq.write_table(table, tmp_path / "t.parquet")
    options: dict[str, Any] = {"keep": ["n:string", "goods_id:int64", "hist_goods_id"]}
    made = score_files(small, tmp_path / "t.parquet", tmp_path / "out", **options)
    got = pq.read_table(made.files[0])
    assert got["n"].to_pylist() == ["1", str(2**60)]
    assert got["goods_id"].to_pylist() == [1, 2]
    assert got["score"].to_pylist() == small.score(table).tolist()
    options["keep"] = ["hist_goods_id:date"]
    with pytest.raises(InputError, match="a value of type date32") as caught:
        score_files(small, tmp_path / "t.parquet", tmp_path / "out2", **options)
    assert caught.value.row == 0


def test_unread_columns_never_make_a_line_bad(score: Scorer) -> None:
    line = '{"goods_id": "g1", "hist_goods_id": ["g2"], "x": %s}\n'
    text = line % 1 * 1200 + line % '"a"' + line % "[1]" + line % '{"goods_id": 3}'
    got = score(text, "jsonl", keep=["x"])
    assert got["x"].to_pylist() == ["1"] * 1200 + ["a", "[1]", '{"goods_id": 3}']
    assert len(set(got["score"].to_pylist())) == 1


# ---------------------------------------------------------------------- lines, quotes


def test_a_row_of_nulls_is_a_row(score: Scorer) -> None:
    text = "goods_id\thist_goods_id\ng1\tg2\n\t\ng3\tg4\n\n\r\n"
    got = score(text, "tsv")["score"].to_pylist()
    assert got == score.wanted(["g1", None, "g3"], [["g2"], None, ["g4"]])


def test_an_empty_line_is_null_where_there_is_one_column(tmp_path: Path) -> None:
    spec = {k: v for k, v in SMALL.items() if k != "behavior"}
    score = Scorer(load(spec, tmp_path), tmp_path)
    got = score('goods_id\na\n\n""\nb\n')["score"].to_pylist()
    rows = [{"goods_id": g} for g in ("a", None, "", "b")]
    assert got == score.predictor.score(rows).tolist()
    table = pa.table({"goods_id": ["a", None, "", "b"]})
    sink = io.BytesIO()
    pa.csv.write_csv(table, sink)
    assert score(sink.getvalue())["score"].to_pylist() == got


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_line_breaks_in_quotes_belong_to_the_value(
    end: str, block: int, score: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_text, "BLOCK_BYTES", block)
    # a writer whose lines end in "\n" puts no quotes around a carriage return
    goods = ["g\n1", 'g"\r\n,2', "\n\r", "\n\n", "plain"] * 3
    file = io.StringIO()
    writer = csv.writer(file, lineterminator=end)
    writer.writerow(["goods_id", "two\nlines", "hist_goods_id"])
    writer.writerows([g, "a\nb", "x|y\nz"] for g in goods)
    got = score(file.getvalue(), keep=["goods_id", "two\nlines"], batch_size=2)
    assert got["goods_id"].to_pylist() == goods
    assert got["two\nlines"].to_pylist() == ["a\nb"] * 15
    assert got["score"].to_pylist() == score.wanted(goods, [["x", "y\nz"]] * 15)


def test_an_open_quote_is_an_error_of_the_file(score: Scorer) -> None:
    text = 'goods_id,hist_goods_id\ng1,"g\n2"\ng3,"g4\ng5,g6\n'
    for on_error in ("fail", "skip", "null"):
        assert score.refusal(text, on_error=on_error) == (
            "expected a CSV file that can be read to its end, got an open quote in the"
            " record that begins in line 4 - at `FILE`"
        )


@pytest.mark.parametrize(
    "bad", ['g"4,g5', '"g4"x,g5', 'g4,"g5" ', "g\r4,g5", "g4", "a,b,c"]
)
def test_a_bad_record_is_one_bad_row(bad: str, score: Scorer) -> None:
    text = f'goods_id,hist_goods_id\ng1,"g\n2"\n{bad}\ng3,"g""4"\n'
    wanted = score.wanted(["g1", "g3"], [["g\n2"], ['g"4']])
    got = score(text, on_error="skip", separator="|", keep=["goods_id"])
    assert got["score"].to_pylist() == wanted
    got = score(text, on_error="null", separator="|", keep=["goods_id"])
    assert got.to_pylist()[1] == {"goods_id": None, "score": None}
    assert got["score"].to_pylist() == [wanted[0], None, wanted[1]]
    if '"' in bad:
        assert score.refusal(text, separator="|") == (
            "expected a row of csv, got a quote inside of a field - at `line`, row 1."
            " Give --escape if quotes are not doubled."
        )


def test_an_escape_may_be_given(score: Scorer) -> None:
    goods: list[str | None] = ['a"b', "a\\b", "a,b", "a\nb", '\\"', "N", ""]
    file = io.StringIO()
    writer = csv.writer(file, doublequote=False, escapechar="\\")
    writer.writerow(["goods_id", "hist_goods_id"])
    writer.writerows([g, "h"] for g in goods)
    file.write('\\N,h\n"\\N",h\n"a""b",h\nx\\,y,h\n')
    got = score(file.getvalue(), escape="\\", keep=["goods_id"])
    goods = [*goods[:-1], None, None, "N", 'a"b', "x,y"]
    assert got["goods_id"].to_pylist() == goods
    assert got["score"].to_pylist() == score.wanted(goods, [["h"]] * len(goods))


def test_an_escape_outside_of_quotes_has_one_meaning(score: Scorer) -> None:
    header = "goods_id,hist_goods_id\n"
    said = (
        "expected a row of csv, got an escape outside of quotes, before a character"
        " without meaning - at `line`, row 1. Leave --escape out, or write the escape"
        " twice."
    )
    for bad in ("a\\b,c", "a,b\\c", "a\\Nb,c", "a,b|\\Nc", 'a,"b"\n\\t,c', "a,b\\|c"):
        text = f"{header}g1,g2\n{bad}\n"
        assert score.refusal(text, escape="\\") == said.replace(
            "row 1", f"row {1 + bad.count(chr(10))}"
        )
        got = score(text + "g3,g4\n", escape="\\", on_error="null")["score"].to_pylist()
        assert got[0 :: len(got) - 1] == score.wanted(["g1", "g3"], [["g2"], ["g4"]])
        assert None in got
    good = (
        'a\\\\b,"c\\d"\na\\,b,c\n\\"a,\\N\na,b|\\N\na,"\\N|b"\n"b|\\N",b\na,\\N|\\N|c\n'
    )
    goods = ["a\\b", "a,b", '"a', "a", "a", "b|N", "a"]
    hists = [["cd"], ["c"], None, ["b", None], [None, "b"], ["b"], [None, None, "c"]]
    got = score(header + good, escape="\\", keep=["goods_id"])
    assert got["goods_id"].to_pylist() == goods
    assert got["score"].to_pylist() == score.wanted(goods, hists)


def test_integers_are_decimal_and_of_64_bits(full: Predictor, tmp_path: Path) -> None:
    score = Scorer(full, tmp_path)
    names = "n,goods_id,shop,age,hist_goods_id,nums,price,profile\n"
    for text in ("0x10", "0xFFFFFFFFFFFFFFFF", "0X1f"):
        said = score.refusal(names + f"1,g1,{text},,g2,,,\n")
        assert said.startswith(f"expected an integer, got '{text}' - at `shop`, row 0")
        said = score.refusal(names + f"{text},g1,1,,g2,,,\n", keep=["n:int64"])
        assert said == f"expected a value of type int64, got '{text}' - at `n`, row 0"
    wide = str(2**64 - 1)
    said = score.refusal(names + f"1,g1,{wide},,g2,,,\n")
    assert said == f"expected an integer of 64 bits, got '{wide}' - at `shop`, row 0"
    for lists in (f"1|{wide}", f"[{wide}]"):
        said = score.refusal(names + f"1,g1,1,,g2,{lists},,\n")
        rule = "expected a list of integers of 64 bits"
        assert said == f"{rule}, got '{lists}' - at `nums`, row 0"
    start = '{"goods_id":"g1","hist_goods_id":[],"profile":null,"age":1,"price":1,'
    said = score.refusal(f'{start}"shop":{wide},"nums":[]}}\n', "jsonl")
    assert said == f"expected an integer of 64 bits, got '{wide}' - at `shop`, row 0"
    said = score.refusal(f'{start}"shop":1,"nums":[{wide}]}}\n', "jsonl")
    assert said == f"{rule}, got '[{wide}]' - at `nums`, row 0"


@pytest.mark.parametrize(
    "texts", [("true", "false"), ("True", "False"), ("TRUE", "FALSE")]
)
def test_booleans_are_1_and_0_for_numbers(
    texts: tuple[str, str], full: Predictor, tmp_path: Path
) -> None:
    score = Scorer(full, tmp_path)
    rows: list[dict[str, Any]] = [
        {"goods_id": "g1", "shop": b, "age": b, "hist_goods_id": ["g2"]}
        | {"nums": [b, 3], "price": b, "profile": [b, 0.5]}
        for b in (True, False)
    ]
    wanted = full.score(rows).tolist()
    lines = [f"g1,{t},{t},g2,{t}|3,{t},{t}|0.5\n" for t in texts]
    assert score(",".join(KINDS) + "\n" + "".join(lines))["score"].to_pylist() == wanted
    text = "".join(json.dumps(row) + "\n" for row in rows)
    assert score(text, "jsonl")["score"].to_pylist() == wanted


def test_nan_of_json_is_null(score: Scorer) -> None:
    text = '{"goods_id":NaN,"hist_goods_id":["a",NaN]}\n'
    text += '{"goods_id":"b","hist_goods_id":NaN}\n'
    got = score(text, "jsonl")["score"].to_pylist()
    assert got == score.wanted([None, "b"], [["a", None], None])


def cut_slowly(
    text: bytes, delimiter: bytes, escape: bytes
) -> tuple[list[bytes], bytes]:
    """Cut records character by character: the slow twin."""
    records, current, state, k = [], b"", "start", 0
    while k < len(text):
        c = text[k : k + 1]
        if escape and c == escape and k + 1 < len(text):
            current += text[k : k + 2]
            state = "plain" if state == "start" else state
            k += 2
            continue
        current += c
        if state == "inside":
            if c == b'"' and text[k + 1 : k + 2] == b'"':
                current += b'"'
                k += 1
            elif c == b'"':
                state = "plain"
        elif c == b"\n":
            records.append(current)
            current, state = b"", "start"
        elif c == delimiter:
            state = "start"
        else:
            state = "inside" if c == b'"' and state == "start" else "plain"
        k += 1
    return records, current


@given(
    st.lists(st.sampled_from(['"', '"', "\n", "a", "\r", "\\", ",", "|"]), max_size=40),
    st.sampled_from([None, "\\"]),
    st.sampled_from([",", "|"]),
    st.integers(1, 9),
)
def test_records_are_cut_as_by_hand(
    letters: list[str], escape: str | None, delimiter: str, size: int
) -> None:
    text = "".join(letters).encode() + b"\n"
    wanted, rest = cut_slowly(text, delimiter.encode(), (escape or "").encode())
    blocks = (text[k : k + size] for k in range(0, len(text), size))
    got: list[bytes] = []
    reason = ""
    try:
        for records in RecordCutter(delimiter, escape).cut(blocks):
            got += records.column(0).to_pylist()
    except EOFError as error:
        reason = str(error)
    assert got == wanted
    assert bool(reason) == bool(rest)
    if rest:
        line = b"".join(wanted).count(b"\n") + 1
        assert reason == f"an open quote in the record that begins in line {line}"


def test_memory_of_one_record_is_bounded(
    score: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_records, "MOST_BYTES", 10000)
    monkeypatch.setattr(reader_text, "BLOCK_BYTES", 1000)
    text = 'goods_id,hist_goods_id\ng1,g2\ng3,"' + "x\n" * 40000
    said = score.refusal(text)
    assert said == (
        "expected a CSV file that can be read to its end, got more than 10,000 bytes in"
        " the record that begins in line 3 - at `FILE`"
    )


# ---------------------------------------------------------------------------- options


def test_tables_of_other_delimiters_and_without_headers(
    small: Predictor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"g1\x01u\x01a\x02b\nNULL\x01\x01\ng3\x01\\N\x01NA\n")
    words = [str(small.path), str(path), "--out", str(tmp_path / "out"), "--quiet"]
    words += ["--delimiter", "\\x01", "--list-separator", "\\x02", "--no-header"]
    words += ["--columns", "goods_id,user,hist_goods_id", "--keep", "user"]
    words += ["--null-text", "NULL", "--null-text", "", "--null-text", "NA"]
    assert main(words) == 0
    got = pq.read_table(tmp_path / "out" / "t.csv.parquet")
    rows = [("g1", ["a", "b"]), (None, None), ("g3", None)]
    wanted = small.score([{"goods_id": g, "hist_goods_id": h} for g, h in rows])
    assert got["score"].to_pylist() == wanted.tolist()
    assert got["user"].to_pylist() == ["u", None, "\\N"]
    for tab in ("\t", "\\t", "tab"):
        path.write_text("goods_id\thist_goods_id\ng1\ta|b\n")
        words = [
            str(small.path),
            str(path),
            "--out",
            str(tmp_path / "o"),
            "--overwrite",
        ]
        assert main([*words, "--delimiter", tab, "--quiet"]) == 0
        got = pq.read_table(tmp_path / "o" / "t.csv.parquet")
        assert got["score"].to_pylist() == wanted.tolist()[:1]
    # another option is another job
    words[-1] = "--resume"
    assert main([*words, "--delimiter", tab, "--escape", "\\"]) == 1
    said = capsys.readouterr().err
    assert 'expected options.escape as when the job began, null, got "\\\\"' in said


def test_a_bar_may_be_the_delimiter(score: Scorer) -> None:
    text = 'goods_id|hist_goods_id\ng2|c\ng3|\ng4|"a|b"\n'
    got = score(text, delimiter="|")["score"].to_pylist()
    assert got == score.wanted(["g2", "g3", "g4"], [["c"], [], ["a", "b"]])


@pytest.mark.parametrize("separator", [None, "|"])
def test_brackets_among_other_lists_are_refused(
    separator: str | None, score: Scorer
) -> None:
    text = "goods_id,hist_goods_id\ng1,a|b\ng1,c\ng1,['d']\n"
    assert score.refusal(text, separator=separator) == (
        "expected a list of strings with '|' between them, got \"['d']\" - at"
        f" `hist_goods_id`, row 2. {BRACKETS_FIX}"
    )


@pytest.mark.parametrize("word", ["null", "NULL", "None", "nan", "NaN", "<NA>"])
def test_names_of_null_are_null_among_lists_in_brackets(
    word: str, score: Scorer, full: Predictor, tmp_path: Path
) -> None:
    for lists in ('"[""a"",""b""]"', "\"['a', 'b']\""):
        text = f"goods_id,hist_goods_id\ng1,{word}\ng1,{word}\ng1,{lists}\n"
        got = score(text)["score"].to_pylist()
        assert got == score.wanted(["g1"] * 3, [None, None, ["a", "b"]])
    names = "goods_id,shop,age,hist_goods_id,nums,price,profile\n"
    made = Scorer(full, tmp_path / "full")
    (tmp_path / "full").mkdir()
    text = names + f'g1,1,2,,{word},3,{word}\ng1,1,2,,"[1, 2]",3,"[1, 2]"\n'
    plain = names + "g1,1,2,,,3,\ng1,1,2,,1|2,3,1|2\n"
    assert made(text)["score"].equals(made(plain)["score"])
    if word != "<NA>":  # a name beside others
        text = f"goods_id,hist_goods_id\ng1,{word}\ng1,b\n"
        assert score(text)["score"].to_pylist() == score.wanted(
            ["g1"] * 2, [[word], ["b"]]
        )


def test_names_of_nothing_are_null_where_strings_are_in_quotes(score: Scorer) -> None:
    text = "goods_id,hist_goods_id\n"
    got = score(text + "g1,['g2']\ng1,[None]\ng1,[nan]\n")["score"].to_pylist()
    assert got == score.wanted(["g1"] * 3, [["g2"], [None], [None]])
    # a writer that leaves quotes out writes strings so
    for rest in ("[nan]", "[None]", "\"[nan, 'a b']\""):
        assert "that JSON, Python or NumPy writes" in score.refusal(
            f"{text}g1,{rest}\n"
        )


ONE = "one ASCII character that is no quote and no line end, got"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"delimiter": "ab"}, f"{ONE} 'ab' - at `delimiter`"),
        ({"delimiter": "\n"}, f"{ONE} '\\n' - at `delimiter`"),
        ({"escape": '"'}, f"{ONE} '\"' - at `escape`"),
        (
            {"escape": ";", "delimiter": ";"},
            "an escape other than the delimiter, got ';' - at `escape`",
        ),
        (
            {"separator": ""},
            "text without quotes and line ends, got '' - at `list_separator`",
        ),
        (
            {"separator": ";", "escape": ";"},
            "a list separator other than the escape, got ';' - at `list_separator`",
        ),
        (
            {"columns": ["a"]},
            "a header or names, not both, got a - at `columns`. Give --no-header where"
            " the first record is data.",
        ),
        (
            {"header": False},
            "the names of the columns of CSV that has no header, got none - at"
            " `columns`. Give --columns.",
        ),
        (
            {"header": False, "columns": ["a", "a"]},
            "each column once, got a - at `columns`",
        ),
        ({"columns": "abc"}, "a sequence of texts, got 'abc' - at `columns`"),
        ({"quoted_empty": "x"}, "one of list, element, got 'x' - at `quoted_empty`"),
    ],
)
def test_options_that_contradict_are_refused(
    options: dict[str, Any], said: str, score: Scorer
) -> None:
    text = "goods_id,hist_goods_id\ng1,g2\n"
    assert score.refusal(text, **options) == f"expected {said}"


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
@pytest.mark.parametrize(
    ("name", "value"),
    [("separator", "|"), ("delimiter", ";"), ("header", False), ("columns", ["a"]),
     ("null_texts", ["x"]), ("escape", "\\"), ("quoted_empty", "element")],
)  # fmt: skip
def test_options_that_no_input_uses_are_refused(
    name: str,
    value: Any,  # noqa: ANN401
    suffix: str,
    small: Predictor,
    tmp_path: Path,
) -> None:
    path = tmp_path / f"t.{suffix}"
    table = pa.table({"goods_id": ["g1"], "hist_goods_id": [["g2"]]})
    if suffix == "parquet":
        pq.write_table(table, path)
    else:
        path.write_text('{"goods_id":"g1","hist_goods_id":["g2"]}\n')
    uses = "CSV, TSV, JSON lines" if name == "columns" else "CSV, TSV"
    got = "Parquet" if suffix == "parquet" else "JSON lines"
    option = "list_separator" if name == "separator" else name
    if (name, suffix) == ("columns", "jsonl"):
        return
    with pytest.raises(InputError) as caught:
        score_files(small, path, tmp_path / "out", **{name: value})
    assert str(caught.value) == f"expected inputs of {uses}, got {got} - at `{option}`"


def test_whole_numbers_may_be_written_as_decimal_ones(
    full: Predictor, tmp_path: Path
) -> None:
    score = Scorer(full, tmp_path)
    names = list(KINDS)
    row: dict[str, Any] = dict.fromkeys(names)
    row |= {"goods_id": "g1", "hist_goods_id": ["g2"], "nums": [4, 5]}
    good = [("3.0", 3), ("3", 3), ("3e0", 3), ("-0.0", 0), (str(2**63 - 1), 2**63 - 1)]
    good += [("1e16", 10**16), ("9007199254740993.0", 9007199254740993)]
    values = [row | {"shop": value} for _, value in good]
    columns = {n: pa.array([r[n] for r in values], k) for n, k in KINDS.items()}
    wanted = full.score(columns).tolist()
    header = ",".join(names) + "\n"
    lines = [f"g1,{text},,g2,4.0|5,,\n" for text, _ in good]
    assert score(header + "".join(lines))["score"].to_pylist() == wanted
    start = '{"goods_id":"g1","hist_goods_id":["g2"],"nums":[4.0,5],"profile":null,'
    start += '"age":null,"price":null,"shop":'
    objects = [f"{start}{text}}}\n" for text, _ in good]
    assert score("".join(objects), "jsonl")["score"].to_pylist() == wanted
    # a column that Arrow reads as numbers, beside one whose integers are too large
    mixed = [f"{start.replace('4.0', str(2**60 + 1))}3.0}}\n"] * 5
    columns = {n: pa.array([r[n] for r in values[:1]], k) for n, k in KINDS.items()}
    columns["nums"] = pa.array([[2**60 + 1, 5]])
    assert score("".join(mixed), "jsonl", batch_size=2)["score"].to_pylist() == (
        full.score(columns).tolist() * 5
    )
    for bad in ("3.5", "1e400", "9223372036854775808", "0x1F"):
        if bad == "0x1F":
            said = score.refusal(header + f"g1,{bad},,g2,,,\n")
            assert said.startswith("expected an integer, got '0x1F' - at `shop`, row 0")
            continue
        said = score.refusal(header + f"g1,{bad},,g2,,,\n")
        rule = "an integer" + " of 64 bits" * bad.isdigit()
        assert said == f"expected {rule}, got '{bad}' - at `shop`, row 0"
        said = score.refusal("".join([*objects, f"{start}{bad}}}\n"]), "jsonl")
        assert said.startswith(f"expected {rule}, got '")
        assert said.endswith("' - at `shop`, row 7")


def test_keys_that_are_left_out_are_null(score: Scorer) -> None:
    first = '{"goods_id":"g1"}\n'
    late = '{"hist_goods_id":["g2"],"event_id":"e"}\n'
    for count in (1, 1500):
        got = score(first * count + late + first, "jsonl", keep=["event_id"])
        wanted = score.wanted(["g1", None], [None, ["g2"]])
        assert got["score"].to_pylist() == [wanted[0]] * count + [wanted[1], wanted[0]]
        assert got["event_id"].to_pylist() == [None] * count + ["e", None]
    said = score.refusal(first * 3, "jsonl", keep=["event_id"])
    assert said == (
        "expected lines that have the keys event_id, hist_goods_id, got none - at"
        " `FILE`. Name by --columns what is null on every line."
    )
    got = score(first * 3, "jsonl", columns=["hist_goods_id"])
    assert got["score"].to_pylist() == [wanted[0]] * 3


def test_keys_elsewhere_are_not_the_columns(score: Scorer) -> None:
    line = '{"goods_id":"g1","hist_goods_id":[],"x":"id","y":{"id":1},"z":[{"id":2}]}\n'
    said = score.refusal(line * 3, "jsonl", keep=["id"])
    assert said == (
        "expected lines that have the keys id, got none - at `FILE`. Name by --columns"
        " what is null on every line."
    )


@pytest.mark.parametrize("shape", ["lists", "structs"])
def test_keys_of_requests_may_be_left_out(
    shape: str, full: Predictor, tmp_path: Path
) -> None:
    score = Scorer(full, tmp_path)
    user = {"age": 4.0, "hist_goods_id": ["g2"], "nums": [1], "profile": [1.0, 2.0]}
    items: list[dict[str, Any]]
    items = [{"goods_id": "a", "shop": 1}, {"goods_id": "b"}, {"price": 2.5}]
    rows: list[dict[str, Any]] = []
    for item in [*items[:1] * 1100, *items]:
        if shape == "structs":
            rows.append(user | {"items": [item]})
        else:
            rows.append(user | {key: [value] for key, value in item.items()})
    if shape == "lists":
        rows = [{"goods_id": [None], "shop": [None], "price": [None]} | r for r in rows]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    got = score(text, "jsonl")["score"].to_pylist()
    nothing: dict[str, Any] = {"goods_id": None, "shop": None, "price": None}
    full_items = [nothing | i for i in items]
    wanted = full.score([user | i for i in full_items]).tolist()
    assert got[1100:] == [[w] for w in wanted]


@pytest.mark.parametrize("empty", ["[]", "null"])
@pytest.mark.parametrize("key", ["candidates", "goods_id"])
def test_the_first_candidate_tells_the_form(
    empty: str, key: str, score: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = f'{{"{key}":{empty},"hist_goods_id":["a"]}}\n'
    last = '{"goods_id":["g1"],"hist_goods_id":["a"]}\n'
    if key == "candidates":
        last = '{"candidates":[{"goods_id":"g1"}],"hist_goods_id":["a"]}\n'
    wanted = score.wanted(["g1"], [["a"]])
    for count in (999, 1500, 30_000):
        got = score(line * count + last, "jsonl")["score"].to_pylist()
        assert got == [[]] * count + [wanted]
    if key == "goods_id":
        return
    said = (
        "expected a candidate on one of the first lines, got `candidates` without"
        " elements on all of them - at `FILE`. Put a request with candidates first, or"
        " leave the key out."
    )
    assert score.refusal(line * 9, "jsonl") == said
    assert score.refusal(line * 9, "jsonl", columns=["goods_id"]) == said
    monkeypatch.setattr(reader_text, "MOST_HEAD_BYTES", 1)
    assert score.refusal(line * 60_000 + last, "jsonl") == said


def test_keys_inside_of_other_objects_are_not_the_columns(score: Scorer) -> None:
    for line, lost in (
        ('{"item":{"goods_id":"g0"},"hist_goods_id":["a"]}', "goods_id"),
        ('{"user":{"hist_goods_id":["a"]},"goods_id":"g1"}', "hist_goods_id"),
        ('{"goods_id":"g1","feature":"hist_goods_id","value":[1]}', "hist_goods_id"),
        ('{"0":{"goods_id":"g","hist_goods_id":["a"]}}', "goods_id, hist_goods_id"),
    ):
        assert score.refusal(f"{line}\n" * 2, "jsonl") == (
            f"expected lines that have the keys {lost}, got none - at `FILE`. Name by"
            " --columns what is null on every line."
        )
    line = '{"c":[{"goods_id":"g1","z":1}],"hist_goods_id":["a"]}\n'
    for explode in (False, True):
        said = score.refusal(line, "jsonl", keep=["z"], explode=explode)
        assert said == "expected the columns z, got only c, hist_goods_id - at `FILE`"


def test_kept_lists_of_json_are_exploded(full: Predictor, tmp_path: Path) -> None:
    score = Scorer(full, tmp_path)
    line = {"age": 4.0, "hist_goods_id": ["g2"], "nums": [1], "profile": [1.0, 2.0]}
    line |= {"goods_id": ["a", "b"], "shop": [1, 2], "price": [1.0, None]}
    text = json.dumps(line)[:-1] + ', "at": [1.50, "x"], "id": 7}\n'
    keep = ["at", "id", "goods_id"]
    got = score(text, "jsonl", keep=keep, explode=True).drop(["score"])
    assert got.to_pylist() == [
        {"at": "1.50", "id": "7", "goods_id": "a"},
        {"at": "x", "id": "7", "goods_id": "b"},
    ]
    got = score(text, "jsonl", keep=keep).drop(["score"]).to_pylist()
    assert got == [{"at": '[1.50, "x"]', "id": "7", "goods_id": ["a", "b"]}]
    said = score.refusal(
        text * 2 + text.replace('[1.50, "x"]', "3"), "jsonl", keep=keep, explode=True
    )
    assert said == "expected a list, as the first lines have, got '3' - at `at`, row 2"
    bad = text * 2 + text.replace('"x"', '"\\ud800"')
    said = score.refusal(bad, "jsonl", keep=keep, explode=True)
    assert said.startswith("expected a list, as the first lines have, got ")
    got = score(text.replace('"x"', "2"), "jsonl", keep=["at:float64"], explode=True)
    assert got["at"].to_pylist() == [1.5, 2.0]


def test_other_encodings_and_forms_are_refused_by_their_names(score: Scorer) -> None:
    text = "goods_id,hist_goods_id\ngé,g2\n"
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        data = text.encode(encoding)
        said = score.refusal(data)
        if encoding == "utf-16":
            assert said == (
                "expected text in UTF-8, got UTF-16 - at `FILE`. Convert it first:"
                " iconv -f UTF-16 -t UTF-8."
            )
        else:
            wanted = "expected text in UTF-8, got NUL bytes, as of UTF-16 - at `FILE`"
            assert said == wanted
            line = '{"goods_id":"g"}\n'.encode(encoding)
            assert score.refusal(line, "jsonl") == wanted
    assert score.refusal(text.encode("latin-1")) == (
        "expected text in UTF-8, got b'g\\xe9' - at `goods_id`, row 0. Convert the file"
        " to UTF-8 first."
    )
    line = '{"goods_id":"gé","hist_goods_id":["g2"]}\n'
    said = score.refusal(line.encode("latin-1"), "jsonl")
    assert "'utf-8' codec can't decode byte 0xe9 in position 14" in said
    bom = b"\xef\xbb\xbf"
    for whole, suffix in ((text, "csv"), (line, "jsonl"), (line, "json")):
        got = score(bom + whole.encode(), suffix)["score"].to_pylist()
        assert got == score.wanted(["gé"], [["g2"]])
    rows = [{"goods_id": "a", "hist_goods_id": []}]
    for indent in (None, 2):
        said = score.refusal(json.dumps(rows, indent=indent), "json")
        assert said == (
            "expected JSON lines, one object on each line, got a JSON array - at"
            " `FILE`. Write it as lines: jq -c .[], or pandas' to_json("
            "orient='records', lines=True)."
        )
    several = json.dumps(rows[0], indent=2)
    for text in (several, several.replace("{\n", "{"), f"{several}\n{several}"):
        assert score.refusal(text, "json") == (
            "expected JSON lines, one object on each line, got an object on several"
            " lines - at `FILE`. Write it as lines: jq -c ., or pandas' to_json("
            "orient='records', lines=True)."
        )


def test_files_that_are_no_text_are_refused_by_their_names(score: Scorer) -> None:
    text = b"goods_id,hist_goods_id\ng1,g2\n" * 9
    sink = io.BytesIO()
    pq.write_table(pa.table({"goods_id": ["g1"]}), sink)
    files = {
        "gzip data": (gzip.compress(text), "Name it t.{}.gz."),
        "bzip2 data": (bz2.compress(text), "Name it t.{}.bz2."),
        "Zstandard data": (bytes(pa.compress(text, "zstd")), "Name it t.{}.zst."),
        "Parquet data": (sink.getvalue(), "Give --format parquet."),
        "Arrow data": (b"ARROW1\0\0" + text, "Give --format arrow."),
    }
    for got, (data, fix) in files.items():
        for suffix in ("csv", "jsonl"):
            said = score.refusal(data, suffix)
            fix_here = fix.format(suffix)
            assert said == f"expected a text file, got {got} - at `FILE`. {fix_here}"
    twice = gzip.compress(gzip.compress(text))
    said = score.refusal(twice, "csv.gz")
    wanted = "expected a text file, got gzip data - at `FILE`. Decompress it first."
    assert said == wanted
    for suffix in ("csv.GZ", "CSV.Gz"):
        got_all = score(gzip.compress(text[:29]), suffix)["score"].to_pylist()
        assert got_all == score.wanted(["g1"], [["g2"]])
    assert score.refusal(text.decode().encode("utf-32")) == (
        "expected text in UTF-8, got UTF-32 - at `FILE`. Convert it first:"
        " iconv -f UTF-32 -t UTF-8."
    )
    for kind in ("utf-32-le", "utf-32-be"):
        assert score.refusal(text.decode().encode(kind)) == (
            "expected text in UTF-8, got NUL bytes, as of UTF-32 - at `FILE`"
        )


def test_a_key_that_is_there_twice_is_named(score: Scorer) -> None:
    for line in (
        '{"goods_id":"a","goods_id":"b","hist_goods_id":["a"]}\n',
        '{"c":[{"goods_id":"a","goods_id":"b"}],"hist_goods_id":["a"]}\n',
    ):
        said = score.refusal(line, "jsonl")
        assert said == "expected each key once, got it twice - at `goods_id`, row 0"


@pytest.mark.parametrize(
    "kind", [pa.list_view(pa.int64()), pa.large_list_view(pa.int64()), pa.uuid()]
)
def test_kept_columns_that_arrow_casts_wrongly_are_refused(
    kind: pa.DataType, score: Scorer
) -> None:
    values: list[Any] = [[1], [2, 3]]
    if kind == pa.uuid():
        values = [b"\xff" * 16] * 2
    table = pa.table(
        {
            "goods_id": ["a", "b"],
            "hist_goods_id": [["a"], ["b"]],
            "x": pa.array(values, kind),
        }
    )
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    said = score.refusal(sink.getvalue(), "arrow", keep=["x:string"])
    assert said == f"expected a column that can be cast to string, got {kind} - at `x`"


@pytest.mark.parametrize("depth", [3, 900, 100_000])
@pytest.mark.parametrize("key", ["goods_id", "hist_goods_id", "x"])
def test_values_inside_of_each_other_are_an_error(
    depth: int, key: str, score: Scorer
) -> None:
    deep = "[" * depth + "]" * depth
    good = {"goods_id": '"g1"', "hist_goods_id": "[]", "x": "1"}
    lines = [good] * 3 + [good | {key: deep}] + [good] * 3
    text = "".join(
        "{" + ", ".join(f'"{k}": {v}' for k, v in line.items()) + "}\n"
        for line in lines
    )
    for each in (text, text.splitlines()[3] + "\n" + text):
        try:
            got = score(each, "jsonl", keep=["x"], on_error="skip")
        except InputError:
            continue
        assert got.num_rows in (6, 7, 8)
        assert set(got["x"].to_pylist()) <= {"1", deep}


def test_types_of_kept_columns_are_named(score: Scorer) -> None:
    said = score.refusal("goods_id,hist_goods_id\n", keep=["goods_id:int32"])
    assert said == (
        "expected a type, one of string, int64, float64, bool, date, timestamp, got"
        " 'int32' - at `goods_id:int32`"
    )


def test_a_mark_of_byte_order_inside_a_file_is_text(score: Scorer) -> None:
    goods = ["\ufeffg1", "\ufeff"] * 3
    text = "goods_id,hist_goods_id\n" + "".join(f"{g},h\n" for g in goods)
    got = score(text, keep=["goods_id"], batch_size=1)
    assert got["goods_id"].to_pylist() == goods
    assert got["score"].to_pylist() == score.wanted(goods, [["h"]] * 6)


def test_files_without_rows(score: Scorer) -> None:
    assert score("goods_id,hist_goods_id").num_rows == 0
    assert score("", header=False, columns=["goods_id", "hist_goods_id"]).num_rows == 0
    assert score("", "jsonl", keep=["event_id"]).column_names == ["event_id", "score"]
    assert score.refusal("") == (
        "expected a CSV file that can be read to its end, got no line of column names -"
        " at `FILE`"
    )


def test_folders_of_json_are_read(small: Predictor, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for k in range(2):
        line = json.dumps({"goods_id": f"g{k}", "hist_goods_id": ["a"]})
        (folder / f"part-{k}.json").write_text(line + "\n")
    made = score_files(small, folder, tmp_path / "out")
    assert [Path(f).name for f in made.files] == [
        "part-0.json.parquet",
        "part-1.json.parquet",
    ]


def test_columns_that_are_there_twice_are_refused_where_they_are_read(
    score: Scorer,
) -> None:
    got = score("x,x,goods_id,hist_goods_id\n1,2,g1,g2\n")
    assert got["score"].to_pylist() == score.wanted(["g1"], [["g2"]])
    said = score.refusal("goods_id,goods_id,hist_goods_id\n1,2,g1\n")
    assert said == "expected each column once, got goods_id - at `FILE`"
    said = score.refusal(
        '{"goods_id":"a","goods_id":"b","hist_goods_id":[]}\n', "jsonl"
    )
    assert "- at `goods_id`, row 0" in said


# -------------------------------------------------------------------------- wide lines


def test_a_wide_record_in_the_middle(score: Scorer) -> None:
    many = [f"g{k}" for k in range(300_000)]
    rows = [["g1", "a|b"]] * 5 + [["g2", "|".join(many)]] + [["g3", "c"]] * 5
    text = "goods_id,hist_goods_id\n" + "".join(f'{g},"{h}"\n' for g, h in rows)
    got = score(text)["score"].to_pylist()
    wanted = score.wanted(["g1", "g2", "g3"], [["a", "b"], many, ["c"]])
    assert got == [wanted[0]] * 5 + [wanted[1]] + [wanted[2]] * 5
    lines = [{"goods_id": g, "hist_goods_id": h.split("|")} for g, h in rows]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    assert score(text, "jsonl")["score"].to_pylist() == got


# -------------------------------------------------------------- numbers beyond numbers


BEYOND = (
    "1e9999999999999999999",
    "-1e-9999999999999999999",
    "0e99999999999999999999",
)


@pytest.mark.parametrize("number", [*BEYOND, "9" * 5000])
@pytest.mark.parametrize("lines", [0, 1500])
def test_a_number_that_nobody_reads_may_be_any(
    number: str, lines: int, score: Scorer
) -> None:
    line = '{"goods_id": "g1", "hist_goods_id": ["g2"]%s}\n'
    text = line % "" * lines + line % f', "x": {number}'
    got = score(text, "jsonl", keep=["x"] if lines else [])
    assert got["score"].to_pylist() == score.wanted(["g1"], [["g2"]]) * (lines + 1)
    if lines:
        assert got["x"][lines].as_py() == number


@pytest.mark.parametrize("number", [*BEYOND, "9" * 5000])
def test_a_number_beyond_all_is_its_rows_error(
    number: str, full: Predictor, tmp_path: Path
) -> None:
    row = {"goods_id": "g1", "shop": 1, "hist_goods_id": ["g2"], "nums": [1]}
    row |= {"age": 1.0, "price": 1.0, "profile": [1.0, 2.0]}
    score = Scorer(full, tmp_path)
    for name in ("shop", "nums"):
        lines = json.dumps(row | {name: "HERE"})
        value = f"[{number}]" if name == "nums" else number
        text = json.dumps(row) + "\n" + lines.replace('"HERE"', value)
        assert f"`{name}`, row 1" in score.refusal(text, "jsonl")
        assert len(score(text, "jsonl", on_error="skip")) == 1


@pytest.mark.parametrize("number", [*BEYOND[:2], "9" * 5000])
@pytest.mark.parametrize("form", ["{}", "[{}]", "[{}, 1]", "{}|1", "[1 {}]"])
def test_lists_of_numbers_beyond_all_are_their_rows_errors(
    number: str, form: str, full: Predictor, tmp_path: Path
) -> None:
    score = Scorer(full, tmp_path)
    names = "goods_id,shop,age,hist_goods_id,nums,price,profile\n"
    rows = 'g1,1,1.0,g2,"%s",1.0,1|2\n'
    text = names + rows % "1" + rows % form.format(number)
    assert "`nums`, row 1" in score.refusal(text)
    assert len(score(text, on_error="skip")) == 1


@pytest.mark.parametrize("suffix", ["jsonl.gz", "jsonl.zst", "csv.bz2", "jsonl.lz4"])
def test_a_compressed_file_of_0_bytes_is_none(suffix: str, score: Scorer) -> None:
    assert re.fullmatch(
        r"expected a file of \w+, got 0 bytes - at `FILE`", score.refusal(b"", suffix)
    )


@pytest.mark.parametrize("on_error", ["fail", "skip"])
def test_lines_that_are_all_no_json_say_so(on_error: str, score: Scorer) -> None:
    line = str({"goods_id": "g1", "hist_goods_id": ["g2"]}) + "\n"
    assert score.refusal(line * 3, "jsonl", on_error=on_error) == (
        "expected JSON lines, one object on each line, got a first line that is none:"
        " Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"
        " - at `FILE`. Write lines by json.dumps: Python's str of a dict is no JSON."
    )
    refused = score.refusal("1\n2\n", "jsonl", on_error=on_error)
    assert "got a first line that is none: no object" in refused


def test_a_column_without_a_name_is_kept(small: Predictor, tmp_path: Path) -> None:
    columns = {"goods_id": ["a", "b"], "hist_goods_id": [["x"], ["y"]], "": [1, 2]}
    pq.write_table(pa.table(columns), tmp_path / "in.parquet")
    made = score_files(small, tmp_path / "in.parquet", tmp_path / "out", keep=[""])
    assert pq.read_table(made.files[0])[""].to_pylist() == [1, 2]


def test_what_parquet_cannot_hold_fails_its_file_alone(
    small: Predictor, tmp_path: Path
) -> None:
    lists = pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array([["q"], ["r"]]))
    columns = {"goods_id": ["a", "b"], "hist_goods_id": [["x"], ["y"]]}
    for name, kept in (("a", lists), ("b", pa.array([["q"], ["r"]]))):
        table = pa.table({**columns, "x": kept})
        with pa.ipc.new_file(tmp_path / f"{name}.arrow", table.schema) as file:
            file.write_table(table)
    files = [tmp_path / "a.arrow", tmp_path / "b.arrow"]
    with pytest.raises(InputError, match="expected columns that Arrow can handle"):
        score_files(small, files, tmp_path / "out", keep=["x"])
    [made] = (tmp_path / "out").glob("*b*.parquet")
    assert pq.read_table(made)["x"].to_pylist() == [["q"], ["r"]]


@pytest.mark.parametrize("key", ["shop", "nums"])
@pytest.mark.parametrize(
    "number", ["0.99999999999999999999", "1e-400", "9007199254740991.3", "30.0e-1"]
)
def test_a_number_that_a_float_would_round_is_no_integer(
    key: str, number: str, full: Predictor, tmp_path: Path
) -> None:
    """Beside 3.0, Arrow reads integers of JSON as floats."""
    row = {"goods_id": "g1", "shop": 3.0, "hist_goods_id": ["g2"], "nums": [3.0, 1]}
    row |= {"age": 1.0, "price": 0.1234567890123456789, "profile": [1.0, 2.0]}
    value = f"[3.0, {number}]" if key == "nums" else number
    text = json.dumps(row | {key: "HERE"}).replace('"HERE"', value)
    score = Scorer(full, tmp_path)
    lines = (json.dumps(row) + "\n") * 3 + text
    if number == "30.0e-1":  # which is 3
        wanted = full.score([row | {key: [3, 3] if key == "nums" else 3}])
        assert score(lines, "jsonl")["score"][3].as_py() == wanted[0]
        return
    assert f"`{key}`, row 3" in score.refusal(lines, "jsonl")


def test_no_candidate_s_integer_is_rounded(full: Predictor, tmp_path: Path) -> None:
    score = Scorer(full, tmp_path)
    user = '{"hist_goods_id":["g2"],"nums":[1],"age":1.0,"profile":[1.0,2.0],'
    item = '"candidates":[{"goods_id":"g1","shop":%s,"price":0.5}]}\n'
    lines = user + item % "3.0" + user + item % "0.99999999999999999999"
    assert "`candidates`, row 1" in score.refusal(lines, "jsonl")
    assert len(score(user + item % "3.0", "jsonl")) == 1
