"""Activations are recognized by what they compute; layouts never mix their axes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from din_converter.fusing.algebra import (
    ONE,
    Algebra,
    Form,
    Layer,
    Unsupported,
    common_activation,
    stack,
)
from din_converter.fusing.layout import Axes, Size, Sizes, broadcast, features

Array = NDArray[np.float64]
W = 3  # values per candidate, per behavior, and units per layer


def sigmoid(z: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-z))


def activation(layer: Layer, z: Array) -> Array:
    """What the op computes for a layer of one pair."""
    p = layer.parameters
    if layer.kind == "none":
        return z
    if layer.kind == "relu":
        return np.maximum(z, 0.0)
    if layer.kind == "sigmoid":
        return sigmoid(z)
    if layer.kind == "silu":
        return z * sigmoid(z)
    if layer.kind == "prelu":
        return np.where(z >= 0.0, z, p[0] * z)
    if layer.kind == "dice":
        gate = sigmoid(z * p[0] + p[1])
        return z * (gate + p[2] * (1.0 - gate))
    assert layer.kind == "row_dice"
    x0 = z - z.mean()
    gate = sigmoid(x0 / np.sqrt(np.mean(x0**2) + layer.epsilon))
    return z * (gate + p[0] * (1.0 - gate))


@dataclass
class Twin:
    """A form, and the numbers that it stands for."""

    form: Form
    values: Array


class World:
    """Forms over one random pair, with every value computed beside."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.algebra = Algebra()
        self.base = {kind: rng.normal(size=W) for kind in "qk"}
        self.weight = rng.normal(size=(2 * W, W))
        self.bias = rng.normal(size=W)

    def leaf(self, kind: str) -> Twin:
        leaf = "qk".index(kind)
        form = Form.of([(kind, leaf, j) for j in range(W)])
        return Twin(form, self.base[kind])

    def unit(self) -> Twin:
        """A layer's rows before their activation, with constants."""
        both = stack([self.leaf("q").form, self.leaf("k").form])
        form = both.map(lambda c: c @ self.weight).plus(Form.constant(self.bias))
        values = np.concatenate([self.base["q"], self.base["k"]]) @ self.weight
        return Twin(form, values + self.bias)

    def evaluate(self, form: Form) -> Array:
        """Compute a form through its layers, and nothing but these."""
        out = np.zeros(form.size)
        for atom, column in form.terms.items():
            if atom == ONE:
                value = 1.0
            elif atom[0] in ("q", "k"):
                value = self.base[atom[0]][atom[2]]
            elif atom[0] == "qk":
                value = self.base["q"][atom[2]] * self.base["k"][atom[4]]
            else:
                assert atom[0] == "h", atom
                layer = self.algebra.layers[atom[1]]
                value = activation(layer, self.evaluate(layer.z))[atom[2]]
            out = out + column * value
        return out

    # ---- forms and values step by step

    def add(self, x: Twin, y: Twin, sign: float = 1.0) -> Twin:
        return Twin(x.form.plus(y.form, sign), x.values + sign * y.values)

    def shift(self, x: Twin, by: Any) -> Twin:  # noqa: ANN401
        by = np.broadcast_to(np.asarray(by, np.float64), x.values.shape)
        return Twin(x.form.plus(Form.constant(by)), x.values + by)

    def scale(self, x: Twin, by: Any) -> Twin:  # noqa: ANN401
        by = np.broadcast_to(np.asarray(by, np.float64), x.values.shape)
        form = self.algebra.product(x.form, Form.constant(by))
        return Twin(form, x.values * by)

    def product(self, x: Twin, y: Twin) -> Twin:
        return Twin(self.algebra.product(x.form, y.form), x.values * y.values)

    def sigmoid(self, x: Twin) -> Twin:
        return Twin(self.algebra.sigmoid(x.form), sigmoid(x.values))

    def relu(self, x: Twin) -> Twin:
        return Twin(self.algebra.relu(x.form), np.maximum(x.values, 0.0))

    def linear(self, x: Twin, weight: Array) -> Twin:
        form = self.algebra.lift(x.form).map(lambda c: c @ weight)
        return Twin(form, x.values @ weight)


