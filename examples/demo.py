"""The whole way, once: data -> train -> convert -> score, and what came of it.

Without --data, click logs with planted interests are generated. With --data, the folder
holds Amazon reviews, as `examples/amazon_reviews/prepare.py` reads them.
"""

import argparse
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from din_converter import load
from din_converter.cli import convert_main, train_main
from din_converter.train import evaluate, read_table
from din_infer import FeatureSpec, Predictor, metrics
from din_infer.cli import main as score_main

sys.path.insert(0, str(Path(__file__).parent))
from amazon_reviews import prepare
from click_logs import generate

# Of training, per row and epoch: Amazon Beauty on two cores of an EPYC with AVX2.
SECONDS_PER_ROW = {"DIN": 1.4e-4, "no history": 3.6e-5}
SCORES_AGREE = 1e-5
AUCS_AGREE = 1e-6


def run(
    name: str, command: object, arguments: Sequence[object], about: float = 0
) -> None:
    """Print a command as one would type it, and run it here.

    `about` is how many seconds it takes on 2 cores, 0 if hardly any.
    """
    words = [str(a) for a in arguments]
    takes = f"    # about {duration(about)}" if about >= 1 else ""
    print(f"\n$ {name} {shlex.join(words)}{takes}", flush=True)
    if command(words):  # type: ignore[operator]
        sys.exit(f"{name} failed")


def duration(seconds: float) -> str:
    """Round to what one can promise: 5 s, 40 s, 3 min."""
    if seconds < 10:
        return f"{math.ceil(seconds)} s"
    if seconds < 90:
        return f"{math.ceil(seconds / 10) * 10} s"
    return f"{math.ceil(seconds / 60)} min"


def without_history(spec: FeatureSpec, path: Path) -> None:
    """Write the same spec with no behavior sequence: what the candidate alone tells."""
    raw = spec.to_dict()
    del raw["behavior"]
    raw["model"]["tower"].pop("inputs", None)
    path.write_text(FeatureSpec.from_dict(raw).to_json(), encoding="utf-8")


def popularity(train: Path, test: Path) -> NDArray[np.float64]:
    """Score each test row by how often its item was clicked in training."""
    table = pq.read_table(train, columns=["goods_id", "label"])
    goods = np.asarray(table["goods_id"].to_pylist(), dtype=object)
    clicked = np.asarray(table["label"]) == 1
    items, counts = np.unique(goods[clicked].astype(str), return_counts=True)
    count_of = dict(zip(items.tolist(), counts.tolist(), strict=True))
    rows = pq.read_table(test, columns=["goods_id"])["goods_id"].to_pylist()
    return np.array([count_of.get(str(g), 0) for g in rows], dtype=np.float64)


