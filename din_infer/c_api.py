"""Where the C interface of encoding lies, for compilers: docs/raw.md.

``python -m din_infer.c_api`` prints the header and the library, a line each.
"""

import sys
from pathlib import Path

from din_infer.closed_pipe import STATUS, write_output
from din_infer.errors import DeviceError
from din_infer.session import ops_library

__all__ = ["header_path", "library_path"]


def header_path() -> Path:
    """Find ``din_encode.h``, which C and C++ include.

    Examples
    --------
    >>> header_path().name
    'din_encode.h'
    """
    return Path(__file__).absolute().with_name("include") / "din_encode.h"


def library_path() -> Path:
    """Find the library to link with: that of the native operators.

    Raises
    ------
    DeviceError
        If this build has none.
    """
    found = ops_library()
    if found is None:
        rule = "the native operators, whose library has the C interface too"
        raise DeviceError(rule, "a build of din-infer without them", "library")
    return found


if __name__ == "__main__":
    said = f"{header_path()}\n{library_path()}\n"
    sys.exit(0 if write_output(said) else STATUS)
