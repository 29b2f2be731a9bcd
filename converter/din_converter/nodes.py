"""Nodes of a graph or of a function, written one after the other; functions of them."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from din_infer.model_format import DOMAIN, OPSET

__all__ = ["Nodes", "function_of", "inlined_model", "parameter_names"]

NOWHERE = 2**63 - 1  # an index outside of every table


@dataclass
class Nodes:
    """A list of nodes under construction; every `add` returns its output's name."""

    prefix: str = ""
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[tuple[str, bytes], str] = field(default_factory=dict)

    def add(
        self,
        op: str,
        *inputs: str,
        domain: str = "",
        out: str | tuple[str, ...] = "",
        **attributes: Any,  # noqa: ANN401
    ) -> str:
        """Append one node; `out` names its output or outputs."""
        names = [out] if isinstance(out, str) else list(out)
        names[0] = names[0] or f"{self.prefix}{op.lower()}_{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(
                op, inputs, names, name=f"{names[0]}:{op}", domain=domain, **attributes
            )
        )
        return names[0]

    def constant(
        self, value: float | int | list[int] | list[float] | NDArray[Any]
    ) -> str:
        """Return the name of a constant; floats are float32, integers int64."""
        array = np.asarray(value)
        array = array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
        key = (str(array.shape) + str(array.dtype), array.tobytes())
        if key not in self.constants:
            tensor = numpy_helper.from_array(array)
            self.constants[key] = self.add("Constant", value=tensor)
        return self.constants[key]

    def read_rows(self, table: str, ids: str) -> str:
        """Read rows of a float32 or fp16 table as float32; on float32 Cast is free."""
        return self.add("Cast", self.add("Gather", table, ids), to=TensorProto.FLOAT)

    def zeros(self, width: int, **attributes: Any) -> str:  # noqa: ANN401
        """Return zeros [N, width]; the attributes are ConstantOfShape's."""
        count = self.add("Shape", "request_of_candidate")
        shape = self.add("Concat", count, self.constant([width]), axis=0)
        return self.add("ConstantOfShape", shape, **attributes)

    def outside(self, ids: str, stop: str) -> str:
        """Tell which values are not in [0, stop), bool of their shape."""
        below = self.add("Less", ids, self.constant(0))
        return self.add("Or", below, self.add("GreaterOrEqual", ids, stop))

    def kept(self, bad: str, ids: str) -> str:
        """Replace bad ids by 0, so that reading a row of them is defined anywhere."""
        return self.add("Where", bad, self.constant(0), ids)

    def penalty(self, bad: str) -> str:
        """Fail where any of `bad` is true; where a runtime cannot, NaN there, else 0.

        An index far outside of a constant of one value: the Gather of most runtimes
        refuses it, and that of others (CUDA, OpenVINO) reads something.
        """
        index = self.add("Where", bad, self.constant(NOWHERE), self.constant(0))
        out = f"{self.prefix}id_length_or_request_out_of_range_{len(self.nodes)}"
        read = self.add("Gather", self.constant([0.0]), index, out=out)
        return self.add("Where", bad, self.constant(float("nan")), read)

    def if_finite(self, x: str, y: str) -> str:
        """Make y NaN where x is not finite; see `overflow.py`."""
        return self.add("Add", y, self.add("Sub", x, x))

    def activation(
        self, kind: str, x: str, parameters: list[str], epsilon: float, *, guarded: bool
    ) -> str:
        """Apply one activation; Dice takes (scale, shift, alpha), PReLU its slope.

        With `guarded` none of them hides that a sum before it overflowed.
        """
        if kind == "none":
            return x
        if kind in ("relu", "sigmoid"):
            y = self.add("Relu" if kind == "relu" else "Sigmoid", x)
            return self.if_finite(x, y) if guarded else y
        if kind == "silu":
            return self.add("Mul", x, self.add("Sigmoid", x))
        if kind == "prelu":
            return self.add("PRelu", x, parameters[0])
        if kind == "dice":
            scale, shift, alpha = parameters
            p = self.add("Sigmoid", self.add("Add", self.add("Mul", x, scale), shift))
        else:
            (alpha,) = parameters
            last = self.constant([-1])
            centered = self.add("Sub", x, self.add("ReduceMean", x, last))
            squared = self.add("Mul", centered, centered)
            total = self.add(
                "ReduceSum", self.add("Add", squared, self.constant(epsilon)), last
            )
            p = self.add("Sigmoid", self.add("Div", centered, self.add("Sqrt", total)))
            p = self.if_finite(total, p) if guarded else p
        # x * (alpha + (1 - alpha) * p)
        rest = self.add("Mul", self.add("Sub", self.constant(1.0), alpha), p)
        return self.add("Mul", x, self.add("Add", alpha, rest))


def parameter_names(kind: str, layer: int) -> list[str]:
    """Name the inputs an activation adds to the op, for the layer counted from 1."""
    names = {
        "dice": ("dice_scale", "dice_shift", "dice_alpha"),
        "row_dice": ("dice_alpha",),
        "prelu": ("slope",),
    }.get(kind, ())
    return [f"{name}_{layer}" for name in names]


def function_of(
    name: str,
    inputs: list[str],
    outputs: list[str],
    nodes: Nodes,
    attributes: dict[str, Any],
) -> onnx.FunctionProto:
    """Make a model-local function of nodes."""
    return helper.make_function(
        DOMAIN,
        name,
        inputs,
        outputs,
        nodes.nodes,
        [helper.make_opsetid("", OPSET)],
        attributes=list(attributes),
    )


def inlined_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model of standard operators alone: functions' nodes in their place."""
    inlined = onnx.inliner.inline_local_functions(model)
    kept = [o for o in inlined.opset_import if o.domain != DOMAIN]
    del inlined.opset_import[:]
    inlined.opset_import.extend(kept)
    return inlined
