"""Look at a table and write the first feature spec of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from din_infer.errors import InputError, check_count
from din_infer.jobs.data_files import Note, ignore
from din_infer.jobs.init.columns import read_columns
from din_infer.jobs.init.guess import guess
from din_infer.jobs.init.sample import read_sample
from din_infer.jobs.init.write import explain, toml
from din_infer.local_path import local_path
from din_infer.whole_file import write_whole

__all__ = ["FirstSpec", "check_new", "first_spec"]

ROWS = 200_000


@dataclass(frozen=True)
class FirstSpec:
    """What `first_spec` guessed.

    Attributes
    ----------
    toml : str
        The feature spec, with comments.
    reasons : str
        A table: column, what it is for, why.
    rows : int
        Rows that were looked at.
    whole : bool
        Whether these are all.
    has_time: bool
        Whether the spec has a time, by which din-train holds out rows.
    """

    toml: str
    reasons: str
    rows: int
    whole: bool
    has_time: bool

    def write(self, path: str | Path) -> None:
        """Write the spec to a new file; InputError if there is one."""
        path = local_path(path, "out")
        check_new(path)
        write_whole(path, self.toml)


def check_new(path: Path) -> None:
    """Refuse a path at which there is something; InputError."""
    if path.exists() or path.is_symlink():
        rule, fix = "a new file", "Name another one by --out, or remove it."
        raise InputError(rule, "one that exists", str(path), fix)


def first_spec(
    inputs: Sequence[str | Path] | str | Path,
    *,
    rows: int = ROWS,
    columns: Mapping[str, str] | None = None,
    ignored: Sequence[str] = (),
    on_note: Note = ignore,
) -> FirstSpec:
    """Guess the feature spec of a table of labeled rows.

    Parameters
    ----------
    inputs : path, or sequence of path
        Files, folders or patterns: Parquet, Arrow, CSV, TSV or JSON lines.
    rows : int
        Rows to look at, from the first on.
    columns : mapping, optional
        Columns by what they are for: "label", "group", "time", "weight".
    ignored : sequence of str
        Columns to leave out.
    on_note : callable
        Called with a sentence about files that are not read.

    Returns
    -------
    FirstSpec

    Raises
    ------
    InputError
        If the files cannot be read, or have no label or no history.

    Notes
    -----
    Memory holds the rows that are looked at. The same rows give the same spec.
    """
    if isinstance(inputs, str | Path):
        inputs = [inputs]
    check_count(rows, "rows")
    table, whole, loose = read_sample(inputs, rows, on_note)
    if table.num_rows == 0:
        raise InputError("at least one row", 0, "inputs")
    missing = [name for name in ignored if name not in table.column_names]
    if missing:
        raise InputError("columns of the data", ", ".join(missing), "--ignore")
    found = read_columns(table.drop_columns(list(ignored)), loose)
    made = guess(found, columns or {})
    source = str(inputs[0]) + (" and others" if len(inputs) > 1 else "")
    text = toml(made, source, table.num_rows, whole)
    has_time = bool(made.named("time"))
    return FirstSpec(text, explain(made), table.num_rows, whole, has_time)
