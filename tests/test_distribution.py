import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from din_infer import distribution
from din_infer.distribution import Distribution

numbers = st.lists(st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf, 0.0]))


def distribution_of(values: Any, cuts: Any = (), **options: Any) -> Distribution:  # noqa: ANN401
    found = Distribution(**options)
    for part in np.split(np.array(values, np.float64), cuts):
        found.add(part)
    return found.finish()


def facts(found: Distribution) -> tuple[Any, ...]:
    counts = (found.count, found.missing, found.zeros, found.halvings)
    moments = (found.low, found.high, found.mean, found.std)
    return (*counts, *moments, *found.quantiles(20))


@given(numbers, st.lists(st.integers(0, 30)), st.integers(1, 7))
def test_a_distribution_equals_its_slow_twin(
    values: list[float], cuts: list[int], number: int
) -> None:
    found = distribution_of(values, sorted(cuts))
    there = sorted(v for v in values if math.isfinite(v))
    n = len(there)
    assert (found.count, found.missing) == (n, len(values) - n)
    assert found.zeros == there.count(0.0)
    assert len(found.quantiles(number)) == (number + 1 if n else 0)
    if not n:
        assert (found.mean, found.std, found.is_far) == (0.0, 0.0, False)
        return
    exact = sum(map(Fraction, there)) / n
    assert math.isclose(found.mean, exact, rel_tol=1e-12, abs_tol=1e-9)
    square = sum((Fraction(v) - exact) ** 2 for v in there) / n
    assert math.isclose(found.std, math.sqrt(square), rel_tol=1e-9, abs_tol=1e-9)
    for i, q in enumerate(found.quantiles(number)):
        enough = [v for v in there if sum(u <= v for u in there) * number >= i * n]
        assert q == (min(enough) if i else there[0])


@pytest.mark.parametrize("limit", [distribution.LIMIT, 3000])
def test_cuts_do_not_matter(limit: int) -> None:
    rng = np.random.default_rng(0)
    values = rng.lognormal(5, 1, 200_000)
    values[::7] = np.nan
    whole = distribution_of(values, limit=limit)
    cut = distribution_of(values, range(0, 200_000, 7919), limit=limit)
    assert facts(whole) == facts(cut)
    there = values[np.isfinite(values)]
    assert math.isclose(whole.mean, there.mean(), rel_tol=1e-13)
    assert math.isclose(whole.std, there.std(), rel_tol=1e-13)


def test_a_sample_is_bounded_and_even() -> None:
    limit = 4000
    values = np.random.default_rng(1).permutation(100_000).astype(float)
    found = distribution_of(values, limit=limit)
    assert found.halvings == 5
    ranks = np.array(found.quantiles(10)) / 99_999
    assert np.abs(ranks - np.arange(11) / 10).max() < 2 / math.sqrt(limit)
    assert (ranks[0], ranks[-1]) == (0, 1)


def test_a_constant_is_exact_however_it_rounds() -> None:
    found = distribution_of([0.1] * 100_003, [17, 70_000])
    assert (found.mean, found.std, found.is_constant) == (0.1, 0.0, True)


RNG = np.random.default_rng(2)


@pytest.mark.parametrize(
    ("values", "is_far", "has_heavy_tail"),
    [
        (RNG.uniform(5, 200, 9000), True, False),
        (RNG.normal(size=9000), False, False),
        (RNG.normal(size=9000) * 50, True, False),
        (RNG.uniform(0, 1, 9000), False, False),
        (RNG.uniform(0, 0.01, 9000), True, False),
        (RNG.exponential(20, 9000), True, False),
        (RNG.lognormal(3, 1.5, 9000), True, True),
        (np.r_[RNG.normal(size=9000), 1e4], True, True),
        (np.r_[RNG.normal(size=9000), -1e4], True, True),
        ((RNG.random(9000) < 0.05) * 1.0, False, False),
        (1.7e9 + RNG.uniform(0, 1e6, 9000), True, False),
        (np.full(9, 500.0), True, False),
        (np.zeros(9), False, False),
        ([], False, False),
    ],
)
def test_what_needs_a_scale_is_told(
    values: Any,  # noqa: ANN401
    is_far: bool,
    has_heavy_tail: bool,
) -> None:
    found = distribution_of(values)
    assert (found.is_far, found.has_heavy_tail) == (is_far, has_heavy_tail)
