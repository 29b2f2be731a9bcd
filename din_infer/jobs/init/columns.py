"""What the values of a column are: text, whole numbers, numbers, times, or lists.

Text of CSV is read as what all of it says: digits are whole numbers. Elsewhere text is
text, as a spec reads it, and lists in it have to be of a form that a spec names.
"""

from collections.abc import Collection
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from din_infer.columns import find_unread
from din_infer.jobs.init.texts import SEPARATORS, TextLists, find_lists, said_by, split
from din_infer.jobs.text_values import to_numbers

__all__ = ["PAIRED_SHARE", "Column", "read_columns", "share_in"]

# Of the elements of a list, how many are values of the column that it pairs with; and
# where blanks part them, as words are parted.
PAIRED_SHARE, PAIRED_WORDS = 0.5, 0.9
EXACT = 2.0**53  # of whole numbers that are floats: above, they may be rounded


@dataclass
class Column:
    """One column of a sample.

    Attributes
    ----------
    name : str
    kind : {"text", "whole", "number", "bool", "time", "other"}
        Of the values, or of the lists' elements, as a spec can read them.
    values : pyarrow.Array
        All values or elements, nulls included; of whole numbers in text, int64.
    rows : int
    type : str
        The column's own type, as Arrow names it.
    lengths : int64 [rows] or None
        Of the lists; None where a row holds one value.
    form : str
        How lists are written in text: a separator, "json", or "" where the spec need
        not say.
    says : str
        What values of text say, as a kind; labels, weights and times are read so.
    dtypes : tuple of str
        What a field of ids may say of the column, the best first.
    unread : str
        Why no field can read it, if so.
    remark : str
        What is odd about its lists.
    """

    name: str
    kind: str
    values: pa.Array
    rows: int
    type: str
    lengths: NDArray[np.int64] | None = None
    form: str = ""
    says: str = ""
    dtypes: tuple[str, ...] = ()
    unread: str = ""
    remark: str = ""
    distinct: pa.Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.distinct = pc.drop_null(pc.unique(self.values))
        self.says = self.says or self.kind
        natural = ("string",) if self.kind == "text" else ("int64",)
        self.dtypes = self.dtypes or natural

    @property
    def is_list(self) -> bool:
        """Whether rows hold lists."""
        return self.lengths is not None

    @property
    def is_number(self) -> bool:
        """Whether values are numbers of any kind, or text that says such."""
        return self.says in ("whole", "number")

    @property
    def dtype(self) -> str:
        """What a field of ids says of the column."""
        return self.dtypes[0]

    def keys(self) -> pa.Array:
        """Return the distinct values as text, to be compared with another column's."""
        return pc.cast(self.distinct, pa.string())

    def numbers(self) -> NDArray[np.float64]:
        """Return the values that are finite, as float64."""
        values = pc.drop_null(self.values)
        if self.kind == "text":
            values = pc.drop_null(to_numbers(values, pa.float64())[0])
        array = np.asarray(pc.cast(values, pa.float64(), safe=False), np.float64)
        return array[np.isfinite(array)]

    def codes(self) -> NDArray[np.int64]:
        """Return a number for each row, 0, 1, ..; equal values alike. Not of lists."""
        encoded = pc.dictionary_encode(self.values, null_encoding="encode")
        return np.asarray(encoded.indices, dtype=np.int64)


def read_columns(table: pa.Table, loose: Collection[str] = ()) -> list[Column]:
    """Find out what each column of a table holds.

    Those that are `loose` are of CSV: text that is read as whatever a spec says.
    """
    plain = [_read(f, table[f.name], is_csv=f.name in loose) for f in table.schema]
    found = [_with_lists(c, is_csv=c.name in loose) for c in plain]
    for place, column in enumerate(plain):
        # a text that other lists hold as a whole is no list of its words
        if found[place].form in ("", "json"):
            continue
        lists = (c for c in found if c.is_list and c.name != column.name)
        if any(share_in(column.distinct, c.keys()) >= PAIRED_SHARE for c in lists):
            found[place] = column
    for place, column in enumerate(found):
        if not _may_be_lists(column):
            continue
        for other in found:
            if other is column or other.is_list or other.kind not in ("text", "whole"):
                continue
            lists_of = _lists_of(column, other)
            if lists_of is not None:
                found[place] = lists_of
                break
    return found


def share_in(values: pa.Array, keys: pa.Array) -> float:
    """Return the share of values that are among the keys, both text."""
    known = pc.drop_null(pc.cast(values, pa.string()))
    return float(pc.is_in(known, value_set=keys).true_count / max(1, len(known)))


def _may_be_lists(column: Column) -> bool:
    return column.says == "text" and not (column.is_list or column.unread)


