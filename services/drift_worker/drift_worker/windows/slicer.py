"""Cut partitions into slices, which are the windows. Pure: the time is an argument."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from driftloop.drift.settings import WindowSettings
from driftloop.events import Event, Prediction, Window
from driftloop.kafka.consumed_message import ConsumedMessage


@dataclass
class Slice:
    """Consecutive offsets of one partition, with their events in order."""

    topic: str
    partition: int
    first_offset: int
    last_offset: int
    last_added: float
    """When the last message was added, in seconds of the caller's clock."""
    events: list[Event] = field(default_factory=list)
    rows: int = 0
    first_event_time: datetime | None = None
    """The earliest time of an event in the slice; events can be out of order."""

    @property
    def window(self) -> Window:
        """The window that the slice becomes, identified by its offsets."""
        return Window(
            topic=self.topic, partition=self.partition, first_offset=self.first_offset, last_offset=self.last_offset
        )

    def add(self, offset: int, event: Event | None, clock: float) -> None:
        """Extend the slice to an offset, which can be without an event."""
        self.last_offset, self.last_added = offset, clock
        if event is not None:
            self.events.append(event)
            self.rows += len(event.predictions) if isinstance(event, Prediction) else 1
            self.first_event_time = min(self.first_event_time or event.time, event.time)


class Slicer:
    """Cuts each partition into slices without gaps.

    A slice closes when it has enough rows (the rows of an event are never split), when the next event is later than the
    slice's maximum age allows, or when no message arrives for the idle timeout. Only the idle timeout depends on the
    clock, so apart from it the slices are the same whenever a partition is read.
    """

    def __init__(self, settings: WindowSettings) -> None:
        """Start without open slices."""
        self._settings = settings
        self._open: dict[tuple[str, int], Slice] = {}

    def add(self, message: ConsumedMessage, clock: float) -> list[Slice]:
        """Add a message, with or without an event; return the slices that it closes, the earlier one first."""
        key = (message.topic, message.partition)
        closed = []
        if self._exceeds_max_age(self._open.get(key), message.event):
            closed.append(self._open.pop(key))
        current = self._open.get(key)
        if current is None:
            current = self._open[key] = Slice(*key, message.previous_end_offset, message.offset, clock)
        current.add(message.offset, message.event, clock)
        if current.rows >= self._settings.rows:
            closed.append(self._open.pop(key))
        return closed

    def close_idle(self, clock: float) -> list[Slice]:
        """Close and return the slices to which nothing was added for the idle timeout."""
        idle = [key for key, one in self._open.items() if clock - one.last_added >= self._settings.idle_timeout_seconds]
        return [self._open.pop(key) for key in idle]

    def drop(self, partitions: Iterable[tuple[str, int]]) -> None:
        """Drop the open slices of partitions that another worker owns now."""
        for key in partitions:
            self._open.pop(key, None)

    def _exceeds_max_age(self, open_slice: Slice | None, event: Event | None) -> bool:
        if open_slice is None or open_slice.first_event_time is None or event is None:
            return False
        return (event.time - open_slice.first_event_time).total_seconds() > self._settings.max_age_seconds
