"""Run all tests: several pytest processes at once, each with a part of the folders.

Tests that share a running stack must be in one process, so the parts are folders. What each part prints is shown when
it ends, and one line with the totals closes the run.
"""

import argparse
import re
import subprocess
import sys
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
REPORTS = ROOT / ".reports"
"""JUnit files and coverage data."""
PROGRESS_SECONDS = 30
MAX_PROCESSES = 2  # more would slow the parts that wait for answers within seconds
COVERED = ("driftloop", "driftloop_cli", "predictor", "drift_worker", "trainer", "producer")


class Part(NamedTuple):
    """A pytest process."""

    name: str
    arguments: tuple[str, ...]

    def file(self, suffix: str) -> Path:
        """Return where its report or output is written."""
        return (REPORTS / self.name.replace(", ", "-").replace(" ", "-")).with_suffix(suffix)

    def progress(self) -> str:
        """Return the percentage of tests that have ended, as pytest last printed it."""
        log = self.file(".log")
        percentages = re.findall(r"\[ *(\d+%)\]", log.read_text()) if log.exists() else []
        return percentages[-1] if percentages else "0%"


OWN_MODELS = "tests/e2e/own_models"
PARTS = (
    Part("end-to-end", ("tests/e2e", f"--ignore={OWN_MODELS}")),
    Part(
        "unit, integration and deployment",
        (
            *("driftloop", "driftloop_cli", "services", "usecases", "stack", "tests/integration", "tests/deploy"),
            *(f"--cov={package}" for package in COVERED),
            "--cov-report=term:skip-covered",
        ),
    ),
    Part("end-to-end with own models", (OWN_MODELS,)),
    Part("faults", ("tests/faults",)),
)


class Result(NamedTuple):
    """How a part ended."""

    part: Part
    exit_code: int
    seconds: float


def run(part: Part, options: list[str]) -> Result:
    """Run one part to its end."""
    began = time.monotonic()
    command = [sys.executable, "-m", "pytest", *part.arguments, "--durations=25"]
    with part.file(".log").open("w") as log:
        done = subprocess.run(
            [*command, f"--junitxml={part.file('.xml')}", *options],
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        )
    return Result(part, done.returncode, time.monotonic() - began)


def counts(report: Path) -> tuple[int, int, int]:
    """Return the numbers of tests that passed, failed and were skipped, from a JUnit file."""
    suite = next(ElementTree.parse(report).iter("testsuite"))  # noqa: S314  # pytest has just written it
    total, failed, skipped = (
        int(suite.get(name, 0)) + extra
        for name, extra in (("tests", 0), ("failures", int(suite.get("errors", 0))), ("skipped", 0))
    )
    return total - failed - skipped, failed, skipped


def _without_coverage(part: Part) -> tuple[str, ...]:
    return tuple(word for word in part.arguments if not word.startswith("--cov"))


def main() -> None:
    """Run the parts, print what they printed, and exit with 1 if one of them failed."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        epilog="example: python -m tools.run_tests -- -k outbox",
    )
    parser.add_argument("--coverage", action=argparse.BooleanOptionalAction, default=True, help="measure coverage")
    parser.add_argument("options", nargs="*", help="options for pytest, after --")
    arguments = parser.parse_args()
    REPORTS.mkdir(exist_ok=True)
    for old in REPORTS.glob("*.xml"):
        old.unlink()
    began = time.monotonic()
    print(f"running two at a time: {'; '.join(part.name for part in PARTS)}", flush=True)
    parts = [part if arguments.coverage else part._replace(arguments=_without_coverage(part)) for part in PARTS]
    failed = False
    with ThreadPoolExecutor(MAX_PROCESSES) as pool:
        futures = {pool.submit(run, part, arguments.options): part for part in parts}
        while futures:
            ended, _ = wait(futures, PROGRESS_SECONDS, FIRST_COMPLETED)
            for future in ended:
                result = future.result()
                failed |= result.exit_code != 0
                output = futures.pop(future).file(".log").read_text()
                print(f"\n===== {result.part.name}: {result.seconds:.0f} s\n{output}", flush=True)
            if not ended:
                progress = "; ".join(f"{part.name} {part.progress()}" for part in futures.values())
                print(f"{time.monotonic() - began:.0f} s: {progress}", flush=True)
    passed, broken, skipped = map(sum, zip(*map(counts, REPORTS.glob("*.xml")), strict=True))
    print(f"all tests: {time.monotonic() - began:.0f} s; reports in {REPORTS.relative_to(ROOT)}")
    print(f"{passed} passed, {broken} failed, {skipped} skipped")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
