"""Any user's batch as columns; every check of what a column *means* is here.

A batch is a dict of columns, a list of dicts, or a frame that speaks Arrow. A column is
a list, a NumPy array, a `(values, offsets)` tuple or Arrow data. Nothing is kept.
Above 400 lines: one function for each of these forms, and the one rule of types.
"""

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from din_infer import _kernels
from din_infer._kernels import Column
from din_infer.errors import DinError, InputError

__all__ = [
    "Batch",
    "find_unread",
    "floats",
    "hash_keys",
    "integers",
    "num_rows",
    "open_batch",
    "require_dtype",
    "to_column",
]

_RULES = {"string": "strings", "int64": "integers", "float": "numbers"}
_NUMBERS = ("int", "float", "decimal")
_KINDS = {"string": ("string",), "int64": _NUMBERS, "float": _NUMBERS}


UUID_BYTES = 16
# of keys: the kind that a column has, the dtype that the spec wants
_OTHER_DTYPE = {
    ("int", "string"): 'Say dtype = "int64" in the spec, or cast the column to strings:'
    " the ids differ.",
    ("string", "int64"): 'Cast the column to integers, or say dtype = "string" in the'
    " spec, with a hash or a vocabulary: the ids differ.",
}


class Batch:
    """The columns that were asked for, all of `num_rows` rows."""

    __slots__ = ("columns", "num_rows")

    def __init__(self, columns: dict[str, Column], num_rows: int) -> None:
        self.columns = columns
        self.num_rows = num_rows


def open_batch(
    batch: object,
    names: Sequence[str],
    place: str = "batch",
    optional: Collection[str] = (),
) -> Batch:
    """Find the columns `names` of a batch; the others are not looked at.

    Parameters
    ----------
    batch : dict of columns, list of dicts, or a frame with `__arrow_c_stream__`
    names : sequence of str
    place : str
        What errors call the batch.
    optional : collection of str
        Columns that are found too where the batch has them.

    Returns
    -------
    Batch
        Views into `batch` where that is possible, copies elsewhere.

    Raises
    ------
    InputError
        If a column is missing or unreadable, or columns have different numbers of rows.
    """
    if isinstance(batch, list):
        if optional:
            rows = [row for row in batch if isinstance(row, Mapping)]
            names = [*names, *(n for n in optional if any(n in row for row in rows))]
        if len(batch) == 1 and isinstance(batch[0], dict):
            return _open_row(batch[0], names, place)
        return _open_rows(batch, names, place)
    if isinstance(batch, Mapping):
        if optional:
            names = [*names, *(n for n in optional if n in batch)]
        return _open_dict(batch, names, place)
    if hasattr(batch, "__arrow_c_stream__") or hasattr(batch, "__arrow_c_array__"):
        return _open_frame(batch, names, place, optional)
    if _is_pandas(batch):
        return _open_pandas(batch, names, place, optional)
    rule = "a dict of columns, a list of dicts or an Arrow frame"
    fix = "Call its collect() first." if hasattr(batch, "collect") else ""
    raise InputError(rule, _type_of(batch), place, fix)


def num_rows(batch: object) -> int:
    """Count the rows of a batch.

    Raises
    ------
    InputError
        If it is no batch.
    """
    if isinstance(batch, list):
        return len(batch)
    if isinstance(batch, Mapping):
        for name, value in batch.items():
            return to_column(value, str(name)).num_rows
        return 0
    for count in (getattr(batch, name, None) for name in ("num_rows", "height")):
        if isinstance(count, int):
            return count
    if _is_pandas(batch):
        return len(batch)  # type: ignore[arg-type]
    return open_batch(batch, ()).num_rows


def _missing(name: str, present: Iterable[object], place: str) -> InputError:
    known = [str(p) for p in present]
    shown = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    got = f"columns {shown}" if known else "no columns"
    return InputError(f"a column `{name}`", got, place)


def _type_of(value: object) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"a {kind.__name__}"


def _is_pandas(batch: object) -> bool:
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(batch, pandas.DataFrame)


def _is_series(value: object) -> bool:
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, pandas.Series)


