"""Random DINs: every part written in one of the ways that public code writes it.

`choices` draws them, `Random` is the module, and `inputs` what it is called with. Above
400 lines: all parts of one module.
"""

import itertools
import random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.fusing import ACTIVATIONS, FEATURES, mix

__all__ = ["CHOICES", "Random", "choices", "inputs"]

ITEMS, CATES, USERS, D = 30, 7, 12, 4
MATRIX_T = 6  # a matrix of everything has histories of one length
LOW = -(2.0**32) + 1

CHOICES: dict[str, tuple[Any, ...]] = {
    "embedding": (
        "one",
        "two",
        "two",
        "sum",
        "projected",
        "normed",
        "scaled",
        "padded",
    ),
    "packing": ("args", "dict", "list", "columns", "matrix"),
    "mask": (
        *("", "ids", "positive", "lengths", "left", "bool", "float", "int"),
        *("compared", "count"),
    ),
    "masking": (
        *("product", "where", "fill", "put", "inplace", "3d"),
        *("softmax -1e9", "softmax -inf", "softmax low", "softmax min", "softmax put"),
        *("softmax added", "softmax masked", "softmax / sqrt", "softmax any"),
        *("nan_to_num", "/ length", "masked before softmax"),
    ),
    "features": (
        *(("q", "k", "q-k", "q*k"), ("q", "k", "q-k"), ("q", "k", "q*k"), ("q", "k")),
        *(("q*k",), ("q", "k", "q*k", "dot"), ("k", "q+k"), ("q", "k", "k-q", "q*k")),
    ),
    "activation": (
        *("dice", "dice rsqrt", "prelu", "prelu shared", "relu", "sigmoid", "leaky"),
        *("silu", "bn relu", "tanh", "gelu"),
    ),
    "hidden": ((5,), (5, 3), (6, 4), ()),
    "residual": (False, False, False, True),
    "added": ("", "", "position", "age", "user"),
    "after": ("", "", "", "sigmoid", "decay", "scale"),
    "pooling": ("bmm", "matmul", "sum", "mean", "einsum", "turned", "expanded"),
    "blocks": (1, 1, 1, 2, "shared", "several"),
    "side": (
        *("", "user", "bag", "mean bag", "padded bag", "dense", "one_hot", "heads"),
        *("gru", "history mean"),
    ),
    "output": ("logit", "column", "sigmoid", "pair", "dict", "two classes"),
    "dtype": (torch.int64, torch.int64, torch.int32),
}


def choices(seed: int) -> dict[str, Any]:
    """Draw a DIN."""
    rng = random.Random(seed)
    o = {name: rng.choice(values) for name, values in CHOICES.items()}
    if not o["mask"]:
        o["masking"] = rng.choice(("none", "softmax"))
    if o["packing"] == "matrix":
        o["blocks"], o["mask"] = 1, o["mask"] and "ids"
    if o["blocks"] == "several":
        o["added"] = o["added"].replace("age", "")
        o["after"] = o["after"].replace("decay", "")
        o["masking"] = "softmax -1e9" if o["masking"] == "softmax put" else o["masking"]
    return o


def inputs(o: dict[str, Any], n: int, t: int, seed: int) -> dict[str, Tensor]:
    """What a DIN takes, by name: an empty history, a full one, id 0."""
    g = torch.Generator().manual_seed(1000 * n + 10 * t + seed)
    if o["packing"] == "matrix":
        t = MATRIX_T

    def ids(count: int, *shape: int) -> Tensor:
        return torch.randint(0, count, shape, generator=g)

    rows = (n, 3) if o["blocks"] == "several" else (n,)
    lengths = ids(t + 1, n)
    lengths[0] = 0
    lengths[-1] = t if n > 1 else lengths[-1]
    at = torch.arange(t)
    there = at < lengths[:, None]
    if o["mask"] == "left":
        there = at >= t - lengths[:, None]
    if o["mask"] in ("bool", "float", "int", "compared"):
        there = (torch.rand((n, t), generator=g) < 0.6) & (lengths > 0)[:, None]
    x = {
        "item": ids(ITEMS, *rows),
        "cate": ids(CATES, *rows),
        "user": ids(USERS, n),
        "history": (1 + ids(ITEMS - 1, n, t)) * there,
        "cates": (1 + ids(CATES - 1, n, t)) * there,
    }
    x = {name: tensor.to(o["dtype"]) for name, tensor in x.items()}
    if o["mask"] in ("lengths", "left"):
        x["length"] = lengths
    if o["mask"] in ("bool", "float", "int", "compared"):
        kind = {"bool": torch.bool, "int": torch.int64}.get(o["mask"], torch.float32)
        x["mask"] = there.to(kind)
    if o["added"] == "age" or o["after"] == "decay":
        x["age"] = ids(8, n, t)
    if "bag" in o["side"]:
        x["tags"] = ids(USERS, n, 3)
    if o["side"] == "dense":
        x["dense"] = torch.rand((n, 5), generator=g)
    if o["blocks"] in (2, "shared"):
        other = ids(ITEMS, n, t + 2)
        x["other"] = other * (torch.arange(t + 2) < ids(t + 3, n)[:, None])
    return x


