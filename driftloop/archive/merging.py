"""Merge old slices of the archive into fewer, larger files.

A slice is merged once nothing can change any more: it is committed, no window that is open or scored together with the
next one has rows of it, and it is not among the latest ones, which are read one by one. The merged file is written
before its slices are deleted, and has a name that its slices determine. So a process that is killed at any moment, or
another one that merges the same slices, leaves nothing that a reader would take for more or fewer rows; see
:mod:`driftloop.archive.layout` for how readers choose. The next pass deletes what is left over.

Whoever merges, and whenever: the files of a partition have the same bounds. A file begins where the one before it ends,
and ends with its day or where it has enough slices or bytes, so that the last slices of a day that goes on wait. If
bounds were free, two processes could leave files that overlap, and have some rows twice.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import partial
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import structlog

from driftloop.archive.file_metadata import parse_day
from driftloop.archive.layout import (
    ArchivedFile,
    is_covered,
    list_all_merged,
    list_slices,
    merged_path,
    total_size,
    with_first_times,
    without_covered,
)
from driftloop.archive.merged_file import merge
from driftloop.archive.partition_state import Partition
from driftloop.archive.scratch import MERGE, scratch_folder
from driftloop.events import Window, now
from driftloop.storage.object_store import ObjectStore
from driftloop.storage.parquet_files import name_unreadable

log = structlog.get_logger(__name__)

SLICES_PER_FILE = 1_000
BYTES_PER_FILE = 128 * 2**20  # of slices; merged they are about half of that
PARALLEL_REQUESTS = 8


class MergeLimits(NamedTuple):
    """How large a merged file becomes. All that merge the same archive have the same limits."""

    slices: int = SLICES_PER_FILE
    """The number of slices at which a file is full."""
    size: int = BYTES_PER_FILE
    """The size of its slices, in bytes, at which a file is full."""


DEFAULT_LIMITS = MergeLimits()


class Slices(NamedTuple):
    """Consecutive slices of one day, in the order of their offsets."""

    day: date
    files: list[ArchivedFile]

    @property
    def window(self) -> Window:
        """The offsets from the first slice to the last one."""
        return self.files[0].window.model_copy(update={"last_offset": _last_offset(self.files)})

    @property
    def size(self) -> int:
        """The bytes of all of them."""
        return total_size(self.files)


class MergedSlices(NamedTuple):
    """Slices that were merged, and are deleted."""

    slices: Slices
    path: str
    """The path of the merged file."""
    size: int
    """Its bytes."""

    @property
    def saved_bytes(self) -> int:
        """By how much the archive is smaller now."""
        return max(self.slices.size - self.size, 0)


class PartitionFiles(NamedTuple):
    """The files that the archive has of a partition, in the order of their offsets."""

    slices: list[ArchivedFile]
    """Those that are not merged."""
    merged: list[ArchivedFile]
    """Merged files, without those that lie within another one."""
    leftovers: list[ArchivedFile]
    """Files whose rows are in a merged file, which nobody reads."""

    def final_slices(self, kept: int, final_before: int) -> list[ArchivedFile]:
        """Return the slices that nothing needs as they are.

        Args:
            kept: The number of latest slices that are read one by one.
            final_before: The offset before which no row is needed for a verdict any more.
        """
        latest = len(self.slices) - kept
        return [file for file in self.slices[: max(latest, 0)] if file.window.last_offset < final_before]

    def after(self, merged: MergedSlices) -> "PartitionFiles":
        """Return the files after the oldest slices were merged."""
        added = ArchivedFile(merged.path, merged.slices.window, merged.size, now(), merged.slices.day)
        return PartitionFiles(self.slices[len(merged.slices.files) :], [*self.merged, added], [])


def list_partition(store: ObjectStore, partition: Partition) -> PartitionFiles:
    """List the files of a partition. Raises :class:`StorageUnavailable`."""
    topic, number = partition
    slices = list_slices(store, topic, number)  # first, as every reader does
    merged = [file for file in list_all_merged(store, topic) if file.window.partition == number]
    merged, slices = with_first_times(store, merged, slices)
    return partition_files(slices, merged)


def partition_files(slices: Sequence[ArchivedFile], merged: Sequence[ArchivedFile]) -> PartitionFiles:
    """Sort the files of a partition: slices, which were listed first, and all merged files."""
    read = without_covered(merged)
    leftovers = [file for file in merged if file not in read]
    leftovers += [file for file in slices if is_covered(file, read)]
    return PartitionFiles([file for file in slices if not is_covered(file, read)], read, leftovers)


def choose_full(final: Sequence[ArchivedFile], limits: MergeLimits) -> Sequence[ArchivedFile]:
    """Return the oldest slices that make a file full, whatever their days; none if they are too few and too small.

    ``final`` are the slices that can be merged, in the order of their offsets.
    """
    chosen = choose_oldest(final, limits)
    return chosen if _is_full(chosen, limits) else []


def choose_oldest(final: Sequence[ArchivedFile], limits: MergeLimits) -> Sequence[ArchivedFile]:
    """Return the oldest slices, as many as make a file full, or all if they are fewer.

    Slices with the same offsets, one of which is an orphan, are not parted: their rows would be in two files.
    """
    totals = accumulate(file.size for file in final[: limits.slices])
    count = next((number for number, total in enumerate(totals, 1) if total >= limits.size), limits.slices)
    while count < len(final) and _overlaps_next(final[:count], final[count]):
        count += 1
    return final[:count]


def merge_slices(
    store: ObjectStore,
    chosen: Sequence[ArchivedFile],
    following: ArchivedFile | None,
    limits: MergeLimits,
    may_go_on: Callable[[], bool] = lambda: True,
) -> Iterator[MergedSlices]:
    """Merge slices into a file for each of their days that is over or full; yield each one once its slices are deleted.

    Args:
        store: Where the archive is.
        chosen: Consecutive slices of a partition, at most as many as make a file full.
        following: The slice after them, if there is one: it says whether the last one's day is over.
        limits: When a file is full.
        may_go_on: Is called before each file is read or written; if it returns false, the slices that are left stay as
            they are.

    Raises:
        StorageUnavailable: The store does not answer. What was merged until then is merged.
        ArchiveUnreadable: A slice is no readable Parquet file.
    """
    if not chosen:
        return
    with scratch_folder(MERGE) as folder:
        try:
            with ThreadPoolExecutor(PARALLEL_REQUESTS) as readers:
                list(readers.map(lambda file: may_go_on() and _download(store, file, folder), chosen))
            if not may_go_on():
                return
            groups = list(by_day(chosen, partial(_day_of, store, folder)))
            if not _is_complete(store, groups[-1], following, limits):
                groups.pop()
        except FileNotFoundError as error:  # merged by another process, or an orphan that was deleted
            log.info("compaction.postponed", reason=f"{error} was deleted since it was listed")
            return
        for slices in groups:
            if not may_go_on():
                return
            content = merge(folder, [_local(folder, file).name for file in slices.files])
            path = merged_path(slices.window, slices.day)
            store.write(path, content)
            delete_files(store, slices.files)
            yield MergedSlices(slices, path, len(content))


def plan_merges(
    store: ObjectStore,
    final: Sequence[ArchivedFile],
    slices: Sequence[ArchivedFile],
    limits: MergeLimits,
    may_go_on: Callable[[], bool] = lambda: True,
) -> Iterator[Slices]:
    """Yield what would be merged if slices were merged until nothing is left. Each slice is read, for its day.

    Args:
        store: Where the archive is.
        final: The slices that can be merged, in the order of their offsets.
        slices: All slices of the partition, of which these are the first.
        limits: When a file is full.
        may_go_on: Is called before each step; if it returns false, there is no further one.

    Raises:
        StorageUnavailable: The store does not answer.
    """
    done = 0
    while done < len(final) and may_go_on():
        chosen = choose_oldest(final[done:], limits)
        following = slices[done + len(chosen)] if done + len(chosen) < len(slices) else None
        try:
            with ThreadPoolExecutor(PARALLEL_REQUESTS) as readers:
                days = dict(zip(chosen, readers.map(lambda file: read_day(store, file), chosen), strict=True))
            groups = list(by_day(chosen, days.__getitem__))
            if not _is_complete(store, groups[-1], following, limits):
                groups.pop()
        except FileNotFoundError:  # merged by another process
            return
        if not groups:
            return
        yield from groups
        done += sum(len(group.files) for group in groups)


def delete_files(store: ObjectStore, files: Sequence[ArchivedFile]) -> None:
    """Delete files; those that are deleted already do not matter. Raises :class:`StorageUnavailable`."""
    with ThreadPoolExecutor(PARALLEL_REQUESTS) as deletes:
        list(deletes.map(lambda file: store.delete(file.path), files))


def read_day(store: ObjectStore, file: ArchivedFile) -> date:
    """Return the day of a file: a slice's from its metadata, or else when it was written.

    Raises:
        FileNotFoundError: It was deleted.
        StorageUnavailable: The store does not answer.
    """
    if file.day is not None:
        return file.day
    content = store.read(file.path)
    with name_unreadable(store.url(file.path)):
        return parse_day(pq.read_metadata(pa.BufferReader(content)).metadata) or file.modified.date()


def by_day(files: Sequence[ArchivedFile], day_of: Callable[[ArchivedFile], date]) -> Iterator[Slices]:
    """Group consecutive slices of one day, and those that have the same offsets."""
    current: Slices | None = None
    for file in files:
        day = day_of(file)
        if current is not None and (current.day == day or _overlaps_next(current.files, file)):
            current.files.append(file)
            continue
        if current is not None:
            yield current
        current = Slices(day, [file])
    if current is not None:
        yield current


def _is_complete(store: ObjectStore, slices: Slices, following: ArchivedFile | None, limits: MergeLimits) -> bool:
    """Return whether no later slice belongs into the file of some slices."""
    if following is None:
        return _is_full(slices.files, limits)
    if _overlaps_next(slices.files, following):
        return False
    return _is_full(slices.files, limits) or read_day(store, following) != slices.day


def _overlaps_next(files: Sequence[ArchivedFile], following: ArchivedFile) -> bool:
    return following.window.first_offset <= _last_offset(files)


def _last_offset(files: Sequence[ArchivedFile]) -> int:
    return max(file.window.last_offset for file in files)


def _is_full(files: Sequence[ArchivedFile], limits: MergeLimits) -> bool:
    return len(files) >= limits.slices or total_size(files) >= limits.size


def _download(store: ObjectStore, file: ArchivedFile, folder: Path) -> bool:
    _local(folder, file).write_bytes(store.read(file.path))
    return True


def _local(folder: Path, file: ArchivedFile) -> Path:
    return folder / PurePosixPath(file.path).name


def _day_of(store: ObjectStore, folder: Path, file: ArchivedFile) -> date:
    with name_unreadable(store.url(file.path)):
        return parse_day(pq.read_metadata(_local(folder, file)).metadata) or file.modified.date()
