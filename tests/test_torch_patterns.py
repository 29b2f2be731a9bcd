"""Every pattern of public DINs: fused or left for its reason, and equal to torch.

Some are converted at one shape of the example each; DIN_PATTERNS=all (`make patterns`)
runs every pattern at all nine, and as many random DINs as DIN_RANDOM_DINS says.
"""

import os

import pytest

from din_converter.modules import export_module
from tests.torch_patterns import OFTEN, PATTERNS
from tests.torch_proof import check
from tests.torch_random import Random, choices, inputs, packed

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


@pytest.mark.parametrize(
    ("name", "shape"), CASES, ids=[f"{name}-{n}x{t}" for name, (n, t) in CASES]
)
def test_a_pattern_becomes_what_it_should_and_equals_torch(
    name: str, shape: tuple[int, int]
) -> None:
    pattern, (n, t) = PATTERNS[name], shape
    graph = export_module(pattern.make(), pattern.inputs(n, t, 0))
    found = {(b.part, b.reason) for b in graph.blocks}
    if (t > 1 or "T" not in pattern.fixed) and (n > 1 or "N" not in pattern.fixed):
        expected = (
            {(pattern.fused, pattern.reason)} if pattern.fused is not None else set()
        )
        assert found == expected
    said = " ".join(graph.notes)
    assert ("fixes the batch" in said) == ("N" in pattern.fixed)
    nan = check(
        graph, pattern.inputs, shape, fixed=pattern.fixed, swallows=pattern.swallows
    )
    assert nan == pattern.nan


def test_what_is_run_often_is_there() -> None:
    assert set(OFTEN) <= set(PATTERNS)


SEEDS = range(int(os.environ.get("DIN_RANDOM_DINS", "300" if ALL else "4")))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_din_equals_torch(seed: int) -> None:
    o = choices(seed)
    shape = SHAPES[seed % len(SHAPES)]
    graph = export_module(Random(o), packed(o, inputs(o, *shape, 0)))
    assert all(b.fused or b.reason for b in graph.blocks)
    fixed = ("T",) if o["packing"] == "matrix" else ()
    check(
        graph,
        lambda n, t, s: packed(o, inputs(o, n, t, s)),
        shape,
        fixed=fixed,
        swallows="added" in o["masking"],
    )
