"""Every command reads every format by the same readers, with equal results."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from din_converter import checkpoint
from din_converter.cli import train_main
from din_converter.evaluate import read_table
from din_converter.row_copies import RowCopies
from din_converter.rows import Rows, split_by_time
from din_infer import InputError
from din_infer.jobs.inspect import inspect_files
from din_infer.jobs.text_options import TextOptions
from din_infer.spec import FeatureSpec
from tests.jobs import write_as
from tests.test_train import click_log, log_spec

FORMATS = (
    "arrow",
    "arrows",
    "csv",
    "tsv",
    "jsonl",
    "csv.gz",
    "csv.bz2",
    "jsonl.zst",
)
SPEC = log_spec(weight="weight")


@pytest.fixture(scope="module")
def log() -> pa.Table:
    table = click_log(600)
    return table.set_column(5, "weight", pa.array(np.arange(600.0)))


def batches_of(rows: Rows, seed: int | None = None) -> list[dict[str, Any]]:
    """Everything that training reads of rows, in the order of a seed."""
    rng = None if seed is None else np.random.default_rng(seed)
    return [
        {**b.inputs, "labels": b.labels, "weights": b.weights}
        for b in rows.batches(64, window=128, rng=rng)
    ]


def are_equal(some: list[dict[str, Any]], others: list[dict[str, Any]]) -> bool:
    return len(some) == len(others) and all(
        a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)
        for a, b in zip(some, others, strict=True)
    )


@pytest.mark.parametrize("suffix", FORMATS)
def test_training_reads_the_same_rows_of_every_format(
    suffix: str, log: pa.Table, tmp_path: Path
) -> None:
    path = write_as(log, tmp_path / f"log.{suffix}")
    rows = Rows.open([path], SPEC)
    whole = Rows.of_table(log, SPEC, "log")
    assert rows.num_rows == 600
    assert are_equal(batches_of(rows), batches_of(whole))
    assert are_equal(batches_of(rows, 3), batches_of(rows, 3))
    older, newest = split_by_time(rows, 0.2)
    assert [r.num_rows for r in split_by_time(whole, 0.2)] == [
        older.num_rows,
        newest.num_rows,
    ]
    rows.check()
    found = read_table(path, SPEC)
    assert np.array_equal(SPEC.encode(found)["hist"], SPEC.encode(log)["hist"])


@pytest.mark.parametrize("suffix", FORMATS)
def test_inspection_finds_the_same_in_every_format(
    suffix: str, log: pa.Table, tmp_path: Path
) -> None:
    path = write_as(log, tmp_path / f"log.{suffix}")
    pq.write_table(log, tmp_path / "log.parquet")
    found = inspect_files(SPEC, path, batch_size=100, progress=False).to_dict()
    wanted = inspect_files(SPEC, tmp_path / "log.parquet", progress=False).to_dict()
    for facts in (found, wanted):
        del facts["files"]
    found["time"], wanted["time"] = (
        [float(t) for t in facts["time"]] for facts in (found, wanted)
    )
    assert found == wanted
    some = inspect_files(SPEC, path, max_rows=70, batch_size=64, progress=False)
    assert some.rows == 70
    assert some.rows_of_files == (600 if suffix == "arrow" else None)
    assert "the first 70" in str(some)


def as_text(table: pa.Table, day: str = "2026-01-01") -> pa.Table:
    """The log with labels, weights and times in text, and histories joined by "|"."""
    hours = table["time"].to_pylist()
    times = [f"{day}T{k // 60 % 24:02}:{k % 60:02}:00+01:00" for k in hours]
    columns = {
        "label": ["true" if v else "False" for v in table["label"].to_pylist()],
        "weight": [str(v) for v in table["weight"].to_pylist()],
        "time": times,
        "hist": ["|".join(v) for v in table["hist"].to_pylist()],
    }
    return pa.table({n: columns.get(n, table[n]) for n in table.column_names})


def text_spec() -> FeatureSpec:
    raw = SPEC.to_dict()
    raw["behavior"][0]["separator"] = "|"
    return FeatureSpec.from_dict(raw)


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl", "arrow"])
def test_labels_weights_and_times_may_be_text(
    suffix: str, log: pa.Table, tmp_path: Path
) -> None:
    spec = text_spec()
    path = write_as(as_text(log), tmp_path / f"log.{suffix}")
    rows = Rows.open([path], spec)
    rows.check()
    whole = Rows.of_table(log, SPEC, "log")
    assert are_equal(batches_of(rows), batches_of(whole))
    older, newest = split_by_time(rows, 0.2)
    wanted = [part.num_rows for part in split_by_time(whole, 0.2)]
    assert [older.num_rows, newest.num_rows] == wanted
    assert are_equal(batches_of(newest), batches_of(split_by_time(whole, 0.2)[1]))
    found = inspect_files(spec, path, progress=False)
    assert found.labels == inspect_files(SPEC, _plain(log, tmp_path)).labels
    assert found.time == ("2025-12-31 23:00:00", "2026-01-01 02:19:00")


def _plain(log: pa.Table, folder: Path) -> Path:
    return write_as(log, folder / "plain" / "log.parquet")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("label", "yes", "expected a label 0 or 1, got 'yes' - at `label`, row 1"),
        ("label", "", "expected a label 0 or 1, got null - at `label`, row 1"),
        (
            "weight",
            "x",
            "expected a finite weight of at least 0, got 'x' - at `weight`, row 1",
        ),
    ],
)
def test_text_that_is_no_label_or_weight_is_named(
    column: str, value: str, message: str, log: pa.Table, tmp_path: Path
) -> None:
    texts = as_text(log[:4])
    values = texts[column].to_pylist()
    values[1] = value
    place = texts.column_names.index(column)
    table = texts.set_column(place, column, pa.array(values))
    path = write_as(table, tmp_path / "log.csv")
    with pytest.raises(InputError) as caught:
        Rows.open([path], text_spec()).check()
    assert str(caught.value) == f"{message} of {path}"


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (
            ["2026-01-01", "soon"],
            "expected a number, or a time such as 2026-01-31T12:00:00, got 'soon' - at"
            " `time`, row 1",
        ),
        (["2026-01-01", ""], "expected a time, got null - at `time`, row 1"),
        (
            ["2026-01-01", "17"],
            "expected a number, or a time such as 2026-01-31T12:00:00, got '17' - at"
            " `time`, row 1",
        ),
    ],
)
def test_text_that_is_no_time_is_named(
    times: list[str], message: str, log: pa.Table, tmp_path: Path
) -> None:
    table = as_text(log[:2]).set_column(4, "time", pa.array(times))
    path = write_as(table, tmp_path / "log.csv")
    with pytest.raises(InputError) as caught:
        split_by_time(Rows.open([path], text_spec()), 0.5)
    assert str(caught.value) == f"{message} of {path}"


def test_times_that_are_numbers_in_one_file_and_dates_in_another_are_refused(
    log: pa.Table, tmp_path: Path
) -> None:
    write_as(as_text(log[:4]), tmp_path / "a.csv")
    path = write_as(
        as_text(log[:4]).set_column(4, "time", log["time"][:4]), tmp_path / "b.csv"
    )
    with pytest.raises(InputError) as caught:
        split_by_time(Rows.open([tmp_path], text_spec()), 0.5)
    assert str(caught.value) == (
        "expected times that are all numbers, or all dates or timestamps, got both - at"
        f" `time`, row 0 of {path}"
    )


def test_a_csv_names_itself_in_errors(log: pa.Table, tmp_path: Path) -> None:
    path = write_as(log.drop(["goods_id"]), tmp_path / "log.csv")
    commands: list[Callable[[], object]] = [
        lambda: Rows.open([path], SPEC),
        lambda: inspect_files(SPEC, path, progress=False),
        lambda: read_table(path, SPEC),
    ]
    for command in commands:
        with pytest.raises(InputError) as caught:
            command()
        assert str(caught.value) == (
            "expected the columns goods_id, got only user_id, hist, label, time, weight"
            f" - at `{path}`"
        )
    path.write_bytes(b"PAR1" + bytes(100))
    with pytest.raises(InputError) as caught:
        Rows.open([path], SPEC)
    assert str(caught.value) == (
        f"expected a text file, got Parquet data - at `{path}`. Give --format parquet."
    )


def test_columns_of_the_path_are_read_in_training_and_inspection(
    log: pa.Table, tmp_path: Path
) -> None:
    for suffix, day in (("csv", 0), ("parquet", 1)):
        folder = tmp_path / f"goods_id=g{day}" / f"time=2026-01-0{day + 1}"
        write_as(log[:50].drop(["goods_id", "time"]), folder / f"p.{suffix}")
    older, newest = split_by_time(Rows.open([tmp_path], SPEC), 0.5)
    assert (older.num_rows, newest.num_rows) == (50, 50)
    one = log[:50].set_column(1, "goods_id", pa.array(["g0"] * 50))
    wanted = SPEC.encode(one)["goods_id"]
    found = np.concatenate([b["goods_id"] for b in batches_of(older)])
    assert np.array_equal(found, wanted)
    inspected = inspect_files(SPEC, tmp_path, progress=False)
    assert inspected.rows == 100
    assert inspected.time == ("2026-01-01 00:00:00", "2026-01-02 00:00:00")


def test_options_of_text_are_those_of_din_score(log: pa.Table, tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    lines = ["\x01".join(map(str, r.values())) for r in as_text(log[:80]).to_pylist()]
    path.write_text("\n".join(lines) + "\n")
    text = TextOptions(delimiter="\x01", header=False, columns=log.column_names)
    rows = Rows.open([path], text_spec(), text=text, format="csv")
    assert are_equal(batches_of(rows), batches_of(Rows.of_table(log[:80], SPEC, "log")))
    found = inspect_files(text_spec(), path, text=text, format="csv", progress=False)
    assert found.rows == 80
    with pytest.raises(InputError) as caught:
        inspect_files(
            SPEC, _plain(log, tmp_path), text=TextOptions(escape="x"), progress=False
        )
    assert str(caught.value) == "expected inputs of CSV, TSV, got Parquet - at `escape`"


def test_copies_are_made_once_and_named_by_what_they_hold(
    log: pa.Table, tmp_path: Path
) -> None:
    path = write_as(log, tmp_path / "log.csv")
    notes: list[str] = []
    copies = RowCopies(tmp_path / "run" / "rows", notes.append)
    first = batches_of(Rows.open([path], SPEC, copies=copies), 1)
    [copy] = (tmp_path / "run" / "rows").iterdir()
    assert notes == [f"{path} is read once, into {copy}, to be read in any order"]
    again = Rows.open([path], SPEC, copies=RowCopies(copy.parent, notes.append))
    assert are_equal(batches_of(again, 1), first)
    assert len(notes) == 1
    Rows.open([path], text_spec(), copies=copies)
    write_as(log[:9], path)
    assert Rows.open([path], SPEC, copies=copies).num_rows == 9
    assert len(notes) == 3
    copies.remove()
    assert not copy.parent.exists()


@pytest.mark.slow
def test_a_run_on_csv_is_resumed_from_its_copy(
    log: pa.Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_as(as_text(log), tmp_path / "log.csv")
    (tmp_path / "spec.json").write_text(text_spec().to_json())
    words = [
        str(tmp_path / "log.csv"),
        "--spec",
        str(tmp_path / "spec.json"),
        "--quiet",
    ]
    words += ["--batch-size", "64", "--null-text", "NA", "--null-text", ""]

    def train(name: str, *more: str) -> int:
        return train_main([*words, "--out", str(tmp_path / name), *more])

    valid = ("--valid", str(_plain(as_text(log), tmp_path)), "--escape", "~")
    assert train("whole.pt", "--epochs", "2", *valid) == 0
    assert not (tmp_path / "whole.run" / "rows").exists()
    config = str(tmp_path / "whole.run" / "config.toml")
    assert train_main(["--config", config, "--out", str(tmp_path / "again.pt")]) == 0
    whole, again = (
        checkpoint.load(tmp_path / f"{n}.pt").state_dict() for n in ("whole", "again")
    )
    assert all(np.array_equal(whole[k], again[k]) for k in whole)
    assert "log.csv is read once, into" in capsys.readouterr().err
