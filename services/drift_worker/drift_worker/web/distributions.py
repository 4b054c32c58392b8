"""A column in reference and window: the fractions of levels or bins that a chart shows, and the numbers beside it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from driftloop.drift.distances import ColumnType, FloatArray
from driftloop.drift.statistics import to_float_array

MAX_DISCRETE_VALUES = 20  # a numeric column with at most so many different numbers has a bar for each
BINS = 40
MAX_LEVELS = 12  # bars that can be read on a phone
TAIL_FRACTION = 0.005  # of the values on each side, which are counted in the outermost bins
MAX_CHANGES = 3  # levels whose change is written beside the chart
NUMBER_STATISTICS: Mapping[str, Callable[[FloatArray], Any]] = {
    "mean": np.mean,
    "median": np.median,
    "standard deviation": np.std,
}


class LevelFractions(NamedTuple):
    """The fractions of levels in reference and window."""

    levels: list[str]
    reference: list[float]
    window: list[float]
    others: str = ""
    """A text about the levels that are left out, with their fractions together; empty if there are none."""


class BinFractions(NamedTuple):
    """The fractions of bins of numbers in reference and window."""

    centers: list[float]
    reference: list[float]
    window: list[float]


class Statistic(NamedTuple):
    """A number about a column in reference and window."""

    name: str
    reference: float | None
    """``None`` if the column has no value there."""
    window: float | None
    is_fraction: bool = False


class ColumnComparison(NamedTuple):
    """A column in reference and window."""

    fractions: LevelFractions | BinFractions
    """Of the values that are not missing."""
    statistics: list[Statistic]
    """Of a number its mean, median and standard deviation, of a category the levels that changed most; and the fraction
    of missing values."""


def compare_column(column_type: ColumnType, reference: pd.Series, window: pd.Series) -> ColumnComparison:
    """Compare a column's values in reference and window. Numbers of which there are few are shown as levels."""
    missing = Statistic("missing", float(reference.isna().mean()), float(window.isna().mean()), is_fraction=True)
    if column_type == "category":
        levels = _level_table(reference, window)
        return ColumnComparison(_level_fractions(levels), [*_largest_changes(levels), missing])
    reference_values, window_values = _finite_values(reference), _finite_values(window)
    statistics = [
        Statistic(name, _statistic(function, reference_values), _statistic(function, window_values))
        for name, function in NUMBER_STATISTICS.items()
    ]
    return ColumnComparison(_number_fractions(reference_values, window_values), [*statistics, missing])


def _statistic(function: Callable[[FloatArray], Any], values: FloatArray) -> float | None:
    return float(function(values)) if len(values) else None


def _number_fractions(reference: FloatArray, window: FloatArray) -> LevelFractions | BinFractions:
    numbers = np.unique(window)
    if len(numbers) <= MAX_DISCRETE_VALUES:  # only then is the reference sorted too: it is much longer
        numbers = np.union1d(numbers, reference)
    if len(numbers) <= MAX_DISCRETE_VALUES:
        return LevelFractions(
            [f"{number:.4g}" for number in numbers],
            _fractions_of(reference, numbers),
            _fractions_of(window, numbers),
        )
    edges = _bin_edges(reference, window)
    return BinFractions(
        ((edges[:-1] + edges[1:]) / 2).tolist(), _bin_fractions(reference, edges), _bin_fractions(window, edges)
    )


def _finite_values(column: pd.Series) -> FloatArray:
    values = to_float_array(column)
    return values[np.isfinite(values)]


def _fractions_of(values: FloatArray, numbers: FloatArray) -> list[float]:
    """Return the fraction of values that equal each number."""
    return [float((values == number).sum()) / max(len(values), 1) for number in numbers]


def _bin_edges(reference: FloatArray, window: FloatArray) -> FloatArray:
    ends = [np.quantile(side, [TAIL_FRACTION, 1 - TAIL_FRACTION]) for side in (reference, window) if len(side)]
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    return np.linspace(low, high if high > low else low + 1, BINS + 1)


def _bin_fractions(values: FloatArray, edges: FloatArray) -> list[float]:
    """Return the fraction of values in each bin; values outside of the edges count in the outermost bins."""
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return [float(count) for count in counts / max(len(values), 1)]


def _level_table(reference: pd.Series, window: pd.Series) -> pd.DataFrame:
    """Return the fractions of all levels in ``reference`` and ``window``, the most common on either side first."""
    reference_fractions, window_fractions = (
        side.dropna().astype(str).value_counts(normalize=True) for side in (reference, window)
    )
    fractions = pd.DataFrame({"reference": reference_fractions, "window": window_fractions}).fillna(0.0)
    return fractions.loc[fractions.max(axis=1).sort_values(ascending=False, kind="stable").index]


def _level_fractions(levels: pd.DataFrame) -> LevelFractions:
    shown, others = levels.iloc[:MAX_LEVELS], levels.iloc[MAX_LEVELS:].sum()
    left_out = len(levels) - len(shown)
    text = f"{left_out} others: {others['reference']:.0%} → {others['window']:.0%}" if left_out else ""
    names = [str(level) for level in shown.index]
    return LevelFractions(names, shown["reference"].tolist(), shown["window"].tolist(), text)


def _largest_changes(levels: pd.DataFrame) -> list[Statistic]:
    """Return the levels whose fraction changed most, the largest change first."""
    changes = (levels["window"] - levels["reference"]).abs().sort_values(ascending=False, kind="stable")
    largest = levels.loc[changes.index[:MAX_CHANGES]]
    return [
        Statistic(str(level), reference, window, is_fraction=True)
        for level, reference, window in zip(
            largest.index, largest["reference"].tolist(), largest["window"].tolist(), strict=True
        )
    ]
