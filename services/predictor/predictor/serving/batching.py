"""Rows wait for company, not for a clock: what arrives while a batch is scored forms the next batch.

The event loop collects, one thread scores. A batch begins once the loop has nothing more to read, so that an idle
predictor scores at once and a busy one scores many rows for little more than the price of one.
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

from driftloop.events import Prediction, Score, new_id
from driftloop.kafka.codec import Written, written
from driftloop.telemetry import tracing
from predictor import metrics
from predictor.outbox.outbox import NotKept, Outbox, TooLarge
from predictor.serving.model_manager import Serving, Unscorable
from predictor.serving.model_output import Output
from predictor.serving.schema import Columns

log = structlog.get_logger(__name__)

# Looks for more to read that find nothing before a batch begins: a request takes two turns of the event loop from its
# bytes to the queue, so the first look may miss one that is under way.
QUIET_TURNS = 2


class QueueFull(Exception):
    """More rows wait than may; says so."""


class Answer(NamedTuple):
    """What one request is answered."""

    id: str
    serving: Serving
    output: Output
    """As the estimator gave it, the request's rows of it."""
    scores: list[Score]
    """The same as the event says it, one a row."""


@dataclass(eq=False, slots=True)
class Job:
    """One request's rows on their way to an answer."""

    serving: Serving
    columns: Columns
    rows: int
    time: datetime
    traceparent: str | None
    answer: asyncio.Future[Answer]


