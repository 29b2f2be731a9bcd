"""Read text as a table: CSV, and JSON lines.

Text is cut into records here and parsed by `prepare`, which may run in another thread:
there a bad record is found as any bad row is. What a text means depends on the record
and on the first ones of its file, never on where batches are cut.
Above 400 lines: two readers, which share records, bad rows and lists in text.
"""

import codecs
import json
import re
from collections import Counter
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from itertools import chain
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json

from din_infer.errors import InputError
from din_infer.jobs.data_files import FORMATS
from din_infer.jobs.forms import find_kept
from din_infer.jobs.reader import Reader, cut, one_batch, unreadable
from din_infer.jobs.sources import Source
from din_infer.jobs.text_options import SEPARATOR, TextOptions
from din_infer.jobs.text_records import (
    BARE_ESCAPE,
    FAULT,
    RECORD,
    STRAY_QUOTE,
    RecordCutter,
    cut_lines,
    raw_bytes,
)
from din_infer.jobs.text_values import (
    INT64,
    KeyTwiceError,
    are_quoted,
    elements_of,
    find_brackets,
    find_names,
    find_signs,
    has_wide,
    is_whole,
    json_value,
    load_json,
    member,
    read_brackets,
    shown,
    texts_of,
    to_numbers,
    to_text,
)
from din_infer.spec import FeatureSpec
from din_infer.spec_parts import columns_of_sides

__all__ = ["Csv", "JsonLines", "text_types"]

BLOCK_BYTES = 1 << 20
LINE = "line"
# which tell the forms of a file's columns
HEAD_RECORDS, HEAD_BYTES = 1000, 1 << 20
MOST_HEAD_BYTES = 1 << 24  # of lines that are searched for the first candidate
# how files begin that are no text, and a name that tells them
MAGIC = {
    b"PAR1": ("Parquet", ".parquet"),
    b"ARROW1": ("Arrow", ".arrow"),
    b"\xff\xff\xff\xff": ("Arrow", ".arrow"),
    b"\x1f\x8b": ("gzip", ".gz"),
    b"\x28\xb5\x2f\xfd": ("Zstandard", ".zst"),
    **{b"BZh%d1AY&SY" % k: ("bzip2", ".bz2") for k in range(1, 10)},
    b"\x04\x22\x4d\x18": ("LZ4", ".lz4"),
}
MOST_MAGIC = max(map(len, MAGIC))
BOMS_OF_UTF32 = codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}

MOST_EXACT = 1 << 53  # of integers that are read as floats, which are below it

FIXES = {
    STRAY_QUOTE: "Give --escape if quotes are not doubled.",
    BARE_ESCAPE: "Leave --escape out, or write the escape twice.",
}

Errors = dict[int, InputError]


class _Text(Reader):
    """Records of text: batches hold them as they are, `prepare` parses."""

    def __init__(self, source: Source, file: BinaryIO) -> None:
        self._source, self._raw = source, file
        self.name = str(source)
        self._size = 0 if source.path is None else source.path.stat().st_size
        self._read_bytes = 0
        self._columns: list[str] = []
        self._rest = self._cut(self._utf8())
        self._first: list[pa.RecordBatch] = []
        self._head = self._read_head()

    def _blocks(self) -> Iterator[bytes]:
        """Read blocks, decompressed where the file's name says so."""
        path = self._source.path
        suffix = "" if path is None else path.suffix.lower()
        stream: Any = self._raw
        if path is not None and suffix in COMPRESSIONS:
            kind = COMPRESSIONS[suffix]
            # of no writer; Arrow takes it for nothing that was compressed
            if self._size == 0 and path.is_file():
                raise InputError(f"a file of {kind}", "0 bytes", str(self._source))
            stream = pa.CompressedInputStream(pa.PythonFile(self._raw), kind)
        read = getattr(stream, "read1", stream.read)  # of a pipe: what is there
        while block := read(BLOCK_BYTES):
            with suppress(OSError):  # a pipe has no position
                self._read_bytes = self._raw.tell()
            yield block

    def _utf8(self) -> Iterator[bytes]:
        """Read blocks without a byte order mark; refuse what is no UTF-8."""
        blocks = self._blocks()
        start = b""
        for block in blocks:
            start += block
            if len(start) >= MOST_MAGIC:
                break
        self._refuse_data(start)
        number = 32 if start.startswith(BOMS_OF_UTF32) or b"\0\0" in start[:4] else 16
        if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, *BOMS_OF_UTF32)):
            got, fix = f"UTF-{number}", "Convert it first: iconv -f {} -t UTF-8."
            fix = fix.format(got)
            raise InputError("text in UTF-8", got, str(self._source), fix)
        if b"\0" in start[:4]:
            got = f"NUL bytes, as of UTF-{number}"
            raise InputError("text in UTF-8", got, str(self._source))
        yield start.removeprefix(codecs.BOM_UTF8)
        yield from blocks

    def _refuse_data(self, start: bytes) -> None:
        """Refuse the first bytes of what is no text, by its name."""
        for magic, (name, suffix) in MAGIC.items():
            if start.startswith(magic):
                path = self._source.path
                fix = "Decompress it first."
                if suffix in FORMATS:
                    fix = f"Give --format {FORMATS[suffix]}."
                elif path is not None and path.suffix.lower() not in COMPRESSIONS:
                    fix = f"Name it {path.name}{suffix}."
                raise InputError("a text file", f"{name} data", str(self._source), fix)

    def _cut(self, blocks: Iterator[bytes]) -> Iterator[pa.RecordBatch]:
        """Cut blocks into records."""
        raise NotImplementedError

    def _read_head(self) -> pa.RecordBatch:
        """Read the first records, however the blocks were cut."""
        count = size = 0
        for records in self._rest:
            self._first.append(records)
            count += records.num_rows
            size += len(raw_bytes(records.column(0))[0])
            if count > HEAD_RECORDS or size > HEAD_BYTES:
                break
        if not self._first:
            return pa.record_batch({RECORD: pa.array([], pa.large_binary())})
        head = one_batch(pa.Table.from_batches(self._first))
        _, starts = raw_bytes(head.column(0))
        return head[: min(HEAD_RECORDS, int((starts[:-1] < HEAD_BYTES).sum()))]

    def batches(
        self,
        columns: Sequence[str],
        rows: int,
        groups: Sequence[int] | None = None,  # noqa: ARG002 - it has none
    ) -> Iterator[pa.RecordBatch]:
        self._columns = list(columns)
        first, self._first = self._first, []
        try:
            yield from cut(map(self._rows_of, chain(first, self._rest)), rows)
        except (OSError, EOFError, pa.ArrowException) as error:
            raise unreadable(self._source, error) from None

    def _rows_of(self, records: pa.RecordBatch) -> pa.RecordBatch:
        """Leave out the records that are no rows."""
        raise NotImplementedError

    def prepare(
        self, batch: pa.RecordBatch, errors: list[InputError] | None = None
    ) -> pa.RecordBatch:
        found: Errors = {}
        columns = self._parse(batch, found)
        if errors is not None:
            errors += found.values()
        elif found:
            raise found[min(found)]
        schema = pa.schema([self.schema.field(name) for name in self._columns])
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    def _parse(self, batch: pa.RecordBatch, errors: Errors) -> list[pa.Array]:
        """Parse the columns that are read; null is what has an error of its row."""
        raise NotImplementedError

    def _no_row(self, reason: object, row: int, fix: str = "") -> InputError:
        rule = f"a row of {self._source.format}"
        return InputError(rule, reason, LINE, fix, row=row)

    def fraction(self) -> float | None:
        return min(1.0, self._read_bytes / self._size) if self._size else None

    def close(self) -> None:
        self._raw.close()


