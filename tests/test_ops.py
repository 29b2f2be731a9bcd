"""The native operators against their float64 twins and against the functions they
replace; long because every mode, every edge and every refusal is a case of its own.
"""

import hashlib
import itertools
import pickle
import platform
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests import ops, reference_ops
from tests.emulated import emulated_library
from tests.ops import (
    ACTIVATIONS,
    OVERFLOWS,
    Arrays,
    Graph,
    attention_feeds,
    attention_graph,
    bag_graph,
    overflowing_graph,
    tower_feeds,
    tower_graph,
)

# on every x86-64 machine, beside the instructions where it has them
EMULATED = "avx512 emulated"
ISAS = [*map(pytest.param, ops.machine_isas())]
if platform.machine() == "x86_64":
    ISAS.append(pytest.param(EMULATED, marks=pytest.mark.slow))


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name, _, emulated = request.param.partition(" ")
    if emulated:
        monkeypatch.setattr(ops, "library", emulated_library)
    monkeypatch.setenv("DIN_INFER_ISA", name)
    return str(request.param)


_twins: dict[bytes, tuple[Any, Any]] = {}


def twin(graph: Graph, feeds: Arrays) -> tuple[Any, Any]:
    """The operator in float64, once for all instruction sets: it is slow."""
    arguments = graph.attributes, {**graph.constants, **feeds}
    key = hashlib.sha256(pickle.dumps(arguments)).digest()
    if key not in _twins:
        _twins[key] = reference_ops.local_activation(*arguments)
    return _twins[key]


def relative(got: NDArray[Any], wanted: NDArray[Any]) -> float:
    scale = float(np.linalg.norm(wanted))
    return float(np.linalg.norm(got - wanted)) / (scale or 1.0)


def check(graph: Graph, feeds: Arrays, tolerance: float = 1e-6) -> None:
    """Twin and function agree with the operator, in all outputs."""
    native = graph.run(feeds)
    body = graph.run(feeds, fused=False)
    wanted = twin(graph, feeds)
    for label, got, function, exact in zip(
        graph.outputs, native, body, wanted, strict=False
    ):
        assert got.shape == exact.shape == function.shape
        assert np.isfinite(got).all()
        assert relative(got, exact) <= tolerance, label
        bound = 1e-5 * max(1.0, np.abs(exact).max(initial=0.0))
        assert np.abs(got - function).max(initial=0.0) <= bound, label


MODES: dict[str, dict[str, Any]] = {
    "paper": {},
    "softmax": {"softmax": True, "scale": 0.3},
    "softmax, padding row": {
        "softmax": True,
        "behavior": {"empty_softmax": "padding_row"},
    },
    "attended": {"behavior": {"padding": "attended"}},
    "attended softmax": {"softmax": True, "behavior": {"padding": "attended"}},
    "scale": {"scale": -2.5},
    "outputs sigmoid": {"output_activation": "sigmoid"},
    "outputs relu": {"output_activation": "relu"},
    "outputs silu": {"output_activation": "silu", "softmax": True},
    "no interactions": {"interactions": []},
    "difference": {"interactions": ["difference"]},
    "outer": {"interactions": ["outer"]},
    "product and outer": {"interactions": ["product", "outer"]},
    "no hidden layers": {"hidden": []},
    "no hidden layers, outer": {"hidden": [], "interactions": ["outer"]},
    "one hidden layer": {"hidden": [6]},
    "four hidden layers": {"hidden": [13, 40, 1, 17]},
    "unpaired": {"dims": (4, 3, 2), "paired": (True, False, True)},
    "all unpaired": {"dims": (4, 3), "paired": (False, False)},
    "one field": {"dims": (6,)},
    "five fields": {"dims": (1, 2, 3, 4, 9)},
    "half tables": {"dims": (5, 19), "half": (True, False)},
    "nothing explained": {"explain": False},
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_equals_its_twin_and_its_function(mode: str, isa: str) -> None:
    del isa
    graph = attention_graph(**MODES[mode])
    feeds = attention_feeds(graph, 23, 9, 7)
    check(graph, feeds)
    interest, weight = twin(graph, feeds)
    assert interest.std() > 0.1
    assert weight.std() > 0.02


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [[1], [3, 8], [80, 40]])
def test_every_activation_equals_its_twin(
    activation: str, hidden: list[int], isa: str
) -> None:
    del isa
    graph = attention_graph(activation=activation, hidden=hidden)
    check(graph, attention_feeds(graph, 40, 40, 40))


@pytest.mark.parametrize("dims", [(1,), (3,), (17,), (100,), (257,), (50, 50)])
@pytest.mark.parametrize("hidden", [[7], [33, 9], [80, 40]])
def test_odd_widths(dims: tuple[int, ...], hidden: list[int], isa: str) -> None:
    del isa
    graph = attention_graph(dims=dims, hidden=hidden, rows=64)
    check(graph, attention_feeds(graph, 11, 4, 13))


EDGES = [
    (n, b, t, kind)
    for (n, b), t, kind in itertools.product(
        [(0, 0), (0, 3), (1, 1), (2, 1), (2, 2), (7, 3), (33, 33)],
        [0, 1, 6, 70],
        ["zero", "one", "max", "mixed"],
    )
]


