"""The proof that the file of a torch module computes what the module computes.

Letters: N candidates (the batch), T positions.
Above 400 lines: the batches of a proof, what torch gives for them, and the comparison.
"""

import copy
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from din_converter.modules import Graph
from din_converter.quiet import first_line, quiet
from din_converter.verify import Case, open_way, ways
from din_infer.device import import_runtime
from din_infer.errors import ConversionError, DinError, ModelError
from din_infer.model_format import TOLERANCE

__all__ = [
    "RUNS",
    "check_fast_path",
    "check_outputs",
    "example_batches",
    "golden_example",
    "plain_session",
    "reference_outputs",
    "remarks_on",
    "runtime_reason",
]

BATCH = "N"
FAST = (nn.MultiheadAttention, nn.TransformerEncoder, nn.TransformerEncoderLayer)
RUNS = "a module whose graph ONNX Runtime runs"
# what the runtime writes before its reason: a code, and a file that is gone
PLACED = re.compile(r"\[ONNXRuntimeError\] : \d+ : |Load model from \S+ failed: ?")
FAULT = "a fault of the fused graph ({}), which is ours: please report it"
LISTED = 6  # rows named in a remark
Truth = tuple[str, dict[str, NDArray[Any]], list[NDArray[Any]]]


def example_batches(graph: Graph) -> Iterator[tuple[str, dict[str, NDArray[Any]]]]:
    """Yield the example, then batches of other sizes and lengths drawn from it.

    Rows and positions are drawn independently for every input, so that candidates are
    paired with other histories. Dimensions that torch fixed keep their size.
    """
    example = graph.example
    yield "example", example
    dims = {
        i.name: [d.dim_param for d in i.type.tensor_type.shape.dim]
        for i in graph.plain.graph.input
    }
    sizes: dict[str, int] = {}
    for name, array in example.items():
        pairs = zip(dims[name], array.shape, strict=True)
        sizes |= {symbol: size for symbol, size in pairs if symbol}
    if BATCH in sizes:  # else the module fixes it
        sizes = {BATCH: sizes[BATCH]} | sizes
    if not sizes:
        return
    first = next(iter(sizes))
    others = [s for s in sizes if s != first]
    offsets = _offsets_of(graph)
    if first == BATCH and not offsets:
        yield "half", _repeated(example, dims, 0.5)
        yield "twice", _repeated(example, dims, 2)
    rng = np.random.default_rng(0)
    for n in (1, 2, 7, 64):  # ONNX Runtime's GRU and others end the process at 0
        for label, change in (
            ("", lambda size: size),
            (", shortest", lambda size: 1),  # noqa: ARG005
            (", longer", lambda size: 2 * size + 3),
        ):
            if label and not others:
                continue
            wanted = {first: n} | {s: change(sizes[s]) for s in others}
            drawn = {
                name: _drawn(array, dims[name], wanted, rng)
                for name, array in example.items()
            }
            for name, values in offsets.items():
                more = len(example[name]) - sizes.get(BATCH, 0)
                count = n + more if more in (0, 1) else len(drawn[name])
                is_closed = example[name][-1] == len(example[values])
                drawn[name] = _drawn_offsets(count, len(drawn[values]), is_closed, rng)
            yield f"{first}={n}{label}", drawn


class _Bags(TorchDispatchMode):
    """Notes what bags of embeddings are called with: values, and where bags begin."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[tuple[NDArray[Any], NDArray[Any]]] = []

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        del types
        if "embedding_bag" in str(func):
            self.seen.append((args[1].numpy(), args[2].numpy()))
        return func(*args, **(kwargs or {}))


def _offsets_of(graph: Graph) -> dict[str, str]:
    """Map the inputs that are offsets of bags to those that hold their values.

    torch follows wrong offsets out of its memory.
    """
    with _Bags() as bags:
        graph.call(graph.example, torch.float32)
    out = {}
    for values, offsets in bags.seen:
        same = [
            [name for name, x in graph.example.items() if np.array_equal(x, array)]
            for array in (values, offsets)
        ]
        for name in same[1]:
            others = [other for other in same[0] if other != name]
            if others:
                out[name] = others[0]
    return out


def _drawn_offsets(
    count: int, most: int, is_closed: bool, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw where so many bags begin; the last is the end, where they are closed."""
    made = np.sort(rng.integers(0, most + 1, count))
    made[:1] = 0
    if is_closed:
        made[1:][-1:] = most
    return made


