"""Our own contestants: the native ops, as they are or forced, or none."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.graphs import Inputs
from benchmarks.timing import Contestant, UnavailableError, within
from din_converter import convert
from din_infer import Predictor
from din_infer.errors import DeviceError
from din_infer.session import Session, ops_library

__all__ = ["BF16_TOLERANCE", "TOLERANCE", "module", "predictor", "session"]

TOLERANCE = 1e-6
BF16_TOLERANCE = 5e-3


def session(
    label: str,
    path: Path,
    names: Sequence[str],
    output: str,
    threads: int,
    *,
    fused: bool = True,
    isa: str = "",
    precision: str = "fp32",
) -> Contestant:
    """Run one output of a model file by a `Session`, on the inputs of those names.

    `isa` forces an instruction set: "baseline", "avx2" or "avx512".
    """
    if fused:
        _require_library()
    try:
        with _forced(isa):
            ready = Session(
                path, device="cpu", threads=threads, fused=fused, precision=precision
            )
    except DeviceError as error:  # the CPU lacks `isa`, or AMX for `precision`
        raise UnavailableError(str(error)) from None

    def prepare(inputs: Inputs) -> Inputs:
        return {name: inputs[name] for name in names}

    def run(inputs: Inputs) -> NDArray[np.float32]:
        return ready.run(inputs, (output,))[0]

    check = within(TOLERANCE if precision == "fp32" else BF16_TOLERANCE)
    return Contestant(label, prepare, run, check, ours=True, skips_padding=fused)


def predictor(label: str, path: Path, threads: int) -> Contestant:
    """Score encoded ids by a `Predictor`, which checks them first."""
    _require_library()
    ready = Predictor(path, device="cpu", threads=threads)
    return Contestant(
        label,
        dict,
        ready.score_encoded,
        within(TOLERANCE),
        ours=True,
        skips_padding=True,
    )


def module(
    label: str,
    torch_module: nn.Module,
    example: tuple[Tensor, ...],
    prepare: Callable[[Inputs], tuple[NDArray[Any], ...]],
    path: Path,
    threads: int,
) -> Contestant:
    """Convert any torch module, its attention found and fused; run its first output."""
    _require_library()
    report = convert(torch_module, path, example_inputs=example)
    if not report.blocks or not all(b.fused for b in report.blocks):
        message = f"the module's attention is not fused: {report.blocks}"
        raise RuntimeError(message)
    ready = Session(path, device="cpu", threads=threads)

    def run(arrays: tuple[NDArray[Any], ...]) -> NDArray[np.float32]:
        feed = dict(zip(ready.input_names, arrays, strict=True))
        return ready.run(feed, ready.output_names[:1])[0]

    check = within(TOLERANCE)
    return Contestant(label, prepare, run, check, ours=True, skips_padding=True)


def _require_library() -> None:
    if ops_library() is None:
        message = "this build has no native ops"
        raise UnavailableError(message)


@contextmanager
def _forced(isa: str) -> Iterator[None]:
    """Set DIN_INFER_ISA, which the native ops read when a session takes them in."""
    before = os.environ.get("DIN_INFER_ISA")
    if isa:
        os.environ["DIN_INFER_ISA"] = isa
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("DIN_INFER_ISA", None)
        else:
            os.environ["DIN_INFER_ISA"] = before
