"""Folders for the time of a job, which a later process removes if theirs was killed."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import gettempdir, mkdtemp

import structlog

log = structlog.get_logger(__name__)

MERGE, RETRAIN, ARCHIVE = "driftloop-merge-", "driftloop-retrain-", "driftloop-labelled-"
"""How the names of folders begin: of a merge, a retrain, and of rows that are joined with their outcomes."""
LOCK = "lock"


@contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """Make a folder in the folder for temporary files (``TMPDIR``), and remove it at the end.

    A lock on a file in it lasts as long as the process, however that ends: numbers of processes are used again, in
    containers at once.
    """
    folder, descriptor = _locked_folder(prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def remove_abandoned_folders(prefix: str) -> None:
    """Remove the folders of processes that were killed."""
    for folder in Path(gettempdir()).glob(f"{prefix}*"):
        with suppress(OSError):  # of another user, or removed meanwhile
            descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
                log.info("archive.abandoned_folder_removed", folder=str(folder))
            finally:
                os.close(descriptor)


def _locked_folder(prefix: str) -> tuple[Path, int]:
    """Return a new folder and the open file whose lock keeps it."""
    while True:
        folder = Path(mkdtemp(prefix=prefix))
        with suppress(FileNotFoundError):  # another process has taken the folder, not locked yet, for an abandoned one
            descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if (folder / LOCK).stat().st_ino == os.fstat(descriptor).st_ino:
                    return folder, descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