def _lists_of(column: Column, other: Column) -> Column | None:
    """Read text as lists of another column's values, where most elements are such."""
    keys = other.keys()
    given = column.distinct.filter(pc.not_equal(column.distinct, ""))
    if not len(given) or share_in(given, keys) >= PAIRED_SHARE:
        return None
    for sign in SEPARATORS:
        if not pc.match_substring(given, sign).true_count:
            continue
        elements = pc.list_flatten(split(given, sign).lists)
        if other.kind == "whole" and said_by(elements)[0] != "whole":
            continue  # a number among words
        if share_in(elements, keys) >= (PAIRED_WORDS if sign == " " else PAIRED_SHARE):
            return _as_lists(column, split(column.values, sign))
    return None


def _as_lists(column: Column, found: TextLists) -> Column:
    if found.unread:
        return replace(column, kind="other", unread=found.unread)
    counts = np.asarray(pc.fill_null(pc.list_value_length(found.lists), 0), np.int64)
    is_split = found.form not in ("", "json")
    kind, values, says = _kind_of(pc.list_flatten(found.lists), is_csv=is_split)
    is_either = found.loose and kind == "whole"
    return replace(
        column,
        kind=kind,
        values=values,
        says=says,
        lengths=counts,
        form=found.form,
        dtypes=("int64", "string") if is_either else (),
        remark=found.remark,
    )


def _with_lists(column: Column, *, is_csv: bool) -> Column:
    """Read text that holds lists as these."""
    if not _may_be_lists(column):
        return column
    found = find_lists(column.values, is_csv=is_csv)
    return column if found is None else _as_lists(column, found)


def _read(field: pa.Field, column: pa.ChunkedArray, *, is_csv: bool) -> Column:
    if _is_list(column.type) and pa.types.is_null(column.type.value_type):
        column = pa.chunked_array([pa.nulls(len(column))])  # Arrow joins no such lists
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else array
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    lengths, values = None, array
    if _is_list(array.type):
        lengths = np.asarray(pc.fill_null(pc.list_value_length(array), 0), np.int64)
        values = pc.list_flatten(array)
    kind, values, says = _kind_of(values, is_csv=is_csv)
    unread = ""
    if kind != "time" and len(pc.drop_null(array)):
        shown = find_unread(field, field.name) or (kind == "other" and str(array.type))
        unread = f"{shown} has no use in a spec" if shown else ""
    if not field.name:
        unread = "a column without a name"
    if says == "comma":
        unread = "numbers with a decimal comma, as 12,50: write them with a point"
    is_either = is_csv and kind == "whole"
    return Column(
        field.name,
        "other" if unread else kind,
        values,
        len(array),
        str(array.type),
        lengths,
        says="other" if unread else says,
        dtypes=("int64", "string") if is_either else (),
        unread=unread,
    )


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
        or types.is_binary(kind)
        or types.is_large_binary(kind)
    )


def _kind_of(array: pa.Array, *, is_csv: bool) -> tuple[str, pa.Array, str]:
    """Tell what values are, and what they say; text of CSV is what it says."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        array = array.dictionary_decode()
        kind = array.type
    found, values = "other", pa.nulls(len(array))
    if pa.types.is_boolean(kind):
        found, values = "bool", array
    elif pa.types.is_integer(kind):
        found, values = "whole", array
    elif pa.types.is_floating(kind):
        found, values = _kind_of_floats(pc.cast(array, pa.float64()))
    elif pa.types.is_decimal(kind):
        found, values = _kind_of_decimals(array)
    elif pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        found, values = "time", array
    elif _is_text(kind):
        try:
            text = pc.cast(array, pa.string())
        except pa.ArrowInvalid:  # bytes that are no UTF-8
            return "other", array, "other"
        says, parsed = said_by(text)
        if is_csv and says != "comma":
            return says, parsed, says
        return ("time" if says == "time" else "text"), text, says
    return found, values, found


def _kind_of_floats(array: pa.Array) -> tuple[str, pa.Array]:
    """Tell whether floats are whole numbers with nulls, which pandas keeps so."""
    is_finite = pc.fill_null(pc.is_finite(array), False)
    finite = array.filter(is_finite)
    holes = array.filter(pc.invert(is_finite))
    if not len(finite) or not len(holes) or pc.any(pc.is_inf(holes)).as_py():
        return "number", array
    values = np.asarray(finite)
    if (np.abs(values) > EXACT).any() or (values != np.floor(values)).any():
        return "number", array
    return "whole", pc.cast(pc.if_else(is_finite, array, None), pa.int64())


def _kind_of_decimals(array: pa.Array) -> tuple[str, pa.Array]:
    if array.type.scale == 0:
        try:
            return "whole", pc.cast(array, pa.int64())
        except pa.ArrowInvalid:
            pass
    return "number", pc.cast(array, pa.float64(), safe=False)
