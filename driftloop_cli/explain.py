"""Describe one prediction: request, response, version and its training data, window, verdict and outcomes.

No topic or folder is searched as a whole. A UUIDv7 has a time: the verdicts from then on name the windows that may
contain the prediction, and its outcomes are in files that were written after it.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, NamedTuple
from uuid import UUID

import pandas as pd
from mlflow.artifacts import load_text
from mlflow.exceptions import MlflowException

from driftloop.errors import RegistryUnavailable
from driftloop.events import (
    ID_COLUMN,
    MODEL_COLUMN,
    PREDICTION_COLUMN,
    RESERVED_COLUMNS,
    ROW_COLUMN,
    TIME_COLUMN,
    VERSION_COLUMN,
    DriftVerdict,
    Event,
    Outcome,
    Prediction,
    Window,
)
from driftloop.kafka import reader
from driftloop.registry.model_registry import ModelRegistry
from driftloop.storage import reference_store
from driftloop.storage.bucket import Bucket
from driftloop_cli.settings import StorageCliSettings

MAX_CLOCK_SKEW = timedelta(minutes=1)  # between the clocks of predictor, broker and bucket
MAX_PARALLEL_READS = 8
VERDICT_BATCH_SIZE = 200
MAX_WINDOWS = 1_000  # far more than can be open at the same time
MAX_ROWS = 20
OUTCOME_COLUMNS = [ID_COLUMN, ROW_COLUMN, TIME_COLUMN, "outcome"]
VerdictKey = tuple[str, str, str]
"""Archive file, model and version."""
Lines = Iterator[tuple[str, str]]
"""Pairs of a label and a text."""


class LocatedPrediction(NamedTuple):
    """A request and its response, with the place where they were found."""

    model: str
    version: str
    time: datetime
    rows: list[tuple[Any, dict[str, Any]]]
    """Prediction and features of each row."""
    archive: str | None
    """URL of the file in the archive; ``None`` while the window is open."""
    verdict: DriftVerdict | None
    """The verdict on its version's rows of the window."""
    event: Prediction | None
    """The event; ``None`` if the topic's retention time is over."""


def describe_prediction(settings: StorageCliSettings, prediction_id: str, row: int | None = None) -> Lines:
    """Yield what is known about a prediction, or about one of its rows; nothing if the prediction is not found."""
    bucket = Bucket(settings.storage)
    prediction = locate(settings, bucket, prediction_id)
    if prediction is None:
        return
    time = f"{prediction.time:%Y-%m-%d %H:%M:%S}"
    yield "predicted", f"{time} by version {prediction.version} of {prediction.model}"
    if prediction.event is not None and prediction.event.traceparent is not None:
        yield "trace", prediction.event.traceparent.split("-")[1]
    yield from _describe_rows(prediction, outcomes_of(settings, bucket, prediction_id), row)
    yield from _describe_window(bucket, prediction)
    yield from _describe_version(settings, prediction)
    yield _describe_reference(bucket, prediction)


def id_timestamp(prediction_id: str) -> datetime | None:
    """Return the time in an id; ``None`` if the id is no UUIDv7, because the client chose it."""
    try:
        uuid = UUID(prediction_id)
    except ValueError:
        return None
    return datetime.fromtimestamp((uuid.int >> 80) / 1000, UTC) if uuid.version == 7 else None


def locate(settings: StorageCliSettings, bucket: Bucket, prediction_id: str) -> LocatedPrediction | None:
    """Return the prediction from the archive or, while its window is open, from the topic."""
    return _locate_in_archive(settings, bucket, prediction_id) or _locate_on_topic(settings, prediction_id)


