"""Find a prediction and its outcomes in the archive and on the topics.

No topic or folder is searched as a whole. A UUIDv7 has a time: the prediction is in a file of that day or the next
ones, and so are its outcomes and the verdict on its window.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple

import pandas as pd

from driftloop.archive.erasures import Tombstones
from driftloop.archive.layout import ArchivedFile, is_within, list_files
from driftloop.archive.listed_reads import read_listed
from driftloop.archive.lookup import MAX_ID_SKEW, find_rows, read_matching
from driftloop.events import (
    ID_COLUMN,
    KEY_COLUMN,
    MODEL_COLUMN,
    OFFSET_COLUMN,
    PREDICTION_COLUMN,
    RESERVED_COLUMNS,
    ROW_COLUMN,
    RUN_COLUMN,
    TIME_COLUMN,
    VERSION_COLUMN,
    DriftVerdict,
    Event,
    Outcome,
    Prediction,
    Window,
    event_id_time,
)
from driftloop.kafka import reader
from driftloop.storage.object_store import ObjectStore
from driftloop.times import MAX_CLOCK_SKEW
from driftloop_cli.row_keys import BEGINNING, last_offsets, name_rows, rows_of_keys, sort_rows
from driftloop_cli.settings import StorageCliSettings

MAX_VERDICTS = 10_000  # since the prediction, of all models; far more than its window can wait for
OUTCOME_COLUMNS = [ID_COLUMN, ROW_COLUMN, TIME_COLUMN, MODEL_COLUMN, KEY_COLUMN, "outcome"]


class LocatedPrediction(NamedTuple):
    """A request and its response, with the place where they were found."""

    model: str
    version: str
    time: datetime
    rows: list[tuple[Any, dict[str, Any]]]
    """Prediction and features of each row."""
    archive: str | None
    """URL of the file in the archive; ``None`` if it is not archived yet."""
    verdict: DriftVerdict | None
    """The verdict on its version's window; ``None`` while that is open."""
    event: Prediction | None
    """The event; ``None`` if the topic's retention time is over."""
    keys: tuple[str | None, ...] = ()
    """The client's key of each row; empty if no row has one."""
    run_id: str | None = None
    """The run of the version; ``None`` if it is not known."""
    numbers: tuple[int, ...] = ()
    """The position of each row in the request; empty if none of the request's rows is erased."""

    @property
    def row_numbers(self) -> Sequence[int]:
        """The position of each row in the request."""
        return self.numbers or range(len(self.rows))


def locate(settings: StorageCliSettings, store: ObjectStore, prediction_id: str) -> LocatedPrediction | None:
    """Return the prediction from the archive or, while its window is open, from the topic.

    If it is at neither place since the time in its id, the clock by which that was made may have been ahead.
    """
    time = event_id_time(prediction_id)
    if time is None:
        return _locate_in_archive(settings, store, prediction_id, None)
    since, earlier = time - MAX_CLOCK_SKEW, time - MAX_ID_SKEW
    archived = last_offsets(list_files(store, settings.topics.predictions))  # first: later ones are found on the topic
    return (
        _locate_in_archive(settings, store, prediction_id, since)
        or _locate_on_topic(settings, store, prediction_id, since, {})
        or _locate_in_archive(settings, store, prediction_id, earlier)
        or _locate_on_topic(settings, store, prediction_id, earlier, archived)
    )


def outcomes_of(
    settings: StorageCliSettings, store: ObjectStore, prediction_id: str, prediction: LocatedPrediction | None = None
) -> pd.DataFrame:
    """Return all reported outcomes of a prediction's rows (row, outcome and time), sorted by time.

    The last one of a row counts. Those from the future, which count only if there is no other, come first.
    Outcomes are read from the archive, and those that are not archived yet from the topic.

    Args:
        settings: Where archive and topics are.
        store: The store with the archive.
        prediction_id: The prediction's id.
        prediction: The prediction, of whose keys outcomes may be, too.
    """
    keys = {key for key in prediction.keys if key is not None} if prediction else set()
    time = event_id_time(prediction_id)
    since = BEGINNING if time is None else time - MAX_ID_SKEW
    values = {ID_COLUMN: {prediction_id}, **({KEY_COLUMN: keys} if keys else {})}

    def read(file: ArchivedFile) -> pd.DataFrame:
        rows = read_matching(store, file, values, [*OUTCOME_COLUMNS, "outcome_label"])
        return rows.assign(outcome=rows["outcome_label"].where(rows["outcome_label"].notna(), rows["outcome"]))

    archived = read_listed(store, settings.topics.outcomes, since, read)
    after, event_left = last_offsets(archived.listed), Tombstones(store).event_left
    newer = [
        {
            ID_COLUMN: event.prediction_id,
            ROW_COLUMN: event.index,
            TIME_COLUMN: event.time,
            MODEL_COLUMN: event.model,
            KEY_COLUMN: event.key,
            "outcome": event.outcome,
        }
        for event in reader.read_since(settings.kafka, settings.topics.outcomes, since, after, event_left)
        if isinstance(event, Outcome) and (event.prediction_id == prediction_id or event.key in keys)
    ]
    frames = [frame for frame in (*archived.results, pd.DataFrame(newer)) if len(frame)]
    if not frames:
        return pd.DataFrame(columns=OUTCOME_COLUMNS)
    found = pd.concat(frames)
    is_keyed = found[KEY_COLUMN].isin(keys)
    if prediction is not None and is_keyed.any():
        rows = sort_rows([rows_of_keys(settings, store, keys, since), _keyed_rows(prediction_id, prediction)])
        found = pd.concat([found[~is_keyed], name_rows(found[is_keyed], rows)])
    found = found[found[ID_COLUMN] == prediction_id].sort_values(TIME_COLUMN, kind="stable")
    is_past = found[TIME_COLUMN] <= datetime.now(UTC) + MAX_CLOCK_SKEW
    return pd.concat([found[~is_past], found[is_past]])


