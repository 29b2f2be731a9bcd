"""FeatureSpec: what a model reads, written as TOML or JSON, kept inside the model.

One file above 400 lines: the format is one contract, and its parts refer to each other.
`docs/spec.md` describes every key. Letters: B requests, N candidates, T positions,
K dense values.
"""

import difflib
import itertools
import json
import math
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from din_infer._kernels import HASHES, Vocabulary
from din_infer.encode import FeatureEncoder, seed_rule
from din_infer.errors import InputError, ModelError
from din_infer.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "ANY_LENGTH",
    "Attention",
    "Behavior",
    "BehaviorField",
    "Calibration",
    "Dense",
    "Derived",
    "Encoder",
    "FeatureSpec",
    "Field",
    "Input",
    "Model",
    "MultiHot",
    "Part",
    "Table",
    "Tower",
]

FORMAT = 1
ACTIVATIONS = ("dice", "row_dice", "prelu", "relu", "sigmoid", "silu", "none")
OUTPUT_ACTIVATIONS = ("none", "sigmoid", "relu", "silu")
INTERACTIONS = ("difference", "product", "outer")
REDUCES = ("offset", "mod", "pmod", "abs")
RESERVED = ("request_of_candidate", "logit", "score")
DICE_EPSILON = {"row_dice": 1e-3}
# the largest `max_len`: of a model that takes lists of any length
ANY_LENGTH = 2**31 - 1
_MISSING: Any = object()


# --------------------------------------------------------------------------- reading


class _Section:
    """One table of the spec: takes keys, remembers the place, refuses the rest."""

    def __init__(self, values: object, place: str) -> None:
        if not isinstance(values, Mapping):
            raise ModelError("a table", repr(values), place)
        self.values = dict(values)
        self.place = place
        self.known: list[str] = []

    def at(self, key: str) -> str:
        return f"{self.place}.{key}" if self.place else key

    def has(self, key: str) -> bool:
        self.known.append(key)
        return key in self.values

    def take(self, key: str, kind: str, default: Any = _MISSING) -> Any:  # noqa: ANN401
        self.known.append(key)
        if key not in self.values:
            if default is _MISSING:
                near = difflib.get_close_matches(key, [str(k) for k in self.values], 1)
                fix = f"Is `{near[0]}` meant to be `{key}`?" if near else ""
                raise ModelError(kind, "nothing", self.at(key), fix)
            return default
        value = self.values[key]
        if not _KINDS[kind](value):
            raise ModelError(kind, repr(value), self.at(key))
        if kind == "a list of strings" or kind.startswith("a list of sizes"):
            return tuple(value)
        floating = ("a finite number", "a positive number", "a number in [0, 1)")
        return float(value) if kind in floating else value

    def choose(self, key: str, choices: Iterable[str], default: Any = _MISSING) -> Any:  # noqa: ANN401
        value = self.take(key, "a string", default)
        if value is not default and value not in tuple(choices):
            raise ModelError("one of " + ", ".join(choices), repr(value), self.at(key))
        return value

    def name(self, key: str = "name") -> str:
        value: str = self.take(key, "a string")
        return _check_name(value, self.at(key))

    def sections(self, key: str) -> list["_Section"]:
        values = self.take(key, "a list of tables", [])
        return [_Section(v, f"{self.at(key)}[{i}]") for i, v in enumerate(values)]

    def finish(self) -> None:
        for key in self.values:
            if key not in self.known:
                rule = "one of the keys " + ", ".join(dict.fromkeys(self.known))
                raise ModelError(rule, repr(key), self.place or "spec")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    if _is_int(value):
        return abs(value) < 2**1000  # type: ignore[arg-type]
    return isinstance(value, float) and math.isfinite(value)


def _is_text(value: object) -> bool:
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:  # a lone surrogate
        return False


def _is_size(value: object) -> bool:
    return _is_int(value) and 0 < value < 2**31  # type: ignore[operator]


_KINDS: dict[str, Callable[[Any], bool]] = {
    "a string": lambda v: _is_text(v) and v != "",
    "true or false": lambda v: isinstance(v, bool),
    "a whole number": _is_int,
    "a positive whole number below 2**31": _is_size,
    "a finite number": _is_number,
    "a positive number": lambda v: _is_number(v) and v > 0,
    "a number in [0, 1)": lambda v: _is_number(v) and 0 <= v < 1,
    "a string or a whole number": lambda v: (
        _is_text(v) or (_is_int(v) and -(2**63) <= v < 2**63)
    ),
    "a list": lambda v: isinstance(v, list | tuple),
    "a list of strings": lambda v: (
        isinstance(v, list | tuple) and all(_is_text(x) for x in v)
    ),
    "a list of sizes, each a positive whole number": lambda v: (
        isinstance(v, list | tuple) and all(_is_size(x) for x in v)
    ),
    "a list of tables": lambda v: (
        isinstance(v, list | tuple) and all(isinstance(x, Mapping) for x in v)
    ),
    "a table": lambda v: isinstance(v, Mapping),
}


