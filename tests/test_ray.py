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

from din_converter import convert
from din_infer import InputError, Predictor
from din_infer.jobs.ray import Scorer, _pool, score_dataset
from tests import hostile
from tests.engines import (
    example,
    make_mirror,
    make_model,
    requests_of,
    rows_of,
    with_bad_row,
)
from tests.models import random_model

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


def test_scaled_values_are_bit_equal_in_the_workers(tmp_path: Path) -> None:
    mirror, table, inputs = make_mirror(tmp_path)
    made = score_dataset(
        ray.data.from_arrow(table), mirror, keep=["row"], batch_size=64, concurrency=1
    )
    got = np.asarray(in_order(made)["score"])
    assert got.tobytes() == inputs.tobytes()


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


NAN = float("nan")
# What makes Ray pickle a column, by name; each is read beside ordinary rows.
PICKLED: dict[str, list[dict[str, Any]]] = {
    "a NaN beside strings": [{"goods_id": "g1"}, {"goods_id": NAN}],
    "NaN in lists": [{"hist_goods_id": ["g1", NAN]}, {"hist_goods_id": [NAN]}],
    "a missing list": [{"tags": NAN}, {"tags": ["a", None]}, {"tags": None}],
    "arrays of objects": [
        {"hist_goods_id": np.array(["g1", None], object)},
        {"hist_goods_id": np.array([], object)},
        {"hist_goods_id": None},
    ],
    "bytes beside a NaN": [{"goods_id": b"g1"}, {"goods_id": NAN}],
    "pandas.NA": [{"goods_id": pd.NA}, {"goods_id": "a\0"}],
    "numbers of NumPy": [{"age": np.float32(1.5)}, {"age": pd.NA}, {"age": NAN}],
    "lists of integers": [{"hist_cate_id": [1, None]}, {"hist_cate_id": NAN}],
    "hostile text": [{"goods_id": text} for text in (NAN, *hostile.VALUES)],
}


def block_of(rows: list[dict[str, Any]]) -> pa.Table:
    (block,) = ray.get(ray.data.from_items(rows, override_num_blocks=1).to_arrow_refs())
    return block


@pytest.mark.parametrize("case", PICKLED)
def test_pickled_values_are_scored_as_what_they_are(
    case: str, model: Path, table: pa.Table
) -> None:
    plain = table.drop(["row"]).slice(3, 60).to_pylist()
    changes = PICKLED[case]
    rows = [row | changes[k % len(changes)] for k, row in enumerate(plain)]
    if any("hist_goods_id" in c for c in changes):
        for row in rows:  # parallel lists of one length
            row["hist_cate_id"] = [1] * _length(row["hist_goods_id"])
            row["action"] = ["buy"] * _length(row["hist_goods_id"])
    if any("hist_cate_id" in c for c in changes):
        for row in rows:
            row["hist_goods_id"] = ["g"] * _length(row["hist_cate_id"])
            row["action"] = ["buy"] * _length(row["hist_cate_id"])
    block = block_of(rows)
    (name,) = changes[0]
    assert "pickled" in str(block.schema.field(name).type)
    wanted = Predictor(model).score(rows)
    made = Scorer(str(model), threads=1, keep=[name])(block)
    np.testing.assert_array_equal(made["score"], wanted)


