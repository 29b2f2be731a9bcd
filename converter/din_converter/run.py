"""A run folder: what a training run writes beside its model.

config.toml repeats the run (din-train --config config.toml); spec.json is the spec with
all that was fitted to the training rows; metrics.jsonl has a line
per event, "step", "epoch" or "finished"; checkpoint.pt, while the run lasts, is all
that --resume needs, and last.pt, when it has ended, all that more epochs need;
learning_curve.png and tensorboard/ are there where matplotlib and
tensorboard are installed.
"""

import json
import math
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import IO, Any

from din_converter.checkpoint import write_content
from din_converter.epochs import Trained
from din_converter.fingerprint import changes
from din_converter.importers.unpickle import read_plain
from din_infer.errors import InputError, ModelError
from din_infer.jobs.data_files import Note, ignore
from din_infer.local_path import local_path
from din_infer.regular_file import check_regular, read_text, read_text_bytes
from din_infer.spec import FeatureSpec
from din_infer.version import check_format
from din_infer.whole_file import (
    WholeFile,
    move_into_place,
    remove_leftovers,
    write_whole,
    writing,
)

__all__ = ["RunFolder", "plot_curve", "read_events"]

FORMAT = 1
ANEW = "Give --overwrite, without --resume, to start another one."
# May change between a run and its resumption; anything else would be another run.
FREE = ("patience", "threads", "device", "progress", "checkpoint_minutes")
FILES = ("data", "valid")
# What is read of a checkpoint here; the rest is the training's.
KINDS = {"format": int, "config": dict, "epochs": list, "log_bytes": int}
# The rates of other schedules depend on how many epochs there are to be.
OPEN_SCHEDULES = ("constant", "exponential")


