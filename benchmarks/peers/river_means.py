"""Run River's detectors on means of windows, in River's environment. See benchmarks.slow_change."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from river import drift  # type: ignore[import-not-found]  # not in driftloop's environment

MakeDetector = Callable[[float], Any]
DETECTORS: dict[str, tuple[MakeDetector, list[float]]] = {  # with limits from sensitive to dull
    "Page-Hinkley on means": (
        lambda limit: drift.PageHinkley(min_instances=1, delta=0.5, threshold=limit, alpha=1.0),
        [2.0 * 1.08**step for step in range(40)],
    ),
    "ADWIN on means": (
        lambda limit: drift.ADWIN(delta=limit, clock=1, min_window_length=5, grace_period=5),
        [10.0 ** (-step / 2) for step in range(40)],
    ),
}


def alarms(make: MakeDetector, limit: float, columns: Sequence[Sequence[float]]) -> int:
    """Return the alarms in a stream with several columns; all detectors start again after each."""
    count, detectors = 0, [make(limit) for _ in columns]
    for values in zip(*columns, strict=True):
        for detector, value in zip(detectors, values, strict=True):
            detector.update(value)
        if any(detector.drift_detected for detector in detectors):
            count += 1
            detectors = [make(limit) for _ in columns]
    return count


def delay(make: MakeDetector, limit: float, before: Sequence[float], after: Sequence[float]) -> int:
    """Return the windows after a change until the first alarm, or all there are."""
    detector = make(limit)
    for value in before:
        detector.update(value)
        if detector.drift_detected:
            detector = make(limit)
    for number, value in enumerate(after, 1):
        detector.update(value)
        if detector.drift_detected:
            return number
    return len(after)


def main(folder: Path) -> None:
    """Choose the limits that hold the run length on unchanged windows; write the delays of all streams."""
    case = json.loads((folder / "case.json").read_text())
    unchanged = [list(zip(*stream, strict=True)) for stream in case["unchanged"]]
    windows = sum(len(stream[0]) for stream in unchanged)
    results = {}
    for name, (make, limits) in DETECTORS.items():
        low, high = 0, len(limits) - 1
        while low < high:
            middle = (low + high) // 2
            count = sum(alarms(make, limits[middle], stream) for stream in unchanged)
            low, high = (low, middle) if count * case["run_length"] <= windows else (middle + 1, high)
        print(f"{name}: limit {limits[low]:.3g}", flush=True)
        results[name] = [
            [delay(make, limits[low], stream[0], after) for after in shifts]
            for stream, shifts in zip(unchanged, case["changed"], strict=True)
        ]
    (folder / "delays.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
