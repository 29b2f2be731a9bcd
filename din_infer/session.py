"""One ready ONNX Runtime session: runtime, device, threads, model metadata.

What is stale or of another kind is refused here: the runtime, the device, options.
"""

import os
import re
import warnings
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from din_infer.cuda import LARGEST, LAUNCHING, Lane, Pending
from din_infer.device import (
    INSTALL_CPU,
    INSTALL_GPU,
    Noise,
    available_cpus,
    captured,
    check_memory,
    check_placement,
    cuda_failure,
    find_card,
    import_runtime,
    parse_device,
    release_of,
    say_again,
    why_on_cpu,
)
from din_infer.errors import DeviceError, ModelError, is_whole
from din_infer.forking import Lock, leave_to_parent
from din_infer.model_file import ModelFile, Source
from din_infer.spec import Input

__all__ = ["INSTALL_CPU", "Session", "available_cpus", "ops_library"]

PRECISIONS = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "tf32x3", "tf32", "bf16")}
TABLES = ("device", "host")
# What an operator says of a model that its kernels cannot hold: the functions can.
TOO_WIDE = re.compile(
    r"expected (?:layers that fit into a multiprocessor|at most \d+ (?:fields of a"
    r" sequence|hidden layers)|behaviors of at most|tables of at most)[^`]*"
)
# What the runtime prints before it goes on without CUDA.
NO_PROVIDER = re.compile("Failed to (?:load library|create CUDAExecutionProvider)")
PLUGIN = "cuda-plugin-ep"  # another way of streams, which nothing here was tested with
ATTEMPTS = 3  # to read a model that is replaced while it is read
SIGNATURES = 16  # of each operator that a library registers; others run as functions
# Building a session with custom-op domains is not thread-safe in ONNX Runtime (#27089).
# The runtime's own locks are not free in a child forked while it builds one.
_BUILDING = Lock(forks_wait=True)


def get_build_info(runtime: Any) -> str:  # noqa: ANN401
    """Return how the runtime was built, "" where it does not tell."""
    tell = getattr(runtime, "get_build_info", None)
    return str(tell()) if tell is not None else ""


def ops_library(device: str = "cpu") -> Path | None:
    """Find the native operators for "cpu" or "cuda" in this package; None if not built.

    Any ONNX Runtime from 1.20 on can register them, from any language:
    ``SessionOptions.register_custom_ops_library``.
    """
    stem = "_ops_cuda" if device == "cuda" else "_ops"
    for suffix in (".so", ".dll"):
        path = Path(__file__).absolute().with_name(stem + suffix)
        if path.is_file():
            return path
    return None


