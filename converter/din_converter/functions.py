"""The bodies of LocalActivation, EmbeddingBag, Guard and Tower in standard operators.

A model-local function is what any ONNX runtime runs when the native op of the same name
is absent, and the definition that the native op must equal. Tables are float32 or fp16;
all else is float32. Letters: B requests, N candidates, T positions, D width of a
behavior, H hidden units, F behavior fields.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from onnx import TensorProto, helper

from din_converter.nodes import Nodes, parameter_names
from din_infer.model_format import DOMAIN, OPSET
from din_infer.spec import Attention, Behavior, Input, Tower

__all__ = [
    "DOMAIN",
    "GuardOp",
    "TowerOp",
    "bag_function",
    "function_named",
    "guard_function",
    "inlined_model",
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


def _function(
    name: str,
    inputs: list[str],
    outputs: list[str],
    nodes: Nodes,
    attributes: dict[str, Any],
) -> onnx.FunctionProto:
    return helper.make_function(
        DOMAIN,
        name,
        inputs,
        outputs,
        nodes.nodes,
        [helper.make_opsetid("", OPSET)],
        attributes=list(attributes),
    )


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


def inlined_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model of standard operators alone: functions' nodes in their place."""
    inlined = onnx.inliner.inline_local_functions(model)
    kept = [o for o in inlined.opset_import if o.domain != DOMAIN]
    del inlined.opset_import[:]
    inlined.opset_import.extend(kept)
    return inlined


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
    checked = _checked(g, op)
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
    return _function(name, op.inputs, op.outputs, g, op.attributes)


@dataclass(frozen=True)
class _Checked:
    """Names of ids and requests of which the bad ones are 0, of the mask of behaviors
    [B, T] ("" where all positions count), and of what tells of the bad ones.
    """

    owners: str
    ids: list[str]
    candidate_ids: list[str]
    valid: str
    penalty: str


def _checked(g: Nodes, op: LocalActivation) -> _Checked:
    """Check what a LocalActivation is given, as the native operator does."""
    zero = g.constant(0)
    bad = g.outside("request_of_candidate", g.add("Shape", "ids_0", start=0, end=1))
    owners = g.kept(bad, "request_of_candidate")
    valid = ""
    if op.padding == "masked":
        valid = _mask(g, "ids_0", "lengths")
    elif op.padding == "mask":
        valid = g.add("Equal", "mask", g.constant(1.0))
    ids, counts = [], []
    for i in range(op.num_fields):
        kept, count = _checked_ids(g, f"ids_{i}", f"table_{i}", valid)
        ids.append(kept)
        counts.append(count)
    total = counts[0] if len(counts) == 1 else g.add("Sum", *counts)
    bad_requests = g.add("Greater", total, g.constant(0.0))
    if op.padding != "mask":
        bad_requests = g.add("Or", bad_requests, _bad_lengths(g, "ids_0", "lengths"))
    bad = g.add("Or", bad, g.add("Gather", bad_requests, owners))
    candidate_ids = []
    for i in range(sum(s >= 0 for s in op.query_slots)):
        name, rows = f"candidate_ids_{i}", f"candidate_table_{i}"
        wrong = g.outside(name, g.add("Shape", rows, start=0, end=1))
        candidate_ids.append(g.add("Where", wrong, zero, name))
        bad = g.add("Or", bad, wrong)
    return _Checked(owners, ids, candidate_ids, valid, g.penalty(bad))


def _checked_ids(g: Nodes, ids: str, table: str, valid: str) -> tuple[str, str]:
    """Make padding and bad ids 0, and count the bad ones per row, float32."""
    wrong = g.outside(ids, g.add("Shape", table, start=0, end=1))
    if valid:
        kept = g.add(
            "Where", g.add("And", valid, g.add("Not", wrong)), ids, g.constant(0)
        )
        wrong = g.add("And", valid, wrong)
    else:
        kept = g.kept(wrong, ids)
    wrong = g.add("Cast", wrong, to=TensorProto.FLOAT)
    return kept, g.add("ReduceSum", wrong, g.constant([1]), keepdims=0)


def _bad_lengths(g: Nodes, ids: str, lengths: str) -> str:
    """Tell which lengths are not in [0, T]."""
    longest = g.add("Shape", ids, start=1, end=2)
    below = g.add("Less", lengths, g.constant(0))
    return g.add("Or", below, g.add("Greater", lengths, longest))


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


