"""The commands din-train and din-convert."""

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from din_infer.cli import command_errors, positive
from din_infer.spec import ACTIVATIONS, FeatureSpec

__all__ = ["convert_main", "train_main"]

TRAIN_EXAMPLES = """\
examples:
  din-train train.parquet --spec features.toml --valid valid.parquet --out model.pt
  din-train log.parquet --spec features.toml --valid-fraction 0.1 --out model.pt
      holds out the newest tenth of the rows, by the spec's `time` column
  din-train train.parquet --spec features.toml --model base --out base.pt
      the same without attention, to see what attention is worth
"""
CONVERT_EXAMPLES = """\
examples:
  din-convert model.pt --out model.onnx
  din-convert model.pt --out model.onnx --explain
      also gives the activation weight of every behavior as an output
  din-convert model.pt --out model.onnx --embedding-dtype fp16 --valid valid.parquet
      half the file and the memory; prints the AUC with and without rounded tables
"""


def _parser(name: str, what: str, examples: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=name,
        description=what,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        message = "must be in [0, 1)"
        raise argparse.ArgumentTypeError(message)
    return value


def _rate(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e3:
        message = "must be above 0"
        raise argparse.ArgumentTypeError(message)
    return value


def _seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**63:
        message = "must be in [0, 2**63)"
        raise argparse.ArgumentTypeError(message)
    return value


def _train_parser() -> argparse.ArgumentParser:
    parser = _parser(
        "din-train",
        "Train a Deep Interest Network from a Parquet file and a feature spec.",
        TRAIN_EXAMPLES,
    )
    add = parser.add_argument
    add("data", metavar="DATA.parquet", type=Path, help="training rows")
    add("--spec", required=True, type=Path, help="feature spec, .toml or .json")
    add("--out", required=True, type=Path, help="the model to write, e.g. model.pt")
    add("--valid", metavar="FILE", type=Path, help="validation rows, Parquet")
    add(
        "--valid-fraction",
        metavar="F",
        type=_fraction,
        default=0.1,
        help="without --valid: hold out the newest part F of the rows, by the spec's"
        " `time` column; 0 trains without validation (default: %(default)s)",
    )
    add("--model", choices=("din", "base"), help="override the spec's model.type")
    add(
        "--activation",
        choices=ACTIVATIONS,
        help="override the activation of attention and tower",
    )
    add("--epochs", type=positive, default=10, help="at most (default: %(default)s)")
    add(
        "--patience",
        metavar="N",
        type=positive,
        default=2,
        help="stop after N epochs without a better validation AUC"
        " (default: %(default)s)",
    )
    add("--batch-size", type=positive, default=1024, help="rows (default: %(default)s)")
    add(
        "--learning-rate",
        type=_rate,
        default=1e-3,
        help="Adam's (default: %(default)s)",
    )
    add(
        "--weight-decay",
        type=_fraction,
        default=0.0,
        help="L2 on all weights but the tables (default: %(default)s)",
    )
    add(
        "--seed",
        type=_seed,
        default=0,
        help="of weights and order (default: %(default)s)",
    )
    add("--threads", type=positive, help="CPU threads (default: torch's)")
    add("--quiet", action="store_true", help="no progress bar")
    return parser


def train_main(argv: Sequence[str] | None = None) -> int:
    """Run din-train; returns the exit status."""
    arguments = _train_parser().parse_args(argv)
    return command_errors("din-train", "convert,batch", lambda: _train(arguments))


def _train(arguments: argparse.Namespace) -> int:
    # Threads that spin while they wait starve each other on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from din_converter.checkpoint import save
    from din_converter.train import (
        Settings,
        epoch_header,
        epoch_line,
        read_table,
        train,
    )
    from din_infer.errors import InputError, explain

    folder = arguments.out.absolute().parent
    if not folder.is_dir():
        raise InputError(explain("an existing folder", folder, "--out"))
    if arguments.out.is_dir() or not os.access(folder, os.W_OK):
        rule = "a file that can be written"
        raise InputError(explain(rule, arguments.out, "--out"))
    spec = _override(FeatureSpec.load(arguments.spec), arguments)
    table = read_table(arguments.data, spec)
    valid = read_table(arguments.valid, spec) if arguments.valid else None
    settings = Settings(
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        weight_decay=arguments.weight_decay,
        patience=arguments.patience,
        valid_fraction=arguments.valid_fraction,
        seed=arguments.seed,
        threads=arguments.threads,
        progress=not arguments.quiet,
    )
    started = time.perf_counter()
    print(f"training {spec.model.type} on {table.num_rows:,} rows of {arguments.data}")
    print(epoch_header(), flush=True)
    trained = train(
        spec, table, valid, settings, lambda e: print(epoch_line(e), flush=True)
    )
    save(trained.model, arguments.out)
    seconds = time.perf_counter() - started
    chosen = f"epoch {trained.best.number}" if trained.best else "no epoch"
    print(f"kept {chosen}; wrote {arguments.out} after {seconds:.0f} s")
    return 0


def _override(spec: FeatureSpec, arguments: argparse.Namespace) -> FeatureSpec:
    raw: dict[str, Any] = spec.to_dict()
    model = raw.setdefault("model", {})
    if arguments.model:
        model["type"] = arguments.model
    if arguments.activation:
        parts = [model.setdefault("attention", {}), model.setdefault("tower", {})]
        parts += [s["attention"] for s in raw.get("behavior", []) if "attention" in s]
        for part in parts:
            part["activation"] = arguments.activation
    return FeatureSpec.from_dict(raw)


def convert_main(argv: Sequence[str] | None = None) -> int:
    """Run din-convert; returns the exit status."""
    parser = _parser(
        "din-convert",
        "Convert a trained model to ONNX and prove that both compute the same.",
        CONVERT_EXAMPLES,
    )
    add = parser.add_argument
    add("model", metavar="model.pt", type=Path, help="what din-train wrote")
    add("--out", required=True, type=Path, help="the .onnx to write")
    add("--explain", action="store_true", help="add activation weights as outputs")
    add(
        "--embedding-dtype",
        choices=("fp32", "fp16"),
        default="fp32",
        help="how tables are stored; all is computed in float32 (default: %(default)s)",
    )
    add(
        "--valid",
        metavar="FILE.parquet",
        type=Path,
        help="labeled rows on which to measure the AUC before and after rounding to"
        " fp16; without them, on generated rows and labels",
    )
    arguments = parser.parse_args(argv)

    def run() -> int:
        from din_converter.export import convert

        report = convert(
            arguments.model,
            arguments.out,
            explain=arguments.explain,
            embedding_dtype=arguments.embedding_dtype,
            valid=arguments.valid,
        )
        print(report)
        return 0

    extras = "cpu,batch,convert" if arguments.valid else "cpu,convert"
    return command_errors("din-convert", extras, run)
