"""The status of a model: windows, quality and retrains from the topics' latest events, as facts and as tables. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Literal, TypeVar

from pydantic import Field
from rich import box
from rich.markup import escape
from rich.table import Column, Table

from driftloop.evaluation.metric_names import metric_label
from driftloop.events import (
    DriftVerdict,
    Event,
    FrozenModel,
    ModelStateChanged,
    Prediction,
    QualityEstimate,
    QualityVerdict,
    WindowEvent,
    event_id_time,
)
from driftloop.retrain_summary import RetrainSummary, summarize_retrains
from driftloop.times import format_utc
from driftloop.version_status import JudgedWindow, VersionStatus, most_important_first, version_status

STATE_COLORS = {
    **{"promoted": "green", "rejected": "yellow", "failed": "red"},
    **{"no_drift": "green", "drift": "red"},
    **{"consistent": "green", "improved": "green", "degraded": "red"},
}
"""Colors of states and verdicts; others have a default that depends on the table."""
SHOWN_RETRAINS = 10
MOVES_ALIAS = ("promoted", "rolled_back")
MAX_SWAP_TIME = timedelta(minutes=1)  # from the move of the alias to the first answer of the version

EventOfVersion = TypeVar("EventOfVersion", bound=WindowEvent)


class Answering(FrozenModel):
    """The last request that was answered, by the topic of predictions."""

    version: str
    """The version that has answered it."""
    at: datetime
    """When, by the predictor's clock."""


class ModelStatus(FrozenModel):
    """What is known about one model."""

    model: str
    """Name of the registered model."""
    alias: str
    """The alias that predictors follow."""
    version: str | None
    """The version that the alias names; null while it names none, or if the registry does not answer."""
    last_champion: str | None = None
    """The version that had the alias last, if it names none any more."""
    answering: Answering | None = None
    """The version that has answered last; null if the topic of predictions does not say."""
    is_swap_overdue: bool = False
    """Whether another version than the alias names has answered more than a minute after the alias was moved."""
    trainer: Literal["runs", "does not run", "unknown"]
    """Whether a trainer of the model runs; ``unknown`` if the broker does not let the command ask."""
    versions: list[VersionStatus]
    """The version in service first, then those with drift, each with its last real verdict. Versions that no verdict
    on the last windows is about are left out."""
    windows: list[DriftVerdict]
    """The verdicts on the latest windows, the latest last; before them the last verdict of drift or no drift on each of
    their versions and on the version in service, if it is an earlier one."""
    replays: list[DriftVerdict]
    """Later verdicts on the same windows."""
    estimates: list[QualityEstimate]
    """The latest estimate of the quality of each version."""
    retrains: list[RetrainSummary]
    """The latest retrains and rollbacks, the latest last."""


class Status(FrozenModel):
    """What ``driftloop status`` shows."""

    models: list[ModelStatus]
    lag: dict[str, dict[str, int]]
    """Offsets that are not committed yet, by consumer group and by partition."""
    unavailable: dict[str, str] = Field(default_factory=dict)
    """Why something is missing here, by dependency: ``registry`` and ``kafka``."""


def model_status(
    model: str,
    alias: str,
    version: str | None,
    last_champion: str | None,
    *,
    trainer_runs: bool | None,
    events: Sequence[Event],
    windows: int,
) -> ModelStatus:
    """Return the status of a model.

    Args:
        model: Name of the registered model.
        alias: The alias that predictors follow.
        version: The version that it names.
        last_champion: The version that it named last, if it names none.
        trainer_runs: Whether a trainer of the model runs; ``None`` if it is not known.
        events: Events of the topics of verdicts, retrains, models and predictions, each topic in its order, of any
            models.
        windows: How many windows to show.
    """
    answering = _last_answer(events, model)
    verdicts = [event for event in events if isinstance(event, DriftVerdict) and event.model == model]
    shown = _shown_verdicts([verdict for verdict in verdicts if not verdict.replayed], version, windows)
    keys = {_verdict_key(verdict) for verdict in shown}
    return ModelStatus(
        model=model,
        alias=alias,
        version=version,
        last_champion=last_champion,
        answering=answering,
        is_swap_overdue=_is_swap_overdue(events, model, version, answering),
        trainer="unknown" if trainer_runs is None else "runs" if trainer_runs else "does not run",
        versions=_version_statuses(model, alias, version, events),
        windows=shown,
        replays=[verdict for verdict in verdicts if verdict.replayed and _verdict_key(verdict) in keys],
        estimates=_latest(event for event in events if isinstance(event, QualityEstimate) and event.model == model),
        retrains=summarize_retrains(events, model, SHOWN_RETRAINS),
    )


