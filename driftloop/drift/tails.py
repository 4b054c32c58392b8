"""Tails: how far statistics go in unchanged windows, and the score that only a given fraction of windows exceeds.

Statistics differ in their tails: the share of missing values is zero for months and large on the one day without
weather. So each statistic gets a scale of its own that reaches to the largest value it has ever had, and the score
threshold is learned from the common windows and not from the few extreme ones. A bad day in the reference then widens
the statistics that it was bad for, and no other. A day beyond all comparison, such as one without any weather, is no
tail but an outage; it is forgotten, so that the next one is an alarm.
"""

import numpy as np

from driftloop.drift.distances import FloatArray, IntArray

EULER_GAMMA = 0.5772  # mean of the standard Gumbel distribution
TAIL_SCALES = 6.0  # a Gumbel variable exceeds its location by so many scales once in 400 windows
OUTAGE_SCORE = 4 * TAIL_SCALES  # of an outage: four times as far as all other windows
FOLDS = 4  # consecutive parts of the reference, for cross-fitting
TAIL_FRACTION = 0.5  # largest scores, to which a tail is fitted
CENSORED_FRACTION = 0.1  # largest scores, of which only the number is used: they may come from a bad day
LASTING_SCORE = 1.0
"""Of the latest window, which three in ten unchanged ones exceed. In several windows taken as one, a statistic counts
only if the latest is above it: otherwise one bad day would be an alarm again with each of the windows after it."""
OVERLAP_GAIN = 1.5  # overlapping windows estimate a mean as well as 1.5 times as many windows side by side


def fit_gumbel(statistics: FloatArray, min_scales: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return location and scale of each column by the method of moments, ignoring NaN.

    A Gumbel distribution has standard deviation π · scale / √6 and mean location + γ · scale.
    """
    present = ~np.isnan(statistics)
    count = np.maximum(present.sum(axis=0), 1)
    mean = np.where(present, statistics, 0).sum(axis=0) / count
    std = np.sqrt(np.where(present, (statistics - mean) ** 2, 0).sum(axis=0) / count)
    scale = np.maximum(std * np.sqrt(6) / np.pi, min_scales)
    return mean - EULER_GAMMA * scale, scale


def largest_values(statistics: FloatArray) -> FloatArray:
    """Return the largest value of each column; of a column without values, one that widens nothing."""
    largest: FloatArray = np.max(np.where(np.isnan(statistics), -np.inf, statistics), axis=0, initial=-np.inf)
    return largest


def widen(locations: FloatArray, scales: FloatArray, largest: FloatArray) -> FloatArray:
    """Return the scales, widened such that the largest values are at most ``TAIL_SCALES`` of them away."""
    return np.maximum(scales, (largest - locations) / TAIL_SCALES)


def forget_outages(statistics: FloatArray, starts: IntArray, length: int, min_scales: FloatArray) -> FloatArray:
    """Return the statistics with NaN for the windows around a column's largest value, if it is beyond comparison.

    Args:
        statistics: A row per window.
        starts: The first row of each window, ascending.
        length: Rows of a window.
        min_scales: The smallest scale of each statistic.
    """
    result = statistics.copy()
    for column in range(statistics.shape[1]):
        values = np.where(np.isnan(statistics[:, column]), -np.inf, statistics[:, column])
        near = np.abs(starts - starts[np.argmax(values)]) <= length
        rest = statistics[~near, column : column + 1]
        if np.isnan(rest).all():
            continue
        location, scale = fit_gumbel(rest, min_scales[column : column + 1])
        reach = widen(location, scale, largest_values(rest))
        if values.max() > location[0] + OUTAGE_SCORE * reach[0]:
            result[near, column] = np.nan
    return result


def limit_to_lasting(standardized: FloatArray, latest: FloatArray) -> FloatArray:
    """Return the standardized statistics of windows taken as one, limited where the latest window is as usual.

    Args:
        standardized: The statistics of all windows together.
        latest: Those of the latest window alone.
    """
    return np.where(latest > LASTING_SCORE, standardized, np.minimum(standardized, LASTING_SCORE))


def cross_standardized(statistics: FloatArray, starts: IntArray, length: int, min_scales: FloatArray) -> FloatArray:
    """Return each window's statistics, standardized by location and scale of windows of the other folds.

    Windows that overlap a fold are not used for it. Scales are widened by the largest values of all folds: what a
    statistic has done once in the reference, it may do again.

    Args:
        statistics: A row per window.
        starts: The first row of each window, ascending.
        length: Rows of a window.
        min_scales: The smallest scale of each statistic.
    """
    largest = largest_values(statistics)
    standardized = np.empty_like(statistics)
    for fold in np.array_split(np.arange(len(starts)), FOLDS):
        disjoint = (starts + length <= starts[fold[0]]) | (starts >= starts[fold[-1]] + length)
        locations, scales = fit_gumbel(statistics[disjoint], min_scales)
        standardized[fold] = (statistics[fold] - locations) / widen(locations, scales, largest)
    return standardized


def score_threshold(scores: FloatArray, rate: float, independent_windows: float) -> float:
    """Return the score that a fraction ``rate`` of unchanged windows will exceed.

    The tail of a maximum of many statistics is exponential. It is fitted to the larger half of the scores; of the
    largest tenth only the number counts, not how large they are. Since the fit is from few windows, the next one's tail
    is that of a Pareto distribution, which approaches the exponential one the more independent windows there are.

    Args:
        scores: The largest standardized statistic of each window.
        rate: The fraction of windows.
        independent_windows: Windows that the reference has without overlap.
    """
    start = float(np.quantile(scores, 1 - TAIL_FRACTION))
    if rate >= TAIL_FRACTION:
        return float(np.quantile(scores, 1 - rate))
    excess = scores[scores > start] - start
    if not len(excess):
        return start
    cap = np.quantile(excess, 1 - CENSORED_FRACTION / TAIL_FRACTION)
    scale = np.minimum(excess, cap).sum() / max((excess < cap).sum(), 1)
    count = max(TAIL_FRACTION * OVERLAP_GAIN * independent_windows, 1.0)
    return float(start + scale * count * ((rate / TAIL_FRACTION) ** (-1 / count) - 1))
