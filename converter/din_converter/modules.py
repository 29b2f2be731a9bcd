"""Any torch module -> ONNX, its attention fused.

::

    module + example inputs --torch.export--> program --torch.onnx--> graph
    graph --fusing--> graph with LocalActivation

Letters: N candidates (the batch), T positions.
"""

import copy
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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

from din_converter.fusing.cost import Block
from din_converter.fusing.rewrite import fuse_graph
from din_converter.fusing.view import View
from din_converter.quiet import first_line, quiet
from din_infer.errors import ConversionError
from din_infer.model_format import IR_VERSION, OPSET

__all__ = ["Graph", "export_module", "input_ranges", "to_weights"]

SHAPELESS = ("Reshape", "Squeeze", "Unsqueeze", "Identity", "Flatten", "Cast")


@dataclass
class Graph:
    """An exported module: its graph before and after fusing, and how to call both.

    `example` are the tensors of `args` and `kwargs`, in the order of both and of the
    graph's inputs, by whose names they are called.
    """

    plain: onnx.ModelProto
    fused: onnx.ModelProto
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    example: dict[str, NDArray[Any]]
    blocks: list[Block]

    @property
    def names(self) -> list[str]:
        """Names of the graph's inputs."""
        return list(self.example)

    @property
    def outputs(self) -> list[str]:
        """Names of the graph's outputs."""
        return [o.name for o in self.plain.graph.output]

    def call(self, inputs: Mapping[str, NDArray[Any]], dtype: torch.dtype) -> Any:  # noqa: ANN401
        """Run the module on arrays, floats as `dtype`; returns a list of arrays."""
        leaves, spec = pytree.tree_flatten((self.args, self.kwargs))
        names = iter(self.example)
        for i, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor):
                tensor = torch.from_numpy(np.ascontiguousarray(inputs[next(names)]))
                leaves[i] = tensor.to(dtype) if tensor.is_floating_point() else tensor
        args, kwargs = pytree.tree_unflatten(leaves, spec)
        with torch.inference_mode():
            made = self.module(*args, **kwargs)
        return [t.numpy() for t in pytree.tree_leaves(made) if isinstance(t, Tensor)]


# ---------------------------------------------------------------------------- exporting


def _call_arguments(
    module: nn.Module,
    example_inputs: Any,  # noqa: ANN401
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Tell how the module is called: a dict that names its arguments is keywords."""
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
        whose keys are not the names of arguments is one argument. Two rows or more are
        better than one. A program may have its own.

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
    rule = "a module that torch.onnx.export takes"
    with quiet():
        try:
            # its optimizer drops terms that it takes for 0, such as 1e-12 in a divisor
            made = torch.onnx.export(
                program, dynamo=True, opset_version=OPSET, verbose=False, optimize=False
            )
            if made is not None:
                simplify(made.model)
        except Exception as error:  # the exporter's errors share no narrower base
            raise ConversionError(rule, first_line(error), "module") from None
    if made is None:
        raise ConversionError(rule, "nothing exported", "module")
    tensors = _tensors(args, kwargs)
    _name_values(made.model.graph, [key for key, _ in tensors])
    plain = made.model_proto
    plain.ir_version = IR_VERSION
    _name_sizes(plain)
    fused = onnx.ModelProto()
    fused.CopyFrom(plain)
    arrays = [t.detach().cpu().numpy() for _, t in tensors]
    names = (i.name for i in plain.graph.input)
    example = dict(zip(names, arrays, strict=True))
    blocks = fuse_graph(fused, _longest(plain, arrays), example)
    return Graph(plain, fused, module, args, kwargs, example, blocks)


def _check_ranges(program: ExportedProgram) -> None:
    """Refuse a program that is valid for some sizes only, which a file cannot state.

    Open sizes begin at 2, as torch assumes; the proof also covers 1.
    """
    fixed = _fixed_sizes(program)
    if fixed:
        rule = "a module that computes the same at every batch size and history length"
        fix = "It branches on a size; cut long histories before the call."
        raise ConversionError(rule, "sizes " + ", ".join(fixed), "module", fix)


def _fixed_sizes(program: ExportedProgram) -> list[str]:
    """List the open sizes for which a program is not valid everywhere."""
    fixed = []
    for symbol, values in program.range_constraints.items():
        least, most = str(values.lower), str(values.upper)
        if least not in ("0", "1", "2") or not most.endswith("oo"):
            fixed.append(f"{symbol} from {least} to {most}")
    return fixed


def simplify(model: ir.Model) -> None:
    """Inline functions, fold constants and share common subexpressions, all exactly."""
    optimizer.inline(model)
    optimizer.fold_constants(model, onnx_shape_inference=True)
    CommonSubexpressionEliminationPass()(model)
    optimizer.remove_unused_nodes(model)


def _export(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> ExportedProgram:
    """Export with every dimension open that the module does not fix itself."""

    def opened(value: Any, which: str) -> Any:  # noqa: ANN401
        if not isinstance(value, Tensor):
            return None
        # the last axis of floats of three axes is features
        wide = value.ndim > 2 and value.is_floating_point()
        axes = {"all": value.ndim, "lists": value.ndim - wide, "batch": value.ndim > 0}
        return dict.fromkeys(range(axes[which]), Dim.AUTO)

    first: Exception | None = None
    bounded: ExportedProgram | None = None
    for which in ("all", "lists", "batch"):
        if which == "batch" and bounded is not None:
            break  # it is refused: it is not for any length
        choice = partial(opened, which=which)
        given, named = pytree.tree_map(choice, (args, kwargs))
        with quiet():
            try:
                by_name = inspect.signature(module.forward).bind(*given, **named)
                program = torch.export.export(
                    module, args, kwargs, dynamic_shapes=by_name.arguments or None
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
    raise ConversionError(rule, first_line(first or Exception()), "module")


def _tensors(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[tuple[str, Tensor]]:
    """List the example tensors, each with the last key that leads to it, else ""."""
    out = []
    for path, value in pytree.tree_flatten_with_path((args, kwargs))[0]:
        if isinstance(value, Tensor):
            keys = [k.key for k in path if isinstance(k, pytree.MappingKey)]
            out.append((str(keys[-1]) if keys else "", value))
    return out


def _name_values(graph: ir.Graph, keys: list[str]) -> None:
    """Name inputs by their dict keys, where they have any; and a single output."""
    inputs = graph.inputs
    if len(keys) != len(inputs):
        rule = f"{len(keys)} graph inputs, one per example tensor"
        raise ConversionError(rule, len(inputs), "module")
    taken = {v.name for node in graph for v in node.outputs} | set(graph.initializers)
    wanted = [
        k if k and keys.count(k) == 1 and k not in taken else str(v.name)
        for k, v in zip(keys, inputs, strict=True)
    ]
    if len(set(wanted)) == len(wanted):
        for value, name in zip(inputs, wanted, strict=True):
            value.name = name
    if len(graph.outputs) == 1 and "output" not in (v.name for v in inputs):
        graph.outputs[0].name = "output"


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


def _longest(proto: onnx.ModelProto, arrays: Sequence[NDArray[Any]]) -> int:
    """Return the history length of the example, for the report."""
    lengths = [
        t.shape[1]
        for t, i in zip(arrays, proto.graph.input, strict=True)
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
