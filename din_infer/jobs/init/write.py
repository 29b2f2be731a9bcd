"""A guess as the text of a feature spec, with the reason of each line beside it."""

import json
import math
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from din_infer.jobs.init.columns import Column
from din_infer.jobs.init.roles import BehaviorSequence, Guess, Role

__all__ = ["explain", "toml"]

# 16 even for few values: with 8 for 500 items and 15 categories, the validation AUC of
# three seeds was 0.620, 0.602, 0.616; with 16 it was 0.633, 0.633, 0.639.
DIMS = (16, 32)
# Buckets per distinct key, by how many keys there are: 1 % of 1,000 keys share a row in
# 100,000 buckets, 10 % of more in ten times their number (docs/model.md has the table).
ROOMY, ROOM, KEYS = 100, 10, 1_000
FEWEST_BUCKETS = 1_000
# Above this ratio of the 99th percentile to the median, numbers are taken by logarithm.
HEAVY_TAIL = 10
WIDTH = 88


def toml(made: Guess, source: str, rows: int, whole: bool) -> str:
    """Write the spec.

    Parameters
    ----------
    made : Guess
    source : str
        What was read, for the first line.
    rows : int
        How many rows were looked at.
    whole : bool
        Whether these are all.
    """
    looked = f"all {rows:,} rows" if whole else f"the first {rows:,} rows"
    lines = _comment(f"Written by din-init, from {looked} of {source}. Every line is a")
    lines += _comment("guess from the data, with its reason: change what is wrong.")
    lines += ["format = 1"]
    for name, means in (
        ("label", ""),
        ("group", "AUC is measured within each user, too: GAUC"),
        ("time", ""),
        ("weight", ""),
    ):
        for found in made.named(name):
            said = "; ".join(filter(None, (found.why, means)))
            lines.append(f"{name} = {_text(found.column.name)}  # {_shown(said)}")
    shared = _keys_of_tables(made)
    for role in made.named("field"):
        more = shared.get(role.column.name)
        lines += ["", f"[[{role.side}]]", *_named(role, made)]
        lines += _encoder(role.column, more)
    for sequence in made.sequences:
        lines += ["", *_behavior(sequence, made)]
    for role in made.named("multi_hot"):
        lines += ["", "[[multi_hot]]", *_named(role, made), *_multi_hot(role)]
    for role in made.named("dense"):
        lines += ["", "[[dense]]", *_named(role, made), *_dense(role)]
    lines += ["", "[model]"]
    lines.append('attention = { hidden = [80, 40], activation = "dice" }')
    lines.append('tower = { hidden = [200, 80], activation = "dice" }')
    unread = made.named("none")
    if unread:
        lines += ["", *_comment("Columns that the model does not read:")]
        lines += [f"#   {_shown(f'{r.column.name}: {r.why}')}" for r in unread]
    return "\n".join(lines) + "\n"


def explain(made: Guess) -> str:
    """Return the guesses as a table: column, what it is for, why."""
    rows = []
    for role in made.roles:
        what = {"multi_hot": f"[[multi_hot]] of the {role.side}", "none": "not read"}
        what |= {"field": f"[[{role.side}]]", "dense": f"[[dense]] of the {role.side}"}
        what |= {"behavior": "[[behavior]]", "group": "group (user)"}
        if role.pairs:
            what["behavior"] += f" with {role.pairs}"
        row = (role.column.name, what.get(role.role, role.role), role.why)
        rows.append(tuple(map(_shown, row)))
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    return "\n".join(
        f"  {a:{widths[0]}}  {b:{widths[1]}}  {c}".rstrip() for a, b, c in rows
    )


def _comment(text: str) -> list[str]:
    return [f"# {_shown(text)}"]


def _shown(text: str) -> str:
    """Write a text on one line, as a comment may hold it."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _named(role: Role, made: Guess) -> list[str]:
    """Return the line of a field's name, and of its column if that is another."""
    column = role.column.name
    lines = [f"name = {_text(made.names[column])}  # {_shown(role.why)}"]
    return lines + [f"column = {_text(column)}"] * (made.names[column] != column)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _text(name)


def _keys_of_tables(made: Guess) -> dict[str, pa.Array]:
    """Collect the keys of each candidate field with those of its histories."""
    found: dict[str, list[pa.Array]] = {}
    for role in made.named("behavior"):
        if role.pairs:
            found.setdefault(role.pairs, []).append(role.column.keys())
    return {name: pa.concat_arrays(keys) for name, keys in found.items()}


