"""Real Spark on this machine: DataFrames in, scores out, whatever dies on the way."""

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from pyspark.errors import PythonException
from pyspark.resource import ResourceInformation
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.functions import expr, struct
from pyspark.sql.types import ArrayType, FloatType, StringType

from din_converter import convert
from din_infer import InputError, ModelError, Predictor
from din_infer.jobs import spark as engine
from din_infer.jobs.files import score_files
from din_infer.jobs.spark import score_dataframe, scorer
from tests.engines import (
    example,
    make_mirror,
    make_model,
    requests_of,
    rows_of,
    with_bad_row,
)
from tests.models import SPECS, random_model
from tests.reference_hash import SPARK, SPARK_ROWS

JAVA = shutil.which("java") or os.environ.get("JAVA_HOME")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not JAVA, reason="needs Java"),
    pytest.mark.filterwarnings(
        "ignore:PySpark does not yet fully support pandas:FutureWarning"
    ),
    # of pandas, for how MLflow compares columns
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),
]
ROWS = 600
HISTORY = ("hist_goods_id", "hist_cate_id", "action")
Scores = NDArray[np.float32]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def table(model: Path) -> pa.Table:
    return rows_of(Predictor(model).spec, ROWS)


@pytest.fixture(scope="module")
def scores(model: Path, table: pa.Table) -> Scores:
    return Predictor(model, threads=1).score(table)


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    folder = tmp_path_factory.mktemp("spark")
    settings = {
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.memory": "512m",
        "spark.local.dir": str(folder),
        "spark.sql.execution.arrow.maxRecordsPerBatch": "100",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.warehouse.dir": str(folder),
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        patch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        # a task may fail once: the second number
        builder = SparkSession.builder.master("local[2, 2]")
        session = builder.config(map=settings).getOrCreate()
        session.sparkContext.setLogLevel("OFF")
        yield session
        session.stop()


@pytest.fixture(scope="module")
def df(spark: SparkSession, table: pa.Table, tmp_path_factory: Any) -> DataFrame:  # noqa: ANN401
    return read(spark, table, tmp_path_factory.mktemp("rows"))


def read(spark: SparkSession, table: pa.Table, folder: Path) -> DataFrame:
    folder.mkdir(exist_ok=True)
    for part in range(2):
        half = table.num_rows // 2
        pq.write_table(table.slice(part * half, half), folder / f"{part}.parquet")
    return spark.read.parquet(str(folder))


def in_order(scored: DataFrame) -> list[Any]:
    return sorted(scored.collect(), key=lambda row: row["row"])


def close(rows: list[Any], scores: Scores) -> None:
    np.testing.assert_allclose([row["score"] for row in rows], scores, atol=1e-6)


def test_ragged_strings_become_scores(
    model: Path, table: pa.Table, scores: Scores, df: DataFrame
) -> None:
    made = score_dataframe(df, model, keep=["row", "hist_goods_id"])
    assert made.columns == ["row", "hist_goods_id", "score"]
    assert made.schema["hist_goods_id"] == df.schema["hist_goods_id"]
    assert made.schema["score"].dataType == FloatType()
    rows = in_order(made)
    assert [r["row"] for r in rows] == list(range(ROWS))
    lists = [r["hist_goods_id"] for r in rows]
    assert lists == table["hist_goods_id"].to_pylist()
    close(rows, scores)
    assert scores.std() > 0.1


def test_scaled_values_are_bit_equal_in_the_workers(
    spark: SparkSession, tmp_path: Path
) -> None:
    mirror, table, inputs = make_mirror(tmp_path)
    made = score_dataframe(read(spark, table, tmp_path / "rows"), mirror, keep=["row"])
    got = np.array([row["score"] for row in in_order(made)], np.float32)
    assert got.tobytes() == inputs.tobytes()


def test_the_example_of_the_page_runs(
    spark: SparkSession,
    model: Path,
    table: pa.Table,
    scores: Scores,
    tmp_path: Path,
) -> None:
    shutil.copytree(model.parent, tmp_path, dirs_exist_ok=True)
    (tmp_path / "events").mkdir()
    pq.write_table(table, tmp_path / "events" / "part.parquet")
    names = {"spark": spark}
    exec(example("spark", tmp_path), names)
    assert names["spark"] is spark
    got = pq.read_table(tmp_path / "scores")
    assert got.column_names == ["user_id", "goods_id", "score"]
    np.testing.assert_allclose(np.sort(got["score"]), np.sort(scores), atol=1e-6)


def test_requests_have_lists_of_scores_or_a_row_per_candidate(
    spark: SparkSession, model: Path, table: pa.Table, tmp_path: Path
) -> None:
    requests, pairs = requests_of(Predictor(model).spec, table.slice(0, 60))
    wanted = Predictor(model).score(pairs)
    df = read(spark, requests, tmp_path)
    lists = score_dataframe(df, model, keep=["row", "goods_id"])
    assert lists.schema["score"].dataType == ArrayType(FloatType())
    assert lists.schema["goods_id"].dataType == ArrayType(StringType())
    rows = in_order(lists)
    assert [len(r["score"]) for r in rows] == [n % 4 for n in range(60)]
    flat = [score for r in rows for score in r["score"]]
    np.testing.assert_allclose(flat, wanted, atol=1e-6)
    exploded = score_dataframe(df, model, keep=["row", "goods_id"], explode=True)
    assert exploded.schema["goods_id"].dataType == StringType()
    rows = in_order(exploded)
    assert [r["row"] for r in rows] == pairs["row"].to_pylist()
    close(rows, wanted)


def test_a_killed_worker_is_survived(
    model: Path, scores: Scores, df: DataFrame, tmp_path: Path
) -> None:
    score = scorer(model, keep=["row"])

    def slow(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Say which process this is; the first waits there to be killed."""
        for number, batch in enumerate(score(batches)):
            mark = tmp_path / "pid"
            if number == 1 and not mark.exists():
                draft = tmp_path / str(os.getpid())
                draft.write_text(str(os.getpid()))
                draft.rename(mark)
                time.sleep(60)
            pids = pa.array([os.getpid()] * batch.num_rows)
            yield batch.append_column("pid", pids)

    killed = []

    def kill() -> None:
        mark = tmp_path / "pid"
        while not mark.exists():
            time.sleep(0.01)
        killed.append(int(mark.read_text()))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    rows = in_order(df.mapInArrow(slow, "row long, score float, pid long"))
    killer.join()
    assert [r["row"] for r in rows] == list(range(ROWS))
    close(rows, scores)
    assert killed[0] not in {r["pid"] for r in rows}


def test_a_shipped_model_needs_no_shared_path(
    model: Path, scores: Scores, df: DataFrame, table: pa.Table, tmp_path: Path
) -> None:
    here = tmp_path / "mine"
    shutil.copytree(model.parent, here)
    made = score_dataframe(df, here / "model.onnx", keep=["row"], ship=True)
    again = score_dataframe(df, here / "model.onnx", keep=["row"], ship=True)
    shutil.rmtree(here)
    close(in_order(made), scores)
    close(in_order(again), scores)
    # another model of the same name is another model
    raw = SPECS["paper"] | {"calibration": {"offset": -1.0}}
    convert(random_model(raw, seed=5), tmp_path / "model.onnx")
    other = Predictor(tmp_path / "model.onnx").score(table)
    assert np.abs(other - scores).max() > 0.1
    made = score_dataframe(df, tmp_path / "model.onnx", keep=["row"], ship=True)
    close(in_order(made), other)


def test_a_session_without_a_context_cannot_ship(model: Path, df: DataFrame) -> None:
    class Connect:
        schema = df.schema
        sparkSession = SimpleNamespace(conf={"spark.sql.session.timeZone": "UTC"})

    with pytest.raises(InputError) as error:
        score_dataframe(Connect(), model, ship=True)  # type: ignore[arg-type]
    assert str(error.value) == (
        "expected a session that has a SparkContext, to ship the model, got Spark"
        " Connect - at `df`. Put the model where all workers see it, and leave out"
        " ship."
    )


def test_wrong_data_fails_the_job_by_column_and_row(
    spark: SparkSession, model: Path, table: pa.Table, scores: Scores, tmp_path: Path
) -> None:
    bad = read(spark, with_bad_row(table, 433), tmp_path)
    with pytest.raises(PythonException) as error:
        score_dataframe(bad, model, keep=["row"]).collect()
    assert (
        "InputError: expected an id in [0, 50), got 50 - at `cate_id`, row 33 of a"
        " batch (row=433)"
    ) in str(error.value)
    rows = in_order(score_dataframe(bad, model, keep=["row"], on_error="null"))
    assert rows[433]["score"] is None
    del rows[433]
    close(rows, np.delete(scores, 433))


def test_wrong_columns_and_models_are_said_before_anything_runs(
    model: Path, df: DataFrame, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="expected the columns age, got only user_id"):
        score_dataframe(df.drop("age"), model)
    with pytest.raises(InputError, match="expected the columns nothing, got only user"):
        score_dataframe(df, model, keep=["nothing"])
    with pytest.raises(ModelError, match="expected a model file, got no such file"):
        score_dataframe(df, tmp_path / "model.onnx")


def test_a_worker_without_the_model_says_so(df: DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    score = scorer(path)
    with pytest.raises(PythonException) as error:
        df.mapInArrow(score, "score float").collect()
    assert (
        "ModelError: expected a model file on the worker's machine, got no such file -"
        f" at `{path}`. Every worker opens"
    ) in str(error.value)


def test_a_worker_makes_one_predictor_of_the_tasks_cpus(
    model: Path, df: DataFrame
) -> None:
    text = str(model)

    def count(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for _ in scorer(text)(batches):
            pass
        made = {p.threads for p in engine._MODELS.values() if text in repr(p)}
        yield pa.record_batch({"pid": [os.getpid()], "threads": [sum(made)]})

    tasks = df.repartition(6).mapInArrow(count, "pid long, threads long").collect()
    assert len(tasks) == 6
    assert len({t["pid"] for t in tasks}) <= 2
    assert {t["threads"] for t in tasks} == {1}
    assert os.getpid() not in {t["pid"] for t in tasks}
    assert not engine._MODELS  # nor did the driver make one


def test_a_task_with_a_gpu_scores_on_that_one(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Task:
        granted: ClassVar[dict[str, Any]] = {}

        @classmethod
        def get(cls) -> "Task":
            return cls()

        def cpus(self) -> int:
            return 3

        def resources(self) -> dict[str, Any]:
            return self.granted

    def opened(path: str, **options: object) -> object:
        return {"path": path, **options}

    monkeypatch.setattr(engine, "_MODELS", {})
    monkeypatch.setattr(engine, "TaskContext", Task)
    monkeypatch.setattr(engine, "open_model", opened)
    wanted = {"path": str(model), "device": "cpu", "threads": 3, "model_id": None}
    assert engine._open(str(model), None, None, None) == wanted
    Task.granted = {"gpu": ResourceInformation("gpu", ["2", "5"])}
    wanted["device"] = "cuda:2"
    assert engine._open(str(model), None, None, None) == wanted
    wanted["device"] = "cpu"
    assert engine._open(str(model), None, "cpu", None) == wanted


def test_few_models_stay_open(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_MODELS", {})
    first = engine._open(str(model), 1, "cpu", None)
    assert engine._open(str(model), 1, "cpu", None) is first
    assert engine._open(str(model), 2, "cpu", None) is not first
    os.utime(model)  # written anew
    assert engine._open(str(model), 1, "cpu", None) is not first
    assert len(engine._MODELS) == 2


def test_types_of_columns_that_are_not_read_do_not_matter(
    spark: SparkSession, model: Path, table: pa.Table, scores: Scores, tmp_path: Path
) -> None:
    others = {
        "at": "current_timestamp()",
        "local": "localtimestamp()",
        "days": "INTERVAL '3' DAY",
        "months": "INTERVAL '2' MONTH",
        "any": "parse_json('1')",
        "nothing": "null",
        "map": "map('a', INTERVAL '2' MONTH)",
        "no map": "map()",
        "none": "array(array())",
        "items": "array(named_struct('at', INTERVAL '2' MONTH))",
        "a.b`c": "current_timestamp()",
    }
    df = read(spark, table, tmp_path)
    df = df.withColumns({name: expr(text) for name, text in others.items()})
    keep = ["row", "at", "local", "days", "a.b`c"]
    made = score_dataframe(df, model, keep=[*keep, "none"])
    kept = [df.schema[name].dataType for name in keep]
    assert [made.schema[name].dataType for name in keep] == kept
    first = df.select("at", "days").first()
    rows = in_order(made)
    close(rows, scores)
    assert first is not None
    assert rows[0]["days"] == first["days"]
    assert rows[0]["none"] == [[]]
    assert abs((rows[0]["at"] - first["at"]).total_seconds()) < 3600
    close(in_order(score_dataframe(df, model, keep=["row"])), scores)
    empty = df.withColumns(dict.fromkeys(HISTORY, expr("array()")))
    wanted = [row | {name: [] for name in HISTORY} for row in table.to_pylist()]
    made = score_dataframe(empty, model, keep=["row"])
    close(in_order(made), Predictor(model).score(wanted))
    for name, kind in (
        ("months", "interval month"),
        ("map", "map<string,interval month>"),
        ("no map", "map<void,void>"),
    ):
        with pytest.raises(InputError) as error:
            score_dataframe(df, model, keep=[name])
        assert str(error.value) == (
            "expected a type that Spark gives to Python workers by Arrow, got"
            f" {kind} - at `{name}`"
        )


def test_candidates_in_structs_may_have_times(
    spark: SparkSession, model: Path, table: pa.Table, tmp_path: Path
) -> None:
    requests, pairs = requests_of(Predictor(model).spec, table.slice(0, 30))
    df = read(spark, requests, tmp_path)
    df = df.withColumn(
        "items", expr("transform(items, i -> named_struct('at', now(), 'x', i))")
    )
    names = requests.schema.field("items").type.value_type.names
    fields = ", ".join(f"'{name}', i.x.{name}" for name in names)
    df = df.withColumn(
        "items", expr(f"transform(items, i -> named_struct('at', i.at, {fields}))")
    )
    rows = in_order(score_dataframe(df, model, keep=["row"]))
    flat = [score for r in rows for score in r["score"]]
    np.testing.assert_allclose(flat, Predictor(model).score(pairs), atol=1e-6)


def test_a_model_of_mlflow_scores_nulls_in_lists(
    spark: SparkSession, model: Path, table: pa.Table, tmp_path: Path
) -> None:
    pytest.importorskip("mlflow.pyfunc")
    from mlflow.pyfunc import spark_udf

    from din_infer.jobs.mlflow import save_model

    save_model(tmp_path / "saved", model)
    rows = table.to_pylist()
    for k, row in enumerate(rows):
        if row["hist_goods_id"] and k % 3 == 0:
            row["hist_goods_id"][k % len(row["hist_goods_id"])] = None
    given = pa.Table.from_pylist(rows, table.schema)
    df = read(spark, given, tmp_path / "rows")
    udf = spark_udf(
        spark, str(tmp_path / "saved"), result_type="float", env_manager="local"
    )
    names = Predictor(model).spec.columns
    found = df.withColumn("score", udf(struct(*names)))
    close(in_order(found), Predictor(model).score(given))


def literal(kind: str, value: str | bytes | int | float | None) -> str:
    """Say a value in SQL."""
    if value is None:
        text = "NULL"
    elif isinstance(value, bytes):
        text = f"X'{value.hex()}'"
    elif isinstance(value, str):
        text = f"'{value}'"
    elif isinstance(value, float):
        text = f"'{repr(value).replace('inf', 'Infinity')}'"
    elif kind == "DATE":
        text = f"DATE_FROM_UNIX_DATE({value})"
    elif kind.startswith("TIMESTAMP"):
        text = f"TIMESTAMP_MICROS({value})"
    elif kind == "BOOLEAN":
        text = str(bool(value))
    else:
        scale = int(kind.rstrip(")").split(",")[1]) if "," in kind else 0
        text = f"'{Decimal(value).scaleb(-scale)}'"
    return f"CAST({text} AS {kind})"


def test_the_table_of_hashes_is_what_spark_says(spark: SparkSession) -> None:
    columns = [([(kind, value)], *hashes) for kind, value, *hashes in SPARK]
    for values, xxhash64, murmur in [*columns, *SPARK_ROWS]:
        of = ", ".join(literal(kind, value) for kind, value in values)
        row = spark.sql(f"SELECT xxhash64({of}), hash({of})").first()
        assert row is not None
        assert (values, *row) == (values, xxhash64, murmur)


def test_files_that_spark_writes_are_scored(
    df: DataFrame, model: Path, table: pa.Table, tmp_path: Path
) -> None:
    predictor = Predictor(model, threads=1)
    scores = dict(enumerate(predictor.score(table).tolist()))
    for how in ("parquet", "json"):
        getattr(df.write, how)(str(tmp_path / how))
        out = tmp_path / f"{how} scored"
        made = score_files(predictor, tmp_path / how, out, keep=["row:int64"])
        parts = [pq.read_table(f) for f in made.files]
        got = {r["row"]: r["score"] for part in parts for r in part.to_pylist()}
        assert got == scores
        assert made.notes == []
