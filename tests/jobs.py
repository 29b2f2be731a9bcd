"""A model of all kinds of fields, and tables of rows or requests for it."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from din_converter import convert
from din_infer import Predictor
from din_infer.spec import FeatureSpec
from tests.models import random_model, random_rows, spec_dict

TYPES = {
    "user_id": pa.string(),
    "age": pa.float64(),
    "goods_id": pa.string(),
    "cate_id": pa.int64(),
    "hist_goods_id": pa.list_(pa.string()),
    "hist_cate_id": pa.list_(pa.int64()),
    "action": pa.list_(pa.string()),
    "tags": pa.list_(pa.string()),
    "interests": pa.list_(pa.string()),
    "price": pa.float64(),
    "profile": pa.list_(pa.float64()),
}
CANDIDATE = ("goods_id", "cate_id", "tags", "price")
USER = tuple(name for name in TYPES if name not in CANDIDATE)


def make_model(folder: Path) -> Path:
    """Convert a model with random weights whose scores spread."""
    path = folder / "model.onnx"
    convert(random_model(spec_dict()), path)
    return path


def make_table(count: int, seed: int = 0) -> pa.Table:
    """Rows for the model, some with nulls, and a column `row` that it does not read."""
    spec = FeatureSpec.from_dict(spec_dict())
    rows = random_rows(spec, count, seed)
    rng = np.random.default_rng(seed)
    for row in rows:
        del row["extra"]
        for name in ("user_id", "goods_id", "interests"):
            if rng.random() < 0.1:
                row[name] = None
    columns = {n: pa.array([r[n] for r in rows], t) for n, t in TYPES.items()}
    return pa.table({"row": pa.array(range(count)), **columns})


def make_requests(count: int, seed: int = 0, most: int = 9) -> pa.Table:
    """Requests: the user's columns, and parallel lists of 0 to `most` candidates."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, most + 1, count)
    users = make_table(count, seed).select(["row", *USER])
    items = make_table(int(lengths.sum()), seed + 1).select(CANDIDATE)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    for name in CANDIDATE:
        values = items[name].combine_chunks()
        lists = pa.ListArray.from_arrays(offsets, values)
        users = users.append_column(name, lists)
    return users


def as_structs(requests: pa.Table) -> pa.Table:
    """The same requests with one list of structs for the candidates."""
    lists = [requests[name].combine_chunks() for name in CANDIDATE]
    inner = pa.StructArray.from_arrays([x.flatten() for x in lists], names=CANDIDATE)
    column = pa.ListArray.from_arrays(lists[0].offsets, inner)
    return requests.drop(list(CANDIDATE)).append_column("candidates", column)


def score_each(predictor: Predictor, requests: pa.Table) -> list[list[float]]:
    """Score requests one by one: the slow twin."""
    out = []
    for row in requests.to_pylist():
        items = {name: row[name] or [] for name in CANDIDATE}
        user = [{name: row[name] for name in USER}]
        if not items["goods_id"]:
            out.append([])
            continue
        out.append(predictor.score_requests(user, items).tolist())
    return out


def scores_of(path: Path) -> NDArray[np.float32]:
    return np.asarray(pq.read_table(path)["score"])


def write_as(table: pa.Table, path: Path) -> Path:
    """Write a table in the format that the name tells; lists in CSV joined by "|"."""
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = path.name.split(".", 1)[1]
    if suffix == "parquet":
        pq.write_table(table, path, row_group_size=57)
    elif suffix == "arrow":
        with pa.ipc.new_file(path, table.schema) as file:
            file.write_table(table, max_chunksize=41)
    elif suffix == "arrows":
        with pa.ipc.new_stream(path, table.schema) as stream:
            stream.write_table(table, max_chunksize=41)
    else:
        with pa.output_stream(path, compression="detect") as stream:
            stream.write(_text(table, suffix.split(".")[0]).encode())
    return path


def _text(table: pa.Table, suffix: str) -> str:
    import json

    rows = table.to_pylist()
    if suffix == "jsonl":
        return "\n\n".join(json.dumps(row) for row in rows) + "\n"
    delimiter = "\t" if suffix == "tsv" else ","
    lines = [delimiter.join(table.column_names)]
    lines += [delimiter.join(_cell(v) for v in row.values()) for row in rows]
    return "\r\n".join(lines)


def _cell(value: Any) -> str:  # noqa: ANN401
    if value is None or value == []:
        return ""
    if value == "":
        return '""'
    if isinstance(value, list):
        return '"' + "|".join("" if v is None else str(v) for v in value) + '"'
    text = str(value)
    return f'"{text}"' if "," in text else text
