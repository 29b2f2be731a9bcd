"""Folders of runs and repositories, and targets, that were in other hands."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import torch

from din_converter.prune import data_files
from din_converter.row_copies import RowCopies
from din_converter.run import RunFolder, read_events
from din_converter.train import Settings, train
from din_converter.triton import Repository
from din_infer.errors import ConversionError, InputError
from din_infer.jobs.history.output import name_targets
from din_infer.whole_file import WholeFile, draft_folder, remove_leftovers, write_whole
from tests.test_train import QUIET, click_log, log_spec

SPEC = log_spec(model={"tower": {"hidden": [4]}})
SETTINGS = Settings(epochs=1, batch_size=200, **QUIET)


@pytest.fixture
def treasure(tmp_path: Path) -> Path:
    path = tmp_path / "outside" / "treasure"
    path.parent.mkdir()
    path.write_text("of another\n")
    return path


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("name", ["metrics.jsonl", "tensorboard", "rows"])
def test_a_link_in_a_run_leads_nowhere(
    name: str, resume: bool, treasure: Path, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run", {})
    run.path.mkdir()
    target = treasure if name == "metrics.jsonl" else treasure.parent
    (run.path / name).symlink_to(target)
    with pytest.raises(InputError, match=f"got a link to {target} - at `{run.path}"):
        run.begin(resume=resume, overwrite=True)
    assert treasure.read_text() == "of another\n"


def test_a_log_that_another_name_shares_is_not_written(
    treasure: Path, tmp_path: Path
) -> None:
    """As a copy of the folder by hard links (``cp -al``) shares it."""
    run = RunFolder(tmp_path / "run", {})
    run.begin(resume=False)
    run.log("step", 1, loss=0.5)
    run.save({"epochs": []})
    run.log("step", 2, loss=0.5)
    run.close()
    os.link(run.metrics, treasure.with_name("copy"))
    before = treasure.with_name("copy").read_text()
    for resume in (True, False):
        again = RunFolder(tmp_path / "run", {})
        again.begin(resume=resume, overwrite=not resume)
        again.log("step", 9, loss=0.5)
        again.close()
        steps = [event["step"] for event in read_events(run.metrics)]
        assert steps == ([1, 9] if resume else [9])
        assert treasure.with_name("copy").read_text() == before


def test_copies_of_rows_are_not_made_behind_a_link(
    treasure: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "rows"
    folder.symlink_to(treasure.parent)
    (treasure.parent / "theirs.arrow").touch()
    with pytest.raises(InputError, match="a folder of the run, got a link to"):
        RowCopies(folder)._place()
    RowCopies(folder).remove()
    assert (treasure.parent / "theirs.arrow").exists()
    folder.unlink()
    folder.mkdir()
    kept = ["theirs.arrow", "a.tmp", "a.0123.arrow"]
    ours = [
        "a.csv.0123456789abcdef.arrow",
        ".a.csv.0123456789abcdef.arrow.7.0123abcd.tmp",
    ]
    for name in (*kept, *ours):
        (folder / name).touch()
    RowCopies(folder).remove()
    assert sorted(p.name for p in folder.iterdir()) == sorted(kept)


DAMAGE: dict[str, Any] = {
    "format as text": {"format": "one"},
    "no config": {"config": None},
    "a log of text": {"log_bytes": "all"},
    "a log of less than nothing": {"log_bytes": -1},
    "epochs as a number": {"epochs": 7},
    "epochs of other keys": {"epochs": [{"number": 1}]},
    "epochs of text": {
        "epochs": [
            {"number": "1", "train_log_loss": "", "log_loss": 0, "auc": 0, "gauc": 0}
        ]
    },
    "no model": {"model": None},
    "a model of one tensor": {"model": {"w": torch.zeros(1)}},
    "no optimizers": {"optimizers": []},
    "optimizers of text": {"optimizers": "adam"},
    "another state of chance": {"random": torch.zeros(3)},
    "steps of text": {"step": "7"},
    "steps before the first": {"step": -7},
    "a best epoch that is none": {"best": 10**6},
    "best weights of one tensor": {"best_state": {"w": torch.zeros(1)}},
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """What a run has saved before it was interrupted."""
    folder = tmp_path_factory.mktemp("saved") / "run"
    run = RunFolder(folder, {})
    train(SPEC, click_log(300), None, SETTINGS, run=run)
    return torch.load(run.checkpoint, weights_only=True), folder


@pytest.mark.parametrize("what", DAMAGE)
def test_a_checkpoint_of_another_hand_is_one_error(
    what: str, saved: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    content, folder = saved
    run = RunFolder(tmp_path / "run", {})
    run.path.mkdir()
    for name in ("spec.json", "metrics.jsonl"):
        (run.path / name).write_bytes((folder / name).read_bytes())
    torch.save({**content, **DAMAGE[what]}, run.checkpoint)
    before = run.checkpoint.read_bytes()
    with pytest.raises(InputError, match=r"a checkpoint that din-train wrote|format 1"):
        train(SPEC, click_log(300), None, SETTINGS, run=run, resume=True)
    assert run.checkpoint.read_bytes() == before


EVENTS = ("[]", "7", '{"event": 7}', '{"config": {}}', "[" * 100_000, "{", "\x1b")


@pytest.mark.parametrize("line", EVENTS)
def test_a_log_ends_where_a_line_is_none_of_it(line: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first = {"event": "finished", "config": 7}
    path.write_text(json.dumps(first) + f"\n{line}\n")
    assert read_events(path) == [first]
    (tmp_path / "metrics.jsonl").write_text(json.dumps(first) + "\n")
    assert not RunFolder(tmp_path, {}).is_finished()


@pytest.mark.parametrize(
    "kind", ["a pipe", "a device", "a folder", "a link to a device"]
)
def test_no_file_takes_the_place_of(kind: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    if kind == "a pipe":
        os.mkfifo(target)
    elif kind == "a folder":
        target.mkdir()
    else:
        target.symlink_to("/dev/null")
        if kind == "a device":
            target = Path("/dev/null")
    mode = target.stat().st_mode
    with pytest.raises(OSError):  # noqa: PT011 - of whatever class
        write_whole(target, "new")
    file = WholeFile(tmp_path / "other")
    (tmp_path / "other").mkdir()
    with pytest.raises(IsADirectoryError):
        file.finish()
    assert (target.stat().st_mode, stat.S_ISREG(mode)) == (mode, False)
    left = [p.name for p in tmp_path.iterdir() if p.name.endswith(".tmp")]
    assert left == []


def test_leftovers_that_are_links_stay(treasure: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    link, pipe = (tmp_path / f".a.txt.{k}.0123abcd.tmp" for k in (1, 2))
    link.symlink_to(treasure)
    os.mkfifo(pipe)
    remove_leftovers(target)
    assert link.is_symlink()
    assert (pipe.exists(), treasure.read_text()) == (True, "of another\n")
    with draft_folder(target) as folder:
        assert folder.is_dir()


def test_a_repository_has_no_links(treasure: Path, tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    (folder / "m").mkdir(parents=True)
    (folder / "m" / "1").symlink_to(treasure.parent)
    made = Repository.of(folder, None)
    assert made is not None
    with pytest.raises(ConversionError, match="a folder of the repository, got a link"):
        made.add(tmp_path / "m.onnx", None, None, prune=True)  # type: ignore[arg-type]
    assert [p.name for p in treasure.parent.iterdir()] == ["treasure"]


def test_data_files_are_named_by_their_digests(tmp_path: Path) -> None:
    wrong = ["m-20240131.data", "m-2024.data", "m.data", "n-e3b0c442.data"]
    for name in (*wrong, "m-e3b0c442.data"):
        (tmp_path / name).touch()  # of no bytes, whose SHA-256 begins so
    (tmp_path / "m-00000000.data").symlink_to("m-e3b0c442.data")
    assert data_files(tmp_path, "m") == [tmp_path / "m-e3b0c442.data"]


def test_rows_replace_no_link_unless_they_may(treasure: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.parquet"
    out.symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="a file that is not there yet"):
        name_targets(out, None, [], overwrite=False)
    assert name_targets(out, None, [], overwrite=True) == {"train": out}
    (tmp_path / "split").mkdir()
    (tmp_path / "split" / "valid.parquet").mkdir()
    with pytest.raises(InputError, match="Is a directory"):
        name_targets(tmp_path / "split", "time", [], overwrite=True)
    assert treasure.exists()
