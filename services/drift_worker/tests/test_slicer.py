"""Slices of a partition follow one another without a gap, whatever lies at their offsets."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import chain

from drift_worker.windows.slicer import Slice, Slicer
from driftloop.events import Outcome, Prediction
from driftloop.kafka.consumer_loop import ConsumedMessage
from driftloop.settings import WindowSettings

NOON = datetime(2013, 1, 1, 12, tzinfo=UTC)


def prediction(
    offset: int, rows: int = 1, partition: int = 0, after: float = 0, follows: int | None = None
) -> ConsumedMessage:
    time = NOON + timedelta(seconds=after)
    event = Prediction(model="m", version="1", time=time, features={"x": [0.0] * rows}, predictions=[0.5] * rows)
    return ConsumedMessage("predictions", partition, offset, event, offset if follows is None else follows)


def slicing_of(rows: int, idle_timeout_seconds: float = 60, max_age_seconds: float = 60) -> Slicer:
    settings = WindowSettings.model_construct(
        None, rows=rows, idle_timeout_seconds=idle_timeout_seconds, max_age_seconds=max_age_seconds
    )
    return Slicer(settings)


def offsets(slices: Iterable[Slice]) -> list[tuple[int, int, int]]:
    return [(one.first_offset, one.last_offset, one.rows) for one in slices]


def added(slicing: Slicer, *received: ConsumedMessage) -> list[tuple[int, int, int]]:
    return offsets(chain.from_iterable(slicing.add(one, 0) for one in received))


def test_a_slice_closes_when_it_has_enough_rows() -> None:
    assert added(slicing_of(3), *(prediction(n) for n in range(7))) == [(0, 2, 3), (3, 5, 3)]


def test_the_rows_of_an_event_are_never_split() -> None:
    assert added(slicing_of(5), *(prediction(n, rows=4) for n in range(4))) == [(0, 1, 8), (2, 3, 8)]


def test_offsets_without_an_event_belong_to_the_slice_that_covers_them() -> None:
    gone = ConsumedMessage("predictions", 0, 1, None, 1)
    assert added(slicing_of(2), prediction(0), gone, prediction(2)) == [(0, 2, 2)]


def test_marks_of_transactions_between_two_slices_leave_no_gap() -> None:
    marked = [prediction(0), prediction(2, follows=1), prediction(4, follows=3), prediction(6, follows=5)]
    assert added(slicing_of(2), *marked) == [(0, 2, 2), (3, 6, 2)]


def test_partitions_and_topics_have_slices_of_their_own() -> None:
    outcome = ConsumedMessage("outcomes", 0, 0, Outcome(prediction_id="p", index=0, outcome=1), 0)
    assert added(slicing_of(2), prediction(0), prediction(7, partition=1), outcome, prediction(1)) == [(0, 1, 2)]


def test_an_event_that_is_much_later_begins_a_slice_of_its_own() -> None:
    times = [0, 50, 61, 100, 122]
    late = [prediction(n, after=seconds) for n, seconds in enumerate(times)]
    assert added(slicing_of(10, max_age_seconds=60), *late) == [(0, 1, 2), (2, 3, 2)]


def test_one_event_may_close_two_slices() -> None:
    slicing = slicing_of(5, max_age_seconds=60)
    assert added(slicing, prediction(0), prediction(1, rows=5, after=61)) == [(0, 0, 1), (1, 1, 5)]


def test_events_out_of_order_do_not_stretch_a_slice() -> None:
    disorder = [prediction(0, after=50), prediction(1, after=0), prediction(2, after=61)]
    assert added(slicing_of(10, max_age_seconds=60), *disorder) == [(0, 1, 2)]


def test_a_quiet_slice_closes_after_its_time() -> None:
    slicing = slicing_of(10, idle_timeout_seconds=5)
    slicing.add(prediction(0), 0)
    slicing.add(prediction(1), 3)
    assert slicing.close_idle(7.9) == []
    assert offsets(slicing.close_idle(8)) == [(0, 1, 2)]
    assert slicing.close_idle(100) == []


def test_slices_of_partitions_that_moved_are_forgotten() -> None:
    slicing = slicing_of(2)
    slicing.add(prediction(0), 0)
    slicing.drop([("predictions", 0)])
    assert added(slicing, prediction(0), prediction(1)) == [(0, 1, 2)]
