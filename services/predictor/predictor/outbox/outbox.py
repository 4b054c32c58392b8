"""The outbox: a durable queue on local disk of events that are not published yet.

A request is answered once its event is in the outbox; the relay publishes it to Kafka. One folder is one outbox: a
process that starts on a folder continues with the events that an earlier process left there.
"""

import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from driftloop.errors import DependencyUnavailable, InvalidInput
from driftloop.kafka.codec import SerializedEvent
from predictor import metrics
from predictor.settings import OutboxSettings

SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    position INTEGER PRIMARY KEY AUTOINCREMENT,  -- in the order of commits, never reused
    stored_at REAL NOT NULL,                     -- seconds since 1970
    type TEXT NOT NULL, id TEXT NOT NULL, time TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL,
    traceparent TEXT
);
CREATE TABLE IF NOT EXISTS outbox (name TEXT NOT NULL);
"""
BUSY_TIMEOUT_SECONDS = 10  # another process that uses the folder holds the write lock for milliseconds


class OutboxUnavailable(DependencyUnavailable):
    """The events cannot be stored, so the request must not be answered. The message says why and what to change."""


class EventTooLarge(InvalidInput):
    """The event is larger than the broker accepts. The message names the setting that decides."""


class OutboxDepth(NamedTuple):
    """How many events wait for the broker, and for how long."""

    events: int
    age_seconds: float
    """How long ago the oldest event was stored; 0 for an empty outbox."""


class Outbox:
    """Events in the order in which they were stored. May be used by several threads and processes at once."""

    name: str
    """Identifies the outbox for as long as its file exists."""

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
            self._db.executescript(SCHEMA)
            self._db.execute(
                "INSERT INTO outbox SELECT ? WHERE NOT EXISTS (SELECT * FROM outbox)", [f"outbox-{uuid.uuid4()}"]
            )
            self.name = self._db.execute("SELECT name FROM outbox").fetchone()[0]
        except sqlite3.Error as error:
            raise OSError(f"{path} cannot be opened as an outbox (DRIFTLOOP_PREDICTOR__DATA_DIR): {error}") from error

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

    def require_capacity(self) -> None:
        """Check that the outbox is not full. Always passes if a full outbox is set to drop events.

        Raises:
            OutboxUnavailable: The outbox is full and set to refuse requests, or it cannot be read.
        """
        if self.limits.on_full == "reject" and (pending := self.depth().events) >= self.limits.max_events:
            raise OutboxUnavailable(
                f"the outbox is full: {pending:,} events wait for the broker (DRIFTLOOP_OUTBOX__MAX_EVENTS, "
                "DRIFTLOOP_OUTBOX__ON_FULL)"
            )

    def append(self, events: Sequence[SerializedEvent]) -> None:
        """Store the events in one commit; they are on disk when it returns.

        If the outbox is full and set to drop events, they are only counted.

        Raises:
            OutboxUnavailable: The disk is full or fails. None of the events is stored.
        """
        with self._write_transaction():
            if self.limits.on_full == "drop" and self.depth().events >= self.limits.max_events:
                metrics.OUTBOX_DROPPED.inc(len(events))
                return
            stored_at = time.time()
            self._db.executemany(
                "INSERT INTO events (stored_at, type, id, time, key, value, traceparent) VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(stored_at, *event) for event in events],
            )

    def depth(self) -> OutboxDepth:
        """Return how many events wait for the broker, and for how long.

        Raises:
            OutboxUnavailable: The outbox cannot be read.
        """
        with self._translate_errors():
            last, first, stored_at = self._db.execute(
                "SELECT (SELECT max(position) FROM events), (SELECT min(position) FROM events),"
                " (SELECT stored_at FROM events ORDER BY position LIMIT 1)"
            ).fetchone()
        return OutboxDepth(0, 0) if first is None else OutboxDepth(last - first + 1, max(time.time() - stored_at, 0))

    def read_after(self, position: int, count: int) -> list[tuple[int, SerializedEvent]]:
        """Return up to ``count`` events after a position, each with its own position.

        Raises:
            OutboxUnavailable: The outbox cannot be read.
        """
        with self._translate_errors():
            rows = self._db.execute(
                "SELECT position, type, id, time, key, value, traceparent FROM events"
                " WHERE position > ? ORDER BY position LIMIT ?",
                [position, count],
            ).fetchall()
        return [(row[0], SerializedEvent(*row[1:])) for row in rows]

    def delete_through(self, position: int) -> None:
        """Delete the events up to and including ``position``, which must have been published.

        Raises:
            OutboxUnavailable: The outbox cannot be written.
        """
        with self._write_transaction():
            self._db.execute("DELETE FROM events WHERE position <= ?", [position])

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Hold the lock, and translate errors of SQLite."""
        try:
            with self._lock:
                yield
        except sqlite3.Error as error:
            raise OutboxUnavailable(f"the outbox on disk cannot be used: {error}") from error

    @contextmanager
    def _write_transaction(self) -> Iterator[None]:
        """Run the block as one transaction that takes the write lock at its start.

        Upgrading a read transaction to a write could fail if another process commits in between.
        """
        with self._translate_errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
