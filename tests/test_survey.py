"""What a run says at its end: weighted measures, rules without a model, warnings."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from din_converter import train as train_module
from din_converter.cli import train_main
from din_converter.epochs import Epoch, better, decided_by
from din_converter.evaluate import measure
from din_converter.remarks import about_result, about_rows, about_spec
from din_converter.rows import Rows, read_labels
from din_converter.run import read_events
from din_converter.survey import Baseline, Survey, check_rows
from din_converter.train import Settings, evaluate, train
from din_infer import InputError, metrics
from din_infer.whole_file import write_whole
from tests.models import random_model
from tests.test_inspect import zero_warning
from tests.test_train import QUIET, click_log, log_spec


def slow_auc(labels: Any, scores: Any, mass: Any) -> float:  # noqa: ANN401
    rows = list(zip(labels, scores, mass, strict=True))
    up, down = ([r for r in rows if r[0] == y] for y in (1, 0))
    pairs = [((a > b) + 0.5 * (a == b), v * w) for _, a, v in up for _, b, w in down]
    return float(sum(r * w for r, w in pairs) / sum(w for _, w in pairs))


def columns(table: pa.Table, **changes: Any) -> pa.Table:  # noqa: ANN401
    """A table with other columns."""
    return pa.table({n: table[n] for n in table.column_names} | changes)


# ------------------------------------------------------------------------- weights


def thinned(rows: int, seed: int) -> tuple[pa.Table, pa.Table]:
    """Rows of which one in ten non-clicks is kept, at ten times the weight; and all."""
    rng = np.random.default_rng(seed)
    goods = rng.integers(0, 12, rows)
    label = (rng.random(rows) < np.where(goods < 4, 0.45, 0.08)).astype(np.int8)
    table = pa.table(
        {
            "user_id": [f"u{u}" for u in rng.integers(0, rows // 40, rows)],
            "goods_id": [f"g{g}" for g in goods],
            "hist": pa.array([[]] * rows, pa.list_(pa.string())),
            "label": label,
            "time": np.arange(rows),
            "weight": np.where(label == 1, 1.0, 10.0),
        }
    )
    return table.filter(pa.array((label == 1) | (rng.random(rows) < 0.1))), table


def test_validation_of_thinned_rows_is_weighted() -> None:
    """The recipe of docs/model.md: by plain log-loss the first epoch would be kept."""
    spec = log_spec(weight="weight", model={"tower": {"hidden": [8]}})
    table, _ = thinned(5000, 0)
    valid, whole = thinned(4000, 1)
    rows = Rows.of_table(valid, spec, "valid")
    plain: list[float] = []
    rate = {"learning_rate": 0.005, "schedule": "constant"}
    settings = Settings(
        epochs=4,
        batch_size=64,
        select="log_loss",
        **rate,
        **QUIET,  # type: ignore[arg-type]
    )

    def judge(model: Any, held_out: Any, calibrated: bool) -> dict[str, Any]:  # noqa: ANN401
        scores = evaluate(model, held_out, calibrated=calibrated)
        plain.append(metrics.log_loss(read_labels(valid, spec), scores))
        return measure(model, held_out, calibrated=calibrated)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_module, "measure", judge)
        trained = train(spec, table, rows, settings)
    best = trained.best
    assert best is not None
    assert best.log_loss == min(e.log_loss for e in trained.epochs)
    assert best.number > 1
    assert plain[0] == min(plain)  # what would have been kept
    labels = read_labels(valid, spec).astype(float)
    mass, scores = np.asarray(valid["weight"]), evaluate(trained.model, rows)
    losses = [-math.log(s if y else 1 - s) for y, s in zip(labels, scores, strict=True)]
    assert best.log_loss == pytest.approx(np.average(losses, weights=mass), rel=1e-9)
    truth = (scores * mass).sum() / (labels * mass).sum()
    assert best.calibration == pytest.approx(truth, rel=1e-9)
    assert best.auc == pytest.approx(slow_auc(labels, scores, mass), rel=1e-9)
    # the weights stand for the rows that were left out
    of_all = measure(trained.model, Rows.of_table(whole, log_spec(), "whole"))
    assert best.calibration == pytest.approx(of_all["calibration"], rel=0.1)
    assert best.log_loss == pytest.approx(of_all["log_loss"], rel=0.1)
    assert abs(best.calibration - 1) < 0.15
    in_training = trained.epochs[-1].train_log_loss
    assert in_training == pytest.approx(best.log_loss, rel=0.1)


@pytest.mark.parametrize("mass", [0.25, 1.0, 3.0])
def test_equal_weights_change_no_measure(mass: float) -> None:
    spec, table = log_spec(), click_log(300)
    model = random_model(spec)
    expected = measure(model, Rows.of_table(table, spec, "rows"))
    weighted = log_spec(weight="weight")
    table = columns(table, weight=np.full(300, mass))
    found = measure(model, Rows.of_table(table, weighted, "rows"))
    assert found == pytest.approx(expected)


def test_rows_of_weight_zero_judge_nothing() -> None:
    spec, table = log_spec(weight="weight"), click_log(300)
    mass = np.where(np.arange(300) % 3 == 0, 0.0, np.asarray(table["weight"]))
    table = columns(table, weight=mass)
    model = random_model(spec)
    found = measure(model, Rows.of_table(table, spec, "rows"))
    some = table.filter(pa.array(mass > 0))
    assert found == pytest.approx(measure(model, Rows.of_table(some, spec, "rows")))


def test_rows_without_a_group_are_in_no_gauc() -> None:
    spec, table = log_spec(), click_log(300)
    users = [u if k % 3 else None for k, u in enumerate(table["user_id"].to_pylist())]
    model = random_model(spec)
    found = measure(model, Rows.of_table(columns(table, user_id=users), spec, "rows"))
    whole = Rows.of_table(columns(table, user_id=users), spec, "rows")
    scores, known = evaluate(model, whole), np.array([u is not None for u in users])
    labels, some = np.asarray(table["label"])[known], [u for u in users if u]
    assert found["gauc"] == metrics.gauc(labels, scores[known], some)
    nobody = columns(table, user_id=pa.nulls(300, pa.string()))
    assert math.isnan(measure(model, Rows.of_table(nobody, spec, "rows"))["gauc"])


@pytest.mark.parametrize("weight", [1e10, 1e30, 1e300, 1e-300, 1e-40])
def test_a_weight_that_float32_cannot_train_by_is_refused(weight: float) -> None:
    table = columns(click_log(30), weight=[1.0] * 29 + [weight])
    with pytest.raises(InputError) as caught:
        train(log_spec(weight="weight"), table, None, Settings(**QUIET))
    assert str(caught.value) == (
        f"expected a weight of 0, or from 1.17549e-38 to 1e+09, got {weight} - at"
        " `weight`, row 29 of the training rows. Divide all weights by their mean: only"
        " their ratios count."
    )


def test_weights_that_are_all_0_name_their_column() -> None:
    table = columns(click_log(30), weight=np.zeros(30))
    with pytest.raises(InputError) as caught:
        train(log_spec(weight="weight"), table, None, Settings(**QUIET))
    assert str(caught.value) == (
        "expected training rows of weight above 0, got none - at `weight`"
    )


def test_a_weight_at_the_limit_trains() -> None:
    table = columns(click_log(300), weight=np.full(300, 1e9))
    trained = train(log_spec(weight="weight"), table, None, Settings(epochs=2, **QUIET))
    assert trained.best is not None
    assert trained.best.train_log_loss == pytest.approx(0.69, abs=0.05)


@pytest.mark.parametrize("offset", [0.0, -2.3])
def test_rows_of_their_own_are_judged_as_they_are_served(offset: float) -> None:
    """And held-out rows, which are thinned like those that are trained on, are not."""
    spec, table = log_spec(calibration={"offset": offset}), click_log(400)
    settings = Settings(epochs=1, valid_fraction=0.25, **QUIET)
    own = train(spec, table, table, settings)
    labels = read_labels(table, spec)
    assert own.best is not None
    for calibrated, same in ((True, True), (False, not offset)):
        scores = evaluate(own.model, table, calibrated=calibrated)
        loss = metrics.log_loss(labels, scores)
        assert (own.best.log_loss == pytest.approx(loss, rel=1e-9)) == same
    held_out = train(spec, table, None, settings)
    plain = train(log_spec(), table, None, settings)
    assert held_out.best is not None
    assert plain.best is not None
    assert held_out.best.log_loss == plain.best.log_loss


# ------------------------------------------------------------------- one class alone


@pytest.mark.parametrize(
    ("labels", "weights", "message"),
    [
        ([0] * 40, None, "expected clicks and non-clicks among the training rows, got"
         " labels that are all 0 - at `label`."),
        ([1] * 40, None, "expected clicks and non-clicks among the training rows, got"
         " labels that are all 1 - at `label`."),
        ([0, 1] * 20, [1, 0] * 20, "expected clicks and non-clicks among the training"
         " rows, got labels that are all 0 where the weight is above 0 - at `label`."),
        # the newest quarter alone has clicks
        ([0] * 30 + [1] * 10, None, "expected clicks and non-clicks among the training"
         " rows, got labels that are all 0 - at `label`."),
    ],
)  # fmt: skip
def test_labels_of_one_class_are_refused_before_training(
    labels: list[int], weights: list[int] | None, message: str
) -> None:
    table = columns(click_log(40), label=labels, time=np.arange(40))
    changes = {} if weights is None else {"weight": "weight"}
    if weights is not None:
        table = columns(table, weight=weights)
    with pytest.raises(InputError) as caught:
        train(log_spec(**changes), table, None, Settings(valid_fraction=0.25, **QUIET))
    fix = " Check how the label is made, and which rows are held out."
    assert str(caught.value) == message + fix


def test_validation_rows_of_one_class_are_said_to_have_no_auc() -> None:
    table = click_log(200)
    valid = columns(table, label=np.zeros(200, np.int8))
    trained = train(log_spec(), table, valid, Settings(epochs=1, **QUIET))
    assert trained.baselines == ()
    assert trained.remarks == (
        "The labels of the validation rows are all 0: there is no AUC, and nothing"
        " shows whether the model orders rows rightly.",
    )
    weightless = columns(table, weight=np.zeros(200))
    with pytest.raises(InputError) as caught:
        train(log_spec(weight="weight"), table, weightless, Settings(**QUIET))
    assert str(caught.value) == (
        "expected validation rows of weight above 0, got none - at `weight`"
    )


# ------------------------------------------------------------------ rules, no model


def test_rules_without_a_model_equal_slow_ones(tmp_path: Path) -> None:
    spec, table = log_spec(weight="weight"), click_log(500)
    older, newer = table.slice(0, 350), table.slice(350)
    survey = Survey(spec, 150)
    pieces = [Rows.of_table(t, spec, "rows") for t in (older, newer)]
    check_rows(pieces[0], pieces[1], random_model(spec), None, survey)
    chance, popularity, rule = survey.baselines()
    assert chance == Baseline("chance", 0.5)

    labels = newer["label"].to_pylist()
    mass = np.float32(newer["weight"].to_pylist()).astype(float)
    goods, hists = newer["goods_id"].to_pylist(), newer["hist"].to_pylist()
    shares = [h.count(g) / max(1, len(h)) for g, h in zip(goods, hists, strict=True)]
    assert rule.name == "share of hist that equals goods_id"
    assert rule.auc == pytest.approx(slow_auc(labels, shares, mass), rel=1e-6)

    weights = np.float32(older["weight"].to_pylist()).astype(float)
    clicked = weights * np.asarray(older["label"])
    seen = np.array(older["goods_id"].to_pylist())
    mean = clicked.sum() / weights.sum()
    rates, sums = [], []
    for g in goods:
        mine = seen == g
        sums.append(clicked[mine].sum())
        rates.append((sums[-1] + 10 * mean) / (weights[mine].sum() + 10))
    aucs = [slow_auc(labels, s, mass) for s in (rates, sums)]
    assert popularity.auc == pytest.approx(max(aucs), rel=1e-6)
    kind = "clicks" if aucs[1] > aucs[0] else "click rate"
    assert popularity.name == f"popularity: {kind} of the goods_id in the training rows"

    # A split takes the same pass over the same files, in any order of rows.
    order = np.random.default_rng(0).permutation(500)
    mixed = table.append_column("t", pa.array(np.arange(500) >= 350).cast("int8"))
    pq.write_table(
        mixed.take(pa.array(order)), tmp_path / "1.parquet", row_group_size=99
    )
    by_t = log_spec(weight="weight", time="t")
    settings = Settings(epochs=1, valid_fraction=0.3, **QUIET)
    split = train(by_t, Rows.open([tmp_path], by_t), None, settings)
    expected = [pytest.approx(b.auc) for b in (chance, popularity, rule)]
    assert [b.auc for b in split.baselines] == expected


def test_many_validation_rows_are_judged_by_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("din_converter.survey.JUDGED_ROWS", 100)
    spec, table = log_spec(), click_log(1000)
    survey, rows = Survey(spec, 1000), Rows.of_table(table, spec, "rows")
    check_rows(rows, rows, random_model(spec), None, survey)
    assert len(survey._judged[0][0]) == 100
    assert survey.baselines()[2].auc > 0.8


def test_a_model_that_learned_nothing_is_called_so() -> None:
    spec, table = log_spec(), click_log(1500)
    settings = Settings(epochs=2, learning_rate=1e-9, embedding_std=1e-5, **QUIET)
    trained = train(spec, table, table, settings)
    assert trained.best is not None
    auc, rule = trained.best.auc, trained.baselines[2].auc
    assert rule > 0.85
    assert (
        "The model does not beat a rule without a model: share of hist that equals"
        f" goods_id has an AUC of {rule:.5f}, the model {auc:.5f}. It has not learned"
        " what the data shows; do not use it."
    ) in trained.remarks


@pytest.mark.slow
def test_nothing_is_said_of_a_model_that_learned() -> None:
    spec, table = log_spec(), click_log(6000)
    settings = Settings(epochs=8, batch_size=64, learning_rate=0.01, **QUIET)
    trained = train(spec, table, None, settings)
    assert trained.best is not None
    assert trained.best.auc > max(b.auc for b in trained.baselines)
    assert trained.remarks == ()


def result(
    aucs: list[float], kept: int, select: str = "auc", gauc: float | None = None
) -> list[str]:
    spec = log_spec()
    survey, rows = Survey(spec), Rows.of_table(click_log(400), spec, "rows")
    check_rows(rows, rows, random_model(spec), None, survey)
    epochs = [Epoch(n, 0.5, 0.5, a, gauc) for n, a in enumerate(aucs, 1)]
    rules = [Baseline("chance", 0.5), Baseline("popularity: x", 0.7)]
    return list(about_result(epochs, epochs[kept - 1], select, survey, rules))


def test_results_are_judged() -> None:
    assert result([0.7, 0.8], 2) == []
    assert result([0.8], 1) == []  # more epochs were not asked for
    assert result([0.8, 0.7], 1) == [
        "The first epoch was kept: in no later one was the validation AUC better. Try a"
        " lower learning rate, or regularize the tables (--mba)."
    ]
    assert result([0.55, 0.69], 2) == []  # too close to tell on 400 rows
    assert result([0.55, 0.59], 2) == [
        "The model does not beat a rule without a model: popularity: x has an AUC of"
        " 0.70000, the model 0.59000. It has not learned what the data shows; do not"
        " use it."
    ]
    assert result([0.49, 0.505], 2)[0] == (
        "The model is no better than chance: a validation AUC of 0.50500 on 400 rows is"
        " not clearly above 0.5."
    )
    assert result([0.7, 0.8], 2, "gauc", math.nan) == [
        "GAUC is undefined: no user_id has both clicks and non-clicks among the"
        " validation rows. The log-loss chose the epoch."
    ]


def test_what_decides_is_one_measure_of_all_epochs() -> None:
    a, b = Epoch(1, 0.5, 0.6, 0.7, math.nan), Epoch(2, 0.5, 0.5, 0.6, math.nan)
    assert [decided_by(a, m) for m in ("auc", "gauc", "log_loss")] == [
        "auc", "log_loss", "log_loss",
    ]  # fmt: skip
    assert not better(b, a, "auc")
    assert better(b, a, "gauc")
    assert decided_by(Epoch(1, 0.5, 0.6, 0.7, None), "gauc") == "log_loss"


# ------------------------------------------------------------------------- the spec


def unread(**changes: Any) -> list[str]:  # noqa: ANN401
    raw = {
        "user": [{"name": "age", "dim": 2, "encoder": {"type": "hash", "buckets": 9}}],
        "dense": [{"name": "price", "side": "candidate", "dim": 1}],
    }
    spec = log_spec(**{**raw, **changes})
    return [text.split(":")[0] for text in about_spec(spec)]


def test_fields_that_nothing_reads_are_named() -> None:
    assert unread() == []

    def tower(*names: str, kind: str = "din") -> list[str]:
        return unread(model={"type": kind, "tower": {"inputs": list(names)}})

    assert tower("age", "price", "h") == []  # attention pairs goods_id
    assert tower("age", "price", "h", kind="base") == ["Nothing reads goods_id"]
    assert tower("price", "h.query") == ["Nothing reads age", "Nothing reads h"]
    assert tower("age[0:1]", "price", "goods_id") == ["Nothing reads h"]
    assert tower("h.product", kind="base") == [
        "Nothing reads age",
        "Nothing reads price",
    ]
    shop = {"name": "shop", "from": "goods_id", "dim": 2, "lookup": ["a"] * 300}
    shop["encoder"] = {"type": "vocab", "values": ["a"]}
    model = {"tower": {"inputs": ["age", "price", "shop"]}}
    assert unread(derived=[shop], model=model) == ["Nothing reads h"]
    assert list(about_spec(log_spec(model={"tower": {"inputs": ["goods_id"]}}))) == [
        "Nothing reads h: `tower.inputs` leaves it out, and no attention that is read"
        " pairs it. Add it there, or take it out of the spec."
    ]


def test_a_field_that_reads_the_label_or_the_weight_is_named() -> None:
    dense = {"side": "candidate", "dim": 1}
    spec = log_spec(
        dense=[
            {**dense, "name": "d", "column": "label"},
            {**dense, "name": "w", "column": "weight"},
        ],
        weight="weight",
    )
    assert list(about_spec(spec)) == [
        "d reads the label `label`: the model is told what it is to predict. Take it"
        " out of the spec.",
        "w reads the weight `weight`: where weights differ between clicks and"
        " non-clicks, the model is told which is which. Take it out of the spec.",
    ]


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (-3.0, 7.0)])
def test_a_dense_field_that_knows_the_label_is_named(
    scale: float, shift: float
) -> None:
    rng = np.random.default_rng(0)
    table = click_log(400)
    label = np.asarray(table["label"])
    table = columns(table, leak=label * scale + shift, price=rng.random(400) + label)
    dense = [{"name": n, "side": "candidate", "dim": 1} for n in ("leak", "price")]
    spec = log_spec(dense=dense)
    survey, rows = Survey(spec), Rows.of_table(table, spec, "rows")
    check_rows(rows, None, random_model(spec), None, survey)
    wanted = (
        "leak alone tells clicks from non-clicks in every training row: it seems to"
        " know the label. A feature must be known before the click."
    )
    assert list(about_rows(survey))[:1] == [wanted]


def test_zeros_of_an_identity_column_are_named() -> None:
    encoder = {"type": "identity", "buckets": 12, "unseen": "missing"}
    goods = {"name": "goods_id", "dim": 2, "encoder": encoder}
    spec = log_spec(candidate=[goods])
    table = click_log(400)
    numbers = pa.array([int(g[1:]) for g in table["goods_id"].to_pylist()])
    hists = [[int(g[1:]) for g in h] for h in table["hist"].to_pylist()]
    table = columns(table, goods_id=numbers, hist=hists)
    zeros = sum(h.count(0) for h in hists) + numbers.to_pylist().count(0)
    values = 400 + sum(map(len, hists))
    trained = train(spec, table, None, Settings(epochs=1, **QUIET))
    assert zero_warning(f"{zeros / values:.1%} of the values of goods_id, hist") in (
        trained.remarks
    )
    nulls = pa.array([n or None for n in numbers.to_pylist()])
    table = columns(table, goods_id=nulls, hist=[[g or None for g in h] for h in hists])
    trained = train(spec, table, None, Settings(epochs=1, **QUIET))
    assert not any("are 0" in text for text in trained.remarks)


# ---------------------------------------------------------------------- the command


def test_the_command_says_what_the_run_is_worth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = log_spec(weight="weight", group="time", calibration={"offset": -0.5})
    table = columns(click_log(400), time=np.arange(400))
    pq.write_table(table, tmp_path / "log.parquet")
    write_whole(tmp_path / "spec.json", spec.to_json())
    words = [str(tmp_path / "log.parquet"), "--spec", str(tmp_path / "spec.json")]
    words += ["--out", str(tmp_path / "m.pt"), "--epochs", "1", "--select", "gauc"]
    assert train_main([*words, "--quiet", "--threads", "1"]) == 0
    out = capsys.readouterr().out
    head = out.splitlines()
    assert head[2:6] == [
        "log-loss and calibration of validation are of scores without the spec's",
        "calibration, since held-out rows are sampled as the training rows are",
        "             weighted        weighted   weighted    weighted     weighted",
        "epoch  train log-loss  valid log-loss  valid AUC  valid GAUC  calibration"
        "    rows/s",
    ]
    assert "kept epoch 1 of 1, by weighted validation log-loss\n" in out
    assert "weighted validation AUC 0." in out
    assert "  0.50000  chance\n" in out
    assert "  share of hist that equals goods_id\n" in out
    flat = " ".join(out.split())
    assert "Warning: GAUC is undefined: no time has both clicks and non-clicks" in flat
    end = read_events(tmp_path / "m.run" / "metrics.jsonl")[-1]
    assert end["event"] == "finished"
    assert next(iter(end["baselines"])) == "chance"
    assert any(text.startswith("GAUC is undefined") for text in end["remarks"])
