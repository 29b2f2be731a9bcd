"""din-history: files of every kind, how times are written, and what is refused."""

import gzip
import json
import random
import shlex
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from din_infer import FeatureSpec, InputError
from din_infer.history_cli import main
from din_infer.init_cli import init_main
from din_infer.jobs.history import build
from din_infer.jobs.history.times import TimeForm, parse_duration

pytestmark = pytest.mark.slow

USERS = ["007", "u,2", "007", "007"]
ITEMS = [5, 5, 6, -7]
TIMES = [1_700_000_060, 1_700_000_000, 1_700_000_000, 1_700_000_120]
LOG = pa.table(
    {
        "user_id": USERS,
        "item_id": pa.array(ITEMS, pa.int64()),
        "time": pa.array(TIMES, pa.int64()),
        "category": ["x", None, "", 'a "b"'],
        "price": [1.5, 2.0, None, 1e3],
        "place": ["n", "n", "s", "s"],
    }
)
HISTORIES = [[], [6], [6, 5], []]


def as_csv(table: pa.Table, path: Path, mark: str = ",") -> None:
    options = pyarrow.csv.WriteOptions(delimiter=mark)
    text = pa.BufferOutputStream()
    pyarrow.csv.write_csv(table, text, options)
    content = text.getvalue().to_pybytes()
    if path.suffix == ".gz":
        content = gzip.compress(content)
    elif path.suffix == ".zst":
        content = pa.Codec("zstd").compress(content, asbytes=True)
    path.write_bytes(content)


