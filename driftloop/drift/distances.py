"""Distances between two distributions, as evidently computes them: between shares by level or by bin.

evidently's tests that give a p-value are left out: that depends on the number of rows, which says nothing of a change.
"""

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import rel_entr

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Kind = Literal["number", "category"]
Distance = Literal["wasserstein", "jensenshannon", "psi", "kl_div", "hellinger"]

DISTANCES: dict[Kind, tuple[Distance, ...]] = {
    "number": ("wasserstein", "jensenshannon", "psi", "kl_div", "hellinger"),
    "category": ("jensenshannon", "psi", "kl_div", "hellinger"),
}
"""By kind of column, the default first."""
FEW = 20  # different numbers of a reference, up to which each is a level of its own
LEAST_SHARE = 0.0001  # of a level that one side lacks, where a logarithm needs one


def jensenshannon(reference: Floats, window: Floats) -> float:
    """With natural logarithm; its square is the mean relative entropy of both to their mean."""
    mean = (reference + window) / 2
    divergence = rel_entr(window, mean).sum() + rel_entr(reference, mean).sum()
    return float(np.sqrt(max(divergence, 0) / 2))


def psi(reference: Floats, window: Floats) -> float:
    """The population stability index: the relative entropies of both to one another, added."""
    before, now = _without_zeros(reference), _without_zeros(window)
    return float(((before - now) * np.log(before / now)).sum())


def kl_div(reference: Floats, window: Floats) -> float:
    """The relative entropy of the reference to the window."""
    before, now = _without_zeros(reference), _without_zeros(window)
    return float(rel_entr(before / before.sum(), now / now.sum()).sum())


def hellinger(reference: Floats, window: Floats) -> float:
    """The square root of what the Bhattacharyya coefficient lacks to 1."""
    return float(np.sqrt(1 - np.clip(np.sqrt(reference * window).sum(), 0, 1)))


OF_SHARES: dict[Distance, Callable[[Floats, Floats], float]] = {
    "jensenshannon": jensenshannon,
    "psi": psi,
    "kl_div": kl_div,
    "hellinger": hellinger,
}
"""Of two arrays of shares, which stand for the same levels and add up to 1 each."""


def by_level(method: Distance, levels: int) -> bool:
    """Whether a column is compared value by value, and not in bins, given how many values its reference has."""
    return method != "hellinger" and levels <= FEW


def edges(low: float, high: float, size: int) -> Floats | None:
    """The bins that numpy's rule "sturges" makes of ``size`` numbers between ``low`` and ``high``, without them.

    None where the range is infinite: a request may hold 1e999.
    """
    span = high - low
    if not math.isfinite(span):
        return None
    width = span / (np.log2(size) + 1)
    return np.linspace(low, high, math.ceil(span / width) + 1) if width else np.array([low, high])


def counts_between(ordered: Floats, bounds: Floats) -> Integers:
    """How many of the sorted numbers lie in each bin, the last of which holds its upper bound too."""
    below = ordered.searchsorted(bounds[:-1], side="left")
    return np.diff(np.append(below, ordered.searchsorted(bounds[-1], side="right")))


def _without_zeros(shares: Floats) -> Floats:
    least = shares[shares > 0].min()
    return np.where(shares == 0, least / 10**6 if least <= LEAST_SHARE else LEAST_SHARE, shares)
