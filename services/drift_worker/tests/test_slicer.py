"""Test that the slices of a partition have no gaps, whatever its offsets contain."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import chain

from drift_worker.windows.slicer import Slice, Slicer
from driftloop.drift.settings import WindowSettings
from driftloop.events import Outcome, Prediction
from driftloop.kafka.consumed_message import ConsumedMessage

NOON = datetime(2013, 1, 1, 12, tzinfo=UTC)


def prediction(
    offset: int, rows: int = 1, partition: int = 0, after: float = 0, previous_end_offset: int | None = None
) -> ConsumedMessage:
    time = NOON + timedelta(seconds=after)
    previous = offset if previous_end_offset is None else previous_end_offset
    event = Prediction(model="m", version="1", time=time, features={"x": [0.0] * rows}, predictions=[0.5] * rows)
    return ConsumedMessage("predictions", partition, offset, event, previous)


def make_slicer(rows: int, idle_timeout_seconds: float = 60, max_age_seconds: float = 60) -> Slicer:
    settings = WindowSettings.model_construct(
        None, rows=rows, idle_timeout_seconds=idle_timeout_seconds, max_age_seconds=max_age_seconds
    )
    return Slicer(settings)


def offsets(slices: Iterable[Slice]) -> list[tuple[int, int, int]]:
    return [(one.first_offset, one.last_offset, one.rows) for one in slices]


def added(slicer: Slicer, *received: ConsumedMessage) -> list[tuple[int, int, int]]:
    return offsets(chain.from_iterable(slicer.add(one, 0) for one in received))


def test_slicer_closes_slice_with_enough_rows() -> None:
    assert added(make_slicer(3), *(prediction(n) for n in range(7))) == [(0, 2, 3), (3, 5, 3)]


def test_slicer_never_splits_the_rows_of_an_event() -> None:
    assert added(make_slicer(5), *(prediction(n, rows=4) for n in range(4))) == [(0, 1, 8), (2, 3, 8)]


def test_slice_covers_offsets_without_event() -> None:
    gone = ConsumedMessage("predictions", 0, 1, None, 1)
    assert added(make_slicer(2), prediction(0), gone, prediction(2)) == [(0, 2, 2)]


def test_transaction_markers_between_slices_leave_no_gap() -> None:
    marked = [
        prediction(0),
        prediction(2, previous_end_offset=1),
        prediction(4, previous_end_offset=3),
        prediction(6, previous_end_offset=5),
    ]
    assert added(make_slicer(2), *marked) == [(0, 2, 2), (3, 6, 2)]


def test_slicer_cuts_partitions_and_topics_separately() -> None:
    outcome = ConsumedMessage("outcomes", 0, 0, Outcome(prediction_id="p", index=0, outcome=1), 0)
    assert added(make_slicer(2), prediction(0), prediction(7, partition=1), outcome, prediction(1)) == [(0, 1, 2)]


def test_slicer_closes_slice_before_event_beyond_max_age() -> None:
    times = [0, 50, 61, 100, 122]
    late = [prediction(n, after=seconds) for n, seconds in enumerate(times)]
    assert added(make_slicer(10, max_age_seconds=60), *late) == [(0, 1, 2), (2, 3, 2)]


def test_one_event_can_close_two_slices() -> None:
    slicer = make_slicer(5, max_age_seconds=60)
    assert added(slicer, prediction(0), prediction(1, rows=5, after=61)) == [(0, 0, 1), (1, 1, 5)]


def test_events_out_of_order_do_not_extend_max_age() -> None:
    disorder = [prediction(0, after=50), prediction(1, after=0), prediction(2, after=61)]
    assert added(make_slicer(10, max_age_seconds=60), *disorder) == [(0, 1, 2)]


def test_slicer_closes_idle_slice_after_timeout() -> None:
    slicer = make_slicer(10, idle_timeout_seconds=5)
    slicer.add(prediction(0), 0)
    slicer.add(prediction(1), 3)
    assert slicer.close_idle(7.9) == []
    assert offsets(slicer.close_idle(8)) == [(0, 1, 2)]
    assert slicer.close_idle(100) == []


def test_slicer_drops_open_slices_of_revoked_partitions() -> None:
    slicer = make_slicer(2)
    slicer.add(prediction(0), 0)
    slicer.drop([("predictions", 0)])
    assert added(slicer, prediction(0), prediction(1)) == [(0, 1, 2)]