def _open_dict(
    batch: Mapping[Any, Any], names: Sequence[str], place: str, rows: int | None = None
) -> Batch:
    columns: dict[str, Column] = {}
    first = ""
    for name in dict.fromkeys(names):
        if name not in batch:
            raise _missing(name, batch, place)
        column = to_column(batch[name], name)
        if rows is None:
            rows, first = column.num_rows, name
        elif column.num_rows != rows:
            raise InputError(f"{rows} rows, as `{first}` has", column.num_rows, name)
        columns[name] = column
    return Batch(columns, num_rows(batch) if rows is None else rows)


def _open_row(row: dict[Any, Any], names: Sequence[str], place: str) -> Batch:
    """Open one row: what `_open_rows` does, with less of it in Python."""
    for name in names:
        if name not in row:
            raise _missing(name, row, f"{place}[0]")
    return Batch({n: _kernels.from_list([row[n]], n) for n in names}, 1)


def _open_rows(batch: list[Any], names: Sequence[str], place: str) -> Batch:
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for i, row in enumerate(batch):
        if not isinstance(row, Mapping):
            raise InputError("a dict of one row", _type_of(row), place, row=i)
        for name, values in columns.items():
            try:
                values.append(row[name])
            except KeyError:
                raise _missing(name, row, f"{place}[{i}]") from None
    found = {name: _kernels.from_list(v, name) for name, v in columns.items()}
    return Batch(found, len(batch))


def _open_frame(
    batch: object, names: Sequence[str], place: str, optional: Collection[str]
) -> Batch:
    try:
        narrow = _select(batch, names, place, optional)
        is_misread = any(map(_has_objects, getattr(narrow, "dtypes", ())))
        if names and not is_misread and _is_pandas(narrow):
            is_misread = any(_is_misread(series) for _, series in narrow.items())
        if is_misread:
            series = {name: narrow[name] for name in narrow.columns}
            found = [*names, *(n for n in optional if n in series)]
            return _open_dict(series, found, place, len(narrow))
        wanted = frozenset((*names, *optional))
        present, columns, rows = _kernels.import_arrow(narrow, place, wanted)
    except (DinError, MemoryError):
        raise
    except Exception as error:
        # Without pyarrow, or with columns that Arrow cannot hold.
        if not _is_pandas(batch):
            raise InputError("readable Arrow data", error, place) from error
        return _open_pandas(batch, names, place, optional)
    for name in names:
        if name not in columns:
            raise _missing(name, present, place)
    return Batch(columns, rows)


def _select(
    batch: Any,  # noqa: ANN401
    names: Sequence[str],
    place: str,
    optional: Collection[str] = (),
) -> Any:  # noqa: ANN401
    """Narrow a known frame to the columns, so that converting the rest cannot fail."""
    library = type(batch).__module__.partition(".")[0]
    present = None
    if library in ("pandas", "polars", "duckdb", "pyarrow"):
        attribute = "column_names" if library == "pyarrow" else "columns"
        present = getattr(batch, attribute, None)
    if present is None or not names:
        return batch
    present = list(present)
    for name in names:
        if name not in present:
            raise _missing(name, present, place)
    wanted = list(dict.fromkeys([*names, *(n for n in optional if n in present)]))
    for name in wanted:
        if present.count(name) > 1:
            raise InputError("each column once", "two", name)
    if library == "pandas":
        return batch[wanted].reset_index(drop=True)
    if library == "duckdb":
        quoted = ('"' + name.replace('"', '""') + '"' for name in wanted)
        return batch.project(", ".join(quoted))
    return batch.select(wanted)


def _has_objects(dtype: object) -> bool:
    """Tell whether a dtype of polars is Object, or lists of it.

    As Arrow they are pointers; polars 1.35 ends the process when asked for them.
    """
    kind = type(dtype)
    if not kind.__module__.startswith("polars."):
        return False
    return kind.__name__ == "Object" or _has_objects(getattr(dtype, "inner", None))


def _is_misread(series: Any) -> bool:  # noqa: ANN401
    """Tell whether Arrow takes cells of a pandas column for something else.

    It reads masked arrays without their masks, and sets in the order of this process.
    """
    if not (isinstance(series.dtype, np.dtype) and series.dtype.kind == "O"):
        return False
    cells = series.to_numpy()
    missing = (type(None), float)
    first = next((cell for cell in cells if type(cell) not in missing), None)
    if isinstance(first, str | bytes | int | None):
        return False
    return any(
        issubclass(kind, np.ma.MaskedArray | set) for kind in set(map(type, cells))
    )


