"""Scoring jobs: every format and form, bad rows, resumption, kills, shared folders.

Above 400 lines: one job, everything that may happen to it.
"""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from din_infer import InputError, Predictor
from din_infer.cli import main
from din_infer.jobs import output, reader, readers
from din_infer.jobs.batches import BatchScorer
from din_infer.jobs.files import JobError, score_files
from din_infer.jobs.ledger import Ledger
from din_infer.jobs.sources import find_sources
from tests.jobs import (
    CANDIDATE,
    as_structs,
    make_model,
    make_requests,
    make_table,
    score_each,
    scores_of,
    write_as,
)

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("DIN_KILLS", "6"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("job"))


@pytest.fixture(scope="module")
def predictor(model: Path) -> Predictor:
    return Predictor(model, device="cpu", threads=1)


def visible(out: Path) -> list[str]:
    """List what lies under --out but the folder that says what was done."""
    if not out.exists():
        return []
    found = (p.relative_to(out) for p in out.rglob("*") if p.is_file())
    return sorted(str(p) for p in found if p.parts[0] != "_din_score")


def contents(out: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(out)): p.read_bytes()
        for p in sorted(out.rglob("*"))
        if p.is_file()
    }


def make_shards(folder: Path, count: int, rows: int = 60) -> pa.Table:
    table = make_table(count * rows, seed=7)
    for k in range(count):
        write_as(table.slice(k * rows, rows), folder / f"s{k:02}.parquet")
    return table


# ---------------------------------------------------------------------------- formats


@pytest.mark.parametrize(
    "suffix",
    ["parquet", "arrow", "arrows", "csv", "tsv", "jsonl", "csv.gz", "jsonl.zst"],
)
def test_every_format_has_the_scores_of_the_table(
    suffix: str, predictor: Predictor, tmp_path: Path
) -> None:
    table = make_table(230)
    options: dict[str, Any] = {"batch_size": 37}
    if is_csv := "csv" in suffix or "tsv" in suffix:
        # some lists are one empty string
        options["quoted_empty"] = "element"
        # nothing in CSV says that an element of a list is null
        table = table.drop(["interests"]).append_column(
            "interests", pa.array([["a", "b"]] * 230)
        )
    path = write_as(table, tmp_path / "in" / f"t.{suffix}")
    keep = ["row:int64", "hist_goods_id", "price:float64"]
    out = tmp_path / "out"
    summary = score_files(predictor, path, out, keep=keep, **options)
    name = "t.parquet" if suffix == "parquet" else f"t.{suffix}.parquet"
    assert summary.files == [str(out / name)]
    got = pq.read_table(out / name)
    assert got.column_names == ["row", "hist_goods_id", "price", "score"]
    assert got["row"].to_pylist() == list(range(230))
    assert got["price"].to_pylist() == table["price"].to_pylist()
    lists: list[Any] = table["hist_goods_id"].to_pylist()
    if is_csv:  # text as it is written
        lists = ["|".join(x) if x else None for x in lists]
    assert got["hist_goods_id"].to_pylist() == lists
    wanted = predictor.score(table)
    np.testing.assert_array_equal(np.asarray(got["score"]), wanted)
    assert wanted.std() > 0.01
    assert summary.rows == 230
    assert summary.fields["goods_id"]["rows"] == 230


