"""Drift profile: what calibration has learned about a reference, as it is stored with it."""

from collections.abc import Collection
from datetime import datetime
from typing import Self

from pydantic import BaseModel

from driftloop.drift.comparable_columns import COLUMN_TYPES, FeatureKind
from driftloop.drift.cumulated import CumulatedCalibration
from driftloop.drift.distances import ColumnType, DistanceName
from driftloop.drift.statistics import StatisticName
from driftloop.privacy import FeaturePolicy


class NullDistribution(BaseModel, frozen=True):
    """Location and scale of one statistic in windows in which nothing has changed."""

    column: str
    statistic: StatisticName
    location: float
    scale: float
    """The scale of a Gumbel distribution, widened where the statistic has a heavier tail."""


class CalibratedSpan(BaseModel, frozen=True):
    """The calibration for a number of consecutive windows that are scored together."""

    windows: int
    score_threshold: float
    """A score above it is an alarm."""
    null_distributions: list[NullDistribution]
    smallest_shifts: dict[str, float] = {}
    """By numeric column the smallest shift, in standard deviations of the present stretch, that is found in 95 % of
    its windows. A column is left out if even a large shift is not found."""

    def threshold(self, null: NullDistribution) -> float:
        """Return the value above which a statistic is an alarm."""
        return null.location + self.score_threshold * null.scale


class Stretch(BaseModel, frozen=True):
    """Consecutive rows of the reference within which nothing changed abruptly."""

    first_row: int
    end_row: int
    """The row after the last one."""
    begin: datetime | None = None
    """Time of the first row, if the rows have times."""
    end: datetime | None = None
    """Time of the last row."""


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
    reference_rows: int
    """Rows of the reference that was calibrated; fewer may be stored."""
    stretches: list[Stretch]
    """In order of time; the last one is the present. A window is compared with each and judged by the nearest."""
    spans: list[CalibratedSpan]
    """Single windows first. Empty if the reference is too small to calibrate them: then windows are not judged."""
    cumulated: CumulatedCalibration | None = None
    """The calibration of the cumulated score, from the present stretch; none if that has fewer than 20 windows."""
    standard_deviations: dict[str, float] = {}
    """Standard deviations of the numeric columns in the present stretch: the unit of the smallest shifts."""
    importance: dict[str, float] = {}
    """Permutation importance of each feature: the loss of quality when the feature is shuffled."""
    privacy: FeaturePolicy = FeaturePolicy()
    """How the features of the reference were treated. Only events that are treated alike can be compared with it."""

    @property
    def column_types(self) -> dict[str, ColumnType]:
        """What each column is compared as."""
        return {column: COLUMN_TYPES[kind] for column, kind in self.kinds.items()}

    def without_columns(self, columns: Collection[str]) -> Self:
        """Return the profile of the other columns. Thresholds stay: fewer columns raise fewer false alarms."""
        return self.model_copy(
            update={
                "kinds": {column: kind for column, kind in self.kinds.items() if column not in columns},
                "spans": [
                    span.model_copy(
                        update={"null_distributions": [n for n in span.null_distributions if n.column not in columns]}
                    )
                    for span in self.spans
                ],
                "cumulated": self.cumulated and self.cumulated.without_columns(columns),
                "standard_deviations": {n: sd for n, sd in self.standard_deviations.items() if n not in columns},
            }
        )

    @property
    def normally_constant_columns(self) -> set[str]:
        """Columns that can be constant in a window though nothing has changed, such as rain on dry days."""
        if not self.spans:
            return set(self.kinds)
        single = self.spans[0]
        return {
            null.column
            for null in single.null_distributions
            if null.statistic == "mode_share" and single.threshold(null) >= 1
        }
