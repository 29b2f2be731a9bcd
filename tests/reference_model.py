"""The slow, obvious twin of the torch models and of the ONNX graph, in float64 NumPy.

One candidate and one behavior at a time, straight from the formulas; weights come from
a state_dict as plain arrays. Nothing is folded, packed or vectorized over rows.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from din_infer.spec import Attention, Behavior, FeatureSpec, MultiHot, Tower
from tests import reference

Array = NDArray[np.float64]


def sigmoid(x: Array) -> Array:
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))


def activate(
    x: Array, settings: Attention | Tower, w: Mapping[str, Array], at: str
) -> Array:
    """One row of one layer's pre-activations, [H]."""
    kind = settings.activation
    if kind == "none":
        return x
    if kind == "relu":
        return np.maximum(x, 0)
    if kind == "sigmoid":
        return sigmoid(x)
    if kind == "silu":
        return x * sigmoid(x)
    if kind == "prelu":
        return np.where(x >= 0, x, w[f"{at}.weight"] * x)
    if kind == "dice":
        mean, var = w[f"{at}.norm.running_mean"], w[f"{at}.norm.running_var"]
        z = (x - mean) / np.sqrt(var + settings.dice_epsilon)
        if settings.dice_affine:
            z = z * w[f"{at}.norm.weight"] + w[f"{at}.norm.bias"]
    else:
        centered = x - x.mean()
        z = centered / np.sqrt(np.sum(centered**2 + settings.dice_epsilon))
    p = sigmoid(z)
    return p * x + (1 - p) * w[f"{at}.alpha"] * x


def mlp(
    x: Array, settings: Attention | Tower, w: Mapping[str, Array], at: str
) -> float:
    """An MLP on one row, to one value."""
    for i in range(len(settings.hidden)):
        layer = f"{at}.hidden.{i}"
        x = w[f"{layer}.linear.weight"] @ x + w[f"{layer}.linear.bias"]
        if settings.batch_norm:
            mean, var = w[f"{layer}.norm.running_mean"], w[f"{layer}.norm.running_var"]
            x = (x - mean) / np.sqrt(var + 1e-5)
            x = x * w[f"{layer}.norm.weight"] + w[f"{layer}.norm.bias"]
        x = activate(x, settings, w, f"{layer}.activation")
    return float((w[f"{at}.output.weight"] @ x + w[f"{at}.output.bias"])[0])


def pool(vectors: list[Array], pooling: str, empty: float, dim: int) -> Array:
    if not vectors:
        return np.full(dim, empty)
    stacked = np.stack(vectors)
    if pooling == "max":
        return stacked.max(axis=0)
    total = stacked.sum(axis=0)
    return total / len(vectors) if pooling == "mean" else total


