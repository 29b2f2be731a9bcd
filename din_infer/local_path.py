"""Paths of this machine; URLs are refused by their own name."""

import os
import re
from pathlib import Path
from urllib.parse import unquote

from din_infer.errors import DinError, InputError

__all__ = ["local_path"]

SEPARATOR = os.sep

# A scheme of RFC 3986 with two letters or more, since one is a drive of Windows; one
# slash is enough: "dbfs:/x", and what pathlib makes of "s3://bucket".
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(/.*)?", re.DOTALL)


def local_path(
    path: str | os.PathLike[str], column: str, error: type[DinError] = InputError
) -> Path:
    """Make a `Path`, unless it names an object store or another server.

    Parameters
    ----------
    path : path
        ``scheme://..`` and ``scheme:/..`` are URLs. A folder here that has such a name
        is given as ``./s3:/..``, or as an absolute path.
    column : str
        What the error calls it: an option or a parameter.
    error : type
        Raised for a URL, for an empty path, which pathlib takes for this folder, and
        for a path with a NUL, which no system has.

    Raises
    ------
    DinError
        Of the class `error`; nothing has been read or made.
    """
    text = os.fsdecode(path)
    if not text:
        raise error("a path on this machine", "''", column)
    if "\0" in text:
        raise error("a path on this machine, without a NUL", repr(text), column)
    found = _URL.fullmatch(_slashed(text))
    if found is None:
        made = Path(text)  # which drops "./"
        return made.absolute() if _URL.fullmatch(_slashed(str(made))) else made
    plain = re.sub("^//(localhost)?(?=/)", "", found[2] or "")
    plain = plain[1:] if re.match("/[A-Za-z]:/", plain) else plain  # a drive
    if found[1].lower() == "file" and not plain.startswith("//"):
        fix = f"Give {unquote(plain) or 'the path itself'}."
    else:
        fix = "Copy it here, or mount it, and give that path."
        fix += f" A folder here of this name is ./{text}."
    raise error("a path on this machine", text, column, fix)


def _slashed(text: str) -> str:
    r"""Write a path with slashes: on Windows, pathlib makes ``s3:\\b`` of ``s3://b``."""
    return text.replace("\\", "/") if SEPARATOR == "\\" else text
