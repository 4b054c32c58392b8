"""Which files of the archive are read."""

from datetime import UTC, date, datetime, timedelta

import pytest

from driftloop.archive.layout import (
    ArchivedFile,
    files_since,
    is_covered,
    list_files,
    list_files_of,
    list_slices,
    list_slices_between,
    merged_path,
    slice_path,
    without_covered,
)
from driftloop.events import Window
from driftloop.storage.object_store import ObjectStore

pytest_plugins = "tests.support.drift_windows"

AT = datetime(2026, 11, 30, 12, tzinfo=UTC)


def window(first: int, last: int, partition: int = 0, topic: str = "predictions") -> Window:
    return Window(topic=topic, partition=partition, first_offset=first, last_offset=last)


def merged(first: int, last: int, partition: int = 0, day: date | None = None) -> ArchivedFile:
    day = day or AT.date()
    path = merged_path(window(first, last, partition), day)
    return ArchivedFile(path, window(first, last, partition), 1, AT, day)


@pytest.fixture
def archive(store: ObjectStore) -> ObjectStore:
    for first in range(100, 160, 10):
        store.write(slice_path(window(first, first + 9)), b"s")
    store.write(slice_path(window(0, 9, partition=1)), b"s")
    store.write(slice_path(window(0, 9, topic="outcomes")), b"s")
    store.write(merged_path(window(0, 99), date(2026, 11, 28)), b"m")
    store.write(merged_path(window(100, 129), date(2026, 11, 29)), b"m")
    return store


def bounds(files: list[ArchivedFile]) -> list[tuple[int, int, int]]:
    return [(file.window.partition, file.window.first_offset, file.window.last_offset) for file in files]


def test_files_to_read_are_the_merged_ones_and_the_slices_outside_of_them(archive: ObjectStore) -> None:
    expected = [(0, 0, 99), (0, 100, 129), (0, 130, 139), (0, 140, 149), (0, 150, 159), (1, 0, 9)]
    assert bounds(list_files(archive, "predictions")) == expected


def test_file_that_lies_within_another_merged_file_is_not_read() -> None:
    files = [merged(0, 9), merged(0, 29), merged(10, 29), merged(30, 39), merged(0, 9, partition=1)]
    assert bounds(without_covered(reversed(files))) == [(0, 0, 29), (0, 30, 39), (1, 0, 9)]


@pytest.mark.parametrize(
    ("other", "seconds_later", "covered"),
    [
        (window(0, 9), 0, True),
        (window(5, 9), -100, True),
        (window(5, 10), 0, False),
        (window(0, 9, partition=1), 0, False),
        (window(0, 9), 1, False),
    ],
)
def test_slice_is_covered_by_a_file_that_has_all_of_it_and_is_later(
    other: Window, seconds_later: int, covered: bool
) -> None:
    """A slice that is later than the file of its offsets is of a topic that was made again."""
    file = ArchivedFile(slice_path(other), other, 1, AT + timedelta(seconds=seconds_later))
    assert is_covered(file, [merged(0, 9), merged(20, 29)]) == covered


def test_merged_file_of_a_topic_that_was_made_again_is_read_besides_the_old_one() -> None:
    old, copy = merged(0, 99), merged(0, 9)
    assert without_covered([old, copy._replace(modified=AT + timedelta(minutes=1))]) == [old]
    later = copy._replace(modified=AT + timedelta(days=1))
    assert set(without_covered([old, later])) == {old, later}


def test_files_of_a_window_are_merged_ones_with_a_part_of_it_and_slices_within_it(archive: ObjectStore) -> None:
    assert bounds(list_files_of(archive, window(95, 149))) == [
        *((0, 0, 99), (0, 100, 129)),
        *((0, 130, 139), (0, 140, 149)),
    ]
    assert list_files_of(archive, window(200, 209)) == []


def test_slices_of_a_partition_are_listed_alone(archive: ObjectStore) -> None:
    assert bounds(list_slices(archive, "predictions", 1)) == [(1, 0, 9)]
    assert len(list_slices(archive, "predictions")) == 7


def test_slices_between_two_are_listed(archive: ObjectStore) -> None:
    found = list_slices_between(archive, window(110, 119), window(130, 139))
    assert {window(110, 119), window(120, 129), window(130, 139)} <= set(found)


def test_files_of_before_a_time_are_left_out(archive: ObjectStore) -> None:
    since = datetime(2026, 11, 29, 2, tzinfo=UTC)
    files = list_files(archive, "predictions")
    assert files_since(files, None) == files
    assert files_since(files, since + timedelta(days=1)) == files[1:]
    just_after_midnight = since.replace(hour=0, minute=2) + timedelta(days=1)
    assert files_since(files, just_after_midnight) == files
    assert files_since(files, datetime.now(UTC) + timedelta(days=1)) == []


def test_file_may_have_rows_of_days_until_that_of_the_next_file() -> None:
    """Its last slice began on its day, and was open until the next slice began."""
    days = [date(2026, 11, 1), date(2026, 11, 2), date(2026, 11, 5)]
    files = [merged(number * 10, number * 10 + 9, day=day) for number, day in enumerate(days)]
    assert files_since(files, datetime(2026, 11, 2, 1, tzinfo=UTC)) == files
    assert files_since(files, datetime(2026, 11, 3, 1, tzinfo=UTC)) == files[1:]
    assert files_since(files, datetime(2026, 11, 6, 1, tzinfo=UTC)) == files[2:]
    assert files_since(files, AT + timedelta(hours=1)) == []


def test_files_of_a_topic_that_was_deleted_do_not_say_when_a_file_ends() -> None:
    of_new, of_old = merged(0, 9, day=date(2026, 11, 20)), merged(10, 19, day=date(2026, 11, 1))
    next_of_new = merged(20, 29, day=date(2026, 11, 22))
    assert files_since([of_new, of_old, next_of_new], datetime(2026, 11, 22, 1, tzinfo=UTC)) == [
        of_new,
        of_old,
        next_of_new,
    ]
    assert files_since([of_new, of_old], datetime(2026, 11, 21, 1, tzinfo=UTC)) == [of_new, of_old]
    assert files_since([of_new, of_old, next_of_new], datetime(2026, 11, 23, 1, tzinfo=UTC)) == [next_of_new]


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        "day=yesterday/predictions-0-0-9.parquet",
        "day=2026-11-28/x.parquet",
        "day=2026-11-28/predictions-0-000000000000-000000000009.parquet.bak",
        "day=2026-11-28/.predictions-0-000000000000-000000000009.parquet.Ab12",
    ],
)
def test_file_of_another_name_is_ignored(archive: ObjectStore, name: str) -> None:
    before = list_files(archive, "predictions")
    archive.write(f"archive/predictions/{name}", b"x")
    assert list_files(archive, "predictions") == before
