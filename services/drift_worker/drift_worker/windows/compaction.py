"""Keep the archive in order beside the work.

Old slices are merged, what is older than is wanted is deleted, and rows that are erased are removed wherever they have
come back; see :mod:`driftloop.archive.merging`, :mod:`driftloop.archive.retention` and
:mod:`driftloop.archive.erasing`.
"""

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import date, datetime

import structlog

from drift_worker import metrics
from driftloop.archive.erasing import FileEraser
from driftloop.archive.erasures import Tombstones
from driftloop.archive.layout import ArchivedFile, total_size
from driftloop.archive.merging import (
    DEFAULT_LIMITS,
    MergedSlices,
    MergeLimits,
    PartitionFiles,
    choose_full,
    delete_files,
    list_partition,
)
from driftloop.archive.partition_state import Partition, PartitionState
from driftloop.archive.retention import find_expired, first_kept_day
from driftloop.archive.scratch import MERGE, remove_abandoned_folders
from driftloop.errors import StorageUnavailable
from driftloop.events import Window, now
from driftloop.free_memory import return_free_memory
from driftloop.storage.object_store import ObjectStore

log = structlog.get_logger(__name__)

TASK = "compaction"
PASS_INTERVAL_SECONDS = 60  # each pass lists the slices of each partition

Merge = Callable[[Sequence[ArchivedFile], ArchivedFile | None, MergeLimits, Callable[[], bool]], Iterator[MergedSlices]]
"""Merges slices as :func:`merge_slices` does in a store."""


class Compactor:
    """Merges the slices of the partitions that this worker owns, and deletes their files of days that have expired.

    The consumer loop calls the methods whose names begin with ``on`` and :meth:`run_step`; :meth:`run_pass` belongs to
    a background thread.
    """

    def __init__(
        self,
        store: ObjectStore,
        kept_slices: int,
        merge: Merge,
        limits: MergeLimits = DEFAULT_LIMITS,
        retention_days: Mapping[str, int] = {},
        clock: Callable[[], datetime] = now,
        tombstones: Tombstones | None = None,
    ) -> None:
        """Start without partitions.

        Args:
            store: Where the archive is.
            kept_slices: The number of latest slices of a partition that stay as they are.
            merge: Merges slices of that archive: in a process of its own, or in this one.
            limits: How many slices make a merged file full.
            retention_days: For how many days rows are kept, by topic; those of other topics are kept for ever.
            clock: Returns the time.
            tombstones: Says which rows are erased; by default this looks itself.
        """
        self._store = store
        self._kept_slices = kept_slices
        self._limits = limits
        self._retention_days = retention_days
        self._clock = clock
        self._tombstones = tombstones or Tombstones(store)
        self._merge_slices = merge
        self._eraser = FileEraser(store)
        self._lock = threading.Lock()
        self._final_before: dict[Partition, int] = {}
        self._closed: dict[Partition, int] = {}
        self._awaiting_commit: dict[Partition, int] = {}

    def on_assigned(self, partition: Partition, committed: PartitionState) -> None:
        """Take over a partition with what is committed of it."""
        with self._lock:
            self._final_before[partition] = committed.final_before

    def on_slice_closed(self, window: Window, state: PartitionState) -> None:
        """Note the state of a partition that is committed in this round of the loop."""
        self._closed[window.topic, window.partition] = state.final_before

    def on_revoked(self, partitions: Collection[Partition]) -> None:
        """Drop partitions that another worker owns now."""
        with self._lock:
            for partition in partitions:
                for known in (self._final_before, self._closed, self._awaiting_commit):
                    known.pop(partition, None)
                forget_files(partition)

    def run_step(self) -> None:
        """Note that the states of the previous round are committed; called once in each round of the loop."""
        with self._lock:
            self._final_before |= self._awaiting_commit
        self._awaiting_commit, self._closed = self._closed, {}

    def run_pass(self, on_progress: Callable[[], None]) -> None:
        """Delete what has expired of each partition and what is erased, then merge what can be.

        Raises:
            StorageUnavailable: The store does not answer.
            Exception: A partition could not be done, such as :class:`ArchiveUnreadable` for a damaged file, or
                :class:`ChildProcessError` for a full disk. The pass has done the other partitions.
        """
        remove_abandoned_folders(MERGE)
        failures: list[Exception] = []
        for partition in list(self._final_before):
            try:
                self._delete_expired(partition)
                self._eraser.run(*partition, self._tombstones.current(), on_progress)
                self._merge(partition, on_progress)
            except StorageUnavailable:
                raise
            except Exception as error:
                log.exception("compaction.partition_failed", topic=partition[0], partition=partition[1])
                failures.append(error)
        return_free_memory()  # of slices that were replaced in memory
        if failures:
            raise failures[0]
        on_progress()

    def _delete_expired(self, partition: Partition) -> None:
        if (days := self._retention_days.get(partition[0])) is None:
            return
        files = list_partition(self._store, partition)
        delete_files(self._store, files.leftovers)  # first: they would be read again without the file that covers them
        first_kept = first_kept_day(days, self._clock())
        final_before = self._final_before.get(partition)
        expired = find_expired(self._store, files, first_kept, self._kept_slices, final_before)
        if expired and partition in self._final_before:
            delete_files(self._store, expired)
            record_expired(partition, expired, first_kept)

    def _merge(self, partition: Partition, on_progress: Callable[[], None]) -> None:
        """Merge what can be of a partition, which is listed once: a listing of thousands of slices takes seconds."""
        files = list_partition(self._store, partition)
        delete_files(self._store, files.leftovers)
        record_files(partition, files)
        has_merged = True
        while has_merged and (final_before := self._final_before.get(partition)) is not None:  # until it is revoked
            chosen = choose_full(files.final_slices(self._kept_slices, final_before), self._limits)
            following = files.slices[len(chosen)] if len(chosen) < len(files.slices) else None
            has_merged = False
            for merged in self._merge_slices(chosen, following, self._limits, lambda: partition in self._final_before):
                record_merged(partition, merged)
                files = files.after(merged)
                record_files(partition, files)
                on_progress()
                has_merged = True


