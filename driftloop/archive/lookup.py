"""Find the rows of one event, or those with a key, in the archive without reading the archive."""

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import reduce
from typing import NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from driftloop.archive.layout import ArchivedFile, files_since, list_files
from driftloop.events import ID_COLUMN
from driftloop.storage.object_store import ObjectStore

MAX_FILES = 1_000
MAX_PARALLEL_READS = 8
MAX_ATTEMPTS = 3
SMALL_BYTES = 2**20  # a file that is read with one request
MAX_ID_SKEW = timedelta(days=1)
"""By how much the clock of who makes ids may be ahead: nobody checks it, as it is a client's or a predictor's."""


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


def _rows_of(store: ObjectStore, file: ArchivedFile, event_id: str) -> pd.DataFrame | None:
    """Return an event's rows in a file; ``None`` if the file was merged, or deleted as an orphan, since the listing."""
    try:
        return read_matching(store, file, {ID_COLUMN: [event_id]})
    except FileNotFoundError:
        return None


def candidates(files: Sequence[ArchivedFile], at: datetime | None) -> list[ArchivedFile]:
    """Return the files that may have an event, the likeliest first; without a time the latest ones, newest first."""
    possible = sorted(
        files_since(files, at),
        key=lambda file: (file.begin, file.window.first_offset),
        reverse=at is None,
    )
    return possible[:MAX_FILES]


def read_matching(
    store: ObjectStore, file: ArchivedFile, values: Mapping[str, Collection[str]], columns: Sequence[str] | None = None
) -> pd.DataFrame:
    """Return the rows of a file that have one of some texts in any of some columns.

    Of a large file only its footer is read, and the row groups whose statistics say that they may have such a row.

    Args:
        store: Where the archive is.
        file: The file.
        values: The texts by the name of the column.
        columns: Names of the columns of the result, those of the texts among them; all by default.

    Raises:
        FileNotFoundError: The file was merged, or deleted as an orphan, since it was listed.
        ArchiveUnreadable: It is damaged.
    """
    if file.size <= SMALL_BYTES:
        whole = store.read_table(file.path, columns)
        rows = whole.filter(_has_value(whole, values))
    else:
        with store.open_parquet(file.path) as opened:
            rows = _read_groups(opened, values, columns or opened.schema_arrow.names)
    frame: pd.DataFrame = rows.to_pandas()
    return frame


def _read_groups(file: pq.ParquetFile, values: Mapping[str, Collection[str]], columns: Sequence[str]) -> pa.Table:
    parts = [file.schema_arrow.empty_table().select(columns)]
    for group in _possible_groups(file, values):
        has_value = _has_value(file.read_row_group(group, columns=list(values)), values)
        if pc.any(has_value).as_py():
            parts.append(file.read_row_group(group, columns=columns).select(columns).filter(has_value))
    return pa.concat_tables(parts)


def _possible_groups(file: pq.ParquetFile, values: Mapping[str, Collection[str]]) -> list[int]:
    """Return the numbers of the row groups that may have one of the values in any of the columns."""
    names = file.schema_arrow.names

    def may_have(group: int, name: str) -> bool:
        known = file.metadata.row_group(group).column(names.index(name)).statistics
        return known is None or not known.has_min_max or any(known.min <= value <= known.max for value in values[name])

    return [group for group in range(file.num_row_groups) if any(may_have(group, name) for name in values)]


def _has_value(rows: pa.Table, values: Mapping[str, Collection[str]]) -> pa.ChunkedArray:
    """Return for each row whether it has one of the values in any of the columns."""
    masks = (
        pc.is_in(rows[name].cast(pa.string()), pa.array(list(wanted), pa.string())) for name, wanted in values.items()
    )
    return reduce(pc.or_, masks)
