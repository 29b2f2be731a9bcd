import os
import threading
from collections.abc import Callable

import pytest

from din_infer.forking import Lock

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


def child(work: Callable[[], None]) -> int:
    """Fork, work there; how it ended."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("forks_wait", [False, True])
def test_the_thread_that_forks_may_hold_the_lock(forks_wait: bool) -> None:
    lock = Lock(forks_wait=forks_wait)

    def enter_again() -> None:
        with lock:
            pass

    with lock, lock:
        assert child(enter_again) == 0
    assert child(enter_again) == 0


def test_a_child_has_a_free_lock_where_another_thread_holds_it() -> None:
    lock, held, leave = Lock(), threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            assert leave.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)

    def enter() -> None:
        with lock:
            pass

    assert child(enter) == 0
    leave.set()
    thread.join()


def test_a_fork_waits_for_the_thread_that_holds_the_lock() -> None:
    lock, held = Lock(forks_wait=True), threading.Event()
    ended: list[bool] = []

    def hold() -> None:
        with lock:
            held.set()
            threading.Event().wait(0.2)
            ended.append(True)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    assert child(lambda: None if ended else os._exit(3)) == 0
    thread.join()
