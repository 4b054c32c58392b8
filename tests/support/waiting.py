"""Waiting for a condition."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T | None], description: str, seconds: float = 180) -> T:
    """Return the first result of ``condition`` that is not ``None``.

    Raises:
        AssertionError: ``seconds`` have passed; names the ``description`` of what was waited for.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (value := condition()) is not None:
            return value
        time.sleep(0.2)
    raise AssertionError(f"waited {seconds:g} s in vain: {description}")
