"""Explain rows of a Parquet file: only the row groups that hold them are read."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path, PurePath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from din_infer.errors import InputError, check_suffix
from din_infer.explain import Explanation
from din_infer.jobs import BATCH_ROWS
from din_infer.jobs.data_files import one_file
from din_infer.jobs.readers import ParquetReader
from din_infer.jobs.sources import Source, found_in, open_parquet
from din_infer.local_path import local_path
from din_infer.predictor import Predictor
from din_infer.whole_file import WholeFile, writing

__all__ = ["SUFFIXES", "explain_file", "find_rows", "write"]

SUFFIXES = (".html", ".png", ".svg")


def find_rows(
    source: str | Path, where: Sequence[tuple[str, str]], limit: int
) -> list[int]:
    """Find the first `limit` rows in which columns have values.

    Parameters
    ----------
    source : path
        A Parquet file.
    where : sequence of (column, value)
        All must hold; a value is text, read as its column's type.
    limit : int

    Returns
    -------
    list of int
        Row numbers, rising.

    Raises
    ------
    InputError
        If the file, a column or a value cannot be read, or no row is so.
    """
    source = one_file(source)
    columns = [name for name, _ in where]
    found: list[int] = []
    open_parquet(source, columns).close()
    start = 0
    for batch in _batches(source, list(dict.fromkeys(columns))):
        holds = np.ones(batch.num_rows, dtype=bool)
        for name, value in where:
            holds &= _equals(batch[name], name, value)
        found += (start + np.flatnonzero(holds)).tolist()
        start += batch.num_rows
        if len(found) >= limit:
            break
    if not found:
        rule = "a row where " + " and ".join(f"{name}={value}" for name, value in where)
        raise InputError(rule, "none", str(source))
    return found[:limit]


def _batches(
    source: Path, columns: list[str], groups: Sequence[int] | None = None
) -> Iterator[pa.RecordBatch]:
    """Read batches of bounded size, of some row groups alone if given."""
    file = Source(source, "parquet", PurePath(source.name))
    with closing(ParquetReader(file)) as reader:
        yield from reader.batches(columns, BATCH_ROWS, groups)


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
    predictor: Predictor, source: str | Path, rows: Sequence[int]
) -> Explanation:
    """Explain rows of a Parquet file, numbered as they stand there.

    Parameters
    ----------
    predictor : Predictor
        Of a model converted with ``--explain``.
    source : path
        A Parquet file.
    rows : sequence of int
        Row numbers from 0.

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
    source = one_file(source)
    spec = predictor.spec
    with open_parquet(source, spec.columns, spec.optional_columns) as file:
        columns = found_in(file, spec.columns, spec.optional_columns)
        num_rows = file.metadata.num_rows
        for row in rows:
            if not 0 <= row < num_rows:
                raise InputError(f"a row in [0, {num_rows}) of {source}", row, "--row")
        # of the file's order, as its batches are
        schema = pa.schema([f for f in file.schema_arrow if f.name in columns])
        metadata = file.metadata
        sizes = [metadata.row_group(k).num_rows for k in range(file.num_row_groups)]
    found = dict(_rows(source, columns, sizes, set(rows)))
    table = pa.Table.from_batches([found[row] for row in rows], schema)
    try:
        explanation = predictor.explain(table)
    except InputError as error:
        at = None if error.row is None else rows[error.row]
        raise error.at(row=at, source=str(source)) from None
    pairs = zip(explanation, rows, strict=True)
    numbered = tuple(replace(row, number=number) for row, number in pairs)
    return Explanation(numbered, explanation.model_id)


def _rows(
    source: Path, columns: list[str], sizes: Sequence[int], rows: set[int]
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Read rows, each as a batch: of the row groups alone that hold some."""
    start = 0
    for group, size in enumerate(sizes):
        mine = {row for row in rows if start <= row < start + size}
        at = start
        for batch in _batches(source, columns, [group]) if mine else ():
            stop = at + batch.num_rows
            for row in [row for row in mine if at <= row < stop]:
                yield row, batch.slice(row - at, 1)
            at = stop
        start += size


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
