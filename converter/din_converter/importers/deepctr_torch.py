"""deepctr-torch 0.2.9 to 0.3.0: its DIN's state_dict, or the whole pickled model.

Order and pairing are the library's, even where they are unexpected: the columns' order
within groups, not that of `history_feature_list`; the first length of any column.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from din_converter.importers.deepctr_torch_files import (
    ACTIVATIONS,
    COLUMNS,
    IDENTITY,
    KWARGS,
    LIBRARY,
    TOP,
    check_order,
    describe_model,
)
from din_converter.importers.description import (
    Description,
    bare,
    choose_sides,
    plain_names,
)
from din_converter.importers.state import State
from din_converter.importers.whole_models import read_checkpoint
from din_converter.model import ClickModel
from din_infer.errors import ConversionError

__all__ = ["read"]

MAX_OF_NOTHING = -1e9


def read(
    path: str | os.PathLike[str],
    description: str | os.PathLike[str] | None = None,
    *,
    user_fields: Iterable[str] = (),
    candidate_fields: Iterable[str] = (),
) -> ClickModel:
    """Read a DIN of deepctr-torch.

    Parameters
    ----------
    path : path
        A state_dict, or a whole model as torch.save and ModelCheckpoint write it.
    description, user_fields, candidate_fields
        As `convert` takes them. Without fields, what is attended and the dense columns
        are the candidate's, all others the user's.

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
        path, description, "columns", describe_model
    )
    plan = _Plan(raw, place_of_raw)
    spec = plan.spec(user_fields, candidate_fields)
    state = State(tensors, LIBRARY, place)
    _weigh(plan, state, place)
    return state.fill(spec)


# ----------------------------------------------------------------------- the columns


@dataclass(frozen=True)
class _Column:
    """A SparseFeat or VarLenSparseFeat; `rows` and `dim` are those of its table."""

    name: str
    table: str
    group: str | None
    rows: int
    dim: int
    maxlen: int
    combiner: str
    length: str | None


def _grouped(columns: list[_Column]) -> list[_Column]:
    """Order columns as embedding_lookup does: by group, groups as they come."""
    groups: dict[str | None, list[_Column]] = {}
    for c in columns:
        groups.setdefault(c.group, []).append(c)
    return [c for group in groups.values() for c in group]


