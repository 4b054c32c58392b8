"""Background threads that follow something, such as a topic, for as long as their process lives."""

import threading
from collections.abc import Callable

import structlog

from driftloop.errors import DependencyUnavailable
from driftloop.telemetry import metrics
from driftloop.telemetry.health import Health

log = structlog.get_logger(__name__)

Task = Callable[[Callable[[], None]], None]
"""A function that follows something, and calls its argument whenever it has made progress."""


def start_background(task: str, follow: Task, health: Health, retry_seconds: float, stop: threading.Event) -> None:
    """Call :func:`run_until_stopped` in a daemon thread."""
    threading.Thread(
        target=run_until_stopped, args=(task, follow, health, retry_seconds, stop), name=task, daemon=True
    ).start()


def run_until_stopped(task: str, follow: Task, health: Health, retry_seconds: float, stop: threading.Event) -> None:
    """Call ``follow`` again and again until ``stop`` is set, whatever it raises.

    An exception is logged, counted, and a warning in readiness until ``follow`` makes progress.

    Args:
        task: The name in log, readiness and metrics.
        follow: See :data:`Task`.
        health: Where the warning is added.
        retry_seconds: The pause after ``follow`` has returned or raised.
        stop: Ends the calls, not a call under way.
    """
    while not stop.is_set():
        try:
            follow(lambda: health.clear_warning(task))
        except Exception as error:  # a thread that ends is not seen by anybody
            is_expected = isinstance(error, DependencyUnavailable)
            reason = str(error) if is_expected else f"{type(error).__name__}: {error}"
            log.warning("background.failed", task=task, error=reason, exc_info=not is_expected)
            health.add_warning(task, reason)
            metrics.BACKGROUND_FAILURES.labels(task).inc()
        stop.wait(retry_seconds)
