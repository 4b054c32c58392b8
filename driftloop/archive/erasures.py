"""Erasures: which rows were erased, when, by whom and why. They have offsets and counts, and nothing of the rows.

erasures/until=<date>/<id>.json      an erasure; the date is the last day on which topics may still have its rows

An erasure is an entry of the audit log, which stays, and a tombstone: until its date readers of topics leave out what
it names, and the archive's files are searched for it. As the date is in the path, those that have expired are not read.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import structlog
from pydantic import Field, ValidationError

from driftloop.errors import StorageUnavailable
from driftloop.events import (
    OFFSET_COLUMN,
    ROW_COLUMN,
    Event,
    EventTime,
    FrozenModel,
    Name,
    Prediction,
    Window,
    new_event_id,
    now,
)
from driftloop.storage.object_store import ObjectStore, StoredObject
from driftloop.storage.parallel_reads import map_reads
from driftloop.times import MAX_CLOCK_SKEW

if TYPE_CHECKING:
    from kafka.consumer.fetcher import ConsumerRecord  # the archive needs no broker

log = structlog.get_logger(__name__)

ERASURES = "erasures"
UNTIL_PREFIX = "until="
NEVER = date.max
"""The date of an erasure whose rows a topic keeps for ever."""
TASK = "erasures"
LISTING_INTERVAL_SECONDS = 10
MAX_AGE_SECONDS = 20  # of a listing, before whoever needs it lists by itself
ERASED_PREDICTION = "erased"
"""What stands in place of the prediction of an erased row, in an event with others."""

Integers = npt.NDArray[np.int64]


class ErasedPartition(FrozenModel):
    """What was erased of a partition of a topic: events, or single rows of predictions."""

    topic: Name
    """The topic, which may be one of dead letters."""
    partition: int = Field(ge=0)
    """The number of the partition."""
    events: list[tuple[int, int]] = Field(default_factory=list)
    """Ranges of offsets, ascending, of events that were erased with all of their rows; each includes both ends."""
    rows: dict[int, list[int]] = Field(default_factory=dict)
    """Row numbers by the offset of events that have other rows, too."""

    @classmethod
    def of_rows(cls, topic: str, partition: int, erased: Mapping[int, Iterable[int] | None]) -> Self:
        """Return what was erased, from the row numbers by offset; ``None`` stands for all rows of an event."""
        whole = sorted(offset for offset, rows in erased.items() if rows is None)
        ranges: list[tuple[int, int]] = []
        for offset in whole:
            if ranges and ranges[-1][1] == offset - 1:
                ranges[-1] = (ranges[-1][0], offset)
            else:
                ranges.append((offset, offset))
        rows = {offset: sorted(set(rows)) for offset, rows in sorted(erased.items()) if rows is not None}
        return cls(topic=topic, partition=partition, events=ranges, rows=rows)

    @cached_property
    def _bounds(self) -> tuple[Integers, Integers]:
        bounds = np.array(self.events, np.int64).reshape(-1, 2)
        return bounds[:, 0], bounds[:, 1]

    @cached_property
    def _partial(self) -> Integers:
        return np.array(sorted(self.rows), np.int64)

    def overlaps(self, window: Window) -> bool:
        """Return whether something was erased between a window's offsets."""
        if (window.topic, window.partition) != (self.topic, self.partition):
            return False
        firsts, lasts = self._bounds
        position = int(np.searchsorted(lasts, window.first_offset))
        if position < len(firsts) and firsts[position] <= window.last_offset:
            return True
        position = int(np.searchsorted(self._partial, window.first_offset))
        return position < len(self._partial) and bool(self._partial[position] <= window.last_offset)

    def mask(self, offsets: Integers, rows: Integers) -> npt.NDArray[np.bool_]:
        """Return which of some rows, with their offsets and row numbers, were erased."""
        firsts, lasts = self._bounds
        found = np.zeros(len(offsets), bool)
        if len(firsts):
            position = np.searchsorted(firsts, offsets, side="right") - 1
            found = (position >= 0) & (offsets <= lasts[np.maximum(position, 0)])
        for index in np.flatnonzero(np.isin(offsets, self._partial)):
            found[index] |= int(rows[index]) in self.rows[int(offsets[index])]
        return found

    def rows_of(self, offset: int) -> Sequence[int] | None:
        """Return the rows that were erased of an event; ``None`` if all were."""
        firsts, lasts = self._bounds
        position = int(np.searchsorted(firsts, offset, side="right")) - 1
        if position >= 0 and offset <= lasts[position]:
            return None
        return self.rows.get(offset, ())


class ErasureRequest(FrozenModel):
    """What was asked for, without the values."""

    kind: Literal["id", "key", "condition"]
    """How the rows were named."""
    values: int = 0
    """The number of ids or keys."""
    columns: list[str] = Field(default_factory=list)
    """The columns of the condition."""
    model: Name | None = None
    """The only model whose rows were erased; null for all."""


