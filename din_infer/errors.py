"""Errors raised on purpose: data first, rendered as one sentence.

The sentence reads ``expected <rule>, got <value> - at `<column>`, row <row>``; a second
one says how to mend it, where that is known. Code that learns more about where the
fault lies (a batch is part of a file, a candidate one of a request's) changes the
fields by `DinError.at`; no code reads the sentence.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from operator import index
from pathlib import Path
from typing import Any, Self, SupportsIndex, TypeVar, cast

__all__ = [
    "ConversionError",
    "DeviceError",
    "DinError",
    "InputError",
    "ModelError",
    "check_count",
    "check_kind",
    "check_suffix",
    "interrupt_of",
    "is_whole",
    "reads_arguments",
    "renumbered",
    "report",
    "sentence",
]

MOST_COUNT = 2**63 - 1  # what C, and files, hold
UNREADABLE = "arguments that can be read"
C = TypeVar("C", bound=Callable[..., Any])
# What every error carries, and `DinError.__init__` takes.
FIELDS = ("rule", "got", "column", "fix", "row", "candidate", "source", "within")


class DinError(Exception):
    """Base of every error this package raises on purpose.

    Parameters
    ----------
    rule : str
        What was expected; alone, it is the whole message.
    got : object
        What was there instead; kept as text.
    column : str
        What is wrong: a column, else an option, a key of a spec, or a file.
    fix : str
        A sentence that says how to mend it; "" where that is not known.
    row : int, optional
        Which row, from 0.
    candidate : int, optional
        Which of the candidates in that row's lists, from 0.
    source : str
        What the row is counted in, when that is not the caller's batch: a file.
    within : str
        Where in the column, when that is no row: "offset 3".

    Attributes
    ----------
    rule, got, column, fix, row, candidate, source, within
        As above; `str` renders them.

    Examples
    --------
    >>> error = InputError("an id in [0, 9)", 9, "cate_id", row=17)
    >>> error.column, error.row
    ('cate_id', 17)
    >>> print(error)
    expected an id in [0, 9), got 9 - at `cate_id`, row 17
    >>> print(error.at(row=1017, source="clicks.parquet"))
    expected an id in [0, 9), got 9 - at `cate_id`, row 1017 of clicks.parquet
    """

    def __init__(
        self,
        rule: str,
        got: object = "",
        column: str = "",
        fix: str = "",
        *,
        row: SupportsIndex | None = None,
        candidate: SupportsIndex | None = None,
        source: str = "",
        within: str = "",
    ) -> None:
        got = str(got)
        super().__init__(rule, got, column, fix)  # what a pickle is made again from
        self.rule, self.got, self.column, self.fix = rule, got, column, fix
        self.row = None if row is None else int(row)
        self.candidate = None if candidate is None else int(candidate)
        self.source, self.within = source, within

    def at(self, **fields: Any) -> Self:  # noqa: ANN401
        """Return the same error with other values of some attributes.

        Parameters
        ----------
        **fields
            Any of the attributes.
        """
        known = vars(self).copy()
        moved = type(self)(**{name: known.pop(name) for name in FIELDS} | fields)
        vars(moved).update(known)  # notes, and what a class of its own adds
        return moved

    def __str__(self) -> str:
        if not (self.got or self.column):
            return self.rule
        text = f"expected {self.rule}, got {self.got} - at `{self.column}`"
        if self.row is not None:
            text += f", row {self.row}"
        if self.source:
            text += f" of {self.source}"
        if self.candidate is not None:
            text += f", candidate {self.candidate}"
        if self.within:
            text += f", {self.within}"
        return f"{text}. {self.fix}" if self.fix else text


class InputError(DinError, ValueError):
    """The caller's data is wrong; says which column and row, and what stands there."""


class ModelError(DinError, ValueError):
    """A model file or a feature spec is wrong, incomplete or of another kind."""


class DeviceError(DinError, RuntimeError):
    """The device or the runtime that was asked for cannot be used."""


class ConversionError(DinError, RuntimeError):
    """A model cannot be converted, or its ONNX form disagrees with torch."""


