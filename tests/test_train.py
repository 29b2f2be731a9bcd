import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from din_converter import load, save
from din_converter.train import (
    Epoch,
    Settings,
    epoch_line,
    evaluate,
    read_labels,
    read_table,
    split_by_time,
    train,
)
from din_infer import FeatureSpec, InputError, ModelError, metrics
from tests.models import SPECS, random_model

QUIET = {"progress": False, "threads": 1}


def log_spec(**changes: Any) -> FeatureSpec:  # noqa: ANN401
    raw: dict[str, Any] = {
        "format": 1,
        "label": "label",
        "group": "user_id",
        "time": "time",
        "candidate": [
            {"name": "goods_id", "dim": 8, "encoder": {"type": "hash", "buckets": 300}}
        ],
        "behavior": [{"name": "h", "max_len": 9, "fields": {"hist": "goods_id"}}],
        "model": {"attention": {"hidden": [8]}, "tower": {"hidden": [8]}},
    }
    return FeatureSpec.from_dict(raw | changes)


def click_log(rows: int, seed: int = 0) -> pa.Table:
    """A click when the candidate is in the history, mostly."""
    rng = np.random.default_rng(seed)
    histories = [
        [f"g{g}" for g in rng.integers(0, 12, rng.integers(0, 7))] for _ in range(rows)
    ]
    goods = [f"g{g}" for g in rng.integers(0, 12, rows)]
    liked = np.array([g in h for g, h in zip(goods, histories, strict=True)])
    return pa.table(
        {
            "user_id": [f"u{u}" for u in rng.integers(0, rows // 10, rows)],
            "goods_id": goods,
            "hist": histories,
            "label": np.where(rng.random(rows) < 0.05, ~liked, liked).astype(np.int8),
            "time": np.arange(rows) // 3,
            "weight": rng.random(rows),
        }
    )


def test_training_learns_that_history_matters() -> None:
    spec, table = log_spec(), click_log(6000)
    seen: list[Epoch] = []
    settings = Settings(epochs=12, batch_size=64, learning_rate=0.01, **QUIET)
    trained = train(spec, table, None, settings, seen.append)
    assert seen == trained.epochs
    assert trained.best is not None
    assert trained.best.auc == max(e.auc for e in seen) > 0.9
    assert trained.best.gauc is not None
    assert trained.best.gauc > 0.85
    _, valid = split_by_time(table, spec, 0.1)
    again = metrics.auc(read_labels(valid, spec), evaluate(trained.model, valid))
    assert again == trained.best.auc
    blind = FeatureSpec.from_dict({**spec.to_dict(), "behavior": []})
    assert train(blind, table, None, settings).best.auc < 0.75  # type: ignore[union-attr]


def test_the_same_seed_gives_the_same_model_twice() -> None:
    spec, table = log_spec(), click_log(900)
    states = [
        train(spec, table, None, Settings(epochs=2, seed=s, **QUIET)).model.state_dict()
        for s in (5, 5, 6)
    ]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert not all(torch.equal(states[0][k], states[2][k]) for k in states[0])


def test_training_stops_when_validation_no_longer_improves() -> None:
    spec, table = log_spec(), click_log(600)
    noise = table.set_column(
        table.column_names.index("label"),
        "label",
        pa.array(np.random.default_rng(1).integers(0, 2, 600)),
    )
    settings = Settings(epochs=50, patience=2, learning_rate=0.02, **QUIET)
    trained = train(spec, noise, None, settings)
    assert trained.best is not None
    assert len(trained.epochs) == trained.best.number + 2 < 50


def test_without_validation_every_epoch_is_trained() -> None:
    settings = Settings(epochs=3, valid_fraction=0.0, **QUIET)
    trained = train(log_spec(time="none"), click_log(100), None, settings)
    assert [e.number for e in trained.epochs] == [1, 2, 3]
    assert trained.best is trained.epochs[-1]
    assert epoch_line(trained.epochs[-1]).split()[2:] == ["-", "-", "-"]


def test_sample_weights_count() -> None:
    table = click_log(800)
    zero = table.set_column(5, "weight", pa.array(np.zeros(800)))
    settings = Settings(epochs=1, **QUIET)
    weighted = log_spec(weight="weight")
    start = train(weighted, zero, None, settings)
    assert start.epochs[0].train_log_loss == 0.0
    assert train(weighted, table, None, settings).epochs[0].train_log_loss > 0.1


def test_the_newest_rows_are_held_out() -> None:
    spec, table = log_spec(), click_log(1000)
    shuffled = table.take(pa.array(np.random.default_rng(0).permutation(1000)))
    older, newest = split_by_time(shuffled, spec, 0.2)
    assert older.num_rows + newest.num_rows == 1000
    assert 200 <= newest.num_rows <= 203
    assert np.max(older["time"]) < np.min(newest["time"])


@pytest.mark.parametrize(
    "kind", [pa.timestamp("us"), pa.date32(), pa.date64(), pa.int32(), pa.float64()]
)
def test_times_may_be_numbers_dates_or_timestamps(kind: pa.DataType) -> None:
    table = click_log(300)
    days = pa.array(np.arange(300, dtype=np.int32) // 3)
    times = days.cast(pa.date32()) if pa.types.is_temporal(kind) else days
    table = table.set_column(4, "time", times.cast(kind))
    older, newest = split_by_time(table, log_spec(), 0.2)
    assert (older.num_rows, newest.num_rows) == (240, 60)


FAULTS = {
    "expected a label 0 or 1, got 2.0 - at `label, row 3`": ("label", [0, 1, 0, 2]),
    "expected a label 0 or 1, got nan - at `label, row 1`": ("label", [0, None, 1, 1]),
    "expected a finite weight of at least 0, got -1.0 - at `weight, row 0`": (
        "weight",
        [-1.0, 1, 1, 1],
    ),
    "expected a time, got null - at `time, row 2`": ("time", [1, 2, None, 3]),
    "expected times before the newest ones, to train on, got all at 7 or later"
    " - at `time`": ("time", [7, 7, 7, 7]),
}


@pytest.mark.parametrize("message", FAULTS)
def test_wrong_training_rows_are_named(message: str) -> None:
    name, values = FAULTS[message]
    table = click_log(4000).slice(0, 4)
    table = table.set_column(table.column_names.index(name), name, pa.array(values))
    fraction = 0.25 if name == "time" else 0.0
    settings = Settings(valid_fraction=fraction, **QUIET)
    with pytest.raises(InputError) as caught:
        train(log_spec(weight="weight"), table, None, settings)
    assert str(caught.value) == message


def test_a_spec_that_cannot_be_trained_is_refused() -> None:
    raw = log_spec().to_dict()
    del raw["label"]
    table = click_log(30)
    with pytest.raises(ModelError, match="expected a `label` column, got none"):
        train(FeatureSpec.from_dict(raw), table)
    with pytest.raises(
        ModelError, match="expected 'sigmoid', since training minimizes"
    ):
        train(log_spec(model={"link": "identity"}), table)
    raw = log_spec().to_dict()
    del raw["time"]
    with pytest.raises(InputError, match="or a `time` column in the spec to split by"):
        train(FeatureSpec.from_dict(raw), table)
    with pytest.raises(InputError, match="expected at least one training row, got 0"):
        train(log_spec(), table.slice(0, 0))


def test_training_tables_are_checked_when_read(tmp_path: Path) -> None:
    pq.write_table(click_log(20).drop(["hist", "label"]), tmp_path / "a.parquet")
    with pytest.raises(InputError) as caught:
        read_table(tmp_path / "a.parquet", log_spec())
    assert str(caught.value) == (
        "expected the columns hist, label, got only user_id, goods_id, time, weight"
        f" - at `{tmp_path}/a.parquet`"
    )
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no PAR1")
    with pytest.raises(InputError, match="expected a readable Parquet file, got "):
        read_table(tmp_path / "b.parquet", log_spec())
    with pytest.raises(InputError, match="expected a readable Parquet file, got "):
        read_table(tmp_path / "none.parquet", log_spec())


@pytest.mark.parametrize("name", ["paper", "derived", "base sum"])
def test_a_checkpoint_is_a_round_trip(name: str, tmp_path: Path) -> None:
    model = random_model(SPECS[name])
    save(model, tmp_path / "model.pt")
    again = load(tmp_path / "model.pt")
    assert again.spec == model.spec
    assert not again.training
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("open('/tmp/din-was-here', 'w')",)


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    marker = Path("/tmp/din-was-here")
    marker.unlink(missing_ok=True)
    state = random_model(SPECS["paper"]).state_dict()
    content = {"format": 1, "spec": "{}", "state_dict": state, "x": Malicious()}
    torch.save(content, path)
    with pytest.raises(ModelError, match="a pickle that is not weights only"):
        load(path)
    path.write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(ModelError):
        load(path)
    assert not marker.exists()


def test_wrong_checkpoints_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    save(random_model(SPECS["paper"]), path)
    whole = path.read_bytes()
    for content in (b"", b"x", whole[:100], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"expected a model.pt that din-train or"):
            load(path)
    with pytest.raises(ModelError, match=r"expected a model.pt that din-train or"):
        load(tmp_path / "none.pt")
    path.write_bytes(whole)
    good = torch.load(path, weights_only=True)
    for key in ("format", "spec", "state_dict"):
        torch.save({k: v for k, v in good.items() if k != key}, path)
        with pytest.raises(ModelError, match=f"got no `{key}`"):
            load(path)
    torch.save(torch.zeros(3), path)
    with pytest.raises(ModelError, match="got no `format`"):
        load(path)
    torch.save({**good, "format": 9}, path)
    with pytest.raises(ModelError, match="expected format 1, got 9"):
        load(path)
    state = dict(good["state_dict"])
    del state["tower.output.bias"]
    state["more"] = torch.zeros(1)
    state["tower.output.weight"] = torch.zeros(1, 2)
    torch.save({**good, "state_dict": state}, path)
    with pytest.raises(ModelError) as caught:
        load(path)
    assert str(caught.value) == (
        "expected the weights of its own spec, got missing tower.output.bias; unknown"
        " more; tower.output.weight as floats [1, 7], not floats [1, 2]"
        f" - at `{path}: state_dict`"
    )
