"""The windows before a window: the same whether the worker has just judged them or reads them from the archive."""

from collections.abc import Callable, Sequence

import pandas as pd

from drift_worker.windows import archive
from driftloop.events import Window
from driftloop.storage.bucket import Bucket


class RecentWindows:
    """A partition's latest windows, one version's rows each."""

    def __init__(
        self,
        bucket: Bucket,
        min_rows: int,
        preceding_slices: Callable[[Window, int], Sequence[Window]],
        max_windows: int = 2,
    ) -> None:
        """``fewest`` rows of a version make a window count; ``most`` windows are kept a partition.

        ``finals`` names so many slices that come right before one, in order: the archive may have others.
        """
        self._bucket = bucket
        self._min_rows = min_rows
        self._preceding_slices = preceding_slices
        self._max_windows = max_windows
        self._windows: dict[tuple[str, int], list[tuple[Window, pd.DataFrame]]] = {}

    def preceding_rows(self, window: Window, model: str, version: str, count: int) -> list[pd.DataFrame] | None:
        """The version's rows of the ``count`` windows before this one, the oldest first.

        ``None`` where they do not follow one another without a gap, or one of them has too few rows of the version.
        """
        preceding = self._contiguous_until(window)
        if len(preceding) < count:
            return None
        frames = []
        for _, rows in preceding[-count:]:
            version_rows = rows[(rows["model"] == model) & (rows["version"] == version)]
            if len(version_rows) < self._min_rows:
                return None
            frames.append(version_rows)
        return frames

    def seen_event_ids(self, window: Window) -> set[str]:
        """The events of the windows before this one."""
        return {str(event_id) for _, rows in self._contiguous_until(window) for event_id in rows["id"].unique()}

    def add(self, window: Window, rows: pd.DataFrame) -> None:
        """A window's rows of all versions, once it has been judged."""
        preceding = self._contiguous_until(window)
        self._windows[window.topic, window.partition] = [*preceding, (window, rows)][-self._max_windows :]

    def forget(self, topic: str, partition: int) -> None:
        """The partition is somebody else's."""
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
            except FileNotFoundError:  # a slice without a row
                break
        return windows