class Twin:
    """Logits of a spec's model, from its state_dict and encoded inputs."""

    def __init__(self, spec: FeatureSpec, state: Mapping[str, Any]) -> None:
        self.spec = spec
        self.w = {k: np.asarray(v, dtype=np.float64) for k, v in state.items()}

    def table(self, name: str) -> Array:
        return self.w[f"tables.of_{name}.weight"]

    def derived(self, name: str, source_id: int) -> Array:
        d = next(d for d in self.spec.derived if d.name == name)
        raw = d.lookup[source_id]
        ids = [reference.encode_value(v, d.dtype, d.encoder)[0] for v in raw]
        vectors = [self.table(d.table)[i] for i in ids]
        if d.weights is not None:
            vectors = [
                v * weight
                for v, weight in zip(vectors, d.weights[source_id], strict=True)
            ]
        return pool(vectors, d.pooling, d.empty, d.dim)

    def vector(self, name: str, inputs: Mapping[str, Any], n: int, b: int) -> Array:
        """A field that is not a behavior, for candidate n of request b."""
        spec = self.spec
        for f in (*spec.user, *spec.candidate):
            if f.name == name:
                row = b if f.side == "user" else n
                return self.table(f.table)[inputs[name][row]]
        for d in spec.derived:
            if d.name == name:
                row = b if d.side == "user" else n
                return self.derived(name, int(inputs[d.source][row]))
        for m in spec.multi_hot:
            if m.name == name:
                row = b if m.side == "user" else n
                ids = self.positions(m, inputs, name, row)
                vectors = [self.table(m.table)[inputs[name][row, t]] for t in ids]
                return pool(vectors, m.pooling, m.empty, m.dim)
        dense = next(d for d in spec.dense if d.name == name)
        values = np.asarray(
            inputs[name][b if dense.side == "user" else n], dtype=np.float64
        )
        if dense.project:
            values = self.w[f"projections.of_{name}.weight"] @ values
        return values

    @staticmethod
    def positions(
        f: Behavior | MultiHot, inputs: Mapping[str, Any], ids: str, row: int
    ) -> range:
        if f.padding == "attended":
            return range(f.max_len)
        assert inputs[ids].ndim == 2
        return range(int(inputs[f"{f.name}.lengths"][row]))

    def behavior(self, s: Behavior, inputs: Mapping[str, Any], b: int, t: int) -> Array:
        out = []
        for f in s.fields:
            i = int(inputs[f.source or f.name][b, t])
            table = self.table(f.table)
            out.append(self.derived(f.derived, i) if f.derived else table[i])
        return np.concatenate(out)

    def padding(self, s: Behavior) -> Array:
        zeros = {f.name: np.zeros((1, 1), np.int64) for f in s.fields}
        return self.behavior(s, zeros, 0, 0)

    def interest(
        self, s: Behavior, q: Array, inputs: Mapping[str, Any], b: int
    ) -> tuple[Array, list[float]]:
        first = next(f.name for f in s.fields if f.source is None)
        times = self.positions(s, inputs, first, b)
        ks = [self.behavior(s, inputs, b, t) for t in times]
        if self.spec.model.type == "base":
            return pool(ks, self.spec.model.pooling, 0.0, s.width), []
        a = s.attention
        scores = []
        for k in ks:
            blocks = [q, k]
            blocks += [q - k] if "difference" in a.interactions else []
            blocks += [q * k] if "product" in a.interactions else []
            blocks += [np.outer(q, k).ravel()] if "outer" in a.interactions else []
            score = np.array(
                mlp(np.concatenate(blocks), a, self.w, f"attentions.of_{s.name}.mlp")
            )
            if a.output_activation != "none":
                score = {
                    "sigmoid": sigmoid,
                    "relu": lambda x: np.maximum(x, 0),
                    "silu": lambda x: x * sigmoid(x),
                }[a.output_activation](score)
            scores.append(float(score) * a.scale)
        weights = scores
        if a.softmax and scores:
            exp = np.exp(np.array(scores) - max(scores))
            weights = list(exp / exp.sum())
        if a.softmax and s.empty_softmax == "padding_row" and not scores:
            return self.padding(s), weights
        total = np.zeros(s.width)
        for weight, k in zip(weights, ks, strict=True):
            total += weight * k
        return total, weights

    def logits(self, inputs: Mapping[str, Any]) -> Array:
        out = []
        for n, b in enumerate(inputs["request_of_candidate"]):
            whole: dict[tuple[str, str], Array] = {}
            for s in self.spec.behavior:
                q = np.concatenate(
                    [
                        np.zeros(width)
                        if name is None
                        else self.vector(name, inputs, n, b)
                        for name, width in s.query
                    ]
                )
                u, _ = self.interest(s, q, inputs, b)
                whole["interest", s.name], whole["query", s.name] = u, q
                whole["product", s.name] = u * q
            parts = []
            for p in self.spec.tower_inputs:
                vector = (
                    self.vector(p.name, inputs, n, b)
                    if p.kind == "field"
                    else whole[p.kind, p.name]
                )
                parts.append(vector[p.start : p.stop])
            out.append(
                mlp(np.concatenate(parts), self.spec.model.tower, self.w, "tower")
            )
        return np.array(out)
