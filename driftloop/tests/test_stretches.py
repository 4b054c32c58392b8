"""Stretches of a reference: abrupt changes are found where they are, and windows are judged by the nearest stretch."""

import numpy as np
import pandas as pd
import pytest

from driftloop.drift.calibration import calibrate
from driftloop.drift.distances import DISTANCES
from driftloop.drift.prepared_profile import PreparedProfile, stretch_rows
from driftloop.drift.profile import DriftProfile
from driftloop.drift.scoring import score_window
from driftloop.drift.stretches import cut, find_changes
from driftloop.drift.window_counts import count_column
from tests.support.synthetic_columns import COLUMN_TYPES, WINDOW_ROWS, days_of, make_rows

ROWS = 16_000
CHANGE_ROW = 9_070


def changes_of(rows: pd.DataFrame) -> list[int]:
    columns = {
        column: count_column(rows[column], column_type, DISTANCES[column_type][0], WINDOW_ROWS)
        for column, column_type in COLUMN_TYPES.items()
    }
    return find_changes(columns, len(rows), WINDOW_ROWS)


def changed(rows: pd.DataFrame, kind: str, row: int = CHANGE_ROW) -> pd.DataFrame:
    after = np.arange(len(rows)) >= row
    if kind == "shift":
        return rows.assign(sensor=rows["sensor"] + after)
    if kind == "scale":
        return rows.assign(sensor=rows["sensor"] * (1 + after))
    if kind == "missing":
        return rows.assign(sensor=rows["sensor"].mask(after & (np.arange(len(rows)) % 5 == 0)))
    return rows.assign(color=rows["color"].mask(after & (rows["color"] == "red"), "purple"))


def mixed_reference() -> pd.DataFrame:
    return changed(changed(make_rows(ROWS, seed=1), "shift"), "renamed")


def calibrated(reference: pd.DataFrame) -> DriftProfile:
    return calibrate(
        reference, days_of(len(reference)), COLUMN_TYPES, window_rows=WINDOW_ROWS, false_alarm_rate=0.01, embargo_days=1
    )


@pytest.mark.parametrize("kind", ["shift", "scale", "missing", "renamed"])
def test_find_changes_finds_row_of_change(kind: str) -> None:
    (row,) = changes_of(changed(make_rows(ROWS, seed=1), kind))
    assert abs(row - CHANGE_ROW) <= WINDOW_ROWS // 5


def test_find_changes_finds_two_changes() -> None:
    rows = changed(changed(make_rows(ROWS, seed=1), "shift", 5_000), "shift", 11_000)
    first, second = sorted(changes_of(rows))
    assert abs(first - 5_000) <= WINDOW_ROWS // 5
    assert abs(second - 11_000) <= WINDOW_ROWS // 5


@pytest.mark.parametrize("seed", range(5))
def test_find_changes_finds_none_where_nothing_changed(seed: int) -> None:
    assert changes_of(make_rows(ROWS, seed=seed)) == []


def test_find_changes_does_not_cut_a_slow_change() -> None:
    rows = make_rows(ROWS, seed=1)
    assert changes_of(rows.assign(sensor=rows["sensor"] + np.linspace(0, 2, ROWS))) == []


def test_find_changes_of_short_reference_finds_none() -> None:
    assert changes_of(changed(make_rows(WINDOW_ROWS * 30, seed=1), "shift", WINDOW_ROWS * 15)) == []


def test_cut_leaves_out_rows_that_may_lie_on_the_other_side() -> None:
    assert cut(1_000, [700, 400], 100) == [(0, 380), (420, 680), (720, 1_000)]


def test_reference_of_two_worlds_is_cut_and_as_sensitive_as_one() -> None:
    reference = mixed_reference()
    mixed, before = calibrated(reference), calibrated(make_rows(ROWS, seed=1))
    assert [(stretch.first_row, stretch.end_row) for stretch in before.stretches] == [(0, ROWS)]
    first, second = mixed.stretches
    assert first.end_row <= CHANGE_ROW <= second.first_row
    for span, span_before in zip(mixed.spans, before.spans, strict=True):
        assert span.smallest_shifts["sensor"] <= 1.2 * span_before.smallest_shifts["sensor"]


def test_window_like_either_world_is_no_alarm_and_a_mixture_is() -> None:
    """A window is judged by the nearest stretch; one that has a column of each world is like neither."""
    reference = mixed_reference()
    profile = calibrated(reference)
    prepared = PreparedProfile.prepare(profile, reference)
    old = make_rows(WINDOW_ROWS, seed=7)
    new = changed(changed(old, "shift", 0), "renamed", 0)
    scores = [score_window(profile, {1: prepared.statistics(window)}) for window in (old, new)]
    assert [score.alarm for score in scores] == [False, False]
    assert [score.spans[0].stretch for score in scores] == [0, 1]
    assert score_window(profile, {1: prepared.statistics(changed(old, "shift", 0))}).alarm


def test_stretch_rows_of_evenly_spaced_rows_are_those_of_the_stretches() -> None:
    reference = mixed_reference()
    profile = calibrated(reference)
    stored = reference.iloc[np.linspace(0, ROWS - 1, 5_000).astype(int)]
    for stretch, rows in zip(profile.stretches, stretch_rows(profile, stored), strict=True):
        assert stretch.first_row <= rows.index.min() < stretch.first_row + 5
        assert stretch.end_row - 5 < rows.index.max() < stretch.end_row
