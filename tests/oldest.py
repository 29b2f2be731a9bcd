"""The oldest supported ONNX Runtime, which `make .oldest` puts beside the newest."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
CODE = """
import sys, numpy, onnxruntime, pathlib
assert onnxruntime.__version__.startswith("1.20."), onnxruntime.__version__
session = onnxruntime.InferenceSession(sys.argv[1])
for file in pathlib.Path(sys.argv[2]).glob("*.npz"):
    (logits,) = session.run(["logit"], dict(numpy.load(file)))
    numpy.save(file.with_suffix(".npy"), logits)
"""


def oldest_runtime() -> Path:
    """The folder to put on PYTHONPATH; skips the test where it is absent."""
    folder = Path(os.environ.get("DIN_OLDEST_RUNTIME", ROOT / ".oldest")).resolve()
    if not (folder / "onnxruntime").is_dir():
        pytest.skip("needs the oldest ONNX Runtime: make .oldest")
    return folder


def oldest_logits(
    model: Path, batches: Sequence[Mapping[str, NDArray[Any]]]
) -> list[NDArray[np.float32]]:
    """Run a model there, in a process of its own; skips the test where it is absent."""
    folder = oldest_runtime()
    with tempfile.TemporaryDirectory() as name:
        for k, inputs in enumerate(batches):
            np.savez(Path(name, f"{k}.npz"), **inputs)  # type: ignore[arg-type]
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        command = [sys.executable, "-c", CODE, str(model), name]
        subprocess.run(command, env=environment, check=True, timeout=300)
        return [np.load(Path(name, f"{k}.npy")) for k in range(len(batches))]
