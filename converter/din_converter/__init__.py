"""Torch DIN: build, train, save, convert to ONNX. Needs the ``convert`` extra."""

from din_converter.checkpoint import load, save
from din_converter.export import Report, convert
from din_converter.layers import Dice, LocalActivationUnit
from din_converter.model import DIN, BaseModel, build_model

__all__ = [
    "DIN",
    "BaseModel",
    "Dice",
    "LocalActivationUnit",
    "Report",
    "build_model",
    "convert",
    "load",
    "save",
]
