"""Starts the trainer."""

from driftloop.consuming import consumer
from driftloop.producing import Publisher
from driftloop.registry import Registry
from driftloop.service import consume
from driftloop.settings import load
from driftloop.storage import Bucket
from driftloop.telemetry import Health, configure_logging
from trainer.api import create
from trainer.retrains import Retrains
from trainer.settings import TrainerSettings


def main() -> None:
    """Settings, broker, registry, bucket, API, and the loop over retrain events."""
    settings = load(TrainerSettings)
    configure_logging("trainer")
    mine, model = settings.trainer, settings.use_case.name
    health = Health(stale_seconds=mine.longest_training_seconds)
    publisher = Publisher(settings.kafka, settings.topics, "trainer")
    consume(
        consumer(settings.kafka, f"{mine.group}-{model}", settings.instance, mine.longest_training_seconds),
        [settings.topics.retrain],
        Retrains(settings, Registry(settings.registry), Bucket(settings.storage), publisher),
        publisher=publisher,
        limits=settings.dead_letters,
        health=health,
        app=create(model, mine.api_key, publisher, health),
        server=mine,
    )


if __name__ == "__main__":
    main()
