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
from typing import NamedTuple, overload

from din_infer.model_format import DOMAIN, FILE_KEY

__all__ = [
    "GRAPH_INITIALIZER",
    "MODEL_GRAPH",
    "MODEL_METADATA",
    "Content",
    "External",
    "Header",
    "Place",
    "before",
    "data_names",
    "entry",
    "over_data",
    "tagged",
    "viewed",
]

# Fields of onnx.proto.
MODEL_GRAPH, MODEL_METADATA, MODEL_FUNCTIONS = 7, 14, 25
GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_INPUT, GRAPH_OUTPUT = 1, 5, 11, 12
NODE_OPERATOR, NODE_DOMAIN = 4, 7
TENSOR_NAME, TENSOR_EXTERNAL_DATA, VALUE_NAME = 8, 13, 1
KEY, VALUE = 1, 2
# Messages that hold tensors, beside a graph's own initializers: {field: what it is}.
TENSORS_IN: dict[str, dict[int, str]] = {
    "graph": {GRAPH_NODE: "node", GRAPH_INITIALIZER: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {
        **{5: "tensor", 10: "tensor", 6: "graph", 11: "graph"},
        **{22: "sparse", 23: "sparse"},
    },
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {TENSOR_EXTERNAL_DATA: "data"},
}
DEEPEST = 100  # as protobuf reads
# Wire types of protobuf, and the bytes of those that are of one size.
VARINT, BYTES = 0, 2
FIXED = {1: 8, 5: 4}
VARINT_BYTES = 10
LARGEST_OFFSET = 1 << 63
READ_WHOLE_BYTES = 1 << 20


@dataclass(frozen=True)
class Place:
    """Where the bytes of a tensor lie in a file."""

    tensor: str
    offset: int
    length: int


class _FileView:
    """A file's bytes, read when they are asked for: nothing is mapped."""

    def __init__(self, file: io.FileIO, size: int) -> None:
        self._file, self._size, self._handle = file, size, file.fileno()

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, part: int) -> int: ...
    @overload
    def __getitem__(self, part: slice) -> bytes: ...
    def __getitem__(self, part: int | slice) -> int | bytes:
        if isinstance(part, slice):
            size = part.stop - part.start
            if sys.platform != "win32":  # in half the time
                return os.pread(self._handle, size, part.start)
            else:  # noqa: RET505 - as mypy tells platforms apart
                self._file.seek(part.start)
                return self._file.read(size)
        byte = self[part : part + 1]
        if not byte:
            raise IndexError(part)
        return byte[0]


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


def _fields(view: Content, at: int, end: int) -> Iterator[_Field]:
    """Iterate over the fields of a message that are messages or strings."""
    while at < end:
        begin = at
        tag, at = _varint(view, at)
        kind = tag & 7
        if kind == VARINT:
            _, at = _varint(view, at)
        elif kind == BYTES:
            size, start = _varint(view, at)
            at = start + size
            if at <= end:
                yield _Field(tag >> 3, begin, start, at)
        elif kind in FIXED:
            at += FIXED[kind]
        else:
            raise ValueError(f"wire type {kind}")
    if at != end:
        raise ValueError("a field beyond the end")


def _entry(view: Content, f: _Field) -> tuple[str, str]:
    """Read a StringStringEntryProto."""
    found = {KEY: "", VALUE: ""}
    for part in _fields(view, f.start, f.end):
        if part.number in found:
            found[part.number] = str(view[part.start : part.end], "utf-8")
    return found[KEY], found[VALUE]


@dataclass(frozen=True)
class External:
    """An initializer that lies in a data file of this name."""

    place: Place
    name: str


