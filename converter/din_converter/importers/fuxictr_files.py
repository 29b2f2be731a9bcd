"""The state_dict, feature_map.json and feature_vocab.json of FuxiCTR 2.x.

They are read and checked; no code in them runs. All faults of one file are one
`ConversionError`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from din_converter.importers.description import read_json_object, refuse
from din_converter.importers.fuxictr_config import Settings, is_size, refuse_old
from din_converter.importers.state import bare_keys, weights_in
from din_converter.importers.unpickle import read_plain
from din_infer.errors import ConversionError, ModelError

__all__ = ["Feature", "read_features", "read_state", "read_vocabularies"]

POOLINGS = {"layers.MaskedAveragePooling()": "mean", "layers.MaskedSumPooling()": "sum"}
NO_ENCODER = (None, "", "null", "None", "none")


@dataclass(frozen=True)
class Feature:
    """One feature of the map that has a table (or, numeric, a vector) of its own name.

    `owner` is the feature whose table it reads, itself where it shares none; `pooling`
    is "mean", "sum" or "" (as it is); `keeps` is the end that a longer list keeps;
    `is_pretrained` that the table may be inside a module of its own.
    """

    name: str
    type: str
    source: str
    owner: str
    dim: int
    rows: int
    max_len: int
    pooling: str
    keeps: str
    is_pretrained: bool


def read_state(path: Path) -> dict[str, Any]:
    """Read the state_dict of a ``.model`` file.

    Raises
    ------
    ConversionError
        If it is no state_dict, or one of FuxiCTR 1.x.

    Notes
    -----
    Tensors and plain values are read as data: no code in the file runs.
    """
    rule = "the state_dict that FuxiCTR's save_weights wrote"
    try:
        content = read_plain(path, rule)
    except ModelError as error:
        raise ConversionError(**vars(error)) from None
    content = weights_in(content)
    if not isinstance(content, Mapping) or not all(isinstance(k, str) for k in content):
        raise ConversionError(rule, f"a {type(content).__name__}", str(path))
    content = bare_keys(content)
    if any(k.startswith("dnn.dnn.") for k in content):
        refuse_old("keys like dnn.dnn.0.weight", str(path))
    return content


def read_features(path: Path, settings: Settings) -> dict[str, Feature]:
    """Read a feature_map.json as the configuration has FuxiCTR read it.

    Returns
    -------
    dict of Feature
        In the order of the tower's input; without those of type meta.

    Raises
    ------
    ConversionError
        If the file is no feature map, belongs to another dataset, or has features that
        cannot be reproduced, all of which are named.
    """
    content = read_json_object(path)
    listed = content.get("features")
    if not isinstance(listed, list) or not all(
        isinstance(f, dict) and all(isinstance(v, dict) for v in f.values())
        for f in listed
    ):
        rule = "`features`, a list of objects {name: {..}}"
        raise ConversionError(rule, repr(listed)[:80], str(path))
    ours, theirs = settings.raw.get("dataset_id"), content.get("dataset_id")
    if ours is not None and ours != theirs:
        rule = f"dataset_id {ours!r}, as in {settings.place}"
        raise ConversionError(rule, repr(theirs), str(path))
    raw = {name: dict(spec) for f in listed for name, spec in f.items()}
    raw = _overridden(raw, settings, str(path))
    faults: list[str] = []
    features: dict[str, Feature] = {}
    for name, spec in raw.items():
        if spec.get("type") != "meta":
            found = _feature(name, spec, settings.dim, features)
            if isinstance(found, Feature):
                features[name] = found
            else:
                faults.append(f"{name}: {found}")
    refuse("features that can be reproduced", faults, str(path))
    return features


def _overridden(
    raw: dict[str, dict[str, Any]], settings: Settings, place: str
) -> dict[str, dict[str, Any]]:
    """Apply the configuration's use_features and feature_specs."""
    chosen = settings.raw.get("use_features") or list(raw)
    unknown = [repr(n) for n in chosen if n not in raw]
    for more in settings.raw.get("feature_specs") or []:
        names = more.get("name") if isinstance(more, Mapping) else None
        for name in names if isinstance(names, list) else [names]:
            if name not in raw:
                unknown.append(repr(name))
                continue
            raw[name] |= {k: v for k, v in more.items() if k != "name"}
    rule = f"the features that {settings.place} names"
    refuse(rule, [f"no {n}" for n in unknown], place)
    return {n: raw[n] for n in chosen}


