"""Inputs of a graph that somebody else made: checked before the runtime sees them.

Letters: B requests, N candidates, T positions.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from din_infer.errors import InputError, ModelError
from din_infer.spec import FeatureSpec, Input

__all__ = ["check_encoded", "check_inputs", "read_inputs"]


def check_encoded(
    spec: FeatureSpec, inputs: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Check encoded inputs against the spec; returns copies in its order.

    Raises
    ------
    InputError
        Naming the input, the place and the value.
    """
    out = check_inputs(spec.inputs, inputs)
    for i in spec.inputs:
        array = out[i.name]
        if i.dtype == "float32" and not np.isfinite(array).all():
            where = [int(x) for x in np.argwhere(~np.isfinite(array))[0]]
            raise InputError("a finite number", array[tuple(where)], f"{i.name}{where}")
    longest = {i.lengths: out[i.name].shape[1] for i in spec.inputs if i.lengths}
    for name, most in longest.items():
        check_range(out[name], most + 1, f"a length in [0, {most}]", name)
    of_requests = (len(out[i.name]) for i in spec.inputs if i.shape[0] == "B")
    num_requests, name = next(of_requests, None), "request_of_candidate"
    if num_requests is not None:
        check_range(out[name], num_requests, f"a request in [0, {num_requests})", name)
    return out


def check_inputs(
    wanted: Sequence[Input], inputs: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Check names, dtypes, shapes and the range of ids; returns the inputs in order.

    Axes of one name must be equally long; axes that are formulas are left to the graph.
    The arrays are copies: what was checked must not change while a runtime follows it.

    Raises
    ------
    InputError
        Naming the input, the place and the value.
    """
    names = [i.name for i in wanted]
    for name in inputs:
        if name not in names:
            rule = "one of the inputs " + ", ".join(names)
            raise InputError(rule, repr(name), "inputs")
    sizes: dict[str, tuple[int, str]] = {}
    out: dict[str, NDArray[Any]] = {}
    for i in wanted:
        if i.name not in inputs:
            raise InputError(f"an input `{i.name}`", "none", "inputs")
        array = inputs[i.name]
        rule = f"a {i.dtype} array of shape {list(i.shape)}"
        if type(array) is not np.ndarray:
            raise InputError(rule, type(array).__name__, i.name)
        if array.dtype != np.dtype(i.dtype):
            raise InputError(rule, array.dtype, i.name)
        if array.ndim != len(i.shape):
            raise InputError(rule, f"shape {list(array.shape)}", i.name)
        for axis, size in zip(i.shape, array.shape, strict=True):
            known, other = sizes.setdefault(str(axis), (size, i.name))
            if isinstance(axis, int):
                known, other = axis, "spec"
            if size != known:
                rule = f"{known} along {axis}, as `{other}` has"
                raise InputError(rule, size, i.name)
        if i.fixed_length is not None and array.shape[1] != i.fixed_length:
            rule = f"T = {i.fixed_length}, since padding is attended"
            raise InputError(rule, array.shape[1], i.name)
        array = array.copy()
        if i.rows is not None:
            check_range(array, i.rows, f"an id in [0, {i.rows})", i.name)
        out[i.name] = array
    return out


def read_inputs(text: str, place: str) -> tuple[Input, ...]:
    """Read what a converted torch module says of its inputs.

    Raises
    ------
    ModelError
        If the text is not what din-convert writes.
    """
    try:
        return tuple(
            Input(
                str(i["name"]),
                np.dtype(i["dtype"]).name,
                tuple(n if isinstance(n, int) else str(n) for n in i["shape"]),
                None if i["rows"] is None else int(i["rows"]),
            )
            for i in json.loads(text)
        )
    except (LookupError, RecursionError, TypeError, ValueError) as error:
        rule = "a list of inputs: name, dtype, shape, rows"
        raise ModelError(rule, error, place) from None


def check_range(array: NDArray[Any], stop: int, rule: str, name: str) -> None:
    """Raise InputError unless every value lies in [0, stop)."""
    if array.size and (array.min() < 0 or array.max() >= stop):
        where = tuple(int(x) for x in np.argwhere((array < 0) | (array >= stop))[0])
        raise InputError(rule, array[where], f"{name}[{', '.join(map(str, where))}]")
