"""Test that a partition's next owner reads the committed slices from the offset metadata."""

import pytest

from drift_worker.windows.committed_slices import MAX_SLICES, CommittedSlices
from driftloop.events import Window
from driftloop.kafka.transactional_producer import CommittedPosition

PARTITION = ("predictions", 0)


def window(first: int, last: int) -> Window:
    return Window(topic="predictions", partition=0, first_offset=first, last_offset=last)


def test_next_owner_restores_committed_slices_from_metadata() -> None:
    before, after = CommittedSlices(), CommittedSlices()
    before.commit(window(3, 9))
    metadata = before.commit(window(10, 14))
    after.restore(PARTITION, CommittedPosition(15, metadata))
    assert after.slices_of(PARTITION) == before.slices_of(PARTITION) == (window(3, 9), window(10, 14))
    assert after.preceding(window(15, 20), 1) == (window(10, 14),)
    assert after.preceding(window(10, 14), 2) == (window(3, 9),)
    assert after.preceding(window(16, 20), 2) == ()
    after.commit(window(15, 20))
    assert after.preceding(window(21, 30), 2) == (window(10, 14), window(15, 20))


def test_gap_removes_the_slices_before_it() -> None:
    committed_slices = CommittedSlices()
    committed_slices.commit(window(0, 9))
    assert committed_slices.commit(window(20, 29)) == "20"


def test_metadata_stays_below_the_broker_s_limit() -> None:
    committed_slices = CommittedSlices()
    for number in range(10**6, 10**6 + 3 * MAX_SLICES):
        metadata = committed_slices.commit(window(number * 10**9, (number + 1) * 10**9 - 1))
    assert len(committed_slices.slices_of(PARTITION)) == MAX_SLICES
    assert len(metadata) < 4096


@pytest.mark.parametrize("metadata", ["", "somebody reset it", "5,3", "3,15", "15", "-1", "1," * 9, "9" * 40])
def test_metadata_in_another_format_gives_no_slices(metadata: str) -> None:
    committed_slices = CommittedSlices()
    committed_slices.restore(PARTITION, CommittedPosition(15, metadata))
    assert committed_slices.slices_of(PARTITION) == ()
