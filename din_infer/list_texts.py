"""Lists that are written as text, as a spec's `separator` or `format` says.

A text column becomes a column of lists before anything else looks at it; a column of
lists is taken as it is.
"""

import json
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from din_infer import _kernels
from din_infer._kernels import Column
from din_infer.columns import Batch
from din_infer.errors import InputError, report
from din_infer.spec_parts import Behavior, Dense, ListText, MultiHot, ReadColumn

__all__ = ["Texts", "exact", "how_to_split", "read_list", "split_columns", "texts_of"]

MOST_SHOWN = 60  # characters of a text in an error
MOST_CHARACTERS = 399  # of a number that becomes a float, as in csrc/spec_texts.c
BLANKS = "\t\n\v\f\r\x1c\x1d\x1e\x1f "  # around a number
MOST_POWER = 10**17  # of ten, in a Decimal
_MANY = {"string": "strings", "int64": "integers", "float": "numbers"}
_WHOLE = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WORDS = {"true": 1, "True": 1, "TRUE": 1, "false": 0, "False": 0, "FALSE": 0}
SEPARATORS = ("|", ",", ";", "\t", " ")

Texts = Mapping[str, tuple[ListText, str]]


def exact(text: str) -> Decimal:
    """Read a number as it is written.

    One whose exponent no Decimal has is as large, or as near to 0, as one can be: far
    beyond floats and integers of 64 bits.
    """
    try:
        return Decimal(text)
    except InvalidOperation:
        digits, _, exponent = text.lower().partition("e")
        mantissa = Decimal(digits)
        power = -MOST_POWER if exponent.startswith("-") else MOST_POWER
        return Decimal((int(mantissa.is_signed()), (int(bool(mantissa)),), power))


def texts_of(reads: Iterable[ReadColumn]) -> dict[str, tuple[ListText, str]]:
    """Map columns whose lists may be text to how they are written, and their dtype."""
    return {c.name: (c.text, c.dtype) for c in reads if c.text is not None}


def split_columns(
    batch: Batch, texts: Texts, errors: list[InputError] | None = None
) -> Batch:
    """Replace the columns of a batch that are text by lists, in place.

    Parameters
    ----------
    batch : Batch
        Columns of lists, and those that it lacks, are left as they are.
    texts : dict
        As `texts_of` has it.
    errors : list, optional
        Takes the error of every row whose text is no list; without it the first raises.

    Returns
    -------
    Batch
        The same.

    Raises
    ------
    InputError
        Naming column, row and text.
    """
    for name, (text, dtype) in texts.items():
        column = batch.columns.get(name)
        if column is not None and column.kind == "string" and not column.is_list:
            batch.columns[name] = _split(column, text, dtype, errors)
    return batch


def _split(
    column: Column, text: ListText, dtype: str, errors: list[InputError] | None
) -> Column:
    if text.separator is not None:
        separator = text.separator.encode()
        read = _read_whole if dtype == "int64" else _read_float
        made, bad = _kernels.split_texts(column, separator, dtype, read)
        raws = _kernels.read_texts(column) if bad else []
        for row in bad:
            report(_no_list(raws[row] or b"", text, dtype, column.name, row), errors)
        return made
    lists: list[list[Any] | None] = []
    for row, raw in enumerate(_kernels.read_texts(column)):
        try:
            lists.append(None if raw is None else _read_json(raw, dtype))
        except ValueError:
            report(_no_list(raw or b"", text, dtype, column.name, row), errors)
            lists.append(None)
    return _kernels.from_list(lists, column.name)


def _no_list(raw: bytes, text: ListText, dtype: str, name: str, row: int) -> InputError:
    how = "as JSON"
    if text.separator is not None:
        how = f"with {text.separator!r} between them"
    got = repr(raw.decode(errors="replace"))
    if len(got) > MOST_SHOWN:
        got = got[: MOST_SHOWN - 4] + "..."
    return InputError(f"a list of {_MANY[dtype]} {how}", got, name, row=row)


def read_list(value: Any, text: ListText, dtype: str) -> Any:  # noqa: ANN401
    """Read a value that `split_columns` takes: text as a list, all else as it is."""
    if not isinstance(value, str | bytes):
        return value
    raw = value.encode() if isinstance(value, str) else value
    if text.separator is None:
        return _read_json(raw, dtype)
    if not raw:
        return []
    parts = raw.split(text.separator.encode())
    if dtype == "string":
        return [p.decode() if isinstance(value, str) else p for p in parts]
    read = _read_whole if dtype == "int64" else _read_float
    return [read(part) if part else None for part in parts]


def _read_json(raw: bytes, dtype: str) -> list[Any]:
    """Read a JSON array; ValueError if it is none, or one of other values."""
    if not raw:
        return []
    text = raw.decode()
    read = _short_number if dtype == "float" else exact
    whole = _short_number if dtype == "float" else None
    try:
        found = json.loads(text, parse_float=read, parse_int=whole)
    except RecursionError:
        raise ValueError("values inside of each other too deeply") from None
    if found is None:
        return []
    if not isinstance(found, list):
        raise ValueError("no list")
    return [_json_element(value, dtype) for value in found]


def _short_number(text: str) -> Decimal:
    """Read a number of JSON; ValueError if it is too long for a float."""
    if len(text) > MOST_CHARACTERS:
        raise ValueError(text)
    return exact(text)


def _json_element(value: object, dtype: str) -> object:
    if value is None or value != value:
        return None
    if dtype == "string":
        if not isinstance(value, str):
            raise ValueError(value)
        value.encode()  # of half a character pair, a ValueError
        return value
    if not isinstance(value, int | float | Decimal):
        raise ValueError(value)
    return _read_whole(str(value).encode()) if dtype == "int64" else float(value)


def _read_whole(raw: bytes) -> int | None:
    """Read a whole number, also one that is written as 3.0 or 3e0, true or false."""
    word = raw.decode().strip(BLANKS)
    if not word:
        return None
    if word in _WORDS:
        return _WORDS[word]
    if _WHOLE.fullmatch(word) is None:
        raise ValueError(word)
    value = exact(word)
    if value.adjusted() > 18 or value != value.to_integral_value():
        raise ValueError(word)
    number = int(value)
    if not -(2**63) <= number < 2**63:
        raise ValueError(word)
    return number


def _read_float(raw: bytes) -> float | None:
    """Read a number; "_" between digits and other digits than ASCII's are refused."""
    word = raw.decode().strip(BLANKS)
    if not word:
        return None
    if word in _WORDS:
        return float(_WORDS[word])
    if "_" in word or not word.isascii() or len(word) > MOST_CHARACTERS:
        raise ValueError(word)
    return float(word)


def how_to_split(column: Column, part: Behavior | MultiHot | Dense) -> str:
    """Say which key a spec lacks for a column of text where lists are due.

    The key is a guess from the first text that is not empty.
    """
    if column.kind != "string" or column.is_list:
        return ""
    texts = (t.decode(errors="replace") for t in _kernels.read_texts(column) if t)
    first = next(texts, "")
    key = 'format = "json"'
    if not first.lstrip().startswith("["):
        found = next((s for s in SEPARATORS if s in first), SEPARATORS[0])
        key = f"separator = {json.dumps(found)}"
    sections = {Behavior: "behavior", MultiHot: "multi_hot", Dense: "dense"}
    section = sections[type(part)]
    return f"Say in the spec how its text is split: {key} in [[{section}]] {part.name}."
