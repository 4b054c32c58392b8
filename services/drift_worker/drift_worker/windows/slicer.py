"""Windows as slices of one partition. Pure: the clock is an argument."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from driftloop.events import Event, Prediction, Window
from driftloop.kafka.consumer_loop import ConsumedMessage
from driftloop.settings import WindowSettings


@dataclass
class Slice:
    """Consecutive offsets of one partition with the events that lay there, in order."""

    topic: str
    partition: int
    first_offset: int
    last_offset: int
    last_added: float
    """When something was last added, in seconds of the caller's clock."""
    events: list[Event] = field(default_factory=list)
    rows: int = 0
    first_event_time: datetime | None = None
    """The time of its earliest event."""

    @property
    def window(self) -> Window:
        """The slice's identity."""
        return Window(
            topic=self.topic, partition=self.partition, first_offset=self.first_offset, last_offset=self.last_offset
        )

    def add(self, offset: int, event: Event | None, clock: float) -> None:
        """Takes what lies at the next offset."""
        self.last_offset, self.last_added = offset, clock
        if event is not None:
            self.events.append(event)
            self.rows += len(event.predictions) if isinstance(event, Prediction) else 1
            self.first_event_time = min(self.first_event_time or event.time, event.time)


class Slicer:
    """Cuts each partition into slices that follow one another without a gap.

    A slice closes when it has enough rows (an event's rows are never split), when the next event is too much later than
    its first one, or when nothing has come for long enough. Only the last depends on the clock.
    """

    def __init__(self, settings: WindowSettings) -> None:
        """No slice is open."""
        self._settings = settings
        self._open: dict[tuple[str, int], Slice] = {}

    def add(self, message: ConsumedMessage, clock: float) -> list[Slice]:
        """Takes an event, or an offset that holds none; returns the slices that it closes, the earlier one first."""
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
        """Closes and returns the slices that nothing was added to for long enough."""
        idle = [key for key, one in self._open.items() if clock - one.last_added >= self._settings.idle_timeout_seconds]
        return [self._open.pop(key) for key in idle]

    def drop(self, partitions: Iterable[tuple[str, int]]) -> None:
        """Drops the open slices of partitions that are somebody else's now."""
        for key in partitions:
            self._open.pop(key, None)

    def _exceeds_max_age(self, open_slice: Slice | None, event: Event | None) -> bool:
        if open_slice is None or open_slice.first_event_time is None or event is None:
            return False
        return (event.time - open_slice.first_event_time).total_seconds() > self._settings.max_age_seconds
