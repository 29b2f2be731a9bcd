"""What `python -m din_infer` prints for a report of a fault."""

import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from din_infer import DeviceError, _kernels, environment
from din_infer.device import Card


def lines(text: str) -> dict[str, str]:
    width = max(map(len, environment.PACKAGES))
    return {s[:width].rstrip(): s[width:].strip() for s in text.splitlines()}


def test_the_module_prints_what_a_report_needs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "din_infer"], capture_output=True, text=True, check=True
    )
    said = lines(done.stdout)
    assert said["din-infer"] == version("din-infer")
    assert said["numpy"] == np.__version__
    assert said["onnxruntime"] == onnxruntime.__version__
    assert said["python"].startswith(platform.python_version())
    assert said["encoding"] == ", ".join(_kernels.isas())
    assert "CPUExecutionProvider" in said["providers"]
    assert said["operators"] == "loaded"
    assert said["card"]
    assert "onnxruntime-gpu" not in said
    assert platform.node() not in done.stdout
    assert done.stderr == ""


def test_what_does_not_work_says_so_in_its_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken() -> None:
        raise DeviceError("an ONNX Runtime", "none", "environment")

    monkeypatch.setattr(environment, "import_runtime", broken)
    monkeypatch.setattr(environment, "ops_library", lambda _: tmp_path / "_ops.so")
    monkeypatch.setenv("DIN_INFER_ISA", "mmx")
    said = lines(environment.environment())
    sentence = "expected an ONNX Runtime, got none - at `environment`"
    assert said["providers"] == said["operators"] == said["card"] == sentence
    assert said["DIN_INFER_ISA"] == "mmx"


def test_a_library_that_is_no_library_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    library = tmp_path / "_ops.so"
    library.write_text("no library")
    monkeypatch.setattr(environment, "ops_library", lambda _: library)
    assert "_ops.so" in lines(environment.environment())["operators"]


def test_a_package_without_operators_and_a_card(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card = Card(0, "Fake 0", 3 << 29, 1 << 29)
    monkeypatch.setattr(environment, "ops_library", lambda _: None)
    monkeypatch.setattr(environment, "find_card", lambda *_: card)
    said = lines(environment.environment())
    assert said["operators"] == said["CUDA operators"] == "not built"
    assert said["card"] == "Fake 0, 1.5 GiB"
