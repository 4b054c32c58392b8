"""External programs for tests, such as promtool: from ``make tools`` in the project folder, or from the system."""

import os
import shutil
import subprocess
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD_PATTERNS = (".tools/{0}-*/{0}", ".tools/{0}/bin/{0}", ".tools/*/node_modules/.bin/{0}")


def require_tool(tool: str) -> str:
    """Return the path of an external program. If it is missing, skip the test, or fail in CI."""
    local_paths = chain.from_iterable(ROOT.glob(pattern.format(tool)) for pattern in BUILD_PATTERNS)
    path = next(map(str, local_paths), None) or shutil.which(tool)  # the system's version may be too old
    if path is None and os.environ.get("CI") != "true":
        pytest.skip(f"{tool} is missing: see .ci/run for Debian's packages, or run make tools")
    assert path, f"{tool} is missing"
    return path


def run_tool(tool: str, *arguments: str, stdin: str = "") -> str:
    """Run an external program and return its standard output; fail with its output if its exit code is not 0."""
    done = subprocess.run(
        [require_tool(tool), *arguments], input=stdin, capture_output=True, text=True, check=False, timeout=60, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