def print_next(out: Path, spec: FeatureSpec) -> None:
    """Print what to keep of all that was made, and three commands to try."""
    model, weights = out / "din.onnx", sorted(out.glob("din.*.data"))
    print(f"the model to use is {model.name}", end="")
    print(f" with {weights[0].name}, which must stay beside it" if weights else "")
    test = out / "test.parquet"
    (behavior, *_) = spec.behavior
    history = behavior.own_fields[0].columns[0]
    rows = pq.read_table(test, columns=[spec.group, history]).to_pylist()
    user = max(rows, key=lambda row: len(row[history] or []))[spec.group]
    find = shlex.quote(f"{spec.group}={user}")
    print("\ntry next:")
    print(f"  din-inspect {test} --spec {out / 'features.toml'} --plot fit.png")
    print(f"  din-explain {model} {test} --where {find} --out weights.html")
    print(f"  din-score {model} YOUR.parquet --out scores    # your own rows:")
    columns = ", ".join(spec.columns)
    print(f"      with the columns {columns}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add(
        "--data",
        type=Path,
        help="a folder with Amazon reviews; else logs are generated",
    )
    add("--out", type=Path, default=Path("demo"), help="folder for everything made")
    add("--rows", default="200000", help="rows to generate (default: %(default)s)")
    add("--epochs", default="6", help="at most, for each model (default: %(default)s)")
    add("--min-auc", type=float, default=-1.0, help="fail when DIN's test AUC is lower")
    add(
        "--min-gain",
        type=float,
        default=-1.0,
        help="fail when DIN's AUC is not this much above the model without history",
    )
    arguments = parser.parse_args(argv)
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    if arguments.data:
        words = [arguments.data, "--out", out]
        run("examples/amazon_reviews/prepare.py", prepare.main, words)
    else:
        run(
            "examples/click_logs/generate.py",
            generate.main,
            ["--out", out, "--rows", arguments.rows],
        )

    spec = FeatureSpec.load(out / "features.toml")
    num_rows = pq.read_metadata(out / "train.parquet").num_rows
    without_history(spec, out / "no_history.json")
    test = out / "test.parquet"
    models = {"DIN": "features.toml", "no history": "no_history.json"}
    aucs, rows = {}, []
    labels, groups = _labels(test, spec)
    scored = {"popularity": popularity(out / "train.parquet", test)}
    differences = []
    for title, spec_name in models.items():
        stem = title.replace(" ", "_").lower()
        model, onnx = out / f"{stem}.pt", out / f"{stem}.onnx"
        words = [out / "train.parquet", "--valid", out / "valid.parquet"]
        words += ["--spec", out / spec_name, "--out", model, "--overwrite"]
        words += ["--epochs", arguments.epochs]
        per_row = SECONDS_PER_ROW[title] * int(arguments.epochs)
        run("din-train", train_main, words, num_rows * per_row)
        words = [model, "--out", onnx, "--prune"]
        run("din-convert", convert_main, [*words, *["--explain"] * (title == "DIN")], 8)
        folder = out / f"scores_{stem}"
        words = [onnx, test, "--out", folder, "--overwrite"]
        run("din-score", score_main, [*words, "--keep", f"{spec.group},{spec.label}"])
        scored[title] = _scores(folder / "test.parquet")
        trained = load(model)
        by_torch = evaluate(trained, read_table(test, trained.spec))
        by_predictor = Predictor(onnx).score(pq.read_table(test))
        for other in (by_torch, by_predictor):
            scores = float(np.abs(other - scored[title]).max())
            auc = metrics.auc(labels, other) - metrics.auc(labels, scored[title])
            differences.append((scores, abs(auc)))

    print(f"\n{'test rows ' + format(len(labels), ',d'):24}{'AUC':>9}{'GAUC':>9}")
    for title, scores in scored.items():
        aucs[title] = metrics.auc(labels, scores)
        gauc = metrics.gauc(labels, scores, groups)
        rows.append(f"{title:24}{aucs[title]:9.4f}{gauc:9.4f}")
    print("\n".join(rows))
    worst = np.max(differences, axis=0)
    # A pair of rows that rounding ties is a whole step of the AUC of few rows.
    clicks = int(labels.sum())
    aucs_agree = max(AUCS_AGREE, 1 / max(1, clicks * (len(labels) - clicks)))
    print(
        "torch, Predictor and din-score: scores within"
        f" {worst[0]:.1e} (allowed {SCORES_AGREE:g}), AUC within {worst[1]:.1e}"
        f" (allowed {aucs_agree:g})"
    )
    print(f"everything is in {out.resolve()}")
    print_next(out, spec)
    gain = aucs["DIN"] - aucs["no history"]
    faults = []
    if worst[0] > SCORES_AGREE or worst[1] > aucs_agree:
        faults.append("torch, Predictor and din-score disagree")
    if aucs["DIN"] < arguments.min_auc:
        faults.append(f"AUC {aucs['DIN']:.4f} is below {arguments.min_auc}")
    if gain < arguments.min_gain:
        faults.append(f"gain {gain:.4f} over no history is below {arguments.min_gain}")
    for fault in faults:
        print(f"failed: {fault}", file=sys.stderr)
    return 1 if faults else 0


def _labels(path: Path, spec: FeatureSpec) -> tuple[NDArray[np.int64], list[str]]:
    table = pq.read_table(path, columns=[spec.label, spec.group])
    labels = np.asarray(table[spec.label], dtype=np.int64)
    return labels, [str(g) for g in table[spec.group].to_pylist()]


def _scores(path: Path) -> NDArray[np.float64]:
    return np.asarray(pq.read_table(path, columns=["score"])["score"], dtype=np.float64)


if __name__ == "__main__":
    sys.exit(main())
