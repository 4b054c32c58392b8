"""Adaptive batching: the rows that arrive while one batch is scored form the next batch. There is no timer.

The event loop collects requests and one thread scores them. A batch starts once the loop has nothing more to read, so
that an idle predictor scores at once, and a busy one scores many rows for little more than the cost of one.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from time import perf_counter
from typing import NamedTuple

import structlog
from threadpoolctl import threadpool_limits

from driftloop.errors import DriftloopError
from driftloop.events import Prediction, PredictionValue, new_event_id
from driftloop.kafka.codec import SerializedEvent, serialize
from driftloop.privacy import NO_PRIVACY, Privacy
from driftloop.registry.model_output import InvalidOutput, ModelOutput
from driftloop.telemetry import tracing
from predictor import metrics
from predictor.outbox.outbox import EventTooLarge, Outbox, OutboxUnavailable
from predictor.serving.annotations import NO_ANNOTATIONS, Annotations
from predictor.serving.schema import Columns, UnrepresentableValue
from predictor.serving.serving_model import PredictionFailed, ServingModel

log = structlog.get_logger(__name__)

# Turns of the event loop without a new request before a batch starts: a request takes two turns from its bytes to the
# queue, so after one turn another request may still be on its way.
IDLE_TURNS = 2


class QueueFull(DriftloopError):
    """More rows wait to be scored than the settings allow; the client may retry."""


class PredictionResult(NamedTuple):
    """The result of one request."""

    id: str
    model: ServingModel
    output: ModelOutput
    """What the estimator returned for the request's rows."""
    scores: list[PredictionValue]
    """The predictions as the event holds them, one per row."""


class BatchKey(NamedTuple):
    """What requests must have in common to be scored in one batch."""

    model: ServingModel
    widened_columns: tuple[str, ...]
    """The columns whose dtype in the frame changes because of a missing value, see :meth:`Schema.widened_columns`."""


@dataclass(eq=False, slots=True)
class QueuedRequest:
    """One request's rows on their way to a result."""

    model: ServingModel
    columns: Columns
    row_count: int
    time: datetime
    annotations: Annotations
    traceparent: str | None
    future: asyncio.Future[PredictionResult]