def outcomes_of(settings: StorageCliSettings, bucket: Bucket, prediction_id: str) -> pd.DataFrame:
    """Return all reported outcomes of a prediction's rows (``row``, ``outcome``, ``time``), sorted by time.

    Outcomes are read from the archive, and those that are not archived yet from the topic.
    """
    since = (id_timestamp(prediction_id) or datetime.fromtimestamp(0, UTC) + MAX_CLOCK_SKEW) - MAX_CLOCK_SKEW
    files = bucket.list_modified_since(f"events/{settings.topics.outcomes}", since)
    empty = pd.DataFrame(columns=OUTCOME_COLUMNS)

    def read(file: str) -> pd.DataFrame:
        try:
            rows = bucket.read_parquet(file, OUTCOME_COLUMNS)
        except FileNotFoundError:  # deleted since it was listed
            return empty
        return rows[rows[ID_COLUMN] == prediction_id]

    with ThreadPoolExecutor(MAX_PARALLEL_READS) as executor:
        archived = list(executor.map(read, files))
    last_archived_offset: dict[int, int] = {}
    for window in map(Window.parse, files):
        last_archived_offset[window.partition] = max(window.last_offset, last_archived_offset.get(window.partition, -1))
    newer = [
        {ID_COLUMN: event.prediction_id, ROW_COLUMN: event.index, TIME_COLUMN: event.time, "outcome": event.outcome}
        for event in reader.read_since(settings.kafka, settings.topics.outcomes, since, last_archived_offset)
        if isinstance(event, Outcome) and event.prediction_id == prediction_id
    ]
    frames = [frame for frame in (*archived, pd.DataFrame(newer)) if len(frame)]
    return pd.concat(frames).sort_values(TIME_COLUMN, kind="stable") if frames else empty


def _locate_in_archive(settings: StorageCliSettings, bucket: Bucket, prediction_id: str) -> LocatedPrediction | None:
    time = id_timestamp(prediction_id)
    events = (
        reader.read_since(settings.kafka, settings.topics.drift, time - MAX_CLOCK_SKEW)
        if time is not None
        else reversed(reader.read_last(settings.kafka, settings.topics.drift, MAX_WINDOWS))
    )
    verdicts = (event for event in events if isinstance(event, DriftVerdict) and not event.replayed)
    verdict_by_key: dict[VerdictKey, DriftVerdict] = {}
    searched: set[str] = set()

    def read(archive: str) -> tuple[str, pd.DataFrame]:
        try:
            rows = bucket.read_parquet(archive.removeprefix(bucket.url("")))
        except FileNotFoundError:  # deleted by the bucket's lifecycle rule or by an operator
            return archive, pd.DataFrame({ID_COLUMN: []})
        return archive, rows[rows[ID_COLUMN] == prediction_id]

    with ThreadPoolExecutor(MAX_PARALLEL_READS) as executor:
        while len(searched) < MAX_WINDOWS and (batch := list(islice(verdicts, VERDICT_BATCH_SIZE))):
            verdict_by_key |= _by_key(batch)
            new = [url for url in dict.fromkeys(verdict.archive for verdict in batch) if url not in searched]
            searched.update(new)
            for start in range(0, len(new), MAX_PARALLEL_READS):
                for archive, rows in executor.map(read, new[start : start + MAX_PARALLEL_READS]):
                    if len(rows):
                        # A worker publishes the verdicts on a window together, but another worker's may be in between.
                        verdict_by_key |= _by_key(islice(verdicts, VERDICT_BATCH_SIZE))
                        event = _find_event(reader.read_window(settings.kafka, Window.parse(archive)), prediction_id)
                        return _from_archive_rows(archive, rows.sort_values(ROW_COLUMN), verdict_by_key, event)
    return None


def _by_key(verdicts: Iterator[DriftVerdict] | list[DriftVerdict]) -> dict[VerdictKey, DriftVerdict]:
    return {(verdict.archive, verdict.model, verdict.version): verdict for verdict in verdicts}


def _find_event(events: Iterator[Event], prediction_id: str) -> Prediction | None:
    return next((event for event in events if isinstance(event, Prediction) and event.id == prediction_id), None)


def _from_archive_rows(
    archive: str, rows: pd.DataFrame, verdict_by_key: Mapping[VerdictKey, DriftVerdict], event: Prediction | None
) -> LocatedPrediction:
    first = rows.iloc[0]
    model, version = str(first[MODEL_COLUMN]), str(first[VERSION_COLUMN])
    features = [str(name) for name in rows if name not in RESERVED_COLUMNS]
    return LocatedPrediction(
        model,
        version,
        first[TIME_COLUMN].to_pydatetime(),
        [
            (prediction, dict(zip(features, values, strict=True)))
            for prediction, values in zip(rows[PREDICTION_COLUMN], rows[features].to_numpy(dtype=object), strict=True)
        ],
        archive,
        verdict_by_key.get((archive, model, version)),
        event,
    )


