from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from din_converter.evaluate import read_table
from din_converter.rows import Rows, split_by_time
from din_converter.unify import join, widen
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


def test_columns_of_two_kinds_are_refused_by_file_and_column(tmp_path: Path) -> None:
    table = numbered(100)
    pq.write_table(table, tmp_path / "a.parquet")
    users = pa.array(range(100))
    pq.write_table(table.set_column(0, "user_id", users), tmp_path / "b.parquet")
    with pytest.raises(InputError) as caught:
        list(Rows.open([tmp_path], SPEC).windows(1000))
    assert str(caught.value) == (
        "expected values that can be large_string, as in other files, got int64 - at"
        f" `user_id` of {tmp_path}/b.parquet"
    )


def of_kind(values: list[Any], kind: pa.DataType) -> pa.Array:
    """Make an array that pyarrow has no converter for."""
    if pa.types.is_list(kind) and pa.types.is_dictionary(kind.value_type):
        lists = pa.array(values)
        inner = lists.flatten().dictionary_encode()
        return pa.ListArray.from_arrays(lists.offsets, inner)
    return (
        pa.array(values).cast(kind)
        if pa.types.is_dictionary(kind)
        else pa.array(values, kind)
    )


STRINGS = [
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.large_binary(),
    pa.binary_view(),
    pa.dictionary(pa.int32(), pa.string()),
]
MIXES: list[tuple[str, pa.DataType]] = [
    *(("goods_id", kind) for kind in STRINGS),
    *(("user_id", kind) for kind in STRINGS),
    *(("hist", pa.list_(kind)) for kind in STRINGS),
    *(("hist", pa.large_list(kind)) for kind in STRINGS[:5]),
    ("hist", pa.list_view(pa.string())),
    ("hist", pa.large_list_view(pa.string_view())),
    ("label", pa.bool_()),
    ("label", pa.int64()),
    ("label", pa.uint64()),
    ("label", pa.float16()),
    ("label", pa.float64()),
    ("label", pa.decimal128(9, 2)),
    ("time", pa.int32()),
    ("time", pa.float32()),
    ("weight", pa.float32()),
    ("weight", pa.int16()),
    ("weight", pa.decimal128(20, 3)),
]


@pytest.mark.parametrize(("name", "kind"), MIXES, ids=str)
def test_shards_that_mix_types_are_the_rows_of_one_type(
    name: str, kind: pa.DataType, tmp_path: Path
) -> None:
    table = numbered(300)
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        name_at = table.column_names.index(name)
        table = table.set_column(name_at, name, table[name].cast(pa.float64()))
    whole = next(iter(Rows.of_table(table, SPEC, "log").batches(300)))
    values = table[name].to_pylist()
    if pa.types.is_integer(kind):
        values = list(map(int, values))
    elif pa.types.is_boolean(kind):
        values = list(map(bool, values))
    elif pa.types.is_decimal(kind):
        values = [Decimal(str(v)) for v in values]
    elif pa.types.is_float16(kind):
        values = list(map(np.float16, values))
    place = table.column_names.index(name)
    other = table.set_column(place, name, of_kind(values, kind))
    for k in range(3):
        part = (table, other, table)[k].slice(100 * k, 100)
        pq.write_table(part, tmp_path / f"{k}.parquet", row_group_size=30)
    files = Rows.open([tmp_path], SPEC)
    for rows in (Rows.of_table(other, SPEC, "log"), files):
        for rng in (None, np.random.default_rng(0)):
            batches = list(rows.batches(64, window=150, rng=rng))
            at = np.concatenate([b.weights for b in batches]).astype(int)  # type: ignore[misc]
            assert sorted(at) == list(range(300))
            labels = np.concatenate([b.labels for b in batches])
            assert np.array_equal(labels, whole.labels[at])
            groups = np.concatenate([b.groups for b in batches])  # type: ignore[misc]
            assert np.array_equal(groups, whole.groups[at])  # type: ignore[index]
            for key in ("goods_id", "h.lengths"):
                ids = np.concatenate([b.inputs[key] for b in batches])
                assert np.array_equal(ids, whole.inputs[key][at])
            start = 0
            for batch in batches:
                ids = batch.inputs["hist"]
                mine = at[start : start + len(ids)]
                start += len(ids)
                assert np.array_equal(ids, whole.inputs["hist"][mine, : ids.shape[1]])
    older, newest = split_by_time(files, 0.2)
    older.check(lambda *_: None)
    assert older.num_rows + newest.num_rows == 300


