"""Whether float32 could overflow unseen in an attention: bounds, from its weights.

An infinity or a NaN reaches the logit, and `Predictor` refuses that, unless an
activation hides it: ReLU, sigmoid, softmax, and the row's Dice, which divides by a sum
of squares. The native operators let none of them hide it. The functions inside a model
pay up to a third of their time for that, so they do it where it is not proven here that
no sum can overflow.

Letters: D width of a behavior, H hidden units.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from din_infer.spec import Attention

__all__ = ["HIDING", "may_hide_overflow"]

HIDING = ("relu", "sigmoid", "row_dice")
# Differences of two scores, and what float32 rounds up on the way, are in the rest.
LARGEST = float(np.finfo(np.float32).max) / 4
Array = NDArray[np.float64]


def may_hide_overflow(
    attention: Attention,
    weights: Mapping[str, Array],
    tables: Mapping[str, NDArray[Any]],
) -> bool:
    """Tell whether some rows of the tables could overflow where it would not show.

    Parameters
    ----------
    attention : Attention
    weights : dict of arrays
    tables : dict of arrays [rows, d]
        Both by the names of `LocalActivation.inputs`.

    Notes
    -----
    Each value is bounded by the sum of the absolute values of what is added up to it,
    with every embedding as large as its side's largest: so no order of summing is
    larger.
    """
    a, w = attention, {k: np.abs(v) for k, v in weights.items()}
    if not (a.softmax or a.activation in HIDING or a.output_activation in HIDING):
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        k = _largest([t for name, t in tables.items() if name.startswith("table_")])
        q = _largest([t for name, t in tables.items() if name.startswith("candidate")])
        folded = w["weight_behavior"] + q * w.get("weight_product", 0.0)
        if "weight_outer" in w:
            folded = folded + q * w["weight_outer"].sum(0).reshape(folded.shape)
        x = q * w["weight_query"].sum(0) + w["bias_1"] + k * folded.sum(0)
        seen = [folded.max(), x.max()]
        for layer in range(1, len(a.hidden) + 1):
            if a.activation == "row_dice":  # the squares of what is centered
                seen.append(len(x) * ((2 * x.max()) ** 2 + a.dice_epsilon))
            x = _activated(a.activation, x, w, layer)
            x = x @ w[f"weight_{layer + 1}"] + w[f"bias_{layer + 1}"]
            seen.append(x.max())
        seen.append(x.max() * max(1.0, abs(a.scale)))
    return not max(seen) <= LARGEST or bool(np.isnan(seen).any())


def _largest(tables: Sequence[NDArray[Any]]) -> float:
    """Return the largest magnitude in tables, without a copy of one."""
    largest = [max(float(t.max()), -float(t.min())) for t in tables if t.size]
    return max(largest, default=0.0)


def _activated(kind: str, x: Array, w: Mapping[str, Array], layer: int) -> Array:
    """Bound the output of an activation for inputs in [-x, x]."""
    if kind == "sigmoid":
        return np.ones_like(x)
    slope = {"prelu": "slope", "dice": "dice_alpha", "row_dice": "dice_alpha"}.get(kind)
    return x if slope is None else x * np.maximum(1.0, w[f"{slope}_{layer}"])
