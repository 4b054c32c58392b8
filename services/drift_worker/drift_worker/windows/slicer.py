"""Windows as slices of one partition. Pure: the clock is an argument."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from driftloop.events import Event, Prediction, Window
from driftloop.kafka.consumer_loop import Received
from driftloop.settings import WindowSettings


@dataclass
class Slice:
    """Consecutive offsets of one partition with the events that lay there, in order."""

    topic: str
    partition: int
    first_offset: int
    last_offset: int
    touched: float
    """When something was last added, in seconds of the caller's clock."""
    events: list[Event] = field(default_factory=list)
    rows: int = 0
    begins: datetime | None = None
    """The time of its earliest event."""

    @property
    def window(self) -> Window:
        """The slice's identity."""
        return Window(
            topic=self.topic, partition=self.partition, first_offset=self.first_offset, last_offset=self.last_offset
        )

    def add(self, offset: int, event: Event | None, clock: float) -> None:
        """Takes what lies at the next offset."""
        self.last_offset, self.touched = offset, clock
        if event is not None:
            self.events.append(event)
            self.rows += len(event.predictions) if isinstance(event, Prediction) else 1
            self.begins = min(self.begins or event.time, event.time)


class Slicing:
    """Cuts each partition into slices that follow one another without a gap.

    A slice closes when it has enough rows (an event's rows are never split), when the next event is too much later than
    its first one, or when nothing has come for long enough. Only the last depends on the clock.
    """

    def __init__(self, window: WindowSettings) -> None:
        """No slice is open."""
        self._settings = window
        self._open: dict[tuple[str, int], Slice] = {}

    def add(self, received: Received, clock: float) -> list[Slice]:
        """Takes an event, or an offset that holds none; returns the slices that it closes, the earlier one first."""
        key = (received.topic, received.partition)
        closed = []
        if self._too_late(self._open.get(key), received.event):
            closed.append(self._open.pop(key))
        one = self._open.get(key)
        if one is None:
            one = self._open[key] = Slice(*key, received.follows, received.offset, clock)
        one.add(received.offset, received.event, clock)
        if one.rows >= self._settings.rows:
            closed.append(self._open.pop(key))
        return closed

    def quiet(self, clock: float) -> list[Slice]:
        """Closes and returns the slices that nothing was added to for long enough."""
        silent = [key for key, one in self._open.items() if clock - one.touched >= self._settings.quiet_seconds]
        return [self._open.pop(key) for key in silent]

    def forget(self, partitions: Iterable[tuple[str, int]]) -> None:
        """Drops the open slices of partitions that are somebody else's now."""
        for key in partitions:
            self._open.pop(key, None)

    def _too_late(self, one: Slice | None, event: Event | None) -> bool:
        if one is None or one.begins is None or event is None:
            return False
        return (event.time - one.begins).total_seconds() > self._settings.longest_seconds
