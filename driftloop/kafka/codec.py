"""How events travel over Kafka: CloudEvents 1.0 in binary mode.

A value is the JSON of one of the models in :mod:`driftloop.events`; the headers repeat its id and time and carry its
type with its version and its source. Where there is a trace, the extension ``traceparent`` names the span that the
event comes from, and the plain header of this name, which is the one that consumers go on with, the span that sent it.
"""

import re
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event, to_binary_event
from cloudevents.core.exceptions import CloudEventValidationError
from cloudevents.core.v1.event import CloudEvent
from pydantic import ValidationError

from driftloop.events import EVENTS, Event

# What no reader of CloudEvents refuses; whatever else may be right is for the library to say.
PLAIN_ID = re.compile(rb"[\x21-\x7e]+")
PLAIN_TIME = re.compile(rb"\d{4}(-\d\d){2}T\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)")

TRACEPARENT = re.compile(rb"[\da-f]{2}-[\da-f]{32}-[\da-f]{16}-[\da-f]{2}")
ORIGIN, HOP = "ce_traceparent", "traceparent"
APART = {"traceparent"}  # of the value
IDENTITY = {"id", "time"}


class Unreadable(ValueError):
    """The message is no event of ours, and never will be: it belongs to the dead letters."""


class Message(NamedTuple):
    """What Kafka carries."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


class Written(NamedTuple):
    """An event as text: all that :func:`message` needs, so that it can be kept and sent later."""

    type: str
    id: str
    time: str
    key: str
    value: bytes
    traceparent: str | None = None


def written(event: Event) -> Written:
    """The event as text."""
    value = event.model_dump_json(exclude=APART).encode()
    return Written(event.type, event.id, event.time.isoformat(), event.key, value, event.traceparent)


def message(event: Written, source: str, hop: str | None = None) -> Message:
    """The event as Kafka carries it; ``source`` says which service it comes from.

    ``hop`` is the ``traceparent`` of the span that sends it, where that is not the one that it comes from.
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
        headers[HOP] = (hop or event.traceparent).encode()
    return Message(event.key.encode(), event.value, list(headers.items()))


def write(event: Event, source: str) -> Message:
    """The event as Kafka carries it; ``source`` says which service it comes from."""
    return message(written(event), source)


def read(value: bytes | None, headers: Collection[tuple[str, bytes]], timestamp: int | None = None) -> Event:
    """The event in a Kafka message. Raises :class:`Unreadable`, which says what is wrong with it.

    An id or a time that the value lacks is the headers'; a time that nobody gave is the message's ``timestamp``
    (milliseconds since 1970): so a message is the same event each time it is read.
    """
    try:
        found, traceparent = _type(headers)
    except (CloudEventValidationError, ValueError) as error:
        raise Unreadable(f"no CloudEvent in the headers: {error}") from error
    model = EVENTS.get(found)
    if model is None:
        raise Unreadable(f"unknown type {found!r}; known are {', '.join(EVENTS)}")
    try:
        event = model.model_validate_json(value or b"")
        if not event.model_fields_set >= IDENTITY:
            event = model.model_validate(_from_envelope(headers, timestamp) | event.model_dump(exclude_unset=True))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "value"
        raise Unreadable(f"not a {model.type}: {where}: {first['msg']}") from error
    return event if event.traceparent == traceparent else event.model_copy(update={"traceparent": traceparent})


def _from_envelope(headers: Iterable[tuple[str, bytes]], timestamp: int | None) -> dict[str, object]:
    """Id and time, as far as they are known beside the value."""
    given = dict(headers)
    envelope = from_binary_event(KafkaMessage(given, None, b""))
    known: dict[str, object] = {"id": envelope.get_id()}
    if "ce_time" in given:  # the library makes one up
        known["time"] = envelope.get_time()
    elif timestamp is not None:
        known["time"] = datetime.fromtimestamp(timestamp / 1000, UTC)
    return known


def _type(headers: Iterable[tuple[str, bytes]]) -> tuple[str, str | None]:
    """The type in valid headers of a CloudEvent, and the ``traceparent``. Raises what the library raises.

    Between a writer's events id, time and trace differ, and nothing else does: the library looks at the same others
    once. It also gets an id or a time that is not plainly right.
    """
    others = []
    traces: dict[str, bytes] = {}
    for name, value in headers:
        if name == "ce_id" and value and PLAIN_ID.fullmatch(value):
            continue
        if name == "ce_time" and value and PLAIN_TIME.fullmatch(value):
            datetime.fromisoformat(value.decode())  # which knows how many days a month has
            continue
        if name in (HOP, ORIGIN):  # one that is none is as good as none, as W3C has it
            if value and TRACEPARENT.fullmatch(value):
                traces[name] = value
            continue
        if value is None:  # as Kafka allows, and the library does not expect
            raise ValueError(f"{name} is null")
        others.append((name, value))
    traceparent = traces.get(HOP) or traces.get(ORIGIN)
    return _known_type(tuple(others)), traceparent.decode() if traceparent else None


def _validated_type(headers: tuple[tuple[str, bytes], ...]) -> str:
    # Only the headers go through the library: the value is parsed once, by its own model.
    envelope: BaseCloudEvent = from_binary_event(KafkaMessage(dict(headers), None, b""))
    return envelope.get_type()


_known_type = lru_cache(maxsize=256)(_validated_type)
