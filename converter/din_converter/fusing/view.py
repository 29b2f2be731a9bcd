"""An ONNX graph to read: who makes a value, its constant, its shape."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from din_converter.fusing.layout import Shape, Size

__all__ = ["View", "attribute"]

ELEMENTWISE = ("Add", "Sub", "Mul", "Div", "Where", "And", "Or")
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:  # noqa: ANN401
    """Return an attribute's value, or the default."""
    for a in node.attribute:
        if a.name == name:
            return helper.get_attribute_value(a)
    return default


@dataclass
class View:
    """What the passes ask of a graph; made once, nothing in it changes."""

    graph: onnx.GraphProto
    producer: dict[str, onnx.NodeProto] = field(default_factory=dict)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)
    types: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for tensor in self.graph.initializer:
            self.constants[tensor.name] = numpy_helper.to_array(tensor)
        for node in self.graph.node:
            for name in node.output:
                self.producer[name] = node
            if node.op_type == "Constant":
                value = attribute(node, "value")
                if value is not None:
                    self.constants[node.output[0]] = numpy_helper.to_array(value)
        infos = (self.graph.input, self.graph.value_info, self.graph.output)
        for info in (i for group in infos for i in group):
            tensor = info.type.tensor_type
            self.types[info.name] = tensor.elem_type
            if tensor.HasField("shape"):
                dims = [d.dim_param or d.dim_value for d in tensor.shape.dim]
                if all(isinstance(d, int) or d for d in dims):
                    self.shapes[info.name] = tuple(map(Size.parse, dims))
        for name, array in self.constants.items():
            self.shapes.setdefault(name, tuple(map(Size, array.shape)))
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            self.types.setdefault(name, kind)

        self._unify()

    def _unify(self) -> None:
        """Give an input the sizes of what it meets, where the exporter gave it its own.

        Sizes that torch left open are at least 2, so elementwise operands that are both
        open are equally long.
        """
        for node in self.graph.node:
            out = self.shapes.get(node.output[0]) if node.output else None
            if node.op_type not in ELEMENTWISE or out is None:
                continue
            for name in node.input:
                own = self.shapes.get(name)
                if name in self.producer or own is None or len(own) != len(out):
                    continue
                self.shapes[name] = tuple(
                    there if here.symbols and there.symbols else here
                    for here, there in zip(own, out, strict=True)
                )

    def is_float(self, name: str) -> bool:
        """Whether a value holds floats."""
        return self.types.get(name) in FLOATS

    def numbers(self, name: str) -> list[int] | None:
        """Return a constant of integers as a list; None if it is no constant."""
        array = self.constants.get(name)
        if array is None or array.dtype.kind not in "iu":
            return None
        return [int(v) for v in np.atleast_1d(array).reshape(-1)]

    def ancestors(self, names: Iterable[str]) -> list[onnx.NodeProto]:
        """Collect the nodes that make some values, in no order."""
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
            todo += node.input
        return list(found.values())
