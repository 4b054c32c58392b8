"""What is in the outbox stays there until it is trimmed, whoever writes and whoever dies."""

import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from driftloop.events import Outcome
from driftloop.kafka.codec import Written, written
from predictor import settings
from predictor.outbox.outbox import NotKept, Outbox, TooLarge


def some(count: int, name: str = "a") -> list[Written]:
    return [written(Outcome(prediction_id=f"{name}-{number}", index=0, outcome=1)) for number in range(count)]


def keys(outbox: Outbox) -> list[str]:
    return [event.key for _, event in outbox.after(0, 10_000)]


def test_events_are_read_in_the_order_in_which_they_were_kept(outbox: Outbox) -> None:
    outbox.keep(some(2))
    outbox.keep(some(2, "b"))
    first = outbox.after(0, 3)
    assert [event.key for _, event in first] == ["a-0", "a-1", "b-0"]
    assert [event.key for _, event in outbox.after(first[-1][0], 3)] == ["b-1"]


def test_positions_are_never_given_twice(outbox: Outbox) -> None:
    outbox.keep(some(3))
    last = outbox.after(0, 10)[-1][0]
    outbox.trim(last)
    outbox.keep(some(1))
    assert outbox.after(0, 10)[0][0] > last


def test_depth_counts_what_waits_and_how_long(outbox: Outbox) -> None:
    assert outbox.depth() == (0, 0)
    outbox.keep(some(5))
    outbox.trim(outbox.after(0, 2)[-1][0])
    depth = outbox.depth()
    assert depth.events == 3
    assert 0 <= depth.age_seconds < 60


def test_an_outbox_is_taken_over_with_its_name_and_what_is_in_it(tmp_path: Path) -> None:
    one = Outbox(tmp_path, settings.Outbox())
    one.keep(some(2))
    two = Outbox(tmp_path, settings.Outbox())
    assert (two.name, keys(two)) == (one.name, ["a-0", "a-1"])
    assert Outbox(tmp_path / "other", settings.Outbox()).name != one.name


def test_what_a_killed_process_has_kept_is_there(tmp_path: Path) -> None:
    code = """
import os, sys, pathlib
from driftloop.kafka.codec import written
from driftloop.events import Outcome
from predictor import settings
from predictor.outbox.outbox import Outbox
outbox = Outbox(pathlib.Path(sys.argv[1]), settings.Outbox())
outbox.keep([written(Outcome(prediction_id="kept", index=0, outcome=1))])
outbox._db.execute("BEGIN IMMEDIATE")
columns = "kept, type, id, time, key, value"
outbox._db.execute(f"INSERT INTO events ({columns}) SELECT kept, type, id, time, 'open', value FROM events")
os.kill(os.getpid(), 9)
"""
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=os.environ, check=False, timeout=60)
    assert killed.returncode == -9
    assert keys(Outbox(tmp_path, settings.Outbox())) == ["kept"]


def test_several_processes_may_write_one_outbox(tmp_path: Path) -> None:
    boxes = [Outbox(tmp_path, settings.Outbox()) for _ in range(4)]

    def write(number: int) -> None:
        for turn in range(25):
            boxes[number].keep(some(2, f"{number}-{turn}"))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    reader = Outbox(tmp_path, settings.Outbox(), durable=False)
    seen: list[tuple[int, Written]] = []
    while any(thread.is_alive() for thread in threads) or reader.depth().events:
        new = reader.after(seen[-1][0] if seen else 0, 7)
        seen += new
        if new:
            reader.trim(new[-1][0])
    assert len({event.key for _, event in seen}) == len(seen) == 200


def test_a_full_outbox_refuses_until_there_is_room(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, settings.Outbox(max_events=2))
    outbox.check_room()
    outbox.keep(some(2))
    with pytest.raises(NotKept, match=r"2 events wait .*DRIFTLOOP_OUTBOX__MAX_EVENTS"):
        outbox.check_room()
    outbox.trim(10)
    outbox.check_room()


def test_too_large_an_event_is_refused_with_the_setting(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, settings.Outbox(max_event_bytes=1_000))
    (event,) = some(1)
    outbox.check(event)
    with pytest.raises(TooLarge, match=r"2,000 bytes.*DRIFTLOOP_OUTBOX__MAX_EVENT_BYTES"):
        outbox.check(event._replace(value=b" " * 2_000))


def test_a_full_disk_keeps_nothing_and_says_so(outbox: Outbox) -> None:
    outbox._db.execute(f"PRAGMA max_page_count = {outbox._db.execute('PRAGMA page_count').fetchone()[0] + 2}")
    with pytest.raises(NotKept, match="full"):
        outbox.keep([event._replace(value=b" " * 100_000) for event in some(2)])
    assert keys(outbox) == []
    outbox._db.execute("PRAGMA max_page_count = 1000000")
    outbox.keep(some(1))
    assert keys(outbox) == ["a-0"]


def test_a_file_that_is_no_outbox_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "outbox.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(OSError, match=r"outbox\.sqlite cannot be opened .*DRIFTLOOP_PREDICTOR__FOLDER"):
        Outbox(tmp_path, settings.Outbox())


def test_each_commit_waits_for_the_disk_unless_the_settings_say_otherwise(tmp_path: Path) -> None:
    def level(outbox: Outbox) -> int:
        return int(outbox._db.execute("PRAGMA synchronous").fetchone()[0])

    assert level(Outbox(tmp_path, settings.Outbox())) == 2  # FULL
    assert level(Outbox(tmp_path, settings.Outbox(sync=False))) == 1  # NORMAL
    assert level(Outbox(tmp_path, settings.Outbox(), durable=False)) == 1
    assert sqlite3.connect(tmp_path / "outbox.sqlite").execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_file_that_an_earlier_driftloop_made_goes_on(tmp_path: Path) -> None:
    """Its events have no trace, those that come behind them may."""
    outbox = Outbox(tmp_path, settings.Outbox())
    outbox.close()
    with sqlite3.connect(tmp_path / "outbox.sqlite") as db:
        db.execute("ALTER TABLE events DROP COLUMN traceparent")
        earlier = some(1)[0][:-1]
        db.execute("INSERT INTO events (kept, type, id, time, key, value) VALUES (1, ?, ?, ?, ?, ?)", earlier)
    db.close()
    outbox = Outbox(tmp_path, settings.Outbox())
    outbox.keep([some(1, "b")[0]._replace(traceparent="t")])
    assert [(event.key, event.traceparent) for _, event in outbox.after(0, 10)] == [("a-0", None), ("b-0", "t")]
    outbox.close()
