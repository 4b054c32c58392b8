"""Drift detection by reference: quarters, half a year and ten months of flights, and made tables of two worlds.

What a model was trained on must not decide whether it is watched: one bad day in it, or a change in the middle of it,
must neither blind the detector nor make it nervous.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from benchmarks import drift_streams
from benchmarks.detector_power import RATES, alarm_rate, format_rate, names_changed_column, with_alarms
from benchmarks.drift_detector import SPAN_WINDOWS, Detector
from benchmarks.drift_streams import FOLDS, INJECTIONS, Stream, rate_with_interval
from driftloop.drift.calibration import calibrate
from driftloop.drift.cumulated import CumulatedState, cumulate
from driftloop.drift.distances import FloatArray
from driftloop.drift.prepared_profile import PreparedProfile
from driftloop.drift.profile import DriftProfile
from driftloop.drift.scoring import score_window
from tests.support import report
from tests.support.report import log

REFERENCES = {
    "January–March": ("2013-01-01", "2013-04-01"),
    "April–June": ("2013-04-01", "2013-07-01"),
    "July–September": ("2013-07-01", "2013-10-01"),
    "October–December": ("2013-10-01", "2014-01-01"),
    "January–June": ("2013-01-01", "2013-07-01"),
    "January–October": ("2013-01-01", "2013-11-01"),
}
QUICK_REFERENCES = ("January–March", "April–June")
HARD_INJECTIONS = ("departure time + 0.25 sd", "departure time + 0.5 sd", "Fahrenheit to Celsius")
"""Changes that were not found in every window when thresholds did not depend on the tail of each statistic."""
RESAMPLES = 2_000
WORLDS = {"independent rows": 0.0, "days share half of the variance": 0.5}
WORLD_DAYS, TEST_DAYS = 78, 22  # of a version's training, and of the windows in which shifts are looked for
SHIFTED_COLUMNS = ("number 0", "number 1", "number 2", "number 3", "number 4")
MIN_SHIFT, MAX_SHIFT, BISECTIONS = 0.02, 8.0, 9
FOUND_FRACTION = 0.95
DEFAULT_RATE = RATES[1]


class ReferenceScores(NamedTuple):
    """Windows of held-out weeks, scored with the references of a period."""

    unchanged: pd.DataFrame
    injected: pd.DataFrame
    thresholds: FloatArray
    """Mean score threshold by rate and span, of the folds whose references are long enough for the span."""


def score_references(stream: Stream, quick: bool) -> dict[str, ReferenceScores]:
    """Score held-out weeks of each period, unchanged and with injected changes."""
    scores: dict[str, ReferenceScores] = {}
    for name in QUICK_REFERENCES if quick else REFERENCES:
        unchanged: list[dict[str, object]] = []
        injected: list[dict[str, object]] = []
        thresholds = []
        splits = drift_streams.season_splits(stream, *REFERENCES[name], 1)[: 1 if quick else FOLDS]
        for split in splits:
            detector = Detector(stream, split.reference)
            thresholds.append([_thresholds(profile) for profile in detector.profiles.values()])
            calibration, state = detector.profiles[DEFAULT_RATE].cumulated, CumulatedState()
            for stretch in split.test_stretches:
                rows = stream.rows.iloc[stretch.first : stretch.end]
                week = int(stream.days[stretch.first]) // 7  # references share weeks, which are resampled as a whole
                scored = detector.score_windows(rows, stream.window_rows // (1 if quick else 4), block=week)
                for result in scored:
                    if result["end"] % stream.window_rows == 0:  # side by side, as the drift worker has them
                        result["cumulated"] = False
                        if calibration is None:  # the present stretch is too short
                            continue
                        end = int(result["end"])
                        score = cumulate(calibration, state, rows.iloc[end - stream.window_rows : end])
                        state, result["cumulated"] = score.state, bool(score.changes)
                unchanged += scored
                for injection in INJECTIONS:
                    changed = injection.change(rows, detector.reference)
                    labels = {"block": week, "injection": injection.name, "column": injection.column}
                    injected += detector.score_windows(changed, stream.window_rows // (1 if quick else 2), **labels)
        log(f"{name}: {len(unchanged):,} windows scored, {len(injected):,} with injected changes")
        scores[name] = ReferenceScores(
            pd.DataFrame(unchanged), pd.DataFrame(injected), np.nanmean(np.array(thresholds), axis=0)
        )
    return scores


def summarize_references(scores: dict[str, ReferenceScores]) -> tuple[dict[str, float], dict[str, object]]:
    """Print the tables of all references; return figures and details, each with its interval."""
    pooled = pd.concat([score.unchanged for score in scores.values()])
    rates = {f"false_alarms_{rate * 100:g}": alarm_rate(pooled, f"either {rate}") for rate in RATES}
    rates |= {f"false_alarms_verdict_{rate * 100:g}": _verdict_rate(pooled, rate) for rate in RATES}
    rates["cumulated_alarms"] = _cumulated_rate(pooled)
    found = {name: _found(score.injected) for name, score in scores.items()}
    share = _mean_of_references(list(found.values()))
    by_injection = {
        injection.name: {
            name: float(windows.loc[windows["injection"] == injection.name, "found"].mean() * 100)
            for name, windows in found.items()
        }
        for injection in INJECTIONS
    }
    first = next(iter(scores.values())).thresholds
    ratios = {name: score.thresholds / first for name, score in scores.items()}
    table = report.create_table("flights: % of unchanged windows with an alarm, and score thresholds", "", *scores)
    for scale in ("single", "rolling", "either"):
        for rate in RATES:
            values = (format_rate(alarm_rate(score.unchanged, f"{scale} {rate}")) for score in scores.values())
            table.add_row(f"{scale}, {rate * 100:g} %", *values)
    table.add_row("cumulated", *(format_rate(_cumulated_rate(score.unchanged)) for score in scores.values()))
    for number, rate in enumerate(RATES):
        values = (" / ".join(f"{value:.1f}" for value in score.thresholds[number]) for score in scores.values())
        table.add_row(f"score thresholds, {rate * 100:g} %", *values)
    report.console.print(table)
    table = report.create_table(f"flights: % of changed windows that name the column, {RATES[0]:.0%}", "", *scores)
    for injection, values_by_reference in by_injection.items():
        table.add_row(injection, *(f"{value:.0f}" for value in values_by_reference.values()))
    report.console.print(table)
    intervals = {**rates, "injections_share": share}
    log("all references: " + ", ".join(f"{name} {format_rate(value)} %" for name, value in intervals.items()))
    figures = {
        **{name: rate[0] for name, rate in rates.items()},
        "limit_ratio": float(np.nanmax(list(ratios.values()))),
        "injections_share": share[0],
        "injections_lowest": min(
            value
            for injection, values_by_reference in by_injection.items()
            if injection not in HARD_INJECTIONS
            for value in values_by_reference.values()
        ),
    }
    details = {
        "intervals": intervals,
        "false alarms by reference": {
            name: {f"either {rate}": alarm_rate(score.unchanged, f"either {rate}") for rate in RATES}
            for name, score in scores.items()
        },
        "score thresholds by reference": {name: score.thresholds.tolist() for name, score in scores.items()},
        "injections by reference": by_injection,
    }
    return figures, details


def _cumulated_rate(scored: pd.DataFrame) -> list[float]:
    """Return the percentage of windows, side by side, after which the cumulated score is an alarm."""
    windows = scored[scored["cumulated"].notna()]
    rate: list[float] = rate_with_interval(
        windows["cumulated"].to_numpy(dtype=bool), windows["block"].to_numpy()
    ).tolist()
    return rate


def _verdict_rate(scored: pd.DataFrame, rate: float) -> list[float]:
    """Return the percentage of windows, side by side, whose verdict is an alarm: alone, in threes, or cumulated."""
    windows = with_alarms(scored, f"either {rate}")
    windows = windows[windows["cumulated"].notna()]
    alarms = windows["alarm"].to_numpy(dtype=bool) | windows["cumulated"].to_numpy(dtype=bool)
    interval: list[float] = rate_with_interval(alarms, windows["block"].to_numpy()).tolist()
    return interval


def _thresholds(profile: DriftProfile) -> list[float]:
    """Return the score threshold of each span; NaN if the reference is too short for it."""
    by_span = {span.windows: span.score_threshold for span in profile.spans}
    return [by_span.get(windows, np.nan) for windows in (1, SPAN_WINDOWS)]


def _found(injected: pd.DataFrame) -> pd.DataFrame:
    """Return the windows with two before them, and whether the changed column is named by an alarm or an issue."""
    windows = injected[injected["before"]]
    named = [
        names_changed_column(windows, result) for result in (f"single {RATES[0]}", f"rolling {RATES[0]}", "issues")
    ]
    return windows.assign(found=np.any(np.array(named, dtype=bool), axis=0))


def _mean_of_references(found: list[pd.DataFrame]) -> list[float]:
    """Return the mean of the references' percentages and its interval, by resamples of whole weeks."""
    weeks = np.unique(np.concatenate([windows["block"].to_numpy() for windows in found]))
    hits, counts = np.zeros((2, len(weeks), len(found)))
    for number, windows in enumerate(found):
        position = np.searchsorted(weeks, windows["block"].to_numpy())
        counts[:, number] = np.bincount(position, minlength=len(weeks))
        hits[:, number] = np.bincount(position, windows["found"].to_numpy(dtype=float), minlength=len(weeks))
    resamples = np.random.default_rng(0).integers(len(weeks), size=(RESAMPLES, len(weeks)))
    with np.errstate(invalid="ignore"):  # a resample may have no week of a reference
        means = np.nanmean(hits[resamples].sum(axis=1) / counts[resamples].sum(axis=1), axis=1)
    middle = float((hits.sum(axis=0) / counts.sum(axis=0)).mean())
    return [value * 100 for value in (middle, *np.quantile(means, [0.025, 0.975]).tolist())]


