"""Where a model's weights lie: in a data file beside the .onnx, or inside it.

Both are written from the memory that the weights are in.
"""

import hashlib
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from din_infer.errors import ConversionError
from din_infer.integrity import Record, samples_of, seal_of
from din_infer.onnx_header import GRAPH_INITIALIZER, MODEL_GRAPH, Place, before
from din_infer.whole_file import WholeFile

__all__ = ["check_single", "digest_of_model", "place", "write_single"]

EXTERNAL_ABOVE_BYTES = 1 << 20
SMALL_TENSOR_BYTES = 1 << 10
ALIGNMENT_BYTES = 4096
LARGEST_BYTES = 2**31 - 1  # of a protobuf message
REPORT_BYTES = 1 << 20  # more than a report and the seal take, which come last
TENSOR_RAW_DATA = 9  # of onnx.proto
Weights = Mapping[str, NDArray[Any]]


def _bytes(array: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def digest_of_model(proto: onnx.ModelProto, weights: Weights) -> str:
    """Digest of a graph, with its spec and calibration, and of all weights.

    Take it before `place`: where weights lie, and under which name, is no part of it.
    """
    digest = hashlib.sha256(proto.SerializeToString(deterministic=True))
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(_bytes(weights[name]))
    return digest.hexdigest()[:32]


def place(
    proto: onnx.ModelProto, weights: Weights, stem: str, folder: Path
) -> tuple[str, Record] | None:
    """Fill the initializers, inline or in a data file.

    Parameters
    ----------
    proto : ModelProto
        Its initializers have no data yet.
    weights : dict of array
        Their data, by name.
    stem : str
        What the data file's name begins with; it goes on with the file's digest.
    folder : Path
        Where the data file is written.

    Returns
    -------
    (str, Record) or None
        The data file's name and its digests; None where all weights are inline.
    """
    external = sum(w.nbytes for w in weights.values()) > EXTERNAL_ABOVE_BYTES
    outside: list[TensorProto] = []
    for tensor in proto.graph.initializer:
        array = weights[tensor.name]
        if external and array.nbytes >= SMALL_TENSOR_BYTES:
            outside.append(tensor)
        else:
            tensor.raw_data = array.tobytes()
    if not outside:
        return None
    digest = hashlib.sha256()
    draft = folder / "weights"
    places = []
    with draft.open("w+b") as file:
        for tensor in outside:
            gap = -file.tell() % ALIGNMENT_BYTES
            data = _bytes(weights[tensor.name])
            for block in (bytes(gap), data):
                file.write(block)
                digest.update(block)
            places.append(Place(tensor.name, file.tell() - len(data), len(data)))
        size = file.tell()

        file.flush()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
            record = Record(size, digest.hexdigest(), samples_of(whole, places))
    name = f"{stem}-{record.sha256[:8]}.data"
    draft.rename(folder / name)
    for tensor, p in zip(outside, places, strict=True):
        tensor.data_location = TensorProto.EXTERNAL
        entries = {"location": name, "offset": p.offset, "length": p.length}
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=str(value))
    return name, record


def check_single(proto: onnx.ModelProto, weights: Weights) -> None:
    """Refuse a model that is too large for one file; before `place`."""
    size = proto.ByteSize() + sum(w.nbytes for w in weights.values()) + REPORT_BYTES
    if size > LARGEST_BYTES:
        rule = f"a model of at most {LARGEST_BYTES:,} bytes, as protobuf needs"
        got = f"{size:,} bytes with its weights"
        fix = "Leave it out: a data file beside the .onnx may be of any size."
        raise ConversionError(rule, got, "single_file", fix)


def write_single(proto: onnx.ModelProto, weights: Weights, path: Path) -> None:
    """Write a model with all weights inside, and seal it.

    The message is written field by field, each tensor from its own memory: protobuf
    would make two copies of them all, and the seal two more.
    """
    model, graph = onnx.ModelProto(), onnx.GraphProto()
    model.CopyFrom(proto)
    graph.CopyFrom(proto.graph)
    model.ClearField("graph")
    graph.ClearField("initializer")
    tensors: list[tuple[bytes, memoryview]] = []
    for tensor in proto.graph.initializer:
        head = TensorProto(
            name=tensor.name, dims=tensor.dims, data_type=tensor.data_type
        ).SerializeToString()
        data = _bytes(weights[tensor.name])
        head += before(TENSOR_RAW_DATA, len(data))
        head = before(GRAPH_INITIALIZER, len(head) + len(data)) + head
        tensors.append((head, data))
    start = graph.SerializeToString()
    length = len(start) + sum(len(head) + len(data) for head, data in tensors)
    with WholeFile(path, "w+b") as file:
        file.write(model.SerializeToString())
        file.write(before(MODEL_GRAPH, length) + start)
        for head, data in tensors:
            file.write(head)
            file.write(data)
        file.flush()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
            seal = seal_of(whole)
        file.write(seal)
