"""Job folders that were in other hands: links, special files, edited ledgers, names.

Each attack is set up in a folder whose job was killed before its last output, or in a
new one. Whatever is found there, a job is done or refused by one error of ours, and
nothing outside of the folder, and no file of another, is written, made or removed.
"""

import fcntl
import json
import multiprocessing
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from din_infer import InputError, Predictor, file_locks
from din_infer.cli import main
from din_infer.errors import DinError
from din_infer.jobs.files import score_files
from din_infer.jobs.ledger import FOLDER, JOB_LOCK, Ledger, is_name
from tests.jobs import make_model, make_table, scores_of

NAMES = ("a.parquet", "day=1/b.parquet")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module")
def predictor(model: Path) -> Predictor:
    return Predictor(model, device="cpu", threads=1)


class Place:
    """Inputs, the folder of a job, and what is none of its business."""

    def __init__(self, folder: Path) -> None:
        self.inputs, self.out = folder / "in", folder / "out"
        self.outside = folder / "outside"
        for k, name in enumerate(NAMES):
            path = self.inputs / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(make_table(6, seed=k), path)
        (self.outside / "day=1").mkdir(parents=True)
        for name in (*NAMES, "job.json", "lock", "treasure", "a.parquet.json"):
            (self.outside / name).write_bytes(b"PAR1 of another")

    @property
    def ledger(self) -> Path:
        return self.out / FOLDER

    def state(self) -> dict[str, tuple[int, bytes | None]]:
        """Tell the very files outside, and what is in them."""
        found = {}
        for path in sorted(self.outside.rglob("*")):
            content = path.read_bytes() if path.is_file() else None
            found[str(path)] = (path.lstat().st_ino, content)
        return found

    def edit(self, change: Callable[[dict[str, Any]], object]) -> None:
        path = self.ledger / "job.json"
        job = json.loads(path.read_text())
        change(job)
        path.write_text(json.dumps(job))


def link(path: Path, target: Path | str) -> None:
    """Put a link in the place of what is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def links(at: str) -> dict[str, Callable[[Place], None]]:
    """Links of every kind at one place of the job's folder."""
    name = Path(at).name
    name = "a.parquet.json" if name == "a.parquet.json" else name
    return {
        f"{at} is a link to a file": lambda p: link(p.out / at, p.outside / "treasure"),
        f"{at} is a link to a folder": lambda p: link(p.out / at, p.outside),
        f"{at} is a link to its like": lambda p: link(p.out / at, p.outside / name),
        f"{at} is a dangling link": lambda p: link(p.out / at, p.outside / "new"),
        f"{at} is a ring of links": lambda p: link(p.out / at, name),
        f"{at} is a device": lambda p: link(p.out / at, "/dev/zero"),
    }


def put(path: Path, make: Callable[[Path], object]) -> None:
    with suppress(FileNotFoundError):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    make(path)


def listen(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        os.chdir(path.parent)
        made.bind(path.name)


def put_at(at: str, make: Callable[[Path], object], place: Place) -> None:
    put(place.out / at, make)


def hard_link(at: str, place: Place) -> None:
    put(place.out / at, lambda path: os.link(place.outside / "treasure", path))


ENTRIES = (
    FOLDER,
    f"{FOLDER}/job.json",
    f"{FOLDER}/lock",
    f"{FOLDER}/manifest.json",
    f"{FOLDER}/shards",
    f"{FOLDER}/shards/a.parquet.json",
    f"{FOLDER}/bad",
    "a.parquet",
    "day=1",
    "day=1/b.parquet",
)
FILES = {name: setup for at in ENTRIES for name, setup in links(at).items()}
SPECIAL: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a socket": listen,
}
for at in ENTRIES:
    for kind, make in SPECIAL.items():
        FILES[f"{at} is {kind}"] = partial(put_at, at, make)
    if "." in at or at.endswith("lock"):
        FILES[f"{at} is a hard link"] = partial(hard_link, at)


def output(name: object) -> Callable[[Place], None]:
    """An edited list, by which the first input has another output."""

    def change(job: dict[str, Any]) -> None:
        job["inputs"][0]["output"] = name

    return lambda place: place.edit(change)


def absolute(place: Place) -> None:
    output(str(place.outside / "treasure"))(place)


def through_a_link(place: Place) -> None:
    link(place.out / "sub", place.outside)
    output("sub/treasure")(place)


def set_key(key: str, value: object) -> Callable[[Place], None]:
    return lambda place: place.edit(lambda job: job.update({key: value}))


def write(text: str | bytes, name: str = "job.json") -> Callable[[Place], None]:
    data = text.encode() if isinstance(text, str) else text
    return lambda place: (place.ledger / name).write_bytes(data)