def _check_name(value: str, place: str) -> str:
    if not _is_text(value) or not value:
        raise ModelError("a string", repr(value), place)
    if any(c in value for c in ".[]") or value != value.strip():
        rule = "a name without '.', '[', ']' or blanks around it"
        fix = "Give the field a plain name and set `column` to the column's own."
        raise ModelError(rule, repr(value), place, fix)
    if value in RESERVED:
        raise ModelError("a name that is not reserved", repr(value), place)
    return value


# -------------------------------------------------------------------------- the parts


@dataclass(frozen=True)
class Encoder:
    """How a raw value becomes an id; `rows` is the size of the table it needs.

    `type` is "hash", "vocab", "identity" or "bucketize"; only the members of that type
    mean anything. `unseen` is "row" (vocab: the last row), "missing" (id 0) or "error".
    """

    type: str
    rows: int
    hash: str = "xxh64"
    seed: int = 0
    reduce: str = "offset"
    int_as: str = "bytes"
    values: tuple[str, ...] | tuple[int, ...] = field(default=(), repr=False)
    unseen: str = "error"
    boundaries: tuple[float, ...] = ()

    @lazy
    def vocabulary(self) -> Vocabulary | None:
        """The hash table of the values; made once. None without values."""
        if not self.values:
            return None
        dtype = "string" if isinstance(self.values[0], str) else "int64"
        return Vocabulary(list(self.values), dtype)

    def __getstate__(self) -> dict[str, Any]:
        # The table is made again where it is needed.
        return {k: v for k, v in self.__dict__.items() if k != "vocabulary"}


@dataclass(frozen=True)
class Table:
    """One embedding table: float32 [rows, dim]; row 0 is zero, or trained."""

    name: str
    rows: int
    dim: int
    padding_row: str


@dataclass(frozen=True)
class Field:
    """One value per request (`side` "user") or per candidate (`side` "candidate")."""

    name: str
    column: str
    side: str
    dtype: str
    table: str
    dim: int
    encoder: Encoder


@dataclass(frozen=True)
class Derived:
    """A feature looked up from another field's id; it has no column of its own.

    `lookup` holds, per row of the source's table, the raw values (zero or more) that
    `encoder` turns into ids; `weights`, of the same shape, multiply their embeddings.
    """

    name: str
    source: str
    side: str
    dtype: str
    table: str
    dim: int
    encoder: Encoder
    lookup: tuple[tuple[str | int | float, ...], ...] = field(repr=False)
    weights: tuple[tuple[float, ...], ...] | None = field(repr=False)
    pooling: str
    empty: float


@dataclass(frozen=True)
class BehaviorField:
    """One of the parallel columns of a behavior sequence.

    `pairs` is the candidate field that stands opposite it in the query (None: zeros).
    `source` names the behavior field a derived one reads its ids from, `derived` the
    `Derived` whose lookup it uses; such a field has no column.
    """

    name: str
    column: str
    dtype: str
    table: str
    dim: int
    encoder: Encoder
    pairs: str | None
    source: str | None
    derived: str | None


@dataclass(frozen=True)
class Attention:
    """The local activation unit: hidden widths, activation and score treatment."""

    hidden: tuple[int, ...] = (80, 40)
    activation: str = "dice"
    batch_norm: bool = False
    dice_epsilon: float = 1e-8
    dice_affine: bool = False
    dropout: float = 0.0
    interactions: tuple[str, ...] = ("difference", "product")
    output_activation: str = "none"
    softmax: bool = False
    scale: float = 1.0


@dataclass(frozen=True)
class Behavior:
    """A behavior sequence, attended. `query` lists (candidate field or None, width)."""

    name: str
    fields: tuple[BehaviorField, ...]
    query: tuple[tuple[str | None, int], ...]
    max_len: int
    order: str
    padding: str
    empty_softmax: str
    pad_value: str | int | None
    pad_inside: str
    length_column: str | None
    attention: Attention

    @property
    def width(self) -> int:
        """D, the width of a behavior's concatenated embeddings."""
        return sum(f.dim for f in self.fields)


