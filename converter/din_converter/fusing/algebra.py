"""Linear forms over the features of one (candidate, behavior) pair, exact in float64.

A `Form` has F rows; each is a linear combination of atoms:

====================================  ================================================
``("one",)``                          the constant 1
``("q", leaf, j)``, ``("k", leaf, j)``  value j of a candidate's or a behavior's leaf
``("qk", leaf, i, leaf, j)``          the product of two such values
``("h", layer, j)``                   unit j of a hidden layer, after its activation
``("sigmoid", call, j)``              sigmoid of something collinear with a unit
``("gated", call, j)``                that sigmoid times the unit
``("relu", call, j)``                 relu of a unit plus a shift
``("row", call, j)``, ``("rowgated", ..)``  row-wise Dice's sigmoid, and its gated input
``("soft", s, 0)``                    the softmax of score s
``("softoff", s, 0)``, ``("softnan", ..)``  its value where masked: 0, but in empty
                                      histories 1/T, or NaN
====================================  ================================================

The first five are linear: nothing nonlinear has been applied since the last layer. The
activations are recognized by what they compute, not by how they are written: every
elementwise activation is a row over the atoms of one unit, and its coefficients tell
`Algebra.lift` which activation it is.

One file above 400 lines: forms, activations and layers are defined in terms of each
other.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CHOICE",
    "ONE",
    "SOFTMAX",
    "Algebra",
    "Atom",
    "Form",
    "Layer",
    "Unsupported",
    "common_activation",
    "neutral",
    "stack",
    "wider",
]

Array = NDArray[np.float64]
Atom = tuple[Any, ...]
ONE: Atom = ("one",)
LINEAR = ("one", "q", "k", "qk", "h")
NEAR = 1e-9  # relative; float64 arithmetic on float32 weights stays far below
PRODUCT = (
    "a product of an activation and something else than its own input, which Dice and"
    " SiLU multiply it by"
)
PAIR = (
    "a product of two values that both depend on candidate and behavior, as (q - k)**2"
    " and score * score do; q * k is fused"
)
CHOICE = "a torch.where that is neither a mask nor a ReLU or PReLU"
ROW_DICE = "Dice over the units of a row that is not x * (p + alpha * (1 - p))"
SOFTMAX = (
    "weights changed after softmax otherwise than by the mask or one number for each"
    " candidate"
)


class Unsupported(Exception):
    """A value is not, or cannot be proven to be, part of a local activation unit.

    `mixed`: the value depends on candidate and behavior both, so that it cannot be an
    input of the unit either. `at` names the value of the graph where that was found.
    """

    def __init__(self, reason: str, *, mixed: bool = True, at: str = "") -> None:
        super().__init__(reason)
        self.reason, self.mixed, self.at = reason, mixed, at


@dataclass(eq=False)
class Form:
    """F linear combinations; `terms` maps an atom to its coefficients, float64 [F]."""

    size: int
    terms: dict[Atom, Array] = field(default_factory=dict)
    lifted: "Form | None" = None

    @classmethod
    def constant(cls, values: Any) -> "Form":  # noqa: ANN401
        """Make rows that are numbers."""
        values = np.asarray(values, np.float64).reshape(-1)
        return cls(len(values), {ONE: values} if values.any() else {})

    @classmethod
    def of(cls, atoms: Iterable[Atom]) -> "Form":
        """Make one row per atom."""
        atoms = list(atoms)
        eye = np.eye(len(atoms))
        return cls(len(atoms), {a: eye[i] for i, a in enumerate(atoms)})

    def kinds(self) -> set[str]:
        """Return the kinds of atoms that occur."""
        return {a[0] for a in self.terms}

    def is_linear(self) -> bool:
        """Whether no activation was applied since the last layer."""
        return self.kinds() <= set(LINEAR)

    def is_constant(self) -> bool:
        """Whether every row is a number."""
        return self.kinds() <= {"one"}

    def is_zero(self) -> bool:
        """Whether every row is 0."""
        return not self.terms

    def numbers(self) -> Array:
        """Return the rows of a constant form, or the constant part of any."""
        return self.terms.get(ONE, np.zeros(self.size))

    def map(self, f: Any) -> "Form":  # noqa: ANN401
        """Apply a linear map of rows, given on a float64 [F]."""
        terms = {
            a: np.asarray(f(c), np.float64).reshape(-1) for a, c in self.terms.items()
        }
        size = len(np.asarray(f(np.zeros(self.size))).reshape(-1))
        return Form(size, {a: c for a, c in terms.items() if c.any()})

    def take(self, rows: NDArray[np.int64]) -> "Form":
        """Take rows, in any order and number."""
        if len(rows) == self.size and (rows == np.arange(self.size)).all():
            return self
        return self.map(lambda c: c[rows])

    def scale(self, by: Array | float) -> "Form":
        """Multiply each row by a number."""
        return self.map(lambda c: c * by)

    def plus(self, other: "Form", sign: float = 1.0) -> "Form":
        """Add two forms of equal size."""
        terms = dict(self.terms)
        for atom, column in other.terms.items():
            with np.errstate(invalid="ignore"):  # of inf - inf, which equals nothing
                total = terms.pop(atom, 0.0) + sign * column
            if total.any():
                terms[atom] = total
        return Form(self.size, terms)

    def minus(self, other: "Form") -> "Form":
        """Subtract a form of equal size."""
        return self.plus(other, -1.0)

    def row(self, i: int) -> dict[Atom, float]:
        """Return one row as atom -> coefficient."""
        return {a: float(c[i]) for a, c in self.terms.items() if c[i] != 0.0}


def stack(forms: list[Form]) -> Form:
    """Concatenate rows."""
    size = sum(f.size for f in forms)
    terms: dict[Atom, Array] = {}
    at = 0
    for form in forms:
        for atom, column in form.terms.items():
            terms.setdefault(atom, np.zeros(size))[at : at + form.size] = column
        at += form.size
    return Form(size, terms)


def ratio(row: dict[Atom, float], unit: dict[Atom, float]) -> float | None:
    """Return c where row = c * unit; None where there is no such number."""
    if not row:
        return 0.0
    if not unit:
        return None
    top = max(unit, key=lambda a: abs(unit[a]))
    c = row.get(top, 0.0) / unit[top]
    largest = max(abs(v) for v in row.values())
    if not np.isfinite(largest):
        return None  # everything is near to infinity
    for atom in row.keys() | unit.keys():
        if abs(row.get(atom, 0.0) - c * unit.get(atom, 0.0)) > NEAR * largest:
            return None
    return c


@dataclass
class Layer:
    """A hidden layer: h = activation(z); `parameters` are [H] each, as the op's are."""

    kind: str
    z: Form
    parameters: list[Array]
    epsilon: float = 0.0


