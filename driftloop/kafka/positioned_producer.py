"""Publish messages together with the position in their source, in one Kafka transaction: both or neither.

The position is committed as the offset of a consumer group that has the publisher's name and no members. So whichever
process is killed between two steps, the next one of the same name reads the position and continues after the last
message that has been published.
"""

from collections.abc import Iterable
from contextlib import suppress

from kafka import OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError

from driftloop.kafka.client import close_producer, create_reader, create_transactional_producer, translate_errors
from driftloop.kafka.transactional_producer import OutgoingMessage
from driftloop.settings import KafkaSettings

BATCH_BYTES = 500_000


class PositionedProducer:
    """Publishes what a named source has, each message once. Use it from one thread."""

    def __init__(self, kafka: KafkaSettings, name: str, client_id: str, topic: str) -> None:
        """Connect, and fence every earlier producer of the same name: it can commit nothing anymore.

        Args:
            kafka: How to reach the broker.
            name: Names the source; the transactional id and the consumer group.
            client_id: Names this client in the broker's log.
            topic: An existing topic: an offset needs a partition, and any partition will do.

        Raises:
            BrokerUnavailable: No broker answers.
        """
        self._kafka = kafka
        self._partition = TopicPartition(topic, 0)
        # It never joins its group: the group only stores the position.
        self._consumer = create_reader(kafka, group_id=name)
        try:
            self._producer = create_transactional_producer(
                kafka,
                client_id=client_id,
                transactional_id=name,
                linger_ms=5,
                batch_size=BATCH_BYTES,
            )
        except BaseException:
            self._consumer.close()
            raise
        try:
            # In this order: the first call aborts the open transaction of a killed process, so the position is final.
            with translate_errors(kafka):
                self._producer.init_transactions()
                committed = self._consumer.committed(
                    self._partition, metadata=True, timeout_ms=int(kafka.request_timeout_seconds * 1000)
                )
            self.position: int | None = None if committed is None else committed.offset
            """The last position that was committed; ``None`` if there is none, or if the broker has forgotten it, as it
            does if nothing was committed for days (``offsets.retention.minutes``)."""
            self.metadata: str = "" if committed is None else committed.metadata
            """The text that was committed with the position."""
        except BaseException:
            self.close()
            raise

    def commit(self, messages: Iterable[OutgoingMessage], position: int, metadata: str = "") -> float | None:
        """Publish messages, and commit the position after them, in one transaction.

        Args:
            messages: What to publish.
            position: The position after the last message.
            metadata: A text to commit with the position, of at most 4 KB.

        Returns:
            The timestamp of the last message in seconds since 1970, if there is a message. It is the broker's time if
            the topic has the broker's.

        Raises:
            BrokerUnavailable: The broker does not answer; the transaction is aborted, or will be by the next producer
                of the same name.
        """
        with translate_errors(self._kafka):
            self._producer.begin_transaction()
            try:
                sent = [
                    self._producer.send(topic, key=key, value=value, headers=headers)
                    for topic, (key, value, headers) in messages
                ]
                self._producer.send_offsets_to_transaction(
                    {self._partition: OffsetAndMetadata(position, metadata, -1)}, self._consumer.group_metadata()
                )
                # Before the commit: kafka-python's would wait for ever if the broker has refused a message, and return
                # as if nothing had happened if a batch was dropped for a new producer epoch.
                records = [future.get() for future in sent]
                self._producer.commit_transaction()
            except KafkaError:
                with suppress(KafkaError):
                    self._producer.abort_transaction()
                raise
        self.position, self.metadata = position, metadata
        return records[-1].timestamp / 1000 if records else None

    def close(self) -> None:
        """Disconnect without waiting for the broker."""
        close_producer(self._producer)
        self._consumer.close(autocommit=False)
