"""The message that a handler of the consume loop receives. Pure, so that handlers' logic needs no Kafka client."""

from typing import NamedTuple

from driftloop.events import Event


class ConsumedMessage(NamedTuple):
    """A message as the handler receives it: an event and its position, or only the position of a dead letter."""

    topic: str
    partition: int
    offset: int
    event: Event | None
    """The event; ``None`` for a message that is no valid event and moves to the dead letters."""
    previous_end_offset: int
    """The offset after the previous message of the partition; the offsets in between are transaction markers."""
    published_at: float = 0.0
    """When the message was written to the topic, in seconds since 1970 as its record says; 0 if it does not say."""
