"""Values of text: numbers, lists as their writers write them, and JSON.

Above 400 lines: functions of one text, or of a column of them, that stand alone.
"""

import json
import math
import re
import sys
from ast import literal_eval
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from din_infer.list_texts import exact

__all__ = [
    "INT64",
    "KeyTwiceError",
    "are_quoted",
    "cast_each",
    "elements_of",
    "find_brackets",
    "find_names",
    "find_signs",
    "has_wide",
    "is_whole",
    "json_value",
    "load_json",
    "read_brackets",
    "shown",
    "texts_of",
    "to_numbers",
    "to_text",
]

MOST_SHOWN = 60  # characters of a text in an error
INT64 = range(-(1 << 63), 1 << 63)

# What lists in text have where another separator is between their elements: where no
# list has the separator, all but letters, digits and what is usual in ids; else what no
# sentence has (a comma has a blank behind it).
_SIGNS = r"[^\pL\pM\pN_.\-]"
_OTHERS = r"[,;](?:\S|$)|[\^\x00-\x09\x0b\x0c\x0e-\x1f]"
# lists in brackets of any form, but no title as "(500) Days of Summer (2009)"
_TUPLE = r"""\((?:[^()]|\([^()]*\))*\)|\(\s*['"].*\)"""
_BRACKETS = rf"(?s)^\s*(?:\[.*\]|\{{.*\}}|{_TUPLE})\s*$"
# what writers of these have for null
_NAMES_OF_NULL = ("null", "NULL", "None", "nan", "NaN", "<NA>")

# Python's repr of lists, and NumPy's of arrays: elements and what is between them.
_STRING = r"""'(?:[^'\\\n]|\\.)*+'|"(?:[^"\\\n]|\\.)*+\""""
_NUMBER = r"-?(?:\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|inf)"
_NULL = r"None|nan|NaN|null|NULL|<NA>"
_WRAPPED = rf"np\.(?:str_|u?int\d+|float64)\((?:{_STRING}|{_NUMBER}|nan)\)"
# what Python writes for null; and strings that DuckDB would leave without quotes
_NAMES = ("None", "nan", "NaN", "<NA>")
_PLAIN = r"""[^\s\[\]{}(),'"\\=:]+"""
_UNNEEDED = re.compile(rf"np\..*|(?i:(?!'null'))'{_PLAIN}'")
_ELEMENT = re.compile(rf"{_WRAPPED}|{_STRING}|{_NUMBER}|{_NULL}")
_BETWEEN = re.compile(r" *, *|[ \n]+")
_ESCAPES = re.compile(
    r"""(?:[^\\]|\\(?:[\\'"abfnrtv]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}))*"""
)


def shown(text: object) -> str:
    """Show a text in an error, cut where it is long."""
    found = repr(text)
    return found if len(found) <= MOST_SHOWN else found[: MOST_SHOWN - 4] + "..."


# ----------------------------------------------------------------------------- arrays


def cast_each(values: pa.Array, kind: pa.DataType) -> tuple[pa.Array, list[int]]:
    """Cast values; those that cannot be become null, and are listed.

    Returns
    -------
    pyarrow.Array, list of int
        The values, and the places of those that cannot be cast.
    """
    try:
        if _may_be_hex(values, kind):
            raise pa.ArrowInvalid("a number in another base")
        return values.cast(kind), []
    except pa.ArrowInvalid:
        if len(values) == 1:
            return pa.nulls(1, kind), [0]
    half = len(values) // 2
    first, bad = cast_each(values[:half], kind)
    second, worse = cast_each(values[half:], kind)
    return pa.concat_arrays([first, second]), bad + [half + k for k in worse]


