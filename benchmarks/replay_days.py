"""Replay rows through the real system day by day; a day ends when everything that it has caused is done."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import httpx
import numpy as np
import pandas as pd
from kafka import KafkaConsumer, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from driftloop.events import DriftVerdict, Event, ModelStateChanged, RetrainRequested, frame_to_columns
from driftloop.kafka.codec import decode
from driftloop.usecase import UseCase
from producer.replay import split_requests
from stack.running import Stack, StackStartError
from tests.support.processes import cpu_seconds

EventT = TypeVar("EventT", bound=Event)

ROWS_PER_REQUEST = 50
OUTCOMES_PER_REQUEST = 1_000
DAY_TIMEOUT_SECONDS = 900
POLL_INTERVAL_SECONDS = 0.05  # of topics and metrics


class RowPrediction(NamedTuple):
    """The prediction that was served for one row."""

    row: int
    """Position in the use case's rows."""
    prediction: float
    version: str


class DayTimedOut(Exception):
    """The system has not finished a day in time; the message says what is missing."""


class TopicReader:
    """Reads all events of some topics from their beginning."""

    def __init__(self, stack: Stack, *topics: str) -> None:
        """Create the consumer; :meth:`poll` reads."""
        self.events: list[Event] = []
        self._consumer = KafkaConsumer(
            **stack.kafka.client_config,
            enable_auto_commit=False,
            isolation_level="read_committed",
            allow_auto_create_topics=False,
        )
        self._consumer.assign([TopicPartition(topic, 0) for topic in topics])
        self._consumer.seek_to_beginning()

    def poll(self) -> None:
        """Read all new events."""
        while polled := self._consumer.poll(timeout_ms=20):
            for record in (record for records in polled.values() for record in records):
                self.events.append(decode(record.value, record.headers, record.timestamp))

    def of_type(self, event_type: type[EventT]) -> list[EventT]:
        """Return the events of a type, in order."""
        return [event for event in self.events if isinstance(event, event_type)]

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()


