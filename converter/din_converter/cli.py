"""The commands din-train and din-convert.

Above 400 lines: most of it is what they say of themselves.
"""

import argparse
import json
import os
import sys
import textwrap
import time
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from din_converter.settings import Settings
from din_converter.train_options import add_options, read_config, write_config
from din_infer.cli import (
    command_errors,
    command_parser,
    notes_of,
    path,
    positive,
    read_paths,
    text_options,
)
from din_infer.errors import InputError
from din_infer.formatting import one_line
from din_infer.model_format import RAW_TEXTS
from din_infer.spec import FeatureSpec

__all__ = ["convert_main", "train_main"]

SOURCES = ("deepctr-torch", "torch-rechub", "recbole", "fuxictr")
NOT_OPTIONS = ("model", "out", "json")
BY_ROWS = ("epochs", "batch_size", "patience")  # where they are not given
WIDTH = 88
CALIBRATED = (
    "log-loss and calibration of validation are of scores as served, calibrated"
)
NOT_CALIBRATED = (
    "log-loss and calibration of validation are of scores without the spec's\n"
    "calibration, since held-out rows are sampled as the training rows are"
)

TRAIN_EXAMPLES = """\
examples:
  din-train train.parquet --spec features.toml --valid valid.parquet --out model.pt
  din-train logs/ --spec features.toml --valid-fraction 0.1 --out model.pt
      every data file of a folder; holds out the newest tenth of the rows, by the
      spec's `time` column
  din-train events.csv.gz --spec features.toml --out model.pt
      text is read once, and copied into the run folder, to be read in random order
  din-train logs/ --spec features.toml --out model.pt --mba 0.3 --epochs 20
      with mini-batch aware regularization
  din-train logs/ --spec features.toml --out model.pt --resume
      continues a run that was killed, from its last checkpoint; with more --epochs
      also one that has ended, of --schedule constant or exponential
  din-train today/ --spec features.toml --out new.pt --warm-start model.pt
      starts from yesterday's weights; vocabularies may have grown
  din-train train.parquet --spec features.toml --model base --out base.pt
      the same without attention: a baseline that shows what attention contributes
  din-train --config train.toml --seed 2
      options from a file, and one from the command line. The file has data = ["logs"],
      batch_size = 256 and so on; its paths are relative to the file's folder

The run folder (--run) receives metrics.jsonl, learning_curve.png (with matplotlib),
tensorboard/ (with tensorboard), config.toml, which repeats the run, last.pt, from which
--resume trains more epochs of such a schedule, and spec.json: the spec with the scales
and boundaries that were fitted to the training rows. What was fitted is printed, too.

The end of the output compares the validation AUC with that of rules without a model,
and warns where the model does not beat them. With a `weight` in the spec all measures
are weighted, and say so.
"""
CONVERT_EXAMPLES = """\
examples:
  din-convert model.pt --out model.onnx
  din-convert model.pt --out model.onnx --explain
      adds the activation weight of every behavior as an output
  din-convert model.pt --out model.onnx --embedding-dtype fp16 --valid valid.parquet
      half the file and the memory; prints the AUC with and without rounded tables
  din-convert model.pt --out model.onnx --single-file
      one file of up to 2 GiB, without a data file beside it
  din-convert model.pt --out din.onnx --triton repository --triton-path /models
      a folder to serve: tritonserver --model-repository=/models, or KServe
  din-convert model.pt --out model.onnx --prune
      for daily conversions: deletes the data files of earlier days that no .onnx in the
      folder names any more. Processes that have loaded one are not affected; an earlier
      .onnx that was moved to another folder can no longer be loaded
  din-convert model.pt --out model.onnx --vectors vectors/
      with test vectors, for a client in a language without Python

checkpoints of other libraries, read without the library and without running any code:
  din-convert DIN.pth --from deepctr-torch --description columns.json --out model.onnx
      a state_dict; a whole model or ModelCheckpoint needs no description
  din-convert model.pth --from torch-rechub --description features.json --out model.onnx
  din-convert saved/DIN-Nov-23.pth --from recbole --out model.onnx
  din-convert DIN_x1.model --from fuxictr --feature-map feature_map.json \\
      --model-config model_config.yaml --feature-vocab feature_vocab.json \\
      --out model.onnx

any torch module, exported by torch.export; attention that is found is fused:
  din-convert model.pt2 --out model.onnx
"""


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def train_main(argv: Sequence[str] | None = None) -> int:
    """Run din-train; returns the exit status."""
    parser = command_parser(
        "din-train",
        "Train a Deep Interest Network from labeled rows and a feature spec.",
        TRAIN_EXAMPLES,
    )
    add_options(parser)
    words = list(sys.argv[1:] if argv is None else argv)
    given = parser.parse_args(words)

    def run() -> int:
        arguments = read_paths(parser, given)
        if given.config:
            # Read as if typed: the same checks. What is typed wins.
            typed = vars(parser.parse_args(read_config(given.config, parser)))
            parser.set_defaults(**{k: v for k, v in typed.items() if k != "data"})
            arguments = parser.parse_args(words)
            arguments.data = arguments.data or typed["data"]
            arguments = read_paths(parser, arguments)
        needed = {"DATA": arguments.data, "--spec": arguments.spec}
        missing = [name for name, value in needed.items() if not value]
        if missing:
            parser.error("the following arguments are required: " + ", ".join(missing))
        return _train(arguments)

    return command_errors("din-train", "convert,batch", run)


