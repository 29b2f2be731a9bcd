"""The benchmark of requests compares what it times; no test here asserts a time."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import command, graphs, online, soak, timing
from benchmarks.report import Wanted, section, summarize
from benchmarks.rivals import Rivals
from benchmarks.timing import Contestant, Race, Scenario, race, within

pytestmark = pytest.mark.slow

SIZES = graphs.Sizes(users=50, goods=1000, cates=20)
TINY = ["--rows", "1000", "--user-rows", "50", "--cate-rows", "20", "--seconds", "0"]
EVERYONE = {"ours", "ours-cached", "ours-session", "plain", "eager"}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = torch.get_num_threads()
    monkeypatch.setattr(command, "POOL_CACHES", 0)
    monkeypatch.setattr(timing, "ROUNDS", 2)
    monkeypatch.setattr(timing, "SETTLE_S", 0)
    yield
    torch.set_num_threads(before)


def test_everyone_scores_the_same_requests(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "out.json"
    names = ["1-t50", "10-t200", "10-t50-2callers", "500-t50"]
    options = [*TINY, "--scenario", *names, "--json", str(file)]
    assert online.main(options) == 0
    document = json.loads(file.read_text())
    assert set(document["scenarios"]) == set(names)
    printed = capsys.readouterr().out
    for name, scenario in document["scenarios"].items():
        assert scenario["compared_with"] == "ours"
        assert scenario["candidates"] == int(name.partition("-")[0])
        callers = 2 if "callers" in name else 1
        assert scenario["callers"] == callers
        assert set(scenario["contestants"]) == EVERYONE
        for key, c in scenario["contestants"].items():
            assert c["runs"] == 2 * callers
            assert 0 < c["min_ms"] <= c["p50_ms"] <= c["p99_ms"] <= c["p999_ms"]
            assert 0 < c["error"] < (1e-5 if key.startswith("ours") else 1e-4)
            assert ("calls_per_s" in c) == (callers == 2)
            assert f"| {key} " in printed
    assert "p99.9 ms" in printed
    assert "- us of ours above ours-session: " in printed
    assert "- p99 / median of ours: " in printed


@pytest.mark.parametrize(("key", "factor"), [("ours", 1 + 4e-5), ("eager", 1 + 4e-4)])
def test_a_wrong_score_ends_the_run(
    key: str,
    factor: float,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real = online.entries

    def wrong(*args: Any) -> dict[str, Callable[[], Contestant]]:  # noqa: ANN401
        made = real(*args)
        right = made[key]()
        run = lambda r: right.run(r) * np.float32(factor)  # noqa: E731
        return made | {key: lambda: replace(right, run=run)}

    monkeypatch.setattr(online, "entries", wrong)
    file = tmp_path / "out.json"
    options = ["--scenario", "10-t50", "--only", key, "--json", str(file)]
    assert online.main([*TINY, *options]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: expected a relative error of at most ")
    assert error.endswith(f" - at `{key}`")
    assert not file.exists()


def test_rivals_encode_to_our_ids() -> None:
    spec = graphs.make_model(SIZES, 50, seed=0, encoder="hash").spec
    seen = set()
    for request in online.draw(SIZES, 20, 30, 5, seed=1):
        wanted = spec.encoder.encode_requests([request.user], request.items).inputs
        got = online.encode(SIZES, request)
        assert set(got) == set(wanted)
        for name, value in wanted.items():
            np.testing.assert_array_equal(got[name], value, err_msg=name)
        seen |= set(got["goods_id"].tolist())
        texts = [*request.user["hist_cate_id"], *request.items["goods_id"]]
        assert {len(text) for text in texts} == {13}
    assert len(seen) > 20


def test_a_plain_export_gets_a_copy_of_the_user(tmp_path: Path) -> None:
    with online.open_subject(SIZES, 1, 0) as subject:
        made = online.entries(subject, SIZES)
        assert list(made) == ["ours", "ours-cached", "ours-session", "plain", "eager"]
        (request,) = online.draw(SIZES, 7, 9, 1, seed=1)
        exact = online._exact(graphs.exact_model(subject.model), SIZES, request)
        model = online.textbook_din(subject.model)
        rivals = Rivals(model, online.MODEL_INPUTS, tmp_path / "p.onnx", 1)
        arrays = rivals.arrays(online.encode(SIZES, request))
    assert exact.std() > 0.01
    assert [a.shape for a in arrays] == [(7,), (7,), (7,), (7, 9), (7, 9), (7,)]


# ---- callers ----


def _race(callers: int, seconds: float, run: Callable[[int], Any]) -> Race:
    scenario = Scenario("some", "", unit="call", callers=callers, tail=True)

    def checked(x: int) -> Any:  # noqa: ANN401
        run(x)
        return np.ones(1)

    c = Contestant("ours", lambda x: x, checked, within(1e-6), ours=True)
    pool = list(range(12))
    return race(scenario, {"ours": c}, pool, lambda _: np.ones(1), lambda _: 1, seconds)


def test_callers_call_at_once_from_threads_and_places_of_their_own() -> None:
    meet = threading.Barrier(3)
    places: dict[int, list[int]] = {}
    main = threading.get_ident()

    def run(x: int) -> None:
        caller = threading.get_ident()
        if caller != main:  # in a turn: waits for the others, who must be there too
            places.setdefault(caller, []).append(x)
            meet.wait(timeout=20)

    result = _race(3, 0.0, run)
    outcome = result.finished()["ours"]
    assert len(outcome.seconds) == 2 * 3
    assert len(outcome.turns) == 2
    calls = sorted(x for seen in places.values() for x in seen)
    assert calls == [0, 3, 4, 7, 8, 11]  # behind the 3 calls of each that warm up


def test_an_error_of_a_caller_ends_the_run() -> None:
    main = threading.get_ident()

    def run(_: int) -> None:
        if threading.get_ident() != main:
            message = "broken in a thread"
            raise RuntimeError(message)

    with pytest.raises(RuntimeError, match="broken in a thread"):
        _race(2, 0.0, run)


def test_calls_per_second_are_those_of_all_callers() -> None:
    result = _race(4, 0.1, lambda _: time.sleep(0.01))
    summary = summarize(result, [], None)
    ours = summary["contestants"]["ours"]
    outcome = result.finished()["ours"]
    turns = sum(outcome.turns)
    assert turns < sum(outcome.seconds) <= 4 * turns  # four callers, side by side
    assert ours["calls_per_s"] == ours["runs"] / turns
    assert f"{ours['calls_per_s']:,.0f}" in section(summary)


@pytest.mark.parametrize(
    ("given", "measured", "holds"),
    [
        ({"us_more": 50.0}, "measured_more", True),
        ({"us_more": 39.0}, "measured_more", False),
        ({"tail": 1.5}, "measured_tail", True),
        ({"tail": 1.2}, "measured_tail", False),
    ],
)
def test_a_figure_may_limit_what_is_added_and_the_tail(
    given: dict[str, float], measured: str, holds: bool
) -> None:
    rows = {
        "ours": {"p50_ms": 0.10, "p99_ms": 0.14, "us": 1.0},
        "session": {"p50_ms": 0.06, "p99_ms": 0.14, "us": 1.0},
    }
    figure = Wanted("some", "session", "ours", **given).judge(rows, "us")
    assert figure["holds"] is holds
    wanted = {"measured_more": 40.0, "measured_tail": 1.4}[measured]
    assert figure[measured] == pytest.approx(wanted)
    assert Wanted("some", "absent", "gone", **given).judge(rows, "us")["holds"] is None


# ---- the soak ----


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_the_soak_counts_calls_and_judges_growth(
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["--calls", "200", "--callers", "2", "--rows", "1000"]
    assert soak.main(options) == 0
    printed = capsys.readouterr().out
    assert "200 calls of 2 callers" in printed
    assert "wrong scores: 0" in printed
    assert soak.main([*options, "--most-mib", "-1000"]) == 1
