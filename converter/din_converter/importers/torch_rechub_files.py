"""The description of a torch-rechub DIN: keys of a JSON file, or of a pickled model."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from din_converter.importers import description
from din_converter.importers.description import (
    ANY,
    FLAG,
    LIST,
    OPTIONAL_TEXT,
    SIZE,
    TABLE,
    TEXT,
    Description,
    Key,
    activation,
    list_of,
    one_of,
    plain,
)
from din_converter.importers.unpickle import Inert
from din_converter.importers.whole_models import children_of, kind_of, part_of
from din_infer.errors import ConversionError

__all__ = [
    "ACTIVATIONS",
    "ATTENTION",
    "IDENTITY",
    "LIBRARY",
    "MLP",
    "TOP",
    "Feature",
    "describe_model",
    "feature_tables",
    "made_feature",
]

LIBRARY = "torch-rechub"
ACTIVATIONS = description.ACTIVATIONS | {"dice": "row_dice"}
IDENTITY = "identity"  # the library's name for no activation

_SIZES = list_of("sizes", SIZE).or_null()
TOP = {
    "features": LIST,
    "history_features": list_of("at least one feature", ANY, 1),
    "target_features": LIST,
    "mlp_params": TABLE,
    "attention_mlp_params": TABLE,
    "library": Key(LIBRARY, lambda v: v == LIBRARY, None),
    "version": Key("0.9.0", lambda v: v == "0.9.0", None),
    **dict.fromkeys(("variant", "state_dict"), ANY),
}
MLP = {"dims": _SIZES, "dropout": ANY, "output_layer": FLAG.or_else(True)}
ATTENTION = {
    "dims": _SIZES,
    "activation": activation(ACTIVATIONS, IDENTITY).or_else("dice"),
    "use_softmax": FLAG,
}
_PADDING = Key(
    "an id or null", lambda v: v is None or (type(v) is int and 0 <= v < 2**31), None
)
_SPARSE = {
    "kind": TEXT,
    "name": TEXT,
    "vocab_size": SIZE,
    "embed_dim": SIZE.or_null(),
    "shared_with": OPTIONAL_TEXT,
    "padding_idx": _PADDING,
    "initializer": ANY,
}
FEATURES = {
    "SparseFeature": _SPARSE,
    "SequenceFeature": {
        **_SPARSE,
        "pooling": one_of("mean", "sum", "concat"),
        "max_len": SIZE.or_null(),
    },
}


# ----------------------------------------------------------------- the pickled model


def describe_model(model: Any, place: str) -> dict[str, Any]:  # noqa: ANN401
    """Derive the description of a pickled model."""
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
    if name is not None and name.lower() in ACTIVATIONS:
        name = name.lower()
    return dims, name, rest == 1


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
