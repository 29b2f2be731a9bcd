"""Specs in every mode and models with weights that make a difference."""

from typing import Any

import numpy as np
import torch

from din_converter import build_model
from din_converter.model import ClickModel
from din_infer.spec import FeatureSpec
from tests import hostile


def spec_dict(**changes: Any) -> dict[str, Any]:  # noqa: ANN401
    """All kinds of fields at once; `changes` replace whole sections."""
    raw: dict[str, Any] = {
        "format": 1,
        "label": "label",
        "group": "user_id",
        "user": [
            {
                "name": "user_id",
                "dim": 6,
                "encoder": {"type": "hash", "buckets": 100, "seed": 42},
            },
            {
                "name": "age",
                "dim": 3,
                "encoder": {"type": "bucketize", "boundaries": [18.0, 30.0, 50.0]},
            },
        ],
        "candidate": [
            {"name": "goods_id", "dim": 8, "encoder": {"type": "hash", "buckets": 200}},
            {
                "name": "cate_id",
                "dtype": "int64",
                "dim": 4,
                "encoder": {"type": "identity", "buckets": 50},
            },
        ],
        "behavior": [
            {
                "name": "history",
                "max_len": 12,
                "fields": {
                    "hist_goods_id": "goods_id",
                    "hist_cate_id": "cate_id",
                    "action": {
                        "dim": 3,
                        "encoder": {"type": "vocab", "values": ["view", "buy"]},
                    },
                },
            }
        ],
        "multi_hot": [
            {
                "name": "tags",
                "side": "candidate",
                "dim": 5,
                "pooling": "mean",
                "max_len": 4,
                "encoder": {"type": "hash", "buckets": 30},
            },
            {
                "name": "interests",
                "side": "user",
                "dim": 5,
                "pooling": "max",
                "max_len": 6,
                "encoder": {"type": "hash", "buckets": 30},
            },
        ],
        "dense": [
            {"name": "price", "side": "candidate", "dim": 1, "missing": 0.0},
            {"name": "profile", "side": "user", "dim": 3, "project": 2},
        ],
        "model": {
            "attention": {"hidden": [9, 5]},
            "tower": {"hidden": [11, 7]},
        },
    }
    raw.update(changes)
    return raw


def _with_behavior(model: dict[str, Any], **behavior: Any) -> dict[str, Any]:  # noqa: ANN401
    raw = spec_dict(model=model)
    raw["behavior"][0].update(behavior)
    return raw


def _two_sequences() -> dict[str, Any]:
    raw = spec_dict()
    raw["behavior"].append(
        {
            "name": "carts",
            "max_len": 5,
            "fields": {"cart_goods_id": "goods_id"},
            "attention": {"hidden": [4], "activation": "relu", "softmax": True},
        }
    )
    raw["behavior"].append(
        {"name": "buys", "max_len": 7, "fields": {"buy_goods_id": "goods_id"}}
    )
    return raw


def _derived() -> dict[str, Any]:
    raw = spec_dict()
    rng = np.random.default_rng(3)
    lists = [
        [int(x) for x in rng.integers(1, 9, rng.integers(0, 4))] for _ in range(50)
    ]
    raw["derived"] = [
        {
            "name": "brand",
            "from": "cate_id",
            "dim": 5,
            "encoder": {"type": "identity", "buckets": 9},
            "padding_row": "trained",
            "lookup": lists,
            "weights": [[0.5 + 0.1 * x for x in row] for row in lists],
            "pooling": "mean",
            "empty": 0.25,
        }
    ]
    raw["behavior"][0]["fields"]["hist_brand"] = {
        "pairs": "brand",
        "from": "hist_cate_id",
    }
    return raw


def _query() -> dict[str, Any]:
    """Query and behavior columns in different orders, own table for one of them."""
    raw = spec_dict()
    raw["behavior"] = [
        {
            "name": "history",
            "max_len": 12,
            "query": ["goods_id", "cate_id"],
            "fields": {
                "hist_cate_id": "cate_id",
                "hist_goods": {"dim": 8, "encoder": {"type": "hash", "buckets": 40}},
            },
        }
    ]
    parts = [
        "history.query",
        "history[2:9]",
        "history.hist_goods",
        "goods_id",
        "goods_id",
    ]
    raw["model"] = {"tower": {"hidden": [6], "inputs": [*parts, "history.product"]}}
    return raw


