"""Memory of large results, which is used again once nobody has them."""

import os
import random
import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from din_infer import _kernels
from din_infer.columns import to_column

MIB = 1 << 20
ENCODER = _kernels.Encoder("identity", "int64", rows=2**62, unseen="error")


def encode(values: NDArray[np.int64]) -> NDArray[np.int64]:
    ids: NDArray[np.int64] = _kernels.encode_scalars(to_column(values, "x"), ENCODER)[0]
    return ids


def numbers(num_bytes: int, first: int = 0) -> NDArray[np.int64]:
    return np.arange(first, first + num_bytes // 8)


def address(array: NDArray[np.int64]) -> int:
    return int(array.__array_interface__["data"][0])


def encode_and_drop(seed: int, rounds: int) -> list[str]:
    """Keep some results, or a part of them; say which are not what they were."""
    rng = random.Random(seed)
    kept: list[tuple[NDArray[np.int64], int]] = []
    wrong = []
    for i in range(rounds):
        first = rng.randrange(2**40)
        ids = encode(numbers(rng.randrange(MIB // 2, 3 * MIB), first))
        skip = rng.choice([0, 0, len(ids) - 9])
        kept.append((ids[skip:], first + skip))
        del ids
        while len(kept) > rng.randrange(1, 40):
            del kept[rng.randrange(len(kept))]
        for array, start in kept:
            if not np.array_equal(array, np.arange(start, start + len(array))):
                wrong.append(f"seed {seed}, round {i}")
    return wrong


def test_results_never_change() -> None:
    assert encode_and_drop(0, 150) == []


def test_results_of_other_threads_never_change() -> None:
    wrong: list[str] = []
    threads = [
        threading.Thread(target=lambda i=i: wrong.extend(encode_and_drop(i, 40)))
        for i in range(1, 5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_memory_is_used_again_once_the_last_array_is_gone() -> None:
    ids = encode(numbers(8 * MIB))
    view = ids[5:7]
    where = address(ids)
    del ids
    other = encode(numbers(8 * MIB))
    assert address(other) != where
    assert view.tolist() == [5, 6]
    del view
    smaller = encode(numbers(5 * MIB, 7))
    assert address(smaller) == where
    np.testing.assert_array_equal(smaller, numbers(5 * MIB, 7))
    assert smaller.flags.c_contiguous
    assert smaller.flags.writeable


def test_little_memory_is_not_taken_from_much() -> None:
    ids = encode(numbers(8 * MIB))
    where = address(ids)
    del ids
    assert address(encode(numbers(3 * MIB))) != where
    assert address(encode(numbers(9 * MIB))) != where


def test_what_waits_is_bounded() -> None:
    statm = Path("/proc/self/statm")
    if not statm.exists():  # as on macOS
        return
    values = np.zeros(64 * MIB // 8, np.int64)
    results = [encode(values) for _ in range(7)]
    before = int(statm.read_text().split()[1])
    del results
    freed = before - int(statm.read_text().split()[1])
    assert freed * os.sysconf("SC_PAGE_SIZE") > 150 * MIB  # of 448, 256 may stay
