"""Tools of the system that tests need."""

import os
import shutil
import subprocess

import pytest


def needed(tool: str) -> str:
    """Where it is. Without it a test is skipped, but where everything has to be tested it fails."""
    found = shutil.which(tool)
    if found is None and os.environ.get("CI") != "true":
        pytest.skip(f"{tool} is missing: see .ci/run for Debian's package")
    assert found, f"{tool} is missing"
    return found


def run(tool: str, *words: str, given: str = "") -> None:
    """Runs it; the word of a failure is its output."""
    done = subprocess.run([needed(tool), *words], input=given, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
