"""Explain one prediction: request, response, version and its training data, window, verdict and outcomes.

No topic or folder is searched as a whole. A UUIDv7 has a time: the prediction is in a file of that day or the next
ones, and so are its outcomes and the verdict on its window.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple

import pandas as pd
from mlflow.artifacts import load_text
from mlflow.exceptions import MlflowException
from pydantic import Field

from driftloop.archive.erasures import Tombstones
from driftloop.archive.layout import ArchivedFile, files_since, is_within, list_files
from driftloop.archive.lookup import find_rows
from driftloop.archive.retention import first_archived_day, first_kept_day
from driftloop.archive.settings import setting_name
from driftloop.errors import RegistryRefused, RegistryUnavailable
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
    FrozenModel,
    Outcome,
    Prediction,
    Window,
    event_id_time,
)
from driftloop.kafka import reader
from driftloop.registry.model_registry import ALIAS_CHALLENGER, ALIAS_PREVIOUS, ModelRegistry, identify
from driftloop.storage import reference_store
from driftloop.storage.object_store import ObjectStore
from driftloop.storage.parallel_reads import map_reads
from driftloop.times import MAX_CLOCK_SKEW
from driftloop_cli.row_keys import last_offsets, name_rows, rows_of_key
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


class ReportedOutcome(FrozenModel):
    """What was reported about a row."""

    outcome: Any
    time: datetime
    """When it was known."""


class ExplainedRow(FrozenModel):
    """A row of the request, with what was predicted and what really happened."""

    row: int
    """Position in the request, from 0."""
    key: str | None = None
    """The client's own key of the row."""
    features: dict[str, Any]
    prediction: Any
    outcomes: list[ReportedOutcome]
    """All reports, in the order of their times, but first those from the future; the last one counts."""


class ExplainedVersion(FrozenModel):
    """What the registry says of the version that predicted."""

    aliases: list[str]
    description: str
    run_id: str | None
    """The run that logged the version; null like all that follows if it was registered without one."""
    run_url: str | None = None
    retrain_id: str | None = None
    requested_by: str | None = None
    reason: str | None = None
    git_revision: str | None = None
    """Ends with ``-dirty`` if the code or the use case had changes that are in no commit."""
    data: dict[str, str] = Field(default_factory=dict)
    """Parameters of the training set."""
    dataset_files: dict[str, str] = Field(default_factory=dict)
    """DVC pointers of the training set, the texts of ``.dvc`` files, by their path."""


class Explanation(FrozenModel):
    """Everything that is known about a prediction."""

    id: str
    model: str
    version: str
    time: datetime
    trace_id: str | None
    rows: list[ExplainedRow]
    archive: str | None
    """URL of the file in the archive; null if it is not archived yet."""
    verdict: DriftVerdict | None
    """The verdict on its version's window; null while that is open."""
    report: str | None
    """URL of evidently's report on the window."""
    registered: ExplainedVersion | None
    """Null if the registry does not say; then ``registry_error`` says why."""
    registry_error: str | None
    reference: str
    """URL of the version's reference."""
    reference_is_complete: bool


def explain_prediction(settings: StorageCliSettings, name: str) -> Explanation | None:
    """Return what is known about a prediction; ``None`` if it is not found.

    Args:
        settings: Where archive and topics are.
        name: The prediction's id, or a client's own key, which means the row of this key that was predicted last.
    """
    store = ObjectStore(settings.storage).require_answer()
    prediction_id, row = name, None
    prediction = locate(settings, store, prediction_id)
    key = settings.privacy.privacy.treat_key(name)
    if prediction is None and len(rows := rows_of_key(settings, store, key)):
        last = rows.iloc[-1]
        prediction_id, row = str(last[ID_COLUMN]), int(last[ROW_COLUMN])
        prediction = locate(settings, store, prediction_id)
    if prediction is None:
        return None
    outcomes = outcomes_of(settings, store, prediction_id, prediction)
    registered, registry_error = _registered_version(settings, prediction)
    explanation = explanation_of(store, prediction_id, prediction, outcomes, registered, registry_error)
    if row is None:
        return explanation
    return explanation.model_copy(update={"rows": [each for each in explanation.rows if each.row == row]})


