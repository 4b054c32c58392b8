"""The process that merges, and the one that has started it, are killed; each row is read once at every moment."""

import os
import random
import time
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

import psutil
import pytest

from drift_worker.windows import merge_process
from driftloop.archive.layout import list_all_merged
from driftloop.archive.merging import choose_full, delete_files, list_partition
from driftloop.storage.object_store import ObjectStore
from tests.support.archive_processes import (
    KEPT_SLICES,
    LIMITS,
    OFFSETS,
    PARTITION,
    ROWS,
    TOPIC,
    merge_once,
    read_rows,
    write_slice,
)
from tests.support.folder_store import folder_store
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

KILLS, SLICES_PER_KILL = 30, 12
MAX_SECONDS = 4.0  # until a kill; a process takes half of that to start
END_SECONDS = 60

processes = get_context("forkserver")
processes.set_forkserver_preload([merge_process.__name__])


def merge_for_ever(folder: Path) -> None:
    """Merge what can be merged, as the drift worker does, again and again."""
    os.environ["DRIFTLOOP_STORAGE__URL"] = folder.as_uri()
    store = folder_store(folder)
    while True:
        with suppress(ChildProcessError):  # it was killed
            files = list_partition(store, (TOPIC, PARTITION))
            delete_files(store, files.leftovers)
            chosen = choose_full(files.final_slices(KEPT_SLICES, 10**9), LIMITS)
            following = files.slices[len(chosen)] if len(chosen) < len(files.slices) else None
            list(merge_process.merge_in_process(chosen, following, LIMITS))


@pytest.mark.timeout(900)
def test_each_row_is_read_once_whichever_process_is_killed(tmp_path: Path, random_source: random.Random) -> None:
    folder = tmp_path / "store"
    store = folder_store(folder)
    killed = {"parent": 0, "merge": 0}
    for kill in range(KILLS):
        for number in range(kill * SLICES_PER_KILL, (kill + 1) * SLICES_PER_KILL):
            write_slice(store, number)
        count = (kill + 1) * SLICES_PER_KILL
        parent = processes.Process(target=merge_for_ever, args=(folder,))
        parent.start()
        assert parent.pid is not None
        deadline = time.monotonic() + random_source.uniform(0, MAX_SECONDS)
        while time.monotonic() < deadline:
            require_rows(store, count)
        merges = psutil.Process(parent.pid).children()
        victim = random_source.choice(["parent", "merge"]) if merges else "parent"
        killed[victim] += 1
        if victim == "merge":
            merges[0].kill()
            require_rows(store, count)
        parent.kill()
        parent.join()

        def is_over(merges: list[psutil.Process] = merges, count: int = count) -> bool | None:
            require_rows(store, count)
            return not any(merge.is_running() for merge in merges) or None

        wait_until(is_over, "the process that merges has ended, too", END_SECONDS)

    print(f"killed: {killed}, merged files: {len(list_all_merged(store, TOPIC))}")
    assert min(killed.values()) > 0
    assert list_all_merged(store, TOPIC), "nothing was merged before the end"
    while merge_once(store):
        pass
    require_rows(store, KILLS * SLICES_PER_KILL)


def require_rows(store: ObjectStore, slices: int) -> None:
    """Check that a reader finds each row of the slices once."""
    found = sorted(read_rows(store))
    assert found == [(offset, row) for offset in range(slices * OFFSETS) for row in range(ROWS)]
