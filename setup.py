"""Build what is compiled: the Cython extension and the library of native operators.

DIN_SANITIZE=1 builds with AddressSanitizer and UBSan, asserts on. The operators for
CUDA are built where nvcc is found, on the PATH or in CUDA_HOME; DIN_NVCC names another,
and DIN_NVCC= (empty) builds without.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SANITIZE = os.environ.get("DIN_SANITIZE") == "1"
OPS = "din_infer._ops"
OPS_CUDA = "din_infer._ops_cuda"
# Machine code for these, and PTX of the last, which drivers compile for newer cards.
CUDA_TARGETS = (80, 90)

if sys.platform == "win32":
    compile_args = ["/std:c11", "/O2"]
else:
    compile_args = ["-std=c11", "-O3", "-g0", "-DNDEBUG", "-fvisibility=hidden"]
    compile_args += ["-ffp-contract=off"]
link_args: list[str] = []
if SANITIZE:
    compile_args = ["-std=c11", "-O1", "-g", "-UNDEBUG", "-fno-sanitize-recover=all"]
    compile_args += ["-fsanitize=address,undefined", "-fvisibility=hidden"]
    compile_args += ["-ffp-contract=off"]
    link_args += ["-fsanitize=address,undefined"]


def find_nvcc() -> str | None:
    """Find the CUDA compiler; None where the operators for CUDA are not to be built."""
    if "DIN_NVCC" in os.environ:
        return os.environ["DIN_NVCC"] or None
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    return shutil.which("nvcc") or shutil.which("nvcc", path=f"{home}/bin")


def nvcc_flags() -> list[str]:
    """Build the command line of one .cu file, without its names."""
    flags = ["-std=c++17", "-O3", "--threads", "2", "-Werror", "all-warnings"]
    flags += ["-Xcompiler", "-fPIC,-fvisibility=hidden,-Wall,-Wextra"]
    for target in CUDA_TARGETS:
        flags += ["-gencode", f"arch=compute_{target},code=sm_{target}"]
    last = f"compute_{CUDA_TARGETS[-1]}"
    return [*flags, "-gencode", f"arch={last},code={last}"]


class build_ext_and_ops(build_ext):
    """Build the operators as plain libraries: no Python in them, nor in their names."""

    def get_ext_filename(self, fullname: str) -> str:
        if fullname.split(".")[-1] in (OPS.split(".")[-1], OPS_CUDA.split(".")[-1]):
            suffix = ".dll" if sys.platform == "win32" else ".so"
            return os.path.join(*fullname.split(".")) + suffix  # noqa: PTH118
        return str(super().get_ext_filename(fullname))

    def get_export_symbols(self, ext: Extension) -> list[str]:
        if ext.name == OPS:
            return ["RegisterCustomOps"]
        return list(super().get_export_symbols(ext))

    def build_extension(self, ext: Extension) -> None:
        if ext.name == OPS_CUDA:
            self.build_cuda(ext)
        else:
            super().build_extension(ext)

    def build_cuda(self, ext: Extension) -> None:
        """Compile C by the C compiler and .cu files by nvcc, which links both."""
        nvcc = find_nvcc()
        target = Path(self.get_ext_fullpath(ext.name))
        inputs = [Path(p) for p in (*ext.sources, *ext.depends, __file__)]
        newest = max(p.stat().st_mtime for p in inputs)
        if not self.force and target.exists() and target.stat().st_mtime > newest:
            return
        objects = self.compiler.compile(
            [p for p in ext.sources if p.endswith(".c")],
            output_dir=f"{self.build_temp}/cuda",
            include_dirs=ext.include_dirs,
            extra_postargs=ext.extra_compile_args,
        )
        for source in (p for p in ext.sources if p.endswith(".cu")):
            objects.append(f"{self.build_temp}/cuda/{Path(source).name}.o")
            command = [str(nvcc), *nvcc_flags(), "-c", source, "-o", objects[-1]]
            subprocess.run(command, check=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        # CUDA's runtime goes in, and its names stay in
        link = ["-shared", "-cudart", "static", "-Xlinker", "--exclude-libs,ALL"]
        beside = target.with_suffix(".new")
        subprocess.run([str(nvcc), *link, "-o", str(beside), *objects], check=True)
        beside.replace(target)


def sources(folder: str) -> dict[str, list[str]]:
    """Name a folder's C files, and the headers that they are rebuilt for."""
    return {
        "sources": sorted(p.as_posix() for p in Path(folder).glob("*.c")),
        "depends": sorted(p.as_posix() for p in Path(folder).glob("*.h")),
        "include_dirs": [folder],
        "extra_compile_args": compile_args,
        "extra_link_args": link_args,
    }


kernels = sources("csrc")
kernels["sources"].insert(0, "din_infer/_kernels.pyx")
if sys.platform != "win32":
    kernels["libraries"] = ["m"]
extensions = cythonize(
    Extension("din_infer._kernels", **kernels),
    compiler_directives={
        "language_level": "3",
        "boundscheck": False,
        "wraparound": False,
        "initializedcheck": False,
        "autotestdict": False,
        "auto_pickle": False,  # which would write C pointers down
    },
)
# The operators are GNU C (vectors, per-function instruction sets). Built by MSVC, a
# package has none, and models run on the functions inside them.
if sys.platform != "win32":
    ops = sources("csrc/ops")
    ops["sources"].remove("csrc/ops/cuda_ops.c")
    ops["extra_compile_args"] = [*compile_args, "-Wno-psabi"]
    ops["libraries"] = ["m"]
    extensions.append(Extension(OPS, **ops))
if sys.platform == "linux" and not SANITIZE and find_nvcc():
    folder = Path("csrc/ops")
    shared_c = ("attention", "layers", "op", "register", "cuda_ops")
    cuda = sources("csrc/ops")
    cuda["sources"] = [f"csrc/ops/{name}.c" for name in shared_c]
    cuda["sources"] += sorted(p.as_posix() for p in folder.glob("*.cu"))
    cuda["depends"] += sorted(p.as_posix() for p in folder.glob("*.cuh"))
    extensions.append(Extension(OPS_CUDA, **cuda))

setup(ext_modules=extensions, cmdclass={"build_ext": build_ext_and_ops})
