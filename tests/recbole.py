"""A small twin of recbole's DIN, and the checkpoint that its trainer leaves.

The pickled objects are of classes that have recbole's names while they are saved.
"""

import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

ITEMS, SHOPS, TAGS, DIM, T = 9, 5, 6, 4, 5
TOKENS = ["[PAD]", *(f"item {chr(104 - i)}" for i in range(ITEMS - 1))]
HIDDEN = [6, 3]


def item_feat() -> dict[str, Tensor]:
    """Make the attributes of the items: a token, two lists, a number, numbers."""
    rng = np.random.default_rng(1)
    tags = rng.integers(1, TAGS, (ITEMS, 3)) * (
        np.arange(3) < rng.integers(1, 4, (ITEMS, 1))
    )
    sizes = np.stack([rng.normal(size=(ITEMS, 2)), tags[:, :2] > 0], axis=-1)
    price = np.stack([rng.normal(size=ITEMS), np.ones(ITEMS)], axis=-1)
    feat = {
        "shop": rng.integers(0, SHOPS, ITEMS),
        "tags": tags,
        "item_id": np.arange(ITEMS),
        "sizes": sizes.astype(np.float32),
        "price": price.astype(np.float32),
        "unused": rng.normal(size=ITEMS).astype(np.float32),
    }
    feat["tags"][0] = feat["sizes"][0] = feat["shop"][0] = 0
    return {name: torch.from_numpy(v) for name, v in feat.items()}


class Twin(nn.Module):
    """recbole's modules, by the names that their state_dict has."""

    def __init__(self, pooling: str = "mean") -> None:
        super().__init__()
        self.pooling, self.feat = pooling, item_feat()
        layer = nn.Module()
        for kind in ("token", "float"):
            rows = SHOPS + ITEMS if kind == "token" else 2
            field = nn.Module()
            field.embedding = nn.Embedding(rows, DIM)
            setattr(layer, f"{kind}_embedding_table", nn.ModuleDict({"item": field}))
        user = nn.Module()
        user.embedding = nn.Embedding(7, DIM)
        layer.token_embedding_table["user"] = user  # type: ignore[index]
        for kind, rows in (("token_seq", TAGS), ("float_seq", 2)):
            tables = nn.ModuleList([nn.Embedding(rows, DIM)])
            setattr(layer, f"{kind}_embedding_table", nn.ModuleDict({"item": tables}))
        self.embedding_layer = layer
        width = 5 * DIM
        attention, tower = [4 * width, *HIDDEN], [3 * width, *HIDDEN]
        self.attention = nn.Module()
        self.attention.att_mlp_layers = nn.Module()
        self.attention.att_mlp_layers.mlp_layers = nn.Sequential(
            *(
                step
                for a, b in pairwise(attention)
                for step in (nn.Dropout(), nn.Linear(a, b), nn.Sigmoid())
            )
        )
        self.attention.dense = nn.Linear(HIDDEN[-1], 1)
        self.dnn_mlp_layers = nn.Module()
        self.dnn_mlp_layers.mlp_layers = nn.Sequential(
            *(
                step
                for a, b in pairwise(tower)
                for step in (
                    nn.Dropout(),
                    nn.Linear(a, b),
                    nn.BatchNorm1d(b),
                    nn.SiLU(),
                )
            )
        )
        self.dnn_predict_layers = nn.Linear(HIDDEN[-1], 1)
        generator = torch.Generator().manual_seed(0)
        for name, value in self.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                noise = torch.randn(value.shape, generator=generator)
                value.copy_(noise.abs() + 0.5 if name.endswith("_var") else noise)
        self.eval()

    def pool(self, vectors: Tensor, mask: Tensor) -> Tensor:
        mask = mask.float().unsqueeze(-1)
        if self.pooling == "max":
            return (vectors - (1 - mask) * 1e9).max(-2).values
        total = (vectors * mask).sum(-2)
        return total if self.pooling == "sum" else total / (mask.sum(-2) + 1e-8)

    def items(self, ids: Tensor) -> Tensor:
        """Embed items: token fields, token lists, numbers, lists of numbers."""
        layer: Any = self.embedding_layer
        token = layer.token_embedding_table["item"].embedding
        feat = {name: column[ids] for name, column in self.feat.items()}
        tags, sizes, price = feat["tags"], feat["sizes"], feat["price"]
        index = sizes[..., 1].long()
        of_size = layer.float_seq_embedding_table["item"][0](index)
        number = layer.float_embedding_table["item"].embedding(price[..., 1].long())
        parts = [
            token(feat["shop"]),
            token(feat["item_id"] + SHOPS),
            self.pool(layer.token_seq_embedding_table["item"][0](tags), tags != 0),
            price[..., :1] * number,
            self.pool(sizes[..., :1] * of_size, index != 0),
        ]
        return torch.cat(parts, -1)

    def forward(self, item: Tensor, past: Tensor, length: Tensor) -> Tensor:
        """Compute the logit."""
        attention: Any = self.attention
        tower: Any = self.dnn_mlp_layers
        q, k = self.items(item), self.items(past)
        wide = q.unsqueeze(1).expand_as(k)
        blocks = torch.cat([wide, k, wide - k, wide * k], -1)
        score = attention.dense(attention.att_mlp_layers.mlp_layers(blocks)).squeeze(-1)
        score = score * (torch.arange(past.shape[1]) < length.unsqueeze(1))
        u = (score.unsqueeze(-1) / q.shape[-1] ** 0.5 * k).sum(1)
        out: Tensor = self.dnn_predict_layers(
            tower.mlp_layers(torch.cat([u, q, u * q], -1))
        )
        return out.squeeze(-1)


