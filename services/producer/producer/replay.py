"""Replay a use case's rows in order of time: requests, responses, and outcomes that follow later."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import httpx
import numpy as np
import pandas as pd
import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from driftloop.errors import DependencyUnavailable
from driftloop.events import frame_to_columns
from driftloop.telemetry import tracing
from driftloop.usecase import UseCase

log = structlog.get_logger(__name__)


MIN_SECONDS_BEHIND = 2.0
MIN_FRACTION_BEHIND = 0.1  # of the time since the start


class ResponseRecord(NamedTuple):
    """The response to one request."""

    at: float
    """When it arrived, in seconds since the epoch."""
    seconds: float
    status: int
    version: str


@dataclass
class ReplayStats:
    """What a replay has done so far."""

    rows: int = 0
    responses: list[ResponseRecord] = field(default_factory=list)
    outcomes: int = 0
    retried: Counter[str] = field(default_factory=Counter)
    """Requests that were repeated, by the status or the error that caused it."""
    seconds: float = 0.0
    """From the start to the last request."""
    seconds_behind: float = 0.0
    """How much later than it was due the last request was sent; 0 if requests are sent as fast as possible."""

    @property
    def is_behind(self) -> bool:
        """Whether the pace that was asked for is not reached; a short interruption does not count."""
        return self.seconds_behind > max(MIN_SECONDS_BEHIND, MIN_FRACTION_BEHIND * self.seconds)

    def by_status(self) -> Counter[int]:
        """Return the number of responses by status."""
        return Counter(response.status for response in self.responses)

    def by_version(self) -> Counter[str]:
        """Return the number of responses by the version that made the predictions."""
        return Counter(response.version for response in self.responses if response.version)

    def quantile(self, fraction: float) -> float:
        """Return a quantile of the response times in seconds; 0 without a response."""
        seconds = [response.seconds for response in self.responses]
        return float(np.quantile(seconds, fraction)) if seconds else 0.0


class PendingOutcomes(NamedTuple):
    """Outcomes of one request, to be reported at the time when they would have been known."""

    at: datetime
    body: dict[str, Any]


class PredictorBusy(DependencyUnavailable):
    """The predictor has rejected a request for now (429 or 503); it may accept it later."""


class Replay:
    """Streams rows to one predictor, one request at a time, in order of time."""

    def __init__(
        self,
        use_case: UseCase,
        url: str,
        *,
        rows_per_request: int = 1,
        rate: float | None = 1.0,
        speed: float | None = None,
        outcomes_after: timedelta | None = timedelta(days=1),
        retry_timeout_seconds: float = 60,
    ) -> None:
        """Prepare a replay. Without ``rate`` and ``speed`` it is as fast as possible.

        Args:
            use_case: Columns and time zone.
            url: The predictor's address.
            rows_per_request: The largest number of rows in a request.
            rate: Rows per second.
            speed: How many times faster than the rows' own time; takes precedence over ``rate``.
            outcomes_after: When outcomes are known, in the rows' own time; None to report none.
            retry_timeout_seconds: How long a request is repeated that fails to connect or gets a 429 or 503.
        """
        self.stats = ReplayStats()
        self._use_case = use_case
        self._url = url
        self._rows_per_request = rows_per_request
        self._rate = rate
        self._speed = speed
        self._outcomes_after = outcomes_after
        self._retry_timeout_seconds = retry_timeout_seconds
        self._pending: deque[PendingOutcomes] = deque()
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        """End the replay after the current request; outcomes that are not due yet are not reported."""
        self._stopped.set()

    async def run(
        self, rows: pd.DataFrame, progress: Callable[[ReplayStats, datetime], None] | None = None
    ) -> ReplayStats:
        """Stream the rows, and at the end the remaining outcomes.

        Raises:
            PredictorBusy: The predictor still rejects a request after ``retry_timeout_seconds``.
            httpx.TransportError: The predictor cannot be reached for ``retry_timeout_seconds``.
        """
        async with tracing.instrument_httpx(httpx.AsyncClient(base_url=self._url, timeout=30)) as client:
            started, first_time = time.monotonic(), None
            for request in split_requests(self._use_case, rows, self._rows_per_request):
                at: datetime = request[self._use_case.timestamp].iloc[-1].to_pydatetime()
                first_time = first_time or at
                due = self._offset_seconds(at - first_time)
                self.stats.seconds = time.monotonic() - started
                self.stats.seconds_behind = 0.0 if due is None else max(0.0, self.stats.seconds - due)
                if await self._stopped_before(started + (due or 0.0)):
                    return self.stats
                await self._report_outcomes(client, until=at)
                await self._send(client, request, at)
                if progress is not None:
                    progress(self.stats, at)
            await self._report_outcomes(client, until=None)
        return self.stats

    async def _stopped_before(self, deadline: float) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), max(deadline - time.monotonic(), 0))
        return self._stopped.is_set()

    def _offset_seconds(self, elapsed: timedelta) -> float | None:
        """Return the seconds after the start at which the next request is due; None for as fast as possible.

        Args:
            elapsed: How far the request is after the first one, in the rows' own time.
        """
        if self._speed is not None:
            return elapsed.total_seconds() / self._speed
        return self.stats.rows / self._rate if self._rate else None

    async def _send(self, client: httpx.AsyncClient, request: pd.DataFrame, at: datetime) -> None:
        columns = frame_to_columns(request[self._use_case.features])
        rows = zip(*columns.values(), strict=True)
        body = {"instances": [dict(zip(columns, row, strict=True)) for row in rows]}
        started = time.perf_counter()
        response = await self._post(client, "/predict", body, at)
        seconds = time.perf_counter() - started
        prediction = response.json() if response.is_success else {}
        if not response.is_success:
            log.warning("replay.request_failed", status=response.status_code, body=response.text[:500])
        self.stats.rows += len(request)
        self.stats.responses.append(
            ResponseRecord(time.time(), seconds, response.status_code, prediction.get("version", ""))
        )
        if prediction and self._outcomes_after is not None:
            self._schedule_outcomes(prediction["id"], request[self._use_case.target], at + self._outcomes_after)

    def _schedule_outcomes(self, prediction_id: str, targets: pd.Series, at: datetime) -> None:
        outcomes = [
            {"id": prediction_id, "index": index, "outcome": value.item() if isinstance(value, np.generic) else value}
            for index, value in enumerate(targets)
            if not pd.isna(value)
        ]
        if outcomes:
            self._pending.append(PendingOutcomes(at, {"outcomes": outcomes}))

    async def _report_outcomes(self, client: httpx.AsyncClient, until: datetime | None) -> None:
        while self._pending and (until is None or self._pending[0].at <= until):
            pending = self._pending.popleft()
            response = await self._post(client, "/outcomes", pending.body, pending.at)
            response.raise_for_status()
            self.stats.outcomes += len(pending.body["outcomes"])

    async def _post(self, client: httpx.AsyncClient, path: str, body: dict[str, Any], at: datetime) -> httpx.Response:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type((PredictorBusy, httpx.TransportError)),
            wait=wait_random_exponential(multiplier=0.2, max=2),
            stop=stop_after_delay(self._retry_timeout_seconds),
            reraise=True,
        ):
            with attempt:
                try:
                    response = await client.post(path, json=body, headers={"Driftloop-Time": at.isoformat()})
                except httpx.TransportError as error:
                    self.stats.retried[type(error).__name__] += 1
                    raise
                if response.status_code in (429, 503):
                    self.stats.retried[str(response.status_code)] += 1
                    raise PredictorBusy(f"{self._url}{path}: {response.status_code} {response.text[:300]}")
        return response


def split_requests(use_case: UseCase, rows: pd.DataFrame, size: int) -> Iterator[pd.DataFrame]:
    """Split rows into requests of at most ``size`` rows; none spans two days, so that its rows can share one time."""
    for _, day in rows.groupby(use_case.local_dates(rows[use_case.timestamp]), sort=False):
        for start in range(0, len(day), size):
            yield day.iloc[start : start + size]
