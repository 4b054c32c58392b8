"""Processes that erase and merge an archive in a folder until they are killed."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa

from driftloop.archive.erasing import FileEraser
from driftloop.archive.erasures import Tombstones
from driftloop.archive.file_metadata import DAY_KEY
from driftloop.archive.layout import list_files, slice_path
from driftloop.archive.merging import MergeLimits, choose_full, delete_files, list_partition, merge_slices
from driftloop.events import Window, derived_event_id
from driftloop.storage.object_store import ObjectStore
from tests.support.archived_rows import DAY
from tests.support.folder_store import folder_store

TOPIC, PARTITION = "predictions", 0
OFFSETS, ROWS = 5, 2
"""Of a slice, and of each of its events."""
KEPT_SLICES = 4
LIMITS = MergeLimits(slices=5)
SLICES_PER_DAY = 12

Row = tuple[int, int]
"""Offset and number within the event."""


def marker(offset: int) -> str:
    """Return the value that the rows of an event have, and no others."""
    return f"marker-{offset:06}-"


def write_slice(store: ObjectStore, number: int) -> None:
    """Write a slice, as the drift worker does."""
    first = number * OFFSETS
    offsets = [offset for offset in range(first, first + OFFSETS) for _ in range(ROWS)]
    day = day_of(number)
    table = pa.table(
        {
            "_id": [derived_event_id(_at_noon(day), str(offset)) for offset in offsets],
            "_row": [row for _ in range(OFFSETS) for row in range(ROWS)],
            "_time": pa.array([_at_noon(day) + timedelta(seconds=offset % 7) for offset in offsets]),
            "_offset": offsets,
            "value": [marker(offset) for offset in offsets],
        }
    )
    window = Window(topic=TOPIC, partition=PARTITION, first_offset=first, last_offset=first + OFFSETS - 1)
    store.write_parquet(slice_path(window), table.replace_schema_metadata({DAY_KEY: day.isoformat()}))


def day_of(number: int) -> date:
    """Return the day of a slice."""
    return DAY + timedelta(days=number // SLICES_PER_DAY)


def erase_for_ever(folder: Path) -> None:
    """Remove what is erased from the files, again and again."""
    store = folder_store(folder)
    tombstones, eraser = Tombstones(store, max_age_seconds=0), FileEraser(store)
    while True:
        eraser.run(TOPIC, PARTITION, tombstones.current())


def merge_for_ever(folder: Path) -> None:
    """Merge what can be merged, again and again."""
    store = folder_store(folder)
    while True:
        merge_once(store)


def merge_once(store: ObjectStore) -> int:
    """Merge some slices, as the drift worker does; return how many."""
    files = list_partition(store, (TOPIC, PARTITION))
    delete_files(store, files.leftovers)
    chosen = choose_full(files.final_slices(KEPT_SLICES, 10**9), LIMITS)
    following = files.slices[len(chosen)] if len(chosen) < len(files.slices) else None
    return sum(len(merged.slices.files) for merged in merge_slices(store, chosen, following, LIMITS))


def read_rows(store: ObjectStore) -> list[Row]:
    """Return offset and row number of each row that a reader finds, as often as it does."""
    while True:
        try:
            tables = [store.read_table(file.path, ["_offset", "_row"]) for file in list_files(store, TOPIC)]
        except FileNotFoundError:  # merged since it was listed
            continue
        return [row for table in tables for row in zip(*table.to_pydict().values(), strict=True)]


def _at_noon(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
