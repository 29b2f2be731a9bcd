"""The local activation unit that computes a site's weights, read from the graph.

`read_units` reads weights and behaviors with a `Reader` and lays the layers out as
LocalActivation takes them. What cannot be proven is Unsupported.

One file above 400 lines: every step from a site to a proven unit.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from din_converter.fusing.algebra import (
    ONE,
    SOFTMAX,
    Algebra,
    Atom,
    Form,
    Layer,
    Unsupported,
    common_activation,
    neutral,
    stack,
    wider,
)
from din_converter.fusing.layout import UNIT, Axes, Shape
from din_converter.fusing.operators_choice import CHOICE
from din_converter.fusing.operators_layout import LAYOUT
from din_converter.fusing.operators_linear import LINEAR
from din_converter.fusing.reader import Reader
from din_converter.fusing.sites import Site
from din_converter.fusing.values import Leaf, Piece, Weighted, common_mask
from din_converter.fusing.view import View, names_read

__all__ = ["Unit", "read_units"]

OPERATORS = LAYOUT | LINEAR | CHOICE
OUTER_LIMIT = 1 << 22
MOVED = ("Unsqueeze", "Squeeze", "Reshape", "Identity", "Cast")
COUNTED = (
    "masked positions whose weight is not 0: multiply the weights by the mask, or fill"
    " scores with -1e9 before softmax"
)
HEADS = (
    "several weights for each candidate and behavior, as heads have: a fused unit gives"
    " one"
)
OTHERS = (
    "a softmax over all positions, masked after it: fill masked scores with -1e9 before"
)
ROUNDED = (
    "-1e9 added to masked scores, so that rounding decides what an empty history gives:"
    " multiply the weights by the mask after softmax, or use masked_fill"
)
VALUES = "a sum of values that depend on the candidate, too: sum the behaviors alone"
OUTPUT_ACTIVATIONS = ("sigmoid", "relu", "silu")


@dataclass
class Unit:
    """A local activation unit over D features, as the operator takes it.

    `behaviors` and `query` have, for each column of D, its (leaf, feature); None is a
    zero. `columns` are the columns of the interest that the graph uses. `scores` names
    the value that is replaced where that is not the interest but the scores. `factors`
    are numbers per candidate by which the interest is multiplied, or divided.
    """

    behaviors: list[tuple[int, int] | None]
    query: list[tuple[int, int] | None]
    leaves: list[Leaf]
    columns: list[int]
    layers: list[Layer]
    output: Form
    weights: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    activation: str = "none"
    epsilon: float = 1e-8
    output_activation: str = "none"
    scale: float = 1.0
    softmax: bool = False
    mask: str = ""
    empty: str = "zero"
    after: float = 1.0
    scores: str = ""
    factors: list[tuple[str, str]] = field(default_factory=list)


def read_units(view: View, site: Site) -> Iterator[Unit | Unsupported]:
    """Read a site as a local activation unit in every way there is, the best first.

    The behaviors are read down to table rows where they are unchanged rows. Behaviors
    that are computed from rows are taken as computed; at last, queries too. Where what
    is done to the scores is nothing that the operator does, the scores alone are read.
    Why a way failed is yielded, but for the scores.
    """
    weights, factors = _peeled(view, site)
    ways: list[Callable[[Reader], Unit]] = [partial(_read, site=site)]
    if factors:
        ways.append(partial(_read, site=site, weights=weights, factors=factors))
    source = _source(view, site.behaviors)
    choices = (("", False), (source, False), (source, True))
    for way in ways:
        for opaque, closed in choices:
            try:
                yield way(Reader(view, site.sizes, opaque, closed, OPERATORS))
            except Unsupported as error:
                yield error
    for opaque, closed in choices:
        with contextlib.suppress(Unsupported):
            yield _read_scores(
                Reader(view, site.sizes, opaque, closed, OPERATORS), site
            )


def _source(view: View, name: str) -> str:
    """Find the value that behaviors are, before they were only laid out."""
    kinds = ("Transpose", "Identity", "Unsqueeze", "Expand")
    while (node := view.producer.get(name)) is not None and node.op_type in kinds:
        name = node.input[0]
    return name


def _peeled(view: View, site: Site) -> tuple[str, list[tuple[str, str]]]:
    """Take factors per candidate off the weights: what is left; (Mul or Div, name)."""
    name, factors = site.weights, list[tuple[str, str]]()
    while (node := view.producer.get(name)) is not None:
        whole = node.op_type == "Slice" and view.numbers(node.input[1]) == [0]
        whole &= view.shapes.get(node.input[0]) == view.shapes.get(name)
        if whole or node.op_type in ("Unsqueeze", "Squeeze", "Reshape", "Identity"):
            name = node.input[0]
            continue
        if node.op_type not in ("Mul", "Div"):
            break
        out = view.shapes.get(name)
        pairs = [tuple(node.input), tuple(node.input)[::-1]][
            : 1 + (node.op_type == "Mul")
        ]
        found = [
            (rest, factor)
            for rest, factor in pairs
            if view.shapes.get(rest) == out and _per_candidate(view, site, factor, out)
        ]
        if not found or (node.op_type == "Div" and not _is_positive(view, found[0][1])):
            break
        name, factor = found[0]
        factors.append((node.op_type, factor))
    return name, factors


def _per_candidate(view: View, site: Site, name: str, out: Shape | None) -> bool:
    """Whether a value is one number for each candidate, whatever its position."""
    shape = view.shapes.get(name)
    if shape is None or out is None or not shape or name in view.constants:
        return False
    if [s for s in shape if s != UNIT] != [site.sizes.n]:
        return False
    at = len(out) - len(shape) + shape.index(site.sizes.n)
    return out[at] == site.sizes.n and site.sizes.n != site.sizes.t


def _is_positive(view: View, name: str) -> bool:
    """Whether a value is kept above 0: a sum over it may be divided after."""
    node = view.producer.get(name)
    while node is not None and node.op_type in (*MOVED, "Sqrt"):
        node = view.producer.get(node.input[0])
    if node is None or node.op_type not in ("Clip", "Max"):
        return False
    least = [view.constants.get(i) for i in node.input[:2]]
    return any(c is not None and bool((c > 0).all()) for c in least)


def _read_scores(reader: Reader, site: Site) -> Unit:
    """Read the scores that the weights are made of: the last value that is a unit's."""
    view, wanted = reader.view, [site.sizes.of(letter) for letter in site.letters]
    todo, seen = [site.weights], set[str]()
    while todo:
        name = todo.pop(0)
        node = view.producer.get(name)
        if name in seen or node is None:
            continue
        seen.add(name)
        todo += names_read(node)
        if [s for s in view.shapes.get(name, ()) if s != UNIT] != wanted:
            continue
        try:
            return _scores(reader, site, name)
        except Unsupported:
            continue
    raise Unsupported("no scores of a unit")


