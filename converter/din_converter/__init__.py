"""Torch DIN: build, train, save, convert to ONNX. Needs the ``convert`` extra.

Names are imported when first used, so that the commands' ``--help`` and their advice on
missing extras need no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from din_infer.version import __version__

if TYPE_CHECKING:
    from din_converter.checkpoint import load, save
    from din_converter.export import Report, convert
    from din_converter.layers import Dice, LocalActivationUnit
    from din_converter.model import DIN, BaseModel, build_model
    from din_converter.regularizer import MiniBatchAwareRegularizer, count_samples

__all__ = [
    "DIN",
    "BaseModel",
    "Dice",
    "LocalActivationUnit",
    "MiniBatchAwareRegularizer",
    "Report",
    "__version__",
    "build_model",
    "convert",
    "count_samples",
    "load",
    "save",
]

_HOMES = {
    "checkpoint": ("load", "save"),
    "export": ("Report", "convert"),
    "layers": ("Dice", "LocalActivationUnit"),
    "model": ("DIN", "BaseModel", "build_model"),
    "regularizer": ("MiniBatchAwareRegularizer", "count_samples"),
}


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"din_converter.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
