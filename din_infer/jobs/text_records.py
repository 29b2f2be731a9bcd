"""Cut CSV into records, whose quotes may hold line breaks.

The format is RFC 4180: quotes begin and end a field, and stand doubled inside. With an
escape, the character behind it has no meaning, inside and outside of quotes. Outside,
writers differ about an escape before a character without meaning: a fault.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from din_infer.jobs.text_options import SEPARATOR

__all__ = [
    "BARE_ESCAPE",
    "FAULT",
    "RECORD",
    "STRAY_QUOTE",
    "RecordCutter",
    "cut_lines",
    "raw_bytes",
    "view_records",
]

# A longer record is taken for a quote that nobody closed: bounds memory.
MOST_BYTES = 1 << 26
QUOTE, LINE_FEED, RETURN = b'"\n\r'
RECORD, FAULT = "record", "fault"
STRAY_QUOTE = "a quote inside of a field"
BARE_ESCAPE = "an escape outside of quotes, before a character without meaning"


class RecordCutter:
    """Cuts blocks of bytes into records; each has its line end.

    Parameters
    ----------
    delimiter : str
    escape : str or None
    separator : str
        Between the elements of lists.
    nulls : sequence of str
        Fields and elements that begin with the escape, and are null.
    """

    def __init__(
        self,
        delimiter: str,
        escape: str | None,
        separator: str = SEPARATOR,
        nulls: Sequence[str] = (),
    ) -> None:
        self._delimiter = ord(delimiter)
        self._separator, self._nulls = separator.encode(), nulls
        self._escape = None if escape is None else ord(escape)
        d, e = re.escape(delimiter), re.escape(escape or "")
        inside = rf'(?:[^"{e}]|""|{e}[\s\S])*+' if e else '(?:[^"]|"")*+'
        outside = rf"(?:[^{d}\n{e}]|{e}[\s\S])*+" if e else rf"[^{d}\n]*+"
        field = rf'(?:"{inside}"|(?!")){outside}[{d}\n]'
        self._field = re.compile(field.encode())
        self._may_begin, self._may_end, self._is_special = np.zeros((3, 256), bool)
        self._may_begin[[self._delimiter, LINE_FEED, QUOTE]] = True
        self._may_end[[self._delimiter, LINE_FEED, RETURN, QUOTE]] = True
        self._is_special[self._may_end | self._may_begin] = True
        self._is_special[self._escape or 0] = True

    def cut(self, blocks: Iterator[bytes]) -> Iterator[pa.RecordBatch]:
        """Cut a stream into records.

        Yields
        ------
        pyarrow.RecordBatch
            Views of the blocks in the column `RECORD`, and in `FAULT` why a record is
            none of RFC 4180, or null.

        Raises
        ------
        EOFError
            Naming the line, where a quote is not closed or a record has no end.
        """
        for records, is_sound in _cut(blocks, self._ends):
            faults = pa.nulls(len(records), pa.string())
            if not is_sound:
                found = self._faults(records)
                faults = pa.array(map(found.get, range(len(records))), pa.string())
            yield pa.record_batch({RECORD: records, FAULT: faults})

    def _ends(self, text: bytes) -> tuple[NDArray[np.int64], bool]:
        """Find where records end: behind each line feed that is not in quotes.

        Also tell whether all of the text is sound.
        """
        values = np.frombuffer(text, np.uint8)
        newlines = np.flatnonzero(values == LINE_FEED)
        has_returns = b"\r" in text and text.count(b"\r") != text.count(b"\r\n")
        has_escape = self._has_escape(text)
        may_be_bare = False
        if b'"' not in text and not has_escape:
            return newlines + 1, not has_returns
        marks = np.flatnonzero(values == QUOTE)
        if has_escape:
            escaped = self._escaped(values, text)
            marks = _marks(values, escaped)
            newlines = newlines[~escaped[newlines]]
            is_strict = not self._strays(values, escaped, marks, 0, 0).any()
            may_be_bare = len(self._bare(values, escaped, text)) > 0
        else:
            # a quote beside one is doubled, and the last byte has none behind it
            opens, closes = marks[0::2], marks[1::2]
            before = values[opens[opens > 0] - 1]
            after = values[np.minimum(closes + 1, len(values) - 1)]
            is_strict = bool(self._may_begin[before].all() & self._may_end[after].all())
        if is_strict:
            is_end = np.searchsorted(marks, newlines) % 2 == 0
            return newlines[is_end] + 1, not (has_returns or may_be_bare)
        ends, start = [], 0
        for field in self._field.finditer(text):
            if field.start() != start:
                break
            start = field.end()
            if text[start - 1] == LINE_FEED:
                ends.append(start)
        return np.array(ends, np.int64), False

    def _faults(self, records: pa.LargeBinaryArray) -> dict[int, str]:
        """Find records that are not RFC 4180, and say why."""
        text, starts = raw_bytes(records)
        values = np.frombuffer(text, np.uint8)
        escaped = self._escaped(values, text)
        marks = _marks(values, escaped)
        first = np.searchsorted(marks, starts)  # mark of each record
        owners = np.searchsorted(starts, marks, side="right") - 1
        strays = self._strays(values, escaped, marks, first[owners], starts[owners])
        found = dict.fromkeys(owners[strays].tolist(), STRAY_QUOTE)
        places = np.flatnonzero(values == RETURN)
        alone = values[np.minimum(places + 1, len(values) - 1)] != LINE_FEED
        places = places[alone & ~escaped[places]]
        owners = np.searchsorted(starts, places, side="right") - 1
        is_plain = (np.searchsorted(marks, places) - first[owners]) % 2 == 0
        reason = "a carriage return that ends no line"
        found = dict.fromkeys(owners[is_plain].tolist(), reason) | found
        places = self._bare(values, escaped, text)
        owners = np.searchsorted(starts, places, side="right") - 1
        is_plain = (np.searchsorted(marks, places) - first[owners]) % 2 == 0
        return dict.fromkeys(owners[is_plain].tolist(), BARE_ESCAPE) | found

    def _bare(
        self, values: NDArray[np.uint8], escaped: NDArray[np.bool_], text: bytes
    ) -> NDArray[np.int64]:
        """Find what is behind an escape and has no meaning, in quotes too."""
        is_bare = escaped & ~self._is_special[values]
        if is_bare.any():
            for null in self._nulls:
                fields, elements = self._find_nulls(text, null)
                is_bare[np.append(fields, elements) + 1] = False
        return np.flatnonzero(is_bare)

    def _find_nulls(
        self, text: bytes, null: str
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Find where a null text is a field, and where one of several elements."""
        edge = re.escape(bytes([self._delimiter]))
        by, it = re.escape(self._separator), re.escape(null.encode())
        field = rb"(?<![^\n%b])%b(?=%b|\r?\n)" % (edge, it, edge)
        last = rb"(?<=%b)%b(?=%b|[\"%b]|\r?\n)" % (by, it, by, edge)
        element = rb"%b|(?<![^\n\"%b])%b(?=%b)" % (last, edge, it, by)
        fields, elements = (
            np.array([m.start() for m in re.finditer(p, text)], np.int64)
            for p in (field, element)
        )
        return fields, elements

    def hide_escapes(self, records: pa.LargeBinaryArray) -> pa.LargeBinaryArray:
        """Put a NUL for the escape that begins a null field or element."""
        text, starts = raw_bytes(records)
        if not any(null.encode() in text for null in self._nulls):
            return records
        values = np.frombuffer(text, np.uint8).copy()
        escaped = self._escaped(values, text)
        marks = _marks(values, escaped)
        first = np.searchsorted(marks, starts)
        for null in self._nulls:
            fields, elements = self._find_nulls(text, null)
            owners = np.searchsorted(starts, fields, side="right") - 1
            is_plain = (np.searchsorted(marks, fields) - first[owners]) % 2 == 0
            places = np.append(fields[is_plain], elements)
            values[places[~escaped[places - 1]]] = 0
        return view_records(values.tobytes(), starts)

    def _has_escape(self, text: bytes) -> bool:
        return self._escape is not None and bytes([self._escape]) in text

    def _escaped(self, values: NDArray[np.uint8], text: bytes) -> NDArray[np.bool_]:
        """Tell which bytes stand behind an escape that is not escaped itself."""
        found = np.zeros(len(values) + 1, bool)
        if self._has_escape(text):
            places = np.flatnonzero(values == self._escape)
            cuts = np.flatnonzero(np.diff(places) != 1) + 1
            begins = places[np.append(0, cuts)]
            ends = places[np.append(cuts - 1, -1)] + 1
            found[ends[(ends - begins) % 2 == 1]] = True
        return found[:-1]

    def _strays(
        self,
        values: NDArray[np.uint8],
        escaped: NDArray[np.bool_],
        marks: NDArray[np.int64],
        first: NDArray[np.int64] | int,
        starts: NDArray[np.int64] | int,
    ) -> NDArray[np.bool_]:
        """Tell which quotes neither begin nor end a field, nor are doubled in one.

        `first` is the number of the first mark in each mark's record, `starts` where
        that record starts.
        """
        opens = (np.arange(len(marks)) - first) % 2 == 0
        before = values[np.maximum(marks - 1, 0)]
        after = values[np.minimum(marks + 1, len(values) - 1)]
        is_doubled = np.diff(marks, prepend=-2) == 1
        begins = (before == self._delimiter) | (before == LINE_FEED)
        begins &= ~escaped[np.maximum(marks - 1, 0)]
        begins |= (marks == starts) | is_doubled
        ends = (after == self._delimiter) | (after == LINE_FEED) | (after == RETURN)
        ends |= (marks == len(values) - 1) | np.append(is_doubled[1:], values=False)
        found: NDArray[np.bool_] = np.where(opens, ~begins, ~ends[: len(marks)])
        return found


