"""A job that goes on: repaired, replaced, left out and added inputs; progress."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import din_infer
from din_infer import InputError, Predictor
from din_infer.cli import main
from din_infer.jobs import progress
from din_infer.jobs.files import JobError, score_files
from din_infer.jobs.ledger import Ledger
from din_infer.jobs.sources import END_BYTES, Identity
from tests.jobs import make_model, make_table, scores_of, write_as

pytestmark = pytest.mark.slow

BROKEN = b"PAR1 no Parquet"
PLAIN: dict[str, Any] = {"compression": "none", "use_dictionary": False}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("resume"))


@pytest.fixture(scope="module")
def predictor(model: Path) -> Predictor:
    return Predictor(model, device="cpu", threads=1)


def make_shards(
    folder: Path, count: int, rows: int = 20, suffix: str = "parquet"
) -> None:
    table = make_table(count * rows, seed=7)
    lists: dict[str, list[Any]] = {  # that CSV can hold
        "interests": ["a", "b"],
        "hist_goods_id": ["g1", "g2"],
        "hist_cate_id": [1, 2],
        "action": ["a", "b"],
    }
    for name, values in lists.items():
        at = table.column_names.index(name)
        table = table.set_column(at, name, pa.array([values] * len(table)))
    for k in range(count):
        write_as(table.slice(k * rows, rows), folder / f"s{k:03}.{suffix}")


def stamps(out: Path) -> dict[str, tuple[int, int]]:
    """Tell the very files: what is written again has another inode."""
    files = [p for p in out.rglob("*.parquet*") if p.is_file() and "bad" not in p.parts]
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in files}


def job_of(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "_din_score" / "job.json").read_text())
    return found


def names_of(out: Path) -> list[str]:
    return [entry["output"] for entry in job_of(out)["inputs"]]


def fail(predictor: Predictor, folder: Path, out: Path, **options: Any) -> JobError:  # noqa: ANN401
    with pytest.raises(JobError) as caught:
        score_files(predictor, folder, out, progress=False, **options)
    return caught.value


@pytest.mark.slow
def test_a_job_of_many_shards_is_finished_after_the_repair(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # which takes half of the time
    count = 1000
    folder, out = tmp_path / "in", tmp_path / "out"
    make_shards(folder, count, rows=2)
    good = (folder / "s500.parquet").read_bytes()
    (folder / "s500.parquet").write_bytes(BROKEN)
    words = [str(model), str(folder), "--out", str(out), "--quiet", "--threads", "1"]
    assert main(words) == 1
    capsys.readouterr()
    before = stamps(out)
    assert len(before) == 2 * (count - 1)  # with their manifests
    (folder / "s500.parquet").write_bytes(good)
    assert main([*words, "--resume", "--json"]) == 0
    said, err = capsys.readouterr()
    told = "1 input is taken as now, changed since the job began: s500.parquet"
    assert err == f"din-score: {told}\n"
    assert json.loads(said)["files"] == [str(out / "s500.parquet")]
    after = stamps(out)
    assert {name: after[name] for name in before} == before
    assert len(after) == 2 * count
    listed = json.loads((out / "_din_score" / "manifest.json").read_text())
    assert len(listed["shards"]) == count
    assert listed["changes"] == [{"output": "s500.parquet", "change": "changed"}]


@pytest.mark.parametrize("how", ["repaired", "by rename", "left out", "another name"])
def test_an_input_that_failed_is_repaired_replaced_or_left_out(
    how: str, predictor: Predictor, tmp_path: Path
) -> None:
    folder, out, whole = tmp_path / "in", tmp_path / "out", tmp_path / "whole"
    make_shards(folder, 3)
    score_files(predictor, folder, whole)
    path = folder / "s001.parquet"
    good = path.read_bytes()
    path.write_bytes(BROKEN)
    assert list(fail(predictor, folder, out).summary.failed) == [str(path)]  # type: ignore[union-attr]
    assert not (out / "_din_score" / "manifest.json").exists()
    before = stamps(out)
    # as long as it is broken, and whatever else happens
    again = fail(predictor, folder, out, resume=True)
    assert again.summary is not None
    assert (again.summary.notes, list(again.summary.failed)) == ([], [str(path)])
    assert job_of(out).get("changes") is None
    name, options = "s001.parquet", {}
    note = "1 input is taken as now, changed since the job began: s001.parquet"
    if how == "repaired":
        path.write_bytes(good)
    elif how == "by rename":
        (tmp_path / "new").write_bytes(good)
        shutil.move(tmp_path / "new", path)
    else:
        path.unlink()
        note = "1 input is not given now, and left out of the job: s001.parquet"
        if how == "another name":
            name, options = "s001-again.parquet", {"add": True}
            (folder / name).write_bytes(good)
    notes: list[str] = []
    made = score_files(
        predictor, folder, out, resume=True, on_note=notes.append, **options
    )
    assert made.notes == notes
    assert note in notes
    assert {n: stamps(out)[n] for n in before} == before
    kept = ["s000.parquet", "s002.parquet"]
    if how == "left out":
        assert names_of(out) == kept
        assert not (out / "s001.parquet").exists()
    else:
        assert sorted(names_of(out)) == sorted([*kept, name])
        assert (out / name).read_bytes() == (whole / "s001.parquet").read_bytes()
    kinds = {c["change"] for c in job_of(out)["changes"]}
    wanted = {"repaired": {"changed"}, "by rename": {"changed"}}
    wanted |= {"left out": {"left out"}, "another name": {"left out", "added"}}
    assert kinds == wanted[how]
    listed = json.loads((out / "_din_score" / "manifest.json").read_text())
    assert len(listed["shards"]) == len(names_of(out))
    # nothing more to do, and nothing to tell
    last = score_files(predictor, folder, out, resume=True)
    assert (last.files, last.notes) == ([], [])


# ------------------------------------------------------------------- the same content


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders with a file whose middle is not in its ends."""
    made: dict[str, Path] = {}

    def make(suffix: str) -> Path:
        if suffix not in made:
            made[suffix] = tmp_path_factory.mktemp("large") / "in"
            make_shards(made[suffix], 1, rows=1500, suffix=suffix)
        return made[suffix]

    return make


