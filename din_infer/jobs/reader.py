"""What every reader of a table has: batches of bounded size, and one way to fail."""

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

from din_infer.errors import InputError
from din_infer.jobs.forms import Kept
from din_infer.jobs.sources import Source

__all__ = ["BATCH_BYTES", "Reader", "cut", "one_batch", "unreadable"]

# Of one batch, as it is read: what memory is bounded by.
BATCH_BYTES = 1 << 23


class Reader:
    """One table, open to be read once.

    Attributes
    ----------
    name : str
        What errors call the table.
    schema : pyarrow.Schema
        Of the table, once `prepare` has made it of a batch.
    num_rows : int or None
        None where only reading tells.
    kept : list of Kept
        Where the columns to keep are, that it was opened with.
    """

    name: str = ""
    schema: pa.Schema
    num_rows: int | None = None
    kept: list[Kept]

    def batches(
        self,
        columns: Sequence[str],
        rows: int,
        groups: Sequence[int] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Read batches of `rows` rows, or fewer where they are large.

        Where batches are cut depends on the file, `columns`, `rows` and `groups` alone:
        the groups of rows to read, as `group_rows` counts them; None: all.

        Raises
        ------
        InputError
            If the table cannot be read to its end.
        """
        raise NotImplementedError

    def group_rows(self) -> list[int] | None:
        """Count the rows of each group that can be read without the ones before it.

        None where a table can only be read from its start.
        """
        return None

    def prepared(
        self,
        columns: Sequence[str],
        rows: int,
        groups: Sequence[int] | None = None,
        start: int = 0,
    ) -> Iterator[pa.RecordBatch]:
        """Read batches as `batches` does, and prepare them.

        An error of a row counts from `start`, the number of the first one.
        """
        for batch in self.batches(columns, rows, groups):
            try:
                yield self.prepare(batch)
            except InputError as error:
                row = None if error.row is None else error.row + start
                raise error.at(row=row, source=self.name) from None
            start += batch.num_rows

    def prepare(
        self,
        batch: pa.RecordBatch,
        errors: list[InputError] | None = None,  # noqa: ARG002
    ) -> pa.RecordBatch:
        """Make of a batch, or a slice of it, one with the columns; here, itself.

        Where `errors` takes the errors of rows, null is what cannot be parsed of them.

        Raises
        ------
        InputError
            Naming the first such row, without `errors`.
        """
        return batch

    def fraction(self) -> float | None:
        """Tell how much of the table has been read, 0 to 1; None if unknown."""
        return None

    def close(self) -> None:
        """Close the file."""


def unreadable(source: Source, error: Exception) -> InputError:
    """Say that a table cannot be read, and why."""
    names = {"parquet": "Parquet", "arrow": "Arrow IPC", "jsonl": "JSON lines"}
    name = names.get(source.format, source.format.upper())
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return InputError(f"a {name} file that can be read to its end", reason, str(source))


def cut(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """Join and cut batches: `rows` each, fewer where those have many bytes."""
    waiting: list[pa.RecordBatch] = []
    count = size = 0
    for batch in batches:
        whole, most, start = batch.nbytes, rows, 0
        if whole > BATCH_BYTES:
            most = max(1, min(rows, batch.num_rows * BATCH_BYTES // whole))
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
    return parts[0] if len(parts) == 1 else one_batch(pa.Table.from_batches(parts))


def one_batch(table: pa.Table) -> pa.RecordBatch:
    """Make one batch of a table; ArrowInvalid if no batch can hold it."""
    found = table.combine_chunks().to_batches()
    if len(found) > 1:
        rows = f"{table.num_rows} rows"
        raise pa.ArrowInvalid(f"{rows} with more bytes than a batch can hold")
    return found[0] if found else pa.RecordBatch.from_pylist([], schema=table.schema)
