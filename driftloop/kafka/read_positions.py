"""Where a consumer goes on reading, and what the broker has deleted before it was read."""

from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping, Sequence
from typing import NamedTuple

import structlog
from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord

from driftloop.kafka.metrics import FORGOTTEN_COMMITS, SKIPPED_OFFSETS
from driftloop.kafka.transactional_producer import CommittedPosition

log = structlog.get_logger(__name__)

FindHandled = Callable[[str, int], int | None]
"""Returns the offset behind everything of a topic's partition that has had its effect; ``None`` if nothing has."""


def nothing_handled(_topic: str, _partition: int) -> None:
    """Say of a service that does not know what it has handled: it begins at the beginning of the log."""


class ReadPosition(NamedTuple):
    """Where reading of a partition goes on."""

    partition: TopicPartition
    offset: int
    """The committed offset, or the beginning of the log if the broker has deleted what was there."""
    committed: CommittedPosition | None
    """What is committed, or was found to be handled; ``None`` if nothing is, or if the log ends before it."""
    is_forgotten: bool = False
    """Whether the broker had no committed offset, and the position was found in another way."""


class ReadPositions:
    """Seeks the partitions of a consumer, and reports offsets that it cannot read any more."""

    def __init__(
        self, consumer: KafkaConsumer, topics: Collection[str], find_handled: FindHandled = nothing_handled
    ) -> None:
        """Create it for the ``topics`` that the consumer reads; ``find_handled`` is asked if nothing is committed."""
        self._consumer = consumer
        self._find_handled = find_handled
        # Created now, because Prometheus computes no increase from a counter's first sample.
        self._counters = {topic: SKIPPED_OFFSETS.labels(topic) for topic in topics}
        self._forgotten_counters = {topic: FORGOTTEN_COMMITS.labels(topic) for topic in topics}
        self._reported: dict[TopicPartition, int] = {}

    def seek_to_committed(self, partitions: Collection[TopicPartition]) -> Iterator[ReadPosition]:
        """Seek each partition to where the group has got to, and yield that.

        Those of which something is committed come first, so that their lag is right even if the rest cannot be found.
        """
        beginnings, ends = self._consumer.beginning_offsets(partitions), self._consumer.end_offsets(partitions)
        commits = {partition: self._consumer.committed(partition, metadata=True) for partition in partitions}
        for partition in sorted(partitions, key=lambda each: commits[each] is None):
            committed = commits[partition]
            is_forgotten = committed is None
            if is_forgotten and (handled := self._find_handled(partition.topic, partition.partition)) is not None:
                committed = CommittedPosition(handled)
            beginning = beginnings[partition]
            if committed is None or committed.offset > ends[partition]:  # the topic was deleted and made again
                self._consumer.seek_to_beginning(partition)
                if committed is not None:
                    self._report(partition, committed.offset, beginning)
                yield ReadPosition(partition, beginning, None)
                continue
            offset = max(committed.offset, beginning)
            self._consumer.seek(partition, offset)
            if is_forgotten:
                self._report_forgotten(partition, offset)
            if offset > committed.offset:
                self._report(partition, committed.offset, offset)
            yield ReadPosition(partition, offset, CommittedPosition(committed.offset, committed.metadata), is_forgotten)

    def note_gaps(
        self,
        polled: Mapping[TopicPartition, Sequence[ConsumerRecord]],
        next_offsets: MutableMapping[TopicPartition, int],
    ) -> None:
        """Find out whether the broker has deleted messages between the last poll and this one.

        Offsets without a message are usual: each transaction has one. So the broker is only asked at longer gaps.

        Args:
            polled: The records of this poll.
            next_offsets: The offset after the last message by partition; becomes that of the first one that was not
                deleted.
        """
        for partition, records in polled.items():
            expected = next_offsets.get(partition, records[0].offset)
            if records[0].offset > expected + 1:
                beginning = self._consumer.beginning_offsets([partition])[partition]
                if beginning > expected:
                    next_offsets[partition] = min(beginning, records[0].offset)
                    self._report(partition, expected, next_offsets[partition])

    def _report_forgotten(self, partition: TopicPartition, offset: int) -> None:
        self._forgotten_counters[partition.topic].inc()
        log.warning(
            "consumer.commit_forgotten",
            topic=partition.topic,
            partition=partition.partition,
            position=offset,
            reason="the broker has no committed offset of the group, which was deleted or away for longer than the "
            "broker keeps offsets (offsets.retention.minutes): reading goes on behind what was handled before",
        )

    def _report(self, partition: TopicPartition, position: int, beginning: int) -> None:
        if self._reported.get(partition) == position:  # it is read again from there, before anything is committed
            return
        self._reported[partition] = position
        self._counters[partition.topic].inc(max(beginning - position, 0))
        log.error(
            "consumer.offsets_skipped",
            topic=partition.topic,
            partition=partition.partition,
            position=position,
            beginning=beginning,
            reason="the broker has deleted messages that were not read: was the service away for longer than "
            "DRIFTLOOP_TOPICS__RETENTION_DAYS?"
            if beginning > position
            else "the log ends before the committed offset: the topic was deleted and made again",
        )
