"""Looking an event up in the archive."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from driftloop.archive import lookup
from driftloop.archive.layout import ArchivedFile, list_files, merged_path, slice_path
from driftloop.archive.lookup import MAX_FILES, SMALL_BYTES, FoundRows, candidates, find_rows, read_matching
from driftloop.events import Window, new_event_id
from driftloop.storage.object_store import ObjectStore

pytest_plugins = "tests.support.drift_windows"

TOPIC = "predictions"
DAY = date(2026, 11, 28)
AT = datetime(2026, 11, 28, 12, tzinfo=UTC)
ROWS = 400_000


def window(first: int, last: int) -> Window:
    return Window(topic=TOPIC, partition=0, first_offset=first, last_offset=last)


def rows_of(*ids: str) -> pd.DataFrame:
    return pd.DataFrame({"_id": ids, "_row": 0, "_offset": range(len(ids)), "x": 1.0})


class CountingFile:
    """A file that counts what is read of it."""

    def __init__(self, file: BinaryIO) -> None:
        self.bytes = 0
        self._file = file

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        self.bytes += len(content)
        return content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def test_row_of_a_large_file_is_found_by_reading_a_part_of_it(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"{number:032x}" for number in range(ROWS)]
    rows = rows_of(*ids).assign(x=np.random.default_rng(1).random(ROWS))
    path = merged_path(window(0, ROWS - 1), DAY)
    store.write_parquet(path, rows)
    size = len(store.read(path))
    assert size > 2 * SMALL_BYTES
    opened: list[CountingFile] = []
    open_file = store.open

    @contextmanager
    def count(path: str) -> Iterator[CountingFile]:
        with open_file(path) as file:
            opened.append(CountingFile(file))
            yield opened[-1]

    monkeypatch.setattr(store, "open", count)
    monkeypatch.setattr("pyarrow.parquet.write_table", None)
    for number in (0, 12_345, ROWS - 1):
        found = find_rows(store, TOPIC, ids[number], AT)
        assert found is not None
        assert found.rows["_offset"].tolist() == [number]
    assert find_rows(store, TOPIC, "f" * 32, AT) is None
    assert opened[-1].bytes < size / 10


@pytest.mark.parametrize("at", [AT, None], ids=["with a time", "without"])
@pytest.mark.parametrize("place", ["slice", "merged", "a later day"])
def test_event_is_found_wherever_it_is(store: ObjectStore, at: datetime | None, place: str) -> None:
    wanted = new_event_id()
    path = {
        "slice": slice_path(window(20, 29)),
        "merged": merged_path(window(0, 9), DAY),
        "a later day": merged_path(window(10, 19), DAY + timedelta(days=3)),
    }
    for name, each in path.items():
        store.write_parquet(each, rows_of(new_event_id(), *([wanted] if name == place else [])))
    found = find_rows(store, TOPIC, wanted, at)
    assert found is not None
    assert (found.file.path, found.rows["_id"].tolist()) == (path[place], [wanted])
    assert find_rows(store, TOPIC, new_event_id(), at) is None


@pytest.mark.parametrize("small_bytes", [0, SMALL_BYTES], ids=["a large file", "a small file"])
def test_rows_are_found_by_any_of_some_columns(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, small_bytes: int
) -> None:
    """Of each file only the row groups that may have a row are read, also if a column has no type."""
    monkeypatch.setattr(lookup, "SMALL_BYTES", small_bytes)
    rows = pd.DataFrame({"_id": ["a", "b", "c", None], "_key": [None, None, "k", "l"], "empty": None, "x": range(4)})
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pandas(rows), sink, row_group_size=1)
    store.write(slice_path(window(0, 3)), sink.getvalue().to_pybytes())
    (file,) = list_files(store, TOPIC)

    def found(**values: list[str]) -> list[int]:
        return list(read_matching(store, file, values, ["x", *values])["x"])

    assert found(_id=["b"], _key=["k", "z"], empty=["b"]) == [1, 2]
    assert found(_key=["l"]) == [3]
    assert found(_id=["d"]) == []


def test_event_of_a_slice_that_is_merged_during_the_search_is_found(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write_parquet(slice_path(window(0, 9)), rows_of("wanted"))
    read = store.read

    def merge(path: str) -> bytes:
        monkeypatch.setattr(store, "read", read)
        store.write(merged_path(window(0, 99), DAY), read(path))
        store.delete(path)
        return read(path)

    monkeypatch.setattr(store, "read", merge)
    assert isinstance(find_rows(store, TOPIC, "wanted", None), FoundRows)


def archived(first: int, modified: datetime, day: date | None = None) -> ArchivedFile:
    return ArchivedFile(str(first), window(first, first + 9), 1, modified, day)


def test_files_are_searched_from_the_time_of_the_event_on() -> None:
    files = [
        archived(0, AT, DAY - timedelta(days=2)),
        archived(5, AT, DAY - timedelta(days=1)),
        archived(10, AT, DAY),
        archived(30, AT + timedelta(hours=2)),
        archived(20, AT + timedelta(hours=1)),
        archived(40, AT - timedelta(hours=2)),
    ]
    assert [file.window.first_offset for file in candidates(files, AT)] == [5, 10, 20, 30]
    assert [file.window.first_offset for file in candidates(files, None)] == [30, 20, 40, 10, 5, 0]


def test_no_more_than_so_many_files_are_searched() -> None:
    files = [archived(10 * number, AT + timedelta(minutes=number)) for number in range(MAX_FILES + 5)]
    assert candidates(files, AT) == files[:MAX_FILES]
    assert candidates(files, None) == files[:4:-1]
