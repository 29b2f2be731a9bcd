"""A copy of a model that computes in another precision and shares its tables.

float64 represents every float32 and fp16 value, so converting a row when it is read
gives the row of the converted table: tables need no copy.
"""

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from din_converter.model import ClickModel

__all__ = ["Table", "computing_in"]

Model = TypeVar("Model", bound=ClickModel)


class Table(nn.Module):
    """A shared table, whose rows are converted to `dtype` when they are read.

    `weight` is no parameter, so that a conversion of the model leaves it alone.
    """

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight, self.dtype = weight, dtype

    def forward(self, ids: Tensor) -> Tensor:
        """Read rows: int64 of any shape to floats with one axis more."""
        return functional.embedding(ids, self.weight).to(self.dtype)


def computing_in(dtype: torch.dtype, model: Model) -> Model:
    """Copy a model all but its tables, to compute in `dtype` on the CPU.

    Parameters
    ----------
    dtype : torch.dtype
        Of all that is computed, and of all weights but those of tables.
    model : DIN or BaseModel
        Left as it is.

    Returns
    -------
    DIN or BaseModel
        In evaluation mode; its tables, its spec and what its derived fields look up are
        those of `model` where that is on the CPU.
    """
    tables = {
        key: type(t)(t.weight, dtype)
        if isinstance(t, Table)
        else Table(t.weight.detach().cpu(), dtype)  # type: ignore[operator]
        for key, t in model.tables.items()
    }
    shared: list[Any] = [model.spec, *model.lookups.buffers()]
    memo = {id(thing): thing for thing in shared}
    memo[id(model.tables)] = nn.ModuleDict(tables)
    return copy.deepcopy(model, memo).to("cpu", dtype).eval()
