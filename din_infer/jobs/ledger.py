"""What a job has promised and done: one folder beside its outputs.

``_din_score/job.json`` says what the job is: model, options, inputs. A shard is done
when its manifest is there, which is written after its output has its name. Locks tell
processes that work on one job apart; they go with the process, however it ends.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

from din_infer.errors import InputError
from din_infer.forking import Lock
from din_infer.integrity import digest_of
from din_infer.whole_file import remove_leftovers, write_whole

__all__ = ["FOLDER", "Ledger", "file_digest"]

FOLDER = "_din_score"
FORMAT = 1
JOB_LOCK = 1 << 40  # the byte that is locked while job.json is made
WORK_LOCK = JOB_LOCK + 1  # shared by all who work on the job
_OPEN: set[str] = set()
_OPENING = Lock()
os.register_at_fork(after_in_child=_OPEN.clear)  # those are the parent's


def file_digest(path: Path) -> str:
    """Compute the SHA-256 of a file, as ``sha256sum`` prints it."""
    with path.open("rb") as file:
        return digest_of(file, path.stat().st_size)


def read_object(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None if there is none that is whole."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


class Ledger:
    """The job that `out` holds; opened by every process that works on it.

    Parameters
    ----------
    out : path
        The folder of the outputs.
    job : dict
        All that the outputs depend on, for JSON.
    targets : sequence of PurePath
        The outputs, under `out`; their order is the same in every process.
    resume : bool
        Go on with the same job where there is one; without it, one is an error.
    overwrite : bool
        Begin anew where there is one.

    Raises
    ------
    InputError
        If there is a job already, or with `resume` another one, or an output that no
        job has made.
    """

    def __init__(
        self,
        out: Path,
        job: Mapping[str, Any],
        targets: Sequence[PurePath],
        *,
        resume: bool,
        overwrite: bool,
    ) -> None:
        self.out, self.folder = out, out / FOLDER
        self._targets = list(targets)
        self._job = {"format": FORMAT, **job}
        self._key, self._handle = os.path.realpath(out), -1
        with _OPENING:
            if self._key in _OPEN:
                rule = "one job at a time in a folder"
                raise InputError(rule, "another in this process", str(out))
            _OPEN.add(self._key)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o666)
            with self._locked(JOB_LOCK):
                remove_leftovers(self.folder / "job.json")
                remove_leftovers(self.folder / "manifest.json")
                self._begin(resume=resume, overwrite=overwrite)
                # held until the end: it tells others that somebody works here
                fcntl.lockf(self._handle, fcntl.LOCK_SH, 1, WORK_LOCK)
        except BaseException:
            self.close()
            raise
        # what others do from now on need not be read again to be believed
        self._old = {k for k in range(len(targets)) if self._manifest(k).is_file()}

    def close(self) -> None:
        """Let go of all locks."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
        _OPEN.discard(self._key)

    def _begin(self, *, resume: bool, overwrite: bool) -> None:
        path = self.folder / "job.json"
        if path.exists():
            if resume:
                self._compare(read_object(path))
                return
            if not overwrite:
                rule, got = "a folder without a job", "one that has begun"
                fix = "Give --resume to go on with it, or --overwrite to begin anew."
                raise InputError(rule, got, str(self.out), fix)
            self._remove_job(read_object(path))
        self._check_targets(overwrite=overwrite)
        for k in range(len(self._targets)):
            self._manifest(k).unlink(missing_ok=True)
            self.bad_rows(k).unlink(missing_ok=True)
        (self.folder / "manifest.json").unlink(missing_ok=True)
        write_whole(path, json.dumps(self._job, indent=1))

    def _remove_job(self, old: dict[str, Any] | None) -> None:
        """Remove all that another job has made, so that none of it is taken for ours.

        Raises
        ------
        InputError
            If a process works on it.
        """
        if not self._lock(WORK_LOCK, wait=False):
            rule = "a job that no process works on, to begin anew"
            raise InputError(rule, "one at work", str(self.out))
        inputs = (old or {}).get("inputs")
        for described in inputs if isinstance(inputs, list) else []:
            name = described.get("output") if isinstance(described, dict) else None
            target = PurePath(name) if isinstance(name, str) else PurePath()
            if target.name and not target.is_absolute() and ".." not in target.parts:
                (self.out / target).unlink(missing_ok=True)
                (self.folder / "shards" / f"{target}.json").unlink(missing_ok=True)
                (self.folder / "bad" / f"{target}.jsonl").unlink(missing_ok=True)

    def _check_targets(self, *, overwrite: bool) -> None:
        for target in map(self.target, range(len(self._targets))):
            if target.is_dir():
                raise InputError("a file, or nothing", "a folder", str(target))
            if target.exists() and not overwrite:
                got, fix = "one that is", "Give --overwrite to replace it."
                raise InputError("a file that is not there yet", got, str(target), fix)

    def _compare(self, found: dict[str, Any] | None) -> None:
        """Refuse a job that differs from the one that has begun; says in what."""
        place = str(self.folder / "job.json")
        fix = "Give --overwrite to begin anew."
        if found is None:
            raise InputError("a job to go on with", "damage", place, fix)
        wanted = json.loads(json.dumps(self._job))
        for what, now, then in _differences(wanted, found, ""):
            rule = f"{what} as when the job began, {_short(then)}"
            raise InputError(rule, _short(now), place, fix)

    # --------------------------------------------------------------------- shards

    def target(self, k: int) -> Path:
        """Name the output of shard k."""
        return self.out / self._targets[k]

    def bad_rows(self, k: int) -> Path:
        """Name the file that lists the bad rows of shard k."""
        return self.folder / "bad" / f"{self._targets[k]}.jsonl"

    def _manifest(self, k: int) -> Path:
        return self.folder / "shards" / f"{self._targets[k]}.json"

    def claim(self, k: int, *, wait: bool = False) -> bool:
        """Take shard k for this process; False where another has it."""
        return self._lock(k, wait=wait)

    def release(self, k: int) -> None:
        """Let others have shard k."""
        fcntl.lockf(self._handle, fcntl.LOCK_UN, 1, k)

    def manifest(self, k: int) -> dict[str, Any] | None:
        """Read the manifest of shard k; None unless its output is what that says.

        An output from before this process began is read and its checksum compared; of
        one that another process has made since, the size.
        """
        found = read_object(self._manifest(k))
        if found is None:
            return None
        target = self.target(k)
        try:
            same = target.stat().st_size == found.get("size")
            if same and k in self._old:
                same = file_digest(target) == found.get("sha256")
        except OSError:
            return None
        if same:
            self._old.discard(k)
        return found if same else None

    def finish(self, k: int, manifest: Mapping[str, Any]) -> None:
        """Say that shard k is whole: the last thing that is done for it."""
        path = self._manifest(k)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(manifest, indent=1))

    def forget(self, k: int) -> None:
        """Take back that shard k is whole, and remove what was left of it."""
        for path in (self._manifest(k), self.target(k), self.bad_rows(k)):
            path.unlink(missing_ok=True)
            remove_leftovers(path)

    def finish_job(self) -> bool:
        """Write ``manifest.json`` of the whole job, if all shards are whole."""
        shards = [read_object(self._manifest(k)) for k in range(len(self._targets))]
        if any(s is None for s in shards):
            return False
        whole = {**self._job, "shards": shards}
        write_whole(self.folder / "manifest.json", json.dumps(whole, indent=1))
        return True

    # ---------------------------------------------------------------------- locks

    def _lock(self, byte: int, *, wait: bool) -> bool:
        how = fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB)
        try:
            fcntl.lockf(self._handle, how, 1, byte)
        except (BlockingIOError, PermissionError):  # the second, on some systems
            return False
        return True

    @contextmanager
    def _locked(self, byte: int) -> Iterator[None]:
        self._lock(byte, wait=True)
        try:
            yield
        finally:
            fcntl.lockf(self._handle, fcntl.LOCK_UN, 1, byte)


def _differences(
    now: object, then: object, place: str
) -> Iterator[tuple[str, object, object]]:
    """List what differs of two JSON values: (place, now, then)."""
    if isinstance(now, dict) and isinstance(then, dict):
        for key in (*now, *(k for k in then if k not in now)):
            inner = f"{place}.{key}" if place else str(key)
            yield from _differences(now.get(key), then.get(key), inner)
    elif isinstance(now, list) and isinstance(then, list) and len(now) == len(then):
        for i, (a, b) in enumerate(zip(now, then, strict=True)):
            yield from _differences(a, b, f"{place}[{i}]")
    elif now != then:
        yield place, now, then


def _short(value: object) -> str:
    if isinstance(value, list):
        return f"{len(value)} of them"
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
