"""Raw rows that a spec takes, and in which a client can get something wrong."""

import json
import math
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import numpy as np

from din_converter.vectors.batches import Row, score_batch, sides_of
from din_converter.vectors.values import values_of
from din_converter.verify import golden_row
from din_infer.errors import InputError
from din_infer.predictor import Predictor
from din_infer.spec import Dense, ReadColumn

__all__ = ["draw_batches", "text_of"]

MOST_ELEMENTS = 2_000  # of a list that is longer than max_len; none is where it is more


def draw_batches(
    predictor: Predictor,
) -> Iterator[tuple[str, list[Row], list[int] | None]]:
    """Yield names, rows of a table, and whose the candidates are; None: in order."""
    spec = predictor.spec
    draw = Draw(predictor)
    lists = (*spec.behavior, *spec.multi_hot)
    longest = max((s.max_len for s in lists if s.max_len < MOST_ELEMENTS), default=0)
    yield "values of every kind", draw.rows(draw.count, lambda k: k % 7), None
    yield "one row", draw.rows(1, lambda _: 3), None
    yield "nulls", draw.nulls(5), None
    if lists:
        yield "empty lists: T = 0", draw.rows(2, lambda _: 0), None
        yield "null lists", draw.rows(3, lambda k: 2 * k, null_lists=True), None
        lengths = {longest + 3, longest + 1, longest, max(longest - 1, 0), 1}
        sizes = sorted(lengths, reverse=True)
        yield "longer than max_len", draw.rows(len(sizes), sizes.__getitem__), None
    if any(s.pad_value is not None for s in lists):
        yield "padding in lists", draw.padded(6), None
        if spec.optional_columns:
            rows = [
                {n: v for n, v in row.items() if n not in spec.optional_columns}
                for row in draw.padded(6)
            ]
            yield "padding in lists, no lengths", draw.legal(rows), None
    if any(c.text is not None for c in spec.reads):
        yield "lists in text", draw.texts(6), None
    if any(c.encoder is not None and c.encoder.uuid_as for c in spec.reads):
        yield "UUIDs", draw.uuids(4), None
    rows = draw.rows(7, lambda k: (3 * k) % 5)
    yield "several candidates of a request", rows, [2, 0, 0, 1, 1, 0, 2]
    yield "no candidates", rows[:3], []


