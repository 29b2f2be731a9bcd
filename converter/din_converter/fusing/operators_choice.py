"""Activations, comparisons, masks and softmax.

Above 400 lines: each is short, and masks are read in terms of one another.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from din_converter.fusing.algebra import CHOICE as CHOSEN
from din_converter.fusing.algebra import Form, Unsupported
from din_converter.fusing.layout import UNIT, broadcast, feature_shape
from din_converter.fusing.operators_layout import as_mask
from din_converter.fusing.reader import Handler, Reader
from din_converter.fusing.values import (
    TWO_MASKS,
    Condition,
    Piece,
    Soft,
    Value,
    negation,
)
from din_converter.fusing.view import View, attribute

__all__ = ["CHOICE"]

# A masked score this low has weight exactly 0 in float32 next to any score above
# 120 - 1e8. That no real score is lower is the only assumption made without proof.
LOWEST_FILL = -1e8
SAME = ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze")
CLAMP = "a clamp that is no ReLU, clamp(min=0)"
COMPARED = (
    "a comparison of values that depend on candidate and behavior both: a mask comes"
    " from ids, lengths or inputs"
)
LOW = "masked scores of {:g}, which others may be below: fill them with -1e9 or less"


# ------------------------------------------------------------------------- activations


def _sigmoid(reader: Reader, node: NodeProto, _: str) -> Value:
    try:
        p = reader.piece(node.input[0])
    except Unsupported:
        row = _row_dice(reader, node.input[0])
        if row is None:
            raise
        return row
    return p.map(reader.algebra.sigmoid)


def _row_dice(reader: Reader, name: str) -> Piece | None:
    """(x - mean) / sqrt(sum((x - mean)^2 + epsilon)), over a row's features."""
    view = reader.view
    quotient = view.producer.get(name)
    if quotient is None or quotient.op_type != "Div":
        return None
    centered, root = quotient.input
    minus, root_node = _origin(view, centered, "Sub"), _origin(view, root, "Sqrt")
    if minus is None or root_node is None:
        return None
    total = _origin(view, root_node.input[0], "ReduceSum")
    mean = _origin(view, minus.input[1], "ReduceMean")
    add = None if total is None else _origin(view, total.input[0], "Add")
    x = minus.input[0]
    if total is None or mean is None or add is None or mean.input[0] != x:
        return None
    p = reader.piece(x)
    column = (*reader.shape(x)[:-1], UNIT)
    if not reader.shape(root) == reader.shape(minus.input[1]) == column or p.mask:
        return None
    last = [len(p.axes) - 1]
    over = [reader.reduced(n, len(p.axes)) for n in (total, mean)]
    if over != [last, last] or set(feature_shape(p.axes)[:-1]) - {1}:
        return None
    for square, number in (tuple(add.input), tuple(add.input)[::-1]):
        epsilon = view.constants.get(number)
        if (
            epsilon is not None
            and epsilon.size == 1
            and _squares(view, square, centered)
        ):
            value = float(epsilon.reshape(-1)[0])
            return Piece(p.axes, reader.algebra.row_sigmoid(p.on, value))
    return None


def _origin(view: View, name: str, kind: str) -> NodeProto | None:
    """Find the node of a kind that makes a value, up to axes of size 1."""
    node = view.producer.get(name)
    while node is not None and node.op_type in ("Unsqueeze", "Identity"):
        node = view.producer.get(node.input[0])
    return node if node is not None and node.op_type == kind else None


def _squares(view: View, name: str, of: str) -> bool:
    node = view.producer.get(name)
    if node is None:
        return False
    if node.op_type == "Mul":
        return list(node.input) == [of, of]
    if node.op_type != "Pow" or node.input[0] != of:
        return False
    power = view.constants.get(node.input[1])
    return power is not None and (power == 2).all()


def _relu(reader: Reader, node: NodeProto, _: str) -> Value:
    return reader.piece(node.input[0]).map(reader.algebra.relu)


