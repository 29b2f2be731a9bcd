"""Reproduce the DIN paper's comparison of models on Amazon reviews.

    python examples/amazon_reviews/compare.py DATA --out compare --write docs/results.md

BaseModel with sum and mean pooling, DIN, and DIN with Dice, each with and without
mini-batch aware regularization, all else alike. Each is trained from several seeds; the
epoch with the best validation AUC is kept, and the test rows are scored once. What is
measured goes to OUT/compare.jsonl, run by run: the same command goes on where it was
interrupted. Prints a Markdown table, mean ± standard deviation over the seeds.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from din_converter.rows import Rows
from din_converter.train import Settings, evaluate, train
from din_infer import FeatureSpec, metrics
from din_infer.whole_file import write_whole

sys.path.insert(0, str(Path(__file__).parent))
import prepare

BEGIN, END = "<!-- compare: begin -->", "<!-- compare: end -->"
# The paper has PReLU in all models, and Dice in the one that is named after it.
MODELS: dict[str, dict[str, str]] = {
    "BaseModel, sum": {"type": "base", "pooling": "sum", "activation": "prelu"},
    "BaseModel, mean": {"type": "base", "pooling": "mean", "activation": "prelu"},
    "DIN": {"type": "din", "activation": "prelu"},
    "DIN with Dice": {"type": "din", "activation": "dice"},
}
BASELINE = ("BaseModel, mean", False)
MEASURES = {"auc": "AUC", "gauc": "GAUC", "log_loss": "log-loss"}


@dataclass(frozen=True)
class Run:
    """One model from one seed: what to train, and on what."""

    model: str
    regularized: bool
    seed: int
    folder: str
    settings: Settings

    @property
    def key(self) -> tuple[str, bool, int]:
        """What tells runs apart."""
        return self.model, self.regularized, self.seed


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "data",
        type=Path,
        metavar="DATA",
        help="Amazon reviews, as prepare.py reads them, or a folder it wrote",
    )
    add("--out", type=Path, required=True, help="folder for all that is made")
    add("--seeds", type=int, default=3, help="runs of each model (default 3)")
    add("--mba", type=float, default=0.3, help="lambda where regularized (default 0.3)")
    add("--epochs", type=int, default=12, help="at most, per run (default 12)")
    add(
        "--patience",
        type=int,
        default=2,
        help="of early stopping (default 2)",
    )
    add("--batch-size", type=int, default=1024, help="rows (default 1024)")
    add("--learning-rate", type=float, default=2e-3, help="Adam's (default 0.002)")
    add("--embedding-std", type=float, default=0.1, help="of the tables (default 0.1)")
    add(
        "--jobs",
        type=int,
        default=1,
        help="runs at a time (default 1)",
    )
    add("--write", type=Path, metavar="FILE.md", help="put the table into this file")
    options = parser.parse_args(words)

    folder = options.data
    if not (folder / "train.parquet").exists():
        folder = options.out / "data"
        if not (folder / "features.toml").exists():
            prepare.main([str(options.data), "--out", str(folder)])
    options.out.mkdir(parents=True, exist_ok=True)
    settings = Settings(
        epochs=options.epochs,
        patience=options.patience,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        embedding_std=options.embedding_std,
        mba=options.mba,
        threads=1,
        progress=False,
    )
    runs = [
        Run(model, regularized, seed, str(folder), settings)
        for seed in range(options.seeds)
        for model in MODELS
        for regularized in (False, True)
    ]
    results = measure(runs, options.out / "compare.jsonl", options.jobs)
    command = "python examples/amazon_reviews/compare.py " + shlex.join(words)
    text = report(results, command, folder)
    print(text)
    if options.write:
        insert(options.write, text)
        print(f"written into {options.write}")
    return 0


def measure(runs: Sequence[Run], log: Path, jobs: int) -> list[dict[str, Any]]:
    """Measure every run that the log does not have yet; returns all of them."""
    found: dict[str, dict[str, Any]] = {}
    if log.exists():
        for line in log.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):  # a line that a kill cut off
                done = json.loads(line)
                found[done["run"]] = done
    names = {_name(run): run for run in runs}
    missing = [run for name, run in names.items() if name not in found]
    for done in _measured(missing, jobs):
        found[done["run"]] = done
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(done) + "\n")
        shown = "  ".join(f"{t} {done[m]:.4f}" for m, t in MEASURES.items())
        kind = f"{done['model']}{' + MBA' if done['regularized'] else ''}"
        count = sum(name in found for name in names)
        print(
            f"[{count}/{len(runs)}] {kind:24} seed {done['seed']}: {shown}"
            f"  epoch {done['epoch']}, {done['seconds']:.0f} s",
            flush=True,
        )
    return [found[name] for name in names]


def _name(run: Run) -> str:
    """Name a run by all that decides its result."""
    data = {p.name: p.stat().st_size for p in sorted(Path(run.folder).glob("*.*"))}
    return json.dumps({**asdict(run), "folder": "", "data": data}, sort_keys=True)


def _measured(runs: Sequence[Run], jobs: int) -> Iterator[dict[str, Any]]:
    if jobs == 1:
        yield from map(measure_one, runs)
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        for future in as_completed([pool.submit(measure_one, run) for run in runs]):
            yield future.result()


def measure_one(run: Run) -> dict[str, Any]:
    """Train one model from one seed, and score the test rows with the kept epoch."""
    folder = Path(run.folder)
    spec = model_spec(FeatureSpec.load(folder / "features.toml"), MODELS[run.model])
    rows, valid, test = (
        Rows.open([folder / f"{split}.parquet"], spec) for split in prepare.SPLITS
    )
    settings = Settings(
        **{
            **asdict(run.settings),
            "seed": run.seed,
            "mba": run.settings.mba if run.regularized else 0.0,
        }
    )
    started = time.perf_counter()
    trained = train(spec, rows, valid, settings)
    scores = evaluate(trained.model, test)
    labels, groups = [], []
    for batch in test.batches(1 << 16):
        labels.append(batch.labels)
        groups.append(batch.groups)
    clicks, users = np.concatenate(labels), np.concatenate(groups)  # type: ignore[arg-type]
    return {
        "run": _name(run),
        "model": run.model,
        "regularized": run.regularized,
        "seed": run.seed,
        "auc": metrics.auc(clicks, scores),
        "gauc": metrics.gauc(clicks, scores, users),
        "log_loss": metrics.log_loss(clicks, scores),
        "epoch": trained.best.number if trained.best else 0,
        "epochs": [asdict(e) for e in trained.epochs],
        "seconds": time.perf_counter() - started,
        "rows": [rows.num_rows, valid.num_rows, test.num_rows],
    }


def model_spec(spec: FeatureSpec, model: dict[str, str]) -> FeatureSpec:
    """Return the spec with another model over the same features."""
    raw = json.loads(spec.to_json())
    layers = raw.setdefault("model", {})
    layers["type"] = model["type"]
    layers["pooling"] = model.get("pooling", "sum")
    for part in ("attention", "tower"):
        layers.setdefault(part, {})["activation"] = model["activation"]
    return FeatureSpec.from_dict(raw)


def report(results: Sequence[dict[str, Any]], command: str, folder: Path) -> str:
    """Lay out all runs as Markdown."""
    by_kind: dict[tuple[str, bool], list[dict[str, Any]]] = {}
    for result in results:
        by_kind.setdefault((result["model"], result["regularized"]), []).append(result)

    def mean(kind: tuple[str, bool], measure: str) -> float:
        return statistics.fmean(r[measure] for r in by_kind[kind])

    out = io.StringIO()
    seeds = len({r["seed"] for r in results})
    train_rows, valid_rows, test_rows = results[0]["rows"]
    print(f"`{command}`\n", file=out)
    print(
        f"{time.strftime('%Y-%m-%d')}, {_machine()}, torch {version('torch')};"
        f" {train_rows:,} training, {valid_rows:,} validation and {test_rows:,} test"
        f" rows; {seeds} seeds, mean ± standard deviation.\n",
        file=out,
    )
    print(
        "| model | MBA | AUC | GAUC | log-loss | RelaImpr of GAUC | kept epoch "
        "| s/epoch |\n|---|---|--:|--:|--:|--:|--:|--:|",
        file=out,
    )
    best = max(by_kind, key=lambda kind: mean(kind, "auc"))
    for kind, runs in by_kind.items():
        cells = [f"**{kind[0]}**" if kind == best else kind[0]]
        cells.append("yes" if kind[1] else "no")
        for measure in MEASURES:
            values = [r[measure] for r in runs]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.fmean(values):.4f} ± {spread:.4f}")
        if kind == BASELINE:
            cells.append("0 %")
        else:
            base = mean(BASELINE, "gauc") - 0.5
            gain = ((mean(kind, "gauc") - 0.5) / base - 1) * 100
            cells.append(f"{gain:+.2f} %")
        cells.append(", ".join(str(r["epoch"]) for r in runs))
        seconds = [e["seconds"] for r in runs for e in r["epochs"]]
        cells.append(f"{statistics.median(seconds):.0f}")
        print("| " + " | ".join(cells) + " |", file=out)
    dumped = json.loads(results[0]["run"])["settings"]
    shown = (
        "batch_size",
        "learning_rate",
        "embedding_std",
        "mba",
        "patience",
        "epochs",
    )
    print(
        "\nAll models: Adam, "
        + ", ".join(f"{name.replace('_', ' ')} {dumped[name]:g}" for name in shown)
        + f" at most, on {folder.name or folder}'s `features.toml`.",
        file=out,
    )
    return out.getvalue()


def _machine() -> str:
    cpu = platform.processor() or platform.machine()
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                cpu = line.partition(":")[2].strip()
                break
    return f"{cpu}, one thread a run"


def insert(path: Path, text: str) -> None:
    """Replace what lies between the markers of a Markdown file, or append them."""
    old = path.read_text(encoding="utf-8") if path.exists() else "# Results\n"
    block = f"{BEGIN}\n{text}\n{END}"
    if BEGIN in old and END in old:
        head, _, rest = old.partition(BEGIN)
        new = head + block + rest.partition(END)[2]
    else:
        new = f"{old}\n{block}\n"
    write_whole(path, new)


if __name__ == "__main__":
    sys.exit(main())
