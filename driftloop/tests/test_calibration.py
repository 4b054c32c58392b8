"""Calibration learns the statistics of a reference's own windows."""

import numpy as np
import pandas as pd
import pytest

from driftloop.drift.calibration import calibrate
from driftloop.drift.distances import DistanceName
from driftloop.drift.prepared_profile import PreparedProfile
from driftloop.drift.profile import DriftProfile
from driftloop.drift.scoring import score_window
from driftloop.drift.statistics import StatisticKey, statistic_keys
from driftloop.drift.window_length import MIN_INDEPENDENT_WINDOWS
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


def test_reference_that_is_too_small_for_single_windows_has_no_span() -> None:
    rows = MIN_INDEPENDENT_WINDOWS * WINDOW_ROWS - 30
    profile = calibrated(make_rows(rows, seed=1))
    assert (profile.spans, profile.reference_rows) == ([], rows)
    assert [(stretch.first_row, stretch.end_row) for stretch in profile.stretches] == [(0, rows)]
    assert profile.normally_constant_columns == set(COLUMN_TYPES)


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
    prepared = PreparedProfile.prepare(profile, reference)
    quiet, changed = make_rows(WINDOW_ROWS, seed=7), make_rows(WINDOW_ROWS, seed=7, shift=4)
    assert not score_window(profile, {1: prepared.statistics(quiet)}).alarm
    score = score_window(profile, {1: prepared.statistics(changed)})
    assert [(finding.column, finding.method) for finding in score.drifted_findings] == [("level", "psi")]


def test_drift_profile_without_distances_has_defaults() -> None:
    complete = calibrated(make_rows(13_000, seed=1))
    profile = DriftProfile.model_validate(complete.model_dump(exclude={"distances"}))
    assert statistic_keys(profile.column_types, profile.distances) == [
        StatisticKey(null.column, null.statistic) for null in complete.spans[0].null_distributions
    ]


def with_sensor_missing(rows: pd.DataFrame, first: int, end: int) -> pd.DataFrame:
    missing = rows.copy()
    missing.loc[first : end - 1, "sensor"] = np.nan
    return missing


def thresholds(profile: DriftProfile) -> dict[tuple[str, str], float]:
    span = profile.spans[0]
    return {(null.column, null.statistic): span.threshold(null) for null in span.null_distributions}


def test_bad_day_in_reference_blinds_its_own_statistic_only() -> None:
    """The color of one day widens the color's distance, and thresholds of all others stay nearly as they are."""
    rows = make_rows(13_000, seed=1)
    day = rows.assign(color=rows["color"].mask(rows.index.isin(range(5_000, 5_100)), "red"))
    good, bad = thresholds(calibrated(rows)), thresholds(calibrated(day))
    assert {key for key in good if bad[key] > 1.3 * good[key]} == {("color", "jensenshannon")}


def test_outage_in_reference_blinds_no_statistic() -> None:
    rows = make_rows(13_000, seed=1)
    good, bad = thresholds(calibrated(rows)), thresholds(calibrated(with_sensor_missing(rows, 5_000, 5_100)))
    assert bad == pytest.approx(good, rel=0.3)


def test_smallest_shifts_are_found_and_smaller_ones_are_not() -> None:
    reference = make_rows(20_000, seed=1)
    profile = calibrated(reference)
    prepared = PreparedProfile.prepare(profile, reference)
    for span in profile.spans:
        length = WINDOW_ROWS * span.windows
        shift = span.smallest_shifts["sensor"] * profile.standard_deviations["sensor"]
        found = {1.3: 0, 0.5: 0}
        for seed in range(40):
            window = make_rows(length, seed=100 + seed)
            for factor in found:
                shifted = window.assign(sensor=window["sensor"] + factor * shift)
                values = {
                    1: prepared.statistics(shifted.iloc[-WINDOW_ROWS:]),
                    span.windows: prepared.statistics(shifted),
                }
                found[factor] += any(
                    finding.column == "sensor" and finding.windows == span.windows
                    for finding in score_window(profile, values).drifted_findings
                )
        assert found[1.3] >= 36
        assert found[0.5] <= 10
    assert profile.spans[1].smallest_shifts["sensor"] < profile.spans[0].smallest_shifts["sensor"]


def test_smallest_shifts_of_other_distances_are_computed() -> None:
    profile = calibrated(make_rows(13_000, seed=1), sensor="hellinger")
    assert 0 < profile.spans[0].smallest_shifts["sensor"] < 2


def test_smallest_shift_of_column_without_values_is_left_out() -> None:
    profile = calibrated(make_rows(13_000, seed=1).assign(sensor=np.nan))
    assert set(profile.spans[0].smallest_shifts) == set(profile.standard_deviations) == {"level"}
