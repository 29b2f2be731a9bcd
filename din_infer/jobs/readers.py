"""Open a table to read it as a stream of batches: Parquet, Arrow IPC, or text.

Memory is bounded by a batch, not by a file, its row groups or its blocks.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from din_infer.errors import InputError
from din_infer.jobs.forms import find_kept
from din_infer.jobs.reader import Reader, cut, unreadable
from din_infer.jobs.reader_path import PathReader, columns_of_path
from din_infer.jobs.reader_text import Csv, JsonLines, text_types
from din_infer.jobs.sources import (
    Source,
    read_footer,
    read_names,
    readable_names,
    stored_columns,
)
from din_infer.jobs.text_options import TextOptions
from din_infer.spec import FeatureSpec

__all__ = ["find_columns", "open_reader"]

# Of one batch of Parquet, by what its row group has on average; and rows, since rows
# with long histories may stand together in it.
BATCH_VALUES = 1 << 18
MOST_ROWS = 1024


def open_reader(
    source: Source,
    spec: FeatureSpec | None,
    text: TextOptions | None = None,
    keep: Sequence[str] = (),
    explode: bool = False,
    also: Sequence[str] = (),
    metadata: pq.FileMetaData | None = None,
) -> Reader:
    """Open a source.

    Columns that it lacks and its path has, as ``day=2026-01-01``, are read from there:
    as the spec's types, else as text.

    Parameters
    ----------
    source : Source
    spec : FeatureSpec or None
        Says what the text of CSV and JSON lines means; other formats need none.
    text : TextOptions, optional
        Say how it is written.
    keep : sequence of str
        Columns to keep, as `find_kept` takes them.
    explode : bool
        Whether kept lists that the model does not read are to be taken apart.
    also : sequence of str
        Columns that will be read beside the model's: labels, for instance.
    metadata : pyarrow.parquet.FileMetaData, optional
        The footer of Parquet, where that has been read.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    path = columns_of_path(source.path)
    text = text or TextOptions()
    reader = _open(source, spec, text, keep, explode, also, path, metadata)
    reader.name = str(source)
    wanted = [*also, *(kept.column for kept in reader.kept)]
    types = {}
    if spec is not None:
        wanted += [*spec.columns, *spec.optional_columns]
        types = text_types(spec)
    found = {n: path[n] for n in wanted if n in path and n not in reader.schema.names}
    if not found:
        return reader
    kinds = {name: types.get(name, pa.string()) for name in found}
    try:
        return PathReader(reader, found, kinds, str(source))
    except BaseException:
        reader.close()
        raise


def find_columns(
    reader: Reader, wanted: Iterable[str], optional: Iterable[str] = ()
) -> list[str]:
    """List the columns to read: `wanted`, and what the table has of `optional`.

    Raises
    ------
    InputError
        If the table lacks some, all of which are named, or has one twice.
    """
    names = reader.schema.names
    wanted = list(dict.fromkeys(wanted))
    found = list(dict.fromkeys([*wanted, *(n for n in optional if n in names)]))
    twice = [c for c in found if names.count(c) > 1]
    if twice:
        raise InputError("each column once", ", ".join(twice), reader.name)
    missing = [c for c in wanted if c not in names]
    if missing:
        rule = "the columns " + ", ".join(missing)
        raise InputError(rule, "only " + ", ".join(names), reader.name)
    return found


def _open(
    source: Source,
    spec: FeatureSpec | None,
    text: TextOptions,
    keep: Sequence[str],
    explode: bool,
    also: Sequence[str],
    path: Collection[str],
    metadata: pq.FileMetaData | None,
) -> Reader:
    file = None
    try:
        if source.format == "parquet":
            reader: Reader = ParquetReader(source, metadata)
        else:
            file = source.open()
            if source.format == "arrow":
                reader = ArrowReader(source, file)
            elif spec is None:
                rule = "a spec, which says what text means"
                raise InputError(rule, "none", str(source))
            elif source.format == "jsonl":
                return JsonLines(source, file, spec, text, keep, explode, also, path)
            else:
                return Csv(source, file, spec, text, keep)
        reader.kept = find_kept(reader.schema, keep)
    except BaseException as error:
        if file is not None:
            file.close()
        if isinstance(error, OSError | EOFError | UnicodeError | pa.ArrowException):
            raise unreadable(source, error) from None
        raise
    return reader


