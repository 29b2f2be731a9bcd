"""What text says: numbers, times, and lists in one of the forms that a reader takes."""

import json
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from din_infer.errors import InputError
from din_infer.jobs.roles import times_of
from din_infer.jobs.text_values import (
    are_quoted,
    find_brackets,
    find_names,
    read_brackets,
    to_numbers,
)

__all__ = ["SEPARATORS", "TextLists", "find_lists", "said_by", "split"]

WHOLE = r"^-?(0|[1-9][0-9]{0,17})$"
DIGITS = r"^-?[0-9]+$"
NUMBER = r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$"
TIME = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[-+]\d{2}:?\d{2})?)?$"
TRUTH = r"^(true|True|TRUE|false|False|FALSE)$"
# 12,50 and 1.200,5: two places behind a comma at most, and nothing behind these
COMMA = r"^[-+]?([0-9]+|[0-9]{1,3}(\.[0-9]{3})+)(,[0-9]{1,2})?$"
# Between the elements of lists in text, in the order in which they are tried.
SEPARATORS = ("|", ";", ",", "\t", " ")
# Of the rows of text that is a list, how many have two elements at least.
LIST_SHARE = 0.3
# Distinct texts per distinct element, from which on elements are used again as those of
# lists are: titles with a comma in them have more elements than texts.
REUSE = 2.0
# The reader of CSV takes lists in brackets as such where the first records are such.
HEAD_RECORDS = 1000


class TextLists(NamedTuple):
    """Lists that a column of text holds.

    `form` is their separator, "json", or "" where the reader of CSV knows them by their
    brackets. Elements are `loose` where a spec may say either dtype of whole numbers.
    `unread` says why no field reads them, `remark` what is odd.
    """

    form: str
    lists: pa.Array
    loose: bool = False
    unread: str = ""
    remark: str = ""


def said_by(text: pa.Array) -> tuple[str, pa.Array]:
    """Tell what all of some texts say, and return that, empty text as null.

    Returns
    -------
    str, pyarrow.Array
        "whole" (int64), "number" (float64), "bool", "time", "comma" or "text": these
        as the texts that they are.
    """
    given = pc.drop_null(text)
    given = given.filter(pc.not_equal(given, ""))
    if not len(given):
        return "text", text
    if _all_match(given, WHOLE):
        return "whole", to_numbers(text, pa.int64())[0]
    if _all_match(given, DIGITS):  # ids: 007, and what int64 does not hold
        return "text", text
    if _all_match(given, NUMBER):
        numbers, bad = to_numbers(text, pa.float64())
        return ("text", text) if bad else ("number", numbers)
    if _all_match(given, TRUTH):
        lower = pc.utf8_lower(text)
        return "bool", pc.if_else(pc.equal(lower, ""), None, pc.equal(lower, "true"))
    if _all_match(given, TIME) and _are_times(given):
        return "time", text
    if _all_match(given, COMMA):
        commas = pc.match_substring(given, ",").true_count
        return ("comma" if commas >= len(given) / 2 else "text"), text
    return "text", text


def _all_match(texts: pa.Array, pattern: str) -> bool:
    if pc.match_substring_regex(texts.slice(0, 100), pattern).false_count:
        return False
    return int(pc.match_substring_regex(texts, pattern).false_count) == 0


def _are_times(texts: pa.Array) -> bool:
    try:
        times_of(pa.table({"time": texts}), "time")
    except InputError:
        return False
    return True


def find_lists(texts: pa.Array, *, is_csv: bool) -> TextLists | None:
    """Find lists in text: their form, and each row's elements."""
    given = pc.drop_null(texts)
    given = given.filter(pc.not_equal(given, ""))
    if not len(given):
        return None
    brackets = find_brackets(given)
    if brackets.true_count and pc.all(pc.or_(brackets, find_names(given))).as_py():
        return _in_brackets(texts, pc.unique(given), is_csv=is_csv)
    whole = len(pc.unique(given))
    for sign in SEPARATORS:
        holds = pc.match_substring(given, sign)
        if holds.true_count < LIST_SHARE * len(given):
            continue
        found = split(texts, sign)
        elements = len(pc.unique(pc.list_flatten(found.lists)))
        if elements * REUSE <= whole:
            return found
    return None