SPECS: dict[str, dict[str, Any]] = {
    "paper": spec_dict(),
    "base sum": spec_dict(model={"type": "base", "tower": {"hidden": [7]}}),
    "base mean": spec_dict(model={"type": "base", "pooling": "mean"}),
    "softmax": _with_behavior({"attention": {"softmax": True, "scale": 0.5}}),
    "softmax, empty is the padding row": _with_behavior(
        {"attention": {"softmax": True}}, empty_softmax="padding_row"
    ),
    "attended padding": _with_behavior({}, padding="attended"),
    "attended padding, softmax": _with_behavior(
        {"attention": {"softmax": True}}, padding="attended"
    ),
    "attended padding row": _with_behavior(
        {"attention": {"softmax": True}},
        padding="attended",
        empty_softmax="padding_row",
    ),
    "row dice, outer": _with_behavior(
        {
            "attention": {
                "activation": "row_dice",
                "interactions": ["outer"],
                "hidden": [7],
                "batch_norm": True,
            },
            "tower": {"activation": "row_dice", "hidden": [5]},
        }
    ),
    "all interactions, prelu": _with_behavior(
        {
            "attention": {
                "activation": "prelu",
                "interactions": ["outer", "product", "difference"],
                "output_activation": "sigmoid",
            },
            "tower": {"activation": "prelu", "batch_norm": True},
        }
    ),
    "no interactions, sigmoid": _with_behavior(
        {
            "attention": {
                "activation": "sigmoid",
                "interactions": [],
                "output_activation": "silu",
            },
            "tower": {"activation": "silu", "hidden": [3, 3, 3]},
        }
    ),
    "no hidden layers": _with_behavior(
        {"attention": {"hidden": []}, "tower": {"hidden": []}}
    ),
    "dice affine": _with_behavior(
        {
            "attention": {"dice_affine": True, "dice_epsilon": 1e-3},
            "tower": {"activation": "none", "dice_affine": True},
        }
    ),
    "three sequences": _two_sequences(),
    "derived": _derived(),
    "query": _query(),
    "no history": spec_dict(behavior=[]),
    "candidate only": {
        "format": 1,
        "candidate": [
            {
                "name": "goods_id",
                "dim": 4,
                "encoder": {"type": "identity", "buckets": 9},
            }
        ],
    },
    "calibrated": spec_dict(calibration={"scale": 0.75, "offset": -1.5}),
    "identity link": spec_dict(model={"link": "identity"}),
    "trained padding": spec_dict(
        candidate=[
            {
                "name": "goods_id",
                "dim": 8,
                "encoder": {"type": "hash", "buckets": 200},
                "padding_row": "trained",
            },
            {
                "name": "cate_id",
                "dim": 4,
                "encoder": {"type": "identity", "buckets": 50},
            },
        ]
    ),
}


def random_model(spec: FeatureSpec | dict[str, Any], seed: int = 0) -> ClickModel:
    """A float32 model in evaluation mode whose outputs spread."""
    if isinstance(spec, dict):
        spec = FeatureSpec.from_dict(spec)
    model = build_model(spec)
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if not value.dtype.is_floating_point:
            continue
        noise = torch.randn(value.shape, generator=generator)
        if name.endswith("running_var"):
            value.copy_(0.5 + noise.abs())
        elif name.startswith("tables."):
            value.copy_(noise)
            table = spec.tables[name.split(".")[1].removeprefix("of_")]
            if table.padding_row == "zero":
                value[0] = 0
        elif value.ndim == 2:
            value.copy_(1.5 * noise / value.shape[1] ** 0.5)
        else:
            value.copy_(0.3 * noise)
    return model.eval()


def random_rows(spec: FeatureSpec, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Raw rows for a spec of this module, histories of every length."""
    rng = np.random.default_rng(seed)

    def value(dtype: str, rows: int) -> Any:  # noqa: ANN401
        if dtype == "string":
            odd = hostile.VALUES[int(rng.integers(len(hostile.VALUES)))]
            words = ["view", "buy", f"k{rng.integers(40)}", "", odd]
            return words[int(rng.choice(5, p=[0.24, 0.24, 0.24, 0.24, 0.04]))]
        if dtype == "float":
            return float(np.round(rng.normal(30, 20), 2))
        return int(rng.integers(0, rows))

    out = []
    for _ in range(count):
        row: dict[str, Any] = {"extra": object()}
        for f in (*spec.user, *spec.candidate):
            row |= {name: value(kind, e.rows) for name, kind, e in f.encoded}
        for s in spec.behavior:
            length = int(rng.integers(0, s.max_len + 4))
            for f in s.fields:
                for name, kind, e in f.encoded if f.source is None else ():
                    row[name] = [value(kind, e.rows) for _ in range(length)]
        for m in spec.multi_hot:
            length = int(rng.integers(0, m.max_len + 2))
            row[m.column] = [value(m.dtype, m.encoder.rows) for _ in range(length)]
        for d in spec.dense:
            values = [float(x) for x in rng.normal(size=d.dim)]
            row[d.column] = values[0] if d.dim == 1 else values
        out.append(row)
    return out
