"""Sums, products, matrices and convolutions over features."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from onnx import NodeProto

from din_converter.fusing.algebra import Form, Unsupported
from din_converter.fusing.layout import broadcast, features, permuted, varies
from din_converter.fusing.reader import NO_MASK, Handler, Reader
from din_converter.fusing.values import Piece, Value, Weighted
from din_converter.fusing.view import attribute

__all__ = ["LINEAR"]

OVER_POSITIONS = (
    "a sum over positions inside the weights, as of weights / weights.sum(1)"
)
QUOTIENT = (
    "a division by a computed number: weights divided by one for each candidate that is"
    " kept above 0, as length.clamp(min=1), are fused"
)
TWO_COMPUTED = (
    "a product of two computed matrices, as heads have it: a dot product of a candidate"
    " and each behavior is fused"
)


def _combined(f: Callable[[Form, Form], Form]) -> Handler:
    """Make a handler of an operator that combines its inputs, one after the other."""

    def handler(reader: Reader, node: NodeProto, _: str) -> Value:
        def combined(x: Form, y: Form) -> Form:
            return f(reader.algebra.beside(x, y), reader.algebra.beside(y, x))

        out = reader.piece(node.input[0])
        for other in node.input[1:]:
            out = reader.both(out, reader.piece(other), combined)
        return out

    return handler


def _neg(reader: Reader, node: NodeProto, _: str) -> Value:
    return reader.piece(node.input[0]).map(lambda form: form.scale(-1.0))


def _mul(reader: Reader, node: NodeProto, _: str) -> Value:
    a, b = map(reader.value, node.input)
    if isinstance(a, Weighted) or isinstance(b, Weighted):
        return _scale_weighted(reader, a, b)
    return reader.times(reader.piece(node.input[0]), reader.piece(node.input[1]))


def _pow(reader: Reader, node: NodeProto, _: str) -> Value:
    if (reader.number(node.input[1]) != 2).any():
        raise Unsupported("a power")
    p = reader.piece(node.input[0])
    return reader.both(p, p, reader.algebra.product)


def _scale_weighted(reader: Reader, a: Value, b: Value) -> Value:
    weighted, other = (a, b) if isinstance(a, Weighted) else (b, a)
    if isinstance(weighted, Weighted) and isinstance(other, Piece):
        axes, _, _ = broadcast(weighted.axes, other.axes)
        if axes == weighted.axes and other.is_scalar:
            weight = reader.times(weighted.weight, replace(other, axes=()))
            if isinstance(weight, Piece):
                weight = replace(weight, axes=weighted.weight.axes)
                return replace(weighted, weight=weight)
    raise Unsupported(NO_MASK)


def _div(reader: Reader, node: NodeProto, _: str) -> Value:
    a, b = map(reader.value, node.input)
    constant = isinstance(b, Piece) and b.on.is_constant() and not b.mask
    if not constant or not isinstance(b, Piece) or (b.on.numbers() == 0).any():
        raise Unsupported(QUOTIENT)
    inverse = replace(b, on=Form.constant(1.0 / b.on.numbers()))
    if isinstance(a, Weighted):
        return _scale_weighted(reader, a, inverse)
    return reader.times(reader.piece(node.input[0]), inverse)


def _matmul(reader: Reader, node: NodeProto, _: str) -> Value:
    left, right = node.input
    weight = reader.view.constants.get(right)
    if weight is not None and weight.ndim == 2:
        return reader.matrix(reader.piece(left), weight, -1)
    weight = reader.view.constants.get(left)
    if weight is not None and weight.ndim == 2:
        return reader.matrix(reader.piece(right), weight.T, -2)
    return _dot(reader, reader.piece(left), reader.piece(right))


def _dot(reader: Reader, a: Piece, b: Piece) -> Value:
    """[N, 1, F] x [N, F, T], or [N, T, F] x [N, F, 1]: a product of q and k."""
    if len(a.axes) != 3 or len(b.axes) != 3 or a.axes[2] != b.axes[1]:
        raise Unsupported(TWO_COMPUTED)
    if varies(a.axes[2]):
        raise Unsupported(OVER_POSITIONS)
    if features(a.axes[1]) != 1 or features(b.axes[2]) != 1:
        raise Unsupported(TWO_COMPUTED)
    both = reader.both(
        replace(a, axes=(a.axes[0], a.axes[1], (), a.axes[2])),
        replace(b, axes=(b.axes[0], (), b.axes[2], b.axes[1])),
        reader.algebra.product,
    )
    return reader.total(both, 3)


def _gemm(reader: Reader, node: NodeProto, _: str) -> Value:
    weight = reader.view.constants.get(node.input[1])
    if weight is None or attribute(node, "transA", 0):
        raise Unsupported(TWO_COMPUTED)
    weight = weight.astype(np.float64) * attribute(node, "alpha", 1.0)
    weight = weight.T if attribute(node, "transB", 0) else weight
    out = reader.matrix(reader.piece(node.input[0]), weight, -1)
    if len(node.input) > 2 and node.input[2]:
        beta = attribute(node, "beta", 1.0)
        bias = reader.piece(node.input[2]).map(lambda form: form.scale(beta))
        out = reader.both(out, bias, Form.plus)
    return out


def _conv(reader: Reader, node: NodeProto, _: str) -> Value:
    """Read a convolution over one position, [N, C, T]: a matrix for axis 1."""
    weight = reader.view.constants.get(node.input[1])
    plain = attribute(node, "group", 1) == 1
    plain &= attribute(node, "auto_pad", b"NOTSET") == b"NOTSET"
    plain &= not any(attribute(node, "pads") or [])
    plain &= set(attribute(node, "strides") or [1]) == {1}
    if weight is None or not plain or set(weight.shape[2:]) - {1}:
        raise Unsupported(
            "a convolution over several positions or features: of one, nn.Linear is it"
        )
    matrix = weight.reshape(weight.shape[:2]).T
    out = reader.matrix(reader.piece(node.input[0]), matrix, 1)
    if len(node.input) > 2 and node.input[2]:
        shape = [1, -1] + [1] * (weight.ndim - 2)
        bias = reader.constant(reader.number(node.input[2]).reshape(shape))
        out = reader.both(out, bias, Form.plus)
    return out


def _batch_norm(reader: Reader, node: NodeProto, _: str) -> Value:
    p = reader.piece(node.input[0])
    values = [reader.view.constants.get(i) for i in node.input[1:5]]
    if attribute(node, "training_mode", 0) or any(v is None for v in values):
        raise Unsupported("batch normalization by the batch's own statistics")
    weight, bias, mean, var = (np.asarray(v, np.float64) for v in values)
    scale = weight / np.sqrt(var + attribute(node, "epsilon", 1e-5))
    shift = bias - mean * scale
    shape = [1] * len(p.axes)
    shape[1] = len(scale)
    scaled = reader.both(
        p, reader.constant(scale.reshape(shape)), reader.algebra.product
    )
    return reader.both(scaled, reader.constant(shift.reshape(shape)), Form.plus)


def _einsum(reader: Reader, node: NodeProto, _: str) -> Value:
    """Multiply over all letters, then sum over those that the output lacks."""
    equation = attribute(node, "equation", b"").decode().replace(" ", "")
    terms, arrow, out = equation.partition("->")
    pieces = [reader.piece(i) for i in node.input]
    if len(pieces) != 2 or not arrow:
        raise Unsupported("an einsum that is not of two operands, each letter once")
    letters = [
        _letters(term, len(p.axes))
        for term, p in zip(terms.split(","), pieces, strict=True)
    ]
    dots = max(([c for c in x if c[0] == "-"] for x in letters), key=len)
    kept = [*dots, *out.replace("...", "")]
    order = kept + sorted({c for names in letters for c in names} - set(kept))
    spread = []
    for p, names in zip(pieces, letters, strict=True):
        if len(set(names)) != len(names):
            raise Unsupported("an einsum that is not of two operands, each letter once")
        p = p if p.on.is_constant() else p.map(reader.algebra.lift)
        axes, rows = permuted(p.axes, [names.index(c) for c in order if c in names])
        left = iter(axes)
        axes = tuple(next(left) if c in names else () for c in order)
        spread.append(p.take(rows, axes))
    made = reader.both(spread[0], spread[1], reader.algebra.product)
    for axis in range(len(order) - 1, len(kept) - 1, -1):
        made = reader.total(made, axis)
    return made


def _letters(term: str, rank: int) -> list[str]:
    """Name the axes of one Einsum operand; an ellipsis' have numbers below 0."""
    before, dots, after = term.partition("...")
    free = rank - len(before) - len(after) if dots else 0
    return [*before, *(str(i - free) for i in range(free)), *after]


def _reduce(reader: Reader, node: NodeProto, _: str) -> Value:
    """ReduceSum and ReduceMean over features."""
    p = reader.piece(node.input[0])
    for axis in reader.reduced(node, len(p.axes))[::-1]:
        if varies(p.axes[axis]):
            raise Unsupported(OVER_POSITIONS)
        count = features(p.axes[axis])
        p = reader.total(p, axis, 1.0 / count if node.op_type == "ReduceMean" else 1.0)
        if attribute(node, "keepdims", 1):
            p = replace(p, axes=(*p.axes[:axis], (), *p.axes[axis:]))
    return p


LINEAR: dict[str, Handler] = {
    "Add": _combined(Form.plus),
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
    "Div": _div,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Mul": _mul,
    "Neg": _neg,
    "Pow": _pow,
    "ReduceMean": _reduce,
    "ReduceSum": _reduce,
    "Sub": _combined(Form.minus),
    "Sum": _combined(Form.plus),
}
