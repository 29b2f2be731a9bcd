"""The oracle is scikit-learn, or a twin in plain Python where it has none."""

import math
import pickle
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics
from sklearn.calibration import calibration_curve

from din_infer.errors import InputError
from din_infer.metrics import (
    CalibrationBin,
    ClickMetrics,
    ClickReport,
    GaucReport,
    auc,
    calibration_error,
    calibration_report,
    gauc,
    gauc_report,
    log_loss,
    rela_impr,
)

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


@given(rows, st.lists(st.integers(-(2**63), 2**63 - 1), min_size=6, unique=True))
def test_gauc_does_not_depend_on_how_groups_are_numbered(
    triples: list[tuple[int, float, int]], numbers: list[int]
) -> None:
    labels, scores, groups = zip(*triples, strict=True)
    names = np.array([numbers[g] for g in groups], np.int64)
    expected = repr(gauc_report(labels, scores, np.array(groups)))
    assert repr(gauc_report(labels, scores, names)) == expected


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
            np.ma.array([0, 1], mask=[0, 1]),
            [0.5, 0.5],
            "expected values without a mask, got a masked array - at `labels`",
        ),
        (
            [0, 1],
            np.ma.array([0.5, 0.5], mask=[0, 1]),
            "expected values without a mask, got a masked array - at `scores`",
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
    metrics = ClickMetrics()
    for batch in np.array_split(np.arange(10**6), 300):
        metrics.update(labels[batch], scores[batch], groups[batch])
    result = metrics.result()
    assert (result.gauc, result.auc) == (value, auc(labels, scores))


# ------------------------------------------------------------------------- weights

# Some rows count nothing; thirds are no floats.
weight = st.one_of(
    st.just(0.0), st.integers(1, 5).map(lambda k: k / 3), st.floats(1e-3, 1)
)
weighted_rows = st.lists(
    st.tuples(st.integers(0, 1), st.one_of(tied, free), weight),
    min_size=1,
    max_size=40,
)


def slow_weighted_auc(triples: list[tuple[int, float, float]]) -> float:
    """Every click against every non-click, in fractions."""
    exact = [(label, score, Fraction(weight)) for label, score, weight in triples]
    up = [row for row in exact if row[0]]
    down = [row for row in exact if not row[0]]
    pairs = sum((a[2] * b[2] for a, b in product(up, down)), Fraction(0))
    right = sum(
        (a[2] * b[2] * Fraction((a[1] > b[1]) + (a[1] >= b[1]), 2))
        for a, b in product(up, down)
    )
    return float(right / pairs) if pairs else math.nan


@given(weighted_rows)
def test_weighted_auc_equals_its_slow_twin(
    triples: list[tuple[int, float, float]],
) -> None:
    labels, scores, weights = zip(*triples, strict=True)
    expected = pytest.approx(slow_weighted_auc(triples), nan_ok=True, **CLOSE)
    assert auc(labels, scores, weights=weights) == expected


def slow_weighted_gauc(quads: list[tuple[int, float, int, float]]) -> float:
    """The groups one by one, in fractions."""
    total = mass = Fraction(0)
    for group in {g for _, _, g, _ in quads}:
        mine = [(label, score, w) for label, score, g, w in quads if g == group]
        value = slow_weighted_auc(mine)
        if not math.isnan(value):
            of_group = sum((Fraction(w) for _, _, w in mine), Fraction(0))
            total += of_group * Fraction(value)
            mass += of_group
    return float(total / mass) if mass else math.nan


grouped_rows = st.lists(
    st.tuples(st.integers(0, 1), st.one_of(tied, free), st.integers(-2, 3), weight),
    min_size=1,
    max_size=40,
)


@given(grouped_rows, st.sampled_from([1.0, 1e-300, 1e300]))
def test_weighted_gauc_equals_its_slow_twin(
    quads: list[tuple[int, float, int, float]], scale: float
) -> None:
    labels, scores, groups, weights = zip(*quads, strict=True)
    expected = pytest.approx(slow_weighted_gauc(quads), nan_ok=True, **CLOSE)
    scaled = np.array(weights) * scale
    assert gauc(labels, scores, groups, weights=scaled) == expected
    names = [f"user {g}" for g in groups]
    assert gauc(labels, scores, names, weights=scaled) == expected


@given(grouped_rows)
def test_gauc_leaves_out_rows_of_weight_zero(
    quads: list[tuple[int, float, int, float]],
) -> None:
    kept = [row for row in quads if row[3] > 0]
    some = tuple(zip(*kept, strict=True)) or ((), (), (), ())
    labels, scores, groups, weights = zip(*quads, strict=True)
    expected = gauc_report(*some[:3], weights=some[3])
    assert repr(gauc_report(labels, scores, groups, weights=weights)) == repr(expected)


def test_weights_of_one_and_whole_weights_keep_what_gauc_means() -> None:
    generator = np.random.default_rng(4)
    labels, scores, groups = generator.integers(0, [[2], [9], [30]], (3, 500))
    ones, times = np.ones(500), generator.integers(0, 4, 500)
    plain = gauc_report(labels, scores, groups)
    assert gauc(labels, scores, groups, weights=ones) == pytest.approx(plain.gauc)
    repeated = (np.repeat(column, times) for column in (labels, scores, groups))
    got = gauc(labels, scores, groups, weights=times)
    assert got == pytest.approx(gauc(*repeated), **CLOSE)
    assert abs(got - plain.gauc) > 1e-3


def test_a_group_of_tiny_weights_behind_one_of_large_ones_counts_rightly() -> None:
    labels, scores = [0, 1, 0, 0, 1, 0, 1], [1, 2, 2, 1, 2, 3, 2]
    groups, tiny = [0, 0, 0, 1, 1, 1, 1], 1e-250
    weights = [1, 1, 1, tiny, 3 * tiny, 2 * tiny, tiny]
    report = gauc_report(labels, scores, groups, weights=weights)
    assert report.groups_scored == 2
    assert report.gauc == 0.75
    assert gauc(labels[3:], scores[3:], groups[3:], weights=weights[3:]) == (
        pytest.approx(1 / 3, **CLOSE)
    )


@given(st.lists(st.floats(1e-3, 1), min_size=2, max_size=60))
def test_weights_never_lift_an_auc_above_one(weights: list[float]) -> None:
    labels = [row >= len(weights) // 2 for row in range(len(weights))]
    value = auc(labels, range(len(weights)), weights=weights)
    assert value == pytest.approx(1, **CLOSE)
    assert value <= 1
    assert rela_impr(value, 0.75) <= 100


@pytest.mark.parametrize("scale", [1.0, 1e-300, 1e300])
def test_weights_are_scikit_learns(scale: float) -> None:
    generator = np.random.default_rng(3)
    scores = generator.integers(0, 200, 3000) / 199
    labels = generator.random(3000) < scores
    weights = generator.random(3000) * (generator.random(3000) < 0.8)
    wanted_auc = sklearn_metrics.roc_auc_score(labels, scores, sample_weight=weights)
    wanted_loss = sklearn_metrics.log_loss(labels, scores, sample_weight=weights)
    scaled = weights * scale
    assert auc(labels, scores, weights=scaled) == pytest.approx(wanted_auc, **CLOSE)
    loss = log_loss(labels, scores, weights=scaled)
    assert loss == pytest.approx(wanted_loss, **CLOSE)
    assert abs(wanted_auc - auc(labels, scores)) > 1e-4
    assert abs(wanted_loss - log_loss(labels, scores)) > 1e-4


@given(rows, st.sampled_from(["quantile", "uniform"]), st.integers(1, 12))
def test_weights_of_one_change_nothing(
    triples: list[tuple[int, float, int]], strategy: str, num_bins: int
) -> None:
    labels, scores, _ = zip(*triples, strict=True)
    ones = np.ones(len(labels))
    assert str(auc(labels, scores, weights=ones)) == str(auc(labels, scores))
    expected = pytest.approx(log_loss(labels, scores), **CLOSE)
    assert log_loss(labels, scores, weights=ones) == expected
    reports = [
        calibration_report(
            labels, scores, num_bins=num_bins, strategy=strategy, weights=weights
        )
        for weights in (None, ones)
    ]
    assert repr(reports[0]) == repr(reports[1])


@given(weighted_rows)
def test_rows_of_weight_zero_are_as_good_as_absent(
    triples: list[tuple[int, float, float]],
) -> None:
    labels, scores, weights = zip(*triples, strict=True)
    kept = [row for row in triples if row[2] > 0]
    some = tuple(zip(*kept, strict=True)) or ((), (), ())
    for metric in (auc, log_loss, calibration_error):
        expected = metric(some[0], some[1], weights=some[2])
        got = metric(labels, scores, weights=weights)
        assert got == pytest.approx(expected, nan_ok=True, **CLOSE)


def test_whole_weights_are_repeated_rows() -> None:
    labels, scores, times = [0, 1, 1, 0], [0.2, 0.4, 0.4, 0.7], [3, 1, 2, 5]
    many = (np.repeat(labels, times), np.repeat(scores, times))
    assert auc(labels, scores, weights=times) == auc(*many)
    expected = pytest.approx(log_loss(*many), **CLOSE)
    assert log_loss(labels, scores, weights=times) == expected
    got = calibration_error(labels, scores, strategy="uniform", weights=times)
    expected = pytest.approx(calibration_error(*many, strategy="uniform"), **CLOSE)
    assert got == expected


def test_weights_that_are_all_zero_are_no_rows() -> None:
    for metric in (auc, log_loss, calibration_error):
        assert math.isnan(metric([0, 1], [0.1, 0.2], weights=[0, 0]))
        assert math.isnan(metric([], [], weights=[]))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1], "expected as many weights as labels (2), got 1 - at `weights`"),
        ([[1, 1]], "expected one dimension, got 2 - at `weights`"),
        (["a", "b"], "expected numbers, got dtype <U1 - at `weights`"),
        (
            [1, -0.5],
            "expected a finite weight of at least 0, got -0.5 - at `weights[1]`",
        ),
        (
            [math.nan, 1],
            "expected a finite weight of at least 0, got nan - at `weights[0]`",
        ),
        (
            [1, math.inf],
            "expected a finite weight of at least 0, got inf - at `weights[1]`",
        ),
    ],
)
def test_wrong_weights_are_named(weights: Any, message: str) -> None:  # noqa: ANN401
    with pytest.raises(InputError) as error:
        gauc([0, 1], [0.1, 0.2], [0, 0], weights=weights)
    assert str(error.value) == message
    for call in (auc, log_loss, calibration_error, calibration_report):
        with pytest.raises(InputError) as error:
            call([0, 1], [0.1, 0.2], weights=weights)
        assert str(error.value) == message
    metrics = ClickMetrics()
    with pytest.raises(InputError) as error:
        metrics.update([0, 1], [0.1, 0.2], weights=weights)
    assert str(error.value) == message


