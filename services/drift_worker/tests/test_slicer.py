"""Test that slices have no gaps, and that each row is in one window of its version, whatever lies between them."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain, pairwise
from random import Random
from typing import NamedTuple

import pytest

from drift_worker.windows.slicer import ClosedSlice, ClosedWindow, Slicer
from driftloop.archive.partition_state import (
    MAX_SLICES,
    MAX_VERSIONS,
    OpenWindow,
    PartitionState,
    VersionWindows,
    from_metadata,
    to_metadata,
    version_digest,
)
from driftloop.drift.settings import WindowSettings
from driftloop.events import Event, Outcome, Prediction
from driftloop.kafka.consumed_message import ConsumedMessage

NOON = datetime(2013, 1, 1, 12, tzinfo=UTC)
PARTITION = ("predictions", 0)
Name = tuple[str, str]
"""A model and a version."""


def prediction(
    offset: int,
    rows: int = 1,
    partition: int = 0,
    after: float = 0,
    previous_end_offset: int | None = None,
    of: Name = ("m", "1"),
) -> ConsumedMessage:
    """Return a message that reached the topic ``after`` seconds."""
    previous = offset if previous_end_offset is None else previous_end_offset
    model, version = of
    event = Prediction(model=model, version=version, time=NOON, features={"x": [0.0] * rows}, predictions=[0.5] * rows)
    return ConsumedMessage("predictions", partition, offset, event, previous, after)


def make_slicer(
    rows: int,
    idle_timeout_seconds: float = 60,
    max_age_seconds: float = 60,
    window_length: Callable[[str, str, str | None], int] | None = None,
) -> Slicer:
    settings = WindowSettings.model_construct(
        None, rows=rows, idle_timeout_seconds=idle_timeout_seconds, max_age_seconds=max_age_seconds, min_fraction=0.9
    )
    return Slicer(settings, window_length or (lambda *_: rows))


def offsets(slices: Iterable[ClosedSlice]) -> list[tuple[int, int, int]]:
    return [(closed.slice.first_offset, closed.slice.last_offset, closed.slice.rows) for closed in slices]


def added(slicer: Slicer, *received: ConsumedMessage) -> list[tuple[int, int, int]]:
    return offsets(chain.from_iterable(slicer.add(one, 0) for one in received))


class FoundWindow(NamedTuple):
    """A window with the rows of its version in the slices since it began, as the worker finds them."""

    first_offset: int
    last_offset: int
    rows: int
    preceding: tuple[int, ...]


class Run:
    """Slices of a partition, and the windows of each version in them."""

    def __init__(self, slicer: Slicer) -> None:
        self.slicer = slicer
        self.slices: list[ClosedSlice] = []
        self.windows: dict[str, list[FoundWindow]] = {}

    def add(self, *messages: ConsumedMessage, clock: float = 0) -> None:
        for message in messages:
            self.close(self.slicer.add(message, clock))

    def close(self, slices: Sequence[ClosedSlice]) -> None:
        for closed in slices:
            self.slices.append(closed)
            for window in closed.windows:
                found = FoundWindow(
                    window.first_offset,
                    closed.slice.last_offset,
                    self.rows_since(window.version, window.first_offset),
                    window.preceding,
                )
                self.windows.setdefault(window.version, []).append(found)

    def rows_since(self, version: str, offset: int) -> int:
        events = [e for closed in self.slices if closed.slice.first_offset >= offset for e in closed.slice.events]
        return sum(rows_of(event) for event in events if digest_of(event) == version)

    def of(self, name: Name) -> list[FoundWindow]:
        return self.windows.get(version_digest(*name), [])

    @property
    def state(self) -> PartitionState:
        return self.slices[-1].state

    def restart(self, slicer: Slicer, clock: float = 0) -> None:
        """Go on with what the last slice has committed, as the partition's next owner does."""
        self.slicer = slicer
        self.slicer.resume(PARTITION, from_metadata(self.state.end, to_metadata(self.state)), clock)


def digest_of(event: Event) -> str:
    assert isinstance(event, Prediction)
    return version_digest(event.model, event.version)


def rows_of(event: Event) -> int:
    assert isinstance(event, Prediction)
    return len(event.predictions)


def mixed(source: Random, shares: dict[Name, int], count: int, max_rows: int = 1) -> Iterator[ConsumedMessage]:
    """Yield messages of versions by their share."""
    for offset in range(count):
        of = source.choices(list(shares), list(shares.values()))[0]
        yield prediction(offset, rows=source.randint(1, max_rows), of=of)


