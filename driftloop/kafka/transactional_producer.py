"""What a consumer has made of its events, published together with the offsets up to which it has: both or neither."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple

from kafka import ConsumerGroupMetadata, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.errors import (
    CommitFailedError,
    IllegalGenerationError,
    KafkaError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)

from driftloop.events import Event
from driftloop.kafka.codec import Message, write
from driftloop.kafka.publisher import Unavailable
from driftloop.settings import Kafka, Topics

MOVED = (CommitFailedError, IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError)


class Moved(Exception):
    """Partitions are changing hands: nothing of the transaction was published, and its events will come again."""


class Begin(NamedTuple):
    """Where a partition is read on, and the note that was left there."""

    offset: int
    note: str = ""


class Addressed(NamedTuple):
    """A message and its topic."""

    topic: str
    message: Message


class Transactions:
    """A transactional producer. Used by one thread."""

    def __init__(self, kafka: Kafka, topics: Topics, source: str, instance: str) -> None:
        """Ends what an earlier process of the same source and instance has begun: it can commit nothing from here on.

        ``source`` is the service that events come from. Raises :class:`Unavailable`.
        """
        self._topics = topics
        self._source = source
        self._bootstrap_servers = kafka.bootstrap_servers
        self._timeout = kafka.timeout_seconds
        timeout_ms = int(kafka.timeout_seconds * 1000)
        self._options = {
            **kafka.connection,
            "client_id": f"driftloop-{source}",
            "transactional_id": f"driftloop-{source}-{instance}",
            "acks": "all",
            # What a killed process has begun holds up readers and the partitions' next owner no longer than its
            # membership does.
            "transaction_timeout_ms": int(kafka.session_timeout_seconds * 1000),
            "request_timeout_ms": timeout_ms,
            "max_block_ms": timeout_ms * 3,
            "allow_auto_create_topics": False,
        }
        self._producer = self._open()

    def _open(self) -> KafkaProducer:
        try:
            producer = KafkaProducer(**self._options)
            producer.init_transactions()
        except KafkaError as error:
            raise Unavailable(
                f"no broker answers at {self._bootstrap_servers} (DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS): {error}"
            ) from error
        return producer

    def commit(
        self,
        group: ConsumerGroupMetadata,
        begins: Mapping[TopicPartition, Begin],
        events: Iterable[Event],
        letters: Iterable[Addressed] = (),
    ) -> None:
        """Returns when events and letters are on their topics and the group has offsets and notes.

        ``group`` is the consumer's membership, by which the broker refuses who has lost it.
        Raises :class:`Moved`, and :class:`Unavailable` where the broker does not answer: a part of it may then be
        published, and is not seen by readers of committed transactions.
        """
        if group.generation_id < 0:  # the broker lets those who are of no group commit to one that is empty
            raise Moved("this consumer has fallen out of its group")
        self._producer.begin_transaction()
        try:
            addressed = [Addressed(getattr(self._topics, event.topic), write(event, self._source)) for event in events]
            sent = [
                self._producer.send(topic, key=key, value=value, headers=headers)
                for topic, (key, value, headers) in (*letters, *addressed)
            ]
            marked = {partition: OffsetAndMetadata(*begin, -1) for partition, begin in begins.items()}
            self._producer.send_offsets_to_transaction(marked, group)
            self._producer.commit_transaction()
            for future in sent:  # a commit also returns where the client has begun a new epoch and left all behind
                future.get(self._timeout)
        except KafkaError as error:
            with suppress(KafkaError):
                self._producer.abort_transaction()
            if isinstance(error, MOVED):
                # kafka-python keeps offsets that the broker has refused and sends them with the next transaction of
                # the same producer, when their partitions may have moved on with somebody else.
                self._producer.close(timeout=1)
                self._producer = self._open()
                raise Moved(str(error)) from error
            raise Unavailable(f"{type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Lets go of the broker."""
        self._producer.close(timeout=1)
