"""Explain one prediction: request, response, version and its training data, window, verdict and outcomes."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pandas as pd
from mlflow.artifacts import load_text
from mlflow.exceptions import MlflowException
from pydantic import Field

from driftloop.archive.layout import ArchivedFile, list_files
from driftloop.archive.lookup import candidates
from driftloop.archive.retention import first_archived_day, first_kept_day
from driftloop.archive.settings import setting_name
from driftloop.errors import RegistryRefused, RegistryUnavailable
from driftloop.events import (
    ID_COLUMN,
    ROW_COLUMN,
    TIME_COLUMN,
    DriftVerdict,
    FrozenModel,
    event_id_time,
)
from driftloop.registry.model_registry import ALIAS_CHALLENGER, ALIAS_PREVIOUS, ModelRegistry, identify
from driftloop.storage import reference_store
from driftloop.storage.object_store import ObjectStore
from driftloop_cli.explain_search import LocatedPrediction, locate, outcomes_of
from driftloop_cli.row_keys import rows_of_keys
from driftloop_cli.settings import StorageCliSettings


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
    if prediction is None and len(rows := rows_of_keys(settings, store, [key])):
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
    files = list_files(ObjectStore(settings.storage), settings.topics.predictions)
    if time is None:
        return "; ".join([neither, *_how_far_searched(files), *([f"the archive keeps {kept}"] if kept else [])])
    first = first_archived_day(files)
    if days is not None and time.date() < (first_kept := first_kept_day(days, datetime.now(UTC))):
        return f"prediction {name} is of {time:%Y-%m-%d}, and the archive keeps {kept}, those since {first_kept}"
    if first is not None and time.date() < first:
        return f"prediction {name} is of {time:%Y-%m-%d}, and the archive has predictions since {first} only"
    return neither


def _how_far_searched(files: Sequence[ArchivedFile]) -> Iterator[str]:
    """Yield how far back a key, or an id without a time, was looked for."""
    searched = candidates(files, None)
    if searched:
        chosen = "all" if len(searched) == len(files) else f"the latest {len(searched):,} of"
        yield f"{chosen} {len(files):,} files of the archive were searched, back to {first_archived_day(searched)}"


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
                zip(prediction.row_numbers, prediction.rows, strict=True)
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
