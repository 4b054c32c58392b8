"""Drift detectors in environments of their own, which exchange windows and results as files in a folder.

Imports no driftloop, which is not in these environments.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = {"nannyml": "nannyml_windows", "alibi_detect": "alibi_windows"}

DetectorFunction = Callable[[pd.DataFrame, pd.DataFrame, list[str], int], dict[str, Any]]
"""Gets the reference, all windows one after the other, the numeric columns and the rows of a window.

Returns the fields of a :class:`DetectorResult` by detector.
"""


class DetectorResult(NamedTuple):
    """A detector's results for all windows."""

    score: list[float]
    """The score of each window, comparable between references."""
    alarm: dict[str, list[bool]]
    """Verdicts by the configured false-alarm rate, if the detector takes one."""


class DetectorFailed(Exception):
    """A detector's process has ended with an error."""


class Case(NamedTuple):
    """A reference, windows of the same length, and the numeric columns."""

    reference: pd.DataFrame
    windows: Sequence[pd.DataFrame]
    numbers: list[str]


def write_cases(folder: Path, cases: Mapping[str, Case]) -> None:
    """Write the cases into a folder for :func:`start_detectors`."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptions = {}
    for name, (reference, windows, numbers) in cases.items():
        reference.to_parquet(folder / f"{name}.reference.parquet", index=False)
        pd.concat(list(windows)).to_parquet(folder / f"{name}.windows.parquet", index=False)
        descriptions[name] = {"numbers": numbers, "rows": len(windows[0])}
    (folder / "cases.json").write_text(json.dumps(descriptions))


def start_detectors(folder: Path, peer: str, programs: Path) -> "subprocess.Popen[bytes]":
    """Start a peer's detectors on a folder's cases, as a process."""
    with (folder / f"{peer}.log").open("w") as log:
        return subprocess.Popen(
            [str(programs / "python"), "-m", f"benchmarks.peers.{SCRIPTS[peer]}", str(folder)],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "NML_DISABLE_USAGE_LOGGING": "1"},
            stdout=log,
            stderr=log,
        )


def collect_results(
    folder: Path, peer: str, process: "subprocess.Popen[bytes]"
) -> dict[str, dict[str, DetectorResult]]:
    """Wait for the process; return the results by case and detector.

    Raises:
        DetectorFailed: The process has ended with an error.
    """
    if process.wait():
        last = (folder / f"{peer}.log").read_text().strip().splitlines()[-5:]
        raise DetectorFailed(f"{peer} ended with exit code {process.returncode}: " + "\n  ".join(last))
    results = json.loads((folder / f"{peer}.json").read_text())
    return {
        case: {detector: DetectorResult(**result) for detector, result in case_results["detectors"].items()}
        for case, case_results in results.items()
    }


def run_detectors(folder: Path, peer: str, detect: DetectorFunction) -> None:
    """Run a peer's detectors on all cases and write the results; called in the peer's environment."""
    results = {}
    for name, case in json.loads((folder / "cases.json").read_text()).items():
        reference, windows = (pd.read_parquet(folder / f"{name}.{part}.parquet") for part in ("reference", "windows"))
        started = time.monotonic()
        detectors = detect(reference, windows, case["numbers"], case["rows"])
        results[name] = {"detectors": detectors, "seconds": time.monotonic() - started}
        print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
    (folder / f"{peer}.json").write_text(json.dumps(results))
