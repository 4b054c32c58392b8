"""Child processes: how they end, and that none outlives its parent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from driftloop.process import LIFELINE_VARIABLE, ChildProcess, exit_with_parent, module_command

TIMEOUT_SECONDS = 20

FOREVER = "import time; time.sleep(600)"
WATCHING = f"from driftloop.process import exit_with_parent; exit_with_parent(); print('ready', flush=True); {FOREVER}"


@pytest.fixture
def started() -> Iterator[list[ChildProcess]]:
    """Provide a list of processes that are killed after the test."""
    processes: list[ChildProcess] = []
    yield processes
    for process in processes:
        process.close()


def child_of_killed_parent(script: Path, code: str) -> psutil.Process:
    """Run ``code``, which prints the id of a child of its own, then kill it; return the child."""
    script.write_text(code)
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    assert child.is_running()
    parent.kill()
    parent.communicate()
    return child


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def has_ended(process: psutil.Process) -> bool:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_child_process_returns_output_and_exit_code(started: list[ChildProcess]) -> None:
    code = "import sys; print(sys.stdin.read().upper()); sys.exit('no such thing')"
    child = ChildProcess(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    started.append(child)
    child.write_line("first")
    assert child.communicate("second", TIMEOUT_SECONDS) == ("FIRST\nSECOND\n", "no such thing\n")
    assert child.exit_code == 1


def test_child_process_raises_if_program_does_not_exist() -> None:
    before = open_descriptors()
    with pytest.raises(OSError, match="nowhere"):
        ChildProcess(["/nowhere/python"])
    assert open_descriptors() == before


def test_child_process_times_out_and_still_runs(started: list[ChildProcess]) -> None:
    child = ChildProcess([sys.executable, "-c", FOREVER])
    started.append(child)
    with pytest.raises(subprocess.TimeoutExpired):
        child.communicate(timeout_seconds=0.1)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.1)
    assert child.exit_code is None


def test_child_process_stop_ends_child_by_its_lifeline(started: list[ChildProcess]) -> None:
    code = f"""
import os, time
from driftloop.process import exit_with_parent
exit_with_parent(lambda: os._exit(7))
print("ready", flush=True)
{FOREVER}
"""
    child = ChildProcess([sys.executable, "-c", code], stdout=subprocess.PIPE)
    started.append(child)
    assert child._process.stdout.readline() == "ready\n"  # type: ignore[union-attr]
    child.stop(TIMEOUT_SECONDS)
    assert child.exit_code == 7


def test_child_process_stop_kills_child_that_ignores_its_lifeline(started: list[ChildProcess]) -> None:
    child = ChildProcess([sys.executable, "-c", FOREVER])
    started.append(child)
    child.stop(0.1)
    assert child.exit_code == -signal.SIGKILL


def test_child_process_is_killed_at_the_end_of_its_block() -> None:
    with ChildProcess([sys.executable, "-c", FOREVER]) as child:
        process = psutil.Process(child.pid)
    assert not process.is_running()
    assert child.exit_code == -signal.SIGKILL


def test_child_process_leaves_no_open_descriptors() -> None:
    before = open_descriptors()
    with ChildProcess([sys.executable, "-c", ""], stdin=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        child.communicate()
    with ChildProcess([sys.executable, "-c", FOREVER], stdout=subprocess.PIPE):
        pass
    assert open_descriptors() == before


def test_exit_with_parent_ends_child_of_killed_parent(tmp_path: Path) -> None:
    code = f"""
import subprocess, sys, time
from driftloop.process import ChildProcess
child = ChildProcess([sys.executable, "-c", {WATCHING!r}], stdout=subprocess.PIPE)
child._process.stdout.readline()
print(child.pid, flush=True)
time.sleep(600)
"""
    assert has_ended(child_of_killed_parent(tmp_path / "parent.py", code))


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_exit_with_parent_ends_multiprocessing_child_of_killed_parent(tmp_path: Path, method: str) -> None:
    code = f"""
import multiprocessing, os, time
from driftloop.process import exit_with_parent

def work(connection):
    assert exit_with_parent()
    connection.send(os.getpid())
    time.sleep(600)

if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    here, there = context.Pipe()
    context.Process(target=work, args=(there,), daemon=True).start()
    print(here.recv(), flush=True)
    time.sleep(600)
"""
    assert has_ended(child_of_killed_parent(tmp_path / "parent.py", code))


def test_exit_with_parent_does_nothing_in_process_started_by_hand() -> None:
    assert LIFELINE_VARIABLE not in os.environ
    assert not exit_with_parent()


def test_exit_with_parent_hides_lifeline_from_grandchildren(started: list[ChildProcess]) -> None:
    code = f"""
import os
from driftloop.process import exit_with_parent
assert exit_with_parent()
print({LIFELINE_VARIABLE!r} in os.environ)
"""
    child = ChildProcess([sys.executable, "-c", code], stdout=subprocess.PIPE)
    started.append(child)
    assert child.communicate(timeout_seconds=TIMEOUT_SECONDS)[0] == "False\n"


def test_module_command_runs_a_module(started: list[ChildProcess]) -> None:
    child = ChildProcess(module_command("calendar", "2013", "2"), stdout=subprocess.PIPE)
    started.append(child)
    assert "February 2013" in child.communicate(timeout_seconds=TIMEOUT_SECONDS)[0]
