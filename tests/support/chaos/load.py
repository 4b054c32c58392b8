"""Steady load: requests for the first model over many connections, and requests and outcomes for the second one."""

import itertools
import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.support import flights_model, load_client, regression_usecase, wrk
from tests.support.chaos.audit import outcome_key
from tests.support.chaos.system import (
    FIRST_DAY,
    FIRST_DAYS,
    FLIGHTS_PREDICTOR,
    RENTALS_PREDICTOR,
    System,
    base_end,
)
from tests.support.load_client import Interval, Responses
from tests.support.waiting import wait_until

CONNECTIONS = 16
UNLIMITED_SECONDS = 86_400  # the client is stopped by a signal before
OUTCOME_INTERVAL_SECONDS = 0.2
MIN_ANSWERS = 20
TIMEOUT_SECONDS = 60  # longer than any fault


@dataclass
class Answers:
    """What the clients got while one fault lasted."""

    ids: list[str] = field(default_factory=list)
    """Of answered requests, and of accepted outcomes, each as it is counted."""
    failed: int = 0
    """Requests without an answer, or with another status than 200 or 202."""


@dataclass
class SteadyLoad:
    """What the clients got from a steady load; complete once it has ended."""

    intervals: list[Interval] = field(default_factory=list)
    """Responses of the first model's predictor."""
    second: Answers = field(default_factory=Answers)
    """Predictions and outcomes of the second model."""


class Load:
    """The clients' settings."""

    def __init__(self, system: System, folder: Path, seed: int = 0) -> None:
        """Write the requests, in an order that the seed determines; nothing is sent yet."""
        self._system = system
        self._url = f"{system.url(FLIGHTS_PREDICTOR)}/predict"
        self._file = folder / "responses.npz"
        self._intervals_file = folder / "intervals.jsonl"
        rows = flights_model.sample_rows((FIRST_DAY["flights"], base_end("flights", 0)))  # or else all is drift
        random.Random(seed).shuffle(rows)
        self._bodies = wrk.write_bodies(folder / "requests", (json.dumps({"instances": [row]}) for row in rows))
        rentals = regression_usecase.load_rows().head(FIRST_DAYS * 24).sample(frac=1, random_state=seed)
        columns = (rentals[name].tolist() for name in ("hour", "temperature", "rented"))
        self._rentals = itertools.cycle(list(zip(*columns, strict=True)))
        self._rate = 0.0

    def measure_top_speed(self, seconds: float, connections: int = CONNECTIONS) -> float:
        """Return how many requests a second the first model's predictor answers over some connections."""
        with load_client.run_client(self._url, self._bodies, connections, seconds, self._file) as process:
            responses = load_client.collect_responses(process, seconds, self._file)
        self._note(_answers(responses), "measuring the top speed")
        return float((responses.status == httpx.codes.OK).sum()) / float(responses.end.max() - responses.start.min())

    def set_half_speed(self, seconds: float, rate: float | None) -> tuple[float, float]:
        """Measure the predictor's top speed; from then on send at half of it, or at another rate.

        Args:
            seconds: How long the measurement takes.
            rate: Requests a second in place of half of the top speed.

        Returns:
            The top speed, and the rate of the load, in requests a second.
        """
        top = self.measure_top_speed(seconds)
        self._rate = rate or top / 2
        return top, self._rate

    @contextmanager
    def running(self, fault: str) -> Iterator[Answers]:
        """Send requests for the duration of the block; the answers are complete after it, and noted for the audit."""
        answers = Answers()
        second = _SecondModel(self._system.url(RENTALS_PREDICTOR), self._rentals)
        with load_client.run_client(
            self._url, self._bodies, CONNECTIONS, UNLIMITED_SECONDS, self._file, rate=self._rate
        ) as process:
            second.start()
            try:
                yield answers
            finally:
                second.stop()
                process.terminate()
            first = _answers(load_client.collect_responses(process, 0, self._file))
        answers.ids = first.ids + second.answers.ids
        answers.failed = first.failed + second.answers.failed
        self._note(answers, fault)

    @contextmanager
    def steady(self, rate: float, connections: int, interval: float) -> Iterator[SteadyLoad]:
        """Send requests at a rate for the duration of the block, however long; nothing is noted for the audit.

        Args:
            rate: Requests a second for the first model.
            connections: How many of them may wait for their responses at once.
            interval: Seconds by which the responses are summed up.
        """
        load = SteadyLoad()
        second = _SecondModel(self._system.url(RENTALS_PREDICTOR), self._rentals)
        with load_client.run_client(
            self._url, self._bodies, connections, UNLIMITED_SECONDS, self._intervals_file, rate=rate, interval=interval
        ) as process:
            second.start()
            try:
                yield load
            finally:
                second.stop()
                process.terminate()
            if code := process.wait():
                raise RuntimeError(f"the client ended with exit code {code}")
        load.intervals, load.second = load_client.read_intervals(self._intervals_file), second.answers

    def wait_until_flowing(self) -> None:
        """Wait until :data:`MIN_ANSWERS` more requests are answered. Raises :class:`AssertionError` if they are not."""

        def answered() -> float:
            return self._system.metric(FLIGHTS_PREDICTOR, "driftloop_predictor_requests_total", status="200")

        before = answered()
        wait_until(lambda: answered() > before + MIN_ANSWERS or None, "requests are answered")

    def _note(self, answers: Answers, fault: str) -> None:
        self._system.audit.answered.update(dict.fromkeys(answers.ids, fault))


def _answers(responses: Responses) -> Answers:
    is_answered = responses.status == httpx.codes.OK
    return Answers(responses.id[is_answered].tolist(), int((~is_answered).sum()))


class _SecondModel(threading.Thread):
    """Requests a prediction, reports its outcome, and again."""

    def __init__(self, url: str, rentals: Iterator[tuple[int, float, float]]) -> None:
        super().__init__(daemon=True)
        self.answers = Answers()
        self._url = url
        self._rentals = rentals
        self._stopped = threading.Event()

    def run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=TIMEOUT_SECONDS) as client:
            while not self._stopped.wait(OUTCOME_INTERVAL_SECONDS):
                hour, temperature, rented = next(self._rentals)
                try:
                    row = {"hour": hour, "temperature": temperature}
                    answer = client.post("/predict", json={"instances": [row]})
                    if answer.status_code != httpx.codes.OK:
                        self.answers.failed += 1
                        continue
                    prediction_id = str(answer.json()["id"])
                    self.answers.ids.append(prediction_id)
                    outcome = {"id": prediction_id, "index": 0, "outcome": rented}
                    reported = client.post("/outcomes", json={"outcomes": [outcome]})
                    if reported.status_code == httpx.codes.ACCEPTED:
                        self.answers.ids.append(outcome_key(prediction_id))
                    else:
                        self.answers.failed += 1
                except httpx.HTTPError:
                    self.answers.failed += 1

    def stop(self) -> None:
        self._stopped.set()
        self.join()