class Version:
    """What a version was trained on, calibrated at the default rate, and windows of the world that it serves."""

    def __init__(self, stream: Stream, reference: pd.DataFrame, windows: pd.DataFrame) -> None:
        """Calibrate with the first rows of a stream, as ``reference`` has them."""
        self._length = stream.window_rows
        self._windows = windows
        self.profile = calibrate(
            reference,
            stream.days[: len(reference)],
            stream.column_types,
            window_rows=stream.window_rows,
            false_alarm_rate=DEFAULT_RATE,
        )
        self._prepared = PreparedProfile.prepare(self.profile, reference)

    def smallest_shift(self, column: str) -> float:
        """Return the smallest shift of a column, in its standard deviations, that is found in 95 % of windows."""
        low, high = np.log(MIN_SHIFT), np.log(MAX_SHIFT)
        std = self._windows[column].std()
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            rows = self._windows.assign(**{column: self._windows[column] + np.exp(middle) * std})
            ends = range(SPAN_WINDOWS * self._length, len(rows) + 1, self._length)
            is_found = np.mean([self._names(rows, end, column) for end in ends]) >= FOUND_FRACTION
            low, high = (low, middle) if is_found else (middle, high)
        return float(np.exp(high))

    def _names(self, rows: pd.DataFrame, end: int, column: str) -> bool:
        """Return whether the column drifted in a window, alone or with the two before it."""
        spans = {windows: rows.iloc[end - windows * self._length : end] for windows in (1, SPAN_WINDOWS)}
        values = {windows: self._prepared.statistics(window) for windows, window in spans.items()}
        return any(finding.column == column for finding in score_window(self.profile, values).drifted_findings)