def record_files(partition: Partition, files: PartitionFiles) -> None:
    """Record in the metrics which files a partition has."""
    topic, number = partition
    for kind, found in (("slice", files.slices), ("merged", files.merged)):
        metrics.ARCHIVE_FILES.labels(topic, str(number), kind).set(len(found))
        metrics.ARCHIVE_BYTES.labels(topic, str(number), kind).set(total_size(found))


def forget_files(partition: Partition) -> None:
    """Remove the metrics of a partition's files: its next owner reports them."""
    topic, number = partition
    for kind in ("slice", "merged"):
        metrics.ARCHIVE_FILES.remove(topic, str(number), kind)
        metrics.ARCHIVE_BYTES.remove(topic, str(number), kind)


def record_merged(partition: Partition, merged: MergedSlices) -> None:
    """Record slices that were merged in the metrics, and log them."""
    metrics.MERGED_SLICES.labels(partition[0]).inc(len(merged.slices.files))
    metrics.SAVED_BYTES.labels(partition[0]).inc(merged.saved_bytes)
    log.info(
        "compaction.slices_merged",
        window=merged.slices.window.name,
        day=merged.slices.day.isoformat(),
        slices=len(merged.slices.files),
        bytes_before=merged.slices.size,
        bytes_after=merged.size,
    )


def record_expired(partition: Partition, files: Sequence[ArchivedFile], first_kept: date) -> None:
    """Record files that were deleted for their age in the metrics, and log them."""
    topic, number = partition
    metrics.EXPIRED_FILES.labels(topic).inc(len(files))
    metrics.EXPIRED_BYTES.labels(topic).inc(total_size(files))
    log.info(
        "retention.files_deleted",
        topic=topic,
        partition=number,
        files=len(files),
        bytes=total_size(files),
        first_kept_day=first_kept.isoformat(),
    )
