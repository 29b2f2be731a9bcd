"""What text means: the options of CSV and JSON lines."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from din_infer.errors import InputError

__all__ = ["NULL_TEXTS", "SEPARATOR", "TextOptions", "texts_of"]

NULL_TEXTS = ("", "\\N")
SEPARATOR = "|"
LIMITS = '"\r\n\0'  # which begin or end something in any text
# which formats have a use for an option
_USES = {
    "list_separator": ("csv", "tsv"),
    "delimiter": ("csv", "tsv"),
    "header": ("csv", "tsv"),
    "columns": ("csv", "tsv", "jsonl"),
    "null_texts": ("csv", "tsv"),
    "escape": ("csv", "tsv"),
    "quoted_empty": ("csv", "tsv"),
}
_NAMES = {"csv": "CSV", "tsv": "TSV", "jsonl": "JSON lines", "arrow": "Arrow IPC"}


def texts_of(value: Sequence[str], name: str) -> tuple[str, ...]:
    """Return the texts of an argument; InputError if it is one, or not all are."""
    if isinstance(value, str) or not all(isinstance(v, str) for v in value):
        raise InputError("a sequence of texts", repr(value), name)
    return tuple(value)


@dataclass(frozen=True)
class TextOptions:
    r"""How text is read.

    Parameters
    ----------
    list_separator : str, optional
        What stands between the elements of a list in CSV, of any length; it may be the
        delimiter, in fields in quotes. One that is given is exact. None is "|", and
        lists that seem to have another are refused.
    delimiter : str, optional
        Between the fields of CSV, one ASCII character. None is a comma, of TSV a tab.
    header : bool
        Whether the first record of CSV has the names of the columns.
    columns : sequence of str
        The names of the columns of CSV without a header. Of JSON lines: keys that may
        be left out of every line.
    null_texts : sequence of str
        Fields of CSV that are null where they are not in quotes.
    escape : str, optional
        One ASCII character that takes the meaning from the next one in CSV. Quotes
        that are doubled are read with and without it.
    quoted_empty : {"list", "element"}
        What `""` is in a CSV column of lists of strings: a list of none, or of one
        empty string.

    Raises
    ------
    InputError
        If an option has no such value, or two contradict each other.
    """

    list_separator: str | None = None
    delimiter: str | None = None
    header: bool = True
    columns: Sequence[str] = ()
    null_texts: Sequence[str] = NULL_TEXTS
    escape: str | None = None
    quoted_empty: str = "list"

    def __post_init__(self) -> None:
        for name in ("columns", "null_texts"):
            object.__setattr__(self, name, texts_of(getattr(self, name), name))
        for name in ("delimiter", "escape"):
            value = getattr(self, name)
            if value is not None and not _is_character(value):
                rule = "one ASCII character that is no quote and no line end"
                raise InputError(rule, repr(value), name)
        separator: object = self.list_separator
        if separator is not None:
            is_text = isinstance(separator, str) and separator != ""
            if not is_text or any(c in str(separator) for c in LIMITS):
                rule = "text without quotes and line ends"
                raise InputError(rule, repr(separator), "list_separator")
            if separator == self.escape:
                rule = "a list separator other than the escape"
                raise InputError(rule, repr(separator), "list_separator")
        if self.escape is not None and self.escape == self.delimiter:
            rule = "an escape other than the delimiter"
            raise InputError(rule, repr(self.escape), "escape")
        if self.quoted_empty not in ("list", "element"):
            rule = "one of list, element"
            raise InputError(rule, repr(self.quoted_empty), "quoted_empty")
        twice = sorted({n for n in self.columns if self.columns.count(n) > 1})
        if twice:
            raise InputError("each column once", ", ".join(twice), "columns")

    def check_formats(self, formats: Collection[str]) -> None:
        """Refuse options that no input has a use for.

        Raises
        ------
        InputError
            Naming the first such option.
        """
        got = ", ".join(dict.fromkeys(_NAMES.get(f, f.capitalize()) for f in formats))
        for name, uses in _USES.items():
            is_given = getattr(self, name) != getattr(_DEFAULTS, name)
            if is_given and not any(f in uses for f in formats):
                rule = "inputs of " + ", ".join(_NAMES[f] for f in uses)
                raise InputError(rule, got, name)
        if any(f in _USES["header"] for f in formats):
            if not (self.header or self.columns):
                rule = "the names of the columns of CSV that has no header"
                raise InputError(rule, "none", "columns", "Give --columns.")
            if self.header and self.columns:
                rule = "a header or names, not both"
                fix = "Give --no-header where the first record is data."
                raise InputError(rule, ", ".join(self.columns), "columns", fix)

    def describe(self) -> dict[str, Any]:
        """Describe the options for JSON."""
        found = asdict(self)
        return {n: list(v) if isinstance(v, tuple) else v for n, v in found.items()}

    def delimiter_of(self, kind: str) -> str:
        """Return the delimiter of a format."""
        return self.delimiter or ("\t" if kind == "tsv" else ",")


_DEFAULTS = TextOptions()


def _is_character(value: object) -> bool:
    if not isinstance(value, str) or len(value) != 1:
        return False
    return value.isascii() and value not in LIMITS
