"""Faults that tests inject: stopped components, and delays of random length."""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from mirakuru.exceptions import ProcessFinishedWithError

from stack.running import Stack


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


def random_delay(source: random.Random, seconds: float = 2) -> None:
    """Wait for a random time of at most ``seconds``, so that a fault can occur at any moment."""
    time.sleep(source.uniform(0.1, seconds))
