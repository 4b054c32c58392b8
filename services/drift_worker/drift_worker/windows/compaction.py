"""Merge old slices of the archive into fewer, larger files, beside the work.

A slice is merged once nothing can change any more: it is committed, no window that is open or scored together with the
next one has rows of it, and it is not among the latest ones, which are read one by one. The merged file is written
before its slices are deleted, and has a name that its slices determine. So a worker that is killed at any moment, or
another one that merges the same slices, leaves nothing that a reader would take for more or fewer rows; see
:mod:`driftloop.archive.layout` for how readers choose. The next pass deletes what is left over.
"""

# ruff: noqa: S608  # all names are quoted

import json
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from itertools import accumulate, groupby, pairwise
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pyarrow.parquet as pq
import structlog

from drift_worker import metrics
from drift_worker.windows.archive import DAY_KEY, SUMS_BY_END_KEY, SUMS_KEY
from drift_worker.windows.partition_state import Partition, PartitionState
from driftloop.archive.layout import (
    ArchivedFile,
    is_covered,
    list_all_merged,
    list_slices,
    merged_path,
    without_covered,
)
from driftloop.events import OFFSET_COLUMN, ROW_COLUMN, TIME_COLUMN, Window
from driftloop.storage.duckdb_sql import connect, quote_literal
from driftloop.storage.object_store import ObjectStore

log = structlog.get_logger(__name__)

TASK = "compaction"
PASS_INTERVAL_SECONDS = 60  # each pass lists the slices of each partition
SLICES_PER_MERGE = 1_000
BYTES_PER_MERGE = 128 * 2**20  # of slices; merged they are about half of that
MEMORY_MB = 256
ROWS_PER_GROUP = 32_768  # a group is written from memory, and a lookup by id reads one
PARALLEL_REQUESTS = 8


class Slices(NamedTuple):
    """Consecutive slices of one day, in the order of their offsets."""

    day: date
    files: list[ArchivedFile]

    @property
    def window(self) -> Window:
        """The offsets from the first slice to the last one."""
        first, last = self.files[0].window, self.files[-1].window
        return first.model_copy(update={"last_offset": last.last_offset})


class Compactor:
    """Merges the slices of the partitions that this worker owns.

    The consumer loop calls the methods whose names begin with ``on`` and :meth:`run_step`; :meth:`run_pass` belongs to
    a background thread.
    """

    def __init__(
        self,
        store: ObjectStore,
        kept_slices: int,
        slices_per_merge: int = SLICES_PER_MERGE,
        bytes_per_merge: int = BYTES_PER_MERGE,
    ) -> None:
        """Start without partitions.

        Args:
            store: Where the archive is.
            kept_slices: The number of latest slices of a partition that are not merged.
            slices_per_merge: The number of slices that are merged at a time.
            bytes_per_merge: The size of slices that is merged at a time if there are fewer.
        """
        self._store = store
        self._kept_slices = kept_slices
        self._slices_per_merge = slices_per_merge
        self._bytes_per_merge = bytes_per_merge
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

    def run_step(self) -> None:
        """Note that the states of the previous round are committed; called once in each round of the loop."""
        with self._lock:
            self._final_before |= self._awaiting_commit
        self._awaiting_commit, self._closed = self._closed, {}

    def run_pass(self, on_progress: Callable[[], None]) -> None:
        """Merge what can be merged of each partition. Raises :class:`StorageUnavailable`."""
        for partition in list(self._final_before):
            while self._merge_next(partition):
                on_progress()
        on_progress()

    def _merge_next(self, partition: Partition) -> bool:
        """Merge some slices of a partition; return whether there may be more."""
        topic, number = partition
        final_before = self._final_before.get(partition)
        slices = list_slices(self._store, topic, number)
        merged = [file for file in list_all_merged(self._store, topic) if file.window.partition == number]
        read = without_covered(merged)
        leftover = [file for file in merged if file not in read]
        leftover += [file for file in slices if is_covered(file, read)]
        self._delete(leftover)
        slices = [file for file in slices if not is_covered(file, read)]
        metrics.ARCHIVE_FILES.labels(topic, str(number), "slice").set(len(slices))
        metrics.ARCHIVE_FILES.labels(topic, str(number), "merged").set(len(read))
        if final_before is None:  # revoked since
            return False
        final = [file for file in slices[: -self._kept_slices] if file.window.last_offset < final_before]
        chosen = choose(final, self._slices_per_merge, self._bytes_per_merge)
        return bool(chosen) and self._merge(partition, chosen)

    def _merge(self, partition: Partition, files: Sequence[ArchivedFile]) -> bool:
        with TemporaryDirectory(prefix="driftloop-compaction-") as scratch:
            folder = Path(scratch)
            with ThreadPoolExecutor(PARALLEL_REQUESTS) as readers:
                try:
                    list(readers.map(lambda file: _local(folder, file).write_bytes(self._store.read(file.path)), files))
                except FileNotFoundError as error:  # merged by another worker, or an orphan that was deleted
                    log.info("compaction.postponed", reason=f"{error} was deleted since it was listed")
                    return False
            for slices in by_day(folder, files):
                if partition not in self._final_before:
                    return False
                content = merge(folder, slices)
                self._store.write(merged_path(slices.window, slices.day), content)
                self._delete(slices.files)
                size = sum(file.size for file in slices.files)
                metrics.MERGED_SLICES.labels(partition[0]).inc(len(slices.files))
                metrics.SAVED_BYTES.labels(partition[0]).inc(max(size - len(content), 0))
                log.info(
                    "compaction.slices_merged",
                    window=slices.window.name,
                    day=slices.day.isoformat(),
                    slices=len(slices.files),
                    bytes_before=size,
                    bytes_after=len(content),
                )
        return True

    def _delete(self, files: Sequence[ArchivedFile]) -> None:
        with ThreadPoolExecutor(PARALLEL_REQUESTS) as deletes:
            list(deletes.map(lambda file: self._store.delete(file.path), files))


