"""Build what is compiled: the Cython extension and the library of native operators.

DIN_SANITIZE=1 builds with AddressSanitizer and UBSan, asserts on. DIN_NVCC and
DIN_NVCC_STRICT, for the operators for CUDA: cuda/nvcc.py.
"""

import os
import sys
import tomllib
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

sys.path.insert(0, "cuda")
import nvcc

SANITIZE = os.environ.get("DIN_SANITIZE") == "1"
LIBRARIES = tomllib.loads(Path("csrc/libraries.toml").read_text())
OPS = "din_infer._ops"
OPS_CUDA = "din_infer._ops_cuda"

if sys.platform == "win32":
    compile_args = ["/std:c11", "/O2"]
else:
    compile_args = ["-std=c11", "-O3", "-g0", "-DNDEBUG", "-fvisibility=hidden"]
    compile_args += ["-ffp-contract=off"]
link_args: list[str] = []
if SANITIZE:
    # -g1: lines for reports; what -g adds of variables doubles gcc's time
    compile_args = ["-std=c11", "-O1", "-g1", "-UNDEBUG", "-fno-sanitize-recover=all"]
    compile_args += ["-fsanitize=address,undefined", "-fvisibility=hidden"]
    compile_args += ["-ffp-contract=off"]
    link_args += ["-fsanitize=address,undefined"]


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

    def build_extensions(self) -> None:
        self.failed: list[Extension] = []
        super().build_extensions()
        # so that nobody asks where they are
        self.extensions = [e for e in self.extensions if e not in self.failed]

    def build_extension(self, ext: Extension) -> None:
        if ext.name != OPS_CUDA:
            super().build_extension(ext)
            return
        try:
            nvcc.build(self, ext)
        except CompileError as error:
            if nvcc.STRICT:
                raise
            self.failed.append(ext)
            sys.stderr.write(
                f"warning: this package has no operators for CUDA: {error} (to take"
                " another compiler: DIN_NVCC=path; to build without: DIN_NVCC=)\n"
            )


def extension(name: str, folder: str, *first: str) -> Extension:
    """Describe one library: its files, and the headers that it is rebuilt for."""
    library = name.removeprefix("din_infer._")
    return Extension(
        name,
        sources=[*first, *LIBRARIES[library]],
        depends=sorted(p.as_posix() for p in Path(folder).glob("*.*h")),
        include_dirs=[folder],
        extra_compile_args=compile_args,
        extra_link_args=link_args,
        libraries=[] if sys.platform == "win32" else ["m"],
    )


extensions = cythonize(
    extension("din_infer._kernels", "csrc", "din_infer/_kernels.pyx"),
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
    ops = extension(OPS, "csrc/ops")
    ops.extra_compile_args = [*compile_args, "-Wno-psabi"]
    extensions.append(ops)
if sys.platform == "linux" and not SANITIZE and nvcc.find_nvcc():
    extensions.append(nvcc.extension(OPS_CUDA, "."))

setup(
    ext_modules=extensions,
    cmdclass={"build_ext": build_ext_and_ops},
    options={"build_ext": {"parallel": True}},
)
