"""Read a table as a stream of batches: Parquet, Arrow IPC, CSV, JSON lines.

Memory is bounded by a batch, not by a file, its row groups or its blocks. Text is cut
into lines here and parsed by `prepare`, which may run in another thread: there a bad
line is found as any bad row is.
"""

import codecs
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json

from din_infer.errors import InputError, explain
from din_infer.jobs.sources import Source, read_footer
from din_infer.spec import FeatureSpec

__all__ = ["Reader", "open_reader"]

# Of one batch, as it is read: what memory is bounded by.
BATCH_BYTES = 1 << 23
# Bytes that one encoded in a Parquet file may become: dictionaries repeat values.
GROWTH = 4
PAGE_BYTES = 1 << 18
BLOCK_BYTES = 1 << 20
LINE = "line"
SOME_LINES = 1000  # which tell the types of columns that the spec does not name
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}


class Reader:
    """One table, open to be read once.

    Attributes
    ----------
    schema : pyarrow.Schema
        Of the table, once `prepare` has made it of a batch.
    num_rows : int or None
        None where only reading tells.
    """

    schema: pa.Schema
    num_rows: int | None = None

    def batches(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Read batches of `rows` rows, or fewer where they are large.

        Where batches are cut depends on the file, `columns` and `rows` alone.

        Raises
        ------
        InputError
            If the table cannot be read to its end.
        """
        raise NotImplementedError

    def prepare(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Make of a batch, or a slice of it, one with the columns; here, itself.

        Raises
        ------
        InputError
            Naming the row, if a line cannot be parsed.
        """
        return batch

    def fraction(self) -> float | None:
        """Tell how much of the table has been read, 0 to 1; None if unknown."""
        return None

    def close(self) -> None:
        """Close the file."""


def open_reader(source: Source, spec: FeatureSpec, separator: str = "|") -> Reader:
    """Open a source.

    Parameters
    ----------
    source : Source
    spec : FeatureSpec
        Says what the text of CSV and JSON lines means.
    separator : str
        Between the elements of a list, in CSV.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    try:
        if source.format == "parquet":
            return _Parquet(source)
        if source.format == "arrow":
            return _Arrow(source)
        if source.format == "jsonl":
            return _JsonLines(source, spec)
        return _Csv(source, spec, separator)
    except (OSError, EOFError, pa.ArrowException) as error:
        raise _unreadable(source, error) from None


def _unreadable(source: Source, error: Exception) -> InputError:
    names = {"parquet": "Parquet", "arrow": "Arrow IPC", "jsonl": "JSON lines"}
    name = names.get(source.format, source.format.upper())
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    rule = f"a {name} file that can be read to its end"
    return InputError(explain(rule, reason, str(source)))


def _cut(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """Join and cut batches: `rows` each, fewer where those have many bytes."""
    waiting: list[pa.RecordBatch] = []
    count = size = 0
    for batch in batches:
        whole = batch.nbytes
        most = rows
        if whole > BATCH_BYTES:
            most = max(1, min(rows, batch.num_rows * BATCH_BYTES // whole))
        start = 0
        while start < batch.num_rows:
            part = batch.slice(start, min(most, rows - count))
            start += part.num_rows
            waiting.append(part)
            count += part.num_rows
            size += part.nbytes
            if count >= rows or size >= BATCH_BYTES:
                yield _join(waiting)
                waiting, count, size = [], 0, 0
    if waiting:
        yield _join(waiting)


def _join(parts: list[pa.RecordBatch]) -> pa.RecordBatch:
    if len(parts) == 1:
        return parts[0]
    return pa.Table.from_batches(parts).combine_chunks().to_batches()[0]


class _Parquet(Reader):
    """Row groups of any size are read by the page, with a buffer for each column."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._file = read_footer(str(source), PAGE_BYTES)
        self.schema = self._file.schema_arrow
        self.num_rows = self._file.metadata.num_rows

    def batches(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        try:
            yield from _cut(self._groups(list(columns), rows), rows)
        except (OSError, pa.ArrowException) as error:
            raise _unreadable(self._source, error) from None

    def _groups(self, columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
        metadata = self._file.metadata
        for group in range(metadata.num_row_groups):
            about = metadata.row_group(group)
            if about.num_rows == 0:
                continue
            size = sum(
                about.column(i).total_uncompressed_size
                for i in range(about.num_columns)
                if about.column(i).path_in_schema.split(".")[0] in columns
            )
            fitting = BATCH_BYTES * about.num_rows // max(1, GROWTH * size)
            yield from self._file.iter_batches(
                batch_size=max(1, min(rows, fitting)),
                row_groups=[group],
                columns=columns,
                use_threads=False,
            )

    def close(self) -> None:
        self._file.close()


class _Arrow(Reader):
    """A file or a stream of Arrow IPC; memory holds one of its batches."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._file = source.open()
        start = b"" if source.path is None else self._file.read(6)
        if start == b"ARROW1":
            self._file.seek(0)
            self._reader = pa.ipc.open_file(self._file)
        else:
            if source.path is not None:
                self._file.seek(0)
            self._reader = pa.ipc.open_stream(self._file)
        self.schema = self._reader.schema

    def batches(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        try:
            for batch in _cut(self._all(columns), rows):
                batch.validate(full=True)  # its offsets may be anything
                yield batch
        except (OSError, EOFError, pa.ArrowException) as error:
            raise _unreadable(self._source, error) from None

    def _all(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        if hasattr(self._reader, "num_record_batches"):
            for i in range(self._reader.num_record_batches):
                yield self._reader.get_batch(i).select(list(columns))
        else:
            for batch in self._reader:
                yield batch.select(list(columns))

    def close(self) -> None:
        self._file.close()


class _Text(Reader):
    """Lines of text: batches hold them as they are, `prepare` parses."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._raw = source.open()
        self._size = 0 if source.path is None else source.path.stat().st_size
        self._read_bytes = 0
        self._columns: list[str] = []
        self._lists = self._lines()
        self._head = next(self._lists, [])

    def _blocks(self) -> Iterator[bytes]:
        """Read blocks, decompressed where the file's name says so."""
        suffix = "" if self._source.path is None else self._source.path.suffix
        stream: Any = self._raw
        if suffix in COMPRESSIONS:
            kind = COMPRESSIONS[suffix]
            stream = pa.CompressedInputStream(pa.PythonFile(self._raw), kind)
        while block := stream.read(BLOCK_BYTES):
            with suppress(OSError):  # a pipe has no position
                self._read_bytes = self._raw.tell()
            yield block

    def _lines(self) -> Iterator[list[bytes]]:
        """Cut blocks into lines; blank ones are none."""
        rest: list[bytes] = []
        for block in self._blocks():
            rest.append(block)
            if b"\n" in block:
                *whole, last = b"".join(rest).split(b"\n")
                rest = [last]
                yield [line for line in whole if line.strip()]
        yield [line for line in (b"".join(rest),) if line.strip()]

    def batches(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        self._columns = list(columns)
        lists = chain([self._head], self._lists)
        try:
            yield from _cut((_batch_of(lines) for lines in lists), rows)
        except (OSError, EOFError, pa.ArrowException) as error:
            raise _unreadable(self._source, error) from None

    def prepare(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        lines = batch.column(0).to_pylist()
        try:
            return self._parse(lines)
        except pa.ArrowException:
            raise self._name_line(lines) from None

    def _name_line(self, lines: list[bytes]) -> InputError:
        """Find the first line that cannot be parsed, by halves."""
        start, stop = 0, len(lines)
        reason = "lines that do not go together"
        while stop - start > 0:
            middle = start + (stop - start) // 2
            first, last = (start, middle) if middle > start else (start, stop)
            try:
                self._parse(lines[first:last])
            except pa.ArrowException as error:
                reason, stop = str(error).splitlines()[0], last
                if last - first == 1:
                    break
            else:
                start = last
        rule = f"a row of {self._source.format}"
        return InputError(explain(rule, reason, LINE, within=f"row {start}"))

    def _sound(self, read: Callable[[list[bytes]], pa.Table]) -> list[bytes]:
        """Take the first lines that can be parsed: they tell the types of columns."""
        lines = self._head[:SOME_LINES]
        try:
            if read(lines).num_rows == len(lines):
                return lines
        except pa.ArrowException:
            pass
        sound = []
        for line in lines:
            with suppress(pa.ArrowException):
                if read([line]).num_rows == 1:
                    sound.append(line)
        return sound

    def _parse(self, lines: list[bytes]) -> pa.RecordBatch:
        """Parse lines; ArrowException if they are no rows of the schema."""
        raise NotImplementedError

    def fraction(self) -> float | None:
        return min(1.0, self._read_bytes / self._size) if self._size else None

    def close(self) -> None:
        self._raw.close()


def _batch_of(lines: list[bytes]) -> pa.RecordBatch:
    return pa.record_batch({LINE: pa.array(lines, pa.large_binary())})


def _only(table: pa.Table, num_rows: int) -> pa.RecordBatch:
    if table.num_rows != num_rows:
        message = f"{table.num_rows} rows on {num_rows} lines"
        raise pa.ArrowInvalid(message)
    found = table.combine_chunks().to_batches()
    return found[0] if found else pa.RecordBatch.from_pylist([], schema=table.schema)


def _text_types(spec: FeatureSpec) -> dict[str, pa.DataType]:
    """Say as what type each column of a spec is read from text, in a table of rows."""
    types = {"string": pa.string(), "int64": pa.int64(), "float": pa.float64()}
    found: dict[str, pa.DataType] = {}
    for f in (*spec.user, *spec.candidate):
        found[f.column] = types[f.dtype]
    for s in spec.behavior:
        for b in s.fields:
            if b.source is None:
                found[b.column] = pa.list_(types[b.dtype])
    for m in spec.multi_hot:
        found[m.column] = pa.list_(types[m.dtype])
    for d in spec.dense:
        found[d.column] = pa.float64() if d.dim == 1 else pa.list_(pa.float64())
    for length in [p.length_column for p in spec.behavior] + [
        p.length_column for p in spec.multi_hot
    ]:
        if length is not None:
            found[length] = pa.int64()
    return found


class _Csv(_Text):
    """Lists are elements between separators; nothing between commas is null.

    An empty text in quotes is one empty string, in a column of strings or of lists.
    """

    def __init__(self, source: Source, spec: FeatureSpec, separator: str) -> None:
        super().__init__(source)
        self._separator = separator
        self._delimiter = "\t" if source.format == "tsv" else ","
        if not self._head:
            raise _unreadable(source, EOFError("no line of column names"))
        self._header = self._head[0].removeprefix(codecs.BOM_UTF8)
        self._head = self._head[1:]
        types = _text_types(spec)
        self._lists_of = {n: t for n, t in types.items() if pa.types.is_list(t)}
        self._types = {
            n: pa.string() if n in self._lists_of else t for n, t in types.items()
        }
        # the other columns are what their first lines say
        lines = self._sound(lambda some: self._read_table(some, []))
        found = self._read_table(lines, []).schema
        self._types |= {
            f.name: f.type if f.type != pa.null() else pa.string() for f in found
        }
        self.schema = pa.schema(
            [
                f.with_type(self._lists_of.get(f.name, self._types[f.name]))
                for f in found
            ]
        )

    def _read_table(self, lines: list[bytes], columns: list[str]) -> pa.Table:
        convert = pa.csv.ConvertOptions(
            column_types=self._types,
            include_columns=columns,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        )
        text = b"\n".join([self._header, *lines, b""])
        read = pa.csv.ReadOptions(use_threads=False, block_size=len(text) + 1)
        parse = pa.csv.ParseOptions(delimiter=self._delimiter)
        return pa.csv.read_csv(pa.BufferReader(text), read, parse, convert)

    def _parse(self, lines: list[bytes]) -> pa.RecordBatch:
        table = self._read_table(lines, self._columns)
        batch = _only(table, len(lines))
        columns = []
        for name in self._columns:
            column = batch.column(name)
            if name in self._lists_of:
                column = self._split(column, self._lists_of[name])
            columns.append(column)
        return pa.RecordBatch.from_arrays(columns, names=self._columns)

    def _split(self, column: Any, kind: pa.DataType) -> Any:  # noqa: ANN401
        """Split text into lists; what is empty is null where it can be no number."""
        if kind.value_type == pa.string():
            return pc.split_pattern(column, self._separator)
        some = pc.if_else(pc.equal(column, ""), None, column)
        lists = pc.split_pattern(some, self._separator)
        values = pc.if_else(pc.equal(lists.values, ""), None, lists.values)
        values = values.cast(kind.value_type)
        return pa.ListArray.from_arrays(lists.offsets, values, mask=lists.is_null())


class _JsonLines(_Text):
    """One object on each line; types are the spec's, and what the first lines say."""

    def __init__(self, source: Source, spec: FeatureSpec) -> None:
        super().__init__(source)
        types = _text_types(spec)
        if not self._head:
            self.schema = pa.schema(list(types.items()))
            return
        lines = self._sound(lambda some: self._read_table(some, None))
        found = self._read_table(lines, None).schema
        self.schema = pa.schema([_settle_field(f, types) for f in found])

    def _read_table(self, lines: list[bytes], schema: pa.Schema | None) -> pa.Table:
        text = b"\n".join([*lines, b""])
        read = pa.json.ReadOptions(use_threads=False, block_size=len(text) + 1)
        how = "infer" if schema is None else "ignore"
        parse = pa.json.ParseOptions(schema, unexpected_field_behavior=how)
        return pa.json.read_json(pa.BufferReader(text), read, parse)

    def _parse(self, lines: list[bytes]) -> pa.RecordBatch:
        schema = pa.schema([self.schema.field(name) for name in self._columns])
        if not lines:
            return pa.RecordBatch.from_pylist([], schema=schema)
        return _only(self._read_table(lines, schema), len(lines)).select(self._columns)


def _is_structs(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) and pa.types.is_struct(kind.value_type))


def _settle_field(column: pa.Field, types: Mapping[str, pa.DataType]) -> pa.Field:
    """Take the spec's type for a column, or for what is in its lists of structs."""
    if _is_structs(column.type):
        inner = [_settle_field(f, types) for f in column.type.value_type]
        return column.with_type(pa.list_(pa.struct(inner)))
    return column.with_type(_settle(column.type, types.get(column.name)))


def _settle(found: pa.DataType, wanted: pa.DataType | None) -> pa.DataType:
    """Take the wanted type for the values, at the depth of lists that was found."""
    if wanted is None:
        return pa.string() if found == pa.null() else found
    depth = 0
    while pa.types.is_list(found):
        depth, found = depth + 1, found.value_type
    value, least = wanted, 0
    while pa.types.is_list(value):
        value, least = value.value_type, least + 1
    for _ in range(max(depth, least)):
        value = pa.list_(value)
    return value
