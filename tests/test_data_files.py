"""Which files are data: folders, patterns, links, and tables with a log."""

import errno
import gzip
import json
import os
import shutil
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from din_converter.cli import train_main
from din_converter.evaluate import read_table
from din_converter.rows import Rows
from din_infer import InputError, Predictor
from din_infer.cli import inspect_main, main
from din_infer.jobs.data_files import FORMATS, expand, find_files
from din_infer.jobs.explain import explain_file, find_rows
from din_infer.jobs.files import score_files
from din_infer.jobs.inspect import inspect_files
from din_infer.jobs.sources import find_sources
from tests.jobs import make_model, make_table, write_as
from tests.test_train import click_log, log_spec

ALL = set(FORMATS.values())


def put(folder: Path, *names: str, content: bytes = b"text") -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def listed(top: Path, kinds: Any = ("parquet",), **options: Any) -> list[str]:  # noqa: ANN401
    found = find_files([top], kinds, **options)
    assert [top / name for _, name in found] == [path for path, _ in found]
    return [str(name) for _, name in found]


# -------------------------------------------------------------------------- folders


def test_data_files_are_told_by_suffix_in_any_case_or_by_first_bytes(
    tmp_path: Path,
) -> None:
    data = ["a.parquet", "B.PARQUET", "c.pq", "d.Pq", "e.snappy.parquet"]
    put(tmp_path, *data)
    bare = ["000000_0", "part-00000", "f.parquet.GZIP", "g.c000", "h/20240101_1_x"]
    bare.append("000000_0.snappy")
    copies = ["a.parquet.bak", "a.parquet~", "b.parquet._COPYING_", "c.parquet.1"]
    put(tmp_path, *copies, content=b"PAR1....")
    put(tmp_path, *bare, content=b"PAR1....")
    put(tmp_path, "encrypted", content=b"PARE....")
    put(tmp_path, "_SUCCESS", ".a.parquet.crc", "x.crc", "_metadata", "_temporary/a.pq")
    put(tmp_path, "_day=1/x.parquet")  # a partition, as engines read it
    put(tmp_path, ".day=1/x.parquet", "_day/x.parquet")
    put(tmp_path, "README.md", "notes.txt", "b.txt", "t.csv", "u.csv.gz", "orc")
    put(tmp_path, "_x.parquet", ".y.PQ")
    put(tmp_path, "000001_0", content=b"")
    put(tmp_path, "i", content=b"ARROW1..")
    put(tmp_path, "j.parquet.gz", content=gzip.compress(b"PAR1"))
    notes: list[str] = []
    wanted = sorted([*data, *bare, "encrypted", "_day=1/x.parquet"])
    assert sorted(listed(tmp_path, on_note=notes.append)) == wanted
    assert notes == [
        f"{tmp_path}: 15 files are not read: 1 *.1, 1 *._COPYING_, 1 *.bak, 1 *.csv,"
        " 1 *.csv.gz, 1 *.md, 1 *.parquet.gz, 1 *.parquet~, 2 *.txt, 1 empty,"
        " 2 hidden, 2 without a suffix"
    ]
    assert sorted(listed(tmp_path, ALL)) == sorted([*wanted, "i", "t.csv", "u.csv.gz"])
    assert listed(tmp_path, ALL) == [
        str(n) for n in sorted(map(PurePath, [*wanted, "i", "t.csv", "u.csv.gz"]))
    ]


def test_every_suffix_of_every_format_is_known(tmp_path: Path) -> None:
    for suffix, kind in FORMATS.items():
        folder = tmp_path / suffix[1:]
        put(folder, f"a{suffix}", f"b{suffix.upper()}")
        assert listed(folder, [kind]) == [f"a{suffix}", f"b{suffix.upper()}"]
    assert FORMATS[".json"] == "jsonl"