def _leaky(reader: Reader, node: NodeProto, _: str) -> Value:
    slope = Piece((), Form.constant([attribute(node, "alpha", 0.01)]))
    return _sloped(reader, reader.piece(node.input[0]), slope)


def _prelu(reader: Reader, node: NodeProto, _: str) -> Value:
    p, slope = map(reader.piece, node.input)
    return _sloped(reader, p, slope)


def _sloped(reader: Reader, p: Piece, slope: Piece) -> Piece:
    """Slope * x + (1 - slope) * relu(x)."""
    if not slope.on.is_constant() or slope.mask:
        raise Unsupported("a PReLU whose slope is computed: make it a parameter")
    algebra = reader.algebra
    rest = slope.map(lambda form: Form.constant(1.0 - form.numbers()))
    p = p.map(algebra.lift)
    gate = reader.both(p.map(algebra.relu), rest, algebra.product)
    return reader.both(reader.both(p, slope, algebra.product), gate, Form.plus)


def _extreme(reader: Reader, node: NodeProto, _: str) -> Value:
    """Max(a, b) = b + relu(a - b); Min(a, b) = a - relu(a - b)."""
    out = reader.piece(node.input[0])
    for other in node.input[1:]:
        b = reader.piece(other)
        over = reader.both(out, b, Form.minus)
        over = over.map(reader.algebra.relu)
        if node.op_type == "Max":
            out = reader.both(b, over, Form.plus)
        else:
            out = reader.both(out, over, Form.minus)
    return out


def _clip(reader: Reader, node: NodeProto, name: str) -> Value:
    bounds = [reader.view.constants.get(i) for i in node.input[1:]] + [None, None]
    low, high = bounds[:2]
    if len(node.input) > 2 and node.input[2] and high is None:
        raise Unsupported(CLAMP)
    if low is None or (low != 0).any() or (high is not None and high < 1e30):
        raise Unsupported(CLAMP)
    return _relu(reader, node, name)


def _abs(reader: Reader, node: NodeProto, _: str) -> Value:
    p = reader.piece(node.input[0]).map(reader.algebra.lift)
    return p.map(lambda form: reader.algebra.relu(form).scale(2.0).minus(form))


# ------------------------------------------------------------------------------ choices


def _compare(reader: Reader, node: NodeProto, name: str) -> Value:
    """Read a comparison of features, or a mask made from ids and lengths."""
    a, b = map(reader.piece, node.input)
    if node.op_type in ("Less", "LessOrEqual"):
        a, b = b, a
    over = reader.both(a, b, Form.minus)
    if over.off is not None and over.on.is_constant() and over.off.is_constant():
        strict = node.op_type in ("Less", "Greater")
        on, off = (
            (f.numbers() > 0 if strict else f.numbers() >= 0)
            for f in (over.on, over.off)
        )
        return _of_mask(over, bool(on.all()), bool(off.all()), on, off)
    if over.mask or not over.on.is_linear():
        raise Unsupported(COMPARED)
    return Condition(over.axes, name, difference=over.on)


def _of_mask(p: Piece, on: bool, off: bool, *each: NDArray[np.bool_]) -> Condition:
    """Take a comparison of a mask's values: the mask itself, or its opposite."""
    if on == off or not p.mask or any(len(set(values.tolist())) > 1 for values in each):
        raise Unsupported(COMPARED)
    return Condition(p.axes, p.mask if on else negation(p.mask))


def _equal(reader: Reader, node: NodeProto, name: str) -> Value:
    """Read `mask == 1`, or `mask == 0`."""
    del name
    a, b = map(reader.piece, node.input)
    over = reader.both(a, b, Form.minus)
    if over.off is None or not (over.on.is_constant() and over.off.is_constant()):
        raise Unsupported(COMPARED)
    on, off = (f.numbers() == 0 for f in (over.on, over.off))
    return _of_mask(over, bool(on.all()), bool(off.all()), on, off)


def _not(reader: Reader, node: NodeProto, _: str) -> Value:
    found = reader.value(node.input[0])
    if not isinstance(found, Condition) or found.never or found.empty_of is not None:
        raise Unsupported("`~` of what is no mask: compare first, as in mask == 0")
    difference = None
    if found.difference is not None:  # at 0 both sides of a ReLU agree
        difference = found.difference.scale(-1.0)
    return replace(found, mask=negation(found.mask), difference=difference)


