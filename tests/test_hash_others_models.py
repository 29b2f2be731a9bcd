"""Models whose ids are those of other systems, through every command."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from din_converter import convert
from din_converter.cli import convert_main, train_main
from din_infer import Predictor
from din_infer.cli import main as score_main
from din_infer.jobs.inspect import inspect_files
from din_infer.spec import FeatureSpec
from tests import reference
from tests.models import random_model
from tests.test_hash_others import TOGETHER, rows_of, table_of


def model_spec() -> FeatureSpec:
    raw_spec = json.loads(json.dumps(TOGETHER))
    raw_spec["label"] = "label"
    raw_spec["user"].append(
        {
            "name": "account",
            "dim": 3,
            "encoder": {
                "type": "hash",
                "buckets": 40,
                "hash": "siphash24",
                "seed": [133, 137],
                "mask_value": "",
            },
        }
    )
    raw_spec["candidate"].append(
        {
            "name": "brand",
            "dim": 3,
            "encoder": {
                "type": "hash",
                "buckets": 40,
                "hash": "murmur3_32",
                "reduce": "abs",
                "alternate_sign": True,
                "prefix": "brand=",
            },
            "padding_row": "trained",
        }
    )
    raw_spec["candidate"].append(
        {
            "name": "price",
            "dim": 2,
            "dtype": "float",
            "encoder": {"type": "hash", "buckets": 40, "float_as": "bytes4"},
        }
    )
    return FeatureSpec.from_dict(raw_spec)


def full_table(count: int) -> pa.Table:
    rng = np.random.default_rng(count)
    table = table_of(rows_of(count, 21))
    names = [["", "a", None, "bc"][i] for i in rng.integers(0, 4, count)]
    table = table.append_column("account", pa.array(names, pa.string()))
    table = table.append_column("brand", pa.array(names[::-1], pa.string()))
    price = np.where(rng.random(count) < 0.1, np.nan, rng.integers(0, 9, count) / 4)
    table = table.append_column("price", pa.array(price.astype(np.float32)))
    return table.append_column("label", pa.array(rng.integers(0, 2, count)))


def test_a_model_is_converted_loaded_scored_explained_and_inspected(
    tmp_path: Path,
) -> None:
    spec = model_spec()
    model = random_model(spec)
    convert(model, tmp_path / "m.onnx", explain=True)
    predictor = Predictor(tmp_path / "m.onnx")
    assert predictor.spec == spec
    table = full_table(200)
    rows = table.to_pylist()
    expected, _ = reference.encode(spec, [{**r} for r in rows])
    inputs = spec.encode(table)
    for name, ids in expected.items():
        np.testing.assert_array_equal(inputs[name], ids, name)
    scores = predictor.score(table)
    np.testing.assert_allclose(
        predictor.score_encoded(inputs), scores, atol=1e-6, rtol=0
    )
    explained = predictor.explain(table.slice(0, 5))
    assert set(explained[0].candidate) >= {"shop", "goods", "size", "brand", "price"}
    (sequence,) = explained[0].sequences
    assert set(sequence.columns) == {"hist_shop", "hist_goods", "hist_size"}
    pq.write_table(table, tmp_path / "rows.parquet")
    found = inspect_files(spec, tmp_path / "rows.parquet")
    tables = {t.name: t for t in found.tables}
    keys = {
        (r["shop"], r["goods"], r["size"])
        for r in rows
        if (r["shop"], r["goods"], r["size"]) != (None, None, None)
    }
    hist = {
        of
        for r in rows
        for of in list(
            zip(r["hist_shop"], r["hist_goods"], r["hist_size"], strict=True)
        )[-7:]
        if of != (None, None, None)
    }
    assert tables["offer"].fields == ("offer", "hist_offer")
    assert tables["offer"].distinct == len(keys | hist)
    accounts = {r["account"] for r in rows} - {"", None}
    assert tables["account"].distinct == len(accounts)


def test_the_commands_train_convert_and_score_it(tmp_path: Path) -> None:
    table = full_table(300)
    pq.write_table(table, tmp_path / "rows.parquet")
    spec = model_spec()
    (tmp_path / "spec.json").write_text(spec.to_json())
    words = f"{tmp_path}/rows.parquet --spec {tmp_path}/spec.json --quiet --epochs 2"
    words += " --valid-fraction 0"
    assert train_main([*words.split(), "--out", f"{tmp_path}/m.pt"]) == 0
    words = f"{tmp_path}/m.pt --out {tmp_path}/m.onnx"
    assert convert_main(words.split()) == 0
    wanted = Predictor(tmp_path / "m.onnx").score(table)
    assert wanted.std() > 1e-4
    table = table.drop_columns(["label"])
    lines = [
        json.dumps(row) for row in table.to_pylist()
    ]  # has NaN, as Spark writes it
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    for source in ("rows.parquet", "rows.jsonl"):
        words = f"{tmp_path}/m.onnx {tmp_path}/{source} --out {tmp_path}/{source}.out"
        assert score_main(words.split()) == 0
        (path,) = (tmp_path / f"{source}.out").glob("*.parquet")
        scores = pq.read_table(path)["score"].to_numpy()
        np.testing.assert_allclose(scores, wanted, atol=1e-6, rtol=0)
