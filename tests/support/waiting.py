"""Waiting for a condition."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T | None], description: str, seconds: float = 180) -> T:
    """Return the first result of ``condition`` that is not ``None``.

    Raises:
        AssertionError: ``seconds`` have passed; the message has the ``description`` of the condition.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (value := condition()) is not None:
            return value
        time.sleep(0.2)
    raise AssertionError(f"timed out after {seconds:g} s: {description}")
