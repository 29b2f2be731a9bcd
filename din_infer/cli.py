"""The commands of the runtime, and how all commands report errors.

Above 400 lines: four commands, most of it the text of their help.
"""

import argparse
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from din_infer.closed_pipe import STATUS, flush_output, forget_output, write_output
from din_infer.device import MOST_THREADS
from din_infer.errors import MOST_COUNT, DinError, check_suffix, interrupt_of
from din_infer.formatting import one_line
from din_infer.jobs import BATCH_ROWS, MAX_BAD_ROWS
from din_infer.local_path import local_path
from din_infer.version import __version__
from din_infer.whole_file import remove_unfinished

if TYPE_CHECKING:
    from din_infer.jobs.text_options import TextOptions

__all__ = [
    "add_text_options",
    "command_errors",
    "command_parser",
    "explain_main",
    "inspect_main",
    "main",
    "notes_of",
    "num_threads",
    "path",
    "positive",
    "read_paths",
    "terminable",
    "text_options",
    "verify_main",
]

EXAMPLES = """\
examples:
  din-score model.onnx events.parquet --out scores/
      writes scores/events.parquet with the column `score`
  din-score model.onnx shards/ --out scores/ --keep user_id,goods_id
      each file of a folder, and of folders in it, under its own name
  din-score model.onnx 'days/*.parquet' --out scores/ --resume
      goes on where a killed job stopped; begun in several terminals, or on several
      machines that share the folder, they share the files and none is scored twice
  din-score model.onnx days/ --out scores/ --resume --add
      takes up files that are new in a folder that grows; --resume alone scores files
      that failed, once they are repaired
  din-score model.onnx requests.jsonl --out scores/ --explode --keep request_id,goods_id
      rows are requests with lists of candidates: a row for each candidate; without
      --explode, `score` is a list in the candidates' order
  zcat log.csv.gz | din-score model.onnx - --format csv --out scores/ --on-error skip
      rows that do not fit are left out and listed in scores/_din_score/bad/
  din-score model.onnx shards/ --out scores/ --json > summary.json

Each output has the rows of its input, in order, and is there whole or not at all;
what is done is in scores/_din_score/: a manifest for each output (rows, SHA-256, the
input, the model's id, nulls and unseen per field), manifest.json when all are whole.

Exit status: 0 all outputs are whole, 1 an error (said on stderr; outputs that could be
made are whole), 2 wrong usage, 130 and 143 interrupted and terminated: go on with
--resume.
"""

EXPLAIN_EXAMPLES = """\
examples:
  din-explain model.onnx events.parquet --row 17
      prints what each behavior of row 17 weighs
  din-explain model.onnx events.parquet --row 17 --out weights.html
      the same as a page that stands alone; .png and .svg are pictures
  din-explain model.onnx events.parquet --where user_id=u0002912 --out weights.png
      the rows of one user; rows with the same history become one map of candidates by
      behaviors
  din-explain model.onnx events.parquet --row 100:120 --row 7

The model must have been converted with din-convert --explain. Exit status: 0 shown or
written, 1 an error (said on stderr; no partial file is left), 2 wrong usage.
"""

