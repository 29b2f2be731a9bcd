"""One ready ONNX Runtime session: runtime, device, threads, model metadata.

What is stale or of another kind is refused here: the runtime, the file, its format.
"""

import os
import re
import threading
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from din_infer.errors import DeviceError, ModelError, explain, is_whole

__all__ = ["Session", "available_cpus", "ops_library"]

FORMAT = "1"
OLDEST_RUNTIME = [1, 20]
PRECISIONS = ("fp32", "bf16")
INSTALL_CPU = 'Run: pip install "din-infer[cpu]"'
INSTALL_GPU = 'Run: pip install "din-infer[gpu]" (and no other onnxruntime)'
# Building a session with custom-op domains is not thread-safe in ONNX Runtime (#27089).
_BUILDING = threading.Lock()


def available_cpus() -> int:
    """Count the CPUs this process may use: affinity and cgroup quota, at least 1."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        count = os.cpu_count() or 1
    for quota_file, period_file in (
        ("/sys/fs/cgroup/cpu.max", ""),
        ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
    ):
        try:
            words = Path(quota_file).read_text().split()
            words += Path(period_file).read_text().split() if period_file else []
            quota, period = int(words[0]), int(words[1])
        except (OSError, ValueError, IndexError):  # no such controller, or no limit
            continue
        if quota > 0 and period > 0:
            count = min(count, max(1, quota // period))
    return max(1, count)


def ops_library() -> Path | None:
    """Find the library of native operators inside this package; None if not built.

    Any ONNX Runtime from 1.20 on can register it, from any language:
    ``SessionOptions.register_custom_ops_library``.
    """
    for name in ("_ops.so", "_ops.dll"):
        path = Path(__file__).absolute().with_name(name)
        if path.is_file():
            return path
    return None


def _import_runtime() -> Any:  # noqa: ANN401
    from importlib import metadata  # slow to import, and needed only here

    installed = []
    for name in ("onnxruntime", "onnxruntime-gpu"):
        try:
            metadata.distribution(name)
            installed.append(name)
        except metadata.PackageNotFoundError:
            continue
    if len(installed) == 2:
        fix = (
            "Run: pip uninstall -y onnxruntime onnxruntime-gpu, then install one extra"
        )
        message = explain(
            "one ONNX Runtime", " and ".join(installed), "environment", fix
        )
        raise DeviceError(message)
    try:
        import onnxruntime
    except ImportError as error:
        message = explain("an ONNX Runtime", str(error), "environment", INSTALL_CPU)
        raise DeviceError(message) from None
    release = onnxruntime.__version__
    if [int(part) for part in release.split(".")[:2]] < OLDEST_RUNTIME:
        oldest = ".".join(map(str, OLDEST_RUNTIME))
        rule = f"ONNX Runtime {oldest} or newer"
        raise DeviceError(explain(rule, release, "environment", INSTALL_CPU))
    return onnxruntime


def _parse_device(device: str) -> tuple[str, int]:
    kind, colon, number = str(device).partition(":")
    right = kind in ("auto", "cpu", "cuda") and (not colon or kind == "cuda")
    if not right or (colon and not number.isdecimal()):
        rule = "auto, cpu, cuda or cuda:<number>"
        raise DeviceError(explain(rule, repr(device), "device"))
    return kind, int(number or 0)


class Session:
    """An ONNX Runtime session over one din-infer model file.

    Parameters
    ----------
    path : path
        The ``.onnx``; its data file, if any, lies beside it.
    device : {"auto", "cpu", "cuda", "cuda:<number>"}
        "cuda" raises when the finished session is not on CUDA; "auto" takes CUDA where
        it works and says once when it had to fall back.
    threads : int, optional
        Intra-op threads; all CPUs this process may use by default.
    fused : bool
        Run LocalActivation, EmbeddingBag and Tower on the native operators of this
        package; False runs the functions inside the model. `fused` tells what is so: a
        package built without them, or a session on CUDA, has none.
    precision : {"fp32", "bf16"}
        "bf16" multiplies the layers of LocalActivation in bfloat16 on AMX.

    Raises
    ------
    ModelError
        If the file cannot be loaded or was not written by din-convert.
    DeviceError
        If there is no ONNX Runtime, or two, or the device cannot be used; if
        `precision` is "bf16" and the session is not on a CPU with AMX.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        device: str = "auto",
        threads: int | None = None,
        fused: bool = True,
        precision: str = "fp32",
    ) -> None:
        self.path = Path(path).absolute()
        kind, index = _parse_device(device)
        if threads is not None and not (is_whole(threads) and threads >= 1):
            raise DeviceError(explain("at least 1 thread", repr(threads), "threads"))
        if precision not in PRECISIONS:
            rule = " or ".join(PRECISIONS)
            raise DeviceError(explain(rule, repr(precision), "precision"))
        self.threads = threads or available_cpus()
        self.precision = precision
        runtime = _import_runtime()
        if not self.path.is_file():
            got = "a folder" if self.path.is_dir() else "no such file"
            raise ModelError(explain("a model file", got, str(path)))
        has_cuda = "CUDAExecutionProvider" in runtime.get_available_providers()
        if kind == "cuda" and not has_cuda:
            rule = "an ONNX Runtime built for CUDA"
            got = f"onnxruntime {runtime.__version__} without it"
            raise DeviceError(explain(rule, got, "device", INSTALL_GPU))
        self.device = f"cuda:{index}" if kind != "cpu" and has_cuda else "cpu"
        ops = ops_library() if fused else None
        self._session = self._build(runtime, index, ops)
        if self.device != "cpu" and self._provider() != "CUDAExecutionProvider":
            self._refuse_cpu(kind)
            self.device = "cpu"
            self._session = self._build(runtime, index, ops)
        self.fused = ops is not None and self.device == "cpu"
        if precision != "fp32" and not self.fused:
            rule = "the native operators on a CPU with AMX"
            got = f"fused={fused} on {self.device}"
            raise DeviceError(explain(rule, got, "precision"))
        self.metadata = self._read_metadata()
        self.input_names = tuple(i.name for i in self._session.get_inputs())
        self.output_names = tuple(o.name for o in self._session.get_outputs())
        self._pid = os.getpid()

    def _build(self, runtime: Any, index: int, ops: Path | None) -> Any:  # noqa: ANN401
        options = runtime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        providers: list[Any] = ["CPUExecutionProvider"]
        if self.device != "cpu":
            # TF32 is on by default and costs three digits
            settings = {"device_id": str(index), "use_tf32": "0"}
            providers.insert(0, ("CUDAExecutionProvider", settings))
        if ops is not None and self.device == "cpu":
            self._register(options, ops)
        try:
            with _BUILDING:
                return runtime.InferenceSession(
                    os.fspath(self.path), options, providers=providers
                )
        except Exception as error:  # the runtime's errors share no narrower base
            reason = " ".join(str(error).split())
            rule = "a model file that ONNX Runtime can load"
            raise ModelError(explain(rule, reason, str(self.path))) from None

    def _register(self, options: Any, ops: Path) -> None:  # noqa: ANN401
        options.add_session_config_entry("din_infer.precision", self.precision)
        try:
            with _BUILDING:
                options.register_custom_ops_library(os.fspath(ops))
        except Exception as error:  # the runtime's errors share no narrower base
            # the operators' own sentence stands behind the runtime's prefix
            raise DeviceError(re.sub(r"^.*?(?=expected )", "", str(error))) from None

    def _provider(self) -> str:
        return str(self._session.get_providers()[0])

    def _refuse_cpu(self, kind: str) -> None:
        got = f"a session on {self._provider()}"
        message = explain("a session on CUDA", got, "device", INSTALL_GPU)
        if kind == "cuda":
            raise DeviceError(message)
        warnings.warn(f"scoring on the CPU: {message}", stacklevel=4)

    def _read_metadata(self) -> dict[str, str]:
        found = dict(self._session.get_modelmeta().custom_metadata_map)
        number = found.get("din_infer.format")
        if number is None:
            rule = "a model that din-convert wrote"
            got = "an ONNX file without din_infer metadata"
            raise ModelError(explain(rule, got, str(self.path)))
        if number != FORMAT:
            fix = "Use the din-infer version that wrote it, or a newer one."
            place = f"{self.path}: din_infer.format"
            raise ModelError(explain(f"format {FORMAT}", number, place, fix))
        return found

    def run(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        """Run the graph once; thread-safe, releases the GIL.

        Raises
        ------
        DeviceError
            In a process forked after the session was made: its threads are not here.
        ModelError
            If the runtime cannot run the graph on these inputs.
        """
        if os.getpid() != self._pid:
            rule = "the process that made the session"
            fix = "Make a Predictor in each process, or start workers with spawn."
            message = explain(rule, "a forked child", "Predictor", fix)
            raise DeviceError(message)
        try:
            result: list[NDArray[np.float32]] = self._session.run(list(outputs), inputs)
        except Exception as error:  # the runtime's errors share no narrower base
            rule = "a graph that runs on the inputs of its spec"
            reason = " ".join(str(error).split())
            raise ModelError(explain(rule, reason, str(self.path))) from None
        return result
