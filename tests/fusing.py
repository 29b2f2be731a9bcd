"""DINs written in torch in many ways: one class per part, and every choice by name."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from din_converter.module_parity import example_batches
from din_converter.modules import Graph, export_module
from tests import ops

B, T, ITEMS, BRANDS = 6, 7, 30, 9
WIDTHS = (4, 3)
D = sum(WIDTHS)
HIDDEN = (5, 3)


def mix(module: nn.Module, seed: int = 0) -> nn.Module:
    """Weights that spread what comes out, also statistics and slopes."""
    generator = torch.Generator().manual_seed(seed)
    kinds = (nn.Embedding, nn.EmbeddingBag)
    tables = [m.weight for m in module.modules() if isinstance(m, kinds)]
    with torch.no_grad():
        for name, p in [*module.named_parameters(), *module.named_buffers()]:
            if not p.is_floating_point():
                continue
            noise = torch.randn(p.shape, generator=generator)
            if "var" in name:
                p.copy_(0.3 + noise.abs())
            elif any(p is table for table in tables):
                p.copy_(noise)
            elif p.ndim >= 2:
                p.copy_(1.3 * noise / p[0].numel() ** 0.5)
            else:
                p.copy_(0.5 * noise)
    return module.eval()


# ---- activations, each over features in the last axis ----


class Dice(nn.Module):
    """BatchNorm1d over flattened rows, as most write it."""

    def __init__(self, width: int, form: str = "first", affine: bool = False) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(width, eps=1e-8, affine=affine)
        self.alpha = nn.Parameter(torch.zeros(width))
        self.form = form

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        p = torch.sigmoid(self.bn(flat)).view(x.shape)
        a = self.alpha
        if self.form == "first":
            return p * x + a * (1 - p) * x
        if self.form == "factored":
            return x * (p + a * (1 - p))
        if self.form == "alpha":
            return a * x + (1 - a) * (x * p)
        return torch.lerp(a * x, x, p)


class HandDice(nn.Module):
    """The statistics are buffers of its own."""

    def __init__(self, width: int, form: str = "rsqrt") -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("var", torch.ones(width))
        self.alpha = nn.Parameter(torch.zeros(width))
        self.form = form

    def forward(self, x: Tensor) -> Tensor:
        if self.form == "rsqrt":
            p = torch.sigmoid((x - self.mean) * torch.rsqrt(self.var + 1e-9))
        elif self.form == "exp":
            z = (x - self.mean) / torch.sqrt(self.var + 1e-9)
            p = 1 / (1 + torch.exp(-z))
        else:
            p = torch.sigmoid((x - self.mean) / (self.var + 1e-9).sqrt())
        return x.mul(1 - p).mul(self.alpha) + x.mul(p)


class Channels(nn.Module):
    """What nn has for channels in axis 1, over features in the last axis."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 2:
            return self.inner(x)
        return self.inner(x.transpose(1, 2)).transpose(1, 2)


class HandPrelu(nn.Module):
    """PReLU from other functions."""

    def __init__(self, width: int, form: str) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(width))
        self.form = form

    def forward(self, x: Tensor) -> Tensor:
        a = self.slope
        if self.form == "two":
            return torch.relu(x) - a * torch.relu(-x)
        if self.form == "where":
            return torch.where(x > 0, x, a * x)
        if self.form == "clamp":
            return x.clamp(min=0) + a * x.clamp(max=0)
        return torch.relu(x) + a * 0.5 * (x - x.abs())


