"""What nobody needs in the bucket any more is deleted beside the windows, a little at a time."""

from collections import deque
from collections.abc import Collection, Iterable
from datetime import timedelta

import structlog

from drift_worker.windows import archive
from drift_worker.windows.committed_slices import Partition
from driftloop.events import Window, now
from driftloop.storage.bucket import Away, Bucket

log = structlog.get_logger(__name__)

SCAN_INTERVAL_SECONDS = 60  # between two looks, of a request a partition
MAX_SLICES = 1_000  # final slices of a partition: a worker that is frozen for longer than these take is rare
REPORT_SCAN_INTERVAL_SECONDS = 3_600  # between two looks through all reports
DELETES_PER_STEP = 20  # reports at a time, a request each: windows wait for them


class ArchiveCleaner:
    """Deletes archived slices that never became final, and reports that are too old.

    Such slices come from a worker that was killed before they were final, or was frozen and did not know that the
    partition had moved on. They are looked for among a partition's slices that follow one another up to the last one
    that is known to be final: whatever else begins there is nobody's, whoever has the partition by now.
    """

    def __init__(self, bucket: Bucket, report_days: float) -> None:
        """Looks for the first time when it is called for the first time."""
        self._bucket = bucket
        self._report_age = timedelta(days=report_days)
        self._preexisting: dict[Partition, list[Window]] = {}  # were there before this worker's first slice
        self._closed: list[Window] = []
        self._awaiting_commit: list[Window] = []
        self._committed: dict[Partition, deque[Window]] = {}
        self._expired_reports: list[str] = []
        self._next_scan = self._next_report_scan = float("-inf")

    def on_assigned(self, partition: Partition, committed: Iterable[Window]) -> None:
        """A partition is read on behind slices that are final."""
        if slices := deque(committed, MAX_SLICES):
            self._committed[partition] = slices

    def on_slice_closed(self, window: Window) -> None:
        """A slice is to be final with this round of the loop. Raises :class:`Away`."""
        partition = (window.topic, window.partition)
        if partition not in self._preexisting:
            archived = archive.list_slices(self._bucket, *partition)
            self._preexisting[partition] = [one for one in archived if one.first_offset >= window.first_offset]
        self._closed.append(window)

    def on_revoked(self, partitions: Collection[Partition]) -> None:
        """The partitions are somebody else's: who tidies up there, too."""
        revoked = set(partitions)
        self._closed, self._awaiting_commit = (
            [window for window in windows if (window.topic, window.partition) not in revoked]
            for windows in (self._closed, self._awaiting_commit)
        )
        for partition in revoked:
            self._preexisting.pop(partition, None)
            self._committed.pop(partition, None)

    def run_step(self, clock: float) -> None:
        """Does what is due, another time where the bucket is away. Called once in each round of the loop."""
        for window in self._awaiting_commit:  # in the round before, which has been committed
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
                    self._delete_orphans(
                        committed, archive.list_slices_between(self._bucket, committed[0], committed[-1])
                    )
                self._delete_expired_reports(clock)
        except Away as error:
            log.warning("not tidied up, another time", error=str(error))

    def _record_committed(self, window: Window) -> None:
        committed = self._committed.setdefault((window.topic, window.partition), deque(maxlen=MAX_SLICES))
        if committed and committed[-1].last_offset + 1 != window.first_offset:  # the partition was away in between
            committed.clear()
        committed.append(window)

    def _delete_orphans(self, committed: deque[Window], candidates: Iterable[Window]) -> None:
        offsets = range(committed[0].first_offset, committed[-1].last_offset + 1)
        for window in candidates:
            if window.first_offset in offsets and window not in committed:
                log.warning("a slice that never became final is deleted", window=window.name)
                self._bucket.delete(archive.slice_path(window))

    def _delete_expired_reports(self, clock: float) -> None:
        if not self._expired_reports and clock >= self._next_report_scan:
            self._next_report_scan = clock + REPORT_SCAN_INTERVAL_SECONDS
            self._expired_reports = self._bucket.written_before("reports/", now() - self._report_age)
        batch, self._expired_reports = (
            self._expired_reports[:DELETES_PER_STEP],
            self._expired_reports[DELETES_PER_STEP:],
        )
        for path in batch:
            self._bucket.delete(path)
