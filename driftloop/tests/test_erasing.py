"""Erasing rows from the archive: which rows an erasure hits, and which parts of the files stay as they are."""

import json
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.consumer.fetcher import ConsumerRecord

from driftloop.archive import erasures
from driftloop.archive.erasing import FileEraser
from driftloop.archive.erasures import (
    ERASED_PREDICTION,
    ErasedPartition,
    Erasure,
    ErasureRequest,
    Tombstones,
    positions_of,
)
from driftloop.archive.file_metadata import DAY_KEY, SUMS_BY_END_KEY, SUMS_KEY
from driftloop.archive.layout import is_covered, list_files, list_slices, merged_path, slice_path
from driftloop.errors import ArchiveUnreadable, StorageUnavailable
from driftloop.events import Prediction, Window, derived_event_id, new_event_id
from driftloop.storage.object_store import ObjectStore, StoredObject
from tests.support.archived_rows import damage
from tests.support.folder_store import folder_store

TOPIC = "predictions"
DAY = date(2026, 11, 29)
BEGUN = datetime(2026, 11, 30, 12, tzinfo=UTC)
ROWS = 10
"""Of a slice: two for each of five events."""


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return folder_store(tmp_path / "store")


def window(number: int, last: int | None = None) -> Window:
    end = (number if last is None else last) * 5 + 4
    return Window(topic=TOPIC, partition=0, first_offset=number * 5, last_offset=end)


def table(number: int, last: int | None = None) -> pa.Table:
    bounds = window(number, last)
    offsets = [offset for offset in range(bounds.first_offset, bounds.last_offset + 1) for _ in range(2)]
    return pa.table(
        {
            "_id": [derived_event_id(BEGUN - timedelta(days=1), str(offset)) for offset in offsets],
            "_row": [index % 2 for index in range(len(offsets))],
            "_time": pa.array([BEGUN - timedelta(hours=offset) for offset in offsets], pa.timestamp("ns", "UTC")),
            "_offset": offsets,
            "x": pa.array([f"value-{offset}" for offset in offsets]),
        }
    )


def write_slice(store: ObjectStore, number: int, day: date = DAY) -> None:
    metadata = {DAY_KEY: day.isoformat(), SUMS_KEY: json.dumps({"A": {"windows": number}})}
    store.write_parquet(slice_path(window(number)), table(number).replace_schema_metadata(metadata))


def erasure(erased: Mapping[int, list[int] | None], until: datetime | None = None) -> Erasure:
    return Erasure(
        begun_at=BEGUN,
        requested_by="somebody",
        reason="asked to",
        request=ErasureRequest(kind="id", values=len(erased)),
        respected_until=until,
        partitions=[ErasedPartition.of_rows(TOPIC, 0, erased)],
        counts={},
    )


def read_all(store: ObjectStore) -> list[tuple[int, int]]:
    """Return offset and row of each row that a reader of the archive finds."""
    frames = [store.read_parquet(file.path) for file in list_files(store, TOPIC)]
    rows = pd.concat(frames)
    return sorted(zip(rows["_offset"].astype(int), rows["_row"].astype(int), strict=True))


def erase(store: ObjectStore, *erased: Erasure) -> int:
    return sum(file.rows for file in FileEraser(store).run(TOPIC, 0, erased))


@given(
    st.dictionaries(st.integers(0, 30), st.none() | st.lists(st.integers(0, 3), max_size=4)),
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3))),
    st.tuples(st.integers(0, 30), st.integers(0, 10)),
)
def test_ranges_and_rows_mean_the_rows_that_they_were_made_of(
    erased: dict[int, list[int] | None], positions: list[tuple[int, int]], bounds: tuple[int, int]
) -> None:
    part = ErasedPartition.model_validate_json(ErasedPartition.of_rows(TOPIC, 0, erased).model_dump_json())
    offsets, rows = (np.array([each[index] for each in positions], np.int64) for index in (0, 1))

    def is_erased(offset: int, row: int) -> bool:
        found = erased.get(offset, [])
        return found is None or row in found

    assert part.mask(offsets, rows).tolist() == [is_erased(*each) for each in positions]
    between = Window(topic=TOPIC, partition=0, first_offset=bounds[0], last_offset=sum(bounds))
    assert part.overlaps(between) == any(bounds[0] <= offset <= sum(bounds) for offset in erased)
    for offset in range(31):
        found = part.rows_of(offset)
        assert (found is None) == (offset in erased and erased[offset] is None)
        assert found is None or set(found) == set(erased.get(offset) or ())


