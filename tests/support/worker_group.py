"""A group of drift workers with topics and a bucket of their own, and a stream of synthetic predictions for it."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord

from driftloop.drift.calibration import calibrate
from driftloop.drift.distances import ColumnType
from driftloop.events import DriftVerdict, Event, FeatureValue, Prediction, PredictionValue, Window
from driftloop.kafka import reader, topics
from driftloop.kafka.codec import InvalidMessage, decode, encode
from driftloop.settings import StorageSettings, TopicsSettings
from driftloop.storage.object_store import ObjectStore
from driftloop.storage.reference_store import Reference
from stack.running import FOLDER_VARIABLE, Stack
from tests.support.ports import reserve_ports
from tests.support.waiting import wait_until

SESSION_TIMEOUT_SECONDS = 10.0
IDLE_TIMEOUT_SECONDS = 40.0  # longer than a broker restart and the reconnection, so that only the last windows are idle
ROWS = 200  # of a window
DAYS = 64
MODEL = "made-up"
COLUMN_TYPES: dict[str, ColumnType] = {"x": "number", "k": "number", "c": "category", "_prediction": "number"}
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)

Columns = dict[str, list[FeatureValue]]


def make_features(source: np.random.Generator, day: int, rows: int) -> Columns:
    """Return features of a day's rows, which differ from day to day."""
    weather = np.random.default_rng(day % DAYS).normal(0, 0.3)
    x = source.normal(weather, 1, rows)
    return {
        "x": [None if missing else cell for cell, missing in zip(x.tolist(), source.random(rows) < 0.05, strict=True)],
        "k": source.poisson(3 + weather, rows).tolist(),
        "c": source.choice(["u", "v", "w"], rows, p=[0.6, 0.3, 0.1]).tolist(),
    }


def make_predictions(source: np.random.Generator, features: Columns) -> list[PredictionValue]:
    """Return a prediction per row."""
    return [float(prediction) for prediction in source.random(len(next(iter(features.values()))))]


def make_reference() -> Reference:
    """Return a reference with days that have the distribution of the events."""
    source = np.random.default_rng(1)
    frames = [pd.DataFrame(make_features(source, day, ROWS)) for day in range(DAYS)]
    rows = pd.concat(frames, ignore_index=True).assign(_prediction=source.random(ROWS * DAYS))
    days = np.repeat(np.arange(DAYS), ROWS)
    return Reference(rows, calibrate(rows, days, COLUMN_TYPES, window_rows=ROWS, false_alarm_rate=0.01))


class EventStream:
    """An endless stream of events with 1 to 40 rows, some of them duplicate, invalid, or of an unknown version.

    In some stretches a column is empty, missing, or of another type.
    """

    STRETCHES = 8
    STRETCH_EVENTS = 300

    def __init__(self) -> None:
        self._source = np.random.default_rng(2)
        self._latest: list[Prediction] = []
        self._number = 0

    def __iter__(self) -> Iterator[Event | bytes]:
        while True:
            yield self._next()

    def has_had_each_stretch(self) -> bool:
        return self._number >= self.STRETCHES * self.STRETCH_EVENTS

    def _next(self) -> Event | bytes:
        self._number += 1
        kind = self._source.random()
        if kind < 0.02:
            return b"no event"
        if kind < 0.06 and self._latest:
            return self._latest[int(self._source.integers(len(self._latest)))]
        rows = int(self._source.choice([1, 2, 5, 40], p=[0.5, 0.3, 0.15, 0.05]))
        features = make_features(self._source, self._number // 100, rows)
        predictions = make_predictions(self._source, features)
        match self._number // self.STRETCH_EVENTS % self.STRETCHES:
            case 2:
                features["x"] = [None] * rows
            case 4:
                del features["k"]
            case 6:
                features |= {"x": [str(k) for k in features["k"]], "k": ["many"] * rows}
        event = Prediction(
            time=NOON + timedelta(seconds=self._number),
            model=MODEL,
            version="9" if kind > 0.97 else "1",
            features=features,
            predictions=predictions,
        )
        self._latest = [*self._latest, event][-5:]
        return event


class WorkerProcess:
    """The process of a drift worker."""

    def __init__(self, stack: Stack, name: str, environment: Mapping[str, str]) -> None:
        self._log = stack.folder / "logs" / f"{name}.log"
        self._log.parent.mkdir(exist_ok=True)
        self._log.touch()
        self._environment = {
            **os.environ,
            **stack.environment,
            FOLDER_VARIABLE: str(stack.folder),
            "DRIFTLOOP_INSTANCE_ID": name,
            "DRIFTLOOP_DRIFT_WORKER__PORT": str(reserve_ports(1)[0]),
            **environment,
        }
        self._run_start = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._run_start = self._log.stat().st_size
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "drift_worker.main"], env=self._environment, stdout=log, stderr=log
            )

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        assert self._process is not None
        return self._process

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> float:
        """Stop the process with SIGTERM; return the seconds that it took."""
        stopping_at = time.monotonic()
        self.process.terminate()
        self.process.wait(60)
        return time.monotonic() - stopping_at

    def log_entries(self, event: str, *, all_runs: bool = False) -> list[dict[str, Any]]:
        """Return the log entries with an event name, of the current run or of all runs of the process."""
        with self._log.open() as log:
            log.seek(0 if all_runs else self._run_start)
            lines = [line for line in log if event in line]
        entries = []
        for line in lines:
            with suppress(json.JSONDecodeError):  # a line that is not complete yet
                entries.append(json.loads(line))
        return [entry for entry in entries if entry.get("event") == event]

    def partitions(self) -> set[str] | None:
        """Return the partitions that were assigned last, or ``None`` if the process does not run."""
        assigned = self.log_entries("consumer.partitions_assigned")
        return set(assigned[-1]["partitions"]) if assigned and self.running() else None


