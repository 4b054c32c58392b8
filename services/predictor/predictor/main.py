"""Starts the predictor."""

import uvicorn

from driftloop.producing import Publisher
from driftloop.registry import Registry
from driftloop.settings import load
from driftloop.telemetry import Health, configure_logging
from predictor.api import create
from predictor.serving import Champion
from predictor.settings import PredictorSettings


def main() -> None:
    """Settings, registry, broker, application; uvicorn ends it on SIGTERM once open requests are answered."""
    settings = load(PredictorSettings)
    configure_logging("predictor")
    mine = settings.predictor
    health = Health()
    champion = Champion(Registry(settings.registry), mine.trusted_types, mine.max_rows, health)
    publisher = Publisher(settings.kafka, settings.topics, "predictor")
    app = create(settings.registry.model, champion, publisher, health, mine.poll_seconds)
    uvicorn.run(app, host=mine.host, port=mine.port, log_config=None, access_log=False, timeout_graceful_shutdown=10)


if __name__ == "__main__":
    main()
