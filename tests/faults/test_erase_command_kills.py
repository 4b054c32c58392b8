"""``driftloop archive erase`` as a process that is killed: nothing else is lost, and the next run ends it.

Runs against Kafka and an object store, with rows in the archive, on the topic, or on both.
"""

import random
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from driftloop.archive import erasures
from driftloop.archive.layout import list_files
from driftloop.archive.tables import predictions_table
from driftloop.events import Prediction, Window
from driftloop.kafka import reader, topics
from driftloop.kafka.publisher import Publisher
from driftloop.storage.object_store import ObjectStore
from stack.running import Stack
from tests.support import erase_command
from tests.support.archived_rows import archive_rows
from tests.support.running_stack import isolated_settings
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

KILLS = 30
KEYS_PER_KILL, ROWS_PER_KEY = 4, 3
SLICES_PER_KILL, EVENTS_PER_SLICE, EVENT_ROWS = 3, 4, 10
MAX_SECONDS = 2.0  # until a kill; an undisturbed command takes about as long
MAX_SECONDS_AFTER_BEGIN = 0.1
MANY_KEYS, MANY_EVENT_ROWS, MANY_SLICES = 100_000, 1_000, 200
MAX_MANY_SECONDS = 300
MODEL, TOPIC = "m", "predictions"

processes = get_context("forkserver")  # a fork of a process that has imported everything starts in milliseconds
processes.set_forkserver_preload([erase_command.__name__])


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """Kafka with the topics, and the object store."""
    stack = Stack(isolated_settings(tmp_path / "stack"), print, services_to_start=())
    try:
        for name in ("kafka", "gcs"):
            stack.start(name)
        topics.create(stack.kafka, stack.topics)
        yield stack
    finally:
        stack.stop()


def start_erase(stack: Stack, folder: Path, keys: Iterable[str]) -> BaseProcess:
    """Start the command for some keys."""
    file = folder / "keys.txt"
    file.write_text("\n".join(sorted(keys)))
    process = processes.Process(target=erase_command.run_erase, args=(stack.environment, file, folder / "output.txt"))
    process.start()
    return process


def finish_erase(stack: Stack, folder: Path, keys: Iterable[str]) -> None:
    process = start_erase(stack, folder, keys)
    try:
        process.join(MAX_MANY_SECONDS)
        assert process.exitcode == 0, (folder / "output.txt").read_text()[-2_000:]
    finally:
        process.kill()


def make_event(keys: Collection[str]) -> Prediction:
    return Prediction(
        model=MODEL, version="1", features={"x": [1.0] * len(keys)}, predictions=[0.5] * len(keys), keys=list(keys)
    )


def archive_events(store: ObjectStore, first_offset: int, events: Collection[Prediction], partition: int = 0) -> int:
    """Archive a slice that has the events; return the offset after them."""
    end = first_offset + len(events)
    window = Window(topic=TOPIC, partition=partition, first_offset=first_offset, last_offset=end - 1)
    table = predictions_table(list(events), range(first_offset, end))
    archive_rows(store, window, table, datetime.now(UTC).date())
    return end


def archived_keys(store: ObjectStore) -> Counter[str]:
    """Return how many archived rows have each key."""
    files = list_files(store, TOPIC)
    return Counter(key for file in files for key in store.read_table(file.path, ["_key"])["_key"].to_pylist())


def keys_of_readers(stack: Stack, store: ObjectStore) -> set[str]:
    """Return the keys that readers find on the topic, who leave out what is erased."""
    tombstones = erasures.Tombstones(store)
    starts = dict.fromkeys(reader.topic_bounds(stack.kafka, TOPIC), 0)
    found: set[str] = set()
    for records in reader.read_records(stack.kafka, TOPIC, starts):
        for record in records:
            event = Prediction.model_validate_json(record.value)
            left = tombstones.event_left(record, event)
            found.update(key for key in (left.keys if isinstance(left, Prediction) and left.keys else ()) if key)
    return found


