"""Errors raised on purpose.

Every message reads ``expected <rule>, got <value> - at `<place>```; a second sentence
says how to mend it, where that is known.
"""

import re

__all__ = [
    "ROW",
    "ConversionError",
    "DeviceError",
    "DinError",
    "InputError",
    "ModelError",
]

# Where `explain` says that a row is wrong: the column, the row.
ROW = re.compile(r"- at `([^`]*)`, row (\d+)")


class DinError(Exception):
    """Base of every error this package raises on purpose."""


class InputError(DinError, ValueError):
    """The caller's data is wrong; the message names column, row and values."""


class ModelError(DinError, ValueError):
    """A model file or a feature spec is wrong, incomplete or of another kind."""


class DeviceError(DinError, RuntimeError):
    """The device or the runtime that was asked for cannot be used."""


class ConversionError(DinError, RuntimeError):
    """A model cannot be converted, or its ONNX form disagrees with torch."""


def is_whole(value: object) -> bool:
    """Tell whether an argument is an integer, of Python or NumPy, and no bool."""
    return hasattr(value, "__index__") and not isinstance(value, bool)


def explain(
    rule: str, got: object, place: str, fix: str = "", *, within: str = ""
) -> str:
    """Build the house's error sentence; `within` says where in the place.

    >>> explain("a positive number", 0, "behavior[0].max_len")
    'expected a positive number, got 0 - at `behavior[0].max_len`'
    >>> explain("an id in [0, 9)", 9, "cate_id", within="row 17")
    'expected an id in [0, 9), got 9 - at `cate_id`, row 17'
    """
    sentence = f"expected {rule}, got {got} - at `{place}`"
    if within:
        sentence = f"{sentence}, {within}"
    return f"{sentence}. {fix}" if fix else sentence
