"""Merge slices in a process of its own.

``python -m drift_worker.windows.merge_process`` gets the slices from its standard input, writes what it has merged to
its standard output, and ends when the process dies that has started it. The worker itself would keep tens of MB after
each merge: DuckDB's, and holes that a thousand downloads leave in its heap. And a process of its own can have a lower
priority than verdicts.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from tempfile import TemporaryFile
from typing import NamedTuple

import structlog
from pydantic import TypeAdapter

from drift_worker.settings import DriftWorkerSettings
from driftloop.archive.layout import ArchivedFile
from driftloop.archive.merging import MergedSlices, MergeLimits, merge_slices
from driftloop.command_line import load_settings_or_exit
from driftloop.errors import ArchiveUnreadable, DriftloopError, StorageUnavailable
from driftloop.exit_codes import ExitCode
from driftloop.process import ChildProcess, exit_with_parent, module_command
from driftloop.storage.object_store import ObjectStore
from driftloop.telemetry.logging import configure_logging

log = structlog.get_logger(__name__)

COMMAND = module_command("drift_worker.windows.merge_process")
PRIORITY = 10  # as that of reports: answers and verdicts come first
POLL_SECONDS = 1.0
TIMEOUT_SECONDS = 1_800.0  # a merge takes a minute on busy processors; one that hangs should be seen, and tried again
ERRORS: dict[int, type[DriftloopError]] = {
    ExitCode.REFUSED: ArchiveUnreadable,
    ExitCode.UNAVAILABLE: StorageUnavailable,
}
"""What an exit code means; the last line of standard output is the error's message."""


class MergeRequest(NamedTuple):
    """What :func:`merge_slices` is to merge."""

    chosen: Sequence[ArchivedFile]
    following: ArchivedFile | None
    limits: MergeLimits


REQUEST = TypeAdapter(MergeRequest)
MERGED = TypeAdapter(MergedSlices)


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
        may_go_on: Is called each second; if it returns false, the process is killed. What it has merged is merged.

    Raises:
        StorageUnavailable: The store does not answer. What was merged until then is yielded before.
        ArchiveUnreadable: A slice is no readable Parquet file; likewise.
        ChildProcessError: The process has failed, such as for want of memory, or hangs. The log says more; likewise.
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
                return
            if time.monotonic() > deadline:
                raise ChildProcessError(f"merging {len(chosen)} slices took longer than {TIMEOUT_SECONDS:g} s")
            with suppress(subprocess.TimeoutExpired):
                stdout, _ = child.communicate(timeout_seconds=POLL_SECONDS)
    lines = stdout.splitlines()
    error = ERRORS.get(child.exit_code)
    message = json.loads(lines.pop()) if error else ""
    yield from map(MERGED.validate_json, lines)
    if error:
        raise error(message)
    if child.exit_code:
        raise ChildProcessError(f"the process that merges {len(chosen)} slices ended with {child.exit_code}")


def main() -> None:
    """Merge the slices that standard input names; see :data:`ERRORS` for the exit codes."""
    exit_with_parent()
    os.nice(PRIORITY)
    settings = load_settings_or_exit(DriftWorkerSettings)
    configure_logging("drift_worker", settings.log)
    request = REQUEST.validate_json(sys.stdin.read())
    try:
        for merged in merge_slices(ObjectStore(settings.storage), *request):
            print(MERGED.dump_json(merged).decode(), flush=True)
    except tuple(ERRORS.values()) as error:
        print(json.dumps(str(error)))
        sys.exit(next(code for code, kind in ERRORS.items() if isinstance(error, kind)))
    except Exception:
        log.exception("compaction.merge_failed", slices=len(request.chosen))
        sys.exit(ExitCode.ERROR)


if __name__ == "__main__":
    main()
