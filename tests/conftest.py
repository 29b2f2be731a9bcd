"""Session-wide settings: hypothesis profiles, and no silent skips where data is there.

DIN_REQUIRE_SHARED=1 makes the session fail when any test was skipped: set it where
every test can run. Tests that need a card are left out where there is none.
HYPOTHESIS_PROFILE chooses "dev" (50 examples, the default), "ci" (30, repeatable),
"few" (10, repeatable: under sanitizers, and in the fast set) or "mutation" (as "few",
the first failure unreduced).
DIN_OPS_SHARE=3 runs one in three cases of test_ops.py, which are many, by their names.
DIN_TEST_BUILD names a folder with other builds of what is compiled, to be tested in
place of the package's own.

A test that imports a library which `pip install --group test-all` brings, and which is
not installed, is skipped: so `pytest` runs without Ray, Spark or MLflow.
"""

import os
import sys
import textwrap
from collections import Counter
from collections.abc import Sequence
from functools import cache
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import Phase, settings

# Before torch is imported. Two processes of two threads each, which spin while they
# wait for one another, took 1.5 CPU seconds for a conversion that takes 0.3.
os.environ.setdefault("OMP_NUM_THREADS", "1")


class _OtherBuild:
    """Finds `_kernels` in another folder than the package's."""

    def __init__(self, folder: str) -> None:
        (self.path,) = (Path(folder) / "din_infer").glob("_kernels.*so")

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        if name != "din_infer._kernels":
            return None
        return spec_from_file_location(name, self.path)


# Libraries that only tests import (pyproject.toml, test-all), by the names of modules.
OPTIONAL = {"ray", "pyspark", "mlflow", "deltalake", "datafusion", "duckdb", "polars"}
OPTIONAL |= {"pandas", "sklearn", "matplotlib", "xxhash", "mmh3", "farmhash"}
ROOT = Path(__file__).resolve().parents[1]
# Files in the order in which processes begin them, before all others: the longest ones,
# and between them those that wait for processes of Ray, Spark and MLflow.
FIRST = ("ray", "fusing", "ops", "spark", "predictor", "mlflow", "benchmarks_job")
THEIRS = tuple(str(ROOT / name) for name in ("tests", "benchmarks", "examples"))


class _NotInstalled:
    """Skips the test, or the file of tests, that imports what is not installed.

    What the package imports is left alone: it has errors of its own.
    """

    def find_spec(self, name: str, *_: object) -> None:
        if name.partition(".")[0] not in OPTIONAL:
            return
        frame = sys._getframe(1)
        while frame.f_back and "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        if frame.f_code.co_filename.startswith(THEIRS):
            reason = f"needs {name}: pip install --group test-all"
            pytest.skip(reason, allow_module_level=True)


sys.meta_path.append(_NotInstalled())  # type: ignore[arg-type]

if "DIN_TEST_BUILD" in os.environ:
    sys.meta_path.insert(0, _OtherBuild(os.environ["DIN_TEST_BUILD"]))  # type: ignore[arg-type]

settings.register_profile("dev", deadline=None, max_examples=50)
# The gate must not depend on luck; "dev" runs explore. Most of what draws examples is
# run for each of 8 to 41 types beside: 30 of each are 240 to 1,230.
settings.register_profile("ci", deadline=None, max_examples=30, derandomize=True)
settings.register_profile("few", deadline=None, max_examples=10, derandomize=True)
# of `make mutation`: an example that fails is enough, no smaller one is looked for
settings.register_profile(
    "mutation", settings.get_profile("few"), phases=[Phase.explicit, Phase.generate]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


def pytest_runtest_setup() -> None:
    """Let torch's exporter read its table of operators once, not once an export.

    0.4 s of the 2.1 that converting a module takes.
    """
    module = sys.modules.get("torch.onnx._internal.exporter._registration")
    registry = getattr(module, "ONNXRegistry", None)
    make = getattr(registry, "from_torchlib", None)
    if make is not None and not hasattr(make, "cache_info"):
        registry.from_torchlib = staticmethod(cache(make))  # type: ignore[union-attr]


def pytest_report_header() -> list[str]:
    """Say which of the instruction sets that matter the code finds here."""
    from din_infer import _kernels
    from tests import ops

    amx = ", amx" * ops.has_amx()
    return [
        f"encoding runs on: {', '.join(_kernels.isas())}",
        f"native operators run on: {', '.join(ops.machine_isas())}{amx}",
    ]


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Put long files first; leave tests of a card out where the runtime has no CUDA."""
    places = {f"test_{name}": place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))
    share = int(os.environ.get("DIN_OPS_SHARE", "1"))
    left = [
        item
        for item in items
        if item.path.stem == "test_ops" and crc32(item.name.encode()) % share
    ]
    if left:
        config.hook.pytest_deselected(items=left)
        chosen = set(map(id, left))
        items[:] = [item for item in items if id(item) not in chosen]
    import onnxruntime

    from din_infer.device import find_card, release_of
    from din_infer.errors import DeviceError

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        try:
            find_card(0, release_of(onnxruntime))
        except DeviceError:
            pass
        else:
            return
    needing = [item for item in items if item.get_closest_marker("gpu")]
    if needing:
        config.hook.pytest_deselected(items=needing)
        items[:] = [item for item in items if item not in needing]


_left: Counter[str] = Counter()  # deselected tests, by file


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    left = [item for item in items if not item.get_closest_marker("gpu")]
    _left.update(item.nodeid.partition("::")[0] for item in left)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:  # noqa: ANN401 - of xdist
    """Learn from a process of the run what it left out, which each of them does."""
    output = getattr(node, "workeroutput", {})  # a process that crashed has none
    _left.update(Counter(output.get("left", {})) - _left)


_skipped: dict[str, str] = {}


def _note_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        place = report.longrepr
        reason = place[2] if isinstance(place, tuple) else str(place)
        _skipped[report.nodeid] = reason.removeprefix("Skipped: ")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _note_skip(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    _note_skip(report)
    if report.skipped:  # half a module, for other files that import it
        sys.modules.pop(report.nodeid.removesuffix(".py").replace("/", "."), None)


def _skips_are_failures() -> bool:
    return bool(_skipped) and os.environ.get("DIN_REQUIRE_SHARED") == "1"


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if _skips_are_failures() and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left"] = dict(_left)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _skips_are_failures():
        terminalreporter.section("skipped, but DIN_REQUIRE_SHARED=1", red=True)
        for nodeid, reason in _skipped.items():
            terminalreporter.line(f"{nodeid}: {reason}")
    if _left and terminalreporter.config.option.markexpr:
        terminalreporter.section(f"{_left.total()} tests are left for `make test`")
        names = [f"{Path(file).stem} {_left[file]}" for file in sorted(_left)]
        terminalreporter.line(textwrap.fill(", ".join(names), 88))
