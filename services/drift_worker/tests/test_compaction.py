"""Merging slices: each row is read once at every moment, whenever a worker is killed."""

import json
import random
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prometheus_client import REGISTRY

from drift_worker.windows import archive
from drift_worker.windows.compaction import Compactor
from driftloop.archive.file_metadata import SUMS_BY_END_KEY
from driftloop.archive.layout import list_all_merged, list_files, list_slices, slice_path
from driftloop.archive.merging import MergeLimits, merge_slices
from driftloop.archive.partition_state import OpenWindow, PartitionState, VersionWindows
from driftloop.archive.rows import read_rows
from driftloop.drift.cumulated import CumulatedState
from driftloop.errors import ArchiveUnreadable, StorageUnavailable
from driftloop.events import Window
from driftloop.storage.object_store import ObjectStore
from tests.support.archived_rows import archive_rows, damage

pytest_plugins = "tests.support.drift_windows"

TOPIC, PARTITION = "predictions", ("predictions", 0)
BEGIN = datetime(2026, 11, 28, 22, tzinfo=UTC)
OFFSETS = 10
"""Of a slice, with a row each."""


def window(number: int, last: int | None = None) -> Window:
    end = (number if last is None else last) * OFFSETS + OFFSETS - 1
    return Window(topic=TOPIC, partition=0, first_offset=number * OFFSETS, last_offset=end)


def rows_of(number: int) -> pd.DataFrame:
    offsets = range(number * OFFSETS, (number + 1) * OFFSETS)
    return pd.DataFrame(
        {
            "_id": [f"event-{offset}" for offset in offsets],
            "_row": 0,
            "_time": [pd.Timestamp(BEGIN + timedelta(hours=number, seconds=-offset)) for offset in offsets],
            "_model": "m",
            "_version": "1" if number % 2 else "2",
            "_offset": list(offsets),
            "x": [float(offset) if number % 3 else None for offset in offsets],
        }
    ).assign(**({"late_column": "a"} if number > 3 else {}))


def fill(store: ObjectStore, count: int) -> None:
    for number in range(count):
        day = (BEGIN + timedelta(hours=number)).date()
        table = pa.Table.from_pandas(rows_of(number), preserve_index=False)
        sums = {"ABC123": CumulatedState(windows=number)} if number % 2 else {}
        archive_rows(store, window(number), archive.with_sums(table, sums), day)


def compactor(store: ObjectStore, *, kept: int = 2, slices: int = 2, end: int = 10_000) -> Compactor:
    made = Compactor(store, kept, partial(merge_slices, store), MergeLimits(slices))
    made.on_assigned(PARTITION, PartitionState(end))
    return made


def run(made: Compactor) -> None:
    made.run_pass(lambda: None)


def read_all(store: ObjectStore) -> list[str]:
    """Return the ids of the archive's rows, as often as they are read."""
    return sorted(str(each) for file in list_files(store, TOPIC) for each in store.read_parquet(file.path)["_id"])


def ids(count: int) -> list[str]:
    return sorted(f"event-{offset}" for offset in range(count * OFFSETS))


def test_slices_of_a_day_become_one_file_in_the_order_of_time(store: ObjectStore) -> None:
    fill(store, 6)
    run(compactor(store))
    assert [(file.day, file.window) for file in list_all_merged(store, TOPIC)] == [
        (date(2026, 11, 28), window(0, 1)),
        (date(2026, 11, 29), window(2, 3)),
    ]
    assert [file.window for file in list_slices(store, TOPIC)] == [window(4), window(5)]
    merged = store.read_parquet(list_all_merged(store, TOPIC)[1].path)
    assert merged["_time"].is_monotonic_increasing
    assert merged["_offset"].tolist() != sorted(merged["_offset"])
    assert read_all(store) == ids(6)


def test_rows_of_a_window_are_the_same_before_and_after(store: ObjectStore) -> None:
    fill(store, 8)
    windows = [window(0), window(1, 2), window(3, 6), window(6, 7)]
    before = [read_rows(store, each) for each in windows]
    versions = archive.read_window(store, window(0, 7), "m", "1")
    run(compactor(store))
    for each, rows in zip(windows, before, strict=True):
        pd.testing.assert_frame_equal(read_rows(store, each)[rows.columns], rows, check_dtype=False)
    merged = archive.read_window(store, window(0, 7), "m", "1")
    assert merged["_id"].tolist() == versions["_id"].tolist()