@dataclass(frozen=True)
class MultiHot:
    """A ragged field that is pooled to [B or N, dim]; `empty` fills an empty one."""

    name: str
    column: str
    side: str
    dtype: str
    table: str
    dim: int
    encoder: Encoder
    pooling: str
    max_len: int
    padding: str
    pad_value: str | int | None
    pad_inside: str
    length_column: str | None
    empty: float


@dataclass(frozen=True)
class Dense:
    """`dim` (K) float values; `project` > 0 maps them by a [project, K] matrix."""

    name: str
    column: str
    side: str
    dim: int
    missing: float | None
    project: int

    @property
    def width(self) -> int:
        """Values this field gives the tower."""
        return self.project or self.dim


@dataclass(frozen=True)
class Part:
    """One slice of the tower's input.

    `kind` is "field" (embedding, pooled or dense field `name`) or, of the sequence
    `name`, "interest", "query" or "product" (their elementwise product); columns
    `start`..`stop` of it are taken.
    """

    kind: str
    name: str
    start: int
    stop: int

    @property
    def width(self) -> int:
        """Columns this part gives the tower."""
        return self.stop - self.start


@dataclass(frozen=True)
class Tower:
    """The MLP over all features, ending in one logit."""

    hidden: tuple[int, ...] = (200, 80)
    activation: str = "dice"
    batch_norm: bool = False
    dice_epsilon: float = 1e-8
    dice_affine: bool = False
    dropout: float = 0.0


@dataclass(frozen=True)
class Model:
    """What is built over the fields; `type` "base" pools the behaviors instead."""

    type: str
    pooling: str
    attention: Attention
    tower: Tower
    link: str


@dataclass(frozen=True)
class Calibration:
    """score = link(scale * logit + offset)."""

    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True)
class Input:
    """One input of the graph: its name, dtype, symbolic shape, and the table's rows.

    `rows` is None where the values are not ids. Axes are "B", "N", "<name>.T" or sizes.
    `fixed_length` is T where padding is attended, so that T may not vary.
    """

    name: str
    dtype: str
    shape: tuple[str | int, ...]
    rows: int | None = None
    fixed_length: int | None = None


# ------------------------------------------------------------------------- the parsing


