"""What the values of a column are: text, whole numbers, numbers, times, or lists.

Text is read as what all of it says: the digits of a CSV are whole numbers, "a|b|c" in
most rows is a list.
"""

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

__all__ = ["PAIRED_SHARE", "SEPARATORS", "Column", "read_columns", "share_in"]

WHOLE = r"^-?(0|[1-9][0-9]{0,17})$"
NUMBER = r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$"
TIME = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[-+]\d{2}:?\d{2})?)?$"
JSON = r"^\s*\[.*\]\s*$"
# Between the elements of lists in text, in the order in which they are tried.
SEPARATORS = ("|", ";", ",", "\t", " ")
# Of the rows of text that is a list, how many have two elements at least.
LIST_SHARE = 0.3
# Distinct texts per distinct element, from which on elements are used again as those of
# lists are: titles with a comma in them have more elements than texts.
REUSE = 2.0
# Of the elements of a list, how many are values of the column that it pairs with.
PAIRED_SHARE = 0.5


@dataclass
class Column:
    """One column of a sample.

    Attributes
    ----------
    name : str
    kind : {"text", "whole", "number", "bool", "time", "other"}
        Of the values, or of the lists' elements.
    values : pyarrow.Array
        All values or elements, nulls included; of whole numbers in text, int64.
    rows : int
    lengths : int64 [rows] or None
        Of the lists; None where a row holds one value.
    form : str
        How lists are written in text: a separator, "json", or "" for real lists.
    type : str
        The column's own type, as Arrow names it.
    """

    name: str
    kind: str
    values: pa.Array
    rows: int
    type: str
    lengths: NDArray[np.int64] | None = None
    form: str = ""
    distinct: pa.Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.distinct = pc.drop_null(pc.unique(self.values))

    @property
    def is_list(self) -> bool:
        """Whether rows hold lists."""
        return self.lengths is not None

    @property
    def is_number(self) -> bool:
        """Whether values are numbers of any kind."""
        return self.kind in ("whole", "number")

    def keys(self) -> pa.Array:
        """Return the distinct values as text, to be compared with another column's."""
        return pc.cast(self.distinct, pa.string())

    def numbers(self) -> NDArray[np.float64]:
        """Return the values that are finite, as float64."""
        values = pc.cast(pc.drop_null(self.values), pa.float64(), safe=False)
        array = np.asarray(values, dtype=np.float64)
        return array[np.isfinite(array)]

    def codes(self) -> NDArray[np.int64]:
        """Return a number for each row, 0, 1, ..; equal values alike. Not of lists."""
        encoded = pc.dictionary_encode(self.values, null_encoding="encode")
        return np.asarray(encoded.indices, dtype=np.int64)


def read_columns(table: pa.Table) -> list[Column]:
    """Find out what each column of a table holds."""
    found = [_read(name, table[name]) for name in table.column_names]
    for place, column in enumerate(found):
        if column.kind != "text" or column.is_list:
            continue
        for other in found:
            if other is column or other.is_list or other.kind not in ("text", "whole"):
                continue
            lists = _lists_of(column, other)
            if lists is not None:
                found[place] = lists
                break
    return found


def share_in(values: pa.Array, keys: pa.Array) -> float:
    """Return the share of values that are among the keys, both text."""
    known = pc.drop_null(pc.cast(values, pa.string()))
    return float(pc.is_in(known, value_set=keys).true_count / max(1, len(known)))


def _lists_of(column: Column, other: Column) -> Column | None:
    """Read text as lists of another column's values, where most elements are such."""
    keys = other.keys()
    given = column.distinct.filter(pc.not_equal(column.distinct, ""))
    if not len(given) or share_in(given, keys) >= PAIRED_SHARE:
        return None
    for separator in SEPARATORS:
        if not pc.match_substring(given, separator).true_count:
            continue
        elements = pc.list_flatten(pc.split_pattern(given, separator))
        if share_in(elements, keys) >= PAIRED_SHARE:
            return _as_lists(
                column, separator, pc.split_pattern(column.values, separator)
            )
    return None


