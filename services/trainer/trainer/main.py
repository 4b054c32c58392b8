"""Starts the trainer."""

from driftloop.consuming import Loop, consumer
from driftloop.producing import Publisher
from driftloop.registry import Registry
from driftloop.service import run
from driftloop.settings import command_line
from driftloop.storage import Bucket
from driftloop.telemetry import Health, configure_logging
from driftloop.transactions import Transactions
from trainer.api import create
from trainer.retrains import Retrains
from trainer.settings import TrainerSettings

ABOUT = "Trains when a retrain event asks for it, and promotes what proves itself."
EXAMPLE = "DRIFTLOOP_USE_CASE=usecases.flights:usecase … driftloop-trainer"


def main() -> None:
    """Settings, broker, registry, bucket, API, and the loop over retrain events."""
    settings = command_line(TrainerSettings, ABOUT, EXAMPLE)
    configure_logging("trainer")
    mine, model = settings.trainer, settings.use_case.name
    health = Health(stale_seconds=mine.longest_training_seconds)
    publisher = Publisher(settings.kafka, settings.topics, "trainer")
    loop = Loop(
        consumer(settings.kafka, f"{mine.group}-{model}", settings.instance, mine.longest_training_seconds),
        [settings.topics.retrain],
        Retrains(settings, Registry(settings.registry), Bucket(settings.storage), publisher),
        Transactions(settings.kafka, settings.topics, "trainer", f"{mine.group}-{model}-{settings.instance}"),
        settings.dead_letters,
        health,
    )
    with publisher:
        run(loop, create(model, mine.api_key, publisher, health), mine, health)


if __name__ == "__main__":
    main()
