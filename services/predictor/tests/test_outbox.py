"""The outbox keeps events until they are deleted, whichever processes write, read or die."""

import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from driftloop.events import Outcome
from driftloop.kafka.codec import SerializedEvent, serialize
from predictor.outbox.outbox import EventTooLarge, Outbox, OutboxUnavailable
from predictor.settings import OutboxSettings


def make_events(count: int, name: str = "a") -> list[SerializedEvent]:
    return [serialize(Outcome(prediction_id=f"{name}-{number}", index=0, outcome=1)) for number in range(count)]


def keys(outbox: Outbox) -> list[str]:
    return [event.key for _, event in outbox.read_after(0, 10_000)]


def test_outbox_returns_events_in_order_of_append(outbox: Outbox) -> None:
    outbox.append(make_events(2))
    outbox.append(make_events(2, "b"))
    page = outbox.read_after(0, 3)
    assert [event.key for _, event in page] == ["a-0", "a-1", "b-0"]
    assert [event.key for _, event in outbox.read_after(page[-1][0], 3)] == ["b-1"]


def test_outbox_never_reuses_positions(outbox: Outbox) -> None:
    outbox.append(make_events(3))
    last = outbox.read_after(0, 10)[-1][0]
    outbox.delete_through(last)
    outbox.append(make_events(1))
    assert outbox.read_after(0, 10)[0][0] > last


def test_outbox_depth_is_count_and_age_of_pending_events(outbox: Outbox) -> None:
    assert outbox.depth() == (0, 0)
    outbox.append(make_events(5))
    outbox.delete_through(outbox.read_after(0, 2)[-1][0])
    depth = outbox.depth()
    assert depth.events == 3
    assert 0 <= depth.age_seconds < 60


def test_outbox_reopened_has_same_name_and_events(tmp_path: Path) -> None:
    first = Outbox(tmp_path, OutboxSettings())
    first.append(make_events(2))
    second = Outbox(tmp_path, OutboxSettings())
    assert (second.name, keys(second)) == (first.name, ["a-0", "a-1"])
    assert Outbox(tmp_path / "other", OutboxSettings()).name != first.name


def test_outbox_of_killed_process_has_committed_events_only(tmp_path: Path) -> None:
    code = """
import os, sys, pathlib
from driftloop.kafka.codec import serialize
from driftloop.events import Outcome
from predictor.outbox.outbox import Outbox
from predictor.settings import OutboxSettings
outbox = Outbox(pathlib.Path(sys.argv[1]), OutboxSettings())
outbox.append([serialize(Outcome(prediction_id="committed", index=0, outcome=1))])
outbox._db.execute("BEGIN IMMEDIATE")
columns = "stored_at, type, id, time, key, value"
outbox._db.execute(f"INSERT INTO events ({columns}) SELECT stored_at, type, id, time, 'open', value FROM events")
os.kill(os.getpid(), 9)
"""
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=os.environ, check=False, timeout=60)
    assert killed.returncode == -9
    assert keys(Outbox(tmp_path, OutboxSettings())) == ["committed"]


def test_outbox_can_be_written_and_read_concurrently(tmp_path: Path) -> None:
    outboxes = [Outbox(tmp_path, OutboxSettings()) for _ in range(4)]

    def write(number: int) -> None:
        for turn in range(25):
            outboxes[number].append(make_events(2, f"{number}-{turn}"))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    reader = Outbox(tmp_path, OutboxSettings(), durable=False)
    seen: list[tuple[int, SerializedEvent]] = []
    while any(thread.is_alive() for thread in threads) or reader.depth().events:
        new = reader.read_after(seen[-1][0] if seen else 0, 7)
        seen += new
        if new:
            reader.delete_through(new[-1][0])
    assert len({event.key for _, event in seen}) == len(seen) == 200


def test_outbox_full_has_no_capacity_until_events_are_deleted(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, OutboxSettings(max_events=2))
    outbox.require_capacity()
    outbox.append(make_events(2))
    with pytest.raises(OutboxUnavailable, match=r"2 events .*DRIFTLOOP_OUTBOX__MAX_EVENTS"):
        outbox.require_capacity()
    outbox.delete_through(10)
    outbox.require_capacity()


def test_outbox_rejects_event_larger_than_limit(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, OutboxSettings(max_event_bytes=1_000))
    (event,) = make_events(1)
    outbox.require_size(event)
    with pytest.raises(EventTooLarge, match=r"2,000 bytes.*DRIFTLOOP_OUTBOX__MAX_EVENT_BYTES"):
        outbox.require_size(event._replace(value=b" " * 2_000))


def test_outbox_append_to_full_disk_stores_nothing(outbox: Outbox) -> None:
    outbox._db.execute(f"PRAGMA max_page_count = {outbox._db.execute('PRAGMA page_count').fetchone()[0] + 2}")
    with pytest.raises(OutboxUnavailable, match="full"):
        outbox.append([event._replace(value=b" " * 100_000) for event in make_events(2)])
    assert keys(outbox) == []
    outbox._db.execute("PRAGMA max_page_count = 1000000")
    outbox.append(make_events(1))
    assert keys(outbox) == ["a-0"]


def test_outbox_rejects_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "outbox.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(OSError, match=r"outbox\.sqlite cannot be opened .*DRIFTLOOP_PREDICTOR__DATA_DIR"):
        Outbox(tmp_path, OutboxSettings())


def test_outbox_commits_are_durable_unless_disabled(tmp_path: Path) -> None:
    def level(outbox: Outbox) -> int:
        return int(outbox._db.execute("PRAGMA synchronous").fetchone()[0])

    assert level(Outbox(tmp_path, OutboxSettings())) == 2  # FULL
    assert level(Outbox(tmp_path, OutboxSettings(fsync=False))) == 1  # NORMAL
    assert level(Outbox(tmp_path, OutboxSettings(), durable=False)) == 1
    assert sqlite3.connect(tmp_path / "outbox.sqlite").execute("PRAGMA journal_mode").fetchone() == ("wal",)
