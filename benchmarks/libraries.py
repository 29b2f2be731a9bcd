"""The attention that DIN libraries ship, with the weights of the model under test.

None is a dependency: pip install fuxictr, deepctr-torch or torch-rechub to see its row.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from benchmarks.rivals import (
    ATTENTION_INPUTS,
    AttentionFromIds,
    Rivals,
    layers_of,
    mask_of,
)
from benchmarks.timing import Contestant
from din_converter import DIN
from din_converter.layers import LocalActivationUnit, Mlp

__all__ = ["library_entries"]


def _copy_weights(source: Mlp, target: nn.Module) -> None:
    """Copy the linear layers and, where `target` has the same Dice, its statistics."""
    layers = layers_of(source)
    linears = (m for m in target.modules() if isinstance(m, nn.Linear))
    wanted = (*(linear for linear, _ in layers), source.output)
    for to, linear in zip(linears, wanted, strict=True):
        to.load_state_dict(linear.state_dict())
    dices = (m for m in target.modules() if type(m).__name__ == "Dice")
    for m, (_, dice) in zip(dices, layers, strict=True):
        if hasattr(m, "bn"):
            norm, alpha = cast("nn.BatchNorm1d", m.bn), cast("Tensor", m.alpha)
            norm.eps = dice.norm.eps
            norm.load_state_dict(dice.norm.state_dict(), strict=False)
            with torch.no_grad():
                alpha.copy_(dice.alpha.view_as(alpha))


def _widths(mlp: Mlp) -> list[int]:
    return [linear.out_features for linear, _ in layers_of(mlp)]


class FuxictrAttention(nn.Module):
    """FuxiCTR's DIN_Attention."""

    def __init__(self, width: int, mlp: Mlp) -> None:
        super().__init__()
        from fuxictr.pytorch.layers import DIN_Attention

        self.inner = DIN_Attention(width, _widths(mlp), hidden_activations="Dice")
        _copy_weights(mlp, self.inner)

    def forward(self, query: Tensor, behavior: Tensor, lengths: Tensor) -> Tensor:
        """Attend: float [N, D], float [N, T, D], int64 [N] to float [N, D]."""
        out: Tensor = self.inner(query, behavior, mask_of(behavior, lengths))
        return out


class DeepctrAttention(nn.Module):
    """DeepCTR-Torch's AttentionSequencePoolingLayer."""

    def __init__(self, width: int, mlp: Mlp) -> None:
        super().__init__()
        from deepctr_torch.layers import AttentionSequencePoolingLayer

        self.inner = AttentionSequencePoolingLayer(
            _widths(mlp), att_activation="dice", embedding_dim=width
        )
        _copy_weights(mlp, self.inner)

    def forward(self, query: Tensor, behavior: Tensor, lengths: Tensor) -> Tensor:
        """Attend: float [N, D], float [N, T, D], int64 [N] to float [N, D]."""
        out: Tensor = self.inner(query.unsqueeze(1), behavior, lengths.unsqueeze(1))
        return out.squeeze(1)


class RechubAttention(nn.Module):
    """torch-rechub's ActivationUnit: its own Dice, over the units of a row.

    It has no mask; the embedding of padding is zero, so that the sum is the same.
    """

    def __init__(self, width: int, mlp: Mlp) -> None:
        super().__init__()
        from torch_rechub.models.ranking.din import ActivationUnit

        self.inner = ActivationUnit(width, _widths(mlp), activation="dice")
        _copy_weights(mlp, self.inner)

    def forward(self, query: Tensor, behavior: Tensor, lengths: Tensor) -> Tensor:  # noqa: ARG002
        """Attend: float [N, D], float [N, T, D] to float [N, D]."""
        out: Tensor = self.inner(behavior, query)
        return out


LIBRARIES: dict[str, tuple[str, type[nn.Module]]] = {
    "fuxictr": ("FuxiCTR", FuxictrAttention),
    "deepctr": ("DeepCTR-Torch", DeepctrAttention),
    "rechub": ("torch-rechub (its Dice)", RechubAttention),
}


def library_entries(
    model: DIN, folder: Path, threads: int
) -> dict[str, Callable[[], Contestant]]:
    """List each library twice: exported and run by ONNX Runtime, and run by torch.

    torch-rechub computes another function, so it is held against itself in float64.
    """

    @cache
    def rivals(key: str) -> Rivals:
        unit = cast("LocalActivationUnit", model.attentions["of_history"])
        attention = LIBRARIES[key][1](unit.width, unit.mlp)
        module = AttentionFromIds(model, attention).eval()
        return Rivals(module, ATTENTION_INPUTS, folder / f"{key}.onnx", threads)

    def enter(key: str, *, exported: bool) -> Contestant:
        rival, (label, attention) = rivals(key), LIBRARIES[key]
        contestant = (
            rival.plain(f"{label}, export in ONNX Runtime")
            if exported
            else rival.eager(f"{label}, torch eager")
        )
        if attention is RechubAttention:
            return replace(contestant, exact=rival.exact)
        return contestant

    return {
        f"{key}-{suffix}": partial(enter, key, exported=suffix == "plain")
        for key in LIBRARIES
        for suffix in ("plain", "eager")
    }
