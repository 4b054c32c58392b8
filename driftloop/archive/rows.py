"""Read the rows of a window from the archive, whichever files have them by now."""

from collections.abc import Callable, Sequence
from itertools import chain

import pandas as pd

from driftloop.archive.layout import ArchivedFile, list_files_of
from driftloop.events import OFFSET_COLUMN, ROW_COLUMN, Window
from driftloop.storage.object_store import ObjectStore
from driftloop.storage.parallel_reads import map_reads

MAX_ATTEMPTS = 5


def read_rows(
    store: ObjectStore, window: Window, select: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows
) -> pd.DataFrame:
    """Return the archived rows of a window in the order of their offsets.

    A row is there twice if one of the window's slices is an orphan that is not deleted yet.

    Args:
        store: Where the archive is.
        window: The offsets.
        select: Returns those of a file's rows that are wanted: the columns have only their types.

    Raises:
        FileNotFoundError: The archive has nothing of the window.
        ArchiveUnreadable: A file is damaged.
    """
    for attempt in range(1, MAX_ATTEMPTS + 1):
        files = list_files_of(store, window)
        if not files:
            break
        try:
            parts = map_reads(lambda file: select(_read(store, file, window)), files)
            return concat_rows([part for part in parts if len(part)] or parts[:1])
        except FileNotFoundError:  # deleted since it was listed, after its rows were merged
            if attempt == MAX_ATTEMPTS:
                raise
    raise FileNotFoundError(window.name)


def concat_rows(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the rows of at least one frame as one; a column that is empty in a frame has the others' type."""
    if len(frames) == 1:
        return frames[0]
    columns = list(dict.fromkeys(chain.from_iterable(frames)))
    filled = [frame.dropna(axis="columns", how="all") for frame in frames]
    return pd.concat(filled, ignore_index=True).reindex(columns=columns)


def _read(store: ObjectStore, file: ArchivedFile, window: Window) -> pd.DataFrame:
    if not file.is_merged:
        return store.read_parquet(file.path)
    between = [(OFFSET_COLUMN, ">=", window.first_offset), (OFFSET_COLUMN, "<=", window.last_offset)]
    rows = store.read_parquet(file.path, filters=between)
    return rows.sort_values([OFFSET_COLUMN, ROW_COLUMN], ignore_index=True)
