"""Any torch module -> ONNX: its attention fused, proven against the module.

::

    module + example inputs --torch.export--> program --torch.onnx--> graph
    graph --fusing--> graph with LocalActivation --prove--> file

Letters: N candidates (the batch), T positions. One file above 400 lines: the way of a
module, from how it is called to how its file is compared with it.
"""

import contextlib
import copy
import inspect
import json
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx_ir.passes.common import CommonSubexpressionEliminationPass
from onnxscript import optimizer
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from din_converter.fusing.rewrite import fuse_graph
from din_converter.fusing.view import View
from din_converter.verify import Case, open_way, ways
from din_infer.device import import_runtime
from din_infer.errors import ConversionError
from din_infer.model_format import IR_VERSION, OPSET, TOLERANCE

__all__ = [
    "Graph",
    "check_outputs",
    "example_batches",
    "export_module",
    "golden_example",
    "input_ranges",
    "plain_session",
    "reference_outputs",
    "to_weights",
]

Truth = tuple[str, dict[str, NDArray[Any]], list[NDArray[Any]]]
SHAPELESS = ("Reshape", "Squeeze", "Unsqueeze", "Identity", "Flatten", "Cast")


@dataclass
class Graph:
    """An exported module: its graph before and after fusing, and how to call both.

    `inputs` are the example inputs, in the graph's order. `outputs` names the graph's
    outputs.
    """

    plain: onnx.ModelProto
    fused: onnx.ModelProto
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    names: list[str]
    blocks: list[Any]

    @property
    def outputs(self) -> list[str]:
        """Names of the graph's outputs."""
        return [o.name for o in self.plain.graph.output]

    def call(self, inputs: Mapping[str, NDArray[Any]], dtype: torch.dtype) -> Any:  # noqa: ANN401
        """Run the module on arrays, floats as `dtype`; returns a list of arrays."""
        leaves, spec = pytree.tree_flatten((self.args, self.kwargs))
        at = 0
        for i, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor):
                tensor = torch.from_numpy(np.ascontiguousarray(inputs[self.names[at]]))
                at += 1
                leaves[i] = tensor.to(dtype) if tensor.is_floating_point() else tensor
        args, kwargs = pytree.tree_unflatten(leaves, spec)
        with torch.inference_mode():
            made = self.module(*args, **kwargs)
        return [t.numpy() for t in pytree.tree_leaves(made) if isinstance(t, Tensor)]


# ---------------------------------------------------------------------------- exporting


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks about itself off the screen."""
    names = ("torch.onnx", "torch.export", "torch.fx", "torch._export", "onnxscript")
    loggers = [logging.getLogger(n) for n in names]
    levels = [x.level for x in loggers]
    for x in loggers:
        x.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for x, level in zip(loggers, levels, strict=True):
            x.setLevel(level)


def _call_arguments(
    module: nn.Module,
    example_inputs: Any,  # noqa: ANN401
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Say how the module is called: a dict that names its arguments is keywords."""
    if isinstance(example_inputs, Mapping):
        parameters = inspect.signature(module.forward).parameters.values()
        named = {p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL,)}
        anything = any(p.kind is p.VAR_KEYWORD for p in parameters)
        given = {str(k) for k in example_inputs}
        if given <= named or (anything and not named - given):
            return (), dict(example_inputs)
        return (dict(example_inputs),), {}
    if isinstance(example_inputs, Tensor):
        return (example_inputs,), {}
    if isinstance(example_inputs, Sequence) and not isinstance(example_inputs, str):
        return tuple(example_inputs), {}
    rule = "a tensor, a tuple of arguments or a dict of them"
    raise ConversionError(rule, type(example_inputs).__name__, "example_inputs")


def _prepare(value: Any) -> Any:  # noqa: ANN401
    """Bring example tensors to the CPU; a batch of one becomes two equal rows."""
    if not isinstance(value, Tensor):
        return value
    value = value.detach().cpu()
    if value.ndim and value.shape[0] == 1:
        value = torch.cat([value, value])
    return value


