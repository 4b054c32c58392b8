"""The command ``driftloop import predictions``."""

from typing import Annotated

import typer

from driftloop.command_line import load_settings_or_exit
from driftloop.errors import InvalidInput
from driftloop_cli.console import AsJson, exit_on_registry_error
from driftloop_cli.files.options import (
    DryRun,
    RowsFile,
    Sql,
    Timezone,
    archive_files,
    print_counts,
    publish,
)
from driftloop_cli.time_zones import require_timezone

app = typer.Typer(no_args_is_help=True)


@app.callback()
def import_from_files() -> None:
    """Bring the past of another serving system into the archive."""


@app.command("predictions")
def import_predictions(
    prediction: Annotated[
        str,
        typer.Option(
            metavar="COLUMN", help="what was answered: a number, a label, or of two classes the second's chance"
        ),
    ],
    time: Annotated[str, typer.Option(metavar="COLUMN", help="when it was answered")],
    file: RowsFile = None,
    version: Annotated[str, typer.Option(metavar="NAME", help="name of the version that answered")] = "imported",
    key: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="the row's own key, which outcomes may name")
    ] = None,
    outcome: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="what really happened, where it is known")
    ] = None,
    outcome_time: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="when the outcome became known; by default when it was answered"),
    ] = None,
    sql: Sql = None,
    timezone: Timezone = "UTC",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Publish what another system has answered, marked as imported, so that the archive starts with a past.

    Each feature of DRIFTLOOP_USE_CASE is the column of its name; a query with --sql renames columns. Rows that the
    archive has are not published again. Also reads DRIFTLOOP_STORAGE__URL. The exit code is 2 if a column or a value
    is invalid.

        driftloop import predictions answers.parquet --prediction score --time answered_at --outcome repaid

        driftloop import predictions --sql "SELECT *, amt AS amount FROM 'answers/*.csv'" --prediction score --time at
    """
    from driftloop.events import Outcome, Prediction, require_name  # noqa: PLC0415  # DuckDB and pandas take seconds to import
    from driftloop_cli.files.import_settings import ImportSettings  # noqa: PLC0415
    from driftloop_cli.files.past_predictions import PredictionColumns, prepare_predictions  # noqa: PLC0415
    from driftloop_cli.files.source import open_source  # noqa: PLC0415

    settings = load_settings_or_exit(ImportSettings)
    try:
        require_name(version)
    except ValueError as error:
        raise InvalidInput(f"--version: {error}") from error
    columns = PredictionColumns(prediction, time, key, outcome, outcome_time)
    use_case, zone = settings.use_case, require_timezone(timezone)
    texts = [name for name, kind in use_case.feature_kinds.items() if kind == "text"] + ([key] if key else [])
    with exit_on_registry_error(), archive_files(settings) as archive, open_source(file, sql, texts, zone) as source:
        counts = prepare_predictions(source, columns, use_case, version, archive, settings.privacy.privacy)
        if not dry_run:
            publish(settings, Prediction, source, "events", counts.to_publish, in_order=True)
            publish(settings, Outcome, source, "outcome_events", counts.with_outcome, in_order=True)
    published = 0 if dry_run else counts.to_publish
    print_counts({**counts._asdict(), "published": published}, as_json=as_json)
