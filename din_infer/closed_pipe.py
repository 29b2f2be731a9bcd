"""Output that nobody reads any more, as of ``| head -1``: one way to end, for all."""

import os
import sys
from contextlib import suppress

__all__ = ["STATUS", "flush_output", "forget_output", "write_output"]

STATUS = 141  # as a shell reports a program that SIGPIPE has ended


def flush_output() -> bool:
    """Write what is buffered of stdout; False if nobody reads it.

    Python would do so at its end, and leave a traceback and status 120.
    """
    return write_output("")


def write_output(text: str) -> bool:
    """Write text to stdout, and all that is buffered; False if nobody reads it."""
    try:
        if sys.stdout is not None:
            sys.stdout.write(text)
            sys.stdout.flush()
    except BrokenPipeError:
        forget_output()
        return False
    return True


def forget_output() -> None:
    """Send nowhere what is left of a stdout or stderr that takes no more."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):
            try:
                stream.flush()
            except OSError:  # nobody reads it, or a disk is full
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)