def _train(arguments: argparse.Namespace) -> int:
    # Threads that spin while they wait starve each other on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from din_converter.checkpoint import load, save
    from din_converter.epochs import Epoch, epoch_header, epoch_line
    from din_converter.row_copies import RowCopies
    from din_converter.rows import Rows
    from din_converter.run import RunFolder
    from din_converter.train import train
    from din_infer.jobs.sources import find_tables
    from din_infer.jobs.text_options import TextOptions
    from din_infer.spec import Calibration

    out: Path = arguments.out
    folder = out.absolute().parent
    if not folder.is_dir():
        raise InputError("an existing folder", folder, "--out")
    if out.is_dir() or not os.access(folder, os.W_OK):
        raise InputError("a file that can be written", out, "--out")
    if arguments.run is None:
        arguments.run = out.with_name(out.name.removesuffix(".pt") + ".run")
    inputs = [*arguments.data, *(arguments.valid or []), arguments.spec, arguments.run]
    if out.absolute() in [p.absolute() for p in inputs]:
        rule = "a file other than the rows, the spec and the run folder"
        raise InputError(rule, out, "--out")
    if not arguments.run.absolute().parent.is_dir() or arguments.run.is_file():
        rule = "a folder, or one to be made in an existing folder"
        raise InputError(rule, arguments.run, "--run")
    spec = _override(FeatureSpec.load(arguments.spec), arguments)
    note = notes_of("din-train")
    text = text_options(arguments)
    # an option may be for the rows, or for those of --valid
    parts = (arguments.data, arguments.valid or [])
    tables = [t for part in parts for t in find_tables(part, arguments.format)]
    text.check_formats([table.format for table in tables])
    copies = RowCopies(arguments.run / "rows", note, progress=not arguments.quiet)
    written = {"text": text, "format": arguments.format, "copies": copies}
    rows = Rows.open(arguments.data, spec, **written, on_note=note)
    valid = None
    if arguments.valid:
        valid = Rows.open(arguments.valid, spec, **written, on_note=note)
    given = vars(arguments) | {"progress": not arguments.quiet}
    given["add_scales"] = not arguments.no_scale
    settings = Settings(**{f.name: given[f.name] for f in fields(Settings)})
    settings = settings.for_rows(max(1, rows.num_rows))
    for name in BY_ROWS:
        setattr(arguments, name, getattr(settings, name))
    sources = {
        "data": rows.fingerprint(),
        "valid": valid.fingerprint() if valid else None,
        "warm_start": str(arguments.warm_start) if arguments.warm_start else None,
        "text": None if text == TextOptions() else text.describe(),
    }
    config = {**asdict(settings), "spec": spec.to_json(), **sources}
    run = RunFolder(arguments.run, config, on_note=note)
    if arguments.resume and out.exists() and run.is_finished():
        copies.remove()
        print(f"this run has finished already: {one_line(str(out))} is its model")
        return 0
    start = None
    if arguments.warm_start and not (arguments.resume and run.has_checkpoint):
        start = load(arguments.warm_start)
    started = time.perf_counter()
    names = one_line(", ".join(str(p) for p in arguments.data))
    print(f"training {spec.model.type} on {rows.num_rows:,} rows of {names}")
    print(
        f"batch size {settings.batch_size}, learning rate {settings.learning_rate:g},"
        f" mba {settings.mba:g}, embedding std {settings.embedding_std:g}; at most"
        f" {settings.epochs} epochs, patience {settings.patience}"
    )
    if spec.calibration != Calibration():
        print(CALIBRATED if valid else NOT_CALIBRATED)
    has_header = False

    def show(epoch: Epoch) -> None:
        nonlocal has_header
        if not has_header:
            print(epoch_header(weighted=spec.weight is not None))
            has_header = True
        print(epoch_line(epoch), flush=True)

    trained = train(
        spec,
        rows,
        valid,
        settings,
        show,
        run=run,
        resume=arguments.resume,
        overwrite=arguments.overwrite,
        start=start,
        on_note=lambda text: print(one_line(text)),
    )
    save(trained.model, out)
    write_config(arguments, run.path / "config.toml")
    run.finish(trained)
    copies.remove()
    print(_summary(trained, arguments, time.perf_counter() - started))
    return 0


