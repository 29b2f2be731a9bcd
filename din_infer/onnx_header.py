"""The header of an .onnx: metadata, inputs, outputs, and where its weights lie.

An `.onnx` is one protobuf message. It is looked at without a runtime, and without
reading the weights.
"""

import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast, overload

from din_infer.model_format import FILE_KEY
from din_infer.regular_file import open_regular

__all__ = [
    "GRAPH_INITIALIZER",
    "MODEL_GRAPH",
    "MODEL_METADATA",
    "Budget",
    "Content",
    "External",
    "Header",
    "Place",
    "TooLarge",
    "before",
    "data_names",
    "entry",
    "fields_of",
    "over_data",
    "tagged",
    "viewed",
]

# Fields of onnx.proto.
MODEL_GRAPH, MODEL_METADATA = 7, 14
GRAPH_INITIALIZER, GRAPH_INPUT, GRAPH_OUTPUT = 5, 11, 12
TENSOR_NAME, TENSOR_EXTERNAL_DATA, VALUE_NAME = 8, 13, 1
KEY, VALUE = 1, 2
# Wire types of protobuf, and the bytes of those that are of one size.
VARINT, BYTES = 0, 2
FIXED = {1: 8, 5: 4}
VARINT_BYTES = 10
LARGEST_OFFSET = 1 << 63
FIRST_BYTE = 1 << 3 | VARINT  # every ONNX file begins with its version
LARGEST_FILE = (1 << 31) - 1  # as protobuf reads
# A spec is as long as the words of its vocabularies, which have a row of weights each:
# 16 bytes of words for a byte of weights are 64 for the least row, of one float.
MOST_BYTES, BYTES_PER_WEIGHT = 16 << 20, 16
READ_WHOLE_BYTES, BLOCK_BYTES = 1 << 20, 1 << 14
# A field takes up to 1 us to read, and a model of three sequences has 4,907.
MOST_FIELDS = 400_000


@dataclass(frozen=True)
class Place:
    """Where the bytes of a tensor lie in a file."""

    tensor: str
    offset: int
    length: int


class TooLarge(ValueError):
    """A model with more than its weights account for: (most of what, what was got)."""


class Budget:
    """How many fields of messages may still be read."""

    def __init__(self) -> None:
        self._left = MOST_FIELDS

    def spend(self, count: int = 1) -> None:
        """Count fields; TooLarge after `MOST_FIELDS`."""
        self._left -= count
        if self._left < 0:
            raise TooLarge(f"{MOST_FIELDS:,} fields", "more")


class _FileView:
    """A file's bytes, read when they are asked for: nothing is mapped."""

    def __init__(self, file: io.FileIO, size: int) -> None:
        self._file, self._size, self._handle = file, size, file.fileno()
        self._block, self._block_at = b"", 0

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, part: int) -> int: ...
    @overload
    def __getitem__(self, part: slice) -> bytes: ...
    def __getitem__(self, part: int | slice) -> int | bytes:
        if isinstance(part, slice):
            at = part.start - self._block_at
            if at >= 0 and part.stop - self._block_at <= len(self._block):
                return self._block[at : part.stop - self._block_at]
            return self._read(part.start, part.stop - part.start)
        at = part - self._block_at
        if not 0 <= at < len(self._block):
            self._block, self._block_at, at = self._read(part, BLOCK_BYTES), part, 0
        return self._block[at]  # IndexError at the end of the file

    def _read(self, at: int, size: int) -> bytes:
        if sys.platform != "win32":  # in half the time
            return os.pread(self._handle, size, at)
        else:  # noqa: RET505 - as mypy tells platforms apart
            self._file.seek(at)
            return self._file.read(size)


Content = bytes | _FileView


class _Field(NamedTuple):
    """A field of a message whose value is bytes: where it and its value begin."""

    number: int
    at: int
    start: int
    end: int


def _varint(view: Content, at: int) -> tuple[int, int]:
    """Read a number; returns it and the place behind it."""
    value = 0
    for i in range(VARINT_BYTES):
        byte = view[at + i]
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return value, at + i + 1
    raise ValueError("a number without an end")


def fields_of(
    view: Content, at: int, end: int, budget: Budget, *, strict: bool = False
) -> Iterator[_Field]:
    """Iterate over the fields of a message that are messages or strings.

    With `strict`, numbers are told too, as fields without bytes.
    """
    while at < end:
        budget.spend()
        begin = at
        tag, at = _varint(view, at)
        kind = tag & 7
        if kind == VARINT:
            _, at = _varint(view, at)
            if strict:
                yield _Field(tag >> 3, begin, at, at)
        elif kind == BYTES:
            size, start = _varint(view, at)
            at = start + size
            if at <= end:
                yield _Field(tag >> 3, begin, start, at)
        elif kind in FIXED and not strict:
            at += FIXED[kind]
        else:
            raise ValueError(f"wire type {kind}")
    if at != end:
        raise ValueError("a field beyond the end")


def _entry(view: Content, f: _Field, budget: Budget) -> tuple[str, str]:
    """Read a StringStringEntryProto."""
    found = {KEY: "", VALUE: ""}
    for part in fields_of(view, f.start, f.end, budget):
        if part.number in found:
            found[part.number] = str(view[part.start : part.end], "utf-8")
    return found[KEY], found[VALUE]


@dataclass(frozen=True)
class External:
    """An initializer that lies in a data file of this name."""

    place: Place
    name: str


