"""Errors carry data: no value and no column name changes what they say."""

import ast
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from din_converter import convert
from din_infer import DinError, InputError, ModelError, Predictor, encode
from din_infer.cli import explain_main, main
from din_infer.encode import Stats
from din_infer.errors import DeviceError, renumbered, report, sentence
from din_infer.jobs.batches import BatchScorer
from din_infer.jobs.forms import OnError
from din_infer.jobs.workers import score_batch
from din_infer.spec import FeatureSpec
from tests import hostile
from tests.containers import CONTAINERS
from tests.models import random_model

SOURCES = [*Path("din_infer").rglob("*.py"), *Path("converter").rglob("*.py")]
VOCAB = {"type": "vocab", "values": ["i", "j"], "unseen": "error"}


def spec(column: str = "item", **behavior: Any) -> dict[str, Any]:  # noqa: ANN401
    return {
        "format": 1,
        "candidate": [{"name": "item", "column": column, "dim": 2, "encoder": VOCAB}],
        "behavior": [
            {"name": "h", "max_len": 5, "fields": {"hist": "item"}, **behavior}
        ],
    }


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "m.onnx"
    convert(random_model(spec()), path, explain=True)
    return path


def rows(*items: object) -> pa.Table:
    return pa.table({"item": list(items), "hist": [["i", "j"]] * len(items)})


def batch_of(table: pa.Table) -> pa.RecordBatch:
    return table.combine_chunks().to_batches()[0]


def run(model: Path, table: pa.Table, out: Path, *options: str) -> tuple[int, Any]:
    source = out.with_name("in.parquet")
    pq.write_table(table, source)
    words = [str(model), str(source), "--out", str(out), "--device", "cpu", *options]
    code = main([*words, "--quiet"])
    written = out / "in.parquet"
    return code, pq.read_table(written) if written.is_file() else None


# --------------------------------------------------------------------------- the fields


def test_an_error_says_its_fields() -> None:
    error = InputError("an id in [0, 9)", 9, "cate_id", "Mend it.", row=np.int64(17))
    assert vars(error) == {
        "rule": "an id in [0, 9)",
        "got": "9",
        "column": "cate_id",
        "fix": "Mend it.",
        "row": 17,
        "candidate": None,
        "source": "",
        "within": "",
    }
    assert str(error) == (
        "expected an id in [0, 9), got 9 - at `cate_id`, row 17. Mend it."
    )
    moved = error.at(row=99, source="a.parquet", candidate=2)
    assert str(moved) == (
        "expected an id in [0, 9), got 9 - at `cate_id`, row 99 of a.parquet,"
        " candidate 2. Mend it."
    )
    assert (error.row, error.source) == (17, "")
    assert str(InputError("no sentence at all")) == "no sentence at all"
    assert str(InputError("a", "b", "c", within="offset 3")) == (
        "expected a, got b - at `c`, offset 3"
    )
    assert sentence("a", "b", "c", "d") == "expected a, got b - at `c`. d"


@pytest.mark.parametrize("kind", [InputError, ModelError, DeviceError, DinError])
@pytest.mark.parametrize("text", [*hostile.VALUES, *hostile.COLUMNS])
def test_errors_survive_pickling_and_moving(kind: type[DinError], text: str) -> None:
    error = kind(text, text, text, text, row=3, candidate=4, source=text)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), vars(again), str(again)) == (kind, vars(error), str(error))
    error.add_note("seen in a test")
    moved = error.at(row=5)
    assert type(moved) is kind
    assert moved.__notes__ == ["seen in a test"]
    assert vars(moved) == {**vars(error), "row": 5}


def test_a_list_collects_errors_and_none_raises_the_first() -> None:
    def move(error: InputError) -> InputError:
        return error.at(row=(error.row or 0) + 10)

    def find(errors: list[InputError] | None) -> None:
        for row in (1, 4):
            report(InputError("a", "b", "c", row=row), errors)

    found: list[InputError] = []
    with renumbered(found, move) as some:
        find(some)
    assert [error.row for error in found] == [11, 14]
    with pytest.raises(InputError) as error, renumbered(None, move) as some:
        find(some)
    assert error.value.row == 11


def _imports_re(tree: ast.AST) -> bool:
    names = [
        a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names
    ]
    return "re" in names


