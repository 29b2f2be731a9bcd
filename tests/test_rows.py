from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from din_converter.rows import Rows, split_by_time
from din_infer import InputError, ModelError
from din_infer.spec import FeatureSpec
from tests.test_train import click_log, log_spec

SPEC = log_spec(weight="weight")


def numbered(rows: int) -> pa.Table:
    """A log whose weights number its rows."""
    table = click_log(rows)
    return table.set_column(5, "weight", pa.array(np.arange(float(rows))))


def files(folder: Path, table: pa.Table) -> Rows:
    """The table as two files of several row groups, in a folder."""
    half = table.num_rows // 2
    pq.write_table(table.slice(0, half), folder / "a.parquet", row_group_size=70)
    # another writer's types: the same rows, all the same
    wide = table.slice(half).cast(
        pa.schema(
            [
                f.with_type(pa.large_string()) if f.type == pa.string() else f
                for f in table.schema
            ]
        )
    )
    pq.write_table(wide, folder / "b.parquet", row_group_size=110)
    return Rows.open([folder], SPEC)


def test_files_and_tables_give_the_same_rows_in_order(tmp_path: Path) -> None:
    table = numbered(999)
    whole = SPEC.encode(table)
    for rows in (files(tmp_path, table), Rows.of_table(table, SPEC, "log")):
        assert rows.num_rows == 999
        batches = list(rows.batches(64, window=200))
        assert [len(b.labels) for b in batches] == [64] * 15 + [39]
        weights = np.concatenate([b.weights for b in batches])  # type: ignore[misc]
        assert np.array_equal(weights, np.arange(999))
        ids = np.concatenate([b.inputs["goods_id"] for b in batches])
        assert np.array_equal(ids, whole["goods_id"])
        labels = np.concatenate([b.labels for b in batches])
        assert np.array_equal(labels, table["label"])


@pytest.mark.parametrize("window", [1, 150, 10_000])
def test_an_epoch_has_every_row_once_in_an_order_of_its_seed(
    window: int, tmp_path: Path
) -> None:
    rows = files(tmp_path, numbered(999))

    def order(seed: int, skip: int = 0) -> list[float]:
        rng = np.random.default_rng(seed)
        batches = rows.batches(64, window=window, rng=rng, skip=skip)
        return [w for b in batches for w in b.weights]  # type: ignore[union-attr]

    first = order(0)
    assert sorted(first) == list(range(999))
    assert first == order(0) != order(1)
    assert order(0, skip=7) == first[7 * 64 :]
    assert order(0, skip=16) == []
    moved = np.abs(np.array(first) - np.arange(999))
    assert moved.mean() > 200  # no row stays where it was, or near


def test_rows_keep_their_labels_and_features_when_shuffled(tmp_path: Path) -> None:
    table = numbered(400)
    rows = files(tmp_path, table)
    whole, labels = SPEC.encode(table), np.asarray(table["label"])
    for batch in rows.batches(32, window=100, rng=np.random.default_rng(3)):
        at = batch.weights.astype(int)  # type: ignore[union-attr]
        assert np.array_equal(batch.labels, labels[at])
        assert np.array_equal(batch.inputs["goods_id"], whole["goods_id"][at])
        width = batch.inputs["hist"].shape[1]
        assert np.array_equal(batch.inputs["hist"], whole["hist"][at, :width])
        assert batch.groups is not None


def test_the_newest_rows_are_held_out(tmp_path: Path) -> None:
    table = click_log(1000)
    shuffled = table.take(pa.array(np.random.default_rng(0).permutation(1000)))
    for rows in (files(tmp_path, shuffled), Rows.of_table(shuffled, SPEC, "log")):
        older, newest = split_by_time(rows, 0.2)
        assert older.num_rows + newest.num_rows == 1000
        assert 200 <= newest.num_rows <= 203
        old = pa.concat_tables(older.windows(100), promote_options="permissive")
        new = pa.concat_tables(newest.windows(100), promote_options="permissive")
        assert (old.num_rows, new.num_rows) == (older.num_rows, newest.num_rows)
        assert np.max(old["time"]) < np.min(new["time"])