def stacked(x: Twin, y: Twin) -> Twin:
    return Twin(stack([x.form, y.form]), np.concatenate([x.values, y.values]))


SCALE = np.array([0.7, 1.4, -0.9])
SHIFT = np.array([0.3, -0.8, 0.2])
ALPHA = np.array([0.25, -0.5, 1.5])


def _gate(w: World, x: Twin) -> Twin:
    return w.sigmoid(w.shift(w.scale(x, SCALE), SHIFT))


def _one_less(w: World, p: Twin) -> Twin:
    return w.shift(w.scale(p, -1.0), 1.0)


def _dice(w: World, x: Twin) -> Twin:
    p = _gate(w, x)
    low = w.product(w.scale(_one_less(w, p), ALPHA), x)
    return w.add(w.product(p, x), low)


def _dice_factored(w: World, x: Twin) -> Twin:
    p = _gate(w, x)
    return w.product(x, w.add(p, w.scale(_one_less(w, p), ALPHA)))


def _dice_alpha(w: World, x: Twin) -> Twin:
    gated = w.product(x, _gate(w, x))
    return w.add(w.scale(x, ALPHA), w.scale(gated, 1.0 - ALPHA))


def _dice_lerp(w: World, x: Twin) -> Twin:
    low = w.scale(x, ALPHA)
    return w.add(low, w.product(w.add(x, low, -1.0), _gate(w, x)))


def _dice_other_gate(w: World, x: Twin) -> Twin:
    """The gate is 1 - sigmoid(-z)."""
    z = w.shift(w.scale(x, SCALE), SHIFT)
    p = _one_less(w, w.sigmoid(w.scale(z, -1.0)))
    low = w.scale(w.product(_one_less(w, p), x), ALPHA)
    return w.add(w.product(p, x), low)


def _dice_two_gates(w: World, x: Twin) -> Twin:
    """1 - p is a sigmoid of its own."""
    z = w.shift(w.scale(x, SCALE), SHIFT)
    low = w.product(w.sigmoid(w.scale(z, -1.0)), w.scale(x, ALPHA))
    return w.add(w.product(w.sigmoid(z), x), low)


def _dice_shifted(w: World, x: Twin) -> Twin:
    """Scaled and shifted after, as a folded normalization does."""
    return w.shift(w.scale(_dice(w, x), -1.3), 0.4)


def _absolute(w: World, x: Twin) -> Twin:
    return w.add(w.relu(x), w.relu(w.scale(x, -1.0)))


