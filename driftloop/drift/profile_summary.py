"""What a drift profile can see, for people: its stretches, and the smallest shifts that are found, by column."""

from typing import NamedTuple

from driftloop.drift.comparable_columns import FeatureKind
from driftloop.drift.profile import DriftProfile, Stretch
from driftloop.drift.statistics import MIN_STD
from driftloop.times import format_utc

UNITS: dict[FeatureKind, str] = {"datetime": " days", "text": " characters"}
"""Units of columns that are not compared as they are."""
MAX_NAMED_COLUMNS = 5  # in one sentence
TAG_STRETCHES, TAG_SMALLEST_SHIFTS = "reference_stretches", "reference_smallest_shifts"


class Shift(NamedTuple):
    """The smallest shift of a column that is found in 95 % of spans of a length."""

    standard_deviations: float
    amount: float
    """The same in the unit of the column."""


class ColumnSensitivity(NamedTuple):
    """How far a numeric column has to move to be found."""

    column: str
    unit: str
    """With a leading space; empty if the column is compared as it is."""
    standard_deviation: float
    """In the present stretch; 0 if the column never varies there."""
    shifts: tuple[Shift | None, ...]
    """For each of the profile's spans; ``None`` if even a large shift is not found."""


def column_sensitivities(profile: DriftProfile) -> list[ColumnSensitivity]:
    """Return the sensitivity of each numeric column with values, the most important to the model first."""
    found = []
    for column, deviation in profile.standard_deviations.items():
        shifts = (span.smallest_shifts.get(column) for span in profile.spans)
        found.append(
            ColumnSensitivity(
                column,
                UNITS.get(profile.kinds[column], ""),
                deviation,
                tuple(None if shift is None else Shift(shift, shift * max(deviation, MIN_STD)) for shift in shifts),
            )
        )
    return sorted(found, key=lambda each: -profile.importance.get(each.column, 0.0))


def profile_tags(profile: DriftProfile) -> dict[str, str]:
    """Return tags of a version that say what it can see."""
    return {TAG_STRETCHES: describe_stretches(profile), TAG_SMALLEST_SHIFTS: describe_smallest_shifts(profile)}


def describe_span(windows: int) -> str:
    """Return in words what a span of so many windows is called."""
    return {1: "one window", 3: "three windows"}.get(windows, f"{windows} windows")


def describe_stretches(profile: DriftProfile) -> str:
    """Return how many stretches a reference has, and since when the present one lasts."""
    present = profile.stretches[-1]
    rows = f"{present.end_row - present.first_row:,} of {profile.reference_rows:,} rows"
    if len(profile.stretches) == 1:
        return f"one, {_times(present)}{rows}"
    since = "" if present.begin is None else f" lasts since {format_utc(present.begin)} and"
    return f"{len(profile.stretches)}; the present one{since} has {rows}"


def describe_smallest_shifts(profile: DriftProfile, max_columns: int = MAX_NAMED_COLUMNS) -> str:
    """Return the smallest shifts that are found of the most important columns."""
    columns = column_sensitivities(profile)
    if not columns:
        return "no numeric column"
    parts = [describe_column(each, profile) for each in columns[:max_columns]]
    more = len(columns) - len(parts)
    return "; ".join([*parts, *([f"and {more} more columns"] if more else [])])


def describe_column(sensitivity: ColumnSensitivity, profile: DriftProfile) -> str:
    """Return the smallest shifts of a column that are found, such as ``temp 0.4 sd = 7 in one window, …``."""
    parts: list[str] = []
    for span, shift in zip(profile.spans, sensitivity.shifts, strict=True):
        found = "not found"
        if shift is not None:
            amount = f"{_number(shift.amount)}{sensitivity.unit}"
            found = f"{_number(shift.standard_deviations)} sd = {amount}" if sensitivity.standard_deviation else amount
        parts.append(f"{found} in {describe_span(span.windows)}")
    return f"{sensitivity.column} {', '.join(parts)}"


def _times(stretch: Stretch) -> str:
    if stretch.begin is None or stretch.end is None:
        return ""
    return f"from {format_utc(stretch.begin)} to {format_utc(stretch.end)}, "


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"
