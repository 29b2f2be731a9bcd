"""Tables of several writers as one: equal values in equal types, of 64-bit offsets."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from din_infer import columns
from din_infer.errors import InputError

__all__ = ["join", "widen"]

NULL = pa.null()
STRINGS = ("string", "large_string", "string_view")


def widen(table: pa.Table | pa.RecordBatch) -> pa.Table:
    """Give columns the widest type of their kind, which encodes to the same ids.

    Strings become large_string and binary large_binary, whole numbers and booleans
    int64, numbers float64, and lists of these large_list, so that any number of rows
    can be joined and shuffled. Dictionaries are decoded. Other types stay.
    """
    names = table.schema.names
    return pa.table({name: _chunks(table[name], _widest) for name in names})


def join(parts: Sequence[tuple[str, pa.Table]], dtypes: Mapping[str, str]) -> pa.Table:
    """Join tables that `widen` has made, of the same columns.

    Parameters
    ----------
    parts : sequence of (str, pyarrow.Table)
        Each with what errors call its source.
    dtypes : dict
        "float" for columns that are read as numbers. In others whole numbers may be of
        any type.

    Returns
    -------
    pyarrow.Table
        A chunk for each chunk of the parts.

    Raises
    ------
    InputError
        Naming column and source, if a column has values of two kinds.
    """
    first = parts[0][1]
    joined = {}
    for name in first.column_names:
        kinds = list(dict.fromkeys(table[name].type for _, table in parts))
        wanted = _common(kinds, dtypes.get(name) == "float")
        chunks = []
        for source, table in parts:
            column = table[name]
            try:
                if column.type == NULL:
                    column = pa.chunked_array([pa.nulls(len(column), wanted)])
                elif column.type != wanted:
                    column = _chunks(column, _cast(wanted))
            except (InputError, pa.ArrowException):
                shown = " or ".join(str(kind) for kind in kinds if kind != column.type)
                rule = f"values that can be {shown}, as in other files"
                raise InputError(rule, column.type, name, source=source) from None
            chunks += column.chunks
        joined[name] = pa.chunked_array(chunks, wanted)
    return pa.table(joined)


def _chunks(
    column: pa.ChunkedArray | pa.Array, change: Callable[[pa.Array], pa.Array]
) -> pa.ChunkedArray:
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    chunks = chunks or [pa.array([], column.type)]
    return pa.chunked_array([_over_values(chunk, change) for chunk in chunks])


def _is_list(kind: pa.DataType) -> bool:
    names = ("list", "large_list", "fixed_size_list", "list_view", "large_list_view")
    return any(getattr(pa.types, f"is_{name}")(kind) for name in names)


def _over_values(array: pa.Array, change: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """Change the values inside all lists; pyarrow casts not every list, or wrongly."""
    if not _is_list(array.type):
        return change(array)
    lengths = pc.fill_null(pc.list_value_length(array), 0)
    if pa.types.is_fixed_size_list(array.type):
        lengths = pc.if_else(array.is_valid(), lengths, 0)
    offsets = np.zeros(len(array) + 1, np.int64)
    np.cumsum(np.asarray(lengths), out=offsets[1:])
    values = _over_values(array.flatten(), change)
    mask = array.is_null() if array.null_count else None
    return pa.LargeListArray.from_arrays(pa.array(offsets), values, mask=mask)


def _widest(array: pa.Array) -> pa.Array:
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _widest(array.dictionary_decode())
    # Apart: of an encoder with `uuid_as`, 16 bytes of binary may be a UUID.
    if any(getattr(pa.types, f"is_{name}")(kind) for name in STRINGS):
        return array.cast(pa.large_string())
    if pa.types.is_binary(kind) or pa.types.is_binary_view(kind):
        return array.cast(pa.large_binary())
    if pa.types.is_floating(kind):
        return array.cast(pa.float64())
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        if pa.types.is_uint64(kind) and (pc.max(array).as_py() or 0) >= 1 << 63:
            return array
        return array.cast(pa.int64())
    return array


def _common(kinds: Sequence[pa.DataType], is_float: bool) -> pa.DataType:
    """Choose the type that columns of several types become."""
    left = [kind for kind in kinds if kind != NULL]
    if len(left) <= 1:
        return (left or [NULL])[0]
    if all(map(_is_list, left)):
        return pa.large_list(_common([k.value_type for k in left], is_float))
    if any(map(_is_list, left)):
        return next(filter(_is_list, left))
    numbers = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    if all(any(is_number(kind) for is_number in numbers) for kind in left):
        if is_float:
            return pa.float64()
        return pa.uint64() if pa.uint64() in left else pa.int64()
    if pa.large_binary() in left:  # as which strings can be read
        return pa.large_binary()
    return left[0]


def _cast(wanted: pa.DataType) -> Callable[[pa.Array], pa.Array]:
    """Return what makes values of type `wanted`; raises where that changes one.

    Numbers are read as the encoder reads them: pyarrow rounds decimals otherwise.
    """
    while _is_list(wanted):
        wanted = wanted.value_type

    def cast(values: pa.Array) -> pa.Array:
        if wanted == pa.float64():
            numbers = columns.floats(pa.table({"values": values}), "values")
            return pa.array(numbers, mask=np.asarray(values.is_null()))
        if wanted == pa.int64():
            made, valid = columns.integers(values, "values")
            return pa.array(made, mask=valid == 0)
        if wanted == pa.large_string() and values.type not in (wanted, NULL):
            raise pa.ArrowInvalid("digits for numbers")  # which pyarrow would make
        return values.cast(wanted)

    return cast
