"""Constants of a spec that are fitted to the training rows, and written into it.

These are the scales of dense fields and the boundaries of bucketize encoders. One pass
reads their columns alone; rows count once, whatever their weight.
"""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from din_converter.rows import Rows
from din_infer import _kernels, columns
from din_infer.distribution import LIMIT, Distribution
from din_infer.errors import InputError, ModelError
from din_infer.jobs.sources import in_file
from din_infer.list_texts import Texts, split_columns, texts_of
from din_infer.spec import Dense, FeatureSpec, Scale
from din_infer.spec_parts import Behavior, MultiHot, OwnColumns
from din_infer.spec_scales import constant_names

__all__ = ["adopt_constants", "fit_spec"]

FEWEST_SAMPLED = 1 << 12  # values of a very wide field whose quantiles are exact
SHOWN = 3  # numbers of a list in a message


def fit_spec(
    spec: FeatureSpec, rows: Rows, *, add_scales: bool = True
) -> tuple[FeatureSpec, list[str]]:
    """Fit what a spec leaves open to the rows, in one pass over the columns concerned.

    Parameters
    ----------
    spec : FeatureSpec
    rows : Rows
        The training part alone. Weights are not used.
    add_scales : bool
        Also give a `standard` scale to dense fields without `scale` whose values are
        far from unit range, as `Distribution.is_far` says.

    Returns
    -------
    spec : FeatureSpec
        With constants; the same object where there was nothing to fit.
    notes : list of str
        A sentence for each thing fitted, in the spec's order.

    Raises
    ------
    InputError
        If a column is not of numbers, a row has another number of values than its
        field, or the constants are beyond float64.

    Notes
    -----
    Memory: 16 bytes for each value that quantiles are taken of, at most 4,194,304 for
    each field. The constants do not depend on how rows are spread over files and row
    groups, but on their order where there are more.
    """
    denses = [_Fit.of_dense(d, add_scales) for d in spec.dense]
    raw = spec.to_dict()
    lists = dict(_unfitted_encoders(spec, raw))
    fits = [f for f in (*denses, *(fit for fit, _ in lists.values())) if f is not None]
    if not fits:
        return spec, []
    for piece, start, table, inside in rows.read(list({f.column: 0 for f in fits})):
        for fit in fits:
            if fit.column not in table.column_names:
                continue  # which encoding says, with all columns that are there
            try:
                fit.add(table, inside)
            except InputError as error:
                raise in_file(error, start, piece.source) from None
    notes: list[str] = []
    for dense, section in zip(denses, raw.get("dense", ()), strict=True):
        scale = dense.scale() if dense is not None else None
        if dense is not None and scale is not None:
            section["scale"] = scale
            notes.append(dense.describe(scale))
    for fit, encoder in lists.values():
        encoder["boundaries"] = fit.boundaries()
        notes.append(fit.describe(encoder))
    return FeatureSpec.from_dict(raw), notes


