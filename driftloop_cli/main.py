"""The operator's command."""

import getpass
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated

import structlog
import typer
from kafka.errors import KafkaError
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from driftloop.events import DataSelection, ModelChange, Wish
from driftloop.kafka import topics
from driftloop.kafka.publisher import Publisher, Unavailable
from driftloop.retrain_report import Report
from driftloop.settings import Registry as RegistrySettings
from driftloop.settings import Section, Settings, Storage, load
from driftloop_cli import retrain_client
from driftloop_cli.status import COLORS, tables

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")
topics_app = typer.Typer(no_args_is_help=True)
app.add_typer(topics_app, name="topics", help="The Kafka topics.")
data_app = typer.Typer(no_args_is_help=True)
app.add_typer(data_app, name="data", help="What versions were trained on.")
out = Console()

TIMED_OUT = 5
UNREACHABLE = 6
REFUSED = 7
RETRAINS = 10  # that are shown
TOLD = 20  # a retrain says several times what it is at
BESIDE = 20  # a verdict shares the topic with estimates and qualities, and a version's last quality may be long ago


class OperatorSettings(Settings):
    """What the command reads from the environment."""

    registry: RegistrySettings


class DataSettings(OperatorSettings):
    """What it reads beside that where data is asked for."""

    storage: Storage = Storage()


class Key(Section, extra="ignore"):
    """The trainer reads more of this section."""

    api_key: SecretStr = Field(min_length=8, description="the trainer's")


class KeySettings(BaseSettings):
    """What asking over HTTP reads."""

    model_config = Settings.model_config

    trainer: Key


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
        datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="first day to use, of dataset and archive")
    ] = None,
    end: Annotated[
        datetime | None,
        typer.Option("--to", formats=["%Y-%m-%d"], help="the day after the dataset's last; the archive goes on"),
    ] = None,
    last_rows: Annotated[
        int | None, typer.Option("--last-rows", min=1, help="of all these only the last so many labelled rows")
    ] = None,
    archive: Annotated[bool, typer.Option(help="whether predictions with known outcomes are added")] = True,
    timeout_minutes: Annotated[float, typer.Option(min=0, help="how long --wait waits")] = 60,
    asked_by: Annotated[str | None, typer.Option(help="who asks, if not the user who runs this")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="check access and selection, say what would be asked for, and ask nothing")
    ] = False,
    through: Annotated[
        str | None,
        typer.Option(metavar="URL", help="over the trainer's API, not Kafka; its key is DRIFTLOOP_TRAINER__API_KEY"),
    ] = None,
    summary: Annotated[
        Path | None, typer.Option(metavar="FILE", dir_okay=False, help="append what has come of it, as Markdown")
    ] = None,
    mlflow: Annotated[
        str | None, typer.Option(metavar="URL", help="where people open MLflow, for a link in the summary")
    ] = None,
    annotate: Annotated[
        bool, typer.Option("--annotate", help="tell GitHub how it ended; a rejection is a warning, with exit code 0")
    ] = False,
) -> None:
    """Ask for a new version.

    The exit code is 0 when it was promoted or, without --wait, asked for; 2 when an option is wrong; 6 when broker or
    trainer do not answer; 7 when the trainer refuses the key or the selection. With --wait it is 3 when the version was
    rejected, 4 when the retrain failed and 5 when it took too long.

        driftloop retrain --reason "two new carriers" --from 2013-01-01 --to 2013-04-01 --wait
    """
    selection = DataSelection(
        start=start and start.date(), end=end and end.date(), archive=archive, last_rows=last_rows
    )
    try:
        wish = Wish(reason=reason, asked_by=asked_by or getpass.getuser(), data=selection)
    except ValidationError as error:
        raise typer.BadParameter("; ".join(problem["msg"] for problem in error.errors())) from error
    report = Report(wish, summary, annotate, mlflow)
    with _asks(report, through) as way:
        if dry_run:
            event = way.rehearse(wish)
            out.print_json(event.model_dump_json(exclude={"id", "time"}, exclude_none=True))
            report.told("dry run", f"access and selection are right; a retrain of {event.model} would be asked for")
            return
        asked = way.ask(wish)
        out.print(f"retrain {asked.id} asked for", highlight=False)
        if not wait:
            report.told("asked for", f"retrain {asked.id}; nobody waits for its end here")
            return
        deadline = time.monotonic() + timeout_minutes * 60
        for change in asked.changes:
            if change is not None:
                version = f" version {change.version}" if change.version else ""
                out.print(
                    f"[{COLORS.get(change.state, 'cyan')}]{change.state}[/]{version}: {escape(change.why)}",
                    highlight=False,
                )
                if change.final:
                    raise typer.Exit(report.ended(change))
            if time.monotonic() > deadline:
                why = f"no end after {timeout_minutes:g} minutes; it goes on, and its end stands in driftloop status"
                out.print(why)
                report.told("no end yet", f"retrain {asked.id}: {why}", "error")
                raise typer.Exit(TIMED_OUT)


