"""Drift detection with known truth: driftloop compared with evidently's preset, NannyML and Alibi Detect.

False alarms are counted in windows of the same season that are not part of the reference. Power is measured on real
changes of the season, on changes that are injected into such windows, and on synthetic streams. Intervals are 95 %, by
resampling whole weeks (or streams), since neighbouring windows are not independent.
"""

import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from benchmarks import drift_streams
from benchmarks.detector_power import (
    CHANGE_SIZES,
    CHANGED_COLUMN,
    MAX_DELAY_WINDOWS,
    RATES,
    alarm_rate,
    print_alarms,
    print_injections,
    print_power_at_equal_rate,
    print_synthetic,
)
from benchmarks.drift_detector import Detector, window_ends
from benchmarks.drift_references import measure_mixed, score_references, summarize_references
from benchmarks.drift_streams import EVERY_4TH_WEEK, INJECTIONS, LATER_WEEKS, REST_OF_YEAR, Split, Stream
from benchmarks.peers import detectors
from benchmarks.peers.detectors import SCRIPTS, Case, DetectorFailed, DetectorResult
from benchmarks.slow_change import measure_slow_delay
from tests.support import report
from tests.support.peer_environments import ENVIRONMENTS_DIR, PINNED_PACKAGES, UvNotInstalled, ensure_environment
from tests.support.processes import exit_on_sigterm
from tests.support.report import log

GOALS = {
    "false_alarms_5": "≤ 5",
    "false_alarms_1": "≤ 1.5",
    "winter_false_alarms_5": "≤ 5",
    "winter_false_alarms_1": "≤ 1.5",
    "limit_ratio": "≤ 1.3",
    "injections_share": "≥ 85",
    "injections_lowest": "≥ 95",
    "mixed_ratio": "≤ 1.2",
    "slow_delay": "≤ 8",
    "false_alarms_verdict_5": "≤ 5",
    "false_alarms_verdict_1": "≤ 1.5",
    "july_single": "≥ 96",
    "july_rolling": "100",
    "injections_found": f"≥ 10 (of {len(INJECTIONS)})",
}
PRESET_CHECKS = 3  # windows scored by evidently's preset itself, to show that it has the same result
SYNTHETIC_STREAMS = {  # variance that a day's rows have in common, and its correlation with the day before
    "independent rows": (0.0, 0.0),
    "days share half of the variance": (0.5, 0.0),
    "and correlate with 0.6": (0.5, 0.6),
}
SYNTHETIC_STREAMS_PER_TYPE = 40
QUICK_MONTHS = ("July", "December")
REFERENCE_DAYS, TEST_DAYS = 78, 26  # of synthetic streams


class Season(NamedTuple):
    """A part of a stream without much change, used as the reference; the rest of the year changes."""

    stream: Stream
    start: str
    end: str
    weeks: int
    """Weeks of the reference in the split that tests later weeks."""

    @property
    def splits(self) -> list[Split]:
        """The splits of all designs."""
        return [
            *drift_streams.season_splits(self.stream, self.start, self.end, self.weeks),
            drift_streams.rest_of_year_split(self.stream, self.start, self.end),
        ]


