"""Logs and warnings of torch, hidden, and its errors, shortened."""

import contextlib
import logging
import warnings
from collections.abc import Iterator

__all__ = ["first_line", "quiet"]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Show no logs and no warnings meanwhile."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def first_line(error: BaseException) -> str:
    """Return the first line of an error that is not blank, or the error's class."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
