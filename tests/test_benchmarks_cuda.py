"""benchmarks.cuda where there is no card: the harness and its comparison with torch."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import cuda
from tests.emulated import emulated_cuda

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.cuda", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_kernels_are_compared_and_timed(tmp_path: Path) -> None:
    emulated_cuda()  # or skipped
    sizes = ("--n", "8", "--t", "20", "--rows", "200", "--pool", "1", "--rounds", "1")
    done = run("--emulate", *sizes, "--json", str(tmp_path / "out.json"))
    assert done.returncode == 0, done.stderr
    assert "times mean nothing" in done.stdout
    found = json.loads((tmp_path / "out.json").read_text())
    rows = found["attention"]["rows"]
    padded = {f"{p}-padded" for p in cuda.PRECISIONS}
    assert set(rows) == set(cuda.PRECISIONS) | padded
    for name, row in rows.items():
        assert 0 < row["error"] <= cuda.PRECISIONS[name.removesuffix("-padded")]


def test_a_rival_that_fails_is_left_out() -> None:
    """Of torch.compile: without a C compiler, on a Python that it does not know."""

    def fails() -> object:
        message = "no compiler\nat length"
        raise RuntimeError(message)

    def rival(*_: torch.Tensor) -> torch.Tensor:
        return torch.ones(3, 2)

    batch = dict.fromkeys(cuda.ATTENTION_INPUTS, np.zeros((3, 2), np.int64))
    rivals = {"eager": lambda: rival, "compile": fails}
    runs, errors, left_out = cuda.try_rivals(rivals, [batch], "cpu", np.ones((2, 2)))
    assert list(runs) == ["eager"]
    assert errors == {"eager": 0.0}
    assert left_out == {"compile": "RuntimeError: no compiler"}


def test_an_output_that_is_off_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    emulated_cuda()
    monkeypatch.setattr(cuda, "PRECISIONS", dict.fromkeys(cuda.PRECISIONS, 1e-12))
    words = ["--emulate", "--n", "4", "--t", "9", "--rows", "50", "--pool", "1"]
    monkeypatch.setattr(sys, "argv", ["cuda", *words, "--rounds", "1"])
    with pytest.raises(SystemExit, match="fp32 is off by"):
        cuda.main()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_it_says_so() -> None:
    done = run("--n", "8")
    assert done.returncode == 1
    assert done.stderr == "benchmarks.cuda: needs a card, or --emulate\n"
