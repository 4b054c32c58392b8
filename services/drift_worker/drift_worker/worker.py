"""What the worker does with its events: slices, then archive, then verdicts with the offsets in one transaction."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import structlog

from drift_worker import metrics
from drift_worker.verdicts.quality_tracker import QualityTracker
from drift_worker.verdicts.window_judge import WindowJudge
from drift_worker.windows import archive
from drift_worker.windows.committed_slices import CommittedSlices
from drift_worker.windows.orphan_cleanup import ArchiveCleaner
from drift_worker.windows.recent_windows import RecentWindows
from drift_worker.windows.slicer import Slice, Slicer
from driftloop.events import DriftVerdict, Event, Outcome, Prediction, Window
from driftloop.kafka.consumer_loop import Commit, RetryLater, ConsumedMessage
from driftloop.kafka.transactional_producer import CommittedPosition
from driftloop.storage.bucket import Away, Bucket
from driftloop.telemetry import tracing

log = structlog.get_logger(__name__)


class Worker:
    """Closes slices of predictions and of outcomes: both are archived, then judged.

    The archive is written before a slice is final: what a worker that was killed or frozen leaves there of a slice that
    never becomes final, the next owner of the partition deletes. On SIGTERM open slices are abandoned; the next start
    reads them again.
    """

    def __init__(
        self,
        slicing: Slicer,
        judging: WindowJudge,
        qualities: QualityTracker,
        history: RecentWindows,
        finals: CommittedSlices,
        bucket: Bucket,
        tidying: ArchiveCleaner,
        alarmed: Callable[[DriftVerdict], None] = lambda _: None,
    ) -> None:
        """Nothing is open. ``alarmed`` is told of each alarm, of a window handled again once more; it may not wait."""
        self._slicing = slicing
        self._judging = judging
        self._qualities = qualities
        self._history = history
        self._finals = finals
        self._bucket = bucket
        self._tidying = tidying
        self._alarmed = alarmed

    def handle(self, received: ConsumedMessage) -> Iterable[Commit]:
        """Takes one event; final are the slices that it closes."""
        return self._closed(self._slicing.add(received, time.monotonic()))

    def idle(self) -> Iterable[Commit]:
        """Closes what has been quiet for long enough."""
        now = time.monotonic()
        self._tidying.run_step(now)
        return self._closed(self._slicing.close_idle(now))

    def assigned(self, partitions: Mapping[tuple[str, int], CommittedPosition]) -> None:
        """Learns which slices are final."""
        for partition, begin in partitions.items():
            self._finals.restore(partition, begin)
            self._tidying.on_assigned(partition, self._finals.slices_of(partition))

    def revoked(self, partitions: Collection[tuple[str, int]]) -> None:
        """Forgets the open slices of these partitions, and what came before them."""
        self._slicing.drop(partitions)
        self._tidying.on_revoked(partitions)
        self._finals.forget(partitions)
        for topic, partition in partitions:
            self._history.forget(topic, partition)

    def _closed(self, slices: Sequence[Slice]) -> list[Commit]:
        if not slices:
            return []
        try:
            return [self._close(one) for one in slices]
        except Away as error:  # nothing of these slices is final: the loop hands their events over again
            raise RetryLater(str(error)) from error

    def _close(self, closed: Slice) -> Commit:
        traced = [event.traceparent for event in closed.events if event.traceparent]
        with tracing.span("window", "consumer", of=traced, window=closed.window.name, rows=closed.rows):
            verdicts = self._judged(closed)
        note = self._finals.commit(closed.window)
        return Commit(closed.topic, closed.partition, closed.last_offset + 1, verdicts, note)

    def _judged(self, closed: Slice) -> list[Event]:
        predictions = [event for event in closed.events if isinstance(event, Prediction)]
        outcomes = [event for event in closed.events if isinstance(event, Outcome)]
        verdicts = self._judge(closed, predictions) if predictions else []
        if outcomes:
            archive.write_slice(self._bucket, closed.window, archive.outcomes_table(outcomes))
            verdicts += self._qualities.evaluate_slice(closed.window)
        self._tidying.on_slice_closed(closed.window)
        return verdicts

    def _judge(self, closed: Slice, predictions: Sequence[Prediction]) -> list[Event]:
        window = closed.window
        seen = self._history.seen_event_ids(window)
        once: dict[str, Prediction] = {}
        for event in predictions:
            if event.id not in seen:  # an event that is there twice counts once, where it stood first
                once.setdefault(event.id, event)
        table = archive.predictions_table(list(once.values()))
        if not len(table):
            return []
        with ThreadPoolExecutor(1) as beside:  # an upload mostly waits
            written = beside.submit(archive.write_slice, self._bucket, window, table)
            verdicts = self._verdicts(window, table.to_pandas())
            written.result()
        for verdict in verdicts:  # not before: what could not be archived is judged again
            if isinstance(verdict, DriftVerdict):
                record_metrics(verdict)
        metrics.VERDICT_LATENCY.observe(time.monotonic() - closed.last_added)
        return verdicts

    def _verdicts(self, window: Window, rows: pd.DataFrame) -> list[Event]:
        at = self._bucket.url(archive.slice_path(window))
        verdicts: list[Event] = []
        for (model, version), of_version in rows.groupby(["model", "version"]):
            with tracing.span("verdict", window=window.name, version=str(version)):
                verdict = self._judging.judge(window, str(model), str(version), of_version, at)
                tracing.tell(verdict=verdict.verdict, explanation=verdict.explanation)
            if verdict.verdict == "drift":
                self._alarmed(verdict)
            verdicts.append(verdict)
            estimate = self._qualities.estimate(verdict, of_version["prediction"])
            if estimate is not None:
                verdicts.append(estimate)
        self._history.add(window, rows)
        return verdicts


def record_metrics(verdict: DriftVerdict) -> None:
    """Shows a verdict in the metrics. One that says nothing is counted, and leaves what the one before it said."""
    version = (verdict.model, verdict.version)
    metrics.WINDOWS.labels(*version, verdict.verdict).inc()
    metrics.ROWS.labels(*version).inc(verdict.rows)
    log.info(
        "window judged",
        event_id=verdict.id,
        window=verdict.window.name,
        version=verdict.version,
        verdict=verdict.verdict,
        why=verdict.explanation,
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
    else:  # there is a gap before the window: what was said of it and those before it is not so now
        for gauge in (
            metrics.MULTIWINDOW_SCORE,
            metrics.MULTIWINDOW_SCORE_THRESHOLD,
            metrics.STATISTIC,
            metrics.THRESHOLD,
        ):
            gauge.remove_by_labels({"model": verdict.model, "version": verdict.version})
    for finding in verdict.findings:
        what = (finding.column, finding.method, str(finding.windows))
        if finding.value is not None:
            metrics.STATISTIC.labels(*version, *what).set(finding.value)
        metrics.THRESHOLD.labels(*version, *what).set(finding.threshold)
        metrics.COLUMN_DRIFTED.labels(*version, finding.column).set(finding.column in verdict.drifted_columns)
