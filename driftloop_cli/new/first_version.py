"""Choose the rows of a first version, and settings with which its windows can be calibrated. Pure."""

import math
from dataclasses import dataclass, field
from datetime import date

import numpy as np
import pandas as pd

from driftloop.drift.window_length import MAX_ROWS, MIN_INDEPENDENT_WINDOWS, MIN_REFERENCE_ROWS, choose_window_rows
from driftloop.errors import InvalidInput

FIRST_FRACTION = 0.7  # of the rows, in order of time; the producer streams the others
MIN_ROWS = 200  # fewer cannot be trained on, held out and compared
DEFAULT_MIN_LABELLED_ROWS = 1_000
DEFAULT_HOLDOUT_DAYS, DEFAULT_MIN_HOLDOUT_DAYS = 14, 10
DEFAULT_MAX_AGE_DAYS = 7


@dataclass(frozen=True)
class FirstVersion:
    """The rows of the first version, and settings that differ from their defaults."""

    rows: int
    first_day: date
    base_end: date | None
    """The day from which on rows are streamed instead; ``None`` if all rows are for the first version."""
    end: date
    """The day after the last."""
    settings: dict[str, str] = field(default_factory=dict)
    """Values of environment variables."""
    notes: tuple[str, ...] = ()
    """What is to be known about these choices, in words."""


def choose_first_version(days: pd.Series, target: pd.Series) -> FirstVersion:
    """Choose the rows that the first version is trained on, and the settings that suit them.

    Args:
        days: The local midnight of each row's day, without a time zone, in order of time.
        target: The target of each row; missing where it is not known.

    Raises:
        InvalidInput: There are too few rows.
    """
    require_enough_rows(len(days))
    split = days.iloc[int(FIRST_FRACTION * len(days))]
    first = int((days < split).sum())
    base_end: date | None = split.date()
    notes: list[str] = []
    if first < MIN_REFERENCE_ROWS or target[:first].nunique() < min(target.nunique(), 50):
        base_end, first = None, len(days)
    window = choose_window_rows(first)
    settings = {}
    if first < MIN_REFERENCE_ROWS:
        notes.append(
            f"{first} rows are too few to judge drift: windows of {window} rows show data quality issues only; "
            f"a version that is trained on {MIN_REFERENCE_ROWS} rows can be judged"
        )
    elif window != MAX_ROWS:
        notes.append(
            f"windows of {window} rows instead of {MAX_ROWS:,}: calibration needs {MIN_INDEPENDENT_WINDOWS} of them in "
            f"the {first:,} rows of the first version; later versions have more rows, and longer windows"
        )
    if int(target[:first].notna().sum()) < DEFAULT_MIN_LABELLED_ROWS:
        settings["DRIFTLOOP_DATA__MIN_LABELLED_ROWS"] = str(int(target[:first].notna().sum()) // 2)
        notes.append(
            f"fewer than {DEFAULT_MIN_LABELLED_ROWS:,} rows have an outcome: a training of fewer is allowed "
            "(DRIFTLOOP_DATA__MIN_LABELLED_ROWS)"
        )
    settings |= _window_age(days, window, notes)
    if base_end is not None:
        settings |= _holdout(days[first:], target[first:], notes)
    end = days.iloc[-1] + pd.Timedelta(days=1)
    return FirstVersion(first, days.iloc[0].date(), base_end, end.date(), settings, tuple(notes))


def require_enough_rows(rows: int) -> None:
    """Check that a table has enough rows for a first version.

    Raises:
        InvalidInput: There are too few.
    """
    if rows < MIN_ROWS:
        raise InvalidInput(
            f"the table has {rows} rows, and {MIN_ROWS} are needed to train a version on some and measure it on others"
        )


def _window_age(days: pd.Series, window: int, notes: list[str]) -> dict[str, str]:
    """Return how long a window may stay open, if rows are so rare that it would close before it is full."""
    per_day = float(np.median(days.value_counts()))
    needed = math.ceil(2 * window / per_day)  # twice, because busy days and quiet days differ
    if needed <= DEFAULT_MAX_AGE_DAYS:
        return {}
    notes.append(
        f"a window may last {needed} days instead of {DEFAULT_MAX_AGE_DAYS}: {window:,} rows take about "
        f"{window / per_day:.0f} at this table's pace (DRIFTLOOP_WINDOW__MAX_AGE_SECONDS)"
    )
    return {"DRIFTLOOP_WINDOW__MAX_AGE_SECONDS": str(needed * 86_400)}


def _holdout(days: pd.Series, target: pd.Series, notes: list[str]) -> dict[str, str]:
    """Return the gate's days, if those that are streamed are fewer than what the defaults need."""
    streamed = days[target.notna().to_numpy()].nunique()
    if streamed > DEFAULT_HOLDOUT_DAYS:
        return {}
    held_out = max(streamed // 2, 2)
    notes.append(
        f"only {streamed} days remain to be streamed: the gate holds out {held_out} days instead of "
        f"{DEFAULT_HOLDOUT_DAYS}, and its verdicts are less certain (DRIFTLOOP_GATE__HOLDOUT_DAYS)"
    )
    return {
        "DRIFTLOOP_GATE__HOLDOUT_DAYS": str(held_out),
        "DRIFTLOOP_GATE__MIN_HOLDOUT_DAYS": str(min(held_out, DEFAULT_MIN_HOLDOUT_DAYS)),
    }
