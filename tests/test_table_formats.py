"""Every command reads every format by the same readers, with equal results."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from din_converter.evaluate import read_table
from din_converter.rows import Rows, split_by_time
from din_infer.jobs.inspect import inspect_files
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
