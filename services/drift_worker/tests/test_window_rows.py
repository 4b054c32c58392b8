"""Test that the rows of windows are equal from memory and from the archive."""

import pandas as pd
import pyarrow as pa
import pytest

from drift_worker.windows import archive
from drift_worker.windows.window_rows import WindowRows
from driftloop.archive.layout import slice_path
from driftloop.archive.partition_state import OpenWindow, PartitionState, VersionWindows, version_digest
from driftloop.drift.cumulated import CumulatedState
from driftloop.events import Window
from driftloop.storage.object_store import ObjectStore
from tests.support.archived_rows import archive_rows, damage

pytest_plugins = "tests.support.drift_windows"

PARTITION = ("predictions", 0)
ONE, TWO, GONE = (version_digest("m", version) for version in "123")
STATE = PartitionState(
    40,
    (0, 10, 20, 30),
    {ONE: VersionWindows((10, 20)), TWO: VersionWindows((), OpenWindow(20, 3, 9, 0))},
)


def window(first: int, last: int, partition: int = 0) -> Window:
    return Window(topic="predictions", partition=partition, first_offset=first, last_offset=last)


def rows(name: str, **counts: int) -> pd.DataFrame:
    """Return rows of versions, such as three of version 1 for ``v1=3``."""
    versions = [version[1:] for version, count in counts.items() for _ in range(count)]
    ids = [f"{name}-{number}" for number in range(len(versions))]
    return pd.DataFrame({"_id": ids, "_model": "m", "_version": versions})


SLICES = {
    window(0, 9): rows("a", v1=3, v2=1, v3=1),
    window(10, 19): rows("b", v1=2, v2=1),
    window(20, 29): rows("c", v2=2, v1=1),
    window(30, 39): rows("d", v1=1, v2=1),
}


SUMS = {  # of version 2 only from before its open window, which another worker does not read
    window(0, 9): {TWO: CumulatedState(windows=1)},
    window(10, 19): {ONE: CumulatedState(windows=4)},
    window(20, 29): {ONE: CumulatedState(windows=5), GONE: CumulatedState(windows=9)},
}


@pytest.fixture(params=["memory", "archive"])
def window_rows(request: pytest.FixtureRequest, store: ObjectStore) -> WindowRows:
    held = WindowRows(store)
    for slice_, frame in SLICES.items():
        sums = SUMS.get(slice_, {})
        archive_rows(store, slice_, archive.with_sums(pa.Table.from_pandas(frame), sums))
        if request.param == "memory":
            held.add(slice_, frame)
            held.keep_sums(slice_, sums)
    archive_rows(store, window(25, 39), rows("orphan", v1=9))
    if request.param == "memory":
        held.add(window(0, 9, partition=1), rows("other partition", v1=1))
        held.drop_unneeded(PARTITION, STATE)
    else:
        held.resume(PARTITION, STATE)
    return held


def found(window_rows: WindowRows, version: str, first_offset: int) -> list[tuple[int, list[str]]]:
    parts = window_rows.of_window(PARTITION, version, first_offset)
    return [(part.slice.first_offset, part.rows["_id"].tolist()) for part in parts]


def test_rows_of_a_window_are_those_of_its_version_by_slice(window_rows: WindowRows) -> None:
    assert found(window_rows, ONE, 10) == [(10, ["b-0", "b-1"]), (20, ["c-2"]), (30, ["d-0"])]
    assert found(window_rows, TWO, 20) == [(20, ["c-0", "c-1"]), (30, ["d-1"])]


def test_rows_that_no_window_needs_are_not_held(window_rows: WindowRows) -> None:
    assert found(window_rows, ONE, 0) == found(window_rows, ONE, 10)
    assert found(window_rows, TWO, 0) == found(window_rows, TWO, 20)
    assert found(window_rows, GONE, 0) == []
    assert window_rows.event_ids(PARTITION) == {"b-0", "b-1", "c-0", "c-1", "c-2", "d-0", "d-1"}


def test_sums_of_a_version_are_those_after_its_latest_window(window_rows: WindowRows) -> None:
    assert window_rows.sums(PARTITION, ONE) == CumulatedState(windows=5)
    assert window_rows.sums(PARTITION, TWO) is None
    assert window_rows.sums(PARTITION, GONE) is None


def test_forgotten_partition_has_no_rows(window_rows: WindowRows) -> None:
    window_rows.forget([PARTITION])
    assert window_rows.event_ids(PARTITION) == set()
    assert window_rows.sums(PARTITION, ONE) is None


def test_slice_without_a_file_has_no_rows(store: ObjectStore) -> None:
    archive_rows(store, window(30, 39), SLICES[window(30, 39)])
    held = WindowRows(store)
    held.resume(PARTITION, STATE)
    assert found(held, ONE, 0) == [(30, ["d-0"])]


def test_slices_are_read_once(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    paths: list[str] = []
    read = ObjectStore.read

    def recording_read(self: ObjectStore, path: str) -> bytes:
        paths.append(path)
        return read(self, path)

    for slice_, frame in SLICES.items():
        archive_rows(store, slice_, frame)
    monkeypatch.setattr(ObjectStore, "read", recording_read)
    held = WindowRows(store)
    held.resume(PARTITION, STATE)
    for _ in range(2):
        held.event_ids(PARTITION)
        found(held, ONE, 0)
    assert sorted(paths) == [slice_path(slice_) for slice_ in list(SLICES)[1:]]


def test_damaged_slice_is_left_out(store: ObjectStore) -> None:
    for slice_, frame in SLICES.items():
        archive_rows(store, slice_, frame)
    damage(store, slice_path(window(20, 29)))
    held = WindowRows(store)
    held.resume(PARTITION, STATE)
    assert found(held, ONE, 10) == [(10, ["b-0", "b-1"]), (30, ["d-0"])]
