"""What a torch-rechub DIN is described by: the keys of a JSON file, or of a pickle."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from din_converter.importers.description import (
    FLAG,
    OPTIONAL_TEXT,
    SIZE,
    SIZES,
    TEXT,
    Description,
    Key,
    bare,
    plain,
)
from din_converter.importers.unpickle import Inert
from din_converter.importers.whole_models import children_of, kind_of, part_of
from din_infer.errors import ConversionError

__all__ = [
    "ACTIVATIONS",
    "ATTENTION",
    "LIBRARY",
    "MLP",
    "MODULES",
    "TOP",
    "Feature",
    "describe_model",
    "feature_tables",
    "made_feature",
]

LIBRARY = "torch-rechub"
ACTIVATIONS = {
    "dice": "row_dice",
    "prelu": "prelu",
    "leakyrelu": "prelu",
    "relu": "relu",
    "sigmoid": "sigmoid",
    "silu": "silu",
    "identity": "none",
}
MODULES = {
    "Dice": "dice",
    "PReLU": "prelu",
    "LeakyReLU": "leakyrelu",
    "ReLU": "relu",
    "Sigmoid": "sigmoid",
    "SiLU": "silu",
    "Identity": "identity",
}

_ANY = Key("anything", lambda _: True, None)
_LISTS = Key("a list", lambda v: isinstance(v, list | tuple))
_TABLE = Key("a table", lambda v: isinstance(v, Mapping))
TOP = {
    "features": _LISTS,
    "history_features": Key(
        "a list of at least one feature", lambda v: _LISTS.check(v) and len(v) > 0
    ),
    "target_features": _LISTS,
    "mlp_params": _TABLE,
    "attention_mlp_params": _TABLE,
    "library": Key(LIBRARY, lambda v: v == LIBRARY, None),
    "version": Key("0.9.0", lambda v: v == "0.9.0", None),
    **dict.fromkeys(("variant", "state_dict"), _ANY),
}
MLP = {
    "dims": Key("a list of sizes", lambda v: v is None or SIZES.check(v), None),
    "dropout": _ANY,
    "output_layer": FLAG.or_else(True),
}
ATTENTION = {
    "dims": Key("a list of sizes", lambda v: v is None or SIZES.check(v), None),
    "activation": Key(
        f"one of {', '.join(ACTIVATIONS)}",
        lambda v: isinstance(v, str) and bare(v, MODULES) in ACTIVATIONS,
        "dice",
    ),
    "use_softmax": FLAG,
}
_PADDING = Key(
    "an id or null", lambda v: v is None or (type(v) is int and 0 <= v < 2**31), None
)
_SPARSE = {
    "kind": TEXT,
    "name": TEXT,
    "vocab_size": SIZE,
    "embed_dim": Key(
        "a positive whole number", lambda v: v is None or SIZE.check(v), None
    ),
    "shared_with": OPTIONAL_TEXT,
    "padding_idx": _PADDING,
    "initializer": _ANY,
}
FEATURES = {
    "SparseFeature": _SPARSE,
    "SequenceFeature": {
        **_SPARSE,
        "pooling": Key(
            "mean, sum or concat",
            lambda v: isinstance(v, str) and v in ("mean", "sum", "concat"),
            "mean",
        ),
        "max_len": Key(
            "a positive whole number", lambda v: v is None or SIZE.check(v), None
        ),
    },
}


# ----------------------------------------------------------------- the pickled model


def describe_model(model: Any, place: str) -> dict[str, Any]:  # noqa: ANN401
    """Say of a pickled model what a description says."""
    ours = isinstance(model, Inert) and model.module_name.startswith("torch_rechub.")
    if not ours or model.class_name != "DIN":
        rule = f"a state_dict or a DIN of {LIBRARY}"
        raise ConversionError(rule, kind_of(model), place)
    units = children_of(part_of(model, "attention_layers"))
    layers = [_layers_of(part_of(u, "attention", "mlp"), place) for u in units]
    softmax = [plain(u.attributes.get("use_softmax")) for u in units]
    same = [layers[0]] * len(layers) == layers if layers else False
    if not same or len(set(map(repr, softmax))) != 1:
        got = "attention units that differ" if layers else "no attention_layers"
        raise ConversionError(f"a DIN as {LIBRARY} 0.9.0 makes it", got, place)
    dims, activation, _ = layers[0]
    tower_dims, tower_activation, output_layer = _layers_of(
        part_of(model, "mlp", "mlp"), place
    )
    if tower_activation not in ("dice", None):
        rule = "a tower with Dice, as the library makes it"
        raise ConversionError(rule, tower_activation, place)
    held = model.attributes
    return {
        name: [_feature(f) for f in held[name]]
        if isinstance(held.get(name), list)
        else None
        for name in ("features", "history_features", "target_features")
    } | {
        "mlp_params": {"dims": tower_dims, "output_layer": output_layer},
        "attention_mlp_params": {
            "dims": dims,
            "activation": activation or "dice",
            "use_softmax": softmax[0],
        },
    }


def _layers_of(mlp: Any, place: str) -> tuple[list[Any], Any, bool]:  # noqa: ANN401
    """Read an MLP's widths, its activation, and whether an output layer ends it."""
    modules = children_of(mlp)
    count, rest = divmod(len(modules), 4)
    names = [m.class_name for m in modules]
    hidden = [names[4 * i : 4 * i + 4] for i in range(count)]
    wanted = ["Linear", "BatchNorm1d", "Dropout"]
    regular = all([a, b, d] == wanted for a, b, _, d in hidden)
    activations = {name for _, _, name, _ in hidden}
    ends = names[4 * count :] in ([], ["Linear"])
    if not regular or not ends or len(activations) > 1 or not modules:
        rule = f"layers as {LIBRARY} 0.9.0 makes them"
        raise ConversionError(rule, ", ".join(names) or "none", place)
    dims = [plain(modules[4 * i].attributes.get("out_features")) for i in range(count)]
    name = activations.pop() if activations else None
    return dims, None if name is None else MODULES.get(name, name), rest == 1