def assert_each_row_is_in_one_window(run: Run, messages: Sequence[ConsumedMessage], lengths: dict[Name, int]) -> None:
    """Check that the windows of a version, and its open window, have all of its rows once, and each its length."""
    committed = [message for message in messages if message.offset < run.state.end]
    assert [event for closed in run.slices for event in closed.slice.events] == [m.event for m in committed]
    for before, after in pairwise(run.slices):
        assert before.state.end == after.slice.first_offset
    rows = Counter[str]()
    for message in committed:
        assert message.event is not None
        rows[digest_of(message.event)] += rows_of(message.event)
    for name, length in lengths.items():
        digest, windows = version_digest(*name), run.of(name)
        opened = run.state.versions[digest].open if digest in run.state.versions else None
        assert sum(window.rows for window in windows) + (opened.rows if opened else 0) == rows[digest]
        assert all(length <= window.rows < length + 40 for window in windows)
        assert all(earlier.last_offset < later.first_offset for earlier, later in pairwise(windows))
        for number, window in enumerate(windows):
            expected = tuple(earlier.first_offset for earlier in windows[max(0, number - 2) : number])
            assert window.preceding == expected[len(expected) - len(window.preceding) :]  # those that are listed still
        if opened:
            assert run.rows_since(digest, opened.first_offset) == opened.rows < length


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


def test_slices_of_outcomes_close_by_their_number_and_have_no_windows() -> None:
    outcome = Outcome(prediction_id="p", index=0, outcome=1)
    slicer = make_slicer(2)
    closed = [each for n in range(5) for each in slicer.add(ConsumedMessage("outcomes", 0, n, outcome, n), 0)]
    assert offsets(closed) == [(0, 1, 2), (2, 3, 2)]
    assert [each.windows for each in closed] == [[], []]
    assert closed[-1].state == PartitionState(4, (0, 2))


def test_slicer_closes_slice_before_event_beyond_max_age() -> None:
    times = [0, 50, 61, 100, 122]
    late = [prediction(n, after=seconds) for n, seconds in enumerate(times)]
    assert added(make_slicer(10, max_age_seconds=60), *late) == [(0, 1, 2), (2, 3, 2)]


def test_one_event_can_close_two_slices() -> None:
    slicer = make_slicer(5, max_age_seconds=60)
    assert added(slicer, prediction(0), prediction(1, rows=5, after=61)) == [(0, 0, 1), (1, 1, 5)]


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
    slicer.drop([PARTITION])
    assert added(slicer, prediction(0), prediction(1)) == [(0, 1, 2)]


def test_with_one_version_each_slice_is_a_window() -> None:
    run = Run(make_slicer(3))
    run.add(*(prediction(n) for n in range(10)))
    assert run.of(("m", "1")) == [
        FoundWindow(0, 2, 3, ()),
        FoundWindow(3, 5, 3, (0,)),
        FoundWindow(6, 8, 3, (0, 3)),
    ]


@pytest.mark.parametrize("models", [2, 5])
@pytest.mark.parametrize("max_rows", [1, 40], ids=["single rows", "up to 40 rows"])
def test_several_models_have_windows_of_their_own(models: int, max_rows: int, random_source: Random) -> None:
    names = [(f"model-{number}", "1") for number in range(models)]
    messages = list(mixed(random_source, dict.fromkeys(names, 1), 4_000, max_rows))
    run = Run(make_slicer(100))
    run.add(*messages)
    assert_each_row_is_in_one_window(run, messages, dict.fromkeys(names, 100))
    assert all(len(run.of(name)) >= 3 for name in names)
    assert len(run.slices) == sum(len(run.of(name)) for name in names)  # so a slice has N rows on average


def test_three_versions_at_once_have_their_own_lengths(random_source: Random) -> None:
    lengths = {("m", "1"): 50, ("m", "2"): 200, ("m", "3"): 120}
    messages = list(mixed(random_source, dict.fromkeys(lengths, 1), 4_000))
    run = Run(make_slicer(1_000, window_length=lambda model, version, _: lengths[model, version]))
    run.add(*messages)
    assert_each_row_is_in_one_window(run, messages, lengths)
    assert [len(run.of(name)) > 3 for name in lengths] == [True] * 3


