"""False alarms and found changes: driftloop's calibrated windows beside evidently's preset, NannyML and Alibi Detect.

Rates of false alarms come from windows of the same season that nothing was learned from; what is found, from real
changes of the season, from changes that are made in such windows, and from streams whose truth is known. Intervals are
95 %, with weeks (or streams) drawn whole, since neighbouring windows are not independent.
"""

import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset

from benchmarks import streams
from benchmarks.peers import detectors
from benchmarks.peers.detectors import SCRIPTS, Case, Failed, Said
from benchmarks.power import (
    CHANGED,
    CHANGES,
    PATIENCE,
    RATES,
    share,
    show_alarms,
    show_injections,
    show_made,
    show_same_rate,
)
from benchmarks.streams import EVERY, INJECTIONS, LATER, YEAR, Split, Stream
from driftloop.drift.calibration import calibrate
from driftloop.drift.data_checks import check_data
from driftloop.drift.distances import IntArray
from driftloop.drift.scoring import score_window
from driftloop.drift.statistics import prepare_reference, window_statistics
from driftloop.events import Finding
from tests.support import report
from tests.support.peer_environments import FOLDER, PINS, NoInstaller, environment
from tests.support.processes import ended_in_order
from tests.support.report import tell

GOALS = {
    "false_alarms_5": "≤ 5",
    "false_alarms_1": "≤ 1.5",
    "july_single": "≥ 96",
    "july_rolling": "100",
    "injections_found": f"≥ 10 (of {len(INJECTIONS)})",
}
SPAN = 3  # windows of the rolling scale
FIXED = 0.1  # evidently's default threshold, for references of more than 1,000 rows
PRESET_CHECKS = 3  # windows that evidently's preset itself judges, to show that it says the same
TRUTHS = {  # share of a column's variance that a day shares; correlation of a day's share with the day before
    "independent rows": (0.0, 0.0),
    "days share half of the variance": (0.5, 0.0),
    "and go on at 0.6": (0.5, 0.6),
}
QUICK_MONTHS = ("July", "December")
LEARNED_DAYS, TESTED_DAYS = 78, 26  # of made streams


class Season(NamedTuple):
    """What is learned of a stream: no season changes in it much, and all others do."""

    stream: Stream
    start: str
    end: str
    weeks: int
    """Of its weeks, as many are learned from where the later ones are tested."""

    @property
    def splits(self) -> list[Split]:
        """All designs."""
        return [
            *streams.season(self.stream, self.start, self.end, self.weeks),
            streams.rest_of_the_year(self.stream, self.start, self.end),
        ]


class Detector:
    """Ours, as the drift worker has it, and evidently's defaults, which need no more than the same distances."""

    def __init__(self, stream: Stream, learned: IntArray) -> None:
        """Learns."""
        self.stream = stream
        self.reference = stream.rows.iloc[learned]
        self._ready = prepare_reference(stream.kinds, self.reference)
        days = stream.days[learned]
        self._profiles = {
            rate: calibrate(self.reference, days, stream.kinds, window_rows=stream.window, false_alarm_rate=rate)
            for rate in RATES
        }
        self._usually_constant = next(iter(self._profiles.values())).normally_constant_columns

    def judged(self, rows: pd.DataFrame, step: int, **about: object) -> list[dict[str, Any]]:
        """One entry a window of rows that follow one another.

        ``single`` and ``rolling`` are the columns that drifted in the window, and in it and the two before it; the
        latter is ``None`` where fewer are ``before``, or where too few rows were learned from for it. ``score`` is a
        share of the single window's limit.
        """
        return [{**self._judged(rows, end), **about} for end in ends(len(rows), self.stream.window, step)]

    def _judged(self, rows: pd.DataFrame, end: int) -> dict[str, Any]:
        length = self.stream.window
        window = rows.iloc[end - length : end]
        values, before = {1: window_statistics(self._ready, window)}, end >= SPAN * length
        if before:
            values[SPAN] = window_statistics(self._ready, rows.iloc[end - SPAN * length : end])
        distances = [v for check, v in values[1].items() if check.statistic in ("wasserstein", "jensenshannon")]
        over = np.array(distances) >= FIXED
        found: dict[str, Any] = {
            "end": end,
            "before": before,
            "evidently any": bool(over.any()),
            "evidently half": bool(over.mean() >= 0.5),
            "evidently score": float(np.nanmax(distances)),
            "facts": {fact.column for fact in check_data(self._ready, window, self._usually_constant)},
        }
        for rate, profile in self._profiles.items():
            by_span = {span.windows: span for span in score_window(profile, values).spans}
            found[f"single {rate}"] = _drifted(by_span[1].findings)
            found[f"rolling {rate}"] = _drifted(by_span[SPAN].findings) if SPAN in by_span else None
            if rate == RATES[0]:
                found["score"] = by_span[1].score / by_span[1].threshold
        return found

    def preset_agrees(self, rows: pd.DataFrame) -> bool:
        """Whether evidently's preset itself, told nothing, has as many columns above its threshold."""
        numbers, categories = (
            [c for c, k in self.stream.kinds.items() if k == kind] for kind in ("number", "category")
        )
        definition = DataDefinition(numerical_columns=numbers, categorical_columns=categories)
        both = [Dataset.from_pandas(frame, definition) for frame in (rows, self.reference)]
        results = Report([DataDriftPreset()]).run(*both).metric_results.values()
        (theirs,) = [result.count.value for result in results if hasattr(result, "count")]
        values = window_statistics(self._ready, rows)
        ours = sum(v >= FIXED for check, v in values.items() if check.statistic in ("wasserstein", "jensenshannon"))
        return bool(ours == theirs)


