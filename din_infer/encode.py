"""Columns -> the inputs of the model's graph, as the spec says.

Above 400 lines: the steps, their counts, and the public functions that are one step.
Letters: B requests, N candidates, T positions, V elements of all lists together.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import groupby, pairwise, starmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from din_infer import _kernels
from din_infer.columns import Batch, integers, open_batch, require_dtype, to_column
from din_infer.encoded_requests import EncodedRequests
from din_infer.errors import (
    InputError,
    check_count,
    is_whole,
    reads_arguments,
    renumbered,
    report,
)
from din_infer.list_texts import how_to_split, split_columns, texts_of
from din_infer.spec_parts import (
    Behavior,
    Dense,
    Encoder,
    Field,
    MultiHot,
    ReadColumn,
    columns_of_sides,
    inputs_of,
    required_columns,
    seed_rule,
)
from din_infer.spec_scales import check_fitted, compile_scale

__all__ = [
    "Encoded",
    "FeatureEncoder",
    "FieldStats",
    "Stats",
    "encode_values",
    "hash_buckets",
    "of_candidates",
    "pad",
]

Inputs = dict[str, NDArray[np.int64] | NDArray[np.float32]]
Counts = Sequence[tuple[str, int, int, int, int, int]]
"""What `Stats.add` takes, once per field."""

# Elements that one thread encodes at a time: long against what handing them over costs.
PART = 1 << 16
# Rows that one thread compares with the rows before them at a time.
ROWS_TO_MARK = 1 << 13
# Measured: below these, one request of several rows saves less than finding them costs.
FEWEST_ROWS_TO_MERGE = 1 << 10
FEWEST_ROWS_PER_RUN = 3
# A batch whose longest list would make of a column of lists more padded ids than this,
# and than so many times its elements, is encoded in pieces: ids of 32 MiB, where one
# long list among short ones could ask for any number.
MOST_CELLS = 1 << 22
MOST_PADDING = 4
_USE_REQUESTS = "Use score_requests for lists of candidates."


@dataclass(slots=True)
class FieldStats:
    """Counts of one field; nulls and unseen are per occurrence among what is kept."""

    rows: int = 0
    nulls: int = 0
    unseen: int = 0
    truncated: int = 0
    empty: int = 0


@dataclass
class Stats:
    """Counts per field, under the names of the model's inputs; not locked.

    Examples
    --------
    >>> a, b = Stats(), Stats()
    >>> a.add("goods_id", rows=2, nulls=1)
    >>> b.add("goods_id", rows=3)
    >>> a.merge(b)
    >>> a.to_dict()["goods_id"]["rows"]
    5
    """

    fields: dict[str, FieldStats] = field(default_factory=dict)

    def add(
        self,
        name: str,
        rows: int = 0,
        nulls: int = 0,
        unseen: int = 0,
        truncated: int = 0,
        empty: int = 0,
    ) -> None:
        """Add counts to one field."""
        counts = self.fields.get(name)
        if counts is None:
            counts = self.fields[name] = FieldStats()
        counts.rows += rows
        counts.nulls += nulls
        counts.unseen += unseen
        counts.truncated += truncated
        counts.empty += empty

    def add_all(self, counts: Counts) -> None:
        """Add counts to many fields."""
        for of_field in counts:
            self.add(*of_field)

    def merge(self, other: "Stats") -> None:
        """Add the counts of `other`."""
        for name, more in other.fields.items():
            self.add(name, **asdict(more))

    def __add__(self, other: "Stats") -> "Stats":
        out = Stats()
        out.merge(self)
        out.merge(other)
        return out

    def to_dict(self) -> dict[str, dict[str, int]]:
        """Return plain dicts of ints."""
        return {name: asdict(counts) for name, counts in self.fields.items()}


def _compile(encoder: Encoder, dtype: str) -> _kernels.Encoder:
    vocabulary = encoder.vocabulary
    if encoder.type == "vocab" and (vocabulary is None or vocabulary.dtype != dtype):
        vocabulary = _kernels.Vocabulary(list(encoder.values), dtype)
    return _kernels.Encoder(
        encoder.type,
        dtype,
        rows=encoder.rows,
        hash=encoder.hash,
        seed=encoder.seed,
        reduce=encoder.reduce,
        int_as=encoder.int_as,
        vocabulary=vocabulary,
        unseen=encoder.unseen,
        boundaries=encoder.boundaries,
        uuid_as=encoder.uuid_as,
        mask_value=encoder.mask_value,
        prefix=encoder.prefix,
        alternate_sign=encoder.alternate_sign,
        is_seeded=encoder.is_seeded,
    )


@dataclass(slots=True)
class Encoded:
    """What encoding a batch makes.

    Attributes
    ----------
    inputs : dict of arrays
        One C-contiguous array per input of the spec; owned by the caller.
    counts : list of tuple
        What `Stats.add` takes, once per field.
    candidates : int64 [N], optional
        Of a piece of a batch: which candidates of the batch these are.
    """

    inputs: Inputs
    counts: Counts
    candidates: NDArray[np.int64] | None = None

    @property
    def stats(self) -> Stats:
        """The counts per field."""
        made = Stats()
        made.add_all(self.counts)
        return made


class _Work:
    """What encoding one batch has made so far.

    `pending` holds (input, its encoding, rows that lost elements, empty rows, runs),
    `counts` what `Stats.add` takes. With a list of `errors`, the error of every bad row
    is appended there; without one, the first raises.
    """

    __slots__ = ("_runs", "counts", "errors", "made", "pending")

    def __init__(self, errors: list[InputError] | None = None) -> None:
        self.made: Inputs = {}
        self.pending: list[
            tuple[str, _kernels.Encoding, int, int, NDArray[np.int64] | None]
        ] = []
        self.counts: list[tuple[str, int, int, int, int, int]] = []
        self.errors = errors
        self._runs: NDArray[np.int64] | None = None

    def begin(
        self, steps: "list[_Step]", batch: Batch, runs: NDArray[np.int64] | None
    ) -> None:
        """Take the steps of one side.

        Each row of the batch stands for the rows from `runs[row]` to `runs[row + 1]`
        of the caller's table; None: for itself.
        """
        self._runs = runs
        found = len(self.errors or ())
        try:
            for step in steps:
                step(batch, self)
        except InputError as error:
            raise _first_row(error, runs) from None
        self._spread(found, runs)

    def add(
        self, name: str, encoding: _kernels.Encoding | None, truncated: int, empty: int
    ) -> None:
        """Leave an encoding, of one column or more, to `finish`."""
        if encoding is not None:
            self.pending.append((name, encoding, truncated, empty, self._runs))

    def finish(self, threads: int) -> None:
        """Encode what is pending: then all is made, and counted."""
        made, counts = self.made, self.counts
        if threads > 1:
            _run_all([encoding for _, encoding, *_ in self.pending], threads)
        for name, encoding, truncated, empty, runs in self.pending:
            found = len(self.errors or ())
            if threads == 1:
                encoding.run(0, encoding.num_rows)
            try:
                made[name], nulls, unseen = encoding.finish()
            except InputError as error:
                raise _first_row(error, runs) from None
            self._spread(found, runs)
            rows = encoding.num_counted
            counts.append((name, rows, nulls, unseen, truncated, empty))

    def _spread(self, found: int, runs: NDArray[np.int64] | None) -> None:
        """Give all rows of a run the error of the run; `found` errors are of rows."""
        if self.errors and runs is not None:
            of_runs = self.errors[found:]
            del self.errors[found:]
            for error in of_runs:
                rows = range(*runs[error.row : (error.row or 0) + 2].tolist())
                self.errors += [error.at(row=row) for row in rows]


def _first_row(error: InputError, runs: NDArray[np.int64] | None) -> InputError:
    """Name the first row of the table that a run with an error stands for."""
    if runs is None or error.row is None:
        return error
    return error.at(row=runs[error.row])


_Step = Callable[[Batch, _Work], None]
# Of each input of ids, the columns that are hashed to it: name, dtype and encoder.
_Fields = list[tuple[str, list[tuple[str, str, _kernels.Encoder]]]]


def _scalar_step(spec: Field, fields: _Fields) -> _Step:
    fix = _USE_REQUESTS if spec.side == "candidate" else ""

    def step(batch: Batch, work: _Work) -> None:
        for name, own in fields:
            encoding = None
            for column_name, dtype, encoder in own:
                column = require_dtype(
                    batch.columns[column_name],
                    dtype,
                    is_list=False,
                    uuid_as=encoder.uuid_as,
                    fix=fix,
                    is_key=True,
                )
                encoding = _kernels.prepare_scalars(
                    column, encoder, work.errors, encoding
                )
            work.add(name, encoding, 0, 0)

    return step


def _lists_step(spec: Behavior | MultiHot, fields: _Fields) -> _Step:
    """Encode the parallel lists of the fields."""
    newest_first = getattr(spec, "order", "") == "newest_first"
    lengths_name = f"{spec.name}.lengths"
    is_fixed = spec.padding == "attended"
    is_narrowed = spec.length_column is not None or spec.pad_value is not None
    attention = getattr(spec, "attention", None)  # of a behavior sequence
    pad_value = spec.pad_value if attention is not None and attention.softmax else None
    if getattr(spec, "empty_softmax", "") != "padding_row":
        pad_value = None

    def step(batch: Batch, work: _Work) -> None:
        columns = [
            [
                require_dtype(
                    batch.columns[c],
                    t,
                    is_list=True,
                    uuid_as=e.uuid_as,
                    fix=how_to_split(batch.columns[c], spec),
                    is_key=True,
                )
                for c, t, e in own
            ]
            for _, own in fields
        ]
        window = _kernels.Window(columns[0][0])
        if is_narrowed:
            choose_elements(spec, batch, window, work.errors)
        kept, width, truncated, empty = window.finish(spec.max_len, is_fixed)
        if empty and pad_value is not None and spec.length_column in batch.columns:
            for column in (column for own in columns for column in own):
                _check_padding(pad_value, column, kept, column.name, work.errors)
        for (name, own), opened in zip(fields, columns, strict=True):
            encoding = None
            for (_, _, encoder), column in zip(own, opened, strict=True):
                encoding = _kernels.prepare_lists(
                    column, encoder, window, width, newest_first, work.errors, encoding
                )
            work.add(name, encoding, truncated, empty)
        work.made[lengths_name] = kept

    return step


def _check_padding(
    pad_value: str | int,
    column: _kernels.Column,
    lengths: NDArray[np.int64],
    name: str,
    errors: list[InputError] | None,
) -> None:
    """Refuse a history of length 0 that holds anything but padding.

    Softmax leaves an empty history the mean of what stands there, which is known only
    where all of it is padding.
    """
    window = _kernels.Window(column)
    window.trim(pad_value)
    inside, _, _, _ = window.finish(2**31 - 1, False)
    rule = f"only {pad_value!r} in a history of length 0"
    for row in np.flatnonzero((lengths == 0) & (inside > 0)):
        report(InputError(rule, "another element", name, row=row), errors)


def choose_elements(
    spec: Behavior | MultiHot,
    batch: Batch,
    window: _kernels.Window,
    errors: list[InputError] | None = None,
) -> None:
    """Narrow a window to the elements that are no padding."""
    lengths = batch.columns.get(spec.length_column or "")
    if lengths is not None:
        window.take(require_dtype(lengths, "int64", is_list=False), errors)
    elif spec.pad_value is not None and spec.pad_inside == "dropped":
        window.drop(spec.pad_value)
    elif spec.pad_value is not None:
        window.trim(spec.pad_value)


def _dense_step(spec: Dense) -> _Step:
    fix = _USE_REQUESTS if spec.side == "candidate" and spec.dim == 1 else ""
    scale = compile_scale(spec)

    def step(batch: Batch, work: _Work) -> None:
        column = batch.columns[spec.column]
        is_list = spec.dim > 1 or column.is_list
        how = how_to_split(column, spec) if spec.dim > 1 else fix
        column = require_dtype(column, "float", is_list=is_list, fix=how)
        values, nulls = _kernels.read_dense(
            column, spec.dim, spec.missing, work.errors, scale
        )
        work.made[spec.name] = values
        work.counts.append((spec.name, column.num_counted, nulls, 0, 0, 0))

    return step


def _cut(num_rows: int, count: int) -> list[tuple[int, int]]:
    """Cut rows into `count` parts, one at least."""
    count = max(1, count)
    return list(pairwise(num_rows * i // count for i in range(count + 1)))


def _run_all(encodings: list[_kernels.Encoding], threads: int) -> None:
    """Encode, in parts that `threads` threads share where that is worth it."""
    if sum(e.num_elements for e in encodings) < 2 * PART:
        for encoding in encodings:
            encoding.run(0, encoding.num_rows)
        return
    parts = []
    for encoding in encodings:
        count = min(encoding.num_elements // PART, encoding.num_rows)
        parts += [(encoding, a, b) for a, b in _cut(encoding.num_rows, count)]
    with ThreadPoolExecutor(min(threads, len(parts))) as pool:
        for done in [pool.submit(e.run, a, b) for e, a, b in parts]:
            done.result()


class FeatureEncoder:
    """A spec made ready to encode; read-only, so that threads may share it."""

    def __init__(self, reads: Sequence[ReadColumn]) -> None:
        check_fitted(reads)
        compiled: dict[tuple[str, int], _kernels.Encoder] = {}

        def encoder_of(column: ReadColumn, encoder: Encoder) -> _kernels.Encoder:
            # by identity: fields that share a table share its encoder, and a
            # vocabulary is long to compare
            key = (column.dtype, id(encoder))
            if key not in compiled:
                compiled[key] = _compile(encoder, column.dtype)
            return compiled[key]

        self.columns: tuple[str, ...] = required_columns(reads)
        self._texts = texts_of(reads)
        self.names: tuple[str, ...] = tuple(i.name for i in inputs_of(reads))
        steps: dict[str, list[_Step]] = {"user": [], "candidate": []}
        for part, own in groupby(reads, lambda c: c.part):
            fields: dict[str, list[tuple[str, str, _kernels.Encoder]]] = {}
            for c in own:
                if c.encoder is not None:
                    encoded = c.name, c.dtype, encoder_of(c, c.encoder)
                    fields.setdefault(c.inputs[0].name, []).append(encoded)
            if isinstance(part, Field):
                step = _scalar_step(part, list(fields.items()))
            elif isinstance(part, Dense):
                step = _dense_step(part)
            else:
                step = _lists_step(part, list(fields.items()))
            steps[part.side].append(step)
        sides = columns_of_sides(reads)
        self.user_columns, self.candidate_columns = sides.user, sides.candidate
        self.optional_user_columns = sides.optional_user
        self.optional_candidate_columns = sides.optional_candidate
        self._all_user_columns = {*self.user_columns, *self.optional_user_columns}
        parts = [(part, next(own)) for part, own in groupby(reads, lambda c: c.part)]
        self._lists = [
            (part, first)
            for part, first in parts
            if isinstance(part, Behavior | MultiHot)
        ]
        self._user_steps = steps["user"]
        self._candidate_steps = steps["candidate"]

    def encode(
        self,
        batch: object,
        threads: int = 1,
        *,
        merge_repeats: bool = False,
        errors: list[InputError] | None = None,
    ) -> Encoded:
        """Turn a table of rows (B = N) into the graph's inputs.

        Parameters
        ----------
        batch : dict of columns, list of dicts, or a frame with `__arrow_c_stream__`
        threads : int
            Threads that share a large batch; its ids do not depend on it.
        merge_repeats : bool
            Make one request (B < N) of rows that follow each other with the same
            user's side, in a table so large and with so many of them that it pays.
            Counts stay per row of the table.
        errors : list, optional
            One error or more is appended for every row that does not fit the spec; the
            first of a row is what this row alone would raise. Where there are any, the
            inputs and counts are of no use. Without a list the first error raises.

        Returns
        -------
        Encoded

        Raises
        ------
        InputError
            Naming column, row and value, when the batch does not fit the spec.
        """
        opened = self._open(batch, errors)
        return self._encode_table(opened, threads, merge_repeats, errors)

    def encode_pieces(
        self,
        batch: object,
        threads: int = 1,
        *,
        merge_repeats: bool = False,
        errors: list[InputError] | None = None,
    ) -> Iterable[Encoded]:
        """Encode a table as `encode` does; in pieces where `cut` cuts it.

        Memory is bounded by a piece, and each is padded to its own longest list.
        """
        opened = self._open(batch, errors)
        cuts = self._cut_rows(opened)
        if len(cuts) == 1:
            return [self._encode_table(opened, threads, merge_repeats, errors)]

        def piece(first: int, stop: int) -> Encoded:
            rows = np.arange(first, stop)
            with renumbered(errors, partial(of_candidates, rows)) as found:
                part = _take(opened, rows)
                made = self._encode_table(part, threads, merge_repeats, found)
            made.candidates = rows
            return made

        return starmap(piece, cuts)

    def cut(self, batch: object) -> list[tuple[int, int]]:
        """Cut a table into rows [first, stop) whose lists can be padded side by side.

        One range, unless a list is so long that the batch, padded to it, would have
        more than `MOST_CELLS` ids a column, most of them padding. One row is never cut.

        Raises
        ------
        InputError
            If it lacks columns.
        """
        opened = self._open_unsplit(batch)
        if self._cuts(opened.num_rows):
            split_columns(opened, self._texts, [])  # encoding raises the errors
        return self._cut_rows(opened)

    def _open(self, batch: object, errors: list[InputError] | None) -> Batch:
        return split_columns(self._open_unsplit(batch), self._texts, errors)

    def _open_unsplit(self, batch: object) -> Batch:
        optional = (*self.optional_user_columns, *self.optional_candidate_columns)
        return open_batch(batch, self.columns, optional=dict.fromkeys(optional))

    def _cuts(self, count: int) -> list[tuple[Behavior | MultiHot, ReadColumn]]:
        """List the lists of so many rows that may be too long to be padded at once."""
        if count < 2:
            return []
        return [(p, r) for p, r in self._lists if count * p.max_len > MOST_CELLS]

    def _cut_rows(self, batch: Batch) -> list[tuple[int, int]]:
        """Cut the rows of a batch, which may have the columns of one side alone."""
        count = batch.num_rows
        lists = self._cuts(count)
        if not lists:
            return [(0, count)]
        longest = np.zeros(count, np.int64)
        for part, read in lists:
            if read.name in batch.columns:
                lengths = self._lengths(part, batch, read)
                np.maximum(longest, lengths, out=longest)
        cells = count * longest.max(initial=0)
        if cells <= max(MOST_CELLS, MOST_PADDING * longest.sum()):
            return [(0, count)]
        cuts, first, widest = [], 0, 0
        for row, length in enumerate(longest.tolist()):
            widest = max(widest, length)
            if row > first and (row + 1 - first) * widest > MOST_CELLS:
                cuts.append((first, row))
                first, widest = row, length
        return [*cuts, (first, count)]

    def _lengths(
        self, part: Behavior | MultiHot, batch: Batch, read: ReadColumn
    ) -> NDArray[np.int64]:
        """Count the elements of every list that are encoded; of wrong columns, none."""
        column = batch.columns[read.name]
        if part.padding == "attended":
            return np.full(batch.num_rows, part.max_len)
        if not column.is_list:
            return np.zeros(batch.num_rows, np.int64)
        uuid_as = None if read.encoder is None else read.encoder.uuid_as
        try:
            column = require_dtype(column, read.dtype, is_list=True, uuid_as=uuid_as)
            window = _kernels.Window(column)
            choose_elements(part, batch, window, [])
        except InputError:  # which encoding will raise
            return np.zeros(batch.num_rows, np.int64)
        return window.finish(part.max_len, False)[0]

    def _encode_table(
        self,
        opened: Batch,
        threads: int,
        merge_repeats: bool,
        errors: list[InputError] | None,
    ) -> Encoded:
        count = opened.num_rows
        starts = self._find_runs(opened, threads) if merge_repeats else None
        if starts is None:
            return self._encode(opened, opened, np.arange(count), threads, errors)
        names = [n for n in self._all_user_columns if n in opened.columns]
        users = {n: _kernels.take_runs(opened.columns[n], starts) for n in names}
        users_of_runs = Batch(users, len(starts))
        runs = np.append(starts, count)
        owners = np.repeat(np.arange(len(starts)), np.diff(runs))
        return self._encode(users_of_runs, opened, owners, threads, errors, runs)

    def _find_runs(self, batch: Batch, threads: int) -> NDArray[np.int64] | None:
        """Find where the user's side changes; None where it does so too often."""
        num_rows = batch.num_rows
        columns = [c for n, c in batch.columns.items() if n in self._all_user_columns]
        if num_rows < FEWEST_ROWS_TO_MERGE or not columns:
            return None
        check_count(threads, "threads")
        columns.sort(key=lambda c: c.is_list)  # cheap ones first
        same = np.ones(num_rows, dtype=np.uint8)

        def pays(repeats: int, rows: int) -> bool:
            return FEWEST_ROWS_PER_RUN * (rows - repeats) <= rows

        def mark(first: int, stop: int) -> int:
            repeats = 0
            for column in columns:
                repeats = _kernels.mark_repeats(column, same, first, stop)
                if not pays(repeats, stop - first):
                    same[first:stop] = 0
                    return 0
            return repeats

        parts = _cut(num_rows, num_rows // ROWS_TO_MARK)
        if threads == 1 or len(parts) == 1:
            repeats = sum(mark(a, b) for a, b in parts)
        else:
            with ThreadPoolExecutor(min(threads, len(parts))) as pool:
                repeats = sum(pool.map(mark, *zip(*parts, strict=True)))
        return np.flatnonzero(same == 0) if pays(repeats, num_rows) else None

    def encode_requests(
        self,
        requests: object,
        candidates: object,
        request_of_candidate: object = None,
        threads: int = 1,
        *,
        errors: list[InputError] | None = None,
    ) -> Encoded:
        """Turn B requests and their N candidates into the graph's inputs.

        Parameters
        ----------
        requests : batch of B rows, or EncodedRequests
            The user's side: user fields, behaviors, and what has side "user"; or what
            `encode_users` made of it, whose counts are not added again.
        candidates : batch of N rows
            The candidates' side.
        request_of_candidate : int [N] or None
            Which request each candidate belongs to; None only when B = 1.
        threads, errors
            As in `encode`; an error's row is one of the batch that has its column.

        Returns
        -------
        Encoded

        Raises
        ------
        InputError
            Naming column, row and value, when a batch does not fit the spec.
        """
        users, items, owners = self._open_requests(
            requests, candidates, request_of_candidate, errors
        )
        return self._encode(users, items, owners, threads, errors)

    def encode_request_pieces(
        self,
        requests: object,
        candidates: object,
        request_of_candidate: object = None,
        threads: int = 1,
        *,
        errors: list[InputError] | None = None,
    ) -> Iterable[Encoded]:
        """Encode requests as `encode_requests` does; in pieces where lists are long."""
        users, items, owners = self._open_requests(
            requests, candidates, request_of_candidate, errors
        )
        if not isinstance(users, Batch):
            return [self._encode(users, items, owners, threads, errors)]
        batch = users
        cuts = self._cut_rows(batch)
        if len(cuts) == 1:
            return [self._encode(batch, items, owners, threads, errors)]

        def piece(first: int, stop: int) -> Encoded:
            rows = np.arange(first, stop)
            chosen = np.flatnonzero((owners >= first) & (owners < stop))

            def move(error: InputError) -> InputError:
                is_users = error.column in self._all_user_columns
                return of_candidates(rows if is_users else chosen, error)

            with renumbered(errors, move) as found:
                some, own = _take(batch, rows), _take(items, chosen)
                of_some = owners[chosen] - first
                made = self._encode(some, own, of_some, threads, found)
            made.candidates = chosen
            return made

        return starmap(piece, cuts)

    def _open_requests(
        self,
        requests: object,
        candidates: object,
        request_of_candidate: object,
        errors: list[InputError] | None,
    ) -> tuple[Batch | Mapping[str, NDArray[Any]], Batch, NDArray[np.int64]]:
        users: Batch | Mapping[str, NDArray[Any]]
        if isinstance(requests, EncodedRequests):
            num_requests = requests.num_requests
            users = requests.inputs_of(requests.model_id)
        else:
            users, num_requests = self._open_users(requests, errors)
        if num_requests is None:
            num_requests = _count_requests(request_of_candidate)
        names, optional = self.candidate_columns, self.optional_candidate_columns
        items = open_batch(candidates, names, "candidates", optional)
        split_columns(items, self._texts, errors)
        owners = _check_owners(request_of_candidate, num_requests, items.num_rows)
        return users, items, owners

    def encode_users(
        self, requests: object, model_id: str, threads: int
    ) -> tuple[EncodedRequests, Counts]:
        """Encode the users' side of B requests alone, for the model of that id."""
        users, num_requests = self._open_users(requests)
        work = _Work()
        work.begin(self._user_steps, users, None)
        work.finish(threads)
        return EncodedRequests(model_id, num_requests, work.made), work.counts

    def _open_users(
        self, requests: object, errors: list[InputError] | None = None
    ) -> tuple[Batch, int | None]:
        """Find the users' columns: a batch and B, None where that is not known."""
        users = open_batch(
            requests, self.user_columns, "requests", self.optional_user_columns
        )
        if not self.user_columns and isinstance(requests, Mapping):
            # extra columns are not looked at, so their rows are not known
            return users, None
        return split_columns(users, self._texts, errors), users.num_rows

    def _encode(
        self,
        users: Batch | Mapping[str, NDArray[Any]],
        items: Batch,
        owners: NDArray[np.int64],
        threads: int,
        errors: list[InputError] | None,
        runs: NDArray[np.int64] | None = None,
    ) -> Encoded:
        """Encode both sides, or the candidates' for users that are encoded already."""
        check_count(threads, "threads")
        work = _Work(errors)
        made = work.made
        if isinstance(users, Batch):
            work.begin(self._user_steps, users, runs)
        else:
            made.update(users)
        work.begin(self._candidate_steps, items, None)
        work.finish(threads)
        made["request_of_candidate"] = owners
        return Encoded({name: made[name] for name in self.names}, work.counts)


def _take(batch: Batch, rows: NDArray[np.int64]) -> Batch:
    columns = {n: _kernels.take_rows(c, rows) for n, c in batch.columns.items()}
    return Batch(columns, len(rows))


def of_candidates(rows: NDArray[np.int64], error: InputError) -> InputError:
    """Name the row of the batch, of an error of the piece that has these rows."""
    return error if error.row is None else error.at(row=rows[error.row])


def _count_requests(owners: object) -> int:
    """Count requests of which the model reads no column: as many as have candidates."""
    if owners is None:
        return 1
    ids, _ = integers(owners, "request_of_candidate")
    return max(int(ids.max(initial=0)), 0) + 1


def _check_owners(owners: object, num_requests: int, n: int) -> NDArray[np.int64]:
    name = "request_of_candidate"
    if owners is None:
        if num_requests != 1:
            rule = f"which of {num_requests} requests each candidate belongs to"
            raise InputError(rule, "None", name)
        return np.zeros(n, dtype=np.int64)
    ids, valid = integers(owners, name)
    if len(ids) != n:
        raise InputError(f"{n} entries, one per candidate", len(ids), name)
    wrong = (ids < 0) | (ids >= num_requests) | (valid == 0)
    if wrong.any():
        row = int(wrong.argmax())
        got = int(ids[row]) if valid[row] else "null"
        raise InputError(f"a request in [0, {num_requests})", got, name, row=row)
    return ids


def encode_values(
    values: object, encoder: Encoder, dtype: str, name: str
) -> NDArray[np.int64]:
    """Turn a column of raw values into ids by one encoder of a spec.

    Parameters
    ----------
    values : column of `dtype`
    encoder : Encoder
    dtype : {"string", "int64", "float"}
    name : str
        What errors call the column.

    Returns
    -------
    int64 [n]

    Raises
    ------
    InputError
        If a value has no id.
    """
    column = require_dtype(
        to_column(values, name), dtype, is_list=False, uuid_as=encoder.uuid_as
    )
    return _kernels.encode_scalars(column, _compile(encoder, dtype))[0]


@reads_arguments(InputError)
def hash_buckets(
    keys: object,
    num_buckets: int,
    *,
    hash: str = "xxh64",
    seed: int | tuple[int, int] = 0,
    uuid_as: str | None = None,
) -> NDArray[np.int64]:
    """Turn keys into bucket ids: 1 + hash64(key, seed) % (num_buckets - 1); null: 0.

    Parameters
    ----------
    keys : column of strings or integers
        A list, a NumPy array or Arrow data.
    num_buckets : int
        2 or more; bucket 0 is left for padding and missing.
    hash : str
        "xxh64", "xxh3_64", "murmur3_32", "farmhash64", "siphash24", "murmur3_32_spark"
        or "murmur3_32_vw". Strings are hashed as UTF-8, integers as 8 little-endian
        bytes; by murmur3_32_vw as decimal text.
    seed : int, or a tuple of two
        In [0, 2**64); below 2**32 for all of murmur3_32, 0 for farmhash64. Of
        siphash24, the two halves of the key.
    uuid_as : {"bytes", "text"}, optional
        What UUIDs and fixed-size binary are hashed as; without it they are refused.

    Returns
    -------
    int64 [n]
        In [0, num_buckets); owned by the caller.

    Raises
    ------
    InputError
        If an argument is not as above.

    Notes
    -----
    Equal on every platform, and to the ids of the model's inputs. Releases the GIL.

    Examples
    --------
    >>> hash_buckets(["a", "b", None, ""], 1_000).tolist()
    [102, 577, 0, 598]
    """
    if hash not in _kernels.HASHES:
        raise InputError("one of " + ", ".join(_kernels.HASHES), repr(hash), "hash")
    seeds = seed if isinstance(seed, tuple) else (seed,)
    for value, place in ((num_buckets, "num_buckets"), *((s, "seed") for s in seeds)):
        if not is_whole(value):
            raise InputError("a whole number", repr(value), place)
    if not 2 <= num_buckets < 2**63:
        raise InputError("2 to 2**63 - 1 buckets", num_buckets, "num_buckets")
    rule = seed_rule(hash, seed)
    if rule:
        raise InputError(rule, seed, "seed")
    if uuid_as not in (None, "bytes", "text"):
        raise InputError("bytes or text", repr(uuid_as), "uuid_as")
    column = to_column(keys, "keys")
    dtype = "string" if column.kind in ("string", "fixed") else "int64"
    int_as = "text" if hash == "murmur3_32_vw" else "bytes"
    encoder = _kernels.Encoder(
        "hash", dtype, rows=num_buckets, hash=hash, seed=seed, int_as=int_as
    )
    return _kernels.encode_scalars(
        require_dtype(column, dtype, is_list=False, uuid_as=uuid_as), encoder
    )[0]


@reads_arguments(InputError)
def pad(
    values: NDArray[np.int64] | Sequence[int],
    offsets: NDArray[np.int64] | Sequence[int],
    max_len: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Right-pad ragged ids with 0, keeping the newest of each row.

    Parameters
    ----------
    values : int64 [V]
        Ids of all rows, concatenated; within a row the oldest comes first.
    offsets : int64 [B + 1]
        Row b is `values[offsets[b]:offsets[b + 1]]`; the first is 0, the last V.
    max_len : int
        A longer row loses its *oldest* ids.

    Returns
    -------
    padded : int64 [B, T]
        T = min(max_len, longest row); owned by the caller.
    lengths : int64 [B]
        Ids kept of each row.

    Raises
    ------
    InputError
        If the offsets do not describe the values, or `max_len` is negative.

    Examples
    --------
    >>> padded, lengths = pad([7, 8, 9, 4], [0, 3, 3, 4], 2)
    >>> padded.tolist(), lengths.tolist()
    ([[8, 9], [0, 0], [4, 0]], [2, 0, 1])
    """
    if not is_whole(max_len) or max_len >= 2**31:
        raise InputError("a whole number below 2**31", repr(max_len), "max_len")
    if np.ma.is_masked(values):
        raise InputError("ids without a mask", "a masked array", "values")
    ids = np.asarray(values)
    if ids.ndim != 1 or (ids.dtype.kind not in "iu" and ids.size > 0):
        got = f"{ids.ndim} axes of {ids.dtype}"
        raise InputError("ids as a 1-D array of integers", got, "values")
    if ids.dtype == np.uint64 and ids.size > 0 and ids.max() >= 2**63:
        raise InputError("64-bit signed integers", ids.max(), "values")
    return _kernels.pad(np.ascontiguousarray(ids, dtype=np.int64), offsets, max_len)
