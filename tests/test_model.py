import copy

import numpy as np
import pytest
import torch

from din_converter import DIN, BaseModel, Dice, LocalActivationUnit, build_model
from din_converter.verify import edge_batches, torch_logits
from din_infer import FeatureSpec, ModelError
from tests.models import SPECS, random_model, random_rows, spec_dict
from tests.reference_model import Twin


@pytest.mark.parametrize("name", SPECS)
def test_model_equals_the_numpy_twin_in_float64(name: str) -> None:
    model = random_model(SPECS[name]).double()
    twin = Twin(model.spec, model.state_dict())
    spread = []
    for label, inputs in edge_batches(model.spec):
        if len(inputs["request_of_candidate"]) > 16:
            continue
        got, wanted = torch_logits(model, inputs), twin.logits(inputs)
        np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-10, err_msg=label)
        spread.extend(wanted)
    assert np.std(spread) > 0.05


def test_model_in_float32_is_close_to_float64() -> None:
    model = random_model(SPECS["paper"])
    inputs = model.spec.encode(random_rows(model.spec, 50))
    single = torch_logits(model, inputs)
    double = torch_logits(copy.deepcopy(model).double(), inputs)
    np.testing.assert_allclose(single, double, rtol=1e-5, atol=1e-5)
    assert double.std() > 0.1


def test_permuting_a_history_leaves_the_logit() -> None:
    model = random_model(SPECS["paper"]).double()
    rows = random_rows(model.spec, 20, seed=1)
    for row in rows:
        for column in ("hist_goods_id", "hist_cate_id", "action"):
            row[column] = row[column][-12:]
    turned = copy.deepcopy(rows)
    for row in turned:
        order = np.random.default_rng(2).permutation(len(row["action"]))
        for column in ("hist_goods_id", "hist_cate_id", "action"):
            row[column] = [row[column][i] for i in order]
    assert turned != rows
    got = torch_logits(model, model.spec.encode(turned))
    wanted = torch_logits(model, model.spec.encode(rows))
    np.testing.assert_allclose(got, wanted, atol=1e-12)


def test_the_padding_row_stays_zero_in_training() -> None:
    model = build_model(FeatureSpec.from_dict(SPECS["paper"]))
    inputs = model.spec.encode(random_rows(model.spec, 64))
    tensors = {k: torch.from_numpy(v) for k, v in inputs.items()}
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    model(tensors).sum().backward()
    optimizer.step()
    changed = 0
    for name, value in model.state_dict().items():
        if name.startswith("tables."):
            assert torch.equal(value[0], torch.zeros_like(value[0])), name
            changed += int(not torch.equal(value, before[name]))
    assert changed == len(model.spec.tables)


