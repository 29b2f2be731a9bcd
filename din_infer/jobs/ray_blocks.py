"""Columns of Ray's blocks as plain Arrow: Ray has types of its own for Python values.

Where Arrow has no type for the values of a block (a string beside a NaN), Ray pickles
them one by one; of NumPy arrays it makes tensors.
"""

import io
import pickle
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from din_infer import _kernels
from din_infer.errors import InputError
from din_infer.spec import FeatureSpec

__all__ = ["plain_columns", "plain_schema"]

PICKLED = "ray.data.arrow_pickled_object"
TENSOR = "Give lists in place of NumPy arrays: array.tolist()."
# Where Ray's type for arrays of various lengths has their values.
DATA = "data"
# What a pickle may name; of all else it could run anything.
_MULTIARRAY = ("numpy._core.multiarray", "numpy.core.multiarray")
_NUMERIC = ("numpy._core.numeric", "numpy.core.numeric")
_HARMLESS = {
    *((module, name) for module in _MULTIARRAY for name in ("_reconstruct", "scalar")),
    *((module, "_frombuffer") for module in _NUMERIC),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("decimal", "Decimal"),
    ("pandas", "NA"),
}
_RULES = {"string": "strings", "int64": "integers", "float": "numbers"}
_TYPES = {"string": pa.string(), "int64": pa.int64(), "float": pa.float64()}


def plain_schema(schema: pa.Schema) -> pa.Schema | None:
    """Say what `plain_columns` makes of a table; None where only the values tell."""
    if any(map(_is_pickled, schema.types)):
        return None
    return pa.schema([f.with_type(_plain_type(f.type)) for f in schema])


def plain_columns(table: pa.Table, spec: FeatureSpec) -> pa.Table:
    """Take values out of Ray's own types.

    Parameters
    ----------
    table : pyarrow.Table
    spec : FeatureSpec
        Says what type the pickled values of its columns become; other pickled columns
        stay as they are.

    Raises
    ------
    InputError
        If a pickled value has another type than the spec's, or one that is no plain
        Python or NumPy value.
    """
    dtypes = {c.name: c.dtype for c in spec.reads}
    columns = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        values = _Values(dtypes, name)
        if not _is_pickled(column.type):
            columns.append(_plain(column))
            if values.is_read and _is_tensor(columns[-1].type):
                rule = "tensors of Ray with one axis, and of numbers"
                raise InputError(rule, column.type, name, TENSOR)
            continue
        is_read = values.is_read or values.has_candidates(column)
        columns.append(values.read(column) if is_read else column)
    return pa.Table.from_arrays(columns, names=table.column_names)


def _is_pickled(kind: pa.DataType) -> bool:
    return isinstance(kind, pa.ExtensionType) and kind.extension_name == PICKLED


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Take the lists out of tensors of one axis."""
    kind = _plain_type(column.type)
    if kind == column.type:
        return column
    chunks = [c.storage for c in column.chunks]
    if kind != column.type.storage_type:
        chunks = [pc.struct_field(c, DATA) for c in chunks]
    return pa.chunked_array(chunks, kind)


def _is_tensor(kind: pa.DataType) -> bool:
    name = getattr(kind, "extension_name", "")
    return name.startswith(("ray.data.arrow_tensor", "ray.data.arrow_variable_shaped"))


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if not _is_tensor(kind):
        return kind
    stored = kind.storage_type
    # arrays of various lengths: their values, and a shape that says nothing more
    if pa.types.is_struct(stored):
        plain, axes = stored.field(DATA).type, kind.ndim
    else:
        plain, axes = stored, len(kind.shape)
    # text of NumPy is stored as bytes of four a letter: `plain_columns` refuses it
    is_text = pa.types.is_fixed_size_binary(plain.value_type)
    return kind if is_text or axes != 1 else plain


class _Unpickler(pickle.Unpickler):
    """Reads plain values, and NumPy's: a pickle of a file could run anything."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401
        if (module, name) not in _HARMLESS:
            message = f"{module}.{name}"
            raise pickle.UnpicklingError(message)
        return None if name == "NA" else super().find_class(module, name)


