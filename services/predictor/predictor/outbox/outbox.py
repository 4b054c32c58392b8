"""The outbox: events that are promised and not yet on their topics, on local disk.

A request is answered when its event is in here; the relay takes it to Kafka. One folder is one outbox: whoever starts
on a folder goes on with what an earlier process left in it.
"""

import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from driftloop.kafka.codec import Written
from predictor import metrics, settings

TABLES = """
CREATE TABLE IF NOT EXISTS events (
    position INTEGER PRIMARY KEY AUTOINCREMENT,  -- in the order of commits, never given twice
    kept REAL NOT NULL,                          -- seconds since 1970
    type TEXT NOT NULL, id TEXT NOT NULL, time TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL,
    traceparent TEXT
);
CREATE TABLE IF NOT EXISTS outbox (name TEXT NOT NULL);
"""
BUSY_SECONDS = 10  # another process on the folder holds the write lock for milliseconds


class NotKept(Exception):
    """The events are not promised, so the request must not be answered; says why and what to do."""


class TooLarge(Exception):
    """The broker would not take an event of this size; says which setting decides."""


class Depth(NamedTuple):
    """How much waits."""

    events: int
    age_seconds: float
    """How long ago the oldest was kept; 0 where nothing waits."""


class Outbox:
    """Events in the order in which they were kept. Safe to use from several threads and processes."""

    name: str
    """Belongs to this outbox for as long as its file exists."""

    def __init__(self, folder: Path, limits: settings.Outbox, *, durable: bool = True) -> None:
        """Opens the outbox of a folder, and makes it where there is none. Raises :class:`OSError`.

        With ``durable`` a commit outlasts a failure of the machine, unless the settings say otherwise; the relay, which
        only deletes, does not need that.
        """
        self.limits = limits
        self._lock = threading.RLock()
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "outbox.sqlite"
        try:
            self._db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute(f"PRAGMA synchronous = {'FULL' if durable and limits.sync else 'NORMAL'}")
            self._db.executescript(TABLES)
            self._complete()
            self._db.execute(
                "INSERT INTO outbox SELECT ? WHERE NOT EXISTS (SELECT * FROM outbox)", [f"outbox-{uuid.uuid4()}"]
            )
            self.name = self._db.execute("SELECT name FROM outbox").fetchone()[0]
        except (sqlite3.Error, NotKept) as error:
            raise OSError(f"{path} cannot be opened as an outbox (DRIFTLOOP_PREDICTOR__FOLDER): {error}") from error

    def _complete(self) -> None:
        """Gives a file that an earlier driftloop has made the columns that it lacks."""
        with self._writing():
            there = {name for _, name, *_ in self._db.execute("PRAGMA table_info(events)")}
            if "traceparent" not in there:
                self._db.execute("ALTER TABLE events ADD COLUMN traceparent TEXT")

    def check(self, event: Written) -> None:
        """Raises :class:`TooLarge`: an event that the broker never takes would hold up all others."""
        if len(event.value) > self.limits.max_event_bytes:
            raise TooLarge(
                f"the request's event would have {len(event.value):,} bytes, and at most "
                f"{self.limits.max_event_bytes:,} are published (DRIFTLOOP_OUTBOX__MAX_EVENT_BYTES)"
            )

    def check_room(self) -> None:
        """Raises :class:`NotKept` where the outbox is full and requests are to be refused."""
        if self.limits.when_full == "refuse" and (waiting := self.depth().events) >= self.limits.max_events:
            raise NotKept(
                f"{waiting:,} events wait for the broker, and more may not (DRIFTLOOP_OUTBOX__MAX_EVENTS, "
                "DRIFTLOOP_OUTBOX__WHEN_FULL)"
            )

    def keep(self, events: Sequence[Written]) -> None:
        """Keeps all of them in one commit; on disk when it returns. Raises :class:`NotKept`.

        Where the outbox is full and set to drop, they are counted instead.
        """
        with self._writing():
            if self.limits.when_full == "drop" and self.depth().events >= self.limits.max_events:
                metrics.DROPPED.inc(len(events))
                return
            kept = time.time()
            self._db.executemany(
                "INSERT INTO events (kept, type, id, time, key, value, traceparent) VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(kept, *event) for event in events],
            )

    def depth(self) -> Depth:
        """What waits. Raises :class:`NotKept`."""
        with self._reading():
            last, first, kept = self._db.execute(
                "SELECT (SELECT max(position) FROM events), (SELECT min(position) FROM events),"
                " (SELECT kept FROM events ORDER BY position LIMIT 1)"
            ).fetchone()
        return Depth(0, 0) if first is None else Depth(last - first + 1, max(time.time() - kept, 0))

    def after(self, position: int, count: int) -> list[tuple[int, Written]]:
        """The next events after a position, each with its own; at most ``count``."""
        with self._reading():
            rows = self._db.execute(
                "SELECT position, type, id, time, key, value, traceparent FROM events"
                " WHERE position > ? ORDER BY position LIMIT ?",
                [position, count],
            ).fetchall()
        return [(row[0], Written(*row[1:])) for row in rows]

    def trim(self, position: int) -> None:
        """Deletes the events up to a position, which are on their topics."""
        with self._writing():
            self._db.execute("DELETE FROM events WHERE position <= ?", [position])

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        except sqlite3.Error as error:
            raise NotKept(f"the outbox on disk fails: {error}") from error

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction, begun as a writer: a later upgrade could fail on another process' commit."""
        with self._reading():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