class ErasedCounts(FrozenModel):
    """How much was found on a topic and in its archive."""

    archived_rows: int = 0
    """Rows in files of the archive."""
    unarchived_rows: int = 0
    """Rows that are on the topic alone."""
    messages: int = 0
    """Messages that the topic still has, which readers leave out from now on."""


class DatasetWithErasedRows(FrozenModel):
    """A dataset version that has copies of erased rows, which stay there."""

    md5: str
    """The checksum by which DVC identifies it."""
    rows: int
    """Its rows that have the time and the features of erased ones."""
    versions: list[str] = Field(default_factory=list)
    """The model versions that were trained on it, as model/version."""


class ReferenceWithErasedRows(FrozenModel):
    """The reference of a version that was trained on such a dataset."""

    path: str
    """The path of its rows in the store."""
    rows_before: int
    """The number of its rows before."""
    positions: list[int] = Field(default_factory=list)
    """Those of its rows that have the features of erased ones, which are deleted."""


class Erasure(FrozenModel):
    """An erasure that has begun."""

    id: str = Field(default_factory=new_event_id)
    """Identity of the erasure; ids sort by time."""
    begun_at: EventTime = Field(default_factory=now)
    """When it began: later messages are not hit, as those of a topic that was deleted and made again."""
    done_at: EventTime | None = None
    """When it was done; null if it has to go on."""
    requested_by: str
    """The user and the machine."""
    reason: str
    """Why, in the words of the operator."""
    request: ErasureRequest
    """How the rows were named."""
    respected_until: EventTime | None
    """When the topics have none of the messages any more; null if they keep them for ever."""
    partitions: list[ErasedPartition]
    """What was erased of each partition."""
    counts: dict[str, ErasedCounts]
    """How much was found, by topic."""
    files: list[str] = Field(default_factory=list)
    """The archive's files that had the rows."""
    reports: list[str] = Field(default_factory=list)
    """The reports on windows with such rows, which were deleted."""
    datasets: list[DatasetWithErasedRows] = Field(default_factory=list)
    """The dataset versions that have copies."""
    references: list[ReferenceWithErasedRows] = Field(default_factory=list)
    """The references that had, or may have, copies."""
    latest_id_at: EventTime | None = None
    """The latest time in an id of an erased row, by the clock of who made it; null if none has one."""

    @property
    def path(self) -> str:
        """The path of the object in the store."""
        until = NEVER if self.respected_until is None else self.respected_until.astimezone(UTC).date()
        return f"{ERASURES}/{UNTIL_PREFIX}{until.isoformat()}/{self.id}.json"

    @property
    def latest_message(self) -> datetime:
        """The latest time by the broker's clock that a message can have which was erased."""
        return self.begun_at + MAX_CLOCK_SKEW

    @property
    def latest_id(self) -> datetime:
        """The latest time in an id that a row can have which was erased."""
        return self.latest_message if self.latest_id_at is None else max(self.latest_message, self.latest_id_at)

    def in_window(self, window: Window) -> list[ErasedPartition]:
        """Return what was erased between a window's offsets, as parts of the erasure that may have more."""
        return [each for each in self.partitions if each.overlaps(window)]


def save(store: ObjectStore, erasure: Erasure) -> None:
    """Write an erasure, or its new state."""
    store.write(erasure.path, erasure.model_dump_json().encode())


def read_all(store: ObjectStore) -> list[Erasure]:
    """Return the audit log: all erasures, also those that have expired, the oldest first."""
    found = _read(store, store.list_objects(f"{ERASURES}/"))
    return sorted((erasure for erasure in found if erasure is not None), key=lambda each: each.id)


def erased_rows_mask(
    erasures: Iterable[Erasure], window: Window, offsets: Integers, rows: Integers
) -> npt.NDArray[np.bool_]:
    """Return which rows, with their offsets and row numbers, are erased by any of some erasures."""
    found = np.zeros(len(offsets), bool)
    for erasure in erasures:
        for part in erasure.in_window(window):
            found |= part.mask(offsets, rows)
    return found


