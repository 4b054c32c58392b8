"""The cumulated score finds changes that no window shows, and is quiet where nothing changes."""

from collections.abc import Callable, Sequence
from itertools import accumulate

import numpy as np
import pandas as pd
import pytest

from driftloop.drift.cumulated import (
    MAX_SUM,
    CumulatedCalibration,
    CumulatedScore,
    CumulatedState,
    cumulate,
)
from driftloop.drift.cumulated_calibration import calibrate_cumulated, simulate_limits
from driftloop.drift.distances import ColumnType
from driftloop.drift.window_length import MIN_INDEPENDENT_WINDOWS

ROWS = 200
Change = Callable[[pd.DataFrame], pd.Series]
COLUMN_TYPES: dict[str, ColumnType] = {"number": "number", "other": "number", "level": "category"}
REFERENCE_WINDOWS = 60


def made_rows(windows: int, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    count = windows * ROWS
    return pd.DataFrame(
        {
            "number": random.normal(size=count),
            "other": np.where(random.random(count) < 0.1, np.nan, random.exponential(size=count)),
            "level": np.array(["a", "b", "c", None], dtype=object)[random.choice(4, count, p=[0.6, 0.2, 0.15, 0.05])],
        }
    )


def calibrated(run_length: int = 200) -> CumulatedCalibration:
    calibration = calibrate_cumulated(made_rows(REFERENCE_WINDOWS, seed=1), COLUMN_TYPES, ROWS, run_length)
    assert calibration is not None
    return calibration


def scores_of(calibration: CumulatedCalibration, rows: pd.DataFrame) -> list[CumulatedScore]:
    windows = [rows.iloc[first : first + ROWS] for first in range(0, len(rows), ROWS)]
    first = cumulate(calibration, CumulatedState(), windows[0])
    return list(
        accumulate(windows[1:], lambda score, window: cumulate(calibration, score.state, window), initial=first)
    )


def alarms(scores: Sequence[CumulatedScore]) -> list[bool]:
    return [bool(score.changes) for score in scores]


def test_short_reference_has_no_cumulated_calibration() -> None:
    assert calibrate_cumulated(made_rows(MIN_INDEPENDENT_WINDOWS - 1, seed=1), COLUMN_TYPES, ROWS, 1_000) is None
    assert calibrate_cumulated(made_rows(MIN_INDEPENDENT_WINDOWS, seed=1), COLUMN_TYPES, ROWS, 1_000) is not None


def test_calibration_is_the_same_each_time_and_round_trips_through_json() -> None:
    first = calibrated()
    simulate_limits.cache_clear()
    assert calibrated() == first
    assert CumulatedCalibration.model_validate_json(first.model_dump_json()) == first


def test_limits_rise_with_the_run_length() -> None:
    limits = [max(each.limit for each in calibrated(run_length).statistics) for run_length in (50, 500, 5_000)]
    assert limits == sorted(set(limits))


def test_unchanged_windows_are_no_alarm_within_the_run_length() -> None:
    assert not any(alarms(scores_of(calibrated(run_length=1_000), made_rows(150, seed=2))))


@pytest.mark.parametrize(
    ("column", "change", "direction"),
    [
        ("number", lambda rows: rows["number"] + 0.15, "up"),
        ("number", lambda rows: rows["number"] - 0.15, "down"),
        ("other", lambda rows: rows["other"].mask(np.arange(len(rows)) % 20 == 0), "up"),
        ("level", lambda rows: rows["level"].mask(np.arange(len(rows)) % 10 == 0, "c"), "up"),
    ],
    ids=["up", "down", "missing", "level"],
)
def test_small_lasting_change_becomes_an_alarm_that_names_the_column(
    column: str, change: Change, direction: str
) -> None:
    rows = made_rows(60, seed=3)
    scores = scores_of(calibrated(), rows.assign(**{column: change(rows)}))
    first = alarms(scores).index(True)
    assert first >= 2
    largest = scores[first].changes[0]
    assert {change.column for change in scores[first].changes} == {column}
    assert largest.direction == direction
    assert 2 <= largest.windows <= first + 1
    assert all(alarms(scores)[first:])


def test_one_bad_window_is_no_alarm_and_alarms_end_after_the_change() -> None:
    calibration = calibrated(run_length=5_000)
    rows = made_rows(200, seed=4)
    one_bad = rows.assign(number=rows["number"].where(np.arange(len(rows)) // ROWS != 20, 1e300))
    assert not any(alarms(scores_of(calibration, one_bad)))
    over = rows.assign(number=rows["number"] + 3.0 * (np.arange(len(rows)) // ROWS < 80))
    scores = scores_of(calibration, over)
    assert alarms(scores)[79]
    assert max(score.score for score in scores) <= MAX_SUM
    assert not alarms(scores)[-1]


def test_windows_give_the_same_sums_after_a_state_was_stored() -> None:
    calibration = calibrated()
    rows = made_rows(12, seed=5)
    expected = scores_of(calibration, rows)
    state = CumulatedState()
    for number, first in enumerate(range(0, len(rows), ROWS)):
        window = rows.iloc[first : first + ROWS].sample(frac=1, random_state=number)
        state = CumulatedState.model_validate_json(cumulate(calibration, state, window).state.model_dump_json())
        assert state.windows == number + 1
        assert np.allclose(state.upward, expected[number].state.upward)
        assert state.downward_windows == expected[number].state.downward_windows


def test_state_of_another_reference_counts_as_none() -> None:
    window = made_rows(1, seed=6)
    foreign = CumulatedState(windows=9, upward=[5.0], downward=[0.0], upward_windows=[9], downward_windows=[0])
    assert cumulate(calibrated(), foreign, window) == cumulate(calibrated(), CumulatedState(), window)


def test_column_without_values_keeps_its_sums() -> None:
    calibration = calibrated()
    before = scores_of(calibration, made_rows(5, seed=7))[-1].state
    empty = made_rows(1, seed=8).assign(number=np.nan)
    after = cumulate(calibration, before, empty).state
    (number,) = [
        i for i, each in enumerate(calibration.statistics) if (each.column, each.statistic) == ("number", "mean_rank")
    ]
    assert (after.upward[number], after.downward[number]) == (before.upward[number], before.downward[number])


def test_reference_with_an_empty_and_a_constant_column_is_calibrated() -> None:
    rows = made_rows(30, seed=9).assign(number=np.nan, other=1.0, level="a")
    calibration = calibrate_cumulated(rows, COLUMN_TYPES, ROWS, 1_000)
    assert calibration is not None
    assert not any(alarms(scores_of(calibration, rows)))
    assert CumulatedCalibration.model_validate_json(calibration.model_dump_json()) == calibration
