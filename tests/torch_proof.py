"""An exported module against torch in float64: plain, by function bodies, natively."""

import copy
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import _pytree as pytree

from din_converter.modules import Graph
from tests import ops

__all__ = ["check"]

TOLERANCE = 1e-5


def _arrays(made: Any) -> list[NDArray[Any]]:  # noqa: ANN401
    leaves = [t for t in pytree.tree_leaves(made) if isinstance(t, Tensor)]
    return [t.detach().numpy() for t in leaves]


def truth(graph: Graph, x: Any, *, swallows: bool) -> list[NDArray[Any]]:  # noqa: ANN401
    """What torch gives in float64, or in float32 where a fill swallows a score."""
    single, double = copy.deepcopy(graph.module), copy.deepcopy(graph.module).double()
    wide = pytree.tree_map(lambda v: v.double() if v.is_floating_point() else v, x)
    with torch.inference_mode():
        both = zip(
            _arrays(double(*copy.deepcopy(wide))),
            _arrays(single(*copy.deepcopy(x))),
            strict=True,
        )
    out = []
    for exact, own in both:
        if exact.dtype.kind != "f":
            out.append(exact)
            continue
        with np.errstate(invalid="ignore"):
            apart = np.abs(exact - own) / np.maximum(1.0, np.abs(exact))
        out.append(np.where((apart > 1e-4) & swallows, own, exact))
    return out


def check(
    graph: Graph,
    inputs: Callable[[int, int, int], Any],
    shape: tuple[int, int],
    *,
    fixed: Collection[str] = (),
    swallows: bool = False,
) -> bool:
    """Compare at N = 1, 2, 7, 64 and several T, the example's among them.

    Returns
    -------
    bool
        Whether torch gave NaN anywhere.
    """
    n, t = shape
    sessions = {
        "plain": ops.session(graph.plain.SerializeToString(), fused=False),
        "body": ops.session(graph.fused.SerializeToString(), fused=False),
        "native": ops.session(graph.fused.SerializeToString()),
    }
    rows = (n,) if "N" in fixed else (1, 2, 7, 64)
    lengths = (t,) if "T" in fixed else sorted({1, t, 2 * t + 3})
    seen_nan = False
    for rows_now in rows:
        for length in lengths:
            x = inputs(rows_now, length, 1)
            wanted = truth(graph, x, swallows=swallows)
            seen_nan |= any(
                bool(np.isnan(w).any()) for w in wanted if w.dtype.kind == "f"
            )
            tensors = [v for v in pytree.tree_leaves(x) if isinstance(v, Tensor)]
            feeds = dict(zip(graph.names, (v.numpy() for v in tensors), strict=True))
            for way, session in sessions.items():
                for got, right in zip(session.run(None, feeds), wanted, strict=True):
                    place = f"{way}, N = {rows_now}, T = {length}"
                    assert got.shape == right.shape, place
                    with np.errstate(invalid="ignore"):
                        apart = np.abs(got - right) / np.maximum(1.0, np.abs(right))
                    same = (got == right) | (np.isnan(got) & np.isnan(right))
                    assert (same | (apart <= TOLERANCE)).all(), (
                        place,
                        np.nanmax(apart),
                    )
    return seen_nan
