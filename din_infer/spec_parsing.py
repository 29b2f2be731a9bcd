"""Parsing of a spec: sections become parts, whose names may refer to earlier ones.

One file above 400 lines: the sections of the format refer to each other.
`docs/spec.md` describes every key.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from din_infer._kernels import HASHES, from_list
from din_infer.errors import InputError, ModelError
from din_infer.spec_parts import (
    Attention,
    Behavior,
    BehaviorField,
    Calibration,
    Dense,
    Derived,
    Embedded,
    Encoder,
    Field,
    ListText,
    Model,
    MultiHot,
    Part,
    Table,
    Tower,
    seed_rule,
)
from din_infer.spec_reading import (
    Section,
    as_float,
    as_int,
    check_name,
    is_int,
    is_number,
    is_text,
    shown,
)
from din_infer.spec_scales import (
    FLOAT32_END,
    parse_quantiles,
    parse_rising,
    parse_scale,
)
from din_infer.version import check_format

__all__ = ["ACTIVATIONS", "parse_spec"]

FORMAT = 1
ACTIVATIONS = ("dice", "row_dice", "prelu", "relu", "sigmoid", "silu", "none")
OUTPUT_ACTIVATIONS = ("none", "sigmoid", "relu", "silu")
INTERACTIONS = ("difference", "product", "outer")
INTS_AS = ("bytes", "text", "bytes4")
FLOATS_AS = ("bytes", "bytes4")
REDUCES = ("offset", "mod", "pmod", "abs")
SEEDED = ("xxh64", "xxh3_64", "murmur3_32", "murmur3_32_spark")
MAX_PREFIX = 1000  # characters
DICE_EPSILON = {"row_dice": 1e-3}
LAYERS = (
    ("hidden", "a list of sizes, each a positive whole number"),
    ("batch_norm", "true or false"),
    ("dice_epsilon", "a positive number"),
    ("dice_affine", "true or false"),
    ("dropout", "a number in [0, 1)"),
)


def parse_spec(source: dict[str, Any]) -> dict[str, Any]:
    """Check a whole spec; returns the members of `FeatureSpec` by name."""
    parser = _Parser(source)
    root = parser.root
    number = root.take("format", "a whole number")
    check_format(number, FORMAT, "format")
    parsed: dict[str, Any] = {
        key: root.take(key, "a string", None)
        for key in ("label", "weight", "group", "time")
    }
    model = root.section("model", {})
    attention = _parse_attention(model.section("attention", {}), Attention())
    parsers: dict[str, Callable[[Section], Any]] = {
        "user": lambda s: parser.parse_field(s, "user"),
        "candidate": lambda s: parser.parse_field(s, "candidate"),
        "derived": parser.parse_derived,
        "behavior": lambda s: parser.parse_behavior(s, attention),
        "multi_hot": parser.parse_multi_hot,
        "dense": parser.parse_dense,
    }
    for key, parse in parsers.items():
        parsed[key] = tuple(map(parse, root.sections(key)))
        if key == "candidate" and not parsed[key]:
            raise ModelError("at least one candidate field", "none", key)
    flat = (parsed[key] for key in parsers if key != "behavior")
    widths = {field.name: field.width for fields in flat for field in fields}
    tower = model.section("tower", {})
    parts = _parse_tower_inputs(tower, widths, parsed["behavior"])
    layers = Tower(**_parse_layers(tower, Tower()))
    tower.finish()
    parsed["model"] = Model(
        type=model.choose("type", ("din", "base"), "din"),
        pooling=model.choose("pooling", ("sum", "mean"), "sum"),
        attention=attention,
        tower=layers,
        link=model.choose("link", ("sigmoid", "identity"), "sigmoid"),
    )
    model.finish()
    last = root.section("calibration", {})
    parsed["calibration"] = Calibration(
        scale=last.take("scale", "a positive number", 1.0),
        offset=last.take("offset", "a finite number", 0.0),
    )
    last.finish()
    root.finish()
    _check_texts((*parsed["behavior"], *parsed["multi_hot"], *parsed["dense"]))
    return parsed | {"tables": parser.tables, "tower_inputs": parts}


def _parse_text(section: Section, default: ListText | None = None) -> ListText | None:
    """Read how lists are written where they are text; by default as `default` says."""
    separator = section.take("separator", "a string", None)
    form = section.choose("format", ("json",), None)
    if separator is not None and form is not None:
        raise ModelError("either `separator` or `format`", "both", section.place)
    if separator is None and form is None:
        return default
    return ListText(separator)


def _check_texts(lists: Iterable[Behavior | MultiHot | Dense]) -> None:
    """Raise ModelError where two parts would split the text of a column differently."""
    found: dict[str, tuple[str, tuple[ListText | None, str]]] = {}
    for part in lists:
        for c in (c for c in part.reads if c.is_list):
            name, how = found.setdefault(c.name, (part.name, (c.text, c.dtype)))
            if how != (c.text, c.dtype) and (how[0] or c.text):
                rule = f"one `separator`, `format` and `dtype` for `{c.name}`"
                raise ModelError(rule, f"others than in `{name}`", part.name)


def _parse_encoder(section: Section, dtype: str | None) -> tuple[Encoder, str]:
    """Return the encoder and the field's dtype ("string", "int64" or "float")."""
    kind = section.choose("type", ("hash", "vocab", "identity", "bucketize"))
    natural = {"hash": "string", "vocab": "string", "identity": "int64"}
    dtype = dtype or natural.get(kind, "float")
    keys = ("string", "int64")
    by_kind = {
        "hash": (*keys, "float"),
        "identity": ("int64",),
        "bucketize": ("float", "int64"),
    }
    allowed: tuple[str, ...] = by_kind.get(kind, keys)
    if dtype not in allowed:
        rule = f"dtype {' or '.join(allowed)} for a {kind} encoder"
        raise ModelError(rule, repr(dtype), section.place)
    if kind == "hash":
        encoder = _parse_hash(section, dtype)
    elif kind == "vocab":
        encoder = _parse_vocab(section, dtype)
    elif kind == "identity":
        rows = section.take("buckets", "a positive whole number below 2**31")
        unseen = section.choose("unseen", ("error", "missing"), "error")
        encoder = Encoder(kind, rows, unseen=unseen)
    else:
        encoder = _parse_bucketize(section)
    section.finish()
    return encoder, dtype


