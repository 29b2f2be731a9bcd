"""The way of a batch to the card and back: ids are all that is copied, once a run.

Integers travel as int32 and histories without their padding, as one block of pinned
memory; the card widens them to the int64 that the graph takes. Where a run can be
replayed (one request, native operators), its launches are captured in a CUDA graph for
each size. The C side is csrc/ops/device.cu.

Letters: B requests, N candidates, T positions, V behaviors in all.
"""

import ctypes
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from din_infer.device import cuda_failure
from din_infer.errors import DeviceError
from din_infer.forking import Lock
from din_infer.spec import Input

__all__ = ["LARGEST", "LAUNCHING", "Lane", "Pending"]

ALIGNMENT = 64  # words: what the runtime's own kernels read at a time, and more
LARGEST = 2**31 - 1  # what an int32 holds
# Replayed: at most this many candidates of one request, in this many sizes.
MOST_CANDIDATES, FEWEST_CANDIDATES, FEWEST_BEHAVIORS = 4096, 16, 64
MOST_GRAPHS, MOST_REFUSALS = 64, 3
HOST_TABLE_BYTES = 1 << 24  # a table of the host's: 16 MiB and more

# Held while launches go out, whoever's card they are for: the runtime captures them in
# a mode in which no other thread may ask the driver for anything.
LAUNCHING = Lock()

Arrays = Mapping[str, NDArray[Any]]
Address = ctypes.c_void_p
OrtSession = Any  # an InferenceSession; the runtime has no types


