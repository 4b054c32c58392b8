"""The latest archived slices of a topic, in memory."""

import time
from collections.abc import Callable, Iterable

import pandas as pd
import structlog

from driftloop.archive.layout import list_slices, slice_path
from driftloop.errors import ArchiveUnreadable
from driftloop.events import Window
from driftloop.storage.object_store import ObjectStore
from driftloop.storage.parallel_reads import map_reads

log = structlog.get_logger(__name__)


LISTING_COST_FACTOR = 9  # the seconds between two listings for each second that one takes


class RecentSlices:
    """The rows of the latest archived slices of a topic, a fixed number per partition. Each file is read once."""

    def __init__(
        self,
        store: ObjectStore,
        topic: str,
        max_slices: int,
        columns: list[str],
        transform: Callable[[pd.DataFrame, str], pd.DataFrame],
        listing_interval_seconds: float,
    ) -> None:
        """Start without slices.

        Args:
            store: Where the archive is.
            topic: The topic whose slices are read.
            max_slices: The number of slices per partition.
            columns: The columns to read.
            transform: Turns a slice's columns and its name into the rows to keep.
            listing_interval_seconds: How long the slices of other workers may stay unknown: until the archive is listed
                again. Those of this worker are added.
        """
        self._store = store
        self._topic = topic
        self._max_slices = max_slices
        self._columns = columns
        self._transform = transform
        self._listing_interval_seconds = listing_interval_seconds
        self._next_listing = float("-inf")
        self._added: list[Window] = []
        self._frames: dict[Window, pd.DataFrame] = {}
        self._no_rows = transform(pd.DataFrame(columns=columns), "")

    @property
    def slices(self) -> list[Window]:
        """The slices at the last refresh; those of a partition are in order."""
        return list(self._frames)

    def add(self, window: Window) -> None:
        """Note that a slice was archived."""
        self._added.append(window)

    def forget_listing(self) -> None:
        """List the archive at the next refresh: other workers may have had partitions of this one."""
        self._next_listing = float("-inf")

    def refresh(self, until: Window | None = None) -> None:
        """Read slices that are new since the last refresh, and drop those that are too old or deleted.

        Args:
            until: The last slice of its partition that counts; by default all do. Others behind it can be those of a
                topic that was deleted, or of offsets that are read again.
        """
        by_partition: dict[int, list[Window]] = {}
        for window in self._known():
            if until is None or window.partition != until.partition or _end_of(window) <= _end_of(until):
                by_partition.setdefault(window.partition, []).append(window)
        latest = [window for windows in by_partition.values() for window in windows[-self._max_slices :]]
        new = [window for window in latest if window not in self._frames]
        frames = dict(zip(new, map_reads(self._read, new), strict=True))
        self._frames = {window: frames[window] if window in frames else self._frames[window] for window in latest}

    def _known(self) -> list[Window]:
        """Return the slices, in order, that are archived as far as is known."""
        now = time.monotonic()
        if now < self._next_listing:
            windows = [*self._frames, *self._added]
        else:
            windows = [file.window for file in list_slices(self._store, self._topic)]  # the latest are never merged
            listed = time.monotonic()
            # A tenth of the time at most, while there are thousands of slices that are not merged yet.
            self._next_listing = listed + max(self._listing_interval_seconds, LISTING_COST_FACTOR * (listed - now))
        self._added = []
        return sorted(set(windows), key=lambda each: (each.partition, each.first_offset, each.last_offset))

    def rows(self) -> pd.DataFrame:
        """Return the rows of all slices at the last refresh, in order."""
        return self._concat(self._frames.values())

    def rows_with(self, column: str, values: pd.Series) -> pd.DataFrame:
        """Return the rows that have one of some values in a column, in order.

        All rows at once take as much memory again, and they can be millions.
        """
        wanted = pd.Index(values).unique()
        return self._concat(frame[wanted.get_indexer(pd.Index(frame[column])) >= 0] for frame in self._frames.values())

    def _concat(self, frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
        filled = [frame for frame in frames if len(frame)]
        return pd.concat(filled, ignore_index=True) if filled else self._no_rows

    def _read(self, window: Window) -> pd.DataFrame:
        """Return a slice's transformed rows; none if the file was deleted since the listing or is no Parquet file."""
        try:
            rows = self._store.read_parquet(slice_path(window), self._columns)
        except (FileNotFoundError, ArchiveUnreadable) as error:
            log.warning("archive.slice_skipped", window=window.name, error=str(error))
            rows = pd.DataFrame(columns=self._columns)
        return self._transform(rows, window.name)


def _end_of(window: Window) -> tuple[int, int]:
    return window.last_offset, window.first_offset