class WorkerGroup:
    """Topics, a bucket, and workers that share the topics' partitions."""

    def __init__(
        self,
        stack: Stack,
        name: str,
        partitions: int = 1,
        idle_timeout_seconds: float = IDLE_TIMEOUT_SECONDS,
        session_timeout_seconds: float = SESSION_TIMEOUT_SECONDS,
    ) -> None:
        self.stack, self.name = stack, name
        self.topics = TopicsSettings(
            predictions=name,
            outcomes=f"{name}-outcomes",
            drift=f"{name}-drift",
            partitions=partitions,
            replication_factor=stack.topics.replication_factor,
        )
        topics.create(stack.kafka, self.topics)
        self.store = self._store(name)
        self.workers: list[WorkerProcess] = []
        self._environment = {
            "DRIFTLOOP_STORAGE__URL": f"gs://{name}",
            "DRIFTLOOP_TOPICS__PREDICTIONS": self.topics.predictions,
            "DRIFTLOOP_TOPICS__OUTCOMES": self.topics.outcomes,
            "DRIFTLOOP_TOPICS__DRIFT": self.topics.drift,
            "DRIFTLOOP_DRIFT_WORKER__GROUP": name,
            "DRIFTLOOP_KAFKA__SESSION_TIMEOUT_SECONDS": str(session_timeout_seconds),
            "DRIFTLOOP_WINDOW__ROWS": str(ROWS),
            "DRIFTLOOP_WINDOW__IDLE_TIMEOUT_SECONDS": str(idle_timeout_seconds),
        }
        self._producer = KafkaProducer(
            bootstrap_servers=stack.kafka.bootstrap_servers,
            transactional_id=f"test-{name}",
            allow_auto_create_topics=False,
        )
        self._producer.init_transactions()

    def _store(self, name: str) -> ObjectStore:
        (self.stack.folder / "gcs" / name).mkdir(exist_ok=True)
        return ObjectStore(StorageSettings(url=f"gs://{name}", endpoint=self.stack.storage.endpoint))

    def worker(self) -> WorkerProcess:
        """Start another worker."""
        self.workers.append(WorkerProcess(self.stack, f"{self.name}-{len(self.workers)}", self._environment))
        self.workers[-1].start()
        return self.workers[-1]

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a command of the drift worker with the group's settings."""
        return subprocess.run(
            [sys.executable, "-m", "drift_worker.main", *arguments],
            env={**os.environ, **self.stack.environment, **self._environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )

    def control_worker(self) -> tuple[WorkerProcess, ObjectStore, str]:
        """Return a worker without faults, not started, with its bucket and its topic of verdicts.

        It is in another group and consumes the same topic of predictions.
        """
        name = f"{self.name}-undisturbed"
        store, drift = self._store(name), f"{name}-drift"
        topics.create(self.stack.kafka, self.topics.model_copy(update={"drift": drift}))
        overrides = {
            "DRIFTLOOP_STORAGE__URL": f"gs://{name}",
            "DRIFTLOOP_TOPICS__DRIFT": drift,
            "DRIFTLOOP_DRIFT_WORKER__GROUP": name,
        }
        self.workers.append(WorkerProcess(self.stack, name, {**self._environment, **overrides}))
        return self.workers[-1], store, drift

    def publish(self, messages: Sequence[Event | bytes], *, abort: bool = False) -> None:
        """Publish messages in a transaction, as the relay does."""
        self._producer.begin_transaction()
        for message in messages:
            key, value, headers = (None, message, []) if isinstance(message, bytes) else encode(message, "test")
            self._producer.send(self.topics.predictions, key=key, value=value, headers=headers)
        if abort:
            self._producer.abort_transaction()
        else:
            self._producer.commit_transaction()

    @contextmanager
    def event_flow(self) -> Iterator[threading.Lock]:
        """Publish events for the duration of the block, except while the caller holds the lock.

        A block that ends early waits until each stretch of the stream is published, so that windows of each are judged.
        """
        stream = EventStream()
        stop, pause = threading.Event(), threading.Lock()
        failures: list[BaseException] = []

        def run() -> None:
            requests = iter(stream)
            source = random.Random(3)
            try:
                while not stop.wait(0.1):
                    with pause:
                        self.publish(list(islice(requests, source.randint(1, 20))), abort=source.random() < 0.05)
            except BaseException as error:  # noqa: BLE001  # raised in the thread of the test
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield pause
            wait_until(
                lambda: failures or stream.has_had_each_stretch() or None,
                "each stretch of events is published",
                seconds=120,
            )
        finally:
            stop.set()
            thread.join()
        assert not failures, failures

    def verdicts(self, topic: str = "") -> list[DriftVerdict]:
        """Return the drift verdicts on a topic, by default the group's."""
        events = reader.read_last(self.stack.kafka, topic or self.topics.drift, 10**6)
        return [event for event in events if isinstance(event, DriftVerdict)]

    def windows(self) -> dict[int, list[Window]]:
        """Return the archived windows by partition, in order."""
        windows: dict[int, list[Window]] = {}
        for path, *_ in self.store.list_objects(f"slices/{self.name}/"):
            window = Window.parse(path)
            windows.setdefault(window.partition, []).append(window)
        return windows

    def rows(self, window: Window) -> pd.DataFrame:
        return self.store.read_parquet(f"slices/{self.name}/{window.name}.parquet")

    def messages(self, topic: str) -> list[ConsumerRecord]:
        """Return all committed messages of a topic, those of a partition in order."""
        consumer = KafkaConsumer(bootstrap_servers=self.stack.kafka.bootstrap_servers, isolation_level="read_committed")
        try:
            partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
            consumer.assign(partitions)
            consumer.seek_to_beginning()
            ends, records = consumer.end_offsets(partitions), []
            while any(consumer.position(partition) < end for partition, end in ends.items()):
                for polled in consumer.poll(1_000).values():
                    records += polled
            return records
        finally:
            consumer.close()

    def close(self) -> None:
        for worker in self.workers:
            if worker.running():
                worker.kill()
        self._producer.close(timeout=1)


class TopicContents(NamedTuple):
    """The contents of a topic by partition."""

    events: dict[int, dict[int, Prediction]]
    """By offset; each id only at its first offset."""
    duplicates: dict[int, dict[int, Prediction]]
    """By offset; the events whose id is at an earlier offset, too."""
    invalid: set[tuple[int, int]]
    """Partition and offset of each invalid message."""
    last_offsets: dict[int, int]
    """The last offset of each partition that is not a transaction marker."""


def parse_topic(messages: Sequence[ConsumerRecord]) -> TopicContents:
    """Decode the messages of a topic of predictions."""
    contents = TopicContents({}, {}, set(), {})
    seen: set[str] = set()
    for record in messages:
        contents.last_offsets[record.partition] = record.offset
        try:
            event = decode(record.value, record.headers, record.timestamp)
        except InvalidMessage:
            contents.invalid.add((record.partition, record.offset))
            continue
        assert isinstance(event, Prediction)
        events = contents.duplicates if event.id in seen else contents.events
        events.setdefault(record.partition, {})[record.offset] = event
        seen.add(event.id)
    return contents
