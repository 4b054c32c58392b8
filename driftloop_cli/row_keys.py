"""Find archived and open rows by the key that a client gave them, and the outcomes that name it."""

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime

import pandas as pd

from driftloop.archive.erasures import Tombstones
from driftloop.archive.layout import ArchivedFile
from driftloop.archive.listed_reads import read_listed
from driftloop.archive.lookup import candidates, read_matching
from driftloop.events import ID_COLUMN, KEY_COLUMN, MODEL_COLUMN, ROW_COLUMN, TIME_COLUMN, Prediction
from driftloop.kafka import reader
from driftloop.storage.object_store import ObjectStore
from driftloop_cli.settings import StorageCliSettings

COLUMNS = [ID_COLUMN, ROW_COLUMN, TIME_COLUMN, MODEL_COLUMN, KEY_COLUMN]
BEGINNING = datetime.fromtimestamp(0, UTC)


def rows_of_keys(
    settings: StorageCliSettings, store: ObjectStore, keys: Collection[str], since: datetime | None = None
) -> pd.DataFrame:
    """Return the rows of any model with one of some keys, sorted by time: archived ones, and those of open windows.

    Args:
        settings: Where archive and topics are.
        store: The store with the archive.
        keys: The keys.
        since: The time from which on files are searched, at most :data:`driftloop.archive.lookup.MAX_FILES`; ``None``
            for the latest ones.
    """
    topic = settings.topics.predictions

    def choose(files: Sequence[ArchivedFile]) -> list[ArchivedFile]:
        chosen = set(candidates(files, since))
        return [file for file in files if file in chosen]

    archived = read_listed(
        store, topic, since, lambda file: read_matching(store, file, {KEY_COLUMN: keys}, COLUMNS), choose
    )
    open_rows = [
        {ID_COLUMN: event.id, ROW_COLUMN: row, TIME_COLUMN: event.time, MODEL_COLUMN: event.model, KEY_COLUMN: key}
        for event in reader.read_since(
            settings.kafka, topic, since or BEGINNING, last_offsets(archived.listed), Tombstones(store).event_left
        )
        if isinstance(event, Prediction) and event.keys
        for row, key in enumerate(event.keys)
        if key in keys
    ]
    return sort_rows([*archived.results, pd.DataFrame(open_rows)])


def sort_rows(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Return rows with keys of several places, each once, sorted by time."""
    filled = [frame for frame in frames if len(frame)]
    if not filled:
        return pd.DataFrame(columns=COLUMNS)
    return pd.concat(filled).sort_values(TIME_COLUMN, kind="stable").drop_duplicates([ID_COLUMN, ROW_COLUMN])


def name_rows(outcomes: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Return outcomes that name keys with the id and the row that each belongs to; others are left out.

    An outcome belongs to the model's row of the key with the latest time that is not after its own.

    Args:
        outcomes: Outcomes with model, key and time.
        rows: All rows of the keys, sorted by time.
    """
    found = []
    for _, outcome in outcomes.iterrows():
        is_same = (rows[MODEL_COLUMN] == outcome[MODEL_COLUMN]) & (rows[KEY_COLUMN] == outcome[KEY_COLUMN])
        before = rows[is_same & (rows[TIME_COLUMN] <= outcome[TIME_COLUMN])]
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
