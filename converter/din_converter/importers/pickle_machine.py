"""A pickle's instructions, carried out without importing or calling anything of it.

`Machine` builds plain values: numbers, text, lists, dicts and so on. Every class or
function that the pickle names is an `Inert`; what a pickle would call is recorded in
one, unless its name is in the closed list of `makers`, which are our own functions.
"""

import pickletools
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

__all__ = ["Inert", "Machine", "Maker", "RefusedPickle", "check_shared", "shown"]

KEY_PARTS = 1000
SHARED_PARTS, LARGEST = 100_000, 1 << 62
# Parts of a value that are shown: a pickle of 100 bytes can hold one part 2**30 times.
_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2


class RefusedPickle(Exception):
    """The pickle is damaged, or asks for something that no checkpoint needs."""


class Inert:
    """A placeholder for a class, a function, or an object of either; does nothing.

    Attributes
    ----------
    module_name, class_name : str
        Its name in the pickle; of an object, the name of its class.
    called : bool
        Whether it is an object, not the class or function itself.
    args : tuple
        The arguments of the call that made the object.
    attributes : dict
        Its state: what an object's ``__dict__`` and slots held.
    state : object
        A state that is no dict; else None.
    items : list
        What was appended to it.
    mapping : dict
        What was set in it by key.
    """

    __slots__ = (
        "args",
        "attributes",
        "called",
        "class_name",
        "items",
        "mapping",
        "memo_keys",
        "module_name",
        "state",
    )

    def __init__(
        self, module_name: str, class_name: str, args: tuple[Any, ...] | None = None
    ) -> None:
        self.module_name, self.class_name = module_name, class_name
        self.called = args is not None
        self.args = args or ()
        self.attributes: dict[str, Any] = {}
        self.state: Any = None
        self.items: list[Any] = []
        self.mapping: dict[Any, Any] = {}
        self.memo_keys: list[int] = []

    def __repr__(self) -> str:
        return f"<{self.module_name}.{self.class_name}>"


Maker = Callable[["Machine", tuple[Any, ...]], Any]


