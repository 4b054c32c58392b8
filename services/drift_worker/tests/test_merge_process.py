"""Merging in a process of its own."""

import signal
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from drift_worker.windows import merge_process
from drift_worker.windows.merge_process import merge_in_process
from driftloop.archive.layout import ArchivedFile, list_merged, list_slices, slice_path
from driftloop.archive.merging import MergeLimits
from driftloop.errors import ArchiveUnreadable, StorageUnavailable
from driftloop.events import Window
from driftloop.process import ChildProcess
from driftloop.storage.object_store import ObjectStore
from tests.support.archived_rows import archive_rows, damage

pytest_plugins = "tests.support.drift_windows"

TOPIC = "predictions"
DAYS = (date(2026, 1, 1), date(2026, 1, 2))
LIMITS = MergeLimits(4)
PIPE_BYTES = 2**16


@pytest.fixture
def slices(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Sequence[ArchivedFile]:
    """Archive a slice of two rows on the first day and three on the second one; the process has the same store."""
    monkeypatch.setenv("DRIFTLOOP_STORAGE__URL", store.url("").rstrip("/"))
    monkeypatch.delenv("DRIFTLOOP_STORAGE__ENDPOINT", raising=False)
    for number, day in enumerate((DAYS[0], *[DAYS[1]] * 3)):
        offsets = [2 * number, 2 * number + 1]
        rows = pd.DataFrame({"_id": [f"event-{each}" for each in offsets], "_row": 0, "_offset": offsets})
        rows["_time"] = [pd.Timestamp(day, tz="UTC") - pd.Timedelta(seconds=each) for each in offsets]
        archive_rows(store, window(*offsets), rows, day)
    return list_slices(store, TOPIC)


def window(first: int, last: int) -> Window:
    return Window(topic=TOPIC, partition=0, first_offset=first, last_offset=last)


def test_slices_become_a_file_for_each_day(store: ObjectStore, slices: Sequence[ArchivedFile]) -> None:
    merged = list(merge_in_process(slices, None, LIMITS))
    assert [(each.slices.day, each.slices.window, len(each.slices.files)) for each in merged] == [
        (DAYS[0], window(0, 1), 1)
    ]
    merged = list(merge_in_process(slices[1:], None, MergeLimits(3)))
    assert [(each.slices.day, each.slices.files) for each in merged] == [(DAYS[1], list(slices[1:]))]
    assert [file.path for file in list_merged(store, TOPIC)][1] == merged[0].path
    assert merged[0].size == len(store.read(merged[0].path))
    assert store.read_parquet(merged[0].path)["_offset"].tolist() == [7, 6, 5, 4, 3, 2]
    assert not list_slices(store, TOPIC)


def test_request_that_is_larger_than_a_pipe_reaches_the_process(
    store: ObjectStore, slices: Sequence[ArchivedFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge_process, "POLL_SECONDS", 0.01)  # over before the process reads
    path = slice_path(window(8, 9))
    store.write(path, store.read(slices[0].path))
    long = slices[0]._replace(path=f"{'./' * PIPE_BYTES}{path}")
    (merged,) = merge_in_process([long], slices[1], LIMITS)
    assert merged.slices.files == [long]


def test_unreadable_slice_is_named_after_what_was_merged_before(
    store: ObjectStore, slices: Sequence[ArchivedFile]
) -> None:
    damage(store, slices[2].path)
    merges = merge_in_process(slices, None, MergeLimits(3))
    assert next(merges).slices.day == DAYS[0]
    with pytest.raises(ArchiveUnreadable, match=slices[2].window.name):
        next(merges)


def test_store_that_does_not_answer_is_said(
    slices: Sequence[ArchivedFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLOOP_STORAGE__URL", f"file://{tmp_path}/absent")
    with pytest.raises(StorageUnavailable, match="absent"):
        list(merge_in_process(slices, None, LIMITS))


def test_process_that_fails_logs_why(
    store: ObjectStore, slices: Sequence[ArchivedFile], capfd: pytest.CaptureFixture[str]
) -> None:
    unnamed = slices[0]._replace(path=slice_path(window(0, 1)).replace("-", "_"))
    store.write(unnamed.path, store.read(slices[0].path))
    with pytest.raises(ChildProcessError, match="the process that merges 1 slices ended with 1: ValueError"):
        list(merge_in_process([unnamed], slices[1], LIMITS))
    assert "compaction.merge_failed" in capfd.readouterr().err


def test_process_that_hangs_is_given_up(slices: Sequence[ArchivedFile], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge_process, "COMMAND", ["sleep", "600"])
    monkeypatch.setattr(merge_process, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(merge_process, "TIMEOUT_SECONDS", 0.05)
    with pytest.raises(ChildProcessError, match=r"merging 4 slices took longer than 0\.05 s"):
        list(merge_in_process(slices, None, LIMITS))


def test_process_is_killed_once_it_may_not_go_on_and_does_not_end(
    slices: Sequence[ArchivedFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    children: list[ChildProcess] = []

    class NotedChild(ChildProcess):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            children.append(self)

    monkeypatch.setattr(merge_process, "ChildProcess", NotedChild)
    monkeypatch.setattr(merge_process, "COMMAND", ["sleep", "600"])
    monkeypatch.setattr(merge_process, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(merge_process, "STOP_SECONDS", 0.05)
    answers = iter([True])
    assert not list(merge_in_process(slices, None, LIMITS, lambda: next(answers, False)))
    assert [child.exit_code for child in children] == [-signal.SIGKILL]


def test_process_that_is_to_stop_begins_no_file(store: ObjectStore, slices: Sequence[ArchivedFile]) -> None:
    assert not list(merge_in_process(slices, None, LIMITS, lambda: False))
    assert list_slices(store, TOPIC) == list(slices)