@dataclass
class _Call:
    """One elementwise nonlinear op: of unit + b, row by row.

    For row-wise Dice `units` are the rows themselves, with their constants.
    """

    kind: str
    units: list[dict[Atom, float]]
    b: Array
    epsilon: float = 0.0
    form: Form | None = None


@dataclass
class _Row:
    """One recognized activation: scale * activation(z) + offset."""

    kind: str
    z: dict[Atom, float]
    parameters: tuple[float, ...] = ()
    scale: float = 1.0
    offset: float = 0.0


class Algebra:
    """Makes activations of forms, and layers of activations."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.calls: list[_Call] = []
        self._firsts: dict[Any, list[tuple[int, int]]] = {}

    # ------------------------------------------------------------------ activations

    def _unit(self, row: dict[Atom, float]) -> dict[Atom, float]:
        """Drop the constant of a row."""
        return {a: c for a, c in row.items() if a != ONE}

    def _call(self, kind: str, x: Form, epsilon: float = 0.0) -> tuple[int, _Call]:
        units = [self._unit(x.row(i)) for i in range(x.size)]
        call = _Call(kind, units, x.numbers().copy(), epsilon)
        self.calls.append(call)
        return len(self.calls) - 1, call

    def _first(
        self, kind: str, unit: dict[Atom, float], b: float, here: tuple[int, int]
    ) -> tuple[tuple[int, int], float]:
        """Find the first call of the same `unit + b` up to a factor, and the factor.

        A row that differs by less than rounding but looks another way is a call of its
        own, which only leaves more unfused.
        """
        top = max(unit, key=lambda a: (abs(unit[a]), str(a)))
        key = (kind, frozenset(unit), float(f"{b / unit[top] + 0.0:.6g}"))
        for number, j in self._firsts.setdefault(key, []):
            call = self.calls[number]
            c = ratio(unit, call.units[j])
            size = max(abs(b), *map(abs, unit.values()))
            if c and abs(b - c * call.b[j]) <= NEAR * size:
                return (number, j), c
        self._firsts[key].append(here)
        return here, 1.0

    def sigmoid(self, x: Form) -> Form:
        """Apply the sigmoid to every row."""
        x = x if x.is_linear() else self.lift(x)
        number, call = self._call("sigmoid", x)
        rows = []
        for j, unit in enumerate(call.units):
            if not unit:
                rows.append(Form.constant([1.0 / (1.0 + np.exp(-call.b[j]))]))
                continue
            at, c = self._first("sigmoid", unit, float(call.b[j]), (number, j))
            if abs(abs(c) - 1.0) > NEAR:
                at, c = (number, j), 1.0
            row = Form.of([("sigmoid", *at)])
            # sigmoid(-z) = 1 - sigmoid(z)
            rows.append(row if c > 0.0 else Form.constant([1.0]).minus(row))
        return stack(rows)

    def relu(self, x: Form) -> Form:
        """Apply max(0, x) to every row."""
        x = x if x.is_linear() else self.lift(x)
        number, call = self._call("relu", x)
        rows = []
        for j, unit in enumerate(call.units):
            if not unit:
                rows.append(Form.constant([max(0.0, call.b[j])]))
                continue
            at, c = self._first("relu", unit, float(call.b[j]), (number, j))
            row = Form.of([("relu", *at)]).scale(abs(c))
            # relu(-z) = relu(z) - z
            rows.append(row if c > 0.0 else row.plus(x.take(np.array([j]))))
        return stack(rows)

    def row_sigmoid(self, x: Form, epsilon: float) -> Form:
        """Apply row-wise Dice's p: the rows less their mean, by their spread."""
        x = x if x.is_linear() else self.lift(x)
        number, call = self._call("row", x, epsilon)
        call.form = x
        return Form.of([("row", number, j) for j in range(x.size)])

    def product(self, x: Form, y: Form) -> Form:
        """Multiply row by row; Unsupported where no activation or pair comes of it."""
        if x.is_constant():
            return _scaled(y, x.numbers())
        if y.is_constant():
            return _scaled(x, y.numbers())
        if x.is_linear() and y.is_linear():
            return _pairs(x, y)
        if y.is_linear():
            x, y = y, x
        if not x.is_linear():
            raise Unsupported(PRODUCT)
        out = Form(x.size)
        for atom, column in y.terms.items():
            if atom == ONE:
                out = out.plus(x.scale(column))
                continue
            for i in np.flatnonzero(column):
                terms = self._gate(x.row(int(i)), atom)
                for a, c in terms.items():
                    more = np.zeros(x.size)
                    more[i] = c * column[i]
                    out = out.plus(Form(x.size, {a: more}))
        return out

    def _gate(self, x: dict[Atom, float], atom: Atom) -> dict[Atom, float]:
        """Multiply a linear row by an atom of an activation."""
        kind, number, j = atom[:3]
        constant, rest = x.get(ONE, 0.0), self._unit(x)
        if not rest:
            return {atom: constant}
        call = self.calls[number] if kind in ("sigmoid", "row") else None
        if kind == "sigmoid" and call is not None:
            c = ratio(rest, call.units[j])
            if c is not None:
                out = {("gated", number, j): c, atom: constant}
                return {a: v for a, v in out.items() if v != 0.0}
        if kind == "row" and call is not None and call.form is not None:
            c = ratio(x, call.form.row(j))
            if c is not None:
                return {("rowgated", number, j): c}
        raise Unsupported(PRODUCT)

    def ratios(self, x: Form, y: Form) -> Array:
        """Return c with x = c * y, row by row; Unsupported where there is none."""
        out = np.zeros(x.size)
        for i in range(x.size):
            c = ratio(x.row(i), y.row(i))
            if c is None:
                raise Unsupported(CHOICE)
            out[i] = c
        return out

    # ----------------------------------------------------------------------- layers

    def lift(self, x: Form) -> Form:
        """Close a layer: rows of activations become units of a new hidden layer.

        Returns a linear form of the same size over the new layer's units.
        """
        if x.is_linear():
            return x
        if x.lifted is None:
            x.lifted = self._lift(x)
        return x.lifted

    def beside(self, x: Form, other: Form) -> Form:
        """Return x as it is lifted, where what is added to it reads that layer."""
        if x.lifted is None:
            return x
        read = {a[1] for a in other.terms if a[0] == "h"}
        for kind, number, *row in (a for a in other.terms if a[0] not in LINEAR):
            if kind in ("relu", "sigmoid", "gated"):
                unit = self.calls[number].units[row[0]]
                read |= {a[1] for a in unit if a[0] == "h"}
        layers = {a[1] for a in x.lifted.terms if a[0] == "h"}
        return x.lifted if layers & read else x

    def _lift(self, x: Form) -> Form:
        if x.kinds() & {"soft", "softoff", "softnan"}:
            raise Unsupported(SOFTMAX)
        live = [(i, r) for i in range(x.size) for r in self._recognize(x.row(i))]
        kinds = {r.kind for _, r in live}
        number = len(self.layers)
        if kinds == {"row_dice"}:
            return self._lift_row_dice(x)
        kind = _common(kinds)
        z = Form(len(live))
        for j, (_, r) in enumerate(live):
            for atom, c in r.z.items():
                z.terms.setdefault(atom, np.zeros(len(live)))[j] = c
        wide = [r.parameters or neutral(r.kind, kind) for _, r in live]
        parameters = [np.array(p) for p in zip(*wide, strict=True)] if wide[0] else []
        self.layers.append(Layer(kind, z, parameters))
        out = Form(x.size)
        offset = x.numbers().copy()
        for j, (i, r) in enumerate(live):
            column = np.zeros(x.size)
            column[i] = r.scale
            offset[i] += r.offset
            out.terms["h", number, j] = column
        return out.plus(Form.constant(offset))

    def _lift_row_dice(self, x: Form) -> Form:
        """Row-wise Dice needs all of its rows, in one layer."""
        numbers = {a[1] for a in x.terms if a[0] in ("row", "rowgated")}
        call = self.calls[numbers.pop()]
        if numbers or call.form is None:
            raise Unsupported(ROW_DICE)
        size = call.form.size
        number = len(self.layers)
        alphas, columns = np.ones(size), np.zeros((size, x.size))
        offset = x.numbers().copy()
        for i in range(x.size):
            row = x.row(i)
            gates = [a for a in row if a[0] == "rowgated"]
            if len(gates) != 1 or {a[0] for a in row} & {"row"}:
                raise Unsupported(ROW_DICE)
            ((_, _, j),) = gates
            rest = {a: c for a, c in row.items() if a[0] in LINEAR}
            through = ratio(rest, call.form.row(j))
            if through is None:
                raise Unsupported(ROW_DICE)
            scale = through + row[gates[0]]
            if scale == 0.0 or columns[j].any():
                raise Unsupported(ROW_DICE)
            alphas[j], columns[j, i], offset[i] = through / scale, scale, 0.0
        self.layers.append(Layer("row_dice", call.form, [alphas], call.epsilon))
        terms = {("h", number, j): columns[j] for j in range(size) if columns[j].any()}
        return Form(x.size, terms).plus(Form.constant(offset))

    def _recognize(self, row: dict[Atom, float]) -> list[_Row]:
        """Tell which activations a row is the sum of; none for a number.

        Their offsets come beside the row's own constant.
        """
        gates = {a: c for a, c in row.items() if a[0] not in LINEAR}
        linear = self._unit({a: c for a, c in row.items() if a[0] in LINEAR})
        calls = sorted({(a[1], a[2]) for a in gates})
        row_wise = [self.calls[number].kind == "row" for number, _ in calls]
        if any(row_wise):
            if not all(row_wise):
                raise Unsupported(ROW_DICE)
            return [_Row("row_dice", {})]
        out = []
        for number, j in calls:
            call = self.calls[number]
            unit, b = call.units[j], float(call.b[j])
            through = ratio(linear, unit) if len(calls) == 1 else None
            if through is not None:
                linear = {}
            if call.kind == "relu":
                gate = gates["relu", number, j]
                out.append(_relu_row(unit, b, through or 0.0, gate))
                continue
            gated = gates.get(("gated", number, j), 0.0)
            plain = gates.get(("sigmoid", number, j), 0.0)
            out += _sigmoid_rows(unit, b, through or 0.0, gated, plain)
        if linear:  # passed on, as around a residual layer
            out.append(_Row("none", linear))
        return out


