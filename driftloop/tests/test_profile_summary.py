"""Test what people read of a drift profile: stretches, and the smallest shifts that are found."""

from datetime import UTC, datetime
from typing import Any

from driftloop.drift.profile import CalibratedSpan, DriftProfile, Stretch
from driftloop.drift.profile_summary import (
    TAG_SMALLEST_SHIFTS,
    TAG_STRETCHES,
    Shift,
    column_sensitivities,
    describe_smallest_shifts,
    describe_stretches,
    profile_tags,
)
from driftloop.drift.statistics import MIN_STD

KINDS = {"hour": "number", "signed_up": "datetime", "flat": "number", "wild": "number", "dest": "category"}


def make_profile(**changed: Any) -> DriftProfile:
    """Return a made-up profile of two stretches and two spans."""

    def span(windows: int, shifts: dict[str, float]) -> CalibratedSpan:
        return CalibratedSpan(windows=windows, score_threshold=8, null_distributions=[], smallest_shifts=shifts)

    fields: dict[str, Any] = {
        "window_rows": 1_000,
        "false_alarm_rate": 0.01,
        "kinds": KINDS,
        "reference_rows": 80_000,
        "stretches": [
            Stretch(first_row=0, end_row=39_800, begin=on(1), end=on(31)),
            Stretch(first_row=40_200, end_row=80_000, begin=on(31), end=on(60)),
        ],
        "spans": [
            span(1, {"hour": 0.4, "signed_up": 1.5, "flat": 0.5}),
            span(3, {"hour": 0.2, "flat": 0.25}),
        ],
        "standard_deviations": {"signed_up": 200.0, "hour": 3.0, "flat": 0.0, "wild": 12.5},
        "importance": {"hour": 0.1, "dest": 0.2, "signed_up": 0.05},
    }
    return DriftProfile(**(fields | changed))


def on(day: int) -> datetime:
    return datetime.fromordinal(datetime(2013, 1, 1).toordinal() + day - 1).replace(tzinfo=UTC)


def test_columns_have_their_smallest_shifts_in_their_own_unit_the_most_important_first() -> None:
    by_column = {each.column: each for each in column_sensitivities(make_profile())}
    assert list(by_column) == ["hour", "signed_up", "flat", "wild"]
    assert by_column["hour"].shifts == (Shift(0.4, 0.4 * 3.0), Shift(0.2, 0.2 * 3.0))
    assert (by_column["signed_up"].unit, by_column["signed_up"].shifts) == (" days", (Shift(1.5, 300.0), None))
    assert by_column["wild"].shifts == (None, None)


def test_shift_of_a_constant_column_is_in_the_unit_that_its_distance_has() -> None:
    (flat,) = (each for each in column_sensitivities(make_profile()) if each.column == "flat")
    assert flat.shifts == (Shift(0.5, 0.5 * MIN_STD), Shift(0.25, 0.25 * MIN_STD))


def test_smallest_shifts_are_described_in_one_sentence() -> None:
    assert describe_smallest_shifts(make_profile()) == (
        "hour 0.4 sd = 1.2 in one window, 0.2 sd = 0.6 in three windows; "
        "signed_up 1.5 sd = 300 days in one window, not found in three windows; "
        "flat 0.0005 in one window, 0.00025 in three windows; "
        "wild not found in one window, not found in three windows"
    )
    assert describe_smallest_shifts(make_profile(), max_columns=1).endswith("; and 3 more columns")
    assert describe_smallest_shifts(make_profile(standard_deviations={})) == "no numeric column"


def test_stretches_say_since_when_the_present_one_lasts() -> None:
    profile = make_profile()
    assert (
        describe_stretches(profile) == "2; the present one lasts since 2013-01-31 00:00 and has 39,800 of 80,000 rows"
    )
    untimed = [stretch.model_copy(update={"begin": None, "end": None}) for stretch in profile.stretches]
    assert describe_stretches(make_profile(stretches=untimed)) == "2; the present one has 39,800 of 80,000 rows"
    whole = Stretch(first_row=0, end_row=80_000, begin=on(1), end=on(60))
    assert describe_stretches(make_profile(stretches=[whole])) == (
        "one, from 2013-01-01 00:00 to 2013-03-01 00:00, 80,000 of 80,000 rows"
    )


def test_tags_say_both_and_fit_into_mlflow() -> None:
    long = {f"{number}_{'x' * 245}": 1.0 for number in range(300)}
    tags = profile_tags(make_profile(kinds=dict.fromkeys(long, "number"), standard_deviations=long))
    assert set(tags) == {TAG_STRETCHES, TAG_SMALLEST_SHIFTS}
    assert all(len(value) < 5_000 for value in tags.values())  # the most that MLflow takes