@pytest.mark.parametrize(
    "kind", [pa.timestamp("us"), pa.date32(), pa.date64(), pa.int32(), pa.float64()]
)
def test_times_may_be_numbers_dates_or_timestamps(kind: pa.DataType) -> None:
    table = click_log(300)
    days = pa.array(np.arange(300, dtype=np.int32) // 3)
    times = days.cast(pa.date32()) if pa.types.is_temporal(kind) else days
    table = table.set_column(4, "time", times.cast(kind))
    older, newest = split_by_time(Rows.of_table(table, SPEC, "log"), 0.2)
    assert (older.num_rows, newest.num_rows) == (240, 60)


def test_times_of_different_units_are_the_same_times(tmp_path: Path) -> None:
    table = click_log(400)
    kinds = (pa.timestamp("us"), pa.timestamp("ms"), pa.timestamp("ns"), pa.date32())
    for k, kind in enumerate(kinds):
        days = pa.array(np.arange(100 * k, 100 * k + 100, dtype=np.int32) // 5)
        part = table.slice(100 * k, 100)
        part = part.set_column(4, "time", days.cast(pa.date32()).cast(kind))
        pq.write_table(part, tmp_path / f"{k}.parquet")
    older, newest = split_by_time(Rows.open([tmp_path], SPEC), 0.25)
    assert [p.kept for p in older.pieces] == [100, 100, 100, 0]
    assert [p.kept for p in newest.pieces] == [0, 0, 0, 100]


def test_columns_of_different_types_are_refused(tmp_path: Path) -> None:
    table = click_log(100)
    pq.write_table(table, tmp_path / "a.parquet")
    flags = pa.array(np.asarray(table["label"], np.bool_))
    pq.write_table(table.set_column(3, "label", flags), tmp_path / "b.parquet")
    with pytest.raises(InputError, match="expected columns of the same type in all"):
        list(Rows.open([tmp_path], SPEC).windows(1000))


@pytest.mark.parametrize("split", [False, True])
def test_a_wrong_row_is_named_by_file_and_row(split: bool, tmp_path: Path) -> None:
    table = click_log(600)
    labels = np.asarray(table["label"]).copy()
    labels[437] = 3
    rows = files(tmp_path, table.set_column(3, "label", pa.array(labels)))
    if split:
        rows, _ = split_by_time(rows, 0.5)
    with pytest.raises(InputError) as caught:
        rows.check()
    assert str(caught.value) == (
        "expected a label 0 or 1, got 3.0 - at `label`, row 137 of"
        f" {tmp_path}/b.parquet"
    )


def test_check_shows_each_row_inside_the_time_range_once(tmp_path: Path) -> None:
    older, newest = split_by_time(files(tmp_path, numbered(600)), 0.25)
    for rows in (older, newest):
        seen: list[float] = []
        rows.check(lambda b, seen=seen: seen.extend(b.weights))  # type: ignore[misc]
        wanted = [w for b in rows.batches(99) for w in b.weights]  # type: ignore[union-attr]
        assert sorted(seen) == sorted(wanted)


def test_files_have_the_same_optional_columns(tmp_path: Path) -> None:
    raw = SPEC.to_dict()
    raw["behavior"][0] |= {"length_column": "n", "pad_value": ""}
    spec = FeatureSpec.from_dict(raw)
    assert spec.optional_columns == ("n",)
    table = numbered(50)
    name = spec.behavior[0].fields[0].column
    lengths = pa.array([len(v) for v in table[name].to_pylist()])
    for part, with_lengths in (("a", True), ("b", True)):
        made = table.append_column("n", lengths) if with_lengths else table
        pq.write_table(made, tmp_path / f"{part}.parquet")
    (batch,) = Rows.open([tmp_path], spec).batches(100)
    whole = spec.encode(pa.concat_tables([table, table]))
    key = f"{spec.behavior[0].name}.lengths"
    assert np.array_equal(batch.inputs[key], whole[key])
    pq.write_table(table, tmp_path / "c.parquet")
    with pytest.raises(InputError) as caught:
        Rows.open([tmp_path], spec)
    assert str(caught.value) == (
        f"expected the same optional columns as {tmp_path}/a.parquet has, got none - at"
        f" `{tmp_path}/c.parquet`"
    )
    rows = Rows.of_table(table, spec, "log")
    assert np.array_equal(next(iter(rows.batches(100))).inputs[key], whole[key][:50])


def test_files_are_checked_when_opened(tmp_path: Path) -> None:
    pq.write_table(click_log(20).drop(["hist", "label"]), tmp_path / "a.parquet")
    with pytest.raises(InputError) as caught:
        Rows.open([tmp_path], SPEC)
    assert str(caught.value) == (
        "expected the columns hist, label, got only user_id, goods_id, time, weight"
        f" - at `{tmp_path}/a.parquet`"
    )
    raw: dict[str, Any] = SPEC.to_dict()
    del raw["label"]
    with pytest.raises(ModelError, match="expected a `label` column, got none"):
        Rows.open([tmp_path], type(SPEC).from_dict(raw))


def test_a_file_cut_off_after_its_opening_is_an_error(tmp_path: Path) -> None:
    rows = files(tmp_path, numbered(600))
    path = tmp_path / "a.parquet"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="expected a Parquet file that can be read to"):
        list(rows.batches(64))
