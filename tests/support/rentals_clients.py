"""The clients of a model: one that requests predictions and reports outcomes all the time, as a drill wants it."""

import itertools
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import httpx

from driftloop.events import new_event_id
from tests.support import regression_usecase

INTERVAL_SECONDS = 0.5
OUTCOME_DELAY_SECONDS = 15  # longer than a window is open, or else outcomes are unmatched
ROWS = 5
MAX_DELAYED = 500  # requests whose outcomes are not reported yet

Outcomes = Literal["right", "wrong", "of unknown ids", "none"]
Row = dict[str, Any]


class Answered(NamedTuple):
    """A request whose outcomes are to be reported."""

    at: float
    id: str
    version: str
    rented: list[float]


class RentalsClients:
    """The clients, with what a drill changes about them."""

    def __init__(self, url: str) -> None:
        self._url = url
        rentals = regression_usecase.load_rows()
        # From the days that the first version knows, hour by hour as there: or else all of it is drift.
        known = rentals[rentals["at"] < str(regression_usecase.FIRST_END)]
        columns = (known[name].tolist() for name in ("hour", "temperature", "rented"))
        self._rows = list(zip(*columns, strict=True))
        self._single_rows = itertools.cycle(self._rows)
        self.reset()

    def reset(self) -> None:
        """Send what the model knows, and report what really happened."""
        self.paused = False
        self.rows = ROWS
        """Rows of a request."""
        self.outcomes: Outcomes = "right"
        self.wrong_of: str | None = None
        """The version whose outcomes are wrong; ``None`` for all, if any are."""
        self.hours = range(24)
        """The hours that are asked for."""
        self.shift = 0.0
        """What a thermometer is wrong by."""

    def instances(self, rows: Iterator[tuple[int, float, float]]) -> tuple[list[Row], list[float]]:
        """Return the next rows of a request, and what really happened."""
        chosen = list(itertools.islice((row for row in rows if row[0] in self.hours), self.rows))
        instances = [{"hour": hour, "temperature": temperature + self.shift} for hour, temperature, _ in chosen]
        return instances, [rented for _, _, rented in chosen]

    def predict_once(self, url: str) -> str | None:
        """Send a row to a predictor; return the version that has answered, or ``None``."""
        hour, temperature, _ = next(self._single_rows)
        body = {"instances": [{"hour": hour, "temperature": temperature}]}
        try:
            answer = httpx.post(f"{url}/predict", json=body, timeout=30)
        except httpx.HTTPError:
            return None
        return str(answer.json()["version"]) if answer.is_success else None

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Keep sending for the duration of the block."""
        stop = threading.Event()
        thread = threading.Thread(target=self._run, args=(stop,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _run(self, stop: threading.Event) -> None:
        rows = itertools.cycle(self._rows)
        delayed: deque[Answered] = deque(maxlen=MAX_DELAYED)
        with httpx.Client(base_url=self._url, timeout=30) as client:
            while not stop.wait(INTERVAL_SECONDS):
                if self.paused:
                    continue
                try:
                    self._send(client, rows, delayed)
                except httpx.HTTPError:
                    continue  # the predictor is what a drill has made of it

    def _send(self, client: httpx.Client, rows: Iterator[tuple[int, float, float]], delayed: deque[Answered]) -> None:
        instances, rented = self.instances(rows)
        answer = client.post("/predict", json={"instances": instances})
        if answer.is_success:
            content = answer.json()
            delayed.append(Answered(time.monotonic(), content["id"], content["version"], rented))
        while self.outcomes != "none" and delayed and delayed[0].at < time.monotonic() - OUTCOME_DELAY_SECONDS:
            client.post("/outcomes", json={"outcomes": self._outcomes_of(delayed.popleft())})

    def _outcomes_of(self, answered: Answered) -> list[Row]:
        is_wrong = self.outcomes == "wrong" and self.wrong_of in (None, answered.version)
        prediction_id = new_event_id() if self.outcomes == "of unknown ids" else answered.id
        return [
            {"id": prediction_id, "index": index, "outcome": rented + (500 if is_wrong else 0)}
            for index, rented in enumerate(answered.rented)
        ]
