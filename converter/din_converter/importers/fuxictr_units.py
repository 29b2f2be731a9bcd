"""Which features of a FuxiCTR model attend to which, and which side each is on."""

from collections.abc import Collection, Mapping
from typing import Any

from din_converter.importers.description import refuse
from din_converter.importers.fuxictr_config import Settings
from din_converter.importers.fuxictr_files import Feature

__all__ = ["Units", "classic_units", "long_units", "sides_of"]

# One attention unit each: names of candidate features, and of their sequences.
Units = list[tuple[tuple[str, ...], tuple[str, ...]]]


def classic_units(
    features: Mapping[str, Feature], settings: Settings, place: str
) -> Units:
    """Read din_target_field and din_sequence_field: one pair per attention unit.

    A name alone and a tuple of names are a unit each; a nested list is a tuple.

    Raises
    ------
    ConversionError
        If they do not say which features, or FuxiCTR could not attend to those.
    """
    sides: list[list[tuple[str, ...]]] = []
    faults = []
    for key in ("din_target_field", "din_sequence_field"):
        value = settings.raw.get(key)
        listed: list[Any] = value if isinstance(value, list) else [value]
        entries = [tuple(e) if isinstance(e, list | tuple) else (e,) for e in listed]
        names = [name for entry in entries for name in entry]
        if key not in settings.raw:
            faults.append(f"no {key}")
        elif not names or not all(isinstance(n, str) for n in names) or () in entries:
            faults.append(f"{key} {value!r}")
        sides.append(entries)
    targets, sequences = sides
    if not faults and [len(u) for u in targets] != [len(u) for u in sequences]:
        faults.append(f"targets {targets!r} and sequences {sequences!r}")
    rule = "din_target_field and din_sequence_field with as many names in every unit"
    refuse(rule, faults, settings.place)
    units = list(zip(targets, sequences, strict=True))
    rule = "din_target_field and din_sequence_field that FuxiCTR can attend to"
    faults = _faults_of_types(units, features) or _faults_of_sizes(
        units, features, settings.dim
    )
    refuse(rule, faults, settings.place)
    _check_pooled(units, features, place)
    return units


def long_units(features: Mapping[str, Feature], place: str) -> Units:
    """Make LongCTR's one unit, over the features whose source is item."""
    items = [f for f in features.values() if f.source == "item"]
    faults = [f"{f.name} of type {f.type}" for f in items if f.type != "categorical"]
    faults += [
        f"{f.name}, the name of a history"
        for f in features.values()
        if f.name in {f"hist_{i.name}" for i in items}
    ]
    refuse(
        "categorical features of source item, each beside its history",
        faults if items else ["none"],
        place,
    )
    names = tuple(f.name for f in items)
    units = [(names, names)]
    _check_pooled(units, features, place)
    return units


def _faults_of_types(units: Units, features: Mapping[str, Feature]) -> list[str]:
    faults = []
    seen: set[str] = set()
    for targets, sequences in units:
        for names, kind in ((targets, "categorical"), (sequences, "sequence")):
            for name in names:
                f = features.get(name)
                if f is None or f.type != kind or f.pooling:
                    pooled = "pooled " if f is not None and f.pooling else ""
                    got = "unknown" if f is None else f"a {pooled}{f.type} feature"
                    faults.append(f"{name} is {got}, not a {kind} feature")
                elif name in seen and kind == "sequence":
                    faults.append(f"{name} is attended twice")
                seen.add(name)
    return faults


def _faults_of_sizes(
    units: Units, features: Mapping[str, Feature], dim: int
) -> list[str]:
    faults = []
    for targets, sequences in units:
        wanted = dim * len(targets)  # what the library's unit reads
        for names in (targets, sequences):
            width = sum(features[n].dim for n in names)
            if width != wanted:
                got = f"{' + '.join(names)} of width {width}"
                faults.append(f"{got}, not {len(names)} * embedding_dim = {wanted}")
        lengths = {n: features[n].max_len for n in sequences}
        if len(set(lengths.values())) > 1:
            faults.append(f"max_len {lengths} in one unit")
    return faults


def _check_pooled(units: Units, features: Mapping[str, Feature], place: str) -> None:
    attended = {name for _, sequences in units for name in sequences}
    faults = [
        f.name
        for f in features.values()
        if f.type == "sequence" and not f.pooling and f.name not in attended
    ]
    refuse("a feature_encoder in every sequence that is not attended", faults, place)


def sides_of(
    units: Units,
    features: Mapping[str, Feature],
    user_fields: Collection[str],
    candidate_fields: Collection[str],
) -> dict[str, str]:
    """Say which side each feature is on that is not a sequence of the attention."""
    attended = {name for _, sequences in units for name in sequences}
    targets = {name for names, _ in units for name in names}
    sides = {}
    for f in features.values():
        if f.name in attended - targets:
            continue
        by_type = "candidate" if f.type == "numeric" else "user"
        by_source = {"user": "user", "item": "candidate"}.get(f.source, by_type)
        sides[f.name] = "candidate" if f.name in targets else by_source
    for given, side in ((user_fields, "user"), (candidate_fields, "candidate")):
        unknown = [repr(name) for name in given if name not in sides]
        rule = "features with a side: " + ", ".join(sides)
        refuse(rule, unknown, f"{side}_fields")
        sides |= dict.fromkeys(given, side)
    both = [repr(name) for name in user_fields if name in candidate_fields]
    refuse("each feature on one side", both, "candidate_fields")
    wrong = [repr(name) for name in user_fields if name in targets]
    refuse("no target of the attention, a candidate field", wrong, "user_fields")
    return sides