# -------------------------------------------------------------------- gauc_report


@given(rows)
def test_a_gauc_report_counts_what_is_left_out(
    triples: list[tuple[int, float, int]],
) -> None:
    labels, scores, groups = zip(*triples, strict=True)
    report = gauc_report(labels, scores, groups)
    kinds = {g: {label for label, _, h in triples if h == g} for g in groups}
    scored = {g for g, kind in kinds.items() if kind == {0, 1}}
    assert report.groups == len(kinds)
    assert report.groups_scored == len(scored)
    assert report.only_clicks == sum(kind == {1} for kind in kinds.values())
    assert report.no_clicks == sum(kind == {0} for kind in kinds.values())
    assert report.rows == len(triples)
    assert report.rows_scored == sum(g in scored for g in groups)
    assert str(report.gauc) == str(gauc(labels, scores, groups))


def test_a_gauc_report_of_no_rows_is_all_zero() -> None:
    report = gauc_report([], [], [])
    assert math.isnan(report.gauc)
    assert str(report) == (
        "GAUC nan of 0 of 0 groups (0 only clicks, 0 no clicks), 0 of 0 rows"
    )
    assert report == GaucReport(report.gauc, 0, 0, 0, 0, 0, 0)


# ---------------------------------------------------------------------- rela_impr


