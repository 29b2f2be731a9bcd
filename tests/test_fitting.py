"""Constants that din-train fits to the training rows."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from din_converter import convert, load, save
from din_converter.cli import train_main
from din_converter.fitting import adopt_constants, fit_spec
from din_converter.rows import Rows, split_by_time
from din_converter.run import RunFolder
from din_converter.train import Settings, train
from din_infer import FeatureSpec, InputError, ModelError, Predictor
from din_infer.jobs.inspect import inspect_files

GOODS = {"name": "goods", "dim": 4, "encoder": {"type": "hash", "buckets": 40}}
ROWS = 600
QUIET = {"progress": False, "threads": 1}


def spec_of(*dense: dict[str, Any], **sections: Any) -> FeatureSpec:  # noqa: ANN401
    raw = {
        "format": 1,
        "label": "label",
        "time": "time",
        "candidate": [GOODS],
        "dense": [{"side": "candidate", **d} for d in dense],
        "model": {"tower": {"hidden": [4]}},
    }
    return FeatureSpec.from_dict(raw | copy.deepcopy(sections))


def log(**columns: Any) -> pa.Table:  # noqa: ANN401
    rng = np.random.default_rng(0)
    price = rng.uniform(5, 200, ROWS)
    price[-60:] = 1e6  # held out
    made = {
        "goods": [f"g{g}" for g in rng.integers(0, 30, ROWS)],
        "price": price,
        "unit": rng.normal(size=ROWS),
        "counts": rng.poisson(0.7, ROWS).astype(float),
        "vector": list(rng.normal(size=(ROWS, 2)) * [1, 50]),
        "label": rng.integers(0, 2, ROWS),
        "time": np.arange(ROWS),
    }
    return pa.table(made | columns)


def fitted(spec: FeatureSpec, table: pa.Table, **options: Any) -> dict[str, Any]:  # noqa: ANN401
    """The raw spec, fitted to all rows of a table."""
    return fit_spec(spec, Rows.of_table(table, spec, "rows"), **options)[0].to_dict()


def scale_of(kind: str, values: Any, **options: Any) -> dict[str, Any]:  # noqa: ANN401
    spec = spec_of({"name": "x", "scale": {"type": kind, **options}})
    table = log(x=pa.array(values + [None] * (ROWS - len(values)), pa.float64()))
    scale: dict[str, Any] = fitted(spec, table)["dense"][0]["scale"]
    return scale


def test_constants_are_those_of_the_training_part(tmp_path: Path) -> None:
    spec = spec_of({"name": "price", "scale": {"type": "standard"}})
    table = log()
    older = table["price"].to_numpy()[:-60]
    found = []
    for size in (50, 7000):
        pq.write_table(table, tmp_path / "rows.parquet", row_group_size=size)
        rows = Rows.open([tmp_path / "rows.parquet"], spec)
        part, _ = split_by_time(rows, 0.1)
        fit, notes = fit_spec(spec, part)
        found.append(fit.to_dict()["dense"][0]["scale"])
        assert notes[0].startswith('price: scale = { type = "standard", mean = 10')
        assert notes[0].endswith("fitted to 540 values")
    assert found[0] == found[1]
    assert found[0]["mean"] == pytest.approx(older.mean(), rel=1e-14)
    assert found[0]["std"] == pytest.approx(older.std(), rel=1e-14)
    trained = train(spec, rows, None, Settings(epochs=1, **QUIET)).model
    assert trained.spec.to_dict()["dense"][0]["scale"] == found[0]


def test_each_type_is_fitted_to_what_is_there() -> None:
    assert scale_of("standard", [1.0, 3.0]) == {"type": "standard", "mean": 2, "std": 1}
    assert scale_of("minmax", [4.0, -1.0]) == {"type": "minmax", "min": -1, "max": 4}
    logs = np.array([-math.log(10), 0.0, math.log(100)])
    found = scale_of("log1p", [-9.0, 0.0, 99.0])
    assert found["mean"] == pytest.approx(logs.mean())
    assert found["std"] == pytest.approx(logs.std())
    values = [float(x) for x in range(101)]
    found = scale_of("quantile", values[::-1], quantiles=4)
    assert found == {"type": "quantile", "boundaries": [0.0, 25.0, 50.0, 75.0, 100.0]}
    heavy = [0.0] * 90 + values[1:11]  # which has all quantiles but the last
    found = scale_of("quantile", heavy, quantiles=10)
    assert found == {"type": "quantile", "boundaries": [0.0, 10.0]}


@pytest.mark.parametrize("kind", ["standard", "log1p", "minmax", "quantile"])
@pytest.mark.parametrize("values", [[0.1] * 50, []])
def test_what_is_constant_or_never_there_becomes_0(
    kind: str, values: list[float]
) -> None:
    spec = spec_of({"name": "x", "missing": 7.0, "scale": {"type": kind}})
    table = log(x=pa.array(values + [None] * (ROWS - len(values)), pa.float64()))
    fit, notes = fit_spec(spec, Rows.of_table(table, spec, "rows"))
    assert not fit.encode(table)["x"].any()
    why = "it is constant" if values else "it has none"
    assert notes[0].endswith(
        f"fitted to {len(values)} values; {why}, so each becomes 0"
    )


def test_a_list_has_constants_for_each_value() -> None:
    spec = spec_of({"name": "vector", "dim": 2, "scale": {"type": "standard"}})
    table = log()
    scale = fitted(spec, table)["dense"][0]["scale"]
    values = np.stack(table["vector"].to_numpy())
    assert scale["mean"] == pytest.approx(values.mean(axis=0))
    assert scale["std"] == pytest.approx(values.std(axis=0))
    long = log(vector=[[1.0, 2.0]] * 99 + [[1.0]] * (ROWS - 99))
    with pytest.raises(InputError) as caught:
        fitted(spec, long)
    assert str(caught.value) == "expected 2 values, got 1 - at `vector`, row 99 of rows"


def test_fields_far_from_unit_range_get_a_scale_and_it_is_said() -> None:
    spec = spec_of({"name": "price"}, {"name": "unit"}, {"name": "vector", "dim": 2})
    rows = Rows.of_table(log(), spec, "rows")
    fit, notes = fit_spec(spec, rows)
    price, unit, vector = fit.to_dict()["dense"]
    assert price["scale"]["type"] == vector["scale"]["type"] == "standard"
    assert "scale" not in unit
    assert [note.split(":")[0] for note in notes] == ["price", "vector"]
    assert notes[0].endswith(
        "fitted to 600 values. Added, since they are far from unit range;"
        ' scale = "none" in the spec leaves them as they are'
    )
    assert fit_spec(spec, rows, add_scales=False) == (spec, [])
    refused = spec_of({"name": "price", "scale": "none"})
    assert fit_spec(refused, rows) == (refused, [])
    assert fit_spec(fit, rows)[0].to_dict()["dense"] == [price, unit, vector]


def test_boundaries_are_fitted_once_for_all_that_share_them() -> None:
    encoder = {"type": "bucketize", "boundaries": {"quantiles": 4}}
    spec = spec_of(
        candidate=[GOODS, {"name": "price", "dim": 2, "encoder": encoder}],
        user=[{"name": "counts", "dim": 2, "encoder": encoder}],
        behavior=[
            {
                "name": "history",
                "max_len": 3,
                "pad_value": -1,
                "fields": {
                    "age": {"dim": 2, "encoder": encoder},
                    "prices": {"pairs": "price", "dtype": "float"},
                },
            }
        ],
        multi_hot=[
            {
                "name": "tags",
                "column": "prices",
                "side": "user",
                "pooling": "sum",
                "max_len": 9,
                "shares": "price",
            }
        ],
    )
    lists = [[float(i % 8), -1.0] for i in range(ROWS)]
    table = log(age=lists, prices=lists)
    fit, notes = fit_spec(spec, Rows.of_table(table, spec, "rows"))
    price = np.sort(table["price"].to_numpy())
    assert [f.encoder.boundaries for f in (*fit.user, *fit.candidate[1:])] == [
        (1.0,),  # of 0, 0 and 1: the smallest separates none
        tuple(price[[149, 299, 449]]),
    ]
    assert fit.behavior[0].fields[0].encoder.boundaries == (1.0, 3.0, 5.0)
    assert fit.behavior[0].fields[1].encoder == fit.multi_hot[0].encoder
    assert {n: t.rows for n, t in fit.tables.items()} == {
        "goods": 40, "price": 5, "counts": 3, "age": 5
    }  # fmt: skip
    assert len(notes) == 3
    assert notes[0] == "counts: boundaries = [1], fitted to 600 values"
    ids = fit.encode(table)["counts"]
    assert set(ids.tolist()) == {1, 2}


@pytest.mark.parametrize("key", ["separator", "format"])
def test_lists_that_are_text_are_fitted_as_lists_are(key: str) -> None:
    def write(values: list[float | None]) -> str:
        if key == "format":
            return json.dumps(values)
        return "|".join("" if v is None else repr(v) for v in values)

    encoder = {"type": "bucketize", "boundaries": {"quantiles": 4}}
    rng = np.random.default_rng(1)
    lists = [[*rng.normal(size=i % 5).tolist(), None][: i % 6] for i in range(ROWS)]
    vectors = (rng.normal(size=(ROWS, 2)) * [1, 50]).tolist()
    found = []
    for how in ({}, {key: {"separator": "|", "format": "json"}[key]}):
        spec = spec_of(
            {"name": "vector", "dim": 2, "scale": {"type": "standard"}, **how},
            behavior=[
                {
                    "name": "history",
                    "max_len": 3,
                    "fields": {"age": {"dim": 2, "encoder": encoder, **how}},
                }
            ],
        )
        table = log(age=lists, vector=vectors)
        if how:
            texts = {"age": map(write, lists), "vector": map(write, vectors)}
            table = log(**{k: list(v) for k, v in texts.items()})
        fit, notes = fit_spec(spec, Rows.of_table(table, spec, "rows"))
        found.append((fit.behavior[0].fields[0].encoder, fit.dense[0].scale, notes))
        assert len(notes) == 2
    assert found[0] == found[1]
    assert len(found[0][0].boundaries) == 3


def test_json_lines_are_fitted_and_inspected_as_parquet_is(tmp_path: Path) -> None:
    scale = {"type": "standard"}
    encoder = {"type": "bucketize", "boundaries": {"quantiles": 4}}
    field = {"name": "age", "dim": 2, "encoder": encoder}
    spec = spec_of({"name": "price", "scale": scale}, user=[field])
    table = log(age=np.random.default_rng(1).normal(40, 9, ROWS))
    pq.write_table(table, tmp_path / "log.parquet")
    lines = [json.dumps(row) + "\n" for row in table.to_pylist()]
    (tmp_path / "log.jsonl").write_text("".join(lines))
    made = {}
    for name in ("log.parquet", "log.jsonl"):
        made[name] = fit_spec(spec, Rows.open([tmp_path / name], spec))[0].to_json()
        inspect_files(spec, tmp_path / name, progress=False)
    assert made["log.jsonl"] == made["log.parquet"]


def test_a_warm_start_keeps_the_constants() -> None:
    plain = {"name": "price"}
    open_ = spec_of(plain, {"name": "unit", "scale": {"type": "quantile"}})
    settings = Settings(epochs=1, **QUIET)
    first = train(open_, log(), None, settings)
    moved = log(price=np.random.default_rng(3).uniform(900, 1000, ROWS))
    warm = train(open_, moved, None, settings, start=first.model)
    assert warm.model.spec == first.model.spec
    raw = train(
        spec_of(plain), log(), None, Settings(epochs=1, add_scales=False, **QUIET)
    )
    warm = train(spec_of(plain), moved, None, settings, start=raw.model)
    assert "scale" not in warm.model.spec.to_dict()["dense"][0]
    for scale, message in (
        (
            {"type": "minmax"},
            "expected a scale of type 'minmax', as the spec has, got None"
            " - at `warm start: price`",
        ),
        (
            {"type": "standard", "mean": 0, "std": 1},
            "expected a model of the same spec, whose ids mean the same, got dense"
            " price.scale None and now Scale(type='standard', low=(0.0,), spre… - at"
            " `warm start`",
        ),
    ):
        with pytest.raises(ModelError) as caught:
            train(spec_of(plain | {"scale": scale}), moved, start=raw.model)
        assert str(caught.value) == message
    encoder = {"type": "bucketize", "boundaries": {"quantiles": 4}}
    field = {"name": "counts", "dim": 2, "encoder": encoder}
    spec = spec_of(candidate=[GOODS, field])
    known = FeatureSpec.from_dict(fitted(spec, log()))
    assert adopt_constants(spec, known) == known
    other = spec_of(candidate=[GOODS, field | {"encoder": GOODS["encoder"]}])
    with pytest.raises(ModelError) as refused:
        adopt_constants(spec, other)
    assert str(refused.value) == (
        "expected a bucketize encoder, as the spec has, got 'hash'"
        " - at `warm start: counts`"
    )


def test_a_resumed_run_keeps_the_constants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, table = spec_of({"name": "price"}), log()
    settings = Settings(epochs=2, patience=9, **QUIET)
    whole = train(spec, table, None, settings, run=RunFolder(tmp_path / "whole", {}))
    saved = RunFolder.save

    def kill(self: RunFolder, content: dict[str, Any]) -> None:
        saved(self, content)
        raise KeyboardInterrupt

    run = RunFolder(tmp_path / "killed", {})
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save", kill)
        with pytest.raises(KeyboardInterrupt):
            train(spec, table, None, settings, run=run)
    kept = FeatureSpec.load(tmp_path / "killed" / "spec.json")
    assert kept == whole.model.spec
    monkeypatch.setattr("din_converter.train.fit_spec", None)
    notes: list[str] = []
    again = train(
        spec, table, None, settings, run=run, resume=True, on_note=notes.append
    )
    assert (again.model.spec, notes) == (kept, [])
    for key, value in whole.model.state_dict().items():
        assert (value == again.model.state_dict()[key]).all()


def test_values_that_no_double_measures_are_refused() -> None:
    with pytest.raises(InputError) as caught:
        scale_of("standard", [-1.7e308, 1.7e308])
    assert str(caught.value) == (
        "expected values whose deviation and range float64 holds, to fit a scale to,"
        " got values from -1.7e+308 to 1.7e+308 - at `x`."
        ' Give a scale of type "log1p", or `scale = "none"`.'
    )


def test_lists_that_lengths_measure_need_numbers() -> None:
    encoder = {"type": "bucketize", "boundaries": {"quantiles": 4}}
    tags = {"name": "tags", "side": "user", "pooling": "sum", "dim": 2, "max_len": 9}
    tags |= {"encoder": encoder, "length_column": "n"}
    spec = spec_of(multi_hot=[tags])
    with pytest.raises(ModelError) as caught:
        fitted(spec, log(tags=[[1.0]] * ROWS, n=[1] * ROWS))
    assert str(caught.value) == (
        "expected numbers for lists that a `length_column` alone measures, got"
        " quantiles = 4 - at `tags: boundaries`"
    )


@pytest.mark.slow
def test_the_command_says_what_it_fits_and_the_model_has_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    when = 1.7e9 + np.arange(ROWS) * 3600.0
    spec = spec_of(
        {"name": "price", "scale": {"type": "log1p"}},
        {"name": "when"},
        {"name": "vector", "dim": 2, "scale": {"type": "quantile", "quantiles": 9}},
    )
    pq.write_table(log(when=when), tmp_path / "rows.parquet")
    (tmp_path / "features.json").write_text(spec.to_json())
    words = [str(tmp_path / "rows.parquet"), "--spec", str(tmp_path / "features.json")]
    words += ["--out", str(tmp_path / "model.pt"), "--epochs", "1", "--threads", "1"]
    assert train_main([*words, "--quiet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[2:5]] == ["price", "when", "vector"]
    assert lines[5].startswith("epoch")
    model = load(tmp_path / "model.pt")
    kept = json.loads((tmp_path / "model.run" / "spec.json").read_text())
    assert model.spec.to_dict() == kept
    convert(tmp_path / "model.pt", tmp_path / "model.onnx")
    predictor = Predictor(tmp_path / "model.onnx", threads=1)
    assert predictor.spec == model.spec
    assert np.isfinite(predictor.score(log(when=when))).all()
    save(model, tmp_path / "again.pt")
    assert load(tmp_path / "again.pt").spec == model.spec
    assert train_main([*words, "--quiet", "--no-scale"]) == 0
    sections = load(tmp_path / "model.pt").spec.to_dict()["dense"]
    assert ["scale" in section for section in sections] == [True, False, True]