def _scaled(x: Form, by: Array) -> Form:
    """Scale rows; a factor 0 leaves a NaN one."""
    out = x.scale(by)
    for atom in x.terms:
        if atom[0] == "softnan" and atom not in out.terms:
            out.terms[atom] = np.ones(x.size)
    return out


def _pairs(x: Form, y: Form) -> Form:
    """Multiply linear forms: candidate values by behavior values alone make pairs."""
    out: dict[Atom, Array] = {}
    for a, ca in x.terms.items():
        for b, cb in y.terms.items():
            both = ca * cb
            if not both.any():
                continue
            if ONE in (a, b):
                atom = b if a == ONE else a
            elif {a[0], b[0]} == {"q", "k"}:
                q, k = (a, b) if a[0] == "q" else (b, a)
                atom = ("qk", q[1], q[2], k[1], k[2])
            else:
                raise Unsupported(PAIR)
            out[atom] = out[atom] + both if atom in out else both
    return Form(x.size, {a: c for a, c in out.items() if c.any()})


def _times(unit: dict[Atom, float], c: float, constant: float) -> dict[Atom, float]:
    out = {a: c * v for a, v in unit.items()}
    if constant != 0.0:
        out[ONE] = constant
    return out


def _relu_row(unit: dict[Atom, float], b: float, through: float, gate: float) -> _Row:
    """Read through * u + gate * relu(u + b)."""
    z = _times(unit, 1.0, b)
    if through == 0.0:
        return _Row("relu", z, scale=gate)
    total = through + gate
    if abs(total) <= NEAR * abs(through):  # relu(z) - z = relu(-z)
        z = _times(unit, -1.0, -b)
        return _Row("relu", z, scale=gate, offset=gate * b)
    # through * z + gate * relu(z), less what the shift adds
    return _Row("prelu", z, (through / total,), total, -through * b)