@pytest.mark.parametrize("shape", ["lists", "structs"])
@pytest.mark.parametrize("suffix", ["parquet", "arrows", "jsonl"])
def test_requests_come_back_as_lists_or_exploded(
    shape: str, suffix: str, predictor: Predictor, tmp_path: Path
) -> None:
    requests = make_requests(50)
    wanted = score_each(predictor, requests)
    assert any(not s for s in wanted)
    table = requests if shape == "lists" else as_structs(requests)
    path = write_as(table, tmp_path / "in" / f"t.{suffix}")
    options: dict[str, Any] = {"keep": ["row:int64", "goods_id"], "batch_size": 9}
    summary = score_files(predictor, path, tmp_path / "lists", **options)
    got = pq.read_table(summary.files[0])
    assert got.schema.field("score").type == pa.list_(
        pa.field("element", pa.float32(), nullable=False)
    )
    assert got["row"].to_pylist() == list(range(50))
    assert got["goods_id"].to_pylist() == requests["goods_id"].to_pylist()
    for ours, theirs in zip(got["score"].to_pylist(), wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    summary = score_files(predictor, path, tmp_path / "rows", explode=True, **options)
    got = pq.read_table(summary.files[0])
    lengths = [len(s) for s in wanted]
    assert got["row"].to_pylist() == np.repeat(np.arange(50), lengths).tolist()
    flat = [g for goods in requests["goods_id"].to_pylist() for g in goods]
    assert got["goods_id"].to_pylist() == flat
    np.testing.assert_allclose(got["score"], np.concatenate(wanted), atol=1e-6)


def test_null_lists_of_candidates_have_no_scores(predictor: Predictor) -> None:
    requests = make_requests(4, seed=3)
    rows = requests.to_pylist()
    for name in CANDIDATE:
        rows[1][name] = None
    table = pa.Table.from_pylist(rows, schema=requests.schema)
    scorer = BatchScorer(predictor, table.schema)
    [batch] = table.combine_chunks().to_batches()
    got = scorer.score(batch).batch["score"].to_pylist()
    assert got[1] == []
    wanted = score_each(predictor, table)
    np.testing.assert_allclose(sum(got, []), sum(wanted, []), atol=1e-6)  # noqa: RUF017


def test_many_candidates_are_scored_in_parts(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = make_requests(60, seed=5)
    scorer = BatchScorer(predictor, requests.schema)
    [batch] = requests.combine_chunks().to_batches()
    whole = scorer.score(batch).batch
    monkeypatch.setattr("din_infer.jobs.batches.MOST_CANDIDATES", 11)
    parts = scorer.score(batch).batch
    np.testing.assert_allclose(
        np.asarray(parts["score"].flatten()),
        np.asarray(whole["score"].flatten()),
        atol=1e-6,
    )
    assert parts["score"].offsets == whole["score"].offsets


def test_a_few_requests_of_many_candidates_are_shared_by_workers(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = make_requests(40, seed=6)
    path = write_as(requests, tmp_path / "t.parquet")
    sizes: list[int] = []
    real = BatchScorer.score

    def score(self: BatchScorer, batch: pa.RecordBatch, stats: Any = None) -> Any:  # noqa: ANN401
        sizes.append(batch.num_rows)
        return real(self, batch, stats)

    monkeypatch.setattr(BatchScorer, "score", score)
    monkeypatch.setattr("din_infer.jobs.shards.CANDIDATES", 20)
    made = score_files(predictor, path, tmp_path / "out")
    assert len(sizes) > 5
    assert sum(sizes) == 40
    wanted = np.concatenate(score_each(predictor, requests))
    got = pq.read_table(made.files[0])["score"].combine_chunks().flatten()
    np.testing.assert_allclose(np.asarray(got), wanted, atol=1e-6)


def in_other_types(table: pa.Table) -> pa.Table:
    """The same values in types that other writers like better."""
    kinds = {
        "user_id": pa.dictionary(pa.int32(), pa.string()),
        "goods_id": pa.large_string(),
        "cate_id": pa.int16(),
        "hist_goods_id": pa.large_list(pa.large_string()),
        "hist_cate_id": pa.list_(pa.int8()),
        "action": pa.list_(pa.dictionary(pa.int16(), pa.string())),
        "profile": pa.list_(pa.float64(), 3),
        "price": pa.float32(),
    }
    for name, kind in kinds.items():
        column = table[name].combine_chunks()
        if name == "action":
            lists = column.flatten().dictionary_encode()
            other = pa.ListArray.from_arrays(column.offsets, lists)
        else:
            other = column.cast(kind)
        table = table.set_column(table.column_names.index(name), name, other)
    return table


def test_columns_of_other_types_have_the_same_scores_and_are_kept(
    predictor: Predictor, tmp_path: Path
) -> None:
    table = make_table(120)
    table = table.set_column(0, "row", table["row"].cast(pa.decimal128(25, 2)))
    nested = pa.array([{"a": [k, None], "b": None} for k in range(120)])
    odd = in_other_types(table).append_column("nested", nested)
    keep = ["row", "nested", "user_id", "action", "profile"]
    options: dict[str, Any] = {"keep": keep, "batch_size": 50}
    for suffix in ("parquet", "arrow"):
        path = write_as(odd, tmp_path / f"t.{suffix}")
        made = score_files(predictor, path, tmp_path / suffix, **options)
        got = pq.read_table(made.files[0])
        for name in keep:
            assert got[name].to_pylist() == odd[name].to_pylist(), name
        wanted = predictor.score(odd)
        np.testing.assert_array_equal(np.asarray(got["score"]), wanted)
        np.testing.assert_allclose(wanted, predictor.score(table), atol=1e-3)


def test_kept_views_are_repeated_for_each_candidate(predictor: Predictor) -> None:
    requests = make_requests(20)
    [plain] = requests.combine_chunks().to_batches()
    views, columns = [], []
    for column in requests.schema:
        kind = column.type
        if kind == pa.string():
            kind = pa.string_view()
        elif kind == pa.list_(pa.string()):
            kind = pa.list_(pa.string_view())
        views.append(column.with_type(kind))
        columns.append(pa.array(plain[column.name].to_pylist(), kind))
    batch = pa.RecordBatch.from_arrays(columns, schema=pa.schema(views))
    keep = ["row", "user_id", "hist_goods_id", "goods_id"]
    got, wanted = (
        BatchScorer(predictor, b.schema, keep=keep, explode=True).score(b).batch
        for b in (batch, plain)
    )
    assert got.to_pylist() == wanted.to_pylist()
    assert got.schema.field("user_id").type == pa.string_view()
    none = BatchScorer(predictor, batch.schema, keep=keep, explode=True)
    assert none.score(batch.slice(0, 0)).batch.num_rows == 0


def test_kept_columns_that_parquet_cannot_hold_fail_their_file(
    predictor: Predictor, tmp_path: Path
) -> None:
    table = make_table(20)
    write_as(table, tmp_path / "in" / "a.arrow")
    odd = pa.array([pa.MonthDayNano([1, 2, 3])] * 20)
    other = table.set_column(0, "row", odd)
    path = write_as(other, tmp_path / "in" / "b.arrow")
    with pytest.raises(JobError) as caught:
        score_files(predictor, tmp_path / "in", tmp_path / "out", keep=["row"])
    rule = "expected columns that Arrow can handle and Parquet can hold, got "
    assert str(caught.value).startswith(rule)
    assert str(caught.value).endswith(f" - at `{path}`")
    assert visible(tmp_path / "out") == ["a.arrow.parquet"]


def test_files_without_rows_have_outputs_without_rows(
    predictor: Predictor, tmp_path: Path
) -> None:
    for make in (make_table, make_requests):
        empty = make(5).slice(0, 0)
        for suffix in ("parquet", "arrow", "arrows"):
            path = write_as(empty, tmp_path / make.__name__ / f"t.{suffix}")
            out = tmp_path / f"{make.__name__}-{suffix}"
            made = score_files(predictor, path, out, keep=["row"])
            got = pq.read_table(made.files[0])
            assert (got.num_rows, got.column_names) == (0, ["row", "score"])
    path = tmp_path / "t.csv"
    path.write_text(",".join(make_table(1).column_names))
    made = score_files(predictor, path, tmp_path / "csv", keep=["row"])
    assert pq.read_table(made.files[0]).num_rows == 0
    (tmp_path / "t.jsonl").write_text("\n")
    made = score_files(predictor, tmp_path / "t.jsonl", tmp_path / "jsonl")
    assert pq.read_table(made.files[0]).num_rows == 0


def test_csv_with_a_byte_order_mark_and_quotes_is_read(
    predictor: Predictor, tmp_path: Path
) -> None:
    table = make_table(20).drop(["interests"])
    table = table.append_column("interests", pa.array([["a,b", 'c"d']] * 20))
    path = write_as(table, tmp_path / "t.csv")
    text = path.read_text().replace('c"d', 'c""d')
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    made = score_files(
        predictor,
        path,
        tmp_path / "out",
        keep=["row", "interests"],
        quoted_empty="element",
        separator="|",
    )
    got = pq.read_table(made.files[0])
    assert got["row"].to_pylist() == [str(k) for k in range(20)]
    assert got["interests"].to_pylist() == ['a,b|c"d'] * 20
    np.testing.assert_array_equal(np.asarray(got["score"]), predictor.score(table))


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["arrow", "arrows", "csv.gz", "jsonl.zst"])
def test_files_that_are_cut_short_have_no_output(
    suffix: str, predictor: Predictor, tmp_path: Path
) -> None:
    table = make_table(3000).drop(["interests"])
    table = table.append_column("interests", pa.array([["a"]] * 3000))
    path = write_as(table, tmp_path / f"t.{suffix}")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(InputError, match="can be read to its end"):
        score_files(predictor, path, tmp_path / "out")
    assert visible(tmp_path / "out") == []


def test_lines_that_are_no_objects_are_bad_rows(
    predictor: Predictor, tmp_path: Path
) -> None:
    path = write_as(make_table(30), tmp_path / "t.jsonl")
    good = path.read_text()
    path.write_text("null\n" + good + '[1]\n"x"\n')
    out = tmp_path / "out"
    made = score_files(predictor, path, out, on_error="skip", keep=["row:int64"])
    assert made.bad_rows == 3
    assert pq.read_table(made.files[0])["row"].to_pylist() == list(range(30))


@pytest.mark.parametrize("suffix", ["arrow", "arrows", "parquet"])
def test_damaged_files_are_scored_or_refused_but_end_no_process(
    suffix: str, predictor: Predictor, tmp_path: Path
) -> None:
    path = write_as(make_table(60), tmp_path / f"t.{suffix}")
    content = path.read_bytes()
    rng = random.Random(3)
    refused = 0
    for k in range(60):
        damaged = bytearray(content)
        for _ in range(rng.randint(1, 8)):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            score_files(predictor, path, tmp_path / f"out{k}", keep=["row", "action"])
        except InputError:
            refused += 1
    assert refused > 5


def test_a_csv_of_carriage_returns_alone_is_refused(
    predictor: Predictor, tmp_path: Path
) -> None:
    path = write_as(make_table(5), tmp_path / "t.csv")
    path.write_bytes(path.read_bytes().replace(b"\r\n", b"\r"))
    with pytest.raises(InputError, match="line ends that are no line feeds"):
        score_files(predictor, path, tmp_path / "out")


def test_names_that_begin_alike_do_not_take_each_others_files(
    predictor: Predictor, tmp_path: Path
) -> None:
    for name in ("day.parquet", "day"):
        write_as(make_table(20), tmp_path / "x.parquet").rename(tmp_path / name)
    inputs = [tmp_path / "day.parquet", tmp_path / "day"]
    made = score_files(predictor, inputs, tmp_path / "out", format="parquet")
    assert len(made.files) == 2


def test_outputs_inside_the_folder_of_inputs_are_refused(
    predictor: Predictor, tmp_path: Path
) -> None:
    make_shards(tmp_path / "in", 2)
    with pytest.raises(InputError, match="an --out folder outside of the inputs'"):
        score_files(predictor, tmp_path / "in", tmp_path / "in" / "scores")
    score_files(predictor, tmp_path / "in", tmp_path / "in" / "_scores")
    again = score_files(predictor, tmp_path / "in", tmp_path / "out")
    assert len(again.files) == 2


def test_a_mix_of_lists_and_single_candidates_is_refused(
    predictor: Predictor,
) -> None:
    requests = make_requests(3)
    mixed = requests.drop(["price"]).append_column("price", pa.array([1.0, 2.0, 3.0]))
    with pytest.raises(InputError) as caught:
        BatchScorer(predictor, mixed.schema)
    assert str(caught.value) == (
        "expected lists of candidates in all candidate columns, or in none, got lists"
        " in goods_id, cate_id, tags, none in price - at `schema`"
    )
    with pytest.raises(InputError) as caught:
        BatchScorer(predictor, make_table(2).schema, explode=True)
    assert str(caught.value) == (
        "expected lists of candidates to explode, got one candidate on each row - at"
        " `schema`"
    )


def test_a_price_may_be_a_list_of_one(predictor: Predictor) -> None:
    table = make_table(9)
    lists = pa.array([[p] for p in table["price"].to_pylist()])
    listed = table.drop(["price"]).append_column("price", lists)
    scorer = BatchScorer(predictor, listed.schema)
    [batch] = listed.combine_chunks().to_batches()
    got = scorer.score(batch).batch["score"]
    np.testing.assert_array_equal(np.asarray(got), predictor.score(table))


def test_requests_whose_lists_differ_in_length_are_named(predictor: Predictor) -> None:
    requests = make_requests(5, seed=2)
    rows = requests.to_pylist()
    rows[3]["price"] = [*(rows[3]["price"]), 1.0]
    table = pa.Table.from_pylist(rows, schema=requests.schema)
    scorer = BatchScorer(predictor, table.schema)
    [batch] = table.combine_chunks().to_batches()
    count = len(rows[3]["goods_id"])
    with pytest.raises(InputError) as caught:
        scorer.score(batch)
    assert str(caught.value) == (
        f"expected {count} candidates, as `goods_id` has, got {count + 1} - at"
        " `price`, row 3"
    )


def test_a_bad_candidate_is_named_with_its_request(predictor: Predictor) -> None:
    requests = make_requests(8, seed=2)
    rows = requests.to_pylist()
    row = next(k for k, r in enumerate(rows) if k > 2 and len(r["cate_id"]) > 2)
    rows[row]["cate_id"][2] = 77
    table = pa.Table.from_pylist(rows, schema=requests.schema)
    scorer = BatchScorer(predictor, table.schema)
    [batch] = table.combine_chunks().to_batches()
    with pytest.raises(InputError) as caught:
        scorer.score(batch)
    assert str(caught.value) == (
        f"expected an id in [0, 50), got 77 - at `cate_id`, row {row}, candidate 2"
    )


def test_inputs_of_equal_names_keep_their_paths(
    predictor: Predictor, tmp_path: Path
) -> None:
    table = make_table(20)
    for day in ("d1", "d2"):
        write_as(table, tmp_path / "in" / day / "part.parquet")
    write_as(table, tmp_path / "in" / "_hidden" / "x.parquet")
    write_as(table, tmp_path / "in" / ".x.parquet")
    for given in ([tmp_path / "in"], sorted((tmp_path / "in").glob("d*"))):
        out = tmp_path / f"out{len(given)}"
        score_files(predictor, given, out)
        assert visible(out) == ["d1/part.parquet", "d2/part.parquet"]
    found = find_sources([str(tmp_path / "in" / "*" / "part.parquet")])
    assert [str(s.target) for s in found] == ["d1/part.parquet", "d2/part.parquet"]
    with pytest.raises(InputError, match="expected files of this pattern, got none"):
        find_sources([str(tmp_path / "*.nothing")])


def test_files_of_engines_need_no_suffix(predictor: Predictor, tmp_path: Path) -> None:
    path = write_as(make_table(20), tmp_path / "in" / "x.parquet")
    path.rename(tmp_path / "in" / "part-0")
    summary = score_files(predictor, tmp_path / "in" / "part-0", tmp_path / "out")
    assert visible(tmp_path / "out") == ["part-0"]
    assert summary.rows == 20


def test_stdin_is_scored(model: Path, tmp_path: Path) -> None:
    table = make_table(90)
    for suffix, kind in (("jsonl", "jsonl"), ("arrows", "arrow")):
        path = write_as(table, tmp_path / f"t.{suffix}")
        code = "import sys; from din_infer.cli import main; sys.exit(main())"
        words = [sys.executable, "-c", code, model, "-", "--format", kind]
        out = tmp_path / f"out-{suffix}"
        with path.open("rb") as file:
            words = [*words, "--out", out, "--batch-size", "7"]
            subprocess.run(words, stdin=file, check=True, capture_output=True)
        got = scores_of(out / "stdin.parquet")
        wanted = Predictor(model, device="cpu", threads=1).score(table)
        np.testing.assert_array_equal(got, wanted)
    with pytest.raises(InputError, match="--format arrow, csv, tsv or jsonl for stdin"):
        find_sources(["-"])


def test_bytes_behind_an_arrow_stream_are_refused(
    predictor: Predictor, model: Path, tmp_path: Path
) -> None:
    table = make_table(20)
    content = write_as(table, tmp_path / "t.arrows").read_bytes()
    empty = write_as(table.slice(0, 0), tmp_path / "e.arrows").read_bytes()
    path = tmp_path / "both.arrows"
    told = (
        "expected one Arrow IPC stream, got bytes behind its end - at `{}`. Give each"
        " stream as a file of its own."
    )
    for both in (content + content, empty + content, content + b"\0"):
        path.write_bytes(both)
        with pytest.raises(JobError) as caught:
            score_files(predictor, path, tmp_path / "out", overwrite=True)
        assert str(caught.value) == told.format(path)
        assert visible(tmp_path / "out") == []
    code = "import sys; from din_infer.cli import main; sys.exit(main())"
    words = [sys.executable, "-c", code, model, "-", "--format", "arrow", "--quiet"]
    words += ["--out", tmp_path / "piped"]
    made = subprocess.run(words, input=content * 2, check=False, capture_output=True)
    assert made.returncode == 1
    assert told.format("stdin") in made.stderr.decode()
    end = b"\xff\xff\xff\xff\0\0\0\0"
    assert content.endswith(end)
    path.write_bytes(content.removesuffix(end))  # a writer that was not closed
    score_files(predictor, path, tmp_path / "out", overwrite=True)
    assert len(scores_of(tmp_path / "out" / "both.arrows.parquet")) == 20


@pytest.mark.parametrize("group", [7, 100_000])
def test_batches_do_not_depend_on_row_groups_beyond_their_size(
    group: int, predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_table(300)
    path = tmp_path / "t.parquet"
    pq.write_table(table, path, row_group_size=group)
    [source] = find_sources([path])
    opened = readers.open_reader(source, predictor.spec)
    sizes = [b.num_rows for b in opened.batches(["goods_id", "action"], 64)]
    assert sizes == [64, 64, 64, 64, 44]
    monkeypatch.setattr(reader, "BATCH_BYTES", 4000)
    opened = readers.open_reader(source, predictor.spec)
    batches = list(opened.batches(table.column_names, 64))
    assert max(b.nbytes for b in batches) < 8000
    assert pa.Table.from_batches(batches).equals(table)


def test_a_row_group_larger_than_memory_is_read_by_the_page(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    keys = pa.array(rng.integers(0, 1 << 62, 5_000_000)).cast(pa.string())
    offsets = pa.array(np.arange(0, 5_000_001, 25), pa.int32())
    table = pa.table({"hist": pa.ListArray.from_arrays(offsets, keys)})
    path = tmp_path / "t.parquet"
    pq.write_table(table, path, row_group_size=1 << 30)
    assert path.stat().st_size > 60e6
    code = (
        "import sys, pyarrow as pa; from pathlib import PurePath, Path;"
        "from din_infer.jobs.readers import ParquetReader;"
        "from din_infer.jobs.sources import Source;"
        "source = Source(Path(sys.argv[1]), 'parquet', PurePath('t'));"
        "batches = ParquetReader(source).batches(['hist'], 4096);"
        "print(sum(b.num_rows for b in batches), pa.default_memory_pool().max_memory())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], check=True, capture_output=True
    )
    rows, peak = map(int, done.stdout.split())
    assert rows == 200_000
    assert peak < 30e6


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(model: Path, tmp_path: Path) -> None:
    small = make_table(2000)
    pq.write_table(small, tmp_path / "small.parquet")
    # one row group, and a history of 200,000 elements now and then
    long = small.slice(0, 1).to_pylist()[0]
    long |= {n: (long[n] * 200_000)[:200_000] or ["a"] * 200_000 for n in ("action",)}
    long |= {"hist_goods_id": ["g"] * 200_000, "hist_cate_id": [1] * 200_000}
    skewed = pa.Table.from_pylist([long] * 3, schema=small.schema)
    large = pa.concat_tables([*[small] * 100, skewed, *[small] * 50])
    pq.write_table(large, tmp_path / "large.parquet", row_group_size=1 << 30)
    code = (
        "import sys, resource; from din_infer.cli import main; main(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    )
    peaks = {}
    for name in ("small", "large"):
        words = [model, tmp_path / f"{name}.parquet", "--out", tmp_path / name]
        done = subprocess.run(
            [sys.executable, "-c", code, *words], check=True, capture_output=True
        )
        peaks[name] = int(done.stdout.split()[-1])
    assert peaks["large"] - peaks["small"] < 64, peaks


# --------------------------------------------------------------------------- bad rows


def with_bad_rows(table: pa.Table, rows: list[int]) -> pa.Table:
    cates = table["cate_id"].to_pylist()
    for row in rows:
        cates[row] = 50 + row
    position = table.column_names.index("cate_id")
    return table.set_column(position, "cate_id", pa.array(cates))


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_bad_rows_are_left_out_or_null_and_listed(
    suffix: str, predictor: Predictor, tmp_path: Path
) -> None:
    table = make_table(200)
    bad = [0, 63, 64, 65, 150, 199]
    good = [k for k in range(200) if k not in bad]
    broken = with_bad_rows(table, bad)
    path = write_as(broken, tmp_path / "in" / f"t.{suffix}")
    wanted = predictor.score(table)
    out = tmp_path / "skip"
    options: dict[str, Any] = {"keep": ["row:int64"], "batch_size": 50}
    summary = score_files(predictor, path, out, on_error="skip", **options)
    got = pq.read_table(summary.files[0])
    assert got["row"].to_pylist() == good
    np.testing.assert_allclose(np.asarray(got["score"]), wanted[good], atol=1e-6)
    assert (summary.rows, summary.bad_rows) == (200, 6)
    name = Path(summary.files[0]).name
    [listed] = (out / "_din_score" / "bad").iterdir()
    assert listed.name == f"{name}.jsonl"
    lines = [json.loads(line) for line in listed.read_text().splitlines()]
    assert [line["row"] for line in lines] == bad
    assert lines[1]["error"] == (
        f"expected an id in [0, 50), got 113 - at `cate_id`, row 63 of {path}"
    )
    manifest = json.loads((out / "_din_score/shards" / f"{name}.json").read_text())
    assert manifest["rows"] == 200
    assert manifest["rows_written"] == 194
    assert manifest["bad_rows"] == 6
    # what is counted is what a table without those rows has
    counted = Predictor(predictor.path, device="cpu", threads=1)
    counted.score(table.take(good))
    assert summary.fields == counted.stats == manifest["fields"]
    summary = score_files(predictor, path, tmp_path / "n", on_error="null", **options)
    got = pq.read_table(summary.files[0])
    assert got["row"].to_pylist() == list(range(200))
    assert [k for k, s in enumerate(got["score"].to_pylist()) if s is None] == bad
    np.testing.assert_allclose(
        np.asarray(got["score"].take(pa.array(good))), wanted[good], atol=1e-6
    )
    with pytest.raises(JobError) as caught:
        score_files(predictor, path, tmp_path / "fail", **options)
    assert str(caught.value) == (
        f"expected an id in [0, 50), got 50 - at `cate_id`, row 0 of {path}"
    )
    assert visible(tmp_path / "fail") == []


def test_lines_that_cannot_be_parsed_are_bad_rows(
    predictor: Predictor, tmp_path: Path
) -> None:
    table = make_table(60)
    for suffix, wrong in (("jsonl", '{"row": 9,'), ("csv", "1,2,3")):
        if suffix == "csv":
            table = table.drop(["interests"]).append_column(
                "interests", pa.array([["a"]] * 60)
            )
        path = write_as(table, tmp_path / f"t.{suffix}")
        lines = [line for line in path.read_text().splitlines() if line]
        at = 40 + (suffix == "csv")
        path.write_text("\n".join([*lines[:at], wrong, *lines[at:]]))
        options: dict[str, Any] = {"keep": ["row"], "batch_size": 16}
        if suffix == "csv":
            options["quoted_empty"] = "element"
        with pytest.raises(JobError) as caught:
            score_files(predictor, path, tmp_path / f"fail-{suffix}", **options)
        assert f"- at `line`, row 40 of {path}" in str(caught.value)
        out = tmp_path / f"out-{suffix}"
        summary = score_files(predictor, path, out, on_error="skip", **options)
        assert summary.bad_rows == 1
        np.testing.assert_allclose(
            scores_of(Path(summary.files[0])), predictor.score(table), atol=1e-6
        )
        out = tmp_path / f"null-{suffix}"
        summary = score_files(predictor, path, out, on_error="null", **options)
        got = pq.read_table(summary.files[0])
        assert got.slice(40, 1).to_pylist() == [{"row": None, "score": None}]


def test_too_many_bad_rows_fail_their_file_alone(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = make_table(100)
    good = write_as(table, tmp_path / "in" / "a.parquet")
    bad = write_as(with_bad_rows(table, [3, 4, 5]), tmp_path / "in" / "b.parquet")
    out = tmp_path / "out"
    words = [str(model), str(good.parent), "--out", str(out), "--on-error", "skip"]
    assert main([*words, "--max-bad-rows", "2", "--json"]) == 1
    said, err = capsys.readouterr()
    assert err.startswith(
        "din-score: expected at most 2 rows that do not fit, got 3 of the first 100 -"
        f" at `{bad}`. Give --max-bad-rows to allow more. The last: expected an id"
    )
    summary = json.loads(said)
    assert summary["files"] == [str(out / "a.parquet")]
    assert list(summary["failed"]) == [str(bad)]
    assert visible(out) == ["a.parquet"]
    # another limit is another job
    assert main([*words, "--resume"]) == 1
    assert "expected options.max_bad_rows as when the job began, 2, got 1000" in (
        capsys.readouterr().err
    )
    assert main([*words, "--overwrite"]) == 0
    assert visible(out) == ["a.parquet", "b.parquet"]


def test_bad_requests_are_left_out_or_null(
    predictor: Predictor, tmp_path: Path
) -> None:
    requests = make_requests(30, seed=4)
    rows = requests.to_pylist()
    rows[7]["price"] = [0.0] * 99
    rows[20] |= {"cate_id": [99], "goods_id": ["a"], "tags": [[]], "price": [1.0]}
    table = pa.Table.from_pylist(rows, schema=requests.schema)
    path = write_as(table, tmp_path / "t.parquet")
    good = [k for k in range(30) if k not in (7, 20)]
    wanted = [s for s in score_each(predictor, requests.take(good))]
    options: dict[str, Any] = {"keep": ["row"], "batch_size": 8}
    skip = score_files(predictor, path, tmp_path / "s", on_error="skip", **options)
    got = pq.read_table(skip.files[0])
    assert got["row"].to_pylist() == good
    flat = np.concatenate(wanted)
    np.testing.assert_allclose(got["score"].combine_chunks().flatten(), flat, atol=1e-6)
    null = score_files(predictor, path, tmp_path / "n", on_error="null", **options)
    got = pq.read_table(null.files[0])
    assert [k for k, s in enumerate(got["score"].to_pylist()) if s is None] == [7, 20]
    options |= {"explode": True, "on_error": "skip"}
    rows_of = score_files(predictor, path, tmp_path / "x", **options)
    np.testing.assert_allclose(scores_of(Path(rows_of.files[0])), flat, atol=1e-6)
    with pytest.raises(InputError, match="a bad request has no candidates to list"):
        score_files(predictor, path, tmp_path / "y", explode=True, on_error="null")


# ------------------------------------------------------------------------ resumption


def test_a_whole_job_is_not_done_again(predictor: Predictor, tmp_path: Path) -> None:
    make_shards(tmp_path / "in", 3)
    out = tmp_path / "out"
    first = score_files(predictor, tmp_path / "in", out, resume=True)
    before = {p: p.stat().st_mtime_ns for p in map(Path, first.files)}
    again = score_files(predictor, tmp_path / "in", out, resume=True)
    assert again.files == []
    assert again.whole == first.files
    assert {p: p.stat().st_mtime_ns for p in before} == before
    with pytest.raises(InputError, match="expected a folder without a job"):
        score_files(predictor, tmp_path / "in", out)
    listed = json.loads((out / "_din_score" / "manifest.json").read_text())
    assert [s["rows"] for s in listed["shards"]] == [60, 60, 60]
    assert listed["model_id"] == predictor.model_id


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "changed":
        path.write_bytes(content[:50] + b"!" + content[51:])
    else:
        path.unlink()


@pytest.mark.parametrize("how", ["truncated", "changed", "gone"])
def test_an_output_that_is_not_what_its_manifest_says_is_made_again(
    how: str, predictor: Predictor, tmp_path: Path
) -> None:
    make_shards(tmp_path / "in", 3)
    out = tmp_path / "out"
    score_files(predictor, tmp_path / "in", out)
    whole = contents(out)
    damage(out / "s01.parquet", how)
    (out / "_din_score" / "shards" / "s02.parquet.json").write_text("{")
    (out / ".s01.parquet.123.0123abcd.tmp").write_bytes(
        b"left of a writer that was killed"
    )
    summary = score_files(predictor, tmp_path / "in", out, resume=True)
    assert [Path(f).name for f in summary.files] == ["s01.parquet", "s02.parquet"]
    assert contents(out) == whole


def other_model(tmp_path: Path) -> Path:
    from din_converter import convert
    from tests.models import random_model, spec_dict

    path = tmp_path / "other.onnx"
    convert(random_model(spec_dict(), seed=5), path)
    return path


@pytest.mark.parametrize("what", ["model", "keep", "on_error", "input", "more", "job"])
def test_another_job_is_not_resumed(
    what: str, predictor: Predictor, tmp_path: Path
) -> None:
    make_shards(tmp_path / "in", 2)
    out = tmp_path / "out"
    score_files(predictor, tmp_path / "in", out)
    whole = contents(out)
    other = predictor
    options: dict[str, Any] = {}
    rule = {
        "model": "expected model_id as when the job began, ",
        "keep": "expected options.keep as when the job began, 0 of them, got 1 of them",
        "on_error": 'expected options.on_error as when the job began, "fail", got "sk',
        "input": f"expected the content that {out}/s01.parquet was scored from, ",
        "more": "expected the inputs of the job that has begun, 2 of them, got 1 more",
        "job": "expected a job to go on with, got damage - at ",
    }[what]
    if what == "model":
        other = Predictor(other_model(tmp_path), device="cpu", threads=1)
    elif what == "keep":
        options["keep"] = ["row"]
    elif what == "on_error":
        options["on_error"] = "skip"
    elif what == "input":
        write_as(make_table(60, seed=99), tmp_path / "in" / "s01.parquet")
    elif what == "more":
        write_as(make_table(60), tmp_path / "in" / "s02.parquet")
    else:
        job = out / "_din_score" / "job.json"
        job.write_text(job.read_text()[:-20])
        whole = contents(out)
    with pytest.raises(InputError) as caught:
        score_files(other, tmp_path / "in", out, resume=True, **options)
    assert str(caught.value).startswith(rule)
    end = "have it scored again." if what == "input" else "--overwrite to begin anew."
    assert str(caught.value).endswith(end)
    assert contents(out) == whole
    score_files(other, tmp_path / "in", out, overwrite=True, **options)


def test_overwriting_a_job_leaves_nothing_of_it(
    predictor: Predictor, tmp_path: Path
) -> None:
    bad = with_bad_rows(make_table(50), [3])
    write_as(bad, tmp_path / "in" / "a.parquet")
    out = tmp_path / "out"
    score_files(predictor, tmp_path / "in", out, on_error="null")
    write_as(make_table(50), tmp_path / "in" / "a.parquet")
    score_files(predictor, tmp_path / "in", out, overwrite=True)
    assert not list((out / "_din_score" / "bad").iterdir())
    manifest = json.loads((out / "_din_score" / "manifest.json").read_text())
    assert manifest["shards"][0]["bad_rows"] == 0


# --------------------------------------------------------------------- what goes wrong


def test_an_unreadable_shard_fails_alone(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = make_shards(tmp_path / "in", 4)
    (tmp_path / "in" / "s01.parquet").write_bytes(b"PAR1 no Parquet")
    page = tmp_path / "in" / "s02.parquet"
    content = bytearray(page.read_bytes())
    content[8:600] = bytes(592)
    page.write_bytes(content)
    out = tmp_path / "out"
    words = [str(model), str(tmp_path / "in"), "--out", str(out)]
    assert main([*words, "--json"]) == 1
    said, err = capsys.readouterr()
    assert "expected a readable Parquet file, got " in err
    assert err.endswith("(and 1 more of the inputs have no output)\n")
    failed = json.loads(said)["failed"]
    assert [Path(f).name for f in failed] == ["s01.parquet", "s02.parquet"]
    assert "a Parquet file that can be read to its end" in failed[str(page)]
    assert visible(out) == ["s00.parquet", "s03.parquet"]
    wanted = Predictor(model, device="cpu", threads=1).score(table.slice(180, 60))
    np.testing.assert_array_equal(scores_of(out / "s03.parquet"), wanted)
    assert not (out / "_din_score" / "manifest.json").exists()


@pytest.mark.parametrize("when", ["before", "while"])
def test_a_shard_that_is_replaced_fails_alone(
    when: str, predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_shards(tmp_path / "in", 3)
    path = tmp_path / "in" / "s01.parquet"
    real = readers.ParquetReader.batches

    def batches(
        self: readers.ParquetReader, columns: list[str], rows: int
    ) -> Iterator[pa.RecordBatch]:
        mine = "s01" if when == "while" else "s00"
        for batch in real(self, columns, rows):
            if mine in str(self._source) and path.exists():
                other = write_as(make_table(60, seed=1), tmp_path / "x.parquet")
                shutil.move(other, path)
            yield batch

    monkeypatch.setattr(readers.ParquetReader, "batches", batches)
    with pytest.raises(JobError) as caught:
        score_files(predictor, tmp_path / "in", tmp_path / "out", batch_size=20)
    assert str(caught.value) == (
        "expected a file that does not change while the job runs, got another in its"
        f" place - at `{path}`"
    )
    assert visible(tmp_path / "out") == ["s00.parquet", "s02.parquet"]


@pytest.mark.parametrize("at", [0, 400, 1200])
def test_a_full_disk_leaves_whole_files(
    at: int, predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_shards(tmp_path / "in", 3)
    whole = tmp_path / "whole"
    score_files(predictor, tmp_path / "in", whole, keep=["goods_id"])
    real = output.Sink.write
    room = (whole / "s00.parquet").stat().st_size + at

    def write(self: output.Sink, data: Any) -> int:  # noqa: ANN401
        nonlocal room
        room -= memoryview(data).nbytes
        if room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(self, data)

    monkeypatch.setattr(output.Sink, "write", write)
    out = tmp_path / "out"
    with pytest.raises(InputError) as caught:
        score_files(predictor, tmp_path / "in", out, keep=["goods_id"])
    assert str(caught.value).startswith(
        "expected a place where the scores can be written, got [Errno 28] No space"
    )
    assert "s00.parquet" in visible(out)
    assert not [name for name in visible(out) if name.endswith(".tmp")]
    room = 1 << 40
    score_files(predictor, tmp_path / "in", out, keep=["goods_id"], resume=True)
    assert {n: (out / n).read_bytes() for n in visible(out)} == {
        n: (whole / n).read_bytes() for n in visible(whole)
    }


def test_an_output_that_was_cut_while_written_gets_no_name(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_shards(tmp_path / "in", 1)
    real = output.Sink.digest

    def digest(self: output.Sink) -> str:
        self._file.flush()
        os.ftruncate(self._file.fileno(), 100)
        return real(self)

    monkeypatch.setattr(output.Sink, "digest", digest)
    with pytest.raises(InputError, match="100 bytes are left of the"):
        score_files(predictor, tmp_path / "in", tmp_path / "out")
    assert visible(tmp_path / "out") == []


def test_two_jobs_of_one_process_do_not_share_a_folder(
    predictor: Predictor, tmp_path: Path
) -> None:
    make_shards(tmp_path / "in", 1)
    out = tmp_path / "out"
    ledger = Ledger(out, {}, [], resume=False, overwrite=False)
    with pytest.raises(InputError, match="expected one job at a time in a folder"):
        score_files(predictor, tmp_path / "in", out, resume=True)
    ledger.close()
    with pytest.raises(InputError, match="as when the job began"):
        score_files(predictor, tmp_path / "in", out, resume=True)
    score_files(predictor, tmp_path / "in", out, overwrite=True)


# ------------------------------------------------------------------- kills and signals

SLOW = """
import sys, time
from din_infer.cli import main
from din_infer.jobs.batches import BatchScorer
real = BatchScorer.score
def score(self, batch, stats=None):
    time.sleep(float(sys.argv[1]))
    return real(self, batch, stats)
BatchScorer.score = score
print("ready", flush=True)
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start din-score, each of its batches slowed down by some seconds."""
    begun = []

    def go(delay: float, *words: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", SLOW, str(delay), *map(str, words)]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(command, text=True, **pipes)
        begun.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield go
    for process in begun:
        process.kill()
        process.communicate()


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    stop = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < stop
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_signals_leave_whole_files_alone(
    number: int,
    status: int,
    word: str,
    model: Path,
    tmp_path: Path,
    start: Callable[..., subprocess.Popen[str]],
) -> None:
    make_shards(tmp_path / "in", 6)
    out = tmp_path / "out"
    words = (model, tmp_path / "in", "--out", out, "--batch-size", "10", "--resume")
    process = start(0.1, *words)
    wait_for(lambda: (out / "s01.parquet").exists())
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == status
    assert err == f"din-score: {word}\n"
    left = [p.name for p in out.rglob("*") if p.is_file() and p.suffix == ".tmp"]
    assert left == []
    names = visible(out)
    assert names[:2] == ["s00.parquet", "s01.parquet"]
    assert len(names) < 6
    whole = tmp_path / "whole"
    words = (model, tmp_path / "in", "--out", whole, "--batch-size", "10")
    assert main([str(w) for w in words]) == 0
    assert all((out / n).read_bytes() == (whole / n).read_bytes() for n in names)


@pytest.mark.slow
def test_a_killed_job_goes_on_to_the_same_bytes(
    model: Path, tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    count = 20
    make_shards(tmp_path / "in", count, 40)
    words = (model, tmp_path / "in", "--batch-size", "8", "--keep", "row,user_id")
    assert main([str(w) for w in (*words, "--out", tmp_path / "whole")]) == 0
    whole = contents(tmp_path / "whole")
    delay = 0.004 if KILLS < 50 else 0.05  # the start of the process takes its part
    process = start(delay, *words, "--out", tmp_path / "timed")
    loaded = time.monotonic()
    assert process.wait() == 0
    ended = time.monotonic()
    assert contents(tmp_path / "timed") == whole
    rng = random.Random(KILLS)
    middle = 0
    for k in range(KILLS):
        out = tmp_path / f"killed{k}"
        process = start(delay, *words, "--out", out)
        time.sleep(rng.uniform(0, ended - loaded))
        process.kill()
        process.communicate()
        # a writer that was killed in a shard has left what it had written
        middle += any(p.suffix == ".tmp" for p in out.rglob(".*"))
        done = [n for n in visible(out) if not n.startswith(".")]
        assert all((out / n).read_bytes() == whole[n] for n in done)
        last = subprocess.run(
            [
                sys.executable,
                "-c",
                SLOW,
                "0",
                *map(str, words),
                "--out",
                out,
                "--resume",
            ],
            capture_output=True,
            text=True,
        )
        assert last.returncode == 0, last.stderr
        assert contents(out) == whole
        shutil.rmtree(out)
    # DIN_KILLS=50 is the run that counts: few are before the first shard or between
    assert KILLS < 50 or middle >= 40, middle


def test_what_killed_writers_of_the_job_left_is_removed(
    model: Path, tmp_path: Path
) -> None:
    make_shards(tmp_path / "in", 2, 10)
    words = [str(model), str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    assert main([*words, "--quiet"]) == 0
    whole = contents(tmp_path / "out")
    for name in ("job.json", "manifest.json"):
        (tmp_path / "out" / "_din_score" / f".{name}.15120.0123abcd.tmp").write_text(
            "{"
        )
    assert contents(tmp_path / "out") != whole
    assert main([*words, "--quiet", "--resume"]) == 0
    assert contents(tmp_path / "out") == whole


def test_processes_share_a_folder_without_doing_a_shard_twice(
    model: Path, tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    table = make_shards(tmp_path / "in", 12)
    out = tmp_path / "out"
    words = (model, tmp_path / "in", "--out", out, "--batch-size", "10", "--resume")
    processes = [start(0.02, *words, "--json") for _ in range(3)]
    # one of them dies: the others do its part
    wait_for(lambda: len(visible(out)) > 4)
    processes[0].kill()
    processes[0].communicate()
    done = []
    for process in processes[1:]:
        said, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        summary = json.loads(said)
        done += summary["files"]
        assert len(summary["files"]) + len(summary["whole"]) == 12
    assert len(set(done)) == len(done)
    assert visible(out) == [f"s{k:02}.parquet" for k in range(12)]
    got = np.concatenate([scores_of(out / n) for n in visible(out)])
    wanted = Predictor(model, device="cpu", threads=1).score(table)
    np.testing.assert_array_equal(got, wanted)
    assert (out / "_din_score" / "manifest.json").exists()


def test_inputs_are_added_to_a_job_at_work(
    model: Path, tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    table = make_shards(tmp_path / "all", 8)
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for k in range(2, 8):
        shutil.copy(tmp_path / "all" / f"s{k:02}.parquet", folder)
    words = (model, folder, "--out", out, "--batch-size", "10", "--json")
    first = start(0.05, *words)
    wait_for(lambda: (out / "s02.parquet").exists())
    for k in range(2):  # before the others in order
        shutil.copy(tmp_path / "all" / f"s{k:02}.parquet", folder)
    second = start(0.05, *words, "--resume", "--add")
    done = []
    for process, count in ((first, 6), (second, 8)):
        said, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        summary = json.loads(said)
        done += summary["files"]
        assert len(summary["files"]) + len(summary["whole"]) == count
    assert "2 inputs are added to the job: s00.parquet, s01.parquet" in err
    assert len(set(done)) == len(done) == 8
    got = np.concatenate([scores_of(out / n) for n in visible(out)])
    wanted = Predictor(model, device="cpu", threads=1).score(table)
    np.testing.assert_array_equal(got, wanted)
    listed = json.loads((out / "_din_score" / "manifest.json").read_text())
    assert len(listed["shards"]) == 8


def test_a_job_at_work_is_not_begun_anew(
    model: Path, tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    make_shards(tmp_path / "in", 4)
    out = tmp_path / "out"
    words = (model, tmp_path / "in", "--out", out, "--batch-size", "10")
    predictor = Predictor(model, device="cpu", threads=1)
    process = start(0.1, *words)
    wait_for(lambda: (out / "s00.parquet").exists())
    with pytest.raises(InputError, match="a job that no process works on"):
        score_files(predictor, tmp_path / "in", out, keep=["row"], overwrite=True)
    assert process.wait() == 0
    assert pq.read_table(out / "s03.parquet").column_names == ["score"]
    # begun anew, nothing of it is left under a name that says it is whole
    (tmp_path / "in" / "s01.parquet").write_bytes(b"no Parquet")
    (tmp_path / "in" / "s02.parquet").unlink()
    with pytest.raises(JobError):
        score_files(predictor, tmp_path / "in", out, keep=["row"], overwrite=True)
    assert visible(out) == ["s00.parquet", "s03.parquet"]
    assert pq.read_table(out / "s03.parquet").column_names == ["row", "score"]


def test_scoring_in_a_thread_works(model: Path, tmp_path: Path) -> None:
    make_shards(tmp_path / "in", 2)
    words = [str(model), str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    statuses: list[int] = []
    thread = threading.Thread(target=lambda: statuses.append(main(words)))
    thread.start()
    thread.join()
    assert statuses == [0]


def test_numbers_of_numpy_are_numbers(predictor: Predictor, tmp_path: Path) -> None:
    make_shards(tmp_path / "in", 1)
    out = tmp_path / "out"
    options = {"batch_size": np.int64(7), "max_bad_rows": np.uint8(3)}
    options |= {"workers": np.int64(1), "progress": False}
    score_files(predictor, tmp_path / "in", out, **options)
    job = json.loads((out / "_din_score" / "job.json").read_text())
    assert (job["options"]["batch_size"], job["options"]["max_bad_rows"]) == (7, 3)
    score_files(predictor, tmp_path / "in", out, resume=True, **options)


def test_no_batch_is_too_large_for_a_file_that_is_small(
    predictor: Predictor, tmp_path: Path
) -> None:
    make_shards(tmp_path / "in", 1)
    for k, suffix in enumerate(("parquet", "arrow", "csv", "jsonl")):
        rows = tmp_path / "in" / f"s00.{suffix}"
        write_as(make_table(3), rows) if k else None
        made = score_files(
            predictor, rows, tmp_path / str(k), batch_size=2**63 - 1, progress=False
        )
        assert made.rows > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": []}, "at least one file, got none - at `inputs`"),
        ({"keep": "row"}, "a sequence of texts, got 'row' - at `keep`"),
        ({"format": "xml"}, "one of parquet, arrow, csv, tsv, jsonl, got 'xml' - at"
         " `format`"),
        ({"batch_size": 2**63}, f"a whole number of at most {2**63 - 1}, got {2**63} -"
         " at `batch_size`"),
        ({"workers": 1025}, "a whole number of at most 1024, got 1025 - at `workers`"),
    ],
)  # fmt: skip
def test_options_that_fit_no_job(
    options: dict[str, Any], message: str, predictor: Predictor, tmp_path: Path
) -> None:
    make_shards(tmp_path / "in", 1)
    options = {"inputs": tmp_path / "in", "out": tmp_path / "out"} | options
    with pytest.raises(InputError) as caught:
        score_files(predictor, **options, progress=False)
    assert str(caught.value) == f"expected {message}"
    assert not (tmp_path / "out").exists()
