"""Build what is compiled: the Cython extension and the library of native operators.

DIN_SANITIZE=1 builds with AddressSanitizer and UBSan, asserts on.
"""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SANITIZE = os.environ.get("DIN_SANITIZE") == "1"
OPS = "din_infer._ops"

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


class build_ext_and_ops(build_ext):
    """Build the operators as a plain library: no Python in it, nor in its name."""

    def get_ext_filename(self, fullname: str) -> str:
        if fullname.split(".")[-1] == OPS.split(".")[-1]:
            suffix = ".dll" if sys.platform == "win32" else ".so"
            return os.path.join(*fullname.split(".")) + suffix  # noqa: PTH118
        return str(super().get_ext_filename(fullname))

    def get_export_symbols(self, ext: Extension) -> list[str]:
        if ext.name == OPS:
            return ["RegisterCustomOps"]
        return list(super().get_export_symbols(ext))


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
    ops["extra_compile_args"] = [*compile_args, "-Wno-psabi"]
    ops["libraries"] = ["m"]
    extensions.append(Extension(OPS, **ops))

setup(ext_modules=extensions, cmdclass={"build_ext": build_ext_and_ops})
