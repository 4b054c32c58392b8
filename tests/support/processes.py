"""Processes that serve: started, waited for, measured with all of their children, and always stopped."""

import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn, Self

import psutil

START_TIMEOUT_SECONDS = 120
STOP_TIMEOUT_SECONDS = 15
IDLE_TIMEOUT_SECONDS = 15  # more than 128 requests take, one after the other
IDLE_CPU_FRACTION = 0.15  # of a processor: what looks around now and then does not reach this
POLL_INTERVAL_SECONDS = 0.02  # well below what a start takes


class ServerStartError(Exception):
    """Says what the process wrote last."""


class Server:
    """A server and its processes. Use in a ``with`` statement: it is ready inside, and nothing of it is left after."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], ready_url: str, log: Path, folder: Path
    ) -> None:
        """Nothing is started. ``environment`` is added to this process' own, ``folder`` is where it runs."""
        self.name = name
        self.seconds_to_ready = float("nan")
        """From the start of the process to the first 200 of ``ready_url``."""
        self.url = ready_url.rsplit("/", 1)[0]
        self._command = list(command)
        self._environment = {**_clean_environment(os.environ), **environment}
        self._ready_url = ready_url
        self._log = log
        self._folder = folder

    def __enter__(self) -> Self:
        """Starts it and waits until it is ready. Raises :class:`DidNotStart`."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        with self._log.open("w") as output:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                cwd=self._folder,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is ours, and we stop it
            )
        try:
            while not _is_ready(self._ready_url):
                if self._process.poll() is not None or time.monotonic() - began > START_TIMEOUT_SECONDS:
                    last = "\n  ".join(self._log.read_text().splitlines()[-15:])
                    raise ServerStartError(f"{self.name} did not start:\n  {last}\n  (all of it: {self._log})")
                time.sleep(POLL_INTERVAL_SECONDS)
        except BaseException:
            self.stop()
            raise
        self.seconds_to_ready = time.monotonic() - began
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops it."""
        self.stop()

    def stop(self) -> None:
        """Asks the first process to end; what is left after a while is killed."""
        family = process_tree(self._process.pid)
        with suppress(psutil.NoSuchProcess):
            family[0].terminate() if family else None
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_TIMEOUT_SECONDS)
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        psutil.wait_procs(family, timeout=STOP_TIMEOUT_SECONDS)

    @property
    def memory_mb(self) -> float:
        """Resident memory of all processes; what they share is counted once."""
        return memory_mb(self._process.pid)

    @property
    def cpu_seconds(self) -> float:
        """Processor time that all processes have used."""
        return cpu_seconds(self._process.pid)

    def wait_until_idle(self) -> None:
        """Returns once it does not work any more on requests whose clients have gone; gives up after a while."""
        deadline = time.monotonic() + IDLE_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            before = self.cpu_seconds
            time.sleep(0.3)
            if self.cpu_seconds - before < 0.3 * IDLE_CPU_FRACTION:
                return

    @property
    def process_count(self) -> int:
        """How many processes it is."""
        return len(process_tree(self._process.pid))


def process_tree(pid: int) -> list[psutil.Process]:
    """A process and all that come from it; empty where it has ended."""
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def memory_mb(pid: int) -> float:
    """Resident memory of a process and all that come from it, in MB (2^20 bytes).

    Where the system tells it, the proportional set size: a page that n processes share counts 1/n in each.
    """
    total = 0
    for process in process_tree(pid):
        with suppress(psutil.NoSuchProcess):
            full = process.memory_full_info()
            total += getattr(full, "pss", full.uss)
    return total / 2**20


def cpu_seconds(pid: int) -> float:
    """Processor time that a process and all that come from it have used."""
    total = 0.0
    for process in process_tree(pid):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Inside, SIGTERM ends this process as Ctrl-C does: through every ``with`` and ``finally``."""

    def end(number: int, _: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Without what is meant for a driftloop or an MLflow of the caller's own.

    And without what keeps Python from writing bytecode, which a second start finds.
    """
    ours = ("DRIFTLOOP_", "MLFLOW_", "PYTHONDONTWRITEBYTECODE")
    return {name: value for name, value in environment.items() if not name.startswith(ours)}


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  # an address of our own
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
