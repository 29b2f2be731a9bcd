"""Tables as other programs write them: the scores of their values, or a refusal."""

import random
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from din_infer import InputError, Predictor
from din_infer.jobs.files import score_files
from tests.test_text_values import KINDS, SPEC, load
from tests.test_text_writers import as_table, make_rows

Rows = list[dict[str, Any]]
COUNT = 300


def by_duckdb(table: pa.Table, folder: Path, query: str = "SELECT *") -> None:
    with duckdb.connect() as connection:
        connection.register("given", table)
        target = str(folder / "t.parquet")
        connection.execute(f"COPY ({query} FROM given) TO '{target}' (FORMAT parquet)")


def by_datafusion(table: pa.Table, folder: Path) -> None:
    datafusion = pytest.importorskip("datafusion")
    context = datafusion.SessionContext()
    context.from_arrow(table).write_parquet(str(folder / "t"))


def by_delta(table: pa.Table, folder: Path) -> None:
    deltalake = pytest.importorskip("deltalake")
    half = table.num_rows // 2
    dead = table.slice(0, 9)
    deltalake.write_deltalake(str(folder), dead)
    deltalake.write_deltalake(str(folder), table.slice(0, half), mode="overwrite")
    deltalake.write_deltalake(str(folder), table.slice(half), mode="append")


def by_delta_of_polars(table: pa.Table, folder: Path) -> None:
    pytest.importorskip("deltalake")
    pl.DataFrame(table).write_delta(str(folder))


def by_ipc(table: pa.Table, folder: Path) -> None:
    with pa.ipc.new_stream(folder / "t.arrows", table.schema) as out:
        out.write_table(table, max_chunksize=70)


def by_polars(table: pa.Table, folder: Path, how: str = "parquet") -> None:
    getattr(pl.DataFrame(table), f"write_{how}")(folder / f"t.{how}")


def by_polars_stream(table: pa.Table, folder: Path) -> None:
    pl.DataFrame(table).write_ipc_stream(folder / "t.arrows", compat_level=None)


