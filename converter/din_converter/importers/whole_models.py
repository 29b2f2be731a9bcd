"""A checkpoint of deepctr-torch or torch-rechub: a whole pickled model, or its weights.

A whole model's parts are read as data; weights alone need a description.
"""

import os
from collections.abc import Callable
from typing import Any

from torch import Tensor

from din_converter.importers.description import read_json
from din_converter.importers.state import bare_keys, weights_in
from din_converter.importers.unpickle import (
    Inert,
    module_state,
    read_pickle,
    state_dict_of,
)
from din_infer.errors import ConversionError

__all__ = ["children_of", "kind_of", "part_of", "read_checkpoint"]


def kind_of(value: object) -> str:
    """Name the kind of a loaded value, for an error."""
    return repr(value)[:100] if isinstance(value, Inert) else type(value).__name__


def _modules(module: object) -> dict[Any, Any]:
    found = module.attributes.get("_modules") if isinstance(module, Inert) else None
    return found if isinstance(found, dict) else {}


def part_of(module: object, *names: str) -> Inert | None:
    """Follow names down a pickled module; None where there is no such part."""
    for name in names:
        module = _modules(module).get(name)
    return module if isinstance(module, Inert) else None


def children_of(module: object) -> list[Inert]:
    """List the modules of a pickled module, in order."""
    return [m for m in _modules(module).values() if isinstance(m, Inert)]


def read_checkpoint(
    path: str | os.PathLike[str],
    description: str | os.PathLike[str] | None,
    describes: str,
    describe_model: Callable[[object, str], dict[str, Any]],
) -> tuple[Any, str, dict[str, Tensor]]:
    """Read a model's description, and its weights as the model itself names them.

    A training loop's ``{"state_dict": ..}`` and the prefixes of DataParallel,
    torch.compile and Lightning are taken off.

    Parameters
    ----------
    path : path
    description : path or None
        For a state_dict, and only for one.
    describes : str
        The subject of a description, for the error.
    describe_model : callable
        Derives the description of a whole model.

    Returns
    -------
    description, its place, state_dict

    Raises
    ------
    ConversionError
        If a file is wrong, or a description is missing or not needed.
    """
    place = os.fspath(path)
    loaded = read_pickle(path)
    tensors = state_dict_of(weights_in(loaded))
    if tensors is not None:
        if description is None:
            rule = f"a description of the {describes} beside a state_dict"
            fix = "Give it, or the whole model as torch.save(model, ...) writes it."
            raise ConversionError(rule, "none", place, fix)
        raw, place = read_json(description), os.fspath(description)
    else:
        if description is not None:
            rule = "a state_dict beside a description"
            raise ConversionError(rule, kind_of(loaded), place)
        if isinstance(loaded, Inert) and loaded.class_name == "DataParallel":
            loaded = part_of(loaded, "module")
        raw = describe_model(loaded, place)
        tensors = module_state(loaded)
    return raw, place, bare_keys(tensors)
