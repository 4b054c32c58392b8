"""Has reports made beside the windows: one at a time, each by a process of its own, and never waited for.

``python -m drift_worker.web.report_queue MODEL VERSION WINDOW`` is that process: it makes one,
unless its standard input ends before.
"""

import os
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from types import TracebackType
from typing import Literal, NamedTuple, Self

import structlog

from drift_worker import metrics
from drift_worker.web import report
from drift_worker.web.report import ReportKey

log = structlog.get_logger(__name__)

COMMAND = (sys.executable, "-m", "drift_worker.web.report_queue")
REMEMBERED = 100  # failures that a page can still tell of


class ReportStatus(NamedTuple):
    """How far a report is that is not in the bucket."""

    name: Literal["unasked", "waiting", "making", "failed"]
    error: str = ""


class ReportQueue:
    """A queue of reports that are wanted, and the thread that has them made.

    What was asked for last comes first: it is what people look at. Where the queue is full the one that has waited
    longest is dropped and counted, and can be asked for again. A report that is there already costs its process a look.
    Use in a ``with`` statement: no process is left after it, nor after this process, however that ends.
    """

    def __init__(self, max_queued: int, timeout_seconds: float, command: Sequence[str] = COMMAND) -> None:
        """``seconds`` are what a report may take; ``command`` gets a subject's three words."""
        self._most_waiting = max_queued
        self._seconds = timeout_seconds
        self._command = command
        self._changed = threading.Condition()
        self._waiting: OrderedDict[ReportKey, None] = OrderedDict()
        self._failed: OrderedDict[ReportKey, str] = OrderedDict()
        self._making: ReportKey | None = None
        self._child: subprocess.Popen[str] | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="reports", daemon=True)

    def __enter__(self) -> Self:
        """Begins."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drops what waits and ends what is being made."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            if self._child is not None:
                self._child.kill()
        self._thread.join()

    def enqueue(self, subject: ReportKey) -> None:
        """Asks for a report; returns at once. One that failed is tried again."""
        with self._changed:
            if self._closed or subject == self._making:
                return
            self._failed.pop(subject, None)
            self._waiting[subject] = None
            self._waiting.move_to_end(subject)
            if len(self._waiting) > self._most_waiting:
                dropped, _ = self._waiting.popitem(last=False)
                metrics.REPORTS.labels("dropped").inc()
                log.warning("report dropped: too many wait", **dropped._asdict())
            self._changed.notify()

    def status(self, subject: ReportKey) -> ReportStatus:
        """How far it is; one that was made, or dropped, is unasked again."""
        with self._changed:
            if subject == self._making:
                return ReportStatus("making")
            if subject in self._waiting:
                return ReportStatus("waiting")
            if subject in self._failed:
                return ReportStatus("failed", self._failed[subject])
            return ReportStatus("unasked")

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                self._making = subject = self._waiting.popitem(last=True)[0]
            began = time.monotonic()
            why = self._make(subject)
            with self._changed:
                self._making = self._child = None
                if self._closed:
                    return
                if why is not None:
                    self._failed[subject] = why
                    if len(self._failed) > REMEMBERED:
                        self._failed.popitem(last=False)
            metrics.REPORTS.labels("made" if why is None else "failed").inc()
            metrics.REPORT_DURATION.observe(time.monotonic() - began)
            if why is not None:
                log.warning("no report", why=why, **subject._asdict())

    def _make(self, subject: ReportKey) -> str | None:
        """Runs a process to its end; says why it made no report."""
        with self._changed:
            if self._closed:
                return None
            try:
                self._child = child = subprocess.Popen(
                    [*self._command, "--", *subject],
                    stdin=subprocess.PIPE,  # which ends when this process does
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                    errors="replace",
                )
            except OSError as error:
                return f"its process could not be started: {error}"
        lifeline, child.stdin = child.stdin, None  # or it would be closed at once
        assert lifeline is not None
        with lifeline:
            try:
                _, told = child.communicate(timeout=self._seconds)
            except subprocess.TimeoutExpired:
                child.kill()
                child.communicate()
                return f"it was not made within {self._seconds:g} s (DRIFTLOOP_DRIFT_WORKER__REPORT_TIMEOUT_SECONDS)"
        if child.returncode == 0:
            return None
        return (told.strip().splitlines() or [f"its process ended with {child.returncode}"])[-1]


def exit_with_parent() -> None:
    """Ends this process once its standard input ends."""

    def wait() -> None:
        os.read(sys.stdin.fileno(), 1)  # not the buffered stream, which cannot be closed meanwhile
        os._exit(1)

    threading.Thread(target=wait, name="worker", daemon=True).start()


if __name__ == "__main__":
    exit_with_parent()
    report.main()
