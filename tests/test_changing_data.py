"""Data that another thread changes meanwhile: ids may be either, or it is refused.

Never a crash, an id outside its table, or lists that do not fit their lengths.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from din_converter import convert
from din_infer import DinError, FeatureSpec, Predictor
from din_infer.session import Session
from tests.models import SPECS, random_model, random_rows
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


# ---- Arrow over memory that another thread writes to ----

MANY = 20_000
TEXTS = pa.py_buffer(bytes(range(97, 123)) * (MANY // 4))
EVEN = np.arange(MANY + 1, dtype=np.int32) * 3
UNEVEN = np.repeat(EVEN[::2], 2)[: MANY + 1]  # texts of 0 and 6 bytes, in turn
UNEVEN[-1] = EVEN[-1]


def flicker(memory: Any, states: list[Any], pauses: Iterator[float]) -> None:  # noqa: ANN401
    """Write each state in turn; the last, which is right, stays the longest."""
    for state in states:
        np.copyto(memory, state)
        time.sleep(next(pauses))
    time.sleep(0.0003)


def pauses() -> Iterator[float]:
    rng = np.random.default_rng(0)
    while True:
        yield float(rng.choice([0, 0, 0.0001]))


def _array(type_: pa.DataType, *buffers: Any, length: int = MANY) -> pa.Array:  # noqa: ANN401
    held = [None if b is None else pa.py_buffer(b) for b in buffers]
    return pa.Array.from_buffers(type_, length, held)


def _lists(offsets: Any, kind: Any = pa.list_) -> pa.Array:  # noqa: ANN401
    texts = pa.array([f"v{i % 50}" for i in range(3 * MANY)])
    return pa.Array.from_buffers(
        kind(pa.string()), MANY, [None, pa.py_buffer(offsets)], children=[texts]
    )


def _long_views() -> tuple[Any, Any]:
    """Views of 16 bytes each: all short, and all into one buffer."""
    short, long = np.zeros((MANY, 4), np.int32), np.zeros((MANY, 4), np.int32)
    short[:, 0], short[:, 1] = 4, 0x61616161
    long[:, 0], long[:, 3] = 20, np.arange(MANY)
    return short, long


def _case(name: str) -> tuple[str, Any, Any, list[Any]]:
    """A column's name, its array, the memory under it, and what is written there."""
    wild = np.full(MANY + 1, -(2**31), dtype=np.int32)
    wild[::3] = 2**31 - 1
    if name == "texts":
        memory = EVEN.copy()
        array = _array(pa.string(), None, memory, TEXTS)
        return "text", array, memory, [UNEVEN, EVEN]
    if name == "large texts":
        memory = EVEN.astype(np.int64)
        array = _array(pa.large_string(), None, memory, TEXTS)
        return "text", array, memory, [UNEVEN, EVEN]
    if name == "views":
        memory, long = _long_views()
        odd = long.copy()
        odd[::2] = -(2**31)
        odd[1::2] = 2**31 - 1
        short = memory.copy()
        array = _array(pa.string_view(), None, memory, TEXTS)
        return "text", array, memory, [odd, long, short]
    if name in ("indices", "indices beside nulls"):
        memory = np.arange(MANY, dtype=np.int32) % 50
        bits = None if name == "indices" else np.tile(np.uint8([0xF7]), MANY // 8)
        array = pa.DictionaryArray.from_arrays(
            _array(pa.int32(), bits, memory), [f"v{i}" for i in range(50)]
        )
        return "text", array, memory, [wild[:-1], memory.copy()]
    if name == "indices of lists":
        memory = np.arange(2 * MANY, dtype=np.int32) % 50
        offsets = pa.array(np.arange(MANY + 1, dtype=np.int32) * 2)
        coded = pa.DictionaryArray.from_arrays(
            _array(pa.int32(), None, memory, length=2 * MANY),
            [f"v{i}" for i in range(50)],
        )
        array = pa.ListArray.from_arrays(offsets, coded)
        return "list", array, memory, [np.tile(wild, 2)[: 2 * MANY], memory.copy()]
    if name == "many entries":  # more than rows: each is encoded where it stands
        memory = np.arange(MANY, dtype=np.int32)
        entries = pa.array([f"v{i}" for i in range(4 * MANY)])
        array = pa.DictionaryArray.from_arrays(
            _array(pa.int32(), None, memory), entries
        )
        return "text", array, memory, [wild[:-1], memory.copy()]
    if name == "numbers":
        memory = np.arange(MANY, dtype=np.int32) % 50
        array = pa.DictionaryArray.from_arrays(
            _array(pa.int32(), None, memory), pa.array(range(50))
        )
        return "number", array, memory, [wild[:-1], memory.copy()]
    if name == "dense":
        memory = np.arange(MANY, dtype=np.int32) % 50
        array = pa.DictionaryArray.from_arrays(
            _array(pa.int32(), None, memory), pa.array(np.arange(50) / 8)
        )
        return "dense", array, memory, [wild[:-1], memory.copy()]
    memory = EVEN.copy()
    return "list", _lists(memory), memory, [wild, UNEVEN, EVEN]


@pytest.mark.parametrize(
    "name",
    [
        "texts",
        "large texts",
        "views",
        "indices",
        "indices beside nulls",
        "indices of lists",
        "many entries",
        "numbers",
        "dense",
        "lists",
    ],
)
def test_arrow_memory_that_changes(name: str) -> None:
    column, array, memory, states = _case(name)
    plain = columns()
    batch = {
        key: pa.array((values * (MANY // ROWS + 1))[:MANY])
        for key, values in plain.items()
    }
    batch[column] = array

    table, waits = pa.table(batch), pauses()
    with while_running(lambda: flicker(memory, states, waits)):
        encode_often(table, 100)


@pytest.mark.parametrize("is_dropped", [False, True], ids=["trimmed", "dropped"])
@pytest.mark.parametrize("newest_first", [False, True])
def test_padded_lists_that_change(is_dropped: bool, newest_first: bool) -> None:
    spec = FeatureSpec.from_dict(
        {
            "format": 1,
            "candidate": [hash_field("text")],
            "behavior": [
                {
                    "name": "history",
                    "max_len": 7,
                    "pad_value": "v0",
                    "pad_inside": "dropped" if is_dropped else "kept",
                    **({"order": "newest_first"} if newest_first else {}),
                    "fields": {"list": "text"},
                }
            ],
        }
    )
    memory = EVEN.copy()
    wild = np.full(MANY + 1, 2**31 - 1, dtype=np.int32)
    wild[::5] = -7
    batch = pa.table({"text": ["a"] * MANY, "list": _lists(memory)})

    waits, states = pauses(), [wild, UNEVEN, EVEN]
    with while_running(lambda: flicker(memory, states, waits)):
        for _ in range(100):
            try:
                made = spec.encode(batch)
            except DinError:
                continue
            assert made["list"].min(initial=0) >= 0
            assert made["list"].max(initial=0) < 1000
            assert made["history.lengths"].max() <= 7


# ---- ids that are given ----


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("changing") / "model.onnx"
    convert(random_model(SPECS["paper"]), path)
    return path


@pytest.mark.parametrize("is_fused", [True, False])
def test_ids_that_change_behind_their_check(
    model: Path, is_fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor(model, device="cpu", threads=1, fused=is_fused)
    made = predictor.spec.encode(random_rows(predictor.spec, 9, seed=1))
    wanted = predictor.score_encoded(made)
    run = Session.run

    def late(*arguments: Any) -> Any:  # noqa: ANN401
        for array in made.values():
            array.fill(2**50)
        return run(*arguments)

    monkeypatch.setattr(Session, "run", late)
    assert (predictor.score_encoded(made) == wanted).all()
    assert all((array == 2**50).all() for array in made.values())
