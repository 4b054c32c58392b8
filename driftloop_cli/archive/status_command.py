"""The command ``driftloop archive status``."""

from typing import TYPE_CHECKING, Any

from rich.table import Table

from driftloop.command_line import load_settings_or_exit
from driftloop.events import now
from driftloop_cli.archive.settings import ArchiveCliSettings
from driftloop_cli.console import AsJson, print_json, print_message, print_notice, print_table

if TYPE_CHECKING:
    from driftloop_cli.archive.partitions import Archive, ArchivedPartition


def status(as_json: AsJson = False) -> None:
    """Show what the archive has of each partition, what could be merged now, and what would expire.

    Small files are slices that are not merged. Slices are final if they are committed, not needed for a verdict, and
    not among the latest ones, which quality reads one by one; `compact` merges those of days that are over. Days are
    UTC. Reads DRIFTLOOP_STORAGE__URL and DRIFTLOOP_KAFKA__…. The exit code is 6 if Kafka or the store does not
    answer.

        driftloop archive status

        driftloop archive status --json
    """
    settings = load_settings_or_exit(ArchiveCliSettings)
    from driftloop.archive.retention import retention_by_topic  # noqa: PLC0415
    from driftloop_cli.archive.partitions import open_archive  # noqa: PLC0415  # pandas takes a second to import

    archive = open_archive(settings)
    retention = retention_by_topic(settings.archive, settings.topics)
    partitions = [_facts(archive, partition, retention.get(partition.partition[0])) for partition in archive.partitions]
    if as_json:
        print_json({"partitions": partitions})
        return
    if not partitions:
        print_message("the archive is empty")
        return
    table = Table(
        "partition", "slices", "merged", "bytes", "small files", "days", "final slices", "kept for", "would expire"
    )
    for each in partitions:
        days = each["retention_days"]
        table.add_row(
            f"{each['topic']}-{each['partition']}",
            f"{each['slices']:,}",
            f"{each['merged_files']:,}",
            f"{each['bytes']:,}",
            f"{each['small_file_share']:.0%}",
            f"{each['oldest_day']} to {each['newest_day']}",
            f"{each['final_slices']:,}",
            "ever" if days is None else f"{days:,} days",
            "-" if days is None else f"{each['expired_files']:,} files, {each['expired_bytes']:,} bytes",
        )
    print_table(table)
    for name in archive.unknown_partitions:
        print_notice(f"{name}: the drift workers have committed nothing of it, so none of its slices is final")


def _facts(archive: "Archive", partition: "ArchivedPartition", retention_days: int | None) -> dict[str, Any]:
    from driftloop.archive.layout import total_size  # noqa: PLC0415
    from driftloop.archive.merging import read_day  # noqa: PLC0415  # pyarrow and DuckDB take half a second to import
    from driftloop.archive.retention import find_expired, first_kept_day  # noqa: PLC0415

    files, store = partition.files, archive.store
    every = [*files.slices, *files.merged]
    expired = (
        []
        if retention_days is None
        else find_expired(
            store, files, first_kept_day(retention_days, now()), partition.kept_slices, partition.final_before
        )
    )
    days = [file.day for file in files.merged if file.day is not None]
    for slice_file in (*files.slices[:1], *files.slices[-1:]):
        try:
            days.append(read_day(store, slice_file))
        except FileNotFoundError:  # merged since it was listed
            days.append(slice_file.modified.date())
    topic, number = partition.partition
    return {
        "topic": topic,
        "partition": number,
        "slices": len(files.slices),
        "merged_files": len(files.merged),
        "leftover_files": len(files.leftovers),
        "bytes": total_size(every),
        "slice_bytes": total_size(files.slices),
        "merged_bytes": total_size(files.merged),
        "small_file_share": len(files.slices) / max(len(every), 1),
        "oldest_day": min(days, default=None),
        "newest_day": max(days, default=None),
        "final_slices": len(partition.final_slices),
        "kept_slices": partition.kept_slices,
        "retention_days": retention_days,
        "expired_files": len(expired),
        "expired_bytes": total_size(expired),
    }
