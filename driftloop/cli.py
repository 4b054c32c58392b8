"""The operator's command."""

import getpass
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated

import structlog
import typer
from kafka.errors import KafkaError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from driftloop import topics
from driftloop.events import DataSelection, Drift, Estimate, ModelChange, Quality, Retrain
from driftloop.producing import Publisher, Unavailable
from driftloop.settings import Registry as RegistrySettings
from driftloop.settings import Settings, load

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")
topics_app = typer.Typer(no_args_is_help=True)
app.add_typer(topics_app, name="topics", help="The Kafka topics.")
out = Console()

EXIT = {"promoted": 0, "rejected": 3, "failed": 4}
TIMED_OUT = 5
UNREACHABLE = 6
COLORS = {
    **{"promoted": "green", "rejected": "yellow", "failed": "red"},
    **{"quiet": "green", "alarm": "red"},
    **{"as measured": "green", "better": "green", "worse": "red"},
}
BESIDE = 20  # a verdict shares the topic with estimates and qualities, and a version's last quality may be long ago


class OperatorSettings(Settings):
    """What the command reads from the environment."""

    registry: RegistrySettings


@app.callback()
def driftloop() -> None:
    """Operate driftloop: ask for a retrain, see how things stand, make the topics.

    Reads DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS, DRIFTLOOP_REGISTRY__URI and DRIFTLOOP_REGISTRY__MODEL.
    """
    structlog.configure(logger_factory=structlog.PrintLoggerFactory())


@app.command()
def retrain(
    reason: Annotated[str, typer.Option(help="why, in words; it stands on the version and on every event")],
    wait: Annotated[bool, typer.Option("--wait", help="until the retrain is promoted, rejected or failed")] = False,
    start: Annotated[
        datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="first day of the dataset to use")
    ] = None,
    end: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="the day after the last")] = None,
    archive: Annotated[bool, typer.Option(help="whether predictions with known outcomes are added")] = True,
    timeout_minutes: Annotated[float, typer.Option(min=0, help="how long --wait waits")] = 60,
) -> None:
    """Ask for a new version.

    With --wait the exit code is 0 when it was promoted, 3 when it was rejected, 4 when it failed and 5 when it took
    too long.

        driftloop retrain --reason "two new carriers" --from 2013-01-01 --to 2013-04-01 --wait
    """
    settings = load(OperatorSettings)
    selection = DataSelection(start=start and start.date(), end=end and end.date(), archive=archive)
    event = Retrain(
        model=settings.registry.model, trigger="manual", reason=reason, asked_by=getpass.getuser(), data=selection
    )
    with _reachable(settings), topics.following(settings.kafka, settings.topics.models) as changes:
        with Publisher(settings.kafka, settings.topics, "cli") as publisher:
            publisher.publish(event)
        out.print(f"retrain {event.id} asked for")
        if not wait:
            return
        deadline = time.monotonic() + timeout_minutes * 60
        for change in changes:
            if isinstance(change, ModelChange) and change.retrain_id == event.id:
                version = f" version {change.version}" if change.version else ""
                out.print(
                    f"[{COLORS.get(change.state, 'cyan')}]{change.state}[/]{version}: {escape(change.why)}",
                    highlight=False,
                )
                if change.final:
                    raise typer.Exit(EXIT.get(change.state, EXIT["failed"]))
            if time.monotonic() > deadline:
                out.print(
                    f"no end after {timeout_minutes:g} minutes; it goes on, and its end stands in driftloop status"
                )
                raise typer.Exit(TIMED_OUT)


