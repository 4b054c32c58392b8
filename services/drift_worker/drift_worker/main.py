"""Starts the drift worker."""

import signal
from threading import Event

from fastapi import FastAPI

from drift_worker.judging import Judging
from drift_worker.settings import DriftWorkerSettings
from drift_worker.windows import Slicing
from drift_worker.worker import Worker
from driftloop.consuming import Loop, consumer
from driftloop.producing import Publisher
from driftloop.settings import load
from driftloop.storage import Bucket
from driftloop.telemetry import Health, configure_logging, routes, served


def main() -> None:
    """Settings, broker, bucket, and the loop over predictions and outcomes until SIGTERM."""
    settings = load(DriftWorkerSettings)
    configure_logging("drift_worker")
    stop = Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())

    health = Health()
    app = FastAPI(title="driftloop drift worker")
    app.include_router(routes(health))
    bucket = Bucket(settings.storage)
    publisher = Publisher(settings.kafka, settings.topics, "drift_worker")
    slicing = Slicing(settings.window.rows, settings.window.quiet_seconds)
    worker = Worker(slicing, Judging(bucket, settings.window), bucket, publisher)
    topics = [settings.topics.predictions, settings.topics.outcomes]
    source = consumer(settings.kafka, settings.drift_worker.group, settings.instance)
    with served(app, settings.drift_worker.host, settings.drift_worker.port):
        try:
            loop = Loop(source, topics, worker, publisher, settings.dead_letters, health)
            health.started()
            loop.run(stop)
        finally:
            source.close(autocommit=False)
            publisher.close()


if __name__ == "__main__":
    main()
