"""The bodies of LocalActivation, EmbeddingBag and Tower in standard ONNX operators.

A model-local function is what any ONNX runtime runs when the native op of the same name
is absent, and the definition that the native op must equal. Tables are float32 or fp16;
all else is float32. Letters: B requests, N candidates, T positions, D width of a
behavior, H hidden units, F behavior fields.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from din_converter.guard import (
    Checked,
    bad_lengths,
    checked_attention,
    checked_ids,
    mask_of,
)
from din_converter.nodes import Nodes, function_of, parameter_names
from din_infer.model_format import DOMAIN
from din_infer.spec import Attention, Behavior, Tower

__all__ = [
    "DOMAIN",
    "TowerOp",
    "bag_function",
    "function_named",
    "local_activation_function",
    "tower_function",
]

LOWEST = float(np.finfo(np.float32).min)


def _layer_inputs(layers: Attention | Tower) -> list[str]:
    """Name the weights of hidden layers and of the last, in order."""
    names = []
    for layer in range(1, len(layers.hidden) + 2):
        names += [f"weight_{layer}", f"bias_{layer}"]
        if layer <= len(layers.hidden):
            names += parameter_names(layers.activation, layer)
    return names


def function_named(
    functions: dict[tuple[object, ...], onnx.FunctionProto],
    base: str,
    signature: tuple[object, ...],
    make: Callable[[str], onnx.FunctionProto],
) -> str:
    """Name the function of a signature; write it when it is the first one."""
    key = (base, *signature)
    if key not in functions:
        count = sum(k[0] == base for k in functions)
        functions[key] = make(f"{base}_{count}" if count else base)
    return str(functions[key].name)


@dataclass(frozen=True)
class LocalActivation:
    """One attended sequence as an op: its attributes and its inputs, in order.

    `query_slots` has, per slot of the query, its candidate field's index, or -width if
    it is zeros. `padding` is "masked" (by lengths), "attended", or "mask": the second
    input is then a float mask [B, T] of 0 and 1, for behaviors at any position.
    With `guarded`, the function hides no overflow; the native operator never does.
    """

    num_fields: int
    query_slots: tuple[int, ...]
    attention: Attention
    padding: str
    empty_softmax: str
    explain: bool
    guarded: bool = False

    @classmethod
    def of(
        cls, sequence: Behavior, explain: bool, guarded: bool = False
    ) -> "LocalActivation":
        """Describe a sequence of a spec."""
        slots, real = [], 0
        for name, width in sequence.query:
            slots.append(real if name is not None else -width)
            real += name is not None
        return cls(
            len(sequence.fields),
            tuple(slots),
            sequence.attention,
            sequence.padding,
            sequence.empty_softmax,
            explain,
            guarded,
        )

    @property
    def attributes(self) -> dict[str, Any]:
        """What a native kernel needs to know besides its inputs."""
        a = self.attention
        return {
            "num_fields": self.num_fields,
            "query_slots": list(self.query_slots),
            "num_layers": len(a.hidden) + 1,
            "activation": a.activation,
            "epsilon": a.dice_epsilon,
            "interactions": ",".join(a.interactions) or "none",
            "output_activation": a.output_activation,
            "softmax": int(a.softmax),
            "scale": a.scale,
            "padding": self.padding,
            "empty_softmax": self.empty_softmax,
        }

    @property
    def inputs(self) -> list[str]:
        """Names of the op's inputs, in order; all of them are always passed."""
        fields = range(self.num_fields)
        slots = range(sum(s >= 0 for s in self.query_slots))
        a = self.attention
        second = "mask" if self.padding == "mask" else "lengths"
        names = ["request_of_candidate", second]
        names += [f"ids_{i}" for i in fields]
        names += [f"candidate_ids_{i}" for i in slots]
        names += [f"table_{i}" for i in fields]
        names += [f"candidate_table_{i}" for i in slots]
        names += ["weight_query", "weight_behavior"]
        names += ["weight_product"] if "product" in a.interactions else []
        names += ["weight_outer"] if "outer" in a.interactions else []
        return names + _layer_inputs(a)[1:]  # the first matrix is those above

    @property
    def outputs(self) -> list[str]:
        """Names of the op's outputs, in order."""
        return ["interest", "weight"] if self.explain else ["interest"]

    @property
    def signature(self) -> tuple[object, ...]:
        """Two sequences of equal signature share one function."""
        items = [(k, str(v)) for k, v in self.attributes.items()]
        return (*items, self.explain, self.guarded)