@pytest.mark.timeout(1_200)
def test_killed_erase_loses_nothing_else_and_a_later_run_ends_it(
    stack: Stack, tmp_path: Path, random_source: random.Random
) -> None:
    store, end, number = ObjectStore(stack.storage), 0, 0
    written, asked = Counter[str](), set[str]()
    on_topic: set[str] = set()
    for kill in range(KILLS):
        for _ in range(SLICES_PER_KILL):
            batch = []
            for _ in range(EVENTS_PER_SLICE):
                keys = [f"key-{(number + row) // ROWS_PER_KEY:06}-" for row in range(EVENT_ROWS)]
                number += EVENT_ROWS
                batch.append(make_event(keys))
                written.update(keys)
            end = archive_events(store, end, batch, partition=7)  # of a topic that has lost its messages
        message = [f"message-{kill:03}-{row}-" for row in range(EVENT_ROWS)]
        with Publisher(stack.kafka, stack.topics, "test") as publisher:
            publisher.publish(make_event(message))
        on_topic.update(message)
        asked.update(random_source.sample(sorted(set(written) - asked), KEYS_PER_KILL), message[: kill % 3])
        known = len(store.list_paths("erasures/"))
        process = start_erase(stack, tmp_path, asked)
        if kill % 2:  # once it has begun to erase
            wait_until(
                lambda: (known < len(store.list_paths("erasures/")) or not process.is_alive()) or None,  # noqa: B023
                "the erasure has begun",
            )
            time.sleep(random_source.uniform(0, MAX_SECONDS_AFTER_BEGIN))  # the kill's moment
        else:
            process.join(random_source.uniform(0, MAX_SECONDS))
        process.kill()
        process.join()
        found = archived_keys(store)
        wrong = {key: found[key] for key in written if key not in asked and found[key] != written[key]}
        assert not wrong, f"kill {kill}: rows by key {wrong}"
        assert all(found[key] <= written[key] for key in asked), f"kill {kill}: rows are read twice"

    states = Counter(erasure.done_at is not None for erasure in erasures.read_all(store))
    output = (tmp_path / "output.txt").read_text()
    print(f"\n{KILLS} kills: {states[True]} erasures done, {states[False]} begun, {output.count('goes on')} went on")
    assert "goes on" in output or states[False], "no kill has met an erasure that had begun"
    finish_erase(stack, tmp_path, asked)
    assert all(erasure.done_at is not None for erasure in erasures.read_all(store))
    assert archived_keys(store) == Counter({key: rows for key, rows in written.items() if key not in asked})
    assert keys_of_readers(stack, store) == on_topic - asked
    for path in store.list_paths(""):
        content = store.read(path)
        content += store.read_parquet(path).to_csv().encode() if content.startswith(b"PAR1") else b""
        assert not [key for key in asked if key.encode() in content], path


@pytest.mark.timeout(1_200)
def test_erases_many_keys_of_a_file(stack: Stack, tmp_path: Path) -> None:
    store, end = ObjectStore(stack.storage), 0
    every = [f"key-{number:06}-" for number in range(MANY_SLICES * MANY_EVENT_ROWS)]
    for number in range(MANY_SLICES):
        event = make_event(every[number * MANY_EVENT_ROWS : (number + 1) * MANY_EVENT_ROWS])
        end = archive_events(store, end, [event], partition=7)
    with Publisher(stack.kafka, stack.topics, "test") as publisher:
        publisher.publish(make_event(every[:2]))
    asked = set(every[::2])
    assert len(asked) == MANY_KEYS
    began = time.monotonic()
    finish_erase(stack, tmp_path, asked)
    print(f"\n{MANY_KEYS:,} keys in {len(every):,} rows: {time.monotonic() - began:.1f} s")
    assert set(archived_keys(store)) == set(every[1::2])
    assert keys_of_readers(stack, store) == {every[1]}
