"""The parts of a spec: what its sections say, and the columns that each part reads.

Letters: B requests, N candidates, T positions, K dense values, D width of a behavior.
Above 400 lines: the format's parts, which refer to each other.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from din_infer._kernels import Vocabulary
from din_infer.lazy import lazy

__all__ = [
    "ANY_LENGTH",
    "Attention",
    "Behavior",
    "BehaviorField",
    "Calibration",
    "Dense",
    "Derived",
    "Embedded",
    "Encoder",
    "Field",
    "Input",
    "ListText",
    "Lists",
    "Model",
    "MultiHot",
    "OwnColumns",
    "Part",
    "ReadColumn",
    "Scale",
    "SideColumns",
    "Table",
    "Tower",
    "columns_of_sides",
    "inputs_of",
    "required_columns",
    "seed_rule",
]

# the largest `max_len`: of a model that takes lists of any length
ANY_LENGTH = 2**31 - 1
AXES = {"user": "B", "candidate": "N"}


def seed_rule(hash: str, seed: int | tuple[int, ...]) -> str:
    """Return what a seed of this hash must be, or "" when it is that."""
    if hash == "siphash24":
        halves = seed if isinstance(seed, tuple) else ()
        right = len(halves) == 2 and all(0 <= half < 2**64 for half in halves)
        return "" if right else "a seed of two numbers in [0, 2**64), its key"
    if isinstance(seed, tuple):
        return f"a seed of one number for {hash}"
    if hash == "farmhash64":
        return "" if seed == 0 else "seed 0, since farmhash64 takes none"
    bits = 32 if hash.startswith("murmur3_32") else 64
    return "" if 0 <= seed < 2**bits else f"a seed in [0, 2**{bits})"


@dataclass(frozen=True)
class Encoder:
    """How a raw value becomes an id; `rows` is the size of the table it needs.

    `type` is "hash", "vocab", "identity" or "bucketize"; only the members of that type
    mean anything. `unseen` is "row" (vocab: the last row), "missing" (id 0) or "error";
    `uuid_as` "bytes", "text", or None: then strings are no UUIDs. `quantiles` > 0 says
    that din-train has yet to fit the `boundaries` of so many ranges.

    Of a hash: `seed` is two numbers for siphash24; `int_as` says what of an integer or
    float is hashed; `prefix` stands before each key; `mask_value` has id 0. With
    `alternate_sign`, ids of negative hashes lie behind all others. A field of several
    columns has (dtype, encoder) of each in `columns`: the hash of one is the seed of
    the next, which `is_seeded` says.
    """

    type: str
    rows: int
    hash: str = "xxh64"
    seed: int | tuple[int, ...] = 0
    reduce: str = "offset"
    int_as: str = "bytes"
    values: tuple[str, ...] | tuple[int, ...] = field(default=(), repr=False)
    unseen: str = "error"
    boundaries: tuple[float, ...] = ()
    quantiles: int = 0
    uuid_as: str | None = None
    mask_value: str | int | None = None
    prefix: str = ""
    alternate_sign: bool = False
    is_seeded: bool = False
    columns: "tuple[tuple[str, Encoder], ...]" = ()

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
class Input:
    """One input of the graph: its name, dtype, symbolic shape, and the table's rows.

    `rows` is None where the values are not ids. Axes are "B", "N", "<name>.T" or sizes.
    `fixed_length` is T where padding is attended, so that T may not vary. `lengths`
    names the input that says how many of the T positions hold elements; None where the
    second axis is not T.
    """

    name: str
    dtype: str
    shape: tuple[str | int, ...]
    rows: int | None = None
    fixed_length: int | None = None
    lengths: str | None = None


@dataclass(frozen=True)
class ListText:
    """How a list is written where its column is text.

    Its elements have `separator` between them; None: they are a JSON array.
    """

    separator: str | None = None


@dataclass(frozen=True)
class ReadColumn:
    """A column of a batch, as one part of the spec reads it.

    Attributes
    ----------
    name : str
        Two parts may read one column.
    dtype : str
        "string", "int64" or "float".
    size : int or None
        Values in a row: 1, K of a dense field, None for a list of any length.
    part : Field, Behavior, MultiHot or Dense
        What reads the column.
    inputs : tuple of Input
        The graph's inputs that the column determines, its own first. Lists also
        determine the lengths, which the columns of one sequence share. Columns that are
        hashed together follow each other, and share the first too.
    encoder : Encoder or None
        None for numbers that are no ids: dense values and lengths.
    table : str or None
        The name of the table that the ids index.
    optional : bool
        Whether the part can do without the column; other parts may need it.
    text : ListText or None
        How a list is written in a column of text; None: text is no list.
    """

    name: str
    dtype: str
    size: int | None
    part: "Field | Behavior | MultiHot | Dense"
    inputs: tuple[Input, ...]
    encoder: Encoder | None = None
    table: str | None = None
    optional: bool = False
    text: ListText | None = None

    @property
    def side(self) -> str:
        """Whose values they are: "user" (per request) or "candidate"."""
        return self.part.side

    @property
    def is_list(self) -> bool:
        """Whether a row holds a list; a dense field of one value may be either."""
        return self.size != 1

    @property
    def is_length(self) -> bool:
        """Whether the column holds the lengths of its part's lists."""
        return self.encoder is None and self.dtype == "int64"