def why_not_found(settings: StorageCliSettings, name: str) -> str:
    """Return a sentence about a prediction that is not found, by its id or key: it may be older than the archive is.

    Raises:
        StorageUnavailable: The store does not answer.
    """
    neither = f"prediction {name} is neither in the archive nor on its topic"
    days, time = settings.archive.prediction_retention_days, event_id_time(name)
    kept = "" if days is None else f"predictions for {days:,} days ({setting_name('prediction')})"
    if time is None:
        return f"{neither}; the archive keeps {kept}" if kept else neither
    first = first_archived_day(list_files(ObjectStore(settings.storage), settings.topics.predictions))
    if days is not None and time.date() < (first_kept := first_kept_day(days, datetime.now(UTC))):
        return f"prediction {name} is of {time:%Y-%m-%d}, and the archive keeps {kept}, those since {first_kept}"
    if first is not None and time.date() < first:
        return f"prediction {name} is of {time:%Y-%m-%d}, and the archive has predictions since {first} only"
    return neither


def explanation_of(
    store: ObjectStore,
    prediction_id: str,
    prediction: LocatedPrediction,
    outcomes: pd.DataFrame,
    registered: ExplainedVersion | None = None,
    registry_error: str | None = None,
) -> Explanation:
    """Return the explanation of a prediction that was found, with the URLs of its window's report and reference."""
    trace = prediction.event.traceparent if prediction.event is not None else None
    prefix = reference_store.find_reference(store, prediction.model, prediction.version, prediction.run_id or "")
    return Explanation(
        id=prediction_id,
        model=prediction.model,
        version=prediction.version,
        time=prediction.time,
        trace_id=trace.split("-")[1] if trace else None,
        rows=[
            ExplainedRow(
                row=number,
                key=prediction.keys[position] if prediction.keys else None,
                features={name: None if pd.isna(cell) else cell for name, cell in features.items()},
                prediction=value,
                outcomes=_reported_outcomes(outcomes[outcomes[ROW_COLUMN] == number]),
            )
            for position, (number, (value, features)) in enumerate(
                zip(prediction.numbers or range(len(prediction.rows)), prediction.rows, strict=True)
            )
        ],
        archive=prediction.archive,
        verdict=prediction.verdict,
        report=_report_url(store, prediction),
        registered=registered,
        registry_error=registry_error,
        reference=store.url(prefix),
        reference_is_complete=store.exists(f"{prefix}/profile.json"),
    )


def locate(settings: StorageCliSettings, store: ObjectStore, prediction_id: str) -> LocatedPrediction | None:
    """Return the prediction from the archive or, while its window is open, from the topic."""
    return _locate_in_archive(settings, store, prediction_id) or _locate_on_topic(settings, store, prediction_id)


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
    since = (event_id_time(prediction_id) or datetime.fromtimestamp(0, UTC) + MAX_CLOCK_SKEW) - MAX_CLOCK_SKEW
    files = files_since(list_files(store, settings.topics.outcomes), since)
    empty = pd.DataFrame(columns=OUTCOME_COLUMNS)

    def read(file: ArchivedFile) -> pd.DataFrame:
        try:
            rows = store.read_parquet(file.path, [*OUTCOME_COLUMNS, "outcome_label"])
        except FileNotFoundError:  # deleted since it was listed
            return empty
        rows = rows[(rows[ID_COLUMN] == prediction_id) | rows[KEY_COLUMN].isin(keys)]
        return rows.assign(outcome=rows["outcome_label"].where(rows["outcome_label"].notna(), rows["outcome"]))

    archived = map_reads(read, files)
    newer = [
        {
            ID_COLUMN: event.prediction_id,
            ROW_COLUMN: event.index,
            TIME_COLUMN: event.time,
            MODEL_COLUMN: event.model,
            KEY_COLUMN: event.key,
            "outcome": event.outcome,
        }
        for event in reader.read_since(
            settings.kafka, settings.topics.outcomes, since, last_offsets(files), Tombstones(store).event_left
        )
        if isinstance(event, Outcome) and (event.prediction_id == prediction_id or event.key in keys)
    ]
    frames = [frame for frame in (*archived, pd.DataFrame(newer)) if len(frame)]
    if not frames:
        return empty
    found = pd.concat(frames)
    for key in set(found[KEY_COLUMN].dropna()):
        named = name_rows(found[found[KEY_COLUMN] == key], rows_of_key(settings, store, key, since))
        found = pd.concat([found[found[KEY_COLUMN] != key], named])
    found = found[found[ID_COLUMN] == prediction_id].sort_values(TIME_COLUMN, kind="stable")
    is_past = found[TIME_COLUMN] <= datetime.now(UTC) + MAX_CLOCK_SKEW
    return pd.concat([found[~is_past], found[is_past]])


