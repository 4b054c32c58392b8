"""Starts the trainer."""

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial

import structlog
from kafka.errors import KafkaError

from driftloop.events import ModelChange, now
from driftloop.kafka import topics
from driftloop.kafka.consumer_loop import Final, Loop, NotNow, Received, consumer
from driftloop.kafka.publisher import Publisher, Unavailable
from driftloop.kafka.transactional_producer import Begin, Transactions
from driftloop.registry.model_registry import Registry
from driftloop.registry.rollback import untold
from driftloop.service import run
from driftloop.settings import Kafka, command_line
from driftloop.storage import dvc
from driftloop.telemetry import tracing
from driftloop.telemetry.health import Health, configure_logging, name_build
from trainer import alias_metric
from trainer.api import create
from trainer.policy import policy_handler
from trainer.policy.policy_handler import Policing
from trainer.probation import probation
from trainer.probation.probation_monitor import OnProbation
from trainer.retrain import job, subprocess_job
from trainer.retrain.queue import Retrains
from trainer.retrain.subprocess_job import Child, Tell
from trainer.retrain_history import States
from trainer.schedule import Schedule
from trainer.settings import TrainerSettings

log = structlog.get_logger(__name__)

ABOUT = "Trains when a retrain event asks for it, and promotes what proves itself."
EXAMPLE = "DRIFTLOOP_USE_CASE=usecases.flights:usecase … driftloop-trainer"


class Handler:
    """Who is handed which event: policy and probation hear all of them, and retrains are trained for."""

    def __init__(
        self, topic: str, policing: Policing, retrains: Retrains, probation: OnProbation, schedule: Schedule | None
    ) -> None:
        """``topic`` is that of retrains."""
        self._topic = topic
        self._policing = policing
        self._retrains = retrains
        self._probation = probation
        self._schedule = schedule

    def handle(self, received: Received) -> Iterable[Final]:
        """Takes one event."""
        self._probation.hear(received.event)
        final = [*self._policing.handle(received)]
        return [*final, *self._retrains.handle(received)] if received.topic == self._topic else final

    def idle(self) -> Iterable[Final]:
        """What has ended since the last call."""
        if self._schedule is not None:
            try:
                self._schedule.look(now())
            except Unavailable as error:  # it is due until it is asked for
                log.warning("a scheduled retrain is asked for a little later", error=str(error))
        self._probation.look()
        return [*self._policing.idle(), *self._retrains.idle()]

    def assigned(self, _: Mapping[tuple[str, int], Begin]) -> None:
        """What the topics say is all that counts."""

    def revoked(self, partitions: Collection[tuple[str, int]]) -> None:
        """Both forget what they hold."""
        self._policing.revoked(partitions)
        self._retrains.revoked(partitions)

    def close(self) -> None:
        """Ends what runs in child processes."""
        self._retrains.close()
        self._probation.close()


def main() -> None:
    """Settings, processes for training, broker, registry, policy, API, and the loop over their events."""
    settings = command_line(TrainerSettings, ABOUT, EXAMPLE)
    configure_logging("trainer", settings.log)
    name_build("trainer")
    subprocess_job.prepare([job.__name__, probation.__name__, "git", "mlflow.pyfunc", *dvc.IMPORTS])
    mine, use_case, names = settings.trainer, settings.use_case, settings.topics
    health = Health()
    publisher = Publisher(settings.kafka, names, "trainer")
    registry = Registry(settings.registry)

    def begin(work: Callable[[str, Tell], str], argument: str) -> Child:
        return Child(work, argument, seconds=mine.longest_training_seconds, megabytes=mine.memory_mb)

    handler = Handler(
        names.retrain,
        Policing(
            use_case,
            settings.policy,
            settings.gate.held_out_days,
            names,
            partial(policy_handler.read, settings.kafka, names),
        ),
        Retrains(
            use_case.name,
            registry,
            publisher,
            partial(ended, settings.kafka, names.models),
            lambda retrain: begin(job.work, retrain.model_dump_json()),
        ),
        OnProbation(
            use_case.name,
            lambda: begin(probation.work, ""),
            partial(probation.end, registry),
            publisher.publish,
            lambda: untold(registry, topics.latest(settings.kafka, names.models, policy_handler.ALL)),
        ),
        Schedule(mine.schedule, use_case.timezone, use_case.name, publisher.publish) if mine.schedule else None,
    )
    group = f"{mine.group}-{use_case.name}"
    loop = Loop(
        consumer(settings.kafka, group, settings.instance),
        [names.retrain, names.models, names.drift],
        handler,
        Transactions(settings.kafka, names, "trainer", f"{group}-{settings.instance}"),
        settings.dead_letters,
        health,
    )
    states = States(settings.kafka, names)
    alias_metric.follow(registry)
    try:
        with tracing.running("trainer", settings.tracing), publisher:
            app = create(use_case.name, mine.api_key, publisher, health, registry, states)
            run(loop, tracing.served(app), mine, health)
    finally:
        handler.close()


def ended(kafka: Kafka, topic: str) -> dict[str, ModelChange]:
    """How all retrains ended, by their id, as the topic of models says."""
    try:
        changes = topics.latest(kafka, topic, policy_handler.ALL)
    except KafkaError as error:
        raise NotNow(f"the topic of models cannot be read: {error}") from error
    return {
        change.retrain_id: change
        for change in changes
        if isinstance(change, ModelChange) and change.final and change.state != "rolled_back"
    }


if __name__ == "__main__":
    main()