def _parse_uuid_as(
    section: Section, dtype: str, default: str | None = None
) -> str | None:
    if dtype != "string":
        return None
    found = section.choose("uuid_as", ("bytes", "text"), default)
    return None if found is None else str(found)


def _parse_hash(section: Section, dtype: str) -> Encoder:
    buckets = section.take("buckets", "a positive whole number below 2**31")
    reduce = section.choose("reduce", REDUCES, "offset")
    if reduce == "offset" and buckets < 2:
        raise ModelError("at least 2", buckets, section.at("buckets"))
    name = section.choose("hash", HASHES, "xxh64")
    if name == "siphash24":
        seed = section.take("seed", "a list of whole numbers", ())
    else:
        seed = section.take("seed", "a whole number", 0)
    rule = seed_rule(name, seed)
    if rule:
        got = list(seed) if isinstance(seed, tuple) else seed
        raise ModelError(rule, got, section.at("seed"))
    has_sign = section.take("alternate_sign", "true or false", False)
    if has_sign and reduce != "abs":
        rule = '`reduce = "abs"` beside `alternate_sign`'
        raise ModelError(rule, repr(reduce), section.at("reduce"))
    if has_sign and buckets >= 2**30:
        rule = "fewer than 2**30 buckets beside `alternate_sign`"
        raise ModelError(rule, buckets, section.at("buckets"))
    prefix = section.take("prefix", "a string", "")
    if len(prefix) > MAX_PREFIX:
        rule = f"at most {MAX_PREFIX} characters"
        raise ModelError(rule, len(prefix), section.at("prefix"))
    encoder = Encoder(
        "hash",
        2 * buckets if has_sign else buckets,
        name,
        seed,
        reduce,
        mask_value=_parse_mask(section, dtype),
        prefix=prefix,
        alternate_sign=has_sign,
    )
    return _parse_key(section, dtype, encoder)


