"""The operator's command, ``driftloop``."""

import getpass
from pathlib import Path
from typing import Annotated

import structlog
import typer
from rich.markup import escape
from rich.table import Table

from driftloop.command_line import load_settings_or_exit
from driftloop.events import ModelStateChanged
from driftloop.exit_codes import ExitCode
from driftloop.kafka import reader, topics
from driftloop.kafka.publisher import Publisher
from driftloop.settings import Settings
from driftloop_cli.console import exit_if_unavailable, exit_on_registry_error, exit_with, out, print_message
from driftloop_cli.files import import_command, outcomes_command
from driftloop_cli.files.score_command import score
from driftloop_cli.retrain_command import retrain
from driftloop_cli.settings import CliSettings, StorageCliSettings
from driftloop_cli.status import status_tables

SHOWN_RETRAINS = 10
MAX_STATES_PER_RETRAIN = 20  # upper bound on the progress events of a retrain
EVENTS_PER_VERDICT = 20  # verdicts share a topic with estimates, and a version's last quality verdict may be old

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")
topics_app = typer.Typer(no_args_is_help=True)
app.add_typer(topics_app, name="topics", help="Create the Kafka topics.")
data_app = typer.Typer(no_args_is_help=True)
app.add_typer(data_app, name="data", help="Restore the datasets that versions were trained on.")
app.command()(retrain)
app.command()(score)
app.add_typer(outcomes_command.app, name="outcomes")
app.add_typer(import_command.app, name="import")


@app.callback()
def driftloop() -> None:
    """Operate driftloop: request retrains, roll back, show status, explain predictions, create topics.

    Reads DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS, DRIFTLOOP_REGISTRY__URI and DRIFTLOOP_REGISTRY__MODEL.
    """
    structlog.configure(logger_factory=structlog.PrintLoggerFactory())


@app.command()
def rollback(
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="VERSION", help="version to roll back to; by default the one in service before"),
    ] = None,
    reason: Annotated[str, typer.Option(help="why; stored with the version and in the event")] = "",
) -> None:
    """Put the version that was in service before back into service, at once.

    The exit code is 7 if there is no version to roll back to, and 6 if the registry or Kafka does not answer.

        driftloop rollback --reason "wrong units in June"
    """
    from driftloop.registry.model_registry import ModelRegistry  # noqa: PLC0415  # MLflow takes seconds to import
    from driftloop.registry.rollback import RollbackNotPossible, roll_back  # noqa: PLC0415

    settings = load_settings_or_exit(CliSettings)
    with exit_on_registry_error():
        try:
            change = roll_back(ModelRegistry(settings.registry), reason or f"requested by {getpass.getuser()}", to)
        except RollbackNotPossible as error:
            raise exit_with(ExitCode.REFUSED, str(error)) from error
    print_message(change.explanation)
    with exit_if_unavailable(), Publisher(settings.kafka, settings.topics, "cli") as publisher:
        publisher.publish(change)


@app.command()
def explain(
    prediction_id: Annotated[str, typer.Argument(help="the id in the response to the request")],
    row: Annotated[int | None, typer.Option(min=0, help="position of the only row to show, from 0")] = None,
) -> None:
    """Show everything about a prediction: request, response, version, data, window, verdict, outcome.

    Also reads DRIFTLOOP_STORAGE__BUCKET. The exit code is 7 if the prediction is not found.
    """
    from driftloop_cli.explain import describe_prediction  # noqa: PLC0415  # MLflow takes seconds to import

    settings = load_settings_or_exit(StorageCliSettings)
    with exit_on_registry_error():
        lines = list(describe_prediction(settings, prediction_id, row))
    if not lines:
        raise exit_with(ExitCode.REFUSED, f"prediction {prediction_id} is neither in the archive nor on its topic")
    table = Table.grid(padding=(0, 2))
    for name, text in lines:
        table.add_row(f"[bold]{name}[/]", escape(text))
    out.print(table, highlight=False)


