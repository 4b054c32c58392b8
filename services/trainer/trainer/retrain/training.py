"""Train a challenger, log it with everything it was made from, and build the reference of its windows."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import mlflow
import numpy as np
import pandas as pd
from sklearn.inspection import permutation_importance

from driftloop.drift.distances import DistanceName
from driftloop.drift.settings import WindowSettings
from driftloop.evaluation.metrics import FloatArray
from driftloop.events import PREDICTION_COLUMN, RetrainRequested
from driftloop.privacy import NO_PRIVACY, Privacy
from driftloop.registry.model_logging import log_model
from driftloop.registry.model_registry import PARAM_TRAINED_THROUGH
from driftloop.storage import reference_building
from driftloop.storage.reference_store import Reference, subsample_evenly
from driftloop.usecase import UseCase

IMPORTANCE_ROWS = 2_500  # enough to tell which features count, in a second


def train(use_case: UseCase, rows: pd.DataFrame, make_pipeline: Callable[[], Any] | None = None) -> tuple[Any, int]:
    """Fit a pipeline, by default the use case's own, to the labelled rows; return it and their number."""
    labelled = rows[rows[use_case.target].notna()]
    targets = pd.Series(use_case.target_type.decode(use_case.outcomes(labelled)), labelled.index, name=use_case.target)
    return (make_pipeline or use_case.make_pipeline)().fit(labelled[use_case.features], targets), len(labelled)


def predict(use_case: UseCase, estimator: Any, rows: pd.DataFrame) -> FloatArray:
    """Return an estimator's predictions for rows, as metrics take them."""
    return use_case.target_type.predict(estimator, predict_method(use_case, estimator), rows[use_case.features])


def predict_method(use_case: UseCase, estimator: Any) -> str:
    """Return the estimator's method whose values are the predictions: probabilities, if it gives any."""
    return "predict_proba" if use_case.classes is not None and hasattr(estimator, "predict_proba") else "predict"


def build_reference(
    use_case: UseCase,
    estimator: Any,
    rows: pd.DataFrame,
    window: WindowSettings,
    distances: Mapping[str, DistanceName] = {},
    importance: Mapping[str, float] = {},
    privacy: Privacy = NO_PRIVACY,
) -> Reference:
    """Return what windows of the new version will be compared with.

    All rows of its time belong to it, labelled or not. Predictions are monitored like a feature. In-sample predictions
    suffice: cross-fitted ones (each quarter predicted by a model of the others) gave the same alarm rate.

    Args:
        use_case: Features, types and days.
        estimator: The fitted model.
        rows: The rows it was trained on, including those without a label.
        window: Size and false alarm rate of windows.
        distances: Distances by column, where the default is not wanted.
        importance: Importance of features, by name.
        privacy: What becomes of private features, as in events.
    """
    method = predict_method(use_case, estimator)
    returned = np.asarray(getattr(estimator, method)(rows[use_case.features]))
    predictions, kind = reference_building.prediction_column(estimator, method, returned)
    return reference_building.build_reference(
        rows[use_case.features],
        predictions,
        {**use_case.feature_kinds, PREDICTION_COLUMN: kind},
        rows[use_case.timestamp],
        use_case.day_ordinals(rows[use_case.timestamp]),
        window,
        distances=distances,
        importance=importance,
        privacy=privacy,
    )


def feature_importance(use_case: UseCase, estimator: Any, rows: pd.DataFrame) -> dict[str, float]:
    """Return by how much the use case's metric gets worse when a feature is shuffled, by feature.

    At most ``IMPORTANCE_ROWS`` evenly spaced labelled rows are used.
    """
    labelled = subsample_evenly(rows[rows[use_case.target].notna()], IMPORTANCE_ROWS)
    metric = use_case.headline_metric
    sign = -1 if metric.lower_is_better else 1

    def score(estimator: Any, features: pd.DataFrame, outcomes: FloatArray) -> float:
        return sign * metric.compute(outcomes, predict(use_case, estimator, features))

    result = permutation_importance(
        estimator,
        labelled[use_case.features],
        use_case.outcomes(labelled),
        scoring=score,
        n_repeats=2,
        random_state=0,
    )
    return dict(zip(use_case.features, result.importances_mean.tolist(), strict=True))


class LoggedModel(NamedTuple):
    """A run with its model, which is not registered as a version yet."""

    run_id: str
    uri: str


def log_run(
    use_case: UseCase,
    retrain: RetrainRequested,
    revision: str,
    estimator: Any,
    rows: pd.DataFrame,
    params: Mapping[str, object],
    files: Mapping[str, str],
    optional_features: Collection[str] | None = None,
) -> LoggedModel:
    """Log a run with everything the pipeline was made from, and the pipeline itself.

    Args:
        use_case: Its name is the experiment's.
        retrain: The request.
        revision: The git revision of the training code.
        estimator: The fitted pipeline.
        rows: The rows it was trained on.
        params: Further parameters of the run.
        files: Texts to log, by their path among the run's artifacts.
        optional_features: The features that may be missing; by default those with a missing value in the rows.
    """
    mlflow.set_experiment(use_case.name)
    with mlflow.start_run(run_name=f"retrain {retrain.id}") as run:
        mlflow.set_tags(
            {
                "retrain_id": retrain.id,
                "reason": retrain.reason,
                "requested_by": retrain.requested_by,
                "git_revision": revision,
            }
        )
        mlflow.log_params(
            {
                "data_selection": retrain.data.model_dump_json(),
                "first_time": str(rows[use_case.timestamp].min()),
                PARAM_TRAINED_THROUGH: str(rows[use_case.timestamp].max()),
                **params,
            }
        )
        for path, text in files.items():
            mlflow.log_text(text, path)
        uri = log_model(
            estimator, rows[use_case.features], predict_method(use_case, estimator), optional=optional_features
        )
    return LoggedModel(run.info.run_id, uri)
