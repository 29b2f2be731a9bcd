"""Model files changed at random: what a stranger could write into one.

`mutate` changes attributes, inputs and outputs of nodes, constants, types and functions
of an onnx model. The result is a file that may be wrong in any way; nothing here says
which of them are legal.
"""

import contextlib
import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

INTS = [
    0, 1, -1, 2, 3, 7, 24, 25, 64, 255, 2**15, 2**31 - 1, 2**31, -(2**31), 2**32,
    2**40, 2**40 + 1, 2**62, 2**63 - 1, -(2**63),
]  # fmt: skip
FLOATS = [0.0, -0.0, 1.0, -1.0, 1e-30, 1e30, -1e30, math.inf, -math.inf, math.nan]
TEXTS = [
    b"", b"\0", b"none", b"relu", b"sigmoid", b"silu", b"prelu", b"dice", b"row_dice",
    b"sum", b"mean", b"max", b"masked", b"attended", b"mask", b"zero", b"padding_row",
    b"difference,product", b"outer", b"product,outer", b",", b"x" * 31, b"x" * 32,
    b"x" * 5000, b"\xff\xfe", b"%s%n", b"3 a\n4 b", b"-1 a", b"9223372036854775808 a",
    b"99999999999999999999 a", b"\n\n", b"1", b" 5 x", b"5 \xc3",
]  # fmt: skip
OURS = "din_infer"

Rng = np.random.Generator
Model = onnx.ModelProto


def pick(rng: Rng, values: Any) -> Any:  # noqa: ANN401
    """Return one of some values."""
    return values[int(rng.integers(len(values)))]


def attribute(rng: Rng, name: str) -> AttributeProto:
    """Make an attribute of any type, and often of an extreme value."""
    made = AttributeProto(name=name)
    kind = int(rng.integers(8))
    if kind == 0:
        made.type, made.i = AttributeProto.INT, pick(rng, INTS)
    elif kind == 1:
        made.type, made.f = AttributeProto.FLOAT, pick(rng, FLOATS)
    elif kind == 2:
        made.type, made.s = AttributeProto.STRING, pick(rng, TEXTS)
    elif kind == 3:
        made.type = AttributeProto.INTS
        made.ints.extend(pick(rng, INTS) for _ in range(int(pick(rng, [0, 1, 2, 9]))))
    elif kind == 4:
        made.type = AttributeProto.FLOATS
        made.floats.extend(pick(rng, FLOATS) for _ in range(int(rng.integers(4))))
    elif kind == 5:
        made.type = AttributeProto.STRINGS
        made.strings.extend(pick(rng, TEXTS) for _ in range(int(rng.integers(4))))
    elif kind == 6:
        made.type = AttributeProto.TENSOR
        made.t.CopyFrom(tensor(rng, "t"))
    else:
        made.type = int(rng.integers(0, 16))
        made.i = pick(rng, INTS)
    return made


def tensor(rng: Rng, name: str) -> TensorProto:
    """Make a small tensor of any of the usual types, sometimes of no elements."""
    shape = [int(pick(rng, [0, 1, 2, 3, 9])) for _ in range(int(rng.integers(4)))]
    kind = pick(
        rng,
        ["float32", "float32", "int64", "float16", "int32", "uint8", "float64", "bool"],
    )
    values = rng.normal(size=shape) * 4
    return numpy_helper.from_array(np.asarray(values).astype(kind), name)


def graphs(model: Model) -> Iterator[Any]:
    """List the graph, the bodies in its nodes' attributes, and the functions."""
    todo = [model.graph, *model.functions]
    while todo:
        one = todo.pop()
        yield one
        for node in one.node:
            for a in node.attribute:
                todo += [a.g] if a.type == AttributeProto.GRAPH else [*a.graphs]


def our_nodes(model: Model) -> list[Any]:
    """List our operators' nodes, or all nodes where there are none."""
    found = [n for g in graphs(model) for n in g.node if n.domain == OURS]
    return found or [n for g in graphs(model) for n in g.node]


def names(graph: Any) -> list[str]:  # noqa: ANN401
    """List every value that a node of this graph could read."""
    known = [x for n in graph.node for x in (*n.input, *n.output)]
    if hasattr(graph, "initializer"):
        known += [t.name for t in graph.initializer]
        known += [i.name for i in graph.input]
    return known or ["x"]