@dataclass(frozen=True)
class Embedded:
    """A field whose values become ids, which index a table that fields may share."""

    name: str
    dtype: str
    table: str
    dim: int
    encoder: Encoder

    @property
    def width(self) -> int:
        """Values of the field's embedding."""
        return self.dim


@dataclass(frozen=True)
class OwnColumns(Embedded):
    """A field with a column of its own, or with several that are hashed together.

    `dtype` is that of the first.
    """

    columns: tuple[str, ...]

    @property
    def column(self) -> str:
        """The column, the first of several."""
        return self.columns[0]

    @property
    def encoded(self) -> tuple[tuple[str, str, Encoder], ...]:
        """Name, dtype and encoder of each column."""
        of_columns = self.encoder.columns or ((self.dtype, self.encoder),)
        pairs = zip(self.columns, of_columns, strict=True)
        return tuple((name, *of_column) for name, of_column in pairs)


@dataclass(frozen=True)
class Field(OwnColumns):
    """One value per request (`side` "user") or per candidate (`side` "candidate")."""

    side: str

    @property
    def reads(self) -> tuple[ReadColumn, ...]:
        """The field's columns."""
        ids = Input(self.name, "int64", (AXES[self.side],), self.encoder.rows)
        return tuple(
            ReadColumn(name, dtype, 1, self, (ids,), encoder, self.table)
            for name, dtype, encoder in self.encoded
        )


@dataclass(frozen=True)
class Derived(Embedded):
    """A feature looked up from another field's id; it has no column of its own.

    `lookup` holds, per row of the source's table, the raw values (zero or more) that
    `encoder` turns into ids; `weights`, of the same shape, multiply their embeddings.
    """

    source: str
    side: str
    lookup: tuple[tuple[str | int | float, ...], ...] = field(repr=False)
    weights: tuple[tuple[float, ...], ...] | None = field(repr=False)
    pooling: str
    empty: float


@dataclass(frozen=True)
class BehaviorField(OwnColumns):
    """One of the parallel fields of a behavior sequence.

    `pairs` is the candidate field that stands opposite it in the query (None: zeros).
    `source` names the behavior field a derived one reads its ids from, `derived` the
    `Derived` whose lookup it uses; such a field has no column. `text` is as that of a
    `ReadColumn`.
    """

    pairs: str | None
    source: str | None
    derived: str | None
    text: ListText | None = None


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
class Lists:
    """What behavior sequences, always of `side` "user", and multi-hot fields share."""

    name: str
    side: str
    max_len: int
    padding: str
    pad_value: str | int | None
    pad_inside: str
    length_column: str | None

    @property
    def lengths(self) -> str:
        """The name of the input that holds the lengths."""
        return f"{self.name}.lengths"


@dataclass(frozen=True)
class Behavior(Lists):
    """A behavior sequence, attended. `query` lists (candidate field or None, width)."""

    fields: tuple[BehaviorField, ...]
    query: tuple[tuple[str | None, int], ...]
    order: str
    empty_softmax: str
    attention: Attention

    @property
    def width(self) -> int:
        """D, the width of a behavior's concatenated embeddings."""
        return sum(f.dim for f in self.fields)

    @property
    def own_fields(self) -> tuple[BehaviorField, ...]:
        """The fields with columns of their own: all that are not derived."""
        return tuple(f for f in self.fields if f.source is None)

    @property
    def reads(self) -> tuple[ReadColumn, ...]:
        """The columns of the fields, then that of the lengths."""
        return _read_lists(self, self.own_fields)


