"""Local activation units in modules of several sequences, shapes and fixed sizes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from din_converter.modules import export_module
from tests.fusing import DEFAULTS, ITEMS, Mlp, export, mix, worst

pytestmark = pytest.mark.slow


class Module(torch.nn.Module):
    """A table of items, two units and whatever a style needs."""

    def __init__(self, change: Any, width: int = 4) -> None:  # noqa: ANN401
        super().__init__()
        self.change = change
        self.table = torch.nn.Embedding(ITEMS, width)
        units = [Mlp(4 * width, {**DEFAULTS, "activation": a}) for a in KINDS]
        self.units = torch.nn.ModuleList(units)
        mix(self)

    def attend(self, q: Tensor, k: Tensor, m: Tensor, unit: int = 0) -> Tensor:
        spread = q[:, None].expand(-1, k.shape[1], -1)
        x = torch.cat([spread, k, spread - k, spread * k], -1)
        weights = torch.where(m, self.units[unit](x), 0.0)
        return torch.bmm(weights[:, None], k).squeeze(1)

    def forward(self, *args: Tensor) -> tuple[Tensor, Tensor]:
        interest = self.change(self, *args)
        return interest.sum(1), interest


KINDS = ("dice", "prelu")


def _ids(*shape: int, seed: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, ITEMS, shape, generator=generator)


def _padded(b: int, t: int, seed: int = 5) -> Tensor:
    """Histories of 0 to t behaviors, then zeros."""
    lengths = torch.arange(b) * t // (b - 1)
    return _ids(b, t, seed=seed) * (torch.arange(t) < lengths[:, None])


def _attend(model: Module, ids: Tensor, history: Tensor, unit: int = 0) -> Tensor:
    q, k = model.table(ids), model.table(history)
    return model.attend(q, k, history != 0, unit)


def _two(model: Module, ids: Tensor, one: Tensor, other: Tensor) -> Tensor:
    parts = [_attend(model, ids, one), _attend(model, ids, other, unit=1)]
    return torch.cat(parts, -1)


def _squeezed(model: Module, ids: Tensor, history: Tensor) -> Tensor:
    return _attend(model, ids.squeeze(1), history)


def _column_of_rows(model: Module, ids: Tensor, history: Tensor) -> Tensor:
    """The candidate's embeddings keep an axis of 1: [B, 1, D]."""
    k = model.table(history)
    q = model.table(ids).expand(-1, k.shape[1], -1)
    x = torch.cat([q, k, q - k, q * k], -1)
    weights = torch.where(history != 0, model.units[0](x), 0.0)
    return torch.bmm(weights[:, None], k).squeeze(1)


def _normalized_channels(model: Module, ids: Tensor, history: Tensor) -> Tensor:
    """Dice whose BatchNorm1d sees [B, H, T]."""
    k = model.table(history)
    q = model.table(ids)[:, None].expand_as(k)
    layers = model.units[0].layers
    x = layers[0](torch.cat([q, k, q - k, q * k], -1))
    p = torch.sigmoid(layers[1].bn(x.transpose(1, 2))).transpose(1, 2)
    x = p * x + layers[1].alpha * (1 - p) * x
    scores = layers[4](layers[3](layers[2](x))).squeeze(-1)
    weights = torch.where(history != 0, scores, 0.0)
    return torch.bmm(weights[:, None], k).squeeze(1)


# by name: the module, its inputs, and how many blocks it has
MODULES: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...], int]] = {
    "two sequences": (_two, (_ids(6), _padded(6, 7), _padded(6, 5, seed=8)), 2),
    "two sequences of equal length": (
        _two,
        (_ids(6), _padded(6, 7), _padded(6, 7, seed=8)),
        2,
    ),
    "candidates [B, 1]": (_squeezed, (_ids(6, 1), _padded(6, 7)), 1),
    "candidate rows [B, 1, D]": (_column_of_rows, (_ids(6, 1), _padded(6, 7)), 1),
    "as many candidates as positions": (_attend, (_ids(7), _padded(7, 7)), 1),
    "as many of both as features": (_attend, (_ids(4), _padded(4, 4)), 1),
    "BatchNorm1d of [B, H, T]": (_normalized_channels, (_ids(6), _padded(6, 7)), 1),
}


@pytest.mark.parametrize("name", MODULES)
def test_every_module_fuses_and_equals_torch(name: str) -> None:
    change, x, count = MODULES[name]
    graph = export(Module(change), x)
    assert [b.fused for b in graph.blocks] == [True] * count, graph.blocks
    for kind, apart in worst(graph).items():
        assert apart <= 1e-5, kind


@pytest.mark.parametrize("positions", [4, 7])
def test_a_fixed_number_of_positions_fuses(positions: int) -> None:
    model, x = Module(_attend), (_ids(6), _padded(6, positions))
    batch = torch.export.Dim("batch")
    program = torch.export.export(
        model, x, dynamic_shapes={"args": ({0: batch}, {0: batch})}
    )
    graph = export_module(program)
    assert [b.fused for b in graph.blocks] == [True], graph.blocks
    for kind, apart in worst(graph).items():
        assert apart <= 1e-5, kind
