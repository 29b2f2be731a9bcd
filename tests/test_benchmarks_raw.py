"""benchmarks.raw: what it compares, on tables so small that its speed means nothing."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import command, raw, timing
from benchmarks.graphs import Sizes

pytestmark = pytest.mark.slow

TINY = ["--rows", "300", "--cate-rows", "20", "--user-rows", "30", "--seconds", "0"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = torch.get_num_threads()
    monkeypatch.setattr(command, "POOL_CACHES", 0)
    monkeypatch.setattr(timing, "ROUNDS", 2)
    monkeypatch.setattr(timing, "SETTLE_S", 0)
    yield
    torch.set_num_threads(before)


def test_all_take_part_and_are_written(tmp_path: Path) -> None:
    file = tmp_path / "raw.json"
    options = ["--scenario", "rows", "10-t50", "--json", str(file)]
    assert raw.main([*TINY, *options]) == 0
    made = json.loads(file.read_text())["scenarios"]
    rows = {name: list(scenario["contestants"]) for name, scenario in made.items()}
    assert rows == {
        "rows": ["ours", "ours-spec"],
        "10-t50": ["ours", "ours-strings", "ours-ids"],
    }


@pytest.mark.parametrize("scenario", ["rows", "10-t50"])
def test_other_ids_end_the_run(
    scenario: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(raw.Keys, "ids", lambda keys: np.ones_like(keys.codes))
    assert raw.main([*TINY, "--scenario", scenario, "--only", "ours"]) == 1
    assert capsys.readouterr().err.startswith("error: expected ")


def test_ids_are_those_of_the_keys() -> None:
    (batch,) = raw.draw(Sizes(30, 300, 20), raw.SCENARIOS[-1], 1, 0)
    for name, keys in batch.columns.items():
        of_text = dict(zip(keys.texts.to_pylist(), keys.ids().tolist(), strict=True))
        again = [of_text[text] for text in keys.texts.to_pylist()]
        assert again == keys.ids().tolist()
        assert 1 <= min(again) <= max(again) < keys.rows, name
