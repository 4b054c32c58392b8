"""Scores of windows: unchanged ones raise no alarm, changed ones do and name the column; data checks."""

import numpy as np
import pandas as pd
import pytest

from driftloop.drift.calibration import calibrate
from driftloop.drift.data_checks import check_data
from driftloop.drift.prepared_profile import PreparedProfile
from driftloop.drift.profile import DriftProfile
from driftloop.drift.scoring import score_window
from tests.support.synthetic_columns import COLUMN_TYPES, WINDOW_ROWS, days_of, make_rows


@pytest.fixture(scope="module")
def reference() -> pd.DataFrame:
    return make_rows(13_000, seed=1)


@pytest.fixture(scope="module")
def profile(reference: pd.DataFrame) -> DriftProfile:
    days = days_of(len(reference))
    return calibrate(reference, days, COLUMN_TYPES, window_rows=WINDOW_ROWS, false_alarm_rate=0.01)


@pytest.fixture(scope="module")
def prepared(reference: pd.DataFrame, profile: DriftProfile) -> PreparedProfile:
    return PreparedProfile.prepare(profile, reference)


# 1 % of 200, plus three standard deviations of correlated days; three windows together were calibrated with only 21.
@pytest.mark.parametrize(("windows", "max_alarms"), [(1, 8), (3, 12)])
def test_score_window_keeps_false_alarm_rate(
    prepared: PreparedProfile, profile: DriftProfile, windows: int, max_alarms: int
) -> None:
    alarms = 0
    for i in range(200):
        unchanged = make_rows(WINDOW_ROWS * windows, seed=100 + i)
        alarms += score_window(profile, {windows: prepared.statistics(unchanged)}).alarm
    assert alarms <= max_alarms


@pytest.mark.parametrize(
    ("column", "change"),
    [
        ("level", lambda window: window["level"] + 5),
        ("level", lambda window: window["level"].mask(window.index % 4 == 0)),
        ("sensor", lambda window: window["sensor"] * 0 + 0.1),
        ("color", lambda window: window["color"].where(window["color"] != "red", "purple")),
    ],
    ids=["shifted", "missing", "frozen", "renamed"],
)
def test_score_window_alarms_on_change_and_ranks_its_column_first(
    prepared: PreparedProfile, profile: DriftProfile, column: str, change: object
) -> None:
    window = make_rows(WINDOW_ROWS, seed=7)
    window[column] = change(window)  # type: ignore[operator]  # a lambda of the table above
    score = score_window(profile, {1: prepared.statistics(window)})
    assert score.alarm
    assert score.spans[0].score > score.spans[0].threshold
    assert score.drifted_findings[0].column == column


def test_score_window_sees_more_in_three_windows_than_in_one(prepared: PreparedProfile, profile: DriftProfile) -> None:
    detections = {1: 0, 3: 0}
    for seed in range(40):
        changed = make_rows(WINDOW_ROWS * 3, seed=200 + seed)
        changed["sensor"] += 0.15
        for windows in detections:
            statistics = prepared.statistics(changed.iloc[-WINDOW_ROWS * windows :])
            findings = score_window(profile, {windows: statistics}).drifted_findings
            detections[windows] += "sensor" in {finding.column for finding in findings}
    assert detections[3] > 2 * detections[1]


@pytest.mark.parametrize(("changed_windows", "least", "most"), [(1, 0, 10), (3, 20, 20)], ids=["over", "lasting"])
def test_score_window_counts_change_that_is_over_once(
    prepared: PreparedProfile, profile: DriftProfile, changed_windows: int, least: int, most: int
) -> None:
    """A change of the first of three windows is in all of them together, and no alarm unless the third has it, too."""
    drifted = 0
    for seed in range(20):
        rows = make_rows(WINDOW_ROWS * 3, seed=200 + seed)
        rows.loc[: changed_windows * WINDOW_ROWS - 1, "sensor"] += 2
        values = {1: prepared.statistics(rows.iloc[-WINDOW_ROWS:]), 3: prepared.statistics(rows)}
        _, together = score_window(profile, values).spans
        (finding,) = (one for one in together.findings if (one.column, one.method) == ("sensor", "wasserstein"))
        assert finding.value is not None
        assert finding.value > finding.threshold
        assert not finding.drifted or together.score > together.threshold
        drifted += finding.drifted
    assert least <= drifted <= most


def test_drifted_findings_are_ordered_by_importance(prepared: PreparedProfile, profile: DriftProfile) -> None:
    window = make_rows(WINDOW_ROWS, seed=7).assign(sensor=0.1)
    window["level"] += 40
    weighted = profile.model_copy(update={"importance": {"sensor": 0.2, "level": 0.001}})
    values = {1: prepared.statistics(window)}
    assert score_window(profile, values).drifted_findings[0].column == "level"
    assert score_window(weighted, values).drifted_findings[0].column == "sensor"


def test_score_window_alarms_on_missing_rate_of_column_without_values(
    prepared: PreparedProfile, profile: DriftProfile
) -> None:
    window = make_rows(WINDOW_ROWS, seed=7).assign(level=np.nan)
    score = score_window(profile, {1: prepared.statistics(window)})
    assert (score.drifted_findings[0].column, score.drifted_findings[0].method) == ("level", "missing_rate_change")


def test_score_window_does_not_alarm_on_first_missing_value(prepared: PreparedProfile, profile: DriftProfile) -> None:
    window = make_rows(WINDOW_ROWS, seed=7)
    window.loc[window.index[0], "sensor"] = np.nan
    score = score_window(profile, {1: prepared.statistics(window)})
    assert not [finding for finding in score.drifted_findings if finding.method == "missing_rate_change"]
    assert score.spans[0].score < profile.spans[0].score_threshold


@pytest.mark.parametrize(
    ("column", "change", "kind"),
    [
        ("level", lambda window: window["level"] * 1.8 + 32, "out_of_range"),
        ("color", lambda window: window["color"].str.upper(), "unseen_levels"),
        ("color", lambda _: "red", "constant"),
        ("sensor", lambda _: 0.1, "constant"),
        ("level", lambda _: np.nan, "all_missing"),
    ],
)
def test_check_data_reports_issue(prepared: PreparedProfile, column: str, change: object, kind: str) -> None:
    window = make_rows(WINDOW_ROWS, seed=7)
    assert check_data(prepared.whole, window) == []
    window[column] = change(window)  # type: ignore[operator]  # a lambda of the table above
    assert [(issue.column, issue.kind) for issue in check_data(prepared.whole, window)] == [(column, kind)]


def test_check_data_ignores_normally_constant_column(reference: pd.DataFrame) -> None:
    dry = reference.assign(sensor=np.where(np.arange(len(reference)) % 1_000 < 50, 0.3, 0.0))
    profile = calibrate(dry, days_of(len(dry)), COLUMN_TYPES, window_rows=WINDOW_ROWS, false_alarm_rate=0.01)
    prepared, window = PreparedProfile.prepare(profile, dry), dry.iloc[200:400]
    assert [issue.column for issue in check_data(prepared.whole, window)] == ["sensor"]
    assert check_data(prepared.whole, window, profile.normally_constant_columns) == []