class Step(nn.Module):
    """A function as a module."""

    def __init__(self, f: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.f = f

    def forward(self, x: Tensor) -> Tensor:
        return self.f(x)


ACTIVATIONS: dict[str, Callable[[int], nn.Module]] = {
    "dice": Dice,
    "dice factored": lambda w: Dice(w, "factored"),
    "dice alpha": lambda w: Dice(w, "alpha"),
    "dice lerp": lambda w: Dice(w, "lerp"),
    "dice affine": lambda w: Dice(w, "first", affine=True),
    "dice rsqrt": HandDice,
    "dice by hand": lambda w: HandDice(w, "sqrt"),
    "prelu shared": lambda w: nn.PReLU(),  # noqa: ARG005
    "prelu": lambda w: Channels(nn.PReLU(w)),
    "prelu two": lambda w: HandPrelu(w, "two"),
    "prelu where": lambda w: HandPrelu(w, "where"),
    "prelu clamp": lambda w: HandPrelu(w, "clamp"),
    "prelu abs": lambda w: HandPrelu(w, "abs"),
    "bn relu": lambda w: nn.Sequential(Channels(nn.BatchNorm1d(w)), nn.ReLU()),
    "leaky": lambda w: nn.LeakyReLU(0.1),  # noqa: ARG005
    "relu": lambda w: nn.ReLU(),  # noqa: ARG005
    "silu": lambda w: nn.SiLU(),  # noqa: ARG005
    "swish": lambda w: Step(lambda x: x * torch.sigmoid(x)),  # noqa: ARG005
    "sigmoid": lambda w: nn.Sigmoid(),  # noqa: ARG005
}


# ---- from rows to pairs ----


def _expand(q: Tensor, k: Tensor) -> Tensor:
    return q.unsqueeze(1).expand(-1, k.shape[1], -1)


PAIRINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "expand": _expand,
    "repeat": lambda q, k: q.unsqueeze(1).repeat(1, k.shape[1], 1),
    "tile": lambda q, k: torch.tile(q[:, None, :], (1, k.shape[1], 1)),
    "interleave": lambda q, k: q.unsqueeze(1).repeat_interleave(k.shape[1], dim=1),
    "view": lambda q, k: q.repeat(1, k.shape[1]).view(-1, k.shape[1], q.shape[1]),
    "ones": lambda q, k: q[:, None] * torch.ones_like(k[:, :, :1]),
    "zeros": lambda q, k: q[:, None] + torch.zeros_like(k),
    "stack": lambda q, k: q[:, None].expand_as(k),
}
FEATURES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "q": lambda q, k: q,  # noqa: ARG005
    "k": lambda q, k: k,  # noqa: ARG005
    "q-k": lambda q, k: q - k,
    "k-q": lambda q, k: k - q,
    "q*k": lambda q, k: q * k,
    "k*q/2": lambda q, k: k * q / 2,
    "dot": lambda q, k: (q * k).sum(-1, keepdim=True),
    "q+k": lambda q, k: q + k,
}
ALL = ("q", "k", "q-k", "q*k")


class ByHand(nn.Module):
    """A layer of parameters."""

    def __init__(self, width: int, units: int, transposed: bool) -> None:
        super().__init__()
        shape = (units, width) if transposed else (width, units)
        self.weight = nn.Parameter(torch.zeros(shape))
        self.bias = nn.Parameter(torch.zeros(units))
        self.transposed = transposed

    def forward(self, x: Tensor) -> Tensor:
        if self.transposed:
            return torch.einsum("...d,hd->...h", x, self.weight) + self.bias
        return x @ self.weight + self.bias


LINEARS: dict[str, Callable[[int, int], nn.Module]] = {
    "linear": nn.Linear,
    "no bias": lambda w, h: nn.Linear(w, h, bias=False),
    "by hand": lambda w, h: ByHand(w, h, False),
    "einsum": lambda w, h: ByHand(w, h, True),
    "conv": lambda w, h: Channels(nn.Conv1d(w, h, 1)),
}


class Mlp(nn.Module):
    """Pairs [B, T, W] to scores [B, T]."""

    def __init__(self, width: int, o: Mapping[str, Any]) -> None:
        super().__init__()
        linear, activation = LINEARS[o["linear"]], ACTIVATIONS[o["activation"]]
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise((width, *o["hidden"])):
            layers += [linear(a, b), activation(b)]
            layers += [nn.Dropout(0.5)] if o["dropout"] else []
        layers.append(linear((width, *o["hidden"])[-1], 1))
        if o["output"]:
            layers.append(ACTIVATIONS[o["output"]](1))
        self.layers = nn.Sequential(*layers)
        self.flat = o["flat"]

    def forward(self, x: Tensor) -> Tensor:
        if not self.flat:
            return self.layers(x).squeeze(-1)
        b, t, width = x.shape
        return self.layers(x.reshape(b * t, width)).view(b, t)


# ---- masks: what the module is given, and how scores and weights use it ----

LOW = -(2.0**32) + 1
MASKS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "where": lambda s, m: torch.where(m, s, torch.zeros_like(s)),
    "fill": lambda s, m: s.masked_fill(~m, 0.0),
    "product": lambda s, m: s * m.float(),
    "product 3d": lambda s, m: (s.unsqueeze(2) * m.unsqueeze(2).float()).squeeze(2),
}
SOFTMASKS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "where": lambda s, m: torch.where(m, s, torch.full_like(s, LOW)),
    "fill": lambda s, m: s.masked_fill(~m, -1e9),
    "infinite": lambda s, m: s.masked_fill(~m, float("-inf")),
    "lowest": lambda s, m: s.masked_fill(~m, torch.finfo(s.dtype).min),
    "added": lambda s, m: s + (1.0 - m.float()) * -1e9,
    "mixed": lambda s, m: s * m.float() - 1e9 * (1.0 - m.float()),
}
SUMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "bmm": lambda w, k: torch.bmm(w.unsqueeze(1), k).squeeze(1),
    "matmul": lambda w, k: torch.matmul(w[:, None, :], k)[:, 0],
    "turned": lambda w, k: (k.transpose(1, 2) @ w.unsqueeze(-1)).squeeze(-1),
    "product": lambda w, k: (w.unsqueeze(-1) * k).sum(dim=1),
    "product first": lambda w, k: torch.sum(k * w[..., None], 1),
    "einsum": lambda w, k: torch.einsum("bt,btd->bd", w, k),
    "kept": lambda w, k: (w.unsqueeze(-1) * k).sum(1, keepdim=True).squeeze(1),
}

