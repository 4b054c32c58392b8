"""Hold a registered version against the champion, by the gate, on archived rows that neither has learned from."""

import tempfile
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from driftloop.errors import Rejected
from driftloop.evaluation import gate
from driftloop.evaluation.gate import Decision
from driftloop.evaluation.gate_settings import GateSettings
from driftloop.events import Evaluation, ModelStateChanged, new_event_id
from driftloop.registry.loading import load_model
from driftloop.registry.model_registry import ModelRegistry
from driftloop.registry.smoke_test import SmokeTestProcess
from driftloop.storage.labelled_archive import ArchiveQuery
from driftloop.storage.object_store import ObjectStore
from driftloop.storage.reference_store import ReferenceUnavailable, load_reference, save_gate_evaluation
from driftloop.telemetry import tracing
from driftloop_cli.archived_rows import ArchivedRowsSettings, predict_rows, read_labelled_rows

STEP = timedelta(microseconds=1)  # a query includes its start


class ChallengeImpossible(Rejected):
    """The versions cannot be compared; the message says why."""


class ChallengeSettings(ArchivedRowsSettings):
    """Settings of ``driftloop challenge``."""

    gate: GateSettings = GateSettings()


class Challenge(NamedTuple):
    """A version, the champion, and the gate's decision about them."""

    version: str
    champion: str | None
    since: datetime | None
    """Both were trained on earlier rows only; None without a champion."""
    rows: int
    decision: Decision
    evaluation: Evaluation | None
    """How good the version was on these rows; None without a champion."""
    trained_through: pd.Timestamp


def challenge(
    settings: ChallengeSettings, registry: ModelRegistry, version: str, report: Callable[[str], None]
) -> Challenge:
    """Compare a version with the champion, as the gate does after a retrain; nothing changes.

    Raises:
        ChallengeImpossible: The version serves already, does not exist or has no reference, or there are no rows.
        ModelRejected: The champion cannot be loaded.
        AliasMissing: The model has had a champion, and has none any more.
        DependencyUnavailable: The registry or the store does not answer.
    """
    champion, versions = registry.champion_unless_first(), registry.versions()
    if version not in versions:
        raise ChallengeImpossible(f"{registry.model} has no version {version}; its versions are {', '.join(versions)}")
    if version == champion:
        raise ChallengeImpossible(f"version {version} is in service already")
    try:  # without a reference nobody would watch its windows
        load_reference(ObjectStore(settings.storage).require_answer(), registry.model, version)
    except ReferenceUnavailable as error:
        raise ChallengeImpossible(f"{error}; driftloop adopt makes one") from error
    with (
        tempfile.TemporaryDirectory(prefix="driftloop-challenge-") as name,
        SmokeTestProcess(registry.trusted_types) as smoke_test,
    ):
        folders = {each: Path(name) / each for each in (champion, version) if each is not None}
        for each, folder in folders.items():
            report(f"downloads version {each}")
            folder.mkdir()
            folders[each] = registry.fetch(each, folder)
        if champion is not None:
            smoke_test.set_champion(folders[champion])
        trained_through = learned_through(registry, version)
        evaluation, predictions, since, rows = None, None, None, pd.DataFrame()
        if champion is not None:
            since = max(trained_through, learned_through(registry, champion)).to_pydatetime() + STEP
            report(f"reads labelled rows since {since:%Y-%m-%d %H:%M} UTC, which neither version has learned from")
            rows = read_labelled_rows(settings, ArchiveQuery(since=since))
            if rows.empty:
                raise ChallengeImpossible(
                    f"the archive has no labelled row since {since:%Y-%m-%d %H:%M} UTC, which both versions' training "
                    "reaches"
                )
            report(f"scores {len(rows):,} rows with versions {champion} and {version}")
            estimators = {each: load_model(folder, registry.trusted_types) for each, folder in folders.items()}
            scores = predict_rows(settings.use_case, estimators[version], rows)
            evaluation = gate.evaluate_holdout(settings.use_case, rows, scores)
            predictions = gate.describe_holdout(
                settings.use_case,
                rows,
                champion=predict_rows(settings.use_case, estimators[champion], rows),
                challenger=scores,
            )
        report("loads and times it in a fresh process")
        result = smoke_test.run(folders[version], settings.gate.smoke_test_timeout_seconds)
    decision = (
        gate.decide_first(result)
        if predictions is None
        else gate.decide(settings.use_case.headline_metric, predictions, result, settings.gate)
    )
    return Challenge(version, champion, since, len(rows), decision, evaluation, trained_through)


def promote(
    settings: ChallengeSettings, registry: ModelRegistry, passed: Challenge, requested_by: str
) -> ModelStateChanged:
    """Move the alias to a version that has passed; return the event that the caller has to publish.

    Raises:
        ChallengeImpossible: Another version has become the champion since the comparison.
    """
    if (champion := registry.champion()) != passed.champion:
        raise ChallengeImpossible(
            f"version {champion} has come into service since the comparison with {passed.champion}: repeat the command"
        )
    change = ModelStateChanged(
        traceparent=tracing.current_traceparent(),
        retrain_id=registry.retrain_id_of(passed.version) or new_event_id(),
        model=registry.model,
        version=passed.version,
        state="promoted",
        explanation=f"challenged by {requested_by}: {passed.decision.explanation}",
        champion=passed.decision.champion,
        challenger=passed.decision.challenger,
        trained_through=passed.trained_through.to_pydatetime(),
    )
    if passed.evaluation is not None:  # its quality in service is compared with this
        save_gate_evaluation(ObjectStore(settings.storage), registry.model, passed.version, passed.evaluation)
    registry.record_result(passed.version, change)
    registry.promote(passed.version)
    return change


def learned_through(registry: ModelRegistry, version: str) -> pd.Timestamp:
    """Return the time after which a version has learned from no row: its registration, if its run does not say."""
    trained_through = registry.trained_through(version)
    return trained_through if trained_through.value else pd.Timestamp(registry.origin(version).created)
