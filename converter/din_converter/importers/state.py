"""A foreign state_dict, taken key by key, and the model that its tensors fill.

An importer asks a `State` for every tensor it knows, by the library's key and the shape
that the description implies; `State.fill` gives them to a model built from a spec. What
is missing, misshapen or left over is one `ConversionError` that lists it all.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from din_converter.importers.description import refuse
from din_converter.model import ClickModel, fill, hollow_model
from din_infer.spec import FeatureSpec

__all__ = ["NORM", "State", "bare_keys", "padding_row", "weights_in"]

NORM = ("weight", "bias", "running_mean", "running_var")


# what training loops and torch.compile put around a model, and in front of its keys
HOLDERS = ("state_dict", "model_state_dict", "model", "net")
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")


def weights_in(content: object) -> object:
    """Take the state_dict out of a training loop's checkpoint, else what is given."""
    held = [content.get(k) for k in HOLDERS] if isinstance(content, Mapping) else []
    found = [
        value
        for value in held
        if isinstance(value, Mapping)
        and any(isinstance(v, Tensor) for v in value.values())
    ]
    return found[0] if found else content


def bare_keys(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Drop what stands in front of every key because the model was part of another."""
    found = dict(tensors)
    while prefix := next(
        (p for p in PREFIXES if found and all(k.startswith(p) for k in found)), ""
    ):
        found = {k.removeprefix(prefix): v for k, v in found.items()}
    return found


class State:
    """Tensors under a library's keys, each taken at most once.

    Parameters
    ----------
    tensors : dict of Tensor
        The library's state_dict.
    library : str
        As users write it, for the error.
    place : str
        The file, for the error.

    Attributes
    ----------
    weights : dict of Tensor
        What the importer has chosen, under the keys of the model's own state_dict.
    """

    def __init__(self, tensors: Mapping[str, Any], library: str, place: str) -> None:
        self._tensors = dict(tensors)
        self._library, self._place = library, place
        self._taken: set[str] = set()
        self._faults: list[str] = []
        self.weights: dict[str, Tensor] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._tensors

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys, in the checkpoint's order."""
        return tuple(self._tensors)

    def take(self, key: str, *shape: int) -> Tensor:
        """Return the tensor of a key as float32; zeros, and a fault, where it is wrong.

        `shape` is what the description implies; -1 fits any size.
        """
        self._taken.add(key)
        sizes = [max(n, 1) for n in shape]
        tensor = self._tensors.get(key)
        if tensor is None:
            self._faults.append(f"missing {key}")
            return torch.zeros(()).expand(sizes)
        if not isinstance(tensor, Tensor) or not tensor.dtype.is_floating_point:
            got = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            self._faults.append(f"{key} as floats, not {got}")
            return torch.zeros(()).expand(sizes)
        found = list(tensor.shape)
        fits = len(found) == len(shape) and all(
            n in (-1, m) for n, m in zip(shape, found, strict=True)
        )
        if not fits:
            wanted = "[" + ", ".join("any" if n == -1 else str(n) for n in shape) + "]"
            self._faults.append(f"{key} as {wanted}, not {found}")
            return torch.zeros(()).expand(sizes)
        return tensor.detach().to("cpu", torch.float32)

    def copy(self, ours: str, theirs: str, *shape: int) -> None:
        """Take the tensor of a key for one of `weights`."""
        self.weights[ours] = self.take(theirs, *shape)

    def copy_linear(self, ours: str, theirs: str, units: int, width: int) -> None:
        """Take a linear layer's weight [units, width] and bias [units]."""
        self.copy(f"{ours}.weight", f"{theirs}.weight", units, width)
        self.copy(f"{ours}.bias", f"{theirs}.bias", units)

    def copy_norm(
        self, ours: str, theirs: str, units: int, parts: Sequence[str] = NORM
    ) -> None:
        """Take the `parts` of a batch normalization, each [units]."""
        for part in parts:
            self.copy(f"{ours}.{part}", f"{theirs}.{part}", units)
        self.ignore(f"{theirs}.num_batches_tracked")

    def ignore(self, key: str) -> None:
        """Leave a key out on purpose, whether it is there or not."""
        self._taken.add(key)

    def fault(self, text: str) -> None:
        """Note something else that is wrong, for the one error of `finish`."""
        self._faults.append(text)

    def fill(self, spec: Mapping[str, Any]) -> ClickModel:
        """Build the model of a spec and fill it; it is in evaluation mode.

        Parameters
        ----------
        spec : dict
            A feature spec, as `FeatureSpec.from_dict` takes it. `weights` has all keys
            of its model's state_dict but ``num_batches_tracked``; a tensor of one value
            (a single slope or alpha) is repeated for its units.

        Raises
        ------
        ConversionError
            If anything was wrong, or a key was not asked for.
        """
        faults = [
            *self._faults,
            *(f"unknown {k}" for k in self._tensors if k not in self._taken),
        ]
        rule = f"the weights of a {self._library} DIN as described"
        refuse(rule, faults, self._place)
        model = hollow_model(FeatureSpec.from_dict(dict(spec)))
        state = model.state_dict()
        counts = (k for k in state if k.endswith(".num_batches_tracked"))
        given = {k: torch.zeros((), dtype=torch.int64) for k in counts}
        for key, value in self.weights.items():
            wanted = state[key].shape
            single = value.numel() == 1
            given[key] = value.reshape(() if single else wanted).expand(wanted)
        return fill(model, given)


def padding_row(table: Tensor) -> str:
    """Say of a table what a spec does: row 0 is "zero", or "trained"."""
    return "zero" if len(table) and not table[0].any() else "trained"