@contextmanager
def _asks(report: Report, through: str | None) -> Iterator[retrain_client.OverKafka | retrain_client.OverHttp]:
    """The way to the trainer; what is wrong with it is a line, and is reported."""

    def end(why: str, code: int) -> typer.Exit:
        out.print(escape(why), highlight=False, soft_wrap=True)
        report.told("not asked for", why, "error")
        return typer.Exit(code)

    if through is None:
        settings = load(OperatorSettings)
        try:
            with retrain_client.OverKafka(settings, settings.registry.model) as way:
                yield way
        except (KafkaError, Unavailable) as error:
            raise end(_no_answer(settings, error), UNREACHABLE) from error
        return
    if not through.startswith(("https://", "http://")):
        raise typer.BadParameter(f"{through!r} is no address such as https://trainer.example", param_hint="--through")
    key = load(KeySettings).trainer.api_key.get_secret_value()
    try:
        with retrain_client.OverHttp(through, key) as way_over_http:
            yield way_over_http
    except retrain_client.Away as error:
        raise end(f"no answer from the trainer at {through} (--through): {error}", UNREACHABLE) from error
    except retrain_client.Refused as error:
        raise end(f"the trainer at {through} refuses: {error}", REFUSED) from error


@app.command()
def rollback(
    to: Annotated[str | None, typer.Option("--to", metavar="VERSION", help="not the one before, but this one")] = None,
    reason: Annotated[str, typer.Option(help="why, in words; it stands on the version and on the event")] = "",
) -> None:
    """Put the version that was in service before back into service, at once.

    The exit code is 7 when there is nothing to go back to, and 6 when the registry or the broker does not answer.

        driftloop rollback --reason "wrong units in June"
    """
    from driftloop.registry.model_registry import Registry  # noqa: PLC0415  # MLflow takes seconds to import
    from driftloop.registry.rollback import CannotRollBack, roll_back  # noqa: PLC0415

    settings = load(OperatorSettings)
    with _registered(settings.registry):
        try:
            change = roll_back(Registry(settings.registry), reason or f"asked for by {getpass.getuser()}", to)
        except CannotRollBack as error:
            out.print(str(error), highlight=False)
            raise typer.Exit(REFUSED) from error
    out.print(escape(change.why), highlight=False)
    with _reachable(settings), Publisher(settings.kafka, settings.topics, "cli") as publisher:
        publisher.publish(change)


@app.command()
def explain(
    prediction_id: Annotated[str, typer.Argument(help="the id that came with the answer")],
    row: Annotated[int | None, typer.Option(min=0, help="of a request of many rows, only this one")] = None,
) -> None:
    """Show all that is known of a prediction: request, answer, version, data, window, verdict, outcome.

    Reads DRIFTLOOP_STORAGE__BUCKET too. The exit code is 7 when the prediction is not known.
    """
    from driftloop_cli.explain import ExplainSettings, explained  # noqa: PLC0415  # MLflow takes seconds to import

    settings = load(ExplainSettings)
    with _reachable(settings), _stored(settings.storage):
        known = list(explained(settings, prediction_id, row))
    if not known:
        out.print(f"no prediction {prediction_id} is in the archive, nor on its topic any more")
        raise typer.Exit(REFUSED)
    table = Table.grid(padding=(0, 2))
    for name, text in known:
        table.add_row(f"[bold]{name}[/]", escape(text))
    out.print(table, highlight=False)


@app.command()
def shadow(
    version: Annotated[str, typer.Option(help="the version that is asked")],
    last: Annotated[
        int | None, typer.Option(min=1, metavar="ROWS", help="only the last so many rows with an outcome")
    ] = None,
) -> None:
    """Show how a version would have done on the requests that were answered, beside those that answered.

    From the archive: nothing that serves is asked. Reads DRIFTLOOP_STORAGE__BUCKET and DRIFTLOOP_USE_CASE too.

        driftloop shadow --version 3 --last 20000
    """
    from driftloop.registry.model_registry import Refused  # noqa: PLC0415
    from driftloop_cli import shadow as shadows  # noqa: PLC0415  # MLflow and pandas take seconds to import

    settings = load(shadows.ShadowSettings)
    with _registered(settings.registry), _stored(settings.storage):
        try:
            found = shadows.shadow(settings, version, last)
        except Refused as error:
            out.print(f"version {version}: {error}", highlight=False)
            raise typer.Exit(REFUSED) from error
    if found is None:
        out.print("the archive has no prediction with an outcome")
        raise typer.Exit(REFUSED)
    shadows.show(found, out)


