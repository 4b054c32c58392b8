"""Liveness and readiness of a service, and a watchdog that ends a stalled process."""

import os
import sys
import threading
import time
import traceback

import structlog

WATCHDOG_INTERVAL_SECONDS = 1.0
MAX_FRAMES = 12  # of a stalled loop: from a library's call that waits back to the project's own code


class Health:
    """The health of a service: whether its loop makes progress, and which dependencies are unavailable.

    Liveness is progress: the loop calls :meth:`heartbeat` itself, so a process that merely exists does not count.
    Readiness means that the service can do its work now. Both name the reason when they are lost.
    """

    def __init__(self, stall_seconds: float = 60) -> None:
        """Start as not ready. Without a heartbeat for ``stall_seconds`` the service counts as stalled."""
        self._stall_seconds = stall_seconds
        self._last_heartbeat = time.monotonic()
        self._loop_thread = threading.get_ident()
        self._unavailable: dict[str, str] = {"start": "starting"}
        self._warnings: dict[str, str] = {}

    def heartbeat(self) -> None:
        """Record that the loop made progress; it runs in the calling thread."""
        self._last_heartbeat = time.monotonic()
        self._loop_thread = threading.get_ident()

    def keep_alive(self) -> None:
        """Record that another thread makes progress with what the loop waits for."""
        self._last_heartbeat = time.monotonic()

    def mark_started(self) -> None:
        """Record that the service has started: from now on it is ready unless a component is unavailable."""
        self._unavailable.pop("start", None)

    def mark_unavailable(self, component: str, reason: str) -> None:
        """Record that the service cannot work because ``component`` is unavailable."""
        self._unavailable[component] = reason

    def mark_available(self, component: str) -> None:
        """Record that ``component`` is available again."""
        self._unavailable.pop(component, None)

    def add_warning(self, component: str, reason: str) -> None:
        """Record that the service works, but that ``component`` needs attention."""
        self._warnings[component] = reason

    def clear_warning(self, component: str) -> None:
        """Remove the warning about ``component``, if there is one."""
        self._warnings.pop(component, None)

    @property
    def stalled_reason(self) -> str | None:
        """Why the service counts as stalled; ``None`` while it makes progress."""
        silent = time.monotonic() - self._last_heartbeat
        return f"no progress for {silent:.0f} s" if silent > self._stall_seconds else None

    def loop_frames(self) -> list[str]:
        """Return where the loop is now, as ``file:line function``, the call that it waits for last."""
        frame = sys._current_frames().get(self._loop_thread)  # documented, in spite of its name
        frames = traceback.extract_stack(frame)[-MAX_FRAMES:] if frame is not None else []
        return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]

    @property
    def unavailable(self) -> dict[str, str]:
        """Why the service cannot work, by component; empty when it is ready."""
        return dict(self._unavailable)

    @property
    def warnings(self) -> dict[str, str]:
        """What needs attention although the service works, by component."""
        return dict(self._warnings)


def start_watchdog(health: Health) -> None:
    """Start a thread that ends this process with exit code 1 once it is stalled, so that its supervisor restarts it.

    It is needed because kafka-python can wait for ever after a broker's restart.
    """

    def watch() -> None:
        while (reason := health.stalled_reason) is None:
            time.sleep(WATCHDOG_INTERVAL_SECONDS)
        structlog.get_logger(__name__).error("watchdog.process_stalled", reason=reason, frames=health.loop_frames())
        os._exit(1)

    threading.Thread(target=watch, name="watchdog", daemon=True).start()
