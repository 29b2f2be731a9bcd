"""Every pattern of public DINs: fused or left for its reason, and equal to torch.

Some are converted at one shape of the example each; DIN_PATTERNS=all (`make patterns`)
runs every pattern at all nine.
"""

import copy
import os
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils import _pytree as pytree

from din_converter.modules import Graph, export_module
from tests import ops
from tests.torch_patterns import OFTEN, PATTERNS, Pattern

pytestmark = pytest.mark.slow

SHAPES = [(n, t) for t in (1, 2, 10) for n in (1, 2, 8)]
ALL = os.environ.get("DIN_PATTERNS") == "all"
NAMES = [name for name in PATTERNS if ALL or name in OFTEN]
CASES = [
    (name, shape)
    for i, name in enumerate(NAMES)
    for j, shape in enumerate(SHAPES)
    if ALL or (4 * i) % len(SHAPES) == j
]
TOLERANCE = 1e-5


def _arrays(made: Any) -> list[NDArray[Any]]:  # noqa: ANN401
    return [t.detach().numpy() for t in pytree.tree_leaves(made)]


def truth(pattern: Pattern, graph: Graph, x: Any) -> list[NDArray[Any]]:  # noqa: ANN401
    """What torch gives in float64, or in float32 where a fill swallows a score."""
    single, double = copy.deepcopy(graph.module), copy.deepcopy(graph.module).double()
    wide = [v.double() if v.is_floating_point() else v for v in x]
    with torch.inference_mode():
        both = zip(_arrays(double(*wide)), _arrays(single(*x)), strict=True)
    out = []
    for exact, own in both:
        if exact.dtype.kind != "f":
            out.append(exact)
            continue
        with np.errstate(invalid="ignore"):
            apart = np.abs(exact - own) / np.maximum(1.0, np.abs(exact))
        swallowed = (apart > 1e-4) & pattern.swallows
        out.append(np.where(swallowed, own, exact))
    return out


def check(pattern: Pattern, graph: Graph, n: int, t: int) -> None:
    sessions = {
        "plain": ops.session(graph.plain.SerializeToString(), fused=False),
        "body": ops.session(graph.fused.SerializeToString(), fused=False),
        "native": ops.session(graph.fused.SerializeToString()),
    }
    rows = (n,) if "N" in pattern.fixed else (1, 2, 7, 64)
    lengths = (t,) if "T" in pattern.fixed else sorted({1, t, 2 * t + 3})
    seen_nan = False
    for rows_now in rows:
        for length in lengths:
            x = pattern.inputs(rows_now, length, 1)
            wanted = truth(pattern, graph, x)
            seen_nan |= any(np.isnan(w).any() for w in wanted)
            feeds = dict(zip(graph.names, (v.numpy() for v in x), strict=True))
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
    assert seen_nan == pattern.nan


@pytest.mark.parametrize(
    ("name", "shape"), CASES, ids=[f"{name}-{n}x{t}" for name, (n, t) in CASES]
)
def test_a_pattern_becomes_what_it_should_and_equals_torch(
    name: str, shape: tuple[int, int]
) -> None:
    pattern, (n, t) = PATTERNS[name], shape
    graph = export_module(pattern.make(), pattern.inputs(n, t, 0))
    found = {(b.part, b.reason) for b in graph.blocks}
    if t > 1 or "T" not in pattern.fixed:
        expected = (
            {(pattern.fused, pattern.reason)} if pattern.fused is not None else set()
        )
        assert found == expected
    said = " ".join(graph.notes)
    assert ("fixes the batch" in said) == ("N" in pattern.fixed)
    check(pattern, graph, n, t)


def test_what_is_run_often_is_there() -> None:
    assert set(OFTEN) <= set(PATTERNS)
