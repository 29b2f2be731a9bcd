"""The command din-history."""

import argparse
import json
import shlex
from collections.abc import Sequence
from pathlib import PurePath

from din_infer.cli import (
    command_errors,
    command_parser,
    notes_of,
    path,
    positive,
    read_paths,
    terminable,
)

__all__ = ["main"]

EXAMPLES = """\
examples:
  din-history events.csv --out train.parquet
      a log of user, item and time: every event is a behavior and a positive, with one
      negative drawn for it; columns are found by their names, or named:
  din-history logs/ --out rows/ --user member --item sku --time at \\
          --item-columns category,price --split time
      the newest tenth is rows/valid.parquet, the rest rows/train.parquet
  din-history events.parquet --out rows/ --action event --positives buy \\
          --behaviors view,cart,buy --negatives 4 --split time --test-fraction 0.1
      histories of all three actions; what is to be predicted is a purchase
  din-history feed.jsonl --out rows/ --action event --impressions shown \\
          --positives click --session request_id --window 90d --gap 1m --split time
      labels of the log itself: shown and clicked, or not; nothing is drawn
  din-history impressions.parquet --out train.parquet --label clicked
      a log of impressions with a column of 0 and 1
  din-history reviews.tsv --out rows/ --split leave-last-out --min-history 1
      the protocol of papers on Amazon reviews

A history has what the user did strictly before the row's time, oldest first: nothing of
the same moment, nor what --gap, --window and --session leave out. In hist_ITEM, and a
hist_COLUMN for each item column, position t is the same behavior. Without a behavior
the lists are empty. A negative is an item that the user has in no event of the log; its
item columns are those of the item's last event before the row.

The rows depend on the events and the options alone: no order of files, rows or threads
changes a byte. Events may be more than memory holds; a hidden folder beside --out takes
them meanwhile. Next: din-inspect and din-train with a spec of these columns.

Exit status: 0 written, 1 an error (said on stderr; nothing is written), 2 wrong usage,
130 or 143 interrupted or terminated.
"""


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def build_parser() -> argparse.ArgumentParser:
    """Build din-history's argument parser."""
    what = "Make labeled rows with histories of the raw events of a log."
    parser = command_parser("din-history", what, EXAMPLES)
    add = parser.add_argument
    add(
        "inputs",
        metavar="EVENTS",
        nargs="+",
        type=path,
        help="Parquet, Arrow IPC, CSV, TSV or JSON lines: files, folders of them,"
        " quoted patterns",
    )
    add(
        "--out",
        required=True,
        type=path,
        help="a .parquet file; with --split a folder for train.parquet and the others",
    )
    _add_columns(parser)
    _add_actions(parser)
    _add_histories(parser)
    _add_negatives(parser)
    add(
        "--on-error",
        choices=("fail", "skip"),
        default="fail",
        help="of events without a user, an item or a time: an error, or left out and"
        " counted (default: %(default)s)",
    )
    add(
        "--memory",
        metavar="SIZE",
        default="1500MB",
        help="of DuckDB; rows take some hundred MB more (default: %(default)s)",
    )
    add("--threads", type=positive, help="default: all CPUs this process may use")
    add("--overwrite", action="store_true", help="replace files that are there already")
    add("--json", action="store_true", help="print a summary as JSON on stdout")
    add("--quiet", action="store_true", help="no progress bar or lines")
    return parser


