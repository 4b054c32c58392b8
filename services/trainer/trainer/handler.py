"""Hands each event of the trainer's topics to those who need it."""

from collections.abc import Collection, Iterable, Mapping

import structlog

from driftloop.errors import BrokerUnavailable
from driftloop.events import now
from driftloop.kafka.consumed_message import ConsumedMessage
from driftloop.kafka.message_handler import Commit
from driftloop.kafka.transactional_producer import CommittedPosition
from trainer.policy.policy_handler import PolicyHandler
from trainer.probation.probation_monitor import ProbationMonitor
from trainer.retrain.queue import RetrainQueue
from trainer.schedule import Schedule

log = structlog.get_logger(__name__)


class TrainerHandler:
    """The consumer loop's handler: policy and probation see every event, the queue those of the topic of retrains."""

    def __init__(
        self,
        retrain_topic: str,
        policy: PolicyHandler,
        queue: RetrainQueue,
        probation: ProbationMonitor,
        schedule: Schedule | None,
    ) -> None:
        """Combine the parts; without a ``schedule`` no retrain is requested by the clock."""
        self._retrain_topic = retrain_topic
        self._policy = policy
        self._queue = queue
        self._probation = probation
        self._schedule = schedule

    def handle(self, message: ConsumedMessage) -> Iterable[Commit]:
        """Hand over one event. A retrain is committed by the queue alone, every other event by the policy."""
        self._probation.on_event(message.event)
        commits = [*self._policy.handle(message)]
        return [*commits, *self._queue.handle(message)] if message.topic == self._retrain_topic else commits

    def on_poll(self) -> Iterable[Commit]:
        """Request scheduled retrains, check the background jobs, and commit what has finished."""
        if self._schedule is not None:
            try:
                self._schedule.run_due(now())
            except BrokerUnavailable as error:  # it stays due until it has been requested
                log.warning("schedule.request_postponed", error=str(error))
        self._probation.poll()
        return self._queue.on_poll()

    def on_assigned(self, _: Mapping[tuple[str, int], CommittedPosition]) -> None:
        """Do nothing: policy and queue read their state from the topics when they need it."""

    def on_revoked(self, partitions: Collection[tuple[str, int]]) -> None:
        """Drop what policy and queue hold."""
        self._policy.on_revoked(partitions)
        self._queue.on_revoked(partitions)

    def close(self) -> None:
        """Kill the running jobs."""
        self._queue.close()
        self._probation.close()
