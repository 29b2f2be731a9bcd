"""What a model file says of itself, read without a runtime: spec, id, data files.

The driver of an engine plans with it: no session, no tables in its memory. An `.onnx`
is one protobuf message; only its metadata and the places of its weights are looked at.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from din_infer.errors import ModelError, explain
from din_infer.spec import FeatureSpec

__all__ = ["ModelFile"]

# Fields of onnx.proto.
MODEL_GRAPH, MODEL_METADATA = 7, 14
GRAPH_INITIALIZER, TENSOR_EXTERNAL_DATA = 5, 13
KEY, VALUE = 1, 2
# Wire types of protobuf, and the bytes of those that are of one size.
VARINT, BYTES = 0, 2
FIXED = {1: 8, 5: 4}


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    """Read a number; returns it and the place behind it."""
    value = shift = 0
    while True:
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _messages(view: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Iterate over the fields of a message that are messages or strings."""
    at = 0
    while at < len(view):
        tag, at = _varint(view, at)
        kind = tag & 7
        if kind == VARINT:
            _, at = _varint(view, at)
        elif kind == BYTES:
            size, at = _varint(view, at)
            if size > len(view) - at:
                message = "a field beyond the end"
                raise ValueError(message)
            yield tag >> 3, view[at : at + size]
            at += size
        elif kind in FIXED:
            at += FIXED[kind]
        else:
            message = f"wire type {kind}"
            raise ValueError(message)


def _entry(view: memoryview) -> tuple[str, str]:
    """Read a key and its value."""
    found = {KEY: "", VALUE: ""}
    found |= {n: str(text, "utf-8") for n, text in _messages(view) if n in found}
    return found[KEY], found[VALUE]


@dataclass(frozen=True)
class ModelFile:
    """A model on disk: its spec, its metadata, and the data files that belong to it."""

    path: Path
    spec: FeatureSpec
    metadata: dict[str, str]
    data_paths: tuple[Path, ...]

    @property
    def model_id(self) -> str:
        """Digest of the graph, with its spec, and its weights."""
        return self.metadata.get("din_infer.model_id", "")

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "ModelFile":
        """Read the header of a model.

        Raises
        ------
        ModelError
            If there is no such file, or it is not a model with a feature spec that
            din-convert wrote.
        """
        file = Path(path).absolute()
        place = str(path)
        try:
            view = memoryview(file.read_bytes())
        except OSError as error:
            got = "a folder" if file.is_dir() else str(error.strerror)
            raise ModelError(explain("a model file", got, place)) from None
        metadata: dict[str, str] = {}
        names: dict[str, None] = {}
        try:
            for number, message in _messages(view):
                if number == MODEL_METADATA:
                    key, value = _entry(message)
                    metadata[key] = value
                elif number == MODEL_GRAPH:
                    names |= dict.fromkeys(_data_names(message))
        except (ValueError, IndexError):
            rule = "a model that din-convert wrote"
            raise ModelError(explain(rule, "no ONNX file", place)) from None
        if "din_infer.spec" not in metadata:
            rule = "a model with a feature spec, which din-convert wrote"
            raise ModelError(explain(rule, "an ONNX file without one", place))
        return cls(
            path=file,
            spec=FeatureSpec.from_json(metadata["din_infer.spec"]),
            metadata=metadata,
            data_paths=tuple(file.with_name(name) for name in names),
        )


def _data_names(graph: memoryview) -> Iterator[str]:
    """Iterate over the files that initializers lie in; names repeat."""
    for number, tensor in _messages(graph):
        if number == GRAPH_INITIALIZER:
            for field, entry in _messages(tensor):
                if field == TENSOR_EXTERNAL_DATA:
                    key, value = _entry(entry)
                    if key == "location":
                        yield value
