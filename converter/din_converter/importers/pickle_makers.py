"""The calls of a pickle that are carried out, as functions of our own.

Each checks its arguments, and stays within the bytes that the file has. All other calls
of a pickle stay an `Inert`.
"""

import math
from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from din_converter.importers.pickle_machine import (
    Inert,
    Machine,
    Maker,
    RefusedPickle,
    checked_key,
    shown,
)

__all__ = ["FINISHERS", "MAKERS", "Storage", "is_sizes"]


class Storage:
    """The elements of one storage, flat."""

    __slots__ = ("flat",)

    def __init__(
        self, data: bytes | bytearray | memoryview, dtype: torch.dtype
    ) -> None:
        self.flat = torch.empty(0, dtype=dtype)
        if len(data):
            own = data if isinstance(data, bytearray) else bytearray(data)
            self.flat = torch.frombuffer(own, dtype=dtype)


def is_sizes(values: Any) -> bool:  # noqa: ANN401
    """Tell whether a value is a tuple of plain, not negative integers."""
    return isinstance(values, tuple) and all(
        type(n) is int and 0 <= n < 2**62 for n in values
    )


def _tensor(machine: Machine, args: tuple[Any, ...]) -> Any:  # noqa: ANN401
    storage, offset, size, stride = args[:4]
    if isinstance(storage, Inert):  # the first reading of the older format
        return Inert("torch", "Tensor", ())
    if not isinstance(storage, Storage):
        raise RefusedPickle("a tensor without a storage")
    shaped = is_sizes(size) and is_sizes(stride) and is_sizes((offset,))
    if not shaped or len(size) != len(stride) or len(size) > 64:
        reason = f"a tensor of size {shown(size)}, stride {shown(stride)}"
        raise RefusedPickle(f"{reason}, offset {shown(offset)}")
    count = math.prod(size)
    span = zip(size, stride, strict=True)
    last = offset + sum((n - 1) * step for n, step in span) if count else 0
    if count > len(storage.flat) or (count and last >= len(storage.flat)):
        reason = f"a tensor of size {list(size)}, beyond its {len(storage.flat)} values"
        raise RefusedPickle(reason)
    machine.spend(64)
    if not count:
        return torch.empty(size, dtype=storage.flat.dtype)
    return torch.as_strided(storage.flat, size, stride, offset)


def _retyped(machine: Machine, args: tuple[Any, ...]) -> Any:  # noqa: ANN401
    function, _, arguments = args[:3]
    name = getattr(function, "module_name", ""), getattr(function, "class_name", "")
    if name not in _TENSORS or not isinstance(arguments, tuple):
        return None
    return _tensor(machine, arguments)


def _parameter(_: Machine, args: tuple[Any, ...]) -> Any:  # noqa: ANN401
    return args[0] if isinstance(args[0], Tensor | Inert) else None


def _ordered(machine: Machine, args: tuple[Any, ...]) -> Any:  # noqa: ANN401
    made: OrderedDict[Any, Any] = OrderedDict()
    for key, value in args[0] if args else ():
        machine.spend(1)
        made[checked_key(key)] = value
    return made


def _set_of(machine: Machine, args: tuple[Any, ...]) -> Any:  # noqa: ANN401
    values = args[0] if args else []
    if not isinstance(values, list | tuple):
        return None
    machine.spend(len(values))
    return set(map(checked_key, values))


def _encoded(machine: Machine, args: tuple[Any, ...]) -> Any:  # noqa: ANN401
    text, encoding = args
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        return None
    machine.spend(len(text))
    return text.encode("latin-1")


def _reconstructed(_: Machine, args: tuple[Any, ...]) -> Any:  # noqa: ANN401
    """Undo copyreg: an object of the class that is the first argument."""
    kind = args[0]
    if not isinstance(kind, Inert) or kind.called:
        return None
    return Inert(kind.module_name, kind.class_name, args[1:])


def _array(_: Machine, args: tuple[Any, ...]) -> Any:  # noqa: ANN401
    return Inert("numpy", "ndarray", args)


def _finish_array(_: Machine, array: Inert, state: Any) -> Any:  # noqa: ANN401
    """Make an array of numbers or text; one of objects stays, with its `items`."""
    _, shape, dtype, fortran, data = state
    if isinstance(data, list):
        array.items.extend(data)
    return _numpy(data, dtype, shape, "F" if fortran else "C")


def _from_buffer(_: Machine, args: tuple[Any, ...]) -> Any:  # noqa: ANN401
    data, dtype, shape, order = args
    return _numpy(data, dtype, shape, "F" if order == "F" else "C")


def _numpy(data: Any, dtype: Any, shape: Any, order: Any) -> Any:  # noqa: ANN401
    if not isinstance(data, bytes | bytearray) or not isinstance(dtype, np.dtype):
        return None
    if not is_sizes(shape) or math.prod(shape) * dtype.itemsize != len(data):
        raise RefusedPickle(f"an array of shape {shown(shape)} in {len(data)} bytes")
    if not data:
        return np.empty(shape, dtype)
    return np.frombuffer(data, dtype).reshape(shape, order=order)


def _finish_dtype(_: Machine, made: Inert, state: Any) -> Any:  # noqa: ANN401
    code, order = made.args[0], state[1]
    plain = isinstance(code, str) and code[:1] in ("b", "i", "u", "f", "c", "S", "U")
    if not plain or order not in ("<", ">", "|", "="):
        return None
    dtype = np.dtype(code) if code[1:].isdecimal() else np.dtype("O")
    return None if dtype.hasobject else dtype.newbyteorder(order)


def _scalar(_: Machine, args: tuple[Any, ...]) -> Any:  # noqa: ANN401
    dtype, data = args
    value = _numpy(data, dtype, (), "C")
    return None if value is None else value[()]


_TENSORS: dict[tuple[str, str], Maker] = {
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
}
_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")
MAKERS: dict[tuple[str, str], Maker] = {
    **_TENSORS,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): _retyped,
    ("torch", "Size"): lambda _, args: args[0] if is_sizes(args[0]) else None,
    ("collections", "OrderedDict"): _ordered,
    ("collections", "defaultdict"): lambda _, __: {},
    ("builtins", "set"): _set_of,
    ("__builtin__", "set"): _set_of,
    ("_codecs", "encode"): _encoded,
    ("builtins", "bytes"): lambda _, args: None if args else b"",
    ("__builtin__", "bytes"): lambda _, args: None if args else b"",
    ("copyreg", "_reconstructor"): _reconstructed,
    ("copy_reg", "_reconstructor"): _reconstructed,
    ("copyreg", "__newobj__"): _reconstructed,
    ("copy_reg", "__newobj__"): _reconstructed,
    **{(module, "_reconstruct"): _array for module in _NUMPY},
    **{(module, "scalar"): _scalar for module in _NUMPY},
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
}
FINISHERS = {("numpy", "ndarray"): _finish_array, ("numpy", "dtype"): _finish_dtype}
