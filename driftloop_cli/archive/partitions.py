"""The partitions of the archive, with what the drift workers have committed of them."""

from collections.abc import Iterator
from typing import NamedTuple

from driftloop.archive.layout import ArchivedFile, list_all_merged, list_slices
from driftloop.archive.merging import PartitionFiles, list_partition, partition_files
from driftloop.archive.partition_state import Partition, from_metadata
from driftloop.kafka import reader
from driftloop.storage.object_store import ObjectStore
from driftloop_cli.archive.settings import ArchiveCliSettings


class ArchivedPartition(NamedTuple):
    """A partition, with its files at the time of a listing."""

    partition: Partition
    files: PartitionFiles
    final_before: int | None
    """The offset before which no row is needed for a verdict; ``None`` if the drift workers have committed nothing."""
    kept_slices: int
    """The number of latest slices that are read one by one."""

    @property
    def name(self) -> str:
        """Topic and number, as in ``predictions-0``."""
        return f"{self.partition[0]}-{self.partition[1]}"

    @property
    def final_slices(self) -> list[ArchivedFile]:
        """The slices that can be merged or deleted."""
        return self.files.final_slices(self.kept_slices, self.final_before or 0)

    def list_again(self, store: ObjectStore) -> "ArchivedPartition":
        """Return the partition with its present files. Raises :class:`StorageUnavailable`."""
        return self._replace(files=list_partition(store, self.partition))


class Archive(NamedTuple):
    """The archive, and what is committed of its partitions."""

    store: ObjectStore
    partitions: list[ArchivedPartition]

    @property
    def unknown_partitions(self) -> list[str]:
        """The names of partitions with slices of which nothing is committed."""
        return [each.name for each in self.partitions if each.final_before is None and each.files.slices]


def open_archive(settings: ArchiveCliSettings) -> Archive:
    """List the partitions of the archive, after what is committed of them: it is final when the listing is made.

    Raises:
        BrokerUnavailable: Kafka does not answer.
        StorageUnavailable: The store does not answer.
    """
    topics = (settings.topics.predictions, settings.topics.outcomes)
    positions = reader.committed_positions(settings.kafka, settings.drift_worker.group, topics)
    final_before = {partition: from_metadata(*position).final_before for partition, position in positions.items()}
    store = ObjectStore(settings.storage).require_answer()
    kept = settings.quality.kept_slices
    partitions = [
        ArchivedPartition(partition, files, final_before.get(partition), kept)
        for topic in topics
        for partition, files in _partitions_of(store, topic)
    ]
    return Archive(store, partitions)


def _partitions_of(store: ObjectStore, topic: str) -> Iterator[tuple[Partition, PartitionFiles]]:
    slices = list_slices(store, topic)  # first, as every reader does
    merged = list_all_merged(store, topic)
    for number in sorted({file.window.partition for file in (*slices, *merged)}):
        files = partition_files(
            [file for file in slices if file.window.partition == number],
            [file for file in merged if file.window.partition == number],
        )
        yield (topic, number), files
