"""Invalid messages and failing handlers, through the whole consume loop on a real broker."""

import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from prometheus_client import REGISTRY

from driftloop.events import Outcome
from driftloop.kafka import topics
from driftloop.kafka.client import create_consumer
from driftloop.kafka.consumed_message import ConsumedMessage
from driftloop.kafka.consumer_loop import Commit, ConsumerLoop, DeadLetterLimitExceeded, RetryLater
from driftloop.kafka.publisher import Publisher
from driftloop.kafka.topics import dead_letter_topic
from driftloop.kafka.transactional_producer import CommittedPosition, TransactionalProducer
from driftloop.settings import DeadLetterSettings, TopicsSettings
from driftloop.storage.bucket import Bucket
from driftloop.telemetry.health import Health
from stack.running import Stack
from tests.support.ports import reserve_ports
from tests.support.running_stack import FLIGHT, predict
from tests.support.waiting import wait_until


@dataclass
class RecordingHandler:
    """A handler that records its messages, commits each, and stops its loop after ``message_count`` of them."""

    stop: threading.Event
    message_count: int
    received: list[ConsumedMessage] = field(default_factory=list)

    def handle(self, message: ConsumedMessage) -> Iterable[Commit]:
        self.received.append(message)
        if len(self.received) == self.message_count:
            self.stop.set()
        return [Commit(message.topic, message.partition, message.offset + 1)]

    def on_poll(self) -> Iterable[Commit]:
        return []

    def on_assigned(self, positions: Mapping[tuple[str, int], CommittedPosition]) -> None:
        pass

    def on_revoked(self, partitions: Collection[tuple[str, int]]) -> None:
        pass


class TopicUnderTest:
    """A topic of one test, with a publisher and consumer loops."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.topic = f"outcomes-{uuid.uuid4().hex[:8]}"
        self.topics = TopicsSettings(outcomes=self.topic)
        topics.create(stack.kafka, self.topics)
        self.publisher = Publisher(stack.kafka, self.topics, "test")
        self.group = f"group-{self.topic}"

    def publish(self, *validity: bool) -> None:
        """Publish valid (``True``) and invalid (``False``) messages, in this order."""
        producer = KafkaProducer(bootstrap_servers=self.stack.kafka.bootstrap_servers)
        for number, is_valid in enumerate(validity):
            if is_valid:
                self.publisher.publish(Outcome(prediction_id="p", index=number, outcome=1.0))
            else:
                producer.send(self.topic, key=b"k", value=b"garbage %d" % number, headers=[("trace", b"t")]).get(10)
        producer.close()

    def run(self, message_count: int, limits: DeadLetterSettings) -> RecordingHandler:
        """Run a consumer loop until it has handled ``message_count`` offsets; return its handler."""
        stop = threading.Event()
        handler = RecordingHandler(stop, message_count)
        watchdog = threading.Timer(60, stop.set)
        watchdog.start()
        source = create_consumer(self.stack.kafka, self.group, "test")
        try:
            ConsumerLoop(source, [self.topic], handler, self.transactional_producer(), limits, Health()).run(stop)
        finally:
            watchdog.cancel()
            source.close(autocommit=False)
        return handler

    def transactional_producer(self) -> TransactionalProducer:
        return TransactionalProducer(self.stack.kafka, self.topics, "test", self.topic)

    def committed(self) -> int | None:
        """Return the group's committed offset."""
        reader = KafkaConsumer(bootstrap_servers=self.stack.kafka.bootstrap_servers, group_id=self.group)
        try:
            offset = reader.committed(TopicPartition(self.topic, 0))
            return None if offset is None else int(offset)
        finally:
            reader.close()

    def dead_letters(self) -> list[ConsumerRecord]:
        """Return the dead letters of the topic."""
        return records(self.stack, dead_letter_topic(self.topic))


def records(stack: Stack, topic: str) -> list[ConsumerRecord]:
    """Return all committed messages of a topic with one partition."""
    partition = TopicPartition(topic, 0)
    reader = KafkaConsumer(bootstrap_servers=stack.kafka.bootstrap_servers, isolation_level="read_committed")
    try:
        reader.assign([partition])
        reader.seek_to_beginning(partition)
        end, messages = reader.end_offsets([partition])[partition], []
        while reader.position(partition) < end:
            for polled in reader.poll(1_000).values():
                messages += polled
        return messages
    finally:
        reader.close()