class Machine:
    """Carries out one pickle.

    Parameters
    ----------
    file : binary file
        Read from its current position to the end of the pickle.
    makers : dict
        By (module, name): what to do instead of a call. Gets the machine and the
        arguments; returns the value, or None to leave the call an `Inert`.
    finishers : dict
        By (module, name): gets the machine, an `Inert` that was called, and its state;
        returns the value that replaces it, or None to keep it.
    persistent : callable
        Gets a persistent id, returns the value.
    budget : int
        How many bytes or elements `spend` allows.
    """

    def __init__(
        self,
        file: BinaryIO,
        makers: Mapping[tuple[str, str], Maker],
        finishers: Mapping[tuple[str, str], Callable[["Machine", Inert, Any], Any]],
        persistent: Callable[[Any], Any],
        budget: int,
    ) -> None:
        self._file, self._makers, self._finishers = file, makers, finishers
        self._persistent = persistent
        self._left = budget
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def spend(self, amount: int) -> None:
        """Count what a maker copies: a short pickle may not ask for much memory."""
        self._left -= amount
        if self._left < 0:
            raise RefusedPickle("a pickle that copies its contents again and again")

    def run(self) -> Any:  # noqa: ANN401
        """Return the pickle's value.

        Raises
        ------
        RefusedPickle
            Where the pickle is refused; a damaged one raises other errors too.
        """
        for opcode, argument, _ in pickletools.genops(self._file):
            name = opcode.name
            if name in _LITERALS:
                self._stack.append(argument)
            elif name in _ACTIONS:
                _ACTIONS[name](self, argument)
            else:
                raise RefusedPickle(f"the pickle instruction {name}")
        (value,) = self._stack
        return value

    # ------------------------------------------------------------ stack and memo

    def _push(self, value: Any) -> None:  # noqa: ANN401
        self._stack.append(value)

    def _mark(self, _: object) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def _from_mark(self) -> list[Any]:
        values = self._stack
        self._stack = self._marked.pop()
        return values

    def _pop(self, _: object) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._from_mark()

    def _put(self, key: int) -> None:
        value = self._stack[-1]
        if isinstance(value, Inert):
            value.memo_keys.append(key)
        self._memo[key] = value

    def _memoize(self, _: object) -> None:
        self._put(len(self._memo))

    def _get(self, key: int) -> None:
        self._push(self._memo[key])

    def _persistent_id(self, _: object) -> None:
        self._push(self._persistent(self._stack.pop()))

    # ---------------------------------------------------------------- containers

    def _tuple(self, count: int) -> None:
        values = tuple(self._stack[-count:])
        if len(values) != count:
            raise RefusedPickle("a damaged pickle")
        del self._stack[-count:]
        self._push(values)

    def _dict(self, _: object) -> None:
        values = self._from_mark()
        self._push({})
        self._set(values)

    def _frozenset(self, _: object) -> None:
        self._push(frozenset(map(checked_key, self._from_mark())))

    def _append(self, values: list[Any]) -> None:
        into = self._stack[-1]
        into = into.items if isinstance(into, Inert) else into
        if type(into) is not list:
            raise RefusedPickle(f"elements appended to {_kind(into)}")
        into.extend(values)

    def _set(self, values: list[Any]) -> None:
        into = self._stack[-1]
        target = into.mapping if isinstance(into, Inert) else into
        if not isinstance(target, dict) or len(values) % 2:
            raise RefusedPickle(f"keys set in {_kind(into)}")
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[checked_key(key)] = value

    def _add(self, _: object) -> None:
        values = self._from_mark()
        into = self._stack[-1]
        if isinstance(into, Inert):
            into.items.extend(values)
        elif type(into) is set:
            into.update(map(checked_key, values))
        else:
            raise RefusedPickle(f"elements added to {_kind(into)}")

    # ------------------------------------------------------------------- objects

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._push(Inert(module, name))

    def _stack_global(self, _: object) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise RefusedPickle(f"a global named by {_kind(name)}")
        self._push(Inert(module, name))

    def _call(self, function: Any, args: Any, extra: Any = None) -> None:  # noqa: ANN401
        if not isinstance(function, Inert) or not isinstance(args, tuple):
            raise RefusedPickle(f"a call of {_kind(function)}")
        name = (function.module_name, function.class_name)
        if function.called or name not in self._makers:
            made: Any = None
        else:
            made = self._makers[name](self, args)
        if made is None:
            made = Inert(*name, args)
            if isinstance(extra, dict):
                _update(made, extra)
        self._push(made)

    def _reduce(self, _: object) -> None:
        args, function = self._stack.pop(), self._stack.pop()
        self._call(function, args)

    def _new_extended(self, _: object) -> None:
        extra, args, function = (self._stack.pop() for _ in range(3))
        self._call(function, args, extra)

    def _instance(self, argument: str) -> None:
        args = tuple(self._from_mark())
        self._global(argument)
        self._call(self._stack.pop(), args)

    def _object(self, _: object) -> None:
        function, *args = self._from_mark()
        self._call(function, tuple(args))

    def _build(self, _: object) -> None:
        state = self._stack.pop()
        target = self._stack[-1]
        if isinstance(target, dict):  # an OrderedDict's attributes, e.g. _metadata
            return
        if not isinstance(target, Inert):
            if not hasattr(target, "dtype"):  # attributes of a tensor are ignored
                raise RefusedPickle(f"a state for {_kind(target)}")
            return
        finish = self._finishers.get((target.module_name, target.class_name))
        finished = finish(self, target, state) if finish and target.called else None
        if finished is not None:
            self._stack[-1] = finished
            for key in target.memo_keys:
                self._memo[key] = finished
            return
        parts = state if isinstance(state, tuple) and len(state) == 2 else (state,)
        if all(part is None or isinstance(part, dict) for part in parts):
            for part in parts:
                _update(target, part or {})
        else:
            target.state = state


def shown(value: object) -> str:
    """Show some parts of a value, however often it holds itself or another."""
    return _SHORT.repr(value)[:200]


def _update(target: Inert, values: dict[Any, Any]) -> None:
    for key, value in values.items():
        if not isinstance(key, str):
            raise RefusedPickle(f"an attribute named by {_kind(key)}")
        target.attributes[key] = value


def _kind(value: object) -> str:
    return repr(value)[:100] if isinstance(value, Inert) else type(value).__name__