def _parse_mask(section: Section, dtype: str) -> str | int | None:
    value: str | int | None
    value = section.take("mask_value", "a string or a whole number", None)
    kind = "string" if isinstance(value, str) else "int64"
    if value is not None and kind != dtype:
        rule = "none of a float" if dtype == "float" else f"a value of dtype {dtype}"
        raise ModelError(rule, repr(value), section.at("mask_value"))
    return value


def _parse_key(section: Section, dtype: str, encoder: Encoder) -> Encoder:
    """Read what of a value is hashed; by default what the encoder says."""
    is_float = dtype == "float"
    key, choices = ("float_as", FLOATS_AS) if is_float else ("int_as", INTS_AS)
    form = section.choose(key, choices, "bytes" if is_float else encoder.int_as)
    if encoder.prefix or encoder.hash == "murmur3_32_vw":
        what = "beside a prefix" if encoder.prefix else f"for {encoder.hash}"
        if is_float:
            raise ModelError(f"strings or integers {what}", "floats", section.place)
        if dtype == "int64" and form != "text":
            rule = f'`int_as = "text"` {what}'
            raise ModelError(rule, repr(form), section.at(key))
    uuid_as = _parse_uuid_as(section, dtype, encoder.uuid_as)
    return replace(encoder, int_as=form, uuid_as=uuid_as)


def _parse_vocab(section: Section, dtype: str) -> Encoder:
    values = section.take("values", "a list")
    unseen = section.choose("unseen", ("row", "missing", "error"), "row")
    # no Python per value of a long vocabulary, unless it is unusual or wrong
    if not set(map(type, values)) <= {str if dtype == "string" else int}:
        _check_values(values, dtype, section)
    uuid_as = _parse_uuid_as(section, dtype)
    if uuid_as == "bytes":
        _check_bytes(values, section)
    encoder = Encoder(
        "vocab",
        len(values) + 2,
        values=tuple(values),
        unseen=unseen,
        uuid_as=uuid_as,
    )
    try:
        _ = encoder.vocabulary
    except InputError as error:
        _check_values(values, dtype, section)
        raise ModelError("a vocabulary", error, section.place) from None
    return encoder


def _check_bytes(values: Iterable[Any], section: Section) -> None:
    """Raise ModelError at the text of a UUID, which equals no 16 bytes."""
    texts = from_list([v for v in values if is_text(v)], "values")
    found = texts.find_uuid(False, False)
    if found is not None:
        fix = 'Say uuid_as = "text".'
        place = section.at("values")
        got = repr(found[1].decode())
        raise ModelError("values that are no text of UUIDs", got, place, fix)


def _check_values(values: Iterable[Any], dtype: str, section: Section) -> None:
    """Raise ModelError at the first value that a vocabulary cannot hold."""
    seen: dict[str | int, int] = {}
    for i, value in enumerate(values):
        right = is_text(value) if dtype == "string" else is_int(value)
        if not right or (dtype == "int64" and not -(2**63) <= value < 2**63):
            rule = f"a value of dtype {dtype}"
            raise ModelError(rule, shown(value), section.at(f"values[{i}]"))
        first = seen.setdefault(value, i)
        if first != i:
            place, got = section.at("values"), f"{shown(value)} twice"
            fix = f"It is value {first + 1} and value {i + 1}: of a file, these lines."
            raise ModelError("each value once", got, place, fix)


def _parse_bucketize(section: Section) -> Encoder:
    if isinstance(section.values.get("boundaries"), dict):
        unfitted = section.section("boundaries")
        quantiles = parse_quantiles(unfitted)
        unfitted.finish()
        return Encoder("bucketize", quantiles + 1, quantiles=quantiles)
    boundaries = section.take("boundaries", "a list")
    values = parse_rising(boundaries, section.at("boundaries"))
    return Encoder("bucketize", len(values) + 2, boundaries=values)


def _parse_layers(section: Section, default: Attention | Tower) -> dict[str, Any]:
    activation = section.choose("activation", ACTIVATIONS, default.activation)
    if activation != default.activation:
        epsilon = DICE_EPSILON.get(activation, 1e-8)
        default = replace(default, activation=activation, dice_epsilon=epsilon)
    layers = {
        key: section.take(key, kind, getattr(default, key)) for key, kind in LAYERS
    }
    return {"activation": activation, **layers}


