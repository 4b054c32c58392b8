"""Run a function in a process of its own, with limits of time and memory. The process exits with its parent.

A fork server that has imported what the jobs need starts the processes: MLflow, DVC and scikit-learn take ten seconds
to import.
"""

import json
import math
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from typing import Literal, NamedTuple

import psutil
import structlog

from driftloop.errors import DependencyUnavailable
from driftloop.process import exit_with_parent
from driftloop.settings import InvalidSettings

log = structlog.get_logger(__name__)

CONTEXT = multiprocessing.get_context("forkserver")
LOW_PRIORITY_MODULE = "trainer.retrain.low_priority"  # for the fork server: not imported here, for what it does
KILL_TIMEOUT_SECONDS = 10
MEGABYTE = 2**20
# Of the 107 bytes of a socket's path, multiprocessing needs 32 for names such as /pymp-oud1fs1p/listener-x1_3kz9q.
MAX_TEMPORARY_FOLDER_BYTES = 75

ReportPhase = Callable[[str, str], None]
"""Reports progress: the name of the phase that begins, and a message for people."""

JobFunction = Callable[[str, ReportPhase], str]
"""Gets its argument and a function to report phases with; returns a text, such as JSON."""


class RetryableError(DependencyUnavailable):
    """A dependency of the job is unavailable; the job may be started again later."""


class Progress(NamedTuple):
    """A phase that a job has begun."""

    phase: str
    message: str


class JobResult(NamedTuple):
    """How a job ended."""

    status: Literal["done", "retry", "failed", "killed"]
    payload: str
    """What the function returned, or why it did not."""


class SubprocessJob:
    """One run of a function of a module, in a process that may be killed at any time.

    The function raises :class:`RetryableError` if a dependency is unavailable. Any other exception is a failure. The
    process starts once the fork server has imported its modules; nobody waits for that.
    """

    def __init__(
        self, function: JobFunction, argument: str, *, timeout_seconds: float, memory_limit_mb: float | None
    ) -> None:
        """Start the job. Exceeding a limit is a failure whose message names the setting."""
        self._connection, job_end = CONTEXT.Pipe()
        self._process = CONTEXT.Process(target=_run_job, args=(function, argument, job_end), daemon=True)
        self._timeout_seconds, self._memory_limit_mb = timeout_seconds, memory_limit_mb
        self._deadline = math.inf  # time counts from the start of the process
        self._result: JobResult | None = None
        self._lock = threading.Lock()
        self._has_started = self._is_killed = False
        threading.Thread(target=self._start_process, args=(job_end,), name="job-start", daemon=True).start()

    def _start_process(self, job_end: Connection) -> None:
        try:
            with job_end:
                if not self._is_killed:
                    self._process.start()
        except Exception as error:  # such as EOFError, if the fork server has ended meanwhile
            log.exception("job.not_started")
            self._result = JobResult("killed", f"its process could not be started: {type(error).__name__}: {error}")
        self._deadline = time.monotonic() + self._timeout_seconds
        with self._lock:
            self._has_started = True
            if self._is_killed:
                self._end_process()

    @property
    def pid(self) -> int:
        """The id of the process."""
        if self._process.pid is None:
            raise RuntimeError("the job's process has not been started")
        return self._process.pid

    def progress(self) -> list[Progress]:
        """Return the phases that were reported since the last call."""
        phases: list[Progress] = []
        try:
            while self._connection.poll():
                kind, *fields = json.loads(self._connection.recv_bytes())
                if kind == "progress":
                    phases.append(Progress(*fields))
                else:
                    self._result = JobResult(kind, *fields)
        except (EOFError, OSError):  # the process has ended; its last message says how
            pass
        return phases

    def poll(self) -> JobResult | None:
        """Return how the job ended, or None while it runs. A job that exceeds a limit is killed."""
        if not self._has_started:
            return None
        if self._result is None and self._process.is_alive():
            self._result = self._check_limits()
        elif self._result is None:
            self.progress()  # the last message may have arrived since
            self._result = self._result or JobResult("killed", f"its process ended with code {self._process.exitcode}")
        if self._result is not None:
            self.kill()
        return self._result

    def kill(self) -> None:
        """Kill the process if it still runs, or as soon as it has started."""
        with self._lock:
            self._is_killed = True
            if self._has_started:
                self._end_process()

    def _end_process(self) -> None:
        if self._process.pid is not None:
            self._process.kill()
            self._process.join(KILL_TIMEOUT_SECONDS)
        self._connection.close()

    def _check_limits(self) -> JobResult | None:
        if time.monotonic() > self._deadline:
            return JobResult(
                "failed",
                f"it took more than {self._timeout_seconds:g} s (DRIFTLOOP_TRAINER__TRAINING_TIMEOUT_SECONDS)",
            )
        try:
            used_mb = psutil.Process(self.pid).memory_info().rss / MEGABYTE
        except psutil.NoSuchProcess:
            return None
        if self._memory_limit_mb is not None and used_mb > self._memory_limit_mb:
            return JobResult(
                "failed",
                f"it used {used_mb:,.0f} MB, more than {self._memory_limit_mb:,.0f} "
                "(DRIFTLOOP_TRAINER__TRAINING_MEMORY_LIMIT_MB)",
            )
        return None


def preload(modules: Sequence[str]) -> None:
    """Start the fork server, which imports ``modules``, so that the first job starts at once; return before it has.

    Raises:
        InvalidSettings: The path of the folder for temporary files is too long for the fork server's socket.
    """
    folder = tempfile.gettempdir()
    if (length := len(os.fsencode(folder))) > MAX_TEMPORARY_FOLDER_BYTES:
        raise InvalidSettings(
            f"TMPDIR: {folder} has {length} bytes, and a socket's path has room for {MAX_TEMPORARY_FOLDER_BYTES} of "
            "them: set it to a folder with a shorter path, such as /tmp"
        )
    CONTEXT.set_forkserver_preload([LOW_PRIORITY_MODULE, *modules])
    forkserver.ensure_running()


def _run_job(function: JobFunction, argument: str, connection: Connection) -> None:
    exit_with_parent()

    def send(kind: str, *fields: str) -> None:
        connection.send_bytes(json.dumps([kind, *fields]).encode())

    try:
        send("done", function(argument, lambda phase, message: send("progress", phase, message)))
    except RetryableError as error:
        send("retry", str(error))
    except Exception as error:  # a dataset or a pipeline may raise anything
        log.exception("job.failed")
        send("failed", f"{type(error).__name__}: {error}")
