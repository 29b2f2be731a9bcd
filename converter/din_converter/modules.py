"""Any torch module -> ONNX, its attention fused.

::

    module + example inputs --torch.export--> program --torch.onnx--> graph
    graph --fusing--> graph with LocalActivation

Letters: N candidates (the batch), T positions.
Above 400 lines: one way from a program to a graph, and the names in it.
"""

import ast
import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import add, floordiv, mul, sub
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
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from din_converter.exporting import (
    HISTORIES,
    Call,
    by_name,
    call_arguments,
    export_program,
    fixed_sizes,
    open_sizes,
    own_limits,
    plain_module,
    reason_of,
    slow_attention,
)
from din_converter.fusing.bags import fuse_bags
from din_converter.fusing.cost import Block
from din_converter.fusing.rewrite import fuse_graph
from din_converter.fusing.view import View, graphs_of
from din_converter.quiet import quiet
from din_converter.recurrent import TRANSLATIONS
from din_converter.rewriting import rewritten
from din_infer.errors import ConversionError
from din_infer.model_format import IR_VERSION, OPSET

__all__ = ["Graph", "export_module", "input_ranges", "to_weights"]

SHAPELESS = ("Reshape", "Expand", "Squeeze", "Unsqueeze", "Identity", "Flatten", "Cast")


@dataclass
class Graph:
    """An exported module: its graph before and after fusing, and how to call both.

    `example` are the tensors of `args` and `kwargs`, in the order of both and of the
    graph's inputs, by whose names they are called. `bags` counts the EmbeddingBags.
    """

    plain: onnx.ModelProto
    fused: onnx.ModelProto
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    example: dict[str, NDArray[Any]]
    blocks: list[Block]
    notes: tuple[str, ...] = ()
    bags: int = 0

    def without(self, reasons: Mapping[str, str]) -> "Graph":
        """Leave blocks unfused, by their names, for the reasons given; bags, too."""
        fused = onnx.ModelProto()
        fused.CopyFrom(self.plain)
        arrays = list(self.example.values())
        blocks = fuse_graph(fused, _longest(self.plain, arrays), reasons)
        bags = 0 if reasons else fuse_bags(fused)
        return replace(self, fused=fused, blocks=blocks, bags=bags)

    @property
    def names(self) -> list[str]:
        """Names of the graph's inputs."""
        return list(self.example)

    @property
    def outputs(self) -> list[str]:
        """Names of the graph's outputs."""
        return [o.name for o in self.plain.graph.output]

    def call(
        self,
        inputs: Mapping[str, NDArray[Any]],
        dtype: torch.dtype,
        *,
        is_fast: bool = False,
    ) -> Any:  # noqa: ANN401
        """Run the module on arrays, floats as `dtype`; returns a list of arrays.

        With `is_fast`, torch's fast path of attention is taken where it applies.
        """
        leaves, spec = pytree.tree_flatten((self.args, self.kwargs))
        names = iter(self.example)
        for i, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor):
                tensor = torch.from_numpy(np.ascontiguousarray(inputs[next(names)]))
                leaves[i] = tensor.to(dtype) if tensor.is_floating_point() else tensor
        args, kwargs = pytree.tree_unflatten(leaves, spec)
        path = contextlib.nullcontext() if is_fast else slow_attention()
        with torch.inference_mode(), path:
            made = self.module(*args, **kwargs)
        tensors = [t for t in pytree.tree_leaves(made) if isinstance(t, Tensor)]
        return [t.detach().numpy() for t in tensors]


