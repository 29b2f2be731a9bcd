"""recbole's DIN, from its checkpoint alone.

The file has the whole dataset besides the weights. The converted model contains the
items' vocabulary and attributes, which its forward pass looks up, and nothing of the
interactions or of the users.
"""

import math
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from din_converter.importers.description import plain_name
from din_converter.importers.recbole_dataset import (
    LAYER,
    PAD,
    Attribute,
    Saved,
    open_checkpoint,
)
from din_converter.importers.state import State, bare_keys, padding_row
from din_converter.importers.unpickle import read_pickle
from din_converter.model import ClickModel, key_of
from din_infer.errors import ConversionError

__all__ = ["read"]

EMPTY_MAXIMUM = -1e9


def read(
    path: str | os.PathLike[str],
    *,
    user_fields: Collection[str] = (),
    candidate_fields: Collection[str] = (),
) -> ClickModel:
    """Read a DIN that recbole 1.2 trained, without recbole.

    Parameters
    ----------
    path : path
        ``DIN-<date>.pth``, as recbole's trainer saved it.
    user_fields, candidate_fields : names
        recbole's DIN leaves no choice: the item is the candidate's, its history the
        user's. Anything else is an error.

    Returns
    -------
    ClickModel
        In evaluation mode. It takes external item ids, strings, in three columns: the
        item, the history and its length, which a batch of ragged lists may leave out.
        An item that the training data did not have is an `InputError`.

    Raises
    ------
    ConversionError
        If the file is no such checkpoint, or contradicts itself; all that is wrong is
        named.
    """
    place = str(path)
    content = read_pickle(Path(path))
    saved = open_checkpoint(content, place)
    chosen = [repr(n) for n in user_fields]
    chosen += [repr(n) for n in candidate_fields if n != saved.item]
    if chosen:
        rule = f"no field to move, since recbole's DIN reads items alone ({saved.item})"
        given = "user_fields" if user_fields else "candidate_fields"
        raise ConversionError(rule, ", ".join(chosen), given)
    state = State(bare_keys(content["state_dict"]), "recbole", place)
    return state.fill(_build(saved, state))


def _build(saved: Saved, state: State) -> dict[str, Any]:
    """Write the spec, and take the weights."""
    for key in state.keys:
        if key.startswith(LAYER) and "_embedding_table.user." in key:
            state.ignore(key)  # never reaches the output
    tables: dict[str, Tensor] = {}
    for a in saved.attributes:
        sizes = [b.rows for b in saved.attributes if b.table == a.table]
        if a.table not in tables:
            tables[a.table] = state.take(a.table, sum(sizes), saved.dim)
    # the item first, since the others are looked up from it
    order = sorted(saved.attributes, key=lambda a: a.name != saved.item)
    taken: set[str] = set()
    sequence = plain_name("history", taken)
    sections: dict[str, Any] = {}
    derived: list[dict[str, Any]] = []
    fields: dict[str, Any] = {}
    item, history = plain_name(saved.item, taken), plain_name(saved.history, taken)
    for a in order:
        table = tables[a.table][a.first : a.first + a.rows]
        row = padding_row(table)
        if a is order[0]:
            # the vocabulary's row for unseen values, which unseen = "error" never reads
            table = torch.cat([table, table.new_zeros(1, saved.dim)])
            encoder = {"type": "vocab", "values": saved.tokens, "unseen": "error"}
            sections["candidate"] = [
                {"name": item, "column": saved.item, "dim": saved.dim}
                | {"padding_row": row, "encoder": encoder}
            ]
            fields[history] = {"pairs": item, "column": saved.history}
            state.weights[f"tables.{key_of(item)}.weight"] = table
            continue
        name = plain_name(a.name, taken)
        entry = {"name": name, "from": item, "dim": saved.dim, "padding_row": row}
        derived.append(entry | _lookup(a, saved.pooling))
        fields[plain_name(f"{a.name}_of_history", taken)] = {
            "pairs": name,
            "from": history,
        }
        state.weights[f"tables.{key_of(name)}.weight"] = table
    columns = [
        saved.attributes.index(a) * saved.dim + i
        for a in order
        for i in range(saved.dim)
    ]
    _take_layers(saved, state, sequence, columns)
    behavior = {
        "name": sequence,
        "fields": fields,
        "max_len": saved.max_len,
        "pad_value": PAD,
        "length_column": saved.length,
    }
    hidden = list(saved.hidden)
    sections |= {
        "format": 1,
        "derived": derived,
        "behavior": [behavior],
        "model": {
            "link": "sigmoid",
            "attention": {
                "hidden": hidden,
                "activation": "sigmoid",
                "scale": 1 / math.sqrt(len(columns)),
            },
            "tower": {
                "hidden": hidden,
                "activation": "silu",
                "batch_norm": True,
                "inputs": [sequence, f"{sequence}.query", f"{sequence}.product"],
            },
        },
    }
    return sections


def _lookup(a: Attribute, pooling: str) -> dict[str, Any]:
    """Write an attribute's constants; one row more, of the vocabulary's last."""
    out: dict[str, Any] = {"encoder": {"type": "identity", "buckets": a.rows}}
    ids: list[Any] = a.ids.tolist()
    values = None if a.values is None else a.values.tolist()
    if a.is_list:
        kept = [[i for i, n in enumerate(row) if n] for row in ids]
        ids = [[row[i] for i in k] for row, k in zip(ids, kept, strict=True)]
        if values is not None:
            values = [[r[i] for i in k] for r, k in zip(values, kept, strict=True)]
        out["pooling"] = pooling
        out["empty"] = EMPTY_MAXIMUM if pooling == "max" else 0.0
    out["lookup"] = [*ids, []]
    if values is not None:
        out["weights"] = [*values, []]
    return out


def _take_layers(saved: Saved, state: State, sequence: str, columns: list[int]) -> None:
    """Take both MLPs; the first layer's inputs are put in our order of the fields."""
    width = len(columns)
    unit = f"attentions.{key_of(sequence)}.mlp"
    for ours, theirs, blocks, step in (
        (unit, "attention.att_mlp_layers.mlp_layers", 4, 3),
        ("tower", "dnn_mlp_layers.mlp_layers", 3, 4),
    ):
        size = blocks * width
        for i, units in enumerate(saved.hidden):
            at, place = f"{ours}.hidden.{i}", 1 + step * i  # behind a Dropout
            state.copy_linear(f"{at}.linear", f"{theirs}.{place}", units, size)
            if i == 0:
                first = state.weights[f"{at}.linear.weight"]
                first = first.reshape(units, blocks, width)[:, :, columns].flatten(1)
                state.weights[f"{at}.linear.weight"] = first
            if ours == "tower":
                state.copy_norm(f"{at}.norm", f"{theirs}.{place + 1}", units)
            size = units
        end = "attention.dense" if blocks == 4 else "dnn_predict_layers"
        state.copy_linear(f"{ours}.output", end, 1, size)