def _open_pandas(
    batch: Any,  # noqa: ANN401
    names: Sequence[str],
    place: str,
    optional: Collection[str],
) -> Batch:
    _select(batch, names, place, optional)
    names = [*names, *(n for n in optional if n in batch.columns)]
    arrays = {name: batch[name].to_numpy() for name in names}
    return _open_dict(arrays, names, place, len(batch))


def to_column(value: Any, name: str) -> Column:  # noqa: ANN401
    """Make a column of anything that can be one.

    Parameters
    ----------
    value : list, NumPy array, (values, offsets), or object that speaks Arrow
    name : str
        What errors call it.

    Returns
    -------
    Column
        A view of `value` where that is possible; keeps it alive.

    Raises
    ------
    InputError
        If it cannot be one, or its offsets do not describe its values.
    """
    if isinstance(value, list):
        return _kernels.from_list(value, name)
    if isinstance(value, np.ndarray):
        return _from_array(value, name)
    if isinstance(value, tuple):
        return _from_ragged(value, name)
    if _has_objects(dtype := getattr(value, "dtype", None)):
        if hasattr(dtype, "inner"):
            fix = "Cast its objects to strings or numbers."
            raise InputError("a type that Arrow has", dtype, name, fix)
        return _kernels.from_list(value.to_list(), name)
    if _is_series(value) and _is_misread(value):
        return _kernels.from_list(value.tolist(), name)
    if hasattr(value, "__arrow_c_stream__") or hasattr(value, "__arrow_c_array__"):
        try:
            return _kernels.import_arrow(value, name)[1][name]
        except (DinError, MemoryError):
            raise
        except Exception as error:
            # pandas without pyarrow, or a Series that Arrow cannot hold.
            if not hasattr(value, "__array__"):
                raise InputError("readable Arrow data", error, name) from error
    if hasattr(value, "__array__"):
        try:
            array = np.asarray(value)
        except MemoryError:
            raise
        except Exception as error:  # of torch's tensors: of types that NumPy lacks
            raise InputError("data that NumPy can read", error, name) from error
        return _from_array(array, name)
    rule = "a list, a NumPy array, (values, offsets) or Arrow data"
    single = isinstance(value, str | bytes | int | float)
    fix = "One row is a list of one dict." if single else ""
    raise InputError(rule, _type_of(value), name, fix)


def _from_array(array: NDArray[Any], name: str) -> Column:
    # tolist gives None for masked values, and objects where NumPy has them; of times
    # in nanoseconds, integers.
    is_masked = isinstance(array, np.ma.MaskedArray) and array.dtype.kind not in "mM"
    if is_masked or array.dtype.kind in "OT":
        if array.ndim == 0:
            raise InputError("an array of 1 or 2 axes", 0, name)
        return _kernels.from_list(array.tolist(), name)
    return _kernels.from_numpy(array, name)


def _from_ragged(value: tuple[Any, ...], name: str) -> Column:
    if len(value) != 2:
        raise InputError("a tuple (values, offsets)", f"a tuple of {len(value)}", name)
    values, offsets = value
    for join in ("combine_chunks", "rechunk"):
        if hasattr(values, join):
            values = getattr(values, join)()
            break
    return _kernels.nest(to_column(values, name), offsets)


