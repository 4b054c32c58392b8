"""Statistics equal evidently's."""

import math

import numpy as np
import pandas as pd
import pytest
from evidently import DataDefinition, Dataset, Report
from evidently.legacy.calculations.stattests import (
    hellinger_stat_test,
    jensenshannon_stat_test,
    kl_div_stat_test,
    psi_stat_test,
    wasserstein_stat_test,
)
from evidently.legacy.core import ColumnType
from evidently.metrics import ValueDrift

from driftloop.drift.distances import DISTANCES, DistanceName
from driftloop.drift.statistics import StatisticKey, StatisticName, prepare_reference, window_statistics
from tests.support.synthetic_columns import COLUMN_TYPES, make_rows

EVIDENTLY_TESTS = {
    "wasserstein": wasserstein_stat_test,
    "jensenshannon": jensenshannon_stat_test,
    "psi": psi_stat_test,
    "kl_div": kl_div_stat_test,
    "hellinger": hellinger_stat_test,
}
TOLERANCE = 1e-12


@pytest.mark.parametrize(("column", "distance"), [("level", "wasserstein"), ("color", "jensenshannon")])
def test_window_statistics_equal_evidently_report(column: str, distance: StatisticName) -> None:
    reference, window = make_rows(2_000, seed=1), make_rows(500, seed=2, shift=0.5)
    window.loc[:40, column] = None
    definition = DataDefinition(numerical_columns=["level"], categorical_columns=["color"])
    metric = ValueDrift(column=column, method=distance)
    snapshot = Report([metric]).run(Dataset.from_pandas(window, definition), Dataset.from_pandas(reference, definition))
    (expected,) = [result.value for result in snapshot.metric_results.values()]
    values = window_statistics(prepare_reference(COLUMN_TYPES, reference), window)
    assert values[StatisticKey(column, distance)] == pytest.approx(expected, abs=TOLERANCE)


RANDOM = np.random.default_rng(0)
NUMBERS = {
    "normal": (RANDOM.normal(size=5_000), RANDOM.normal(size=1_000)),
    "ties": (RANDOM.integers(0, 10, 5_000), RANDOM.integers(-2, 12, 1_000)),
    "two constants": (np.ones(100), np.full(50, 3.0)),
    "the same constant": (np.ones(100), np.ones(50)),
    "one row": (RANDOM.normal(size=100), np.array([5.0])),
    "a reference of one row": (np.array([1.0]), RANDOM.normal(size=7)),
    "missing": (np.where(np.arange(900) % 3, RANDOM.normal(size=900), np.nan), RANDOM.normal(size=300)),
    "far from zero": (RANDOM.normal(size=1_000) + 1e12, RANDOM.normal(size=1_000) + 1e12),
    "huge": (RANDOM.normal(size=1_000) * 1e150, RANDOM.normal(size=1_000) * 1e150),
    "over many orders": (RANDOM.lognormal(0, 5, size=5_000), RANDOM.lognormal(0, 5, size=900)),
    "apart": (RANDOM.normal(size=500), RANDOM.normal(size=500) + 1e6),
    "infinite precision lost": (np.array([1e15, 1e15 + 1, 0.1]), np.array([0.3, 1e15])),
}


@pytest.mark.parametrize("distance", DISTANCES["number"])
@pytest.mark.parametrize(("reference", "window"), NUMBERS.values(), ids=NUMBERS)
def test_numeric_distance_equals_evidently(reference: np.ndarray, window: np.ndarray, distance: DistanceName) -> None:
    before, now = pd.Series(reference, dtype=float), pd.Series(window, dtype=float)
    expected = EVIDENTLY_TESTS[distance](before.dropna(), now.dropna(), ColumnType.Numerical, None).drift_score
    prepared = prepare_reference({"x": "number"}, before.to_frame("x"), {"x": distance})
    values = window_statistics(prepared, now.to_frame("x"))
    # Far from zero, rounding makes bins unequal, and evidently's hellinger divides by the width of each bin.
    tolerance = 1e-3 if distance == "hellinger" and abs(window).min() > 1e11 else TOLERANCE
    assert values[StatisticKey("x", distance)] == pytest.approx(expected, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("window", [[1.7e308] * 50, [-1.7e308] * 50, [1.7e308, -1.7e308], [math.inf]])
def test_distance_of_huge_numbers_is_huge_and_finite(window: list[float]) -> None:
    prepared = prepare_reference({"x": "number"}, pd.DataFrame({"x": np.linspace(0, 1, 100)}), {"x": "wasserstein"})
    distance = window_statistics(prepared, pd.DataFrame({"x": window}))[StatisticKey("x", "wasserstein")]
    assert 1e280 < distance < 1e300


@pytest.mark.parametrize("distance", DISTANCES["category"])
@pytest.mark.parametrize("seed", range(20))
def test_categorical_distance_equals_evidently(seed: int, distance: DistanceName) -> None:
    random = np.random.default_rng(seed)
    before = pd.Series([f"level {n}" for n in random.integers(0, 1 + seed * 3, 2_000)])
    now = pd.Series([f"level {n}" for n in random.integers(seed, 2 + seed * 4, 1 + seed * 20)])
    expected = EVIDENTLY_TESTS[distance](before, now, ColumnType.Categorical, None).drift_score
    prepared = prepare_reference({"x": "category"}, before.to_frame("x"), {"x": distance})
    values = window_statistics(prepared, now.to_frame("x"))
    # The square root of hellinger turns a rounding error of 1e-16 into 1e-8 where both sides are equal.
    assert values[StatisticKey("x", distance)] ** 2 == pytest.approx(expected**2, abs=TOLERANCE)


def test_window_statistics_of_window_without_values_are_nan_except_missing_rate() -> None:
    window = make_rows(100, seed=2).assign(level=np.nan, color=None)
    values = window_statistics(prepare_reference(COLUMN_TYPES, make_rows(2_000, seed=1)), window)
    assert math.isnan(values[StatisticKey("level", "wasserstein")])
    assert math.isnan(values[StatisticKey("color", "jensenshannon")])
    assert values[StatisticKey("level", "missing_rate_change")] == 1.0
    assert values[StatisticKey("color", "missing_rate_change")] == 1.0


@pytest.mark.parametrize("distance", DISTANCES["number"][1:])
@pytest.mark.parametrize("side", ["reference", "window"])
def test_binned_distance_is_nan_for_infinite_number(distance: DistanceName, side: str) -> None:
    """JSON can contain 1e999."""
    sides = {name: pd.DataFrame({"x": np.arange(100.0)}) for name in ("reference", "window")}
    sides[side].loc[7, "x"] = np.inf
    values = window_statistics(prepare_reference({"x": "number"}, sides["reference"], {"x": distance}), sides["window"])
    assert math.isnan(values[StatisticKey("x", distance)])