@pytest.mark.parametrize("mode", ["paper", "softmax, padding row", "attended softmax"])
def test_the_edge_table(mode: str, isa: str) -> None:
    del isa
    graph = attention_graph(**MODES[mode])
    first = attention_feeds(graph, 1, 1, 1)
    native, body = graph.session(first), graph.session(first, fused=False)
    for n, b, t, kind in EDGES:
        feeds = attention_feeds(graph, n, b, t, lengths=kind, seed=n + t)
        got, wanted = native.run(None, feeds), twin(graph, feeds)
        for output, function, exact in zip(
            got, body.run(None, feeds), wanted, strict=True
        ):
            assert output.shape == exact.shape, (n, b, t, kind)
            atol = 1e-5 * max(1.0, np.abs(exact).max(initial=0.0))
            np.testing.assert_allclose(output, exact, rtol=0, atol=atol)
            if t or not graph.attributes["softmax"]:  # Softmax over nothing: undefined
                np.testing.assert_allclose(output, function, rtol=0, atol=atol)


@given(
    dims=st.lists(st.integers(1, 20), min_size=1, max_size=4).map(tuple),
    hidden=st.lists(st.integers(1, 90), max_size=3),
    activation=st.sampled_from(ACTIVATIONS),
    interactions=st.sets(st.sampled_from(["difference", "product", "outer"])),
    softmax=st.booleans(),
    n=st.integers(0, 40),
    b=st.integers(1, 20),
    t=st.integers(1, 80),
    seed=st.integers(0, 99),
)
def test_any_shape_equals_its_twin(
    dims: tuple[int, ...],
    hidden: list[int],
    activation: str,
    interactions: set[str],
    softmax: bool,
    n: int,
    b: int,
    t: int,
    seed: int,
) -> None:
    graph = attention_graph(
        dims=dims,
        hidden=hidden,
        activation=activation,
        interactions=sorted(interactions),
        softmax=softmax,
        seed=seed,
    )
    feeds = attention_feeds(graph, n, b, t, seed=seed)
    wanted, _ = twin(graph, feeds)
    assert relative(graph.run(feeds)[0], wanted) <= 1.5e-6


@pytest.mark.parametrize("mode", ["paper", "softmax", "outer", "unpaired"])
def test_histories_that_share_and_cross_blocks(mode: str, isa: str) -> None:
    """Short ones go through the layers together, long ones in parts; in any order."""
    del isa
    graph = attention_graph(**MODES[mode])
    feeds = attention_feeds(graph, 60, 25, 600)
    few = [0, 1, 2, 3, 63, 64, 65, 127, 128, 129, 255, 256, 257, 300, 512, 600]
    feeds["lengths"] = np.resize(np.array(few), 25)
    check(graph, feeds)
    feeds["request_of_candidate"] = np.sort(feeds["request_of_candidate"])
    check(graph, feeds)


def test_a_history_of_100_000_behaviors(isa: str) -> None:
    del isa
    length = 100_000
    for softmax in (False, True):
        graph = attention_graph(
            dims=(8, 8), hidden=[16, 8], rows=1000, softmax=softmax, explain=False
        )
        feeds = attention_feeds(graph, 2, 1, length, lengths="max")
        (got,) = graph.run(feeds)
        wanted = wide_twin(graph, feeds)
        assert relative(got, wanted) <= 1e-6
        assert np.abs(wanted).min() > 1e-6


def wide_twin(graph: Graph, feeds: Arrays) -> NDArray[np.float64]:
    """The twin for one long history: all its pairs at once, in float64."""
    w = {k: v.astype(np.float64) for k, v in graph.constants.items()}
    k = np.concatenate([w[f"table_{i}"][feeds[f"ids_{i}"][0]] for i in (0, 1)], axis=1)
    out = []
    for n in range(len(feeds["request_of_candidate"])):
        q = np.concatenate(
            [w[f"candidate_table_{i}"][feeds[f"candidate_ids_{i}"][n]] for i in (0, 1)]
        )
        x = q @ w["weight_query"] + k @ w["weight_behavior"] + w["bias_1"]
        x += (q * k) @ w["weight_product"]
        for layer in (1, 2):
            x = reference_ops.dice(
                x, *(w[f"dice_{p}_{layer}"] for p in ("scale", "shift", "alpha"))
            )
            x = x @ w[f"weight_{layer + 1}"] + w[f"bias_{layer + 1}"]
        s = x[:, 0]
        if graph.attributes["softmax"]:
            s = np.exp(s - s.max())
            s /= s.sum()
        out.append(s @ k)
    return np.array(out)


def test_results_are_bit_equal_across_threads_and_batches(isa: str) -> None:
    del isa
    graph = attention_graph(dims=(20, 9), hidden=[30, 10], rows=500)
    feeds = attention_feeds(graph, 900, 300, 60)
    wanted = graph.run(feeds)
    for threads in (2, 3, 5):
        for got, one in zip(graph.run(feeds, threads=threads), wanted, strict=True):
            np.testing.assert_array_equal(got, one)
    alone = graph.session(feeds)
    candidates = [k for k in feeds if k.startswith(("candidate", "request"))]
    for n in (0, 17, 899):
        part = {k: v[n : n + 1] if k in candidates else v for k, v in feeds.items()}
        for got, one in zip(alone.run(None, part), wanted, strict=True):
            np.testing.assert_array_equal(got[0], one[n])


