"""Statistics are evidently's, what is normal is learned, and a change is found and named."""

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

from driftloop.drift.calibration import FEWEST, LEVELS, Profile, TooFewRows, calibrate
from driftloop.drift.data_checks import facts
from driftloop.drift.distances import DISTANCES, Distance, Kind
from driftloop.drift.scoring import judge
from driftloop.drift.statistics import Check, Method, Prepared, checks, prepared, statistics

EVIDENTLYS = {
    "wasserstein": wasserstein_stat_test,
    "jensenshannon": jensenshannon_stat_test,
    "psi": psi_stat_test,
    "kl_div": kl_div_stat_test,
    "hellinger": hellinger_stat_test,
}
KINDS: dict[str, Kind] = {"level": "number", "sensor": "number", "color": "category"}
ROWS = 200
TINY = 1e-12


def rows(count: int, seed: int, shift: float = 0.0) -> pd.DataFrame:
    """Days of 100 rows whose level and colors have a day's share of their own."""
    random = np.random.default_rng(seed)
    day = np.arange(count) // 100
    level = random.normal(size=day.max() + 1)[day] + random.normal(size=count) + shift
    colors = random.choice(["red", "green", "blue"], size=count, p=[0.5, 0.3, 0.2])
    return pd.DataFrame({"level": level, "sensor": random.normal(size=count), "color": colors})


@pytest.fixture(scope="module")
def reference() -> pd.DataFrame:
    return rows(13_000, seed=1)


@pytest.fixture(scope="module")
def ready(reference: pd.DataFrame) -> Prepared:
    return prepared(KINDS, reference)


@pytest.fixture(scope="module")
def profile(reference: pd.DataFrame) -> Profile:
    days = np.arange(len(reference)) // 100
    return calibrate(reference, days, KINDS, rows=ROWS, false_alarm_rate=0.01)


@pytest.mark.parametrize(("column", "method"), [("level", "wasserstein"), ("color", "jensenshannon")])
def test_distances_are_those_of_evidentlys_report(column: str, method: Method) -> None:
    reference, window = rows(2_000, seed=1), rows(500, seed=2, shift=0.5)
    window.loc[:40, column] = None
    definition = DataDefinition(numerical_columns=["level"], categorical_columns=["color"])
    metric = ValueDrift(column=column, method=method)
    snapshot = Report([metric]).run(Dataset.from_pandas(window, definition), Dataset.from_pandas(reference, definition))
    (found,) = [result.value for result in snapshot.metric_results.values()]
    values = statistics(prepared(KINDS, reference), window)
    assert values[Check(column, method)] == pytest.approx(found, abs=TINY)


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


@pytest.mark.parametrize("method", DISTANCES["number"])
@pytest.mark.parametrize(("reference", "window"), NUMBERS.values(), ids=NUMBERS)
def test_the_distance_of_numbers_is_evidentlys(reference: np.ndarray, window: np.ndarray, method: Distance) -> None:
    before, now = pd.Series(reference, dtype=float), pd.Series(window, dtype=float)
    found = EVIDENTLYS[method](before.dropna(), now.dropna(), ColumnType.Numerical, None).drift_score
    ready = prepared({"x": "number"}, before.to_frame("x"), {"x": method})
    values = statistics(ready, now.to_frame("x"))
    # Far from zero, rounding makes bins unequal, and evidently's hellinger divides by each one's own width.
    precision = 1e-3 if method == "hellinger" and abs(window).min() > 1e11 else TINY
    assert values[Check("x", method)] == pytest.approx(found, rel=precision, abs=precision)


@pytest.mark.parametrize("method", DISTANCES["category"])
@pytest.mark.parametrize("seed", range(20))
def test_the_distance_of_categories_is_evidentlys(seed: int, method: Distance) -> None:
    random = np.random.default_rng(seed)
    before = pd.Series([f"level {n}" for n in random.integers(0, 1 + seed * 3, 2_000)])
    now = pd.Series([f"level {n}" for n in random.integers(seed, 2 + seed * 4, 1 + seed * 20)])
    found = EVIDENTLYS[method](before, now, ColumnType.Categorical, None).drift_score
    values = statistics(prepared({"x": "category"}, before.to_frame("x"), {"x": method}), now.to_frame("x"))
    # The square root of hellinger makes 1e-8 of a rounding error of 1e-16 where both sides are the same.
    assert values[Check("x", method)] ** 2 == pytest.approx(found**2, abs=TINY)


