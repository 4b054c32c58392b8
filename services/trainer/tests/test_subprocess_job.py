"""Work in a process of its own: what it tells, how it ends, and that it does not outlive who began it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from trainer.retrain.subprocess_job import Again, Child, Ended, Tell, Told

LONG = 600


def greets(argument: str, tell: Tell) -> str:
    tell("first", "half of it")
    return f"hello {argument}"


def needs_what_is_away(_: str, __: Tell) -> str:
    raise Again("the bucket is away")


def fails(_: str, __: Tell) -> str:
    raise ValueError("no such column")


def sleeps(_: str, tell: Tell) -> str:
    tell("asleep", str(os.getpid()))
    time.sleep(LONG)
    return ""


def grows(_: str, __: Tell) -> str:
    held = bytearray(300 * 2**20)
    held[:: 2**12] = b"x" * len(held[:: 2**12])
    time.sleep(LONG)
    return ""


@pytest.fixture
def begin() -> Iterator[Callable[..., Child]]:
    """Begins a child that is ended after the test."""
    begun: list[Child] = []

    def begin(
        work: Callable[[str, Tell], str], argument: str = "", seconds: float = 60, megabytes: float | None = None
    ) -> Child:
        begun.append(Child(work, argument, seconds=seconds, megabytes=megabytes))
        return begun[-1]

    yield begin
    for child in begun:
        child.kill()


def end(child: Child) -> Ended:
    """How it ends."""
    deadline = time.monotonic() + 60
    while (ended := child.ended()) is None:
        assert time.monotonic() < deadline, "it goes on"
        time.sleep(0.01)
    return ended


def told(child: Child) -> list[Told]:
    """What it tells next."""
    deadline = time.monotonic() + 60
    while not (found := child.told()):
        assert time.monotonic() < deadline, "it tells nothing"
        time.sleep(0.01)
    return found


def test_what_it_tells_and_returns_arrives(begin: Callable[..., Child]) -> None:
    child = begin(greets, "world")
    assert told(child)[0] == Told("first", "half of it")
    assert end(child) == Ended("done", "hello world")


@pytest.mark.parametrize(
    ("work", "ended"),
    [
        (needs_what_is_away, Ended("again", "the bucket is away")),
        (fails, Ended("failed", "ValueError: no such column")),
    ],
)
def test_an_exception_says_whether_to_begin_again(begin: Callable[..., Child], work: object, ended: Ended) -> None:
    assert end(begin(work)) == ended


def test_more_time_than_it_may_take_is_a_failure_that_names_the_setting(begin: Callable[..., Child]) -> None:
    child = begin(sleeps, seconds=0.5)
    assert end(child) == Ended("failed", "it took more than 0.5 s (DRIFTLOOP_TRAINER__LONGEST_TRAINING_SECONDS)")
    assert not psutil.pid_exists(child.pid)


def test_more_memory_than_it_may_take_is_a_failure_that_names_the_setting(begin: Callable[..., Child]) -> None:
    how, why = end(begin(grows, megabytes=200))
    assert how == "failed"
    assert "more than 200 (DRIFTLOOP_TRAINER__MEMORY_MB)" in why


def test_a_child_that_is_killed_from_outside_says_so(begin: Callable[..., Child]) -> None:
    child = begin(sleeps)
    told(child)
    psutil.Process(child.pid).kill()
    assert end(child).how == "killed"


PARENT = """
import os, time
from trainer.retrain.subprocess_job import Child

def sleeps(_, tell):
    tell("asleep", str(os.getpid()))
    time.sleep(600)

if __name__ == "__main__":
    child = Child(sleeps, "", seconds=600, megabytes=None)
    while not (found := child.told()):
        time.sleep(0.01)
    print(found[0].words, flush=True)
    time.sleep(600)
"""


def test_a_child_ends_with_who_began_it(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    child.wait(20)