def test_padding_is_never_read() -> None:
    """What stands behind a history's length may be anything, even no id at all."""
    graph = attention_graph()
    feeds = attention_feeds(graph, 20, 20, 12)
    wanted = graph.run(feeds)
    behind = np.arange(12) >= feeds["lengths"][:, None]
    for name in ("ids_0", "ids_1"):
        feeds[name] = np.where(behind, -(2**62), feeds[name])
    for got, one in zip(graph.run(feeds), wanted, strict=True):
        np.testing.assert_array_equal(got, one)


def test_large_scores_stay_finite_under_softmax(isa: str) -> None:
    del isa
    graph = attention_graph(softmax=True, scale=3000.0)
    feeds = attention_feeds(graph, 30, 30, 60)
    check(graph, feeds, tolerance=2e-3)  # 3000 times a float32 error


def test_signatures_of_one_model_have_names_of_their_own() -> None:
    graph = attention_graph()
    feeds = attention_feeds(graph, 5, 5, 4)
    wanted = graph.run(feeds)
    for name in ("LocalActivation_1", "LocalActivation_15", "LocalActivation_16"):
        graph.name = graph.function.name = name
        for got, one in zip(graph.run(feeds), wanted, strict=True):
            np.testing.assert_allclose(got, one, rtol=1e-5, atol=1e-5)


# ---- EmbeddingBag and Tower ----


