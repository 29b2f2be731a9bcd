"""The form of a table: a candidate on each row, or requests with lists of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import pyarrow as pa

from din_infer.errors import InputError
from din_infer.spec import FeatureSpec

__all__ = [
    "KINDS",
    "SCORE",
    "Form",
    "Kept",
    "OnError",
    "as_kept",
    "cast_type",
    "find_form",
    "find_kept",
    "output_schema",
    "parallel_lists",
]

OnError = Literal["fail", "skip", "null"]
SCORE = "score"
# what a kept column may be asked for as
KINDS = {
    "string": pa.string(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
}


class Kept(NamedTuple):
    """A column to keep: its name, the table's column, and the type of its values.

    Without a type, they have the table's.
    """

    name: str
    column: str
    kind: pa.DataType | None = None


def find_kept(schema: pa.Schema, keep: Sequence[str]) -> list[Kept]:
    """Read which columns to keep: `NAME`, or `NAME:TYPE` where no column is called so.

    Parameters
    ----------
    schema : pyarrow.Schema
        Of the table.
    keep : sequence of str
        The types are those of `KINDS`.

    Raises
    ------
    InputError
        If a column's type is none of them.
    """
    inner = [f.type.value_type for f in schema if _is_list(f.type)]
    structs = [kind for kind in inner if pa.types.is_struct(kind)]
    names = {*schema.names, *(field.name for kind in structs for field in kind)}
    found = []
    for given in keep:
        name, _, kind = given.rpartition(":")
        if given in names or (kind not in KINDS and name not in names):
            found.append(Kept(given, given))
        elif kind not in KINDS:
            rule = "a type, one of " + ", ".join(KINDS)
            raise InputError(rule, f"'{kind}'", given)
        else:
            found.append(Kept(name, name, KINDS[kind]))
    return found


def as_kept(keep: Sequence[str | Kept]) -> list[Kept]:
    """Take plain names as columns of a table."""
    return [Kept(k, k) if isinstance(k, str) else k for k in keep]


@dataclass(frozen=True)
class Form:
    """How a table holds candidates: one on each row, or lists of them.

    `lists` maps each candidate column to where its lists lie: a list column, and a
    field of its structs or None. It is empty for a table of rows.
    """

    lists: dict[str, tuple[str, str | None]]
    columns: tuple[str, ...]

    @property
    def is_requests(self) -> bool:
        """Whether a row is a request with lists of candidates."""
        return bool(self.lists)


def _is_structs(kind: pa.DataType) -> bool:
    return _is_list(kind) and pa.types.is_struct(kind.value_type)


def _depth(kind: pa.DataType) -> int:
    """Count the lists that are around the values of a type."""
    depth = 0
    while _is_list(kind):
        kind = kind.value_type
        depth += 1
    return depth


def _is_list(kind: pa.DataType) -> bool:
    names = ("list", "large_list", "fixed_size_list", "list_view", "large_list_view")
    return any(getattr(pa.types, f"is_{name}")(kind) for name in names)


def find_form(spec: FeatureSpec, schema: pa.Schema) -> Form:
    """Find where a table has the columns of a spec.

    Raises
    ------
    InputError
        If columns are missing, there twice, or some candidate columns are lists of
        candidates and others are not.
    """
    encoder = spec.encoder
    reads = [c for c in spec.reads if c.side == "candidate"]
    depths = {c.name: int(c.is_list) for c in sorted(reads, key=lambda c: c.is_length)}
    names = schema.names
    twice = [n for n in dict.fromkeys(c.name for c in spec.reads) if names.count(n) > 1]
    if twice:
        raise InputError("each column once", ", ".join(twice), "schema")
    found = {n: _depth(schema.field(n).type) for n in depths if n in names}
    texts = {c.name for c in reads if c.text is not None}
    own = {n: depth > depths[n] for n, depth in found.items() if n not in texts}
    is_deeper = any(own.values()) or any(map(_is_structs, schema.types))
    # text is lists of its own: where the others are lists of candidates, so are these
    for name in (n for n in found if n in texts):
        own[name] = found[name] > 1 or (found[name] == 1 and is_deeper)
    plain = [name for name, is_deeper in own.items() if not is_deeper]
    lists: dict[str, tuple[str, str | None]] = {n: (n, None) for n in own if own[n]}
    for structs in schema:
        if _is_list(structs.type) and pa.types.is_struct(structs.type.value_type):
            for name in (field.name for field in structs.type.value_type):
                if name not in depths or name in plain:
                    continue
                if name in lists:
                    got = f"it in `{lists[name][0]}` and in `{structs.name}`"
                    raise InputError("each candidate column once", got, name)
                lists[name] = (structs.name, name)
    single = {d.column for d in spec.dense if d.dim == 1}
    if plain and all(name in single for name in lists):
        lists = {}  # a number on each row may come as a list of one
    if lists and plain:
        rule = "lists of candidates in all candidate columns, or in none"
        got = f"lists in {', '.join(lists)}, none in {', '.join(plain)}"
        raise InputError(rule, got, "schema")
    wanted = [*encoder.user_columns, *encoder.candidate_columns]
    optional = (*encoder.optional_user_columns, *encoder.optional_candidate_columns)
    missing = [n for n in dict.fromkeys(wanted) if n not in names and n not in lists]
    if missing:
        rule = "the columns " + ", ".join(missing)
        raise InputError(rule, "only " + ", ".join(names), "schema")
    read = [n for n in (*wanted, *optional) if n in names or n in lists]
    columns = tuple(dict.fromkeys(lists[n][0] if n in lists else n for n in read))
    twice = [n for n in columns if names.count(n) > 1]
    if twice:
        raise InputError("each column once", ", ".join(twice), "schema")
    return Form(lists, columns)


def _check_keep(schema: pa.Schema, form: Form, keep: Sequence[Kept]) -> None:
    names = [k.name for k in keep]
    if SCORE in names:
        rule = f"kept columns other than `{SCORE}`, which the output adds"
        raise InputError(rule, f"'{SCORE}'", "keep")
    if len(set(names)) != len(names):
        raise InputError("each kept column once", ", ".join(names), "keep")
    lost = [k for k in keep if k.column not in {*schema.names, *form.lists}]
    if lost:
        rule = "the columns " + ", ".join(k.name for k in lost)
        raise InputError(rule, "only " + ", ".join(schema.names), "schema")
    twice = [k.name for k in keep if schema.names.count(k.column) > 1]
    if twice:
        raise InputError("each column once", ", ".join(twice), "schema")


def cast_type(found: pa.DataType, kind: pa.DataType, name: str) -> pa.DataType:
    """Return the type that values of a type become, inside their lists too.

    Raises
    ------
    InputError
        If Arrow knows no such cast, or not a right one.
    """
    wanted = kind
    views = pa.types.is_list_view(found) or pa.types.is_large_list_view(found)
    if views or isinstance(found, pa.BaseExtensionType):
        raise InputError(f"a column that can be cast to {kind}", found, name)
    if _is_list(found):
        wanted = pa.list_(cast_type(found.value_type, kind, name))
    try:
        pa.nulls(0, found).cast(wanted)
    except pa.ArrowException:
        rule = f"a column that can be cast to {kind}"
        raise InputError(rule, found, name) from None
    return wanted


def output_schema(
    spec: FeatureSpec,
    schema: pa.Schema,
    keep: Sequence[str | Kept] = (),
    explode: bool = False,
    on_error: OnError = "fail",
) -> pa.Schema:
    """Say what scoring a table of `schema` gives: the kept columns, then `score`.

    Parameters
    ----------
    spec : FeatureSpec
    schema : pyarrow.Schema
        Of the table.
    keep : sequence of str or Kept
        Columns to copy, in this order. With `explode`, a kept list column that is not
        the user's is taken to have an element for each candidate.
    explode : bool
        Of a table of requests: one row per candidate instead of lists of scores.
    on_error : {"fail", "skip", "null"}
        With "null", scores may be null.

    Raises
    ------
    InputError
        If the table lacks columns, or columns contradict each other.
    """
    form = find_form(spec, schema)
    kept = as_kept(keep)
    _check_keep(schema, form, kept)
    if explode and not form.is_requests:
        got = "one candidate on each row"
        raise InputError("lists of candidates to explode", got, "schema")
    if explode and on_error == "null":
        rule = "fail or skip beside explode: a bad request has no candidates to list"
        raise InputError(rule, "'null'", "on_error")
    fields = []
    parallel = parallel_lists(spec, schema, form, kept)
    for name, column, wanted in kept:
        if column not in schema.names:
            outer, inner = form.lists[column]
            kind = schema.field(outer).type.value_type.field(inner).type
            kind = kind if explode else pa.list_(kind)
            if wanted is not None:
                rule = f"a column of the table to be cast to {wanted}"
                raise InputError(rule, f"a field of `{outer}`", name)
            fields.append(pa.field(name, kind))
            continue
        field = schema.field(column).with_name(name)
        if wanted is not None:
            field = field.with_type(cast_type(field.type, wanted, name))
            field = field.with_nullable(True)
        if explode and name in parallel:
            field = pa.field(name, field.type.value_type)
        fields.append(field)
    kind = pa.float32()
    if form.is_requests and not explode:
        kind = pa.list_(pa.field("element", kind, nullable=False))
    return pa.schema([*fields, pa.field(SCORE, kind, nullable=on_error == "null")])


def parallel_lists(
    spec: FeatureSpec, schema: pa.Schema, form: Form, keep: Sequence[Kept]
) -> list[str]:
    """List the kept columns that have an element for each candidate."""
    users = {*spec.encoder.user_columns, *spec.encoder.optional_user_columns}
    own = [k for k in keep if k.column in schema.names and k.column not in users]
    if not form.is_requests:
        return []
    return [k.name for k in own if _is_list(schema.field(k.column).type)]
