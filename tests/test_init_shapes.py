"""din-init: whatever a column holds, what it writes of it din-train can read."""

import csv
import datetime as dt
import json
import random
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from din_converter.fitting import fit_spec
from din_converter.rows import Rows, split_by_time
from din_infer import FeatureSpec, InputError
from din_infer.jobs.init import first_spec

ROWS = 240
Values = list[Any]
Table = dict[str, Values | pa.Array]
CONTAINERS = ("parquet", "arrow", "csv", "jsonl")


def base(seed: int = 0) -> Table:
    r = random.Random(seed)
    goods = [f"g{k}" for k in range(30)]
    return {
        "user_id": [f"u{k % 20}" for k in range(ROWS)],
        "ts": list(range(ROWS)),
        "goods_id": [r.choice(goods) for _ in range(ROWS)],
        "hist_goods_id": [[r.choice(goods) for _ in range(k % 6)] for k in range(ROWS)],
        "label": [int(r.random() < 0.4) for _ in range(ROWS)],
    }


def plain(value: object) -> object:
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if isinstance(value, dt.date | dt.time | Decimal | bytes):
        return str(value)
    return [plain(v) for v in value] if isinstance(value, list) else value


def write(table: Table, container: str, folder: Path) -> Path:
    """Write a table; lists are in CSV as pandas writes them, by `str`."""
    path = folder / f"log.{container}"
    if container in ("parquet", "arrow"):
        made = pa.table(table)
        if container == "parquet":
            pq.write_table(made, path)
        else:
            pa.feather.write_feather(made, path)
        return path
    rows = pa.table(table).to_pylist()
    with path.open("w", newline="", encoding="utf-8") as file:
        if container == "jsonl":
            for row in rows:
                file.write(json.dumps({k: plain(v) for k, v in row.items()}) + "\n")
        else:
            writer = csv.writer(file)
            writer.writerow(table)
            for row in rows:
                writer.writerow("" if v is None else v for v in row.values())
    return path


def trained(path: Path, **options: Any) -> FeatureSpec:  # noqa: ANN401
    """Take the spec of a table, and read all rows by it as din-train does."""
    out = path.with_suffix(".toml")
    out.unlink(missing_ok=True)
    first_spec(path, **options).write(out)
    spec = FeatureSpec.load(out)
    rows = Rows.open([path], spec)
    parts = (rows, rows) if spec.time is None else split_by_time(rows, 0.1)
    fitted, _ = fit_spec(spec, parts[0])
    for part in parts:
        part.encoded_by(fitted).check()
    return spec


def each(*values: object) -> Values:
    return [values[k * 7 % len(values)] for k in range(ROWS)]


def lists(*values: object) -> Values:
    return [list(values[: k % (len(values) + 1)]) for k in range(ROWS)]


def number(k: int) -> float:
    return (k * 37 % 101) / 8


