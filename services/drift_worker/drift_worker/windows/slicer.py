"""Cut partitions into slices, and the rows of each version into windows. Pure: the time is an argument.

A slice is consecutive offsets of a partition. A window is consecutive rows of one version of a model, whatever lies
between them. A slice closes when a window closes, so windows begin and end with slices; the windows of other versions
go on in the next slice. With a single version, each slice is a window.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import NamedTuple

from driftloop.archive.partition_state import (
    MAX_SLICES,
    MAX_VERSIONS,
    PRECEDING_WINDOWS,
    OpenWindow,
    Partition,
    PartitionState,
    VersionWindows,
    version_digest,
)
from driftloop.drift.settings import WindowSettings
from driftloop.events import Event, Prediction, Window
from driftloop.kafka.consumed_message import ConsumedMessage


class ClosedWindow(NamedTuple):
    """A version's window that ends with a slice."""

    version: str
    """The digest of model, version and run."""
    first_offset: int
    """Where its first slice begins."""
    preceding: tuple[int, ...]
    """Where the first slices of the version's windows before it begin, the oldest first."""


@dataclass
class Slice:
    """Consecutive offsets of one partition, with their events in order."""

    topic: str
    partition: int
    first_offset: int
    last_offset: int
    last_added: float
    """When the last message was added, in seconds of the caller's clock."""
    opened_at: float = 0.0
    """When the first message reached the topic."""
    events: list[Event] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    """The offset of each event."""
    rows: int = 0

    @property
    def day(self) -> date:
        """The day in UTC on which the first message reached the topic."""
        return datetime.fromtimestamp(self.opened_at, UTC).date()

    @property
    def window(self) -> Window:
        """The slice's offsets, which identify it."""
        return Window(
            topic=self.topic, partition=self.partition, first_offset=self.first_offset, last_offset=self.last_offset
        )

    def add(self, message: ConsumedMessage, clock: float) -> None:
        """Extend the slice to a message, which can be without an event."""
        self.last_offset, self.last_added = message.offset, clock
        if message.event is not None:
            self.events.append(message.event)
            self.offsets.append(message.offset)
            self.rows += _row_count(message.event)


class ClosedSlice(NamedTuple):
    """A slice that nothing is added to any more. If windows close between two slices, it has no offsets."""

    slice: Slice
    windows: list[ClosedWindow]
    """The windows that end with it."""
    state: PartitionState
    """What is committed of the partition together with it."""

    @property
    def is_empty(self) -> bool:
        """Whether it has no offsets."""
        return self.slice.last_offset < self.slice.first_offset


@dataclass
class _OpenPartition:
    """A partition whose messages are received."""

    state: PartitionState
    last_added: float
    versions: dict[str, VersionWindows]
    """As in the state, with the rows of the open slice."""
    slice: Slice | None = None

    @classmethod
    def resume(cls, state: PartitionState, clock: float) -> "_OpenPartition":
        return cls(state, clock, dict(state.versions))

    @property
    def end(self) -> int:
        """The offset behind the last message."""
        return self.state.end if self.slice is None else self.slice.last_offset + 1

    def open_windows(self) -> Iterator[tuple[str, OpenWindow]]:
        for version, windows in self.versions.items():
            if windows.open is not None:
                yield version, windows.open