class Session:
    """An ONNX Runtime session over one din-infer model file.

    Parameters
    ----------
    source : path, bytes or binary file
        The ``.onnx``; its data file, if any, lies beside it.
    device : {"auto", "cpu", "cuda", "cuda:<number>"}
        "cuda" raises when the finished session is not on CUDA; "auto" takes CUDA where
        it works and says once when it had to fall back.
    threads : int, optional
        Intra-op threads; all CPUs this process may use by default.
    fused : bool
        Run LocalActivation and EmbeddingBag (and Tower, on the CPU) on the native
        operators of this package; False runs the functions inside the model. `fused`
        tells what is so: a package built without them has none, and a model too wide
        for the card's kernels runs on its functions, with a warning.
    precision : {"fp32", "tf32x3", "tf32", "bf16"}
        What the layers of LocalActivation multiply in: fp32 or bf16 (AMX) on the CPU,
        any on CUDA.
    tables : {"device", "host"}
        Where tables of 16 MiB and more lie, on CUDA: "host" is pinned memory that the
        card reads rows from.
    verify : bool
        Check every byte of the model's files against their digests, not a sample.
    mmap : bool
        Map the data file; False reads it into this process's own memory.
    data_root : path, optional
        A folder that the data file may be in, other than the model's own.

    Raises
    ------
    ModelError
        If the file cannot be loaded or was not written by din-convert.
    DeviceError
        If there is no ONNX Runtime, or two, or the device cannot be used; if it lacks
        what `precision` or `tables` needs.
    """

    def __init__(
        self,
        source: Source,
        *,
        device: str = "auto",
        threads: int | None = None,
        fused: bool = True,
        precision: str = "fp32",
        tables: str = "device",
        verify: bool = False,
        mmap: bool = True,
        data_root: str | os.PathLike[str] | None = None,
    ) -> None:
        kind, index = parse_device(device)
        if threads is not None and not (is_whole(threads) and threads >= 1):
            raise DeviceError("at least 1 thread", repr(threads), "threads")
        possible = PRECISIONS["cpu" if kind == "cpu" else "cuda"]
        for value, choices, name in (
            (precision, possible, "precision"),
            (tables, TABLES, "tables"),
        ):
            if value not in choices:
                raise DeviceError(" or ".join(choices), repr(value), name)
        self.threads = threads or available_cpus()
        self.precision, self.tables = precision, tables
        self._wants_fused = fused
        with _BUILDING:  # so that no child inherits half an import
            runtime = import_runtime()
        self._mmap = mmap
        for _ in range(ATTEMPTS):
            self.file = ModelFile.read(source, data_root=data_root)
            if verify:
                self.file.check_all()
            else:
                self.file.check_sample()
            self.device, self.fused = "cpu", False
            self._lane: Lane | None = None
            self._per_run = False
            if not self._open_cuda(runtime, kind, index):
                self._open_cpu(runtime)
            if self._is_of(self.file):
                break
            self._close_lane()
        else:
            rule, got = "one model while it is loaded", "others in its place"
            raise ModelError(rule, got, self.file.place, "Load it again.")
        leave_to_parent(self)
        self.metadata = self.file.metadata
        self.input_names = tuple(i.name for i in self._session.get_inputs())
        self.output_names = tuple(o.name for o in self._session.get_outputs())
        self._pid = os.getpid()

    def _is_of(self, file: ModelFile) -> bool:
        """Tell whether the runtime has read the model that was looked at before."""
        found = self._session.get_modelmeta().custom_metadata_map
        return bool(found.get("din_infer.model_id", "") == file.model_id)

    def _open_cpu(self, runtime: Any) -> None:  # noqa: ANN401
        for value, choices, name in (
            (self.precision, PRECISIONS["cpu"], "precision"),
            (self.tables, ("device",), "tables"),
        ):
            if value not in choices:
                rule = f"{' or '.join(choices)} on the CPU"
                raise DeviceError(rule, repr(value), name, 'device="cuda" has it.')
        ops = ops_library() if self._wants_fused else None
        if self.precision != "fp32" and ops is None:
            rule = "the native operators on a CPU with AMX"
            raise DeviceError(rule, f"fused={self._wants_fused} on cpu", "precision")
        options = self._options(runtime, ops)
        self._session = self._build(runtime, options, ["CPUExecutionProvider"])
        self.fused = ops is not None

    def _open_cuda(self, runtime: Any, kind: str, index: int) -> bool:  # noqa: ANN401
        """Open on CUDA; False where `auto` is to take the CPU."""
        if kind == "cpu":
            return False
        has_cuda = "CUDAExecutionProvider" in runtime.get_available_providers()
        if not has_cuda:
            rule = "an ONNX Runtime built for CUDA"
            got = f"onnxruntime {runtime.__version__} without it"
            if kind == "cuda":
                raise DeviceError(rule, got, "device", INSTALL_GPU)
            return False
        try:
            self._try_cuda(runtime, index)
        except DeviceError as error:
            self._close_lane()
            if kind == "cuda":
                raise
            warnings.warn(f"scoring on the CPU: {error}", stacklevel=4)
            return False
        self.device = f"cuda:{index}"
        if self._lane is not None:
            weakref.finalize(self, self._lane.close, streams=False).atexit = False
        return True

    def _try_cuda(self, runtime: Any, index: int) -> None:  # noqa: ANN401
        card = find_card(index, release_of(runtime))
        if self.tables == "device":
            check_memory(card, self.file.num_bytes)
        ops = ops_library("cuda") if self._wants_fused else None
        needs_ops = self.precision != "fp32" or self.tables == "host"
        if ops is None and needs_ops:
            got = (
                "a package not built with them" if self._wants_fused else "fused=False"
            )
            raise self._without_ops(got)
        if self.tables == "host" and PLUGIN in get_build_info(runtime):
            rule, got = "a runtime with CUDA built in", "one that loads it as a plugin"
            raise DeviceError(rule, got, "tables")
        with _BUILDING, captured() as noise:
            preload = getattr(runtime, "preload_dlls", None)
            if preload is not None:
                preload()
        loading = noise.text
        if ops is not None:
            self._lane = self._open_lane(ops, index)
        try:
            self._build_cuda(runtime, index, ops, loading)
        except ModelError as error:
            wide = TOO_WIDE.search(str(error))
            if not wide:
                raise
            said = wide[0].removesuffix(" - at ")
            if needs_ops:
                got = f"a model too wide for them ({said})"
                raise self._without_ops(got) from None
            self._close_lane()
            warnings.warn(f"running the model's functions: {said}", stacklevel=5)
            self._build_cuda(runtime, index, None, loading)
        say_again(Noise(loading))

    def _build_cuda(
        self,
        runtime: Any,  # noqa: ANN401
        index: int,
        ops: Path | None,
        loading: str,
    ) -> None:
        # TF32 is on by default and costs three digits
        settings = {"device_id": str(index), "use_tf32": "0"}
        if self._lane is not None and self.tables == "host":
            # the runtime then computes on the default stream, and refuses another
            settings |= self._lane.memory_options()
        elif self._lane is not None:
            settings["user_compute_stream"] = str(self._lane.stream)
        graphs = {"enable_cuda_graph": "1"}
        # replayed launches need fixed memory, which memory_options does not give
        attempts = [settings | graphs] if self._lane and self.tables == "device" else []
        for attempt in (*attempts, settings):
            options = self._options(runtime, ops)
            options.add_session_config_entry(
                "session.record_ep_graph_assignment_info", "1"
            )
            providers = [("CUDAExecutionProvider", attempt), "CPUExecutionProvider"]
            noise = Noise()
            try:
                with LAUNCHING, _BUILDING, captured() as noise:
                    if self._lane is not None:
                        self._lane.enter(loads=self.tables == "host")
                    self._session = self._make(runtime, options, providers)
                if self._provider() != "CUDAExecutionProvider":
                    noise.text = noise.text or loading
                    raise why_on_cpu(noise, self._provider())
            except ModelError as error:
                noise.used = True
                if attempt is not settings:
                    continue
                if NO_PROVIDER.search(noise.text):
                    raise why_on_cpu(noise, "the CPU") from None
                raise cuda_failure(f"{error} {noise.text}", index) or error from None
            finally:
                say_again(noise)
            check_placement(self._session, index)
            if self._lane is not None:
                self._lane.replays = attempt is not settings
            self.fused = ops is not None
            return

    def _without_ops(self, got: str) -> DeviceError:
        name = "tables" if self.tables == "host" else "precision"
        return DeviceError("the native operators for CUDA", got, name)

    def _open_lane(self, ops: Path, index: int) -> Lane:
        try:
            return Lane(ops, index, own_stream=self.tables != "host")
        except (OSError, AttributeError) as error:  # not loadable, or of another build
            rule, fix = "the native operators of this din-infer", "Reinstall din-infer."
            raise DeviceError(rule, error, str(ops), fix) from None

    def _close_lane(self) -> None:
        if self._lane is not None:
            self._lane.close()
        self._lane = None

    def _options(self, runtime: Any, ops: Path | None) -> Any:  # noqa: ANN401
        options = runtime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if ops is not None:
            options.add_session_config_entry("din_infer.precision", self.precision)
            try:
                with _BUILDING:
                    options.register_custom_ops_library(os.fspath(ops))
            except Exception as error:  # the runtime's errors share no narrower base
                # the operators' own sentence stands behind the runtime's prefix
                text = re.sub(r"^.*?(?=expected )", "", str(error))
                raise DeviceError(text) from None
        return options

    def _build(self, runtime: Any, options: Any, providers: list[Any]) -> Any:  # noqa: ANN401
        with _BUILDING:
            return self._make(runtime, options, providers)

    def _make(self, runtime: Any, options: Any, providers: list[Any]) -> Any:  # noqa: ANN401
        file = self.file
        try:
            with file.handed(options, release_of(runtime), mapped=self._mmap) as model:
                return runtime.InferenceSession(model, options, providers=providers)
        except Exception as error:  # the runtime's errors share no narrower base
            reason = " ".join(str(error).split())
            rule = "a model file that ONNX Runtime can load"
            raise ModelError(rule, reason, file.place) from None

    def _provider(self) -> str:
        return str(self._session.get_providers()[0])

    def expect(self, inputs: Sequence[Input]) -> None:
        """Learn the spec's inputs, so that a card is sent what it needs of them."""
        if self._lane is None:
            return
        ragged = [i for i in inputs if i.lengths is not None]
        narrow = all(i.rows is None or i.rows <= LARGEST for i in inputs)
        self._per_run = narrow and len(ragged) <= SIGNATURES
        explains = any(n.endswith(".activation_weight") for n in self.output_names)
        self._lane.expect(inputs, packs=not explains)

    def submit(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]
    ) -> Pending:
        """Begin to run the graph; on the CPU it is finished at once.

        Raises
        ------
        DeviceError
            In a process forked after the session was made: its threads are not here. If
            the card fails, or has no memory left.
        ModelError
            If the runtime cannot run the graph on these inputs.
        """
        if os.getpid() != self._pid:
            rule = "the process that made the session"
            fix = "Make a Predictor in each process, or start workers with spawn."
            raise DeviceError(rule, "a forked child", "Predictor", fix)
        if (
            self._lane is not None
            and self._per_run
            and {"logit", "score"} >= {*outputs}
        ):
            return self._lane.submit(self._session, inputs, outputs)
        made = self._run(inputs, outputs)
        return Pending(lambda: made)

    def run(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        """Run the graph once; thread-safe, releases the GIL. Raises as `submit`."""
        return self.submit(inputs, outputs).result()

    def _run(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        try:
            if self._lane is None:
                made = self._session.run(list(outputs), inputs)
            else:
                made = self._lane.run_once(self._session, inputs, outputs)
            result: list[NDArray[np.float32]] = made
        except Exception as error:  # the runtime's errors share no narrower base
            reason = " ".join(str(error).split())
            if self.device != "cpu":
                failure = cuda_failure(reason, int(self.device.partition(":")[2]))
                if failure is not None:
                    raise failure from None
            rule = "a graph that runs on the inputs of its spec"
            raise ModelError(rule, reason, self.file.place) from None
        return result