def _is_nan(reader: Reader, node: NodeProto, name: str) -> Value:
    p = reader.piece(node.input[0])
    softs = _softs(p)
    if len(softs) != 1 or reader.softs[softs[0]].empty != "nan":
        raise Unsupported("a test for NaN of something else than a softmax")
    return Condition(p.axes, name, empty_of=softs[0])


def _softs(p: Piece) -> list[int]:
    """List the softmaxes of which a piece is the weights."""
    return [a[1] for a in p.on.terms if a[0] == "soft"]


def _is_inf(reader: Reader, node: NodeProto, name: str) -> Value:
    """Weights of a softmax are no infinity."""
    p = reader.piece(node.input[0])
    if not p.on.terms or p.on.kinds() != {"soft"}:
        raise Unsupported("a test for infinity of something else than a softmax")
    return Condition(p.axes, name, never=True)


def _and(reader: Reader, node: NodeProto, name: str) -> Value:
    del name
    for given in node.input:
        try:
            found = reader.value(given)
        except Unsupported:
            continue
        if isinstance(found, Condition) and found.never:
            return found
    raise Unsupported(TWO_MASKS)


def _where(reader: Reader, node: NodeProto, _: str) -> Value:
    condition = reader.value(node.input[0])
    if isinstance(condition, Condition) and condition.never:
        return reader.value(node.input[2])
    a, b = reader.piece(node.input[1]), reader.piece(node.input[2])
    if not isinstance(condition, Condition):
        raise Unsupported("a torch.where whose condition is no mask")
    if condition.empty_of is not None:
        return _without_nan(condition, a, b)
    if condition.difference is not None:
        try:
            return reader.both(a, b, _chooser(reader, condition.difference))
        except Unsupported:
            pass  # features may be a mask, too
    if not any("T" in axis for axis in condition.axes):
        kept = _without_empty(reader, node.input[0], a, b)
        if kept is not None:
            return kept
    condition = as_mask(condition)
    axes, a, b = reader.aligned(a, b)
    axes, rows, again = broadcast(axes, condition.axes)
    if again.any():
        raise Unsupported("a mask of each feature: give one for each position")
    on, off = a.branch(condition.mask)[0], b.branch(condition.mask)[1]
    return Piece(axes, on.take(rows), off.take(rows), condition.mask)


def _chooser(reader: Reader, difference: Form) -> Callable[[Form, Form], Form]:
    """Where d > 0, x, else y: y + (x - y)[d > 0], and z[z > 0] is relu(z)."""

    def choose(x: Form, y: Form) -> Form:
        over = x.minus(y)
        if not over.is_linear() or difference.size != over.size:
            raise Unsupported(CHOSEN)
        signs = reader.algebra.ratios(over, difference)
        return y.plus(reader.algebra.relu(difference).scale(signs))

    return choose


def _without_nan(condition: Condition, a: Piece, b: Piece) -> Piece:
    """Where(IsNaN(w), 0, w): an empty history has no weights."""
    number = condition.empty_of
    if not a.on.is_zero() or a.mask or ("soft", number, 0) not in b.on.terms:
        raise Unsupported("NaN replaced by something else than 0")
    return replace(b, off=Form(b.on.size))


def _without_empty(reader: Reader, name: str, a: Piece, b: Piece) -> Piece | None:
    """Where(mask.any(1), w, 0), for weights w under that mask: 0 where it is empty."""
    mask, holds = _any_of(reader, name)
    kept, other = (a, b) if holds else (b, a)
    if not mask or other.mask or not other.on.is_zero() or kept.off is None:
        return None
    fades = kept.off.kinds() in (set(), {"softoff"}, {"softnan"})
    return (
        replace(kept, off=Form(kept.on.size)) if fades and kept.mask == mask else None
    )


