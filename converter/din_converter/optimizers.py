"""The device and the optimizers of a training."""

from typing import Any

import torch

from din_converter.model import ClickModel
from din_converter.settings import Settings
from din_infer.errors import DeviceError

__all__ = ["find_device", "make_optimizers"]


def find_device(name: str) -> torch.device:
    """Return a device, once a tensor was made there; DeviceError says why not."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        rule = "a device that torch can use"
        reason = str(error).splitlines()[0]
        raise DeviceError(rule, f"{name!r} ({reason})", "device") from None
    return device


def make_optimizers(
    model: ClickModel, settings: Settings
) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """Make an optimizer of the layers, and a sparse one of the tables."""
    for embedding in model.tables.values():
        embedding.sparse = True  # type: ignore[assignment]
    tables = list(model.tables.parameters())
    inside = {id(p) for p in tables}
    layers = [p for p in model.parameters() if id(p) not in inside]
    kinds: dict[str, tuple[Any, Any]] = {
        "adam": (torch.optim.Adam, torch.optim.SparseAdam),
        "adagrad": (torch.optim.Adagrad, torch.optim.Adagrad),
        "sgd": (torch.optim.SGD, torch.optim.SGD),
    }
    for_layers, for_tables = kinds[settings.optimizer]
    rate = settings.learning_rate
    return (
        for_layers(layers, lr=rate, weight_decay=settings.weight_decay),
        for_tables(tables, lr=rate),
    )
