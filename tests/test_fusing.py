"""Local activation units in torch modules: found in every style, never a near miss."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from tests import ops
from tests.fusing import Din, difference, export, inputs, worst
from tests.torch_patterns import NO_MASK

pytestmark = pytest.mark.slow

# reasons of the report, whole
TWO_MASKS = "two different masks: join them before (mask & other), and use that alone"
FUSED = "Dice, PReLU, LeakyReLU, ReLU, SiLU and sigmoid are fused"
TANH = f"tanh: {FUSED}"
TOTAL = "a sum over positions inside the weights, as of weights / weights.sum(1)"
PAIR = (
    "a product of two values that both depend on candidate and behavior, as (q - k)**2"
    " and score * score do; q * k is fused"
)
COUNTED = (
    "masked positions whose weight is not 0: multiply the weights by the mask, or fill"
    " scores with -1e9 before softmax"
)
OTHERS = (
    "a softmax over all positions, masked after it: fill masked scores with -1e9 before"
)
ROUNDED = (
    "-1e9 added to masked scores, so that rounding decides what an empty history gives:"
    " multiply the weights by the mask after softmax, or use masked_fill"
)
QUOTIENT = (
    "a division by a computed number: weights divided by one for each candidate that is"
    " kept above 0, as length.clamp(min=1), are fused"
)

STYLES: dict[str, dict[str, Any]] = {
    "expand, concat, Dice, where": {},
    "repeat, lengths": {
        "pairing": "repeat",
        "mask_from": "lengths",
        "activation": "dice factored",
    },
    "tile, ids": {
        "pairing": "tile",
        "mask_from": "ids",
        "mask": "fill",
        "activation": "dice alpha",
    },
    "repeat_interleave, left padding": {
        "pairing": "interleave",
        "mask_from": "left",
        "mask": "product",
    },
    "repeat and view, einsum": {
        "pairing": "view",
        "mask_from": "int",
        "sum": "einsum",
        "activation": "dice affine",
    },
    "three Linears added": {
        "pairing": "broadcast",
        "features": ("q", "k", "q*k"),
        "activation": "prelu shared",
        "sum": "product first",
    },
    "stacked fields": {"source": "stacked", "activation": "prelu two"},
    "k - q and q * k of one field": {
        "source": "one",
        "features": ("k-q", "q*k"),
        "activation": "prelu where",
        "mask": "product 3d",
    },
    "float inputs": {"source": "floats", "activation": "prelu clamp"},
    "int32 ids, another order": {
        "source": "int32",
        "activation": "prelu abs",
        "features": ("q*k", "q", "k"),
    },
    "ids of a column, rows flattened": {
        "source": "column",
        "activation": "bn relu",
        "flat": True,
    },
    "positions added": {"keys": "position", "activation": "leaky"},
    "a GRU before": {"keys": "gru", "activation": "silu"},
    "a mask on the embeddings": {
        "keys": "masked",
        "activation": "swish",
        "mask_from": "lengths",
    },
    "parameters by hand, sigmoid score": {
        "activation": "sigmoid",
        "output": "sigmoid",
        "linear": "by hand",
    },
    "Conv1d": {"linear": "conv", "activation": "relu"},
    "einsum layers, dropout": {
        "linear": "einsum",
        "activation": "relu",
        "dropout": True,
        "sum": "turned",
    },
    "softmax, scale before": {
        "softmax": True,
        "mask": "fill",
        "scale": "before",
        "mask_from": "lengths",
    },
    "softmax, -inf, NaN stays": {"softmax": True, "mask": "infinite", "remask": True},
    "softmax, lowest, masked again": {
        "softmax": True,
        "mask": "lowest",
        "remask": True,
        "sum": "product",
    },
    "softmax, float mask": {"softmax": True, "mask": "mixed", "mask_from": "float"},
    "no mask, no hidden layer": {"mask_from": "", "hidden": ()},
}


@pytest.mark.parametrize("style", STYLES)
def test_every_style_fuses_and_equals_torch(style: str) -> None:
    model = Din(**STYLES[style])
    graph = export(model, (inputs(model),))
    assert [b.fused for b in graph.blocks] == [True], graph.blocks
    computed = model.o["source"] == "floats" or model.o["keys"] in ("position", "gru")
    assert graph.blocks[0].reads == ("vectors" if computed else "tables")
    for name, apart in worst(graph).items():
        assert apart <= 1e-5, name


Change = Callable[..., Tensor]


def _layers(first: Change, second: Change) -> Change:
    def score(model: Any, q: Tensor, k: Tensor) -> Tensor:  # noqa: ANN401
        spread = q[:, None].expand(-1, k.shape[1], -1)
        x = torch.cat([spread, k, spread - k, spread * k], -1)
        layers = model.unit.layers
        x = layers[2](first(layers[0](x)))
        made: Tensor = layers[4](second(x)).squeeze(-1)
        return made

    return score


def _row_dice_over_t(x: Tensor) -> Tensor:
    x0 = x - x.mean(1, keepdim=True)
    return x * torch.sigmoid(x0 / torch.sqrt((x0**2 + 1e-3).sum(1, keepdim=True)))


def _normalized(_: Any, s: Tensor, m: Tensor) -> Tensor:  # noqa: ANN401
    s = torch.where(m, s.abs(), 0.0)
    return s / (s.sum(1, keepdim=True) + 1e-3)


# by what they replace: the reason why the block stays, or None where it may fuse
MISSES: dict[str, tuple[str, Change, str | None]] = {
    "softmax over the batch": (
        "weights",
        lambda _, s, m: torch.softmax(s, 0),  # noqa: ARG005
        "a softmax over another axis than the positions of the history",
    ),
    "two masks": (
        "weights",
        lambda _, s, m: torch.where(m, s, 0.0) * (s > 0.1).float(),
        TWO_MASKS,
    ),
    "scores summed up": (
        "weights",
        lambda _, s, m: torch.where(m, s.cumsum(1), 0.0),
        "cumsum, which is no part of a fused unit",
    ),
    "the batch's mean": (
        "weights",
        lambda _, s, m: s - s.mean(0, keepdim=True),  # noqa: ARG005
        TOTAL,
    ),
    "normalized by their sum": ("weights", _normalized, TOTAL),
    "a fill of -100": (
        "weights",
        lambda _, s, m: (10 * s).masked_fill(~m, -100.0).softmax(1),
        "masked scores of -100, which others may be below: fill them with -1e9 or less",
    ),
    "tanh": (
        "weights",
        lambda _, s, m: torch.where(m, s.tanh(), 0.0),
        TANH,
    ),
    "squared": (
        "weights",
        lambda _, s, m: torch.where(m, s * s, 0.0),
        PAIR,
    ),
    "weights of the position": (
        "weights",
        lambda _, s, m: torch.where(m, s, 0.0) * 0.9 ** torch.arange(s.shape[1]),
        NO_MASK,
    ),
    "a bias of the position": (
        "weights",
        lambda _, s, m: torch.where(m, s + 0.1 * torch.arange(s.shape[1]), 0.0),
        None,
    ),
    "masked positions count": (
        "weights",
        lambda _, s, m: torch.where(m, s, 0.5),
        COUNTED,
    ),
    "softmax over masked ones, too": (
        "weights",
        lambda _, s, m: torch.where(m, s.softmax(1), 0.0),
        OTHERS,
    ),
    "softmax plus -1e9": (
        "weights",
        lambda _, s, m: (s + (1 - m.float()) * -1e9).softmax(1),
        ROUNDED,
    ),
    "divided by the length": (
        "weights",
        lambda _, s, m: torch.where(m, s, 0.0) / m.sum(1, keepdim=True).clamp(min=1),
        None,
    ),
    "divided by the length, which may be 0": (
        "weights",
        lambda _, s, m: torch.where(m, s, 0.0) / m.sum(1, keepdim=True),
        QUOTIENT,
    ),
    "a threshold": ("weights", lambda _, s, m: torch.where(s > 0.2, s, 0.0), None),  # noqa: ARG005
    "embeddings rolled": (
        "score",
        lambda model, q, k: Din.score(model, q, torch.roll(k, 1, 1)),
        None,
    ),
    "a candidate of the batch": (
        "score",
        lambda model, q, k: Din.score(model, q - q.mean(0, keepdim=True), k),
        None,
    ),
    "a query from the history": (
        "score",
        lambda model, q, k: Din.score(model, k[:, -1], k),  # noqa: ARG005
        None,
    ),
    "other values": (
        "pool",
        lambda _, w, k: torch.bmm(w[:, None], 2 * k + 1).squeeze(1),
        None,
    ),
    "values in other places": (
        "pool",
        lambda _, w, k: torch.bmm(w[:, None], k.flip(1)).squeeze(1),
        None,
    ),
    "all but the last": (
        "pool",
        lambda _, w, k: torch.bmm(w[:, None, :-1], k[:, :-1]).squeeze(1),
        None,
    ),
    "GELU": ("score", _layers(F.gelu, F.gelu), f"GELU: {FUSED}"),
    "two kinds of layers": (
        "score",
        _layers(torch.relu, torch.sigmoid),
        "different activations in the unit (relu, sigmoid): all hidden layers need one"
        " kind; |x|, max and min count as PReLU",
    ),
    "two ReLUs": (
        "score",
        _layers(lambda x: torch.relu(x - 0.3) + torch.relu(x + 0.2), torch.relu),
        None,
    ),
    "statistics over positions": (
        "score",
        _layers(_row_dice_over_t, torch.relu),
        TOTAL,
    ),
}


@pytest.mark.parametrize("miss", MISSES)
def test_near_misses_are_never_fused_wrongly(miss: str) -> None:
    method, change, reason = MISSES[miss]
    model = type("Miss", (Din,), {method: change})()
    graph = export(model, (inputs(model),))
    if reason is not None:  # what is done to scores leaves them a unit's
        part = "scores" if method == "weights" else ""
        assert [(b.part, b.reason) for b in graph.blocks] == [(part, reason)]
    assert all(b.fused or b.reason for b in graph.blocks)
    for name, apart in worst(graph).items():
        assert apart <= 1e-5, name


def test_dropout_that_is_on_stays() -> None:
    drops = _layers(lambda x: F.dropout(x, training=True), torch.relu)
    model = type("Drops", (Din,), {"score": drops})()
    graph = export(model, (inputs(model),))
    (block,) = graph.blocks
    assert (block.fused, block.reason) == (
        False,
        "dropout that is on in evaluation: give F.dropout training=self.training",
    )


class Rated(Din):
    """Weights are multiplied by a float input, which may be a mask or may not."""

    def weights(self, s: Tensor, m: Tensor | None) -> Tensor:
        assert m is not None
        return s * m

    def mask(self, x: Any, k: Tensor) -> Tensor | None:  # noqa: ANN401
        del k
        made: Tensor = x["mask"]
        return made


def test_a_float_input_is_no_mask() -> None:
    """It may hold other numbers than the example's: then the scores alone are fused."""
    model = Rated(mask_from="float")
    x = inputs(model)
    reason = NO_MASK
    for batch in (x, {**x, "mask": x["mask"] * 0.3 + 0.1}):
        graph = export(model, (batch,))
        assert [(b.part, b.reason) for b in graph.blocks] == [("scores", reason)]
        assert max(worst(graph).values()) <= 1e-5
    x["mask"] = x["mask"] * 0.3
    with torch.inference_mode():
        wanted = model(x)[1].numpy()
    feeds = {name: tensor.numpy() for name, tensor in x.items()}
    for native in (True, False):
        got = ops.session(graph.fused.SerializeToString(), fused=native).run(
            None, feeds
        )
        assert difference(got[1], wanted) <= 1e-5