def _keyed_rows(prediction_id: str, prediction: LocatedPrediction) -> pd.DataFrame:
    """Return the rows of a prediction, some of which have keys."""
    return pd.DataFrame(
        {
            ID_COLUMN: prediction_id,
            ROW_COLUMN: prediction.row_numbers,
            TIME_COLUMN: prediction.time,
            MODEL_COLUMN: prediction.model,
            KEY_COLUMN: prediction.keys,
        }
    )


def _locate_in_archive(
    settings: StorageCliSettings, store: ObjectStore, prediction_id: str, since: datetime | None
) -> LocatedPrediction | None:
    topic = settings.topics.predictions
    found = find_rows(store, topic, prediction_id, since)
    if found is None:
        return None
    rows = found.rows.sort_values(ROW_COLUMN)
    first = rows.iloc[0]
    model, version, run_id = str(first[MODEL_COLUMN]), str(first[VERSION_COLUMN]), first.get(RUN_COLUMN)
    run_id = run_id if isinstance(run_id, str) else None
    offset, partition = int(first[OFFSET_COLUMN]), found.file.window.partition
    verdicts = (
        reader.read_since(settings.kafka, settings.topics.drift, since)
        if since is not None
        else reader.read_last(settings.kafka, settings.topics.drift, MAX_VERDICTS)
    )
    of_version = (
        event
        for event in islice(verdicts, MAX_VERDICTS)
        if isinstance(event, DriftVerdict)
        and not event.replayed
        and (event.model, event.version, event.run_id, event.window.partition) == (model, version, run_id, partition)
    )
    at = Window(topic=topic, partition=partition, first_offset=offset, last_offset=offset)
    features = [str(name) for name in rows if name not in RESERVED_COLUMNS]
    return LocatedPrediction(
        model,
        version,
        first[TIME_COLUMN].to_pydatetime(),
        [
            (prediction, dict(zip(features, values, strict=True)))
            for prediction, values in zip(rows[PREDICTION_COLUMN], rows[features].to_numpy(dtype=object), strict=True)
        ],
        store.url(found.file.path),
        next((verdict for verdict in of_version if is_within(at, verdict.window)), None),
        _find_event(reader.read_window(settings.kafka, at, Tombstones(store).event_left), prediction_id),
        tuple(key if isinstance(key, str) else None for key in rows[KEY_COLUMN]),
        run_id,
        tuple(rows[ROW_COLUMN].astype(int)),
    )


def _find_event(events: Iterator[Event], prediction_id: str) -> Prediction | None:
    return next((event for event in events if isinstance(event, Prediction) and event.id == prediction_id), None)


def _locate_on_topic(
    settings: StorageCliSettings,
    store: ObjectStore,
    prediction_id: str,
    since: datetime,
    after_offsets: Mapping[int, int],
) -> LocatedPrediction | None:
    event_left = Tombstones(store).event_left
    events = reader.read_since(settings.kafka, settings.topics.predictions, since, after_offsets, event_left)
    event = _find_event(events, prediction_id)
    if event is None:
        return None
    features: list[dict[str, Any]] = [
        {column: cells[row] for column, cells in event.features.items()} for row in range(len(event.predictions))
    ]
    rows = list(zip(event.predictions, features, strict=True))
    keys = tuple(event.keys or ())
    return LocatedPrediction(event.model, event.version, event.time, rows, None, None, event, keys, event.run_id)
