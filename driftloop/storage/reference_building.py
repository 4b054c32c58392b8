"""Build the reference of a version from rows, and from its predictions for them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from driftloop.drift.calibration import EMBARGO_DAYS, calibrate
from driftloop.drift.comparable_columns import FeatureKind, to_comparable
from driftloop.drift.distances import DistanceName
from driftloop.drift.profile import DriftProfile
from driftloop.drift.settings import WindowSettings
from driftloop.drift.window_length import choose_window_rows
from driftloop.errors import InvalidInput
from driftloop.evaluation.targets import Target
from driftloop.events import PREDICTION_COLUMN
from driftloop.privacy import NO_PRIVACY, Privacy
from driftloop.storage.reference_store import Reference

SEVERAL_OUTPUTS = "it predicts several outputs for a row, and windows compare one"


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
    privacy: Privacy = NO_PRIVACY,
) -> Reference:
    """Return what windows of a version will be compared with. Predictions are monitored like a feature.

    Args:
        features: The features of each row, in order of time.
        predictions: The version's prediction for each row.
        kinds: What the features, and the column of predictions, hold.
        times: The time of each row.
        days: The ordinal of each row's day.
        window: Size of windows, and their rates of false alarms.
        distances: Distances by column, where the default is not wanted.
        importance: Importance of features, by name.
        embargo_days: See :func:`driftloop.drift.calibration.calibrate`.
        privacy: What becomes of private features, as in events: the reference has their hashes, or nothing of them.

    Raises:
        InsufficientReference: The rows are too few for windows of the length that is set.
    """
    features, kinds = privacy.treat_frame(features), privacy.treat_kinds(kinds)
    comparable = to_comparable(features, {name: kinds[name] for name in kinds if name in features}, times).rows
    monitored = comparable.assign(**{PREDICTION_COLUMN: predictions.to_numpy()})
    profile = calibrate(
        monitored,
        days,
        kinds,
        window_rows=choose_window_rows(len(monitored), window.rows),
        false_alarm_rate=window.false_alarm_rate,
        run_length=window.run_length,
        embargo_days=embargo_days,
        importance={name: value for name, value in importance.items() if name in kinds},
        distances={name: distance for name, distance in distances.items() if name in kinds},
    )
    profile = profile.model_copy(update={"privacy": privacy.feature_policy})
    return Reference(monitored, _with_times(profile, times))


def _with_times(profile: DriftProfile, times: pd.Series) -> DriftProfile:
    """Return the profile with the times of its stretches, if the rows have times: otherwise all are equal."""
    if times.iloc[0] == times.iloc[-1]:
        return profile
    stretches = [
        stretch.model_copy(
            update={
                "begin": times.iloc[stretch.first_row].to_pydatetime(),
                "end": times.iloc[stretch.end_row - 1].to_pydatetime(),
            }
        )
        for stretch in profile.stretches
    ]
    return profile.model_copy(update={"stretches": stretches})


def prediction_column(estimator: Any, method: str, returned: npt.NDArray[Any]) -> tuple[pd.Series, FeatureKind]:
    """Return predictions as windows have them, and what they are.

    Probabilities of two classes are numbers; of more, the most probable class counts. Labels that are texts are
    categories, and numbers of any kind are numbers.

    Args:
        estimator: The fitted estimator; its classes are those of probabilities.
        method: The name of its method that predicts.
        returned: What the method has returned.

    Raises:
        InvalidInput: There are several outputs for a row.
    """
    if method == "predict_proba":
        classes = getattr(estimator, "classes_", None)
        if returned.ndim != 2 or not isinstance(classes, np.ndarray) or len(classes) != returned.shape[1]:
            raise InvalidInput(SEVERAL_OUTPUTS)
        target = Target(tuple(classes.tolist()))
        column = target.to_column(target.from_probabilities(returned, classes.tolist()))
        return column, "category" if target.kind == "multiclass" else "number"
    if returned.ndim == 2 and returned.shape[1] == 1:
        returned = returned[:, 0]
    if returned.ndim != 1:
        raise InvalidInput(SEVERAL_OUTPUTS)
    if returned.dtype.kind in "fiub":
        return pd.Series(returned.astype("float64")), "number"
    return pd.Series(returned.astype(str), dtype=object), "category"
