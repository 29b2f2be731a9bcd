"""Which runtime and which device: what is missing is named, with what mends it.

A runtime built for CUDA makes a CPU session, and prints a line, where a library or a
card is missing. So the driver is asked first, what the runtime prints is read, and
where a session's nodes were placed is looked at.
"""

import ctypes
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from din_infer.errors import DeviceError, interrupt_of

__all__ = [
    "INSTALL_CPU",
    "INSTALL_GPU",
    "MOST_THREADS",
    "CapturedOutput",
    "Card",
    "available_cpus",
    "capture_output",
    "check_memory",
    "check_placement",
    "cuda_failure",
    "find_card",
    "import_runtime",
    "parse_device",
    "release_of",
    "reprint",
    "why_on_cpu",
]

OLDEST_RUNTIME = [1, 20]
FIRST_WITH_CUDA_13 = [1, 27]
INSTALL_CPU = 'Run: pip install "din-infer[cpu]"'
INSTALL_GPU = 'Run: pip install "din-infer[gpu]" (and no other onnxruntime)'
INSTALL_DRIVER = "Install NVIDIA's driver; in a container, start it with its GPUs."
DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
NO_DEVICE = 100
MARGIN_BYTES = 256 << 20  # for a run's own tensors and the runtime's libraries
# Of one run or job: a runtime asked for thousands does not come to an end, or ends the
# process.
MOST_THREADS = 1024
GIB = float(1 << 30)
# ONNX Runtime's wheels for Linux send usage data from 1.29 on, by default, and write to
# the home folder when they are imported. It reads this then, and takes 1 or nothing.
TELEMETRY = "ORT_DISABLE_TELEMETRY"
os.environ.setdefault(TELEMETRY, "1")


