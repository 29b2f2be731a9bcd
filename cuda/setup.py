"""Build the wheel din-infer-cuda from the sources above: one library, no Python."""

import os
import shutil
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

os.environ.setdefault("DIN_NVCC_STRICT", "1")  # read by nvcc.py
sys.path.insert(0, str(Path(__file__).parent))
import nvcc


class build_cuda(build_ext):
    def get_ext_filename(self, fullname: str) -> str:
        return fullname.replace(".", "/") + ".so"

    def build_extension(self, ext: Extension) -> None:
        if nvcc.find_nvcc() is None:
            said = "expected nvcc on the PATH, in CUDA_HOME or DIN_NVCC, got none"
            raise CompileError(said)
        nvcc.build(self, ext)


class any_python(bdist_wheel):
    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


shutil.copyfile("../LICENSE", "LICENSE")
setup(
    version=nvcc.read_version(".."),
    ext_modules=[nvcc.extension("din_infer_cuda._ops_cuda", "..")],
    cmdclass={"build_ext": build_cuda, "bdist_wheel": any_python},
    options={"build_ext": {"force": True}},  # what lies here may be for other targets
)