def deep(levels: int) -> Any:  # noqa: ANN401
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def manifest(**keys: object) -> Callable[[Place], None]:
    def edit(place: Place) -> None:
        path = place.ledger / "shards" / "a.parquet.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))

    return edit


def foreign_output(place: Place) -> None:
    """A file of another in the folder, which the list calls an output of the job."""
    (place.out / "thesis").write_bytes(b"not Parquet")
    output("thesis")(place)


LISTS: dict[str, Callable[[Place], object]] = {
    "another folder": output("../outside/treasure"),
    "an absolute path": absolute,
    "a path through a link": through_a_link,
    "a path through its own ledger": output(f"{FOLDER}/job.json"),
    "a name with a NUL": output("a\0b"),
    "a name with no bytes": output("\ud800"),
    "no name": output(""),
    "a dot": output("."),
    "a number": output(7),
    "a list": output(["a"]),
    "a long name": output("x" * 300),
    "a name twice": output("day=1/b.parquet"),
    "another's file": foreign_output,
    "inputs as text": set_key("inputs", "a.parquet"),
    "inputs of other types": set_key("inputs", [1, None, []]),
    "changes as text": set_key("changes", "all"),
    "a format as text": set_key("format", "2"),
    "a format of 4,000 digits": lambda p: p.edit(lambda j: j.update(format=10**4000)),
    "a job that is deep": set_key("options", deep(500)),
    "a key more that is deep": set_key("more", deep(500)),
    "other options": set_key("options", {"keep": "\x1b[2J\n"}),
    "an empty list": write(""),
    "half a list": write('{"format": 2, "inp'),
    "no object": write("[]"),
    "no number at all": write('{"format": 2, "inputs": NaN}'),
    "100,000 levels": write("[" * 100_000),
    "no UTF-8": write(b"\xff\xfe{}"),
    "NUL bytes": write(bytes(1000)),
    "a key twice": write('{"format": 2, "inputs": [], "inputs": {}}'),
    "a manifest of other rows": manifest(rows="many"),
    "a manifest of 10^40 rows": manifest(rows=10**40),
    "a manifest of fewer than no rows": manifest(rows=-1),
    "a manifest of another size": manifest(size="6"),
    "a manifest of another digest": manifest(sha256=[7]),
    "a manifest of another input": manifest(input=deep(20)),
    "a manifest that is deep": manifest(fields=deep(900)),
    "half a manifest": write("{", "shards/a.parquet.json"),
}
ATTACKS = {**FILES, **LISTS}


@pytest.fixture
def place(predictor: Predictor, tmp_path: Path) -> Iterator[Place]:
    """A job with one output whole and the other one missing."""
    made, here = Place(tmp_path), Path.cwd()
    score_files(predictor, made.inputs, made.out, progress=False)
    (made.out / "day=1" / "b.parquet").unlink()
    (made.ledger / "manifest.json").unlink()
    yield made
    os.chdir(here)


