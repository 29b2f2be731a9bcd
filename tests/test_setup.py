"""What is built: which files, what a failing nvcc ends, what extras ask for."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from din_infer import __version__

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
# setup.py, but for what is built without nvcc
BUILD = """
import runpy, sys
import setuptools
given = {}
setuptools.setup = lambda **settings: given.update(settings)
runpy.run_path("setup.py")
cuda = [e for e in given["ext_modules"] if e.name == "din_infer._ops_cuda"]
given.update(ext_modules=cuda, packages=[])
made = setuptools.Distribution(given)
command = made.get_command_obj("build_ext")
command.build_lib = command.build_temp = sys.argv[1]
command.force = "force" in sys.argv
command.ensure_finalized()
command.run()
print([name.rpartition("/")[2] for name in command.get_outputs()])
"""
# writes what it is told to, and down how it was called
WORKS = """
echo "$@" >> "$0.calls"
while [ "$1" != -o ]; do shift; done
echo made > "$2"
"""


def build(
    folder: Path, nvcc: Path | str, strict: bool = False
) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DIN_NVCC")}
    environment["DIN_NVCC"] = str(nvcc)
    if strict:
        environment["DIN_NVCC_STRICT"] = "1"
    return subprocess.run(
        [sys.executable, "-c", BUILD, str(folder / "build")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )


def compiler(folder: Path, script: str) -> Path:
    path = folder / "nvcc"
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)
    return path


def warning(said: str) -> str:
    return (
        f"warning: this package has no operators for CUDA: {said} (to take another"
        " compiler: DIN_NVCC=path; to build without: DIN_NVCC=)"
    )


OLD = "nvcc fatal   : Unsupported gpu architecture 'compute_90'"
NEW = "host_config.h:143:2: error: #error -- unsupported GNU version!"
FAILS = {
    "too old": (f'echo "{OLD}" >&2; exit 1', OLD),
    "too old for the C compiler": (
        f"echo 'In file included from x.h:1,'; echo '{NEW}'; echo more; exit 1",
        NEW,
    ),
    "a word": ("echo no licence; exit 2", "no licence"),
    "nothing": ("exit 3", "{nvcc} ended with status 3"),
    "no UTF-8": (r"printf 'x.cu(1): error: \377\n'; exit 1", "x.cu(1): error: \ufffd"),
    "nothing, and writes nothing": ("exit 0", "{nvcc} has written nothing"),
}


@pytest.mark.parametrize("how", FAILS)
def test_a_failing_nvcc_costs_its_operators_and_says_one_line(
    how: str, tmp_path: Path
) -> None:
    script, said = FAILS[how]
    nvcc = compiler(tmp_path, script)
    done = build(tmp_path, nvcc)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stderr.splitlines() == [warning(said.format(nvcc=nvcc))]


def test_an_nvcc_that_cannot_be_run_costs_its_operators(tmp_path: Path) -> None:
    path = tmp_path / "nvcc"
    for said in ("No such file or directory", "Permission denied"):
        done = build(tmp_path, path)
        assert done.returncode == 0, done.stderr
        assert done.stderr.splitlines() == [warning(f"{path}: {said}")]
        path.touch(0o644)


def test_strictly_a_failing_nvcc_ends_the_build(tmp_path: Path) -> None:
    done = build(
        tmp_path, compiler(tmp_path, f"echo first; echo '{NEW}'; exit 1"), True
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"first\n{NEW}\n")
    assert done.stderr.endswith(f"CompileError: {NEW}\n")


def test_no_nvcc_is_asked_where_none_is_named(tmp_path: Path) -> None:
    done = build(tmp_path, "")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stderr == ""


@pytest.mark.parametrize("strict", [False, True])
def test_warnings_are_errors_under_strictness_alone(
    tmp_path: Path, strict: bool
) -> None:
    nvcc = compiler(tmp_path, WORKS)
    done = build(tmp_path, nvcc, strict)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "['_ops_cuda.so']"
    *compiles, link = (tmp_path / "nvcc.calls").read_text().splitlines()
    assert len(compiles) == len(list(ROOT.glob("csrc/ops/*.cu")))
    assert ["-Werror" in call for call in compiles] == [strict] * len(compiles)
    assert "-shared" in link


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A package built by this setup.py, of a few lines of C."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    (tmp_path / "csrc" / "ops").mkdir(parents=True)
    (tmp_path / "din_infer" / "include").mkdir(parents=True)
    (tmp_path / "din_infer" / "_kernels.pyx").touch()
    for path, text in {
        "libraries.toml": 'kernels = []\nops = ["csrc/ops/a.c", "csrc/ops/b.c"]\n',
        "ops/a.h": "enum { A = 1 };\n",
        "ops/a.c": '#include "a.h"\nint a(void) { return A; }\n',
        "ops/b.c": "int RegisterCustomOps(void) { return 2; }\n",
    }.items():
        (tmp_path / "csrc" / path).write_text(text)
    (tmp_path / "cuda").mkdir()
    needed = ("setup.py", "cuda/nvcc.py", "pyproject.toml", "README.md")
    header = "din_infer/include/din_encode.h"
    for name in (*needed, "din_infer/version.py", header):
        shutil.copy(ROOT / name, tmp_path / name)
    cc = tmp_path / "cc"
    cc.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path / "calls"}\nexec cc "$@"\n')
    cc.chmod(0o755)
    return tmp_path


def rebuilt(project: Path, *options: str, **environment: str) -> list[str]:
    """Build the operators; the files compiled, and "link" where they were linked."""
    calls = project / "calls"
    calls.write_text("")
    subprocess.run(
        [sys.executable, "-c", BUILD.replace("_ops_cuda", "_ops"), "build", *options],
        cwd=project,
        env={**os.environ, "CC": str(project / "cc"), "DIN_NVCC": "", **environment},
        check=True,
        capture_output=True,
    )
    lines = [line.split() for line in calls.read_text().splitlines()]
    done = ["".join(w for w in line if w.endswith(".c")) or "link" for line in lines]
    return sorted(
        Path(word).name
        for word, line in zip(done, lines, strict=True)
        if "--version" not in line
    )


def test_a_build_compiles_what_has_changed(project: Path) -> None:
    assert rebuilt(project) == ["a.c", "b.c", "link"]
    assert rebuilt(project) == []
    (project / "csrc" / "ops" / "a.h").write_text("enum { A = 11 };\n")
    assert rebuilt(project) == ["a.c", "link"]
    (project / "csrc" / "ops" / "b.c").touch()
    assert rebuilt(project) == ["b.c", "link"]
    assert rebuilt(project, CFLAGS="-DC") == ["a.c", "b.c", "link"]
    (project / "csrc" / "ops" / "a.h").rename(project / "csrc" / "ops" / "b.h")
    (project / "csrc" / "ops" / "a.c").write_text('#include "b.h"\n')
    assert rebuilt(project, CFLAGS="-DC") == ["a.c", "link"]
    assert rebuilt(project, "force", CFLAGS="-DC") == ["a.c", "b.c", "link"]


def test_every_file_of_csrc_is_part_of_a_library() -> None:
    lists = tomllib.loads((ROOT / "csrc" / "libraries.toml").read_text())
    listed = {ROOT / name for names in lists.values() for name in names}
    assert listed == {*(ROOT / "csrc").rglob("*.c"), *(ROOT / "csrc").rglob("*.cu")}


def test_gpu_asks_for_a_runtime_on_every_platform() -> None:
    """Where there is no wheel pip says so; a marker would leave it out in silence."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    runtime, operators = project["optional-dependencies"]["gpu"]
    assert runtime.startswith("onnxruntime-gpu")
    assert ";" not in runtime
    pinned = f"din-infer-cuda=={__version__}; sys_platform == 'linux'"
    assert operators == pinned