def test_a_format_that_is_given_tells_names_without_a_suffix(tmp_path: Path) -> None:
    put(tmp_path, "000000_0", "a.csv", "b.txt", "c.parquet")
    put(tmp_path, "000001_0", content=b"")
    notes: list[str] = []
    found = listed(tmp_path, ["csv"], given="csv", on_note=notes.append)
    assert found == ["000000_0", "a.csv"]
    assert notes == [f"{tmp_path}: 3 files are not read: 1 *.parquet, 1 *.txt, 1 empty"]


def test_json_beside_other_data_is_a_description(tmp_path: Path) -> None:
    put(tmp_path, "a.parquet", "spec.json", "deep/meta.json.gz")
    notes: list[str] = []
    assert listed(tmp_path, ALL, on_note=notes.append) == ["a.parquet"]
    assert notes == [f"{tmp_path}: 2 files are not read: 2 *.json"]
    assert listed(tmp_path, ["jsonl"], given="jsonl") == [
        "deep/meta.json.gz",
        "spec.json",
    ]
    put(tmp_path / "spark", "part-0.json", "part-1.json", "_SUCCESS")
    assert listed(tmp_path / "spark", ALL) == ["part-0.json", "part-1.json"]


def test_a_folder_without_data_says_what_it_holds(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", "b.csv", "c.md")
    with pytest.raises(InputError) as caught:
        expand([tmp_path])
    assert str(caught.value) == (
        "expected a folder with *.parquet, *.pq, *.parq, got only 2 *.csv, 1 *.md - at"
        f" `{tmp_path}`"
    )
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError) as caught:
        expand([tmp_path / "empty"])
    assert str(caught.value) == (
        "expected a folder with *.parquet, *.pq, *.parq, got none - at"
        f" `{tmp_path}/empty`"
    )


def test_one_file_is_one_file_in_the_note(tmp_path: Path) -> None:
    put(tmp_path, "a.pq", "c.md")
    notes: list[str] = []
    listed(tmp_path, on_note=notes.append)
    assert notes == [f"{tmp_path}: 1 file is not read: 1 *.md"]


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    put(data, "day=1/a.pq", "day=2/a.pq")
    put(elsewhere, "b.pq", "deep/c.pq")
    (data / "aaa_latest").symlink_to(data / "day=2")  # sorts before what it links to
    (data / "more").symlink_to(elsewhere)
    (data / "day=1" / "loop").symlink_to(data)
    (elsewhere / "up").symlink_to(tmp_path)
    (data / "one.pq").symlink_to(tmp_path / "single.pq")
    put(tmp_path, "single.pq")
    notes: list[str] = []
    with pytest.raises(InputError, match="expected each input once, got"):
        listed(data)  # single.pq, by its link and by elsewhere/up
    (elsewhere / "up").unlink()
    assert listed(data, on_note=notes.append) == [
        "day=1/a.pq",
        "day=2/a.pq",
        "more/b.pq",
        "more/deep/c.pq",
        "one.pq",
    ]
    assert notes == [f"{data}: 2 files are not read: 2 reached twice"]


def test_a_file_by_two_names_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "a.pq")
    (tmp_path / "b.pq").symlink_to("a.pq")
    with pytest.raises(InputError) as caught:
        expand([tmp_path])
    assert str(caught.value) == (
        f"expected each input once, got {tmp_path}/a.pq too, by a link - at"
        f" `{tmp_path}/b.pq`"
    )
    with pytest.raises(InputError, match="each input once, got it twice"):
        expand([tmp_path / "a.pq", str(tmp_path / "a.pq")])


def test_a_hard_link_is_another_name(tmp_path: Path) -> None:
    put(tmp_path, "a.pq")
    (tmp_path / "in").mkdir()
    os.link(tmp_path / "a.pq", tmp_path / "in" / "b.pq")
    for given in ([tmp_path], [tmp_path / "a.pq", tmp_path / "in" / "b.pq"]):
        with pytest.raises(InputError) as caught:
            expand(given)
        assert str(caught.value) == (
            f"expected each input once, got {tmp_path}/a.pq too, by a link - at"
            f" `{tmp_path}/in/b.pq`"
        )


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    put(tmp_path, "a.pq")
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe.parquet")
    notes: list[str] = []
    assert listed(tmp_path, on_note=notes.append) == ["a.pq"]
    assert notes == [f"{tmp_path}: 2 files are not read: 2 special"]


