"""An ONNX graph to read: the producer, constant, type and shape of each value."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from din_converter.fusing.layout import UNIT, Shape, Size
from din_infer.device import import_runtime
from din_infer.model_format import IR_VERSION, OPSET

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
    """A graph to read: constants, types, shapes and producers by name; immutable."""

    graph: onnx.GraphProto
    producer: dict[str, onnx.NodeProto] = field(default_factory=dict)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)
    types: dict[str, int] = field(default_factory=dict)
    example: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    _may_mask: dict[str, bool] = field(default_factory=dict)

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

    def may_mask(self, name: str) -> bool:
        """Whether a float tensor can be a mask: 0 and 1 alone in the example.

        That it always is, the operator checks when it runs.
        """
        if name not in self._may_mask:
            values = self._evaluate(name) if self.example else None
            is_input = name not in self.producer
            self._may_mask[name] = (
                is_input if values is None else bool(np.isin(values, (0.0, 1.0)).all())
            )
        return self._may_mask[name]

    def _evaluate(self, name: str) -> NDArray[Any] | None:
        """Compute a value of the example; None where the runtime cannot."""
        if name in self.example:
            return self.example[name]
        whole = ir.serde.deserialize_graph(self.graph)
        part = ir.convenience.extract(whole, list(self.example), [name])
        part.opset_imports[""] = OPSET
        model = ir.to_proto(ir.Model(part, ir_version=IR_VERSION))
        onnxruntime = import_runtime()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        try:
            session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, ["CPUExecutionProvider"]
            )
            values: NDArray[Any] = session.run(None, dict(self.example))[0]
        except Exception:  # the runtime's errors share no narrower base
            return None
        return values

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
