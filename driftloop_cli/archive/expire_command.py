"""The command ``driftloop archive expire``."""

from collections.abc import Iterator, Mapping
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any

import typer

from driftloop.archive.settings import ArchiveSettings, setting_name
from driftloop.command_line import load_settings_or_exit
from driftloop.errors import InvalidInput
from driftloop.events import now
from driftloop_cli.archive.settings import ArchiveCliSettings
from driftloop_cli.archive.stopping import StopRequest, stop_on_signal
from driftloop_cli.console import AsJson, print_json, print_message, print_notice

if TYPE_CHECKING:
    from driftloop_cli.archive.partitions import Archive

FILES_PER_STEP = 100  # after which progress is shown, and the command can be stopped


def expire(
    predictions_days: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="days for which predictions are kept; by default the setting"),
    ] = None,
    outcomes_days: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="days for which outcomes are kept; by default the setting")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only show what would be deleted")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete the days of the archive that are older than its retention.

    The days are DRIFTLOOP_ARCHIVE__PREDICTION_RETENTION_DAYS and DRIFTLOOP_ARCHIVE__OUTCOME_RETENTION_DAYS, after which
    the drift worker deletes by itself, or the options. What is not committed stays, and so do the latest slices of a
    partition, which quality reads, whatever their age. Datasets of retrains are copies and stay, too. The command may
    run beside drift workers, and be killed and run again. The exit code is 2 if nothing says for how many days rows are
    kept, or if these are fewer than quality needs, and 6 if Kafka or the store does not answer.

        driftloop archive expire --dry-run

        driftloop archive expire --predictions-days 90 --outcomes-days 90
    """
    settings = load_settings_or_exit(ArchiveCliSettings)
    retention = _retention(settings, predictions_days, outcomes_days)
    from driftloop_cli.archive.partitions import open_archive  # noqa: PLC0415  # pandas takes a second to import

    archive = open_archive(settings)
    with stop_on_signal() as stop:
        partitions = list(_expire(archive, retention, stop, dry_run=dry_run))
    facts = {
        "partitions": partitions,
        "files": sum(each["files"] for each in partitions),
        "bytes": sum(each["bytes"] for each in partitions),
        "dry_run": dry_run,
    }
    if as_json:
        print_json(facts)
    else:
        verb = "would be deleted" if dry_run else "deleted"
        print_message(f"{facts['files']:,} files {verb}, {facts['bytes']:,} bytes")
    stop.exit_if_stopped()


def _retention(settings: ArchiveCliSettings, predictions_days: int | None, outcomes_days: int | None) -> dict[str, int]:
    """Return for how many days rows are kept, by topic.

    Raises:
        InvalidInput: It is not said of any topic, or the days are fewer than quality needs.
    """
    from driftloop.archive.retention import retention_by_topic  # noqa: PLC0415  # pyarrow takes a while to import

    chosen = ArchiveSettings(
        prediction_retention_days=predictions_days or settings.archive.prediction_retention_days,
        outcome_retention_days=outcomes_days or settings.archive.outcome_retention_days,
    )
    try:
        chosen.require_days(settings.quality.min_days)
    except ValueError as error:
        raise InvalidInput(str(error)) from error
    retention = retention_by_topic(chosen, settings.topics)
    if not retention:
        raise InvalidInput(
            f"the archive is kept for ever: set {setting_name('prediction')} or {setting_name('outcome')} to a number "
            "of days, or give --predictions-days or --outcomes-days"
        )
    return retention


def _expire(
    archive: "Archive", retention: Mapping[str, int], stop: StopRequest, *, dry_run: bool
) -> Iterator[dict[str, Any]]:
    """Delete what has expired of each partition; yield the facts of each one that had something."""
    from driftloop.archive.layout import total_size  # noqa: PLC0415
    from driftloop.archive.merging import delete_files  # noqa: PLC0415
    from driftloop.archive.retention import find_expired, first_kept_day  # noqa: PLC0415  # see _retention

    at = now()
    for partition in archive.partitions:
        topic, number = partition.partition
        if topic not in retention or not stop.may_go_on():
            continue
        first_kept: date = first_kept_day(retention[topic], at)
        expired = find_expired(
            archive.store, partition.files, first_kept, partition.kept_slices, partition.final_before
        )
        if not dry_run:
            # First: without the file that covers them they would be read again.
            delete_files(archive.store, partition.files.leftovers)
        done = len(expired) if dry_run else 0
        while done < len(expired) and stop.may_go_on():
            delete_files(archive.store, expired[done : done + FILES_PER_STEP])
            done = min(done + FILES_PER_STEP, len(expired))
            print_notice(f"{partition.name}: {done:,} of {len(expired):,} files before {first_kept} deleted")
        if done:
            yield {
                "topic": topic,
                "partition": number,
                "first_kept_day": first_kept,
                "files": done,
                "bytes": total_size(expired[:done]),
            }