def _scores(reader: Reader, site: Site, name: str) -> Unit:
    found = reader.piece(name)
    parts = [p for axis in found.axes for p in axis]
    if (
        found.mask
        or parts != site.letters
        or reader.view.types[name] != TensorProto.FLOAT
    ):
        raise Unsupported("no scores of a unit")
    layers, output = _chain(reader.algebra, found.on)
    if not layers:
        raise Unsupported("no layers, which cost little")
    unit = Unit([], [], reader.leaves, [], layers, output, scores=name)
    _output_activation(unit)
    _place(unit, None)
    return unit


def _read(
    reader: Reader,
    site: Site,
    weights: str = "",
    factors: Sequence[tuple[str, str]] = (),
) -> Unit:
    weight, behavior = _weighted(reader, site, weights)
    mask = _mask(weight, behavior)
    score, softmax, empty, after = _score(reader, weight, mask)
    if empty == "uniform" and behavior.off is not None and behavior.off.is_zero():
        empty = "zero"
    layers, output = _chain(reader.algebra, score)
    unit = Unit([], [], reader.leaves, [], layers, output, softmax=softmax)
    unit.mask, unit.empty, unit.after = mask, empty, after
    unit.factors = list(factors)
    _output_activation(unit)
    _place(unit, behavior.on)
    for number in dict.fromkeys(f[0] for f in unit.behaviors if f is not None):
        reader.check_leaf(unit.leaves[number])
    return unit


def _place(unit: Unit, behaviors: Form | None) -> None:
    """Lay out features and weights; `behaviors` are what the interest sums."""
    first = unit.layers[0].z if unit.layers else unit.output
    _place_behaviors(unit, behaviors, first)
    pairs = _place_query(unit, first)
    if unit.layers:
        unit.activation = common_activation(unit.layers)
        unit.epsilon = unit.layers[0].epsilon or unit.epsilon
    _weigh(unit, first, pairs)


def _weighted(reader: Reader, site: Site, weights: str) -> tuple[Piece, Piece]:
    if weights:
        weight = reader.piece(weights).alive()
        behavior = reader.piece(site.behaviors).alive()
        if [p for axis in weight.axes for p in axis] != site.letters:
            raise Unsupported(
                "weights that are not one number for each candidate and position"
            )
        _expect(behavior.axes, site.behavior_axes)
    elif site.product:
        found = reader.value(site.product)
        if not isinstance(found, Weighted):
            reason = (
                "a sum of something else than a weight for each position by behavior"
            )
            raise Unsupported(reason)
        weight, behavior = found.weight, found.behavior
        _expect(found.axes, site.behavior_axes.replace("1", "C"))
    else:
        weight = reader.piece(site.weights).alive()
        behavior = reader.piece(site.behaviors).alive()
        _expect(weight.axes, site.weight_axes)
        _expect(behavior.axes, site.behavior_axes)
    if not weight.is_scalar or behavior.on.kinds() - {"k"}:
        raise Unsupported(VALUES)
    return weight, behavior


