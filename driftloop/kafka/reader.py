"""Reading topics outside of a consumer group: for commands, pages and state that is rebuilt at start.

Messages that are no valid events are skipped: the service that consumes the topic moves them to the dead letters. All
functions raise :class:`driftloop.errors.BrokerUnavailable` when the broker does not answer.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import NamedTuple

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import GroupAuthorizationFailedError

from driftloop.events import Event, Window
from driftloop.kafka.client import admin_client, create_reader, translate_errors
from driftloop.kafka.codec import InvalidMessage, decode_record
from driftloop.kafka.transactional_producer import CommittedPosition
from driftloop.settings import KafkaSettings

POLL_TIMEOUT_MS = 1_000

EventLeft = Callable[[ConsumerRecord, Event], Event | None]
"""Returns what is left of a message's event; ``None`` if it is erased."""


class GroupPosition(NamedTuple):
    """How far a consumer group is on a partition."""

    committed: int
    """The offset after the last one that is committed."""
    lag: int
    """Offsets that are not committed yet."""


def read_last(kafka: KafkaSettings, topic: str, count: int) -> list[Event]:
    """Return the last ``count`` events of a topic, the oldest first, or all if it has fewer.

    Events of one partition are in its order, events of several partitions in the order of their times.
    """
    with _reader(kafka) as consumer:
        partitions = _partitions(consumer, topic)
        ends, beginnings = consumer.end_offsets(partitions), consumer.beginning_offsets(partitions)
        starts = {p: max(beginnings[p], ends[p] - count) for p in partitions}
        events = list(_read_between(consumer, starts, ends))
    if len(partitions) > 1:
        events.sort(key=lambda event: event.time)
    return events[-count:]


def read_since(
    kafka: KafkaSettings,
    topic: str,
    start: datetime,
    after_offsets: Mapping[int, int] = {},
    event_left: EventLeft | None = None,
) -> Iterator[Event]:
    """Yield the events that a topic has received since a time, in the order of each partition.

    Events are fetched while the iterator is consumed: stop early to read less.

    Args:
        kafka: How to reach the broker.
        topic: The topic.
        start: The earliest time by the broker's clock.
        after_offsets: By partition, the offset after which to start if that is later than ``start``.
        event_left: Leaves out what is erased; by default everything is there.
    """
    with _reader(kafka) as consumer:
        partitions = _partitions(consumer, topic)
        ends = consumer.end_offsets(partitions)
        first_offsets = consumer.offsets_for_times(dict.fromkeys(partitions, int(start.timestamp() * 1000)))
        starts = {
            partition: max(first.offset, after_offsets.get(partition.partition, -1) + 1)
            for partition, first in first_offsets.items()
            if first is not None
        }
        yield from _read_between(consumer, starts, ends, event_left)


def read_window(kafka: KafkaSettings, window: Window, event_left: EventLeft | None = None) -> Iterator[Event]:
    """Yield the events of a window that its topic still holds, without what ``event_left`` says is erased."""
    partition = TopicPartition(window.topic, window.partition)
    with _reader(kafka) as consumer:
        start = max(consumer.beginning_offsets([partition])[partition], window.first_offset)
        end = min(consumer.end_offsets([partition])[partition], window.last_offset + 1)
        yield from _read_between(consumer, {partition: start}, {partition: end}, event_left)


class TopicBounds(NamedTuple):
    """The offsets of what a partition has now."""

    first: int
    end: int
    """After the last one."""


def topic_bounds(kafka: KafkaSettings, topic: str) -> dict[int, TopicBounds]:
    """Return the offsets of what a topic has now, by partition; nothing if there is no such topic."""
    with _reader(kafka) as consumer:
        partitions = _partitions(consumer, topic)
        firsts, ends = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
    return {each.partition: TopicBounds(firsts[each], ends[each]) for each in partitions}


def first_offsets_since(kafka: KafkaSettings, topic: str, since: datetime) -> dict[int, int]:
    """Return the first offset of each partition with a message since a time; none of partitions without one."""
    with _reader(kafka) as consumer:
        partitions = _partitions(consumer, topic)
        found = consumer.offsets_for_times(dict.fromkeys(partitions, int(since.timestamp() * 1000)))
    return {each.partition: first.offset for each, first in found.items() if first is not None}


def read_records(kafka: KafkaSettings, topic: str, starts: Mapping[int, int]) -> Iterator[list[ConsumerRecord]]:
    """Yield the messages that a topic has now, valid events or not, in batches, the empty ones as well.

    Args:
        kafka: How to reach the broker.
        topic: The topic.
        starts: The first offset to read of each partition; partitions that are not named are left out.
    """
    with _reader(kafka) as consumer:
        wanted = [each for each in _partitions(consumer, topic) if each.partition in starts]
        firsts, ends = consumer.beginning_offsets(wanted), consumer.end_offsets(wanted)
        consumer.assign(wanted)
        for partition in wanted:
            consumer.seek(partition, max(starts[partition.partition], firsts[partition]))
        while any(consumer.position(partition) < ends[partition] for partition in wanted):
            for partition, records in consumer.poll(timeout_ms=POLL_TIMEOUT_MS).items():
                yield [record for record in records if record.offset < ends[partition]]


