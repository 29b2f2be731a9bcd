"""One ready ONNX Runtime session: runtime, device, threads, operators.

A runtime, device or option that cannot be used is refused here; a model, by `contract`.
Above 400 lines: the one class that opens it, on each device.
"""

import os
import re
import sys
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from din_infer.contract import Contract
from din_infer.cuda import LARGEST, LAUNCHING, Lane, Pending
from din_infer.device import (
    INSTALL_GPU,
    MOST_THREADS,
    available_cpus,
    capture_output,
    check_memory,
    check_placement,
    cuda_failure,
    find_card,
    import_runtime,
    parse_device,
    release_of,
    reprint,
    why_on_cpu,
)
from din_infer.errors import DeviceError, ModelError, is_whole
from din_infer.forking import Lock, leave_to_parent
from din_infer.graph_rules import WITH_BODIES
from din_infer.model_file import ModelFile, Source
from din_infer.model_format import DOMAIN, MODEL_ID_KEY, WEIGHT_SUFFIX
from din_infer.version import __version__

__all__ = ["Session", "available_cpus", "ops_library"]

PRECISIONS = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "tf32x3", "tf32", "bf16")}
TABLES = ("device", "host")
COMPUTING = ("LocalActivation", "EmbeddingBag", "Tower")  # operators that take time
REFUSED = ": INVALID_ARGUMENT : "  # what the runtime writes before an operator's error
TOO_WIDE = "din_infer.too_wide["  # of csrc/ops/cuda.h; "]" ends the sentence
# What the runtime prints before it goes on without CUDA.
NO_PROVIDER = re.compile("Failed to (?:load library|create CUDAExecutionProvider)")
RECORD_PLACES = "session.record_ep_graph_assignment_info"  # for the two that look
# A graph in which a tool has replaced the operators by what their functions hold.
INLINED = (
    "{}: expected the operators LocalActivation, EmbeddingBag or Tower, got a graph in"
    " which their functions are inlined, so that it runs many times slower. Convert the"
    " model again, without --inline, or say fused=False."
)
PLUGIN = "cuda-plugin-ep"  # another way of streams, which nothing here was tested with
ATTEMPTS = 3  # to read a model that is replaced while it is read
SIGNATURES = 16  # of each operator that a library registers; others run as functions
# Seconds that loops may take on a module's golden example: the example of a conversion
# has a few rows, of which every loop is done in milliseconds.
LONGEST_LOOP = 1.0
Runtime = Any  # the module onnxruntime, which has no types
RunOptions = Any
# Building a session with custom-op domains is not thread-safe in ONNX Runtime (#27089).
# The runtime's own locks are not free in a child forked while it builds one.
_BUILDING = Lock(forks_wait=True)


def _check_choice(
    value: str, choices: Sequence[str], name: str, where: str = "", fix: str = ""
) -> None:
    if value not in choices:
        raise DeviceError(" or ".join(choices) + where, repr(value), name, fix)


def _is_native(name: str) -> bool:
    """Tell whether a library registers an operator that computes by this name."""
    base, _, number = name.partition("_")
    return base in COMPUTING and int(number or "0") < SIGNATURES


def ops_library(device: str = "cpu") -> Path | None:
    """Find the native operators for "cpu" or "cuda"; None if there are none.

    Those for CUDA are in this package, where it was built with them, or in the wheel
    din-infer-cuda. Any ONNX Runtime from 1.20 on can register them, from any language:
    ``SessionOptions.register_custom_ops_library``.

    Raises
    ------
    DeviceError
        If din-infer-cuda is of another version than din-infer.
    """
    stem = "_ops_cuda" if device == "cuda" else "_ops"
    for suffix in (".so", ".dll"):
        path = Path(__file__).absolute().with_name(stem + suffix)
        if path.is_file():
            return path
    return _cuda_wheel() if device == "cuda" else None


def _cuda_wheel() -> Path | None:
    from importlib import metadata  # slow to import, and needed only here

    try:
        wheel = metadata.distribution("din-infer-cuda")
    except metadata.PackageNotFoundError:
        return None
    if wheel.version != __version__:
        rule = f"{__version__}, as din-infer"
        fix = f'Run: pip install "din-infer[gpu]=={__version__}"'
        raise DeviceError(rule, wheel.version, "din-infer-cuda", fix)
    return Path(str(wheel.locate_file("din_infer_cuda/_ops_cuda.so")))


