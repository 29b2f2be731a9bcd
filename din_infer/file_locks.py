"""Locks on open files; the system releases them when the process ends, however it ends.

`lock_file` is about the whole file and one open file object (``flock``); `ByteLocks` is
about single bytes and one process (record locks of ``fcntl``, which NFS v4 shares). On
Windows both are ``LockFileEx``, of bytes beyond all content, since others cannot read a
byte that is locked there. That branch is checked by mypy alone: it has not run.

The packages `filelock` and `portalocker` lock whole files: a job would need a file for
each shard, and could share no lock.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from din_infer.regular_file import check_regular

__all__ = ["ByteLocks", "lock_file"]

# Before somebody is told that a lock is waited for; and between two looks at it.
PATIENCE_S, LONGEST_PAUSE_S = 5.0, 0.1
WHOLE_FILE = 1 << 62  # the byte that stands for a file, on Windows

if sys.platform == "win32":
    import ctypes
    import msvcrt

    SHARED, NOW, EXCLUSIVE = 0, 1, 2  # flags of LockFileEx
    VIOLATION = 33  # ERROR_LOCK_VIOLATION: another has it

    class _Overlapped(ctypes.Structure):
        _fields_ = (
            ("internal", ctypes.c_size_t),
            ("internal_high", ctypes.c_size_t),
            ("offset", ctypes.c_uint32),
            ("offset_high", ctypes.c_uint32),
            ("event", ctypes.c_void_p),
        )

    _kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    _word = ctypes.c_uint32
    _kernel.LockFileEx.argtypes = [ctypes.c_void_p, *[_word] * 4, ctypes.c_void_p]
    _kernel.UnlockFileEx.argtypes = [ctypes.c_void_p, *[_word] * 3, ctypes.c_void_p]

    def _lock(descriptor: int, byte: int, flags: int) -> bool:
        place = _Overlapped(offset=byte & 0xFFFFFFFF, offset_high=byte >> 32)
        handle = msvcrt.get_osfhandle(descriptor)
        if _kernel.LockFileEx(handle, flags, 0, 1, 0, ctypes.byref(place)):
            return True
        error = ctypes.get_last_error()
        if flags & NOW and error == VIOLATION:
            return False
        raise ctypes.WinError(error)

    def _unlock(descriptor: int, byte: int) -> None:
        place = _Overlapped(offset=byte & 0xFFFFFFFF, offset_high=byte >> 32)
        handle = msvcrt.get_osfhandle(descriptor)
        if not _kernel.UnlockFileEx(handle, 0, 1, 0, ctypes.byref(place)):
            raise ctypes.WinError(ctypes.get_last_error())
else:
    import fcntl

    def _lock(
        descriptor: int,
        byte: int,
        how: int,
        wait: bool,
        on_wait: Callable[[], object],
    ) -> bool:
        """Lock a byte; looks again and again where it waits, and tells once."""
        began, pause = time.monotonic(), 0.001
        is_told = False
        while True:
            try:
                fcntl.lockf(descriptor, how | fcntl.LOCK_NB, 1, byte)
            except (BlockingIOError, PermissionError):  # the second, on some systems
                if not wait:
                    return False
            else:
                return True
            if not is_told and time.monotonic() - began > PATIENCE_S:
                is_told = True
                on_wait()
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)


def lock_file(file: IO[Any], *, wait: bool) -> None:
    """Lock a file for this open file object, until it is closed.

    Raises
    ------
    OSError
        If another has it and this is not to wait; or on a file system without locks.
    """
    if sys.platform == "win32":
        if not _lock(file.fileno(), WHOLE_FILE, EXCLUSIVE | (0 if wait else NOW)):
            raise BlockingIOError("another open file has the lock")
    else:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


class ByteLocks:
    """Locks of this process on bytes of one file, which need not be that long.

    Parameters
    ----------
    path : path
        Made if it is not there.
    on_wait : callable, optional
        Called once where a lock has been waited for `PATIENCE_S`: whoever has it may
        have been stopped.

    Raises
    ------
    OSError
        From here and all methods, if the system refuses; or if the path is a link, or
        no regular file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        on_wait: Callable[[], object] = lambda: None,
    ) -> None:
        # a link would make a file elsewhere
        flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o666)
        self._mine: set[int] = set()  # that no other process shares, on Windows
        self._on_wait = on_wait
        try:
            check_regular(os.fstat(self._file).st_mode, path)
        except OSError:
            self.close()
            raise

    def are_of(self, path: str | os.PathLike[str]) -> bool:
        """Tell whether a path still is the file of these locks."""
        try:
            return os.path.samestat(Path(path).stat(), os.fstat(self._file))
        except OSError:
            return False

    def take(self, byte: int, *, wait: bool = False) -> bool:
        """Lock a byte for this process alone; False where another has it."""
        if sys.platform == "win32":
            if byte not in self._mine:
                if not _lock(self._file, byte, EXCLUSIVE | (0 if wait else NOW)):
                    return False
                self._mine.add(byte)
        else:
            how, told = fcntl.LOCK_EX, self._on_wait
            if not _lock(self._file, byte, how, wait, told):
                return False
        return True

    def share(self, byte: int) -> None:
        """Lock a byte with others that share it; one of this process alone becomes so.

        Waits until no other has it alone.
        """
        if sys.platform == "win32":
            _lock(self._file, byte, SHARED)
            if byte in self._mine:
                self.release(byte)  # of two locks on a byte, the one that is not shared
        else:
            _lock(self._file, byte, fcntl.LOCK_SH, True, self._on_wait)

    def release(self, byte: int) -> None:
        """Let others have a byte."""
        if sys.platform == "win32":
            self._mine.discard(byte)
            _unlock(self._file, byte)
        else:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, byte)

    @contextmanager
    def taken(self, byte: int) -> Iterator[None]:
        """Wait for a byte, and have it for a block."""
        self.take(byte, wait=True)
        try:
            yield
        finally:
            self.release(byte)

    def close(self) -> None:
        """Release all bytes; does nothing the second time."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
