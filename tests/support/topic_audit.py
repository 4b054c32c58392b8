"""Audit of the predictions topic: read committed events only, as the drift worker does, and count them by id."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Set
from types import TracebackType
from typing import Any, Self

from kafka import KafkaConsumer, TopicPartition

from driftloop.events import Prediction
from driftloop.kafka.codec import decode
from driftloop.settings import KafkaSettings

SETTLE_SECONDS = 1  # longer than the pauses of a relay that has events to publish
TIMEOUT_SECONDS = 120


class TopicAudit:
    """Reads the topic from its beginning. A context manager that closes its consumer."""

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        """Create the consumer; :meth:`wait_for` and :meth:`events` read."""
        self.id_counts: Counter[str] = Counter()
        """How often each event id is on the topic."""
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
        """Return self."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the consumer."""
        self._consumer.close()

    def wait_for(self, events: int) -> float:
        """Wait until the topic has at least ``events`` events and grows no more; count them by id.

        Returns:
            The seconds from the call until the last event was on the topic. After two minutes the method returns
            whatever the topic has, so callers must not assume that all events have arrived.
        """
        return self._wait_until(lambda: self.id_counts.total() >= events)

    def wait_for_ids(self, ids: Set[str], missing: int = 0) -> float:
        """Wait until the topic has all but ``missing`` of these event ids and grows no more; count them by id.

        Returns:
            See :meth:`wait_for`.
        """
        return self._wait_until(lambda: len(ids - self.id_counts.keys()) <= missing)

    def _wait_until(self, complete: Callable[[], bool]) -> float:
        started = last_growth = time.monotonic()
        previous_end = -1
        while True:
            end = sum(self._consumer.end_offsets(self._partitions).values())
            now = time.monotonic()
            if end != previous_end:
                last_growth = now if previous_end >= 0 else started
                previous_end = end
            if now - last_growth > SETTLE_SECONDS:
                for record in self._read_to_end():
                    self.id_counts[dict(record.headers)["ce_id"].decode()] += 1
                if complete() or now - started > TIMEOUT_SECONDS:
                    return last_growth - started
            time.sleep(0.05)

    def events(self) -> Iterator[Prediction]:
        """Yield all events of the topic from its beginning."""
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
