"""The consumer's lag by partition, as metrics, from what the client knows anyway: the broker is not asked."""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord

from driftloop.kafka.metrics import LAG_EVENTS, LAG_SECONDS


class _Position(NamedTuple):
    offset: int
    timestamp: float
    """Of the message there, in seconds since 1970."""


class LagMetrics:
    """The lag of one consumer's partitions, which the consume loop keeps up to date from its thread.

    An event that a handler holds for a later commit is no lag. Once handling has failed it is, until the next commit:
    all events since the last one are going to be delivered again.
    """

    def __init__(self, consumer: KafkaConsumer) -> None:
        """Create the metrics of ``consumer``; they have no samples before its first poll."""
        self._consumer = consumer
        self._last_timestamps: dict[TopicPartition, float] = {}
        self._polled: Mapping[TopicPartition, Sequence[ConsumerRecord]] = {}
        self._first_uncommitted: dict[TopicPartition, _Position] = {}
        self._failed: set[TopicPartition] = set()
        self._revoked: set[TopicPartition] = set()  # kafka-python has them in its assignment until the group has joined

    @contextmanager
    def handling(self, polled: Mapping[TopicPartition, Sequence[ConsumerRecord]]) -> Iterator[None]:
        """Handle the records of a poll in the block, which can be none; an exception says that this has failed."""
        self._polled = polled
        for partition, records in polled.items():
            first = _Position(records[0].offset, records[0].timestamp / 1000)
            self._last_timestamps.setdefault(partition, first.timestamp)  # time counts from a partition's first record
            self._first_uncommitted.setdefault(partition, first)
        try:
            yield
        except Exception:
            self._failed.update(self._first_uncommitted)
            self.update()  # now: reading the events again may have to wait for the same component
            raise
        for partition, records in polled.items():
            self._last_timestamps[partition] = records[-1].timestamp / 1000

    def on_committed(self, partition: TopicPartition, offset: int) -> None:
        """Note that everything before an offset is committed."""
        first = self._first_uncommitted.get(partition)
        if first is None or first.offset >= offset:
            return
        self._failed.discard(partition)
        records = self._polled.get(partition, ())
        following = next((record for record in records if record.offset >= offset), None)
        if following is None:
            del self._first_uncommitted[partition]
        else:
            self._first_uncommitted[partition] = _Position(following.offset, following.timestamp / 1000)

    def on_rewound(self, partition: TopicPartition, offset: int) -> None:
        """Note that a partition is read again from an offset, before which everything is committed."""
        self._polled = {}
        self._revoked.discard(partition)
        self.on_committed(partition, offset)

    def update(self) -> None:
        """Set the metrics from the end offsets that the last fetches returned.

        After a failure the first event that is not committed counts, though the consumer's position is behind it.
        """
        for partition in self._consumer.assignment() - self._revoked:
            end = self._consumer.highwater(partition)
            position = self._consumer.position(partition, timeout_ms=0) if end is not None else None
            if partition in self._failed:
                first = self._first_uncommitted[partition]
                position, end = first.offset, max(end or 0, first.offset + 1)
                self._last_timestamps[partition] = first.timestamp
            if end is None or position is None:  # nothing was fetched yet
                continue
            lag = max(end - position, 0)
            labels = (partition.topic, str(partition.partition))
            LAG_EVENTS.labels(*labels).set(lag)
            if not lag:
                LAG_SECONDS.labels(*labels).set(0)
            elif partition in self._last_timestamps:
                LAG_SECONDS.labels(*labels).set(max(time.time() - self._last_timestamps[partition], 0))

    def on_revoked(self, partitions: Collection[TopicPartition]) -> None:
        """Remove the samples of revoked partitions: their next owner reports them."""
        self._revoked.update(partitions)
        for partition in partitions:
            self._last_timestamps.pop(partition, None)
            self._first_uncommitted.pop(partition, None)
            self._failed.discard(partition)
            for gauge in (LAG_EVENTS, LAG_SECONDS):
                gauge.remove(partition.topic, str(partition.partition))
