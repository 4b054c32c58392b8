"""The definition of a use case: all that services know about a model's columns, data and pipeline."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from driftloop.drift.comparable_columns import FeatureKind
from driftloop.evaluation.metric import Metric, MetricSpec, find_metric
from driftloop.evaluation.metrics import FloatArray
from driftloop.evaluation.targets import Target
from driftloop.events import CLASSES_COLUMN, PREDICTION_COLUMN, DataSelection, Label


@dataclass(frozen=True)
class UseCase:
    """One model's schema, data and pipeline. A service gets it by a setting such as ``usecases.loans:usecase``.

    A dataset is a frame with one row for each example, sorted by time: the features, the target (missing if it is not
    known) and the timestamp, in UTC.
    """

    name: str
    """The model's name in the registry, in events and in paths."""
    feature_kinds: Mapping[str, FeatureKind]
    """Kind of each feature, by its name, in the order of the model's signature."""
    target: str
    """The column with what really happened."""
    timestamp: str
    """The column with the time at which a prediction is requested."""
    timezone: str
    """The time zone that days are counted in. Rows of one day are not independent, so they are resampled together."""
    make_pipeline: Callable[[], Any]
    """Returns a new, unfitted scikit-learn classifier, regressor or pipeline. Its parts must be scikit-learn's own."""
    dvc_file: Path
    """The ``.dvc`` file of the base dataset; the data itself is in the object store."""
    load_rows: Callable[[], pd.DataFrame]
    """Returns the dataset from its source: it is uploaded to the object store, and the producer streams it."""
    classes: tuple[Label, ...] | None = None
    """The values of the target, sorted as scikit-learn sorts them; the second of two is the positive class. ``None`` if
    the target is a number."""
    metric: MetricSpec | None = None
    """The metric that the gate compares: the name of a scikit-learn scorer, an own function, or what decisions cost. By
    default ROC AUC for two classes, its one-versus-rest mean for more, and RMSE for a number."""
    candidates: Mapping[str, Callable[[], Any]] = field(default_factory=dict)
    """Further pipelines by name, such as those of :func:`driftloop.candidates.parameter_grid`. A retrain compares them
    with ``make_pipeline`` on the latest training rows, and takes the best."""
    optional_features: Collection[str] | None = None
    """Features that may be missing, in training rows and in requests. By default those that have a missing value in the
    base dataset or in the rows that a version is trained on, so that they depend on the data."""
    subgroup_columns: tuple[str, ...] = ()
    """Columns by which rows are divided into subgroups: features, or columns that clients send along as context. A
    challenger must not be clearly worse on a large subgroup."""
    block_days: int = 1
    """Days in a block that is resampled as a whole: more than 1 if rows of neighbouring days are not independent."""
    first_version: DataSelection = field(default_factory=DataSelection)
    """The rows that the stack trains a first version on, if there is none: by default all."""

    @cached_property
    def features(self) -> list[str]:
        """Names of all features, in the order of the model's signature."""
        return list(self.feature_kinds)

    @property
    def context_columns(self) -> list[str]:
        """Columns of subgroups that are no features: the base dataset or requests' context has their values."""
        return [name for name in self.subgroup_columns if name not in self.feature_kinds]

    @cached_property
    def target_type(self) -> Target:
        """What the model predicts."""
        return Target(self.classes)

    @cached_property
    def headline_metric(self) -> Metric:
        """The metric that the gate compares. Raises :class:`driftloop.errors.InvalidInput` if there is no such one."""
        return find_metric(self.metric, self.target_type)

    @property
    def monitored_kinds(self) -> dict[str, FeatureKind]:
        """Kind of each column that windows are compared by: the features, and the prediction like a feature."""
        kind: FeatureKind = "category" if self.target_type.kind == "multiclass" else "number"
        return {**self.feature_kinds, PREDICTION_COLUMN: kind}

    def outcomes(self, rows: pd.DataFrame) -> FloatArray:
        """Return what happened in each row, as metrics take it: NaN if it is not known."""
        return self.target_type.encode(rows[self.target])

    def archived_predictions(self, rows: pd.DataFrame) -> FloatArray:
        """Return the predictions of archived rows, as metrics take them: NaN if they are not of this target."""
        return self.target_type.from_archive(rows[PREDICTION_COLUMN], rows.get(CLASSES_COLUMN))

    def local_dates(self, times: pd.Series) -> pd.Series:
        """Return the local date of each time, in the use case's time zone."""
        local: pd.Series = times.dt.tz_convert(self.timezone).dt.date
        return local

    def day_ordinals(self, times: pd.Series) -> npt.NDArray[np.int64]:
        """Return the local date of each time as a number; consecutive days have consecutive numbers."""
        return np.array([day.toordinal() for day in self.local_dates(times)], dtype=np.int64)

    def block_ids(self, times: pd.Series) -> npt.NDArray[np.int64]:
        """Return the number of the block of days of each time: 0 is the latest block, which has all its days."""
        days = self.day_ordinals(times)
        back: npt.NDArray[np.int64] = (days.max(initial=0) - days) // self.block_days
        return back

    def rows_between(
        self,
        frame: pd.DataFrame,
        start: date | None = None,
        end: date | None = None,
        exclude_days: Collection[date] = (),
    ) -> pd.DataFrame:
        """Return the rows of local dates from ``start`` to before ``end``, without the excluded days."""
        days = self.local_dates(frame[self.timestamp])
        keep = ~days.isin(exclude_days)
        if start is not None:
            keep &= days >= start
        if end is not None:
            keep &= days < end
        return frame[keep]