def by_partitions(table: pa.Table, folder: Path) -> None:
    part = pa.array([k // 100 for k in range(table.num_rows)])
    table = table.append_column("day", part)
    pq.write_to_dataset(table, folder, partition_cols=["day"])


def by_dictionaries(table: pa.Table, folder: Path) -> None:
    for name in ("goods_id", "shop"):
        column = table[name].combine_chunks().dictionary_encode()
        table = table.set_column(table.column_names.index(name), name, column)
    pq.write_table(table, folder / "t.parquet")


HUGE = """
    SELECT * REPLACE (
        CAST(shop AS HUGEINT) AS shop, CAST(price AS DECIMAL(38, 10)) AS price
    )"""
WRITERS: dict[str, Callable[[pa.Table, Path], None]] = {
    "pandas": lambda t, f: t.to_pandas().to_parquet(f / "t.parquet"),
    "pandas of Arrow": lambda t, f: t.to_pandas(types_mapper=pd.ArrowDtype).to_parquet(
        f / "t.pq"
    ),
    "pandas feather": lambda t, f: t.to_pandas().to_feather(f / "t.feather"),
    "polars": by_polars,
    "polars ipc": lambda t, f: by_polars(t, f, "ipc"),
    "polars stream": by_polars_stream,
    "polars ndjson": lambda t, f: by_polars(t, f, "ndjson"),
    "duckdb": by_duckdb,
    "datafusion": by_datafusion,
    "delta": by_delta,
    "delta of polars": by_delta_of_polars,
    "pyarrow": lambda t, f: pq.write_table(t, f / "T.PARQUET", row_group_size=77),
    "pyarrow, no suffix": lambda t, f: pq.write_table(t, f / "000000_0"),
    "pyarrow dictionaries": by_dictionaries,
    "pyarrow feather": lambda t, f: pyarrow.feather.write_feather(t, f / "t.feather"),
    "pyarrow stream": by_ipc,
    "pyarrow partitions": by_partitions,
}

# These make floats of integers beside nulls, which hold not every integer: those rows
# have no score.
ROUNDS = ("pandas", "pandas feather")


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return load(SPEC, tmp_path_factory.mktemp("model"))


def scores_of(predictor: Predictor, folder: Path, out: Path) -> list[Any]:
    """Score a folder; the scores of its outputs in order of name."""
    columns = tuple(KINDS) if list(folder.glob("*.ndjson")) else ()
    made = score_files(predictor, folder, out, columns=columns, on_error="null")
    return [s for f in made.files for s in pq.read_table(f)["score"].to_pylist()]


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("seed", range(2))
def test_tables_of_a_writer_have_the_scores_of_their_values(
    name: str, seed: int, predictor: Predictor, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    table = as_table(make_rows(random.Random(seed), COUNT))
    WRITERS[name](table, tmp_path / "in")
    got = scores_of(predictor, tmp_path / "in", tmp_path / "out")
    wanted = predictor.score(table).tolist()
    if name == "delta":  # files of a version are in no order
        got, wanted = sorted(got), sorted(wanted)
    if name in ROUNDS:
        rows = [k for k, score in enumerate(got) if score is not None]
        assert 0 < len(rows) < COUNT
        got, wanted = [got[k] for k in rows], [wanted[k] for k in rows]
    assert got == wanted


def test_huge_integers_and_decimals_of_duckdb(
    predictor: Predictor, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    rows = make_rows(random.Random(5), COUNT)
    for k, row in enumerate(rows):
        row["price"] = None if k % 9 == 0 else k / 1024
        row["shop"] = None if k % 7 == 0 else k
    table = as_table(rows)
    by_duckdb(table, tmp_path / "in", HUGE)
    got = scores_of(predictor, tmp_path / "in", tmp_path / "out")
    assert got == predictor.score(table).tolist()
    exact = [
        row
        | {
            "price": None if row["price"] is None else Decimal(row["price"]),
            "shop": None if row["shop"] is None else Decimal(row["shop"]),
        }
        for row in rows
    ]
    np.testing.assert_array_equal(predictor.score(exact), predictor.score(table))


def odd_tables() -> dict[str, Callable[[pa.Table], pa.Table]]:
    """Tables whose columns mean something else than they seem to, or nothing."""

    def replaced(name: str, make: Callable[[list[Any]], pa.Array]) -> Any:  # noqa: ANN401
        def change(table: pa.Table) -> pa.Table:
            place = table.column_names.index(name)
            return table.set_column(place, name, make(table[name].to_pylist()))

        return change

    def stored(kind: pa.DataType) -> Callable[[list[Any]], pa.Array]:
        def make(values: list[Any]) -> pa.Array:
            storage = pa.array([b"%d" % k for k, _ in enumerate(values)])
            return pa.ExtensionArray.from_storage(kind, storage)

        return make

    at = datetime(2026, 1, 1)
    return {
        "times as ids": replaced("shop", lambda v: pa.array([at] * len(v))),
        "opaque keys": replaced(
            "goods_id", stored(pa.opaque(pa.binary(), "point", "a vendor"))
        ),
        "tensors of two axes": replaced(
            "profile",
            lambda v: pa.FixedShapeTensorArray.from_numpy_ndarray(
                np.ones((len(v), 1, 2))
            ),
        ),
        "text for a list": replaced("hist_goods_id", lambda v: pa.array(map(str, v))),
        "lists of lists": replaced("nums", lambda v: pa.array([[[1]]] * len(v))),
        "fractions as ids": replaced(
            "shop", lambda v: pa.array([Decimal("0.5")] * len(v))
        ),
        "a struct": replaced("goods_id", lambda v: pa.array([{"a": "b"}] * len(v))),
        "a map": replaced(
            "hist_goods_id",
            lambda v: pa.array([[("a", 1)]] * len(v), pa.map_("string", "int64")),
        ),
    }


@pytest.mark.parametrize("case", odd_tables())
@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_what_is_no_value_is_refused(
    case: str, suffix: str, predictor: Predictor, tmp_path: Path
) -> None:
    table = odd_tables()[case](as_table(make_rows(random.Random(1), 20)))
    path = tmp_path / f"t.{suffix}"
    if suffix == "parquet":
        pq.write_table(table, path)
    else:
        pyarrow.feather.write_feather(table, path)
    for ways in (
        lambda: score_files(predictor, path, tmp_path / "out"),
        lambda: predictor.score(table),
    ):
        with pytest.raises(InputError, match=r"^expected ") as error:
            ways()
        assert error.value.column is not None


def written(rows: Rows, delimiter: str, by: str, names: list[str]) -> str:
    """Text as the CTR libraries' examples have it: nothing in quotes."""
    lines = [delimiter.join(names)]
    for row in rows:
        history = by.join(row["hist_goods_id"])
        values = (row["goods_id"], str(row["shop"]), str(row["age"]), history)
        more = (by.join(map(str, row["nums"])), str(row["price"]))
        lines.append(delimiter.join([*values, *more, "0.5" + by + "1.5"]))
    return "\n".join([*lines, ""])


def plain_rows(count: int) -> Rows:
    rng = random.Random(7)
    rows = make_rows(rng, count)
    for k, row in enumerate(rows):
        row |= {"goods_id": f"g{k}", "shop": k, "age": 0.5, "price": 2.5}
        row["hist_goods_id"] = [f"g{j}" for j in range(k % 4)]
        row["nums"] = [*range(k % 3)]
        row["profile"] = [0.5, 1.5]
    return rows


def test_files_of_fuxictr(predictor: Predictor, tmp_path: Path) -> None:
    rows = plain_rows(90)
    (tmp_path / "train.csv").write_text(written(rows, ",", "^", list(KINDS)))
    with pytest.raises(InputError) as error:
        score_files(predictor, tmp_path / "train.csv", tmp_path / "out")
    assert error.value.column in ("hist_goods_id", "nums", "profile")
    made = score_files(
        predictor,
        tmp_path / "train.csv",
        tmp_path / "out",
        separator="^",
        overwrite=True,
    )
    got = pq.read_table(made.files[0])["score"].to_pylist()
    assert got == predictor.score(as_table(rows)).tolist()


def test_files_of_recbole(predictor: Predictor, tmp_path: Path) -> None:
    rows = plain_rows(90)
    kinds = ("token", "token", "float", "token_seq", "token_seq", "float", "float_seq")
    names = [f"{n}:{k}" for n, k in zip(KINDS, kinds, strict=True)]
    path = tmp_path / "data.inter"
    path.write_text(written(rows, "\t", " ", names))
    with pytest.raises(InputError, match=r"Give --format\.$"):
        score_files(predictor, path, tmp_path / "out")
    with pytest.raises(InputError) as error:
        score_files(predictor, path, tmp_path / "out", format="tsv", separator=" ")
    assert error.value.rule.startswith("the columns ")
    assert set(error.value.rule[12:].split(", ")) == set(KINDS)
    path.write_text(written(rows, "\t", " ", list(KINDS)))
    made = score_files(
        predictor,
        path,
        tmp_path / "out",
        format="tsv",
        separator=" ",
        overwrite=True,
    )
    got = pq.read_table(made.files[0])["score"].to_pylist()
    assert got == predictor.score(as_table(rows)).tolist()