def text_types(spec: FeatureSpec) -> dict[str, pa.DataType]:
    """Say as what type each column of a spec is read from text, in a table of rows."""
    types = {"string": pa.string(), "int64": pa.int64(), "float": pa.float64()}
    found = {}
    for c in sorted(spec.reads, key=lambda c: c.is_length):  # which settle the type
        if c.text is not None:  # which the encoder splits
            found[c.name] = pa.string()
        else:
            found[c.name] = pa.list_(types[c.dtype]) if c.is_list else types[c.dtype]
    return found


def _list_types(
    spec: FeatureSpec, rows: Sequence[Mapping[str, Any]]
) -> dict[str, pa.DataType]:
    """Say which columns that may be text are lists on most of the first lines."""
    types = {"string": pa.string(), "int64": pa.int64(), "float": pa.float64()}
    found = {}
    for c in (c for c in spec.reads if c.text is not None):
        objects = (o for row in rows for key in row for o in _objects(row, key))
        values = [each.get(c.name) for each in chain(rows, objects)]
        lists = sum(_is_elements(value, c.dtype) for value in values)
        if lists > sum(isinstance(value, str) for value in values):
            found[c.name] = pa.list_(types[c.dtype])
    return found


def _is_elements(value: object, dtype: str) -> bool:
    """Tell a list of elements from one of texts, which are lists of their own."""
    if not isinstance(value, list):
        return False
    return dtype == "string" or not any(isinstance(each, str) for each in value)


def _number_types(
    names: Sequence[str], types: Container[str], rows: Sequence[Mapping[str, Any]]
) -> dict[str, pa.DataType]:
    """Say which columns are numbers on all of the first lines that have them."""
    found = {}
    for name in (name for name in names if name not in types):
        kinds = {type(row[name]) for row in rows if row.get(name) is not None}
        if kinds and kinds <= {int, bool}:
            found[name] = pa.int64()
        elif kinds and kinds <= {int, bool, float, Decimal}:
            found[name] = pa.float64()
    return found


AS_STRINGS = 'Ids that are text need dtype = "string" in the spec.'
AS_INTEGERS = 'Ids that are numbers need dtype = "int64" in the spec.'
OF_64_BITS = " of 64 bits"
_ONE = {pa.string(): "text", pa.int64(): "an integer", pa.float64(): "a number"}
_MANY = {pa.string(): "strings", pa.int64(): "integers", pa.float64(): "numbers"}


def _rule_of(kind: pa.DataType) -> str:
    """Say what a value of a type is."""
    if pa.types.is_list(kind):
        inner = kind.value_type
        return f"a list of {_MANY.get(inner, 'objects or lists')}"
    return _ONE[kind]


def _unused(names: Sequence[str], name: str) -> str:
    """Make a name that no column has."""
    while name in names:
        name += "'"
    return name