@app.command()
def status(windows: Annotated[int, typer.Option(min=1, help="how many of the last windows to show")] = 10) -> None:
    """Show the version in service, the last windows and retrains, and what is not consumed yet."""
    settings = load(OperatorSettings)
    model = settings.registry.model
    champion = _champion(settings)
    with _reachable(settings):
        judged = topics.latest(settings.kafka, settings.topics.drift, windows * BESIDE)
        changes = [e for e in topics.latest(settings.kafka, settings.topics.models, 10) if isinstance(e, ModelChange)]
        names = settings.topics
        lags = {
            "drift_worker": topics.lag(settings.kafka, "drift_worker", [names.predictions, names.outcomes]),
            f"trainer-{model}": topics.lag(settings.kafka, f"trainer-{model}", [names.retrain]),
        }
    named = f"version {champion}" if champion else 'no version yet: driftloop retrain --reason "the first" --wait'
    out.print(f"models:/{model}@{settings.registry.alias} is {named}", highlight=False)

    verdicts = [e for e in judged if isinstance(e, Drift)][-windows:]
    table = Table("window", "version", "rows", "from", "to", "verdict", "score", "limit", "drifted", title="Windows")
    for verdict in verdicts:
        table.add_row(
            f"{verdict.window.topic}-{verdict.window.partition} {verdict.window.first_offset}–"
            f"{verdict.window.last_offset}",
            verdict.version,
            str(verdict.rows),
            f"{verdict.starts:%Y-%m-%d %H:%M}",
            f"{verdict.ends:%Y-%m-%d %H:%M}",
            f"[{COLORS.get(verdict.verdict, 'yellow')}]{verdict.verdict}[/]",
            "" if verdict.score is None else f"{verdict.score:.1f}",
            "" if verdict.limit is None else f"{verdict.limit:.1f}",
            ", ".join(verdict.drifted) or ("" if verdict.verdict != "unjudged" else escape(verdict.why)),
        )
    out.print(table if verdicts else "no windows yet")

    qualities = {(e.model, e.version): e for e in judged if isinstance(e, Quality)}
    estimates = {(e.model, e.version): e for e in judged if isinstance(e, Estimate)}
    table = Table("version", "quality", "why", title="Quality of the latest predictions")
    for one in sorted(qualities.keys() | estimates.keys()):
        if (quality := qualities.get(one)) is not None:
            verdict_of = f"[{COLORS.get(quality.verdict, 'yellow')}]{quality.verdict}[/]"
            table.add_row(quality.version, verdict_of, escape(quality.why))
        if (estimate := estimates.get(one)) is not None and "roc_auc" in estimate.figures:
            trust = "estimated" if estimate.trusted else "[yellow]estimated, not to be trusted[/]"
            table.add_row(estimate.version, trust, f"ROC AUC {estimate.figures['roc_auc']:.3f}; {escape(estimate.why)}")
    if table.rows:
        out.print(table)

    table = Table("time", "retrain", "version", "state", "why", title="Retrains")
    for change in changes:
        state = f"[{COLORS.get(change.state, 'cyan')}]{change.state}[/]"
        table.add_row(
            f"{change.time:%Y-%m-%d %H:%M:%S}", change.retrain_id, change.version or "", state, escape(change.why)
        )
    out.print(table if changes else "no retrains yet")

    table = Table("group", "partition", "events behind", title="Lag")
    for group, partitions in lags.items():
        for partition, behind in sorted(partitions.items()):
            table.add_row(group, partition, str(behind))
    out.print(table)


@topics_app.command("create")
def create() -> None:
    """Make the topics that are not there yet, with their dead-letter topics.

    Names, partitions and retention are settings, such as DRIFTLOOP_TOPICS__PARTITIONS.
    """
    settings = load(Settings)
    with _reachable(settings):
        made = topics.create(settings.kafka, settings.topics)
    out.print("made " + ", ".join(made) if made else "all topics are there")


def _champion(settings: OperatorSettings) -> str | None:
    """The version in service; a registry that does not answer is a line that names the setting."""
    # MLflow takes seconds to import, and only this needs it.
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    from driftloop.registry import Registry  # noqa: PLC0415

    try:
        return Registry(settings.registry).champion()
    except MlflowException as error:
        out.print(
            f"no answer from MLflow at {settings.registry.uri} (DRIFTLOOP_REGISTRY__URI): {error}", highlight=False
        )
        raise typer.Exit(UNREACHABLE) from error


@contextmanager
def _reachable(settings: Settings) -> Iterator[None]:
    """Turns a broker that does not answer into a line that names the setting."""
    try:
        yield
    except (KafkaError, Unavailable) as error:
        out.print(
            f"no answer from Kafka at {settings.kafka.bootstrap_servers} (DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS): {error}",
            highlight=False,
        )
        raise typer.Exit(UNREACHABLE) from error