def test_a_folder_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "a.pq", "in/b.pq")
    scandir = os.scandir

    def refuse(path: Any) -> Any:  # noqa: ANN401 (root may read all)
        if Path(path) == tmp_path / "in":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError) as error:
        expand([tmp_path])
    place = tmp_path / "in"
    assert str(error.value) == (
        "expected a folder that can be read, got [Errno 13] Permission denied:"
        f" '{place}' - at `{place}`"
    )


def test_patterns_leave_out_markers(tmp_path: Path) -> None:
    put(tmp_path, "a.pq", "_SUCCESS", "d/b.pq", "d/README.md")
    notes: list[str] = []
    found = expand([tmp_path / "*"], on_note=notes.append)
    assert found == [tmp_path / "a.pq", tmp_path / "d" / "b.pq"]
    assert notes == [f"{tmp_path}/d: 1 file is not read: 1 *.md"]
    assert expand([tmp_path / "_S*"]) == [tmp_path / "_SUCCESS"]


def test_patterns_leave_out_what_folders_leave_out(tmp_path: Path) -> None:
    put(tmp_path, "_day=1/a.pq", ".day=2/b.pq", "_temporary/c.pq", "d/_e.pq", "d/f.pq")
    wanted = [tmp_path / "_day=1" / "a.pq", tmp_path / "d" / "f.pq"]
    for given in (".", "*", "*/*", "*/*.pq", "**/*.pq"):
        assert expand([tmp_path / given]) == wanted
    assert expand([tmp_path / "_temp*" / "*"]) == [tmp_path / "_temporary" / "c.pq"]
    assert expand([tmp_path / ".day=2" / "*"]) == [tmp_path / ".day=2" / "b.pq"]


# ------------------------------------------------------------------ the same everywhere


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("data_files"))


