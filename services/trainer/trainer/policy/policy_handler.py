"""The policy handler: decides at each event, and publishes a retrain with the offset of the event that caused it.

Its state is rebuilt from the topics at start and after a rebalance; nothing else is stored. A repeated event changes
nothing, and a retrain that was published is on its topic. So each decision is taken once, wherever a process is killed.
"""

from collections.abc import Collection, Iterable
from datetime import date, datetime
from typing import Protocol
from zoneinfo import ZoneInfo

import structlog

from driftloop.errors import BrokerUnavailable
from driftloop.events import DriftVerdict, Event, ModelStateChanged, QualityVerdict
from driftloop.kafka.consumed_message import ConsumedMessage
from driftloop.kafka.message_handler import Commit, RetryLater
from driftloop.settings import TopicsSettings
from driftloop.usecase import UseCase
from trainer import metrics
from trainer.policy.model_history import ModelHistory
from trainer.policy.policy import Decision, decide
from trainer.policy.settings import PolicySettings

log = structlog.get_logger(__name__)


class PolicyEventReader(Protocol):
    """Reads the events that the policy decides from."""

    def policy_events(self) -> Iterable[Event]:
        """Return all events so far: retrains first, then model states and verdicts.

        Raises:
            BrokerUnavailable: The events cannot be read now.
        """


class PolicyHandler:
    """Decides at each verdict and each change of the model.

    It commits the topics of verdicts and of models. Retrain events are only noted: the queue commits their topic.
    """

    def __init__(
        self,
        use_case: UseCase,
        settings: PolicySettings,
        holdout_days: int,
        topics: TopicsSettings,
        history: PolicyEventReader,
    ) -> None:
        """Create a handler without state.

        Args:
            use_case: The model, and the time zone of its days.
            settings: When to retrain.
            holdout_days: Days of outcomes that the gate needs.
            topics: The names of the topics.
            history: Reads the events so far.
        """
        self._use_case = use_case
        data = settings.data or use_case.first_version
        self._settings = settings.model_copy(update={"data": data})
        self._holdout_days = holdout_days
        self._topics = topics
        self._history_reader = history
        self._history: ModelHistory | None = None
        self._warned_versions: set[str] = set()

    def handle(self, message: ConsumedMessage) -> Iterable[Commit]:
        """Process one event; its commit publishes a retrain if the policy decides for one."""
        history = self._history_or_load()
        event = message.event
        if event is not None:
            history.add(event)
        if message.topic == self._topics.retrain:
            return []
        commit = Commit(message.topic, message.partition, message.offset + 1)
        if not isinstance(event, DriftVerdict | QualityVerdict | ModelStateChanged) or event.model != history.model:
            return [commit]
        decision = decide(history, self._settings, self._holdout_days, self._local_date)
        self._record_decision(history, decision)
        if decision.retrain is None:
            return [commit]
        history.add(decision.retrain)
        return [commit._replace(events=[decision.retrain])]

    def on_revoked(self, _: Collection[tuple[str, int]]) -> None:
        """Drop the state, with decisions that were not published; it is read from the topics again."""
        self._history = None

    def _local_date(self, time: datetime) -> date:
        return time.astimezone(ZoneInfo(self._use_case.timezone)).date()

    def _history_or_load(self) -> ModelHistory:
        if self._history is None:
            history = ModelHistory(self._use_case.name)
            try:
                for event in self._history_reader.policy_events():
                    history.add(event)
            except BrokerUnavailable as error:
                raise RetryLater(f"the policy's topics cannot be read: {error}") from error
            self._history = history
        return self._history

    def _record_decision(self, history: ModelHistory, decision: Decision) -> None:
        model, serving = history.model, history.in_service
        metrics.POLICY_DECISIONS.labels(model, decision.kind).inc()
        metrics.MISSING_OUTCOME_DAYS.labels(model).set(decision.missing_days)
        version = serving.version if serving is not None and serving.version is not None else ""
        if decision.retrain is not None:
            log.info(
                "policy.retrain_requested",
                retrain_id=decision.retrain.id,
                version=version,
                explanation=decision.explanation,
            )
        elif decision.kind == "insufficient_outcomes" and version not in self._warned_versions:
            self._warned_versions.add(version)
            log.warning("policy.insufficient_outcomes", version=version, explanation=decision.explanation)