def export_module(
    module: nn.Module | ExportedProgram,
    example_inputs: Any = None,  # noqa: ANN401
) -> Graph:
    """Export a module for batches and histories of any length, and fuse it.

    Parameters
    ----------
    module : Module or ExportedProgram
        A module is copied, brought to the CPU and put in evaluation mode; a program is
        taken with the dimensions it was exported with.
    example_inputs : tensor, tuple or dict
        What `module` is called with: positional arguments, or keyword arguments; a dict
        whose keys are not the names of arguments is one argument. Two rows or more tell
        most. A program may bring its own.

    Returns
    -------
    Graph

    Raises
    ------
    ConversionError
        If torch cannot export it; the message has torch's reason.
    """
    if isinstance(module, ExportedProgram):
        program = module
        if example_inputs is None:
            if program.example_inputs is None:
                rule = "example inputs, in the program or beside it"
                raise ConversionError(rule, "none", "example_inputs")
            args, kwargs = program.example_inputs
        else:
            args, kwargs = _call_arguments(program.module(), example_inputs)
        module = program.module(check_guards=False)
        args, kwargs = tuple(args), dict(kwargs)
    else:
        if example_inputs is None:
            rule = "example inputs, with which the module can be called"
            raise ConversionError(rule, "none", "example_inputs")
        args, kwargs = _call_arguments(module, example_inputs)
        module = copy.deepcopy(module).cpu().eval()
        args, kwargs = pytree.tree_map(_prepare, (args, kwargs))
        program = _export(module, args, kwargs)
    _check_ranges(program)
    with _quiet():
        try:
            # its optimizer drops what it takes for 0, such as 1e-12 in a divisor
            made = torch.onnx.export(
                program, dynamo=True, opset_version=OPSET, verbose=False, optimize=False
            )
            if made is not None:
                simplify(made.model)
        except Exception as error:  # the exporter's errors share no narrower base
            rule = "a module that torch.onnx.export takes"
            raise ConversionError(rule, _reason(error), "module") from None
    if made is None:
        rule = "a module that torch.onnx.export takes"
        raise ConversionError(rule, "nothing exported", "module")
    plain = made.model_proto
    plain.ir_version = IR_VERSION
    names = _name_inputs(plain, args, kwargs)
    _name_outputs(plain)
    _name_sizes(plain)
    fused = onnx.ModelProto()
    fused.CopyFrom(plain)
    tensors = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    arrays = [t.detach().cpu().numpy() for t in tensors]
    example = dict(zip(names, arrays, strict=True))
    blocks = fuse_graph(fused, _longest(plain, args, kwargs), example)
    return Graph(plain, fused, module, args, kwargs, names, blocks)


def _check_ranges(program: ExportedProgram) -> None:
    """Refuse a program that holds for some sizes alone: a file could not say so.

    Open sizes begin at 2, which torch assumes and the proof goes below.
    """
    fixed = _fixed_sizes(program)
    if fixed:
        rule = "a module that computes the same at every batch size and history length"
        fix = "It branches on a size; cut long histories before the call."
        raise ConversionError(rule, "sizes " + ", ".join(fixed), "module", fix)


def _fixed_sizes(program: ExportedProgram) -> list[str]:
    """List the open sizes for which a program does not hold everywhere."""
    fixed = []
    for symbol, values in program.range_constraints.items():
        least, most = str(values.lower), str(values.upper)
        if least not in ("0", "1", "2") or not most.endswith("oo"):
            fixed.append(f"{symbol} from {least} to {most}")
    return fixed