def _expect(axes: Axes, letters: str) -> None:
    """Refuse a sum over another axis that is as long as the positions."""
    for axis, letter in zip(axes, letters, strict=True):
        names = [p for p in axis if isinstance(p, str)]
        if names != ([letter] if letter in "NCT" else []):
            if "C" in letters:
                raise Unsupported(HEADS)
            raise Unsupported(
                "a sum over another axis than the positions of the history"
            )


def _mask(weight: Piece, behavior: Piece) -> str:
    mask = common_mask(weight, behavior)
    if not mask:
        return ""
    gone = [p.off is not None and p.off.is_zero() for p in (weight, behavior)]
    fades = weight.off is not None and (
        weight.off.kinds() in ({"softoff"}, {"softnan"})
    )
    reversed_ = any(p.mask not in ("", mask) for p in (weight, behavior))
    if reversed_ or not (any(gone) or fades):
        raise Unsupported(COUNTED)
    return mask


def _score(reader: Reader, weight: Piece, mask: str) -> tuple[Form, bool, str, float]:
    """Return the score, whether under softmax, the result if empty, and a factor."""
    kinds = weight.on.kinds()
    if not kinds & {"soft", "softoff", "softnan"}:
        return weight.on, False, "zero", 1.0
    if kinds != {"soft"} or len(weight.on.terms) != 1:
        raise Unsupported(SOFTMAX)
    ((atom, factor),) = weight.on.terms.items()
    soft = reader.softs[atom[1]]
    if soft.mask != mask:
        raise Unsupported(OTHERS)
    empty = soft.empty
    if weight.off is not None and weight.off.is_zero():
        empty = "zero"
    if empty == "unknown":
        raise Unsupported(ROUNDED)
    return soft.score, True, "zero" if empty == "none" else empty, float(factor[0])


def _chain(algebra: Algebra, score: Form) -> tuple[list[Layer], Form]:
    """Follow a score down its layers to the features of the pair.

    What a layer reads beside the one before it, as a bias added to the score, passes
    through that one in units of its own.
    """
    output = algebra.lift(score)
    layers: list[Layer] = []
    form = output
    while form.kinds() & {"h"}:
        number = max(a[1] for a in form.terms if a[0] == "h")
        layer = algebra.layers[number]
        beside = {a for a in form.terms if a[:2] != ("h", number) and a != ONE}
        if beside:
            layer, form = _passed(layer, number, form, beside)
            if layers:
                layers[0] = replace(layers[0], z=form)
            else:
                output = form
        layers.insert(0, layer)
        form = layer.z
    if not form.kinds() & {"q", "k", "qk"}:
        raise Unsupported("weights that depend on neither candidate nor behavior")
    return layers, output


def _passed(
    layer: Layer, number: int, form: Form, beside: set[Atom]
) -> tuple[Layer, Form]:
    """Let a layer pass on what is read beside it; the layer, and what reads it then."""
    kind = wider(layer.kind)
    rest = Form(form.size, {a: c for a, c in form.terms.items() if a in beside})
    rows = [i for i in range(form.size) if rest.row(i)]
    passed = rest.take(np.array(rows, np.int64))
    width = layer.z.size
    terms = {a: c for a, c in form.terms.items() if a not in beside}
    for j, i in enumerate(rows):
        column = np.zeros(form.size)
        column[i] = 1.0
        terms["h", number, width + j] = column
    own = layer.parameters or [np.full(width, v) for v in neutral(layer.kind, kind)]
    plain = [np.full(len(rows), v) for v in neutral("none", kind)]
    parameters = [np.concatenate(pair) for pair in zip(own, plain, strict=True)]
    made = Layer(kind, stack([layer.z, passed]), parameters, layer.epsilon)
    return made, Form(form.size, terms)


def _output_activation(unit: Unit) -> None:
    """Take a last layer of one unit as an activation of the score, where it is one."""
    if not unit.layers or unit.layers[-1].z.size != 1:
        return
    last, others = unit.layers[-1], unit.layers[:-1]
    terms = {a: float(c[0]) for a, c in unit.output.terms.items()}
    plain = len(terms) == 1 and ONE not in terms
    differs = not others or any(x.kind != last.kind for x in others)
    if plain and differs and last.kind in OUTPUT_ACTIVATIONS:
        unit.output_activation = last.kind
        unit.scale = next(iter(terms.values()))
        unit.output, unit.layers = last.z, others


