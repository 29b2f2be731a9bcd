"""Objects that lie, raise and change: arguments that no call may be broken by."""

import array
import collections
import datetime
import decimal
import fractions
import types
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
from hypothesis import strategies as st

Make = Callable[[], Any]


class Broken(Exception):
    """What hostile objects raise: no class that anyone expects."""


def _raise(*_: object, **__: object) -> NoReturn:
    raise Broken("from the caller's object")


RAISING = (
    *("__len__", "__iter__", "__getitem__", "__array__", "__index__", "__int__"),
    *("__float__", "__str__", "__repr__", "__bool__", "__eq__", "__hash__"),
    *("__fspath__", "__contains__", "__arrow_c_stream__", "__arrow_c_array__"),
    *("__dlpack__", "keys", "items", "read", "tolist", "to_numpy", "__lt__", "__ge__"),
)


def raising(*names: str, base: type = object) -> Any:  # noqa: ANN401
    """Make an object whose methods of these names raise."""
    return type("Raising", (base,), dict.fromkeys(names, _raise))()


def lying(base: type = object, /, **answers: Any) -> Any:  # noqa: ANN401
    """Make an object whose methods of these names return what is given."""
    methods = {n: (lambda value: lambda *_, **__: value)(v) for n, v in answers.items()}
    return type("Lying", (base,), methods)()


class Shrinking(list[Any]):
    """A list that is shorter each time that an element is read."""

    def __getitem__(self, at: Any) -> Any:  # noqa: ANN401
        value = super().__getitem__(at)
        del self[-1:]
        return value

    def __iter__(self) -> Iterator[Any]:
        for value in super().__iter__():
            self.clear()
            yield value


class Clearing(str):
    """A text that empties a list when it is compared or hashed."""

    __slots__ = ("target",)

    def __new__(cls, text: str, target: list[Any]) -> "Clearing":
        made = super().__new__(cls, text)
        made.target = target
        return made

    def __hash__(self) -> int:
        self.target.clear()
        return 0

    def __eq__(self, other: object) -> bool:
        self.target.clear()
        return False


def _itself() -> list[Any]:
    inner: list[Any] = []
    inner.append(inner)
    return inner


def _cleared() -> list[Any]:
    target: list[Any] = []
    target += [Clearing("a", target), "b", "c"]
    return target


def _released() -> memoryview:
    view = memoryview(b"abc")
    view.release()
    return view


def _deep() -> list[Any]:
    out: list[Any] = []
    for _ in range(5_000):
        out = [out]
    return out


SCALARS: list[Make] = [
    *(lambda v=v: v for v in (None, True, False, 0, 1, -1, 7, 2**31, 2**63, -(2**70))),
    *(
        lambda v=v: v
        for v in (0.5, float("nan"), float("inf"), 1j, "", "a", "\0", "日本")
    ),
    *(
        lambda v=v: v
        for v in ("\ud800", b"", b"\xff", "x" * 10_000, Ellipsis, int, len)
    ),
    lambda: decimal.Decimal("1.5"),
    lambda: fractions.Fraction(1, 3),
    lambda: datetime.datetime(2020, 1, 1),
    lambda: range(3),
    lambda: slice(1, 2),
    lambda: types.SimpleNamespace(a=1),
    lambda: PurePath("/nowhere\0"),
    lambda: np.float32(1),
    lambda: np.datetime64("NaT"),
    lambda: np.str_("a"),
    lambda: pd.NA,
    lambda: pd.NaT,
    lambda: pa.scalar(1),
    object,
]
CONTAINERS: list[Make] = [
    list,
    dict,
    set,
    tuple,
    bytearray,
    lambda: iter(()),
    lambda: (x for x in [1, "a"]),
    lambda: {1: [1], None: 2, "a": [3]},
    lambda: {"goods_id": 1, "cate_id": [1, 2]},
    lambda: collections.UserList([1, 2]),
    lambda: collections.deque(["a"]),
    lambda: array.array("i", [1, 2]),
    lambda: memoryview(b"abc"),
    lambda: memoryview(np.zeros((2, 3)))[::2],
    _released,
    _itself,
    _cleared,
    _deep,
    lambda: Shrinking(["a", "b", 1, None]),
    lambda: [["a"], "b", [[1]], None],
    lambda: np.array(5),
    lambda: np.zeros((0, 3)),
    lambda: np.zeros((2, 3, 4), np.int64),
    lambda: np.array([1, "a", None, [2]], object),
    lambda: np.zeros(3, [("a", "i4"), ("b", "f8")]),
    lambda: np.arange(6, dtype=">i8")[::-2],
    lambda: np.array(["2020"], "datetime64[D]"),
    lambda: np.array([1 + 2j]),
    lambda: np.ma.array([1, 2], mask=[0, 1]),
    lambda: np.broadcast_to(np.int8(1), (2**60,)),
    lambda: np.frombuffer(b"\xff" * 8, "U2"),
    lambda: np.array(["a", "bc"], np.dtypes.StringDType()),
    lambda: pd.Series([1, None, "a"]),
    lambda: pd.DataFrame({"a": [1], 2: ["b"]}),
    lambda: pd.DataFrame([[1, 2]], columns=["goods_id", "goods_id"]),
    lambda: pd.MultiIndex.from_tuples([(1, 2)]),
    lambda: pl.DataFrame({"goods_id": [[1], None]}),
    lambda: pl.Series([object()]),
    lambda: pa.table({"goods_id": pa.array([{"a": 1}])}),
    lambda: pa.array([1, None, 3]).dictionary_encode(),
    lambda: pa.array([[1], None], pa.list_view(pa.int8())),
    lambda: pa.nulls(3),
    lambda: pa.schema([]),
    *(lambda n=n: raising(n) for n in RAISING),
    lambda: raising(*RAISING),
    *(lambda n=n, b=b: raising(n, base=b) for n in RAISING for b in (list, dict, str)),
    lambda: lying(__len__=-1),
    lambda: lying(__len__=2**62, __getitem__=1),
    lambda: lying(list, __len__=5),
    lambda: lying(dict, __len__=5, keys=["a"], items=[("a",)]),
    lambda: lying(__array__=5),
    lambda: lying(__array__=np.zeros((2, 2, 2))),
    lambda: lying(__arrow_c_stream__=None),
    lambda: lying(__arrow_c_stream__=pa.table({}).__arrow_c_stream__),
    lambda: lying(__arrow_c_array__=(1, 2)),
    lambda: lying(__arrow_c_schema__=1),
    lambda: lying(__index__="a"),
    lambda: lying(__fspath__=5),
    lambda: lying(read="text"),
    lambda: lying(str, __str__=5, __len__=0),
]


def objects() -> st.SearchStrategy[Any]:
    """Draw objects of every kind, made anew for each example, and lists of them."""
    simple = st.sampled_from(SCALARS + CONTAINERS).map(lambda make: make())
    names = st.sampled_from(["goods_id", "cate_id", "hist_goods_id", "user_id", "x"])
    return simple | st.recursive(
        simple,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.lists(inner, max_size=3).map(tuple)
            | st.dictionaries(names, inner, max_size=4)
        ),
        max_leaves=6,
    )