FORMS: dict[str, tuple[str, Callable[[World, Twin], Twin]]] = {
    "Dice": ("dice", _dice),
    "Dice, factored": ("dice", _dice_factored),
    "Dice, alpha first": ("dice", _dice_alpha),
    "Dice, lerp": ("dice", _dice_lerp),
    "Dice, the other gate": ("dice", _dice_other_gate),
    "Dice, two gates": ("dice", _dice_two_gates),
    "Dice, shifted": ("dice", _dice_shifted),
    "PReLU, two ReLUs": (
        "prelu",
        lambda w, x: w.add(
            w.relu(x), w.scale(w.relu(w.scale(x, -1.0)), ALPHA), sign=-1.0
        ),
    ),
    "PReLU, through": (
        "prelu",
        lambda w, x: w.add(w.scale(x, ALPHA), w.scale(w.relu(x), 1.0 - ALPHA)),
    ),
    "LeakyReLU": (
        "prelu",
        lambda w, x: w.add(w.scale(x, 0.1), w.scale(w.relu(x), 0.9)),
    ),
    "|x|": ("prelu", _absolute),
    "min(0, x)": ("relu", lambda w, x: w.add(x, w.relu(x), sign=-1.0)),
    "ReLU": ("relu", lambda w, x: w.relu(x)),
    "ReLU, half of it": ("relu", lambda w, x: w.relu(w.scale(x, -0.5))),
    "ReLU, shifted": ("relu", lambda w, x: w.shift(w.relu(w.shift(x, 0.3)), -2.0)),
    "SiLU": ("silu", lambda w, x: w.product(x, w.sigmoid(x))),
    "SiLU, shifted": (
        "silu",
        lambda w, x: w.product(w.shift(x, SHIFT), w.sigmoid(w.shift(x, SHIFT))),
    ),
    "SiLU of -x": (
        "silu",
        lambda w, x: w.product(w.scale(x, -1.0), w.sigmoid(w.scale(x, -1.0))),
    ),
    "GELU by sigmoid": (
        "silu",
        lambda w, x: w.product(x, w.sigmoid(w.scale(x, 1.702))),
    ),
    "sigmoid": ("sigmoid", lambda w, x: w.sigmoid(x)),
    "sigmoid, shifted": (
        "sigmoid",
        lambda w, x: w.shift(w.scale(w.sigmoid(w.shift(w.scale(x, -2.0), 1.0)), 3), 1),
    ),
    "tanh by sigmoid": (
        "sigmoid",
        lambda w, x: w.shift(w.scale(w.sigmoid(w.scale(x, 2.0)), 2.0), -1.0),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_recognized_and_computes_the_same(form: str) -> None:
    kind, make = FORMS[form]
    for seed in range(20):
        w = World(seed)
        made = make(w, w.unit())
        got = w.evaluate(w.algebra.lift(made.form))
        assert [layer.kind for layer in w.algebra.layers] == [kind]
        np.testing.assert_allclose(got, made.values, rtol=1e-9, atol=1e-9)


def test_layers_follow_one_another() -> None:
    w = World()
    x = _dice(w, w.unit())
    y = _dice_lerp(w, w.linear(x, w.weight[:W]))
    got = w.evaluate(w.algebra.lift(y.form))
    assert [layer.kind for layer in w.algebra.layers] == ["dice", "dice"]
    np.testing.assert_allclose(got, y.values, rtol=1e-9)


def test_a_form_becomes_a_layer_once() -> None:
    w = World()
    x = w.relu(w.unit()).form
    assert w.algebra.lift(x) is w.algebra.lift(x)
    assert len(w.algebra.layers) == 1


@pytest.mark.parametrize("gated_last", [False, True])
def test_row_wise_dice(gated_last: bool) -> None:
    w = World()
    x = w.unit()
    x0 = x.values - x.values.mean()
    p = Twin(
        w.algebra.row_sigmoid(x.form, 1e-3),
        sigmoid(x0 / np.sqrt(np.mean(x0**2) + 1e-3)),
    )
    if gated_last:
        made = w.add(w.scale(x, ALPHA), w.scale(w.product(p, x), 1.0 - ALPHA))
    else:
        low = w.product(w.scale(_one_less(w, p), ALPHA), x)
        made = w.add(w.product(p, x), low)
    form = w.algebra.lift(made.form)
    (layer,) = w.algebra.layers
    assert layer.kind == "row_dice"
    np.testing.assert_allclose(layer.parameters[0], ALPHA, rtol=1e-12)
    layer.epsilon = 1e-3
    np.testing.assert_allclose(w.evaluate(form), made.values, rtol=1e-9)


def test_relu_and_prelu_and_nothing_become_prelu() -> None:
    w = World()
    x = w.unit()
    leaky = w.add(w.scale(x, 0.1), w.scale(w.relu(x), 0.9))
    made = stacked(stacked(leaky, w.relu(w.leaf("q"))), w.leaf("k"))
    got = w.evaluate(w.algebra.lift(made.form))
    (layer,) = w.algebra.layers
    assert layer.kind == "prelu"
    np.testing.assert_allclose(layer.parameters[0], [0.1] * 3 + [0] * 3 + [1] * 3)
    np.testing.assert_allclose(got, made.values, rtol=1e-9)


def test_silu_and_dice_and_nothing_become_dice() -> None:
    w = World()
    q = w.leaf("q")
    silu = w.product(q, w.sigmoid(q))
    made = stacked(stacked(_dice(w, w.unit()), silu), w.leaf("k"))
    got = w.evaluate(w.algebra.lift(made.form))
    (layer,) = w.algebra.layers
    assert layer.kind == "dice"
    np.testing.assert_allclose(got, made.values, rtol=1e-9)


def test_layers_of_two_kinds_are_said_in_one() -> None:
    w = World()
    x = w.relu(w.unit())
    y = w.linear(x, w.weight[:W])
    z = w.add(w.scale(y, ALPHA), w.scale(w.relu(y), 1.0 - ALPHA))
    form = w.algebra.lift(z.form)
    assert [layer.kind for layer in w.algebra.layers] == ["relu", "prelu"]
    assert common_activation(w.algebra.layers) == "prelu"
    assert [layer.kind for layer in w.algebra.layers] == ["prelu", "prelu"]
    np.testing.assert_allclose(w.evaluate(form), z.values, rtol=1e-9)


def test_products_of_candidate_and_behavior_are_linear() -> None:
    w = World()
    q, k = w.shift(w.leaf("q"), 0.5), w.shift(w.scale(w.leaf("k"), 2.0), SHIFT)
    made = w.product(q, k)
    assert made.form.is_linear()
    np.testing.assert_allclose(w.evaluate(made.form), made.values, rtol=1e-12)


def _square(w: World) -> Twin:
    return w.product(w.unit(), w.unit())


def _two_shifts(w: World) -> Twin:
    return w.add(w.relu(w.shift(w.unit(), 0.3)), w.relu(w.unit()))


def _residual(w: World) -> Twin:
    x = w.relu(w.unit())
    x = Twin(w.algebra.lift(x.form), x.values)
    return w.add(x, _dice(w, w.linear(x, w.weight[:W])))


SUMS: dict[str, Callable[[World], Twin]] = {
    "two ReLUs": _two_shifts,
    "sigmoids of two slopes": lambda w: w.add(
        w.sigmoid(w.unit()), w.sigmoid(w.scale(w.unit(), 2.0))
    ),
    "a ReLU and what it is not of": lambda w: w.add(w.leaf("q"), w.relu(w.unit())),
    "Dice around a layer": _residual,
}


@pytest.mark.parametrize("name", SUMS)
def test_a_sum_of_activations_is_a_unit_each(name: str) -> None:
    for seed in range(20):
        w = World(seed)
        made = SUMS[name](w)
        got = w.evaluate(w.algebra.lift(made.form))
        np.testing.assert_allclose(got, made.values, rtol=1e-9, atol=1e-9)


BESIDE = "where it passes a value on beside a layer"
ONE_KIND = "all hidden layers need one kind; |x|, max and min count as PReLU"
PRODUCT = (
    "a product of an activation and something else than its own input, which Dice and"
    " SiLU multiply it by"
)
PAIR = (
    "a product of two values that both depend on candidate and behavior, as (q - k)**2"
    " and score * score do; q * k is fused"
)
REFUSALS: dict[str, tuple[str, Callable[[World], Twin]]] = {
    "ReLU and sigmoid": (
        f"different activations in the unit (relu, sigmoid): {ONE_KIND}",
        lambda w: w.add(w.relu(w.unit()), w.sigmoid(w.unit())),
    ),
    "sigmoid and input": (
        f"different activations in the unit (none, sigmoid), {BESIDE}",
        lambda w: w.add(w.unit(), w.sigmoid(w.unit())),
    ),
    "ReLU and sigmoid in one layer": (
        f"different activations in the unit (relu, sigmoid): {ONE_KIND}",
        lambda w: stacked(w.relu(w.unit()), w.sigmoid(w.unit())),
    ),
    "a gate of something else": (
        PRODUCT,
        lambda w: w.product(w.leaf("q"), w.sigmoid(w.unit())),
    ),
    "two gates": (
        PRODUCT,
        lambda w: w.product(w.sigmoid(w.unit()), w.sigmoid(w.unit())),
    ),
    "a square": (PAIR, _square),
    "a slope of 0": (
        "a sigmoid times its input that is neither Dice nor SiLU",
        lambda w: w.add(
            w.scale(w.unit(), -1.0),
            w.product(
                w.shift(w.unit(), 1.0), w.sigmoid(w.shift(w.scale(w.unit(), 1.0), 0.2))
            ),
        ),
    ),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_what_no_layer_computes_is_refused(refusal: str) -> None:
    reason, make = REFUSALS[refusal]
    w = World()
    with pytest.raises(Unsupported) as caught:
        w.algebra.lift(make(w).form)
    assert caught.value.reason == reason


def test_a_fill_of_infinity_is_no_activation() -> None:
    """-inf - s is no multiple of s, although nothing is far from infinity."""
    w = World()
    filled = Form.constant([-np.inf] * W).minus(w.unit().form)
    with pytest.raises(Unsupported):
        w.algebra.ratios(filled, w.leaf("k").form)


def _step(w: World, rng: np.random.Generator, pool: list[Twin]) -> Twin:
    x, y = (pool[i] for i in rng.integers(0, len(pool), 2))
    match rng.integers(0, 11):
        case 0:
            return w.add(x, y)
        case 1:
            return w.add(x, y, -1.0)
        case 2:
            return w.product(x, y)
        case 3:
            return w.scale(x, rng.choice([-1.0, 0.5, 2.0, 0.0, 0.3, 1.0], W))
        case 4:
            return w.shift(x, rng.choice([-1.0, 1.0, 0.0, 0.3], W))
        case 5:
            return w.relu(x)
        case 6:
            return w.sigmoid(x)
        case 7:
            return w.scale(x, -1.0)
        case 8:
            return w.linear(x, rng.normal(size=(W, W)))
        case 9:
            return _absolute(w, Twin(w.algebra.lift(x.form), x.values))
        case _:
            return _dice(w, Twin(w.algebra.lift(x.form), x.values))


def test_random_forms_are_refused_or_right() -> None:
    made = refused = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        w = World(seed)
        pool = [w.leaf("q"), w.leaf("k"), w.unit()]
        for _ in range(rng.integers(3, 14)):
            try:
                twin = _step(w, rng, pool)
                if np.abs(twin.values).max() > 1e6:
                    continue
                form = w.algebra.lift(twin.form)
            except Unsupported:
                refused += 1
                continue
            pool.append(twin)
            made += 1
            got = w.evaluate(form)
            near = np.allclose(got, twin.values, rtol=1e-8, atol=1e-8)
            assert near, (seed, got, twin.values)
    assert made > 500
    assert refused > 100


# ---- layouts

VARIES = "a tensor with an axis of open size that is neither batch nor positions"
N, T = Size(1, ("s0",)), Size(1, ("s1",))
SIZES = Sizes(N, T)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (7, Size(7)),
        ("s0", Size(1, ("s0",))),
        ("12", Size(12)),
        ("10*s0", Size(10, ("s0",))),
        ("s1 * s0", Size(1, ("s0", "s1"))),
        ("2*s0*5", Size(10, ("s0",))),
        ("(s0)", Size(1, ("s0",))),
        ("((2*s0))*(s1)", Size(2, ("s0", "s1"))),
        ("s0 + 1", Size(1, ("s0+1",))),
        ("2*(s0 + 1)", Size(2, ("s0+1",))),
        ("(s0+1)*(s1-1)", Size(1, ("s0+1", "s1-1"))),
        ("s0//2", Size(1, ("s0//2",))),
        ("4*s0/2", Size(1, ("4*s0/2",))),
        ("s0**2", Size(1, ("s0**2",))),
        ("Max(1, s0)*3", Size(3, ("Max(1,s0)",))),
    ],
)
def test_sizes_are_read_as_products(text: int | str, size: Size) -> None:
    assert Size.parse(text) == size


def test_a_size_is_divided_where_a_product_is_left() -> None:
    both = Size.parse("6*s0*s1")
    assert both.over(Size.parse("2*s1")) == Size(3, ("s0",))
    assert both.over(both) == Size(1)
    assert both.over(Size(4)) is None
    assert both.over(Size(0)) is None
    assert both.over(Size.parse("s2")) is None
    assert N * T * Size(2) == Size(2, ("s0", "s1"))
    assert [N.is_symbol, both.is_symbol, Size(1).is_symbol] == [True, False, False]


def _shape(*sizes: int | str) -> tuple[Size, ...]:
    return tuple(map(Size.parse, sizes))


@pytest.mark.parametrize(
    ("axes", "shape", "made"),
    [
        ((("N",), ("T",), (8,)), ("s0*s1", 8), (("N", "T"), (8,))),
        ((("N", "T"), (8,)), ("s0", "s1", 8), (("N",), ("T",), (8,))),
        ((("N",), ("T",), (8,)), ("s0", "s1", 2, 4), (("N",), ("T",), (2,), (4,))),
        ((("N",), (2,), (4,)), ("s0", 8), (("N",), (2, 4))),
        ((("N",), (2, 4)), ("s0", 2, 4), (("N",), (2,), (4,))),
        ((("N",), (8,)), ("s0", 1, 8), (("N",), (), (8,))),
        ((("N",), (), (8,)), ("s0", 8), (("N",), (8,))),
        ((("N",), ("T", 3)), ("s0", "s1", 3), (("N",), ("T",), (3,))),
        ((("N",), (12,)), ("s0", 2, 3, 2), (("N",), (2,), (3,), (2,))),
        ((("N",), ("T",), ()), ("s0", "s1"), (("N",), ("T",))),
    ],
)
def test_a_reshape_keeps_the_order(
    axes: Axes, shape: tuple[int | str, ...], made: Axes
) -> None:
    assert SIZES.reshape(axes, _shape(*shape)) == made


@pytest.mark.parametrize(
    ("axes", "shape", "reason"),
    [
        (
            (("N",), ("T",), (8,)),
            ("s1", "s0", 8),
            "a reshape that mixes candidates, positions or features",
        ),
        (
            (("N",), (8,)),
            ("s0", 3, 3),
            "a reshape that mixes candidates, positions or features",
        ),
        (
            (("T",), ("N",), (8,)),
            ("s0", "s1", 8),
            "a reshape that mixes candidates, positions or features",
        ),
        (
            (("N",), (4,)),
            ("s0", 4, 2),
            "a reshape that mixes candidates, positions or features",
        ),
        ((("N",), (4,), (2,)), ("s0", 4), "a reshape to another size"),
    ],
)
def test_a_reshape_that_mixes_is_refused(
    axes: Axes, shape: tuple[int | str, ...], reason: str
) -> None:
    with pytest.raises(Unsupported) as caught:
        SIZES.reshape(axes, _shape(*shape))
    assert caught.value.reason == reason


def test_a_leaf_is_laid_out_by_its_shape() -> None:
    assert SIZES.leaf(_shape("s0", "s1", 4)) == (("N",), ("T",), (4,))
    assert SIZES.leaf(_shape("s0*s1", 4)) == (("N", "T"), (4,))
    assert SIZES.leaf(_shape("s0", 1, 4)) == (("N",), (), (4,))
    assert SIZES.leaf(_shape("s1", 4)) == (("T",), (4,))
    assert SIZES.leaf(_shape(1, "s1", 1)) == ((), ("T",), ())
    for shape, reason in (
        (_shape("s3", 4), "a tensor whose first axis is not the batch"),
        ((), "a number computed from the length of the history, as / sqrt(T) has"),
        (_shape("s0", "s2"), VARIES),
        (_shape("s0", "s1", "s1"), VARIES),
    ):
        with pytest.raises(Unsupported) as caught:
            SIZES.leaf(shape)
        assert (caught.value.reason, caught.value.mixed) == (reason, False)


def test_broadcast_says_which_row_stands_where() -> None:
    axes, left, right = broadcast((("N",), (), (3,)), (("N",), ("T",), ()))
    assert axes == (("N",), ("T",), (3,))
    assert left.tolist() == [0, 1, 2]
    assert right.tolist() == [0, 0, 0]
    axes, left, right = broadcast((("N",), (2,), ()), ((3,),))
    assert axes == (("N",), (2,), (3,))
    assert left.tolist() == [0, 0, 0, 1, 1, 1]
    assert right.tolist() == [0, 1, 2, 0, 1, 2]
    assert features(("T", 3, 2)) == 6


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((("N",), (3,)), (("T",), (3,))),
        ((("N",), (2,)), (("N",), (3,))),
        ((("N",), (6,)), (("N",), (2, 3))),
        ((("N",), ("T",)), (("N", "T"), ("T",))),
    ],
)
def test_operands_laid_out_differently_are_refused(a: Axes, b: Axes) -> None:
    with pytest.raises(Unsupported) as caught:
        broadcast(a, b)
    assert (
        caught.value.reason
        == "two values whose axes are not batch, positions and features in one order"
    )