@pytest.fixture
def source(stack: Stack) -> Iterator[TopicUnderTest]:
    source = TopicUnderTest(stack)
    yield source
    source.publisher.close()


def test_consumer_loop_dead_letters_invalid_message_with_its_origin(source: TopicUnderTest) -> None:
    source.publish(True, False, True)
    handler = source.run(3, DeadLetterSettings())
    assert [(r.offset, r.event is not None) for r in handler.received] == [(0, True), (1, False), (2, True)]
    (dead_letter,) = source.dead_letters()
    headers = {name: value.decode() for name, value in dead_letter.headers}
    assert (dead_letter.key, dead_letter.value) == (b"k", b"garbage 1")
    assert headers.pop("dlq_error").startswith("no CloudEvent")
    assert headers == {"trace": "t", "dlq_topic": source.topic, "dlq_partition": "0", "dlq_offset": "1"}
    assert source.committed() == 3


def test_consumer_loop_dead_letters_invalid_messages_at_the_end_of_a_topic(source: TopicUnderTest) -> None:
    source.publish(True, False, False)
    assert len(source.run(3, DeadLetterSettings()).received) == 3
    assert len(source.dead_letters()) == 2
    assert source.committed() == 3


def test_consumer_loop_stops_at_consecutive_limit_without_moving_the_run(source: TopicUnderTest) -> None:
    source.publish(True, *[False] * 20)
    for _ in range(2):  # and again after a restart
        with pytest.raises(
            DeadLetterLimitExceeded, match=r"4 consecutive messages .* DRIFTLOOP_DEAD_LETTERS__MAX_CONSECUTIVE \(3\)"
        ):
            source.run(21, DeadLetterSettings(max_consecutive=3, max_ratio=1.0))
        assert source.dead_letters() == []
        assert source.committed() == 1


def test_consumer_loop_resumes_after_limit_was_raised(source: TopicUnderTest) -> None:
    source.publish(True, *[False] * 5, True)
    with pytest.raises(DeadLetterLimitExceeded):
        source.run(7, DeadLetterSettings(max_consecutive=3, max_ratio=1.0))
    handler = source.run(6, DeadLetterSettings(max_consecutive=5, max_ratio=1.0))
    assert [received.offset for received in handler.received] == [1, 2, 3, 4, 5, 6]
    assert len(source.dead_letters()) == 5


def test_consumer_loop_stops_at_ratio_limit(source: TopicUnderTest) -> None:
    source.publish(*[True, False] * 10)
    with pytest.raises(DeadLetterLimitExceeded, match=r"DRIFTLOOP_DEAD_LETTERS__MAX_RATIO \(0\.2\)"):
        source.run(20, DeadLetterSettings(max_consecutive=3, max_ratio=0.2, ratio_window=20))
    assert len(source.dead_letters()) == 4
    assert source.committed() == 9


def test_consumer_loop_ends_on_handler_exception_and_redelivers_its_event(source: TopicUnderTest) -> None:
    class FailingHandler(RecordingHandler):
        def handle(self, message: ConsumedMessage) -> Iterable[Commit]:
            if message.offset == 1:
                raise RuntimeError("disk full")
            return super().handle(message)

    source.publish(True, True)
    reader = create_consumer(source.stack.kafka, source.group, "test")
    handler = FailingHandler(threading.Event(), 2)
    with pytest.raises(RuntimeError, match="disk full"):
        ConsumerLoop(
            reader, [source.topic], handler, source.transactional_producer(), DeadLetterSettings(), Health()
        ).run(handler.stop)
    reader.close(autocommit=False)
    assert source.committed() == 1
    assert [received.offset for received in source.run(1, DeadLetterSettings()).received] == [1]


def test_consumer_loop_commits_each_poll_in_one_transaction(source: TopicUnderTest) -> None:
    class CountingProducer(TransactionalProducer):
        commits = 0

        def commit(self, *arguments: Any) -> None:
            self.commits += 1
            super().commit(*arguments)

    source.publish(*[True] * 10, False, *[True] * 10)
    reader, handler = create_consumer(source.stack.kafka, source.group, "test"), RecordingHandler(threading.Event(), 21)
    producer = CountingProducer(source.stack.kafka, source.topics, "test", source.topic)
    try:
        ConsumerLoop(reader, [source.topic], handler, producer, DeadLetterSettings(), Health()).run(handler.stop)
    finally:
        reader.close(autocommit=False)
    assert source.committed() == 21
    assert len(source.dead_letters()) == 1
    assert producer.commits < 5


