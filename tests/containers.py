# ruff: noqa: ANN401 - rows hold anything
"""The same rows in every container a caller may hold them in."""

from collections.abc import Callable
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

Rows = list[dict[str, Any]]
Kinds = dict[str, str]  # column -> "string", "int64", "float", with "[]" for lists

ARROW = {"string": pa.string(), "int64": pa.int64(), "float": pa.float64()}
POLARS = {"string": pl.String, "int64": pl.Int64, "float": pl.Float64}


def column(rows: Rows, name: str) -> list[Any]:
    return [row[name] for row in rows]


def arrow_type(kind: str) -> pa.DataType:
    base = ARROW[kind.removesuffix("[]")]
    return pa.list_(base) if kind.endswith("[]") else base


def table(rows: Rows, kinds: Kinds) -> pa.Table:
    arrays = {n: pa.array(column(rows, n), arrow_type(k)) for n, k in kinds.items()}
    return pa.table(arrays)


def as_dict(rows: Rows, kinds: Kinds) -> Any:
    return {name: column(rows, name) for name in kinds}


def as_rows(rows: Rows, kinds: Kinds) -> Any:  # noqa: ARG001
    return rows


def as_numpy(rows: Rows, kinds: Kinds) -> Any:
    out = {}
    for name, kind in kinds.items():
        values = column(rows, name)
        if kind.endswith("[]"):
            out[name] = np.empty(len(values), dtype=object)
            out[name][:] = values
        elif None in values:
            out[name] = np.array(values, dtype=object)
        else:
            dtype = {"string": "U", "int64": np.int64, "float": np.float64}[kind]
            out[name] = np.array(values, dtype=dtype)
    return out


def as_ragged(rows: Rows, kinds: Kinds) -> Any:
    out: dict[str, Any] = {}
    for name, kind in kinds.items():
        values = column(rows, name)
        if kind.endswith("[]"):
            lists = [v or [] for v in values]
            offsets = np.cumsum([0] + [len(v) for v in lists])
            out[name] = ([x for v in lists for x in v], offsets)
        else:
            out[name] = values
    return out


def as_arrow(rows: Rows, kinds: Kinds) -> Any:
    return table(rows, kinds)


def as_large_arrow(rows: Rows, kinds: Kinds) -> Any:
    large = {"string": pa.large_string(), "int64": pa.int64(), "float": pa.float64()}
    out = {}
    for name, kind in kinds.items():
        base = large[kind.removesuffix("[]")]
        kind_type = pa.large_list(base) if kind.endswith("[]") else base
        out[name] = pa.array(column(rows, name), kind_type)
    return pa.table(out)


def as_view_arrow(rows: Rows, kinds: Kinds) -> Any:
    views = {"string": pa.string_view(), "int64": pa.int64(), "float": pa.float64()}
    out = {}
    for i, (name, kind) in enumerate(kinds.items()):
        base = views[kind.removesuffix("[]")]
        list_view = pa.list_view if i % 2 else pa.large_list_view
        kind_type = list_view(base) if kind.endswith("[]") else base
        out[name] = pa.array(column(rows, name), kind_type)
    return pa.table(out)


def as_dictionary_arrow(rows: Rows, kinds: Kinds) -> Any:
    out = {}
    for i, (name, kind) in enumerate(kinds.items()):
        index = (pa.int8(), pa.int32(), pa.uint16(), pa.int64())[i % 4]
        if kind.endswith("[]"):
            lists = pa.array(column(rows, name), arrow_type(kind))
            values = lists.values.dictionary_encode()
            coded = pa.DictionaryArray.from_arrays(
                values.indices.cast(index), values.dictionary
            )
            mask = lists.is_null() if lists.null_count else None
            out[name] = pa.ListArray.from_arrays(lists.offsets, coded, mask=mask)
        else:
            coded = pa.array(column(rows, name), arrow_type(kind)).dictionary_encode()
            out[name] = pa.DictionaryArray.from_arrays(
                coded.indices.cast(index), coded.dictionary
            )
    return pa.table(out)


def as_chunked_arrow(rows: Rows, kinds: Kinds) -> Any:
    parts = [table(rows[i : i + 2], kinds) for i in range(0, len(rows), 2)]
    return pa.concat_tables([*parts, table([], kinds)])


def as_sliced_arrow(rows: Rows, kinds: Kinds) -> Any:
    doubled = table([*rows[:1], *rows, *rows[:1]], kinds)
    return doubled.slice(min(len(rows), 1), len(rows)).combine_chunks()


def as_record_batch(rows: Rows, kinds: Kinds) -> Any:
    doubled = table([*rows[:1], *rows], kinds).combine_chunks()
    batches = doubled.to_batches()
    if not batches:
        return pa.RecordBatch.from_pylist([], schema=doubled.schema)
    batch = batches[0].slice(min(len(rows), 1))

    class OnlyArray:
        """A sliced struct: its own offset counts too."""

        def __arrow_c_array__(self, requested_schema: Any = None) -> Any:
            struct = pa.StructArray.from_arrays(
                batches[0].columns, fields=list(batches[0].schema)
            )
            sliced = struct.slice(min(len(rows), 1))
            return sliced.__arrow_c_array__(requested_schema)

    assert batch.num_rows == len(rows)
    return OnlyArray()


def as_dict_of_arrow(rows: Rows, kinds: Kinds) -> Any:
    whole = table(rows, kinds)
    out: dict[str, Any] = {}
    for i, name in enumerate(kinds):
        cut = min(i, len(rows))
        parts = [whole[name].slice(0, cut), whole[name].slice(cut)]
        out[name] = pa.chunked_array(
            [c for p in parts for c in p.chunks], whole[name].type
        )
    return out


def as_polars(rows: Rows, kinds: Kinds) -> Any:
    schema = {}
    for name, kind in kinds.items():
        base = POLARS[kind.removesuffix("[]")]
        schema[name] = pl.List(base) if kind.endswith("[]") else base
    return pl.DataFrame({n: column(rows, n) for n in kinds}, schema=schema)


def as_polars_categorical(rows: Rows, kinds: Kinds) -> Any:
    frame = as_polars(rows, kinds)
    strings = [n for n, k in kinds.items() if k == "string"]
    lists = [n for n, k in kinds.items() if k == "string[]"]
    return frame.with_columns(
        *[pl.col(n).cast(pl.Categorical) for n in strings],
        *[pl.col(n).cast(pl.List(pl.Categorical)) for n in lists],
    )


def as_pandas(rows: Rows, kinds: Kinds) -> Any:
    frame = pd.DataFrame({name: column(rows, name) for name in kinds})
    frame.index = pd.Index(range(7, 7 + len(rows)))
    return frame


def as_pandas_of_objects(rows: Rows, kinds: Kinds) -> Any:
    return pd.DataFrame({n: column(rows, n) for n in kinds}, dtype=object)


def as_duckdb(rows: Rows, kinds: Kinds) -> Any:
    # by the module's own connection: of one that is gone DuckDB 1.1 reads nothing
    return duckdb.from_arrow(table(rows, kinds))


CONTAINERS: list[Callable[[Rows, Kinds], Any]] = [
    as_dict,
    as_rows,
    as_numpy,
    as_ragged,
    as_arrow,
    as_large_arrow,
    as_view_arrow,
    as_dictionary_arrow,
    as_chunked_arrow,
    as_sliced_arrow,
    as_record_batch,
    as_dict_of_arrow,
    as_polars,
    as_polars_categorical,
    as_pandas,
    as_pandas_of_objects,
    as_duckdb,
]
