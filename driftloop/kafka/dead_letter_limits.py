"""How many invalid messages a consumer may meet before its reader must be wrong, not the messages."""

from collections import deque
from collections.abc import Collection

from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord

from driftloop.errors import DriftloopError
from driftloop.kafka.codec import InvalidMessage
from driftloop.settings import DeadLetterSettings


class DeadLetterLimitExceeded(DriftloopError):
    """So many messages are invalid that the reader must be wrong. The service must stop: do not catch this."""


class DeadLetterLimits:
    """Counts valid and invalid messages, each once, however often it is delivered while the handler waits."""

    def __init__(self, limits: DeadLetterSettings) -> None:
        """Start without a message."""
        self._limits = limits
        self._consecutive_invalid = 0
        self._recent_validity: deque[bool] = deque(maxlen=limits.ratio_window)  # True for an invalid message
        self._last_counted: dict[TopicPartition, int] = {}  # the last offset in it

    def count_valid(self, record: ConsumerRecord) -> None:
        """Count a valid message, which ends a run of invalid ones."""
        self._consecutive_invalid = 0
        self._count(record, is_invalid=False)

    def count_invalid(self, record: ConsumerRecord, error: InvalidMessage) -> None:
        """Count an invalid message.

        Raises:
            DeadLetterLimitExceeded: Too many are invalid, one after another or of the latest messages.
        """
        self._consecutive_invalid += 1
        self._count(record, is_invalid=True)
        limits, invalid = self._limits, sum(self._recent_validity)
        if self._consecutive_invalid <= limits.max_consecutive and invalid / limits.ratio_window <= limits.max_ratio:
            return
        raise DeadLetterLimitExceeded(
            f"{self._consecutive_invalid} consecutive messages and {invalid} of the last {limits.ratio_window} are "
            f"invalid, the latest at {record.topic}[{record.partition}]@{record.offset}: {error}. The service stops "
            f"instead of moving a whole topic to the dead letters: fix the reader or the writer, or raise "
            f"DRIFTLOOP_DEAD_LETTERS__MAX_CONSECUTIVE ({limits.max_consecutive}) or "
            f"DRIFTLOOP_DEAD_LETTERS__MAX_RATIO ({limits.max_ratio:g})."
        ) from error

    def on_rewound(self, pending: int) -> None:
        """Note how many messages of the run are still pending; the others are delivered again."""
        self._consecutive_invalid = pending

    def on_revoked(self, partitions: Collection[TopicPartition]) -> None:
        """Forget which messages of partitions were counted."""
        for partition in partitions:
            self._last_counted.pop(partition, None)

    def _count(self, record: ConsumerRecord, *, is_invalid: bool) -> None:
        partition = TopicPartition(record.topic, record.partition)
        if record.offset > self._last_counted.get(partition, -1):
            self._last_counted[partition] = record.offset
            self._recent_validity.append(is_invalid)