def test_all_commands_read_the_same_files(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = click_log(400)
    folder = tmp_path / "in"
    for name in ("a.PARQUET", "b.pq", "000000_0", "c.parquet.gzip"):
        write = folder / name
        write.parent.mkdir(exist_ok=True)
        pq.write_table(table, write)
    put(folder, "README.md", "_SUCCESS")
    note = f"{folder}: 1 file is not read: 1 *.md\n"
    (tmp_path / "spec.json").write_text(log_spec().to_json())
    words = [str(folder), "--spec", str(tmp_path / "spec.json")]
    assert inspect_main([*words, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["rows"] == 1600
    assert err == f"din-inspect: {note}"
    words += ["--out", str(tmp_path / "m.pt"), "--epochs", "1", "--quiet"]
    assert train_main(words) == 0
    out, err = capsys.readouterr()
    assert "on 1,600 rows of" in out
    assert err == f"din-train: {note}"
    scored = tmp_path / "scored"
    for name in ("a.PARQUET", "000000_0"):
        write_as(make_table(30), scored / "x.parquet").rename(scored / name)
    put(scored, "README.md")
    words = [str(model), str(scored), "--out", str(tmp_path / "out"), "--json"]
    assert main([*words, "--quiet"]) == 0
    out, err = capsys.readouterr()
    said = f"{scored}: 1 file is not read: 1 *.md"
    assert err == f"din-score: {said}\n"
    assert json.loads(out)["notes"] == [said]
    assert json.loads(out)["rows"] == 60
    assert sorted(p.name for p in (tmp_path / "out").glob("*[!e]")) == [
        "000000_0",
        "a.PARQUET",
    ]


def test_formats_that_cannot_be_told_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "a.txt")
    with pytest.raises(InputError) as caught:
        find_sources([tmp_path / "a.txt"])
    assert str(caught.value).endswith(
        f"got a.txt - at `{tmp_path}/a.txt`. Give --format."
    )
    [source] = find_sources([tmp_path / "a.txt"], "csv")
    assert source.format == "csv"


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "csv", "jsonl"])
def test_columns_that_are_in_the_path_alone_are_read_from_it(
    suffix: str, model: Path, tmp_path: Path
) -> None:
    predictor = Predictor(model)
    table = make_table(9)
    for user, day in (("a/b", "2026-01-01"), (None, "2026-01-02")):
        name = (
            "__HIVE_DEFAULT_PARTITION__" if user is None else user.replace("/", "%2F")
        )
        folder = tmp_path / "in" / f"user_id={name}" / f"cate_id=7/day={day}"
        write_as(table.drop(["user_id", "cate_id"]), folder / f"a.{suffix}")
    made = score_files(
        predictor,
        tmp_path / "in",
        tmp_path / "out",
        keep=["day:date", "user_id"],
    )
    found = [pq.read_table(path) for path in made.files]
    for user, day, scored in zip(("a/b", None), (1, 2), reversed(found), strict=True):
        given = table.set_column(1, "user_id", pa.array([user] * 9, pa.string()))
        place = given.column_names.index("cate_id")
        given = given.set_column(place, "cate_id", pa.array([7] * 9))
        assert scored["score"].to_pylist() == predictor.score(given).tolist()
        assert scored["user_id"].to_pylist() == [user] * 9
        assert scored["day"].to_pylist() == [date(2026, 1, day)] * 9


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ("cate_id=0x10", "a path whose `cate_id` can be read as int64, got '0x10'"),
        ("cate_id=1/cate_id=2", "a path with one `cate_id`, got '1' and '2'"),
        ("user_id=a%ff", "a path whose `user_id` is UTF-8, got 'a%ff', 'utf-8' codec"),
    ],
)
def test_what_a_path_may_mean_twice_is_refused(
    folders: str, message: str, model: Path, tmp_path: Path
) -> None:
    name = folders.partition("=")[0]
    path = tmp_path / folders / "a.parquet"
    write_as(make_table(3).drop([name]), path)
    predictor = Predictor(model)
    with pytest.raises(InputError) as caught:
        score_files(predictor, path, tmp_path / "out")
    assert str(caught.value).startswith(f"expected {message}")
    # where the table has the column, nobody reads the path
    write_as(make_table(3), path)
    assert score_files(predictor, path, tmp_path / "more").rows == 3


