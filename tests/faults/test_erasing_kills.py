"""An archive that is erased, merged and read at the same time, while whoever erases or merges is killed."""

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from driftloop.archive import erasures
from driftloop.archive.erasing import FileEraser
from driftloop.archive.erasures import ErasedPartition, Erasure, ErasureRequest
from driftloop.archive.layout import list_all_merged, list_slices
from driftloop.storage.object_store import ObjectStore
from tests.support import archive_processes
from tests.support.archive_processes import (
    OFFSETS,
    PARTITION,
    ROWS,
    TOPIC,
    Row,
    erase_for_ever,
    marker,
    merge_for_ever,
    merge_once,
    read_rows,
    write_slice,
)
from tests.support.folder_store import folder_store

pytestmark = pytest.mark.integration

KILLS, SLICES_PER_KILL, ERASED_PER_KILL = 30, 2, 3
MAX_SECONDS = 0.4  # until a kill; a pass over the archive takes about as long

processes = get_context("forkserver")  # a fork of a process that has imported everything takes milliseconds
processes.set_forkserver_preload([archive_processes.__name__])


@contextmanager
def killed_at_the_end(folder: Path) -> Iterator[Sequence[BaseProcess]]:
    """Start a process that erases and one that merges."""
    started = [processes.Process(target=target, args=(folder,)) for target in (erase_for_ever, merge_for_ever)]
    for process in started:
        process.start()
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.join()


def rows_of(offsets: set[int]) -> set[Row]:
    return {(offset, row) for offset in offsets for row in range(ROWS)}


def erase(store: ObjectStore, rows: set[Row]) -> None:
    """Write down that rows are erased: of some events all, of others one."""
    by_offset: dict[int, list[int]] = {}
    for offset, row in rows:
        by_offset.setdefault(offset, []).append(row)
    erased = {offset: None if len(numbers) == ROWS else numbers for offset, numbers in by_offset.items()}
    erasures.save(
        store,
        Erasure(
            requested_by="somebody",
            reason="asked to",
            request=ErasureRequest(kind="id", values=len(erased)),
            respected_until=None,
            partitions=[ErasedPartition.of_rows(TOPIC, PARTITION, erased)],
            counts={},
            begun_at=datetime.now(UTC),
        ),
    )


@pytest.mark.timeout(900)
def test_no_row_is_lost_or_read_twice_whenever_erasing_or_merging_is_killed(
    tmp_path: Path, random_source: random.Random
) -> None:
    store = folder_store(tmp_path / "store")
    written, erased = set[int](), set[Row]()
    for kill in range(KILLS):
        for number in range(kill * SLICES_PER_KILL, (kill + 1) * SLICES_PER_KILL):
            write_slice(store, number)
            written |= set(range(number * OFFSETS, (number + 1) * OFFSETS))
        chosen = random_source.sample(sorted(rows_of(written) - erased), ERASED_PER_KILL)
        chosen += [(offset, 1 - row) for offset, row in chosen[:1]]
        with killed_at_the_end(tmp_path / "store") as running:
            erase(store, set(chosen) - erased)
            erased |= set(chosen)
            deadline = time.monotonic() + random_source.uniform(0, MAX_SECONDS)
            victim = random_source.choice(running)
            is_killed = False
            while not is_killed or random_source.random() < 0.5:  # what is left of the other one's work goes on
                is_killed = time.monotonic() >= deadline
                if is_killed:
                    victim.kill()
                require_rows(read_rows(store), rows_of(written), erased, f"kill {kill}")
            assert all(process.is_alive() for process in running if process is not victim)
        require_rows(read_rows(store), rows_of(written), erased, f"after kill {kill}")

    finish(store)
    rows = read_rows(store)
    assert len(rows) == len(rows_of(written)) - len(erased)
    assert set(rows) == rows_of(written) - erased
    assert list_all_merged(store, TOPIC), "nothing was merged"
    require_nowhere(store, {offset for offset in written if {(offset, row) for row in range(ROWS)} <= erased})


def require_rows(found: list[Row], written: set[Row], erased: set[Row], when: str) -> None:
    """Check that each row was found once, and that none is missing that is not erased."""
    assert len(found) == len(set(found)), f"{when}: {len(found) - len(set(found))} rows are read twice"
    assert written - erased <= set(found), f"{when}: {len(written - erased - set(found))} rows are lost"
    assert set(found) <= written


def finish(store: ObjectStore) -> None:
    """Merge and erase until nothing is left to do."""
    eraser = FileEraser(store)
    while merge_once(store) or eraser.run(TOPIC, PARTITION, erasures.read_all(store)):
        pass


def require_nowhere(store: ObjectStore, offsets: set[int]) -> None:
    """Search all files, also those that nobody reads, for the values of erased events."""
    assert offsets
    for file in (*list_slices(store, TOPIC), *list_all_merged(store, TOPIC)):
        content = store.read(file.path) + store.read_parquet(file.path).to_csv().encode()
        for offset in offsets:
            assert marker(offset).encode() not in content, f"{marker(offset)} is in {file.path}"
