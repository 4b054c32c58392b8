"""The command ``driftloop outcomes load``."""

from typing import Annotated

import typer

from driftloop.command_line import load_settings_or_exit
from driftloop.events import now
from driftloop_cli.files.options import (
    AsJson,
    DryRun,
    RowsFile,
    Sql,
    Timezone,
    archive_files,
    exit_on_error,
    print_counts,
    require_timezone,
    shown_progress,
)
from driftloop_cli.settings import StorageCliSettings

app = typer.Typer(no_args_is_help=True)


@app.callback()
def outcomes() -> None:
    """Publish outcomes from files."""


@app.command("load")
def load(
    outcome: Annotated[str, typer.Option(metavar="COLUMN", help="what really happened: a number, boolean or label")],
    id_column: Annotated[
        str, typer.Option("--id", metavar="COLUMN", help="the id of the prediction, from its response")
    ],
    file: RowsFile = None,
    row: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="position of the row in the request; by default 0 everywhere")
    ] = None,
    time: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="when the outcome became known; by default now")
    ] = None,
    sql: Sql = None,
    timezone: Timezone = "UTC",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Publish outcomes from a file, so that quality, gate and retrains know them.

    Every row is checked before the first one is published. Rows whose outcome is missing are left out, and so are those
    that the archive has already: loading a file twice does no harm. Also reads DRIFTLOOP_STORAGE__BUCKET. The exit code
    is 2 if a column or a value is invalid.

        driftloop outcomes load repaid.csv --id prediction_id --outcome repaid --time paid_at

        driftloop outcomes load --sql "FROM 'payments/*.parquet'" --id prediction_id --outcome repaid --dry-run
    """
    from driftloop.events import Outcome  # noqa: PLC0415  # DuckDB and pandas take seconds to import
    from driftloop.kafka.bulk_publisher import BulkPublisher  # noqa: PLC0415
    from driftloop_cli.files.outcomes import OutcomeColumns, prepare_outcomes, prepared_events  # noqa: PLC0415
    from driftloop_cli.files.source import open_source  # noqa: PLC0415

    settings = load_settings_or_exit(StorageCliSettings)
    columns, zone = OutcomeColumns(outcome, id_column, row, time), require_timezone(timezone)
    with exit_on_error(), archive_files(settings) as archive, open_source(file, sql, [id_column], zone) as source:
        counts = prepare_outcomes(source, columns, now(), archive)
        if not dry_run and counts.to_publish:
            with (
                shown_progress("outcomes") as report,
                BulkPublisher(settings.kafka, settings.topics, Outcome, "cli") as publisher,
            ):
                for done in publisher.publish(prepared_events(source)):
                    report(done, counts.to_publish)
    published = 0 if dry_run else counts.to_publish
    print_counts({**counts._asdict(), "published": published}, as_json=as_json)