def test_a_window_without_values_has_no_distance_but_a_missing_share(ready: Prepared) -> None:
    window = rows(100, seed=2).assign(level=np.nan, color=None)
    values = statistics(ready, window)
    assert math.isnan(values[Check("level", "wasserstein")])
    assert math.isnan(values[Check("color", "jensenshannon")])
    assert values[Check("level", "missing_share")] == values[Check("color", "missing_share")] == 1.0


SPREADS = {
    "ten values": lambda random, size: random.integers(0, 10, size) / 10,
    "many values": lambda random, size: random.integers(0, LEVELS // 2, size) / LEVELS,
    "as many as rows": lambda random, size: random.normal(size=size),
    "a long tail": lambda random, size: random.lognormal(0, 2, size),
}


@pytest.mark.parametrize("distance", DISTANCES["number"])
@pytest.mark.parametrize("spread", SPREADS)
def test_what_is_learned_of_a_column_is_what_its_windows_measure(spread: str, distance: Distance) -> None:
    """Location and scale come from windows by level, judged ones from sorted values: both are the same statistics."""
    frame = pd.DataFrame({"x": SPREADS[spread](np.random.default_rng(3), 8_000)})
    days = np.arange(len(frame)) // 100
    kinds: dict[str, Kind] = {"x": "number"}
    learned = calibrate(frame, days, kinds, rows=ROWS, false_alarm_rate=0.01, neighbourhood=-3, methods={"x": distance})
    ready = prepared(kinds, frame, learned.methods)
    starts = range(0, len(frame) - ROWS + 1, ROWS // 10)
    measured = np.array([list(statistics(ready, frame.iloc[at : at + ROWS]).values()) for at in starts])
    normal = {n.method: n for n in learned.spans[0].normals}
    for number, (_, method) in enumerate(checks(kinds, learned.methods)):
        mean = normal[method].location + 0.5772 * normal[method].scale
        assert mean == pytest.approx(measured[:, number].mean(), rel=0.01, abs=1e-4)


# 1 % of 200 and three standard deviations of a day's luck more; threes are learned from 21 windows without overlap
@pytest.mark.parametrize(("windows", "most"), [(1, 8), (3, 12)])
def test_windows_of_the_same_stream_are_quiet(ready: Prepared, profile: Profile, windows: int, most: int) -> None:
    alarms = 0
    for i in range(200):
        judgement = judge(profile, {windows: statistics(ready, rows(ROWS * windows, seed=100 + i))})
        alarms += judgement.alarm
    assert alarms <= most


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
    ready: Prepared, profile: Profile, column: str, change: object
) -> None:
    window = rows(ROWS, seed=7)
    window[column] = change(window)  # type: ignore[operator]  # a lambda of the table above
    judgement = judge(profile, {1: statistics(ready, window)})
    assert judgement.alarm
    assert judgement.spans[0].score > judgement.spans[0].limit
    assert judgement.drifted[0].column == column


def test_windows_together_show_what_one_does_not(ready: Prepared, profile: Profile) -> None:
    found = {1: 0, 3: 0}
    for seed in range(40):
        changed = rows(ROWS * 3, seed=200 + seed)
        changed["sensor"] += 0.15
        for windows in found:
            judgement = judge(profile, {windows: statistics(ready, changed.iloc[-ROWS * windows :])})
            found[windows] += "sensor" in {finding.column for finding in judgement.drifted}
    assert found[3] > 2 * found[1]


def test_what_the_model_leans_on_comes_first(ready: Prepared, profile: Profile) -> None:
    window = rows(ROWS, seed=7).assign(sensor=0.1)
    window["level"] += 40
    leaning = profile.model_copy(update={"importance": {"sensor": 0.2, "level": 0.001}})
    values = {1: statistics(ready, window)}
    assert judge(profile, values).drifted[0].column == "level"
    assert judge(leaning, values).drifted[0].column == "sensor"


def test_a_column_without_values_alarms_by_its_missing_share(ready: Prepared, profile: Profile) -> None:
    window = rows(ROWS, seed=7).assign(level=np.nan)
    judgement = judge(profile, {1: statistics(ready, window)})
    assert (judgement.drifted[0].column, judgement.drifted[0].method) == ("level", "missing_share")


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
def test_what_is_odd_about_a_column_is_a_fact(ready: Prepared, column: str, change: object, kind: str) -> None:
    window = rows(ROWS, seed=7)
    assert facts(ready, window) == []
    window[column] = change(window)  # type: ignore[operator]  # a lambda of the table above
    assert [(fact.column, fact.kind) for fact in facts(ready, window)] == [(column, kind)]


def test_a_column_that_is_usually_constant_is_no_fact(reference: pd.DataFrame) -> None:
    dry = reference.assign(sensor=np.where(np.arange(len(reference)) % 1_000 < 50, 0.3, 0.0))
    days = np.arange(len(dry)) // 100
    learned = calibrate(dry, days, KINDS, rows=ROWS, false_alarm_rate=0.01)
    ready, window = prepared(KINDS, dry), dry.iloc[200:400]
    assert [fact.column for fact in facts(ready, window)] == ["sensor"]
    assert facts(ready, window, learned.usually_constant) == []


def test_one_missing_cell_is_no_alarm_where_none_was_ever_missing(ready: Prepared, profile: Profile) -> None:
    window = rows(ROWS, seed=7)
    window.loc[window.index[0], "sensor"] = np.nan
    judgement = judge(profile, {1: statistics(ready, window)})
    assert not [finding for finding in judgement.drifted if finding.method == "missing_share"]
    assert judgement.spans[0].score < profile.spans[0].limit


def test_a_small_reference_says_how_many_rows_are_missing() -> None:
    few = rows(FEWEST * ROWS - 30, seed=1)
    with pytest.raises(TooFewRows, match="30 more rows"):
        calibrate(few, np.arange(len(few)) // 100, KINDS, rows=ROWS, false_alarm_rate=0.01)


def test_a_reference_too_small_for_windows_together_judges_single_ones() -> None:
    some = rows(FEWEST * ROWS * 2, seed=1)
    learned = calibrate(some, np.arange(len(some)) // 100, KINDS, rows=ROWS, false_alarm_rate=0.01)
    assert [span.windows for span in learned.spans] == [1]


def test_a_profile_survives_its_json(profile: Profile) -> None:
    assert Profile.model_validate_json(profile.model_dump_json()) == profile


@pytest.mark.parametrize("method", DISTANCES["number"][1:])
@pytest.mark.parametrize("side", ["reference", "window"])
def test_an_infinite_number_leaves_a_distance_without_value(method: Distance, side: str) -> None:
    """JSON can hold 1e999."""
    sides = {name: pd.DataFrame({"x": np.arange(100.0)}) for name in ("reference", "window")}
    sides[side].loc[7, "x"] = np.inf
    values = statistics(prepared({"x": "number"}, sides["reference"], {"x": method}), sides["window"])
    assert math.isnan(values[Check("x", method)])


def test_a_column_is_judged_by_the_distance_that_its_profile_names(reference: pd.DataFrame) -> None:
    days = np.arange(len(reference)) // 100
    methods: dict[str, Distance] = {"level": "psi", "color": "hellinger"}
    learned = calibrate(reference, days, KINDS, rows=ROWS, false_alarm_rate=0.01, methods=methods)
    profile = Profile.model_validate_json(learned.model_dump_json())
    ready = prepared(profile.kinds, reference, profile.methods)
    quiet, changed = rows(ROWS, seed=7), rows(ROWS, seed=7, shift=4)
    assert not judge(profile, {1: statistics(ready, quiet)}).alarm
    found = judge(profile, {1: statistics(ready, changed)})
    assert [(finding.column, finding.method) for finding in found.drifted] == [("level", "psi")]


def test_a_profile_from_before_there_was_a_choice_has_the_defaults(profile: Profile) -> None:
    old = Profile.model_validate(profile.model_dump(exclude={"methods"}))
    assert checks(old.kinds, old.methods) == [
        Check(normal.column, normal.method) for normal in profile.spans[0].normals
    ]
