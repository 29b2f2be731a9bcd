"""torch-rechub 0.9.0: its DIN's state_dict, or the whole pickled model.

The library masks nothing: all of a history is attended, padding included. So lists are
attended as they are given, and are padded here only where that is exact.
"""

import os
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from din_converter.importers.description import (
    SIZE,
    Description,
    bare,
    choose_sides,
    plain_names,
)
from din_converter.importers.state import State, padding_row
from din_converter.importers.torch_rechub_files import (
    ACTIVATIONS,
    ATTENTION,
    IDENTITY,
    LIBRARY,
    MLP,
    TOP,
    Feature,
    describe_model,
    feature_tables,
    made_feature,
)
from din_converter.importers.whole_models import read_checkpoint
from din_converter.model import ClickModel
from din_infer.errors import ConversionError
from din_infer.spec import ANY_LENGTH

__all__ = ["read"]

LEAK = 0.01


def read(
    path: str | os.PathLike[str],
    description: str | os.PathLike[str] | None = None,
    *,
    user_fields: Iterable[str] = (),
    candidate_fields: Iterable[str] = (),
    max_len: int | None = None,
) -> ClickModel:
    """Read a DIN of torch-rechub.

    Parameters
    ----------
    path : path
        A state_dict, or a whole model as torch.save writes it.
    description, user_fields, candidate_fields, max_len
        As `convert` takes them. Without fields, what is attended is the candidate's,
        and what is a target only; all others are the user's. Without `max_len`, where
        padding counts, every list is scored just as it comes.

    Returns
    -------
    ClickModel
        In evaluation mode; its columns are the library's feature names.

    Raises
    ------
    ConversionError
        If a file is wrong, or the model cannot be reproduced exactly.
    """
    place = os.fspath(path)
    raw, place_of_raw, tensors = read_checkpoint(
        path, description, "features", describe_model
    )
    if max_len is not None and not SIZE.check(max_len):
        raise ConversionError(SIZE.rule, repr(max_len), "max_len")
    plan = _Plan(raw, place_of_raw, max_len)
    state = State(tensors, LIBRARY, place)
    found = {
        name: state.take(f"embedding.embed_dict.{name}.weight", *size)
        for name, size in plan.tables.items()
    }
    spec = plan.spec(found, user_fields, candidate_fields)
    _weigh(plan, state, found)
    return state.fill(spec)


# ---------------------------------------------------------------------- the features


