"""The cumulated score: sums over a version's consecutive windows that show changes too small for any of them.

Each statistic is the mean, over the rows of a window, of a bounded function of a row: the rank of a number among the
reference's, whether a category has a level, whether a value is missing. So it has a sign, and no single row decides.
Standardized by what it is in the reference's own windows, it is summed upwards and downwards (a two-sided CUSUM): a
window adds what it exceeds an allowance by, and a sum never falls below 0. Chance pulls a sum back again and again; a
change, however small, adds to it with every window.
"""

from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from pydantic import BaseModel

from driftloop.drift.distances import ColumnType, FloatArray
from driftloop.drift.statistics import to_float_array
from driftloop.events import CumulatedChange, Label

MeanName = Literal["mean_rank", "level_share", "missing_rate"]
MAX_DEVIATION = 4.0  # scales: what one window adds at most, so that one bad day is no slow change
MAX_SUM = 2.0  # limits: a sum goes no higher, so that it comes back soon when a change is over


class CumulatedColumn(BaseModel, frozen=True):
    """The functions of a column's values that are averaged over the rows of a window."""

    column: str
    type: ColumnType
    cut_points: list[float] = []
    """Of a number: quantiles of the reference, ascending. A value's rank is the fraction of them that are below it."""
    levels: list[Label] = []
    """Of a category: the most common levels of the reference, whose shares are averaged."""

    @property
    def statistics(self) -> list[tuple[MeanName, Label | None]]:
        """The names of the column's statistics, in order, and the level that each is about."""
        shares: list[tuple[MeanName, Label | None]] = [("level_share", level) for level in self.levels]
        ranks: list[tuple[MeanName, Label | None]] = [("mean_rank", None)] if self.cut_points else []
        return [*ranks, *shares, ("missing_rate", None)]

    def row_values(self, rows: pd.DataFrame) -> FloatArray:
        """Return the value of each row (first axis) for each statistic; NaN where it has none."""
        column = rows[self.column]
        if self.type == "number":
            numbers = to_float_array(column)
            is_missing = np.isnan(numbers)
            below = np.searchsorted(self.cut_points, numbers, "left") + np.searchsorted(
                self.cut_points, numbers, "right"
            )
            parts = [below / (2 * len(self.cut_points))] if self.cut_points else []
        else:
            is_missing = column.isna().to_numpy()
            code = pd.Index(self.levels, dtype=object).get_indexer(pd.Index(column, dtype=object))
            parts = [(code == number).astype(np.float64) for number in range(len(self.levels))]
        present = [np.where(is_missing, np.nan, part) for part in parts]
        return np.column_stack([*present, is_missing.astype(np.float64)])


class CumulatedStatistic(BaseModel, frozen=True):
    """What calibration has learned about one statistic."""

    column: str
    statistic: MeanName
    level: Label | None = None
    """Of ``level_share``: the level."""
    location: float
    scale: float
    allowance: float
    """Scales by which windows may differ without adding anything; the location is less uncertain than that."""
    limit: float
    """A sum above it is an alarm."""


class CumulatedCalibration(BaseModel, frozen=True):
    """The calibration of the cumulated score."""

    run_length: int
    """Windows to the first false alarm, on average."""
    columns: list[CumulatedColumn]
    statistics: list[CumulatedStatistic]
    """In the order of the columns."""

    def without_columns(self, names: Collection[str]) -> "CumulatedCalibration | None":
        """Return the calibration of the other columns, or ``None`` if there are none."""
        columns = [column for column in self.columns if column.column not in names]
        statistics = [statistic for statistic in self.statistics if statistic.column not in names]
        return self.model_copy(update={"columns": columns, "statistics": statistics}) if columns else None


class CumulatedState(BaseModel, frozen=True):
    """The sums after a version's latest window. All lists are in the order of the statistics."""

    windows: int = 0
    """Windows that have been added."""
    upward: list[float] = []
    downward: list[float] = []
    upward_windows: list[int] = []
    """Windows since the upward sum was 0."""
    downward_windows: list[int] = []


class CumulatedScore(NamedTuple):
    """The sums after a window, compared with their limits."""

    state: CumulatedState
    score: float
    """The largest ratio of a sum to its limit; above 1 it is an alarm."""
    changes: list[CumulatedChange]
    """The sums above their limit, the largest ratio first."""


def cumulate(calibration: CumulatedCalibration, state: CumulatedState, window: pd.DataFrame) -> CumulatedScore:
    """Add a window to the sums; return them with their score.

    A state of other statistics, such as of another reference, counts as none. A statistic without a value in the window
    keeps its sums.

    Args:
        calibration: The calibration of the reference.
        state: The sums after the version's window before it; empty if there is none.
        window: The window's rows, comparable with the reference's.
    """
    statistics = calibration.statistics
    if len(state.upward) != len(statistics):
        count = len(statistics)
        state = CumulatedState(
            upward=[0.0] * count, downward=[0.0] * count, upward_windows=[0] * count, downward_windows=[0] * count
        )
    location, scale, allowance, limit = np.array(
        [(each.location, each.scale, each.allowance, each.limit) for each in statistics]
    ).T
    deviations = standardize(window_means(calibration.columns, window), location, scale)
    sums, runs = [], []
    for sign, before, run in (
        (1, state.upward, state.upward_windows),
        (-1, state.downward, state.downward_windows),
    ):
        added = np.nan_to_num(sign * deviations - allowance, nan=0.0)
        after = np.clip(np.array(before) + added, 0, MAX_SUM * limit)
        sums.append(after)
        runs.append(np.where(after > 0, np.array(run) + 1, 0))
    score = np.array(sums) / limit
    changes = [
        CumulatedChange(
            column=statistics[number].column,
            statistic=statistics[number].statistic,
            level=statistics[number].level,
            direction="down" if side else "up",
            windows=int(runs[side][number]),
            score=float(score[side, number]),
        )
        for side, number in zip(*np.nonzero(score > 1), strict=True)
    ]
    return CumulatedScore(
        CumulatedState(
            windows=state.windows + 1,
            upward=sums[0].tolist(),
            downward=sums[1].tolist(),
            upward_windows=runs[0].tolist(),
            downward_windows=runs[1].tolist(),
        ),
        float(score.max(initial=0.0)),
        sorted(changes, key=lambda change: change.score, reverse=True),
    )


def window_means(columns: Sequence[CumulatedColumn], window: pd.DataFrame) -> FloatArray:
    """Return every statistic of a window; NaN where the window has no value for it."""
    return np.concatenate([means(column.row_values(window)[None])[0] for column in columns])


def means(values: FloatArray) -> FloatArray:
    """Return the means over the second axis of windows × rows × statistics, of the values that are not NaN."""
    present = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        result: FloatArray = np.where(present, values, 0).sum(axis=1) / present.sum(axis=1)
    return result


def standardize(statistics: FloatArray, locations: FloatArray, scales: FloatArray) -> FloatArray:
    """Return by how many scales statistics differ from their location, limited to what a window may add."""
    return np.clip((statistics - locations) / scales, -MAX_DEVIATION, MAX_DEVIATION)
