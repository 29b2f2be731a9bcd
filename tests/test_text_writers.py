"""Text of many writers: each row has the score of its values, or is refused."""

import csv
import io
import json
import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from din_infer import Predictor
from din_infer.jobs.files import score_files
from tests import hostile
from tests.test_text_values import KINDS, SPEC, load

Rows = list[dict[str, Any]]

TEXTS = (
    *("g1", "g2", "007", "1e5", "", " ", " g ", "null", "None", "nan", "NULL", "NA"),
    *("a,b", 'a"b', "a'b", '"', "'", "a|b", "a;b", "[x]", "['x']", '["x"]', "[1]"),
    *(
        "a\nb",
        "a\r\nb",
        "\n",
        "\t",
        "a\tb",
        "\\",
        "a\\",
        "\\n",
        "\\'",
        "ü",
        "日本",
        "😀",
    ),
    *("\u2028", "\ufeff", "\x00", "\x01", "\x7f", "{a}", "x:y", "2020-01-01", "true"),
    *("</a>", "%s", "\u00a0", "\xad", "é", *hostile.VALUES, *hostile.COLUMNS),
)
FLOATS = (0.0, -0.25, 1.5, 3.0, 1e16, -(2.0**-20), 12345678.75)
WHOLE = (0, 1, -7, 2**31, 2**53 + 1, 2**63 - 1, -(2**63))


def make_rows(rng: random.Random, count: int, texts: tuple[str, ...] = TEXTS) -> Rows:
    """Rows for the model, of the values that are hardest to write."""

    def maybe(value: object, chance: float = 0.1) -> Any:  # noqa: ANN401
        return None if rng.random() < chance else value

    rows = []
    for _ in range(count):
        lengths = [rng.choice((0, 0, 1, 1, 2, 5)) for _ in range(2)]
        row = {
            "goods_id": maybe(rng.choice(texts)),
            "shop": maybe(rng.choice(WHOLE)),
            "age": maybe(rng.choice(FLOATS)),
            "hist_goods_id": maybe(
                [maybe(rng.choice(texts), 0.05) for _ in range(lengths[0])]
            ),
            "nums": maybe([maybe(rng.choice(WHOLE), 0.05) for _ in range(lengths[1])]),
            "price": maybe(rng.choice(FLOATS)),
            "profile": maybe([rng.choice(FLOATS) for _ in range(2)]),
        }
        rows.append(row)
    return rows


def as_table(rows: Rows) -> pa.Table:
    return pa.table({n: pa.array([r[n] for r in rows], k) for n, k in KINDS.items()})


def as_frame(rows: Rows) -> pd.DataFrame:
    """The rows as Python objects in pandas."""
    columns = {n: np.empty(len(rows), object) for n in KINDS}
    for name, column in columns.items():
        for k, row in enumerate(rows):
            column[k] = row[name]
    return pd.DataFrame(columns)


def joined(values: list[Any] | None, by: str) -> str | None:
    """Join elements, as a careful writer does: none is the separator's."""
    if not values:
        return None if values is None else ""
    parts = ["\\N" if v is None else str(v) for v in values]
    assert not any(by in part for part in parts)
    return by.join(parts)


# --------------------------------------------------------------------------- writers


def by_pandas(rows: Rows, **options: Any) -> str:  # noqa: ANN401
    text = as_frame(rows).to_csv(index=False, **options)
    assert isinstance(text, str)
    return text


def by_pandas_arrays(rows: Rows) -> str:
    frame = as_frame(rows)
    for name in ("hist_goods_id", "nums"):
        some = [None if v is None else np.array(v, object) for v in frame[name]]
        frame[name] = pd.Series(some, dtype=object)
    text = frame.to_csv(index=False)
    assert isinstance(text, str)
    return text


def by_csv(rows: Rows, lists: Callable[[Any], Any] = json.dumps, **how: Any) -> str:  # noqa: ANN401
    file = io.StringIO()
    writer = csv.writer(file, **how)
    writer.writerow(KINDS)
    for row in rows:
        values = (lists(v) if isinstance(v, list) else v for v in row.values())
        writer.writerow(list(values))
    return file.getvalue()