def split(texts: pa.Array, sign: str) -> TextLists:
    """Split texts at a sign, with the blanks around it where most have them."""
    count = _count(texts, sign)
    wide, most = sign, count
    for blanks in () if sign == " " else (f" {sign} ", f"{sign} ", f" {sign}"):
        if 2 * (found := _count(texts, blanks)) > count:
            wide, most = blanks, found
            break
    lists = _parts(texts, wide)
    elements = pc.list_flatten(lists)
    odd = pc.not_equal(elements, pc.utf8_trim_whitespace(elements))
    if sign != " " and (most < count or pc.any(odd).as_py()):
        plain = _parts(texts, sign)
        trimmed = pc.utf8_trim_whitespace(pc.list_flatten(plain))
        if said_by(trimmed)[0] in ("whole", "number"):  # which are read without blanks
            return TextLists(sign, _nested(plain, trimmed))
        remark = "blanks around some of its elements are a part of them"
        if most < count:
            remark = f"{1 - most / count:.1%} of its {sign!r} have other blanks around"
            remark += " them, and part no elements"
        return TextLists(wide, lists, loose=True, remark=remark)
    return TextLists(wide, lists, loose=True)


def _count(texts: pa.Array, pattern: str) -> int:
    return int(pc.sum(pc.count_substring(texts, pattern)).as_py() or 0)


def _parts(texts: pa.Array, separator: str) -> pa.Array:
    lists = pc.split_pattern(texts, separator)
    return pc.if_else(pc.equal(texts, ""), pa.scalar([], lists.type), lists)


def _nested(lists: pa.Array, values: pa.Array) -> pa.Array:
    """Put other values into lists; null ones become empty."""
    counts = pc.fill_null(pc.list_value_length(lists), 0)
    ends = pc.cumulative_sum(pc.cast(counts, pa.int32()))
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), ends])
    return pa.ListArray.from_arrays(offsets, values)


# ------------------------------------------------------------------------- in brackets


def _in_brackets(texts: pa.Array, given: pa.Array, *, is_csv: bool) -> TextLists | None:
    rows = given.to_pylist()
    nothing = pa.nulls(len(texts))
    try:
        values = [json.loads(text) for text in rows]
    except (ValueError, RecursionError):
        return _of_repr(texts, rows, is_csv=is_csv)
    if any(not isinstance(value, list | None) for value in values):
        return None
    found = _elements(values)
    if found is None:
        unread = "JSON that is no list of strings alone, or of numbers alone"
        return TextLists("json", nothing, unread=unread)
    return TextLists("json", _of_rows(texts, given, found))


def _elements(values: list[list[object] | None]) -> pa.Array | None:
    """Make lists of JSON values; None if a spec reads these as no dtype."""
    kinds = {type(each) for value in values if value for each in value} - {type(None)}
    kind = pa.string()
    if kinds and kinds <= {int, bool, float}:
        kind = pa.float64() if float in kinds else pa.int64()
    elif not kinds <= {str}:
        return None
    rows = [value or [] for value in values]
    if bool in kinds:
        rows = [[None if v is None else +v for v in row] for row in rows]  # type: ignore[operator]
    try:
        return pa.array(rows, pa.list_(kind))
    except (pa.ArrowException, OverflowError, UnicodeError):
        return None


def _of_repr(texts: pa.Array, rows: list[str], *, is_csv: bool) -> TextLists | None:
    """Read lists as Python or NumPy writes them, which CSV alone may hold."""
    is_name = find_names(pa.array(rows, pa.string())).to_pylist()
    named = [text for text, is_null in zip(rows, is_name, strict=True) if not is_null]
    is_quoted = are_quoted(named[:HEAD_RECORDS])
    for kind in (pa.int64(), pa.string(), pa.float64()):
        lists: list[list[object]] = []
        for text, is_null in zip(rows, is_name, strict=True):
            found = [] if is_null else read_brackets(text, kind, is_quoted=is_quoted)
            if found is None:
                break
            lists.append(found)
        if len(lists) < len(rows):
            continue
        if is_csv and pc.any(find_brackets(texts[:HEAD_RECORDS])).as_py():
            made = pa.array(lists, pa.list_(kind))
            return TextLists("", _of_rows(texts, pa.array(rows, pa.string()), made))
        unread = (
            "text of lists as Python or NumPy writes them, which only CSV may hold:"
        )
        unread += " write real lists, or JSON"
        return TextLists("", pa.nulls(len(texts)), unread=unread)
    return None


def _of_rows(texts: pa.Array, given: pa.Array, lists: pa.Array) -> pa.Array:
    """Give each row the list of its text; null and empty text have an empty one."""
    return lists.take(pc.index_in(texts, value_set=given))
