"""The operator's command, ``driftloop``."""

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import structlog
import typer
from rich.markup import escape
from rich.table import Table

from driftloop.command_line import load_settings_or_exit, user_name
from driftloop.exit_codes import ExitCode
from driftloop.kafka import topics
from driftloop.kafka.publisher import Publisher
from driftloop.settings import Settings
from driftloop_cli import dlq_command
from driftloop_cli.adopt.command import adopt
from driftloop_cli.archive import command as archive_command
from driftloop_cli.challenge_command import challenge
from driftloop_cli.console import (
    AsJson,
    CommandGroup,
    exit_if_unavailable,
    exit_on_registry_error,
    exit_with,
    print_json,
    print_message,
    print_table,
)
from driftloop_cli.files import import_command, outcomes_command
from driftloop_cli.files.score_command import score
from driftloop_cli.new.command import new
from driftloop_cli.publish_command import publish
from driftloop_cli.retrain_command import retrain
from driftloop_cli.settings import CliSettings, StorageCliSettings
from driftloop_cli.status_command import status

app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,  # they may be secret
)
topics_app = typer.Typer(no_args_is_help=True)
app.add_typer(topics_app, name="topics", help="Create the Kafka topics.")
data_app = typer.Typer(no_args_is_help=True)
app.add_typer(data_app, name="data", help="Publish base datasets, and restore those that versions were trained on.")
data_app.command("publish")(publish)
app.command()(retrain)
app.command()(status)
app.command()(new)
app.command()(score)
app.add_typer(outcomes_command.app, name="outcomes")
app.add_typer(import_command.app, name="import")
app.add_typer(dlq_command.app, name="dlq")
app.add_typer(archive_command.app, name="archive")
app.command()(adopt)
app.command()(challenge)


@app.callback()
def driftloop() -> None:
    """Operate driftloop: request retrains, roll back, show status, explain predictions, create topics.

    Reads DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS, DRIFTLOOP_REGISTRY__URI and DRIFTLOOP_REGISTRY__MODEL.
    """
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it logs errors with their traces, and raises them as well
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # people wait: who does not answer at once is away


@app.command()
def rollback(
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="VERSION", help="version to roll back to; by default the one in service before"),
    ] = None,
    reason: Annotated[str, typer.Option(help="why; stored with the version and in the event")] = "",
    as_json: AsJson = False,
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
            change = roll_back(ModelRegistry(settings.registry), reason or f"requested by {user_name()}", to)
        except RollbackNotPossible as error:
            raise exit_with(ExitCode.REFUSED, str(error)) from error
    if as_json:
        print_json(change.model_dump())
    else:
        print_message(change.explanation)
    with exit_if_unavailable(), Publisher(settings.kafka, settings.topics, "cli") as publisher:
        publisher.publish(change)


@app.command()
def explain(
    prediction: Annotated[
        str, typer.Argument(metavar="ID_OR_KEY", help="the id in the response to the request, or a row's own key")
    ],
    row: Annotated[int | None, typer.Option(min=0, help="position of the only row to show, from 0")] = None,
    as_json: AsJson = False,
) -> None:
    """Show everything about a prediction: request, response, version, data, window, verdict, outcome.

    A key means the row of this key that was predicted last.

    Also reads DRIFTLOOP_STORAGE__URL, and DRIFTLOOP_ARCHIVE__PREDICTION_RETENTION_DAYS to say why a prediction is not
    found. The exit code is then 7.
    """
    from driftloop_cli.explain import explain_prediction, why_not_found  # noqa: PLC0415  # MLflow takes seconds to import
    from driftloop_cli.explanation_lines import explanation_lines  # noqa: PLC0415

    settings = load_settings_or_exit(StorageCliSettings)
    with exit_on_registry_error():
        explanation = explain_prediction(settings, prediction)
    if explanation is None:
        raise exit_with(ExitCode.REFUSED, why_not_found(settings, prediction))
    if row is not None:
        rows = [each for each in explanation.rows if each.row == row]
        if not rows:
            raise exit_with(
                ExitCode.REFUSED, f"there is no row {row}: the request has {len(explanation.rows)} rows, counted from 0"
            )
        explanation = explanation.model_copy(update={"rows": rows})
    if as_json:
        print_json(explanation.model_dump())
        return
    table = Table.grid(padding=(0, 2))
    for name, text in explanation_lines(explanation):
        table.add_row(f"[bold]{name}[/]", escape(text))
    print_table(table)


@app.command()
def shadow(
    version: Annotated[str, typer.Option(help="version to compare")],
    last: Annotated[
        int | None, typer.Option(min=1, metavar="ROWS", help="use only rows from the N-th last labelled row onwards")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare a version with the predictions that were served, on archived rows whose outcomes are known.

    The version predicts in this command; the predictor is not involved. Also reads DRIFTLOOP_STORAGE__URL and
    DRIFTLOOP_USE_CASE.

        driftloop shadow --version 3 --last 20000
    """
    from driftloop.registry.loading import ModelRejected  # noqa: PLC0415  # MLflow and pandas take seconds to import
    from driftloop_cli.archived_rows import ArchivedRowsSettings  # noqa: PLC0415
    from driftloop_cli.shadow import evaluate_shadow, print_comparison  # noqa: PLC0415

    settings = load_settings_or_exit(ArchivedRowsSettings)
    with exit_on_registry_error():
        try:
            comparison = evaluate_shadow(settings, version, last)
        except ModelRejected as error:
            raise exit_with(ExitCode.REFUSED, f"version {version}: {error}") from error
    if comparison is None:
        raise exit_with(ExitCode.REFUSED, "the archive has no prediction with a known outcome")
    if as_json:
        print_json(comparison.facts())
    else:
        print_comparison(comparison)


@data_app.command("restore")
def restore(
    version: Annotated[str, typer.Argument(help="version of the model")],
    to: Annotated[
        Path, typer.Option("--to", metavar="FOLDER", file_okay=False, help="folder to which the files are written")
    ] = Path(),
    as_json: AsJson = False,
) -> None:
    """Restore the file that a version was trained on, byte for byte, with its .dvc file.

    Needs the object store and MLflow, and no repository; also reads DRIFTLOOP_STORAGE__URL. The exit code is 7 if the
    file does not exist any more, or if the folder has another file of that name. DVC alone does the same with the .dvc
    file among the artifacts of the version's run:

        mlflow artifacts download --run-id RUN --artifact-path dataset --dst-path .

        cd dataset && dvc init --no-scm && dvc remote add --default store gs://driftloop/datasets && dvc pull *.dvc
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
    if as_json:
        print_json({"path": restored.path, "rows": restored.rows, "md5": restored.md5})
    else:
        print_message(f"{restored.path}: {restored.rows:,} rows, md5 {restored.md5}")


@topics_app.command("create")
def create_topics(as_json: AsJson = False) -> None:
    """Create the topics that do not exist yet, with their dead-letter topics.

    Names, partitions and retention are settings, such as DRIFTLOOP_TOPICS__PARTITIONS. Of topics that exist only
    message.timestamp.type is changed, to LogAppendTime: messages have the broker's time, and events their own.
    """
    settings = load_settings_or_exit(Settings)
    with exit_if_unavailable():
        created = topics.create(settings.kafka, settings.topics)
        changed = topics.use_broker_time(settings.kafka, settings.topics)
    if as_json:
        print_json({"created": created, "changed": changed})
    else:
        print_message("created " + ", ".join(created) if created else "all topics exist already")
        if changed:
            print_message(f"changed {topics.TIMESTAMP_TYPE} to LogAppendTime: {', '.join(changed)}")
