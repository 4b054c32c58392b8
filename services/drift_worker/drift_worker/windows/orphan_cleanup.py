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

PAUSE_SECONDS = 60  # between two looks, of a request a partition
REMEMBERED = 1_000  # final slices of a partition: a worker that is frozen for longer than these take is rare
REPORTS_SECONDS = 3_600  # between two looks through all reports
MOST = 20  # reports at a time, a request each: windows wait for them


class Tidying:
    """Deletes archived slices that never became final, and reports that are too old.

    Such slices come from a worker that was killed before they were final, or was frozen and did not know that the
    partition had moved on. They are looked for among a partition's slices that follow one another up to the last one
    that is known to be final: whatever else begins there is nobody's, whoever has the partition by now.
    """

    def __init__(self, bucket: Bucket, report_days: float) -> None:
        """Looks for the first time when it is called for the first time."""
        self._bucket = bucket
        self._report_age = timedelta(days=report_days)
        self._ahead: dict[Partition, list[Window]] = {}  # were there before this worker's first slice
        self._closed: list[Window] = []
        self._handed_over: list[Window] = []
        self._final: dict[Partition, deque[Window]] = {}
        self._old_reports: list[str] = []
        self._next = self._next_reports = float("-inf")

    def begin(self, partition: Partition, final: Iterable[Window]) -> None:
        """A partition is read on behind slices that are final."""
        if known := deque(final, REMEMBERED):
            self._final[partition] = known

    def closed(self, window: Window) -> None:
        """A slice is to be final with this round of the loop. Raises :class:`Away`."""
        partition = (window.topic, window.partition)
        if partition not in self._ahead:
            there = archive.windows(self._bucket, *partition)
            self._ahead[partition] = [one for one in there if one.first_offset >= window.first_offset]
        self._closed.append(window)

    def forget(self, partitions: Collection[Partition]) -> None:
        """The partitions are somebody else's: who tidies up there, too."""
        gone = set(partitions)
        self._closed, self._handed_over = (
            [window for window in windows if (window.topic, window.partition) not in gone]
            for windows in (self._closed, self._handed_over)
        )
        for partition in gone:
            self._ahead.pop(partition, None)
            self._final.pop(partition, None)

    def a_little(self, clock: float) -> None:
        """Does what is due, another time where the bucket is away. Called once in each round of the loop."""
        for window in self._handed_over:  # in the round before, which has been committed
            self._add(window)
        self._handed_over, self._closed = self._closed, []
        try:
            for partition, final in self._final.items():
                ahead = self._ahead.get(partition, [])
                self._delete(final, ahead)
                ahead[:] = [one for one in ahead if one.first_offset > final[-1].last_offset]
            if clock >= self._next:
                self._next = clock + PAUSE_SECONDS
                for final in self._final.values():
                    self._delete(final, archive.between(self._bucket, final[0], final[-1]))
                self._reports(clock)
        except Away as error:
            log.warning("not tidied up, another time", error=str(error))

    def _add(self, window: Window) -> None:
        final = self._final.setdefault((window.topic, window.partition), deque(maxlen=REMEMBERED))
        if final and final[-1].last_offset + 1 != window.first_offset:  # the partition was away in between
            final.clear()
        final.append(window)

    def _delete(self, final: deque[Window], among: Iterable[Window]) -> None:
        offsets = range(final[0].first_offset, final[-1].last_offset + 1)
        for window in among:
            if window.first_offset in offsets and window not in final:
                log.warning("a slice that never became final is deleted", window=window.name)
                self._bucket.delete(archive.path(window))

    def _reports(self, clock: float) -> None:
        if not self._old_reports and clock >= self._next_reports:
            self._next_reports = clock + REPORTS_SECONDS
            self._old_reports = self._bucket.written_before("reports/", now() - self._report_age)
        some, self._old_reports = self._old_reports[:MOST], self._old_reports[MOST:]
        for path in some:
            self._bucket.delete(path)
