"""Files that are whole or not there: written under another name, synced, renamed.

A reader of the target finds the old content or the new, also after a crash or a power
cut. An error while the file is written leaves the old content and no other file. A
target that is a symbolic link is replaced by the file; what the link points to stays.
A folder, a pipe or a device, also behind a link, is refused: root would put a file in
the place of ``/dev/null``.

The other name is ``.<target>.<pid>.<random>.tmp``, in the target's folder; permissions
follow the umask. The writer holds a lock (``flock``) on the file. The system releases
the lock when the process ends, however it ends, so a file of such a name without a lock
was left by a killed writer: the next writer of the same target removes it. The file of
a live writer, in another thread, process or host, is locked and stays. Other hosts see
the lock where the file system shares locks (NFS v4 without ``local_lock``). On a file
system without locks nothing is removed.
"""

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from din_infer.errors import DinError, InputError
from din_infer.file_locks import lock_file
from din_infer.local_path import local_path
from din_infer.regular_file import check_regular

__all__ = [
    "WholeFile",
    "check_replaceable",
    "draft_folder",
    "link_or_copy",
    "move_into_place",
    "remove_leftovers",
    "remove_unfinished",
    "write_whole",
    "writing",
]

_UNFINISHED: set[Path] = set()
# Windows neither renames nor removes a file that is open; elsewhere the lock is held
# until the file has its name.
OPEN_FILES_MOVE = os.name != "nt"
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_UNFINISHED.clear)  # those are the parent's


class WholeFile:
    """A file that takes its target's place when it is whole.

    ``with WholeFile(..) as file`` calls `finish` at the end, `abort` on an exception.

    Parameters
    ----------
    target : path
        In a folder that exists; replaced if there.
    mode : str
        As of `open`: "w" (text is UTF-8), "wb" or "w+b".
    replaces : bool
        Whether the target is to be a file, which is checked at once.

    Attributes
    ----------
    file : file object
    path : Path
        Its name until it is whole.

    Raises
    ------
    OSError
        From here and `finish`, if the system refuses.
    InputError
        If the target is a URL.
    """

    def __init__(
        self,
        target: str | os.PathLike[str],
        mode: str = "wb",
        *,
        replaces: bool = True,
    ) -> None:
        self._target = local_path(target, "path")
        if replaces:
            check_replaceable(self._target)
        remove_leftovers(self._target)
        made = mode.replace("w", "x")
        encoding = None if "b" in mode else "utf-8"
        while True:
            name = f"{_stem(target)}{os.getpid()}.{os.urandom(4).hex()}.tmp"
            self.path = self._target.with_name(name)
            _UNFINISHED.add(self.path)
            newline = None if encoding is None else ""  # equal bytes on every system
            file = self.path.open(made, encoding=encoding, newline=newline)
            self.file: IO[Any] = file
            with suppress(OSError):  # a file system without locks
                lock_file(self.file, wait=True)
            if self.path.exists():
                return
            self.file.close()  # another writer removed it before it was locked

    def finish(self) -> None:
        """Sync the file and rename it to its target; `abort` where that fails."""
        try:
            self.file.flush()
            os.fsync(self.file.fileno())
            if not OPEN_FILES_MOVE:
                self.file.close()
            _rename(self.path, self._target)
        finally:
            self.abort()

    def abort(self) -> None:
        """Close and remove the file; does nothing after `finish`."""
        if not OPEN_FILES_MOVE:
            with suppress(OSError):
                self.file.close()
        with suppress(OSError):
            _remove(self.path)
            _UNFINISHED.discard(self.path)
        with suppress(OSError):  # what is buffered cannot be written
            self.file.close()
        if self.path in _UNFINISHED:  # a folder is opened to be removed: now one can be
            with suppress(OSError):
                _remove(self.path)
                _UNFINISHED.discard(self.path)

    def __enter__(self) -> IO[Any]:
        return self.file

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.finish()
        else:
            self.abort()


def remove_unfinished() -> None:
    """Remove the files of this process that are not finished, as it ends.

    A signal may come between the making of a file and the block that would remove it.
    """
    for path in tuple(_UNFINISHED):
        with suppress(OSError):
            _remove(path)
    _UNFINISHED.clear()


def write_whole(target: Path, content: str | bytes) -> None:
    """Write all content of a file; raises OSError if the system refuses."""
    with WholeFile(target, "w" if isinstance(content, str) else "wb") as file:
        file.write(content)


@contextmanager
def draft_folder(target: Path) -> Iterator[Path]:
    """Make a folder beside `target` for files to be moved into place together.

    It is removed at the end, with what is still in it; after a kill, by the next writer
    of the same target.
    """
    lock = WholeFile(target, replaces=False)
    folder = lock.path.with_suffix("")
    try:
        folder.mkdir()
        yield folder
    finally:
        lock.abort()


def move_into_place(path: Path, target: Path) -> None:
    """Sync a file that is complete, and rename it; raises OSError."""
    with path.open("r+b") as file:  # Windows syncs what is open to be written alone
        os.fsync(file.fileno())
    _rename(path, target)


def _open_own(path: str, flags: int) -> int:
    """Open what a writer made, which was no link, and no pipe to wait for."""
    more = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    return os.open(path, flags | more)


def check_replaceable(target: Path) -> None:
    """Raise OSError where a folder, a pipe or a device is, also behind a link."""
    with suppress(FileNotFoundError, NotADirectoryError):
        try:
            mode = target.stat().st_mode
        except OSError as error:
            if error.errno == errno.ELOOP:  # links in a ring
                return
            raise
        check_regular(mode, target)


def _rename(path: Path, target: Path) -> None:
    check_replaceable(target)
    path.replace(target)
    with suppress(OSError):  # some file systems cannot sync a folder
        handle = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _stem(target: str | os.PathLike[str]) -> str:
    """Begin the name of a temporary file: a system's names have 255 bytes at most."""
    name = Path(target).name
    if len(os.fsencode(name)) > 200:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return f".{name}."


def remove_leftovers(target: Path) -> None:
    """Remove the files, and folders of drafts, of killed writers of `target`."""
    unfinished = re.compile(re.escape(_stem(target)) + r"\d+\.[0-9a-f]{8}\.tmp")
    names: list[str] = []
    with suppress(OSError):  # no such folder, or one that may not be listed
        names = os.listdir(target.parent)  # noqa: PTH208
    for path in map(target.with_name, filter(unfinished.fullmatch, names)):
        with suppress(OSError), open(path, "r+b", opener=_open_own) as file:
            check_regular(os.fstat(file.fileno()).st_mode, path)
            lock_file(file, wait=False)  # OSError: it is alive
            if not OPEN_FILES_MOVE:
                file.close()
            _remove(path)


def _remove(path: Path) -> None:
    """Remove a file in the making, after the folder of drafts that it stands for."""
    folder = path.with_suffix("")
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():  # NFS keeps an open file: the next writer tries again
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(folder))
    path.unlink(missing_ok=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Show a file in another folder, without a copy where the system lets it."""
    try:
        target.symlink_to(source)
    except OSError:  # Windows, without the right to make links
        shutil.copyfile(source, target)


@contextmanager
def writing(
    what: str, target: Path, error: type[DinError] = InputError, fix: str = ""
) -> Iterator[None]:
    """Turn an OSError into an error that names what cannot be written, and where."""
    try:
        yield
    except OSError as reason:
        rule = f"a place where {what} can be written"
        raise error(rule, reason, str(target), fix) from None