def available_cpus() -> int:
    """Count the CPUs this process may use: affinity and cgroup quota.

    At least 1, and at most `MOST_THREADS`.
    """
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:  # not Linux
        count = os.cpu_count() or 1
    for files in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):
        try:
            text = " ".join(Path("/sys/fs/cgroup", f).read_text() for f in files)
            quota, period = map(int, text.split()[:2])
        except (OSError, ValueError, IndexError):  # no such controller, or no limit
            continue
        if quota > 0 and period > 0:
            count = min(count, max(1, quota // period))
    return min(max(1, count), MOST_THREADS)


def parse_device(device: str) -> tuple[str, int]:
    """Split "auto", "cpu", "cuda" or "cuda:<number>" into its kind and number."""
    kind, colon, number = str(device).partition(":")
    right = kind in ("auto", "cpu", "cuda") and (not colon or kind == "cuda")
    if not right or (colon and not (number.isascii() and number.isdecimal())):
        raise DeviceError("auto, cpu, cuda or cuda:<number>", repr(device), "device")
    return kind, int(number or 0)


def release_of(runtime: Any) -> list[int]:  # noqa: ANN401
    """Return the runtime's release, [major, minor]."""
    return [int(part) for part in runtime.__version__.split(".")[:2]]


def import_runtime() -> Any:  # noqa: ANN401
    """Import the one ONNX Runtime; DeviceError for none, two, or one too old."""
    from importlib import metadata  # slow to import, and needed only here

    installed = []
    for name in ("onnxruntime", "onnxruntime-gpu"):
        with suppress(metadata.PackageNotFoundError):
            metadata.distribution(name)
            installed.append(name)
    if len(installed) == 2:
        names, got = " ".join(installed), " and ".join(installed)
        fix = f"Run: pip uninstall -y {names}, then install one extra"
        raise DeviceError("one ONNX Runtime", got, "environment", fix)
    try:
        import onnxruntime
    except ImportError as error:
        interrupt = interrupt_of(error)
        if interrupt is not None:
            raise interrupt from None
        where, fix = "environment", INSTALL_CPU
        raise DeviceError("an ONNX Runtime", error, where, fix) from None
    if release_of(onnxruntime) < OLDEST_RUNTIME:
        rule = f"ONNX Runtime {'.'.join(map(str, OLDEST_RUNTIME))} or newer"
        raise DeviceError(rule, onnxruntime.__version__, "environment", INSTALL_CPU)
    if os.environ.get(TELEMETRY) == "1":  # the runtime may have been there before
        onnxruntime.disable_telemetry_events()
    return onnxruntime


# ---- the card ----


@dataclass(frozen=True)
class Card:
    """One CUDA device, as its driver describes it."""

    index: int
    name: str
    total_bytes: int
    free_bytes: int


def load_driver() -> Any:  # noqa: ANN401
    """Load the driver's library; OSError where there is none."""
    return ctypes.CDLL(DRIVER)


def find_card(index: int, runtime_release: Sequence[int] = (1, 27)) -> Card:
    """Ask the driver for a card that this runtime can use.

    DeviceError for no driver, no such card, or a driver older than the runtime's CUDA.
    """
    place = f"cuda:{index}"
    try:
        driver = load_driver()
    except OSError:
        got = f"no {DRIVER}"
        raise DeviceError("NVIDIA's driver", got, place, INSTALL_DRIVER) from None
    ask = partial(_ask, driver, place)
    version, count = ctypes.c_int(), ctypes.c_int()
    ask("cuDriverGetVersion", ctypes.byref(version))
    needed = 13 if list(runtime_release) >= FIRST_WITH_CUDA_13 else 12
    known = version.value // 1000
    if known < needed:
        rule = f"a driver for CUDA {needed} or newer"
        fix = "Update NVIDIA's driver"
        fix += ", or install onnxruntime-gpu 1.26." if known == 12 else "."
        got = f"one for {known}.{version.value % 1000 // 10}"
        raise DeviceError(rule, got, place, fix)
    if ask("cuInit", 0, allowed=NO_DEVICE) == 0:
        ask("cuDeviceGetCount", ctypes.byref(count))
    if index >= count.value:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        got = {0: "no card", 1: "1 card"}.get(count.value, f"{count.value} cards")
        fix = "" if count.value else "Is the card visible here?"
        if visible is not None:
            fix = f"CUDA_VISIBLE_DEVICES is {visible!r}."
        raise DeviceError(f"a card number {index}", got, place, fix)
    device, context = ctypes.c_int(), ctypes.c_void_p()
    name = ctypes.create_string_buffer(256)
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    ask("cuDeviceGet", ctypes.byref(device), index)
    ask("cuDeviceGetName", name, 256, device)
    ask("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    try:
        ask("cuCtxPushCurrent_v2", context)
        try:
            ask("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        finally:
            driver.cuCtxPopCurrent_v2(ctypes.byref(context))
    finally:
        driver.cuDevicePrimaryCtxRelease_v2(device)
    return Card(index, name.value.decode(errors="replace"), total.value, free.value)


def _ask(driver: Any, place: str, name: str, *arguments: Any, allowed: int = 0) -> int:  # noqa: ANN401
    """Call a function of the driver; returns 0, or the code that is allowed too."""
    code = int(getattr(driver, name)(*arguments))
    if code not in (0, allowed):
        text = ctypes.c_char_p()
        driver.cuGetErrorString(code, ctypes.byref(text))
        said = (text.value or b"an unknown error").decode(errors="replace")
        rule = f"{name} of the driver to succeed"
        raise DeviceError(rule, f"error {code}, {said}", place)
    return code


def check_memory(card: Card, needed: int) -> None:
    """Raise DeviceError for a model, of `needed` bytes, that the card cannot hold."""
    if needed + MARGIN_BYTES <= card.free_bytes:
        return
    rule = f"{(needed + MARGIN_BYTES) / GIB:.2f} GiB free for the weights"
    got = f"{card.free_bytes / GIB:.2f} GiB of {card.total_bytes / GIB:.2f} GiB"
    fix = 'Convert with --embedding-dtype fp16, or give tables="host".'
    raise DeviceError(rule, got, f"cuda:{card.index} ({card.name})", fix)


# ---- what the runtime says ----


@dataclass
class CapturedOutput:
    """What was printed while it was captured; complete when that has ended."""

    text: str = ""


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # none, or closed
            stream.flush()


def _scratch() -> IO[bytes]:
    in_memory = getattr(os, "memfd_create", None)  # Linux, whose disk may be read-only
    return os.fdopen(in_memory("din"), "w+b") if in_memory else tempfile.TemporaryFile()


@contextmanager
def capture_output() -> Iterator[CapturedOutput]:
    """Capture what is printed to file descriptors 1 and 2, by C code and Python.

    The caller holds a lock, since descriptors belong to the process, and gives what no
    error is made of to `reprint`.
    """
    printed = CapturedOutput()
    _flush()
    with _scratch() as file:
        kept: list[tuple[int, int]] = []
        try:
            for descriptor in (1, 2):
                with suppress(OSError):  # of a service without it
                    kept.append((descriptor, os.dup(descriptor)))
                    os.dup2(file.fileno(), descriptor)
            yield printed
        finally:
            _flush()  # the runtime's Python prints too, into a buffer
            for descriptor, copy in kept:
                os.dup2(copy, descriptor)
                os.close(copy)
            file.seek(0)
            text = file.read().decode(errors="replace")
            printed.text = re.sub(r"\x1b\[[0-9;]*m", "", text)


def reprint(text: str) -> None:
    """Write what was captured, and made no error of, to descriptor 2."""
    if text:
        with suppress(OSError):  # of a closed descriptor
            os.write(2, (text.removesuffix("\n") + "\n").encode())


def why_on_cpu(printed: str, provider: str) -> DeviceError:
    """Make the error of a session that was to be on CUDA and is not."""
    rule, fix = "a session on CUDA", INSTALL_GPU
    unopened = r"([\w.+-]+\.(?:so[\w.]*|dll)): cannot open shared object"
    missing = re.search(unopened, printed)
    missing = missing or re.search(r'error 126.*"([^"]+\.dll)"', printed)
    if missing:
        rule = f"the library {missing[1]}, which the runtime's CUDA needs"
        if missing[1] == DRIVER:
            fix = INSTALL_DRIVER
        return DeviceError(rule, "none", "device", fix)
    found = re.search(r"CUDA (?:failure|error) \d+: [^;\n]*", printed)
    found = found or re.search(r"(?<= with error: )[^\n]+", printed)
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    got = f"one on {provider}"
    if found or lines:
        # without the time and the place in the runtime's source
        said = found[0] if found else re.sub(r"^.*?\[\w:onnx[^]]*\] ", "", lines[-1])
        got += f": {said[:300].strip()}"
    return DeviceError(rule, got, "device", fix)


def cuda_failure(reason: str, index: int) -> DeviceError | None:
    """Make a DeviceError of what the runtime raised, if it is about the card."""
    place = f"cuda:{index}"
    full = "out of memory|failed to allocate memory|bad allocation"
    if re.search(full, reason, re.I):
        fix = "Free the card, score fewer rows at a time, convert with"
        fix += ' --embedding-dtype fp16, or give tables="host".'
        return DeviceError("memory on the card", "none left", place, fix)
    libraries = "CUDA|CUDNN|CUBLAS|cudart|cuDNN|cuBLAS"
    found = re.search(rf"(?:{libraries})\w* (?:failure|error)[^;\n]*", reason)
    if found:
        return DeviceError("a card that works", found[0][:300].strip(), place)
    return None


def check_placement(session: Any, index: int) -> None:  # noqa: ANN401
    """Refuse a session with products or operators of this package on the CPU.

    Shapes are computed there in any session, which costs nothing. Runtimes before 1.24
    do not tell.
    """
    tell = getattr(session, "get_provider_graph_assignment_info", None)
    if tell is None:
        return
    heavy = [
        f"{node.op_type} {node.name}".strip()
        for part in tell()
        if part.ep_name == "CPUExecutionProvider"
        for node in part.get_nodes()
        if node.domain == "din_infer" or node.op_type in ("MatMul", "Gemm")
    ]
    if heavy:
        got = f"{len(heavy)} on the CPU: {', '.join(heavy[:3])}"
        raise DeviceError("every product and attention on CUDA", got, f"cuda:{index}")