def packed(o: dict[str, Any], x: dict[str, Tensor]) -> tuple[Any, ...]:
    """Put inputs together as the module takes them."""
    if o["packing"] == "dict":
        return (x,)
    if o["packing"] == "list":
        return (list(x.values()),)
    if o["packing"] == "matrix":
        wide = [v.float().reshape(len(v), -1) for v in x.values()]
        return (torch.cat(wide, 1),)
    if o["packing"] == "columns" and o["blocks"] != "several":
        first = torch.stack([x["item"], x["cate"], x["user"]], 1)
        return (first, *list(x.values())[3:])
    return tuple(x.values())


class Gelu(nn.GELU):
    """GELU of features, with the width that others need."""

    def __init__(self, _: int) -> None:
        super().__init__()


KINDS = {**ACTIVATIONS, "tanh": lambda _: nn.Tanh(), "gelu": Gelu}


class Unit(nn.Module):
    """Pairs [.., W] to scores [..]."""

    def __init__(self, width: int, o: dict[str, Any]) -> None:
        super().__init__()
        self.residual = o["residual"]
        kind = KINDS[o["activation"]]
        widths = [width, *([5] * len(o["hidden"]) if self.residual else o["hidden"])]
        self.linears = nn.ModuleList(
            nn.Linear(a, b) for a, b in itertools.pairwise(widths)
        )
        self.kinds = nn.ModuleList(kind(b) for b in widths[1:])
        self.last = nn.Linear(widths[-1], 1)

    def forward(self, x: Tensor) -> Tensor:
        for linear, kind in zip(self.linears, self.kinds, strict=True):
            y = kind(linear(x)) if x.ndim == 3 else self.flat(kind, linear(x))
            x = x + y if self.residual and x.shape[-1] == y.shape[-1] else y
        made: Tensor = self.last(x).squeeze(-1)
        return made

    @staticmethod
    def flat(kind: nn.Module, x: Tensor) -> Tensor:
        """Some layers take three axes alone."""
        shape = x.shape
        made: Tensor = kind(x.reshape(shape[0], -1, shape[-1])).reshape(shape)
        return made