class Fields(torch.nn.Module):
    """Ids laid out [B, fields, T], so that positions come last."""

    def __init__(self) -> None:
        super().__init__()
        self.din = Din(source="stacked", mask_from="", activation="relu")

    def forward(self, ids: Tensor, history: Tensor) -> tuple[Tensor, Tensor]:
        k = self.din.table(history).transpose(1, 2).flatten(2)
        q = self.din.table(ids).flatten(1)
        weights = self.din.score(q, k).softmax(1)
        interest = self.din.pool(weights, k)
        return interest.sum(1), interest


def test_fields_before_positions_are_not_taken_for_positions() -> None:
    model = Fields()
    x = inputs(model.din)
    graph = export(model, (x["ids"], x["history"].transpose(1, 2).contiguous()))
    assert all(b.fused or b.reason for b in graph.blocks)
    assert max(worst(graph).values()) <= 1e-5


def test_a_model_in_float64_is_left_alone() -> None:
    model = Din(activation="relu").double()
    graph = export(model, (inputs(model),))
    assert [(b.fused, b.reason) for b in graph.blocks] == [
        (False, "values that are not float32: give module.float(), drop any .double()")
    ]


def test_a_module_without_attention_passes_through() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()).eval()
    graph = export(model, (torch.randn(5, 4),))
    assert graph.blocks == []
    assert graph.fused == graph.plain