class _Plan:
    """The order and pairing of columns, from a description that is checked whole."""

    def __init__(self, raw: object, place: str) -> None:
        found = Description(LIBRARY, place)
        top = found.take(raw, "", TOP)
        self.kwargs = found.take(top.get("dnn_kwargs", {}), "dnn_kwargs", KWARGS)
        tables = []
        for i, column in enumerate(top.get("columns", ())):
            kind = column.get("kind") if isinstance(column, Mapping) else None
            if not isinstance(kind, str) or kind not in COLUMNS:
                got = repr(column) if kind is None else repr(kind)
                found.fault(f"columns[{i}] as {got} instead of {' or '.join(COLUMNS)}")
                continue
            tables.append(found.take(column, f"columns[{i}]", COLUMNS[kind]))
        found.finish()
        names = [t["name"] for t in tables]
        twice = dict.fromkeys(n for n in names if names.count(n) > 1)
        for name in twice:
            found.fault(f"two columns {name}")
        for key in ("att_activation", "dnn_activation"):
            self.kwargs[key] = bare(self.kwargs[key], IDENTITY)
        if self.kwargs["dnn_activation"] == "dice":
            found.fault("dnn_activation = dice, which the library itself cannot run")
        embedded = [t for t in tables if t["kind"] != "DenseFeat"]
        sizes = {_table_of(t): (t["vocabulary_size"], _dim(t)) for t in embedded}
        for t in embedded:
            if _dim(t) != sizes[_table_of(t)][1]:
                got = f"embedding_dim {_dim(t)} and {sizes[_table_of(t)][1]}"
                found.fault(f"{got} in one embedding {_table_of(t)}")
        made = [
            _Column(
                name=t["name"],
                table=_table_of(t),
                group=t["group_name"],
                rows=sizes[_table_of(t)][0],
                dim=_dim(t),
                maxlen=t.get("maxlen", 0),
                combiner=t.get("combiner", ""),
                length=t.get("length_name"),
            )
            for t in embedded
        ]
        listed = top["history_feature_list"]
        attended = {f"hist_{n}" for n in listed}
        scalars = [c for c in made if not c.maxlen]
        varlen = [c for c in made if c.maxlen]
        self.sparse = _grouped(scalars)
        self.query = _grouped([c for c in scalars if c.name in listed])
        self.keys = _grouped([c for c in varlen if c.name in attended])
        self.pooled = [c for c in varlen if c.name not in attended]
        self.dense = {t["name"]: t["dimension"] for t in tables if "dimension" in t}
        self.tables = sizes
        self.order = list(dict.fromkeys(c.table for c in (*scalars, *varlen)))
        self._check(found, listed, varlen)
        lengths = [c.length for c in varlen if c.length is not None]
        if not lengths:
            found.fault("no length_name of any VarLenSparseFeat")
        found.finish()
        self.length = lengths[0]

    def _check(
        self, found: Description, listed: list[str], varlen: list[_Column]
    ) -> None:
        for missing in [n for n in listed if n not in {c.name for c in self.query}]:
            found.fault(f"no SparseFeat {missing}, which history_feature_list has")
        keys = {c.name for c in self.keys}
        for missing in [f"hist_{n}" for n in listed if f"hist_{n}" not in keys]:
            found.fault(f"no VarLenSparseFeat {missing}")
        widths = [sum(c.dim for c in part) for part in (self.query, self.keys)]
        if widths[0] != widths[1]:
            got = f"targets of width {widths[0]} and histories of width {widths[1]}"
            found.fault(got)
        if len({c.maxlen for c in self.keys}) > 1:
            got = ", ".join(f"{c.name} {c.maxlen}" for c in self.keys)
            found.fault(f"histories of different maxlen ({got})")
        for c in varlen:
            if c.combiner == "max" and c.length is not None:
                got = "combiner max beside a length_name"
                found.fault(f"{c.name} with {got}, which the library itself cannot run")

    # ------------------------------------------------------------------- the spec

    def spec(
        self, user_fields: Iterable[str], candidate_fields: Iterable[str]
    ) -> dict[str, Any]:
        """Write the feature spec; `names` and `owners` are then set too."""
        fixed = {c.name: "candidate" for c in self.query}
        fixed |= {c.name: "user" for c in self.keys}
        free = {c.name: "user" for c in (*self.sparse, *self.pooled)}
        free |= dict.fromkeys(self.dense, "candidate")
        free |= {n: side for n, side in fixed.items() if n in free}
        sides = choose_sides(free, fixed, user_fields, candidate_fields)
        embedded = [*self.sparse, *self.keys, *self.pooled]
        names = [*(c.name for c in embedded), *self.dense]
        self.names = plain_names(names)
        self.sequence = next(
            n
            for n in ("history", *(f"history_{i}" for i in range(2, len(names) + 3)))
            if n not in self.names.values()
        )
        self.owners: dict[str, str] = {}
        of_side = {
            side: [
                self._named(c) | self._embedded(c)
                for c in self.sparse
                if sides[c.name] == side
            ]
            for side in ("user", "candidate")
        }
        behavior = self._behavior()
        pooled = [
            self._named(c)
            | self._embedded(c)
            | {"side": sides[c.name], "pooling": c.combiner, "max_len": c.maxlen}
            | _padding(c)
            for c in self.pooled
        ]
        dense = [
            {"name": self.names[n], "column": n, "side": sides[n], "dim": k}
            for n, k in self.dense.items()
        ]
        order = [self.names[c.name] for c in (*self.sparse, *self.pooled)]
        order += [self.sequence, *(self.names[n] for n in self.dense)]
        return {
            "format": 1,
            **of_side,
            "behavior": [behavior],
            "multi_hot": pooled,
            "dense": dense,
            "model": self._model(order),
        }

    def _named(self, column: _Column) -> dict[str, Any]:
        name = self.names[column.name]
        return {"name": name} | ({"column": column.name} if name != column.name else {})

    def _embedded(self, column: _Column) -> dict[str, Any]:
        name = self.names[column.name]
        owner = self.owners.setdefault(column.table, name)
        if owner != name:
            return {"shares": owner}
        return {
            "dim": column.dim,
            "padding_row": "trained",
            "encoder": {"type": "identity", "buckets": column.rows},
        }

    def _behavior(self) -> dict[str, Any]:
        wanted = [f"hist_{c.name}" for c in self.query]
        aligned = wanted == [c.name for c in self.keys] and all(
            q.dim == k.dim for q, k in zip(self.query, self.keys, strict=True)
        )
        fields = {}
        for i, c in enumerate(self.keys):
            named = self._named(c)
            del named["name"]
            pairs = {"pairs": self.names[self.query[i].name]} if aligned else {}
            fields[self.names[c.name]] = named | self._embedded(c) | pairs
        query = {"query": [self.names[c.name] for c in self.query]}
        # a length that is not the histories' own cannot be told from their padding
        own = all(c.length == self.length for c in self.keys)
        return {
            "name": self.sequence,
            "max_len": self.keys[0].maxlen,
            "length_column": self.length,
            "empty_softmax": "padding_row",
            "fields": fields,
            **({} if aligned else query),
            **({"pad_value": 0} if own else {}),
        }

    def _model(self, inputs: list[str]) -> dict[str, Any]:
        said = self.kwargs
        return {
            "link": "sigmoid" if said["task"] == "binary" else "identity",
            "attention": {
                "hidden": list(said["att_hidden_size"]),
                "activation": ACTIVATIONS[said["att_activation"]],
                "dice_affine": True,
                "softmax": said["att_weight_normalization"],
            },
            "tower": {
                "hidden": list(said["dnn_hidden_units"]),
                "activation": ACTIVATIONS[said["dnn_activation"]],
                "batch_norm": said["dnn_use_bn"],
                "inputs": inputs,
            },
        }