def second_world(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return rows of a synthetic stream after a change of five of its columns."""
    random = np.random.default_rng(seed)
    category = rows["category of 16"]
    levels = sorted(category.unique(), key=lambda level: int(level.split()[1]))
    moved = category.map(dict(zip(levels, reversed(levels), strict=True)))
    return rows.assign(
        **{
            "number 0": rows["number 0"] + 1.5,
            "number 1": rows["number 1"] * 2,
            "number 2": rows["number 2"] - 0.7,
            "number 3": rows["number 3"].mask(random.random(len(rows)) < 0.1),
            "category of 16": category.mask(random.random(len(rows)) < 0.3, moved),
        }
    )


def measure_mixed(streams_per_type: int) -> tuple[float, dict[str, object]]:
    """Return the ratio of the smallest shifts found by a version trained across a change and one trained before it.

    Both are trained on as many days; the windows of each are of the world that it serves. The details have the
    interval of the ratio, by resamples of streams, and the ratio of each stream.
    """
    logs: dict[str, list[float]] = {}
    stretches: dict[str, list[int]] = {}
    for truth, shared in WORLDS.items():
        for seed in range(streams_per_type):
            stream = drift_streams.synthetic(1_000 + seed, WORLD_DAYS + TEST_DAYS, shared, 0.0)
            first = WORLD_DAYS * drift_streams.DAY_ROWS
            before, test = stream.rows.iloc[:first], stream.rows.iloc[first:].reset_index(drop=True)
            half = first // 2
            across = pd.concat([before.iloc[:half], second_world(before.iloc[half:], seed)], ignore_index=True)
            versions = [
                Version(stream, before, test),
                Version(stream, across, second_world(test, seed)),
            ]
            shifts = np.array([[version.smallest_shift(column) for column in SHIFTED_COLUMNS] for version in versions])
            stretches.setdefault(truth, []).append(len(versions[1].profile.stretches))
            logs.setdefault(truth, []).append(float(np.log(shifts[1] / shifts[0]).mean()))
        log(f"two worlds, {truth}: ratios {', '.join(f'{np.exp(value):.2f}' for value in logs[truth])}")
    means = np.array([value for values in logs.values() for value in values])
    resamples = np.random.default_rng(0).integers(len(means), size=(RESAMPLES, len(means)))
    bounds = np.quantile(means[resamples].mean(axis=1), [0.025, 0.975])
    ratio = [float(np.exp(value)) for value in (means.mean(), *bounds)]
    log(f"two worlds: ratio of smallest shifts {ratio[0]:.2f} [{ratio[1]:.2f}–{ratio[2]:.2f}]")
    by_stream = {truth: np.exp(values).tolist() for truth, values in logs.items()}
    return ratio[0], {"mixed_ratio": ratio, "ratios by stream": by_stream, "stretches by stream": stretches}