@app.command()
def shadow(
    version: Annotated[str, typer.Option(help="version to compare")],
    last: Annotated[
        int | None, typer.Option(min=1, metavar="ROWS", help="use only rows from the N-th last labelled row onwards")
    ] = None,
) -> None:
    """Compare a version with the predictions that were served, on archived rows whose outcomes are known.

    The version predicts in this command; the predictor is not involved. Also reads DRIFTLOOP_STORAGE__BUCKET and
    DRIFTLOOP_USE_CASE.

        driftloop shadow --version 3 --last 20000
    """
    from driftloop.registry.loading import ModelRejected  # noqa: PLC0415  # MLflow and pandas take seconds to import
    from driftloop_cli.shadow import ShadowSettings, evaluate_shadow, print_comparison  # noqa: PLC0415

    settings = load_settings_or_exit(ShadowSettings)
    with exit_on_registry_error():
        try:
            comparison = evaluate_shadow(settings, version, last)
        except ModelRejected as error:
            raise exit_with(ExitCode.REFUSED, f"version {version}: {error}") from error
    if comparison is None:
        raise exit_with(ExitCode.REFUSED, "the archive has no prediction with a known outcome")
    print_comparison(comparison, out)


@app.command()
def status(windows: Annotated[int, typer.Option(min=1, help="number of windows to show")] = 10) -> None:
    """Show the version in service, the latest windows and retrains, and the services' lag."""
    settings = load_settings_or_exit(CliSettings)
    kafka, names, model = settings.kafka, settings.topics, settings.registry.model
    champion = _champion(settings)
    with exit_if_unavailable():
        drift_events = reader.read_last(kafka, names.drift, windows * EVENTS_PER_VERDICT)
        model_events = reader.read_last(kafka, names.models, SHOWN_RETRAINS * MAX_STATES_PER_RETRAIN)
        lag = {
            "drift_worker": reader.consumer_lag(kafka, "drift_worker", [names.predictions, names.outcomes]),
            f"trainer-{model}": reader.consumer_lag(kafka, f"trainer-{model}", [names.retrain]),
        }
    latest_states = {event.retrain_id: event for event in model_events if isinstance(event, ModelStateChanged)}
    retrains = sorted(latest_states.values(), key=lambda state: state.time)[-SHOWN_RETRAINS:]
    serving = f"version {champion}" if champion else 'no version yet: driftloop retrain --reason "the first" --wait'
    print_message(f"models:/{model}@{settings.registry.alias} is {serving}")
    for table in status_tables(drift_events, windows, retrains, lag):
        out.print(table)


@data_app.command("restore")
def restore(
    version: Annotated[str, typer.Argument(help="version of the model")],
    to: Annotated[
        Path, typer.Option("--to", metavar="FOLDER", file_okay=False, help="folder to which the files are written")
    ] = Path(),
) -> None:
    """Restore the file that a version was trained on, byte for byte, with its .dvc file.

    Needs the bucket and MLflow, and no repository; also reads DRIFTLOOP_STORAGE__BUCKET. The exit code is 7 if the file
    does not exist any more, or if the folder has another file of that name. DVC alone does the same with the .dvc file
    among the artifacts of the version's run:

        mlflow artifacts download --run-id RUN --artifact-path dataset --dst-path .

        cd dataset && dvc init --no-scm && dvc remote add --default bucket gs://driftloop/datasets && dvc pull *.dvc
    """
    from driftloop.registry.model_registry import ModelRegistry  # noqa: PLC0415
    from driftloop.storage import dvc  # noqa: PLC0415  # pandas, MLflow and DVC take seconds to import

    settings = load_settings_or_exit(StorageCliSettings)
    with exit_on_registry_error():
        try:
            pointer = dvc.pointer_for_version(ModelRegistry(settings.registry), version)
            restored = dvc.restore(settings.storage, pointer, to)
        except dvc.DatasetVersionNotFound as error:
            raise exit_with(ExitCode.REFUSED, str(error)) from error
        except ImportError as error:
            raise exit_with(ExitCode.ERROR, str(error)) from error
    print_message(f"{restored.path}: {restored.rows:,} rows, md5 {restored.md5}")


@topics_app.command("create")
def create_topics() -> None:
    """Create the topics that do not exist yet, with their dead-letter topics.

    Names, partitions and retention are settings, such as DRIFTLOOP_TOPICS__PARTITIONS.
    """
    settings = load_settings_or_exit(Settings)
    with exit_if_unavailable():
        created = topics.create(settings.kafka, settings.topics)
    print_message("created " + ", ".join(created) if created else "all topics exist already")


def _champion(settings: CliSettings) -> str | None:
    """Return the version in service."""
    from driftloop.registry.model_registry import ModelRegistry  # noqa: PLC0415  # MLflow takes seconds to import

    with exit_on_registry_error():
        return ModelRegistry(settings.registry).champion()
