"""Which files are older than the archive keeps them."""

import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from driftloop.archive.layout import list_files, list_slices
from driftloop.archive.merging import MergeLimits, choose_full, list_partition, merge_slices
from driftloop.archive.retention import find_expired, first_archived_day, first_kept_day, retention_by_topic
from driftloop.archive.settings import ArchiveSettings
from driftloop.settings import TopicsSettings
from driftloop.storage.object_store import ObjectStore
from tests.support.archived_slices import BEGIN, TOPIC, archive_slices, slice_window
from tests.support.folder_store import folder_store

PARTITION = (TOPIC, 0)
SECOND_DAY, THIRD_DAY = date(2026, 11, 2), date(2026, 11, 3)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return folder_store(tmp_path / "store")


def expired(store: ObjectStore, first_kept: date, kept: int = 0, final_before: int | None = 10_000) -> list[str]:
    return [
        file.window.name
        for file in find_expired(store, list_partition(store, PARTITION), first_kept, kept, final_before)
    ]


def names(*numbers: int) -> list[str]:
    return [slice_window(number).name for number in numbers]


def test_whole_days_are_kept_besides_today() -> None:
    assert first_kept_day(30, datetime(2026, 11, 30, 23, 59, tzinfo=UTC)) == date(2026, 10, 31)
    assert first_kept_day(30, datetime.fromisoformat("2026-12-01T00:30:00+01:00")) == date(2026, 10, 31)


def test_files_of_earlier_days_expire_merged_or_not(store: ObjectStore) -> None:
    archive_slices(store, range(30))
    files = list_partition(store, PARTITION)
    limits = MergeLimits(12)
    list(merge_slices(store, choose_full(files.slices, limits), files.slices[12], limits))
    assert expired(store, SECOND_DAY) == [slice_window(0, 11).name, *names(*range(12, 24))]
    assert expired(store, THIRD_DAY) == [slice_window(0, 11).name, *names(*range(12, 30))]
    assert expired(store, BEGIN.date()) == []


def test_what_is_read_one_by_one_or_not_final_stays_whatever_its_age(store: ObjectStore) -> None:
    archive_slices(store, range(30))
    assert expired(store, THIRD_DAY, kept=28) == names(0, 1)
    assert expired(store, THIRD_DAY, kept=100) == []
    assert expired(store, THIRD_DAY, final_before=35) == names(0, 1, 2)
    assert expired(store, THIRD_DAY, final_before=None) == []


def test_slice_that_was_written_before_the_first_kept_day_is_not_read(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive_slices(store, range(3))
    for number, file in enumerate(list_slices(store, TOPIC)):
        at = (BEGIN + timedelta(days=number)).timestamp()
        os.utime(tmp_path / "store" / file.path, (at, at))
    read = []
    content = store.read
    monkeypatch.setattr(store, "read", lambda path: read.append(path) or content(path))  # type: ignore[func-returns-value]
    assert expired(store, SECOND_DAY) == names(0, 1, 2)
    assert len(read) == 2  # the others were written on a day that is kept, or later, and are of an earlier one


def test_slice_that_disappears_meanwhile_is_left_to_the_next_pass(store: ObjectStore) -> None:
    archive_slices(store, range(3))
    files = list_partition(store, PARTITION)
    store.delete(files.slices[1].path)
    assert [each.window for each in find_expired(store, files, SECOND_DAY, 0, 10_000)] == [slice_window(0)]


def test_first_day_of_the_archive(store: ObjectStore) -> None:
    assert first_archived_day(list_files(store, TOPIC)) is None
    archive_slices(store, range(30))
    assert first_archived_day(list_files(store, TOPIC)) == datetime.now(UTC).date()  # of slices: when it was written
    files = list_partition(store, PARTITION)
    list(merge_slices(store, files.slices[:24], files.slices[24], MergeLimits()))
    assert first_archived_day(list_files(store, TOPIC)) == BEGIN.date()


def test_only_topics_with_a_setting_expire() -> None:
    topics = TopicsSettings(predictions="p", outcomes="o")
    assert retention_by_topic(ArchiveSettings(), topics) == {}
    assert retention_by_topic(ArchiveSettings(outcome_retention_days=9), topics) == {"o": 9}


@pytest.mark.parametrize(("text", "days"), [("30", 30), ("", None)])
def test_days_are_read_and_an_empty_variable_is_none(text: str, days: int | None) -> None:
    assert ArchiveSettings.model_validate({"prediction_retention_days": text}).prediction_retention_days == days


def test_fewer_days_than_quality_needs_are_refused_with_the_value_to_give() -> None:
    ArchiveSettings(prediction_retention_days=7, outcome_retention_days=7).require_days(7)
    with pytest.raises(ValueError, match=r"DRIFTLOOP_ARCHIVE__OUTCOME_RETENTION_DAYS: 6 is less .* set 7 or more"):
        ArchiveSettings(prediction_retention_days=7, outcome_retention_days=6).require_days(7)
