"""Calibration: learn how large each statistic grows in the reference's own windows, when nothing has changed.

A fixed threshold cannot account for autocorrelated hours, sparse categories and columns that move together. So location
and scale of every statistic are learned from consecutive windows of the reference, and one score threshold for all
columns together bounds the rate of false alarms. Windows are scored alone and together with the ones before them: a
change too small to be seen in one window can be seen in three.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from driftloop.drift.comparable_columns import COLUMN_TYPES, FeatureKind
from driftloop.drift.cumulated_calibration import calibrate_cumulated
from driftloop.drift.distances import DISTANCES, ColumnType, DistanceName, FloatArray, IntArray
from driftloop.drift.profile import CalibratedSpan, DriftProfile, NullDistribution, Stretch
from driftloop.drift.sensitivity import smallest_shift
from driftloop.drift.settings import RUN_LENGTH
from driftloop.drift.statistics import StatisticName, distance_for, statistic_keys, to_float_array
from driftloop.drift.stretches import cut, find_changes
from driftloop.drift.tails import (
    cross_standardized,
    fit_gumbel,
    forget_outages,
    largest_values,
    limit_to_lasting,
    score_threshold,
    widen,
)
from driftloop.drift.window_counts import CountedColumn, count_column, statistics_by_window
from driftloop.drift.window_length import MIN_INDEPENDENT_WINDOWS

MIN_SCALES: dict[StatisticName, float] = {  # a statistic that never varied in the reference still needs a scale
    # Of a standard deviation, or of the largest possible distance; 1 % of a PSI that is commonly called small (0.1).
    **dict.fromkeys(DISTANCES["number"], 0.001),
    "missing_rate_change": 0.005,
    "mode_share": 0.05,
}
SPAN_WINDOWS = (1, 3)  # numbers of consecutive windows that are scored together
STRIDES_PER_WINDOW = 10  # windows of the reference start a tenth of their length apart
MAX_WINDOWS = 2_000  # per span; more windows take longer and do not change the result
EMBARGO_DAYS = 3  # rows within them may resemble a window more than later rows will


def calibrate(
    reference: pd.DataFrame,
    days: IntArray,
    kinds: Mapping[str, FeatureKind],
    *,
    window_rows: int,
    false_alarm_rate: float,
    run_length: int = RUN_LENGTH,
    embargo_days: int = EMBARGO_DAYS,
    importance: Mapping[str, float] = {},
    distances: Mapping[str, DistanceName] = {},
) -> DriftProfile:
    """Learn a drift profile from a reference.

    Each window of the reference is compared with the rows of its stretch without those within ``embargo_days`` of it,
    because a window that is scored later is not part of the reference either. A span for which the reference has fewer
    than 20 independent windows is left out, in a very small reference even that of single windows.

    Args:
        reference: The reference's comparable rows, in order of time.
        days: The ordinal of each row's day.
        kinds: The columns to calibrate and what they hold.
        window_rows: The length of the windows that will be scored.
        false_alarm_rate: Fraction of unchanged windows that may raise an alarm. It is divided evenly among the spans.
        run_length: Windows to the first false alarm of the cumulated score, on average.
        embargo_days: Days before and after a window that it is not compared with.
        importance: Permutation importance of each feature; stored in the profile.
        distances: Distances of the columns that do not use the default of their type.
    """
    data = _Data(
        reference,
        days,
        {column: COLUMN_TYPES[kind] for column, kind in kinds.items()},
        distances,
        window_rows,
        false_alarm_rate,
        embargo_days,
    )
    stretches: list[tuple[int, int]] = [(0, len(reference))]
    spans: list[CalibratedSpan] = []
    if len(reference) >= MIN_INDEPENDENT_WINDOWS * window_rows:
        stretches, spans = _calibrate_stretches(data)
    present = reference.iloc[slice(*stretches[-1])]
    numbers = {
        column: to_float_array(present[column]) for column, kind in data.column_types.items() if kind == "number"
    }
    return DriftProfile(
        window_rows=window_rows,
        false_alarm_rate=false_alarm_rate,
        kinds=dict(kinds),
        distances=dict(distances),
        reference_rows=len(reference),
        stretches=[Stretch(first_row=first, end_row=end) for first, end in stretches],
        spans=[_with_smallest_shifts(data, numbers, span, spans[0]) for span in spans],
        cumulated=calibrate_cumulated(present, data.column_types, window_rows, run_length),
        standard_deviations={name: float(np.nanstd(values)) for name, values in numbers.items() if _has_values(values)},
        importance=dict(importance),
    )


class _Data(NamedTuple):
    """What is calibrated, and how."""

    reference: pd.DataFrame
    days: IntArray
    column_types: Mapping[str, ColumnType]
    distances: Mapping[str, DistanceName]
    window_rows: int
    false_alarm_rate: float
    embargo_days: int

    def distance_for(self, column: str) -> DistanceName:
        return distance_for(column, self.column_types, self.distances)

    def count_columns(self, stretch: tuple[int, int]) -> dict[str, CountedColumn]:
        """Return the columns of a stretch as counts by level."""
        rows = self.reference.iloc[slice(*stretch)]
        return {
            column: count_column(rows[column], column_type, self.distance_for(column), self.window_rows)
            for column, column_type in self.column_types.items()
        }


def _calibrate_stretches(data: _Data) -> tuple[list[tuple[int, int]], list[CalibratedSpan]]:
    """Return the stretches of the reference and the calibration with them.

    The reference is cut at a change only if thresholds of distances are then lower: otherwise a stretch would be a
    smaller sample of the same.
    """
    rows = len(data.reference)
    stretches = [(0, rows)]
    columns = data.count_columns(stretches[0])
    spans = _calibrate_spans(data, stretches, [columns])
    changes: list[int] = []
    for change in find_changes(columns, rows, data.window_rows):
        cut_stretches = cut(rows, [*changes, change], data.window_rows)
        cut_spans = _calibrate_spans(data, cut_stretches, [data.count_columns(stretch) for stretch in cut_stretches])
        if _mean_log_threshold(cut_spans[0]) < _mean_log_threshold(spans[0]):
            changes, stretches, spans = [*changes, change], cut_stretches, cut_spans
    return stretches, spans


def _mean_log_threshold(span: CalibratedSpan) -> float:
    distances = [null for null in span.null_distributions if null.statistic in DISTANCES["number"]]
    return float(np.mean([np.log(max(span.threshold(null), 1e-9)) for null in distances]))


def _calibrate_spans(
    data: _Data, stretches: Sequence[tuple[int, int]], columns: Sequence[Mapping[str, CountedColumn]]
) -> list[CalibratedSpan]:
    """Return the calibration of all spans with the windows within stretches."""
    rows = sum(end - first for first, end in stretches)
    counts = [
        windows
        for windows in SPAN_WINDOWS
        if windows == 1 or len(data.reference) >= MIN_INDEPENDENT_WINDOWS * windows * data.window_rows
    ]
    keys = statistic_keys(data.column_types, data.distances)
    # One row changes a fraction of a window by 1 / window_rows; with a smaller scale a single row could be an alarm.
    min_scales = np.array([max(MIN_SCALES[key.statistic], 1 / data.window_rows) for key in keys])
    spans: list[CalibratedSpan] = []
    for windows in counts:
        parts = [
            _reference_windows(data, stretch, counted, windows)
            for stretch, counted in zip(stretches, columns, strict=True)
        ]
        starts, statistics = (np.concatenate(side) for side in zip(*parts, strict=True))
        length = windows * data.window_rows
        statistics = forget_outages(statistics, starts, length, min_scales)
        locations, scales = fit_gumbel(statistics, min_scales)
        scales = widen(locations, scales, largest_values(statistics))
        standardized = cross_standardized(statistics, starts, length, min_scales)
        if windows == 1:
            single_starts, single = starts, (statistics - locations) / scales
        else:
            latest = np.searchsorted(single_starts, starts + length - data.window_rows)
            standardized = limit_to_lasting(standardized, single[np.minimum(latest, len(single) - 1)])
        scores = np.nanmax(standardized, axis=1)
        spans.append(
            CalibratedSpan(
                windows=windows,
                score_threshold=score_threshold(scores, data.false_alarm_rate / len(counts), rows / length),
                null_distributions=[
                    NullDistribution(column=key.column, statistic=key.statistic, location=location, scale=scale)
                    for key, location, scale in zip(keys, locations.tolist(), scales.tolist(), strict=True)
                ],
            )
        )
    return spans


def _reference_windows(
    data: _Data, stretch: tuple[int, int], columns: Mapping[str, CountedColumn], windows: int
) -> tuple[IntArray, FloatArray]:
    """Return the first rows of a stretch's windows, ascending, and a row of statistics for each."""
    first, end = stretch
    rows, length = end - first, windows * data.window_rows
    last = rows - length
    stride = max(data.window_rows // STRIDES_PER_WINDOW, 1, len(data.reference) // MAX_WINDOWS)
    starts = np.arange(0, last + 1, stride)
    embargoed = _embargoed(data.days[first:end], starts, length, data.embargo_days)
    return first + starts, np.column_stack(
        [statistics_by_window(column, starts, length, embargoed) for column in columns.values()]
    )


def _embargoed(days: IntArray, starts: IntArray, length: int, embargo_days: int) -> IntArray:
    """Return the first and the end row of what each window is not compared with: at most half of the rows."""
    room = max(len(days) // 2 - length, 0) // 2
    first = np.searchsorted(days, days[starts] - embargo_days, side="left")
    end = np.searchsorted(days, days[starts + length - 1] + embargo_days, side="right")
    embargoed = np.column_stack([np.maximum(first, starts - room), np.minimum(end, starts + length + room)])
    return np.maximum.accumulate(embargoed, axis=1)  # a negative embargo excludes nothing


def _with_smallest_shifts(
    data: _Data, numbers: Mapping[str, FloatArray], span: CalibratedSpan, single: CalibratedSpan
) -> CalibratedSpan:
    """Return the span with the smallest shifts that are found in the present stretch."""
    shifts = {
        column: smallest_shift(column, values, data.distance_for(column), data.window_rows, span, single)
        for column, values in numbers.items()
        if _has_values(values)
    }
    found = {column: shift for column, shift in shifts.items() if shift is not None}
    return span.model_copy(update={"smallest_shifts": found})


def _has_values(values: FloatArray) -> bool:
    return not np.isnan(values).all()
