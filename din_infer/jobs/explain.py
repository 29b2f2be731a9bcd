"""Explain rows of a file; of Parquet and Arrow, only groups that hold them are read."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from din_infer.errors import InputError, check_suffix
from din_infer.explain import Explanation
from din_infer.jobs import BATCH_ROWS
from din_infer.jobs.reader import Reader
from din_infer.jobs.readers import find_columns, open_reader
from din_infer.jobs.sources import find_table
from din_infer.jobs.text_options import TextOptions
from din_infer.local_path import local_path
from din_infer.predictor import Predictor
from din_infer.spec import FeatureSpec
from din_infer.whole_file import WholeFile, writing

__all__ = ["SUFFIXES", "explain_file", "find_rows", "write"]

SUFFIXES = (".html", ".png", ".svg")


def find_rows(
    source: str | Path,
    where: Sequence[tuple[str, str]],
    limit: int,
    spec: FeatureSpec | None = None,
    *,
    text: TextOptions | None = None,
    format: str | None = None,
) -> list[int]:
    """Find the first `limit` rows in which columns have values.

    Parameters
    ----------
    source : path
        A file of any format that `din-score` reads.
    where : sequence of (column, value)
        All must hold; a value is text, read as its column's type.
    limit : int
    spec : FeatureSpec, optional
        Says what the text of CSV and JSON lines means, which need it.
    text : TextOptions, optional
        Say how it is written.
    format : str, optional
        As of `find_sources`.

    Returns
    -------
    list of int
        Row numbers, rising.

    Raises
    ------
    InputError
        If the file, a column or a value cannot be read, or no row is so.
    """
    table = find_table(source, format, text)
    columns = [name for name, _ in where]
    found: list[int] = []
    start = 0
    with closing(open_reader(table, spec, text, also=columns)) as reader:
        for batch in reader.prepared(find_columns(reader, columns), BATCH_ROWS):
            holds = np.ones(batch.num_rows, dtype=bool)
            for name, value in where:
                holds &= _equals(batch[name], name, value)
            found += (start + np.flatnonzero(holds)).tolist()
            start += batch.num_rows
            if len(found) >= limit:
                break
    if not found:
        rule = "a row where " + " and ".join(f"{name}={value}" for name, value in where)
        raise InputError(rule, "none", str(table))
    return found[:limit]


def _equals(column: pa.Array, name: str, value: str) -> np.ndarray:
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_string_view(kind):  # which pyarrow does not compare
        kind = pa.large_string()
    try:
        wanted = pa.scalar(value).cast(kind)
        same = pc.fill_null(pc.equal(column.cast(kind), wanted), False)
    except pa.ArrowException:
        rule = f"a value that reads as {kind}"
        raise InputError(rule, repr(value), f"--where {name}") from None
    return np.asarray(same, dtype=bool)


def explain_file(
    predictor: Predictor,
    source: str | Path,
    rows: Sequence[int],
    *,
    text: TextOptions | None = None,
    format: str | None = None,
) -> Explanation:
    """Explain rows of a file, numbered as they stand there.

    Parameters
    ----------
    predictor : Predictor
        Of a model converted with ``--explain``.
    source : path
        A file of any format that `din-score` reads.
    rows : sequence of int
        Row numbers from 0.
    text : TextOptions, optional
        How text is written.
    format : str, optional
        As of `find_sources`.

    Returns
    -------
    Explanation
        In the order of `rows`.

    Raises
    ------
    ModelError
        If the model was converted without ``--explain``.
    InputError
        If the file cannot be read, has no such row, or a row does not fit the spec.
    """
    table = find_table(source, format, text)
    spec = predictor.spec
    with closing(open_reader(table, spec, text)) as reader:
        columns = find_columns(reader, spec.columns, spec.optional_columns)
        found, num_rows = _rows(reader, columns, rows)
    for row in rows:
        if not 0 <= row < num_rows:
            raise InputError(f"a row in [0, {num_rows}) of {table}", row, "--row")
    some = pa.Table.from_batches([found[row] for row in rows])
    try:
        explanation = predictor.explain(some)
    except InputError as error:
        at = None if error.row is None else rows[error.row]
        raise error.at(row=at, source=str(table)) from None
    pairs = zip(explanation, rows, strict=True)
    numbered = tuple(replace(row, number=number) for row, number in pairs)
    return Explanation(numbered, explanation.model_id)


def _rows(
    reader: Reader, columns: list[str], rows: Sequence[int]
) -> tuple[dict[int, pa.RecordBatch], int]:
    """Read rows, each as a batch, of the groups alone that hold some.

    Returns them, and how many rows there are: of a table without groups that is known
    only where a row is behind its end.
    """
    found: dict[int, pa.RecordBatch] = {}
    sizes = reader.group_rows()
    start = 0
    for group, size in enumerate(sizes or ()):
        if any(start <= row < start + size for row in rows):
            found |= _of_batches(reader, columns, rows, start, [group])[0]
        start += size
    if sizes is not None:
        return found, start
    return _of_batches(reader, columns, rows, 0, None)


def _of_batches(
    reader: Reader,
    columns: list[str],
    rows: Sequence[int],
    start: int,
    groups: list[int] | None,
) -> tuple[dict[int, pa.RecordBatch], int]:
    """Read rows of batches of which the first begins with row `start`."""
    found: dict[int, pa.RecordBatch] = {}
    for batch in reader.prepared(columns, BATCH_ROWS, groups, start):
        stop = start + batch.num_rows
        mine = {row for row in rows if start <= row < stop}
        found |= {row: batch.slice(row - start, 1) for row in mine}
        start = stop
        if groups is None and max(rows, default=-1) < stop:
            break
    return found, start


def write(explanation: Explanation, out: str | Path) -> None:
    """Write a page or a picture, as the suffix says: whole or not at all.

    Raises
    ------
    InputError
        If the suffix is none of `SUFFIXES`, or the place cannot be written.
    ModuleNotFoundError
        If a picture is asked for without matplotlib.
    """
    out = local_path(out, "--out")
    check_suffix(out, SUFFIXES, "--out")
    with writing("the explanation", out), WholeFile(out) as file:
        if out.suffix == ".html":
            file.write(explanation.to_html().encode())
        else:
            explanation.plot().savefig(file, format=out.suffix[1:], dpi=150)
