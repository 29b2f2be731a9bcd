import threading
import time
from collections.abc import Iterator

import pytest

from din_infer import InputError
from din_infer.jobs.pipeline import ahead, in_order


def test_iterating_ahead_keeps_order_and_errors() -> None:
    assert list(ahead(iter(range(50)), depth=3)) == list(range(50))

    def broken() -> Iterator[int]:
        yield 1
        message = "row 2 is wrong"
        raise InputError(message)

    items = ahead(broken())
    assert next(items) == 1
    with pytest.raises(InputError, match="row 2 is wrong"):
        next(items)


def test_iterating_ahead_stops_when_the_taker_does() -> None:
    made: list[int] = []

    def endless() -> Iterator[int]:
        while True:
            made.append(len(made))
            yield made[-1]

    items = ahead(endless(), depth=2)
    assert next(items) == 0
    items.close()  # type: ignore[attr-defined]
    assert len(made) <= 5
    assert "din-rows" not in [t.name for t in threading.enumerate()]


def test_work_side_by_side_comes_in_order() -> None:
    begun: list[int] = []

    def work(k: int) -> int:
        begun.append(k)
        time.sleep(0.01 * (k % 3))
        return k * k

    made = in_order(work, iter(range(20)), workers=4, waiting=5)
    taken = 0
    for k, square in enumerate(made):
        assert square == k * k
        taken += 1
        assert len(begun) <= taken + 5
    assert taken == 20


def test_work_that_fails_raises_in_its_place_and_ends_the_rest() -> None:
    closed = threading.Event()
    begun: list[int] = []

    def items() -> Iterator[int]:
        try:
            yield from range(100)
        finally:
            closed.set()

    def work(k: int) -> int:
        begun.append(k)
        if k == 3:
            message = "three"
            raise ValueError(message)
        return k

    made = in_order(work, ahead(items(), 2), workers=2, waiting=3)
    assert [next(made) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(made)
    assert closed.wait(60)
    assert len(begun) < 10
