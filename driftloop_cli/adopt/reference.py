"""The reference of an adopted version: what its windows will be compared with, from the rows that came with it."""

from collections.abc import Mapping
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
from sklearn.inspection import permutation_importance

from driftloop.drift.comparable_columns import FeatureKind
from driftloop.drift.settings import WindowSettings
from driftloop.errors import InvalidInput
from driftloop.events import PREDICTION_COLUMN
from driftloop.privacy import NO_PRIVACY, Privacy
from driftloop.storage import reference_building
from driftloop.storage.reference_store import Reference, subsample_evenly
from driftloop_cli.adopt.data import AdoptionRows
from driftloop_cli.adopt.estimator import Answers
from driftloop_cli.adopt.source import NotAdoptable

IMPORTANCE_ROWS = 2_500  # enough to tell which features count, in a second


def build_reference(
    estimator: Any,
    answers: Answers,
    kinds: Mapping[str, FeatureKind],
    rows: AdoptionRows,
    timezone: str,
    window: WindowSettings,
    privacy: Privacy = NO_PRIVACY,
) -> Reference:
    """Return the reference of a version, with the features and with its predictions as one more column.

    Rows without a time are taken as independent: a window of the reference is compared with all rows outside of it.
    Datetimes are compared with the time of their row, so without a time they are left out.

    Raises:
        NotAdoptable: There are several outputs for a row.
    """
    try:
        predictions, prediction_kind = reference_building.prediction_column(estimator, answers.method, answers.values)
    except InvalidInput as error:
        raise NotAdoptable(str(error)) from error
    monitored: dict[str, FeatureKind] = {**kinds, PREDICTION_COLUMN: prediction_kind}
    importance = _importance(estimator, answers.features, rows.target)
    if rows.times is not None:
        days = rows.times.dt.tz_convert(timezone).dt.date.map(date.toordinal).to_numpy(dtype=np.int64)
        return reference_building.build_reference(
            answers.features,
            predictions,
            monitored,
            rows.times,
            days,
            window,
            importance=importance,
            privacy=privacy,
        )
    return reference_building.build_reference(
        answers.features,
        predictions,
        {name: kind for name, kind in monitored.items() if kind != "datetime"},
        pd.Series(pd.Timestamp(0, tz="UTC"), index=answers.features.index),
        np.arange(len(answers.features), dtype=np.int64),  # each row is a day of its own
        window,
        importance=importance,
        embargo_days=0,
        privacy=privacy,
    )


def _importance(estimator: Any, features: pd.DataFrame, target: pd.Series | None) -> dict[str, float]:
    """Return by how much the estimator's own score falls when a feature is shuffled; empty without a target."""
    if target is None:
        return {}
    labelled = subsample_evenly(features[target.notna()], IMPORTANCE_ROWS)
    result = permutation_importance(estimator, labelled, target.loc[labelled.index], n_repeats=2, random_state=0)
    return dict(zip(map(str, features.columns), result.importances_mean.tolist(), strict=True))
