"""Statistics are evidently's, what is normal is learned, and a change is found and named."""

import math

import numpy as np
import pandas as pd
import pytest
from evidently import DataDefinition, Dataset, Report
from evidently.metrics import ValueDrift

from driftloop.drift.calibration import FEWEST, Profile, TooFewRows, calibrate, sample
from driftloop.drift.judging import judge
from driftloop.drift.statistics import Check, Kind, statistic, statistics

KINDS: dict[str, Kind] = {"level": "number", "sensor": "number", "color": "category"}
ROWS = 200


def rows(count: int, seed: int, shift: float = 0.0) -> pd.DataFrame:
    """Days of 100 rows whose level and colors have a day's share of their own."""
    random = np.random.default_rng(seed)
    day = np.arange(count) // 100
    level = random.normal(size=day.max() + 1)[day] + random.normal(size=count) + shift
    colors = random.choice(["red", "green", "blue"], size=count, p=[0.5, 0.3, 0.2])
    return pd.DataFrame({"level": level, "sensor": random.normal(size=count), "color": colors})


@pytest.fixture(scope="module")
def reference() -> pd.DataFrame:
    return rows(10_000, seed=1)


@pytest.fixture(scope="module")
def profile(reference: pd.DataFrame) -> Profile:
    days = np.arange(len(reference)) // 100
    return calibrate(reference, days, KINDS, rows=ROWS, false_alarm_rate=0.01)


@pytest.mark.parametrize(("column", "method"), [("level", "wasserstein"), ("color", "jensenshannon")])
def test_distances_are_those_of_evidentlys_report(column: str, method: str) -> None:
    reference, window = rows(2_000, seed=1), rows(500, seed=2, shift=0.5)
    window.loc[:40, column] = None
    definition = DataDefinition(numerical_columns=["level"], categorical_columns=["color"])
    metric = ValueDrift(column=column, method=method)
    snapshot = Report([metric]).run(Dataset.from_pandas(window, definition), Dataset.from_pandas(reference, definition))
    (found,) = [result.value for result in snapshot.metric_results.values()]
    check = Check(column, "wasserstein" if column == "level" else "jensenshannon")
    assert statistic(check, reference[column], window[column]) == pytest.approx(found, abs=1e-12)


def test_a_window_without_values_has_no_distance_but_a_missing_share() -> None:
    reference, window = rows(1_000, seed=1), rows(100, seed=2)
    window["level"] = np.nan
    values = statistics(KINDS, reference, window)
    assert math.isnan(values[Check("level", "wasserstein")])
    assert values[Check("level", "missing_share")] == 1.0


def test_windows_of_the_same_stream_are_quiet(reference: pd.DataFrame, profile: Profile) -> None:
    compared = sample(reference)
    scores = [
        judge(profile, statistics(KINDS, compared, rows(ROWS, seed=100 + i))).score > profile.limit for i in range(200)
    ]
    assert sum(scores) <= 8  # 1 % of 200 and three standard deviations of a day's luck more


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
def test_a_change_alarms_and_its_column_is_named_first(
    reference: pd.DataFrame, profile: Profile, column: str, change: object
) -> None:
    window = rows(ROWS, seed=7)
    window[column] = change(window)  # type: ignore[operator]  # a lambda of the table above
    judgement = judge(profile, statistics(KINDS, sample(reference), window))
    assert judgement.alarm
    assert judgement.score > profile.limit
    assert judgement.drifted[0].column == column


def test_a_column_without_values_alarms_by_its_missing_share(reference: pd.DataFrame, profile: Profile) -> None:
    window = rows(ROWS, seed=7)
    window["level"] = np.nan
    judgement = judge(profile, statistics(KINDS, sample(reference), window))
    assert (judgement.drifted[0].column, judgement.drifted[0].method) == ("level", "missing_share")


def test_a_small_reference_says_how_many_rows_are_missing() -> None:
    few = rows(FEWEST * ROWS - 30, seed=1)
    with pytest.raises(TooFewRows, match="30 more rows"):
        calibrate(few, np.arange(len(few)) // 100, KINDS, rows=ROWS, false_alarm_rate=0.01)


def test_a_profile_survives_its_json(profile: Profile) -> None:
    assert Profile.model_validate_json(profile.model_dump_json()) == profile
