"""Server processes: start, wait until ready, measure with all child processes, and always stop."""

import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn, Self

import psutil

START_TIMEOUT_SECONDS = 120
STOP_TIMEOUT_SECONDS = 15
IDLE_TIMEOUT_SECONDS = 15  # longer than 128 requests take one after the other
IDLE_CPU_FRACTION = 0.15  # of a processor; periodic polling stays below
POLL_INTERVAL_SECONDS = 0.02  # well below the duration of a start


class ServerStartError(Exception):
    """The server has ended or is not ready in time; the message has the last lines of its log."""


class Server:
    """A server and its child processes. A context manager: ready inside the block, no process is left after it."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], ready_url: str, log: Path, folder: Path
    ) -> None:
        """Describe the server; entering the context starts it.

        Args:
            name: Name in messages.
            command: Program and arguments.
            environment: Variables in addition to those of this process.
            ready_url: Returns status 200 when the server is ready.
            log: File for standard output and error.
            folder: Working directory.
        """
        self.name = name
        self.seconds_to_ready = float("nan")
        """Seconds from the start of the process to the first status 200 of ``ready_url``."""
        self.url = ready_url.rsplit("/", 1)[0]
        self._command = list(command)
        self._environment = {**_clean_environment(os.environ), **environment}
        self._ready_url = ready_url
        self._log = log
        self._folder = folder

    def __enter__(self) -> Self:
        """Start the server and wait until it is ready.

        Raises:
            ServerStartError: It has ended, or is not ready in time.
        """
        self._log.parent.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        with self._log.open("w") as output:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                cwd=self._folder,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C reaches only this process, which stops the server
            )
        try:
            while not _is_ready(self._ready_url):
                if self._process.poll() is not None or time.monotonic() - started > START_TIMEOUT_SECONDS:
                    last_lines = "\n  ".join(self._log.read_text().splitlines()[-15:])
                    raise ServerStartError(f"{self.name} did not start:\n  {last_lines}\n  (full log: {self._log})")
                time.sleep(POLL_INTERVAL_SECONDS)
        except BaseException:
            self.stop()
            raise
        self.seconds_to_ready = time.monotonic() - started
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server."""
        self.stop()

    def stop(self) -> None:
        """Terminate the first process; kill those that are still running after a timeout."""
        processes = process_tree(self._process.pid)
        with suppress(psutil.NoSuchProcess):
            processes[0].terminate() if processes else None
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_TIMEOUT_SECONDS)
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        psutil.wait_procs(processes, timeout=STOP_TIMEOUT_SECONDS)

    @property
    def memory_mb(self) -> float:
        """Resident memory of all processes; shared pages are counted once."""
        return memory_mb(self._process.pid)

    @property
    def cpu_seconds(self) -> float:
        """Processor time of all processes."""
        return cpu_seconds(self._process.pid)

    def wait_until_idle(self) -> None:
        """Wait, with a timeout, until the server has finished requests whose clients have disconnected."""
        deadline = time.monotonic() + IDLE_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            before = self.cpu_seconds
            time.sleep(0.3)
            if self.cpu_seconds - before < 0.3 * IDLE_CPU_FRACTION:
                return

    @property
    def process_count(self) -> int:
        """The number of running processes."""
        return len(process_tree(self._process.pid))


def process_tree(pid: int) -> list[psutil.Process]:
    """Return a process and all its descendants; an empty list if it has ended."""
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def forked_jobs(pid: int) -> list[psutil.Process]:
    """Return the processes that the fork servers among a process' children have started."""
    jobs = []
    for process in process_tree(pid)[1:]:
        with suppress(psutil.NoSuchProcess):
            parent = process.parent()
            if parent is not None and parent.pid != pid and "forkserver" in " ".join(parent.cmdline()):
                jobs.append(process)
    return jobs


def memory_mb(pid: int) -> float:
    """Return the resident memory of a process and all its descendants, in MB (2^20 bytes)."""
    return total_memory_mb(process_tree(pid))


def total_memory_mb(processes: Iterable[psutil.Process]) -> float:
    """Return the resident memory of processes, in MB (2^20 bytes).

    This is the proportional set size, if available: a page that n processes share counts 1/n in each.
    """
    total = 0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            full = process.memory_full_info()
            total += getattr(full, "pss", full.uss)
    return total / 2**20


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process and all its descendants."""
    total = 0.0
    for process in process_tree(pid):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Inside the block, SIGTERM raises SystemExit, so that every ``with`` and ``finally`` is run."""

    def end(number: int, _: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without the caller's settings of driftloop and MLflow.

    PYTHONDONTWRITEBYTECODE is removed too: a warm start uses the bytecode of the first one.
    """
    removed = ("DRIFTLOOP_", "MLFLOW_", "PYTHONDONTWRITEBYTECODE")
    return {name: value for name, value in environment.items() if not name.startswith(removed)}


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310  # a local address
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
