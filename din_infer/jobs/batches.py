"""Score Arrow batches: tables of rows, or of requests with lists of candidates.

What every job shares, on files or on an engine: which columns to read, what form the
table has, what a bad row does, and the batch that comes out.

Above 400 lines: one class, whose two forms of tables share bad rows and outputs.
Letters: B requests, N candidates.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from din_infer.encode import Counts, Stats
from din_infer.errors import InputError, renumbered, report
from din_infer.jobs.forms import (
    SCORE,
    Kept,
    OnError,
    as_kept,
    cast_type,
    find_form,
    output_schema,
    parallel_lists,
)
from din_infer.jobs.reader import one_batch
from din_infer.jobs.text_values import cast_each, shown
from din_infer.predictor import Predictor

__all__ = ["BatchScorer", "Scored"]

# Candidates of the requests that are scored at a time: bounds memory.
MOST_CANDIDATES = 1 << 15
# That kept columns become when they are repeated for each candidate.
MOST_BYTES = 1 << 24


Prepare = Callable[[pa.RecordBatch, list[InputError] | None], pa.RecordBatch]


@dataclass
class Scored:
    """A batch of kept columns and scores; `errors` name the bad rows of the input."""

    batch: pa.RecordBatch
    errors: list[InputError] = field(default_factory=list)

    @property
    def bad(self) -> list[tuple[int | None, str]]:
        """The bad rows, each with what is wrong."""
        return [(error.row, str(error)) for error in self.errors]


class BatchScorer:
    """Scores batches of one schema; may be shared by threads, as its Predictor may.

    Parameters
    ----------
    predictor : Predictor
    schema : pyarrow.Schema
        What the batches have; more columns than are read do no harm.
    keep, explode
        As in `output_schema`.
    on_error : {"fail", "skip", "null"}
        What a row does that does not fit the spec: raise, be left out, or have a null
        score. Errors of whole columns always raise.
    prepare : callable
        Makes of a batch that `score` is given one that has `schema`: parses its text.
        Its second argument is a list, which takes the errors of rows, of which null is
        what could not be parsed, or None: the first error raises.

    Raises
    ------
    InputError
        If the table lacks columns, or columns contradict each other.

    Attributes
    ----------
    columns : list of str
        The columns that are read: the model's, and the kept ones.
    schema : pyarrow.Schema
        Of what `score` returns.
    is_requests : bool
        Whether the table's rows are requests with lists of candidates.
    """

    def __init__(
        self,
        predictor: Predictor,
        schema: pa.Schema,
        *,
        keep: Sequence[str | Kept] = (),
        explode: bool = False,
        on_error: OnError = "fail",
        prepare: Prepare = lambda batch, _: batch,
    ) -> None:
        if on_error not in get_args(OnError):
            rule = "one of " + ", ".join(get_args(OnError))
            raise InputError(rule, repr(on_error), "on_error")
        spec = predictor.spec
        self.schema = output_schema(spec, schema, keep, explode, on_error)
        self._form = find_form(spec, schema)
        kept = as_kept(keep)
        lists = self._form.lists
        outer = [
            k.column if k.column in schema.names else lists[k.column][0] for k in kept
        ]
        self.columns = list(dict.fromkeys([*self._form.columns, *outer]))
        self.is_requests = self._form.is_requests
        self._predictor = predictor
        self._encoder = spec.encoder
        self._keep, self._explode = kept, explode
        self._on_error, self._prepare = on_error, prepare
        self._parallel = parallel_lists(spec, schema, self._form, kept)
        self._kinds = {
            k.name: cast_type(schema.field(k.column).type, k.kind, k.name)
            for k in kept
            if k.kind is not None
        }
        users = (*spec.encoder.user_columns, *spec.encoder.optional_user_columns)
        self._users = [n for n in dict.fromkeys(users) if n in schema.names]

    def score(self, batch: pa.RecordBatch, stats: Stats | None = None) -> Scored:
        """Score one batch, rows in order.

        Parameters
        ----------
        batch : pyarrow.RecordBatch
            Has the columns that `columns` lists, once `prepare` has made them.
        stats : Stats, optional
            Counts of the rows that have scores are added to it.

        Returns
        -------
        Scored
            A batch of `schema`; and which rows were bad, unless they raise.

        Raises
        ------
        InputError
            Naming column, row of the batch and value, where a row does not fit the spec
            and `on_error` is "fail"; where a column does not fit in any case.
        """
        errors: list[InputError] | None = None if self._on_error == "fail" else []
        ready = self._cast(self._prepare(batch, errors), errors)
        wrong = {e.row: e for e in reversed(errors or ()) if e.row is not None}
        good = np.delete(np.arange(ready.num_rows), list(wrong))
        left = _take(ready, good) if wrong else ready
        while True:
            found: list[InputError] | None = None if errors is None else []
            scores, lengths, counts = self._attempt(left, found)
            if not found or errors is None:
                break
            more = {e.row: e for e in reversed(found) if e.row is not None}
            wrong |= {int(good[k]): e.at(row=good[k]) for k, e in more.items()}
            good = np.delete(good, list(more))
            left = _take(ready, good)
        for some in counts if len(good) or not wrong else ():
            self._predictor.count(some)
            if stats is not None:
                stats.add_all(some)
        if not wrong:
            return Scored(self._output(ready, scores, lengths))
        rows = [wrong[row] for row in sorted(wrong)]
        if self._on_error == "skip":
            return Scored(self._output(left, scores, lengths), rows)
        is_good = np.zeros(ready.num_rows, bool)
        is_good[good] = True
        if lengths is None:
            scores = _scatter(scores, is_good)
        else:
            lengths = _scatter(lengths, is_good)
        return Scored(self._output(ready, scores, lengths, is_good), rows)

    def _cast(
        self, batch: pa.RecordBatch, errors: list[InputError] | None
    ) -> pa.RecordBatch:
        """Add kept columns in the types that were asked for, under the names of both.

        A value that cannot be cast is an error of its row, and null.
        """
        for name, column, kind in self._keep:
            if kind is None:
                continue
            values = batch.column(column)
            made, bad = cast_each(values, self._kinds[name])
            for row in bad:
                got = shown(values[row].as_py())
                report(
                    InputError(f"a value of type {kind}", got, name, row=row), errors
                )
            batch = batch.append_column(_name_of(column, kind), made)
        return batch

    def cut(self, batch: pa.RecordBatch, most: int) -> Iterator[pa.RecordBatch]:
        """Cut a batch of requests, by their candidates: `most`, or one request, each.

        Other batches stay whole, as do lines that are not parsed yet.
        """
        column = next((c for c, _ in self._form.lists.values()), None)
        if column is None or column not in batch.schema.names:
            yield batch
            return
        if self._explode and batch.num_rows:
            # what is repeated for each candidate is counted in bytes too
            again = [k.column for k in self._keep if k.name not in self._parallel]
            names = batch.schema.names
            size = sum(batch.column(n).nbytes for n in again if n in names)
            most = max(1, min(most, MOST_BYTES * batch.num_rows // max(1, size)))
        for first, stop in _slices(_lengths_of(batch.column(column)), most):
            yield batch.slice(first, stop - first)

    def _attempt(
        self, batch: pa.RecordBatch, errors: list[InputError] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64] | None, list[Counts]]:
        """Score a batch, or find the rows of it that are bad.

        Returns scores, how many belong to each request, and counts: of no use where
        there are errors.
        """
        made, counts = [np.zeros(0, np.float32)], []
        if not self.is_requests:
            rows = batch.select(self._form.columns)
            pieces = self._encoder.encode_pieces(
                rows, self._predictor.threads, merge_repeats=True, errors=errors
            )
            for encoded in pieces:
                if not errors:
                    made.append(self._predictor.scores_of(encoded, errors=errors))
                counts.append(encoded.counts)
            return np.concatenate(made), None, counts
        lengths = self._lengths(batch, errors)
        # lists of different lengths cannot be flattened side by side
        for first, stop in [] if errors else _slices(lengths, MOST_CANDIDATES):
            part = batch.slice(first, stop - first)
            with renumbered(errors, partial(_move, first)) as found:
                scores, some = self._score_part(part, lengths[first:stop], found)
            made += scores
            counts += some
        return np.concatenate(made), lengths, counts

    def _score_part(
        self,
        batch: pa.RecordBatch,
        lengths: NDArray[np.int64],
        errors: list[InputError] | None,
    ) -> tuple[list[NDArray[np.float32]], list[Counts]]:
        """Score some requests, in pieces where lists are long."""
        predictor = self._predictor
        candidates = pa.RecordBatch.from_arrays(
            [self._flat(batch, name) for name in self._form.lists],
            schema=pa.schema([self._field(batch, name) for name in self._form.lists]),
        )
        owners = np.repeat(np.arange(len(lengths)), lengths)
        users = batch.select(self._users)

        def of_request(error: InputError) -> InputError:
            """Name the request's row, and the candidate in its lists."""
            request = int(owners[error.row])
            first = int(np.searchsorted(owners, request))
            return error.at(row=request, candidate=(error.row or 0) - first)

        def of_column(error: InputError) -> InputError:
            is_users = error.row is None or error.column not in self._form.lists
            return error if is_users else of_request(error)

        made, counts = [], []
        not_finite: list[InputError] | None = None if errors is None else []
        with renumbered(errors, of_column) as found:
            for encoded in self._encoder.encode_request_pieces(
                users, candidates, owners, predictor.threads, errors=found
            ):
                counts.append(encoded.counts)
                if not found:
                    with renumbered(not_finite, of_request) as wrong:
                        made.append(predictor.scores_of(encoded, errors=wrong))
        if errors is not None:
            errors += not_finite or ()
        return made, counts

    def _lists(self, batch: pa.RecordBatch, column: str) -> pa.Array:
        lists = batch.column(column)
        if pa.types.is_fixed_size_list(lists.type):
            lists = lists.cast(pa.list_(lists.type.value_type))
        return lists

    def _field(self, batch: pa.RecordBatch, name: str) -> pa.Field:
        """Say what `_flat` gives: a field's metadata may name an extension type."""
        column, inner = self._form.lists[name]
        item = batch.schema.field(column).type.value_field
        return (item if inner is None else item.type.field(inner)).with_name(name)

    def _flat(self, batch: pa.RecordBatch, name: str) -> pa.Array:
        """Take a candidate column out of its lists: one value per candidate."""
        column, inner = self._form.lists[name]
        values = self._lists(batch, column).flatten()
        # of a null struct all fields are null, which `field` would not see
        return values if inner is None else pc.struct_field(values, inner)

    def _lengths(
        self, batch: pa.RecordBatch, errors: list[InputError] | None
    ) -> NDArray[np.int64]:
        """Count the candidates of every request: all its lists must agree."""
        first = ""
        lengths: NDArray[np.int64] | None = None
        columns = dict.fromkeys(column for column, _ in self._form.lists.values())
        if self._explode:
            columns |= dict.fromkeys(self._parallel)
        for column in columns:
            mine = _lengths_of(batch.column(column))
            if lengths is None:
                first, lengths = column, mine
                continue
            for row in np.flatnonzero(mine != lengths):
                rule = f"{lengths[row]} candidates, as `{first}` has"
                report(InputError(rule, mine[row], column, row=int(row)), errors)
        return np.zeros(0, np.int64) if lengths is None else lengths

    def _kept(self, batch: pa.RecordBatch, kept: Kept) -> pa.Array:
        """Return a kept column; of a field of structs, its lists."""
        column = _name_of(kept.column, kept.kind)
        if column in batch.schema.names:
            return batch.column(column)
        lengths = _lengths_of(batch.column(self._form.lists[column][0]))
        return pa.ListArray.from_arrays(_offsets(lengths), self._flat(batch, column))

    def _exploded(
        self, batch: pa.RecordBatch, kept: Kept, owners: pa.Array
    ) -> pa.Array:
        """Return a kept column with a value for each candidate."""
        column = _name_of(kept.column, kept.kind)
        if column not in batch.schema.names:
            return self._flat(batch, column)
        if kept.name in self._parallel:
            return self._lists(batch, column).flatten()
        return _repeat(batch.column(column), owners)

    def _output(
        self,
        batch: pa.RecordBatch,
        scores: NDArray[np.float32],
        lengths: NDArray[np.int64] | None,
        is_good: NDArray[np.bool_] | None = None,
    ) -> pa.RecordBatch:
        """Put kept columns and scores together; rows that are not good have null."""
        if lengths is None:
            columns = [self._kept(batch, k) for k in self._keep]
            columns.append(_arrow(scores, pa.float32(), is_good))
        elif self._explode:
            owners = _arrow(np.repeat(np.arange(len(lengths)), lengths), pa.int64())
            columns = [self._exploded(batch, k, owners) for k in self._keep]
            columns.append(_arrow(scores, pa.float32()))
        else:
            columns = [self._kept(batch, k) for k in self._keep]
            kind = self.schema.field(SCORE).type
            buffers = [_bits(is_good), _offsets(lengths).buffers()[1]]
            values = [_arrow(scores, pa.float32())]
            made = pa.Array.from_buffers(kind, len(lengths), buffers, children=values)
            columns.append(made)
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)


