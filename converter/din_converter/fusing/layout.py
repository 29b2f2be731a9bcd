"""Which axes of a tensor are candidates, positions and features.

A layout is a tuple of axes; an axis is a row-major tuple of parts: "N" (candidates),
"T" (positions), "C" (candidates of each row N, where a module has several) or a number
of features. ``[N, T, 48]`` is ``(("N",), ("T",), (48,))``,
the same flattened ``(("N", "T"), (48,))``; an axis of size 1 is ``()``. Sizes are
monomials over the graph's symbols: ``s0*s1`` and 10 are equal only to themselves.
"""

import ast
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from din_converter.fusing.algebra import Unsupported

__all__ = [
    "AXES",
    "UNIT",
    "Axes",
    "Part",
    "Rows",
    "Shape",
    "Size",
    "Sizes",
    "axis_of",
    "broadcast",
    "feature_shape",
    "features",
    "numbered",
    "permuted",
    "varies",
]

VARIES = "a tensor with an axis of open size that is neither batch nor positions"
AXES = "two values whose axes are not batch, positions and features in one order"
Part = str | int
Axes = tuple[tuple[Part, ...], ...]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Size:
    """A product of a number and symbols, e.g. 10·s0."""

    number: int
    symbols: tuple[str, ...] = ()

    @classmethod
    def parse(cls, dim: int | str) -> "Size":
        """Read a dimension as a graph states it; what is no product is one symbol."""
        if isinstance(dim, int):
            return cls(dim)
        number, symbols = 1, []
        for word in _factors(dim.replace(" ", "")):
            if word.isdecimal():
                number *= int(word)
            else:
                symbols.append(word)
        return cls(number, tuple(sorted(symbols)))

    @property
    def is_symbol(self) -> bool:
        """Whether this is one symbol and nothing else."""
        return self.number == 1 and len(self.symbols) == 1

    def __mul__(self, other: "Size") -> "Size":
        return Size(
            self.number * other.number, tuple(sorted(self.symbols + other.symbols))
        )

    def over(self, other: "Size") -> "Size | None":
        """Divide, where that leaves a product."""
        if other.number == 0 or self.number % other.number:
            return None
        left = list(self.symbols)
        for symbol in other.symbols:
            if symbol not in left:
                return None
            left.remove(symbol)
        return Size(self.number // other.number, tuple(left))


def _factors(text: str) -> list[str]:
    """Split a product at its own stars; what is no product is one factor."""
    try:
        todo: list[ast.expr] = [ast.parse(text, mode="eval").body]
    except SyntaxError:
        return [text]
    found = []
    while todo:
        node = todo.pop()
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            todo += [node.left, node.right]
        else:
            found.append(ast.get_source_segment(text, node) or text)
    return found


Shape = tuple[Size, ...]
UNIT = Size(1)


@dataclass(frozen=True)
class Sizes:
    """The sizes of N and T in this graph, and of C where rows have candidates."""

    n: Size
    t: Size
    c: Size | None = None

    @property
    def candidates(self) -> Size:
        """The number of candidates."""
        return self.n if self.c is None else self.n * self.c

    def of(self, part: Part) -> Size:
        """Return the size of a part of an axis."""
        if isinstance(part, int):
            return Size(part)
        return {"N": self.n, "T": self.t, "C": self.c or UNIT}[part]

    def reshape(self, axes: Axes, shape: Shape) -> Axes:
        """Give the parts of `axes`, in row-major order, to new axes of these sizes."""
        parts: list[Part] = [p for axis in axes for p in axis]
        out: list[tuple[Part, ...]] = []
        for size in shape:
            axis: list[Part] = []
            left: Size | None = size
            while left is not None and left != UNIT:
                if not parts:
                    left = None
                    break
                part = parts.pop(0)
                rest = left.over(self.of(part))
                if rest is None and isinstance(part, int) and not left.symbols:
                    if part % left.number:
                        break
                    parts.insert(0, part // left.number)  # a part is split
                    part, rest = left.number, UNIT
                axis.append(part)
                left = rest
            if left != UNIT:
                reason = "a reshape that mixes candidates, positions or features"
                raise Unsupported(reason)
            out.append(tuple(axis))
        if any(self.of(p) != UNIT for p in parts):
            raise Unsupported("a reshape to another size")
        return tuple(out)

    def leaf(self, shape: Shape) -> Axes:
        """Lay out a tensor of which only the shape is known."""
        whole = [s for s in shape if s != UNIT]
        if whole[:1] == [self.t] and self.t not in (UNIT, self.n):
            rest = [s for s in shape if s != self.t]
            if len(rest) == len(shape) - 1 and not any(s.symbols for s in rest):
                return tuple(  # the same for every candidate
                    ("T",) if s == self.t else axis_of(s.number) for s in shape
                )
        if not shape:
            raise Unsupported(
                "a number computed from the length of the history, as / sqrt(T) has",
                mixed=False,
            )
        first = {self.n: "N", self.n * self.t: "NT"}
        if self.c is not None:
            first[self.candidates] = "NC"
        if shape[0] not in first:
            raise Unsupported("a tensor whose first axis is not the batch", mixed=False)
        axes: list[tuple[Part, ...]] = [tuple(first[shape[0]])]
        seen = set(first[shape[0]])
        for size in shape[1:]:
            if size == self.t and "T" not in seen:
                seen.add("T")
                axes.append(("T",))
            elif size == self.c and "C" not in seen:
                seen.add("C")
                axes.append(("C",))
            elif size.symbols:
                reason = VARIES
                raise Unsupported(reason, mixed=False)
            else:
                axes.append(axis_of(size.number))
        return tuple(axes)


def features(axis: Sequence[Part]) -> int:
    """Count the features of one axis."""
    return math.prod(part for part in axis if isinstance(part, int))


def varies(axis: Sequence[Part]) -> bool:
    """Whether an axis has candidates or positions, not features alone."""
    return any(isinstance(part, str) for part in axis)


def axis_of(size: int) -> tuple[Part, ...]:
    """Lay out an axis of features."""
    return (size,) if size != 1 else ()


def feature_shape(axes: Axes) -> tuple[int, ...]:
    """Count the features of every axis."""
    return tuple(features(axis) for axis in axes)


def numbered(axes: Axes) -> Rows:
    """Return a number for every feature, row-major, in the shape of the layout."""
    shape = feature_shape(axes)
    return np.arange(math.prod(shape)).reshape(shape)


def permuted(axes: Axes, order: Sequence[int]) -> tuple[Axes, Rows]:
    """Permute axes; also returns the row numbers in the new order."""
    rows = numbered(axes).transpose(order).reshape(-1)
    return tuple(axes[i] for i in order), rows


def broadcast(a: Axes, b: Axes) -> tuple[Axes, Rows, Rows]:
    """Align two layouts as elementwise operators do.

    Returns the common layout and, for each of its rows, the row of either operand.
    """
    rank = max(len(a), len(b))
    a, b = ((),) * (rank - len(a)) + a, ((),) * (rank - len(b)) + b
    axes: list[tuple[Part, ...]] = []
    for left, right in zip(a, b, strict=True):
        if left != right and left and right:
            raise Unsupported(AXES)
        axes.append(left or right)
    shape = feature_shape(tuple(axes))
    rows_a, rows_b = (np.broadcast_to(numbered(x), shape).reshape(-1) for x in (a, b))
    return tuple(axes), rows_a, rows_b
