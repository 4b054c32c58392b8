"""Metrics and their differences equal a slow bootstrap, and their intervals cover the true value."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, brier_score_loss, roc_auc_score, root_mean_squared_error

from driftloop.evaluation.bootstrap import (
    Interval,
    as_gain,
    evaluate,
    paired_difference,
    unpaired_difference,
)
from driftloop.evaluation.metric import BINS, BUILT_IN_METRICS
from driftloop.evaluation.metrics import FloatArray, IntArray, roc_auc
from driftloop.evaluation.targets import BINARY, NUMBER
from driftloop.events import MetricEstimate

RANDOM = np.random.default_rng(1)


def correlated_days(
    days: int, rows: int, random: np.random.Generator = RANDOM
) -> tuple[FloatArray, FloatArray, IntArray]:
    """Return outcomes, predictions and days; each day has random effects that the predictions do not know."""
    day = np.repeat(np.arange(days), rows)
    logit = random.normal(-1, 1, days * rows)
    offset = random.normal(0, 1, days)[day]
    strength = 1 + random.normal(0, 0.5, days)[day]
    outcomes = (random.random(days * rows) < 1 / (1 + np.exp(-(strength * logit + offset)))).astype(float)
    return outcomes, 1 / (1 + np.exp(-logit)), day


def calibration_error(outcomes: FloatArray, predictions: FloatArray, weights: FloatArray) -> float:
    """Return the expected calibration error by its definition, bin by bin, with the bins of the unweighted rows."""
    edges = [-np.inf, *np.quantile(predictions, np.arange(1, BINS) / BINS), np.inf]
    total = 0.0
    for low, high in pairwise(edges):
        in_bin = (predictions >= low) & (predictions < high)
        if weights[in_bin].sum():
            predicted = np.average(predictions[in_bin], weights=weights[in_bin])
            observed = np.average(outcomes[in_bin], weights=weights[in_bin])
            total += weights[in_bin].sum() / weights.sum() * abs(predicted - observed)
    return total


EXPECTED: dict[str, Callable[[FloatArray, FloatArray, FloatArray], float]] = {
    "roc_auc": lambda y, p, w: float(roc_auc_score(y, p, sample_weight=w)),
    "brier": lambda y, p, w: float(brier_score_loss(y, p, sample_weight=w)),
    "accuracy": lambda y, p, w: float(accuracy_score(y, p >= 0.5, sample_weight=w)),
    "calibration_error": calibration_error,
}
"""Weighted metrics by scikit-learn and by definition."""


def rmse(outcomes: FloatArray, predictions: FloatArray, weights: FloatArray) -> float:
    return float(root_mean_squared_error(outcomes, predictions, sample_weight=weights))


@pytest.mark.parametrize("decimals", [16, 1], ids=["distinct", "ties"])
@pytest.mark.parametrize("name", EXPECTED)
def test_evaluate_equals_slow_bootstrap(name: str, decimals: int) -> None:
    outcomes, predictions, days = correlated_days(days=8, rows=40)
    predictions = predictions.round(decimals)
    evaluation = evaluate(BINARY, outcomes, predictions, days, resamples=60)
    drawn = np.random.default_rng(0).multinomial(8, np.full(8, 1 / 8), size=60).astype(float)
    resampled = [EXPECTED[name](outcomes, predictions, weights[days]) for weights in drawn]
    value = EXPECTED[name](outcomes, predictions, np.ones(len(days)))
    tail = stats.norm.cdf(-np.sqrt(8 / 7) * stats.t.ppf(0.975, 7))
    low, high = np.quantile(resampled, [tail, 1 - tail])
    if name == "calibration_error":
        low, high = max(0.0, 2 * value - high), max(0.0, 2 * value - low)
    assert tuple(evaluation.metrics[name].model_dump().values()) == pytest.approx((value, low, high), abs=1e-12)
    assert (evaluation.rows, evaluation.days, evaluation.resampling_unit) == (320, 8, "days")


def test_evaluate_numbers_by_rmse() -> None:
    predictions = RANDOM.normal(50, 20, 300)
    outcomes = predictions + RANDOM.normal(0, 5, 300)
    metrics = evaluate(NUMBER, outcomes, predictions, np.repeat(np.arange(10), 30)).metrics
    assert set(metrics) == {"rmse", "mae", "r2", "bias"}
    metric = metrics["rmse"]
    assert metric.value == pytest.approx(root_mean_squared_error(outcomes, predictions), abs=1e-12)
    assert 4 < metric.low < metric.value < metric.high < 6


def test_evaluate_leaves_out_undefined_metric() -> None:
    evaluation = evaluate(BINARY, np.zeros(100), RANDOM.random(100), np.repeat(np.arange(10), 10))
    assert set(evaluation.metrics) == {"brier", "accuracy", "calibration_error"}


def test_evaluate_leaves_out_infinite_metric() -> None:
    outcomes = np.append(np.ones(199), 1e200)
    evaluation = evaluate(NUMBER, outcomes, np.ones(200), np.arange(200) // 20)
    assert "rmse" not in evaluation.metrics
    assert evaluation.metrics["mae"].value == pytest.approx(5e197)


def test_evaluate_single_row() -> None:
    evaluation = evaluate(BINARY, np.ones(1), np.array([0.75]), np.zeros(1, dtype=np.int64))
    assert evaluation.metrics["brier"] == MetricEstimate(value=0.0625, low=0.0625, high=0.0625)


def test_evaluate_resamples_rows_if_days_are_too_few() -> None:
    outcomes, predictions, days = correlated_days(days=4, rows=250)
    evaluation = evaluate(BINARY, outcomes, predictions, days)
    assert (evaluation.resampling_unit, evaluation.days) == ("rows", 4)
    drawn = [RANDOM.integers(1000, size=1000) for _ in range(500)]
    low, high = np.quantile([roc_auc(outcomes[rows], predictions[rows]) for rows in drawn], [0.025, 0.975])
    metric = evaluation.metrics["roc_auc"]
    assert (metric.high - metric.low) / (high - low) == pytest.approx(1, abs=0.25)


def test_evaluate_intervals_cover_true_value_with_correlated_days() -> None:
    random = np.random.default_rng(2)
    outcomes, predictions, _ = correlated_days(days=4000, rows=50, random=random)
    truth = roc_auc(outcomes, predictions)

    covered = {"days": 0, "rows": 0}
    for _ in range(50):
        outcomes, predictions, days = correlated_days(days=20, rows=60, random=random)
        for blocks in (days, np.zeros_like(days)):  # with a single day, rows are resampled
            evaluation = evaluate(BINARY, outcomes, predictions, blocks, resamples=200)
            metric = evaluation.metrics["roc_auc"]
            covered[evaluation.resampling_unit] += metric.low <= truth <= metric.high
    assert covered["days"] >= 43
    assert covered["rows"] < 40


def test_evaluate_calibration_error_interval_reaches_zero_for_calibrated_probabilities() -> None:
    predictions = RANDOM.beta(2, 5, 2000)
    days = np.repeat(np.arange(20), 100)

    def lows(outcomes: Callable[[], FloatArray]) -> list[float]:
        return [evaluate(BINARY, outcomes(), predictions, days).metrics["calibration_error"].low for _ in range(20)]

    assert np.median(lows(lambda: (RANDOM.random(2000) < predictions).astype(float))) < 0.005
    assert np.median(lows(lambda: (RANDOM.random(2000) < predictions / 2).astype(float))) > 0.1


def test_unpaired_difference_combines_both_intervals() -> None:
    metric = MetricEstimate(value=0.7, low=0.66, high=0.73)
    difference = unpaired_difference(metric, MetricEstimate(value=0.75, low=0.71, high=0.78))
    assert difference == pytest.approx((-0.05, -0.05 - 0.05, -0.05 + 0.05))
    exact = MetricEstimate(value=0.75, low=0.75, high=0.75)
    assert unpaired_difference(metric, exact) == pytest.approx((-0.05, -0.09, -0.02))


def test_as_gain_flips_metrics_that_should_be_low() -> None:
    difference = Interval(1.0, -1.0, 4.0)
    assert as_gain(difference, lower_is_better=False) == difference
    assert as_gain(difference, lower_is_better=True) == (-1.0, -4.0, 1.0)


def two_models(
    days: int, rows: int, random: np.random.Generator
) -> tuple[FloatArray, FloatArray, FloatArray, IntArray]:
    """Return outcomes, the predictions of two models that are equally good in the long run, and days."""
    outcomes, predictions, day = correlated_days(days, rows, random)
    logit = np.log(predictions / (1 - predictions))

    def model() -> FloatArray:
        strength = 1 + random.normal(0, 0.5, days)[day]
        scores: FloatArray = 1 / (1 + np.exp(-(strength * logit + random.normal(0, 0.5, len(logit)))))
        return scores

    return outcomes, model(), model(), day


@pytest.mark.parametrize("name", ["roc_auc", "brier", "rmse"])
def test_paired_difference_equals_slow_bootstrap(name: str) -> None:
    outcomes, champion, challenger, days = two_models(8, 40, np.random.default_rng(4))
    expected = rmse if name == "rmse" else EXPECTED[name]
    difference = paired_difference(
        BUILT_IN_METRICS[name], outcomes, champion, challenger, days + 700, confidence=0.9, resamples=60
    )
    drawn = np.random.default_rng(0).multinomial(8, np.full(8, 1 / 8), size=60).astype(float)
    resampled = [expected(outcomes, challenger, w[days]) - expected(outcomes, champion, w[days]) for w in drawn]
    value = expected(outcomes, challenger, np.ones(320)) - expected(outcomes, champion, np.ones(320))
    half_width = stats.t.ppf(0.95, 7) * np.sqrt(8 / 7) * np.std(resampled, ddof=1)
    assert difference == pytest.approx((value, value - half_width, value + half_width), abs=1e-12)


def test_paired_difference_covers_true_value_with_few_correlated_days() -> None:
    """The true difference is 0. Intervals of resampled rows are shown to be too narrow."""
    random = np.random.default_rng(3)
    covered = {"days": 0, "rows": 0}
    for _ in range(100):
        outcomes, champion, challenger, days = two_models(12, 50, random)
        for unit, blocks in (("days", days), ("rows", np.arange(600) % 100)):
            difference = paired_difference(
                BUILT_IN_METRICS["roc_auc"], outcomes, champion, challenger, blocks, resamples=200
            )
            covered[unit] += difference.low <= 0 <= difference.high
    assert covered["days"] >= 90
    assert covered["rows"] < 75


def test_paired_difference_of_one_block_has_infinite_interval() -> None:
    outcomes, champion, challenger, _ = two_models(4, 50, np.random.default_rng(5))
    difference = paired_difference(
        BUILT_IN_METRICS["brier"], outcomes, champion, challenger, np.zeros(200, dtype=np.int64)
    )
    assert (difference.low, difference.high) == (-math.inf, math.inf)
    assert math.isfinite(difference.value)


def test_paired_difference_is_nan_if_metric_is_undefined() -> None:
    _, champion, challenger, days = two_models(4, 50, np.random.default_rng(6))
    assert all(
        map(math.isnan, paired_difference(BUILT_IN_METRICS["roc_auc"], np.zeros(200), champion, challenger, days))
    )


def test_paired_difference_of_model_and_itself_is_zero() -> None:
    outcomes, champion, _, days = two_models(4, 100, np.random.default_rng(7))
    assert paired_difference(BUILT_IN_METRICS["roc_auc"], outcomes, champion, champion, days) == pytest.approx(
        (0, 0, 0)
    )
