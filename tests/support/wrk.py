"""Load on a server with wrk (Debian's package), which takes little of the processors that the server needs."""

import json
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

SCRIPT = Path(__file__).with_name("wrk.lua")
TIMEOUT_SECONDS = 10  # longer than any server here takes, unless it hangs


class WrkNotInstalled(Exception):
    """The program wrk is not installed; the message says how to install it."""


class LoadResult(NamedTuple):
    """The result of one run of wrk."""

    requests: int
    """Responses, including failures."""
    seconds: float
    p50_ms: float
    p99_ms: float
    failures: int
    """Responses with a status of 400 or more, broken connections and timeouts."""

    @property
    def rate(self) -> float:
        """Responses per second."""
        return self.requests / self.seconds


def require_wrk() -> None:
    """Raise :class:`WrkNotInstalled` if wrk is missing."""
    _find_wrk()


def write_bodies(file: Path, bodies: Iterable[str]) -> Path:
    """Write request bodies to a file, as :func:`run_wrk` reads them; return the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{body}\n" for body in bodies))
    return file


def run_wrk(url: str, bodies: Path, connections: int, seconds: float) -> LoadResult:
    """Send the bodies of a file in turn over some connections, each of which waits for its response."""
    # One thread is enough: it sends tens of thousands of requests a second.
    options = ["-t1", f"-c{connections}", f"-d{seconds:g}s", f"--timeout={TIMEOUT_SECONDS}s", "--latency"]
    process = subprocess.run(
        [_find_wrk(), *options, "-s", str(SCRIPT), url, "--", str(bodies)],
        check=False,
        capture_output=True,
        text=True,
        timeout=seconds + 60,
    )
    results = [line.removeprefix("DONE ") for line in process.stdout.splitlines() if line.startswith("DONE ")]
    if process.returncode or not results:
        raise RuntimeError(f"wrk failed: {process.stderr or process.stdout}")
    result = json.loads(results[0])
    failures = result["status"] + result["socket"] + result["timeout"]
    return LoadResult(result["requests"], result["seconds"], result["p50_ms"], result["p99_ms"], failures)


def _find_wrk() -> str:
    path = shutil.which("wrk")
    if path is None:
        raise WrkNotInstalled("wrk is not installed: install the package wrk (apt-get install wrk)")
    return path
