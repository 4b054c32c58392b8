"""Slices of a partition, one for each hour, with ten rows each, for tests of how they are merged and deleted."""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta

import pandas as pd

from driftloop.archive.layout import list_files
from driftloop.events import Window
from driftloop.storage.object_store import ObjectStore
from tests.support.archived_rows import archive_rows

TOPIC = "predictions"
BEGIN = datetime(2026, 11, 1, tzinfo=UTC)
ROWS = 10


def slice_window(number: int, last: int | None = None, topic: str = TOPIC) -> Window:
    """Return the window of a slice, or from one slice to another one."""
    end = (number if last is None else last) * ROWS + ROWS - 1
    return Window(topic=topic, partition=0, first_offset=number * ROWS, last_offset=end)


def slice_rows(number: int) -> pd.DataFrame:
    """Return the rows of a slice."""
    offsets = range(number * ROWS, (number + 1) * ROWS)
    return pd.DataFrame(
        {
            "_id": [f"event-{offset}" for offset in offsets],
            "_row": 0,
            "_time": [pd.Timestamp(BEGIN + timedelta(hours=number, seconds=offset % ROWS)) for offset in offsets],
            "_model": "m",
            "_version": "1",
            "_prediction": 0.5,
            "_offset": list(offsets),
            "x": [float(offset) for offset in offsets],
        }
    )


def archive_slices(store: ObjectStore, numbers: Collection[int], topic: str = TOPIC) -> None:
    """Archive slices of the days on which they begin."""
    for number in numbers:
        day = (BEGIN + timedelta(hours=number)).date()
        archive_rows(store, slice_window(number, topic=topic), slice_rows(number), day)


def read_ids(store: ObjectStore, topic: str = TOPIC) -> list[str]:
    """Return the ids of the archive's rows, sorted, as often as they are read; again if a file is merged meanwhile."""
    while True:
        try:
            return sorted(
                str(each)
                for file in list_files(store, topic)
                for each in store.read_table(file.path, ["_id"])["_id"].to_pylist()
            )
        except FileNotFoundError:
            continue


def expected_ids(numbers: Collection[int]) -> list[str]:
    """Return the ids of the rows of slices, sorted, each once."""
    return sorted(f"event-{number * ROWS + row}" for number in numbers for row in range(ROWS))
