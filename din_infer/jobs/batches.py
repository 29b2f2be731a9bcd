"""Score Arrow batches: tables of rows, or of requests with lists of candidates.

What every job shares, on files or on an engine: which columns to read, what form the
table has, what a bad row does, and the batch that comes out.

Letters: B requests, N candidates.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from din_infer.encode import Stats
from din_infer.errors import InputError
from din_infer.jobs.forms import (
    SCORE,
    OnError,
    find_form,
    output_schema,
    parallel_lists,
)
from din_infer.jobs.reader import one_batch
from din_infer.link import PLACES
from din_infer.predictor import Predictor

__all__ = ["BatchScorer", "Scored"]

# Candidates of the requests that are scored at a time: bounds memory.
MOST_CANDIDATES = 1 << 15
# That kept columns become when they are repeated for each candidate.
MOST_BYTES = 1 << 24


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
        keep: Sequence[str] = (),
        explode: bool = False,
        on_error: OnError = "fail",
        prepare: Callable[[pa.RecordBatch], pa.RecordBatch] = lambda batch: batch,
    ) -> None:
        if on_error not in get_args(OnError):
            rule = "one of " + ", ".join(get_args(OnError))
            raise InputError(rule, repr(on_error), "on_error")
        spec = predictor.spec
        self.schema = output_schema(spec, schema, keep, explode, on_error)
        self._form = find_form(spec, schema)
        outer = [n if n in schema.names else self._form.lists[n][0] for n in keep]
        self.columns = list(dict.fromkeys([*self._form.columns, *outer]))
        self.is_requests = self._form.is_requests
        self._predictor = predictor
        self._keep = list(keep)
        self._explode = explode
        self._on_error = on_error
        self._prepare = prepare
        self._parallel = parallel_lists(spec, schema, self._form, keep)
        self._users = [
            n
            for n in dict.fromkeys(
                (*spec.encoder.user_columns, *spec.encoder.optional_user_columns)
            )
            if n in schema.names
        ]

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
        counted = Stats()
        made = self._attempt(batch, 0, counted)
        if stats is not None:
            stats.merge(counted)
        bad = [why for _, _, why in made if why is not None]
        parts = [part for _, part, _ in made if part is not None]
        if len(parts) == 1:
            return Scored(parts[0], bad)
        return Scored(one_batch(pa.Table.from_batches(parts, self.schema)), bad)

    def cut(self, batch: pa.RecordBatch, most: int) -> Iterator[pa.RecordBatch]:
        """Cut a batch of requests, by their candidates: `most`, or one request, each.

        Other batches stay whole, as do lines that are not parsed yet.
        """
        column = next((c for c, _ in self._form.lists.values()), "")
        if column not in batch.schema.names:
            yield batch
            return
        if self._explode and batch.num_rows:
            # what is repeated for each candidate is counted in bytes too
            again = [n for n in self._keep if n in batch.schema.names]
            size = sum(batch.column(n).nbytes for n in again if n not in self._parallel)
            most = max(1, min(most, MOST_BYTES * batch.num_rows // max(1, size)))
        for first, stop in _slices(_lengths_of(batch.column(column)), most):
            yield batch.slice(first, stop - first)

    def _attempt(
        self, batch: pa.RecordBatch, start: int, stats: Stats
    ) -> list[tuple[int, pa.RecordBatch | None, InputError | None]]:
        """Score a batch; where a row is bad, its halves, down to that row.

        Returns (first row, what came out, why nothing did) of each part.
        """
        count = batch.num_rows
        try:
            ready = self._prepare(batch)
            score = self._score_requests if self.is_requests else self._score_rows
            return [(start, score(ready, stats), None)]
        except InputError as error:
            if self._on_error == "fail" or error.row is None:
                raise
            if count == 1:
                out = self._without_score(batch) if self._on_error == "null" else None
                return [(start, out, error.at(row=start + (error.row or 0)))]
        half = count // 2
        return [
            *self._attempt(batch.slice(0, half), start, stats),
            *self._attempt(batch.slice(half), start + half, stats),
        ]

    def _without_score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Keep what can be kept of a bad row, with a null score."""
        try:
            ready = self._prepare(batch)
            columns = [self._kept(ready, name) for name in self._keep]
        except InputError:
            columns = [pa.nulls(1, f.type) for f in self.schema][:-1]
        return self._batch([*columns, pa.nulls(1, self.schema.field(SCORE).type)])

    def _score_rows(self, batch: pa.RecordBatch, stats: Stats) -> pa.RecordBatch:
        rows = batch.select(self._form.columns)
        scores = _arrow(self._predictor.score_counted(rows, stats), pa.float32())
        return self._batch([*(batch.column(name) for name in self._keep), scores])

    def _score_requests(self, batch: pa.RecordBatch, stats: Stats) -> pa.RecordBatch:
        lengths = self._lengths(batch)
        made = [np.zeros(0, np.float32)]
        counted = Stats()
        for first, stop in _slices(lengths, MOST_CANDIDATES):
            part = batch.slice(first, stop - first)
            made.append(self._score_part(part, lengths[first:stop], first, counted))
        stats.merge(counted)
        scores = _arrow(np.concatenate(made), pa.float32())
        if self._explode:
            owners = _arrow(np.repeat(np.arange(len(lengths)), lengths), pa.int64())
            columns = [self._exploded(batch, name, owners) for name in self._keep]
            return self._batch([*columns, scores])
        columns = [self._kept(batch, name) for name in self._keep]
        kind = self.schema.field(SCORE).type
        offsets = _offsets(lengths)
        lists = pa.ListArray.from_arrays(offsets, scores, type=kind)
        return self._batch([*columns, lists])

    def _score_part(
        self,
        batch: pa.RecordBatch,
        lengths: NDArray[np.int64],
        first: int,
        stats: Stats,
    ) -> NDArray[np.float32]:
        candidates = {name: self._flat(batch, name) for name in self._form.lists}
        owners = np.repeat(np.arange(len(lengths)), lengths)
        users = batch.select(self._users)
        try:
            return self._predictor.score_requests_counted(
                users, candidates, owners, stats
            )
        except InputError as error:
            raise self._at_request(error, owners, first) from None

    def _at_request(
        self, error: InputError, owners: NDArray[np.int64], first: int
    ) -> InputError:
        """Name the request's row, and the candidate in its lists."""
        row = error.row
        if row is None:
            return error
        if error.column not in self._form.lists and error.column not in PLACES:
            return error.at(row=first + row)
        request = int(owners[row])
        candidate = row - int(np.searchsorted(owners, request))
        return error.at(row=first + request, candidate=candidate)

    def _lists(self, batch: pa.RecordBatch, column: str) -> Any:  # noqa: ANN401
        lists = batch.column(column)
        if pa.types.is_fixed_size_list(lists.type):
            lists = lists.cast(pa.list_(lists.type.value_type))
        return lists

    def _flat(self, batch: pa.RecordBatch, name: str) -> Any:  # noqa: ANN401
        """Take a candidate column out of its lists: one value per candidate."""
        column, inner = self._form.lists[name]
        values = self._lists(batch, column).flatten()
        # of a null struct all fields are null, which `field` would not see
        return values if inner is None else pc.struct_field(values, inner)

    def _lengths(self, batch: pa.RecordBatch) -> NDArray[np.int64]:
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
            elif (mine != lengths).any():
                row = int((mine != lengths).argmax())
                rule = f"{lengths[row]} candidates, as `{first}` has"
                raise InputError(rule, mine[row], column, row=row)
        return np.zeros(0, np.int64) if lengths is None else lengths

    def _kept(self, batch: pa.RecordBatch, name: str) -> Any:  # noqa: ANN401
        """Return a kept column; of a field of structs, its lists."""
        if name in batch.schema.names:
            return batch.column(name)
        lengths = _lengths_of(batch.column(self._form.lists[name][0]))
        return pa.ListArray.from_arrays(_offsets(lengths), self._flat(batch, name))

    def _exploded(
        self,
        batch: pa.RecordBatch,
        name: str,
        owners: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Return a kept column with a value for each candidate."""
        if name not in batch.schema.names:
            return self._flat(batch, name)
        if name in self._parallel:
            return self._lists(batch, name).flatten()
        return batch.column(name).take(owners)

    def _batch(self, columns: list[Any]) -> pa.RecordBatch:
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)


def _arrow(array: NDArray[Any], kind: pa.DataType) -> Any:  # noqa: ANN401
    """View an array as Arrow's; `pyarrow.array` would first import pandas."""
    buffer = pa.py_buffer(np.ascontiguousarray(array))
    return pa.Array.from_buffers(kind, len(array), [None, buffer])


def _lengths_of(lists: Any) -> NDArray[np.int64]:  # noqa: ANN401
    """Count the elements of every list; a null list has none, whatever lies there."""
    counts = pc.fill_null(pc.list_value_length(lists), 0)
    return np.asarray(counts).astype(np.int64)


def _offsets(lengths: NDArray[np.integer[Any]]) -> Any:  # noqa: ANN401
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
