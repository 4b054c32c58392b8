"""Find archived and open rows by the key that a client gave them, and the outcomes that name it."""

from collections.abc import Iterable
from datetime import UTC, datetime

import pandas as pd

from driftloop.archive.erasures import Tombstones
from driftloop.archive.layout import ArchivedFile, files_since, list_files
from driftloop.events import ID_COLUMN, KEY_COLUMN, MODEL_COLUMN, ROW_COLUMN, TIME_COLUMN, Prediction
from driftloop.kafka import reader
from driftloop.storage.object_store import ObjectStore
from driftloop.storage.parallel_reads import map_reads
from driftloop_cli.settings import StorageCliSettings

MAX_FILES = 1_000  # the latest ones are searched
COLUMNS = [ID_COLUMN, ROW_COLUMN, TIME_COLUMN, MODEL_COLUMN, KEY_COLUMN]
BEGINNING = datetime.fromtimestamp(0, UTC)


def rows_of_key(
    settings: StorageCliSettings, store: ObjectStore, key: str, since: datetime = BEGINNING
) -> pd.DataFrame:
    """Return the rows of any model with a key, sorted by time: of slices archived since a time, and of open windows."""
    topic = settings.topics.predictions
    files = files_since(list_files(store, topic), since)
    latest = sorted(files, key=lambda file: file.window.first_offset)[-MAX_FILES:]

    def read(file: ArchivedFile) -> pd.DataFrame:
        try:
            rows = store.read_parquet(file.path, COLUMNS)
        except FileNotFoundError:  # deleted since it was listed
            return pd.DataFrame(columns=COLUMNS)
        return rows[rows[KEY_COLUMN] == key]

    archived = map_reads(read, latest)
    open_rows = [
        {ID_COLUMN: event.id, ROW_COLUMN: row, TIME_COLUMN: event.time, MODEL_COLUMN: event.model, KEY_COLUMN: key}
        for event in reader.read_since(settings.kafka, topic, since, last_offsets(files), Tombstones(store).event_left)
        if isinstance(event, Prediction) and event.keys
        for row, event_key in enumerate(event.keys)
        if event_key == key
    ]
    frames = [frame for frame in (*archived, pd.DataFrame(open_rows)) if len(frame)]
    if not frames:
        return pd.DataFrame(columns=COLUMNS)
    return pd.concat(frames).sort_values(TIME_COLUMN, kind="stable").drop_duplicates([ID_COLUMN, ROW_COLUMN])


def name_rows(outcomes: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Return outcomes that name one key with the id and the row that each belongs to; others are left out.

    An outcome belongs to the model's row of the key with the latest time that is not after its own.

    Args:
        outcomes: Outcomes with model, key and time.
        rows: All rows of the key, sorted by time.
    """
    found = []
    for _, outcome in outcomes.iterrows():
        before = rows[(rows[MODEL_COLUMN] == outcome[MODEL_COLUMN]) & (rows[TIME_COLUMN] <= outcome[TIME_COLUMN])]
        if len(before):
            last = before.iloc[-1]
            found.append({**outcome, ID_COLUMN: last[ID_COLUMN], ROW_COLUMN: last[ROW_COLUMN]})
    return pd.DataFrame(found, columns=outcomes.columns)


def last_offsets(files: Iterable[ArchivedFile]) -> dict[int, int]:
    """Return the last archived offset of each partition."""
    last: dict[int, int] = {}
    for window in (file.window for file in files):
        last[window.partition] = max(window.last_offset, last.get(window.partition, -1))
    return last
