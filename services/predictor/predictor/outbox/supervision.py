"""The predictor's processes: the relay is started again when it ends, and all end with the one that started them."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

log = structlog.get_logger(__name__)

RESTART_SECONDS = 0.5  # a relay that cannot start does not fill the log
STOP_SECONDS = 8  # longer than the relay takes to drain


@contextmanager
def relay() -> Iterator[None]:
    """A relay runs as long as the block does."""
    stop = threading.Event()
    children: list[subprocess.Popen[bytes]] = []

    def keep_running() -> None:
        while not stop.is_set():
            # Its standard input ends when this process does, however that ends.
            child = subprocess.Popen([sys.executable, "-m", "predictor.outbox.relay"], stdin=subprocess.PIPE)
            children[:] = [child]
            code = child.wait()
            if not stop.is_set():
                log.error("the relay has ended and is started again", code=code)
                stop.wait(RESTART_SECONDS)

    thread = threading.Thread(target=keep_running, name="relay", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        for child in children:
            assert child.stdin is not None
            child.stdin.close()
            try:
                child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
        thread.join(STOP_SECONDS)


def end_with_the_predictor() -> None:
    """Ends this process as SIGTERM does when the one that started it is killed, where they are several that answer.

    It would keep the port otherwise, and nothing would relay what it promises.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="parent", daemon=True).start()
