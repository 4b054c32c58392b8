"""Rows in the archive, for tests whose matter is not how they got there."""

from datetime import date

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from drift_worker.windows.archive import write_slice
from driftloop.events import Window
from driftloop.storage.object_store import ObjectStore

DAY = date(2026, 1, 1)


def archive_rows(store: ObjectStore, window: Window, rows: pd.DataFrame | pa.Table, day: date = DAY) -> str:
    """Archive rows as a slice; return its URL."""
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pandas(rows, preserve_index=False)
    return write_slice(store, window, table, day)


def damage(store: ObjectStore, path: str, column: str = "_id", group: int = 0) -> None:
    """Overwrite a column of a row group of a Parquet file with zeros: its footer can be read, and its rows cannot."""
    content = store.read(path)
    chunks = pq.read_metadata(pa.BufferReader(content)).row_group(group).to_dict()["columns"]
    (chunk,) = (each for each in chunks if each["path_in_schema"] == column)
    begin = min(filter(None, (chunk["dictionary_page_offset"], chunk["data_page_offset"])))
    end = begin + chunk["total_compressed_size"]
    store.write(path, content[:begin] + bytes(end - begin) + content[end:])
