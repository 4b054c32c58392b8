"""Supervision restarts the relay's process when it ends, and ends it with the block."""

import sys
import time
from pathlib import Path

import psutil
import pytest

from predictor.outbox import supervision
from predictor.outbox.supervision import supervised_relay
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

# Appends its process id to a file, then runs until its parent closes the lifeline.
RELAY = """
import os, sys, threading
from driftloop.process import exit_with_parent
exit_with_parent()
print(os.getpid(), file=open(sys.argv[1], "a"), flush=True)
threading.Event().wait()
"""


@pytest.fixture
def pid_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "pids"
    path.touch()
    monkeypatch.setattr(supervision, "module_command", lambda _: [sys.executable, "-c", RELAY, str(path)])
    monkeypatch.setattr(supervision, "RESTART_SECONDS", 0.01)
    return path


def pids(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()]


def wait_for_pids(path: Path, count: int) -> list[int]:
    return wait_until(lambda: started if len(started := pids(path)) >= count else None, f"{count} starts", seconds=20)


def test_supervised_relay_is_restarted_after_a_kill(pid_file: Path) -> None:
    with supervised_relay():
        (first,) = wait_for_pids(pid_file, 1)
        psutil.Process(first).kill()
        assert wait_for_pids(pid_file, 2)[1] != first


def test_supervised_relay_ends_with_the_block(pid_file: Path) -> None:
    with supervised_relay():
        (pid,) = wait_for_pids(pid_file, 1)
        process = psutil.Process(pid)
    assert not process.is_running()
    time.sleep(0.1)
    assert pids(pid_file) == [pid]