def _copy(value: Any) -> Any:  # noqa: ANN401
    """Copy nested tables and lists; a long list of values costs little."""
    nested = (Mapping, list, tuple)
    if isinstance(value, Mapping):
        return {k: _copy(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        copied = [_copy(v) if isinstance(v, nested) else v for v in value]
        return copied if isinstance(value, list) else tuple(copied)
    return value


def _read_lines(section: _Section, key: str, folder: Path) -> list[str]:
    path = folder / section.take(key, "a string")
    try:
        # not splitlines: a value may hold any of Unicode's other line breaks
        text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
        return text.removesuffix("\n").split("\n") if text else []
    except (OSError, ValueError) as error:
        rule = "a readable UTF-8 file, one value per line"
        raise ModelError(rule, f"{path}: {error}", section.at(key)) from None


def _inline_files(raw: dict[str, Any], folder: Path | None) -> None:
    """Replace `values_file`, `lookup_file` and `weights_file` by their contents.

    Integers that stand there as text become integers. Without a folder files are
    refused: a spec inside a model may not open any.
    """

    def walk(value: object, place: str) -> None:
        if isinstance(value, list):
            for i, item in enumerate(value):
                walk(item, f"{place}[{i}]")
        if not isinstance(value, dict):
            return
        named = place.endswith(".fields")  # its keys are names, not words of the format
        contents = () if named else ("values", "lookup", "weights")
        for name in contents:
            key = f"{name}_file"
            if key in value:
                if folder is None:
                    rule = f"`{name}` itself, since only a spec file may name files"
                    where = f"{place}.{key}" if place else key
                    raise ModelError(rule, repr(value[key]), where)
                section = _Section(value, place)
                if name in value:
                    rule = f"either `{name}` or `{key}`"
                    raise ModelError(rule, "both", section.at(key))
                lines = _read_lines(section, key, folder)
                value[name] = lines if name == "values" else list(map(str.split, lines))
                del value[key]
        for key, item in value.items():
            if key not in contents:  # which may be long, and hold no tables
                walk(item, f"{place}.{key}" if place else key)
        encoder = value.get("encoder")
        if value.get("dtype") == "int64" and isinstance(encoder, dict):
            texts = encoder.get("values")
            if isinstance(texts, list | tuple) and str in set(map(type, texts)):
                encoder["values"] = [_as_int(v) for v in texts]

    walk(raw, "")


def _parse_encoder(section: _Section, dtype: str | None) -> tuple[Encoder, str]:
    """Return the encoder and the field's dtype ("string", "int64" or "float")."""
    kinds = ("hash", "vocab", "identity", "bucketize")
    kind = section.choose("type", kinds)
    natural = {"hash": "string", "vocab": "string", "identity": "int64"}
    dtype = dtype or natural.get(kind, "float")
    allowed = {
        "hash": ("string", "int64"),
        "vocab": ("string", "int64"),
        "identity": ("int64",),
        "bucketize": ("float", "int64"),
    }[kind]
    if dtype not in allowed:
        rule = f"dtype {' or '.join(allowed)} for a {kind} encoder"
        raise ModelError(rule, repr(dtype), section.place)
    if kind == "hash":
        encoder = _parse_hash(section)
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


def _parse_hash(section: _Section) -> Encoder:
    buckets = section.take("buckets", "a positive whole number below 2**31")
    reduce = section.choose("reduce", REDUCES, "offset")
    if reduce == "offset" and buckets < 2:
        raise ModelError("at least 2", buckets, section.at("buckets"))
    name = section.choose("hash", HASHES, "xxh64")
    seed = section.take("seed", "a whole number", 0)
    rule = seed_rule(name, seed)
    if rule:
        raise ModelError(rule, seed, section.at("seed"))
    return Encoder(
        "hash",
        buckets,
        hash=name,
        seed=seed,
        reduce=reduce,
        int_as=section.choose("int_as", ("bytes", "text"), "bytes"),
    )


def _parse_vocab(section: _Section, dtype: str) -> Encoder:
    values = section.take("values", "a list")
    unseen = section.choose("unseen", ("row", "missing", "error"), "row")
    # no Python per value of a long vocabulary, unless it is unusual or wrong
    if not set(map(type, values)) <= {str if dtype == "string" else int}:
        _check_values(values, dtype, section)
    encoder = Encoder("vocab", len(values) + 2, values=tuple(values), unseen=unseen)
    try:
        _ = encoder.vocabulary
    except InputError as error:
        _check_values(values, dtype, section)
        raise ModelError("a vocabulary", error, section.place) from None
    return encoder


def _check_values(values: Iterable[Any], dtype: str, section: _Section) -> None:
    """Raise ModelError at the first value that a vocabulary cannot hold."""
    seen: dict[str | int, int] = {}
    for i, value in enumerate(values):
        right = _is_text(value) if dtype == "string" else _is_int(value)
        if not right or (dtype == "int64" and not -(2**63) <= value < 2**63):
            rule = f"a value of dtype {dtype}"
            raise ModelError(rule, repr(value), section.at(f"values[{i}]"))
        if seen.setdefault(value, i) != i:
            got = f"{value!r} twice"
            raise ModelError("each value once", got, section.at("values"))


def _as_int(value: object) -> object:
    """Read an integer that a text file gave as text; leave all else as it is."""
    try:
        return int(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _as_float(value: object) -> object:
    """Read a number that a text file gave as text; leave all else as it is."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _parse_bucketize(section: _Section) -> Encoder:
    boundaries = section.take("boundaries", "a list")
    rising = all(_is_number(b) for b in boundaries) and all(
        a < b for a, b in itertools.pairwise(boundaries)
    )
    if not rising:
        rule = "rising finite numbers"
        raise ModelError(rule, repr(boundaries), section.at("boundaries"))
    values = tuple(float(b) for b in boundaries)
    return Encoder("bucketize", len(values) + 2, boundaries=values)


def _parse_layers(section: _Section, default: Attention | Tower) -> dict[str, Any]:
    activation = section.choose("activation", ACTIVATIONS, default.activation)
    if activation == default.activation:
        epsilon = default.dice_epsilon
    else:
        epsilon = DICE_EPSILON.get(activation, 1e-8)
    sizes = "a list of sizes, each a positive whole number"
    return {
        "hidden": section.take("hidden", sizes, default.hidden),
        "activation": activation,
        "batch_norm": section.take("batch_norm", "true or false", default.batch_norm),
        "dice_epsilon": section.take("dice_epsilon", "a positive number", epsilon),
        "dice_affine": section.take(
            "dice_affine", "true or false", default.dice_affine
        ),
        "dropout": section.take("dropout", "a number in [0, 1)", default.dropout),
    }


def _parse_attention(section: _Section, default: Attention) -> Attention:
    interactions = section.take(
        "interactions", "a list of strings", default.interactions
    )
    for i, name in enumerate(interactions):
        if name not in INTERACTIONS or name in interactions[:i]:
            rule = "one of " + ", ".join(INTERACTIONS) + ", each once"
            raise ModelError(rule, repr(name), section.at(f"interactions[{i}]"))
    attention = Attention(
        **_parse_layers(section, default),
        interactions=tuple(i for i in INTERACTIONS if i in interactions),
        output_activation=section.choose(
            "output_activation", OUTPUT_ACTIVATIONS, default.output_activation
        ),
        softmax=section.take("softmax", "true or false", default.softmax),
        scale=section.take("scale", "a finite number", default.scale),
    )
    section.finish()
    return attention


class _Parser:
    """Reads the sections in the order in which they may refer to each other."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.root = _Section(raw, "")
        self.names: dict[str, str] = {}
        self.tables: dict[str, Table] = {}
        self.owners: dict[str, Any] = {}  # fields that can share their table
        self.candidates: dict[str, Field | Derived] = {}
        self.sources: dict[str, Field] = {}

    def claim(self, section: _Section, name: str, place: str = "") -> str:
        place = place or section.at("name")
        if name in self.names:
            rule = f"a name not used before (`{self.names[name]}` has it)"
            raise ModelError(rule, repr(name), place)
        self.names[name] = place
        return name

    def table_of(
        self, section: _Section, name: str, shares: str | None = None
    ) -> tuple[str, str, int, Encoder]:
        """Read `shares`, or `dim` and `encoder`: (dtype, table, dim, encoder)."""
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
            return dtype, owner.table, owner.dim, owner.encoder
        dtype = section.choose("dtype", ("string", "int64", "float"), None)
        encoder_table = _Section(
            section.take("encoder", "a table"), section.at("encoder")
        )
        encoder, dtype = _parse_encoder(encoder_table, dtype)
        dim = section.take("dim", "a positive whole number below 2**31")
        row = section.choose("padding_row", ("zero", "trained"), "zero")
        self.tables[name] = Table(name, encoder.rows, dim, row)
        return dtype, name, dim, encoder

    def parse_field(self, section: _Section, side: str) -> Field:
        name = self.claim(section, section.name())
        column = section.take("column", "a string", name)
        dtype, table, dim, encoder = self.table_of(section, name)
        section.finish()
        parsed = Field(name, column, side, dtype, table, dim, encoder)
        self.owners[name] = self.sources[name] = parsed
        if side == "candidate":
            self.candidates[name] = parsed
        return parsed

    def parse_derived(self, section: _Section) -> Derived:
        name = self.claim(section, section.name())
        source = section.take("from", "a string")
        if source not in self.sources:
            rule = "a user or candidate field (" + ", ".join(self.sources) + ")"
            raise ModelError(rule, repr(source), section.at("from"))
        dtype, table, dim, encoder = self.table_of(section, name)
        rows = self.sources[source].encoder.rows
        lookup = _rows_of(section, "lookup", rows, dtype)
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
            name=name,
            source=source,
            side=self.sources[source].side,
            dtype=dtype,
            table=table,
            dim=dim,
            encoder=encoder,
            lookup=lookup,
            weights=weights,
            pooling=pooling,
            empty=empty,
        )
        self.owners[name] = parsed
        if parsed.side == "candidate":
            self.candidates[name] = parsed
        return parsed

    def ragged(self, section: _Section, dtype: str) -> dict[str, Any]:
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

    def parse_behavior(self, section: _Section, default: Attention) -> Behavior:
        name = self.claim(section, section.name())
        query = section.take("query", "a list of strings", None)
        fields: list[BehaviorField] = []
        table = _Section(section.take("fields", "a table"), section.at("fields"))
        for key, value in table.values.items():
            fields.append(self.parse_behavior_field(table, key, value, fields, query))
        if not any(f.source is None for f in fields):
            raise ModelError("at least one column", "none", table.place)
        slots: tuple[tuple[str | None, int], ...]
        if query is None:
            slots = tuple((f.pairs, f.dim) for f in fields)
        else:
            for i, slot in enumerate(query):
                self.check_candidate(slot, section.at(f"query[{i}]"))
            slots = tuple((slot, self.candidates[slot].dim) for slot in query)
            widths = (sum(f.dim for f in fields), sum(width for _, width in slots))
            if widths[0] != widths[1]:
                rule = (
                    f"candidate fields of width {widths[0]} in all, as the fields have"
                )
                raise ModelError(rule, widths[1], section.at("query"))
        ragged = self.ragged(section, fields[0].dtype)
        attention = default
        if section.has("attention"):
            attention = _parse_attention(
                _Section(section.values["attention"], section.at("attention")), default
            )
        parsed = Behavior(
            name=name,
            fields=tuple(fields),
            query=slots,
            order=section.choose(
                "order", ("oldest_first", "newest_first"), "oldest_first"
            ),
            empty_softmax=section.choose(
                "empty_softmax", ("zero", "padding_row"), "zero"
            ),
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
        table: _Section,
        key: str,
        value: object,
        before: list[BehaviorField],
        query: tuple[str, ...] | None,
    ) -> BehaviorField:
        place = table.at(key)
        name = self.claim(table, _check_name(key, place), place)
        if isinstance(value, str):
            value = {"shares" if query is not None else "pairs": value}
        section = _Section(value, place)
        pairs = section.take("pairs", "a string", None)
        if pairs is not None:
            if query is not None:
                rule = "no `pairs` where the sequence has a `query`"
                raise ModelError(rule, repr(pairs), section.at("pairs"))
            self.check_candidate(pairs, section.at("pairs"))
        own = "encoder" in section.values
        shares = section.values.get("shares", pairs)
        dtype, owner, dim, encoder = self.table_of(
            section, name, None if own else pairs
        )
        if pairs is not None and self.candidates[pairs].dim != dim:
            rule = f"dim {self.candidates[pairs].dim}, as `{pairs}` has"
            raise ModelError(rule, dim, place)
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
        parsed = BehaviorField(
            name=name,
            column=section.take("column", "a string", name),
            dtype=dtype,
            table=owner,
            dim=dim,
            encoder=encoder,
            pairs=pairs,
            source=source,
            derived=derived.name if isinstance(derived, Derived) else None,
        )
        section.finish()
        if parsed.derived is None:
            self.owners[name] = parsed
        return parsed

    def parse_multi_hot(self, section: _Section) -> MultiHot:
        name = self.claim(section, section.name())
        dtype, table, dim, encoder = self.table_of(section, name)
        parsed = MultiHot(
            name=name,
            column=section.take("column", "a string", name),
            side=section.choose("side", ("user", "candidate")),
            dtype=dtype,
            table=table,
            dim=dim,
            encoder=encoder,
            pooling=section.choose("pooling", ("sum", "mean", "max")),
            empty=section.take("empty", "a finite number", 0.0),
            **self.ragged(section, dtype),
        )
        section.finish()
        self.owners[name] = parsed
        return parsed

    def parse_dense(self, section: _Section) -> Dense:
        name = self.claim(section, section.name())
        parsed = Dense(
            name=name,
            column=section.take("column", "a string", name),
            side=section.choose("side", ("user", "candidate")),
            dim=section.take("dim", "a positive whole number below 2**31", 1),
            missing=section.take("missing", "a finite number", None)
            if "missing" in section.values
            else None,
            project=section.take("project", "a positive whole number below 2**31", 0),
        )
        section.has("missing")
        section.finish()
        return parsed


def _rows_of(
    section: _Section, key: str, rows: int, dtype: str
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
            row = [_as_int(v) for v in row]
        elif dtype == "float":
            row = [_as_float(v) for v in row]
        for v in row:
            right = isinstance(v, str) if dtype == "string" else _is_number(v)
            if not right or (dtype == "int64" and not _is_int(v)):
                place = section.at(f"{key}[{i}]")
                raise ModelError(f"values of dtype {dtype}", repr(v), place)
        out.append(tuple(row))
    return tuple(out)


# -------------------------------------------------------------------------- the spec


@dataclass(frozen=True, eq=False, repr=False)
class FeatureSpec:
    """The fields of a model, how they are encoded, and what is built over them.

    Make one with `load`, `from_dict` or `from_json`; all of them check everything and
    raise `ModelError` naming the place. Two specs are equal when they say the same.

    Examples
    --------
    >>> spec = FeatureSpec.from_dict({
    ...     "format": 1,
    ...     "candidate": [{"name": "goods_id", "dim": 4,
    ...                    "encoder": {"type": "hash", "buckets": 100}}],
    ...     "behavior": [{"name": "history", "max_len": 50,
    ...                   "fields": {"hist_goods_id": "goods_id"}}],
    ... })
    >>> [i.name for i in spec.inputs]  # doctest: +NORMALIZE_WHITESPACE
    ['goods_id', 'hist_goods_id', 'history.lengths', 'request_of_candidate']
    """

    source: dict[str, Any]
    label: str | None
    weight: str | None
    group: str | None
    time: str | None
    user: tuple[Field, ...]
    candidate: tuple[Field, ...]
    derived: tuple[Derived, ...]
    behavior: tuple[Behavior, ...]
    multi_hot: tuple[MultiHot, ...]
    dense: tuple[Dense, ...]
    model: Model
    calibration: Calibration
    tables: dict[str, Table]
    tower_inputs: tuple[Part, ...]

    @classmethod
    def load(cls, path: str | Path) -> "FeatureSpec":
        """Read a spec from a .toml or .json file.

        Raises
        ------
        ModelError
            If the file cannot be read or says something the format does not allow.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError("a readable file", error, str(path)) from None
        is_json = path.suffix.lower() == ".json"
        try:
            raw = json.loads(text) if is_json else tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            rule = "JSON" if is_json else "TOML"
            raise ModelError(rule, str(error), str(path)) from None
        return cls.from_dict(raw, folder=path.parent)

    @classmethod
    def from_json(cls, text: str) -> "FeatureSpec":
        """Read a spec from JSON text, as kept inside a model.

        Raises
        ------
        ModelError
            If the text is not a spec.
        """
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ModelError("JSON", str(error), "spec") from None
        return cls._parse(raw, None)

    @classmethod
    def from_dict(
        cls, raw: Mapping[str, Any], folder: str | Path | None = None
    ) -> "FeatureSpec":
        """Read a spec from nested dicts and lists.

        Files it names are relative to `folder`; without one they are refused.

        Raises
        ------
        ModelError
            If the dict says something the format does not allow.
        """
        try:
            return cls._parse(_copy(raw), None if folder is None else Path(folder))
        except RecursionError:
            raise ModelError("a spec", "endless nesting", "spec") from None

    @classmethod
    def _parse(cls, raw: object, folder: Path | None) -> "FeatureSpec":
        """Read nested dicts and lists, and keep them."""
        if not isinstance(raw, dict):
            raise ModelError("a table", repr(raw), "spec")
        try:
            _inline_files(raw, folder)
            return _parse_spec(cls, raw)
        except RecursionError:
            raise ModelError("a spec", "endless nesting", "spec") from None

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as nested dicts, files inlined; a copy."""
        copied: dict[str, Any] = _copy(self.source)
        return copied

    def to_json(self) -> str:
        """Return the spec as JSON text; `from_json` of it is an equal spec."""
        return json.dumps(self.source, ensure_ascii=False, separators=(",", ":"))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FeatureSpec) and self.source == other.source

    def __hash__(self) -> int:
        return hash(self.to_json())

    def __reduce__(self) -> tuple[object, tuple[str]]:
        # The compiled encoder is made again where it is needed.
        return FeatureSpec.from_json, (self.to_json(),)

    def __repr__(self) -> str:
        return f"FeatureSpec({', '.join(i.name for i in self.inputs)})"

    @lazy
    def inputs(self) -> tuple[Input, ...]:
        """The graph's inputs, in order."""
        out = [Input(f.name, "int64", ("B",), f.encoder.rows) for f in self.user]
        out += [Input(f.name, "int64", ("N",), f.encoder.rows) for f in self.candidate]
        for s in self.behavior:
            length = f"{s.name}.T"
            fixed = s.max_len if s.padding == "attended" else None
            out += [
                Input(f.name, "int64", ("B", length), f.encoder.rows, fixed)
                for f in s.fields
                if f.source is None
            ]
            out.append(Input(f"{s.name}.lengths", "int64", ("B",)))
        for m in self.multi_hot:
            axis = "B" if m.side == "user" else "N"
            fixed = m.max_len if m.padding == "attended" else None
            shape = (axis, f"{m.name}.T")
            out.append(Input(m.name, "int64", shape, m.encoder.rows, fixed))
            out.append(Input(f"{m.name}.lengths", "int64", (axis,)))
        for d in self.dense:
            axis = "B" if d.side == "user" else "N"
            out.append(Input(d.name, "float32", (axis, d.dim)))
        out.append(Input("request_of_candidate", "int64", ("N",)))
        return tuple(out)

    @lazy
    def columns(self) -> tuple[str, ...]:
        """The columns a batch must have for scoring, each once, in order."""
        names: list[str] = [f.column for f in (*self.user, *self.candidate)]
        for s in self.behavior:
            names += [f.column for f in s.fields if f.source is None]
            names += _required_length(s)
        for m in self.multi_hot:
            names += [m.column, *_required_length(m)]
        names += [d.column for d in self.dense]
        return tuple(dict.fromkeys(names))

    @lazy
    def optional_columns(self) -> tuple[str, ...]:
        """Length columns that a batch may lack: `pad_value` rules then."""
        named = [s.length_column for s in self.behavior]
        named += [m.length_column for m in self.multi_hot]
        names = dict.fromkeys(n for n in named if n is not None)
        return tuple(n for n in names if n not in self.columns)

    @lazy
    def encoder(self) -> FeatureEncoder:
        """The compiled encoder of this spec; made once."""
        return FeatureEncoder(self)

    def encode(
        self, batch: object, *, threads: int = 1
    ) -> "dict[str, NDArray[np.int64] | NDArray[np.float32]]":
        """Turn a table of rows (B = N) into the graph's inputs.

        Parameters
        ----------
        batch : dict of columns, list of dicts, or any frame with `__arrow_c_stream__`
            Must hold `columns`; others are ignored. Read, never kept.
        threads : int
            Threads that share a large batch; its ids do not depend on it.

        Returns
        -------
        dict
            One array per entry of `inputs`: int64 ids and lengths, float32 dense ones.
            T = min(max_len, longest history of the batch). Owned by the caller.

        Raises
        ------
        InputError
            Naming column, row and value, when the batch does not fit the spec.
        """
        return self.encoder.encode(batch, threads).inputs


def _required_length(lists: Behavior | MultiHot) -> list[str]:
    """Name the length column of lists that cannot be told without it."""
    named = lists.length_column is not None and lists.pad_value is None
    return [lists.length_column] if named and lists.length_column else []


def _parse_spec(cls: type[FeatureSpec], source: dict[str, Any]) -> FeatureSpec:
    parser = _Parser(source)
    root = parser.root
    number = root.take("format", "a whole number")
    if number != FORMAT:
        fix = "Use a newer din-infer." if number > FORMAT else ""
        raise ModelError(f"format {FORMAT}", number, "format", fix)
    roles = {
        key: root.take(key, "a string", None)
        for key in ("label", "weight", "group", "time")
    }
    model = _Section(root.take("model", "a table", {}), "model")
    attention = _parse_attention(
        _Section(model.take("attention", "a table", {}), "model.attention"), Attention()
    )
    user = tuple(parser.parse_field(s, "user") for s in root.sections("user"))
    candidate = tuple(
        parser.parse_field(s, "candidate") for s in root.sections("candidate")
    )
    if not candidate:
        raise ModelError("at least one candidate field", "none", "candidate")
    derived = tuple(parser.parse_derived(s) for s in root.sections("derived"))
    behavior = tuple(
        parser.parse_behavior(s, attention) for s in root.sections("behavior")
    )
    multi_hot = tuple(parser.parse_multi_hot(s) for s in root.sections("multi_hot"))
    dense = tuple(parser.parse_dense(s) for s in root.sections("dense"))
    widths = {f.name: f.dim for f in (*user, *candidate)}
    widths |= {d.name: d.dim for d in derived} | {m.name: m.dim for m in multi_hot}
    widths |= {d.name: d.width for d in dense}
    tower = _Section(model.take("tower", "a table", {}), "model.tower")
    parts = _parse_tower_inputs(tower, widths, behavior)
    layers = Tower(**_parse_layers(tower, Tower()))
    tower.finish()
    parsed_model = Model(
        type=model.choose("type", ("din", "base"), "din"),
        pooling=model.choose("pooling", ("sum", "mean"), "sum"),
        attention=attention,
        tower=layers,
        link=model.choose("link", ("sigmoid", "identity"), "sigmoid"),
    )
    model.finish()
    calibration_table = _Section(root.take("calibration", "a table", {}), "calibration")
    calibration = Calibration(
        scale=calibration_table.take("scale", "a positive number", 1.0),
        offset=calibration_table.take("offset", "a finite number", 0.0),
    )
    calibration_table.finish()
    root.finish()
    return cls(
        source=source,
        **roles,
        user=user,
        candidate=candidate,
        derived=derived,
        behavior=behavior,
        multi_hot=multi_hot,
        dense=dense,
        model=parsed_model,
        calibration=calibration,
        tables=parser.tables,
        tower_inputs=parts,
    )


def _parse_tower_inputs(
    tower: _Section, widths: dict[str, int], behavior: tuple[Behavior, ...]
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
                start = sum(f.dim for f in before)
                width = fields[member].dim
            elif dot:
                rule = "query, product or a field of the sequence after the dot"
                raise ModelError(rule, repr(text), place)
        else:
            rule = "one of " + ", ".join([*widths, *sequences])
            raise ModelError(rule, repr(text), place)
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
