"""The nodes that replace a block: ids, tables and one LocalActivation.

::

    graph inputs ──► ids [N, T] ──► LocalActivation ──► interest [N, D] ──► the block's
    mask, tables, folded weights ──►                    columns, empty       output

One file above 400 lines: every step from a proven unit to the new graph.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from din_converter.functions import (
    DOMAIN,
    LocalActivation,
    function_named,
    local_activation_function,
)
from din_converter.fusing.algebra import Unsupported
from din_converter.fusing.cost import Block, fused
from din_converter.fusing.fuse import Unit, read_units
from din_converter.fusing.layout import UNIT, Part, Size, features
from din_converter.fusing.places import place_of
from din_converter.fusing.sites import Site, find_sites
from din_converter.fusing.values import Leaf
from din_converter.fusing.view import View, names_read
from din_converter.nodes import Nodes, parameter_names
from din_infer.spec import Attention

__all__ = ["fuse_graph"]


@dataclass(frozen=True)
class _Column:
    """Some columns of D: rows of one table, `width` wide, at ids [N, T] or [N]."""

    ids: str
    table: str
    width: int


TABLES = (TensorProto.FLOAT, TensorProto.FLOAT16)


def _leads(leaf: Leaf, wanted: list[str]) -> bool:
    """Whether a leaf's first axes are these, and features come after all of them."""
    return [p for axis in leaf.axes for p in axis][: len(wanted)] == wanted


