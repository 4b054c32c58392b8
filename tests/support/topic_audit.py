"""What arrives on the topic ``predictions``, read as the drift worker reads it: committed events only."""

import time
from collections import Counter
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from kafka import KafkaConsumer, TopicPartition

from driftloop.events import Prediction
from driftloop.kafka.codec import decode
from driftloop.settings import KafkaSettings

SETTLE_SECONDS = 1  # a relay that has something to do is not idle for this long
TIMEOUT_SECONDS = 120


class TopicAudit:
    """Follows the topic from its beginning. Use in a ``with`` statement."""

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        """Nothing is read before :meth:`settle`."""
        self.id_counts: Counter[str] = Counter()
        """How often each event was there."""
        self._consumer = KafkaConsumer(
            **kafka.client_config,
            enable_auto_commit=False,
            isolation_level="read_committed",
            allow_auto_create_topics=False,
            max_poll_records=5_000,
        )
        self._partitions = [TopicPartition(topic, n) for n in self._consumer.partitions_for_topic(topic) or ()]
        self._consumer.assign(self._partitions)
        self._consumer.seek_to_beginning(*self._partitions)

    def __enter__(self) -> Self:
        """Nothing more is done."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the broker."""
        self._consumer.close()

    def wait_for(self, answers: int) -> float:
        """Waits until at least so many events are there, and no more come; reads them.

        Returns after how many seconds the last one was there, from the call on; gives up after two minutes, so the
        caller may not assume that all have come.
        """
        began = changed = time.monotonic()
        end = -1
        while True:
            now_there = sum(self._consumer.end_offsets(self._partitions).values())
            now = time.monotonic()
            if now_there != end:
                changed = now if end >= 0 else began
                end = now_there
            if now - changed > SETTLE_SECONDS:
                for record in self._read_to_end():
                    self.id_counts[dict(record.headers)["ce_id"].decode()] += 1
                if sum(self.id_counts.values()) >= answers or now - began > TIMEOUT_SECONDS:
                    return changed - began
            time.sleep(0.05)

    def events(self) -> Iterator[Prediction]:
        """All events of the topic, from its beginning."""
        self._consumer.seek_to_beginning(*self._partitions)
        for record in self._read_to_end():
            event = decode(record.value, record.headers)
            assert isinstance(event, Prediction)
            yield event

    def _read_to_end(self) -> Iterator[Any]:
        ends = self._consumer.end_offsets(self._partitions)
        while any(self._consumer.position(partition) < ends[partition] for partition in self._partitions):
            for records in self._consumer.poll(timeout_ms=500).values():
                yield from records
