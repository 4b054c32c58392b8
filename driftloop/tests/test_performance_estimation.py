"""Performance estimated from probabilities is the expectation over all outcomes that they allow."""

from itertools import product

import numpy as np
import pytest

from driftloop.evaluation.bootstrap import evaluate
from driftloop.evaluation.metric import BUILT_IN_METRICS
from driftloop.evaluation.metrics import roc_auc
from driftloop.evaluation.performance_estimation import estimate_performance
from driftloop.evaluation.targets import BINARY

RANDOM = np.random.default_rng(1)


def test_estimate_performance_is_expectation_over_all_outcomes() -> None:
    probabilities = np.array([0.1, 0.3, 0.3, 0.6, 0.9])
    outcomes = [np.array(bits, dtype=float) for bits in product((0, 1), repeat=5)]
    weights = [float(np.prod(np.where(y == 1, probabilities, 1 - probabilities))) for y in outcomes]
    estimate = estimate_performance(probabilities)
    for name in ("brier", "accuracy"):
        expected = sum(
            w * BUILT_IN_METRICS[name].compute(y, probabilities) for w, y in zip(weights, outcomes, strict=True)
        )
        assert estimate[name] == pytest.approx(expected, abs=1e-12)
    pairs = [y.sum() * (5 - y.sum()) for y in outcomes]
    concordant = [n * roc_auc(y, probabilities) if n else 0.0 for n, y in zip(pairs, outcomes, strict=True)]
    assert estimate["roc_auc"] == pytest.approx(np.dot(weights, concordant) / np.dot(weights, pairs), abs=1e-12)


def test_estimate_performance_holds_for_right_probabilities_only() -> None:
    probabilities = RANDOM.beta(1, 3, 20_000)
    estimate = estimate_performance(probabilities)
    days = np.repeat(np.arange(20), 1000)
    right = evaluate(BINARY, (RANDOM.random(20_000) < probabilities).astype(float), probabilities, days).metrics
    changed = evaluate(
        BINARY, (RANDOM.random(20_000) < (probabilities + 0.25) / 2).astype(float), probabilities, days
    ).metrics
    for name, value in estimate.items():
        assert value == pytest.approx(right[name].value, abs=0.015)
    assert estimate["roc_auc"] > changed["roc_auc"].high + 0.05
    assert estimate["brier"] < changed["brier"].low