DEFAULTS: dict[str, Any] = {
    "source": "tables",  # tables, one, stacked, floats, int32, column
    "keys": "plain",  # plain, position, norm, gru, masked
    "pairing": "expand",
    "features": ALL,
    "linear": "linear",
    "activation": "dice",
    "hidden": HIDDEN,
    "dropout": False,
    "output": "",
    "flat": False,
    "mask_from": "bool",  # "", bool, float, int, ids, lengths, left
    "mask": "where",
    "scale": "",  # before, after
    "softmax": False,
    "remask": False,  # weights of masked positions are set to 0 after softmax
    "sum": "bmm",
}


class Din(nn.Module):
    """The canonical DIN; returns a logit [B] and the interest [B, D]."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401
        super().__init__()
        o = self.o = {**DEFAULTS, **options}
        assert set(o) == set(DEFAULTS), set(o) ^ set(DEFAULTS)
        source = o["source"]
        self.width = {"one": 4, "stacked": 8}.get(source, D)
        if source == "stacked":
            self.table = nn.Embedding(ITEMS, 4)
        elif source != "floats":
            self.table = nn.Embedding(ITEMS, 4)
            self.brand_table = nn.Embedding(BRANDS, 3)
        if o["keys"] == "norm":
            self.norm = nn.LayerNorm(self.width)
        if o["keys"] == "gru":
            self.gru = nn.GRU(self.width, self.width, batch_first=True)
        if o["keys"] == "position":
            self.position_table = nn.Embedding(64, self.width)
        if o["pairing"] == "broadcast":
            first = o["hidden"][0]
            self.of = nn.ModuleList(nn.Linear(self.width, first) for _ in o["features"])
            rest = {**o, "hidden": o["hidden"][1:]}
            self.first = ACTIVATIONS[o["activation"]](first)
            self.unit = Mlp(first, rest)
        else:
            width = sum(1 if f == "dot" else self.width for f in o["features"])
            self.unit = Mlp(width, o)
        self.head = nn.Linear(2 * self.width, 1)
        mix(self)

    def rows(self, x: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        source = self.o["source"]
        if source == "floats":
            return x["q"], x["k"]
        if source == "stacked":
            return self.table(x["ids"]).flatten(1), self.table(x["history"]).flatten(2)
        ids = x["ids"][:, 0] if source == "column" else x["ids"]
        if source == "one":
            return self.table(ids), self.table(x["history"])
        q = [self.table(ids), self.brand_table(x["brand"])]
        k = [self.table(x["history"]), self.brand_table(x["brands"])]
        return torch.cat(q, dim=-1), torch.cat(k, dim=-1)

    def mask(self, x: Mapping[str, Tensor], k: Tensor) -> Tensor | None:
        kind = self.o["mask_from"]
        if kind == "bool":
            return x["mask"]
        if kind in ("float", "int"):
            return x["mask"] == 1
        if kind == "ids":
            return x["history"] != 0
        at = torch.arange(k.shape[1])
        if kind == "lengths":
            return at.unsqueeze(0) < x["lengths"].unsqueeze(1)
        if kind == "left":
            return at >= (k.shape[1] - x["lengths"][:, None])
        return None

    def change(self, x: Mapping[str, Tensor], k: Tensor, m: Tensor | None) -> Tensor:
        del x
        kind = self.o["keys"]
        if kind == "norm":
            return self.norm(k)
        if kind == "gru":
            return self.gru(k)[0]
        if kind == "position":
            return k + self.position_table(torch.arange(k.shape[1]))
        if kind == "masked" and m is not None:
            return k * m.unsqueeze(-1).float()
        return k

    def score(self, q: Tensor, k: Tensor) -> Tensor:
        o = self.o
        if o["pairing"] == "broadcast":
            parts = [
                layer(FEATURES[f](q[:, None], k))
                for layer, f in zip(self.of, o["features"], strict=True)
            ]
            return self.unit(self.first(sum(parts)))
        spread = PAIRINGS[o["pairing"]](q, k)
        pairs = [FEATURES[f](spread, k) for f in o["features"]]
        return self.unit(torch.cat(pairs, dim=-1))

    def weights(self, s: Tensor, m: Tensor | None) -> Tensor:
        o = self.o
        root = self.width**0.5
        s = s / root if o["scale"] == "before" else s
        if o["softmax"]:
            s = SOFTMASKS[o["mask"]](s, m) if m is not None else s
            s = torch.softmax(s, dim=-1)
            s = s * m.float() if o["remask"] and m is not None else s
        elif m is not None:
            s = MASKS[o["mask"]](s, m)
        return s * root**-1 if o["scale"] == "after" else s

    def pool(self, w: Tensor, k: Tensor) -> Tensor:
        return SUMS[self.o["sum"]](w, k)

    def forward(self, x: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        q, k = self.rows(x)
        m = self.mask(x, k)
        k = self.change(x, k, m)
        interest = self.pool(self.weights(self.score(q, k), m), k)
        return self.head(torch.cat([q, interest], 1)).squeeze(1), interest


def inputs(model: Din, seed: int = 0) -> dict[str, Tensor]:
    """What a Din's options say that it takes; one row is empty, one is full."""
    rng = np.random.default_rng(seed)
    o = model.o
    lengths = rng.integers(0, T + 1, B)
    lengths[:2] = 0, T
    at = np.arange(T)
    valid = at < lengths[:, None]
    if o["mask_from"] in ("bool", "float", "int"):  # with holes
        valid = (rng.random((B, T)) < 0.6) & (lengths > 0)[:, None]
    if o["mask_from"] == "left":
        valid = at >= T - lengths[:, None]
    source = o["source"]
    more = (2,) if source == "stacked" else (1,) if source == "column" else ()
    kind = np.int32 if source == "int32" else np.int64
    x: dict[str, Any] = {}
    if source == "floats":
        x["q"] = rng.normal(size=(B, D)).astype(np.float32)
        x["k"] = rng.normal(size=(B, T, D)).astype(np.float32)
    else:
        x["ids"] = rng.integers(1, ITEMS, (B, *more)).astype(kind)
        deep = (2,) if source == "stacked" else ()
        history = rng.integers(1, ITEMS, (B, T, *deep)).astype(kind)
        x["history"] = history
        if o["mask_from"] == "ids":
            x["history"] = np.where(valid.reshape(B, T, *[1] * len(deep)), history, 0)
    if source in ("tables", "int32", "column"):
        x["brand"] = rng.integers(0, BRANDS, B).astype(kind)
        x["brands"] = rng.integers(0, BRANDS, (B, T)).astype(kind)
    if o["mask_from"] in ("bool", "float", "int"):
        dtype = {"bool": np.bool_, "float": np.float32, "int": np.int64}
        x["mask"] = valid.astype(dtype[o["mask_from"]])
    if o["mask_from"] in ("lengths", "left"):
        x["lengths"] = lengths
    return {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in x.items()}


