"""What a model takes, as a table to print."""

from collections.abc import Sequence

from din_infer.spec import (
    ANY_LENGTH,
    Behavior,
    Dense,
    Encoder,
    FeatureSpec,
    Input,
    MultiHot,
    ReadColumn,
)

__all__ = ["describe", "describe_inputs"]


def describe_inputs(inputs: Sequence[Input]) -> str:
    """Lay out the inputs of a converted torch module as a table to print."""
    rows = [("input", "dtype", "shape", "values")]
    for i in inputs:
        values = "" if i.rows is None else f"id in 0..{i.rows - 1:,}"
        rows.append((i.name, i.dtype, str(list(i.shape)).replace("'", ""), values))
    return "\n".join([_table(rows), *_fixed_sizes(inputs)])


def _fixed_sizes(inputs: Sequence[Input]) -> list[str]:
    """Say what a module fixes: the batch, or how many ids a row has."""
    lines = []
    first = [i.shape[0] for i in inputs if i.shape]
    if first and all(isinstance(n, int) for n in first):
        lines.append(f"The module fixes the batch: N is {max(map(int, first))}.")
    lines += [
        f"The module fixes {i.name}: {i.shape[1]} ids in every row."
        for i in inputs
        if i.dtype.startswith("int")
        and len(i.shape) > 1
        and isinstance(i.shape[1], int)
    ]
    return lines


def describe(spec: FeatureSpec) -> str:
    """Lay out the columns of a spec as a table to print."""
    rows = [("column", "type", "given per", "becomes")]
    sides = {"user": "request", "candidate": "candidate"}
    for c in spec.reads:
        kind = c.dtype
        if c.is_list:
            kind = f"list of {kind}" if c.size is None else f"list of {c.size} floats"
        if c.text is not None:
            separator = c.text.separator
            kind += ", or JSON" if separator is None else f", or text by {separator!r}"
        rows.append((c.name, kind, sides[c.side], _describe_column(spec, c)))
    return _table(rows)


def _table(rows: list[tuple[str, str, str, str]]) -> str:
    """Lay out four columns under a ruled header."""
    a, b, c, d = (max(map(len, column)) for column in zip(*rows, strict=True))
    rows.insert(1, ("-" * a, "-" * b, "-" * c, "-" * d))
    return "\n".join(f"{w:{a}}  {x:{b}}  {y:{c}}  {z}" for w, x, y, z in rows)


def _describe_column(spec: FeatureSpec, column: ReadColumn) -> str:
    """Say what becomes of a column's values."""
    part = column.part
    if isinstance(part, Dense):
        more = "" if part.missing is None else f", missing = {part.missing:g}"
        return _describe_scale(part) + more
    if column.encoder is None:
        optional = " (optional)" if column.name in spec.optional_columns else ""
        return f"length of {part.name}{optional}"
    what = _describe_encoder(column.encoder)
    if column.encoder.is_seeded:
        together = [c.name for c in part.reads if c.inputs[0] == column.inputs[0]]
        what += f" with {', '.join(n for n in together if n != column.name)}"
    if column.encoder.uuid_as is not None:
        what += f" (UUIDs as {column.encoder.uuid_as})"
    if isinstance(part, Behavior):
        kept = "all" if part.max_len == ANY_LENGTH else f"newest {part.max_len}"
        what += f", {kept} of {part.name}"
    elif isinstance(part, MultiHot):
        most = "all" if part.max_len == ANY_LENGTH else f"up to {part.max_len}"
        what += f", {part.pooling} of {most}"
    return what


def _describe_scale(dense: Dense) -> str:
    scale = dense.scale
    if scale is None or scale.type == "none":
        return "as is"
    if not scale.is_fitted:
        return f"{scale.type} scale, to be fitted"
    if dense.dim > 1:
        return f"{scale.type} scale"
    if scale.type == "quantile":
        return f"quantile scale, {len(scale.boundaries[0])} boundaries"
    low, spread = scale.low[0], scale.spread[0]
    if scale.type == "minmax":
        return f"minmax scale, {low:g} to {low + spread:g}"
    return f"{scale.type} scale, mean = {low:g}, std = {spread:g}"


def _describe_encoder(encoder: Encoder) -> str:
    if encoder.type == "hash":
        masked = encoder.mask_value
        more = "" if masked is None else f", {masked!r} missing"
        of = f" of {encoder.prefix!r} + value" if encoder.prefix else ""
        into = f"{encoder.rows:,} buckets"
        if encoder.alternate_sign:
            into = f"2 x {encoder.rows // 2:,} buckets by sign"
        return f"{encoder.hash}{of} into {into}{more}"
    if encoder.type == "vocab":
        return f"vocabulary of {len(encoder.values):,}"
    if encoder.type == "identity":
        return f"id in 0..{encoder.rows - 1:,}"
    if encoder.quantiles:
        return f"{encoder.quantiles} intervals, to be fitted"
    return f"{len(encoder.boundaries) + 1} intervals"
