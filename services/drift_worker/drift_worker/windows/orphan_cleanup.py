"""Delete orphans of the archive and old reports, a few at a time between the windows."""

from collections import deque
from collections.abc import Callable, Collection, Iterable
from datetime import timedelta

import structlog

from driftloop.archive.layout import list_slices, list_slices_between, slice_path
from driftloop.archive.partition_state import Partition
from driftloop.errors import BrokerUnavailable, StorageUnavailable
from driftloop.events import Window, now
from driftloop.storage.object_store import ObjectStore

log = structlog.get_logger(__name__)

SCAN_INTERVAL_SECONDS = 60  # one listing request per partition
MAX_SLICES = 1_000  # committed slices known per partition; a worker frozen for longer than these take is rare
REPORT_SCAN_INTERVAL_SECONDS = 3_600  # each scan lists all reports
DELETES_PER_STEP = 20  # reports; one request each, and windows wait for them


class ArchiveCleaner:
    """Deletes archived slices that were never committed, and reports older than their retention.

    A worker that is killed between the archive and the commit leaves such an orphan, and so does one that is frozen and
    writes after its partitions have moved. A slice is an orphan if it begins within the range of a partition's
    committed slices, which have no gaps but where messages were deleted, and is not one of them. An orphan is safe to
    delete whoever owns the partition now.
    """

    def __init__(
        self,
        store: ObjectStore,
        report_retention_days: float,
        is_of_another_log: Callable[[Window], bool] = lambda _: False,
    ) -> None:
        """Start without partitions.

        Args:
            store: Where archive and reports are.
            report_retention_days: The age at which a report is deleted.
            is_of_another_log: Tells whether a slice is of a topic that was deleted and made again: then it stays. It
                may raise :class:`StorageUnavailable` and :class:`BrokerUnavailable`.
        """
        self._store = store
        self._is_of_another_log = is_of_another_log
        self._of_another_log: set[Window] = set()
        self._report_age = timedelta(days=report_retention_days)
        self._preexisting: dict[Partition, list[Window]] = {}  # archived before this worker's first slice
        self._closed: list[Window] = []
        self._awaiting_commit: list[Window] = []
        self._committed: dict[Partition, deque[Window]] = {}
        self._expired_reports: list[str] = []
        self._next_scan = self._next_report_scan = float("-inf")

    def on_assigned(self, partition: Partition, committed: Iterable[Window]) -> None:
        """Take over a partition whose latest slices are committed."""
        if slices := deque(committed, MAX_SLICES):
            self._committed[partition] = slices

    def on_slice_closed(self, window: Window) -> None:
        """Add a slice that is committed in this round of the loop. Raises :class:`StorageUnavailable`."""
        partition = (window.topic, window.partition)
        if partition not in self._preexisting:
            archived = [file.window for file in list_slices(self._store, *partition)]
            self._preexisting[partition] = [one for one in archived if one.first_offset >= window.first_offset]
        self._closed.append(window)

    def on_revoked(self, partitions: Collection[Partition]) -> None:
        """Drop partitions that another worker owns now, which cleans them from now on."""
        revoked = set(partitions)
        self._closed, self._awaiting_commit = (
            [window for window in windows if (window.topic, window.partition) not in revoked]
            for windows in (self._closed, self._awaiting_commit)
        )
        for partition in revoked:
            self._preexisting.pop(partition, None)
            self._committed.pop(partition, None)

    def run_step(self, clock: float) -> None:
        """Do what is due; called once in each round of the loop. If the bucket is unavailable, it is done later."""
        for window in self._awaiting_commit:  # these were closed in the previous round, which has been committed
            self._record_committed(window)
        self._awaiting_commit, self._closed = self._closed, []
        try:
            for partition, committed in self._committed.items():
                preexisting = self._preexisting.get(partition, [])
                self._delete_orphans(committed, preexisting)
                preexisting[:] = [one for one in preexisting if one.first_offset > committed[-1].last_offset]
            if clock >= self._next_scan:
                self._next_scan = clock + SCAN_INTERVAL_SECONDS
                for committed in self._committed.values():
                    self._delete_orphans(committed, list_slices_between(self._store, committed[0], committed[-1]))
                self._delete_expired_reports(clock)
        except (StorageUnavailable, BrokerUnavailable) as error:
            log.warning("archive_cleaner.postponed", error=str(error))

    def _record_committed(self, window: Window) -> None:
        committed = self._committed.setdefault((window.topic, window.partition), deque(maxlen=MAX_SLICES))
        if (
            committed and committed[-1].last_offset + 1 != window.first_offset
        ):  # another worker had the partition in between
            committed.clear()
        committed.append(window)

    def _delete_orphans(self, committed: deque[Window], candidates: Iterable[Window]) -> None:
        offsets = range(committed[0].first_offset, committed[-1].last_offset + 1)
        kept = self._of_another_log.union(committed)
        for window in candidates:
            if window.first_offset not in offsets or window in kept:
                continue
            if self._is_of_another_log(window):
                log.warning("archive_cleaner.slice_of_another_log", window=window.name)
                self._of_another_log.add(window)
                continue
            log.warning("archive_cleaner.orphan_deleted", window=window.name)
            self._store.delete(slice_path(window))

    def _delete_expired_reports(self, clock: float) -> None:
        if not self._expired_reports and clock >= self._next_report_scan:
            self._next_report_scan = clock + REPORT_SCAN_INTERVAL_SECONDS
            self._expired_reports = self._store.list_modified_before("reports/", now() - self._report_age)
        batch, self._expired_reports = (
            self._expired_reports[:DELETES_PER_STEP],
            self._expired_reports[DELETES_PER_STEP:],
        )
        for path in batch:
            self._store.delete(path)
