"""A model repository of Triton Inference Server, which KServe and Seldon read, too.

::

    DIR/<stem>/config.pbtxt             all inputs and outputs, and no batching
    DIR/<stem>/din_infer_ops.so         the native operators
    DIR/<stem>/1/model.onnx             the model, and its data file by its own name
"""

import os
import shutil
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto

from din_converter.prune import data_files
from din_infer.errors import ConversionError
from din_infer.local_path import local_path
from din_infer.model_format import DOMAIN, MODEL_ID_KEY
from din_infer.session import ops_library
from din_infer.version import __version__
from din_infer.whole_file import draft_folder, move_into_place, write_whole, writing

__all__ = ["Repository", "config_text"]

VERSION = "1"
MODEL, CONFIG, LIBRARY = "model.onnx", "config.pbtxt", "din_infer_ops"
ANY_SIZE = -1
# What a tensor is called in model_config.proto.
TYPES: dict[int, str] = {
    TensorProto.BOOL: "TYPE_BOOL",
    TensorProto.UINT8: "TYPE_UINT8",
    TensorProto.UINT16: "TYPE_UINT16",
    TensorProto.UINT32: "TYPE_UINT32",
    TensorProto.UINT64: "TYPE_UINT64",
    TensorProto.INT8: "TYPE_INT8",
    TensorProto.INT16: "TYPE_INT16",
    TensorProto.INT32: "TYPE_INT32",
    TensorProto.INT64: "TYPE_INT64",
    TensorProto.FLOAT16: "TYPE_FP16",
    TensorProto.FLOAT: "TYPE_FP32",
    TensorProto.DOUBLE: "TYPE_FP64",
    TensorProto.STRING: "TYPE_STRING",
    TensorProto.BFLOAT16: "TYPE_BF16",
}
HEAD = """\
# Written by din-convert {version}, for the model {model_id}.
#
# max_batch_size stays 0: a call is a batch already, of requests and their candidates,
# which request_of_candidate joins. Calls that are joined on their first axis would
# score candidates with the histories of others; the model refuses them.
"""
THREADS = """
# One call at a time, on all cores. For many small calls: as many instances as cores,
# and intra_op_thread_count "1". The data file is mapped once for all of them.
instance_group [ { kind: KIND_CPU count: 1 } ]
"""
PARAMETERS = {
    "intra_op_thread_count": "0",
    "inter_op_thread_count": "1",
    "execution_mode": "0",
}
OPERATORS = """
# Many times faster than the model's own functions; without this line they run instead,
# but for a graph of raw columns, which needs it.
"""


@dataclass(frozen=True)
class Repository:
    """The folder of a repository, and where the server finds it."""

    folder: Path
    seen_as: str

    @classmethod
    def of(
        cls, folder: str | os.PathLike[str] | None, seen_as: str | None
    ) -> "Repository | None":
        """Read the two options of `convert`.

        Raises
        ------
        ConversionError
            If the folder is a file, or the second is given without the first.
        """
        if folder is None:
            if seen_as is not None:
                rule = "the folder of a repository, for where a server finds it"
                raise ConversionError(rule, repr(seen_as), "triton")
            return None
        path = local_path(folder, "triton", ConversionError)
        if path.exists() and not path.is_dir():
            raise ConversionError("a folder, or nothing", "a file", str(path))
        return cls(path, seen_as or path.absolute().as_posix())

    def add(
        self, model: Path, data: Path | None, proto: onnx.ModelProto, *, prune: bool
    ) -> tuple[Path, ...]:
        """Write a model, which is `proto`, into its folder; returns all files there.

        What a server needs first is there first: operators, weights, graph, config.
        Files of an earlier conversion are replaced; with `prune` its weights go.
        """
        name = model.stem
        here = self.folder / name
        version = here / VERSION
        files = [version / MODEL, here / CONFIG]
        with writing("the model repository", here, ConversionError):
            for place in (here, version):
                if place.is_symlink():
                    rule = "a folder of the repository"
                    got = f"a link to {place.readlink()}"
                    raise ConversionError(rule, got, str(place))
            version.mkdir(parents=True, exist_ok=True)
            seen_at, library = "", ops_library()
            if library is not None and any(
                n.domain == DOMAIN for n in proto.graph.node
            ):
                file = here / f"{LIBRARY}{library.suffix}"
                _place(library, file, shares=False)
                seen_at = f"{self.seen_as.rstrip('/')}/{name}/{file.name}"
                files.append(file)
            if data is not None:
                files.insert(0, version / data.name)
                _place(data, files[0], shares=True)
            _place(model, version / MODEL, shares=True)
            with draft_folder(here / CONFIG) as drafts:
                write_whole(drafts / CONFIG, config_text(proto, name, seen_at))
                move_into_place(drafts / CONFIG, here / CONFIG)
            if prune:
                for file in data_files(version, name):
                    if file not in files:
                        file.unlink()
        return tuple(files)


