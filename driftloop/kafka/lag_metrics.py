"""The consumer's lag by partition, as metrics, from what the client knows anyway: the broker is not asked."""

import time
from collections.abc import Collection, Mapping, Sequence

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord

from driftloop.kafka.metrics import LAG_EVENTS, LAG_SECONDS


class LagMetrics:
    """The lag of one consumer's partitions, which the consume loop keeps up to date from its thread."""

    def __init__(self, consumer: KafkaConsumer) -> None:
        """Create the metrics of ``consumer``; they have no samples before its first poll."""
        self._consumer = consumer
        self._last_timestamps: dict[TopicPartition, float] = {}
        self._first_unhandled: dict[TopicPartition, ConsumerRecord] = {}

    def on_polled(self, polled: Mapping[TopicPartition, Sequence[ConsumerRecord]]) -> None:
        """Note the records that are about to be handled: time counts from a partition's first record."""
        for partition, records in polled.items():
            self._last_timestamps.setdefault(partition, records[0].timestamp / 1000)
            self._first_unhandled.setdefault(partition, records[0])

    def on_handled(self, polled: Mapping[TopicPartition, Sequence[ConsumerRecord]]) -> None:
        """Note that all records of a poll are handled."""
        for partition, records in polled.items():
            self._last_timestamps[partition] = records[-1].timestamp / 1000
            self._first_unhandled.pop(partition, None)

    def on_rewound(self, partition: TopicPartition, offset: int) -> None:
        """Note that a partition is read again from an offset, before which everything is committed."""
        first = self._first_unhandled.get(partition)
        if first is not None and first.offset < offset:
            del self._first_unhandled[partition]

    def update(self) -> None:
        """Set the metrics from the end offsets that the last fetches returned.

        What was polled and could not be handled counts, though the consumer's position is behind it.
        """
        for partition in self._consumer.assignment():
            end = self._consumer.highwater(partition)
            position = self._consumer.position(partition, timeout_ms=0) if end is not None else None
            if (unhandled := self._first_unhandled.get(partition)) is not None:
                position, end = unhandled.offset, max(end or 0, unhandled.offset + 1)
                self._last_timestamps[partition] = unhandled.timestamp / 1000
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
        for partition in partitions:
            self._last_timestamps.pop(partition, None)
            self._first_unhandled.pop(partition, None)
            for gauge in (LAG_EVENTS, LAG_SECONDS):
                gauge.remove(partition.topic, str(partition.partition))