def _name_of(column: str, kind: pa.DataType | None) -> str:
    """Name a column in a batch: one that was cast is there beside what it was."""
    return column if kind is None else f"{column}\0{kind}"


def _move(start: int, error: InputError) -> InputError:
    return error if error.row is None else error.at(row=error.row + start)


def _take(batch: pa.RecordBatch, rows: NDArray[np.int64]) -> pa.RecordBatch:
    """Copy rows, which rise; pyarrow's `take` does not know all types."""
    cuts = np.flatnonzero(np.diff(rows) != 1) + 1
    runs = np.split(rows, cuts)
    parts = [batch.slice(run[0], len(run)) for run in runs if len(run) > 0]
    return one_batch(pa.Table.from_batches(parts, batch.schema))


def _repeat(column: pa.Array, rows: pa.Array) -> pa.Array:
    """Copy rows, some of them again."""
    try:
        return column.take(rows)
    except pa.ArrowNotImplementedError:  # of views: slower
        parts = [column.slice(row, 1) for row in rows.to_pylist()]
        return pa.concat_arrays(parts or [column.slice(0, 0)])


def _scatter(values: NDArray[Any], chosen: NDArray[np.bool_]) -> NDArray[Any]:
    """Put values where rows are chosen, and 0 elsewhere."""
    out = np.zeros(len(chosen), values.dtype)
    out[chosen] = values
    return out


