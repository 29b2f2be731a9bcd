"""Libraries that tests compile of csrc/, kept in build/tests for the runs that follow.

An object is named by the digest of its source after preprocessing, its command and its
compiler's version; a library by the digest of its objects. So a run compiles what has
changed, whichever of its processes asks first, and a run that is killed leaves nothing
elsewhere. What no run has used for a week is removed. A library that does not compile
fails every test that asks for it, with what the compiler said.
"""

import fcntl
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import time
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "tests"
WEEK = 7 * 24 * 3600
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


class _Failed(Exception):
    """What a command said."""


def compiled(name: str, commands: Sequence[Sequence[str]], link: Sequence[str]) -> Path:
    """Compile by each command, which names one source, and link a library of them."""
    made = _make(name, tuple(tuple(command) for command in commands), tuple(link))
    if isinstance(made, str):
        pytest.fail(f"{name} does not compile:\n{made}", pytrace=False)
    return made


@functools.cache
def _make(
    name: str, commands: tuple[tuple[str, ...], ...], link: tuple[str, ...]
) -> Path | str:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # freed when closed
        try:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                objects = [*pool.map(_compile, commands)]
            linked = [*link, "-shared", *map(str, objects), "-lm"]
            digest = _digest(_version(link[0]), " ".join(linked))
            library = _kept(FOLDER / f"{name}-{digest}.so", linked)
        except _Failed as error:
            return str(error)
        for path in FOLDER.glob("*-*"):
            if time.time() - path.stat().st_mtime > WEEK:
                path.unlink(missing_ok=True)  # another process may be here too
        return library


def _compile(command: tuple[str, ...]) -> Path:
    text = _run([*command, "-E"])
    digest = _digest(_version(command[0]), " ".join(command), text)
    return _kept(FOLDER / f"{Path(command[-1]).stem}-{digest}.o", command)


def _kept(path: Path, command: Sequence[str]) -> Path:
    """Return the file, made by the command where it is not there."""
    if path.exists():
        os.utime(path)  # in use
        return path
    # of this process: libraries share objects, and each has a lock of its own
    beside = path.with_suffix(f".{os.getpid()}.new")
    _run([*command, "-o", str(beside)])
    return beside.rename(path)


@functools.cache
def _version(compiler: str) -> str:
    return _run([compiler, "--version"])


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise _Failed(done.stderr or f"{command[0]} failed")
    return done.stdout