class _Form(NamedTuple):
    """How the first lists of a column are written."""

    is_bracketed: bool
    is_quoted: bool
    is_joined: bool


class Csv(_Text):
    """Lists are elements between separators, or in brackets and quotes.

    What is kept is text as it is written, also of columns that the model reads.
    """

    def __init__(
        self,
        source: Source,
        file: BinaryIO,
        spec: FeatureSpec,
        options: TextOptions,
        keep: Sequence[str],
    ) -> None:
        self._options = options
        self._delimiter = options.delimiter_of(source.format)
        self._separator = options.list_separator or SEPARATOR
        escape = options.escape
        # null texts that begin with the escape, which would be taken from them
        some = [t for t in options.null_texts if escape and t.startswith(escape)]
        self._hidden = {t: "\0" + t[1:] for t in some}
        self._cutter = RecordCutter(self._delimiter, escape, self._separator, some)
        self._names = list(options.columns)
        super().__init__(source, file)
        if options.header:
            self._take_header()
        types = text_types(spec)
        keys = (c for c in spec.reads if c.dtype == "int64" and c.encoder is not None)
        self._mends = dict.fromkeys((c.name for c in keys), AS_STRINGS)
        kinds = [pa.field(n, types.get(n, pa.string())) for n in self._names]
        self.schema = pa.schema(kinds)
        self._texts = {}  # columns of text, by their names here
        self.kept = []
        for kept in find_kept(self.schema, keep):
            column = kept.column
            if types.get(column, pa.string()) != pa.string():
                column = _unused(self.schema.names, f"{column} as text")
                self._texts[column] = kept.column
                self.schema = self.schema.append(pa.field(column, pa.string()))
            self.kept.append(kept._replace(column=column))
        self._forms = self._find_forms()

    def _cut(self, blocks: Iterator[bytes]) -> Iterator[pa.RecordBatch]:
        return self._cutter.cut(blocks)

    def _take_header(self) -> None:
        """Take the names out of the first record that is not empty."""
        while True:
            if not self._first:
                raise unreadable(self._source, EOFError("no line of column names"))
            header, self._first[0] = self._first[0][:1], self._first[0][1:]
            self._head = self._head[1:]
            if self._first[0].num_rows == 0:
                self._first.pop(0)
            text, _ = raw_bytes(header.column(RECORD))
            if text not in (b"\n", b"\r\n"):
                break
        reason = header.column(FAULT)[0].as_py()
        if text.count(b"\r") != text.count(b"\r\n"):
            reason = "line ends that are no line feeds"
        if reason is not None:
            raise unreadable(self._source, ValueError(reason))
        read = pa.csv.ReadOptions(use_threads=False, block_size=len(text) + 1)
        table = pa.csv.read_csv(pa.BufferReader(text), read, self._parse_options())
        self._names = table.column_names

    def _find_forms(self) -> dict[str, _Form]:
        """Tell which columns have lists in brackets, and which have the separator.

        Of the first records, most must be so: as many in brackets as others; and more
        with the separator than with what may be another one instead.
        """
        lists = [f.name for f in self.schema if pa.types.is_list(f.type)]
        rows = self._rows_of(self._head).column(RECORD)
        found = {}
        for name, raw in zip(lists, self._read_some(rows, 0, {}, lists), strict=True):
            text, _ = to_text(raw)
            brackets = find_brackets(text)
            is_some = pc.and_not(pc.not_equal(text, ""), brackets)
            if pc.any(brackets).as_py():
                is_some = pc.and_not(is_some, find_names(text))
            plain = text.filter(is_some)
            has_it = pc.match_substring(plain, self._separator)
            signs = find_signs(plain, self._separator, is_joined=False)
            others = pc.and_not(signs, has_it)
            some, joined, other = (
                pc.sum(each).as_py() or 0 for each in (brackets, has_it, others)
            )
            is_quoted = are_quoted(text.filter(brackets).to_pylist())
            is_bracketed = some >= max(1, len(plain))
            found[name] = _Form(is_bracketed, is_quoted, joined > other)
        return found

    def _rows_of(self, records: pa.RecordBatch) -> pa.RecordBatch:
        """Leave out empty lines, which are null where there is one column alone."""
        column = records.column(RECORD)
        lengths = pc.min(pc.binary_length(column)).as_py()
        if len(self._names) < 2 or lengths not in (1, 2):
            return records
        empty = pc.is_in(column, pa.array([b"\n", b"\r\n"], pa.large_binary()))
        return records.filter(pc.invert(empty))

    def _parse(self, batch: pa.RecordBatch, errors: Errors) -> list[pa.Array]:
        own = [self._texts.get(name, name) for name in self._columns]
        records, faults = batch.column(RECORD), batch.column(FAULT)
        if faults.null_count == len(faults):
            arrays = self._read_some(records, 0, errors, own)
        else:
            is_good = np.asarray(faults.is_null())
            for row in np.flatnonzero(~is_good):
                reason = faults[row].as_py()
                fix = FIXES.get(reason, "")
                errors[int(row)] = self._no_row(reason, int(row), fix)
            good = np.flatnonzero(is_good)
            some: Errors = {}
            arrays = self._read_some(records.take(pa.array(good)), 0, some, own)
            errors |= {int(good[k]): e.at(row=good[k]) for k, e in some.items()}
            places = pa.array(np.cumsum(is_good) - 1, mask=~is_good)
            arrays = [a.take(places) for a in arrays]
        columns = zip(self._columns, arrays, strict=True)
        return [self._convert(name, raw, errors) for name, raw in columns]

    def _parse_options(self) -> pa.csv.ParseOptions:
        return pa.csv.ParseOptions(
            delimiter=self._delimiter,
            escape_char=self._options.escape or False,
            newlines_in_values=True,
            ignore_empty_lines=False,
        )

    def _read_some(
        self,
        records: pa.LargeBinaryArray,
        start: int,
        errors: Errors,
        names: list[str],
    ) -> list[pa.Array]:
        """Read fields as bytes; where records, from `start` on, are bad, in halves."""
        try:
            return self._read(records, names)
        except pa.ArrowException as error:
            if len(records) == 1:
                errors[start] = self._no_row(str(error).splitlines()[0], start)
                return [pa.nulls(1, pa.binary()) for _ in names]
        half = len(records) // 2
        first = self._read_some(records[:half], start, errors, names)
        second = self._read_some(records[half:], start + half, errors, names)
        return [pa.concat_arrays(pair) for pair in zip(first, second, strict=True)]

    def _read(self, records: pa.LargeBinaryArray, names: list[str]) -> list[pa.Array]:
        nulls = [*self._options.null_texts, *self._hidden.values()]
        records = self._cutter.hide_escapes(records)
        data, _ = raw_bytes(records)
        if data.startswith(codecs.BOM_UTF8):
            data = codecs.BOM_UTF8 + data  # of which one is dropped
        if len(data) == 0:
            return [pa.array([], pa.binary()) for _ in names]
        places = [str(self._names.index(name)) for name in names]
        read = pa.csv.ReadOptions(
            use_threads=False,
            block_size=len(data) + 1,
            column_names=[str(k) for k in range(len(self._names))],
        )
        convert = pa.csv.ConvertOptions(
            column_types=dict.fromkeys(places, pa.binary()),
            include_columns=list(dict.fromkeys(places)),
            null_values=nulls,
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            check_utf8=False,
        )
        options = self._parse_options()
        table = pa.csv.read_csv(pa.BufferReader(data), read, options, convert)
        if table.num_rows != len(records):
            raise pa.ArrowInvalid(f"{table.num_rows} rows in {len(records)} records")
        batch = one_batch(table)
        return [batch.column(place) for place in places]

    def _convert(self, name: str, raw: pa.Array, errors: Errors) -> pa.Array:
        """Make of bytes the values of a column; report those that are none."""
        text, bad = to_text(raw)
        for row in bad:
            got, fix = shown(raw[row].as_py()), "Convert the file to UTF-8 first."
            error = InputError("text in UTF-8", got, name, fix, row=row)
            errors.setdefault(row, error)
        kind = self.schema.field(self.schema.names.index(name)).type
        if pa.types.is_list(kind):
            return self._split(name, text, kind, errors)
        for hidden in self._hidden.values():  # of no list
            text = pc.replace_substring(text, hidden, hidden[1:])
        if kind == pa.string():
            return text
        numbers, bad = to_numbers(text, kind)
        for row in bad:
            value = text[row].as_py()
            is_wide = kind == pa.int64() and is_whole(value)
            rule = _ONE[kind] + OF_64_BITS * is_wide
            fix = "" if _is_number(value) else self._mends.get(name, "")
            errors.setdefault(row, InputError(rule, shown(value), name, fix, row=row))
        return numbers

    def _split(
        self, name: str, text: pa.Array, kind: pa.DataType, errors: Errors
    ) -> pa.Array:
        """Make lists of text; report what is none, or may have another form."""
        inner = kind.value_type
        is_string = inner == pa.string()
        is_exact = self._options.list_separator is not None
        form = self._forms[name]
        if form.is_bracketed:
            text = pc.if_else(find_names(text), None, text)
        is_null = text.is_null()
        is_empty = pc.equal(text, "")
        has_lists = not is_string or self._options.quoted_empty == "list"
        if has_lists and pc.any(is_empty).as_py():
            text = pc.if_else(is_empty, None, text)
            if inner == pa.float64():  # a dense field has no empty list
                is_null = text.is_null()
        found: dict[int, list[Any]] = {}
        wrong: dict[int, tuple[str, str]] = {}
        between = f"with {shown(self._separator)} between them"
        give = "Give --list-separator, which is then exact."
        join = "Write the lists as JSON, or join their elements without brackets."
        for row in _places(find_brackets(text)):
            value = read_brackets(text[row].as_py(), inner, is_quoted=form.is_quoted)
            if value is None and inner == pa.int64() and has_wide(text[row].as_py()):
                wrong[row] = OF_64_BITS.strip(), ""
            elif value is None:
                wrong[row] = "that JSON, Python or NumPy writes in brackets", join
            elif form.is_bracketed or not is_string:
                found[row] = value
            else:
                wrong[row] = between, join
        if is_string and not is_exact:
            seen = text
            for hidden in self._hidden.values():
                seen = pc.replace_substring(seen, hidden, hidden[1:])
            for row in _places(find_signs(seen, self._separator, form.is_joined)):
                if row not in found:
                    wrong.setdefault(row, (between, give))
        rest = text
        if lost := [*found, *wrong]:
            rest = pc.if_else(np.isin(np.arange(len(text)), lost), None, text)
        lists = pc.split_pattern(rest, self._separator)
        values = lists.values
        nulls = [*filter(None, self._options.null_texts), *self._hidden.values()]
        if any(pc.any(pc.match_substring(rest, t)).as_py() for t in nulls):
            values = pc.if_else(pc.is_in(values, pa.array(nulls)), None, values)
        if not is_string:
            texts = values
            values, bad = to_numbers(texts, inner)
            owners = np.searchsorted(np.asarray(lists.offsets), bad, side="right") - 1
            for place, row in zip(bad, owners.tolist(), strict=True):
                is_wide = inner == pa.int64() and is_whole(texts[place].as_py())
                if not is_wide:
                    wrong[row] = between, give
                wrong.setdefault(row, (OF_64_BITS.strip(), ""))
        for row, (how, fix) in wrong.items():
            rule = f"a list of {_MANY[inner]} {how}"
            error = InputError(rule, shown(text[row].as_py()), name, fix, row=row)
            errors.setdefault(row, error)
        lists = pa.ListArray.from_arrays(lists.offsets, values, mask=is_null)
        if not found:
            return lists
        places = np.arange(len(text))
        places[list(found)] = len(text) + np.arange(len(found))
        others = pa.array(list(found.values()), kind)
        return pa.concat_arrays([lists.cast(kind), others]).take(pa.array(places))


