"""A model's weights taken over by one of the next day, whose ids mean the same."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch

from din_converter.model import ClickModel, key_of
from din_infer.errors import ModelError
from din_infer.formatting import shorten
from din_infer.spec import Behavior, Encoder, FeatureSpec

__all__ = ["copy_weights"]

# What weights mean is the same, whatever these say.
FREE = ("dropout", "max_len", "lookup", "weights")
PARTS = ("user", "candidate", "derived", "multi_hot", "dense", "behavior")
SHOWN = 40  # characters of a value


def copy_weights(start: ClickModel, model: ClickModel) -> None:
    """Take the weights of a model whose ids and layers mean the same.

    Parameters
    ----------
    start : DIN or BaseModel
        Its spec may differ in label, weight, group, time, calibration, dropout,
        `max_len` and lookups of derived fields, and in the values of vocabularies.
        Scales that are left open are the model's already: `adopt_constants`.
    model : DIN or BaseModel
        Changed in place. A value that only its own vocabulary has keeps the row that
        was drawn for it.

    Raises
    ------
    ModelError
        If the specs differ in anything else; all of it is named.
    """
    differ = list(dict.fromkeys(_between(start.spec, model.spec)))
    if differ:
        rule = "a model of the same spec, whose ids mean the same"
        raise ModelError(rule, "; ".join(differ), "warm start")
    state = start.state_dict()
    of_old, of_new = _encoders(start.spec), _encoders(model.spec)
    for name, new in of_new.items():
        if new.type == "vocab" and of_old[name].values != new.values:
            key = f"tables.{key_of(name)}.weight"
            state[key] = _moved(state[key], of_old[name], model.state_dict()[key], new)
    model.load_state_dict(state)


def _moved(
    rows: torch.Tensor, old: Encoder, drawn: torch.Tensor, new: Encoder
) -> torch.Tensor:
    """Return a table by the new vocabulary: missing values first, unseen ones last."""
    place = {value: row for row, value in enumerate(old.values, 1)}
    pairs = [(place.get(v), row) for row, v in enumerate(new.values, 1)]
    known = [(was, row) for was, row in pairs if was is not None]
    known += [(0, 0), (len(rows) - 1, len(drawn) - 1)]
    table = drawn.clone()
    was, now = torch.tensor(known).T
    table[now] = rows[was].to(table.dtype)
    return table


def _encoders(spec: FeatureSpec) -> dict[str, Encoder]:
    """Return the encoder of each table."""
    parts = (*spec.user, *spec.candidate, *spec.derived, *spec.multi_hot)
    found = {f.table: f.encoder for s in spec.behavior for f in s.fields}
    return found | {f.table: f.encoder for f in parts}


def _between(old: FeatureSpec, new: FeatureSpec) -> Iterator[str]:
    """Name each difference that gives weights another meaning."""
    of_model = list(_of_values(old.model, new.model, "model"))
    yield from of_model
    for kind in PARTS:
        was, now = ({p.name: p for p in getattr(s, kind)} for s in (old, new))
        for text in _of_named(was, now, kind):
            # a sequence has the model's attention, unless it says otherwise
            _, attention, rest = text.partition(".attention.")
            if f"model{attention}{rest}" not in of_model:
                yield text
    grown = {n for n, e in _encoders(new).items() if e.type == "vocab"}
    was, now = (
        {n: replace(t, rows=0) if n in grown else t for n, t in s.tables.items()}
        for s in (old, new)
    )
    yield from _of_named(was, now, "table")
    if old.tower_inputs != new.tower_inputs:
        texts = [", ".join(map(_part, s.tower_inputs)) for s in (old, new)]
        yield f"model.tower.inputs {texts[0]} and now {texts[1]}"


def _part(part: Any) -> str:  # noqa: ANN401
    member = "" if part.kind in ("field", "interest") else f".{part.kind}"
    return f"{part.name}{member}[{part.start}:{part.stop}]"


def _of_named(
    old: Mapping[str, Any], new: Mapping[str, Any], kind: str
) -> Iterator[str]:
    for name in dict.fromkeys([*old, *new]):
        if name not in new:
            yield f"{kind} {name} and now none"
        elif name not in old:
            yield f"no {kind} {name} and now one"
        else:
            yield from _of_values(old[name], new[name], f"{kind} {name}")


def _of_values(old: Any, new: Any, place: str) -> Iterator[str]:  # noqa: ANN401
    if old == new:
        return
    if not is_dataclass(type(old)) or type(old) is not type(new):
        shown = [shorten(_text(v), SHOWN) for v in (old, new)]
        yield f"{place} {shown[0]} and now {shown[1]}"
        return
    free: tuple[str, ...] = FREE
    if isinstance(old, Encoder) and old.type == new.type == "vocab":
        free = (*FREE, "values", "rows")
    if isinstance(old, Behavior):
        was, now = ({f.name: f for f in part.fields} for part in (old, new))
        yield from _of_named(was, now, f"{place}.field")
        free = (*FREE, "fields")
    for f in fields(old):
        if f.name not in free:
            values = (getattr(old, f.name), getattr(new, f.name))
            yield from _of_values(*values, f"{place}.{f.name}")


def _text(value: object) -> str:
    return str(list(value)) if isinstance(value, tuple) else repr(value)
