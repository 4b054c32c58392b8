"""Days of rows through the real system, one after the other: each ends when all has been done that it led to."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NamedTuple, Self

import httpx
import numpy as np
import pandas as pd
from kafka import KafkaConsumer, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from driftloop.events import DriftVerdict, Event, ModelStateChanged, RetrainRequested, frame_to_columns
from driftloop.kafka.codec import decode
from driftloop.usecase import UseCase
from producer.replay import split_requests
from stack.running import CannotStart, Stack
from tests.support.processes import cpu_seconds

ROWS_PER_REQUEST = 50
PATIENCE_SECONDS = 900
LOOK_SECONDS = 0.05  # between two looks at the topics
BATCH = 1_000  # outcomes in a request


class Answered(NamedTuple):
    """One row that was answered."""

    row: int
    """Its place in the use case's rows."""
    prediction: float
    version: str


class Stuck(Exception):
    """What a day led to has not been done in time; says what is missing."""


class Told:
    """All events of some topics, read as they come."""

    def __init__(self, stack: Stack, *topics: str) -> None:
        """From the beginning."""
        self.events: list[Event] = []
        self._consumer = KafkaConsumer(
            **stack.kafka.client_config,
            enable_auto_commit=False,
            isolation_level="read_committed",
            allow_auto_create_topics=False,
        )
        self._consumer.assign([TopicPartition(topic, 0) for topic in topics])
        self._consumer.seek_to_beginning()

    def look(self) -> None:
        """Reads what is there."""
        while polled := self._consumer.poll(timeout_ms=20):
            for record in (record for records in polled.values() for record in records):
                self.events.append(decode(record.value, record.headers, record.timestamp))

    def of(self, kind: type[Event]) -> list[Any]:
        """The events of a kind, in order."""
        return [event for event in self.events if isinstance(event, kind)]

    def close(self) -> None:
        """Leaves the broker."""
        self._consumer.close()


class Days:
    """Posts a use case's rows by day, and their outcomes a day later. Use in a ``with`` statement."""

    def __init__(self, stack: Stack, use_case: UseCase) -> None:
        """Nothing is posted."""
        self.answered: list[Answered] = []
        self.requests: list[str] = []
        """Ids of the answers."""
        self.failed: list[str] = []
        """What came instead of an answer."""
        self.told = Told(stack, stack.topics.drift, stack.topics.retrain, stack.topics.models)
        self._stack = stack
        self._use_case = use_case
        self._client = httpx.Client(base_url=stack.parts["predictor"].url, timeout=60)
        self._outcomes: list[dict[str, Any]] = []
        self._posted = {"predictions": 0, "outcomes": 0}
        self._counted = {topic: self._consumed("drift_worker", topic) for topic in self._posted}

    def __enter__(self) -> Self:
        """Nothing more is done."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves broker and predictor."""
        self.told.close()
        self._client.close()

    def day(self, rows: pd.DataFrame) -> None:
        """Reports the outcomes of the day before, asks for all rows of this one, and waits for what comes of both."""
        self.report_outcomes(rows[self._use_case.timestamp].iloc[0])
        for request in split_requests(self._use_case, rows, ROWS_PER_REQUEST):
            self._ask(request)
        self.settle()

    def report_outcomes(self, at: pd.Timestamp) -> None:
        """Reports what became of the rows asked for until now."""
        for start in range(0, len(self._outcomes), BATCH):
            part = self._outcomes[start : start + BATCH]
            self._post("/outcomes", {"outcomes": part}, at)
            self._posted["outcomes"] += len(part)
        self._outcomes = []

    def settle(self) -> None:
        """Returns when the drift worker has read everything, the trainer every verdict, and no retrain is under way.

        Raises :class:`Stuck`.
        """
        for topic, posted in self._posted.items():
            wanted = self._counted[topic] + posted
            _until(
                lambda topic=topic, wanted=wanted: self._consumed("drift_worker", topic) >= wanted,  # type: ignore[misc]
                f"the drift worker to read {wanted} {topic}",
                self._stack,
            )
        _until(self._trainer_is_done, "the trainer to end its retrains", self._stack)

    def _trainer_is_done(self) -> bool:
        self.told.look()
        verdicts = sum(event.topic == "drift" for event in self.told.events)
        if self._consumed("trainer", "drift") < verdicts:
            return False
        asked = {retrain.id for retrain in self.told.of(RetrainRequested)}
        self.told.look()  # a decision is published with what decided it, so it is there by now
        ended = {change.retrain_id: change for change in self.told.of(ModelStateChanged) if change.final}
        if not asked <= ended.keys():
            return False
        champion = self._stack.registry.champion()
        return bool(self._client.get("/models").json()["version"] == champion)

    def _ask(self, rows: pd.DataFrame) -> None:
        columns = frame_to_columns(rows[self._use_case.features])
        instances = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
        answer = self._post("/predict", {"instances": instances}, rows[self._use_case.timestamp].iloc[0])
        if answer is None:
            return
        self._posted["predictions"] += 1
        self.requests.append(answer["id"])
        for place, (row, prediction) in enumerate(zip(rows.index, answer["predictions"], strict=True)):
            self.answered.append(Answered(int(row), float(prediction), answer["version"]))
            outcome = rows[self._use_case.target].iloc[place]
            if pd.notna(outcome):
                self._outcomes.append({"id": answer["id"], "index": place, "outcome": float(outcome)})

    def _post(self, path: str, body: dict[str, Any], at: pd.Timestamp) -> Any:
        try:
            answer = self._client.post(path, json=body, headers={"Driftloop-Time": at.isoformat()})
        except httpx.HTTPError as error:
            self.failed.append(f"{path}: {type(error).__name__}: {error}")
            return None
        if not answer.is_success:
            self.failed.append(f"{path}: {answer.status_code} {answer.text[:300]}")
            return None
        return answer.json()

    def _consumed(self, service: str, topic: str) -> float:
        name = getattr(self._stack.topics, topic)
        text = httpx.get(f"{self._stack.parts[service].url}/metrics", timeout=30).text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "driftloop_consumed_events_total" and sample.labels["topic"] == name
        )

    @property
    def windows(self) -> list[DriftVerdict]:
        """The verdicts on windows, so far."""
        found: list[DriftVerdict] = self.told.of(DriftVerdict)
        return found

    @property
    def version_of_row(self) -> dict[int, str]:
        """Which version answered for each row."""
        return {one.row: one.version for one in self.answered}

    def predictions(self, count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        """By row, what was answered; NaN where nothing was."""
        found = np.full(count, np.nan)
        for one in self.answered:
            found[one.row] = one.prediction
        return found


@contextmanager
def machine_seconds(stack: Stack) -> Iterator[Callable[[], dict[str, float]]]:
    """Processor seconds that each part of a stack has used since the block was entered."""
    before = _seconds(stack)

    def since() -> dict[str, float]:
        return {name: seconds - before.get(name, 0) for name, seconds in _seconds(stack).items()}

    yield since


def _seconds(stack: Stack) -> dict[str, float]:
    found = {}
    for name, executor in stack.executors.items():
        if executor.process is not None:
            found[name] = cpu_seconds(executor.process.pid)
    return found


def _until(done: Callable[[], bool], what: str, stack: Stack) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not done():
        if time.monotonic() > deadline:
            raise Stuck(f"waited {PATIENCE_SECONDS} s for {what} (logs: {stack.folder / 'logs'})")
        if ended := stack.ended():
            raise CannotStart(f"{', '.join(ended)} ended (logs: {stack.folder / 'logs'})")
        time.sleep(LOOK_SECONDS)