def test_integers_of_more_than_64_bits(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    encoders = {"type": "hash", "buckets": 50}, {"type": "vocab", "values": [1, 7]}
    spec = {
        "format": 1,
        "candidate": [
            {"name": f"c{k}", "dtype": "int64", "encoder": e, "dim": 4}
            for k, e in enumerate(encoders)
        ],
        "model": {"type": "base", "tower": {"hidden": [4]}},
    }
    convert(random_model(spec), path)
    rows = [{"c0": c, "c1": 7} for c in (2**64 - 1, -1, None, 5)]
    rows += [{"c0": 3, "c1": c} for c in (2**70, -(2**90), 1, None)]
    wanted = Predictor(path).score(rows)
    block = block_of(rows)
    assert "pickled" in str(block.schema.field("c0").type)
    np.testing.assert_array_equal(Scorer(str(path), threads=1)(block)["score"], wanted)


def _length(value: Any) -> int:  # noqa: ANN401
    return 0 if value is None or isinstance(value, float) else len(value)


def test_pickled_candidates_of_requests(model: Path, table: pa.Table) -> None:
    requests, pairs = requests_of(Predictor(model).spec, table.slice(3, 20))
    rows, wanted = requests.to_pylist(), pairs.to_pylist()
    lost = wanted[0]["goods_id"]
    for row in (*(i for r in rows for i in r["items"]), *wanted):
        row["goods_id"] = NAN if row["goods_id"] == lost else row["goods_id"]
    scores = Predictor(model).score(wanted)
    block = block_of(rows)
    assert "pickled" in str(block.schema.field("items").type)
    made = Scorer(str(model), threads=1)(block)["score"].to_pylist()
    np.testing.assert_array_equal([s for some in made for s in some], scores)
    # candidates in parallel lists
    lists = [
        r | {n: [i[n] for i in r["items"]] for n in wanted[0] if n not in r}
        for r in rows
    ]
    block = block_of([{k: v for k, v in r.items() if k != "items"} for r in lists])
    assert "pickled" in str(block.schema.field("goods_id").type)
    made = Scorer(str(model), threads=1)(block)["score"].to_pylist()
    np.testing.assert_array_equal([s for some in made for s in some], scores)


def test_a_dataset_of_pickles_is_scored(model: Path, table: pa.Table) -> None:
    rows = table.to_pylist()
    for row in rows[::7]:
        row["goods_id"] = NAN
    rows[5]["other"] = {"any": [NAN, "x"]}
    data = ray.data.from_items(rows, override_num_blocks=2)
    made = in_order(score_dataset(data, model, keep=["row", "goods_id"]))
    np.testing.assert_allclose(made["score"], Predictor(model).score(rows), atol=1e-6)


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("/tmp/din-infer-evil",)


class _Own:
    pass


def test_pickled_times_are_no_integers(model: Path, table: pa.Table) -> None:
    rows = table.drop(["row"]).slice(3, 2).to_pylist()
    for row in rows:
        row |= {"hist_goods_id": ["a", "b"], "action": ["buy"] * 2}
    times = np.array([1, 2], "M8[ns]")  # of which tolist makes integers
    for value in (times, list(times)):
        changes = {"hist_cate_id": [1, 2]}, {"hist_cate_id": value}
        block = block_of([row | c for row, c in zip(rows, changes, strict=True)])
        assert "pickled" in str(block.schema.field("hist_cate_id").type)
        with pytest.raises(InputError, match=r"got datetime64\[ns\]") as error:
            Scorer(str(model), threads=1)(block)
        assert (error.value.column, error.value.row) == ("hist_cate_id", 1)


def test_a_pickled_column_is_no_key(model: Path, table: pa.Table) -> None:
    rows = table.drop(["row"]).slice(3, 2).to_pylist()
    block = block_of([rows[0] | {"goods_id": NAN}, rows[1]])
    with pytest.raises(InputError) as error:
        Predictor(model).score(block)
    assert str(error.value) == (
        "expected a column of strings, got extension type"
        " ray.data.arrow_pickled_object over large_binary - at `goods_id`. Turn it into"
        " text, numbers or lists of them."
    )


def test_only_plain_values_are_unpickled(model: Path, table: pa.Table) -> None:
    rows = table.slice(3, 4).to_pylist()
    block = block_of([r | {"other": _Own(), "goods_id": NAN} for r in rows] + rows[:1])
    made = Scorer(str(model), threads=1, keep=["other"])(block)  # kept as it is
    assert made["other"].to_pylist()[4] is None
    for value, got in ((_Own(), "_Own"), (_Evil(), "posix.mkdir")):
        bad = block_of([*rows, rows[0] | {"goods_id": value}])
        with pytest.raises(InputError) as error:
            Scorer(str(model), threads=1)(bad)
        assert (
            error.value.rule == "plain Python or NumPy values in Ray's pickled objects"
        )
        assert got in str(error.value.got)
        assert (error.value.column, error.value.row) == ("goods_id", 4)
    assert not Path("/tmp/din-infer-evil").exists()
    with pytest.raises(InputError) as error:
        Scorer(str(model), threads=1)(block_of([*rows, rows[0] | {"goods_id": 7}]))
    assert str(error.value) == (
        "expected strings, or lists of them, got 7 - at `goods_id`, row 4"
    )


def test_tensors_of_more_axes_and_of_text_are_refused(
    model: Path, table: pa.Table
) -> None:
    rows = table.slice(3, 2).to_pylist()
    for name, value in (
        ("profile", np.ones((2, 2))),
        ("hist_cate_id", np.ones((2, 2), int)),
        ("tags", np.array(["ab", "c"])),
    ):
        block = block_of([r | {name: value} for r in rows])
        assert "Tensor" in str(block.schema.field(name).type)
        with pytest.raises(InputError) as error:
            Scorer(str(model), threads=1)(block)
        assert str(error.value) == (
            "expected tensors of Ray with one axis, and of numbers, got"
            f" {block.schema.field(name).type} - at `{name}`. Give lists in place of"
            " NumPy arrays: array.tolist()."
        )


def test_other_batches_than_arrow_are_refused(model: Path, table: pa.Table) -> None:
    for batch in (table.to_pandas(), {"goods_id": np.array(["a"])}):
        with pytest.raises(InputError) as error:
            Scorer(str(model), threads=1)(batch)  # type: ignore[arg-type]
        assert str(error.value) == (
            f"expected a pyarrow.Table, got {type(batch).__name__} - at `batch`. Give"
            ' batch_format="pyarrow" to map_batches.'
        )


def test_a_pool_leaves_a_cpu_to_reading(
    model: Path, table: pa.Table, scores: Scores, tmp_path: Path
) -> None:
    for part in range(2):
        pq.write_table(table.slice(part * 300, 300), tmp_path / f"{part}.parquet")
    data = ray.data.read_parquet(str(tmp_path))
    made = score_dataset(data, model, keep=["row"], concurrency=2, num_cpus=3)
    np.testing.assert_allclose(in_order(made)["score"], scores, atol=1e-6)

    def sizes(*given: Any) -> tuple[float, float]:  # noqa: ANN401
        pool = _pool(*given)
        return pool.min_size, pool.max_size

    assert sizes(6, 1) == (5, 6)
    assert sizes(5, 1) == (5, 5)
    assert sizes((1, 9), 1) == (1, 9)
    assert sizes((6, 9), 1) == (5, 9)
    assert sizes(None, 5) == (1, float("inf"))
    assert sizes(100, 0) == (100, 100)
    for cpus in (5.5, 6, 8):
        with pytest.warns(UserWarning, match="an actor takes") as told:
            assert sizes(1, cpus) == (1, 1)
        assert str(told[0].message) == (
            f"an actor takes {cpus:g} of the cluster's 6 CPUs, and reading needs one"
            " more: unless the cluster grows, the job will wait for ever. Give fewer"
            " num_cpus; threads may be more."
        )
    for given in (0, -1, (0, 2), (3, 2), 1.5):
        with pytest.raises(InputError, match="concurrency"):
            _pool(given, 1)  # type: ignore[arg-type]
