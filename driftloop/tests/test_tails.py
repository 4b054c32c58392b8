"""Tails of statistics and scores: known distributions, and extreme values that must not decide."""

import numpy as np
import pytest

from driftloop.drift.tails import (
    LASTING_SCORE,
    OVERLAP_GAIN,
    TAIL_SCALES,
    cross_standardized,
    fit_gumbel,
    forget_outages,
    largest_values,
    limit_to_lasting,
    score_threshold,
    widen,
)

MIN_SCALES = np.array([0.001])


def test_fit_gumbel_recovers_location_and_scale() -> None:
    values = np.random.default_rng(0).gumbel(2.0, 0.5, size=(50_000, 1))
    location, scale = fit_gumbel(values, MIN_SCALES)
    assert (location[0], scale[0]) == pytest.approx((2.0, 0.5), rel=0.02)


def test_fit_gumbel_ignores_missing_values() -> None:
    values = np.random.default_rng(0).gumbel(size=(1_000, 1))
    with_missing = np.concatenate([values, np.full((500, 1), np.nan)])
    np.testing.assert_allclose(fit_gumbel(with_missing, MIN_SCALES), fit_gumbel(values, MIN_SCALES))


@pytest.mark.parametrize(("size", "is_outage"), [(10.0, False), (100.0, True)])
def test_forget_outages_forgets_what_is_beyond_comparison_only(size: float, is_outage: bool) -> None:
    statistics = np.random.default_rng(0).gumbel(size=(400, 2))
    statistics[200:205, 0] = size
    starts = np.arange(400) * 10
    kept = forget_outages(statistics, starts, 50, np.full(2, 0.001))
    assert np.isnan(kept[195:206, 0]).all() == is_outage
    assert np.isnan(kept).sum() == (11 if is_outage else 0)


def test_widen_reaches_to_largest_value() -> None:
    statistics = np.array([[0.0, 0.0, np.nan], [60.0, 1.0, np.nan]])
    scales = widen(np.zeros(3), np.ones(3), largest_values(statistics))
    assert scales.tolist() == [60 / TAIL_SCALES, 1.0, 1.0]


@pytest.mark.parametrize("rate", [0.005, 0.025, 0.2])
def test_score_threshold_of_many_windows_is_quantile(rate: float) -> None:
    scores = np.random.default_rng(0).exponential(size=200_000)
    assert (scores > score_threshold(scores, rate, len(scores))).mean() == pytest.approx(rate, rel=0.1)


@pytest.mark.parametrize("rate", [0.005, 0.025])
def test_score_threshold_of_lighter_tail_is_on_the_safe_side(rate: float) -> None:
    scores = np.random.default_rng(0).gumbel(size=200_000)
    assert rate / 3 < (scores > score_threshold(scores, rate, len(scores))).mean() < rate


@pytest.mark.parametrize("windows", [20, 60])
def test_score_threshold_of_few_windows_keeps_rate_on_average(windows: int) -> None:
    """A quantile of 0.5 % cannot be estimated from 20 windows; the next window still exceeds it about so often."""
    scores = np.random.default_rng(0).exponential(size=(1_000, windows))
    thresholds = np.array([score_threshold(row, 0.005, windows / OVERLAP_GAIN) for row in scores])
    assert np.exp(-thresholds).mean() == pytest.approx(0.005, rel=0.5)


def test_score_threshold_does_not_depend_on_how_extreme_the_largest_scores_are() -> None:
    scores = np.sort(np.random.default_rng(0).gumbel(size=1_000))
    extreme = np.concatenate([scores[:-20], scores[-20:] + 50])
    assert score_threshold(extreme, 0.01, 100) == score_threshold(scores, 0.01, 100)


def test_score_threshold_of_equal_scores_is_the_score() -> None:
    assert score_threshold(np.full(100, 0.577), 0.01, 20) == 0.577


def test_cross_standardized_uses_other_folds() -> None:
    """A fold that is shifted is not measured by its own values, but its largest value widens the scale."""
    statistics = np.random.default_rng(0).gumbel(size=(400, 1))
    statistics[100:200] += 5
    starts = np.arange(400) * 10
    standardized = cross_standardized(statistics, starts, 10, MIN_SCALES)
    assert standardized[100:200].mean() > 3
    assert standardized.max() <= TAIL_SCALES
    assert standardized[:100].mean() < 1


def test_limit_to_lasting_keeps_statistics_that_the_latest_window_shows() -> None:
    standardized = np.array([9.0, 9.0, 0.5, 0.5])
    latest = np.array([LASTING_SCORE + 1, LASTING_SCORE - 1, LASTING_SCORE - 1, np.nan])
    assert limit_to_lasting(standardized, latest).tolist() == [9.0, LASTING_SCORE, 0.5, 0.5]