def _drifted(findings: Iterable[Finding]) -> set[str]:
    return {finding.column for finding in findings if finding.drifted}


def ends(rows: int, window: int, step: int) -> range:
    """Where windows end."""
    return range(window, rows + 1, step)


def main() -> int:
    """Runs everything; returns the exit code."""
    options = report.options(f"{__doc__}\nNeeds what `make setup` installs; peers go to .benchmarks.").parse_args()
    try:
        for peer in (*SCRIPTS, "islp"):
            tell(f"environment of {peer}")
            environment(peer)
        with ended_in_order():
            figures, details = measure(options.quick)
    except (NoInstaller, Failed) as error:
        report.warn(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    report.finish("drift_truth", figures, GOALS, details, options.json)
    return 0


def measure(quick: bool) -> tuple[dict[str, float], dict[str, Any]]:
    """Figures and details."""
    tell("reading flights and hires")
    flights, hires = streams.flights(), streams.bikeshare()
    seasons = {
        "flights": Season(flights, "2013-01-01", "2013-04-01", 8),
        "bikeshare": Season(hires, "2011-05-01", "2011-09-01", 12),
    }
    cases, places = peer_cases(seasons, quick)
    folder = FOLDER / "windows"
    detectors.ask(folder, cases)
    processes = {peer: detectors.judging(folder, peer, environment(peer)) for peer in SCRIPTS}
    try:
        tell(f"{sum(len(case.windows) for case in cases.values()):,} windows laid down for {', '.join(SCRIPTS)}")
        quiet = {name: ours(season, 1 if quick else 4, quick) for name, season in seasons.items()}
        injected = injections(seasons["flights"], 1 if quick else 2, 1 if quick else streams.FOLDS)
        tell("flights with changes made in them: judged")
        known = of_made(1 if quick else 12)
        tell("waiting for the peers")
        said = {peer: detectors.said(folder, peer, process) for peer, process in processes.items()}
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    peers = of_peers(said, places)
    details = {
        **{f"{name} alarms": show_alarms(name, quiet[name], peers[peers["stream"] == name]) for name in seasons},
        **{f"{name} at the same rate": show_same_rate(name, quiet[name], peers[peers["stream"] == name])
           for name in seasons},
        "injections": (shown := show_injections(injected, quiet["flights"], peers[peers["stream"] == "flights"])),
        "made streams": show_made(known),
        "pins": {peer: list(PINS[peer]) for peer in SCRIPTS},
    }  # fmt: skip
    of_flights = quiet["flights"]
    rates = {
        rate: max(share(of_flights[of_flights["design"] == design], f"either {rate}")[0] for design in (EVERY, LATER))
        for rate in RATES
    }
    july = of_flights[of_flights["block"] == "July"]
    figures = {
        "false_alarms_5": rates[0.05],
        "false_alarms_1": rates[0.01],
        "july_single": share(july, "single 0.05")[0],
        "july_rolling": share(july, "rolling 0.05")[0],
        "injections_found": float(sum(one["found"][0] == 100 for one in shown.values())),
    }
    return figures, details


def ours(season: Season, steps: int, quick: bool) -> pd.DataFrame:
    """All windows of all designs of a stream, judged; windows slide by a part of their length."""
    found: list[dict[str, Any]] = []
    stream = season.stream
    for split in season.splits:
        detector = Detector(stream, split.learned)
        for stretch in split.stretches:
            if quick and split.design == YEAR and stretch.block not in QUICK_MONTHS:
                continue
            rows = stream.rows.iloc[stretch.first : stretch.end]
            found += detector.judged(rows, stream.window // steps, block=stretch.block, design=split.design)
        if split.design == LATER and stream.window >= 1_000:  # with fewer rows it would take other tests
            for at in range(PRESET_CHECKS):
                assert detector.preset_agrees(stream.rows.iloc[stretch.first :].iloc[at * 1_000 : (at + 1) * 1_000])
        tell(f"{split.design}: {len(split.learned):,} rows learned, {len(found):,} windows judged")
    return pd.DataFrame(found)


def injections(season: Season, steps: int, folds: int) -> pd.DataFrame:
    """Windows of the held-out weeks with a change made in all of the week."""
    found: list[dict[str, Any]] = []
    stream = season.stream
    for split in season.splits[:folds]:
        detector = Detector(stream, split.learned)
        for stretch in split.stretches:
            rows = stream.rows.iloc[stretch.first : stretch.end]
            for one in INJECTIONS:
                changed = one.change(rows, detector.reference)
                about = {"block": stretch.block, "injection": one.name, "column": one.column}
                found += detector.judged(changed, stream.window // steps, **about)
    return pd.DataFrame(found)


def peer_cases(seasons: Mapping[str, Season], quick: bool) -> tuple[dict[str, Case], pd.DataFrame]:
    """Windows for the peers, and what each of them is. Fewer than for ours: they take longer."""
    cases: dict[str, Case] = {}
    places: list[dict[str, str]] = []
    for name, (stream, *_) in seasons.items():
        numbers = [column for column, kind in stream.kinds.items() if kind == "number"]
        for number, split in enumerate(seasons[name].splits):
            if quick and (name != "flights" or 0 < number < streams.FOLDS):
                continue
            reference = stream.rows.iloc[split.learned]
            step = stream.window if split.design == YEAR or quick else stream.window // 2
            windows: list[pd.DataFrame] = []
            for stretch in split.stretches:
                if quick and split.design == YEAR and stretch.block not in QUICK_MONTHS:
                    continue
                rows = stream.rows.iloc[stretch.first : stretch.end]
                made = [("", rows)]
                if name == "flights" and number == 0:
                    made += [(one.name, one.change(rows, reference)) for one in INJECTIONS]
                for injection, changed in made:
                    part = stream.window if injection else step
                    some = [changed.iloc[end - stream.window : end] for end in ends(len(changed), stream.window, part)]
                    windows += some
                    about = {"stream": name, "design": split.design, "block": stretch.block, "injection": injection}
                    places += [{**about, "case": f"{name}-{number}"}] * len(some)
            cases[f"{name}-{number}"] = Case(reference, windows, numbers)
    return cases, pd.DataFrame(places)


def of_peers(said: Mapping[str, Mapping[str, Mapping[str, Said]]], places: pd.DataFrame) -> pd.DataFrame:
    """One row a window and detector of a peer."""
    found = []
    for peer, by_case in said.items():
        for case, by_detector in by_case.items():
            for detector, (score, alarm) in by_detector.items():
                of_case = places[places["case"] == case]
                columns = {str(rate): alarm[str(rate)] for rate in RATES}
                found.append(of_case.assign(detector=f"{peer}: {detector}", score=score, **columns))
    return pd.concat(found)


def of_made(streams_each: int) -> pd.DataFrame:
    """Streams whose truth is known, each before and after changes of one number."""
    jobs = [(truth, seed) for truth in TRUTHS for seed in range(streams_each)]
    found = []
    with ProcessPoolExecutor(2) as pool:
        for number, part in enumerate(pool.map(_one_made, jobs), 1):
            found += part
            if number % streams_each == 0:
                tell(f"made streams: {jobs[number - 1][0]}")
    return pd.DataFrame(found)


def _one_made(job: tuple[str, int]) -> list[dict[str, Any]]:
    truth, seed = job
    stream = streams.made(seed, LEARNED_DAYS + TESTED_DAYS, *TRUTHS[truth])
    first = LEARNED_DAYS * streams.DAY_ROWS
    detector = Detector(stream, np.arange(first))
    tested = stream.rows.iloc[first:]
    found = detector.judged(tested, stream.window, truth=truth, block=seed, size=0.0)
    at = TESTED_DAYS // 2 * stream.window + stream.window // 2  # the known row, amid a window
    part = tested.iloc[at - stream.window // 2 - 2 * stream.window : at + PATIENCE * stream.window]
    for size in CHANGES:
        changed = part.assign(**{CHANGED: part[CHANGED] + size * (np.arange(len(part)) >= 2.5 * stream.window)})
        found += detector.judged(changed, stream.window, truth=truth, block=seed, size=size)
    return found


if __name__ == "__main__":
    sys.exit(main())
