"""The ways to score a file, each a process of its own, measured and read back."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.events import KEPT
from benchmarks.in_memory import SLICE_ROWS
from benchmarks.timing import WrongOutputError

__all__ = ["TOLERANCE", "Files", "Finished", "check", "din_score", "forget", "start"]

ROOT = Path(__file__).resolve().parents[1]
TOLERANCE = 1e-5
SMALLEST_SPREAD = 0.01
PASSES = {"whole": "in-memory", "slices": f"in-memory-{SLICE_ROWS}"}


@dataclass(frozen=True)
class Files:
    """What a job reads, and where it may write; `nested` events hold lists."""

    model: Path
    events: Path
    scratch: Path
    threads: int
    nested: bool = False


@dataclass(frozen=True)
class Finished:
    """A process that ended well.

    `printed` is the JSON on its stdout; `seconds`, `cpu_seconds`, `peak_mb` and the
    peaks of anonymous and of mapped memory are of the whole process. `inner_s` are the
    seconds of each contestant that ran in it, `scores` what those scored, and
    `output_bytes` the size of the scored file, if any.
    """

    printed: Mapping[str, Any]
    usage: Mapping[str, Any]
    inner_s: Mapping[str, float]
    scores: Mapping[str, NDArray[np.float32]]
    output_bytes: int = 0


def start(command: Sequence[str | Path], threads: int) -> tuple[Any, dict[str, Any]]:
    """Run a command on as many CPUs as threads; returns its JSON and what it took.

    Raises
    ------
    RuntimeError
        If it fails; the text is the last it said.
    """
    with tempfile.TemporaryDirectory(prefix="din-benchmark-") as folder:
        usage = Path(folder) / "usage.json"
        launch = (sys.executable, "-m", "benchmarks.launch", usage, str(threads))
        done = subprocess.run(
            [*map(str, (*launch, *command))],
            capture_output=True,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            text=True,
        )
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["nothing"]
            message = f"{Path(command[0]).name} failed: {said[-1]}"
            raise RuntimeError(message)
        return json.loads(done.stdout), json.loads(usage.read_text())


def din_score(files: Files) -> Finished:
    """Run the command ``din-score``."""
    command = shutil.which("din-score", path=Path(sys.executable).parent)
    if command is None:
        message = "din-score is not installed beside this Python"
        raise RuntimeError(message)
    out = files.scratch / "din-score"
    shutil.rmtree(out, ignore_errors=True)
    words: list[str | Path] = [command, files.model, files.events, "--out", out]
    words += ["--threads", str(files.threads), "--keep", ",".join(KEPT)]
    words += ["--explode"] if files.nested else []
    printed, usage = start([*words, "--json", "--quiet"], files.threads)
    scores = pq.read_table(out, columns=["score"])["score"].to_numpy()
    size = sum(f.stat().st_size for f in out.glob("*.parquet"))
    shutil.rmtree(out)
    key = "din-score"
    return Finished(printed, usage, {key: printed["seconds"]}, {key: scores}, size)


def straightforward(
    files: Files, *flags: str, key: str = "straightforward"
) -> Finished:
    """Run the job that one would write first."""
    out = files.scratch / "straightforward.parquet"
    module = (sys.executable, "-m", "benchmarks.straightforward")
    paths = (files.model.with_suffix(".pt"), files.events, out)
    threads = ("--threads", str(files.threads))
    printed, usage = start((*module, *paths, *threads, *flags), files.threads)
    scores = pq.read_table(out, columns=["score"])["score"].to_numpy()
    out.unlink()
    return Finished(printed, usage, {key: printed["seconds"]}, {key: scores})


def packed(files: Files) -> Finished:
    """Run the same job with this package's torch DIN, which skips padding."""
    return straightforward(files, "--packed", key="straightforward-packed")


def in_memory(
    files: Files, passes: Sequence[str] = ("whole", "slices"), *, warm: bool = True
) -> Finished:
    """Run ``Predictor.score`` on a table in memory, in one call and in slices.

    Of several passes of one kind, the fastest counts.
    """
    out = files.scratch / "in-memory.npy"
    module = (sys.executable, "-m", "benchmarks.in_memory")
    command: list[str | Path] = [*module, files.model, files.events, "--out", out]
    command += ["--threads", str(files.threads), "--passes", *passes]
    command += ["--warm"] if warm else []
    printed, usage = start(command, files.threads)
    inner: dict[str, float] = {}
    scores: dict[str, NDArray[np.float32]] = {}
    for one, row in zip(printed["passes"], np.load(out), strict=True):
        key = PASSES[one["pass"]]
        inner[key] = min(inner.get(key, np.inf), one["seconds"])
        scores[key] = row
    out.unlink()
    return Finished(printed, usage, inner, scores)


def check(
    finished: Finished, wanted: NDArray[np.float32], tolerance: float = TOLERANCE
) -> dict[str, float]:
    """Compare all scores of a process; returns the largest difference of each.

    Raises
    ------
    WrongOutputError
        If some are not as many, or differ by more than the tolerance; or those wanted
        are so much alike that a wrong score could not be told.
    """
    if len(wanted) > 1 and not wanted.std() > SMALLEST_SPREAD:
        message = f"expected scores that are spread out, got std {wanted.std():.2g}"
        raise WrongOutputError(message)
    differences = {}
    for key, scores in finished.scores.items():
        if scores.shape != wanted.shape:
            message = f"expected {len(wanted)} scores, got {len(scores)} - at `{key}`"
            raise WrongOutputError(message)
        worst = float(np.abs(scores - wanted).max(initial=0.0))
        # not (a <= b), so that a NaN is an error too
        if not worst <= tolerance:
            rule = f"expected Predictor.score's scores within {tolerance:g}"
            message = f"{rule}, got a difference of {worst:.2e} - at `{key}`"
            raise WrongOutputError(message)
        differences[key] = worst
    return differences


def forget(path: Path) -> bool:
    """Let the system drop a file from its memory; returns whether it can be asked to.

    Pages that a process has mapped, or that are not on the disk yet, stay.
    """
    if not hasattr(os, "posix_fadvise"):
        return False
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True
