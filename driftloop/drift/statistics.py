"""Statistics of a window: how far its columns are from the reference's.

The distances are evidently's, including its normalization and its treatment of missing values. A reference is prepared
once, so that the cost of a window does not depend on the size of the reference. Tests compare every distance with
evidently's, for numbers with a fractional part: numpy, and so evidently, bins integers differently, and a single
missing value turns a column of integers into floats.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from driftloop.drift.distances import (
    DISTANCE_FUNCTIONS,
    DISTANCES,
    ColumnType,
    DistanceName,
    FloatArray,
    bin_counts,
    bin_edges,
    is_discrete,
)

StatisticName = DistanceName | Literal["missing_rate_change", "mode_share"]

EXTRA_STATISTICS: dict[ColumnType, tuple[StatisticName, ...]] = {
    # evidently drops missing values on both sides before it compares: hence missing_rate_change.
    # A frozen sensor can stay close in distance: hence mode_share, for numbers.
    "number": ("missing_rate_change", "mode_share"),
    "category": ("missing_rate_change",),
}
"""Statistics besides the distance, by column type."""
MIN_STD = 0.001  # evidently's, for a reference that is constant
NAN = float("nan")
MAX_DEVIATION = 1e290  # from the reference's median: sums and ratios of larger ones would be infinite


class StatisticKey(NamedTuple):
    """Identifies one statistic of one column."""

    column: str
    statistic: StatisticName


def distance_for(
    column: str, column_types: Mapping[str, ColumnType], distances: Mapping[str, DistanceName]
) -> DistanceName:
    """Return the distance configured for a column, or the default of its type."""
    return distances.get(column, DISTANCES[column_types[column]][0])


def statistic_keys(
    column_types: Mapping[str, ColumnType], distances: Mapping[str, DistanceName] = {}
) -> list[StatisticKey]:
    """Return the keys of all statistics in a fixed order: column by column, the distance first."""
    return [
        StatisticKey(column, statistic)
        for column, column_type in column_types.items()
        for statistic in (distance_for(column, column_types, distances), *EXTRA_STATISTICS[column_type])
    ]


def to_float_array(column: pd.Series) -> FloatArray:
    """Return a numeric column as floats, with NaN for missing values."""
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


class NumericReference:
    """A numeric column of a reference, prepared for fast distances to many windows."""

    def __init__(self, column: pd.Series, distance: DistanceName = "wasserstein") -> None:
        """Sort the column's values. Missing values only count for the missing rate."""
        self.distance_name = distance
        values = to_float_array(column)
        present = np.sort(values[~np.isnan(values)])
        self.missing_rate = 1 - len(present) / len(values) if len(values) else NAN
        self.low, self.high = (float(present[0]), float(present[-1])) if len(present) else (NAN, NAN)
        with np.errstate(over="ignore"):
            self._std = max(float(np.std(column.dropna())), MIN_STD) if len(present) else NAN
        # Centered values keep precision: sums of values far from 0 would swallow their differences.
        self._center = float(np.median(present)) if distance == "wasserstein" and len(present) else 0.0
        self._sorted = present - self._center

    @cached_property
    def _cumulative_areas(self) -> FloatArray:
        """Integral of the distribution function from -∞ to each value: a sum of positive steps only."""
        steps = np.diff(self._sorted) * np.arange(1, len(self._sorted)) / len(self._sorted)
        return np.concatenate([[0.0], np.cumsum(steps, dtype=np.longdouble)]).astype(np.float64)

    @cached_property
    def _mean(self) -> float:
        return float(np.mean(self._sorted, dtype=np.longdouble))

    @cached_property
    def _distinct_values(self) -> FloatArray:
        return np.unique(self._sorted)

    @property
    def nbytes(self) -> int:
        """The memory of the arrays in bytes; some are made by the first distance."""
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, np.ndarray))

    def distance_to(self, sorted_values: FloatArray) -> float:
        """Return the configured distance to a window's sorted values; NaN if a side is empty or the range infinite."""
        if not len(self._sorted) or not len(sorted_values):
            return NAN
        if self.distance_name == "wasserstein":
            return self.wasserstein(sorted_values)
        edges = self._bin_edges(sorted_values)
        if edges is None:
            return NAN
        reference, window = (bin_counts(side, edges) / len(side) for side in (self._sorted, sorted_values))
        return DISTANCE_FUNCTIONS[self.distance_name](reference, window)

    def _bin_edges(self, sorted_values: FloatArray) -> FloatArray | None:
        """Return the edges of bins that cover both sides, or of one bin per value where the reference is discrete."""
        if is_discrete(self.distance_name, len(self._distinct_values)):
            levels = np.union1d(self._distinct_values, sorted_values)
            return np.append(levels, levels[-1])
        size = len(self._sorted) + len(sorted_values)
        if self.distance_name == "hellinger":  # counts distinct values, not rows
            distinct = np.unique(sorted_values)
            position = np.minimum(np.searchsorted(self._distinct_values, distinct), len(self._distinct_values) - 1)
            size = len(self._distinct_values) + int((self._distinct_values[position] != distinct).sum())
        return bin_edges(min(self.low, float(sorted_values[0])), max(self.high, float(sorted_values[-1])), size)

    def wasserstein(self, sorted_values: FloatArray) -> float:
        """Return W1 / max(standard deviation of the reference, 0.001) for a window's sorted values; NaN if empty.

        W1 is the area between the two distribution functions. Between two neighbouring values of the window, the
        window's function is constant and the reference's crosses it at most once, at a quantile. So the area on either
        side of the crossing is a difference of the reference's prepared integral, and only O(m log n) work is left for
        m values of a window and n of the reference.
        """
        n, m = len(self._sorted), len(sorted_values)
        if not n or not m:
            return NAN
        with np.errstate(over="ignore"):
            window = np.clip(sorted_values - self._center, -MAX_DEVIATION, MAX_DEVIATION)
        left, right = window[:-1], window[1:]
        rank = np.arange(1, m)
        crossing = np.clip(self._sorted[(rank * n + m - 1) // m - 1], left, right)
        integral = self._cdf_integral(np.concatenate([window, crossing]))
        at_left, at_right, at_crossing = integral[: m - 1], integral[1:m], integral[m:]
        below = integral[0]
        between = rank / m * (2 * crossing - left - right) + at_left + at_right - 2 * at_crossing
        above = integral[m - 1] - window[-1] + self._mean
        return float((below + between.sum() + above) / self._std)

    def _cdf_integral(self, upper: FloatArray) -> FloatArray:
        """Return the integral of the reference's distribution function from -∞ to each upper bound."""
        count = np.searchsorted(self._sorted, upper, side="right")
        last = np.maximum(count - 1, 0)
        return np.asarray(
            self._cumulative_areas[last] + (upper - self._sorted[last]) * (count / len(self._sorted)), dtype=np.float64
        )


class CategoricalReference:
    """A categorical column of a reference, prepared for fast distances to many windows."""

    def __init__(self, column: pd.Series, distance: DistanceName = "jensenshannon") -> None:
        """Count the column's levels. Missing values only count for the missing rate."""
        self.distance_name = distance
        counts = column.value_counts()
        total = int(counts.sum())
        self.missing_rate = 1 - total / len(column) if len(column) else NAN
        self.levels = pd.Index(counts.index)
        self._fractions = counts.to_numpy() / total if total else np.empty(0)

    @property
    def nbytes(self) -> int:
        """The memory of the levels and their fractions in bytes."""
        return int(self.levels.memory_usage(deep=True)) + self._fractions.nbytes

    def distance_to(self, counts: pd.Series) -> float:
        """Return the configured distance to a window's counts by level; NaN if a side has no values."""
        total = counts.sum()
        if not total or not len(self.levels):
            return NAN
        fractions = counts.to_numpy() / total
        position = self.levels.get_indexer(counts.index)
        unseen = fractions[position < 0]
        window = np.concatenate([np.zeros(len(self.levels)), unseen])
        window[position[position >= 0]] = fractions[position >= 0]
        reference = np.concatenate([self._fractions, np.zeros(len(unseen))])
        return DISTANCE_FUNCTIONS[self.distance_name](reference, window)


PreparedReference = Mapping[str, NumericReference | CategoricalReference]


def prepare_reference(
    column_types: Mapping[str, ColumnType], reference: pd.DataFrame, distances: Mapping[str, DistanceName] = {}
) -> PreparedReference:
    """Prepare a reference's columns for windows.

    Args:
        column_types: The columns to prepare and their types.
        reference: The reference's rows.
        distances: Distances of the columns that do not use the default of their type.
    """
    return {
        column: (NumericReference if column_type == "number" else CategoricalReference)(
            reference[column], distance_for(column, column_types, distances)
        )
        for column, column_type in column_types.items()
    }


def window_statistics(reference: PreparedReference, window: pd.DataFrame) -> dict[StatisticKey, float]:
    """Return every statistic of a window; NaN where one side has no value to compare.

    ``missing_rate_change`` is the absolute difference between the missing rates of window and reference, and
    ``mode_share`` the fraction of the window's values that equal the most common one.
    """
    values: dict[StatisticKey, float] = {}
    for column, prepared in reference.items():
        if isinstance(prepared, NumericReference):
            numbers = to_float_array(window[column])
            sorted_values = np.sort(numbers[~np.isnan(numbers)])
            values[StatisticKey(column, prepared.distance_name)] = prepared.distance_to(sorted_values)
            missing_rate = 1 - len(sorted_values) / len(numbers)
            values[StatisticKey(column, "missing_rate_change")] = abs(missing_rate - prepared.missing_rate)
            values[StatisticKey(column, "mode_share")] = mode_share(sorted_values)
        else:
            counts = window[column].value_counts()
            values[StatisticKey(column, prepared.distance_name)] = prepared.distance_to(counts)
            missing_rate = 1 - counts.sum() / len(window)
            values[StatisticKey(column, "missing_rate_change")] = abs(missing_rate - prepared.missing_rate)
    return values


def mode_share(sorted_values: npt.NDArray[np.generic]) -> float:
    """Return the fraction of sorted values that equal the most common one; NaN if there are none."""
    if not len(sorted_values):
        return NAN
    run_ends = np.flatnonzero(np.concatenate([sorted_values[1:] != sorted_values[:-1], [True]]))
    return float(np.diff(run_ends, prepend=-1).max() / len(sorted_values))
