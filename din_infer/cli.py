"""The command din-score, and how every command reports its errors."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from din_infer.errors import DinError

__all__ = ["command_errors", "main", "positive"]

EXAMPLES = """\
examples:
  din-score model.onnx events.parquet --out scores/
      writes scores/events.parquet with the column `score`
  din-score model.onnx day1.parquet day2.parquet --out scores/ --keep user_id,goods_id
  din-score model.onnx shards/ --out scores/ --json > summary.json

Each output has the rows of its input, in order. Exit status: 0 all written, 1 an error
(said on stderr; no partial file is left), 2 wrong usage.
"""


def command_errors(name: str, extras: str, run: Callable[[], int]) -> int:
    """Run a command; say errors of ours, and missing extras, in one clear line."""
    try:
        return run()
    except DinError as error:
        print(f"{name}: {error}", file=sys.stderr)
    except ModuleNotFoundError as error:
        top = (error.name or "").partition(".")[0]
        if top in ("", "din_infer", "din_converter"):
            raise
        print(
            f"{name}: needs the package {error.name}."
            f' Run: pip install "din-infer[{extras}]"',
            file=sys.stderr,
        )
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
    return 1


def positive(text: str) -> int:
    """Read a command-line number of at least 1."""
    value = int(text)
    if value < 1:
        message = "must be at least 1"
        raise argparse.ArgumentTypeError(message)
    return value


def build_parser() -> argparse.ArgumentParser:
    """Build din-score's argument parser."""
    parser = argparse.ArgumentParser(
        prog="din-score",
        description="Score Parquet files with a converted model.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("model", metavar="model.onnx", type=Path, help="what din-convert wrote")
    add(
        "inputs",
        metavar="INPUT",
        nargs="+",
        type=Path,
        help="Parquet files, or folders of them",
    )
    add("--out", required=True, type=Path, help="folder for the scored files")
    add(
        "--keep",
        metavar="COL,...",
        default="",
        help="columns to copy to the output, before `score`",
    )
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default: auto)")
    add("--threads", type=positive, help="default: all CPUs this process may use")
    add(
        "--batch-size",
        type=positive,
        default=8192,
        help="rows read and scored at a time; bounds memory (default: %(default)s)",
    )
    add("--overwrite", action="store_true", help="replace files that are there already")
    add("--json", action="store_true", help="print a summary as JSON on stdout")
    add("--quiet", action="store_true", help="no progress bar")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run din-score; returns the exit status."""
    arguments = build_parser().parse_args(argv)
    return command_errors("din-score", "cpu,batch", lambda: _score(arguments))


def _score(arguments: argparse.Namespace) -> int:
    from din_infer.jobs.files import score_files
    from din_infer.predictor import Predictor

    predictor = Predictor(
        arguments.model, device=arguments.device, threads=arguments.threads
    )
    summary = score_files(
        predictor,
        arguments.inputs,
        arguments.out,
        keep=[c for c in arguments.keep.split(",") if c],
        batch_size=arguments.batch_size,
        overwrite=arguments.overwrite,
        progress=not arguments.quiet,
    )
    print(json.dumps(summary.to_dict()) if arguments.json else summary)
    return 0
