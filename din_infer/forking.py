"""What a forked child may not inherit as it was: locks, and sessions.

A lock that another thread holds stays locked in the child for ever. A session has
threads, which are not in the child: to destroy it waits for them for ever.
"""

import ctypes
import os
import threading
import weakref
from typing import Any

__all__ = ["Lock", "leave_to_parent"]


class Lock:
    """A reentrant lock that is free in a forked child.

    Parameters
    ----------
    forks_wait : bool
        A fork waits until no other thread holds it. For work inside a library whose own
        locks would be inherited as they are.
    """

    def __init__(self, *, forks_wait: bool = False) -> None:
        self._lock = threading.RLock()
        if not hasattr(os, "register_at_fork"):
            return
        if forks_wait:
            os.register_at_fork(
                before=lambda: self._lock.acquire(),
                after_in_parent=lambda: self._lock.release(),
                after_in_child=lambda: self._lock.release(),
            )
        else:
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        if self._lock.acquire(blocking=False):  # free, or held by the thread that forks
            self._lock.release()
        else:
            self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


_SESSIONS: "weakref.WeakSet[Any]" = weakref.WeakSet()


def leave_to_parent(session: object) -> None:
    """Let a forked child never destroy this object."""
    _SESSIONS.add(session)


def _leave_sessions() -> None:
    # one reference that nobody gives back, not even the interpreter's end
    for session in _SESSIONS:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_sessions)
