"""Test that the windows before a window are equal from memory and from the archive."""

from pathlib import Path

import pandas as pd
import pytest

from drift_worker.windows import archive
from drift_worker.windows.committed_slices import CommittedSlices
from drift_worker.windows.recent_windows import RecentWindows
from driftloop.events import Window
from driftloop.kafka.transactional_producer import CommittedPosition
from driftloop.storage.bucket import Bucket
from tests.support.drift_windows import FolderBucket

pytest_plugins = "tests.support.drift_windows"


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return FolderBucket(tmp_path)


def window(first: int, last: int, partition: int = 0) -> Window:
    return Window(topic="predictions", partition=partition, first_offset=first, last_offset=last)


def rows(name: str, count: int = 3, version: str = "1") -> pd.DataFrame:
    return pd.DataFrame({"_id": [f"{name}-{n}" for n in range(count)], "_model": "m", "_version": version})


def names(frames: list[pd.DataFrame] | None) -> list[str] | None:
    return None if frames is None else [frame["_id"].iloc[0] for frame in frames]


@pytest.fixture
def in_memory(bucket: Bucket) -> RecentWindows:
    """Return three windows without gaps, and one of another partition."""
    recent_windows = RecentWindows(bucket, 3, CommittedSlices().preceding)
    for one, name in ((window(0, 9), "a"), (window(10, 19), "b"), (window(20, 29), "c"), (window(0, 9, 1), "other")):
        archive.write_slice(bucket, one, rows(name))
        recent_windows.add(one, rows(name))
    return recent_windows


@pytest.fixture(params=["memory", "archive"])
def recent_windows(request: pytest.FixtureRequest, bucket: Bucket, in_memory: RecentWindows) -> RecentWindows:
    if request.param == "memory":
        return in_memory
    committed_slices = CommittedSlices()
    committed_slices.restore(("predictions", 0), CommittedPosition(30, "0,10,20"))
    committed_slices.restore(("predictions", 1), CommittedPosition(10, "0"))
    archive.write_slice(bucket, window(25, 29), rows("orphan"))
    return RecentWindows(bucket, 3, committed_slices.preceding)


def test_preceding_rows_are_in_order(recent_windows: RecentWindows) -> None:
    assert names(recent_windows.preceding_rows(window(30, 39), "m", "1", 2)) == ["b-0", "c-0"]
    assert recent_windows.seen_event_ids(window(30, 39)) == {f"{name}-{n}" for name in "bc" for n in range(3)}


def test_no_preceding_rows_across_a_gap(recent_windows: RecentWindows) -> None:
    assert recent_windows.preceding_rows(window(31, 39), "m", "1", 2) is None


def test_no_preceding_rows_if_windows_or_rows_are_too_few(recent_windows: RecentWindows) -> None:
    assert recent_windows.preceding_rows(window(10, 19, 1), "m", "1", 2) is None
    assert recent_windows.preceding_rows(window(30, 39), "m", "2", 2) is None
