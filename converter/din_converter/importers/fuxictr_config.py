"""model_config.yaml of FuxiCTR 2.x: how the layers over the features are built.

No code in the file runs; all its faults are one `ConversionError`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from din_converter.importers.description import ACTIVATIONS, refuse
from din_infer.errors import ConversionError
from din_infer.regular_file import read_text

__all__ = ["Layers", "Settings", "is_size", "read_config", "refuse_old"]

OUTPUT_ACTIVATIONS = ("relu", "sigmoid", "silu", "identity")
# Configurations of one experiment have 2 KB and 50 values.
MOST_BYTES, MOST_NODES = 1 << 20, 100_000
FIRST_VERSION = ("din_query_field", "din_history_field")


@dataclass(frozen=True)
class Layers:
    """One MLP: `activation` is the spec's word, `slope` what a fixed PReLU has.

    `has_module` tells whether the library has a module in the activation's place.
    """

    hidden: tuple[int, ...]
    activation: str
    has_module: bool
    slope: float | None
    batch_norm: bool
    has_dropout: tuple[bool, ...]


@dataclass(frozen=True)
class Settings:
    """The content of model_config.yaml; `place` names the file and the experiment."""

    place: str
    raw: Mapping[str, Any]
    dim: int
    attention: Layers
    tower: Layers
    output_activation: str
    softmax: bool
    link: str
    max_len: int


def refuse_old(got: str, place: str) -> None:
    """Raise ConversionError for a model of FuxiCTR 1.x."""
    fix = "This is FuxiCTR 1.x, whose DIN has no mask; train it again with 2.x."
    raise ConversionError("a checkpoint of FuxiCTR 2.x", got, place, fix)


class _Loader(yaml.SafeLoader):
    """YAML's plain values and Python tuples, as FuxiCTR's configurations have them.

    A node that is there again by its anchor counts again: a few lines can stand for
    2**30 values, or for one in itself.
    """

    def compose_document(self) -> yaml.Node | None:
        document = super().compose_document()
        pending, count = [document], 0
        while pending:
            node = pending.pop()
            count += 1
            if count + len(pending) > MOST_NODES:
                raise ValueError(f"more than {MOST_NODES:,} values, by its anchors")
            if isinstance(node, yaml.MappingNode):
                pending.extend(part for pair in node.value for part in pair)
            elif isinstance(node, yaml.SequenceNode):
                pending.extend(node.value)
        return document


def _tuple(loader: _Loader, node: yaml.SequenceNode) -> tuple[Any, ...]:
    return tuple(loader.construct_sequence(node, deep=True))


_Loader.add_constructor("tag:yaml.org,2002:python/tuple", _tuple)


def read_config(path: Path, experiment: str | None, stem: str) -> Settings:
    """Read one experiment of a model_config.yaml, its Base merged beneath.

    Parameters
    ----------
    path : Path
    experiment : str or None
        Without it the one named `stem`, else the only one. A file of the parameters
        themselves, with no name above them, is taken as it is.
    stem : str
        The checkpoint's name without its suffix.

    Raises
    ------
    ConversionError
        If the file is no such YAML, does not say which experiment, or says something
        that cannot be reproduced.
    """
    rule = "YAML with one section per experiment"
    try:
        text = read_text(path, MOST_BYTES)
        content = yaml.load(text, Loader=_Loader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConversionError(rule, " ".join(str(error).split()), str(path)) from None
    if not isinstance(content, Mapping):
        raise ConversionError(rule, f"a {type(content).__name__}", str(path))
    content = content.get("params", content)  # as scripts keep a run's own parameters
    if "dnn_hidden_units" in content and experiment is None:
        return _settings(content, str(path))
    sections = {str(k): v for k, v in content.items() if isinstance(v, Mapping)}
    base = sections.pop("Base", {})
    name = experiment
    if name is None:
        name = stem if stem in sections or len(sections) != 1 else next(iter(sections))
    if name not in sections:
        found = ", ".join(sections) or "none"
        fix = "Say which with `experiment`." if sections else ""
        raise ConversionError(f"an experiment `{name}`", found, str(path), fix)
    return _settings({**base, **sections[name]}, f"{path}: {name}")


def _settings(raw: Mapping[str, Any], place: str) -> Settings:
    old = [key for key in FIRST_VERSION if key in raw]
    if old:
        refuse_old(", ".join(old), place)
    faults: list[str] = []

    def fault(key: str, rule: str) -> None:
        faults.append(f"{key} {raw[key]!r} ({rule})" if key in raw else f"no {key}")

    def flag(key: str) -> bool:
        value = raw.get(key)
        if not isinstance(value, bool | None):
            fault(key, "true or false")
        return bool(value)

    def layers(hidden_key: str, hidden: list[int], name: str, default: str) -> Layers:
        units = raw.get(hidden_key, hidden)
        if not isinstance(units, list) or not all(is_size(n) for n in units):
            fault(hidden_key, "a list of sizes")
            units = []
        act_key = f"{name}_activations"
        drop_key = "net_dropout" if name == "dnn" else "attention_dropout"
        activation, slope = _activation(raw.get(act_key, default), len(units))
        if not activation:
            fault(act_key, f"the same for all layers, one of {', '.join(ACTIVATIONS)}")
        rates = raw.get(drop_key, 0)
        rates = rates if isinstance(rates, list) else [rates] * len(units)
        if len(rates) != len(units) or not all(map(_is_number, rates)):
            fault(drop_key, "a number, or one per layer")
            rates = [0] * len(units)
        return Layers(
            hidden=tuple(units),
            activation=activation or "none",
            has_module=raw.get(act_key, default) not in (None, [None] * len(units)),
            slope=slope,
            batch_norm=name == "dnn" and flag("batch_norm"),
            has_dropout=tuple(rate > 0 for rate in rates),
        )

    dim = raw.get("embedding_dim")
    if not is_size(dim):
        fault("embedding_dim", "a size")
    if raw.get("model", "DIN") != "DIN":
        fault("model", "DIN")
    output = raw.get("attention_output_activation")
    words = ("none", *OUTPUT_ACTIVATIONS)
    word = "none" if output is None else str(output).lower()
    if word not in words:
        fault("attention_output_activation", f"null, {', '.join(OUTPUT_ACTIVATIONS)}")
        word = "none"
    task = raw.get("task", "binary_classification")
    if task not in ("binary_classification", "regression"):
        fault("task", "binary_classification or regression")
    max_len = raw.get("max_len") or 50  # LongCTR's default; the classic has its own
    if not is_size(max_len):
        fault("max_len", "a size")
    settings = Settings(
        place=place,
        raw=raw,
        dim=dim if is_size(dim) else 1,
        attention=layers("attention_hidden_units", [64], "attention_hidden", "Dice"),
        tower=layers("dnn_hidden_units", [512, 128, 64], "dnn", "ReLU"),
        output_activation=ACTIVATIONS.get(word, "none"),
        softmax=flag("din_use_softmax"),
        link="identity" if task == "regression" else "sigmoid",
        max_len=max_len if is_size(max_len) else 1,
    )
    refuse("a DIN's configuration that can be reproduced", faults, place)
    return settings


def _activation(value: object, num_layers: int) -> tuple[str, float | None]:
    """Find the spec's word for one activation or a list of equal ones; "" if none."""
    if isinstance(value, list | tuple):
        if len(value) != num_layers or len({str(v).lower() for v in value}) > 1:
            return "", None
        value = value[0] if value else None
    if value is None:
        return "none", None
    word = str(value).lower()
    return ACTIVATIONS.get(word, ""), 0.01 if word == "leakyrelu" else None


def is_size(value: object) -> TypeGuard[int]:
    """Tell whether a value of YAML or JSON is a positive whole number."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