def require_dtype(
    column: Column,
    dtype: str,
    *,
    is_list: bool,
    uuid_as: str | None = None,
    fix: str = "",
    is_key: bool = False,
) -> Column:
    """Return the column if a field of this dtype and shape may read it.

    Parameters
    ----------
    column : Column
    dtype : str
        "string", "int64" or "float".
    is_list : bool
    uuid_as : {"bytes", "text"}, optional
        What UUIDs and fixed-size binary are read as, where strings are wanted.
    fix : str
        Added to the error when the shape is wrong.
    is_key : bool
        Whether the values become ids: the spec may have another dtype for them.

    Returns
    -------
    Column
        The column, or as many nulls where it holds nothing at all.

    Raises
    ------
    InputError
        If it may not.
    """
    kind = column.kind
    right_kind = kind == "null" or kind in _KINDS[dtype]
    right_shape = column.is_list == is_list or (kind == "null" and not column.is_list)
    if right_kind and right_shape:
        if kind == "string" and uuid_as is not None:
            _check_uuids(column, uuid_as)
        return column
    readable = uuid_as == "bytes" or (uuid_as == "text" and column.width == UUID_BYTES)
    if kind == "fixed" and dtype == "string" and right_shape and readable:
        return column.as_strings(uuid_as == "text")
    if not column.has_values(True):
        return column.as_null()
    if right_shape and is_list and not column.has_values(False):
        return column.as_untyped()
    rule = f"a column of {'lists of ' if is_list else ''}{_RULES[dtype]}"
    if right_shape:
        fix = column.fix or (_OTHER_DTYPE.get((kind, dtype), "") if is_key else "")
        if kind == "fixed" and dtype == "string":
            either = '"bytes" or "text"' if column.width == UUID_BYTES else '"bytes"'
            fix = f"Say what the encoder reads them as: uuid_as = {either}."
    elif is_list and kind == "string":
        fix = fix or "Split the text into lists of its elements first."
    raise InputError(rule, column.describe(), column.name, fix)


def find_unread(arrow_type: object, name: str) -> str:
    """Name an Arrow type that no field may read, as errors do; "" where one may.

    Parameters
    ----------
    arrow_type : object with `__arrow_c_schema__`
        A type or a field of pyarrow, for instance.
    name : str
        What errors call it.

    Returns
    -------
    str
        "extension type ray.data.arrow_pickled_object over large_binary", for instance.
    """
    kind, described = _kernels.describe_arrow(arrow_type, name)
    return described if kind == "other" else ""


def _check_uuids(column: Column, uuid_as: str) -> None:
    """Refuse strings that are UUIDs, but no key that a column of UUIDs would have."""
    as_text = uuid_as == "text"
    is_binary = column.type_name in ("binary", "large_binary", "binary_view")
    found = column.find_uuid(as_text, as_text and is_binary)
    if found is None:
        return
    row, value = found
    if not as_text:
        rule = "UUIDs of 16 bytes"
        fix = 'Cast the column to UUID, or say uuid_as = "text" in the encoder.'
    elif len(value) == UUID_BYTES:
        rule, fix = "UUIDs", "Cast the column to UUID, or to binary of a fixed size."
    else:
        rule, fix = "UUIDs in lower case", "Cast the column to lower case."
    got = repr(value if len(value) == UUID_BYTES else value.decode())
    raise InputError(rule, got, column.name, fix, row=row)


def _column(batch: object, name: str) -> Column:
    return open_batch(batch, (name,)).columns[name]


def floats(batch: object, name: str) -> NDArray[np.float64]:
    """Read a column of numbers as float64 [rows], null as NaN.

    Raises
    ------
    InputError
        If the column is missing or holds something else.
    """
    return _kernels.read_float64(
        require_dtype(_column(batch, name), "float", is_list=False)
    )


def integers(value: object, name: str) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Read one column of whole numbers: (int64 [n], valid uint8 [n]), null as 0.

    Raises
    ------
    InputError
        If it holds something else.
    """
    return _kernels.read_int64(
        require_dtype(to_column(value, name), "int64", is_list=False)
    )


def hash_keys(batch: object, name: str) -> NDArray[np.int64]:
    """Hash a column of strings or integers to int64 [rows] keys, null to 0.

    Equal keys, and for all that will be met only those, have equal hashes (XXH64).

    Raises
    ------
    InputError
        If the column is missing or holds something else.
    """
    column = _column(batch, name)
    dtype = "string" if column.kind in ("string", "fixed") else "int64"
    uuid_as = None
    if column.kind == "fixed":
        uuid_as = "text" if column.width == UUID_BYTES else "bytes"
    encoder = _kernels.Encoder("hash", dtype, rows=2, reduce="raw")
    # all that counts is which are equal: as text, UUIDs equal those in text columns
    read = require_dtype(column, dtype, is_list=False, uuid_as=uuid_as)
    return _kernels.encode_scalars(read, encoder)[0]