class DayReplay:
    """Posts a use case's rows by day, and their outcomes a day later. A context manager that closes its clients."""

    def __init__(self, stack: Stack, use_case: UseCase) -> None:
        """Connect to broker and predictor."""
        self.row_predictions: list[RowPrediction] = []
        self.request_ids: list[str] = []
        """Ids of all successful prediction requests."""
        self.failures: list[str] = []
        """Descriptions of failed requests."""
        self.reader = TopicReader(stack, stack.topics.drift, stack.topics.retrain, stack.topics.models)
        self._stack = stack
        self._use_case = use_case
        self._client = httpx.Client(base_url=stack.components["predictor"].url, timeout=60)
        self._outcomes: list[dict[str, Any]] = []
        self._posted = {"predictions": 0, "outcomes": 0}
        self._initially_consumed = {topic: self._consumed("drift_worker", topic) for topic in self._posted}

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close consumer and HTTP client."""
        self.reader.close()
        self._client.close()

    def replay_day(self, rows: pd.DataFrame) -> None:
        """Report the outcomes of the day before, request predictions for this day's rows, and wait for all effects."""
        self.report_outcomes(rows[self._use_case.timestamp].iloc[0])
        for request in split_requests(self._use_case, rows, ROWS_PER_REQUEST):
            self._predict(request)
        self.wait_until_settled()

    def report_outcomes(self, at: pd.Timestamp) -> None:
        """Report the outcomes of all rows that were predicted until now."""
        for start in range(0, len(self._outcomes), OUTCOMES_PER_REQUEST):
            outcomes = self._outcomes[start : start + OUTCOMES_PER_REQUEST]
            self._post("/outcomes", {"outcomes": outcomes}, at)
            self._posted["outcomes"] += len(outcomes)
        self._outcomes = []

    def wait_until_settled(self) -> None:
        """Wait until the drift worker has consumed all events and the trainer all verdicts, and no retrain is running.

        Raises:
            DayTimedOut: This has taken too long.
        """
        for topic, posted in self._posted.items():
            expected = self._initially_consumed[topic] + posted
            _wait_until(
                lambda topic=topic, expected=expected: self._consumed("drift_worker", topic) >= expected,  # type: ignore[misc]
                f"the drift worker to consume {expected} {topic}",
                self._stack,
            )
        _wait_until(self._trainer_is_idle, "the trainer to finish its retrains", self._stack)

    def _trainer_is_idle(self) -> bool:
        self.reader.poll()
        verdicts = sum(event.topic == "drift" for event in self.reader.events)
        if self._consumed("trainer", "drift") < verdicts:
            return False
        requested = {request.id for request in self.reader.of_type(RetrainRequested)}
        self.reader.poll()  # a decision is published in the transaction of its verdict, so it has arrived by now
        finished = {change.retrain_id for change in self.reader.of_type(ModelStateChanged) if change.is_final}
        if not requested <= finished:
            return False
        champion = self._stack.registry.champion()
        return bool(self._client.get("/models").json()["version"] == champion)

    def _predict(self, rows: pd.DataFrame) -> None:
        columns = frame_to_columns(rows[self._use_case.features])
        instances = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        response = self._post("/predict", {"instances": instances}, rows[self._use_case.timestamp].iloc[0])
        if response is None:
            return
        self._posted["predictions"] += 1
        self.request_ids.append(response["id"])
        for index, (row, prediction) in enumerate(zip(rows.index, response["predictions"], strict=True)):
            self.row_predictions.append(RowPrediction(int(row), float(prediction), response["version"]))
            outcome = rows[self._use_case.target].iloc[index]
            if pd.notna(outcome):
                self._outcomes.append({"id": response["id"], "index": index, "outcome": float(outcome)})

    def _post(self, path: str, body: dict[str, Any], at: pd.Timestamp) -> Any:
        try:
            response = self._client.post(path, json=body, headers={"Driftloop-Time": at.isoformat()})
        except httpx.HTTPError as error:
            self.failures.append(f"{path}: {type(error).__name__}: {error}")
            return None
        if not response.is_success:
            self.failures.append(f"{path}: {response.status_code} {response.text[:300]}")
            return None
        return response.json()

    def _consumed(self, service: str, topic: str) -> float:
        name = getattr(self._stack.topics, topic)
        text = httpx.get(f"{self._stack.components[service].url}/metrics", timeout=30).text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "driftloop_consumed_events_total" and sample.labels["topic"] == name
        )

    @property
    def verdicts(self) -> list[DriftVerdict]:
        """All drift verdicts so far."""
        return self.reader.of_type(DriftVerdict)

    def predictions(self, count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return the served prediction of each of the first ``count`` rows; NaN where there is none."""
        predictions = np.full(count, np.nan)
        for served in self.row_predictions:
            predictions[served.row] = served.prediction
        return predictions


@contextmanager
def measure_cpu(stack: Stack) -> Iterator[Callable[[], dict[str, float]]]:
    """Yield a function that returns the processor seconds of each component since the block was entered."""
    before = _cpu_by_component(stack)

    def used_seconds() -> dict[str, float]:
        return {name: seconds - before.get(name, 0) for name, seconds in _cpu_by_component(stack).items()}

    yield used_seconds


def _cpu_by_component(stack: Stack) -> dict[str, float]:
    return {
        name: cpu_seconds(executor.process.pid)
        for name, executor in stack.executors.items()
        if executor.process is not None
    }


def _wait_until(is_done: Callable[[], bool], description: str, stack: Stack) -> None:
    deadline = time.monotonic() + DAY_TIMEOUT_SECONDS
    while not is_done():
        if time.monotonic() > deadline:
            raise DayTimedOut(f"waited {DAY_TIMEOUT_SECONDS} s for {description} (logs: {stack.folder / 'logs'})")
        if exited := stack.exited():
            raise StackStartError(f"{', '.join(exited)} ended (logs: {stack.folder / 'logs'})")
        time.sleep(POLL_INTERVAL_SECONDS)
