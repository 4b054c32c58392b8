"""The dead letters that wait on their topics, and what is done with them: moved back, or dropped.

A topic of dead letters is only ever added to. A letter that is done with has a mark on the same topic, written in the
transaction that publishes its message again, if it is. So nothing is done twice: a run that begins fences all others,
and then reads what they have done.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from itertools import islice
from typing import Literal, NamedTuple

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord

from driftloop.kafka.client import create_reader, create_transactional_producer, translate_errors
from driftloop.kafka.codec import InvalidMessage, Message, decode
from driftloop.kafka.dead_letters import Origin, original_headers, parse_origin
from driftloop.kafka.topics import dead_letter_topic
from driftloop.settings import KafkaSettings

STATE_HEADER, LETTER_HEADER = "dlq_state", "dlq_letter"
POLL_TIMEOUT_MS = 1_000
MAX_TRANSACTION_LETTERS = 200

State = Literal["waiting", "redriven", "dropped"]
"""Whether a dead letter was moved back to its topic, or dropped."""


class DeadLetter(NamedTuple):
    """A dead letter, with what is known about the message that it was."""

    topic: str
    """The topic of dead letters."""
    partition: int
    offset: int
    moved_at: datetime
    message: Message
    origin: Origin
    state: State

    @property
    def id(self) -> str:
        """What names the dead letter: topic, partition and offset."""
        return f"{self.topic}-{self.partition}@{self.offset}"

    @property
    def problem(self) -> str | None:
        """Why the message cannot be moved back to its topic; ``None`` if it can."""
        if self.origin.changed:
            changes = ", ".join(f"{part}: {change}" for part, change in self.origin.changed.items())
            return f"the dead letter differs from the message ({changes})"
        try:
            decode(self.message.value, self.message.headers, self.origin.timestamp)
        except InvalidMessage as error:
            return f"it is no valid event: {error}"
        return None


def read_dead_letters(kafka: KafkaSettings, topics: Iterable[str]) -> list[DeadLetter]:
    """Return the dead letters of topics, in the order in which they were moved.

    Messages on the topics of dead letters that are none are left out.

    Args:
        kafka: How to reach the broker.
        topics: The topics whose messages they were.

    Raises:
        BrokerUnavailable: No broker answers.
    """
    with translate_errors(kafka), closing(create_reader(kafka)) as consumer:
        letters = [letter for topic in topics for letter in _read_topic(consumer, dead_letter_topic(topic))]
    return sorted(letters, key=lambda letter: letter.moved_at)


def settle(
    kafka: KafkaSettings, letters: Sequence[DeadLetter], state: Literal["redriven", "dropped"]
) -> Iterator[DeadLetter]:
    """Move the messages of dead letters back to their topics, or only mark them as dropped; yield each that is done.

    A letter that is not waiting any more is left out, also if another process is doing the same at this moment.

    Raises:
        BrokerUnavailable: The broker does not answer. Those that were yielded are done, and perhaps others.
    """
    for topic in sorted({letter.topic for letter in letters}):
        with (
            translate_errors(kafka),
            closing(create_transactional_producer(kafka, "driftloop-dlq", f"driftloop-dlq-{topic}")) as producer,
            closing(create_reader(kafka)) as consumer,
        ):
            producer.init_transactions()
            waiting = {letter.id for letter in _read_topic(consumer, topic) if letter.state == "waiting"}
            ours = iter([letter for letter in letters if letter.topic == topic and letter.id in waiting])
            while chunk := list(islice(ours, MAX_TRANSACTION_LETTERS)):
                producer.begin_transaction()
                sent = []
                for letter in chunk:
                    if state == "redriven":
                        key, value, headers = _redriven(letter)
                        sent.append(producer.send(letter.origin.topic, key=key, value=value, headers=headers))
                    mark = [(STATE_HEADER, state.encode()), (LETTER_HEADER, letter.id.encode())]
                    sent.append(producer.send(topic, value=b"", headers=mark, partition=letter.partition))
                for future in sent:  # before the commit, which would wait for ever for a message that was refused
                    future.get(kafka.request_timeout_seconds)
                producer.commit_transaction()
                yield from chunk


def _redriven(letter: DeadLetter) -> Message:
    """Return the message as it was, with a time in its headers, because its new timestamp must not become its time."""
    headers = original_headers(letter.message.headers)
    if "ce_time" not in dict(headers):
        headers.append(("ce_time", datetime.fromtimestamp(letter.origin.timestamp / 1000, UTC).isoformat().encode()))
    return letter.message._replace(headers=headers)


def _read_topic(consumer: KafkaConsumer, topic: str) -> list[DeadLetter]:
    letters: dict[str, DeadLetter] = {}
    for record in _records(consumer, topic):
        headers = dict(record.headers)
        if STATE_HEADER in headers:
            marked = (headers.get(LETTER_HEADER) or b"").decode(errors="replace")
            if (done := letters.get(marked)) is not None:  # or else it is too old to be there
                letters[done.id] = done._replace(
                    state="redriven" if headers[STATE_HEADER] == b"redriven" else "dropped"
                )
            continue
        try:
            origin = parse_origin(record.headers)
            moved_at = datetime.fromtimestamp(record.timestamp / 1000, UTC)
        except (ValueError, OverflowError, OSError):  # not one of ours
            continue
        message = Message(record.key, record.value, list(record.headers))
        letter = DeadLetter(topic, record.partition, record.offset, moved_at, message, origin, "waiting")
        letters[letter.id] = letter
    return list(letters.values())


def _records(consumer: KafkaConsumer, topic: str) -> Iterator[ConsumerRecord]:
    """Yield all messages that a topic has now."""
    partitions: Collection[TopicPartition] = [
        TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()
    ]
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    ends = consumer.end_offsets(partitions)
    while any(consumer.position(partition) < end for partition, end in ends.items()):
        for records in consumer.poll(timeout_ms=POLL_TIMEOUT_MS).values():
            yield from records
