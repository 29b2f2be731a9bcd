"""The slow, obvious twins of the native operators, in float64 NumPy.

One candidate, one behavior, one id at a time, from the operators' inputs as they stand
in a model: the first layer is folded already, nothing else is.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.reference_model import sigmoid

Array = NDArray[np.float64]


def activate(kind: str, x: Array, w: Mapping[str, Array], at: int, eps: float) -> Array:
    """One row of layer `at`'s pre-activations, [H]."""
    if kind == "none":
        return x
    if kind == "relu":
        return np.maximum(x, 0)
    if kind == "sigmoid":
        return sigmoid(x)
    if kind == "silu":
        return x * sigmoid(x)
    if kind == "prelu":
        return np.where(x >= 0, x, w[f"slope_{at}"] * x)
    if kind == "dice":
        p = sigmoid(x * w[f"dice_scale_{at}"] + w[f"dice_shift_{at}"])
    else:
        centered = x - x.mean()
        p = sigmoid(centered / np.sqrt(np.sum(centered**2 + eps)))
    alpha = w[f"dice_alpha_{at}"]
    return x * (alpha + (1 - alpha) * p)


def local_activation(
    attributes: Mapping[str, Any], inputs: Mapping[str, Any]
) -> tuple[Array, Array]:
    """Interest [N, D] and activation weights [N, T]."""
    a = attributes
    w = {k: np.asarray(v, np.float64) for k, v in inputs.items()}
    tables = [w[f"table_{i}"] for i in range(a["num_fields"])]
    width = sum(t.shape[1] for t in tables)
    request = inputs["request_of_candidate"]
    positions = inputs["ids_0"].shape[1]
    interest = np.zeros((len(request), width))
    weights = np.zeros((len(request), positions))
    for n, b in enumerate(request):
        q = np.concatenate(
            [
                np.zeros(-slot)
                if slot < 0
                else w[f"candidate_table_{slot}"][inputs[f"candidate_ids_{slot}"][n]]
                for slot in a["query_slots"]
            ]
        )
        kept = valid_positions(a["padding"], inputs, b, positions)
        ks = [
            np.concatenate([t[inputs[f"ids_{i}"][b, j]] for i, t in enumerate(tables)])
            for j in kept
        ]
        scores = np.array([score(a, w, q, k) for k in ks])
        if a["softmax"] and kept:
            scores = np.exp(scores - scores.max())
            scores /= scores.sum()
        for j, k in enumerate(ks):
            interest[n] += scores[j] * k
        weights[n, kept] = scores
        fills = a["padding"] == "masked" and a["empty_softmax"] == "padding_row"
        if not kept and a["softmax"] and fills:
            interest[n] = np.concatenate([t[0] for t in tables])
    return interest, weights


def valid_positions(
    padding: str, inputs: Mapping[str, Any], request: int, positions: int
) -> list[int]:
    """Positions of one request that hold a behavior."""
    if padding == "mask":
        return [t for t in range(positions) if inputs["mask"][request, t] == 1]
    if padding == "masked":
        return list(range(int(inputs["lengths"][request])))
    return list(range(positions))


def score(a: Mapping[str, Any], w: Mapping[str, Array], q: Array, k: Array) -> float:
    """One pair through the local activation unit."""
    x = q @ w["weight_query"] + k @ w["weight_behavior"] + w["bias_1"]
    if "weight_product" in w:
        x = x + (q * k) @ w["weight_product"]
    if "weight_outer" in w:
        # weight_outer is [D of q, D of k * H]
        x = x + np.outer(q, k).ravel() @ w["weight_outer"].reshape(len(q) ** 2, -1)
    for layer in range(1, a["num_layers"]):
        x = activate(a["activation"], x, w, layer, a["epsilon"])
        x = x @ w[f"weight_{layer + 1}"] + w[f"bias_{layer + 1}"]
    return float(activate(a["output_activation"], x, w, 0, 0.0)[0] * a["scale"])


def guard(
    fields: Sequence[tuple[str, int]],
    num_user_fields: int,
    inputs: Mapping[str, Any],
    num_requests: int,
) -> NDArray[np.bool_]:
    """Guard, one candidate at a time: which ones may not be scored, [N].

    `num_requests` is -1 where nothing is per request.
    """
    owners = inputs["request_of_candidate"]
    bad = np.zeros(len(owners), bool)
    for n, owner in enumerate(owners):
        if num_requests >= 0:
            bad[n] |= num_requests - 1 not in owners
            bad[n] |= not 0 <= owner < num_requests
        for i, (name, rows) in enumerate(fields):
            at = owner if i < num_user_fields else n
            known = 0 <= at < len(inputs[name])
            bad[n] |= not (known and 0 <= inputs[name][at] < rows)
    return bad


def embedding_bag(
    attributes: Mapping[str, Any],
    ids: NDArray[np.int64],
    lengths: NDArray[np.int64],
    table: NDArray[Any],
) -> Array:
    """Pooled rows [R, D]."""
    out = np.full((len(ids), table.shape[1]), float(attributes["empty"]))
    for n, row in enumerate(ids):
        attended = attributes["padding"] == "attended"
        vectors = table[row if attended else row[: lengths[n]]].astype(np.float64)
        if len(vectors):
            pool = {"sum": np.sum, "mean": np.mean, "max": np.max}
            out[n] = pool[attributes["pooling"]](vectors, axis=0)
    return out


def tower(attributes: Mapping[str, Any], inputs: Mapping[str, Any]) -> Array:
    """Logits [N], one row at a time."""
    a = attributes
    w = {k: np.asarray(v, np.float64) for k, v in inputs.items()}
    out = []
    for row in np.concatenate([w[f"x_{i}"] for i in range(a["num_blocks"])], axis=1):
        x = row
        for layer in range(1, a["num_layers"] + 1):
            x = x @ w[f"weight_{layer}"] + w[f"bias_{layer}"]
            if layer < a["num_layers"]:
                x = activate(a["activation"], x, w, layer, a["epsilon"])
        out.append(x[0])
    return np.array(out)


def dice(x: Array, scale: Array, shift: Array, alpha: Array) -> Array:
    """Dice with folded statistics, [N, H]."""
    return x * (alpha + (1 - alpha) * sigmoid(x * scale + shift))