def test_a_path_may_say_the_same_twice(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "cate_id=7" / "cate_id=7" / "a.parquet"
    write_as(make_table(3).drop(["cate_id"]), path)
    assert score_files(Predictor(model), path, tmp_path / "out").rows == 3


def test_a_column_of_the_table_goes_before_that_of_the_path(
    model: Path, tmp_path: Path
) -> None:
    path = write_as(make_table(9), tmp_path / "user_id=other" / "a.parquet")
    made = score_files(Predictor(model), path, tmp_path / "out", keep=["user_id"])
    [found] = made.files
    assert pq.read_table(found)["user_id"].equals(make_table(9)["user_id"])


def test_a_value_of_the_path_must_fit_its_column(model: Path, tmp_path: Path) -> None:
    table = make_table(9).drop(["cate_id"])
    path = write_as(table, tmp_path / "cate_id=x" / "a.parquet")
    with pytest.raises(InputError) as caught:
        score_files(Predictor(model), path, tmp_path / "out")
    assert str(caught.value) == (
        f"expected a path whose `cate_id` can be read as int64, got 'x' - at `{path}`"
    )


# ------------------------------------------------------------------------------ tables


@pytest.mark.parametrize(
    ("kind", "log"),
    [
        ("a Hudi", ".hoodie/hoodie.properties"),
        ("an Iceberg", "metadata/v3.metadata.json"),
        ("an Iceberg", "metadata/00001-0b1c.gz.metadata.json"),
        ("an Iceberg", "metadata/00001-0b1c.metadata.json"),
        ("a Paimon", "manifest/manifest-list-8d5c-0"),
        ("a Spark streaming", "_spark_metadata/0"),
    ],
)
def test_tables_whose_log_is_not_read_are_refused(
    kind: str, log: str, tmp_path: Path
) -> None:
    table = tmp_path / "lake" / "t"
    put(table, "data/day=1/a.parquet", log)
    (tmp_path / "link").symlink_to(table / "data")
    for given in (
        table,
        tmp_path / "lake",
        table / "data",
        table / "data" / "day=1" / "a.parquet",
        table / "data" / "*" / "*.parquet",
        tmp_path / "link" / "day=1",
    ):
        with pytest.raises(InputError) as caught:
            expand([given])
        assert caught.value.rule == "a folder whose files are all live"
        assert caught.value.got == f"{kind} table"
        fix = "Export the table to Parquet files, and give their folder."
        assert caught.value.fix == fix
        assert Path(caught.value.column).samefile(table)


def entries() -> dict[str, Callable[[Path, Path], object]]:
    return {
        "score_files": lambda m, p: score_files(Predictor(m), p, m.parent / "no"),
        "inspect_files": lambda _, p: inspect_files(log_spec(), p),
        "Rows.open": lambda _, p: Rows.open([p], log_spec()),
        "read_table": lambda _, p: read_table(p, log_spec()),
        "explain_file": lambda m, p: explain_file(Predictor(m), p, [0]),
        "find_rows": lambda _, p: find_rows(p, [("a", "b")], 1),
    }


@pytest.mark.parametrize("name", entries())
def test_every_entry_refuses_files_of_a_log_that_is_not_read(
    name: str, model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "t" / "a.parquet"
    put(tmp_path / "t", "a.parquet", "_spark_metadata/0")
    with pytest.raises(InputError, match="expected a folder whose files are all live"):
        entries()[name](model, path)


def test_a_delta_table_needs_its_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "deltalake", None)
    put(tmp_path, "a.parquet", "_delta_log/0.json")
    for given in (tmp_path, tmp_path / "a.parquet"):
        with pytest.raises(InputError) as caught:
            expand([given])
        assert str(caught.value) == (
            "expected a folder whose files are all live, got a Delta table - at"
            f" `{tmp_path}`. To read its live files, run: pip install"
            ' "din-infer[delta]"'
        )


@pytest.fixture
def deltalake() -> ModuleType:
    return pytest.importorskip("deltalake")


def ids(files: list[Path]) -> list[int]:
    return sorted(k for f in files for k in pq.read_table(f)["row"].to_pylist())


def test_live_files_of_a_delta_table_are_read(
    deltalake: Any,  # noqa: ANN401
    model: Path,
    tmp_path: Path,
) -> None:
    table = make_table(60).append_column("day", pa.array(["a/b", "2026-01-01"] * 30))
    path = tmp_path / "lake" / "t"
    for start in (0, 20, 40):
        part = table.slice(start, 20)
        deltalake.write_deltalake(path, part, partition_by=["day"], mode="append")
    deltalake.DeltaTable(path).delete("row >= 8 and row < 33")
    left = [*range(8), *range(33, 60)]
    dead = {*path.rglob("*.parquet")} - {*expand([path])}
    assert len(dead) > 1
    notes: list[str] = []
    assert ids(expand([path], on_note=notes.append)) == left
    assert notes == [f"{path}: a Delta table at version 3, 4 live files"]
    assert ids(expand([tmp_path / "lake"])) == left
    notes.clear()
    some = [k for k in left if k % 2]
    assert ids(expand([path / "day=2026-01-01"], on_note=notes.append)) == some
    count = sum(f.parent.name == "day=2026-01-01" for f in dead)
    are = "file is" if count == 1 else "files are"
    assert notes == [f"{path}/day=2026-01-01: {count} {are} not read: {count} not live"]
    [one, *_] = dead
    with pytest.raises(InputError) as caught:
        expand([one])
    assert str(caught.value) == (
        f"expected a live file of the Delta table {path}, got another one - at"
        f" `{one}`. Give the table's folder."
    )
    with pytest.raises(InputError, match="expected a live file of the Delta table"):
        expand([path / "*" / "*.parquet"])
    made = score_files(Predictor(model), path, tmp_path / "out", keep=["row"])
    assert ids([Path(f) for f in made.files]) == left
    got = {
        r["row"]: r["score"] for f in made.files for r in pq.read_table(f).to_pylist()
    }
    wanted = Predictor(model).score(table)
    assert [got[k] for k in left] == [wanted[k] for k in left]
    made = score_files(Predictor(model), path, tmp_path / "days", keep=["row", "day"])
    days = {
        r["row"]: r["day"] for f in made.files for r in pq.read_table(f).to_pylist()
    }
    assert [days[k] for k in left] == [table["day"][k].as_py() for k in left]


def test_links_into_a_delta_table_lead_to_live_files_alone(
    deltalake: Any,  # noqa: ANN401
    tmp_path: Path,
) -> None:
    path, folder, single = tmp_path / "t", tmp_path / "q", tmp_path / "q3"
    table = pa.table({"row": range(6), "day": [1, 1, 2, 2, 1, 2]})
    for start in (0, 3):
        part = table.slice(start, 3)
        deltalake.write_deltalake(path, part, partition_by=["day"], mode="append")
    dead = {*path.rglob("*.parquet")}
    deltalake.DeltaTable(path).delete("row < 3")
    dead -= {*expand([path])}
    folder.mkdir()
    (folder / "day1").symlink_to(path / "day=1")
    notes: list[str] = []
    assert ids(expand([folder], on_note=notes.append)) == [4]
    count = sum(f.parent.name == "day=1" for f in dead)
    are = "file is" if count == 1 else "files are"
    assert notes == [f"{folder}: {count} {are} not read: {count} not live"]
    single.mkdir()
    for k, file in enumerate(sorted(path.rglob("*.parquet"))):
        (single / f"f{k}.parquet").symlink_to(file)
    (tmp_path / "q4").symlink_to(single)
    for given in (single, tmp_path / "q4"):
        assert ids(expand([given])) == [3, 4, 5]
    link = next(f for f in sorted(single.iterdir()) if f.resolve() in dead)
    with pytest.raises(InputError) as caught:
        expand([link])
    assert str(caught.value) == (
        f"expected a live file of the Delta table {path}, got another one - at"
        f" `{link}`. Give the table's folder."
    )
    with pytest.raises(InputError, match="expected a live file of the Delta table"):
        expand([single / "*"])


@pytest.mark.parametrize("name", ["t x", "té", "t#1", "t?a=b", "50%", "a+b", 'a"{b}'])
def test_a_delta_table_may_have_any_name(
    deltalake: Any,  # noqa: ANN401
    name: str,
    tmp_path: Path,
) -> None:
    path = tmp_path / name / "t"
    days = pa.table({"row": range(4), "day": ["x y", "é", "a/b", "50%"]})
    deltalake.write_deltalake(path, days, partition_by=["day"])
    deltalake.DeltaTable(path).delete("row = 2")
    assert ids(expand([path])) == [0, 1, 3]
    assert ids(expand([tmp_path / name])) == [0, 1, 3]
    assert ids(expand([path / "day=x%20y"])) == [0]


@pytest.mark.parametrize("name", ["t%20x", "t\\x"])
def test_a_path_for_which_another_table_is_opened_is_refused(
    deltalake: Any,  # noqa: ANN401
    name: str,
    tmp_path: Path,
) -> None:
    for other in ("t", "t x", "t/x"):
        deltalake.write_deltalake(tmp_path / other, pa.table({"row": [1]}))
    shutil.copytree(tmp_path / "t", tmp_path / name)
    with pytest.raises(InputError) as caught:
        expand([tmp_path / name])
    assert str(caught.value) == (
        "expected a Delta table whose path has no backslash and no %-escape, got"
        f" {tmp_path / name} - at `{tmp_path / name}`. Rename the folder."
    )


def change_log(table: Path, change: Callable[[dict[str, Any]], object]) -> None:
    [log] = (table / "_delta_log").glob("*.json")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for line in lines:
        change(line)
    log.write_text("\n".join(map(json.dumps, lines)))


def test_delta_tables_that_the_files_alone_do_not_tell_are_refused(
    deltalake: Any,  # noqa: ANN401
    tmp_path: Path,
) -> None:
    path = tmp_path / "t"
    deltalake.write_deltalake(path, pa.table({"row": [1, 2]}))

    def with_vectors(line: dict[str, Any]) -> None:
        if "protocol" in line:
            some = {"readerFeatures": ["deletionVectors"]}
            more = {"writerFeatures": ["deletionVectors"]}
            line["protocol"] = (
                {"minReaderVersion": 3, "minWriterVersion": 7} | some | more
            )

    change_log(path, with_vectors)
    assert ids(expand([path])) == [1, 2]  # it may have some, and has none

    def with_one_row_less(line: dict[str, Any]) -> None:
        if "add" in line:  # a bitmap that deletes row 1
            line["add"]["deletionVector"] = {
                "storageType": "i",
                "pathOrInlineDv": "^Bg9^0rr910000000000iXQKl0rr91000005c8Xg0rr91",
                "sizeInBytes": 34,
                "cardinality": 1,
            }

    change_log(path, with_one_row_less)
    with pytest.raises(InputError) as caught:
        expand([path])
    assert str(caught.value) == (
        "expected a Delta table without deletion vectors, got some - at"
        f" `{path}`. Run REORG TABLE .. APPLY (PURGE) on it. Or: Export the table to"
        " Parquet files, and give their folder."
    )

    def with_mapping(line: dict[str, Any]) -> None:
        if "metaData" in line:
            line["metaData"]["configuration"] = {"delta.columnMapping.mode": "name"}

    change_log(path, with_mapping)
    with pytest.raises(InputError) as caught:
        expand([path])
    assert str(caught.value) == (
        "expected a Delta table without column mapping, got mode 'name' - at"
        f" `{path}`. Export the table to Parquet files, and give their folder."
    )
    (path / "_delta_log" / "00000000000000000000.json").write_text("{bad")
    with pytest.raises(InputError, match="expected a readable Delta table, got "):
        expand([path])


# ------------------------------------------------------------------------------- names


def with_bad_names(path: Path, old: bytes) -> Path:
    """Change a name in a file's schema to bytes that are not UTF-8."""
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, b"\xff" + old[1:]))
    return path


@pytest.mark.parametrize("name", ["unused", "inner", "goods_id"])
@pytest.mark.parametrize("suffix", ["arrow", "arrows", "parquet"])
def test_names_that_are_not_utf8_are_refused(
    suffix: str, name: str, model: Path, tmp_path: Path
) -> None:
    table = make_table(9)
    table = table.append_column("unused", pa.array([[{"inner": 1}]] * 9))
    path = tmp_path / f"t.{suffix}"
    if suffix == "parquet":  # the schema that is Parquet's own
        pq.write_table(table, path, store_schema=False)
    else:
        write_as(table, path)
    with_bad_names(path, name.encode())
    got = b"\xff" + name[1:].encode()
    for keep in ([], ["unused"], ["row"]):
        with pytest.raises(InputError) as caught:
            score_files(Predictor(model), path, tmp_path / "out", keep=keep)
        assert str(caught.value) == (
            f"expected column names in UTF-8, got {got!r} - at `{path}`."
            " Write the file anew with other names."
        )
    if suffix == "parquet":
        for entry in ("inspect_files", "Rows.open", "read_table", "explain_file"):
            with pytest.raises(InputError, match="expected column names in UTF-8"):
                entries()[entry](model, path)
