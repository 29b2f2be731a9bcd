"""FuxiCTR 2.x's DIN, from the files that its training leaves.

There are two: the classic one of model_zoo/DIN, and LongCTR's, whose candidate is the
last item of its history. Their keys differ, and so do their tower's inputs.
"""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from din_converter.importers.description import plain_name
from din_converter.importers.fuxictr_config import Layers, Settings, read_config
from din_converter.importers.fuxictr_files import (
    Feature,
    read_features,
    read_state,
    read_vocabularies,
)
from din_converter.importers.fuxictr_units import (
    Units,
    classic_units,
    long_units,
    sides_of,
)
from din_converter.importers.state import NORM, State, padding_row
from din_converter.model import ClickModel, key_of

__all__ = ["read"]

CLASSIC = "embedding_layer.embedding_layers."
LONG = "embedding_layer.embedding_layer.embedding_layers."
DICE_EPSILON = 1e-9


def read(
    path: str | os.PathLike[str],
    *,
    feature_map: str | os.PathLike[str],
    model_config: str | os.PathLike[str],
    feature_vocab: str | os.PathLike[str] | None = None,
    experiment: str | None = None,
    user_fields: Collection[str] = (),
    candidate_fields: Collection[str] = (),
) -> ClickModel:
    """Read a DIN that FuxiCTR 2.x trained, without FuxiCTR.

    Parameters
    ----------
    path : path
        ``<experiment>.model``, a state_dict.
    feature_map, model_config, feature_vocab, experiment, user_fields, candidate_fields
        As `convert` takes them. Without `experiment`, the one named as `path` is taken,
        else the only one. Without fields, a feature is on the side of its ``source``;
        else targets and numbers are the candidate's, all others the user's.

    Returns
    -------
    ClickModel
        In evaluation mode. Columns have the features' names; of LongCTR the candidate
        is ``f`` and its history ``hist_f``. What becomes of padding, of long lists and
        of empty strings: docs/fuxictr.md.

    Raises
    ------
    ConversionError
        If a file is not what it should be, the files contradict each other, or the
        model computes what cannot be reproduced; all that is wrong is named.
    """
    path = Path(path)
    tensors = read_state(path)
    settings = read_config(Path(model_config), experiment, path.stem)
    features = read_features(Path(feature_map), settings)
    vocabularies = (
        {}
        if feature_vocab is None
        else read_vocabularies(Path(feature_vocab), features)
    )
    is_long = any(key.startswith(LONG) for key in tensors)
    place = str(feature_map)
    if is_long:
        units = long_units(features, place)
    else:
        units = classic_units(features, settings, place)
    sides = sides_of(units, features, user_fields, candidate_fields)
    state = State(tensors, "FuxiCTR", str(path))
    builder = _Builder(state, settings, features, vocabularies, is_long=is_long)
    return state.fill(builder.build(units, sides))


# ----------------------------------------------------------------- spec and weights


