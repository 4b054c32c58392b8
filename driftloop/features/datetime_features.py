"""Numbers from datetimes, for models that take numbers only."""

from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

DERIVED = ("month", "day_of_week", "hour", "days")
"""What a column becomes: month from 1, day of the week from 0 (Monday), hour of the day, and days since its origin."""
SECONDS_PER_DAY = 86_400


class DatetimeFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Turn each column of datetimes into month, day of the week, hour, and days since the earliest one of the fit.

    Datetimes with a time zone are converted to UTC, and those without one are taken as UTC, as they are served. A
    missing datetime becomes four missing numbers. There is no year: a model cannot know a year that it has not seen.
    """

    def fit(self, columns: pd.DataFrame, target: object = None) -> Self:  # noqa: ARG002  # as scikit-learn calls it
        """Learn the origin of each column: its earliest datetime."""
        self.feature_names_in_ = np.array([str(name) for name in columns.columns], dtype=object)
        self.n_features_in_ = len(self.feature_names_in_)
        self.origins_ = np.array([_epoch_days(columns[name]).min(skipna=True) for name in columns.columns])
        return self

    def transform(self, columns: pd.DataFrame) -> npt.NDArray[np.float64]:
        """Return four columns for each column of the frame, in the order of :data:`DERIVED`."""
        check_is_fitted(self)
        derived: list[Any] = []
        for name, origin in zip(columns.columns, self.origins_, strict=True):
            times = _naive_utc(columns[name])
            derived += [times.dt.month, times.dt.dayofweek, times.dt.hour, _epoch_days(times) - origin]
        return np.column_stack([column.to_numpy(np.float64, na_value=np.nan) for column in derived])

    def get_feature_names_out(self, input_features: object = None) -> npt.NDArray[np.object_]:  # noqa: ARG002
        """Return names such as ``signed_month``, in the order of the result's columns."""
        check_is_fitted(self)
        return np.array([f"{name}_{part}" for name in self.feature_names_in_ for part in DERIVED], dtype=object)


def _naive_utc(column: pd.Series) -> pd.Series:
    """Return a column of datetimes, which may be objects where values are missing, in UTC and without a zone."""
    naive: pd.Series = pd.to_datetime(column, utc=True).dt.tz_localize(None)
    return naive


def _epoch_days(column: pd.Series) -> pd.Series:
    """Return datetimes as days since 1970, with fractions; NaN for missing ones."""
    days: pd.Series = (_naive_utc(column) - pd.Timestamp(0)).dt.total_seconds() / SECONDS_PER_DAY
    return days
