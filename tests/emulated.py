"""The library of native operators with AVX-512 and AMX emulated in plain C.

For the code that few machines can run: its logic and its rounding are tested on all
x86-64 machines, its instructions where they exist.
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
# __m512 as an argument of an inlined function: no binary interface is concerned
FLAGS = ["-std=c11", "-O1", "-fPIC", "-fvisibility=hidden", "-Wno-psabi"]


@functools.cache
def emulated_library() -> Path:
    """Compile it once a run; skips the test on other machines than x86-64."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if platform.machine() != "x86_64" or compiler is None:
        pytest.skip("needs an x86-64 machine with a C compiler")
    folder = Path(tempfile.mkdtemp(prefix="din-emulated-"))
    flags = [*FLAGS, "-DDIN_EMULATE", f"-I{SOURCES}"]
    if "fma" in Path("/proc/cpuinfo").read_text().split():
        flags += ["-mfma", "-mavx2"]  # else fmaf is computed in software
    sanitize: list[str] = []
    if os.environ.get("DIN_SANITIZE") == "1":
        sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    flags += sanitize
    header = ["-include", str(ROOT / "tests" / "emulate_avx512.h")]
    objects = []
    for source in sorted(SOURCES.glob("*.c")):
        emulates = source.stem in ("isa_avx512", "isa_amx")
        target = folder / f"{source.stem}.o"
        command = [compiler, *flags, *(header if emulates else [])]
        subprocess.run([*command, "-c", str(source), "-o", str(target)], check=True)
        objects.append(str(target))
    library = folder / "libdin_emulated.so"
    subprocess.run(
        [compiler, "-shared", *sanitize, "-o", str(library), *objects, "-lm"],
        check=True,
    )
    return library
