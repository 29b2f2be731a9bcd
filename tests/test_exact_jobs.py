# ruff: noqa: ANN401 - rows hold anything
"""Decimals, UUIDs and extension types from a file to the scores, and beside them."""

import uuid
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from din_converter import convert
from din_infer import Predictor
from din_infer.describe import describe
from din_infer.jobs.files import JobError, score_files
from din_infer.jobs.inspect import inspect_files
from din_infer.spec import FeatureSpec
from tests.jobs import as_structs, make_requests, make_table, scores_of
from tests.models import random_model, spec_dict


def spec_with(uuid_as: str) -> FeatureSpec:
    raw = spec_dict()
    raw["candidate"][0]["encoder"]["uuid_as"] = uuid_as
    return FeatureSpec.from_dict(raw)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Predictor]:
    folder = tmp_path_factory.mktemp("models")
    for uuid_as in ("bytes", "text"):
        convert(random_model(spec_with(uuid_as)), folder / f"{uuid_as}.onnx")
    return {u: Predictor(folder / f"{u}.onnx") for u in ("bytes", "text")}


def uuid_of(goods: str | None) -> uuid.UUID | None:
    return None if goods is None else uuid.uuid5(uuid.NAMESPACE_URL, goods)


def score_file(model: Predictor, table: pa.Table, folder: Path, name: str) -> Path:
    """Write the table and score the file; returns what was written."""
    pq.write_table(table, folder / f"{name}.parquet")
    score_files(model, folder / f"{name}.parquet", folder / name, progress=False)
    return folder / name / f"{name}.parquet"


def changed(table: pa.Table, name: str, kind: pa.DataType, change: Any) -> pa.Table:
    """The table with other values of a column, or of its lists."""

    def of(value: Any) -> Any:
        if isinstance(value, list):
            return [of(v) for v in value]
        return None if value is None else change(value)

    if pa.types.is_list(table.schema.field(name).type):
        kind = pa.list_(kind)
    values = [of(v) for v in table[name].to_pylist()]
    at = table.column_names.index(name)
    return table.set_column(at, name, pa.array(values, kind))


def with_uuids(table: pa.Table, uuid_as: str) -> tuple[pa.Table, pa.Table]:
    """The table with UUIDs as Arrow has them, and as the keys that stand for them."""
    other, keys = table, table
    for name in ("goods_id", "hist_goods_id"):
        other = changed(other, name, pa.binary(16), lambda v: uuid_of(v).bytes)
        if uuid_as == "text":
            keys = changed(keys, name, pa.string(), lambda v: str(uuid_of(v)))
        else:
            keys = changed(keys, name, pa.binary(), lambda v: uuid_of(v).bytes)
    return other, keys


def with_decimals(table: pa.Table) -> pa.Table:
    """The table with numbers as warehouses have them, which are exact in float64."""
    for name in ("cate_id", "hist_cate_id"):
        table = changed(table, name, pa.decimal128(38, 0), Decimal)
    for name, kind in (("price", pa.decimal256(76, 60)), ("age", pa.decimal128(20, 2))):
        table = changed(
            table, name, kind, lambda v: Decimal(v).quantize(Decimal("0.01"))
        )
    return table


@pytest.mark.parametrize("uuid_as", ["bytes", "text"])
def test_uuids_of_files_score_as_their_keys(
    models: dict[str, Predictor], uuid_as: str, tmp_path: Path
) -> None:
    model = models[uuid_as]
    table, keys = with_uuids(make_table(300), uuid_as)
    expected = model.score(keys)
    assert np.std(expected) > 0.01
    np.testing.assert_array_equal(model.score(table), expected)
    np.testing.assert_array_equal(
        scores_of(score_file(model, table, tmp_path, "in")), expected
    )
    requests, of_keys = with_uuids(make_requests(40), uuid_as)
    for name, form in (("lists", lambda t: t), ("structs", as_structs)):
        found = score_file(model, form(requests), tmp_path, name)
        wanted = score_file(model, form(of_keys), tmp_path, f"{name}-of-keys")
        assert (
            pq.read_table(found)["score"].to_pylist()
            == pq.read_table(wanted)["score"].to_pylist()
        )