def _may_be_hex(values: pa.Array, kind: pa.DataType) -> bool:
    """Tell whether text for integers has an x, as hexadecimal ones that Arrow reads."""
    while hasattr(kind, "value_type"):
        kind = kind.value_type
    while hasattr(values.type, "value_type"):
        is_coded = pa.types.is_dictionary(values.type)
        values = values.dictionary if is_coded else values.flatten()
    is_text = values.type in (pa.string(), pa.large_string(), pa.string_view())
    if not (is_text and pa.types.is_integer(kind)):
        return False
    has_x = pc.match_substring(values.cast(pa.string()), "x", ignore_case=True)
    return bool(pc.any(has_x).as_py())


def to_text(values: pa.Array) -> tuple[pa.Array, list[int]]:
    """View bytes as text; those that are not UTF-8 become null, and are listed."""
    return cast_each(values, pa.string())


def to_numbers(text: pa.Array, kind: pa.DataType) -> tuple[pa.Array, list[int]]:
    """Read numbers; what is none becomes null, and is listed.

    Empty text is null, true is 1, and whole numbers may be written as 3.0 or 3e0.
    """
    is_hex = pc.match_substring(text, "x", ignore_case=True)  # which Arrow would read
    if not pc.any(is_hex).as_py():
        try:
            return text.cast(kind), []
        except pa.ArrowInvalid:
            pass
    text = pc.if_else(is_hex, "no number", text)
    text = pc.utf8_trim_whitespace(text)
    text = pc.if_else(pc.equal(text, ""), None, text)
    text = pc.replace_substring_regex(text, "^(?:true|True|TRUE)$", "1")
    text = pc.replace_substring_regex(text, "^(?:false|False|FALSE)$", "0")
    if pa.types.is_integer(kind):
        text = pc.replace_substring_regex(text, r"^([+-]?\d+)\.0*$", r"\1")
    numbers, bad = cast_each(text, kind)
    if not bad or not pa.types.is_integer(kind):
        return numbers, bad
    mended = {k: _whole(text[k].as_py()) for k in bad}
    found = [mended.get(k) for k in range(len(text))]
    is_good = np.isin(np.arange(len(text)), bad, invert=True)
    numbers = pc.if_else(pa.array(is_good), numbers, pa.array(found, kind))
    return numbers, [k for k in bad if mended[k] is None]


def is_whole(text: str) -> bool:
    """Tell whether text is an integer, of any size."""
    return re.fullmatch(r"\s*[+-]?\d+(\.0*)?\s*", text) is not None


def has_wide(text: str) -> bool:
    """Tell whether text has an integer that may have more than 64 bits."""
    return re.search(r"\d{19}", text) is not None


def _whole(text: str) -> int | None:
    """Read a whole number that is written as a decimal one; None if it is none."""
    if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text) is None:
        return None
    value = exact(text)
    if value.adjusted() > 18 or value != value.to_integral_value():
        return None
    return int(value) if int(value) in INT64 else None


# ------------------------------------------------------------------------------ lists


def find_brackets(text: pa.Array) -> pa.BooleanArray:
    """Tell which texts are wholly in brackets, of lists, sets or tuples."""
    return pc.match_substring_regex(text, _BRACKETS)


def find_names(text: pa.Array) -> pa.BooleanArray:
    """Tell which texts name null, as writers of lists in brackets do."""
    return pc.is_in(text, pa.array(_NAMES_OF_NULL))


def find_signs(text: pa.Array, separator: str, is_joined: bool) -> pa.BooleanArray:
    """Tell which texts have what may stand between elements, or around them.

    Where lists of a column `is_joined` by the separator, elements may have other signs
    than these: those of separators, blanks beside it, and quotes around an element.
    """
    if not is_joined:
        rest = pc.replace_substring(text, separator, "")
        return pc.match_substring_regex(rest, _SIGNS)
    by = re.escape(separator)
    quotes = rf"""(?:^|{by})(?:"[^"]*"|'[^']*')(?:{by}|$)"""
    pattern = rf"{_OTHERS}|\s{by}|{by}\s|{quotes}"
    return pc.match_substring_regex(text, pattern)


