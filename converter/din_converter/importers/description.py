"""The description of another library's model, checked whole before it is used.

A description is a JSON file, or is derived from a pickled model in the same form. All
its faults are one `ConversionError`.
"""

import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from din_infer.errors import ConversionError
from din_infer.regular_file import read_text
from din_infer.spec import RESERVED

__all__ = [
    "ACTIVATIONS",
    "ANY",
    "FLAG",
    "LIST",
    "OPTIONAL_TEXT",
    "SIZE",
    "TABLE",
    "TEXT",
    "Description",
    "Key",
    "activation",
    "bare",
    "choose_sides",
    "list_of",
    "one_of",
    "plain",
    "plain_name",
    "plain_names",
    "read_json",
    "read_json_object",
    "refuse",
]

REQUIRED: Any = object()
MAX_VALUES = 1000
# Libraries' names of activations, in lower case, and the spec's.
ACTIVATIONS = {
    "dice": "dice",
    "prelu": "prelu",
    "leakyrelu": "prelu",  # of the slope 0.01
    "relu": "relu",
    "sigmoid": "sigmoid",
    "silu": "silu",
    "identity": "none",
}


@dataclass(frozen=True)
class Key:
    """One key of a description: the rule for its value, and the default."""

    rule: str
    check: Callable[[Any], bool]
    default: Any = REQUIRED

    def or_else(self, default: Any) -> "Key":  # noqa: ANN401
        """Return the same key with a default, which need not fit the rule."""
        return Key(self.rule, self.check, default)

    def or_null(self) -> "Key":
        """Return the same key for values that may be null, as they are by default."""
        return Key(self.rule, lambda v: v is None or self.check(v), None)


def one_of(*words: str) -> Key:
    """Make a key whose value is one of some words, by default the first."""
    rule = f"{', '.join(words[:-1])} or {words[-1]}"
    return Key(rule, lambda v: isinstance(v, str) and v in words, words[0])


def list_of(what: str, item: Key, least: int = 0) -> Key:
    """Make a key whose value is a list of values that fit another key."""

    def check(value: Any) -> bool:  # noqa: ANN401
        is_list = isinstance(value, list | tuple) and len(value) >= least
        return is_list and all(map(item.check, value))

    return Key(f"a list of {what}", check)


def activation(known: Collection[str], identity: str) -> Key:
    """Make a key whose value names an activation; `bare` then has its own name."""
    return Key(
        f"one of {', '.join(known)}",
        lambda v: isinstance(v, str) and bare(v, identity) in known,
    )


def bare(name: str, identity: str) -> str:
    """Name an activation as a library does that calls torch's Identity `identity`."""
    if name.startswith("torch.nn."):
        name = name.rpartition(".")[2]
        name = identity if name == "Identity" else name
    return name.lower()


LIST = Key("a list", lambda v: isinstance(v, list | tuple))
ANY = Key("anything", lambda _: True, None)
TABLE = Key("a table", lambda v: isinstance(v, Mapping))
TEXT = Key("text", lambda v: isinstance(v, str) and v != "")
OPTIONAL_TEXT = Key("text or null", lambda v: v is None or isinstance(v, str), None)
FLAG = Key("true or false", lambda v: isinstance(v, bool), False)
SIZE = Key("a positive whole number", lambda v: type(v) is int and 0 < v < 2**31)


class Description:
    """Takes tables of a description and collects all faults.

    Parameters
    ----------
    library : str
        As users write it, for the error.
    place : str
        The file, for the error.
    """

    def __init__(self, library: str, place: str) -> None:
        self._library, self._place = library, place
        self._faults: list[str] = []

    def fault(self, text: str) -> None:
        """Note something that is wrong, for the one error of `finish`."""
        self._faults.append(text)

    def take(self, values: object, place: str, keys: Mapping[str, Key]) -> Any:  # noqa: ANN401
        """Return a table's values by key, defaults filled in; an empty one if wrong."""
        before = f"{place}." if place else ""
        if not isinstance(values, Mapping):
            self.fault(f"{place or 'the description'} as {type(values).__name__}")
            return {}
        unknown = [str(k) for k in values if k not in keys]
        if unknown:
            known = ", ".join(keys)
            text = ", ".join(f"{before}{k}" for k in unknown)
            self.fault(f"unknown {text} (known: {known})")
        out = {}
        for name, key in keys.items():
            value = values.get(name, key.default)
            given = name in values
            if value is REQUIRED:
                self.fault(f"no {before}{name}")
            elif given and not key.check(value):
                self.fault(f"{before}{name} = {value!r} instead of {key.rule}")
            else:
                out[name] = value
        return out if len(out) == len(keys) else {}

    def finish(self) -> None:
        """Raise ConversionError if anything was wrong."""
        rule = f"a {self._library} DIN that can be reproduced exactly"
        refuse(rule, self._faults, self._place)


