"""Remove erased rows from the archive's files, while other processes write, merge and read them.

A file is replaced at its path, whole or not at all. Its metadata keep the time at which it was written first. By that
:func:`driftloop.archive.layout.is_covered` still knows which slices a merged file has, and that a slice is a leftover
which was merged and deleted between its reading and its replacement. So at every moment a reader finds each row at most
once.

A merge that has read a slice before rows were erased from it brings them back. The erasures stay, so the next pass of
the drift worker removes them.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, date, datetime
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import structlog

from driftloop.archive.erasures import Erasure, positions_of
from driftloop.archive.file_metadata import parse_day
from driftloop.archive.layout import WRITTEN_AT_KEY, ArchivedFile, list_all_merged, list_slices
from driftloop.events import ID_COLUMN, OFFSET_COLUMN, ROW_COLUMN, Window, event_id_time
from driftloop.storage.object_store import ObjectStore
from driftloop.storage.parquet_files import name_unreadable

log = structlog.get_logger(__name__)

POSITION_COLUMNS = (ID_COLUMN, OFFSET_COLUMN, ROW_COLUMN)


class ErasedFile(NamedTuple):
    """A file of the archive from which rows were removed."""

    path: str
    rows: int
    """The number of rows that were removed."""


CheckedState = tuple[datetime, int, tuple[str, ...]]
"""When a file was written, its size, and the erasures that it has no rows of."""
Partition = tuple[str, int]


class FileEraser:
    """Removes erased rows from files, and remembers the files that have none, until they change."""

    def __init__(self, store: ObjectStore) -> None:
        """Know no file yet."""
        self._store = store
        self._checked: dict[Partition, dict[str, CheckedState]] = {}

    def run(
        self, topic: str, partition: int, erasures: Collection[Erasure], on_progress: Callable[[], None] = lambda: None
    ) -> list[ErasedFile]:
        """Remove from the files of a partition the rows that are erased; return the files that had some.

        It can be killed at any moment, and run again and at the same time as any other process.

        Args:
            topic: The topic.
            partition: The number of the partition.
            erasures: What was erased. Rows of later messages with the same offsets stay.
            on_progress: Is called after each file.

        Raises:
            StorageUnavailable: The store does not answer.
            ArchiveUnreadable: A file is no readable Parquet file.
        """
        hit = [each for each in erasures if any((p.topic, p.partition) == (topic, partition) for p in each.partitions)]
        if not hit:
            return []
        slices = list_slices(self._store, topic, partition)  # first, as every reader does
        merged = [file for file in list_all_merged(self._store, topic) if file.window.partition == partition]
        known, self._checked[topic, partition] = self._checked.get((topic, partition), {}), {}
        done = []
        for file in [*slices, *merged]:  # also leftovers, which nobody reads
            of_file = [erasure for erasure in hit if erasure.in_window(file.window)]
            state = (file.modified, file.size, tuple(erasure.id for erasure in of_file))
            if not of_file:
                continue
            erased = 0 if known.get(file.path) == state else self._erase(file, of_file)
            if erased:
                log.info("erasing.rows_removed", file=file.path, rows=erased)
                done.append(ErasedFile(file.path, erased))
            else:
                self._checked[topic, partition][file.path] = state
            on_progress()
        return done

    def _erase(self, file: ArchivedFile, erasures: Sequence[Erasure]) -> int:
        """Remove rows from a file; return how many, which is 0 if the file is gone."""
        try:
            with self._store.open_parquet(file.path) as opened:
                if not _find(opened, file, erasures).any():
                    return 0
            content = self._store.read(file.path)
        except FileNotFoundError:  # it was merged, or deleted as an orphan
            return 0
        with name_unreadable(self._store.url(file.path)):
            source = pq.ParquetFile(pa.BufferReader(content))
            is_erased = _find(source, file, erasures)  # once more: it may have been replaced in between
            if not is_erased.any():
                return 0
            written_at = file.modified.astimezone(UTC).isoformat().encode()
            metadata = {WRITTEN_AT_KEY: written_at, **(source.schema_arrow.metadata or {})}
            remaining = without_rows(source, is_erased, metadata)
        self._store.write(file.path, remaining)
        return int(is_erased.sum())


def _find(source: pq.ParquetFile, file: ArchivedFile, erasures: Iterable[Erasure]) -> npt.NDArray[np.bool_]:
    names = [name for name in POSITION_COLUMNS if name in source.schema_arrow.names]
    day = file.day or parse_day(source.schema_arrow.metadata)
    return erased_mask(source.read(columns=names), file.window, erasures, day)


def erased_mask(
    table: pa.Table, window: Window, erasures: Iterable[Erasure], day: date | None = None
) -> npt.NDArray[np.bool_]:
    """Return which archived rows of a window are erased.

    Rows of a topic that was made again have the same offsets. They are of a later day than the erasure, or have ids
    that were made after it, and after those of all erased rows: the clock of who made them may be ahead.

    Args:
        table: Ids, offsets and row numbers.
        window: The window, which may have more rows.
        erasures: What was erased.
        day: The day on which the first message of their file reached the topic; ``None`` if it is not known.
    """
    positions = positions_of(table)
    found = np.zeros(len(table), bool)
    for erasure in erasures:
        if day is not None and day > erasure.latest_message.astimezone(UTC).date():
            continue
        for part in erasure.in_window(window):
            for index in np.flatnonzero(part.mask(*positions) & ~found):
                made_at = event_id_time(table[ID_COLUMN][int(index)].as_py() or "")
                found[index] = made_at is None or made_at <= erasure.latest_id
    return found


def without_rows(source: pq.ParquetFile, is_erased: npt.NDArray[np.bool_], metadata: dict[bytes, bytes]) -> bytes:
    """Return a Parquet file without some of its rows, with the others in their order; it may have no rows then."""
    schema = source.schema_arrow.with_metadata(metadata)
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        first = 0
        for group in range(source.num_row_groups):
            rows = source.read_row_group(group)
            kept = rows.filter(pa.array(~is_erased[first : first + len(rows)]))
            first += len(rows)
            if len(kept):
                writer.write_table(_without_unused_levels(kept).replace_schema_metadata(metadata))
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _without_unused_levels(rows: pa.Table) -> pa.Table:
    """Return rows whose columns of levels have those alone that are in rows: others may be of erased ones."""
    for index, field in enumerate(rows.schema):
        if pa.types.is_dictionary(field.type):
            levels = pa.compute.dictionary_encode(rows.column(index).cast(field.type.value_type))
            rows = rows.set_column(index, field, levels.cast(field.type))
    return rows
