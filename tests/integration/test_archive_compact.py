"""``driftloop archive compact`` as a process that is killed: each row is read once at every moment."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from driftloop.archive.layout import list_all_merged
from driftloop.storage.object_store import ObjectStore
from tests.support.archived_slices import TOPIC, archive_slices, expected_ids, read_ids
from tests.support.folder_store import folder_store

pytestmark = pytest.mark.integration

KILLS = 12
KEPT = 10
"""Latest slices that are not touched; in production 300."""
DAYS_PER_KILL = 3
SLICES_PER_KILL = DAYS_PER_KILL * 24
FILE_SECONDS = 0.2
"""About how long a command takes to write a file and to delete its slices, if it has a processor."""
COMMAND = f"""
from driftloop.evaluation import quality_settings
from driftloop.kafka import reader
from driftloop.kafka.transactional_producer import CommittedPosition
def committed_positions(*_):  # what the broker says; the archive is the matter here
    print("begins", flush=True)
    return {{({TOPIC!r}, 0): CommittedPosition(10**9)}}
reader.committed_positions = committed_positions
quality_settings.COMMITTED_SLICES = {KEPT}
from driftloop_cli.main import app
app(["archive", "compact"])
"""


class Compaction:
    """The command, and the folder that it works on."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self.store: ObjectStore = folder_store(folder)
        scratch.mkdir()
        self._environment = {
            **os.environ,
            "DRIFTLOOP_STORAGE__URL": folder.as_uri(),
            "DRIFTLOOP_QUALITY__PREDICTION_LOOKBACK_SLICES": "1",
            "TMPDIR": str(scratch),
        }
        self.scratch = scratch

    def start(self) -> "subprocess.Popen[str]":
        """Start the command, and return when it begins to work."""
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "begins\n"
        return process


@pytest.fixture
def compaction(tmp_path: Path) -> Compaction:
    return Compaction(tmp_path / "store", tmp_path / "scratch")


@contextmanager
def reading_all_the_time(store: ObjectStore, expected: list[int]) -> Iterator[list[str]]:
    """Read the archive again and again; collects rows that are not read once of the slices that are there by then."""
    problems: list[str] = []
    reads: list[None] = []
    is_over = threading.Event()

    def read() -> None:
        while not is_over.wait(0.1):  # the commands need the processor
            before = expected_ids(range(expected[0]))
            found = Counter(read_ids(store))
            reads.append(None)
            problems.extend(f"{row} {found[row]} times" for row in before if found[row] != 1)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield problems
    finally:
        is_over.set()
        thread.join()
        assert len(reads) > KILLS


@pytest.mark.timeout(1_800)  # each of the processes imports for seconds
def test_killed_command_leaves_each_row_once_and_the_next_one_ends_it(
    compaction: Compaction, random_source: random.Random
) -> None:
    store, slices = compaction.store, KEPT
    archive_slices(store, range(slices))
    written = [slices]
    kills = 0
    with reading_all_the_time(store, written) as problems:
        while kills < KILLS:
            archive_slices(store, range(slices, slices + SLICES_PER_KILL))
            slices += SLICES_PER_KILL
            written[0] = slices
            process = compaction.start()
            rival = compaction.start() if random_source.random() < 0.3 else None
            assert process.stderr is not None
            for _ in range(random_source.randint(0, DAYS_PER_KILL)):
                process.stderr.readline()  # a file is merged, or the command ends
            time.sleep(random_source.uniform(0, FILE_SECONDS))  # the kill's moment
            for each in (process, rival):
                if each is not None:
                    kills += each.poll() is None
                    each.kill()
                    each.communicate()
            assert read_ids(store) == expected_ids(range(slices)), f"after kill {kills}"
        process = compaction.start()
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert problems == []
    assert read_ids(store) == expected_ids(range(slices))
    assert list(compaction.scratch.glob("driftloop-merge-*")) == []
    merged = list_all_merged(store, TOPIC)
    assert len(merged) == len({file.day for file in merged}) >= (slices - KEPT) // 24 - 1


def test_terminated_command_stops_between_two_files(compaction: Compaction) -> None:
    archive_slices(compaction.store, range(KEPT + 240))
    process = compaction.start()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode in (128 + signal.SIGTERM, -signal.SIGTERM)  # before it listens, it ends at once
    assert "Traceback" not in errors
    assert read_ids(compaction.store) == expected_ids(range(KEPT + 240))


def test_broker_that_is_away_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    environment = {
        **os.environ,
        "DRIFTLOOP_STORAGE__URL": (tmp_path / "store").as_uri(),
        "DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1",
    }
    for command in ("status", "compact"):
        done = subprocess.run(
            [sys.executable, "-c", f"from driftloop_cli.main import app; app(['archive', {command!r}])"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (done.returncode, done.stdout) == (6, "")
        assert "DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS" in done.stderr
        assert "Traceback" not in done.stderr
