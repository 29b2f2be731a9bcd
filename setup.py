"""Build the Cython extension; everything else is in pyproject.toml.

DIN_SANITIZE=1 builds with AddressSanitizer and UBSan, asserts on.
"""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

SANITIZE = os.environ.get("DIN_SANITIZE") == "1"

if sys.platform == "win32":
    compile_args = ["/std:c11", "/O2"]
else:
    compile_args = ["-std=c11", "-O3", "-g0", "-DNDEBUG", "-fvisibility=hidden"]
link_args: list[str] = []
if SANITIZE:
    compile_args = ["-std=c11", "-O1", "-g", "-UNDEBUG", "-fno-sanitize-recover=all"]
    compile_args += ["-fsanitize=address,undefined"]
    link_args += ["-fsanitize=address,undefined"]

setup(
    ext_modules=cythonize(
        Extension(
            "din_infer._kernels",
            sources=[
                "din_infer/_kernels.pyx",
                *sorted(p.as_posix() for p in Path("csrc").glob("*.c")),
            ],
            depends=sorted(p.as_posix() for p in Path("csrc").glob("*.h")),
            include_dirs=["csrc"],
            extra_compile_args=compile_args,
            extra_link_args=link_args,
        ),
        compiler_directives={
            "language_level": "3",
            "boundscheck": False,
            "wraparound": False,
            "initializedcheck": False,
            "autotestdict": False,
        },
    )
)
