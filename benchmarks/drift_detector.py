"""Driftloop's detector for benchmarks, as in the drift worker, and evidently's default rule on the same distances."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset

from benchmarks.detector_power import RATES
from benchmarks.drift_streams import Stream
from driftloop.drift.calibration import calibrate
from driftloop.drift.data_checks import check_data
from driftloop.drift.distances import IntArray
from driftloop.drift.prepared_profile import PreparedProfile
from driftloop.drift.scoring import score_window
from driftloop.drift.statistics import window_statistics
from driftloop.events import Finding

SPAN_WINDOWS = 3  # windows that are scored together
PRESET_THRESHOLD = 0.1  # evidently's default threshold, for references of more than 1,000 rows


class Detector:
    """Driftloop's detector, as in the drift worker, and evidently's default rule on the same distances."""

    def __init__(self, stream: Stream, reference: IntArray) -> None:
        """Calibrate driftloop with the rows at the positions ``reference`` of the stream."""
        self.stream = stream
        self.reference = stream.rows.iloc[reference]
        days = stream.days[reference]
        self.profiles = {
            rate: calibrate(
                self.reference, days, stream.column_types, window_rows=stream.window_rows, false_alarm_rate=rate
            )
            for rate in RATES
        }
        first = next(iter(self.profiles.values()))
        self._prepared = PreparedProfile.prepare(first, self.reference)
        self._normally_constant = first.normally_constant_columns

    def score_windows(self, rows: pd.DataFrame, step: int, **labels: object) -> list[dict[str, Any]]:
        """Score the windows of consecutive rows; return a dictionary per window, with ``labels`` added to each.

        ``single`` and ``rolling`` are the columns that drifted in the window alone and together with the two windows
        before it. ``rolling`` is None if there are fewer windows ``before``, or if the reference is too small for it.
        ``score`` is the score of the single window divided by its threshold.
        """
        return [
            {**self._score_window(rows, end), **labels} for end in window_ends(len(rows), self.stream.window_rows, step)
        ]

    def _score_window(self, rows: pd.DataFrame, end: int) -> dict[str, Any]:
        length = self.stream.window_rows
        window = rows.iloc[end - length : end]
        values, has_before = {1: self._prepared.statistics(window)}, end >= SPAN_WINDOWS * length
        if has_before:
            values[SPAN_WINDOWS] = self._prepared.statistics(rows.iloc[end - SPAN_WINDOWS * length : end])
        whole = window_statistics(self._prepared.whole, window)
        distances = [v for key, v in whole.items() if key.statistic in ("wasserstein", "jensenshannon")]
        is_over = np.array(distances) >= PRESET_THRESHOLD
        result: dict[str, Any] = {
            "end": end,
            "before": has_before,
            "evidently any": bool(is_over.any()),
            "evidently half": bool(is_over.mean() >= 0.5),
            "evidently score": float(np.nanmax(distances)),
            "issues": {issue.column for issue in check_data(self._prepared.whole, window, self._normally_constant)},
        }
        for rate, profile in self.profiles.items():
            by_span = {span.windows: span for span in score_window(profile, values).spans}
            result[f"single {rate}"] = _drifted_columns(by_span[1].findings)
            result[f"rolling {rate}"] = (
                _drifted_columns(by_span[SPAN_WINDOWS].findings) if SPAN_WINDOWS in by_span else None
            )
            if rate == RATES[0]:
                result["score"] = by_span[1].score / by_span[1].threshold
        return result

    def preset_agrees(self, rows: pd.DataFrame) -> bool:
        """Return whether evidently's preset with defaults finds the same number of drifted columns."""
        numbers, categories = (
            [c for c, k in self.stream.column_types.items() if k == kind] for kind in ("number", "category")
        )
        definition = DataDefinition(numerical_columns=numbers, categorical_columns=categories)
        datasets = [Dataset.from_pandas(frame, definition) for frame in (rows, self.reference)]
        results = Report([DataDriftPreset()]).run(*datasets).metric_results.values()
        (expected,) = [result.count.value for result in results if hasattr(result, "count")]
        values = window_statistics(self._prepared.whole, rows)
        count = sum(
            v >= PRESET_THRESHOLD for key, v in values.items() if key.statistic in ("wasserstein", "jensenshannon")
        )
        return bool(count == expected)


def _drifted_columns(findings: Iterable[Finding]) -> set[str]:
    return {finding.column for finding in findings if finding.drifted}


def window_ends(rows: int, window: int, step: int) -> range:
    """Return the ends of windows that start ``step`` rows apart."""
    return range(window, rows + 1, step)
