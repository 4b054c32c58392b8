"""Distances between two distributions, computed as evidently does: on the fractions of rows per value or per bin.

evidently's tests that return a p-value are left out: a p-value depends on the number of rows, which says nothing about
the size of a change.
"""

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import rel_entr

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
ColumnType = Literal["number", "category"]
DistanceName = Literal["wasserstein", "jensenshannon", "psi", "kl_div", "hellinger"]

DISTANCES: dict[ColumnType, tuple[DistanceName, ...]] = {
    "number": ("wasserstein", "jensenshannon", "psi", "kl_div", "hellinger"),
    "category": ("jensenshannon", "psi", "kl_div", "hellinger"),
}
"""Distances by column type, the default first."""
MAX_DISCRETE_VALUES = 20  # evidently: numbers with at most so many different values are compared value by value
MIN_FRACTION = 0.0001  # evidently: replaces a fraction of 0 where a logarithm is taken


def jensenshannon(reference: FloatArray, window: FloatArray) -> float:
    """Return the Jensen–Shannon distance, with natural logarithms.

    Its square is the mean of the relative entropies of both distributions to their average.
    """
    mean = (reference + window) / 2
    divergence = rel_entr(window, mean).sum() + rel_entr(reference, mean).sum()
    return float(np.sqrt(max(divergence, 0) / 2))


def psi(reference: FloatArray, window: FloatArray) -> float:
    """Return the population stability index: the sum of both relative entropies, Σ (r - w) · ln(r / w)."""
    r, w = _replace_zeros(reference), _replace_zeros(window)
    return float(((r - w) * np.log(r / w)).sum())


def kl_div(reference: FloatArray, window: FloatArray) -> float:
    """Return the Kullback–Leibler divergence of the window from the reference, Σ r · ln(r / w)."""
    r, w = _replace_zeros(reference), _replace_zeros(window)
    return float(rel_entr(r / r.sum(), w / w.sum()).sum())


def hellinger(reference: FloatArray, window: FloatArray) -> float:
    """Return the Hellinger distance, √(1 - Σ √(r · w)); the sum is the Bhattacharyya coefficient."""
    return float(np.sqrt(1 - np.clip(np.sqrt(reference * window).sum(), 0, 1)))


DISTANCE_FUNCTIONS: dict[DistanceName, Callable[[FloatArray, FloatArray], float]] = {
    "jensenshannon": jensenshannon,
    "psi": psi,
    "kl_div": kl_div,
    "hellinger": hellinger,
}
"""Distances of two arrays of fractions: of the same values or bins in the same order, each array with sum 1."""


def is_discrete(distance: DistanceName, distinct_values: int) -> bool:
    """Return whether a reference with so many distinct numbers is compared value by value instead of in bins."""
    return distance != "hellinger" and distinct_values <= MAX_DISCRETE_VALUES


def bin_edges(low: float, high: float, size: int) -> FloatArray | None:
    """Return the edges of the bins that numpy's "sturges" rule makes for ``size`` numbers between low and high.

    Only the range and the count are needed, not the numbers. None if the range is infinite: a request may contain
    1e999.
    """
    span = high - low
    if not math.isfinite(span):
        return None
    width = span / (np.log2(size) + 1)
    return np.linspace(low, high, math.ceil(span / width) + 1) if width else np.array([low, high])


def bin_counts(sorted_values: FloatArray, edges: FloatArray) -> IntArray:
    """Return how many of the sorted values are in each bin; the last bin includes its upper edge."""
    below = sorted_values.searchsorted(edges[:-1], side="left")
    return np.diff(np.append(below, sorted_values.searchsorted(edges[-1], side="right")))


def _replace_zeros(fractions: FloatArray) -> FloatArray:
    """Return the fractions with zeros replaced by a small number, chosen as evidently does."""
    smallest = fractions[fractions > 0].min()
    return np.where(fractions == 0, smallest / 10**6 if smallest <= MIN_FRACTION else MIN_FRACTION, fractions)
