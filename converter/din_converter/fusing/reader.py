"""What each value of a graph is, as a function of one (candidate, behavior) pair.

`Reader.value` reads a value backward to where its pair's features come from: rows of a
table, or any tensor laid out [N, ..] or [N, T, ..], the *leaves*. On the way every
operator is either read exactly, or the value before it becomes a leaf, or, if that
depends on candidate and behavior both, `Unsupported` has the reason why the block is
not fused.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from din_converter.fusing.algebra import ONE, Algebra, Atom, Form, Unsupported
from din_converter.fusing.layout import (
    Axes,
    Shape,
    Sizes,
    axis_of,
    broadcast,
    feature_shape,
    features,
    varies,
)
from din_converter.fusing.values import (
    TWO_MASKS,
    Condition,
    Leaf,
    Piece,
    Soft,
    Value,
    Weighted,
    common_mask,
    negation,
)
from din_converter.fusing.view import View, attribute, names_read

__all__ = ["NO_MASK", "Handler", "Reader"]

LARGE = 1e4
NO_MASK = (
    "a product with numbers that may be other than 0 and 1: if they are a mask, compare"
    " them, as in mask > 0"
)
ACTIVATIONS = "Dice, PReLU, LeakyReLU, ReLU, SiLU and sigmoid are fused"
WORDS = {  # what torch calls that
    "Erf": f"GELU: {ACTIVATIONS}",
    "Exp": "exp, as ELU and a hand-written softmax have",
    "LayerNormalization": "LayerNorm inside the unit",
    "GatherElements": "a choice of positions, as gather and topk have",
    "ReduceMax": "a maximum over an axis, as amax and a hand-written softmax have",
    "ReduceMin": "all() over an axis, as attention by a float mask has: give booleans",
    "ScatterElements": "an assignment by index: use torch.where or masked_fill",
    "ScatterND": "an assignment by index: use torch.where or masked_fill",
}
SMOOTH = (
    *("Tanh", "Elu", "Selu", "Celu", "Gelu", "Mish", "Softplus", "Softsign"),
    *("HardSigmoid", "HardSwish", "ThresholdedRelu"),
)
BOUNDED = ("Softmax", "Sigmoid", "Tanh")
CUTS = ("Gather", "Slice", "Split")
# Reads the named output of a node.
Handler = Callable[["Reader", NodeProto, str], Value]


def _words(kind: str) -> str:
    """Say an operator in the words of torch."""
    if kind in SMOOTH:
        return f"{kind.lower()}: {ACTIVATIONS}"
    return WORDS.get(kind, f"{kind.lower()}, which is no part of a fused unit")


class Reader:
    """Reads values of one graph, for one choice of N and T.

    Parameters
    ----------
    view : View
    sizes : Sizes
    opaque : str
        A value to take as a leaf, even if it can be read; "" for none.
    closed : bool
        Take for a leaf whatever is computed of a candidate or of a behavior alone, and
        is not linear.
    operators : dict
        How each operator is read.
    """

    def __init__(
        self,
        view: View,
        sizes: Sizes,
        opaque: str,
        closed: bool,
        operators: Mapping[str, Handler],
    ) -> None:
        self.view, self.sizes, self.opaque, self.closed = view, sizes, opaque, closed
        self.algebra = Algebra()
        self.leaves: list[Leaf] = []
        self.softs: list[Soft] = []
        self._operators = operators
        self._known: dict[str, Value | Unsupported] = {}
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
        """Read floats; raises Unsupported."""
        found = self.value(name)
        if isinstance(found, Weighted):
            raise Unsupported(NO_MASK)
        if not isinstance(found, Piece):
            raise Unsupported("a condition used as a number: write mask.float()")
        return found

    def _read(self, name: str) -> Value:
        if name in self.view.constants:
            return self.constant(self.view.constants[name])
        node = self.view.producer.get(name)
        if node is None or name == self.opaque:
            return self._leaf(name)
        if node.op_type in CUTS and node.input[0] in self._cut:
            return self._leaf(name)
        try:
            handler = self._operators.get(node.op_type)
            if handler is None or node.domain not in ("", "ai.onnx"):
                raise Unsupported(_words(node.op_type))
            found = handler(self, node, name)
            if not self.closed or not isinstance(found, Piece) or self._mixes(node):
                return found
        except Unsupported as error:
            if self._mixes(node):
                raise Unsupported(error.reason, at=error.at or name) from None
            return self._leaf(name)
        forms = [f for f in (found.on, found.off) if f is not None]
        if found.mask or all(f.kinds() <= {"one", "q", "k"} for f in forms):
            return found
        try:
            return self._leaf(name)
        except Unsupported:
            return found

    def _cut_values(self) -> set[str]:
        """Find values that are cut into T positions and the rest, a candidate.

        The whole value is neither behavior nor candidate; its parts are leaves.
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

    def _mixes(self, node: NodeProto) -> bool:
        """Whether a node's inputs depend on candidate and behavior both."""
        kinds: set[str] = set()
        for name in names_read(node):
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

    def check_leaf(self, leaf: Leaf) -> None:
        """Refuse features computed with a fill: they may be infinite where masked.

        A finite one is gone behind a softmax, as the attention of a Transformer has.
        """
        if leaf.table:
            return
        near = {id(n) for n in self.view.ancestors([leaf.value], stop=BOUNDED)}
        for node in self.view.ancestors([leaf.value]):
            for name in (*node.input, *node.output):
                array = self.view.constants.get(name)
                if array is None or array.dtype.kind != "f" or not array.size:
                    continue
                if np.isfinite(array).all() and id(node) not in near:
                    continue
                if array.size == 1 and not (np.abs(array) < LARGE).all():
                    fill = f"features that hold {float(array.min()):g} where masked"
                    raise Unsupported(f"{fill}: fill the scores instead")

    def shape(self, name: str) -> Shape:
        """Return the shape of a value; raises Unsupported where it is not known."""
        shape = self.view.shapes.get(name)
        if shape is None:
            raise Unsupported("a value of unknown shape", mixed=False)
        return shape

    def reduced(self, node: NodeProto, rank: int) -> list[int]:
        """Return the axes that a reduction is over, ascending."""
        axes = attribute(node, "axes")
        if axes is None and len(node.input) > 1 and node.input[1]:
            axes = self.view.numbers(node.input[1])
        if axes is None:
            raise Unsupported("a sum over all axes")
        return sorted(a % rank for a in axes)

    def number(self, name: str) -> NDArray[Any]:
        """Return a constant; raises Unsupported where it is computed."""
        found = self.view.constants.get(name)
        if found is None:
            raise Unsupported("a parameter that the module computes")
        return found

    @staticmethod
    def constant(array: NDArray[Any]) -> Piece:
        """Read an array that is the same for every pair."""
        if array.dtype.kind not in "fiub" or array.size > 1 << 24:
            raise Unsupported("a constant that is not numbers", mixed=False)
        return Piece(tuple(map(axis_of, array.shape)), Form.constant(array))

    def _leaf(self, name: str) -> Value:
        axes = self.sizes.leaf(self.shape(name))
        if self.view.types.get(name) == TensorProto.BOOL:
            return Condition(axes, name)
        if not self.view.is_float(name):
            raise Unsupported("a tensor that is not floats", mixed=False)
        return self.leaf(name, axes)

    def leaf(self, value: str, axes: Axes, table: str = "", ids: str = "") -> Piece:
        """Take a value as features; the same value is the same leaf."""
        same = [
            x
            for x in self.leaves
            if x.axes == axes
            and (x.value == value or (table and (x.table, x.ids) == (table, ids)))
        ]
        if same:
            leaf = same[0]
        else:
            if {"T", "C"} <= {p for axis in axes for p in axis}:
                reason = (
                    "features of candidate and position that no layer here computes"
                )
                raise Unsupported(reason)
            size = math.prod(feature_shape(axes))
            leaf = Leaf(len(self.leaves), value, axes, size, table, ids)
            self.leaves.append(leaf)
        kind = "k" if leaf.has_positions else "q"
        return Piece(axes, Form.of((kind, leaf.number, j) for j in range(leaf.size)))

    # ---------------------------------------------------------------------- combining

    @staticmethod
    def aligned(a: Piece, b: Piece) -> tuple[Axes, Piece, Piece]:
        """Broadcast two pieces to a common layout, which is returned too."""
        axes, rows_a, rows_b = broadcast(a.axes, b.axes)
        return axes, a.take(rows_a, axes), b.take(rows_b, axes)

    def both(self, a: Piece, b: Piece, f: Callable[[Form, Form], Form]) -> Piece:
        """Apply a function of two forms in both branches."""
        axes, a, b = self.aligned(a, b)
        # a float mask is read as one once the other operand shows that it is
        if a.mask and not b.mask:
            b = self._as_masked(b, a.mask)
        elif b.mask and not a.mask:
            a = self._as_masked(a, b.mask)
        mask = common_mask(a, b)
        (on_a, off_a), (on_b, off_b) = a.branch(mask), b.branch(mask)
        off = f(off_a, off_b) if mask else None
        return Piece(axes, f(on_a, on_b), off, mask)

    def _as_masked(self, p: Piece, mask: str) -> Piece:
        """Split a form over the float mask `mask` into its values at 1 and at 0."""
        if mask.startswith("~"):
            other = self._as_masked(p, negation(mask))
            if other is p or other.off is None:
                return p
            return Piece(p.axes, other.off, other.on, mask)
        leaves = [x for x in self.leaves if x.value == mask and not x.table]
        atom: Atom = ("k", leaves[0].number, 0) if leaves else ()
        if p.mask or atom not in p.on.terms or not p.on.is_linear():
            return p
        if not self.view.is_binary(mask):
            return p
        return self.over_mask(p, atom, mask)

    @staticmethod
    def over_mask(p: Piece, atom: Atom, mask: str) -> Piece:
        """Split a form in which the mask is an atom into its values at 1 and at 0."""
        off = Form(p.on.size, {a: c for a, c in p.on.terms.items() if a != atom})
        on = off.plus(Form(p.on.size, {ONE: p.on.terms[atom]}))
        return Piece(p.axes, on, off, mask)

    def _mask_of(self, p: Piece) -> str:
        """Name the float mask that a piece is a linear form over, and nothing else."""
        atoms = [a for a in p.on.terms if a != ONE]
        if p.mask or len(atoms) != 1 or atoms[0][0] != "k":
            return ""
        leaf = self.leaves[atoms[0][1]]
        return leaf.value if leaf.is_number and self.view.is_binary(leaf.value) else ""

    def times(self, a: Piece, b: Piece) -> Piece | Weighted:
        """Multiply; weights by behaviors are kept apart, since the sum is over them."""
        try:
            return self.both(a, b, self.algebra.product)
        except Unsupported as error:
            if error.reason == TWO_MASKS:
                raise
            for mask_like, other in ((a, b), (b, a)):
                mask = self._mask_of(mask_like)
                if mask and not other.mask:
                    masked = self._as_masked(mask_like, mask)
                    return self.both(masked, other, self.algebra.product)
            a, b = a.alive(), b.alive()
            for weight, behavior in ((a, b), (b, a)):
                pure = behavior.on.kinds() <= {"one", "k"}
                if weight.is_scalar and pure and not weight.on.is_constant():
                    axes, _, _ = broadcast(weight.axes, behavior.axes)
                    return Weighted(axes, weight, behavior)
            raise Unsupported(error.reason) from None

    def matrix(self, p: Piece, weight: NDArray[Any], axis: int) -> Piece:
        """Multiply features along one axis by [in, out]."""
        axis %= len(p.axes)
        if varies(p.axes[axis]):
            raise Unsupported(
                "a layer along candidates or positions instead of features"
            )
        shape = feature_shape(p.axes)
        if shape[axis] != len(weight):
            raise Unsupported("a layer of another width than the features")
        weight = weight.astype(np.float64)

        def apply(column: NDArray[np.float64]) -> NDArray[np.float64]:
            spread = np.moveaxis(column.reshape(shape), axis, -1) @ weight
            return np.moveaxis(spread, -1, axis)

        axes = (*p.axes[:axis], axis_of(weight.shape[1]), *p.axes[axis + 1 :])
        return p.map(lambda form: self.algebra.lift(form).map(apply), axes)

    def total(self, p: Piece, axis: int, each: float = 1.0) -> Piece:
        """Sum the features along one axis, times `each`; the axis is then gone."""
        p = self.matrix(p, np.full((features(p.axes[axis]), 1), each), axis)
        return replace(p, axes=p.axes[:axis] + p.axes[axis + 1 :])
