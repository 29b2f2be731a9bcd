"""Operators that move features, or take some of them."""

from dataclasses import replace

import numpy as np
from onnx import NodeProto, TensorProto

from din_converter.fusing.algebra import Form, Unsupported, stack
from din_converter.fusing.layout import (
    AXES,
    UNIT,
    Axes,
    Part,
    Rows,
    axis_of,
    features,
    numbered,
    permuted,
    varies,
)
from din_converter.fusing.reader import Handler, Reader
from din_converter.fusing.values import Condition, Piece, Value, Weighted, common_mask
from din_converter.fusing.view import attribute

__all__ = ["LAYOUT", "as_mask"]

WIDTHS: dict[int, int] = {
    TensorProto.FLOAT16: 1,
    TensorProto.FLOAT: 2,
    TensorProto.DOUBLE: 3,
}


def _moved(found: Value, axes: Axes, rows: Rows) -> Value:
    """Change the layout of a value; `rows` are the numbers of its rows in new order."""
    if isinstance(found, Piece):
        return found.take(rows, axes)
    if isinstance(found, Weighted) and (rows != np.arange(len(rows))).any():
        raise Unsupported(
            "weighted behaviors whose features are reordered before the sum"
        )
    return replace(found, axes=axes)


def _transpose(reader: Reader, node: NodeProto, _: str) -> Value:
    found = reader.value(node.input[0])
    order = attribute(node, "perm") or range(len(found.axes))[::-1]
    return _moved(found, *permuted(found.axes, order))


def _reshape(reader: Reader, node: NodeProto, name: str) -> Value:
    found = reader.value(node.input[0])
    return replace(found, axes=reader.sizes.reshape(found.axes, reader.shape(name)))


def _expand(reader: Reader, node: NodeProto, name: str) -> Value:
    """Expand and Tile: an axis may grow to T, or repeat features."""
    found = reader.value(node.input[0])
    shape, before = reader.shape(name), reader.shape(node.input[0])
    before = (UNIT,) * (len(shape) - len(before)) + before
    axes: list[tuple[Part, ...]] = []
    old = ((),) * (len(shape) - len(found.axes)) + found.axes
    index = numbered(old)
    for i, (size, was, axis) in enumerate(zip(shape, before, old, strict=True)):
        times = size.over(was)
        if times is None:
            raise Unsupported("an expand or repeat that is not by a whole number")
        if times == UNIT:
            axes.append(axis)
        elif times == reader.sizes.t:
            axes.append(("T", *axis))
        elif times == reader.sizes.n:
            axes.append(("N", *axis))
        elif times == reader.sizes.c:
            axes.append(("C", *axis))
        elif not times.symbols:
            axes.append((times.number, *axis))
            repeats = [1] * index.ndim
            repeats[i] = times.number
            index = np.tile(index, repeats)
        else:
            raise Unsupported(
                "an expand along an axis that is neither batch nor positions"
            )
    return _moved(found, tuple(axes), index.reshape(-1))


def _same(reader: Reader, node: NodeProto, _: str) -> Value:
    return reader.value(node.input[0])


def _dropout(reader: Reader, node: NodeProto, _: str) -> Value:
    training = node.input[2] if len(node.input) > 2 else ""
    if training and reader.number(training).any():
        raise Unsupported(
            "dropout that is on in evaluation: give F.dropout training=self.training"
        )
    return reader.value(node.input[0])


def _cast(reader: Reader, node: NodeProto, name: str) -> Value:
    found = reader.value(node.input[0])
    before, after = (reader.view.types.get(n, 0) for n in (node.input[0], name))
    if isinstance(found, Condition):
        if after == TensorProto.BOOL:
            return found
        found = as_mask(found)
        one, zero = Form.constant([1.0]), Form.constant([0.0])
        return Piece(found.axes, one, zero, found.mask)
    if after == TensorProto.BOOL and isinstance(found, Piece) and found.off is not None:
        both = found.on.is_constant() and found.off.is_constant()
        on, off = found.on.numbers() != 0, found.off.numbers() != 0
        if both and on.all() and not off.any():
            return Condition(found.axes, found.mask)
    floats = reader.view.is_float(name) and reader.view.is_float(node.input[0])
    is_mask = isinstance(found, Piece) and found.mask and found.on.is_constant()
    if after == TensorProto.BOOL or not (floats or is_mask):
        raise Unsupported("features cast to integers")
    if floats and WIDTHS[after] < WIDTHS[before]:
        raise Unsupported(
            "a cast to half precision, which rounds: leave the unit in float32"
        )
    return found


