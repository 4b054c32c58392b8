"""Calibration: learn how large each statistic grows in the reference's own windows, when nothing has changed.

A fixed threshold cannot account for autocorrelated hours, sparse categories and columns that move together. So location
and scale of every statistic are learned from consecutive windows of the reference, and one score threshold for all
columns together bounds the rate of false alarms. Windows are scored alone and together with the ones before them: a
change too small to be seen in one window can be seen in three.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view
from pydantic import BaseModel

from driftloop.drift.comparable_columns import COLUMN_TYPES, FeatureKind
from driftloop.drift.distances import (
    DISTANCE_FUNCTIONS,
    DISTANCES,
    ColumnType,
    DistanceName,
    FloatArray,
    IntArray,
    bin_edges,
    is_discrete,
)
from driftloop.drift.statistics import (
    MIN_STD,
    NAN,
    StatisticName,
    distance_for,
    mode_share,
    statistic_keys,
    to_float_array,
)
from driftloop.errors import InvalidInput

EULER_GAMMA = 0.5772  # mean of the standard Gumbel distribution
MIN_SCALES: dict[StatisticName, float] = {  # a statistic that never varied in the reference still needs a scale
    # Of a standard deviation, or of the largest possible distance; 1 % of a PSI that is commonly called small (0.1).
    **dict.fromkeys(DISTANCES["number"], 0.001),
    "missing_rate_change": 0.005,
    "mode_share": 0.05,
}
SPAN_WINDOWS = (1, 3)  # numbers of consecutive windows that are scored together
STRIDES_PER_WINDOW = 10  # windows of the reference start a tenth of their length apart
MAX_WINDOWS = 2_000  # per span; more windows take longer and do not change the result
FOLDS = 4  # consecutive parts of the reference, for cross-fitting
EMBARGO_DAYS = 3  # rows within them may resemble a window more than later rows will
MIN_INDEPENDENT_WINDOWS = 20  # windows without overlap; with fewer, a 1 % threshold would be a guess
MAX_GRID = 2_048  # distinct numbers; a column with more is rounded to as many quantiles, for calibration only
EXACT_TAIL = 256  # smallest and largest numbers that are not rounded: in a long tail two quantiles are far apart
TABLE_CELLS = 2**19  # of a table of windows by levels: a larger one does not stay in the processor's cache


class NullDistribution(BaseModel, frozen=True):
    """Location and scale (of a Gumbel distribution) of one statistic in windows in which nothing has changed."""

    column: str
    statistic: StatisticName
    location: float
    scale: float


class CalibratedSpan(BaseModel, frozen=True):
    """The calibration for a number of consecutive windows that are scored together."""

    windows: int
    score_threshold: float
    """A score above it is an alarm."""
    null_distributions: list[NullDistribution]


class DriftProfile(BaseModel, frozen=True):
    """The result of calibration. It is stored with the reference, and windows are scored with it."""

    window_rows: int
    """Rows of a window. The profile does not hold for windows of another length."""
    false_alarm_rate: float
    """Fraction of windows that raise an alarm though nothing has changed, all spans together."""
    kinds: dict[str, FeatureKind]
    """What each column holds."""
    distances: dict[str, DistanceName] = {}
    """Distances of the columns that do not use the default of their type."""
    spans: list[CalibratedSpan]
    importance: dict[str, float] = {}
    """Permutation importance of each feature: the loss of quality when the feature is shuffled."""

    @property
    def column_types(self) -> dict[str, ColumnType]:
        """What each column is compared as."""
        return {column: COLUMN_TYPES[kind] for column, kind in self.kinds.items()}

    @property
    def normally_constant_columns(self) -> set[str]:
        """Columns that can be constant in a window though nothing has changed, such as rain on dry days."""
        single = self.spans[0]
        return {
            null.column
            for null in single.null_distributions
            if null.statistic == "mode_share" and null.location + single.score_threshold * null.scale >= 1
        }


class InsufficientReference(InvalidInput):
    """The reference has too few windows to calibrate with."""


def require_enough_rows(reference_rows: int, window_rows: int) -> None:
    """Raise :class:`InsufficientReference` if the reference is too small for windows of this length."""
    required = MIN_INDEPENDENT_WINDOWS * window_rows
    if reference_rows < required:
        raise InsufficientReference(
            f"a reference of {reference_rows} rows is too small to learn what windows of {window_rows} rows look like: "
            f"{required - reference_rows} more rows are needed, or a shorter window (DRIFTLOOP_WINDOW__ROWS)"
        )


def calibrate(
    reference: pd.DataFrame,
    days: IntArray,
    kinds: Mapping[str, FeatureKind],
    *,
    window_rows: int,
    false_alarm_rate: float,
    embargo_days: int = EMBARGO_DAYS,
    importance: Mapping[str, float] = {},
    distances: Mapping[str, DistanceName] = {},
) -> DriftProfile:
    """Learn a drift profile from a reference.

    Each window of the reference is compared with the reference without the rows within ``embargo_days`` of it, because
    a window that is scored later is not part of the reference either. A span for which the reference has fewer than 20
    independent windows is left out.

    Args:
        reference: The reference's comparable rows, in order of time.
        days: The ordinal of each row's day.
        kinds: The columns to calibrate and what they hold.
        window_rows: The length of the windows that will be scored.
        false_alarm_rate: Fraction of unchanged windows that may raise an alarm. It is divided evenly among the spans.
        embargo_days: Days before and after a window that it is not compared with.
        importance: Permutation importance of each feature; stored in the profile.
        distances: Distances of the columns that do not use the default of their type.

    Raises:
        InsufficientReference: The reference is too small even for single windows.
    """
    require_enough_rows(len(reference), window_rows)
    column_types = {column: COLUMN_TYPES[kind] for column, kind in kinds.items()}
    spans = [span for span in SPAN_WINDOWS if len(reference) >= MIN_INDEPENDENT_WINDOWS * window_rows * span]
    return DriftProfile(
        window_rows=window_rows,
        false_alarm_rate=false_alarm_rate,
        kinds=dict(kinds),
        distances=dict(distances),
        spans=[
            _calibrate_span(
                reference, days, column_types, distances, span, window_rows, false_alarm_rate / len(spans), embargo_days
            )
            for span in spans
        ],
        importance=dict(importance),
    )


def _calibrate_span(
    reference: pd.DataFrame,
    days: IntArray,
    column_types: Mapping[str, ColumnType],
    distances: Mapping[str, DistanceName],
    windows: int,
    window_rows: int,
    false_alarm_rate: float,
    embargo_days: int,
) -> CalibratedSpan:
    length = window_rows * windows
    last = len(reference) - length
    starts = np.arange(0, last + 1, max(window_rows // STRIDES_PER_WINDOW, 1, last // MAX_WINDOWS))
    embargoed = np.column_stack(
        [
            np.searchsorted(days, days[starts] - embargo_days, side="left"),
            np.searchsorted(days, days[starts + length - 1] + embargo_days, side="right"),
        ]
    )
    embargoed = np.maximum.accumulate(embargoed, axis=1)  # a negative embargo excludes nothing
    statistics = np.column_stack(
        [
            _statistics_by_window(
                reference[column],
                column_type,
                distance_for(column, column_types, distances),
                starts,
                length,
                embargoed,
            )
            for column, column_type in column_types.items()
        ]
    )
    keys = statistic_keys(column_types, distances)
    # One row changes a fraction of a window by 1 / window_rows; with a smaller scale a single row could be an alarm.
    min_scales = np.array([max(MIN_SCALES[key.statistic], 1 / window_rows) for key in keys])
    locations, scales = _fit_gumbel(statistics, min_scales)
    scores = _cross_fitted_scores(statistics, starts, min_scales, length)
    return CalibratedSpan(
        windows=windows,
        score_threshold=float(np.quantile(scores, 1 - false_alarm_rate)),
        null_distributions=[
            NullDistribution(column=key.column, statistic=key.statistic, location=float(location), scale=float(scale))
            for key, location, scale in zip(keys, locations, scales, strict=True)
        ],
    )


def _statistics_by_window(
    column: pd.Series,
    column_type: ColumnType,
    distance: DistanceName,
    starts: IntArray,
    length: int,
    embargoed: IntArray,
) -> FloatArray:
    """Return a column's statistics of every window, each against the reference without the window's embargoed rows.

    ``starts`` are the first rows of the windows, ``embargoed`` the first and the end row of what each window is not
    compared with. The result has a row per window; its columns are in the order of :func:`statistic_keys`.
    """
    if column_type == "category":
        measure, codes, levels = _categorical_measure(column, distance)
    elif distance == "wasserstein":
        measure, codes, levels = _grid_measure(column)
    else:
        measure, codes, levels = _binned_measure(column, distance, length)
    windows = sliding_window_view(codes, length)
    all_counts = _count_levels(np.zeros(1, dtype=np.int64), codes, 1, levels)
    results = []
    for chunk in np.array_split(np.arange(len(starts)), math.ceil(len(starts) * (levels + length) / TABLE_CELLS)):
        window_counts = _count_levels(np.arange(len(chunk))[:, None], windows[starts[chunk]], len(chunk), levels)
        reference_counts = all_counts - _counts_between_bounds(codes, levels, embargoed[chunk])
        with np.errstate(divide="ignore", invalid="ignore"):  # a side without values has no distance: NaN below
            reference_missing_rate = reference_counts[:, 0] / reference_counts.sum(axis=1)
            missing_rate_change = np.abs(window_counts[:, 0] / length - reference_missing_rate)
            statistics = measure(window_counts[:, 1:], reference_counts[:, 1:], starts[chunk], length)
        statistics[~(window_counts[:, 1:].any(axis=1) & reference_counts[:, 1:].any(axis=1))] = NAN
        results.append(np.insert(statistics, 1, missing_rate_change, axis=1))
    return np.concatenate(results)


def _counts_between_bounds(codes: IntArray, levels: int, bounds: IntArray) -> IntArray:
    """Return the counts by level of the rows between each pair of bounds, a row per pair."""
    distinct, position = np.unique(bounds, return_inverse=True)
    part = np.searchsorted(distinct, np.arange(distinct[0], distinct[-1]), side="right")
    parts = _count_levels(part, codes[distinct[0] : distinct[-1]], len(distinct), levels)
    cumulative = np.cumsum(parts, axis=0)
    first, end = position.reshape(bounds.shape).T
    between: IntArray = cumulative[end] - cumulative[first]
    return between


def _count_levels(groups: IntArray, codes: IntArray, group_count: int, levels: int) -> IntArray:
    """Return the counts by level of each group of rows, those of missing values (code -1) in the first column."""
    cells = groups * (levels + 1) + codes + 1
    return np.bincount(cells.ravel(), minlength=group_count * (levels + 1)).reshape(group_count, levels + 1)


WindowMeasure = Callable[[IntArray, IntArray, IntArray, int], FloatArray]
"""Computes the statistics of many windows from counts.

