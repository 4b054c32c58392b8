"""The outbox: a durable queue on local disk of events that are not published yet.

A request is answered once its event is in the outbox; the relay publishes it to Kafka. One folder is one outbox: a
process that starts on a folder continues with the events that an earlier process left there.

The file also has the last position of its own that it has seen committed by the broker. It is updated in the
transaction that deletes the published events, so the two never disagree, and a copy of the file has both as they were.
"""

import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from driftloop.errors import DependencyUnavailable, InvalidInput
from driftloop.kafka.codec import SerializedEvent
from predictor import metrics
from predictor.outbox.disk_space import DiskSpace
from predictor.settings import OutboxSettings

SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    position INTEGER PRIMARY KEY AUTOINCREMENT,  -- in the order of commits, never reused
    stored_at REAL NOT NULL,                     -- seconds since 1970
    type TEXT NOT NULL, id TEXT NOT NULL, time TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL,
    traceparent TEXT
);
CREATE TABLE IF NOT EXISTS outbox (name TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS relay (
    committed_position INTEGER NOT NULL,  -- the last one that this file has seen committed by the broker
    clock_skew_seconds REAL,              -- this machine's time minus the broker's
    error TEXT                            -- why events cannot be published; null while they can
);
INSERT INTO relay SELECT 0, NULL, NULL WHERE NOT EXISTS (SELECT * FROM relay);
"""
BUSY_TIMEOUT_SECONDS = 10  # another process that uses the folder holds the write lock for milliseconds
MAX_READ_BYTES = 16 * 2**20  # of events that are read at once; a single one may be larger
MAX_DELETED_EVENTS = 500  # in one transaction, which needs room for the pages that it changes
MAX_WAL_BYTES = 8 * 2**20  # to which the write-ahead log is cut back after a large transaction
SHRINK_BYTES = 16 * 2**20  # unused in the file of an empty outbox, above which they are given back to the disk


class OutboxUnavailable(DependencyUnavailable):
    """The events cannot be stored, so the request must not be answered. The message says why and what to change."""


class EventTooLarge(InvalidInput):
    """The event is larger than the broker accepts. The message names the setting that decides."""


class OutboxDepth(NamedTuple):
    """How many events wait for the broker, and for how long."""

    events: int
    age_seconds: float
    """How long ago the oldest event was stored; 0 for an empty outbox."""


class RelayState(NamedTuple):
    """What the relay has reported about itself: it is another process than those that answer requests."""

    clock_skew_seconds: float | None = None
    """This machine's time minus the broker's; ``None`` if it is not known yet."""
    error: str | None = None
    """Why events cannot be published; ``None`` while they can."""


class Outbox:
    """Events in the order in which they were stored. May be used by several threads and processes at once."""

    name: str
    """Identifies the outbox to the broker: whoever publishes under a name fences all others."""
    write_error: str | None = None
    """Why the latest write of this process has failed; ``None`` if it has succeeded."""

    def __init__(self, folder: Path, limits: OutboxSettings, *, durable: bool = True) -> None:
        """Open the outbox in ``folder``; create it if there is none.

        Args:
            folder: A folder on local disk.
            limits: The size limits, and whether a commit waits for the disk.
            durable: Whether a commit survives a failure of the machine, unless the settings disable that. The relay
                needs no durable commits, because it only deletes.

        Raises:
            OSError: The file cannot be opened, or is not an outbox.
        """
        self.limits = limits
        self._lock = threading.RLock()
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "outbox.sqlite"
        try:
            self._db = sqlite3.connect(
                path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute(f"PRAGMA synchronous = {'FULL' if durable and limits.fsync else 'NORMAL'}")
            self._db.execute("PRAGMA secure_delete = OFF")  # or else deleting writes zeros over all of an event
            self._db.execute(f"PRAGMA journal_size_limit = {MAX_WAL_BYTES}")
            self._db.executescript(SCHEMA)
            self._db.execute("INSERT INTO outbox SELECT ? WHERE NOT EXISTS (SELECT * FROM outbox)", [_new_name()])
            self.name = self._db.execute("SELECT name FROM outbox").fetchone()[0]
        except sqlite3.Error as error:
            raise OSError(f"{path} cannot be opened as an outbox (DRIFTLOOP_PREDICTOR__DATA_DIR): {error}") from error
        self._space = DiskSpace(folder, self._db, limits.min_free_bytes)

    def require_size(self, event: SerializedEvent) -> None:
        """Check that the broker accepts an event of this size; otherwise it would block all later events.

        Raises:
            EventTooLarge: The event is larger than ``DRIFTLOOP_OUTBOX__MAX_EVENT_BYTES``.
        """
        if len(event.value) > self.limits.max_event_bytes:
            raise EventTooLarge(
                f"the request's event has {len(event.value):,} bytes, and the limit is "
                f"{self.limits.max_event_bytes:,} (DRIFTLOOP_OUTBOX__MAX_EVENT_BYTES)"
            )

    def full_reason(self) -> str | None:
        """Return why the outbox takes no events now; ``None`` if it does.

        Requests and readiness both go by this.

        Raises:
            OutboxUnavailable: The outbox cannot be read.
        """
        pending = self.depth().events
        if pending >= self.limits.max_events:
            return (
                f"the outbox is full: {pending:,} events wait for the broker, and the limit is "
                f"{self.limits.max_events:,} (DRIFTLOOP_OUTBOX__MAX_EVENTS, DRIFTLOOP_OUTBOX__ON_FULL)"
            )
        with self._translate_errors():
            return self._space.shortage()

    def free_bytes(self) -> int:
        """Return by how many bytes the outbox may still grow.

        Raises:
            OutboxUnavailable: The outbox cannot be read.
        """
        with self._translate_errors():
            return self._space.left_bytes()

    def require_capacity(self) -> None:
        """Check that the outbox is not full. Always passes if a full outbox is set to drop events.

        Raises:
            OutboxUnavailable: The outbox is full and set to refuse requests, or it cannot be read.
        """
        if self.limits.on_full == "reject" and (reason := self.full_reason()):
            raise OutboxUnavailable(reason)

    def append(self, events: Sequence[SerializedEvent]) -> None:
        """Store the events in one commit; they are on disk when it returns.

        If the outbox is full and set to drop events, they are only counted.

        Raises:
            OutboxUnavailable: The disk is full or fails. None of the events is stored.
        """
        with self._translate_errors():
            shortage = self._space.shortage(sum(len(event.value) for event in events))
        if self.limits.on_full == "drop" and (shortage or self.full_reason()):
            metrics.OUTBOX_DROPPED.inc(len(events))
            return
        if shortage:
            raise OutboxUnavailable(shortage)
        stored_at = time.time()
        with self._write_transaction():
            self._db.executemany(
                "INSERT INTO events (stored_at, type, id, time, key, value, traceparent) VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(stored_at, *event) for event in events],
            )

    def probe(self) -> None:
        """Write something, if the latest write has failed, to find out whether writing works again."""
        if self.write_error is not None:
            with suppress(OutboxUnavailable), self._write_transaction():  # the attribute says whether it has failed
                self._db.execute("UPDATE outbox SET name = name")

    def depth(self) -> OutboxDepth:
        """Return how many events wait for the broker, and for how long.

        Raises:
            OutboxUnavailable: The outbox cannot be read.
        """
        last, first, stored_at = self._fetch_row(
            "SELECT (SELECT max(position) FROM events), (SELECT min(position) FROM events),"
            " (SELECT stored_at FROM events ORDER BY position LIMIT 1)"
        )
        return OutboxDepth(0, 0) if first is None else OutboxDepth(last - first + 1, max(time.time() - stored_at, 0))

    def read_after(self, position: int, count: int) -> list[tuple[int, SerializedEvent]]:
        """Return up to ``count`` events after a position, each with its own position; fewer if they are large.

        Raises:
            OutboxUnavailable: The outbox cannot be read.
        """
        events: list[tuple[int, SerializedEvent]] = []
        size = 0
        with self._translate_errors():
            rows = self._db.execute(
                "SELECT position, type, id, time, key, value, traceparent FROM events"
                " WHERE position > ? ORDER BY position LIMIT ?",
                [position, count],
            )
            for row in rows:
                events.append((row[0], SerializedEvent(*row[1:])))
                size += len(events[-1][1].value)
                if size > MAX_READ_BYTES:
                    break
            rows.close()
        return events

    def committed_position(self) -> int:
        """Return the last position that this file has seen committed; 0 if it has seen none.

        Raises:
            OutboxUnavailable: The outbox cannot be read.
        """
        return int(self._fetch_row("SELECT committed_position FROM relay")[0])

    def has_event(self, position: int, event_id: str) -> bool:
        """Return whether the event at a position has this id.

        Raises:
            OutboxUnavailable: The outbox cannot be read.
        """
        query = "SELECT EXISTS (SELECT * FROM events WHERE position = ? AND id = ?)"
        return bool(self._fetch_row(query, [position, event_id])[0])

    def delete_through(self, position: int) -> None:
        """Delete the events up to and including ``position``, which the broker has committed, in several steps.

        The event at ``position`` is deleted last: until then a relay that starts recognizes the position by it.

        Raises:
            OutboxUnavailable: The outbox cannot be written. Some events may be deleted.
        """
        count = MAX_DELETED_EVENTS
        while count:
            try:
                count = count if self._delete_some(position, count) else 0
            except OutboxUnavailable as error:
                is_full = getattr(error.__cause__, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
                if count == 1 or not is_full:
                    raise
                count = max(count // 10, 1)  # fewer events need less room

    def shrink(self) -> None:
        """Give the disk back what the file of an empty outbox does not use, if it is much.

        Raises:
            OutboxUnavailable: The outbox cannot be written.
        """
        with self._translate_errors():
            if self._space.unused_bytes() > SHRINK_BYTES and not self.depth().events:
                self._db.execute("VACUUM")
                self.empty_wal()

    def empty_wal(self) -> None:
        """Move what is in the write-ahead log to the file, and give the disk back what neither needs. Does not raise.

        SQLite does it after some commits, but a log that cannot grow on a full disk admits none.
        """
        with self._lock, suppress(sqlite3.Error):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def rename(self) -> str:
        """Give the outbox a new name, under which nothing was published yet, and return it.

        Raises:
            OutboxUnavailable: The outbox cannot be written.
        """
        name = _new_name()
        with self._write_transaction():
            self._db.execute("UPDATE outbox SET name = ?", [name])
        self.name = name
        return name

    def save_relay_state(self, state: RelayState) -> None:
        """Report the relay's state to the processes that answer requests.

        Raises:
            OutboxUnavailable: The outbox cannot be written.
        """
        with self._write_transaction():
            self._db.execute("UPDATE relay SET clock_skew_seconds = ?, error = ?", state)

    def relay_state(self) -> RelayState:
        """Return what the relay has reported last.

        Raises:
            OutboxUnavailable: The outbox cannot be read.
        """
        return RelayState(*self._fetch_row("SELECT clock_skew_seconds, error FROM relay"))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def _delete_some(self, position: int, max_count: int) -> bool:
        """Delete at most ``max_count`` of the oldest events up to ``position``; return whether there may be more."""
        with self._write_transaction():
            count, last = self._db.execute(
                "SELECT count(*), max(position) FROM"
                " (SELECT position FROM events WHERE position <= ? ORDER BY position LIMIT ?)",
                [position, max_count],
            ).fetchone()
            is_rest = count < max_count
            self._db.execute("DELETE FROM events WHERE position <= ?", [position if is_rest else last])
            self._db.execute(
                "UPDATE relay SET committed_position = max(committed_position, ?)", [position if is_rest else last]
            )
        return not is_rest

    def _fetch_row(self, query: str, arguments: Sequence[object] = ()) -> tuple[Any, ...]:
        with self._translate_errors():
            row: tuple[Any, ...] = self._db.execute(query, arguments).fetchone()
            return row

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Hold the lock, and translate errors of SQLite."""
        try:
            with self._lock:
                yield
        except (sqlite3.Error, OSError) as error:
            raise OutboxUnavailable(f"the outbox on disk cannot be used: {error}") from error

    @contextmanager
    def _write_transaction(self) -> Iterator[None]:
        """Run the block as one transaction that takes the write lock at its start.

        Upgrading a read transaction to a write could fail if another process commits in between.
        """
        try:
            with self._translate_errors():
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield
                    self._db.execute("COMMIT")
                except BaseException:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                    raise
        except OutboxUnavailable as error:
            self.write_error = str(error)
            self.empty_wal()
            raise
        self.write_error = None


def _new_name() -> str:
    return f"outbox-{uuid.uuid4()}"
