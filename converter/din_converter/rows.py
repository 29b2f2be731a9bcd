"""Labeled rows as training reads them: in pieces, in any order, never all at once.

A piece is a row group of a Parquet file, some batches of an Arrow file, or a part of a
table. Other files can only be read from their start, so they are copied once, into such
a file: `row_copies`. An epoch reads the pieces in random order, by the batch, gathers
a window, and cuts batches from the shuffled window; so memory holds a few windows,
however long data and row groups are.
Above 400 lines: one class of rows, and what it reads of labels, weights and times.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from din_converter.fingerprint import fingerprint
from din_converter.row_copies import RowCopies
from din_converter.unify import join, widen
from din_infer import columns
from din_infer.encode import Counts
from din_infer.errors import InputError, ModelError
from din_infer.jobs.data_files import Note, ignore
from din_infer.jobs.reader import Reader
from din_infer.jobs.readers import ParquetReader, find_columns, open_reader
from din_infer.jobs.roles import is_text, numbers_of, times_of
from din_infer.jobs.sources import Source, find_tables, in_file
from din_infer.jobs.text_options import TextOptions
from din_infer.spec import FeatureSpec

__all__ = ["Batch", "Piece", "Rows", "read_labels", "split_by_time"]

PIECE_ROWS = 1 << 16
LARGEST_WEIGHT = 1e9  # squares of its gradients are far from the end of float32
TICKS_PER_SECOND = {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}


@dataclass(frozen=True)
class Piece:
    """Some consecutive rows of one source; `kept` are those inside the time range."""

    source: str
    start: int
    num_rows: int
    kept: int
    load: Callable[[Sequence[str]], Iterator[pa.Table]]  # rows in order, in parts


@dataclass(frozen=True)
class Batch:
    """Encoded rows with their labels; what a step or an evaluation reads."""

    inputs: dict[str, NDArray[np.int64] | NDArray[np.float32]]
    labels: NDArray[np.float32]
    weights: NDArray[np.float32] | None
    groups: NDArray[np.int64] | None
    counts: Counts = ()  # of nulls and unseen values, as `Encoded` has them

    def select(self, kept: NDArray[np.bool_]) -> "Batch":
        """Take some of the rows, bool [N]; `counts` stay those of all."""
        if kept.all():
            return self
        inputs = {k: v[kept] for k, v in self.inputs.items()}
        inputs["request_of_candidate"] = np.arange(kept.sum())
        weights, groups = self.weights, self.groups
        return Batch(
            inputs,
            self.labels[kept],
            None if weights is None else weights[kept],
            None if groups is None else groups[kept],
            self.counts,
        )


class Rows:
    """Labeled rows of files or of a table.

    Parameters
    ----------
    spec : FeatureSpec
        Names the columns: features, `label`, and `weight`, `group`, `time` if any.
    pieces : sequence of Piece
    before, since : float, optional
        Only rows whose time is below `before`, or at least `since`.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        pieces: Sequence[Piece],
        *,
        before: float | None = None,
        since: float | None = None,
    ) -> None:
        self.spec = spec
        self.pieces = tuple(pieces)
        # of a column that two parts read, whole numbers go before others
        reads = sorted(spec.reads, key=lambda c: c.dtype != "float")
        roles = dict.fromkeys((r for r in (spec.label, spec.weight) if r), "float")
        self._dtypes = roles | {c.name: c.dtype for c in reads}
        self._before, self._since = before, since

    @classmethod
    def of_table(cls, table: pa.Table, spec: FeatureSpec, name: str) -> "Rows":
        """Take the rows of a table in memory; errors call it `name`."""

        def load(start: int, names: Sequence[str]) -> Iterator[pa.Table]:
            part = table.slice(start, PIECE_ROWS)
            yield part.select([n for n in names if n in table.column_names])

        pieces = []
        for start in range(0, table.num_rows, PIECE_ROWS):
            rows = min(PIECE_ROWS, table.num_rows - start)
            pieces.append(Piece(name, start, rows, rows, partial(load, start)))
        return cls(spec, pieces)

    @classmethod
    def open(
        cls,
        paths: Iterable[str | Path],
        spec: FeatureSpec,
        *,
        text: TextOptions | None = None,
        format: str | None = None,
        copies: RowCopies | None = None,
        on_note: Note = ignore,
    ) -> "Rows":
        """Take the rows of files, or folders of them.

        Of Parquet and files of Arrow IPC, only footers are read; others are copied.

        Parameters
        ----------
        paths : iterable of path
            As `find_tables` takes them, with `format` and `on_note`.
        spec : FeatureSpec
        text : TextOptions, optional
            How CSV and JSON lines are written; other formats have no use for it.
        format : str, optional
        copies : RowCopies, optional
            Where copies are made; by default in a temporary folder.
        on_note : callable

        Raises
        ------
        InputError
            If a file cannot be read, or lacks a column; or if only some files have an
            optional one.
        """
        text = text or TextOptions()
        copies = copies or RowCopies()
        wanted = list(dict.fromkeys([*spec.columns, *_roles(spec)]))
        pieces = []
        first: tuple[str, list[str]] | None = None
        roles = _roles(spec)
        for source in find_tables(list(paths), format, on_note=on_note):
            with closing(open_reader(source, spec, text, also=roles)) as reader:
                names = find_columns(reader, wanted, spec.optional_columns)
                found = [n for n in spec.optional_columns if n in names]
                first = first or (str(source), found)
                if found != first[1]:  # files are read together
                    rule = f"the same optional columns as {first[0]} has"
                    raise InputError(rule, ", ".join(found) or "none", str(source))
                sizes = reader.group_rows()
                opened: Callable[[], Reader]
                opened = partial(open_reader, source, spec, text, also=roles)
                if isinstance(reader, ParquetReader):
                    metadata = reader.metadata
                    opened = partial(opened, metadata=metadata)
                if sizes is None:
                    copy = copies.copy(source, reader, names, spec, text)
                    opened = partial(copies.open, source, copy)
                    with closing(opened()) as copied:
                        sizes = copied.group_rows() or []
            pieces += _pieces(source, opened, sizes)
        return cls(spec, pieces)

    @property
    def num_rows(self) -> int:
        """Rows inside the time range."""
        return sum(p.kept for p in self.pieces)

    def fingerprint(self) -> list[str]:
        """Tell these files from others: a line for each, as `fingerprint` has it."""
        rows: dict[str, int] = {}
        for piece in self.pieces:
            rows[piece.source] = rows.get(piece.source, 0) + piece.num_rows
        return [fingerprint(source, count) for source, count in rows.items()]

    def windows(
        self, num_rows: int, rng: np.random.Generator | None = None
    ) -> Iterator[pa.Table]:
        """Read tables of at least `num_rows` rows, the last maybe fewer.

        In order; with `rng`, the pieces in random order and the rows of each window
        shuffled.
        """
        pieces = [p for p in self.pieces if p.kept]
        if rng is not None:
            pieces = [pieces[i] for i in rng.permutation(len(pieces))]
        waiting: list[tuple[str, pa.Table]] = []
        count = 0
        for piece in pieces:
            for part in self._load(piece):
                waiting.append((piece.source, part))
                count += part.num_rows
                if count >= num_rows:
                    yield self._window(waiting, rng)
                    waiting, count = [], 0
        if count:
            yield self._window(waiting, rng)

    def _window(
        self, parts: Sequence[tuple[str, pa.Table]], rng: np.random.Generator | None
    ) -> pa.Table:
        table = join(parts, self._dtypes)
        if rng is None:
            return table
        # one chunk first: taking from many is slow
        table = table.combine_chunks()
        return table.take(pa.array(rng.permutation(table.num_rows)))

    def batches(
        self,
        batch_size: int,
        *,
        window: int = PIECE_ROWS,
        rng: np.random.Generator | None = None,
        skip: int = 0,
        threads: int = 1,
    ) -> Iterator[Batch]:
        """Encode batches of `batch_size` rows, the last maybe fewer.

        A batch that one very long list would pad to more than memory holds is cut into
        several, as `FeatureEncoder.cut` says.

        Parameters
        ----------
        batch_size : int
        window : int
            Rows shuffled together.
        rng : numpy.random.Generator, optional
            Shuffles; without it rows come in order.
        skip : int
            Batches at the start not to encode, to go on where a run was cut off.
        threads : int
            For encoding.
        """
        left: pa.Table | None = None
        for table in self.windows(max(window, batch_size), rng):
            if left is not None and left.num_rows:
                table = join([("", left), ("", table)], self._dtypes)
            whole = table.num_rows - table.num_rows % batch_size
            parts = (table.slice(k, batch_size) for k in range(0, whole, batch_size))
            for part in self._cut(parts):
                if skip:
                    skip -= 1
                else:
                    yield self._encode(part, threads)
            left = table.slice(whole)
        if left is not None and left.num_rows:
            for part in self._cut([left]):
                if skip:
                    skip -= 1
                else:
                    yield self._encode(part, threads)

    def _cut(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Cut tables where lists are long."""
        for table in tables:
            for first, stop in self.spec.encoder.cut(table):
                yield table.slice(first, stop - first)

    def check(
        self, seen: Callable[[Batch, NDArray[np.bool_]], None] | None = None
    ) -> None:
        """Read every row once, in order, so that an error names the row it is in.

        Parameters
        ----------
        seen : callable, optional
            Called with all rows, in batches, and which of them are inside the time
            range, bool [N].

        Raises
        ------
        InputError
            If a row does not fit the spec, a label is not 0 or 1, or a weight is
            negative, missing or above `LARGEST_WEIGHT`.
        """
        for piece in self.pieces:
            start = piece.start
            for part in self._cut(piece.load(self._wanted())):
                try:
                    batch = self._encode(part, 1)
                except InputError as error:
                    raise in_file(error, start, piece.source) from None
                start += part.num_rows
                if seen is not None:
                    seen(batch, self._inside(part))

    def encoded_by(self, spec: FeatureSpec) -> "Rows":
        """Return the same rows, to be encoded by another spec of the same columns."""
        return Rows(spec, self.pieces, before=self._before, since=self._since)

    def read(
        self, names: Sequence[str]
    ) -> Iterator[tuple[Piece, int, pa.Table, NDArray[np.bool_]]]:
        """Read some columns of every row, in order.

        Yields
        ------
        piece : Piece
        start : int
            The row of its source that is the table's first.
        table : pyarrow.Table [B]
        inside : bool [B]
            Which of its rows are inside the time range.
        """
        is_cut = self._before is not None or self._since is not None
        wanted = [*names, self.spec.time or ""] if is_cut else [*names]
        for piece in self.pieces:
            start = piece.start
            for table in piece.load(list(dict.fromkeys(wanted))):
                yield piece, start, table, self._inside(table)
                start += table.num_rows

    def times(self) -> Iterator[tuple[Piece, NDArray[np.float64]]]:
        """Read the time of every row, piece by piece; nothing else is read.

        Raises
        ------
        InputError
            If a time is missing, infinite, or not a number, date or timestamp; or if
            some are numbers and others are not.
        """
        name = self.spec.time or ""
        forms: set[bool] = set()
        for piece in self.pieces:
            parts = []
            row = piece.start
            for part in piece.load([name]):
                try:
                    forms |= _time_form(part, name)
                    parts.append(_read_times(part, name))
                    if len(forms) > 1:
                        rule = "times that are all numbers, or all dates or timestamps"
                        raise InputError(rule, "both", name, row=0)
                except InputError as error:
                    raise in_file(error, row, piece.source) from None
                row += part.num_rows
            time = np.concatenate(parts)
            wrong = ~np.isfinite(time)
            if wrong.any():
                row = int(np.argmax(wrong))
                got = "null" if np.isnan(time[row]) else time[row]
                rule = "a time" if got == "null" else "a finite time"
                fault = InputError(rule, got, name, row=row)
                raise in_file(fault, piece.start, piece.source)
            yield piece, time

    def _wanted(self) -> list[str]:
        spec = self.spec
        names = [*spec.columns, *spec.optional_columns, *_roles(spec)]
        return list(dict.fromkeys(names))

    def _load(self, piece: Piece) -> Iterator[pa.Table]:
        for part in piece.load(self._wanted()):
            table = widen(part)
            if piece.kept < piece.num_rows:
                table = _filter(table, self._inside(part))
            yield self._with_numbers(table)

    def _with_numbers(self, table: pa.Table) -> pa.Table:
        """Make times, and labels and weights in text, the numbers that they stand for.

        One file may have another unit, or another form, than the next.
        """
        spec = self.spec
        for name in dict.fromkeys(_roles(spec)):
            place = table.schema.get_field_index(name)
            if place < 0 or name in {c.name for c in spec.reads}:
                continue
            kind = table.schema.field(place).type
            if name == spec.time and (pa.types.is_temporal(kind) or is_text(kind)):
                numbers = pa.array(_read_times(table, name))
            elif name in (spec.label, spec.weight) and is_text(kind):
                numbers = numbers_of(table, name)[name]
            else:
                continue
            table = table.set_column(place, name, numbers)
        return table

    def _inside(self, table: pa.Table) -> NDArray[np.bool_]:
        inside = np.ones(table.num_rows, np.bool_)
        if self._before is not None or self._since is not None:
            time = _read_times(table, self.spec.time or "")
            if self._before is not None:
                inside &= time < self._before
            if self._since is not None:
                inside &= time >= self._since
        return inside

    def _encode(self, table: pa.Table, threads: int) -> Batch:
        spec = self.spec
        encoded = spec.encoder.encode(table, threads)
        return Batch(
            inputs=encoded.inputs,
            labels=read_labels(table, spec),
            weights=_read_weights(table, spec),
            groups=columns.hash_keys(table, spec.group) if spec.group else None,
            counts=tuple(encoded.counts),
        )


def split_by_time(rows: Rows, fraction: float) -> tuple[Rows, Rows]:
    """Hold out the newest rows; rows of the boundary's time all go to validation.

    So no row that is trained on is as new as one that is judged, however the rows are
    ordered and spread over files. Keeps 8 bytes a row while it looks for the boundary.

    Raises
    ------
    InputError
        If the spec names no time, a time is missing, or all rows are equally new.
    """
    spec = rows.spec
    if spec.time is None:
        rule = "a validation file, or a `time` column in the spec to split by"
        fix = "Give --valid FILE, or --valid-fraction 0 to train without validation."
        raise InputError(rule, "neither", "valid", fix)
    found = list(rows.times())
    if not found:
        return rows, rows
    time = np.concatenate([t for _, t in found])
    at = min(int(len(time) * (1 - fraction)), len(time) - 1)
    boundary = float(np.partition(time, at)[at])
    if time.min() >= boundary:
        rule = "times before the newest ones, to train on"
        raise InputError(rule, f"all at {boundary:g} or later", spec.time)
    older = [replace(p, kept=int((t < boundary).sum())) for p, t in found]
    newest = [replace(p, kept=int((t >= boundary).sum())) for p, t in found]
    return Rows(spec, older, before=boundary), Rows(spec, newest, since=boundary)


def read_labels(table: pa.Table, spec: FeatureSpec) -> NDArray[np.float32]:
    """Read the label column as float32 of 0 and 1; anything else is an InputError."""
    name = spec.label or ""
    labels = columns.floats(numbers_of(table, name, "a label 0 or 1"), name)
    wrong = (labels != 0) & (labels != 1)
    if wrong.any():
        row = int(np.argmax(wrong))
        got = "null" if np.isnan(labels[row]) else labels[row]
        raise InputError("a label 0 or 1", got, name, row=row)
    return labels.astype(np.float32)


def _read_weights(table: pa.Table, spec: FeatureSpec) -> NDArray[np.float32] | None:
    if spec.weight is None:
        return None
    rule = "a finite weight of at least 0"
    weights = columns.floats(numbers_of(table, spec.weight, rule), spec.weight)
    wrong = ~((weights >= 0) & np.isfinite(weights))
    rule, fix = "a finite weight of at least 0", ""
    if not wrong.any():
        least = np.finfo(np.float32).tiny
        wrong = (weights > LARGEST_WEIGHT) | ((weights > 0) & (weights < least))
        rule = f"a weight of 0, or from {least:g} to {LARGEST_WEIGHT:g}"
        fix = "Divide all weights by their mean: only their ratios count."
    if wrong.any():
        row = int(np.argmax(wrong))
        got = "null" if np.isnan(weights[row]) else weights[row]
        raise InputError(rule, got, spec.weight, fix, row=row)
    return weights.astype(np.float32)


def _read_times(table: pa.Table, name: str) -> NDArray[np.float64]:
    """Read a time column as numbers: as they are; of dates and timestamps, seconds."""
    if name not in table.column_names:
        return columns.floats(table, name)
    column = times_of(table, name)
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        # One unit, since one file may have another than the next.
        unit = kind.unit if pa.types.is_timestamp(kind) else "ms"
        ticks = column.cast(pa.timestamp(unit)).cast(pa.int64())
        seconds = columns.floats(pa.table({name: ticks}), name)
        return seconds / TICKS_PER_SECOND[unit]
    if pa.types.is_time32(kind):
        column = column.cast(pa.int32())
    elif pa.types.is_temporal(kind):
        column = column.cast(pa.int64())
    return columns.floats(pa.table({name: column}), name)


def _time_form(table: pa.Table, name: str) -> set[bool]:
    """Tell whether times are dates or timestamps; nothing of those that are null."""
    if name not in table.column_names or table[name].null_count == table.num_rows:
        return set()
    kind = times_of(table, name).type
    return {pa.types.is_timestamp(kind) or pa.types.is_date(kind)}


def _roles(spec: FeatureSpec) -> list[str]:
    """Columns that training reads beside the features."""
    if spec.label is None:
        raise ModelError("a `label` column", "none", "spec.label")
    return [r for r in (spec.label, spec.weight, spec.group, spec.time) if r]


def _filter(table: pa.Table, inside: NDArray[np.bool_]) -> pa.Table:
    return table if inside.all() else table.filter(pa.array(inside))


def _pieces(
    source: Source, opened: Callable[[], Reader], sizes: Sequence[int]
) -> list[Piece]:
    """Cut a table into pieces: a row group each, or several small batches of Arrow."""
    pieces = []
    groups: list[int] = []
    start = rows = 0
    for group, size in enumerate(sizes):
        groups.append(group)
        rows += size
        last = group + 1 == len(sizes)
        if source.format == "parquet" or last or rows + sizes[group + 1] > PIECE_ROWS:
            if rows:
                load = partial(_load_groups, opened, tuple(groups))
                pieces.append(Piece(str(source), start, rows, rows, load))
            start += rows
            groups, rows = [], 0
    return pieces


def _load_groups(
    opened: Callable[[], Reader], groups: Sequence[int], names: Sequence[str]
) -> Iterator[pa.Table]:
    with closing(opened()) as reader:
        found = [n for n in names if n in reader.schema.names]
        for batch in reader.prepared(found, PIECE_ROWS, groups):
            yield pa.Table.from_batches([batch])
