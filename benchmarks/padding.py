"""What contestants have in common: they pad, take one field at a time, or copy."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import forms
from benchmarks.checks import check_copy, check_each, check_private
from benchmarks.command import Entries
from benchmarks.forms import Ragged, pad
from benchmarks.keys import Lists, Padded
from benchmarks.report import COPY
from benchmarks.timing import Check, Contestant

__all__ = ["by_field", "ceilings", "count", "padding"]


def count(threads: int) -> str:
    """Say how many threads."""
    return f"{threads} thread{'s' if threads > 1 else ''}"


def padding(
    label: str,
    prepare: Callable[[Lists], Ragged],
    to_ids: Callable[[Any], NDArray[Any]],
    check: Check = check_private,
) -> Contestant:
    """Hash or look up all keys, then pad."""

    def run(x: Ragged) -> Padded:
        ids = to_ids(x.keys)
        return pad(ids if x.codes is None else ids.take(x.codes), x.offsets)

    return Contestant(label, prepare, run, check)


def by_field(make: Callable[[], Contestant]) -> Contestant:
    """Encode the fields of a sequence one after the other."""
    one = make()

    def run(fields: list[Any]) -> list[Any]:
        return [one.run(each) for each in fields]

    check = check_each(one.check)
    return Contestant(one.label, forms.by_field(one.prepare), run, check)


def ceilings(threads: int) -> Entries:
    """List the copies: on all threads, then on one where that is another."""
    one = {} if threads == 1 else {f"{COPY}-1": partial(_copy, 1)}
    return {COPY: partial(_copy, threads), **one}


def _copy(threads: int) -> Contestant:
    """Copy each buffer, every thread a part of it."""
    pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def copied(buffer: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if pool is None:
            return buffer.copy()
        out = np.empty_like(buffer)
        cuts = [len(buffer) * i // threads for i in range(threads + 1)]
        parts = [slice(*ends) for ends in pairwise(cuts)]
        list(pool.map(lambda part: np.copyto(out[part], buffer[part]), parts))
        return out

    def run(buffers: list[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
        return [copied(buffer) for buffer in buffers]

    label = f"the ceiling: the keys' buffers, copied by NumPy; {count(threads)}"
    return Contestant(label, attrgetter("buffers"), run, check_copy)
