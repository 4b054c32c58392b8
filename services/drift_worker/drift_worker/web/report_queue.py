"""Render reports in the background: one at a time, each in a process of its own.

``python -m drift_worker.web.report_queue MODEL VERSION WINDOW`` is that process. It renders one report, and exits early
when the worker dies.
"""

import subprocess
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
from driftloop.exit_codes import ExitCode
from driftloop.process import ChildProcess, exit_with_parent, module_command

log = structlog.get_logger(__name__)

COMMAND = module_command("drift_worker.web.report_queue")
MAX_FAILURES = 100  # failed reports that a page can still show the reason of


class ReportStatus(NamedTuple):
    """The progress of a report that is not in the store."""

    name: Literal["not_requested", "queued", "rendering", "failed", "not_archived"]
    error: str = ""


class ReportQueue:
    """A queue of requested reports, and the thread that has them rendered.

    The latest request is served first, because it is what people look at now. If the queue is full, the oldest request
    is dropped and counted; it can be made again. A report that the store has is not rendered again. Use the queue in a
    ``with`` statement: afterwards no process is left, and none outlives this process either.
    """

    def __init__(self, max_queued: int, timeout_seconds: float, command: Sequence[str] = COMMAND) -> None:
        """Create the queue without starting it.

        Args:
            max_queued: Requests that can wait.
            timeout_seconds: How long rendering a report may take.
            command: Renders a report; it gets ``--`` and the parts of a report's key as arguments.
        """
        self._max_queued = max_queued
        self._timeout_seconds = timeout_seconds
        self._command = command
        self._changed = threading.Condition()
        self._queued: OrderedDict[ReportKey, None] = OrderedDict()
        self._failed: OrderedDict[ReportKey, ReportStatus] = OrderedDict()
        self._rendering: ReportKey | None = None
        self._child: ChildProcess | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="reports", daemon=True)

    def __enter__(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drop queued requests, kill the process that renders, and wait for the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            if self._child is not None:
                self._child.kill()
        self._thread.join()

    def enqueue(self, key: ReportKey) -> None:
        """Request a report and return at once. A report that has failed is tried again."""
        with self._changed:
            if self._closed or key == self._rendering:
                return
            self._failed.pop(key, None)
            self._queued[key] = None
            self._queued.move_to_end(key)
            if len(self._queued) > self._max_queued:
                dropped, _ = self._queued.popitem(last=False)
                metrics.REPORTS.labels("dropped").inc()
                log.warning("report.dropped", max_queued=self._max_queued, **dropped._asdict())
            self._changed.notify()

    def status(self, key: ReportKey) -> ReportStatus:
        """Return a report's progress; a report that is rendered or was dropped counts as not requested."""
        with self._changed:
            if key == self._rendering:
                return ReportStatus("rendering")
            if key in self._queued:
                return ReportStatus("queued")
            if key in self._failed:
                return self._failed[key]
            return ReportStatus("not_requested")

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queued or self._closed)
                if self._closed:
                    return
                self._rendering = key = self._queued.popitem(last=True)[0]
            started = time.monotonic()
            try:
                failed = self._render_in_subprocess(key)
            except Exception as failure:  # such as no memory for a process: the queue must go on
                log.exception("report.process_failed", **key._asdict())
                failed = ReportStatus("failed", f"{type(failure).__name__}: {failure}")
            with self._changed:
                self._rendering = self._child = None
                if self._closed:
                    return
                if failed is not None:
                    self._failed[key] = failed
                    if len(self._failed) > MAX_FAILURES:
                        self._failed.popitem(last=False)
            metrics.REPORTS.labels("rendered" if failed is None else "failed").inc()
            metrics.REPORT_DURATION.observe(time.monotonic() - started)
            if failed is not None:
                log.warning("report.failed", error=failed.error, **key._asdict())

    def _render_in_subprocess(self, key: ReportKey) -> ReportStatus | None:
        """Render a report in a process and wait for its end; return how it failed, or ``None`` if it succeeds."""
        with self._changed:
            if self._closed:
                return None
            try:
                self._child = child = ChildProcess(
                    [*self._command, "--", *key],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                )
            except OSError as error:
                return ReportStatus("failed", f"the process that renders it could not be started: {error}")
        with child:
            try:
                _, stderr = child.communicate(timeout_seconds=self._timeout_seconds)
            except subprocess.TimeoutExpired:
                return ReportStatus(
                    "failed",
                    f"rendering took longer than {self._timeout_seconds:g} s "
                    "(DRIFTLOOP_DRIFT_WORKER__REPORT_TIMEOUT_SECONDS)",
                )
        if child.exit_code == 0:
            return None
        lines = stderr.strip().splitlines() or [f"the process that renders it exited with {child.exit_code}"]
        return ReportStatus("not_archived" if child.exit_code == ExitCode.REFUSED else "failed", lines[-1])


if __name__ == "__main__":
    exit_with_parent()
    report.main()