@pytest.mark.parametrize("pooling", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding", ["masked", "attended"])
@pytest.mark.parametrize("dim", [1, 7, 32, 33])
def test_bags_equal_their_twin_and_their_function(
    pooling: str, padding: str, dim: int, isa: str
) -> None:
    del isa
    for empty, half in ((0.0, False), (-1.25, True)):
        graph = bag_graph(pooling, padding, empty, dim=dim, half=half)
        rng = np.random.default_rng(1)
        for rows, t in ((0, 4), (1, 0), (1, 1), (60, 11)):
            feeds: Arrays = {
                "ids": rng.integers(0, 30, (rows, t)),
                "lengths": rng.integers(0, t + 1, rows),
            }
            (got,) = graph.run(feeds)
            exact = reference_ops.embedding_bag(
                graph.attributes, **feeds, table=graph.constants["table"]
            )
            np.testing.assert_allclose(got, exact, rtol=1e-6, atol=1e-6)
            (function,) = graph.run(feeds, fused=False)
            np.testing.assert_allclose(got, function, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dim", [1, 64])
def test_every_half_is_read_exactly(dim: int, isa: str) -> None:
    """Infinities and NaN, too: what is no number may not become one."""
    del isa
    every = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(-1, dim)
    graph = bag_graph("sum", dim=dim, rows=len(every), half=True)
    graph.constants["table"] = every
    ids = np.arange(len(every)).reshape(-1, 1)
    (pooled,) = graph.run({"ids": ids, "lengths": np.ones(len(ids), np.int64)})
    np.testing.assert_array_equal(pooled, every.astype(np.float32))


def test_a_bag_of_a_million_keeps_its_digits() -> None:
    graph = bag_graph("sum", dim=3)
    ids = np.random.default_rng(0).integers(0, 30, (1, 1_000_000))
    feeds = {"ids": ids, "lengths": np.array([1_000_000])}
    exact = graph.constants["table"].astype(np.float64)[ids[0]].sum(axis=0)
    np.testing.assert_allclose(graph.run(feeds)[0][0], exact, rtol=2e-7)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(
    ("blocks", "hidden"),
    [((5,), [1]), ((3, 1, 7), [33, 9]), ((64, 32), [200, 80]), ((6, 2), [])],
)
def test_towers_equal_their_twin_and_their_function(
    activation: str, blocks: tuple[int, ...], hidden: list[int], isa: str
) -> None:
    del isa
    graph = tower_graph(blocks, activation=activation, hidden=tuple(hidden))
    first = tower_feeds(blocks, 2)
    native, body = graph.session(first), graph.session(first, fused=False)
    for rows in (0, 1, 2, 63, 64, 65, 300):
        feeds = tower_feeds(blocks, rows, seed=rows)
        (got,), (function,) = native.run(None, feeds), body.run(None, feeds)
        exact = reference_ops.tower(graph.attributes, {**graph.constants, **feeds})
        assert got.shape == exact.shape
        assert relative(got, exact) <= 3e-6
        np.testing.assert_allclose(got, function, rtol=1e-5, atol=1e-5)
        for threads in (2, 5):
            (again,) = graph.run(feeds, threads=threads)
            np.testing.assert_array_equal(again, got)
    assert np.std(exact) > 0.1


def test_activations_hold_far_out(isa: str) -> None:
    """Sigmoids of arguments that exp cannot hold; a NaN stays one."""
    del isa
    graph = tower_graph((1,), hidden=(1,))
    for name, value in (("dice_scale", 1.0), ("dice_shift", 0.0), ("dice_alpha", 0.25)):
        graph.constants[f"{name}_1"] = np.full(1, value, np.float32)
    for name in ("weight_1", "weight_2"):
        graph.constants[name] = np.ones((1, 1), np.float32)
    for name in ("bias_1", "bias_2"):
        graph.constants[name] = np.zeros(1, np.float32)
    x = np.array([-1e30, -500.0, -88.0, -20.0, 0.0, 20.0, 88.0, 1e30, np.nan])
    x = x.astype(np.float32)[:, None]
    (got,) = graph.run({"x_0": x})
    exact = reference_ops.dice(x.astype(np.float64), 1.0, 0.0, 0.25)[:, 0]
    np.testing.assert_allclose(got[:8], exact[:8], rtol=2e-7)
    assert np.isnan(got[8])


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("mode", OVERFLOWS)
def test_no_activation_hides_an_overflow(
    mode: str, sign: float, fused: bool, isa: str
) -> None:
    del isa
    graph, feeds = overflowing_graph(mode, sign)
    interest, weight = graph.run(feeds, fused=fused)
    exact, _ = twin(graph, feeds)
    assert np.isfinite(exact).all()
    assert not np.isfinite(interest[1]).any()
    assert not np.isfinite(weight[1, 2])
    assert relative(interest[[0, 2]], exact[[0, 2]]) <= 1e-6


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_no_activation_of_a_tower_hides_an_overflow(
    activation: str, sign: float, fused: bool, isa: str
) -> None:
    del isa
    graph = tower_graph((3,), activation=activation, hidden=(6, 2))
    feeds = tower_feeds((3,), 70)
    feeds["x_0"][66] = 1e20 if activation == "row_dice" else 3e38
    if activation != "row_dice":
        columns = np.array([[2.0], [-1.0], [-1.0]], np.float32)
        graph.constants["weight_1"][:] = sign * columns
    (logit,) = graph.run(feeds, fused=fused)
    exact = reference_ops.tower(graph.attributes, {**graph.constants, **feeds})
    assert np.isfinite(exact).all()
    assert np.flatnonzero(~np.isfinite(logit)).tolist() == [66]
    rest = np.arange(70) != 66
    assert relative(logit[rest], exact[rest]) <= 3e-6


# ---- what is refused ----


def _constant(name: str, change: Any) -> Any:  # noqa: ANN401
    def edit(graph: Graph, feeds: Arrays) -> None:
        del feeds
        graph.constants[name] = change(graph.constants[name])

    return edit


def _feed(name: str, change: Any) -> Any:  # noqa: ANN401
    def edit(graph: Graph, feeds: Arrays) -> None:
        del graph
        feeds[name] = change(feeds[name])

    return edit


def _attribute(name: str, value: Any) -> Any:  # noqa: ANN401
    def edit(graph: Graph, feeds: Arrays) -> None:
        del feeds
        graph.attributes[name] = value

    return edit


def _set(at: Any, value: float) -> Any:  # noqa: ANN401
    def change(array: NDArray[Any]) -> NDArray[Any]:
        array = array.copy()
        array[at] = value
        return array

    return change


def _fed(name: str) -> Any:  # noqa: ANN401
    def edit(graph: Graph, feeds: Arrays) -> None:
        feeds[name] = graph.constants.pop(name)

    return edit


def _one_more_input(graph: Graph, feeds: Arrays) -> None:
    del feeds
    graph.inputs.append("more")
    graph.constants["more"] = np.zeros(1, np.float32)


REFUSALS: dict[str, Any] = {
    "expected an id in [0, 40), got 40 - at `LocalActivation input ids_1[3, 2]`": _feed(
        "ids_1", _set((3, 2), 40)
    ),
    "expected an id in [0, 40), got -1 - at `LocalActivation input ids_0[8, 0]`": _feed(
        "ids_0", _set((8, 0), -1)
    ),
    "expected an id in [0, 40), got 9223372036854775807"
    " - at `LocalActivation input candidate_ids_0[4]`": _feed(
        "candidate_ids_0", _set(4, 2**63 - 1)
    ),
    "expected a value in [0, 6), got 6 - at `LocalActivation input lengths[2]`": _feed(
        "lengths", _set(2, 6)
    ),
    "expected a value in [0, 6), got -1 - at `LocalActivation input lengths[0]`": _feed(
        "lengths", _set(0, -1)
    ),
    "expected a value in [0, 9), got 9"
    " - at `LocalActivation input request_of_candidate[1]`": _feed(
        "request_of_candidate", _set(1, 9)
    ),
    "expected int64, got int32 - at `LocalActivation input ids_1`": _feed(
        "ids_1", lambda a: a.astype(np.int32)
    ),
    "expected int64, got float32 - at `LocalActivation input lengths`": _feed(
        "lengths", lambda a: a.astype(np.float32)
    ),
    "expected shape [9, 5], got [9, 4] - at `LocalActivation input ids_1`": _feed(
        "ids_1", lambda a: a[:, 1:]
    ),
    "expected shape [9, 5], got [8, 5] - at `LocalActivation input ids_1`": _feed(
        "ids_1", lambda a: a[1:]
    ),
    "expected shape [9], got [8] - at `LocalActivation input candidate_ids_1`": _feed(
        "candidate_ids_1", lambda a: a[1:]
    ),
    "expected shape [*, *], got [9] - at `LocalActivation input ids_0`": _feed(
        "ids_0", lambda a: a[:, 0]
    ),
    "expected at most 3 dimensions, got 4 - at `LocalActivation input ids_0`": _feed(
        "ids_0", lambda a: a[:, :, None, None]
    ),
    "expected shape [*], got [9, 1]"
    " - at `LocalActivation input request_of_candidate`": _feed(
        "request_of_candidate", lambda a: a[:, None]
    ),
    "expected shape [8, 80], got [7, 80]"
    " - at `LocalActivation input weight_behavior`": _constant(
        "weight_behavior", lambda a: a[1:]
    ),
    "expected shape [80], got [79] - at `LocalActivation input bias_1`": _constant(
        "bias_1", lambda a: a[1:]
    ),
    "expected shape [80], got [] - at `LocalActivation input bias_1`": _constant(
        "bias_1", lambda a: a[0]
    ),
    "expected shape [80, 80], got [40, 80]"
    " - at `LocalActivation input weight_2`": _constant(
        "weight_2", lambda a: a.T.copy()
    ),
    "expected shape [40, 1], got [40, 2]"
    " - at `LocalActivation input weight_3`": _constant(
        "weight_3", lambda a: np.repeat(a, 2, axis=1)
    ),
    "expected shape [80], got [40]"
    " - at `LocalActivation input dice_alpha_1`": _constant(
        "dice_alpha_1", lambda a: a[:40]
    ),
    "expected float32, got float64"
    " - at `LocalActivation input weight_query`": _constant(
        "weight_query", lambda a: a.astype(np.float64)
    ),
    "expected float32, got float64 - at `LocalActivation input table_0`": _constant(
        "table_0", lambda a: a.astype(np.float64)
    ),
    "expected shape [*, *], got [40] - at `LocalActivation input table_0`": _constant(
        "table_0", lambda a: a[:, 0]
    ),
    "expected rows of at least 1 value, got 0"
    " - at `LocalActivation input table_0`": _constant("table_0", lambda a: a[:, :0]),
    "expected a query as wide as a behavior, 7, got 8"
    " - at `LocalActivation`": _constant("table_0", lambda a: a[:, 1:]),
    "expected at least 1 unit, got 0"
    " - at `LocalActivation input weight_query`": _constant(
        "weight_query", lambda a: a[:, :0]
    ),
    "expected a constant of the graph, got a computed tensor"
    " - at `LocalActivation input weight_2`": _fed("weight_2"),
    "expected a constant of the graph, got a computed tensor"
    " - at `LocalActivation input table_1`": _fed("table_1"),
    "expected one of none, relu, sigmoid, silu, prelu, dice, row_dice, got gelu"
    " - at `LocalActivation attribute activation`": _attribute("activation", "gelu"),
    "expected one of masked, attended, mask, got left"
    " - at `LocalActivation attribute padding`": _attribute("padding", "left"),
    "expected attributes that fit 24 inputs, got 0 fields"
    " - at `LocalActivation`": _attribute("num_fields", 0),
    "expected attributes that fit 24 inputs, got 9223372036854775807 fields"
    " - at `LocalActivation`": _attribute("num_fields", 2**63 - 1),
    "expected attributes that fit 24 inputs, got -4 layers"
    " - at `LocalActivation`": _attribute("num_layers", -4),
    "expected candidate fields in order, or widths of zeros, got 7"
    " - at `LocalActivation attribute query_slots`": _attribute("query_slots", [7, 0]),
    "expected candidate fields in order, or widths of zeros, got 0"
    " - at `LocalActivation attribute query_slots`": _attribute("query_slots", [0, 0]),
    "expected 24 inputs, got 25 - at `LocalActivation`": _one_more_input,
}


@pytest.mark.parametrize("sentence", REFUSALS)
def test_a_malformed_graph_or_batch_is_refused(sentence: str) -> None:
    graph = attention_graph()
    feeds = attention_feeds(graph, 9, 9, 5, lengths="max")
    assert np.isfinite(graph.run(feeds)[0]).all()
    REFUSALS[sentence](graph, feeds)
    with ops.refused(sentence):
        graph.run(feeds)


@pytest.mark.parametrize(
    "name", ["num_fields", "query_slots", "num_layers", "activation", "epsilon"]
)
def test_a_missing_attribute_is_named(name: str) -> None:
    graph = attention_graph()
    feeds = attention_feeds(graph, 9, 9, 5)
    del graph.attributes[name]
    with ops.refused(f" - at `LocalActivation attribute {name}`"):
        graph.run(feeds)


def test_a_missing_input_is_refused() -> None:
    for count in range(1, 20):
        graph = attention_graph()
        feeds = attention_feeds(graph, 9, 9, 5)
        graph.inputs = graph.inputs[:-count]
        feeds = {k: v for k, v in feeds.items() if k in graph.inputs}
        with ops.refused(" - at `LocalActivation"):
            graph.run(feeds)


@pytest.mark.parametrize("name", ["interest", "pooled", "logit"])
def test_an_output_that_nobody_takes_is_refused(name: str) -> None:
    attention, tower = attention_graph(), tower_graph()
    feeds = {
        "interest": attention_feeds(attention, 3, 3, 4),
        "pooled": {"ids": np.zeros((2, 2), np.int64), "lengths": np.array([1, 2])},
        "logit": tower_feeds((5, 3), 4),
    }[name]
    graph = {"interest": attention, "pooled": bag_graph(), "logit": tower}[name]
    model = onnx.load_from_string(graph.model(feeds))
    node, outputs = model.graph.node[0], model.graph.output
    node.output[0] = ""
    del outputs[0]
    if not outputs:  # a graph has outputs: a second one, that the operator may not fill
        node.output.append("more")
        outputs.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, None))
    wanted = {"pooled": "1 outputs, got 2", "logit": "1 outputs, got 2"}
    with ops.refused(wanted.get(name, f"output {name}")):
        ops.session(model.SerializeToString()).run(None, feeds)


