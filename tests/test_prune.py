import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from din_converter import convert
from din_converter.prune import Leftovers, find_leftovers
from din_converter.report import Report
from din_infer import Predictor
from tests.models import random_model, spec_dict


def big_model(path: Path, seed: int, **options: bool) -> Report:
    raw = spec_dict()
    raw["candidate"][0]["encoder"]["buckets"] = 50_000
    return convert(random_model(raw, seed=seed), path, **options)  # type: ignore[arg-type]


def data_of(report: Report) -> Path:
    assert report.data_path is not None
    return report.data_path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with m.onnx, its data, and what a conversion before it left."""
    folder = tmp_path_factory.mktemp("prune")
    big_model(folder / "m.onnx", seed=1)
    big_model(folder / "m.onnx", seed=2)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "models"))


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


def old_data(folder: Path) -> Path:
    ((name, _),) = find_leftovers(folder / "m.onnx", delete=False).left
    return folder / name


def refusal(got: str, path: Path) -> str:
    return (
        f"expected an .onnx that tells which data it names, got {got} - at `{path}`."
        " No data file is deleted while it is there."
    )


def test_a_conversion_lists_or_deletes_what_those_before_it_left(
    tmp_path: Path,
) -> None:
    path = tmp_path / "m.onnx"
    first = big_model(path, seed=1)
    assert first.leftovers == Leftovers()
    size = data_of(first).stat().st_size
    second = big_model(path, seed=2)
    old = (data_of(first).name, size)
    assert second.leftovers == Leftovers(left=(old,))
    assert second.to_dict()["leftovers"]["left"] == (old,)
    assert str(second).endswith(
        f"unused    {size / 1e6:.4g} MB that no .onnx here names; --prune deletes"
        f" them\n          {old[0]}, {size / 1e6:.4g} MB"
    )
    third = big_model(path, seed=3, prune=True)
    new = (data_of(second).name, size)
    assert dict(third.leftovers.deleted) == dict((old, new))
    assert "\ndeleted   " in str(third)
    assert names(tmp_path) == {"m.onnx", data_of(third).name}
    assert Predictor(path).model_id == third.model_id


def test_the_same_model_again_is_not_its_own_leftover(folder: Path) -> None:
    again = big_model(folder / "m.onnx", seed=1, prune=True)
    assert names(folder) == {"m.onnx", data_of(again).name}


def test_what_is_named_otherwise_or_linked_is_never_deleted(folder: Path) -> None:
    old = old_data(folder)
    content = old.read_bytes()
    others = ["m.data", "n-01234567.data", "m-0123456.data", "m-0123456G.data"]
    others += ["m-01234567.data.bak", "m-x-01234567.data", "M-01234567.data"]
    for name in others:
        (folder / name).write_bytes(content)
    others += ["m-20240131.data"]  # a day, not a digest
    (folder / "m-20240131.data").write_bytes(content)
    (folder / "m-00000000.data").mkdir()
    (folder / "m-11111111.data").symlink_to("n-01234567.data")
    found = find_leftovers(folder / "m.onnx", delete=True)
    assert found == Leftovers(deleted=((old.name, len(content)),))
    assert {*others, "m-00000000.data", "m-11111111.data"} < names(folder)


def test_data_that_another_onnx_of_the_folder_names_stays(folder: Path) -> None:
    old = old_data(folder)
    named = (folder / "m.onnx").read_bytes()
    (current,) = names(folder) - {"m.onnx", old.name}
    other = named.replace(current.encode(), old.name.encode())
    (folder / "yesterday.onnx").write_bytes(other)
    assert find_leftovers(folder / "m.onnx", delete=True) == Leftovers()
    # and where it is a link, to a folder that has the data or not
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir()
    (folder / "yesterday.onnx").rename(elsewhere / "model.onnx")
    (folder / "linked.onnx").symlink_to(elsewhere / "model.onnx")
    assert find_leftovers(folder / "m.onnx", delete=True) == Leftovers()
    # or names a link to the data
    (folder / ("l" * len(current))).symlink_to(old.name)
    other = named.replace(current.encode(), b"l" * len(current))
    (elsewhere / "model.onnx").write_bytes(other)
    assert find_leftovers(folder / "m.onnx", delete=True) == Leftovers()


def test_data_that_a_copy_of_a_model_names_stays(folder: Path) -> None:
    old = old_data(folder)
    shutil.copyfile(folder / "m.onnx", folder / "now")
    big_model(folder / "m.onnx", seed=1)
    (folder / "m.onnx").replace(folder / "m.ONNX.bak")
    (folder / "now").replace(folder / "m.onnx")
    (folder / "m.onnx.sha256").write_text("no graph")
    assert find_leftovers(folder / "m.onnx", delete=True) == Leftovers()
    assert old.is_file()


def test_a_link_names_data_beside_its_target(folder: Path) -> None:
    """The data of an .onnx elsewhere may be the folder's own, by a link."""
    old = old_data(folder)
    (current,) = names(folder) - {"m.onnx", old.name}
    store = folder.parent / "store"
    store.mkdir()
    named = (folder / "m.onnx").read_bytes().replace(current.encode(), b"d" * 15)
    (store / "model.onnx").write_bytes(named)
    (store / ("d" * 15)).symlink_to(old)
    assert len(current) == 15
    assert find_leftovers(folder / "m.onnx", delete=False).left
    (folder / "linked.onnx").symlink_to(store / "model.onnx")
    assert find_leftovers(folder / "m.onnx", delete=True) == Leftovers()


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (b"", "no ONNX file"),
        (b"\xff" * 50, "no ONNX file"),
        (b"\x08\x0a", "no ONNX file"),
        (None, "No such file or directory"),
    ],
)
def test_an_onnx_that_cannot_be_read_stops_all_deleting(
    content: bytes | None, got: str, folder: Path
) -> None:
    before, other = names(folder), folder / "other.onnx"
    if content is None:
        other.symlink_to("nowhere.onnx")
    else:
        other.write_bytes(content)
    found = find_leftovers(folder / "m.onnx", delete=True)
    assert found == Leftovers(reason=refusal(got, other))
    report = big_model(folder / "m.onnx", seed=2, prune=True)
    assert str(report).endswith(f"\nunused    {refusal(got, other)}")
    assert names(folder) == before | {"other.onnx"}


