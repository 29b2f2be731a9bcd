"""Check what a user gets from the wheel alone: imports, hashes, names what it lacks."""

import ctypes
import shutil
import subprocess
import sys
import time
from pathlib import Path

import din_infer
from din_infer.session import ops_library

installed = Path(din_infer.__file__)
assert "site-packages" in installed.parts, installed
assert din_infer.hash_buckets(["a", None], 1_000).tolist() == [102, 0]
heavy = {"torch", "onnx", "onnxruntime", "pyarrow"} & set(sys.modules)
assert not heavy, heavy
ops = ops_library()
assert ops is not None
assert ops.parent == installed.parent, ops
ctypes.CDLL(str(ops)).RegisterCustomOps  # noqa: B018 - it loads, and has its entry

cuda = ops_library("cuda")
nvcc = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
assert (cuda is not None) == (nvcc is not None), (cuda, nvcc)
if cuda is not None:  # it loads without a driver, so that errors can be told
    ctypes.CDLL(str(cuda)).RegisterCustomOps  # noqa: B018

message = ""
try:
    din_infer.Predictor("model.onnx")
except din_infer.DeviceError as error:
    message = str(error)
assert 'Run: pip install "din-infer[cpu]"' in message, message

repository = Path(__file__).parents[1]
for source in (repository, repository / "converter"):
    for file in source.glob("din_*/**/*.py"):
        shipped = installed.parents[1] / file.relative_to(source)
        assert shipped.is_file(), f"not in the wheel: {shipped}"

for command in ("score", "train", "convert", "explain", "inspect", "verify"):
    path = Path(sys.executable).with_name(f"din-{command}")
    subprocess.run([path, "--help"], check=True, stdout=subprocess.DEVNULL)

seconds = []
for _ in range(7):
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import din_infer"], check=True)
    seconds.append(time.perf_counter() - start)
print(f"{installed.parent}: import din_infer takes {1e3 * sorted(seconds)[3]:.0f} ms")
