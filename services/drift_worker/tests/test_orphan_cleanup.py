"""Test that only orphans and old reports are deleted, and only a few at a time."""

import os

import pandas as pd
import pytest

from drift_worker.windows import orphan_cleanup
from drift_worker.windows.orphan_cleanup import REPORT_SCAN_INTERVAL_SECONDS, SCAN_INTERVAL_SECONDS, ArchiveCleaner
from driftloop.errors import StorageUnavailable
from driftloop.events import Window, now
from driftloop.storage.object_store import ObjectStore
from tests.support.archived_rows import archive_rows

pytest_plugins = "tests.support.drift_windows"

ROWS = pd.DataFrame({"_id": ["a"]})
DAY = 86_400


def window(first: int, last: int, partition: int = 0) -> Window:
    return Window(topic="predictions", partition=partition, first_offset=first, last_offset=last)


def archive_windows(store: ObjectStore, *windows: Window) -> None:
    for one in windows:
        archive_rows(store, one, ROWS)


def remaining(store: ObjectStore) -> list[tuple[int, int, int]]:
    names = [Window.parse(path) for path, *_ in store.list_objects("slices/predictions/")]
    return [(one.partition, one.first_offset, one.last_offset) for one in names]


class CleanerHarness:
    """Runs rounds of the loop, a minute each."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.cleaner = ArchiveCleaner(store, report_retention_days=90)
        self.clock = 0.0

    def round(self, *closed: Window) -> None:
        archive_windows(self.store, *closed)
        for one in closed:
            self.cleaner.on_slice_closed(one)
        self.cleaner.run_step(self.clock)
        self.clock += SCAN_INTERVAL_SECONDS


@pytest.fixture
def harness(store: ObjectStore) -> CleanerHarness:
    return CleanerHarness(store)


def test_cleaner_deletes_orphans_once_overlapping_slices_are_committed(
    harness: CleanerHarness, store: ObjectStore
) -> None:
    archive_windows(store, window(0, 9), window(10, 14), window(15, 22), window(40, 44), window(12, 19, partition=1))
    harness.round(window(10, 19), window(20, 29))
    assert len(remaining(store)) == 7  # these two may still be refused
    harness.clock -= SCAN_INTERVAL_SECONDS
    harness.round()
    assert remaining(store) == [(0, 0, 9), (0, 10, 19), (0, 20, 29), (0, 40, 44), (1, 12, 19)]
    harness.clock -= SCAN_INTERVAL_SECONDS
    harness.round(window(30, 39), window(40, 49))
    harness.clock -= SCAN_INTERVAL_SECONDS
    harness.round()
    assert remaining(store)[-3:] == [(0, 30, 39), (0, 40, 49), (1, 12, 19)]


def test_cleaner_deletes_orphans_that_a_frozen_worker_writes_later(harness: CleanerHarness, store: ObjectStore) -> None:
    harness.round(window(990, 1009), window(1010, 1029))
    harness.round()
    archive_windows(store, window(990, 994), window(1010, 1012))
    harness.round()
    assert remaining(store) == [(0, 990, 1009), (0, 1010, 1029)]


def test_cleaner_deletes_orphans_within_restored_slices(harness: CleanerHarness, store: ObjectStore) -> None:
    archive_windows(store, window(0, 9), window(10, 19), window(12, 19))
    harness.cleaner.on_assigned(("predictions", 0), [window(0, 9), window(10, 19)])
    harness.round()
    assert remaining(store) == [(0, 0, 9), (0, 10, 19)]
    harness.round(window(20, 29))
    harness.round()
    assert remaining(store) == [(0, 0, 9), (0, 10, 19), (0, 20, 29)]


def test_cleaner_keeps_slices_of_another_log(store: ObjectStore) -> None:
    cleaner = ArchiveCleaner(store, 90, is_of_another_log=lambda each: each.first_offset == 5)
    archive_windows(store, window(5, 14), window(12, 19))
    for closed in ([window(0, 9), window(10, 19)], [], []):
        archive_windows(store, *closed)
        for one in closed:
            cleaner.on_slice_closed(one)
        cleaner.run_step(0)
    assert remaining(store) == [(0, 0, 9), (0, 5, 14), (0, 10, 19)]


def test_cleaner_keeps_slices_after_revocation(harness: CleanerHarness, store: ObjectStore) -> None:
    harness.round(window(0, 9))
    harness.cleaner.on_revoked([("predictions", 0)])
    archive_windows(store, window(0, 4), window(5, 9))
    harness.round()
    assert len(remaining(store)) == 3


def test_cleaner_keeps_slices_that_another_worker_committed_meanwhile(
    harness: CleanerHarness, store: ObjectStore
) -> None:
    harness.round(window(0, 9))
    harness.round()
    archive_windows(store, window(10, 19))  # without a call that reports the partition as lost
    harness.round(window(20, 29))
    harness.round()
    assert remaining(store) == [(0, 0, 9), (0, 10, 19), (0, 20, 29)]


def test_cleaner_scans_once_a_minute(harness: CleanerHarness, store: ObjectStore) -> None:
    harness.round(window(0, 9))
    harness.round()
    archive_windows(store, window(0, 4))
    harness.cleaner.run_step(harness.clock - 1)
    assert len(remaining(store)) == 2
    harness.round()
    assert len(remaining(store)) == 1


@pytest.fixture
def reports(store: ObjectStore, tmp_path: os.PathLike[str]) -> list[str]:
    """Return more old reports than are deleted in a step; there is a new one too."""
    paths = [f"reports/a/model/1/{number:03}.html" for number in range(orphan_cleanup.DELETES_PER_STEP + 5)]
    for path in [*paths, "reports/m/1/new.html"]:
        store.write(path, b"report")
    for path in paths:
        at = now().timestamp() - 91 * DAY
        os.utime(os.path.join(tmp_path, "store", path), (at, at))  # noqa: PTH118
    return paths


def test_cleaner_deletes_expired_reports_a_few_at_a_time(
    harness: CleanerHarness, store: ObjectStore, reports: list[str]
) -> None:
    def existing() -> list[str]:
        return [path for path in [*reports, "reports/m/1/new.html"] if store.exists(path)]

    harness.round()
    assert len(existing()) == 6
    harness.round()
    assert existing() == ["reports/m/1/new.html"]


def test_cleaner_lists_reports_once_an_hour(harness: CleanerHarness, store: ObjectStore) -> None:
    listed_at = []

    def written_before(*_: object) -> list[str]:
        listed_at.append(harness.clock)
        return []

    store.list_modified_before = written_before  # type: ignore[method-assign,assignment]
    for _ in range(int(2 * REPORT_SCAN_INTERVAL_SECONDS / SCAN_INTERVAL_SECONDS)):
        harness.round()
    assert listed_at == [0, REPORT_SCAN_INTERVAL_SECONDS]


def test_cleaner_postpones_if_storage_is_unavailable(harness: CleanerHarness, store: ObjectStore) -> None:
    names = store.list_objects

    def unavailable(_: str) -> list[str]:
        raise StorageUnavailable("no answer")

    harness.round(window(0, 9))
    store.list_objects = unavailable  # type: ignore[method-assign,assignment]
    archive_windows(store, window(0, 4))
    harness.round()
    store.list_objects = names  # type: ignore[method-assign]
    assert len(remaining(store)) == 2
    harness.round()
    assert len(remaining(store)) == 1
