"""The distributions of a column in reference and window, as the fractions of levels or bins that a chart shows."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from driftloop.drift.distances import ColumnType, FloatArray
from driftloop.drift.statistics import to_float_array

MAX_DISCRETE_VALUES = 20  # a numeric column with at most so many different numbers has a bar for each
BINS = 40
MAX_LEVELS = 12  # bars that can be read on a phone
TAIL_FRACTION = 0.005  # of the values on each side, which are counted in the outermost bins


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


def compute_fractions(
    column_type: ColumnType, reference: pd.Series, window: pd.Series
) -> LevelFractions | BinFractions:
    """Return a column's distribution in reference and window, as fractions of the values that are not missing.

    Numbers of which there are few are levels.
    """
    if column_type == "category":
        return _level_fractions(reference, window)
    reference_values, window_values = _finite_values(reference), _finite_values(window)
    numbers = np.unique(window_values)
    if len(numbers) <= MAX_DISCRETE_VALUES:  # only then is the reference sorted too: it is much longer
        numbers = np.union1d(numbers, reference_values)
    if len(numbers) <= MAX_DISCRETE_VALUES:
        return LevelFractions(
            [f"{number:.4g}" for number in numbers],
            _number_fractions(reference_values, numbers),
            _number_fractions(window_values, numbers),
        )
    edges = _bin_edges(reference_values, window_values)
    return BinFractions(
        ((edges[:-1] + edges[1:]) / 2).tolist(),
        _bin_fractions(reference_values, edges),
        _bin_fractions(window_values, edges),
    )


def _finite_values(column: pd.Series) -> FloatArray:
    values = to_float_array(column)
    return values[np.isfinite(values)]


def _number_fractions(values: FloatArray, numbers: FloatArray) -> list[float]:
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


def _level_fractions(reference: pd.Series, window: pd.Series) -> LevelFractions:
    """Return the fractions of the levels that are most common on either side, the most common first."""
    reference_fractions, window_fractions = (
        side.dropna().astype(str).value_counts(normalize=True) for side in (reference, window)
    )
    fractions = pd.DataFrame({"reference": reference_fractions, "window": window_fractions}).fillna(0.0)
    order = fractions.max(axis=1).sort_values(ascending=False, kind="stable").index
    shown, others = fractions.loc[order[:MAX_LEVELS]], fractions.loc[order[MAX_LEVELS:]].sum()
    left_out = len(order) - len(shown)
    text = f"{left_out} others: {others['reference']:.0%} → {others['window']:.0%}" if left_out else ""
    levels = [str(level) for level in shown.index]
    return LevelFractions(levels, shown["reference"].tolist(), shown["window"].tolist(), text)