class Slicer:
    """Cuts each partition into slices without gaps, unless the broker has deleted messages that were not read.

    A slice closes

    - when a version's window has all of its rows (the rows of an event are never split), or, on a topic without
      windows, when the slice has enough events;
    - before a message that is later than the maximum age allows; the windows that are too old close with it;
    - before a message in front of which messages were deleted; all windows close with it, so that none spans the gap;
    - when no message arrives for the idle timeout; the windows that have enough rows for a verdict close with it.

    Only the idle timeout depends on the clock, so apart from it slices and windows are the same whenever a partition is
    read. A window also closes, whatever it has, when it would need more slices than a partition's state can hold, or
    when there are so many versions that its version is forgotten.
    """

    def __init__(self, settings: WindowSettings, window_length: Callable[[str, str, str | None], int]) -> None:
        """Start without open slices.

        Args:
            settings: When slices and windows close.
            window_length: Returns how many rows a window has of a version, by its model, number and run.
        """
        self._settings = settings
        self._window_length = window_length
        self._partitions: dict[Partition, _OpenPartition] = {}

    def resume(self, partition: Partition, state: PartitionState, clock: float) -> None:
        """Go on behind what is committed of a partition."""
        self._partitions[partition] = _OpenPartition.resume(state, clock)

    def add(self, message: ConsumedMessage, clock: float) -> list[ClosedSlice]:
        """Add a message, with or without an event; return the slices that it closes, the earlier one first."""
        key, event = (message.topic, message.partition), message.event
        partition = self._partitions.get(key)
        closed = []
        if partition is not None and partition.end != message.previous_end_offset:
            closed += self._close_before_gap(key, message.previous_end_offset)
            partition = None
        if partition is None:
            state = PartitionState(message.previous_end_offset)
            partition = self._partitions[key] = _OpenPartition.resume(state, clock)
        aged = [version for version, window in partition.open_windows() if self._is_aged(window.opened_at, message)]
        if aged or (partition.slice is not None and self._is_aged(partition.slice.opened_at, message)):
            closed.append(self._close(key, aged))
        if partition.slice is None:
            partition.slice = Slice(*key, message.previous_end_offset, message.offset, clock, message.published_at)
        partition.slice.add(message, clock)
        partition.last_added = clock
        if isinstance(event, Prediction):
            version, window = self._add_to_window(partition, event, message)
            if window.rows >= window.length:
                closed.append(self._close(key, [version]))
        elif partition.slice.rows >= self._settings.slice_rows:
            closed.append(self._close(key, []))
        return closed

    def close_idle(self, clock: float) -> list[ClosedSlice]:
        """Close and return the slices of partitions without a message for the idle timeout, with their windows."""
        closed = []
        for key, partition in self._partitions.items():
            if clock - partition.last_added >= self._settings.idle_timeout_seconds:
                full = [v for v, w in partition.open_windows() if w.rows >= self._settings.min_rows(w.length)]
                if full or partition.slice is not None:
                    closed.append(self._close(key, full))
        return closed

    def drop(self, partitions: Iterable[Partition]) -> None:
        """Drop what is open of partitions that another worker owns now."""
        for key in partitions:
            self._partitions.pop(key, None)

    def _is_aged(self, opened_at: float, message: ConsumedMessage) -> bool:
        return message.published_at - opened_at > self._settings.max_age_seconds

    def _add_to_window(
        self, partition: _OpenPartition, event: Prediction, message: ConsumedMessage
    ) -> tuple[str, OpenWindow]:
        """Add an event to the open window of its version; return both."""
        assert partition.slice is not None
        version = version_digest(event.model, event.version, event.run_id)
        windows = partition.versions.pop(version, VersionWindows())  # it becomes the last one
        window = windows.open or OpenWindow(
            first_offset=partition.slice.first_offset,
            rows=0,
            length=self._window_length(event.model, event.version, event.run_id),
            opened_at=int(message.published_at),
        )
        window = window._replace(rows=window.rows + _row_count(event))
        partition.versions[version] = windows._replace(open=window)
        return version, window

    def _close_before_gap(self, key: Partition, next_offset: int) -> list[ClosedSlice]:
        """Close what is open of a partition, as the broker has deleted what comes then; nothing may span the gap.

        Args:
            key: The partition.
            next_offset: Where the partition goes on. It is committed with what is closed.
        """
        partition = self._partitions[key]
        opened = [version for version, _ in partition.open_windows()]
        if not opened and partition.slice is None:
            return []
        return [self._close(key, opened)._replace(state=PartitionState(next_offset))]

    def _close(self, key: Partition, full: Collection[str]) -> ClosedSlice:
        """Close the open slice, or a slice without offsets if there is none, and the windows of some versions."""
        partition = self._partitions[key]
        end = partition.state.end
        current = partition.slice or Slice(*key, end, end - 1, partition.last_added)
        slices, versions = partition.state.slices, partition.versions
        if partition.slice is not None:
            slices = (*slices, current.first_offset)[-MAX_SLICES:]
        forgotten = list(versions)[:-MAX_VERSIONS]
        closed = []
        for version, window in list(partition.open_windows()):
            is_longest = len(slices) == MAX_SLICES and window.first_offset <= slices[0]
            if version in full or version in forgotten or is_longest:
                preceding = versions[version].preceding
                closed.append(ClosedWindow(version, window.first_offset, preceding))
                versions[version] = VersionWindows((*preceding, window.first_offset)[-PRECEDING_WINDOWS:])
        for version in forgotten:
            del versions[version]
        for version, windows in list(versions.items()):
            known = tuple(first for first in windows.preceding if first >= slices[0])
            versions[version] = windows._replace(preceding=known)
            if not versions[version].begins:
                del versions[version]
        partition.state = PartitionState(current.last_offset + 1, slices, dict(versions))
        partition.slice = None
        return ClosedSlice(current, closed, partition.state)


def _row_count(event: Event) -> int:
    return len(event.predictions) if isinstance(event, Prediction) else 1
