"""The topics: made by command, never in passing; read here by people's commands, in a group by services."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import NamedTuple

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition

from driftloop.events import Event, Window
from driftloop.kafka.codec import Unreadable, read
from driftloop.settings import Kafka, Topics

DAY_MS = 24 * 3600 * 1000
COUNTED = 1_000  # events behind that are read to be counted


def dead_letter_topic(topic: str) -> str:
    """Where a topic's unreadable messages go."""
    return f"{topic}.dlq"


class Shape(NamedTuple):
    """What a topic is made with."""

    partitions: int
    replication: int
    configs: dict[str, str]


def shapes(topics: Topics) -> dict[str, Shape]:
    """Every topic, and one for each one's dead letters."""
    wanted = {}
    for name in topics.names():
        busy = name in (topics.predictions, topics.outcomes)
        retention = int(topics.retention_days * DAY_MS) if busy else -1  # what is decided is few, and is kept
        configs = {"retention.ms": str(retention)}
        wanted[name] = Shape(topics.partitions if busy else 1, topics.replication, configs)
        wanted[dead_letter_topic(name)] = Shape(1, topics.replication, configs)
    return wanted


def create(kafka: Kafka, topics: Topics) -> list[str]:
    """Makes the topics; returns those that were not there yet."""
    admin = KafkaAdminClient(**kafka.connection)
    try:
        there = set(admin.list_topics())
        missing = {
            name: {
                "num_partitions": shape.partitions,
                "replication_factor": shape.replication,
                "configs": shape.configs,
            }
            for name, shape in shapes(topics).items()
            if name not in there
        }
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
    """The last ``count`` readable events of a topic, the oldest first; all it has with a large count.

    Those of one partition are in its order, those of several in the order of their times.
    """
    with _reader(kafka) as consumer:
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        ends, begins = consumer.end_offsets(partitions), consumer.beginning_offsets(partitions)
        events = list(_between(consumer, {p: max(begins[p], ends[p] - count) for p in partitions}, ends))
    if len(partitions) > 1:
        events.sort(key=lambda event: event.time)
    return events[-count:]


def since(kafka: Kafka, topic: str, at: datetime, behind: Mapping[int, int] = {}) -> Iterator[Event]:
    """What has come to a topic since a time of the broker's clock, up to now, in the order of each partition.

    Of a partition that ``behind`` names, only what lies behind that offset. It is read as it is asked for: who has
    found what he looks for reads no further.
    """
    with _reader(kafka) as consumer:
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        ends = consumer.end_offsets(partitions)
        firsts = consumer.offsets_for_times(dict.fromkeys(partitions, int(at.timestamp() * 1000)))
        found = {p: first.offset for p, first in firsts.items() if first is not None}
        starts = {p: max(offset, behind.get(p.partition, -1) + 1) for p, offset in found.items()}
        yield from _between(consumer, starts, ends)


def within(kafka: Kafka, window: Window) -> Iterator[Event]:
    """The events that a window is of, as far as its topic still holds them."""
    at = TopicPartition(window.topic, window.partition)
    with _reader(kafka) as consumer:
        first = max(consumer.beginning_offsets([at])[at], window.first_offset)
        yield from _between(consumer, {at: first}, {at: window.last_offset + 1})


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


def _between(
    consumer: KafkaConsumer, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
) -> Iterator[Event]:
    consumer.assign(list(starts))
    for partition, offset in starts.items():
        consumer.seek(partition, offset)
    while any(consumer.position(partition) < ends[partition] for partition in starts):
        yield from _events(consumer, timeout_ms=1_000)


def _events(consumer: KafkaConsumer, timeout_ms: int) -> list[Event]:
    events = []
    for records in consumer.poll(timeout_ms=timeout_ms).values():
        for record in records:
            try:
                events.append(read(record.value, record.headers, record.timestamp))
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