def _as_lists(column: Column, form: str, lists: pa.Array) -> Column:
    if form != "json":
        empty = pa.scalar([], lists.type)
        lists = pc.if_else(pc.equal(column.values, ""), empty, lists)
    counts = np.asarray(pc.fill_null(pc.list_value_length(lists), 0), dtype=np.int64)
    kind, values = _kind_of(pc.list_flatten(lists))
    return Column(column.name, kind, values, column.rows, column.type, counts, form)


def _read(name: str, column: pa.ChunkedArray) -> Column:
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else array
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    shown = str(array.type)
    rows = len(array)
    if _is_list(array.type):
        lengths = pc.fill_null(pc.list_value_length(array), 0)
        kind, values = _kind_of(pc.list_flatten(array))
        counts = np.asarray(lengths, dtype=np.int64)
        return Column(name, kind, values, rows, shown, counts)
    read = Column(name, *_kind_of(array), rows, shown)
    if read.kind == "text":
        found = _lists_in(read.values)
        if found is not None:
            return _as_lists(read, *found)
    return read


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_list(kind)
        or types.is_large_list(kind)
        or types.is_fixed_size_list(kind)
        or types.is_list_view(kind)
        or types.is_large_list_view(kind)
    )


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_string_view(kind)
    )


def _kind_of(array: pa.Array) -> tuple[str, pa.Array]:
    """Tell what values are, those of text by what all of them say."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        array = array.dictionary_decode()
        kind = array.type
    if pa.types.is_boolean(kind):
        return "bool", array
    if pa.types.is_integer(kind):
        return "whole", array
    if pa.types.is_floating(kind):
        finite = pc.drop_null(array)
        finite = finite.filter(pc.is_finite(finite))
        whole = len(finite) > 0 and bool(
            pc.all(pc.equal(finite, pc.floor(finite))).as_py()
        )
        # pandas keeps whole numbers with nulls as floats
        holes = len(finite) < len(array)
        return ("whole" if whole and holes else "number"), array
    if pa.types.is_decimal(kind):
        return "number", pc.cast(array, pa.float64(), safe=False)
    if pa.types.is_temporal(kind) and not pa.types.is_duration(kind):
        return "time", array
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        try:
            return "text", pc.cast(array, pa.string())
        except pa.ArrowInvalid:
            return "other", array
    if not _is_text(kind):
        return "other", pa.nulls(len(array))
    text = pc.cast(array, pa.string())
    given = pc.drop_null(text)
    given = given.filter(pc.not_equal(given, ""))
    if not len(given):
        return "text", text
    if _all_match(given, WHOLE):
        empty = pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)
        return "whole", pc.cast(empty, pa.int64())
    if _all_match(given, NUMBER) and not _all_match(given, r"^0[0-9]+$"):
        empty = pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)
        return "number", pc.cast(empty, pa.float64())
    if _all_match(given, TIME):
        return "time", text
    if _all_match(pc.utf8_lower(given), r"^(true|false)$"):
        return "bool", pc.equal(pc.utf8_lower(text), "true")
    return "text", text


def _all_match(texts: pa.Array, pattern: str) -> bool:
    if pc.match_substring_regex(texts.slice(0, 100), pattern).false_count:
        return False
    return int(pc.match_substring_regex(texts, pattern).false_count) == 0


def _lists_in(texts: pa.Array) -> tuple[str, pa.Array] | None:
    """Find lists in text: their form, and each row's elements."""
    given = pc.drop_null(texts)
    given = given.filter(pc.not_equal(given, ""))
    if not len(given):
        return None
    if _all_match(given, JSON):
        return "json", _of_json(texts)
    whole = len(pc.unique(given))
    for separator in SEPARATORS:
        holds = pc.match_substring(given, separator)
        if holds.true_count < LIST_SHARE * len(given):
            continue
        lists = pc.split_pattern(texts, separator)
        elements = len(pc.unique(pc.list_flatten(lists)))
        if elements * REUSE <= whole:
            return separator, lists
    return None


def _of_json(texts: pa.Array) -> pa.Array:
    rows: list[Any] = []
    for text in texts.to_pylist():
        value = json.loads(text) if text else []
        rows.append([None if v is None else str(v) for v in value])
    return pa.array(rows, pa.list_(pa.string()))
