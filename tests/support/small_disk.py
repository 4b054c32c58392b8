"""Small disks, and disks that are full."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import pytest

MOUNT, UMOUNT = Path("/usr/bin/mount"), Path("/usr/bin/umount")


class NoSmallDisk(Exception):
    """This user may not mount a file system; the message says why."""


@contextmanager
def mounted_disk(folder: Path, megabytes: int) -> Iterator[None]:
    """Mount an empty file system in memory on a folder for the duration of the block.

    Raises:
        NoSmallDisk: It cannot be mounted.
    """
    if not MOUNT.exists():
        raise NoSmallDisk("there is no mount")
    options = ["-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(folder)]
    mounted = subprocess.run([str(MOUNT), *options], capture_output=True, text=True, check=False)
    if mounted.returncode:
        raise NoSmallDisk(mounted.stderr.strip())
    try:
        yield
    finally:
        subprocess.run([str(UMOUNT), "--lazy", str(folder)], check=True)


def skip_without_small_disk(error: NoSmallDisk) -> NoReturn:
    """Skip a test that needs a small disk, or fail where one must be had: as root in CI."""
    if os.geteuid() == 0 and os.environ.get("CI"):
        raise error
    pytest.skip(f"no small disk: {error}")


def fill(file: Path) -> None:
    """Write a file until its disk has no room at all."""
    with file.open("wb", buffering=0) as stream:
        for size in (2**20, 2**12, 1):
            with suppress(OSError):
                while True:
                    stream.write(b"\0" * size)
