"""Properties of slices and windows: they have no gap, and they are the same wherever the worker is killed."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from drift_worker.windows import slicer as slicer_module
from drift_worker.windows.slicer import ClosedSlice, Slicer
from driftloop.archive.partition_state import (
    MAX_SLICES,
    MAX_VERSIONS,
    PRECEDING_WINDOWS,
    OpenWindow,
    PartitionState,
    VersionWindows,
    from_metadata,
    to_metadata,
    version_digest,
)
from driftloop.drift.settings import WindowSettings
from driftloop.events import Prediction
from driftloop.kafka.consumed_message import ConsumedMessage
from tests.support.prediction_streams import KILLS, MESSAGES, PARTITION, VERSIONS, read_through_kills

MAX_METADATA_BYTES = 4_096  # the broker's default of offset.metadata.max.bytes
LENGTHS = {name: 3 + 2 * number for number, name in enumerate(VERSIONS)}
SETTINGS = WindowSettings.model_construct(None, rows=10, idle_timeout_seconds=5, max_age_seconds=60, min_fraction=0.5)
FEW = st.sampled_from([(MAX_SLICES, MAX_VERSIONS), (5, 2)])
"""How many slices and versions a state can name."""


class FoundWindow(NamedTuple):
    """A closed window, and the events of its version in its slices."""

    version: str
    first_offset: int
    end: int
    preceding: tuple[int, ...]
    offsets: tuple[int, ...]


def make_slicer() -> Slicer:
    return Slicer(SETTINGS, lambda *name: LENGTHS[name])


def start(latest: ClosedSlice | None) -> Callable[[ConsumedMessage], Iterable[ClosedSlice]]:
    """Return what handles the messages of a worker that goes on with what is in the latest commit."""
    slicer = make_slicer()
    if latest is not None:
        restored = from_metadata(latest.state.end, to_metadata(latest.state))
        assert restored == latest.state
        assert list(restored.versions) == list(latest.state.versions)
        slicer.resume(PARTITION, restored, 0)
    return lambda message: slicer.add(message, 0)


def read(messages: Sequence[ConsumedMessage], kills: Collection[int] = ()) -> list[ClosedSlice]:
    return list(read_through_kills(messages, start, lambda closed: closed.state.end, kills))


def digest_of(message: ConsumedMessage) -> str | None:
    match message.event:
        case Prediction() as prediction:
            return version_digest(prediction.model, prediction.version, prediction.run_id)
    return None


def windows_of(closed: Sequence[ClosedSlice], messages: Sequence[ConsumedMessage]) -> list[FoundWindow]:
    return [
        FoundWindow(
            window.version,
            window.first_offset,
            each.state.end,
            window.preceding,
            tuple(
                message.offset
                for message in messages
                if digest_of(message) == window.version and window.first_offset <= message.offset < each.state.end
            ),
        )
        for each in closed
        for window in each.windows
    ]


def assert_slices_have_each_message_once(closed: Sequence[ClosedSlice], messages: Sequence[ConsumedMessage]) -> None:
    slices = [each.slice for each in closed if not each.is_empty]
    assert [event for each in slices for event in each.events] == [
        message.event for message in messages if message.event and slices and message.offset <= slices[-1].last_offset
    ]
    assert all(before.last_offset + 1 == after.first_offset for before, after in pairwise(slices))
    assert all(each.state.end == each.slice.last_offset + 1 for each in closed)


def assert_windows_have_each_row_once(closed: Sequence[ClosedSlice], messages: Sequence[ConsumedMessage]) -> None:
    """Check that windows and open windows have all committed rows of a version, and begin and end with slices."""
    windows = windows_of(closed, messages)
    state = closed[-1].state if closed else PartitionState(0)
    found = Counter[tuple[str | None, int]]((window.version, offset) for window in windows for offset in window.offsets)
    for digest, of_version in state.versions.items():
        if of_version.open is not None:
            found.update(
                (digest, message.offset)
                for message in messages
                if digest_of(message) == digest and of_version.open.first_offset <= message.offset < state.end
            )
    committed = [message for message in messages if message.offset < state.end and message.event is not None]
    assert found == Counter((digest_of(message), message.offset) for message in committed)
    begins = {each.slice.first_offset for each in closed}
    for version in {window.version for window in windows}:
        same = [window for window in windows if window.version == version]
        assert {window.first_offset for window in same} <= begins
        for number, window in enumerate(same):
            before = tuple(each.first_offset for each in same[max(0, number - PRECEDING_WINDOWS) : number])
            assert window.preceding == before[len(before) - len(window.preceding) :]


@settings(max_examples=60)
@given(messages=MESSAGES, limits=FEW)
def test_each_message_is_in_one_slice_and_each_row_in_one_window_of_its_version(
    messages: list[ConsumedMessage], limits: tuple[int, int]
) -> None:
    with patch.multiple(slicer_module, MAX_SLICES=limits[0], MAX_VERSIONS=limits[1]):
        closed = read(messages)
    assert_slices_have_each_message_once(closed, messages)
    assert_windows_have_each_row_once(closed, messages)


@settings(max_examples=60)
@given(messages=MESSAGES, kills=KILLS, limits=FEW)
def test_slices_and_windows_are_the_same_wherever_the_worker_is_killed(
    messages: list[ConsumedMessage], kills: set[int], limits: tuple[int, int]
) -> None:
    with patch.multiple(slicer_module, MAX_SLICES=limits[0], MAX_VERSIONS=limits[1]):
        undisturbed, killed = read(messages), read(messages, kills)
    assert [each.slice.window for each in killed if not each.is_empty] == [
        each.slice.window for each in undisturbed if not each.is_empty
    ]
    assert [each.state for each in killed] == [each.state for each in undisturbed]
    assert windows_of(killed, messages) == windows_of(undisturbed, messages)


@settings(max_examples=60)
@given(messages=MESSAGES, pauses=st.lists(st.integers(0, 6), min_size=10, max_size=10))
def test_each_row_is_in_one_slice_and_window_whatever_pauses_there_are(
    messages: list[ConsumedMessage], pauses: list[int]
) -> None:
    slicer, clock = make_slicer(), 0.0
    closed: list[ClosedSlice] = []
    for number, message in enumerate(messages):
        clock += pauses[number % len(pauses)]
        closed += [*slicer.close_idle(clock), *slicer.add(message, clock)]
    closed += slicer.close_idle(clock + SETTINGS.idle_timeout_seconds)
    assert_slices_have_each_message_once(closed, messages)
    assert_windows_have_each_row_once(closed, messages)


@st.composite
def states(draw: st.DrawFn) -> PartitionState:
    """Return states as a slicer makes them, of offsets and rows as large as they get."""
    slices = [draw(st.integers(0, 2**50))]
    for length in draw(st.lists(st.integers(1, 10**7), max_size=MAX_SLICES - 1)):
        slices.append(slices[-1] + length)
    begins = st.lists(st.sampled_from(slices), min_size=1, max_size=PRECEDING_WINDOWS + 1, unique=True).map(sorted)
    numbers = st.integers(1, 36**4 - 1)
    versions = {}
    for number in range(draw(st.integers(0, MAX_VERSIONS))):
        *preceding, last = draw(begins)
        is_open = len(preceding) == PRECEDING_WINDOWS or draw(st.booleans())
        opened = OpenWindow(last, draw(numbers), draw(numbers), draw(st.integers(0, 36**6 - 1))) if is_open else None
        windows = VersionWindows(tuple(preceding) if is_open else (*preceding, last), opened)
        versions[version_digest("m", str(number))] = windows
    return PartitionState(slices[-1] + draw(st.integers(1, 10**7)), tuple(slices), versions)


@settings(max_examples=50)
@given(state=states())
def test_state_is_read_from_metadata_that_the_broker_accepts(state: PartitionState) -> None:
    metadata = to_metadata(state)
    assert len(metadata.encode()) <= MAX_METADATA_BYTES
    restored = from_metadata(state.end, metadata)
    assert (restored, list(restored.versions)) == (state, list(state.versions))


@given(offset=st.integers(0, 2**63 - 1), metadata=st.text("0123AZ,;.+", max_size=30) | st.text(max_size=30))
def test_any_other_metadata_is_a_state_that_can_be_written(offset: int, metadata: str) -> None:
    state = from_metadata(offset, metadata)
    assert state.end == offset
    assert from_metadata(offset, to_metadata(state)) == state