# ---------------------------------------------------------------------------- exporting


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
            args, kwargs = call_arguments(program.module(), example_inputs)
        module = program.module(check_guards=False)
        args, kwargs = tuple(args), dict(kwargs)
        what, fix = "program", "Export it with dimensions that have no `max`."
    else:
        if example_inputs is None:
            rule = "example inputs, with which the module can be called"
            raise ConversionError(rule, "none", "example_inputs")
        module = plain_module(module)
        module, call = by_name(module, call_arguments(module, example_inputs))
        program, (args, kwargs) = export_program(module, call)
        what = "module"
        fix = "It branches on a size; cut long histories before the call."
    # a program states its sizes itself
    called = None if what == "program" else (args, kwargs)
    limits = _limits(program, module, called, what, fix)
    rule = "a module that torch.onnx.export takes"
    with quiet():
        try:
            program = rewritten(program)
            # its optimizer drops terms that it takes for 0, such as 1e-12 in a divisor
            made = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                verbose=False,
                optimize=False,
                custom_translation_table=TRANSLATIONS,
            )
            if made is not None:
                simplify(made.model)
        except Exception as error:  # the exporter's errors share no narrower base
            raise ConversionError(rule, reason_of(error), "module") from None
    if made is None:
        raise ConversionError(rule, "nothing exported", "module")
    tensors = _tensors(args, kwargs)
    _name_values(made.model.graph, [key for key, _ in tensors])
    plain = made.model_proto
    plain.ir_version = IR_VERSION
    arrays = [t.detach().cpu().numpy() for _, t in tensors]
    _name_sizes(plain, _kept_sizes(program, plain.graph, arrays))
    names = (i.name for i in plain.graph.input)
    example = dict(zip(names, arrays, strict=True))
    notes = _fixed_notes(plain)
    for most, of, numbers in limits:
        inside = ", ".join(plain.graph.input[i].name for i in numbers)
        notes += (f"the module takes at most {most} {of} in {inside}",)
    return Graph(plain, plain, module, args, kwargs, example, [], notes).without({})


def _fixed_notes(proto: onnx.ModelProto) -> tuple[str, ...]:
    """Say which sizes a module fixes: the batch, and how many ids a row has."""
    inputs = [i for i in input_ranges(proto) if i["shape"]]
    lists = [
        i for i in inputs if len(i["shape"]) > 1 and isinstance(i["shape"][1], str)
    ]
    notes = []
    rows = {i["shape"][0] for i in inputs}
    fixed = {n for n in rows if not isinstance(n, str)}
    if fixed and (fixed == rows or max(fixed) > 1):
        count = max(fixed)
        word = "row" if count == 1 else "rows"
        notes.append(
            f"the module fixes the batch: {count} {word} in every call, as a loop over"
            " rows or len(tensor) does"
        )
    for i in inputs:
        wide = i["shape"][1] if len(i["shape"]) > 1 else ""
        named = any(word in i["name"].lower() for word in HISTORIES)
        # of a history that is cut or shifted first, no table is known
        is_ids = i["rows"] is not None or (named and i["dtype"].startswith("int"))
        if i["dtype"].startswith("int") and len(i["shape"]) > 2:
            notes += _fixed_lists(i["name"], i["shape"][1:])
            continue
        if is_ids and wide == 1:
            if lists and not named:
                continue  # a candidate beside its history
            notes.append(
                f"{i['name']} has 1 id a row, as in the example: give one of two or"
                " more to leave the length of a history open"
            )
        elif is_ids and isinstance(wide, int):
            notes.append(f"the module fixes the size of {i['name']}: {wide} ids a row")
    return tuple(notes)


def _fixed_lists(name: str, sizes: Sequence[Any]) -> list[str]:
    """Say how many lists of ids a row has, and how many ids they have, if fixed."""
    *many, ids = sizes
    notes = []
    if not any(isinstance(n, str) for n in many):
        count = " x ".join(map(str, many))
        notes.append(f"the module fixes the size of {name}: {count} lists a row")
    if isinstance(ids, int):
        note = f"{name} has {ids} id{'s' * (ids > 1)} a list, as in the example"
        if ids == 1:
            note += ": give one of two or more to leave their length open"
        notes.append(note)
    return notes


def _limits(
    program: ExportedProgram, module: nn.Module, call: Call | None, what: str, fix: str
) -> list[tuple[str, str, list[int]]]:
    """Refuse a program that is valid up to some size only, which a file cannot state.

    What it needs at least, as to read a column, is met by the example's size, which is
    kept. Where the module itself fails above a size, that is returned: the size, what
    it counts, and the numbers of the inputs.
    """
    upper = {k: v for k, v in fixed_sizes(program).items() if not v[1].endswith("oo")}
    own = own_limits(program, module, call) if upper and call is not None else {}
    most = [
        f"{k} from {least} to {m}" for k, (least, m) in upper.items() if k not in own
    ]
    if most:
        rule = f"a {what} that computes the same at every batch size and history length"
        raise ConversionError(rule, "sizes " + ", ".join(most), "module", fix)
    return [
        (upper[symbol][1], "ids a row" if axis else "rows", [i for i, _ in places])
        for symbol, places in own.items()
        for axis in (max(axis for _, axis in places),)
    ]


