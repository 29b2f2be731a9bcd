"""Columns that are in a file's path alone: ``day=2026-01-01/part-0.parquet``."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa

from din_infer.errors import InputError
from din_infer.jobs.reader import Reader
from din_infer.jobs.text_values import cast_each

__all__ = ["columns_of_path", "value_of_path"]

NULL = "__HIVE_DEFAULT_PARTITION__"


def columns_of_path(path: Path | None) -> dict[str, list[str]]:
    """Find the columns of the folders of a path, and the values of each as written."""
    found: dict[str, list[str]] = {}
    for folder in () if path is None else path.absolute().parts[:-1]:
        name, equals, value = folder.partition("=")
        if name and equals:
            found.setdefault(unquote(name), []).append(value)
    return found


def value_of_path(name: str, written: Sequence[str], where: str) -> str | None:
    """Read a value as engines write it: %XX for a byte, a name of Hive's for null.

    Raises
    ------
    InputError
        If the path has several values, or bytes that are no UTF-8.
    """
    if len(set(written)) > 1:
        rule = f"a path with one `{name}`"
        raise InputError(rule, " and ".join(map(repr, written)), where)
    if written[0] == NULL:
        return None
    try:
        return unquote(written[0], errors="strict")
    except UnicodeDecodeError as error:
        rule = f"a path whose `{name}` is UTF-8"
        raise InputError(rule, f"{written[0]!r}, {error}", where) from None


class PathReader(Reader):
    """A reader whose batches have columns of the path, too, once prepared.

    Parameters
    ----------
    reader : Reader
    values : dict
        As `columns_of_path` has them, of columns that the table itself does not have.
    kinds : dict
        The type of each.
    where : str
        What errors call the file.
    """

    def __init__(
        self,
        reader: Reader,
        values: Mapping[str, Sequence[str]],
        kinds: Mapping[str, pa.DataType],
        where: str,
    ) -> None:
        self._reader, self.name = reader, where
        self._values = {
            name: _scalar(name, value_of_path(name, value, where), kinds[name], where)
            for name, value in values.items()
        }
        fields = [pa.field(name, kinds[name]) for name in values]
        self.schema = pa.schema([*reader.schema, *fields])
        self.num_rows = reader.num_rows
        self.kept = reader.kept
        self._columns: list[str] = []

    def batches(
        self,
        columns: Sequence[str],
        rows: int,
        groups: Sequence[int] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        self._columns = list(columns)
        own = [name for name in columns if name not in self._values]
        # of no column, a batch does not know its rows
        own = own or self._reader.schema.names[:1]
        yield from self._reader.batches(own, rows, groups)

    def prepare(
        self, batch: pa.RecordBatch, errors: list[InputError] | None = None
    ) -> pa.RecordBatch:
        ready = self._reader.prepare(batch, errors)
        arrays = [
            pa.repeat(self._values[name], ready.num_rows)
            if name in self._values
            else ready.column(name)
            for name in self._columns
        ]
        fields = [
            self.schema.field(name)
            if name in self._values
            else ready.schema.field(name)
            for name in self._columns
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))

    def group_rows(self) -> list[int] | None:
        return self._reader.group_rows()

    def fraction(self) -> float | None:
        return self._reader.fraction()

    def close(self) -> None:
        self._reader.close()


def _scalar(name: str, value: str | None, kind: pa.DataType, where: str) -> pa.Scalar:
    try:
        values, wrong = cast_each(pa.array([value], pa.string()), kind)
    except pa.ArrowException:  # a list, for instance
        wrong = [0]
    if wrong:
        rule = f"a path whose `{name}` can be read as {kind}"
        raise InputError(rule, repr(value), where)
    return values[0]