def test_swap_in_mid_window_leaves_the_old_version_s_rows_open_until_they_are_too_old() -> None:
    old, new = ("m", "1"), ("m", "2")
    run = Run(make_slicer(10, max_age_seconds=60))
    run.add(*(prediction(n, of=old if n < 15 else new) for n in range(40)))
    assert [window.rows for window in run.of(old)] == [10]
    assert [window.rows for window in run.of(new)] == [10, 10]
    assert run.of(new)[0].first_offset == 10  # the slice in which the swap happened
    run.add(prediction(40, of=new, after=61))
    assert run.of(old)[1:] == [FoundWindow(10, 39, 5, (0,))]
    assert [window.rows for window in run.of(new)] == [10, 10, 5]  # those five are as old
    run.add(*(prediction(n, of=new, after=61) for n in range(41, 60)))
    assert [window.rows for window in run.of(new)] == [10, 10, 5, 10, 10]


def test_traffic_of_1_to_99_gives_both_versions_full_windows(random_source: Random) -> None:
    shares = {("m", "1"): 99, ("canary", "1"): 1}
    messages = list(mixed(random_source, shares, 20_000))
    run = Run(make_slicer(50))
    run.add(*messages)
    assert_each_row_is_in_one_window(run, messages, dict.fromkeys(shares, 50))
    assert len(run.of(("canary", "1"))) >= 3
    assert len(to_metadata(run.state)) < 4_096


def test_events_of_different_years_side_by_side_fill_one_window() -> None:
    run = Run(make_slicer(4))
    for offset, year in enumerate((2013, 2026, 2013, 2026)):
        message = prediction(offset)
        assert isinstance(message.event, Prediction)
        event = message.event.model_copy(update={"time": NOON.replace(year=year)})
        run.add(message._replace(event=event))
    assert run.of(("m", "1")) == [FoundWindow(0, 3, 4, ())]


def test_idle_timeout_closes_windows_with_enough_rows_and_leaves_shorter_ones_open() -> None:
    full, short = ("full", "1"), ("short", "1")
    run = Run(make_slicer(10, idle_timeout_seconds=5))
    run.add(*(prediction(n, of=full) for n in range(9)), *(prediction(9 + n, of=short) for n in range(3)))
    run.close(run.slicer.close_idle(5))
    assert run.of(full) == [FoundWindow(0, 11, 9, ())]
    assert run.of(short) == []
    run.add(*(prediction(n, of=short) for n in range(12, 19)), clock=6)
    assert run.of(short) == [FoundWindow(0, 18, 10, ())]


def test_idle_timeout_closes_a_window_that_has_no_row_in_the_open_slice_or_when_there_is_none() -> None:
    full, other = ("full", "1"), ("other", "1")
    run = Run(make_slicer(10, idle_timeout_seconds=5))
    run.add(*(prediction(n, of=full) for n in range(9)), *(prediction(9 + n, of=other) for n in range(10)))
    assert [(closed.slice.first_offset, closed.state.end) for closed in run.slices] == [(0, 19)]
    run.close(run.slicer.close_idle(5))
    assert run.slices[-1].is_empty
    assert run.of(full) == [FoundWindow(0, 18, 9, ())]
    assert run.state == run.slices[0].state._replace(versions=run.state.versions)
    assert run.slicer.close_idle(100) == []


def test_window_of_a_version_that_is_never_seen_again_closes_by_age_with_the_next_message_of_any_version() -> None:
    gone, stays = ("m", "1"), ("m", "2")
    run = Run(make_slicer(10, max_age_seconds=60))
    run.add(*(prediction(n, of=gone) for n in range(3)), *(prediction(3 + n, of=stays) for n in range(10)))
    assert run.state.versions[version_digest(*gone)].open is not None
    run.restart(make_slicer(10, max_age_seconds=60))
    run.add(prediction(13, of=stays, after=61))
    assert run.slices[-1].is_empty
    assert run.of(gone) == [FoundWindow(0, 12, 3, ())]
    assert run.state.end == 13
    assert run.state.versions[version_digest(*gone)].open is None


