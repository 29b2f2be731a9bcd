"""Where a graph sums weights times behaviors over positions."""

from dataclasses import dataclass

import onnx

from din_converter.fusing.layout import UNIT, Sizes
from din_converter.fusing.view import View, attribute

__all__ = ["Site", "find_sites"]


@dataclass(frozen=True)
class Site:
    """A place where a block can be: a sum of weights times behaviors over positions.

    `weight_axes` and `behavior_axes` are what their axes must be: letters of N, T, D
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
    def name(self) -> str:
        """Name of the value it makes."""
        return str(self.node.output[0])


def find_sites(view: View) -> list[Site]:
    """Find every sum over positions of weights times behaviors."""
    sites = []
    for node in view.graph.node:
        site = _of_reduce(view, node) or _of_matmul(view, node)
        site = site or _of_einsum(view, node)
        if site is None:
            continue
        made = {n.op_type for n in view.ancestors([site.weights])}
        if made & {"MatMul", "Gemm", "Conv", "Einsum"}:
            sites.append(site)
    return sites


def _of_reduce(view: View, node: onnx.NodeProto) -> Site | None:
    """ReduceSum or ReduceMean(weights [N, T, 1] * behaviors [N, T, D], axis 1)."""
    if node.op_type not in ("ReduceSum", "ReduceMean"):
        return None
    product = view.producer.get(node.input[0])
    while product is not None and product.op_type in ("Mul", "Div", "Identity"):
        shapes = [view.shapes.get(i) for i in product.input]
        deep = [
            i for i, s in zip(product.input, shapes, strict=True) if s and len(s) == 3
        ]
        if product.op_type == "Mul" and len(deep) == 2:
            break
        product = view.producer.get(deep[0]) if deep else None
    axes = attribute(node, "axes")
    if axes is None and len(node.input) > 1:
        axes = view.numbers(node.input[1])
    shape = view.shapes.get(node.input[0])
    if product is None or product.op_type != "Mul" or shape is None or not axes:
        return None
    axis = axes[0] % len(shape)
    if len(shape) != 3 or len(axes) != 1 or axis == 0:
        return None
    sizes = Sizes(shape[0], shape[axis])
    for weights, behaviors in (tuple(product.input), tuple(product.input)[::-1]):
        whole = node.input[0]
        while (spread := view.producer.get(weights)) and spread.op_type == "Expand":
            weights, whole = spread.input[0], ""
        if not whole and product.output[0] != node.input[0]:
            continue
        narrow, wide = view.shapes.get(weights), view.shapes.get(behaviors)
        if narrow is None or wide != shape or len(narrow) != 3:
            continue
        if narrow[3 - axis] == UNIT and narrow[axis] == shape[axis]:
            letters = ("NT1", "NTD") if axis == 1 else ("N1T", "NDT")
            mean = node.op_type == "ReduceMean"
            return Site(node, weights, behaviors, sizes, *letters, whole, mean)
    return None


def _of_matmul(view: View, node: onnx.NodeProto) -> Site | None:
    """MatMul(weights [N, 1, T], behaviors [N, T, D]), or its transpose."""
    if node.op_type != "MatMul" or set(node.input) & set(view.constants):
        return None
    left, right = (view.shapes.get(i) for i in node.input)
    if left is None or right is None or len(left) != 3 or len(right) != 3:
        return None
    sizes = Sizes(left[0], left[2])
    if left[1] == UNIT and right[2] != UNIT:
        return Site(node, node.input[0], node.input[1], sizes, "N1T", "NTD")
    if right[2] == UNIT and left[1] != UNIT:
        return Site(node, node.input[1], node.input[0], sizes, "NT1", "NDT")
    return None


def _of_einsum(view: View, node: onnx.NodeProto) -> Site | None:
    """Einsum("nt,ntd->nd"), or with axes of size 1 or in other orders."""
    if node.op_type != "Einsum" or len(node.input) != 2:
        return None
    equation = attribute(node, "equation", b"").decode().replace(" ", "")
    terms, arrow, out = equation.partition("->")
    terms = terms.split(",")
    shapes = [view.shapes.get(i) for i in node.input]
    if not arrow or "." in equation or len(terms) != 2 or not 2 <= len(out) <= 3:
        return None
    if None in shapes or any(len(set(x)) != len(x) for x in terms):
        return None
    size = {
        c: s
        for term, shape in zip(terms, shapes, strict=True)
        for c, s in zip(term, shape or (), strict=True)
    }
    ones = {c for c, s in size.items() if s == UNIT}
    for w, k in ((0, 1), (1, 0)):
        narrow = [c for c in terms[w] if c not in ones]
        wide = [c for c in terms[k] if c not in ones]
        kept = [c for c in out if c not in ones]
        if len(narrow) != 2 or len(wide) != 3 or len(kept) != 2 or kept[0] != wide[0]:
            continue
        n, d = kept
        (t, *more) = [c for c in wide if c not in kept]
        if more or set(narrow) != {n, t} or out[0] != n or terms[k][0] != n:
            continue
        names = {n: "N", t: "T", d: "D"} | dict.fromkeys(ones, "1")
        axes = ["".join(names[c] for c in terms[i]) for i in (w, k)]
        sizes = Sizes(size[n], size[t])
        return Site(node, node.input[w], node.input[k], sizes, axes[0], axes[1])
    return None