def refuse(rule: str, faults: Iterable[str], place: str, fix: str = "") -> None:
    """Raise ConversionError with everything that is wrong in one place, if anything."""
    if got := "; ".join(faults):
        raise ConversionError(rule, got, place, fix)


def read_json(path: str | os.PathLike[str]) -> Any:  # noqa: ANN401
    """Read a description.

    Raises
    ------
    ConversionError
        If it is no JSON file.
    """
    path = Path(path)
    try:
        return json.loads(read_text(path))
    except OSError as error:
        reason = error.strerror or str(error)
    except (ValueError, RecursionError) as error:
        reason = str(error)
    raise ConversionError("a description as JSON", reason, str(path))


def read_json_object(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a file that holds a JSON object; raises ConversionError."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise ConversionError("a JSON object", f"a {type(content).__name__}", str(path))
    return content


def plain(value: Any, depth: int = 3) -> Any:  # noqa: ANN401
    """Turn a value of a pickled model into plain values, NumPy's numbers too.

    Deep nesting and other objects, which no description has, become their kind as text.
    """
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple) and depth and len(value) <= MAX_VALUES:
        return [plain(v, depth - 1) for v in value]
    known = value is None or isinstance(value, str | bool | int | float)
    return value if known else type(value).__name__


def plain_name(field: str, taken: set[str]) -> str:
    """Give a field a name that a spec allows and none of `taken`, which gets it too."""
    plain = "".join("_" if c in ".[]" else c for c in field).strip() or "_"
    while plain in taken or plain in RESERVED:
        plain += "_"
    taken.add(plain)
    return plain


def plain_names(names: Iterable[str]) -> dict[str, str]:
    """Map every name to one that a spec allows, the same where possible."""
    out: dict[str, str] = {}
    names = list(dict.fromkeys(names))
    allowed = {n: _is_plain(n) for n in names}
    taken = {n for n in names if allowed[n]}
    for name in names:
        made = name
        if not allowed[name]:
            made = "".join("_" if c in ".[]" else c for c in name).strip() or "field"
            start, number = made, 2
            while made in taken or made in RESERVED:
                made, number = f"{start}_{number}", number + 1
            taken.add(made)
        out[name] = made
    return out


def _is_plain(name: str) -> bool:
    odd = any(c in name for c in ".[]") or name != name.strip()
    return not odd and bool(name) and name not in RESERVED


def choose_sides(
    defaults: Mapping[str, str],
    fixed: Mapping[str, str],
    user_fields: Iterable[str],
    candidate_fields: Iterable[str],
) -> dict[str, str]:
    """Decide for every field whether a request or a candidate has it.

    Parameters
    ----------
    defaults : dict of str
        "user" or "candidate" by name.
    fixed : dict of str
        The same for the names that can be nothing else.
    user_fields, candidate_fields : iterable of str
        The caller's choice.

    Returns
    -------
    dict of str
        `defaults`, changed by the caller's choice.

    Raises
    ------
    ConversionError
        If a name is unknown, is in both, or is fixed on the other side.
    """
    chosen = dict(defaults)
    known = ", ".join(defaults)
    said: dict[str, str] = {}
    for side, names in (("user", user_fields), ("candidate", candidate_fields)):
        place = f"{side}_fields"
        if isinstance(names, str):
            raise ConversionError("a list of names", repr(names), place)
        for name in names:
            if said.setdefault(name, side) != side:
                raise ConversionError("a name on one side only", repr(name), place)
            if fixed.get(name, side) != side:
                rule = f"only names that can be {side} fields"
                got = f"{name!r}, which the attention has as {fixed[name]}"
                raise ConversionError(rule, got, place)
            if name in fixed:
                continue
            if name not in chosen:
                raise ConversionError(f"one of {known}", repr(name), place)
            chosen[name] = side
    return chosen