def _external(view: Content, tensor: _Field, budget: Budget) -> External | None:
    """Read where an initializer lies; None where that is the graph itself."""
    label, entries = "", {}
    for part in fields_of(view, tensor.start, tensor.end, budget):
        if part.number == TENSOR_NAME:
            label = str(view[part.start : part.end], "utf-8")
        elif part.number == TENSOR_EXTERNAL_DATA:
            key, value = _entry(view, part, budget)
            if key in entries:
                raise ValueError(f"two of {key}")
            entries[key] = value
    if not entries:
        return None
    texts = [entries.get(k, "0") for k in ("offset", "length")]
    if not all(t.isascii() and t.isdecimal() and len(t) < 20 for t in texts):
        raise ValueError("a place that is no number")
    offset, length = map(int, texts)
    if not 0 <= offset <= offset + length < LARGEST_OFFSET:
        raise ValueError("a tensor that is nowhere")
    return External(Place(label, offset, length), entries.get("location", ""))


def _name(view: Content, value: _Field, budget: Budget) -> str:
    """Read the name of a ValueInfoProto."""
    for f in fields_of(view, value.start, value.end, budget):
        if f.number == VALUE_NAME:
            return str(view[f.start : f.end], "utf-8")
    return ""


@dataclass
class Header:
    """What is read of an .onnx; `sealed` bytes stand before its last metadata entry."""

    num_bytes: int
    sealed: int
    metadata: dict[str, str]
    externals: list[External]
    inputs: list[str]
    outputs: list[str]
    has_graph: bool = False

    @classmethod
    def read(cls, view: Content) -> "Header":
        """Read it; ValueError or IndexError where this is no ONNX file.

        Metadata is read last, and never more of it than weights account for.
        """
        size = len(view)
        if size > LARGEST_FILE or view[0] != FIRST_BYTE:
            raise ValueError("no ONNX file")
        header = cls(size, -1, {}, [], [], [])
        entries, weights, budget = [], 0, Budget()
        for f in fields_of(view, 0, size, budget):
            if f.number == MODEL_METADATA:
                entries.append(f)
            elif f.number == MODEL_GRAPH:
                header.has_graph = True
                weights += header._read_graph(view, f, budget)
        known = weights + sum(e.place.length for e in header.externals)
        most = MOST_BYTES + BYTES_PER_WEIGHT * known
        if entries and size - weights > most:
            raise TooLarge(f"{most:,} bytes beside its weights", f"{size - weights:,}")
        for f in entries:
            key, value = _entry(view, f, budget)
            if key in header.metadata:
                raise ValueError(f"two of {key}")
            header.metadata[key] = value
            header.sealed = f.at if key == FILE_KEY and f.end == size else -1
        return header

    def _read_graph(self, view: Content, graph: _Field, budget: Budget) -> int:
        """Read inputs, outputs and initializers; returns the bytes of these."""
        weights = 0
        for part in fields_of(view, graph.start, graph.end, budget):
            if part.number == GRAPH_INITIALIZER:
                external = _external(view, part, budget)
                self.externals += [external] if external else []
                weights += part.end - part.start
            elif part.number == GRAPH_INPUT:
                self.inputs.append(_name(view, part, budget))
            elif part.number == GRAPH_OUTPUT:
                self.outputs.append(_name(view, part, budget))
        return weights


def _renamed(view: Content, at: int, end: int, path: Sequence[int], name: str) -> bytes:
    """Return a message with another name of the data file; `path` leads to entries."""
    out = b""
    for f in fields_of(view, at, end, Budget()):
        if f.number != path[0]:
            continue
        if len(path) > 1:
            value = _renamed(view, f.start, f.end, path[1:], name)
        elif _entry(view, f, Budget())[0] == "location":
            value = entry("location", name)
        else:
            continue
        out += bytes(view[at : f.at]) + tagged(f.number, value)
        at = f.end
    return out + bytes(view[at:end])


def over_data(view: Content, name: str) -> bytes:
    """Return a model whose weights lie in a data file of another name."""
    path = (MODEL_GRAPH, GRAPH_INITIALIZER, TENSOR_EXTERNAL_DATA)
    return _renamed(view, 0, len(view), path, name)


def data_names(path: Path) -> set[str]:
    """Read which data files an .onnx names, wherever they are.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is no ONNX file.
    """
    with viewed(path, None) as view:
        try:
            header = Header.read(view)
        except IndexError:
            raise ValueError("a message that is cut") from None
    if not header.has_graph:
        raise ValueError("no graph")
    return {e.name for e in header.externals}


@contextmanager
def viewed(path: Path | None, content: bytes | None) -> Iterator[Content]:
    """Look at a file's bytes, or at those in memory."""
    if path is None:
        yield content or b""
        return
    with open_regular(path, buffering=0) as opened:
        file = cast("io.FileIO", opened)
        size = os.fstat(file.fileno()).st_size
        yield file.read(size) if size <= READ_WHOLE_BYTES else _FileView(file, size)


def _encoded(number: int) -> bytes:
    """Encode a number as protobuf does."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def before(number: int, length: int) -> bytes:
    """Encode what stands before the value of such a field: tag and length."""
    return _encoded(number << 3 | BYTES) + _encoded(length)


def tagged(number: int, value: bytes) -> bytes:
    """Encode a field of protobuf whose value is bytes: tag, length, value."""
    return before(number, len(value)) + value


def entry(key: str, value: str) -> bytes:
    """Encode a StringStringEntryProto of onnx.proto."""
    return tagged(1, key.encode()) + tagged(2, value.encode())