def _version_statuses(model: str, alias: str, in_service: str | None, events: Sequence[Event]) -> list[VersionStatus]:
    """Return the status of each version of a model that has verdicts, and of the one in service."""
    windows: dict[str, list[JudgedWindow]] = {} if in_service is None else {in_service: []}
    qualities: dict[str, list[QualityVerdict]] = {}
    for event in events:
        match event:
            case DriftVerdict(model=name, replayed=False) if name == model:
                windows.setdefault(event.version, []).append(JudgedWindow.of(event))
            case QualityVerdict(model=name) if name == model:
                windows.setdefault(event.version, [])
                qualities.setdefault(event.version, []).append(event)
    return most_important_first(
        version_status(
            model,
            version,
            judged,
            qualities.get(version, ()),
            f"models:/{model}@{alias} names it" if version == in_service else None,
        )
        for version, judged in windows.items()
    )


def _shown_verdicts(verdicts: Sequence[DriftVerdict], in_service: str | None, windows: int) -> list[DriftVerdict]:
    """Return the latest verdicts, and before them the last conclusive ones, which windows after them must not hide."""
    latest = verdicts[-windows:]
    versions = {in_service, *(verdict.version for verdict in latest)}
    conclusive = {v.version: v for v in verdicts if v.verdict != "inconclusive" and v.version in versions}
    shown = {verdict.id for verdict in (*conclusive.values(), *latest)}
    return [verdict for verdict in verdicts if verdict.id in shown]


def _last_answer(events: Iterable[Event], model: str) -> Answering | None:
    """Return the request of a model that was answered last, by the time in its id; events may have other times."""
    answers = [
        Answering(version=event.version, at=at)
        for event in events
        if isinstance(event, Prediction) and event.model == model and not event.imported
        if (at := event_id_time(event.id)) is not None
    ]
    return max(answers, key=lambda answer: answer.at, default=None)


def _is_swap_overdue(events: Iterable[Event], model: str, version: str | None, answering: Answering | None) -> bool:
    if version is None or answering is None or answering.version == version:
        return False
    moves = [
        event.time
        for event in events
        if isinstance(event, ModelStateChanged) and event.model == model and event.state in MOVES_ALIAS
    ]
    return answering.at > max(moves) + MAX_SWAP_TIME if moves else True


def _latest(events: Iterable[EventOfVersion]) -> list[EventOfVersion]:
    """Return the last event of each version, in the order of versions."""
    by_version = {event.version: event for event in events}
    return [by_version[version] for version in sorted(by_version, key=lambda version: (len(version), version))]


def status_parts(status: Status) -> Iterator[Table | str]:
    """Yield a table, or a sentence where there is nothing to show, for each part.

    First a line for each version of all models, then a section for each model, then the lag.
    """
    models = [] if "kafka" in status.unavailable else status.models  # without verdicts nothing is known of versions
    versions = most_important_first(version for model in models for version in model.versions)
    if versions:
        yield from ("Versions:", _versions_table(versions))
    for number, model in enumerate(status.models):
        if number or versions:
            yield ""
        if "registry" not in status.unavailable:
            yield f"models:/{model.model}@{model.alias} is {_serving(model)}"
        yield from _answers(model, status)
        if "kafka" in status.unavailable:
            continue
        if model.trainer == "does not run":
            yield f"no trainer of {model.model} runs: a retrain that is requested waits for one"
        yield from (f"\nWindows of {model.model}:", _windows_table(model)) if model.windows else ("no windows yet",)
        if model.estimates or any(version.quality for version in model.versions):
            yield from (f"\nQuality of the latest predictions of {model.model}:", _quality_table(model))
        yield from (f"\nRetrains of {model.model}:", _retrains_table(model)) if model.retrains else ("no retrains yet",)
    if "kafka" not in status.unavailable:
        yield from ("\nLag:", _lag_table(status))


def _serving(model: ModelStatus) -> str:
    if model.version:
        return f"version {model.version}"
    if model.last_champion:
        return (
            f"no version any more, and version {model.last_champion} was the last: set the alias with driftloop "
            f"rollback --to {model.last_champion}, or to another version that exists"
        )
    return 'no version yet: driftloop retrain --reason "the first" --wait'


