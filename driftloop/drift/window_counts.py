"""Counts by level: a reference's columns, prepared for the statistics of many windows of the reference itself.

Sliding windows overlap, so their statistics are computed from counts instead of rows.
"""

import math
from abc import ABC, abstractmethod

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view

from driftloop.drift.distances import (
    DISTANCE_FUNCTIONS,
    ColumnType,
    DistanceName,
    FloatArray,
    IntArray,
    bin_edges,
    is_discrete,
)
from driftloop.drift.statistics import MIN_STD, NAN, mode_share, to_float_array

MAX_GRID = 2_048  # distinct numbers; a column with more is rounded to as many quantiles, for calibration only
EXACT_TAIL = 256  # smallest and largest numbers that are not rounded: in a long tail two quantiles are far apart
TABLE_CELLS = 2**19  # of a table of windows by levels: a larger one does not stay in the processor's cache


class CountedColumn(ABC):
    """A column of the reference, each row as the number of a level."""

    codes: IntArray
    """Each row's level; -1 if missing."""
    levels: int
    """The number of levels."""

    @abstractmethod
    def distances(self, windows: IntArray, references: IntArray) -> FloatArray:
        """Return the distance of each pair of counts by level, a row per pair; NaN where a side has no rows."""

    def counts_between(self, bounds: IntArray) -> IntArray:
        """Return the counts of the rows between each pair of bounds, a row per pair; of missing values first."""
        distinct, position = np.unique(bounds, return_inverse=True)
        part = np.searchsorted(distinct, np.arange(distinct[0], distinct[-1]), side="right")
        parts = _count_levels(part, self.codes[distinct[0] : distinct[-1]], len(distinct), self.levels)
        cumulative = np.cumsum(parts, axis=0)
        first, end = position.reshape(bounds.shape).T
        between: IntArray = cumulative[end] - cumulative[first]
        return between


class NumericCounts(CountedColumn):
    """A numeric column."""

    level_is_value = False
    """Whether the rows of a level all have the same value."""

    def __init__(self, column: pd.Series) -> None:
        """Keep the column's values."""
        self._values = to_float_array(column)
        self._present = ~np.isnan(self._values)

    def mode_shares(self, windows: IntArray, starts: IntArray, length: int) -> FloatArray:
        """Return the fraction of the most common value of each window.

        Args:
            windows: The windows' counts by level.
            starts: The first rows of the windows.
            length: Rows of a window.
        """
        if self.level_is_value:
            with np.errstate(invalid="ignore"):  # a window without values: NaN
                shares: FloatArray = windows.max(axis=1, initial=0) / windows.sum(axis=1)
            return shares
        values = (self._values[start : start + length] for start in starts.tolist())
        return np.array([mode_share(np.sort(window[~np.isnan(window)])) for window in values])


class GridCounts(NumericCounts):
    """A numeric column for Wasserstein distances; levels are its values, or quantiles of them if there are too many."""

    def __init__(self, column: pd.Series) -> None:
        """Choose the levels."""
        super().__init__(column)
        grid = np.unique(self._values[self._present])
        self.level_is_value = len(grid) <= MAX_GRID
        if not self.level_is_value:
            quantiles = np.quantile(grid, np.linspace(0, 1, MAX_GRID))
            grid = np.unique(np.concatenate([grid[:EXACT_TAIL], quantiles, grid[-EXACT_TAIL:]]))
        self._grid = grid
        self.levels = len(grid)
        self.codes = np.full(len(self._values), -1, dtype=np.int64)
        self.codes[self._present] = np.searchsorted((grid[:-1] + grid[1:]) / 2, self._values[self._present])

    def distances(self, windows: IntArray, references: IntArray) -> FloatArray:
        """Return the Wasserstein distances."""
        grid = self._grid
        with np.errstate(divide="ignore", invalid="ignore"):
            m, n = windows.sum(axis=1, keepdims=True), references.sum(axis=1, keepdims=True)
            mean = (references @ grid)[:, None] / n
            std = np.sqrt(np.einsum("wl,wl->w", references, (grid - mean) ** 2) / n[:, 0])
            cdf_gaps = np.abs(np.cumsum(windows, axis=1)[:, :-1] / m - np.cumsum(references, axis=1)[:, :-1] / n)
            distances: FloatArray = cdf_gaps @ np.diff(grid) / np.maximum(std, MIN_STD)
        return np.where((m > 0)[:, 0] & (n > 0)[:, 0], distances, NAN)


