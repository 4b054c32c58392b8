"""The drift worker's message handler: cut slices, archive and judge them, commit verdicts and offsets together."""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import structlog

from drift_worker import metrics
from drift_worker.verdicts.quality_tracker import QualityTracker
from drift_worker.verdicts.window_judge import WindowJudge
from drift_worker.web.report import ReportKey
from drift_worker.web.report_queue import ReportQueue
from drift_worker.windows import archive
from drift_worker.windows.committed_slices import CommittedSlices
from drift_worker.windows.orphan_cleanup import ArchiveCleaner
from drift_worker.windows.recent_windows import RecentWindows
from drift_worker.windows.slicer import Slice, Slicer
from driftloop.errors import StorageUnavailable
from driftloop.events import (
    MODEL_COLUMN,
    VERSION_COLUMN,
    DriftVerdict,
    Event,
    Outcome,
    Prediction,
    Window,
)
from driftloop.kafka.consumed_message import ConsumedMessage
from driftloop.kafka.consumer_loop import Commit, RetryLater
from driftloop.kafka.transactional_producer import CommittedPosition
from driftloop.storage.bucket import Bucket
from driftloop.telemetry import tracing

log = structlog.get_logger(__name__)


class Worker:
    """Archives and judges slices of predictions and of outcomes, and publishes the verdicts with the offsets.

    A slice is archived before its offset is committed. If the process dies in between, the partition's next owner
    deletes what is left in the archive. On SIGTERM open slices are dropped; the next start reads their events again.
    """

    def __init__(
        self,
        *,
        bucket: Bucket,
        slicer: Slicer,
        committed_slices: CommittedSlices,
        recent_windows: RecentWindows,
        window_judge: WindowJudge,
        quality_tracker: QualityTracker,
        archive_cleaner: ArchiveCleaner,
        report_queue: ReportQueue | None = None,
    ) -> None:
        """Start without open slices.

        Args:
            bucket: Where the archive is.
            slicer: Cuts partitions into slices.
            committed_slices: Knows which archived slices count.
            recent_windows: Has the windows before a window. It must read through ``committed_slices``.
            window_judge: Judges windows of predictions.
            quality_tracker: Judges outcomes, and estimates quality before they are known.
            archive_cleaner: Deletes orphans and old reports.
            report_queue: Gets a request for a report on each window with drift, again if a window is processed again.
        """
        self._bucket = bucket
        self._slicer = slicer
        self._committed_slices = committed_slices
        self._recent_windows = recent_windows
        self._window_judge = window_judge
        self._quality_tracker = quality_tracker
        self._archive_cleaner = archive_cleaner
        self._report_queue = report_queue

    def handle(self, received: ConsumedMessage) -> Iterable[Commit]:
        """Add a message to its slice; return a commit for each slice that it closes."""
        return self._close_slices(self._slicer.add(received, time.monotonic()))

    def on_poll(self) -> Iterable[Commit]:
        """Close idle slices and clean the archive a little; return a commit for each closed slice."""
        now = time.monotonic()
        self._archive_cleaner.run_step(now)
        return self._close_slices(self._slicer.close_idle(now))

    def on_assigned(self, partitions: Mapping[tuple[str, int], CommittedPosition]) -> None:
        """Read from the committed positions which slices of the assigned partitions are committed."""
        for partition, position in partitions.items():
            self._committed_slices.restore(partition, position)
            self._archive_cleaner.on_assigned(partition, self._committed_slices.slices_of(partition))

    def on_revoked(self, partitions: Collection[tuple[str, int]]) -> None:
        """Drop the open slices of revoked partitions and everything known of earlier ones."""
        self._slicer.drop(partitions)
        self._archive_cleaner.on_revoked(partitions)
        self._committed_slices.forget(partitions)
        for topic, partition in partitions:
            self._recent_windows.forget(topic, partition)

    def _close_slices(self, slices: Sequence[Slice]) -> list[Commit]:
        """Return a commit for each slice. Raises :class:`RetryLater` if the bucket is unavailable."""
        try:
            return [self._close_slice(closed) for closed in slices]
        except StorageUnavailable as error:  # none of the slices is committed, so the loop delivers their events again
            raise RetryLater(str(error)) from error

    def _close_slice(self, closed: Slice) -> Commit:
        """Archive and judge a slice; return the commit of its offsets and verdicts."""
        parents = [event.traceparent for event in closed.events if event.traceparent]
        with tracing.span("window", "consumer", parents=parents, window=closed.window.name, rows=closed.rows):
            verdicts = self._process_slice(closed)
        metadata = self._committed_slices.commit(closed.window)
        return Commit(closed.topic, closed.partition, closed.last_offset + 1, verdicts, metadata)

    def _process_slice(self, closed: Slice) -> list[Event]:
        """Archive and judge a slice's predictions and outcomes; return the verdicts and estimates."""
        predictions = [event for event in closed.events if isinstance(event, Prediction)]
        outcomes = [event for event in closed.events if isinstance(event, Outcome)]
        verdicts = self._judge_predictions(closed, predictions) if predictions else []
        if outcomes:
            archive.write_slice(self._bucket, closed.window, archive.outcomes_table(outcomes))
            verdicts += self._quality_tracker.evaluate_slice(closed.window)
        self._archive_cleaner.on_slice_closed(closed.window)
        return verdicts

    def _judge_predictions(self, closed: Slice, predictions: Sequence[Prediction]) -> list[Event]:
        """Archive a slice's predictions while they are judged; return the verdicts and estimates.

        An event that is in the slice or in the windows before it already is left out.
        """
        window = closed.window
        seen = self._recent_windows.seen_event_ids(window)
        deduplicated: dict[str, Prediction] = {}
        for event in predictions:
            if event.id not in seen:
                deduplicated.setdefault(event.id, event)
        table = archive.predictions_table(list(deduplicated.values()))
        if not len(table):
            return []
        with ThreadPoolExecutor(1) as uploader:  # an upload mostly waits
            upload = uploader.submit(archive.write_slice, self._bucket, window, table)
            verdicts = self._judge_versions(window, table.to_pandas())
            upload.result()
        # After the upload: if it fails, the slice is judged again and would be counted twice.
        for verdict in verdicts:
            if isinstance(verdict, DriftVerdict):
                record_metrics(verdict)
        metrics.VERDICT_LATENCY.observe(time.monotonic() - closed.last_added)
        return verdicts

    def _judge_versions(self, window: Window, rows: pd.DataFrame) -> list[Event]:
        """Judge each version's rows of a window; return its verdict and, where there is one, its quality estimate."""
        url = self._bucket.url(archive.slice_path(window))
        verdicts: list[Event] = []
        for (model, version), version_rows in rows.groupby([MODEL_COLUMN, VERSION_COLUMN]):
            with tracing.span("verdict", window=window.name, version=str(version)):
                verdict = self._window_judge.judge(window, str(model), str(version), version_rows, url)
                tracing.set_attributes(verdict=verdict.verdict, explanation=verdict.explanation)
            if verdict.verdict == "drift" and self._report_queue is not None:
                self._report_queue.enqueue(ReportKey.for_verdict(verdict))
            verdicts.append(verdict)
            estimate = self._quality_tracker.estimate(verdict, version_rows)
            if estimate is not None:
                verdicts.append(estimate)
        self._recent_windows.add(window, rows)
        return verdicts


