"""Tests with the oldest and the newest of what the package may be installed with.

    make matrix                        all sessions whose Python is at hand
    .venv/bin/nox -s oldest            one of them; -l lists all
    .venv/bin/nox -s newest -- -x      with words for pytest

`oldest` installs the lowest versions that pyproject.toml declares, all together, with
Python 3.11; `newest` the highest that pip finds. `runtime` has no torch, so that it
can be had for every Python; it installs the package as a user does, and tests what
scores: encoding, frozen models, jobs. docs/versions.md has the versions that were
tested. torch is the one of constraints.txt in all sessions: pip's default builds take
gigabytes. An environment is removed when its session has passed.
"""

import os
import shutil
import tomllib
from pathlib import Path

import nox

nox.needs_version = ">=2025.2"
nox.options.error_on_missing_interpreters = False
nox.options.default_venv_backend = "venv"
nox.options.reuse_existing_virtualenvs = False

PROJECT = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
PINNED = Path("constraints.txt").read_text(encoding="utf-8").splitlines()
TORCH = next(line for line in PINNED if line.startswith("torch=="))
# Test modules that need no torch, and those that do.
RUNTIME = ["frozen", "versions", "columns", "encode", "ops_abi", "repeats", "bad_rows"]
RUNTIME += ["history", "history_reading"]
CONVERTING = ["score_job", "data_files", "predictor", "export", "mlflow"]
# what asks for types of Arrow that the oldest pyarrow lacks, or for Java
NEWEST = ["arrow_types", "exact_types", "text_values", "resume", "ray", "spark"]
HELPERS = ["pytest>=9", "pytest-xdist>=3.8", "hypothesis>=6.100", "onnx>=1.21"]
NO_CUDA = {"DIN_NVCC": ""}
FRAMES = ("pandas", "duckdb", "polars", "xxhash", "deltalake")


def requirements(*extras: str) -> list[str]:
    """List what the package and some of its extras require."""
    found = list(PROJECT["project"]["dependencies"])
    for extra in extras:
        found += PROJECT["project"]["optional-dependencies"][extra]
    return found


def of_tests(*names: str) -> list[str]:
    """List requirements of the tests, by the beginnings of their names."""
    return [r for r in PROJECT["dependency-groups"]["test"] if r.startswith(names)]


def lowest(wanted: list[str]) -> list[str]:
    """Turn lower bounds into exact versions; the highest of several of one package."""
    found: dict[str, tuple[int, ...]] = {}
    for requirement in wanted:
        name, _, bound = requirement.partition(">=")
        bound = bound.partition(",")[0]
        numbers = tuple(map(int, (bound if "." in bound else f"{bound}.0").split(".")))
        found[name] = max(found.get(name, ()), numbers)
    return [f"{n}=={'.'.join(map(str, v))}.*" for n, v in found.items()]


def run_tests(session: nox.Session, names: list[str], *words: str) -> None:
    """Run test modules on the installed package, with what is skipped said."""
    session.run("python", "-m", "pip", "list")
    env = {"HYPOTHESIS_PROFILE": "few", "OMP_WAIT_POLICY": "PASSIVE"}
    files = [f"tests/test_{name}.py" for name in names]
    words = ("-p", "no:cacheprovider", *words, *session.posargs)
    session.run("pytest", *words, *files, env=env)
    # a matrix of whole environments takes gigabytes
    if os.environ.get("DIN_KEEP_ENVIRONMENTS") != "1":
        shutil.rmtree(session.virtualenv.location)


@nox.session(python="3.11")
def oldest(session: nox.Session) -> None:
    """Test with the lowest versions that are declared."""
    extras = ("cpu", "batch", "convert", "plot", "ray", "mlflow", "delta", "history")
    wanted = lowest([r for r in requirements(*extras) if not r.startswith("torch")])
    wanted += lowest(of_tests(*FRAMES))
    session.install(TORCH, *wanted, *HELPERS[:-1])
    session.install("--no-deps", "--editable", ".", env=NO_CUDA)
    # old libraries use what their newer requirements have deprecated; the tests of
    # repeats build arrays that pyarrow 17 cannot
    names = [name for name in RUNTIME + CONVERTING if name != "repeats"]
    run_tests(session, names, "-W", "ignore::DeprecationWarning")


@nox.session(python="3.11")
def newest(session: nox.Session) -> None:
    """Test with the highest versions that can be installed together."""
    extras = ("cpu", "batch", "convert", "plot", "ray", "spark", "mlflow", "delta")
    wanted = requirements(*extras, "history")
    wanted = [r for r in wanted if not r.startswith("torch")]
    session.install("--upgrade", TORCH, *wanted, *of_tests(*FRAMES), *HELPERS)
    session.install("--no-deps", "--editable", ".", env=NO_CUDA)
    run_tests(session, RUNTIME + CONVERTING + NEWEST)


@nox.session(python=PYTHONS)
def runtime(session: nox.Session) -> None:
    """Test what scores, without torch, on each Python."""
    wanted = [*of_tests(*FRAMES), *HELPERS]
    session.install("--editable", ".[cpu,batch]", *wanted, env=NO_CUDA)
    run_tests(session, RUNTIME)
