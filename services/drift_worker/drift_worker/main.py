"""Starts the drift worker."""

import gc
import sys

from fastapi_offline import FastAPIOffline

from drift_worker.settings import DriftWorkerSettings
from drift_worker.verdicts import replay
from drift_worker.verdicts.quality_tracker import QualityTracker
from drift_worker.verdicts.window_judge import WindowJudge
from drift_worker.web import routes
from drift_worker.web.report import ReportKey
from drift_worker.web.report_queue import ReportQueue
from drift_worker.web.verdict_cache import VerdictCache, start_tailing
from drift_worker.windows.committed_slices import CommittedSlices
from drift_worker.windows.orphan_cleanup import ArchiveCleaner
from drift_worker.windows.recent_windows import RecentWindows
from drift_worker.windows.slicer import Slicer
from drift_worker.worker import Worker
from driftloop.kafka.consumer_loop import ConsumerLoop, create_consumer
from driftloop.kafka.transactional_producer import TransactionalProducer
from driftloop.service import run_service
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
        run_worker()


def run_worker() -> None:
    """Settings, broker, bucket, and the loop over predictions and outcomes."""
    settings = command_line(DriftWorkerSettings, ABOUT, EXAMPLE)
    configure_logging("drift_worker", settings.log)
    name_build("drift_worker")
    mine, health = settings.drift_worker, Health()
    app = FastAPIOffline(title="driftloop drift worker")
    app.include_router(operational_routes(health))
    bucket = Bucket(settings.storage)
    finals = CommittedSlices()
    history = RecentWindows(bucket, settings.window.min_rows, finals.preceding)
    slicing = Slicer(settings.window)
    qualities = QualityTracker(bucket, settings.topics, settings.quality)
    reporting = ReportQueue(mine.max_queued_reports, mine.report_timeout_seconds)
    verdicts = VerdictCache(mine.cached_verdicts)
    routes.mount(app, verdicts, reporting, bucket)
    loop = ConsumerLoop(
        create_consumer(settings.kafka, mine.group, settings.instance_id),
        [settings.topics.predictions, settings.topics.outcomes],
        Worker(
            slicing,
            WindowJudge(bucket, settings.window, history),
            qualities,
            history,
            finals,
            bucket,
            ArchiveCleaner(bucket, mine.report_retention_days),
            lambda verdict: reporting.enqueue(ReportKey.for_verdict(verdict)),
        ),
        TransactionalProducer(settings.kafka, settings.topics, "drift_worker", f"{mine.group}-{settings.instance_id}"),
        settings.dead_letters,
        health,
    )
    start_tailing(verdicts, settings.kafka, settings.topics.drift)
    # What is there by now stays, and what comes lives for a window: looking through all of it for cycles again and
    # again took a fifth of the time.
    gc.freeze()
    gc.set_threshold(10_000)
    with tracing.running("drift_worker", settings.tracing), reporting:
        run_service(loop, app, mine, health)


if __name__ == "__main__":
    main()
