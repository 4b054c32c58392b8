"""Load on a server: Debian's wrk, which takes little of the machine that the server needs too."""

import json
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

SCRIPT = Path(__file__).with_name("wrk.lua")
TIMEOUT_SECONDS = 10  # longer than any server here takes for an answer, unless it has given up


class NoLoadGenerator(Exception):
    """Says what to install."""


class Load(NamedTuple):
    """What one run of the load generator saw."""

    requests: int
    """Answers, the failures among them."""
    seconds: float
    p50_ms: float
    p99_ms: float
    failures: int
    """Answers with a status of 400 or more, broken connections and answers that did not come."""

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.requests / self.seconds


def check() -> None:
    """Raises :class:`NoLoadGenerator` where there is none."""
    _wrk()


def write_bodies(file: Path, bodies: Iterable[str]) -> Path:
    """Request bodies as :func:`run` takes them."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{body}\n" for body in bodies))
    return file


def run(url: str, bodies: Path, connections: int, seconds: float) -> Load:
    """Sends the bodies of a file in turn over some connections, each of which waits for its answer."""
    # One thread is enough: it sends tens of thousands of requests a second.
    options = ["-t1", f"-c{connections}", f"-d{seconds:g}s", f"--timeout={TIMEOUT_SECONDS}s", "--latency"]
    done = subprocess.run(
        [_wrk(), *options, "-s", str(SCRIPT), url, "--", str(bodies)],
        check=False,
        capture_output=True,
        text=True,
        timeout=seconds + 60,
    )
    said = [line.removeprefix("DONE ") for line in done.stdout.splitlines() if line.startswith("DONE ")]
    if done.returncode or not said:
        raise RuntimeError(f"wrk failed: {done.stderr or done.stdout}")
    seen = json.loads(said[0])
    failures = seen["status"] + seen["socket"] + seen["timeout"]
    return Load(seen["requests"], seen["seconds"], seen["p50_ms"], seen["p99_ms"], failures)


def _wrk() -> str:
    found = shutil.which("wrk")
    if found is None:
        raise NoLoadGenerator("the load generator wrk is missing: install the package wrk (apt-get install wrk)")
    return found
