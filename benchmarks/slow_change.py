"""Slow change: after how many windows a small lasting shift is found, by detectors with the same run length.

Streams are made, so the truth is known: ten numbers and three categories, of which one number is shifted. driftloop has
only a reference of 78 days to learn from. The other detectors have the limits that hold the run length on unchanged
windows of the same kind, which nobody knows in practice.
"""

import json
import subprocess
from typing import Any

import numpy as np

from benchmarks import drift_streams
from benchmarks.detector_power import CHANGED_COLUMN
from driftloop.drift.cumulated import CumulatedState, cumulate
from driftloop.drift.cumulated_calibration import calibrate_cumulated
from driftloop.drift.distances import FloatArray
from driftloop.drift.statistics import StatisticKey, prepare_reference, window_statistics
from driftloop.drift.tails import score_threshold
from tests.support import report
from tests.support.peer_environments import ENVIRONMENTS_DIR, ROOT, ensure_environment
from tests.support.report import log

RUN_LENGTH = 1_000
REFERENCE_DAYS, UNCHANGED_DAYS, MAX_DELAY = 78, 40, 100
CASES = {  # variance that a day's rows have in common, and shifts in standard deviations
    "independent rows": (0.0, (0.05, 0.1, 0.2)),
    "days share half of the variance": (0.5, (0.5,)),
}
FIGURE = ("independent rows", 0.1)
RIVER_WINDOWS = 200  # unchanged ones of each stream
RESAMPLES = 2_000


def measure_slow_delay(streams: int) -> tuple[float, dict[str, Any]]:
    """Return the mean delay of the shift that the figure is about, and those of all shifts and detectors."""
    details: dict[str, Any] = {}
    table = report.create_table(
        f"windows until a lasting shift is found, run length {RUN_LENGTH:,} windows",
        "detector",
        "rows",
        "shift",
        "windows",
    )
    for name, (shared, sizes) in CASES.items():
        delays, false_alarms = _measure_streams(shared, sizes, streams)
        for detector, by_size in {**delays, **_river_delays(name, shared, sizes, streams)}.items():
            for size, values in by_size.items():
                mean = _mean_with_interval(np.array(values, dtype=float))
                details.setdefault(name, {}).setdefault(detector, {})[str(size)] = mean
                bound = "≥ " if max(values) >= MAX_DELAY else ""
                table.add_row(detector, name, f"{size} sd", f"{bound}{mean[0]:.1f} [{mean[1]:.1f}–{mean[2]:.1f}]")
        details[name]["unchanged windows with an alarm, %"] = false_alarms
        log(f"slow change, {name}: alarm in {false_alarms:.2f} % of {streams * UNCHANGED_DAYS:,} unchanged windows")
    report.console.print(table)
    rows, size = FIGURE
    return details[rows]["driftloop: cumulated"][str(size)][0], details


def _measure_streams(
    shared: float, sizes: tuple[float, ...], streams: int
) -> tuple[dict[str, dict[float, list[int]]], float]:
    """Return the delays of driftloop and of the largest distance of a window, and the rate of false alarms."""
    cumulated: dict[float, list[int]] = {size: [] for size in sizes}
    distances: dict[float, list[FloatArray]] = {size: [] for size in sizes}
    unchanged: list[float] = []
    alarms: list[bool] = []
    for seed in range(streams):
        days = REFERENCE_DAYS + UNCHANGED_DAYS + MAX_DELAY
        stream = drift_streams.synthetic(3_000 + seed, days, shared, 0.0)
        length = stream.window_rows
        windows = [stream.rows.iloc[first : first + length] for first in range(0, len(stream.rows), length)]
        reference = stream.rows.iloc[: REFERENCE_DAYS * length]
        calibration = calibrate_cumulated(reference, stream.column_types, length, RUN_LENGTH)
        assert calibration is not None
        prepared = prepare_reference(stream.column_types, reference)
        state = CumulatedState()
        for window in windows[REFERENCE_DAYS:-MAX_DELAY]:
            score = cumulate(calibration, state, window)
            state = score.state
            alarms.append(bool(score.changes))
            statistics = window_statistics(prepared, window)
            unchanged.append(
                max(v for key, v in statistics.items() if key.statistic in ("wasserstein", "jensenshannon"))
            )
        column = {CHANGED_COLUMN: prepared[CHANGED_COLUMN]}
        for size in sizes:
            delay, found, values = state, MAX_DELAY, []
            for number, window in enumerate(windows[-MAX_DELAY:], 1):
                changed = window.assign(**{CHANGED_COLUMN: window[CHANGED_COLUMN] + size})
                score = cumulate(calibration, delay, changed)
                delay = score.state
                values.append(window_statistics(column, changed)[StatisticKey(CHANGED_COLUMN, "wasserstein")])
                if any(change.column == CHANGED_COLUMN for change in score.changes) and found == MAX_DELAY:
                    found = number
            cumulated[size].append(found)
            distances[size].append(np.array(values))
    threshold = score_threshold(np.array(unchanged), 1 / RUN_LENGTH, len(unchanged))
    by_distance = {
        size: [int(np.append(np.flatnonzero(each > threshold), MAX_DELAY - 1)[0]) + 1 for each in values]
        for size, values in distances.items()
    }
    return {
        "driftloop: cumulated": cumulated,
        "largest distance of a window (evidently's, NannyML's)": by_distance,
    }, float(np.mean(alarms) * 100)


def _river_delays(
    name: str, shared: float, sizes: tuple[float, ...], streams: int
) -> dict[str, dict[float, list[int]]]:
    """Return the delays of River's detectors on the means of the numbers of each window, by detector and shift.

    Means are standardized by a reference of as many days. Those of normal values are drawn without their rows.
    """
    random = np.random.default_rng(4_000)
    numbers = 10
    std = np.sqrt(shared + (1 - shared) / drift_streams.DAY_ROWS)

    def means(windows: int) -> FloatArray:
        return random.normal(0, std, (windows, numbers))

    unchanged, changed = [], []
    for _ in range(streams):
        reference = means(REFERENCE_DAYS)
        location, scale = reference.mean(axis=0), reference.std(axis=0)
        unchanged.append(((means(RIVER_WINDOWS) - location) / scale).tolist())
        later = means(MAX_DELAY)
        changed.append([((later[:, 0] + size - location[0]) / scale[0]).tolist() for size in sizes])
    folder = ENVIRONMENTS_DIR / "slow_change"
    folder.mkdir(parents=True, exist_ok=True)
    case = {"run_length": RUN_LENGTH, "unchanged": unchanged, "changed": changed}
    (folder / "case.json").write_text(json.dumps(case))
    subprocess.run(
        [str(ensure_environment("river") / "python"), str(ROOT / "benchmarks/peers/river_means.py"), str(folder)],
        check=True,
    )
    log(f"slow change, {name}: River's detectors")
    results = json.loads((folder / "delays.json").read_text())
    return {
        f"river: {detector}": {size: [delays[number] for delays in by_stream] for number, size in enumerate(sizes)}
        for detector, by_stream in results.items()
    }


def _mean_with_interval(values: FloatArray) -> list[float]:
    """Return the mean and its 95 % interval, by resamples of streams."""
    resamples = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    bounds = np.quantile(values[resamples].mean(axis=1), [0.025, 0.975])
    return [float(value) for value in (values.mean(), *bounds)]