def _add_columns(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group(
        "columns",
        "guessed by common names where they are not given; none: there is none",
    ).add_argument
    add("--user", metavar="COL", help="who")
    add("--item", metavar="COL", help="on which item")
    add(
        "--time",
        metavar="COL",
        help="when: integers, numbers, dates, timestamps, ISO 8601 text",
    )
    add("--action", metavar="COL", help="what was done, as --positives names it")
    add("--label", metavar="COL", help="0 or 1: whether an impression was clicked")
    add(
        "--session",
        metavar="COL",
        help="a session or request: what is of the row's own is not in its history",
    )
    add(
        "--item-columns",
        metavar="COL,...",
        type=_names,
        help="that describe the item: of the candidate, and in histories (default: by"
        " names, and those of one value per item; those of one per user are kept)",
    )
    add(
        "--keep",
        metavar="COL,...",
        type=_names,
        default=[],
        help="to copy from the row's event; its negatives have the same",
    )
    add(
        "--time-unit",
        choices=("s", "ms", "us", "ns"),
        help="of times that are numbers (default: by their size)",
    )


def _add_actions(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group(
        "actions",
        "without an action or a label, every event is a behavior and a positive",
    ).add_argument
    add(
        "--behaviors",
        metavar="ACTION,...",
        type=_names,
        help="that histories have (default: the positives)",
    )
    add(
        "--positives",
        metavar="ACTION,...",
        type=_names,
        help="to predict, as rows of label 1",
    )
    add(
        "--impressions",
        metavar="ACTION,...",
        type=_names,
        help="that showed the item: rows of label 1 if a positive of the user on the"
        " item (and in the --session) follows before the next impression of it, else of"
        " label 0",
    )
    add(
        "--click-within",
        metavar="TIME",
        help="after an impression, for a positive to be its (default: any time)",
    )


def _add_histories(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group(
        "histories",
        "times are such as 90d, 12h, 5m, 30s, or a number of the column's unit",
    ).add_argument
    add(
        "--max-len",
        metavar="N",
        type=positive,
        default=50,
        help="the newest behaviors that are kept (default: %(default)s)",
    )
    add("--window", metavar="TIME", help="only behaviors that are not older")
    add(
        "--gap",
        metavar="TIME",
        default="0",
        help="only behaviors that are older: as late as they reach serving",
    )
    add(
        "--min-history",
        metavar="N",
        type=int,
        default=0,
        help="leave out rows with fewer behaviors (default: %(default)s)",
    )
    add(
        "--split",
        choices=("time", "leave-last-out"),
        help="the newest rows are valid and test; or of each user the last moment with"
        " a positive is test, the one before valid (default: one table)",
    )
    add(
        "--valid-fraction",
        metavar="SHARE",
        type=float,
        default=0.1,
        help="of a split by time (default: %(default)s)",
    )
    add(
        "--test-fraction",
        metavar="SHARE",
        type=float,
        default=0.0,
        help="of a split by time, the newest (default: none)",
    )


def _add_negatives(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group(
        "negatives", "items that the user has in no event of the log"
    ).add_argument
    add(
        "--negatives",
        metavar="N",
        type=int,
        help="drawn for each positive (default: 1; 0 where the log has impressions)",
    )
    add(
        "--negatives-by",
        choices=("uniform", "seen", "popularity"),
        default="uniform",
        help="all items of the log alike; those alike that have an event before the"
        " row; or by the positives that items had before the row"
        " (default: %(default)s)",
    )
    add("--seed", metavar="N", type=int, default=0, help="default: %(default)s")


def main(argv: Sequence[str] | None = None) -> int:
    """Run din-history; returns the exit status."""
    parser = build_parser()
    given = parser.parse_args(argv)

    def run() -> int:
        return _history(read_paths(parser, given))

    with terminable():
        return command_errors("din-history", "history", run)


def _history(arguments: argparse.Namespace) -> int:
    from din_infer.jobs.history import build

    options = vars(arguments).copy()
    inputs, out = options.pop("inputs"), options.pop("out")
    as_json, quiet = options.pop("json"), options.pop("quiet")
    summary = build(
        inputs, out, **options, progress=not quiet, on_note=notes_of("din-history")
    )
    if as_json:
        print(json.dumps(summary.to_dict()))
        return 0
    print(summary)
    files = list(summary.files)
    roles = [w for role, name in summary.roles.items() for w in (f"--{role}", name)]
    train = ["din-train", files[0], "--spec", "features.toml"]
    for valid in (f for f in files[1:] if PurePath(f).stem == "valid"):
        train += ["--valid", valid]
    print("next:", shlex.join(["din-init", files[0], *roles]))
    print("     ", shlex.join(train))
    return 0
