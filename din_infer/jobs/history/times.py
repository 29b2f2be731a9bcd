"""Times of events as numbers, and durations as a command line writes them."""

import re
from dataclasses import dataclass
from fractions import Fraction
from math import floor

import pyarrow as pa

from din_infer.errors import InputError

__all__ = ["UNITS", "TimeForm", "parse_duration", "unit_of"]

UNITS = {"s": 10**0, "ms": 10**3, "us": 10**6, "ns": 10**9}  # ticks of a second
SECONDS: dict[str, Fraction | int] = {
    "ms": Fraction(1, 1000),
    "s": 1,
    "m": 60,
    "min": 60,
    "h": 3600,
    "d": 86400,
    "w": 604800,
}
DURATION = re.compile(r"([0-9]{1,30}(?:\.[0-9]{1,30})?)\s*([a-z]*)")


@dataclass(frozen=True)
class TimeForm:
    """How the events' times are written, and what a number of them means.

    Attributes
    ----------
    kind : str
        "integer", "number", "date", "timestamp" or "zoned"; the last three are counted
        from 1970-01-01, the last in UTC.
    unit : str or None
        Of `UNITS`: what 1 is; None where that is not known.
    """

    kind: str
    unit: str | None = None

    @property
    def arrow_type(self) -> pa.DataType:
        """The type of the column of times that is written."""
        unit = self.unit or "us"
        return {
            "integer": pa.int64(),
            "number": pa.float64(),
            "date": pa.date32(),
            "timestamp": pa.timestamp(unit),
            "zoned": pa.timestamp(unit, "UTC"),
        }[self.kind]

    def column(self, times: pa.Array) -> pa.Array:
        """Turn int64 or float64 ticks into the column that is written."""
        if self.kind == "date":
            return times.cast(pa.timestamp("us")).cast(pa.date32())
        return times.cast(self.arrow_type)

    def ticks(self, duration: str | float | None, option: str) -> float | None:
        """Say how many ticks a duration has; of whole times, whole ones.

        Between whole times, more than 1.5 is more than 1, and at most 1.5 at most 1.

        Raises
        ------
        InputError
            If it is no duration, or the unit of the times is not known.
        """
        if duration is None:
            return None
        amount, seconds = parse_duration(duration, option)
        is_plain = self.kind in ("integer", "number")
        if seconds is None:
            if not (is_plain or amount == 0):
                rule = "a duration with a unit, such as 90d, 12h, 5m or 30s"
                raise InputError(rule, repr(duration), option)
        elif self.unit is None:
            rule = "times whose unit is known, for a duration with a unit"
            fix = "Give --time-unit s, ms, us or ns; or a number of their own."
            raise InputError(rule, repr(duration), option, fix)
        else:
            amount *= seconds * UNITS[self.unit]
        return float(amount) if self.kind == "number" else floor(amount)


def parse_duration(
    text: str | float, option: str
) -> tuple[Fraction, Fraction | int | None]:
    """Read a duration: its amount, and the seconds of its unit, None without one.

    Raises
    ------
    InputError
        If it is no duration.
    """
    match = DURATION.fullmatch(str(text).strip().lower())
    if match is None or (match[2] and match[2] not in SECONDS):
        rule = "a duration such as 90d, 12h, 5m or 30s, or a number of the times' unit"
        raise InputError(rule, repr(text), option)
    return Fraction(match[1]), SECONDS[match[2]] if match[2] else None


def unit_of(largest: float) -> str | None:
    """Guess the unit of times that are numbers: that which gives years 1973 to 5138."""
    for unit, ticks in UNITS.items():
        if 1e8 * ticks <= abs(largest) < 1e11 * ticks:
            return unit
    return None
