import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from din_converter import load, save
from din_converter.epochs import epoch_line
from din_converter.rows import Rows, read_labels, split_by_time
from din_converter.run import RunFolder, read_events
from din_converter.train import (
    Epoch,
    Settings,
    evaluate,
    read_table,
    train,
)
from din_infer import DeviceError, FeatureSpec, InputError, ModelError, metrics
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


@pytest.mark.slow
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
    _, newest = split_by_time(Rows.of_table(table, spec, "all"), 0.1)
    valid = pa.concat_tables(newest.windows(1 << 20))
    again = metrics.auc(read_labels(valid, spec), evaluate(trained.model, valid))
    assert np.array_equal(
        evaluate(trained.model, newest), evaluate(trained.model, valid)
    )
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
    assert epoch_line(trained.epochs[-1]).split()[2:6] == ["-", "-", "-", "-"]


def test_sample_weights_count() -> None:
    table = click_log(800)
    labels = np.asarray(table["label"])
    clicks = table.set_column(5, "weight", pa.array(np.where(labels, 50.0, 1e-3)))
    settings = Settings(epochs=4, batch_size=50, learning_rate=0.01, **QUIET)
    weighted = log_spec(weight="weight")
    scores = evaluate(train(weighted, clicks, None, settings).model, table)
    assert scores.mean() > 0.9
    scores = evaluate(train(weighted, table, None, settings).model, table)
    assert abs(scores.mean() - labels.mean()) < 0.1


