"""Find what the archive has of days that are over for longer than their rows are kept."""

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta

from driftloop.archive.layout import ArchivedFile
from driftloop.archive.merging import PartitionFiles, read_day
from driftloop.archive.settings import ArchiveSettings
from driftloop.settings import TopicsSettings
from driftloop.storage.object_store import ObjectStore


def retention_by_topic(archive: ArchiveSettings, topics: TopicsSettings) -> dict[str, int]:
    """Return for how many days rows are kept, by the name of their topic; a topic that is kept for ever is left out."""
    days = {topics.predictions: archive.prediction_retention_days, topics.outcomes: archive.outcome_retention_days}
    return {topic: number for topic, number in days.items() if number is not None}


def first_kept_day(days: int, at: datetime) -> date:
    """Return the first day, in UTC, whose rows are kept at a time if rows are kept for some whole days."""
    return (at.astimezone(UTC) - timedelta(days=days)).date()


def find_expired(
    store: ObjectStore, files: PartitionFiles, first_kept: date, kept_slices: int, final_before: int | None
) -> list[ArchivedFile]:
    """Return the files of a partition that are of days before the first one that is kept.

    Of slices, these are the oldest ones in a row, if nothing needs them any more: the latest ones stay whatever their
    age.

    Args:
        store: Where the archive is.
        files: The files of the partition.
        first_kept: The first day that is kept.
        kept_slices: The number of latest slices that are read one by one.
        final_before: The offset before which no row is needed for a verdict; ``None`` if it is not known.

    Raises:
        StorageUnavailable: The store does not answer.
    """
    expired = [file for file in files.merged if file.day is not None and file.day < first_kept]
    for file in files.final_slices(kept_slices, final_before or 0):
        if not _is_before(store, file, first_kept):
            break
        expired.append(file)
    return expired


def _is_before(store: ObjectStore, file: ArchivedFile, first_kept: date) -> bool:
    """Return whether a slice is of a day before another one. Only of one that was written later, it has to be read."""
    if file.modified.astimezone(UTC).date() < first_kept:
        return True
    try:
        return read_day(store, file) < first_kept
    except FileNotFoundError:  # merged or deleted since it was listed
        return False


def first_archived_day(files: Iterable[ArchivedFile]) -> date | None:
    """Return the day on which the oldest file of a topic begins; ``None`` if there is no file."""
    begin = min((file.begin for file in files), default=None)
    return None if begin is None else begin.astimezone(UTC).date()
