"""Data quality checks: report odd values of a window, such as values out of range. They never raise an alarm.

A change of units or a sensor that hangs shows at once. These checks fire in bursts, also under normal seasonal change,
so they are kept out of the rate of false alarms and are only shown with the verdict.
"""

from collections.abc import Collection

import numpy as np
import pandas as pd

from driftloop.drift.statistics import CategoricalReference, NumericReference, PreparedReference, to_float_array
from driftloop.events import DataQualityIssue

# Fraction of values out of the reference's range; Celsius read as Fahrenheit has 45 % even on a warm day.
MIN_OUT_OF_RANGE = 1 / 3
MIN_UNSEEN = 0.02  # fraction of values with levels that the reference does not have


def check_data(
    reference: PreparedReference, window: pd.DataFrame, normally_constant: Collection[str] = ()
) -> list[DataQualityIssue]:
    """Return the issues of a window, by column, each with the fraction of the window's rows that it affects.

    A constant column is no issue if it is in ``normally_constant``.
    """
    issues = [
        issue
        for column, prepared in reference.items()
        for issue in (
            _check_numeric(column, prepared, window[column])
            if isinstance(prepared, NumericReference)
            else _check_categorical(column, prepared, window[column])
        )
    ]
    return [issue for issue in issues if issue.kind != "constant" or issue.column not in normally_constant]


def _check_numeric(column: str, reference: NumericReference, window: pd.Series) -> list[DataQualityIssue]:
    values = to_float_array(window)
    values = values[~np.isnan(values)]
    issues = _check_missing(column, len(values), reference.missing_rate)
    if len(values) and not np.isnan(reference.low):
        out_of_range = float(((values < reference.low) | (values > reference.high)).mean())
        if out_of_range >= MIN_OUT_OF_RANGE:
            issues.append(DataQualityIssue(column=column, kind="out_of_range", fraction=out_of_range))
        if len(values) > 1 and values.min() == values.max() and reference.low < reference.high:
            issues.append(DataQualityIssue(column=column, kind="constant", fraction=1.0))
    return issues


def _check_categorical(column: str, reference: CategoricalReference, window: pd.Series) -> list[DataQualityIssue]:
    values = window.dropna()
    issues = _check_missing(column, len(values), reference.missing_rate)
    if len(values):
        unseen = float((~values.isin(reference.levels)).mean())
        if unseen >= MIN_UNSEEN:
            issues.append(DataQualityIssue(column=column, kind="unseen_levels", fraction=unseen))
        if len(values) > 1 and values.nunique() == 1 and len(reference.levels) > 1:
            issues.append(DataQualityIssue(column=column, kind="constant", fraction=1.0))
    return issues


def _check_missing(column: str, present: int, reference_missing_rate: float) -> list[DataQualityIssue]:
    if present or reference_missing_rate == 1:
        return []
    return [DataQualityIssue(column=column, kind="all_missing", fraction=1.0)]
