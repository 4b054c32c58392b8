"""The windows before a window: the same whether the worker has just judged them or reads them from the archive."""

from collections.abc import Callable, Sequence

import pandas as pd

from drift_worker.windows import archive
from driftloop.events import Window
from driftloop.storage.bucket import Bucket


class History:
    """A partition's latest windows, one version's rows each."""

    def __init__(
        self, bucket: Bucket, fewest: int, finals: Callable[[Window, int], Sequence[Window]], most: int = 2
    ) -> None:
        """``fewest`` rows of a version make a window count; ``most`` windows are kept a partition.

        ``finals`` names so many slices that come right before one, in order: the archive may have others.
        """
        self._bucket = bucket
        self._fewest = fewest
        self._finals = finals
        self._most = most
        self._kept: dict[tuple[str, int], list[tuple[Window, pd.DataFrame]]] = {}

    def before(self, window: Window, model: str, version: str, count: int) -> list[pd.DataFrame] | None:
        """The version's rows of the ``count`` windows before this one, the oldest first.

        ``None`` where they do not follow one another without a gap, or one of them has too few rows of the version.
        """
        kept = self._follow_up_to(window)
        if len(kept) < count:
            return None
        chosen = []
        for _, rows in kept[-count:]:
            of_version = rows[(rows["model"] == model) & (rows["version"] == version)]
            if len(of_version) < self._fewest:
                return None
            chosen.append(of_version)
        return chosen

    def ids(self, window: Window) -> set[str]:
        """The events of the windows before this one."""
        return {str(identity) for _, rows in self._follow_up_to(window) for identity in rows["id"].unique()}

    def add(self, window: Window, rows: pd.DataFrame) -> None:
        """A window's rows of all versions, once it has been judged."""
        kept = self._follow_up_to(window)
        self._kept[window.topic, window.partition] = [*kept, (window, rows)][-self._most :]

    def forget(self, topic: str, partition: int) -> None:
        """The partition is somebody else's."""
        self._kept.pop((topic, partition), None)

    def _follow_up_to(self, window: Window) -> list[tuple[Window, pd.DataFrame]]:
        key = (window.topic, window.partition)
        kept = self._kept.get(key, [])
        if not kept or kept[-1][0].last_offset + 1 != window.first_offset:
            kept = self._kept[key] = self._from_archive(window)
        return kept

    def _from_archive(self, window: Window) -> list[tuple[Window, pd.DataFrame]]:
        found: list[tuple[Window, pd.DataFrame]] = []
        for one in reversed(self._finals(window, self._most)):
            try:
                found.insert(0, (one, archive.read(self._bucket, one)))
            except FileNotFoundError:  # a slice without a row
                break
        return found
