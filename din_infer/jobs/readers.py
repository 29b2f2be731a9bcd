"""Open a table to read it as a stream of batches: Parquet, Arrow IPC, or text.

Memory is bounded by a batch, not by a file, its row groups or its blocks.
"""

from collections.abc import Iterator, Sequence
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from din_infer.errors import InputError
from din_infer.jobs.forms import find_kept
from din_infer.jobs.reader import Reader, cut, unreadable
from din_infer.jobs.reader_text import Csv, JsonLines
from din_infer.jobs.sources import (
    Source,
    read_footer,
    read_names,
    readable_names,
    stored_columns,
)
from din_infer.jobs.text_options import TextOptions
from din_infer.spec import FeatureSpec

__all__ = ["open_reader"]

# Of one batch of Parquet, by what its row group has on average; and rows, since rows
# with long histories may stand together in it.
BATCH_VALUES = 1 << 18
MOST_ROWS = 1024


def open_reader(
    source: Source,
    spec: FeatureSpec,
    text: TextOptions | None = None,
    keep: Sequence[str] = (),
    explode: bool = False,
) -> Reader:
    """Open a source.

    Parameters
    ----------
    source : Source
    spec : FeatureSpec
        Says what the text of CSV and JSON lines means.
    text : TextOptions, optional
        Say how it is written.
    keep : sequence of str
        Columns to keep, as `find_kept` takes them.
    explode : bool
        Whether kept lists that the model does not read are to be taken apart.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    file = None
    text = TextOptions() if text is None else text
    try:
        if source.format == "parquet":
            reader: Reader = ParquetReader(source)
        else:
            file = source.open()
            if source.format == "jsonl":
                return JsonLines(source, file, spec, text, keep, explode)
            if source.format != "arrow":
                return Csv(source, file, spec, text, keep)
            reader = ArrowReader(source, file)
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
        self._source = source
        self._file = read_footer(str(source), metadata)
        self.schema = self._file.schema_arrow
        self.num_rows = self._file.metadata.num_rows

    def batches(
        self,
        columns: Sequence[str],
        rows: int,
        groups: Sequence[int] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Read batches as every reader does; of some row groups alone, if given."""
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

    def close(self) -> None:
        self._file.close()


class ArrowReader(Reader):
    """A file or a stream of Arrow IPC; memory holds one of its batches."""

    def __init__(self, source: Source, file: BinaryIO) -> None:
        self._source = source
        self._file = file
        start = b"" if source.path is None else self._file.read(6)
        if start == b"ARROW1":
            self._file.seek(0)
            self._reader = pa.ipc.open_file(self._file)
        else:
            if source.path is not None:
                self._file.seek(0)
            self._reader = pa.ipc.open_stream(self._file)
        self.schema = self._reader.schema
        with readable_names(str(source)):
            read_names(self.schema)

    def batches(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        try:
            yield from cut(self._all(columns), rows)
        except (OSError, EOFError, UnicodeError, pa.ArrowException) as error:
            raise unreadable(self._source, error) from None

    def _all(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        if hasattr(self._reader, "num_record_batches"):
            for i in range(self._reader.num_record_batches):
                yield _sound(self._reader.get_batch(i), columns)
        else:
            for batch in self._reader:
                yield _sound(batch, columns)
            if self._file.read(1):
                rule, got = "one Arrow IPC stream", "bytes behind its end"
                fix = "Give each stream as a file of its own."
                raise InputError(rule, got, str(self._source), fix)

    def close(self) -> None:
        self._file.close()


def _sound(batch: pa.RecordBatch, columns: Sequence[str]) -> pa.RecordBatch:
    """Take some columns: of a damaged file, their offsets may be anything."""
    some = batch.select(list(columns))
    some.validate(full=True)
    return some