def make(module: str, name: str, **attributes: Any) -> Any:  # noqa: ANN401
    """Make an object of a class that `save` lets the pickle name so."""
    made = type(name, (), {"__module__": module})()
    vars(made).update(attributes)
    return made


def checkpoint(twin: Twin) -> dict[str, Any]:
    """Make what recbole's trainer saves, with the training data in it."""
    layers = "recbole.model.layers"
    interaction = "recbole.data.interaction"
    feat = make(interaction, "Interaction", interaction=twin.feat, length=ITEMS)
    seen = {"user_id": torch.arange(7777, 7797), "rating": torch.full((20,), 777.25)}
    dataset = make(
        "recbole.data.dataset.sequential_dataset",
        "SequentialDataset",
        field2id_token={
            "item_id": np.array(TOKENS),
            "user_id": np.array(["[PAD]", *(f"secret{i}" for i in range(6))]),
        },
        inter_feat=make(interaction, "Interaction", interaction=seen, length=20),
    )
    layer = make(
        layers,
        "ContextSeqEmbLayer",
        dataset=dataset,
        item_feat=feat,
        pooling_mode=twin.pooling,
        token_field_names={"user": ["user_id"], "item": ["shop", "item_id"]},
        token_field_dims={"user": [7], "item": [SHOPS, ITEMS]},
        token_field_offsets={"user": np.array([0]), "item": np.array([0, SHOPS])},
        token_seq_field_names={"user": [], "item": ["tags"]},
        token_seq_field_dims={"user": [], "item": [TAGS]},
        float_field_names={"user": [], "item": ["price"]},
        float_field_dims={"user": [], "item": [2]},
        float_field_offsets={"item": np.array([0])},
        float_seq_field_names={"user": [], "item": ["sizes"]},
        float_seq_field_dims={"user": [], "item": [2]},
    )
    config = {
        "model": "DIN",
        "ITEM_ID_FIELD": "item_id",
        "ITEM_LIST_LENGTH_FIELD": "item_length",
        "LIST_SUFFIX": "_list",
        "MAX_ITEM_LIST_LENGTH": T,
        "embedding_size": DIM,
        "mlp_hidden_size": HIDDEN,
    }
    return {
        "config": make(
            "recbole.config.configurator", "Config", final_config_dict=config
        ),
        "epoch": 1,
        "state_dict": dict(twin.state_dict()),
        "other_parameter": {"embedding_layer": layer},
        "optimizer": {},
    }


def save(content: object, path: Path) -> None:
    """Write a checkpoint whose objects have the names of recbole's classes."""
    made: dict[str, ModuleType] = {}

    def visit(value: object) -> None:
        kind = type(value)
        if kind.__module__.startswith("recbole."):
            module = made.setdefault(kind.__module__, ModuleType(kind.__module__))
            # one class per name: what is pickled is the class that the module holds
            same = module.__dict__.setdefault(kind.__name__, kind)
            value.__class__ = same
            visit(vars(value))
        elif isinstance(value, Mapping):
            for item in value.values():
                visit(item)

    visit(content)
    parents = {n.rsplit(".", i)[0] for n in made for i in range(1, n.count(".") + 1)}
    modules = {n: ModuleType(n) for n in parents} | made
    try:
        sys.modules.update(modules)
        torch.save(content, path, pickle_protocol=4)
    finally:
        for name in modules:
            del sys.modules[name]


def batch_of(rows: int = 24) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Draw internal ids: the item [rows], its past [rows, T] padded right, lengths."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, T + 1, rows)
    lengths[:3] = [0, 1, T]
    past = rng.integers(1, ITEMS, (rows, T)) * (np.arange(T) < lengths[:, None])
    return rng.integers(1, ITEMS, rows), past, lengths
