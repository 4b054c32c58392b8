"""How far the archive reaches: what a retrain cannot learn from yet, or any more."""

import time
from collections.abc import Callable
from datetime import date, datetime
from typing import NamedTuple

from driftloop.archive.retention import first_kept_day
from driftloop.archive.settings import ArchiveSettings
from driftloop.errors import BrokerUnavailable
from driftloop.kafka import reader
from driftloop.settings import KafkaSettings, TopicsSettings

POLL_SECONDS = 1
MARKER_OFFSETS = 1  # a partition that is written in transactions ends with an offset that is no event


class ArchiveLag(NamedTuple):
    """What was published before a retrain and is not archived."""

    offsets: int | None
    """Offsets of all partitions of predictions and outcomes, to within one for each; ``None`` if Kafka did not say."""

    def describe(self, archived_through: datetime | None) -> str:
        """Return what the archive lacks and how far it reaches, as the end of a sentence; empty if it lacks nothing."""
        if self.offsets is None:
            return "; Kafka does not answer, so what the archive lacks is not known"
        reach = f", which reaches {archived_through:%Y-%m-%d %H:%M}" if archived_through else ""
        return f"; {self.offsets:,} published offsets are not in the archive yet{reach}" if self.offsets else ""


def describe_expired(archive: ArchiveSettings, selected_since: date | None, at: datetime) -> str:
    """Return which of the days that a retrain asks for the archive does not keep, as the end of a sentence, or nothing.

    Args:
        archive: For how long it keeps rows.
        selected_since: The first day that the retrain asks for; ``None`` if it takes what there is.
        at: The present time.
    """
    kept = {"predictions": archive.prediction_retention_days, "outcomes": archive.outcome_retention_days}
    reach = [
        f"{what} for {days:,} days, those since {first}"
        for what, days in kept.items()
        if days is not None and selected_since is not None and selected_since < (first := first_kept_day(days, at))
    ]
    return f"; rows since {selected_since} were asked for, and the archive keeps {' and '.join(reach)}" if reach else ""


def wait_for_archive(
    kafka: KafkaSettings, group: str, topics: TopicsSettings, wait_seconds: float, report: Callable[[str], None]
) -> ArchiveLag:
    """Wait until everything that is published now is archived, but not for longer than ``wait_seconds``.

    Args:
        kafka: How to reach the broker.
        group: The consumer group of the drift workers.
        topics: The names of the topics.
        wait_seconds: 0 to look only.
        report: Called once, with what is being waited for.
    """
    archived = (topics.predictions, topics.outcomes)
    deadline = time.monotonic() + wait_seconds
    try:
        positions = reader.group_positions(kafka, group, archived)
        ends = {partition: position.committed + position.lag for partition, position in positions.items()}
        is_reported = False
        while True:
            behind = (end - MARKER_OFFSETS - positions[partition].committed for partition, end in ends.items())
            lag = ArchiveLag(sum(max(offsets, 0) for offsets in behind))
            if not lag.offsets or time.monotonic() >= deadline:
                return lag
            if not is_reported:
                report(
                    f"waits for the drift worker, which has {lag.offsets:,} offsets to archive "
                    "(DRIFTLOOP_DATA__ARCHIVE_WAIT_SECONDS)"
                )
                is_reported = True
            time.sleep(POLL_SECONDS)
            positions = reader.group_positions(kafka, group, archived)
    except BrokerUnavailable:
        return ArchiveLag(None)
