"""Tools that tests need beside Python's: of the system, or built below the project's own folder by ``make tools``."""

import os
import shutil
import subprocess
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILT = (".tools/{0}-*/{0}", ".tools/{0}/bin/{0}")


def needed(tool: str) -> str:
    """Where it is. Without it a test is skipped, but where everything has to be tested it fails."""
    built = chain.from_iterable(ROOT.glob(pattern.format(tool)) for pattern in BUILT)
    found = next(map(str, built), None) or shutil.which(tool)  # the machine's may be too old
    if found is None and os.environ.get("CI") != "true":
        pytest.skip(f"{tool} is missing: see .ci/run for Debian's packages, or run make tools")
    assert found, f"{tool} is missing"
    return found


def run(tool: str, *words: str, given: str = "") -> str:
    """Runs it and returns what it printed; the word of a failure is its output."""
    done = subprocess.run(
        [needed(tool), *words], input=given, capture_output=True, text=True, check=False, timeout=60, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