class Draw:
    """Draws rows that a spec takes, one value for all that read a column."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        spec = self._spec = predictor.spec
        self._reads: dict[str, list[ReadColumn]] = {}
        for column in spec.reads:
            self._reads.setdefault(column.name, []).append(column)
        bases = [golden_row(spec, k) for k in (1, 4, 5, 2, 0, 3)]
        self._base = next(iter(self.legal(bases)))
        self._pools = {name: self._pool(name) for name in self._reads}
        self.count = max(map(len, self._pools.values()))

    def legal(self, rows: list[Row]) -> list[Row]:
        """Keep the rows that score."""
        return [row for row in rows if self._is_legal(row)]

    def _is_legal(self, row: Row) -> bool:
        users, items = sides_of(self._spec, [row])
        try:
            score_batch(self._predictor, "", users, items, [0])
        except InputError:
            return False
        return True

    def _pool(self, name: str) -> list[Any]:
        """List the values that all parts take that read a column."""
        columns, base = self._reads[name], self._base[name]
        drawn = [v for column in columns for v in values_of(column)]
        values = list({(type(v), repr(v)): v for v in drawn}.values())
        lists = isinstance(base, list)
        given = [[value] * len(base) if lists else value for value in values]
        good = self._encodable([self._base | {name: value} for value in given])
        found = [v for v, is_good in zip(values, good, strict=True) if is_good]
        return found if found and base != [] else drawn[:1]

    def _encodable(self, rows: list[Row]) -> list[bool]:
        """Tell which rows the spec encodes, at once where their errors are by row."""
        users, items = sides_of(self._spec, rows)
        errors: list[InputError] = []
        encoder = self._spec.encoder
        try:
            encoder.encode_requests(users, items, np.arange(len(rows)), errors=errors)
        except InputError:  # of a whole column
            return [self._is_legal(row) for row in rows]
        bad = {error.row for error in errors}
        return [k not in bad for k in range(len(rows))]

    def rows(
        self,
        count: int,
        length: Callable[[int], int],
        *,
        null_lists: bool = False,
    ) -> list[Row]:
        """Draw legal rows; `length` gives that of the lists of row k."""
        return self.legal([self._row(k, length(k), null_lists) for k in range(count)])

    def _row(self, k: int, length: int, null_lists: bool = False) -> Row:
        row: Row = {}
        for place, (name, columns) in enumerate(self._reads.items()):
            column, pool = columns[0], self._pools[name]
            if column.is_length:
                row[name] = length - (k % 3 == 2 and length > 1)
            elif isinstance(column.part, Dense):
                size = column.size or 1
                values = [pool[(k + 3 * j) % len(pool)] for j in range(size)]
                row[name] = values if column.is_list else values[0]
            elif column.is_list:
                at = 5 * k + place
                values = [pool[(at + t) % len(pool)] for t in range(length)]
                row[name] = None if null_lists and k % 2 == 0 else values
            else:
                row[name] = pool[k % len(pool)]
        return row

    def nulls(self, count: int) -> list[Row]:
        """Draw rows with a null wherever the spec takes one."""
        names = [n for n, (column, *_) in self._reads.items() if not column.is_length]
        nulled = [self._base | {n: _nulls_in(self._base[n], 0)} for n in names]
        good = zip(names, self._encodable(nulled), strict=True)
        takes = [name for name, is_good in good if is_good]
        wanted = []
        for k in range(count):
            row = self._row(k, 3)
            for name, (column, *_) in self._reads.items():
                if column.is_length:
                    row[name] = 3
                elif name in takes:
                    whole = isinstance(column.part, Dense) and k == 1
                    row[name] = None if whole else _nulls_in(row[name], k)
            wanted.append(row)
        return self.legal(wanted)

    def padded(self, count: int) -> list[Row]:
        """Draw rows with pad values before, between and behind the elements."""
        marks = ["..xx..", "xx", "....", "..x..x.", "x..", ""]
        rows = []
        for k in range(count):
            mark = marks[k % len(marks)]
            row = self._row(k, len(mark))
            for name, columns in self._reads.items():
                for column in columns:
                    pad = getattr(column.part, "pad_value", None)
                    if column.is_length:
                        row[name] = len(mark.rstrip("."))
                    elif column.size is None and isinstance(
                        pad, str if column.dtype == "string" else int
                    ):
                        pool = self._pools[name]
                        others = [v for v in pool if v != pad] or pool
                        row[name] = [
                            pad if m == "." else others[(k + t) % len(others)]
                            for t, m in enumerate(mark)
                        ]
            rows.append(row)
        return self.legal(rows)

    def texts(self, count: int) -> list[Row]:
        """Draw rows whose lists are text, where the spec says how."""
        rows = []
        for k in range(count):
            row = self._row(k, k)
            for name, (column, *_) in self._reads.items():
                if column.text is not None:
                    row[name] = text_of(row[name], column.text.separator)
            rows.append(row)
        return self.legal(rows)

    def uuids(self, count: int) -> list[Row]:
        """Draw rows with UUIDs where the spec takes them."""
        rows = []
        for k in range(count):
            row = self._row(k, k)
            for name, (column, *_) in self._reads.items():
                if column.encoder is not None and column.encoder.uuid_as:
                    ids = [UUID(int=(k + 1) * 3**78 + t) for t in range(k)]
                    row[name] = ids if column.is_list else UUID(int=(k + 1) * 5**53)
            rows.append(row)
        return self.legal(rows)


def _nulls_in(value: Any, k: int) -> Any:  # noqa: ANN401
    """Return null, or a list with two of three elements null: not the same in row k.

    NaN becomes null too, beside which it may not stand (`batches.py`).
    """
    if not isinstance(value, list):
        return None
    return [v if (t + k) % 3 == 1 and v == v else None for t, v in enumerate(value)]


def text_of(values: list[Any], separator: str | None) -> str:
    """Write a list as text; what text cannot say becomes 7, or null in JSON."""

    def is_sayable(value: Any) -> bool:  # noqa: ANN401
        if isinstance(value, float):
            return math.isfinite(value)
        return not isinstance(value, bytes | UUID)

    if separator is None:
        return json.dumps([v if is_sayable(v) else None for v in values])
    texts = [str(v) if is_sayable(v) else separator for v in values]
    for t, value in enumerate(values):  # as other programs write them
        if isinstance(value, int) and 0 <= value < 2**53:
            texts[t] = (texts[t], f"+{value}", f" {value} ", f"{value}.0")[t % 4]
    return separator.join("7" if separator in text else text for text in texts)