def record_metrics(verdict: DriftVerdict) -> None:
    """Record a verdict in the metrics and log it.

    An inconclusive verdict is only counted: the gauges keep the values of the verdict before it.
    """
    version = (verdict.model, verdict.version)
    metrics.WINDOWS.labels(*version, verdict.verdict).inc()
    metrics.ROWS.labels(*version).inc(verdict.rows)
    log.info(
        "drift.window_judged",
        event_id=verdict.id,
        window=verdict.window.name,
        version=verdict.version,
        verdict=verdict.verdict,
        reason=verdict.reason,
        explanation=verdict.explanation,
    )
    if verdict.verdict == "inconclusive":
        return
    metrics.WINDOW_END.labels(*version).set(verdict.last_prediction_at.timestamp())
    metrics.WINDOW_ALARM.labels(*version).set(verdict.verdict == "drift")
    if verdict.verdict == "drift":
        metrics.CONSECUTIVE_ALARMS.labels(*version).inc()
    else:
        metrics.CONSECUTIVE_ALARMS.labels(*version).set(0)
    if verdict.score is not None and verdict.score_threshold is not None:
        metrics.WINDOW_SCORE.labels(*version).set(verdict.score)
        metrics.WINDOW_SCORE_THRESHOLD.labels(*version).set(verdict.score_threshold)
    if verdict.multiwindow_score is not None and verdict.multiwindow_score_threshold is not None:
        metrics.MULTIWINDOW_SCORE.labels(*version).set(verdict.multiwindow_score)
        metrics.MULTIWINDOW_SCORE_THRESHOLD.labels(*version).set(verdict.multiwindow_score_threshold)
    else:  # there is a gap before the window, so values of several windows are out of date
        for gauge in (
            metrics.MULTIWINDOW_SCORE,
            metrics.MULTIWINDOW_SCORE_THRESHOLD,
            metrics.STATISTIC,
            metrics.THRESHOLD,
        ):
            gauge.remove_by_labels({"model": verdict.model, "version": verdict.version})
    for finding in verdict.findings:
        labels = (*version, finding.column, finding.method, str(finding.windows))
        if finding.value is not None:
            metrics.STATISTIC.labels(*labels).set(finding.value)
        metrics.THRESHOLD.labels(*labels).set(finding.threshold)
        metrics.COLUMN_DRIFTED.labels(*version, finding.column).set(finding.column in verdict.drifted_columns)
