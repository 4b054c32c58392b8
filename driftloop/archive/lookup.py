"""Find the rows of one event in the archive without reading the archive."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from driftloop.archive.layout import ArchivedFile, files_since, list_files
from driftloop.events import ID_COLUMN
from driftloop.storage.object_store import ObjectStore

MAX_FILES = 1_000
MAX_PARALLEL_READS = 8
MAX_ATTEMPTS = 3
SMALL_BYTES = 2**20  # a file that is read with one request


class FoundRows(NamedTuple):
    """The rows of an event, and where they are."""

    file: ArchivedFile
    rows: pd.DataFrame


def find_rows(store: ObjectStore, topic: str, event_id: str, at: datetime | None) -> FoundRows | None:
    """Return the archived rows of an event; ``None`` if none of the files that may have it does.

    Ids are UUIDs of version 7, which sort by time as the rows of a merged file do. So of a large file only its footer
    is read, and the row groups between whose ids the event's lies.

    Args:
        store: Where the archive is.
        topic: The topic of the event.
        event_id: The event's id.
        at: The time of the event, with a time zone. The files of that time and the next ones are searched, as an event
            may have waited for the broker; ``None`` for an id without a time: then the latest files are.
    """
    for _ in range(MAX_ATTEMPTS):
        is_complete = True
        files = candidates(list_files(store, topic), at)
        with ThreadPoolExecutor(MAX_PARALLEL_READS) as readers:
            for start in range(0, len(files), MAX_PARALLEL_READS):
                batch = files[start : start + MAX_PARALLEL_READS]
                found = readers.map(lambda file: _rows_of(store, file, event_id), batch)
                for file, rows in zip(batch, found, strict=True):
                    if rows is None:
                        is_complete = False
                    elif len(rows):
                        return FoundRows(file, rows)
        if is_complete:
            break
    return None


def candidates(files: Sequence[ArchivedFile], at: datetime | None) -> list[ArchivedFile]:
    """Return the files that may have an event, the likeliest first."""
    possible = sorted(
        files_since(files, at),
        key=lambda file: (file.begin, file.window.first_offset),
        reverse=at is None,
    )
    return possible[:MAX_FILES]


def _rows_of(store: ObjectStore, file: ArchivedFile, event_id: str) -> pd.DataFrame | None:
    """Return an event's rows in a file; ``None`` if the file was merged, or deleted as an orphan, since the listing."""
    try:
        if file.size <= SMALL_BYTES:
            return store.read_parquet(file.path, filters=[(ID_COLUMN, "==", event_id)])
        with store.open_parquet(file.path) as opened:
            frame: pd.DataFrame = _read_groups(opened, event_id).to_pandas()
            return frame
    except FileNotFoundError:
        return None


def _read_groups(file: pq.ParquetFile, event_id: str) -> pa.Table:
    column = file.schema_arrow.names.index(ID_COLUMN)
    statistics = [file.metadata.row_group(group).column(column).statistics for group in range(file.num_row_groups)]
    groups = [
        group
        for group, known in enumerate(statistics)
        if known is None or not known.has_min_max or known.min <= event_id <= known.max
    ]
    ids = file.read_row_groups(groups, columns=[ID_COLUMN])[ID_COLUMN]
    if not pa.compute.any(pa.compute.equal(ids, event_id)).as_py():
        return file.schema_arrow.empty_table()
    table = file.read_row_groups(groups)
    return table.filter(pa.compute.equal(table[ID_COLUMN], event_id))
