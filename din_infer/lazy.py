"""An attribute that is computed when it is first asked for.

``functools.cached_property`` holds one lock for all instances of a class while it
computes, up to Python 3.11: a child forked meanwhile would wait for it for ever.
"""

from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast, overload

__all__ = ["lazy"]

Value = TypeVar("Value")


class lazy(Generic[Value]):
    """Compute an attribute once for each instance, by a method without arguments.

    Two threads that ask at once may both compute it; all get the same value.
    """

    def __init__(self, compute: Callable[[Any], Value]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> "lazy[Value]": ...
    @overload
    def __get__(self, instance: object, owner: type) -> Value: ...

    def __get__(self, instance: object, owner: type) -> "lazy[Value] | Value":
        if instance is None:
            return self
        # found there from now on, before this
        made = instance.__dict__.setdefault(self._name, self._compute(instance))
        return cast("Value", made)