@pytest.mark.parametrize(
    "make",
    [
        pa.list_,
        pa.large_list,
        pa.list_view,
        pa.large_list_view,
        lambda kind: pa.list_(kind, 2),
    ],
)
@pytest.mark.parametrize("inner", [pa.string(), pa.string_view(), pa.int8()], ids=str)
def test_lists_of_any_kind_become_the_same_lists(make: Any, inner: pa.DataType) -> None:  # noqa: ANN401
    values = [["1", "2"], None, [None, "3"], ["4", "5"], None, ["6", None]]
    if inner == pa.int8():
        values = [v and [x and int(x) for x in v] for v in values]  # type: ignore[misc]
    array = pa.array(values, make(inner))
    under_null = array
    if pa.types.is_list(array.type):  # what lies under a null is none of its elements
        offsets = pa.array([0, 2, 4, 6], pa.int32())
        whole = pa.array(["1", "2", "8", "9", "3", "4"]).cast(inner)
        mask = pa.array([False, True, False])
        under_null = pa.ListArray.from_arrays(offsets, whole, mask=mask)
    for part in (array, array.slice(1, 4), array.slice(2, 0), under_null):
        wide = widen(pa.table({"x": part}))["x"]
        wide.validate(full=True)
        kind = pa.int64() if inner == pa.int8() else pa.large_string()
        assert wide.type == pa.large_list(kind)
        assert wide.to_pylist() == part.to_pylist()
    chunks = pa.chunked_array([array, array.slice(3)])
    assert widen(pa.table({"x": chunks}))["x"].num_chunks == 2
    none = pa.chunked_array([], make(inner))
    assert len(widen(pa.table({"x": none}))["x"]) == 0


def test_large_unsigned_numbers_are_joined_as_such() -> None:
    some = [pa.table({"x": pa.array([n], pa.uint64())}) for n in (1, 1 << 63)]
    tables = [*some, pa.table({"x": [5]})]
    joined = join([(str(k), widen(t)) for k, t in enumerate(tables)], {})
    assert joined["x"].to_pylist() == [1, 1 << 63, 5]
    assert joined.schema.field("x").type == pa.uint64()
    tables.append(pa.table({"x": [-5]}))
    with pytest.raises(InputError) as caught:
        join([(str(k), widen(t)) for k, t in enumerate(tables)], {})
    assert str(caught.value) == (
        "expected values that can be uint64, as in other files, got int64 - at `x` of 3"
    )


def test_shards_of_nulls_alone_go_with_the_others(tmp_path: Path) -> None:
    table = numbered(90)
    for name, kinds in (
        ("hist", [pa.null(), pa.list_(pa.null())]),
        ("goods_id", [pa.null()]),
    ):
        for kind in kinds:
            place = table.column_names.index(name)
            nulls = table.set_column(place, name, pa.nulls(90, kind))
            wanted = SPEC.encode(pa.concat_tables([nulls.cast(table.schema), table]))
            for k, part in enumerate((nulls, table)):
                pq.write_table(part, tmp_path / f"{k}.parquet")
            [batch] = Rows.open([tmp_path], SPEC).batches(180)
            for key, ids in wanted.items():
                assert np.array_equal(batch.inputs[key], ids), key


def integer_spec() -> FeatureSpec:
    raw = SPEC.to_dict()
    raw["candidate"][0]["dtype"] = "int64"
    return FeatureSpec.from_dict(raw)


@pytest.mark.parametrize(
    "kind",
    [
        pa.int32(),
        pa.uint8(),
        pa.uint64(),
        pa.float64(),
        pa.float32(),
        pa.decimal128(38, 0),
        pa.decimal256(40, 2),
    ],
    ids=str,
)
def test_whole_numbers_of_any_type_are_the_same_ids(
    kind: pa.DataType, tmp_path: Path
) -> None:
    spec, rng = integer_spec(), np.random.default_rng(0)
    table = numbered(100)
    goods = pa.array([None, *rng.integers(0, 200, 99).tolist()], pa.int64())
    lists = pa.array([[None, 7, k] for k in range(100)], pa.list_(pa.int64()))
    table = table.set_column(1, "goods_id", goods).set_column(2, "hist", lists)
    other = table.set_column(1, "goods_id", goods.cast(kind))
    other = other.set_column(2, "hist", lists.cast(pa.list_(kind)))
    for k, part in enumerate((table, other, table)):
        pq.write_table(part, tmp_path / f"{k}.parquet")
    rows = Rows.open([tmp_path], spec)
    rows.check()
    [batch] = rows.batches(300)
    wanted = spec.encode(pa.concat_tables([table] * 3))
    for key, ids in wanted.items():
        assert np.array_equal(batch.inputs[key], ids), key


