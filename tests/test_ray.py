"""Real Ray on this machine: datasets in, scores out, whatever dies on the way."""

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from numpy.typing import NDArray
from ray.data import ActorPoolStrategy, DataContext

from din_infer import InputError, Predictor
from din_infer.jobs.ray import Scorer, score_dataset
from tests.engines import example, make_model, requests_of, rows_of, with_bad_row

# Ray deprecates settings of its own, which it reads itself.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray\\..*"),
]
ROWS = 600
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


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    # short: sockets lie in it
    folder = tempfile.mkdtemp(prefix="ray")
    given = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given.items():
            patch.setenv(name, value)
        ray.init(
            num_cpus=6,  # in name, as the GPU: there need be none
            num_gpus=1,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=100 << 20,
            _node_ip_address="127.0.0.1",
            _temp_dir=folder,
            _system_config={"prestart_worker_first_driver": False},
        )
        DataContext.get_current().enable_progress_bars = False
        yield
        ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def in_order(dataset: Any) -> pa.Table:  # noqa: ANN401
    """All rows of a scored dataset, by their number."""
    blocks = [b for b in ray.get(dataset.to_arrow_refs()) if b.num_rows]
    return pa.concat_tables(blocks).sort_by("row")


def test_ragged_strings_become_scores(
    model: Path, table: pa.Table, scores: Scores, tmp_path: Path
) -> None:
    for part in range(2):
        pq.write_table(table.slice(part * 300, 300), tmp_path / f"{part}.parquet")
    read = ray.data.read_parquet(str(tmp_path))
    made = score_dataset(
        read, model, keep=["row", "hist_goods_id"], batch_size=64, concurrency=1
    )
    got = in_order(made)
    assert got.column_names == ["row", "hist_goods_id", "score"]
    assert got.schema.field("score").type == pa.float32()
    assert got["hist_goods_id"].to_pylist() == table["hist_goods_id"].to_pylist()
    np.testing.assert_allclose(np.asarray(got["score"]), scores, atol=1e-6)
    assert scores.std() > 0.1


def test_the_example_of_the_page_runs(
    model: Path, table: pa.Table, scores: Scores, tmp_path: Path
) -> None:
    shutil.copytree(model.parent, tmp_path, dirs_exist_ok=True)
    (tmp_path / "events").mkdir()
    pq.write_table(table, tmp_path / "events" / "part.parquet")
    exec(example("ray", tmp_path), {})
    got = pq.read_table(tmp_path / "scores")
    assert got.column_names == ["user_id", "goods_id", "score"]
    np.testing.assert_allclose(np.sort(got["score"]), np.sort(scores), atol=1e-6)


def test_requests_have_lists_of_scores_or_a_row_per_candidate(
    model: Path, table: pa.Table
) -> None:
    requests, pairs = requests_of(Predictor(model).spec, table.slice(0, 60))
    wanted = Predictor(model).score(pairs)
    data = ray.data.from_arrow(requests)
    lists = in_order(score_dataset(data, model, keep=["row"], concurrency=1))
    assert lists.schema.field("score").type.value_type == pa.float32()
    assert [len(x) for x in lists["score"]] == [n % 4 for n in range(60)]
    flat = np.concatenate([np.asarray(x.values) for x in lists["score"]])
    np.testing.assert_allclose(flat, wanted, atol=1e-6)
    keep = ["row", "goods_id"]
    made = score_dataset(data, model, keep=keep, explode=True, concurrency=1)
    exploded = in_order(made)
    assert exploded["row"].to_pylist() == pairs["row"].to_pylist()
    np.testing.assert_allclose(
        np.sort(np.asarray(exploded["score"])), np.sort(wanted), atol=1e-6
    )


def test_tensors_that_ray_makes_of_arrays_are_lists(
    model: Path, table: pa.Table, scores: Scores
) -> None:
    frame = pd.DataFrame(table.to_pylist())
    frame["profile"] = [np.array(x) for x in frame["profile"]]
    numbers = [np.array([] if x is None else x, int) for x in frame["hist_cate_id"]]
    frame["hist_cate_id"] = numbers
    data = ray.data.from_pandas(frame)
    kinds = dict(zip(data.schema().names, map(str, data.schema().types), strict=True))
    assert "Tensor" in kinds["profile"]
    assert "Tensor" in kinds["hist_cate_id"]
    made = in_order(score_dataset(data, model, keep=["row"], concurrency=1))
    np.testing.assert_allclose(np.asarray(made["score"]), scores, atol=1e-6)