def choose(final: Sequence[ArchivedFile], slices: int, size: int) -> Sequence[ArchivedFile]:
    """Return the oldest slices that are merged at a time; none if they are too few and too small.

    Args:
        final: The slices that can be merged, in the order of their offsets.
        slices: At how many of them, at most, it is time to merge.
        size: At how many bytes.
    """
    totals = accumulate(file.size for file in final[:slices])
    count = next((number for number, total in enumerate(totals, 1) if total >= size), slices)
    return final[:count] if len(final) >= count else []


def by_day(folder: Path, files: Sequence[ArchivedFile]) -> Iterator[Slices]:
    """Group consecutive slices of one day; they lie in a folder."""
    for day, group in groupby(files, lambda file: _day_of(_local(folder, file))):
        yield Slices(day, list(group))


def merge(folder: Path, slices: Slices) -> bytes:
    """Return the Parquet file with the rows of slices that lie in a folder, in the order of their times.

    A row that is in two slices, one of which is an orphan, is in it once.
    """
    local = [_local(folder, file) for file in slices.files]
    is_doubled = any(
        following.window.first_offset <= file.window.last_offset for file, following in pairwise(slices.files)
    )
    rows = f"SELECT * FROM read_parquet([{', '.join(map(quote_literal, local))}], union_by_name = true)"
    once = f" QUALIFY row_number() OVER (PARTITION BY {OFFSET_COLUMN}, {ROW_COLUMN}) = 1" if is_doubled else ""
    texts = ((pq.read_metadata(path).metadata or {}).get(SUMS_KEY, b"{}") for path in local)
    sums = {
        str(file.window.last_offset): found
        for file, text in zip(slices.files, texts, strict=True)
        if (found := json.loads(text))
    }
    merged = folder / "merged.parquet"
    metadata = f"{{{quote_literal(SUMS_BY_END_KEY.decode())}: {quote_literal(json.dumps(sums))}}}"
    with connect(folder, MEMORY_MB) as connection:
        connection.execute("SET threads = 1")  # the consumer loop needs the other processors
        connection.execute(
            f"COPY ({rows}{once} ORDER BY {TIME_COLUMN}, {OFFSET_COLUMN}, {ROW_COLUMN}) "
            f"TO {quote_literal(merged)} (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROWS_PER_GROUP}, "
            f"KV_METADATA {metadata})"
        )
    return merged.read_bytes()


def _local(folder: Path, file: ArchivedFile) -> Path:
    return folder / PurePosixPath(file.path).name


def _day_of(path: Path) -> date:
    return date.fromisoformat((pq.read_metadata(path).metadata or {})[DAY_KEY].decode())
