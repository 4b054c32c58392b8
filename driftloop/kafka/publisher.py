"""Publish events outside of a transaction."""

from collections.abc import Iterable
from types import TracebackType
from typing import Self

from kafka.producer.future import FutureRecordMetadata

from driftloop.events import Event
from driftloop.kafka.client import close_producer, create_idempotent_producer, translate_errors
from driftloop.kafka.codec import encode
from driftloop.settings import KafkaSettings, TopicsSettings


class Publisher:
    """An idempotent producer of events: each acknowledged event is on its topic once, on all replicas.

    Safe to use from several threads. Sending and waiting raise :class:`~driftloop.errors.BrokerUnavailable` when the
    broker does not take an event in time. The event may be on its topic all the same: publish it again with the same
    id.
    """

    def __init__(self, kafka: KafkaSettings, topics: TopicsSettings, source: str) -> None:
        """Connect to the broker.

        Args:
            kafka: How to reach the broker.
            topics: The names of the topics.
            source: Who publishes, such as ``trainer``; becomes part of the CloudEvents source.

        Raises:
            BrokerUnavailable: No broker answers.
        """
        self._kafka = kafka
        self._topics = topics
        self._source = source
        self._producer = create_idempotent_producer(kafka, f"driftloop-{source}")

    def send(self, event: Event) -> FutureRecordMetadata:
        """Queue the event for sending. It is published once the returned future succeeds, not before."""
        topic = self._topics.name_of(event.topic)
        message = encode(event, self._source)
        with translate_errors(self._kafka):
            return self._producer.send(topic, key=message.key, value=message.value, headers=message.headers)

    def publish(self, *events: Event) -> None:
        """Publish events and wait until the broker has acknowledged all of them."""
        self.wait_for_acks([self.send(event) for event in events])

    def wait_for_acks(self, futures: Iterable[FutureRecordMetadata]) -> None:
        """Wait until the broker has acknowledged what :meth:`send` queued."""
        with translate_errors(self._kafka):
            for future in futures:
                future.get(timeout=self._kafka.request_timeout_seconds)

    def close(self) -> None:
        """Send the queued events, for as long as the request timeout allows, then disconnect."""
        close_producer(self._producer, self._kafka.request_timeout_seconds)

    def __enter__(self) -> Self:
        """Return the publisher itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the publisher."""
        self.close()