Arguments: the windows' counts by level, the reference's counts by level, the windows' first rows and their length. The
result has a row per window: the distance and, for numbers, the mode share.
"""


def _grid_measure(column: pd.Series) -> tuple[WindowMeasure, IntArray, int]:
    """Return the Wasserstein measure of a numeric column, each row's level (-1 if missing), and the number of levels.

    The levels are the column's distinct values, or quantiles of them if there are too many.
    """
    values = to_float_array(column)
    present = ~np.isnan(values)
    grid = np.unique(values[present])
    exact = len(grid) <= MAX_GRID
    if not exact:
        quantiles = np.quantile(grid, np.linspace(0, 1, MAX_GRID))
        grid = np.unique(np.concatenate([grid[:EXACT_TAIL], quantiles, grid[-EXACT_TAIL:]]))
    codes = np.full(len(values), -1, dtype=np.int64)
    codes[present] = np.searchsorted((grid[:-1] + grid[1:]) / 2, values[present])
    steps = np.diff(grid)

    def measure(window: IntArray, reference: IntArray, starts: IntArray, length: int) -> FloatArray:
        m, n = window.sum(axis=1, keepdims=True), reference.sum(axis=1, keepdims=True)
        mean = (reference @ grid)[:, None] / n
        std = np.sqrt(np.einsum("wl,wl->w", reference, (grid - mean) ** 2) / n[:, 0])
        cdf_gaps = np.abs(np.cumsum(window, axis=1)[:, :-1] / m - np.cumsum(reference, axis=1)[:, :-1] / n)
        modes = window.max(axis=1, initial=0) / m[:, 0] if exact else _mode_shares(values, starts, length)
        return np.column_stack([cdf_gaps @ steps / np.maximum(std, MIN_STD), modes])

    return measure, codes, len(grid)


def _binned_measure(column: pd.Series, distance: DistanceName, length: int) -> tuple[WindowMeasure, IntArray, int]:
    """Return the measure of a numeric column by bins, each row's bin (-1 if missing), and the number of bins.

    A bin is a single value where the column has few, and otherwise one of those that evidently makes for the values of
    a window and the whole reference.
    """
    values = to_float_array(column)
    present = ~np.isnan(values)
    levels = np.unique(values[present])
    discrete = is_discrete(distance, len(levels)) or not len(levels)
    if discrete:
        lower_edges = levels[1:]
    else:
        size = len(levels) if distance == "hellinger" else int(present.sum() + length * present.mean())
        edges = bin_edges(float(levels[0]), float(levels[-1]), size)
        lower_edges = levels[:0] if edges is None else edges[1:-1]  # an infinite range: no window has a distance
    codes = np.where(present, np.searchsorted(lower_edges, values, side="right"), -1)

    def measure(window: IntArray, reference: IntArray, starts: IntArray, length: int) -> FloatArray:
        distances = _count_distances(distance, reference, window, drop_empty=discrete)
        return np.column_stack([distances, _mode_shares(values, starts, length)])

    return measure, codes, len(lower_edges) + 1


def _categorical_measure(column: pd.Series, distance: DistanceName) -> tuple[WindowMeasure, IntArray, int]:
    """Return the measure of a categorical column, each row's level (-1 if missing), and the number of levels."""
    codes, levels = pd.factorize(column)

    def measure(window: IntArray, reference: IntArray, _: IntArray, __: int) -> FloatArray:
        return _count_distances(distance, reference, window, drop_empty=True)[:, None]

    return measure, codes.astype(np.int64), len(levels)


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