INSPECT_EXAMPLES = """\
examples:
  din-inspect train.parquet --spec features.toml
      prints whether a DIN fits, and what that rests on: lengths of histories, how often
      clicked and other candidates are in them, leaks, nulls, hash collisions
  din-inspect day1.parquet shards/ --spec features.toml --rows 1000000
      the first million rows: a quick look at much data
  din-inspect train.parquet --spec features.toml --plot fit.png
  din-inspect train.parquet --spec features.toml --json > fit.json
  din-inspect events.csv.gz --spec features.toml
      text too, with din-score's options; histories as a|b|c by `separator` in the spec

The files are streamed: they may be larger than memory. Label, group and time are used
where the data has them. Values that din-train would refuse, since the spec makes unseen
or missing ones errors, are counted. Exit status: 0 inspected, whatever was found, 1 an
error (said on stderr), 2 wrong usage.
"""
VERIFY_EXAMPLES = """\
examples:
  din-verify model.onnx
      reads model.onnx and its data file, and compares every byte with the digests that
      din-convert left in them: after a copy, a download, a restored backup
  din-verify model.onnx --data-root /data/cache
      where links lead to a data file in another folder
  din-verify model.onnx --json

Needs no ONNX Runtime, and scores nothing. Exit status: 0 every byte is as it was
written, 1 it is not, or the model has no digests (said on stderr), 2 wrong usage.
"""
NO_THREAD = "can't start new thread"  # as Python says it
SHOWN_BYTES = 1 << 28  # which take half a second
SHOWN_ROWS = 20  # of --where, if not told
MOST_ROWS = 1000  # of one --row: more is not for looking


class TerminatedError(KeyboardInterrupt):
    """SIGTERM has come: unwind as for an interrupt, and leave nothing half-written."""


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM unwind this command; in the main thread alone can it be caught."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:  # noqa: ARG001
        raise TerminatedError

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def command_errors(name: str, extras: str, run: Callable[[], int]) -> int:
    """Run a command; say errors of ours, and missing extras, in one clear line.

    Where nobody reads the output any more, end quietly with `STATUS`.
    """
    status = 0
    try:
        with suppress(AttributeError, OSError, ValueError):  # no file, or a closed one
            # names of files, and values, may have no form in the terminal's encoding
            sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
        status = _said_errors(name, extras, run)
        return status if flush_output() else STATUS
    except BrokenPipeError:
        forget_output()
        return STATUS
    except OSError as error:  # of a disk that is full, to which stdout goes
        forget_output()
        if status == 0:
            say_error(name, error)
        return 1
    except KeyboardInterrupt as error:
        remove_unfinished()
        is_terminated = isinstance(error, TerminatedError)
        say_error(name, "terminated" if is_terminated else "interrupted")
        return 143 if is_terminated else 130


def _uncovered(run: Callable[[], int]) -> int:
    """Run a command; an interrupt that a library has made another error of is one."""
    try:
        return run()
    except Exception as error:
        interrupt = interrupt_of(error)
        if interrupt is None:
            raise
        raise interrupt from None