def _locate_in_archive(
    settings: StorageCliSettings, store: ObjectStore, prediction_id: str
) -> LocatedPrediction | None:
    time = event_id_time(prediction_id)
    topic = settings.topics.predictions
    found = find_rows(store, topic, prediction_id, time)
    if found is None:
        return None
    rows = found.rows.sort_values(ROW_COLUMN)
    first = rows.iloc[0]
    model, version, run_id = str(first[MODEL_COLUMN]), str(first[VERSION_COLUMN]), first.get(RUN_COLUMN)
    run_id = run_id if isinstance(run_id, str) else None
    offset, partition = int(first[OFFSET_COLUMN]), found.file.window.partition
    verdicts = (
        reader.read_since(settings.kafka, settings.topics.drift, time - MAX_CLOCK_SKEW)
        if time is not None
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


def _locate_on_topic(settings: StorageCliSettings, store: ObjectStore, prediction_id: str) -> LocatedPrediction | None:
    time = event_id_time(prediction_id)
    if time is None:
        return None
    event_left = Tombstones(store).event_left
    events = reader.read_since(settings.kafka, settings.topics.predictions, time - MAX_CLOCK_SKEW, {}, event_left)
    event = _find_event(events, prediction_id)
    if event is None:
        return None
    features: list[dict[str, Any]] = [
        {column: cells[row] for column, cells in event.features.items()} for row in range(len(event.predictions))
    ]
    rows = list(zip(event.predictions, features, strict=True))
    keys = tuple(event.keys or ())
    return LocatedPrediction(event.model, event.version, event.time, rows, None, None, event, keys, event.run_id)


def _reported_outcomes(outcomes: pd.DataFrame) -> list[ReportedOutcome]:
    return [
        ReportedOutcome(outcome=outcome, time=time)
        for outcome, time in zip(outcomes["outcome"], outcomes[TIME_COLUMN], strict=True)
    ]


def _report_url(store: ObjectStore, prediction: LocatedPrediction) -> str | None:
    if prediction.verdict is None:
        return None
    report = f"reports/{prediction.model}/{prediction.version}/{prediction.verdict.window.name}.html"
    return store.url(report) if store.exists(report) else None


def _registered_version(
    settings: StorageCliSettings, prediction: LocatedPrediction
) -> tuple[ExplainedVersion | None, str | None]:
    """Return what the registry says of the version, or why it does not."""
    registry = ModelRegistry(settings.registry.model_copy(update={"model": prediction.model}))
    try:
        version = registry.client.get_model_version(prediction.model, prediction.version)
        run = registry.client.get_run(version.run_id) if version.run_id else None
        names = (registry.alias, ALIAS_PREVIOUS, ALIAS_CHALLENGER)
        aliases = [name for name in names if registry.version_for_alias(name) == prediction.version]
    except (MlflowException, RegistryRefused, RegistryUnavailable) as error:
        return None, str(error)
    predicted_by = prediction.run_id
    if predicted_by is not None and predicted_by != identify(version).run_id:
        return None, (
            f"its version {prediction.version} is another one: the model was deleted and made again after run "
            f"{predicted_by} had predicted"
        )
    if run is None:
        return ExplainedVersion(aliases=aliases, description=version.description or "", run_id=None), None
    tags, params, run_id = run.data.tags, run.data.params, run.info.run_id
    return ExplainedVersion(
        aliases=aliases,
        description=version.description or "",
        run_id=run_id,
        run_url=f"{settings.registry.uri}/#/experiments/{run.info.experiment_id}/runs/{run_id}",
        retrain_id=tags.get("retrain_id"),
        requested_by=tags.get("requested_by"),
        reason=tags.get("reason"),
        git_revision=tags.get("git_revision") or None,
        data={name: " ".join(params[name].split()) for name in sorted(params) if name.startswith("data")},
        dataset_files={
            file.path: load_text(f"{run.info.artifact_uri}/{file.path}")
            for file in registry.client.list_artifacts(run_id, "dataset")
        },
    ), None