def test_slices_lose_the_rows_and_keep_order_types_and_metadata(store: ObjectStore) -> None:
    for number in range(3):
        write_slice(store, number)
    before = store.read_table(slice_path(window(1)))
    assert erase(store, erasure({6: None, 8: [1]})) == 3
    after = store.read_table(slice_path(window(1)))
    assert after.schema == before.schema
    kept = [index for index in range(ROWS) if index not in (2, 3, 7)]
    assert after.replace_schema_metadata(None) == before.take(kept).replace_schema_metadata(None)
    assert {name: after.schema.metadata[name] for name in before.schema.metadata} == before.schema.metadata
    assert store.read_table(slice_path(window(0))) == table(0)
    assert erase(store, erasure({6: None, 8: [1]})) == 0


def test_large_merged_file_keeps_groups_sums_and_order(store: ObjectStore) -> None:
    rows = table(0, 19).sort_by("_time")
    path = merged_path(window(0, 19), DAY)
    sums = json.dumps({"9": {"A": {"windows": 1}}}).encode()
    sink = pa.BufferOutputStream()
    pq.write_table(rows.replace_schema_metadata({SUMS_BY_END_KEY: sums}), sink, row_group_size=50)
    store.write(path, sink.getvalue().to_pybytes())
    assert erase(store, erasure({0: None, 50: [0], 99: None})) == 5
    file = pq.ParquetFile(pa.BufferReader(store.read(path)))
    assert file.num_row_groups == 4
    assert (file.schema_arrow.metadata or {})[SUMS_BY_END_KEY] == sums
    after = file.read().to_pandas()
    assert after["_time"].is_monotonic_increasing
    assert len(after) == 195
    assert set(after["_offset"]) == set(range(1, 99))


def test_file_without_rows_stays_as_an_empty_file(store: ObjectStore) -> None:
    write_slice(store, 0)
    write_slice(store, 1)
    assert erase(store, erasure(dict.fromkeys(range(5, 10)))) == ROWS
    assert [file.window for file in list_slices(store, TOPIC)] == [window(0), window(1)]
    assert store.read_table(slice_path(window(1))).num_rows == 0
    assert len(read_all(store)) == ROWS


def test_values_of_erased_rows_are_in_no_dictionary_and_no_statistics(store: ObjectStore) -> None:
    rows = table(0).set_column(4, "x", table(0)["x"].dictionary_encode())
    store.write_parquet(slice_path(window(0)), rows.replace_schema_metadata({DAY_KEY: DAY.isoformat()}))
    assert "value-3" in levels(store, window(0))
    erase(store, erasure({3: None}))
    assert levels(store, window(0)) == [f"value-{number}" for number in (0, 1, 2, 4)]


def levels(store: ObjectStore, of: Window) -> list[str]:
    """Return all values of a dictionary in a file, whether a row has them or not."""
    found: list[str] = store.read_table(slice_path(of))["x"].combine_chunks().dictionary.to_pylist()
    return found


def test_rows_of_a_topic_that_was_made_again_stay(store: ObjectStore) -> None:
    """Its offsets begin at 0 again: its rows are of a later day, or on the same day have later ids."""
    write_slice(store, 0, BEGUN.date() + timedelta(days=1))
    newer = table(1).set_column(0, "_id", pa.array([derived_event_id(BEGUN + timedelta(hours=1), "a")] * ROWS))
    store.write_parquet(slice_path(window(1)), newer.replace_schema_metadata({DAY_KEY: BEGUN.date().isoformat()}))
    assert erase(store, erasure(dict.fromkeys(range(10)))) == 0