def test_decimals_of_files_score_as_their_doubles(
    models: dict[str, Predictor], tmp_path: Path
) -> None:
    model = models["text"]
    table = with_decimals(make_table(300))
    doubles = table
    for name, kind in (("price", pa.float64()), ("age", pa.float64())):
        doubles = changed(doubles, name, kind, float)
    for name in ("cate_id", "hist_cate_id"):
        doubles = changed(doubles, name, pa.int64(), int)
    expected = model.score(doubles)
    np.testing.assert_array_equal(model.score(table), expected)
    np.testing.assert_array_equal(model.score(table.to_pylist()), expected)
    np.testing.assert_array_equal(
        scores_of(score_file(model, table, tmp_path, "in")), expected
    )


def test_they_are_explained_and_inspected(tmp_path: Path) -> None:
    convert(random_model(spec_with("text")), tmp_path / "model.onnx", explain=True)
    model = Predictor(tmp_path / "model.onnx")
    table, keys = with_uuids(with_decimals(make_table(50)), "text")
    of_keys = model.explain(keys)
    for one in (table, as_uuids(table)):
        made = model.explain(one)
        assert [r.score for r in made.rows] == [r.score for r in of_keys.rows]
        assert "Decimal" not in str(made) + repr(made.to_dict())
        assert "UUID" not in str(made) + repr(made.to_dict())
        assert len(made.to_html()) > 1000
    for name, one in (("uuids", table), ("keys", keys)):
        (tmp_path / name).mkdir()
        pq.write_table(one, tmp_path / name / "in.parquet")
    found, expected = (
        inspect_files(model.spec, tmp_path / name, progress=False)
        for name in ("uuids", "keys")
    )
    assert replace(found, files=expected.files) == expected
    assert "UUIDs as text" in describe(model.spec)


def as_uuids(table: pa.Table) -> list[dict[str, Any]]:
    """Rows of Python, with UUIDs of Python."""

    def of(value: Any) -> Any:
        if isinstance(value, list):
            return [of(v) for v in value]
        return uuid.UUID(bytes=value) if isinstance(value, bytes) else value

    return [{n: of(v) for n, v in row.items()} for row in table.to_pylist()]


def as_pickles(array: pa.Array) -> tuple[pa.Array, pa.Field]:
    """What Ray writes into Parquet where a column has no one type."""
    metadata = {"ARROW:extension:name": "ray.data.arrow_pickled_object"}
    pickles = array.cast(pa.large_binary())
    return pickles, pa.field("item", pickles.type, metadata=metadata)


PICKLES = "extension type ray.data.arrow_pickled_object over large_binary"


def test_pickles_of_files_are_refused(
    models: dict[str, Predictor], tmp_path: Path
) -> None:
    model = models["text"]
    table = make_table(5)
    pickles, field = as_pickles(table["goods_id"].combine_chunks())
    at = table.column_names.index("goods_id")
    table = table.set_column(at, field.with_name("goods_id"), pickles)
    with pytest.raises(JobError) as caught:
        score_file(model, table, tmp_path, "in")
    assert caught.value.got == PICKLES
    assert not (tmp_path / "in" / "in.parquet").exists()
    unused = make_table(5).append_column(field.with_name("unused"), pickles)
    assert len(scores_of(score_file(model, unused, tmp_path, "other"))) == 5


def test_pickles_in_lists_of_candidates_are_refused(
    models: dict[str, Predictor], tmp_path: Path
) -> None:
    requests = make_requests(5)
    lists = requests["goods_id"].combine_chunks()
    pickles, field = as_pickles(lists.flatten())
    kind = pa.list_(field)
    coded = pa.ListArray.from_arrays(lists.offsets, pickles, type=kind)
    at = requests.column_names.index("goods_id")
    table = requests.set_column(at, pa.field("goods_id", kind), coded)
    with pytest.raises(JobError) as caught:
        score_file(models["text"], table, tmp_path, "in")
    assert caught.value.got == PICKLES