def with_text_lists(rows: Rows, lists: Callable[[Any], Any]) -> Rows:
    def text(value: object) -> object:
        return lists(value) if isinstance(value, list) else value

    return [{name: text(value) for name, value in row.items()} for row in rows]


def by_arrow(rows: Rows) -> bytes:
    kinds = {n: pa.string() if pa.types.is_list(k) else k for n, k in KINDS.items()}
    some = with_text_lists(rows, json.dumps)
    table = pa.table({n: pa.array([r[n] for r in some], k) for n, k in kinds.items()})
    sink = io.BytesIO()
    pa.csv.write_csv(table, sink)
    return sink.getvalue()


def by_polars(rows: Rows) -> str:
    return pl.DataFrame(
        with_text_lists(rows, lambda v: json.dumps(v, ensure_ascii=False)),
        schema={
            n: pl.Int64
            if k == pa.int64()
            else pl.Float64
            if k == pa.float64()
            else pl.String
            for n, k in KINDS.items()
        },
    ).write_csv()


def by_duckdb(rows: Rows, folder: Path, suffix: str = "csv") -> bytes:
    connection = duckdb.connect()
    connection.register("rows", as_table(rows))
    path = folder / f"duckdb.{suffix}"
    connection.execute(f"COPY rows TO '{path}'")
    connection.close()
    return path.read_bytes()


def by_json(rows: Rows, **how: Any) -> str:  # noqa: ANN401
    return "".join(json.dumps(row, **how) + "\n" for row in rows)


def by_spark(rows: Rows) -> str:
    kept = [{n: v for n, v in row.items() if v is not None} for row in rows]
    return by_json(kept, ensure_ascii=False, separators=(",", ":"))


def by_pandas_json(rows: Rows) -> str:
    frame = as_frame(rows)
    text = frame.to_json(orient="records", lines=True, double_precision=15)
    assert isinstance(text, str)
    return text


def no_empty_lists(row: Mapping[str, Any]) -> dict[str, Any]:
    """What joining keeps: a list of one empty string becomes nothing."""
    row = no_null(row)
    return row | {
        "hist_goods_id": [] if row["hist_goods_id"] == [""] else row["hist_goods_id"]
    }


