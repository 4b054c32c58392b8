"""A challenger: trained, logged to MLflow with all that it came from, and registered with its reference."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import git
import mlflow
import pandas as pd
from mlflow.models import infer_signature
from sklearn.inspection import permutation_importance

from driftloop import reference
from driftloop.drift.calibration import calibrate
from driftloop.drift.distances import Distance
from driftloop.events import Retrain
from driftloop.reference import PREDICTION, Reference, thinned
from driftloop.registry import LEARNED_UNTIL, Registry
from driftloop.settings import TRUSTED_TYPES, WindowSettings
from driftloop.storage import Bucket
from driftloop.usecase import UseCase

EXAMPLE_ROWS = 5
IMPORTANCE_ROWS = 5_000  # enough to tell which features count, in two seconds


class Challenger(NamedTuple):
    """A registered version that no alias names yet."""

    version: str
    run_id: str
    estimator: object
    rows: int
    """Labelled rows that it was trained on."""


def train(use_case: UseCase, learn: pd.DataFrame) -> tuple[Any, int]:
    """A fitted pipeline and the number of labelled rows that it saw."""
    labelled = learn[learn[use_case.outcome].notna()]
    estimator = use_case.pipeline().fit(labelled[use_case.features], labelled[use_case.outcome].astype(int))
    return estimator, len(labelled)


def learn_reference(
    use_case: UseCase,
    estimator: Any,
    learn: pd.DataFrame,
    window: WindowSettings,
    methods: Mapping[str, Distance] = {},
) -> Reference:
    """What windows of the new version will be compared with: all rows of its time, whether their outcome is known.

    What it predicts for them is a column too. That it has learned from these rows makes no difference to speak of:
    predictions of models that had not (each quarter by one of the others) alarmed as rarely.
    """
    rows = learn[use_case.features].assign(**{PREDICTION: estimator.predict_proba(learn[use_case.features])[:, 1]})
    profile = calibrate(
        rows,
        use_case.day_numbers(learn[use_case.time]),
        use_case.kinds | {PREDICTION: "number"},
        rows=window.rows,
        false_alarm_rate=window.false_alarm_rate,
        importance=importance(use_case, estimator, learn),
        methods=methods,
    )
    return Reference(rows, profile)


def importance(use_case: UseCase, estimator: Any, learn: pd.DataFrame) -> dict[str, float]:
    """By how much the ROC AUC falls when a feature is shuffled, on evenly spaced rows."""
    labelled = thinned(learn[learn[use_case.outcome].notna()], IMPORTANCE_ROWS)
    found = permutation_importance(
        estimator,
        labelled[use_case.features],
        labelled[use_case.outcome].astype(int),
        scoring="roc_auc",
        n_repeats=2,
        random_state=0,
    )
    return dict(zip(use_case.features, found.importances_mean.tolist(), strict=True))


def register(
    use_case: UseCase,
    registry: Registry,
    bucket: Bucket,
    retrain: Retrain,
    learn: pd.DataFrame,
    window: WindowSettings,
    methods: Mapping[str, Distance],
) -> Challenger:
    """Trains, logs, registers and writes the reference, in this order.

    Only MLflow knows the version's number, and no event can name the version before the alias does.
    """
    estimator, rows = train(use_case, learn)
    learned = learn_reference(use_case, estimator, learn, window, methods)
    first = learn[use_case.features].head(EXAMPLE_ROWS)
    signature = infer_signature(learn[use_case.features], pd.Series([0.5], name="prediction"))
    mlflow.set_experiment(use_case.name)
    with mlflow.start_run(run_name=f"retrain {retrain.id}") as run:
        mlflow.set_tags(
            {
                "retrain_id": retrain.id,
                "reason": retrain.reason,
                "asked_by": retrain.asked_by,
                "git_revision": git_revision(),
            }
        )
        mlflow.log_params(
            {
                "data_pointer": use_case.pointer.read_text(),
                "data_selection": retrain.data.model_dump_json(),
                "rows": rows,
                "first_time": str(learn[use_case.time].min()),
                LEARNED_UNTIL: str(learn[use_case.time].max()),
            }
        )
        logged = mlflow.sklearn.log_model(
            estimator,
            name="model",
            signature=signature,
            input_example=first,
            serialization_format="skops",
            skops_trusted_types=list(TRUSTED_TYPES),
            pyfunc_predict_fn="predict_proba",
            pip_requirements=["scikit-learn", "skops", "pandas"],
        )
    version = registry.create_version(logged.model_uri, retrain.id)
    reference.write(bucket, use_case.name, version, learned)
    return Challenger(version, str(run.info.run_id), estimator, rows)


def git_revision() -> str:
    """The revision of the code that trains; empty where there is no repository."""
    try:
        return git.Repo(Path(__file__).parent, search_parent_directories=True).head.commit.hexsha
    except (git.InvalidGitRepositoryError, ValueError):
        return ""
