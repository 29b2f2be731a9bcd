"""What a job has promised and done: one folder beside its outputs.

``_din_score/job.json`` says what the job is: model, options, inputs. A shard is done
when its manifest is there, which is written after its output has its name. Locks tell
processes that work on one job apart; they go with the process, however it ends.

The folder may have been in other hands. Names that are read from it are those of files
below it, no folder on the way to one is a link, and a file is removed only where it is
an output: what is written stays in the folder, and what another put there stays.

A shard is known by the name of its output, in every process and for ever; its input, by
`KNOWN_BY`, wherever it lies now. Until it is done, that may be repaired or left out;
inputs are added where that is asked for.
Above 400 lines: one class, since all of it happens under its locks.
"""

import hashlib
import json
import os
import stat
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any

from din_infer.errors import InputError
from din_infer.file_locks import ByteLocks
from din_infer.forking import Lock
from din_infer.integrity import digest_of
from din_infer.regular_file import check_regular, open_regular, read_text
from din_infer.version import check_format
from din_infer.whole_file import remove_leftovers, write_whole

__all__ = ["FOLDER", "Ledger", "file_digest"]

FOLDER = "_din_score"
FORMAT = 2
JOB_LOCK = 1 << 56  # the byte that is locked while job.json is made
WORK_LOCK = JOB_LOCK + 1  # shared by all who work on the job
MOST_NAMES = 3  # of inputs, in a sentence
MOST_DEPTH = 32  # of JSON: a job has 5
MOST_ROWS = 1 << 63
MAGIC = b"PAR1"  # how outputs begin
ANEW = "Give --overwrite to begin anew."
# What tells an input of the job that has begun: the first that fits. By its content
# alone, it is one whose output is whole.
CONTENT = ("size", "ends")
KNOWN_BY = (
    ("path", *CONTENT),
    ("output", *CONTENT),
    CONTENT,
    ("path",),
    ("output",),
)
_Inputs = Mapping[str, Mapping[str, Any]]  # by the names of their outputs
_OPEN: set[str] = set()
_OPENING = Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_OPEN.clear)  # those are the parent's


def file_digest(path: Path) -> str:
    """Compute the SHA-256 of a file, as ``sha256sum`` prints it."""
    with open_regular(path) as file:
        return digest_of(file, os.fstat(file.fileno()).st_size)


