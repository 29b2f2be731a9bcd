"""Bags of embeddings: rows of a table, pooled over positions -> EmbeddingBag.

::

    ids [N, T] ──► Gather ──► ReduceSum, ReduceMean or ReduceMax ──► [N, D]
"""

from functools import partial

import onnx
from onnx import TensorProto, helper

from din_converter.functions import (
    DOMAIN,
    bag_attributes,
    bag_function,
    function_named,
)
from din_converter.fusing.view import View, attribute, names_read
from din_converter.nodes import Nodes

__all__ = ["fuse_bags"]

POOLINGS = {"ReduceSum": "sum", "ReduceMean": "mean", "ReduceMax": "max"}


def fuse_bags(proto: onnx.ModelProto) -> int:
    """Replace every bag of a table's rows, `proto` in place; return how many.

    A bag is read where it stands: rows that something else reads, too, stay.
    """
    graph = proto.graph
    view = View(graph)
    readers: dict[str, int] = {o.name: 1 for o in graph.output}
    for name in (name for node in graph.node for name in names_read(node)):
        readers[name] = readers.get(name, 0) + 1
    functions: dict[tuple[object, ...], onnx.FunctionProto] = {}
    gone: set[str] = set()
    kept: list[onnx.NodeProto] = []
    count = 0
    for node in graph.node:
        lookup = _lookup(view, node)
        if lookup is None or readers[lookup.output[0]] != 1:
            kept.append(node)
            continue
        table, ids = lookup.input
        g = Nodes(prefix=f"bag.{count}.")
        if view.types[ids] != TensorProto.INT64:
            ids = g.add("Cast", ids, to=TensorProto.INT64)
        zeros = helper.make_tensor("zero", TensorProto.INT64, [1], [0])
        lengths = g.add("ConstantOfShape", g.add("Shape", ids, end=1), value=zeros)
        attributes = bag_attributes(POOLINGS[node.op_type], "attended", 0.0)
        make = partial(bag_function, attributes=attributes)
        signature = tuple(sorted(attributes.items()))
        name = function_named(functions, "EmbeddingBag", signature, make)
        g.add(
            name, ids, lengths, table, domain=DOMAIN, out=node.output[0], **attributes
        )
        kept += g.nodes
        gone.add(lookup.output[0])
        count += 1
    if count:
        graph.ClearField("node")
        graph.node.extend(n for n in kept if n.output[0] not in gone)
        proto.functions.extend(functions.values())
        if DOMAIN not in {o.domain for o in proto.opset_import}:
            proto.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return count


def _lookup(view: View, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """Find the Gather [N, T, D] that a node pools over T, if it is a bag."""
    if node.op_type not in POOLINGS or attribute(node, "keepdims", 1):
        return None
    axes = attribute(node, "axes")
    if axes is None and len(node.input) > 1:
        axes = view.numbers(node.input[1])
    lookup = view.producer.get(node.input[0])
    if lookup is None or lookup.op_type != "Gather" or attribute(lookup, "axis", 0):
        return None
    table, ids = view.constants.get(lookup.input[0]), view.shapes.get(lookup.input[1])
    if (
        table is None
        or table.ndim != 2
        or view.types[lookup.input[0]] != TensorProto.FLOAT
    ):
        return None
    if ids is None or len(ids) != 2 or axes is None or [a % 3 for a in axes] != [1]:
        return None
    return lookup
