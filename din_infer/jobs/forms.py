"""The form of a table: a candidate on each row, or requests with lists of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from din_infer.errors import InputError
from din_infer.spec import FeatureSpec

__all__ = ["SCORE", "Form", "OnError", "find_form", "output_schema", "parallel_lists"]

OnError = Literal["fail", "skip", "null"]
SCORE = "score"


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
    own = {n: _depth(schema.field(n).type) > d for n, d in depths.items() if n in names}
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
    found = [n for n in (*wanted, *optional) if n in names or n in lists]
    columns = tuple(dict.fromkeys(lists[n][0] if n in lists else n for n in found))
    twice = [n for n in columns if names.count(n) > 1]
    if twice:
        raise InputError("each column once", ", ".join(twice), "schema")
    return Form(lists, columns)


def _check_keep(schema: pa.Schema, form: Form, keep: Sequence[str]) -> None:
    if SCORE in keep:
        rule = f"kept columns other than `{SCORE}`, which the output adds"
        raise InputError(rule, f"'{SCORE}'", "keep")
    if len(set(keep)) != len(keep):
        raise InputError("each kept column once", ", ".join(keep), "keep")
    lost = [n for n in keep if n not in schema.names and n not in form.lists]
    if lost:
        rule = "the columns " + ", ".join(lost)
        raise InputError(rule, "only " + ", ".join(schema.names), "schema")
    twice = [n for n in keep if schema.names.count(n) > 1]
    if twice:
        raise InputError("each column once", ", ".join(twice), "schema")


def output_schema(
    spec: FeatureSpec,
    schema: pa.Schema,
    keep: Sequence[str] = (),
    explode: bool = False,
    on_error: OnError = "fail",
) -> pa.Schema:
    """Say what scoring a table of `schema` gives: the kept columns, then `score`.

    Parameters
    ----------
    spec : FeatureSpec
    schema : pyarrow.Schema
        Of the table.
    keep : sequence of str
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
    _check_keep(schema, form, keep)
    if explode and not form.is_requests:
        got = "one candidate on each row"
        raise InputError("lists of candidates to explode", got, "schema")
    if explode and on_error == "null":
        rule = "fail or skip beside explode: a bad request has no candidates to list"
        raise InputError(rule, "'null'", "on_error")
    fields = []
    for name in keep:
        if name not in schema.names:
            column, inner = form.lists[name]
            kind = schema.field(column).type.value_type.field(inner).type
            fields.append(pa.field(name, kind if explode else pa.list_(kind)))
        elif explode and name in parallel_lists(spec, schema, form, keep):
            fields.append(pa.field(name, schema.field(name).type.value_type))
        else:
            fields.append(schema.field(name))
    kind = pa.float32()
    if form.is_requests and not explode:
        kind = pa.list_(pa.field("element", kind, nullable=False))
    return pa.schema([*fields, pa.field(SCORE, kind, nullable=on_error == "null")])


def parallel_lists(
    spec: FeatureSpec, schema: pa.Schema, form: Form, keep: Sequence[str]
) -> list[str]:
    """List the kept columns that have an element for each candidate."""
    users = {*spec.encoder.user_columns, *spec.encoder.optional_user_columns}
    own = [n for n in keep if n in schema.names and n not in users and form.is_requests]
    return [name for name in own if _is_list(schema.field(name).type)]
