"""What all events have in common."""

from datetime import UTC, datetime
from typing import Annotated, ClassVar, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from uuid_utils import uuid7

Topic = Literal["predictions", "outcomes", "drift", "retrain", "models"]


def new_event_id() -> str:
    """Return a new UUIDv7: unique, and sorted by time of creation."""
    return str(uuid7())


def now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


# What Parquet and pandas can hold: nanoseconds since 1970 end in 2262, and a row's position is a 64-bit number.
EventTime = Annotated[AwareDatetime, Field(ge=datetime(1970, 1, 1, tzinfo=UTC), le=datetime(2200, 1, 1, tzinfo=UTC))]


class FrozenModel(BaseModel):
    """Base of all models of this package: the docstring of a field becomes its description in JSON Schema."""

    model_config = ConfigDict(use_attribute_docstrings=True, frozen=True)


class Event(FrozenModel):
    """Fields of every event."""

    type: ClassVar[str]
    topic: ClassVar[Topic]

    id: str = Field(default_factory=new_event_id, max_length=256, pattern=r"^[a-zA-Z0-9_./:-]+$")
    """Identity of the event. An event that is published again has the same id."""
    time: EventTime = Field(default_factory=now)
    """When the thing that the event reports happened."""
    traceparent: str | None = None
    """W3C trace context of the span that created the event; sent as a header, not in the value."""

    @property
    def key(self) -> str:
        """The event's id. Kafka keeps the order of messages with the same key."""
        return self.id
