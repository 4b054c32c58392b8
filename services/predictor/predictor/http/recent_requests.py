"""Requests that are sent again: within a time that is a setting, they get the answer that they got before."""

import asyncio
from collections import OrderedDict
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import NamedTuple

from pydantic_core import to_json

from predictor import metrics
from predictor.serving.annotations import Annotations
from predictor.serving.batching import Batcher, PredictionResult
from predictor.serving.schema import Columns
from predictor.serving.serving_model import ServingModel

MAX_ROWS = 100_000  # of the requests that one process remembers; the oldest are forgotten first


class RecentRequest(NamedTuple):
    """A request that was answered, or is being answered."""

    future: asyncio.Future[PredictionResult]
    row_count: int
    time: datetime
    """The event time of its prediction."""
    forgotten_at: float
    """By the event loop's clock."""


class RecentRequests:
    """The latest requests of one process all of whose rows have keys. Must be used from one event loop.

    A request is sent again if version, keys, features and context are the same, and the event times differ by the
    window at most. It gets the same result, without being scored, and without a second event.
    """

    def __init__(self, batcher: Batcher, window_seconds: float, max_rows: int = MAX_ROWS) -> None:
        """Start without requests; with a window of 0 none is remembered."""
        self._batcher = batcher
        self._window = timedelta(seconds=window_seconds)
        self._max_rows = max_rows
        self._requests: OrderedDict[bytes, RecentRequest] = OrderedDict()  # the oldest first
        self._rows = 0
        self._timer: asyncio.TimerHandle | None = None

    async def submit(
        self, model: ServingModel, columns: Columns, row_count: int, time: datetime, annotations: Annotations
    ) -> PredictionResult:
        """Return the result of the same request before, or else submit the request to the batcher."""
        keys = annotations.keys
        if not self._window or keys is None or None in keys:
            return await self._batcher.submit(model, columns, row_count, time, annotations)
        # While a request is remembered, so is its model, and no other has its id.
        content = to_json([id(model), keys, columns, annotations.context])
        digest = blake2b(content, digest_size=16).digest()
        recent = self._requests.get(digest)
        if recent is not None and abs(time - recent.time) <= self._window:
            metrics.REPEATED_REQUESTS.inc()
            return await asyncio.shield(recent.future)
        future = self._batcher.submit(model, columns, row_count, time, annotations)
        self._remember(digest, RecentRequest(future, row_count, time, self._now() + self._window.total_seconds()))
        # A client that disconnects does not cancel what others may wait for.
        return await asyncio.shield(future)

    def _remember(self, digest: bytes, request: RecentRequest) -> None:
        self._forget(digest)
        self._requests[digest] = request
        self._rows += request.row_count
        request.future.add_done_callback(lambda future: self._forget_failed(digest, future))
        while self._rows > self._max_rows:
            self._forget(next(iter(self._requests)))
        if self._timer is None:
            self._schedule()

    def _forget_failed(self, digest: bytes, future: asyncio.Future[PredictionResult]) -> None:
        """Forget a request that got no answer, so that it is tried again."""
        recent = self._requests.get(digest)
        if recent is not None and recent.future is future and (future.cancelled() or future.exception()):
            self._forget(digest)

    def _forget(self, digest: bytes) -> None:
        if (request := self._requests.pop(digest, None)) is not None:
            self._rows -= request.row_count

    def _schedule(self) -> None:
        """Look again when the oldest is to be forgotten, so that no request keeps a version in memory."""
        oldest = next(iter(self._requests.values()), None)
        loop = asyncio.get_running_loop()
        self._timer = None if oldest is None else loop.call_at(oldest.forgotten_at, self._forget_old)

    def _forget_old(self) -> None:
        now = self._now()
        while self._requests and next(iter(self._requests.values())).forgotten_at <= now:
            self._forget(next(iter(self._requests)))
        self._schedule()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
