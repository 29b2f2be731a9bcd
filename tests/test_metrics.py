"""The oracle is scikit-learn; GAUC's is a twin in plain Python."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from din_infer.errors import InputError
from din_infer.metrics import auc, gauc, log_loss

CLOSE = {"rel": 0, "abs": 1e-12}

# Few distinct scores, so that ties are the rule.
tied = st.integers(0, 6).map(lambda k: k / 6)
free = st.floats(0, 1)
rows = st.lists(
    st.tuples(st.integers(0, 1), st.one_of(tied, free), st.integers(-2, 3)),
    min_size=1,
    max_size=60,
)


def slow_auc(pairs: list[tuple[int, float]]) -> float:
    """Every click against every non-click."""
    up = [score for label, score in pairs if label]
    down = [score for label, score in pairs if not label]
    if not up or not down:
        return math.nan
    right = sum((a > b) + 0.5 * (a == b) for a, b in product(up, down))
    return right / (len(up) * len(down))


def slow_gauc(triples: list[tuple[int, float, int]]) -> float:
    total = weight = 0.0
    for group in {g for _, _, g in triples}:
        pairs = [(label, score) for label, score, g in triples if g == group]
        value = slow_auc(pairs)
        if not math.isnan(value):
            total += len(pairs) * value
            weight += len(pairs)
    return total / weight if weight else math.nan


@given(rows)
def test_auc_equals_scikit_learn(triples: list[tuple[int, float, int]]) -> None:
    labels, scores, _ = zip(*triples, strict=True)
    if len(set(labels)) < 2:
        assert math.isnan(auc(labels, scores))
    else:
        expected = sklearn_metrics.roc_auc_score(labels, scores)
        assert auc(labels, scores) == pytest.approx(expected, **CLOSE)


@given(rows)
def test_gauc_equals_its_slow_twin(triples: list[tuple[int, float, int]]) -> None:
    labels, scores, groups = zip(*triples, strict=True)
    expected = pytest.approx(slow_gauc(triples), nan_ok=True, **CLOSE)
    names = [f"user {g}" for g in groups]
    assert gauc(labels, scores, groups) == expected
    assert gauc(labels, scores, np.array(groups)) == expected
    assert gauc(labels, scores, names) == expected
    assert gauc(labels, scores, np.array(names)) == expected
    assert gauc(labels, scores, np.array(names, object)) == expected


@given(rows)
def test_log_loss_equals_scikit_learn(triples: list[tuple[int, float, int]]) -> None:
    labels, scores, _ = zip(*triples, strict=True)
    expected = sklearn_metrics.log_loss(labels, scores, labels=[0, 1])
    assert log_loss(labels, scores) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_log_loss_of_certain_scores_is_finite() -> None:
    expected = sklearn_metrics.log_loss([0, 1, 1], [1.0, 0.0, 1.0])
    assert log_loss([0, 1, 1], [1.0, 0.0, 1.0]) == pytest.approx(expected, **CLOSE)


def test_auc_is_exact_for_many_ties() -> None:
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 2, 50_000)
    scores = generator.integers(0, 100, 50_000).astype(np.float32)
    expected = sklearn_metrics.roc_auc_score(labels, scores)
    assert auc(labels, scores) == pytest.approx(expected, **CLOSE)
    assert abs(expected - 0.5) > 1e-5


def test_no_rows_is_nan() -> None:
    assert math.isnan(auc([], []))
    assert math.isnan(gauc([], [], []))
    assert math.isnan(log_loss([], []))


def test_infinite_logits_are_ordered() -> None:
    assert auc([0, 1, 1], [-math.inf, 0.0, math.inf]) == 1.0


def test_bool_and_float_labels_are_accepted() -> None:
    scores = [0.3, 0.2, 0.9]
    assert auc([True, False, True], scores) == auc([1.0, 0.0, 1.0], scores) == 1.0


def test_integer_and_text_groups_of_one_list_stay_apart() -> None:
    assert math.isnan(gauc([1, 0], [0.9, 0.1], [1, "1"]))


def test_uint64_groups_beyond_int64_stay_apart() -> None:
    groups = np.array([0, 2**64 - 1, 2**63], np.uint64)
    assert math.isnan(gauc([1, 0, 1], [0.9, 0.1, 0.5], groups))


def test_inputs_are_left_as_they_are() -> None:
    labels, scores = np.array([1, 0, 1]), np.array([0.1, 1.0, 0.0])
    groups = np.array(["b", "a", "b"])
    for array in (labels, scores, groups):
        array.flags.writeable = False
    auc(labels, scores)
    gauc(labels, scores, groups)
    log_loss(labels, scores)


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([1, 0], [0.5], "expected as many scores as labels (2), got 1 - at `scores`"),
        ([1, 2], [0.5, 0.5], "expected 0 or 1, got 2 - at `labels[1]`"),
        ([0, math.nan], [0.5, 0.5], "expected 0 or 1, got nan - at `labels[1]`"),
        ([0, 1], [0.5, math.nan], "expected a number, got nan - at `scores[1]`"),
        ([[0, 1]], [0.5, 0.5], "expected one dimension, got 2 - at `labels`"),
        (1, 0.5, "expected one dimension, got 0 - at `labels`"),
        ([0], ["a"], "expected numbers, got dtype <U1 - at `scores`"),
        ([0, None], [0.5, 0.5], "expected 0 or 1, got nan - at `labels[1]`"),
        (
            np.array([0, "a"], object),
            [0.5, 0.5],
            "expected numbers, got dtype object - at `labels`",
        ),
        (
            [[0], [0, 1]],
            [0.5, 0.5],
            "expected one number per row, got ragged lists - at `labels`",
        ),
    ],
)
def test_wrong_rows_are_named(labels: object, scores: object, message: str) -> None:
    for call in (auc, log_loss, lambda y, s: gauc(y, s, [0, 0])):
        with pytest.raises(InputError) as error:
            call(labels, scores)  # type: ignore[arg-type]
        assert str(error.value) == message


def test_log_loss_refuses_logits() -> None:
    with pytest.raises(InputError) as error:
        log_loss([0, 1], [0.5, 1.5])
    assert str(error.value) == (
        "expected a probability in [0, 1], got 1.5 - at `scores[1]`. "
        "Pass scores, not logits."
    )


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([1], "expected as many groups as labels (2), got 1 - at `groups`"),
        (
            [[1, 2]],
            "expected as many groups as labels (2), got shape (1, 2) - at `groups`",
        ),
        (["a", None], "expected an integer or a string, got None - at `groups[1]`"),
        (
            np.array([0.5, 1.0]),
            "expected integers or strings, got dtype float64 - at `groups`",
        ),
    ],
)
def test_wrong_groups_are_named(groups: object, message: str) -> None:
    with pytest.raises(InputError) as error:
        gauc([0, 1], [0.1, 0.2], groups)  # type: ignore[arg-type]
    assert str(error.value) == message


@pytest.mark.slow
def test_a_million_rows_in_many_groups_are_scored() -> None:
    generator = np.random.default_rng(2)
    labels = generator.integers(0, 2, 10**6)
    scores = generator.random(10**6)
    groups = np.char.mod("user%d", generator.integers(0, 10**5, 10**6))
    value = gauc(labels, scores, groups)
    assert abs(value - 0.5) < 0.01
