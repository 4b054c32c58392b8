"""Faults that tests inject: stopped components, and delays of random length."""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
from mirakuru.exceptions import ExecutorError, ProcessFinishedWithError

from stack.running import Stack
from tests.support.processes import process_tree


@contextmanager
def stopped(stack: Stack, name: str, *, kill: bool = False) -> Iterator[None]:
    """Stop a component of the stack for the duration of the block, then start it again; ``kill`` sends SIGKILL."""
    executor = stack.executors[name]
    if kill:
        executor.kill()
    else:
        with suppress(ProcessFinishedWithError):
            executor.stop()
    try:
        yield
    finally:
        stack.start(name)


def kill_component(stack: Stack, name: str) -> None:
    """Kill all processes of a component at once, and wait for their ends."""
    executor = stack.executors[name]
    processes = [] if executor.process is None else process_tree(executor.process.pid)
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    with suppress(ExecutorError):  # mirakuru reports that the process has ended, which is what was wanted
        executor.kill()
    psutil.wait_procs(processes)


def random_delay(source: random.Random, seconds: float = 2) -> None:
    """Wait for a random time of at most ``seconds``, so that a fault can occur at any moment."""
    time.sleep(source.uniform(0.1, seconds))
