"""Scoring: standardize a window's statistics by the drift profile and compare them with its threshold."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from driftloop.drift.profile import CalibratedSpan, DriftProfile, NullDistribution
from driftloop.drift.statistics import StatisticKey
from driftloop.drift.tails import LASTING_SCORE
from driftloop.events import Finding

StatisticValues = Mapping[StatisticKey, float]
MIN_RELATIVE_IMPORTANCE = 0.05  # of a column that the model hardly uses: its drift may be an early sign


class SpanScore(NamedTuple):
    """The score of a span: one window, or some consecutive windows taken as one."""

    windows: int
    """The number of windows."""
    score: float
    """The largest standardized statistic."""
    threshold: float
    """A score above it is an alarm."""
    findings: list[Finding]
    """One finding per statistic."""
    stretch: int
    """The number of the stretch that the window is nearest to, and is judged by."""


class WindowScore(NamedTuple):
    """The scores of a window, alone and together with the windows before it."""

    spans: list[SpanScore]
    """The window alone first."""

    @property
    def alarm(self) -> bool:
        """Whether any statistic is above its threshold."""
        return any(finding.drifted for finding in self.findings)

    @property
    def findings(self) -> list[Finding]:
        """The findings of all spans."""
        return [finding for span in self.spans for finding in span.findings]

    @property
    def drifted_findings(self) -> list[Finding]:
        """The findings above their threshold, in descending order of priority."""
        return sorted((finding for finding in self.findings if finding.drifted), key=lambda f: f.priority, reverse=True)


def score_window(profile: DriftProfile, values: Mapping[int, Sequence[StatisticValues]]) -> WindowScore:
    """Score a window by a drift profile.

    One score threshold bounds the rate of false alarms of all columns together. The threshold of a single statistic is
    location + score threshold · scale, so a window is an alarm exactly if one of its statistics is above its threshold.
    Of windows taken as one, a statistic counts only if the latest window alone is not as usual, too.

    A window is judged by the stretch of the reference for which its score is the lowest: it is unusual if it is like
    none of them.

    Args:
        profile: The calibration of the reference.
        values: Statistics against each stretch, by the number of consecutive windows that they were computed from.
            Spans without statistics are left out of the result.
    """
    single = profile.spans[0]
    spans = []
    for span in profile.spans:
        if span.windows not in values:
            continue
        scores = [
            _score_span(profile, span, number, statistics, _latest(single, span, number, values))
            for number, statistics in enumerate(values[span.windows])
        ]
        spans.append(min(scores, key=lambda score: score.score))
    return WindowScore(spans)


def _latest(
    single: CalibratedSpan, span: CalibratedSpan, stretch: int, values: Mapping[int, Sequence[StatisticValues]]
) -> dict[StatisticKey, float]:
    """Return the latest window's standardized statistics, if the span has several windows and they are known."""
    if span.windows == 1 or single.windows not in values:
        return {}
    statistics = values[single.windows][stretch]
    keys = {StatisticKey(null.column, null.statistic): null for null in single.null_distributions}
    return {key: _standardize(null, statistics[key]) for key, null in keys.items()}


def _score_span(
    profile: DriftProfile,
    span: CalibratedSpan,
    stretch: int,
    values: StatisticValues,
    latest: StatisticValues,
) -> SpanScore:
    score, findings = -math.inf, []
    for null in span.null_distributions:
        key = StatisticKey(null.column, null.statistic)
        value, threshold = values[key], span.threshold(null)
        is_missing = math.isnan(value)  # the column has no value to compare; missing_rate_change reports that
        standardized = _standardize(null, value)
        is_lasting = latest.get(key, math.inf) > LASTING_SCORE
        if not is_lasting:
            standardized = min(standardized, LASTING_SCORE)
        score = max(score, standardized)
        threshold_ratio = 0.0 if is_missing else max(standardized / span.score_threshold, 0.0)
        findings.append(
            Finding(
                column=null.column,
                method=null.statistic,
                windows=span.windows,
                value=None if is_missing else value,
                threshold=threshold,
                drifted=not is_missing and is_lasting and value > threshold,
                priority=threshold_ratio * _relative_importance(profile, null),
            )
        )
    return SpanScore(span.windows, score, span.score_threshold, findings, stretch)


def _standardize(null: NullDistribution, value: float) -> float:
    return -math.inf if math.isnan(value) else (value - null.location) / null.scale


def _relative_importance(profile: DriftProfile, null: NullDistribution) -> float:
    """Return a column's importance relative to the largest one; 1 for the prediction and where none is known."""
    largest = max(profile.importance.values(), default=0.0)
    if largest <= 0 or null.column not in profile.importance:
        return 1.0
    return max(profile.importance[null.column] / largest, MIN_RELATIVE_IMPORTANCE)