def test_a_cut_onnx_stops_all_deleting(folder: Path) -> None:
    content = (folder / "m.onnx").read_bytes()
    (folder / "cut.onnx").write_bytes(content[:-10])
    found = find_leftovers(folder / "m.onnx", delete=True)
    assert found == Leftovers(reason=refusal("no ONNX file", folder / "cut.onnx"))


def test_a_conversion_that_is_at_its_end_keeps_its_data(folder: Path) -> None:
    """Its data is in place, and its .onnx still among the drafts."""
    old = old_data(folder)
    (current,) = names(folder) - {"m.onnx", old.name}
    drafts = folder / ".m.onnx.123.0123abcd"
    drafts.mkdir()
    draft = (
        (folder / "m.onnx").read_bytes().replace(current.encode(), old.name.encode())
    )
    (drafts / "other.onnx").write_bytes(draft)
    assert find_leftovers(folder / "m.onnx", delete=True) == Leftovers()
    (drafts / "other.onnx").write_bytes(draft[:100])
    found = find_leftovers(folder / "m.onnx", delete=True)
    assert found == Leftovers(reason=refusal("no ONNX file", drafts / "other.onnx"))
    shutil.rmtree(drafts)
    assert find_leftovers(folder / "m.onnx", delete=True).deleted


KILLED = """
import os, signal, sys
from pathlib import Path
from din_converter import export
from tests.test_prune import big_model
real = export.move_into_place
def move(path, target):
    if target.suffix == ".onnx":  # its data is in place
        os.kill(os.getpid(), signal.SIGKILL)
    real(path, target)
export.move_into_place = move
big_model(Path(sys.argv[1]), seed=3)
"""


@pytest.mark.slow
def test_what_a_killed_conversion_left_is_removed_by_the_next_one(folder: Path) -> None:
    before = names(folder)
    done = subprocess.run([sys.executable, "-c", KILLED, folder / "m.onnx"])
    assert done.returncode == -signal.SIGKILL
    assert len(names(folder) - before) == 3  # drafts, their lock and the data
    report = big_model(folder / "m.onnx", seed=2, prune=True)
    assert names(folder) == {"m.onnx", data_of(report).name}


def test_data_that_is_replaced_while_others_are_read_stays(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, real = old_data(folder), os.path.realpath

    def meanwhile(path: str | os.PathLike[str], *, strict: bool = False) -> str:
        beside = folder / "beside"
        shutil.copy(old, beside)
        beside.replace(old)
        return real(path, strict=strict)

    monkeypatch.setattr(os.path, "realpath", meanwhile)
    assert find_leftovers(folder / "m.onnx", delete=True) == Leftovers()
    assert old.exists()


def test_a_file_that_cannot_be_deleted_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = old_data(folder)

    def refuse(_: Path) -> None:
        message = "busy"
        raise PermissionError(message)

    monkeypatch.setattr(Path, "unlink", refuse)
    found = find_leftovers(folder / "m.onnx", delete=True)
    assert found.left == ((old.name, old.stat().st_size),)
    assert found.reason == f"expected a file that can be deleted, got busy - at `{old}`"
