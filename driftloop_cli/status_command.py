"""The command ``driftloop status``."""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Annotated

import typer
from rich.table import Table

from driftloop.command_line import load_settings_or_exit
from driftloop.events import DriftVerdict, Event, ModelStateChanged, RetrainRequested, WindowEvent
from driftloop.kafka import reader
from driftloop_cli.console import (
    AsJson,
    exit_if_unavailable,
    exit_on_registry_error,
    print_json,
    print_message,
    print_table,
)
from driftloop_cli.settings import CliSettings
from driftloop_cli.status import Status, model_status, status_parts

EVENTS_PER_VERDICT = 20  # verdicts share a topic with estimates, and a version's last quality verdict may be old
MAX_VERDICT_OFFSETS = 5_000  # those of other models may be more frequent than those of the one that is shown
MODEL_OFFSETS = 2_000  # of the topics of retrains and of models: a hundred retrains with all their progress


def status(
    windows: Annotated[int, typer.Option(min=1, help="number of windows to show, of each model")] = 10,
    all_models: Annotated[bool, typer.Option("--all", help="show all models, not only that of the settings")] = False,
    as_json: AsJson = False,
) -> None:
    """Show a model: the version in service, the latest windows, its retrains with their reasons, and the lag.

    The model is that of DRIFTLOOP_REGISTRY__MODEL. The exit code is 6 if the registry or Kafka does not answer.

        driftloop status --all

        driftloop status --json | jq '.models[0].retrains[-1]'
    """
    settings = load_settings_or_exit(CliSettings)
    result = read_status(settings, windows, all_models=all_models)
    if as_json:
        print_json(result.model_dump())
        return
    for part in status_parts(result):
        if isinstance(part, Table):
            print_table(part)
        else:
            print_message(part)


def read_status(settings: CliSettings, windows: int, *, all_models: bool) -> Status:
    """Read the status of the model of the settings, or of all models, from the registry and the topics."""
    kafka, names = settings.kafka, settings.topics
    models = _registered_models(settings) if all_models else {settings.registry.model}
    with exit_if_unavailable():
        events = [
            *reader.read_last(kafka, names.retrain, MODEL_OFFSETS),
            *reader.read_last(kafka, names.models, MODEL_OFFSETS),
        ]
        if all_models:
            models |= _models_of(events)
        champions = {model: _champion(settings, model) for model in sorted(models)}
        events += _read_verdicts(settings, champions, windows)
        groups = {model: settings.trainer_group(model) for model in sorted(models)}
        trainers = {model: reader.has_members(kafka, group) for model, group in groups.items()}
        lag = {
            "drift_worker": reader.consumer_lag(kafka, "drift_worker", [names.predictions, names.outcomes]),
            **{group: reader.consumer_lag(kafka, group, [names.retrain]) for group in groups.values()},
        }
    alias = settings.registry.alias
    return Status(
        models=[
            model_status(model, alias, champions[model], trainer_runs, events, windows)
            for model, trainer_runs in trainers.items()
        ],
        lag=lag,
    )


def _read_verdicts(settings: CliSettings, champions: Mapping[str, str | None], windows: int) -> list[Event]:
    """Read the topic of verdicts from far enough back for the last windows of each model and their real verdicts.

    Args:
        settings: The broker and the topic.
        champions: The models, each with its version in service.
        windows: How many windows of each model to show.
    """
    count = windows * EVENTS_PER_VERDICT
    events = reader.read_last(settings.kafka, settings.topics.drift, count)
    while count < MAX_VERDICT_OFFSETS and not _has_windows(events, champions, windows):
        count = min(count * 10, MAX_VERDICT_OFFSETS)
        earlier = reader.read_last(settings.kafka, settings.topics.drift, count)
        if len(earlier) == len(events):
            break
        events = earlier
    return events


def _has_windows(events: Collection[Event], champions: Mapping[str, str | None], windows: int) -> bool:
    """Return whether there are enough windows of each model, with a real verdict on each version that was judged."""
    verdicts = [event for event in events if isinstance(event, DriftVerdict) and not event.replayed]
    counts = Counter(verdict.model for verdict in verdicts)
    conclusive = {(verdict.model, verdict.version) for verdict in verdicts if verdict.verdict != "inconclusive"}
    shown = {(verdict.model, verdict.version) for verdict in verdicts if verdict.model in champions}
    shown |= {(model, version) for model, version in champions.items() if version is not None}
    return shown <= conclusive and all(counts[model] >= windows for model in champions)


def _models_of(events: Collection[Event]) -> set[str]:
    return {e.model for e in events if isinstance(e, RetrainRequested | ModelStateChanged | WindowEvent)}


def _registered_models(settings: CliSettings) -> set[str]:
    from driftloop.registry.model_registry import ModelRegistry  # noqa: PLC0415  # MLflow takes seconds to import

    with exit_on_registry_error():
        return {settings.registry.model, *ModelRegistry(settings.registry).model_names()}


def _champion(settings: CliSettings, model: str) -> str | None:
    """Return a model's version in service."""
    from driftloop.registry.model_registry import ModelRegistry  # noqa: PLC0415  # MLflow takes seconds to import

    with exit_on_registry_error():
        return ModelRegistry(settings.registry.model_copy(update={"model": model})).champion()