def test_slice_that_was_merged_while_it_was_erased_is_read_once(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written again after it was deleted, and then is a leftover for every reader."""
    for number in range(3):
        write_slice(store, number)
    write = store.write

    def merge_first(path: str, content: bytes) -> None:
        monkeypatch.setattr(store, "write", write)
        sink = pa.BufferOutputStream()
        pq.write_table(table(0, 2), sink)
        write(merged_path(window(0, 2), DAY), sink.getvalue().to_pybytes())
        for number in range(3):
            store.delete(slice_path(window(number)))
        write(path, content)

    monkeypatch.setattr(store, "write", merge_first)
    assert erase(store, erasure({6: None})) == 2
    assert [file.window for file in list_slices(store, TOPIC)] == [window(1)]
    assert len(read_all(store)) == len(set(read_all(store))) == 3 * ROWS
    assert erase(store, erasure({6: None})) == 2  # the merged file had them again
    assert len(read_all(store)) == 3 * ROWS - 2


def test_erasing_from_an_old_merged_file_hides_no_slice_of_a_topic_that_was_made_again(store: ObjectStore) -> None:
    store.write_parquet(merged_path(window(0, 2), DAY), table(0, 2))
    write_slice(store, 1, BEGUN.date() + timedelta(days=1))
    before = read_all(store)
    assert len(before) == 4 * ROWS
    assert erase(store, erasure({6: None})) == 2
    after = read_all(store)
    assert [each for each in before if each not in after] == []
    assert len(after) == 4 * ROWS - 2


def test_file_is_read_again_only_if_it_has_changed(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        write_slice(store, number)
    eraser, opened = FileEraser(store), list[str]()
    open_object = store.open
    monkeypatch.setattr(store, "open", lambda path: opened.append(path) or open_object(path))  # type: ignore[func-returns-value]
    first = erasure({6: None})
    for expected in (1, 1, 0):  # it has the rows; then it has changed; then it is known
        opened.clear()
        eraser.run(TOPIC, 0, [first])
        assert opened == [slice_path(window(1))] * expected
    opened.clear()
    eraser.run(TOPIC, 0, [first, erasure({1: None})])
    assert opened == [slice_path(window(0))]
    eraser.run("others", 0, [first])
    assert opened == [slice_path(window(0))]


def record(offset: int, at: datetime = BEGUN) -> ConsumerRecord:
    milliseconds = int(at.timestamp() * 1000)
    return ConsumerRecord(TOPIC, 0, 0, offset, milliseconds, 0, b"", b"", [], None, 0, 0, 0)


def test_readers_of_topics_leave_out_what_is_erased(store: ObjectStore) -> None:
    event = Prediction(
        model="m",
        version="1",
        features={"x": ["a", "b"]},
        predictions=[0.1, 0.2],
        labels=["yes", "no"],
        keys=["k0", "k1"],
        context={"c": ["d", "e"]},
    )
    tombstones = Tombstones(store)
    erasures.save(store, erasure({6: None, 8: [1]}))
    assert tombstones.event_left(record(5), event) == event
    assert tombstones.event_left(record(6), event) is None
    assert tombstones.event_left(record(6, BEGUN + timedelta(hours=1)), event) == event  # of a topic made again
    left = tombstones.event_left(record(8), event)
    assert isinstance(left, Prediction)
    assert Prediction.model_validate_json(left.model_dump_json()) == left
    assert (left.features, left.keys) == ({"x": ["a", None]}, ["k0", None])
    assert left.predictions == [0.1, ERASED_PREDICTION]
    assert tombstones.is_erased(TOPIC, 0, 6, BEGUN)
    assert not tombstones.is_erased(TOPIC, 0, 6, BEGUN + timedelta(hours=1))
    assert not tombstones.is_erased(TOPIC, 0, 8, BEGUN)
    assert not tombstones.is_erased("others", 0, 6, BEGUN)


def test_slice_is_written_without_what_is_erased(store: ObjectStore) -> None:
    erasures.save(store, erasure({6: None, 8: [1]}))
    tombstones = Tombstones(store)
    left = tombstones.without_erased(table(1), window(1), BEGUN.timestamp())
    assert list(zip(*positions_of(left), strict=True)) == [(5, 0), (5, 1), (7, 0), (7, 1), (8, 0), (9, 0), (9, 1)]
    later = (BEGUN + timedelta(hours=1)).timestamp()
    assert tombstones.without_erased(table(1), window(1), later) == table(1)
    assert tombstones.without_erased(table(2), window(2), BEGUN.timestamp()) == table(2)


def test_erasures_are_read_once_and_expired_ones_never(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now(UTC)
    lasting = [erasure({1: None}), erasure({2: None}, until=now + timedelta(days=2))]
    expired = erasure({3: None}, until=now - timedelta(days=2))
    for each in (*lasting, expired):
        erasures.save(store, each)
    paths = list[str]()
    read = store.read
    monkeypatch.setattr(store, "read", lambda path: paths.append(path) or read(path))  # type: ignore[func-returns-value]
    tombstones = Tombstones(store, max_age_seconds=0)
    assert {each.id for each in tombstones.current()} == {each.id for each in lasting}
    assert len(paths) == 2
    tombstones.refresh()
    assert len(paths) == 2
    done = lasting[0].model_copy(update={"done_at": now, "reason": "asked to, twice"})
    erasures.save(store, done)
    assert done in tombstones.current()
    assert len(paths) == 3
    assert [each.id for each in erasures.read_all(store)] == sorted(each.id for each in (*lasting, expired))


def test_erasure_that_cannot_be_read_is_skipped(store: ObjectStore) -> None:
    store.write(f"erasures/until=9999-12-31/{new_event_id()}.json", b"{")
    assert Tombstones(store).current() == []


def test_covering_is_decided_by_the_times_before_an_erasure(store: ObjectStore) -> None:
    write_slice(store, 1)
    store.write_parquet(merged_path(window(0, 2), DAY), table(0, 2))
    erase(store, erasure({6: None}))  # the leftover is written after the merged file, or before it
    (file,) = list_files(store, TOPIC)
    assert file.is_merged
    assert not is_covered(list_slices(store, TOPIC)[0], [file]) or len(read_all(store)) == 3 * ROWS - 2


def test_damaged_column_is_named(store: ObjectStore) -> None:
    write_slice(store, 0)
    damage(store, slice_path(window(0)), "x")
    with pytest.raises(ArchiveUnreadable, match=slice_path(window(0))):
        FileEraser(store).run(TOPIC, 0, [erasure({1: None})])


def test_file_that_is_gone_when_it_is_opened_is_not_taken_for_damaged(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_slice(store, 0)

    def gone(*_: object, **__: object) -> None:
        raise FileNotFoundError("gone")  # without a number, as the clients of object stores do

    monkeypatch.setattr(store._files, "open", gone)
    assert FileEraser(store).run(TOPIC, 0, [erasure({1: None})]) == []


def test_who_waits_for_a_listing_that_fails_does_not_list_again(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, waits, may_fail = threading.Event(), threading.Event(), threading.Event()

    class NotedLock:
        """Notes that somebody waits for it."""

        def __init__(self) -> None:
            self.lock = threading.Lock()

        def __enter__(self) -> None:
            if begun.is_set():
                waits.set()
            self.lock.acquire()

        def __exit__(self, *_: object) -> None:
            self.lock.release()

    tombstones = Tombstones(store)
    monkeypatch.setattr(tombstones, "_lock", NotedLock())
    listings: list[str] = []

    def fail(prefix: str) -> list[StoredObject]:
        listings.append(prefix)
        begun.set()
        may_fail.wait(30)
        raise StorageUnavailable("no answer")

    monkeypatch.setattr(store, "list_objects", fail)
    with ThreadPoolExecutor(2) as threads:
        background = threads.submit(tombstones.refresh)
        assert begun.wait(30)
        waiting = threads.submit(tombstones.current)
        assert waits.wait(30)
        may_fail.set()
        for each in (background, waiting):
            with pytest.raises(StorageUnavailable, match="no answer"):
                each.result(30)
    assert len(listings) == 1
