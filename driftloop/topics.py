"""The topics: made by command, never in passing; read here by people's commands, in a group by services."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition

from driftloop.consuming import dead_letter_topic
from driftloop.events import Event, Unreadable, read
from driftloop.settings import Kafka, Topics

DAY_MS = 24 * 3600 * 1000
COUNTED = 1_000  # events behind that are read to be counted


def create(kafka: Kafka, topics: Topics) -> list[str]:
    """Makes the topics, and one for each one's dead letters; returns those that were not there yet."""
    admin = KafkaAdminClient(**kafka.connection)
    try:
        there = set(admin.list_topics())
        wanted: dict[str, dict[str, Any]] = {}
        for name in topics.names():
            busy = name in (topics.predictions, topics.outcomes)
            retention = int(topics.retention_days * DAY_MS) if busy else -1  # what is decided is few, and is kept
            shape = {"replication_factor": topics.replication, "configs": {"retention.ms": str(retention)}}
            wanted[name] = {"num_partitions": topics.partitions if busy else 1, **shape}
            wanted[dead_letter_topic(name)] = {"num_partitions": 1, **shape}
        missing = {name: shape for name, shape in wanted.items() if name not in there}
        if missing:
            admin.create_topics(missing, wait_for_metadata=True)
        return list(missing)
    finally:
        admin.close()


def lag(kafka: Kafka, group: str, names: Collection[str]) -> dict[str, int]:
    """Events of the topics ``names`` that the group has not made final yet, by partition.

    Few are counted one by one; of many the offsets tell, and the marks of transactions among them count too.
    """
    admin = KafkaAdminClient(**kafka.connection)
    try:
        committed = admin.list_group_offsets({group: None}).get(group, {})
    finally:
        admin.close()
    with _reader(kafka) as consumer:
        partitions = [TopicPartition(name, n) for name in names for n in consumer.partitions_for_topic(name) or ()]
        begins, ends = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
        # A group that has committed nothing yet reads from the beginning.
        done = {p: committed[p].offset if p in committed else begins[p] for p in partitions}
        behind = {p: ends[p] - done[p] for p in partitions}
        few = [p for p in partitions if 0 < behind[p] <= COUNTED]
        consumer.assign(few)
        for partition in few:
            consumer.seek(partition, done[partition])
            behind[partition] = 0
        while any(consumer.position(p) < ends[p] for p in few):
            for partition, records in consumer.poll(timeout_ms=1_000).items():
                behind[partition] += sum(record.offset < ends[partition] for record in records)
    return {f"{p.topic}-{p.partition}": count for p, count in behind.items()}


def latest(kafka: Kafka, topic: str, count: int) -> list[Event]:
    """The last ``count`` readable events of a topic, the oldest first; all it has with a large count."""
    with _reader(kafka) as consumer:
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        consumer.assign(partitions)
        ends, begins = consumer.end_offsets(partitions), consumer.beginning_offsets(partitions)
        for partition in partitions:
            consumer.seek(partition, max(begins[partition], ends[partition] - count))
        events: list[Event] = []
        while any(consumer.position(partition) < ends[partition] for partition in partitions):
            events += _events(consumer, timeout_ms=1_000)
    return sorted(events, key=lambda event: event.time)[-count:]


@contextmanager
def following(kafka: Kafka, topic: str, last: int = 0) -> Iterator[Iterator[Event | None]]:
    """What comes to a topic from the moment on that the block is entered; ``None`` for each second without anything.

    What lies at the ``last`` offsets before that moment comes first.
    """
    with _reader(kafka) as consumer:
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        consumer.assign(partitions)
        begins = consumer.beginning_offsets(partitions)
        for partition, end in consumer.end_offsets(partitions).items():
            consumer.seek(partition, max(begins[partition], end - last))

        def come() -> Iterator[Event | None]:
            while True:
                events = _events(consumer, timeout_ms=1_000)
                yield from events or (None,)

        yield come()


def _events(consumer: KafkaConsumer, timeout_ms: int) -> list[Event]:
    events = []
    for records in consumer.poll(timeout_ms=timeout_ms).values():
        for record in records:
            try:
                events.append(read(record.value, record.headers))
            except Unreadable:
                continue  # the service that consumes the topic moves it to the dead letters
    return events


@contextmanager
def _reader(kafka: Kafka) -> Iterator[KafkaConsumer]:
    consumer = KafkaConsumer(
        **kafka.connection,
        enable_auto_commit=False,
        isolation_level="read_committed",
        allow_auto_create_topics=False,
    )
    try:
        yield consumer
    finally:
        consumer.close()
