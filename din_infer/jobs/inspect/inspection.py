"""Findings with what they mean and how they are shown: what users have in hand."""

import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from din_infer.errors import InputError, check_suffix
from din_infer.jobs.inspect.facts import Findings
from din_infer.jobs.inspect.text import tables
from din_infer.jobs.inspect.verdict import verdict, warnings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Inspection", "check_picture", "write_picture"]

SUFFIXES = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class Inspection(Findings):
    """What `inspect_files` found; `print` shows it as tables.

    Its attributes are those of `Findings`.
    """

    @property
    def warnings(self) -> tuple[str, ...]:
        """What must be mended before training, each in a sentence or two."""
        return tuple(warnings(self))

    @property
    def verdict(self) -> tuple[str, ...]:
        """Whether a DIN fits, in a sentence; then why, in others."""
        return tuple(verdict(self))

    def to_dict(self) -> dict[str, Any]:
        """Return nested dicts and lists of plain values, for JSON."""
        return {**asdict(self), "warnings": self.warnings, "verdict": self.verdict}

    def plot(self) -> "Figure":
        """Draw histories, matches and tables, six panels.

        Returns
        -------
        matplotlib.figure.Figure
            Not known to pyplot: ``figure.savefig("fit.png")`` writes it.

        Raises
        ------
        ModuleNotFoundError
            Without matplotlib.
        """
        from din_infer.jobs.inspect.plot import draw

        return draw(self)

    def __str__(self) -> str:
        return tables(self)


def check_picture(out: Path) -> None:
    """Raise InputError unless a picture of this name can be written.

    Raises
    ------
    ModuleNotFoundError
        Without matplotlib.
    """
    check_suffix(out, SUFFIXES, "--plot")
    import din_infer.picture  # noqa: F401 - says what is missing, early


def write_picture(inspection: Inspection, out: str | Path) -> None:
    """Write the plot, as the suffix says: whole or not at all.

    Raises
    ------
    InputError
        If the suffix is none of `SUFFIXES`, or the place cannot be written.
    ModuleNotFoundError
        Without matplotlib.
    """
    out = Path(out)
    check_picture(out)
    beside = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        inspection.plot().savefig(beside, format=out.suffix[1:], dpi=150)
        beside.replace(out)
    except OSError as error:
        rule = "a place where the picture can be written"
        raise InputError(rule, error, str(out)) from None
    finally:
        with suppress(OSError):  # where nothing could be written, nothing lies
            beside.unlink()
