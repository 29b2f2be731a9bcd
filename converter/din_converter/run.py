"""A run folder: what a training run writes beside its model.

config.toml repeats the run (din-train --config config.toml); spec.json is the spec with
all that was fitted to the training rows; metrics.jsonl has a line
per event, "step", "epoch" or "finished"; checkpoint.pt, while the run lasts, is all
that --resume needs; learning_curve.png and tensorboard/ are there where matplotlib and
tensorboard are installed.
"""

import json
import math
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from din_converter.epochs import Trained
from din_infer.errors import InputError
from din_infer.local_path import local_path
from din_infer.spec import FeatureSpec
from din_infer.version import check_format
from din_infer.whole_file import WholeFile, remove_leftovers

__all__ = ["RunFolder", "plot_curve", "read_events"]

FORMAT = 1
ANEW = "Give --overwrite, without --resume, to start another one."
# May change between a run and its resumption; anything else would be another run.
FREE = ("patience", "threads", "device", "progress", "checkpoint_minutes")


class RunFolder:
    """The files of one run; see the module's docstring.

    Parameters
    ----------
    path : path
        Made when it is not there.
    config : dict
        What the run is: the settings, the spec, the data. A checkpoint is taken up only
        by a run of the same config, apart from `FREE`.
    """

    def __init__(self, path: str | os.PathLike[str], config: Mapping[str, Any]) -> None:
        self.path = local_path(path, "run")
        self.config = dict(config)
        self._log: Any = None
        self._board: Any = None

    @property
    def checkpoint(self) -> Path:
        """Where the checkpoint is, while the run lasts."""
        return self.path / "checkpoint.pt"

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
        if self.checkpoint.exists() and self.spec.exists():
            return FeatureSpec.load(self.spec)
        return None

    def is_finished(self) -> bool:
        """Tell whether this very run has come to its end already."""
        events = read_events(self.metrics)
        return (
            bool(events)
            and events[-1]["event"] == "finished"
            and not _differences(events[-1]["config"], self.config)
        )

    def begin(self, *, resume: bool, overwrite: bool = False) -> dict[str, Any] | None:
        """Open the folder; returns the checkpoint to go on from, if there is one.

        Raises
        ------
        InputError
            If it holds an unfinished run and neither `resume` nor `overwrite` is set,
            or the run to resume is another one; what differs is named.
        """
        content = None
        if self.checkpoint.exists():
            if resume:
                content = self._read()
            elif not overwrite:
                rule = "a folder without an unfinished run"
                fix = "Give --resume to go on with it, or --overwrite to start again."
                raise InputError(rule, "one with checkpoint.pt", str(self.path), fix)
        try:
            self.path.mkdir(exist_ok=True)
            remove_leftovers(self.checkpoint)
            if content is None:
                self.checkpoint.unlink(missing_ok=True)
                self.metrics.write_bytes(b"")
            else:
                # What was logged after the checkpoint will be logged again.
                if self.metrics.stat().st_size > content["log_bytes"]:
                    os.truncate(self.metrics, content["log_bytes"])
            self._log = self.metrics.open("a", encoding="utf-8", newline="")
        except OSError as error:
            rule = "a folder that can be written"
            raise InputError(rule, error, str(self.path)) from None
        self._board = _open_board(self.path / "tensorboard")
        return content

    def log(self, event: str, step: int, **values: object) -> None:
        """Append a line to metrics.jsonl, and the numbers in it to TensorBoard."""
        line = {"event": event, "step": step, **values}
        self._log.write(json.dumps(line, allow_nan=False) + "\n")
        self._log.flush()
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(f"{event}/{name}", value, step)

    def save(self, content: Mapping[str, Any]) -> None:
        """Replace the checkpoint, whole or not at all."""
        whole = {
            "format": FORMAT,
            "config": self.config,
            "log_bytes": self._log.tell(),
            **content,
        }
        with WholeFile(self.checkpoint) as file:
            torch.save(whole, file)

    def finish(self, trained: Trained) -> None:
        """Log the end, draw the learning curve, drop the checkpoint."""
        best = trained.best.number if trained.best else None
        with self.metrics.open("a", encoding="utf-8", newline="") as file:
            end = {"event": "finished", "best": best, "config": self.config}
            file.write(json.dumps(end) + "\n")
        plot_curve(trained, self.path)
        self.checkpoint.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the files; what was saved stays for --resume."""
        if self._log is not None:
            self._log.close()
        if self._board is not None:
            self._board.close()

    def _read(self) -> dict[str, Any]:
        place = str(self.checkpoint)
        rule = "a checkpoint that din-train wrote"
        try:
            content = torch.load(self.checkpoint, weights_only=True)
            number = content["format"]
            config = content["config"] if number == FORMAT else {}
        except pickle.UnpicklingError:
            raise InputError(rule, "a pickle that is not weights only", place) from None
        except Exception as error:  # a damaged file can raise nearly anything in torch
            raise InputError(rule, type(error).__name__, place) from None
        check_format(number, FORMAT, f"{place}: format", InputError, ANEW)
        differences = _differences(config, self.config)
        if differences:
            rule = "the run that was interrupted"
            raise InputError(rule, "; ".join(differences), place, ANEW)
        return dict(content)


def read_events(path: Path) -> list[dict[str, Any]]:
    """Read metrics.jsonl; a last line that a kill cut off is left out."""
    events = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                events.append(json.loads(line))
            except ValueError:
                break
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
    left.set_ylabel("log-loss")
    right.set_ylabel("on validation rows")
    path = folder / "learning_curve.png"
    with WholeFile(path) as file:
        figure.savefig(file, format="png", dpi=120)
    return path


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return [
        f"{key} {_short(old.get(key))} and now {_short(new.get(key))}"
        for key in dict.fromkeys([*old, *new])
        if key not in FREE and old.get(key) != new.get(key)
    ]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:40]}...{text[-12:]}"


def _open_board(path: Path) -> Any:  # noqa: ANN401
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(path))
