"""What a model takes, as a table to print."""

from collections.abc import Sequence

from din_infer.spec import ANY_LENGTH, Encoder, FeatureSpec, Input

__all__ = ["describe", "describe_inputs"]


def describe_inputs(inputs: Sequence[Input]) -> str:
    """Lay out the inputs of a converted torch module as a table to print."""
    rows = [("input", "dtype", "shape", "values")]
    for i in inputs:
        values = "" if i.rows is None else f"id in 0..{i.rows - 1:,}"
        rows.append((i.name, i.dtype, str(list(i.shape)).replace("'", ""), values))
    return _table(rows)


def describe(spec: FeatureSpec) -> str:
    """Lay out the columns of a spec as a table to print."""
    rows = [("column", "type", "given per", "becomes")]
    sides = {"user": "request", "candidate": "candidate"}
    rows += [
        (f.column, f.dtype, sides[f.side], _describe_encoder(f.encoder))
        for f in (*spec.user, *spec.candidate)
    ]
    for s in spec.behavior:
        for b in s.fields:
            if b.source is None:
                kept = "all" if s.max_len == ANY_LENGTH else f"newest {s.max_len}"
                what = f"{_describe_encoder(b.encoder)}, {kept} of {s.name}"
                rows.append((b.column, f"list of {b.dtype}", "request", what))
        if s.length_column:
            what = _describe_length(spec, s.length_column, s.name)
            rows.append((s.length_column, "int64", "request", what))
    for m in spec.multi_hot:
        most = "all" if m.max_len == ANY_LENGTH else f"up to {m.max_len}"
        what = f"{_describe_encoder(m.encoder)}, {m.pooling} of {most}"
        rows.append((m.column, f"list of {m.dtype}", sides[m.side], what))
        if m.length_column:
            what = _describe_length(spec, m.length_column, m.name)
            rows.append((m.length_column, "int64", sides[m.side], what))
    for d in spec.dense:
        kind = "float" if d.dim == 1 else f"list of {d.dim} floats"
        what = "as is" if d.missing is None else f"as is, missing = {d.missing:g}"
        rows.append((d.column, kind, sides[d.side], what))
    return _table(rows)


def _table(rows: list[tuple[str, str, str, str]]) -> str:
    """Lay out four columns under a ruled header."""
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = []
    for k, row in enumerate(rows):
        cells = [cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)]
        lines.append("  ".join([*cells, row[3]]))
        if k == 0:
            lines.append(
                "  ".join("-" * w for w in (*widths, max(len(r[3]) for r in rows)))
            )
    return "\n".join(lines)


def _describe_length(spec: FeatureSpec, column: str, name: str) -> str:
    optional = " (optional)" if column in spec.optional_columns else ""
    return f"length of {name}{optional}"


def _describe_encoder(encoder: Encoder) -> str:
    if encoder.type == "hash":
        return f"{encoder.hash} into {encoder.rows:,} buckets"
    if encoder.type == "vocab":
        return f"vocabulary of {len(encoder.values):,}"
    if encoder.type == "identity":
        return f"id in 0..{encoder.rows - 1:,}"
    return f"{len(encoder.boundaries) + 1} intervals"
