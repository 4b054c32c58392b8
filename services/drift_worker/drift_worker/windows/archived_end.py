"""Where a partition goes on whose committed offset the broker has forgotten: behind what the archive has of it."""

import pandas as pd
import structlog

from drift_worker.windows import archive
from driftloop.archive.layout import list_slices
from driftloop.errors import ArchiveUnreadable, BrokerUnavailable, StorageUnavailable
from driftloop.events import ID_COLUMN, KEY_COLUMN, Event, Outcome, Prediction, Window
from driftloop.kafka import reader
from driftloop.kafka.message_handler import RetryLater
from driftloop.settings import KafkaSettings
from driftloop.storage.object_store import ObjectStore

log = structlog.get_logger(__name__)


class ArchivedEnd:
    """Finds the end of what is archived of a partition.

    Everything with a verdict is archived, so nothing behind that end was judged. The windows that were open are not
    known any more: the archive has their rows, and they get no verdict.
    """

    def __init__(self, store: ObjectStore, kafka: KafkaSettings) -> None:
        """Look for slices in the archive of ``store``, and for their events at ``kafka``."""
        self._store = store
        self._kafka = kafka

    def find(self, topic: str, partition: int) -> int | None:
        """Return the offset behind the last archived slice; ``None`` if there is none, or if it is of another log.

        After a topic was deleted and made again its offsets begin at 0, and the archive still has the slices of before:
        then the log has other events at the last slice's offsets.

        Raises:
            RetryLater: The bucket or the broker does not answer.
        """
        try:
            slices = [file.window for file in list_slices(self._store, topic, partition)]
            if not slices:  # the latest ones are never merged
                return None
            last = max(slices, key=lambda each: each.last_offset)
            if self.is_of_another_log(last):
                log.warning("archive.slices_of_another_log", topic=topic, partition=partition, slice=last.name)
                return None
        except (StorageUnavailable, BrokerUnavailable) as error:
            raise RetryLater(str(error)) from error
        return last.last_offset + 1

    def is_of_another_log(self, archived: Window) -> bool:
        """Return whether the log has events at a slice's offsets, and none of them is in the slice.

        Raises:
            StorageUnavailable: The store does not answer.
            BrokerUnavailable: The broker does not answer.
        """
        names = {name for event in reader.read_window(self._kafka, archived) for name in _names_of(event)}
        try:
            rows = archive.read_slice(self._store, archived) if names else pd.DataFrame()
        except (FileNotFoundError, ArchiveUnreadable):  # deleted or unreadable by now: its name alone counts
            return False
        known = {name for column in (ID_COLUMN, KEY_COLUMN) if column in rows for name in rows[column].dropna()}
        return bool(known) and names.isdisjoint(known)


def _names_of(event: Event) -> set[str]:
    """Return what identifies an event in the archive."""
    if isinstance(event, Outcome):
        return {name for name in (event.prediction_id, event.key) if name is not None}
    return {event.id} if isinstance(event, Prediction) else set()
