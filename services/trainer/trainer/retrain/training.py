"""A challenger: trained, saved, logged with all that it came from; and what its windows look like."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import infer_signature
from sklearn.inspection import permutation_importance

from driftloop.drift.calibration import calibrate
from driftloop.drift.distances import DistanceName
from driftloop.evaluation.metrics import FloatArray
from driftloop.events import RetrainRequested
from driftloop.registry.model_registry import PARAM_TRAINED_THROUGH
from driftloop.registry.trusted_types import TRUSTED_TYPES
from driftloop.settings import WindowSettings
from driftloop.storage.reference_store import PREDICTION_COLUMN, Reference, subsample_evenly
from driftloop.usecase import UseCase

EXAMPLE_ROWS = 5
IMPORTANCE_ROWS = 2_500  # enough to tell which features count, in a second
SCORING = {"roc_auc": "roc_auc", "rmse": "neg_root_mean_squared_error"}


def train(use_case: UseCase, learn: pd.DataFrame) -> tuple[Any, int]:
    """A fitted pipeline and the number of labelled rows that it saw."""
    labelled = learn[learn[use_case.target].notna()]
    return use_case.make_pipeline().fit(labelled[use_case.features], _outcomes(use_case, labelled)), len(labelled)


def predict_scores(use_case: UseCase, estimator: Any, rows: pd.DataFrame) -> FloatArray:
    """What a model says of rows: a probability, or a number where that is what the use case asks for."""
    features = rows[use_case.features]
    said = estimator.predict(features) if use_case.metric == "rmse" else estimator.predict_proba(features)[:, 1]
    return np.asarray(said, dtype=np.float64)


def build_reference(
    use_case: UseCase,
    estimator: Any,
    learn: pd.DataFrame,
    window: WindowSettings,
    methods: Mapping[str, DistanceName] = {},
    importance: Mapping[str, float] = {},
) -> Reference:
    """What windows of the new version will be compared with: all rows of its time, whether their outcome is known.

    What it predicts for them is a column too. That it has learned from these rows makes no difference to speak of:
    predictions of models that had not (each quarter by one of the others) alarmed as rarely.
    """
    rows = learn[use_case.features].assign(**{PREDICTION_COLUMN: predict_scores(use_case, estimator, learn)})
    profile = calibrate(
        rows,
        use_case.day_ordinals(learn[use_case.timestamp]),
        use_case.column_types | {PREDICTION_COLUMN: "number"},
        window_rows=window.rows,
        false_alarm_rate=window.false_alarm_rate,
        importance=importance,
        distances=methods,
    )
    return Reference(rows, profile)


def feature_importance(use_case: UseCase, estimator: Any, rows: pd.DataFrame) -> dict[str, float]:
    """By how much the use case's metric gets worse when a feature is shuffled, on evenly spaced ones of the rows."""
    labelled = subsample_evenly(rows[rows[use_case.target].notna()], IMPORTANCE_ROWS)
    found = permutation_importance(
        estimator,
        labelled[use_case.features],
        _outcomes(use_case, labelled),
        scoring=SCORING[use_case.metric],
        n_repeats=2,
        random_state=0,
    )
    return dict(zip(use_case.features, found.importances_mean.tolist(), strict=True))


def _witnesses(rows: pd.DataFrame) -> pd.DataFrame:
    """A few rows that show all that a column holds: a value, and a missing one where there is any.

    MLflow looks at every string of what it infers a signature from.
    """
    missing = rows.isna()
    shown = {int(found.argmax()) for column in missing for found in (missing[column].array, ~missing[column].array)}
    return rows.iloc[sorted(shown)]


class LoggedModel(NamedTuple):
    """A run with its model, which is no version yet."""

    run_id: str
    uri: str


def log_run(
    use_case: UseCase,
    retrain: RetrainRequested,
    revision: str,
    estimator: Any,
    learn: pd.DataFrame,
    params: Mapping[str, object],
    files: Mapping[str, str],
) -> LoggedModel:
    """Logs a run with all that the pipeline came of, and the pipeline.

    ``revision`` is git's, of the code that trains; ``files`` are texts by their path among the run's artifacts.
    """
    mlflow.set_experiment(use_case.name)
    with mlflow.start_run(run_name=f"retrain {retrain.id}") as run:
        mlflow.set_tags(
            {
                "retrain_id": retrain.id,
                "reason": retrain.reason,
                "asked_by": retrain.requested_by,
                "git_revision": revision,
            }
        )
        mlflow.log_params(
            {
                "data_selection": retrain.data.model_dump_json(),
                "first_time": str(learn[use_case.timestamp].min()),
                PARAM_TRAINED_THROUGH: str(learn[use_case.timestamp].max()),
                **params,
            }
        )
        for path, text in files.items():
            mlflow.log_text(text, path)
        logged = mlflow.sklearn.log_model(
            estimator,
            name="model",
            signature=infer_signature(_witnesses(learn[use_case.features]), pd.Series([0.5], name="prediction")),
            input_example=learn[use_case.features].head(EXAMPLE_ROWS),
            serialization_format="skops",  # which runs nothing when it is read
            skops_trusted_types=list(TRUSTED_TYPES),
            pyfunc_predict_fn="predict" if use_case.metric == "rmse" else "predict_proba",
            pip_requirements=["scikit-learn", "skops", "pandas"],
        )
    return LoggedModel(run.info.run_id, logged.model_uri)


def git_revision() -> str:
    """The revision of the repository that the code lies in; empty where there is none, or no git."""
    try:
        import git  # noqa: PLC0415  # without git's own command it cannot be imported
    except ImportError:
        return ""
    try:
        return git.Repo(Path(__file__).parent, search_parent_directories=True).head.commit.hexsha
    except (git.InvalidGitRepositoryError, ValueError):
        return ""


def _outcomes(use_case: UseCase, labelled: pd.DataFrame) -> pd.Series:
    return labelled[use_case.target].astype("float64" if use_case.metric == "rmse" else "int64")