def are_quoted(texts: Iterable[str]) -> bool:
    """Tell whether strings of lists in brackets are always in quotes.

    DuckDB puts them only around those that need them.
    """
    found = [_parse_brackets(text.strip()) for text in texts]
    if any(one is None for one in found):
        return False
    return any(one.is_quoted for one in found if one is not None)


def read_brackets(text: str, kind: pa.DataType, *, is_quoted: bool) -> list[Any] | None:
    """Read a list in brackets, as JSON, Python or NumPy writes it; None if it is none.

    Strings are in quotes. Numbers between blanks are whole: NumPy rounds the others.
    Unless `is_quoted`, `nan` and `None` may be strings.
    """
    found = _parse_brackets(text.strip())
    if found is None:
        return None
    if found.has_names and kind == pa.string() and not (is_quoted or found.is_quoted):
        return None
    try:
        return [json_value(value, kind) for value in found.values]
    except ValueError:
        return None


class _Brackets(NamedTuple):
    """Values of a list in brackets.

    `is_quoted`: quotes are around what does not need them. `has_names`: a value is
    null that Python names so.
    """

    values: list[Any]
    is_quoted: bool
    has_names: bool


def _parse_brackets(text: str) -> _Brackets | None:
    try:
        found = json.loads(text, parse_float=exact)
    except (ValueError, RecursionError):
        return _parse_repr(text)
    if not isinstance(found, list):
        return None
    is_quoted = any(isinstance(value, str) for value in found)
    return _Brackets(found, is_quoted, has_names=False)


def _parse_repr(text: str) -> _Brackets | None:
    if not (text.startswith("[") and text.endswith("]")):
        return None
    inside = text[1:-1].strip(" ")
    values: list[Any] = []
    tokens: list[str] = []
    betweens = set()
    place = 0
    while place < len(inside):
        if values:
            between = _BETWEEN.match(inside, place)
            if between is None:
                return None
            betweens.add("," in between[0])
            place = between.end()
        element = _ELEMENT.match(inside, place)
        if element is None:
            return None
        value = _read_element(element[0])
        if value is _WRONG:
            return None
        values.append(value)
        tokens.append(element[0])
        place = element.end()
    is_numpy = betweens == {False}
    if len(betweens) > 1 or (is_numpy and any(isinstance(v, Decimal) for v in values)):
        return None
    is_quoted = any(_UNNEEDED.fullmatch(token) for token in tokens)
    return _Brackets(values, is_quoted, any(token in _NAMES for token in tokens))


_WRONG = object()
_LONG = re.compile(rf"\d{{{sys.int_info.default_max_str_digits + 1}}}")


def _is_long(text: str) -> bool:
    """Tell whether text has more digits side by side than Python makes an int of."""
    return _LONG.search(text) is not None


def _read_element(token: str) -> object:
    if token.startswith("np."):
        token = token[token.index("(") + 1 : -1]
    if token[0] in "'\"":
        return literal_eval(token) if _ESCAPES.fullmatch(token) else _WRONG
    if token[0].isdigit() or token[0] == "-" or token == "inf":
        is_whole = token.removeprefix("-").isdigit()
        return int(token) if is_whole and not _is_long(token) else exact(token)
    return None


# ------------------------------------------------------------------------------- JSON


class _Object(dict[str, Any]):
    """An object of JSON, and the keys that it has twice."""

    twice: tuple[str, ...] = ()


