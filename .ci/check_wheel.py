"""Check what a user gets from the wheel alone.

check_wheel.py                     no runtime is installed: imports, ids, what is told
check_wheel.py --models FOLDER     with one: each model there scores its golden rows
check_wheel.py --readme README.md  the page's Python lines, beside demo/ of `make demo`
"""

import argparse
import ctypes
import re
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import din_infer
from din_infer.c_api import header_path
from din_infer.model_file import ModelFile
from din_infer.session import ops_library

REPOSITORY = Path(__file__).resolve().parents[1]
INSTALLED = Path(din_infer.__file__).parent
HEAVY = {"torch", "onnx", "onnxruntime", "pyarrow"}
# MSVC builds no operators, which are GNU C
HAS_OPS = sys.platform != "win32"

SPEC = {
    "format": 1,
    "candidate": [
        {"name": "goods", "dim": 4, "encoder": {"type": "hash", "buckets": 1000}}
    ],
    "behavior": [{"name": "history", "max_len": 3, "fields": {"hist_goods": "goods"}}],
}


def check_files() -> None:
    """See that all modules are there, commands start, and no import is heavy."""
    assert "site-packages" in INSTALLED.parts, INSTALLED
    assert not HEAVY & set(sys.modules), HEAVY & set(sys.modules)
    for source in (REPOSITORY, REPOSITORY / "converter"):
        for file in source.glob("din_*/**/*.py"):
            shipped = INSTALLED.parent / file.relative_to(source)
            assert shipped.is_file(), f"not in the wheel: {shipped}"
    for command in ("score", "train", "convert", "explain", "inspect", "verify"):
        subprocess.run([f"din-{command}", "--help"], check=True, capture_output=True)
        said = subprocess.check_output([f"din-{command}", "--version"], text=True)
        assert said == f"din-{command} {version('din-infer')}\n", said
    for device in ("cpu", "cuda"):
        library = ops_library(device)
        # those for CUDA are in a wheel of their own
        assert (library is not None) == (device == "cpu" and HAS_OPS), library
        if library is not None:
            assert library.parent == INSTALLED, library
            ctypes.CDLL(str(library)).RegisterCustomOps  # noqa: B018 - its entry
            assert ctypes.CDLL(str(library)).din_encode_version() == 1
            assert header_path().parent.parent == INSTALLED, header_path()
            assert "din_encode_open" in header_path().read_text(encoding="utf-8")


def check_ids() -> None:
    """Encode to the ids of every platform."""
    assert din_infer.hash_buckets(["a", None], 1_000).tolist() == [102, 0]
    encoded = din_infer.FeatureSpec.from_dict(SPEC).encode(
        [
            {"goods": "a", "hist_goods": ["b", "a", None, "a"]},
            {"goods": None, "hist_goods": []},
        ]
    )
    ids = {name: value.tolist() for name, value in encoded.items()}
    assert ids["goods"] == [102, 0], ids
    assert ids["hist_goods"][0][:3] == [102, 0, 102], ids
    assert ids["history.lengths"] == [3, 0], ids


def check_missing_runtime() -> None:
    """See that it is told what to install."""
    message = ""
    try:
        din_infer.Predictor("model.onnx")
    except din_infer.DeviceError as error:
        message = str(error)
    assert 'Run: pip install "din-infer[cpu]"' in message, message


def check_models(folder: Path) -> None:
    """Load each model, which scores its golden rows: by the operators, and without."""
    models = sorted(folder.rglob("*.onnx"))
    assert models, f"no model in {folder}"
    for model in models:
        # none in a torch module whose attention was not found
        has_operators = bool(ModelFile.read(model).operators)
        for fused in {HAS_OPS, False}:
            predictor = din_infer.Predictor(model, device="cpu", fused=fused)
            assert predictor.fused == (fused and has_operators), model
    print(f"{len(models)} models score their golden rows")


def check_readme(page: Path) -> None:
    """Run its Python lines, but for those that need torch or an engine."""
    code = re.findall(
        r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL
    )
    elsewhere = re.compile("din_converter|din_infer.jobs")  # needs other extras
    code = [block for block in code if not elsewhere.search(block)]
    assert len(code) >= 3, len(code)
    names: dict[str, object] = {}
    for block in code:
        exec(compile(block, str(page), "exec"), names)
    assert len(names["scores"]) > 0  # type: ignore[arg-type]
    assert names["p"].fused == HAS_OPS  # type: ignore[attr-defined]
    print(f"{len(code)} blocks of {page.name} run")


def import_time() -> str:
    """Measure `import din_infer`, the median of 7, in milliseconds."""
    seconds = []
    for _ in range(7):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import din_infer"], check=True)
        seconds.append(time.perf_counter() - start)
    return f"import din_infer takes {1e3 * sorted(seconds)[3]:.0f} ms"


parser = argparse.ArgumentParser()
parser.add_argument("--models", type=Path)
parser.add_argument("--readme", type=Path)
arguments = parser.parse_args()
print(f"{INSTALLED}, {version('din-infer')}, Python {sys.version.split()[0]}")
if arguments.readme is not None:
    check_readme(arguments.readme)
else:
    check_files()
    check_ids()
    if arguments.models is not None:
        check_models(arguments.models)
    else:
        check_missing_runtime()
        print(import_time())