@pytest.mark.parametrize(
    "values",
    [
        ([1.5], [pd.Timestamp("2026-01-02", tz="UTC")]),
        ([True], [pd.Timestamp("2026-01-02", tz="UTC")]),
        ([pd.Timestamp("2026-01-02", tz="UTC")], [7]),
        ([7], ["seven"]),
        ([None], [pd.Timestamp("2026-01-02", tz="UTC")]),
    ],
    ids=["number, time", "boolean, time", "time, integer", "integer, text", "nothing, time"],
)
def test_column_whose_type_changes_is_merged_as_text(store: ObjectStore, values: tuple[list[Any], ...]) -> None:
    for number, [value] in enumerate(values):
        archive_rows(store, window(number), rows_of(number).assign(changing=value), BEGIN.date())
    archive_rows(store, window(2), rows_of(2), BEGIN.date())
    archive_rows(store, window(3), rows_of(3), BEGIN.date())
    run(compactor(store))
    (merged,) = list_all_merged(store, TOPIC)
    rows = store.read_parquet(merged.path).sort_values("_offset")
    assert read_all(store) == ids(4)
    assert rows["changing"].notna().sum() == OFFSETS * sum(value is not None for [value] in values)
    assert list(rows.columns) == [*rows_of(0).columns, "changing"]


@pytest.mark.parametrize("is_damaged", [True, False])
def test_unreadable_slice_stops_its_partition_alone(store: ObjectStore, *, is_damaged: bool) -> None:
    fill(store, 6)
    for number in range(6):
        other = window(number).model_copy(update={"partition": 1})
        archive_rows(store, other, rows_of(number), BEGIN.date())
    if is_damaged:
        damage(store, slice_path(window(0)))
    else:
        store.write(slice_path(window(0)), b"no Parquet file")
    made = compactor(store)
    made.on_assigned(("predictions", 1), PartitionState(10_000))
    with pytest.raises(ArchiveUnreadable, match=window(0).name):
        run(made)
    assert {file.window.partition for file in list_all_merged(store, TOPIC)} == {1}


def test_sums_of_each_slice_stay(store: ObjectStore) -> None:
    fill(store, 6)
    run(compactor(store))
    sums = [archive.read_sums_at(store, window(0, number)) for number in range(6)]
    assert [found["ABC123"].windows if found else None for found in sums] == [None, 1, None, 3, None, 5]


@pytest.mark.parametrize(
    ("state", "merged"),
    [
        (PartitionState(60), [window(0, 1), window(2, 3)]),
        (PartitionState(10), []),
        (PartitionState(60, (0, 10, 20, 30, 40), {"A": VersionWindows((10,), OpenWindow(40, 5, 9, 0))}), []),
    ],
    ids=["committed", "not committed", "a window before the open one has a slice of them"],
)
def test_only_final_slices_are_merged(store: ObjectStore, state: PartitionState, merged: list[Window]) -> None:
    fill(store, 6)
    made = Compactor(store, 2, partial(merge_slices, store), MergeLimits(2))
    made.on_assigned(PARTITION, state)
    run(made)
    assert [file.window for file in list_all_merged(store, TOPIC)] == merged


def test_slice_is_final_in_the_round_after_its_commit(store: ObjectStore) -> None:
    fill(store, 6)
    made = compactor(store, end=0)
    made.on_slice_closed(window(5), PartitionState(60))
    for expected in ([], [], [window(0, 1), window(2, 3)]):
        run(made)
        assert [file.window for file in list_all_merged(store, TOPIC)] == expected
        made.run_step()


def test_partition_of_another_worker_is_not_merged(store: ObjectStore) -> None:
    fill(store, 6)
    made = compactor(store)
    made.on_revoked([PARTITION])
    run(made)
    assert list_all_merged(store, TOPIC) == []


def test_latest_slices_and_too_few_are_left_alone(store: ObjectStore) -> None:
    fill(store, 3)
    run(compactor(store))
    assert list_all_merged(store, TOPIC) == []
    run(compactor(store, kept=1))
    assert [file.window for file in list_slices(store, TOPIC)] == [window(2)]