def simplify(model: ir.Model) -> None:
    """Inline functions, fold constants and share common subexpressions, all exactly."""
    optimizer.inline(model)
    optimizer.fold_constants(model, onnx_shape_inference=True)
    CommonSubexpressionEliminationPass()(model)
    optimizer.remove_unused_nodes(model)


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
    taken = {v.name for node in graph.all_nodes() for v in node.outputs}
    taken |= set(graph.initializers)
    taken |= {v.name for part in graph.subgraphs() for v in part.inputs}
    wanted = [
        k if k and keys.count(k) == 1 and k not in taken else str(v.name)
        for k, v in zip(keys, inputs, strict=True)
    ]
    if len(set(wanted)) == len(wanted):
        for value, name in zip(inputs, wanted, strict=True):
            value.name = name
    if len(graph.outputs) == 1 and "output" not in (v.name for v in inputs):
        graph.outputs[0].name = "output"


def _kept_sizes(
    program: ExportedProgram, graph: onnx.GraphProto, arrays: Sequence[NDArray[Any]]
) -> dict[str, int]:
    """Map the open sizes that must not be smaller to those of the example."""
    kept = {}
    for symbols, info, array in zip(
        open_sizes(program), graph.input, arrays, strict=True
    ):
        dims = info.type.tensor_type.shape.dim
        for symbol, dim, found in zip(symbols, dims, array.shape, strict=True):
            if not symbol and dim.dim_param:
                kept[dim.dim_param] = found
    return kept


def _name_sizes(proto: onnx.ModelProto, kept: Mapping[str, int]) -> None:
    """Call the batch N, and the other open sizes T, or T0, T1, .. in their order.

    `kept` are those that are not open after all.
    """
    shapes = [
        [d.dim_param for d in i.type.tensor_type.shape.dim] for i in proto.graph.input
    ]
    dims = [d for shape in shapes for d in shape]
    open_sizes = [d for d in dict.fromkeys(dims) if d.isidentifier() and d not in kept]
    first = [shape[0] for shape in shapes if shape]
    batch = max(open_sizes, key=first.count, default="")
    if batch not in first:
        batch = ""  # the module fixes it
    others = [d for d in open_sizes if d != batch]
    names = {k: str(v) for k, v in kept.items()} | {batch: "N"}
    names |= {d: f"T{i}" if len(others) > 1 else "T" for i, d in enumerate(others)}

    def named(match: re.Match[str]) -> str:
        return str(names.get(match.group(), match.group()))

    for graph in graphs_of(proto.graph):
        for info in (*graph.input, *graph.value_info, *graph.output):
            for dim in info.type.tensor_type.shape.dim:
                if not dim.dim_param:
                    continue
                text = re.sub(r"[A-Za-z_]\w*", named, dim.dim_param)
                number = _number(text)
                if number is not None:  # a size that torch found to be fixed
                    dim.dim_value = number
                else:
                    dim.dim_param = text


SIGNS = {ast.Add: add, ast.Sub: sub, ast.Mult: mul, ast.FloorDiv: floordiv}


def _number(text: str) -> int | None:
    """Compute a formula of sizes, if it holds numbers alone."""

    def value(node: ast.AST) -> int | None:
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return node.value
        if not isinstance(node, ast.BinOp) or type(node.op) not in SIGNS:
            return None
        left, right = value(node.left), value(node.right)
        if left is None or right is None:
            return None
        return int(SIGNS[type(node.op)](left, right))

    try:
        return value(ast.parse(text, mode="eval").body)
    except (ArithmeticError, SyntaxError):
        return None


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
    for node in (n for graph in graphs_of(proto.graph) for n in graph.node):
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
