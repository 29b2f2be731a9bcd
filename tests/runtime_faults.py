"""Graphs that end a process, or keep it busy for minutes, inside ONNX Runtime itself.

What a loader has to refuse before the runtime sees it: each function returns a model of
standard operators and what is wrong with it. "1.20.1" is the oldest runtime supported;
1.32 refuses them, or runs them.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import onnx
from onnx import TensorProto, helper

FLOAT = TensorProto.FLOAT
OPSETS = [helper.make_opsetid("", 18), helper.make_opsetid("d", 1)]


def model(
    nodes: list[onnx.NodeProto],
    functions: list[onnx.FunctionProto] | None = None,
    constants: list[TensorProto] | None = None,
) -> onnx.ModelProto:
    """Make a model from x [any] to y."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", FLOAT, [None])],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        constants or [],
    )
    return helper.make_model(
        graph, functions=functions or [], opset_imports=OPSETS, ir_version=10
    )


def function(name: str, calls: str) -> onnx.FunctionProto:
    """Make a function of domain "d" that calls another one."""
    domain = "" if calls == "Relu" else "d"
    node = helper.make_node(calls, ["a"], ["b"], domain=domain)
    return helper.make_function("d", name, ["a"], ["b"], [node], OPSETS)


def call(name: str) -> onnx.NodeProto:
    return helper.make_node(name, ["x"], ["y"], domain="d")


def function_that_calls_itself() -> onnx.ModelProto:
    """Stack overflow at load in 1.20.1."""
    return model([call("f")], [function("f", "f")])


def functions_that_call_each_other() -> onnx.ModelProto:
    """Stack overflow at load in 1.20.1."""
    return model([call("f")], [function("f", "g"), function("g", "f")])


def functions_in_a_long_chain(depth: int = 5000) -> onnx.ModelProto:
    """Stack overflow at load in 1.20.1; 1000 of them load."""
    names = [f"f{i}" for i in range(depth)]
    chain = map(function, names, [*names[1:], "Relu"])
    return model([call("f0")], list(chain))


def sparse_constant_with_an_index_outside() -> onnx.ModelProto:
    """Write outside the dense tensor at load in 1.20.1."""
    made = model([helper.make_node("Add", ["x", "k"], ["y"])])
    sparse = made.graph.sparse_initializer.add()
    sparse.dims.append(4)
    sparse.values.name = "k"
    sparse.values.data_type = FLOAT
    sparse.values.dims.append(2)
    sparse.values.raw_data = np.zeros(2, np.float32).tobytes()
    sparse.indices.data_type = TensorProto.INT64
    sparse.indices.dims.append(2)
    sparse.indices.raw_data = np.array([0, 2**40]).tobytes()
    return made


def einsum_of_other_inputs_than_its_equation() -> onnx.ModelProto:
    """Read outside its terms at load in 1.20.1: three terms, one input."""
    return model([helper.make_node("Einsum", ["x"], ["y"], equation="ij,jk,->")])


def nodes_in_a_long_chain(count: int = 20_000) -> onnx.ModelProto:
    """More than a minute at load in 1.20.1."""
    names = ["x", *(f"v{i}" for i in range(count - 1)), "y"]
    return model([helper.make_node("Relu", [a], [b]) for a, b in pairwise(names)])


def nested_branches(depth: int = 24) -> onnx.ModelProto:
    """More than a minute at load in 1.20.1: each level is read several times."""

    def branch(node: onnx.NodeProto) -> onnx.GraphProto:
        output = helper.make_tensor_value_info("o", FLOAT, None)
        return helper.make_graph([node], "branch", [], [output])

    def choose(then: onnx.GraphProto, output: str) -> onnx.NodeProto:
        leaf = branch(helper.make_node("Identity", ["x"], ["o"]))
        return helper.make_node(
            "If", ["c"], [output], then_branch=then, else_branch=leaf
        )

    inner = branch(helper.make_node("Identity", ["x"], ["o"]))
    for _ in range(depth):
        inner = branch(choose(inner, "o"))
    cast = helper.make_node("Cast", ["k"], ["c"], to=TensorProto.BOOL)
    one = helper.make_tensor("k", FLOAT, [], [1.0])
    return model([cast, choose(inner, "y")], constants=[one])


CRASHES: list[Callable[[], onnx.ModelProto]] = [
    function_that_calls_itself,
    functions_that_call_each_other,
    functions_in_a_long_chain,
    sparse_constant_with_an_index_outside,
    einsum_of_other_inputs_than_its_equation,
]
SLOW: list[Callable[[], onnx.ModelProto]] = [nodes_in_a_long_chain, nested_branches]
