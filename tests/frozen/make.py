"""Write the frozen files of the formats as they are now, with what they must give.

    python -m tests.frozen.make

Files that are there stay as they are: they are promises (docs/versions.md). A new
format gets files of a new number; old numbers are never made again.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from din_converter import convert, load, save, weights
from din_infer import FeatureSpec, Predictor
from din_infer.jobs.files import score_files
from tests.frozen.reading import ABOUT, FOLDER, MODELS, scores_of_all
from tests.models import random_model

CITIES = ("Bern", "Basel", "Zürich", "Chur", "", None)


def rows_of(count: int, seed: int) -> list[dict[str, Any]]:
    """Raw rows for spec-1.toml: nulls, empty lists, lists that are too long."""
    rng = np.random.default_rng(seed)

    def one(*values: Any) -> Any:  # noqa: ANN401
        return values[int(rng.integers(len(values)))]

    def word(most: int) -> str | None:
        number = int(rng.integers(most + 1))
        return None if number == most else f"k{number}"

    def words(most: int, longest: int) -> list[str | None]:
        return [word(most) for _ in range(int(rng.integers(longest + 1)))]

    rows = []
    for k in range(count):
        history = words(30, 9)
        carts = int(rng.integers(5))
        rows.append(
            {
                "row": k,
                "user_id": word(20),
                "age": one(None, 17.5, 18.0, 44.0, 50.0, 71.25),
                "city": one(*CITIES),
                "goods_id": word(40),
                "cate_id": one(None, *range(20), 99),
                "shop": word(5),
                "goods_no": one(None, -(2**31), 0, 17, 2**31 - 1),
                "words": one("running shoes", "ünïcode", "", None, "x" * 70),
                "query": one("none", None, "a", "long query " * 9),
                "page": one("home", "cart", None, ""),
                "slot": one(0, 1, 2, 31, -5, None),
                "position": one(0.0, -0.0, 1.5, None, 1e30),
                "hist_goods_id": history,
                "hist_cate_id": [one(None, *range(20)) for _ in history],
                "action": [one("view", "cart", "buy", "other") for _ in history],
                "cart_goods_id": [f"k{rng.integers(9)}" for _ in range(carts)]
                + ["0"] * (4 - carts),
                "num_carts": carts,
                "tags": words(8, 5),
                "interests": words(8, 4),
                "price": one(None, 0.0, 0.75, -2.5),
                "profile": [round(float(x), 3) for x in rng.normal(size=3)],
            }
        )
    return rows


class Attention(nn.Module):
    """A torch module of its own kind, without a feature spec."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(40, 8)
        self.first, self.second = nn.Linear(32, 6), nn.Linear(6, 1)
        self.out = nn.Linear(16, 1)

    def forward(self, goods: torch.Tensor, history: torch.Tensor) -> torch.Tensor:
        query, keys = self.table(goods), self.table(history)
        both = query.unsqueeze(1).expand_as(keys)
        crossed = torch.cat([both, keys, both - keys, both * keys], -1)
        weights = self.second(torch.sigmoid(self.first(crossed)))
        interest = (weights * keys * (history > 0).unsqueeze(-1)).sum(1)
        return self.out(torch.cat([interest, query], -1)).squeeze(-1)


def make_models(folder: Path) -> None:
    """Write the models, and the checkpoint of the first two."""
    spec = FeatureSpec.load(FOLDER / "spec-1.toml")
    model = random_model(spec, seed=1)
    save(model, folder / "checkpoint-1.pt")
    convert(model, folder / "all-1.onnx", explain=True)
    raw = spec.to_dict()
    kept = ("user_id", "goods_id", "cate_id", "tags", "price")
    small = {k: raw[k] for k in ("format", "label")}
    for section in ("user", "candidate", "multi_hot", "dense"):
        small[section] = [f for f in raw[section] if f["name"] in kept]
    fields = {"hist_goods_id": "goods_id", "hist_cate_id": "cate_id"}
    small["behavior"] = [{"name": "history", "max_len": 8, "fields": fields}]
    for field in (*small["user"], *small["candidate"]):
        field["dim"] = 8
    small["model"] = {"attention": {"hidden": [6], "activation": "prelu"}}
    small["model"]["tower"] = {"hidden": [6], "activation": "prelu"}
    narrow = random_model(small, seed=2)
    with mock.patch.object(weights, "EXTERNAL_ABOVE_BYTES", 0):
        convert(narrow, folder / "fp16-1.onnx", embedding_dtype="fp16")
        convert(narrow, folder / "single-1.onnx", single_file=True)
    base = {**small, "model": {"type": "base", "pooling": "mean"}}
    base["model"]["tower"] = {"hidden": [6], "activation": "relu"}
    convert(random_model(base, seed=3), folder / "base-1.onnx")
    torch.manual_seed(4)
    example = (torch.arange(5), torch.arange(30).reshape(5, 6))
    convert(Attention().eval(), folder / "module-1.onnx", example_inputs=example)


def make_job(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Write a job of two inputs that has done one of them."""
    job = folder / "job-2"
    job.mkdir()
    kinds = {
        "cate_id": pa.int64(),
        "goods_id": pa.string(),
        "hist_cate_id": pa.list_(pa.int64()),
        "tags": pa.list_(pa.string()),
        "hist_goods_id": pa.list_(pa.string()),
    }
    names = ["row", "user_id", "price", *kinds]
    for k in range(2):
        part = rows[k::2]
        table = {n: pa.array([r[n] for r in part], kinds.get(n)) for n in names}
        pq.write_table(pa.table(table), job / f"part-{k}.parquet", compression="none")
    predictor = Predictor(folder / "base-1.onnx", device="cpu", threads=1)
    inputs = sorted(job.glob("*.parquet"))
    score_files(predictor, inputs, job / "out", keep=["row"], progress=False)
    done = job / "out" / "_din_score"
    (done / "lock").unlink()
    (done / "manifest.json").unlink()
    (done / "shards" / "part-1.parquet.json").unlink()
    (job / "out" / "part-1.parquet").unlink()


def freeze(target: Path, make: Callable[[Path], object]) -> None:
    """Let `make` write into an empty folder; refuse to replace what is in `target`."""
    with tempfile.TemporaryDirectory() as scratch:
        make(Path(scratch))
        made = sorted(p.relative_to(scratch) for p in Path(scratch).iterdir())
        there = [str(p) for p in made if (target / p).exists()]
        if there:
            sys.exit(f"frozen already, and never made again: {', '.join(there)}")
        for path in made:
            shutil.move(Path(scratch, path), target / path)


def make_all(folder: Path) -> None:
    """Write all files, and what they give."""
    make_models(folder)
    rows = rows_of(40, seed=5)
    about = {"rows": rows, "models": scores_of_all(folder, rows)}
    checkpoint = load(folder / "checkpoint-1.pt")
    assert checkpoint.spec == FeatureSpec.load(FOLDER / "spec-1.toml")
    (folder / "spec-1.json").write_text(
        json.dumps(checkpoint.spec.to_dict(), indent=1, ensure_ascii=False),
        encoding="utf-8",
    )
    assert set(about["models"]) == set(MODELS)
    (folder / ABOUT).write_text(json.dumps(about), encoding="utf-8")
    make_job(folder, rows)


if __name__ == "__main__":
    freeze(FOLDER, make_all)
