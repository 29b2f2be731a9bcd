"""The first rows of a table, as Arrow columns; of CSV, each field as it is written."""

import io
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.csv
import pyarrow.json

from din_infer.errors import InputError
from din_infer.jobs.data_files import Note, ignore
from din_infer.jobs.reader import unreadable
from din_infer.jobs.reader_path import columns_of_path, value_of_path
from din_infer.jobs.reader_text import COMPRESSIONS
from din_infer.jobs.readers import ArrowReader, ParquetReader
from din_infer.jobs.sources import Source, find_tables

__all__ = ["Sample", "read_sample"]

BLOCK_BYTES = 1 << 20
BATCH_ROWS = 8192
# Of text that is looked at: 200,000 rows of 300 bytes.
TEXT_BYTES = 64 << 20


class Sample(NamedTuple):
    """The first rows of a table, and whether these are `all`.

    Columns that are `loose` are text of CSV, which is read as the spec says.
    """

    table: pa.Table
    all: bool
    loose: frozenset[str]


def read_sample(
    inputs: Sequence[str | Path], rows: int, on_note: Note = ignore
) -> Sample:
    """Read the first rows of files.

    Parameters
    ----------
    inputs : sequence of path
        Files, folders and patterns, as every command takes them.
    rows : int
        Rows at the most.
    on_note : callable
        Called with a sentence about files that are not read.

    Raises
    ------
    InputError
        If there is no file, one cannot be read, or files differ in their columns.
    """
    sources = find_tables(inputs, on_note=on_note)
    parts: list[pa.Table] = []
    left = rows
    loose: set[str] | None = None
    for source in sources:
        some = _read_some(source, left)
        csv = set(some.column_names) if source.format in ("csv", "tsv") else set()
        loose = csv if loose is None else loose & csv
        table = _with_path(some, source)
        if parts and set(table.column_names) != set(parts[0].column_names):
            rule = f"the columns of {sources[0]}"
            got = ", ".join(table.column_names)
            raise InputError(rule, got, str(source))
        parts.append(table.select(parts[0].column_names) if parts else table)
        left -= table.num_rows
        if left <= 0:
            break
    try:
        whole = pa.concat_tables(parts, promote_options="permissive")
    except pa.ArrowException as error:
        rule = "columns of one type in all files"
        raise InputError(rule, str(error).splitlines()[0], "inputs") from None
    return Sample(whole.slice(0, rows), left > 0, frozenset(loose or ()))


def _read_some(source: Source, rows: int) -> pa.Table:
    try:
        if source.format in ("parquet", "arrow"):
            return _read_typed(source, rows)
        text = _first_lines(source)
        if source.format == "jsonl":
            return pa.json.read_json(io.BytesIO(text)).slice(0, rows)
        return _read_csv(text, "\t" if source.format == "tsv" else ",").slice(0, rows)
    except (OSError, EOFError, UnicodeError, pa.ArrowException) as error:
        raise unreadable(source, error) from None


def _with_path(table: pa.Table, source: Source) -> pa.Table:
    """Add the columns of folders such as ``day=1``."""
    for name, written in columns_of_path(source.path).items():
        if name in table.column_names:
            continue
        with suppress(InputError):  # one that cannot be read is not offered
            value = value_of_path(name, written, str(source))
            column = pa.repeat(pa.scalar(value, pa.string()), table.num_rows)
            table = table.append_column(name, column)
    return table


def _read_typed(source: Source, rows: int) -> pa.Table:
    if source.format == "parquet":
        reader: ParquetReader | ArrowReader = ParquetReader(source)
    else:
        reader = ArrowReader(source, source.open())
    try:
        batches, count = [], 0
        for batch in reader.batches(reader.schema.names, BATCH_ROWS):
            batches.append(batch)
            count += batch.num_rows
            if count >= rows:
                break
        return pa.Table.from_batches(batches, reader.schema).slice(0, rows)
    finally:
        reader.close()


def _first_lines(source: Source) -> bytes:
    """Read whole lines, decompressed where the name says so."""
    suffix = "" if source.path is None else source.path.suffix.lower()
    with source.open() as raw:
        stream = raw
        if suffix in COMPRESSIONS:
            file = pa.PythonFile(raw)
            stream = pa.CompressedInputStream(file, COMPRESSIONS[suffix])
        parts: list[bytes] = []
        size = 0
        while size < TEXT_BYTES and (block := stream.read(BLOCK_BYTES)):
            if not parts and b"\0" in block[:4]:
                got = "NUL bytes, as of UTF-16"
                raise InputError("text in UTF-8", got, str(source))
            parts.append(block)
            size += len(block)
    text = b"".join(parts)
    return text if size < TEXT_BYTES else text[: text.rfind(b"\n") + 1]


def _read_csv(text: bytes, delimiter: str) -> pa.Table:
    parse = pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    read = pa.csv.ReadOptions(block_size=max(1, len(text)))
    text = text.lstrip(b"\r\n")
    end = text.find(b"\n") + 1
    while end and text.count(b'"', 0, end) % 2:  # a name may have a line break
        end = text.find(b"\n", end) + 1
    first = text[:end] or text
    names = pa.csv.read_csv(io.BytesIO(first), parse_options=parse).column_names
    convert = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        null_values=["", "\\N"],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    return pa.csv.read_csv(io.BytesIO(text), read, parse, convert)