class ParquetReader(Reader):
    """Row groups of any size are read by the page, with a buffer for each column."""

    def __init__(self, source: Source, metadata: pq.FileMetaData | None = None) -> None:
        self._source, self.name = source, str(source)
        self._file = read_footer(str(source), metadata)
        self.schema = self._file.schema_arrow
        self.num_rows = self._file.metadata.num_rows

    def batches(
        self,
        columns: Sequence[str],
        rows: int,
        groups: Sequence[int] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        if groups is None:
            groups = range(self._file.num_row_groups)
        try:
            yield from cut(self._groups(list(columns), rows, groups), rows)
        except (OSError, UnicodeError, pa.ArrowException) as error:
            raise unreadable(self._source, error) from None

    def _groups(
        self, columns: list[str], rows: int, groups: Sequence[int]
    ) -> Iterator[pa.RecordBatch]:
        metadata = self._file.metadata
        leaves = stored_columns(self.schema, columns)
        for group in groups:
            about = metadata.row_group(group)
            if about.num_rows == 0:
                continue
            # `column` ends the process where metadata is damaged; reading raises
            next(self._read(group, leaves, 1), None)
            values = sum(about.column(i).num_values for i in leaves)
            # values are counted, not bytes: encodings hide how large they become
            fitting = BATCH_VALUES * about.num_rows // max(1, values)
            most = max(1, min(rows, fitting, MOST_ROWS))
            yield from self._read(group, leaves, most)

    def _read(
        self, group: int, leaves: list[int], rows: int
    ) -> Iterator[pa.RecordBatch]:
        batches: Iterator[pa.RecordBatch] = self._file.reader.iter_batches(
            rows, row_groups=[group], column_indices=leaves, use_threads=False
        )
        return batches

    @property
    def metadata(self) -> pq.FileMetaData:
        """The file's footer, which opens it again faster."""
        return self._file.metadata

    def group_rows(self) -> list[int]:
        metadata = self._file.metadata
        count = metadata.num_row_groups
        return [metadata.row_group(k).num_rows for k in range(count)]

    def close(self) -> None:
        self._file.close()


class ArrowReader(Reader):
    """A file or a stream of Arrow IPC; memory holds one of its batches.

    Errors call it `source`, whatever `file` is.
    """

    def __init__(self, source: Source, file: BinaryIO) -> None:
        self._source, self.name = source, str(source)
        self._file = file
        try:
            self._reader = self._open()
            self.schema = self._reader.schema
            with readable_names(str(source)):
                read_names(self.schema)
        except BaseException:
            file.close()
            raise

    def _open(self) -> Any:  # noqa: ANN401
        if self._source.path is None:
            return pa.ipc.open_stream(self._file)
        start = self._file.read(6)
        self._file.seek(0)
        if start == b"ARROW1":
            return pa.ipc.open_file(self._file)
        return pa.ipc.open_stream(self._file)

    def batches(
        self,
        columns: Sequence[str],
        rows: int,
        groups: Sequence[int] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        try:
            yield from cut(self._all(columns, groups), rows)
        except (OSError, EOFError, UnicodeError, pa.ArrowException) as error:
            raise unreadable(self._source, error) from None

    def group_rows(self) -> list[int] | None:
        if not self._is_file:
            return None
        names = self.schema.names
        plain = (n for n, f in zip(names, self.schema, strict=True) if _is_flat(f.type))
        column = next(plain, *names[:1]) if names else None
        try:
            file = self._narrow([] if column is None else [column])
            count = file.num_record_batches
            return [file.get_batch(i).num_rows for i in range(count)]
        except (OSError, EOFError, UnicodeError, pa.ArrowException) as error:
            raise unreadable(self._source, error) from None

    @property
    def _is_file(self) -> bool:
        return hasattr(self._reader, "num_record_batches")

    def _narrow(self, columns: Sequence[str]) -> Any:  # noqa: ANN401
        """Open the file again, to read some columns alone."""
        places = [k for k, n in enumerate(self.schema.names) if n in columns]
        options = pa.ipc.IpcReadOptions(included_fields=places, use_threads=False)
        self._file.seek(0)
        return pa.ipc.open_file(self._file, options=options)

    def _all(
        self, columns: Sequence[str], groups: Sequence[int] | None
    ) -> Iterator[pa.RecordBatch]:
        if self._is_file:
            file = self._narrow(columns)
            for i in range(file.num_record_batches) if groups is None else groups:
                yield _sound(file.get_batch(i), columns)
        else:
            for batch in self._reader:
                yield _sound(batch, columns)
            if self._file.read(1):
                rule, got = "one Arrow IPC stream", "bytes behind its end"
                fix = "Give each stream as a file of its own."
                raise InputError(rule, got, str(self._source), fix)

    def close(self) -> None:
        self._file.close()


def _is_flat(kind: pa.DataType) -> bool:
    return not pa.types.is_nested(kind) and not pa.types.is_dictionary(kind)


def _sound(batch: pa.RecordBatch, columns: Sequence[str]) -> pa.RecordBatch:
    """Take some columns: of a damaged file, their offsets may be anything."""
    some = batch.select(list(columns))
    some.validate(full=True)
    return some