def within(seconds: float, work: Callable[[], object]) -> None:
    """Fail where work does not end, or ends in an error that is none of ours."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except DinError:
            pass
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive()
    for error in failed:
        raise error


CASES = [(attack, how) for attack in ATTACKS for how in ("resume", "overwrite")]
# Without either, a job is refused where there is one, if that can be told.
CASES += [(a, "fresh") for a in FILES if a.split(" is ")[0] in ENTRIES[:3]]


@pytest.mark.parametrize(("attack", "how"), CASES)
def test_nothing_of_others_is_touched(
    attack: str, how: str, predictor: Predictor, place: Place
) -> None:
    ATTACKS[attack](place)
    before, foreign = place.state(), place.out / "thesis"
    options = {"resume": how == "resume", "overwrite": how == "overwrite"}

    def work() -> None:
        score_files(predictor, place.inputs, place.out, progress=False, **options)

    within(20, work)
    assert place.state() == before
    assert attack != "another's file" or foreign.read_bytes() == b"not Parquet"
    left = [p.name for p in place.out.rglob("*.tmp")]
    assert left == []


def test_names_of_outputs() -> None:
    """What a list may call an output: a path below the folder, spelled out."""
    assert all(map(is_name, ("a", "a\n\x1b", "day=1/b", "\udcff", "..a", "_din/x")))
    wrong = ("", ".", "..", "../a", "a/../b", "/a", "a//b", "./a", "a/")
    wrong += ("a\0", "\ud800")
    assert not any(map(is_name, (*wrong, FOLDER, "_DIN_score/lock", None, 7, ["a"])))


ODD = ("two\nlines", "\x1b[2J", "\udcff\udc80", "a`b'\"$")


@pytest.mark.parametrize("name", ODD)
def test_names_of_any_bytes_are_scored_and_resumed(
    name: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    name += ".parquet"
    for k, other in enumerate(("plain.parquet", name)):
        pq.write_table(make_table(6, seed=k), tmp_path / "made")
        (tmp_path / "made").rename(folder / other)
    words = [str(model), str(folder), "--out", str(out), "--quiet", "--threads", "1"]
    assert main(words) == 0
    said, err = capsys.readouterr()
    assert (len(said.splitlines()), err) == (15, "")
    first = [(out / n).read_bytes() for n in sorted(["plain.parquet", name])]
    (out / name).unlink()
    assert main([*words, "--resume"]) == 0
    assert first == [(out / n).read_bytes() for n in sorted(["plain.parquet", name])]
    capsys.readouterr()
    (folder / name).write_bytes(b"PAR1")
    assert main([*words[:-2], "--overwrite"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def hold(path: Path, byte: int, held: Any, leave: Any) -> None:  # noqa: ANN401
    """Lock a byte in another process, until it is told to leave."""
    with path.open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX, 1, byte)
        held.set()
        leave.wait(60)


def test_a_lock_that_another_process_keeps_is_waited_for_and_told(
    predictor: Predictor, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_locks, "PATIENCE_S", 0.05)
    here = multiprocessing.get_context("fork")
    held, leave = here.Event(), here.Event()
    arguments = (place.ledger / "lock", JOB_LOCK, held, leave)
    other = here.Process(target=hold, args=arguments, daemon=True)
    other.start()
    assert held.wait(20)
    notes: list[str] = []

    def note(text: str) -> None:
        notes.append(text)
        leave.set()

    score_files(
        predictor, place.inputs, place.out, resume=True, progress=False, on_note=note
    )
    other.join()
    assert notes == [f"waiting for another process that begins a job in {place.out}"]
    assert len(scores_of(place.out / "day=1" / "b.parquet")) == 6


@pytest.mark.parametrize("what", ["the folder", "its ledger", "its lock"])
def test_a_folder_that_goes_while_it_is_used_ends_the_job(
    what: str, predictor: Predictor, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Ledger.finish

    def finish(self: Ledger, k: int, found: dict[str, Any]) -> None:
        gone = {"the folder": place.out, "its ledger": place.ledger}
        if what in gone:
            gone[what].rename(place.outside / "gone")
        else:
            (place.ledger / "lock").unlink()
        real(self, k, found)

    monkeypatch.setattr(Ledger, "finish", finish)
    with pytest.raises(InputError, match="a folder that stays while the job runs"):
        score_files(predictor, place.inputs, place.out, resume=True, progress=False)
    monkeypatch.undo()
    assert what == "its lock" or not place.ledger.exists()


def test_a_folder_that_may_not_be_written_is_one_error(
    predictor: Predictor, place: Place
) -> None:
    place.ledger.chmod(0o555)
    user = os.geteuid()
    for folder in place.out.parents:
        if folder.stat().st_uid == user:
            folder.chmod(folder.stat().st_mode | 0o055)
    if user == 0:  # whom no mode keeps out
        os.seteuid(65534)
    try:
        with pytest.raises(DinError, match="Permission denied"):
            score_files(predictor, place.inputs, place.out, resume=True)
    finally:
        os.seteuid(user)


def test_names_that_differ_in_case_alone_have_outputs_of_their_own(
    predictor: Predictor, place: Place
) -> None:
    """As on file systems where they are one name."""
    twin = place.inputs.parent / "A.parquet"
    pq.write_table(make_table(9, seed=9), twin)
    inputs = [place.inputs / "a.parquet", twin]
    score_files(predictor, inputs[0], place.out / "o", progress=False)
    score_files(
        predictor, inputs, place.out / "o", progress=False, resume=True, add=True
    )
    made = list((place.out / "o").rglob("*.parquet"))
    names = {str(path.relative_to(place.out)).casefold() for path in made}
    assert len(names) == len(made) == 2
    scores = sorted(map(len, map(scores_of, made)))
    assert scores == [6, 9]


@pytest.mark.parametrize("kind", ["a file", "a pipe", "a ring of links", "a device"])
def test_an_out_that_is_no_folder_is_one_error(
    kind: str, predictor: Predictor, place: Place
) -> None:
    out = place.outside / "treasure"
    if kind == "a pipe":
        put(out, os.mkfifo)
    elif kind == "a ring of links":
        link(out, out.name)
    elif kind == "a device":
        out = Path("/dev/null")

    def work() -> None:
        with pytest.raises(DinError, match="a place where the scores can be written"):
            score_files(predictor, place.inputs, out, progress=False)

    within(20, work)
