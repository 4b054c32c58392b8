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
from driftloop.drift.distances import Distance
from driftloop.evaluation.metrics import Floats
from driftloop.events import Retrain
from driftloop.registry.model_registry import LEARNED_UNTIL
from driftloop.settings import TRUSTED_TYPES, WindowSettings
from driftloop.storage.reference_store import PREDICTION, Reference, thinned
from driftloop.usecase import UseCase

EXAMPLE_ROWS = 5
IMPORTANCE_ROWS = 2_500  # enough to tell which features count, in a second
SCORING = {"roc_auc": "roc_auc", "rmse": "neg_root_mean_squared_error"}


def train(use_case: UseCase, learn: pd.DataFrame) -> tuple[Any, int]:
    """A fitted pipeline and the number of labelled rows that it saw."""
    labelled = learn[learn[use_case.outcome].notna()]
    return use_case.pipeline().fit(labelled[use_case.features], _outcomes(use_case, labelled)), len(labelled)


def answers(use_case: UseCase, estimator: Any, rows: pd.DataFrame) -> Floats:
    """What a model says of rows: a probability, or a number where that is what the use case asks for."""
    features = rows[use_case.features]
    said = estimator.predict(features) if use_case.metric == "rmse" else estimator.predict_proba(features)[:, 1]
    return np.asarray(said, dtype=np.float64)


def learn_reference(
    use_case: UseCase,
    estimator: Any,
    learn: pd.DataFrame,
    window: WindowSettings,
    methods: Mapping[str, Distance] = {},
    importance: Mapping[str, float] = {},
) -> Reference:
    """What windows of the new version will be compared with: all rows of its time, whether their outcome is known.

    What it predicts for them is a column too. That it has learned from these rows makes no difference to speak of:
    predictions of models that had not (each quarter by one of the others) alarmed as rarely.
    """
    rows = learn[use_case.features].assign(**{PREDICTION: answers(use_case, estimator, learn)})
    profile = calibrate(
        rows,
        use_case.day_numbers(learn[use_case.time]),
        use_case.kinds | {PREDICTION: "number"},
        rows=window.rows,
        false_alarm_rate=window.false_alarm_rate,
        importance=importance,
        methods=methods,
    )
    return Reference(rows, profile)


def importance(use_case: UseCase, estimator: Any, rows: pd.DataFrame) -> dict[str, float]:
    """By how much the use case's metric gets worse when a feature is shuffled, on evenly spaced ones of the rows."""
    labelled = thinned(rows[rows[use_case.outcome].notna()], IMPORTANCE_ROWS)
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


class Logged(NamedTuple):
    """A run with its model, which is no version yet."""

    run_id: str
    uri: str


def log(
    use_case: UseCase,
    retrain: Retrain,
    revision: str,
    estimator: Any,
    learn: pd.DataFrame,
    params: Mapping[str, object],
    files: Mapping[str, str],
) -> Logged:
    """Logs a run with all that the pipeline came of, and the pipeline.

    ``revision`` is git's, of the code that trains; ``files`` are texts by their path among the run's artifacts.
    """
    mlflow.set_experiment(use_case.name)
    with mlflow.start_run(run_name=f"retrain {retrain.id}") as run:
        mlflow.set_tags(
            {
                "retrain_id": retrain.id,
                "reason": retrain.reason,
                "asked_by": retrain.asked_by,
                "git_revision": revision,
            }
        )
        mlflow.log_params(
            {
                "data_selection": retrain.data.model_dump_json(),
                "first_time": str(learn[use_case.time].min()),
                LEARNED_UNTIL: str(learn[use_case.time].max()),
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
    return Logged(run.info.run_id, logged.model_uri)


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
    return labelled[use_case.outcome].astype("float64" if use_case.metric == "rmse" else "int64")