def test_consumer_loop_redelivers_after_retry_later(source: TopicUnderTest) -> None:
    class RetryingHandler(RecordingHandler):
        tries = 0

        def handle(self, message: ConsumedMessage) -> Iterable[Commit]:
            if message.offset == 1 and self.tries < 2:
                self.tries += 1
                assert not health.unavailable or self.tries == 2
                if self.tries == 2:
                    assert lag_metrics(source.topic)[0] == 3
                    assert lag_metrics(source.topic)[1] >= 1  # the first back-off
                raise RetryLater("no disk")
            return super().handle(message)

    source.publish(True, True, False, True)
    reader, health = create_consumer(source.stack.kafka, source.group, "test"), Health()
    health.mark_started()
    handler = RetryingHandler(threading.Event(), 4)
    try:
        ConsumerLoop(
            reader, [source.topic], handler, source.transactional_producer(), DeadLetterSettings(), health
        ).run(handler.stop)
        assert lag_metrics(source.topic) == (0, 0)
    finally:
        reader.close(autocommit=False)
    assert lag_metrics(source.topic) == (None, None)  # the next owner reports it
    assert [received.offset for received in handler.received] == [0, 1, 2, 3]
    assert handler.tries == 2
    assert health.unavailable == {}
    assert source.committed() == 4


def lag_metrics(topic: str) -> tuple[Any, Any]:
    """Return this process' lag metrics: events and seconds."""
    labels = {"topic": topic, "partition": "0"}
    names = ("driftloop_consumer_lag_events", "driftloop_consumer_lag_seconds")
    return REGISTRY.get_sample_value(names[0], labels), REGISTRY.get_sample_value(names[1], labels)


def test_consumer_loop_stop_ends_back_off(source: TopicUnderTest) -> None:
    class UnavailableHandler(RecordingHandler):
        def handle(self, message: ConsumedMessage) -> Iterable[Commit]:
            if message.offset == 1:
                threading.Timer(0.2, self.stop.set).start()
                raise RetryLater("no disk")
            return super().handle(message)

    source.publish(True, True)
    reader, handler = (
        create_consumer(source.stack.kafka, source.group, "test"),
        UnavailableHandler(threading.Event(), 2),
    )
    try:
        ConsumerLoop(
            reader, [source.topic], handler, source.transactional_producer(), DeadLetterSettings(), Health()
        ).run(handler.stop)
    finally:
        reader.close(autocommit=False)
    assert source.committed() == 1


@pytest.mark.usefixtures("version_1")
def test_drift_worker_dead_letters_invalid_message_and_continues(stack: Stack) -> None:
    producer = KafkaProducer(bootstrap_servers=stack.kafka.bootstrap_servers)
    metadata = producer.send("predictions", b"not an event").get(10)
    producer.close()

    def dead_letter_of_message() -> ConsumerRecord | None:
        offsets = [(dict(record.headers)["dlq_offset"], record) for record in records(stack, "predictions.dlq")]
        return next((record for offset, record in offsets if offset == str(metadata.offset).encode()), None)

    assert wait_until(dead_letter_of_message, "the dead letter is published").value == b"not an event"
    response = predict(stack, FLIGHT).json()

    def archived() -> bool | None:
        bucket = Bucket(stack.storage)
        frames = (bucket.read_parquet(path) for path in bucket.list_paths("events/predictions/"))
        return any(response["id"] in set(frame["_id"]) for frame in frames) or None

    wait_until(archived, f"{response['id']} is archived")


def test_drift_worker_exits_at_dead_letter_limit(source: TopicUnderTest) -> None:
    source.publish(*[False] * 10)
    stack = source.stack
    result = subprocess.run(
        [sys.executable, "-m", "drift_worker.main"],
        env={
            **os.environ,
            **stack.environment,
            "DRIFTLOOP_INSTANCE_ID": source.topic,
            "DRIFTLOOP_DRIFT_WORKER__GROUP": source.group,
            "DRIFTLOOP_DRIFT_WORKER__PORT": str(reserve_ports(1)[0]),
            "DRIFTLOOP_TOPICS__OUTCOMES": source.topic,
            "DRIFTLOOP_TOPICS__PREDICTIONS": f"{source.topic}-none",
            "DRIFTLOOP_DEAD_LETTERS__MAX_CONSECUTIVE": "5",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 1
    assert "DeadLetterLimitExceeded" in result.stderr
    assert "6 consecutive messages" in result.stderr
    assert source.dead_letters() == []
