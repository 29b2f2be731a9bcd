"""The command din-init."""

import argparse
import shlex
from collections.abc import Sequence

from din_infer.cli import (
    command_errors,
    command_parser,
    notes_of,
    path,
    positive,
    read_paths,
)

__all__ = ["init_main"]

EXAMPLES = """\
examples:
  din-init train.parquet
      looks at the table, prints what each column seems to be for and why, and writes
      features.toml, which din-train reads
  din-init clicks.csv --out clicks.toml --label is_click --ignore session_id
      a label that its name does not tell; a column that a model must not see
  din-init logs/ --rows 1000000
      more of the rows than the first 200,000

The whole way:
  din-init train.parquet
  din-inspect train.parquet --spec features.toml
  din-train train.parquet --spec features.toml
  din-convert model.pt

Rows are candidates that were shown, with a label of 0 or 1 and lists of what the user
did before. Of raw events, din-history makes such rows. A file that exists is never
overwritten. Exit status: 0 written, 1 an error (said on stderr), 2 wrong usage.
"""
ROLES = {
    "label": "the column of labels, 0 or 1",
    "user": "the column of users, for GAUC",
    "time": "the column of times, by which the newest rows validate",
    "weight": "the column of row weights",
}


def init_main(argv: Sequence[str] | None = None) -> int:
    """Run din-init; returns the exit status."""
    what = "Write the first feature spec of a table, by looking at it."
    parser = command_parser("din-init", what, EXAMPLES)
    add = parser.add_argument
    what = "Parquet, Arrow, CSV, TSV or JSON lines: files, or folders of them"
    add("inputs", metavar="LOG", nargs="+", type=path, help=what)
    what = "the spec to write (default: %(default)s)"
    add("--out", metavar="FILE.toml", type=path, default="features.toml", help=what)
    what = "look at the first N rows (default: %(default)s)"
    add("--rows", metavar="N", type=positive, default=200_000, help=what)
    for role, what in ROLES.items():
        add(f"--{role}", metavar="COLUMN", help=what)
    what = "leave a column out; may be given again"
    add("--ignore", metavar="COLUMN", action="append", default=[], help=what)
    given = parser.parse_args(argv)

    def run() -> int:
        return _init(read_paths(parser, given))

    return command_errors("din-init", "batch", run)


def _init(arguments: argparse.Namespace) -> int:
    from din_infer.jobs.init.first_spec import check_new, first_spec

    check_new(arguments.out)
    names = {"group" if r == "user" else r: getattr(arguments, r) for r in ROLES}
    found = first_spec(
        arguments.inputs,
        rows=arguments.rows,
        columns={role: name for role, name in names.items() if name},
        ignored=arguments.ignore,
        on_note=notes_of("din-init"),
    )
    found.write(arguments.out)
    data = " ".join(map(str, arguments.inputs))
    which = "all" if found.whole else "the first"
    print(f"looked at {which} {found.rows:,} rows of {data}\n")
    print(found.reasons)
    print(f"\nwrote {arguments.out}: read it, and change what is wrong. Then:")
    words = shlex.join([*map(str, arguments.inputs), "--spec", str(arguments.out)])
    print(f"  din-inspect {words}")
    print(f"  din-train {words}{'' if found.has_time else ' --valid-fraction 0'}")
    if not found.has_time:
        print("No column tells times, so no rows are held out: --valid FILE judges.")
    return 0
