"""Clients of docs/without-python.md, in each language whose tools are here.

They reproduce test vectors of the model that they score: Node, with onnxruntime-node in
build/clients, and C++ to the logits; Java and Go to the ids.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest

from din_converter import convert
from din_infer import FeatureSpec
from din_infer.session import ops_library
from tests.models import random_model
from tests.pages import Block, blocks

ROOT = Path(__file__).resolve().parents[1]
CLIENTS = ROOT / "examples/clients"
PAGE = ROOT / "docs/without-python.md"
MODULES = ROOT / "build/clients/node_modules"
FOR_VECTORS_ALONE = ("json.h", "Json.java")

Client = Callable[[Path], list[str]]
"""What each way to run it printed, of a folder with a model and its vectors."""


def output_of(*command: object, cwd: Path | None = None) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def build_node(work: Path) -> Client:
    for file in (CLIENTS / "node").iterdir():
        shutil.copy(file, work)
    (work / "node_modules").symlink_to(MODULES)
    return lambda folder: [
        output_of("node", work / "client.mjs", folder / "m.onnx", folder)
    ]


def build_cpp(work: Path) -> Client:
    """Link with the runtime in the environment, whose wheel has no header."""
    capi = Path(onnxruntime.__file__).parent / "capi"
    (library,) = capi.glob("libonnxruntime.so.*")
    runtime = work / "libonnxruntime.so.1"
    runtime.symlink_to(library)
    client, slice_of_header = work / "client", ROOT / "tests/clients"
    flags = ("-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{slice_of_header}")
    source, rpath = CLIENTS / "cpp/client.cpp", f"-Wl,-rpath,{work}"
    output_of(CXX, *flags, source, runtime, rpath, "-o", client)
    return lambda folder: [
        output_of(client, folder / "m.onnx", folder, *more)
        for more in ((), (ops_library(),))
    ]


def build_java(work: Path) -> Client:
    files = sorted((CLIENTS / "java").glob("*.java"))
    output_of("javac", "-Xlint:all", "-Werror", "-d", work, *files)
    return lambda folder: [output_of("java", "-cp", work, "Client", folder)]


def build_go(work: Path) -> Client:
    flags = ("-buildvcs=false", "-o", work / "client")
    output_of("go", "build", *flags, ".", cwd=CLIENTS / "go")
    return lambda folder: [output_of(work / "client", folder)]


CXX = os.environ.get("CXX", "c++")
LANGUAGES: dict[str, tuple[Callable[[Path], Client], tuple[str, ...]]] = {
    "node": (build_node, ("node",) if MODULES.is_dir() else ("onnxruntime-node",)),
    "cpp": (build_cpp, (CXX,) if sys.platform == "linux" else ("a linker's name",)),
    "java": (build_java, ("javac", "java")),
    "go": (build_go, ("go",)),
}
# A language without its tools has no test: none is skipped.
FOUND = [k for k, (_, tools) in LANGUAGES.items() if all(map(shutil.which, tools))]


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the model that the clients score, and its vectors."""
    folder = tmp_path_factory.mktemp("clients")
    spec = FeatureSpec.load(CLIENTS / "features.toml")
    convert(random_model(spec), folder / "m.onnx", vectors=folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("language", FOUND)
def test_a_client_reproduces_the_vectors(
    language: str, vectors: Path, tmp_path: Path
) -> None:
    build, _ = LANGUAGES[language]
    run = build(tmp_path)
    for printed in run(vectors):
        found = json.loads(printed)
        assert found["wrong"] == 0
        assert found.get("worst", 0) <= 1e-5
        assert ("worst" in found) == (language in ("node", "cpp"))
    # and finds another id, and another logit
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    shutil.copy(vectors / "m.onnx", wrong)
    lines = (vectors / "vectors.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    first["inputs"]["hist_shop_id"]["data"][0] += 1
    first["logits"][0] += 1.5
    (wrong / "vectors.jsonl").write_text("\n".join([json.dumps(first), *lines[1:]]))
    for printed in run(wrong):
        found = json.loads(printed)
        assert found["wrong"] == 1
        assert found.get("worst", 1) > 1e-3


def shown() -> list[Block]:
    return [b for b in blocks(PAGE) if "runs examples/clients/" in b.said]


def test_the_page_shows_every_client_as_it_is_run() -> None:
    files = {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for path in CLIENTS.glob("*/*.*")
        if path.name not in (*FOR_VECTORS_ALONE, "go.mod")
    }
    assert {block.said.split()[-1]: block.text for block in shown()} == files


def test_no_file_of_a_client_is_long() -> None:
    assert len(shown()) > 10
    for block in shown():
        assert block.text.count("\n") < 60, block.said
