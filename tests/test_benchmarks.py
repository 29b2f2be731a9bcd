"""The benchmarks compare what they time; no test here asserts a time."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import attention, graphs, model, ours
from benchmarks.report import summarize
from benchmarks.rivals import Rivals
from benchmarks.timing import (
    Absent,
    Contestant,
    Outcome,
    UnavailableError,
    WrongOutputError,
    build,
    race,
)

SIZES = graphs.Sizes(users=50, goods=1000, cates=20)
TINY = [
    "--rows",
    "1000",
    "--user-rows",
    "50",
    "--cate-rows",
    "20",
    "--n",
    "16",
    "--t",
    "5",
    "--seconds",
    "0.02",
]
ATTENTION = [*TINY, "--matmul", "64"]


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("benchmark", "options", "scenarios"),
    [
        (attention, ATTENTION, ["short", "one-user", "threads"]),
        (model, TINY, ["uniform", "single"]),
    ],
)
def test_every_output_is_compared_and_reported(
    benchmark: ModuleType,
    options: list[str],
    scenarios: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "out.json"
    options = [*options, "--only", "ours,plain,eager", "--scenario", *scenarios]
    assert benchmark.main([*options, "--json", str(file)]) == 0
    document = json.loads(file.read_text())
    assert document["threads"] == 1
    assert {"commit", "date", "cpu", "versions", "seed"} <= set(document)
    assert list(document["scenarios"]) == scenarios
    printed = capsys.readouterr().out
    for name, scenario in document["scenarios"].items():
        rows = scenario["contestants"]
        compared = {k: c for k, c in rows.items() if "error" in c}
        if name != "threads":
            assert {"ours-functions", "plain", "eager"} <= set(compared)
        for key, c in compared.items():
            assert 0 < c["error"] < (1e-6 if key.startswith("ours") else 1e-5)
            assert c["runs"] >= 20
            assert 0 < c["min_ms"] <= c["p50_ms"] <= c["p99_ms"]
            assert c["times_ours"] > 0
        for key, c in rows.items():
            assert c.get("absent") or c["p50_ms"] > 0
            assert f"| {key} " in printed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("owner", "maker", "factor", "limit"),
    [(ours, "session", 1 + 4e-6, "1e-06"), (Rivals, "eager", 1 + 4e-4, "0.0001")],
)
def test_a_wrong_output_ends_the_run(
    owner: object,
    maker: str,
    factor: float,
    limit: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make: Callable[..., Contestant] = getattr(owner, maker)

    def make_wrong(*args: Any, **options: Any) -> Contestant:  # noqa: ANN401
        right = make(*args, **options)
        return replace(right, run=lambda x: right.run(x) * np.float32(factor))

    monkeypatch.setattr(owner, maker, make_wrong)
    file = tmp_path / "out.json"
    options = ["--scenario", "uniform", "--only", "ours,eager", "--json", str(file)]
    assert attention.main([*ATTENTION, *options]) == 1
    rule = f"expected a relative error of at most {limit}, got "
    assert rule in capsys.readouterr().err
    assert not file.exists()


def test_only_names_whom_there_is() -> None:
    with pytest.raises(SystemExit, match=r"expected some of ours, .*, got 'typo'"):
        attention.main([*ATTENTION, "--only", "typo"])


def _fake(key: str, error: Exception | None = None) -> Contestant:
    def run(inputs: graphs.Inputs) -> Any:  # noqa: ANN401
        if error is not None:
            raise error
        return np.ones(3) * len(inputs)

    return Contestant(key, lambda inputs: inputs, run, 1e-6, ours=key == "ours")


def _race(*contestants: Contestant | Absent) -> dict[str, Outcome | Absent]:
    scenario = graphs.Scenario("some", 3, 3, 4, "uniform", "")
    pool = [
        {
            "history.lengths": np.array([1, 2, 3]),
            "request_of_candidate": np.arange(3),
        }
    ] * 4
    named = {c.label if isinstance(c, Contestant) else "absent": c for c in contestants}
    result = race(scenario, named, pool, lambda _: np.full(3, 2.0), 0.0)
    assert result.valid_pairs == 6
    summary = summarize(result, [], None)
    assert list(summary["contestants"]) == list(named)
    return dict(result.outcomes)


def test_a_rival_that_breaks_down_is_a_row_and_ours_is_an_error() -> None:
    broken = RuntimeError("first line\nsecond line")
    outcomes = _race(_fake("ours"), _fake("rival", broken), Absent("not here"))
    assert isinstance(outcomes["ours"], Outcome)
    assert len(outcomes["ours"].seconds) == 20
    assert outcomes["rival"] == Absent("failed: RuntimeError: first line")
    assert outcomes["absent"] == Absent("not here")
    with pytest.raises(RuntimeError, match="first line"):
        _race(_fake("ours", broken))


def test_a_rival_is_never_left_out_silently() -> None:
    def raising(error: Exception) -> Callable[[], Contestant]:
        def make() -> Contestant:
            raise error

        return make

    assert build(
        {
            "ours": raising(UnavailableError("no AMX")),
            "a": raising(ImportError("No module named 'a'")),
            "b": raising(ValueError("")),
        }
    ) == {
        "ours": Absent("skipped: no AMX"),
        "a": Absent("not installed: No module named 'a'"),
        "b": Absent("failed: ValueError: no message"),
    }
    with pytest.raises(ValueError, match="broken"):
        build({"ours": raising(ValueError("broken"))})


@pytest.mark.parametrize("output", [np.full(3, np.nan), np.full((3, 1), 2.0)])
def test_nan_and_another_shape_are_wrong(output: object) -> None:
    with pytest.raises(WrongOutputError, match=r"^expected .* - at `rival`$"):
        _race(replace(_fake("rival"), run=lambda _: output))


def test_inputs_and_references_are_hard() -> None:
    net = graphs.make_model(SIZES, 5, seed=0)
    scenario = graphs.Scenario("some", 64, 64, 5, "uniform", "")
    pool = graphs.make_pool(net.spec, scenario, 1 << 16, seed=0)
    assert sum(x["hist_goods_id"].nbytes * 2 for x in pool) >= 1 << 16
    exact = graphs.exact_model(net)
    for inputs in pool:
        ids, lengths = inputs["hist_goods_id"], inputs["history.lengths"]
        valid = np.arange(5) < lengths[:, None]
        assert (ids[~valid] == 0).all()
        assert 1 <= ids[valid].min() <= ids.max() < SIZES.goods
        assert graphs.exact_score(exact, inputs).std() > 0.05
        assert graphs.exact_interest(exact, inputs).std() > 0.05
    goods = np.concatenate([x["goods_id"] for x in pool])
    counts = np.bincount(goods, minlength=SIZES.goods)
    assert counts.max() > 10 * goods.size / SIZES.goods  # far from uniform
    assert (counts > 0).sum() > SIZES.goods / 10