def _feature(
    name: str, spec: Mapping[str, Any], dim: int, before: Mapping[str, Feature]
) -> Feature | str:
    """Read one feature, or say why that cannot be."""
    kind = spec.get("type")
    if kind not in ("numeric", "categorical", "sequence"):
        return f"type {kind!r}"
    dim = spec.get("embedding_dim", dim)
    if spec.get("category_processor") == "hash_bucket":
        return "category_processor 'hash_bucket', which FuxiCTR does not encode"
    encoder = spec.get("feature_encoder")
    encoder = encoder[0] if isinstance(encoder, list) and len(encoder) == 1 else encoder
    pooling = ""
    if not isinstance(encoder, str | None) or encoder not in NO_ENCODER:
        pooling = POOLINGS.get("".join(str(encoder).split()), "")
        if not pooling or kind != "sequence":
            return f"feature_encoder {encoder!r}"
    sizes: dict[str, Any] = {"embedding_dim": dim}
    if kind != "numeric":
        sizes["vocab_size"] = spec.get("vocab_size")
    if kind == "sequence":
        sizes["max_len"] = spec.get("max_len")
    wrong = [f"{k} {v!r}" for k, v in sizes.items() if not is_size(v)]
    if wrong:
        return ", ".join(wrong)
    if kind == "sequence" and spec.get("padding_idx", 0) not in (0, None):
        return f"padding_idx {spec['padding_idx']!r}, where DIN's mask takes 0"
    # FuxiCTR shares a table only with a feature that is earlier in the map.
    owner = before.get(str(spec.get("share_embedding")))
    if owner is not None and (kind == "numeric") != (owner.type == "numeric"):
        return f"share_embedding {owner.name!r} of type {owner.type!r}"
    return Feature(
        name=name,
        type=kind,
        source=str(spec.get("source") or ""),
        owner=name if owner is None else owner.owner,
        dim=dim if owner is None else owner.dim,
        rows=sizes.get("vocab_size", 1) if owner is None else owner.rows,
        max_len=sizes.get("max_len", 0),
        pooling=pooling,
        # keras' pad_sequences cuts a list where it pads it
        keeps="last" if spec.get("padding") == "pre" else "first",
        is_pretrained="pretrained_emb" in spec,
    )


def read_vocabularies(
    path: Path, features: Mapping[str, Feature]
) -> dict[str, list[str]]:
    """Read, per feature that owns a table, its values in the order of their ids.

    Raises
    ------
    ConversionError
        If a vocabulary is missing, its ids are not __PAD__ = 0, the values 1.. without
        a gap, and __OOV__ last, or features that share a table disagree.
    """
    content = read_json_object(path)
    out: dict[str, list[str]] = {}
    faults = []
    for f in features.values():
        if f.type == "numeric":
            continue
        vocabulary = content.get(f.name)
        if not isinstance(vocabulary, dict):
            faults.append(f"no {f.name}")
        elif f.owner != f.name:
            if vocabulary != content.get(f.owner):
                faults.append(f"{f.name} other than {f.owner}, whose table it shares")
        elif sorted(map(repr, vocabulary.values())) != sorted(map(repr, range(f.rows))):
            faults.append(f"{f.name} with ids that are not 0..{f.rows - 1}")
        else:
            out[f.name] = sorted(vocabulary, key=vocabulary.__getitem__)
            if (out[f.name][0], out[f.name][-1]) != ("__PAD__", "__OOV__"):
                faults.append(f"{f.name} from {out[f.name][0]} to {out[f.name][-1]}")
            out[f.name] = out[f.name][1:-1]
    rule = "per feature __PAD__ = 0, values from 1 without a gap, __OOV__ last"
    refuse(rule, faults, str(path), "Leave the vocabulary out to send ids.")
    return out
