"""The content of a recbole checkpoint besides weights: items and their attributes.

Of the pickled dataset the items' vocabulary and item_feat are read, nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from din_converter.importers.description import refuse
from din_converter.importers.unpickle import Inert
from din_infer.errors import ConversionError

__all__ = ["LAYER", "PAD", "Attribute", "Saved", "open_checkpoint"]

PAD = "[PAD]"
POOLINGS = ("mean", "sum", "max")
LAYER = "embedding_layer."
KINDS = ("token", "token_seq", "float", "float_seq")  # in the order of an item's vector
CONFIG = {
    "ITEM_ID_FIELD": str,
    "ITEM_LIST_LENGTH_FIELD": str,
    "LIST_SUFFIX": str,
    "MAX_ITEM_LIST_LENGTH": int,
    "embedding_size": int,
    "mlp_hidden_size": list,
}


@dataclass(frozen=True, eq=False)
class Attribute:
    """A feature of the items: per item the rows it reads and what multiplies them.

    `first` is where its rows begin in `table`, which it may share with others.
    """

    name: str
    kind: str
    table: str
    first: int
    rows: int
    ids: NDArray[np.int64]  # [items] or [items, elements]
    values: NDArray[np.float64] | None

    @property
    def is_list(self) -> bool:
        """Whether an item has several, of which 0 is none."""
        return self.kind.endswith("_seq")


@dataclass(frozen=True)
class Saved:
    """The content of a checkpoint besides its weights."""

    item: str
    history: str
    length: str
    max_len: int
    dim: int
    hidden: tuple[int, ...]
    pooling: str
    tokens: list[str]
    attributes: list[Attribute]


def open_checkpoint(content: object, place: str) -> Saved:
    """Read what the pickled configuration, layer and dataset say.

    Raises
    ------
    ConversionError
        If it is no checkpoint of recbole's DIN, or contradicts itself.
    """
    rule = "a checkpoint of recbole 1.2"
    keys = ("config", "state_dict", "other_parameter")
    found = content if isinstance(content, dict) else {}
    missing = [key for key in keys if key not in found]
    if missing:
        raise ConversionError(rule, "no " + ", ".join(missing), place)
    other = found["other_parameter"]
    layer = other.get("embedding_layer") if isinstance(other, dict) else None
    if not isinstance(layer, Inert) or not isinstance(found["state_dict"], Mapping):
        raise ConversionError(rule, "no embedding_layer in other_parameter", place)
    config = _config(found["config"], place)
    return _Reader(layer, place).saved(config)


def _config(config: object, place: str) -> dict[str, Any]:
    place = f"{place}: config"
    found = config.attributes if isinstance(config, Inert) else {}
    values = found.get("final_config_dict")
    values = values if isinstance(values, dict) else {}
    faults = [
        f"{key} {values[key]!r}" if key in values else f"no {key}"
        for key, kind in CONFIG.items()
        if not isinstance(values.get(key), kind)
    ]
    hidden = values.get("mlp_hidden_size")
    sizes = [values.get(k) for k in ("MAX_ITEM_LIST_LENGTH", "embedding_size")]
    sizes += hidden if isinstance(hidden, list) else []
    positive = all(isinstance(n, int) and n > 0 for n in sizes)
    if not faults and not (positive and hidden):
        faults.append(f"sizes {sizes!r}")
    if values.get("model", "DIN") != "DIN":
        faults.append(f"model {values['model']!r}")
    refuse("the configuration of recbole's DIN", faults, place)
    return values


class _Reader:
    """Reads the pickled embedding layer, and notes everything that is wrong with it."""

    def __init__(self, layer: Inert, place: str) -> None:
        self.layer, self.place = layer, f"{place}: embedding_layer"
        self.faults: list[str] = []

    def saved(self, config: Mapping[str, Any]) -> Saved:
        item = config["ITEM_ID_FIELD"]
        pooling = self.layer.attributes.get("pooling_mode")
        if pooling not in POOLINGS:
            self.faults.append(f"pooling_mode {pooling!r}")
        features = self.interaction()
        attributes = []
        for kind in KINDS:
            for i, (name, first, rows) in enumerate(self.fields(kind)):
                table = f"{LAYER}{kind}_embedding_table.item."
                table += f"{i}.weight" if kind.endswith("_seq") else "embedding.weight"
                read = self.attribute(kind, name, rows, features.get(name))
                if read is not None:
                    ids, values = read
                    attributes.append(
                        Attribute(name, kind, table, first, rows, ids, values)
                    )
        tokens = self.tokens(item)
        self.check_items(item, tokens, attributes)
        refuse("item features that can be reproduced", self.faults, self.place)
        return Saved(
            item=item,
            history=item + config["LIST_SUFFIX"],
            length=config["ITEM_LIST_LENGTH_FIELD"],
            max_len=config["MAX_ITEM_LIST_LENGTH"],
            dim=config["embedding_size"],
            hidden=tuple(config["mlp_hidden_size"]),
            pooling=str(pooling),
            tokens=tokens[1:],
            attributes=attributes,
        )

    def interaction(self) -> dict[str, Any]:
        """Find the table of the items' attributes."""
        table = self.layer.attributes.get("item_feat")
        columns = table.attributes.get("interaction") if isinstance(table, Inert) else 0
        if isinstance(columns, dict):
            return columns
        self.faults.append("no item_feat")
        return {}

    def fields(self, kind: str) -> list[tuple[str, int, int]]:
        """List a kind's (name, first row in the table, rows)."""
        found = []
        for key in (f"{kind}_field_names", f"{kind}_field_dims"):
            value = self.layer.attributes.get(key)
            value = value.get("item") if isinstance(value, dict) else None
            if not isinstance(value, list):
                self.faults.append(f"no {key}")
                return []
            found.append(value)
        names, rows = found
        sizes = [int(n) if isinstance(n, int | np.integer) else 0 for n in rows]
        if len(names) != len(sizes) or 0 in sizes:
            self.faults.append(f"{kind}_field_dims {rows!r}")
            return []
        firsts = [0] * len(names)
        if not kind.endswith("_seq") and names:
            firsts = [sum(sizes[:i]) for i in range(len(sizes))]
            given = self.layer.attributes.get(f"{kind}_field_offsets")
            offsets = given.get("item") if isinstance(given, dict) else None
            if not np.array_equal(np.asarray(offsets, dtype=object), firsts):
                self.faults.append(f"{kind}_field_offsets {offsets!r}, not {firsts}")
        return list(zip(map(str, names), firsts, sizes, strict=True))

    def attribute(
        self, kind: str, name: str, rows: int, column: object
    ) -> tuple[NDArray[np.int64], NDArray[np.float64] | None] | None:
        """Split one column of item_feat into ids and what multiplies them."""
        axes = 1 + kind.endswith("_seq") + kind.startswith("float")
        if not isinstance(column, Tensor) or column.ndim != axes:
            got = list(column.shape) if isinstance(column, Tensor) else "nothing"
            self.faults.append(f"{name} as {axes} axes, not {got}")
            return None
        array = column.numpy()
        values = None
        if kind.startswith("float"):  # each element is (value, index)
            if array.shape[-1] != 2 or not np.isfinite(array).all():
                self.faults.append(f"{name} with other elements than finite pairs")
                return None
            values, array = array[..., 0].astype(np.float64), array[..., 1]
        ids = array.astype(np.int64)
        if ids.size and not 0 <= ids.min() <= ids.max() < rows:
            self.faults.append(f"{name} with ids outside 0..{rows - 1}")
            return None
        return ids, values

    def tokens(self, item: str) -> list[str]:
        """Read the items' external ids, in the order of the internal ones."""
        dataset = self.layer.attributes.get("dataset")
        found = dataset.attributes if isinstance(dataset, Inert) else {}
        names = found.get("field2id_token")
        tokens = names.get(item) if isinstance(names, dict) else None
        if tokens is None:
            self.faults.append(f"no field2id_token of {item}")
            return []
        return [str(t) for t in tokens]

    def check_items(
        self, item: str, tokens: list[str], attributes: list[Attribute]
    ) -> None:
        """Hold vocabulary, tables and attributes against each other."""
        own = next((a for a in attributes if a.name == item), None)
        if own is None or own.kind != "token":
            self.faults.append(f"no token field {item}")
            return
        if tokens and (tokens[0] != PAD or len(set(tokens)) != own.rows):
            got = f"{len(set(tokens))} tokens of {item} from {tokens[0]}"
            self.faults.append(f"{got}, not {own.rows} from {PAD}")
        if not np.array_equal(own.ids, np.arange(own.rows)):
            self.faults.append(f"{item} in item_feat that is not 0..{own.rows - 1}")
        self.faults += [
            f"{a.name} of {len(a.ids)} items, not {own.rows}"
            for a in attributes
            if len(a.ids) != own.rows
        ]
