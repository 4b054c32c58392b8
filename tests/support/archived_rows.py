"""Rows in the archive, for tests whose matter is not how they got there."""

from datetime import date

import pandas as pd
import pyarrow as pa

from drift_worker.windows.archive import write_slice
from driftloop.events import Window
from driftloop.storage.object_store import ObjectStore

DAY = date(2026, 1, 1)


def archive_rows(store: ObjectStore, window: Window, rows: pd.DataFrame | pa.Table, day: date = DAY) -> str:
    """Archive rows as a slice; return its URL."""
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pandas(rows, preserve_index=False)
    return write_slice(store, window, table, day)


def damage(store: ObjectStore, path: str) -> None:
    """Overwrite the beginning of a Parquet file, so that its footer can be read and its rows cannot."""
    content = store.read(path)
    size = min(200, len(content) // 3)
    store.write(path, content[:4] + bytes(size) + content[4 + size :])