@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # an example takes seconds: no shrinking
    suppress_health_check=list(HealthCheck),
)
@given(
    options=st.fixed_dictionaries(
        {
            "source": st.sampled_from(["tables", "one", "floats", "stacked"]),
            "keys": st.sampled_from(["plain", "norm", "masked"]),
            "pairing": st.sampled_from(["expand", "ones", "broadcast"]),
            "features": st.sampled_from([("q", "k"), ("q*k",), ("q", "q-k", "q*k")]),
            "activation": st.sampled_from(["dice by hand", "prelu", "relu", "swish"]),
            "hidden": st.sampled_from([(4,), (5, 3)]),
            "output": st.sampled_from(["", "sigmoid"]),
            "mask_from": st.sampled_from(["", "bool", "float", "lengths", "left"]),
            "mask": st.sampled_from(["where", "fill"]),
            "softmax": st.booleans(),
            "remask": st.booleans(),
            "scale": st.sampled_from(["", "before", "after"]),
            "sum": st.sampled_from(["bmm", "turned", "product", "einsum"]),
        }
    )
)
def test_whatever_was_fused_equals_torch(options: dict[str, Any]) -> None:
    model = Din(**options)
    graph = export(model, (inputs(model),))
    assert all(b.fused or b.reason for b in graph.blocks)
    for name, apart in worst(graph).items():
        assert apart <= 1e-5, (name, options)