@dataclass
class _Rewriter:
    """Writes one block's nodes; their names are prefixed with its number."""

    view: View
    site: Site
    unit: Unit
    number: int
    g: Nodes = field(init=False)
    weights: dict[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.g = Nodes(prefix=f"fused.{self.number}.")

    # ------------------------------------------------------------------------- sizes

    def size(self, size: Size) -> str:
        """Return a one-element int64 tensor that holds a size of the graph."""
        if not size.symbols:
            return self.g.constant([size.number])
        names = [i.name for i in self.view.graph.input]
        names += [x.ids or x.value for x in self.unit.leaves]
        names += [x.value for x in self.unit.leaves]
        for name in names:
            for axis, there in enumerate(self.view.shapes.get(name, ())):
                if there == size:
                    return self.g.add("Shape", name, start=axis, end=axis + 1)
        n, c = self.site.sizes.n, self.site.sizes.c
        if c is not None and size == n * c:
            return self.g.add("Mul", self.size(n), self.size(c))
        raise Unsupported("a size that no input has")

    def shape(self, *sizes: Size) -> str:
        """Return the shape of a tensor."""
        parts = [self.size(s) for s in sizes]
        return self.g.add("Concat", *parts, axis=0) if len(parts) > 1 else parts[0]

    def positions(self, *sizes: Size) -> str:
        """Count the rows of a computed table: 0, 1, .. in this shape."""
        count = self.size(sizes[0])
        for s in sizes[1:]:
            count = self.g.add("Mul", count, self.size(s))
        zero, one = self.g.constant(0), self.g.constant(1)
        scalar = self.g.add("Squeeze", count, self.g.constant([0]))
        rows = self.g.add("Range", zero, scalar, one)
        if len(sizes) == 1:
            return rows
        return self.g.add("Reshape", rows, self.shape(*sizes), allowzero=1)

    def requests(self) -> str:
        """Return the row of each candidate: 0, 1, .., or 0, 0, 1, 1, .. of several."""
        sizes = self.site.sizes
        rows = self.positions(sizes.candidates)
        if sizes.c is None:
            return rows
        each = self.g.add("Squeeze", self.size(sizes.c), self.g.constant([0]))
        return self.g.add("Div", rows, each)

    def of_candidates(self, value: str, parts: list[Part]) -> str:
        """Give what each row has to each of its candidates, along the first axis."""
        if self.site.sizes.c is None or "C" in parts:
            return value
        return self.g.add("Gather", value, self.requests(), axis=0)

    # ------------------------------------------------------------------------ features

    def split(self, leaf: Leaf) -> list[_Column] | None:
        """Return the tables and ids of a leaf, one for each row it concatenates."""
        if not leaf.table:
            return None
        parts = [p for axis in leaf.axes for p in axis]
        wanted = ["N", "T"] if leaf.has_positions else ["N"]
        wanted = ["N", "C"] if "C" in parts else wanted
        if leaf.size == features(leaf.axes[-1]) and _leads(leaf, ["T"]):
            wanted = ["T"]
        plain = all(len(axis) <= 1 for axis in leaf.axes[-2:])
        stored = self.view.types.get(leaf.table) in TABLES
        if not (plain and stored) or not _leads(leaf, wanted):
            return None
        width = features(leaf.axes[-1])
        count = leaf.size // width
        known = self.site.sizes
        sizes = tuple(known.of(letter) for letter in wanted)
        if wanted == ["N", "C"]:
            wanted, sizes = ["N"], (known.candidates,)
        if count > 1:
            sizes += (Size(count),)
        ids = leaf.ids
        if self.view.types.get(ids) != TensorProto.INT64:
            ids = self.g.add("Cast", ids, to=TensorProto.INT64)
        whole = self.shape(*sizes)
        if self.view.shapes[leaf.ids] != sizes:
            ids = self.g.add("Reshape", ids, whole, allowzero=1)
        if wanted == ["T"]:
            ids = self.spread(ids)
        if not leaf.has_positions:
            ids = self.of_candidates(ids, parts)
        if count == 1:
            return [_Column(ids, leaf.table, width)]
        fields = (
            self.g.add("Gather", ids, self.g.constant(i), axis=len(wanted))
            for i in range(count)
        )
        return [_Column(field, leaf.table, width) for field in fields]

    def behaviors(self) -> list[_Column]:
        """Return the columns of behaviors: in their tables, or in one made here.

        The operator takes several tables that are constants, or one that is computed.
        """
        unit, n, t = self.unit, self.site.sizes.n, self.site.sizes.t
        used = dict.fromkeys(f[0] for f in unit.behaviors if f is not None)
        leaves = [unit.leaves[number] for number in used]
        zeros = unit.behaviors.count(None)
        empty = self.g.constant(np.zeros((1, zeros))) if zeros else ""
        split = [self.split(leaf) for leaf in leaves]
        if all(s is not None for s in split):
            columns = [c for s in split if s is not None for c in s]
            if zeros:
                first = helper.make_tensor("zero", TensorProto.INT64, [1], [0])
                ids = self.g.add("ConstantOfShape", self.shape(n, t), value=first)
                columns.append(_Column(ids, empty, zeros))
            return columns
        parts = [self.vectors(leaf) for leaf in leaves]
        if zeros:
            rows = self.g.add("Mul", self.size(n), self.size(t))
            shape = self.g.add("Concat", rows, self.g.constant([zeros]), axis=0)
            parts.append(self.g.add("Expand", empty, shape))
        table = parts[0] if len(parts) == 1 else self.g.add("Concat", *parts, axis=1)
        return [_Column(self.positions(n, t), table, len(unit.behaviors))]

    def vectors(self, leaf: Leaf) -> str:
        """Return the features of a leaf as rows of all pairs, [N * T, features]."""
        value, shape = self.floats(leaf.value), self.g.constant([-1, leaf.size])
        if _leads(leaf, ["T"]):
            n, t = self.site.sizes.n, self.site.sizes.t
            whole = self.shape(n, t, Size(leaf.size))
            value = self.g.add("Expand", self.g.add("Reshape", value, shape), whole)
        elif not _leads(leaf, ["N", "T"]):
            raise Unsupported("behaviors that are not batch, positions, features")
        return self.g.add("Reshape", value, shape)

    def spread(self, ids: str) -> str:
        """Give every candidate the ids of all positions, [T]."""
        return self.g.add(
            "Expand", ids, self.shape(self.site.sizes.n, self.site.sizes.t)
        )

    def floats(self, name: str) -> str:
        """Return a value as float32."""
        if self.view.types.get(name) == TensorProto.FLOAT:
            return name
        return self.g.add("Cast", name, to=TensorProto.FLOAT)

    def query(self) -> tuple[list[int], list[_Column]]:
        """Return the operator's slots, and the columns of candidates."""
        direct = self.query_of_tables()
        if direct is not None:
            return direct
        n = self.site.sizes.candidates
        used = dict.fromkeys(f[0] for f in self.unit.query if f is not None)
        starts: dict[int, int] = {}
        parts, at = [], 0
        for number in used:
            leaf = self.unit.leaves[number]
            letters = [p for axis in leaf.axes for p in axis]
            rows = self.size(n if "C" in letters else self.site.sizes.n)
            shape = self.g.add("Concat", rows, self.g.constant([leaf.size]), axis=0)
            rows = self.g.add("Reshape", self.floats(leaf.value), shape, allowzero=1)
            parts.append(self.of_candidates(rows, letters))
            starts[number], at = at, at + leaf.size
        empty = helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0])
        shape = self.g.add("Concat", self.size(n), self.g.constant([1]), axis=0)
        parts.append(self.g.add("ConstantOfShape", shape, value=empty))
        whole = self.g.add("Concat", *parts, axis=1)
        chosen = [at if f is None else starts[f[0]] + f[1] for f in self.unit.query]
        if chosen != list(range(at)) or len(parts) > 2:
            chosen_name = self.g.constant(np.array(chosen, np.int64))
            whole = self.g.add("Gather", whole, chosen_name, axis=1)
        elif len(parts) == 2:
            whole = parts[0]
        return [0], [_Column(self.positions(n), whole, len(chosen))]

    def query_of_tables(self) -> tuple[list[int], list[_Column]] | None:
        """Read whole candidate rows, where every one has a slot of its own."""
        slots: list[int] = []
        columns: list[_Column] = []
        split: dict[int, list[_Column] | None] = {}
        at = 0
        while at < len(self.unit.query):
            there = self.unit.query[at]
            if there is None:
                slots.append(-1)
                at += 1
                continue
            leaf = self.unit.leaves[there[0]]
            if there[0] not in split:
                split[there[0]] = self.split(leaf)
            rows = split[there[0]]
            if rows is None:
                return None
            width = rows[0].width
            whole = [(there[0], there[1] + i) for i in range(width)]
            if there[1] % width or self.unit.query[at : at + width] != whole:
                return None
            slots.append(len(columns))
            columns.append(rows[there[1] // width])
            at += width
        merged: list[int] = []
        for slot in slots:
            if slot < 0 and merged and merged[-1] < 0:
                merged[-1] -= 1
            else:
                merged.append(slot)
        return merged, columns

    # ------------------------------------------------------------------------ the mask

    def mask(self) -> str:
        """Return the mask as float [N, T]."""
        name, sizes = self.unit.mask.removeprefix("~"), self.site.sizes
        shape = self.view.shapes[name]
        found = tuple(s for s in shape if s != UNIT)
        if found not in ((sizes.n, sizes.t), (sizes.t,)):
            raise Unsupported(
                "a mask that is not one value for each position of a history"
            )
        out = name
        negated, kind = self.unit.mask != name, self.view.types[name]
        if negated and kind == TensorProto.BOOL:
            out = self.g.add("Not", out)
        if kind != TensorProto.FLOAT:
            out = self.g.add("Cast", out, to=TensorProto.FLOAT)
        if negated and kind != TensorProto.BOOL:
            out = self.g.add("Sub", self.g.constant(1.0), out)
        if found == (sizes.t,):
            one = self.g.constant([-1])
            return self.spread(self.g.add("Reshape", out, one))
        if shape != (sizes.n, sizes.t):
            whole = self.shape(sizes.n, sizes.t)
            out = self.g.add("Reshape", out, whole, allowzero=1)
        return out

    # --------------------------------------------------------------------------- the op

    def attention(self) -> Attention:
        """Describe the unit as a spec does."""
        unit = self.unit
        pairs = [p for p in ("product", "outer") if f"weight_{p}" in unit.weights]
        return Attention(
            hidden=tuple(layer.z.size for layer in unit.layers),
            activation=unit.activation,
            dice_epsilon=unit.epsilon,
            interactions=tuple(pairs),
            output_activation=unit.output_activation,
            softmax=unit.softmax,
            scale=unit.scale,
        )

    def write(
        self, functions: dict[tuple[object, ...], onnx.FunctionProto]
    ) -> list[_Column]:
        """Write all nodes, the last of which makes the block's own output."""
        unit, n = self.unit, self.site.sizes.n
        if self.view.types.get(self.target) != TensorProto.FLOAT:
            raise Unsupported(
                "values that are not float32: give module.float(), drop any .double()"
            )
        behaviors = self.behaviors()
        slots, query = self.query()
        op = LocalActivation(
            num_fields=len(behaviors),
            query_slots=tuple(slots),
            attention=self.attention(),
            padding="mask" if unit.mask else "attended",
            empty_softmax="zero",
            explain=bool(unit.scores),
        )
        values = {"request_of_candidate": self.requests()}
        if unit.mask:
            values["mask"] = self.mask()
        else:
            zeros = helper.make_tensor("zero", TensorProto.INT64, [1], [0])
            values["lengths"] = self.g.add("ConstantOfShape", self.size(n), value=zeros)
        for side, columns in (("", behaviors), ("candidate_", query)):
            for i, column in enumerate(columns):
                values[f"{side}ids_{i}"] = column.ids
                values[f"{side}table_{i}"] = column.table
        for label, array in self.parameters().items():
            values[label] = f"{self.g.prefix}{label}"
            self.weights[values[label]] = array
        make = partial(local_activation_function, op=op)
        out = self.g.add(
            function_named(functions, "LocalActivation", op.signature, make),
            *(values[i] for i in op.inputs),
            domain=DOMAIN,
            out=tuple(f"{self.g.prefix}{name}" for name in op.outputs),
            **op.attributes,
        )
        if unit.scores:
            self.g.add(
                "Reshape",
                f"{self.g.prefix}weight",
                self.shape(*self.view.shapes[unit.scores]),
                out=unit.scores,
                allowzero=1,
            )
        else:
            self.finish(out, behaviors)
        return behaviors

    @property
    def target(self) -> str:
        """Name the value that is replaced: the interest, or the scores."""
        return self.unit.scores or self.site.name

    def parameters(self) -> dict[str, NDArray[np.float32]]:
        """Return the operator's constants, float32."""
        out = dict(self.unit.weights)
        for number, layer in enumerate(self.unit.layers, start=1):
            names = parameter_names(self.unit.activation, number)
            out |= dict(zip(names, layer.parameters, strict=True))
        return {k: np.ascontiguousarray(v, np.float32) for k, v in out.items()}

    def finish(self, interest: str, behaviors: list[_Column]) -> None:
        """Apply the block's columns, factor, shape and name to the interest."""
        unit, g = self.unit, self.g
        out = interest
        if unit.empty != "zero":
            out = self.fill_empty(out, behaviors)
        if unit.columns != list(range(len(unit.behaviors))):
            chosen = g.constant(np.array(unit.columns, np.int64))
            out = g.add("Gather", out, chosen, axis=1)
        if unit.after != 1.0:
            out = g.add("Mul", out, g.constant(unit.after))
        shape = self.view.shapes[self.site.name]
        several = self.site.sizes.c is not None
        if several:
            out = g.add("Reshape", out, self.shape(*shape), allowzero=1)
        for kind, factor in unit.factors:
            ones = [1] * (len(shape) - 1 if several else 1)
            column = g.add("Reshape", self.floats(factor), g.constant([-1, *ones]))
            out = g.add(kind, out, column)
        if self.site.mean:
            count = g.add("Cast", self.size(self.site.sizes.t), to=TensorProto.FLOAT)
            out = g.add("Div", out, count)
        axis = [i for i, s in enumerate(shape) if i and s == UNIT]
        if len(shape) == 2 or several:
            g.add("Identity", out, out=self.site.name)
        else:
            g.add("Unsqueeze", out, g.constant([axis[0]]), out=self.site.name)

    def fill_empty(self, interest: str, behaviors: list[_Column]) -> str:
        """Set the interest of histories that are all masked, as softmax does."""
        g = self.g
        mask = self.mask()
        kept = g.add("ReduceSum", mask, g.constant([1]), keepdims=0)
        # without any position, the sum over positions is 0 in any case
        some = g.add("Min", g.add("Shape", mask, start=1, end=2), g.constant([1]))
        empty = g.add("Less", kept, g.add("Cast", some, to=TensorProto.FLOAT))
        empty = self.of_candidates(empty, ["N"])
        if self.unit.empty == "nan":
            whole = g.add("Unsqueeze", empty, g.constant([1]))
            return g.add("Where", whole, g.constant(float("nan")), interest)
        # the mean over all positions, computed for the empty rows alone
        rows = g.add("Squeeze", g.add("NonZero", empty), g.constant([0]))
        parts = []
        for column in behaviors:
            ids = self.of_candidates(column.ids, ["N", "T"])
            ids = g.add("Gather", ids, rows, axis=0)
            vectors = g.read_rows(column.table, ids)
            parts.append(g.add("ReduceMean", vectors, g.constant([1]), keepdims=0))
        means = parts[0] if len(parts) == 1 else g.add("Concat", *parts, axis=1)
        where = g.add("Unsqueeze", rows, g.constant([1]))
        return g.add("ScatterND", interest, where, means)


def _rewritten(
    view: View,
    site: Site,
    functions: dict[tuple[object, ...], onnx.FunctionProto],
    written: Collection[str],
) -> tuple[_Rewriter | None, str, str]:
    """Write the nodes of the best proven unit; why it is no better one, and where."""
    why: Unsupported | None = None
    made: _Rewriter | None = None
    for unit in read_units(view, site):
        if isinstance(unit, Unsupported):
            why = unit  # of the way that takes most
            continue
        writer = _Rewriter(view, site, unit, len(written))
        known = dict(functions)
        try:
            writer.write(functions)
        except Unsupported as error:
            why = error if why is None or not unit.scores else why
            functions.clear()
            functions.update(known)
            continue
        made = writer
        break
    if why is None or (made is not None and not made.unit.scores):
        return made, "", ""
    return made, why.reason, place_of(view, why.at or site.weights)


def fuse_graph(
    proto: onnx.ModelProto,
    positions: int,
    leave: Mapping[str, str] | None = None,
) -> list[Block]:
    """Replace every attention block that is proven equal; `proto` changes in place.

    Parameters
    ----------
    proto : ModelProto
        Shapes of all values stated, as ``torch.onnx.export`` does. Opset 18 or newer.
    positions : int
        History length for which the report states costs where T varies.
    leave : mapping of str to str, optional
        Blocks to leave as they are, by name, and the reasons to report.

    Returns
    -------
    list of Block
        Every block found, fused or not, in the graph's order.
    """
    graph = proto.graph
    view = View(graph)
    functions: dict[tuple[object, ...], onnx.FunctionProto] = {}
    written: dict[str, tuple[list[onnx.NodeProto], dict[str, NDArray[Any]]]] = {}
    found: list[tuple[Site, Unit | None, str, str]] = []
    for site in find_sites(view):
        if leave and site.name in leave:
            found.append((site, None, leave[site.name], ""))
            continue
        made, reason, place = _rewritten(view, site, functions, written.keys())
        if made is not None:
            written.setdefault(made.target, (made.g.nodes, made.weights))
        found.append((site, made.unit if made is not None else None, reason, place))
    if not written:
        return [Block(site.name, False, why, place) for site, _, why, place in found]
    needed = {o.name for o in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        made_anew = written.get(node.output[0])
        for n in reversed([node] if made_anew is None else made_anew[0]):
            if needed.intersection(n.output):
                kept.append(n)
                needed.update(names_read(n))
    there = {name for node in kept for name in node.output}
    dropped = [
        n for n in graph.node if n.output[0] in written or n.output[0] not in there
    ]
    blocks = [
        Block(site.name, False, why, place)
        if unit is None
        else fused(view, site, unit, dropped, positions, why, place)
        for site, unit, why, place in found
    ]
    new = onnx.GraphProto(node=kept[::-1])
    new.initializer.extend(t for t in graph.initializer if t.name in needed)
    for _, weights in written.values():
        new.initializer.extend(
            numpy_helper.from_array(v, k) for k, v in weights.items()
        )
    new.value_info.extend(v for v in graph.value_info if v.name in there)
    for part in ("node", "initializer", "value_info"):
        graph.ClearField(part)
    graph.MergeFrom(new)
    proto.functions.extend(functions.values())
    proto.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return blocks