COLUMNS: dict[str, Callable[[], Values | pa.Array]] = {
    "floats": lambda: [number(k) for k in range(ROWS)],
    "float16": lambda: pa.array(
        np.array([number(k) for k in range(ROWS)], np.float16), pa.float16()
    ),
    "floats with holes": lambda: each(None, 1.5, float("nan"), float("inf"), 2.0, 7.25),
    "whole floats with holes": lambda: each(None, 1.0, 2.0, 5.0),
    "rounded floats with holes": lambda: each(None, 2.0**60, 2.0),
    "huge floats": lambda: each(1e308, -1e308, 2.0),
    "integers": lambda: [k * 31 % 97 for k in range(ROWS)],
    "integers with holes": lambda: each(None, *range(40)),
    "uint64": lambda: pa.array(each(2**64 - 1, 5, 6), pa.uint64()),
    "decimals": lambda: each(Decimal("1.50"), Decimal("2.25"), None),
    "whole decimals": lambda: each(Decimal(1), Decimal(2), Decimal(10**17)),
    "numbers in text": lambda: [f"{number(k):.2f}" for k in range(ROWS)],
    "numbers in text with holes": lambda: each("", "3.5", None, "4.25"),
    "signed numbers in text": lambda: each("+5", "3.5", "-2", ".5", "3.", "-2e5"),
    "whole numbers in text": lambda: [str(k * 31 % 97) for k in range(ROWS)],
    "few whole numbers in text": lambda: each("1", "2", "3"),
    "long whole numbers in text": lambda: each("9223372036854775808", "-1", "5"),
    "leading zeros": lambda: each("007", "08", "123"),
    "truth": lambda: each(True, False, None),
    "truth in text": lambda: each("true", "false", "True"),
    "odd truth in text": lambda: each("tRUE", "False"),
    "decimal commas": lambda: each("12,50", "3,00", "1.200,5", "7"),
    "no time": lambda: each("2024-13-45", "2024-01-31"),
    "times in text": lambda: each("2024-02-28 12:00", "2024-01-31T00:00:00Z"),
    "times": lambda: each(dt.datetime(2024, 1, 1), dt.datetime(2024, 1, 2), None),
    "dates": lambda: pa.array(each(1, 2, 3), pa.date32()),
    "hours of the day": lambda: pa.array(each(5, 7), pa.time32("s")),
    "categories": lambda: pa.array(each("a", "b", "c")).dictionary_encode(),
    "views": lambda: pa.array(each("a", "b", "c"), pa.string_view()),
    "nothing": lambda: pa.nulls(ROWS),
    "titles in brackets": lambda: each("[NEW] a [x]", "[b]", "[1 2 x]"),
    "separated": lambda: each("t1|t2", "t2", "t1|t3|t2", "t3|t1", "t1", "", None, "t3"),
    "spaced": lambda: each("t1, t2", "t2, t1", "t1, t1", "t2, t2", "t2", "t1"),
    "numbers, spaced": lambda: each("1, 2", "2,1", "1, 1", "2 ,2", "2", "1"),
    "JSON": lambda: each('["a", null]', "[]", '["c"]', "null", ""),
    "JSON of numbers": lambda: each("[1, 2]", "[]", "[3, true]", "[2.0]", None),
    "JSON of one number": lambda: each("[1.5]", "[2.5]", "[7.25]"),
    "JSON of long numbers": lambda: each("[1]", "[18446744073709551616]"),
    "JSON of digits": lambda: each('["1", "2"]', '["3"]'),
    "JSON of all": lambda: each('[["a"], {"b": 1}]', "[]", "[1.5, true]"),
    "JSON of strings and numbers": lambda: each('["a", 1]', '["b"]'),
    "Python": lambda: each("['a', None]", "[]", "['c', 'd']", "nan"),
    "Python of digits": lambda: each("['1', '2']", "['3']"),
    "Python of numbers": lambda: each("[1, None]", "[]", "[3.5]"),
    "NumPy": lambda: each("['a' 'b']", "['c']"),
    "NumPy of numbers": lambda: each("[1 2]", "[]", "[3]"),
    "lists of strings": lambda: lists("a", "b", None),
    "lists of digits": lambda: lists("1", "20", "30"),
    "lists of integers": lambda: lists(1, 2, None),
    "lists of floats": lambda: lists(1.5, 2.5),
    "vectors": lambda: [[number(k), number(k + 9)] for k in range(ROWS)],
    "vectors with holes": lambda: each([1.5, None], [float("nan"), 2.5]),
    "vectors of digits": lambda: each(["1.5", "2"], ["3.5", "4"]),
    "lists of truth": lambda: lists(True, False),
    "lists of times": lambda: pa.array(lists(1, 2), pa.list_(pa.timestamp("s"))),
    "lists of decimals": lambda: lists(Decimal("1.5"), Decimal("2.5")),
    "lists of nothing": lambda: pa.array(each([]), pa.list_(pa.null())),
    "views of lists": lambda: pa.array(lists("a", "b"), pa.list_view(pa.string())),
    "lists of one size": lambda: pa.array(each([1, 2]), pa.list_(pa.int64(), 2)),
}
PARQUET_ONLY: dict[str, Callable[[], pa.Array]] = {
    "structs": lambda: pa.array(each({"a": 1})),
    "lists of structs": lambda: pa.array(each([{"a": 1}])),
    "lists of lists": lambda: pa.array(each([["a"]])),
    "maps": lambda: pa.array(each([("a", 1)]), pa.map_(pa.string(), pa.int64())),
    "spans": lambda: pa.array(each(5, 6), pa.duration("s")),
    "bytes": lambda: pa.array(each(b"\xff", b"a")),
    "text in bytes": lambda: pa.array(each(b"a|b", b"b", b"b|a", b"a|a", b"a", b"b|b")),
    "fixed bytes": lambda: pa.array(each(b"1234567890123456"), pa.binary(16)),
}
NAMES = (
    "score",
    "logit",
    "request_of_candidate",
    "history",
    " price",
    "x]",
    "a.b[0]",
    "a_b_0_",
    "",
    "[[behavior]]",
    "'''",
    'q"uo\\te',
    "#h = 1",
    "new\nline",
    "tab\tx\x7f",
)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("shape", COLUMNS)
def test_any_column_is_read_or_left_out(
    shape: str, container: str, tmp_path: Path
) -> None:
    for name in ("more", "more_id"):  # an amount, an id
        trained(write({**base(), name: COLUMNS[shape]()}, container, tmp_path))


@pytest.mark.parametrize("shape", PARQUET_ONLY)
def test_any_column_of_arrow_types_is_read_or_left_out(
    shape: str, tmp_path: Path
) -> None:
    trained(write({**base(), "more": PARQUET_ONLY[shape]()}, "parquet", tmp_path))


