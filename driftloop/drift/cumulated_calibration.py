"""Calibration of the cumulated score: what statistics are in the reference's own windows, and how far sums may go.

A sum of deviations is decided by what a window hardly shows: how much the mean of many windows varies, which is more
where days resemble the days before, and how uncertain the reference's own location is. Both are learned from the
reference, and the limits of sums from simulated streams that vary so. Sums over resampled windows of the reference
would stay too small: a reference has too few windows for what happens once in a thousand.
"""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import pandas as pd

from driftloop.drift.cumulated import (
    MAX_DEVIATION,
    CumulatedCalibration,
    CumulatedColumn,
    CumulatedStatistic,
    MeanName,
    means,
    standardize,
)
from driftloop.drift.distances import ColumnType, FloatArray
from driftloop.drift.statistics import to_float_array
from driftloop.drift.window_length import MIN_INDEPENDENT_WINDOWS
from driftloop.events import Label

CUT_POINTS = 63  # quantiles that ranks are counted by; more change no mean rank
MAX_LEVELS = 10  # of a category whose shares are watched; rarer ones say little in a window
MIN_SCALES: dict[MeanName, float] = {"mean_rank": 0.002, "level_share": 0.002, "missing_rate": 0.005}
WINSORIZED = 0.025  # fraction of the windows on either side, so that a bad day does not widen a scale
MIN_ALLOWANCE = 0.5  # scales; half of the change that is found soonest
ALLOWANCE_ERRORS = 5.0  # standard errors of the location: the reference's own error must not add up
BLOCKS = 6  # of a reference
MIN_BLOCK_WINDOWS = 3
RATIO_GRID = (1.0, 2.0, 4.0, 8.0, 16.0)  # variance ratios that limits are simulated for
OWN_DEGREES = 6.0  # degrees of freedom of a statistic's own variance ratio, from so many blocks
DEGREES = 20.0  # and together with what all statistics have in common
RATIO_BIAS = 1.5  # blocks of a short reference show two thirds of what autocorrelation adds
STREAMS = 1_000  # for each ratio
MAX_STEPS = 2_000  # windows of a stream
MIN_HITS = 10  # streams beyond a limit, with fewer of which it is extrapolated
SEED = 19


def calibrate_cumulated(
    present: pd.DataFrame, column_types: Mapping[str, ColumnType], window_rows: int, run_length: int
) -> CumulatedCalibration | None:
    """Learn the cumulated score's calibration; ``None`` if the present stretch has too few windows.

    Args:
        present: The rows of the reference's present stretch, in order of time.
        column_types: The columns and their types.
        window_rows: Rows of a window.
        run_length: Windows to the first false alarm, on average.
    """
    windows = len(present) // window_rows
    if windows < MIN_INDEPENDENT_WINDOWS:
        return None
    rows = present.iloc[len(present) - windows * window_rows :]
    columns = [_describe(present[name], column_type) for name, column_type in column_types.items()]
    statistics = np.concatenate(
        [means(column.row_values(rows).reshape(windows, window_rows, -1)) for column in columns], axis=1
    )
    names = [(column.column, *name) for column in columns for name in column.statistics]
    min_scales = np.array([MIN_SCALES[name] for _, name, _ in names])
    locations, scales = _fit(statistics, min_scales)
    deviations = np.nan_to_num(standardize(statistics, locations, scales), nan=0.0)
    ratios = variance_ratios(deviations)
    varying = int((deviations.std(axis=0) > 0).sum())  # others, such as the missing rate of a full column, are silent
    limits = np.interp(np.log(ratios), np.log(RATIO_GRID), simulate_limits(windows, max(varying, 1), run_length))
    return CumulatedCalibration(
        run_length=run_length,
        columns=columns,
        statistics=[
            CumulatedStatistic(
                column=column,
                statistic=name,
                level=level,
                location=location,
                scale=scale,
                allowance=allowance,
                limit=limit,
            )
            for (column, name, level), location, scale, allowance, limit in zip(
                names,
                locations.tolist(),
                scales.tolist(),
                allowances(ratios, windows).tolist(),
                limits.tolist(),
                strict=True,
            )
        ],
    )


