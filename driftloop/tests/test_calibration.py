"""Calibration learns the statistics of a reference's own windows."""

import numpy as np
import pandas as pd
import pytest

from driftloop.drift.calibration import (
    EULER_GAMMA,
    MAX_GRID,
    MIN_INDEPENDENT_WINDOWS,
    DriftProfile,
    InsufficientReference,
    calibrate,
)
from driftloop.drift.distances import DISTANCES, ColumnType, DistanceName
from driftloop.drift.scoring import score_window
from driftloop.drift.statistics import StatisticKey, prepare_reference, statistic_keys, window_statistics
from tests.support.synthetic_columns import COLUMN_TYPES, WINDOW_ROWS, days_of, make_rows


def calibrated(reference: pd.DataFrame, **distances: DistanceName) -> DriftProfile:
    return calibrate(
        reference,
        days_of(len(reference)),
        COLUMN_TYPES,
        window_rows=WINDOW_ROWS,
        false_alarm_rate=0.01,
        distances=distances,
    )


VALUES = {
    "ten values": lambda random, size: random.integers(0, 10, size) / 10,
    "many values": lambda random, size: random.integers(0, MAX_GRID // 2, size) / MAX_GRID,
    "as many as rows": lambda random, size: random.normal(size=size),
    "a long tail": lambda random, size: random.lognormal(0, 2, size),
}


@pytest.mark.parametrize("distance", DISTANCES["number"])
@pytest.mark.parametrize("values", VALUES)
def test_calibrated_location_and_scale_are_those_of_window_statistics(values: str, distance: DistanceName) -> None:
    """Calibration counts values by level, scoring sorts them: both must compute the same statistics."""
    frame = pd.DataFrame({"x": VALUES[values](np.random.default_rng(3), 8_000)})
    column_types: dict[str, ColumnType] = {"x": "number"}
    profile = calibrate(
        frame,
        days_of(len(frame)),
        column_types,
        window_rows=WINDOW_ROWS,
        false_alarm_rate=0.01,
        embargo_days=-3,
        distances={"x": distance},
    )
    prepared = prepare_reference(column_types, frame, profile.distances)
    starts = range(0, len(frame) - WINDOW_ROWS + 1, WINDOW_ROWS // 10)
    windows = (frame.iloc[start : start + WINDOW_ROWS] for start in starts)
    expected = np.array([list(window_statistics(prepared, window).values()) for window in windows])
    nulls = {null.statistic: null for null in profile.spans[0].null_distributions}
    for number, (_, statistic) in enumerate(statistic_keys(column_types, profile.distances)):
        mean = nulls[statistic].location + EULER_GAMMA * nulls[statistic].scale
        assert mean == pytest.approx(expected[:, number].mean(), rel=0.01, abs=1e-4)


def test_calibrate_rejects_small_reference_and_names_missing_rows() -> None:
    with pytest.raises(InsufficientReference, match="30 more rows"):
        calibrated(make_rows(MIN_INDEPENDENT_WINDOWS * WINDOW_ROWS - 30, seed=1))


def test_calibrate_leaves_out_span_for_which_reference_is_too_small() -> None:
    profile = calibrated(make_rows(MIN_INDEPENDENT_WINDOWS * WINDOW_ROWS * 2, seed=1))
    assert [span.windows for span in profile.spans] == [1]


def test_drift_profile_round_trips_through_json() -> None:
    profile = calibrated(make_rows(13_000, seed=1))
    assert DriftProfile.model_validate_json(profile.model_dump_json()) == profile


def test_calibrated_distances_are_used_for_windows() -> None:
    reference = make_rows(13_000, seed=1)
    stored = calibrated(reference, level="psi", color="hellinger").model_dump_json()
    profile = DriftProfile.model_validate_json(stored)
    prepared = prepare_reference(profile.column_types, reference, profile.distances)
    quiet, changed = make_rows(WINDOW_ROWS, seed=7), make_rows(WINDOW_ROWS, seed=7, shift=4)
    assert not score_window(profile, {1: window_statistics(prepared, quiet)}).alarm
    score = score_window(profile, {1: window_statistics(prepared, changed)})
    assert [(finding.column, finding.method) for finding in score.drifted_findings] == [("level", "psi")]


def test_drift_profile_without_distances_has_defaults() -> None:
    complete = calibrated(make_rows(13_000, seed=1))
    profile = DriftProfile.model_validate(complete.model_dump(exclude={"distances"}))
    assert statistic_keys(profile.column_types, profile.distances) == [
        StatisticKey(null.column, null.statistic) for null in complete.spans[0].null_distributions
    ]