@pytest.mark.parametrize("shape", COLUMNS)
def test_any_column_may_be_beside_a_history(shape: str, tmp_path: Path) -> None:
    table = base()
    counts = [len(some) for some in table["hist_goods_id"]]
    array = pa.array(COLUMNS[shape]())
    values = array.to_pylist()
    if not isinstance(next(v for v in [*values, 0] if v is not None), list):
        made = [
            [values[(i + k) % ROWS] for k in range(n)] for i, n in enumerate(counts)
        ]
        if shape != "categories":  # which Arrow makes no lists of
            made = pa.array(made, pa.list_(array.type))
        for container in ("parquet", "jsonl"):
            trained(write({**table, "hist_more": made}, container, tmp_path))


@pytest.mark.parametrize("container", CONTAINERS)
def test_columns_of_any_name_are_read(container: str, tmp_path: Path) -> None:
    more: Table = {name: COLUMNS["floats"]() for name in NAMES}
    spec = trained(write({**base(), **more}, container, tmp_path))
    assert {d.column for d in spec.dense} == set(NAMES) - {""}
    more = {name: COLUMNS["dates"]() for name in NAMES}
    assert not trained(write({**base(), **more}, container, tmp_path)).dense


@pytest.mark.parametrize("goods", [name for name in NAMES if name])
def test_candidates_and_histories_of_any_name_are_read(
    goods: str, tmp_path: Path
) -> None:
    table = base()
    table[goods] = table.pop("goods_id")
    table[f"hist{goods}"] = table.pop("hist_goods_id")
    (history,) = trained(write(table, "parquet", tmp_path)).behavior
    assert [f.column for f in history.fields] == [f"hist{goods}"]
    assert history.fields[0].pairs is not None


IDS: dict[str, Callable[[str], object]] = {
    "text": str,
    "integers": lambda g: int(g[1:]),
    "digits": lambda g: g[1:],
    "large": lambda g: 10**17 + int(g[1:]),
    "two words": lambda g: f"Row {int(g[1:]) % 5} Shelf {int(g[1:]) // 5}",
}
FORMS: dict[str, Callable[[Values], object]] = {
    "list": list,
    **{s: lambda v, s=s: s.join(map(str, v)) for s in ("|", " | ", ", ", ";", ",")},
    "JSON": json.dumps,
    "Python": str,
    "NumPy": lambda v: "[" + " ".join(map(repr, v)) + "]",
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ids", IDS)
def test_any_history_pairs(ids: str, form: str, container: str, tmp_path: Path) -> None:
    table = base()
    as_id = IDS[ids]
    table["goods_id"] = [as_id(g) for g in table["goods_id"]]
    table["hist_goods_id"] = [
        FORMS[form]([as_id(g) for g in some]) for some in table["hist_goods_id"]
    ]
    path = write(table, container, tmp_path)
    if form in ("Python", "NumPy") and container != "csv":
        is_json = form == "Python" and ids in ("integers", "large")
        if not is_json:
            with pytest.raises(InputError, match="hist_goods_id, text of lists as Py"):
                first_spec(path)
            return
    (history,) = trained(path).behavior
    assert [f.pairs for f in history.fields] == ["goods_id"]
    said = path.with_suffix(".toml").read_text()
    assert "100% of its values are goods_id's" in said


ROLES: dict[str, tuple[str, Callable[[], Values | pa.Array]]] = {
    "weight with holes": ("weight", lambda: each(1.0, None)),
    "weight too large": ("weight", lambda: each(1.0, 1e12)),
    "weight in text": ("weight", lambda: each("1.5", "2")),
    "time with holes": ("ts", lambda: each(1, 2, None)),
    "time with empty text": ("ts", lambda: each("2024-01-01", "", "2024-01-02")),
    "one time": ("ts", lambda: each(5)),
    "time in text": ("ts", lambda: [str(k) for k in range(ROWS)]),
    "label in text": ("label", lambda: each("0", "1")),
    "label of truth in text": ("label", lambda: each("True", "false")),
    "users with holes": ("user_id", lambda: each("u1", None, "u2")),
    "users of floats": ("user_id", lambda: each(1.0, None, 2.0)),
    "users of fractions": ("user_id", lambda: each(1.5, None, 2.0)),
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("shape", ROLES)
def test_columns_of_any_role_are_read(
    shape: str, container: str, tmp_path: Path
) -> None:
    name, values = ROLES[shape]
    trained(write({**base(), name: values()}, container, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("seed", range(8))
def test_tables_of_many_columns_are_read(
    seed: int, container: str, tmp_path: Path
) -> None:
    r = random.Random(seed)
    table = base(seed)
    ends = ("", "_id", ".x", " ", "_time", "_type")
    for k, shape in enumerate(r.sample(sorted(COLUMNS), 20)):
        table[f"{r.choice(('hist', 'price', 'c'))}{k}{r.choice(ends)}"] = COLUMNS[
            shape
        ]()
    names = r.sample(sorted(table), len(table))
    trained(write({name: table[name] for name in names}, container, tmp_path))