class RunFolder:
    """The files of one run; see the module's docstring.

    Parameters
    ----------
    path : path
        Made when it is not there.
    config : dict
        What the run is: the settings, the spec, the data. A checkpoint is taken up only
        by a run of the same config, apart from `FREE`, more epochs, and files that were
        moved or touched.
    on_note : callable
        Called with a sentence about such files.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        config: Mapping[str, Any],
        *,
        on_note: Note = ignore,
    ) -> None:
        self.path = local_path(path, "run")
        self.config = dict(config)
        self._on_note = on_note
        self._log: Any = None
        self._board: Any = None

    @property
    def checkpoint(self) -> Path:
        """Where the checkpoint is, while the run lasts."""
        return self.path / "checkpoint.pt"

    @property
    def last(self) -> Path:
        """Where the last checkpoint is once the run has ended."""
        return self.path / "last.pt"

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is something to resume from."""
        return any(map(os.path.lexists, (self.checkpoint, self.last)))

    @property
    def metrics(self) -> Path:
        """The JSON lines."""
        return self.path / "metrics.jsonl"

    @property
    def spec(self) -> Path:
        """Where the spec is, with the constants that were fitted to the rows."""
        return self.path / "spec.json"

    def fitted_spec(self) -> FeatureSpec | None:
        """Read the spec of the run to resume; None where there is no such run.

        Raises
        ------
        ModelError
            If the file is no spec.
        """
        if self.has_checkpoint and self.spec.exists():
            return FeatureSpec.load(self.spec)
        return None

    def is_finished(self) -> bool:
        """Tell whether this very run has come to its end already."""
        config = self._finished_config()
        if config is None or self.checkpoint.exists():
            return False
        same = [config.get(k) == self.config.get(k) for k in ("epochs", "patience")]
        return all(same) and not self._differences(config, 0)[0]

    def _finished_config(self) -> dict[str, Any] | None:
        """Return the config of the run that has ended here; None without one."""
        events = read_events(self.metrics)
        if events and events[-1]["event"] == "finished":
            config = events[-1].get("config")
            return config if isinstance(config, dict) else None
        return None

    def begin(self, *, resume: bool, overwrite: bool = False) -> dict[str, Any] | None:
        """Open the folder; returns the checkpoint to go on from, if there is one.

        Raises
        ------
        InputError
            If it holds an unfinished run and neither `resume` nor `overwrite` is set,
            or the run to resume is another one (what differs is named), or has ended
            and left no checkpoint.
        """
        content = None
        if os.path.lexists(self.checkpoint):
            if resume:
                content = self._read(self.checkpoint)
            elif not overwrite:
                rule = "a folder without an unfinished run"
                fix = "Give --resume to go on with it, or --overwrite to start again."
                raise InputError(rule, "one with checkpoint.pt", str(self.path), fix)
        elif resume and os.path.lexists(self.last):
            content = self._read(self.last)
        elif resume and self._finished_config() is not None:
            rule = "last.pt of the run that has ended here, to take it further"
            raise InputError(rule, "none", str(self.path), ANEW)
        try:
            self.path.mkdir(exist_ok=True)
            self._check_own()
            remove_leftovers(self.checkpoint)
            if content is None:
                self.checkpoint.unlink(missing_ok=True)
                self.last.unlink(missing_ok=True)
                self.metrics.unlink(missing_ok=True)
            else:
                # What was logged after the checkpoint will be logged again. A file of
                # its own: a copy of the folder may share this one, by a hard link.
                kept = read_text_bytes(self.metrics)[: content["log_bytes"]]
                write_whole(self.metrics, kept)
            self._log = self._open_log()
        except (OSError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            rule = "a folder that can be written"
            raise InputError(rule, error, str(self.path)) from None
        self._board = _open_board(self.path / "tensorboard")
        return content

    def _check_own(self) -> None:
        """Refuse links where the run writes into a file or folder: they lead out."""
        for path in (self.metrics, self.path / "tensorboard", self.path / "rows"):
            if path.is_symlink():
                rule, got = (
                    "a file or folder of the run",
                    f"a link to {path.readlink()}",
                )
                raise InputError(rule, got, str(path), "Remove the link.")
        for path in (self.metrics, self.checkpoint, self.last):
            if path.exists():
                check_regular(path.stat().st_mode, path)

    def _open_log(self) -> IO[str]:
        flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        return open(
            self.metrics,
            "a",
            encoding="utf-8",
            newline="",
            opener=lambda path, given: os.open(path, given | flags, 0o666),
        )

    def _writing(self) -> AbstractContextManager[None]:
        return writing("the run", self.path, fix="Make room, and --resume it.")

    def log(self, event: str, step: int, **values: object) -> None:
        """Append a line to metrics.jsonl, and the numbers in it to TensorBoard."""
        line = {"event": event, "step": step, **values}
        with self._writing():
            self._log.write(json.dumps(line, allow_nan=False) + "\n")
            self._log.flush()
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(f"{event}/{name}", value, step)

    def save_spec(self, spec: FeatureSpec) -> None:
        """Write what the run trains."""
        with self._writing():
            write_whole(self.spec, spec.to_json())

    def save(self, content: Mapping[str, Any]) -> None:
        """Replace the checkpoint, whole or not at all."""
        whole = {
            "format": FORMAT,
            "config": self.config,
            "log_bytes": self._log.tell(),
            **content,
        }
        with self._writing():
            write_content(whole, self.checkpoint)

    def finish(self, trained: Trained) -> None:
        """Log the end, draw the learning curve, set the checkpoint aside."""
        end = {
            "event": "finished",
            "best": trained.best.number if trained.best else None,
            "baselines": {b.name: b.auc for b in trained.baselines},
            "remarks": trained.remarks,
            "config": self.config,
        }
        with self._writing():
            with self._open_log() as file:
                file.write(json.dumps(end, allow_nan=False) + "\n")
            plot_curve(trained, self.path)
            if self.checkpoint.exists():
                move_into_place(self.checkpoint, self.last)

    def close(self) -> None:
        """Close the files; what was saved stays for --resume."""
        with suppress(OSError):  # of a full disk, told before
            if self._log is not None:
                self._log.close()
            if self._board is not None:
                self._board.close()

    def _read(self, path: Path) -> dict[str, Any]:
        place = str(path)
        rule = "a checkpoint that din-train wrote"
        try:
            content = read_plain(path, rule)
        except ModelError as error:
            raise InputError(rule, error.got, place, ANEW) from None
        content = content if isinstance(content, dict) else {}
        if "format" in content:
            number = content["format"]
            check_format(number, FORMAT, f"{place}: format", InputError, ANEW)
        wrong = [k for k, kind in KINDS.items() if not isinstance(content.get(k), kind)]
        if wrong or content["log_bytes"] < 0:
            got = f"one without {wrong[0]}" if wrong else "a log of less than nothing"
            raise InputError(rule, got, place, ANEW)
        config, epochs = content["config"], len(content["epochs"])
        differences, notes = self._differences(config, epochs)
        if differences:
            ended = "has ended here" if path == self.last else "was interrupted"
            fix = ANEW
            from_here = (
                f"another run from its weights: --overwrite --warm-start {place}."
            )
            if any(text.split(" ", 1)[0] in FILES for text in differences):
                fix = f"Put the files back to go on, or start {from_here}"
            elif len(differences) == 1 and differences[0].endswith("schedule depends"):
                fix = f"Start {from_here}"
            got = "; ".join(differences)
            raise InputError(f"the run that {ended}", got, place, fix)
        for text in notes:
            self._on_note(text)
        return dict(content)

    def _differences(
        self, old: Mapping[str, Any], epochs: int
    ) -> tuple[list[str], list[str]]:
        """Say what makes this another run than `old`, and what differs but does not.

        `epochs` are those that were trained.
        """
        new = self.config
        found: list[str] = []
        notes: list[str] = []
        for key in dict.fromkeys([*old, *new]):
            was, now = old.get(key), new.get(key)
            if key in FREE or was == now:
                continue
            if key == "epochs" and now is not None and now >= epochs:
                if old.get("schedule") in OPEN_SCHEDULES:
                    continue
                of = f", on which the {old.get('schedule')} schedule depends"
                found.append(f"epochs {was} and now {now}{of}")
            elif key in FILES and was and now:
                wrong, harmless = changes(was, now)
                found += [f"{key} {text}" for text in wrong]
                notes += [
                    f"{key}: {text}; its size, rows and a sample of its bytes are as"
                    " they were"
                    for text in harmless
                ]
            else:
                found.append(f"{key} {_short(was)} and now {_short(now)}")
        return found, notes


def read_events(path: Path) -> list[dict[str, Any]]:
    """Read metrics.jsonl, up to a line that is none of it, as a kill cuts one off.

    Raises
    ------
    InputError
        If it cannot be read, or is no text.
    """
    events: list[dict[str, Any]] = []
    if os.path.lexists(path):
        try:
            lines = read_text(path).splitlines()
        except (OSError, ValueError) as error:
            raise InputError("a log that can be read", error, str(path)) from None
        for line in lines:
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                break
            if not isinstance(event, dict) or not isinstance(event.get("event"), str):
                break
            events.append(event)
    return events


def plot_curve(trained: Trained, folder: Path) -> Path | None:
    """Draw log-loss and AUC by epoch; None without matplotlib, or with no epochs."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ModuleNotFoundError:
        return None
    if not trained.epochs:
        return None
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    lines = (
        (left, "training", "train_log_loss", "#1d4ed8"),
        (left, "validation", "log_loss", "#c2410c"),
        (right, "AUC", "auc", "#1d4ed8"),
        (right, "GAUC", "gauc", "#c2410c"),
    )
    for axes, label, key, color in lines:
        values = [(e.number, getattr(e, key)) for e in trained.epochs]
        points = [(n, v) for n, v in values if v is not None and math.isfinite(v)]
        if points:
            axes.plot(*zip(*points, strict=True), "o-", color=color, label=label)
    for axes in (left, right):
        if trained.best is not None and axes.lines:
            axes.axvline(trained.best.number, color="#94a3b8", ls=":", label="kept")
            axes.legend(frameon=False)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
    weighted = "weighted " if trained.model.spec.weight else ""
    left.set_ylabel(f"{weighted}log-loss")
    right.set_ylabel(f"{weighted and 'weighted, '}on validation rows")
    path = folder / "learning_curve.png"
    with WholeFile(path) as file:
        figure.savefig(file, format="png", dpi=120)
    return path


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:40]}...{text[-12:]}"


def _open_board(path: Path) -> Any:  # noqa: ANN401
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(path))