@app.command()
def status(windows: Annotated[int, typer.Option(min=1, help="how many of the last windows to show")] = 10) -> None:
    """Show the version in service, the last windows and retrains, and what is not consumed yet."""
    settings = load(OperatorSettings)
    model = settings.registry.model
    champion = _champion(settings)
    with _reachable(settings):
        judged = topics.latest(settings.kafka, settings.topics.drift, windows * BESIDE)
        told = topics.latest(settings.kafka, settings.topics.models, RETRAINS * TOLD)
        states = {e.retrain_id: e for e in told if isinstance(e, ModelChange)}  # the last of each
        changes = sorted(states.values(), key=lambda change: change.time)[-RETRAINS:]
        names = settings.topics
        lags = {
            "drift_worker": topics.lag(settings.kafka, "drift_worker", [names.predictions, names.outcomes]),
            f"trainer-{model}": topics.lag(settings.kafka, f"trainer-{model}", [names.retrain]),
        }
    named = f"version {champion}" if champion else 'no version yet: driftloop retrain --reason "the first" --wait'
    out.print(f"models:/{model}@{settings.registry.alias} is {named}", highlight=False)

    for part in tables(judged, windows, changes, lags):
        out.print(part)


@data_app.command("restore")
def restore(
    version: Annotated[str, typer.Argument(help="the model version")],
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", file_okay=False, help="where the file goes")] = Path(),
) -> None:
    """Bring back the file that a version was trained on, byte for byte, with its .dvc file.

    Needs the bucket and MLflow, and no repository; reads DRIFTLOOP_STORAGE__BUCKET too. The exit code is 7 when the
    file cannot be had, or when the folder has another file of its name. Plain DVC does the same with the .dvc file,
    which lies among the artifacts of the version's run:

        mlflow artifacts download --run-id RUN --artifact-path dataset --dst-path .

        cd dataset && dvc init --no-scm && dvc remote add --default bucket gs://driftloop/datasets && dvc pull *.dvc
    """
    from driftloop.registry.model_registry import Registry  # noqa: PLC0415
    from driftloop.storage import dvc  # noqa: PLC0415  # pandas, MLflow and DVC take seconds to import

    settings = load(DataSettings)
    try:
        with _registered(settings.registry):
            pointer = dvc.of_version(Registry(settings.registry), version)
        with _stored(settings.storage):
            restored = dvc.restore(settings.storage, pointer, to)
    except dvc.Lost as error:
        out.print(str(error), highlight=False)
        raise typer.Exit(REFUSED) from error
    except ImportError as error:
        out.print(str(error), highlight=False)
        raise typer.Exit(1) from error
    out.print(f"{restored.path}: {restored.rows:,} rows, md5 {restored.md5}", highlight=False, soft_wrap=True)


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
    """The version in service."""
    from driftloop.registry.model_registry import Registry  # noqa: PLC0415  # MLflow takes seconds to import

    with _registered(settings.registry):
        return Registry(settings.registry).champion()


@contextmanager
def _registered(registry: RegistrySettings) -> Iterator[None]:
    """Turns a registry that does not answer into a line that names the setting."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415  # see above

    try:
        yield
    except MlflowException as error:
        out.print(f"no answer from MLflow at {registry.uri} (DRIFTLOOP_REGISTRY__URI): {error}", highlight=False)
        raise typer.Exit(UNREACHABLE) from error


@contextmanager
def _stored(storage: Storage) -> Iterator[None]:
    """Turns a bucket that does not answer into a line that names the setting."""
    from driftloop.storage.bucket import Away  # noqa: PLC0415  # pandas takes a second to import

    try:
        yield
    except Away as error:
        out.print(f"{storage.bucket} (DRIFTLOOP_STORAGE__BUCKET): {error}", highlight=False)
        raise typer.Exit(UNREACHABLE) from error


@contextmanager
def _reachable(settings: Settings) -> Iterator[None]:
    """Turns a broker that does not answer into a line that names the setting."""
    try:
        yield
    except (KafkaError, Unavailable) as error:
        out.print(_no_answer(settings, error), highlight=False)
        raise typer.Exit(UNREACHABLE) from error


def _no_answer(settings: Settings, error: Exception) -> str:
    return f"no answer from Kafka at {settings.kafka.bootstrap_servers} (DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS): {error}"