def _any_of(reader: Reader, name: str) -> tuple[str, bool]:
    """Find the mask of which a condition says whether it holds anywhere, or nowhere."""
    view, holds = reader.view, True
    node = view.producer.get(name)
    while node is not None and node.op_type in (*SAME, "Not"):
        holds ^= node.op_type == "Not"
        node = view.producer.get(node.input[0])
    if node is not None and node.op_type in ("Greater", "Equal"):
        number = view.constants.get(node.input[1])
        if number is None or (number != 0).any():
            return "", holds
        holds ^= node.op_type == "Equal"
        node = view.producer.get(node.input[0])
        while node is not None and node.op_type in SAME:
            node = view.producer.get(node.input[0])
        if node is None or node.op_type != "ReduceSum":
            return "", holds
    if node is None or node.op_type not in ("ReduceSum", "ReduceMax", "ReduceMin"):
        return "", holds
    try:
        p = reader.value(node.input[0])
        over = reader.reduced(node, len(p.axes))
    except Unsupported:
        return "", holds
    if [p.axes[axis] for axis in over] != [("T",)] or not isinstance(p, Piece):
        return "", holds
    if not p.mask or p.off is None or not p.on.is_constant() or not p.off.is_constant():
        return "", holds
    values = (float(p.on.numbers()[0]), float(p.off.numbers()[0]))
    if p.on.size != 1 or values not in ((1.0, 0.0), (0.0, 1.0)):
        return "", holds
    mask = p.mask if values == (1.0, 0.0) else negation(p.mask)
    if node.op_type == "ReduceMin":  # all of it: nowhere is its opposite
        return negation(mask), not holds
    return mask, holds


# ------------------------------------------------------------------------------ softmax


def _softmax(reader: Reader, node: NodeProto, _: str) -> Value:
    p = reader.piece(node.input[0])
    axis = attribute(node, "axis", -1) % len(p.axes)
    if p.axes[axis] != ("T",) or not p.is_scalar:
        raise Unsupported(
            "a softmax over another axis than the positions of the history"
        )
    p = p.alive() if p.mask else _additive_mask(reader, p)
    number = len(reader.softs)
    on = Form.of([("soft", number, 0)])
    if not p.mask or p.off is None:
        reader.softs.append(Soft(p.on, "", "none"))
        return Piece(p.axes, on)
    empty = _empty(p.on, p.off)
    reader.softs.append(Soft(p.on, p.mask, empty))
    kind = "softnan" if empty == "nan" else "softoff"
    return Piece(p.axes, on, Form.of([(kind, number, 0)]), p.mask)


def _additive_mask(reader: Reader, p: Piece) -> Piece:
    """Score + a large number times a float mask."""
    for atom, column in p.on.terms.items():
        if atom[0] == "k" and abs(column[0]) >= -LOWEST_FILL:
            leaf = reader.leaves[atom[1]]
            if leaf.is_number and reader.view.is_binary(leaf.value):
                return reader.over_mask(p, atom, leaf.value)
    return p


def _empty(on: Form, off: Form) -> str:
    """Return the kind of weights that softmax gives a history that is all masked."""
    added = not off.is_constant()
    by = off.minus(on) if added else off
    if not by.is_constant():
        raise Unsupported("masked scores that vary: fill them with one number")
    fill = float(by.numbers()[0])
    if not fill <= LOWEST_FILL:
        raise Unsupported(LOW.format(fill))
    if fill == -np.inf:
        return "nan"
    return "unknown" if added else "uniform"


CHOICE: dict[str, Handler] = {
    "Abs": _abs,
    "And": _and,
    "Clip": _clip,
    "Equal": _equal,
    "Greater": _compare,
    "GreaterOrEqual": _compare,
    "IsInf": _is_inf,
    "IsNaN": _is_nan,
    "LeakyRelu": _leaky,
    "Less": _compare,
    "LessOrEqual": _compare,
    "Max": _extreme,
    "Min": _extreme,
    "Not": _not,
    "PRelu": _prelu,
    "Relu": _relu,
    "Sigmoid": _sigmoid,
    "Softmax": _softmax,
    "Where": _where,
}
