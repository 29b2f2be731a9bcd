"""Where a graph sums weights times behaviors over positions."""

from collections.abc import Iterator
from dataclasses import dataclass

import onnx

from din_converter.fusing.layout import UNIT, Sizes
from din_converter.fusing.view import View, attribute

__all__ = ["Site", "find_sites"]


@dataclass(frozen=True)
class Site:
    """A place where a block can be: a sum of weights times behaviors over positions.

    `weight_axes` and `behavior_axes` are what their axes must be: letters of N, C, T, D
    and 1.
    """

    node: onnx.NodeProto
    weights: str
    behaviors: str
    sizes: Sizes
    weight_axes: str
    behavior_axes: str
    product: str = ""  # where weights times behaviors is a value of its own
    mean: bool = False  # the sum is divided by T

    @property
    def letters(self) -> list[str]:
        """The axes of scores, in their order."""
        return ["N", "T"] if self.sizes.c is None else ["N", "C", "T"]

    @property
    def name(self) -> str:
        """Name of the value it makes."""
        return str(self.node.output[0])


def find_sites(view: View) -> list[Site]:
    """Find every sum over positions of weights times behaviors."""
    sites = []
    for node in view.graph.node:
        site = _of_reduce(view, node) or _of_matmul(view, node)
        site = site or _of_einsum(view, node)
        if site is None or not _are_scored(view, site):
            continue
        behaviors = view.shapes.get(site.behaviors, ())
        at = site.behavior_axes.index("D")
        if at < len(behaviors) and not behaviors[at].symbols:  # else a dot product
            sites.append(site)
    return sites


def _are_scored(view: View, site: Site) -> bool:
    """Whether the weights come through a layer.

    Where rows have several candidates: through one of pairs, which attention by dot
    products has not.
    """
    layers = _layers(view, site.weights)
    c, t, n = site.sizes.c, site.sizes.t, site.sizes.n
    if c is None:
        return bool(layers)
    if c == t:
        return False
    for node in layers:
        shape = view.shapes.get(node.output[0], ())
        pairs = {c, t} <= set(shape[1:]) or n * c * t in shape
        if pairs and set(node.input) & set(view.constants):
            return True
    return False


def _layers(view: View, name: str) -> list[onnx.NodeProto]:
    """List the matrix products that a value is made by."""
    kinds = ("MatMul", "Gemm", "Conv", "Einsum")
    return [n for n in view.ancestors([name]) if n.op_type in kinds]


def _of_reduce(view: View, node: onnx.NodeProto) -> Site | None:
    """ReduceSum or ReduceMean(weights [N, T, 1] * behaviors [N, T, D], axis 1).

    Or of weights [N, C, T, 1] and behaviors [N, 1, T, D], axis 2.
    """
    if node.op_type not in ("ReduceSum", "ReduceMean"):
        return None
    shape = view.shapes.get(node.input[0])
    rank = len(shape) if shape is not None else 0
    axes = attribute(node, "axes")
    if axes is None and len(node.input) > 1:
        axes = view.numbers(node.input[1])
    if shape is None or not axes:
        return None
    axis = axes[0] % rank
    if rank not in (3, 4) or len(axes) != 1 or axis < rank - 2:
        return None
    c = shape[1] if rank == 4 else None
    other = 2 * rank - 3 - axis  # of features
    sizes = Sizes(shape[0], shape[axis], c)
    for product, weights, behaviors in _products(view, node.input[0], rank):
        whole = node.input[0]
        while (spread := view.producer.get(weights)) and spread.op_type == "Expand":
            weights, whole = spread.input[0], ""
        if not whole and product.output[0] != node.input[0]:
            continue
        narrow, wide = view.shapes.get(weights), view.shapes.get(behaviors)
        if narrow is None or wide is None or len(narrow) != rank:
            continue
        if wide != shape and (c is None or wide != (shape[0], UNIT, *shape[2:])):
            continue
        if narrow[other] != UNIT or narrow[axis] != shape[axis]:
            continue
        if (c is not None and narrow[1] != c) or not _layers(view, weights):
            continue
        last = ("T1", "TD") if axis == rank - 2 else ("1T", "DT")
        of_wide = "" if c is None else "C" if wide[1] == c else "1"
        letters = ("N" + "C" * (rank - 3) + last[0], "N" + of_wide + last[1])
        return Site(
            node,
            weights,
            behaviors,
            sizes,
            *letters,
            whole,
            node.op_type == "ReduceMean",
        )
    return None


