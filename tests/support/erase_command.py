"""``driftloop archive erase`` in a process of its own that can be killed."""

import os
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from driftloop_cli.archive import erase as _erase  # noqa: F401  # where the process is forked from, as it takes seconds
from driftloop_cli.main import app


def run_erase(environment: Mapping[str, str], keys: Path, output: Path) -> None:
    """Erase the keys of a file, append what is printed to another one, and end this process."""
    os.environ.update(environment)
    with output.open("a") as file, redirect_stdout(file), redirect_stderr(file):
        app(["archive", "erase", "--keys-from", str(keys), "--reason", "asked", "--yes"])
