"""Libraries that tests compile of csrc/, each once a run, whichever process asks first.

They lie in one folder, which conftest.py makes and removes; what a run starts finds it
by DIN_TEST_COMPILED. A library that does not compile fails every test that asks for it,
at once: what the compiler said is kept beside the others.
"""

import fcntl
import functools
import os
import platform
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = "DIN_TEST_COMPILED"
# GNU vectors as arguments of inlined functions: no binary interface is concerned
FLAGS = ["-O1", "-fPIC", "-Wno-psabi"]


def sources_of(library: str) -> list[Path]:
    """The files of a library, the largest first: compilers end side by side then."""
    lists = tomllib.loads((ROOT / "csrc" / "libraries.toml").read_text())
    paths = [ROOT / name for name in lists[library]]
    return sorted(paths, key=lambda path: path.stat().st_size, reverse=True)


def compilers() -> dict[str, str]:
    """By the end of a file's name; skips the test on other machines than x86-64."""
    cc, cxx = (
        shutil.which(os.environ.get(k, v)) for k, v in (("CC", "cc"), ("CXX", "c++"))
    )
    if platform.machine() != "x86_64" or cc is None or cxx is None:
        pytest.skip("needs an x86-64 machine with C and C++ compilers")
    return {".c": cc, ".cu": cxx}


@functools.cache
def _own_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="din-compiled-")  # removed at exit


def compiled(name: str, commands: Sequence[Sequence[str]], link: Sequence[str]) -> Path:
    """Run each command with an object's name behind it, then link them to a library."""
    folder = Path(os.environ.get(FOLDER) or _own_folder().name)
    library, said = folder / f"{name}.so", folder / f"{name}.failed"
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # freed when closed
        if not library.exists() and not said.exists():
            objects = [str(folder / f"{name}-{i}.o") for i in range(len(commands))]
            first = [[*c, "-o", o] for c, o in zip(commands, objects, strict=True)]
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                made = [*pool.map(_run, first)]
            beside = str(folder / f"{name}.new")
            made.append(_run([*link, "-shared", "-o", beside, *objects, "-lm"]))
            if any(made):
                said.write_text("".join(made))
            else:
                Path(beside).rename(library)
    if said.exists():
        pytest.fail(f"{name} does not compile:\n{said.read_text()}", pytrace=False)
    return library


def _run(command: Sequence[str]) -> str:
    """What a command says where it fails, and "" where it does not."""
    done = subprocess.run(command, capture_output=True, text=True)
    return (done.stderr or f"{command[0]} failed") if done.returncode else ""