class _Plan:
    """The roles of features, from a description that is checked whole."""

    def __init__(self, raw: object, place: str, max_len: int | None) -> None:
        found = Description(LIBRARY, place)
        top = found.take(raw, "", TOP)
        mlp = found.take(top.get("mlp_params", {}), "mlp_params", MLP)
        unit = found.take(
            top.get("attention_mlp_params", {}), "attention_mlp_params", ATTENTION
        )
        lists = ("features", "history_features", "target_features")
        tables = {n: feature_tables(found, n, top.get(n, ())) for n in lists}
        found.finish()
        self.hidden = [36] if unit["dims"] is None else list(unit["dims"])
        self.activation = bare(unit["activation"], IDENTITY)
        self.softmax = unit["use_softmax"]
        self.tower = list(mlp["dims"] or ())
        self.output_layer = mlp["output_layer"]
        owners: dict[str, dict[str, Any]] = {}
        for t in (t for n in lists for t in tables[n]):
            if t["shared_with"] is None:
                owners.setdefault(t["name"], t)
        made = {n: [made_feature(found, t, owners) for t in tables[n]] for n in lists}
        found.finish()
        self.features, self.histories, self.targets = made.values()
        self.tables = {f.table: (f.rows, f.dim) for part in made.values() for f in part}
        self.max_len = max_len
        self._check(found)
        found.finish()

    def _check(self, found: Description) -> None:
        histories, targets = self.histories, self.targets
        if not self.output_layer and self.tower[-1:] != [1]:
            found.fault("output_layer = false without a last layer of one unit")
        if len(targets) < len(histories):
            found.fault(f"{len(histories)} histories and {len(targets)} targets")
        for part in (self.features, histories, targets):
            if len({f.dim for f in part}) > 1:
                got = ", ".join(f"{f.name} {f.dim}" for f in part)
                found.fault(f"features of one list with different embed_dim ({got})")
        for history, target in zip(histories, targets, strict=False):
            if history.dim != target.dim:
                got = f"{history.name} {history.dim}, {target.name} {target.dim}"
                found.fault(f"a pair with different embed_dim ({got})")
            if target.pooling is not None:
                found.fault(f"{target.name}, a SequenceFeature, as an attended target")
        names = [h.name for h in histories]
        for name in dict.fromkeys(n for n in names if names.count(n) > 1):
            found.fault(f"two histories {name}")
        for h in histories:
            if h.pooling != "concat":
                found.fault(f"{h.name} as a history without pooling = concat")
            if h.padding and (h.max_len or self.max_len) and self.softmax:
                got = f"max_len for {h.name}, whose padding is not 0 but {h.padding}"
                found.fault(f"{got}: send full lists instead")
        scalars: dict[str, Feature] = {}
        pooled: dict[str, Feature] = {}
        for f in (*self.features, *targets):
            if f.pooling == "concat":
                found.fault(f"{f.name} with pooling = concat outside the histories")
            kind = scalars if f.pooling is None else pooled
            if kind.setdefault(f.name, f) != f:
                found.fault(f"two different features {f.name}")
        for name in pooled:
            if name in scalars:
                found.fault(f"{name} as one value and as a sequence")
        for name in names:
            if name in scalars:
                found.fault(f"{name} as one value and as a history")
        attended = {t.name for t in targets[: len(histories)]}
        listed = {f.name for f in self.features}
        self.attended = attended
        self.sides = {
            name: "candidate" if name in attended or name not in listed else "user"
            for name in (*scalars, *pooled)
        }
        self.scalars, self.pooled = scalars, pooled

    # ------------------------------------------------------------------- the spec

    def spec(
        self,
        tables: Mapping[str, Tensor],
        user_fields: Iterable[str],
        candidate_fields: Iterable[str],
    ) -> dict[str, Any]:
        """Write the feature spec; `sequences` and `owners` name its parts then."""
        histories = {h.name for h in self.histories}
        fixed = dict.fromkeys(self.attended, "candidate")
        fixed |= {n: "user" for n in histories if n not in self.pooled}
        sides = choose_sides(self.sides, fixed, user_fields, candidate_fields)
        labels = {n: f"{n}_pooled" if n in histories else n for n in self.pooled}
        names = plain_names([*self.scalars, *histories, *labels.values()])
        self.sequences = _sequence_names([names[h.name] for h in self.histories], names)
        self.owners: dict[str, str] = {}

        def field(f: Feature, name: str) -> dict[str, Any]:
            out: dict[str, Any] = {"column": f.name} if name != f.name else {}
            owner = self.owners.setdefault(f.table, name)
            if owner != name:
                return out | {"shares": owner}
            encoder = {"type": "identity", "buckets": f.rows}
            row = padding_row(tables[f.table])
            return out | {"dim": f.dim, "padding_row": row, "encoder": encoder}

        of_side = {
            side: [
                {"name": names[f.name], **field(f, names[f.name])}
                for f in self.scalars.values()
                if sides[f.name] == side
            ]
            for side in ("user", "candidate")
        }
        behavior = []
        for i, (h, target) in enumerate(
            zip(self.histories, self.targets, strict=False)
        ):
            paired = field(h, names[h.name]) | {"pairs": names[target.name]}
            lists = self._history_lists(h, tables[h.table])
            fields = {names[h.name]: paired}
            behavior.append({"name": self.sequences[i], "fields": fields, **lists})
        pooled = [
            {
                "name": names[labels[n]],
                **field(f, names[labels[n]]),
                "side": sides[n],
                "pooling": f.pooling,
                **self._pooled_lists(f),
            }
            | ({"column": n} if names[labels[n]] != n else {})
            for n, f in self.pooled.items()
        ]
        inputs = list(self.sequences)
        inputs += [
            names[f.name if f.pooling is None else labels[f.name]]
            for f in (*self.targets, *self.features)
        ]
        return {
            "format": 1,
            **of_side,
            "behavior": behavior,
            "multi_hot": pooled,
            "model": {
                "attention": {
                    "hidden": self.hidden,
                    "activation": ACTIVATIONS[self.activation],
                    "batch_norm": True,
                    "softmax": self.softmax,
                },
                "tower": {
                    "hidden": self.tower,
                    "activation": "row_dice",
                    "batch_norm": True,
                    "inputs": inputs,
                },
            },
        }

    def _history_lists(self, history: Feature, table: Tensor) -> dict[str, Any]:
        """Say which elements of a history count: all, unless their row is zero."""
        padding, length = history.padding, history.max_len or self.max_len
        zero = padding is not None and padding < len(table) and not table[padding].any()
        if zero and not self.softmax:
            return {"max_len": length or ANY_LENGTH, "pad_value": padding}
        if length is None:
            return {"max_len": ANY_LENGTH}
        return {"max_len": length, "pad_value": 0, "padding": "attended"}

    def _pooled_lists(self, f: Feature) -> dict[str, Any]:
        """Say which elements of a pooled list count: all but its `padding_idx`."""
        if f.pooled_padding is not None:
            padded = {"pad_value": f.pooled_padding, "pad_inside": "dropped"}
            return {"max_len": f.max_len or ANY_LENGTH, **padded}
        if f.max_len is None:
            return {"max_len": ANY_LENGTH}
        return {"max_len": f.max_len, "pad_value": 0, "padding": "attended"}


