"""The windows before a window are the same from memory and from the archive."""

from pathlib import Path

import pandas as pd
import pytest

from drift_worker.windows import archive
from drift_worker.windows.committed_slices import CommittedSlices
from drift_worker.windows.recent_windows import RecentWindows
from driftloop.events import Window
from driftloop.kafka.transactional_producer import CommittedPosition
from driftloop.storage.bucket import Bucket
from tests.support.drift_windows import Folder

pytest_plugins = "tests.support.drift_windows"


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return Folder(tmp_path)


def window(first: int, last: int, partition: int = 0) -> Window:
    return Window(topic="predictions", partition=partition, first_offset=first, last_offset=last)


def rows(name: str, count: int = 3, version: str = "1") -> pd.DataFrame:
    return pd.DataFrame({"id": [f"{name}-{n}" for n in range(count)], "model": "m", "version": version})


def names(frames: list[pd.DataFrame] | None) -> list[str] | None:
    return None if frames is None else [frame["id"].iloc[0] for frame in frames]


@pytest.fixture
def kept(bucket: Bucket) -> RecentWindows:
    """Three windows that follow one another, and one of another partition."""
    history = RecentWindows(bucket, 3, CommittedSlices().preceding)
    for one, name in ((window(0, 9), "a"), (window(10, 19), "b"), (window(20, 29), "c"), (window(0, 9, 1), "other")):
        archive.write_slice(bucket, one, rows(name))
        history.add(one, rows(name))
    return history


@pytest.fixture(params=["memory", "archive"])
def history(request: pytest.FixtureRequest, bucket: Bucket, kept: RecentWindows) -> RecentWindows:
    if request.param == "memory":
        return kept
    finals = CommittedSlices()
    finals.restore(("predictions", 0), CommittedPosition(30, "0,10,20"))
    finals.restore(("predictions", 1), CommittedPosition(10, "0"))
    archive.write_slice(bucket, window(25, 29), rows("left by a killed worker"))
    return RecentWindows(bucket, 3, finals.preceding)


def test_the_latest_windows_come_in_their_order(history: RecentWindows) -> None:
    assert names(history.preceding_rows(window(30, 39), "m", "1", 2)) == ["b-0", "c-0"]
    assert history.seen_event_ids(window(30, 39)) == {f"{name}-{n}" for name in "bc" for n in range(3)}


def test_a_gap_ends_what_came_before(history: RecentWindows) -> None:
    assert history.preceding_rows(window(31, 39), "m", "1", 2) is None


def test_too_few_windows_or_rows_of_the_version_are_no_history(history: RecentWindows) -> None:
    assert history.preceding_rows(window(10, 19, 1), "m", "1", 2) is None
    assert history.preceding_rows(window(30, 39), "m", "2", 2) is None
