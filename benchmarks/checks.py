"""The checks of the ids that somebody made of the keys of a batch."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.keys import BUCKETS, Fields, Lists, Request
from benchmarks.timing import Check, WrongOutputError

__all__ = [
    "check_copy",
    "check_counts",
    "check_each",
    "check_equal",
    "check_private",
]

CHECKED_KEYS = 10_000
OCCUPANCY_TOLERANCE = 0.02


def check_equal(id_of: Callable[[bytes], int]) -> Check:
    """Make the check of ids that are known, on keys from everywhere in the batch."""

    def check(output: Any, batch: Lists | Request) -> None:  # noqa: ANN401
        ids = batch.unpad(output)
        spread = np.linspace(0, len(ids) - 1, min(CHECKED_KEYS, len(ids)))
        places = spread.astype(np.int64)
        for i, key in zip(places, batch.take(places), strict=True):
            wanted = id_of(key)
            if ids[i] != wanted:
                message = f"expected id {wanted} of key {i}, {key!r}, got {ids[i]}"
                raise WrongOutputError(message)

    return check


def check_private(output: Any, batch: Lists | Request) -> None:  # noqa: ANN401
    """Check ids of a hash that has no other implementation.

    All lie in [1, BUCKETS), those of equal keys are equal, and there are as many
    different ones as a good hash leaves of that many different keys.
    """
    ids = batch.unpad(output)
    if ids.min() < 1 or ids.max() >= BUCKETS:
        rule = f"expected ids in [1, {BUCKETS})"
        message = f"{rule}, got {ids.min()} and {ids.max()}"
        raise WrongOutputError(message)
    codes = batch.codes
    id_of_code = np.zeros(codes.max() + 1, np.int64)
    id_of_code[codes] = ids
    if not np.array_equal(id_of_code[codes], ids):
        message = "expected one id of equal keys, got several"
        raise WrongOutputError(message)
    keys, got = len(np.unique(codes)), len(np.unique(ids))
    wanted = (BUCKETS - 1) * -np.expm1(keys * np.log1p(-1 / (BUCKETS - 1)))
    if abs(got - wanted) > 1 + OCCUPANCY_TOLERANCE * wanted:
        message = f"expected some {wanted:.0f} ids of {keys} keys, got {got}"
        raise WrongOutputError(message)


def check_counts(id_of: Callable[[bytes], int]) -> Check:
    """Make the check of a sparse matrix [B, BUCKETS] of how often a row has an id."""

    def check(output: Any, batch: Lists) -> None:  # noqa: ANN401
        lengths = np.diff(batch.offsets)
        if output.shape != (len(lengths), BUCKETS):
            message = f"expected {(len(lengths), BUCKETS)}, got {output.shape}"
            raise WrongOutputError(message)
        if not np.array_equal(np.asarray(output.sum(axis=1)).ravel(), lengths):
            message = "expected every key of a row once, got another sum"
            raise WrongOutputError(message)
        for b in np.unique(np.linspace(0, len(lengths) - 1, 500).astype(np.int64)):
            keys = batch.take(np.arange(batch.offsets[b], batch.offsets[b + 1]))
            wanted, counts = np.unique([id_of(key) for key in keys], return_counts=True)
            row = output[[b]]
            if not (
                np.array_equal(row.indices, wanted) and np.array_equal(row.data, counts)
            ):
                message = f"expected ids {wanted}, got {row.indices} in row {b}"
                raise WrongOutputError(message)

    return check


def check_copy(output: list[NDArray[np.uint8]], batch: Lists | Fields) -> None:
    """Check that the keys were copied."""
    for copy, source in zip(output, batch.buffers, strict=True):
        if np.shares_memory(copy, source) or not np.array_equal(copy, source):
            message = "expected a copy of the keys, got something else"
            raise WrongOutputError(message)


def check_each(check: Check) -> Check:
    """Make the check of several fields, each as if it were alone."""

    def check_all(outputs: Any, batch: Fields) -> None:  # noqa: ANN401
        for output, lists in zip(outputs, batch.lists, strict=True):
            check(output, lists)

    return check_all
