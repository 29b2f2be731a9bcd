"""Trained layers -> the constants of a graph, folded in float64.

Batch normalization goes into the linear layer before it, Dice into (scale, shift,
alpha), and the first attention layer becomes
W·[q, k, q-k, q*k] + b = (Wq+Wd)·q + [(Wk-Wd) + Wp·diag(q)]·k + b.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from din_converter.layers import (
    Dice,
    Layer,
    LocalActivationUnit,
    Mlp,
    RowDice,
    UnitNorm,
)
from din_converter.nodes import parameter_names

__all__ = ["Array", "FoldedLayer", "as_array", "attention_weights", "fold_layers"]

Array = NDArray[np.float64]


def as_array(tensor: torch.Tensor) -> Array:
    """Return a tensor as float64 on the CPU."""
    return tensor.detach().cpu().double().numpy()


def _fold_norm(norm: UnitNorm) -> tuple[Array, Array]:
    """Evaluation-mode batch normalization as (scale, shift)."""
    if norm.running_mean is None or norm.running_var is None:
        raise RuntimeError("UnitNorm always tracks running statistics")
    scale = 1.0 / np.sqrt(as_array(norm.running_var) + norm.eps)
    shift = -as_array(norm.running_mean) * scale
    if norm.affine:
        weight, bias = as_array(norm.weight), as_array(norm.bias)
        scale, shift = scale * weight, shift * weight + bias
    return scale, shift


@dataclass
class FoldedLayer:
    """One layer: weight [in, H], bias [H] and the activation's parameters, each [H]."""

    weight: Array
    bias: Array
    parameters: list[Array]


def fold_layers(mlp: Mlp) -> list[FoldedLayer]:
    """Fold batch normalization into the linear layers and Dice into three vectors."""
    layers = []
    layer: Layer
    for layer in mlp.hidden:  # type: ignore[assignment]
        weight, bias = as_array(layer.linear.weight).T, as_array(layer.linear.bias)
        if layer.norm is not None:
            scale, shift = _fold_norm(layer.norm)
            weight, bias = weight * scale, bias * scale + shift
        layers.append(FoldedLayer(weight, bias, _parameters(layer.activation, bias)))
    output = mlp.output
    layers.append(FoldedLayer(as_array(output.weight).T, as_array(output.bias), []))
    return layers


def _parameters(activation: nn.Module, bias: Array) -> list[Array]:
    if isinstance(activation, Dice):
        scale, shift = _fold_norm(activation.norm)
        return [scale, shift, as_array(activation.alpha)]
    if isinstance(activation, RowDice):
        return [as_array(activation.alpha)]
    if isinstance(activation, nn.PReLU):
        return [np.broadcast_to(as_array(activation.weight), bias.shape)]
    return []


def attention_weights(unit: LocalActivationUnit) -> dict[str, Array]:
    """Fold the unit's layers into the inputs that `LocalActivation.inputs` names."""
    layers = fold_layers(unit.mlp)
    d, h = unit.width, layers[0].weight.shape[1]
    interactions = unit.attention.interactions
    num_blocks = 2 + len(set(interactions) - {"outer"})
    query, behavior, *rest = np.split(layers[0].weight[: d * num_blocks], num_blocks)
    out: dict[str, Array] = {}
    if "difference" in interactions:
        difference = rest.pop(0)
        query, behavior = query + difference, behavior - difference
    out["weight_query"], out["weight_behavior"] = query, behavior
    if "product" in interactions:
        out["weight_product"] = rest.pop(0)
    if "outer" in interactions:
        # rows are (i, j) of q_i * k_j; the op wants [D of q, D of k * H]
        out["weight_outer"] = layers[0].weight[-d * d :].reshape(d, d * h)
    for i, layer in enumerate(layers, start=1):
        if i > 1:
            out[f"weight_{i}"] = layer.weight
        out[f"bias_{i}"] = layer.bias
        if i < len(layers):
            labels = parameter_names(unit.attention.activation, i)
            out |= dict(zip(labels, layer.parameters, strict=True))
    return out