def _marks(values: NDArray[np.uint8], escaped: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Find the quotes that are not escaped."""
    quotes = np.flatnonzero(values == QUOTE)
    return quotes[~escaped[quotes]]


def cut_lines(blocks: Iterator[bytes]) -> Iterator[pa.RecordBatch]:
    """Cut a stream into lines, as `RecordCutter.cut` into records; without faults."""

    def ends(text: bytes) -> tuple[NDArray[np.int64], bool]:
        return np.flatnonzero(np.frombuffer(text, np.uint8) == LINE_FEED) + 1, True

    for records, _ in _cut(blocks, ends):
        yield pa.record_batch({RECORD: records})


def _cut(
    blocks: Iterator[bytes],
    find_ends: Callable[[bytes], tuple[NDArray[np.int64], bool]],
) -> Iterator[tuple[pa.LargeBinaryArray, bool]]:
    waiting: list[bytes] = []
    size, enough, line = 0, 0, 1
    for block in chain(blocks, (b"",)):
        waiting.append(block)
        size += len(block)
        if block and size < enough:
            continue
        text = b"".join(waiting)
        if not block and text and not text.endswith(b"\n"):
            text += b"\n"
        ends, is_sound = find_ends(text)
        if len(ends):
            yield view_records(text, np.append(0, ends)), is_sound
            line += text.count(b"\n", 0, ends[-1])
            text = text[ends[-1] :]
        waiting, size = [text], len(text)
        enough = min(
            2 * size, MOST_BYTES + 1
        )  # a long record is not searched again for every block
        if size > MOST_BYTES:
            most = f"more than {MOST_BYTES:,} bytes"
            raise EOFError(f"{most} in the record that begins in line {line}")
    if size:
        raise EOFError(f"an open quote in the record that begins in line {line}")


def view_records(text: bytes, offsets: NDArray[np.int64]) -> pa.LargeBinaryArray:
    """View parts of bytes that lie side by side."""
    buffers = [None, pa.py_buffer(offsets.astype(np.int64)), pa.py_buffer(text)]
    return pa.Array.from_buffers(pa.large_binary(), len(offsets) - 1, buffers)


def raw_bytes(records: pa.LargeBinaryArray) -> tuple[bytes, NDArray[np.int64]]:
    """Copy the bytes of records that lie side by side, and say where each starts."""
    _, offsets, data = records.buffers()
    places = np.frombuffer(offsets, np.int64)[records.offset :][: len(records) + 1]
    first, last = int(places[0]), int(places[-1])
    return data.slice(first, last - first).to_pybytes(), places - first
