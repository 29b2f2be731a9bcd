"""What a warm-up runs: the usual shapes, and a row of every page of the tables.

Letters: B requests, N candidates, T positions.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from din_infer.spec import FeatureSpec, Input

__all__ = ["inputs_of_pages", "inputs_of_shapes"]

PAGE_BYTES = 4096
WEIGHT_BYTES = 4  # of float32; a page of fp16 is then met twice
ROWS_AT_ONCE = 1024

Inputs = Mapping[str, NDArray[Any]]


def inputs_of_shapes(
    spec: FeatureSpec, table: Inputs, counts: Sequence[int]
) -> Iterator[dict[str, NDArray[Any]]]:
    """Make inputs of one request, the one with the longest history, per count of N.

    `table` holds encoded rows of (request, candidate) pairs, B = N; candidates are
    taken from it over and over.
    """
    num_rows = len(table["request_of_candidate"])
    none = np.zeros(num_rows, dtype=np.int64)
    longest = sum((table[s.lengths] for s in spec.behavior), none).argsort()[-1:]
    for count in counts:
        chosen = np.resize(np.arange(num_rows), count)
        part = {
            i.name: table[i.name][longest if i.shape[0] == "B" else chosen]
            for i in spec.inputs
        }
        part["request_of_candidate"] = np.zeros(count, dtype=np.int64)
        yield part


def inputs_of_pages(spec: FeatureSpec) -> Iterator[dict[str, NDArray[Any]]]:
    """Make inputs, B = N, whose ids name a row on every page of every table."""
    reader_of: dict[str, str] = {}  # the first input that reads a table
    for c in spec.reads:
        if c.table is not None:
            reader_of.setdefault(c.table, c.inputs[0].name)
    for table, reader in reader_of.items():
        rows, dim = spec.tables[table].rows, spec.tables[table].dim
        ids = np.arange(0, rows, max(1, PAGE_BYTES // (WEIGHT_BYTES * dim)))
        for start in range(0, len(ids), ROWS_AT_ONCE):
            some = ids[start : start + ROWS_AT_ONCE]
            yield {i.name: _fill(i, len(some), some, reader) for i in spec.inputs}


def _fill(i: Input, count: int, ids: NDArray[np.int64], reader: str) -> NDArray[Any]:
    """Make one input of `count` rows: `ids` for the reader, nothing for others."""
    if i.name == "request_of_candidate":
        return np.arange(count)
    if i.rows is None and i.dtype == "int64":  # lengths
        return np.ones(count, dtype=np.int64)
    axes = [a if isinstance(a, int) else i.fixed_length or 1 for a in i.shape[1:]]
    out = np.zeros((count, *axes), dtype=i.dtype)
    if i.name == reader:
        out[...] = ids.reshape(-1, *(1 for _ in axes))
    return out
