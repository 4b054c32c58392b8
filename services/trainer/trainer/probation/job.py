"""A probation check: compare the version in service with the one before it, on archived rows, and act on it.

    python -m trainer.probation.job

prints the current decision, and rolls back if probation has failed. The check itself changes nothing that serves.
"""

import sys
from collections.abc import Iterable
from datetime import datetime
from typing import Protocol

import numpy as np
import pandas as pd

from driftloop.errors import RegistryUnavailable, StorageUnavailable
from driftloop.events import Event, ModelStateChanged
from driftloop.kafka.publisher import Publisher
from driftloop.registry.loading import ModelRejected
from driftloop.registry.model_registry import ModelRegistry
from driftloop.registry.rollback import roll_back, unpublished_rollbacks
from driftloop.settings import load_settings
from driftloop.storage.labelled_archive import ArchiveQuery, open_archive
from driftloop.storage.object_store import ObjectStore
from driftloop.telemetry.logging import configure_logging
from trainer.probation.probation import ProbationDecision, decide, first_days
from trainer.retrain import training
from trainer.retrain.subprocess_job import ReportPhase, RetryableError, SubprocessJob
from trainer.settings import TrainerSettings


class ProbationStarter(Protocol):
    """Starts probation checks."""

    def start_probation_check(self) -> SubprocessJob:
        """Start a check of the version in service in a subprocess."""


class ModelEventReader(Protocol):
    """Reads the topic of models."""

    def model_events(self) -> Iterable[Event]:
        """Return the events of the topic of models."""


class Probation:
    """Everything that the monitor does with the outside: start checks, roll back, find unpublished rollbacks."""

    def __init__(self, starter: ProbationStarter, registry: ModelRegistry, history: ModelEventReader) -> None:
        """Use these parts."""
        self._starter = starter
        self._registry = registry
        self._history = history

    def start_check(self) -> SubprocessJob:
        """Start a check of the version in service."""
        return self._starter.start_probation_check()

    def apply(self, decision: ProbationDecision) -> ModelStateChanged | None:
        """Roll back if the decision says so; see :func:`apply`."""
        return apply(self._registry, decision)

    def unpublished_rollbacks(self) -> list[ModelStateChanged]:
        """Return rollbacks that were carried out by a process that died before it published them."""
        return unpublished_rollbacks(self._registry, self._history.model_events())


def evaluate(settings: TrainerSettings, registry: ModelRegistry, store: ObjectStore) -> ProbationDecision:
    """Decide about the version in service.

    It costs little while there is nothing to decide: the archive is read only if there is a version to roll back to,
    of it only the files that were written since the version in service was registered, and the version before is
    loaded only once there are enough days.

    Raises:
        RegistryUnavailable: The registry does not answer.
        StorageUnavailable: The store does not answer.
    """
    use_case, probation = settings.use_case, settings.probation
    version, run_id = registry.identified_champion() or (None, None)
    previous = registry.previous()
    versions = {"version": version, "run_id": run_id, "previous": previous}
    if probation.days == 0:
        return ProbationDecision(
            status="passed", explanation="there is no probation (DRIFTLOOP_PROBATION__DAYS)", **versions
        )
    if version is None or previous is None:
        return ProbationDecision(status="passed", explanation="there is no version to roll back to", **versions)
    if note := settings.privacy.privacy.archive_note:
        explanation = f"there is no probation, since the version before cannot predict archived rows: {note}"
        return ProbationDecision(status="passed", explanation=explanation, **versions)
    rows = labelled_rows_of(settings, store, version, registry.origin(version).created)
    served = first_days(use_case, rows, probation.days)
    days = len(np.unique(use_case.day_ordinals(served[use_case.timestamp])))
    if days < probation.min_days:
        explanation = f"{days} days of outcomes since its promotion, and {probation.min_days} are needed"
        return ProbationDecision(status="pending", explanation=explanation, **versions)
    try:
        previous_model = registry.load(previous)
    except ModelRejected as error:
        return ProbationDecision(
            status="passed", explanation=f"version {previous} cannot be loaded: {error}", **versions
        )
    previous_scores = training.predict(use_case, previous_model.estimator, served)
    return decide(use_case, served, previous_scores, probation).model_copy(update=versions)


def labelled_rows_of(settings: TrainerSettings, store: ObjectStore, version: str, registered: datetime) -> pd.DataFrame:
    """Return the archived rows that a version predicted and whose outcomes are known, in order of time.

    Files from before the version was registered have none of them, and are not fetched. The rows' own times do not
    matter: in a replay of the past they lie before the registration.
    """
    written_since = ArchiveQuery(since=registered)
    with open_archive(store, settings.topics, settings.use_case, query=written_since) as archive:
        return archive.read(ArchiveQuery(versions=(version,)))


def apply(registry: ModelRegistry, decision: ProbationDecision) -> ModelStateChanged | None:
    """Roll back if probation has failed and the version is still in service; return the event to publish."""
    if decision.status != "failed" or registry.identified_champion() != (decision.version, decision.run_id):
        return None
    return roll_back(registry, f"probation: {decision.explanation}", decision.previous)


def job_main(_: str, report_phase: ReportPhase) -> str:
    """Run one check in a subprocess; return the decision as JSON.

    Raises:
        RetryableError: Registry or store are unavailable.
    """
    settings = load_settings(TrainerSettings)
    configure_logging("trainer", settings.log)
    report_phase("probation", "scores the rows with the version before")
    try:
        return evaluate(settings, ModelRegistry(settings.registry), ObjectStore(settings.storage)).model_dump_json()
    except (RegistryUnavailable, StorageUnavailable) as error:
        raise RetryableError(str(error)) from error


def main() -> int:
    """Run one check and act on it; return the exit code."""
    settings = load_settings(TrainerSettings)
    registry = ModelRegistry(settings.registry)
    decision = evaluate(settings, registry, ObjectStore(settings.storage).require_answer())
    print(f"version {decision.version} {decision.status}: {decision.explanation}")
    state = apply(registry, decision)
    if state is not None:
        with Publisher(settings.kafka, settings.topics, "trainer") as publisher:
            publisher.publish(state)
        print(state.explanation)
    return 0


if __name__ == "__main__":
    sys.exit(main())