def _locate_on_topic(settings: StorageCliSettings, prediction_id: str) -> LocatedPrediction | None:
    time = id_timestamp(prediction_id)
    if time is None:
        return None
    events = reader.read_since(settings.kafka, settings.topics.predictions, time - MAX_CLOCK_SKEW)
    event = _find_event(events, prediction_id)
    if event is None:
        return None
    features = [dict(zip(event.features, values, strict=True)) for values in zip(*event.features.values(), strict=True)]
    rows = list(zip(event.predictions, features, strict=True))
    return LocatedPrediction(event.model, event.version, event.time, rows, None, None, event)


def _describe_rows(prediction: LocatedPrediction, outcomes: pd.DataFrame, row: int | None) -> Lines:
    count = len(prediction.rows)
    if row is not None and row >= count:
        yield "", f"there is no row {row}: the request has {count} rows, from 0 to {count - 1}"
        return
    indexes = range(count) if row is None else [row]
    for index in indexes[:MAX_ROWS]:
        value, features = prediction.rows[index]
        yield f"row {index}", ", ".join(f"{name}={'–' if pd.isna(cell) else cell}" for name, cell in features.items())
        yield "  prediction", str(value)
        yield "  outcome", _describe_outcomes(outcomes[outcomes[ROW_COLUMN] == index])
    if len(indexes) > MAX_ROWS:
        yield "", f"{len(indexes) - MAX_ROWS} more rows: choose one with --row"


def _describe_outcomes(outcomes: pd.DataFrame) -> str:
    """Return the outcomes of one row in words; the last one counts."""
    reports = [
        f"{outcome:g}, known at {time:%Y-%m-%d %H:%M}"
        for outcome, time in zip(outcomes["outcome"], outcomes[TIME_COLUMN], strict=True)
    ]
    if not reports:
        return "not reported yet"
    *earlier, last = reports
    return last + (f" (corrected: before it was {'; '.join(earlier)})" if earlier else "")


def _describe_window(bucket: Bucket, prediction: LocatedPrediction) -> Lines:
    if prediction.archive is None:
        yield "window", "not archived yet: its window is still open"
        return
    window = Window.parse(prediction.archive)
    yield "window", f"{window.name} ({prediction.archive})"
    verdict = prediction.verdict
    if verdict is None:
        yield "verdict", "not among the verdicts that were read from the topic"
        return
    yield "verdict", f"{verdict.verdict}, on {verdict.rows} rows of version {verdict.version}: {verdict.explanation}"
    report = f"reports/{prediction.model}/{prediction.version}/{window.name}.html"
    if bucket.exists(report):
        yield "report", bucket.url(report)


def _describe_version(settings: StorageCliSettings, prediction: LocatedPrediction) -> Lines:
    registry = ModelRegistry(settings.registry.model_copy(update={"model": prediction.model}))
    try:
        version = registry.client.get_model_version(prediction.model, prediction.version)
        run = registry.client.get_run(version.run_id) if version.run_id else None
        names = ("champion", "previous", "challenger")
        aliases = [f"@{name}" for name in names if registry.version_for_alias(name) == prediction.version]
    except (MlflowException, RegistryUnavailable) as error:
        yield "version", f"{prediction.version}; its origin cannot be read from the registry: {error}"
        return
    yield "version", " ".join([prediction.version, *aliases])
    if version.description:
        yield "  result", version.description
    if run is None:
        return
    tags, params, run_id = run.data.tags, run.data.params, run.info.run_id
    yield "  run", f"{run_id} ({settings.registry.uri}/#/experiments/{run.info.experiment_id}/runs/{run_id})"
    yield "  retrain", f"{tags.get('retrain_id')}, requested by {tags.get('requested_by')}: {tags.get('reason')}"
    yield "  git revision", tags.get("git_revision") or "unknown"
    for name in sorted(name for name in params if name.startswith("data")):
        yield f"  {name.replace('_', ' ')}", " ".join(params[name].split())
    for file in registry.client.list_artifacts(run_id, "dataset"):
        yield f"  {file.path}", " ".join(load_text(f"{run.info.artifact_uri}/{file.path}").split())


def _describe_reference(bucket: Bucket, prediction: LocatedPrediction) -> tuple[str, str]:
    prefix = reference_store.reference_prefix(prediction.model, prediction.version)
    is_complete = bucket.exists(f"{prefix}/profile.json")
    return "  reference", bucket.url(prefix) if is_complete else f"missing or incomplete: {bucket.url(prefix)}"