def _place_behaviors(unit: Unit, behaviors: Form | None, first: Form) -> None:
    """Assign a column of D to every feature of the leaves that are read."""
    wanted = []
    for i in range(behaviors.size if behaviors is not None else 0):
        row = behaviors.row(i) if behaviors is not None else {}
        if len(row) != 1 or next(iter(row.values())) != 1.0:
            raise Unsupported("behaviors that are computed from several features")
        ((_, leaf, j),) = row
        wanted.append((leaf, j))
    order = [leaf for leaf, _ in wanted]
    order += [a[1] for a in first.terms if a[0] == "k"]
    order += [a[3] for a in first.terms if a[0] == "qk"]
    for leaf in dict.fromkeys(order):
        unit.behaviors += [(leaf, j) for j in range(unit.leaves[leaf].size)]
    at = {feature: i for i, feature in enumerate(unit.behaviors)}
    unit.columns = [at[feature] for feature in wanted]


def _place_query(unit: Unit, first: Form) -> str:
    """Place candidate features so that products are of equal columns.

    Returns how pairs enter: "none", "product", or "outer" where no placing does.
    """
    at = {feature: i for i, feature in enumerate(unit.behaviors)}
    unit.query = [None] * len(unit.behaviors)
    pairs = [a for a in first.terms if a[0] == "qk"]
    placed: dict[tuple[int, int], int] = {}
    product = "product" if pairs else "none"
    for _, q, i, k, j in pairs:
        column = at[k, j]
        there = unit.query[column]
        if (there not in (None, (q, i))) or placed.get((q, i), column) != column:
            product = "outer"
            break
        unit.query[column], placed[q, i] = (q, i), column
    leaves = list(dict.fromkeys(a[1] for a in first.terms if a[0] in ("q", "qk")))
    if product == "outer":
        unit.query, placed = [None] * len(unit.behaviors), {}
        if len(unit.query) ** 2 * first.size > OUTER_LIMIT:
            width = len(unit.query)
            reason = (
                f"an outer product of {width} by {width} features, which is too wide"
            )
            raise Unsupported(reason)
    for leaf in leaves:
        size = unit.leaves[leaf].size
        missing = [(leaf, j) for j in range(size) if (leaf, j) not in placed]
        free = [i for i, there in enumerate(unit.query) if there is None]
        start = _run(free, len(missing)) if len(missing) == size else None
        columns = free if start is None else range(start, start + size)
        if len(columns) < len(missing):
            # behaviors get columns of zeros
            more = len(missing) - len(free)
            columns = [*free, *range(len(unit.query), len(unit.query) + more)]
            unit.behaviors += [None] * more
            unit.query += [None] * more
        for feature, column in zip(missing, columns, strict=False):
            unit.query[column], placed[feature] = feature, column
    return product


def _run(free: list[int], size: int) -> int | None:
    """Find `size` free columns in a row."""
    for start in free:
        if all(start + i in free for i in range(size)):
            return start
    return None


def _weigh(unit: Unit, first: Form, pairs: str) -> None:
    """Write the first layer as the operator's matrices, and the others'."""
    width, h = len(unit.behaviors), first.size
    at_k: dict[Atom, int] = {("k", *f): i for i, f in enumerate(unit.behaviors) if f}
    at_q: dict[Atom, int] = {("q", *f): i for i, f in enumerate(unit.query) if f}
    query, behavior = np.zeros((width, h)), np.zeros((width, h))
    product, outer = np.zeros((width, h)), None
    if pairs == "outer":
        outer = np.zeros((width, width, h))
    for atom, column in first.terms.items():
        if atom[0] == "q":
            query[at_q[atom]] += column
        elif atom[0] == "k":
            behavior[at_k[atom]] += column
        elif atom[0] == "qk":
            i, j = at_q["q", atom[1], atom[2]], at_k["k", atom[3], atom[4]]
            if outer is not None:
                outer[i, j] += column
            else:
                product[j] += column
    w = {"weight_query": query, "weight_behavior": behavior}
    if pairs == "product":
        w["weight_product"] = product
    if outer is not None:
        w["weight_outer"] = outer.reshape(width, width * h)
    forms = [layer.z for layer in unit.layers] + [unit.output]
    for number, form in enumerate(forms, start=1):
        if number > 1:
            matrix = np.zeros((forms[number - 2].size, form.size))
            for atom, column in form.terms.items():
                if atom != ONE:
                    matrix[atom[2]] = column
            w[f"weight_{number}"] = matrix
        w[f"bias_{number}"] = form.numbers()
    unit.weights = w
