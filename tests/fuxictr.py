"""A small twin of FuxiCTR's two DINs, and the files that their training leaves."""
# ruff: noqa: ANN401 - configurations hold anything

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor, nn

from din_converter.importers.fuxictr import read
from din_converter.model import ClickModel
from din_infer.errors import ConversionError

T = 5

Batch = dict[str, Any]
Features = list[dict[str, dict[str, Any]]]


class TwinDice(nn.Module):
    def __init__(self, units: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(units, affine=False, eps=1e-9)
        self.alpha = nn.Parameter(torch.zeros(units))

    def forward(self, x: Tensor) -> Tensor:
        p = torch.sigmoid(self.bn(x))
        return p * x + self.alpha * (1 - p) * x


def twin_activation(name: str | None, units: int) -> list[nn.Module]:
    if name is None:
        return []
    known: dict[str, Callable[[], nn.Module]] = {
        "dice": lambda: TwinDice(units),
        "prelu": lambda: nn.PReLU(units),
        "relu": nn.ReLU,
        "sigmoid": nn.Sigmoid,
    }
    return [known[name.lower()]() if name.lower() in known else getattr(nn, name)()]


class TwinMlp(nn.Module):
    def __init__(
        self, width: int, hidden: list[int], acts: Any, drop: Any, *, norm: bool
    ) -> None:
        super().__init__()
        acts = acts if isinstance(acts, list) else [acts] * len(hidden)
        drop = drop if isinstance(drop, list) else [drop] * len(hidden)
        steps: list[nn.Module] = []
        for units, act, rate in zip(hidden, acts, drop, strict=True):
            steps.append(nn.Linear(width, units))
            steps += [nn.BatchNorm1d(units)] if norm else []
            steps += twin_activation(act, units)
            steps += [nn.Dropout(rate)] if rate > 0 else []
            width = units
        self.mlp = nn.Sequential(*steps, nn.Linear(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.mlp(x)
        return out


class TwinAttention(nn.Module):
    def __init__(self, width: int, config: Mapping[str, Any], *, norm: bool) -> None:
        super().__init__()
        self.attention_layer = TwinMlp(
            4 * width,
            config["attention_hidden_units"],
            config["attention_hidden_activations"],
            config.get("attention_dropout", 0),
            norm=norm,
        )
        self.output = twin_activation(config.get("attention_output_activation"), 1)
        self.softmax = config.get("din_use_softmax", False)

    def forward(self, q: Tensor, k: Tensor, mask: Tensor) -> Tensor:
        q = q.unsqueeze(1).expand_as(k)
        score = self.attention_layer(torch.cat([q, k, q - k, q * k], -1).flatten(0, 1))
        for step in self.output:
            score = step(score)
        score = score.view(mask.shape) * mask
        if self.softmax:
            score = (score - 1e9 * (~mask)).softmax(-1)
        return (score.unsqueeze(-1) * k).sum(1)


class Twin(nn.Module):
    """What both of FuxiCTR's DINs compute, module by module as they name them."""

    def __init__(
        self,
        features: Features,
        config: Mapping[str, Any],
        *,
        is_long: bool = False,
        norm: bool = False,
    ) -> None:
        super().__init__()
        self.features = {
            n: s for f in features for n, s in f.items() if s["type"] != "meta"
        }
        self.config, self.is_long = config, is_long
        dim = config["embedding_dim"]
        tables = nn.ModuleDict()
        for name, spec in self.features.items():
            width = spec.get("embedding_dim", dim)
            if spec.get("share_embedding") in tables:
                tables[name] = tables[spec["share_embedding"]]
            elif spec["type"] == "numeric":
                tables[name] = nn.Linear(1, width, bias=False)
            else:
                pad = spec.get("padding_idx")
                tables[name] = nn.Embedding(spec["vocab_size"], width, pad)
        inner = nn.Module()
        inner.embedding_layers = tables
        self.embedding_layer = nn.Module() if is_long else inner
        if is_long:
            self.embedding_layer.embedding_layer = inner
        self.tables = [tables]  # not a second registration
        width = sum(self.width(n) for n in self.features)
        if is_long:
            items = sum(self.width(n) for n in self.items())
            self.attention_layers: nn.Module = TwinAttention(items, config, norm=norm)
            width += items
        else:
            self.attention_layers = nn.ModuleList(
                TwinAttention(dim * len(t), config, norm=norm) for t, _ in self.units()
            )
        self.dnn = TwinMlp(
            width,
            config["dnn_hidden_units"],
            config["dnn_activations"],
            config.get("net_dropout", 0),
            norm=config.get("batch_norm", False),
        )

    def width(self, name: str) -> int:
        width: int = self.features[name].get(
            "embedding_dim", self.config["embedding_dim"]
        )
        return width

    def items(self) -> list[str]:
        return [n for n, s in self.features.items() if s.get("source") == "item"]

    def units(self) -> list[tuple[list[str], list[str]]]:
        out: list[Any] = []
        for key in ("din_target_field", "din_sequence_field"):
            value = self.config[key]
            value = value if isinstance(value, list) else [value]
            out.append([[v] if isinstance(v, str) else list(v) for v in value])
        return list(zip(*out, strict=True))

    def embed(self, name: str, batch: Mapping[str, Tensor]) -> Tensor:
        spec, table = self.features[name], self.tables[0][name]
        x = batch[name]
        if spec["type"] == "numeric":
            out: Tensor = table(x.float().view(-1, 1))
            return out
        vectors: Tensor = table(x)
        encoder = spec.get("feature_encoder")
        if encoder is not None:
            count = (vectors.sum(-1) != 0).sum(-1, keepdim=True)
            vectors = vectors.sum(1)
            if "Average" in encoder:
                vectors = vectors / (count + 1e-12)
        return vectors

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        items = self.items() if self.is_long else []
        parts = {n: self.embed(n, batch) for n in self.features if n not in items}
        rest = list(self.features)
        if self.is_long:
            q = torch.cat([self.embed(n, batch) for n in items], -1)
            hist = [self.tables[0][n](batch[f"hist_{n}"]) for n in items]
            mask = batch[f"hist_{items[0]}"] > 0
            parts["q"] = q
            parts["p"] = self.attention_layers(q, torch.cat(hist, -1), mask)
            rest = [n for n in self.features if n not in items] + ["q", "p"]
        else:
            for (targets, sequences), unit in zip(
                self.units(), self.attention_layers, strict=True
            ):
                q = torch.cat([parts[n] for n in targets], -1)
                k = torch.cat([parts[n] for n in sequences], -1)
                pooled = unit(q, k, batch[sequences[0]] != 0)
                chunks = pooled.split(self.config["embedding_dim"], -1)
                parts |= dict(zip(sequences, chunks, strict=True))
        logit = self.dnn(torch.cat([parts[n] for n in rest], -1)).squeeze(-1)
        is_number = self.config.get("task") == "regression"
        return logit if is_number else logit.sigmoid()


def randomize(twin: Twin) -> Twin:
    """Give every weight and statistic a value that matters; zero rows stay zero."""
    generator = torch.Generator().manual_seed(0)
    for name, value in twin.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        noise = torch.randn(value.shape, generator=generator)
        if name.endswith("running_var"):
            noise = noise.abs() + 0.5
        elif value.ndim == 2 and "embedding_layers" not in name:
            noise /= value.shape[1] ** 0.5
        value.copy_(noise)
    for table in twin.tables[0].values():
        if isinstance(table, nn.Embedding) and table.padding_idx is not None:
            with torch.no_grad():
                table.weight[table.padding_idx] = 0
    return twin.eval()


USERS, GOODS, CATES, TAGS = 11, 13, 7, 6


def column(kind: str, rows: int = 0, **more: Any) -> dict[str, Any]:
    spec: dict[str, Any] = {"source": "", "type": kind}
    if kind != "numeric":
        spec |= {"padding_idx": 0, "vocab_size": rows}
    if kind == "sequence":
        spec |= {"max_len": T}
    return spec | more


AVERAGE, SUM = "layers.MaskedAveragePooling()", "layers.MaskedSumPooling()"


def shop(**changes: dict[str, Any]) -> Features:
    """List the features of a shop; `changes` are merged into the features they name."""
    features = {
        "user_id": column("categorical", USERS),
        "hist_cate": column("sequence", CATES),
        "price": column("numeric"),
        "goods": column("categorical", GOODS),
        "cate": column("categorical", CATES),
        "tag": column("sequence", TAGS, feature_encoder=AVERAGE),
        "hist_goods": column("sequence", GOODS, share_embedding="goods"),
        "request": {"type": "meta"},
    }
    return [{n: spec | changes.get(n, {})} for n, spec in features.items()]


PAIR = {"din_target_field": [["goods", "cate"]]} | {
    "din_sequence_field": [["hist_goods", "hist_cate"]]
}


def config_of(**more: Any) -> dict[str, Any]:
    return {
        "model": "DIN",
        "dataset_id": "shop",
        "embedding_dim": 4,
        "attention_hidden_units": [6, 3],
        "attention_hidden_activations": "Dice",
        "dnn_hidden_units": [8, 5],
        "dnn_activations": "relu",
        **PAIR,
    } | more


SINGLE = {"din_target_field": "cate", "din_sequence_field": "hist_cate"}


class Files:
    """The files of one training in a folder."""

    def __init__(
        self,
        folder: Path,
        features: Features | None = None,
        config: Mapping[str, Any] | None = None,
        **of_twin: bool,
    ) -> None:
        self.folder = folder
        features = shop() if features is None else features
        config = config_of() if config is None else config
        self.twin = randomize(Twin(features, config, **of_twin))
        self.state: dict[str, Any] = dict(self.twin.state_dict())
        self.map = {"dataset_id": "shop", "labels": ["clk"], "features": features}
        self.yaml = yaml.safe_dump({"Base": {"verbose": 1}, "exp": dict(config)})

    def read(self, **more: Any) -> ClickModel:
        path = self.folder / "exp.model"
        torch.save(self.state, path)
        (self.folder / "feature_map.json").write_text(json.dumps(self.map))
        (self.folder / "model_config.yaml").write_text(self.yaml)
        return read(
            path,
            feature_map=self.folder / "feature_map.json",
            model_config=self.folder / "model_config.yaml",
            **more,
        )

    def refused(self, **more: Any) -> str:
        """Read; the message of the refusal, with the folder left out."""
        with pytest.raises(ConversionError) as caught:
            self.read(**more)
        return str(caught.value).replace(f"{self.folder}/", "")


def padded(rng: np.random.Generator, rows: int, ids: int) -> NDArray[np.int64]:
    lengths = rng.integers(0, T + 1, rows)
    lengths[:3] = [0, 1, T]
    matrix = rng.integers(1, ids, (rows, T))
    return np.where(np.arange(T) < lengths[:, None], matrix, 0)


def batch_of(rows: int = 24) -> Batch:
    rng = np.random.default_rng(0)
    goods = padded(rng, rows, GOODS)
    return {
        "user_id": rng.integers(0, USERS, rows),
        "goods": rng.integers(1, GOODS, rows),
        "cate": rng.integers(1, CATES, rows),
        "price": rng.random(rows, dtype=np.float32),
        "tag": padded(rng, rows, TAGS),
        "hist_goods": goods,
        "hist_cate": np.where(goods > 0, rng.integers(1, CATES, (rows, T)), 0),
    }


def long_shop() -> Features:
    item = {"source": "item"}
    user = {"source": "user"}
    return [
        {"cate": column("categorical", CATES, **item)},
        {"age": column("numeric", embedding_dim=2)},
        {"user_id": column("categorical", USERS, **user, embedding_dim=3)},
        {"goods": column("categorical", GOODS, **item, embedding_dim=6)},
        {"tag": column("sequence", TAGS, **user, feature_encoder=AVERAGE)},
        {"seq_len": {"type": "meta"}},
    ]
