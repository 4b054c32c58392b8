"""Build the reference of a version from rows, and from its predictions for them."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from driftloop.drift.calibration import EMBARGO_DAYS, calibrate
from driftloop.drift.comparable_columns import FeatureKind, to_comparable
from driftloop.drift.distances import DistanceName
from driftloop.drift.settings import WindowSettings
from driftloop.events import PREDICTION_COLUMN
from driftloop.storage.reference_store import Reference


def build_reference(
    features: pd.DataFrame,
    predictions: pd.Series,
    kinds: Mapping[str, FeatureKind],
    times: pd.Series,
    days: npt.NDArray[np.int64],
    window: WindowSettings,
    *,
    distances: Mapping[str, DistanceName] = {},
    importance: Mapping[str, float] = {},
    embargo_days: int = EMBARGO_DAYS,
) -> Reference:
    """Return what windows of a version will be compared with. Predictions are monitored like a feature.

    Args:
        features: The features of each row, in order of time.
        predictions: The version's prediction for each row.
        kinds: What the features, and the column of predictions, hold.
        times: The time of each row.
        days: The ordinal of each row's day.
        window: Size and false alarm rate of windows.
        distances: Distances by column, where the default is not wanted.
        importance: Importance of features, by name.
        embargo_days: See :func:`driftloop.drift.calibration.calibrate`.
    """
    comparable = to_comparable(features, {name: kinds[name] for name in kinds if name in features}, times).rows
    monitored = comparable.assign(**{PREDICTION_COLUMN: predictions.to_numpy()})
    profile = calibrate(
        monitored,
        days,
        kinds,
        window_rows=window.rows,
        false_alarm_rate=window.false_alarm_rate,
        embargo_days=embargo_days,
        importance=importance,
        distances=distances,
    )
    return Reference(monitored, profile)