def _answers(model: ModelStatus, status: Status) -> Iterator[str]:
    """Yield which version answers, where that is not the one that the alias names, or is not known otherwise."""
    if model.answering is None:
        return
    version, at = model.answering.version, format_utc(model.answering.at)
    answered = f"version {version} of {model.model} has answered last, at {at} UTC"
    if model.is_swap_overdue:
        yield f"{answered}, and not the version that the alias names: GET /models of the predictor says why"
    elif model.version is None or "registry" in status.unavailable:
        yield answered


def _table(*columns: Column | str) -> Table:
    """Return a table that is narrow, because it has no lines between columns."""
    return Table(*columns, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))


def _versions_table(versions: Iterable[VersionStatus]) -> Table:
    table = _table("model", "version", "drift", "times in UTC", "quality")
    for version in versions:
        quality = _colored(version.quality.verdict) if version.quality else ""
        table.add_row(
            escape(version.model),
            version.version + (", in service" if version.in_service else ""),
            _colored(version.verdict) if version.windows else "",
            escape(version.since_text),
            quality + (", later outcomes not compared" if version.later_quality else ""),
        )
    return table


def _windows_table(status: ModelStatus) -> Table:
    replayed = {_verdict_key(verdict): verdict.verdict for verdict in status.replays}
    table = _table(
        *(Column("until (UTC)", no_wrap=True), "version", Column("rows", justify="right", no_wrap=True), "verdict"),
        *("score / threshold", "drifted"),
    )
    for verdict in status.windows:
        key = _verdict_key(verdict)
        table.add_row(
            format_utc(verdict.last_prediction_at),
            verdict.version,
            str(verdict.rows),
            _colored(verdict.verdict) + (f", replayed: {replayed[key]}" if key in replayed else ""),
            " / ".join(f"{score:.1f}" for score in (verdict.score, verdict.score_threshold) if score is not None),
            escape(verdict.explanation) if verdict.verdict == "inconclusive" else ", ".join(verdict.drifted_columns),
        )
    return table


def _quality_table(status: ModelStatus) -> Table:
    table = _table("version", "quality", "explanation")
    rows = [
        (
            verdict.version,
            _colored(verdict.verdict),
            escape(verdict.explanation)
            + (f"; {verdict.unmatched:,} outcomes have no archived prediction" if verdict.unmatched else "")
            + (f"; {sum(verdict.unknown_labels.values()):,} are no class" if verdict.unknown_labels else ""),
        )
        for version in status.versions
        for verdict in (version.quality, version.later_quality)
        if verdict
    ]
    for estimate in status.estimates:
        label = "estimated" if estimate.trusted else "[yellow]estimated, not trusted[/]"
        metrics = ", ".join(f"{metric_label(name)} {value:.3f}" for name, value in estimate.metrics.items())
        rows.append((estimate.version, label, escape(f"{metrics}; {estimate.explanation}")))
    for row in sorted(rows, key=lambda row: (len(row[0]), row[0])):
        table.add_row(*row)
    return table


def _retrains_table(status: ModelStatus) -> Table:
    table = _table(
        *(Column("time (UTC)", no_wrap=True), "version", "state", "why, and what has come of it"),
    )
    for retrain in status.retrains:
        lines = [escape(retrain.explanation), f"id {retrain.retrain_id}"]
        if retrain.requested_by is not None and retrain.state != "rolled_back":
            lines.insert(0, escape(f"requested by {retrain.requested_by}: {retrain.reason}"))
        table.add_row(
            format_utc(retrain.time), retrain.version or "", _colored(retrain.state, default="cyan"), "\n".join(lines)
        )
    return table


def _lag_table(status: Status) -> Table:
    table = _table("group", "partition", Column("offsets", justify="right"))
    for group, partitions in status.lag.items():
        for partition, offsets in sorted(partitions.items()):
            table.add_row(group, partition, str(offsets))
    return table


def _colored(name: str, default: str = "yellow") -> str:
    return f"[{STATE_COLORS.get(name, default)}]{name}[/]"


def _verdict_key(verdict: DriftVerdict) -> tuple[str, str, str | None]:
    """Return what a verdict on a model's window and its replays have in common."""
    return verdict.window.name, verdict.version, verdict.run_id
