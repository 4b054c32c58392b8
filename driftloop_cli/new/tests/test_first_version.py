"""The first version gets most rows, and windows that these rows can calibrate."""

from datetime import date, timedelta

import pandas as pd
import pytest

from driftloop.drift.window_length import choose_window_rows
from driftloop.errors import InvalidInput
from driftloop_cli.new.first_version import choose_first_version
from driftloop_cli.new.readme import retrain_day


def days(count: int, rows_a_day: int) -> pd.Series:
    return pd.Series(pd.date_range("2026-01-01", periods=count).repeat(rows_a_day))


def target(rows: int) -> pd.Series:
    return pd.Series([0, 1] * rows)[:rows]


def test_large_table_needs_no_settings() -> None:
    chosen = choose_first_version(days(100, 400), target(40_000))
    assert (chosen.base_end, chosen.rows, chosen.settings) == (date(2026, 3, 12), 28_000, {})


def test_small_table_gets_shorter_windows() -> None:
    chosen = choose_first_version(days(100, 50), target(5_000))
    assert chosen.settings == {}
    assert any("windows of 150 rows" in note for note in chosen.notes)
    assert chosen.base_end is not None
    assert chosen.end == date(2026, 4, 11)


def test_rare_rows_get_windows_that_stay_open() -> None:
    chosen = choose_first_version(days(400, 3), target(1_200))
    rows, seconds = choose_window_rows(chosen.rows), int(chosen.settings["DRIFTLOOP_WINDOW__MAX_AGE_SECONDS"])
    assert seconds >= 86_400 * rows / 3
    (note,) = [note for note in chosen.notes if "DRIFTLOOP_WINDOW__MAX_AGE_SECONDS" in note]
    assert f"{seconds // 86_400} days" in note
    assert f"{rows} rows take about {rows / 3:.0f}" in note


def test_short_stream_gets_a_short_holdout() -> None:
    settings = choose_first_version(days(20, 1_000), target(20_000)).settings
    assert settings["DRIFTLOOP_GATE__HOLDOUT_DAYS"] == settings["DRIFTLOOP_GATE__MIN_HOLDOUT_DAYS"] == "3"


@pytest.mark.parametrize(("days_to_stream", "days_before"), [(20, 20), (31, 31), (32, 16), (51, 25), (110, 30)])
def test_rows_of_later_days_are_left_for_the_version_that_a_retrain_makes(
    days_to_stream: int, days_before: int
) -> None:
    begin = date(2026, 3, 12)
    assert (retrain_day(begin, begin + timedelta(days=days_to_stream)) - begin).days == days_before


@pytest.mark.parametrize(
    ("day_count", "rows_a_day"), [(1, 5_000), (400, 1)], ids=["rows of one day", "too few rows to leave any out"]
)
def test_first_version_gets_all_rows_that_cannot_be_divided(day_count: int, rows_a_day: int) -> None:
    chosen = choose_first_version(days(day_count, rows_a_day), target(day_count * rows_a_day))
    assert (chosen.base_end, chosen.rows) == (None, day_count * rows_a_day)


def test_first_version_gets_all_rows_if_a_class_comes_late() -> None:
    assert choose_first_version(days(100, 50), pd.Series([0, 1] * 2_450 + [2] * 100)).base_end is None


def test_few_rows_cannot_judge_drift_and_say_so() -> None:
    chosen = choose_first_version(days(100, 5), target(500))
    assert int(chosen.settings["DRIFTLOOP_DATA__MIN_LABELLED_ROWS"]) <= 500
    assert any("600" in note for note in chosen.notes)


def test_fewer_rows_than_a_first_version_needs_are_refused() -> None:
    with pytest.raises(InvalidInput, match="200"):
        choose_first_version(days(100, 1), target(100))