def _said_errors(name: str, extras: str, run: Callable[[], int]) -> int:
    try:
        return _uncovered(run)
    except DinError as error:
        say_error(name, error)
    except (MemoryError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            raise
        # what none of our errors names: a disk that is full, no file to open left
        say_error(name, str(error) or "not enough memory")
    except RuntimeError as error:
        if error.args != (NO_THREAD,):
            raise
        say_error(name, f"{NO_THREAD}: not enough memory, or too many processes")
    except ModuleNotFoundError as error:
        top = (error.name or "").partition(".")[0]
        if top in ("", "din_infer", "din_converter"):
            raise
        fix = f'Run: pip install "din-infer[{extras}]"'
        print(f"{name}: needs the package {error.name}. {fix}", file=sys.stderr)
    return 1


def say_error(name: str, what: object) -> None:
    """Print on stderr what ended a command, on one line.

    Names of files and values may hold line breaks, and what moves a terminal's cursor.
    """
    print(f"{name}: {one_line(str(what))}", file=sys.stderr)


def notes_of(name: str) -> Callable[[str], None]:
    """Return what prints a command's notes on stderr, each on one line."""
    return lambda note: say_error(name, note)


def positive(text: str) -> int:
    """Read a command-line number of at least 1."""
    return _at_most(MOST_COUNT, text)


def num_threads(text: str) -> int:
    """Read a command-line number of threads."""
    return _at_most(MOST_THREADS, text)


def _at_most(most: int, text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    if value > most:
        raise argparse.ArgumentTypeError(f"must be at most {most}")
    return value


def path(text: str) -> str:
    """Take a path as it was typed; `read_paths` makes a `Path` of it."""
    return text


def read_paths(
    parser: argparse.ArgumentParser, arguments: argparse.Namespace
) -> argparse.Namespace:
    """Make a `Path` of each argument of type `path`; InputError for a URL."""
    for action in parser._actions:
        found = getattr(arguments, action.dest, None)
        if action.type is path and found is not None:
            name = (action.option_strings or [action.dest])[0]
            many = found if isinstance(found, list) else [found]
            made = [local_path(text, name) for text in many]
            setattr(arguments, action.dest, made if many is found else made[0])
    return arguments


class _Parser(argparse.ArgumentParser):
    """A parser whose help may be read by the line: ``--help | head -1``."""

    def _print_message(self, message: str, file: Any = None) -> None:  # noqa: ANN401
        # argparse forgets the error, which Python would meet again at its end
        if message and file is sys.stdout:
            try:
                if not write_output(message):
                    self.exit(STATUS)
            except OSError as error:  # of a disk that is full
                forget_output()
                say_error(self.prog, error)
                self.exit(1)
        else:
            super()._print_message(message, file)


def command_parser(name: str, what: str, examples: str) -> argparse.ArgumentParser:
    """Make a command's parser; its help ends with the examples, as they are."""
    parser = _Parser(
        prog=name,
        description=what,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    said = f"{name} {__version__}"
    parser.add_argument("--version", action="version", version=said)
    return parser


def _add_data_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-root",
        metavar="DIR",
        type=path,
        help="where the model's data file may be, too, if links lead there",
    )


def characters(text: str) -> str:
    r"""Read characters of a command line: as they are, ``tab``, or ``\t``, ``\x01``."""
    if text == "tab":
        return "\t"
    if text == "\\t" or text.startswith("\\x"):
        return text.encode().decode("unicode_escape")
    return text


def add_text_options(parser: argparse.ArgumentParser) -> None:
    """Add what says how inputs are written; `text_options` reads it."""
    parser.add_argument(
        "--format",
        choices=("parquet", "arrow", "csv", "tsv", "jsonl"),
        help="of the inputs, where their names do not tell",
    )
    group = parser.add_argument_group("text", "how CSV and JSON lines are written")
    add = group.add_argument
    add(
        "--list-separator",
        metavar="TEXT",
        type=characters,
        help="between the elements of a list in CSV; exact where it is given (default:"
        " |, and lists in brackets and quotes; what looks like another is refused)",
    )
    add(
        "--delimiter",
        metavar="CHAR",
        type=characters,
        help="between the fields of CSV (default: a comma; of TSV a tab)",
    )
    add("--no-header", action="store_true", help="of CSV, whose --columns are given")
    add(
        "--columns",
        metavar="COL,...",
        default="",
        help="of CSV without a header; of JSON lines, that may be null on every line",
    )
    add(
        "--null-text",
        metavar="TEXT",
        action="append",
        help="of CSV fields without quotes that are null; may be given again (default:"
        " nothing, and \\N)",
    )
    add(
        "--escape",
        metavar="CHAR",
        type=characters,
        help="takes the meaning from the next character of CSV",
    )
    add(
        "--quoted-empty",
        choices=("list", "element"),
        default="list",
        help='what "" is in a column of lists of strings in CSV: an empty list, or one'
        " empty string (default: %(default)s)",
    )


def text_options(arguments: argparse.Namespace) -> "TextOptions":
    """Make of arguments what says how text is written.

    Raises
    ------
    InputError
        If an option has no such value, or two contradict each other.
    """
    from din_infer.jobs.text_options import NULL_TEXTS, TextOptions

    return TextOptions(
        list_separator=arguments.list_separator,
        delimiter=arguments.delimiter,
        header=not arguments.no_header,
        columns=[c for c in arguments.columns.split(",") if c],
        null_texts=arguments.null_text or NULL_TEXTS,
        escape=arguments.escape,
        quoted_empty=arguments.quoted_empty,
    )


def build_parser() -> argparse.ArgumentParser:
    """Build din-score's argument parser."""
    what = "Score files of any size with a converted model."
    parser = command_parser("din-score", what, EXAMPLES)
    add = parser.add_argument
    add("model", metavar="model.onnx", type=path, help="what din-convert wrote")
    add(
        "inputs",
        metavar="INPUT",
        nargs="+",
        type=path,
        help="Parquet, Arrow IPC, CSV or JSON lines: files, folders of them, quoted"
        " patterns; - is stdin",
    )
    add("--out", required=True, type=path, help="folder for the scored files")
    add(
        "--keep",
        metavar="COL,...",
        default="",
        help="columns to copy to the output, before `score`: as they are, of CSV as"
        " text; COL:TYPE casts to string, int64, float64, bool, date or timestamp",
    )
    add(
        "--explode",
        action="store_true",
        help="of requests with lists of candidates: a row for each candidate",
    )
    add(
        "--on-error",
        choices=("fail", "skip", "null"),
        default="fail",
        help="of a row that does not fit: its file has no output, the row is left out,"
        " or its score is null (default: %(default)s)",
    )
    add(
        "--max-bad-rows",
        metavar="N",
        type=int,
        default=MAX_BAD_ROWS,
        help="of one file, that are left out or null; more are an error"
        " (default: %(default)s)",
    )
    add_text_options(parser)
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default: auto)")
    add(
        "--precision",
        default="fp32",
        help="of the attention: fp32, bf16 (AMX, CUDA), tf32x3, tf32 (CUDA)"
        " (default: %(default)s)",
    )
    add(
        "--tables",
        default="device",
        help="host: tables larger than the card stay in the host's memory"
        " (default: %(default)s)",
    )
    add("--verify", action="store_true", help="check every byte of the model first")
    _add_data_root(parser)
    add("--threads", type=num_threads, help="default: all CPUs this process may use")
    add(
        "--batch-size",
        type=positive,
        default=BATCH_ROWS,
        help="rows read and scored at a time; bounds memory (default: %(default)s)",
    )
    again = parser.add_mutually_exclusive_group()
    again.add_argument(
        "--resume",
        action="store_true",
        help="go on with the job in --out, alone or beside others; begin it if there"
        " is none; inputs that failed are taken as they are now",
    )
    again.add_argument(
        "--overwrite",
        action="store_true",
        help="begin anew: replace files that are there already",
    )
    add(
        "--add",
        action="store_true",
        help="with --resume: take up inputs that are new in a folder that grows",
    )
    add("--json", action="store_true", help="print a summary as JSON on stdout")
    add("--quiet", action="store_true", help="no progress bar or lines")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run din-score; returns the exit status."""
    parser = build_parser()
    given = parser.parse_args(argv)
    if given.add and not given.resume:
        parser.error("argument --add: goes with --resume")

    def run() -> int:
        with terminable():  # inside: a signal that comes at once is said, too
            return _score(read_paths(parser, given))

    return command_errors("din-score", "cpu,batch", run)


def _score(arguments: argparse.Namespace) -> int:
    from din_infer.jobs.files import JobError, score_files
    from din_infer.jobs.text_options import NULL_TEXTS
    from din_infer.predictor import Predictor
    from din_infer.session import available_cpus

    threads = arguments.threads or available_cpus()
    predictor = Predictor(
        arguments.model,
        device=arguments.device,
        threads=1,
        precision=arguments.precision,
        tables=arguments.tables,
        verify=arguments.verify,
        data_root=arguments.data_root,
    )
    try:
        summary = score_files(
            predictor,
            arguments.inputs,
            arguments.out,
            keep=[c for c in arguments.keep.split(",") if c],
            explode=arguments.explode,
            on_error=arguments.on_error,
            max_bad_rows=arguments.max_bad_rows,
            batch_size=arguments.batch_size,
            format=arguments.format,
            separator=arguments.list_separator,
            delimiter=arguments.delimiter,
            header=not arguments.no_header,
            columns=[c for c in arguments.columns.split(",") if c],
            null_texts=arguments.null_text or NULL_TEXTS,
            escape=arguments.escape,
            quoted_empty=arguments.quoted_empty,
            workers=threads,
            resume=arguments.resume,
            add=arguments.add,
            overwrite=arguments.overwrite,
            progress=not arguments.quiet,
            on_note=notes_of("din-score"),
        )
    except JobError as error:
        if arguments.json and error.summary is not None:
            print(json.dumps(error.summary.to_dict()))
        raise
    print(json.dumps(summary.to_dict()) if arguments.json else summary)
    return 0


def row_range(text: str) -> range:
    """Read rows as a command line names them: K, or A:B without B."""
    first, colon, last = text.partition(":")
    if not first.isdecimal() or (colon and not last.isdecimal()):
        raise argparse.ArgumentTypeError("must be a row K, or rows A:B")
    start, stop = int(first), int(last) if colon else int(first) + 1
    if not start < stop <= start + MOST_ROWS:
        raise argparse.ArgumentTypeError(f"must be 1 to {MOST_ROWS} rows A:B")
    return range(start, stop)


def column_value(text: str) -> tuple[str, str]:
    """Read COL=VALUE."""
    column, equals, value = text.partition("=")
    if not (column and equals):
        raise argparse.ArgumentTypeError("must be COL=VALUE")
    return column, value


def explain_main(argv: Sequence[str] | None = None) -> int:
    """Run din-explain; returns the exit status."""
    what = "Show the activation weight of every behavior of some rows."
    parser = command_parser("din-explain", what, EXPLAIN_EXAMPLES)
    add = parser.add_argument
    add("model", metavar="model.onnx", type=path, help="from din-convert --explain")
    what = "a file: Parquet, Arrow IPC, CSV or JSON lines"
    add("input", metavar="INPUT", type=path, help=what)
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--row",
        metavar="K",
        action="append",
        type=row_range,
        help="row from 0, or A:B for A to B - 1; may be given again (default: 0)",
    )
    which.add_argument(
        "--where",
        metavar="COL=VALUE",
        action="append",
        type=column_value,
        help="rows in which any column has this value; given again, all must hold",
    )
    add(
        "--limit",
        metavar="N",
        type=positive,
        help=f"of --where: the first N rows (default: {SHOWN_ROWS})",
    )
    add("--out", type=path, help="weights.html, .png or .svg; without it a table")
    _add_data_root(parser)
    add_text_options(parser)
    given = parser.parse_args(argv)
    if given.limit and not given.where:
        parser.error("argument --limit: goes with --where")

    def run() -> int:
        return _explain(read_paths(parser, given))

    return command_errors("din-explain", "cpu,batch,plot", run)


def _explain(arguments: argparse.Namespace) -> int:
    from din_infer.jobs.explain import SUFFIXES, explain_file, find_rows, write
    from din_infer.predictor import Predictor

    if arguments.out:
        check_suffix(arguments.out, SUFFIXES, "--out")
    predictor = Predictor(arguments.model, "cpu", data_root=arguments.data_root)
    written = {"text": text_options(arguments), "format": arguments.format}
    if arguments.where:
        limit = arguments.limit or SHOWN_ROWS
        rows = find_rows(
            arguments.input, arguments.where, limit + 1, predictor.spec, **written
        )
        if len(rows) > limit:
            said = f"din-explain: the first {limit} rows of more; --limit N takes N"
            print(said, file=sys.stderr)
        rows = rows[:limit]
    else:
        rows = [row for some in arguments.row or [range(1)] for row in some]
    explanation = explain_file(predictor, arguments.input, rows, **written)
    if arguments.out:
        write(explanation, arguments.out)
        print(f"wrote {one_line(str(arguments.out))}")
    else:
        print(explanation)
    return 0


def inspect_main(argv: Sequence[str] | None = None) -> int:
    """Run din-inspect; returns the exit status."""
    what = "Measure whether a DIN fits data, before training."
    parser = command_parser("din-inspect", what, INSPECT_EXAMPLES)
    add = parser.add_argument
    add(
        "inputs",
        metavar="DATA",
        nargs="+",
        type=path,
        help="Parquet, Arrow IPC, CSV or JSON lines: files, folders of them, quoted"
        " patterns",
    )
    add("--spec", required=True, type=path, help="feature spec, .toml or .json")
    add("--rows", metavar="N", type=positive, help="only the first N rows")
    add("--plot", metavar="FILE", type=path, help="a picture: .png, .svg or .pdf")
    add_text_options(parser)
    add("--json", action="store_true", help="print the findings as JSON on stdout")
    add("--quiet", action="store_true", help="no progress bar or lines")
    given = parser.parse_args(argv)

    def run() -> int:
        return _inspect(read_paths(parser, given))

    return command_errors("din-inspect", "batch,plot", run)


def _inspect(arguments: argparse.Namespace) -> int:
    from din_infer.jobs.inspect import check_picture, inspect_files, write_picture
    from din_infer.spec import FeatureSpec

    if arguments.plot:
        check_picture(arguments.plot)
    found = inspect_files(
        FeatureSpec.load(arguments.spec),
        arguments.inputs,
        max_rows=arguments.rows,
        text=text_options(arguments),
        format=arguments.format,
        progress=not arguments.quiet,
        on_note=notes_of("din-inspect"),
    )
    if arguments.plot:
        write_picture(found, arguments.plot)
    if arguments.json:
        print(json.dumps(found.to_dict()))
    else:
        print(found)
        if arguments.plot:
            print(f"\nwrote {one_line(str(arguments.plot))}")
    return 0


def verify_main(argv: Sequence[str] | None = None) -> int:
    """Run din-verify; returns the exit status."""
    what = "Compare every byte of a model with what din-convert wrote."
    parser = command_parser("din-verify", what, VERIFY_EXAMPLES)
    add = parser.add_argument
    add("model", metavar="model.onnx", type=path, help="what din-convert wrote")
    _add_data_root(parser)
    add("--json", action="store_true", help="print what was read as JSON on stdout")
    add("--quiet", action="store_true", help="no progress")
    given = parser.parse_args(argv)

    def run() -> int:
        return _verify(read_paths(parser, given))

    return command_errors("din-verify", "batch", run)


def _verify(arguments: argparse.Namespace) -> int:
    from din_infer.model_file import ModelFile

    model = ModelFile.read(arguments.model, data_root=arguments.data_root)
    with _reading(model.num_bytes, arguments.quiet) as progress:
        model.check_all(progress)
    files = {str(path): path.stat().st_size for path in model.files}
    if arguments.json:
        print(json.dumps({"model_id": model.model_id, "files": files}))
        return 0
    for name, size in files.items():
        print(f"{size:>15,} bytes  {one_line(name)}")
    print(f"every byte is as din-convert wrote it; model id {model.model_id}")
    return 0


@contextmanager
def _reading(num_bytes: int, quiet: bool) -> Iterator[Callable[[int], object]]:
    """Show how much has been read, on a terminal, if it takes a while."""
    done = shown = 0

    def progress(step: int) -> None:
        nonlocal done, shown
        done += step
        percent = 100 * done // max(num_bytes, 1)
        if percent > shown:
            shown = percent
            print(f"\r{percent:3d} %", end="", file=sys.stderr, flush=True)

    if quiet or not sys.stderr.isatty() or num_bytes < SHOWN_BYTES:
        yield lambda step: None  # noqa: ARG005
        return
    try:
        yield progress
    finally:
        print("\r     \r", end="", file=sys.stderr, flush=True)