def no_empty(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a writer keeps that writes nothing for null and for empty text."""
    return {**row, "goods_id": row["goods_id"] or None}


def no_null(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a writer keeps that writes quotes for null and for empty text."""
    return {**row, "goods_id": row["goods_id"] or ""}


def same(row: Mapping[str, Any]) -> dict[str, Any]:
    return dict(row)


ESCAPES = {"doublequote": False, "escapechar": "\\"}
WRITERS: dict[str, tuple[Any, str, Any, dict[str, Any], float]] = {
    # writer, suffix, what it keeps, options, share of rows that may be refused
    "pandas": (by_pandas, "csv", no_empty, {}, 0.1),
    "pandas all quoted": (
        lambda r: by_pandas(r, quoting=csv.QUOTE_ALL), "csv", no_null, {}, 0.1
    ),
    "pandas escapes": (
        lambda r: by_pandas(r, **ESCAPES), "csv", no_empty, {"escape": "\\"}, 0.2
    ),
    "pandas tab": (lambda r: by_pandas(r, sep="\t"), "tsv", no_empty, {}, 0.1),
    "pandas NULL": (
        lambda r: by_pandas(r, na_rep="\\N"), "csv", same, {"null_texts": ["\\N"]}, 0.1
    ),
    "pandas arrays": (by_pandas_arrays, "csv", no_empty, {}, 0.1),
    "csv": (by_csv, "csv", no_empty, {}, 0.1),
    "csv python": (lambda r: by_csv(r, repr), "csv", no_empty, {}, 0.1),
    "csv all": (lambda r: by_csv(r, quoting=csv.QUOTE_ALL), "csv", no_null, {}, 0.1),
    "csv nonnumeric": (
        lambda r: by_csv(r, quoting=csv.QUOTE_NONNUMERIC), "csv", no_null, {}, 0.1
    ),
    "csv none": (
        lambda r: by_csv(r, quoting=csv.QUOTE_NONE, escapechar="\\"),
        "csv", no_empty, {"escape": "\\"}, 0.4,
    ),
    "csv semicolon": (
        lambda r: by_csv(r, delimiter=";"), "csv", no_empty, {"delimiter": ";"}, 0.1
    ),
    "csv unix": (
        lambda r: by_csv(r, dialect="unix"), "csv", no_null, {}, 0.1
    ),
    "joined": (
        lambda r: by_csv(r, lambda v: joined(v, "\x1f"), quoting=csv.QUOTE_ALL),
        "csv", no_empty_lists, {"separator": "\x1f"}, 0.1,
    ),
    "arrow": (by_arrow, "csv", same, {}, 0.0),
    "polars": (by_polars, "csv", same, {}, 0.1),
    "json": (by_json, "jsonl", same, {}, 0.0),
    "json as it is": (
        lambda r: by_json(r, ensure_ascii=False), "jsonl", same, {}, 0.0
    ),
    "spark json": (by_spark, "json", same, {}, 0.0),
    "pandas json": (by_pandas_json, "jsonl", same, {}, 0.0),
}  # fmt: skip


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return load(SPEC, tmp_path_factory.mktemp("model"))


def compare(
    predictor: Predictor,
    text: str | bytes,
    suffix: str,
    rows: Rows,
    folder: Path,
    **options: Any,  # noqa: ANN401
) -> int:
    """Check that every row has its score, or none; count those that have none."""
    path = folder / f"t.{suffix}"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    options = {"on_error": "null", "overwrite": True, **options}
    made = score_files(predictor, path, folder / "out", **options)
    got = pq.read_table(made.files[0])["score"].to_pylist()
    wanted = predictor.score(as_table(rows)).tolist()
    assert len(got) == len(wanted)
    for ours, theirs, row in zip(got, wanted, rows, strict=True):
        assert ours is None or ours == theirs, row
    return got.count(None)


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("seed", range(3))
def test_rows_of_a_writer_have_their_scores_or_none(
    name: str, seed: int, predictor: Predictor, tmp_path: Path
) -> None:
    write, suffix, keeps, options, share = WRITERS[name]
    rows = make_rows(random.Random(seed), 400)
    text = write(rows)
    if suffix.startswith("json"):
        options = {**options, "columns": list(KINDS)}
    kept = [keeps(row) for row in rows]
    refused = compare(predictor, text, suffix, kept, tmp_path, batch_size=64, **options)
    assert refused <= math.ceil(share * len(rows)), refused


@pytest.mark.parametrize("seed", range(3))
def test_what_duckdb_writes_has_its_scores_or_none(
    seed: int, predictor: Predictor, tmp_path: Path
) -> None:
    rows = make_rows(random.Random(seed), 300)
    text = by_duckdb(rows, tmp_path)
    # strings in lists have no quotes there, mostly: empty lists and nulls can be read
    refused = compare(predictor, text, "csv", rows, tmp_path)
    some = sum(bool(row["hist_goods_id"]) for row in rows)
    assert refused <= some
    text = by_duckdb(rows, tmp_path, "json")
    assert compare(predictor, text, "json", rows, tmp_path, columns=list(KINDS)) == 0


@given(st.data())
def test_any_text_is_written_and_read(data: st.DataObject) -> None:
    predictor, folder = _shared()
    texts = tuple(data.draw(st.lists(hostile.texts(), min_size=1, max_size=9)))
    texts = tuple(t for t in texts if t != "\\N") or ("g",)
    rows = make_rows(random.Random(data.draw(st.integers(0, 999))), 12, texts)
    name = data.draw(st.sampled_from(sorted(set(WRITERS) - {"joined", "csv none"})))
    write, suffix, keeps, options, _ = WRITERS[name]
    if suffix.startswith("json"):
        options = {**options, "columns": list(KINDS)}
    rows_kept = [keeps(row) for row in rows]
    compare(predictor, write(rows), suffix, rows_kept, folder, **options)


_made: list[tuple[Predictor, Path]] = []


def _shared() -> tuple[Predictor, Path]:
    assert _made
    return _made[0]


@pytest.fixture(scope="module", autouse=True)
def _share(predictor: Predictor, tmp_path_factory: pytest.TempPathFactory) -> None:
    _made[:] = [(predictor, tmp_path_factory.mktemp("shared"))]
