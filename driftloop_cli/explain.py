"""All that is known of one prediction: the request, the answer, the version and where it came from, what happened.

Nothing is searched as a whole. A prediction's id holds its time; the verdicts that were given from then on name the
windows that it may lie in, and outcomes lie in files that were written after it.
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

from driftloop.events import RESERVED, Drift, Event, Outcome, Prediction, Window
from driftloop.kafka import topics
from driftloop.registry.model_registry import Registry
from driftloop.settings import Registry as RegistrySettings
from driftloop.settings import Settings, Storage
from driftloop.storage import reference_store
from driftloop.storage.bucket import Bucket

SLACK = timedelta(minutes=1)  # by which the clocks of predictor, broker and bucket may differ
READERS = 8  # files at once
VERDICTS = 200  # that are looked at together
MOST_WINDOWS = 1_000  # that are searched: far more than are open at a time
MOST_ROWS = 20  # that are shown, where no row is asked for


class ExplainSettings(Settings):
    """What the command reads from the environment."""

    registry: RegistrySettings
    storage: Storage = Storage()


class Found(NamedTuple):
    """A request and its answer."""

    model: str
    version: str
    time: datetime
    rows: list[tuple[Any, dict[str, Any]]]
    """Each row's prediction and features."""
    archive: str | None
    """The file that it lies in, once it is archived."""
    verdict: Drift | None
    """On the rows of its version in its window."""
    event: Prediction | None
    """As it lies on its topic, which does not keep it for ever."""


def explained(settings: ExplainSettings, prediction_id: str, row: int | None = None) -> Iterator[tuple[str, str]]:
    """What is known of a prediction, or of one row of it, as pairs of a name and a text; nothing if it is unknown."""
    bucket = Bucket(settings.storage)
    found = find(settings, bucket, prediction_id)
    if found is None:
        return
    yield "answered", f"{found.time:%Y-%m-%d %H:%M:%S} by version {found.version} of {found.model}"
    if found.event is not None and found.event.traceparent is not None:
        yield "trace", found.event.traceparent.split("-")[1]
    outcomes = outcomes_of(settings, bucket, prediction_id)
    chosen = range(len(found.rows)) if row is None else [row] if row < len(found.rows) else []
    for number in chosen[:MOST_ROWS]:
        yield from _of_row(number, *found.rows[number], outcomes[outcomes["row"] == number])
    if len(chosen) > MOST_ROWS:
        yield "", f"{len(chosen) - MOST_ROWS} more rows: name one with --row"
    if not chosen:
        yield "", f"there is no row {row}: it has {len(found.rows)}, from 0 on"
    yield from _of_window(bucket, found)
    yield from _of_version(settings, bucket, found)


def asked_at(prediction_id: str) -> datetime | None:
    """When an id was made; ``None`` where it does not say, since it is not one of a predictor's own."""
    try:
        made = UUID(prediction_id)
    except ValueError:
        return None
    return datetime.fromtimestamp((made.int >> 80) / 1000, UTC) if made.version == 7 else None


def find(settings: ExplainSettings, bucket: Bucket, prediction_id: str) -> Found | None:
    """The prediction, from the archive, or from its topic where its window is still open."""
    return _archived(settings, bucket, prediction_id) or _on_topic(settings, prediction_id)


def outcomes_of(settings: ExplainSettings, bucket: Bucket, prediction_id: str) -> pd.DataFrame:
    """All that was ever said of what became of its rows (``row``, ``outcome``, ``time``), in order of time."""
    since = (asked_at(prediction_id) or datetime.fromtimestamp(0, UTC) + SLACK) - SLACK
    files = bucket.written_since(f"events/{settings.topics.outcomes}", since)

    empty = pd.DataFrame(columns=["id", "row", "time", "outcome"])

    def of(file: str) -> pd.DataFrame:
        try:
            rows = bucket.read_parquet(file, empty.columns.tolist())
        except FileNotFoundError:  # cleared since it was listed
            return empty
        return rows[rows["id"] == prediction_id]

    with ThreadPoolExecutor(READERS) as readers:
        archived = list(readers.map(of, files))
    behind: dict[int, int] = {}
    for window in map(Window.named, files):
        behind[window.partition] = max(window.last_offset, behind.get(window.partition, -1))
    newer = [
        {"id": event.prediction_id, "row": event.index, "time": event.time, "outcome": event.outcome}
        for event in topics.since(settings.kafka, settings.topics.outcomes, since, behind)
        if isinstance(event, Outcome) and event.prediction_id == prediction_id
    ]
    told = [frame for frame in (*archived, pd.DataFrame(newer)) if len(frame)]
    return pd.concat(told).sort_values("time", kind="stable") if told else empty


