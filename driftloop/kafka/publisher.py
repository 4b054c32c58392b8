"""Publishing events."""

from types import TracebackType
from typing import Self

from kafka import KafkaProducer
from kafka.errors import KafkaError
from kafka.producer.future import FutureRecordMetadata

from driftloop.events import Event
from driftloop.kafka.codec import Message, write
from driftloop.settings import Kafka, Topics


class Unavailable(Exception):
    """The broker did not take the event in time; it may have, so the same id may be sent again."""


class Publisher:
    """An idempotent producer: an event that was taken is on its topic once, on all replicas.

    Safe to use from several threads.
    """

    def __init__(self, kafka: Kafka, topics: Topics, source: str) -> None:
        """Connects at once; ``source`` is the service that events come from. Raises :class:`Unavailable`."""
        self._topics = topics
        self._source = source
        self._timeout = kafka.timeout_seconds
        try:
            self._producer = KafkaProducer(
                **kafka.connection,
                client_id=f"driftloop-{source}",
                acks="all",
                enable_idempotence=True,
                request_timeout_ms=int(self._timeout * 500),  # two tries fit into the time for delivery
                delivery_timeout_ms=int(self._timeout * 1000),
                max_block_ms=int(self._timeout * 1000),
                allow_auto_create_topics=False,
            )
        except KafkaError as error:
            raise Unavailable(
                f"no broker answers at {kafka.bootstrap_servers} (DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS): {error}"
            ) from error

    def send(self, event: Event) -> FutureRecordMetadata:
        """Hands the event to the sender. Returning does not mean that it is published: the future does."""
        message = write(event, self._source)
        return self.send_raw(getattr(self._topics, event.topic), message)

    def send_raw(self, topic: str, message: Message) -> FutureRecordMetadata:
        """The same for a message that is no event, such as a dead letter."""
        try:
            return self._producer.send(topic, key=message.key, value=message.value, headers=message.headers)
        except KafkaError as error:
            raise Unavailable(f"{topic}: {error}") from error

    def publish(self, *events: Event) -> None:
        """Returns when the broker has all of them; raises :class:`Unavailable` otherwise."""
        self.wait([self.send(event) for event in events])

    def wait(self, futures: list[FutureRecordMetadata]) -> None:
        """Returns when the broker has what was sent; raises :class:`Unavailable` otherwise."""
        try:
            for future in futures:
                future.get(timeout=self._timeout)
        except KafkaError as error:
            raise Unavailable(str(error)) from error

    def close(self) -> None:
        """Sends what is under way, then closes."""
        self._producer.close(timeout=self._timeout)

    def __enter__(self) -> Self:
        """For use in a ``with`` statement."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes."""
        self.close()