def _arrow(
    array: NDArray[Any], kind: pa.DataType, valid: NDArray[np.bool_] | None = None
) -> pa.Array:
    """View an array as Arrow's; `pyarrow.array` would first import pandas."""
    buffer = pa.py_buffer(np.ascontiguousarray(array))
    return pa.Array.from_buffers(kind, len(array), [_bits(valid), buffer])


def _bits(valid: NDArray[np.bool_] | None) -> pa.Buffer | None:
    """Pack a validity bitmap; None: all are valid."""
    if valid is None:
        return None
    return pa.py_buffer(np.packbits(valid, bitorder="little"))


def _lengths_of(lists: pa.Array) -> NDArray[np.int64]:
    """Count the elements of every list; a null list has none, whatever lies there."""
    return np.asarray(pc.fill_null(pc.list_value_length(lists), 0)).astype(np.int64)


def _offsets(lengths: NDArray[np.integer[Any]]) -> pa.Array:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return _arrow(offsets.astype(np.int32), pa.int32())


def _slices(lengths: NDArray[np.int64], most: int) -> Iterator[tuple[int, int]]:
    """Cut requests so that each part has at most `most` candidates, or one request."""
    ends = np.cumsum(lengths)
    first = 0
    while first < len(lengths):
        before = int(ends[first - 1]) if first else 0
        stop = int(np.searchsorted(ends, before + most, side="right"))
        stop = max(stop, first + 1)
        yield first, stop
        first = stop
