"""Which slices of a partition are final: who has the partition next learns it from the note beside the offset.

In the archive a slice that a killed or frozen worker left looks like one that is final.
"""

import re
from collections import deque
from collections.abc import Collection, Sequence
from itertools import pairwise

from driftloop.events import Window
from driftloop.kafka.transactional_producer import CommittedPosition

MAX_SLICES = 100  # slices; a note of their offsets is well below the 4 KB that brokers allow
METADATA_PATTERN = re.compile(r"\d{1,19}(,\d{1,19})*")

Partition = tuple[str, int]
"""A topic and a number."""


class CommittedSlices:
    """The latest slices of each partition, which follow one another without a gap."""

    def __init__(self) -> None:
        """Nothing is known of any partition."""
        self._slices: dict[Partition, deque[Window]] = {}

    def restore(self, partition: Partition, position: CommittedPosition) -> None:
        """A partition is read on; a note that is none of ours says nothing."""
        self._slices[partition] = deque(_parse_metadata(partition, position), MAX_SLICES)

    def commit(self, window: Window) -> str:
        """A slice is to be final; returns the note for its offset."""
        slices = self._slices.setdefault((window.topic, window.partition), deque(maxlen=MAX_SLICES))
        if slices and slices[-1].last_offset + 1 != window.first_offset:
            slices.clear()
        slices.append(window)
        return ",".join(str(one.first_offset) for one in slices)

    def slices_of(self, partition: Partition) -> Sequence[Window]:
        """What is known of a partition, in order."""
        return tuple(self._slices.get(partition, ()))

    def preceding(self, window: Window, count: int) -> Sequence[Window]:
        """At most so many slices that come right before one, in order."""
        slices = self.slices_of((window.topic, window.partition))
        end_indexes = [place for place, one in enumerate(slices, 1) if one.last_offset + 1 == window.first_offset]
        return slices[max(0, end_indexes[0] - count) : end_indexes[0]] if end_indexes else ()

    def forget(self, partitions: Collection[Partition]) -> None:
        """The partitions are somebody else's."""
        for partition in partitions:
            self._slices.pop(partition, None)


def _parse_metadata(partition: Partition, position: CommittedPosition) -> list[Window]:
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
