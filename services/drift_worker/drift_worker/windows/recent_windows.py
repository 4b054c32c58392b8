"""The windows before a window, from memory or from the archive, with equal results."""

from collections.abc import Callable, Sequence

import pandas as pd

from drift_worker.windows import archive
from drift_worker.windows.version_rows import rows_of_version
from driftloop.events import ID_COLUMN, Window
from driftloop.storage.bucket import Bucket


class RecentWindows:
    """The latest windows of each partition, with the rows of all versions."""

    def __init__(
        self,
        bucket: Bucket,
        min_rows: int,
        preceding_slices: Callable[[Window, int], Sequence[Window]],
        max_windows: int = 2,
    ) -> None:
        """Start without windows.

        Args:
            bucket: Where the archive is.
            min_rows: Rows of a version that a window needs to count as one of the version's windows.
            preceding_slices: Returns at most n committed slices that end right before a window, in order. The archive
                may also have orphans, so it is not listed.
            max_windows: Windows kept per partition.
        """
        self._bucket = bucket
        self._min_rows = min_rows
        self._preceding_slices = preceding_slices
        self._max_windows = max_windows
        self._windows: dict[tuple[str, int], list[tuple[Window, pd.DataFrame]]] = {}

    def preceding_rows(self, window: Window, model: str, version: str, count: int) -> list[pd.DataFrame] | None:
        """Return a version's rows of the ``count`` windows before a window, the oldest window first.

        Return ``None`` if there is a gap between the windows, or if one of them has too few rows of the version.
        """
        preceding = self._contiguous_until(window)
        if len(preceding) < count:
            return None
        frames = []
        for _, rows in preceding[-count:]:
            version_rows = rows_of_version(rows, model, version)
            if len(version_rows) < self._min_rows:
                return None
            frames.append(version_rows)
        return frames

    def seen_event_ids(self, window: Window) -> set[str]:
        """Return the ids of the prediction events in the windows before a window."""
        return {str(event_id) for _, rows in self._contiguous_until(window) for event_id in rows[ID_COLUMN].unique()}

    def add(self, window: Window, rows: pd.DataFrame) -> None:
        """Add a judged window with its rows of all versions."""
        preceding = self._contiguous_until(window)
        self._windows[window.topic, window.partition] = [*preceding, (window, rows)][-self._max_windows :]

    def forget(self, topic: str, partition: int) -> None:
        """Drop the windows of a partition that another worker owns now."""
        self._windows.pop((topic, partition), None)

    def _contiguous_until(self, window: Window) -> list[tuple[Window, pd.DataFrame]]:
        key = (window.topic, window.partition)
        windows = self._windows.get(key, [])
        if not windows or windows[-1][0].last_offset + 1 != window.first_offset:
            windows = self._windows[key] = self._from_archive(window)
        return windows

    def _from_archive(self, window: Window) -> list[tuple[Window, pd.DataFrame]]:
        windows: list[tuple[Window, pd.DataFrame]] = []
        for earlier in reversed(self._preceding_slices(window, self._max_windows)):
            try:
                windows.insert(0, (earlier, archive.read_slice(self._bucket, earlier)))
            except FileNotFoundError:  # a slice without rows has no file
                break
        return windows