def as_json(table: pa.Table, path: Path) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in table.to_pylist())
    content = lines.encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def as_arrow(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_file(str(path), table.schema) as out:
        out.write_table(table, max_chunksize=2)


def as_stream(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_stream(str(path), table.schema) as out:
        out.write_table(table, max_chunksize=2)


WRITERS: dict[str, Callable[[pa.Table, Path], object]] = {
    "a.parquet": pq.write_table,
    "a[1].pq": pq.write_table,
    "a.arrow": as_arrow,
    "a.arrows": as_stream,
    "a's.csv": as_csv,
    "a.csv.gz": as_csv,
    "a.csv.zst": as_csv,
    "a.tsv": lambda table, path: as_csv(table, path, "\t"),
    "a.jsonl": as_json,
    "a.json.gz": as_json,
}


def rows_of(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return found


def refused(path: Path, **options: Any) -> str:  # noqa: ANN401
    """Return what an error says; nothing is left beside the inputs."""
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(InputError) as caught:
        build(path, path.parent / "o.parquet", **options)
    assert sorted(path.parent.rglob("*")) == before
    return str(caught.value)


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    table = LOG
    if ".csv" in name or ".tsv" in name or ".json" in name:
        table = table.drop_columns(["category"]).append_column(
            "category", pc.if_else(pc.equal(LOG["category"], ""), "", LOG["category"])
        )
    WRITERS[name](table, tmp_path / name)
    build(tmp_path / name, tmp_path / "o.parquet", keep=["place"], negatives=0)
    found = rows_of(tmp_path / "o.parquet")
    assert [r["user_id"] for r in found] == ["007", "007", "007", "u,2"]
    assert [r["item_id"] for r in found] == [6, 5, -7, 5]
    assert [r["time"] for r in found] == [TIMES[k] for k in (2, 0, 3, 1)]
    assert [r["hist_item_id"] for r in found] == HISTORIES
    assert [r["category"] for r in found] == ["", "x", 'a "b"', None]
    assert found[2]["hist_category"] == ["", "x"]
    assert found[2]["hist_price"] == [None, 1.5]
    assert [r["place"] for r in found] == ["s", "n", "s", "n"]


def test_files_of_a_folder_are_one_log(tmp_path: Path) -> None:
    for day in (1, 2):
        folder = tmp_path / "log" / f"day={day}"
        folder.mkdir(parents=True)
        pq.write_table(LOG.slice(2 * (day - 1), 2), folder / "part-0.parquet")
    build(tmp_path / "log", tmp_path / "o.parquet", keep=["day"], negatives=0)
    found = rows_of(tmp_path / "o.parquet")
    assert [r["hist_item_id"] for r in found] == HISTORIES
    assert [r["day"] for r in found] == ["2", "1", "2", "1"]


def test_integers_as_text_in_csv_are_integers_if_all_are(tmp_path: Path) -> None:
    for ids, wanted in ((["1", "20"], [1, 20]), (["01", "20"], ["01", "20"])):
        text = "".join(f"{user},{user},3\n" for user in ids)
        (tmp_path / "log.csv").write_text("user,item,time\n" + text)
        build(tmp_path / "log.csv", tmp_path / "o.parquet", overwrite=True)
        found = [r for r in rows_of(tmp_path / "o.parquet") if r["label"]]
        assert [r["user"] for r in found] == wanted
        assert [r["item"] for r in found] == wanted


# -------------------------------------------------------------------------------- times

START = datetime(2024, 5, 31, 10, 15)


@pytest.mark.parametrize(
    ("values", "kind", "unit"),
    [
        ([5, 3, 4], pa.int32(), 1),
        ([5, 3, 4], pa.uint64(), 1),
        ([5.0, 3.0, 4.0], pa.float64(), 1),
        ([5.5, 3.5, 4.5], pa.float64(), 1),
        ([Decimal(5), Decimal(3), Decimal(4)], pa.decimal128(20, 0), 1),
        (["5", "3", "4"], pa.string(), "text"),
        ([START + timedelta(hours=h) for h in (5, 3, 4)], pa.timestamp("us"), "2h"),
        ([START + timedelta(hours=h) for h in (5, 3, 4)], pa.timestamp("ns"), "2h"),
        ([START + timedelta(hours=h) for h in (5, 3, 4)], pa.timestamp("s"), "2h"),
        (
            [START.replace(tzinfo=UTC) + timedelta(hours=h) for h in (5, 3, 4)],
            pa.timestamp("ms", "Europe/Paris"),
            "2h",
        ),
        ([date(2024, 5, d) for d in (5, 3, 4)], pa.date32(), "2d"),
        (["2024-05-05", "2024-05-03", "2024-05-04"], pa.string(), "2d"),
        ([f"2024-05-31T{h:02}:00:00Z" for h in (5, 3, 4)], pa.string(), "2h"),
        ([f"2024-05-31 {h:02}:00:00.5" for h in (5, 3, 4)], pa.large_string(), "2h"),
        (
            ["2024-05-31T05:00", "2024-05-31 03:00", "2024-05-31T04:00:01"],
            pa.string(),
            "2h",
        ),
        (
            [
                "2024-05-31 05:00:00,250+0200",
                "2024-05-31T01:00Z",
                "2024-05-31T00:00-02",
            ],
            pa.string(),
            "3h",
        ),
        (
            ["2024-05-31T05:00+02:00", "2024-05-31T01:00Z", "2024-05-31T00:00-02:00"],
            pa.string(),
            "2h",
        ),
    ],
)
def test_times_of_every_form(
    values: list[Any],
    kind: pa.DataType,
    unit: str | int,
    tmp_path: Path,
) -> None:
    table = pa.table({"user": ["u"] * 3, "item": ["c", "a", "b"]})
    table = table.append_column("time", pa.array(values, kind))
    pq.write_table(table, tmp_path / "log.parquet")
    window = {"window": unit} if isinstance(unit, str) and unit != "text" else {}
    build(tmp_path / "log.parquet", tmp_path / "o.parquet", negatives=0, **window)
    found = rows_of(tmp_path / "o.parquet")
    assert [r["hist_item"] for r in found] == [[], ["a"], ["a", "b"]]
    assert [r["time"] for r in found] == sorted(r["time"] for r in found)
    if not isinstance(values[0], str | Decimal):
        assert [r["time"] for r in found] == sorted(values)


def test_times_of_two_forms_are_refused(tmp_path: Path) -> None:
    text = "user,item,time\nu,a,1700000000\nu,b,2024-05-31T10:15:00\nu,c,2024-05-30\n"
    (tmp_path / "log.csv").write_text(text)
    assert refused(tmp_path / "log.csv") == (
        "expected times of one form: numbers, or ISO 8601 such as 2024-05-31T10:15:00,"
        " got dates such as '2024-05-30' in 1 events and whole numbers such as"
        " '1700000000' in 1 events and timestamps without a zone such as"
        " '2024-05-31T10:15:00' in 1 events - at `time`"
    )
    (tmp_path / "log.csv").write_text("user,item,time\nu,a,31.05.2024\n")
    assert "got others such as '31.05.2024' in 1 events" in refused(
        tmp_path / "log.csv"
    )
    (tmp_path / "log.csv").write_text("user,item,time\nu,a,2024-02-31\n")
    assert refused(tmp_path / "log.csv") == (
        "expected times that can be read as dates, got '2024-02-31' in 1 events"
        " - at `time`"
    )


def test_types_that_differ_between_files_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    pq.write_table(LOG, folder / "a.parquet")
    times = LOG["time"].cast(pa.timestamp("s"))
    pq.write_table(LOG.set_column(2, "time", times), folder / "b.parquet")
    assert refused(folder) == (
        f"expected one type in all files, got numbers in {folder}/a.parquet and"
        f" timestamps in {folder}/b.parquet - at `time`"
    )
    (folder / "b.parquet").unlink()
    as_json(LOG.drop_columns(["price"]), folder / "c.jsonl")
    assert refused(folder) == (
        f"expected this column in all files, got {folder}/c.jsonl without it"
        " - at `price`"
    )


@pytest.mark.parametrize("name", ["parquet", "arrow", "csv", "tsv", "jsonl"])
def test_a_column_that_one_file_lacks_is_refused(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    write = {k.split(".")[-1]: w for k, w in WRITERS.items()}[name]
    write(LOG.append_column("action", pa.array(["buy"] * 4)), folder / f"a.{name}")
    write(LOG.append_column("extra", pa.array(["buy"] * 4)), folder / f"b.{name}")
    if name in ("csv", "tsv", "jsonl"):
        (folder / f"c.{name}").touch()  # no events that lack it
    options: dict[str, Any] = {"action": "action", "positives": ["buy"]}
    assert refused(folder, **options) == (
        f"expected this column in all files, got {folder}/b.{name} without it - at"
        " `action`"
    )
    # what nobody asked for is left
    notes: list[str] = []
    options = {"action": "none", "negatives": 0, "on_note": notes.append}
    build(folder, tmp_path / "o.parquet", **options)
    assert notes[1] == "not used, since not in all files: action, extra"
    assert pq.read_metadata(tmp_path / "o.parquet").num_rows == 8


def test_a_key_that_is_late_in_a_file_of_json_is_there(tmp_path: Path) -> None:
    rows = [{"user": "u", "item": k, "time": k} for k in range(2000)]
    for name in ("a.jsonl", "b.jsonl"):
        lines = [*rows, {"user": "u", "item": -1, "time": -1, "action": "buy"}]
        (tmp_path / name).write_text("".join(json.dumps(r) + "\n" for r in lines))
    out = tmp_path / "out" / "o.parquet"
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    assert build(files, out, action="action", positives=["buy"]).positives == 2


def test_integers_of_several_widths_are_one_type(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    table = LOG.append_column("shop", pa.array([1, -2, 3, None], pa.int16()))
    pq.write_table(table.slice(0, 2), folder / "a.parquet")
    as_json(table.slice(2), folder / "b.jsonl")
    as_arrow(table.slice(2), folder / "c.arrow")
    build(folder, tmp_path / "o.parquet", negatives=0, item_columns=["shop", "price"])
    found = pq.read_table(tmp_path / "o.parquet")
    assert found.schema.field("shop").type == pa.int64()
    assert found["item_id"].to_pylist() == [6, 6, 5, -7, -7, 5]
    assert found["shop"].to_pylist() == [3, 3, 1, None, None, -2]


def test_durations() -> None:
    assert parse_duration("1.5h", "x") == (1.5, 3600)
    assert TimeForm("integer", "ms").ticks("90s", "x") == 90_000
    assert TimeForm("integer").ticks("90", "x") == 90
    assert TimeForm("integer").ticks(0, "x") == 0
    assert TimeForm("number", "s").ticks("1.5m", "x") == 90.0
    assert TimeForm("date", "us").ticks("1d", "x") == 86_400_000_000
    # exact, and down to whole ticks
    assert TimeForm("integer", "s").ticks("2999ms", "x") == 2
    assert TimeForm("integer", "ms").ticks("0.57s", "x") == 570
    assert TimeForm("integer", "ns").ticks("123456789.123456789s", "x") == (
        123_456_789_123_456_789
    )
    with pytest.raises(InputError) as caught:
        TimeForm("integer").ticks("90s", "--gap")
    assert str(caught.value) == (
        "expected times whose unit is known, for a duration with a unit, got '90s' - at"
        " `--gap`. Give --time-unit s, ms, us or ns; or a number of their own."
    )
    with pytest.raises(InputError) as caught:
        TimeForm("date", "us").ticks("90", "--gap")
    assert str(caught.value) == (
        "expected a duration with a unit, such as 90d, 12h, 5m or 30s, got '90' - at"
        " `--gap`"
    )
    with pytest.raises(InputError, match="expected a duration such as"):
        parse_duration("9" * 400 + "d", "--window")
    with pytest.raises(InputError) as caught:
        parse_duration("a month", "--window")
    assert str(caught.value) == (
        "expected a duration such as 90d, 12h, 5m or 30s, or a number of the times'"
        " unit, got 'a month' - at `--window`"
    )


@pytest.mark.parametrize(
    ("first", "unit"), [(1.7e9, "1s"), (1.7e12, "1s"), (1.7e15, "1s"), (1.7e18, "1s")]
)
def test_the_unit_of_numbers_is_told_by_their_size(
    first: float, unit: str, tmp_path: Path
) -> None:
    second = round(first / 1.7e9)
    times = [int(first) + k * second for k in range(3)]
    table = pa.table({"user": ["u"] * 3, "item": ["a", "b", "c"], "time": times})
    pq.write_table(table, tmp_path / "log.parquet")
    build(tmp_path / "log.parquet", tmp_path / "o.parquet", window=unit, negatives=0)
    found = [r["hist_item"] for r in rows_of(tmp_path / "o.parquet")]
    assert found == [[], ["a"], ["b"]]


# ----------------------------------------------------------------------------- refusals


def test_nulls_are_refused_or_left_out(tmp_path: Path) -> None:
    table = pa.table(
        {
            "user": ["u", None, "u", "u", "v"],
            "item": ["a", "b", None, "b", "c"],
            "time": [1.0, 2.0, 3.0, float("nan"), 5.0],
        }
    )
    pq.write_table(table, tmp_path / "log.parquet")
    assert refused(tmp_path / "log.parquet") == (
        "expected a value in every event, got null in 1 events - at `user`. Give"
        " --on-error skip to leave such events out."
    )
    summary = build(tmp_path / "log.parquet", tmp_path / "o.parquet", on_error="skip")
    assert (summary.events, summary.left_out) == (2, 3)
    assert "left out    3  events lacked a user, an item or a time" in str(summary)


@pytest.mark.parametrize(
    ("names", "options", "said"),
    [
        (
            ["user", "item_id", "goods_id", "time"],
            {},
            "expected one column of items, got `item_id` and `goods_id` - at `--item`."
            " Give --item item_id, or --item goods_id.",
        ),
        (
            ["who", "item", "time"],
            {},
            "expected a column of users, of a name that is known, got who, item, time"
            " - at `--user`. Give --user COLUMN.",
        ),
        (
            ["user", "item", "time"],
            {"item": "sku"},
            "expected a column of the log (user, item, time), got 'sku' - at `--item`",
        ),
        (
            ["user", "item", "time", "event"],
            {},
            "expected to be told which actions are positives, got `event` with w (1),"
            " x (1), y (1), z (1) - at `--positives`. Give --positives w, for example;"
            " --impressions for those that only show an item; or --action none, if all"
            " count alike.",
        ),
        (
            ["user", "item", "time", "event"],
            {"positives": ["buy"]},
            "expected an action of `event`: w (1), x (1), y (1), z (1), got 'buy' - at"
            " `--positives`",
        ),
        (
            ["user", "item", "time", "event"],
            {"positives": ["x"], "impressions": ["x", "y"]},
            "expected actions that are positives or impressions, got x as both - at"
            " `--impressions`",
        ),
        (
            ["user", "item", "time"],
            {"impressions": ["x"]},
            "expected an action column for this option, got none - at `--impressions`."
            " Give --action COLUMN.",
        ),
        (
            ["user", "item", "time", "event", "click"],
            {},
            "expected one column that says which events are clicks, got `event` and"
            " `click` - at `--action, --label`. Give --label none, or --action none; or"
            " both columns.",
        ),
        (
            ["user", "item", "time", "label"],
            {},
            "expected a label 0 or 1, got 'w' in 4 events - at `label`",
        ),
        (
            ["user", "item", "time"],
            {"keep": ["hist_item"]},
            "expected a column of the log (user, item, time), got 'hist_item' - at"
            " `--keep`",
        ),
        (
            ["user", "item", "time", "hist_item"],
            {"keep": ["hist_item"]},
            "expected columns of different names in the output, got hist_item twice -"
            " at `hist_item`",
        ),
        (
            ["user", "item", "time"],
            {"gap": "1 month"},
            "expected a duration such as 90d, 12h, 5m or 30s, or a number of the times'"
            " unit, got '1 month' - at `--gap`",
        ),
        (
            ["user", "item", "time"],
            {"negatives_by": "rank"},
            "expected one of uniform, seen, popularity, got 'rank' - at"
            " `--negatives-by`",
        ),
        (
            ["user", "item", "time"],
            {"memory": "much"},
            "expected a size of memory such as 2GB, got",
        ),
        (
            ["user", "item", "time"],
            {"min_history": 9, "max_len": 8},
            "expected at most --max-len 8, got 9 - at `--min-history`",
        ),
    ],
)
def test_what_is_wrong_names_the_option(
    names: list[str], options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    columns = {name: ["w", "x", "y", "z"] for name in names}
    table = pa.table({**columns, "time": [1, 2, 3, 4]})
    pq.write_table(table, tmp_path / "log.parquet")
    found = refused(tmp_path / "log.parquet", **options)
    assert found.startswith(said) if said.endswith("got") else found == said


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            [1.5, 2.0],
            "expected whole numbers of 64 bits, or text, got '1.5' in 1 events",
        ),
        ([True, False], "expected text or integers, got boolean"),
        ([["a"], ["b"]], "expected text or integers, got varchar[]"),
        ([2**63, 1], "expected whole numbers of 64 bits, or text, got '92233"),
    ],
)
def test_ids_are_text_or_integers(values: list[Any], said: str, tmp_path: Path) -> None:
    kind = pa.uint64() if values[0] == 2**63 else None
    table = pa.table(
        {"user": pa.array(values, kind), "item": ["a", "b"], "time": [1, 2]}
    )
    pq.write_table(table, tmp_path / "log.parquet")
    assert refused(tmp_path / "log.parquet").startswith(said)


def test_a_damaged_file_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "log.parquet").write_bytes(b"PAR1 no more")
    said = refused(tmp_path / "log.parquet")
    assert said.startswith("expected files that can be read, got ")
    assert said.endswith(f" - at `{tmp_path}/log.parquet`")


HEAD = "user,item,time\n"


@pytest.mark.parametrize("many", [0, 50_000])  # beyond what is looked at first, too
@pytest.mark.parametrize(
    ("name", "rows", "said"),
    [
        (
            "log.csv",
            "u,b,2,3\nu,c,3\n",
            "expected rows of 3 values, as in the header, got 4 in line {} - at `{}`."
            " Quote values that have ',' in them.",
        ),
        (
            "log.csv.gz",
            "u,b\n",
            "expected rows of 3 values, as in the header, got 2 in line {} - at `{}`",
        ),
        (
            "log.tsv",
            "u\tb\r\n",
            "expected rows of 3 values, as in the header, got 2 in line {} - at `{}`",
        ),
        (
            "log.csv",
            'u,"b\nc,2\n',
            "expected an end of each quoted value, got none of one in line {} - at"
            ' `{}`. Write a quote inside of a quoted value as "".',
        ),
        (
            "log.csv",
            'u,"b"c,2\nu,d,3\n',
            "expected ',' or the end of the row after a quoted value, got other text in"
            ' line {} - at `{}`. Write a quote inside of a quoted value as "".',
        ),
        (
            "log.csv",
            "u,\xff,2\n",
            "expected text in UTF-8, got other bytes in line {} - at `{}`",
        ),
    ],
)
def test_a_wrong_row_of_text_is_named_by_its_line(
    name: str, rows: str, said: str, many: int, tmp_path: Path
) -> None:
    good = 'u,"a\nb",1\n' + "u,a,1\n" * many  # a row of two lines
    text = HEAD + good
    if name.endswith(".tsv"):
        text = text.replace(",", "\t").replace("\n", "\r\n").replace("a\r", "a")
    content = (text + rows).encode("latin-1")
    content = gzip.compress(content) if name.endswith(".gz") else content
    folder = tmp_path / "log"
    folder.mkdir()
    (folder / name).write_bytes(content)
    line = f"{many + 4:,}"
    assert refused(folder) == said.format(line, folder / name)
    (folder / "b.csv").write_text(HEAD + "v,a,1\n")
    assert refused(folder) == said.format(line, folder / name)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "log.csv",
            "user;item;time\nu;a;1\n",
            "expected columns separated by ',', got one column 'user;item;time' - at"
            " `{}`. Separate columns by ',' in .csv, by tabs in .tsv.",
        ),
        (
            "log.csv",
            "user;item;time;price\nu;a;1;1,5\nu;b;2;3\n",
            "expected columns separated by ',', got one column 'user;item;time;price' -"
            " at `{}`. Separate columns by ',' in .csv, by tabs in .tsv.",
        ),
        (
            "log.csv",
            "user\titem\ttime\nu\ta\t1\n",
            "expected columns separated by ',', got one column 'user\\titem\\ttime' -"
            " at `{}`. Name the file .tsv.",
        ),
        (
            "log.tsv",
            HEAD + "u,a,1\n",
            "expected columns separated by '\\t', got one column 'user,item,time' - at"
            " `{}`. Name the file .csv.",
        ),
        (
            "log.csv",
            "\n" + HEAD + "u,a,1\n",
            "expected a header in line 1, got a blank line - at `{}`",
        ),
        (
            "log.csv",
            "A log\n" + HEAD + "u,a,1\n",
            "expected rows of 1 values, as in the header, got 3 in line 2 - at `{}`."
            " Quote values that have ',' in them.",
        ),
    ],
)
def test_a_header_of_another_kind_says_what_it_is(
    name: str, text: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    assert refused(tmp_path / name) == said.format(tmp_path / name)


def test_a_line_that_is_too_long_says_so(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(f'{HEAD}u,"{"x" * 3_000_000}",1\n')
    assert "Maximum line size of" in refused(tmp_path / "log.csv")


def test_what_is_there_is_not_replaced(tmp_path: Path) -> None:
    pq.write_table(LOG, tmp_path / "log.parquet")
    log, out = tmp_path / "log.parquet", tmp_path / "rows"
    build(log, out, split="time", test_fraction=0.2, valid_fraction=0.3)
    with pytest.raises(InputError) as caught:
        build(log, out, split="time")
    assert str(caught.value) == (
        "expected a file that is not there yet, got one that is - at"
        f" `{out}/train.parquet`. Give --overwrite to replace it."
    )
    build(log, out, split="time", valid_fraction=0.3, overwrite=True)
    # the test of the run before belongs to other rows
    assert sorted(p.name for p in out.iterdir()) == ["train.parquet", "valid.parquet"]
    for place, said in (
        (log, "expected an --out other than the inputs"),
        (out, "expected a name that ends in .parquet, got 'rows'"),
    ):
        with pytest.raises(InputError, match=said):
            build(log, place, overwrite=True)
    with pytest.raises(InputError, match="an --out outside of the inputs' folder"):
        build(tmp_path, tmp_path / "o.parquet")


def test_columns_of_one_value_per_item_or_user_are_taken(tmp_path: Path) -> None:
    r = random.Random(0)
    events = []
    for time in range(400):
        user, item = r.randrange(30), r.randrange(40)
        row = {"user_id": user, "item_id": item, "time": time, "length": item % 7 + 0.5}
        events.append(row | {"age": 20 + user, "event": time, "country": "ch"})
    pq.write_table(pa.Table.from_pylist(events), tmp_path / "log.parquet")
    notes: list[str] = []
    build(
        tmp_path / "log.parquet",
        tmp_path / "rows.parquet",
        action="none",
        on_note=notes.append,
    )
    assert notes == [
        "taken by their names: --user user_id --item item_id --time time",
        "one value per item: --item-columns length",
        "one value per user: --keep age",
        "not used: event, country (--item-columns and --keep take them)",
    ]
    rows = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    assert all(row["length"] == row["item_id"] % 7 + 0.5 for row in rows)
    assert all(row["age"] == row["user_id"] + 20 for row in rows)
    for row in rows:
        assert row["hist_length"] == [i % 7 + 0.5 for i in row["hist_item_id"]]
    build(
        tmp_path / "log.parquet",
        tmp_path / "plain.parquet",
        action="none",
        item_columns=[],
        on_note=notes.append,
    )
    assert "length" not in pq.read_schema(tmp_path / "plain.parquet").names


# ------------------------------------------------------------------------- the command


def test_the_command_says_what_it_guessed_and_what_is_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    as_csv(LOG, tmp_path / "log.csv")
    words = [str(tmp_path / "log.csv"), "--out", str(tmp_path / "o"), "--quiet"]
    assert main([*words, "--split", "time", "--valid-fraction", "0.3"]) == 0
    heard = capsys.readouterr()
    assert heard.err == (
        "din-history: taken by their names: --user user_id --item item_id --time time"
        " --item-columns category,price\n"
        "din-history: not used: place (--item-columns and --keep take them)\n"
    )
    lines = heard.out.splitlines()
    assert lines[0].split() == ["events", "4"]
    assert lines[-2:] == [
        f"next: din-init {tmp_path}/o/train.parquet --user user_id --time time"
        " --label label",
        f"      din-train {tmp_path}/o/train.parquet --spec features.toml --valid"
        f" {tmp_path}/o/valid.parquet",
    ]
    assert main([*words, "--split", "time", "--overwrite", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["rows"] == sum(summary["files"].values()) == 5
    assert main(words) == 1
    heard = capsys.readouterr()
    assert heard.err.startswith("din-history: expected a name that ends in .parquet")


def test_what_is_next_carries_the_roles_and_quotes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"user_id": "who is it", "time": "at"}
    table = LOG.rename_columns([names.get(n, n) for n in LOG.column_names])
    millis = pc.multiply(table["at"], 1000)
    pq.write_table(table.set_column(2, "at", millis), "my log.parquet")
    words = "--user,who is it,--time,at,--item-columns,category,--negatives,2"
    words = f"my log.parquet,--out,my rows.parquet,--quiet,{words}"
    assert main(words.split(",")) == 0
    said = capsys.readouterr().out.splitlines()[-2:]
    assert said == [
        "next: din-init 'my rows.parquet' --user 'who is it' --time at --label label",
        "      din-train 'my rows.parquet' --spec features.toml",
    ]
    assert init_main(shlex.split(said[0])[2:]) == 0
    spec = FeatureSpec.load("features.toml")
    assert (spec.group, spec.time, spec.label) == ("who is it", "at", "label")


def test_without_duckdb_the_install_line_is_said(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['duckdb'] = None\n"
        "from din_infer.history_cli import main\n"
        f"sys.exit(main([{str(tmp_path)!r}, '--out', 'o.parquet']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        'din-history: needs the package duckdb. Run: pip install "din-infer[history]"\n'
    )