def _summary(trained: Any, arguments: argparse.Namespace, seconds: float) -> str:  # noqa: ANN401
    """Render the result of a run."""
    from din_converter.epochs import decided_by
    from din_converter.remarks import name_of_measure

    best, epochs, spec = trained.best, trained.epochs, trained.model.spec
    lines = []
    if best is not None:
        by = ""
        if best.log_loss == best.log_loss:
            measure = decided_by(best, arguments.select)
            by = f", by {name_of_measure(measure, spec)}"
        lines.append(f"kept epoch {best.number} of {len(epochs)}{by}")
    if trained.baselines:
        lines.append(f"{name_of_measure('auc', spec)} {best.auc:.5f}, beside")
        lines += [f"  {b.auc:.5f}  {b.name}" for b in trained.baselines]
    for text in trained.remarks:
        lines += textwrap.wrap(
            f"Warning: {text}", WIDTH, break_long_words=False, break_on_hyphens=False
        )
    spent = sum(e.seconds for e in epochs)
    waited = sum(e.seconds * e.waited for e in epochs) / spent if spent else 0.0
    size = sum(p.numel() for p in trained.model.parameters())
    pictures = [p.name for p in sorted(arguments.run.iterdir())]
    lines += [
        f"trained {spent:.0f} s of {seconds:.0f} s, {waited:.1%} waiting for rows",
        f"wrote {arguments.out} ({size:,} weights)",
        f"  and {arguments.run}: {', '.join(pictures)}",
    ]
    return "\n".join(map(one_line, lines))


def _override(spec: FeatureSpec, arguments: argparse.Namespace) -> FeatureSpec:
    raw: dict[str, Any] = spec.to_dict()
    model = raw.setdefault("model", {})
    if arguments.model:
        model["type"] = arguments.model
    if arguments.pooling:
        model["pooling"] = arguments.pooling
    if arguments.activation:
        parts = [model.setdefault("attention", {}), model.setdefault("tower", {})]
        parts += [s["attention"] for s in raw.get("behavior", []) if "attention" in s]
        for part in parts:
            part["activation"] = arguments.activation
    return FeatureSpec.from_dict(raw)


