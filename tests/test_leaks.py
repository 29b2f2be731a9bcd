"""Memory and open files stay what they are: tests/leaks.py, which `make leaks` runs."""

import json
import subprocess
import sys

import pytest

from tests.compiled import ROOT


@pytest.mark.slow
def test_calls_and_predictors_leave_nothing_behind() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.leaks", "20000", "100"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["score"]["calls"] == 20_000
    assert found["Predictor"]["calls"] == 100
