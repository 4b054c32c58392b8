"""Which slices are merged into a file: the same whoever merges, and whenever."""

import os
import random
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import pytest

from driftloop.archive import scratch
from driftloop.archive.layout import ArchivedFile, list_all_merged, merged_path
from driftloop.archive.merging import (
    MergeLimits,
    choose_full,
    choose_oldest,
    delete_files,
    list_partition,
    merge_slices,
    plan_merges,
)
from driftloop.events import Window
from driftloop.storage.object_store import ObjectStore
from tests.support.archived_rows import archive_rows
from tests.support.archived_slices import (
    BEGIN,
    TOPIC,
    archive_slices,
    expected_ids,
    read_ids,
    slice_rows,
    slice_window,
)
from tests.support.folder_store import folder_store

PARTITION = (TOPIC, 0)
LIMITS = MergeLimits(slices=10)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return folder_store(tmp_path / "store")


def merge_all(store: ObjectStore, end: int, *, is_patient: bool = False) -> None:
    """Merge the slices before an offset as the command does, or as the drift worker does, which is patient."""
    has_merged = True
    while has_merged:
        files = list_partition(store, PARTITION)
        delete_files(store, files.leftovers)
        final = files.final_slices(0, end)
        chosen = choose_full(final, LIMITS) if is_patient else choose_oldest(final, LIMITS)
        following = next(iter(files.slices[len(chosen) :]), None)
        has_merged = bool(list(merge_slices(store, chosen, following, LIMITS)))


def merged_windows(store: ObjectStore) -> list[Window]:
    windows = [file.window for file in list_all_merged(store, TOPIC)]
    return sorted(windows, key=lambda window: window.first_offset)


def archived(*sizes: int) -> list[ArchivedFile]:
    return [ArchivedFile(str(number), slice_window(number), size, BEGIN) for number, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("sizes", "chosen"),
    [((), 0), ((1, 1, 1), 0), ((1,) * 5, 4), ((60, 60, 1), 2), ((200, 1, 1), 1), ((1, 1, 100), 3), ((1, 1, 97), 0)],
)
def test_so_many_are_merged_that_there_are_enough_or_that_they_are_large_enough(
    sizes: Sequence[int], chosen: int
) -> None:
    assert choose_full(archived(*sizes), MergeLimits(slices=4, size=100)) == archived(*sizes)[:chosen]


def test_last_day_waits_until_it_is_over_or_full(store: ObjectStore) -> None:
    archive_slices(store, range(20, 30))  # four of the first day, six of the next
    merge_all(store, 10_000)
    assert merged_windows(store) == [slice_window(20, 23)]
    archive_slices(store, range(30, 35))
    merge_all(store, 10_000)
    assert merged_windows(store) == [slice_window(20, 23), slice_window(24, 33)]  # ten are enough
    archive_slices(store, range(35, 49))
    merge_all(store, 10_000)
    assert merged_windows(store)[2:] == [slice_window(34, 43), slice_window(44, 47)]
    assert read_ids(store) == expected_ids(range(20, 49))


def test_slice_after_the_final_ones_says_that_their_day_is_over(store: ObjectStore) -> None:
    archive_slices(store, range(20, 26))
    merge_all(store, 240)  # slice 24, of the next day, is not final
    assert merged_windows(store) == [slice_window(20, 23)]


def test_files_have_the_same_bounds_whoever_merges_when(tmp_path: Path, random_source: random.Random) -> None:
    bounds = []
    for number in range(4):
        store = folder_store(tmp_path / str(number))
        steps = sorted(random_source.sample(range(1, 100), 7)) if number else []
        for begin, end in zip([0, *steps], [*steps, 100], strict=True):
            archive_slices(store, range(begin, end))
            final = random_source.randint(begin, end) * 10 if number else end * 10
            merge_all(store, final, is_patient=random_source.random() < 0.5)
        merge_all(store, 1_000)
        assert read_ids(store) == expected_ids(range(100))
        bounds.append(merged_windows(store))
    assert all(each == bounds[0] for each in bounds[1:])


def test_plan_is_what_is_merged(store: ObjectStore) -> None:
    archive_slices(store, range(60))
    files = list_partition(store, PARTITION)
    planned = [each.window for each in plan_merges(store, files.final_slices(5, 1_000), files.slices, LIMITS)]
    assert len(planned) == 6
    has_merged = True
    while has_merged:
        files = list_partition(store, PARTITION)
        chosen = choose_oldest(files.final_slices(5, 1_000), LIMITS)
        has_merged = bool(list(merge_slices(store, chosen, files.slices[len(chosen)], LIMITS)))
    assert merged_windows(store) == planned


def test_frozen_process_that_goes_on_later_leaves_each_row_once(store: ObjectStore) -> None:
    """It has read slices that others have merged since, together with later ones."""
    archive_slices(store, range(40))
    files = list_partition(store, PARTITION)
    calls: list[None] = []

    def merged_by_others() -> bool:
        calls.append(None)
        if len(calls) == 12:  # ten slices are read, and the file is not written yet
            merge_all(store, 1_000)
        return True

    frozen = merge_slices(store, files.slices[:10], files.slices[10], LIMITS, merged_by_others)
    assert [each.slices.window for each in frozen] == [slice_window(0, 9)]
    assert read_ids(store) == expected_ids(range(40))
    merge_all(store, 1_000)
    assert read_ids(store) == expected_ids(range(40))


def test_slices_with_the_same_offsets_come_into_one_file(store: ObjectStore) -> None:
    """An orphan lies across the end of a file and of a day."""
    archive_slices(store, range(14, 30))
    orphan = Window(topic=TOPIC, partition=0, first_offset=235, last_offset=242)
    rows = [row for number in (23, 24) for row in slice_rows(number).to_dict("records") if 235 <= row["_offset"] <= 242]
    archive_rows(store, orphan, pd.DataFrame(rows), date(2026, 11, 1))
    merge_all(store, 10_000)
    assert merged_windows(store)[0] == slice_window(14, 24)
    assert read_ids(store) == expected_ids(range(14, 30))


def test_slice_without_a_day_is_of_the_day_on_which_it_was_written(store: ObjectStore) -> None:
    for number in range(10):
        store.write_parquet(f"slices/{TOPIC}/{slice_window(number).name}.parquet", slice_rows(number))
    merge_all(store, 10_000)
    (file,) = list_all_merged(store, TOPIC)
    assert file.path == merged_path(slice_window(0, 9), datetime.now(UTC).date())


def test_folder_of_a_killed_process_is_removed_and_that_of_a_living_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "gettempdir", lambda: str(tmp_path))
    code = """
import os
from driftloop.archive.scratch import MERGE, scratch_folder
with scratch_folder(MERGE) as folder:
    (folder / "slice.parquet").write_bytes(b"rows")
    print(folder, flush=True)
    input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        scratch.remove_abandoned_folders(scratch.MERGE)
        assert (folder / "slice.parquet").exists()
        process.kill()
        process.wait()
    scratch.remove_abandoned_folders(scratch.MERGE)
    assert not folder.exists()


def test_scratch_folder_is_gone_after_its_block() -> None:
    with scratch.scratch_folder(scratch.MERGE) as folder:
        assert folder.is_dir()
    assert not folder.exists()
