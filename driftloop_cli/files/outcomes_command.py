"""The command ``driftloop outcomes load``."""

from typing import TYPE_CHECKING, Annotated

import typer

from driftloop.command_line import load_settings_or_exit
from driftloop.events import now
from driftloop_cli.console import AsJson, exit_on_registry_error, print_json, print_message
from driftloop_cli.files.options import (
    DryRun,
    RowsFile,
    Sql,
    Timezone,
    archive_files,
    print_counts,
    publish,
)
from driftloop_cli.settings import StorageCliSettings
from driftloop_cli.time_zones import require_timezone

if TYPE_CHECKING:
    from driftloop_cli.files.outcomes import OutcomeCounts

app = typer.Typer(no_args_is_help=True)

COUNTS = ("rows", "without_outcome", "repeated", "matched", "unmatched", "to_publish", "published")
"""What is printed for people, in this order."""
MEANINGS = {
    "without_outcome": "left out: not known yet",
    "repeated": "left out: said before, in the file or in the archive",
    "matched": "their prediction is in the archive",
    "unmatched": "published as well: predictions may still arrive",
}
"""What the counts mean, for people."""


@app.callback()
def outcomes() -> None:
    """Publish outcomes from files."""


@app.command("load")
def load(
    outcome: Annotated[str, typer.Option(metavar="COLUMN", help="what really happened: a number, boolean or label")],
    file: RowsFile = None,
    key: Annotated[str | None, typer.Option(metavar="COLUMN", help="the row's own key, sent with its request")] = None,
    id_column: Annotated[
        str | None, typer.Option("--id", metavar="COLUMN", help="in place of a key: the id in the request's response")
    ] = None,
    row: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="with --id: position of the row in the request; by default 0")
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
    that the archive has already: loading a file twice does no harm. Also reads DRIFTLOOP_STORAGE__URL. The exit code
    is 2 if a column or a value is invalid.

        driftloop outcomes load repaid.csv --key order --outcome repaid --time paid_at

        driftloop outcomes load --sql "FROM 'payments/*.parquet'" --id prediction_id --outcome repaid --dry-run
    """
    from driftloop.events import Outcome  # noqa: PLC0415  # DuckDB and pandas take seconds to import
    from driftloop_cli.files.outcomes import OutcomeColumns, prepare_outcomes  # noqa: PLC0415
    from driftloop_cli.files.source import open_source  # noqa: PLC0415

    settings = load_settings_or_exit(StorageCliSettings)
    columns, zone = OutcomeColumns(outcome, id_column, row, key, time), require_timezone(timezone)
    texts = [name for name in (id_column, key) if name]
    with exit_on_registry_error(), archive_files(settings) as archive, open_source(file, sql, texts, zone) as source:
        counts = prepare_outcomes(source, columns, settings.registry.model, now(), archive, settings.privacy.privacy)
        if not dry_run:
            publish(settings, Outcome, source, "events", counts.to_publish)
    published = 0 if dry_run else counts.to_publish
    print_outcome_counts(counts, published, dry_run=dry_run, as_json=as_json)


def print_outcome_counts(counts: "OutcomeCounts", published: int, *, dry_run: bool, as_json: bool) -> None:
    """Print what was found in a source and what was published."""
    facts = counts._asdict() | {"published": published, "dry_run": dry_run}
    if as_json:
        print_json(facts)
        return
    print_counts({name: facts[name] for name in COUNTS}, as_json=False, meanings=MEANINGS)
    if counts.unmatched_examples:
        print_message(f"unmatched, for example: {', '.join(counts.unmatched_examples)}")
    if dry_run:
        print_message("dry run: nothing is published")
