"""Which slices of a partition are final: who has the partition next learns it from the note beside the offset.

In the archive a slice that a killed or frozen worker left looks like one that is final.
"""

import re
from collections import deque
from collections.abc import Collection, Sequence
from itertools import pairwise

from driftloop.events import Window
from driftloop.kafka.transactional_producer import Begin

REMEMBERED = 100  # slices; a note of their offsets is well below the 4 KB that brokers allow
NOTE = re.compile(r"\d{1,19}(,\d{1,19})*")

Partition = tuple[str, int]
"""A topic and a number."""


class Finals:
    """The latest slices of each partition, which follow one another without a gap."""

    def __init__(self) -> None:
        """Nothing is known of any partition."""
        self._known: dict[Partition, deque[Window]] = {}

    def begin(self, partition: Partition, begin: Begin) -> None:
        """A partition is read on; a note that is none of ours says nothing."""
        self._known[partition] = deque(_noted(partition, begin), REMEMBERED)

    def add(self, window: Window) -> str:
        """A slice is to be final; returns the note for its offset."""
        known = self._known.setdefault((window.topic, window.partition), deque(maxlen=REMEMBERED))
        if known and known[-1].last_offset + 1 != window.first_offset:
            known.clear()
        known.append(window)
        return ",".join(str(one.first_offset) for one in known)

    def of(self, partition: Partition) -> Sequence[Window]:
        """What is known of a partition, in order."""
        return tuple(self._known.get(partition, ()))

    def before(self, window: Window, count: int) -> Sequence[Window]:
        """At most so many slices that come right before one, in order."""
        known = self.of((window.topic, window.partition))
        ends = [place for place, one in enumerate(known, 1) if one.last_offset + 1 == window.first_offset]
        return known[max(0, ends[0] - count) : ends[0]] if ends else ()

    def forget(self, partitions: Collection[Partition]) -> None:
        """The partitions are somebody else's."""
        for partition in partitions:
            self._known.pop(partition, None)


def _noted(partition: Partition, begin: Begin) -> list[Window]:
    if not NOTE.fullmatch(begin.note):
        return []
    bounds = [*map(int, begin.note.split(",")), begin.offset]
    if any(first >= following for first, following in pairwise(bounds)):
        return []
    topic, number = partition
    return [
        Window(topic=topic, partition=number, first_offset=first, last_offset=following - 1)
        for first, following in pairwise(bounds)
    ]
