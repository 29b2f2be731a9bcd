"""Labels, weights and times of rows: numbers and times, also where they are text."""

import pyarrow as pa
import pyarrow.compute as pc

from din_infer.errors import InputError
from din_infer.jobs.text_values import cast_each, shown, to_numbers, to_text

__all__ = ["is_text", "numbers_of", "times_of"]

TIME_RULE = "a number, or a time such as 2026-01-31T12:00:00"


def is_text(kind: pa.DataType) -> bool:
    """Tell whether values of a type are text, also as categories or bytes."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    bare = ("string", "large_string", "string_view")
    raw = ("binary", "large_binary", "binary_view")
    return any(getattr(pa.types, f"is_{name}")(kind) for name in (*bare, *raw))


def numbers_of(
    table: pa.Table | pa.RecordBatch, name: str, rule: str = "a number"
) -> pa.Table | pa.RecordBatch:
    """Read a column of text as numbers; take all others as they are.

    ``true`` is 1, ``false`` 0, and empty text null, as in CSV.

    Returns
    -------
    Table or RecordBatch
        With the column `name`, which may be missing as before.

    Raises
    ------
    InputError
        Naming the first row whose text is no number, as not what `rule` says.
    """
    if name not in table.schema.names or not is_text(table.schema.field(name).type):
        return table
    text = _texts(table, name)
    numbers, bad = to_numbers(text, pa.float64())
    if bad:
        raise InputError(rule, shown(text[bad[0]].as_py()), name, row=bad[0])
    return pa.table({name: numbers})


def times_of(table: pa.Table | pa.RecordBatch, name: str) -> pa.Array | pa.ChunkedArray:
    """Read a column of times: text as numbers, or as timestamps; others as they are.

    Text that is all numbers is numbers. Else it is ISO 8601, of dates or times, of up
    to microseconds; without a zone it is UTC.

    Raises
    ------
    InputError
        Naming the first row whose text is none of these.
    """
    if not is_text(table.schema.field(name).type):
        return table[name]
    text = _texts(table, name)
    numbers, bad = to_numbers(text, pa.float64())
    if not bad:
        return numbers
    text = pc.utf8_trim_whitespace(text)
    text = pc.if_else(pc.equal(text, ""), None, text)
    text = pc.replace_substring_regex(text, r"(\.\d{6})\d+", r"\1")
    kind = pa.timestamp("us")
    has_zone = pc.match_substring_regex(text, r"(?:Z|[+-]\d\d(?::?\d\d)?)$")
    # a date ends as a zone may
    has_zone = pc.and_(has_zone, pc.match_substring_regex(text, r"[T ]\d\d:\d\d"))
    plain, bad = cast_each(pc.if_else(has_zone, None, text), kind)
    zoned = pc.if_else(has_zone, text, None)
    times, worse = cast_each(zoned, pa.timestamp("us", "UTC"))
    if wrong := [*bad, *worse]:
        row = min(wrong)
        raise InputError(TIME_RULE, shown(text[row].as_py()), name, row=row)
    return pc.coalesce(plain, times.cast(kind))


def _texts(table: pa.Table | pa.RecordBatch, name: str) -> pa.Array:
    column = table[name]
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not pa.types.is_string(column.type):
        column, bad = to_text(column)
        if bad:
            raise InputError("text in UTF-8", "other bytes", name, row=bad[0])
    return column