def _parse_attention(section: Section, default: Attention) -> Attention:
    kind = "a list of strings"
    interactions = section.take("interactions", kind, default.interactions)
    for i, name in enumerate(interactions):
        if name not in INTERACTIONS or name in interactions[:i]:
            rule = "one of " + ", ".join(INTERACTIONS) + ", each once"
            raise ModelError(rule, repr(name), section.at(f"interactions[{i}]"))
    output, key = default.output_activation, "output_activation"
    attention = Attention(
        **_parse_layers(section, default),
        interactions=tuple(i for i in INTERACTIONS if i in interactions),
        output_activation=section.choose(key, OUTPUT_ACTIVATIONS, output),
        softmax=section.take("softmax", "true or false", default.softmax),
        scale=section.take("scale", "a finite number", default.scale),
    )
    section.finish()
    return attention


def _check_seeded(encoder: Encoder, section: Section) -> None:
    """Raise ModelError where a hash cannot be the seed of the next column's."""
    if encoder.type != "hash" or encoder.hash not in SEEDED:
        rule = "one of the hashes " + ", ".join(SEEDED) + " beside `columns`"
        got = encoder.hash if encoder.type == "hash" else encoder.type
        raise ModelError(rule, repr(got), section.place)
    for key in ("mask_value", "prefix", "alternate_sign"):
        if section.has(key):
            raise ModelError(f"no `{key}` beside `columns`", key, section.at(key))


def _parse_column(
    value: object, place: str, embedded: Embedded
) -> tuple[str, str, Encoder]:
    """Read one of several columns: name, dtype and encoder."""
    section = Section({"column": value} if isinstance(value, str) else value, place)
    name = section.take("column", "a string")
    dtype = section.choose("dtype", ("string", "int64", "float"), embedded.dtype)
    encoder = _parse_key(section, dtype, replace(embedded.encoder, is_seeded=True))
    section.finish()
    return name, dtype, encoder


