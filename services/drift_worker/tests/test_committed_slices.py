"""Whoever has a partition next knows what is final, from the note beside the offset."""

import pytest

from drift_worker.windows.committed_slices import MAX_SLICES, CommittedSlices
from driftloop.events import Window
from driftloop.kafka.transactional_producer import CommittedPosition

HERE = ("predictions", 0)


def window(first: int, last: int) -> Window:
    return Window(topic="predictions", partition=0, first_offset=first, last_offset=last)


def test_the_next_owner_knows_the_same_slices() -> None:
    before, after = CommittedSlices(), CommittedSlices()
    before.commit(window(3, 9))
    note = before.commit(window(10, 14))
    after.restore(HERE, CommittedPosition(15, note))
    assert after.slices_of(HERE) == before.slices_of(HERE) == (window(3, 9), window(10, 14))
    assert after.preceding(window(15, 20), 1) == (window(10, 14),)
    assert after.preceding(window(10, 14), 2) == (window(3, 9),)
    assert after.preceding(window(16, 20), 2) == ()
    after.commit(window(15, 20))
    assert after.preceding(window(21, 30), 2) == (window(10, 14), window(15, 20))


def test_a_gap_ends_what_follows_one_another() -> None:
    finals = CommittedSlices()
    finals.commit(window(0, 9))
    assert finals.commit(window(20, 29)) == "20"


def test_a_note_stays_short() -> None:
    finals = CommittedSlices()
    for number in range(10**6, 10**6 + 3 * MAX_SLICES):
        note = finals.commit(window(number * 10**9, (number + 1) * 10**9 - 1))
    assert len(finals.slices_of(HERE)) == MAX_SLICES
    assert len(note) < 4096


@pytest.mark.parametrize("note", ["", "somebody reset it", "5,3", "3,15", "15", "-1", "1," * 9, "9" * 40])
def test_a_note_that_is_none_of_ours_says_nothing(note: str) -> None:
    finals = CommittedSlices()
    finals.restore(HERE, CommittedPosition(15, note))
    assert finals.slices_of(HERE) == ()
