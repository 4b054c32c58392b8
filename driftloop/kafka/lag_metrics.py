"""How far a consumer is behind what was published, by partition, as metrics. Nothing of it asks the broker."""

import time
from collections.abc import Collection, Mapping, Sequence

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from prometheus_client import Gauge

EVENTS = Gauge(
    "driftloop_consumer_lag_events",
    "Offsets of the topic that were not handled yet; transactions have one of their own beside their events.",
    ["topic", "partition"],
)
BEHIND = Gauge(
    "driftloop_consumer_behind_seconds",
    "How long ago the last handled event was published; 0 while nothing is left to be handled.",
    ["topic", "partition"],
)


class Lag:
    """Told by the consume loop what it polls, has handled and has lost. Used by one thread."""

    def __init__(self, consumer: KafkaConsumer) -> None:
        """Nothing is handled yet."""
        self._consumer = consumer
        self._reached: dict[TopicPartition, float] = {}

    def polled(self, polled: Mapping[TopicPartition, Sequence[ConsumerRecord]]) -> None:
        """These are about to be handled. Where nothing was before, the first of them is where the time counts from."""
        for partition, records in polled.items():
            self._reached.setdefault(partition, records[0].timestamp / 1000)

    def handled(self, polled: Mapping[TopicPartition, Sequence[ConsumerRecord]]) -> None:
        """All of these are."""
        for partition, records in polled.items():
            self._reached[partition] = records[-1].timestamp / 1000

    def measure(self) -> None:
        """Sets the metrics, by what the consumer last heard of the ends of its partitions."""
        for partition in self._consumer.assignment():
            end = self._consumer.highwater(partition)
            at = self._consumer.position(partition, timeout_ms=0) if end is not None else None
            if end is None or at is None:  # nothing was fetched yet
                continue
            left = max(end - at, 0)
            labels = (partition.topic, str(partition.partition))
            EVENTS.labels(*labels).set(left)
            if not left:
                BEHIND.labels(*labels).set(0)
            elif partition in self._reached:
                BEHIND.labels(*labels).set(max(time.time() - self._reached[partition], 0))

    def lost(self, partitions: Collection[TopicPartition]) -> None:
        """They are somebody else's, whose metrics tell of them from now on."""
        for partition in partitions:
            self._reached.pop(partition, None)
            for gauge in (EVENTS, BEHIND):
                gauge.remove(partition.topic, str(partition.partition))