def _make_object(pairs: list[tuple[str, Any]]) -> _Object:
    made = _Object(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        made.twice = tuple({key for key in keys if keys.count(key) > 1})
    return made


def load_json(line: str) -> Any:  # noqa: ANN401
    """Parse a line of JSON, numbers exactly; ValueError if it is none."""
    try:
        return json.loads(line, parse_float=exact, object_pairs_hook=_make_object)
    except RecursionError:
        raise ValueError("values inside of each other too deeply") from None
    except ValueError:
        if not _is_long(line):
            raise
    return json.loads(
        line, parse_float=exact, parse_int=exact, object_pairs_hook=_make_object
    )


def json_value(value: Any, kind: pa.DataType) -> Any:  # noqa: ANN401
    """Take a value of JSON as one of a type; ValueError if it is none.

    NaN is null, true 1 and false 0, as in Python.
    """
    if value is None or value != value:
        return None
    if pa.types.is_list(kind) and isinstance(value, list):
        return [json_value(v, kind.value_type) for v in value]
    if pa.types.is_struct(kind) and isinstance(value, Mapping):
        return {f.name: json_value(member(value, f.name), f.type) for f in kind}
    if kind == pa.string() and isinstance(value, str):
        value.encode()  # of half a character pair, a ValueError
        return value
    is_number = isinstance(value, int | float | Decimal)
    if kind == pa.float64() and is_number:
        return _to_float(value)
    if kind == pa.int64() and is_number:
        return _to_whole(value)
    raise ValueError(value)


def _to_float(value: float | Decimal) -> float:
    try:
        found = float(value)
    except OverflowError:
        raise ValueError(value) from None
    if math.isinf(found) and isinstance(value, Decimal) and value.is_finite():
        raise ValueError(value)
    return found


def _to_whole(value: float | Decimal) -> int | None:
    if value != value:
        return None
    whole = int(value) if isinstance(value, int) else _whole(str(value))
    if whole is None or whole not in INT64:
        raise ValueError(value)
    return whole


class KeyTwiceError(ValueError):
    """An object has a key twice."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the key {key!r} twice")
        self.key = key


def member(value: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401
    """Take a member of an object, None where it is left out; ValueError if twice."""
    if name in getattr(value, "twice", ()):
        raise KeyTwiceError(name)
    return value.get(name)


_DECODER = json.JSONDecoder(parse_float=str, parse_int=str)
_BLANK = re.compile(r"[ \t\r\n]*")


class _Scanner:
    """Reads JSON from left to right; ValueError where it is none."""

    def __init__(self, text: str) -> None:
        self._text, self._place = text, 0

    def take(self, some: str) -> str:
        """Take one of some characters, and the blanks before it."""
        self._skip()
        found = self._text[self._place : self._place + 1]
        if not found or found not in some:
            raise ValueError(f"no {some[0]!r} at character {self._place}")
        self._place += 1
        return found

    def is_at(self, character: str) -> bool:
        """Tell whether a character is next, after blanks."""
        self._skip()
        return self._text.startswith(character, self._place)

    def value(self) -> str | None:
        """Take a value's text: strings without quotes, None of null."""
        self._skip()
        start = self._place
        value, self._place = _DECODER.raw_decode(self._text, start)
        if isinstance(value, str):
            value.encode()  # of half a character pair, a ValueError
        if value is None or isinstance(value, str):
            return value
        return self._text[start : self._place]

    def _skip(self) -> None:
        blank = _BLANK.match(self._text, self._place)
        self._place = self._place if blank is None else blank.end()


def texts_of(line: str) -> Iterator[tuple[str, str | None]]:
    """Find the members of an object; values as they are written, strings unquoted.

    Yields
    ------
    str, str or None
        The key, and the text of its value: None of null.

    Raises
    ------
    ValueError
        If the line is no object.
    """
    scanner = _Scanner(line)
    scanner.take("{")
    is_last = scanner.is_at("}")
    while not is_last:
        if not scanner.is_at('"'):
            raise ValueError("a key that is no string")
        key = scanner.value() or ""
        scanner.take(":")
        yield key, scanner.value()
        is_last = scanner.take(",}") == "}"


def elements_of(text: str) -> list[str | None]:
    """Find the elements of an array, as `texts_of` finds members."""
    scanner = _Scanner(text)
    scanner.take("[")
    found = []
    is_last = scanner.is_at("]")
    while not is_last:
        found.append(scanner.value())
        is_last = scanner.take(",]") == "]"
    return found
