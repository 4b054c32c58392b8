"""Replaying rows in order of time: requests, answers, and outcomes that follow later."""

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

from driftloop.events import as_columns
from driftloop.telemetry import tracing
from driftloop.usecase import UseCase

log = structlog.get_logger(__name__)


class Answer(NamedTuple):
    """What came back for one request."""

    at: float
    """When it came, in seconds since the epoch."""
    seconds: float
    status: int
    version: str


@dataclass
class Tally:
    """What has happened so far."""

    rows: int = 0
    answers: list[Answer] = field(default_factory=list)
    outcomes: int = 0
    retried: Counter[str] = field(default_factory=Counter)
    """Tries that were refused and made again, by what refused them."""

    def by_status(self) -> Counter[int]:
        """Number of answers by status."""
        return Counter(answer.status for answer in self.answers)

    def by_version(self) -> Counter[str]:
        """Number of answers by the version that gave them."""
        return Counter(answer.version for answer in self.answers if answer.version)

    def quantile(self, share: float) -> float:
        """A quantile of the answers' seconds."""
        return float(np.quantile([answer.seconds for answer in self.answers], share)) if self.answers else 0.0


class Due(NamedTuple):
    """Outcomes of one request, to be reported when they would have been known."""

    at: datetime
    body: dict[str, Any]


class Refused(Exception):
    """The predictor did not take a request now; it may take it later."""


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
        patience_seconds: float = 60,
    ) -> None:
        """``rate`` is rows a second, ``speed`` how much faster than the rows' own time; neither: as fast as it goes.

        ``outcomes_after`` is in the rows' own time, ``None`` reports none. A request that is refused (no connection,
        429, 503) is repeated for ``patience_seconds``.
        """
        self.tally = Tally()
        self._use_case = use_case
        self._url = url
        self._rows_per_request = rows_per_request
        self._rate = rate
        self._speed = speed
        self._outcomes_after = outcomes_after
        self._patience_seconds = patience_seconds
        self._due: deque[Due] = deque()
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        """Ends the stream after the request that is under way; outcomes that are not due yet are not reported."""
        self._stopped.set()

    async def run(self, rows: pd.DataFrame, progress: Callable[[Tally, datetime], None] | None = None) -> Tally:
        """Streams the rows, and at the end the outcomes that are left.

        Raises :class:`Refused`, or httpx's ``TransportError``, when patience ends.
        """
        async with tracing.asking(httpx.AsyncClient(base_url=self._url, timeout=30)) as client:
            began, first = time.monotonic(), None
            for request in requests(self._use_case, rows, self._rows_per_request):
                at: datetime = request[self._use_case.time].iloc[-1].to_pydatetime()
                first = first or at
                if await self._stopped_before(began + self._offset(at - first)):
                    return self.tally
                await self._outcomes(client, until=at)
                await self._ask(client, request, at)
                if progress is not None:
                    progress(self.tally, at)
            await self._outcomes(client, until=None)
        return self.tally

    async def _stopped_before(self, due: float) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), max(due - time.monotonic(), 0))
        return self._stopped.is_set()

    def _offset(self, rows_time: timedelta) -> float:
        """Seconds after the start at which the next request is due."""
        if self._speed is not None:
            return rows_time.total_seconds() / self._speed
        return self.tally.rows / self._rate if self._rate else 0.0

    async def _ask(self, client: httpx.AsyncClient, request: pd.DataFrame, at: datetime) -> None:
        columns = as_columns(request[self._use_case.features])
        rows = zip(*columns.values(), strict=True)
        body = {"instances": [dict(zip(columns, row, strict=True)) for row in rows]}
        began = time.perf_counter()
        response = await self._post(client, "/predict", body, at)
        seconds = time.perf_counter() - began
        answer = response.json() if response.is_success else {}
        if not response.is_success:
            log.warning("request failed", status=response.status_code, body=response.text[:500])
        self.tally.rows += len(request)
        self.tally.answers.append(Answer(time.time(), seconds, response.status_code, answer.get("version", "")))
        if answer and self._outcomes_after is not None:
            known = request[self._use_case.outcome]
            outcomes = [
                {"id": answer["id"], "index": i, "outcome": float(value)}
                for i, value in enumerate(known)
                if not pd.isna(value)
            ]
            if outcomes:
                self._due.append(Due(at + self._outcomes_after, {"outcomes": outcomes}))

    async def _outcomes(self, client: httpx.AsyncClient, until: datetime | None) -> None:
        while self._due and (until is None or self._due[0].at <= until):
            due = self._due.popleft()
            response = await self._post(client, "/outcomes", due.body, due.at)
            response.raise_for_status()
            self.tally.outcomes += len(due.body["outcomes"])

    async def _post(self, client: httpx.AsyncClient, path: str, body: dict[str, Any], at: datetime) -> httpx.Response:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type((Refused, httpx.TransportError)),
            wait=wait_random_exponential(multiplier=0.2, max=2),
            stop=stop_after_delay(self._patience_seconds),
            reraise=True,
        ):
            with attempt:
                try:
                    response = await client.post(path, json=body, headers={"Driftloop-Time": at.isoformat()})
                except httpx.TransportError as error:
                    self.tally.retried[type(error).__name__] += 1
                    raise
                if response.status_code in (429, 503):
                    self.tally.retried[str(response.status_code)] += 1
                    raise Refused(f"{self._url}{path}: {response.status_code} {response.text[:300]}")
        return response


def requests(use_case: UseCase, rows: pd.DataFrame, size: int) -> Iterator[pd.DataFrame]:
    """Cuts rows into requests of at most ``size``; none spans two days, so that its rows can share one time."""
    for _, day in rows.groupby(use_case.days(rows[use_case.time]), sort=False):
        for start in range(0, len(day), size):
            yield day.iloc[start : start + size]