class Batcher:
    """Scores requests in batches, and stores their events in the outbox before their results are returned.

    Must be used from one event loop.
    """

    def __init__(
        self,
        model_name: str,
        outbox: Outbox,
        max_batch_rows: int,
        max_queued_rows: int,
        privacy: Privacy = NO_PRIVACY,
    ) -> None:
        """Create the batcher; a single request with more than ``max_batch_rows`` rows is a batch of its own.

        The model gets the rows as they are. Events, and what is logged, have private values as ``privacy`` says.
        """
        self._model_name = model_name
        self._outbox = outbox
        self._max_batch_rows = max_batch_rows
        self._max_queued_rows = max_queued_rows
        self._privacy = privacy
        self._queues: dict[BatchKey, deque[QueuedRequest]] = {}  # the one whose turn is next comes first
        self._queued_requests = 0
        self._queued_rows = 0
        self._scheduled = False
        # One thread owns the model. It gets one OpenMP thread: several would wait for one another at a barrier after
        # each tree, which takes ten times as long next to a busy event loop.
        self._executor = ThreadPoolExecutor(1, "scoring", initializer=threadpool_limits, initargs=(1,))

    def submit(
        self,
        model: ServingModel,
        columns: Columns,
        row_count: int,
        time: datetime,
        annotations: Annotations = NO_ANNOTATIONS,
    ) -> asyncio.Future[PredictionResult]:
        """Queue a request. Its future is resolved once its event is in the outbox.

        The future raises :class:`PredictionFailed`, :class:`EventTooLarge` or :class:`OutboxUnavailable`. Each
        request has its own result: one that fails, or whose client disconnects, does not affect the others.

        Raises:
            QueueFull: The request is refused at once.
        """
        if self._queued_rows + row_count > self._max_queued_rows and self._queued_requests:
            raise QueueFull(
                f"{self._queued_rows:,} rows wait to be scored, and the limit is {self._max_queued_rows:,} "
                "(DRIFTLOOP_PREDICTOR__MAX_QUEUED_ROWS)"
            )
        loop = asyncio.get_running_loop()
        request = QueuedRequest(
            model, columns, row_count, time, annotations, tracing.current_traceparent(), loop.create_future()
        )
        self._queues.setdefault(BatchKey(model, model.schema.widened_columns(columns)), deque()).append(request)
        self._queued_requests += 1
        self._queued_rows += row_count
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._schedule, loop, 0, 0)
        return request.future

    @property
    def queued_rows(self) -> int:
        """The number of rows that wait to be scored."""
        return self._queued_rows

    def close(self) -> None:
        """Wait for the batch that is being scored, and end the scoring thread."""
        self._executor.shutdown()

    def _schedule(self, loop: asyncio.AbstractEventLoop, last_length: int, idle_turns: int) -> None:
        """Start the next batch, after the event loop has read all requests that have arrived.

        Args:
            loop: The event loop of all requests.
            last_length: The queue's length at the last turn.
            idle_turns: How many turns the queue has not grown for.
        """
        grown = self._queued_requests > last_length
        if self._queued_rows < self._max_batch_rows and (grown or idle_turns < IDLE_TURNS):
            loop.call_soon(self._schedule, loop, self._queued_requests, 0 if grown else idle_turns + 1)
            return
        batch = self._take_batch()
        if not batch:
            self._scheduled = False
            return
        self._executor.submit(self._run_batch, batch).add_done_callback(
            lambda done: loop.call_soon_threadsafe(self._resolve, loop, batch, done)
        )

    def _take_batch(self) -> list[QueuedRequest]:
        """Remove the next batch: the oldest requests with one :class:`BatchKey`, up to the limit of rows.

        Requests with other keys take turns. Requests whose client has disconnected are dropped.
        """
        batch: list[QueuedRequest] = []
        while self._queues and not batch:
            key = next(iter(self._queues))
            queue = self._queues.pop(key)
            row_count = 0
            while queue and (not batch or row_count + queue[0].row_count <= self._max_batch_rows):
                request = queue.popleft()
                self._queued_requests -= 1
                self._queued_rows -= request.row_count
                if not request.future.done():
                    batch.append(request)
                    row_count += request.row_count
            if queue:
                self._queues[key] = queue  # at the end
        return batch

    def _resolve(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: list[QueuedRequest],
        done: Future[list[PredictionResult | Exception]],
    ) -> None:
        """Resolve the futures of a finished batch, then schedule the next one."""
        error = done.exception()
        results: Sequence[PredictionResult | BaseException] = [error] * len(batch) if error else done.result()
        for request, result in zip(batch, results, strict=True):
            if request.future.done():  # cancelled: the client has disconnected
                continue
            if isinstance(result, BaseException):
                request.future.set_exception(result)
            else:
                request.future.set_result(result)
        self._schedule(loop, 0, 0)

    def _run_batch(self, batch: list[QueuedRequest]) -> list[PredictionResult | Exception]:
        """Score a batch and store its events in one commit. Runs in the scoring thread."""
        started = perf_counter()
        row_count = sum(request.row_count for request in batch)
        traceparents = [request.traceparent for request in batch if request.traceparent]
        batch_span = (
            tracing.span("batch", parents=traceparents, rows=row_count, requests=len(batch))
            if traceparents
            else nullcontext()
        )
        try:
            with batch_span:
                self._outbox.require_capacity()
                results, events = self._score_or_bisect(batch)
                with tracing.span("outbox.append", events=len(events)) if traceparents else nullcontext():
                    self._outbox.append(events)
        except OutboxUnavailable as error:
            return [error] * len(batch)
        metrics.BATCH_ROWS.observe(row_count)
        metrics.ROWS.labels(batch[0].model.version).inc(row_count)
        metrics.BATCH_DURATION.observe(perf_counter() - started)
        return results

    def _score_or_bisect(
        self, batch: list[QueuedRequest]
    ) -> tuple[list[PredictionResult | Exception], list[SerializedEvent]]:
        """Return a result per request and the events to store.

        If the model fails, halve the batch until only the request that it fails for is left.
        """
        try:
            predictions = self._predict(batch)
        except Exception as error:  # noqa: BLE001  # an estimator is user code and may raise anything
            if len(batch) == 1:
                return [self._prediction_failed(batch[0].model, error)], []
            middle = len(batch) // 2
            left_results, left_events = self._score_or_bisect(batch[:middle])
            right_results, right_events = self._score_or_bisect(batch[middle:])
            return left_results + right_results, left_events + right_events
        batch[0].model.record.add_success(batch[0].columns)
        results: list[PredictionResult | Exception] = []
        events: list[SerializedEvent] = []
        for request, prediction in zip(batch, predictions, strict=True):
            event = self._serialize(request, prediction)
            try:
                self._outbox.require_size(event)
            except EventTooLarge as error:
                results.append(error)
            else:
                results.append(prediction)
                events.append(event)
        return results, events

    def _serialize(self, request: QueuedRequest, result: PredictionResult) -> SerializedEvent:
        # Without validation: rows and scores have been validated already.
        return serialize(
            Prediction.model_construct(
                id=result.id,
                time=request.time,
                traceparent=request.traceparent,
                model=self._model_name,
                version=request.model.version,
                run_id=request.model.run_id,
                features=self._privacy.treat_features(request.columns),
                predictions=result.scores,
                classes=request.model.output.probability_classes,
                labels=result.output.labels,
                keys=self._privacy.treat_keys(request.annotations.keys),
                context=self._privacy.treat_context(request.annotations.context),
            )
        )

    def _predict(self, batch: list[QueuedRequest]) -> list[PredictionResult]:
        """Score all rows of a batch in one call, and split the output by request."""
        model = batch[0].model
        if len(batch) == 1:
            columns = batch[0].columns
        else:
            columns = {
                name: list(chain.from_iterable(request.columns[name] for request in batch))
                for name in model.schema.columns
            }
        output = model.predict(columns)
        scores = output.scores()
        results = []
        start = 0
        for request in batch:
            end = start + request.row_count
            results.append(PredictionResult(new_event_id(), model, output.rows(start, end), scores[start:end]))
            start = end
        return results

    def _prediction_failed(self, model: ServingModel, error: Exception) -> PredictionFailed:
        """Record a failure of the model, and return the error of its request."""
        if isinstance(error, UnrepresentableValue):  # a fault of the request
            return PredictionFailed(str(error))
        reason = str(error) if isinstance(error, InvalidOutput) else self._privacy.describe_error(error)
        model.record.add_failure(reason)
        log.warning("batch.prediction_failed", version=model.version, error=reason)
        return PredictionFailed(f"the model cannot score these rows: {reason}")
