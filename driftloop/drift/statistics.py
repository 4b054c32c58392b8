"""How far a window's columns lie from the reference's."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import pandas as pd
from evidently.legacy.calculations.stattests import jensenshannon_stat_test, wasserstein_stat_test
from evidently.legacy.core import ColumnType

Kind = Literal["number", "category"]
Method = Literal["wasserstein", "jensenshannon", "missing_share", "commonest_share"]

# evidently drops nulls from both sides before it compares: hence missing_share. A frozen sensor can stay close in
# distance: hence commonest_share, for numbers.
METHODS: dict[Kind, tuple[Method, ...]] = {
    "number": ("wasserstein", "missing_share", "commonest_share"),
    "category": ("jensenshannon", "missing_share"),
}


class Check(NamedTuple):
    """One statistic of one column."""

    column: str
    method: Method


def checks(kinds: Mapping[str, Kind]) -> list[Check]:
    """All statistics of the columns, in a fixed order."""
    return [Check(column, method) for column, kind in kinds.items() for method in METHODS[kind]]


def statistic(check: Check, reference: pd.Series, window: pd.Series) -> float:
    """The statistic's value; NaN where either side has no value to compare.

    ``wasserstein`` and ``jensenshannon`` are evidently's own: W1 / max(sd of the reference, 0.001), and the distance
    with natural logarithm. ``missing_share`` is the difference of the shares of missing values, and
    ``commonest_share`` the share of the window's commonest value.
    """
    if check.method == "missing_share":
        return abs(float(window.isna().mean()) - float(reference.isna().mean()))
    reference, window = reference.dropna(), window.dropna()
    if reference.empty or window.empty:
        return float("nan")
    if check.method == "commonest_share":
        return float(window.value_counts(normalize=True).iloc[0])
    if check.method == "wasserstein":
        test, kind = wasserstein_stat_test, ColumnType.Numerical
    else:
        test, kind = jensenshannon_stat_test, ColumnType.Categorical
    # The threshold only decides evidently's own flag, which is not used: what is normal is learned (calibration).
    return float(test(reference, window, kind, threshold=None).drift_score)


def statistics(kinds: Mapping[str, Kind], reference: pd.DataFrame, window: pd.DataFrame) -> dict[Check, float]:
    """Every check's value for a window."""
    return {check: statistic(check, reference[check.column], window[check.column]) for check in checks(kinds)}