class Tombstones:
    """The erasures that readers respect now.

    Each object is read once, and again when it has changed. All methods raise :class:`StorageUnavailable`, which those
    that only look things up do if nothing is known yet.
    """

    def __init__(self, store: ObjectStore, max_age_seconds: float = MAX_AGE_SECONDS) -> None:
        """Know nothing yet.

        Args:
            store: Where the erasures are.
            max_age_seconds: How long a new erasure may stay unknown.
        """
        self._store = store
        self._max_age_seconds = max_age_seconds
        self._lock = threading.Lock()
        self._known: dict[StoredObject, Erasure | None] = {}
        self._next_listing = float("-inf")
        self._attempts = 0
        self._failure: StorageUnavailable | None = None  # of the last attempt

    def refresh(self) -> None:
        """List the erasures, and read those that are new or have changed."""
        with self._lock:
            self._refresh()

    def _refresh(self) -> None:
        self._failure = None
        try:
            today = datetime.now(UTC).date()
            listed = [each for each in self._store.list_objects(f"{ERASURES}/") if _until(each.path) >= today]
            new = [each for each in listed if each not in self._known]
            read = dict(zip(new, _read(self._store, new), strict=True))
            self._known = {each: read[each] if each in read else self._known[each] for each in listed}
            self._next_listing = time.monotonic() + self._max_age_seconds
        except StorageUnavailable as error:
            self._failure = error
            raise
        finally:
            self._attempts += 1

    def follow(self, on_progress: Callable[[], None]) -> None:
        """Refresh once, in a background thread, so that nobody else has to wait for a listing."""
        self.refresh()
        on_progress()

    def current(self) -> list[Erasure]:
        """Return the erasures, listed not too long ago."""
        if time.monotonic() >= self._next_listing:
            attempts = self._attempts
            with self._lock:
                if self._attempts == attempts:
                    self._refresh()
                elif self._failure is not None:  # of the attempt that this thread has waited for
                    raise StorageUnavailable(str(self._failure)) from self._failure
        return [erasure for erasure in self._known.values() if erasure is not None]

    def without_erased(self, table: pa.Table, window: Window, published_at: float) -> pa.Table:
        """Return rows of a slice without those that are erased.

        Args:
            table: The rows, with offset and, if they are predictions, row number.
            window: The slice.
            published_at: When its first message reached the topic, in seconds since 1970.
        """
        hit = [
            erasure
            for erasure in self.current()
            if published_at <= erasure.latest_message.timestamp() and erasure.in_window(window)
        ]
        if not hit or not len(table):
            return table
        return table.filter(pa.array(~erased_rows_mask(hit, window, *positions_of(table))))

    def event_left(self, record: "ConsumerRecord", event: Event) -> Event | None:
        """Return what is left of a message's event; ``None`` if it is erased.

        An erased row of a prediction with others keeps its place, without its values.
        """
        erased: set[int] = set()
        window = _window_of(record)
        for erasure in self.current():
            if record.timestamp / 1000 > erasure.latest_message.timestamp():
                continue
            for part in erasure.in_window(window):
                rows = part.rows_of(record.offset)
                if rows is None:
                    return None
                erased.update(rows)
        return _without_values(event, erased) if erased and isinstance(event, Prediction) else event

    def is_erased(self, topic: str, partition: int, offset: int, at: datetime) -> bool:
        """Return whether a message is erased as a whole, by its position and when it reached the topic."""
        window = Window(topic=topic, partition=partition, first_offset=offset, last_offset=offset)
        return any(
            at <= erasure.latest_message and part.rows_of(offset) is None
            for erasure in self.current()
            for part in erasure.in_window(window)
        )


class RowPositions(NamedTuple):
    """Where rows of a table were on their topic."""

    offsets: Integers
    rows: Integers


def positions_of(table: pa.Table) -> RowPositions:
    """Return offsets and row numbers of archived rows; an outcome has one row, whatever row it is about."""
    offsets = table[OFFSET_COLUMN].to_numpy().astype(np.int64)
    is_prediction = ROW_COLUMN in table.column_names and not table[ROW_COLUMN].null_count
    rows = table[ROW_COLUMN].to_numpy().astype(np.int64) if is_prediction else np.zeros(len(table), np.int64)
    return RowPositions(offsets, rows)


def _without_values(event: Prediction, erased: set[int]) -> Prediction:
    def blank(cells: Sequence[object] | None, value: object = None) -> list[object] | None:
        return None if cells is None else [value if row in erased else cell for row, cell in enumerate(cells)]

    return event.model_copy(
        update={
            "features": {name: blank(cells) for name, cells in event.features.items()},
            "predictions": blank(event.predictions, ERASED_PREDICTION),
            "labels": None,
            "keys": blank(event.keys),
            "context": event.context and {name: blank(cells) for name, cells in event.context.items()},
        }
    )


def _window_of(record: "ConsumerRecord") -> Window:
    return Window(topic=record.topic, partition=record.partition, first_offset=record.offset, last_offset=record.offset)


def _until(path: str) -> date:
    """Return the last day on which an erasure is respected; one with an unknown path expires never."""
    try:
        return date.fromisoformat(PurePosixPath(path).parent.name.removeprefix(UNTIL_PREFIX))
    except ValueError:
        return NEVER


def _read(store: ObjectStore, objects: Iterable[StoredObject]) -> list[Erasure | None]:
    def read(found: StoredObject) -> Erasure | None:
        try:
            return Erasure.model_validate_json(store.read(found.path))
        except FileNotFoundError:
            return None
        except ValidationError as error:
            log.error("erasures.unreadable", file=found.path, error=str(error.errors(include_input=False)))
            return None

    return map_reads(read, objects)