def _sequence_names(histories: list[str], names: Mapping[str, str]) -> list[str]:
    taken, out = set(names.values()), []
    for history in histories:
        start = history.removeprefix("hist_").removesuffix("_hist")
        name, number = f"{start}_history", 2
        while name in taken:
            name, number = f"{start}_history_{number}", number + 1
        taken.add(name)
        out.append(name)
    return out


# ----------------------------------------------------------------------- the weights


def _weigh(plan: _Plan, state: State, tables: Mapping[str, Tensor]) -> None:
    for name, table in tables.items():
        state.weights[f"tables.of_{plan.owners[name]}.weight"] = table
    for i, (h, name) in enumerate(zip(plan.histories, plan.sequences, strict=True)):
        ours, theirs = (
            f"attentions.of_{name}.mlp",
            f"attention_layers.{i}.attention.mlp",
        )
        _mlp(state, ours, theirs, [4 * h.dim, *plan.hidden], plan.activation)
    width = sum(f.dim for f in (*plan.histories, *plan.targets, *plan.features))
    widths = [width, *plan.tower]
    _mlp(state, "tower", "mlp.mlp", widths, "dice", ends=plan.output_layer)


def _mlp(
    state: State,
    ours: str,
    theirs: str,
    widths: list[int],
    activation: str,
    *,
    ends: bool = True,
) -> None:
    """Take Linear, BatchNorm1d, activation, Dropout per hidden layer, and the last."""
    for j, units in enumerate(widths[1:]):
        layer = f"{ours}.hidden.{j}"
        linear, norm, active = (f"{theirs}.{4 * j + k}" for k in range(3))
        state.copy_linear(f"{layer}.linear", linear, units, widths[j])
        state.copy_norm(f"{layer}.norm", norm, units)
        if activation == "dice":
            state.copy(f"{layer}.activation.alpha", f"{active}.alpha", 1)
        elif activation == "prelu":
            state.copy(f"{layer}.activation.weight", f"{active}.weight", 1)
        elif activation == "leakyrelu":
            state.weights[f"{layer}.activation.weight"] = torch.tensor([LEAK])
    if ends:
        last = f"{theirs}.{4 * len(widths[1:])}"
        state.copy_linear(f"{ours}.output", last, 1, widths[-1])
    else:  # the last hidden layer's one unit is the logit
        state.weights[f"{ours}.output.weight"] = torch.ones(1, 1)
        state.weights[f"{ours}.output.bias"] = torch.zeros(1)