def local_activation_function(name: str, op: LocalActivation) -> onnx.FunctionProto:
    """Write the op's body.

    ::

        q [N, D] = candidate tables at candidate ids     k [B, T, D] = tables at ids
        W [N, D, H] = weight_behavior + q * weight_product (+ q ⊗ weight_outer)
        x [N, T, H] = k[request_of_candidate] @ W + (q @ weight_query + bias_1)
        s [N, T]    = the remaining layers; masked or softmax
        interest    = sum over t of s * k                     [N, D]

    A request, length, or id that is not padding, out of its range is an error, or NaN
    of its candidate: see `Nodes.penalty`.
    """
    g = Nodes()
    a = op.attention
    num_candidates = sum(slot >= 0 for slot in op.query_slots)
    checked = checked_attention(g, op.padding, op.num_fields, num_candidates)
    rows = g.add(
        "Concat",
        *(g.read_rows(f"table_{i}", ids) for i, ids in enumerate(checked.ids)),
        axis=2,
    )
    behaviors = g.add("Gather", rows, checked.owners, axis=0)
    query = _query(g, list(op.query_slots), checked.candidate_ids)
    behavior_weight = _candidate_weight(g, a, query)
    first = g.add("Add", g.add("MatMul", query, "weight_query"), "bias_1")
    x = g.add(
        "Add",
        g.add("MatMul", behaviors, behavior_weight),
        g.add("Unsqueeze", first, g.constant([1])),
    )
    for layer in range(1, len(a.hidden) + 1):
        parameters = parameter_names(a.activation, layer)
        x = g.activation(
            a.activation, x, parameters, a.dice_epsilon, guarded=op.guarded
        )
        x = g.add("MatMul", x, f"weight_{layer + 1}")
        x = g.add("Add", x, f"bias_{layer + 1}")
    score = g.add("Squeeze", x, g.constant([2]))
    score = g.activation(a.output_activation, score, [], 0.0, guarded=op.guarded)
    if a.scale != 1.0:
        score = g.add("Mul", score, g.constant(a.scale))
    if a.softmax and op.guarded:
        score = g.if_finite(score, score)
    weight = _weights(g, op, score, checked)
    penalty = g.add("Unsqueeze", checked.penalty, g.constant([1]))
    if op.explain:
        g.add("Add", weight, penalty, out="weight")
    spread = g.add("Unsqueeze", weight, g.constant([2]))
    # where padding is attended, no history is empty
    fills = op.padding == "masked" and op.empty_softmax == "padding_row"
    plain = not (a.softmax and fills)
    interest = g.add(
        "ReduceSum", g.add("Mul", spread, behaviors), g.constant([1]), keepdims=0
    )
    if not plain:
        zero = g.constant([0])
        tables = [g.read_rows(f"table_{i}", zero) for i in range(op.num_fields)]
        padding = g.add("Concat", *tables, axis=1)
        lengths = g.add("Gather", "lengths", checked.owners)
        empty = g.add("Equal", g.add("Unsqueeze", lengths, g.constant([1])), zero)
        interest = g.add("Where", empty, padding, interest)
    g.add("Add", interest, penalty, out="interest")
    return function_of(name, op.inputs, op.outputs, g, op.attributes)


def _query(g: Nodes, slots: list[int], candidate_ids: list[str]) -> str:
    """Concatenate the candidate's embeddings, zeros where unpaired: [N, D]."""
    parts = []
    for slot in slots:
        if slot >= 0:
            ids = candidate_ids[slot]
            parts.append(g.read_rows(f"candidate_table_{slot}", ids))
        else:
            zero = helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0])
            parts.append(g.zeros(-slot, value=zero))
    return g.add("Concat", *parts, axis=1)


def _candidate_weight(g: Nodes, a: Attention, query: str) -> str:
    """Fold the candidate into layer 1: [N, D, H], or [D, H] without products."""
    weight = "weight_behavior"
    if "product" in a.interactions:
        column = g.add("Unsqueeze", query, g.constant([2]))
        weight = g.add("Add", weight, g.add("Mul", column, "weight_product"))
    if "outer" in a.interactions:
        shape = g.add(
            "Concat",
            g.add("Shape", "request_of_candidate"),
            g.add("Shape", "weight_behavior"),
            axis=0,
        )
        outer = g.add("MatMul", query, "weight_outer")
        weight = g.add("Add", weight, g.add("Reshape", outer, shape, allowzero=1))
    return weight