class Random(nn.Module):
    """A DIN by `choices`."""

    def __init__(self, o: dict[str, Any]) -> None:
        super().__init__()
        self.o, self.names = o, list(inputs(o, 2, 3, 0))
        two = o["embedding"] == "two"
        self.width = 2 * D if two else D
        padding = 0 if o["embedding"] == "padded" else None
        self.items = nn.Embedding(ITEMS, D, padding_idx=padding)
        self.cates = nn.Embedding(CATES, D)
        self.users = nn.Embedding(USERS, D)
        self.project = nn.Linear(D, D)
        self.norm = nn.LayerNorm(D)
        wide = sum(1 if f == "dot" else self.width for f in o["features"])
        self.units = nn.ModuleList(Unit(wide, o) for _ in range(2))
        self.ages, self.places = nn.Embedding(8, 1), nn.Embedding(64, 1)
        mode = "mean" if o["side"] == "mean bag" else "sum"
        pad = 0 if o["side"] == "padded bag" else None
        self.bag = nn.EmbeddingBag(USERS, D, mode=mode, padding_idx=pad)
        self.heads = nn.MultiheadAttention(self.width, 2, batch_first=True)
        self.gru = nn.GRU(self.width, D, batch_first=True)
        self.dense, self.hot = nn.Linear(5, D), nn.Linear(USERS, D)
        self.register_buffer("decay", torch.linspace(1.0, 0.2, 64))
        blocks = 2 if o["blocks"] in (2, "shared") else 1
        side = D if o["side"] not in ("", "heads", "history mean") else 0
        side = self.width if o["side"] in ("heads", "history mean") else side
        classes = 2 if o["output"] == "two classes" else 1
        self.tower = nn.Sequential(
            nn.Linear(self.width * (1 + blocks) + side, 6),
            nn.BatchNorm1d(6) if o["blocks"] != "several" else nn.Identity(),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(6, classes),
        )
        mix(self)

    def unpacked(self, args: tuple[Any, ...]) -> dict[str, Tensor]:
        o = self.o
        if o["packing"] == "dict":
            return dict(args[0])
        if o["packing"] == "list":
            return dict(zip(self.names, args[0], strict=True))
        if o["packing"] == "matrix":
            x, at, out = args[0], 0, {}
            for name in self.names:
                wide = {"history": MATRIX_T, "cates": MATRIX_T, "age": MATRIX_T}
                width = {**wide, "tags": 3, "dense": 5}.get(name, 1)
                part = x[:, at : at + width]
                part = part.squeeze(1) if width == 1 else part
                out[name] = part if name == "dense" else part.long()
                at += width
            return out
        if o["packing"] == "columns" and o["blocks"] != "several":
            first = args[0]
            columns = [first[:, 0], first[:, 1], first[:, 2]]
            return dict(zip(self.names, (*columns, *args[1:]), strict=True))
        return dict(zip(self.names, args, strict=True))

    def rows(self, items: Tensor, cates: Tensor | None) -> Tensor:
        kind, e = self.o["embedding"], self.items(items)
        if kind == "two":
            more = self.cates(cates) if cates is not None else torch.zeros_like(e)
            return torch.cat([e, more], -1)
        if kind == "sum" and cates is not None:
            return e + self.cates(cates)
        if kind == "projected":
            return torch.relu(self.project(e))
        if kind == "normed":
            return self.norm(e)
        return e * D**0.5 if kind == "scaled" else e

    def mask(self, x: dict[str, Tensor], history: Tensor) -> Tensor | None:
        kind = self.o["mask"]
        at = torch.arange(history.shape[1])
        if kind == "positive":
            return history > 0
        if kind == "lengths":
            return at[None] < x["length"][:, None]
        if kind == "left":
            return at >= history.shape[1] - x["length"].unsqueeze(1)
        if kind == "count":
            return at < (history != 0).sum(1, keepdim=True)
        if kind in ("bool", "float"):
            return x["mask"]
        if kind == "int":
            return x["mask"].bool()
        if kind == "compared":
            return x["mask"] > 0.5
        return history != 0 if kind else None

    def weights(self, s: Tensor, m: Tensor | None) -> Tensor:
        how = self.o["masking"]
        if m is None:
            return s.softmax(-1) if how == "softmax" else s
        given = m
        if m.dtype != torch.bool and how not in ("product", "/ length", "3d"):
            m = m != 0
        kind = s.dtype
        if how == "product":
            return s * m.to(kind)
        if how == "3d":
            return (s.unsqueeze(-1) * given.to(kind).unsqueeze(-1)).squeeze(-1)
        if how == "where":
            return torch.where(m, s, torch.zeros_like(s))
        if how == "fill":
            return s.masked_fill(m == 0, 0.0)
        if how == "put":
            s = s.clone()
            s[~m.expand_as(s)] = 0
            return s
        if how == "inplace":
            return s.clone().mul_(m.to(kind))
        if how == "/ length":
            m = m.to(kind)
            return s * m / m.sum(-1, keepdim=True).clamp(min=1)
        if how == "masked before softmax":
            return (s * m.to(kind)).softmax(-1) * m.to(kind)
        if how == "softmax added":
            return (s + (1.0 - m.to(kind)) * -1e9).softmax(-1)
        if how == "softmax put":
            s = s.clone()
            s[~m] = -1e9
            return s.softmax(-1)
        fill = {
            "softmax -inf": float("-inf"),
            "nan_to_num": float("-inf"),
            "softmax low": LOW,
            "softmax min": torch.finfo(torch.float32).min,
        }.get(how, -1e9)
        s = s.masked_fill(~m, fill)
        w = F.softmax(s / 2.0 if how == "softmax / sqrt" else s, dim=-1)
        if how == "softmax masked":
            return w * m.to(kind)
        if how == "softmax any":
            return torch.where(m.any(-1, keepdim=True), w, 0.0)
        return torch.nan_to_num(w) if how == "nan_to_num" else w

    def attend(
        self,
        x: dict[str, Tensor],
        q: Tensor,
        k: Tensor,
        m: Tensor | None,
        unit: int = 0,
    ) -> Tensor:
        o, several = self.o, q.ndim == 3
        if several:
            spread = q[:, :, None].expand(-1, -1, k.shape[1], -1)
            other = k[:, None].expand(-1, q.shape[1], -1, -1)
        else:
            spread, other = q.unsqueeze(1).expand(-1, k.shape[1], -1), k
        pairs = [FEATURES[f](spread, other) for f in o["features"]]
        s = self.units[unit](torch.cat(pairs, -1))
        if o["added"] == "position":
            s = s + self.places(torch.arange(k.shape[1])).squeeze(-1)
        if o["added"] == "age" and "age" in x:
            s = s + self.ages(x["age"]).squeeze(-1)
        if o["added"] == "user":
            s = s + self.users(x["user"])[:, :1].view(-1, *[1] * (s.ndim - 1))
        s = torch.sigmoid(s) if o["after"] == "sigmoid" else s
        w = self.weights(s, m[:, None] if several and m is not None else m)
        w = w * D**-0.5 if o["after"] == "scale" else w
        if o["after"] == "decay":
            w = w * self.decay[: k.shape[1]]
        if several:
            return self.pool_several(w, k)
        return self.pool(w, k)

    def pool(self, w: Tensor, k: Tensor) -> Tensor:
        how = self.o["pooling"]
        if how == "bmm":
            return torch.bmm(w.unsqueeze(1), k).squeeze(1)
        if how == "matmul":
            return (w[:, None] @ k)[:, 0]
        if how == "turned":
            return torch.matmul(k.transpose(1, 2), w[..., None]).squeeze(-1)
        if how == "einsum":
            return torch.einsum("bt,btd->bd", w, k)
        if how == "expanded":
            return (w.unsqueeze(-1).expand_as(k) * k).sum(1)
        made = w.unsqueeze(-1) * k
        return made.mean(1) if how == "mean" else made.sum(dim=1)

    def pool_several(self, w: Tensor, k: Tensor) -> Tensor:
        how = self.o["pooling"]
        if how in ("bmm", "turned"):
            return torch.bmm(w, k)
        if how == "matmul":
            return torch.matmul(w, k)
        if how == "einsum":
            return torch.einsum("bct,btd->bcd", w, k)
        if how == "expanded":
            return (w[:, :, None] @ k[:, None]).squeeze(2)
        made = w.unsqueeze(-1) * k.unsqueeze(1)
        return made.mean(2) if how == "mean" else made.sum(2)

    def side(self, x: dict[str, Tensor], q: Tensor, k: Tensor) -> Tensor | None:
        kind = self.o["side"]
        if "bag" in kind:
            return self.bag(x["tags"])
        if kind == "user":
            return self.users(x["user"])
        if kind == "dense":
            return self.dense(x["dense"])
        if kind == "one_hot":
            return self.hot(F.one_hot(x["user"].long(), USERS).to(q.dtype))
        if kind == "heads":
            one = q.mean(1, keepdim=True) if q.ndim == 3 else q[:, None]
            return self.heads(one, k, k, need_weights=False)[0].squeeze(1)
        if kind == "gru":
            return self.gru(k)[1].squeeze(0)
        return k.mean(1) if kind == "history mean" else None

    def forward(self, *args: Any) -> Any:  # noqa: ANN401
        o, x = self.o, self.unpacked(args)
        q = self.rows(x["item"], x["cate"])
        k = self.rows(x["history"], x["cates"])
        parts = [q, self.attend(x, q, k, self.mask(x, x["history"]))]
        if "other" in x:
            other = self.rows(x["other"], None)
            unit = 0 if o["blocks"] == "shared" else 1
            known = x["other"] != 0 if o["mask"] else None
            parts.append(self.attend({"user": x["user"]}, q, other, known, unit))
        side = self.side(x, q, k)
        if side is not None:
            side = side[:, None].expand(-1, q.shape[1], -1) if q.ndim == 3 else side
            parts.append(side)
        y = self.tower(torch.cat(parts, -1))
        if o["output"] == "column":
            return y
        if o["output"] == "two classes":
            return y.softmax(-1)
        y = y.squeeze(-1)
        if o["output"] == "sigmoid":
            return torch.sigmoid(y)
        if o["output"] == "pair":
            return y, parts[1]
        return {"y_pred": y} if o["output"] == "dict" else y