def read_object(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None if there is none that is whole, in a file of its own."""
    try:
        found = None if path.is_symlink() else json.loads(read_text(path))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and _depth(found) <= MOST_DEPTH else None


def _depth(value: object) -> int:
    """Count the levels of JSON; no further than one more than `MOST_DEPTH`."""
    depth, level = 0, [value]
    while level and depth <= MOST_DEPTH:
        depth += 1
        level = [
            inner
            for part in level
            if isinstance(part, dict | list)
            for inner in (part.values() if isinstance(part, dict) else part)
        ]
    return depth


def is_name(name: object) -> bool:
    """Tell whether an output can have a name: a path below the folder, spelled out."""
    try:
        path = PurePath(os.fsdecode(os.fsencode(name)))  # type: ignore[arg-type]
    except (TypeError, UnicodeEncodeError):
        return False
    is_inside = path.parts and not path.anchor and ".." not in path.parts
    return bool(
        is_inside
        and path.as_posix() == name
        and "\0" not in name
        and path.parts[0].casefold() != FOLDER
    )


class Ledger:
    """The job that `out` holds; opened by every process that works on it.

    Parameters
    ----------
    out : path
        The folder of the outputs.
    job : dict
        All that the outputs depend on beside the inputs, for JSON.
    inputs : sequence of dict
        The shards of this process: each with "output", its name under `out`, "path",
        and what tells the file from another; "size" is missing where there is no file.
    resume : bool
        Go on with the same job where there is one; without it, one is an error.
    add : bool
        With `resume`: take up inputs that the job does not have yet.
    overwrite : bool
        Begin anew where there is one.
    same : callable
        Tells, of a shard and what its manifest says of its input, whether the input has
        the same content.
    on_note : callable
        Takes a sentence about each kind of change.

    Attributes
    ----------
    names : list of str
        Of the outputs, by shard: an input of the job that goes on keeps its output.
    gone : set of int
        Shards of this process that are done and whose input is not there any more.

    Raises
    ------
    InputError
        If there is a job already, or with `resume` another one; if an input is new, or
        that of a shard which is done has changed; or for an output that no job has
        made.
    """

    def __init__(
        self,
        out: Path,
        job: Mapping[str, Any],
        inputs: Sequence[Mapping[str, Any]],
        *,
        resume: bool = False,
        add: bool = False,
        overwrite: bool = False,
        same: Callable[[int, Mapping[str, Any]], bool] = lambda _, __: True,
        on_note: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.out, self.folder = out, out / FOLDER
        self.names = [str(i["output"]) for i in inputs]
        self._inputs = [dict(i) for i in inputs]
        self._job = {"format": FORMAT, **job}
        self._add, self._same, self._note = add, same, on_note
        self._replaces = overwrite
        self.gone: set[int] = set()
        self._key = os.path.realpath(out)
        with _OPENING:
            if self._key in _OPEN:
                rule = "one job at a time in a folder"
                raise InputError(rule, "another in this process", str(out))
            _OPEN.add(self._key)
        try:
            out.mkdir(parents=True, exist_ok=True)
            self._inside(FOLDER, "lock").parent.mkdir(exist_ok=True)
            self._locks = ByteLocks(self.folder / "lock", self._waits)
        except BaseException:
            _OPEN.discard(self._key)
            raise
        try:
            with self._locks.taken(JOB_LOCK):
                remove_leftovers(self.folder / "job.json")
                remove_leftovers(self.folder / "manifest.json")
                self._begin(resume=resume, overwrite=overwrite)
                # held until the end: it tells others that somebody works here
                self._locks.share(WORK_LOCK)
        except BaseException:
            self.close()
            raise
        # what others do from now on need not be read again to be believed
        targets = enumerate(self.names)
        self._old = {k for k, name in targets if self._manifest(name).is_file()}

    def close(self) -> None:
        """Let go of all locks."""
        self._locks.close()
        _OPEN.discard(self._key)

    def _begin(self, *, resume: bool, overwrite: bool) -> None:
        path = self._path
        if os.path.lexists(path):
            if resume:
                self._go_on(self._compare(read_object(path)))
                return
            if not overwrite:
                rule, got = "a folder without a job", "one that has begun"
                fix = "Give --resume to go on with it, or --overwrite to begin anew."
                raise InputError(rule, got, str(self.out), fix)
            self._remove_job(read_object(path))
        self._check_targets(self.names, overwrite=overwrite)
        for k, name in enumerate(self.names):
            _remove(self._manifest(name))
            _remove(self.bad_rows(k))
        self._write({**self._job, "inputs": self._inputs})

    @property
    def _path(self) -> Path:
        return self.folder / "job.json"

    def _write(self, job: Mapping[str, Any]) -> None:
        _remove(self.folder / "manifest.json")
        write_whole(self._path, json.dumps(job, indent=1))

    def _remove_job(self, old: dict[str, Any] | None) -> None:
        """Remove all that another job has made, so that none of it is taken for ours.

        Raises
        ------
        InputError
            If a process works on it.
        """
        if not self._locks.take(WORK_LOCK):
            rule = "a job that no process works on, to begin anew"
            raise InputError(rule, "one at work", str(self.out))
        inputs = (old or {}).get("inputs")
        for described in inputs if isinstance(inputs, list) else []:
            name = described.get("output") if isinstance(described, dict) else None
            if isinstance(name, str) and is_name(name):
                target = self._target(name)
                if _is_output(target):
                    target.unlink()
                _remove(self._manifest(name))
                _remove(self._bad_rows(name))

    def _check_targets(self, names: Sequence[str], *, overwrite: bool) -> None:
        for target in map(self._target, names):
            try:
                mode = target.lstat().st_mode
            except FileNotFoundError:
                continue
            if stat.S_ISDIR(mode) or target.is_dir():
                raise InputError("a file, or nothing", "a folder", str(target))
            if not overwrite:
                got, fix = "one that is", "Give --overwrite to replace it."
                raise InputError("a file that is not there yet", got, str(target), fix)
            if not stat.S_ISLNK(mode):
                _check_regular(mode, target)

    def _compare(self, found: dict[str, Any] | None) -> dict[str, Any]:
        """Refuse a job that differs from the one that has begun; says in what."""
        place = str(self._path)
        if found is not None and isinstance(found.get("format"), int):
            check_format(found["format"], FORMAT, f"{place}: format", InputError, ANEW)
        if found is not None:
            _check_encoding(found, place)
        if found is None or not _is_job(found):
            raise InputError("a job to go on with", "damage", place, ANEW)
        wanted = json.loads(json.dumps(self._job))
        begun = {key: found.get(key) for key in wanted}
        for what, now, then in _differences(wanted, begun, ""):
            rule = f"{what} as when the job began, {_short(then)}"
            raise InputError(rule, _short(now), place, ANEW)
        return found

    def _go_on(self, job: dict[str, Any]) -> None:
        """Take up the inputs as they are now; refuses before it changes anything."""
        begun = {i["output"]: i for i in job["inputs"]}
        by_content = self._name_as_begun(begun)
        given = {i["output"]: i for i in self._inputs}
        new = {name: given[name] for name in given if name not in begun}
        self._check_new(new, begun)
        changed, moved = {}, {}
        for k, name in enumerate(self.names):
            entry, manifest = given[name], self._finished(name)
            if name in new:
                continue
            if manifest is not None and "size" not in entry:
                self.gone.add(k)
            elif manifest is not None:
                self._check_same(k, manifest.get("input"))
            elif "size" in entry and _values(entry) != _values(begun[name]):
                changed[name] = entry
            elif "size" in entry and entry != begun[name]:
                moved[name] = entry
        absent = [name for name in begun if name not in given]
        left_out = {name for name in absent if self._finished(name) is None}
        self._check_left_out(left_out)
        done = [self.names[k] for k in sorted(self.gone)]
        done += [name for name in absent if name not in left_out]
        for names, what in (
            (done, "not given or not there now, and whole, so the outputs stay"),
            (changed, "taken as now, changed since the job began"),
            (new, "added to the job"),
            (by_content, "known by content, under another name, and not scored again"),
            (sorted(left_out), "not given now, and left out of the job"),
        ):
            if names:
                are = "input is" if len(names) == 1 else "inputs are"
                self._note(f"{len(names):,} {are} {what}: {_names(list(names))}")
        if not (changed or moved or new or left_out):
            return
        inputs = begun | changed | moved | new
        kept = [entry for name, entry in inputs.items() if name not in left_out]
        kinds = {"changed": changed, "added": new, "left out": sorted(left_out)}
        changes = job.get("changes", []) + [
            {"output": name, "change": kind} for kind in kinds for name in kinds[kind]
        ]
        self._write({**job, "inputs": kept} | ({"changes": changes} if changes else {}))

    def _check_same(self, k: int, then: object) -> None:
        """Refuse another content of the input of a shard that is done."""
        if not self._same(k, then if isinstance(then, dict) else {}):
            target, place = self.target(k), str(self._inputs[k]["path"])
            fix = f"Put it back, or remove {target} to have it scored again."
            rule = f"the content that {target} was scored from"
            raise InputError(rule, "another one", place, fix)

    def _name_as_begun(self, begun: _Inputs) -> list[str]:
        """Let inputs keep their outputs, whatever the list of now would call them.

        A new one whose name is taken has more of its path in it. Returns the outputs
        of those that their content alone tells.
        """
        left, by_content = dict(begun), []
        waiting = list(enumerate(self._inputs))
        for keys in KNOWN_BY:
            alike: dict[tuple[str, ...], list[str]] = {}
            for name, entry in left.items():
                alike.setdefault(_values(entry, keys), []).append(name)
            others = []
            for k, entry in waiting:
                for name in alike.get(_values(entry, keys), ()):
                    if name in left and (keys != CONTENT or self._is_whole_of(k, name)):
                        del left[name]
                        self.names[k] = entry["output"] = name
                        by_content += [name] if keys == CONTENT else []
                        break
                else:
                    others.append((k, entry))
            waiting = others
        # on some file systems, names that differ in case alone are one
        taken = {name.casefold() for name in (*begun, *self.names)}
        theirs = {name.casefold() for name in begun}
        for k, entry in waiting:
            short = PurePath(self.names[k])
            if self.names[k].casefold() not in theirs:
                continue
            parts = PurePath(entry["path"]).with_name(short.name).parts[1:]
            sizes = range(len(short.parts) + 1, len(parts) + 1)
            longer = (PurePath(*parts[-n:]).as_posix() for n in sizes)
            name = next((n for n in longer if n.casefold() not in taken), "")
            if not name:
                rule, got = "inputs of different names", f"two that become {short}"
                raise InputError(rule, got, str(entry["path"]), "Rename this one.")
            self.names[k] = entry["output"] = name
            taken.add(name.casefold())
        return by_content

    def _is_whole_of(self, k: int, name: str) -> bool:
        """Tell whether an output is whole, and of the content of input k."""
        then = (self._finished(name) or {}).get("input")
        return isinstance(then, dict) and self._same(k, then)

    def _check_new(self, new: _Inputs, begun: _Inputs) -> None:
        """Refuse inputs that the job does not have, unless they are to be added."""
        if new and not self._add:
            rule = f"the inputs of the job that has begun, {len(begun):,} of them"
            fix = "Give --resume --add to take them up, or --overwrite to begin anew."
            got = f"{len(new):,} more, {_names(list(new))}"
            raise InputError(rule, got, str(self._path), fix)
        self._check_targets(list(new), overwrite=False)

    def _check_left_out(self, names: Collection[str]) -> None:
        """Refuse to leave out what others may be at, or where a file is not ours."""
        if names and not self._locks.take(WORK_LOCK):
            rule = "a job that no process works on, to leave inputs out"
            fix = "Give all inputs, or wait until it has ended."
            raise InputError(rule, "one at work", str(self.out), fix)
        for target in map(self._target, sorted(names)):
            if os.path.lexists(target):
                rule = "an output as its manifest says, or its input to make it again"
                fix = "Give the input, or remove the output."
                raise InputError(rule, "another file", str(target), fix)

    def _finished(self, name: str) -> dict[str, Any] | None:
        """Read the manifest of an output of that size; None where there is none."""
        found = read_object(self._manifest(name)) or {}
        rows, size = found.get("rows", 0), found.get("size")
        if not isinstance(rows, int) or not 0 <= rows < MOST_ROWS:
            return None
        try:
            status = self._target(name).stat()
        except OSError:
            return None
        is_whole = stat.S_ISREG(status.st_mode) and status.st_size == size
        return found if is_whole else None

    # ---------------------------------------------------------------------- files

    def _inside(self, *parts: str) -> Path:
        """Name a file below `out`; refuses a folder on the way that is none of it."""
        place = self.out
        for part in PurePath(*parts).parts[:-1]:
            place /= part
            if place.is_symlink():
                rule, got = "a folder inside of --out", f"a link to {place.readlink()}"
                raise InputError(rule, got, str(place))
        return self.out.joinpath(*parts)

    def _target(self, name: str) -> Path:
        return self._inside(name)

    def _bad_rows(self, name: str) -> Path:
        return self._inside(FOLDER, "bad", f"{name}.jsonl")

    def _manifest(self, name: str) -> Path:
        return self._inside(FOLDER, "shards", f"{name}.json")

    def _check_there(self) -> None:
        """Refuse a folder that is not the one any more whose lock is held."""
        if not self._locks.are_of(self.folder / "lock"):
            rule = "a folder that stays while the job runs"
            raise InputError(rule, "none, or another in its place", str(self.folder))

    def _waits(self) -> None:
        self._note(f"waiting for another process that begins a job in {self.out}")

    # --------------------------------------------------------------------- shards

    def target(self, k: int) -> Path:
        """Name the output of shard k."""
        return self._target(self.names[k])

    def bad_rows(self, k: int) -> Path:
        """Name the file that lists the bad rows of shard k."""
        return self._bad_rows(self.names[k])

    def claim(self, k: int, *, wait: bool = False) -> bool:
        """Take shard k for this process; False where another has it."""
        return self._locks.take(_byte(self.names[k]), wait=wait)

    def release(self, k: int) -> None:
        """Let others have shard k."""
        self._locks.release(_byte(self.names[k]))

    def manifest(self, k: int) -> dict[str, Any] | None:
        """Read the manifest of shard k; None unless its output is what that says.

        An output from before this process began is read and its checksum compared; of
        one that another process has made since, the size.
        """
        found = self._finished(self.names[k])
        try:
            if found is not None and k in self._old:
                if file_digest(self.target(k)) != found.get("sha256"):
                    return None
                self._old.discard(k)
        except OSError:
            return None
        return found

    def finish(self, k: int, manifest: Mapping[str, Any]) -> None:
        """Say that shard k is whole: the last thing that is done for it."""
        self._check_there()
        path = self._manifest(self.names[k])
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(manifest, indent=1))

    def forget(self, k: int) -> None:
        """Take back that shard k is whole, and remove what was left of it.

        Raises
        ------
        InputError
            If there is another file where the output goes, or the job's folder is gone.
        """
        self._check_there()
        target = self.target(k)
        if os.path.lexists(target) and not self._replaces and not _is_output(target):
            rule, got = "an output of this job, or nothing", "another file"
            raise InputError(rule, got, str(target), "Remove it to go on.")
        for path in (self._manifest(self.names[k]), target, self.bad_rows(k)):
            _remove(path)
            remove_leftovers(path)

    def finish_job(self) -> bool:
        """Write ``manifest.json`` of the whole job, if all shards are whole.

        Those that other processes have added are among them.
        """
        with self._locks.taken(JOB_LOCK):
            job = read_object(self._path)
            if job is None or not _is_job(job):
                rule = "a job that stays while it runs"
                raise InputError(rule, "damage", str(self._path), ANEW)
            names = [i["output"] for i in job["inputs"]]
            shards = [read_object(self._manifest(name)) for name in names]
            if any(s is None for s in shards):
                return False
            whole = {**job, "shards": shards}
            write_whole(self.folder / "manifest.json", json.dumps(whole, indent=1))
        return True


def _is_job(found: Mapping[str, Any]) -> bool:
    """Tell whether an object is what `Ledger` writes of a job, as far as it is read."""
    inputs = found.get("inputs")
    if not isinstance(inputs, list) or not isinstance(found.get("changes", []), list):
        return False
    names = [i.get("output") if isinstance(i, dict) else None for i in inputs]
    return all(map(is_name, names)) and len(set(names)) == len(names)


def _check_encoding(found: Mapping[str, Any], place: str) -> None:
    """Refuse a job whose names are written otherwise in this process's locale."""
    inputs = found.get("inputs")
    for described in inputs if isinstance(inputs, list) else []:
        name = described.get("output") if isinstance(described, dict) else None
        if isinstance(name, str) and not _is_native(name):
            rule = "the encoding of file names that the job began with"
            fix = "Go on in the locale of then, as LC_ALL=C.UTF-8."
            raise InputError(rule, sys.getfilesystemencoding(), place, fix)


def _is_native(name: str) -> bool:
    """Tell whether this process would read a name from a folder as it is written."""
    try:
        return os.fsdecode(os.fsencode(name)) == name
    except UnicodeEncodeError:
        return False


def _is_output(path: Path) -> bool:
    """Tell whether a path is what a job writes, or a link, which goes alone."""
    if path.is_symlink():
        return True
    try:
        with open_regular(path) as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def _remove(path: Path) -> None:
    """Remove a file of the ledger, or an output; a link goes, its target stays."""
    with suppress(FileNotFoundError):
        mode = path.lstat().st_mode
        if not stat.S_ISLNK(mode):
            _check_regular(mode, path)
        path.unlink()


def _check_regular(mode: int, path: Path) -> None:
    try:
        check_regular(mode, path)
    except OSError as error:
        rule = "a regular file, or nothing"
        raise InputError(rule, error.strerror or error, str(path)) from None


def _byte(name: str) -> int:
    """Choose the byte of the lock file that stands for an output, by its name."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:6], "big")


def _values(entry: Mapping[str, Any], keys: Sequence[str] = CONTENT) -> tuple[str, ...]:
    return tuple(str(entry.get(key)) for key in keys)


def _names(names: Sequence[str]) -> str:
    return ", ".join([*names[:MOST_NAMES], *["..."] * (len(names) > MOST_NAMES)])


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