def _table_of(column: Mapping[str, Any]) -> str:
    return str(column["embedding_name"] or column["name"])


def _dim(column: Mapping[str, Any]) -> int:
    dim = column["embedding_dim"]
    return 6 * int(column["vocabulary_size"] ** 0.25) if dim == "auto" else int(dim)


def _padding(column: _Column) -> dict[str, Any]:
    if column.length is not None:
        return {"length_column": column.length, "pad_value": 0}
    empty = {"empty": MAX_OF_NOTHING} if column.combiner == "max" else {}
    return {"pad_value": 0, "pad_inside": "dropped", **empty}


# ----------------------------------------------------------------------- the weights


def _weigh(plan: _Plan, state: State, place: str) -> None:
    for table, size in plan.tables.items():
        ours = f"tables.of_{plan.owners[table]}.weight"
        state.copy(ours, f"embedding_dict.{table}.weight", *size)
    check_order(plan.order, state)
    unit = "attention.local_att"
    dice = f"{unit}.dnn.activation_layers.0"
    is_dice = plan.kwargs["att_activation"] == "dice"
    if is_dice and f"{dice}.alpha" not in state and f"{dice}.bn.weight" in state:
        got = "Dice without alpha, which releases up to 0.2.3 wrote"
        raise ConversionError(f"a checkpoint of {LIBRARY} 0.2.9 or later", got, place)
    said = plan.kwargs
    ours = f"attentions.of_{plan.sequence}.mlp"
    widths = [4 * sum(c.dim for c in plan.query), *said["att_hidden_size"]]
    _layers(state, ours, f"{unit}.dnn", widths, said["att_activation"], norm=False)
    state.copy_linear(f"{ours}.output", f"{unit}.dense", 1, widths[-1])
    width = sum(c.dim for c in (*plan.sparse, *plan.pooled, *plan.keys))
    widths = [width + sum(plan.dense.values()), *said["dnn_hidden_units"]]
    norm = said["dnn_use_bn"]
    _layers(state, "tower", "dnn", widths, said["dnn_activation"], norm=norm)
    state.copy("tower.output.weight", "dnn_linear.weight", 1, widths[-1])
    state.copy("tower.output.bias", "out.bias", 1)


def _layers(
    state: State, ours: str, theirs: str, widths: list[int], kind: str, *, norm: bool
) -> None:
    for i, units in enumerate(widths[1:]):
        layer, active = f"{ours}.hidden.{i}", f"{theirs}.activation_layers.{i}"
        linear = f"{theirs}.linears.{i}"
        state.copy_linear(f"{layer}.linear", linear, units, widths[i])
        if norm:
            state.copy_norm(f"{layer}.norm", f"{theirs}.bn.{i}", units)
        if kind == "dice":
            state.copy(f"{layer}.activation.alpha", f"{active}.alpha", units, 1)
            state.copy_norm(f"{layer}.activation.norm", f"{active}.bn", units)
        elif kind == "prelu":
            state.copy(f"{layer}.activation.weight", f"{active}.weight", 1)
