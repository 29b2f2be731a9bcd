"""A run folder: a run that goes on after its end, over files that moved or changed."""

import errno
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from din_converter import build_model, load, save
from din_converter.fingerprint import changes
from din_converter.rows import Rows
from din_converter.run import RunFolder, read_events
from din_converter.train import Epoch, Settings, Trained, train
from din_infer import InputError, ModelError
from din_infer.whole_file import WholeFile
from tests.test_train import QUIET, click_log, log_spec

SPEC = log_spec(model={"tower": {"hidden": [8], "dropout": 0.3}})
SETTINGS = Settings(
    epochs=2,
    batch_size=100,
    learning_rate=0.01,
    schedule="constant",
    mba=0.1,
    patience=9,
    **QUIET,
)
AGAIN = " Give --overwrite, without --resume, to start another one."


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes most of the time of a short run."""
    monkeypatch.setattr("din_converter.run.plot_curve", lambda *_: None)


def run_of(folder: Path, settings: Settings, **config: Any) -> RunFolder:  # noqa: ANN401
    return RunFolder(folder, {**asdict(settings), **config})


def go(
    folder: Path,
    settings: Settings,
    *,
    resume: bool = False,
    **config: Any,  # noqa: ANN401
) -> Trained:
    run = run_of(folder, settings, **config)
    trained = train(SPEC, click_log(500), None, settings, run=run, resume=resume)
    run.finish(trained)
    return trained


def figures(epochs: list[Epoch]) -> list[Epoch]:
    still = {"seconds": 0.0, "rows_per_second": 0.0, "waited": 0.0}
    return [replace(e, **still) for e in epochs]


@pytest.mark.parametrize("schedule", ["constant", "exponential"])
def test_a_run_that_has_ended_goes_on_as_if_it_had_not(
    schedule: str, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, schedule=schedule)
    whole = go(tmp_path / "whole", replace(settings, epochs=4))
    go(tmp_path / "parts", settings)
    torch.manual_seed(99)  # what another process would have
    parts = go(tmp_path / "parts", replace(settings, epochs=4), resume=True)
    assert figures(parts.epochs) == figures(whole.epochs)
    state = whole.model.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in parts.model.state_dict().items())
    kept = [torch.load(tmp_path / n / "last.pt") for n in ("whole", "parts")]
    for key in ("model", "best_state"):
        assert all(torch.equal(kept[0][key][k], kept[1][key][k]) for k in state)
    assert str(kept[0]["optimizers"]) == str(kept[1]["optimizers"])
    events = [read_events(tmp_path / n / "metrics.jsonl") for n in ("whole", "parts")]
    assert [e["event"] for e in events[0]] == [e["event"] for e in events[1]]
    assert not (tmp_path / "parts" / "checkpoint.pt").exists()


def test_a_run_that_stopped_early_goes_on_with_more_patience(tmp_path: Path) -> None:
    settings = replace(SETTINGS, epochs=6, patience=1, learning_rate=1e-9)
    first = go(tmp_path, settings)
    assert len(first.epochs) < 6
    assert run_of(tmp_path, settings).is_finished()
    patient = replace(settings, patience=6)
    assert not run_of(tmp_path, patient).is_finished()
    assert len(go(tmp_path, patient, resume=True).epochs) == 6


def refusal(folder: Path, settings: Settings, **config: Any) -> str:  # noqa: ANN401
    with pytest.raises(InputError) as caught:
        go(folder, settings, resume=True, **config)
    return str(caught.value)


def test_a_run_that_would_have_been_another_is_refused(tmp_path: Path) -> None:
    linear = replace(SETTINGS, schedule="linear", epochs=1)
    go(tmp_path, linear)
    metrics = (tmp_path / "metrics.jsonl").read_bytes()
    place = f"at `{tmp_path}/last.pt`."
    assert refusal(tmp_path, replace(linear, epochs=2)) == (
        "expected the run that has ended here, got epochs 1 and now 2, on which the"
        f" linear schedule depends - {place} Start another run from its weights:"
        f" --overwrite --warm-start {tmp_path}/last.pt."
    )
    assert refusal(tmp_path, replace(linear, seed=3)) == (
        f"expected the run that has ended here, got seed 0 and now 3 - {place}{AGAIN}"
    )
    # nothing was lost
    assert (tmp_path / "metrics.jsonl").read_bytes() == metrics
    assert run_of(tmp_path, linear).is_finished()
    (tmp_path / "last.pt").unlink()
    assert refusal(tmp_path, replace(linear, epochs=2)) == (
        "expected last.pt of the run that has ended here, to take it further, got none"
        f" - at `{tmp_path}`.{AGAIN}"
    )
    two = replace(SETTINGS, epochs=2)
    go(tmp_path, two)
    assert refusal(tmp_path, replace(two, epochs=1)) == (
        f"expected the run that has ended here, got epochs 2 and now 1 - {place}{AGAIN}"
    )


def test_a_run_folder_that_is_new_begins_with_resume_too(tmp_path: Path) -> None:
    one = replace(SETTINGS, epochs=1)
    assert len(go(tmp_path / "new", one, resume=True).epochs) == 1


# --------------------------------------------------------------------------- files


def prints(folder: Path) -> list[str]:
    return Rows.open([folder], SPEC).fingerprint()


def shards(folder: Path) -> Path:
    folder.mkdir()
    for k in range(3):
        pq.write_table(click_log(40, seed=k), folder / f"{k}.parquet")
    return folder


def test_files_that_moved_or_were_touched_are_the_same(tmp_path: Path) -> None:
    a = shards(tmp_path / "a")
    before = prints(a)
    assert changes(before, prints(a)) == ([], [])
    os.utime(a / "1.parquet", (1, 1))
    assert changes(before, prints(a)) == ([], [f"{a}/1.parquet was touched"])
    b = a.rename(tmp_path / "b")
    notes = [f"{a}/{k}.parquet is now {b}/{k}.parquet" for k in range(3)]
    assert changes(before, prints(b)) == ([], notes)


def test_files_that_changed_are_named(tmp_path: Path) -> None:
    a = shards(tmp_path / "a")
    before = prints(a)
    pq.write_table(click_log(41, seed=1), a / "1.parquet")
    (a / "2.parquet").rename(a / "3.parquet")
    assert changes(before, prints(a)) == (
        [
            f"{a}/2.parquet is gone",
            f"{a}/1.parquet has changed (40 rows and now 41)",
            f"{a}/3.parquet is new",
        ],
        [],
    )
    assert changes(before, before[::-1]) == (
        ["the same files come in another order"],
        [],
    )
    pq.write_table(click_log(40, seed=1), a / "1.parquet", compression="none")
    [text] = changes(before[1:2], prints(a)[1:2])[0]
    assert text.startswith(f"{a}/1.parquet has changed (")
    assert text.endswith(")")
    assert " bytes and now " in text
    assert changes([f"{a}/0.parquet 1 2 3"], before)[0] == [
        "was written down in another way by an earlier version"
    ]
    many = [f"/{k}.parquet 9 1 5 aa" for k in range(9)]
    assert changes(many, []) == (
        [*(f"/{k}.parquet is gone" for k in range(4)), "and 5 more"],
        [],
    )


def test_another_byte_of_the_same_file_is_a_change(tmp_path: Path) -> None:
    a = shards(tmp_path / "a")
    before = prints(a)
    path = a / "0.parquet"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    assert changes(before, prints(a))[0] == [
        f"{path} has changed (as large as before, other bytes)"
    ]


def test_an_interrupted_run_tells_which_file_changed_and_what_is_left(
    tmp_path: Path,
) -> None:
    a = shards(tmp_path / "a")
    folder = tmp_path / "run"
    one = replace(SETTINGS, epochs=1)
    run = run_of(folder, one, data=prints(a), spec=SPEC.to_json())
    trained = train(SPEC, click_log(500), None, one, run=run)  # and never finishes
    pq.write_table(click_log(41, seed=1), a / "1.parquet")
    place = f"{folder}/checkpoint.pt"
    assert refusal(folder, one, data=prints(a), spec=SPEC.to_json()) == (
        f"expected the run that was interrupted, got data {a}/1.parquet has changed (40"
        f" rows and now 41) - at `{place}`. Put the files back to go on, or start"
        f" another run from its weights: --overwrite --warm-start {place}."
    )
    saved = load(folder / "checkpoint.pt")
    assert saved.spec == SPEC
    state = trained.model.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in saved.state_dict().items())
    # so it can be done
    again = train(SPEC, click_log(500), None, one, run=run, overwrite=True, start=saved)
    assert len(again.epochs) == 1


def test_moved_files_are_told_and_the_run_goes_on(tmp_path: Path) -> None:
    a = shards(tmp_path / "a")
    folder, told = tmp_path / "run", list[str]()
    go(folder, SETTINGS, data=prints(a))
    b = a.rename(tmp_path / "b")
    more = replace(SETTINGS, epochs=3)
    config = {**asdict(more), "data": prints(b)}
    run = RunFolder(folder, config, on_note=told.append)
    trained = train(SPEC, click_log(500), None, more, run=run, resume=True)
    assert len(trained.epochs) == 3
    assert told[0] == (
        f"data: {a}/0.parquet is now {b}/0.parquet; its size, rows and a sample of its"
        " bytes are as they were"
    )


@pytest.mark.parametrize("room", [0, 100, 3000])
def test_a_full_disk_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """torch.save hides what the disk says behind an error about its own file."""
    opened = WholeFile.__enter__

    def enter(self: WholeFile) -> Any:  # noqa: ANN401
        return FullDisk(opened(self), room)

    model = build_model(SPEC)
    monkeypatch.setattr(WholeFile, "__enter__", enter)
    sentence = (
        r"expected a place where the {} can be written, got \[Errno 28\].* - at `"
    )
    with pytest.raises(ModelError, match=sentence.format("model")):
        save(model, tmp_path / "model.pt")
    run = run_of(tmp_path / "run", SETTINGS)
    with pytest.raises(InputError, match=sentence.format("run")) as caught:
        train(SPEC, click_log(300), None, SETTINGS, run=run)
    assert str(caught.value).endswith("Make room, and --resume it.")
    assert not list(tmp_path.rglob("*.tmp"))
    assert not list(tmp_path.rglob("*.pt"))


class FullDisk:
    """A file on a disk with room for so many bytes."""

    def __init__(self, file: Any, room: int) -> None:  # noqa: ANN401
        self._file, self._room = file, room

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._file, name)

    def write(self, data: bytes) -> int:
        self._room -= len(data)
        if self._room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return int(self._file.write(data))
