"""Windows as slices of one partition. Pure: the clock is an argument."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from driftloop.consuming import Received
from driftloop.events import Event, Prediction, Window


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

    @property
    def window(self) -> Window:
        """The slice's identity."""
        return Window(
            topic=self.topic, partition=self.partition, first_offset=self.first_offset, last_offset=self.last_offset
        )


class Slicing:
    """Cuts each partition into slices that follow one another without a gap.

    A slice closes when it has ``rows`` rows (an event's rows are never split) or when nothing has come for
    ``quiet_seconds``.
    """

    def __init__(self, rows: int, quiet_seconds: float) -> None:
        """No slice is open."""
        self._rows = rows
        self._quiet_seconds = quiet_seconds
        self._open: dict[tuple[str, int], Slice] = {}

    def add(self, received: Received, clock: float) -> Slice | None:
        """Takes an event, or an offset that holds none; returns the slice that it closes."""
        key = (received.topic, received.partition)
        one = self._open.setdefault(key, Slice(*key, received.offset, received.offset, clock))
        one.last_offset, one.touched = received.offset, clock
        if received.event is not None:
            one.events.append(received.event)
            one.rows += len(received.event.predictions) if isinstance(received.event, Prediction) else 1
        return self._open.pop(key) if one.rows >= self._rows else None

    def quiet(self, clock: float) -> list[Slice]:
        """Closes and returns the slices that nothing was added to for long enough."""
        silent = [key for key, one in self._open.items() if clock - one.touched >= self._quiet_seconds]
        return [self._open.pop(key) for key in silent]

    def forget(self, partitions: Iterable[tuple[str, int]]) -> None:
        """Drops the open slices of partitions that are somebody else's now."""
        for key in partitions:
            self._open.pop(key, None)