def test_rows_of_an_orphan_are_merged_once(store: ObjectStore) -> None:
    fill(store, 6)
    both = pd.concat([rows_of(0), rows_of(1)])
    orphan = Window(topic=TOPIC, partition=0, first_offset=5, last_offset=12)
    archive_rows(store, orphan, both[both["_offset"].between(5, 12)], BEGIN.date())
    run(compactor(store))
    assert read_all(store) == ids(6)


def test_merged_slices_are_counted(store: ObjectStore) -> None:
    fill(store, 6)

    def sample(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(name, {"topic": TOPIC, **labels}) or 0.0

    before = sample("driftloop_archive_merged_slices_total")
    run(compactor(store))
    assert sample("driftloop_archive_merged_slices_total") - before == 4
    assert sample("driftloop_archive_files", partition="0", kind="slice") == 2
    assert sample("driftloop_archive_files", partition="0", kind="merged") == 2


class Killed(BaseException):
    """The process was killed."""


class Interrupted:
    """Kills whoever writes or deletes for the n-th time, before or after it is done."""

    def __init__(self, store: ObjectStore, monkeypatch: pytest.MonkeyPatch, at: int, *, is_done: bool) -> None:
        self.left = at
        for name in ("write", "delete"):
            monkeypatch.setattr(store, name, self._wrap(getattr(store, name), is_done=is_done))

    def _wrap(self, method: Callable[..., None], *, is_done: bool) -> Callable[..., None]:
        def call(*arguments: object) -> None:
            self.left -= 1
            if self.left == 0 and not is_done:
                raise Killed
            if self.left >= 0:
                method(*arguments)
            if self.left == 0:
                raise Killed
            if self.left < 0:
                raise Killed  # other threads of the same process

        return call


def test_kill_at_any_moment_leaves_each_row_once_and_the_next_worker_ends_it(
    store: ObjectStore, random_source: random.Random
) -> None:
    fill(store, 14)
    for kill in range(30):
        with pytest.MonkeyPatch.context() as patch:
            Interrupted(store, patch, random_source.randint(1, 12), is_done=random_source.random() < 0.5)
            try:
                run(compactor(store))
                is_killed = False
            except Killed:
                is_killed = True
        assert read_all(store) == ids(14), f"after kill {kill}"
        if not is_killed:
            break
    run(compactor(store))
    assert read_all(store) == ids(14)
    assert len(list_slices(store, TOPIC)) < 6
    for file in list_all_merged(store, TOPIC):
        assert pq.read_metadata(pa.BufferReader(store.read(file.path))).num_rows >= OFFSETS


def test_two_workers_that_merge_the_same_slices_leave_each_row_once(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one is frozen before its write, and goes on after the second one has finished."""
    fill(store, 8)
    frozen = compactor(store)
    write = store.write

    def run_the_other(path: str, content: bytes) -> None:
        monkeypatch.setattr(store, "write", write)
        run(compactor(store))
        write(path, content)

    monkeypatch.setattr(store, "write", run_the_other)
    run(frozen)
    assert read_all(store) == ids(8)


def test_longer_file_of_another_worker_wins(store: ObjectStore) -> None:
    fill(store, 10)
    run(compactor(store, slices=2))
    shorter = {file.path: store.read(file.path) for file in list_all_merged(store, TOPIC)}
    fill(store, 10)
    for path in shorter:
        store.delete(path)
    run(compactor(store, slices=6))
    for path, content in shorter.items():
        store.write(path, content)
    assert read_all(store) == ids(10)
    run(compactor(store, slices=6))
    assert {file.path for file in list_all_merged(store, TOPIC)} == {file.path for file in list_files(store, TOPIC)} - {
        file.path for file in list_slices(store, TOPIC)
    }


def test_slices_of_a_topic_that_was_made_again_are_not_taken_for_leftovers(store: ObjectStore) -> None:
    fill(store, 6)
    run(compactor(store))
    archive_rows(store, window(0), rows_of(0).assign(_id="new"), BEGIN.date())  # the new log begins at 0
    run(compactor(store, end=0))
    assert read_all(store).count("new") == OFFSETS
    assert window(0) in [file.window for file in list_slices(store, TOPIC)]


def test_unavailable_store_ends_the_pass_and_the_next_one_goes_on(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, 6)
    with monkeypatch.context() as patch:

        def fail(*_: object) -> None:
            raise StorageUnavailable("away")

        patch.setattr(store, "write", fail)
        with pytest.raises(StorageUnavailable):
            run(compactor(store))
    assert read_all(store) == ids(6)
    run(compactor(store))
    assert len(list_all_merged(store, TOPIC)) == 2


def test_metadata_of_a_merged_file_is_json(store: ObjectStore) -> None:
    fill(store, 6)
    run(compactor(store))
    schema = pq.read_schema(pa.BufferReader(store.read(list_all_merged(store, TOPIC)[0].path)))
    assert set(json.loads((schema.metadata or {})[SUMS_BY_END_KEY])) == {"19"}


def expiring(store: ObjectStore, days: int = 1) -> Compactor:
    """Return a compactor on the second day of slices after those that begin on the 28th, which keeps some days."""
    at = datetime(2026, 11, 30, 12, tzinfo=UTC)
    made = Compactor(store, 2, partial(merge_slices, store), MergeLimits(2), {TOPIC: days}, clock=lambda: at)
    made.on_assigned(PARTITION, PartitionState(10_000))
    return made


def test_files_and_final_slices_of_expired_days_are_deleted_and_counted(store: ObjectStore) -> None:
    fill(store, 8)  # two of the 28th, six of the 29th
    labels = {"topic": TOPIC}
    before = REGISTRY.get_sample_value("driftloop_archive_expired_files_total", labels) or 0
    run(expiring(store, days=2))
    assert read_all(store) == ids(8)
    run(expiring(store, days=1))
    assert read_all(store) == sorted(f"event-{offset}" for offset in range(20, 80))
    assert REGISTRY.get_sample_value("driftloop_archive_expired_files_total", labels) == before + 1
    bytes_of = {
        kind: REGISTRY.get_sample_value("driftloop_archive_bytes", {**labels, "partition": "0", "kind": kind})
        for kind in ("slice", "merged")
    }
    assert bytes_of == {
        "slice": sum(file.size for file in list_slices(store, TOPIC)),
        "merged": sum(file.size for file in list_all_merged(store, TOPIC)),
    }


def test_latest_slices_stay_whatever_their_age(store: ObjectStore) -> None:
    fill(store, 3)
    made = Compactor(
        store,
        2,
        partial(merge_slices, store),
        MergeLimits(2),
        {TOPIC: 1},
        clock=lambda: datetime(2027, 6, 1, tzinfo=UTC),
    )
    made.on_assigned(PARTITION, PartitionState(10_000))
    run(made)
    assert [file.window for file in list_slices(store, TOPIC)] == [window(1), window(2)]


def test_two_owners_at_once_delete_what_has_expired_and_nothing_else(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one is frozen before it writes a file of an expired day, and goes on after the second one."""
    fill(store, 8)
    frozen = compactor(store)
    write = store.write

    def run_the_other(path: str, content: bytes) -> None:
        monkeypatch.setattr(store, "write", write)
        run(expiring(store))
        write(path, content)

    monkeypatch.setattr(store, "write", run_the_other)
    run(frozen)
    run(expiring(store))
    assert read_all(store) == sorted(f"event-{offset}" for offset in range(20, 80))


def test_rows_that_expired_are_not_read_again_if_a_worker_is_killed(
    store: ObjectStore, random_source: random.Random
) -> None:
    fill(store, 14)
    kept = set(ids(14)) - set(ids(2))
    has_expired = False
    for _ in range(20):
        with pytest.MonkeyPatch.context() as patch:
            Interrupted(store, patch, random_source.randint(1, 6), is_done=random_source.random() < 0.5)
            with suppress(Killed):
                run(expiring(store))
        found = read_all(store)
        assert len(found) == len(set(found))
        assert kept <= set(found)
        assert not has_expired or set(found) == kept
        has_expired = set(found) == kept
    run(expiring(store))
    assert read_all(store) == sorted(kept)
