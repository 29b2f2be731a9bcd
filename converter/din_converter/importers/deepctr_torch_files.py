"""The description of a deepctr-torch DIN: keys of JSON, or of a pickled model."""

from typing import Any

from din_converter.importers.description import (
    ANY,
    FLAG,
    LIST,
    OPTIONAL_TEXT,
    SIZE,
    TABLE,
    TEXT,
    Key,
    activation,
    list_of,
    one_of,
    plain,
)
from din_converter.importers.state import State
from din_converter.importers.unpickle import Inert
from din_converter.importers.whole_models import children_of, kind_of, part_of
from din_infer.errors import ConversionError

__all__ = [
    "ACTIVATIONS",
    "COLUMNS",
    "IDENTITY",
    "KWARGS",
    "LIBRARY",
    "TOP",
    "check_order",
    "describe_model",
]

LIBRARY = "deepctr-torch"
OLDEST, NEWEST = (0, 2, 9), (0, 3, 0)
ACTIVATIONS = {k: k for k in ("dice", "prelu", "relu", "sigmoid", "silu")}
ACTIVATIONS["linear"] = "none"
IDENTITY = "linear"  # the library's name for no activation

_ACTIVATION = activation(ACTIVATIONS, IDENTITY)
_LAYERS = list_of("at least one positive whole number", SIZE, 1)
TOP = {
    "columns": LIST,
    "history_feature_list": list_of("at least one name", TEXT, 1),
    "dnn_kwargs": TABLE.or_else({}),
    "library": Key(LIBRARY, lambda v: v == LIBRARY, None),
    "version": Key("0.2.9 to 0.3.0", lambda v: OLDEST <= _version(v) <= NEWEST, None),
    **dict.fromkeys(("variant", "feature_index", "state_dict"), ANY),
}
KWARGS = {
    "dnn_use_bn": FLAG,
    "dnn_hidden_units": _LAYERS.or_else((256, 128)),
    "dnn_activation": _ACTIVATION.or_else("relu"),
    "att_hidden_size": _LAYERS.or_else((64, 16)),
    "att_activation": _ACTIVATION.or_else("Dice"),
    "att_weight_normalization": FLAG,
    "task": one_of("binary", "regression", "multiclass"),
    **dict.fromkeys(("l2_reg_dnn", "l2_reg_embedding", "dnn_dropout"), ANY),
    **dict.fromkeys(("init_std", "seed", "device", "gpus"), ANY),
}
_SPARSE = {
    "kind": TEXT,
    "name": TEXT,
    "vocabulary_size": SIZE,
    "embedding_dim": Key(
        "a positive whole number or 'auto'", lambda v: v == "auto" or SIZE.check(v), 4
    ),
    "use_hash": Key(
        "false (the library hashes nothing here)", lambda v: v is False, False
    ),
    "dtype": ANY,
    "embedding_name": OPTIONAL_TEXT,
    "group_name": OPTIONAL_TEXT.or_else("default_group"),
}
COLUMNS = {
    "SparseFeat": _SPARSE,
    "VarLenSparseFeat": {
        **_SPARSE,
        "maxlen": SIZE,
        "combiner": one_of("sum", "mean", "max").or_else("mean"),
        "length_name": OPTIONAL_TEXT,
    },
    "DenseFeat": {
        **dict.fromkeys(("kind", "name"), TEXT),
        "dimension": SIZE.or_else(1),
        "dtype": ANY,
    },
}


def _version(value: object) -> tuple[int, ...]:
    numbers = str(value).split(".")
    return tuple(int(n) for n in numbers if n.isdecimal())


# ----------------------------------------------------------------- the pickled model


def describe_model(model: object, place: str) -> dict[str, Any]:
    """Derive the description of a pickled model."""
    ours = isinstance(model, Inert) and model.module_name.startswith("deepctr_torch.")
    if not isinstance(model, Inert) or not ours or model.class_name != "DIN":
        rule = f"a state_dict or a DIN of {LIBRARY}"
        raise ConversionError(rule, kind_of(model), place)
    if "gpus" not in model.attributes:  # up to 0.2.3 DIN attended one position only
        got = "one without `gpus`, as releases up to 0.2.5 pickle it"
        raise ConversionError(f"a DIN of {LIBRARY} 0.2.9 or later", got, place)
    attention = part_of(model, "attention")
    unit, tower = part_of(attention, "local_att", "dnn"), part_of(model, "dnn")
    odd = [n for n, m in (("attention", unit), ("dnn", tower)) if m is None]
    columns = model.attributes.get("dnn_feature_columns")
    if attention is None or unit is None or tower is None or odd:
        rule = f"a DIN as {LIBRARY} 0.2.9 to 0.3.0 makes it"
        raise ConversionError(rule, f"no {' and no '.join(odd)}", place)
    return {
        "columns": [_column(c) for c in columns] if isinstance(columns, list) else None,
        "history_feature_list": plain(model.attributes.get("history_feature_list")),
        "dnn_kwargs": {
            "att_hidden_size": _widths(unit),
            "att_activation": _activation(unit),
            "att_weight_normalization": plain(
                attention.attributes.get("weight_normalization")
            ),
            "dnn_hidden_units": _widths(tower),
            "dnn_activation": _activation(tower),
            "dnn_use_bn": plain(tower.attributes.get("use_bn")),
            "task": getattr(part_of(model, "out"), "attributes", {}).get("task"),
        },
    }


def _parts(module: Inert, name: str) -> list[Inert]:
    return children_of(part_of(module, name))


def _widths(layers: Inert) -> list[Any]:
    linears = _parts(layers, "linears")
    return [plain(m.attributes.get("out_features")) for m in linears]


def _activation(layers: Inert) -> Any:  # noqa: ANN401
    """Name the one activation of all layers; where it has no name, its class."""
    found = _parts(layers, "activation_layers")
    names = {m.class_name for m in found}
    if len(names) != 1:
        return sorted(names)
    name = names.pop()
    return IDENTITY if name == "Identity" else name


def _column(column: object) -> Any:  # noqa: ANN401
    """Turn a column, a tuple with a name in the library, into a table."""
    if not isinstance(column, Inert) or column.class_name not in COLUMNS:
        return kind_of(column)
    kind = column.class_name
    if kind == "DenseFeat":
        keys: tuple[str, ...] = ("name", "dimension", "dtype")
        return {"kind": kind, **dict(zip(keys, plain(column.args), strict=False))}
    sparse, rest = column, ()
    if kind == "VarLenSparseFeat":
        if not column.args or not isinstance(column.args[0], Inert):
            return "a VarLenSparseFeat without a SparseFeat"
        sparse, rest = column.args[0], plain(column.args[1:])
    keys = tuple(k for k in _SPARSE if k != "kind")
    return {
        "kind": kind,
        **dict(zip(keys, plain(sparse.args), strict=False)),
        **dict(zip(("maxlen", "combiner", "length_name"), rest, strict=False)),
    }


def check_order(order: list[str], state: State) -> None:
    """Check the order of the columns by that of the library's tables.

    The library makes its tables in that order. For tables of equal shape, nothing else
    reveals that columns are described in the wrong order.
    """
    start, end = "embedding_dict.", ".weight"
    found = [
        key.removeprefix(start).removesuffix(end)
        for key in state.keys
        if key.startswith(start)
    ]
    if set(found) == set(order) and found != order:
        said, there = ", ".join(order), ", ".join(found)
        state.fault(f"columns whose tables come as {there}, not as {said}")
