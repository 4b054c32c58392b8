"""Slices of a partition follow one another without a gap, whatever lies at their offsets."""

from drift_worker.windows import Slice, Slicing
from driftloop.consuming import Received
from driftloop.events import Outcome, Prediction


def prediction(offset: int, rows: int = 1, partition: int = 0) -> Received:
    event = Prediction(model="m", version="1", features={"x": [0.0] * rows}, predictions=[0.5] * rows)
    return Received("predictions", partition, offset, event)


def offsets(slices: list[Slice | None]) -> list[tuple[int, int, int]]:
    return [(one.first_offset, one.last_offset, one.rows) for one in slices if one]


def test_a_slice_closes_when_it_has_enough_rows() -> None:
    slicing = Slicing(rows=3, quiet_seconds=60)
    assert offsets([slicing.add(prediction(n), 0) for n in range(7)]) == [(0, 2, 3), (3, 5, 3)]


def test_the_rows_of_an_event_are_never_split() -> None:
    slicing = Slicing(rows=5, quiet_seconds=60)
    assert offsets([slicing.add(prediction(n, rows=4), 0) for n in range(4)]) == [(0, 1, 8), (2, 3, 8)]


def test_offsets_without_an_event_belong_to_the_slice_that_covers_them() -> None:
    slicing = Slicing(rows=2, quiet_seconds=60)
    gone = Received("predictions", 0, 1, None)
    assert offsets([slicing.add(prediction(0), 0), slicing.add(gone, 0), slicing.add(prediction(2), 0)]) == [(0, 2, 2)]


def test_partitions_and_topics_have_slices_of_their_own() -> None:
    slicing = Slicing(rows=2, quiet_seconds=60)
    outcome = Received("outcomes", 0, 0, Outcome(prediction_id="p", index=0, outcome=1))
    closed = [slicing.add(one, 0) for one in (prediction(0), prediction(7, partition=1), outcome, prediction(1))]
    assert offsets(closed) == [(0, 1, 2)]


def test_a_quiet_slice_closes_after_its_time() -> None:
    slicing = Slicing(rows=10, quiet_seconds=5)
    slicing.add(prediction(0), 0)
    slicing.add(prediction(1), 3)
    assert slicing.quiet(7.9) == []
    assert offsets(list(slicing.quiet(8))) == [(0, 1, 2)]
    assert slicing.quiet(100) == []


def test_slices_of_partitions_that_moved_are_forgotten() -> None:
    slicing = Slicing(rows=2, quiet_seconds=5)
    slicing.add(prediction(0), 0)
    slicing.forget([("predictions", 0)])
    assert slicing.add(prediction(0), 0) is None
    assert offsets([slicing.add(prediction(1), 0)]) == [(0, 1, 2)]
