"""Start the drift worker, or its command ``replay``."""

import gc
import sys
import threading
from functools import partial

from fastapi_offline import FastAPIOffline

from drift_worker.settings import DriftWorkerSettings
from drift_worker.verdicts import replay
from drift_worker.verdicts.quality_tracker import QualityTracker
from drift_worker.verdicts.window_judge import WindowJudge
from drift_worker.web import routes
from drift_worker.web.report_queue import ReportQueue
from drift_worker.web.verdict_cache import RECONNECT_DELAY_SECONDS, VerdictCache, follow_models, follow_verdicts
from drift_worker.windows import compaction
from drift_worker.windows.archived_end import ArchivedEnd
from drift_worker.windows.compaction import Compactor
from drift_worker.windows.merge_process import merge_in_process
from drift_worker.windows.orphan_cleanup import ArchiveCleaner
from drift_worker.windows.slicer import Slicer
from drift_worker.windows.window_rows import WindowRows
from drift_worker.worker import Worker
from driftloop.archive import erasures
from driftloop.archive.erasures import Tombstones
from driftloop.archive.retention import retention_by_topic
from driftloop.command_line import exit_on_invalid_settings, parse_settings
from driftloop.kafka.client import create_consumer
from driftloop.kafka.consumer_loop import ConsumerLoop
from driftloop.kafka.transactional_producer import TransactionalProducer
from driftloop.service import run_service
from driftloop.storage.object_store import ObjectStore
from driftloop.telemetry import tracing
from driftloop.telemetry.background import start_background
from driftloop.telemetry.health import Health
from driftloop.telemetry.http import operational_routes
from driftloop.telemetry.logging import configure_logging
from driftloop.telemetry.metrics import configure_metrics

DESCRIPTION = """\
Compare windows of predictions with the reference of their version. The command replay judges archived windows again.
"""
EXAMPLES = """\
DRIFTLOOP_STORAGE__URL=gs://my-bucket driftloop-drift-worker
driftloop-drift-worker replay --help
"""


def main() -> None:
    """Run the command that the first argument names, or else the worker."""
    if sys.argv[1:2] == ["replay"]:
        replay.main(sys.argv[2:])
    else:
        run_worker()


def run_worker() -> None:
    """Wire settings, broker, store and pages, and run the loop over predictions and outcomes until SIGTERM."""
    settings = parse_settings(DriftWorkerSettings, DESCRIPTION, EXAMPLES)
    configure_logging("drift_worker", settings.log)
    configure_metrics("drift_worker")
    worker_settings = settings.drift_worker
    health = Health()
    app = FastAPIOffline(title="driftloop drift worker")
    app.include_router(operational_routes(health))
    store = ObjectStore(settings.storage)
    policy = settings.privacy.privacy.feature_policy
    # A slice may take hundreds of requests. While they are answered, the loop makes progress.
    loop_store = ObjectStore(settings.storage, health.keep_alive)
    window_judge = WindowJudge(loop_store, settings.window, worker_settings.max_references_mb, policy, health)
    report_queue = ReportQueue(worker_settings.max_queued_reports, worker_settings.report_timeout_seconds)
    verdict_cache = VerdictCache(worker_settings.cached_verdicts)
    routes.mount(app, verdict_cache, report_queue, store, worker_settings.mlflow_url, policy)
    tombstones = Tombstones(store)
    compactor = Compactor(
        store,
        settings.quality.kept_slices,
        merge_in_process,
        retention_days=retention_by_topic(settings.archive, settings.topics),
        tombstones=tombstones,
    )
    archived_end = ArchivedEnd(loop_store, settings.kafka)
    worker = Worker(
        store=loop_store,
        slicer=Slicer(settings.window, window_judge.window_length),
        window_rows=WindowRows(loop_store),
        window_judge=window_judge,
        quality_tracker=QualityTracker(loop_store, settings.topics, settings.quality),
        archive_cleaner=ArchiveCleaner(
            loop_store, worker_settings.report_retention_days, archived_end.is_of_another_log
        ),
        compactor=compactor,
        tombstones=tombstones,
        report_queue=report_queue,
    )
    loop = ConsumerLoop(
        create_consumer(settings.kafka, worker_settings.group, settings.instance_id),
        [settings.topics.predictions, settings.topics.outcomes],
        worker,
        TransactionalProducer(
            settings.kafka, settings.topics, "drift_worker", f"{worker_settings.group}-{settings.instance_id}"
        ),
        settings.dead_letters,
        health,
        archived_end.find,
    )
    for task, follow in (
        ("verdict_cache", partial(follow_verdicts, verdict_cache, settings.kafka, settings.topics.drift)),
        ("service_changes", partial(follow_models, verdict_cache, settings.kafka, settings.topics.models)),
    ):
        start_background(task, follow, health, RECONNECT_DELAY_SECONDS, threading.Event())
    start_background(erasures.TASK, tombstones.follow, health, erasures.LISTING_INTERVAL_SECONDS, threading.Event())
    start_background(compaction.TASK, compactor.run_pass, health, compaction.PASS_INTERVAL_SECONDS, threading.Event())
    # Objects that exist now live as long as the process, and most later ones no longer than a window: with Python's
    # default thresholds the garbage collector took a fifth of the processor time.
    gc.freeze()
    gc.set_threshold(10_000)
    with exit_on_invalid_settings(), tracing.tracing_session("drift_worker", settings.tracing), report_queue:
        run_service(loop, app, worker_settings, health)


if __name__ == "__main__":
    main()
