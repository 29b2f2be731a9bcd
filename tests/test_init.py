"""din-init: what it guesses of logs of several shapes, and what it refuses."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from din_infer import FeatureSpec, InputError
from din_infer.init_cli import init_main
from din_infer.jobs.init import first_spec

Row = dict[str, Any]


def log(rows: int = 600, seed: int = 0) -> list[Row]:
    """A log: users like one of five categories, and histories grow as they click."""
    r = random.Random(seed)
    made, past = [], {u: [] for u in range(20)}  # type: ignore[var-annotated]
    for time in range(rows):
        user, goods = r.randrange(20), r.randrange(100)
        label = int(r.random() < (0.8 if goods % 5 == user % 5 else 0.1))
        history = past[user][-30:]
        made.append(
            {
                "user_id": f"u{user}",
                "time": 1_700_000_000 + time,
                "goods_id": f"g{goods}",
                "cate_id": f"c{goods % 5}",
                "price": 5 + goods * 1.95,
                "hist_goods_id": [f"g{g}" for g in history],
                "hist_cate_id": [f"c{g % 5}" for g in history],
                "label": label,
            }
        )
        if label:
            past[user].append(goods)
    return made


def spec_of(rows: Sequence[Row], folder: Path, **options: Any) -> FeatureSpec:  # noqa: ANN401
    path = folder / "log.parquet"
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    (folder / "features.toml").unlink(missing_ok=True)
    first_spec(path, **options).write(folder / "features.toml")
    return FeatureSpec.load(folder / "features.toml")


def test_columns_get_their_roles(tmp_path: Path) -> None:
    spec = spec_of(log(), tmp_path)
    assert (spec.label, spec.group, spec.time) == ("label", "user_id", "time")
    assert [(f.name, f.side) for f in (*spec.user, *spec.candidate)] == [
        ("goods_id", "candidate"),
        ("cate_id", "candidate"),
    ]
    (history,) = spec.behavior
    assert history.name == "history"
    assert history.order == "oldest_first"
    assert history.max_len == 50
    assert {f.column: f.pairs for f in history.fields} == {
        "hist_goods_id": "goods_id",
        "hist_cate_id": "cate_id",
    }
    assert [d.name for d in spec.dense] == ["price"]


def reverse(row: Row) -> Row:
    lists = {k: v[::-1] for k, v in row.items() if isinstance(v, list)}
    return {**row, **lists}


def padded(row: Row) -> Row:
    lists = {
        k: [0] * (30 - len(v)) + [1 + int(x[1:]) for x in v]
        for k, v in row.items()
        if isinstance(v, list)
    }
    numbers = {k: 1 + int(row[k][1:]) for k in ("goods_id", "cate_id")}
    return {**row, **lists, **numbers}


def test_order_is_told_by_histories_that_grow(tmp_path: Path) -> None:
    spec = spec_of([reverse(row) for row in log()], tmp_path)
    assert spec.behavior[0].order == "newest_first"


def test_a_user_of_any_name_is_told_by_histories_that_grow(tmp_path: Path) -> None:
    rows = [{"viewer" if k == "user_id" else k: v for k, v in r.items()} for r in log()]
    rows.sort(key=lambda row: (row["viewer"], row["time"]))  # grow elsewhere, too
    assert spec_of(rows, tmp_path).group == "viewer"


def test_what_fills_lists_up_is_no_behavior(tmp_path: Path) -> None:
    spec = spec_of([padded(row) for row in log()], tmp_path)
    (history,) = spec.behavior
    assert history.pad_value == 0
    assert {f.column: f.pairs for f in history.fields} == {
        "hist_goods_id": "goods_id",
        "hist_cate_id": "cate_id",
    }


def joined(separator: str) -> Callable[[Row], Row]:
    def join(row: Row) -> Row:
        lists = {k: separator.join(v) for k, v in row.items() if isinstance(v, list)}
        return {**row, **lists}

    return join


def as_json(row: Row) -> Row:
    return {**row, **{k: json.dumps(v) for k, v in row.items() if isinstance(v, list)}}


@pytest.mark.parametrize("separator", ["|", ";", ",", " ", "\t"])
def test_lists_in_text_get_their_separator(separator: str, tmp_path: Path) -> None:
    spec = spec_of(map(joined(separator), log()), tmp_path)  # type: ignore[arg-type]
    text = (tmp_path / "features.toml").read_text()
    assert f"separator = {json.dumps(separator)}" in text
    assert len(spec.behavior[0].fields) == 2


def test_lists_in_json_get_their_format(tmp_path: Path) -> None:
    spec = spec_of(map(as_json, log()), tmp_path)  # type: ignore[arg-type]
    assert 'format = "json"' in (tmp_path / "features.toml").read_text()
    assert len(spec.behavior[0].fields) == 2


@pytest.mark.parametrize("separator", [" | ", ", ", "; "])
def test_separators_keep_their_blanks(separator: str, tmp_path: Path) -> None:
    spec = spec_of([joined(separator)(row) for row in log()], tmp_path)
    text = (tmp_path / "features.toml").read_text()
    assert f"separator = {json.dumps(separator)}" in text
    assert "100% of its values are goods_id's\n" in text
    assert len(spec.behavior[0].fields) == 2


def test_blanks_that_stay_in_elements_are_said(tmp_path: Path) -> None:
    rows = [joined(", ")(row) for row in log()]
    rows[-1]["hist_goods_id"] = "g1,g2"
    spec_of(rows, tmp_path)
    said = "of its ',' have other blanks around them, and part no elements"
    assert said in (tmp_path / "features.toml").read_text()


@pytest.mark.parametrize("shelf", ["Shelf {}", "Row 1 Shelf {}"])
def test_a_name_with_a_number_is_no_list(shelf: str, tmp_path: Path) -> None:
    rows = []
    for row in log():
        goods = int(row["goods_id"][1:])
        history = [int(g[1:]) for g in row["hist_goods_id"]]
        shelves = [shelf.format(g % 50) for g in history]
        more = {"shelf": shelf.format(goods % 50), "hist_shelf": shelves}
        rows.append({**row, "goods_id": goods, "hist_goods_id": history, **more})
    spec = spec_of(rows, tmp_path)
    assert not spec.multi_hot
    pairs = {f.column: f.pairs for f in spec.behavior[0].fields}
    assert pairs["hist_shelf"] == "shelf"


def test_a_decimal_comma_parts_no_list(tmp_path: Path) -> None:
    rows = [row | {"price": f"{row['price']:.2f}".replace(".", ",")} for row in log()]
    assert not spec_of(rows, tmp_path).dense
    said = "#   price: numbers with a decimal comma, as 12,50: write them with a point"
    assert said in (tmp_path / "features.toml").read_text()


def test_numbers_in_text_of_parquet_are_no_dense_fields(tmp_path: Path) -> None:
    rows = [
        row | {"price": str(row["price"]), "label": str(row["label"])} for row in log()
    ]
    spec = spec_of(rows, tmp_path)
    assert (spec.label, spec.dense) == ("label", ())
    said = "#   price: text that says numbers: cast it to these, for [[dense]]"
    assert said in (tmp_path / "features.toml").read_text()


def test_lists_that_pandas_writes_to_csv_need_no_key(tmp_path: Path) -> None:
    rows = [{k: str(v) for k, v in row.items()} for row in log()]
    pa.csv.write_csv(pa.Table.from_pylist(rows), tmp_path / "log.csv")
    first_spec(tmp_path / "log.csv").write(tmp_path / "csv.toml")
    assert FeatureSpec.load(tmp_path / "csv.toml") == spec_of(log(), tmp_path)


def test_other_columns_go_where_they_belong(tmp_path: Path) -> None:
    rows = []
    for i, row in enumerate(log()):
        user, goods = int(row["user_id"][1:]), int(row["goods_id"][1:])
        more = {
            "request_id": f"r{i}",
            "age": 20 + 1.5 * user,
            "city": f"city{user % 7}",
            "title": f"Goods {goods}, the",
            "tags": [f"t{goods % 3}", f"t{goods % 4}"],
            "hist_action": [
                "buy" if len(g) > 2 else "view" for g in row["hist_goods_id"]
            ],
            "hist_age": [1.5 * k for k in range(len(row["hist_goods_id"]))],
            "rank": i % 10,
            "views": [1, 3, 2, 9, 5_000][goods % 5] * (1 + goods),
            "empty": None,
            "country": "ch",
            "sample_weight": 1.0 + i % 2,
        }
        rows.append(row | more)
    spec = spec_of(rows, tmp_path)
    sides = {f.name: f.side for f in (*spec.user, *spec.candidate)}
    assert sides["city"] == "user"
    assert sides["rank"] == "candidate"
    assert {"request_id", "title", "empty", "country"}.isdisjoint(spec.columns)
    assert {d.name: d.side for d in spec.dense} == {
        "price": "candidate",
        "age": "user",
        "views": "candidate",
    }
    assert [(m.name, m.side) for m in spec.multi_hot] == [("tags", "candidate")]
    pairs = {f.column: f.pairs for f in spec.behavior[0].fields}
    assert pairs["hist_action"] is None
    assert pairs["hist_age"] is None
    assert spec.weight == "sample_weight"
    text = (tmp_path / "features.toml").read_text()
    assert "#   request_id: another value on each row: a number of the row" in text
    assert "#   title: another name of goods_id" in text
    assert "#   country: one value in all rows" in text


def test_csv_and_its_parquet_give_the_same_parts(tmp_path: Path) -> None:
    rows = [joined("|")(row) for row in log()]
    spec = spec_of(rows, tmp_path)
    pa.csv.write_csv(pa.Table.from_pylist(rows), tmp_path / "log.csv")
    first_spec(tmp_path / "log.csv").write(tmp_path / "csv.toml")
    assert FeatureSpec.load(tmp_path / "csv.toml") == spec


def test_the_command_prints_reasons_and_what_is_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pq.write_table(pa.Table.from_pylist(log()), tmp_path / "log.parquet")
    out = tmp_path / "features.toml"
    assert init_main([str(tmp_path / "log.parquet"), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "  hist_cate_id   [[behavior]] with cate_id   100% of its values" in said
    assert f"  din-train {tmp_path / 'log.parquet'} --spec {out}" in said
    before = out.read_bytes()
    assert init_main([str(tmp_path / "log.parquet"), "--out", str(out)]) == 1
    assert capsys.readouterr().err == (
        f"din-init: expected a new file, got one that exists - at `{out}`. Name another"
        " one by --out, or remove it.\n"
    )
    assert out.read_bytes() == before


def test_commands_that_are_printed_can_be_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "my log.parquet", tmp_path / "my features.toml"
    pq.write_table(pa.Table.from_pylist(list(map(without("time"), log()))), path)
    assert init_main([str(path), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"  din-train '{path}' --spec '{out}' --valid-fraction 0\n" in said


def test_labels_that_rows_lack_are_an_error(tmp_path: Path) -> None:
    rows = log()
    rows[3]["label"] = None
    with pytest.raises(InputError, match="a label 0 or 1, got 1 rows without one"):
        spec_of(rows, tmp_path)


@pytest.mark.parametrize("role", ["group", "time", "weight"])
def test_a_column_that_cannot_have_its_role_is_an_error(
    role: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="got list<element: string> - at `hist_cate"):
        spec_of(log(), tmp_path, columns={role: "hist_cate_id"})


def without(*names: str) -> Callable[[Row], Row]:
    return lambda row: {k: v for k, v in row.items() if k not in names}


REFUSED = [
    (
        without("label"),
        "expected one column of labels, 0 or 1, got none among user_id, time, goods_id,"
        " cate_id, price, hist_goods_id, hist_cate_id - at `the log`. Of raw events"
        " (user, item, time), din-history makes labeled rows. Of ratings, make a column"
        " of 0 and 1 first.",
    ),
    (
        lambda row: {**without("label")(row), "a": row["label"], "b": 1 - row["label"]},
        "expected one column of labels, 0 or 1, got several of 0 and 1: a, b - at"
        " `the log`. Name it: --label COLUMN.",
    ),
    (
        without("hist_goods_id", "hist_cate_id"),
        "expected a column of lists that hold values of another column: what the user"
        " did before, got no lists - at `the log`. din-history makes histories of raw"
        " events. Lists in text need one separator in all rows: | ; , tab or space.",
    ),
]


@pytest.mark.parametrize(("change", "said"), REFUSED)
def test_what_is_missing_is_named(
    change: Callable[[Row], Row], said: str, tmp_path: Path
) -> None:
    pq.write_table(
        pa.Table.from_pylist(list(map(change, log()))), tmp_path / "l.parquet"
    )
    with pytest.raises(InputError) as caught:
        first_spec(tmp_path / "l.parquet")
    assert str(caught.value) == said


def test_roles_that_are_given_win(tmp_path: Path) -> None:
    rows = [
        row | {"bought": row["label"], "shown": 1_000 + row["time"]} for row in log()
    ]
    spec = spec_of(rows, tmp_path, columns={"label": "bought", "time": "shown"})
    assert (spec.label, spec.time) == ("bought", "shown")
    spec = spec_of(
        rows, tmp_path, columns={"label": "bought"}, ignored=["label", "price"]
    )
    assert spec.label == "bought"
    assert "price" not in spec.columns
    with pytest.raises(InputError, match="expected a column of the data, got 'no'"):
        spec_of(rows, tmp_path, columns={"label": "no"})