def _sigmoid_rows(
    unit: dict[Atom, float], b: float, through: float, gated: float, plain: float
) -> list[_Row]:
    """Read through * u + (gated * u + plain) * sigmoid(u + b)."""
    if gated == 0.0:
        rest = [_Row("none", unit, scale=through)] if through else []
        return [_Row("sigmoid", _times(unit, 1.0, b), scale=plain), *rest]
    slope = through + gated
    if through == 0.0 and abs(plain - gated * b) <= NEAR * max(abs(plain), abs(gated)):
        return [_Row("silu", _times(unit, 1.0, b), scale=gated)]
    if abs(slope) <= NEAR * abs(gated):
        raise Unsupported("a sigmoid times its input that is neither Dice nor SiLU")
    # x = slope * u + shift, p = sigmoid(u + b) = sigmoid(x / slope + b - shift / slope)
    shift = plain * slope / gated
    alpha = through / slope
    parameters = (1.0 / slope, b - shift / slope, alpha)
    z = _times(unit, slope, shift)
    return [_Row("dice", z, parameters, offset=-alpha * shift)]


def _common(kinds: set[str]) -> str:
    """Find one activation that can express all those of a layer, or of all layers."""
    kinds = kinds or {"none"}
    if len(kinds) == 1:
        return next(iter(kinds))
    if kinds <= {"none", "relu", "prelu"}:
        return "prelu"
    if kinds <= {"none", "silu", "dice"}:
        return "dice"
    named = ", ".join(sorted(kinds))
    reason = f"different activations in the unit ({named})"
    if "none" in kinds:
        reason += ", where it passes a value on beside a layer"
    else:
        reason += ": all hidden layers need one kind; |x|, max and min count as PReLU"
    raise Unsupported(reason)


def wider(kind: str) -> str:
    """Name the activation that computes `kind` in some units and nothing in others."""
    try:
        return _common({kind, "none"})
    except Unsupported:
        reason = (
            f"a term added to the score, whose last layer is {kind}: PReLU, ReLU, SiLU"
            " and Dice can pass it on"
        )
        raise Unsupported(reason) from None


def neutral(kind: str, wider: str) -> tuple[float, ...]:
    """Return the parameters with which `wider` computes `kind`."""
    if wider == "prelu":
        return (1.0,) if kind == "none" else (0.0,)
    if wider == "dice":
        return (1.0, 0.0, 1.0) if kind == "none" else (1.0, 0.0, 0.0)
    return ()


def common_activation(layers: list[Layer]) -> str:
    """Express all layers in one activation; their parameters are filled in."""
    kind = _common({layer.kind for layer in layers})
    if len({layer.epsilon for layer in layers}) > 1:
        raise Unsupported("Dice over the units of a row with different epsilons")
    for layer in layers:
        if not layer.parameters:
            size = layer.z.size
            values = neutral(layer.kind, kind)
            layer.parameters = [np.full(size, v) for v in values]
        layer.kind = kind
    return kind