def simplify(model: ir.Model) -> None:
    """Inline functions, fold constants, compute equal things once: all exactly."""
    optimizer.inline(model)
    optimizer.fold_constants(model, onnx_shape_inference=True)
    CommonSubexpressionEliminationPass()(model)
    optimizer.remove_unused_nodes(model)


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _export(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> ExportedProgram:
    """Export with every dimension open that the module does not fix itself."""

    def every(value: Any) -> Any:  # noqa: ANN401
        if not isinstance(value, Tensor):
            return None
        return dict.fromkeys(range(value.ndim), Dim.AUTO)

    def batch(value: Any) -> Any:  # noqa: ANN401
        if not isinstance(value, Tensor):
            return None
        return {0: Dim.AUTO} if value.ndim else {}

    def sizes(value: Any) -> Any:  # noqa: ANN401
        """Leave the last axis of floats of three axes fixed: it is features."""
        wide = isinstance(value, Tensor) and value.ndim > 2
        if not wide or not value.is_floating_point():
            return every(value)
        return dict.fromkeys(range(value.ndim - 1), Dim.AUTO)

    first: Exception | None = None
    bounded: ExportedProgram | None = None
    for choice in (every, sizes, batch):
        if choice is batch and bounded is not None:
            return bounded  # which is refused: it is not for any length
        shapes = pytree.tree_map(choice, (args, kwargs))
        parameters = inspect.signature(module.forward).parameters.values()
        by_name: dict[str, Any] = {}
        positional = iter(shapes[0])
        for p in parameters:
            if p.kind is p.VAR_POSITIONAL:
                by_name[p.name] = tuple(positional)
            elif p.name in shapes[1]:
                by_name[p.name] = shapes[1][p.name]
            else:
                there = next(positional, _MISSING)
                if there is not _MISSING:
                    by_name[p.name] = there
        with _quiet():
            try:
                program = torch.export.export(
                    module, args, kwargs, dynamic_shapes=by_name or None
                )
            except Exception as error:  # torch's errors share no narrower base
                first = first or error
                continue
        if not _fixed_sizes(program):
            return program
        bounded = bounded or program
    if bounded is not None:
        return bounded
    rule = "a module that torch.export takes"
    raise ConversionError(rule, _reason(first or Exception()), "module")


_MISSING = object()


def _paths(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str]:
    """Name each example tensor by the last key on its way, "" if it has none."""
    flat, _ = pytree.tree_flatten_with_path((args, kwargs))
    out = []
    for path, value in flat:
        if isinstance(value, Tensor):
            keys = [k.key for k in path if isinstance(k, pytree.MappingKey)]
            out.append(str(keys[-1]) if keys else "")
    return out


def _name_inputs(
    proto: onnx.ModelProto, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[str]:
    """Name the graph's inputs as their dict keys, where they come in a dict."""
    graph = proto.graph
    keys = _paths(args, kwargs)
    if len(keys) != len(graph.input):
        rule = f"{len(keys)} graph inputs, one per example tensor"
        raise ConversionError(rule, len(graph.input), "module")
    taken = {name for node in graph.node for name in node.output}
    taken |= {t.name for t in graph.initializer}
    wanted = [
        k if k and keys.count(k) == 1 and k not in taken else i.name
        for k, i in zip(keys, graph.input, strict=True)
    ]
    if len(set(wanted)) == len(wanted):
        _rename(proto, dict(zip((i.name for i in graph.input), wanted, strict=True)))
    return [i.name for i in graph.input]


def _name_outputs(proto: onnx.ModelProto) -> None:
    outputs = proto.graph.output
    used = {i.name for i in proto.graph.input}
    if len(outputs) == 1 and "output" not in used:
        _rename(proto, {outputs[0].name: "output"})


def _name_sizes(proto: onnx.ModelProto) -> None:
    """Call the batch N, and the other open sizes T, or T0, T1, .. in their order."""
    graph = proto.graph
    dims = [d.dim_param for i in graph.input for d in i.type.tensor_type.shape.dim]
    open_sizes = list(dict.fromkeys(d for d in dims if d.isidentifier()))
    first = [
        i.type.tensor_type.shape.dim[0].dim_param
        for i in graph.input
        if len(i.type.tensor_type.shape.dim)
    ]
    batch = max(open_sizes, key=first.count, default="")
    others = [d for d in open_sizes if d != batch]
    names = {batch: "N"} | {
        d: f"T{i}" if len(others) > 1 else "T" for i, d in enumerate(others)
    }

    def named(match: re.Match[str]) -> str:
        return names.get(match.group(), match.group())

    for info in (*graph.input, *graph.value_info, *graph.output):
        for dim in info.type.tensor_type.shape.dim:
            if dim.dim_param:
                text = re.sub(r"[A-Za-z_]\w*", named, dim.dim_param)
                if text.isdecimal():  # a size that torch found to be fixed
                    dim.dim_value = int(text)
                else:
                    dim.dim_param = text


def _rename(proto: onnx.ModelProto, names: Mapping[str, str]) -> None:
    graph = proto.graph
    for node in graph.node:
        for values in (node.input, node.output):
            for i, name in enumerate(values):
                values[i] = names.get(name, name)
    for infos in (graph.input, graph.output, graph.value_info):
        for info in infos:
            info.name = names.get(info.name, info.name)


def _longest(
    proto: onnx.ModelProto, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> int:
    """Return the history length of the example, for the report."""
    tensors = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    lengths = [
        t.shape[1]
        for t, i in zip(tensors, proto.graph.input, strict=True)
        if t.ndim == 2 and i.type.tensor_type.shape.dim[1].dim_param
    ]
    return max(lengths, default=1)


def input_ranges(proto: onnx.ModelProto) -> list[dict[str, Any]]:
    """Describe the graph's inputs: name, dtype, shape, and rows that ids must hit.

    `rows` is the number of rows of the smallest table that is read at an input's
    values, or None where they are not ids.
    """
    view = View(proto.graph)
    rows: dict[str, int] = {}
    for node in proto.graph.node:
        table = view.constants.get(node.input[0]) if node.op_type == "Gather" else None
        if table is None or table.ndim != 2:
            continue
        name = node.input[1]
        while name in view.producer and view.producer[name].op_type in SHAPELESS:
            name = view.producer[name].input[0]
        rows[name] = min(rows.get(name, len(table)), len(table))
    out = []
    for i in proto.graph.input:
        tensor = i.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        shape = [d.dim_param or d.dim_value for d in tensor.shape.dim]
        found = rows.get(i.name) if dtype.kind in "iu" else None
        out.append({"name": i.name, "dtype": str(dtype), "shape": shape, "rows": found})
    return out


# ----------------------------------------------------------------------------- batches


def example_batches(graph: Graph) -> Iterator[tuple[str, dict[str, NDArray[Any]]]]:
    """Yield the example, then batches of other sizes and lengths drawn from it.

    Rows and positions are drawn anew for every input on its own, so that candidates
    meet other histories. Dimensions that torch fixed keep their size.
    """
    tensors = [
        t.detach().cpu().numpy()
        for t in pytree.tree_leaves((graph.args, graph.kwargs))
        if isinstance(t, Tensor)
    ]
    example = dict(zip(graph.names, tensors, strict=True))
    yield "example", example
    dims = {
        i.name: [d.dim_param for d in i.type.tensor_type.shape.dim]
        for i in graph.plain.graph.input
    }
    sizes: dict[str, int] = {}
    for name, array in example.items():
        pairs = zip(dims[name], array.shape, strict=True)
        sizes |= {symbol: size for symbol, size in pairs if symbol}
    if not sizes:
        return
    first = next(iter(sizes))
    others = [s for s in sizes if s != first]
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
            yield f"N={n}{label}", drawn


def _repeated(
    example: Mapping[str, NDArray[Any]], dims: Mapping[str, list[str]], times: float
) -> dict[str, NDArray[Any]]:
    """Take half of every input's rows, or all of them twice.

    Inputs that hold several rows per candidate, one after the other, stay in step.
    """
    out = {}
    for name, array in example.items():
        if not (array.ndim and dims[name][0]):
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


# ------------------------------------------------------------------------------ writing


def to_weights(proto: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    """Take the weights out of a graph, whose initializers are left empty."""
    weights: dict[str, NDArray[Any]] = {}
    for tensor in proto.graph.initializer:
        weights[tensor.name] = numpy_helper.to_array(tensor)
        name, dims, kind = tensor.name, list(tensor.dims), tensor.data_type
        tensor.Clear()
        tensor.name, tensor.data_type = name, kind
        tensor.dims.extend(dims)
    return weights


def golden_example(graph: Graph, wanted: Sequence[NDArray[Any]]) -> str:
    """Keep some rows of the example and torch's outputs, as JSON {inputs, outputs}."""
    _, inputs = next(example_batches(graph))
    return json.dumps(
        {
            "inputs": {k: v.tolist() for k, v in inputs.items()},
            "outputs": [np.asarray(w, np.float64).tolist() for w in wanted],
        }
    )


# ------------------------------------------------------------------------------ proving


def reference_outputs(graph: Graph) -> list[Truth]:
    """Run the module on every batch that it takes: in float64 where it can.

    Returns
    -------
    list of (name, inputs, outputs)
        The example first.
    """
    exact = copy.copy(graph)
    dtype = torch.float64
    _, example = next(example_batches(graph))
    single = graph.call(example, torch.float32)
    try:
        with _quiet():
            exact.module = copy.deepcopy(graph.module).double()
        double = exact.call(example, dtype)
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
            out.append((name, inputs, exact.call(inputs, dtype)))
        except Exception:  # a batch that the module refuses is not a legal one
            if name == "example":
                raise
    return out


def plain_session(proto: onnx.ModelProto) -> Any:  # noqa: ANN401
    """Open the graph as it was exported, for comparison."""
    onnxruntime = import_runtime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        proto.SerializeToString(), options, ["CPUExecutionProvider"]
    )


def check_outputs(
    names: Sequence[str], truth: Sequence[Truth], path: Path
) -> list[Case]:
    """Compare a file with torch on every batch, in every way it can run.

    Raises
    ------
    ConversionError
        If an output differs by more than 1e-5 · max(1, |output|).
    """
    cases = []
    for way in ways(path):
        session = open_way(path, way)
        for name, inputs, wanted in truth:
            got = session.run(inputs, names)
            worst = 0.0
            for label, a, b in zip(names, got, wanted, strict=True):
                worst = max(worst, _difference(f"{name}, {way}", label, a, b))
            rows = len(next(iter(inputs.values()))) if inputs else 0
            cases.append(Case(name, way, rows, worst, worst))
    return cases


def _difference(
    place: str, label: str, got: NDArray[Any], wanted: NDArray[Any]
) -> float:
    """Return the largest difference; NaN must stand where torch has NaN."""
    if got.shape != wanted.shape:
        rule = f"{label} of shape {list(wanted.shape)}"
        raise ConversionError(rule, list(got.shape), f"batch {place}")
    a, b = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(a - b))
        off = ~(apart <= TOLERANCE * np.maximum(1.0, np.abs(b)))
    if off.any():
        at = tuple(int(i) for i in np.argwhere(off)[0])
        rule = f"an output {label} within {TOLERANCE:g} of torch's {b[at]:.9g}"
        raise ConversionError(rule, f"{a[at]:.9g}", f"batch {place}, {list(at)}")
    return float(apart.max(initial=0.0))