READING = ("find", "replace", "partition", "split", "startswith", "removeprefix")
# What these read: messages of torch, YAML, ONNX Runtime, CUDA; names of files, fields;
# data as text.
READERS = {
    "checkpoint.py",
    "data_files.py",
    "device.py",
    "events.py",
    "exporting.py",
    "fuxictr_config.py",
    "guess.py",
    "ledger.py",
    "list_texts.py",
    "local_path.py",
    "module_parity.py",
    "modules.py",
    "places.py",
    "prune.py",
    "pt2.py",
    "pt2_program.py",
    "reader_text.py",
    "reading.py",
    "row_copies.py",
    "session.py",
    "text_records.py",
    "text_values.py",
    "times.py",
    "version.py",
    "whole_file.py",
    "write.py",
}


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_no_code_reads_a_sentence(path: Path) -> None:
    """An error is raised, shown and kept; no code looks for words in it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    uses_re = _imports_re(tree)
    for node in ast.walk(tree):
        parts: list[ast.expr] = []
        if isinstance(node, ast.Compare):
            parts = node.comparators
        elif isinstance(node, ast.Attribute) and node.attr in READING:
            parts = [node.value]
        names = {ast.unparse(part) for part in parts}
        uses_re |= bool(names & {"str(error)", "str(e)", "str(error.value)"})
    assert not uses_re or path.name in READERS


# ------------------------------------------------------------------ values like grammar


@pytest.mark.parametrize("value", hostile.VALUES)
def test_a_job_on_requests_skips_a_value_like_our_grammar(
    model: Path, tmp_path: Path, value: str
) -> None:
    items = [["i", "j"], ["i", value], ["j"]]
    table = pa.table({"item": items, "hist": [["i"], [], ["j"]]})
    code, made = run(model, table, tmp_path / "o", "--on-error", "skip")
    assert code == 0
    assert [len(scores) for scores in made["score"].to_pylist()] == [2, 1]
    (line,) = (tmp_path / "o/_din_score/bad").iterdir()
    assert json.loads(line.read_text()) == {
        "row": 1,
        "error": (
            f"expected a value of the vocabulary, got {value!r} - at `item`, row 1 of"
            f" {tmp_path / 'in.parquet'}, candidate 1"
        ),
    }


@pytest.mark.parametrize("value", hostile.VALUES)
def test_a_bad_row_is_explained_by_its_own_number(
    model: Path, tmp_path: Path, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(rows("i", "j", value), path)
    assert explain_main([str(model), str(path), "--row", "2"]) == 1
    said = capsys.readouterr().err
    assert f"got {value!r} - at `item`, row 2 of {path}" in said


@pytest.mark.parametrize("value", hostile.VALUES)
@pytest.mark.parametrize("on_error", ["fail", "skip", "null"])
def test_workers_name_the_row_and_its_kept_values(
    model: Path, value: str, on_error: OnError, caplog: pytest.LogCaptureFixture
) -> None:
    batch = batch_of(rows("i", "j", value, "i"))
    scorer = BatchScorer(
        Predictor(model), batch.schema, keep=["item"], on_error=on_error
    )
    shown = f"{value!r:.60}"
    wanted = (
        f"expected a value of the vocabulary, got {value!r} - at `item`, row 2 of a"
        f" batch (item={shown})"
    )
    if on_error == "fail":
        with pytest.raises(InputError) as error:
            score_batch(scorer, batch, ["item"])
        assert str(error.value) == wanted
        assert (error.value.column, error.value.row) == ("item", 2)
        return
    made = score_batch(scorer, batch, ["item"])
    kept = ["i", "j", "i"] if on_error == "skip" else ["i", "j", value, "i"]
    assert made["item"].to_pylist() == kept
    assert made["score"].null_count == (on_error == "null")
    assert caplog.records[-1].getMessage() == f"1 of 4 rows are bad; row 2: {wanted}"


def test_the_side_file_shows_the_value_that_was_there(
    model: Path, tmp_path: Path
) -> None:
    value = "- at `item`, row 99"
    table = rows(*["i"] * 9000, value, "j")
    code, made = run(model, table, tmp_path / "o", "--on-error", "skip")
    assert (code, made.num_rows) == (0, 9001)
    (line,) = (tmp_path / "o/_din_score/bad").iterdir()
    found = json.loads(line.read_text())
    assert found["row"] == 9000
    assert found["error"] == (
        f"expected a value of the vocabulary, got {value!r} - at `item`, row 9000 of"
        f" {tmp_path / 'in.parquet'}"
    )


# ------------------------------------------------------------------ rows left out


@pytest.mark.parametrize("column", hostile.COLUMNS)
@pytest.mark.parametrize("on_error", ["skip", "null"])
def test_no_column_name_turns_a_bad_row_into_a_failed_batch(
    tmp_path: Path, column: str, on_error: OnError
) -> None:
    convert(random_model(spec(column)), tmp_path / "m.onnx")
    predictor = Predictor(tmp_path / "m.onnx", device="cpu")
    table = rows("i", "?", "j").rename_columns([column, "hist"])
    batch = batch_of(table)
    scorer = BatchScorer(predictor, batch.schema, on_error=on_error)
    scored = scorer.score(batch)
    assert [e.row for e in scored.errors] == [1]
    assert scored.errors[0].column == column
    assert scored.bad == [
        (1, f"expected a value of the vocabulary, got '?' - at `{column}`, row 1")
    ]
    want = Predictor(tmp_path / "m.onnx").score(table.take([0, 2])).tolist()
    wanted = want if on_error == "skip" else [want[0], None, want[1]]
    assert scored.batch["score"].to_pylist() == wanted


@pytest.mark.parametrize("column", hostile.COLUMNS)
def test_no_column_name_of_candidates_misleads_a_job_on_requests(
    tmp_path: Path, column: str
) -> None:
    convert(random_model(spec(column)), tmp_path / "m.onnx")
    predictor = Predictor(tmp_path / "m.onnx", device="cpu")
    table = pa.table({column: [["i"], ["j", "?", "!"], [], ["j"]], "hist": [["i"]] * 4})
    batch = batch_of(table)
    scored = BatchScorer(predictor, batch.schema, on_error="null").score(batch)
    assert [(e.row, e.candidate, e.got) for e in scored.errors] == [(1, 1, "'?'")]
    assert [s and len(s) for s in scored.batch["score"].to_pylist()] == [1, None, [], 1]


@pytest.mark.parametrize("on_error", ["skip", "null"])
def test_a_history_that_only_softmax_refuses_is_a_bad_row(
    tmp_path: Path, on_error: OnError
) -> None:
    attended = spec(
        pad_value="",
        length_column="n",
        empty_softmax="padding_row",
        attention={"softmax": True},
    )
    attended["candidate"][0]["encoder"] = {"type": "hash", "buckets": 9}
    convert(random_model(attended), tmp_path / "m.onnx")
    predictor = Predictor(tmp_path / "m.onnx", device="cpu")
    table = pa.table(
        {
            "item": ["i"] * 5,
            "hist": [["i", ""], ["i", "i"], ["", ""], ["k"], ["j"]],
            "n": [1, 0, 0, 0, 1],
        }
    )
    batch = batch_of(table)
    scored = BatchScorer(predictor, batch.schema, on_error=on_error).score(batch)
    assert scored.bad == [
        (
            row,
            "expected only '' in a history of length 0, got another element - at"
            f" `hist`, row {row}",
        )
        for row in (1, 3)
    ]
    want = predictor.score(table.take([0, 2, 4])).tolist()
    wanted = want if on_error == "skip" else [*want[:1], None, want[1], None, want[2]]
    assert scored.batch["score"].to_pylist() == wanted


@pytest.mark.parametrize("name", hostile.COLUMNS)
@pytest.mark.parametrize("container", CONTAINERS, ids=lambda c: c.__name__)
def test_columns_of_any_name_are_found_in_every_container(
    container: Callable[..., Any], name: str
) -> None:
    wanted = FeatureSpec.from_dict(spec(name))
    rows: list[dict[str, Any]] = [
        {name: item, "hist": hist} for item, hist in [("i", ["j"]), ("j", [])]
    ]
    kinds = {name: "string", "hist": "string[]"}
    assert wanted.encode(container(rows, kinds))["item"].tolist() == [1, 2]
    rows[1][name] = "- at `item`, row 0"
    with pytest.raises(InputError) as error:
        wanted.encode(container(rows, kinds))
    assert (error.value.column, error.value.row) == (name, 1)
    assert error.value.got == "'- at `item`, row 0'"


def test_a_run_with_a_bad_user_names_its_first_row_and_leaves_out_all(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of one user are encoded once; each of them is bad where the user is."""
    monkeypatch.setattr(encode, "FEWEST_ROWS_TO_MERGE", 0)
    predictor = Predictor(model, device="cpu")
    hists = [["i"]] * 40 + [["?"]] * 30 + [["j"]] * 30
    batch = batch_of(pa.table({"item": ["i"] * 100, "hist": hists}))
    moving = mock.patch.object(
        InputError, "at", autospec=True, side_effect=InputError.at
    )
    with moving as at, pytest.raises(InputError) as error:
        predictor.score(batch)
    assert (error.value.column, error.value.row) == ("hist", 40)
    assert at.call_count == 1  # not once per row of the run
    scored = BatchScorer(predictor, batch.schema, on_error="skip").score(batch)
    assert [error.row for error in scored.errors] == list(range(40, 70))
    want = predictor.score(batch.take([*range(40), *range(70, 100)]))
    assert scored.batch["score"].to_pylist() == want.tolist()


def test_rows_that_are_all_bad_count_nothing(model: Path) -> None:
    predictor = Predictor(model, device="cpu")
    before = predictor.stats
    batch = batch_of(rows("?", "!"))
    stats = Stats()
    scored = BatchScorer(predictor, batch.schema, on_error="skip").score(batch, stats)
    assert (scored.batch.num_rows, len(scored.errors)) == (0, 2)
    assert (stats, predictor.stats) == (Stats(), before)