@dataclasses.dataclass(frozen=True)
class _Fit:
    """What is fitted to a column: a distribution for each of the K values of a row."""

    name: str
    column: str
    distributions: tuple[Distribution, ...]
    type: str  # of the scale to fit, "bucketize", or "" for a scale only if needed
    quantiles: int = 0
    is_list: bool = False  # of a bucketize encoder
    pad_value: float | None = None
    texts: Texts = dataclasses.field(default_factory=dict)

    @classmethod
    def of_dense(cls, dense: Dense, add_scales: bool) -> "_Fit | None":
        """Return what is to be fitted of a dense field, if anything."""
        scale = dense.scale or (Scale("") if add_scales else Scale("none"))
        if scale.is_fitted:
            return None
        limit = max(FEWEST_SAMPLED, LIMIT // dense.dim) if scale.quantiles else 0
        each = tuple(Distribution(limit) for _ in range(dense.dim))
        parts = dense.name, dense.column, each, scale.type, scale.quantiles
        return cls(*parts, texts=texts_of(dense.reads))

    def add(self, table: pa.Table, inside: NDArray[np.bool_]) -> None:
        """Count the rows of a table that are inside the time range."""
        mine = table.select([self.column]).filter(pa.array(inside))
        batch = columns.open_batch(mine, [self.column])
        column = split_columns(batch, self.texts).columns[self.column]
        is_list = self.is_list or len(self.distributions) > 1
        if self.type != "bucketize":
            is_list |= column.is_list
        column = columns.require_dtype(column, "float", is_list=is_list)
        if self.type == "bucketize":
            values = _kernels.read_float64(column)[:, None]
            if self.pad_value is not None:
                values = values[values[:, 0] != self.pad_value]
        else:
            values = _kernels.read_raw_dense(column, len(self.distributions))
        for distribution, own in zip(self.distributions, values.T, strict=True):
            of_column = np.ascontiguousarray(own)
            if self.type == "log1p":
                of_column = _kernels.signed_log1p(of_column)
            distribution.add(of_column)

    def scale(self) -> dict[str, Any] | None:
        """Return the fitted scale as a spec has it; None where none is needed."""
        found = [d.finish() for d in self.distributions]
        kind = self.type
        if not kind:
            if not any(d.is_far for d in found):
                return None
            kind = "standard"
        if kind == "quantile":
            of_values: tuple[list[Any], ...] = (
                [sorted(set(d.quantiles(self.quantiles))) or [0.0] for d in found],
            )
        elif kind == "minmax":
            of_values = ([d.low for d in found], [d.high for d in found])
        else:
            of_values = ([d.mean for d in found], [d.std for d in found])
        self._check_finite(of_values)
        scale: dict[str, Any] = {"type": kind}
        for key, numbers in zip(constant_names(kind), of_values, strict=True):
            scale[key] = numbers if len(numbers) > 1 else numbers[0]
        return scale

    def boundaries(self) -> list[float]:
        """Return the inner quantiles, each once, without the smallest value."""
        found = self.distributions[0].finish()
        inner = sorted(set(found.quantiles(self.quantiles)[1:-1]))
        return [b for b in inner if b > found.low]

    def describe(self, fitted: dict[str, Any]) -> str:
        """Say in a sentence what was fitted."""
        keys = "boundaries" if self.type == "bucketize" else "scale"
        shown = fitted["boundaries"] if self.type == "bucketize" else fitted
        counted = sum(d.count for d in self.distributions)
        text = f"{self.name}: {keys} = {_toml(shown)}, fitted to {counted:,} values"
        if not counted:
            text += "; it has none, so each becomes 0"
        elif self.type != "bucketize" and all(
            d.is_constant for d in self.distributions
        ):
            text += "; it is constant, so each becomes 0"
        if not self.type:
            text += (
                ". Added, since they are far from unit range;"
                ' scale = "none" in the spec leaves them as they are'
            )
        return text

    def _check_finite(self, of_values: tuple[list[Any], ...]) -> None:
        flat = np.array([x for part in of_values for x in np.hstack(part).tolist()])
        ends = [(d.low, d.high) for d in self.distributions]
        if not np.isfinite(flat).all() or any(b - a == np.inf for a, b in ends):
            got = f"values from {min(ends)[0]:g} to {max(b for _, b in ends):g}"
            rule = "values whose deviation and range float64 holds, to fit a scale to"
            fix = 'Give a scale of type "log1p", or `scale = "none"`.'
            raise InputError(rule, got, self.column, fix)


def _unfitted_encoders(
    spec: FeatureSpec, raw: dict[str, Any]
) -> Iterator[tuple[str, tuple[_Fit, dict[str, Any]]]]:
    """Find the encoders whose boundaries are to be fitted, each once, by its table.

    Raises
    ------
    ModelError
        If lists say by a length column alone which elements count.
    """
    for part, field, section in _encoded(spec, raw):
        if not field.encoder.quantiles:
            continue
        pad = part.pad_value if part is not None else None
        if part is not None and pad is None and part.length_column is not None:
            rule = "numbers for lists that a `length_column` alone measures"
            got = f"quantiles = {field.encoder.quantiles}"
            raise ModelError(rule, got, f"{field.name}: boundaries")
        fit = _Fit(
            field.name,
            field.column,
            (Distribution(),),
            "bucketize",
            field.encoder.quantiles,
            part is not None,
            None if pad is None else float(pad),
            texts_of(part.reads if part is not None else ()),
        )
        yield field.name, (fit, section["encoder"])


def _encoded(
    spec: FeatureSpec, raw: dict[str, Any]
) -> Iterator[tuple[Behavior | MultiHot | None, OwnColumns, dict[str, Any]]]:
    """Pair each field that has a table of its own with its section.

    First comes the part of which the field is a list; None for one of single values.
    """
    found: list[tuple[Behavior | MultiHot | None, OwnColumns, Any]] = []
    for key, fields in (("user", spec.user), ("candidate", spec.candidate)):
        sections = raw.get(key, ())
        found += ((None, f, s) for f, s in zip(fields, sections, strict=True))
    for part, section in zip(spec.behavior, raw.get("behavior", ()), strict=True):
        found += ((part, f, section["fields"][f.name]) for f in part.own_fields)
    sections = raw.get("multi_hot", ())
    found += ((m, m, s) for m, s in zip(spec.multi_hot, sections, strict=True))
    yield from (entry for entry in found if entry[1].table == entry[1].name)


def adopt_constants(spec: FeatureSpec, start: FeatureSpec) -> FeatureSpec:
    """Take what a spec leaves open from that of the model to start from.

    A new fit would shift the inputs of weights that are trained already. So a field
    without `scale` is scaled, or not, as it was; constants that the spec gives stay.

    Raises
    ------
    ModelError
        If that model has no scale, or no boundaries, of the type that is left open.
    """
    raw, old = spec.to_dict(), start.to_dict()
    theirs = {d["name"]: d.get("scale") for d in old.get("dense", ())}
    for dense, section in zip(spec.dense, raw.get("dense", ()), strict=True):
        if dense.name not in theirs:
            continue  # the specs are compared later
        found = theirs[dense.name]
        if dense.scale is None or not dense.scale.is_fitted:
            if dense.scale is not None and _type_of(found) != dense.scale.type:
                rule = f"a scale of type {dense.scale.type!r}, as the spec has"
                got = repr(_type_of(found))
                raise ModelError(rule, got, f"warm start: {dense.name}")
            section.pop("scale", None)
            if found is not None:
                section["scale"] = found
    known = {f.name: s["encoder"] for _, f, s in _encoded(start, old)}
    for _, field, section in _encoded(spec, raw):
        if field.encoder.quantiles:
            encoder = known.get(field.name, {})
            if encoder.get("type") != "bucketize":
                rule = "a bucketize encoder, as the spec has"
                got = repr(encoder.get("type"))
                raise ModelError(rule, got, f"warm start: {field.name}")
            section["encoder"]["boundaries"] = encoder["boundaries"]
    return FeatureSpec.from_dict(raw)


def _type_of(scale: object) -> object:
    return scale.get("type") if isinstance(scale, dict) else scale


def _toml(value: object) -> str:
    """Write a value in short, as a spec has it."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        more = [f".. {len(value) - SHOWN} more"] if len(value) > SHOWN + 1 else []
        first = value[:SHOWN] if more else value
        return "[" + ", ".join([*map(_toml, first), *more]) + "]"
    return f"{value:.6g}" if isinstance(value, float) else json.dumps(value)