def _mode_shares(values: FloatArray, starts: IntArray, length: int) -> FloatArray:
    windows = (values[start : start + length] for start in starts.tolist())
    return np.array([mode_share(np.sort(window[~np.isnan(window)])) for window in windows])


def _fit_gumbel(statistics: FloatArray, min_scales: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return location and scale of each column by the method of moments, ignoring NaN.

    A Gumbel distribution has standard deviation π · scale / √6 and mean location + γ · scale.
    """
    present = ~np.isnan(statistics)
    count = np.maximum(present.sum(axis=0), 1)
    mean = np.where(present, statistics, 0).sum(axis=0) / count
    std = np.sqrt(np.where(present, (statistics - mean) ** 2, 0).sum(axis=0) / count)
    scale = np.maximum(std * np.sqrt(6) / np.pi, min_scales)
    return mean - EULER_GAMMA * scale, scale


def _cross_fitted_scores(statistics: FloatArray, starts: IntArray, min_scales: FloatArray, length: int) -> FloatArray:
    """Return each window's score by the location and scale of the other folds, without windows that overlap its own."""
    scores = np.empty(len(starts))
    for fold in np.array_split(np.arange(len(starts)), FOLDS):
        disjoint = (starts + length <= starts[fold[0]]) | (starts >= starts[fold[-1]] + length)
        location, scale = _fit_gumbel(statistics[disjoint], min_scales)
        scores[fold] = np.nanmax((statistics[fold] - location) / scale, axis=1)
    return scores