def _feature(feature: object) -> Any:  # noqa: ANN401
    if not isinstance(feature, Inert):
        return kind_of(feature)
    kind = feature.class_name
    keys = [k for k in FEATURES.get(kind, ()) if k in feature.attributes]
    return {"kind": kind, **{k: plain(feature.attributes[k]) for k in keys}}


# ---------------------------------------------------------------------- the features


@dataclass(frozen=True)
class Feature:
    """A feature; `table`, `rows` and `padding` are those of the table it reads."""

    name: str
    table: str
    rows: int
    dim: int
    padding: int | None
    pooling: str | None
    pooled_padding: int | None
    max_len: int | None


def feature_tables(found: Description, name: str, features: Iterable[Any]) -> list[Any]:
    """Check the features of one list; those that are wrong are left out."""
    out = []
    for i, feature in enumerate(features):
        kind = feature.get("kind") if isinstance(feature, Mapping) else None
        place = f"{name}[{i}]"
        if not isinstance(kind, str) or kind not in FEATURES:
            why = " (which the library sizes but does not read)"
            got = repr(feature) if kind is None else repr(kind)
            why = why if kind == "DenseFeature" else ""
            found.fault(f"{place} as {got} instead of {' or '.join(FEATURES)}{why}")
            continue
        out.append(found.take(feature, place, FEATURES[kind]))
    return out


def made_feature(
    found: Description, table: Mapping[str, Any], owners: Mapping[str, dict[str, Any]]
) -> Feature:
    """Make a feature; `owners` are the features with a table of their own, by name."""
    name = table["shared_with"] or table["name"]
    owner = owners.get(name, table)
    if name not in owners:
        found.fault(f"{table['name']} shared with {name}, which has no table")
    dims = [_dim(table), _dim(owner)]
    if dims[0] != dims[1]:
        found.fault(
            f"{table['name']} with embed_dim {dims[0]}, its table has {dims[1]}"
        )
    return Feature(
        name=table["name"],
        table=name,
        rows=owner["vocab_size"],
        dim=dims[0],
        padding=owner["padding_idx"],
        pooling=table.get("pooling"),
        pooled_padding=table["padding_idx"],
        max_len=table.get("max_len"),
    )


def _dim(table: Mapping[str, Any]) -> int:
    if table["embed_dim"] is not None:
        return int(table["embed_dim"])
    return int(6 * int(table["vocab_size"]) ** 0.25)  # the library's own rule
