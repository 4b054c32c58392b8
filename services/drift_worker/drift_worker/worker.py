"""The drift worker's message handler: archive slices, judge windows, commit verdicts and offsets together."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import NamedTuple

import pandas as pd
import pyarrow as pa
import structlog

from drift_worker import metrics
from drift_worker.verdicts.quality_tracker import QualityTracker
from drift_worker.verdicts.window_judge import WindowJudge
from drift_worker.web.report import ReportKey
from drift_worker.web.report_queue import ReportQueue
from drift_worker.windows import archive
from drift_worker.windows.compaction import Compactor
from drift_worker.windows.orphan_cleanup import ArchiveCleaner
from drift_worker.windows.slicer import ClosedSlice, ClosedWindow, Slicer
from drift_worker.windows.window_rows import WindowRows
from driftloop.archive.erasures import Tombstones
from driftloop.archive.layout import slice_path
from driftloop.archive.partition_state import Partition, from_metadata, to_metadata
from driftloop.archive.rows import concat_rows
from driftloop.archive.tables import outcomes_table, predictions_table
from driftloop.drift.cumulated import CumulatedScore, CumulatedState
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
from driftloop.kafka.message_handler import Commit, RetryLater
from driftloop.kafka.transactional_producer import CommittedPosition
from driftloop.storage.object_store import ObjectStore
from driftloop.telemetry import tracing

log = structlog.get_logger(__name__)

MAX_OFFSET = 2**63 - 1


class EndedWindow(NamedTuple):
    """A version's window that has ended, with its rows."""

    digest: str
    """Of model, version and run."""
    window: Window
    model: str
    version: str
    run_id: str | None
    """The run that logged the version; ``None`` if the predictions do not have it."""
    rows: pd.DataFrame
    preceding: list[pd.DataFrame]
    """The rows of each of the version's windows before it, the oldest first."""
    archive: list[str]
    """The URLs of the files with its rows."""


