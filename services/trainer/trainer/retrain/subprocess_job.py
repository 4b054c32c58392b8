"""Work in a process of its own, which may take so much time and memory, and which ends with this one.

A server that has imported what the work needs forks the processes: MLflow, DVC and scikit-learn take ten seconds.
"""

import json
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from typing import Literal, NamedTuple

import psutil
import structlog

log = structlog.get_logger(__name__)

CONTEXT = multiprocessing.get_context("forkserver")
NICENESS = 3  # requests come first, where they share the machine; half as much is left for it while they do
KILL_SECONDS = 10
MEGABYTE = 2**20

Tell = Callable[[str, str], None]
"""Says what the work is at: a phase, and more of it in words."""


class Again(Exception):
    """What the work needs is away; it may be begun again later."""


class Told(NamedTuple):
    """What the work is at."""

    phase: str
    words: str


class Ended(NamedTuple):
    """How the work ended."""

    how: Literal["done", "again", "failed", "killed"]
    text: str
    """What it returned, or why it did not."""


class Child:
    """One run of ``work``, a function of a module, in a process that may be killed at any time.

    ``work`` gets its argument and something to tell its phases with, and returns a text. It raises :class:`Again`
    where what it needs is away, and whatever else it likes.
    """

    def __init__(
        self, work: Callable[[str, Tell], str], argument: str, *, seconds: float, megabytes: float | None
    ) -> None:
        """Begins. More than so many seconds or megabytes of memory are a failure that says so."""
        self._connection, theirs = CONTEXT.Pipe()
        self._process = CONTEXT.Process(target=_work, args=(work, argument, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self._seconds, self._megabytes = seconds, megabytes
        self._deadline = time.monotonic() + seconds
        self._ended: Ended | None = None

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process.pid is not None
        return self._process.pid

    def told(self) -> list[Told]:
        """What it has told since the last call."""
        found: list[Told] = []
        try:
            while self._connection.poll():
                kind, *words = json.loads(self._connection.recv_bytes())
                if kind == "told":
                    found.append(Told(*words))
                else:
                    self._ended = Ended(kind, *words)
        except (EOFError, OSError):  # it has ended; whether as it should, the last message says
            pass
        return found

    def ended(self) -> Ended | None:
        """How it has ended; ``None`` while it runs. Ends it where it has used too much."""
        if self._ended is None and self._process.is_alive():
            self._ended = self._too_much()
        elif self._ended is None:
            self.told()  # what it said last may have come since
            self._ended = self._ended or Ended("killed", f"its process ended with code {self._process.exitcode}")
        if self._ended is not None:
            self.kill()
        return self._ended

    def kill(self) -> None:
        """Ends it, if it has not ended."""
        self._process.kill()
        self._process.join(KILL_SECONDS)
        self._connection.close()

    def _too_much(self) -> Ended | None:
        if time.monotonic() > self._deadline:
            return Ended(
                "failed", f"it took more than {self._seconds:g} s (DRIFTLOOP_TRAINER__LONGEST_TRAINING_SECONDS)"
            )
        try:
            used = psutil.Process(self.pid).memory_info().rss / MEGABYTE
        except psutil.NoSuchProcess:
            return None
        if self._megabytes is not None and used > self._megabytes:
            return Ended(
                "failed", f"it used {used:,.0f} MB, more than {self._megabytes:,.0f} (DRIFTLOOP_TRAINER__MEMORY_MB)"
            )
        return None


def prepare(modules: Sequence[str]) -> None:
    """Starts the server with ``modules`` imported, so that the first work begins at once."""
    CONTEXT.set_forkserver_preload(list(modules))
    forkserver.ensure_running()


def _work(work: Callable[[str, Tell], str], argument: str, connection: Connection) -> None:
    os.nice(NICENESS)
    threading.Thread(target=_end_with_the_parent, args=(connection,), daemon=True).start()

    def say(kind: str, *words: str) -> None:
        connection.send_bytes(json.dumps([kind, *words]).encode())

    try:
        say("done", work(argument, lambda phase, words: say("told", phase, words)))
    except Again as error:
        say("again", str(error))
    except Exception as error:  # whatever a dataset or a pipeline raises
        log.exception("the work failed")
        say("failed", f"{type(error).__name__}: {error}")


def _end_with_the_parent(connection: Connection) -> None:
    """Nothing is ever sent this way: the wait ends when the other end is gone."""
    try:
        connection.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)