def _products(
    view: View, name: str, rank: int
) -> Iterator[tuple[onnx.NodeProto, str, str]]:
    """Yield the products that a value is made of: the node and its operands, twice."""
    node = view.producer.get(name)
    if node is None or node.op_type not in ("Mul", "Div", "Identity"):
        return
    deep = [i for i in node.input if len(view.shapes.get(i, ())) == rank]
    if node.op_type == "Mul" and len(deep) == 2:
        yield node, deep[0], deep[1]
        yield node, deep[1], deep[0]
    for other in deep:
        yield from _products(view, other, rank)


def _of_matmul(view: View, node: onnx.NodeProto) -> Site | None:
    """MatMul(weights [N, 1, T], behaviors [N, T, D]), or its transpose.

    With several candidates: weights [N, C, T], or [N, C, 1, T] and [N, 1, T, D].
    """
    if node.op_type != "MatMul" or set(node.input) & set(view.constants):
        return None
    left, right = (view.shapes.get(i) for i in node.input)
    if left is None or right is None or len(left) != len(right):
        return None
    w, k = node.input
    if len(left) == 4:
        c = left[1]
        wide = "C" if right[1] == c else "1"
        if UNIT in (c, right[3]) or left[2] != UNIT or right[1] not in (c, UNIT):
            return None
        return Site(node, w, k, Sizes(left[0], left[3], c), "NC1T", f"N{wide}TD")
    if len(left) != 3:
        return None
    sizes = Sizes(left[0], left[2])
    if left[1] == UNIT and right[2] != UNIT:
        return Site(node, w, k, sizes, "N1T", "NTD")
    if right[2] == UNIT and left[1] != UNIT:
        return Site(node, k, w, sizes, "NT1", "NDT")
    if UNIT not in (left[1], right[2]):
        return Site(node, w, k, Sizes(left[0], left[2], left[1]), "NCT", "NTD")
    return None


def _of_einsum(view: View, node: onnx.NodeProto) -> Site | None:
    """Einsum("nt,ntd->nd"), or with axes of size 1 or in other orders.

    With several candidates: "nct,ntd->ncd", or "nct,nctd->ncd".
    """
    if node.op_type != "Einsum" or len(node.input) != 2:
        return None
    equation = attribute(node, "equation", b"").decode().replace(" ", "")
    terms, arrow, out = equation.partition("->")
    terms = terms.split(",")
    shapes = [view.shapes.get(i) for i in node.input]
    if not arrow or "." in equation or len(terms) != 2 or not 2 <= len(out) <= 4:
        return None
    if None in shapes or any(len(set(x)) != len(x) for x in terms):
        return None
    size = {
        c: s
        for term, shape in zip(terms, shapes, strict=True)
        for c, s in zip(term, shape or (), strict=True)
    }
    ones = {c for c, s in size.items() if s == UNIT}
    kept = [c for c in out if c not in ones]
    if not 2 <= len(kept) <= 3:
        return None
    n, *rows, d = kept  # rows: the letter of candidates, where a row has several
    for w, k in ((0, 1), (1, 0)):
        narrow = [c for c in terms[w] if c not in ones]
        wide = [c for c in terms[k] if c not in ones]
        over = [c for c in wide if c not in kept]
        if len(over) != 1 or out[0] != n or terms[k][0] != n:
            continue
        (t,) = over
        if set(narrow) != {n, t, *rows} or len(narrow) != 2 + len(rows):
            continue
        if set(wide) - set(rows) != {n, t, d} or wide[0] != n:
            continue
        if rows and (narrow[0] != n or list(out) != kept):
            continue
        names = {n: "N", t: "T", d: "D"} | dict.fromkeys(ones, "1")
        names |= dict.fromkeys(rows, "C")
        axes = ["".join(names[c] for c in terms[i]) for i in (w, k)]
        sizes = Sizes(size[n], size[t], size[rows[0]] if rows else None)
        return Site(node, node.input[w], node.input[k], sizes, axes[0], axes[1])
    return None
