"""A topic of a test, with a publisher and consumer loops whose handler records what it gets."""

import threading
import uuid
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord

from driftloop.events import Outcome
from driftloop.kafka import topics
from driftloop.kafka.client import create_consumer
from driftloop.kafka.consumed_message import ConsumedMessage
from driftloop.kafka.consumer_loop import ConsumerLoop
from driftloop.kafka.message_handler import Commit
from driftloop.kafka.publisher import Publisher
from driftloop.kafka.topics import dead_letter_topic
from driftloop.kafka.transactional_producer import CommittedPosition, TransactionalProducer
from driftloop.settings import DeadLetterSettings, KafkaSettings, TopicsSettings
from driftloop.telemetry.health import Health


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

    def __init__(self, kafka: KafkaSettings) -> None:
        self.kafka = kafka
        self.topic = f"outcomes-{uuid.uuid4().hex[:8]}"
        self.topics = TopicsSettings(outcomes=self.topic)
        topics.create(kafka, self.topics)
        self.publisher = Publisher(kafka, self.topics, "test")
        self.group = f"group-{self.topic}"

    def publish(self, *validity: bool) -> None:
        """Publish valid (``True``) and invalid (``False``) messages, in this order."""
        producer = KafkaProducer(bootstrap_servers=self.kafka.bootstrap_servers)
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
        watchdog = threading.Timer(300, stop.set)
        watchdog.start()
        source = create_consumer(self.kafka, self.group, "test")
        try:
            ConsumerLoop(source, [self.topic], handler, self.transactional_producer(), limits, Health()).run(stop)
        finally:
            watchdog.cancel()
            source.close(autocommit=False)
        assert len(handler.received) == message_count
        return handler

    def transactional_producer(self) -> TransactionalProducer:
        return TransactionalProducer(self.kafka, self.topics, "test", self.topic)

    def committed(self) -> int | None:
        """Return the group's committed offset."""
        reader = KafkaConsumer(bootstrap_servers=self.kafka.bootstrap_servers, group_id=self.group)
        try:
            offset = reader.committed(TopicPartition(self.topic, 0))
            return None if offset is None else int(offset)
        finally:
            reader.close()

    def dead_letters(self) -> list[ConsumerRecord]:
        """Return the dead letters of the topic."""
        return records(self.kafka, dead_letter_topic(self.topic))


def records(kafka: KafkaSettings, topic: str) -> list[ConsumerRecord]:
    """Return all committed messages of a topic with one partition."""
    partition = TopicPartition(topic, 0)
    reader = KafkaConsumer(bootstrap_servers=kafka.bootstrap_servers, isolation_level="read_committed")
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