def _describe(column: pd.Series, column_type: ColumnType) -> CumulatedColumn:
    """Return a column's statistics: the rank among its quantiles, or the shares of its most common levels."""
    if column_type == "number":
        values = to_float_array(column)
        finite = np.sort(values[np.isfinite(values)])
        positions = ((np.arange(CUT_POINTS) + 0.5) / CUT_POINTS * len(finite)).astype(int)
        cut_points = finite[positions].tolist() if len(finite) else []
        return CumulatedColumn(column=str(column.name), type=column_type, cut_points=cut_points)
    common = column.astype(object).value_counts().index[:MAX_LEVELS].tolist()
    levels: list[Label] = [level for level in common if isinstance(level, int | float | str)]
    return CumulatedColumn(column=str(column.name), type=column_type, levels=levels)


def _fit(statistics: FloatArray, min_scales: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return location and scale of each column of a table with a row per window, after its tails are cut."""
    is_empty = np.isnan(statistics).all(axis=0)
    filled = np.where(is_empty, 0.0, statistics)
    low, high = np.nanquantile(filled, [WINSORIZED, 1 - WINSORIZED], axis=0)
    cut = np.clip(filled, low, high)
    return np.nanmean(cut, axis=0), np.maximum(np.nanstd(cut, axis=0), min_scales)


def variance_ratios(deviations: FloatArray) -> FloatArray:
    """Return by how much the mean of many windows varies more than that of independent ones would.

    Learned from the means of blocks. A reference has few blocks, so what all statistics have in common counts as well.
    """
    count = len(deviations)
    block = max(count // BLOCKS, MIN_BLOCK_WINDOWS)
    cumulative = np.cumsum(np.concatenate([np.zeros((1, deviations.shape[1])), deviations]), axis=0)
    sums = cumulative[block:] - cumulative[:-block]
    variance = deviations.var(axis=0)
    own = (sums.var(axis=0) / block / (1 - block / count))[variance > 0] / variance[variance > 0]
    ratios = np.ones(deviations.shape[1])
    if len(own):
        weight = OWN_DEGREES / DEGREES
        ratios[variance > 0] = weight * own + (1 - weight) * np.median(own)
    return np.clip(1 + RATIO_BIAS * (ratios - 1), 1.0, RATIO_GRID[-1])


def allowances(ratios: FloatArray, windows: int) -> FloatArray:
    """Return what a window may differ by without adding anything."""
    return np.clip(ALLOWANCE_ERRORS * np.sqrt(ratios / windows), MIN_ALLOWANCE, MAX_DEVIATION / 2)


@lru_cache(maxsize=32)
def simulate_limits(windows: int, statistics: int, run_length: int) -> tuple[float, ...]:
    """Return the limit of a sum for each variance ratio of the grid.

    Streams of windows are simulated (normal, autocorrelated) as they are to be expected given a reference of so many
    windows: its location, scale and variance ratio are uncertain.

    Args:
        windows: Windows of the reference.
        statistics: The number of statistics that vary, which share the false alarms.
        run_length: Windows to the first false alarm, on average.
    """
    random = np.random.default_rng(SEED)
    ratios = np.repeat(RATIO_GRID, STREAMS)
    steps = min(2 * run_length, MAX_STEPS)
    true = ratios * DEGREES / random.chisquare(DEGREES, len(ratios))
    location = random.normal(size=len(ratios)) * np.sqrt(true / windows)
    degrees = np.maximum(windows / true - 1, 3)
    scale = np.sqrt(random.chisquare(degrees) / degrees)
    correlation = np.clip((true - 1) / (true + 1), 0, 0.98)
    innovation = np.sqrt(1 - correlation**2)
    allowance = allowances(ratios, windows)
    value = random.normal(size=len(ratios))
    sums = np.zeros((2, len(ratios)))
    highest = np.zeros((2, len(ratios)))
    signs = np.array([[1.0], [-1.0]])
    for _ in range(steps):
        value = correlation * value + innovation * random.standard_normal(len(ratios))
        deviation = np.clip((value + location) / scale, -MAX_DEVIATION, MAX_DEVIATION)
        sums += signs * deviation - allowance
        np.maximum(sums, 0, out=sums)
        np.maximum(highest, sums, out=highest)
    by_ratio = highest.reshape(2, len(RATIO_GRID), STREAMS).transpose(1, 0, 2).reshape(len(RATIO_GRID), -1)
    exceeded = -np.expm1(-steps / (2 * statistics * run_length))  # fraction of streams of one side of one statistic
    least = MIN_HITS / by_ratio.shape[1]
    limits = np.quantile(by_ratio, 1 - max(exceeded, least), axis=1)
    if exceeded < least:  # the tail goes on as it does before
        limits += (limits - np.quantile(by_ratio, 1 - 4 * least, axis=1)) * np.log(least / exceeded) / np.log(4)
    return tuple(np.maximum.accumulate(limits).tolist())