def _external(view: Content, tensor: _Field) -> External | None:
    """Read where an initializer lies; None where that is the graph itself."""
    label, entries = "", {}
    for part in _fields(view, tensor.start, tensor.end):
        if part.number == TENSOR_NAME:
            label = str(view[part.start : part.end], "utf-8")
        elif part.number == TENSOR_EXTERNAL_DATA:
            key, value = _entry(view, part)
            if key in entries:
                raise ValueError(f"two of {key}")
            entries[key] = value
    if not entries:
        return None
    offset, length = (int(entries.get(k, "0")) for k in ("offset", "length"))
    if not 0 <= offset <= offset + length < LARGEST_OFFSET:
        raise ValueError("a tensor that is nowhere")
    return External(Place(label, offset, length), entries.get("location", ""))


def _hides_data(view: Content, f: _Field, kind: str, depth: int = 0) -> bool:
    """Tell whether any tensor in a message lies in a data file."""
    if kind == "data":
        return True
    if b"location" not in view[f.start : f.end]:  # the key of a data file's name
        return False
    if depth > DEEPEST:
        raise ValueError("messages in messages without end")
    inner = TENSORS_IN[kind]
    return any(
        _hides_data(view, part, inner[part.number], depth + 1)
        for part in _fields(view, f.start, f.end)
        if part.number in inner
    )


def _name(view: Content, value: _Field) -> str:
    """Read the name of a ValueInfoProto."""
    for f in _fields(view, value.start, value.end):
        if f.number == VALUE_NAME:
            return str(view[f.start : f.end], "utf-8")
    return ""


def _own_operator(view: Content, node: _Field) -> str:
    """Read which operator of this package a node is; "" if it is another's."""
    found = {NODE_OPERATOR: "", NODE_DOMAIN: ""}
    for f in _fields(view, node.start, node.end):
        if f.number in found:
            found[f.number] = str(view[f.start : f.end], "utf-8")
    return found[NODE_OPERATOR] if found[NODE_DOMAIN] == DOMAIN else ""


@dataclass
class Header:
    """What is read of an .onnx; `sealed` bytes stand before its last metadata entry.

    `operators` are those of this package that the graph has, by name. `hides_data`
    tells of tensors in a data file that are no initializers of the graph.
    """

    num_bytes: int
    sealed: int
    metadata: dict[str, str]
    externals: list[External]
    inputs: list[str]
    outputs: list[str]
    operators: set[str]
    has_graph: bool = False
    hides_data: bool = False

    @classmethod
    def read(cls, view: Content) -> "Header":
        """Read it; ValueError or IndexError where this is no ONNX file."""
        size = len(view)
        header = cls(size, -1, {}, [], [], [], set())
        for f in _fields(view, 0, size):
            if f.number == MODEL_METADATA:
                key, value = _entry(view, f)
                header.metadata[key] = value
                header.sealed = f.at if key == FILE_KEY and f.end == size else -1
            elif f.number == MODEL_GRAPH:
                header.has_graph = True
                for part in _fields(view, f.start, f.end):
                    if part.number == GRAPH_INITIALIZER:
                        external = _external(view, part)
                        header.externals += [external] if external else []
                    elif part.number == GRAPH_INPUT:
                        header.inputs.append(_name(view, part))
                    elif part.number == GRAPH_OUTPUT:
                        header.outputs.append(_name(view, part))
                    elif part.number in TENSORS_IN["graph"]:
                        if part.number == GRAPH_NODE:
                            header.operators.add(_own_operator(view, part))
                        kind = TENSORS_IN["graph"][part.number]
                        header.hides_data |= _hides_data(view, part, kind)
            elif f.number == MODEL_FUNCTIONS:
                header.hides_data |= _hides_data(view, f, "function")
        header.operators.discard("")
        return header


def _renamed(view: Content, at: int, end: int, path: Sequence[int], name: str) -> bytes:
    """Return a message with another name of the data file; `path` leads to entries."""
    out = b""
    for f in _fields(view, at, end):
        if f.number != path[0]:
            continue
        if len(path) > 1:
            value = _renamed(view, f.start, f.end, path[1:], name)
        elif _entry(view, f)[0] == "location":
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
    with path.open("rb", buffering=0) as file:
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
