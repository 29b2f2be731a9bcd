import json
import os
import shutil
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray

from din_converter import convert
from din_infer import FeatureSpec, InputError, ModelError, Predictor
from tests.engines import example, make_model, rows_of
from tests.models import random_model, random_rows, spec_dict

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
import mlflow.pyfunc
from mlflow.types.schema import AnyType, Array, DataType

from din_infer.jobs.mlflow import log_model, save_model, signature

Scores = NDArray[np.float32]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        # of pandas, for how MLflow compares columns
        "ignore:Operation with range is deprecated"
    ),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def table(model: Path) -> pa.Table:
    return rows_of(Predictor(model).spec, 100).drop(["row"])


@pytest.fixture(scope="module")
def scores(model: Path, table: pa.Table) -> Scores:
    return Predictor(model).score(table)


@pytest.fixture(scope="module")
def saved(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mlflow") / "saved"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Operation with range is deprecated")
        save_model(path, model)
    return path


def test_what_is_saved_is_the_model_its_signature_and_what_to_install(
    model: Path, saved: Path
) -> None:
    kept = {p.name: p.read_bytes() for p in (saved / "data" / "din").iterdir()}
    assert kept == {p.name: p.read_bytes() for p in model.parent.iterdir()}
    assert not [p for p in saved.rglob("*") if p.is_symlink() or p.suffix == ".pkl"]
    known = mlflow.models.Model.load(saved)
    assert known.signature == signature(Predictor(model).spec)
    assert known.metadata == {"din_infer.model_id": Predictor(model).model_id}
    wanted = (saved / "requirements.txt").read_text().split()
    assert [w.partition("==")[0] for w in wanted] == [
        "din-infer[cpu,mlflow]",
        "mlflow-skinny",
    ]
    example = mlflow.pyfunc.load_model(str(saved)).input_example
    assert len(example) == 1


def test_a_loaded_model_gives_the_predictors_scores(
    saved: Path, table: pa.Table, scores: Scores
) -> None:
    loaded = mlflow.pyfunc.load_model(str(saved))
    got = loaded.predict(pd.DataFrame(table.to_pylist()))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, scores, atol=1e-6)
    np.testing.assert_allclose(loaded.predict(table.to_pandas()), scores, atol=1e-6)
    assert scores.std() > 0.1