def test_a_killed_actor_is_survived(
    model: Path, table: pa.Table, scores: Scores, tmp_path: Path
) -> None:
    class Slow(Scorer):
        """Says which process it is, and in its first batch waits to be killed."""

        def __call__(self, batch: pa.Table) -> pa.Table:
            mark = tmp_path / "pid"
            if not mark.exists():
                (tmp_path / "draft").write_text(str(os.getpid()))
                (tmp_path / "draft").rename(mark)
                time.sleep(60)
            made = super().__call__(batch)
            pids = pa.array([os.getpid()] * made.num_rows)
            return made.append_column("pid", pids)

    killed = []

    def kill() -> None:
        mark = tmp_path / "pid"
        while not mark.exists():
            time.sleep(0.01)
        killed.append(int(mark.read_text()))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    data = ray.data.from_arrow([table.slice(n, 100) for n in range(0, ROWS, 100)])
    made = data.map_batches(
        Slow,
        fn_constructor_args=(str(model),),
        fn_constructor_kwargs={"keep": ["row"]},
        batch_format="pyarrow",
        batch_size=100,
        compute=ActorPoolStrategy(size=1),
        num_cpus=1,
    )
    got = in_order(made)
    killer.join()
    assert got["row"].to_pylist() == list(range(ROWS))
    np.testing.assert_allclose(np.asarray(got["score"]), scores, atol=1e-6)
    assert killed[0] not in got["pid"].to_pylist()


def test_wrong_data_ends_the_job_by_column_and_row(
    model: Path, table: pa.Table
) -> None:
    data = ray.data.from_arrow(with_bad_row(table, 333))
    made = score_dataset(data, model, keep=["row"], batch_size=1000, concurrency=1)
    with pytest.raises(ray.exceptions.RayTaskError) as error:
        made.materialize()
    assert (
        "InputError: expected an id in [0, 50), got 50 - at `cate_id`, row 333 of a"
        " batch (row=333)\n"
    ) in str(error.value)


def test_a_bad_row_may_have_no_score(
    model: Path, table: pa.Table, scores: Scores
) -> None:
    data = ray.data.from_arrow(with_bad_row(table, 333))
    made = score_dataset(data, model, keep=["row"], on_error="null", concurrency=1)
    got = in_order(made)["score"]
    assert got.null_count == 1
    assert got[333].as_py() is None
    rest = [n for n in range(ROWS) if n != 333]
    np.testing.assert_allclose(got.take(rest).to_pylist(), scores[rest], atol=1e-6)


def test_missing_columns_are_said_before_anything_runs(
    model: Path, table: pa.Table
) -> None:
    data = ray.data.from_arrow(table.drop(["age"]))
    with pytest.raises(InputError, match="expected the columns age, got only user_id"):
        score_dataset(data, model)
    with pytest.raises(InputError, match="expected resources of at least 0, got num"):
        score_dataset(data, model, num_gpus=-1)


def test_a_worker_without_the_model_says_so(table: pa.Table, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    made = score_dataset(ray.data.from_arrow(table), path, concurrency=1)
    with pytest.raises(ray.exceptions.RayError) as error:
        made.materialize()
    assert (
        "ModelError: expected a model file on the worker's machine, got no such file -"
        f" at `{path}`. Every worker opens"
    ) in str(error.value)


def test_an_actor_with_a_gpu_never_scores_on_the_cpu(
    model: Path, table: pa.Table
) -> None:
    data = ray.data.from_arrow(table.slice(0, 5))
    made = score_dataset(data, model, num_gpus=1, concurrency=1)
    with pytest.raises(ray.exceptions.RayError, match="DeviceError: expected a"):
        made.materialize()


def test_threads_are_the_cpus_of_the_actor(model: Path) -> None:
    class Probe(Scorer):
        def threads(self) -> int:
            return self._predictor.threads

    def threads(cpus: float, **given: int) -> int:
        actor = ray.remote(num_cpus=cpus)(Probe).remote(str(model), **given)
        count: int = ray.get(actor.threads.remote(), timeout=300)
        ray.kill(actor)
        return count

    assert threads(2) == 2
    assert threads(0.5) == 1
    assert threads(1, threads=3) == 3