def _load(path: Path) -> Any:  # noqa: ANN401
    library = ctypes.CDLL(str(path))
    count, text = ctypes.c_int64, ctypes.c_char_p
    for name, result, arguments in (
        ("din_lane_open", text, [ctypes.c_int, ctypes.c_int, ctypes.POINTER(Address)]),
        ("din_lane_stream", Address, [Address]),
        ("din_lane_close", None, [Address]),
        ("din_lane_enter", None, [Address, ctypes.c_size_t]),
        ("din_slot_open", text, [Address, ctypes.POINTER(Address)]),
        ("din_slot_close", None, [Address]),
        ("din_slot_reserve", text, [Address, count, count]),
        ("din_slot_places", None, [Address, Address * 5]),
        ("din_slot_send", text, [Address, count, count]),
        ("din_slot_fetch", text, [Address, count]),
        ("din_slot_wait", text, [Address]),
        ("din_pack_ids", None, [Address, count, count, Address, Address]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


@dataclass
class _Plan:
    """Where each input and output lies, in 32-bit words from the start."""

    inputs: list[tuple[str, int, tuple[int, ...], bool]]  # name, at, shape, is integer
    integers: int
    words: int
    outputs: list[tuple[str, int]]  # name, at
    floats: int
    rows: int  # N that are run
    count: int  # N that were asked for

    @property
    def key(self) -> tuple[object, ...]:
        """Two plans of one key run at the same shapes and places."""
        return (*((n, s) for n, _, s, _ in self.inputs), *(n for n, *_ in self.outputs))


@dataclass
class _Slot:
    """The memory of one run; see device.cu."""

    handle: Address
    places: list[int] = field(default_factory=list)
    binding: Any = None
    graph_id: int = -1
    lock: threading.Lock = field(default_factory=threading.Lock)


class Pending:
    """A run that was begun; `result` waits for it, once."""

    def __init__(self, finish: Callable[[], list[NDArray[np.float32]]]) -> None:
        self._finish = finish

    def result(self) -> list[NDArray[np.float32]]:
        """Return the outputs, [N] float32 each, owned by the caller."""
        return self._finish()


class Lane:
    """Streams, memory and bindings of one model on one card.

    `library` has the operators for CUDA, `index` is the card's number, `inputs` are the
    spec's. `pads` sends histories with their padding, which models that explain need.
    Without `own_stream` it computes on the default stream, as a session with
    `memory_options` does. Inputs and outputs are bound to memory of `device_type`.

    May be shared by threads: runs are filled and fetched side by side, and computed one
    after the other.
    """

    def __init__(
        self,
        library: Path,
        index: int,
        inputs: Sequence[Input],
        *,
        pads: bool = False,
        device_type: str = "cuda",
        own_stream: bool = True,
    ) -> None:
        self._library = _load(library)
        self._index, self._device_type = index, device_type
        self._lane = Address()
        opened = ctypes.byref(self._lane)
        self._check(self._library.din_lane_open(index, int(own_stream), opened))
        self._own_stream = own_stream
        # the runtime keeps a CUDA graph for the thread that captured it
        self._replayer = ThreadPoolExecutor(1, "din-replays")
        self._refusals = 0
        self._slots: list[_Slot] = []
        self._replayed: dict[tuple[object, ...], _Slot] = {}
        self._graphs = 0  # numbers given
        self._per_candidate = {i.name for i in inputs if i.shape[0] == "N"}
        self._lengths_of = {  # of what is sent without padding
            i.name: i.lengths
            for i in inputs
            if i.lengths is not None and i.fixed_length is None and not pads
        }
        self._offsets = set(self._lengths_of.values())  # sent in place of lengths
        self.replays = False

    def _check(self, failed: bytes | None) -> None:
        """Refuse what a function of the library has failed by."""
        if failed is not None:
            text, place = failed.decode(), f"cuda:{self._index}"
            error = DeviceError("a card that works", text, place)
            raise cuda_failure(text, self._index) or error

    @property
    def stream(self) -> int:
        """Address of the stream, which the session must compute on."""
        return int(self._library.din_lane_stream(self._lane) or 0)

    def memory_options(self) -> dict[str, str]:
        """Make the provider's options for memory of this lane's: tables on the host."""
        names = ("gpu_external_alloc", "gpu_external_free", "gpu_external_empty_cache")
        functions = ("din_memory_take", "din_memory_give", "din_memory_tidy")
        addresses = [ctypes.cast(self._library[f], Address).value for f in functions]
        return dict(zip(names, map(str, addresses), strict=True))

    def enter(self, *, loads: bool = False) -> None:
        """Say whose memory this thread asks for; with `loads`, tables of the host's."""
        most = ctypes.c_size_t(-1).value
        self._library.din_lane_enter(self._lane, HOST_TABLE_BYTES if loads else most)

    def submit(
        self, session: OrtSession, inputs: Arrays, names: Sequence[str]
    ) -> Pending:
        """Begin a run of checked inputs; `names` are outputs of shape [N].

        `session` is on this card and this stream, with the native operators.

        Raises
        ------
        DeviceError
            If the card has no memory for it, or fails. The runtime's own errors pass.
        """
        replays = self.replays and self._is_small(inputs)
        plan = self._plan(inputs, names, replays)
        if plan.count == 0:
            return Pending(lambda: [np.zeros(0, np.float32) for _ in names])
        if replays:
            made = self._replay(session, inputs, plan)
            if made is not None:
                return Pending(lambda: made)
            plan = self._plan(inputs, names, False)
        slot = self._take_slot()
        try:
            self._fill(slot, inputs, plan)
            self._launch(session, slot, plan)
        except BaseException:
            self._leave(slot)
            raise

        def finish() -> list[NDArray[np.float32]]:
            try:
                return self._collect(slot, plan)
            finally:
                self._leave(slot)

        return Pending(finish)

    def run_once(
        self, session: OrtSession, inputs: Arrays, names: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        """Run on the caller's arrays as they are, padded; nothing is replayed."""
        import onnxruntime

        options = onnxruntime.RunOptions()
        options.add_run_config_entry("gpu_graph_id", "-1")
        with LAUNCHING:
            self.enter()
            made: list[NDArray[np.float32]] = session.run(list(names), inputs, options)
        return made

    def _is_small(self, inputs: Arrays) -> bool:
        users = [a for n, a in inputs.items() if n not in self._per_candidate]
        count = len(inputs["request_of_candidate"])
        return count <= MOST_CANDIDATES and all(len(a) == 1 for a in users)

    def _plan(self, inputs: Arrays, names: Sequence[str], replays: bool) -> _Plan:
        count = len(inputs["request_of_candidate"])
        rows = _bucket(count, FEWEST_CANDIDATES) if replays else count
        placed, at = [], 0
        for is_integer in (True, False):
            for name, array in inputs.items():
                if (array.dtype == np.int64) is not is_integer:
                    continue
                shape = array.shape
                first = rows if name in self._per_candidate else shape[0]
                if name in self._lengths_of:
                    total = int(inputs[self._lengths_of[name]].sum())
                    if total > LARGEST:  # offsets go as int32
                        rule = f"at most {LARGEST:,} ids of one input in a run"
                        got, place = f"{total:,} of `{name}`", f"cuda:{self._index}"
                        fix = "Score fewer rows at a time."
                        raise DeviceError(rule, got, place, fix)
                    total = _bucket(total, FEWEST_BEHAVIORS) if replays else total
                    shape = (1, total)
                elif name in self._offsets:
                    shape = (first + 1,)
                else:
                    shape = (first, *shape[1:])
                placed.append((name, at, shape, is_integer))
                at += _aligned(int(np.prod(shape))) + ALIGNMENT
            if is_integer:
                integers = at
        stride = _aligned(rows)
        outputs = [(name, i * stride) for i, name in enumerate(names)]
        return _Plan(placed, integers, at, outputs, stride * len(names), rows, count)

    def _take_slot(self, *, used: bool = True) -> _Slot:
        with LAUNCHING:
            if used and self._slots:
                return self._slots.pop()
        slot = _Slot(Address())
        self._check(self._library.din_slot_open(self._lane, ctypes.byref(slot.handle)))
        return slot

    def _leave(self, slot: _Slot) -> None:
        with LAUNCHING:
            self._slots.append(slot)

    def _fill(self, slot: _Slot, inputs: Arrays, plan: _Plan) -> None:
        """Write the batch into pinned memory, narrow and without padding."""
        words = _bucket(plan.words, 1)  # so that memory grows seldom
        floats = _bucket(plan.floats, 1)
        with LAUNCHING:  # while launches are captured, nothing may be allocated
            self._check(self._library.din_slot_reserve(slot.handle, words, floats))
        places = (Address * 5)()
        self._library.din_slot_places(slot.handle, places)
        slot.places = [int(p or 0) for p in places]
        filled = _view(slot.places[0], plan.words, np.int32)
        for name, at, shape, is_integer in plan.inputs:
            array = np.ascontiguousarray(inputs[name])
            if name in self._lengths_of:
                lengths = np.ascontiguousarray(inputs[self._lengths_of[name]])
                where, ids = slot.places[0] + 4 * at, array.ctypes.data
                pack = self._library.din_pack_ids
                pack(ids, *array.shape, lengths.ctypes.data, where)
                continue
            size = int(np.prod(shape))
            here = filled[at : at + size]
            if name in self._offsets:
                here[0] = 0
                np.cumsum(array, out=here[1 : len(array) + 1])
                here[len(array) + 1 :] = here[len(array)]
                continue
            here = here if is_integer else here.view(np.float32)
            here[: array.size] = array.reshape(-1)
            here[array.size :] = 0

    def _bind(self, session: OrtSession, slot: _Slot, plan: _Plan) -> OrtSession:
        _, narrow, wide, made, _ = slot.places
        binding = session.io_binding()
        device = (self._device_type, self._index)
        for name, at, shape, is_integer in plan.inputs:
            where = wide + 8 * at if is_integer else narrow + 4 * at
            dtype = np.int64 if is_integer else np.float32
            binding.bind_input(name, *device, dtype, shape, where)
        for name, at in plan.outputs:
            binding.bind_output(name, *device, np.float32, (plan.rows,), made + 4 * at)
        return binding

    def _launch(self, session: OrtSession, slot: _Slot, plan: _Plan) -> None:
        import onnxruntime

        options = onnxruntime.RunOptions()
        if self._own_stream:  # the slot's event is waited for instead
            options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        options.add_run_config_entry("gpu_graph_id", str(slot.graph_id))
        with LAUNCHING:
            self.enter()
            if slot.graph_id < 0 or slot.binding is None:
                slot.binding = self._bind(session, slot, plan)
            library, handle = self._library, slot.handle
            self._check(library.din_slot_send(handle, plan.words, plan.integers))
            session.run_with_iobinding(slot.binding, options)
            self._check(library.din_slot_fetch(handle, plan.floats))

    def _collect(self, slot: _Slot, plan: _Plan) -> list[NDArray[np.float32]]:
        self._check(self._library.din_slot_wait(slot.handle))
        results = _view(slot.places[4], plan.floats, np.float32)
        return [results[at : at + plan.count].copy() for _, at in plan.outputs]

    def _replay(
        self, session: OrtSession, inputs: Arrays, plan: _Plan
    ) -> list[NDArray[np.float32]] | None:
        """Run at fixed places; None where that is not to be had."""
        with LAUNCHING:
            slot = self._replayed.get(plan.key)
            if slot is None:
                if len(self._replayed) >= MOST_GRAPHS:
                    return None
                slot = self._take_slot(used=False)
                self._graphs += 1
                slot.graph_id = self._graphs
                self._replayed[plan.key] = slot
        with slot.lock:
            if self._replayed.get(plan.key) is not slot:  # given up while this waited
                return None
            self._fill(slot, inputs, plan)
            try:
                self._replayer.submit(self._launch, session, slot, plan).result()
            except Exception:  # what cannot be captured still runs
                self._give_up(plan, slot)
                return None
            return self._collect(slot, plan)

    def _give_up(self, plan: _Plan, slot: _Slot) -> None:
        """Capture this size anew another time; after some refusals, nothing more."""
        with LAUNCHING:
            self._refusals += 1
            self.replays = self._refusals < MOST_REFUSALS
            self._replayed.pop(plan.key, None)
            slot.graph_id, slot.binding = -1, None
            self._slots.append(slot)

    def close(self, *, streams: bool = True) -> None:
        """Free what is on the card; nothing may be under way.

        Without `streams`, those stay: for a session that is still to be destroyed.
        """
        self._replayer.shutdown(wait=False)
        for slot in (*self._slots, *self._replayed.values()):
            self._library.din_slot_close(slot.handle)
        self._slots, self._replayed = [], {}
        if streams and self._lane.value is not None:
            self._library.din_lane_close(self._lane)
            self._lane = Address()


def _bucket(count: int, fewest: int) -> int:
    """Round up to a power of two."""
    return max(fewest, 1 << (max(count, 1) - 1).bit_length())


def _aligned(words: int) -> int:
    return (words + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


def _view(address: int, count: int, dtype: type) -> NDArray[Any]:
    memory = (ctypes.c_int32 * count).from_address(address)
    words: NDArray[Any] = np.ctypeslib.as_array(memory)
    return words.view(dtype)