class Session:
    """An ONNX Runtime session over one din-infer model file.

    The parameters are those of `Predictor`. `contract` is what the model says of itself
    and `file` its files; `device`, `threads`, `fused`, `precision` and `tables` tell
    what the session has, where that was left open.

    Raises
    ------
    ModelError
        If the file cannot be loaded or was not written by din-convert.
    DeviceError
        If there is no ONNX Runtime, or two, or the device cannot be used; if it lacks
        what `precision` or `tables` needs.
    """

    _session: Any = None  # the runtime's, which has no types

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
        if threads is not None and threads > MOST_THREADS:
            rule = f"at most {MOST_THREADS} threads"
            raise DeviceError(rule, repr(threads), "threads")
        possible = PRECISIONS["cpu" if kind == "cpu" else "cuda"]
        _check_choice(precision, possible, "precision")
        _check_choice(tables, TABLES, "tables")
        self.threads = threads or available_cpus()
        self.precision, self.tables = precision, tables
        self._wants_fused, self._mmap = fused, mmap
        with _BUILDING:  # so that no child inherits half an import
            runtime = import_runtime()
        for _ in range(ATTEMPTS):
            self.file = ModelFile.read(source, data_root=data_root)
            if verify:
                self.file.check_all()
            else:
                self.file.check_sample()
            self.contract = Contract.read(self.file)
            self.device, self.fused = "cpu", False
            self._lane: Lane | None = None
            if not self._open_cuda(runtime, kind, index):
                self._open_cpu(runtime)
            found = self._session.get_modelmeta().custom_metadata_map
            if found.get(MODEL_ID_KEY, "") == self.file.model_id:
                break  # the runtime has read the model that was looked at before
            self._close_lane()
        else:
            rule, got = "one model while it is loaded", "others in its place"
            raise ModelError(rule, got, self.file.place, "Load it again.")
        is_inlined = self.contract.spec and not self.file.operators
        if is_inlined and self._offers_fused:
            warnings.warn(INLINED.format(self.file.place), stacklevel=4)
        leave_to_parent(self)
        self.input_names = tuple(i.name for i in self.contract.inputs)
        self.output_names = self.contract.outputs
        self._pid = os.getpid()

    def __del__(self) -> None:
        """Free what is on the card, while no other thread launches."""
        lane = getattr(self, "_lane", None)
        if lane is None or sys.is_finalizing():
            return
        with LAUNCHING:  # held, too, while the runtime destroys its own session
            lane.close(streams=False)
            self._session = None

    def _open_cpu(self, runtime: Runtime) -> None:
        where, fix = " on the CPU", 'device="cuda" has it.'
        _check_choice(self.precision, PRECISIONS["cpu"], "precision", where, fix)
        _check_choice(self.tables, TABLES[:1], "tables", where, fix)
        ops = ops_library() if self._wants_fused else None
        if self.precision != "fp32" and ops is None:
            rule = "the native operators on a CPU with AMX"
            raise DeviceError(rule, f"fused={self._wants_fused} on cpu", "precision")
        options = self._options(runtime, ops)
        with _BUILDING:
            self._session = self._make(runtime, options, ["CPUExecutionProvider"])
        self._note_native(ops)

    def _open_cuda(self, runtime: Runtime, kind: str, index: int) -> bool:
        """Open on CUDA; False where `auto` is to take the CPU."""
        if kind == "cpu":
            return False
        if "CUDAExecutionProvider" not in runtime.get_available_providers():
            if kind == "auto":
                return False
            rule = "an ONNX Runtime built for CUDA"
            got = f"onnxruntime {runtime.__version__} without it"
            raise DeviceError(rule, got, "device", INSTALL_GPU)
        try:
            self._try_cuda(runtime, index)
        except DeviceError as error:
            self._close_lane()
            if kind == "cuda":
                raise
            warnings.warn(f"scoring on the CPU: {error}", stacklevel=5)
            return False
        self.device = f"cuda:{index}"
        return True

    def _try_cuda(self, runtime: Runtime, index: int) -> None:
        card = find_card(index, release_of(runtime))
        if self.tables == "device":
            check_memory(card, self.file.num_bytes)
        ops = ops_library("cuda") if self._wants_fused else None
        needs_ops = self.precision != "fp32" or self.tables == "host"
        if ops is None and needs_ops:
            unbuilt = "a package not built with them"
            raise self._without_ops(unbuilt if self._wants_fused else "fused=False")
        build = getattr(runtime, "get_build_info", str)()  # not of the oldest
        if self.tables == "host" and PLUGIN in build:
            rule, got = "a runtime with CUDA built in", "one that loads it as a plugin"
            raise DeviceError(rule, got, "tables")
        with _BUILDING, capture_output() as loading:
            getattr(runtime, "preload_dlls", lambda: None)()
        if ops is not None:
            self._lane = self._open_lane(ops, index)
        try:
            self._build_cuda(runtime, index, ops, loading.text)
        except ModelError as error:
            if TOO_WIDE not in error.got:
                raise
            said = error.got.partition(TOO_WIDE)[2].partition("]")[0]
            if needs_ops:
                raise self._without_ops(f"a model too wide for them ({said})") from None
            self._close_lane()
            warnings.warn(f"running the model's functions: {said}", stacklevel=6)
            self._build_cuda(runtime, index, None, loading.text)
        reprint(loading.text)

    def _build_cuda(
        self, runtime: Runtime, index: int, ops: Path | None, loading: str
    ) -> None:
        # TF32 is on by default and costs three digits
        settings = {"device_id": str(index), "use_tf32": "0"}
        graphs = {"enable_cuda_graph": "1"}
        attempts = [settings]
        if self._lane is not None and self.tables == "host":
            # the runtime then computes on the default stream, and refuses another;
            # replayed launches need fixed memory, which memory_options does not give
            settings |= self._lane.memory_options()
        elif self._lane is not None:
            settings["user_compute_stream"] = str(self._lane.stream)
            attempts = [settings | graphs, settings]
        for attempt in attempts:
            options = self._options(runtime, ops)
            if ops is None:
                options.add_session_config_entry(RECORD_PLACES, "1")
            providers = [("CUDAExecutionProvider", attempt), "CPUExecutionProvider"]
            try:
                # in this order: who destroys a session may be building one
                with _BUILDING, LAUNCHING, capture_output() as printed:
                    if self._lane is not None:
                        self._lane.enter(loads=self.tables == "host")
                    self._session = self._make(runtime, options, providers)
            except ModelError as error:
                if TOO_WIDE in error.got:
                    raise
                if attempt is not settings:
                    continue
                if NO_PROVIDER.search(printed.text):
                    raise why_on_cpu(printed.text, "the CPU") from None
                reason = f"{error.got} {printed.text}"
                raise cuda_failure(reason, index) or error from None
            provider = self._session.get_providers()[0]
            if provider != "CUDAExecutionProvider":
                raise why_on_cpu(printed.text or loading, provider)
            reprint(printed.text)
            check_placement(self._session, index)
            if self._lane is not None:
                self._lane.replays = attempt is not settings
            self._note_native(ops)
            return

    def _note_native(self, ops: Path | None) -> None:
        """Note whether the session has native operators in it.

        A function that took the place of one is not among the nodes that the runtime
        tells of; a runtime before 1.24 does not tell, and takes every operator that the
        library has.
        """
        self._offers_fused, self.fused = ops is not None, False
        if ops is None:
            return
        tell = getattr(self._session, "get_provider_graph_assignment_info", None)
        if tell is None:
            found = self.file.operators
        else:
            nodes = (node for part in tell() for node in part.get_nodes())
            found = {n.op_type for n in nodes if n.domain == DOMAIN}
        self.fused = any(map(_is_native, found))

    def _without_ops(self, got: str) -> DeviceError:
        name = "tables" if self.tables == "host" else "precision"
        return DeviceError("the native operators for CUDA", got, name)

    def _open_lane(self, ops: Path, index: int) -> Lane:
        contract = self.contract
        inputs = contract.inputs if contract.spec is not None else ()
        ragged = [i for i in inputs if i.lengths is not None]
        narrow = all(i.rows is None or i.rows <= LARGEST for i in inputs)
        self._packs = bool(inputs) and narrow and len(ragged) <= SIGNATURES
        pads = any(n.endswith(WEIGHT_SUFFIX) for n in contract.outputs)
        own_stream = self.tables != "host"
        try:
            return Lane(ops, index, inputs, pads=pads, own_stream=own_stream)
        except (OSError, AttributeError) as error:  # not loadable, or of another build
            rule, fix = "the native operators of this din-infer", "Reinstall din-infer."
            raise DeviceError(rule, error, str(ops), fix) from None

    def _close_lane(self) -> None:
        if self._lane is not None:
            with LAUNCHING:
                self._session = None  # before the stream that it computes on
                self._lane.close()
        self._lane = None

    def _options(self, runtime: Runtime, ops: Path | None) -> Any:  # noqa: ANN401
        options = runtime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        # its errors are raised; that CUDA cannot be used is printed alone
        options.log_severity_level = 4 if self.device == "cpu" else 3
        if ops is not None:
            options.add_session_config_entry(RECORD_PLACES, "1")
            options.add_session_config_entry("din_infer.precision", self.precision)
            try:
                with _BUILDING:
                    options.register_custom_ops_library(os.fspath(ops))
            except Exception as error:  # the runtime's errors share no narrower base
                # the operators' own sentence stands behind the runtime's prefix
                _, _, said = str(error).partition(REFUSED)
                raise DeviceError(said or str(error)) from None
        return options

    def _make(self, runtime: Runtime, options: Any, providers: list[Any]) -> Any:  # noqa: ANN401
        file = self.file
        try:
            with file.handed(options, release_of(runtime), mapped=self._mmap) as model:
                # without its second attempt, which it announces on standard output
                once = {"enable_fallback": 0} if len(providers) == 1 else {}
                made = runtime.InferenceSession
                return made(model, options, providers=providers, **once)
        except Exception as error:  # the runtime's errors share no narrower base
            rule = "a model file that ONNX Runtime can load"
            raise ModelError(rule, " ".join(str(error).split()), file.place) from None

    def submit(
        self,
        inputs: Mapping[str, NDArray[Any]],
        outputs: Sequence[str],
        options: RunOptions = None,
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
        try:
            if self._lane is None:
                made = self._session.run(list(outputs), inputs, options)
            elif self._packs and {"logit", "score"} >= {*outputs}:
                return self._lane.submit(self._session, inputs, outputs)
            else:
                made = self._lane.run_once(self._session, inputs, outputs)
        except DeviceError:
            raise
        except Exception as error:  # the runtime's errors share no narrower base
            reason = " ".join(str(error).split())
            _, on_card, index = self.device.partition(":")
            failure = cuda_failure(reason, int(index)) if on_card else None
            rule = "a graph that runs on the inputs of its spec"
            raise failure or ModelError(rule, reason, self.file.place) from None
        return Pending(lambda: made)

    def run(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        """Run the graph once; thread-safe, releases the GIL. Raises as `submit`."""
        return self.submit(inputs, outputs).result()

    def try_out(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        """Run a graph for the first time: a loop in it that does not end is ended.

        Raises
        ------
        ModelError
            As `submit`; and if a graph with loops takes longer than `LONGEST_LOOP`.
        """
        if self.file.operators.isdisjoint(WITH_BODIES) or self._lane is not None:
            return self.run(inputs, outputs)
        options = import_runtime().RunOptions()
        done = threading.Event()
        watch = threading.Thread(target=_end_loops, args=(options, done), daemon=True)
        watch.start()
        try:
            return self.submit(inputs, outputs, options).result()
        except ModelError as error:
            if not options.terminate:
                raise
            rule = f"loops that end within {LONGEST_LOOP:g} s on the golden example"
            raise error.at(rule=rule, got="another") from None
        finally:
            done.set()


def _end_loops(options: RunOptions, done: threading.Event) -> None:
    """End a run after `LONGEST_LOOP`, in time of the clock and of the processor."""
    begin, worked = time.monotonic(), time.process_time()
    while not done.wait(LONGEST_LOOP / 10):
        now = time.monotonic() - begin, time.process_time() - worked
        if min(now) > LONGEST_LOOP:
            options.terminate = True
            return
