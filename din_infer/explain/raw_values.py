"""Columns of any container as the caller's own values; the encoder's opposite.

What a column may hold is checked by `columns`; here it has passed.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any
from uuid import UUID

import numpy as np

from din_infer.errors import InputError

__all__ = ["read", "readable"]

# Frames and columns of these can be read twice, and as Python values.
READABLE = ("pyarrow", "pandas", "polars")


def readable(batch: object, names: Sequence[str], place: str = "batch") -> object:
    """Return a batch that can be read more than once, and as Python values.

    Parameters
    ----------
    batch : dict of columns, list of dicts, or a frame with `__arrow_c_stream__`
    names : sequence of str
        The columns that will be read.
    place : str
        What errors call the batch.

    Returns
    -------
    object
        `batch` itself where that is so, else its columns in pyarrow's.

    Raises
    ------
    InputError
        If it needs pyarrow, which is not here, or cannot be read.
    """
    if isinstance(batch, Mapping):
        found = {name: batch[name] for name in names if name in batch}
        held = {name: _held(v, name, is_frame=False) for name, v in found.items()}
        return {**batch, **held}
    return batch if isinstance(batch, list) else _held(batch, place, is_frame=True)


def _held(source: Any, place: str, *, is_frame: bool) -> Any:  # noqa: ANN401
    library = type(source).__module__.partition(".")[0]
    streams = hasattr(source, "__arrow_c_stream__")
    is_reader = library == "pyarrow" and not hasattr(source, "to_pylist")
    if library in READABLE and not is_reader:
        return source
    if not (streams or hasattr(source, "__arrow_c_array__")):
        return source  # a list, a tuple, or nothing that the encoder takes either
    try:
        import pyarrow
    except ModuleNotFoundError:
        rule, fix = "pyarrow, to read its values", 'Run: pip install "din-infer[batch]"'
        raise InputError(rule, "none", place, fix) from None
    try:
        if streams:
            return (pyarrow.table if is_frame else pyarrow.chunked_array)(source)
        array = pyarrow.array(source)
        return pyarrow.Table.from_struct_array(array) if is_frame else array
    except Exception as error:  # whatever the producer raises
        raise InputError("readable Arrow data", error, place) from error


def read(batch: Any, name: str) -> list[Any]:  # noqa: ANN401
    """Read one column of a readable batch as Python values, rows of lists as lists.

    Parameters
    ----------
    batch : what `readable` returned
    name : str
        A column that is there and that the encoder takes.

    Returns
    -------
    list
        One of str, bytes, int, float, bool, None or list of them per row; a decimal is
        an int or a float, a UUID its text.

    Raises
    ------
    InputError
        If text is not UTF-8.
    """
    if isinstance(batch, list):
        return [_plain(row[name]) for row in batch]
    try:
        return [_plain(v) for v in _as_list(batch[name])]
    except UnicodeDecodeError as error:
        rule = "text that has a UTF-8 form, to be shown"
        raise InputError(rule, error, name) from None


def _as_list(column: Any) -> list[Any]:  # noqa: ANN401
    if isinstance(column, tuple):
        values, offsets = _as_list(column[0]), np.asarray(column[1]).tolist()
        return [values[a:b] for a, b in pairwise(offsets)]
    for convert in ("to_pylist", "to_list", "tolist"):
        if hasattr(column, convert):
            listed: list[Any] = getattr(column, convert)()
            return listed
    return list(column)


def _plain(value: Any) -> Any:  # noqa: ANN401
    """Make a value of NumPy or pandas a plain one; what stands for missing, None."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    is_missing = type(value).__name__ in ("NAType", "NaTType") or value != value
    if isinstance(value, Decimal) and not is_missing:
        is_small = -(2**255) < value < 2**255
        is_whole = is_small and value == value.to_integral_value()
        return int(value) if is_whole else float(value)
    if isinstance(value, UUID):
        return str(value)
    return None if is_missing else value
