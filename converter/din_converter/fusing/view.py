"""An ONNX graph to read: the producer, constant, type and shape of each value."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from din_converter.fusing.layout import UNIT, Shape, Size

__all__ = ["View", "attribute", "graphs_of", "names_read"]

ELEMENTWISE = ("Add", "Sub", "Mul", "Div", "Where", "And", "Or")
# of which the first input's values are the output's
MOVING = (
    *("Cast", "Expand", "Flatten", "Gather", "GatherElements", "Identity", "Reshape"),
    *("Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
)
INTEGERS = (TensorProto.INT32, TensorProto.INT64)
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:  # noqa: ANN401
    """Return an attribute's value, or the default."""
    for a in node.attribute:
        if a.name == name:
            return helper.get_attribute_value(a)
    return default


def _bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """List the graphs that a node runs: branches, or the body of a loop."""
    kinds = onnx.AttributeProto
    single = [a.g for a in node.attribute if a.type == kinds.GRAPH]
    return single + [
        g for a in node.attribute if a.type == kinds.GRAPHS for g in a.graphs
    ]


def graphs_of(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    """List a graph and all bodies in it."""
    inner = [g for n in graph.node for b in _bodies(n) for g in graphs_of(b)]
    return [graph, *inner]


def names_read(node: onnx.NodeProto) -> list[str]:
    """Name what a node reads: its inputs, and what its bodies see around them."""
    names = list(node.input)
    for body in _bodies(node):
        own = {i.name for i in body.input} | {t.name for t in body.initializer}
        own |= {name for n in body.node for name in n.output}
        read = [name for n in body.node for name in names_read(n)]
        names += [
            name for name in (*read, *(o.name for o in body.output)) if name not in own
        ]
    return names


@dataclass
class View:
    """A graph to read: constants, types, shapes and producers by name; immutable."""

    graph: onnx.GraphProto
    producer: dict[str, onnx.NodeProto] = field(default_factory=dict)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)
    types: dict[str, int] = field(default_factory=dict)
    _binary: dict[str, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.producer = {name: n for n in self.graph.node for name in n.output}
        tensors = {t.name: t for t in self.graph.initializer}
        for node in self.graph.node:
            if node.op_type == "Constant":
                tensors[node.output[0]] = attribute(node, "value")
        for name, tensor in tensors.items():
            if tensor is not None:
                self.constants[name] = numpy_helper.to_array(tensor)
                self.shapes[name] = tuple(map(Size, tensor.dims))
                self.types[name] = tensor.data_type
        for info in (*self.graph.input, *self.graph.value_info, *self.graph.output):
            stated = info.type.tensor_type
            self.types[info.name] = stated.elem_type
            dims = stated.shape.dim
            if stated.HasField("shape") and all(d.WhichOneof("value") for d in dims):
                sizes = (d.dim_param or d.dim_value for d in dims)
                self.shapes[info.name] = tuple(map(Size.parse, sizes))
        for node in self.graph.node:
            if node.op_type == "Expand" and node.output[0] not in self.shapes:
                self._expanded(node)
        self._unify()

    def _expanded(self, node: onnx.NodeProto) -> None:
        """Find the shape of an Expand, where the exporter does not state it."""
        before, wanted = self.shapes.get(node.input[0]), self.sizes(node.input[1])
        if before is None or wanted is None or len(before) != len(wanted):
            return
        self.shapes[node.output[0]] = tuple(
            was if to == UNIT else to for was, to in zip(before, wanted, strict=True)
        )

    def sizes(self, name: str) -> list[Size] | None:
        """Read a computed shape; None where it is not put together from sizes."""
        given = self.numbers(name)
        if given is not None:
            return [Size(n) for n in given] if min(given, default=0) >= 0 else None
        node = self.producer.get(name)
        if node is None:
            return None
        if node.op_type == "Shape":
            shape = self.shapes.get(node.input[0])
            start, end = attribute(node, "start", 0), attribute(node, "end")
            return None if shape is None else list(shape[start:end])
        if node.op_type in ("Squeeze", "Unsqueeze", "Reshape", "Identity"):
            return self.sizes(node.input[0])
        if node.op_type == "Concat":
            parts = [self.sizes(i) for i in node.input]
            found = [s for part in parts if part is not None for s in part]
            return None if None in parts else found
        return None

    def _unify(self) -> None:
        """Name sizes alike that elementwise operators meet, where names differ.

        Sizes that torch left open are at least 2, so elementwise operands that are both
        open are equally long.
        """
        known: dict[str, str] = {}

        def first(symbol: str) -> str:
            while symbol in known:
                symbol = known[symbol]
            return symbol

        for node in self.graph.node:
            out = self.shapes.get(node.output[0]) if node.output else None
            if node.op_type not in ELEMENTWISE or out is None:
                continue
            for name in node.input:
                own = self.shapes.get(name)
                if own is None or len(own) > len(out):
                    continue
                for here, there in zip(own, out[len(out) - len(own) :], strict=True):
                    if here.is_symbol and there.is_symbol:
                        a, b = first(here.symbols[0]), first(there.symbols[0])
                        known |= {a: b} if a != b else {}
        if known:
            for name, shape in self.shapes.items():
                self.shapes[name] = tuple(
                    Size(s.number, tuple(sorted(map(first, s.symbols)))) for s in shape
                )

    def is_binary(self, name: str) -> bool:
        """Whether a tensor is 0 and 1 alone, whatever the graph is given."""
        if name not in self._binary:
            self._binary[name] = False  # meanwhile
            self._binary[name] = self._find_binary(name)
        return self._binary[name]

    def _find_binary(self, name: str) -> bool:
        node, constant = self.producer.get(name), self.constants.get(name)
        if constant is not None:
            return constant.dtype.kind in "fiub" and bool(
                np.isin(constant, (0, 1)).all()
            )
        if self.types.get(name) == TensorProto.BOOL:
            return True
        if node is None or node.domain not in ("", "ai.onnx"):
            return False
        kind, given = node.op_type, list(node.input)
        if kind in MOVING:
            return self.is_binary(given[0])
        if kind in ("Mul", "Min", "Max"):
            if all(map(self.is_binary, given)):
                return True
            ones = [i for i in given if self._is_one(i)]
            return (
                kind == "Min"
                and bool(ones)
                and all(map(self._counts, set(given) - set(ones)))
            )
        if kind == "Sub":
            return self._is_one(given[0]) and self.is_binary(given[1])
        if kind == "Where":
            return all(map(self.is_binary, given[1:]))
        if kind == "Sign":
            return self._counts(given[0])
        if kind == "Clip":
            bounds = [self._is_one(i) for i in given[2:3]]
            return bounds == [True] and self._counts(given[0])
        return False

    def _is_one(self, name: str) -> bool:
        constant = self.constants.get(name)
        return constant is not None and bool((constant == 1).all())

    def _counts(self, name: str) -> bool:
        """Whether a tensor holds integers from 0 on: ids that a table is read at."""
        name = self._origin(name)
        if self.types.get(name) not in INTEGERS:
            return False
        return any(
            n.op_type == "Gather" and self._origin(n.input[1]) == name
            for n in self.graph.node
            if n.input[:1] and n.input[0] in self.constants
        )

    def _origin(self, name: str) -> str:
        while (node := self.producer.get(name)) is not None and node.op_type in MOVING:
            name = node.input[0]
        return name

    def is_float(self, name: str) -> bool:
        """Whether a value holds floats."""
        return self.types.get(name) in FLOATS

    def numbers(self, name: str) -> list[int] | None:
        """Return a constant of integers as a list; None if it is no constant."""
        array = self.constants.get(name)
        if array is None or array.dtype.kind not in "iu":
            return None
        return [int(v) for v in np.atleast_1d(array).reshape(-1)]

    def ancestors(
        self, names: Iterable[str], stop: Collection[str] = ()
    ) -> list[onnx.NodeProto]:
        """Collect the nodes that make some values, up to those of kinds `stop`."""
        seen: set[str] = set()
        found: dict[int, onnx.NodeProto] = {}
        todo = list(names)
        while todo:
            name = todo.pop()
            if name in seen or name not in self.producer:
                continue
            seen.add(name)
            node = self.producer[name]
            found[id(node)] = node
            todo += names_read(node) if node.op_type not in stop else ()
        return list(found.values())