def _weights(g: Nodes, op: LocalActivation, score: str, checked: Checked) -> str:
    """Turn scores [N, T] into activation weights: mask and softmax."""
    if op.padding == "attended":
        return g.add("Softmax", score, axis=1) if op.attention.softmax else score
    legal = ""
    mask = g.add("Gather", checked.valid, checked.owners, axis=0)
    if op.padding == "mask":
        given = g.add("Gather", "mask", checked.owners, axis=0)
        legal = g.add("Or", mask, g.add("Equal", given, g.constant(0.0)))
    filler = g.constant(LOWEST if op.attention.softmax else 0.0)
    weight = g.add("Where", mask, score, filler)
    if op.attention.softmax:
        weight = g.add("Softmax", weight, axis=1)
        weight = g.add("Where", mask, weight, g.constant(0.0))
    if legal:  # the native operator refuses any other value
        weight = g.add("Where", legal, weight, g.constant(float("nan")))
    return weight


def bag_attributes(pooling: str, padding: str, empty: float) -> dict[str, Any]:
    """Collect the attributes of one EmbeddingBag."""
    return {"pooling": pooling, "padding": padding, "empty": empty}


def bag_function(name: str, attributes: dict[str, Any]) -> onnx.FunctionProto:
    """Write EmbeddingBag: (ids [R, T], lengths [R], table [rows, D]) -> [R, D].

    Rows of `table` at the valid positions of `ids`, pooled by sum, mean or max over T.
    Lengths and valid ids out of their range are errors, or NaN of their row.
    """
    g = Nodes()
    pooling, padding, empty = (attributes[k] for k in ("pooling", "padding", "empty"))
    valid = "" if padding == "attended" else mask_of(g, "ids", "lengths")
    ids, wrong = checked_ids(g, "ids", "table", valid)
    wrong = g.add("Greater", wrong, g.constant(0.0))
    penalty = g.penalty(g.add("Or", wrong, bad_lengths(g, "ids", "lengths")))
    vectors = g.read_rows("table", ids)
    axis = g.constant([1])
    one = g.constant([1])
    if padding == "attended":
        count = g.add("Shape", "ids", start=1, end=2)
    else:
        mask = g.add("Unsqueeze", valid, g.constant([2]))
        filler = g.constant(LOWEST if pooling == "max" else 0.0)
        vectors = g.add("Where", mask, vectors, filler)
        count = g.add("Unsqueeze", "lengths", axis)
    is_empty = g.add("Less", count, one)
    if pooling == "max":
        # One more position, so that the maximum over no position is defined.
        pads = g.constant([0, 0, 0, 0, 1, 0])
        vectors = g.add("Pad", vectors, pads, g.constant(LOWEST))
        out = g.add("ReduceMax", vectors, axis, keepdims=0)
        out = g.add("Where", is_empty, g.constant(empty), out)
    else:
        out = g.add("ReduceSum", vectors, axis, keepdims=0)
        if pooling == "mean":
            divisor = g.add("Cast", g.add("Max", count, one), to=TensorProto.FLOAT)
            out = g.add("Div", out, divisor)
        if empty != 0.0:
            out = g.add("Where", is_empty, g.constant(empty), out)
    g.add("Add", out, g.add("Unsqueeze", penalty, axis), out="pooled")
    return function_of(name, ["ids", "lengths", "table"], ["pooled"], g, attributes)


@dataclass(frozen=True)
class TowerOp:
    """The tower as an op: its attributes and its inputs, in order."""

    tower: Tower
    num_blocks: int

    @property
    def attributes(self) -> dict[str, Any]:
        """What a native kernel must know besides its inputs."""
        return {
            "num_blocks": self.num_blocks,
            "num_layers": len(self.tower.hidden) + 1,
            "activation": self.tower.activation,
            "epsilon": self.tower.dice_epsilon,
        }

    @property
    def blocks(self) -> list[str]:
        """Names of what is read side by side, each [N, its width]."""
        return [f"x_{i}" for i in range(self.num_blocks)]

    @property
    def layers(self) -> list[str]:
        """Names of the weights of all layers, in order."""
        return _layer_inputs(self.tower)


def tower_function(name: str, op: TowerOp) -> onnx.FunctionProto:
    """Write Tower: (x_0 .. [N, w_i], weights) -> logit [N].

    The blocks side by side, through layers of `activation(x weight + bias)` and a last
    one to a single unit.
    """
    g = Nodes()
    x = g.add("Concat", *op.blocks, axis=1)
    for layer in range(1, len(op.tower.hidden) + 2):
        x = g.add("Gemm", x, f"weight_{layer}", f"bias_{layer}")
        if layer <= len(op.tower.hidden):
            parameters = parameter_names(op.tower.activation, layer)
            epsilon = op.tower.dice_epsilon
            # a dense value may be as large as a float is
            x = g.activation(op.tower.activation, x, parameters, epsilon, guarded=True)
    g.add("Squeeze", x, g.constant([1]), out="logit")
    inputs = [*op.blocks, *op.layers]
    return function_of(name, inputs, ["logit"], g, op.attributes)
