"""What all events have in common."""

import json
import re
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Annotated, ClassVar, Literal
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field
from uuid_utils import uuid7

Topic = Literal["predictions", "outcomes", "drift", "retrain", "models"]


EventId = Annotated[str, Field(max_length=256, pattern=r"^[a-zA-Z0-9_./:-]+$")]

MAX_NAME_BYTES = 255  # the limit of common file systems for one name
USUAL_NAME = re.compile(r"[a-zA-Z0-9_-][a-zA-Z0-9_.-]{0,100}")  # the checks take longer than this one


def require_name(name: str) -> str:
    """Return the name of a model, version or topic if it can be a part of a path, as it is in the store and on disk.

    Every such name that is read from an event is read by this function.

    Raises:
        ValueError: It cannot; the message says why.
    """
    if USUAL_NAME.fullmatch(name):
        return name
    problems = {
        "is blank": not name.strip(),
        "has a /, a : or a backslash": not set(name).isdisjoint("/:\\"),
        "means another folder": name in (".", ".."),
        "has a character that cannot be printed": not name.isprintable(),
        f"has more than {MAX_NAME_BYTES} bytes": len(name.encode(errors="replace")) > MAX_NAME_BYTES,
    }
    for problem, exists in problems.items():
        if exists:
            raise ValueError(f"{name[:100]!r} cannot be a name: it {problem}")
    return name


Name = Annotated[str, AfterValidator(require_name)]
"""The name of a model, version or topic, which can be a part of a path."""

ID_PART = re.compile(r"[a-zA-Z0-9_./:-]{1,128}")  # half of an id: the other half is for the rest of it
NEW_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def new_event_id() -> str:
    """Return a new UUIDv7: unique, and sorted by time of creation."""
    return str(uuid7())


def derived_event_id(time: datetime, *parts: str) -> str:
    """Return a UUIDv7 of a time that depends on nothing but its arguments, for an event that may be created again."""
    digest = sha256(json.dumps(parts).encode()).digest()
    milliseconds = int(time.timestamp() * 1000)
    number = milliseconds << 80 | 7 << 76 | int.from_bytes(digest[:2]) >> 4 << 64
    return str(UUID(int=number | 0b10 << 62 | int.from_bytes(digest[2:10]) >> 2))


def event_id_time(event_id: str) -> datetime | None:
    """Return when an id was made, by the clock of its process; ``None`` if it is no UUIDv7, as a client's own."""
    try:
        uuid = UUID(event_id)
    except ValueError:
        return None
    return datetime.fromtimestamp((uuid.int >> 80) / 1000, UTC) if uuid.version == 7 else None


def is_new_event_id(event_id: str) -> bool:
    """Return whether :func:`new_event_id` may have returned an id, as it has those of all predictions."""
    return NEW_ID.fullmatch(event_id) is not None


def as_id_part(name: str) -> str:
    """Return a name as a part of an event's id: as it is, or its SHA-256 if an id cannot hold it."""
    return name if ID_PART.fullmatch(name) else sha256(name.encode()).hexdigest()


def now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


def parse_iso_time(value: object) -> object:
    """Convert a text in ISO 8601, which may be a date alone, to a datetime; return other values as they are.

    Every time that is read from a request, a header or an event is read by this function. pydantic alone would take a
    text of digits for seconds since 1970.

    Raises:
        ValueError: The text is not in ISO 8601.
    """
    if not isinstance(value, str):
        return value
    try:
        return datetime.fromisoformat(value)
    except ValueError as error:
        raise ValueError("expected a time in ISO 8601, such as 2013-07-01T05:00:00Z or 2013-07-01") from error


def _require_writable_offset(time: datetime) -> datetime:
    """Return a time as it is, or in UTC if its offset has seconds: no header and no JSON can hold such an offset."""
    offset = time.utcoffset() or timedelta()
    return time.astimezone(UTC) if offset % timedelta(minutes=1) else time


# What Parquet and pandas can hold: nanoseconds since 1970 end in 2262, and a row's position is a 64-bit number.
EventTime = Annotated[
    AwareDatetime,
    BeforeValidator(parse_iso_time),
    Field(ge=datetime(1970, 1, 1, tzinfo=UTC), le=datetime(2200, 1, 1, tzinfo=UTC)),
    AfterValidator(_require_writable_offset),
]


class FrozenModel(BaseModel):
    """Base of all models of this package: the docstring of a field becomes its description in JSON Schema."""

    model_config = ConfigDict(use_attribute_docstrings=True, frozen=True)


class Event(FrozenModel):
    """Fields of every event."""

    type: ClassVar[str]
    topic: ClassVar[Topic]

    id: EventId = Field(default_factory=new_event_id)
    """Identity of the event. An event that is published again has the same id."""
    time: EventTime = Field(default_factory=now)
    """When the thing that the event reports happened."""
    traceparent: str | None = None
    """W3C trace context of the span that created the event; sent as a header, not in the value."""

    @property
    def message_key(self) -> str:
        """The event's id. Kafka keeps the order of messages with the same key."""
        return self.id
