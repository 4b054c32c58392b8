"""The command ``driftloop status``."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, NamedTuple

import typer
from rich.table import Table

from driftloop.command_line import load_settings_or_exit
from driftloop.errors import BrokerUnavailable, RegistryRefused, RegistryUnavailable
from driftloop.events import DriftVerdict, Event, ModelStateChanged, RetrainRequested, WindowEvent
from driftloop.exit_codes import ExitCode
from driftloop.kafka import reader
from driftloop_cli.console import AsJson, print_json, print_message, print_notice, print_table
from driftloop_cli.settings import CliSettings
from driftloop_cli.status import Status, model_status, status_parts

EVENTS_PER_VERDICT = 20  # verdicts share a topic with estimates, and a version's last quality verdict may be old
MAX_VERDICT_OFFSETS = 5_000  # those of other models may be more frequent than those of the one that is shown
PREDICTION_OFFSETS = 20  # of each partition; which version answers, not more
MODEL_OFFSETS = 2_000  # of the topics of retrains and of models: a hundred retrains with all their progress


def status(
    windows: Annotated[int, typer.Option(min=1, help="number of windows to show, of each model")] = 10,
    all_models: Annotated[bool, typer.Option("--all", help="show all models, not only that of the settings")] = False,
    as_json: AsJson = False,
) -> None:
    """Show a model: the version in service, the latest windows, its retrains with their reasons, and the lag.

    The model is that of DRIFTLOOP_REGISTRY__MODEL. If the registry or Kafka does not answer, what the other one
    knows is shown, and the exit code is 6.

        driftloop status --all

        driftloop status --json | jq '.models[0].retrains[-1]'
    """
    settings = load_settings_or_exit(CliSettings)
    result = read_status(settings, windows, all_models=all_models)
    if as_json:
        print_json(result.model_dump())
    for part in () if as_json else status_parts(result):
        if isinstance(part, Table):
            print_table(part)
        else:
            print_message(part)
    for error in result.unavailable.values():
        print_notice(error)
    if result.unavailable:
        raise typer.Exit(ExitCode.UNAVAILABLE)


class _Champion(NamedTuple):
    """What the registry says of a model; nothing if it does not answer."""

    version: str | None
    """The version in service."""
    last: str | None
    """The version that was the last in service, if none is."""


class _TopicFacts(NamedTuple):
    """What the topics say, and of which models."""

    events: list[Event]
    champions: dict[str, _Champion]
    """The models, each with what the registry says of it."""
    trainers: dict[str, bool | None]
    """Whether a trainer runs, by model."""
    lag: dict[str, dict[str, int]]


def read_status(settings: CliSettings, windows: int, *, all_models: bool) -> Status:
    """Read the status of the model of the settings, or of all models, from the registry and the topics.

    What does not answer is left out, and named in ``unavailable``. Both are asked at the same time.
    """
    unavailable: dict[str, str] = {}
    with ThreadPoolExecutor(1) as thread:
        registered = thread.submit(_registered_models, settings, all_models=all_models)

        def find_champions(named_by_events: set[str]) -> dict[str, _Champion]:
            models = {settings.registry.model, *named_by_events}
            try:
                models.update(registered.result())
            except (RegistryUnavailable, RegistryRefused) as error:
                unavailable["registry"] = str(error)
            return {model: _champion(settings, model, unavailable) for model in sorted(models)}

        try:
            topics = _read_topics(settings, windows, find_champions, all_models=all_models)
        except BrokerUnavailable as error:
            champions = find_champions(set())
            topics = _TopicFacts([], champions, dict.fromkeys(champions), {})
            unavailable["kafka"] = str(error)
    return Status(
        models=[
            model_status(
                model,
                settings.registry.alias,
                champion.version,
                champion.last,
                trainer_runs=topics.trainers[model],
                events=topics.events,
                windows=windows,
            )
            for model, champion in topics.champions.items()
        ],
        lag=topics.lag,
        unavailable=unavailable,
    )


def _read_topics(
    settings: CliSettings, windows: int, find_champions: Callable[[set[str]], dict[str, _Champion]], *, all_models: bool
) -> _TopicFacts:
    """Read the topics.

    Args:
        settings: The broker and the topics.
        windows: How many windows of each model to show.
        find_champions: Asks the registry about its models and those that it is given.
        all_models: Whether models that only events name are shown, too.
    """
    kafka, names = settings.kafka, settings.topics
    events = [
        *reader.read_last(kafka, names.retrain, MODEL_OFFSETS),
        *reader.read_last(kafka, names.models, MODEL_OFFSETS),
        *reader.read_last(kafka, names.predictions, PREDICTION_OFFSETS),
    ]
    champions = find_champions(_models_of(events) if all_models else set())
    events += _read_verdicts(settings, {model: champion.version for model, champion in champions.items()}, windows)
    workers, groups = settings.drift_worker.group, {model: settings.trainer_group(model) for model in champions}
    return _TopicFacts(
        events,
        champions,
        {model: reader.has_members(kafka, group) for model, group in groups.items()},
        {
            workers: reader.consumer_lag(kafka, workers, [names.predictions, names.outcomes]),
            **{group: reader.consumer_lag(kafka, group, [names.retrain]) for group in groups.values()},
        },
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


def _registered_models(settings: CliSettings, *, all_models: bool) -> list[str]:
    """Return the names of all models, or none if only one is shown; the registry then has to answer all the same."""
    from driftloop.registry.model_registry import ModelRegistry  # noqa: PLC0415  # MLflow takes seconds to import

    registry = ModelRegistry(settings.registry)
    if all_models:
        return registry.model_names()
    registry.champion()
    return []


def _champion(settings: CliSettings, model: str, unavailable: dict[str, str]) -> _Champion:
    """Return a model's version in service, or else the one that was the last in service.

    If the registry does not answer, that is noted in ``unavailable``, and it is not asked again.
    """
    from driftloop.registry.model_registry import ModelRegistry  # noqa: PLC0415  # MLflow takes seconds to import

    if "registry" in unavailable:
        return _Champion(None, None)
    try:
        registry = ModelRegistry(settings.registry.model_copy(update={"model": model}))
        version = registry.champion()
        return _Champion(version, registry.last_champion() if version is None else None)
    except (RegistryUnavailable, RegistryRefused) as error:
        unavailable["registry"] = str(error)
        return _Champion(None, None)