def change_attribute(rng: Rng, model: Model) -> None:
    """Change an attribute of a node: its value, its type or its name."""
    node = pick(rng, our_nodes(model))
    if not node.attribute:
        node.attribute.append(attribute(rng, "extra"))
        return
    at = int(rng.integers(len(node.attribute)))
    old = node.attribute[at]
    kind = int(rng.integers(8))
    if kind == 0:
        del node.attribute[at]
    elif kind == 1:
        node.attribute.append(copy.deepcopy(old))
    elif kind == 2:
        node.attribute.append(attribute(rng, "extra"))
    elif kind == 3:
        old.name = pick(rng, [a.name for a in node.attribute] + ["", "x" * 300])
    elif kind == 4:
        node.attribute[at].CopyFrom(attribute(rng, old.name))
    elif old.type == AttributeProto.INT:
        old.i = pick(rng, INTS)
    elif old.type == AttributeProto.FLOAT:
        old.f = pick(rng, FLOATS)
    elif old.type == AttributeProto.STRING:
        old.s = pick(rng, TEXTS)
    elif old.type == AttributeProto.INTS:
        change_ints(rng, old.ints)
    else:
        node.attribute[at].CopyFrom(attribute(rng, old.name))


def change_ints(rng: Rng, ints: Any) -> None:  # noqa: ANN401
    """Change a list of integers."""
    kind = int(rng.integers(5))
    if kind == 0 and len(ints):
        ints[int(rng.integers(len(ints)))] = pick(rng, INTS)
    elif kind == 1:
        ints.append(pick(rng, INTS))
    elif kind == 2 and len(ints):
        del ints[int(rng.integers(len(ints)))]
    elif kind == 3:
        ints.extend([int(pick(rng, INTS))] * int(pick(rng, [3, 50, 5000])))
    else:
        del ints[:]


def change_inputs(rng: Rng, model: Model) -> None:
    """Change what a node reads."""
    node = pick(rng, our_nodes(model))
    graph = next(
        g for g in graphs(model) if any(n is node for n in g.node) or node in g.node
    )
    count = len(node.input)
    if count == 0:
        node.input.append(pick(rng, names(graph)))
        return
    at, other = int(rng.integers(count)), int(rng.integers(count))
    kind = int(rng.integers(7))
    if kind == 0:
        node.input[at], node.input[other] = node.input[other], node.input[at]
    elif kind == 1:
        del node.input[at]
    elif kind == 2:
        node.input.insert(at, pick(rng, names(graph)))
    elif kind == 3:
        node.input[at] = ""
    elif kind == 4:
        node.input[at] = pick(rng, names(graph))
    elif kind == 5:
        node.input[at] = pick(rng, [*node.output, "nowhere"])
    else:
        del node.input[at:]


def change_outputs(rng: Rng, model: Model) -> None:
    """Change what a node writes."""
    node = pick(rng, our_nodes(model))
    graph = next(g for g in graphs(model) if node in g.node)
    kind = int(rng.integers(6))
    if kind == 0:
        node.output.append(f"extra_{int(rng.integers(3))}")
        if len(graph.node) > 1:
            reader = pick(rng, graph.node)
            if len(reader.input):
                reader.input[int(rng.integers(len(reader.input)))] = node.output[-1]
    elif kind == 1 and len(node.output):
        node.output[int(rng.integers(len(node.output)))] = ""
    elif kind == 2 and len(node.output):
        del node.output[int(rng.integers(len(node.output)))]
    elif kind == 3 and len(node.output):
        node.output[int(rng.integers(len(node.output)))] = pick(rng, names(graph))
    elif kind == 4 and hasattr(graph, "output") and len(node.output):
        if not isinstance(graph, onnx.FunctionProto):
            kind_of = int(rng.integers(1, 17))
            graph.output.append(
                helper.make_tensor_value_info(pick(rng, node.output), kind_of, None)
            )
    else:
        node.output.append(node.output[0] if len(node.output) else "x")


def any_node(rng: Rng, model: Model) -> tuple[Any, Any]:
    """Return a graph and a node of it."""
    found = [(g, n) for g in graphs(model) for n in g.node]
    return pick(rng, found)


def change_nodes(rng: Rng, model: Model) -> None:
    """Change nodes: dropped, copied, moved, renamed, their inputs exchanged."""
    graph, node = any_node(rng, model)
    other = pick(rng, graph.node)
    kind = int(rng.integers(9))
    if kind == 0:
        graph.node.remove(node)
    elif kind == 1:
        graph.node.append(copy.deepcopy(node))
    elif kind == 2 and len(node.input) and len(other.input):
        at, to = int(rng.integers(len(node.input))), int(rng.integers(len(other.input)))
        node.input[at], other.input[to] = other.input[to], node.input[at]
    elif kind == 3 and len(node.output) and len(other.output):
        node.output[0], other.output[0] = other.output[0], node.output[0]
    elif kind == 4:
        node.op_type, other.op_type = other.op_type, node.op_type
        if rng.integers(2):
            node.domain, other.domain = other.domain, node.domain
    elif kind == 5 and len(node.input):
        node.input[int(rng.integers(len(node.input)))] = pick(rng, names(graph))
    elif kind == 6:
        nodes = [graph.node[i] for i in rng.permutation(len(graph.node))]
        nodes = [copy.deepcopy(n) for n in nodes]
        del graph.node[:]
        graph.node.extend(nodes)
    elif kind == 7 and len(node.attribute):
        old = node.attribute[int(rng.integers(len(node.attribute)))]
        old.CopyFrom(attribute(rng, old.name))
    else:
        node.op_type = pick(
            rng,
            ["Loop", "If", "Scan", "Identity", "Shape", "Reshape", "Cast", "Gather",
             "Concat", "Slice", "ReduceSum", "MatMul", "SequenceAt", "Optional",
             "Split", "LocalActivation", "LocalActivation_1", "EmbeddingBag", "Tower",
             "Guard"],
        )  # fmt: skip