def test_padding_never_enters_the_statistics_of_dice() -> None:
    model = random_model(SPECS["paper"]).train()
    rows = random_rows(model.spec, 8)
    inputs = {k: torch.from_numpy(v) for k, v in model.spec.encode(rows).items()}
    longer = dict(inputs)
    for f in ("hist_goods_id", "hist_cate_id", "action"):
        longer[f] = torch.nn.functional.pad(inputs[f], (0, 30))
    other = copy.deepcopy(model)
    wanted, got = model(inputs), other(longer)
    torch.testing.assert_close(got, wanted)
    for a, b in zip(model.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(a, b)


def test_dice_normalizes_by_the_batch_in_training() -> None:
    dice = Dice(3, epsilon=1e-8)
    with torch.no_grad():
        dice.alpha.copy_(torch.tensor([0.1, -0.2, 0.3]))
    x = torch.randn(50, 3, dtype=torch.float64) * 2 + 1
    dice = dice.double()
    p = torch.sigmoid((x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-8).sqrt())
    torch.testing.assert_close(dice(x), p * x + (1 - p) * dice.alpha * x)
    assert not torch.equal(dice.norm.running_mean, torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("rows", [0, 1])
def test_a_training_batch_without_variance_uses_running_statistics(rows: int) -> None:
    dice = Dice(2)
    x = torch.ones(rows, 2)
    out = dice(x)
    torch.testing.assert_close(out, Dice(2).eval()(x))
    torch.testing.assert_close(dice.norm.running_mean, torch.zeros(2))


def test_local_activation_unit_sees_every_interaction() -> None:
    from din_infer.spec import Attention

    for interactions in ((), ("difference",), ("product",), ("outer",)):
        unit = LocalActivationUnit(5, Attention(interactions=interactions)).eval()
        width = unit.mlp.hidden[0].linear.in_features  # type: ignore[union-attr]
        extra = {(): 0, ("outer",): 25}.get(interactions, 5)
        assert width == 10 + extra
    q = torch.randn(7, 5)
    assert not torch.allclose(unit(q, q), unit(-q, q))


@pytest.mark.parametrize("hidden", [(), (7,), (7, 3)])
@pytest.mark.parametrize(
    "interactions",
    [(), ("difference",), ("product",), ("product", "difference"), ("outer",)],
)
def test_pairs_that_share_a_query_score_as_pairs(
    interactions: tuple[str, ...], hidden: tuple[int, ...]
) -> None:
    """The same scores, gradients and statistics of Dice as the paper's formula."""
    from din_infer.spec import Attention

    attention = Attention(interactions=interactions, hidden=hidden, activation="dice")
    plain = LocalActivationUnit(5, attention).double()
    shared = LocalActivationUnit(5, attention).double()
    shared.load_state_dict(plain.state_dict())
    of = torch.tensor([0, 0, 0, 2, 2, 3])  # nothing asks for query 1
    found = []
    for unit in (plain, shared):
        torch.manual_seed(0)
        queries = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
        behavior = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
        if unit is shared:
            score = unit.shared(queries, behavior, of)
        else:
            score = unit(queries.index_select(0, of), behavior)
        (score * torch.arange(6)).sum().backward()
        parameters = [(n, p.grad) for n, p in unit.named_parameters()]
        found.append(
            {
                "score": score.detach(),
                "queries": queries.grad,
                "behavior": behavior.grad,
                **dict(parameters),
                **dict(unit.named_buffers()),
            }
        )
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-12)
    assert found[0]["score"].std() > 0


def test_activation_weights_are_masked_and_sum_to_one_under_softmax() -> None:
    model = random_model(SPECS["softmax"])
    inputs = model.spec.encode(random_rows(model.spec, 30))
    tensors = {k: torch.from_numpy(v) for k, v in inputs.items()}
    weights = model.activation_weights(tensors)["history"].detach().numpy()
    lengths = inputs["history.lengths"]
    mask = np.arange(weights.shape[1]) < lengths[:, None]
    assert (weights[~mask] == 0).all()
    np.testing.assert_allclose(weights.sum(1), lengths > 0, atol=1e-5)
    assert weights[mask].std() > 0.01


def test_a_model_refuses_the_spec_of_the_other_type() -> None:
    with pytest.raises(ModelError) as caught:
        BaseModel(FeatureSpec.from_dict(SPECS["paper"]))
    assert str(caught.value) == "expected 'base', got 'din' - at `model.type`"
    assert isinstance(build_model(FeatureSpec.from_dict(SPECS["base sum"])), BaseModel)
    assert isinstance(build_model(FeatureSpec.from_dict(SPECS["paper"])), DIN)


def test_fields_may_be_called_like_attributes_of_a_module() -> None:
    raw = spec_dict()
    for name in ("type", "keys", "training", "forward"):
        raw["user"].append(
            {"name": name, "dim": 2, "encoder": {"type": "identity", "buckets": 3}}
        )
    model = build_model(FeatureSpec.from_dict(raw))
    assert "tables.of_keys.weight" in model.state_dict()