class BinnedCounts(NumericCounts):
    """A numeric column for distances by bins.

    A bin is a single value where the column has few, and otherwise one of those that evidently makes for the values of
    a window and the whole reference.
    """

    def __init__(self, column: pd.Series, distance: DistanceName, length: int) -> None:
        """Choose the bins for windows of ``length`` rows."""
        super().__init__(column)
        self._distance = distance
        present = self._present
        levels = np.unique(self._values[present])
        self._discrete = is_discrete(distance, len(levels)) or not len(levels)
        if self._discrete:
            lower_edges = levels[1:]
        else:
            size = len(levels) if distance == "hellinger" else int(present.sum() + length * present.mean())
            edges = bin_edges(float(levels[0]), float(levels[-1]), size)
            lower_edges = levels[:0] if edges is None else edges[1:-1]  # an infinite range: no window has a distance
        self.codes = np.where(present, np.searchsorted(lower_edges, self._values, side="right"), -1)
        self.levels = len(lower_edges) + 1

    def distances(self, windows: IntArray, references: IntArray) -> FloatArray:
        """Return the configured distances."""
        return _count_distances(self._distance, references, windows, drop_empty=self._discrete)


class CategoricalCounts(CountedColumn):
    """A categorical column."""

    def __init__(self, column: pd.Series, distance: DistanceName) -> None:
        """Number the levels."""
        self._distance = distance
        codes, levels = pd.factorize(column)
        self.codes, self.levels = codes.astype(np.int64), len(levels)

    def distances(self, windows: IntArray, references: IntArray) -> FloatArray:
        """Return the configured distances."""
        return _count_distances(self._distance, references, windows, drop_empty=True)


def count_column(column: pd.Series, column_type: ColumnType, distance: DistanceName, length: int) -> CountedColumn:
    """Return a column as counts by level, for windows of ``length`` rows."""
    if column_type == "category":
        return CategoricalCounts(column, distance)
    return GridCounts(column) if distance == "wasserstein" else BinnedCounts(column, distance, length)


def statistics_by_window(column: CountedColumn, starts: IntArray, length: int, embargoed: IntArray) -> FloatArray:
    """Return a column's statistics of every window, each against the reference without the window's embargoed rows.

    Args:
        column: The column.
        starts: The first rows of the windows.
        length: Rows of a window.
        embargoed: The first and the end row of what each window is not compared with.

    Returns:
        A row per window; its columns are in the order of :func:`driftloop.drift.statistics.statistic_keys`.
    """
    windows = sliding_window_view(column.codes, length)
    levels = column.levels
    all_counts = column.counts_between(np.array([[0, len(column.codes)]]))
    results = []
    for chunk in np.array_split(np.arange(len(starts)), math.ceil(len(starts) * (levels + length) / TABLE_CELLS)):
        window_counts = _count_levels(np.arange(len(chunk))[:, None], windows[starts[chunk]], len(chunk), levels)
        reference_counts = all_counts - column.counts_between(embargoed[chunk])
        distances = column.distances(window_counts[:, 1:], reference_counts[:, 1:])
        statistics = distances[:, None]
        if isinstance(column, NumericCounts):
            modes = column.mode_shares(window_counts[:, 1:], starts[chunk], length)
            statistics = np.column_stack([distances, modes])
        statistics[~(window_counts[:, 1:].any(axis=1) & reference_counts[:, 1:].any(axis=1))] = NAN
        results.append(np.insert(statistics, 1, missing_rate_changes(window_counts, reference_counts), axis=1))
    return np.concatenate(results)


def missing_rate_changes(windows: IntArray, references: IntArray) -> FloatArray:
    """Return the difference of the rates of missing values, a row per pair of counts; NaN where a side has no rows."""
    with np.errstate(divide="ignore", invalid="ignore"):
        rates = (counts[:, 0] / counts.sum(axis=1) for counts in (windows, references))
        return np.asarray(np.abs(next(rates) - next(rates)), dtype=np.float64)


def _count_levels(groups: IntArray, codes: IntArray, group_count: int, levels: int) -> IntArray:
    """Return the counts by level of each group of rows, those of missing values (code -1) in the first column."""
    cells = groups * (levels + 1) + codes + 1
    return np.bincount(cells.ravel(), minlength=group_count * (levels + 1)).reshape(group_count, levels + 1)


def _count_distances(
    distance: DistanceName, references: IntArray, windows: IntArray, *, drop_empty: bool
) -> FloatArray:
    """Return the distance of each pair of counts, a row per pair; NaN where a side has no rows.

    With ``drop_empty``, levels that neither side has are ignored: distances with a logarithm would count them.
    """
    result = np.full(len(windows), NAN)
    for row, (reference, window) in enumerate(zip(references, windows, strict=True)):
        if reference.any() and window.any():
            levels = reference + window > 0 if drop_empty else slice(None)
            fractions = reference[levels] / reference.sum(), window[levels] / window.sum()
            result[row] = DISTANCE_FUNCTIONS[distance](*fractions)
    return result
