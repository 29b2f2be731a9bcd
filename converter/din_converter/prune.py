"""Data files that no model names any more: found after a conversion, or deleted."""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from din_infer.errors import sentence
from din_infer.integrity import digest_of
from din_infer.onnx_header import data_names
from din_infer.regular_file import open_regular

__all__ = ["Leftovers", "data_files", "find_leftovers"]

Found = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Leftovers:
    """Data files of earlier conversions that no .onnx beside them names.

    `left` and `deleted` are (name, bytes). Where it cannot be known which files these
    are, or one cannot be deleted, `reason` says why.
    """

    left: Found = ()
    deleted: Found = ()
    reason: str = ""


class _Unknown(Exception):
    """It cannot be told which data files are named."""


def find_leftovers(model: Path, *, delete: bool) -> Leftovers:
    """Find the data files that conversions to `model` left behind, and delete them.

    Parameters
    ----------
    model : Path
        An ``.onnx`` that is in place. Its folder's ``<stem>-<8 hex digits>.data`` are
        looked at: regular files that no ``.onnx`` of the folder names, nor one that is
        being made for it.
    delete : bool
        Delete them; no other file is touched, and none if any ``.onnx`` is unreadable.
    """
    left, deleted, reason = [], [], ""
    try:
        for path, seen in _unnamed(model):
            found = (path.name, seen.st_size)
            if not delete:
                left.append(found)
            elif _same(path, seen):  # else a conversion has just put another there
                try:
                    path.unlink()
                    deleted.append(found)
                except OSError as error:
                    left.append(found)
                    reason = sentence("a file that can be deleted", error, str(path))
    except (OSError, _Unknown) as error:
        reason = str(error)
    return Leftovers(tuple(left), tuple(deleted), reason)


def _same(path: Path, seen: os.stat_result) -> bool:
    try:
        now = path.lstat()
    except FileNotFoundError:
        return False
    return (now.st_ino, now.st_mtime_ns) == (seen.st_ino, seen.st_mtime_ns)


def _unnamed(model: Path) -> list[tuple[Path, os.stat_result]]:
    # A conversion puts its data in place, then its .onnx, which comes from a folder of
    # drafts. In this order its .onnx is met in one of the two, if its data is listed.
    folder, ours = model.parent, _ours(model.stem)
    files = [(path, path.lstat()) for path in _regular(folder, ours)]
    if not files:
        return []
    named: set[str] = set()
    drafts = [f for f in _names(folder) if f.startswith(f".{model.name}.")]
    for at in (*(folder / name for name in drafts), folder):
        for name in _names(at):
            if name.endswith(".onnx"):
                named.update(_named(at / name, folder))
            elif ".onnx" in name.lower():  # a copy, as din.onnx.bak, or about one
                with suppress(_Unknown):
                    named.update(_named(at / name, folder))
    unnamed = [f for f in sorted(files) if os.path.realpath(f[0]) not in named]
    return [f for f in unnamed if _is_data(f[0], ours)]


def data_files(folder: Path, stem: str) -> list[Path]:
    """List the data files of a model's name: regular files, named by their digests."""
    ours = _ours(stem)
    return [path for path in _regular(folder, ours) if _is_data(path, ours)]


def _ours(stem: str) -> re.Pattern[str]:
    return re.compile(re.escape(stem) + r"-([0-9a-f]{8})\.data")


def _regular(folder: Path, ours: re.Pattern[str]) -> list[Path]:
    with os.scandir(folder) as entries:
        return [
            Path(e.path)
            for e in entries
            if ours.fullmatch(e.name) and e.is_file(follow_symlinks=False)
        ]


def _is_data(path: Path, ours: re.Pattern[str]) -> bool:
    """Tell whether the digits in a file's name are its digest, and no date."""
    digits = ours.fullmatch(path.name)
    if digits is None:
        return False
    try:
        with open_regular(path) as file:
            digest = digest_of(file, os.fstat(file.fileno()).st_size)
    except FileNotFoundError:  # another conversion has deleted it
        return False
    return digest.startswith(digits[1])


def _names(folder: Path) -> list[str]:
    """List a folder; nothing where it is a file, or has gone."""
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        return []


def _named(model: Path, folder: Path) -> Iterator[str]:
    """Iterate over the files that a model names: beside it, or beside its target."""
    try:
        if not stat.S_ISREG(model.stat().st_mode):
            return  # a folder, or what nobody can load
    except FileNotFoundError:
        pass  # as below
    try:
        names = data_names(model)
    except FileNotFoundError as error:
        if not model.is_symlink():
            return  # moved into place, or deleted, since it was listed
        raise _unreadable(model, str(error.strerror)) from None
    except OSError as error:
        raise _unreadable(model, str(error.strerror)) from None
    except ValueError:
        raise _unreadable(model, "no ONNX file") from None
    for parent in {model.parent, model.resolve().parent, folder}:
        yield from (os.path.realpath(parent / name) for name in names)


def _unreadable(model: Path, got: str) -> _Unknown:
    rule = "an .onnx that tells which data it names"
    fix = "No data file is deleted while it is there."
    return _Unknown(sentence(rule, got, str(model), fix))
