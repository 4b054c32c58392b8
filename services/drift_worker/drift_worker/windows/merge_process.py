"""Merge slices in a process of its own.

``python -m drift_worker.windows.merge_process`` gets the slices from its standard input, and writes what it has merged
to its standard output. When the process ends that has started it, it finishes the file that it is at. The worker itself
would keep tens of MB after each merge: DuckDB's, and holes that a thousand downloads leave in its heap. And a process
of its own can have a lower priority than verdicts.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import date
from tempfile import TemporaryFile
from typing import NamedTuple

import structlog
from pydantic import TypeAdapter

from drift_worker.settings import DriftWorkerSettings
from driftloop.archive.layout import ArchivedFile
from driftloop.archive.merging import MergedSlices, MergeLimits, Slices, merge_slices
from driftloop.command_line import load_settings_or_exit
from driftloop.errors import ArchiveUnreadable, DriftloopError, StorageUnavailable
from driftloop.exit_codes import ExitCode
from driftloop.process import ChildProcess, exit_with_parent, module_command
from driftloop.storage.object_store import ObjectStore
from driftloop.telemetry.logging import configure_logging

log = structlog.get_logger(__name__)

COMMAND = module_command("drift_worker.windows.merge_process")
NICENESS = 10  # as that of reports: answers and verdicts come first
POLL_SECONDS = 1.0
STOP_SECONDS = 60.0  # in which the process finishes a file that it is at
TIMEOUT_SECONDS = 1_800.0  # a merge takes a minute on busy processors; one that hangs should be seen, and tried again
ERRORS: dict[int, type[DriftloopError]] = {
    ExitCode.REFUSED: ArchiveUnreadable,
    ExitCode.UNAVAILABLE: StorageUnavailable,
}
"""What an exit code means."""


class MergeRequest(NamedTuple):
    """What :func:`merge_slices` is to merge; the process reads it from its standard input."""

    chosen: Sequence[ArchivedFile]
    following: ArchivedFile | None
    limits: MergeLimits


class MergedFile(NamedTuple):
    """A line of the process' standard output: the next slices, which were merged."""

    day: date
    slices: int
    path: str
    size: int
    """In bytes."""


class MergeFailure(NamedTuple):
    """The last line of the process' standard output if it has failed."""

    reason: str


REQUEST: TypeAdapter[MergeRequest] = TypeAdapter(MergeRequest)
LINE: TypeAdapter[MergedFile | MergeFailure] = TypeAdapter(MergedFile | MergeFailure)


def merge_in_process(
    chosen: Sequence[ArchivedFile],
    following: ArchivedFile | None,
    limits: MergeLimits,
    may_go_on: Callable[[], bool] = lambda: True,
) -> Iterator[MergedSlices]:
    """Do what :func:`merge_slices` does in the store of this process' settings, in a process with a lower priority.

    Args:
        chosen: Consecutive slices of a partition, at most as many as make a file full.
        following: The slice after them, if there is one.
        limits: When a file is full.
        may_go_on: Is called each second; if it returns false, the process finishes the file that it is at, and nothing
            is yielded.

    Raises:
        StorageUnavailable: The store does not answer. What was merged until then is yielded before.
        ArchiveUnreadable: A slice is no readable Parquet file; likewise.
        ChildProcessError: The process has failed, likewise, or hangs, and is killed.
    """
    if not chosen:
        return
    # From a file: after a timeout, Popen.communicate would not send the rest of what a pipe has no room for.
    with TemporaryFile() as request:
        request.write(REQUEST.dump_json(MergeRequest(chosen, following, limits)))
        request.seek(0)
        child = ChildProcess(COMMAND, stdin=request.fileno(), stdout=subprocess.PIPE)
    deadline = time.monotonic() + TIMEOUT_SECONDS
    with child:
        while child.exit_code is None:
            if not may_go_on():
                child.stop(STOP_SECONDS)
                return
            with suppress(subprocess.TimeoutExpired):
                stdout, _ = child.communicate(timeout_seconds=POLL_SECONDS)
            if child.exit_code is None and time.monotonic() > deadline:
                raise ChildProcessError(f"merging {len(chosen)} slices took longer than {TIMEOUT_SECONDS:g} s")
    done, reason = 0, ""
    for line in map(LINE.validate_json, stdout.splitlines()):
        if isinstance(line, MergeFailure):
            reason = line.reason
            continue
        slices = Slices(line.day, list(chosen[done : done + line.slices]))
        done += line.slices
        yield MergedSlices(slices, line.path, line.size)
    if error := ERRORS.get(child.exit_code):
        raise error(reason)
    if child.exit_code:
        reason = reason or "the log may say why"
        raise ChildProcessError(f"the process that merges {len(chosen)} slices ended with {child.exit_code}: {reason}")


def main() -> None:
    """Merge the slices that standard input names; see :data:`ERRORS` for the exit codes."""
    is_stopped = threading.Event()
    if exit_with_parent(is_stopped.set):  # signals to the process group are for the worker, which then ends
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
    os.nice(NICENESS)
    settings = load_settings_or_exit(DriftWorkerSettings)
    configure_logging("drift_worker", settings.log)
    request = REQUEST.validate_json(sys.stdin.read())
    try:
        for merged in merge_slices(ObjectStore(settings.storage), *request, lambda: not is_stopped.is_set()):
            _print(MergedFile(merged.slices.day, len(merged.slices.files), merged.path, merged.size))
    except tuple(ERRORS.values()) as error:
        _print(MergeFailure(str(error)))
        sys.exit(next(code for code, kind in ERRORS.items() if isinstance(error, kind)))
    except Exception as error:
        log.exception("compaction.merge_failed", slices=len(request.chosen))
        _print(MergeFailure(f"{type(error).__name__}: {error}"))
        sys.exit(ExitCode.ERROR)


def _print(line: MergedFile | MergeFailure) -> None:
    with suppress(BrokenPipeError):  # the process that has started this one is gone
        print(json.dumps(LINE.dump_python(line, mode="json")), flush=True)  # ASCII: no line ends within


if __name__ == "__main__":
    main()