class Worker:
    """Archives slices of predictions and of outcomes, and publishes verdicts with the offset at which a window ends.

    A slice is archived before its offset is committed. If the process dies in between, the partition's next owner
    deletes what is left in the archive. On SIGTERM open slices are dropped; the next start reads their events again.
    """

    def __init__(
        self,
        *,
        store: ObjectStore,
        slicer: Slicer,
        window_rows: WindowRows,
        window_judge: WindowJudge,
        quality_tracker: QualityTracker,
        archive_cleaner: ArchiveCleaner,
        compactor: Compactor,
        tombstones: Tombstones,
        report_queue: ReportQueue | None = None,
    ) -> None:
        """Start without open slices.

        Args:
            store: Where the archive is.
            slicer: Cuts partitions into slices, and rows into windows.
            window_rows: Has the rows of windows.
            window_judge: Judges windows of predictions.
            quality_tracker: Judges outcomes, and estimates quality before they are known.
            archive_cleaner: Deletes orphans and old reports.
            compactor: Merges old slices.
            tombstones: Says which rows are erased, and not archived any more.
            report_queue: Gets a request for a report on each window with drift, again if a window is processed again.
        """
        self._store = store
        self._slicer = slicer
        self._window_rows = window_rows
        self._window_judge = window_judge
        self._quality_tracker = quality_tracker
        self._archive_cleaner = archive_cleaner
        self._compactor = compactor
        self._tombstones = tombstones
        self._report_queue = report_queue

    def handle(self, received: ConsumedMessage) -> Iterable[Commit]:
        """Add a message to its slice; return a commit for each slice that it closes."""
        return self._close_slices(lambda: self._slicer.add(received, time.monotonic()))

    def on_poll(self) -> Iterable[Commit]:
        """Close idle slices and clean the archive a little; return a commit for each closed slice."""
        now = time.monotonic()
        self._archive_cleaner.run_step(now)
        self._compactor.run_step()
        return self._close_slices(lambda: self._slicer.close_idle(now))

    def on_assigned(self, partitions: Mapping[Partition, CommittedPosition]) -> None:
        """Go on with the slices and windows that are in the metadata of the committed positions."""
        for partition, position in partitions.items():
            state = from_metadata(*position)
            self._slicer.resume(partition, state, time.monotonic())
            self._window_rows.resume(partition, state)
            self._archive_cleaner.on_assigned(partition, state.windows(partition))
            self._compactor.on_assigned(partition, state)
        self._quality_tracker.on_partitions_moved()

    def on_revoked(self, partitions: Collection[Partition]) -> None:
        """Drop the open slices of revoked partitions and everything known of earlier ones."""
        self._slicer.drop(partitions)
        self._archive_cleaner.on_revoked(partitions)
        self._compactor.on_revoked(partitions)
        self._quality_tracker.on_partitions_moved()
        self._window_rows.forget(partitions)

    def _close_slices(self, close: Callable[[], Sequence[ClosedSlice]]) -> list[Commit]:
        """Return a commit for each slice. Raises :class:`RetryLater` if the store is unavailable."""
        try:
            return [self._close_slice(closed) for closed in close()]
        except StorageUnavailable as error:  # none of the slices is committed, so the loop delivers their events again
            raise RetryLater(str(error)) from error

    def _close_slice(self, closed: ClosedSlice) -> Commit:
        """Archive a slice and judge the windows that end with it; return the commit of its offsets and verdicts."""
        current = closed.slice
        parents = [event.traceparent for event in current.events if event.traceparent]
        with tracing.span("slice", "consumer", parents=parents, slice=current.window.name, rows=current.rows):
            verdicts = self._process_slice(closed)
        return Commit(current.topic, current.partition, closed.state.end, verdicts, to_metadata(closed.state))

    def _process_slice(self, closed: ClosedSlice) -> list[Event]:
        """Archive and judge predictions and outcomes; return the verdicts and estimates."""
        window, located = closed.slice.window, list(zip(closed.slice.offsets, closed.slice.events, strict=True))
        predictions = [(offset, event) for offset, event in located if isinstance(event, Prediction)]
        outcomes = [(offset, event) for offset, event in located if isinstance(event, Outcome)]
        verdicts = self._judge_predictions(closed, predictions) if predictions or closed.windows else []
        if outcomes:
            offsets, events = zip(*outcomes, strict=True)
            rows = self._without_erased(outcomes_table(events, offsets), closed)
            archive.write_slice(self._store, window, rows, closed.slice.day)
            verdicts += self._quality_tracker.evaluate_slice(window)
        if not closed.is_empty:
            self._archive_cleaner.on_slice_closed(window)
            self._compactor.on_slice_closed(window, closed.state)
        return verdicts

    def _without_erased(self, rows: pa.Table, closed: ClosedSlice) -> pa.Table:
        """Return rows of a slice without erased ones. Windows close by what was published, so these have fewer rows."""
        return self._tombstones.without_erased(rows, closed.slice.window, closed.slice.opened_at)

    def _judge_predictions(self, closed: ClosedSlice, predictions: Sequence[tuple[int, Prediction]]) -> list[Event]:
        """Archive a slice's predictions, with their offsets, while windows are judged; return verdicts and estimates.

        An event that is in the slice, in its version's open window or in the windows before it already is left out. The
        file also has the sums of the cumulated score after the windows that end with the slice, so that they are as
        durable as the rows, and the same if the slice is closed again.
        """
        window, partition = closed.slice.window, (closed.slice.topic, closed.slice.partition)
        seen = self._window_rows.event_ids(partition)
        deduplicated: dict[str, Prediction] = {}
        offsets: list[int] = []
        for offset, event in predictions:
            if event.id not in seen and event.id not in deduplicated:
                deduplicated[event.id] = event
                offsets.append(offset)
        table = self._without_erased(predictions_table(list(deduplicated.values()), offsets), closed)
        if len(table):
            self._window_rows.add(window, table.to_pandas())
        judged = [rows for ended in closed.windows if (rows := self._rows_of(partition, ended)) is not None]
        scores, sums = self._cumulate(partition, judged)
        with ThreadPoolExecutor(1) as uploader:  # an upload mostly waits
            upload = None
            if len(table):
                with_sums = archive.with_sums(table, sums)
                upload = uploader.submit(archive.write_slice, self._store, window, with_sums, closed.slice.day)
                self._window_rows.keep_sums(window, sums)
            verdicts = [verdict for rows in judged for verdict in self._judge_window(rows, scores.get(rows.digest))]
            if upload:
                upload.result()
                self._quality_tracker.on_predictions_archived(window)
        self._window_rows.drop_unneeded(partition, closed.state)
        # After the upload: if it fails, the slice is judged again and would be counted twice.
        record_rows(deduplicated.values())
        for verdict in verdicts:
            if isinstance(verdict, DriftVerdict):
                record_metrics(verdict)
        if verdicts and not closed.is_empty:
            metrics.VERDICT_LATENCY.observe(time.monotonic() - closed.slice.last_added)
        return verdicts

    def _rows_of(self, partition: Partition, ended: ClosedWindow) -> EndedWindow | None:
        """Return the rows of a window that has ended, and of the windows before it; ``None`` if it has no rows."""
        begins = (*ended.preceding, ended.first_offset)
        parts = self._window_rows.of_window(partition, ended.version, begins[0])
        *preceding, own = [
            [part for part in parts if first <= part.slice.first_offset < following]
            for first, following in pairwise((*begins, MAX_OFFSET))
        ]
        if not own:  # all of its events were duplicates, or its files were deleted
            log.warning(
                "drift.window_without_rows", topic=partition[0], partition=partition[1], first_offset=begins[-1]
            )
            return None
        rows = concat_rows([part.rows for part in own])
        return EndedWindow(
            digest=ended.version,
            window=own[0].slice.model_copy(update={"last_offset": own[-1].slice.last_offset}),
            model=str(rows[MODEL_COLUMN].iloc[0]),
            version=str(rows[VERSION_COLUMN].iloc[0]),
            run_id=archive.run_ids(rows).iloc[0] or None,
            rows=rows,
            preceding=[concat_rows([part.rows for part in each]) for each in preceding if each],
            archive=[self._store.url(slice_path(part.slice)) for part in own],
        )

    def _cumulate(
        self, partition: Partition, windows: Sequence[EndedWindow]
    ) -> tuple[dict[str, CumulatedScore], dict[str, CumulatedState]]:
        """Return the cumulated scores of windows that have ended, and the sums to keep, by the digest of their version.

        A window that cannot be judged adds nothing.
        """
        scores, sums = {}, {}
        for ended in windows:
            before = self._window_rows.sums(partition, ended.digest)
            score = self._window_judge.cumulate(ended.model, ended.version, ended.rows, before, ended.run_id)
            if score is None:
                if before is not None:
                    sums[ended.digest] = before
                continue
            scores[ended.digest], sums[ended.digest] = score, score.state
            if before is None and ended.preceding:  # those windows had no file of their own, or were not judged
                log.info(
                    "drift.cumulated_score_restarted",
                    window=ended.window.name,
                    model=ended.model,
                    version=ended.version,
                )
        return scores, sums

    def _judge_window(self, ended: EndedWindow, cumulated: CumulatedScore | None) -> list[Event]:
        """Judge a window; return its verdict and, where there is one, its quality estimate."""
        with tracing.span("verdict", window=ended.window.name, version=ended.version):
            verdict = self._window_judge.judge(
                ended.window,
                ended.model,
                ended.version,
                ended.rows,
                ended.preceding,
                ended.archive,
                cumulated,
                ended.run_id,
            )
            tracing.set_attributes(verdict=verdict.verdict, explanation=verdict.explanation)
        if verdict.verdict == "drift" and self._report_queue is not None:
            self._report_queue.enqueue(ReportKey.for_verdict(verdict))
        estimate = self._quality_tracker.estimate(verdict, ended.rows)
        return [verdict] if estimate is None else [verdict, estimate]


