"""Golden tables encoded by a program in C, with each instruction set."""

import os
import subprocess
from pathlib import Path

import pytest

from tests import ops
from tests.golden_program import program


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    (folder / "golden.c").write_text(program())
    library = ops.library()
    line = [os.environ.get("CC", "cc"), "-std=c11", "-Idin_infer/include", "-O0"]
    line += [str(folder / "golden.c"), str(library), f"-Wl,-rpath,{library.parent}"]
    subprocess.run([*line, "-o", str(folder / "golden")], check=True)
    return folder / "golden"


@pytest.mark.parametrize("isa", ops.machine_isas())
def test_tables_are_encoded_alike(isa: str, built: Path) -> None:
    if isa == "amx":  # of the operators alone
        isa = "avx512"
    done = subprocess.run(
        [str(built)],
        env={**os.environ, "DIN_INFER_ISA": isa},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (
        0,
        "78925 values of 48 tables are equal\n",
    )
