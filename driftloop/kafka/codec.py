"""How events are encoded in Kafka messages: CloudEvents 1.0 in binary mode.

The value is the JSON of one of the models in :mod:`driftloop.events`. The headers repeat its id and time and add its
type with the type's version, and its source. An event of a trace has two more headers: the CloudEvents extension
``traceparent`` names the span that the event originates from; the plain header ``traceparent`` names the span that sent
the message, and is the one that consumers continue.
"""

import re
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event, to_binary_event
from cloudevents.core.v1.event import CloudEvent
from kafka.consumer.fetcher import ConsumerRecord
from pydantic import ValidationError

from driftloop.errors import InvalidInput
from driftloop.events import EVENTS, Event
from driftloop.kafka.tolerant_records import Undecodable

# Fast path: ids and times of these forms are always valid. The CloudEvents library validates all others.
FAST_PATH_ID = re.compile(rb"[\x21-\x7e]+")
FAST_PATH_TIME = re.compile(rb"\d{4}(-\d\d){2}T\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)")

TRACEPARENT = re.compile(rb"[\da-f]{2}-[\da-f]{32}-[\da-f]{16}-[\da-f]{2}")
CE_TRACEPARENT, KAFKA_TRACEPARENT = "ce_traceparent", "traceparent"
HEADER_ONLY_FIELDS = {"traceparent"}
ID_FIELDS = {"id", "time"}


class InvalidMessage(InvalidInput):
    """The message is no valid event and never will be: it belongs to the dead letters."""


class Message(NamedTuple):
    """Key, value and headers of a Kafka message."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


class SerializedEvent(NamedTuple):
    """An event as text: everything that :func:`to_message` needs, so that it can be stored and sent later."""

    type: str
    id: str
    time: str
    key: str
    value: bytes
    traceparent: str | None = None


def serialize(event: Event) -> SerializedEvent:
    """Return the event as text."""
    value = event.model_dump_json(exclude=HEADER_ONLY_FIELDS).encode()
    return SerializedEvent(event.type, event.id, event.time.isoformat(), event.message_key, value, event.traceparent)


def to_message(event: SerializedEvent, source: str, producer_traceparent: str | None = None) -> Message:
    """Return the Kafka message of a serialized event.

    Args:
        event: The event.
        source: The service that the event comes from.
        producer_traceparent: The ``traceparent`` of the span that sends the message, if the event does not come from
            that span itself.
    """
    attributes = {
        "type": event.type,
        "source": f"/driftloop/{source}",
        "id": event.id,
        "time": datetime.fromisoformat(event.time),
        "datacontenttype": "application/json",
    }
    if event.traceparent is None:
        headers = to_binary_event(CloudEvent(attributes)).headers
    else:
        headers = to_binary_event(CloudEvent({**attributes, "traceparent": event.traceparent})).headers
        headers[KAFKA_TRACEPARENT] = (producer_traceparent or event.traceparent).encode()
    return Message(event.key.encode(), event.value, list(headers.items()))


def encode(event: Event, source: str) -> Message:
    """Return the Kafka message of an event that comes from the service ``source``."""
    return to_message(serialize(event), source)


def decode(value: bytes | None, headers: Collection[tuple[str, bytes]], timestamp: int | None = None) -> Event:
    """Return the event of a Kafka message.

    An id or time that the value lacks is taken from the headers, and a time that the headers lack, too, from the
    message's timestamp. So a message is decoded to the same event every time.

    Args:
        value: The message's value.
        headers: The message's headers.
        timestamp: The message's timestamp in milliseconds since 1970.

    Raises:
        InvalidMessage: The message is no valid event; the text says why.
    """
    try:
        type_name, traceparent = _parse_headers(headers)
    except Exception as error:  # a producer may send any bytes, and the CloudEvents library raises a dozen types
        raise InvalidMessage(f"no CloudEvent in the headers: {error}") from error
    model = EVENTS.get(type_name)
    if model is None:
        raise InvalidMessage(f"unknown type {type_name[:100]!r}; known are {', '.join(EVENTS)}")
    try:
        event = model.model_validate_json(value or b"")
        if not event.model_fields_set >= ID_FIELDS:
            event = model.model_validate(_envelope_fields(headers, timestamp) | event.model_dump(exclude_unset=True))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        location = ".".join(map(str, first["loc"])) or "value"
        raise InvalidMessage(f"not a {model.type}: {location}: {first['msg']}") from error
    except Exception as error:  # such as a time in the headers that is none
        raise InvalidMessage(f"not a {model.type}: {type(error).__name__}: {error}") from error
    return event if event.traceparent == traceparent else event.model_copy(update={"traceparent": traceparent})


def decode_record(record: ConsumerRecord) -> Event:
    """Return the event of a record that a consumer of :mod:`driftloop.kafka.client` has polled.

    Raises:
        InvalidMessage: The record is no valid event; the text says why.
    """
    if isinstance(record.value, Undecodable):
        raise InvalidMessage(f"the record cannot be decoded: {record.value.error}")
    return decode(record.value, record.headers, record.timestamp)


def _envelope_fields(headers: Iterable[tuple[str, bytes]], timestamp: int | None) -> dict[str, object]:
    """Return the id, and the time if there is one, from headers and timestamp."""
    by_name = dict(headers)
    envelope = from_binary_event(KafkaMessage(by_name, None, b""))
    fields: dict[str, object] = {"id": envelope.get_id()}
    if "ce_time" in by_name:  # without it the library invents a time
        fields["time"] = envelope.get_time()
    elif timestamp is not None:
        fields["time"] = datetime.fromtimestamp(timestamp / 1000, UTC)
    return fields


def _parse_headers(headers: Iterable[tuple[str, bytes]]) -> tuple[str, str | None]:
    """Return the type and the ``traceparent`` of valid headers; raise what the CloudEvents library raises otherwise.

    Events of one writer differ in id, time and trace only. The library validates each combination of the other headers
    once, together with an id or time that is not of the fast path's form.
    """
    others = []
    traces: dict[str, bytes] = {}
    for name, value in headers:
        if name == "ce_id" and value and FAST_PATH_ID.fullmatch(value):
            continue
        if name == "ce_time" and value and FAST_PATH_TIME.fullmatch(value):
            datetime.fromisoformat(value.decode())  # rejects days that a month does not have
            continue
        if name in (KAFKA_TRACEPARENT, CE_TRACEPARENT):
            if value and TRACEPARENT.fullmatch(value):  # an invalid one is ignored, as the W3C specification requires
                traces[name] = value
            continue
        if value is None:  # valid in Kafka, but the library fails on it
            raise ValueError(f"{name} is null")
        others.append((name, value))
    traceparent = traces.get(KAFKA_TRACEPARENT) or traces.get(CE_TRACEPARENT)
    return _cached_type(tuple(others)), traceparent.decode() if traceparent else None


def _validated_type(headers: tuple[tuple[str, bytes], ...]) -> str:
    # The value is left out: it is parsed once, by its own model.
    envelope: BaseCloudEvent = from_binary_event(KafkaMessage(dict(headers), None, b""))
    return envelope.get_type()


_cached_type = lru_cache(maxsize=256)(_validated_type)