def _unpickle(pickled: bytes | None) -> Any:  # noqa: ANN401
    return None if pickled is None else _Unpickler(io.BytesIO(pickled)).load()


def _stored(column: pa.ChunkedArray) -> Iterator[bytes | None]:
    return chain.from_iterable(chunk.storage.to_pylist() for chunk in column.chunks)


class _Values:
    """The pickled values of one column, as Arrow's."""

    def __init__(self, dtypes: Mapping[str, str], name: str) -> None:
        self._dtypes, self._name = dtypes, name
        self.is_read = name in dtypes

    def has_candidates(self, column: pa.ChunkedArray) -> bool:
        """Whether the first values are structs with columns of candidates."""
        try:
            first = next(filter(None, map(_unpickle, _stored(column))), None)
        except Exception:  # a pickle may fail in any way
            return False
        fields = first[0] if isinstance(first, list) else None
        return isinstance(fields, dict) and not self._dtypes.keys().isdisjoint(fields)

    def read(self, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """Read a column that the spec reads, or that has its fields in structs."""
        values = []
        for row, pickled in enumerate(_stored(column)):
            try:
                value = _unpickle(pickled)
            except Exception as error:  # a pickle may fail in any way
                rule = "plain Python or NumPy values in Ray's pickled objects"
                raise InputError(rule, error, self._name, row=row) from None
            try:
                values.append(self._plain(value, self._name))
            except InputError as error:
                raise error.at(row=row) from None
        return pa.chunked_array([self._array(values)])

    def _plain(self, value: Any, name: str) -> Any:  # noqa: ANN401
        """Make of a value what Arrow takes; NaN is null where no float is wanted."""
        if isinstance(value, np.ndarray | np.generic):
            if value.dtype.kind in "mM":  # of nanoseconds, tolist makes integers
                fix = _kernels.from_numpy(value.reshape(-1), name).fix
                raise InputError("strings or numbers", value.dtype, name, fix)
            value = value.tolist()
        if isinstance(value, list | tuple):
            return [self._plain(v, name) for v in value]
        if isinstance(value, dict):
            return {key: self._plain(v, key) for key, v in value.items()}
        if isinstance(value, Decimal) and self._dtypes.get(name) != "string":
            return int(value) if value == value.to_integral_value() else float(value)
        is_nan = isinstance(value, float) and value != value
        return None if is_nan and self._dtypes.get(name) != "float" else value

    def _array(self, values: list[Any]) -> pa.Array:
        wrong = (TypeError, ValueError, OverflowError, pa.ArrowException)
        row = kind = None
        reason: object = None
        try:
            kind = self._type(values, self._name)
            return pa.array(values, kind)
        except wrong as error:
            reason = error
        for k, value in enumerate(values if kind is not None else ()):
            try:
                pa.array([value], kind)
            except wrong:
                row, reason = k, repr(value)
                break
        rule = "values of one type"
        if self.is_read:
            rule = f"{_RULES[self._dtypes[self._name]]}, or lists of them"
        raise InputError(rule, reason, self._name, row=row)

    def _type(self, values: Iterable[Any], name: str) -> pa.DataType:
        """Tell the type of values: of the spec's, at the depth of lists they have."""
        some = [v for v in values if v is not None]
        kinds = {type(v) for v in some}
        if kinds == {list}:
            return pa.list_(self._type(chain.from_iterable(some), name))
        if kinds == {dict}:
            keys = dict.fromkeys(chain.from_iterable(some))
            fields = [(k, self._type([v.get(k) for v in some], k)) for k in keys]
            return pa.struct(fields)
        if not some:
            return pa.null()
        if bytes in kinds:
            return pa.binary()
        if self._dtypes.get(name) == "int64" and kinds == {int}:
            fits = min(some) >= -(1 << 63) and max(some) < 1 << 63
            return pa.int64() if fits else pa.decimal256(76, 0)
        if name in self._dtypes:
            return _TYPES[self._dtypes[name]]
        return pa.infer_type(some)
