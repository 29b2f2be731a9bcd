import threading

from din_infer.lazy import lazy


class Square:
    def __init__(self, side: int) -> None:
        self.side, self.times = side, 0

    @lazy
    def area(self) -> int:
        """What it covers."""
        self.times += 1
        return self.side**2


def test_an_attribute_is_computed_once_for_each_instance() -> None:
    small, large = Square(2), Square(3)
    assert [small.area, large.area, small.area] == [4, 9, 4]
    assert (small.times, large.times) == (1, 1)
    assert isinstance(Square.area, lazy)
    assert Square.area.__doc__ == "What it covers."


def test_one_instance_that_computes_holds_no_other_up() -> None:
    entered, leave = threading.Event(), threading.Event()

    class Slow(Square):
        @lazy
        def area(self) -> int:
            if self.side == 2:
                entered.set()
                assert leave.wait(60)
            return self.side**2

    slow = Slow(2)
    thread = threading.Thread(target=lambda: slow.area)
    thread.start()
    assert entered.wait(60)
    assert Slow(3).area == 9
    leave.set()
    thread.join()
    assert slow.area == 4
