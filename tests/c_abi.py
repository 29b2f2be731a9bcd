"""The C interface of encoding, din_infer/include/din_encode.h, called by ctypes."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tests.ops import library

_ERROR = 400


class Schema(ctypes.Structure):
    _fields_ = [
        ("format", ctypes.c_char_p),
        ("name", ctypes.c_char_p),
        ("metadata", ctypes.c_void_p),
        ("flags", ctypes.c_int64),
        ("n_children", ctypes.c_int64),
        ("children", ctypes.c_void_p),
        ("dictionary", ctypes.c_void_p),
        ("release", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
        ("private_data", ctypes.c_void_p),
    ]


class Array(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("length", "null_count", "offset")),
        *((name, ctypes.c_int64) for name in ("n_buffers", "n_children")),
        *((name, ctypes.c_void_p) for name in ("buffers", "children", "dictionary")),
        ("release", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
        ("private_data", ctypes.c_void_p),
    ]


class Tensor(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("type", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("dims", ctypes.c_int64 * 2),
        ("data", ctypes.c_void_p),
    ]


class Column(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("of_candidates", ctypes.c_int32),
        ("is_optional", ctypes.c_int32),
    ]


def load() -> ctypes.CDLL:
    """The library, its functions typed."""
    lib = ctypes.CDLL(str(library()))
    pointer, whole = ctypes.c_void_p, ctypes.c_int64
    last = (ctypes.c_char_p, ctypes.c_size_t)
    signatures: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "version": (ctypes.c_int32, ()),
        "open": (pointer, (ctypes.c_char_p, whole, *last)),
        "close": (None, (pointer,)),
        "num_columns": (whole, (pointer,)),
        "get_column": (Column, (pointer, whole)),
        "num_inputs": (whole, (pointer,)),
        "input_name": (ctypes.c_char_p, (pointer, whole)),
        "table": (pointer, (pointer,) * 3 + last),
        "requests": (pointer, (pointer,) * 6 + last),
        "input": (Tensor, (pointer, whole)),
        "release": (None, (pointer,)),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(lib, f"din_encode_{name}")
        function.restype, function.argtypes = result, arguments
    return lib


class Refused(Exception):
    """What the library wrote into `error`."""


@contextmanager
def exported(batch: pa.RecordBatch) -> Iterator[tuple[Any, Any]]:
    schema, array = Schema(), Array()
    batch._export_to_c(ctypes.addressof(array), ctypes.addressof(schema))
    try:
        yield ctypes.byref(schema), ctypes.byref(array)
    finally:
        for one in (schema, array):
            one.release(ctypes.addressof(one))


class Spec:
    """A spec opened by the library; `close` it."""

    def __init__(self, json: str | bytes) -> None:
        self.lib = load()
        text = json.encode() if isinstance(json, str) else json
        error = ctypes.create_string_buffer(_ERROR)
        self.handle = self.lib.din_encode_open(text, len(text), error, _ERROR)
        if not self.handle:
            raise Refused(error.value.decode(errors="replace"))

    def close(self) -> None:
        self.lib.din_encode_close(self.handle)

    def __enter__(self) -> "Spec":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def columns(self) -> list[tuple[str, int, int]]:
        count = self.lib.din_encode_num_columns(self.handle)
        found = [self.lib.din_encode_get_column(self.handle, i) for i in range(count)]
        return [(c.name.decode(), c.of_candidates, c.is_optional) for c in found]

    @property
    def inputs(self) -> list[str]:
        count = self.lib.din_encode_num_inputs(self.handle)
        names = (self.lib.din_encode_input_name(self.handle, i) for i in range(count))
        return [name.decode() for name in names]

    def encode(self, table: pa.Table | pa.RecordBatch) -> dict[str, NDArray[Any]]:
        """Encode a table."""
        with exported(one_batch(table)) as (schema, array):
            return self._call(self.lib.din_encode_table, schema, array)

    def encode_requests(
        self,
        requests: pa.RecordBatch,
        candidates: pa.RecordBatch,
        owners: NDArray[np.int64] | None,
    ) -> dict[str, NDArray[Any]]:
        """Encode requests and their candidates."""
        data = None if owners is None else owners.ctypes.data
        with exported(requests) as users, exported(candidates) as items:
            return self._call(self.lib.din_encode_requests, *users, *items, data)

    def _call(self, function: Any, *arguments: Any) -> dict[str, NDArray[Any]]:  # noqa: ANN401
        error = ctypes.create_string_buffer(_ERROR)
        batch = function(self.handle, *arguments, error, _ERROR)
        if not batch:
            raise Refused(error.value.decode(errors="replace"))
        made = {}
        for i, name in enumerate(self.inputs):
            t = self.lib.din_encode_input(batch, i)
            assert t.name.decode() == name
            shape = tuple(t.dims[: t.rank])
            kind = ctypes.c_int64 if t.type == 1 else ctypes.c_float
            count = int(np.prod(shape))
            data = ctypes.cast(t.data, ctypes.POINTER(kind * count))
            made[name] = np.array(data.contents).reshape(shape)
        self.lib.din_encode_release(batch)
        return made


def one_batch(table: pa.Table | pa.RecordBatch) -> pa.RecordBatch:
    """A table as one record batch."""
    if isinstance(table, pa.RecordBatch):
        return table
    chunks = table.combine_chunks().to_batches()
    return chunks[0] if chunks else pa.RecordBatch.from_pylist([], table.schema)
