"""What each input of a graph is made of, with every default of its spec filled in."""

from typing import Any

from din_infer.spec import (
    Behavior,
    Dense,
    Encoder,
    FeatureSpec,
    MultiHot,
    ReadColumn,
    Scale,
)

__all__ = ["inputs_of_spec"]


def inputs_of_spec(spec: FeatureSpec) -> dict[str, Any]:
    """Return what each input of the graph is made of, and scores of the logit.

    Returns
    -------
    dict
        `inputs`, in the graph's order, and `link`, `scale` and `offset` of the score.
        docs/without-python.md says what each key means.
    """
    reads: dict[str, list[ReadColumn]] = {}
    for column in spec.reads:
        for i in column.inputs:
            reads.setdefault(i.name, []).append(column)
    found = []
    for i in spec.inputs[:-1]:
        columns = reads[i.name]
        part = columns[0].part
        one: dict[str, Any] = {"name": i.name, "dtype": i.dtype, "side": part.side}
        if isinstance(part, Dense):
            one |= {"kind": "dense", "columns": [_column(columns[0])], "dim": part.dim}
            one |= {"missing": part.missing, "scale": _scale(part.scale)}
        elif i.rows is None:
            one["kind"] = "lengths"
        else:
            one |= {"kind": "ids", "columns": [_column(c) for c in columns]}
            one |= {"encoder": _encoder(_own_encoder(spec, i.name))}
        if isinstance(part, Behavior | MultiHot):
            one["list"] = _list(part)
        found.append(one)
    found.append({"name": spec.inputs[-1].name, "dtype": "int64", "kind": "requests"})
    c = spec.calibration
    score = {"link": spec.model.link, "scale": c.scale, "offset": c.offset}
    return {"inputs": found, **score}


def _own_encoder(spec: FeatureSpec, name: str) -> Encoder:
    parts = (*spec.user, *spec.candidate, *spec.multi_hot)
    fields = (*parts, *(f for s in spec.behavior for f in s.own_fields))
    return next(f.encoder for f in fields if f.name == name)


def _column(column: ReadColumn) -> dict[str, Any]:
    found: dict[str, Any] = {"name": column.name, "dtype": column.dtype}
    encoder = column.encoder
    if encoder is not None and encoder.type == "hash" and column.dtype != "string":
        found["hashed_as"] = encoder.int_as
    if encoder is not None and encoder.uuid_as:
        found["uuid_as"] = encoder.uuid_as
    if column.text is not None:
        separator = column.text.separator
        text = {"format": "json"} if separator is None else {"separator": separator}
        found["text"] = text
    return found


def _encoder(e: Encoder) -> dict[str, Any]:
    found: dict[str, Any] = {"type": e.type, "rows": e.rows}
    if e.type == "hash":
        seeds = e.seed if isinstance(e.seed, tuple) else (e.seed,)
        found |= {
            "hash": e.hash,
            "seed": [str(s) for s in seeds],
            "reduce": e.reduce,
            "buckets": e.rows // 2 if e.alternate_sign else e.rows,
            "alternate_sign": e.alternate_sign,
            "prefix": e.prefix,
            "mask_value": _text(e.mask_value),
            "together": bool(e.columns),
        }
    elif e.type == "vocab":
        ids = {"row": e.rows - 1, "missing": 0}
        found |= {"values": [_text(v) for v in e.values], "unseen": ids.get(e.unseen)}
    elif e.type == "identity":
        found["unseen"] = 0 if e.unseen == "missing" else None
    else:
        found["boundaries"] = list(e.boundaries)
    return found


def _list(part: Behavior | MultiHot) -> dict[str, Any]:
    first = part.reads[0]
    return {
        "name": part.name,
        "max_len": part.max_len,
        "padding": part.padding,
        "order": getattr(part, "order", "oldest_first"),
        "pad_value": _text(part.pad_value),
        "pad_inside": part.pad_inside,
        "first_column": _column(first),
        "length_column": part.length_column,
    }


def _scale(scale: Scale | None) -> dict[str, Any] | None:
    if scale is None or scale.type == "none":
        return None
    if scale.type == "quantile":
        return {"type": scale.type, "boundaries": [list(b) for b in scale.boundaries]}
    shift, divisor = list(scale.low), list(scale.spread)
    return {"type": scale.type, "shift": shift, "divisor": divisor}


def _text(value: str | int | None) -> str | None:
    """Write an integer as its decimal text: JavaScript has only those of 53 bits."""
    return None if value is None else str(value)