FAULTS = {
    "expected a label 0 or 1, got 2.0 - at `label`, row 3 of the training rows": (
        "label",
        [0, 1, 0, 2],
    ),
    "expected a label 0 or 1, got null - at `label`, row 1 of the training rows": (
        "label",
        [0, None, 1, 1],
    ),
    "expected a finite weight of at least 0, got -1.0 - at `weight`, row 0 of the"
    " training rows": (
        "weight",
        [-1.0, 1, 1, 1],
    ),
    "expected a time, got null - at `time`, row 2 of the training rows": (
        "time",
        [1, 2, None, 3],
    ),
    "expected a finite time, got inf - at `time`, row 1 of the training rows": (
        "time",
        [1, float("inf"), 2, 3],
    ),
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


class Killed(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("step", [3, 9, 17, 30])
@pytest.mark.parametrize("optimizer", ["adam", "adagrad", "sgd"])
def test_a_killed_run_resumes_to_the_same_model(
    step: int, optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = log_spec(model={"tower": {"hidden": [8], "dropout": 0.3}})
    table = click_log(1000)
    settings = Settings(
        epochs=4,
        batch_size=100,
        optimizer=optimizer,
        learning_rate=0.01,
        schedule="cosine",
        warmup_steps=5,
        mba=0.1,
        checkpoint_minutes=0,
        patience=9,
        **QUIET,
    )
    config = {"seed": 0}
    whole = train(
        spec, table, None, settings, run=RunFolder(tmp_path / "whole", config)
    )
    saved = RunFolder.save
    saves = 0

    def kill(self: RunFolder, content: dict[str, Any]) -> None:
        nonlocal saves
        saved(self, content)
        saves += 1
        if saves == step:
            raise Killed

    monkeypatch.setattr(RunFolder, "save", kill)
    run = RunFolder(tmp_path / "killed", config)
    with pytest.raises(Killed):
        train(spec, table, None, settings, run=run)
    torch.manual_seed(99)  # what another process would have
    monkeypatch.setattr(RunFolder, "save", saved)
    with pytest.raises(InputError) as caught:
        train(spec, table, None, settings, run=run)
    assert str(caught.value) == (
        "expected a folder without an unfinished run, got one with checkpoint.pt - at"
        f" `{tmp_path}/killed`. Give --resume to go on with it, or --overwrite to start"
        " again."
    )
    again = train(spec, table, None, settings, run=run, resume=True)
    state = whole.model.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in again.model.state_dict().items())
    assert [e.auc for e in again.epochs] == [e.auc for e in whole.epochs]
    losses = [
        [e["log_loss"] for e in read_events(tmp_path / name / "metrics.jsonl")]
        for name in ("whole", "killed")
    ]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 4 * 9 + 4


def test_only_the_same_run_is_resumed(tmp_path: Path) -> None:
    spec, table = log_spec(), click_log(300)
    settings = Settings(epochs=1, **QUIET)
    train(
        spec, table, None, settings, run=RunFolder(tmp_path, {"seed": 1, "patience": 1})
    )
    other = RunFolder(tmp_path, {"seed": 2, "patience": 5})
    with pytest.raises(InputError) as caught:
        train(spec, table, None, settings, run=other, resume=True)
    assert str(caught.value) == (
        "expected the run that was interrupted, got seed 1 and now 2 - at"
        f" `{tmp_path}/checkpoint.pt`. Give --overwrite, without --resume, to start"
        " another one."
    )
    train(spec, table, None, settings, run=other, overwrite=True)
    checkpoint = tmp_path / "checkpoint.pt"
    cut = "a file that is cut off or damaged"
    contents = {b"": "another kind of file", checkpoint.read_bytes()[:900]: cut}
    contents[pickle.dumps(Malicious())] = "another kind of file"
    for content, got in contents.items():
        checkpoint.write_bytes(content)
        with pytest.raises(InputError) as caught:
            train(spec, table, None, settings, run=other, resume=True)
        said = str(caught.value)
        assert said.startswith(f"expected a checkpoint that din-train wrote, got {got}")
        assert said.endswith(
            f" - at `{checkpoint}`. Give --overwrite, without --resume, to start"
            " another one."
        )


def test_a_warm_start_begins_where_the_other_model_ended() -> None:
    spec, table = log_spec(), click_log(600)
    settings = Settings(epochs=3, learning_rate=0.01, valid_fraction=0, **QUIET)
    first = train(spec, table, None, settings)
    one = Settings(epochs=1, learning_rate=1e-9, valid_fraction=0, **QUIET)
    warm = train(spec, table, None, one, start=first.model)
    for key, value in first.model.named_parameters():
        torch.testing.assert_close(warm.model.get_parameter(key), value)
    other = log_spec(model={"tower": {"hidden": [9]}})
    with pytest.raises(ModelError) as caught:
        train(other, table, None, one, start=first.model)
    assert str(caught.value) == (
        "expected a model of the same spec, whose ids mean the same, got"
        " model.attention.hidden [8] and now [80, 40]; model.tower.hidden [8] and now"
        " [9] - at `warm start`"
    )


@pytest.mark.parametrize(
    ("settings", "rates"),
    [
        ({"schedule": "constant"}, [1, 1, 1, 1, 1]),
        ({"schedule": "exponential", "decay": 0.25}, [1, 0.5, 0.25, 0.125, 0.0625]),
        ({"schedule": "linear"}, [1, 0.75, 0.5, 0.25, 0]),
        ({"schedule": "cosine"}, [1, 0.853553, 0.5, 0.146447, 0]),
        ({"schedule": "constant", "warmup_steps": 4}, [0.25, 0.5, 0.75, 1, 1]),
    ],
)
def test_the_learning_rate_follows_its_schedule(
    settings: dict[str, Any], rates: list[float], tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run", {})
    rate = {"learning_rate": 1e-3, "epochs": 2, "batch_size": 50, "valid_fraction": 0}
    given = Settings(**rate, **settings, **QUIET)  # type: ignore[arg-type]
    trained = train(log_spec(), click_log(100), None, given, run=run)
    events = read_events(run.metrics)
    got = [0.0] * 5
    for e in events:  # logged after its step: the rate of the next one
        if e["event"] == "step":
            got[e["step"]] = e["lr"] / 1e-3
    np.testing.assert_allclose(got[1:], rates[1:], atol=1e-6)
    assert trained.epochs[-1].learning_rate == pytest.approx(rates[4] * 1e-3, abs=1e-9)


def test_settings_and_devices_that_are_not_there_are_refused() -> None:
    table = click_log(30)
    with pytest.raises(InputError) as caught:
        train(log_spec(), table, None, Settings(optimizer="lion"))
    assert str(caught.value) == (
        "expected one of adam, adagrad, sgd, got 'lion' - at `optimizer`"
    )
    with pytest.raises(DeviceError, match="expected a device that torch can use, got"):
        train(log_spec(), table, None, Settings(device="cuda:77"))


def test_a_model_that_diverged_is_not_kept() -> None:
    settings = Settings(
        epochs=1, batch_size=5000, learning_rate=900, valid_fraction=0, **QUIET
    )
    table = click_log(300)
    spec = log_spec()
    with pytest.raises(InputError) as caught:
        train(spec, table, None, replace(settings, learning_rate=1e25))
    assert str(caught.value) == (
        "expected finite scores, got others - at `the end of epoch 1`. Training"
        " diverged: lower the learning rate."
    )
    raw = spec.to_dict()
    del raw["group"]
    with pytest.raises(ModelError, match="expected a `group` column, to select by GA"):
        train(FeatureSpec.from_dict(raw), table, None, Settings(select="gauc"))


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
    assert path.write_bytes(whole[:-5])
    with pytest.raises(ModelError, match=r", got a file that is cut off or damaged \("):
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
    with pytest.raises(ModelError, match=r"format 1, which din-infer \S+ reads, got 9"):
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
