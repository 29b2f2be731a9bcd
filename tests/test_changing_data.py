"""Data that another thread changes meanwhile: ids may be either, or it is refused.

Never a crash, an id outside its table, or lists that do not fit their lengths.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from din_infer import DinError, FeatureSpec
from tests.raw import hash_field

ROWS = 3000
SPEC = FeatureSpec.from_dict(
    {
        "format": 1,
        "candidate": [
            hash_field("text"),
            {
                "name": "number",
                "dim": 1,
                "dtype": "int64",
                "encoder": {"type": "identity", "buckets": 50},
            },
        ],
        "multi_hot": [
            {
                **hash_field("list"),
                "side": "candidate",
                "pooling": "sum",
                "max_len": 3,
            }
        ],
        "dense": [{"name": "dense", "side": "candidate", "dim": 1, "missing": 0.0}],
    }
)


@contextmanager
def while_running(change: Callable[[], object]) -> Iterator[None]:
    """Change in another thread, at every chance that the interpreter gives."""
    stop = threading.Event()
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)

    def often() -> None:
        while not stop.is_set():
            change()

    thread = threading.Thread(target=often)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(before)


def encode_often(batch: Any, times: int = 40) -> None:  # noqa: ANN401
    for _ in range(times):
        try:
            made = SPEC.encode(batch)
        except DinError:
            continue
        assert made["number"].min(initial=0) >= 0
        assert made["number"].max(initial=0) < 50
        assert made["text"].max(initial=0) < 1000
        assert made["list"].max(initial=0) < 1000
        assert (made["list.lengths"] <= 3).all()
        assert made["list"].shape == (len(made["list.lengths"]), made["list"].shape[1])


def columns() -> dict[str, Any]:
    return {
        "text": [f"k{i % 7}" for i in range(ROWS)],
        "number": [i % 50 for i in range(ROWS)],
        "list": [[f"v{k}" for k in range(i % 4)] for i in range(ROWS)],
        "dense": [0.5] * ROWS,
    }


def test_lists_that_grow_and_shrink() -> None:
    batch = columns()
    longer = {name: values * 2 for name, values in batch.items()}
    shorter = {name: values[:7] for name, values in batch.items()}

    def change() -> None:
        for of in (longer, shorter):
            for name, values in batch.items():
                values[:] = of[name]

    with while_running(change):
        encode_often(batch)


def test_rows_whose_lists_change() -> None:
    batch = columns()
    inner = batch["list"]

    def change() -> None:
        for row in inner[:500]:
            row.append("more")
        for row in inner[:500]:
            row.clear()

    with while_running(change):
        encode_often(batch)


def test_values_of_other_types_meanwhile() -> None:
    batch = columns()

    def change() -> None:
        batch["number"][ROWS // 2] = "text"
        batch["text"][ROWS // 3] = 7
        batch["list"][5] = None
        batch["number"][ROWS // 2] = 3
        batch["text"][ROWS // 3] = "a"
        batch["list"][5] = ["b"] * 9

    with while_running(change):
        encode_often(batch)


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint64", "float64"])
def test_arrays_that_change(dtype: str) -> None:
    numbers = (np.arange(ROWS) % 50).astype(dtype)
    letters = np.array([f"k{i % 7}" for i in range(ROWS)])
    batch = columns() | {"number": numbers, "text": letters}
    high = np.full(ROWS, 10**9).astype(dtype)
    low = numbers.copy()

    def change() -> None:
        numbers[:] = high
        letters[:] = "\U0001f600"
        numbers[:] = low
        letters[:] = ""

    with while_running(change):
        encode_often(batch, 200)


def test_rows_as_dictionaries() -> None:
    flat = columns()
    rows = [{name: values[i] for name, values in flat.items()} for i in range(400)]

    def change() -> None:
        rows[7]["text"] = 5
        rows[9].pop("dense", None)
        rows[7]["text"] = "a"
        rows[9]["dense"] = 0.25
        rows.append(dict(rows[0]))
        rows.pop()

    with while_running(change):
        encode_often(rows, 100)


def test_bytes_that_change_beside_text() -> None:
    one = bytearray(b"abcdefgh")
    batch = columns() | {"text": [one] * ROWS}

    def change() -> None:
        one.extend(b"x" * 99)
        del one[3:]

    with while_running(change):
        encode_often(batch)