def checked_key(value: Any) -> Any:  # noqa: ANN401
    """Return a key that is cheap to hash.

    Raises
    ------
    RefusedPickle
        If it is a list or dict, or a tuple of very many parts: nested tuples of a few
        bytes can take forever.
    """
    parts, count = [value], 0
    while parts:
        part = parts.pop()
        count += 1
        if isinstance(part, tuple | frozenset):
            parts.extend(part)
        unhashable = isinstance(part, list | dict | set | bytearray)
        if unhashable or count + len(parts) > KEY_PARTS:
            raise RefusedPickle(f"{_kind(part)} as a key")
    return value


def check_shared(value: object) -> None:
    """Refuse containers that hold one another more often than they have parts.

    A list of two that are one list of two, and so on, is 2**30 values in a pickle of
    100 bytes, to whoever walks over it. What an `Inert` holds is walked over by nobody
    at once, so that objects may share it, and hold each other.

    Raises
    ------
    RefusedPickle
    """
    sizes: dict[int, int] = {}  # with all inside, as often as they are there
    count = 0
    roots: list[Any] = [value]
    seen: set[int] = set()
    while roots:
        pending = [(roots.pop(), False)]
        while pending:
            part, is_walked = pending.pop()
            if isinstance(part, Inert):
                if id(part) not in seen:
                    seen.add(id(part))
                    roots += [part.args, part.attributes, part.items, part.mapping]
                    roots.append(part.state)
                continue
            inner = _inner(part)
            if is_walked:
                sizes[id(part)] = 1 + sum(sizes.get(id(p), 1) for p in inner)
            elif inner and id(part) not in sizes:
                sizes[id(part)] = LARGEST  # until it is known; of a part of itself
                count += len(inner)
                pending.append((part, True))
                pending += [(p, False) for p in inner]
    if max(sizes.values(), default=0) > SHARED_PARTS + 4 * count:
        raise RefusedPickle("containers that hold one another again and again")


def _inner(part: object) -> list[Any]:
    if isinstance(part, dict):
        return [*part, *part.values()]
    return list(part) if isinstance(part, list | tuple | set | frozenset) else []


_LITERALS = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
        *("FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    )
)
_ACTIONS: dict[str, Callable[[Machine, Any], None]] = {
    "PROTO": lambda _, __: None,
    "FRAME": lambda _, __: None,
    "STOP": lambda _, __: None,
    "NONE": lambda m, _: m._push(None),
    "NEWTRUE": lambda m, _: m._push(True),
    "NEWFALSE": lambda m, _: m._push(False),
    "EMPTY_LIST": lambda m, _: m._push([]),
    "EMPTY_DICT": lambda m, _: m._push({}),
    "EMPTY_TUPLE": lambda m, _: m._push(()),
    "EMPTY_SET": lambda m, _: m._push(set()),
    "MARK": Machine._mark,
    "POP": Machine._pop,
    "POP_MARK": lambda m, _: m._from_mark().clear(),
    "DUP": lambda m, _: m._push(m._stack[-1]),
    "GET": Machine._get,
    "BINGET": Machine._get,
    "LONG_BINGET": Machine._get,
    "PUT": Machine._put,
    "BINPUT": Machine._put,
    "LONG_BINPUT": Machine._put,
    "MEMOIZE": Machine._memoize,
    "PERSID": lambda m, pid: m._push(m._persistent(pid)),
    "BINPERSID": Machine._persistent_id,
    "TUPLE": lambda m, _: m._push(tuple(m._from_mark())),
    "TUPLE1": lambda m, _: m._tuple(1),
    "TUPLE2": lambda m, _: m._tuple(2),
    "TUPLE3": lambda m, _: m._tuple(3),
    "LIST": lambda m, _: m._push(m._from_mark()),
    "DICT": Machine._dict,
    "FROZENSET": Machine._frozenset,
    "APPEND": lambda m, _: m._append([m._stack.pop()]),
    "APPENDS": lambda m, _: m._append(m._from_mark()),
    "SETITEM": lambda m, _: m._set([m._stack.pop(), m._stack.pop()][::-1]),
    "SETITEMS": lambda m, _: m._set(m._from_mark()),
    "ADDITEMS": Machine._add,
    "GLOBAL": Machine._global,
    "STACK_GLOBAL": Machine._stack_global,
    "REDUCE": Machine._reduce,
    "NEWOBJ": Machine._reduce,
    "NEWOBJ_EX": Machine._new_extended,
    "INST": Machine._instance,
    "OBJ": Machine._object,
    "BUILD": Machine._build,
}
