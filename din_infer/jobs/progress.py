"""How far a command has come: a bar on a terminal, elsewhere a line a minute."""

import sys
import time
from contextlib import suppress
from typing import Any, Self

from tqdm import tqdm

__all__ = ["Lines", "show_progress"]

SECONDS = 60.0  # between lines


class Lines:
    """Lines on stderr, for logs; used as `tqdm` is.

    Attributes
    ----------
    total : int or None
        All rows there are.
    n : int
        Rows that are done.
    """

    def __init__(self, total: int | None, what: str, initial: int = 0) -> None:
        self.total, self.n = total, initial
        self._what, self._initial, self._postfix = what, initial, ""
        self._began = self._said = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, n: int) -> None:
        """Add rows that are done; a line where the last was a minute ago."""
        self.n += n
        now = time.monotonic()
        if now - self._said >= SECONDS:
            self._said = now
            with suppress(OSError, ValueError):  # nobody reads it
                sys.stderr.write(self.line(now - self._began) + "\n")
                sys.stderr.flush()

    def line(self, seconds: float) -> str:
        """Say how far it has come after some seconds."""
        rate = (self.n - self._initial) / seconds if seconds else 0.0
        text = f"{self._what}: {self.n:,}"
        if self.total:
            text += f" of {self.total:,} rows ({self.n / self.total:.0%})"
        else:
            text += " rows"
        text += f", {rate:,.0f} rows/s"
        if self.total and rate:
            left = max(0, self.total - self.n) / rate
            text += f", {tqdm.format_interval(left)} left"
        return text + (f", {self._postfix}" if self._postfix else "")

    def set_postfix_str(self, text: str = "", refresh: bool = True) -> None:  # noqa: ARG002
        """Add a text to the next lines."""
        self._postfix = text

    def set_postfix(self, refresh: bool = True, **values: object) -> None:
        """Add values to the next lines."""
        text = ", ".join(f"{name} {value}" for name, value in values.items())
        self.set_postfix_str(text, refresh)


def show_progress(
    total: int | None, what: str, shown: bool, initial: int = 0, leave: bool = True
) -> Any:  # noqa: ANN401
    """Return what counts rows, as `tqdm` does; shows nothing unless `shown`."""
    is_terminal = getattr(sys.stderr, "isatty", lambda: False)()
    if shown and not is_terminal:
        return Lines(total, what, initial)
    return tqdm(
        total=total,
        initial=initial,
        desc=what,
        unit=" rows",
        unit_scale=True,
        leave=leave,
        file=sys.stderr,
        disable=not shown,
    )
