"""Read text as a table: CSV, and JSON lines.

Text is cut into lines here and parsed by `prepare`, which may run in another thread:
there a bad line is found as any bad row is.
"""

import codecs
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json

from din_infer.errors import InputError
from din_infer.jobs.reader import Reader, cut, one_batch, unreadable
from din_infer.jobs.sources import Source
from din_infer.spec import FeatureSpec

__all__ = ["Csv", "JsonLines"]

BLOCK_BYTES = 1 << 20
LINE = "line"
SOME_LINES = 1000  # which tell the types of columns that the spec does not name
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}


class _Text(Reader):
    """Lines of text: batches hold them as they are, `prepare` parses."""

    def __init__(self, source: Source, file: BinaryIO) -> None:
        self._source, self._raw = source, file
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
        read = getattr(stream, "read1", stream.read)  # of a pipe: what is there
        while block := read(BLOCK_BYTES):
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
            arrays = (pa.array(lines, pa.large_binary()) for lines in lists)
            yield from cut((pa.record_batch({LINE: a}) for a in arrays), rows)
        except (OSError, EOFError, pa.ArrowException) as error:
            raise unreadable(self._source, error) from None

    def prepare(
        self, batch: pa.RecordBatch, errors: list[InputError] | None = None
    ) -> pa.RecordBatch:
        lines = batch.column(0).to_pylist()
        found: list[InputError] = []
        parts = self._parse_some(lines, 0, found)
        if errors is not None:
            errors += found
        elif found:
            raise found[0]
        elif len(parts) > 1:
            raise self._no_row("lines that do not go together", 0)
        if len(parts) == 1:
            return parts[0]
        schema = pa.schema([self.schema.field(name) for name in self._columns])
        return one_batch(pa.Table.from_batches(parts, schema))

    def _parse_some(
        self, lines: list[bytes], start: int, errors: list[InputError]
    ) -> list[pa.RecordBatch]:
        """Parse lines that begin at row `start`; where one is bad, in halves."""
        try:
            return [self._parse(lines)]
        except pa.ArrowException as error:
            if len(lines) == 1:
                errors.append(self._no_row(str(error).splitlines()[0], start))
                return []
        half = len(lines) // 2
        return [
            *self._parse_some(lines[:half], start, errors),
            *self._parse_some(lines[half:], start + half, errors),
        ]

    def _no_row(self, reason: str, row: int) -> InputError:
        return InputError(f"a row of {self._source.format}", reason, LINE, row=row)

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


def _only(table: pa.Table, num_rows: int) -> pa.RecordBatch:
    if table.num_rows != num_rows:
        raise pa.ArrowInvalid(f"{table.num_rows} rows on {num_rows} lines")
    return one_batch(table)


def _text_types(spec: FeatureSpec) -> dict[str, pa.DataType]:
    """Say as what type each column of a spec is read from text, in a table of rows."""
    types = {"string": pa.string(), "int64": pa.int64(), "float": pa.float64()}
    found = {}
    for c in sorted(spec.reads, key=lambda c: c.is_length):  # which settle the type
        found[c.name] = pa.list_(types[c.dtype]) if c.is_list else types[c.dtype]
    return found


class Csv(_Text):
    """Lists are elements between separators; nothing between commas is null.

    An empty text in quotes is one empty string, in a column of strings or of lists.
    """

    def __init__(
        self, source: Source, file: BinaryIO, spec: FeatureSpec, separator: str
    ) -> None:
        super().__init__(source, file)
        self._separator = separator
        self._delimiter = "\t" if source.format == "tsv" else ","
        if not self._head:
            raise unreadable(source, EOFError("no line of column names"))
        self._header = self._head[0].removeprefix(codecs.BOM_UTF8)
        if b"\r" in self._header.rstrip(b"\r"):
            raise unreadable(source, ValueError("line ends that are no line feeds"))
        self._head = self._head[1:]
        types = _text_types(spec)
        self._lists_of = {n: t for n, t in types.items() if pa.types.is_list(t)}
        self._types = {**types, **dict.fromkeys(self._lists_of, pa.string())}
        # the other columns are what their first lines say
        lines = self._sound(lambda some: self._read_table(some, []))
        found = self._read_table(lines, []).schema
        self._types |= {f.name: _settle(f.type, None) for f in found}
        wanted = self._types | self._lists_of
        self.schema = pa.schema([f.with_type(wanted[f.name]) for f in found])

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
        batch = _only(self._read_table(lines, self._columns), len(lines))
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


class JsonLines(_Text):
    """One object on each line; types are the spec's, and what the first lines say."""

    def __init__(self, source: Source, file: BinaryIO, spec: FeatureSpec) -> None:
        super().__init__(source, file)
        types = _text_types(spec)
        if not self._head:
            self.schema = pa.schema(list(types.items()))
            return
        lines = self._sound(lambda some: self._read_table(some, None))
        found = self._read_table(lines, None).schema
        self.schema = pa.schema([_settle_field(f, types) for f in found])

    def _read_table(self, lines: list[bytes], schema: pa.Schema | None) -> pa.Table:
        if not all(line.lstrip().startswith(b"{") for line in lines):
            message = "a line that is no object"
            raise pa.ArrowInvalid(message)  # pyarrow would end the process
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


def _settle_field(column: pa.Field, types: Mapping[str, pa.DataType]) -> pa.Field:
    """Take the spec's type for a column, or for what is in its lists of structs."""
    kind = column.type
    if pa.types.is_list(kind) and pa.types.is_struct(kind.value_type):
        inner = [_settle_field(f, types) for f in kind.value_type]
        return column.with_type(pa.list_(pa.struct(inner)))
    return column.with_type(_settle(kind, types.get(column.name)))


def _settle(found: pa.DataType, wanted: pa.DataType | None) -> pa.DataType:
    """Take the wanted type for the values, at the depth of lists that was found."""
    if wanted is None:
        return pa.string() if found == pa.null() else found
    if pa.types.is_list(found) or pa.types.is_list(wanted):
        inner = [k.value_type if pa.types.is_list(k) else k for k in (found, wanted)]
        return pa.list_(_settle(*inner))
    return wanted