def _repeated(
    example: Mapping[str, NDArray[Any]], dims: Mapping[str, list[str]], times: float
) -> dict[str, NDArray[Any]]:
    """Take half of every input's rows, or all of them twice.

    Inputs that hold several rows per candidate, one after the other, stay in step.
    """
    out = {}
    for name, array in example.items():
        if not (array.ndim and BATCH in dims[name][0]):
            out[name] = array
        elif times < 1:
            out[name] = np.ascontiguousarray(array[: len(array) // 2])
        else:
            out[name] = np.concatenate([array, array])
    return out


def _drawn(
    array: NDArray[Any],
    dims: list[str],
    wanted: Mapping[str, int],
    rng: np.random.Generator,
) -> NDArray[Any]:
    for axis, symbol in enumerate(dims):
        if symbol:
            index = rng.integers(0, array.shape[axis], wanted[symbol])
            array = np.take(array, index, axis=axis)
    return np.ascontiguousarray(array)


def golden_example(graph: Graph, wanted: Sequence[NDArray[Any]]) -> str:
    """Return the example and torch's outputs as JSON {inputs, outputs}."""
    inputs = {k: v.tolist() for k, v in graph.example.items()}
    outputs = [np.asarray(w, np.float64).tolist() for w in wanted]
    return json.dumps({"inputs": inputs, "outputs": outputs})


def reference_outputs(graph: Graph) -> list[Truth]:
    """Run the module on every batch that it takes: in float64 where it can.

    Returns
    -------
    list of (name, inputs, outputs)
        The example first.
    """
    exact = copy.copy(graph)
    dtype = torch.float64
    single = graph.call(graph.example, torch.float32)
    for label, output in zip(graph.outputs, single, strict=True):
        if np.issubdtype(output.dtype, np.complexfloating):
            rule = "a module whose outputs are real numbers"
            raise ConversionError(rule, output.dtype, f"module, {label}")
    try:
        with quiet():
            exact.module = copy.deepcopy(graph.module).double()
        double = exact.call(graph.example, dtype)
        near = all(
            np.allclose(a, b, rtol=1e-3, atol=1e-3, equal_nan=True)
            for a, b in zip(double, single, strict=True)
        )
    except Exception:  # code that insists on float32 fails in many ways
        near = False
    if not near:
        exact, dtype = graph, torch.float32
    out: list[Truth] = []
    for name, inputs in example_batches(graph):
        try:
            made = exact.call(inputs, dtype)
            if exact is not graph:
                made = [*map(_followed, made, graph.call(inputs, torch.float32))]
            out.append((name, inputs, made))
        except Exception:  # a batch that the module refuses is not compared
            if name == "example":
                raise
    return out


def _followed(double: NDArray[Any], single: NDArray[Any]) -> NDArray[Any]:
    """Return what float64 gives, but where the module's own float32 is elsewhere.

    That is where a fill swallows a score: s - 1e9 is another number in float32.
    """
    if double.dtype.kind != "f" or double.shape != single.shape:
        return double
    with np.errstate(invalid="ignore"):
        apart = np.abs(double - single)
        near = apart <= TOLERANCE / 2 * np.maximum(1.0, np.abs(double))
    same = (double == single) | (np.isnan(double) & np.isnan(single))
    return np.where(near | same, double, single)


def check_fast_path(graph: Graph) -> None:
    """Refuse a module that computes something else in torch's fast path of attention.

    It is taken in inference, not in training, and gives padded positions 0 and rows of
    padding alone NaN.

    Raises
    ------
    ConversionError
        If outputs differ, on the example or beside padding.
    """
    is_on = torch.backends.mha.get_fastpath_enabled()
    if not is_on or not any(isinstance(p, FAST) for p in graph.module.modules()):
        return
    for name, inputs in (*example_batches(graph), *_padded(graph.example)):
        try:
            with quiet():
                slow = graph.call(inputs, torch.float32)
                fast = graph.call(inputs, torch.float32, is_fast=True)
        except Exception:  # a batch that the module refuses
            continue
        for label, a, b in zip(graph.outputs, fast, slow, strict=True):
            if a.dtype.kind != "f" or np.allclose(a, b, 1e-4, 1e-4, equal_nan=True):
                continue
            at = tuple(np.argwhere(~np.isclose(a, b, 1e-4, 1e-4, equal_nan=True))[0])
            rule = "a module that torch's fast path of attention leaves as it is"
            got = f"{label} {a[at]:.6g} with it and {b[at]:.6g} without"
            fix = "Call torch.backends.mha.set_fastpath_enabled(False) before: the file"
            fix += " computes what training computes, and so does torch then."
            raise ConversionError(rule, got, f"module, batch {name}", fix)


def _padded(
    example: Mapping[str, NDArray[Any]],
) -> Iterator[tuple[str, dict[str, NDArray[Any]]]]:
    """Yield the example with lists cut by padding, the first row's of it alone."""
    for fill in (False, True):
        out = {}
        for name, array in example.items():
            out[name] = array.copy()
            if array.ndim > 1 and array.dtype.kind in "iub":
                padding = fill if array.dtype.kind == "b" else 0
                out[name][:, (array.shape[1] + 1) // 2 :] = padding
                out[name][:1] = padding
        yield "of padding", out


def remarks_on(graph: Graph, truth: Sequence[Truth]) -> tuple[str, ...]:
    """Say what a module gives or fixes that its owner may not expect.

    Sizes that cannot vary; values that are no numbers, with the example's rows.
    """
    notes = list(graph.notes)
    if graph.bags:
        plural = "s" if graph.bags > 1 else ""
        notes.append(f"{graph.bags} bag{plural} of embeddings became EmbeddingBag")
    tests = {"NaN": np.isnan, "infinite": np.isinf}
    for i, label in enumerate(graph.outputs):
        outputs = [made[i] for _, _, made in truth]
        if outputs[0].dtype.kind != "f":
            continue
        for what, test in tests.items():
            count = sum(bool(test(o).any()) for o in outputs)
            if not count:
                continue
            first = test(outputs[0]).reshape(
                len(outputs[0]) if outputs[0].ndim else 1, -1
            )
            rows = [str(row) for row in np.flatnonzero(first.any(1))]
            more = " .." if len(rows) > LISTED else ""
            where = (
                f" at rows {', '.join(rows[:LISTED])}{more} of the example and"
                if rows
                else ""
            )
            notes.append(
                f"{label} is {what}{where} in {count} of {len(outputs)} batches,"
                " in torch too"
            )
    return tuple(notes)


def faulty_blocks(
    graph: Graph, truth: Sequence[Truth], error: DinError, *, alone: bool
) -> dict[str, str]:
    """Find the fused blocks with which a graph fails or differs from torch.

    Returns
    -------
    dict
        By name, why the block is to be left as it is; all of them, where each `alone`
        is right, or that is not to be tried.
    """
    fused = [b.name for b in graph.blocks if b.fused]
    faults: dict[str, str] = {}
    if alone and len(fused) > 1:
        for name in fused:
            rest = {other: "" for other in fused if other != name}
            try:
                session = plain_session(graph.without(rest).fused)
                for label, inputs, wanted in truth:
                    made = session.run(None, inputs)
                    for output, a, b in zip(graph.outputs, made, wanted, strict=True):
                        _difference(label, output, a, b)
            except Exception as fault:  # the runtime's errors share no narrower base
                faults[name] = FAULT.format(first_line(fault))
    found = FAULT.format(f"{error.rule}: {error.got}")
    return faults or dict.fromkeys(fused, found) or {"": found}


def plain_session(proto: onnx.ModelProto) -> Any:  # noqa: ANN401
    """Open the graph as it was exported, for comparison."""
    onnxruntime = import_runtime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(
        proto.SerializeToString(), options, ["CPUExecutionProvider"]
    )


def check_outputs(
    names: Sequence[str],
    truth: Sequence[Truth],
    path: Path,
    *,
    inlined: bool = False,
) -> list[Case]:
    """Compare a file with torch on every batch, in every way it can run.

    Raises
    ------
    ConversionError
        If an output differs by more than 1e-5 · max(1, |output|).
    """
    cases = []
    for way in ways(path, inlined=inlined):
        session = open_way(path, way)
        for name, inputs, wanted in truth:
            try:
                got = session.run(inputs, names)
            except ModelError as error:
                reason, place = runtime_reason(error), f"batch {name}, {way}"
                raise ConversionError(RUNS, reason, place) from None
            worst = 0.0
            for label, a, b in zip(names, got, wanted, strict=True):
                worst = max(worst, _difference(f"{name}, {way}", label, a, b))
            rows = len(next(iter(inputs.values()))) if inputs else 0
            cases.append(Case(name, way, rows, worst, worst))
    return cases


def runtime_reason(error: ModelError) -> str:
    """Return what ONNX Runtime said, without its code and a temporary path."""
    return PLACED.sub("", error.got)


def _difference(
    place: str, label: str, got: NDArray[Any], wanted: NDArray[Any]
) -> float:
    """Return the largest difference; NaN is required where torch has NaN."""
    if got.shape != wanted.shape:
        rule = f"{label} of shape {list(wanted.shape)}"
        raise ConversionError(rule, list(got.shape), f"batch {place}")
    a, b = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(a - b))
        off = ~(same | (apart <= TOLERANCE * np.maximum(1.0, np.abs(b))))
    if off.any():
        at = tuple(int(i) for i in np.argwhere(off)[0])
        rule = f"an output {label} within {TOLERANCE:g} of torch's {b[at]:.9g}"
        raise ConversionError(rule, f"{a[at]:.9g}", f"batch {place}, {list(at)}")
    return float(apart.max(initial=0.0))
