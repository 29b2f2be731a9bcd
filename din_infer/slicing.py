"""Runs of a bounded number of candidates: how a batch is cut, and put together again.

Letters: B requests, N candidates, T positions.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from din_infer.cuda import Pending
from din_infer.errors import check_count
from din_infer.model_format import WEIGHT_SUFFIX
from din_infer.session import Session
from din_infer.spec import FeatureSpec

__all__ = ["run_in_slices", "slices_by_length", "slices_in_order"]

# Candidates per run: enough to fill the cores, few enough that the graph's widest
# tensor stays near the caches: [N, tower] with the native operators, else [N, D, H].
# A card takes more candidates to fill.
FUSED_BATCH_SIZE = {"cpu": 1024, "cuda": 32768}
DEFAULT_BATCH_SIZE = {"cpu": 256, "cuda": 4096}
# Of a run of the functions, which compute every cell of [N, T]: more are cut, to single
# candidates if need be. A cell takes some KiB: 4 D floats, and each layer's.
MOST_CELLS = 1 << 18
RUNS_AHEAD = 2  # of the one whose scores are awaited
Inputs = Mapping[str, NDArray[Any]]
Chosen = slice | NDArray[np.int64]
Slices = Iterator[tuple[Chosen, dict[str, NDArray[Any]]]]


def run_in_slices(
    session: Session,
    spec: FeatureSpec,
    inputs: Inputs,
    names: Sequence[str],
    batch_size: int | None = None,
) -> list[NDArray[np.float32]]:
    """Run the graph on the inputs of its spec, `batch_size` candidates at a time.

    Returns
    -------
    list of float32 [N] or [N, T]
        The outputs that `names` lists; owned by the caller.

    Raises
    ------
    InputError
        If `batch_size` is not a whole number of at least 1. By default it is what suits
        the device and the operators.
    """
    if batch_size is None:
        sizes = FUSED_BATCH_SIZE if session.fused else DEFAULT_BATCH_SIZE
        batch_size = sizes[session.device.partition(":")[0]]
    check_count(batch_size, "batch_size")
    count = len(inputs["request_of_candidate"])
    inputs = _without_last_empty(spec, inputs)
    if count <= batch_size and (
        session.fused or max(a.size for a in inputs.values()) <= MOST_CELLS
    ):
        return session.run(inputs, names)
    widths = {  # of the weights of a sequence: T
        s.name + WEIGHT_SUFFIX: inputs[s.own_fields[0].name].shape[1:]
        for s in spec.behavior
    }
    made = [np.zeros((count, *widths.get(n, ())), np.float32) for n in names]
    slices = slices_in_order if session.fused else slices_by_length
    begun: deque[tuple[Chosen, Pending]] = deque()

    def finish() -> None:
        chosen, run = begun.popleft()
        for whole, some in zip(made, run.result(), strict=True):
            # a slice may be narrower than its batch: behind it is padding
            whole[(chosen, *(slice(n) for n in some.shape[1:]))] = some

    try:
        for chosen, part in slices(spec, inputs, batch_size):
            begun.append((chosen, session.submit(part, names)))
            if len(begun) > RUNS_AHEAD:
                finish()
        while begun:
            finish()
    except BaseException:
        while begun:  # each gives its memory back; the first error is what is raised
            with suppress(Exception):
                finish()
        raise
    return made


def _without_last_empty(spec: FeatureSpec, inputs: Inputs) -> Inputs:
    """Leave out requests behind the last one that has a candidate.

    The graph refuses them: calls that a server joined on their first axis look so.
    """
    of_requests = (len(inputs[i.name]) for i in spec.inputs if i.shape[0] == "B")
    num_requests = next(of_requests, 1)
    owners = inputs["request_of_candidate"]
    if num_requests <= 1 or len(owners) == 0:
        return inputs
    used = int(owners.max()) + 1
    if used == num_requests:
        return inputs
    return _take(spec, inputs, slice(used), slice(None), owners)


def slices_in_order(spec: FeatureSpec, inputs: Inputs, batch_size: int) -> Slices:
    """Cut candidates where they stand, requests kept together; nothing is copied.

    The native operators never touch padding, so a slice may be as wide as its batch.
    What is per request is a view on the requests that a slice spans.
    """
    request = inputs["request_of_candidate"]
    rises = (request[1:] >= request[:-1]).all()
    order = None if rises else np.argsort(request, kind="stable")
    for start in range(0, len(request), batch_size):
        here = slice(start, start + batch_size)
        chosen = here if order is None else order[here]
        mine = request[chosen]
        spanned = slice(int(mine[0]), int(mine[-1]) + 1)
        yield chosen, _take(spec, inputs, spanned, chosen, mine - mine[0])


def slices_by_length(spec: FeatureSpec, inputs: Inputs, batch_size: int) -> Slices:
    """Cut candidates by the length of their histories, requests kept together.

    The functions inside a model compute padding too: a run is as wide as its longest
    history, so runs of like lengths waste least.
    """
    request = inputs["request_of_candidate"]
    masked = [s for s in spec.behavior if s.padding == "masked"]
    order = np.arange(len(request))
    lengths = np.zeros(len(request), np.int64)
    if masked:
        lengths = np.asarray(sum(inputs[s.lengths] for s in masked))[request]
        order = np.lexsort((request, lengths))
    stop = 0
    while stop < len(order):
        start, stop = stop, min(stop + batch_size, len(order))
        while (
            stop > start + 1 and (stop - start) * lengths[order[stop - 1]] > MOST_CELLS
        ):
            stop = (start + stop + 1) // 2
        chosen = order[start:stop]
        used, owners = np.unique(request[chosen], return_inverse=True)
        part = _take(spec, inputs, used, chosen, owners.astype(np.int64))
        for i in spec.inputs:
            if i.lengths is not None and i.fixed_length is None:
                longest = int(part[i.lengths].max(initial=0))
                part[i.name] = part[i.name][:, :longest]
        yield chosen, part


def _take(
    spec: FeatureSpec,
    inputs: Inputs,
    requests: Chosen,
    candidates: Chosen,
    owners: NDArray[np.int64],
) -> dict[str, NDArray[Any]]:
    """Take some requests, and candidates that belong to `owners` of them."""
    part = {
        i.name: inputs[i.name][requests if i.shape[0] == "B" else candidates]
        for i in spec.inputs
    }
    part["request_of_candidate"] = owners
    return part