def _archived(settings: ExplainSettings, bucket: Bucket, prediction_id: str) -> Found | None:
    at = asked_at(prediction_id)
    judged = (
        topics.since(settings.kafka, settings.topics.drift, at - SLACK)
        if at is not None
        else reversed(topics.latest(settings.kafka, settings.topics.drift, MOST_WINDOWS))
    )
    verdicts = (event for event in judged if isinstance(event, Drift) and not event.replayed)
    known: dict[tuple[str, str, str], Drift] = {}
    read: set[str] = set()

    def rows_in(archive: str) -> tuple[str, pd.DataFrame]:
        try:
            rows = bucket.read_parquet(archive.removeprefix(bucket.url("")))
        except FileNotFoundError:  # cleared by whoever keeps the bucket small
            return archive, pd.DataFrame({"id": []})
        return archive, rows[rows["id"] == prediction_id]

    with ThreadPoolExecutor(READERS) as readers:
        while len(read) < MOST_WINDOWS and (some := list(islice(verdicts, VERDICTS))):
            known |= {(verdict.archive, verdict.model, verdict.version): verdict for verdict in some}
            new = [archive for archive in dict.fromkeys(verdict.archive for verdict in some) if archive not in read]
            read.update(new)
            for start in range(0, len(new), READERS):
                for archive, rows in readers.map(rows_in, new[start : start + READERS]):
                    if len(rows):
                        # A worker publishes the verdicts on a window together, but another one's may come between.
                        beside = islice(verdicts, VERDICTS)
                        known |= {(verdict.archive, verdict.model, verdict.version): verdict for verdict in beside}
                        event = _event(topics.within(settings.kafka, Window.named(archive)), prediction_id)
                        return _of_file(archive, rows.sort_values("row"), known, event)
    return None


def _event(events: Iterator[Event], prediction_id: str) -> Prediction | None:
    return next((event for event in events if isinstance(event, Prediction) and event.id == prediction_id), None)


def _of_file(
    archive: str, rows: pd.DataFrame, known: Mapping[tuple[str, str, str], Drift], event: Prediction | None
) -> Found:
    first = rows.iloc[0]
    model, version = str(first["model"]), str(first["version"])
    names = [str(name) for name in rows if name not in RESERVED]
    return Found(
        model,
        version,
        first["time"].to_pydatetime(),
        [
            (prediction, dict(zip(names, cells, strict=True)))
            for prediction, cells in zip(rows["prediction"], rows[names].to_numpy(dtype=object), strict=True)
        ],
        archive,
        known.get((archive, model, version)),
        event,
    )


def _on_topic(settings: ExplainSettings, prediction_id: str) -> Found | None:
    at = asked_at(prediction_id)
    if at is None:
        return None
    event = _event(topics.since(settings.kafka, settings.topics.predictions, at - SLACK), prediction_id)
    if event is None:
        return None
    cells = zip(*event.features.values(), strict=True)
    features = [dict(zip(event.features, row, strict=True)) for row in cells]
    rows = list(zip(event.predictions, features, strict=True))
    return Found(event.model, event.version, event.time, rows, None, None, event)


def _of_row(
    number: int, prediction: object, features: Mapping[str, object], outcomes: pd.DataFrame
) -> Iterator[tuple[str, str]]:
    yield f"row {number}", ", ".join(f"{name}={'–' if pd.isna(cell) else cell}" for name, cell in features.items())  # type: ignore[call-overload]
    yield "  prediction", str(prediction)
    told = [f"{one.outcome:g}, known at {one.time:%Y-%m-%d %H:%M}" for one in outcomes.itertuples()]
    if not told:
        yield "  outcome", "none has been reported yet"
        return
    *before, last = told
    yield "  outcome", last + (f" (corrected: before it was {'; '.join(before)})" if before else "")


def _of_window(bucket: Bucket, found: Found) -> Iterator[tuple[str, str]]:
    if found.archive is None:
        yield "window", "not archived yet: its window is still open"
        return
    window = Window.named(found.archive)
    yield "window", f"{window.name} ({found.archive})"
    verdict = found.verdict
    if verdict is None:
        yield "verdict", "the topic of verdicts does not hold it any more"
        return
    yield "verdict", f"{verdict.verdict}, on {verdict.rows} rows of version {verdict.version}: {verdict.why}"
    report = f"reports/{found.model}/{found.version}/{window.name}.html"
    if bucket.exists(report):
        yield "report", bucket.url(report)


def _of_version(settings: ExplainSettings, bucket: Bucket, found: Found) -> Iterator[tuple[str, str]]:
    registry = Registry(settings.registry.model_copy(update={"model": found.model}))
    try:
        version = registry.client.get_model_version(found.model, found.version)
        run = registry.client.get_run(version.run_id) if version.run_id else None
    except MlflowException as error:
        yield "version", f"what it came from is not known: {error}"
    else:
        named = [alias for alias in ("champion", "previous", "challenger") if registry.named(alias) == found.version]
        yield "version", " ".join([found.version, *(f"@{alias}" for alias in named)])
        if version.description:
            yield "  why", version.description
        if run is not None:
            tags, params = run.data.tags, run.data.params
            at = f"{settings.registry.uri}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
            yield "  run", f"{run.info.run_id} ({at})"
            yield "  retrain", f"{tags.get('retrain_id')}, asked for by {tags.get('asked_by')}: {tags.get('reason')}"
            yield "  git revision", tags.get("git_revision") or "not known"
            for name in sorted(name for name in params if name.startswith("data")):
                yield f"  {name.replace('_', ' ')}", " ".join(params[name].split())
            for file in registry.client.list_artifacts(run.info.run_id, "dataset"):
                text = load_text(f"{run.info.artifact_uri}/{file.path}")
                yield f"  {file.path}", " ".join(text.split())
    at = reference_store.folder(found.model, found.version)
    there = bucket.exists(f"{at}/profile.json")
    yield "  reference", bucket.url(at) if there else f"there is none: {bucket.url(at)} lacks a file"
