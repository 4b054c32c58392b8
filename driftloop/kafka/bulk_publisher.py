"""Publish many small events of one type fast: from prepared texts, without a model or an envelope for each.

An event's model checks its fields, and CloudEvents' library builds its headers; together they take ten times as long as
the producer. Here whoever prepares the texts has checked them, column by column.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import NamedTuple, Self

from kafka.producer.future import FutureRecordMetadata

from driftloop.events import Event
from driftloop.kafka.client import close_producer, create_idempotent_producer, translate_errors
from driftloop.kafka.codec import SerializedEvent, to_message
from driftloop.settings import KafkaSettings, TopicsSettings

LINGER_MS = 20
BATCH_BYTES = 500_000
CHUNK_EVENTS = 20_000  # that may be under way besides those that are being sent


class PreparedEvent(NamedTuple):
    """What differs between the messages of one type of event."""

    key: str
    id: str
    time: str
    """In ISO 8601 with a time zone, as in the value."""
    value: str
    """The event as JSON, with its id and time."""


class BulkPublisher:
    """An idempotent producer of the events of one type: each is acknowledged by all replicas, and on its topic once.

    Events with the same key stay in order. Use it from one thread.
    """

    def __init__(self, kafka: KafkaSettings, topics: TopicsSettings, event: type[Event], source: str) -> None:
        """Connect to the broker.

        Args:
            kafka: How to reach the broker.
            topics: The names of the topics.
            event: The type of all events.
            source: Who publishes; becomes part of the CloudEvents source.

        Raises:
            BrokerUnavailable: No broker answers.
        """
        self._kafka = kafka
        self._topic = topics.name_of(event.topic)
        self._shared_headers = shared_headers(event, source)
        with translate_errors(kafka):
            self._producer = create_idempotent_producer(
                kafka, f"driftloop-{source}", linger_ms=LINGER_MS, batch_size=BATCH_BYTES
            )
            partitions = self._producer.partitions_for(self._topic)
        # The hash of a key costs as much as the rest of a message, and with one partition it decides nothing.
        self._only_partition = 0 if partitions == {0} else None

    def publish(self, events: Iterable[PreparedEvent]) -> Iterator[int]:
        """Publish events; yield how many were acknowledged, again and again, and all of them in the end.

        Raises:
            BrokerUnavailable: The broker does not take the events in time. Those that were yielded are on the topic,
                and some of the others.
        """
        waiting: list[FutureRecordMetadata] = []
        sent: list[FutureRecordMetadata] = []
        acknowledged = 0
        with translate_errors(self._kafka):
            for key, event_id, time, value in events:
                headers = [*self._shared_headers, ("ce_id", event_id.encode()), ("ce_time", time.encode())]
                sent.append(
                    self._producer.send(
                        self._topic,
                        key=key.encode(),
                        value=value.encode(),
                        headers=headers,
                        partition=self._only_partition,
                    )
                )
                if len(sent) == CHUNK_EVENTS:
                    acknowledged += self._wait(waiting)
                    waiting, sent = sent, []
                    yield acknowledged
            acknowledged += self._wait(waiting) + self._wait(sent)
        yield acknowledged

    def _wait(self, futures: list[FutureRecordMetadata]) -> int:
        for future in futures:
            future.get(timeout=self._kafka.request_timeout_seconds)
        return len(futures)

    def __enter__(self) -> Self:
        """Return the publisher itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect. After an error nothing is waited for."""
        close_producer(self._producer, 0 if error else self._kafka.request_timeout_seconds)


def shared_headers(event: type[Event], source: str) -> list[tuple[str, bytes]]:
    """Return the headers that all events of a type have from a source: those of the codec without id and time."""
    message = to_message(SerializedEvent(event.type, "id", datetime.now(UTC).isoformat(), "", b""), source)
    return [header for header in message.headers if header[0] not in ("ce_id", "ce_time")]
