"""The command ``driftloop archive compact``."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from driftloop.command_line import load_settings_or_exit
from driftloop_cli.archive.settings import ArchiveCliSettings
from driftloop_cli.archive.stopping import StopRequest, stop_on_signal
from driftloop_cli.console import AsJson, print_json, print_message, print_notice

if TYPE_CHECKING:
    from driftloop.archive.merging import Slices
    from driftloop_cli.archive.partitions import Archive, ArchivedPartition


def compact(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only show what would be merged")] = False,
    as_json: AsJson = False,
) -> None:
    """Merge the slices that are final now into a file for each of their days, and delete leftovers of earlier merges.

    The drift worker waits until a thousand slices can be merged; this command does not. It leaves alone what is not
    committed, the latest slices, which quality reads one by one, and those of the last day, which can become more. It
    may run beside drift workers and beside itself, and be killed at any moment: each row is read once all the time.
    It reads DRIFTLOOP_STORAGE__URL, and DRIFTLOOP_QUALITY__PREDICTION_LOOKBACK_SLICES and DRIFTLOOP_DRIFT_WORKER__GROUP
    as the drift worker does. The exit code is 6 if Kafka or the store does not answer.

        driftloop archive compact --dry-run

        driftloop archive compact --json
    """
    settings = load_settings_or_exit(ArchiveCliSettings)
    from driftloop.archive.scratch import MERGE, remove_abandoned_folders  # noqa: PLC0415  # as below
    from driftloop_cli.archive.partitions import open_archive  # noqa: PLC0415  # pandas takes a second to import

    archive = open_archive(settings)
    for name in archive.unknown_partitions:
        print_notice(f"{name}: the drift workers have committed nothing of it, so its slices are left alone")
    with stop_on_signal() as stop:
        if not dry_run:
            remove_abandoned_folders(MERGE)
        files = list(_plan(archive, stop) if dry_run else _merge(archive, stop))
    facts = {
        "files": files,
        "slices": sum(file["slices"] for file in files),
        "bytes_before": sum(file["bytes_before"] for file in files),
        "bytes_after": None if dry_run else sum(file["bytes_after"] for file in files),
        "dry_run": dry_run,
    }
    if as_json:
        print_json(facts)
    else:
        verb = "would be merged" if dry_run else "merged"
        saved = "" if dry_run else f", {facts['bytes_before']:,} bytes into {facts['bytes_after']:,}"
        print_message(f"{facts['slices']:,} slices {verb} into {len(files):,} files{saved}")
    stop.exit_if_stopped()


def _merge(archive: "Archive", stop: StopRequest) -> Iterator[dict[str, Any]]:
    """Merge what is final of each partition; yield the facts of each merged file."""
    from driftloop.archive.merging import (  # noqa: PLC0415  # pyarrow and DuckDB take half a second to import
        DEFAULT_LIMITS,
        choose_oldest,
        delete_files,
        merge_slices,
    )

    for listed in archive.partitions:
        partition, has_merged = listed, True
        while has_merged and stop.may_go_on():
            partition, has_merged = partition.list_again(archive.store), False
            delete_files(archive.store, partition.files.leftovers)
            chosen = choose_oldest(partition.final_slices, DEFAULT_LIMITS)
            following = next(iter(partition.files.slices[len(chosen) :]), None)
            for merged in merge_slices(archive.store, chosen, following, DEFAULT_LIMITS, stop.may_go_on):
                has_merged = True
                facts = _facts(partition, merged.slices) | {"bytes_after": merged.size}
                print_notice(
                    f"{partition.name} {facts['day']}: {facts['slices']:,} slices merged, "
                    f"{facts['bytes_before']:,} bytes into {merged.size:,}"
                )
                yield facts


def _plan(archive: "Archive", stop: StopRequest) -> Iterator[dict[str, Any]]:
    """Yield the facts of each file that would be written."""
    from driftloop.archive.merging import DEFAULT_LIMITS, plan_merges  # noqa: PLC0415  # see _merge

    for partition in archive.partitions:
        for slices in plan_merges(
            archive.store, partition.final_slices, partition.files.slices, DEFAULT_LIMITS, stop.may_go_on
        ):
            facts = _facts(partition, slices)
            print_notice(f"{partition.name} {facts['day']}: {facts['slices']:,} slices would be merged")
            yield facts


def _facts(partition: "ArchivedPartition", slices: "Slices") -> dict[str, Any]:
    topic, number = partition.partition
    return {
        "topic": topic,
        "partition": number,
        "day": slices.day,
        "window": slices.window.name,
        "slices": len(slices.files),
        "bytes_before": slices.size,
    }
