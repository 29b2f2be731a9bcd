"""Lists of keys in the form that each contestant takes, and the padding of their ids.

Each form is a function of its own, so that contestants who share it share what it made.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.keys import HISTORY, Fields, Lists, Padded, Request, to_bytes

__all__ = [
    "Ragged",
    "as_array",
    "as_arrow",
    "as_batch",
    "as_bytes",
    "as_index",
    "as_polars",
    "as_polars_enum",
    "as_rows",
    "as_rows_of_one",
    "as_table",
    "as_tensor",
    "as_texts",
    "by_field",
    "pad",
]


class Ragged(NamedTuple):
    """The keys of lists as a rival takes them, and the lists' offsets.

    With `codes`, `keys` are the entries of a dictionary.
    """

    keys: Any
    offsets: NDArray[np.int32]
    codes: NDArray[np.int32] | None = None


def as_batch(batch: Lists | Fields) -> pa.RecordBatch:
    """Make the table that ours reads."""
    lists = batch.lists if isinstance(batch, Fields) else [batch]
    zero = np.zeros(len(lists[0].offsets) - 1, np.int64)
    columns = zip(HISTORY, lists, strict=False)
    return pa.record_batch({"zero": zero, **{n: each.column for n, each in columns}})


@cache
def by_field(form: Callable[[Lists], Any]) -> Callable[[Fields], list[Any]]:
    """Make the form of several fields: that of each."""
    return lambda batch: [form(lists) for lists in batch.lists]


def as_rows_of_one(request: Request) -> list[dict[str, Any]]:
    """Make the table of one row."""
    return [request.row]


def as_bytes(lists: Lists) -> Ragged:
    """Make bytes in Python, of the dictionary's entries where there is one."""
    values = lists.values
    if pa.types.is_dictionary(values.type):
        codes = values.indices.to_numpy()
        return Ragged(to_bytes(values.dictionary.to_pylist()), lists.offsets, codes)
    return Ragged(to_bytes(values.to_pylist()), lists.offsets)


def as_polars(lists: Lists) -> Ragged:
    """Make a Series of lists."""
    import polars as pl

    return Ragged(pl.Series("key", lists.column), lists.offsets)


def as_polars_enum(lists: Lists) -> Ragged:
    """Make a Series of lists of an Enum, whose categories are the dictionary's."""
    import polars as pl

    series = pl.Series("key", lists.column)
    enum = pl.Enum(pl.Series(lists.values.dictionary))
    return Ragged(series.cast(pl.List(enum)), lists.offsets)


def as_array(lists: Lists) -> Ragged:
    """Make what pandas hashes: objects, int64, or a Categorical."""
    values = lists.values
    if pa.types.is_dictionary(values.type):
        codes, categories = values.indices.to_numpy(), values.dictionary.to_pylist()
        categorical = import_module("pandas").Categorical
        return Ragged(categorical.from_codes(codes, categories), lists.offsets)
    return Ragged(values.to_numpy(zero_copy_only=False), lists.offsets)


def as_index(lists: Lists) -> Ragged:
    """Make an Index."""
    keys = import_module("pandas").Index(lists.values.to_pylist())
    return Ragged(keys, lists.offsets)


def as_texts(lists: Lists) -> Ragged:
    """Make strings in Python."""
    return Ragged(lists.values.to_pylist(), lists.offsets)


def as_rows(lists: Lists) -> list[list[str]]:
    """Make lists of strings in Python."""
    rows: list[list[str]] = lists.column.to_pylist()
    return rows


def as_arrow(lists: Lists) -> Ragged:
    """Take the keys of all lists as they lie."""
    return Ragged(lists.values, lists.offsets)


def as_table(lists: Lists) -> Ragged:
    """Make a table of all lists' keys, without a copy."""
    return Ragged(pa.table({"key": lists.values}), lists.offsets)


def as_tensor(lists: Lists) -> Ragged:
    """Make a tensor of all lists' keys."""
    tensorflow = import_module("tensorflow")
    return Ragged(tensorflow.constant(as_bytes(lists).keys), lists.offsets)


def pad(ids: NDArray[Any], offsets: NDArray[np.int32]) -> Padded:
    """Pad as one writes it in NumPy."""
    lengths = np.diff(offsets)
    positions = np.arange(lengths.max(), dtype=lengths.dtype)
    out = np.zeros((len(lengths), len(positions)), np.int64)
    out[positions < lengths[:, None]] = ids
    return out, lengths
