"""Build what is compiled: the Cython extension and the library of native operators.

DIN_SANITIZE=1 builds with AddressSanitizer and UBSan, asserts on; DIN_COVERAGE=1 counts
the lines of C and Cython that run, for gcov (both are GNU C alone). DIN_NVCC and
DIN_NVCC_STRICT, for the operators for CUDA: cuda/nvcc.py.

An object is compiled again where a file that it includes or the flags have changed;
--force compiles all. Windows: MSVC builds the extension alone, and without AVX2; CC
names a clang for MinGW, as "python -m ziglang cc", which builds all.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

sys.path.insert(0, "cuda")
import nvcc

SANITIZE = os.environ.get("DIN_SANITIZE") == "1"
COVERAGE = os.environ.get("DIN_COVERAGE") == "1"
LIBRARIES = tomllib.loads(Path("csrc/libraries.toml").read_text())
OPS = "din_infer._ops"
OPS_CUDA = "din_infer._ops_cuda"
HEADER = "din_infer/include/din_encode.h"

# whether the compiler has GCC's options, vectors and instruction sets per function
GNU = sys.platform != "win32" or "CC" in os.environ
if SANITIZE:
    # -g1: lines for reports; what -g adds of variables doubles gcc's time
    compile_args = ["-O1", "-g1", "-UNDEBUG", "-fno-sanitize-recover=all"]
    compile_args += ["-fsanitize=address,undefined"]
else:
    compile_args = ["-O3", "-g0", "-DNDEBUG"]
compile_args += ["-std=c11", "-ffp-contract=off", "-fvisibility=hidden", "-Wno-psabi"]
compile_args += ["-MD"]  # beside each object, the files that it includes
if not GNU:
    compile_args = ["/std:c11", "/O2"]
link_args = ["-fsanitize=address,undefined"] if SANITIZE else []
# Of what Cython writes -O3 makes nothing faster than -O2, in a fourth more time; -O1
# would halve that, and slow down the reading of Python lists by 5 %.
SLOWLY_COMPILED = {"din_infer/_kernels.c": ["-O2"]} if GNU else {}

if COVERAGE:
    compile_args += ["-O1", "--coverage", "-fprofile-update=atomic"]
    link_args += ["--coverage"]


class build_ext_and_ops(build_ext):
    """Build the operators as plain libraries: no Python in them, nor in their names."""

    def get_ext_filename(self, fullname: str) -> str:
        if fullname.split(".")[-1] in (OPS.split(".")[-1], OPS_CUDA.split(".")[-1]):
            suffix = ".dll" if sys.platform == "win32" else ".so"
            return os.path.join(*fullname.split(".")) + suffix  # noqa: PTH118
        return str(super().get_ext_filename(fullname))

    def get_export_symbols(self, ext: Extension) -> list[str]:
        if ext.name == OPS:
            header = Path(HEADER).read_text(encoding="utf-8")
            return ["RegisterCustomOps", *re.findall(r"(din_encode_\w+)\(", header)]
        return list(super().get_export_symbols(ext))

    def build_extensions(self) -> None:
        self.failed: list[Extension] = []
        self.locks: dict[str, Lock] = defaultdict(Lock)
        self.compiled: set[str] = set()
        self.compile_all, self.compiler.compile = self.compiler.compile, self.compile
        # written where it is new: objects and libraries are then older
        self.flags = Path(self.build_temp, "flags")
        command = getattr(self.compiler, "compiler_so", [])  # MSVC's has none
        said = repr([command, compile_args, link_args, SLOWLY_COMPILED])
        if command and shutil.which(command[0]):
            ask = [*command, "--version"]
            said += subprocess.run(ask, capture_output=True, text=True).stdout
        if not self.flags.is_file() or self.flags.read_text() != said:
            self.mkpath(self.build_temp)
            self.flags.write_text(said)
        for ext in self.extensions:
            ext.depends.append(str(self.flags))
        super().build_extensions()
        # so that nobody asks where they are
        self.extensions = [e for e in self.extensions if e not in self.failed]

    def compile(self, sources: list[str], **options: object) -> list[str]:
        """Compile what has changed, side by side, in place of the compiler's method."""

        def compile_one(source: str) -> str:
            (name,) = self.compiler.object_filenames(
                [source], output_dir=options["output_dir"]
            )
            with self.locks[name]:  # both libraries have some
                if name not in self.compiled and (
                    self.force or not self.is_fresh(Path(name))
                ):
                    flags = [*compile_args, *SLOWLY_COMPILED.get(source, [])]
                    self.compile_all([source], **{**options, "extra_postargs": flags})
                self.compiled.add(name)
            return str(name)

        slowest = sorted(sources, key=os.path.getsize, reverse=True)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return sorted(pool.map(compile_one, slowest))

    def is_fresh(self, path: Path) -> bool:
        """Tell whether an object is newer than its flags and all that it includes."""
        rules = path.with_suffix(".d")
        if not path.is_file() or not rules.is_file():
            return False
        _, _, names = rules.read_text().replace("\\\n", " ").partition(": ")
        files = [name.replace("\\ ", " ") for name in re.split(r"(?<!\\)\s+", names)]
        made = path.stat().st_mtime
        try:
            return all(
                Path(file).stat().st_mtime < made
                for file in [self.flags, *files]
                if file
            )
        except OSError:  # a header has gone
            return False

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
        depends=[HEADER, *sorted(p.as_posix() for p in Path("csrc").rglob("*.*h"))],
        include_dirs=[folder],
        extra_compile_args=compile_args,
        extra_link_args=link_args,
        libraries=[] if sys.platform == "win32" else ["m"],
    )


extensions = cythonize(
    extension("din_infer._kernels", "csrc", "din_infer/_kernels.pyx"),
    build_dir="build/coverage" if COVERAGE else None,
    emit_linenums=COVERAGE,  # the lines of .pyx and .pxi, not those that Cython writes
    compiler_directives={
        "language_level": "3",
        "boundscheck": False,
        "wraparound": False,
        "initializedcheck": False,
        "autotestdict": False,
        "auto_pickle": False,  # which would write C pointers down
    },
)
# Without them models run on the functions inside them.
if GNU:
    extensions.append(extension(OPS, "csrc/ops"))
else:
    sys.stderr.write(
        "warning: MSVC lacks GNU C's vectors: this package has no native operators, and"
        " encoding without AVX2 (to have both: CC='python -m ziglang cc')\n"
    )
if sys.platform == "linux" and not SANITIZE and nvcc.find_nvcc():
    extensions.append(nvcc.extension(OPS_CUDA, "."))


def long_description() -> str:
    """Return README.md as a package index needs it: no link is relative."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    urls, version = project["project"]["urls"], nvcc.read_version(".")

    def absolute(link: re.Match[str]) -> str:
        way = "raw" if link["picture"] else "blob"
        target = f"{urls['Source']}/{way}/v{version}/{link['path']}"
        return f"{link['picture']}[{link['text']}]({target})"

    relative = r"(?P<picture>!?)\[(?P<text>[^]]*)\]\((?!https?:|#)(?P<path>[^)]+)\)"
    return re.sub(relative, absolute, Path("README.md").read_text(encoding="utf-8"))


setup(
    long_description=long_description(),
    long_description_content_type="text/markdown",
    ext_modules=extensions,
    cmdclass={"build_ext": build_ext_and_ops},
    options={
        "build_ext": {
            "parallel": True,
            "compiler": "mingw32" if sys.platform == "win32" and GNU else None,
        }
    },
)
