"""Memory that is out: each allocation of a call fails once, in tests/host/failing.c."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.compiled import FLAGS, ROOT, compiled, compilers

# What an allocation of the extension fails with is Python's; the runtime passes on the
# sentence of an operator, and the C interface writes one.
CASES = {
    "encode": {"MemoryError"},
    "operators": {"RuntimeException", "InvalidArgument"},
    "c_interface": {"Refused"},
}


def shim() -> Path:
    cc = compilers()[".c"]
    flags = ["-std=c11", *FLAGS, "-Wall", "-Wextra", "-Werror", "-c"]
    source = str(ROOT / "tests" / "host" / "failing.c")
    return compiled("failing", [[cc, *flags, source]], [cc, "-ldl"])


@pytest.mark.parametrize("case", CASES)
def test_each_failure_is_one_error_and_nothing_is_left(case: str) -> None:
    library = shim()
    done = subprocess.run(
        [sys.executable, "-m", "tests.failing_allocations", str(library), case],
        env={**os.environ, "LD_PRELOAD": str(library)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["wrong"] == []
    assert found["left"] == 0
    assert set(found["raised"]) <= CASES[case]
    assert sum(found["raised"].values()) == found["allocations"] > 50