def test_sizes_that_no_memory_holds_are_refused() -> None:
    graph = attention_graph()
    feeds = attention_feeds(graph, 0, 0, 4)
    model = onnx.load_from_string(graph.model(feeds))
    shape = numpy_helper.from_array(np.array([0, 2**62]), "shape")
    model.graph.initializer.append(shape)
    reshape = helper.make_node("Reshape", ["ids_0", "shape"], ["wide"], allowzero=1)
    model.graph.node.insert(0, reshape)
    model.graph.node[1].input[2] = "wide"
    with ops.refused("expected sizes in [0, 2^40], got 4611686018427387904"):
        ops.session(model.SerializeToString()).run(None, feeds)
    bag = bag_graph()
    bag.constants["table"] = np.zeros((5, 0), np.float32)
    with ops.refused("rows of at least 1 value, got 0 - at `EmbeddingBag input table`"):
        bag.run({"ids": np.zeros((1, 1), np.int64), "lengths": np.array([1])})


def test_a_wrong_bag_is_refused() -> None:
    feeds: Arrays = {"ids": np.array([[1, 2], [3, 30]]), "lengths": np.array([2, 2])}
    with ops.refused("got 30 - at `EmbeddingBag input ids[1, 1]`"):
        bag_graph().run(feeds)
    feeds["lengths"] = np.array([2, 1])
    assert bag_graph().run(feeds)[0].shape == (2, 7)
    feeds["lengths"] = np.array([2, 3])
    with ops.refused("in [0, 3), got 3 - at `EmbeddingBag input lengths[1]`"):
        bag_graph().run(feeds)
    feeds["lengths"] = np.array([2])
    with ops.refused("expected shape [2], got [1] - at `EmbeddingBag input lengths`"):
        bag_graph().run(feeds)
    graph = bag_graph()
    graph.attributes["pooling"] = "median"
    with ops.refused("expected one of sum, mean, max, got median"):
        graph.run({"ids": np.zeros((1, 1), np.int64), "lengths": np.array([1])})


