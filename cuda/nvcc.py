"""Build the operators for CUDA; used by setup.py of this folder and of the one above.

They are built where nvcc is found, on the PATH or in CUDA_HOME, and can compile them;
DIN_NVCC names another, and DIN_NVCC= (empty) builds without. DIN_NVCC_STRICT=1 takes
nvcc's warnings for errors, and ends the build with all that it said where it fails.
DIN_CUDA_TARGETS=90 builds for cards of compute capability 9.0 and newer alone.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from setuptools import Extension
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

STRICT = os.environ.get("DIN_NVCC_STRICT") == "1"
# Machine code for these, and PTX of the last, which drivers compile for newer cards.
CUDA_TARGETS = os.environ.get("DIN_CUDA_TARGETS", "80,90").split(",")


def read_version(root: str) -> str:
    """Read the version of both packages; `root` is the folder above din_infer."""
    text = Path(root, "din_infer", "version.py").read_text(encoding="utf-8")
    (found,) = re.findall(r'^__version__ = "(.+)"', text, re.MULTILINE)
    return str(found)


def find_nvcc() -> str | None:
    """Find the CUDA compiler; None where the operators for CUDA are not to be built."""
    if "DIN_NVCC" in os.environ:
        return os.environ["DIN_NVCC"] or None
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    return shutil.which("nvcc") or shutil.which("nvcc", path=f"{home}/bin")


def nvcc_flags() -> list[str]:
    """Build the command line of one .cu file, without its names."""
    flags = ["-std=c++17", "-O3", "--threads", "2"]
    flags += ["-Xcompiler", "-fPIC,-fvisibility=hidden,-Wall,-Wextra"]
    if STRICT:
        flags += ["-Werror", "all-warnings"]
    for target in CUDA_TARGETS:
        flags += ["-gencode", f"arch=compute_{target},code=sm_{target}"]
    last = f"compute_{CUDA_TARGETS[-1]}"
    return [*flags, "-gencode", f"arch={last},code={last}"]


def run_nvcc(arguments: list[str]) -> None:
    """Run it; raises CompileError with the line of its output that says most."""
    nvcc = str(find_nvcc())
    try:
        done = subprocess.run(
            [nvcc, *arguments], capture_output=True, text=True, errors="replace"
        )
    except OSError as error:
        said = f"{nvcc}: {error.strerror}"
        raise CompileError(said) from error
    said = done.stdout + done.stderr
    if done.returncode == 0 or STRICT:
        sys.stderr.write(said)
    if done.returncode != 0:
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line or "fatal" in line]
        status = f"{nvcc} ended with status {done.returncode}"
        raise CompileError((errors or lines or [status])[0])


def extension(name: str, root: str) -> Extension:
    """Describe the library; `root` is the folder above csrc."""
    listed = tomllib.loads(Path(root, "csrc", "libraries.toml").read_text())
    folder = Path(root, "csrc", "ops")
    return Extension(
        name,
        sources=[Path(root, source).as_posix() for source in listed["ops_cuda"]],
        depends=sorted(p.as_posix() for p in folder.glob("*.*h")),
        include_dirs=[folder.as_posix()],
        extra_compile_args=[
            *("-std=c11", "-O3", "-g0", "-DNDEBUG", "-fvisibility=hidden"),
            *("-ffp-contract=off", "-Wno-psabi"),
        ],
    )


def build(command: build_ext, ext: Extension) -> None:
    """Compile C by the C compiler and .cu files by nvcc, which links both."""
    target = Path(command.get_ext_fullpath(ext.name))
    inputs = [Path(p) for p in (*ext.sources, *ext.depends, __file__)]
    newest = max(p.stat().st_mtime for p in inputs)
    if not command.force and target.exists() and target.stat().st_mtime > newest:
        return
    old = [target, Path("din_infer", target.name)]
    for path in old if command.inplace or command.editable_mode else ():
        path.unlink(missing_ok=True)  # made of other sources
    objects = command.compiler.compile(
        [p for p in ext.sources if p.endswith(".c")],
        output_dir=f"{command.build_temp}/cuda",
        include_dirs=ext.include_dirs,
        extra_postargs=ext.extra_compile_args,
    )
    for source in (p for p in ext.sources if p.endswith(".cu")):
        objects.append(f"{command.build_temp}/cuda/{Path(source).name}.o")
        run_nvcc([*nvcc_flags(), "-c", source, "-o", objects[-1]])
    target.parent.mkdir(parents=True, exist_ok=True)
    # CUDA's runtime goes in, and its names stay in
    link = ["-shared", "-cudart", "static", "-Xlinker", "--exclude-libs,ALL"]
    beside = target.with_suffix(".new")
    run_nvcc([*link, "-o", str(beside), *objects])
    if not beside.is_file():
        said = f"{find_nvcc()} has written nothing"
        raise CompileError(said)
    beside.replace(target)
