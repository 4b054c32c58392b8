"""Starts the drift worker."""

from fastapi_offline import FastAPIOffline

from drift_worker.history import History
from drift_worker.judging import Judging
from drift_worker.settings import DriftWorkerSettings
from drift_worker.windows import Slicing
from drift_worker.worker import Worker
from driftloop.consuming import Loop, consumer
from driftloop.service import run
from driftloop.settings import command_line
from driftloop.storage import Bucket
from driftloop.telemetry import Health, configure_logging, routes
from driftloop.transactions import Transactions

ABOUT = "Compares windows of predictions with the reference of the version that answered."
EXAMPLE = "DRIFTLOOP_STORAGE__BUCKET=my-bucket driftloop-drift-worker"


def main() -> None:
    """Settings, broker, bucket, and the loop over predictions and outcomes."""
    settings = command_line(DriftWorkerSettings, ABOUT, EXAMPLE)
    configure_logging("drift_worker")
    mine, health = settings.drift_worker, Health()
    app = FastAPIOffline(title="driftloop drift worker")
    app.include_router(routes(health))
    bucket = Bucket(settings.storage)
    history = History(bucket, settings.window.fewest)
    slicing = Slicing(settings.window)
    loop = Loop(
        consumer(settings.kafka, mine.group, settings.instance),
        [settings.topics.predictions, settings.topics.outcomes],
        Worker(slicing, Judging(bucket, settings.window, history), history, bucket),
        Transactions(settings.kafka, settings.topics, "drift_worker", f"{mine.group}-{settings.instance}"),
        settings.dead_letters,
        health,
    )
    run(loop, app, mine, health)


if __name__ == "__main__":
    main()
