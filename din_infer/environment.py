"""What a report of a fault has to say of its machine; ``python -m din_infer``."""

import os
import platform
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from din_infer import _kernels
from din_infer.device import available_cpus, find_card, import_runtime, release_of
from din_infer.session import ops_library

__all__ = ["environment"]

PACKAGES = (
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "pyarrow",
    "torch",
    "onnx",
    "onnxscript",
    "pandas",
    "polars",
    "ray",
    "pyspark",
    "mlflow-skinny",
    "mlflow",
    "deltalake",
)
VARIABLES = ("DIN_INFER_ISA", "CUDA_VISIBLE_DEVICES")


def environment() -> str:
    """Describe versions, processor, runtime and operators, a line each.

    Returns
    -------
    str
        What is not installed has no line. What does not work says why in its line, and
        nothing is raised for it. The machine's name is not in it.
    """
    lines = {name: _version(name) for name in ("din-infer", *PACKAGES)}
    lines |= {
        "python": f"{platform.python_version()}, {platform.python_implementation()}",
        "platform": platform.platform(),
        "processor": _processor(),
        "cpus": f"{available_cpus()} of {os.cpu_count()}",
        "encoding": ", ".join(_kernels.isas()),
        "providers": _said(_providers),
        "operators": _said(lambda: _operators("cpu")),
        "CUDA operators": _said(lambda: _operators("cuda")),
        "card": _said(_card),
    }
    lines |= {name: os.environ.get(name, "") for name in VARIABLES}
    width = max(map(len, lines))
    return "\n".join(f"{k:{width}}  {v}" for k, v in lines.items() if v)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _said(ask: Callable[[], str]) -> str:
    """Ask; a failure, of whatever kind, is the answer."""
    try:
        return ask()
    except Exception as error:  # a broken runtime or driver can raise nearly anything
        return str(error) or type(error).__name__


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return platform.processor()
    names = (s.partition(":")[2] for s in text.splitlines() if "model name" in s)
    return next(names, "").strip() or platform.machine()


def _providers() -> str:
    return ", ".join(import_runtime().get_available_providers())


def _operators(device: str) -> str:
    library = ops_library(device)
    if library is None:
        return "not built"
    import_runtime().SessionOptions().register_custom_ops_library(str(library))
    return "loaded"


def _card() -> str:
    card = find_card(0, release_of(import_runtime()))
    return f"{card.name}, {card.total_bytes / (1 << 30):.1f} GiB"