def test_rela_impr_is_the_papers() -> None:
    # DIN over BaseModel, as the paper has it for Amazon.
    assert round(rela_impr(0.8818, 0.8624), 2) == 5.35
    assert rela_impr(0.6, 0.75) == pytest.approx(-60, **CLOSE)
    assert rela_impr(0.7, 0.7) == 0
    assert math.isnan(rela_impr(math.nan, 0.7))
    assert math.isnan(rela_impr(0.7, math.nan))


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ((0.7, 0.5), "expected an AUC above 0.5, got 0.5 - at `base_auc`"),
        ((0.7, 0.4), "expected an AUC above 0.5, got 0.4 - at `base_auc`"),
        ((70, 0.6), "expected an AUC in [0, 1], got 70 - at `auc`"),
        ((0.7, -0.1), "expected an AUC in [0, 1], got -0.1 - at `base_auc`"),
    ],
)
def test_rela_impr_needs_a_base_above_chance(
    pair: tuple[float, float], message: str
) -> None:
    with pytest.raises(InputError) as error:
        rela_impr(*pair)
    assert str(error.value) == message


# -------------------------------------------------------------------- calibration


def slow_bins(scores: Sequence[float], num_bins: int, strategy: str) -> list[list[int]]:
    """Rows of each bin: above the edge below it, up to its own edge."""
    edges = [k / num_bins for k in range(1, num_bins)]
    if strategy == "quantile":
        edges = [float(np.quantile(scores, edge)) for edge in edges]
    edges = [-math.inf, *edges, math.inf]
    return [
        [row for row, score in enumerate(scores) if low < score <= high]
        for low, high in pairwise(edges)
    ]


