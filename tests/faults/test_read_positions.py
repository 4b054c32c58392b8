"""Consumers whose messages were deleted, whose topic got partitions, or of which two have one name."""

import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient
from prometheus_client import REGISTRY

from driftloop.events import Outcome
from driftloop.kafka.client import create_consumer
from driftloop.kafka.consumer_loop import ConsumerLoop
from driftloop.kafka.message_handler import Commit
from driftloop.kafka.transactional_producer import InstanceReplaced
from driftloop.settings import DeadLetterSettings, KafkaSettings
from driftloop.telemetry.health import Health
from tests.support.consumed_topic import RecordingHandler, TopicUnderTest
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

NEW_PARTITION_SECONDS = 30


@pytest.fixture
def topic(broker: KafkaSettings) -> Iterator[TopicUnderTest]:
    topic = TopicUnderTest(broker)
    yield topic
    topic.publisher.close()


@pytest.fixture
def admin(broker: KafkaSettings) -> Iterator[KafkaAdminClient]:
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    yield admin
    admin.close()


def skipped(topic: str) -> float:
    return REGISTRY.get_sample_value("driftloop_skipped_offsets_total", {"topic": topic}) or 0.0


def test_committed_offset_before_the_log_is_counted_and_reading_goes_on_at_the_beginning(
    topic: TopicUnderTest, admin: KafkaAdminClient
) -> None:
    topic.publish(*[True] * 20)
    topic.run(5, DeadLetterSettings())
    committed = wait_until(topic.committed, "the offset is committed")
    admin.delete_records({TopicPartition(topic.topic, 0): 15})
    (first, *_) = topic.run(5, DeadLetterSettings()).received
    assert (first.offset, first.previous_end_offset) == (15, 15)
    assert skipped(topic.topic) == 15 - committed


def test_messages_deleted_while_a_consumer_is_busy_are_counted(topic: TopicUnderTest, admin: KafkaAdminClient) -> None:
    class SlowHandler(RecordingHandler):
        def on_poll(self) -> Iterable[Commit]:
            if len(self.received) == 3:  # all that was there at the first poll
                topic.publish(*[True] * 20)
                admin.delete_records({TopicPartition(topic.topic, 0): 10})
            return []

    topic.publish(*[True] * 3)
    stop = threading.Event()
    handler = SlowHandler(stop, 16)
    consumer = create_consumer(topic.kafka, topic.group, "test")
    try:
        ConsumerLoop(
            consumer, [topic.topic], handler, topic.transactional_producer(), DeadLetterSettings(), Health()
        ).run(stop)
    finally:
        consumer.close(autocommit=False)
    assert [message.offset for message in handler.received] == [0, 1, 2, *range(10, 23)]
    assert handler.received[3].previous_end_offset == 10
    assert skipped(topic.topic) == 7


def test_added_partitions_reach_producer_and_consumer(topic: TopicUnderTest, admin: KafkaAdminClient) -> None:
    stop = threading.Event()
    handler = RecordingHandler(stop, 10**9)
    consumer = create_consumer(topic.kafka, topic.group, "test")
    loop = ConsumerLoop(
        consumer, [topic.topic], handler, topic.transactional_producer(), DeadLetterSettings(), Health()
    )
    published: dict[int, float] = {}
    with ThreadPoolExecutor(1) as executor:
        running = executor.submit(loop.run, stop)
        topic.publish(True)
        wait_until(lambda: handler.received or None, "the consumer reads")
        admin.create_partitions({topic.topic: 3})
        added_at = time.monotonic()
        read: dict[int, float] = {}

        def publish_and_look() -> bool | None:
            event = Outcome(prediction_id=str(time.monotonic_ns()), index=0, outcome=1.0)
            partition = topic.publisher.send(event).get(30).partition
            published.setdefault(partition, time.monotonic() - added_at)
            for message in list(handler.received):
                read.setdefault(message.partition, time.monotonic() - added_at)
            return read.keys() == {0, 1, 2} or None

        try:
            wait_until(publish_and_look, "all partitions are read", seconds=300)
        finally:
            stop.set()
        running.result()
        consumer.close(autocommit=False)
    print(f"published after {published}, read after {read}")
    assert max(published.values()) < NEW_PARTITION_SECONDS
    assert max(at - published[partition] for partition, at in read.items()) < NEW_PARTITION_SECONDS


def test_process_that_another_of_its_name_has_replaced_waits_for_its_end(topic: TopicUnderTest) -> None:
    def loop(health: Health) -> tuple[ConsumerLoop, RecordingHandler]:
        handler = RecordingHandler(threading.Event(), 10**9)
        consumer = create_consumer(topic.kafka, topic.group, "twin")
        producer = topic.transactional_producer()
        return ConsumerLoop(consumer, [topic.topic], handler, producer, DeadLetterSettings(), health), handler

    first_health = Health()
    first, first_handler = loop(first_health)
    with ThreadPoolExecutor(2) as executor:
        first_run = executor.submit(first.run, first_handler.stop)
        topic.publish(True)
        wait_until(lambda: first_handler.received or None, "the first one reads")
        second, second_handler = loop(Health())
        second_run = executor.submit(second.run, second_handler.stop)

        def is_replaced() -> bool | None:
            topic.publish(True)
            return "instance" in first_health.unavailable or None

        wait_until(is_replaced, "the first one waits", seconds=120)
        assert "DRIFTLOOP_INSTANCE_ID" in first_health.unavailable["instance"]
        before = len(second_handler.received)
        topic.publish(True)
        wait_until(lambda: len(second_handler.received) > before or None, "the second one reads", seconds=120)
        assert not first_run.done()
        second_handler.stop.set()
        second_run.result()
        second.close()
        with pytest.raises(InstanceReplaced):
            first_run.result(120)
    offsets = {message.offset for message in [*first_handler.received, *second_handler.received]}
    assert offsets == set(range(len(offsets)))
    wait_until(lambda: topic.committed() == len(offsets) or None, "all is committed")
