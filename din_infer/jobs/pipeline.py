"""Stages that work side by side: each runs ahead of the one that takes from it."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["ahead", "in_order"]

# To a thread that is to stop: it may wait for a pipe that says nothing more.
PATIENCE_S = 2.0
T = TypeVar("T")
R = TypeVar("R")


def ahead(items: Iterator[T], depth: int = 8) -> Iterator[T]:
    """Iterate in a thread of its own, up to `depth` items ahead of the taker.

    An exception of the iterator is raised where its item would have come. Closing the
    generator stops the thread, and closes the iterator there.
    """
    ready: queue.Queue[tuple[T | None, BaseException | None, bool]] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: T | None, error: BaseException | None, more: bool) -> None:
        while not stop.is_set():
            try:
                ready.put((item, error, more), timeout=0.1)
            except queue.Full:
                continue
            return

    def work() -> None:
        try:
            for item in items:
                put(item, None, True)
                if stop.is_set():
                    break
            put(None, None, False)
        except BaseException as error:
            put(None, error, False)
        finally:
            _close(items)

    thread = threading.Thread(target=work, daemon=True, name="din-ahead")
    thread.start()
    try:
        while True:
            item, error, more = ready.get()
            if error is not None:
                raise error
            if not more:
                return
            yield item  # type: ignore[misc]
    finally:
        stop.set()
        thread.join(PATIENCE_S)


def in_order(
    work: Callable[[T], R], items: Iterator[T], workers: int, waiting: int
) -> Iterator[R]:
    """Do `work` on items in threads; yields what it gave, in the order of the items.

    At most `waiting` items are begun and not yet taken. An exception is raised where
    its result would have come; then, and when the generator is closed, work that has
    begun is waited for, and the rest is not begun.
    """
    begun: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="din-score") as pool:
        try:
            for item in items:
                begun.append(pool.submit(work, item))
                if len(begun) >= waiting:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            for future in begun:
                future.cancel()
            _close(items)


def _close(items: Iterator[object]) -> None:
    if isinstance(items, Generator):
        items.close()
