"""Publish events and commit the offsets that they were made from in one Kafka transaction: both or neither."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple

from kafka import ConsumerGroupMetadata, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.errors import (
    CommitFailedError,
    FencedInstanceIdError,
    IllegalGenerationError,
    InvalidProducerEpochError,
    KafkaError,
    ProducerFencedError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)

from driftloop.errors import DriftloopError
from driftloop.events import Event
from driftloop.kafka.client import (
    broker_unavailable,
    close_producer,
    create_transactional_producer,
    translate_errors,
)
from driftloop.kafka.codec import Message, encode
from driftloop.settings import KafkaSettings, TopicsSettings

REBALANCE_ERRORS = (CommitFailedError, IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError)


class Rebalanced(DriftloopError):
    """The group is rebalancing: the transaction was aborted, and its messages will be delivered again."""


class InstanceReplaced(DriftloopError):
    """Another process has the same name among those of its service, and has taken this one's place."""


class CommittedPosition(NamedTuple):
    """A committed offset, at which reading goes on, and the metadata that was committed with it."""

    offset: int
    metadata: str = ""


class OutgoingMessage(NamedTuple):
    """A message and the topic to send it to."""

    topic: str
    message: Message


class TransactionalProducer:
    """A producer whose transactions carry events, dead letters and consumer offsets. Use it from one thread."""

    def __init__(self, kafka: KafkaSettings, topics: TopicsSettings, source: str, instance_id: str) -> None:
        """Connect, and fence every earlier producer of the same source and instance: it can commit nothing anymore.

        Args:
            kafka: How to reach the broker.
            topics: The names of the topics.
            source: The service that the events come from.
            instance_id: Names the process among those of all groups of the service; part of the transactional id.

        Raises:
            BrokerUnavailable: No broker answers.
        """
        self.kafka = kafka
        """How to reach the broker."""
        self._topics = topics
        self._source = source
        self._instance_id = instance_id
        self._producer = self._open()

    def _open(self) -> KafkaProducer:
        producer = create_transactional_producer(
            self.kafka,
            client_id=f"driftloop-{self._source}",
            transactional_id=f"driftloop-{self._source}-{self._instance_id}",
            # An open transaction of a killed process blocks readers and the next owner of its partitions for this long:
            # no longer than the group takes to notice that the process is gone.
            transaction_timeout_ms=int(self.kafka.session_timeout_seconds * 1000),
        )
        try:
            with translate_errors(self.kafka):
                producer.init_transactions()
        except BaseException:  # it would go on trying, and fence the next one
            close_producer(producer)
            raise
        return producer

    def commit(
        self,
        group: ConsumerGroupMetadata,
        positions: Mapping[TopicPartition, CommittedPosition],
        events: Iterable[Event],
        dead_letters: Iterable[OutgoingMessage] = (),
    ) -> None:
        """Publish events and dead letters, and commit the positions of their input, in one transaction.

        1. Refuse a group membership that is already lost.
        2. Begin a transaction.
        3. Send dead letters and events; nothing is waited for.
        4. Send the positions to the transaction. The broker refuses them if the membership is outdated.
        5. Wait for each send. kafka-python's commit would wait for ever if the broker has refused a message, and return
           as if nothing had happened if a batch was dropped for a new producer epoch.
        6. Commit the transaction.

        After a rebalance the transaction is aborted, and readers of committed messages see nothing of it. The producer
        is replaced, because kafka-python would send the refused offsets with its next transaction, when their
        partitions may already have moved on with another owner.

        Args:
            group: The consumer's membership.
            positions: By partition, the offset up to which its messages are handled.
            events: The events to publish.
            dead_letters: The messages to move.

        Raises:
            Rebalanced: The membership is outdated; nothing is committed.
            InstanceReplaced: A later producer of the same source and instance has fenced this one; nothing is
                committed.
            BrokerUnavailable: The broker does not answer. Whether the transaction is committed is unknown until
                :meth:`reconnect` has settled it.
        """
        if group.generation_id < 0:  # a broker would accept a commit without a membership while the group is empty
            raise Rebalanced("this consumer is no longer a member of its group")
        self._producer.begin_transaction()
        try:
            outgoing = [OutgoingMessage(self._topics.name_of(e.topic), encode(e, self._source)) for e in events]
            sent = [
                self._producer.send(topic, key=key, value=value, headers=headers)
                for topic, (key, value, headers) in (*dead_letters, *outgoing)
            ]
            offsets = {partition: OffsetAndMetadata(*position, -1) for partition, position in positions.items()}
            self._producer.send_offsets_to_transaction(offsets, group)
            for future in sent:
                future.get()
            self._producer.commit_transaction()
        except REBALANCE_ERRORS as error:
            with suppress(KafkaError):
                self._producer.abort_transaction()
            self.reconnect()
            raise Rebalanced(str(error)) from error
        except (ProducerFencedError, InvalidProducerEpochError, FencedInstanceIdError) as error:
            raise InstanceReplaced(f"the producer was fenced: {type(error).__name__}") from error
        except KafkaError as error:  # an abort would wait for the same broker
            raise broker_unavailable(self.kafka, error) from error

    def reconnect(self) -> None:
        """Replace the connection; the broker completes or aborts the transaction of the one before first.

        Raises:
            BrokerUnavailable: No broker answers; call it again.
        """
        self.close()
        self._producer = self._open()

    def close(self) -> None:
        """Disconnect without waiting for the broker."""
        close_producer(self._producer)
