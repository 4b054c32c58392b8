"""Starts the trainer."""

import signal
from threading import Event

from driftloop.consuming import Loop, consumer
from driftloop.producing import Publisher
from driftloop.registry import Registry
from driftloop.settings import load
from driftloop.storage import Bucket
from driftloop.telemetry import Health, configure_logging, served
from trainer.api import create
from trainer.retrains import Retrains
from trainer.settings import TrainerSettings


def main() -> None:
    """Settings, broker, registry, bucket, API, and the loop over retrain events until SIGTERM."""
    settings = load(TrainerSettings)
    configure_logging("trainer")
    mine, model = settings.trainer, settings.use_case.name
    stop = Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())

    health = Health(stale_seconds=mine.longest_training_seconds)
    publisher = Publisher(settings.kafka, settings.topics, "trainer")
    retrains = Retrains(settings, Registry(settings.registry), Bucket(settings.storage), publisher)
    topics = [settings.topics.retrain]
    source = consumer(settings.kafka, f"{mine.group}-{model}", settings.instance, mine.longest_training_seconds)
    with served(create(model, mine.api_key, publisher, health), mine.host, mine.port):
        try:
            loop = Loop(source, topics, retrains, publisher, settings.dead_letters, health)
            health.started()
            loop.run(stop)
        finally:
            source.close(autocommit=False)
            publisher.close()


if __name__ == "__main__":
    main()
