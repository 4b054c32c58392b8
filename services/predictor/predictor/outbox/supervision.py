"""Supervision of the relay's process: it is restarted when it ends, and exits with the predictor."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from driftloop.process import ChildProcess, module_command

log = structlog.get_logger(__name__)

RESTART_SECONDS = 0.5  # so that a relay that cannot start does not flood the log
STOP_SECONDS = 8  # longer than the relay takes to drain


@contextmanager
def supervised_relay() -> Iterator[None]:
    """Run a relay process for the duration of the block, and restart it whenever it ends."""
    stop = threading.Event()
    children: list[ChildProcess] = []

    def keep_running() -> None:
        while not stop.is_set():
            try:
                child = ChildProcess(module_command("predictor.outbox.relay"))
            except OSError as error:  # such as no memory for a process
                log.error("outbox.relay_not_started", error=str(error))  # the trace says no more
                stop.wait(RESTART_SECONDS)
                continue
            children[:] = [child]
            exit_code = child.wait()
            if not stop.is_set():
                log.error("outbox.relay_restarted", exit_code=exit_code)
                stop.wait(RESTART_SECONDS)

    thread = threading.Thread(target=keep_running, name="relay", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        for child in children:
            child.stop(STOP_SECONDS)
        thread.join(STOP_SECONDS)
