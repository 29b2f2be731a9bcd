"""Weights taken over by a model whose spec has changed a little."""

from typing import Any

import pytest
import torch

from din_converter.model import build_model
from din_converter.warm_start import copy_weights
from din_infer import FeatureSpec, ModelError
from tests.models import random_model


def a_spec(values: list[Any], **changes: Any) -> FeatureSpec:  # noqa: ANN401
    encoder = {"type": "vocab", "values": values}
    goods = {"name": "goods", "dim": 3, "encoder": encoder}
    goods["dtype"] = "string" if isinstance(values[0], str) else "int64"
    price = {"name": "price", "side": "candidate", "dim": 1}
    behavior = {"name": "h", "max_len": 5, "fields": {"hist": "goods"}}
    model = {"attention": {"hidden": [4]}, "tower": {"hidden": [4]}}
    raw = {
        "format": 1,
        "candidate": [goods],
        "behavior": [behavior],
        "dense": [price],
        "model": model,
    }
    return FeatureSpec.from_dict(raw | changes)


def table_of(model: Any) -> torch.Tensor:  # noqa: ANN401
    return model.tables["of_goods"].weight.detach().clone()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["a", "b"], ["a", "b", "c", "d"]),
        (["a", "b"], ["c", "b", "a"]),  # in another order
        (["a", "b", "c"], ["c", "x"]),  # and some have gone
        (["a", "b"], ["x"]),
        ([3, 7], [7, 8, 3]),
    ],
)
def test_a_grown_vocabulary_keeps_its_rows(old: list[Any], new: list[Any]) -> None:
    start = random_model(a_spec(old))
    model = build_model(a_spec(new))
    drawn, before = table_of(model), table_of(start)
    copy_weights(start, model)
    after = table_of(model)
    assert torch.equal(after[0], before[0])
    assert torch.equal(after[-1], before[-1])  # of values in no vocabulary
    for row, value in enumerate(new, 1):
        known = value in old
        wanted = before[1 + old.index(value)] if known else drawn[row]
        assert torch.equal(after[row], wanted)
        assert known or after[row].any()
    for key, weights in start.state_dict().items():
        if key != "tables.of_goods.weight":
            assert torch.equal(model.state_dict()[key], weights)


def test_what_weights_do_not_depend_on_may_differ() -> None:
    raw = a_spec(["a"]).to_dict()
    old = FeatureSpec.from_dict({**raw, "label": "y"})
    raw["behavior"][0]["max_len"] = 50
    raw["model"]["tower"]["dropout"] = 0.5
    raw["model"]["attention"]["dropout"] = 0.1
    raw |= {"label": "z", "weight": "w", "calibration": {"offset": -1.0}}
    start, model = random_model(old), build_model(FeatureSpec.from_dict(raw))
    copy_weights(start, model)
    for key, weights in start.state_dict().items():
        assert torch.equal(model.state_dict()[key], weights)


def test_all_that_differs_is_named() -> None:
    raw = a_spec(["a"]).to_dict()
    raw["candidate"][0] |= {"dim": 4, "encoder": {"type": "hash", "buckets": 99}}
    raw["dense"] = [{"name": "cost", "side": "candidate", "dim": 1}]
    raw["model"]["tower"]["activation"] = "relu"
    with pytest.raises(ModelError) as caught:
        copy_weights(
            random_model(a_spec(["a"])), build_model(FeatureSpec.from_dict(raw))
        )
    text = str(caught.value)
    assert text.startswith(
        "expected a model of the same spec, whose ids mean the same, got"
        " model.tower.activation 'dice' and now 'relu'; candidate goods.dim 3 and now"
        " 4; candidate goods.encoder.type 'vocab' and now 'hash'; "
    )
    assert "; dense price and now none; no dense cost and now one; " in text
    assert text.endswith(" - at `warm start`")
    for values in (["a", "b"], [1, 2]):
        kind = "string" if values == [1, 2] else "int64"
        other = random_model(a_spec(["a"] if kind == "string" else [1]))
        with pytest.raises(ModelError, match=f"candidate goods.dtype '{kind}' and now"):
            copy_weights(other, build_model(a_spec(values)))