TOWER_REFUSALS: dict[str, Any] = {
    "expected 8 columns in all, got 9 - at `Tower`": _feed(
        "x_1", lambda a: np.pad(a, ((0, 0), (0, 1)))
    ),
    "expected shape [4, *], got [3, 3] - at `Tower input x_1`": _feed(
        "x_1", lambda a: a[1:]
    ),
    "expected float32, got int64 - at `Tower input x_0`": _feed(
        "x_0", lambda a: a.astype(np.int64)
    ),
    "expected shape [6, 6], got [7, 6] - at `Tower input weight_2`": _constant(
        "weight_2", lambda a: a.T.copy()
    ),
    "expected shape [6], got [5] - at `Tower input dice_alpha_1`": _constant(
        "dice_alpha_1", lambda a: a[1:]
    ),
    "expected a constant of the graph, got a computed tensor"
    " - at `Tower input bias_1`": _fed("bias_1"),
    "expected attributes that fit 14 inputs, got 15 blocks - at `Tower`": _attribute(
        "num_blocks", 15
    ),
    "expected attributes that fit 14 inputs, got 0 layers - at `Tower`": _attribute(
        "num_layers", 0
    ),
    "expected 14 inputs, got 15 - at `Tower`": _one_more_input,
}


@pytest.mark.parametrize("sentence", TOWER_REFUSALS)
def test_a_wrong_tower_is_refused(sentence: str) -> None:
    graph = tower_graph((5, 3), hidden=(6, 7))
    feeds = tower_feeds((5, 3), 4)
    assert np.isfinite(graph.run(feeds)[0]).all()
    TOWER_REFUSALS[sentence](graph, feeds)
    with ops.refused(sentence):
        graph.run(feeds)


def test_layers_end_in_one_unit() -> None:
    """Without hidden layers, too, where the first is the last."""
    feeds = tower_feeds((5, 3), 4)
    tower = tower_graph((5, 3), hidden=())
    attention = attention_graph(hidden=[])
    assert np.isfinite(tower.run(feeds)[0]).all()
    for graph in (tower, attention):
        for name in set(graph.constants) & {
            *("weight_1", "bias_1", "weight_query", "weight_behavior"),
            "weight_product",
        }:
            graph.constants[name] = np.repeat(graph.constants[name], 2, axis=-1)
    with ops.refused("expected 1 unit in the last layer, got 2 - at `Tower`"):
        tower.run(feeds)
    with ops.refused("expected 1 unit in the last layer, got 2 - at `LocalActivation`"):
        attention.run(attention_feeds(attention, 3, 3, 5))


