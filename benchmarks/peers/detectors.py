"""Windows for detectors of other environments, and what they say: files in a folder, so that nothing is shared.

Imports no driftloop, which these environments do not have.
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

Judged = Callable[[pd.DataFrame, pd.DataFrame, list[str], int], dict[str, Any]]
"""Reference, windows one after the other, the columns that are numbers, rows of a window; see :class:`Said`."""


class Said(NamedTuple):
    """What a detector says of each window."""

    score: list[float]
    """How unusual; comparable between references."""
    alarm: dict[str, list[bool]]
    """By the rate of false alarms that it was told, where it takes one."""


class Failed(Exception):
    """A detector ended with an error; says which."""


class Case(NamedTuple):
    """A reference and windows of the same length."""

    reference: pd.DataFrame
    windows: Sequence[pd.DataFrame]
    numbers: list[str]


def ask(folder: Path, cases: Mapping[str, Case]) -> None:
    """Lays the cases down for :func:`judging`."""
    folder.mkdir(parents=True, exist_ok=True)
    described = {}
    for name, (reference, windows, numbers) in cases.items():
        reference.to_parquet(folder / f"{name}.reference.parquet", index=False)
        pd.concat(list(windows)).to_parquet(folder / f"{name}.windows.parquet", index=False)
        described[name] = {"numbers": numbers, "rows": len(windows[0])}
    (folder / "cases.json").write_text(json.dumps(described))


def judging(folder: Path, peer: str, programs: Path) -> "subprocess.Popen[bytes]":
    """The peer at work on a folder's cases, as a process."""
    with (folder / f"{peer}.log").open("w") as log:
        return subprocess.Popen(
            [str(programs / "python"), "-m", f"benchmarks.peers.{SCRIPTS[peer]}", str(folder)],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "NML_DISABLE_USAGE_LOGGING": "1"},
            stdout=log,
            stderr=log,
        )


def said(folder: Path, peer: str, process: "subprocess.Popen[bytes]") -> dict[str, dict[str, Said]]:
    """By case and detector, once the process has ended. Raises :class:`Failed`."""
    if process.wait():
        last = (folder / f"{peer}.log").read_text().strip().splitlines()[-5:]
        raise Failed(f"{peer} ended with exit code {process.returncode}: " + "\n  ".join(last))
    answers = json.loads((folder / f"{peer}.json").read_text())
    return {
        case: {detector: Said(**one) for detector, one in of_case["detectors"].items()}
        for case, of_case in answers.items()
    }


def answer(folder: Path, peer: str, judged: Judged) -> None:
    """Runs a peer's detectors on all cases: called in the peer's own environment."""
    answers = {}
    for name, case in json.loads((folder / "cases.json").read_text()).items():
        reference, windows = (pd.read_parquet(folder / f"{name}.{part}.parquet") for part in ("reference", "windows"))
        began = time.monotonic()
        detectors = judged(reference, windows, case["numbers"], case["rows"])
        answers[name] = {"detectors": detectors, "seconds": time.monotonic() - began}
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    (folder / f"{peer}.json").write_text(json.dumps(answers))