def _encoder(column: Column, more: pa.Array | None = None) -> list[str]:
    """Return the lines of dtype, dim and encoder of a column of ids."""
    keys = column.keys()
    if more is not None:
        keys = pc.unique(pa.concat_arrays([keys, more]))
    many = len(keys)
    buckets = _round(max(FEWEST_BUCKETS, many * (ROOMY if many <= KEYS else ROOM)))
    root = math.ceil(many**0.25)
    dim = next((d for d in DIMS if d >= root), DIMS[-1])
    collide = 1 - (1 - 1 / (buckets - 1)) ** (many - 1)
    said = f"{many:,} values, of which {collide:.1%} share a bucket"
    encoder = f'encoder = {{ type = "hash", buckets = {buckets:_} }}  # {said}'
    return [f'dtype = "{column.dtype}"', f"dim = {dim}", encoder]


def _round(number: int) -> int:
    """Round up to two digits."""
    power: int = 10 ** max(0, len(str(number)) - 2)
    return -(-number // power) * power


def _form(column: Column) -> str:
    """Return the key that says how lists are written in text, if they are."""
    if not column.form:
        return ""
    if column.form == "json":
        return 'format = "json"'
    return f"separator = {_text(column.form)}"


def _behavior(sequence: BehaviorSequence, made: Guess) -> list[str]:
    lines = ["[[behavior]]", f"name = {_text(sequence.name)}"]
    lines.append(f"max_len = {sequence.max_len}  # the newest are kept")
    lines.append(f'order = "{sequence.order}"  # {sequence.why}')
    if sequence.pad_value is not None:
        lines.append(f"pad_value = {_text(sequence.pad_value)}  # fills the lists up")
    forms = {_form(role.column) for role in sequence.roles}
    common = next(iter(forms)) if len(forms) == 1 else ""
    if common:
        lines.append(f"{common}  # between the elements of lists in text")
    lines.append("[behavior.fields]")
    for role in sequence.roles:
        column = role.column
        name = made.names[column.name]
        own = [] if common else [_form(column)]
        own += [f"column = {_text(column.name)}"] * (name != column.name)
        own = list(filter(None, own))
        if role.pairs and not own:
            value = _text(made.names[role.pairs])
        elif role.pairs:
            parts = [f"pairs = {_text(made.names[role.pairs])}", *own]
            value = "{ " + ", ".join(parts) + " }"
        elif column.kind == "number" or (column.kind == "whole" and _is_amount(column)):
            bounds = "boundaries = { quantiles = 20 }"
            parts = ["dim = 8", f'encoder = {{ type = "bucketize", {bounds} }}', *own]
            value = "{ " + ", ".join(parts) + " }"
        else:
            dtype, dim, encoder = _encoder(column)
            parts = [dtype, dim, encoder.partition("  #")[0], *own]
            value = "{ " + ", ".join(parts) + " }"
        lines.append(f"{_key(name)} = {value}  # {_shown(role.why)}")
    return lines


def _is_amount(column: Column) -> bool:
    return len(column.distinct) > 100


def _multi_hot(role: Role) -> list[str]:
    column = role.column
    lengths = np.asarray(column.lengths)
    most = max(1, int(np.quantile(lengths, 0.999)) if len(lengths) else 1)
    dtype, dim, encoder = _encoder(column)
    lines = [f'side = "{role.side}"', dtype, dim, 'pooling = "mean"']
    lines.append(f"max_len = {_round(most)}")
    if _form(column):
        lines.append(_form(column))
    return [*lines, encoder]


def _dense(role: Role) -> list[str]:
    column = role.column
    numbers = column.numbers()
    lines = [f'side = "{role.side}"']
    size = int(column.lengths[0]) if column.lengths is not None else 1
    lines.append(f"dim = {size}")
    if column.form:
        lines.append(_form(column))
    low, middle, high = (
        np.quantile(numbers, (0, 0.5, 0.99)) if len(numbers) else (0,) * 3
    )
    kind = "standard"
    why = (
        f"from {numbers.min():g} to {numbers.max():g}" if len(numbers) else "no values"
    )
    if low >= 0 and high > HEAVY_TAIL * middle > 0:
        kind = "log1p"
        why += f", one in a hundred above {high:g}, half below {middle:g}"
    lines.append(f'scale = {{ type = "{kind}" }}  # {why}; din-train fits it')
    if len(numbers) < len(column.values):
        lost = 1 - len(numbers) / len(column.values)
        lines.append(
            f"missing = {middle:g}  # the median, for {lost:.1%} without a value"
        )
    return lines
