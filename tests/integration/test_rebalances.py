"""Rebalances after a change of a group's members or of a topic's partitions, on a real broker."""

import threading
import uuid
from collections.abc import Iterable, Iterator

import pytest
from kafka import ConsumerGroupMetadata, KafkaAdminClient, KafkaConsumer, TopicPartition

from driftloop.events import Outcome
from driftloop.kafka import consumer_loop, topics
from driftloop.kafka.client import create_consumer
from driftloop.kafka.consumed_message import ConsumedMessage
from driftloop.kafka.consumer_loop import ConsumerLoop
from driftloop.kafka.message_handler import Commit
from driftloop.kafka.publisher import Publisher
from driftloop.kafka.topics import dead_letter_topic
from driftloop.kafka.transactional_producer import CommittedPosition, Rebalanced, TransactionalProducer
from driftloop.settings import DeadLetterSettings, TopicsSettings
from driftloop.telemetry.health import Health
from stack.running import Stack
from tests.support.consumed_topic import RecordingHandler
from tests.support.waiting import wait_until
from tests.support.worker_group import SESSION_TIMEOUT_SECONDS


@pytest.fixture
def topic_names(stack: Stack) -> TopicsSettings:
    names = TopicsSettings(outcomes=f"outcomes-{uuid.uuid4().hex[:8]}")
    topics.create(stack.kafka, names)
    return names


@pytest.fixture
def members(stack: Stack, topic_names: TopicsSettings) -> Iterator[list[KafkaConsumer]]:
    """Return two consumers of a group; the first one has joined it."""
    kafka = stack.kafka.model_copy(update={"session_timeout_seconds": SESSION_TIMEOUT_SECONDS})
    members = [create_consumer(kafka, f"of-two-{topic_names.outcomes}", name) for name in ("first", "second")]
    members[0].subscribe([topic_names.outcomes])
    members[0].partitions_for_topic(topic_names.outcomes)
    wait_until(lambda: membership(members[:1], after_generation=-1), "the first member has joined")
    yield members
    for member in members:
        member.close(autocommit=False)


def membership(members: list[KafkaConsumer], after_generation: int) -> ConsumerGroupMetadata | None:
    """Return the first member's membership once all are of a later generation, else ``None``."""
    for member in members:
        member.poll(1_000)
    memberships = [member.group_metadata() for member in members]
    return memberships[0] if all(member.generation_id > after_generation for member in memberships) else None


def test_transactional_producer_drops_offsets_of_aborted_transaction(
    stack: Stack, topic_names: TopicsSettings, members: list[KafkaConsumer]
) -> None:
    dropped_partition, committed_partition = (
        TopicPartition(topic_names.outcomes, 0),
        TopicPartition(dead_letter_topic(topic_names.outcomes), 0),
    )
    producer = TransactionalProducer(stack.kafka, topic_names, "test", topic_names.outcomes)
    before = members[0].group_metadata()
    members[1].subscribe([topic_names.outcomes])
    current = wait_until(
        lambda: membership(members, after_generation=before.generation_id), "the second member has joined"
    )

    with pytest.raises(Rebalanced, match="IllegalGeneration"):
        producer.commit(before, {dropped_partition: CommittedPosition(5, "too late")}, [])
    producer.commit(current, {committed_partition: CommittedPosition(7, "in time")}, [])
    producer.close()

    assert members[1].committed(dropped_partition) is None
    assert members[1].committed(committed_partition, metadata=True)[:2] == (7, "in time")


def test_consumer_loop_reads_added_partitions_after_stalled_rebalance(
    stack: Stack, topic_names: TopicsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each poll returns before the rebalance is complete.
    monkeypatch.setattr(consumer_loop, "POLL_TIMEOUT_MS", 1)
    reader = create_consumer(
        stack.kafka, f"grows-{topic_names.outcomes}", "test", max_poll_interval_seconds=SESSION_TIMEOUT_SECONDS + 1
    )
    admin = KafkaAdminClient(bootstrap_servers=stack.kafka.bootstrap_servers)

    class GrowingHandler(RecordingHandler):
        grown = False

        def handle(self, message: ConsumedMessage) -> Iterable[Commit]:
            if message.partition == 1:
                self.stop.set()
            return super().handle(message)

        def on_poll(self) -> Iterable[Commit]:
            if reader.assignment() and not self.grown:
                self.grown = True
                admin.create_partitions({topic_names.outcomes: 2})
                reader.topics()  # refreshes the metadata, which otherwise happens every five minutes
                with Publisher(stack.kafka, topic_names, "test") as publisher:
                    publisher.publish(*(Outcome(prediction_id=f"{key}", index=0, outcome=1.0) for key in range(40)))
            return []

    handler = GrowingHandler(threading.Event(), message_count=40)
    watchdog = threading.Timer(120, handler.stop.set)
    watchdog.start()
    producer = TransactionalProducer(stack.kafka, topic_names, "test", f"grows-{topic_names.outcomes}")
    loop = ConsumerLoop(reader, [topic_names.outcomes], handler, producer, DeadLetterSettings(), Health())
    try:
        loop.run(handler.stop)
    finally:
        watchdog.cancel()
        loop.close()
        admin.close()
    assert 1 in {received.partition for received in handler.received}
