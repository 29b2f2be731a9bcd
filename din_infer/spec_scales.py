"""The scale of a dense field, and quantiles to fit, as a spec says them.

Letters: K dense values.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from din_infer._kernels import Scale as CompiledScale
from din_infer.errors import ModelError
from din_infer.spec_parts import Dense, ReadColumn, Scale
from din_infer.spec_reading import Section, is_number

__all__ = [
    "FLOAT32_END",
    "SCALES",
    "check_fitted",
    "compile_scale",
    "constant_names",
    "parse_quantiles",
    "parse_rising",
    "parse_scale",
]

SCALES = ("standard", "log1p", "minmax", "quantile")
QUANTILES = 100
MOST_QUANTILES = 10_000
FLOAT32_END = 3.4028235677973366e38  # what this and more rounds to is infinite


def constant_names(kind: str) -> tuple[str, ...]:
    """Name the keys of a fitted scale."""
    if kind == "quantile":
        return ("boundaries",)
    return ("min", "max") if kind == "minmax" else ("mean", "std")


def parse_scale(section: Section, dim: int) -> Scale | None:
    """Read the `scale` of a section of `dim` (K) values; None where it has none.

    Raises
    ------
    ModelError
        If it is no scale, or its constants are not those of K values.
    """
    if not section.has("scale"):
        return None
    given = section.values["scale"]
    if given == "none":
        return Scale("none")
    if not isinstance(given, dict):
        rule = 'a table like { type = "standard" }, or "none"'
        raise ModelError(rule, repr(given), section.at("scale"))
    mine = section.section("scale")
    kind = mine.choose("type", SCALES)
    if kind == "quantile":
        quantiles = parse_quantiles(mine, QUANTILES)
        boundaries = _parse_boundaries(mine, dim) if mine.has("boundaries") else ()
        scale = Scale(kind, boundaries=boundaries, quantiles=quantiles)
    else:
        scale = _parse_linear(mine, kind, dim)
    mine.finish()
    return scale


def parse_quantiles(section: Section, default: int | None = None) -> int:
    """Read how many ranges of equally many values to fit."""
    kind = "a positive whole number below 2**31"
    if default is None:
        number: int = section.take("quantiles", kind)
    else:
        number = section.take("quantiles", kind, default)
    if not 2 <= number <= MOST_QUANTILES:
        rule = f"2 to {MOST_QUANTILES} quantiles"
        raise ModelError(rule, number, section.at("quantiles"))
    return number


def parse_rising(numbers: Sequence[Any], place: str) -> tuple[float, ...]:
    """Return rising finite numbers; ModelError if they are none."""
    pairs = itertools.pairwise(numbers)
    if not (all(map(is_number, numbers)) and all(a < b for a, b in pairs)):
        raise ModelError("rising finite numbers", repr(numbers), place)
    return tuple(map(float, numbers))


def _parse_linear(section: Section, kind: str, dim: int) -> Scale:
    names = constant_names(kind)
    given = [name for name in names if section.has(name)]
    if not given:
        return Scale(kind)
    if len(given) == 1:
        rule = f"both `{names[0]}` and `{names[1]}`, or neither"
        raise ModelError(rule, f"`{given[0]}` alone", section.place)
    low, high = (_parse_numbers(section, name, dim) for name in names)
    place, got = section.at(names[1]), repr(section.values[names[1]])
    if kind != "minmax":
        if min(high) < 0:
            raise ModelError("numbers of at least 0", got, place)
        return Scale(kind, low, high)
    spread = tuple(b - a for a, b in zip(low, high, strict=True))
    if not all(is_number(s) and s >= 0 for s in spread):
        rule = "no less than `min`, and at a distance that a double holds"
        raise ModelError(rule, got, place)
    return Scale(kind, low, spread)


def _parse_numbers(section: Section, name: str, dim: int) -> tuple[float, ...]:
    """Read a constant of each of `dim` values: of one, the number itself."""
    given = section.values[name]
    is_listed = isinstance(given, list | tuple)
    numbers = given if is_listed else [given]
    if len(numbers) != dim or not all(map(is_number, numbers)) or is_listed < (dim > 1):
        rule = f"a list of {dim} finite numbers" if dim > 1 else "a finite number"
        raise ModelError(rule, repr(given), section.at(name))
    return tuple(map(float, numbers))


def _parse_boundaries(section: Section, dim: int) -> tuple[tuple[float, ...], ...]:
    given = section.take("boundaries", "a list")
    place = section.at("boundaries")
    lists = given if dim > 1 else [given]
    if len(lists) != dim or not all(isinstance(own, list | tuple) for own in lists):
        raise ModelError(f"{dim} lists of numbers", repr(given), place)
    rows = tuple(parse_rising(own, place) for own in lists)
    for own in rows:
        if not own or not is_number(own[-1] - own[0]):
            rule = "at least one number, all at distances that a double holds"
            raise ModelError(rule, repr(given), place)
    return rows


def check_fitted(reads: Iterable[ReadColumn]) -> None:
    """Raise ModelError at the first column whose constants din-train has yet to fit."""
    for column in reads:
        keys: tuple[str, ...] = ()
        if isinstance(column.part, Dense):
            scale = column.part.scale
            if scale is not None and not scale.is_fitted:
                keys, where = constant_names(scale.type), "scale"
        elif column.encoder is not None and column.encoder.quantiles:
            keys, where = ("boundaries",), "encoder"
        if keys:
            names = " and ".join(f"`{key}`" for key in keys)
            what = "numbers as `boundaries`" if where == "encoder" else names
            fix = f"din-train fits them and writes them into the model; or give {what}."
            raise ModelError(
                f"a spec with fitted {names}", "none", f"{column.name}: {where}", fix
            )


def compile_scale(dense: Dense) -> CompiledScale | None:
    """Make the scale of a field ready to apply; None: values stay as they are.

    Raises
    ------
    ModelError
        If float32 does not hold the scaled `missing` of the field.
    """
    scale = dense.scale
    if scale is None or scale.type == "none":
        return None
    made = CompiledScale(
        scale.type,
        dense.dim,
        shift=scale.low,
        divisor=scale.spread,
        boundaries=scale.boundaries,
    )
    if dense.missing is not None:
        scaled = made.apply([dense.missing] * dense.dim)
        if not all(abs(value) < FLOAT32_END for value in scaled):
            rule = "a scale that float32 holds `missing` of"
            raise ModelError(rule, f"{dense.missing:g}", f"{dense.name}: scale")
    return made
