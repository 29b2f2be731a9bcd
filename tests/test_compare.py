"""The comparison of examples/amazon_reviews, on a few rows of generated logs."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from din_converter.rows import Rows
from din_converter.train import evaluate, train
from din_infer import FeatureSpec, metrics
from tests.test_examples import EXAMPLES, load

pytestmark = pytest.mark.slow

sys.path.insert(0, str(EXAMPLES / "amazon_reviews"))
compare = load("amazon_reviews/compare.py")
generate = load("click_logs/generate.py")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("logs")
    generate.main(["--out", str(folder), "--rows", "3000"])
    return Path(folder)


WORDS = ["--seeds", "2", "--epochs", "1", "--batch-size", "256"]


def test_the_table_says_what_the_runs_measured(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "results.md"
    page.write_text("# Results\n\nBefore.\n")
    words = [str(data), "--out", str(tmp_path / "out"), *WORDS, "--write", str(page)]
    assert compare.main(words) == 0
    assert "[16/16]" in capsys.readouterr().out
    lines = (tmp_path / "out" / "compare.jsonl").read_text().splitlines()
    runs = [json.loads(line) for line in lines]
    kinds = {(r["model"], r["regularized"], r["seed"]) for r in runs}
    assert len(runs) == len(kinds) == 4 * 2 * 2
    text = page.read_text()
    assert text.startswith("# Results\n\nBefore.\n")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith(("| DIN", "| Base", "| **"))
    ]
    assert len(rows) == 8
    for cells in rows:
        mine = [
            r
            for r in runs
            if (r["model"], r["regularized"])
            == (cells[0].strip("*"), cells[1] == "yes")
        ]
        for cell, measure in zip(cells[2:5], ("auc", "gauc", "log_loss"), strict=True):
            values = np.array([r[measure] for r in mine])
            wanted = f"{values.mean():.4f} ± {values.std(ddof=1):.4f}"
            assert cell == wanted
    aucs = [float(cells[2].split()[0]) for cells in rows]
    assert rows[int(np.argmax(aucs))][0].startswith("**")

    # the same command measures nothing again, and replaces what it had written
    assert compare.main(words) == 0
    assert "[" not in capsys.readouterr().out.split("|")[0].partition("`")[0]
    assert page.read_text().count(compare.BEGIN) == 1
    again = (tmp_path / "out" / "compare.jsonl").read_text().splitlines()
    assert again == lines


def test_a_run_is_the_model_it_names(data: Path) -> None:
    settings = compare.Settings(epochs=1, batch_size=256, mba=0.2, threads=1)
    run = compare.Run("DIN with Dice", True, 3, str(data), settings)
    got = compare.measure_one(run)
    raw = json.loads(FeatureSpec.load(data / "features.toml").to_json())
    raw["model"]["type"] = "din"
    for part in ("attention", "tower"):
        raw["model"].setdefault(part, {})["activation"] = "dice"
    spec = FeatureSpec.from_dict(raw)
    rows, valid, test = (
        Rows.open([data / f"{s}.parquet"], spec) for s in ("train", "valid", "test")
    )
    model = train(
        spec, rows, valid, compare.Settings(**{**vars(settings), "seed": 3})
    ).model
    labels = np.concatenate([b.labels for b in test.batches(500)])
    assert got["auc"] == metrics.auc(labels, evaluate(model, test))
    assert got["rows"] == [rows.num_rows, valid.num_rows, test.num_rows]
