"""Dice by its formula, statistics that padding and labels stay out of, and the
interactions that no other test converts.
"""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from din_converter import Dice, convert
from din_converter.layers import UnitNorm
from din_converter.model import ClickModel
from din_converter.train import evaluate
from din_converter.verify import link, torch_logits, torch_weights
from din_infer import FeatureSpec, Predictor
from tests.models import SPECS, random_model, random_rows, spec_dict

EPSILON = 1e-3
MOMENTUM = 0.1
UNITS = 5
EXACT = {"rtol": 0, "atol": 1e-12}


# --------------------------------------------------------------- Dice by its formula


def dice_by_hand(
    dice: Dice, x: NDArray[Any], mean: NDArray[Any], variance: NDArray[Any]
) -> NDArray[Any]:
    """Section 5.3 of the paper: p(s) * s + (1 - p(s)) * alpha * s."""
    normal = (x - mean) / np.sqrt(variance + EPSILON)
    if dice.norm.affine:
        weight, bias = dice.norm.weight, dice.norm.bias
        normal = normal * weight.detach().numpy() + bias.detach().numpy()
    p = 1 / (1 + np.exp(-normal))
    return p * x + (1 - p) * dice.alpha.detach().numpy() * x


def random_dice(affine: bool) -> Dice:
    dice = Dice(UNITS, EPSILON, affine=affine).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in dice.parameters():
            parameter.normal_(generator=generator)
    return dice


@pytest.mark.parametrize("affine", [False, True])
def test_dice_is_its_formula_in_training_and_at_inference(affine: bool) -> None:
    dice = random_dice(affine)
    rng = np.random.default_rng(2)
    mean, variance = np.zeros(UNITS), np.ones(UNITS)
    for rows in (40, 2, 17):
        x = rng.normal(rng.normal(size=UNITS), 3, (rows, UNITS))
        got = dice(torch.from_numpy(x)).detach().numpy()
        wanted = dice_by_hand(dice, x, x.mean(0), x.var(0))
        np.testing.assert_allclose(got, wanted, **EXACT)
        mean += MOMENTUM * (x.mean(0) - mean)
        variance += MOMENTUM * (x.var(0, ddof=1) - variance)
    np.testing.assert_allclose(dice.norm.running_mean, mean, **EXACT)
    np.testing.assert_allclose(dice.norm.running_var, variance, **EXACT)
    dice.eval()
    for rows in (0, 1, 30):
        x = rng.normal(2, 3, (rows, UNITS))
        got = dice(torch.from_numpy(x)).detach().numpy()
        np.testing.assert_allclose(got, dice_by_hand(dice, x, mean, variance), **EXACT)
    own = dice_by_hand(dice, x, x.mean(0), x.var(0))
    assert np.abs(got - own).max() > 0.01  # the two statistics are told apart


# ------------------------------------------------------------ statistics and padding


def encoded(spec: FeatureSpec, rows: object) -> dict[str, Tensor]:
    return {k: torch.from_numpy(v) for k, v in spec.encode(rows).items()}


def lists_of(spec: FeatureSpec) -> dict[str, tuple[str, str]]:
    """Per input that holds lists: the table it reads, and the input of its lengths."""
    fields = [(f, s.name) for s in spec.behavior for f in s.fields if not f.source]
    pooled = [(m, m.name) for m in spec.multi_hot]
    return {f.name: (f.table, f"{owner}.lengths") for f, owner in fields + pooled}


def beyond_lengths(
    spec: FeatureSpec, inputs: dict[str, Tensor], wider: int
) -> dict[str, Tensor]:
    """Widen every list by `wider` and put ids of its table wherever nothing is."""
    generator = torch.Generator().manual_seed(3)
    out = dict(inputs)
    for name, (table, lengths) in lists_of(spec).items():
        ids = functional.pad(inputs[name], (0, wider))
        rows = spec.tables[table].rows
        garbage = torch.randint(1, rows, ids.shape, generator=generator)
        past = torch.arange(ids.shape[1]) >= inputs[lengths].unsqueeze(1)
        assert past[:, : ids.shape[1] - wider].any()
        out[name] = torch.where(past, garbage, ids)
    return out


@pytest.mark.parametrize(
    "name", ["paper", "softmax", "three sequences", "dice affine", "row dice, outer"]
)
@pytest.mark.parametrize("wider", [0, 1, 30])
def test_garbage_beyond_a_length_never_enters_training(name: str, wider: int) -> None:
    model = random_model(SPECS[name]).double().train()
    inputs = encoded(model.spec, random_rows(model.spec, 24))
    garbage = beyond_lengths(model.spec, inputs, wider)
    padded, deceived = copy.deepcopy(model), copy.deepcopy(model)
    wanted = model(inputs)
    assert wanted.std() > 0.1
    torch.testing.assert_close(padded(garbage), wanted, **EXACT)
    statistics = dict(padded.named_buffers())
    for key, value in model.named_buffers():
        torch.testing.assert_close(statistics[key], value, **EXACT)
    # Had it been behaviors, it would have counted: in scores and in statistics.
    for field, (_, lengths) in lists_of(model.spec).items():
        garbage[lengths] = torch.full_like(inputs[lengths], garbage[field].shape[1])
    assert (deceived(garbage) - wanted).abs().max() > 0.01
    moved = [
        (value - statistics[key]).abs().max() > 1e-3
        for key, value in deceived.named_buffers()
        if key.endswith("running_mean")
    ]
    assert any(moved)


# ------------------------------------------------------------- statistics and labels


