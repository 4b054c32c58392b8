"""One retrain, from its data to its result: what the subprocess does. :func:`run_retrain` lists the steps.

Run and model are logged to MLflow. The result is stored as a tag on the version before it is returned.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from threadpoolctl import threadpool_limits

from driftloop.archive.scratch import RETRAIN, remove_abandoned_folders, scratch_folder
from driftloop.drift.window_length import choose_window_rows
from driftloop.errors import DriftloopError, RegistryRefused, RegistryUnavailable, StorageUnavailable
from driftloop.evaluation import gate
from driftloop.evaluation.gate import Decision, HoldoutPredictions, SmokeTestResult
from driftloop.events import Evaluation, ModelStateChanged, RetrainRequested, now
from driftloop.registry.loading import download_model, load_model
from driftloop.registry.model_registry import ModelRegistry
from driftloop.registry.smoke_test import SmokeTestProcess
from driftloop.settings import load_settings
from driftloop.storage import dvc
from driftloop.storage.object_store import ObjectStore
from driftloop.storage.reference_store import Reference
from driftloop.telemetry import tracing
from driftloop.telemetry.logging import configure_logging
from driftloop.usecase import UseCase
from trainer.retrain import candidates, git_revision, training, training_set
from trainer.retrain.archive_lag import ArchiveLag, describe_expired, wait_for_archive
from trainer.retrain.holdout import split_for_gate
from trainer.retrain.private_features import TrainingFailed, without_private_archive, without_quotes
from trainer.retrain.registration import record_result, register
from trainer.retrain.subprocess_job import ReportPhase, RetryableError
from trainer.retrain.training import LoggedModel
from trainer.retrain.training_set import TrainingSet
from trainer.settings import TrainerSettings

TRIED_ROWS = 500  # the latest rows that the smoke test predicts: with an archive, rows that were answered


@dataclass
class _Background:
    """Work that runs in threads during the steps; waiting for it only where it is needed saves several seconds."""

    threads: ThreadPoolExecutor
    cleanup: Future[None]
    """Deletes what an attempt that was killed has left in the registry."""
    champion_folder: Future[Path] | None
    """Downloads the champion; None if there is none."""
    dataset_pointer: Future[str] | None = None
    """Pushes the training set to the store; its DVC pointer."""
    importances: Future[dict[str, float]] | None = None


@dataclass
class _FittedModel:
    estimator: Any
    rows: pd.DataFrame
    """The rows it was trained on, with those that have no label."""
    labelled: int


def job_main(argument: str, report_phase: ReportPhase) -> str:
    """Run the retrain of an event (JSON); return its final state (JSON).

    Raises:
        RetryableError: Something failed, and registry or store are unavailable, which may be the reason.
    """
    settings = load_settings(TrainerSettings)
    configure_logging("trainer", settings.log)
    retrain = RetrainRequested.model_validate_json(argument)
    registry, store = ModelRegistry(settings.registry), ObjectStore(settings.storage)
    with (
        tracing.tracing_session("trainer", settings.tracing),
        tracing.span("retrain", "consumer", parents=[retrain.traceparent], retrain_id=retrain.id),
        ExitStack() as phase_span,
    ):

        def enter_phase(name: str, message: str) -> None:
            phase_span.close()
            phase_span.enter_context(tracing.span(name))
            report_phase(name, message)

        try:
            with threadpool_limits(settings.trainer.training_threads):
                return run_retrain(settings, retrain, registry, store, enter_phase).model_dump_json()
        except Exception as error:
            privacy = settings.privacy.privacy
            if (unavailable := _unavailable_dependency(registry, store)) is not None:
                raise RetryableError(f"{unavailable} ({privacy.describe_error(error)})") from error
            if privacy.has_private_features and not isinstance(error, DriftloopError):
                raise TrainingFailed(privacy.describe_error(error)) from None
            raise


def run_retrain(
    settings: TrainerSettings,
    retrain: RetrainRequested,
    registry: ModelRegistry,
    store: ObjectStore,
    report_phase: ReportPhase,
) -> ModelStateChanged:
    """Run a retrain and return its final state.

    1. Build and check the training set, and split off the holdout.
    2. Train the challenger on the other rows; if the use case has candidates, the best of them.
    3. Score the holdout with challenger and champion. A first version has no champion; its score is what its quality
       in service is compared with.
    4. If the gate would promote: train again, with the holdout.
    5. Log the model, load and time it in a fresh process, and build the reference of its windows.
    6. Register the version with its reference, and record the result.

    Downloads, uploads, feature importances and the smoke test run in parallel, see :class:`_Background`.
    Any exception of a dataset or a pipeline is passed on.

    Raises:
        AliasMissing: The model has had a champion, which the challenger has to be compared with.
    """
    use_case, privacy = settings.use_case, settings.privacy.privacy
    champion = registry.champion_unless_first()
    retrain, left_out = without_private_archive(retrain, privacy)
    remove_abandoned_folders(RETRAIN)
    with (
        scratch_folder(RETRAIN) as folder,
        SmokeTestProcess(registry.trusted_types) as smoke_test,
        ThreadPoolExecutor(initializer=threadpool_limits, initargs=(settings.trainer.training_threads,)) as threads,
    ):
        background = _Background(
            threads,
            cleanup=threads.submit(registry.delete_unfinished, retrain.id),
            champion_folder=threads.submit(registry.fetch, champion, folder / "champion") if champion else None,
        )

        lag = (
            wait_for_archive(
                settings.kafka,
                settings.drift_worker.group,
                settings.topics,
                settings.data.archive_wait_seconds,
                partial(report_phase, "data"),
            )
            if retrain.data.archive
            else ArchiveLag(0)
        )
        report_phase("data", f"fetches the base dataset{left_out or ' and the archive'}")
        dataset = training_set.build(
            settings.storage,
            store,
            settings.topics,
            use_case,
            retrain.data,
            settings.data,
            folder,
            unquoted={*privacy.features, *privacy.context},
        )
        background.dataset_pointer = threads.submit(dvc.push, settings.storage, dataset.path)
        trained_through = registry.trained_through(champion) if champion else None
        rows = training_set.read(dataset.path, dataset.optional_features)
        split = split_for_gate(
            use_case, settings.gate, rows, trained_through, with_archive=retrain.data.archive, note=left_out
        )
        window_rows = choose_window_rows(len(split.everything), settings.window.rows)  # refuses before the training
        champion_folder = background.champion_folder.result() if background.champion_folder else None
        if champion_folder is not None:
            smoke_test.set_champion(champion_folder)

        expired = describe_expired(settings.archive, retrain.data.start, now()) if retrain.data.archive else ""
        archive_note = lag.describe(dataset.archived_through) + expired + left_out
        report_phase(
            "training",
            f"{dataset.counts}{archive_note}: trains on rows up to {split.train[use_case.timestamp].max():%Y-%m-%d}; "
            f"windows will have {window_rows:,} rows",
        )
        selection = None
        if use_case.candidates:
            report_phase("candidates", f"compares {1 + len(use_case.candidates)} candidates on its latest days")
            selection = candidates.choose(
                use_case,
                split.train,
                lambda rows, make_pipeline: training.train(use_case, rows, make_pipeline)[0],
                partial(training.predict, use_case),
                privacy.describe_error,
            )
            report_phase("training", str(selection))
        make_pipeline = selection.make_pipeline if selection else use_case.make_pipeline
        challenger = _fit(settings, split.train, make_pipeline)

        evaluation = predictions = None
        if len(split.holdout):
            compared = f"compares it with version {champion}" if champion else "measures its quality"
            report_phase("gate", f"{compared} on {len(split.holdout):,} holdout rows")
            evaluation, predictions = _score_holdout(use_case, registry, split.holdout, challenger, champion_folder)

        # Importances are computed on rows that the model was not trained on. Training again does not change them much.
        importance_rows = split.holdout if len(split.holdout) else split.train
        background.importances = threads.submit(
            training.feature_importance, use_case, challenger.estimator, importance_rows
        )
        refit = (
            settings.gate.refit
            and len(split.holdout) > 0
            and _decide(settings, evaluation, predictions, SmokeTestResult()).promote
        )
        if refit:
            report_phase("refit", f"trains it again, with the {len(split.holdout):,} holdout rows")
            challenger = _fit(settings, split.everything, make_pipeline)

        report_phase("smoke_test", "logs it, runs it in a fresh process, and calibrates its drift profile")
        params = {
            **dataset.counts._asdict(),
            "archive_lag": lag.offsets,
            "training_rows": challenger.labelled,
            "holdout_rows": len(split.holdout),
            "refit": refit,
            **(candidates.run_params(selection) if selection else {}),
        }
        logged, smoke_test_result, reference = _log_and_test(
            settings, retrain, dataset, challenger, params, background, smoke_test, folder
        )
        if selection:
            mlflow.log_metrics(candidates.run_metrics(selection), run_id=logged.run_id)
        dataset_md5 = dvc.parse_pointer(background.dataset_pointer.result()).md5

    report_phase("registration", "registers it with its reference")
    decision = _decide(settings, evaluation, predictions, smoke_test_result)
    decision.challenger.update(training_rows=float(challenger.labelled), dataset_rows=float(dataset.counts.labelled))
    version = register(retrain, registry, store, logged, champion, decision, reference, evaluation)
    decision = decision._replace(explanation=decision.explanation + archive_note)
    return record_result(registry, retrain, version, decision, challenger.rows[use_case.timestamp].max(), dataset_md5)


def _fit(settings: TrainerSettings, rows: pd.DataFrame, make_pipeline: Callable[[], Any]) -> _FittedModel:
    estimator, labelled = training.train(settings.use_case, rows, make_pipeline)
    return _FittedModel(estimator, rows, labelled)


def _score_holdout(
    use_case: UseCase,
    registry: ModelRegistry,
    holdout: pd.DataFrame,
    challenger: _FittedModel,
    champion_folder: Path | None,
) -> tuple[Evaluation, HoldoutPredictions | None]:
    """Return how good the challenger is on the holdout, and if there is a champion the predictions of both."""
    scores = training.predict(use_case, challenger.estimator, holdout)
    evaluation = gate.evaluate_holdout(use_case, holdout, scores)
    if champion_folder is None:
        return evaluation, None
    champion = load_model(champion_folder, registry.trusted_types)
    champion_scores = training.predict(use_case, champion.estimator, holdout)
    return evaluation, gate.describe_holdout(use_case, holdout, champion=champion_scores, challenger=scores)


def _decide(
    settings: TrainerSettings,
    evaluation: Evaluation | None,
    predictions: HoldoutPredictions | None,
    smoke_test_result: SmokeTestResult,
) -> Decision:
    if predictions is None:
        return gate.decide_first(smoke_test_result, evaluation)
    return gate.decide(settings.use_case.headline_metric, predictions, smoke_test_result, settings.gate)


def _log_and_test(
    settings: TrainerSettings,
    retrain: RetrainRequested,
    dataset: TrainingSet,
    challenger: _FittedModel,
    params: Mapping[str, object],
    background: _Background,
    smoke_test: SmokeTestProcess,
    folder: Path,
) -> tuple[LoggedModel, SmokeTestResult, Reference]:
    """Log the model and smoke-test it in threads while this thread builds the reference."""
    if background.dataset_pointer is None or background.importances is None:
        raise RuntimeError("the dataset's push and the importances have to be started first")
    background.cleanup.result()
    logged = background.threads.submit(
        training.log_run,
        settings.use_case,
        retrain,
        settings.trainer.git_revision or git_revision.of_use_case(settings.use_case),
        challenger.estimator,
        challenger.rows,
        params=params,
        files={dataset.artifact: background.dataset_pointer.result()},
        optional_features=dataset.optional_features,
    )
    latest_rows = challenger.rows[settings.use_case.features].tail(TRIED_ROWS)
    latest_rows.to_parquet(folder / "latest_rows.parquet", index=False)
    smoke_test_result = background.threads.submit(
        lambda: smoke_test.run(
            download_model(logged.result().uri, folder),
            settings.gate.smoke_test_timeout_seconds,
            folder / "latest_rows.parquet",
        )
    )
    reference = training.build_reference(
        settings.use_case,
        challenger.estimator,
        challenger.rows,
        settings.window,
        settings.calibration.distances,
        background.importances.result(),
        settings.privacy.privacy,
    )
    tested = without_quotes(smoke_test_result.result(), settings.privacy.privacy)
    return logged.result(), tested, reference


def _unavailable_dependency(registry: ModelRegistry, store: ObjectStore) -> str | None:
    """Return the error of the registry or the store if one of them does not answer now."""
    try:
        with suppress(RegistryRefused):  # it answers
            registry.champion()
        store.exists("references")
    except (RegistryUnavailable, StorageUnavailable, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return None