class _Builder:
    """Writes the spec section by section, and takes the weights."""

    def __init__(
        self,
        state: State,
        settings: Settings,
        features: Mapping[str, Feature],
        vocabularies: Mapping[str, list[str]],
        *,
        is_long: bool,
    ) -> None:
        self.state, self.settings, self.features = state, settings, features
        self.vocabularies, self.is_long = vocabularies, is_long
        self.weights = state.weights
        self.taken: set[str] = set()  # names in the spec
        self.owners: dict[str, str] = {}  # of tables: feature -> name in the spec
        self.pad_value: str | int = "" if vocabularies else 0
        self.tables = self._tables(LONG if is_long else CLASSIC)

    def _tables(self, prefix: str) -> dict[str, Tensor]:
        """Take every feature's table; the checkpoint has a shared one several times."""
        tables: dict[str, Tensor] = {}
        for f in self.features.values():
            key = f"{prefix}{f.name}.weight"
            shape = (f.dim, 1) if f.type == "numeric" else (f.rows, f.dim)
            tables[f.name] = self.state.take(key, *shape)
            if f.is_pretrained and key not in self.state:
                got = f"{f.name} with a pretrained embedding"
                self.state.fault(f"{got}, which is more than a table")
            owner = f"{prefix}{f.owner}.weight"
            both = key in self.state and owner in self.state
            if both and not torch.equal(tables[f.name], tables[f.owner]):
                self.state.fault(f"{key} other than {owner}, whose table it shares")
        return tables

    def name(self, feature: str) -> str:
        """Give a feature a name that the format allows; its column keeps its own."""
        return plain_name(feature, self.taken)

    def table(self, f: Feature, name: str) -> dict[str, Any]:
        """Write the table of a feature, or with which earlier one it is shared."""
        if f.owner in self.owners:
            return {"shares": self.owners[f.owner]}
        self.owners[f.owner] = name
        weight = self.tables[f.owner]
        self.weights[f"tables.{key_of(name)}.weight"] = weight
        encoder: dict[str, Any] = {"type": "identity", "buckets": f.rows}
        if self.vocabularies:
            values = self.vocabularies[f.owner]
            encoder = {"type": "vocab", "values": values, "unseen": "row"}
        return {"dim": f.dim, "padding_row": padding_row(weight), "encoder": encoder}

    def build(self, units: Units, sides: Mapping[str, str]) -> dict[str, Any]:
        """Write everything; the order of the sections is that of the format."""
        spec: dict[str, Any] = {
            s: [] for s in ("user", "candidate", "dense", "behavior", "multi_hot")
        }
        parts: dict[str, str] = {}  # feature -> its part of the tower's input
        for side in ("user", "candidate"):
            for f in self.features.values():
                if f.type == "categorical" and sides[f.name] == side:
                    parts[f.name] = name = self.name(f.name)
                    entry = {"name": name, "column": f.name, **self.table(f, name)}
                    spec[side].append(entry)
        for i, (targets, sequences) in enumerate(units):
            entry, chunks = self.behavior(i, targets, sequences, parts, len(units) > 1)
            spec["behavior"].append(entry)
            if not self.is_long:
                parts |= dict(zip(sequences, chunks, strict=True))
        for f in self.features.values():
            if f.name in parts:
                continue
            parts[f.name] = name = self.name(f.name)
            entry = {"name": name, "column": f.name, "side": sides[f.name]}
            if f.type == "numeric":
                spec["dense"].append(entry | {"project": f.dim})
                self.weights[f"projections.{key_of(name)}.weight"] = self.tables[f.name]
            else:
                spec["multi_hot"].append(entry | self.pooled(f, name))
        inputs = [parts[name] for name in self.features]
        width = sum(f.dim for f in self.features.values())
        if self.is_long:
            targets = units[0][0]
            inputs = [parts[n] for n in self.features if n not in targets]
            inputs += ["history.query", "history"]
            width += sum(self.features[n].dim for n in targets)
        tower = self.mlp("tower", "dnn.mlp.", width, self.settings.tower)
        spec["format"] = 1
        spec["model"] = {
            "link": self.settings.link,
            "tower": {**tower, "inputs": inputs},
        }
        return spec

    def behavior(
        self,
        i: int,
        targets: tuple[str, ...],
        sequences: tuple[str, ...],
        parts: Mapping[str, str],
        is_one_of_many: bool,
    ) -> tuple[dict[str, Any], list[str]]:
        """Write one attention unit, and the pooled vector as FuxiCTR cuts it."""
        own = [self.features[n] for n in sequences]
        name = self.name(f"history_{targets[0]}" if is_one_of_many else "history")
        # by position in the concatenated vectors, where dims differ between the two
        by_position = any(
            self.features[t].dim != f.dim for t, f in zip(targets, own, strict=True)
        )
        fields: dict[str, Any] = {}
        for t, f in zip(targets, own, strict=True):
            column = f"hist_{f.name}" if self.is_long else f.name
            field = self.name(column)
            fields[field] = {"column": column, **self.table(f, field)}
            if not by_position:
                fields[field]["pairs"] = parts[t]
        unit = "attention_layers." if self.is_long else f"attention_layers.{i}."
        settings = self.settings
        layers = self.mlp(
            f"attentions.{key_of(name)}.mlp",
            f"{unit}attention_layer.mlp.",
            4 * sum(f.dim for f in own),
            settings.attention,
        )
        entry = {
            "name": name,
            "fields": fields,
            "max_len": settings.max_len if self.is_long else own[0].max_len,
            "pad_value": self.pad_value,
            "pad_inside": "dropped",
            "attention": {
                **layers,
                "softmax": settings.softmax,
                "output_activation": settings.output_activation,
            },
        }
        if by_position:
            entry["query"] = [parts[t] for t in targets]
        if not self.is_long:
            first = own[0].keeps == "first"
            entry["order"] = "newest_first" if first else "oldest_first"
        if settings.softmax and any(self.tables[f.name][0].any() for f in own):
            entry["empty_softmax"] = "padding_row"
        dim = settings.dim
        chunks = [f"{name}[{k * dim}:{(k + 1) * dim}]" for k in range(len(own))]
        return entry, [name] if len(own) == 1 else chunks

    def pooled(self, f: Feature, name: str) -> dict[str, Any]:
        """Write a sequence that is pooled; a trained padding row is pooled too."""
        table = self.tables[f.name]
        if f.pooling == "mean" and not table[1:].sum(-1).all():
            row = 1 + int((table[1:].sum(-1) == 0).nonzero()[0])
            got = f"row {row} of {f.name}'s table sums to 0"
            self.state.fault(f"{got}, which MaskedAveragePooling takes for padding")
        counts = bool(table[:1].any())
        return {
            "pooling": f.pooling,
            "max_len": f.max_len,
            "pad_value": self.pad_value,
            "pad_inside": "dropped",
            "padding": "attended" if counts else "masked",
            **self.table(f, name),
        }

    def mlp(self, ours: str, theirs: str, width: int, layers: Layers) -> dict[str, Any]:
        """Take an MLP_Block's tensors; its places count only the modules it has."""
        state, place = self.state, 0
        # the DIN of FuxiCTR 2.0.0 also normalizes in its attention
        norm = layers.batch_norm or f"{theirs}1.running_mean" in state
        for i, units in enumerate(layers.hidden):
            at = f"{ours}.hidden.{i}"
            state.copy_linear(f"{at}.linear", f"{theirs}{place}", units, width)
            place += 1
            if norm:
                state.copy_norm(f"{at}.norm", f"{theirs}{place}", units)
                place += 1
            act, key = f"{at}.activation", f"{theirs}{place}"
            if layers.activation == "dice":
                state.copy(f"{act}.alpha", f"{key}.alpha", units)
                state.copy_norm(f"{act}.norm", f"{key}.bn", units, NORM[2:])
            elif layers.slope is not None:
                self.weights[f"{act}.weight"] = torch.tensor(layers.slope)
            elif layers.activation == "prelu":
                state.copy(f"{act}.weight", f"{key}.weight", units)
            place += layers.has_module + layers.has_dropout[i]
            width = units
        state.copy_linear(f"{ours}.output", f"{theirs}{place}", 1, width)
        out = {
            "hidden": list(layers.hidden),
            "activation": layers.activation,
            "batch_norm": norm,
        }
        if layers.activation == "dice":
            out["dice_epsilon"] = DICE_EPSILON
        return out
