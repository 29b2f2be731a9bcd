"""The operators for CUDA, compiled for this processor: see tests/cuda/emulation.h.

What they compute, and that their lanes meet where they must, is tested on any x86-64
machine through ONNX Runtime's CPU provider; their speed, and the card itself, where
there is one.
"""

import functools
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "csrc" / "ops"
C_SOURCES = ("attention", "cuda_ops", "layers", "op", "register")


@functools.cache
def emulated_cuda() -> Path:
    """Compile it once a run; skips the test on other machines than x86-64."""
    cc, cxx = (
        shutil.which(os.environ.get(k, v)) for k, v in (("CC", "cc"), ("CXX", "c++"))
    )
    if platform.machine() != "x86_64" or cc is None or cxx is None:
        pytest.skip("needs an x86-64 machine with C and C++ compilers")
    folder = Path(tempfile.mkdtemp(prefix="din-emulated-cuda-"))
    flags = [
        "-O1",
        "-g",
        "-fPIC",
        "-fvisibility=hidden",
        "-DDIN_EMULATE",
        f"-I{SOURCES}",
    ]
    header = ["-include", str(ROOT / "tests" / "cuda" / "emulation.h")]
    objects = []
    for name in C_SOURCES:
        objects.append(str(folder / f"{name}.o"))
        source = str(SOURCES / f"{name}.c")
        command = [cc, "-std=c11", *flags, "-c", source, "-o", objects[-1]]
        subprocess.run(command, check=True)
    for path in sorted(SOURCES.glob("*.cu")):
        objects.append(str(folder / f"{path.stem}_cu.o"))
        command = [cxx, "-std=c++17", *flags, *header, "-Wno-unknown-pragmas"]
        command += ["-x", "c++", "-c", str(path), "-o", objects[-1]]
        subprocess.run(command, check=True)
    library = folder / "_ops_cuda.so"
    subprocess.run([cxx, "-shared", "-o", str(library), *objects], check=True)
    return library