@pytest.mark.parametrize("suffix", ["parquet", "csv", "arrow", "jsonl.gz"])
@pytest.mark.parametrize("how", ["touched", "moved", "copied", "linked"])
def test_time_and_place_of_inputs_do_not_matter(
    how: str,
    suffix: str,
    predictor: Predictor,
    large: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    shutil.copytree(large(suffix), folder)
    score_files(predictor, folder, out)
    before = stamps(out)
    job = (out / "_din_score" / "job.json").read_bytes()
    if how == "touched":
        for path in folder.iterdir():
            os.utime(path, ns=(1, 1))
    elif how == "moved":
        folder = folder.rename(tmp_path / "elsewhere")
    elif how == "copied":
        shutil.copytree(folder, tmp_path / "copy")
        shutil.rmtree(folder)
        folder = tmp_path / "copy"
    else:
        for path in folder.iterdir():
            os.link(path, tmp_path / path.name)
            path.chmod(0o600)
    made = score_files(predictor, folder, out, resume=True)
    assert (made.files, made.notes) == ([], [])
    assert stamps(out) == before
    assert (out / "_din_score" / "job.json").read_bytes() == job


def change_the_middle(path: Path) -> None:
    """Change a byte that neither size nor ends tell, and put the time back."""
    status = path.stat()
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        ages = table["age"].to_pylist()
        ages[7001], ages[8000] = ages[8000], ages[7001]
        at = table.column_names.index("age")
        table = table.set_column(at, "age", pa.array(ages))
        old = Identity.of(path)
        pq.write_table(table, path, **PLAIN)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert Identity.of(path) == old
        return
    content = bytearray(path.read_bytes())
    assert len(content) > 3 * END_BYTES
    found = re.compile(rb'\n(\{"row": )?(\d+)').search(content, END_BYTES)
    assert found is not None
    content[found.end() - 1] ^= 1  # another digit
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "arrow", "parquet"])
def test_a_change_in_the_middle_is_one(
    suffix: str, predictor: Predictor, large: Callable[[str], Path], tmp_path: Path
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    shutil.copytree(large(suffix), folder)
    if suffix == "parquet":  # whose footer does not tell of all changes
        first = folder / "s000.parquet"
        table = pa.concat_tables([pq.read_table(first)] * 10)
        pq.write_table(table.combine_chunks(), first, **PLAIN)
    shutil.copy(folder / f"s000.{suffix}", folder / f"s001.{suffix}")
    score_files(predictor, folder, out)
    before = stamps(out)
    path, name = folder / f"s001.{suffix}", f"s001.{suffix}.parquet"
    target = out / name.replace(".parquet.parquet", ".parquet")
    old = path.read_bytes()
    change_the_middle(path)
    with pytest.raises(InputError) as caught:
        score_files(predictor, folder, out, resume=True)
    assert str(caught.value) == (
        f"expected the content that {target} was scored from, got another one - at"
        f" `{path}`. Put it back, or remove {target} to have it scored again."
    )
    assert stamps(out) == before
    path.write_bytes(old)
    assert score_files(predictor, folder, out, resume=True).files == []
    change_the_middle(path)
    target.unlink()
    made = score_files(predictor, folder, out, resume=True)
    assert made.files == [str(target)]
    name = target.name.replace("s001", "s000")
    assert stamps(out)[name] == before[name]


# ------------------------------------------------------------------ a folder that grows


def test_a_folder_that_grows_is_taken_up(predictor: Predictor, tmp_path: Path) -> None:
    folder, out, whole = tmp_path / "in", tmp_path / "out", tmp_path / "whole"
    make_shards(folder, 7)
    score_files(predictor, folder, whole)
    later = tmp_path / "later"
    later.mkdir()
    for k in (0, 4, 5, 6):  # names before and after those there
        shutil.move(folder / f"s{k:03}.parquet", later)
    score_files(predictor, folder, out)
    before = stamps(out)
    for path in later.iterdir():
        shutil.move(path, folder)
    with pytest.raises(InputError) as caught:
        score_files(predictor, folder, out, resume=True)
    assert str(caught.value) == (
        "expected the inputs of the job that has begun, 3 of them, got 4 more,"
        " s000.parquet, s004.parquet, s005.parquet, ... - at"
        f" `{out}/_din_score/job.json`. Give --resume --add to take them up, or"
        " --overwrite to begin anew."
    )
    assert stamps(out) == before
    made = score_files(predictor, folder, out, resume=True, add=True)
    assert made.notes == [
        "4 inputs are added to the job: s000.parquet, s004.parquet, s005.parquet, ..."
    ]
    assert len(made.files) == 4
    assert {n: stamps(out)[n] for n in before} == before
    names = [f"s{k:03}.parquet" for k in range(7)]
    assert all((out / n).read_bytes() == (whole / n).read_bytes() for n in names)
    listed = json.loads((out / "_din_score" / "manifest.json").read_text())
    assert len(listed["shards"]) == 7
    # inputs go, and outputs stay
    (folder / "s001.parquet").unlink()
    made = score_files(predictor, folder, out, resume=True)
    assert made.notes == [
        "1 input is not given or not there now, and whole, so the outputs stay:"
        " s001.parquet"
    ]
    assert sorted(names_of(out)) == names
    given = [folder / name for name in names]
    made = score_files(predictor, given, out, resume=True)
    assert len(made.notes) == 1
    assert len(made.whole) == 7
    # of a job that has not begun, all inputs are new
    score_files(predictor, folder, tmp_path / "new", resume=True, add=True)


def test_an_output_that_was_damaged_needs_its_input(
    predictor: Predictor, tmp_path: Path
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    make_shards(folder, 2)
    score_files(predictor, folder, out)
    (folder / "s001.parquet").unlink()
    target = out / "s001.parquet"
    target.write_bytes(target.read_bytes() + b"x")
    with pytest.raises(InputError) as caught:
        score_files(predictor, folder, out, resume=True)
    assert str(caught.value) == (
        "expected an output as its manifest says, or its input to make it again, got"
        f" another file - at `{target}`. Give the input, or remove the output."
    )
    target.unlink()
    made = score_files(predictor, folder, out, resume=True)
    assert made.notes == [
        "1 input is not given now, and left out of the job: s001.parquet"
    ]


def rows_of(out: Path) -> list[int]:
    files = [f for f in out.rglob("*.parquet") if "_din_score" not in f.parts]
    return sorted(k for f in files for k in pq.read_table(f)["row"].to_pylist())


@pytest.mark.parametrize("how", ["stays", "moved", "copied"])
def test_an_input_keeps_the_name_of_its_output(
    how: str, predictor: Predictor, tmp_path: Path
) -> None:
    table, out, days = make_table(70), tmp_path / "out", tmp_path / "days"
    keep: dict[str, Any] = {"keep": ["row"], "resume": True}
    write_as(table.slice(0, 20), days / "1" / "part.parquet")
    score_files(predictor, days / "*" / "part.parquet", out, **keep)
    first = (out / "part.parquet").stat().st_ino
    if how == "moved":
        days = days.rename(tmp_path / "e")
    elif how == "copied":
        days = Path(shutil.copytree(days, tmp_path / "e"))
    write_as(table.slice(20, 20), days / "2" / "part.parquet")
    pattern = days / "*" / "part.parquet"
    with pytest.raises(InputError) as caught:
        score_files(predictor, pattern, out, **keep)
    assert caught.value.got == "1 more, 2/part.parquet"
    made = score_files(predictor, pattern, out, add=True, **keep)
    known = (
        "1 input is known by content, under another name, and not scored again:"
        " part.parquet"
    )
    told = [] if how == "stays" else [known]
    assert made.notes == ["1 input is added to the job: 2/part.parquet", *told]
    assert made.files == [str(out / "2" / "part.parquet")]
    write_as(table.slice(40, 30), days / "0" / "part.parquet")
    made = score_files(predictor, days, out, add=True, **keep)
    assert made.files == [str(out / "0" / "part.parquet")]
    assert rows_of(out) == list(range(70))
    assert (out / "part.parquet").stat().st_ino == first
    listed = json.loads((out / "_din_score" / "manifest.json").read_text())
    names = ["part.parquet", "2/part.parquet", "0/part.parquet"]
    assert [s["output"] for s in listed["shards"]] == names
    assert [s["input"]["output"] for s in listed["shards"]] == names
    assert [i["output"] for i in listed["inputs"]] == names
    # some of them alone are the same, too
    made = score_files(predictor, days / "2", out, **keep)
    assert (made.files, rows_of(out)) == ([], list(range(70)))


def test_other_content_does_not_take_the_name_of_an_input(
    predictor: Predictor, tmp_path: Path
) -> None:
    table, out = make_table(60), tmp_path / "out"
    day = tmp_path / "d" / "1" / "part.parquet"
    write_as(table.slice(0, 20), day)
    score_files(predictor, day.parent, out, keep=["row"])
    write_as(table.slice(20, 20), tmp_path / "d" / "part.parquet")
    options: dict[str, Any] = {"keep": ["row"], "resume": True, "add": True}
    made = score_files(predictor, tmp_path / "d", out, **options)
    assert made.files == [str(out / "d" / "part.parquet")]
    # a new day in the place of the one that has been moved
    day.parent.rename(tmp_path / "d" / "0")
    write_as(table.slice(40, 20), day)
    made = score_files(predictor, tmp_path / "d", out, **options)
    assert made.files == [str(out / "1" / "part.parquet")]
    assert rows_of(out) == list(range(60))
    made = score_files(predictor, tmp_path / "d", out, **options)
    assert (made.files, len(made.whole)) == ([], 3)


def test_no_output_of_others_is_replaced(predictor: Predictor, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    make_shards(folder, 1)
    score_files(predictor, folder, out)
    make_shards(folder, 2)
    (out / "s001.parquet").write_bytes(b"mine")
    with pytest.raises(InputError, match="expected a file that is not there yet"):
        score_files(predictor, folder, out, resume=True, add=True)
    assert (out / "s001.parquet").read_bytes() == b"mine"
    assert names_of(out) == ["s000.parquet"]


def test_adding_goes_with_resuming(
    predictor: Predictor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError) as caught:
        score_files(predictor, tmp_path, tmp_path / "out", add=True)
    assert str(caught.value) == "expected resume beside add, got add alone - at `add`"
    with pytest.raises(SystemExit) as ended:
        main(["m", "in", "--out", "out", "--add"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith("argument --add: goes with --resume\n")


def test_a_job_of_an_older_format_is_refused(
    predictor: Predictor, tmp_path: Path
) -> None:
    make_shards(tmp_path / "in", 1)
    out = tmp_path / "out"
    score_files(predictor, tmp_path / "in", out)
    job = out / "_din_score" / "job.json"
    job.write_text(json.dumps(job_of(out) | {"format": 1}))
    with pytest.raises(InputError) as caught:
        score_files(predictor, tmp_path / "in", out, resume=True)
    assert str(caught.value) == (
        f"expected format 2, which din-infer {din_infer.__version__} reads, got 1 - at"
        f" `{job}: format`. Give --overwrite to begin anew."
    )
    for damage in ("[]", '{"format": 2, "inputs": [3]}', '{"format": 2}'):
        job.write_text(damage)
        with pytest.raises(InputError, match="a job to go on with, got damage"):
            score_files(predictor, tmp_path / "in", out, resume=True)


# ------------------------------------------------------------ several processes at work


def entry(name: str, size: int = 1) -> dict[str, Any]:
    return {"path": f"/in/{name}", "size": size, "ends": "", "output": name}


def begin(out: Path, names: str, **options: Any) -> Ledger:  # noqa: ANN401
    """Open a ledger as another process would."""
    from din_infer.jobs import ledger

    made = Ledger(out, {}, [entry(name) for name in names], resume=True, **options)
    ledger._OPEN.clear()
    return made


def finish(ledger: Ledger, k: int) -> None:
    ledger.target(k).write_bytes(b"s")
    ledger.finish(k, {"size": 1, "output": str(k)})


def test_processes_with_an_older_list_go_on_with_the_job(tmp_path: Path) -> None:
    first = begin(tmp_path, "ab")
    second = begin(tmp_path, "xab", add=True)  # in another order
    for k in range(2):
        finish(first, k)
    # what `first` knows is done, and the job is not
    assert not first.finish_job()
    assert not (tmp_path / "_din_score" / "manifest.json").exists()
    assert second.manifest(1) is not None
    finish(second, 0)
    assert first.finish_job()
    listed = json.loads((tmp_path / "_din_score" / "manifest.json").read_text())
    assert [i["output"] for i in listed["inputs"]] == ["a", "b", "x"]


def test_an_input_whose_names_are_all_taken_is_refused(tmp_path: Path) -> None:
    then = [{**entry("x"), "path": "/a"}, {**entry("in/x"), "path": "/b"}]
    Ledger(tmp_path, {}, then).close()
    now = [*then, {**entry("x", 2), "path": "/in/x"}]
    with pytest.raises(InputError) as caught:
        Ledger(tmp_path, {}, now, resume=True, add=True)
    assert str(caught.value) == (
        "expected inputs of different names, got two that become x - at `/in/x`."
        " Rename this one."
    )


LOCKS = """
import sys
from pathlib import Path
from din_infer.jobs.ledger import Ledger
names = sys.argv[2]
inputs = [{"path": n, "size": 1, "ends": "", "output": n} for n in names]
ledger = Ledger(Path(sys.argv[1]), {}, inputs, resume=True)
for line in sys.stdin:
    word, k = line.split()
    if word == "close":
        ledger.close()
    print(word != "close" and getattr(ledger, word)(int(k)), flush=True)
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Another process, which has the job of inputs a, b and c open."""
    command = [sys.executable, "-c", LOCKS, str(tmp_path), "abc"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen(command, text=True, **pipes)

    def ask(line: str) -> str:
        process.stdin.write(line + "\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
        return str(process.stdout.readline().strip())  # type: ignore[union-attr]

    assert ask("claim 0") == "True"
    yield ask
    process.kill()
    process.communicate()


def test_inputs_are_left_out_while_no_other_process_works(
    other: Callable[[str], str], tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        begin(tmp_path, "ba")
    assert str(caught.value) == (
        "expected a job that no process works on, to leave inputs out, got one at work"
        f" - at `{tmp_path}`. Give all inputs, or wait until it has ended."
    )
    assert names_of(tmp_path) == ["a", "b", "c"]
    # an output has the same lock in both, wherever it stands in their lists
    ledger = begin(tmp_path, "xcba", add=True)
    assert [ledger.claim(k) for k in range(4)] == [True, True, True, False]
    assert [other(f"claim {k}") for k in range(3)] == ["True", "False", "False"]
    other("close 0")
    ledger.close()
    begin(tmp_path, "ba")
    assert names_of(tmp_path) == ["a", "b"]


# ----------------------------------------------------------------------------- progress


def test_progress_is_a_line_a_minute_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 1000.0
    monkeypatch.setattr("din_infer.jobs.progress.time.monotonic", lambda: now)
    with progress.show_progress(10_000, "scoring", True) as bar:
        for step in range(1, 21):
            now += 12
            bar.update(250)
            if step == 14:
                bar.set_postfix_str("2 in other processes")
    assert capsys.readouterr().err == (
        "scoring: 1,250 of 10,000 rows (12%), 21 rows/s, 07:00 left\n"
        "scoring: 2,500 of 10,000 rows (25%), 21 rows/s, 06:00 left\n"
        "scoring: 3,750 of 10,000 rows (38%), 21 rows/s, 05:00 left,"
        " 2 in other processes\n"
        "scoring: 5,000 of 10,000 rows (50%), 21 rows/s, 04:00 left,"
        " 2 in other processes\n"
    )
    lines = progress.Lines(None, "scoring", initial=50)
    lines.n = 150
    lines.set_postfix(log_loss="0.5")
    assert lines.line(10.0) == "scoring: 150 rows, 10 rows/s, log_loss 0.5"
    assert lines.line(0.0) == "scoring: 150 rows, 0 rows/s, log_loss 0.5"


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_job_logs_its_progress_unless_it_is_quiet(
    suffix: str,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    make_shards(tmp_path / "in", 2, suffix=suffix)
    words = [str(model), str(tmp_path / "in"), "--batch-size", "10"]
    assert main([*words, "--out", str(tmp_path / "a")]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("scoring: ") for line in lines)
    assert lines[-1].startswith("scoring: 40 of 40 rows (100%), ")
    assert main([*words, "--out", str(tmp_path / "b"), "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    got = [scores_of(p) for p in sorted((tmp_path / "a").glob("*.parquet"))]
    assert np.concatenate(got).shape == (40,)
    assert pq.read_table(tmp_path / "b").num_rows == 40


@pytest.mark.parametrize(("first", "then"), [("C.UTF-8", "C"), ("C", "C.UTF-8")])
def test_a_job_that_goes_on_in_another_locale_is_no_damaged_one(
    first: str, then: str, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    write_as(make_table(5, seed=1), tmp_path / "in" / "ü.parquet")
    words = (model, tmp_path / "in", "--out", tmp_path / "out", "--quiet", "--resume")
    made = []
    for locale in (first, then):
        plain = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        run = "from din_infer.cli import main; raise SystemExit(main())"
        command = [sys.executable, "-c", run, *map(str, words)]
        env = os.environ | plain
        made.append(subprocess.run(command, capture_output=True, env=env))
    assert [done.returncode for done in made] == [0, 1]
    assert made[1].stderr.decode() == (
        "din-score: expected the encoding of file names that the job began with, got"
        f" {'ascii' if then == 'C' else 'utf-8'} - at"
        f" `{tmp_path}/out/_din_score/job.json`. Go on in the locale of then, as"
        " LC_ALL=C.UTF-8.\n"
    )