# Scores that lie on the edges, which floats meet exactly.
exact = st.integers(0, 8).map(lambda k: k / 8)


@given(
    st.lists(st.tuples(st.integers(0, 1), exact, weight), min_size=1, max_size=40),
    st.sampled_from(["quantile", "uniform"]),
    st.sampled_from([1, 2, 4, 8, 16]),
)
def test_calibration_equals_its_slow_twin(
    triples: list[tuple[int, float, float]], strategy: str, num_bins: int
) -> None:
    labels, scores, weights = zip(*triples, strict=True)
    report = calibration_report(
        labels, scores, num_bins=num_bins, strategy=strategy, weights=weights
    )
    triples = [row for row in triples if row[2] > 0]
    if not triples:
        assert repr(report.bins) == "()"
        return
    gaps, shares = [], []
    found = iter(report.bins)
    for members in slow_bins([score for _, score, _ in triples], num_bins, strategy):
        if not members:
            continue
        bin_ = next(found)
        share = sum(triples[i][2] for i in members)
        score = sum(triples[i][2] * triples[i][1] for i in members) / share
        rate = sum(triples[i][2] * triples[i][0] for i in members) / share
        assert bin_.rows == len(members)
        assert bin_.mean_score == pytest.approx(score, **CLOSE)
        assert bin_.click_rate == pytest.approx(rate, **CLOSE)
        gaps.append(abs(score - rate))
        shares.append(share)
    assert next(found, None) is None
    error = sum(g * s for g, s in zip(gaps, shares, strict=True)) / sum(shares)
    assert report.error == pytest.approx(error, **CLOSE)
    assert report.max_error == pytest.approx(max(gaps), **CLOSE)
    clicks = sum(label * weight for label, _, weight in triples)
    ratio = (
        sum(score * weight for _, score, weight in triples) / clicks
        if clicks
        else math.nan
    )
    assert report.ratio == pytest.approx(ratio, nan_ok=True, rel=1e-12)


@pytest.mark.parametrize("strategy", ["quantile", "uniform"])
@pytest.mark.parametrize("num_bins", [1, 7, 10, 50])
@pytest.mark.parametrize("distinct", [5, 30, 10**9])
def test_bins_are_scikit_learns(strategy: str, num_bins: int, distinct: int) -> None:
    generator = np.random.default_rng(4)
    scores = (generator.integers(0, distinct, 5000) / (distinct - 1)) ** 3
    labels = generator.random(5000) < scores**1.5
    rates, means = calibration_curve(labels, scores, n_bins=num_bins, strategy=strategy)
    report = calibration_report(labels, scores, num_bins=num_bins, strategy=strategy)
    assert sum(b.rows for b in report.bins) == 5000
    np.testing.assert_allclose([b.mean_score for b in report.bins], means, 0, 1e-12)
    np.testing.assert_allclose([b.click_rate for b in report.bins], rates, 0, 1e-12)
    gaps = np.abs(rates - means)
    shares = [b.rows / 5000 for b in report.bins]
    assert report.error == pytest.approx(float(gaps @ shares), **CLOSE)
    assert report.max_error == pytest.approx(float(gaps.max()), **CLOSE)
    error = calibration_error(labels, scores, num_bins=num_bins, strategy=strategy)
    assert error == report.error > 0.01


