"""Reading of a spec's sections: keys taken by kind, files inlined, the rest refused."""

import difflib
import math
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from din_infer.errors import ModelError
from din_infer.local_path import local_path
from din_infer.regular_file import read_text_bytes

__all__ = [
    "RESERVED",
    "Section",
    "as_float",
    "as_int",
    "check_name",
    "copy",
    "inline_files",
    "is_int",
    "is_number",
    "is_text",
    "plain_name",
    "shown",
]

RESERVED = ("request_of_candidate", "logit", "score")
SIGNS = ".[]"  # which no name has
MOST_SHOWN = 60  # characters of a value in an error
_MISSING: Any = object()


class Section:
    """One table of the spec: takes keys, remembers the place, refuses the rest."""

    def __init__(self, values: object, place: str) -> None:
        if not isinstance(values, Mapping):
            raise ModelError("a table", repr(values), place)
        self.values = dict(values)
        self.place = place
        self.known: list[str] = []

    def at(self, key: str) -> str:
        """Name the place of a key."""
        return f"{self.place}.{key}" if self.place else key

    def has(self, key: str) -> bool:
        """Tell whether a key is there; it is known from now on."""
        self.known.append(key)
        return key in self.values

    def take(self, key: str, kind: str, default: Any = _MISSING) -> Any:  # noqa: ANN401
        """Return a value of one of `_KINDS`; ModelError if it is none."""
        self.known.append(key)
        if key not in self.values:
            if default is _MISSING:
                near = difflib.get_close_matches(key, [str(k) for k in self.values], 1)
                fix = f"Is `{near[0]}` meant to be `{key}`?" if near else ""
                raise ModelError(kind, "nothing", self.at(key), fix)
            return default
        value = self.values[key]
        if not _KINDS[kind](value):
            raise ModelError(kind, repr(value), self.at(key))
        if kind.startswith(("a list of strings", "a list of sizes", "a list of whole")):
            return tuple(value)
        floating = ("a finite number", "a positive number", "a number in [0, 1)")
        return float(value) if kind in floating else value

    def choose(self, key: str, choices: Iterable[str], default: Any = _MISSING) -> Any:  # noqa: ANN401
        """Return one of `choices`; ModelError if it is another."""
        rule = "one of " + ", ".join(choices)
        try:
            value = self.take(key, "a string", default)
        except ModelError as error:
            raise error if key in self.values else error.at(rule=rule) from None
        if value is not default and value not in tuple(choices):
            raise ModelError(rule, repr(value), self.at(key))
        return value

    def name(self, key: str = "name") -> str:
        """Return a name that a field may have."""
        value: str = self.take(key, "a string")
        return check_name(value, self.at(key))

    def section(self, key: str, default: Any = _MISSING) -> "Section":  # noqa: ANN401
        """Return the section of a table."""
        return Section(self.take(key, "a table", default), self.at(key))

    def sections(self, key: str) -> list["Section"]:
        """Return the sections of a list of tables."""
        values = self.take(key, "a list of tables", [])
        return [Section(v, f"{self.at(key)}[{i}]") for i, v in enumerate(values)]

    def finish(self) -> None:
        """Raise ModelError at a key that nobody asked for."""
        for key in self.values:
            if key not in self.known:
                rule = "one of the keys " + ", ".join(dict.fromkeys(self.known))
                raise ModelError(rule, repr(key), self.place or "spec")


def is_int(value: object) -> bool:
    """Tell a whole number from a bool and all else."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Tell whether a value is a finite number of float64's range."""
    if is_int(value):
        return abs(value) < 2**1000  # type: ignore[arg-type]
    return isinstance(value, float) and math.isfinite(value)