@pytest.mark.parametrize("restart_after", [1, 7, 40])
def test_next_owner_cuts_the_same_windows(restart_after: int, random_source: Random) -> None:
    lengths = {("a", "1"): 30, ("a", "2"): 70, ("b", "1"): 500}
    messages = [
        message._replace(published_at=float(message.offset))
        for message in mixed(random_source, {("a", "1"): 5, ("a", "2"): 4, ("b", "1"): 1}, 3_000, max_rows=3)
    ]

    def slicer() -> Slicer:
        return make_slicer(1_000, max_age_seconds=900, window_length=lambda model, version, _: lengths[model, version])

    undisturbed = Run(slicer())
    undisturbed.add(*messages)
    restarted = Run(slicer())
    while restarted.slices == [] or restarted.state.end < undisturbed.state.end:
        begin = restarted.state.end if restarted.slices else 0
        target = len(restarted.slices) + restart_after
        for message in messages[begin:]:
            restarted.add(message)
            if len(restarted.slices) >= target:
                break
        restarted.restart(slicer())
    assert restarted.windows == undisturbed.windows
    assert restarted.state == undisturbed.state
    assert {len(undisturbed.of(name)) > 1 for name in lengths} == {True}


def test_window_that_needs_more_slices_than_can_be_listed_closes_early() -> None:
    slow, fast = ("slow", "1"), ("fast", "1")
    run = Run(make_slicer(2, window_length=lambda model, *_: 10 if model == "slow" else 2))
    run.add(prediction(0, of=slow), *(prediction(n, of=fast) for n in range(1, 2 * MAX_SLICES + 10)))
    (early,) = run.of(slow)
    assert (early.first_offset, early.rows) == (0, 1)
    assert run.state.slices[0] > 0
    assert len(run.state.slices) == MAX_SLICES
    run.restart(make_slicer(2))
    assert version_digest(*slow) not in run.state.versions


def test_version_seen_least_recently_is_forgotten_and_its_window_closes_early() -> None:
    names = [(f"model-{number}", "1") for number in range(MAX_VERSIONS + 2)]
    run = Run(make_slicer(2))
    run.add(*(prediction(number, of=name) for number, name in enumerate(names)))
    assert run.slices == []
    run.add(prediction(len(names), of=names[-1]))
    assert [len(run.of(name)) for name in names] == [1, 1, *([0] * (MAX_VERSIONS - 1)), 1]
    assert len(run.state.versions) == MAX_VERSIONS


def test_deleted_offsets_end_the_open_slice_and_the_open_windows() -> None:
    """The broker has deleted the offsets 12 to 29, which a worker that was behind had not read."""
    slow, fast = ("m", "1"), ("m", "2")
    run = Run(make_slicer(10, window_length=lambda _, version, __: 4 if version == "2" else 20))
    run.add(*(prediction(n, of=slow if n % 2 else fast) for n in range(12)))
    run.add(*(prediction(n, of=slow) for n in range(30, 52)))
    assert offsets(run.slices) == [(0, 6, 7), (7, 11, 5), (30, 49, 20)]
    assert run.of(fast) == [FoundWindow(0, 6, 4, ()), FoundWindow(7, 11, 2, (0,))]
    assert run.of(slow) == [FoundWindow(0, 11, 6, ()), FoundWindow(30, 49, 20, ())]
    assert run.state.slices == (30,)


def test_deleted_offsets_are_behind_what_is_committed() -> None:
    run = Run(make_slicer(10))
    run.add(prediction(0), prediction(20))
    (closed,) = run.slices
    assert (closed.state, closed.slice.last_offset) == (PartitionState(20), 0)


def test_transaction_markers_are_no_deleted_offsets() -> None:
    run = Run(make_slicer(4))
    run.add(*(prediction(2 * n, previous_end_offset=max(2 * n - 1, 0)) for n in range(8)))
    assert offsets(run.slices) == [(0, 6, 4), (7, 14, 4)]


def test_gap_before_a_message_ends_the_windows_that_were_open_before() -> None:
    name = version_digest("m", "1")
    slicer = make_slicer(10)
    slicer.resume(PARTITION, PartitionState(10, (0, 5), {name: VersionWindows((0,), OpenWindow(5, 3, 10, 0))}), 0)
    (closed,) = slicer.add(prediction(20), 0)
    assert (closed.is_empty, closed.windows, closed.state) == (True, [ClosedWindow(name, 5, (0,))], PartitionState(20))


def test_gap_before_a_message_forgets_what_was_before() -> None:
    slicer = make_slicer(2)
    slicer.resume(PARTITION, PartitionState(10, (0, 5)), 0)
    (closed,) = [each for offset in (20, 21) for each in slicer.add(prediction(offset), 0)]
    assert closed.state.slices == (20,)
