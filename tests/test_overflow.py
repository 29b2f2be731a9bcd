"""Whether an overflow could hide is foreseen from the weights; no score hides one."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from din_converter import convert
from din_converter.graph import build_graph
from din_converter.overflow import HIDING, may_hide_overflow
from din_converter.verify import torch_logits
from din_infer import InputError, Predictor
from tests.models import SPECS, random_model, random_rows, spec_dict
from tests.ops import ACTIVATIONS, attention_feeds, attention_graph, guarded

pytestmark = pytest.mark.slow

SIDES = ("table_", "candidate_table_")


def foresee(graph: Any) -> bool:  # noqa: ANN401
    tables = {k: v for k, v in graph.constants.items() if k.startswith(SIDES)}
    weights = {k: v for k, v in graph.constants.items() if k not in tables}
    return may_hide_overflow(graph.op.attention, weights, tables)


@given(
    st.sampled_from(ACTIVATIONS),
    st.sampled_from(["none", "sigmoid", "relu", "silu"]),
    st.booleans(),
    st.lists(st.sampled_from(["difference", "product", "outer"]), unique=True),
    st.floats(0, 38),
    st.floats(-3, 6),
    st.integers(0, 2),
)
def test_where_no_overflow_is_foreseen_none_is(
    activation: str,
    output: str,
    softmax: bool,
    interactions: list[str],
    table: float,
    weight: float,
    layers: int,
) -> None:
    """Nothing cancels here: every sum is as large as its bound."""
    graph = attention_graph(
        activation=activation,
        output_activation=output,
        softmax=softmax,
        interactions=interactions,
        hidden=[5, 4][:layers],
        rows=5,
    )
    for name, value in graph.constants.items():
        size = table if name.startswith(SIDES) else weight
        largest = np.abs(value) / np.abs(value).max(initial=1e-9)
        with np.errstate(over="ignore"):
            graph.constants[name] = np.float32(10.0**size) * largest
    if foresee(graph):
        return
    feeds = attention_feeds(graph, 4, 4, 3, lengths="max")
    plain = graph.run(feeds, fused=False)
    checked = guarded(graph).run(feeds, fused=False)
    for got, wanted in zip(checked, plain, strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("softmax", [False, True])
def test_only_what_hides_an_overflow_is_foreseen(
    activation: str, softmax: bool
) -> None:
    graph = attention_graph(activation=activation, softmax=softmax)
    assert not foresee(graph)
    graph.constants["table_0"][7, 2] = 3e38
    assert foresee(graph) == (softmax or activation in HIDING)


@pytest.mark.parametrize("name", SPECS)
def test_an_ordinary_model_pays_nothing(name: str) -> None:
    proto, _ = build_graph(random_model(SPECS[name]).double())
    for function in proto.functions:
        if function.name.startswith("LocalActivation"):
            assert not any(
                n.op_type == "Sub" and n.input[0] == n.input[1] for n in function.node
            )


def _rows(spec: Any, changed: dict[str, Any], count: int) -> list[dict[str, Any]]:  # noqa: ANN401
    rng = np.random.default_rng(0)
    rows = random_rows(spec, count, seed=6)
    for i, row in enumerate(rows):
        del row["extra"]
        if "cate_id" in changed and i % 2:
            row["cate_id"] = 1000 + i
            row["hist_cate_id"] = [1000 + int(x) for x in rng.integers(0, 100, 9)]
            row["hist_goods_id"], row["action"] = ["a"] * 9, ["buy"] * 9
        if "price" in changed and i % 2:
            row["price"] = float(3e38 * rng.choice([-1, 1]))
            row["profile"] = [float(x) for x in 3e38 * rng.choice([-1, 0, 1], 3)]
    return rows


@pytest.mark.parametrize(
    ("activation", "softmax", "tables", "dense"),
    [
        ("sigmoid", False, 1e19, False),
        ("sigmoid", False, 1e30, False),
        ("sigmoid", True, 1e38, False),
        ("dice", True, -1e30, False),
        ("dice", False, 1e-40, False),
        *((activation, False, None, True) for activation in ACTIVATIONS),
    ],
)
def test_a_score_is_torchs_or_an_error(
    activation: str, softmax: bool, tables: float | None, dense: bool, tmp_path: Path
) -> None:
    attention = {"hidden": [9, 5], "activation": activation, "softmax": softmax}
    tower = {"hidden": [11, 7], "activation": activation}
    raw = spec_dict(model={"attention": attention, "tower": tower})
    raw["candidate"][1]["encoder"]["buckets"] = 2000
    model = random_model(raw)
    if tables is not None:
        table = model.tables["of_cate_id"].weight
        with torch.no_grad():
            signs = torch.sign(table[1000:1100]) if abs(tables) > 1 else 1.0
            table[1000:1100] = tables * signs
    convert(model, tmp_path / "m.onnx")
    changed = {"price": dense} if dense else {"cate_id": tables}
    rows = _rows(model.spec, changed, 60)
    exact = torch_logits(copy.deepcopy(model).double(), model.spec.encode(rows))
    for fused in (True, False):
        predictor = Predictor(tmp_path / "m.onnx", device="cpu", fused=fused)
        scored = 0
        for row, wanted in zip(rows, exact, strict=True):
            try:
                (got,) = predictor.score([row], raw=True)
            except InputError as error:
                assert str(error).startswith("expected a logit that is finite")  # noqa: PT017
                continue
            assert abs(got - wanted) <= 1e-4 * max(1.0, abs(wanted))
            scored += 1
        assert scored >= 30
        if tables is None or abs(tables) > 1e19:
            assert scored < 60
