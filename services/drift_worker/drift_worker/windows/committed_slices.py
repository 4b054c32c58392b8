"""Committed slices: which archived slices count, kept in the metadata of the committed offset.

A slice is written to the archive before its offset is committed, because a commit without the file would lose the rows.
A worker that is killed or frozen in between leaves a file whose rows the partition's next owner cuts into slices once
more, with other bounds. In the archive both files look alike, so a reader that lists the archive would count rows
twice.

Kafka stores a text with each committed offset, its metadata. The worker writes the first offsets of the partition's
latest slices there, ``"0,10,20"``; each slice ends where the next one begins, and the last one ends before the
committed offset. The list is committed in the transaction that commits the offset and publishes the verdicts, so it is
always true, and the next owner receives it together with the offset. Two readers depend on it: ``recent_windows``
takes the windows before a window from this list and not from a listing, and ``orphan_cleanup`` deletes slices that
begin within the listed range and are not in it. docs/adr/0002-committed-slices-in-offset-metadata.md has the
alternatives.
"""

import re
from collections import deque
from collections.abc import Collection, Sequence
from itertools import pairwise

from driftloop.events import Window
from driftloop.kafka.transactional_producer import CommittedPosition

MAX_SLICES = 100  # their first offsets are at most 2 KB of text; brokers allow 4 KB (offset.metadata.max.bytes)
METADATA_PATTERN = re.compile(r"\d{1,19}(,\d{1,19})*")

Partition = tuple[str, int]
"""A topic and the number of a partition."""


class CommittedSlices:
    """The latest committed slices of each partition, without gaps between them."""

    def __init__(self) -> None:
        """Start without partitions."""
        self._slices: dict[Partition, deque[Window]] = {}

    def restore(self, partition: Partition, position: CommittedPosition) -> None:
        """Read a partition's slices from the metadata of its committed position.

        Metadata in another format, such as that of a tool that has reset the offset, counts as no slices.
        """
        self._slices[partition] = deque(_parse_metadata(partition, position), MAX_SLICES)

    def commit(self, window: Window) -> str:
        """Add a slice that is committed next; return the metadata to commit with its offset.

        A gap before the slice removes the slices before the gap.
        """
        slices = self._slices.setdefault((window.topic, window.partition), deque(maxlen=MAX_SLICES))
        if slices and slices[-1].last_offset + 1 != window.first_offset:
            slices.clear()
        slices.append(window)
        return ",".join(str(committed.first_offset) for committed in slices)

    def slices_of(self, partition: Partition) -> Sequence[Window]:
        """Return a partition's committed slices in order of their offsets."""
        return tuple(self._slices.get(partition, ()))

    def preceding(self, window: Window, count: int) -> Sequence[Window]:
        """Return at most ``count`` slices that end right before a window without gaps, in order of their offsets."""
        slices = self.slices_of((window.topic, window.partition))
        for index, earlier in enumerate(slices):
            if earlier.last_offset + 1 == window.first_offset:
                return slices[max(0, index + 1 - count) : index + 1]
        return ()

    def forget(self, partitions: Collection[Partition]) -> None:
        """Drop partitions that another worker owns now."""
        for partition in partitions:
            self._slices.pop(partition, None)


def _parse_metadata(partition: Partition, position: CommittedPosition) -> list[Window]:
    """Return the slices that a committed position lists; none if its metadata is not in the format of ``commit``."""
    if not METADATA_PATTERN.fullmatch(position.metadata):
        return []
    bounds = [*map(int, position.metadata.split(",")), position.offset]
    if any(first >= following for first, following in pairwise(bounds)):
        return []
    topic, number = partition
    return [
        Window(topic=topic, partition=number, first_offset=first, last_offset=following - 1)
        for first, following in pairwise(bounds)
    ]
