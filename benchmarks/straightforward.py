"""The job that one would write first, and write well: pandas for ids, torch for scores.

``python -m benchmarks.straightforward model.pt events.parquet out.parquet`` reads a
chunk, factorizes the exploded strings of each column, hashes the distinct ones alone
(by the vectorized hash of this package: ids must be equal), pads by one fancy index of
NumPy, runs a torch model in batches, and writes the scores. It prints JSON. The model
is a textbook module with the trained weights, which computes every padded pair; with
``--packed`` it is this package's torch DIN, which computes the valid ones alone.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.events import KEPT
from benchmarks.rivals import textbook_attention, textbook_mlp
from din_converter import DIN, load
from din_converter.model import ClickModel
from din_infer import hash_buckets
from din_infer.spec import FeatureSpec

__all__ = ["main"]

CHUNK_ROWS = 1 << 16
BATCH_ROWS = 4096
Arrays = dict[str, NDArray[Any]]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("model", type=Path)
    add("events", type=Path)
    add("out", type=Path)
    add("--threads", type=int, default=1)
    add("--packed", action="store_true")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    pa.set_cpu_count(args.threads)
    trained = load(args.model)
    model = trained if args.packed else Padded(trained)
    started = time.perf_counter()
    rows = 0
    file = pq.ParquetFile(args.events)
    kept = [file.schema_arrow.field(name) for name in KEPT]
    schema = pa.schema([*kept, pa.field("score", pa.float32(), nullable=False)])
    with pq.ParquetWriter(args.out, schema) as writer:
        for chunk in file.iter_batches(CHUNK_ROWS):
            inputs = encode(chunk, trained.spec)
            with torch.inference_mode():
                parts = [
                    torch.sigmoid(model(batch)) for batch in cut(inputs, len(chunk))
                ]
            columns = [chunk.column(name) for name in KEPT]
            scores = pa.array(torch.cat(parts).numpy())
            table = pa.Table.from_arrays([*columns, scores], schema=schema)
            writer.write_table(table)
            rows += len(chunk)
    print(json.dumps({"rows": rows, "seconds": time.perf_counter() - started}))
    return 0


class Padded(nn.Module):
    """A trained DIN of the events' spec as one writes it first."""

    def __init__(self, model: ClickModel) -> None:
        super().__init__()
        trained = cast("DIN", model)
        self.users = trained.tables["of_user_id"]
        self.interest = textbook_attention(trained)
        self.tower = textbook_mlp(trained.tower)
        self.order = [part.name for part in trained.spec.tower_inputs]

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Score the candidates of one batch: logits, float [N]."""
        items = [inputs["goods_id"], inputs["cate_id"]]
        behaviors = [inputs["hist_goods_id"], inputs["hist_cate_id"]]
        parts = {
            "user_id": self.users(inputs["user_id"]),
            "goods_id": self.interest.goods(items[0]),
            "cate_id": self.interest.cates(items[1]),
            "price": inputs["price"],
            "history": self.interest(*items, *behaviors, inputs["history.lengths"]),
        }
        x = torch.cat([parts[name] for name in self.order], dim=1)
        logit: torch.Tensor = self.tower(x).squeeze(-1)
        return logit


def encode(chunk: pa.RecordBatch, spec: FeatureSpec) -> Arrays:
    """Make the model's inputs of a chunk, padded to its longest history."""
    (sequence,) = spec.behavior
    out: Arrays = {
        f.column: hashed(chunk.column(f.column), f.encoder.rows)
        for f in (*spec.user, *spec.candidate)
    }
    for f in sequence.fields:
        column = chunk.column(f.column)
        offsets = column.offsets.to_numpy()
        ids = hashed(column.flatten(), f.encoder.rows)
        out[f.name], lengths = padded(ids, offsets - offsets[0], sequence.max_len)
        out[sequence.lengths] = lengths
    for d in spec.dense:
        values = chunk.column(d.column).to_numpy(zero_copy_only=False)
        out[d.name] = values.astype(np.float32).reshape(-1, 1)
    return out


def hashed(keys: pa.Array, buckets: int) -> NDArray[np.int64]:
    """Turn strings into ids, each distinct one hashed once."""
    codes, distinct = pd.factorize(keys.to_pandas())
    ids: NDArray[np.int64] = hash_buckets(pa.array(distinct), buckets)[codes]
    return ids


def padded(
    ids: NDArray[np.int64], offsets: NDArray[np.int32], max_len: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Lay the newest ids of every list out as [B, T], with 0 behind."""
    lengths = np.minimum(np.diff(offsets), max_len).astype(np.int64)
    positions = np.arange(lengths.max(initial=0))
    places = (offsets[1:] - lengths)[:, None] + positions
    inside = positions < lengths[:, None]
    out = np.zeros(places.shape, np.int64)
    out[inside] = ids[places[inside]]
    return out, lengths


def cut(inputs: Arrays, rows: int) -> Iterator[dict[str, torch.Tensor]]:
    """Cut inputs into batches of tensors."""
    for start in range(0, rows, BATCH_ROWS):
        here = slice(start, start + BATCH_ROWS)
        batch = {k: torch.from_numpy(v[here]) for k, v in inputs.items()}
        size = min(BATCH_ROWS, rows - start)
        yield {**batch, "request_of_candidate": torch.arange(size)}


if __name__ == "__main__":
    sys.exit(main())