# ---- checks ----


def difference(got: NDArray[Any], wanted: NDArray[Any]) -> float:
    """The largest difference relative to max(1, |x|); infinite if NaNs differ."""
    assert got.shape == wanted.shape, (got.shape, wanted.shape)
    got, wanted = got.astype(np.float64), wanted.astype(np.float64)
    if (np.isnan(got) != np.isnan(wanted)).any():
        return float("inf")
    apart = np.abs(got - wanted) / np.maximum(1.0, np.abs(wanted))
    return float(np.nan_to_num(apart, nan=0.0).max(initial=0.0))


def worst(graph: Graph, *, native: bool = True) -> dict[str, float]:
    """The worst difference from torch of "plain", "body" and "native" at any batch."""
    sessions = {
        "plain": ops.session(graph.plain.SerializeToString(), fused=False),
        "body": ops.session(graph.fused.SerializeToString(), fused=False),
    }
    if native:
        sessions["native"] = ops.session(graph.fused.SerializeToString())
    out = dict.fromkeys(sessions, 0.0)
    spread = []
    kinds = {n.op_type for n in graph.plain.graph.node}
    aborts = kinds & {"GRU", "LSTM", "RNN", "Einsum"}
    for label, x in example_batches(graph):
        if aborts and label.startswith("N=0"):
            continue  # ONNX Runtime aborts the process
        try:
            wanted = graph.call(x, torch.float32)
        except RuntimeError:
            if label in ("example", "half", "twice"):
                raise
            continue  # a feature width that torch left open, drawn anew
        spread += [np.nanstd(w) for w in wanted[-1:] if w.size > 1 and label[0] != "N"]
        for name, session in sessions.items():
            try:
                got = session.run(None, x)
            except Exception:
                # the exporter's own Reshape to -1 may fail without candidates
                if name != "plain" or not label.startswith("N=0"):
                    raise
                continue
            apart = [difference(g, w) for g, w in zip(got, wanted, strict=True)]
            out[name] = max(out[name], *apart)
    assert max(spread) > 0.02, "outputs that are all alike prove nothing"
    return out


def export(model: nn.Module, x: Any) -> Graph:  # noqa: ANN401
    return export_module(model, x)
