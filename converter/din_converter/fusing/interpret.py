"""What each value of a graph is, as a function of one (candidate, behavior) pair.

`Interpreter.value` reads a value backward to where its pair's features come from: rows
of a table, or any tensor laid out [N, ..] or [N, T, ..], the *leaves*. On the way every
operator is either read exactly, or the value before it becomes a leaf, or, if that
depends on candidate and behavior both, `Unsupported` says why the block is left alone.

One file above 400 lines: an operator each, all over the same three kinds of value.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from din_converter.fusing.algebra import ONE, Algebra, Form, Unsupported, stack
from din_converter.fusing.layout import (
    Axes,
    Size,
    Sizes,
    broadcast,
    feature_shape,
    features,
)
from din_converter.fusing.view import View, attribute

__all__ = ["Condition", "Interpreter", "Leaf", "Piece", "Soft", "Weighted"]

# A masked score this low has weight exactly 0 in float32 beside any score above
# 120 - 1e9: that no real score is lower is the one thing that is taken for granted.
LOWEST_FILL = -1e9
LARGE = 1e4
WIDTHS: dict[int, int] = {
    TensorProto.FLOAT16: 1,
    TensorProto.FLOAT: 2,
    TensorProto.DOUBLE: 3,
}
CUTS = ("Gather", "Slice", "Split")


@dataclass(frozen=True)
class Leaf:
    """Where features come from: rows of `table` at `ids`, or a value as it is."""

    number: int
    value: str
    axes: Axes
    size: int
    table: str = ""
    ids: str = ""

    @property
    def has_positions(self) -> bool:
        """Whether it is a behavior's (it has T), or a candidate's."""
        return any("T" in axis for axis in self.axes)


def negation(mask: str) -> str:
    """Name the opposite of a mask."""
    return mask.removeprefix("~") if mask.startswith("~") else "~" + mask


def common_mask(*pieces: "Piece") -> str:
    """Name the one mask of some pieces, or "" where none has one."""
    masks = {p.mask.removeprefix("~"): p.mask for p in pieces if p.mask}
    if len(masks) > 1:
        raise Unsupported("two different masks")
    return next(iter(masks.values()), "")


@dataclass(frozen=True)
class Piece:
    """Floats: `on` where `mask` holds, `off` where it does not; `on` without a mask.

    A mask is a value's name, or that of its negation with "~" in front.
    """

    axes: Axes
    on: Form
    off: Form | None = None
    mask: str = ""

    def branch(self, mask: str) -> tuple[Form, Form]:
        """Return (on, off) under a mask."""
        if self.mask in ("", mask):
            return self.on, self.on if self.off is None else self.off
        if self.mask == negation(mask) and self.off is not None:
            return self.off, self.on
        raise Unsupported("two different masks")

    def map(self, f: Callable[[Form], Form], axes: Axes | None = None) -> "Piece":
        """Apply a function of forms to both branches."""
        off = None if self.off is None else f(self.off)
        return Piece(self.axes if axes is None else axes, f(self.on), off, self.mask)

    def alive(self) -> "Piece":
        """Turn the mask around if only its negation leaves something."""
        if self.off is None or not self.on.is_constant() or self.off.is_constant():
            return self
        return Piece(self.axes, self.off, self.on, negation(self.mask))

    @property
    def is_scalar(self) -> bool:
        """Whether there is one value per pair."""
        return self.on.size == 1


@dataclass(frozen=True)
class Condition:
    """Booleans per pair: where `mask` holds.

    `difference` is set where it was made by comparing features: it holds where that is
    above 0.
    """

    axes: Axes
    mask: str
    difference: Form | None = None
    empty_of: int | None = None  # holds where softmax number .. is NaN


@dataclass(frozen=True)
class Weighted:
    """Weights times behaviors, before the sum over T."""

    axes: Axes
    weight: Piece
    behavior: Piece


@dataclass
class Soft:
    """A softmax over T: of `score`, where `mask` holds.

    `empty` says what is left when no position is: "uniform", "nan", "none" (there is no
    mask) or "unknown".
    """

    score: Form
    mask: str
    empty: str


Value = Piece | Condition | Weighted


class Interpreter:
    """Reads values of one graph, for one choice of N and T."""

    def __init__(self, view: View, sizes: Sizes, opaque: frozenset[str]) -> None:
        self.view, self.sizes, self.opaque = view, sizes, opaque
        self.algebra = Algebra()
        self.leaves: list[Leaf] = []
        self.softs: list[Soft] = []
        self._known: dict[str, Value | Unsupported] = {}
        self._quotients: dict[str, tuple[str, str]] = {}
        self._cut = self._cut_values()

    # ------------------------------------------------------------------ values, leaves

    def value(self, name: str) -> Value:
        """Read a value; raises Unsupported."""
        if name not in self._known:
            try:
                self._known[name] = self._read(name)
            except Unsupported as error:
                self._known[name] = error
            except RecursionError:
                self._known[name] = Unsupported("a graph too deep to read")
        found = self._known[name]
        if isinstance(found, Unsupported):
            raise found
        return found

    def piece(self, name: str) -> Piece:
        """Read floats."""
        found = self.value(name)
        if not isinstance(found, Piece):
            reason = "a use of weighted behaviors or of a condition as a number"
            raise Unsupported(reason)
        return found

    def _read(self, name: str) -> Value:
        if name in self.view.constants:
            return self._constant(self.view.constants[name])
        node = self.view.producer.get(name)
        if node is None or name in self.opaque:
            return self._leaf(name)
        handler = HANDLERS.get(node.op_type)
        if node.op_type in CUTS and node.input[0] in self._cut:
            return self._leaf(name)
        try:
            if handler is None or node.domain not in ("", "ai.onnx"):
                raise Unsupported(f"the operator {node.op_type}")
            return handler(self, node, name)
        except Unsupported as error:
            if self._mixes(node):
                raise Unsupported(error.reason) from None
            return self._leaf(name)

    def _cut_values(self) -> set[str]:
        """Find values that are cut into T positions and others: the candidate beside.

        What lies above such a cut is neither; its parts are leaves.
        """
        found = set()
        for node in self.view.graph.node:
            if node.op_type not in ("Slice", "Split"):
                continue
            before = self.view.shapes.get(node.input[0], ())
            for name in node.output:
                after = self.view.shapes.get(name, ())
                if len(before) == len(after) > 2 and after[1] == self.sizes.t:
                    found |= {node.input[0]} if before[1] != after[1] else set()
        return found

    def check_leaf(self, leaf: Leaf) -> None:
        """Refuse features computed with a fill: they may be infinite, and not count."""
        if leaf.table:
            return
        for node in self.view.ancestors([leaf.value]):
            for name in (*node.input, *node.output):
                array = self.view.constants.get(name)
                if array is None or array.dtype.kind != "f" or not array.size:
                    continue
                if array.size == 1 and not (np.abs(array) < LARGE).all():
                    reason = f"features computed with a fill of {float(array.min()):g}"
                    raise Unsupported(reason)

    def _mixes(self, node: onnx.NodeProto) -> bool:
        """Whether a node's inputs know of candidate and behavior both."""
        kinds: set[str] = set()
        for name in node.input:
            if not name or name in self.view.constants:
                continue
            try:
                found = self.value(name)
            except Unsupported as error:
                if error.mixed:
                    return True
                continue
            if isinstance(found, Weighted):
                return True
            if isinstance(found, Piece):
                for form in (found.on, found.off):
                    kinds |= form.kinds() if form is not None else set()
        return bool(kinds - {"one", "q", "k"}) or kinds >= {"q", "k"}

    def _constant(self, array: NDArray[Any]) -> Piece:
        if array.dtype.kind not in "fiub" or array.size > 1 << 24:
            raise Unsupported("a constant that is not numbers", mixed=False)
        axes = tuple(((n,) if n != 1 else ()) for n in array.shape)
        return Piece(axes, Form.constant(array.astype(np.float64)))

    def _shape(self, name: str) -> tuple[Any, ...]:
        shape = self.view.shapes.get(name)
        if shape is None:
            raise Unsupported("a value of unknown shape", mixed=False)
        return shape

    def _leaf(self, name: str) -> Value:
        axes = self.sizes.leaf(self._shape(name))
        if self.view.types.get(name) == TensorProto.BOOL:
            return Condition(axes, name)
        if not self.view.is_float(name):
            raise Unsupported("a tensor that is not floats", mixed=False)
        return self._of_leaf(self._add_leaf(name, axes, "", ""))

    def _add_leaf(self, value: str, axes: Axes, table: str, ids: str) -> Leaf:
        for leaf in self.leaves:
            same = leaf.table == table and leaf.ids == ids if table else False
            if (leaf.value == value or same) and leaf.axes == axes:
                return leaf
        size = int(np.prod(feature_shape(axes), dtype=np.int64))
        leaf = Leaf(len(self.leaves), value, axes, size, table, ids)
        self.leaves.append(leaf)
        return leaf

    @staticmethod
    def _of_leaf(leaf: Leaf) -> Piece:
        kind = "k" if leaf.has_positions else "q"
        atoms = [(kind, leaf.number, j) for j in range(leaf.size)]
        return Piece(leaf.axes, Form.of(atoms))

    # ---------------------------------------------------------------------- reshaping

    def _moved(self, found: Value, axes: Axes, rows: NDArray[np.int64] | None) -> Value:
        """Lay a value out anew; `rows` says which of its rows stands where."""
        if isinstance(found, Weighted):
            if rows is not None and (rows != np.arange(len(rows))).any():
                raise Unsupported("weighted behaviors reordered")
            return replace(found, axes=axes)
        if isinstance(found, Condition):
            return replace(found, axes=axes)
        if rows is None:
            return replace(found, axes=axes)
        return found.map(lambda form: form.take(rows), axes)

    def _reshape(self, node: onnx.NodeProto, name: str) -> Value:
        found = self.value(node.input[0])
        axes = self.sizes.reshape(found.axes, self._shape(name))
        return self._moved(found, axes, None)

    def _expand(self, node: onnx.NodeProto, name: str) -> Value:
        """Expand and Tile: an axis may grow to T, or repeat features."""
        found = self.value(node.input[0])
        shape, before = self._shape(name), self._shape(node.input[0])
        before = (Size(1),) * (len(shape) - len(before)) + before
        axes: list[tuple[str | int, ...]] = []
        old = ((),) * (len(shape) - len(found.axes)) + found.axes
        index = np.arange(int(np.prod(feature_shape(old), dtype=np.int64)))
        index = index.reshape(feature_shape(old))
        for i, (size, was, axis) in enumerate(zip(shape, before, old, strict=True)):
            times = size.over(was)
            if times is None:
                raise Unsupported("an expansion that is not by a whole factor")
            if times.number == 1 and not times.symbols:
                axes.append(axis)
            elif times == self.sizes.t:
                axes.append(("T", *axis))
            elif times == self.sizes.n:
                axes.append(("N", *axis))
            elif not times.symbols:
                axes.append((times.number, *axis))
                repeats = [1] * index.ndim
                repeats[i] = times.number
                index = np.tile(index, repeats)
            else:
                raise Unsupported("an expansion along another axis of varying size")
        return self._moved(found, tuple(axes), index.reshape(-1))

    def _transpose(self, node: onnx.NodeProto, name: str) -> Value:  # noqa: ARG002
        found = self.value(node.input[0])
        order = attribute(node, "perm") or tuple(range(len(found.axes)))[::-1]
        axes, rows = self._order(found.axes, order)
        return self._moved(found, axes, rows)

    @staticmethod
    def _order(axes: Axes, order: Sequence[int]) -> tuple[Axes, NDArray[np.int64]]:
        """Bring axes in another order; returns which row stands where then, too."""
        shape = feature_shape(axes)
        index = np.arange(int(np.prod(shape, dtype=np.int64))).reshape(shape)
        return tuple(axes[i] for i in order), index.transpose(order).reshape(-1)

    def _turned(self, p: Piece, order: Sequence[int]) -> Piece:
        axes, rows = self._order(p.axes, order)
        return p.map(lambda form: form.take(rows), axes)

    def _same(self, node: onnx.NodeProto, name: str) -> Value:  # noqa: ARG002
        return self.value(node.input[0])

    def _dropout(self, node: onnx.NodeProto, name: str) -> Value:  # noqa: ARG002
        training = node.input[2] if len(node.input) > 2 else ""
        if training and self._number(training).any():
            raise Unsupported("dropout in training mode")
        return self.value(node.input[0])

    def _cast(self, node: onnx.NodeProto, name: str) -> Value:
        found = self.value(node.input[0])
        if isinstance(found, Condition):
            if self.view.types.get(name) == TensorProto.BOOL:
                return found
            found = self._as_mask(found)
            one, zero = Form.constant([1.0]), Form.constant([0.0])
            return Piece(found.axes, one, zero, found.mask)
        floats = self.view.is_float(name) and self.view.is_float(node.input[0])
        is_mask = isinstance(found, Piece) and found.mask and found.on.is_constant()
        if self.view.types.get(name) == TensorProto.BOOL or not (floats or is_mask):
            raise Unsupported("a cast of features to integers")
        before, after = (self.view.types.get(n, 0) for n in (node.input[0], name))
        if floats and WIDTHS[after] < WIDTHS[before]:
            raise Unsupported("a cast that rounds")
        return found

    def _as_mask(self, found: Condition) -> Condition:
        """Take a condition as a mask of positions, whatever it was made from."""
        if found.empty_of is not None or any(features(a) != 1 for a in found.axes):
            raise Unsupported("a mask per feature")
        if not any("T" in axis for axis in found.axes):
            raise Unsupported("a mask that is not per position")
        return found

    def _select(
        self, found: Value, axis: int, chosen: NDArray[np.int64], keep: bool
    ) -> Value:
        """Take features along one axis, which has nothing but features."""
        if not isinstance(found, Piece):
            raise Unsupported("a part of weighted behaviors")
        axis %= len(found.axes)
        if any(isinstance(p, str) for p in found.axes[axis]):
            raise Unsupported("a part of the candidates or positions")
        shape = feature_shape(found.axes)
        index = np.arange(int(np.prod(shape, dtype=np.int64))).reshape(shape)
        index = np.take(index, chosen, axis=axis)
        size = len(chosen)
        middle: Axes = (((size,) if size != 1 else ()),) if keep else ()
        axes = found.axes[:axis] + middle + found.axes[axis + 1 :]
        rows = index.reshape(-1)
        out = found.map(lambda form: form.take(rows), axes)
        whole = {a[1] for a in out.on.terms if a[0] in ("q", "k")}
        plain = out.on.kinds() <= {"q", "k"} and not out.mask and whole
        if plain and not any(self.leaves[n].table for n in whole):
            raise Unsupported("a part of a leaf, which is a leaf itself", mixed=False)
        return out

    def _gather(self, node: onnx.NodeProto, name: str) -> Value:
        data, ids = node.input
        axis = attribute(node, "axis", 0)
        table = self.view.constants.get(data)
        if table is not None and table.ndim == 2 and axis == 0:
            if not self.view.is_float(data):
                raise Unsupported("a lookup of integers", mixed=False)
            axes = (*self.sizes.leaf(self._shape(ids)), (table.shape[1],))
            return self._of_leaf(self._add_leaf(name, axes, data, ids))
        chosen = self.view.constants.get(ids)
        if chosen is None or chosen.ndim > 1:
            raise Unsupported("a gather")
        return self._select(
            self.value(data), axis, chosen.reshape(-1), chosen.ndim == 1
        )

    def _slice(self, node: onnx.NodeProto, name: str) -> Value:  # noqa: ARG002
        found = self.value(node.input[0])
        given = [self.view.numbers(i) if i else None for i in node.input[1:]]
        given += [None] * (4 - len(given))
        starts, ends, over, steps = given
        if starts is None or ends is None:
            raise Unsupported("a slice that is not constant")
        for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
            axis = over[i] if over else i
            step = steps[i] if steps else 1
            if start == 0 and end >= 2**31 - 1 and step == 1:
                continue
            size = features(found.axes[axis % len(found.axes)])
            chosen = np.arange(size)[start:end:step]
            found = self._select(found, axis, chosen, True)
        return found

    def _split(self, node: onnx.NodeProto, name: str) -> Value:
        found = self.value(node.input[0])
        axis = attribute(node, "axis", 0) % len(found.axes)
        size = features(found.axes[axis])
        at = list(node.output).index(name)
        counts = self.view.numbers(node.input[1]) if len(node.input) > 1 else None
        if counts is None:
            each = -(-size // len(node.output))
            counts = [min(each, size - i * each) for i in range(len(node.output))]
        start = sum(counts[:at])
        return self._select(found, axis, np.arange(start, start + counts[at]), True)

    def _concat(self, node: onnx.NodeProto, name: str) -> Value:  # noqa: ARG002
        pieces = [self.piece(i) for i in node.input]
        rank = max(len(p.axes) for p in pieces)
        axis = attribute(node, "axis") % rank
        mask = common_mask(*pieces)
        total, index, axes = 0, [], pieces[0].axes
        for p in pieces:
            if any(isinstance(part, str) for part in p.axes[axis]):
                raise Unsupported("a concatenation of candidates or positions")
            if any(
                a != b
                for i, (a, b) in enumerate(zip(p.axes, axes, strict=True))
                if i != axis
            ):
                raise Unsupported("operands laid out differently")
            shape = feature_shape(p.axes)
            index.append(total + np.arange(p.on.size).reshape(shape))
            total += p.on.size
        rows = np.concatenate(index, axis=axis)
        width = rows.shape[axis]
        axes = (*axes[:axis], (width,) if width != 1 else (), *axes[axis + 1 :])
        both = [p.branch(mask) for p in pieces]
        on = stack([b[0] for b in both]).take(rows.reshape(-1))
        off = stack([b[1] for b in both]).take(rows.reshape(-1)) if mask else None
        return Piece(axes, on, off, mask)

    # --------------------------------------------------------------------- arithmetic

    def _aligned(self, a: Piece, b: Piece) -> tuple[Axes, Piece, Piece]:
        axes, rows_a, rows_b = broadcast(a.axes, b.axes)
        return (
            axes,
            a.map(lambda form: form.take(rows_a), axes),
            b.map(lambda form: form.take(rows_b), axes),
        )

    def _both(self, a: Piece, b: Piece, f: Callable[[Form, Form], Form]) -> Piece:
        """Apply a function of two forms in both branches."""
        axes, a, b = self._aligned(a, b)
        a, b = self._to_masks(a, b)
        mask = common_mask(a, b)
        (on_a, off_a), (on_b, off_b) = a.branch(mask), b.branch(mask)
        off = f(off_a, off_b) if mask else None
        return Piece(axes, f(on_a, on_b), off, mask)

    def _to_masks(self, a: Piece, b: Piece) -> tuple[Piece, Piece]:
        """Read a float mask as one, once the other operand shows that it is."""
        if a.mask and not b.mask:
            b = self._as_masked(b, a.mask)
        elif b.mask and not a.mask:
            a = self._as_masked(a, b.mask)
        return a, b

    def _as_masked(self, p: Piece, mask: str) -> Piece:
        """Split a form over the float mask `mask` into what it is at 1 and at 0."""
        if mask.startswith("~"):
            other = self._as_masked(p, negation(mask))
            if other is p or other.off is None:
                return p
            return Piece(p.axes, other.off, other.on, mask)
        leaf = next((x for x in self.leaves if x.value == mask and not x.table), None)
        if leaf is None or ("k", leaf.number, 0) not in p.on.terms or p.mask:
            return p
        if not self.view.may_mask(mask):
            return p
        atom = ("k", leaf.number, 0)
        rest = {a: c for a, c in p.on.terms.items() if a != atom}
        if not Form(p.on.size, rest).is_linear():
            return p
        off = Form(p.on.size, rest)
        on = off.plus(Form(p.on.size, {ONE: p.on.terms[atom]}))
        return Piece(p.axes, on, off, mask)

    def _scalar_leaf(self, p: Piece) -> str:
        """Name the leaf if a piece is a linear form over one scalar leaf with T."""
        atoms = [a for a in p.on.terms if a != ONE]
        if p.mask or len(atoms) != 1 or atoms[0][0] != "k":
            return ""
        leaf = self.leaves[atoms[0][1]]
        narrow = leaf.size == 1 and not leaf.table
        return leaf.value if narrow and self.view.may_mask(leaf.value) else ""

    def _add(self, node: onnx.NodeProto, name: str) -> Value:  # noqa: ARG002
        out = self.piece(node.input[0])
        for other in node.input[1:]:
            out = self._both(out, self.piece(other), lambda x, y: x.plus(y))
        return out

    def _sub(self, node: onnx.NodeProto, name: str) -> Value:  # noqa: ARG002
        a, b = map(self.piece, node.input)
        return self._both(a, b, lambda x, y: x.plus(y, -1.0))

    def _mul(self, node: onnx.NodeProto, name: str) -> Value:  # noqa: ARG002
        a, b = map(self.value, node.input)
        if isinstance(a, Weighted) or isinstance(b, Weighted):
            return self._scale_weighted(a, b)
        return self.times(self.piece(node.input[0]), self.piece(node.input[1]))

    def _scale_weighted(self, a: Value, b: Value) -> Value:
        weighted, other = (a, b) if isinstance(a, Weighted) else (b, a)
        if isinstance(weighted, Weighted) and isinstance(other, Piece):
            axes, _, _ = broadcast(weighted.axes, other.axes)
            if axes == weighted.axes and other.is_scalar:
                weight = self.times(weighted.weight, replace(other, axes=()))
                if isinstance(weight, Piece):
                    weight = replace(weight, axes=weighted.weight.axes)
                    return replace(weighted, weight=weight)
        raise Unsupported("a product with weighted behaviors")

    def times(self, a: Piece, b: Piece) -> Piece | Weighted:
        """Multiply; weights by behaviors are kept apart, since the sum is over them."""
        try:
            return self._both(a, b, self.algebra.product)
        except Unsupported as error:
            for mask_like, other in ((a, b), (b, a)):
                mask = self._scalar_leaf(mask_like)
                if mask and not other.mask:
                    masked = self._as_masked(mask_like, mask)
                    return self._both(masked, other, self.algebra.product)
            a, b = a.alive(), b.alive()
            for weight, behavior in ((a, b), (b, a)):
                pure = behavior.on.kinds() <= {"one", "k"}
                if weight.is_scalar and pure and not weight.on.is_constant():
                    axes, _, _ = broadcast(weight.axes, behavior.axes)
                    return Weighted(axes, weight, behavior)
            raise Unsupported(error.reason) from None

    def _div(self, node: onnx.NodeProto, name: str) -> Value:
        self._quotients[name] = (node.input[0], node.input[1])
        a, b = self.value(node.input[0]), self.value(node.input[1])
        constant = isinstance(b, Piece) and b.on.is_constant() and not b.mask
        if not constant or not isinstance(b, Piece) or (b.on.numbers() == 0).any():
            raise Unsupported("a quotient")
        inverse = replace(b, on=Form.constant(1.0 / b.on.numbers()))
        if isinstance(a, Weighted):
            return self._scale_weighted(a, inverse)
        return self.times(self.piece(node.input[0]), inverse)

    def _neg(self, node: onnx.NodeProto, name: str) -> Value:  # noqa: ARG002
        return self.piece(node.input[0]).map(lambda form: form.scale(-1.0))

    def _matmul(self, node: onnx.NodeProto, name: str) -> Value:  # noqa: ARG002
        left, right = node.input
        weight = self.view.constants.get(right)
        if weight is not None and weight.ndim == 2:
            return self._multiply(self.piece(left), weight.astype(np.float64), -1)
        weight = self.view.constants.get(left)
        if weight is not None and weight.ndim == 2:
            return self._multiply(self.piece(right), weight.T.astype(np.float64), -2)
        return self._dot(self.piece(left), self.piece(right))

    def _dot(self, a: Piece, b: Piece) -> Value:
        """[N, 1, F] x [N, F, T], or [N, T, F] x [N, F, 1]: a product of q and k."""
        if len(a.axes) != 3 or len(b.axes) != 3 or a.axes[2] != b.axes[1]:
            raise Unsupported("a product of two computed matrices")
        if any(isinstance(p, str) for p in a.axes[2]):
            raise Unsupported("a sum over positions")
        if features(a.axes[1]) != 1 or features(b.axes[2]) != 1:
            raise Unsupported("a product of two computed matrices")
        both = self._both(
            replace(a, axes=(a.axes[0], a.axes[1], (), a.axes[2])),
            replace(b, axes=(b.axes[0], (), b.axes[2], b.axes[1])),
            self.algebra.product,
        )
        ones = np.ones((features(a.axes[2]), 1))
        summed = self._multiply(both, ones, 3)
        return replace(summed, axes=summed.axes[:3])

    def _multiply(self, p: Piece, weight: NDArray[np.float64], axis: int) -> Piece:
        """Multiply features along one axis by [in, out]."""
        axis %= len(p.axes)
        if any(isinstance(part, str) for part in p.axes[axis]):
            raise Unsupported("a matrix product over candidates or positions")
        shape = feature_shape(p.axes)
        if shape[axis] != len(weight):
            raise Unsupported("a matrix product over features laid out otherwise")
        out = weight.shape[1]

        def apply(column: NDArray[np.float64]) -> NDArray[np.float64]:
            spread = np.moveaxis(column.reshape(shape), axis, -1) @ weight
            return np.moveaxis(spread, -1, axis)

        axes = (*p.axes[:axis], (out,) if out != 1 else (), *p.axes[axis + 1 :])
        return p.map(lambda form: self.algebra.lift(form).map(apply), axes)

    def _gemm(self, node: onnx.NodeProto, name: str) -> Value:  # noqa: ARG002
        weight = self.view.constants.get(node.input[1])
        if weight is None or attribute(node, "transA", 0):
            raise Unsupported("a product of two computed matrices")
        weight = weight.astype(np.float64) * attribute(node, "alpha", 1.0)
        weight = weight.T if attribute(node, "transB", 0) else weight
        out = self._multiply(self.piece(node.input[0]), weight, -1)
        if len(node.input) > 2 and node.input[2]:
            bias = self.piece(node.input[2]).map(
                lambda form: form.scale(attribute(node, "beta", 1.0))
            )
            out = self._both(out, bias, lambda x, y: x.plus(y))
        return out

    def _conv(self, node: onnx.NodeProto, name: str) -> Value:  # noqa: ARG002
        """Read a convolution over one position, [N, C, T]: a matrix for axis 1."""
        weight = self.view.constants.get(node.input[1])
        plain = attribute(node, "group", 1) == 1
        plain &= attribute(node, "auto_pad", b"NOTSET") == b"NOTSET"
        plain &= not any(attribute(node, "pads") or [])
        plain &= set(attribute(node, "strides") or [1]) == {1}
        if weight is None or not plain or set(weight.shape[2:]) - {1}:
            raise Unsupported("a convolution over several positions")
        matrix = weight.reshape(weight.shape[:2]).T.astype(np.float64)
        out = self._multiply(self.piece(node.input[0]), matrix, 1)
        if len(node.input) > 2 and node.input[2]:
            shape = [1, -1] + [1] * (weight.ndim - 2)
            bias = self._constant(self._number(node.input[2]).reshape(shape))
            out = self._both(out, bias, lambda x, y: x.plus(y))
        return out

    def _number(self, name: str) -> NDArray[Any]:
        """Return a constant, or refuse."""
        found = self.view.constants.get(name)
        if found is None:
            raise Unsupported("a parameter that is computed")
        return found

    def _einsum(self, node: onnx.NodeProto, name: str) -> Value:  # noqa: ARG002
        """Multiply over all letters, then sum over those that the output lacks."""
        equation = attribute(node, "equation", b"").decode().replace(" ", "")
        terms, _, out = equation.partition("->")
        pieces = [self.piece(i) for i in node.input]
        if len(pieces) != 2 or "->" not in equation:
            raise Unsupported("an Einsum of another kind")
        letters = [
            self._letters(term, len(p.axes))
            for term, p in zip(terms.split(","), pieces, strict=True)
        ]
        rest = max((x[0] for x in letters), key=len)
        kept = [*rest, *out.replace("...", "")]
        gone = sorted({c for _, names in letters for c in names} - set(kept))
        order = kept + gone
        spread = []
        for p, (_, names) in zip(pieces, letters, strict=True):
            if len(set(names)) != len(names):
                raise Unsupported("an Einsum of another kind")
            p = p if p.on.is_constant() else p.map(self.algebra.lift)
            at = [names.index(c) for c in order if c in names]
            turned = self._turned(p, at)
            axes = iter(turned.axes)
            axes_now = tuple(next(axes) if c in names else () for c in order)
            spread.append(replace(turned, axes=axes_now))
        made = self._both(spread[0], spread[1], self.algebra.product)
        for axis in range(len(order) - 1, len(kept) - 1, -1):
            ones = np.ones((features(made.axes[axis]), 1))
            made = self._multiply(made, ones, axis)
        return replace(made, axes=made.axes[: len(kept)])

    @staticmethod
    def _letters(term: str, rank: int) -> tuple[list[str], list[str]]:
        """Name the axes of one Einsum operand; those of an ellipsis by numbers."""
        before, dots, after = term.partition("...")
        free = rank - len(before) - len(after)
        rest = [str(i - free) for i in range(free)] if dots else []
        return rest, [*before, *rest, *after]

    def _batch_norm(self, node: onnx.NodeProto, name: str) -> Value:  # noqa: ARG002
        p = self.piece(node.input[0])
        values = [self.view.constants.get(i) for i in node.input[1:5]]
        if attribute(node, "training_mode", 0) or any(v is None for v in values):
            raise Unsupported("batch normalization in training mode")
        weight, bias, mean, var = (np.asarray(v, np.float64) for v in values)
        scale = weight / np.sqrt(var + attribute(node, "epsilon", 1e-5))
        shift = bias - mean * scale
        shape = [1] * len(p.axes)
        shape[1] = len(scale)
        made = [self._constant(v.reshape(shape)) for v in (scale, shift)]
        scaled = self._both(p, made[0], self.algebra.product)
        return self._both(scaled, made[1], lambda x, y: x.plus(y))

    # -------------------------------------------------------------------- activations

    def _sigmoid(self, node: onnx.NodeProto, name: str) -> Value:  # noqa: ARG002
        try:
            p = self.piece(node.input[0])
        except Unsupported:
            row = self._row_dice(node.input[0])
            if row is None:
                raise
            return row
        return p.map(self.algebra.sigmoid)

    def _row_dice(self, name: str) -> Piece | None:
        """(x - mean) / sqrt(sum((x - mean)^2 + epsilon)), over a row's features."""
        if name not in self._quotients:
            return None
        centered, root = self._quotients[name]
        minus, root_node = self._origin(centered), self._origin(root)
        if minus is None or root_node is None or root_node.op_type != "Sqrt":
            return None
        total = self._origin(root_node.input[0])
        mean = self._origin(minus.input[1]) if minus.op_type == "Sub" else None
        if total is None or total.op_type != "ReduceSum":
            return None
        if mean is None or mean.op_type != "ReduceMean":
            return None
        x = minus.input[0]
        p, add = self.piece(x), self._origin(total.input[0])
        column = (*self._shape(x)[:-1], Size(1))
        fits = self._shape(root) == self._shape(minus.input[1]) == column
        last = [len(p.axes) - 1]
        reduced = [self._reduced(n, len(p.axes)) for n in (total, mean)]
        if add is None or add.op_type != "Add" or mean.input[0] != x or not fits:
            return None
        if reduced != [last, last] or p.mask:
            return None
        if set(feature_shape(p.axes)[:-1]) - {1}:
            return None
        for square, number in (tuple(add.input), tuple(add.input)[::-1]):
            epsilon = self.view.constants.get(number)
            if epsilon is None or epsilon.size != 1:
                continue
            if self._squares(square, centered):
                value = float(epsilon.reshape(-1)[0])
                return Piece(p.axes, self.algebra.row_sigmoid(p.on, value))
        return None

    def _origin(self, name: str) -> onnx.NodeProto | None:
        """Find the node that makes a value, but for its unit axes."""
        node = self.view.producer.get(name)
        while node is not None and node.op_type in ("Unsqueeze", "Identity"):
            node = self.view.producer.get(node.input[0])
        return node

    def _squares(self, name: str, of: str) -> bool:
        node = self.view.producer.get(name)
        if node is None:
            return False
        if node.op_type == "Mul":
            return list(node.input) == [of, of]
        if node.op_type != "Pow" or node.input[0] != of:
            return False
        power = self.view.constants.get(node.input[1])
        return power is not None and (power == 2).all()

    def _relu(self, node: onnx.NodeProto, name: str) -> Value:  # noqa: ARG002
        return self.piece(node.input[0]).map(self.algebra.relu)

    def _leaky(self, node: onnx.NodeProto, name: str) -> Value:  # noqa: ARG002
        p = self.piece(node.input[0])
        slope = Piece((), Form.constant([attribute(node, "alpha", 0.01)]))
        return self._prelu(p, slope)

    def _prelu_node(self, node: onnx.NodeProto, name: str) -> Value:  # noqa: ARG002
        return self._prelu(self.piece(node.input[0]), self.piece(node.input[1]))

    def _prelu(self, p: Piece, slope: Piece) -> Piece:
        """Slope * x + (1 - slope) * relu(x)."""
        if not slope.on.is_constant() or slope.mask:
            raise Unsupported("a PReLU whose slope is computed")
        rest = slope.map(lambda form: Form.constant(1.0 - form.numbers()))
        p = p.map(self.algebra.lift)
        gate = self._both(p.map(self.algebra.relu), rest, self.algebra.product)
        through = self._both(p, slope, self.algebra.product)
        return self._both(through, gate, lambda x, y: x.plus(y))

    def _extreme(self, node: onnx.NodeProto, name: str) -> Value:  # noqa: ARG002
        """Max(a, b) = b + relu(a - b); Min(a, b) = a - relu(a - b)."""
        out = self.piece(node.input[0])
        largest = node.op_type == "Max"
        for other in node.input[1:]:
            b = self.piece(other)
            over = self._both(out, b, lambda x, y: self.algebra.relu(x.plus(y, -1.0)))
            if largest:
                out = self._both(b, over, lambda x, y: x.plus(y))
            else:
                out = self._both(out, over, lambda x, y: x.plus(y, -1.0))
        return out

    def _clip(self, node: onnx.NodeProto, name: str) -> Value:
        bounds = [self.view.constants.get(i) for i in node.input[1:]] + [None, None]
        low, high = bounds[:2]
        if len(node.input) > 2 and node.input[2] and high is None:
            raise Unsupported("a clip between computed bounds")
        if low is None or (low != 0).any() or (high is not None and high < 1e30):
            raise Unsupported("a clip that is not a ReLU")
        return self._relu(node, name)

    def _abs(self, node: onnx.NodeProto, name: str) -> Value:  # noqa: ARG002
        p = self.piece(node.input[0]).map(self.algebra.lift)
        twice = p.map(lambda form: self.algebra.relu(form).scale(2.0))
        return self._both(twice, p, lambda x, y: x.plus(y, -1.0))

    # ------------------------------------------------------------- conditions, softmax

    def _compare(self, node: onnx.NodeProto, name: str) -> Value:
        """Read a comparison of features, or a mask made from ids and lengths."""
        a, b = map(self.piece, node.input)
        if node.op_type in ("Less", "LessOrEqual"):
            a, b = b, a
        over = self._both(a, b, lambda x, y: x.plus(y, -1.0))
        if over.mask or not over.on.is_linear():
            raise Unsupported("a comparison of activations")
        return Condition(over.axes, name, difference=over.on)

    def _not(self, node: onnx.NodeProto, name: str) -> Value:  # noqa: ARG002
        found = self.value(node.input[0])
        if not isinstance(found, Condition) or found.empty_of is not None:
            raise Unsupported("a negated number")
        difference = None
        if found.difference is not None:  # at 0 both sides of a ReLU agree
            difference = found.difference.scale(-1.0)
        return replace(found, mask=negation(found.mask), difference=difference)

    def _is_nan(self, node: onnx.NodeProto, name: str) -> Value:
        p = self.piece(node.input[0])
        softs = [a[1] for a in p.on.terms if a[0] == "soft"]
        if len(softs) != 1 or self.softs[softs[0]].empty != "nan":
            raise Unsupported("a test for NaN")
        return Condition(p.axes, name, empty_of=softs[0])

    def _where(self, node: onnx.NodeProto, name: str) -> Value:  # noqa: ARG002
        condition = self.value(node.input[0])
        a, b = self.piece(node.input[1]), self.piece(node.input[2])
        if not isinstance(condition, Condition):
            raise Unsupported("a choice by numbers")
        if condition.empty_of is not None:
            return self._without_nan(condition, a, b)
        if condition.difference is not None:
            try:
                return self._both(a, b, self._chooser(condition.difference))
            except Unsupported:
                pass  # features may be a mask, too
        condition = self._as_mask(condition)
        axes, a, b = self._aligned(a, b)
        axes, rows, again = broadcast(axes, condition.axes)
        if again.any():
            raise Unsupported("a mask per feature")
        on, off = a.branch(condition.mask)[0], b.branch(condition.mask)[1]
        return Piece(axes, on.take(rows), off.take(rows), condition.mask)

    def _chooser(self, difference: Form) -> Callable[[Form, Form], Form]:
        """Where d > 0, x, else y: y + (x - y)[d > 0], and z[z > 0] is relu(z)."""

        def choose(x: Form, y: Form) -> Form:
            over = x.plus(y, -1.0)
            if not over.is_linear() or difference.size != over.size:
                raise Unsupported("a choice between activations")
            signs = self.algebra.ratios(over, difference)
            return y.plus(self.algebra.relu(difference).scale(signs))

        return choose

    def _without_nan(self, condition: Condition, a: Piece, b: Piece) -> Piece:
        """Where(IsNaN(w), 0, w): an empty history has no weights."""
        number = condition.empty_of
        if not a.on.is_zero() or a.mask or ("soft", number, 0) not in b.on.terms:
            raise Unsupported("a replacement of NaN by something else than 0")
        return replace(b, off=Form(b.on.size))

    def _softmax(self, node: onnx.NodeProto, name: str) -> Value:  # noqa: ARG002
        p = self.piece(node.input[0])
        axis = attribute(node, "axis", -1) % len(p.axes)
        if p.axes[axis] != ("T",) or not p.is_scalar:
            raise Unsupported("a softmax that is not over positions")
        p = p.alive() if p.mask else self._additive_mask(p)
        number = len(self.softs)
        on = Form.of([("soft", number, 0)])
        if not p.mask or p.off is None:
            self.softs.append(Soft(p.on, "", "none"))
            return Piece(p.axes, on)
        empty = self._empty(p.on, p.off)
        self.softs.append(Soft(p.on, p.mask, empty))
        kind = "softnan" if empty == "nan" else "softoff"
        return Piece(p.axes, on, Form.of([(kind, number, 0)]), p.mask)

    def _additive_mask(self, p: Piece) -> Piece:
        """Score + a large number times a float mask."""
        for atom, column in p.on.terms.items():
            if atom[0] == "k" and abs(column[0]) >= -LOWEST_FILL:
                leaf = self.leaves[atom[1]]
                narrow = leaf.size == 1 and not leaf.table
                if narrow and self.view.may_mask(leaf.value):
                    rest = {a: c for a, c in p.on.terms.items() if a != atom}
                    off = Form(1, rest)
                    on = off.plus(Form.constant(column))
                    return Piece(p.axes, on, off, leaf.value)
        return p

    @staticmethod
    def _empty(on: Form, off: Form) -> str:
        """Say what softmax leaves of a history that is masked all over."""
        fill = float(off.numbers()[0])
        if not fill <= LOWEST_FILL:
            raise Unsupported(f"masked scores of {fill:g}, which others may be below")
        if not off.is_constant():
            difference = off.plus(on, -1.0)
            if not difference.is_constant():
                raise Unsupported("masked scores that vary")
            return "unknown"
        return "nan" if fill == -np.inf else "uniform"

    # ---------------------------------------------------------------------- reductions

    def _reduced(self, node: onnx.NodeProto, rank: int) -> list[int]:
        axes = attribute(node, "axes")
        if axes is None and len(node.input) > 1 and node.input[1]:
            axes = self.view.numbers(node.input[1])
        if axes is None:
            raise Unsupported("a sum over everything")
        return sorted(a % rank for a in axes)

    def _reduce(self, node: onnx.NodeProto, name: str) -> Value:  # noqa: ARG002
        """ReduceSum and ReduceMean over features."""
        p = self.piece(node.input[0])
        axes = self._reduced(node, len(p.axes))
        keep = attribute(node, "keepdims", 1)
        for axis in axes[::-1]:
            if any(isinstance(part, str) for part in p.axes[axis]):
                raise Unsupported("a sum over positions")
            count = features(p.axes[axis])
            each = 1.0 / count if node.op_type == "ReduceMean" else 1.0
            p = self._multiply(p, np.full((count, 1), each), axis)
            if not keep:
                p = replace(p, axes=p.axes[:axis] + p.axes[axis + 1 :])
        return p


HANDLERS: dict[str, Callable[[Interpreter, onnx.NodeProto, str], Value]] = {
    "Abs": Interpreter._abs,
    "Add": Interpreter._add,
    "BatchNormalization": Interpreter._batch_norm,
    "Cast": Interpreter._cast,
    "Clip": Interpreter._clip,
    "Concat": Interpreter._concat,
    "Conv": Interpreter._conv,
    "Div": Interpreter._div,
    "Dropout": Interpreter._dropout,
    "Einsum": Interpreter._einsum,
    "Expand": Interpreter._expand,
    "Flatten": Interpreter._reshape,
    "Gather": Interpreter._gather,
    "Gemm": Interpreter._gemm,
    "Greater": Interpreter._compare,
    "GreaterOrEqual": Interpreter._compare,
    "Identity": Interpreter._same,
    "IsNaN": Interpreter._is_nan,
    "LeakyRelu": Interpreter._leaky,
    "Less": Interpreter._compare,
    "LessOrEqual": Interpreter._compare,
    "MatMul": Interpreter._matmul,
    "Max": Interpreter._extreme,
    "Min": Interpreter._extreme,
    "Mul": Interpreter._mul,
    "Neg": Interpreter._neg,
    "Not": Interpreter._not,
    "PRelu": Interpreter._prelu_node,
    "ReduceMean": Interpreter._reduce,
    "ReduceSum": Interpreter._reduce,
    "Relu": Interpreter._relu,
    "Reshape": Interpreter._reshape,
    "Sigmoid": Interpreter._sigmoid,
    "Slice": Interpreter._slice,
    "Softmax": Interpreter._softmax,
    "Split": Interpreter._split,
    "Squeeze": Interpreter._reshape,
    "Sub": Interpreter._sub,
    "Sum": Interpreter._add,
    "Tile": Interpreter._expand,
    "Transpose": Interpreter._transpose,
    "Unsqueeze": Interpreter._reshape,
    "Where": Interpreter._where,
}