@dataclass(frozen=True)
class MultiHot(OwnColumns, Lists):
    """A ragged field that is pooled to [B or N, dim]; `empty` fills an empty one."""

    pooling: str
    empty: float
    text: ListText | None = None

    @property
    def reads(self) -> tuple[ReadColumn, ...]:
        """The field's columns, then that of the lengths."""
        return _read_lists(self, (self,))


def _read_lists(
    part: Behavior | MultiHot, fields: Iterable[BehaviorField | MultiHot]
) -> tuple[ReadColumn, ...]:
    """List the parallel columns of a part, then the column of their lengths."""
    axis = AXES[part.side]
    lengths = Input(part.lengths, "int64", (axis,))
    shape = (axis, f"{part.name}.T")
    fixed = part.max_len if part.padding == "attended" else None
    reads: list[ReadColumn] = []
    for f in fields:
        ids = Input(f.name, "int64", shape, f.encoder.rows, fixed, lengths.name)
        reads += (
            ReadColumn(
                name, dtype, None, part, (ids, lengths), encoder, f.table, text=f.text
            )
            for name, dtype, encoder in f.encoded
        )
    length = part.length_column
    if length is not None:
        told = part.pad_value is not None  # lengths, by the value behind the elements
        reads.append(ReadColumn(length, "int64", 1, part, (lengths,), optional=told))
    return tuple(reads)


@dataclass(frozen=True)
class Scale:
    """How the K values of a dense field are scaled; each has constants of its own.

    `type` is "standard", "log1p", "minmax", "quantile", or "none" for values as they
    are. `low` and `spread` are a mean and a standard deviation, of minmax the smallest
    value and how far the largest lies above it; a spread of 0 makes every value 0.
    Quantile has `boundaries` instead of them. All are empty until din-train has fitted
    them, by so many `quantiles`.
    """

    type: str
    low: tuple[float, ...] = ()
    spread: tuple[float, ...] = ()
    boundaries: tuple[tuple[float, ...], ...] = ()
    quantiles: int = 0

    @property
    def is_fitted(self) -> bool:
        """Whether values can be scaled."""
        return self.type == "none" or bool(self.low or self.boundaries)


@dataclass(frozen=True)
class Dense:
    """`dim` (K) float values; `project` > 0 maps them by a [project, K] matrix.

    `text` says how they are written where their column is text.
    """

    name: str
    column: str
    side: str
    dim: int
    missing: float | None
    project: int
    scale: Scale | None
    text: ListText | None = None

    @property
    def width(self) -> int:
        """Values this field gives the tower."""
        return self.project or self.dim

    @property
    def reads(self) -> tuple[ReadColumn, ...]:
        """The field's column."""
        values = Input(self.name, "float32", (AXES[self.side], self.dim))
        column = self.column, "float", self.dim
        return (ReadColumn(*column, self, (values,), text=self.text),)


def inputs_of(reads: Sequence[ReadColumn]) -> tuple[Input, ...]:
    """List the inputs of a graph whose spec reads these columns, in order."""
    made = [i for column in reads for i in column.inputs]
    # lengths stand behind the last of the columns that they belong to
    made = list(dict.fromkeys(reversed(made)))[::-1]
    return (*made, Input("request_of_candidate", "int64", ("N",)))


class SideColumns(NamedTuple):
    """Columns of the users and of the candidates, and those that may be missing."""

    user: tuple[str, ...]
    candidate: tuple[str, ...]
    optional_user: tuple[str, ...]
    optional_candidate: tuple[str, ...]


def columns_of_sides(reads: Sequence[ReadColumn]) -> SideColumns:
    """List the columns that a spec reads, by their side; each once."""
    required = required_columns(reads)

    def named(side: str, *, is_required: bool) -> tuple[str, ...]:
        found = (c for c in reads if c.side == side)
        some = (c.name for c in found if (c.name in required) == is_required)
        return tuple(dict.fromkeys(some))

    return SideColumns(
        named("user", is_required=True),
        named("candidate", is_required=True),
        named("user", is_required=False),
        named("candidate", is_required=False),
    )


def required_columns(reads: Sequence[ReadColumn]) -> tuple[str, ...]:
    """Name the columns that a batch must have, each once, in order."""
    return tuple(dict.fromkeys(c.name for c in reads if not c.optional))


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
