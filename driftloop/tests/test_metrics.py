"""Metrics equal scikit-learn's, and are written the same way in every message."""

import math

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    log_loss,
    mean_absolute_error,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
)

from driftloop.evaluation.bootstrap import Interval
from driftloop.evaluation.metric import BUILT_IN_METRICS
from driftloop.evaluation.metric_names import (
    METRIC_LABELS,
    format_interval,
    format_metric,
    metric_label,
)
from driftloop.evaluation.metrics import are_probabilities, roc_auc

EXPECTED = {
    "roc_auc": roc_auc_score,
    "brier": brier_score_loss,
    "log_loss": log_loss,
    "accuracy": lambda y, p: accuracy_score(y, p >= 0.5),
    "rmse": root_mean_squared_error,
    "mae": mean_absolute_error,
    "r2": r2_score,
    "bias": lambda y, p: float(np.mean(p - y)),
}


@pytest.mark.parametrize("decimals", [16, 1], ids=["distinct", "ties"])
@pytest.mark.parametrize("metric", EXPECTED)
def test_metric_of_numbers_and_two_classes_equals_scikit_learn(metric: str, decimals: int) -> None:
    random = np.random.default_rng(1)
    predictions = random.random(500).round(decimals)
    outcomes = (random.random(500) < predictions).astype(float)
    expected = EXPECTED[metric](outcomes, predictions)
    assert BUILT_IN_METRICS[metric].compute(outcomes, predictions) == pytest.approx(expected, abs=1e-12)


def test_roc_auc_of_perfect_and_of_inverted_order() -> None:
    outcomes = np.array([0.0, 0.0, 1.0, 1.0])
    assert roc_auc(outcomes, np.array([0.1, 0.2, 0.8, 0.9])) == 1.0
    assert roc_auc(outcomes, np.array([0.9, 0.8, 0.2, 0.1])) == 0.0


def test_roc_auc_of_one_class_is_nan() -> None:
    assert math.isnan(roc_auc(np.ones(3), np.array([0.1, 0.2, 0.3])))


@pytest.mark.parametrize(
    ("predictions", "expected"),
    [([0.1, 0.9], True), ([0.0, 0.5, 1.0], True), ([0.0, 1.0], False), ([0.5, 1.1], False), ([0.5, np.nan], False)],
)
def test_are_probabilities(predictions: list[float], expected: bool) -> None:
    assert are_probabilities(np.array(predictions)) is expected


def test_every_metric_has_label_and_direction() -> None:
    assert set(METRIC_LABELS) == set(BUILT_IN_METRICS) == {*EXPECTED, "calibration_error"}
    assert {name for name, metric in BUILT_IN_METRICS.items() if metric.lower_is_better} == {
        "brier",
        "log_loss",
        "calibration_error",
        "rmse",
        "mae",
    }
    assert metric_label("gain_per_day") == "gain per day"


def test_format_metric_and_interval() -> None:
    assert format_metric("brier", 0.12345) == "0.1235"
    assert format_metric("rmse", 1234.5678, signed=True) == "+1235"
    assert format_interval("roc_auc", Interval(0.7121, 0.698, 0.726)) == "0.712 [0.698, 0.726]"
    assert format_interval("roc_auc", Interval(0.01, -0.02, 0.04), signed=True) == "+0.010 [-0.020, +0.040]"
