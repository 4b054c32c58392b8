"""What the commands for files share: options, progress, counts."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from driftloop.events import ID_COLUMN, KEY_COLUMN, MODEL_COLUMN, ROW_COLUMN, TIME_COLUMN, Event
from driftloop.settings import Settings
from driftloop_cli.console import err, out, print_json
from driftloop_cli.settings import StorageCliSettings

if TYPE_CHECKING:
    from driftloop.storage.archive_files import ArchiveFiles
    from driftloop_cli.files.source import Source

SOURCE = "cli"
"""Who publishes, in the envelope of events."""

OUTCOME_VALUE_COLUMNS = ("outcome", "outcome_label")
"""Where the archive has outcomes that are numbers and booleans, and those that are texts."""
MATCHED_COLUMNS = (ID_COLUMN, ROW_COLUMN, TIME_COLUMN, MODEL_COLUMN, KEY_COLUMN, *OUTCOME_VALUE_COLUMNS)
"""The columns of the archive that a file's rows are matched with."""

RowsFile = Annotated[Path | None, typer.Argument(metavar="FILE", help="CSV or Parquet; none if --sql reads files")]
Sql = Annotated[
    str | None,
    typer.Option(metavar="QUERY", help="DuckDB SQL that is read in place of the file, which is its table named rows"),
]
Timezone = Annotated[str, typer.Option(metavar="ZONE", help="time zone of times that have none, such as Europe/Berlin")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="check, match and count; publish nothing")]


@contextmanager
def shown_progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show progress on standard error; the block reports how many are done, and of how many."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def archive_files(settings: StorageCliSettings) -> Iterator["ArchiveFiles"]:
    """Fetch what a file's rows are matched with, for the time of the block: no features and no predictions.

    Raises:
        ArchiveUnreadable: DuckDB has failed in the block, and a file of the archive is damaged.
    """
    import duckdb  # noqa: PLC0415  # all of these take a second to import

    from driftloop.storage.archive_files import ArchiveFiles, require_readable  # noqa: PLC0415
    from driftloop.storage.archive_parts import Part, fetch_part  # noqa: PLC0415
    from driftloop.storage.object_store import ObjectStore  # noqa: PLC0415

    store, part = ObjectStore(settings.storage).require_answer(), Part(columns=MATCHED_COLUMNS)
    with tempfile.TemporaryDirectory(prefix="driftloop-archive-") as folder:
        # Outcomes first: rows that are archived between the two then are no outcomes without a prediction.
        outcomes, predictions = (
            fetch_part(store, topic, Path(folder, topic), part).files
            for topic in (settings.topics.outcomes, settings.topics.predictions)
        )
        try:
            yield ArchiveFiles(predictions, outcomes)
        except duckdb.Error:
            require_readable([*predictions, *outcomes])
            raise


def publish(
    settings: Settings, event: type[Event], source: "Source", view: str, count: int, *, in_order: bool = False
) -> None:
    """Publish the prepared events of a view, with progress on standard error.

    Args:
        settings: How to reach the broker, and the topics.
        event: The type of the events.
        source: The database of the view.
        view: The view.
        count: How many events it has.
        in_order: Whether the order of events with different keys matters.
    """
    from driftloop.kafka.bulk_publisher import BulkPublisher  # noqa: PLC0415  # kafka-python is slow to import
    from driftloop_cli.files.parallel_publisher import MIN_EVENTS, publish_in_parallel  # noqa: PLC0415
    from driftloop_cli.files.source import prepared_events  # noqa: PLC0415

    if not count:
        return
    with shown_progress(event.topic) as report:
        report(0, count)
        if count >= MIN_EVENTS and not in_order:
            publish_in_parallel(
                source, view, settings.kafka, settings.topics, event, SOURCE, lambda done: report(done, count)
            )
            return
        with BulkPublisher(settings.kafka, settings.topics, event, SOURCE) as publisher:
            for done in publisher.publish(prepared_events(source, view)):
                report(done, count)


def print_counts(
    counts: Mapping[str, object], *, as_json: bool, meanings: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Print counts and other facts: one on a line, some with their meaning, or all as a JSON object."""
    if as_json:
        print_json(counts)
        return
    for name, value in counts.items():
        shown = f"{value:,}" if isinstance(value, int) else str(value)
        meaning = f"   {meanings[name]}" if name in meanings else ""
        out.print(f"{name.replace('_', ' '):<16} {shown:>12}{meaning}", highlight=False, soft_wrap=True)