def convert_main(argv: Sequence[str] | None = None) -> int:
    """Run din-convert; returns the exit status."""
    parser = command_parser(
        "din-convert",
        "Convert a trained model to ONNX and prove that both compute the same.",
        CONVERT_EXAMPLES,
    )
    add = parser.add_argument
    add(
        "model",
        metavar="MODEL",
        type=path,
        help="what din-train wrote, a torch.export program (.pt2), or a checkpoint of"
        " the library --from names",
    )
    what = "the .onnx to write (default: MODEL's name, in its folder)"
    add("--out", type=path, help=what)
    add("--explain", action="store_true", help="add activation weights as outputs")
    add(
        "--embedding-dtype",
        choices=("fp32", "fp16"),
        default="fp32",
        help="how tables are stored; all is computed in float32 (default: %(default)s)",
    )
    add(
        "--valid",
        metavar="FILE",
        type=path,
        help="labeled rows on which to measure the AUC before and after rounding to"
        " fp16; without them, on generated rows and labels",
    )
    add(
        "--single-file",
        action="store_true",
        help="put all weights inside the .onnx, for registries and Predictor(bytes); at"
        " most 2 GiB, and every process that loads it has its own copy of them",
    )
    add(
        "--prune",
        action="store_true",
        help="then delete data files of earlier conversions to --out that no .onnx in"
        " its folder names; one that is kept in another folder would miss its data",
    )
    add(
        "--raw",
        action="store_true",
        help="write a graph that takes raw columns instead of ids, for ONNX Runtime in"
        " any language; it needs the native operators, and Predictor does not take it",
    )
    add(
        "--raw-text",
        choices=RAW_TEXTS,
        default=RAW_TEXTS[0],
        help="how text is given to a --raw graph: bytes with int32 offsets, with int64"
        " offsets, or string tensors (default: %(default)s)",
    )
    add(
        "--raw-ids",
        action="store_true",
        help="make the ids, lengths and dense values further outputs of a --raw graph",
    )
    add(
        "--inline",
        action="store_true",
        help="write standard operators alone, for OpenVINO and others that know no"
        " functions; the native operators cannot replace them then (of a --raw graph,"
        " Encode stays)",
    )
    add(
        "--triton",
        metavar="DIR",
        type=path,
        help="also write a folder for Triton: its config, the files, the operators",
    )
    add(
        "--triton-path",
        metavar="PATH",
        help="where the server finds DIR, as in /models (default: its path here)",
    )
    add(
        "--vectors",
        metavar="DIR",
        type=path,
        help="also write spec.json, inputs.json and vectors.jsonl: raw rows, their ids"
        " and scores, for testing a client in another language",
    )
    add("--json", action="store_true", help="print the report as JSON")
    library = parser.add_argument_group("checkpoints of other libraries")
    add = library.add_argument
    add("--from", dest="source", choices=SOURCES, help="the library that wrote MODEL")
    add(
        "--description",
        metavar="FILE.json",
        type=path,
        help="deepctr-torch: its columns; torch-rechub: its features",
    )
    add("--feature-map", metavar="FILE.json", type=path, help="fuxictr (required)")
    add("--model-config", metavar="FILE.yaml", type=path, help="fuxictr (required)")
    add(
        "--feature-vocab",
        metavar="FILE.json",
        type=path,
        help="fuxictr: score raw values instead of ids",
    )
    add("--experiment", metavar="ID", help="fuxictr: which one of --model-config")
    add(
        "--max-len",
        metavar="T",
        type=positive,
        help="torch-rechub: the length that histories were padded to in training;"
        " needed to score shorter lists, since padding counts",
    )
    for side, given in (("user", "request"), ("candidate", "candidate")):
        add(
            f"--{side}-fields",
            metavar="NAME,..",
            type=_names,
            default=(),
            help=f"fields that are given per {given}, if not as assumed",
        )
    arguments = parser.parse_args(argv)

    def run() -> int:
        read_paths(parser, arguments)
        from din_converter.export import convert

        options = {k: v for k, v in vars(arguments).items() if k not in NOT_OPTIONS}
        out = arguments.out or Path(arguments.model).with_suffix(".onnx")
        report = convert(arguments.model, out, **options)
        shown = json.dumps(report.to_dict(), indent=2) if arguments.json else report
        print(shown)
        return 0

    extras = "cpu,batch,convert" if arguments.valid else "cpu,convert"
    return command_errors("din-convert", extras, run)