def reads_arguments(kind: type[DinError]) -> Callable[[C], C]:
    """Make a call end in an error of this kind where an argument's own method fails.

    A caller's object may raise anything while it is read: its `__len__`, `__iter__`,
    `__array__`. What it raised is the `__cause__`.

    Examples
    --------
    >>> @reads_arguments(InputError)
    ... def size(column):
    ...     return len(column)
    >>> class Closed:
    ...     def __len__(self):
    ...         raise OSError("closed")
    >>> try:
    ...     size(Closed())
    ... except InputError as error:
    ...     print(error)
    expected arguments that can be read, got OSError: closed - at `size`
    """

    def decorate(call: C) -> C:
        name = call.__qualname__.removesuffix(".__init__")

        @wraps(call)
        def checked(*args: object, **options: object) -> object:
            try:
                return call(*args, **options)
            except (DinError, TypeError, MemoryError, ImportError, Warning):
                raise
            except Exception as error:  # of a class of the caller's
                got = f"{type(error).__name__}: {error}"
                raise kind(UNREADABLE, got, name) from error

        return cast("C", checked)

    return decorate


def interrupt_of(error: BaseException | None) -> KeyboardInterrupt | None:
    """Find the interrupt that a library has made another error of; None if it is none.

    Examples
    --------
    >>> try:
    ...     try:
    ...         raise KeyboardInterrupt
    ...     except KeyboardInterrupt as interrupt:
    ...         raise ImportError("initialization failed") from interrupt
    ... except ImportError as error:
    ...     print(repr(interrupt_of(error)))
    KeyboardInterrupt()
    """
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error


def sentence(rule: str, got: object, column: str, fix: str = "") -> str:
    """Render what a `DinError` says, for an error of another class.

    Examples
    --------
    >>> sentence("a positive number", 0, "behavior[0].max_len")
    'expected a positive number, got 0 - at `behavior[0].max_len`'
    """
    return str(DinError(rule, got, column, fix))


def report(error: InputError, errors: list[InputError] | None) -> None:
    """Append an error of one row to a list that collects them; without one, raise."""
    if errors is None:
        try:
            raise error
        finally:
            # Its traceback has this frame: in a circle, both would keep the caller's
            # data until the garbage is next collected.
            del error
    errors.append(error)


@contextmanager
def renumbered(
    errors: list[InputError] | None, move: Callable[[InputError], InputError]
) -> Iterator[list[InputError] | None]:
    """Collect the errors of a part; `move` says where the part's rows are.

    Yields a list for the part, of which `errors` then takes what it holds; or None,
    where `errors` is None and the first error raises.
    """
    found: list[InputError] | None = None if errors is None else []
    try:
        yield found
    except InputError as error:
        raise move(error) from None
    if errors is not None:
        errors += map(move, found or ())


def is_whole(value: object) -> bool:
    """Tell whether an argument is an integer, of Python or NumPy, and no bool."""
    if isinstance(value, bool):
        return False
    try:
        index(value)  # type: ignore[arg-type]
    except Exception:  # an array's, or of a caller's class
        return False
    return True


def check_count(
    value: object, column: str, least: int = 1, most: int = MOST_COUNT
) -> int:
    """Return a whole number of `least` to `most`, of Python or NumPy, as an int.

    Raises
    ------
    InputError
        If it is none, naming it as `column`.
    """
    if not is_whole(value) or value < least:  # type: ignore[operator]
        raise InputError(f"a whole number of at least {least}", repr(value), column)
    if value > most:  # type: ignore[operator]
        raise InputError(f"a whole number of at most {most}", repr(value), column)
    return index(value)  # type: ignore[arg-type]


def check_kind(value: object, kind: type, column: str) -> None:
    """Refuse an argument of another class than `kind`; raises TypeError."""
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        rule = f"{article} {kind.__name__}"
        raise TypeError(sentence(rule, type(value).__name__, column))


def check_suffix(path: Path, suffixes: Sequence[str], column: str) -> None:
    """Refuse a path whose name ends in none of `suffixes`; raises InputError."""
    if path.suffix not in suffixes:
        rule = "a name that ends in " + ", ".join(suffixes)
        raise InputError(rule, repr(path.name), column)