def _is_number(text: str) -> bool:
    with suppress(ValueError):
        return float(text) is not None
    return False


def _places(chosen: pa.BooleanArray) -> list[int]:
    """List where values are true."""
    if not pc.any(chosen).as_py():
        return []
    found: list[int] = pc.indices_nonzero(chosen).to_pylist()
    return found


class JsonLines(_Text):
    """One object on each line; a key that a line leaves out is null.

    Columns that the model reads have the spec's types. Others are text: strings as
    they are, of other values the JSON. To `explode`, lists of them stay lists. Those
    that are `also` read are numbers where they are so on the first lines. What a line
    lacks may be `elsewhere`, in the file's path.
    """

    def __init__(
        self,
        source: Source,
        file: BinaryIO,
        spec: FeatureSpec,
        options: TextOptions,
        keep: Sequence[str],
        explode: bool,
        also: Sequence[str] = (),
        elsewhere: Collection[str] = (),
    ) -> None:
        self._elsewhere = elsewhere
        self._absent: set[str] = set()
        self._structs: list[str] = []  # keys of lists of candidates
        self._no_object: InputError | None = None  # why no first line is one
        self._decimals: set[str] = set()
        super().__init__(source, file)
        types = text_types(spec)
        self._sides = columns_of_sides(spec.reads)
        rows = self._find_objects()
        types |= _list_types(spec, rows) | _number_types(also, types, rows)
        is_empty = self._rows_of(self._head).num_rows == 0
        rows += self._find_candidate(rows)
        fields = types.copy() if is_empty else _find_fields(rows, types)
        self._structs = [n for n, t in fields.items() if _inner(t)]
        self._check_form(rows, fields)
        self._absent = self._add_absent(fields, types)
        self._late = {
            name: types[name]
            for name in (
                *self._sides.optional_user,
                *self._sides.optional_candidate,
            )
            if name not in fields and name not in elsewhere
        }
        self.schema = pa.schema(list(fields.items()))
        self._texts = {
            n: n for n, t in fields.items() if n not in types and t == pa.string()
        }
        self.kept = []
        inner = [n for t in fields.values() for n in _inner(t)]
        for kept in find_kept(self.schema, keep):
            column = kept.column
            if column not in types and column not in inner:
                some = [row.get(column) for row in rows]
                objects = (
                    o for row in rows for s in self._structs for o in _objects(row, s)
                )
                is_inside = any(column in o for o in objects)
                if column not in fields and (is_inside or column in elsewhere):
                    self.kept.append(kept)  # no column of the table
                    continue
                if column not in fields:
                    self._absent.add(column)
                elif fields[column] != pa.string():
                    column = _unused(self.schema.names, f"{column} as text")
                if explode and _depth(_nested(pa.string(), some)) > 0:
                    fields[column] = pa.list_(pa.string())
                fields.setdefault(column, pa.string())
                self._texts[column] = kept.column
            self.kept.append(kept._replace(column=column))
        self.schema = pa.schema(list(fields.items()))
        self._absent -= set(options.columns)
        if is_empty:
            self._absent = set()

    def _cut(self, blocks: Iterator[bytes]) -> Iterator[pa.RecordBatch]:
        return cut_lines(self._refuse_array(blocks))

    def _refuse_array(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        start = b""
        for block in blocks:
            start += block
            if start.strip():
                break
        if start.lstrip().startswith(b"["):
            raise self._other_form("a JSON array")
        yield start
        yield from blocks

    def _other_form(self, got: str) -> InputError:
        rule = "JSON lines, one object on each line"
        fix = "Write it as lines: jq -c .[], or pandas' to_json(orient='records',"
        if got != "a JSON array":
            fix = "Write it as lines: jq -c ., or pandas' to_json(orient='records',"
        return InputError(rule, got, str(self._source), f"{fix} lines=True).")

    def _find_objects(self) -> list[dict[str, Any]]:
        """Parse the first lines; leave out those that are no objects."""
        lines = self._rows_of(self._head).column(RECORD).to_pylist()
        found = []
        reason: object = None  # why the first that is no object is none
        for line in lines:
            try:
                value = load_json(line.decode())
                if isinstance(value, dict):
                    found.append(value)
                else:
                    reason = reason or "no object"
            except ValueError as error:
                reason = reason or error
        if lines and not found and _begins_with_object(b"".join(lines)):
            raise self._other_form("an object on several lines")
        if reason and not found:
            is_repr = lines[0].lstrip().startswith(b"{'")
            fix = "Write lines by json.dumps: Python's str of a dict is no JSON."
            self._no_object = InputError(
                "JSON lines, one object on each line",
                f"a first line that is none: {reason}",
                str(self._source),
                fix if is_repr else "",
            )
        return found

    def _find_candidate(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Find a later line with a candidate, where the first ones have none."""
        names = self._sides.candidate
        if not rows or any(_has_value(row, names) for row in rows):
            return []
        keys = [form for name in names for form in _key_forms(name)]
        size = 0
        for records in chain(list(self._first), map(self._put_first, self._rest)):
            text, _ = raw_bytes(records.column(0))
            lines = text.split(b"\n") if any(k in text for k in keys) else []
            for line in lines:
                with suppress(ValueError):
                    if any(k in line for k in keys):
                        row = load_json(line.decode())
                        if _has_value(row, names):
                            return [row]
            size += len(text)
            if size > MOST_HEAD_BYTES:
                break
        return []

    def _put_first(self, records: pa.RecordBatch) -> pa.RecordBatch:
        self._first.append(records)
        return records

    def _check_form(
        self, rows: Sequence[Mapping[str, Any]], fields: Mapping[str, pa.DataType]
    ) -> None:
        """Refuse lines that may be requests whose candidates are not seen."""
        names = self._sides.candidate
        if self._structs or not names or any(name in fields for name in names):
            return
        for key in (k for k, kind in fields.items() if kind == pa.string()):
            if all(row.get(key) in (None, []) for row in rows):
                rule = "a candidate on one of the first lines"
                got = f"`{key}` without elements on all of them"
                fix = "Put a request with candidates first, or leave the key out."
                raise InputError(rule, got, str(self._source), fix)

    def _add_absent(
        self, fields: dict[str, pa.DataType], types: dict[str, pa.DataType]
    ) -> set[str]:
        """Add the model's columns that the first lines do not have; return them."""
        sides, structs = self._sides, self._structs
        inside = {n for s in structs for n in _inner(fields[s])}
        wanted = (*sides.user, *sides.candidate)
        there = {*fields, *inside, *self._elsewhere}
        missing = [n for n in dict.fromkeys(wanted) if n not in there]
        own = [n for n in sides.candidate if n in fields]
        is_deeper = any(_depth(fields[n]) > _depth(types[n]) for n in own)
        for name in missing:
            if name not in sides.candidate:
                fields[name] = types[name]
            elif structs:
                kind = fields[structs[0]].value_type
                more = [*kind, pa.field(name, types[name])]
                fields[structs[0]] = pa.list_(pa.struct(more))
            else:
                fields[name] = pa.list_(types[name]) if is_deeper else types[name]
        return set(missing)

    def batches(
        self,
        columns: Sequence[str],
        rows: int,
        groups: Sequence[int] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Read batches; at the end, refuse a file that lacks a column on every line."""
        yield from super().batches(columns, rows, groups)
        if self._absent and self._no_object is not None:
            raise self._no_object
        if self._absent:
            names = ", ".join(sorted(self._absent))
            rule = f"lines that have the keys {names}"
            fix = "Name by --columns what is null on every line."
            raise InputError(rule, "none", str(self._source), fix)

    def _rows_of(self, records: pa.RecordBatch) -> pa.RecordBatch:
        """Leave out blank lines; note which keys are there."""
        lines = records.column(RECORD)
        text, starts = raw_bytes(lines)
        for name in list(self._absent):
            forms = _key_forms(name)
            if any(form in text for form in forms):
                some = (
                    line for line in lines.to_pylist() if any(f in line for f in forms)
                )
                is_inside = name in self._sides.candidate
                structs = self._structs if is_inside else ()
                if any(_has_key(line, name, structs) for line in some):
                    self._absent.remove(name)
        values = np.frombuffer(text, np.uint8)
        odd = np.flatnonzero(values[starts[:-1]] != ord("{"))
        blank = [k for k in odd if not lines[int(k)].as_py().strip()]
        if not blank:
            return records
        return records.take(pa.array(np.delete(np.arange(len(lines)), blank)))

    def _parse(self, batch: pa.RecordBatch, errors: Errors) -> list[pa.Array]:
        records = batch.column(RECORD)
        kinds = {f.name: f.type for f in self.schema}
        read = {n: kinds[n] for n in self._columns if n not in self._texts} | self._late
        text, _ = raw_bytes(records)
        try:
            made = self._read_by_arrow(text, len(records), read)
        except pa.ArrowException:
            made = self._read_slowly(records, read, errors)
        for name in self._late:
            for row in np.flatnonzero(made[name].is_valid()):
                first = f"the first {self._head.num_rows:,} lines"
                rule = f"a column that {first} have, or none"
                error = InputError(rule, "it later", name, row=row)
                errors.setdefault(int(row), error)
        texts = [n for n in self._columns if n in self._texts]
        if texts:
            made |= self._read_texts(records, texts, errors)
        return [made[name] for name in self._columns]

    def _read_by_arrow(
        self, text: bytes, num_rows: int, kinds: Mapping[str, pa.DataType]
    ) -> dict[str, pa.Array]:
        """Read columns; ArrowInvalid if Arrow would not take each line as it is meant.

        Arrow refuses 3.0 for an integer: columns that have it are read as numbers.
        Which they are is remembered, for speed alone.
        """
        _check_plain(text, num_rows)
        try:
            return _read_some_json(text, num_rows, kinds, self._decimals)
        except pa.ArrowException:
            for name, kind in kinds.items():
                try:
                    _read_some_json(text, num_rows, {name: kind}, self._decimals)
                except pa.ArrowException:
                    _read_some_json(text, num_rows, {name: kind}, {name})
                    self._decimals.add(name)
        return _read_some_json(text, num_rows, kinds, self._decimals)

    def _read_slowly(
        self,
        records: pa.LargeBinaryArray,
        kinds: Mapping[str, pa.DataType],
        errors: Errors,
    ) -> dict[str, pa.Array]:
        """Read lines one by one, to name what is wrong."""
        schema = pa.schema(list(kinds.items()))
        columns: list[list[Any]] = [[] for _ in schema]
        for row, line in enumerate(records.to_pylist()):
            value: Mapping[str, Any] = {}
            try:
                value = load_json(line.decode())
                if not isinstance(value, dict):
                    raise ValueError("a line that is no object")
            except ValueError as error:
                errors.setdefault(row, self._no_row(error, row))
                value = {}
            for field, column in zip(schema, columns, strict=True):
                try:
                    column.append(json_value(member(value, field.name), field.type))
                except KeyTwiceError as error:
                    twice = InputError("each key once", "it twice", error.key, row=row)
                    errors.setdefault(row, twice)
                    column.append(None)
                except ValueError:
                    errors.setdefault(row, _no_value(value[field.name], field, row))
                    column.append(None)
        found = zip(columns, schema, strict=True)
        return {f.name: pa.array(column, f.type) for column, f in found}

    def _read_texts(
        self, records: pa.LargeBinaryArray, names: list[str], errors: Errors
    ) -> dict[str, pa.Array]:
        """Take values as they are written."""
        wanted = {self._texts[name] for name in names}
        lists = {n for n in names if pa.types.is_list(self.schema.field(n).type)}
        columns: dict[str, list[Any]] = {name: [] for name in names}
        for row, line in enumerate(records.to_pylist()):
            found: dict[str, str | None] = {}
            try:
                for key, value in texts_of(line.decode()):
                    if key in wanted:
                        if key in found:
                            raise ValueError(f"the key {key!r} twice")
                        found[key] = value
            except (ValueError, RecursionError) as error:
                errors.setdefault(row, self._no_row(error, row))
                found = {}
            for name in names:
                text = found.get(self._texts[name])
                if name in lists and text is not None:
                    try:
                        columns[name].append(elements_of(text))
                    except ValueError:
                        rule = "a list, as the first lines have"
                        wrong = InputError(rule, shown(text), name, row=row)
                        errors.setdefault(row, wrong)
                        columns[name].append(None)
                else:
                    columns[name].append(text)
        return {n: pa.array(v, self.schema.field(n).type) for n, v in columns.items()}


def _key_forms(name: str) -> list[bytes]:
    """List how a key may be written, which tells little of where it stands."""
    return [json.dumps(name, ensure_ascii=e).encode() for e in (False, True)]


def _has_key(line: bytes, name: str, structs: Sequence[str]) -> bool:
    """Tell whether an object has a key, itself or in its lists of candidates."""
    try:
        value = load_json(line.decode())
    except ValueError:
        return True  # as far as can be told: the line has an error of its own
    if not isinstance(value, dict):
        return False
    return name in value or any(name in o for k in structs for o in _objects(value, k))


def _has_value(row: object, names: Sequence[str]) -> bool:
    """Tell whether one of some keys is not null, here or in a list of objects."""
    if not isinstance(row, dict):
        return False
    objects = [row, *(o for key in row for o in _objects(row, key))]
    return any(o.get(name) is not None for o in objects for name in names)


def _objects(row: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """List the objects of a member that is a list."""
    value = row.get(key)
    some = value if isinstance(value, list) else []
    return [each for each in some if isinstance(each, dict)]


def _begins_with_object(text: bytes) -> bool:
    """Tell whether text begins with an object, or with a line that only opens one."""
    text = text.lstrip()
    if text.partition(b"\n")[0].strip() == b"{":
        return True
    with suppress(ValueError, RecursionError):
        value, _ = json.JSONDecoder().raw_decode(text.decode())
        return isinstance(value, dict)
    return False


def _check_plain(text: bytes, num_rows: int) -> None:
    """Refuse lines that Arrow may take in another way: ArrowInvalid."""
    is_plain = text.startswith(b"{") and text.count(b"\n{") == num_rows - 1
    # Arrow takes Inf for a number, and NUL for the end of the text
    has_inf = b"Inf" in text and re.search(rb"[:\[,]\s*-?Inf(?!inity)", text)
    if not is_plain or has_inf or b"\0" in text:
        raise pa.ArrowInvalid("lines for the slow reader")
    try:
        text.decode()
    except UnicodeDecodeError:
        raise pa.ArrowInvalid("bytes that are no UTF-8") from None


def _read_some_json(
    text: bytes,
    num_rows: int,
    kinds: Mapping[str, pa.DataType],
    decimals: Container[str],
) -> dict[str, pa.Array]:
    """Read columns by Arrow; ArrowInvalid if a value or a line does not fit."""
    fields = [(n, _as_floats(t) if n in decimals else t) for n, t in kinds.items()]
    read = pa.json.ReadOptions(use_threads=False, block_size=len(text) + 1)
    parse = pa.json.ParseOptions(pa.schema(fields), unexpected_field_behavior="ignore")
    table = pa.json.read_json(pa.BufferReader(text), read, parse)
    if table.num_rows != num_rows:
        raise pa.ArrowInvalid(f"{table.num_rows} rows on {num_rows} lines")
    batch = one_batch(table)
    made = {name: batch.column(name) for name in kinds}
    for name in (n for n in kinds if n in decimals):
        names = [name, *_inner(kinds[name])]
        keys = b"|".join(re.escape(form) for n in names for form in _key_forms(n))
        if re.search(rb"(?:%b)\s*:[^\"{}]*?(?:\d[\d.]{15}|[eE]-)" % keys, text):
            raise pa.ArrowInvalid("decimals that may have been rounded")
        column = made[name].cast(kinds[name])
        for values in _integers(column):
            ends = pc.min_max(values).as_py().values()
            if any(end is not None and abs(end) >= MOST_EXACT for end in ends):
                raise pa.ArrowInvalid("integers that may have been rounded")
        made[name] = column
    return made


def _as_floats(kind: pa.DataType) -> pa.DataType:
    """Replace integers by floats in a type."""
    if pa.types.is_list(kind):
        return pa.list_(_as_floats(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_as_floats(field.type)) for field in kind])
    return pa.float64() if kind == pa.int64() else kind


def _integers(array: pa.Array) -> Iterator[pa.Array]:
    """List the integers inside an array."""
    if pa.types.is_list(array.type):
        yield from _integers(array.flatten())
    elif pa.types.is_struct(array.type):
        for field in array.flatten():
            yield from _integers(field)
    elif array.type == pa.int64():
        yield array


def _no_value(value: object, field: pa.Field, row: int) -> InputError:
    fix = ""
    if pa.types.is_list(field.type) and isinstance(value, str):
        fix = "Write it as a JSON array of its elements, or say in the spec how it is"
        fix += " split: separator = .."
    try:
        got = shown(json.dumps(value, ensure_ascii=False, default=float))
    except RecursionError:
        got = "values inside of each other too deeply"
    if field.type == pa.string() and isinstance(value, int):
        fix = AS_INTEGERS
    rule = _rule_of(field.type)
    if field.type in (pa.int64(), pa.list_(pa.int64())):
        some = value if isinstance(value, list) else [value]
        rule += OF_64_BITS * any(isinstance(v, int) and v not in INT64 for v in some)
    return InputError(rule, got, field.name, fix, row=row)


def _inner(kind: pa.DataType) -> list[str]:
    """List the fields of a list of objects."""
    if not (pa.types.is_list(kind) and pa.types.is_struct(kind.value_type)):
        return []
    return [field.name for field in kind.value_type]


def _depth(kind: pa.DataType) -> int:
    return 1 + _depth(kind.value_type) if pa.types.is_list(kind) else 0


def _find_fields(
    rows: Sequence[Mapping[str, Any]], types: Mapping[str, pa.DataType]
) -> dict[str, pa.DataType]:
    """Find the keys of objects, and the type of each one's values.

    The values' type is the spec's, in as many lists as most values are. What the spec
    does not name is text, or a list of objects with what it names.
    """
    values: dict[str, list[Any]] = {}
    for row in rows:
        for key, value in row.items():
            values.setdefault(key, []).append(value)
    found = {}
    for key, some in values.items():
        if key in types:
            found[key] = _nested(types[key], some)
            continue
        lists = [v for v in some if isinstance(v, list)]
        objects = [v for some in lists for v in some if isinstance(v, dict)]
        names = dict.fromkeys(name for each in objects for name in each)
        inner = [
            (n, _nested(types[n], [each.get(n) for each in objects]))
            for n in names
            if n in types
        ]
        found[key] = pa.list_(pa.struct(inner)) if inner else pa.string()
    return found


def _nested(kind: pa.DataType, values: Sequence[Any]) -> pa.DataType:
    """Put a type into as many lists as most values are; empty lists tell little."""

    def depth(value: object, most: int = 3) -> int:
        if most == 0 or not isinstance(value, list):
            return 0
        return 1 + max((depth(v, most - 1) for v in value), default=0)

    some = [v for v in values if v is not None and v != []] or [
        v for v in values if v == []
    ]
    counts = Counter(map(depth, some))
    most = max(counts, key=lambda d: (counts[d], d), default=0)
    while _depth(kind) < most:
        kind = pa.list_(kind)
    return kind