@contextmanager
def tail(kafka: KafkaSettings, topic: str, last: int = 0) -> Iterator[Iterator[Event | None]]:
    """Provide an endless iterator over the events that arrive from the moment the block is entered.

    It yields ``None`` for each second without an event, so that the caller can check whether to stop.

    Args:
        kafka: How to reach the broker.
        topic: The topic.
        last: How many offsets before that moment to start from, in each partition.
    """
    with _reader(kafka) as consumer:
        partitions = _partitions(consumer, topic)
        consumer.assign(partitions)
        beginnings = consumer.beginning_offsets(partitions)
        for partition, end in consumer.end_offsets(partitions).items():
            consumer.seek(partition, max(beginnings[partition], end - last))

        def stream() -> Iterator[Event | None]:
            while True:
                with translate_errors(kafka):
                    events = _poll(consumer)
                yield from events or (None,)

        yield stream()


def consumer_lag(kafka: KafkaSettings, group: str, topics: Collection[str]) -> dict[str, int]:
    """Return how many offsets a group has not committed yet, by ``topic-partition``.

    Like every Kafka tool this counts offsets, not events: a transaction's end marker takes an offset of its own, so a
    partition that is written in transactions shows a lag of 1 when all of its events are handled. Use
    :func:`is_caught_up` to find out whether events are left.
    """
    return {name: position.lag for name, position in group_positions(kafka, group, topics).items()}


def group_positions(kafka: KafkaSettings, group: str, topics: Collection[str]) -> dict[str, GroupPosition]:
    """Return how far a group has committed each partition, by ``topic-partition``; see :func:`consumer_lag`."""
    with _reader(kafka) as consumer:
        positions, ends = _committed_positions(kafka, consumer, group, topics)
    return {
        f"{p.topic}-{p.partition}": GroupPosition(position, max(ends[p] - position, 0))
        for p, position in positions.items()
    }


def committed_positions(
    kafka: KafkaSettings, group: str, topics: Collection[str]
) -> dict[tuple[str, int], CommittedPosition]:
    """Return what a group has committed, with its metadata, by topic and partition that have a commit."""
    with admin_client(kafka) as admin:
        committed = admin.list_group_offsets({group: None}).get(group, {})
    return {
        (partition.topic, partition.partition): CommittedPosition(position.offset, position.metadata or "")
        for partition, position in committed.items()
        if partition.topic in topics and position.offset >= 0
    }


def has_members(kafka: KafkaSettings, group: str) -> bool | None:
    """Return whether a process is a member of a consumer group; ``None`` if the broker does not let us know.

    Members are static: a process that has ended counts until its session has timed out.
    """
    with admin_client(kafka) as admin:
        try:
            description = admin.describe_groups([group])[group]
        except GroupAuthorizationFailedError:
            return None
    if "GroupAuthorizationFailed" in (description["error"] or ""):
        return None
    return bool(description["members"])


def is_caught_up(kafka: KafkaSettings, group: str, topics: Collection[str]) -> bool:
    """Return whether a group has committed past the last message of each partition of the topics.

    At most one batch is read: offsets that hold no message, such as a transaction's end marker, do not count.
    """
    with _reader(kafka) as consumer:
        positions, ends = _committed_positions(kafka, consumer, group, topics)
        behind = {p: position for p, position in positions.items() if position < ends[p]}
        consumer.assign(list(behind))
        for partition, position in behind.items():
            consumer.seek(partition, position)
        while any(consumer.position(partition) < ends[partition] for partition in behind):
            for partition, records in consumer.poll(timeout_ms=POLL_TIMEOUT_MS).items():
                if any(record.offset < ends[partition] for record in records):
                    return False
    return True


def _committed_positions(
    kafka: KafkaSettings, consumer: KafkaConsumer, group: str, topics: Iterable[str]
) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
    """Return a group's committed offset and the end offset of each partition of the topics."""
    with admin_client(kafka) as admin:
        committed = admin.list_group_offsets({group: None}).get(group, {})
    partitions = [partition for topic in topics for partition in _partitions(consumer, topic)]
    beginnings, ends = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
    # A group without a commit reads from the beginning.
    return {p: committed[p].offset if p in committed else beginnings[p] for p in partitions}, ends


def _partitions(consumer: KafkaConsumer, topic: str) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]


def _read_between(
    consumer: KafkaConsumer,
    starts: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
    event_left: EventLeft | None = None,
) -> Iterator[Event]:
    consumer.assign(list(starts))
    for partition, offset in starts.items():
        consumer.seek(partition, offset)
    while any(consumer.position(partition) < ends[partition] for partition in starts):
        yield from _poll(consumer, ends, event_left)


def _poll(
    consumer: KafkaConsumer, ends: Mapping[TopicPartition, int] | None = None, event_left: EventLeft | None = None
) -> list[Event]:
    """Return the valid events of one poll, without those at or after the ``ends`` of their partitions."""
    events: list[Event] = []
    for partition, records in consumer.poll(timeout_ms=POLL_TIMEOUT_MS).items():
        for record in records:
            if ends is not None and record.offset >= ends[partition]:
                break
            try:
                event = decode_record(record)
            except InvalidMessage:
                continue
            left = event if event_left is None else event_left(record, event)
            if left is not None:
                events.append(left)
    return events


@contextmanager
def _reader(kafka: KafkaSettings) -> Iterator[KafkaConsumer]:
    with translate_errors(kafka):
        consumer = create_reader(kafka)
        try:
            yield consumer
        finally:
            consumer.close()
