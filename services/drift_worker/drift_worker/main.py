"""Starts the drift worker."""

import gc
import sys

from fastapi_offline import FastAPIOffline

from drift_worker.settings import DriftWorkerSettings
from drift_worker.verdicts import replay
from drift_worker.verdicts.quality_tracker import Qualities
from drift_worker.verdicts.window_judge import Judging
from drift_worker.web import routes
from drift_worker.web.report import Subject
from drift_worker.web.report_queue import Reporting
from drift_worker.web.verdict_cache import Verdicts, follow
from drift_worker.windows.committed_slices import Finals
from drift_worker.windows.orphan_cleanup import Tidying
from drift_worker.windows.recent_windows import History
from drift_worker.windows.slicer import Slicing
from drift_worker.worker import Worker
from driftloop.kafka.consumer_loop import Loop, consumer
from driftloop.kafka.transactional_producer import Transactions
from driftloop.service import run
from driftloop.settings import command_line
from driftloop.storage.bucket import Bucket
from driftloop.telemetry import tracing
from driftloop.telemetry.health import Health, configure_logging, name_build, operational_routes

ABOUT = "Compares windows of predictions with the reference of the version that answered; replay does so once more."
EXAMPLE = """DRIFTLOOP_STORAGE__BUCKET=my-bucket driftloop-drift-worker
  driftloop-drift-worker replay --help"""


def main() -> None:
    """The worker, or its command ``replay``."""
    if sys.argv[1:2] == ["replay"]:
        replay.main(sys.argv[2:])
    else:
        work()


def work() -> None:
    """Settings, broker, bucket, and the loop over predictions and outcomes."""
    settings = command_line(DriftWorkerSettings, ABOUT, EXAMPLE)
    configure_logging("drift_worker", settings.log)
    name_build("drift_worker")
    mine, health = settings.drift_worker, Health()
    app = FastAPIOffline(title="driftloop drift worker")
    app.include_router(operational_routes(health))
    bucket = Bucket(settings.storage)
    finals = Finals()
    history = History(bucket, settings.window.fewest, finals.before)
    slicing = Slicing(settings.window)
    qualities = Qualities(bucket, settings.topics, settings.quality)
    reporting = Reporting(mine.waiting_reports, mine.report_seconds)
    verdicts = Verdicts(mine.verdicts)
    routes.add(app, verdicts, reporting, bucket)
    loop = Loop(
        consumer(settings.kafka, mine.group, settings.instance),
        [settings.topics.predictions, settings.topics.outcomes],
        Worker(
            slicing,
            Judging(bucket, settings.window, history),
            qualities,
            history,
            finals,
            bucket,
            Tidying(bucket, mine.report_days),
            lambda verdict: reporting.ask(Subject.of(verdict)),
        ),
        Transactions(settings.kafka, settings.topics, "drift_worker", f"{mine.group}-{settings.instance}"),
        settings.dead_letters,
        health,
    )
    follow(verdicts, settings.kafka, settings.topics.drift)
    # What is there by now stays, and what comes lives for a window: looking through all of it for cycles again and
    # again took a fifth of the time.
    gc.freeze()
    gc.set_threshold(10_000)
    with tracing.running("drift_worker", settings.tracing), reporting:
        run(loop, app, mine, health)


if __name__ == "__main__":
    main()
