"""The one writer of files that are there whole or not at all, and who uses it."""

import errno
import fcntl
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest
from matplotlib.figure import Figure

from din_converter import convert, save
from din_converter.run import RunFolder, plot_curve
from din_converter.train import Epoch, Trained
from din_infer.cli import command_errors
from din_infer.errors import ConversionError, InputError, ModelError
from din_infer.jobs import explain, inspect
from din_infer.whole_file import (
    WholeFile,
    draft_folder,
    move_into_place,
    remove_leftovers,
    write_whole,
    writing,
)
from tests.models import SPECS, random_model

LEFT = ".a.txt.15120.0123abcd"  # of a writer of a.txt


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "a.txt"
    path.write_text("old")
    return path


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def refuse(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def move_draft(target: Path, error: type[BaseException] | None = None) -> None:
    with draft_folder(target) as folder:
        (folder / "draft").write_text("new")
        if error is not None:
            raise error
        move_into_place(folder / "draft", target)


def test_a_file_is_synced_then_renamed_then_its_folder_synced(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[tuple[str, int]] = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(handle: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        size = 0 if is_folder else os.fstat(handle).st_size
        events.append(("sync folder" if is_folder else "sync", size))
        fsync(handle)

    def note_replace(old: Path, new: Path) -> None:
        assert (os.fspath(new), Path(new).read_text()) == (os.fspath(target), "old")
        events.append(("rename", Path(old).stat().st_size))
        replace(old, new)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    wanted = [("sync", 3), ("rename", 3), ("sync folder", 0)]
    write_whole(target, "new")
    assert (events, target.read_text()) == (wanted, "new")
    events.clear()
    target.write_text("old")
    move_draft(target)
    assert (events, target.read_text()) == (wanted, "new")
    assert names(target.parent) == ["a.txt"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_nothing_else(
    call: str, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(OSError, match="No space left"):
        write_whole(target, b"new")
    with pytest.raises(OSError, match="No space left"):
        move_draft(target)
    assert (names(target.parent), target.read_text()) == (["a.txt"], "old")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_while_it_is_written_leaves_the_old_file_alone(
    error: type[BaseException], target: Path
) -> None:
    def write() -> None:
        with WholeFile(target) as file:
            file.write(b"new")
            raise error

    with pytest.raises(error):
        write()
    with pytest.raises(error):
        move_draft(target, error)
    assert (names(target.parent), target.read_text()) == (["a.txt"], "old")


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Refuse to write beyond 100 bytes of any file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [101, 1 << 20])  # refused by flush, or by write
@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    size: int, target: Path
) -> None:
    with pytest.raises(OSError, match="File too large"):
        write_whole(target, b"n" * size)
    assert (names(target.parent), target.read_text()) == (["a.txt"], "old")


def test_a_place_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path / "folder", "new")
    assert names(tmp_path) == ["folder"]
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "no" / "a.txt", "new")
    with pytest.raises(NotADirectoryError):
        write_whole(Path(__file__, "a.txt"), "new")
    with (
        pytest.raises(ConversionError) as caught,
        writing("it", tmp_path, ConversionError),
    ):
        refuse()
    assert str(caught.value) == (
        "expected a place where it can be written, got [Errno 28] No space left on"
        f" device - at `{tmp_path}`"
    )


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_permissions_follow_the_umask(mask: int, target: Path) -> None:
    before = os.umask(mask)
    try:
        write_whole(target, "new")
        with draft_folder(target) as folder:
            assert stat.S_IMODE(folder.stat().st_mode) == 0o777 & ~mask
    finally:
        os.umask(before)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~mask


def test_a_link_is_replaced_and_its_target_stays(target: Path) -> None:
    link = target.with_name("link")
    link.symlink_to("a.txt")
    write_whole(link, "new")
    assert not link.is_symlink()
    assert (link.read_text(), target.read_text()) == ("new", "old")


# ---------------------------------------------------------------- leftovers and writers

WRITER = """
import sys, time
from pathlib import Path
from din_infer.whole_file import WholeFile, draft_folder
with draft_folder(Path(sys.argv[1])) as folder, WholeFile(sys.argv[1]) as file:
    (folder / "draft").write_text("half")
    file.write(b"half")
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def writer(target: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, in the middle of writing a.txt and a folder of drafts."""
    command = [sys.executable, "-c", WRITER, str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def test_a_live_writers_files_stay_and_a_killed_ones_are_removed(
    target: Path, writer: subprocess.Popen[str]
) -> None:
    half = [n for n in names(target.parent) if f".{writer.pid}." in n]
    assert len(half) == 3  # a file, a folder and its lock
    write_whole(target, "new")
    assert names(target.parent) == [*half, "a.txt"]
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    write_whole(target.with_name("b.txt"), "another target")
    assert names(target.parent) == [*half, "a.txt", "b.txt"]
    write_whole(target, "newer")
    assert names(target.parent) == ["a.txt", "b.txt"]
    assert target.read_text() == "newer"


def test_two_writers_of_one_process_leave_each_other_alone(target: Path) -> None:
    with WholeFile(target, "w") as file:
        file.write("last")
        write_whole(target, "first")
        assert target.read_text() == "first"
    assert (names(target.parent), target.read_text()) == (["a.txt"], "last")


def test_threads_that_write_one_target_do_not_meet(target: Path) -> None:
    contents = [letter * 100_000 for letter in "abcd"]
    failed: list[BaseException] = []

    def work(content: str) -> None:
        try:
            for _ in range(25):
                write_whole(target, content)
                assert target.read_text() in contents
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(c,)) for c in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert names(target.parent) == ["a.txt"]


def test_a_folder_of_drafts_that_cannot_be_removed_is_left_to_the_next_writer(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        move_draft(target)
    assert len(names(target.parent)) == 3  # a.txt, the folder and its lock
    write_whole(target, "newer")
    assert names(target.parent) == ["a.txt"]


def test_only_files_of_the_targets_writers_are_leftovers(target: Path) -> None:
    others = [".a.txt.15120.tmp", ".a.txt.b.1.0123abcd.tmp", ".a.txt.1.0123abcd.tmp.b"]
    others += ["a.txt.1.0123abcd.tmp", ".aatxt.1.0123abcd.tmp", ".b.1.0123abcd.tmp"]
    for name in (*others, f"{LEFT}.tmp"):
        target.with_name(name).touch()
    target.with_name(LEFT).mkdir()
    remove_leftovers(target)
    assert names(target.parent) == sorted([*others, "a.txt"])
    remove_leftovers(target.parent / "no" / "a.txt")


def test_a_file_that_is_removed_before_it_is_locked_is_made_again(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock
    removed: list[str] = []

    def flock(file: IO[Any], how: int) -> None:
        if not removed:
            removed.append(file.name)
            remove_leftovers(target)  # as another writer would, just now
            assert names(target.parent) == ["a.txt"]
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with WholeFile(target) as file:
        assert (len(removed), file.name != removed[0]) == (1, True)
        file.write(b"new")
    assert (names(target.parent), target.read_text()) == (["a.txt"], "new")


def test_without_locks_files_are_written_and_nothing_is_taken_for_a_leftover(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target.with_name(f"{LEFT}.tmp").touch()

    def flock(*_: object) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(fcntl, "flock", flock)
    write_whole(target, "new")
    assert names(target.parent) == [f"{LEFT}.tmp", "a.txt"]
    assert target.read_text() == "new"


# ------------------------------------------------------------------------- who uses it


def saved_checkpoint(folder: Path) -> None:
    run = RunFolder(folder, {})
    run.begin(resume=False, overwrite=True)
    try:
        run.save({})
    finally:
        run.close()


def curve(folder: Path) -> None:
    epochs = [Epoch(1, 0.5, 0.5, 0.5, None)]
    plot_curve(Trained(random_model(SPECS["paper"]), epochs[0], epochs), folder)


PAGE: Any = SimpleNamespace(to_html=lambda: "page", plot=Figure)
WRITERS: dict[str, tuple[Callable[[Path], object], type[Exception]]] = {
    "model.pt": (
        lambda f: save(random_model(SPECS["paper"]), f / "model.pt"),
        ModelError,
    ),
    "checkpoint.pt": (saved_checkpoint, InputError),
    "learning_curve.png": (curve, OSError),
    "m.onnx": (
        lambda f: convert(random_model(SPECS["candidate only"]), f / "m.onnx"),
        ConversionError,
    ),
    "page.html": (lambda f: explain.write(PAGE, f / "page.html"), InputError),
    "weights.png": (lambda f: explain.write(PAGE, f / "weights.png"), InputError),
    "fit.pdf": (lambda f: inspect.write_picture(PAGE, f / "fit.pdf"), InputError),
}


@pytest.mark.parametrize("name", WRITERS)
def test_writers_of_results_leave_what_was_there_or_a_whole_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, error = WRITERS[name]
    write(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    if name == "checkpoint.pt":  # the run begins anew
        before.pop(name)
    assert before
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(error, match="No space left on device"):
        write(tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()} == before


def test_a_signal_between_making_and_writing_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_whole(tmp_path / "old.txt", "old")

    made = []

    def run() -> int:
        made.append(WholeFile(tmp_path / "new.txt"))
        raise KeyboardInterrupt

    assert command_errors("din-score", "cpu", run) == 130
    made[0].file.close()
    assert [p.name for p in tmp_path.iterdir()] == ["old.txt"]
    assert capsys.readouterr().err == "din-score: interrupted\n"


@pytest.mark.parametrize("kind", [ImportError, RuntimeError, InputError, OSError])
def test_an_interrupt_that_a_library_covers_is_one(
    kind: type[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    def run() -> int:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise kind("initialization failed") from error

    assert command_errors("din-score", "cpu", run) == 130
    assert capsys.readouterr().err == "din-score: interrupted\n"


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="tells open files")
def test_files_are_closed_before_they_move_where_open_ones_cannot(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def as_on_windows(call: Callable[..., None]) -> Callable[..., None]:
        def checked(path: str | Path, *others: str | Path, **more: object) -> None:
            links = Path("/proc/self/fd").iterdir()
            if str(path) in [str(x.readlink()) for x in links if x.is_symlink()]:
                raise PermissionError(errno.EACCES, "in use", str(path))
            call(path, *others, **more)

        return checked

    monkeypatch.setattr("os.replace", as_on_windows(os.replace))
    monkeypatch.setattr("os.unlink", as_on_windows(os.unlink))
    with pytest.raises(PermissionError):  # as long as files are held until they moved
        write_whole(target, "new")
    monkeypatch.setattr("din_infer.whole_file.OPEN_FILES_MOVE", False)
    remove_leftovers(target)
    assert (names(target.parent), target.read_text()) == (["a.txt"], "old")
    write_whole(target, "new")
    assert (names(target.parent), target.read_text()) == (["a.txt"], "new")
    with suppress(ValueError), WholeFile(target, "w") as file:
        file.write("half")
        raise ValueError
    move_draft(target)
    assert (names(target.parent), target.read_text()) == (["a.txt"], "new")