def test_a_calibration_report_is_a_table() -> None:
    report = calibration_report([0, 0, 1, 1], [0.0, 0.25, 0.5, 1.0], num_bins=2)
    assert report.bins == (CalibrationBin(2, 0.125, 0.0), CalibrationBin(2, 0.75, 1.0))
    assert (report.error, report.max_error, report.ratio) == (0.1875, 0.25, 0.875)
    assert str(report).splitlines() == [
        "      rows  mean score  click rate",
        "         2     0.12500     0.00000",
        "         2     0.75000     1.00000",
        "error 0.18750, max error 0.25000, ratio 0.87500",
    ]


def test_calibration_of_no_rows_has_no_bins() -> None:
    report = calibration_report([], [])
    assert report.bins == ()
    assert math.isnan(report.error)
    assert math.isnan(report.max_error)
    assert math.isnan(report.ratio)


def test_calibration_without_clicks_has_an_error_and_no_ratio() -> None:
    report = calibration_report([0, 0], [0.25, 0.75])
    assert report.error == 0.5
    assert math.isnan(report.ratio)


def test_zeros_of_both_signs_share_a_bin_and_tie() -> None:
    assert len(calibration_report([0, 1], [-0.0, 0.0]).bins) == 1
    assert auc([0, 1], [-0.0, 0.0]) == auc([0, 1], [0.0, -0.0]) == 0.5
    assert gauc([0, 1], [0.0, -0.0], [7, 7]) == 0.5


def test_infinite_scores_tie_with_their_like() -> None:
    assert auc([0, 1, 1], [math.inf, math.inf, -math.inf]) == 0.25
    weights = [1, 3, 1]
    assert auc([0, 1, 1], [math.inf, math.inf, -math.inf], weights=weights) == 0.375


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"num_bins": 0},
            "expected a whole number of at least 1, got 0 - at `num_bins`",
        ),
        (
            {"num_bins": 2.5},
            "expected a whole number of at least 1, got 2.5 - at `num_bins`",
        ),
        (
            {"num_bins": True},
            "expected a whole number of at least 1, got True - at `num_bins`",
        ),
        (
            {"strategy": "even"},
            "expected 'quantile' or 'uniform', got 'even' - at `strategy`",
        ),
    ],
)
def test_wrong_bins_are_named(settings: dict[str, Any], message: str) -> None:
    for call in (calibration_error, calibration_report):
        with pytest.raises(InputError) as error:
            call([0, 1], [0.1, 0.2], **settings)
        assert str(error.value) == message


# ------------------------------------------------------------------- ClickMetrics


def one_shot(
    labels: Any,  # noqa: ANN401
    scores: Any,  # noqa: ANN401
    groups: Any = None,  # noqa: ANN401
    weights: Any = None,  # noqa: ANN401
) -> ClickReport:
    """What batches must come to."""
    calibration = calibration_report(labels, scores, weights=weights)
    return ClickReport(
        rows=len(labels),
        clicks=int(sum(labels)),
        auc=auc(labels, scores, weights=weights),
        gauc=None if groups is None else gauc(labels, scores, groups, weights=weights),
        log_loss=log_loss(labels, scores, weights=weights),
        calibration=calibration.ratio,
        calibration_error=calibration.error,
    )


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.one_of(tied, free), st.integers(-2, 3), weight),
        max_size=40,
    ),
    st.lists(st.integers(0, 40), max_size=5),
    st.booleans(),
    st.booleans(),
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from(["none", "numbers", "names", "both"]),
)
def test_batches_equal_the_whole_however_they_are_cut(
    whole: list[tuple[int, float, int, float]],
    cuts: list[int],
    use_weights: bool,
    merged: bool,
    dtype: type,
    kind: str,
) -> None:
    labels = np.array([row[0] for row in whole], np.int8)
    scores = np.array([row[1] for row in whole], dtype)
    groups: Any = {
        "none": None,
        "numbers": np.array([row[2] for row in whole], np.int64),
        "names": np.array([f"user {row[2]}" for row in whole], object),
        "both": [row[2] if row[2] % 2 else f"{row[2]}" for row in whole],
    }[kind]
    weights = np.array([row[3] for row in whole]) if use_weights else None
    expected = one_shot(labels, scores, groups, weights)
    metrics = ClickMetrics()
    edges = sorted(min(cut, len(whole)) for cut in cuts)
    for start, stop in pairwise([0, *edges, len(whole)]):
        batch = [None if c is None else c[start:stop] for c in (groups, weights)]
        if merged:
            other = ClickMetrics()
            other.update(labels[start:stop], scores[start:stop], *batch)
            metrics.merge(pickle.loads(pickle.dumps(other)))
        else:
            metrics.update(labels[start:stop], scores[start:stop], *batch)
    # repr compares NaN too, and every bit.
    assert repr(metrics.result()) == repr(expected)
    assert repr(metrics.result()) == repr(expected)