def noise(rows: int) -> tuple[FeatureSpec, pa.Table, NDArray[np.bool_]]:
    """Rows whose labels say nothing, under Dice and batch normalization everywhere."""
    layers = {"hidden": [9, 5], "batch_norm": True}
    spec = FeatureSpec.from_dict(
        spec_dict(model={"attention": layers, "tower": layers})
    )
    raw = random_rows(spec, rows, seed=4)
    for row in raw:
        del row["extra"]
    labels = np.random.default_rng(5).random(rows) < 0.5
    return spec, pa.Table.from_pylist(raw), labels


def trained_on(spec: FeatureSpec, table: pa.Table, labels: NDArray[Any]) -> ClickModel:
    """A float64 model after some steps on the noise, left in training mode."""
    model = random_model(spec, seed=6).double().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    wanted = torch.from_numpy(labels.astype(np.float64))
    inputs = encoded(spec, table)
    for _ in range(12):
        loss = functional.binary_cross_entropy_with_logits(model(inputs), wanted)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model


class BatchStatistics(nn.Module):
    """What must not be: evaluation normalized by whatever the batch holds."""

    def __init__(self, norm: UnitNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        n = self.norm
        if len(x) < 2:
            return n(x)
        return functional.batch_norm(x, None, None, n.weight, n.bias, True, 0.0, n.eps)


def broken(model: ClickModel) -> ClickModel:
    """A copy that normalizes by the batch in evaluation too."""
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        if isinstance(getattr(module, "norm", None), UnitNorm):
            module.norm = BatchStatistics(module.norm)
    return model


def apart(
    model: ClickModel, table: pa.Table, labels: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Scores, positives and negatives evaluated each among themselves."""
    out = np.empty(len(labels))
    for kind in (labels, ~labels):
        model.train()  # evaluation must not depend on how a model was left
        out[kind] = evaluate(model, table.filter(pa.array(kind)))
    return out


def test_scores_do_not_depend_on_what_else_is_evaluated() -> None:
    """The trap of the authors' first release, whose Amazon results were withdrawn.

    Clicks and non-clicks were normalized apart, each by their own statistics, and so
    the statistics told a row's label.
    """
    spec, table, labels = noise(150)
    model = trained_on(spec, table, labels)
    mixed = evaluate(model, table)
    assert mixed.std() > 0.05
    np.testing.assert_allclose(apart(model, table, labels), mixed, **EXACT)
    for batch_size in (1, 7, 64):
        model.train()
        scores = evaluate(model, table, batch_size=batch_size)
        np.testing.assert_allclose(scores, mixed, **EXACT)
    shuffled = np.random.default_rng(7).permutation(150)
    scores = evaluate(model, table.take(pa.array(shuffled)))
    np.testing.assert_allclose(scores, mixed[shuffled], **EXACT)
    model.eval()
    with torch.inference_mode():
        direct = torch.sigmoid(model(encoded(spec, table)))
        alone = [
            torch.sigmoid(model(encoded(spec, table.slice(row, 1))))
            for row in range(150)
        ]
    np.testing.assert_allclose(direct, mixed, **EXACT)
    np.testing.assert_allclose(torch.cat(alone), mixed, **EXACT)


def test_evaluating_leaves_the_running_statistics_and_no_training_mode() -> None:
    spec, table, labels = noise(60)
    model = trained_on(spec, table, labels)
    before = {k: v.clone() for k, v in model.named_buffers()}
    apart(model, table, labels)
    for key, value in model.named_buffers():
        assert torch.equal(value, before[key]), key
    assert not any(module.training for module in model.modules())


def test_statistics_of_the_evaluated_batch_would_be_noticed() -> None:
    spec, table, labels = noise(150)
    leaky = broken(trained_on(spec, table, labels))
    mixed = evaluate(leaky, table)
    assert np.abs(apart(leaky, table, labels) - mixed).max() > 1e-3
    assert np.abs(evaluate(leaky, table, batch_size=7) - mixed).max() > 1e-3
    assert np.abs(evaluate(leaky, table, batch_size=1) - mixed).max() > 1e-3


# ------------------------------------------------- interactions, scale and softmax


@pytest.mark.parametrize(
    "attention",
    [
        {"interactions": ["difference"]},  # the paper's early version
        {"interactions": ["difference"], "softmax": True, "scale": 0.25},
        {"interactions": ["product"]},
        {"interactions": ["product"], "activation": "prelu", "scale": -2.0},
        {"interactions": ["outer"]},
        {"interactions": ["outer"], "softmax": True, "output_activation": "relu"},
        {"interactions": ["product", "outer"], "batch_norm": True},
        {"interactions": [], "softmax": True, "scale": 2.0},
    ],
    ids=str,
)
def test_every_interaction_converts(attention: dict[str, Any], tmp_path: Path) -> None:
    raw = spec_dict(
        model={"attention": {"hidden": [9, 5], **attention}, "tower": {"hidden": [7]}}
    )
    model = random_model(raw, seed=5)
    convert(model, tmp_path / "m.onnx")
    rows = random_rows(model.spec, 200, seed=9)
    double = copy.deepcopy(model).double()
    inputs = model.spec.encode(rows)
    wanted = link(model.spec, torch_logits(double, inputs))
    got = Predictor(tmp_path / "m.onnx").score(rows)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5)
    assert wanted.std() > 0.05
    weights = torch_weights(double, inputs)["history"]
    valid = np.arange(weights.shape[1]) < inputs["history.lengths"][:, None]
    assert weights[valid].std() > 0.05