class _Parser:
    """Reads the sections in the order in which they may refer to each other."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.root = Section(raw, "")
        self.names: dict[str, str] = {}
        self.tables: dict[str, Table] = {}
        self.owners: dict[str, Any] = {}  # fields that can share their table
        self.candidates: dict[str, Field | Derived] = {}
        self.sources: dict[str, Field] = {}

    def claim(self, section: Section, name: str, place: str = "") -> str:
        place = place or section.at("name")
        if name in self.names:
            rule = f"a name not used before (`{self.names[name]}` has it)"
            raise ModelError(rule, repr(name), place)
        self.names[name] = place
        return name

    def embedded(
        self, section: Section, name: str, shares: str | None = None
    ) -> Embedded:
        """Read `shares`, or `dim` and `encoder`."""
        shares = section.take("shares", "a string", shares)
        if shares is not None:
            for key in ("dim", "encoder", "padding_row"):
                if section.has(key):
                    rule = f"no `{key}` beside a shared table"
                    raise ModelError(rule, key, section.at(key))
            owner = self.owners.get(shares)
            if owner is None:
                rule = "an earlier field with a table (" + ", ".join(self.owners) + ")"
                raise ModelError(rule, repr(shares), section.at("shares"))
            dtype = section.choose("dtype", (owner.dtype,), owner.dtype)
            return Embedded(name, dtype, owner.table, owner.dim, owner.encoder)
        dtype = section.choose("dtype", ("string", "int64", "float"), None)
        encoder, dtype = _parse_encoder(section.section("encoder"), dtype)
        dim = section.take("dim", "a positive whole number below 2**31")
        row = section.choose("padding_row", ("zero", "trained"), "zero")
        self.tables[name] = Table(name, encoder.rows, dim, row)
        return Embedded(name, dtype, name, dim, encoder)

    def with_columns(self, section: Section, embedded: Embedded) -> dict[str, Any]:
        """Read `column`, or `columns` that are hashed together; returns all members."""
        wanted = len(embedded.encoder.columns)
        rule = f"{wanted} `columns`" if wanted else "one `column`"
        rule += ", as the field whose table it shares has"
        if not section.has("columns"):
            name = section.take("column", "a string", embedded.name)
            if wanted:
                raise ModelError(rule, "none", section.at("columns"))
            return {**vars(embedded), "columns": (name,)}
        if section.has("column"):
            raise ModelError("either `column` or `columns`", "both", section.place)
        given = section.take("columns", "a list")
        if embedded.table != embedded.name:
            names = section.take("columns", "a list of strings")
            if len(names) != wanted:
                raise ModelError(rule, len(names), section.at("columns"))
            return {**vars(embedded), "columns": names}
        if not given:
            raise ModelError("at least one column", "none", section.at("columns"))
        _check_seeded(embedded.encoder, section.section("encoder"))
        parts = [
            _parse_column(value, section.at(f"columns[{i}]"), embedded)
            for i, value in enumerate(given)
        ]
        of_columns = [(dtype, replace(e, reduce="raw")) for _, dtype, e in parts]
        of_columns[-1] = parts[-1][1:]
        encoder = replace(embedded.encoder, columns=tuple(of_columns))
        names = tuple(name for name, _, _ in parts)
        mine = replace(embedded, encoder=encoder, dtype=parts[0][1])
        return {**vars(mine), "columns": names}

    def parse_field(self, section: Section, side: str) -> Field:
        name = self.claim(section, section.name())
        embedded = self.embedded(section, name)
        parsed = Field(**self.with_columns(section, embedded), side=side)
        section.finish()
        self.owners[name] = self.sources[name] = parsed
        if side == "candidate":
            self.candidates[name] = parsed
        return parsed

    def parse_derived(self, section: Section) -> Derived:
        name = self.claim(section, section.name())
        source = section.take("from", "a string")
        if source not in self.sources:
            rule = "a user or candidate field (" + ", ".join(self.sources) + ")"
            raise ModelError(rule, repr(source), section.at("from"))
        embedded = self.embedded(section, name)
        if embedded.table == name and embedded.encoder.quantiles:
            rule = "numbers, since a lookup has no rows to fit them to"
            place = section.section("encoder").at("boundaries")
            raise ModelError(rule, f"quantiles = {embedded.encoder.quantiles}", place)
        if embedded.encoder.columns:
            rule = "a field of one column, since a lookup holds single values"
            got = repr(section.values["shares"])
            raise ModelError(rule, got, section.at("shares"))
        rows = self.sources[source].encoder.rows
        lookup = _rows_of(section, "lookup", rows, embedded.dtype)
        weights = None
        if section.has("weights"):
            weights = _rows_of(section, "weights", rows, "float")
            for i, (ids, values) in enumerate(zip(lookup, weights, strict=True)):
                if len(ids) != len(values):
                    rule = f"{len(ids)} weights, as many as values in lookup[{i}]"
                    raise ModelError(rule, len(values), section.at(f"weights[{i}]"))
        pooling = section.choose("pooling", ("sum", "mean", "max"), "sum")
        empty = section.take("empty", "a finite number", 0.0)
        section.finish()
        parsed = Derived(
            **vars(embedded),
            source=source,
            side=self.sources[source].side,
            lookup=lookup,
            weights=weights,
            pooling=pooling,
            empty=empty,
        )
        self.owners[name] = parsed
        if parsed.side == "candidate":
            self.candidates[name] = parsed
        return parsed

    def ragged(self, section: Section, dtype: str) -> dict[str, Any]:
        """Read the keys that behavior sequences and multi-hot fields have alike."""
        pad = section.take("pad_value", "a string or a whole number", None)
        if pad is not None and isinstance(pad, str) != (dtype == "string"):
            rule = f"a value of dtype {dtype}"
            raise ModelError(rule, repr(pad), section.at("pad_value"))
        inside = section.choose("pad_inside", ("kept", "dropped"), "kept")
        length = section.take("length_column", "a string", None)
        if inside == "dropped" and length is not None:
            rule = '`pad_inside = "dropped"` or `length_column`'
            raise ModelError(rule, "both", section.at("length_column"))
        if inside == "dropped" and pad is None:
            raise ModelError("a `pad_value` to drop", "none", section.at("pad_inside"))
        return {
            "max_len": section.take("max_len", "a positive whole number below 2**31"),
            "padding": section.choose("padding", ("masked", "attended"), "masked"),
            "pad_value": pad,
            "pad_inside": inside,
            "length_column": length,
        }

    def parse_behavior(self, section: Section, default: Attention) -> Behavior:
        name = self.claim(section, section.name())
        query = section.take("query", "a list of strings", None)
        fields: list[BehaviorField] = []
        text = _parse_text(section)
        table = section.section("fields")
        for key, value in table.values.items():
            fields.append(
                self.parse_behavior_field(table, key, value, fields, query, text)
            )
        if not any(f.source is None for f in fields):
            raise ModelError("at least one column", "none", table.place)
        slots: tuple[tuple[str | None, int], ...]
        if query is None:
            slots = tuple((f.pairs, f.dim) for f in fields)
        else:
            for i, slot in enumerate(query):
                self.check_candidate(slot, section.at(f"query[{i}]"))
            slots = tuple((slot, self.candidates[slot].dim) for slot in query)
            width, given = sum(f.dim for f in fields), sum(dim for _, dim in slots)
            if width != given:
                rule = f"candidate fields of width {width} in all, as the fields have"
                raise ModelError(rule, given, section.at("query"))
        ragged = self.ragged(section, fields[0].dtype)
        attention = _parse_attention(section.section("attention", {}), default)
        orders, empties = ("oldest_first", "newest_first"), ("zero", "padding_row")
        parsed = Behavior(
            name=name,
            side="user",
            fields=tuple(fields),
            query=slots,
            order=section.choose("order", orders, "oldest_first"),
            empty_softmax=section.choose("empty_softmax", empties, "zero"),
            attention=attention,
            **ragged,
        )
        section.finish()
        return parsed

    def check_candidate(self, name: str, place: str) -> None:
        if name not in self.candidates:
            rule = "a candidate field (" + ", ".join(self.candidates) + ")"
            raise ModelError(rule, repr(name), place)

    def parse_behavior_field(
        self,
        table: Section,
        key: str,
        value: object,
        before: list[BehaviorField],
        query: tuple[str, ...] | None,
        text: ListText | None,
    ) -> BehaviorField:
        place = table.at(key)
        name = self.claim(table, check_name(key, place), place)
        if isinstance(value, str):
            value = {"shares" if query is not None else "pairs": value}
        section = Section(value, place)
        pairs = section.take("pairs", "a string", None)
        if pairs is not None:
            if query is not None:
                rule = "no `pairs` where the sequence has a `query`"
                raise ModelError(rule, repr(pairs), section.at("pairs"))
            self.check_candidate(pairs, section.at("pairs"))
        own = "encoder" in section.values
        shares = section.values.get("shares", pairs)
        embedded = self.embedded(section, name, None if own else pairs)
        if pairs is not None and self.candidates[pairs].dim != embedded.dim:
            rule = f"dim {self.candidates[pairs].dim}, as `{pairs}` has"
            raise ModelError(rule, embedded.dim, place)
        source = section.take("from", "a string", None)
        derived = self.owners.get(shares) if not own else None
        if isinstance(derived, Derived) != (source is not None):
            rule = "`from` beside a derived field, and nowhere else"
            raise ModelError(rule, repr(source), section.at("from"))
        if isinstance(derived, Derived):
            parent = next((f for f in before if f.name == source), None)
            wanted = self.sources[derived.source].encoder
            if parent is None or parent.source or parent.encoder != wanted:
                rule = f"an earlier field here that is encoded as `{derived.source}` is"
                raise ModelError(rule, repr(source), section.at("from"))
        if source is not None:
            text = None
            for key in (k for k in ("separator", "format") if section.has(k)):
                rule = f"no `{key}` in a field without a column"
                raise ModelError(rule, key, section.at(key))
        parsed = BehaviorField(
            **self.with_columns(section, embedded),
            pairs=pairs,
            source=source,
            derived=derived.name if isinstance(derived, Derived) else None,
            text=text if source is not None else _parse_text(section, text),
        )
        section.finish()
        if parsed.derived is None:
            self.owners[name] = parsed
        return parsed

    def parse_multi_hot(self, section: Section) -> MultiHot:
        name = self.claim(section, section.name())
        embedded = self.embedded(section, name)
        members = self.with_columns(section, embedded)
        parsed = MultiHot(
            **members,
            side=section.choose("side", ("user", "candidate")),
            pooling=section.choose("pooling", ("sum", "mean", "max")),
            empty=section.take("empty", "a finite number", 0.0),
            text=_parse_text(section),
            **self.ragged(section, members["dtype"]),
        )
        section.finish()
        self.owners[name] = parsed
        return parsed

    def parse_dense(self, section: Section) -> Dense:
        name = self.claim(section, section.name())
        parsed = Dense(
            name=name,
            column=section.take("column", "a string", name),
            side=section.choose("side", ("user", "candidate")),
            dim=section.take("dim", "a positive whole number below 2**31", 1),
            project=section.take("project", "a positive whole number below 2**31", 0),
            missing=section.take("missing", "a finite number", None),
            scale=None,
            text=_parse_text(section),
        )
        if parsed.text is not None and parsed.dim == 1:
            rule = "`separator` and `format` where a row has several values"
            raise ModelError(rule, "dim = 1", section.place)
        parsed = replace(parsed, scale=parse_scale(section, parsed.dim))
        is_scaled = parsed.scale is not None and parsed.scale.type != "none"
        if parsed.missing and not is_scaled and abs(parsed.missing) >= FLOAT32_END:
            rule, got = "a number that float32 holds", repr(parsed.missing)
            raise ModelError(rule, got, section.at("missing"))
        section.finish()
        return parsed


def _rows_of(
    section: Section, key: str, rows: int, dtype: str
) -> tuple[tuple[Any, ...], ...]:
    values = section.take(key, "a list")
    if len(values) != rows:
        rule = f"{rows} entries, one per id of the source"
        raise ModelError(rule, len(values), section.at(key))
    out = []
    for i, value in enumerate(values):
        row = value if isinstance(value, list | tuple) else [value]
        row = [v for v in row if v is not None]
        if dtype == "int64":
            row = [as_int(v) for v in row]
        elif dtype == "float":
            row = [as_float(v) for v in row]
        for v in row:
            right = isinstance(v, str) if dtype == "string" else is_number(v)
            if not right or (dtype == "int64" and not is_int(v)):
                place = section.at(f"{key}[{i}]")
                raise ModelError(f"values of dtype {dtype}", shown(v), place)
        out.append(tuple(row))
    return tuple(out)


def _parse_tower_inputs(
    tower: Section, widths: dict[str, int], behavior: tuple[Behavior, ...]
) -> tuple[Part, ...]:
    """Read what the tower concatenates: names, `history.query`, `history[0:8]`, ..."""
    sequences = {s.name: s for s in behavior}
    default = [n for n in widths if n not in sequences] + list(sequences)
    names = tower.take("inputs", "a list of strings", tuple(default))
    parts = []
    for i, text in enumerate(names):
        place = tower.at(f"inputs[{i}]")
        name, bracket, slice_text = text.partition("[")
        name, dot, member = name.partition(".")
        if not dot and name in widths:
            kind, width, start = "field", widths[name], 0
        elif name in sequences:
            sequence = sequences[name]
            kind, start, width = "interest", 0, sequence.width
            fields = {f.name: f for f in sequence.fields}
            if member in ("query", "product"):
                kind = member
            elif member in fields:
                before = sequence.fields[: sequence.fields.index(fields[member])]
                start, width = sum(f.dim for f in before), fields[member].dim
            elif dot:
                rule = "query, product or a field of the sequence after the dot"
                raise ModelError(rule, repr(text), place)
        else:
            known = ", ".join([*widths, *sequences])
            raise ModelError(f"one of {known}", repr(text), place)
        stop = start + width
        if bracket:
            start, stop = _parse_slice(slice_text, start, stop, text, place)
        parts.append(Part(kind, name, start, stop))
    if not parts:
        raise ModelError("at least one input", "none", tower.at("inputs"))
    return tuple(parts)


def _parse_slice(
    slice_text: str, start: int, stop: int, text: str, place: str
) -> tuple[int, int]:
    first, colon, rest = slice_text.partition(":")
    last = rest.removesuffix("]")
    if colon and rest.endswith("]") and first.isdecimal() and last.isdecimal():
        a, b = start + int(first), start + int(last)
        if a < b <= stop:
            return a, b
    rule = f"a slice [a:b] with 0 <= a < b <= {stop - start}"
    raise ModelError(rule, repr(text), place)
