"""Messages that no consumer can make an event of, and the means to send those that a client refuses to send."""

from typing import Any, NamedTuple

from kafka import KafkaProducer, TopicPartition

from driftloop.events import Outcome
from driftloop.kafka.codec import encode
from driftloop.kafka.tolerant_records import MAX_BATCH_BYTES

Headers = list[tuple[str, bytes]]


class Poison(NamedTuple):
    """A message as it is sent."""

    key: Any
    value: Any
    headers: list[Any]


class ForeignName(str):
    """A header's name that is encoded as bytes that are no UTF-8, as another client may send it."""

    def encode(self, *_: Any) -> bytes:
        return b"\xff\xfename"


class UncheckedHeaders(list[Any]):
    """Headers of which kafka-python sends all, but adds up the sizes of none: those that are null have none."""

    def __bool__(self) -> bool:
        return False


def poison_producer(bootstrap_servers: str) -> KafkaProducer:
    """Connect a producer that sends what is large until it is packed."""
    return KafkaProducer(
        bootstrap_servers=bootstrap_servers, compression_type="gzip", max_request_size=2 * MAX_BATCH_BYTES
    )


def send(producer: KafkaProducer, topic: str, message: Poison, partition: int = 0) -> Any:
    """Send a message that Kafka knows but that kafka-python's ``send`` refuses, such as one without key and value.

    Returns:
        The record's metadata: topic, partition and offset.
    """
    producer.partitions_for(topic)
    headers = UncheckedHeaders(message.headers)
    future, *_ = producer._accumulator.append(
        TopicPartition(topic, partition), None, message.key, message.value, headers
    )
    producer._sender.wakeup()
    producer.flush(60)
    return future.get(60)


def valid_message(index: int) -> Poison:
    """Return a valid outcome."""
    return Poison(*encode(Outcome(prediction_id="p", index=index, outcome=1.0), "test"))


def null_id(headers: Headers) -> list[tuple[str, bytes | None]]:
    """Return the headers with a null in place of the event's id."""
    return [(name, None if name == "ce_id" else content) for name, content in headers]


def poison_messages() -> dict[str, Poison]:
    """Return a message of each kind."""
    key, value, headers = valid_message(0)
    return {
        "neither key nor value": Poison(None, None, []),
        "null header": Poison(key, value, null_id(headers)),
        "header name": Poison(b"k", b"v", [(ForeignName("x"), b"1")]),
        "zeros": Poison(b"k", b"\0" * 5_000_000, []),
        "bomb": Poison(b"k", b"\0" * (MAX_BATCH_BYTES + 1), []),
        "large key": Poison(b"\0" * 5_000_000, b"v", []),
        "large headers": Poison(b"k", None, [(f"h{number}", b"x" * 10_000) for number in range(300)]),
        "tombstone": Poison(b"k", None, headers),
        "key alone": Poison(b"k", None, []),
    }