def change_constants(rng: Rng, model: Model) -> None:
    """Change a constant: its sizes, its type, its bytes, or its name."""
    tensors = model.graph.initializer
    if not len(tensors):
        return
    one = tensors[int(rng.integers(len(tensors)))]
    kind = int(rng.integers(8))
    if kind == 0 and len(one.dims):
        one.dims[int(rng.integers(len(one.dims)))] = pick(rng, INTS)
    elif kind == 1:
        one.data_type = int(rng.integers(0, 24))
    elif kind == 2:
        one.CopyFrom(tensor(rng, one.name))
    elif kind == 3:
        one.raw_data = one.raw_data[: int(rng.integers(len(one.raw_data) + 1))]
    elif kind == 4:
        other = tensors[int(rng.integers(len(tensors)))]
        one.name, other.name = other.name, one.name
    elif kind == 5 and len(one.dims):
        # no data at all, and sizes of any kind
        for i in range(len(one.dims)):
            one.dims[i] = pick(rng, [1, 3, 2**31 - 1, 2**33, 2**40])
        one.dims[int(rng.integers(len(one.dims)))] = 0
        one.raw_data = b""
    elif kind == 6 and one.data_type == TensorProto.FLOAT and len(one.raw_data) >= 4:
        data = np.frombuffer(
            one.raw_data[: len(one.raw_data) // 4 * 4], np.float32
        ).copy()
        data[rng.integers(len(data), size=3)] = pick(rng, FLOATS)
        one.raw_data = data.tobytes()
    else:
        tensors.remove(one)


def change_types(rng: Rng, model: Model) -> None:
    """Change a declared type or shape."""
    infos = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    one = pick(rng, infos)
    kind = int(rng.integers(6))
    if kind == 0:
        one.type.tensor_type.elem_type = int(rng.integers(0, 24))
    elif kind == 1 and len(one.type.tensor_type.shape.dim):
        dim = pick(rng, one.type.tensor_type.shape.dim)
        dim.dim_value = pick(rng, INTS)
    elif kind == 2:
        one.type.tensor_type.shape.dim.add().dim_value = pick(rng, INTS)
    elif kind == 3:
        elem = helper.make_tensor_type_proto(int(rng.integers(1, 17)), None)
        make = pick(
            rng, [helper.make_sequence_type_proto, helper.make_optional_type_proto]
        )
        one.type.CopyFrom(make(elem))
    elif kind == 4:
        one.name = pick(rng, names(model.graph))
    else:
        value = pick(rng, names(model.graph))
        model.graph.value_info.append(
            helper.make_tensor_value_info(value, int(rng.integers(1, 17)), [2, 3])
        )


def change_functions(rng: Rng, model: Model) -> None:
    """Change a function: its name, its inputs, what it calls."""
    if not len(model.functions):
        return
    f = model.functions[int(rng.integers(len(model.functions)))]
    kind = int(rng.integers(9))
    if kind == 0:
        model.functions.remove(f)
    elif kind == 1:
        model.functions.append(copy.deepcopy(f))
    elif kind == 2:
        f.name = pick(rng, ["Identity", "LocalActivation", "Tower", "Guard", ""])
    elif kind == 3:
        f.domain = pick(rng, ["", "din_infer", "x", "ai.onnx"])
    elif kind == 4 and len(f.input):
        del f.input[int(rng.integers(len(f.input)))]
    elif kind == 5:
        f.input.append(pick(rng, names(f)))
    elif kind == 6 and len(f.attribute):
        del f.attribute[int(rng.integers(len(f.attribute)))]
    elif kind == 7:
        f.node.append(
            helper.make_node(f.name, list(f.input), ["again"], domain=f.domain)
        )
    elif len(f.opset_import):
        f.opset_import[0].version = pick(rng, INTS)


Change = Callable[[Rng, Model], None]
ATTRIBUTES: list[Change] = [change_attribute]
STRUCTURE: list[Change] = [
    change_inputs, change_outputs, change_nodes, change_constants, change_types,
    change_functions,
]  # fmt: skip


def mutate(rng: Rng, model: Model, changes: list[Change]) -> Model:
    """Make a copy with one change, or a few."""
    made = copy.deepcopy(model)
    for _ in range(int(rng.geometric(0.6))):
        # nothing left to change, or no such value in protobuf
        with contextlib.suppress(IndexError, ValueError, StopIteration):
            pick(rng, changes)(rng, made)
    return made
