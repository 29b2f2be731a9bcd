"""The version of this package, and what it says of files that a newer one wrote.

pyproject.toml, the commands and all files that name a version take it from here.
"""

import re

from din_infer.errors import DinError, ModelError

__all__ = ["__version__", "check_format", "written_by_newer"]

__version__ = "0.1.0"
UPGRADE = "Run: pip install --upgrade din-infer"


def check_format(
    found: object,
    known: int,
    place: str,
    error: type[DinError] = ModelError,
    otherwise: str = "",
) -> None:
    """Refuse a file of another format than this version reads.

    Parameters
    ----------
    found : int or str
        What the file says; of a model's metadata it is text.
    known : int
        The format that this version reads.
    place : str
        Where the file says it.
    error : type
        Raised for another format.
    otherwise : str
        A sentence: what to do where another version of din-infer is not wanted.

    Raises
    ------
    DinError
        Of the class `error`; it names this version, and says how to mend it.

    Examples
    --------
    >>> check_format("1", 1, "model.onnx: din_infer.format")
    """
    text = str(found)
    number = int(text) if re.fullmatch(r"-?\d{1,9}", text, re.ASCII) else None
    if number == known:
        return
    rule = f"format {known}, which din-infer {__version__} reads"
    newer = number is not None and number > known
    fix = " Or: ".join(filter(None, [f"{UPGRADE}." * newer, otherwise]))
    raise error(rule, repr(found) if number is None else number, place, fix)


def written_by_newer(version: object) -> str:
    """Say how to mend a file that this version cannot read; "" if it is no newer one's.

    Examples
    --------
    >>> written_by_newer("999.1.0")[:29]
    'din-infer 999.1.0 wrote it, t'
    >>> written_by_newer(__version__), written_by_newer(None)
    ('', '')
    """
    if _numbers(str(version)) <= _numbers(__version__):
        return ""
    return f"din-infer {version} wrote it, this is {__version__}. {UPGRADE}."


def _numbers(version: str) -> list[int]:
    found = re.match(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})", version, re.ASCII)
    return list(map(int, found.groups())) if found else []