def test_fractions_among_whole_numbers_are_refused(tmp_path: Path) -> None:
    spec, table = integer_spec(), numbered(10)
    lists = pa.array([[1]] * 10)
    for k, goods in enumerate((pa.array(range(10)), pa.array([0.5] * 10))):
        part = table.set_column(1, "goods_id", goods).set_column(2, "hist", lists)
        pq.write_table(part, tmp_path / f"{k}.parquet")
    rows = Rows.open([tmp_path], spec)
    with pytest.raises(InputError) as caught:
        rows.check()
    assert str(caught.value).endswith(f"at `goods_id`, row 0 of {tmp_path}/1.parquet")
    with pytest.raises(InputError, match="values that can be int64, as in other"):
        list(rows.windows(100))


def test_decimals_go_with_other_numbers(tmp_path: Path) -> None:
    table = numbered(90)
    at = table.column_names.index("weight")
    texts = [f"{k}.{k:03}" for k in range(90)]
    weights = pa.array(list(map(Decimal, texts)), pa.decimal128(20, 3))
    exact = table.set_column(at, "weight", weights)
    pq.write_table(exact, tmp_path / "0.parquet")
    floats = table.set_column(at, "weight", pa.array(list(map(float, texts))))
    pq.write_table(floats, tmp_path / "1.parquet")
    [batch] = Rows.open([tmp_path], SPEC).batches(180)
    assert batch.weights is not None
    assert batch.weights.tolist() == [np.float32(float(t)) for t in texts] * 2


def test_windows_are_bounded_whatever_the_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("din_converter.rows.PIECE_ROWS", 500)
    pq.write_table(numbered(5000), tmp_path / "a.parquet", row_group_size=5000)
    rows = Rows.open([tmp_path], SPEC)
    assert len(rows.pieces) == 1
    sizes = [t.num_rows for t in rows.windows(700, np.random.default_rng(0))]
    assert sum(sizes) == 5000
    assert sizes == [1000] * 5
    first = next(iter(rows.windows(700, np.random.default_rng(0))))
    assert not np.array_equal(first["weight"], np.arange(first.num_rows))


def test_a_table_of_a_file_has_wide_types(tmp_path: Path) -> None:
    table = numbered(9000)
    pq.write_table(table, tmp_path / "a.parquet")
    found = read_table(tmp_path / "a.parquet", SPEC)
    assert found.num_rows == 9000
    assert found.schema.field("hist").type == pa.large_list(pa.large_string())
    wanted = SPEC.encode(table)
    for key, ids in SPEC.encode(found).items():
        assert np.array_equal(ids, wanted[key])
    pq.write_table(table.slice(0, 0), tmp_path / "b.parquet")
    assert read_table(tmp_path / "b.parquet", SPEC).num_rows == 0


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
        rows.check(lambda b, inside, seen=seen: seen.extend(b.weights[inside]))  # type: ignore[misc]
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


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_strings_stay_strings_to_an_encoder_of_uuids(kind: pa.DataType) -> None:
    encoder = {"type": "hash", "buckets": 1000, "uuid_as": "text"}
    goods = {"name": "goods", "dim": 2, "encoder": encoder}
    spec = FeatureSpec.from_dict({"format": 1, "label": "label", "candidate": [goods]})
    texts = pa.array(["0123456789abcdef", "x", None]).cast(kind)  # 16 bytes are no UUID
    table = pa.table({"goods": texts, "label": [0, 1, 0]})
    wide = join([("a", widen(table)), ("b", widen(table))], {})
    np.testing.assert_array_equal(
        spec.encode(wide)["goods"], np.tile(spec.encode(table)["goods"], 2)
    )
    binary = pa.table({"goods": pa.array([b"x", b"y"]), "label": [0, 1]})
    both = join([("a", widen(table)), ("b", widen(binary))], {})
    assert both["goods"].type == pa.large_binary()
