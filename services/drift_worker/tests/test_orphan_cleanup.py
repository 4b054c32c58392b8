"""Only what is nobody's is deleted, and only a little at a time."""

import os

import pandas as pd
import pytest

from drift_worker.windows import archive, orphan_cleanup
from drift_worker.windows.orphan_cleanup import REPORT_SCAN_INTERVAL_SECONDS, SCAN_INTERVAL_SECONDS, ArchiveCleaner
from driftloop.errors import StorageUnavailable
from driftloop.events import Window, now
from driftloop.storage.bucket import Bucket

pytest_plugins = "tests.support.drift_windows"

ROWS = pd.DataFrame({"id": ["a"]})
DAY = 86_400


def window(first: int, last: int, partition: int = 0) -> Window:
    return Window(topic="predictions", partition=partition, first_offset=first, last_offset=last)


def archived(bucket: Bucket, *windows: Window) -> None:
    for one in windows:
        archive.write_slice(bucket, one, ROWS)


def left(bucket: Bucket) -> list[tuple[int, int, int]]:
    names = [Window.parse(name) for name in bucket.list_paths("events/predictions/")]
    return [(one.partition, one.first_offset, one.last_offset) for one in names]


class Life:
    """A worker's rounds, a minute each."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self.tidying = ArchiveCleaner(bucket, report_retention_days=90)
        self.clock = 0.0

    def round(self, *closed: Window) -> None:
        archived(self.bucket, *closed)
        for one in closed:
            self.tidying.on_slice_closed(one)
        self.tidying.run_step(self.clock)
        self.clock += SCAN_INTERVAL_SECONDS


@pytest.fixture
def life(bucket: Bucket) -> Life:
    return Life(bucket)


def test_what_a_killed_worker_left_is_deleted_once_the_slices_over_it_are_final(life: Life, bucket: Bucket) -> None:
    archived(bucket, window(0, 9), window(10, 14), window(15, 22), window(40, 44), window(12, 19, partition=1))
    life.round(window(10, 19), window(20, 29))
    assert len(left(bucket)) == 7  # these two may still be refused
    life.clock -= SCAN_INTERVAL_SECONDS
    life.round()
    assert left(bucket) == [(0, 0, 9), (0, 10, 19), (0, 20, 29), (0, 40, 44), (1, 12, 19)]
    life.clock -= SCAN_INTERVAL_SECONDS
    life.round(window(30, 39), window(40, 49))
    life.clock -= SCAN_INTERVAL_SECONDS
    life.round()
    assert left(bucket)[-3:] == [(0, 30, 39), (0, 40, 49), (1, 12, 19)]


def test_what_a_frozen_worker_writes_later_is_deleted_too(life: Life, bucket: Bucket) -> None:
    life.round(window(990, 1009), window(1010, 1029))
    life.round()
    archived(bucket, window(990, 994), window(1010, 1012))
    life.round()
    assert left(bucket) == [(0, 990, 1009), (0, 1010, 1029)]


def test_what_a_dead_worker_was_not_told_of_is_deleted_by_the_next(life: Life, bucket: Bucket) -> None:
    archived(bucket, window(0, 9), window(10, 19), window(12, 19))
    life.tidying.on_assigned(("predictions", 0), [window(0, 9), window(10, 19)])
    life.round()
    assert left(bucket) == [(0, 0, 9), (0, 10, 19)]
    life.round(window(20, 29))
    life.round()
    assert left(bucket) == [(0, 0, 9), (0, 10, 19), (0, 20, 29)]


def test_slices_that_were_not_committed_give_no_right_to_delete(life: Life, bucket: Bucket) -> None:
    life.round(window(0, 9))
    life.tidying.on_revoked([("predictions", 0)])
    archived(bucket, window(0, 4), window(5, 9))
    life.round()
    assert len(left(bucket)) == 3


def test_what_others_made_final_while_the_partition_was_theirs_stays(life: Life, bucket: Bucket) -> None:
    life.round(window(0, 9))
    life.round()
    archived(bucket, window(10, 19))  # and nobody told that the partition was away
    life.round(window(20, 29))
    life.round()
    assert left(bucket) == [(0, 0, 9), (0, 10, 19), (0, 20, 29)]


def test_it_looks_once_a_minute(life: Life, bucket: Bucket) -> None:
    life.round(window(0, 9))
    life.round()
    archived(bucket, window(0, 4))
    life.tidying.run_step(life.clock - 1)
    assert len(left(bucket)) == 2
    life.round()
    assert len(left(bucket)) == 1


@pytest.fixture
def reports(bucket: Bucket, tmp_path: os.PathLike[str]) -> list[str]:
    """More old ones than are deleted at a time, and a new one."""
    paths = [f"reports/a/model/1/{number:03}.html" for number in range(orphan_cleanup.DELETES_PER_STEP + 5)]
    for path in [*paths, "reports/m/1/new.html"]:
        bucket.write(path, b"report")
    for path in paths:
        at = now().timestamp() - 91 * DAY
        os.utime(os.path.join(tmp_path, "bucket", path), (at, at))  # noqa: PTH118
    return paths


def test_old_reports_are_deleted_some_at_a_time(life: Life, bucket: Bucket, reports: list[str]) -> None:
    def there() -> list[str]:
        return [path for path in [*reports, "reports/m/1/new.html"] if bucket.exists(path)]

    life.round()
    assert len(there()) == 6
    life.round()
    assert there() == ["reports/m/1/new.html"]


def test_reports_are_looked_through_once_an_hour(life: Life, bucket: Bucket) -> None:
    asked = []

    def written_before(*_: object) -> list[str]:
        asked.append(life.clock)
        return []

    bucket.list_modified_before = written_before  # type: ignore[method-assign,assignment]
    for _ in range(int(2 * REPORT_SCAN_INTERVAL_SECONDS / SCAN_INTERVAL_SECONDS)):
        life.round()
    assert asked == [0, REPORT_SCAN_INTERVAL_SECONDS]


def test_a_bucket_that_is_away_is_tidied_another_time(life: Life, bucket: Bucket) -> None:
    names = bucket.list_paths

    def away(_: str) -> list[str]:
        raise StorageUnavailable("no answer")

    life.round(window(0, 9))
    bucket.list_paths = away  # type: ignore[method-assign,assignment]
    archived(bucket, window(0, 4))
    life.round()
    bucket.list_paths = names  # type: ignore[method-assign]
    assert len(left(bucket)) == 2
    life.round()
    assert len(left(bucket)) == 1