def _place(source: Path, target: Path, *, shares: bool) -> None:
    """Copy a file into place; one that is never written again may share its bytes."""
    with draft_folder(target) as drafts:
        draft = drafts / target.name
        if shares:
            with suppress(OSError):  # another file system, or one without hard links
                os.link(source, draft)
        if not draft.exists():
            shutil.copyfile(source, draft)
        move_into_place(draft, target)


def config_text(model: onnx.ModelProto, name: str, library: str) -> str:
    """Write the config.pbtxt of a model; `library` is the path of its operators or "".

    Raises
    ------
    ConversionError
        If a tensor is of a type that the server does not know.
    """
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    head = HEAD.format(version=__version__, model_id=metadata.get(MODEL_ID_KEY, ""))
    parts = [
        head,
        f"name: {_quoted(name)}\n",
        'backend: "onnxruntime"\n',
        f"default_model_filename: {_quoted(MODEL)}\n",
        "max_batch_size: 0\n",
        _tensors("input", model.graph.input, {i.name for i in model.graph.initializer}),
        _tensors("output", model.graph.output),
        THREADS,
    ]
    for key, value in PARAMETERS.items():
        value = f"{{ string_value: {_quoted(value)} }}"
        parts.append(f"parameters {{ key: {_quoted(key)} value: {value} }}\n")
    if library:
        place = f"op_library_filename: {_quoted(library)}"
        parts += [OPERATORS, f"model_operations {{ {place} }}\n"]
    return "".join(parts)


def _tensors(
    kind: str, values: Sequence[onnx.ValueInfoProto], optional: Collection[str] = ()
) -> str:
    """Write the tensors of a graph; what stands for `optional` ones is in the graph."""
    lines = []
    for value in values:
        tensor = value.type.tensor_type
        if tensor.elem_type not in TYPES:
            rule = "tensors of a type that Triton knows"
            got = TensorProto.DataType.Name(tensor.elem_type)
            raise ConversionError(rule, got, value.name)
        sizes = [
            d.dim_value if d.HasField("dim_value") else ANY_SIZE
            for d in tensor.shape.dim
        ]
        dims = ", ".join(str(size) for size in sizes or [1])  # a scalar has one value
        lines.append(
            f"  {{ name: {_quoted(value.name)} data_type: {TYPES[tensor.elem_type]}"
            f" dims: [ {dims} ]{' optional: true' * (value.name in optional)} }}"
        )
    return f"\n{kind} [\n" + ",\n".join(lines) + "\n]\n"


def _quoted(text: str) -> str:
    """Quote a string as protobuf's text format does: bytes beyond ASCII in octal."""
    out = ""
    for byte in text.encode():
        plain = 32 <= byte < 127 and byte not in b'"\\'
        out += chr(byte) if plain else f"\\{byte:03o}"
    return f'"{out}"'