def test_the_example_of_the_page_runs(
    model: Path,
    table: pa.Table,
    scores: Scores,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(model.parent, tmp_path, dirs_exist_ok=True)
    pq.write_table(table, tmp_path / "events.parquet")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(example("mlflow", tmp_path), names)
    np.testing.assert_allclose(names["scores"], scores, atol=1e-6)


def test_it_loads_where_torch_and_onnx_are_not(
    saved: Path, table: pa.Table, scores: Scores, tmp_path: Path
) -> None:
    pq.write_table(table, tmp_path / "rows.parquet")
    code = f"""
        import sys
        for name in ("torch", "onnx", "onnxscript", "din_converter"):
            sys.modules[name] = None  # importing it fails
        import json
        import mlflow.pyfunc
        import pandas as pd
        loaded = mlflow.pyfunc.load_model({str(saved)!r})
        rows = pd.read_parquet({str(tmp_path / "rows.parquet")!r})
        print(json.dumps([float(s) for s in loaded.predict(rows)]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    got = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_allclose(got, scores, atol=1e-6)


def test_device_and_threads_can_be_said_on_loading(saved: Path, model: Path) -> None:
    def predictor(**config: object) -> Predictor:
        loaded = mlflow.pyfunc.load_model(str(saved), model_config=config or None)
        made: Predictor = loaded._model_impl.predictor
        return made

    assert predictor().device == "cpu"
    assert predictor().threads == Predictor(model).threads
    assert predictor(threads=3).threads == 3


def test_wrong_data_is_refused(saved: Path, table: pa.Table) -> None:
    loaded = mlflow.pyfunc.load_model(str(saved))
    rows = table.to_pylist()
    rows[17]["cate_id"] = 50
    with pytest.raises(InputError) as error:
        loaded.predict(pd.DataFrame(rows))
    assert str(error.value) == (
        "expected an id in [0, 50), got 50 - at `cate_id`, row 17"
    )
    with pytest.raises(MlflowException, match=r"missing inputs \['goods_id'\]"):
        loaded.predict(pd.DataFrame(table.drop(["goods_id"]).to_pylist()))
    with pytest.raises(InputError, match="expected a column `hist_goods_id`, got col"):
        loaded.predict(pd.DataFrame(table.drop(["hist_goods_id"]).to_pylist()))


def test_what_is_no_model_is_not_saved(tmp_path: Path) -> None:
    path = tmp_path / "no.onnx"
    with pytest.raises(ModelError) as error:
        save_model(tmp_path / "saved", path)
    assert str(error.value) == (
        f"expected a model file, got no such file - at `{path}`"
    )
    assert not (tmp_path / "saved").exists()


def test_a_saved_model_without_its_file_is_refused(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "saved")
    (tmp_path / "saved" / "data" / "din" / "model.onnx").unlink()
    with pytest.raises(ModelError, match=r"expected one \.onnx in the saved model, go"):
        mlflow.pyfunc.load_model(str(tmp_path / "saved"))


def test_a_logged_model_is_the_same(
    model: Path,
    table: pa.Table,
    scores: Scores,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
    try:
        with mlflow.start_run():
            info = log_model(model, name="din", threads=2)
        loaded = mlflow.pyfunc.load_model(info.model_uri)
    finally:
        mlflow.set_tracking_uri(before)
    got = loaded.predict(pd.DataFrame(table.to_pylist()))
    np.testing.assert_allclose(got, scores, atol=1e-6)
    assert loaded._model_impl.predictor.threads == 2


def test_a_signature_has_the_columns_of_the_spec() -> None:
    raw = spec_dict()
    raw["behavior"][0] |= {"length_column": "hist_len", "pad_value": "0"}
    raw["behavior"][0]["fields"] = {"hist_goods_id": "goods_id"}
    raw["multi_hot"][0] |= {"length_column": "tags_len"}
    spec = FeatureSpec.from_dict(raw)
    made = signature(spec)
    columns = {c["name"]: (c["type"], c["required"]) for c in made.inputs.to_dict()}
    assert list(columns) == [*spec.columns, "hist_len"]
    assert columns == {
        "user_id": ("string", True),
        "age": ("double", True),
        "goods_id": ("string", True),
        "cate_id": ("any", False),
        "hist_goods_id": ("any", False),
        "tags": ("any", False),
        "tags_len": ("any", False),
        "interests": ("any", False),
        "price": ("double", True),
        "profile": ("any", False),
        "hist_len": ("any", False),
    }
    assert made.outputs.to_dict() == [
        {
            "name": "score",
            "type": "tensor",
            "tensor-spec": {"dtype": "float32", "shape": (-1,)},
        }
    ]


def test_an_optional_column_may_be_left_out(tmp_path: Path) -> None:
    raw = spec_dict()
    raw["behavior"][0] |= {"length_column": "hist_len", "pad_value": "0"}
    raw["behavior"][0]["fields"] = {"hist_goods_id": "goods_id"}
    convert(random_model(raw), tmp_path / "model.onnx")
    save_model(tmp_path / "saved", tmp_path / "model.onnx")
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "saved"))
    predictor = Predictor(tmp_path / "model.onnx")
    table = rows_of(predictor.spec, 20).select(predictor.spec.columns)
    got = loaded.predict(pd.DataFrame(table.to_pylist()))
    np.testing.assert_allclose(got, predictor.score(table), atol=1e-6)
    assert "hist_len" not in table.column_names


def hostile_frames(model: Path) -> tuple[dict[str, pd.DataFrame], Scores]:
    """Rows with nulls in lists and hostile text, in each form that pandas has."""
    spec = Predictor(model).spec
    rows = random_rows(spec, 300, seed=3)
    rng = np.random.default_rng(3)
    for row in rows:
        del row["extra"]
        for name in ("hist_goods_id", "tags", "interests"):
            values = [None if rng.random() < 0.2 else v for v in row[name] or ()]
            row[name] = values
        row["tags"] = [*row["tags"], "a\0", "a", "None", "nan", ""]
        row["hist_cate_id"] = [
            None if rng.random() < 0.2 else v for v in row["hist_cate_id"] or ()
        ]
    table = pa.Table.from_pylist(rows)
    lists = pd.DataFrame(rows)
    arrays = table.to_pandas()
    arrow = table.to_pandas(types_mapper=pd.ArrowDtype)
    assert isinstance(arrays["tags"][0], np.ndarray)
    return {"lists": lists, "arrays": arrays, "arrow": arrow}, Predictor(model).score(
        rows
    )


@pytest.mark.parametrize("form", ["lists", "arrays", "arrow"])
def test_values_reach_the_model_as_they_are(
    form: str, model: Path, saved: Path
) -> None:
    frames, scores = hostile_frames(model)
    loaded = mlflow.pyfunc.load_model(str(saved))
    np.testing.assert_array_equal(loaded.predict(frames[form]), scores)


@pytest.mark.parametrize("layout", ["dataframe_split", "dataframe_records"])
def test_values_reach_a_served_model_as_they_are(
    layout: str, model: Path, saved: Path
) -> None:
    server = pytest.importorskip("mlflow.pyfunc.scoring_server")
    frames, scores = hostile_frames(model)
    loaded = mlflow.pyfunc.load_model(str(saved))
    orient = layout.removeprefix("dataframe_")
    text = json.dumps({layout: json.loads(frames["lists"].to_json(orient=orient))})
    schema = loaded.metadata.get_input_schema()
    answer = server.invocations(text, "application/json", loaded, schema)
    assert answer.status == 200, answer.response
    got = json.loads(answer.response)["predictions"]
    np.testing.assert_array_equal(np.array(got, np.float32), scores)
    rows = json.loads(frames["lists"].head(2).to_json(orient="records"))
    rows[1]["cate_id"] = 3.7
    text = json.dumps({"dataframe_records": rows})
    with pytest.raises(MlflowException) as error:
        server.invocations(text, "application/json", loaded, schema)
    assert isinstance(error.value.__context__, InputError)
    assert "got 3.7 - at `cate_id`, row 1" in str(error.value.__context__)


def test_an_older_signature_is_told_of(
    model: Path, saved: Path, tmp_path: Path
) -> None:
    shutil.copytree(saved, tmp_path / "saved")
    old = signature(Predictor(model).spec)
    for column in old.inputs:
        if isinstance(column.type, AnyType):
            column._type = Array(DataType.string)
    mlflow.models.set_signature(str(tmp_path / "saved"), old)
    with pytest.warns(UserWarning, match="rewrites nulls in lists") as told:
        mlflow.pyfunc.load_model(str(tmp_path / "saved"))
    assert str(told[0].message) == (
        f"{tmp_path / 'saved'}: the saved signature declares the type of lists; MLflow"
        " then rewrites nulls in lists before the model sees them, and scores may be"
        " wrong. Save the model again by din_infer.jobs.mlflow.save_model."
    )