@pytest.mark.parametrize("name", ["sse9", "AVX2", "avx512,avx2"])
def test_an_unknown_instruction_set_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIN_INFER_ISA", name)
    graph = bag_graph()
    with ops.refused(
        "expected an instruction set of this machine (baseline, avx2, avx512),"
        f" got {name} - at `DIN_INFER_ISA`"
    ):
        graph.run({"ids": np.zeros((1, 1), np.int64), "lengths": np.array([1])})


# ---- bf16 ----


@pytest.fixture(params=[*["amx"] * ops.has_amx(), "amx emulated"])
def bf16(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions multiply in bf16."""
    if request.param == "amx emulated":
        monkeypatch.setattr(ops, "library", emulated_library)


@pytest.mark.parametrize("mode", MODES)
def test_bf16_is_within_5e3_of_the_twin(mode: str, bf16: None) -> None:
    del bf16
    settings = {"hidden": [80, 40], **MODES[mode]}
    graph = attention_graph(**{"dims": (32, 32), "rows": 200, **settings})
    feeds = attention_feeds(graph, 60, 30, 70)
    interest, _ = twin(graph, feeds)
    (half, *_), (whole, *_) = (graph.run(feeds, precision=p) for p in ("bf16", "fp32"))
    bound = 5e-3 if mode == "paper" else 1e-2  # other units are deeper or steeper
    assert relative(half, interest) <= bound
    assert relative(whole, interest) <= 1e-6
    assert relative(half, interest) >= 1e-5, "this was no bf16"


@pytest.mark.parametrize("dims", [(1,), (33,), (64,), (7, 90)])
@pytest.mark.parametrize("hidden", [[1], [16], [33, 70], [80, 40, 20]])
def test_bf16_takes_any_width(
    dims: tuple[int, ...], hidden: list[int], bf16: None
) -> None:
    del bf16
    graph = attention_graph(dims=dims, hidden=hidden, rows=90, activation="sigmoid")
    for t in (0, 1, 16, 17, 300):
        feeds = attention_feeds(graph, 9, 9, t, lengths="max" if t % 2 else "mixed")
        interest, weight = twin(graph, feeds)
        got, shown = graph.run(feeds, precision="bf16")
        again, _ = graph.run(feeds, threads=3, precision="bf16")
        assert relative(got, interest) <= 2e-2
        assert relative(shown, weight) <= 2e-2
        np.testing.assert_array_equal(again, got)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("mode", OVERFLOWS)
def test_no_activation_in_bf16_hides_an_overflow(
    mode: str, sign: float, bf16: None
) -> None:
    del bf16
    graph, feeds = overflowing_graph(mode, sign)
    interest, weight = graph.run(feeds, precision="bf16")
    assert not np.isfinite(interest[1]).any()
    assert not np.isfinite(weight[1, 2])
    assert np.isfinite(interest[[0, 2]]).all()


def test_an_unknown_precision_is_refused() -> None:
    feeds = {"ids": np.zeros((1, 1), np.int64), "lengths": np.array([1])}
    with ops.refused("expected fp32 or bf16, got fp8 - at `din_infer.precision`"):
        bag_graph().run(feeds, precision="fp8")
    with ops.refused("got another - at `din_infer.precision`"):
        bag_graph().run(feeds, precision="a very long word")
    assert bag_graph().run(feeds, precision="fp32")[0].shape == (1, 7)


# ---- masks [B, T], and tables that are computed ----


def masked_graph(**settings: Any) -> Graph:  # noqa: ANN401
    return ops.with_mask(attention_graph(**{"explain": False, **settings}))


MASKS = ["prefix", "left", "holes", "none", "all"]


def mask_of(kind: str, b: int, t: int, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, t + 1, (b, 1))
    at = np.arange(t)
    made = {
        "prefix": at < lengths,
        "left": at >= t - lengths,
        "holes": rng.random((b, t)) < 0.5,
        "none": np.zeros((b, t)),
        "all": np.ones((b, t)),
    }[kind]
    return made.astype(np.float32)


def masked_feeds(
    graph: Graph, n: int, b: int, t: int, kind: str, seed: int = 0
) -> Arrays:
    feeds = attention_feeds(graph, n, b, t, seed=seed)
    feeds["mask"] = mask_of(kind, b, t, seed)
    del feeds["lengths"]
    return feeds


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("softmax", [False, True])
def test_masks_equal_their_twin_and_their_function(
    activation: str, softmax: bool
) -> None:
    graph = masked_graph(activation=activation, softmax=softmax, hidden=[6, 3])
    first = masked_feeds(graph, 1, 1, 1, "all")
    native, body = graph.session(first), graph.session(first, fused=False)
    sizes = [(0, 0), (0, 2), (1, 1), (2, 1), (2, 2), (23, 9)]
    for (n, b), t, kind in itertools.product(sizes, [0, 1, 2, 70], MASKS):
        feeds = masked_feeds(graph, n, b, t, kind, seed=t)
        (got,), (wanted, _) = native.run(None, feeds), twin(graph, feeds)
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)
        if t or not softmax:
            (function,) = body.run(None, feeds)
            np.testing.assert_allclose(got, function, rtol=1e-5, atol=2e-5)
    assert wanted.std() > 0.02 or kind == "none"


def test_a_prefix_mask_is_bit_equal_to_lengths() -> None:
    lengths = attention_graph(explain=False)
    graph = masked_graph()
    feeds = attention_feeds(lengths, 60, 20, 30)
    valid = np.arange(30) < feeds["lengths"][:, None]
    (wanted,) = lengths.run(feeds)
    del feeds["lengths"]
    feeds["mask"] = valid.astype(np.float32)
    np.testing.assert_array_equal(graph.run(feeds)[0], wanted)


def test_masks_are_bit_equal_across_threads() -> None:
    graph = masked_graph(dims=(20, 9), hidden=[30, 10], rows=500)
    feeds = masked_feeds(graph, 900, 300, 60, "holes")
    (wanted,) = graph.run(feeds)
    for threads in (2, 5):
        np.testing.assert_array_equal(graph.run(feeds, threads=threads)[0], wanted)


def test_what_a_mask_leaves_out_is_never_read() -> None:
    graph = masked_graph()
    feeds = masked_feeds(graph, 20, 20, 12, "holes")
    (wanted,) = graph.run(feeds)
    for name in ("ids_0", "ids_1"):
        feeds[name] = np.where(feeds["mask"] == 1, feeds[name], -(2**62))
    np.testing.assert_array_equal(graph.run(feeds)[0], wanted)


def test_a_wrong_id_behind_holes_is_named_where_it_stands() -> None:
    graph = masked_graph()
    feeds = masked_feeds(graph, 4, 4, 6, "all")
    feeds["mask"][2] = [0, 1, 0, 0, 1, 1]
    feeds["ids_1"][2, 4] = 40
    with ops.refused(
        "expected an id in [0, 40), got 40 - at `LocalActivation input ids_1[2, 4]`"
    ):
        graph.run(feeds)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            _feed("mask", _set((1, 2), 0.5)),
            "a mask of 0 and 1, got 0.5 - at `LocalActivation input mask[1, 2]`",
        ),
        (
            _feed("mask", _set((3, 0), np.nan)),
            "a mask of 0 and 1, got nan - at `LocalActivation input mask[3, 0]`",
        ),
        (
            _feed("mask", lambda a: a[:, 1:]),
            "expected shape [9, 5], got [9, 4] - at `LocalActivation input mask`",
        ),
        (
            _feed("mask", lambda a: a[1:]),
            "expected shape [9, 5], got [8, 5] - at `LocalActivation input mask`",
        ),
        (
            _feed("mask", lambda a: a[:, 0]),
            "expected shape [9, 5], got [9] - at `LocalActivation input mask`",
        ),
        (
            _feed("mask", lambda a: a.astype(np.int64)),
            "expected float32, got int64 - at `LocalActivation input mask`",
        ),
    ],
)
def test_a_wrong_mask_is_refused(change: Any, sentence: str) -> None:  # noqa: ANN401
    graph = masked_graph()
    feeds = masked_feeds(graph, 9, 9, 5, "holes")
    assert np.isfinite(graph.run(feeds)[0]).all()
    change(graph, feeds)
    with ops.refused(sentence):
        graph.run(feeds)


def test_a_mask_cannot_explain() -> None:
    graph = ops.with_mask(attention_graph())
    feeds = masked_feeds(graph, 3, 3, 4, "all")
    with ops.refused(
        "expected lengths to show weights by, got a mask"
        " - at `LocalActivation output 1`"
    ):
        graph.run(feeds)


@pytest.mark.parametrize(
    "names", [["table_0"], ["candidate_table_0"], ["table_0", "candidate_table_0"]]
)
def test_a_computed_table_is_read_as_a_constant_one(names: list[str]) -> None:
    graph = masked_graph(dims=(7,))
    feeds = masked_feeds(graph, 30, 9, 11, "holes")
    (wanted,) = graph.run(feeds)
    for name in names:
        feeds[name] = graph.constants.pop(name)
    (got,) = graph.run(feeds)
    np.testing.assert_array_equal(got, wanted)
    np.testing.assert_allclose(got, twin(graph, feeds)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda a: a[:, 1:],
            "expected shape [*, 7], got [40, 6] - at `LocalActivation input table_0`",
        ),
        (
            lambda a: a[:, 0],
            "expected shape [*, 7], got [40] - at `LocalActivation input table_0`",
        ),
        (
            lambda a: a.astype(np.float16),
            "expected float32, got float16 - at `LocalActivation input table_0`",
        ),
        (lambda a: a[:3], "expected an id in [0, 3), got "),
    ],
)
def test_a_wrong_computed_table_is_refused(change: Any, sentence: str) -> None:  # noqa: ANN401
    graph = masked_graph(dims=(7,))
    feeds = masked_feeds(graph, 30, 9, 11, "holes")
    feeds["table_0"] = change(graph.constants.pop("table_0"))
    with ops.refused(sentence):
        graph.run(feeds)


def test_a_computed_table_stands_alone() -> None:
    graph = masked_graph()
    feeds = masked_feeds(graph, 3, 3, 4, "all")
    feeds["table_0"] = graph.constants.pop("table_0")
    with ops.refused(
        "expected a constant of the graph, got a computed tensor"
        " - at `LocalActivation input table_0`"
    ):
        graph.run(feeds)