def is_text(value: object) -> bool:
    """Tell whether a value is a string that UTF-8 can hold."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:  # a lone surrogate
        return False


def _is_size(value: object) -> bool:
    return is_int(value) and 0 < value < 2**31  # type: ignore[operator]


_KINDS: dict[str, Callable[[Any], bool]] = {
    "a string": lambda v: is_text(v) and v != "",
    "true or false": lambda v: isinstance(v, bool),
    "a whole number": is_int,
    "a positive whole number below 2**31": _is_size,
    "a finite number": is_number,
    "a positive number": lambda v: is_number(v) and v > 0,
    "a number in [0, 1)": lambda v: is_number(v) and 0 <= v < 1,
    "a string or a whole number": lambda v: (
        is_text(v) or (is_int(v) and -(2**63) <= v < 2**63)
    ),
    "a list": lambda v: isinstance(v, list | tuple),
    "a list of strings": lambda v: (
        isinstance(v, list | tuple) and all(is_text(x) for x in v)
    ),
    "a list of whole numbers": lambda v: (
        isinstance(v, list | tuple) and all(map(is_int, v))
    ),
    "a list of sizes, each a positive whole number": lambda v: (
        isinstance(v, list | tuple) and all(_is_size(x) for x in v)
    ),
    "a list of tables": lambda v: (
        isinstance(v, list | tuple) and all(isinstance(x, Mapping) for x in v)
    ),
    "a table": lambda v: isinstance(v, Mapping),
}


def check_name(value: str, place: str) -> str:
    """Return a name that a field may have; ModelError if it is none."""
    if not is_text(value) or not value:
        raise ModelError("a string", repr(value), place)
    fix = "Give the field a plain name and set `column` to the column's own."
    if any(c in SIGNS for c in value) or value != value.strip():
        rule = "a name without '.', '[', ']' or blanks around it"
        raise ModelError(rule, repr(value), place, fix)
    if any(map(_is_control, value)):
        rule = "a name without line ends and other control characters"
        raise ModelError(rule, repr(value), place, fix)
    if value in RESERVED:
        raise ModelError("a name that is not reserved", repr(value), place)
    return value


def _is_control(character: str) -> bool:
    return unicodedata.category(character) == "Cc"


def plain_name(text: str) -> str:
    """Make a name of any text that a field may have, but for reserved ones."""
    signs = (c in SIGNS or _is_control(c) or not is_text(c) for c in text)
    plain = "".join("_" if sign else c for c, sign in zip(text, signs, strict=True))
    return plain.strip() or "column"


def as_int(value: object) -> object:
    """Read an integer that a text file gave as text; leave all else as it is."""
    try:
        return int(value) if _is_ascii(value) else value
    except ValueError:
        return value


def as_float(value: object) -> object:
    """Read a number that a text file gave as text; leave all else as it is."""
    try:
        return float(value) if _is_ascii(value) else value
    except ValueError:
        return value


def _is_ascii(value: object) -> TypeGuard[str]:
    """Tell text that may be a number as all programs write it from Python's `1_000`."""
    return isinstance(value, str) and value.isascii() and "_" not in value


def shown(value: object) -> str:
    """Write a value for an error, cut where it is long."""
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else text[: MOST_SHOWN - 4] + "..."


def copy(value: Any) -> Any:  # noqa: ANN401
    """Copy nested tables and lists; a long list of values costs little."""
    nested = (Mapping, list, tuple)
    if isinstance(value, Mapping):
        return {k: copy(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        copied = [copy(v) if isinstance(v, nested) else v for v in value]
        return copied if isinstance(value, list) else tuple(copied)
    return value


def _read_lines(section: Section, key: str, folder: Path) -> list[str]:
    name = section.take(key, "a string")
    path = folder / local_path(name, section.at(key), ModelError)
    try:
        # not splitlines: a value may hold a NUL, and any of Unicode's line breaks
        text = (
            read_text_bytes(path, takes_nul=True)
            .decode("utf-8-sig")
            .replace("\r\n", "\n")
        )
        return text.removesuffix("\n").split("\n") if text else []
    except (OSError, ValueError) as error:
        rule = "a readable UTF-8 file, one value per line"
        raise ModelError(rule, f"{path}: {error}", section.at(key)) from None


def inline_files(raw: dict[str, Any], folder: Path | None) -> None:
    """Replace `values_file`, `lookup_file` and `weights_file` by their contents.

    Integers that stand there as text become integers. Without a folder files are
    refused: a spec inside a model may not open any.
    """

    def walk(value: object, place: str) -> None:
        if isinstance(value, list):
            for i, item in enumerate(value):
                walk(item, f"{place}[{i}]")
        if not isinstance(value, dict):
            return
        named = place.endswith(".fields")  # its keys are names, not words of the format
        contents = () if named else ("values", "lookup", "weights")
        for name in contents:
            key = f"{name}_file"
            if key in value:
                if folder is None:
                    rule = f"`{name}` itself, since only a spec file may name files"
                    where = f"{place}.{key}" if place else key
                    raise ModelError(rule, repr(value[key]), where)
                section = Section(value, place)
                if name in value:
                    rule = f"either `{name}` or `{key}`"
                    raise ModelError(rule, "both", section.at(key))
                lines = _read_lines(section, key, folder)
                value[name] = lines if name == "values" else list(map(str.split, lines))
                del value[key]
        for key, item in value.items():
            if key not in contents:  # which may be long, and hold no tables
                walk(item, f"{place}.{key}" if place else key)
        encoder = value.get("encoder")
        if value.get("dtype") == "int64" and isinstance(encoder, dict):
            texts = encoder.get("values")
            if isinstance(texts, list | tuple) and str in set(map(type, texts)):
                encoder["values"] = [as_int(v) for v in texts]

    walk(raw, "")