def record_rows(events: Iterable[Prediction]) -> None:
    """Count archived rows by version."""
    rows: Counter[tuple[str, str]] = Counter()
    for event in events:
        rows[event.model, event.version] += len(event.predictions)
    for version, count in rows.items():
        metrics.ARCHIVED_ROWS.labels(*version).inc(count)
        for verdict in ("no_drift", "drift"):  # Prometheus computes no increase from a counter's first sample
            metrics.WINDOWS.labels(*version, verdict)


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
        metrics.UNJUDGED_WINDOWS.labels(*version, verdict.reason).inc()
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
    else:  # too few windows are before it, so values of several windows are out of date
        for gauge in (
            metrics.MULTIWINDOW_SCORE,
            metrics.MULTIWINDOW_SCORE_THRESHOLD,
            metrics.STATISTIC,
            metrics.THRESHOLD,
        ):
            gauge.remove_by_labels({"model": verdict.model, "version": verdict.version})
    if verdict.cumulated_score is not None:
        metrics.CUMULATED_SCORE.labels(*version).set(verdict.cumulated_score)
    for finding in verdict.findings:
        labels = (*version, finding.column, finding.method, str(finding.windows))
        if finding.value is not None:
            metrics.STATISTIC.labels(*labels).set(finding.value)
        metrics.THRESHOLD.labels(*labels).set(finding.threshold)
        metrics.COLUMN_DRIFTED.labels(*version, finding.column).set(finding.column in verdict.drifted_columns)