class Batcher:
    """Scores requests together, and keeps their events before it answers. Used from one event loop."""

    def __init__(self, model: str, outbox: Outbox, max_batch_rows: int, max_queued_rows: int) -> None:
        """Nothing is queued. A request larger than ``max_batch_rows`` is a batch of its own."""
        self._model = model
        self._outbox = outbox
        self._max_batch_rows = max_batch_rows
        self._max_queued_rows = max_queued_rows
        self._queue: deque[Job] = deque()
        self._queued_rows = 0
        self._busy = False
        # One thread owns the model. It gets one OpenMP thread, since the trees wait for one another at a barrier a tree
        # and beside a busy event loop that takes ten times as long.
        self._thread = ThreadPoolExecutor(1, "scoring", initializer=threadpool_limits, initargs=(1,))

    def score(self, serving: Serving, columns: Columns, rows: int, time: datetime) -> asyncio.Future[Answer]:
        """Queues a request. Its answer comes when its event is in the outbox.

        Raises :class:`QueueFull` at once; the answer raises :class:`Unscorable`, :class:`TooLarge` or
        :class:`NotKept`. Each request's answer is its own: one that fails, or whose client has gone, touches no other.
        """
        if self._queued_rows + rows > self._max_queued_rows and self._queue:
            raise QueueFull(
                f"{self._queued_rows:,} rows wait to be scored, and more than {self._max_queued_rows:,} may not "
                "(DRIFTLOOP_PREDICTOR__MAX_QUEUED_ROWS)"
            )
        loop = asyncio.get_running_loop()
        job = Job(serving, columns, rows, time, tracing.current(), loop.create_future())
        self._queue.append(job)
        self._queued_rows += rows
        if not self._busy:
            self._busy = True
            loop.call_soon(self._gather, loop, 0, 0)
        return job.answer

    @property
    def queued_rows(self) -> int:
        """Rows that wait to be scored."""
        return self._queued_rows

    def close(self) -> None:
        """Waits for the batch that is being scored."""
        self._thread.shutdown()

    def _gather(self, loop: asyncio.AbstractEventLoop, seen: int, quiet: int) -> None:
        """Lets the event loop read what is there, then hands the batch over."""
        grown = len(self._queue) > seen
        if self._queued_rows < self._max_batch_rows and (grown or quiet < QUIET_TURNS):
            loop.call_soon(self._gather, loop, len(self._queue), 0 if grown else quiet + 1)
            return
        batch = self._next()
        if not batch:
            self._busy = False
            return
        self._thread.submit(self._answer, batch).add_done_callback(
            lambda done: loop.call_soon_threadsafe(self._settle, loop, batch, done)
        )

    def _next(self) -> list[Job]:
        """The longest run of requests to one version that a batch may hold, without those that nobody waits for."""
        batch: list[Job] = []
        rows = 0
        while self._queue:
            job = self._queue[0]
            if batch and (job.serving is not batch[0].serving or rows + job.rows > self._max_batch_rows):
                break
            self._queue.popleft()
            self._queued_rows -= job.rows
            if not job.answer.done():
                batch.append(job)
                rows += job.rows
        return batch

    def _settle(
        self, loop: asyncio.AbstractEventLoop, batch: list[Job], done: Future[list[Answer | Exception]]
    ) -> None:
        error = done.exception()
        answers: Sequence[Answer | BaseException] = [error] * len(batch) if error else done.result()
        for job, answer in zip(batch, answers, strict=True):
            if job.answer.done():  # nobody waits for it any more
                continue
            if isinstance(answer, BaseException):
                job.answer.set_exception(answer)
            else:
                job.answer.set_result(answer)
        self._gather(loop, 0, 0)

    def _answer(self, batch: list[Job]) -> list[Answer | Exception]:
        """In the scoring thread: scores a batch and keeps its events in one commit."""
        began = perf_counter()
        rows = sum(job.rows for job in batch)
        traced = [job.traceparent for job in batch if job.traceparent]
        try:
            with tracing.span("batch", of=traced, rows=rows, requests=len(batch)) if traced else nullcontext():
                self._outbox.check_room()
                answers, events = self._scored(batch)
                with tracing.span("keep", events=len(events)) if traced else nullcontext():
                    self._outbox.keep(events)
        except NotKept as error:
            return [error] * len(batch)
        metrics.BATCH_ROWS.observe(rows)
        metrics.ROWS.labels(batch[0].serving.version).inc(rows)
        metrics.BATCH_SECONDS.observe(perf_counter() - began)
        return answers

    def _scored(self, batch: list[Job]) -> tuple[list[Answer | Exception], list[Written]]:
        try:
            answers = self._answers(batch)
        except Exception as error:  # noqa: BLE001  # an estimator is somebody else's code
            if len(batch) == 1:
                return [_unscorable(error)], []
            # One request's rows spoil the batch: halves, until it stands alone.
            middle = len(batch) // 2
            (left, kept), (right, also) = self._scored(batch[:middle]), self._scored(batch[middle:])
            return left + right, kept + also
        checked: list[Answer | Exception] = []
        events: list[Written] = []
        for job, answer in zip(batch, answers, strict=True):
            event = written(
                # Nothing is validated again: rows and scores have just been.
                Prediction.model_construct(
                    id=answer.id,
                    time=job.time,
                    traceparent=job.traceparent,
                    model=self._model,
                    version=job.serving.version,
                    features=job.columns,
                    predictions=answer.scores,
                )
            )
            try:
                self._outbox.check(event)
            except TooLarge as error:
                checked.append(error)
            else:
                checked.append(answer)
                events.append(event)
        return checked, events

    def _answers(self, batch: list[Job]) -> list[Answer]:
        serving = batch[0].serving
        if len(batch) == 1:
            columns = batch[0].columns
        else:
            columns = {
                name: list(chain.from_iterable(job.columns[name] for job in batch)) for name in serving.schema.columns
            }
        output = serving.predict(columns)
        scores = output.scores()
        answers = []
        start = 0
        for job in batch:
            end = start + job.rows
            answers.append(Answer(new_id(), serving, output.rows(start, end), scores[start:end]))
            start = end
        return answers


def _unscorable(error: Exception) -> Unscorable:
    if isinstance(error, Unscorable):
        return error
    log.warning("rows that the model cannot score", error=f"{type(error).__name__}: {error}")
    return Unscorable(f"the model cannot score these rows: {type(error).__name__}: {error}")
