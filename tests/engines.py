"""What the tests of engines share: a model with a data file, and rows for it."""

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from din_converter import convert
from din_infer.spec import FeatureSpec
from tests.models import random_model, random_rows, spec_dict

PAGE = Path(__file__).resolve().parents[1] / "docs" / "engines.md"
# Above what a model keeps inside its `.onnx`.
MANY_BUCKETS = 60_000


def make_model(folder: Path) -> Path:
    """Convert a model of the paper whose tables lie in a file of their own."""
    raw = copy.deepcopy(spec_dict())
    raw["user"][0]["encoder"]["buckets"] = MANY_BUCKETS
    price, profile = raw["dense"]
    price["scale"] = {"type": "log1p", "mean": 0.1, "std": 0.7}
    profile["scale"] = {"type": "standard", "mean": [0, 1, -1], "std": [1, 3, 0.3]}
    convert(random_model(raw), folder / "model.onnx")
    return folder / "model.onnx"


def rows_of(spec: FeatureSpec, count: int, seed: int = 0) -> pa.Table:
    """Rows with ragged lists, some null or empty; `row` counts them."""
    rows = random_rows(spec, count, seed)
    for number, row in enumerate(rows):
        del row["extra"]
        row["row"] = number
    rows[0] |= {"hist_goods_id": None, "hist_cate_id": None, "action": None}
    rows[1] |= {"hist_goods_id": [], "hist_cate_id": [], "action": []}
    rows[2] |= {"goods_id": None, "tags": None}
    return pa.Table.from_pylist(rows)


def requests_of(spec: FeatureSpec, rows: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Requests with 0 to 3 of the rows' candidates; and a row for each candidate."""
    columns = spec.encoder.candidate_columns
    users = [n for n in (*spec.encoder.user_columns, "row") if n not in columns]
    requests: list[dict[str, Any]] = []
    pairs: list[dict[str, Any]] = []
    given = rows.to_pylist()
    for number, row in enumerate(given):
        user = {n: row[n] for n in users}
        chosen = [given[(number + k) % len(given)] for k in range(number % 4)]
        items = [{n: c[n] for n in columns} for c in chosen]
        requests.append(user | {"items": items})
        pairs += [user | item for item in items]
    return pa.Table.from_pylist(requests), pa.Table.from_pylist(pairs, rows.schema)


def make_mirror(folder: Path) -> tuple[Path, pa.Table, NDArray[np.float32]]:
    """Convert a model whose score is its dense input; rows for it, and their inputs.

    One of four dense fields has a value in each row; what stands for the others scales
    to 0. So scores in whichever process tell the bits of the inputs there.
    """
    scales: list[tuple[dict[str, Any], float]] = [
        ({"type": "log1p", "mean": 0.0, "std": 0.9}, 0.0),
        ({"type": "standard", "mean": 30.0, "std": 17.3}, 30.0),
        ({"type": "minmax", "min": 1, "max": 9}, 1.0),
        ({"type": "quantile", "boundaries": [0, 1, 5, 40]}, 0.0),
    ]
    goods = {"name": "goods", "dim": 2, "encoder": {"type": "hash", "buckets": 9}}
    raw = {
        "format": 1,
        "candidate": [goods],
        "dense": [
            {"name": s["type"], "side": "candidate", "missing": zero, "scale": s}
            for s, zero in scales
        ],
        "model": {"tower": {"hidden": []}, "link": "identity"},
    }
    spec = FeatureSpec.from_dict(raw)
    model = random_model(raw)
    with torch.no_grad():
        model.tower.output.weight.copy_(torch.tensor([[0.0, 0, 1, 1, 1, 1]]))
        model.tower.output.bias.zero_()
    convert(model, folder / "mirror.onnx")
    count = 200
    values = np.random.default_rng(0).lognormal(1, 2, count).tolist()
    columns: dict[str, Any] = {
        s["type"]: [v if row % 4 == place else None for row, v in enumerate(values)]
        for place, (s, _) in enumerate(scales)
    }
    table = pa.table({"goods": ["g"] * count, **columns, "row": list(range(count))})
    inputs = spec.encode(table)
    seen = sum(inputs[s["type"]] for s, _ in scales)[:, 0]
    assert len(np.unique(seen)) > count // 2
    return folder / "mirror.onnx", table, seen


def with_bad_row(rows: pa.Table, row: int) -> pa.Table:
    """The rows, one of which has a category outside its table."""
    values = rows["cate_id"].to_pylist()
    values[row] = 50
    place = rows.column_names.index("cate_id")
    return rows.set_column(place, "cate_id", pa.array(values, pa.int64()))


def example(engine: str, folder: Path) -> Any:  # noqa: ANN401
    """The page's Python for an engine, compiled, with `folder` as the shared disk."""
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (block,) = (b for b in blocks if f"din_infer.jobs.{engine} " in b)
    return compile(block.replace("/mnt", str(folder)), PAGE.name, "exec")