def test_nothing_at_all_is_a_result() -> None:
    result = ClickMetrics().result()
    assert repr(result) == repr(one_shot([], []))
    assert (result.rows, result.clicks, result.gauc) == (0, 0, None)


def test_more_rows_may_follow_a_result() -> None:
    metrics = ClickMetrics()
    metrics.update([1, 0], [0.9, 0.1], ["a", "b"])
    assert math.isnan(metrics.result().gauc)  # type: ignore[arg-type]
    metrics.update([0], [0.2], np.array(["a"]))
    assert metrics.result().gauc == 1.0


def test_merging_changes_one_side_only() -> None:
    one, other = ClickMetrics(), ClickMetrics()
    one.update([1, 0], [0.9, 0.1], ["a", "b"])
    other.update([0, 1], [0.95, 0.3], ["a", "c"])
    before = repr(other.result())
    one.merge(other)
    one.merge(ClickMetrics())
    expected = one_shot([1, 0, 0, 1], [0.9, 0.1, 0.95, 0.3], ["a", "b", "a", "c"])
    assert repr(one.result()) == repr(expected)
    assert repr(other.result()) == before
    one.merge(one)
    assert one.result().rows == 8


def test_rows_are_kept_in_as_few_bytes_as_promised() -> None:
    rng = np.random.default_rng(5)
    scores = rng.random(1000)
    labels, groups = rng.integers(0, 2, 1000), rng.integers(0, 9, 1000, np.int32)
    single = scores.astype(np.float32)
    for expected, arrays in (
        (5, (labels, single)),
        (9, (labels, scores)),
        (13, (labels, single, groups)),
        (17, (labels, single, groups, single)),
        (25, (labels, list(scores), groups, scores)),
    ):
        metrics = ClickMetrics()
        metrics.update(*arrays)
        (batch,) = metrics._batches
        assert sum(a.nbytes for a in batch if a is not None) == expected * 1000


def test_a_batch_is_copied() -> None:
    labels, scores = np.array([False, True]), np.array([0.5, 0.75])
    groups, weights = np.array([3, 3]), np.array([1.0, 2.0])
    metrics = ClickMetrics()
    metrics.update(labels, scores, groups, weights)
    expected = repr(metrics.result())
    for array in (labels, scores, groups, weights):
        array[:] = 1
    assert repr(metrics.result()) == expected


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (
            {"weights": [1.0]},
            "expected groups in every batch or in none, got a batch without"
            " - at `groups`",
        ),
        (
            {"groups": ["a"]},
            "expected weights in every batch or in none, got a batch without"
            " - at `weights`",
        ),
        (
            {"groups": [None], "weights": [1]},
            "expected an integer or a string, got None - at `groups[0]`",
        ),
        (
            {"groups": ["a"], "weights": [1], "scores": [1.5]},
            "expected a probability in [0, 1], got 1.5 - at `scores[0]`. "
            "Pass scores, not logits.",
        ),
    ],
)
def test_a_refused_batch_adds_nothing(second: dict[str, Any], message: str) -> None:
    metrics = ClickMetrics()
    metrics.update([0, 1], [0.1, 0.2], ["a", "a"], [1, 2])
    before = repr(metrics.result())
    with pytest.raises(InputError) as error:
        metrics.update(**{"labels": [0], "scores": [0.5]} | second)
    assert str(error.value) == message
    assert repr(metrics.result()) == before


def test_metrics_with_and_without_groups_do_not_merge() -> None:
    one, other = ClickMetrics(), ClickMetrics()
    one.update([0], [0.5])
    other.update([0], [0.5], ["a"])
    with pytest.raises(InputError) as error:
        one.merge(other)
    assert str(error.value) == (
        "expected groups in every batch or in none, got a batch with - at `groups`"
    )
    assert one.result().rows == 1
