"""The result for a block, and its cost before and after fusing."""

import itertools
from dataclasses import asdict, dataclass
from typing import Any

import onnx

from din_converter.fusing.fuse import Unit
from din_converter.fusing.layout import Size
from din_converter.fusing.sites import Site
from din_converter.fusing.view import View

__all__ = ["Block", "fused", "layer_flops", "operator_flops"]

MOVES = (
    *("Reshape", "Unsqueeze", "Squeeze", "Expand", "Tile", "Concat", "Transpose"),
    *("Gather", "Identity", "Cast", "Shape", "Slice", "Split"),
)


@dataclass(frozen=True)
class Block:
    """The result for one block, for the report.

    `part` is "whole", or "scores" where they alone are computed by the operator, and
    `reason` says why and `place` where, in the module's words; "" of a block that is
    left as it is.

    Costs are per candidate, for a history of `positions` behaviors: FLOPs, and bytes of
    intermediate tensors.
    """

    name: str
    fused: bool
    reason: str = ""
    place: str = ""
    part: str = ""
    width: int = 0
    hidden: tuple[int, ...] = ()
    activation: str = ""
    softmax: bool = False
    mask: str = ""
    reads: str = ""
    positions: int = 0
    flops_before: int = 0
    flops_after: int = 0
    bytes_before: int = 0
    bytes_after: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the block for JSON."""
        return asdict(self)


def layer_flops(width: int, hidden: tuple[int, ...]) -> int:
    """Count the FLOPs of layers to one unit, for one pair."""
    return sum(2 * a * b for a, b in itertools.pairwise((width, *hidden, 1)))


def operator_flops(
    width: int, hidden: tuple[int, ...], products: int, positions: int
) -> int:
    """Count the FLOPs of LocalActivation for one candidate.

    Its first layer is folded per candidate, with `products` of query and behavior.
    """
    folded = (2 + 2 * products) * width * (*hidden, 1)[0]
    return positions * (2 * width + layer_flops(width, hidden)) + folded


def _count(size: Size, site: Site, positions: int) -> int:
    """Evaluate a size at one candidate and `positions` behaviors."""
    n, t = site.sizes.candidates, site.sizes.t
    out = size.number
    for symbol in size.symbols:
        if symbol in t.symbols:
            out *= positions
        elif symbol not in n.symbols:
            return 0
    return out if n.symbols else out // n.number


def fused(
    view: View,
    site: Site,
    unit: Unit,
    removed: list[onnx.NodeProto],
    positions: int,
    reason: str = "",
    place: str = "",
) -> Block:
    """Describe a fused block; `removed` are the nodes that are gone."""
    positions = positions if site.sizes.t.symbols else site.sizes.t.number
    here = {n.output[0] for n in view.ancestors([unit.scores or site.name])}
    flops = written = 0
    for node in removed:
        if node.output[0] not in here:
            continue
        for name in node.output:
            count = 1
            for size in view.shapes.get(name, (Size(0),)):
                count *= _count(size, site, positions) if size.symbols else size.number
            if not site.sizes.n.symbols:
                count //= site.sizes.n.number
            count //= site.sizes.c.number if site.sizes.c is not None else 1
            inner = 1
            if node.op_type in ("MatMul", "Gemm"):
                inner = 2 * view.shapes[node.input[0]][-1].number
                if node.op_type == "MatMul" and node.output[0] == site.name:
                    inner = 2 * positions
            flops += inner * count if node.op_type not in MOVES else 0
            written += 4 * count
    d = len(unit.behaviors)
    hidden = tuple(layer.z.size for layer in unit.layers)
    products = sum(k in unit.weights for k in ("weight_product", "weight_outer"))
    read = {f[0] for f in unit.behaviors if f is not None}
    computed = any(not unit.leaves[leaf].table for leaf in read)
    columns = positions if unit.scores else len(unit.columns)
    return Block(
        name=site.name,
        fused=True,
        reason=reason,
        place=place,
        part="scores" if unit.scores else "whole",
        width=d,
        hidden=hidden,
        activation=unit.activation,
        softmax=unit.softmax,
        mask=unit.mask or "none",
        reads="vectors" if computed else "tables",
        positions=positions,
        flops_before=flops,
        flops_after=operator_flops(d, hidden, products, positions),
        bytes_before=written,
        bytes_after=4 * columns,
    )
