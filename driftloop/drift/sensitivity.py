"""Sensitivity: the smallest shift of a numeric column that is found in windows of the present."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from driftloop.drift.distances import DistanceName, FloatArray
from driftloop.drift.profile import CalibratedSpan, NullDistribution
from driftloop.drift.statistics import MIN_STD, NumericReference
from driftloop.drift.tails import LASTING_SCORE

FOUND_FRACTION = 0.95  # of windows, in which a shift has to be found
MAX_SHIFT = 8.0  # standard deviations; a column in which even such a shift is not found has no sensitivity
BISECTIONS = 12  # to 0.002 standard deviations
QUANTILES = 256  # that stand for the values of a window
MAX_WINDOWS = 40  # that are shifted


class ShiftedWindows:
    """Windows of a numeric column, and their distances to a reference when their values are shifted."""

    def __init__(self, reference: FloatArray, windows: Sequence[FloatArray], distance: DistanceName) -> None:
        """Prepare the values of reference and windows; none is missing, and each has at least one."""
        self._std = max(float(np.std(reference)), MIN_STD)
        self._is_wasserstein = distance == "wasserstein"
        if self._is_wasserstein:
            self._gaps = np.array([_quantiles(window) for window in windows]) - _quantiles(reference)
        else:
            self._windows = [np.sort(window) for window in windows]
            self._reference = NumericReference(pd.Series(reference), distance)

    def distances(self, shift: float) -> FloatArray:
        """Return each window's distance when ``shift`` standard deviations are added to its values."""
        if self._is_wasserstein:
            distances: FloatArray = np.abs(self._gaps + shift * self._std).mean(axis=1) / self._std
            return distances
        return np.array([self._reference.distance_to(values + shift * self._std) for values in self._windows])


def smallest_shift(
    column: str,
    values: FloatArray,
    distance: DistanceName,
    window_rows: int,
    span: CalibratedSpan,
    single: CalibratedSpan,
) -> float | None:
    """Return the smallest shift that is found in 95 % of a span's windows, upwards and downwards.

    Args:
        column: The column's name.
        values: Its values in the present stretch; NaN if missing.
        distance: Its distance.
        window_rows: Rows of a window.
        span: The span's calibration.
        single: The calibration of single windows: several windows are an alarm only if the latest one shows it, too.

    Returns:
        The shift in standard deviations of the values; ``None`` if even a large one is not found.
    """
    reference = values[~np.isnan(values)]
    starts = np.linspace(0, len(values) - span.windows * window_rows, MAX_WINDOWS).astype(int)
    windows = [values[start : start + span.windows * window_rows] for start in starts.tolist()]
    pairs = [(_present(window), _present(window[-window_rows:])) for window in windows]
    pairs = [pair for pair in pairs if len(pair[1])]
    if not pairs:
        return None
    whole, latest = (ShiftedWindows(reference, side, distance) for side in zip(*pairs, strict=True))
    threshold = span.threshold(_null(span, column, distance))
    null = _null(single, column, distance)
    lasting = null.location + LASTING_SCORE * null.scale

    def found(shift: float) -> float:
        is_found = whole.distances(shift) > threshold
        if span.windows > 1:
            is_found &= latest.distances(shift) > lasting
        return float(is_found.mean())

    shifts = [_bisect(lambda shift, sign=sign: found(sign * shift)) for sign in (1, -1)]  # type: ignore[misc]
    return None if None in shifts else max(shift for shift in shifts if shift is not None)


def _quantiles(values: FloatArray) -> FloatArray:
    positions = (np.arange(QUANTILES) + 0.5) / QUANTILES * len(values)
    return np.asarray(np.sort(values)[positions.astype(int)])


def _present(values: FloatArray) -> FloatArray:
    return values[~np.isnan(values)]


def _null(span: CalibratedSpan, column: str, distance: DistanceName) -> NullDistribution:
    return next(null for null in span.null_distributions if (null.column, null.statistic) == (column, distance))


def _bisect(found: Callable[[float], float]) -> float | None:
    low, high = 0.0, MAX_SHIFT
    if found(high) < FOUND_FRACTION:
        return None
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if found(middle) >= FOUND_FRACTION else (middle, high)
    return high