def as_mask(found: Condition) -> Condition:
    """Take a condition as a mask of positions; Unsupported where it is none."""
    if (
        found.never
        or found.empty_of is not None
        or any(features(a) != 1 for a in found.axes)
    ):
        raise Unsupported("a mask per feature")
    if not any("T" in axis for axis in found.axes):
        raise Unsupported("a condition for each candidate instead of each position")
    return found


# -------------------------------------------------------------------- parts, and whole


def _select(reader: Reader, found: Value, axis: int, chosen: Rows, keep: bool) -> Value:
    """Take features along one axis, which has nothing but features."""
    if not isinstance(found, Piece):
        raise Unsupported("a part of the weighted behaviors: take it after the sum")
    axis %= len(found.axes)
    if varies(found.axes[axis]):
        raise Unsupported(
            "a slice of candidates or positions after they meet: cut the inputs"
        )
    rows = np.take(numbered(found.axes), chosen, axis=axis).reshape(-1)
    middle: Axes = (axis_of(len(chosen)),) if keep else ()
    axes = found.axes[:axis] + middle + found.axes[axis + 1 :]
    out = found.take(rows, axes)
    whole = {a[1] for a in out.on.terms if a[0] in ("q", "k")}
    plain = out.on.kinds() <= {"q", "k"} and not out.mask and whole
    if plain and not any(reader.leaves[n].table for n in whole):
        raise Unsupported("a part of a leaf, which is a leaf itself", mixed=False)
    return out


def _gather(reader: Reader, node: NodeProto, name: str) -> Value:
    data, ids = node.input
    axis = attribute(node, "axis", 0)
    table = reader.view.constants.get(data)
    if table is not None and table.ndim == 2 and axis == 0:
        if not reader.view.is_float(data):
            raise Unsupported("a lookup of integers", mixed=False)
        axes = (*reader.sizes.leaf(reader.shape(ids)), (table.shape[1],))
        return reader.leaf(name, axes, data, ids)
    chosen = reader.view.constants.get(ids)
    if chosen is None or chosen.ndim > 1:
        raise Unsupported("values picked by computed indices (gather)")
    found, keep = reader.value(data), chosen.ndim == 1
    return _select(reader, found, axis, chosen.reshape(-1), keep)


def _slice(reader: Reader, node: NodeProto, _: str) -> Value:
    found = reader.value(node.input[0])
    given = [reader.view.numbers(i) if i else None for i in node.input[1:]]
    starts, ends, over, steps = given + [None] * (4 - len(given))
    if starts is None or ends is None:
        raise Unsupported("a slice between computed places")
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis = over[i] if over else i
        step = steps[i] if steps else 1
        if start == 0 and end >= 2**31 - 1 and step == 1:
            continue
        size = features(found.axes[axis % len(found.axes)])
        chosen = np.arange(size)[start:end:step]
        found = _select(reader, found, axis, chosen, True)
    return found


def _split(reader: Reader, node: NodeProto, name: str) -> Value:
    found = reader.value(node.input[0])
    axis = attribute(node, "axis", 0) % len(found.axes)
    size = features(found.axes[axis])
    at = list(node.output).index(name)
    counts = reader.view.numbers(node.input[1]) if len(node.input) > 1 else None
    if counts is None:
        each = -(-size // len(node.output))
        counts = [min(each, size - i * each) for i in range(len(node.output))]
    start = sum(counts[:at])
    return _select(reader, found, axis, np.arange(start, start + counts[at]), True)


def _concat(reader: Reader, node: NodeProto, _: str) -> Value:
    pieces = [reader.piece(i) for i in node.input]
    axis = attribute(node, "axis") % max(len(p.axes) for p in pieces)
    mask = common_mask(*pieces)
    total, index, axes = 0, [], list(pieces[0].axes)
    for p in pieces:
        if varies(p.axes[axis]):
            raise Unsupported(
                "a concatenation along candidates or positions after they meet"
            )
        axes[axis] = p.axes[axis]
        if list(p.axes) != axes:
            raise Unsupported(AXES)
        index.append(total + numbered(p.axes))
        total += p.on.size
    rows = np.concatenate(index, axis=axis)
    axes[axis] = axis_of(rows.shape[axis])
    both = [p.branch(mask) for p in pieces]
    on = stack([b[0] for b in both]).take(rows.reshape(-1))
    off = stack([b[1] for b in both]).take(rows.reshape(-1)) if mask else None
    return Piece(tuple(axes), on, off, mask)


LAYOUT: dict[str, Handler] = {
    "Cast": _cast,
    "Concat": _concat,
    "Dropout": _dropout,
    "Expand": _expand,
    "Flatten": _reshape,
    "Gather": _gather,
    "Identity": _same,
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _reshape,
    "Tile": _expand,
    "Transpose": _transpose,
    "Unsqueeze": _reshape,
}
