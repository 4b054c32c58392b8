"""The probation monitor: checks the version in service whenever outcomes of it have arrived."""

import time
from collections.abc import Iterable
from typing import Protocol

import structlog

from driftloop.errors import BrokerUnavailable, RegistryUnavailable, Rejected
from driftloop.events import Event, ModelStateChanged, QualityVerdict
from trainer.event_publisher import EventPublisher
from trainer.probation.probation import ProbationDecision
from trainer.retrain.subprocess_job import SubprocessJob

log = structlog.get_logger(__name__)

STARTUP_CHECK_INTERVAL_SECONDS = 10  # between two attempts, each of which reads a topic and asks MLflow


class ProbationActions(Protocol):
    """What the monitor does with the outside; see :class:`trainer.probation.job.Probation`."""

    def start_check(self) -> SubprocessJob:
        """Start a check, whose result is a :class:`ProbationDecision` as JSON."""

    def apply(self, decision: ProbationDecision) -> ModelStateChanged | None:
        """Act on a decision and return the event to publish, if anything has changed."""

    def unpublished_rollbacks(self) -> Iterable[ModelStateChanged]:
        """Return rollbacks that were carried out but never published."""


class ProbationMonitor:
    """Runs probation checks in a subprocess, one at a time.

    Nothing has to survive a restart. On start, the monitor publishes a rollback that an earlier process carried out
    but could not publish, because it died in between.
    """

    def __init__(self, model: str, probation: ProbationActions, publisher: EventPublisher) -> None:
        """Create a monitor of the versions of ``model``."""
        self._model = model
        self._probation = probation
        self._publisher = publisher
        self._startup_check_done = False
        self._next_startup_check = float("-inf")
        self._due_version: str | None = None
        self._settled: set[tuple[str, str | None]] = set()
        self._job: SubprocessJob | None = None

    def on_event(self, event: Event | None) -> None:
        """Note that outcomes of a version have arrived."""
        if not isinstance(event, QualityVerdict) or event.model != self._model:
            return
        if (event.version, event.run_id) not in self._settled:
            self._due_version = event.version

    def poll(self) -> None:
        """Look at the running check, act on its decision, or start the next one."""
        self._publish_missed_rollbacks()
        if self._job is None:
            if self._due_version is not None:
                self._due_version, self._job = None, self._probation.start_check()
            return
        self._job.progress()
        result = self._job.poll()
        if result is None:
            return
        self._job = None
        if result.status != "done":  # the next outcomes start another check
            log.warning("probation.check_failed", status=result.status, error=result.payload)
            return
        decision = ProbationDecision.model_validate_json(result.payload)
        log.info(
            "probation.checked",
            version=decision.version,
            status=decision.status,
            explanation=decision.explanation,
        )
        if decision.status == "passed" and decision.version is not None:
            # The second is for events that do not have the run.
            self._settled |= {(decision.version, decision.run_id), (decision.version, None)}
        try:
            state = self._probation.apply(decision)
            if state is not None:
                self._publisher.publish(state)
        except (RegistryUnavailable, BrokerUnavailable, Rejected) as error:  # the next outcomes start another check
            log.warning("probation.rollback_failed", version=decision.version, error=str(error))

    def _publish_missed_rollbacks(self) -> None:
        """Publish rollbacks that an earlier process did not; try again after a pause if that fails."""
        if self._startup_check_done or time.monotonic() < self._next_startup_check:
            return
        self._next_startup_check = time.monotonic() + STARTUP_CHECK_INTERVAL_SECONDS
        try:
            for state in self._probation.unpublished_rollbacks():
                log.info("probation.missed_rollback_published", version=state.version, explanation=state.explanation)
                self._publisher.publish(state)
            self._startup_check_done = True
        except (RegistryUnavailable, BrokerUnavailable, Rejected) as error:
            log.warning("probation.startup_check_postponed", error=str(error))

    def close(self) -> None:
        """Kill the running check."""
        if self._job is not None:
            self._job.kill()
            self._job = None
