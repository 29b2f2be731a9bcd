"""What the jobs score: a Parquet table of click events, and a DIN for it.

A row is a user, a candidate (goods and its category) and the user's history as lists of
strings, its length uniform in 0..T; goods are Zipf, keys have 13 bytes. Rows of one
request (N candidates) follow each other and repeat its history; or the same request is
one row with lists of candidates. The same seed gives the same table; a file that is
there is not written again.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.draw import zipf
from benchmarks.graphs import draw_weights
from din_converter import DIN, convert, save
from din_infer.spec import FeatureSpec
from din_infer.whole_file import WholeFile

__all__ = ["KEPT", "MOST_GOODS", "Shape", "make_spec", "write_events", "write_model"]

USERS, CATES = 200_000, 1_000
USER_ROWS, CATE_ROWS = 100_000, 2_000
KEY_BYTES = 13
MOST_GOODS = 10_000_000  # what fits a key
KEPT = ("user_id", "goods_id")


@dataclass(frozen=True)
class Shape:
    """What a job is made of: rows of the table, T, `dim` (D = 2 dim), N, its model.

    With `nested`, the table has one row per request, and `rows` counts its candidates.
    """

    rows: int = 200_000
    t: int = 50
    dim: int = 32
    n: int = 1
    nested: bool = False
    goods: int = 1_000_000
    dtype: str = "fp32"
    group_rows: int = 1 << 17
    seed: int = 0

    @property
    def events_name(self) -> str:
        """Name the file of events by what is in it."""
        parts = (self.rows, self.t, self.n, self.goods, self.group_rows, self.seed)
        kind = "requests-" if self.nested else "events-"
        return kind + "-".join(map(str, parts)) + ".parquet"

    @property
    def model_name(self) -> str:
        """Name the folder of the model by what is in it."""
        parts = (self.t, self.dim, self.goods, self.dtype, self.seed)
        return "model-" + "-".join(map(str, parts))


class Keys:
    """Strings of 13 bytes, ``<prefix>0001234``, made once and taken by number."""

    def __init__(self, prefix: bytes, count: int) -> None:
        text = np.empty((count, KEY_BYTES), np.uint8)
        text[:, : len(prefix)] = np.frombuffer(prefix, np.uint8)
        rest = np.arange(count)
        for at in range(KEY_BYTES - 1, len(prefix) - 1, -1):
            rest, digit = np.divmod(rest, 10)
            text[:, at] = ord("0") + digit
        self.texts = text.view(f"V{KEY_BYTES}").ravel()

    def take(self, numbers: NDArray[np.int64]) -> pa.Array:
        """Return the keys of some numbers as an Arrow string array."""
        offsets = np.arange(len(numbers) + 1, dtype=np.int32) * KEY_BYTES
        data = self.texts[numbers]
        buffers = (pa.py_buffer(offsets), pa.py_buffer(data))
        return pa.StringArray.from_buffers(len(numbers), *buffers)


class Source:
    """Draws the row groups of one table."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.users = Keys(b"user_", USERS)
        self.goods = Keys(b"goods_", shape.goods)
        self.cates = Keys(b"cate_", CATES)

    @cached_property
    def schema(self) -> pa.Schema:
        """Columns of the table."""
        text, price = pa.string(), pa.float32()
        per_candidate = pa.list_ if self.shape.nested else lambda kind: kind
        return pa.schema(
            [
                ("user_id", text),
                ("goods_id", per_candidate(text)),
                ("cate_id", per_candidate(text)),
                ("hist_goods_id", pa.list_(text)),
                ("hist_cate_id", pa.list_(text)),
                ("price", per_candidate(price)),
            ]
        )

    def groups(self) -> Iterator[pa.Table]:
        """Draw one row group after the other; none cuts a request but the last."""
        shape = self.shape
        size = max(1, shape.group_rows // shape.n) * shape.n
        for start in range(0, shape.rows, size):
            yield self._draw(start, min(size, shape.rows - start))

    def _draw(self, start: int, rows: int) -> pa.Table:
        shape = self.shape
        rng = np.random.default_rng([shape.seed, start])
        requests = -(-rows // shape.n)
        user = rng.integers(0, USERS, requests)
        lengths = rng.integers(0, shape.t + 1, requests)
        history = zipf(rng, shape.goods, (int(lengths.sum()),))
        candidate = zipf(rng, shape.goods, (rows,))
        goods, cates = self.goods.take(candidate), self.cates.take(candidate % CATES)
        price = pa.array(rng.random(rows, np.float32) * 2)
        request = np.arange(requests)
        if shape.nested:
            ends = np.minimum(np.arange(requests + 1) * shape.n, rows)
            lists = pa.array(ends, pa.int32())
            goods, cates, price = (
                pa.ListArray.from_arrays(lists, a) for a in (goods, cates, price)
            )
        else:
            request = np.arange(rows) // shape.n
        # a request's places in `history`, once for each of its rows
        counts = lengths[request]
        offsets = np.zeros(len(request) + 1, np.int32)
        np.cumsum(counts, out=offsets[1:])
        starts = np.cumsum(lengths) - lengths
        shift = np.repeat(starts[request] - offsets[:-1], counts)
        history = history[np.arange(len(shift)) + shift]
        at = pa.array(offsets)
        arrays = [
            self.users.take(user[request]),
            goods,
            cates,
            pa.ListArray.from_arrays(at, self.goods.take(history)),
            pa.ListArray.from_arrays(at, self.cates.take(history % CATES)),
            price,
        ]
        return pa.Table.from_arrays(arrays, schema=self.schema)


def write_events(shape: Shape, folder: Path) -> Path:
    """Write the table, a row group at a time, unless it is there; returns the file."""
    path = folder / shape.events_name
    if path.exists():
        return path
    source = Source(shape)
    with WholeFile(path) as file, pq.ParquetWriter(file, source.schema) as writer:
        for table in source.groups():
            writer.write_table(table, row_group_size=max(1, len(table)))
    return path


def make_spec(shape: Shape) -> FeatureSpec:
    """Describe the table: every key hashed, the paper's widths, Dice."""

    def field(name: str, rows: int) -> dict[str, object]:
        encoder = {"type": "hash", "buckets": rows}
        return {"name": name, "dim": shape.dim, "encoder": encoder}

    return FeatureSpec.from_dict(
        {
            "format": 1,
            "user": [field("user_id", USER_ROWS)],
            "candidate": [
                field("goods_id", shape.goods),
                field("cate_id", CATE_ROWS),
            ],
            "behavior": [
                {
                    "name": "history",
                    "max_len": shape.t,
                    "fields": {"hist_goods_id": "goods_id", "hist_cate_id": "cate_id"},
                }
            ],
            "dense": [{"name": "price", "side": "candidate"}],
            "model": {
                "attention": {"hidden": [80, 40], "activation": "dice"},
                "tower": {"hidden": [200, 80], "activation": "dice"},
            },
        }
    )


def write_model(shape: Shape, folder: Path) -> Path:
    """Write ``model.pt`` and ``model.onnx`` into a folder, unless they are there.

    Weights and statistics are random, and such that all of them matter. Of a model with
    fp16 tables there is no ``model.pt``.

    Returns
    -------
    path
        The ``.onnx``.
    """
    path = folder / shape.model_name / "model.onnx"
    if path.exists():
        return path
    path.parent.mkdir(exist_ok=True)
    model = draw_weights(DIN(make_spec(replace(shape, dtype="fp32"))), shape.seed)
    if shape.dtype == "fp32":
        save(model, path.with_suffix(".pt"))
    convert(model, path, embedding_dtype=shape.dtype)
    return path
