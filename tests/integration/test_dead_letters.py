"""Invalid messages and failing handlers, through the whole consume loop on a real broker."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Any

import pytest
from kafka import KafkaProducer
from kafka.consumer.fetcher import ConsumerRecord
from prometheus_client import REGISTRY

from driftloop.kafka.client import create_consumer
from driftloop.kafka.consumed_message import ConsumedMessage
from driftloop.kafka.consumer_loop import ConsumerLoop
from driftloop.kafka.dead_letter_limits import DeadLetterLimitExceeded
from driftloop.kafka.dead_letters import original_headers, parse_origin
from driftloop.kafka.message_handler import Commit, RetryLater
from driftloop.kafka.transactional_producer import TransactionalProducer
from driftloop.settings import DeadLetterSettings
from driftloop.storage.object_store import ObjectStore
from driftloop.telemetry.health import Health
from stack.running import Stack
from tests.support.consumed_topic import RecordingHandler, TopicUnderTest, records
from tests.support.ports import reserve_ports
from tests.support.running_stack import FLIGHT, predict
from tests.support.waiting import wait_until


@pytest.fixture
def source(stack: Stack) -> Iterator[TopicUnderTest]:
    source = TopicUnderTest(stack.kafka)
    yield source
    source.publisher.close()


def test_consumer_loop_dead_letters_invalid_message_with_its_origin(source: TopicUnderTest) -> None:
    source.publish(True, False, True)
    handler = source.run(3, DeadLetterSettings())
    assert [(r.offset, r.event is not None) for r in handler.received] == [(0, True), (1, False), (2, True)]
    (dead_letter,) = source.dead_letters()
    assert (dead_letter.key, dead_letter.value) == (b"k", b"garbage 1")
    assert original_headers(dead_letter.headers) == [("trace", b"t")]
    origin = parse_origin(dead_letter.headers)
    assert origin.error.startswith("no CloudEvent")
    assert (origin.topic, origin.partition, origin.offset, origin.changed) == (source.topic, 0, 1, {})
    assert (origin.size, origin.sha256) == (9, sha256(b"garbage 1").hexdigest())
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
    reader = create_consumer(source.kafka, source.group, "test")
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
    reader, handler = create_consumer(source.kafka, source.group, "test"), RecordingHandler(threading.Event(), 21)
    producer = CountingProducer(source.kafka, source.topics, "test", source.topic)
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
    reader, health = create_consumer(source.kafka, source.group, "test"), Health()
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
        create_consumer(source.kafka, source.group, "test"),
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
        offsets = [(dict(record.headers)["dlq_offset"], record) for record in records(stack.kafka, "predictions.dlq")]
        return next((record for offset, record in offsets if offset == str(metadata.offset).encode()), None)

    assert wait_until(dead_letter_of_message, "the dead letter is published").value == b"not an event"
    response = predict(stack, FLIGHT).json()

    def archived() -> bool | None:
        store = ObjectStore(stack.storage)
        frames = (store.read_parquet(path) for path, *_ in store.list_objects("slices/predictions/"))
        return any(response["id"] in set(frame["_id"]) for frame in frames) or None

    wait_until(archived, f"{response['id']} is archived")


def test_drift_worker_exits_at_dead_letter_limit(stack: Stack, source: TopicUnderTest) -> None:
    source.publish(*[False] * 10)
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