def _weights(g: Nodes, op: LocalActivation, score: str, checked: _Checked) -> str:
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


def _mask(g: Nodes, ids: str, lengths: str) -> str:
    """Position < length, bool [rows, T]."""
    size = g.add("Shape", ids, start=1, end=2)
    positions = g.add(
        "Range", g.constant(0), g.add("Squeeze", size, g.constant([0])), g.constant(1)
    )
    return g.add("Less", positions, g.add("Unsqueeze", lengths, g.constant([1])))


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
    valid = "" if padding == "attended" else _mask(g, "ids", "lengths")
    ids, wrong = _checked_ids(g, "ids", "table", valid)
    wrong = g.add("Greater", wrong, g.constant(0.0))
    penalty = g.penalty(g.add("Or", wrong, _bad_lengths(g, "ids", "lengths")))
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
    return _function(name, ["ids", "lengths", "table"], ["pooled"], g, attributes)


@dataclass(frozen=True)
class GuardOp:
    """The check of what no other operator checks: its attributes and inputs, in order.

    `fields` has the names and the table rows of ids per request, then per candidate, of
    which the first `num_user_fields` are per request. `requests` names two inputs that
    tell B: one with a value for each request, and the ids that those are lengths of; in
    most models a user field is both. It is empty where nothing is per request.
    """

    fields: tuple[tuple[str, int], ...]
    num_user_fields: int
    requests: tuple[str, ...]

    @classmethod
    def of(cls, inputs: Sequence[Input]) -> "GuardOp":
        """Describe the guard of a spec's inputs."""
        user, candidate = (
            [(i.name, i.rows) for i in inputs if i.shape == (side,) and i.rows]
            for side in ("B", "N")
        )
        requests: tuple[str, ...] = ()
        mine = [i for i in inputs if i.shape[0] == "B" and i.dtype != "int64"]
        ragged = [i for i in inputs if i.shape[0] == "B" and i.lengths is not None]
        if user:
            requests = (user[0][0], user[0][0])
        elif ragged:
            requests = (str(ragged[0].lengths), ragged[0].name)
        elif mine:
            requests = (mine[0].name, mine[0].name)
        return cls((*user, *candidate), len(user), requests)

    @property
    def attributes(self) -> dict[str, Any]:
        """What a native kernel must know besides its inputs."""
        return {
            "fields": "\n".join(f"{rows} {name}" for name, rows in self.fields),
            "num_user_fields": self.num_user_fields,
            "has_requests": int(bool(self.requests)),
        }

    @property
    def values(self) -> list[str]:
        """Names of the graph's inputs that are the op's."""
        of_requests = self.requests or ("request_of_candidate",) * 2
        return ["request_of_candidate", *of_requests, *(n for n, _ in self.fields)]


def guard_function(name: str, op: GuardOp) -> onnx.FunctionProto:
    """Write Guard: (request_of_candidate [N], what tells B, ids ..) -> penalty [N].

    Zeros, to be added to the logit. An id of a candidate or of its request outside its
    table, a request outside [0, B), and a last request without a candidate are errors,
    or NaN: see `Nodes.penalty`. The last tells of calls that were joined on their first
    axis: their requests are still counted from 0, so that the highest is missing.
    """
    g = Nodes()
    ids = [f"ids_{i}" for i in range(len(op.fields))]
    wrong = [
        g.outside(x, g.constant(rows))
        for x, (_, rows) in zip(ids, op.fields, strict=True)
    ]
    bad = ""

    def also(condition: str) -> None:
        nonlocal bad
        bad = g.add("Or", bad, condition) if bad else condition

    if op.requests:
        request = "request_of_candidate"
        count = g.add("Shape", "requests", start=0, end=1)
        also(g.outside(request, count))
        owners = g.kept(bad, request)
        for condition in wrong[: op.num_user_fields]:
            also(g.add("Gather", condition, owners))
        some = g.add("Concat", owners, g.constant([-1]), axis=0)  # never empty
        highest = g.add("ReduceMax", some, g.constant([0]), keepdims=1)
        last = g.add("Sub", count, g.constant([1]))
        also(g.add("Not", g.add("Equal", highest, last)))
    for condition in wrong[op.num_user_fields :]:
        also(condition)
    g.add("Identity", g.penalty(bad), out="penalty")
    inputs = ["request_of_candidate", "requests", "rows", *ids]
    return _function(name, inputs, ["penalty"], g, op.attributes)


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
    return _function(name, inputs, ["logit"], g, op.attributes)