def main() -> int:
    """Run the benchmark; return the exit code."""
    options = report.create_parser(
        f"{__doc__}\nRun `make setup` first; peers are installed into .benchmarks."
    ).parse_args()
    try:
        for peer in (*SCRIPTS, "islp", "river"):
            log(f"environment of {peer}")
            ensure_environment(peer)
        with exit_on_sigterm():
            figures, details = measure(options.quick)
    except (UvNotInstalled, DetectorFailed) as error:
        report.warn(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    report.write_results("drift_truth", figures, GOALS, details, options.json)
    return 0


def measure(quick: bool) -> tuple[dict[str, float], dict[str, Any]]:
    """Score all streams with all detectors; return figures and details."""
    log("reading flights and hires")
    flights, hires = drift_streams.flights(), drift_streams.bikeshare()
    seasons = {
        "flights": Season(flights, "2013-01-01", "2013-04-01", 8),
        "bikeshare": Season(hires, "2011-05-01", "2011-09-01", 12),
    }
    cases, labels = make_peer_cases(seasons, quick)
    folder = ENVIRONMENTS_DIR / "windows"
    detectors.write_cases(folder, cases)
    processes = {peer: detectors.start_detectors(folder, peer, ensure_environment(peer)) for peer in SCRIPTS}
    try:
        log(f"{sum(len(case.windows) for case in cases.values()):,} windows written for {', '.join(SCRIPTS)}")
        unchanged = {name: score_season(season, 1 if quick else 4, quick) for name, season in seasons.items()}
        injected = score_injections(seasons["flights"], 1 if quick else 2, 1 if quick else drift_streams.FOLDS)
        log("flights with injected changes: done")
        references = score_references(flights, quick)
        mixed_ratio, mixed = measure_mixed(1 if quick else 8)
        slow_delay, slow = measure_slow_delay(2 if quick else SYNTHETIC_STREAMS_PER_TYPE)
        synthetic = score_synthetic(1 if quick else SYNTHETIC_STREAMS_PER_TYPE)
        log("waiting for the peers")
        results = {peer: detectors.collect_results(folder, peer, process) for peer, process in processes.items()}
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    peers = collect_peer_results(results, labels)
    by_season = {name: peers[peers["stream"] == name] for name in seasons}
    reference_figures, by_reference = summarize_references(references)
    by_injection = print_injections(injected, unchanged["flights"], by_season["flights"])
    details = {
        **{f"{name} alarms": print_alarms(name, unchanged[name], by_season[name]) for name in seasons},
        **{
            f"{name} at the same rate": print_power_at_equal_rate(name, unchanged[name], by_season[name])
            for name in seasons
        },
        "references": by_reference,
        "two worlds": mixed,
        "slow change": slow,
        "injections": by_injection,
        "synthetic streams": print_synthetic(synthetic),
        "pins": {peer: list(PINNED_PACKAGES[peer]) for peer in SCRIPTS},
    }
    flights_windows = unchanged["flights"]
    false_alarms = {
        rate: max(
            alarm_rate(flights_windows[flights_windows["design"] == design], f"either {rate}")[0]
            for design in (EVERY_4TH_WEEK, LATER_WEEKS)
        )
        for rate in RATES
    }
    july = flights_windows[flights_windows["block"] == "July"]
    figures = {
        **reference_figures,
        "mixed_ratio": mixed_ratio,
        "slow_delay": slow_delay,
        "winter_false_alarms_5": false_alarms[0.05],
        "winter_false_alarms_1": false_alarms[0.01],
        "july_single": alarm_rate(july, "single 0.05")[0],
        "july_rolling": alarm_rate(july, "rolling 0.05")[0],
        "injections_found": float(sum(rates["found"][0] == 100 for rates in by_injection.values())),
    }
    return figures, details


def score_season(season: Season, steps: int, quick: bool) -> pd.DataFrame:
    """Score all windows of all designs of a stream; ``steps`` windows start within a window's length."""
    results: list[dict[str, Any]] = []
    stream = season.stream
    for split in season.splits:
        detector = Detector(stream, split.reference)
        for stretch in split.test_stretches:
            if quick and split.design == REST_OF_YEAR and stretch.block not in QUICK_MONTHS:
                continue
            rows = stream.rows.iloc[stretch.first : stretch.end]
            results += detector.score_windows(
                rows, stream.window_rows // steps, block=stretch.block, design=split.design
            )
        if split.design == LATER_WEEKS and stream.window_rows >= 1_000:  # with fewer rows the preset uses other tests
            for at in range(PRESET_CHECKS):
                assert detector.preset_agrees(stream.rows.iloc[stretch.first :].iloc[at * 1_000 : (at + 1) * 1_000])
        log(f"{split.design}: reference of {len(split.reference):,} rows, {len(results):,} windows scored")
    return pd.DataFrame(results)


def score_injections(season: Season, steps: int, folds: int) -> pd.DataFrame:
    """Score windows of held-out weeks with an injected change in the whole week."""
    results: list[dict[str, Any]] = []
    stream = season.stream
    for split in season.splits[:folds]:
        detector = Detector(stream, split.reference)
        for stretch in split.test_stretches:
            rows = stream.rows.iloc[stretch.first : stretch.end]
            for injection in INJECTIONS:
                changed = injection.change(rows, detector.reference)
                labels = {"block": stretch.block, "injection": injection.name, "column": injection.column}
                results += detector.score_windows(changed, stream.window_rows // steps, **labels)
    return pd.DataFrame(results)


def make_peer_cases(seasons: Mapping[str, Season], quick: bool) -> tuple[dict[str, Case], pd.DataFrame]:
    """Return windows for the peers, and a table with the labels of each window.

    There are fewer than for driftloop, because the peers are slower.
    """
    cases: dict[str, Case] = {}
    labels: list[dict[str, str]] = []
    for name, (stream, *_) in seasons.items():
        numbers = [column for column, column_type in stream.column_types.items() if column_type == "number"]
        for number, split in enumerate(seasons[name].splits):
            if quick and (name != "flights" or 0 < number < drift_streams.FOLDS):
                continue
            reference = stream.rows.iloc[split.reference]
            step = stream.window_rows if split.design == REST_OF_YEAR or quick else stream.window_rows // 2
            windows: list[pd.DataFrame] = []
            for stretch in split.test_stretches:
                if quick and split.design == REST_OF_YEAR and stretch.block not in QUICK_MONTHS:
                    continue
                rows = stream.rows.iloc[stretch.first : stretch.end]
                variants = [("", rows)]
                if name == "flights" and number == 0:
                    variants += [(injection.name, injection.change(rows, reference)) for injection in INJECTIONS]
                for injection_name, changed in variants:
                    ends = window_ends(len(changed), stream.window_rows, stream.window_rows if injection_name else step)
                    windows += [changed.iloc[end - stream.window_rows : end] for end in ends]
                    label = {"stream": name, "design": split.design, "block": stretch.block}
                    labels += [{**label, "injection": injection_name, "case": f"{name}-{number}"}] * len(ends)
            cases[f"{name}-{number}"] = Case(reference, windows, numbers)
    return cases, pd.DataFrame(labels)


def collect_peer_results(
    by_peer: Mapping[str, Mapping[str, Mapping[str, DetectorResult]]], labels: pd.DataFrame
) -> pd.DataFrame:
    """Return a table with a row per window and detector of a peer."""
    results = []
    for peer, by_case in by_peer.items():
        for case, by_detector in by_case.items():
            for detector, (score, alarm) in by_detector.items():
                case_labels = labels[labels["case"] == case]
                columns = {str(rate): alarm[str(rate)] for rate in RATES}
                results.append(case_labels.assign(detector=f"{peer}: {detector}", score=score, **columns))
    return pd.concat(results)


def score_synthetic(streams_per_type: int) -> pd.DataFrame:
    """Score synthetic streams, unchanged and with changes of one number."""
    jobs = [(name, seed) for name in SYNTHETIC_STREAMS for seed in range(streams_per_type)]
    results = []
    with ProcessPoolExecutor(2) as pool:
        for number, stream_results in enumerate(pool.map(_score_synthetic_stream, jobs), 1):
            results += stream_results
            if number % streams_per_type == 0:
                log(f"synthetic streams: {jobs[number - 1][0]}")
    return pd.DataFrame(results)


def _score_synthetic_stream(job: tuple[str, int]) -> list[dict[str, Any]]:
    name, seed = job
    stream = drift_streams.synthetic(seed, REFERENCE_DAYS + TEST_DAYS, *SYNTHETIC_STREAMS[name])
    first = REFERENCE_DAYS * drift_streams.DAY_ROWS
    detector = Detector(stream, np.arange(first))
    rows = stream.rows.iloc[first:]
    results = detector.score_windows(rows, stream.window_rows, truth=name, block=seed, size=0.0)
    change_row = TEST_DAYS // 2 * stream.window_rows + stream.window_rows // 2  # in the middle of a window
    start = change_row - stream.window_rows // 2 - 2 * stream.window_rows
    excerpt = rows.iloc[start : change_row + MAX_DELAY_WINDOWS * stream.window_rows]
    is_changed = np.arange(len(excerpt)) >= 2.5 * stream.window_rows
    for size in CHANGE_SIZES:
        changed = excerpt.assign(**{CHANGED_COLUMN: excerpt[CHANGED_COLUMN] + size * is_changed})
        results += detector.score_windows(changed, stream.window_rows, truth=name, block=seed, size=size)
    return results


if __name__ == "__main__":
    sys.exit(main())
