"""Pauses between the attempts of a consumer loop at something that fails now and may work later."""

import threading
import time

import structlog

from driftloop.errors import DriftloopError
from driftloop.telemetry.health import Health

log = structlog.get_logger(__name__)

DEADLINE_SECONDS = 900  # then give up and exit, so that the supervisor and an operator notice
NEW_SERIES_SECONDS = 120  # longer than a pause and an attempt, which the watchdog ends after a minute


class Retries:
    """The attempts at one thing, which count as one series until it succeeds."""

    def __init__(self, component: str, health: Health, max_pause_seconds: float) -> None:
        """Start without a failed attempt.

        Args:
            component: What fails, as readiness names it.
            health: Is not ready between a failed attempt and a success.
            max_pause_seconds: The longest pause, at most half of the time after which the watchdog ends the process.
        """
        self._component = component
        self._health = health
        self._max_pause_seconds = max_pause_seconds
        self._first_failed_at = 0.0
        self._last_failed_at: float | None = None

    def pause(self, error: DriftloopError, stop: threading.Event) -> None:
        """Pause for as long as the series has lasted so far, or until ``stop`` is set.

        Args:
            error: What the attempt has raised; raised again if the series has lasted for ``DEADLINE_SECONDS``.
            stop: Ends the pause.
        """
        now = time.monotonic()
        if self._last_failed_at is None or now - self._last_failed_at > NEW_SERIES_SECONDS:
            self._first_failed_at = now
        self._last_failed_at = now
        elapsed = now - self._first_failed_at
        if elapsed > DEADLINE_SECONDS:
            raise error
        seconds = min(max(elapsed, 1), self._max_pause_seconds)
        log.warning(
            "consumer.retry_scheduled",
            component=self._component,
            seconds=seconds,
            retrying_seconds=elapsed,
            error=str(error),
        )
        self._health.mark_unavailable(self._component, str(error))
        self._health.heartbeat()  # the attempt that has failed may have taken half of the watchdog's time, too
        stop.wait(seconds)
        self._health.heartbeat()

    def end_old_series(self) -> None:
        """Record a success if the last failure is so long ago that the next one begins another series."""
        if self._last_failed_at is not None and time.monotonic() - self._last_failed_at > NEW_SERIES_SECONDS:
            self.end_series()

    def end_series(self) -> None:
        """Record a success: the next failure begins another series."""
        self._last_failed_at = None
        self._health.mark_available(self._component)
