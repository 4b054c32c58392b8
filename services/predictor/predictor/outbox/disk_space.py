"""The room that is left on the outbox's disk, of which the last part is kept for deleting.

SQLite needs room to delete: each transaction is first written to the write-ahead log. An outbox that filled its disk to
the last byte could never be emptied again.
"""

import shutil
import sqlite3
from pathlib import Path

MAX_RESERVE_BYTES = 64 * 2**20
MIN_DISK_FRACTION = 8  # on a smaller disk, the reserve is this fraction of it


class DiskSpace:
    """The room for an SQLite file; all methods may raise ``OSError`` and ``sqlite3.Error``."""

    def __init__(self, folder: Path, db: sqlite3.Connection, min_free_bytes: int | None) -> None:
        """Create it for the open file of a folder.

        Args:
            folder: A folder on the disk.
            db: The file. The caller sees to it that no two threads use it at once.
            min_free_bytes: The reserve; ``None`` for 64 MiB, or an eighth of a disk that is smaller than 512 MiB.
        """
        self._folder = folder
        self._db = db
        if min_free_bytes is None:
            min_free_bytes = min(MAX_RESERVE_BYTES, shutil.disk_usage(folder).total // MIN_DISK_FRACTION)
        self._reserve_bytes = min_free_bytes

    def unused_bytes(self) -> int:
        """Return the size of the file's pages that hold nothing any more; the next events go there."""
        (pages,) = self._db.execute("PRAGMA freelist_count").fetchone()
        (page_size,) = self._db.execute("PRAGMA page_size").fetchone()
        return int(pages) * int(page_size)

    def left_bytes(self) -> int:
        """Return how many bytes of events there is room for before the reserve."""
        return max(self._left_bytes(), 0)

    def shortage(self, needed_bytes: int = 0) -> str | None:
        """Return why there is no room for more events, or for events of a size; ``None`` if there is.

        Events of requests that were accepted may use half of the reserve.
        """
        left = self._left_bytes()
        if (left + self._reserve_bytes // 2 > needed_bytes) if needed_bytes else left > 0:
            return None
        return (
            f"the outbox is full: what is left of its disk, {self._reserve_bytes:,} bytes, is kept for deleting events "
            "once they are published (DRIFTLOOP_OUTBOX__MIN_FREE_BYTES, DRIFTLOOP_OUTBOX__ON_FULL)"
        )

    def _left_bytes(self) -> int:
        """Return the room before the reserve; below 0 is what is missing of it."""
        return shutil.disk_usage(self._folder).free + self.unused_bytes() - self._reserve_bytes
